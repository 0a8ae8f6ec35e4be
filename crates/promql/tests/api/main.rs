//! Bodies of Prometheus' HTTP API, over tables in memory.

mod chunks;
mod memory;
mod other;

use std::{
    env,
    fmt::Write as _,
    fs,
    sync::Arc,
    time::{Duration, Instant},
};

use memory::Memory;
use trine_model::TenantId;
use trine_promql::api::{Api, Endpoint, Reply, Request};
use trine_schema::{
    BucketSpans, Exemplar, Labels, Metadata, NativeHistogram, ResetHint, Samples, metrics::STALE_NAN,
};

/// Now, for the API: 2023-11-14T22:13:20Z.
const NOW: i64 = 1_700_000_000_000;
const CASES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/api/cases.txt");

fn tables() -> Memory {
    let mut tables = Memory::default();
    let counter = |start: f64| -> Vec<(i64, f64)> {
        (0..20).map(|at| (NOW - (19 - at) * 15_000, start + at as f64 * 1.5)).collect()
    };
    tables.floats(&[("__name__", "m_total"), ("job", "a<b")], &counter(0.0));
    tables.floats(&[("__name__", "m_total"), ("job", "c"), ("path", "/x\"")], &counter(100.25));
    let ended = [(NOW - 15_000, 1.0), (NOW, f64::from_bits(STALE_NAN))];
    tables.floats(&[("__name__", "gone"), ("job", "c")], &ended);
    let histogram = NativeHistogram {
        reset_hint: ResetHint::Gauge,
        schema: 0,
        zero_threshold: 0.001,
        zero_count: 1.0,
        count: 6.0,
        sum: 12.5,
        positive: BucketSpans { spans: vec![(0, 2), (1, 1)], counts: vec![1.0, 2.0, 1.0] },
        negative: BucketSpans { spans: vec![(0, 1)], counts: vec![1.0] },
        custom_bounds: Vec::new(),
    };
    let custom = NativeHistogram {
        schema: trine_schema::CUSTOM_BOUNDS,
        count: 3.0,
        sum: 2.0,
        positive: BucketSpans { spans: vec![(0, 3)], counts: vec![1.0, 0.0, 2.0] },
        custom_bounds: vec![0.5, 1.0],
        ..NativeHistogram::default()
    };
    let samples = Samples {
        histogram_timestamps: vec![NOW - 30_000, NOW],
        histograms: vec![Arc::new(histogram), Arc::new(custom)],
        ..Samples::default()
    };
    tables.add(&[("__name__", "h")], samples);
    for (job, at) in [("c", 3), ("c", 5), ("d", 4)] {
        tables.exemplars.push(Exemplar {
            series: tables.stream(&[("__name__", "m_total"), ("job", job)]),
            timestamp: NOW + at,
            value: 0.25,
            labels: Labels::from_pairs(&[("trace_id", "abc")]),
        });
    }
    let metadata =
        |kind: &str, help: &str| Metadata { kind: kind.into(), unit: String::new(), help: help.into() };
    tables.metadata.push(("h".into(), metadata("histogram", "a \"help\"")));
    tables.metadata.push(("m_total".into(), metadata("counter", "")));
    tables
}

fn with_request<T>(tables: &Memory, params: &str, ask: impl FnOnce(&Api, &Request<'_>) -> T) -> T {
    let params = params.split('&').filter(|pair| !pair.is_empty());
    let params = params.map(|pair| pair.split_once('=').expect("name=value"));
    let params: Vec<_> = params.map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
    let request = Request {
        params: &params,
        tenant: TenantId::default(),
        tables,
        now_ms: NOW,
        deadline: Instant::now() + Duration::from_secs(60),
        stats: Arc::default(),
    };
    ask(&Api::default(), &request)
}

fn endpoint(path: &str) -> Endpoint {
    match path {
        "query" => Endpoint::Query,
        "query_range" => Endpoint::QueryRange,
        "query_exemplars" => Endpoint::QueryExemplars,
        "format_query" => Endpoint::FormatQuery,
        "parse_query" => Endpoint::ParseQuery,
        "series" => Endpoint::Series,
        "labels" => Endpoint::Labels,
        "metadata" => Endpoint::Metadata,
        "status/tsdb" => Endpoint::TsdbStatus,
        path => {
            let name = path.strip_prefix("label/").and_then(|rest| rest.strip_suffix("/values"));
            Endpoint::LabelValues(name.unwrap_or_else(|| panic!("{path} is unknown")).to_owned())
        }
    }
}

/// Asks as a URL does, without escapes.
fn ask(tables: &Memory, path: &str, params: &str) -> String {
    let reply: Reply = with_request(tables, params, |api, request| api.answer(&endpoint(path), request));
    let body = String::from_utf8(reply.body).expect("UTF-8");
    serde_json::from_str::<serde_json::Value>(&body).expect("JSON");
    let body = match body.split_once(",\"stats\":") {
        // Times differ from run to run.
        Some((before, after)) => {
            let (_, samples) = after.split_once("\"samples\"").expect("samples");
            format!("{before},\"stats\":{{…\"samples\"{samples}")
        }
        None => body,
    };
    format!("{} {body}", reply.status)
}

/// Each case is a line with path and parameters, and one with status and body. `UPDATE_EXPECT=1` writes the
/// answers into the file.
#[test]
fn bodies_are_those_expected() {
    let tables = tables();
    let text = fs::read_to_string(CASES).expect("cases.txt");
    let mut answered = String::new();
    let mut wrong = String::new();
    for block in text.split("\n\n").map(str::trim).filter(|block| !block.is_empty()) {
        if block.starts_with('#') {
            let _ = writeln!(answered, "{block}\n");
            continue;
        }
        let (question, expected) = block.split_once('\n').unwrap_or((block, ""));
        let (path, params) = question.split_once(' ').unwrap_or((question, ""));
        let answer = ask(&tables, path, params);
        if answer != expected {
            let _ = writeln!(wrong, "{question}\n  expected {expected}\n  found    {answer}");
        }
        let _ = writeln!(answered, "{question}\n{answer}\n");
    }
    if env::var_os("UPDATE_EXPECT").is_some() {
        fs::write(CASES, answered.trim_end().to_owned() + "\n").expect("cases.txt");
    } else {
        assert!(wrong.is_empty(), "{wrong}");
    }
}
