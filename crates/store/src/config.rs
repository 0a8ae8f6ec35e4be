//! Every setting of the store, declared once.

use std::{path::PathBuf, time::Duration};

/// How bodies lie in segments.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum BodyEncoding {
    /// A plain text column; any Parquet reader sees it.
    Plain,
    /// Templates and variables, the smallest form. The default.
    #[default]
    Templates,
}

impl From<BodyEncoding> for trine_segment::BodyEncoding {
    fn from(body: BodyEncoding) -> Self {
        match body {
            BodyEncoding::Plain => Self::Plain,
            BodyEncoding::Templates => Self::Template,
        }
    }
}

/// Settings of one store. [`StoreConfig::new`] gives the defaults named at each field.
#[derive(Debug, Clone)]
pub struct StoreConfig {
    /// Data directory; created when missing.
    pub dir: PathBuf,
    /// Whether an append is acknowledged only after `fdatasync`. Default: true. Without it a power
    /// cut may lose the last seconds; a crash of the process alone still loses nothing.
    pub fsync: bool,
    /// A memtable that holds this many bytes of memory is flushed. Two may exist at a time: one
    /// filling, one being written, and the flush sorts into a copy, so memory peaks near four times
    /// this. Default: 32 MiB.
    pub memtable_bytes: usize,
    /// A memtable whose first row is this old is flushed even when it is small, so that the log
    /// stays short. Default: 5 minutes.
    pub flush_after: Duration,
    /// Rows whose timestamp is older than this are no longer seen by any query. Their space is freed when
    /// all rows of a segment are that old, or when a merge passes. Default: none (kept for ever).
    pub retention_age: Option<Duration>,
    /// Most bytes all segments together may take on disk; the segments with the oldest rows go first.
    /// Default: none.
    pub retention_bytes: Option<u64>,
    /// How long a batch key is remembered. Default: 10 minutes. Zero switches deduplication off.
    pub dedup_window: Duration,
    /// Whether a request without an idempotency key is recognised by a hash of its body
    /// (see [`crate::Store::batch_key`]). Default: true.
    pub dedup_by_content: bool,
    /// Most batch keys remembered at a time; past it the oldest are forgotten early. Default: 200,000
    /// (about 10 MB).
    pub dedup_keys: usize,
    /// Whether compaction and retention run by themselves. Default: true. [`crate::Store::compact`]
    /// works either way.
    pub compaction: bool,
    /// Bytes of bodies (or 16 per row, where that is more) up to which segments are brought together; one
    /// with half as many stays as it is. Default: 1 GiB.
    pub segment_bytes: u64,
    /// Body encoding of new segments. Default: [`BodyEncoding::Templates`].
    pub body_encoding: BodyEncoding,
    /// Most bytes of batches waiting for the log; appenders wait beyond. Default: 16 MiB.
    pub queue_bytes: usize,
    /// Most memory of the segments' indexes that are kept for the next question, in bytes; those asked for
    /// longest ago go first. What running queries read with may go beyond. Default: 256 MiB.
    pub index_memory: usize,
    /// An index that no question needed for so long leaves memory. Default: 10 minutes.
    pub index_idle: Duration,
}

impl StoreConfig {
    /// The defaults, for this directory.
    pub fn new(dir: impl Into<PathBuf>) -> Self {
        Self {
            dir: dir.into(),
            fsync: true,
            memtable_bytes: 32 << 20,
            flush_after: Duration::from_mins(5),
            retention_age: None,
            retention_bytes: None,
            dedup_window: Duration::from_mins(10),
            dedup_by_content: true,
            dedup_keys: 200_000,
            compaction: true,
            segment_bytes: 1 << 30,
            body_encoding: BodyEncoding::default(),
            queue_bytes: 16 << 20,
            index_memory: 256 << 20,
            index_idle: Duration::from_mins(10),
        }
    }
}
