//! What is missing or fails, federation, remote read and what the server tells of itself.

use trine_promql::api::{Api, Facts, PROMETHEUS_VERSION, Reply, Report, decode_read_request, report};
use trine_schema::ScanError;

use crate::{NOW, ask, tables, with_request};

#[test]
fn what_is_missing_is_told_and_what_fails_is_named() {
    let mut tables = tables();
    tables.missing = Some("segment 7 is quarantined".to_owned());
    let warned = r#""warnings":["segment 7 is quarantined"]}"#;
    for (path, params) in [("query", "query=h"), ("labels", ""), ("series", "match[]=h")] {
        let answer = ask(&tables, path, params);
        assert!(answer.starts_with("200") && answer.ends_with(warned), "{answer}");
    }
    let mut fails = |error, status, kind, message| {
        tables.broken = Some(error);
        let expected =
            format!("{status} {{\"status\":\"error\",\"errorType\":\"{kind}\",\"error\":\"{message}\"}}");
        assert_eq!(ask(&tables, "query", "query=h"), expected);
    };
    fails(ScanError::Storage("disk".to_owned()), 500, "internal", "reading stored data failed: disk");
    let late = "the query ran into its time limit after 5 ms; narrow the time range or add a filter";
    fails(ScanError::Deadline(5), 503, "timeout", late);
    // A part of the samples must not pass for all of them where nobody can be warned.
    let queries = decode_read_request(&read_request("h", 0, i64::MAX)).unwrap().queries;
    let reply = with_request(&tables, "", |api, request| api.remote_read(request, &queries));
    assert_eq!(reply.status, 503);
    tables.broken = None;
    let reply = with_request(&tables, "", |api, request| api.remote_read(request, &queries));
    assert_eq!((reply.status, reply.body), (500, b"segment 7 is quarantined\n".to_vec()));
}

#[test]
fn federation_gives_the_newest_samples_as_text() {
    let mut tables = tables();
    tables.floats(&[("__name__", "a.b"), ("c d", "\\\n"), ("instance", "i")], &[(NOW, 1e-7)]);
    tables.floats(&[("__name__", "old")], &[(NOW - 300_001, 1.0)]);
    let body = |params| {
        let reply = with_request(&tables, params, Api::federate);
        (reply.status, String::from_utf8(reply.body).unwrap())
    };
    let expected = r#"# TYPE "a.b" untyped
{"a.b","c d"="\\\n",instance="i"} 1e-07 1700000000000
# TYPE h histogram
h_bucket{instance="",le="0.5"} 1 1700000000000
h_bucket{instance="",le="1"} 1 1700000000000
h_bucket{instance="",le="+Inf"} 3 1700000000000
h_sum{instance=""} 2 1700000000000
h_count{instance=""} 3 1700000000000
# TYPE m_total counter
m_total{job="a<b",instance=""} 28.5 1700000000000
m_total{job="c",path="/x\"",instance=""} 128.75 1700000000000
"#;
    assert_eq!(body("match[]={__name__=~\".+\"}&match[]=m_total"), (200, expected.to_owned()));
    assert_eq!(body(""), (200, String::new()));
    assert_eq!(body("match[]={").0, 400);
}

fn field(out: &mut Vec<u8>, number: u8, bytes: &[u8]) {
    out.extend_from_slice(&[number << 3 | 2, bytes.len() as u8]);
    out.extend_from_slice(bytes);
}

fn varint(out: &mut Vec<u8>, number: u8, mut value: u64) {
    out.push(number << 3);
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

pub fn read_request(metric: &str, start: i64, end: i64) -> Vec<u8> {
    let (mut matcher, mut query, mut request) = (Vec::new(), Vec::new(), Vec::new());
    varint(&mut matcher, 1, 2);
    field(&mut matcher, 2, b"__name__");
    field(&mut matcher, 3, metric.as_bytes());
    varint(&mut query, 1, start as u64);
    varint(&mut query, 2, end as u64);
    field(&mut query, 3, &matcher);
    field(&mut request, 1, &query);
    varint(&mut request, 2, 1);
    snap::raw::Encoder::new().compress_vec(&request).unwrap()
}

#[test]
fn remote_read_answers_samples() {
    let tables = tables();
    let read = |body: &[u8]| {
        let queries = decode_read_request(body).unwrap().queries;
        with_request(&tables, "", |api, request| api.remote_read(request, &queries))
    };
    let reply = read(&read_request("m_.*", NOW - 15_000, NOW));
    assert_eq!((reply.status, reply.encoding), (200, Some("snappy")));
    let answer = snap::raw::Decoder::new().decompress_vec(&reply.body).unwrap();
    let mut expected = Vec::new();
    let (mut result, mut series, mut part) = (Vec::new(), Vec::new(), Vec::new());
    for (labels, values) in [
        (&[("__name__", "m_total"), ("job", "a<b")][..], [27.0f64, 28.5]),
        (&[("__name__", "m_total"), ("job", "c"), ("path", "/x\"")], [127.25, 128.75]),
    ] {
        series.clear();
        for (name, value) in labels {
            part.clear();
            field(&mut part, 1, name.as_bytes());
            field(&mut part, 2, value.as_bytes());
            field(&mut series, 1, &part);
        }
        for (value, time) in values.into_iter().zip([NOW - 15_000, NOW]) {
            part.clear();
            part.push(1 << 3 | 1);
            part.extend_from_slice(&value.to_le_bytes());
            varint(&mut part, 2, time as u64);
            field(&mut series, 2, &part);
        }
        field(&mut result, 1, &series);
    }
    expected.extend_from_slice(&[1 << 3 | 2, result.len() as u8 | 0x80, (result.len() >> 7) as u8]);
    expected.extend_from_slice(&result);
    assert_eq!(answer, expected);
    let histograms = read(&read_request("h", NOW, NOW));
    let answer = snap::raw::Decoder::new().decompress_vec(&histograms.body).unwrap();
    // Count 3, field 2 of a histogram.
    assert!(answer.windows(9).any(|bytes| bytes[0] == 2 << 3 | 1 && bytes[1..] == 3f64.to_le_bytes()));
}

#[test]
fn read_requests_that_are_none_are_refused() {
    let whole = read_request("h", 1, 2);
    let queries = decode_read_request(&whole).unwrap().queries;
    assert_eq!((queries.len(), queries[0].start_ms, queries[0].end_ms), (1, 1, 2));
    assert_eq!(queries[0].matchers[0].to_string(), "__name__=~\"h\"");
    let compressed = |bytes: &[u8]| snap::raw::Encoder::new().compress_vec(bytes).unwrap();
    let plain = snap::raw::Decoder::new().decompress_vec(&whole).unwrap();
    for cut in 1..plain.len() - 2 {
        assert!(decode_read_request(&compressed(&plain[..cut])).is_err(), "cut at {cut}");
    }
    assert!(decode_read_request(b"\xff\xff\xff\xff\x0f").is_err());
    assert!(decode_read_request(&read_request("(", 1, 2)).is_err());
    assert!(decode_read_request(b"x").is_err());
}

#[test]
fn the_server_tells_about_itself() {
    let facts = Facts {
        version: "0.1.0".into(),
        config: "http: here\n".into(),
        start_ms: NOW,
        retention: "15d".into(),
        ..Facts::default()
    };
    let data = |what| {
        let reply: Reply = report(what, &facts, NOW + 1);
        let body: serde_json::Value = serde_json::from_slice(&reply.body).unwrap();
        assert_eq!((reply.status, body["status"].as_str()), (200, Some("success")));
        body["data"].clone()
    };
    assert_eq!(data(Report::BuildInfo)["version"], PROMETHEUS_VERSION);
    assert_eq!(data(Report::Config)["yaml"], "http: here\n");
    let runtime = data(Report::RuntimeInfo);
    assert_eq!(runtime["startTime"], "2023-11-14T22:13:20Z");
    assert_eq!(runtime["serverTime"], "2023-11-14T22:13:20.001Z");
    assert_eq!(runtime["storageRetention"], "15d");
    assert_eq!(data(Report::Rules).to_string(), r#"{"groups":[]}"#);
    let failed = Reply::failed(400, "no tenant");
    let expected = r#"{"status":"error","errorType":"bad_data","error":"no tenant"}"#;
    assert_eq!(String::from_utf8(failed.body).unwrap(), expected);
}
