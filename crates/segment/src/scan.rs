//! The scan driver.
use std::sync::Arc;

use arrow::array::RecordBatch;
use trine_schema::{LogCount, LogCountRow, LogScan, RecordBatchStream, ScanError, StreamRef, StreamRegistry};

use crate::{Segment, SegmentError};

/// What one query sees: rows in memory and segments on disk.
#[derive(Clone, Default)]
pub struct Snapshot {
    /// Batches of [`trine_schema::logs::schema`], unsorted, of any tenant.
    pub memtable: Vec<RecordBatch>,
    /// Segments that may hold rows of the query.
    pub segments: Vec<Arc<Segment>>,
}

/// Called when a segment turns out to be damaged; the store puts it into quarantine.
pub type OnCorrupt = Arc<dyn Fn(&Arc<Segment>, &SegmentError) + Send + Sync>;

/// Runs a scan. Reading happens on a small pool of threads, a bounded number of steps ahead of the
/// reader; dropping the stream stops it. A damaged segment is left out, named in `stats.partial`
/// and reported to `on_corrupt`.
pub fn scan(
    snapshot: Snapshot,
    registry: Arc<StreamRegistry>,
    scan: LogScan,
    on_corrupt: OnCorrupt,
) -> RecordBatchStream {
    let _ = (snapshot, registry, scan, on_corrupt);
    todo!()
}

/// Answers a count from roll-ups and columns; blocks the thread while it reads. `None` when a filter is
/// about more than levels.
pub fn count(
    snapshot: &Snapshot,
    registry: &StreamRegistry,
    count: &LogCount,
    on_corrupt: &OnCorrupt,
) -> Result<Option<Vec<LogCountRow>>, ScanError> {
    let _ = (snapshot, registry, count, on_corrupt);
    todo!()
}

/// Streams of the scan's tenant that match and have rows in its range, each once.
pub fn streams(snapshot: &Snapshot, registry: &StreamRegistry, scan: &LogScan) -> Vec<StreamRef> {
    let _ = (snapshot, registry, scan);
    todo!()
}
