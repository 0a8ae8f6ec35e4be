//! The way every protocol shares: body → plain bytes → batch → store.

use std::{cell::RefCell, sync::Arc};

use axum::{
    extract::Request,
    http::{
        HeaderMap, StatusCode,
        header::{CONTENT_ENCODING, CONTENT_LENGTH},
    },
};
use bytes::Bytes;
use trine_model::TenantId;
use trine_protocols::{Compression, DecodeError, Decoded, Limits, decompress};
use trine_schema::StreamRegistry;
use trine_store::Appended;

use crate::{App, error::ApiError, metrics::Protocol, tenant::tenant_of, time::now_ns};

/// Header by which a sender names a batch, so that it is stored once however often it is sent
/// (IETF draft-ietf-httpapi-idempotency-key-header).
pub const IDEMPOTENCY_HEADER: &str = "idempotency-key";

/// Bodies above this size are decoded on a thread of their own, so that they do not hold up the
/// answers of others. Decoding runs at several hundred MB/s: 64 KiB take about 0.1 ms.
const INLINE_DECODE_BYTES: usize = 64 * 1024;

/// Largest buffer that a thread keeps for the next body it unpacks, in bytes.
const KEPT_BUFFER_BYTES: usize = 4 << 20;

thread_local! {
    /// Unpacked bodies. Fresh memory for each would be cleared twice, by the system and by us.
    static UNPACKED: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// What became of a request.
pub struct Ingested {
    /// Counts and rejections; the batch has gone into the store.
    pub decoded: Decoded,
    /// Whether the store knew the batch already.
    pub duplicate: bool,
}

impl Ingested {
    /// The counts as headers, for senders that want to tell what became of their records.
    pub fn count_headers(&self) -> [(&'static str, String); 3] {
        [
            ("x-trine-accepted", self.decoded.accepted.to_string()),
            ("x-trine-rejected", self.decoded.rejected.to_string()),
            ("x-trine-duplicate", u8::from(self.duplicate).to_string()),
        ]
    }
}

/// Head of a request that brings data.
pub struct Head {
    pub tenant: TenantId,
    pub idempotency_key: Option<String>,
    pub compression: Compression,
}

impl Head {
    /// `default_compression` holds when there is no `Content-Encoding`.
    pub fn from_headers(headers: &HeaderMap, default_compression: Compression) -> Result<Self, ApiError> {
        let tenant = tenant_of(headers).map_err(|error| ApiError::bad_request(error.to_string()))?;
        let compression = match headers.get(CONTENT_ENCODING) {
            None => default_compression,
            Some(value) => Compression::from_content_encoding(&String::from_utf8_lossy(value.as_bytes()))?,
        };
        let idempotency_key = headers
            .get(IDEMPOTENCY_HEADER)
            .map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned())
            .filter(|key| !key.is_empty());
        Ok(Self { tenant, idempotency_key, compression })
    }
}

/// A decoder of one wire format: plain bytes, tenant, registry, now in nanoseconds, limits.
pub trait Decode:
    FnOnce(&[u8], &TenantId, &StreamRegistry, i64, &Limits) -> Result<Decoded, DecodeError> + Send + 'static
{
}

impl<F> Decode for F where
    F: FnOnce(&[u8], &TenantId, &StreamRegistry, i64, &Limits) -> Result<Decoded, DecodeError>
        + Send
        + 'static
{
}

/// Reads the body of an HTTP request, decodes and stores it.
pub async fn ingest_http(
    app: &Arc<App>,
    protocol: Protocol,
    request: Request,
    default_compression: Compression,
    decode: impl Decode,
) -> Result<Ingested, ApiError> {
    let result = async {
        let head = Head::from_headers(request.headers(), default_compression)?;
        let length = request.headers().get(CONTENT_LENGTH).and_then(|v| v.to_str().ok()?.parse().ok());
        let admitted = app.admission.read(request.into_body(), length, app.limits.max_body_bytes).await?;
        ingest_bytes(app, protocol, head, admitted.body.clone(), decode).await
    }
    .await;
    if result.is_err() {
        app.metrics.ingest_failed(protocol);
    }
    result
}

/// Decodes and stores a body. The caller counts the failure of the whole.
pub async fn ingest_bytes(
    app: &Arc<App>,
    protocol: Protocol,
    head: Head,
    body: Bytes,
    decode: impl Decode,
) -> Result<Ingested, ApiError> {
    let size = body.len();
    let work = {
        let app = app.clone();
        move || {
            let decoded = UNPACKED.with_borrow_mut(|buffer| {
                let decoded = decompress(head.compression, &body, &app.limits, buffer).and_then(|plain| {
                    decode(plain, &head.tenant, app.store.registry(), now_ns(), &app.limits)
                });
                if buffer.capacity() > KEPT_BUFFER_BYTES {
                    *buffer = Vec::new();
                }
                decoded
            })?;
            let key = match head.idempotency_key.as_deref() {
                // The same words at another time are other records.
                None if !decoded.own_times => None,
                header => app.store.batch_key(header, &head.tenant, &body),
            };
            Ok::<_, DecodeError>((key, decoded))
        }
    };
    let (key, mut decoded) = if size <= INLINE_DECODE_BYTES {
        work()?
    } else {
        tokio::task::spawn_blocking(work).await.map_err(|panic| {
            ApiError::new(StatusCode::INTERNAL_SERVER_ERROR, format!("BUG: a decoder failed: {panic}"))
        })??
    };
    let duplicate = match decoded.batch.take() {
        None => false,
        Some(batch) => app.store.append(batch, key).await? == Appended::Duplicate,
    };
    app.metrics.ingested(protocol, size, decoded.accepted, decoded.rejected);
    Ok(Ingested { decoded, duplicate })
}

impl From<DecodeError> for ApiError {
    fn from(error: DecodeError) -> Self {
        let status = StatusCode::from_u16(error.http_status()).unwrap_or(StatusCode::BAD_REQUEST);
        Self::new(status, error.to_string())
    }
}
