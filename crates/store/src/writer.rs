//! The one thread that writes the log: group commit.
//!
//! It takes everything that waits (up to a bound), writes it as one group with one sync, puts the
//! batches into the memtable and only then acknowledges. It never waits for more to come: while
//! it syncs, the next group gathers. It also decides when a memtable is full, so a generation
//! ends exactly between two groups.
//!
//! Crash cases: before the sync ends nothing of the group is acknowledged, and the log keeps all
//! or a prefix of it, which replay takes in (a sender who sends again is recognised by its
//! key). After the sync the rows are in the log and replay brings them back.
//!
//! When a sync failed, the active memtable stays where it is: whether the group that failed is in the
//! log nobody knows, and its streams may be defined in entries that a flush would declare done.
//! Waiting flushes are refused. The rows are in the log, and the next open replays them.
//!
//! When the memtable cannot be flushed (disk full) and has reached its bound, appends are refused
//! with [`StoreError::Full`] or [`StoreError::Unflushed`] until a flush succeeds.

use std::{
    collections::VecDeque,
    sync::{Arc, atomic::Ordering::Relaxed},
    time::{Duration, Instant},
};

use tokio::sync::{OwnedSemaphorePermit, oneshot};
use trine_schema::{AnyBatch, LogBatch, Signal, StreamRef};
use trine_wal::{Entry, Wal, WalError};

use crate::{
    Appended, StoreError,
    dedup::AppendResult,
    engine::Engine,
    memtable::{MemBatch, Memtable},
    record::{EncodedBatch, encode_streams},
};

/// Bytes per permit of the queue's bound.
pub(crate) const QUEUE_UNIT: usize = 1024;

/// Most bytes of one group; keeps a group's write short.
const GROUP_BYTES: usize = 8 << 20;

/// The active memtable may grow to this multiple (in eighths) of its flush size while the one
/// before is still being written; then appenders wait.
const STALL_EIGHTHS: usize = 10;

/// Longest sleep without looking at the memtable's age.
const TICK: Duration = Duration::from_secs(1);

/// One append on its way.
pub(crate) struct Job {
    pub batch: AnyBatch,
    pub rows: Arc<MemBatch>,
    pub encoded: EncodedBatch,
    /// Distinct streams of the batch.
    pub streams: Vec<StreamRef>,
    pub raw_bytes: u64,
    pub key: Option<u128>,
    pub at_ms: i64,
    pub done: oneshot::Sender<AppendResult>,
    pub permit: Option<OwnedSemaphorePermit>,
}

/// What waits for the writer.
#[derive(Default)]
pub(crate) struct Queue {
    pub jobs: VecDeque<Job>,
    pub flushes: Vec<oneshot::Sender<Result<(), StoreError>>>,
    /// The log below this sequence is no longer needed.
    pub truncate: Option<u64>,
    pub closing: bool,
    /// The writer is gone; nothing will be taken.
    pub dead: bool,
}

/// Streams that the log knows in this generation.
#[derive(Default)]
struct Defined {
    words: Vec<u64>,
    /// Whether this process has defined any stream yet.
    begun: bool,
}

impl Defined {
    fn insert(&mut self, stream: StreamRef) -> bool {
        let (word, bit) = (stream as usize / 64, 1 << (stream % 64));
        if word >= self.words.len() {
            self.words.resize(word + 1, 0);
        }
        let new = self.words[word] & bit == 0;
        self.words[word] |= bit;
        new
    }
}

struct Writer {
    engine: Arc<Engine>,
    wal: Wal,
    defined: Defined,
    rotate: bool,
}

/// Runs until the queue closes.
pub(crate) fn run(engine: &Arc<Engine>, wal: Wal) {
    let mut writer = Writer { engine: engine.clone(), wal, defined: Defined::default(), rotate: false };
    let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| while writer.step() {}));
    if outcome.is_err() {
        let reason = "BUG: the log writer panicked".to_owned();
        engine.health.lock().poisoned = Some(reason.clone());
        writer.refuse_flushes(&reason);
    }
    let left = {
        let mut queue = engine.queue.lock();
        queue.dead = true;
        queue.flushes.clear();
        std::mem::take(&mut queue.jobs)
    };
    let error = engine.refusal().unwrap_or(StoreError::Closed);
    for job in left {
        settle(engine, job, Err(error.clone()));
    }
}

fn settle(engine: &Engine, job: Job, result: AppendResult) {
    if let Some(key) = job.key {
        engine.dedup.settle(key, job.at_ms, &result);
    }
    if result.is_err() {
        engine.counters.rejected_batches.fetch_add(1, Relaxed);
    }
    // A caller that is gone needs no answer.
    let _ = job.done.send(result);
}

enum Pressure {
    None,
    /// Wait for the flush that is running.
    Stalled,
    /// The flush fails; say why.
    Full(StoreError),
}

impl Writer {
    /// One round; false when all is done.
    fn step(&mut self) -> bool {
        let engine = self.engine.clone();
        let mut jobs = Vec::new();
        let (flushes, truncate, closing);
        let pressure;
        {
            let mut queue = engine.queue.lock();
            let deadline = Instant::now() + TICK;
            loop {
                let now = self.pressure();
                let work = !queue.jobs.is_empty() && !matches!(now, Pressure::Stalled);
                let rotate = self.wants_rotation() && engine.state.read().flushing.is_none();
                if work || rotate || !queue.flushes.is_empty() || queue.truncate.is_some() || queue.closing {
                    pressure = now;
                    break;
                }
                if engine.queue_signal.wait_until(&mut queue, deadline).timed_out() {
                    pressure = self.pressure();
                    break;
                }
            }
            if !matches!(pressure, Pressure::Stalled) || queue.closing {
                let mut bytes = 0;
                while let Some(job) = queue.jobs.front() {
                    bytes += job.encoded.len();
                    if bytes > GROUP_BYTES && !jobs.is_empty() {
                        break;
                    }
                    jobs.extend(queue.jobs.pop_front());
                }
            }
            flushes = std::mem::take(&mut queue.flushes);
            truncate = queue.truncate.take();
            closing = queue.closing && queue.jobs.is_empty();
        }
        if !jobs.is_empty() {
            match pressure {
                Pressure::Full(error) => {
                    for job in jobs {
                        settle(&engine, job, Err(error.clone()));
                    }
                }
                _ => self.write_group(jobs),
            }
        }
        if let Some(sequence) = truncate {
            match self.wal.release_before(sequence) {
                // Removing a large file takes milliseconds, which no append should wait for.
                Ok(removal) => {
                    engine.log_removals.lock().push_back(removal);
                    engine.flush_signal.notify_all();
                }
                Err(e) => {
                    self.failed(&e);
                    engine.health.lock().compaction_failing = Some(e.to_string());
                }
            }
            engine.wal_bytes.store(self.wal.size_bytes(), Relaxed);
        }
        if !flushes.is_empty() {
            self.await_flush(flushes);
        }
        if self.wants_rotation() {
            self.try_rotate();
        }
        !closing
    }

    fn pressure(&self) -> Pressure {
        let state = self.engine.state.read();
        let full = state.active.bytes >= self.engine.config.memtable_bytes / 8 * STALL_EIGHTHS;
        if !full || state.flushing.is_none() {
            return Pressure::None;
        }
        drop(state);
        match &self.engine.health.lock().flush_failing {
            Some(full @ StoreError::Full(_)) => Pressure::Full(full.clone()),
            Some(other) => Pressure::Full(StoreError::Unflushed(other.to_string())),
            None => Pressure::Stalled,
        }
    }

    fn wants_rotation(&self) -> bool {
        if self.wal.poisoned().is_some() {
            return false;
        }
        let state = self.engine.state.read();
        let old = |born: Instant| born.elapsed() >= self.engine.config.flush_after;
        !state.active.is_empty()
            && (self.rotate
                || state.active.bytes >= self.engine.config.memtable_bytes
                || state.active.born.is_some_and(old))
    }

    /// Makes the active memtable the one to flush, when none is being flushed. Not for a poisoned log.
    fn try_rotate(&mut self) {
        let mut state = self.engine.state.write();
        if state.flushing.is_some() {
            return;
        }
        let next = Memtable::new(state.active.generation + 1);
        state.flushing = Some(Arc::new(std::mem::replace(&mut state.active, next)));
        drop(state);
        self.rotate = false;
        // The new generation defines its streams anew: the log before it may go, as whole files.
        self.wal.seal();
        self.defined.words.clear();
        drop(self.engine.log_removals.lock());
        self.engine.flush_signal.notify_all();
    }

    fn await_flush(&mut self, flushes: Vec<oneshot::Sender<Result<(), StoreError>>>) {
        if let Some(reason) = self.wal.poisoned() {
            let error = StoreError::Poisoned(reason.to_owned());
            flushes.into_iter().for_each(|done| drop(done.send(Err(error.clone()))));
            return;
        }
        // The waiters are noted under the state lock, so a flush that ends now sees them.
        let state = self.engine.state.read();
        let generation = match &state.flushing {
            _ if !state.active.is_empty() => state.active.generation,
            Some(flushing) => flushing.generation,
            None => {
                drop(state);
                for done in flushes {
                    drop(done.send(Ok(())));
                }
                return;
            }
        };
        self.rotate |= generation == state.active.generation;
        self.engine.flush_waiters.lock().extend(flushes.into_iter().map(|done| (generation, done)));
    }

    /// Tells those who wait for the active memtable that it will not be flushed in this process. One
    /// that is being flushed goes on: the log is whole up to its end.
    fn refuse_flushes(&self, reason: &str) {
        let active = self.engine.state.read().active.generation;
        let waiting: Vec<_> = {
            let mut waiters = self.engine.flush_waiters.lock();
            let (vain, rest) = waiters.drain(..).partition(|(generation, _)| *generation >= active);
            *waiters = rest;
            vain
        };
        for (_, done) in waiting {
            drop(done.send(Err(StoreError::Poisoned(reason.to_owned()))));
        }
    }

    fn write_group(&mut self, jobs: Vec<Job>) {
        let engine = self.engine.clone();
        let definitions = self.define(&jobs);
        let parts: Vec<Vec<&[u8]>> = definitions
            .iter()
            .map(|definitions| vec![definitions.as_slice()])
            .chain(jobs.iter().map(|job| job.encoded.parts()))
            .collect();
        let entries: Vec<Entry<'_>> = parts.iter().map(|parts| Entry { parts }).collect();
        let begun = Instant::now();
        let sequences = match self.wal.append_group(&entries) {
            Ok(sequences) => sequences,
            Err(e) => {
                // Whatever was defined in this group is not in the log.
                self.defined = Defined::default();
                let error = self.failed(&e);
                for job in jobs {
                    settle(&engine, job, Err(error.clone()));
                }
                return;
            }
        };
        self.defined.begun = true;
        let counters = &engine.counters;
        counters.wal_sync_ns.fetch_add(begun.elapsed().as_nanos() as u64, Relaxed);
        counters.wal_groups.fetch_add(1, Relaxed);
        let written: usize = parts.iter().flatten().map(|part| part.len()).sum();
        counters.wal_written_bytes.fetch_add(written as u64, Relaxed);
        engine.wal_bytes.store(self.wal.size_bytes(), Relaxed);
        // Space is back, if it was gone.
        engine.health.lock().full = None;
        {
            let mut state = engine.state.write();
            let first = *sequences.start();
            if definitions.is_some() {
                state.active.cover(first);
            }
            let first = first + u64::from(definitions.is_some());
            for (job, sequence) in jobs.iter().zip(first..) {
                let key = job.key.map(|key| (key, job.at_ms));
                state.active.push(job.batch.signal, &job.batch.tenant, job.rows.clone(), sequence, key);
            }
        }
        drop(entries);
        drop(parts);
        let mut grown: Vec<_> = Vec::with_capacity(1);
        for mut job in jobs {
            let rows = job.rows.records.num_rows();
            counters.appended_batches.fetch_add(1, Relaxed);
            counters.appended_rows.fetch_add(rows as u64, Relaxed);
            counters.appended_bytes.fetch_add(job.raw_bytes, Relaxed);
            let AnyBatch { signal, tenant, records } = &job.batch;
            if *signal == Signal::Logs {
                let batch = LogBatch { tenant: tenant.clone(), records: records.clone() };
                engine.tail.publish(&batch, job.rows.bytes);
            }
            if !grown.iter().any(|(s, t)| s == signal && t == tenant) {
                grown.push((*signal, tenant.clone()));
            }
            job.permit = None;
            settle(&engine, job, Ok(Appended::Stored { rows }));
        }
        for (signal, tenant) in grown {
            self.fold(signal, &tenant);
        }
    }

    /// Folds small batches; readers are held up only for the swap.
    fn fold(&self, signal: Signal, tenant: &trine_model::TenantId) {
        loop {
            // This thread is the only one that changes the active memtable.
            let folded = self.engine.state.read().active.fold(signal, tenant);
            let Some(folded) = folded else { return };
            self.engine.state.write().active.replace(&folded);
        }
    }

    /// The entry that defines the group's new streams, if there are any.
    fn define(&mut self, jobs: &[Job]) -> Option<Vec<u8>> {
        let mut new: Vec<StreamRef> = Vec::new();
        for stream in jobs.iter().flat_map(|job| &job.streams) {
            if self.defined.insert(*stream) {
                new.push(*stream);
            }
        }
        if new.is_empty() {
            return None;
        }
        let streams: Vec<_> = new.iter().map(|stream| self.engine.registry.get(*stream)).collect();
        let listed =
            new.iter().zip(&streams).map(|(number, stream)| (*number, &stream.tenant, &stream.labels));
        Some(encode_streams(!self.defined.begun, listed))
    }

    fn failed(&self, e: &WalError) -> StoreError {
        let mut health = self.engine.health.lock();
        match e {
            WalError::Full { .. } => {
                health.full = Some(e.to_string());
                StoreError::Full("the write-ahead log".into())
            }
            WalError::Poisoned { reason } => {
                health.poisoned = Some(reason.clone());
                drop(health);
                self.refuse_flushes(reason);
                StoreError::Poisoned(reason.clone())
            }
            WalError::EntryTooLarge { bytes, limit } => {
                StoreError::TooLarge { bytes: *bytes as usize, limit: *limit as usize }
            }
            _ => StoreError::io("writing the log", e),
        }
    }
}
