//! Loki's push API (`POST /loki/api/v1/push`,
//! <https://grafana.com/docs/loki/latest/reference/loki-http-api/#ingest-logs>).
//!
//! How an entry maps, in both encodings:
//! - the stream's labels are the labels of the stream; empty values count as absent, as in
//!   Prometheus; a stream without any label is refused;
//! - structured metadata become attributes, except a valid trace or span id (`trace_id`, `traceID`,
//!   `span_id`, …) and a known severity word (`level`, `severity`, `severity_text`,
//!   `detected_level`), which go into their columns;
//! - without such a word in the metadata, the stream's own `level` label (same names) decides.

mod json;
mod labels;
mod protobuf;
mod stream;

pub use json::decode_push_json;
pub use protobuf::decode_push_protobuf;
