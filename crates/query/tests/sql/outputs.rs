//! The sample table, and answers as bytes.

use std::sync::Arc;

use arrow::array::{Array, AsArray};
use futures::StreamExt;
use trine_model::{Severity, SpanId, TenantId, TraceId};
use trine_query::{
    SqlEngine, SqlRequest,
    output::{Format, encode},
};
use trine_schema::{Labels, LogBatchBuilder, LogRecord};

use crate::memory::{MemoryTables, limits, runtime};

/// 2024-05-01T12:00:00Z.
pub const NOON: i64 = 1_714_564_800_000_000_000;

const BODIES: [&str; 6] = [
    "user login ok",
    "timeout talking to db in 30 ms",
    "Timeout: disk at 100%",
    "served /cart/items",
    "line one\nline two",
    "größer als 5",
];

/// 60 rows of five streams over ten minutes, and one row of another tenant.
pub fn sample() -> MemoryTables {
    let mut tables = MemoryTables::default();
    let tenant = TenantId::default();
    let streams: Vec<u32> = [
        &[("service.name", "cart"), ("k8s.pod.name", "cart-1"), ("env", "prod"), ("pod", "a")][..],
        &[("service.name", "cart"), ("k8s.pod.name", "cart-2"), ("env", "dev"), ("region", "eu")],
        &[("app", "web"), ("env", ""), ("Cluster", "one"), ("pod", "b")],
        &[("job", "db"), ("env", "prod")],
        &[],
    ]
    .iter()
    .map(|labels| tables.registry.intern(&tenant, Labels::from_pairs(labels)).unwrap())
    .collect();
    let severities = [9, 0, 17, 5, 13, 21, 10, 1];
    for part in 0..3 {
        let mut builder = LogBatchBuilder::new(tenant.clone(), 20, 1000);
        for row in (part * 20..part * 20 + 20).map(|row: usize| row) {
            builder.body(BODIES[row * 7 % 6]);
            if row % 3 == 0 {
                builder.attribute("user", &format!("u{}", row % 9));
                builder.attribute_display("http.status", 200 + row % 5 * 100);
            }
            if row % 10 == 4 {
                builder.attribute("region", "us");
            }
            let mut id = [0; 16];
            id[15] = 42 + row as u8 / 10;
            let traced = row % 5 == 0;
            builder
                .push(&LogRecord {
                    stream: streams[row * row % 11 % 5],
                    timestamp: NOON + row as i64 * 10_000_000_000 + (row % 4) as i64,
                    observed_timestamp: (row % 2 == 0).then_some(NOON),
                    severity: Severity::from_number(severities[row % 8]),
                    severity_text: if row % 8 == 2 { "err" } else { "" },
                    trace_id: traced.then_some(TraceId(id)),
                    span_id: traced.then_some(SpanId([7; 8])),
                    ..LogRecord::default()
                })
                .unwrap();
        }
        tables.batches.push(builder.finish());
    }
    let other = TenantId::new("other").unwrap();
    let stream = tables.registry.intern(&other, Labels::from_pairs(&[("secret", "yes")])).unwrap();
    let mut builder = LogBatchBuilder::new(other, 1, 10);
    builder.body("not yours");
    builder.push(&LogRecord { stream, timestamp: NOON, ..LogRecord::default() }).unwrap();
    tables.batches.push(builder.finish());
    tables
}

fn encoded(sql: &str, format: Format) -> Vec<u8> {
    let engine = SqlEngine::new(Arc::new(sample()), limits());
    runtime().block_on(async {
        let answer = engine.query(SqlRequest::new(TenantId::default(), sql)).await.unwrap();
        let mut bytes = Vec::new();
        let mut parts = Box::pin(encode(format, &answer.schema, answer.stream));
        while let Some(part) = parts.next().await {
            bytes.extend_from_slice(&part.unwrap());
        }
        bytes
    })
}

const QUERY: &str = "SELECT timestamp, service, level, attributes, severity_number AS n, trace_id, body FROM logs \
                     WHERE body LIKE '%line%' ORDER BY timestamp LIMIT 2";

#[test]
fn json_is_one_array_and_nulls_are_written() {
    let text = String::from_utf8(encoded(QUERY, Format::Json)).unwrap();
    let expected = r#"[{"timestamp":"2024-05-01T12:00:40Z","service":"cart","level":"WARN","attributes":{"region":"us"},"n":13,"trace_id":null,"body":"line one\nline two"},{"timestamp":"2024-05-01T12:01:40.000000002Z","service":"cart","level":"ERROR","attributes":{},"n":17,"trace_id":"0000000000000000000000000000002b","body":"line one\nline two"}]"#;
    assert_eq!(text, expected);
    assert_eq!(encoded("SELECT body FROM logs WHERE false", Format::Json), b"[]");
}

#[test]
fn json_lines_have_one_object_each() {
    let text = String::from_utf8(encoded(QUERY, Format::JsonLines)).unwrap();
    assert_eq!(text.lines().count(), 2);
    let row: serde_json::Value = serde_json::from_str(text.lines().next().unwrap()).unwrap();
    assert_eq!(row["attributes"]["region"], "us");
    assert!(row["trace_id"].is_null());
    assert_eq!(encoded("SELECT body FROM logs WHERE false", Format::JsonLines), b"");
}

#[test]
fn csv_has_a_header_even_without_rows_and_writes_maps_as_json() {
    let text = String::from_utf8(encoded(QUERY, Format::Csv)).unwrap();
    let expected = "timestamp,service,level,attributes,n,trace_id,body\n\
        2024-05-01T12:00:40Z,cart,WARN,\"{\"\"region\"\":\"\"us\"\"}\",13,,\"line one\nline two\"\n\
        2024-05-01T12:01:40.000000002Z,cart,ERROR,{},17,0000000000000000000000000000002b,\"line one\nline two\"\n";
    assert_eq!(text, expected);
    assert_eq!(encoded("SELECT body, level FROM logs WHERE false", Format::Csv), b"body,level\n");
}

#[test]
fn arrow_streams_use_plain_text_types() {
    let bytes = encoded("SELECT service, body FROM logs ORDER BY timestamp", Format::Arrow);
    let reader = arrow_ipc::reader::StreamReader::try_new(bytes.as_slice(), None).unwrap();
    let batches: Vec<_> = reader.map(Result::unwrap).collect();
    assert_eq!(batches.iter().map(arrow::array::RecordBatch::num_rows).sum::<usize>(), 60);
    let services = batches[0].column(0).as_string::<i32>();
    assert!(services.is_valid(0));
    let empty = encoded("SELECT service FROM logs WHERE false", Format::Arrow);
    let reader = arrow_ipc::reader::StreamReader::try_new(empty.as_slice(), None).unwrap();
    assert_eq!(reader.schema().field(0).name(), "service");
    assert_eq!(reader.count(), 0);
}
