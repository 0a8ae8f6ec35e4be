//! The spans that started last, without reading older ones.
//!
//! What can hold the newest rows is looked at first: a segment is one thing to look at until its turn
//! comes, then it becomes its granules. The best so far give a time that ends the walk. Then the rows
//! are built, each granule on a thread of the pool.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BinaryHeap},
    sync::{Arc, atomic::Ordering::Relaxed},
};

use arrow::{
    array::{AsArray, FixedSizeBinaryArray, RecordBatch, UInt32Array},
    compute::{concat_batches, max, take_record_batch},
    datatypes::TimestampNanosecondType,
};
use trine_body::RowSet;
use trine_schema::{ScanError, SpanScan, spans::column};

use super::{
    SpanSegment, SpanSnapshot, columns::stored, filter, read::LoadedSpans, rows::Shape, scan::Shared,
    search::Plan,
};
use crate::{SegmentError, steps::on_pool};

/// What can be looked at in one go.
#[derive(Clone)]
enum Unit {
    Memtable(RecordBatch),
    Segment(Arc<SpanSegment>),
    Granule(Arc<Planned>, usize),
}

struct Planned {
    segment: Arc<SpanSegment>,
    loaded: Arc<LoadedSpans>,
    plan: Plan,
}

/// Rows that satisfy the scan.
pub(super) struct Fitting<'a> {
    /// Where they are.
    unit: usize,
    /// Places in the batch or granule, rising.
    rows: &'a [u32],
    /// Start by row.
    times: &'a [i64],
    /// Trace id by row, when it was asked for.
    pub ids: Option<&'a FixedSizeBinaryArray>,
    /// Which of `times` and `ids` belong to `rows`.
    at: &'a [usize],
}

impl Fitting<'_> {
    /// Start of each row and its place in [`Fitting::ids`].
    pub fn times(&self) -> impl Iterator<Item = (i64, usize)> + '_ {
        self.at.iter().map(|at| (self.times[*at], *at))
    }
}

/// Looks at what may hold rows of the scan, the newest first. `visit` takes the rows that satisfy it and
/// returns the start below which no row is of interest any more.
pub(super) fn walk(
    snapshot: SpanSnapshot,
    shared: &Shared,
    with_ids: bool,
    mut visit: impl FnMut(&Fitting<'_>) -> i64,
) -> Result<Units, ScanError> {
    let mut units: Vec<Unit> = Vec::new();
    let mut waiting: BinaryHeap<(i64, Reverse<usize>)> = BinaryHeap::new();
    let push = |waiting: &mut BinaryHeap<_>, units: &mut Vec<Unit>, newest: i64, unit: Unit| {
        waiting.push((newest, Reverse(units.len())));
        units.push(unit);
    };
    for batch in snapshot.memtable {
        let times = batch.column(column::TIMESTAMP).as_primitive::<TimestampNanosecondType>();
        if let Some(newest) = max(times) {
            push(&mut waiting, &mut units, newest, Unit::Memtable(batch));
        }
    }
    for segment in shared.usable(snapshot.segments, true) {
        let newest = segment.meta().max_timestamp;
        push(&mut waiting, &mut units, newest, Unit::Segment(segment));
    }
    let mut start = shared.scan.start;
    while let Some((newest, Reverse(unit))) = waiting.pop() {
        if newest < start {
            break;
        }
        shared.check()?;
        match units[unit].clone() {
            Unit::Memtable(batch) => start = start.max(in_memory(&batch, shared, unit, &mut visit)),
            Unit::Segment(segment) => match shared.plan(&segment) {
                Ok(None) => {}
                Ok(Some((loaded, plan))) => {
                    let planned = Arc::new(Planned { segment, loaded, plan });
                    for number in &planned.plan.granules {
                        let newest = planned.loaded.index.granules[*number].max;
                        push(&mut waiting, &mut units, newest, Unit::Granule(planned.clone(), *number));
                    }
                }
                Err(error) => shared.failed(&segment, error)?,
            },
            Unit::Granule(planned, number) if !planned.segment.is_damaged() => {
                match in_granule(&planned, number, shared, (unit, start, with_ids), &mut visit) {
                    Ok(found) => start = start.max(found),
                    Err(error) => shared.failed(&planned.segment, error)?,
                }
            }
            Unit::Granule(..) => {}
        }
    }
    Ok(Units(units))
}

fn in_memory(
    batch: &RecordBatch,
    shared: &Shared,
    unit: usize,
    visit: &mut impl FnMut(&Fitting<'_>) -> i64,
) -> i64 {
    let stats = &shared.scan.stats;
    stats.rows_scanned.fetch_add(batch.num_rows() as u64, Relaxed);
    stats.bytes_scanned.fetch_add(batch.get_array_memory_size() as u64, Relaxed);
    let selected = filter::select(batch, &shared.scan, &shared.streams, shared.ids.as_ref());
    let rows: Vec<u32> = selected.iter().collect();
    let at: Vec<usize> = rows.iter().map(|row| *row as usize).collect();
    let times = batch.column(column::TIMESTAMP).as_primitive::<TimestampNanosecondType>().values();
    let ids = Some(batch.column(column::TRACE_ID).as_fixed_size_binary());
    visit(&Fitting { unit, rows: &rows, times, ids, at: &at })
}

fn in_granule(
    planned: &Planned,
    number: usize,
    shared: &Shared,
    (unit, start, with_ids): (usize, i64, bool),
    visit: &mut impl FnMut(&Fitting<'_>) -> i64,
) -> Result<i64, SegmentError> {
    let (loaded, reader) = (&planned.loaded, planned.loaded.reader());
    let (scan, ids) = (&shared.scan, shared.ids.as_ref());
    let left = loaded.select(&reader, &[number], (scan, start), &planned.plan, ids)?;
    if left.is_empty() {
        scan.stats.bytes_scanned.fetch_add(reader.bytes_read(), Relaxed);
        return Ok(start);
    }
    let times = left.column(stored::TIMESTAMP)?;
    let times = times.as_primitive::<TimestampNanosecondType>().values();
    let traces = with_ids.then(|| left.column(stored::TRACE_ID)).transpose()?;
    let ids = traces.as_ref().map(AsArray::as_fixed_size_binary);
    let at: Vec<usize> = left.kept().collect();
    let rows: Vec<u32> = at.iter().map(|row| *row as u32).collect();
    scan.stats.bytes_scanned.fetch_add(reader.bytes_read(), Relaxed);
    Ok(visit(&Fitting { unit, rows: &rows, times, ids, at: &at }))
}

/// What was looked at, by the number that rows name.
pub(super) struct Units(Vec<Unit>);

/// The newest rows in one batch, newest first.
pub(super) async fn newest(
    snapshot: SpanSnapshot,
    shared: Arc<Shared>,
    most: usize,
) -> Result<RecordBatch, ScanError> {
    let walking = shared.clone();
    let (units, best) = on_pool(move || {
        // The oldest of the best on top.
        let mut best: BinaryHeap<Reverse<(i64, usize, u32)>> = BinaryHeap::new();
        let units = walk(snapshot, &walking, false, |found| {
            for ((time, _), row) in found.times().zip(found.rows) {
                if best.len() < most {
                    best.push(Reverse((time, found.unit, *row)));
                } else if let Some(mut oldest) = best.peek_mut()
                    && time > oldest.0.0
                {
                    *oldest = Reverse((time, found.unit, *row));
                }
            }
            let oldest = best.peek().filter(|_| best.len() >= most).map(|oldest| oldest.0.0);
            // Of equal times any may come.
            oldest.map_or(i64::MIN, |oldest| oldest.saturating_add(1))
        })?;
        Ok::<_, ScanError>((units, best.into_vec()))
    })
    .await??;
    build(units, best.into_iter().map(|Reverse((_, unit, row))| (unit, row)), &shared).await
}

/// Builds rows and sorts them, newest first.
async fn build(
    Units(units): Units,
    rows: impl Iterator<Item = (usize, u32)>,
    shared: &Arc<Shared>,
) -> Result<RecordBatch, ScanError> {
    let scan = &shared.scan;
    // The start is needed to sort by; it stands first and is dropped when nobody asked for it.
    let mut wanted = SpanScan { projection: scan.projection.clone(), ..scan.clone() };
    let asked = wanted.projection.contains(&column::TIMESTAMP);
    if !asked {
        wanted.projection.push(column::TIMESTAMP);
        wanted.projection.sort_unstable();
    }
    let place = wanted.projection.iter().position(|position| *position == column::TIMESTAMP);
    let place = place.expect("BUG: it was added");
    let mut by_unit: BTreeMap<usize, Vec<u32>> = BTreeMap::new();
    rows.for_each(|(unit, row)| by_unit.entry(unit).or_default().push(row));
    let wanted = Arc::new(wanted);
    let jobs = by_unit.into_iter().map(|(unit, mut rows)| {
        rows.sort_unstable();
        let (unit, shared, wanted) = (units[unit].clone(), shared.clone(), wanted.clone());
        on_pool(move || build_unit(&unit, &rows, &shared, &wanted))
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
        let all = concat_batches(&wanted.schema(), &batches)?;
        let times = all.column(place).as_primitive::<TimestampNanosecondType>().values();
        let mut order: Vec<u32> = (0..times.len() as u32).collect();
        order.sort_by_key(|row| Reverse(times[*row as usize]));
        let mut sorted = take_record_batch(&all, &UInt32Array::from(order))?;
        if !asked {
            let columns: Vec<usize> = (0..sorted.num_columns()).filter(|column| *column != place).collect();
            sorted = sorted.project(&columns)?;
        }
        Ok(sorted)
    };
    let sorted = sorted().map_err(|error| ScanError::Storage(error.to_string()))?;
    scan.stats.rows_matched.fetch_add(sorted.num_rows() as u64, Relaxed);
    Ok(sorted)
}

/// Rows of one unit; `None` when its segment turned out to be damaged.
fn build_unit(
    unit: &Unit,
    rows: &[u32],
    shared: &Shared,
    wanted: &SpanScan,
) -> Result<Option<RecordBatch>, ScanError> {
    shared.check()?;
    match unit {
        Unit::Memtable(batch) => {
            let mut kept = RowSet::new(batch.num_rows() as u32);
            rows.iter().for_each(|row| kept.insert(*row));
            let built = filter::project(batch, wanted, &kept);
            built.map(Some).map_err(|error| ScanError::Storage(error.to_string()))
        }
        Unit::Segment(_) => Err(ScanError::Storage("BUG: a row of a segment without its granule".into())),
        Unit::Granule(planned, number) => {
            let (loaded, reader) = (&planned.loaded, planned.loaded.reader());
            let start = loaded.places[*number].rows.start;
            let pieces = rows.iter().map(|row| start + *row as usize..start + *row as usize + 1);
            let pieces: Vec<_> = pieces.collect();
            let built = loaded.rows(&reader, &[*number], &pieces, &Shape::of(wanted));
            shared.scan.stats.bytes_scanned.fetch_add(reader.bytes_read(), Relaxed);
            let built = built.and_then(|batches| Ok(concat_batches(&wanted.schema(), &batches)?));
            match built {
                Ok(batch) => Ok(Some(batch)),
                Err(error) => shared.failed(&planned.segment, error).map(|()| None),
            }
        }
    }
}
