//! The scan driver of spans: rows in memory and segments in, batches out.
//!
//! As for logs ([`crate::scan`]): steps run on the pool, a damaged segment is left out, named in the
//! statistics and reported, and dropping the stream stops the work. A step reads a row group, whose
//! dictionaries are then decoded once.

use std::{
    ops::Range,
    sync::{Arc, atomic::Ordering::Relaxed},
};

use arrow::array::{RecordBatch, RecordBatchOptions};
use futures::StreamExt as _;
use trine_schema::{RecordBatchStream, ScanError, SpanScan, StreamRegistry};

use super::{
    SpanSegment,
    filter::{self, Ids},
    newest,
    read::LoadedSpans,
    rows::Shape,
    search::Plan,
};
use crate::{
    OnCorrupt, SegmentError, StreamMatcher,
    scan::memtable_steps,
    steps::{self, Cancel, Found, Work},
};

/// With more columns than this, rows are built in steps …
const NARROW: usize = 4;
/// … of so many, about 20 MB, which can run side by side.
const STEP_ROWS: usize = 32 * 1_024;

/// What one query sees of the spans: rows in memory and segments on disk.
#[derive(Clone, Default)]
pub struct SpanSnapshot {
    /// Batches of [`trine_schema::spans::schema`], unsorted, of any tenant.
    pub memtable: Vec<RecordBatch>,
    /// Segments that may hold spans of the query.
    pub segments: Vec<Arc<SpanSegment>>,
}

/// What the steps of one scan share.
pub(super) struct Shared {
    pub scan: SpanScan,
    pub streams: StreamMatcher,
    /// The trace ids of the scan.
    pub ids: Option<Ids>,
    pub on_corrupt: OnCorrupt<SpanSegment>,
    pub cancel: Cancel,
}

impl Shared {
    pub fn new(
        scan: SpanScan,
        registry: Arc<StreamRegistry>,
        on_corrupt: OnCorrupt<SpanSegment>,
    ) -> Arc<Self> {
        let streams = StreamMatcher::of(registry, scan.tenant.clone(), scan.streams.clone());
        let ids = scan.traces.clone().map(Ids::new);
        Arc::new(Self { scan, streams, ids, on_corrupt, cancel: Cancel::default() })
    }

    /// Whether nobody waits for the answer any more, or the deadline has passed.
    pub fn check(&self) -> Result<(), ScanError> {
        self.cancel.check()?;
        self.scan.check_deadline()
    }

    /// Takes a failure of a segment: damage is noted and the scan goes on, anything else ends it.
    pub fn failed(&self, segment: &Arc<SpanSegment>, error: SegmentError) -> Result<(), ScanError> {
        segment.failed(error, &self.scan.stats, &self.on_corrupt)
    }

    /// Segments that are worth a look; damaged ones are named. Without `in_time` those of any time.
    pub fn usable(&self, segments: Vec<Arc<SpanSegment>>, in_time: bool) -> Vec<Arc<SpanSegment>> {
        segments.into_iter().filter(|segment| self.is_usable(segment, in_time)).collect()
    }

    fn is_usable(&self, segment: &SpanSegment, in_time: bool) -> bool {
        let scan = &self.scan;
        if segment.is_left_out(&scan.stats) {
            return false;
        }
        let meta = segment.meta();
        let in_time = !in_time || (meta.min_timestamp <= scan.last && meta.max_timestamp >= scan.start);
        let found = in_time && meta.tenants.contains(&scan.tenant);
        if !found {
            self.skipped(segment);
        }
        found
    }

    /// Counts a segment that is passed by as a whole.
    fn skipped(&self, segment: &SpanSegment) {
        self.scan.stats.segments_skipped.fetch_add(1, Relaxed);
        self.scan.stats.granules_skipped.fetch_add(segment.granules() as u64, Relaxed);
    }

    /// What is to be read of a segment; its index is brought into memory when it may hold rows.
    pub fn plan(&self, segment: &SpanSegment) -> Result<Option<(Arc<LoadedSpans>, Plan)>, SegmentError> {
        self.check()?;
        if !segment.may_hold(&self.scan, &self.streams, self.ids.as_ref())? {
            self.skipped(segment);
            return Ok(None);
        }
        let loaded = segment.load()?;
        let Some(plan) = loaded.plan(&self.scan, &self.streams, self.ids.as_ref())? else {
            self.skipped(segment);
            return Ok(None);
        };
        let stats = &self.scan.stats;
        stats.segments_scanned.fetch_add(1, Relaxed);
        stats.granules_skipped.fetch_add((loaded.granules() - plan.granules.len()) as u64, Relaxed);
        Ok(Some((loaded, plan)))
    }

    pub fn shape(&self) -> Shape<'_> {
        let scan = &self.scan;
        Shape::of(scan)
    }

    /// Rows of some granules of one row group, or steps that read them.
    fn read(&self, planned: &Arc<Planned>, granules: &[usize]) -> Result<Found<Step>, SegmentError> {
        let (scan, loaded, reader) = (&self.scan, &planned.loaded, planned.loaded.reader());
        let left = loaded.select(&reader, granules, (scan, scan.start), &planned.plan, self.ids.as_ref())?;
        scan.stats.rows_matched.fetch_add(left.count() as u64, Relaxed);
        let columns = scan.projection.len() + scan.attribute_columns.len();
        let found = if left.is_empty() || columns == 0 {
            Found::Batches(vec![without_columns(left.count())?])
        } else if columns <= NARROW || left.count() <= STEP_ROWS {
            Found::Batches(loaded.rows(&reader, &left.granules, &left.rows(), &self.shape())?)
        } else {
            let parts = left.parts(STEP_ROWS).into_iter();
            Found::Steps(parts.map(|(of, rows)| Step::Build(planned.clone(), of, rows)).collect())
        };
        scan.stats.bytes_scanned.fetch_add(reader.bytes_read(), Relaxed);
        Ok(found)
    }

    /// Rows that were found, as they are wanted.
    fn build(
        &self,
        loaded: &LoadedSpans,
        of: &[usize],
        rows: &[Range<usize>],
    ) -> Result<Found<Step>, SegmentError> {
        let reader = loaded.reader();
        let found = loaded.rows(&reader, of, rows, &self.shape())?;
        self.scan.stats.bytes_scanned.fetch_add(reader.bytes_read(), Relaxed);
        Ok(Found::Batches(found))
    }
}

fn without_columns(rows: usize) -> Result<RecordBatch, SegmentError> {
    let options = RecordBatchOptions::new().with_row_count(Some(rows));
    Ok(RecordBatch::try_new_with_options(Arc::new(arrow::datatypes::Schema::empty()), vec![], &options)?)
}

/// Runs a scan over spans. Reading happens on a small pool of threads, a bounded number of steps ahead of
/// the reader; dropping the stream stops it. A damaged segment is left out, named in `stats.partial`
/// and reported to `on_corrupt`.
pub fn scan_spans(
    snapshot: SpanSnapshot,
    registry: Arc<StreamRegistry>,
    scan: SpanScan,
    on_corrupt: OnCorrupt<SpanSegment>,
) -> RecordBatchStream {
    let shared = Shared::new(scan, registry, on_corrupt);
    let guard = shared.cancel.guard();
    if let Some(most) = shared.scan.newest {
        return futures::stream::once(async move {
            let _guard = guard;
            newest::newest(snapshot, shared, most).await
        })
        .boxed();
    }
    let memtable = memtable_steps(snapshot.memtable).map(Step::Memtable);
    let segments = shared.usable(snapshot.segments, true).into_iter().map(Step::Plan);
    let steps: Vec<Step> = memtable.chain(segments).collect();
    steps::stream(shared, steps, guard)
}

pub(super) enum Step {
    Memtable(Vec<RecordBatch>),
    Plan(Arc<SpanSegment>),
    /// Granules of one row group, to be searched.
    Read(Arc<Planned>, Vec<usize>),
    /// Rows in granules of one row group, to be built.
    Build(Arc<Planned>, Vec<usize>, Vec<Range<usize>>),
}

/// A segment of which rows are read.
pub(super) struct Planned {
    segment: Arc<SpanSegment>,
    loaded: Arc<LoadedSpans>,
    plan: Plan,
}

impl Work for Shared {
    type Step = Step;

    fn run(&self, step: Step) -> Result<Found<Step>, ScanError> {
        self.check()?;
        let nothing = || Found::Batches(Vec::new());
        match step {
            Step::Memtable(batches) => {
                let kept = batches.iter().map(|batch| self.memtable(batch));
                kept.collect::<Result<_, _>>().map(Found::Batches)
            }
            Step::Plan(segment) => match self.plan(&segment) {
                Ok(None) => Ok(nothing()),
                Ok(Some((loaded, plan))) => Ok(Found::Steps(Self::steps(Planned { segment, loaded, plan }))),
                Err(error) => self.failed(&segment, error).map(|()| nothing()),
            },
            Step::Read(planned, granules) => match self.read(&planned, &granules) {
                Ok(found) => Ok(found),
                Err(error) => self.failed(&planned.segment, error).map(|()| nothing()),
            },
            Step::Build(planned, of, rows) => match self.build(&planned.loaded, &of, &rows) {
                Ok(found) => Ok(found),
                Err(error) => self.failed(&planned.segment, error).map(|()| nothing()),
            },
        }
    }

    fn is_vain(&self, step: &Step) -> bool {
        matches!(step, Step::Read(planned, _) | Step::Build(planned, ..) if planned.segment.is_damaged())
    }

    fn memory_limit(&self) -> Option<usize> {
        self.scan.memory_limit
    }
}

impl Shared {
    /// The work of a plan in parts.
    fn steps(planned: Planned) -> Vec<Step> {
        let planned = Arc::new(planned);
        let group = |number: &usize| planned.loaded.places[*number].group;
        let groups = planned.plan.granules.chunk_by(|a, b| group(a) == group(b));
        groups.map(|of_group| Step::Read(planned.clone(), of_group.to_vec())).collect()
    }

    /// The rows in memory that pass.
    fn memtable(&self, batch: &RecordBatch) -> Result<RecordBatch, ScanError> {
        let stats = &self.scan.stats;
        stats.rows_scanned.fetch_add(batch.num_rows() as u64, Relaxed);
        stats.bytes_scanned.fetch_add(batch.get_array_memory_size() as u64, Relaxed);
        let selected = filter::select(batch, &self.scan, &self.streams, self.ids.as_ref());
        stats.rows_matched.fetch_add(u64::from(selected.count()), Relaxed);
        filter::project(batch, &self.scan, &selected).map_err(|error| ScanError::Storage(error.to_string()))
    }
}
