//! Steps of a scan on the pool: a bounded number ahead of the reader, cancelled when the stream is dropped.
//!
//! A step finds batches or further steps. Steps that have begun look at a flag now and then
//! ([`Cancel::is_set`]), no further ones begin once it is set.

use std::{
    collections::VecDeque,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
};

use arrow::array::RecordBatch;
use futures::{
    StreamExt as _,
    channel::{
        mpsc::{UnboundedReceiver, UnboundedSender, unbounded},
        oneshot,
    },
};
use trine_schema::{RecordBatchStream, ScanError};

use crate::pool;

/// Steps that run or wait for the reader, per thread of the pool.
const STEPS_PER_THREAD: usize = 2;

/// Whether nobody waits for the answer any more.
#[derive(Clone, Default)]
pub(crate) struct Cancel(Arc<AtomicBool>);

impl Cancel {
    /// Fails once the stream is dropped.
    pub fn check(&self) -> Result<(), ScanError> {
        if self.0.load(Relaxed) {
            return Err(ScanError::Storage("the query was cancelled".into()));
        }
        Ok(())
    }

    /// Sets the flag when it is dropped.
    pub fn guard(&self) -> CancelOnDrop {
        CancelOnDrop(self.0.clone())
    }
}

/// Sets the flag when the stream is dropped.
pub(crate) struct CancelOnDrop(Arc<AtomicBool>);

impl Drop for CancelOnDrop {
    fn drop(&mut self) {
        self.0.store(true, Relaxed);
    }
}

/// What a step found.
pub(crate) enum Found<S> {
    Batches(Vec<RecordBatch>),
    /// To be done before the steps that wait already, so that few segments are in use at a time.
    Steps(Vec<S>),
}

/// One scan, taken apart into steps.
pub(crate) trait Work: Send + Sync + 'static {
    /// Something to do on the pool.
    type Step: Send + 'static;

    /// Does it. Damage of a segment is no error: it is noted, and nothing is found.
    fn run(&self, step: Self::Step) -> Result<Found<Self::Step>, ScanError>;

    /// Whether a step that waits is in vain by now.
    fn is_vain(&self, step: &Self::Step) -> bool;

    /// Most bytes of batches that may wait for the reader.
    fn memory_limit(&self) -> Option<usize>;
}

/// Runs a job on the pool.
pub(crate) async fn on_pool<T: Send + 'static>(
    job: impl FnOnce() -> T + Send + 'static,
) -> Result<T, ScanError> {
    let (sender, receiver) = oneshot::channel();
    pool::spawn(move || {
        let _ = sender.send(job());
    });
    receiver.await.map_err(|_| ScanError::Storage("BUG: a step of a scan panicked; see the log".into()))
}

/// The batches of a scan, in no order. `guard` is dropped with the stream.
pub(crate) fn stream<W: Work>(
    work: Arc<W>,
    steps: impl IntoIterator<Item = W::Step>,
    guard: CancelOnDrop,
) -> RecordBatchStream {
    let (sender, receiver) = unbounded();
    let driver = Driver {
        work,
        steps: steps.into_iter().collect(),
        ready: VecDeque::new(),
        running: 0,
        held: 0,
        sender,
        receiver,
        done: false,
        _guard: guard,
    };
    futures::stream::unfold(driver, |mut driver| async {
        let item = driver.next().await?;
        Some((item, driver))
    })
    .boxed()
}

/// Tells the driver even when its step panicked.
struct Report<S>(Option<UnboundedSender<Result<Found<S>, ScanError>>>);

impl<S> Report<S> {
    fn send(mut self, found: Result<Found<S>, ScanError>) {
        if let Some(sender) = self.0.take() {
            let _ = sender.unbounded_send(found);
        }
    }
}

impl<S> Drop for Report<S> {
    fn drop(&mut self) {
        if let Some(sender) = self.0.take() {
            let error = ScanError::Storage("BUG: a step of a scan panicked; see the log".into());
            let _ = sender.unbounded_send(Err(error));
        }
    }
}

struct Driver<W: Work> {
    work: Arc<W>,
    steps: VecDeque<W::Step>,
    ready: VecDeque<RecordBatch>,
    running: usize,
    /// Bytes of `ready`.
    held: usize,
    sender: UnboundedSender<Result<Found<W::Step>, ScanError>>,
    receiver: UnboundedReceiver<Result<Found<W::Step>, ScanError>>,
    done: bool,
    _guard: CancelOnDrop,
}

impl<W: Work> Driver<W> {
    async fn next(&mut self) -> Option<Result<RecordBatch, ScanError>> {
        loop {
            if self.done {
                return None;
            }
            self.start_steps();
            if let Some(batch) = self.ready.pop_front() {
                self.held = self.held.saturating_sub(batch.get_array_memory_size());
                return Some(Ok(batch));
            }
            if self.running == 0 {
                return None;
            }
            let found = self.receiver.next().await?;
            self.running -= 1;
            if let Err(error) = found.and_then(|found| self.take(found)) {
                self.done = true;
                return Some(Err(error));
            }
        }
    }

    fn start_steps(&mut self) {
        let limit = self.work.memory_limit().unwrap_or(usize::MAX);
        let most = pool::threads() * STEPS_PER_THREAD;
        // What lies ready counts as a running step, so that a slow reader holds the work back.
        while self.running + self.ready.len() < most && (self.held < limit / 2 || self.running == 0) {
            let Some(step) = self.steps.pop_front() else { return };
            if self.work.is_vain(&step) {
                continue;
            }
            self.running += 1;
            let (work, report) = (self.work.clone(), Report(Some(self.sender.clone())));
            pool::spawn(move || {
                let found = work.run(step);
                report.send(found);
            });
        }
    }

    fn take(&mut self, found: Found<W::Step>) -> Result<(), ScanError> {
        match found {
            Found::Batches(batches) => {
                for batch in batches.into_iter().filter(|batch| batch.num_rows() > 0) {
                    self.held += batch.get_array_memory_size();
                    self.ready.push_back(batch);
                }
            }
            Found::Steps(steps) => steps.into_iter().rev().for_each(|step| self.steps.push_front(step)),
        }
        match self.work.memory_limit() {
            Some(limit) if self.held > limit => Err(ScanError::Memory { limit }),
            _ => Ok(()),
        }
    }
}
