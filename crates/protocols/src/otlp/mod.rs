//! OTLP logs, `ExportLogsServiceRequest` of opentelemetry-proto 1.x
//! (<https://github.com/open-telemetry/opentelemetry-proto>), and its answers.
//!
//! How a record maps, in both encodings:
//! - resource attributes are the labels of the stream; the resource's schema URL and dropped count
//!   are not kept;
//! - the scope's name is `scope_name`; its version and attributes become the record attributes
//!   `otel.scope.version` and `otel.scope.<key>`, where they are set;
//! - a body or attribute that is text stays so, numbers and booleans become their plain text, bytes
//!   become base64, arrays and maps become JSON;
//! - `time_unix_nano` 0 means not known: the observed time stands in, then the time of arrival;
//! - a trace or span id of a wrong length or all zero counts as absent and the record is kept, as
//!   `logs.proto` asks ("receivers SHOULD assume that the log record is not associated with a
//!   trace if … the field contains an invalid value");
//! - a dropped count other than 0 becomes the attribute `otel.dropped_attributes_count`.

mod answer;
mod json;
mod json_value;
mod protobuf;
mod scope;
mod value;

pub use answer::{encode_logs_response, encode_status};
pub use json::decode_logs_json;
pub use protobuf::decode_logs_protobuf;

/// Attribute that keeps a record's dropped count.
const DROPPED_COUNT: &str = "otel.dropped_attributes_count";
