//! Real OTLP JSON, when the data lie beside the workspace.

use std::{io::Read as _, path::Path};

use trine_protocols::otlp::decode_logs_json;

use crate::rows::{Context, NOW};

/// Every record of TrainTicket is taken: 175,211 by the data's README.
#[test]
fn trainticket_decodes_completely() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/data/trainticket/logs.jsonl.zst");
    let Ok(file) = std::fs::File::open(&path) else {
        println!("skipped: {} is not there", path.display());
        return;
    };
    let mut decoder = zstd::Decoder::new(file).unwrap();
    decoder.window_log_max(27).unwrap();
    let mut text = Vec::new();
    decoder.read_to_end(&mut text).unwrap();
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
