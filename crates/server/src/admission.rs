//! Bounds the bytes of request bodies that are in memory at once.

use std::sync::Arc;

use axum::{body::Body, http::StatusCode};
use bytes::{Bytes, BytesMut};
use futures::StreamExt;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::error::ApiError;

/// One permit stands for this many bytes.
const PERMIT_BYTES: usize = 1024;

/// A body of unknown length is first taken for this long, in bytes.
const UNKNOWN_LENGTH: usize = 64 * 1024;

/// A body grows to more than its wire size when it is unpacked and decoded; three copies live
/// for a moment (wire, unpacked, columns).
const COPIES: usize = 3;

/// Grants room for bodies.
pub struct Admission {
    room: Arc<Semaphore>,
    permits: usize,
}

/// A body and the room it holds until it is dropped.
pub struct Admitted {
    pub body: Bytes,
    _room: OwnedSemaphorePermit,
}

impl Admission {
    pub fn new(max_bytes: usize) -> Self {
        let permits = (max_bytes / PERMIT_BYTES).clamp(1, Semaphore::MAX_PERMITS);
        Self { room: Arc::new(Semaphore::new(permits)), permits }
    }

    /// Bytes that are free now.
    pub fn free_bytes(&self) -> usize {
        self.room.available_permits() * PERMIT_BYTES
    }

    /// Reads a body of at most `limit` bytes, waiting for room first.
    pub async fn read(&self, body: Body, length: Option<usize>, limit: usize) -> Result<Admitted, ApiError> {
        let too_large = |got: usize| {
            ApiError::new(
                StatusCode::PAYLOAD_TOO_LARGE,
                format!("the body has {got} bytes or more, the limit is {limit}; send smaller batches"),
            )
        };
        if let Some(length) = length
            && length > limit
        {
            return Err(too_large(length));
        }
        let mut room = self.acquire(length.unwrap_or(UNKNOWN_LENGTH)).await;
        let mut held = length.unwrap_or(UNKNOWN_LENGTH);
        let mut bytes = BytesMut::with_capacity(length.unwrap_or(0));
        let mut chunks = body.into_data_stream();
        while let Some(chunk) = chunks.next().await {
            let chunk =
                chunk.map_err(|error| ApiError::bad_request(format!("the body ended early: {error}")))?;
            if bytes.len() + chunk.len() > limit {
                return Err(too_large(bytes.len() + chunk.len()));
            }
            bytes.extend_from_slice(&chunk);
            if bytes.len() > held {
                // Only bodies of unknown length come here. Never wait while holding room: when
                // none is left the sender is told to come again.
                let more = bytes.len().max(UNKNOWN_LENGTH);
                let Ok(permit) = self.room.clone().try_acquire_many_owned(self.permits_for(more)) else {
                    return Err(ApiError {
                        status: StatusCode::SERVICE_UNAVAILABLE,
                        message: "no room for a body of unknown length now; send Content-Length or try again"
                            .into(),
                        retry_after: Some(1),
                    });
                };
                room.merge(permit);
                held += more;
            }
        }
        Ok(Admitted { body: bytes.freeze(), _room: room })
    }

    async fn acquire(&self, bytes: usize) -> OwnedSemaphorePermit {
        let permits = self.permits_for(bytes);
        self.room.clone().acquire_many_owned(permits).await.expect("BUG: the semaphore is never closed")
    }

    fn permits_for(&self, bytes: usize) -> u32 {
        (bytes * COPIES / PERMIT_BYTES + 1).min(self.permits) as u32
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_body_over_the_limit_is_refused_and_room_comes_back() {
        let admission = Admission::new(1 << 20);
        let free = admission.free_bytes();
        let big = admission.read(Body::from(vec![0; 2000]), None, 1000).await;
        assert_eq!(big.err().map(|error| error.status), Some(StatusCode::PAYLOAD_TOO_LARGE));
        let held = admission.read(Body::from(vec![7; 900]), Some(900), 1000).await.unwrap();
        assert_eq!(held.body.len(), 900);
        assert!(admission.free_bytes() < free);
        drop(held);
        assert_eq!(admission.free_bytes(), free);
    }
}
