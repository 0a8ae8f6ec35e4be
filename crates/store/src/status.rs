//! What the store tells about itself.

use std::path::PathBuf;

use trine_schema::Signal;

/// The store at one moment; cheap enough for every scrape.
#[derive(Debug, Clone, Default)]
pub struct StoreStatus {
    /// Rows in memtables and segments.
    pub rows: u64,
    /// Bytes of all segments on disk.
    pub segment_bytes: u64,
    /// Segments by signal and level: 0 fresh from a flush, 1 and up compacted.
    pub levels: Vec<LevelStatus>,
    /// Bytes of the log on disk.
    pub wal_bytes: u64,
    /// Rows in the memtables.
    pub memtable_rows: u64,
    /// Memory of the memtables in bytes.
    pub memtable_bytes: u64,
    /// Memory of the segments' indexes that are kept for the next question, in bytes.
    pub index_bytes: u64,
    /// Indexes read for questions, verification and compaction since open.
    pub index_loads: u64,
    /// Nanoseconds that took.
    pub index_load_ns: u64,
    /// Streams known to the process.
    pub streams: u64,
    /// Files that failed a check and were set aside.
    pub quarantined: Vec<QuarantinedFile>,
    /// Why nothing is taken in any more, when a sync failed.
    pub poisoned: Option<String>,
    /// Why appends are refused for now, when the disk is full.
    pub full: Option<String>,
    /// The last failure of a flush, compaction or retention that is being retried.
    pub background_error: Option<String>,
    /// Remarks of the last open that need no action by themselves, such as an end of the log that was
    /// cut off.
    pub notes: Vec<String>,
    /// Running totals since open.
    pub counters: StoreCounters,
}

/// Segments of one signal and level.
#[derive(Debug, Clone)]
pub struct LevelStatus {
    /// The signal.
    pub signal: Signal,
    /// The level.
    pub level: u8,
    /// Number of segments.
    pub segments: u64,
    /// Rows in them.
    pub rows: u64,
    /// Bytes on disk.
    pub bytes: u64,
    /// Bytes of bodies before encoding.
    pub raw_bytes: u64,
}

impl LevelStatus {
    pub(crate) fn new(signal: Signal, level: u8) -> Self {
        Self { signal, level, segments: 0, rows: 0, bytes: 0, raw_bytes: 0 }
    }
}

/// Totals since open. Durations are in nanoseconds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[allow(missing_docs)] // the names tell
pub struct StoreCounters {
    pub appended_batches: u64,
    pub appended_rows: u64,
    /// Bytes of bodies and attributes taken in.
    pub appended_bytes: u64,
    pub duplicate_batches: u64,
    pub rejected_batches: u64,
    /// Group commits; each is one write and one sync of the log.
    pub wal_groups: u64,
    pub wal_written_bytes: u64,
    pub wal_sync_ns: u64,
    pub flushes: u64,
    pub flush_ns: u64,
    pub flush_rows: u64,
    pub compactions: u64,
    pub compaction_ns: u64,
    pub compaction_rows: u64,
    /// Segments dropped by retention.
    pub retained_out_segments: u64,
    /// Rows dropped by retention.
    pub retained_out_rows: u64,
}

/// A file that failed a check.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct QuarantinedFile {
    /// Its name inside `quarantine/`; next to it lies `<name>.reason.txt`.
    pub name: String,
    /// What was wrong.
    pub reason: String,
    /// Rows it held, as far as is known.
    pub rows: u64,
    /// Earliest timestamp of its rows; `i64::MIN` when unknown.
    pub min_timestamp: i64,
    /// Latest timestamp of its rows; `i64::MAX` when unknown.
    pub max_timestamp: i64,
}

/// What `verify` found.
#[derive(Debug, Clone, Default)]
pub struct VerifyReport {
    /// The data directory.
    pub dir: PathBuf,
    /// Segments read in full.
    pub segments: u64,
    /// Rows in them.
    pub rows: u64,
    /// Bytes read.
    pub bytes: u64,
    /// Records of the log that are valid.
    pub wal_records: u64,
    /// Damage, one line per file: what and why. Empty means all is well.
    pub problems: Vec<String>,
    /// Remarks that are no damage, such as a torn tail of the log or an orphan file.
    pub notes: Vec<String>,
}

impl VerifyReport {
    /// Whether everything was in order.
    pub fn is_ok(&self) -> bool {
        self.problems.is_empty()
    }
}
