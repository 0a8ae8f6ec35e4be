//! Real OTLP JSON, when the data lie beside the workspace.

use std::{collections::HashSet, io::Read as _, path::Path, sync::Arc};

use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use prost::Message as _;
use trine_protocols::{
    otlp::{decode_logs_json, decode_metrics_json, decode_spans_json, decode_spans_protobuf},
    remote_write::Written,
};

use crate::rows::{Context, NOW};

/// A file of TrainTicket, unpacked.
fn read(name: &str) -> Option<Vec<u8>> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/data/trainticket").join(name);
    let Ok(file) = std::fs::File::open(&path) else {
        println!("skipped: {} is not there", path.display());
        return None;
    };
    let mut decoder = zstd::Decoder::new(file).unwrap();
    decoder.window_log_max(27).unwrap();
    let mut text = Vec::new();
    decoder.read_to_end(&mut text).unwrap();
    Some(text)
}

/// Every span is taken: 333,738 by the data's README, each with its parent in its own trace or with none.
#[test]
fn spans_of_trainticket_decode_completely() {
    let Some(text) = read("spans.jsonl.zst") else { return };
    let context = Context::default();
    let mut rows = Vec::new();
    for line in text.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
        let decoded =
            decode_spans_json(line, &context.tenant, &context.registry, NOW, &context.limits).unwrap();
        assert_eq!(decoded.error_message(), "");
        let spans = context.spans(&decoded);
        // Some are sent again in protobuf, and must be the same.
        if rows.len() < 20_000 {
            let request: ExportTraceServiceRequest = serde_json::from_slice(line).unwrap();
            let bytes = request.encode_to_vec();
            let again =
                decode_spans_protobuf(&bytes, &context.tenant, &context.registry, NOW, &context.limits)
                    .unwrap();
            assert!(context.spans(&again) == spans);
        }
        rows.extend(spans);
    }
    assert_eq!(rows.len(), 333_738);
    let ids: HashSet<_> = rows.iter().map(|row| (&row.trace_id, &row.span_id)).collect();
    let orphans = rows
        .iter()
        .filter(|row| row.parent.as_ref().is_some_and(|parent| !ids.contains(&(&row.trace_id, parent))));
    let services: HashSet<_> = (0..context.registry.len())
        .map(|stream| context.registry.get(stream as u32).service().to_owned())
        .collect();
    let traces: HashSet<_> = rows.iter().map(|row| &row.trace_id).collect();
    // Counted with a script over the file.
    assert_eq!((traces.len(), orphans.count(), services.len()), (4551, 0, 28));
}

/// Every point of TrainTicket's metrics is taken, and is one sample.
#[test]
fn metrics_of_trainticket_decode_completely() {
    let Some(text) = read("metrics.jsonl.zst") else { return };
    let mut context = Context::default();
    context.limits.max_body_bytes = text.len();
    let deltas = Arc::default();
    let (mut points, mut rows) = (0, 0);
    for line in text.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
        let Context { tenant, registry, limits } = &context;
        let (decoded, update) = decode_metrics_json(line, tenant, registry, NOW, limits, &deltas).unwrap();
        update.commit();
        assert_eq!(decoded.error_message(), "");
        points += decoded.accepted;
        rows += Written::of(decoded.batch.as_ref()).samples;
    }
    let wanted = memchr::memmem::find_iter(&text, b"\"timeUnixNano\"").count();
    assert_eq!(points, wanted);
    println!("{points} points, {rows} samples of {} series", context.registry.len());
}

/// Every record of TrainTicket is taken: 175,211 by the data's README.
#[test]
fn logs_of_trainticket_decode_completely() {
    let Some(text) = read("logs.jsonl.zst") else { return };
    let mut context = Context::default();
    context.limits.max_body_bytes = text.len();
    let (mut records, mut with_trace) = (0, 0);
    for line in text.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
        let decoded =
            decode_logs_json(line, &context.tenant, &context.registry, NOW, &context.limits).unwrap();
        assert_eq!(decoded.error_message(), "");
        records += decoded.accepted;
        with_trace += context.rows(&decoded).iter().filter(|row| row.trace_id.is_some()).count();
    }
    assert_eq!(records, 175_211);
    // "most with trace and span ids"
    assert!(with_trace > records / 2, "{with_trace}");
    let services: std::collections::BTreeSet<_> = (0..context.registry.len())
        .map(|stream| context.registry.get(stream as u32).service().to_owned())
        .collect();
    // Counted with grep; the README's 45 include services that only send spans.
    assert_eq!(services.len(), 27);
}
