//! The newest or oldest N rows.
//!
//! Rows are found in two phases. First only timestamps and filters are looked at, granules that can
//! hold the best rows first; the N best so far give a threshold that ends the search early. Without
//! row filters the time marks give a threshold before anything is read. Then the N rows are built,
//! column by column, and sorted.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BinaryHeap},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
};

use arrow::{
    array::{AsArray, RecordBatch, UInt32Array},
    compute,
    datatypes::TimestampNanosecondType,
};
use futures::channel::oneshot;
use parking_lot::Mutex;
use trine_body::RowSet;
use trine_schema::{Direction, LogScan, ScanError, logs::column};

use crate::{
    Segment, SegmentError,
    filter::{keep_rows, projected_schema, select},
    granule::GranuleReader,
    index::MARK_ROWS,
    plan::{SegmentPlan, plan},
    pool,
    read::last_instant,
    scan::{Shared, Snapshot, count_plan, memtable_steps},
    write::timestamps,
};

/// Rows that can be looked at in one go.
enum Unit {
    Memtable(RecordBatch),
    Granule { plan: usize, work: usize },
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
    /// The scan with the narrowest range that surely holds the answer.
    scan: LogScan,
    direction: Direction,
    limit: usize,
    plans: Vec<SegmentPlan>,
    /// Best first: a bound on the keys, and the unit.
    units: Vec<(i64, Unit)>,
    next: AtomicUsize,
    best: Mutex<BinaryHeap<Candidate>>,
}

/// Smaller is better.
fn key_of(direction: Direction, time: i64) -> i64 {
    match direction {
        Direction::Forward => time,
        // `!time` reverses the order without overflow.
        Direction::Backward => !time,
    }
}

/// Runs a job on the pool.
async fn on_pool<T: Send + 'static>(job: impl FnOnce() -> T + Send + 'static) -> Result<T, ScanError> {
    let (sender, receiver) = oneshot::channel();
    pool::spawn(move || {
        let _ = sender.send(job());
    });
    receiver.await.map_err(|_| ScanError::Storage("BUG: a step of a scan panicked; see the log".into()))
}

/// The batch with the best rows, sorted by time.
pub async fn top(snapshot: Snapshot, shared: Arc<Shared>) -> Result<RecordBatch, ScanError> {
    let Some((direction, limit)) = shared.scan.top else {
        return Err(ScanError::Storage("BUG: a search for the newest rows without a number".into()));
    };
    let segments = shared.usable(snapshot.segments);
    let mut scan = shared.scan.clone();
    if shared.scan.filters.is_empty() {
        narrow(&mut scan, &segments, &shared, direction, limit);
    }
    let mut planned = Vec::new();
    for segment in segments {
        let (shared, scan) = (shared.clone(), scan.clone());
        planned.push(on_pool(move || {
            shared.check()?;
            Ok::<_, SegmentError>(plan(&segment, &scan, &shared.streams, &shared.queries))
        }));
    }
    let mut plans = Vec::new();
    for plan in futures::future::join_all(planned).await {
        let plan = plan?.map_err(scan_error)?;
        count_plan(&shared.scan, &plan);
        plans.push(plan);
    }
    let mut units = Vec::new();
    for batches in memtable_steps(snapshot.memtable) {
        for batch in batches {
            let keys = timestamps(&batch).iter().map(|time| key_of(direction, *time));
            if let Some(bound) = keys.min() {
                units.push((bound, Unit::Memtable(batch)));
            }
        }
    }
    for (position, plan) in plans.iter().enumerate() {
        for (work, rows) in plan.work.iter().enumerate() {
            let bound = key_of(direction, if direction == Direction::Forward { rows.min } else { rows.max });
            units.push((bound, Unit::Granule { plan: position, work }));
        }
    }
    units.sort_by_key(|(bound, _)| *bound);
    let search = Arc::new(Search {
        shared,
        scan,
        direction,
        limit,
        plans,
        units,
        next: AtomicUsize::new(0),
        best: Mutex::new(BinaryHeap::new()),
    });
    let workers = pool::threads().min(search.units.len());
    let searching = (0..workers).map(|_| {
        let search = search.clone();
        on_pool(move || search.work())
    });
    for done in futures::future::join_all(searching).await {
        done??;
    }
    build(&search).await
}

fn scan_error(error: SegmentError) -> ScanError {
    match error {
        SegmentError::Scan(error) => error,
        other => ScanError::Storage(other.to_string()),
    }
}

/// Narrows the range of a scan without row filters to one that still holds the N best rows: between
/// two marks of a stream lie [`MARK_ROWS`] rows, so enough such stretches bound the N-th best time.
fn narrow(
    scan: &mut LogScan,
    segments: &[Arc<Segment>],
    shared: &Shared,
    direction: Direction,
    limit: usize,
) {
    let Some(last) = last_instant(scan) else { return };
    // The worst key of each stretch that lies in the range as a whole.
    let mut worst: Vec<i64> = Vec::new();
    for segment in segments {
        let index = &segment.index;
        for (entry, reference) in index.streams.iter().zip(&segment.streams) {
            if entry.max < scan.start || entry.min > last || !shared.streams.matches(*reference) {
                continue;
            }
            let (_, sure) = index.rows_in_time(entry, scan.start, last);
            let (base, marks) = index.marks_of(entry);
            let first = (sure.start - base).div_ceil(MARK_ROWS);
            let end = (sure.end - base).saturating_sub(1) / MARK_ROWS;
            // A stretch is rows mark..next mark, without the second: all lie within the two times.
            for mark in first..end.max(first) {
                let (from, to) = (marks[mark as usize], marks[mark as usize + 1]);
                worst.push(key_of(direction, if direction == Direction::Forward { to } else { from }));
            }
        }
    }
    let needed = limit.div_ceil(MARK_ROWS as usize);
    if needed == 0 || worst.len() < needed {
        return;
    }
    let (_, bound, _) = worst.select_nth_unstable(needed - 1);
    match direction {
        Direction::Forward => scan.end = bound.saturating_add(1).min(scan.end),
        Direction::Backward => scan.start = (!*bound).max(scan.start),
    }
}

impl Search {
    /// Looks at units until none can hold a better row.
    fn work(&self) -> Result<(), ScanError> {
        loop {
            let position = self.next.fetch_add(1, Relaxed);
            let Some((bound, unit)) = self.units.get(position) else { return Ok(()) };
            if self.limit == 0 || self.threshold().is_some_and(|threshold| *bound >= threshold) {
                return Ok(());
            }
            self.shared.check().map_err(scan_error)?;
            match unit {
                Unit::Memtable(batch) => {
                    let selected = select(batch, &self.scan, &self.shared.streams);
                    self.shared.scan.stats.rows_scanned.fetch_add(batch.num_rows() as u64, Relaxed);
                    self.offer(position, timestamps(batch), &selected);
                }
                Unit::Granule { plan, work } => {
                    let plan = &self.plans[*plan];
                    if !plan.segment.is_damaged()
                        && let Err(error) = self.granule(position, plan, *work)
                    {
                        self.shared.failed(&plan.segment, error)?;
                    }
                }
            }
        }
    }

    fn granule(&self, position: usize, plan: &SegmentPlan, work: usize) -> Result<(), SegmentError> {
        let (work, reader) = (&plan.work[work], plan.segment.reader());
        let mut granule = GranuleReader::new(&plan.segment, work.granule, reader.clone());
        let selected = granule.select(plan, work, &self.scan)?;
        let stats = &self.shared.scan.stats;
        stats.granules_scanned.fetch_add(1, Relaxed);
        stats.rows_scanned.fetch_add(work.row_count(), Relaxed);
        if !selected.is_empty() {
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
        let mut best = self.best.lock();
        for row in selected.iter() {
            let candidate = Candidate { key: key_of(self.direction, times[row as usize]), unit, row };
            if best.len() < self.limit {
                best.push(candidate);
            } else if let Some(mut worst) = best.peek_mut()
                && candidate < *worst
            {
                *worst = candidate;
            }
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
        match &self.units[unit].1 {
            Unit::Memtable(batch) => {
                let columns = projection.iter().map(|position| batch.column(*position).clone()).collect();
                let kept = keep_rows(projected_schema(projection), columns, &set(batch.num_rows() as u32));
                kept.map(Some).map_err(scan_error)
            }
            Unit::Granule { plan, work } => {
                let plan = &self.plans[*plan];
                let reader = plan.segment.reader();
                let mut granule = GranuleReader::new(&plan.segment, plan.work[*work].granule, reader.clone());
                let built = granule.produce(&set(granule.rows()), projection);
                self.shared.scan.stats.bytes_scanned.fetch_add(reader.bytes_read(), Relaxed);
                match built {
                    Ok(batch) => Ok(Some(batch)),
                    Err(error) => self.shared.failed(&plan.segment, error).map(|()| None),
                }
            }
        }
    }
}
