//! The store's public face: opening, appending, closing.

use std::{
    sync::{Arc, atomic::Ordering::Relaxed},
    thread::JoinHandle,
    time::{SystemTime, UNIX_EPOCH},
};

use arrow::{
    array::{Array, AsArray, RecordBatch},
    datatypes::UInt32Type,
};
use object_store::ObjectStore;
use parking_lot::Mutex;
use tokio::sync::oneshot;
use trine_model::TenantId;
use trine_schema::{
    AnyBatch, Signal, StreamRef, StreamRegistry, columns::memory, logs::column, signal::STREAM,
};
use trine_wal::{DirLock, Disk, MAX_ENTRY_BYTES, RealDisk};

use crate::{
    BatchKey, LevelStatus, StoreConfig, StoreError, StoreStatus, VerifyReport, compact,
    dedup::Claim,
    engine::{Clock, Engine},
    flush,
    memtable::MemBatch,
    record::encode_batch,
    recover, spare, verify,
    writer::{self, Job, QUEUE_UNIT},
};

/// What became of an append. Either way the batch is durable and visible.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Appended {
    /// Stored now.
    Stored {
        /// Its rows.
        rows: usize,
    },
    /// Known by its key: stored before.
    Duplicate,
}

/// What a store stands on; tests put simulated parts in.
#[derive(Clone)]
pub struct StoreParts {
    /// Disk of the log.
    pub disk: Arc<dyn Disk>,
    /// Where segments are written and read, rooted at the segments; `None` is the folder `segments/`
    /// of the data directory. Must be durable when a put returns.
    pub objects: Option<Arc<dyn ObjectStore>>,
    /// Wall clock; used for the windows of deduplication and retention only, never for order.
    pub clock: Clock,
}

impl Default for StoreParts {
    /// The operating system's.
    fn default() -> Self {
        let now = || {
            let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
            i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
        };
        Self { disk: Arc::new(RealDisk), objects: None, clock: Arc::new(now) }
    }
}

/// An open store. Dropping it is like [`Store::close`].
pub struct Store {
    pub(crate) engine: Arc<Engine>,
    disk: Arc<dyn Disk>,
    threads: Mutex<Vec<JoinHandle<()>>>,
    lock: Mutex<Option<DirLock>>,
}

impl Store {
    /// Opens the directory: takes its lock, replays the log, sweeps orphans, starts the background
    /// threads.
    pub fn open(config: StoreConfig) -> Result<Arc<Self>, StoreError> {
        Self::open_with(config, StoreParts::default())
    }

    /// [`Store::open`] over given parts.
    pub fn open_with(config: StoreConfig, parts: StoreParts) -> Result<Arc<Self>, StoreError> {
        let dir = config.dir.clone();
        let opened = recover::open(config.clone(), &parts);
        let opened = match opened {
            Err(error) if spare::give(&dir, &error) => recover::open(config, &parts)?,
            other => other?,
        };
        let recover::Opened { engine, wal, lock } = opened;
        spare::keep(&dir);
        let spawn = |name: &str, work: Box<dyn FnOnce() + Send>| {
            std::thread::Builder::new()
                .name(name.to_owned())
                .spawn(work)
                .map_err(|e| StoreError::io(format!("starting the thread {name}"), e))
        };
        let store = Self {
            engine: engine.clone(),
            disk: parts.disk,
            threads: Mutex::default(),
            lock: Mutex::new(Some(lock)),
        };
        let (for_wal, for_flush, for_upkeep) = (engine.clone(), engine.clone(), engine);
        let threads = [
            spawn("trine-wal", Box::new(move || writer::run(&for_wal, wal)))?,
            spawn("trine-flush", Box::new(move || flush::run(&for_flush)))?,
            spawn("trine-upkeep", Box::new(move || compact::run(&for_upkeep)))?,
        ];
        store.threads.lock().extend(threads);
        Ok(Arc::new(store))
    }

    /// The settings.
    pub fn config(&self) -> &StoreConfig {
        &self.engine.config
    }

    /// The registry behind the `stream` column; decoders intern into it.
    pub fn registry(&self) -> &Arc<StreamRegistry> {
        &self.engine.registry
    }

    /// The key for a request: of its idempotency header when it has one, else of its body when
    /// `dedup_by_content` is on.
    pub fn batch_key(&self, header: Option<&str>, tenant: &TenantId, body: &[u8]) -> Option<BatchKey> {
        match header {
            Some(header) => Some(BatchKey::from_header(header)),
            None => self.engine.config.dedup_by_content.then(|| BatchKey::from_content(tenant, body)),
        }
    }

    /// Stores a batch. Returns once it is durable and visible to every scan that starts after.
    /// Waits while the log's queue is full. Dropping the future may or may not store the batch.
    pub async fn append(
        &self,
        batch: impl Into<AnyBatch>,
        key: Option<BatchKey>,
    ) -> Result<Appended, StoreError> {
        let engine = &self.engine;
        let job = self.prepare(batch.into(), key);
        let (mut job, done) = job.inspect_err(|_| {
            engine.counters.rejected_batches.fetch_add(1, Relaxed);
        })?;
        if job.rows.records.num_rows() == 0 {
            return Ok(Appended::Stored { rows: 0 });
        }
        let units = job.encoded.len().div_ceil(QUEUE_UNIT).clamp(1, self.queue_units());
        let permit = engine.space.clone().acquire_many_owned(units as u32).await;
        job.permit = Some(permit.map_err(|_| StoreError::Closed)?);
        // From here to the queue there is no await, so a dropped caller leaves no key pending.
        if let Some(key) = job.key {
            match engine.dedup.claim(key, job.at_ms) {
                Claim::Mine => {}
                Claim::Stored => {
                    engine.counters.duplicate_batches.fetch_add(1, Relaxed);
                    return Ok(Appended::Duplicate);
                }
                Claim::Pending(first) => {
                    drop(job);
                    engine.counters.duplicate_batches.fetch_add(1, Relaxed);
                    return first.await.unwrap_or_else(|_| Err(self.gone()));
                }
            }
        }
        {
            let mut queue = engine.queue.lock();
            if queue.dead || queue.closing {
                drop(queue);
                let error = self.gone();
                if let Some(key) = job.key {
                    engine.dedup.settle(key, job.at_ms, &Err(error.clone()));
                }
                return Err(error);
            }
            queue.jobs.push_back(job);
        }
        engine.queue_signal.notify_all();
        done.await.unwrap_or_else(|_| Err(self.gone()))
    }

    fn queue_units(&self) -> usize {
        recover::queue_units(&self.engine.config)
    }

    fn gone(&self) -> StoreError {
        self.engine.refusal().unwrap_or(StoreError::Closed)
    }

    /// Everything that needs no order: checks, encoding, statistics.
    fn prepare(
        &self,
        batch: AnyBatch,
        key: Option<BatchKey>,
    ) -> Result<(Job, oneshot::Receiver<Result<Appended, StoreError>>), StoreError> {
        let engine = &self.engine;
        if let Some(refusal) = engine.refusal() {
            return Err(refusal);
        }
        let known = batch.records.schema_ref();
        let wanted = batch.signal.schema();
        if !Arc::ptr_eq(known, &wanted) && *known != wanted {
            return Err(StoreError::BadBatch(format!(
                "its columns are not those of the table of {}; this is a bug",
                batch.signal
            )));
        }
        let streams = distinct_streams(&batch.records, engine.registry.len())?;
        let at_ms = engine.now_ms();
        let key = key.filter(|_| engine.dedup_window_ms() > 0);
        let key = key.map(|key| key.of_table(&batch.tenant, batch.signal));
        let encoded = encode_batch(&batch, key, at_ms);
        if encoded.len() as u64 > MAX_ENTRY_BYTES {
            return Err(StoreError::TooLarge { bytes: encoded.len(), limit: MAX_ENTRY_BYTES as usize });
        }
        let (done, receiver) = oneshot::channel();
        let raw_bytes = raw_bytes(&batch);
        let rows = Arc::new(MemBatch::new(batch.records.clone()));
        Ok((Job { batch, rows, encoded, streams, raw_bytes, key, at_ms, done, permit: None }, receiver))
    }

    /// Writes everything in memory to segments.
    pub async fn flush(&self) -> Result<(), StoreError> {
        let (done, receiver) = oneshot::channel();
        {
            let mut queue = self.engine.queue.lock();
            if queue.dead || queue.closing {
                return Err(self.gone());
            }
            queue.flushes.push(done);
        }
        self.engine.queue_signal.notify_all();
        receiver.await.unwrap_or_else(|_| Err(self.gone()))
    }

    /// Merges segments until they have their final shape, and applies retention.
    pub async fn compact(&self) -> Result<(), StoreError> {
        let (done, receiver) = oneshot::channel();
        {
            let mut upkeep = self.engine.upkeep.lock();
            if self.engine.is_closed() {
                return Err(StoreError::Closed);
            }
            upkeep.forced.push(done);
        }
        self.engine.upkeep_signal.notify_all();
        receiver.await.unwrap_or_else(|_| Err(self.gone()))
    }

    /// Reads and checks every segment and the log; what fails is quarantined. Takes seconds per GB.
    pub async fn verify(&self) -> VerifyReport {
        verify::live(&self.engine, &self.disk).await
    }

    /// The store at this moment.
    pub fn status(&self) -> StoreStatus {
        let engine = &self.engine;
        let mut status = StoreStatus {
            wal_bytes: engine.wal_bytes.load(Relaxed),
            index_bytes: engine.indexes.bytes() as u64,
            index_loads: engine.indexes.loads(),
            index_load_ns: engine.indexes.load_ns(),
            streams: engine.registry.len() as u64,
            quarantined: engine.quarantined.lock().clone(),
            notes: engine.notes.lock().clone(),
            counters: engine.counters.read(),
            ..StoreStatus::default()
        };
        let segments = {
            let state = engine.state.read();
            for table in std::iter::once(&state.active).chain(state.flushing.as_deref()) {
                status.memtable_rows += table.rows;
                status.memtable_bytes += table.bytes as u64;
            }
            state.segments.clone()
        };
        for live in segments.iter() {
            let (row, meta) = (&live.row, &live.row.meta);
            let same = |level: &LevelStatus| (level.signal, level.level) == (row.signal, row.level);
            let at = status.levels.iter().position(same).unwrap_or_else(|| {
                status.levels.push(LevelStatus::new(row.signal, row.level));
                status.levels.len() - 1
            });
            let level = &mut status.levels[at];
            level.segments += 1;
            level.rows += meta.rows;
            level.bytes += meta.file_bytes;
            level.raw_bytes += meta.raw_bytes;
            status.segment_bytes += meta.file_bytes;
            status.rows += meta.rows;
        }
        status.rows += status.memtable_rows;
        status.levels.sort_by_key(|level| (level.signal, level.level));
        let health = engine.health.lock();
        status.poisoned.clone_from(&health.poisoned);
        status.full.clone_from(&health.full);
        status.background_error = health
            .flush_failing
            .as_ref()
            .map(ToString::to_string)
            .or_else(|| health.compaction_failing.clone());
        status
    }

    /// Stops taking data, finishes what is queued, stops the threads and lets go of the directory.
    /// What is in memory stays in the log.
    pub async fn close(&self) {
        let threads = self.begin_close();
        if tokio::runtime::Handle::try_current().is_ok() {
            // Joining in place would hold up other tasks of this runtime thread.
            let _ =
                tokio::task::spawn_blocking(move || threads.into_iter().for_each(|t| drop(t.join()))).await;
        } else {
            for thread in threads {
                drop(thread.join());
            }
        }
        self.end_close();
    }

    fn begin_close(&self) -> Vec<JoinHandle<()>> {
        let engine = &self.engine;
        engine.space.close();
        engine.queue.lock().closing = true;
        engine.queue_signal.notify_all();
        let mut threads = std::mem::take(&mut *self.threads.lock());
        if !threads.is_empty() {
            // The writer first: what is queued is still acknowledged.
            let writer = threads.remove(0);
            let rest = threads;
            let engine = engine.clone();
            let closer = std::thread::spawn(move || {
                let _ = writer.join();
                engine.closed.store(true, Relaxed);
                drop(engine.log_removals.lock());
                engine.flush_signal.notify_all();
                drop(engine.upkeep.lock());
                engine.upkeep_signal.notify_all();
                for thread in rest {
                    drop(thread.join());
                }
                engine.tail.close();
                engine.reap();
            });
            return vec![closer];
        }
        threads
    }

    fn end_close(&self) {
        *self.lock.lock() = None;
    }
}

impl Drop for Store {
    fn drop(&mut self) {
        for thread in self.begin_close() {
            drop(thread.join());
        }
        self.end_close();
    }
}

/// Bytes of the bodies and attributes of logs; of other signals what they take in memory.
fn raw_bytes(batch: &AnyBatch) -> u64 {
    let records = &batch.records;
    if batch.signal != Signal::Logs {
        return memory(records) as u64;
    }
    let text = |array: &dyn Array| {
        let offsets = array.as_string::<i32>().value_offsets();
        u64::from((offsets[offsets.len() - 1] - offsets[0]).unsigned_abs())
    };
    let map = records.column(column::ATTRIBUTES).as_map();
    text(records.column(column::BODY)) + text(map.keys()) + text(map.values())
}

/// The streams of a batch, each once; all must be of the registry.
fn distinct_streams(records: &RecordBatch, known: usize) -> Result<Vec<StreamRef>, StoreError> {
    let streams = records.column(STREAM).as_primitive::<UInt32Type>().values();
    let Some(last) = streams.iter().max() else { return Ok(Vec::new()) };
    if *last as usize >= known {
        return Err(StoreError::BadBatch(format!(
            "stream {last} is not of this store's registry; this is a bug"
        )));
    }
    let mut distinct: Vec<StreamRef> = Vec::new();
    // A bit per stream pays when there are many rows, sorting when there are few.
    if *last as usize / 64 <= streams.len() {
        let mut seen = vec![0u64; *last as usize / 64 + 1];
        for stream in streams {
            let (word, bit) = (*stream as usize / 64, 1u64 << (stream % 64));
            if seen[word] & bit == 0 {
                seen[word] |= bit;
                distinct.push(*stream);
            }
        }
    } else {
        distinct.extend_from_slice(streams);
        distinct.sort_unstable();
        distinct.dedup();
    }
    Ok(distinct)
}
