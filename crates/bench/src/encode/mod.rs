//! Records, spans and metrics as request bodies and files, written without a protobuf library.

mod logs;
mod metrics;
mod otlp_json;
mod protobuf;
mod remote_write;
mod spans;

pub use logs::{Encoder, Format, loki_labels};
pub use metrics::otlp_metrics;
pub use otlp_json::{otlp_metrics_json, otlp_spans_json};
pub use remote_write::{Labels, RemoteWrite, Series, Version};
pub use spans::{otlp_spans, row_binary_spans};
