//! OTLP logs, `ExportLogsServiceRequest` of opentelemetry-proto 1.x
//! (<https://github.com/open-telemetry/opentelemetry-proto>), and its answers.

use trine_model::TenantId;
use trine_schema::StreamRegistry;

use crate::{DecodeError, Decoded, Limits};

/// Decodes an `ExportLogsServiceRequest` in protobuf. `now_ns` (nanoseconds since 1970) stands in
/// for records that carry no time at all.
pub fn decode_logs_protobuf(
    _bytes: &[u8],
    _tenant: &TenantId,
    _registry: &StreamRegistry,
    _now_ns: i64,
    _limits: &Limits,
) -> Result<Decoded, DecodeError> {
    todo!("being written")
}

/// Decodes an `ExportLogsServiceRequest` in OTLP's JSON encoding.
pub fn decode_logs_json(
    _bytes: &[u8],
    _tenant: &TenantId,
    _registry: &StreamRegistry,
    _now_ns: i64,
    _limits: &Limits,
) -> Result<Decoded, DecodeError> {
    todo!("being written")
}

/// `ExportLogsServiceResponse`; with `rejected == 0` and an empty message it is the plain success.
pub fn encode_logs_response(_rejected: usize, _message: &str, _json: bool) -> Vec<u8> {
    todo!("being written")
}

/// `google.rpc.Status`, the body of OTLP/HTTP errors. `code` is a gRPC code (3 for bad data).
pub fn encode_status(_code: i32, _message: &str, _json: bool) -> Vec<u8> {
    todo!("being written")
}
