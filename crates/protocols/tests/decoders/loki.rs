//! Loki push against messages that prost encodes, and against JSON that serde_json writes.

use proptest::{collection::vec, prelude::*};
use prost::Message;
use trine_protocols::loki::{decode_push_json, decode_push_protobuf};
use trine_schema::Labels;

use crate::rows::{Context, NOW, Row};

#[derive(Clone, PartialEq, Message)]
pub struct PushRequest {
    #[prost(message, repeated, tag = "1")]
    pub streams: Vec<StreamAdapter>,
}

#[derive(Clone, PartialEq, Message)]
pub struct StreamAdapter {
    #[prost(string, tag = "1")]
    pub labels: String,
    #[prost(message, repeated, tag = "2")]
    pub entries: Vec<EntryAdapter>,
    #[prost(uint64, tag = "3")]
    pub hash: u64,
}

#[derive(Clone, PartialEq, Message)]
pub struct EntryAdapter {
    #[prost(message, optional, tag = "1")]
    pub timestamp: Option<Timestamp>,
    #[prost(string, tag = "2")]
    pub line: String,
    #[prost(message, repeated, tag = "3")]
    pub structured_metadata: Vec<LabelPair>,
}

#[derive(Clone, Copy, PartialEq, Message)]
pub struct Timestamp {
    #[prost(int64, tag = "1")]
    pub seconds: i64,
    #[prost(int32, tag = "2")]
    pub nanos: i32,
}

#[derive(Clone, PartialEq, Message)]
pub struct LabelPair {
    #[prost(string, tag = "1")]
    pub name: String,
    #[prost(string, tag = "2")]
    pub value: String,
}

fn text() -> impl Strategy<Value = String> {
    prop_oneof!["[a-z .]{0,12}", "\\PC{0,8}", "[\"\\\\\n\u{1}é😀]{0,5}", "[a-z ]{60,90}"]
}

/// A stream's pairs, and its entries: nanoseconds, line, metadata.
type Stream = (Vec<(String, String)>, Vec<(i64, String, Vec<(String, String)>)>);

pub fn streams() -> impl Strategy<Value = Vec<Stream>> {
    let labels = vec(text().prop_map(|value| value + "x"), 1..4).prop_map(|values| {
        values.into_iter().enumerate().map(|(i, value)| (format!("l{i}"), value)).collect::<Vec<_>>()
    });
    let entry = (1..i64::MAX, text(), vec(("m_[a-z]{0,3}", text()), 0..3));
    vec((labels, vec(entry, 0..4)), 0..4)
}

pub fn protobuf(streams: &[Stream]) -> Vec<u8> {
    let streams = streams.iter().map(|(labels, entries)| {
        let pair = |(name, value): &(String, String)| {
            // Go's quoting, spelled the simple way.
            let value = value.chars().map(|c| format!("\\U{:08x}", u32::from(c))).collect::<String>();
            format!("{name}=\"{value}\"")
        };
        let labels = format!("{{{}}}", labels.iter().map(pair).collect::<Vec<_>>().join(", "));
        let entries = entries.iter().map(|(time, line, metadata)| EntryAdapter {
            timestamp: Some(Timestamp {
                seconds: time / 1_000_000_000,
                nanos: (time % 1_000_000_000) as i32,
            }),
            line: line.clone(),
            structured_metadata: metadata
                .iter()
                .map(|(name, value)| LabelPair { name: name.clone(), value: value.clone() })
                .collect(),
        });
        StreamAdapter { labels, entries: entries.collect(), hash: 7 }
    });
    PushRequest { streams: streams.collect() }.encode_to_vec()
}

fn expected(streams: &[Stream]) -> Vec<Row> {
    let row = |labels: &Vec<(String, String)>,
               (time, line, metadata): &(i64, String, Vec<(String, String)>)| Row {
        labels: Labels::new(labels.iter().map(|(k, v)| (k.as_str().into(), v.as_str().into())).collect())
            .unwrap()
            .to_json(),
        timestamp: *time,
        body: line.clone(),
        attributes: metadata.clone(),
        ..Row::default()
    };
    streams.iter().flat_map(|(labels, entries)| entries.iter().map(move |entry| row(labels, entry))).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    /// Whatever a prost client encodes arrives field by field.
    #[test]
    fn protobuf_of_prost_arrives_whole(streams in streams()) {
        let context = Context::default();
        let bytes = protobuf(&streams);
        let decoded = decode_push_protobuf(&bytes, &context.tenant, &context.registry, NOW, &context.limits).unwrap();
        prop_assert_eq!(decoded.error_message(), "");
        prop_assert_eq!(context.rows(&decoded), expected(&streams));
    }

    /// The JSON form arrives too, with the labels before or after the entries, and names the same
    /// streams as the protobuf form.
    #[test]
    fn json_of_serde_arrives_whole(streams in streams(), labels_last in any::<bool>()) {
        let context = Context::default();
        let quoted = |text: &str| serde_json::to_string(text).unwrap();
        let object = |pairs: &[(String, String)]| {
            let pairs = pairs.iter().map(|(name, value)| format!("{}:{}", quoted(name), quoted(value)));
            format!("{{{}}}", pairs.collect::<Vec<_>>().join(","))
        };
        let stream = |(labels, entries): &Stream| {
            let entries = entries.iter().map(|(time, line, metadata)| {
                format!("[\"{time}\", {}, {}]", quoted(line), object(metadata))
            });
            let values = format!("\"values\": [{}]", entries.collect::<Vec<_>>().join(", "));
            let labels = format!("\"stream\": {}", object(labels));
            if labels_last { format!("{{{values},{labels}}}") } else { format!("{{{labels},{values}}}") }
        };
        let json = format!("{{\"streams\":[{}]}}", streams.iter().map(stream).collect::<Vec<_>>().join(","));
        let decoded =
            decode_push_json(json.as_bytes(), &context.tenant, &context.registry, NOW, &context.limits).unwrap();
        prop_assert_eq!(decoded.error_message(), "");
        prop_assert_eq!(context.rows(&decoded), expected(&streams));
        let known = context.registry.len();
        let bytes = protobuf(&streams);
        decode_push_protobuf(&bytes, &context.tenant, &context.registry, NOW, &context.limits).unwrap();
        prop_assert_eq!(context.registry.len(), known);
    }
}

/// Ids and severity words of metadata go to their columns; what does not fit stays an attribute;
/// the stream's level label decides only where the metadata do not.
#[test]
fn metadata_find_their_columns() {
    let context = Context::default();
    let json = r#"{"streams":[{"stream":{"app":"a","level":"error"},"values":[
        ["1","a",{"traceID":"49a51828322183eb20bfe4ace3060000","span_id":"083e5d40259e7999","level":"warning","detected_level":"info"}],
        ["2","b",{"trace_id":"short","severity":"loud","n":1,"o":{"x":[1]},"t":true,"z":null}],
        [3,"c"]]}]}"#;
    let decoded =
        decode_push_json(json.as_bytes(), &context.tenant, &context.registry, NOW, &context.limits).unwrap();
    let pair = |key: &str, value: &str| (key.to_owned(), value.to_owned());
    let base = Row { labels: r#"{"app":"a","level":"error"}"#.into(), severity: 17, ..Row::default() };
    let rows = [
        Row {
            timestamp: 1,
            body: "a".into(),
            severity: 13,
            severity_text: Some("warning".into()),
            trace_id: Some("49a51828322183eb20bfe4ace3060000".into()),
            span_id: Some("083e5d40259e7999".into()),
            attributes: vec![pair("detected_level", "info")],
            ..base.clone()
        },
        Row {
            timestamp: 2,
            body: "b".into(),
            attributes: vec![
                pair("trace_id", "short"),
                pair("severity", "loud"),
                pair("n", "1"),
                pair("o", r#"{"x":[1]}"#),
                pair("t", "true"),
            ],
            ..base.clone()
        },
        Row { timestamp: 3, body: "c".into(), ..base },
    ];
    assert_eq!(context.rows(&decoded), rows);
}

/// A level that repeats from entry to entry fills the column each time, and inside an entry only once.
#[test]
fn levels_that_repeat_stay_levels() {
    let context = Context::default();
    let pairs = |pairs: &[(&str, &str)]| -> Vec<(String, String)> {
        pairs.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect()
    };
    let (warn, info, other) = (("level", "warn"), ("level", "info"), ("severity", "warn"));
    // Metadata of an entry; the level they give and the attributes they leave.
    let entries: [(&[_], Option<&str>, &[_]); 7] = [
        (&[warn], Some("warn"), &[]),
        (&[warn], Some("warn"), &[]),
        (&[warn, warn], Some("warn"), &[warn]),
        (&[info, warn], Some("info"), &[warn]),
        (&[other, info], Some("warn"), &[info]),
        (&[], None, &[]),
        (&[other], Some("warn"), &[]),
    ];
    let sent = entries.map(|(metadata, ..)| (1, "x".to_owned(), pairs(metadata)));
    let bytes = protobuf(&[(pairs(&[("app", "a")]), sent.to_vec())]);
    let decoded =
        decode_push_protobuf(&bytes, &context.tenant, &context.registry, NOW, &context.limits).unwrap();
    let got: Vec<_> = context
        .rows(&decoded)
        .into_iter()
        .map(|row| (row.severity, row.severity_text, row.attributes))
        .collect();
    let number = |word: Option<&str>| word.map_or(0, |word| if word == "warn" { 13 } else { 9 });
    let want = entries.map(|(_, word, left)| (number(word), word.map(Into::into), pairs(left)));
    assert_eq!(got, want);
}
