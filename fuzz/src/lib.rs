//! What every fuzz target runs, and the seeds it starts from.

mod blocks;
mod exposition;
mod mutate;
mod queries;
mod scraping;
mod seeds;

use std::sync::Arc;

use trine_model::TenantId;
use trine_protocols::{
    Compression, DecodeError, Decoded, Limits, MAX_FIRST_ERRORS, decompress,
    exposition::Format,
    jaeger,
    jsonlines::{self, FieldNames},
    loki, otlp, remote_write, zipkin,
};
use trine_schema::{MetricBatch, StreamRegistry};

pub use mutate::Mutants;
pub use seeds::seeds;

/// All targets.
pub const TARGETS: [&str; 28] = [
    "otlp_protobuf",
    "otlp_json",
    "otlp_spans_protobuf",
    "otlp_spans_json",
    "otlp_metrics_protobuf",
    "otlp_metrics_json",
    "remote_write_1",
    "remote_write_2",
    "zipkin",
    "jaeger",
    "loki_protobuf",
    "loki_json",
    "json_lines",
    "decompress",
    "chunks",
    "chunk_values",
    "native_histogram",
    "body_block",
    "body_lines",
    "promql",
    "logql",
    "remote_read",
    "traceql",
    "exposition_text",
    "exposition_openmetrics",
    "exposition_protobuf",
    "scrape_config",
    "relabel",
];

/// Stands for the time of arrival.
const NOW_NS: i64 = 1_700_000_000_000_000_000;

/// Limits that small inputs can reach.
fn tight() -> Limits {
    Limits {
        max_body_bytes: 1 << 16,
        max_records: 8,
        max_record_bytes: 256,
        max_depth: 3,
        max_attributes_per_record: 4,
        max_events_per_span: 2,
        max_labels_per_stream: 4,
        max_label_name_bytes: 16,
        max_label_value_bytes: 32,
        max_scope_bytes: 64,
        max_expanded_bytes: 4096,
    }
}

/// Runs one target on one input, under wide and tight limits. Panics when a promise is broken.
pub fn run(target: &str, bytes: &[u8]) {
    let tenant = TenantId::default();
    for limits in [Limits::default(), tight()] {
        let registry = StreamRegistry::new();
        let decoded = match target {
            "otlp_protobuf" => otlp::decode_logs_protobuf(bytes, &tenant, &registry, NOW_NS, &limits),
            "otlp_json" => otlp::decode_logs_json(bytes, &tenant, &registry, NOW_NS, &limits),
            "otlp_spans_protobuf" => {
                let decoded = otlp::decode_spans_protobuf(bytes, &tenant, &registry, NOW_NS, &limits);
                check(decoded, |batch| batch.records.num_rows(), bytes.len(), &limits);
                continue;
            }
            "otlp_spans_json" => {
                let decoded = otlp::decode_spans_json(bytes, &tenant, &registry, NOW_NS, &limits);
                check(decoded, |batch| batch.records.num_rows(), bytes.len(), &limits);
                continue;
            }
            "otlp_metrics_protobuf" => {
                let deltas = Arc::new(otlp::DeltaState::new(4));
                let decoded =
                    otlp::decode_metrics_protobuf(bytes, &tenant, &registry, NOW_NS, &limits, &deltas);
                check_metrics(decoded.map(|(decoded, _update)| decoded), bytes.len(), &limits);
                assert!(deltas.is_empty(), "what was not committed was not undone");
                continue;
            }
            "otlp_metrics_json" => {
                let deltas = Arc::new(otlp::DeltaState::new(4));
                let decoded = otlp::decode_metrics_json(bytes, &tenant, &registry, NOW_NS, &limits, &deltas);
                check_metrics(decoded.map(|(decoded, _update)| decoded), bytes.len(), &limits);
                assert!(deltas.is_empty(), "what was not committed was not undone");
                continue;
            }
            "remote_write_1" => {
                let decoded = remote_write::decode_v1(bytes, &tenant, &registry, NOW_NS, &limits);
                check_metrics(decoded, bytes.len(), &limits);
                continue;
            }
            "remote_write_2" => {
                let decoded = remote_write::decode_v2(bytes, &tenant, &registry, NOW_NS, &limits);
                check_metrics(decoded, bytes.len(), &limits);
                continue;
            }
            "zipkin" => {
                let decoded = zipkin::decode_spans(bytes, &tenant, &registry, NOW_NS, &limits);
                check(decoded, |batch| batch.records.num_rows(), bytes.len(), &limits);
                continue;
            }
            "jaeger" => {
                let decoded = jaeger::decode_batch_thrift(bytes, &tenant, &registry, NOW_NS, &limits);
                check(decoded, |batch| batch.records.num_rows(), bytes.len(), &limits);
                continue;
            }
            "loki_protobuf" => loki::decode_push_protobuf(bytes, &tenant, &registry, NOW_NS, &limits),
            "loki_json" => loki::decode_push_json(bytes, &tenant, &registry, NOW_NS, &limits),
            "json_lines" => {
                jsonlines::decode(bytes, &FieldNames::default(), &tenant, &registry, NOW_NS, &limits)
            }
            "decompress" => return decompression(bytes),
            "chunks" => return blocks::chunks(bytes),
            "chunk_values" => return blocks::chunk_values(bytes),
            "native_histogram" => return blocks::native_histogram(bytes),
            "body_block" => return blocks::body_block(bytes),
            "body_lines" => return blocks::body_lines(bytes),
            "promql" => return queries::promql(bytes),
            "logql" => return queries::logql(bytes),
            "remote_read" => return queries::remote_read(bytes),
            "traceql" => return queries::traceql(bytes),
            "exposition_text" => return exposition::parsed(Format::Text, bytes),
            "exposition_openmetrics" => return exposition::parsed(Format::OpenMetrics, bytes),
            "exposition_protobuf" => return exposition::parsed(Format::Protobuf, bytes),
            "scrape_config" => return scraping::scrape_config(bytes),
            "relabel" => return scraping::rule(bytes),
            _ => panic!("unknown target {target}; one of {TARGETS:?}"),
        };
        check(decoded, |batch| batch.records.num_rows(), bytes.len(), &limits);
    }
}

/// A point becomes any number of rows.
fn check_metrics(decoded: Result<Decoded<MetricBatch>, DecodeError>, length: usize, limits: &Limits) {
    if let Ok(Decoded { batch: Some(batch), accepted, .. }) = &decoded {
        assert!(batch.records.num_rows() >= *accepted);
    }
    let counts = |decoded: Decoded<MetricBatch>| {
        let Decoded { accepted, rejected, first_errors, own_times, .. } = decoded;
        Decoded { batch: Some(accepted), accepted, rejected, first_errors, own_times }
    };
    check(decoded.map(counts), |accepted| *accepted, length, limits);
}

fn check<B>(
    decoded: Result<Decoded<B>, DecodeError>,
    rows: impl Fn(&B) -> usize,
    length: usize,
    limits: &Limits,
) {
    match decoded {
        Ok(decoded) => {
            let rows = decoded.batch.as_ref().map_or(0, rows);
            assert_eq!(rows, decoded.accepted);
            assert!(decoded.accepted + decoded.rejected <= limits.max_records);
            assert!(decoded.first_errors.len() <= decoded.rejected.min(MAX_FIRST_ERRORS));
        }
        Err(
            DecodeError::Protobuf { offset, .. }
            | DecodeError::Json { offset, .. }
            | DecodeError::Thrift { offset, .. },
        ) => {
            assert!(offset <= length);
        }
        Err(_) => {}
    }
}

fn decompression(bytes: &[u8]) {
    let limits = tight();
    let all = [Compression::Gzip, Compression::Zstd, Compression::Snappy, Compression::Deflate];
    let mut buffer = Vec::new();
    for compression in all {
        if let Ok(plain) = decompress(compression, bytes, &limits, &mut buffer) {
            assert!(plain.len() <= limits.max_body_bytes);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    /// Ten thousand inputs of each target; longer runs are `smoke`'s and libFuzzer's.
    #[test]
    fn mutated_seeds_break_nothing() {
        for target in TARGETS {
            Mutants::new(target, 1).take(10_000).for_each(|bytes| run(target, &bytes));
        }
    }

    #[test]
    fn every_target_has_its_program() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR"));
        let manifest = std::fs::read_to_string(folder.join("Cargo.toml")).unwrap();
        for target in TARGETS {
            let program = format!("fuzz_targets/{target}.rs");
            let text = std::fs::read_to_string(folder.join(&program)).expect(&program);
            assert!(text.contains(&format!("trine_fuzz::run(\"{target}\", bytes)")), "{program}");
            assert!(manifest.contains(&format!("path = \"{program}\"")), "{program} is not in Cargo.toml");
        }
        let programs = std::fs::read_dir(folder.join("fuzz_targets")).unwrap().count();
        assert_eq!(programs, TARGETS.len(), "a program of no target");
    }
}
