//! Traces as OTLP's `TracesData` and as Tempo's API gives them, in protobuf and JSON.
//!
//! What the decoders of OTLP fold into attributes is unfolded: `otel.scope.version` and `otel.scope.<key>` go
//! back to the scope, `otel.dropped_…_count` to the counts. Values of attributes are strings.

mod group;
mod json;
mod protobuf;

pub use json::{Form, encode_json, encode_tempo_v2_json};
pub use protobuf::{encode_protobuf, encode_tempo_v2_protobuf};
