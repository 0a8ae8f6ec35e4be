//! Readers that want to see batches as they become visible.

use std::{
    collections::VecDeque,
    pin::Pin,
    sync::{Arc, Weak},
    task::{Context, Poll, Waker},
};

use futures::Stream;
use parking_lot::Mutex;
use trine_model::TenantId;
use trine_schema::{LogBatch, TailLag};

/// Most bytes of batches one reader may be behind.
const MAX_BEHIND_BYTES: usize = 8 << 20;

#[derive(Default)]
struct Queue {
    batches: VecDeque<(LogBatch, usize)>,
    bytes: usize,
    missed: u64,
    waker: Option<Waker>,
    closed: bool,
}

/// All tail readers.
#[derive(Default)]
pub(crate) struct TailHub {
    readers: Mutex<Vec<(TenantId, Weak<Mutex<Queue>>)>>,
}

impl TailHub {
    /// A reader from now on.
    pub fn subscribe(&self, tenant: &TenantId) -> TailReader {
        let queue = Arc::new(Mutex::new(Queue::default()));
        self.readers.lock().push((tenant.clone(), Arc::downgrade(&queue)));
        TailReader { queue }
    }

    /// Hands a batch of `bytes` bytes to the tenant's readers; never waits for them.
    pub fn publish(&self, batch: &LogBatch, bytes: usize) {
        let mut readers = self.readers.lock();
        readers.retain(|(tenant, queue)| {
            let Some(queue) = queue.upgrade() else { return false };
            if *tenant == batch.tenant {
                let mut queue = queue.lock();
                // A batch beyond the bound still passes when the reader is not behind.
                if queue.batches.is_empty() || queue.bytes + bytes <= MAX_BEHIND_BYTES {
                    queue.batches.push_back((batch.clone(), bytes));
                    queue.bytes += bytes;
                } else {
                    queue.missed += 1;
                }
                if let Some(waker) = queue.waker.take() {
                    waker.wake();
                }
            }
            true
        });
    }

    /// Ends all readers.
    pub fn close(&self) {
        for (_, queue) in self.readers.lock().drain(..) {
            if let Some(queue) = queue.upgrade() {
                let mut queue = queue.lock();
                queue.closed = true;
                if let Some(waker) = queue.waker.take() {
                    waker.wake();
                }
            }
        }
    }
}

/// One reader; dropping it ends it.
pub(crate) struct TailReader {
    queue: Arc<Mutex<Queue>>,
}

impl Stream for TailReader {
    type Item = Result<LogBatch, TailLag>;

    fn poll_next(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let mut queue = self.queue.lock();
        if let Some((batch, bytes)) = queue.batches.pop_front() {
            queue.bytes -= bytes;
            return Poll::Ready(Some(Ok(batch)));
        }
        // Batches are missed only while the queue is full, so the gap lies behind what was queued.
        if queue.missed > 0 {
            return Poll::Ready(Some(Err(TailLag(std::mem::take(&mut queue.missed)))));
        }
        if queue.closed {
            return Poll::Ready(None);
        }
        queue.waker = Some(context.waker().clone());
        Poll::Pending
    }
}

#[cfg(test)]
mod tests {
    use futures::{FutureExt, StreamExt};
    use trine_schema::LogBatchBuilder;

    use super::*;

    #[test]
    fn a_slow_reader_is_told_what_it_missed_and_tenants_are_apart() {
        let hub = TailHub::default();
        let tenant = TenantId::default();
        let mut reader = hub.subscribe(&tenant);
        let mut stranger = hub.subscribe(&TenantId::new("other").unwrap());
        let batch = LogBatchBuilder::new(tenant, 0, 0).finish();
        for _ in 0..5 {
            hub.publish(&batch, MAX_BEHIND_BYTES / 2);
        }
        for _ in 0..2 {
            assert!(matches!(reader.next().now_or_never(), Some(Some(Ok(_)))));
        }
        assert!(matches!(reader.next().now_or_never(), Some(Some(Err(TailLag(3))))));
        assert!(reader.next().now_or_never().is_none() && stranger.next().now_or_never().is_none());
        hub.close();
        assert!(matches!(reader.next().now_or_never(), Some(None)));
    }
}
