//! What all threads of a store share, and the locks around it.
//!
//! Lock order: `commit`, then `state`, then anything else; nothing blocks on a disk while it holds
//! `state`.

use std::{
    collections::VecDeque,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use arrow::array::RecordBatch;
use parking_lot::{Condvar, Mutex, RwLock};
use tokio::sync::{Semaphore, oneshot};
use trine_schema::{ScanStats, StreamRegistry};
use trine_segment::IndexCache;
use trine_wal::Removal;

use crate::{
    QuarantinedFile, StoreConfig, StoreCounters, StoreError,
    catalog::{Catalog, SegmentRow},
    dedup::Dedup,
    files::{Files, SegmentName},
    memtable::{Memtable, Wanted},
    segment::{LiveSegment, Opener},
    tail::TailHub,
    writer::Queue,
};

/// Wall clock in milliseconds since 1970.
pub type Clock = Arc<dyn Fn() -> i64 + Send + Sync>;

/// A segment that queries see.
pub(crate) struct Live {
    pub row: SegmentRow,
    pub segment: LiveSegment,
}

/// What one query sees of a signal: rows in memory in order of arrival, and segments, oldest first.
pub(crate) struct Snapshot {
    pub memtable: Vec<RecordBatch>,
    pub segments: Vec<LiveSegment>,
}

/// What a query sees; a snapshot is taken under one read lock, so a row is seen exactly once.
pub(crate) struct State {
    pub active: Memtable,
    pub flushing: Option<Arc<Memtable>>,
    pub segments: Arc<Vec<Arc<Live>>>,
}

#[derive(Default)]
pub(crate) struct Health {
    pub poisoned: Option<String>,
    pub full: Option<String>,
    /// Why the last flush attempt failed; cleared by a good one.
    pub flush_failing: Option<StoreError>,
    pub compaction_failing: Option<String>,
}

/// A waiting `flush()`: done when this generation is on disk.
pub(crate) type FlushWaiter = (u64, oneshot::Sender<Result<(), StoreError>>);

#[derive(Default)]
pub(crate) struct Upkeep {
    pub forced: Vec<oneshot::Sender<Result<(), StoreError>>>,
    pub poked: bool,
}

pub(crate) struct Engine {
    pub config: StoreConfig,
    pub registry: Arc<StreamRegistry>,
    /// The indexes of segments that questions brought into memory.
    pub indexes: Arc<IndexCache>,
    pub clock: Clock,
    pub files: Files,
    pub catalog: Catalog,
    pub state: RwLock<State>,
    /// Held from a catalog transaction to the change of `state` that shows it.
    pub commit: Mutex<()>,
    pub dedup: Dedup,
    pub tail: TailHub,
    pub next_id: AtomicU64,
    /// Bytes that may wait in `queue`, in units of [`crate::writer::QUEUE_UNIT`].
    pub space: Arc<Semaphore>,
    pub queue: Mutex<Queue>,
    /// For the writer: work came, or a flush ended.
    pub queue_signal: Condvar,
    /// For the flusher: files that the log let go.
    pub log_removals: Mutex<VecDeque<Removal>>,
    /// For the flusher: a memtable is ready, or files are to be removed.
    pub flush_signal: Condvar,
    pub flush_waiters: Mutex<Vec<FlushWaiter>>,
    pub upkeep: Mutex<Upkeep>,
    pub upkeep_signal: Condvar,
    /// Segments that left the state; their files go when no reader holds them any more.
    pub doomed: Mutex<Vec<Arc<Live>>>,
    /// Files that were removed; the next change of segments tells the catalog.
    pub gone: Mutex<Vec<String>>,
    pub quarantined: Mutex<Vec<QuarantinedFile>>,
    pub health: Mutex<Health>,
    /// Remarks of the open, for people.
    pub notes: Mutex<Vec<String>>,
    pub closed: AtomicBool,
    pub wal_bytes: AtomicU64,
    pub counters: Counters,
}

macro_rules! counters {
    ($($name:ident),*) => {
        /// [`StoreCounters`] as they run.
        #[derive(Default)]
        pub(crate) struct Counters { $(pub $name: AtomicU64),* }

        impl Counters {
            pub fn read(&self) -> StoreCounters {
                StoreCounters { $($name: self.$name.load(Relaxed)),* }
            }
        }
    };
}
counters!(
    appended_batches,
    appended_rows,
    appended_bytes,
    duplicate_batches,
    rejected_batches,
    wal_groups,
    wal_written_bytes,
    wal_sync_ns,
    flushes,
    flush_ns,
    flush_rows,
    compactions,
    compaction_ns,
    compaction_rows,
    retained_out_segments,
    retained_out_rows
);

impl Engine {
    pub fn opener(&self) -> Opener<'_> {
        Opener { objects: &self.files.objects, registry: &self.registry, indexes: &self.indexes }
    }

    pub fn now_ms(&self) -> i64 {
        (self.clock)()
    }

    /// First timestamp that retention by age keeps.
    pub fn retention_cutoff(&self) -> Option<i64> {
        let age = self.config.retention_age?;
        Some(self.now_ms().saturating_sub(millis(age)).saturating_mul(1_000_000))
    }

    /// The start of a question. Rows past retention may still lie in files; no query sees them.
    pub fn within_retention(&self, start: i64) -> i64 {
        start.max(self.retention_cutoff().unwrap_or(i64::MIN))
    }

    pub fn is_closed(&self) -> bool {
        self.closed.load(Relaxed)
    }

    /// Why nothing can be appended, if so.
    pub fn refusal(&self) -> Option<StoreError> {
        if self.is_closed() {
            return Some(StoreError::Closed);
        }
        self.health.lock().poisoned.clone().map(StoreError::Poisoned)
    }

    pub fn dedup_window_ms(&self) -> i64 {
        millis(self.config.dedup_window)
    }

    /// Everything that may hold rows of the question; counts what was excluded.
    pub fn snapshot(&self, wanted: &Wanted<'_>, stats: &ScanStats) -> Snapshot {
        let mut memtable = Vec::new();
        let segments = {
            let state = self.state.read();
            if let Some(flushing) = &state.flushing {
                flushing.select(wanted, &mut memtable);
            }
            state.active.select(wanted, &mut memtable);
            state.segments.clone()
        };
        let of_signal = || segments.iter().filter(|live| live.row.signal == wanted.signal);
        let may_hold = |live: &&Arc<Live>| {
            let meta = &live.row.meta;
            meta.tenants.binary_search(wanted.tenant).is_ok()
                && wanted.overlaps(meta.min_timestamp, meta.max_timestamp)
        };
        let mut chosen: Vec<&Arc<Live>> = of_signal().filter(may_hold).collect();
        stats.segments_skipped.fetch_add((of_signal().count() - chosen.len()) as u64, Relaxed);
        chosen.sort_by_key(|live| live.row.arrival());
        for file in self.quarantined.lock().iter() {
            // Of a part of the log nobody knows which signals were in it.
            let signal = SegmentName::parse_quarantined(&file.name).map(|name| name.signal);
            // A file without any range held nothing that an answer could miss.
            if signal.is_none_or(|signal| signal == wanted.signal)
                && file.min_timestamp <= file.max_timestamp
                && wanted.overlaps(file.min_timestamp, file.max_timestamp)
            {
                let missing = format!("{} is in quarantine: {}", file.name, file.reason);
                let mut partial = stats.partial.lock();
                if !partial.contains(&missing) {
                    partial.push(missing);
                }
            }
        }
        Snapshot { memtable, segments: chosen.into_iter().map(|live| live.segment.clone()).collect() }
    }

    /// Changes the list of segments. The caller holds `commit`.
    pub fn swap_segments(&self, add: impl IntoIterator<Item = Arc<Live>>, remove: &[u64]) {
        let mut state = self.state.write();
        let mut segments: Vec<_> =
            state.segments.iter().filter(|live| !remove.contains(&live.row.id)).cloned().collect();
        segments.extend(add);
        let before = std::mem::replace(&mut state.segments, Arc::new(segments));
        drop(state);
        let gone = before.iter().filter(|live| remove.contains(&live.row.id)).cloned();
        self.doomed.lock().extend(gone);
    }

    /// Removes files of segments that nobody reads any more. A query holds the [`LiveSegment`],
    /// the list here holds it through [`Live`] and nobody else does.
    pub fn reap(&self) {
        let free: Vec<_> = {
            let mut doomed = self.doomed.lock();
            let (free, held) =
                doomed.drain(..).partition(|live| Arc::strong_count(live) == 1 && live.segment.is_free());
            *doomed = held;
            free
        };
        for live in free {
            if let Err(e) = self.files.remove(&live.row.path) {
                self.health.lock().compaction_failing = Some(e.to_string());
                self.doomed.lock().push(live);
            } else {
                self.gone.lock().push(live.row.path.clone());
            }
        }
    }

    /// [`Catalog::replace`], which also learns which files are gone.
    pub fn replace_in_catalog(&self, add: &[SegmentRow], remove: &[u64]) -> Result<(), StoreError> {
        let gone = std::mem::take(&mut *self.gone.lock());
        let replaced = self.catalog.replace(add, remove, &gone);
        if replaced.is_err() {
            self.gone.lock().extend(gone);
        }
        replaced
    }

    /// Sets a damaged segment aside: no query sees it any more, its file moves, the catalog knows.
    pub fn quarantine(&self, path: &str, reason: &str) {
        let _commit = self.commit.lock();
        let live = {
            let mut state = self.state.write();
            let Some(at) = state.segments.iter().position(|live| live.row.path == path) else {
                return; // Another reader was faster, or a compaction replaced it.
            };
            let mut segments = state.segments.as_ref().clone();
            let live = segments.remove(at);
            state.segments = Arc::new(segments);
            live
        };
        self.quarantine_row(&live.row, reason);
    }

    /// The part of [`Engine::quarantine`] that touches disk and catalog.
    pub fn quarantine_row(&self, row: &SegmentRow, reason: &str) {
        let moved = self.files.quarantine_segment(&row.path, reason);
        let file = QuarantinedFile {
            name: row.path.replace('/', "_"),
            reason: reason.to_owned(),
            rows: row.meta.rows,
            min_timestamp: row.meta.min_timestamp,
            max_timestamp: row.meta.max_timestamp,
        };
        // When the disk fails here too, the next open finds the damage again.
        let noted = moved.and_then(|_| self.catalog.quarantine(Some(row.id), &file));
        if let Err(e) = noted {
            self.health.lock().compaction_failing = Some(e.to_string());
        }
        self.quarantined.lock().push(file);
    }
}

pub(crate) fn millis(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}
