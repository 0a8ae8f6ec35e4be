//! No bytes make a decoder panic, and a cut message is never taken for a whole one.

use std::sync::Arc;

use arrow::array::RecordBatch;
use proptest::{collection::vec, prelude::*, sample::Index};
use prost::Message as _;
use trine_protocols::{
    Batch, DecodeError, Decoded, Limits, jaeger,
    jsonlines::{self, FieldNames},
    loki, otlp, remote_write, zipkin,
};
use trine_schema::{MetricBatch, SpanBatch};

use crate::rows::{Context, NOW};

/// Every decoder under one face.
pub const DECODERS: [&str; 5] = ["otlp protobuf", "otlp json", "loki protobuf", "loki json", "json lines"];

pub fn decode(which: &str, bytes: &[u8], context: &Context) -> Result<Decoded, DecodeError> {
    let Context { tenant, registry, limits } = context;
    match which {
        "otlp protobuf" => otlp::decode_logs_protobuf(bytes, tenant, registry, NOW, limits),
        "otlp json" => otlp::decode_logs_json(bytes, tenant, registry, NOW, limits),
        "loki protobuf" => loki::decode_push_protobuf(bytes, tenant, registry, NOW, limits),
        "loki json" => loki::decode_push_json(bytes, tenant, registry, NOW, limits),
        _ => jsonlines::decode(bytes, &FieldNames::default(), tenant, registry, NOW, limits),
    }
}

/// Every decoder of spans.
pub const SPAN_DECODERS: [&str; 4] =
    ["otlp protobuf spans", "otlp json spans", "zipkin json", "jaeger thrift"];

pub fn decode_spans(which: &str, bytes: &[u8], context: &Context) -> Result<Decoded<SpanBatch>, DecodeError> {
    let Context { tenant, registry, limits } = context;
    match which {
        "otlp protobuf spans" => otlp::decode_spans_protobuf(bytes, tenant, registry, NOW, limits),
        "otlp json spans" => otlp::decode_spans_json(bytes, tenant, registry, NOW, limits),
        "zipkin json" => zipkin::decode_spans(bytes, tenant, registry, NOW, limits),
        _ => jaeger::decode_batch_thrift(bytes, tenant, registry, NOW, limits),
    }
}

/// Every decoder of metrics.
pub const METRIC_DECODERS: [&str; 4] =
    ["otlp protobuf metrics", "otlp json metrics", "remote write 1", "remote write 2"];

pub fn decode_metrics(
    which: &str,
    bytes: &[u8],
    context: &Context,
) -> Result<Decoded<MetricBatch>, DecodeError> {
    let Context { tenant, registry, limits } = context;
    let deltas = Arc::new(otlp::DeltaState::new(8));
    let otlp = match which {
        "otlp protobuf metrics" => {
            otlp::decode_metrics_protobuf(bytes, tenant, registry, NOW, limits, &deltas)
        }
        "otlp json metrics" => otlp::decode_metrics_json(bytes, tenant, registry, NOW, limits, &deltas),
        "remote write 1" => return remote_write::decode_v1(bytes, tenant, registry, NOW, limits),
        _ => return remote_write::decode_v2(bytes, tenant, registry, NOW, limits),
    };
    let (decoded, update) = otlp?;
    drop(update);
    assert!(deltas.is_empty(), "what was not committed is undone");
    Ok(decoded)
}

fn every_decoder() -> impl Iterator<Item = &'static str> {
    DECODERS.into_iter().chain(SPAN_DECODERS).chain(METRIC_DECODERS)
}

/// Limits small enough that random messages reach them.
fn tight() -> Context {
    Context {
        limits: Limits {
            max_records: 5,
            max_record_bytes: 120,
            max_depth: 2,
            max_attributes_per_record: 2,
            max_events_per_span: 2,
            max_labels_per_stream: 2,
            max_label_name_bytes: 4,
            max_label_value_bytes: 12,
            max_scope_bytes: 40,
            max_expanded_bytes: 900,
            ..Limits::default()
        },
        ..Context::default()
    }
}

/// Decodes under wide and tight limits; what comes out must hold together.
fn survive(which: &str, bytes: &[u8]) {
    for context in [Context::default(), tight()] {
        if SPAN_DECODERS.contains(&which) {
            if let Ok(decoded) = decode_spans(which, bytes, &context) {
                assert_eq!(context.spans(&decoded).len(), decoded.accepted);
                holds(&decoded, decoded.batch.as_ref().map(|batch| &batch.records));
            }
        } else if METRIC_DECODERS.contains(&which) {
            if let Ok(decoded) = decode_metrics(which, bytes, &context) {
                assert!(context.samples(&decoded).len() >= decoded.accepted);
                holds(&decoded, decoded.batch.as_ref().map(|batch| &batch.records));
            }
        } else if let Ok(decoded) = decode(which, bytes, &context) {
            assert_eq!(context.rows(&decoded).len(), decoded.accepted);
            holds(&decoded, decoded.batch.as_ref().map(|batch| &batch.records));
        }
    }
}

fn holds<B: Batch>(decoded: &Decoded<B>, records: Option<&RecordBatch>) {
    assert_eq!(decoded.error_message().is_empty(), decoded.rejected == 0);
    assert!(decoded.first_errors.len() <= decoded.rejected.min(trine_protocols::MAX_FIRST_ERRORS));
    for column in records.map_or(&[][..], RecordBatch::columns) {
        column.to_data().validate_full().unwrap();
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn random_bytes(bytes in vec(any::<u8>(), 0..200)) {
        for which in every_decoder() {
            survive(which, &bytes);
        }
    }

    #[test]
    fn random_json(text in "([\\[{][\"a-c:,0-9 ]{0,10}|\"resourceLogs\":\\[|\"resourceSpans\":\\[|\"resourceMetrics\":\\[|\"scopeMetrics\":\\[|\"metrics\":\\[|\"gauge\":|\"dataPoints\":\\[|\"scopeSpans\":\\[|\"spans\":\\[|\"streams\":\\[|\"values\":|\"stream\":|[\\]}]){0,10}") {
        for which in every_decoder() {
            survive(which, text.as_bytes());
        }
    }

    /// Flipped, inserted and removed bytes in valid messages.
    #[test]
    fn mutated_messages(
        request in crate::otlp::request(),
        spans in crate::otlp_spans::request(),
        metrics in crate::otlp_metrics_any::requests(),
        writes in crate::remote_write::request(),
        streams in crate::loki::streams(),
        edits in vec((any::<Index>(), any::<u8>(), 0..3), 1..6),
    ) {
        let messages = [
            ("otlp protobuf", request.encode_to_vec()),
            ("otlp json", serde_json::to_vec(&request).unwrap()),
            ("otlp protobuf spans", spans.encode_to_vec()),
            ("otlp json spans", serde_json::to_vec(&spans).unwrap()),
            ("otlp protobuf metrics", metrics.encode_to_vec()),
            ("otlp json metrics", serde_json::to_vec(&metrics).unwrap()),
            ("remote write 1", writes.encode_to_vec()),
            ("remote write 2", crate::remote_write::turned(&writes).encode_to_vec()),
            ("zipkin json", ZIPKIN.as_bytes().to_vec()),
            ("jaeger thrift", crate::jaeger::batch(&[crate::jaeger::full(), crate::jaeger::full()])),
            ("loki protobuf", crate::loki::protobuf(&streams)),
        ];
        for (which, mut bytes) in messages {
            for (at, byte, edit) in &edits {
                match edit {
                    _ if bytes.is_empty() => bytes.push(*byte),
                    0 => *at.get_mut(&mut bytes) = *byte,
                    1 => bytes.insert(at.index(bytes.len()), *byte),
                    _ => {
                        bytes.remove(at.index(bytes.len()));
                    }
                }
            }
            survive(which, &bytes);
        }
    }
}

const ZIPKIN: &str = r#"[{"traceId":"5af7183fb1d4cf5f","id":"352bff9a74ca9ad2","parentId":"1","name":"\u00e9","timestamp":5,"duration":1,"kind":"SERVER","localEndpoint":{"serviceName":"a","port":1},"annotations":[{"timestamp":5,"value":"ws"}],"tags":{"error":"x","k":"v"},"shared":true}]"#;

/// Accepted and rejected.
fn counts(which: &str, bytes: &[u8], context: &Context) -> Result<(usize, usize), DecodeError> {
    if SPAN_DECODERS.contains(&which) {
        return decode_spans(which, bytes, context).map(|decoded| (decoded.accepted, decoded.rejected));
    }
    if METRIC_DECODERS.contains(&which) {
        return decode_metrics(which, bytes, context).map(|decoded| (decoded.accepted, decoded.rejected));
    }
    decode(which, bytes, context).map(|decoded| (decoded.accepted, decoded.rejected))
}

/// A message cut at any offset is refused, except where the cut leaves whole top-level fields
/// (protobuf) or whole lines (JSON lines).
#[test]
fn cut_at_every_offset() {
    let request = serde_json::json!({"resourceLogs": [
        {"resource": {"attributes": [{"key": "service.name", "value": {"stringValue": "cart"}}]},
         "scopeLogs": [{"scope": {"name": "s", "version": "1"}, "logRecords": [
            {"timeUnixNano": "5", "severityText": "INFO", "body": {"stringValue": "hi \"there\" \u{e9}"},
             "attributes": [{"key": "a", "value": {"arrayValue": {"values": [{"intValue": "1"}, {"doubleValue": 0.5}]}}}],
             "traceId": "49a51828322183eb20bfe4ace3060000", "spanId": "083e5d40259e7999", "flags": 1}]}]}]});
    let json = request.to_string();
    let typed: opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest =
        serde_json::from_str(&json).unwrap();
    let spans = serde_json::json!({"resourceSpans": [
        {"resource": {"attributes": [{"key": "service.name", "value": {"stringValue": "cart"}}]},
         "scopeSpans": [{"scope": {"name": "s", "version": "1"}, "spans": [
            {"traceId": "49a51828322183eb20bfe4ace3060000", "spanId": "083e5d40259e7999", "parentSpanId": "083e5d40259e7998",
             "name": "GET \u{e9}", "kind": 2, "startTimeUnixNano": "5", "endTimeUnixNano": "9", "flags": 1, "traceState": "a=b",
             "status": {"code": 2, "message": "no"},
             "attributes": [{"key": "a", "value": {"arrayValue": {"values": [{"intValue": "1"}, {"doubleValue": 0.5}]}}}],
             "events": [{"timeUnixNano": "6", "name": "e", "attributes": [{"key": "k", "value": {"boolValue": true}}]}],
             "links": [{"traceId": "49a51828322183eb20bfe4ace3060000", "spanId": "083e5d40259e7999", "traceState": "x=y"}]}]}]}]});
    let span_json = spans.to_string();
    let typed_spans: opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest =
        serde_json::from_str(&span_json).unwrap();
    let metrics = crate::otlp_metrics::one_histogram();
    let write = crate::remote_write::one_histogram();
    let entry = vec![("l".to_owned(), "v".to_owned())];
    let streams = [(entry.clone(), vec![(5, "line".to_owned(), entry)])];
    let loki = r#"{"streams":[{"stream":{"a":"b"},"values":[["5","line \u00e9",{"m":"x"}]]}]}"#;
    let messages = [
        ("otlp protobuf", typed.encode_to_vec()),
        ("otlp json", json.into_bytes()),
        ("loki protobuf", crate::loki::protobuf(&streams)),
        ("otlp protobuf spans", typed_spans.encode_to_vec()),
        ("otlp json spans", span_json.into_bytes()),
        ("otlp protobuf metrics", metrics.encode_to_vec()),
        ("otlp json metrics", serde_json::to_vec(&metrics).unwrap()),
        ("remote write 1", write.encode_to_vec()),
        ("zipkin json", ZIPKIN.as_bytes().to_vec()),
        ("jaeger thrift", crate::jaeger::batch(&[crate::jaeger::full()])),
        ("loki json", loki.as_bytes().to_vec()),
        ("json lines", br#"{"time":5,"msg":"x \u00e9","a":{"b":[1]}}"#.to_vec()),
    ];
    for (which, bytes) in messages {
        let context = Context::default();
        assert_eq!(counts(which, &bytes, &context).unwrap(), (1, 0), "{which}");
        for end in 1..bytes.len() {
            match counts(which, &bytes[..end], &context) {
                Err(
                    DecodeError::Json { offset, .. }
                    | DecodeError::Protobuf { offset, .. }
                    | DecodeError::Thrift { offset, .. },
                ) => {
                    assert!(offset <= end, "{which} cut at {end} blames {offset}");
                }
                Ok(counts) if which == "json lines" => assert_eq!(counts, (0, 1)),
                other => panic!("{which} cut at {end}: {other:?}"),
            }
        }
    }
}

#[test]
fn a_line_of_ten_megabytes_passes_and_one_of_seventeen_is_rejected_alone() {
    let context = Context::default();
    for (length, accepted) in [(10 << 20, 2), (17 << 20, 1)] {
        let body = "x".repeat(length);
        let messages = [
            ("otlp json", format!(r#"{{"resourceLogs":[{{"scopeLogs":[{{"logRecords":[{{"body":{{"stringValue":"{body}"}}}},{{}}]}}]}}]}}"#).into_bytes()),
            ("loki json", format!(r#"{{"streams":[{{"stream":{{"a":"b"}},"values":[["1","{body}"],["2","x"]]}}]}}"#).into_bytes()),
            ("loki protobuf", {
                let labels = vec![("a".to_owned(), "b".to_owned())];
                crate::loki::protobuf(&[(labels, vec![(1, body.clone(), vec![]), (2, "x".into(), vec![])])])
            }),
            ("json lines", format!("{{\"msg\":\"{body}\"}}\n{{\"msg\":\"x\"}}").into_bytes()),
        ];
        for (which, bytes) in messages {
            let decoded = decode(which, &bytes, &context).unwrap();
            assert_eq!((decoded.accepted, decoded.rejected), (accepted, 2 - accepted), "{which}");
        }
    }
}
