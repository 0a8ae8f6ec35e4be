//! What OTLP receivers answer (OTLP specification, "OTLP/HTTP Response").

use crate::{
    render::json_string,
    wire::{put_bytes, put_number},
};

/// `ExportLogsServiceResponse`; with `rejected == 0` and an empty message it is the plain success.
pub fn encode_logs_response(rejected: usize, message: &str, json: bool) -> Vec<u8> {
    encode_response("rejectedLogRecords", rejected, message, json)
}

/// `ExportTraceServiceResponse`, in the same way.
pub fn encode_traces_response(rejected: usize, message: &str, json: bool) -> Vec<u8> {
    encode_response("rejectedSpans", rejected, message, json)
}

/// `ExportMetricsServiceResponse`, in the same way.
pub fn encode_metrics_response(rejected: usize, message: &str, json: bool) -> Vec<u8> {
    encode_response("rejectedDataPoints", rejected, message, json)
}

/// The responses of all signals differ in one name, which protobuf does not spell.
fn encode_response(name: &str, rejected: usize, message: &str, json: bool) -> Vec<u8> {
    let plain = rejected == 0 && message.is_empty();
    if json {
        if plain {
            return b"{}".to_vec();
        }
        // An int64 is a string in proto3 JSON.
        let mut text = format!("{{\"partialSuccess\":{{\"{name}\":\"{rejected}\",\"errorMessage\":");
        json_string(&mut text, message);
        text.push_str("}}");
        return text.into_bytes();
    }
    let mut response = Vec::new();
    if !plain {
        let mut partial = Vec::with_capacity(message.len() + 16);
        put_number(&mut partial, 1, rejected as u64);
        put_bytes(&mut partial, 2, message.as_bytes());
        put_bytes(&mut response, 1, &partial);
    }
    response
}

/// `google.rpc.Status`, the body of OTLP/HTTP errors. `code` is a gRPC code (3 for bad data).
pub fn encode_status(code: i32, message: &str, json: bool) -> Vec<u8> {
    if json {
        let mut text = format!("{{\"code\":{code},\"message\":");
        json_string(&mut text, message);
        text.push('}');
        return text.into_bytes();
    }
    let mut status = Vec::with_capacity(message.len() + 16);
    put_number(&mut status, 1, i64::from(code) as u64);
    put_bytes(&mut status, 2, message.as_bytes());
    status
}

/// [`encode_status`] with the seconds after which sending again makes sense (`google.rpc.RetryInfo`), as
/// gRPC's trailer `grpc-status-details-bin` holds it.
pub fn encode_retry_status(code: i32, message: &str, seconds: u32) -> Vec<u8> {
    let (mut duration, mut retry, mut any) = (Vec::new(), Vec::new(), Vec::new());
    put_number(&mut duration, 1, u64::from(seconds));
    put_bytes(&mut retry, 1, &duration);
    put_bytes(&mut any, 1, b"type.googleapis.com/google.rpc.RetryInfo");
    put_bytes(&mut any, 2, &retry);
    let mut status = encode_status(code, message, false);
    put_bytes(&mut status, 3, &any);
    status
}
