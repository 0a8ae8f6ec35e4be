//! Loki's push API (`POST /loki/api/v1/push`).

use trine_model::TenantId;
use trine_schema::StreamRegistry;

use crate::{DecodeError, Decoded, Limits};

/// Decodes a `logproto.PushRequest`, already without its snappy coat. `now_ns` stands in for
/// entries without a time.
pub fn decode_push_protobuf(
    _bytes: &[u8],
    _tenant: &TenantId,
    _registry: &StreamRegistry,
    _now_ns: i64,
    _limits: &Limits,
) -> Result<Decoded, DecodeError> {
    todo!("being written")
}

/// Decodes the JSON form, `{"streams":[{"stream":{…},"values":[["ns","line",{…}],…]}]}`.
pub fn decode_push_json(
    _bytes: &[u8],
    _tenant: &TenantId,
    _registry: &StreamRegistry,
    _now_ns: i64,
    _limits: &Limits,
) -> Result<Decoded, DecodeError> {
    todo!("being written")
}
