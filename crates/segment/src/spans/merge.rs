//! Several segments of spans become one: the parts of a trace come together.
//!
//! Only ids and starts of all spans are read first. They give the order of the traces; in that order the
//! rows are copied. As inputs hold mostly different times and each lies in the order of the result, granules
//! are needed one after the other; those needed lately are kept, up to a bound, and a granule that is needed
//! again later is read again. So memory is that bound, a row group and about 50 bytes per trace.

use std::{io::Write, ops::Range, sync::Arc};

use arrow::{
    array::{AsArray, RecordBatch},
    compute::{concat_batches, interleave_record_batch},
    datatypes::TimestampNanosecondType,
};
use hashbrown::HashMap;
use trine_schema::{
    StreamRegistry,
    spans::{column, schema},
};

use super::{
    SPAN_GRANULE_ROWS, SpanSegment, columns::stored, read::LoadedSpans, shape::MAX_COLUMNS, write::SpanWriter,
};
use crate::{SegmentError, SegmentMeta, WriteOptions};

/// Most bytes of granules that are kept because they may be needed again.
const KEPT_BYTES: usize = 96 << 20;
/// Bytes of granules above which the rows found so far are copied, before their granule is full.
const HELD_BYTES: usize = 64 << 20;

/// The rows of a trace in one input.
struct Piece {
    /// Position of the tenant among the sorted ones.
    tenant: u32,
    id: [u8; 16],
    /// First start in the trace, of all inputs once they are known.
    first: i64,
    input: u32,
    rows: Range<u32>,
}

/// Writes the spans of several segments to `out` in the order of one, those that started before
/// `keep_from_ns` left out; the caller syncs it. `None`, and nothing written, when none is left. A writer
/// that fails ends it early.
pub fn merge_spans<W: Write + Send>(
    segments: &[Arc<SpanSegment>],
    registry: &StreamRegistry,
    keep_from_ns: Option<i64>,
    options: &WriteOptions,
    out: W,
) -> Result<Option<SegmentMeta>, SegmentError> {
    let inputs: Vec<Arc<LoadedSpans>> =
        segments.iter().map(|segment| segment.load_once()).collect::<Result<_, _>>()?;
    let mut pieces = Vec::new();
    let mut tenants: Vec<&str> =
        inputs.iter().flat_map(|input| &input.index.streams).map(|stream| stream.tenant.as_str()).collect();
    tenants.sort_unstable();
    tenants.dedup();
    for (number, input) in inputs.iter().enumerate() {
        pieces_of(input, number as u32, &tenants, keep_from_ns.unwrap_or(i64::MIN), &mut pieces)?;
    }
    if pieces.is_empty() {
        return Ok(None);
    }
    in_order(&mut pieces);
    let rows = pieces.iter().map(|piece| piece.rows.len()).sum();
    let writer = SpanWriter::new(out, registry, frequent(&inputs), rows, options)?;
    let mut merge = Merge {
        starts: inputs.iter().map(|input| starts(input)).collect(),
        inputs,
        kept: HashMap::new(),
        kept_bytes: 0,
        clock: 0,
        used: Vec::new(),
        used_bytes: 0,
        places: HashMap::new(),
        rows: Vec::new(),
        done: Vec::new(),
        writer,
    };
    let mut last = pieces[0].tenant;
    for of_trace in pieces.chunk_by(|a, b| (a.tenant, a.id) == (b.tenant, b.id)) {
        if of_trace[0].tenant != last {
            merge.end_granule()?;
            last = of_trace[0].tenant;
        }
        merge.trace(of_trace)?;
    }
    merge.end_granule()?;
    merge.writer.finish().map(Some)
}

/// Adds the traces of an input with the rows that are kept: within a trace of a run the first ones are the
/// oldest.
fn pieces_of(
    input: &LoadedSpans,
    number: u32,
    tenants: &[&str],
    keep_from_ns: i64,
    pieces: &mut Vec<Piece>,
) -> Result<(), SegmentError> {
    let (mut base, mut traces) = (0u32, 0u32);
    let mut last: Option<(u32, [u8; 16])> = None;
    for granule in 0..input.granules() {
        let (reader, place) = (input.reader(), &input.places[granule]);
        let positions = [stored::TIMESTAMP, stored::TRACE_ID];
        let read = input.read(&reader, place.group, &positions, std::slice::from_ref(&place.rows))?;
        let times = read.column(0).as_primitive::<TimestampNanosecondType>().values();
        let ids = read.column(1).as_fixed_size_binary();
        let stream = input.index.granules[granule].streams.iter().next().unwrap_or_default();
        let tenant = tenants.binary_search(&input.index.streams[stream as usize].tenant.as_str());
        let tenant = tenant.expect("BUG: the tenants of all inputs are known") as u32;
        // The last trace of a run may be the first of the next one, and goes on in another order there.
        last = last.filter(|_| input.index.granules[granule].first_trace < traces);
        for (row, time) in times.iter().enumerate() {
            let id: [u8; 16] = ids.value(row).try_into().expect("the column has 16 bytes a row");
            let goes_on = last == Some((tenant, id));
            traces += u32::from(!goes_on);
            last = Some((tenant, id));
            let at = base + row as u32;
            match pieces.last_mut() {
                _ if *time < keep_from_ns => {}
                Some(open) if goes_on && open.rows.end == at => open.rows.end = at + 1,
                _ => pieces.push(Piece { tenant, id, first: *time, input: number, rows: at..at + 1 }),
            }
        }
        base += input.index.granules[granule].rows;
    }
    Ok(())
}

/// Sorts pieces as their rows lie in a segment, those of a trace by input.
fn in_order(pieces: &mut [Piece]) {
    pieces.sort_unstable_by_key(|piece| (piece.tenant, piece.id, piece.input, piece.rows.start));
    for of_trace in pieces.chunk_by_mut(|a, b| (a.tenant, a.id) == (b.tenant, b.id)) {
        let first = of_trace.iter().map(|piece| piece.first).min().unwrap_or_default();
        of_trace.iter_mut().for_each(|piece| piece.first = first);
    }
    pieces.sort_by_key(|piece| (piece.tenant, piece.first, piece.id));
}

/// Attributes that get columns: they had one in the inputs with most rows.
fn frequent(inputs: &[Arc<LoadedSpans>]) -> Vec<String> {
    let mut rows: HashMap<&str, u64> = HashMap::new();
    for input in inputs {
        for name in &input.index.attributes {
            *rows.entry(name).or_default() += input.index.rows();
        }
    }
    let mut names: Vec<(&str, u64)> = rows.into_iter().collect();
    names.sort_unstable_by(|a, b| b.1.cmp(&a.1).then(a.0.cmp(b.0)));
    names.truncate(MAX_COLUMNS);
    let mut names: Vec<String> = names.into_iter().map(|(name, _)| name.to_owned()).collect();
    names.sort_unstable();
    names
}

/// First row of each granule.
fn starts(input: &LoadedSpans) -> Vec<u32> {
    let rows = input.index.granules.iter().map(|granule| granule.rows);
    rows.scan(0, |start, rows| {
        *start += rows;
        Some(*start - rows)
    })
    .collect()
}

/// Input and granule.
type Place = (u32, u32);

struct Merge<'a, W: Write + Send> {
    inputs: Vec<Arc<LoadedSpans>>,
    starts: Vec<Vec<u32>>,
    /// Granules that were needed lately and when.
    kept: HashMap<Place, (RecordBatch, u64)>,
    kept_bytes: usize,
    clock: u64,
    /// Granules of the rows that wait.
    used: Vec<RecordBatch>,
    used_bytes: usize,
    /// Where a granule is in `used`.
    places: HashMap<Place, usize>,
    /// Rows that wait: position in `used` and row.
    rows: Vec<(usize, usize)>,
    /// Rows of the open granule that are copied already.
    done: Vec<RecordBatch>,
    writer: SpanWriter<'a, W>,
}

impl<W: Write + Send> Merge<'_, W> {
    /// Adds the rows of a trace by their starts, equal ones in the order of the inputs.
    fn trace(&mut self, pieces: &[Piece]) -> Result<(), SegmentError> {
        if let [piece] = pieces {
            for row in piece.rows.clone() {
                self.row(piece.input, row)?;
            }
            return Ok(());
        }
        let mut rows: Vec<(i64, u32, u32)> = Vec::new();
        for piece in pieces {
            for row in piece.rows.clone() {
                let (place, row_in) = self.place(piece.input, row);
                let batch = self.granule(place)?;
                let times = batch.column(column::TIMESTAMP).as_primitive::<TimestampNanosecondType>();
                rows.push((times.value(row_in), piece.input, row));
            }
        }
        rows.sort_unstable();
        for (_, input, row) in rows {
            self.row(input, row)?;
        }
        Ok(())
    }

    fn place(&self, input: u32, row: u32) -> (Place, usize) {
        let starts = &self.starts[input as usize];
        let granule = starts.partition_point(|start| *start <= row) - 1;
        ((input, granule as u32), (row - starts[granule]) as usize)
    }

    fn row(&mut self, input: u32, row: u32) -> Result<(), SegmentError> {
        let (place, row) = self.place(input, row);
        let position = match self.places.get(&place) {
            Some(position) => *position,
            None => {
                let batch = self.granule(place)?;
                if self.used_bytes > HELD_BYTES {
                    self.copy()?;
                }
                self.used_bytes += batch.get_array_memory_size();
                self.used.push(batch);
                self.places.insert(place, self.used.len() - 1);
                self.used.len() - 1
            }
        };
        self.rows.push((position, row));
        let done: usize = self.done.iter().map(RecordBatch::num_rows).sum();
        if done + self.rows.len() == SPAN_GRANULE_ROWS {
            self.end_granule()?;
        }
        Ok(())
    }

    /// A granule, from those that are kept if it is among them.
    fn granule(&mut self, place: Place) -> Result<RecordBatch, SegmentError> {
        self.clock += 1;
        if let Some((batch, used)) = self.kept.get_mut(&place) {
            *used = self.clock;
            return Ok(batch.clone());
        }
        let batch = self.inputs[place.0 as usize].granule(place.1 as usize)?;
        self.kept_bytes += batch.get_array_memory_size();
        self.kept.insert(place, (batch.clone(), self.clock));
        while self.kept_bytes > KEPT_BYTES && self.kept.len() > 1 {
            let oldest = self.kept.iter().min_by_key(|(_, (_, used))| *used).map(|(place, _)| *place);
            if let Some((gone, _)) = oldest.and_then(|place| self.kept.remove(&place)) {
                self.kept_bytes -= gone.get_array_memory_size();
            }
        }
        Ok(batch)
    }

    /// Copies the rows that wait, so that their granules can go.
    fn copy(&mut self) -> Result<(), SegmentError> {
        if !self.rows.is_empty() {
            let batches: Vec<&RecordBatch> = self.used.iter().collect();
            self.done.push(interleave_record_batch(&batches, &self.rows)?);
        }
        self.rows.clear();
        self.used.clear();
        self.used_bytes = 0;
        self.places.clear();
        Ok(())
    }

    fn end_granule(&mut self) -> Result<(), SegmentError> {
        self.copy()?;
        match std::mem::take(&mut self.done).as_slice() {
            [] => Ok(()),
            [one] => self.writer.granule(one),
            several => self.writer.granule(&concat_batches(&schema(), several)?),
        }
    }
}
