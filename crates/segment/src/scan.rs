//! The scan driver: a snapshot and a scan in, batches out.
//!
//! One segment after another is planned, then its granules are read in steps of a few; steps run on the
//! pool ([`crate::steps`]), a bounded number ahead of the reader. Only a segment that may hold rows of the
//! scan has its index brought into memory, and only when its turn has come. A damaged segment is left out, named in
//! the scan's statistics and reported. Dropping the stream stops the work: steps that have begun
//! look at a flag between granules, no further ones begin.

use std::{
    ops::Range,
    sync::{Arc, atomic::Ordering::Relaxed},
};

use arrow::{
    array::{RecordBatch, RecordBatchOptions},
    compute,
};
use futures::StreamExt as _;
use trine_schema::{
    LogCount, LogCountRow, LogScan, RecordBatchStream, ScanError, StreamRef, StreamRegistry, logs::column,
};

use crate::{
    OnCorrupt, Segment, SegmentError, SegmentHandle, StreamMatcher,
    filter::{filter_batch, projected_schema},
    granule::GranuleReader,
    plan::{LineQueries, SegmentPlan, plan},
    steps::{self, Cancel, Found, Work},
};

/// Granules of one step when whole columns of text are returned: about 5 MB of bodies.
const STEP_GRANULES_TEXT: usize = 4;
/// Granules of one step otherwise: half a row group, whose pages lie together.
const STEP_GRANULES: usize = 16;
/// Rows in memory that one step takes.
const STEP_MEMTABLE_ROWS: usize = 64 * 1024;
/// Batches of one step with fewer rows on average are joined.
const SMALL_BATCH_ROWS: usize = 1_024;

/// What one query sees: rows in memory and segments on disk.
#[derive(Clone, Default)]
pub struct Snapshot {
    /// Batches of [`trine_schema::logs::schema`], unsorted, of any tenant.
    pub memtable: Vec<RecordBatch>,
    /// Segments that may hold rows of the query.
    pub segments: Vec<Arc<SegmentHandle>>,
}

/// What the steps of one scan share.
pub(crate) struct Shared {
    pub scan: LogScan,
    pub streams: StreamMatcher,
    pub queries: LineQueries,
    pub on_corrupt: OnCorrupt,
    cancelled: Cancel,
}

impl Shared {
    /// Whether nobody waits for the answer any more, or the deadline has passed.
    pub fn check(&self) -> Result<(), SegmentError> {
        self.cancelled.check()?;
        Ok(self.scan.check_deadline()?)
    }

    /// Takes a failure of a segment: damage is noted and the scan goes on, anything else ends it.
    pub fn failed(&self, segment: &Arc<SegmentHandle>, error: SegmentError) -> Result<(), ScanError> {
        segment.failed(error, &self.scan.stats, &self.on_corrupt)
    }

    /// Segments that are worth planning; damaged ones are named.
    pub fn usable(&self, segments: Vec<Arc<SegmentHandle>>) -> Vec<Arc<SegmentHandle>> {
        segments.into_iter().filter(|segment| is_usable(&self.scan, segment)).collect()
    }

    /// Brings the index into memory; `None` when the segment has none of the scan's streams in its range.
    pub fn load(&self, handle: &SegmentHandle) -> Result<Option<Arc<Segment>>, SegmentError> {
        self.check()?;
        load(handle, &self.scan, &self.streams)
    }
}

fn load(
    handle: &SegmentHandle,
    scan: &LogScan,
    streams: &StreamMatcher,
) -> Result<Option<Arc<Segment>>, SegmentError> {
    if handle.streams(scan, streams).next().is_none() {
        count_skipped(scan, handle);
        return Ok(None);
    }
    handle.load().map(Some)
}

/// Counts a segment that is passed by as a whole.
pub(crate) fn count_skipped(scan: &LogScan, segment: &SegmentHandle) {
    scan.stats.segments_skipped.fetch_add(1, Relaxed);
    scan.stats.granules_skipped.fetch_add(segment.granules() as u64, Relaxed);
}

fn is_usable(scan: &LogScan, segment: &SegmentHandle) -> bool {
    if segment.is_left_out(&scan.stats) {
        return false;
    }
    let meta = segment.meta();
    let in_time = crate::read::last_instant(scan)
        .is_some_and(|last| meta.min_timestamp <= last && meta.max_timestamp >= scan.start);
    let found = in_time && meta.tenants.contains(&scan.tenant);
    if !found {
        count_skipped(scan, segment);
    }
    found
}

/// Runs a scan. Reading happens on a small pool of threads, a bounded number of steps ahead of the
/// reader; dropping the stream stops it. A damaged segment is left out, named in `stats.partial`
/// and reported to `on_corrupt`.
pub fn scan(
    snapshot: Snapshot,
    registry: Arc<StreamRegistry>,
    scan: LogScan,
    on_corrupt: OnCorrupt,
) -> RecordBatchStream {
    let queries = match LineQueries::new(&scan) {
        Ok(queries) => queries,
        Err(error) => {
            let error = ScanError::Storage(error.to_string());
            return futures::stream::once(async { Err(error) }).boxed();
        }
    };
    let cancelled = Cancel::default();
    let guard = cancelled.guard();
    let streams = StreamMatcher::new(registry, &scan);
    let shared = Arc::new(Shared { scan, streams, queries, on_corrupt, cancelled });
    if shared.scan.top.is_some() {
        return futures::stream::once(async move {
            let _guard = guard;
            crate::top::top(snapshot, shared).await
        })
        .boxed();
    }
    let memtable = memtable_steps(snapshot.memtable).map(Step::Memtable);
    let segments = shared.usable(snapshot.segments).into_iter().map(Step::Plan);
    let steps: Vec<Step> = memtable.chain(segments).collect();
    steps::stream(shared, steps, guard)
}

/// Batches grouped so that a step is worth its overhead.
pub(crate) fn memtable_steps(batches: Vec<RecordBatch>) -> impl Iterator<Item = Vec<RecordBatch>> {
    let mut batches = batches.into_iter().peekable();
    std::iter::from_fn(move || {
        let mut step = vec![batches.next()?];
        let mut rows = step[0].num_rows();
        while let Some(batch) = batches.next_if(|batch| rows + batch.num_rows() <= STEP_MEMTABLE_ROWS) {
            rows += batch.num_rows();
            step.push(batch);
        }
        Some(step)
    })
}

/// Something to do on the pool.
pub(crate) enum Step {
    Memtable(Vec<RecordBatch>),
    Plan(Arc<SegmentHandle>),
    Read(Arc<SegmentPlan>, Range<usize>),
}

impl Work for Shared {
    type Step = Step;

    fn run(&self, step: Step) -> Result<Found<Step>, ScanError> {
        let (segment, found) = match step {
            Step::Memtable(batches) => (None, read_memtable(&batches, self).map(Found::Batches)),
            Step::Plan(handle) => {
                let found = self.load(&handle).map(|segment| {
                    let planned = |s| plan(&handle, s, &self.scan, &self.streams, &self.queries);
                    Found::Steps(segment.map(planned).map_or_else(Vec::new, |plan| self.steps(plan)))
                });
                (Some(handle), found)
            }
            Step::Read(plan, work) => {
                (Some(plan.handle.clone()), read_segment(&plan, work, self).map(Found::Batches))
            }
        };
        match (segment, found) {
            (_, Ok(found)) => Ok(found),
            (Some(segment), Err(error)) => {
                self.failed(&segment, error)?;
                Ok(Found::Batches(Vec::new()))
            }
            (None, Err(SegmentError::Scan(error))) => Err(error),
            (None, Err(error)) => Err(ScanError::Storage(error.to_string())),
        }
    }

    fn is_vain(&self, step: &Step) -> bool {
        matches!(step, Step::Read(plan, _) if plan.handle.is_damaged())
    }

    fn memory_limit(&self) -> Option<usize> {
        self.scan.memory_limit
    }
}

impl Shared {
    /// The work of a plan in parts.
    fn steps(&self, plan: SegmentPlan) -> Vec<Step> {
        let plan = Arc::new(plan);
        count_plan(&self.scan, &plan);
        let text = self.scan.projection.contains(&column::BODY)
            || self.scan.projection.contains(&column::ATTRIBUTES);
        let size = if text { STEP_GRANULES_TEXT } else { STEP_GRANULES };
        let starts = (0..plan.work.len()).step_by(size);
        starts.map(|start| Step::Read(plan.clone(), start..(start + size).min(plan.work.len()))).collect()
    }
}

/// Counts what a plan looks at and passes by.
pub(crate) fn count_plan(scan: &LogScan, plan: &SegmentPlan) {
    let segments =
        if plan.work.is_empty() { &scan.stats.segments_skipped } else { &scan.stats.segments_scanned };
    segments.fetch_add(1, Relaxed);
    scan.stats.granules_skipped.fetch_add(plan.skipped, Relaxed);
}

fn read_memtable(batches: &[RecordBatch], shared: &Shared) -> Result<Vec<RecordBatch>, SegmentError> {
    let scan = &shared.scan;
    shared.check()?;
    let mut found = Vec::new();
    for batch in batches {
        let kept = filter_batch(batch, scan, &shared.streams)?;
        scan.stats.rows_scanned.fetch_add(batch.num_rows() as u64, Relaxed);
        scan.stats.bytes_scanned.fetch_add(batch.get_array_memory_size() as u64, Relaxed);
        scan.stats.rows_matched.fetch_add(kept.num_rows() as u64, Relaxed);
        found.push(kept);
    }
    joined(found, scan)
}

fn read_segment(
    plan: &SegmentPlan,
    work: Range<usize>,
    shared: &Shared,
) -> Result<Vec<RecordBatch>, SegmentError> {
    let scan = &shared.scan;
    let reader = plan.segment.reader();
    let mut found = Vec::new();
    for work in &plan.work[work] {
        shared.check()?;
        let mut granule = GranuleReader::new(&plan.segment, work.granule, reader.clone());
        let selected = granule.select(plan, work, scan)?;
        scan.stats.granules_scanned.fetch_add(1, Relaxed);
        scan.stats.rows_scanned.fetch_add(work.row_count(), Relaxed);
        if !selected.is_empty() {
            scan.stats.rows_matched.fetch_add(u64::from(selected.count()), Relaxed);
            found.push(granule.produce(&selected, &scan.projection)?);
        }
    }
    scan.stats.bytes_scanned.fetch_add(reader.bytes_read(), Relaxed);
    joined(found, scan)
}

/// Joins small batches, and batches without columns always.
fn joined(mut batches: Vec<RecordBatch>, scan: &LogScan) -> Result<Vec<RecordBatch>, SegmentError> {
    batches.retain(|batch| batch.num_rows() > 0);
    let rows: usize = batches.iter().map(RecordBatch::num_rows).sum();
    if batches.len() < 2 || (!scan.projection.is_empty() && rows >= batches.len() * SMALL_BATCH_ROWS) {
        return Ok(batches);
    }
    let schema = projected_schema(&scan.projection);
    if scan.projection.is_empty() {
        let options = RecordBatchOptions::new().with_row_count(Some(rows));
        return Ok(vec![RecordBatch::try_new_with_options(schema, vec![], &options)?]);
    }
    Ok(vec![compute::concat_batches(&schema, &batches)?])
}

/// Answers a count from roll-ups and columns; blocks the thread while it reads. `None` when a filter is
/// about more than levels.
pub fn count(
    snapshot: &Snapshot,
    registry: &Arc<StreamRegistry>,
    count: &LogCount,
    on_corrupt: &OnCorrupt,
) -> Result<Option<Vec<LogCountRow>>, ScanError> {
    let scan = &count.scan;
    let Some(levels) = crate::count::whole_levels(scan) else { return Ok(None) };
    let streams = StreamMatcher::new(registry.clone(), scan);
    let mut rows = crate::count::count_memtable(&snapshot.memtable, count, levels, &streams);
    for segment in &snapshot.segments {
        scan.check_deadline()?;
        if !is_usable(scan, segment) {
            continue;
        }
        let before = rows.len();
        let counted = load(segment, scan, &streams).and_then(|loaded| match loaded {
            Some(loaded) => crate::count::count_segment(&loaded, count, levels, &streams, &mut rows),
            None => Ok(()),
        });
        if let Err(error) = counted {
            rows.truncate(before);
            segment.failed(error, &scan.stats, on_corrupt)?;
        }
    }
    Ok(Some(rows))
}

/// Streams of the scan's tenant that match and have rows in its range, each once.
pub fn streams(
    snapshot: &Snapshot,
    registry: &Arc<StreamRegistry>,
    scan: &LogScan,
) -> Result<Vec<StreamRef>, ScanError> {
    let matcher = StreamMatcher::new(registry.clone(), scan);
    let mut found: Vec<StreamRef> = Vec::new();
    for batch in &snapshot.memtable {
        scan.check_deadline()?;
        let mut last = None;
        for (stream, time) in crate::write::stream_refs(batch).iter().zip(crate::write::timestamps(batch)) {
            if last != Some(*stream) && scan.in_range(*time) && matcher.matches(*stream) {
                found.push(*stream);
                last = Some(*stream);
            }
        }
    }
    for segment in snapshot.segments.iter().filter(|segment| is_usable(scan, segment)) {
        scan.check_deadline()?;
        found.extend(segment.streams(scan, &matcher));
    }
    found.sort_unstable();
    found.dedup();
    Ok(found)
}
