//! Bounds the bytes of request bodies that are in memory at once.

use std::{sync::Arc, time::Duration};

use axum::{body::Body, http::StatusCode};
use bytes::{Bytes, BytesMut};
use futures::StreamExt;
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::{Instant, timeout, timeout_at},
};

use crate::error::ApiError;

/// One permit stands for this many bytes.
const PERMIT_BYTES: usize = 1024;

/// A body of unknown length is first taken for this long, in bytes.
const UNKNOWN_LENGTH: usize = 64 * 1024;

/// A body grows to more than its wire size when it is unpacked and decoded; three copies live
/// for a moment (wire, unpacked, columns).
const COPIES: usize = 3;

/// A sender that is silent for so long in the middle of a body gives up its room: others wait for it.
const SILENCE: Duration = Duration::from_secs(10);

/// The slowest a body may come, in bytes a second.
const SLOWEST: u64 = 64 << 10;

/// How long a request waits for room before its sender is told to come again.
const PATIENCE: Duration = Duration::from_secs(20);

/// Grants room for bodies.
pub struct Admission {
    room: Arc<Semaphore>,
    permits: usize,
    silence: Duration,
}

/// A body and the room it holds until it is dropped.
pub struct Admitted {
    pub body: Bytes,
    _room: OwnedSemaphorePermit,
}

impl Admission {
    pub fn new(max_bytes: usize) -> Self {
        let permits = (max_bytes / PERMIT_BYTES).clamp(1, Semaphore::MAX_PERMITS);
        Self { room: Arc::new(Semaphore::new(permits)), permits, silence: SILENCE }
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
        let mut room = self.acquire(length.unwrap_or(UNKNOWN_LENGTH)).await?;
        let deadline = Instant::now() + self.silence + Duration::from_secs(limit as u64 / SLOWEST);
        let mut held = length.unwrap_or(UNKNOWN_LENGTH);
        let mut bytes = BytesMut::with_capacity(length.unwrap_or(0));
        let mut chunks = body.into_data_stream();
        loop {
            let silence = deadline.min(Instant::now() + self.silence);
            let Ok(chunk) = timeout_at(silence, chunks.next()).await else {
                return Err(ApiError::new(
                    StatusCode::REQUEST_TIMEOUT,
                    format!("only {} bytes of the body came in time; send it again", bytes.len()),
                ));
            };
            let Some(chunk) = chunk else { break };
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

    async fn acquire(&self, bytes: usize) -> Result<OwnedSemaphorePermit, ApiError> {
        let room = self.room.clone().acquire_many_owned(self.permits_for(bytes));
        match timeout(PATIENCE, room).await {
            Ok(permit) => Ok(permit.expect("BUG: the semaphore is never closed")),
            Err(_) => Err(ApiError {
                status: StatusCode::SERVICE_UNAVAILABLE,
                message: "no room for the body; send again later".into(),
                retry_after: Some(1),
            }),
        }
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

    #[tokio::test]
    async fn a_silent_sender_gives_up_its_room() {
        let admission = Admission { silence: Duration::from_millis(50), ..Admission::new(1 << 20) };
        let free = admission.free_bytes();
        let begun = futures::stream::once(async { Ok::<_, std::io::Error>(Bytes::from_static(b"abc")) });
        let silent = Body::from_stream(begun.chain(futures::stream::pending()));
        let (silent, other) = tokio::join!(
            admission.read(silent, Some(1 << 20), 1 << 20),
            admission.read(Body::from(vec![7; 900]), Some(900), 1000)
        );
        assert_eq!(silent.err().map(|error| error.status), Some(StatusCode::REQUEST_TIMEOUT));
        assert_eq!(other.ok().map(|admitted| admitted.body.len()), Some(900));
        assert_eq!(admission.free_bytes(), free);
    }
}
