//! The scan driver of spans: rows in memory and segments in, batches out.
//!
//! As for logs ([`crate::scan`]): steps run on the pool, a damaged segment is left out, named in the
//! statistics and reported, and dropping the stream stops the work.

use std::{
    cmp::Reverse,
    sync::{Arc, atomic::Ordering::Relaxed},
};

use arrow::array::{AsArray, RecordBatch};
use arrow::compute::{concat_batches, sort_to_indices, take_record_batch};
use arrow::datatypes::TimestampNanosecondType;
use futures::StreamExt as _;
use trine_schema::{RecordBatchStream, ScanError, SpanScan, StreamRegistry, spans::column};

use super::{SpanSegment, filter};
use crate::{
    SegmentError, StreamMatcher,
    scan::memtable_steps,
    steps::{self, Cancel, Found, Work, on_pool},
};

/// What one query sees of the spans: rows in memory and segments on disk.
#[derive(Clone, Default)]
pub struct SpanSnapshot {
    /// Batches of [`trine_schema::spans::schema`], unsorted, of any tenant.
    pub memtable: Vec<RecordBatch>,
    /// Segments that may hold spans of the query.
    pub segments: Vec<Arc<SpanSegment>>,
}

/// Called when a segment of spans turns out to be damaged; the store puts it into quarantine.
pub type OnCorruptSpans = Arc<dyn Fn(&Arc<SpanSegment>, &SegmentError) + Send + Sync>;

/// What the steps of one scan share.
pub(super) struct Shared {
    pub scan: SpanScan,
    pub streams: StreamMatcher,
    pub registry: Arc<StreamRegistry>,
    pub on_corrupt: OnCorruptSpans,
    pub cancel: Cancel,
}

impl Shared {
    /// Whether nobody waits for the answer any more, or the deadline has passed.
    pub fn check(&self) -> Result<(), ScanError> {
        self.cancel.check()?;
        self.scan.check_deadline()
    }

    /// Takes a failure of a segment: damage is noted and the scan goes on, anything else ends it.
    pub fn failed(&self, segment: &Arc<SpanSegment>, error: SegmentError) -> Result<(), ScanError> {
        match error {
            SegmentError::Scan(error) => Err(error),
            error if error.is_corrupt() => {
                segment.set_damaged();
                self.scan.stats.partial.lock().push(format!(
                    "{error}; this answer may hold some of its rows, later ones are without the file"
                ));
                (self.on_corrupt)(segment, &error);
                Ok(())
            }
            error => Err(ScanError::Storage(error.to_string())),
        }
    }

    /// Whether a segment is worth a look; a damaged one is named.
    pub fn is_usable(&self, segment: &SpanSegment) -> bool {
        let scan = &self.scan;
        if segment.is_damaged() {
            let named = format!("segment {} is damaged and left out", segment.path());
            scan.stats.partial.lock().push(named);
            return false;
        }
        let meta = segment.meta();
        let found = meta.min_timestamp <= scan.last
            && meta.max_timestamp >= scan.start
            && meta.tenants.contains(&scan.tenant);
        if !found {
            scan.stats.segments_skipped.fetch_add(1, Relaxed);
        }
        found
    }
}

/// Runs a scan over spans. Reading happens on a small pool of threads, a bounded number of steps ahead of
/// the reader; dropping the stream stops it. A damaged segment is left out, named in `stats.partial`
/// and reported to `on_corrupt`.
pub fn scan_spans(
    snapshot: SpanSnapshot,
    registry: Arc<StreamRegistry>,
    scan: SpanScan,
    on_corrupt: OnCorruptSpans,
) -> RecordBatchStream {
    let cancel = Cancel::default();
    let guard = cancel.guard();
    let streams = StreamMatcher::of(registry.clone(), scan.tenant.clone(), scan.streams.clone());
    let shared = Arc::new(Shared { scan, streams, registry, on_corrupt, cancel });
    if let Some(most) = shared.scan.newest {
        let found = async move {
            let _guard = guard;
            on_pool(move || newest(snapshot, &shared, most)).await?
        };
        return futures::stream::once(found).boxed();
    }
    let memtable = memtable_steps(snapshot.memtable).map(Step::Memtable);
    let segments = snapshot.segments.into_iter().filter(|segment| shared.is_usable(segment));
    let steps: Vec<Step> = memtable.chain(segments.map(Step::Segment)).collect();
    steps::stream(shared, steps, guard)
}

pub(super) enum Step {
    Memtable(Vec<RecordBatch>),
    Segment(Arc<SpanSegment>),
}

impl Work for Shared {
    type Step = Step;

    fn run(&self, step: Step) -> Result<Found<Step>, ScanError> {
        self.check()?;
        match step {
            Step::Memtable(batches) => {
                let kept = batches.iter().map(|batch| memtable(batch, self, &self.scan));
                kept.collect::<Result<_, _>>().map(Found::Batches)
            }
            Step::Segment(segment) => match segment.scan(&self.scan, &self.registry) {
                Ok(found) => Ok(Found::Batches(found)),
                Err(error) => self.failed(&segment, error).map(|()| Found::Batches(Vec::new())),
            },
        }
    }

    fn is_vain(&self, step: &Step) -> bool {
        matches!(step, Step::Segment(segment) if segment.is_damaged())
    }

    fn memory_limit(&self) -> Option<usize> {
        self.scan.memory_limit
    }
}

/// The rows in memory that pass.
fn memtable(batch: &RecordBatch, shared: &Shared, scan: &SpanScan) -> Result<RecordBatch, ScanError> {
    let stats = &scan.stats;
    stats.rows_scanned.fetch_add(batch.num_rows() as u64, Relaxed);
    stats.bytes_scanned.fetch_add(batch.get_array_memory_size() as u64, Relaxed);
    let selected = filter::select(batch, scan, &shared.streams);
    stats.rows_matched.fetch_add(u64::from(selected.count()), Relaxed);
    filter::project(batch, scan, &selected).map_err(|error| ScanError::Storage(error.to_string()))
}

/// The newest rows in one batch, newest first.
fn newest(snapshot: SpanSnapshot, shared: &Shared, most: usize) -> Result<RecordBatch, ScanError> {
    let projection = (0..column::COUNT).collect();
    let wide = SpanScan { projection, dictionaries: false, ..shared.scan.clone() };
    let mut found = Vec::new();
    for batch in &snapshot.memtable {
        found.push(memtable(batch, shared, &wide)?);
    }
    let mut segments: Vec<_> = snapshot.segments.into_iter().filter(|s| shared.is_usable(s)).collect();
    segments.sort_by_key(|segment| Reverse(segment.meta().max_timestamp));
    for segment in segments {
        shared.check()?;
        found = vec![newest_of(&found, &wide, most)?];
        let times = found[0].column(column::TIMESTAMP).as_primitive::<TimestampNanosecondType>();
        let worst = times.values().last().filter(|_| times.len() >= most);
        if worst.is_some_and(|worst| *worst > segment.meta().max_timestamp) || most == 0 {
            break;
        }
        match segment.scan(&wide, &shared.registry) {
            Ok(more) => found.extend(more),
            Err(error) => shared.failed(&segment, error)?,
        }
    }
    let newest = newest_of(&found, &wide, most)?;
    let mut every = trine_body::RowSet::new(newest.num_rows() as u32);
    every.insert_all();
    filter::project(&newest, &shared.scan, &every).map_err(|error| ScanError::Storage(error.to_string()))
}

fn newest_of(batches: &[RecordBatch], scan: &SpanScan, most: usize) -> Result<RecordBatch, ScanError> {
    let sorted = || {
        let all = concat_batches(&scan.schema(), batches)?;
        let newest_first = arrow::compute::SortOptions { descending: true, nulls_first: false };
        let order = sort_to_indices(all.column(column::TIMESTAMP), Some(newest_first), Some(most))?;
        take_record_batch(&all, &order)
    };
    sorted().map_err(|error: arrow::error::ArrowError| ScanError::Storage(error.to_string()))
}
