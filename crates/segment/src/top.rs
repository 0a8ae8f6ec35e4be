//! The newest or oldest N rows.
//!
//! Rows are found in two phases. First only timestamps and filters are looked at, what can hold the best
//! rows first: a segment is one thing to look at until its turn comes, then its index is loaded and it
//! becomes its granules. The N best so far give a threshold that ends the search early, so segments that
//! cannot hold a better row are never loaded. Without row filters the time marks give a threshold before
//! any row is read. Then the N rows are built, column by column, and sorted.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BinaryHeap},
    sync::{Arc, atomic::Ordering::Relaxed},
};

use arrow::{
    array::{AsArray, RecordBatch, UInt32Array},
    compute,
    datatypes::TimestampNanosecondType,
};
use parking_lot::Mutex;
use trine_body::RowSet;
use trine_schema::{Direction, LogScan, ScanError, logs::column};

use crate::{
    Segment, SegmentError, SegmentHandle,
    filter::{keep_rows, projected_schema, select},
    granule::GranuleReader,
    index::MARK_ROWS,
    plan::{SegmentPlan, plan},
    pool,
    read::last_instant,
    scan::{Shared, Snapshot, count_plan, count_skipped, memtable_steps},
    steps::on_pool,
    write::timestamps,
};

/// What can be looked at in one go.
#[derive(Clone)]
enum Unit {
    Memtable(RecordBatch),
    Segment(Arc<SegmentHandle>),
    Granule { plan: Arc<SegmentPlan>, work: usize },
}

/// One candidate row; the greatest key is the worst that is kept.
#[derive(PartialEq, Eq, PartialOrd, Ord, Clone, Copy)]
struct Candidate {
    /// Rises as the row gets worse.
    key: i64,
    unit: usize,
    row: u32,
}

struct Search {
    shared: Arc<Shared>,
    direction: Direction,
    limit: usize,
    queue: Mutex<Queue>,
    best: Mutex<BinaryHeap<Candidate>>,
    narrowed: Mutex<Narrowed>,
}

/// What is to be looked at.
#[derive(Default)]
struct Queue {
    /// A bound on the keys and the position in `units`; best first.
    waiting: BinaryHeap<Reverse<(i64, usize)>>,
    /// By the number that candidates name; none when no candidate lies there.
    units: Vec<Option<Unit>>,
    /// Units that are being looked at.
    busy: usize,
    /// Workers that are at it.
    working: usize,
}

impl Queue {
    /// The best unit with its bound and position. Nothing waits any more when it is `beaten`.
    fn take(&mut self, beaten: impl Fn(i64) -> bool) -> Option<(i64, usize, Unit)> {
        let Reverse((bound, position)) = self.waiting.pop()?;
        if beaten(bound) {
            self.waiting.clear();
            return None;
        }
        let unit = self.units[position].clone().expect("BUG: a unit that waits is there");
        Some((bound, position, unit))
    }

    fn push(&mut self, bound: i64, unit: Unit) {
        self.waiting.push(Reverse((bound, self.units.len())));
        self.units.push(Some(unit));
    }
}

/// What the time marks of the segments loaded so far say.
struct Narrowed {
    /// The scan with the narrowest range that surely holds the answer.
    scan: Arc<LogScan>,
    /// The worst keys of the best stretches of [`MARK_ROWS`] rows.
    stretches: Vec<i64>,
    /// No row of the answer has a greater key.
    worst: i64,
}

/// Smaller is better.
fn key_of(direction: Direction, time: i64) -> i64 {
    match direction {
        Direction::Forward => time,
        // `!time` reverses the order without overflow.
        Direction::Backward => !time,
    }
}

/// The batch with the best rows, sorted by time.
pub async fn top(snapshot: Snapshot, shared: Arc<Shared>) -> Result<RecordBatch, ScanError> {
    let Some((direction, limit)) = shared.scan.top else {
        return Err(ScanError::Storage("BUG: a search for the newest rows without a number".into()));
    };
    let mut queue = Queue::default();
    for batch in memtable_steps(snapshot.memtable).flatten() {
        let keys = timestamps(&batch).iter().map(|time| key_of(direction, *time));
        if let Some(bound) = keys.min() {
            queue.push(bound, Unit::Memtable(batch));
        }
    }
    for segment in shared.usable(snapshot.segments) {
        let meta = segment.meta();
        queue.push(bound_of(direction, meta.min_timestamp, meta.max_timestamp), Unit::Segment(segment));
    }
    let scan = Arc::new(shared.scan.clone());
    let narrowed = Mutex::new(Narrowed { scan, stretches: Vec::new(), worst: i64::MAX });
    let (queue, best) = (Mutex::new(queue), Mutex::new(BinaryHeap::new()));
    let search = Arc::new(Search { shared, direction, limit, queue, best, narrowed });
    // A worker without work ends instead of waiting on the pool; when a segment has become many granules,
    // all are called anew.
    loop {
        let workers = search.begin_round();
        if workers == 0 {
            break;
        }
        let searching = (0..workers).map(|_| {
            let search = search.clone();
            on_pool(move || search.work())
        });
        for done in futures::future::join_all(searching).await {
            done??;
        }
    }
    for unit in search.queue.lock().units.iter().flatten() {
        if let Unit::Segment(segment) = unit {
            count_skipped(&search.shared.scan, segment);
        }
    }
    build(&search).await
}

/// The best key that rows with times from `min` to `max` can have.
fn bound_of(direction: Direction, min: i64, max: i64) -> i64 {
    key_of(direction, if direction == Direction::Forward { min } else { max })
}

fn scan_error(error: SegmentError) -> ScanError {
    match error {
        SegmentError::Scan(error) => error,
        other => ScanError::Storage(other.to_string()),
    }
}

impl Narrowed {
    /// Narrows the range of a scan without row filters to one that still holds the N best rows: between
    /// two marks of a stream lie [`MARK_ROWS`] rows, so enough such stretches bound the N-th best time.
    fn add(&mut self, segment: &Segment, shared: &Shared, direction: Direction, limit: usize) {
        let needed = limit.div_ceil(MARK_ROWS as usize);
        let Some(last) = last_instant(&shared.scan).filter(|_| needed > 0) else { return };
        // The worst key of each stretch that lies in the range as a whole.
        let index = &segment.index;
        for (entry, reference) in index.streams.iter().zip(&segment.streams) {
            if entry.max < shared.scan.start || entry.min > last || !shared.streams.matches(*reference) {
                continue;
            }
            let (_, sure) = index.rows_in_time(entry, shared.scan.start, last);
            let (base, marks) = index.marks_of(entry);
            let first = (sure.start - base).div_ceil(MARK_ROWS);
            let end = (sure.end - base).saturating_sub(1) / MARK_ROWS;
            // A stretch is rows mark..next mark, without the second: all lie within the two times.
            for mark in first..end.max(first) {
                let (from, to) = (marks[mark as usize], marks[mark as usize + 1]);
                // The other direction's bound is this one's worst key.
                let key = key_of(direction, if direction == Direction::Forward { to } else { from });
                self.stretches.push(key);
            }
        }
        if self.stretches.len() < needed {
            return;
        }
        self.worst = *self.stretches.select_nth_unstable(needed - 1).1;
        self.stretches.truncate(needed);
        let scan = Arc::make_mut(&mut self.scan);
        match direction {
            Direction::Forward => scan.end = self.worst.saturating_add(1).min(scan.end),
            Direction::Backward => scan.start = (!self.worst).max(scan.start),
        }
    }
}

impl Search {
    /// How many workers the next round takes.
    fn begin_round(&self) -> usize {
        let mut queue = self.queue.lock();
        queue.working = pool::threads().min(queue.waiting.len());
        queue.working
    }

    /// Looks at units until none can hold a better row.
    fn work(&self) -> Result<(), ScanError> {
        while let Some((position, unit)) = self.next() {
            self.shared.check().map_err(scan_error)?;
            match unit {
                Unit::Memtable(batch) => {
                    let selected = select(&batch, &self.shared.scan, &self.shared.streams);
                    self.shared.scan.stats.rows_scanned.fetch_add(batch.num_rows() as u64, Relaxed);
                    self.offer(position, timestamps(&batch), &selected);
                }
                Unit::Segment(handle) => {
                    if let Err(error) = self.load(&handle) {
                        self.shared.failed(&handle, error)?;
                    }
                }
                Unit::Granule { plan, work } => {
                    if !plan.handle.is_damaged()
                        && let Err(error) = self.granule(position, &plan, work)
                    {
                        self.shared.failed(&plan.handle, error)?;
                    }
                }
            }
            self.queue.lock().busy -= 1;
        }
        Ok(())
    }

    /// The best unit that waits; `None` when none can hold a better row, and when there is nothing for this
    /// worker to do for now.
    fn next(&self) -> Option<(usize, Unit)> {
        let (threshold, worst) = (self.threshold(), self.narrowed.lock().worst);
        let mut queue = self.queue.lock();
        let taken = queue.take(|bound| {
            self.limit == 0 || bound > worst || threshold.is_some_and(|threshold| bound >= threshold)
        });
        let one_by_one = self.shared.scan.filters.is_empty();
        let queue = &mut *queue;
        match taken {
            // What is found now may tell that the segment need not be loaded.
            Some((bound, position, Unit::Segment(_))) if one_by_one && queue.busy > 0 => {
                queue.waiting.push(Reverse((bound, position)));
            }
            // More workers can be of use again.
            Some((bound, position, _))
                if queue.working < pool::threads() && queue.waiting.len() >= queue.working =>
            {
                queue.waiting.push(Reverse((bound, position)));
            }
            Some((_, position, unit)) => {
                queue.busy += 1;
                if let Unit::Segment(_) = unit {
                    queue.units[position] = None;
                }
                return Some((position, unit));
            }
            None => {}
        }
        queue.working -= 1;
        None
    }

    /// Loads the index of a segment and puts its granules into the queue.
    fn load(&self, handle: &Arc<SegmentHandle>) -> Result<(), SegmentError> {
        let Some(segment) = self.shared.load(handle)? else { return Ok(()) };
        let scan = {
            let mut narrowed = self.narrowed.lock();
            if self.shared.scan.filters.is_empty() {
                narrowed.add(&segment, &self.shared, self.direction, self.limit);
            }
            narrowed.scan.clone()
        };
        let plan = Arc::new(plan(handle, segment, &scan, &self.shared.streams, &self.shared.queries));
        count_plan(&self.shared.scan, &plan);
        let mut queue = self.queue.lock();
        for (work, rows) in plan.work.iter().enumerate() {
            let bound = bound_of(self.direction, rows.min, rows.max);
            queue.push(bound, Unit::Granule { plan: plan.clone(), work });
        }
        Ok(())
    }

    fn granule(&self, position: usize, plan: &SegmentPlan, work: usize) -> Result<(), SegmentError> {
        let (work, reader) = (&plan.work[work], plan.segment.reader());
        let mut granule = GranuleReader::new(&plan.segment, work.granule, reader.clone());
        let scan = self.narrowed.lock().scan.clone();
        let selected = granule.select(plan, work, &scan)?;
        let stats = &self.shared.scan.stats;
        stats.granules_scanned.fetch_add(1, Relaxed);
        stats.rows_scanned.fetch_add(work.row_count(), Relaxed);
        if selected.is_empty() {
            self.queue.lock().units[position] = None;
        } else {
            let times = granule.column(column::TIMESTAMP)?;
            self.offer(position, times.as_primitive::<TimestampNanosecondType>().values(), &selected);
        }
        stats.bytes_scanned.fetch_add(reader.bytes_read(), Relaxed);
        Ok(())
    }

    /// The key that a row must beat; `None` while fewer than N rows were found.
    fn threshold(&self) -> Option<i64> {
        let best = self.best.lock();
        (best.len() >= self.limit).then(|| best.peek().map(|worst| worst.key))?
    }

    fn offer(&self, unit: usize, times: &[i64], selected: &RowSet) {
        let (mut best, mut taken) = (self.best.lock(), false);
        for row in selected.iter() {
            let candidate = Candidate { key: key_of(self.direction, times[row as usize]), unit, row };
            if best.len() < self.limit {
                best.push(candidate);
                taken = true;
            } else if let Some(mut worst) = best.peek_mut()
                && candidate < *worst
            {
                *worst = candidate;
                taken = true;
            }
        }
        drop(best);
        if !taken {
            // So that the index can go.
            self.queue.lock().units[unit] = None;
        }
    }
}

/// Builds the rows that were found.
async fn build(search: &Arc<Search>) -> Result<RecordBatch, ScanError> {
    let scan = &search.shared.scan;
    // The timestamp is needed to sort by; it stands first and is dropped when nobody asked for it.
    let mut projection = scan.projection.clone();
    let asked = projection.contains(&column::TIMESTAMP);
    if !asked {
        projection.push(column::TIMESTAMP);
        projection.sort_unstable();
    }
    let place = projection.iter().position(|column| *column == column::TIMESTAMP).expect("BUG: it was added");
    let mut by_unit: BTreeMap<usize, Vec<u32>> = BTreeMap::new();
    for candidate in std::mem::take(&mut *search.best.lock()) {
        by_unit.entry(candidate.unit).or_default().push(candidate.row);
    }
    let jobs = by_unit.into_iter().map(|(unit, mut rows)| {
        let (search, projection) = (search.clone(), projection.clone());
        rows.sort_unstable();
        on_pool(move || search.build_unit(unit, &rows, &projection))
    });
    let (mut batches, mut held) = (Vec::new(), 0);
    for built in futures::future::join_all(jobs).await {
        if let Some(batch) = built?? {
            held += batch.get_array_memory_size();
            batches.push(batch);
        }
    }
    match scan.memory_limit {
        Some(limit) if held > limit => return Err(ScanError::Memory { limit }),
        _ => {}
    }
    let sorted = || -> Result<RecordBatch, SegmentError> {
        let all = compute::concat_batches(&projected_schema(&projection), &batches)?;
        let times = all.column(place).as_primitive::<TimestampNanosecondType>().values();
        let mut order: Vec<u32> = (0..times.len() as u32).collect();
        match search.direction {
            Direction::Forward => order.sort_by_key(|row| times[*row as usize]),
            Direction::Backward => order.sort_by_key(|row| Reverse(times[*row as usize])),
        }
        let mut sorted = compute::take_record_batch(&all, &UInt32Array::from(order))?;
        if !asked {
            let columns: Vec<usize> = (0..sorted.num_columns()).filter(|column| *column != place).collect();
            sorted = sorted.project(&columns)?;
        }
        Ok(sorted)
    };
    let sorted = sorted().map_err(scan_error)?;
    scan.stats.rows_matched.fetch_add(sorted.num_rows() as u64, Relaxed);
    Ok(sorted)
}

impl Search {
    /// Rows of one unit; `None` when its segment turned out to be damaged.
    fn build_unit(
        &self,
        unit: usize,
        rows: &[u32],
        projection: &[usize],
    ) -> Result<Option<RecordBatch>, ScanError> {
        let set = |domain: u32| {
            let mut set = RowSet::new(domain);
            for row in rows {
                set.insert(*row);
            }
            set
        };
        self.shared.check().map_err(scan_error)?;
        let found = self.queue.lock().units[unit].clone().expect("BUG: a unit with a candidate is kept");
        match found {
            Unit::Memtable(batch) => {
                let columns = projection.iter().map(|position| batch.column(*position).clone()).collect();
                let kept = keep_rows(projected_schema(projection), columns, &set(batch.num_rows() as u32));
                kept.map(Some).map_err(scan_error)
            }
            Unit::Segment(_) => Err(ScanError::Storage("BUG: a row of a segment without its granule".into())),
            Unit::Granule { plan, work } => {
                let reader = plan.segment.reader();
                let mut granule = GranuleReader::new(&plan.segment, plan.work[work].granule, reader.clone());
                let built = granule.produce(&set(granule.rows()), projection);
                self.shared.scan.stats.bytes_scanned.fetch_add(reader.bytes_read(), Relaxed);
                match built {
                    Ok(batch) => Ok(Some(batch)),
                    Err(error) => self.shared.failed(&plan.handle, error).map(|()| None),
                }
            }
        }
    }
}
