//! The scan driver: a snapshot and a scan in, batches out.
//!
//! One segment after another is planned, then its granules are read in steps of a few; steps run on the
//! pool ([`crate::pool`]), a bounded number ahead of the reader. Only a segment that may hold rows of the
//! scan has its index brought into memory, and only when its turn has come. A damaged segment is left out, named in
//! the scan's statistics and reported. Dropping the stream stops the work: steps that have begun
//! look at a flag between granules, no further ones begin.

use std::{
    collections::VecDeque,
    ops::Range,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
};

use arrow::{
    array::{RecordBatch, RecordBatchOptions},
    compute,
};
use futures::{
    StreamExt as _,
    channel::mpsc::{UnboundedReceiver, UnboundedSender, unbounded},
};
use trine_schema::{
    LogCount, LogCountRow, LogScan, RecordBatchStream, ScanError, StreamRef, StreamRegistry, logs::column,
};

use crate::{
    Segment, SegmentError, SegmentHandle, StreamMatcher,
    filter::{filter_batch, projected_schema},
    granule::GranuleReader,
    plan::{LineQueries, SegmentPlan, plan},
    pool,
};

/// Granules of one step when whole columns of text are returned: about 5 MB of bodies.
const STEP_GRANULES_TEXT: usize = 4;
/// Granules of one step otherwise: half a row group, whose pages lie together.
const STEP_GRANULES: usize = 16;
/// Rows in memory that one step takes.
const STEP_MEMTABLE_ROWS: usize = 64 * 1024;
/// Steps that run or wait for the reader, per thread of the pool.
const STEPS_PER_THREAD: usize = 2;
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

/// Called when a segment turns out to be damaged; the store puts it into quarantine.
pub type OnCorrupt = Arc<dyn Fn(&Arc<SegmentHandle>, &SegmentError) + Send + Sync>;

/// What the steps of one scan share.
pub(crate) struct Shared {
    pub scan: LogScan,
    pub streams: StreamMatcher,
    pub queries: LineQueries,
    pub on_corrupt: OnCorrupt,
    cancelled: Arc<AtomicBool>,
}

impl Shared {
    /// Whether nobody waits for the answer any more, or the deadline has passed.
    pub fn check(&self) -> Result<(), SegmentError> {
        if self.cancelled.load(Relaxed) {
            return Err(ScanError::Storage("the query was cancelled".into()).into());
        }
        Ok(self.scan.check_deadline()?)
    }

    /// Takes a failure of a segment: damage is noted and the scan goes on, anything else ends it.
    pub fn failed(&self, segment: &Arc<SegmentHandle>, error: SegmentError) -> Result<(), ScanError> {
        note_failure(&self.scan, &self.on_corrupt, segment, error)
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
    if segment.is_damaged() {
        scan.stats.partial.lock().push(format!("segment {} is damaged and left out", segment.path()));
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

fn note_failure(
    scan: &LogScan,
    on_corrupt: &OnCorrupt,
    segment: &Arc<SegmentHandle>,
    error: SegmentError,
) -> Result<(), ScanError> {
    match error {
        SegmentError::Scan(error) => Err(error),
        error if error.is_corrupt() => {
            segment.set_damaged();
            scan.stats.partial.lock().push(format!(
                "{error}; this answer may hold some of its rows, later ones are without the file"
            ));
            on_corrupt(segment, &error);
            Ok(())
        }
        error => Err(ScanError::Storage(error.to_string())),
    }
}

/// Sets the flag when the stream is dropped.
pub(crate) struct CancelOnDrop(Arc<AtomicBool>);

impl Drop for CancelOnDrop {
    fn drop(&mut self) {
        self.0.store(true, Relaxed);
    }
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
    let cancelled = Arc::new(AtomicBool::new(false));
    let guard = CancelOnDrop(cancelled.clone());
    let streams = StreamMatcher::new(registry, &scan);
    let shared = Arc::new(Shared { scan, streams, queries, on_corrupt, cancelled });
    if shared.scan.top.is_some() {
        return futures::stream::once(async move {
            let _guard = guard;
            crate::top::top(snapshot, shared).await
        })
        .boxed();
    }
    let (sender, receiver) = unbounded();
    let mut driver = Driver {
        shared: shared.clone(),
        steps: VecDeque::new(),
        ready: VecDeque::new(),
        running: 0,
        held: 0,
        sender,
        receiver,
        done: false,
        _guard: guard,
    };
    driver.steps.extend(memtable_steps(snapshot.memtable).map(Step::Memtable));
    driver.steps.extend(shared.usable(snapshot.segments).into_iter().map(Step::Plan));
    futures::stream::unfold(driver, |mut driver| async {
        let item = driver.next().await?;
        Some((item, driver))
    })
    .boxed()
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
enum Step {
    Memtable(Vec<RecordBatch>),
    Plan(Arc<SegmentHandle>),
    Read(Arc<SegmentPlan>, Range<usize>),
}

/// What a step found.
enum Found {
    Batches(Vec<RecordBatch>),
    Plan(Option<SegmentPlan>),
    Failed(Option<Arc<SegmentHandle>>, SegmentError),
}

/// Tells the driver even when its step panicked.
struct Report(Option<UnboundedSender<Found>>);

impl Report {
    fn send(mut self, found: Found) {
        if let Some(sender) = self.0.take() {
            let _ = sender.unbounded_send(found);
        }
    }
}

impl Drop for Report {
    fn drop(&mut self) {
        if let Some(sender) = self.0.take() {
            let error = SegmentError::Contract("a step of a scan panicked; see the log".into());
            let _ = sender.unbounded_send(Found::Failed(None, error));
        }
    }
}

struct Driver {
    shared: Arc<Shared>,
    steps: VecDeque<Step>,
    ready: VecDeque<RecordBatch>,
    running: usize,
    /// Bytes of `ready`.
    held: usize,
    sender: UnboundedSender<Found>,
    receiver: UnboundedReceiver<Found>,
    done: bool,
    _guard: CancelOnDrop,
}

impl Driver {
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
            if let Err(error) = self.take(found) {
                self.done = true;
                return Some(Err(error));
            }
        }
    }

    fn start_steps(&mut self) {
        let limit = self.shared.scan.memory_limit.unwrap_or(usize::MAX);
        let most = pool::threads() * STEPS_PER_THREAD;
        // What lies ready counts as a running step, so that a slow reader holds the work back.
        while self.running + self.ready.len() < most && (self.held < limit / 2 || self.running == 0) {
            let Some(step) = self.steps.pop_front() else { return };
            if let Step::Read(plan, _) = &step
                && plan.handle.is_damaged()
            {
                continue;
            }
            self.running += 1;
            let (shared, report) = (self.shared.clone(), Report(Some(self.sender.clone())));
            pool::spawn(move || {
                let found = run(step, &shared);
                report.send(found);
            });
        }
    }

    fn take(&mut self, found: Found) -> Result<(), ScanError> {
        match found {
            Found::Batches(batches) => {
                for batch in batches.into_iter().filter(|batch| batch.num_rows() > 0) {
                    self.held += batch.get_array_memory_size();
                    self.ready.push_back(batch);
                }
                match self.shared.scan.memory_limit {
                    Some(limit) if self.held > limit => Err(ScanError::Memory { limit }),
                    _ => Ok(()),
                }
            }
            Found::Plan(None) => Ok(()),
            Found::Plan(Some(plan)) => {
                let plan = Arc::new(plan);
                count_plan(&self.shared.scan, &plan);
                let text = self.shared.scan.projection.contains(&column::BODY)
                    || self.shared.scan.projection.contains(&column::ATTRIBUTES);
                let size = if text { STEP_GRANULES_TEXT } else { STEP_GRANULES };
                // Before the next segments are planned: few indexes are in use at a time.
                for start in (0..plan.work.len()).step_by(size).rev() {
                    let end = (start + size).min(plan.work.len());
                    self.steps.push_front(Step::Read(plan.clone(), start..end));
                }
                Ok(())
            }
            Found::Failed(Some(segment), error) => self.shared.failed(&segment, error),
            Found::Failed(None, SegmentError::Scan(error)) => Err(error),
            Found::Failed(None, error) => Err(ScanError::Storage(error.to_string())),
        }
    }
}

/// Counts what a plan looks at and passes by.
pub(crate) fn count_plan(scan: &LogScan, plan: &SegmentPlan) {
    let segments =
        if plan.work.is_empty() { &scan.stats.segments_skipped } else { &scan.stats.segments_scanned };
    segments.fetch_add(1, Relaxed);
    scan.stats.granules_skipped.fetch_add(plan.skipped, Relaxed);
}

fn run(step: Step, shared: &Shared) -> Found {
    match step {
        Step::Memtable(batches) => match read_memtable(&batches, shared) {
            Ok(found) => Found::Batches(found),
            Err(error) => Found::Failed(None, error),
        },
        Step::Plan(handle) => match shared.load(&handle) {
            Ok(segment) => Found::Plan(
                segment.map(|segment| plan(&handle, segment, &shared.scan, &shared.streams, &shared.queries)),
            ),
            Err(error) => Found::Failed(Some(handle), error),
        },
        Step::Read(plan, work) => match read_segment(&plan, work, shared) {
            Ok(found) => Found::Batches(found),
            Err(error) => Found::Failed(Some(plan.handle.clone()), error),
        },
    }
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
            note_failure(scan, on_corrupt, segment, error)?;
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
