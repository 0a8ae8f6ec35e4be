//! OTLP logs and traces: `ExportLogsServiceRequest` and `ExportTraceServiceRequest` of opentelemetry-proto
//! 1.x (<https://github.com/open-telemetry/opentelemetry-proto>), and their answers.
//!
//! How records and spans map, in both encodings:
//! - resource attributes are the labels of the stream; the resource's schema URL and dropped count
//!   are not kept;
//! - the scope's name is `scope_name`; its version and attributes become the attributes
//!   `otel.scope.version` and `otel.scope.<key>` of each row, where they are set;
//! - a body or attribute that is text stays so, numbers and booleans become their plain text, bytes
//!   become base64, arrays and maps become JSON;
//! - a dropped count other than 0 becomes the attribute `otel.dropped_attributes_count`
//!   (`…_events_count`, `…_links_count`).
//!
//! Records:
//! - `time_unix_nano` 0 means not known: the observed time stands in, then the time of arrival;
//! - a trace or span id of a wrong length or all zero counts as absent and the record is kept, as
//!   `logs.proto` asks ("receivers SHOULD assume that the log record is not associated with a
//!   trace if … the field contains an invalid value").
//!
//! Spans:
//! - without a valid trace and span id a span is rejected, and so it is with a parent that is neither an id
//!   nor empty nor all zero; a link keeps an id that is not valid as all zero, and its flags are not kept;
//! - the duration is end minus start, negative where the clock went back, 0 where one of them is 0 (not
//!   known); for a start of 0 the end stands in, then the time of arrival;
//! - a kind or status code that OTLP does not know counts as unspecified.

mod answer;
mod json;
mod json_value;
mod logs_json;
mod logs_protobuf;
mod metrics;
mod protobuf;
mod scope;
mod spans;
mod spans_json;
mod spans_protobuf;
mod value;

pub use answer::{
    encode_logs_response, encode_metrics_response, encode_retry_status, encode_status, encode_traces_response,
};
pub use logs_json::decode_logs_json;
pub use logs_protobuf::decode_logs_protobuf;
pub use metrics::{DeltaState, DeltaUpdate, decode_metrics_json, decode_metrics_protobuf};
pub use spans_json::decode_spans_json;
pub use spans_protobuf::decode_spans_protobuf;

/// Attribute that keeps a dropped count of attributes: of a record, span, event or link.
const DROPPED_COUNT: &str = "otel.dropped_attributes_count";
