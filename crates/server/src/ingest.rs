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
use trine_protocols::{Batch, Compression, DecodeError, Decoded, Limits, decompress, otlp::DeltaUpdate};
use trine_schema::{AnyBatch, MetricBatch, StreamRegistry};
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
pub struct Ingested<B> {
    /// Counts and rejections; the batch has gone into the store.
    pub decoded: Decoded<B>,
    /// Whether the store knew the batch already.
    pub duplicate: bool,
}

impl<B: Batch> Ingested<B> {
    /// The counts as headers, for senders that want to tell what became of their records.
    pub fn count_headers(&self) -> [(&'static str, String); 3] {
        [
            ("x-trine-accepted", self.decoded.accepted.to_string()),
            ("x-trine-rejected", self.decoded.rejected.to_string()),
            ("x-trine-duplicate", u8::from(self.duplicate).to_string()),
        ]
    }

    /// For protocols that have no form for a partial success: an error that says which records were not
    /// taken; the others are kept.
    pub fn check_rejected(&self) -> Result<(), ApiError> {
        if self.decoded.rejected == 0 {
            return Ok(());
        }
        Err(ApiError::bad_request(self.decoded.error_message()))
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

/// What a decoder makes of a body.
pub trait Outcome: Send + 'static {
    type Batch: Batch + Into<AnyBatch> + Clone + Send + 'static;

    /// The counts and the batch, and what is to be kept in mind once the store has the batch.
    fn into_parts(self) -> (Decoded<Self::Batch>, Option<DeltaUpdate>);
}

impl<B: Batch + Into<AnyBatch> + Clone + Send + 'static> Outcome for Decoded<B> {
    type Batch = B;

    fn into_parts(self) -> (Self, Option<DeltaUpdate>) {
        (self, None)
    }
}

impl Outcome for (Decoded<MetricBatch>, DeltaUpdate) {
    type Batch = MetricBatch;

    fn into_parts(self) -> (Decoded<MetricBatch>, Option<DeltaUpdate>) {
        (self.0, Some(self.1))
    }
}

/// A decoder of one wire format: plain bytes, tenant, registry, now in nanoseconds, limits.
pub trait Decode<O>:
    FnOnce(&[u8], &TenantId, &StreamRegistry, i64, &Limits) -> Result<O, DecodeError> + Send + 'static
{
}

impl<O, F> Decode<O> for F where
    F: FnOnce(&[u8], &TenantId, &StreamRegistry, i64, &Limits) -> Result<O, DecodeError> + Send + 'static
{
}

/// Reads the body of an HTTP request, decodes and stores it.
pub async fn ingest_http<O: Outcome>(
    app: &Arc<App>,
    protocol: Protocol,
    request: Request,
    default_compression: Compression,
    decode: impl Decode<O>,
) -> Result<Ingested<O::Batch>, ApiError> {
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
pub async fn ingest_bytes<O: Outcome>(
    app: &Arc<App>,
    protocol: Protocol,
    head: Head,
    body: Bytes,
    decode: impl Decode<O>,
) -> Result<Ingested<O::Batch>, ApiError> {
    let size = body.len();
    let work = {
        let app = app.clone();
        move || {
            let decoded = UNPACKED.with_borrow_mut(|buffer| {
                let decoded = decompress(head.compression, &body, &app.limits, buffer).and_then(|plain| {
                    // Of the unpacked bytes: a sender that packs anew for every try packs otherwise.
                    let key = app.store.batch_key(head.idempotency_key.as_deref(), &head.tenant, plain);
                    Ok((decode(plain, &head.tenant, app.store.registry(), now_ns(), &app.limits)?, key))
                });
                if buffer.capacity() > KEPT_BUFFER_BYTES {
                    *buffer = Vec::new();
                }
                decoded
            })?;
            let (decoded, key) = decoded;
            let (decoded, deltas) = decoded.into_parts();
            // Without a key of the sender the same words at another time are other records.
            let key = key.filter(|_| decoded.own_times || head.idempotency_key.is_some());
            Ok::<_, DecodeError>((key, decoded, deltas))
        }
    };
    let (key, decoded, deltas) = if size <= INLINE_DECODE_BYTES {
        work()?
    } else {
        tokio::task::spawn_blocking(work).await.map_err(|panic| {
            ApiError::new(StatusCode::INTERNAL_SERVER_ERROR, format!("BUG: a decoder failed: {panic}"))
        })??
    };
    let duplicate = match &decoded.batch {
        None => false,
        Some(batch) => app.store.append(batch.clone(), key).await? == Appended::Duplicate,
    };
    // A batch that was known has moved them before.
    if let Some(deltas) = deltas.filter(|_| !duplicate) {
        deltas.commit();
    }
    app.metrics.ingested(protocol, size, decoded.accepted, decoded.rejected);
    Ok(Ingested { decoded, duplicate })
}

impl From<DecodeError> for ApiError {
    fn from(error: DecodeError) -> Self {
        let status = StatusCode::from_u16(error.http_status()).unwrap_or(StatusCode::BAD_REQUEST);
        Self::new(status, error.to_string())
    }
}
