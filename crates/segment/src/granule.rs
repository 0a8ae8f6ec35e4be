//! Reading one granule: columns as they are asked for, filters, then the rows that are left.

use std::{cell::RefCell, sync::Arc};

use arrow::{
    array::{ArrayRef, AsArray, RecordBatch, RecordBatchOptions, StringArray, UInt32Array},
    buffer::{Buffer, OffsetBuffer, ScalarBuffer},
    compute,
    datatypes::TimestampNanosecondType,
};
use bytes::Bytes;
use parquet::arrow::{
    ProjectionMask,
    arrow_reader::{ParquetRecordBatchReaderBuilder, RowSelection},
};
use trine_body::{Block, RowSet, Scratch};
use trine_schema::{LogFilter, LogScan, logs::column};

use crate::{
    Segment, SegmentError,
    columns::{map_from_stored, observed_from_delay, stored_of},
    file::CheckedReader,
    filter::{by_cost, column_of, keep, keep_lines, projected_schema, retain},
    index::Granule,
    plan::{SegmentPlan, Work},
};

/// With fewer than one row in so many left, the other columns are read for those rows only.
const SPARSE: u32 = 4;

thread_local! {
    static SCRATCH: RefCell<Scratch> = RefCell::default();
}

/// One granule while it is looked at.
pub struct GranuleReader<'a> {
    segment: &'a Segment,
    granule: &'a Granule,
    reader: CheckedReader,
    /// Whole columns read so far, by position in [`trine_schema::logs::schema`].
    columns: Vec<Option<ArrayRef>>,
    block: Option<Bytes>,
}

impl<'a> GranuleReader<'a> {
    /// Over the granule at a position in the index.
    pub fn new(segment: &'a Segment, granule: usize, reader: CheckedReader) -> Self {
        let columns = vec![None; column::COUNT];
        Self { segment, granule: &segment.index.granules[granule], reader, columns, block: None }
    }

    /// Number of rows.
    pub fn rows(&self) -> u32 {
        self.granule.rows.end - self.granule.rows.start
    }

    fn at(&self) -> u64 {
        let group = self.segment.parquet.metadata().row_group(self.granule.row_group as usize);
        group.file_offset().and_then(|offset| u64::try_from(offset).ok()).unwrap_or(0)
    }

    /// Columns of the Parquet file (by their positions in the log schema, rising) for all rows or some.
    fn read_parquet(&self, logical: &[usize], rows: Option<&RowSet>) -> Result<Vec<ArrayRef>, SegmentError> {
        if logical.contains(&column::OBSERVED_TIMESTAMP) && !logical.contains(&column::TIMESTAMP) {
            // Observed times are stored as distances from the timestamps.
            let mut with_time = logical.to_vec();
            with_time.push(column::TIMESTAMP);
            with_time.sort_unstable();
            let mut found = self.read_parquet(&with_time, rows)?;
            found.remove(with_time.partition_point(|position| *position < column::TIMESTAMP));
            return Ok(found);
        }
        let groups = &self.segment.index.row_groups[self.granule.row_group as usize..];
        let (base, group_rows) =
            ((self.granule.rows.start - groups[0]) as usize, (groups[1] - groups[0]) as usize);
        let selection = match rows {
            None => RowSelection::from_consecutive_ranges(
                std::iter::once(base..base + self.rows() as usize),
                group_rows,
            ),
            Some(rows) => {
                let ranges = rows.iter().map(|row| base + row as usize..base + row as usize + 1);
                RowSelection::from_consecutive_ranges(joined(ranges), group_rows)
            }
        };
        let want = rows.map_or(self.rows(), RowSet::count) as usize;
        let failed = |shown: &dyn std::fmt::Display| self.failed(shown);
        let positions = logical.iter().filter_map(|position| stored_of(*position));
        let mask = ProjectionMask::roots(self.segment.parquet.parquet_schema(), positions);
        let batches = ParquetRecordBatchReaderBuilder::new_with_metadata(
            self.reader.clone(),
            self.segment.parquet.clone(),
        )
        .with_row_groups(vec![self.granule.row_group as usize])
        .with_projection(mask)
        .with_row_selection(selection)
        .with_batch_size(want.max(1))
        .build()
        .map_err(|error| failed(&error))?;
        let mut found = Vec::with_capacity(1);
        for batch in batches {
            found.push(batch.map_err(|error| failed(&error))?);
        }
        let batch = match found.as_slice() {
            [one] => one.clone(),
            [] => return Err(failed(&"rows are missing")),
            several => compute::concat_batches(&several[0].schema(), several)?,
        };
        if batch.num_rows() != want || batch.num_columns() != logical.len() {
            return Err(failed(&format!("{} of {want} rows were found", batch.num_rows())));
        }
        Ok(from_stored(logical, &batch))
    }

    /// A failure of Parquet's reader.
    pub fn failed(&self, shown: &dyn std::fmt::Display) -> SegmentError {
        self.reader.error(self.at(), shown)
    }

    /// Takes whole columns (by their positions in the log schema, rising) that Parquet's reader gave.
    pub fn take_columns(&mut self, logical: &[usize], batch: &RecordBatch) -> Result<(), SegmentError> {
        if batch.num_rows() != self.rows() as usize || batch.num_columns() != logical.len() {
            let (found, want) = (batch.num_rows(), self.rows());
            return Err(self.failed(&format!("{found} of {want} rows were found")));
        }
        for (position, array) in logical.iter().zip(from_stored(logical, batch)) {
            self.columns[*position] = Some(array);
        }
        Ok(())
    }

    /// A whole column.
    pub fn column(&mut self, position: usize) -> Result<ArrayRef, SegmentError> {
        if self.columns[position].is_none() {
            let array = match position {
                column::STREAM => self.stream_column(None),
                column::BODY if self.segment.templates.is_some() => self.decode_body(None)?,
                _ => self.read_parquet(&[position], None)?.remove(0),
            };
            self.columns[position] = Some(array);
        }
        Ok(self.columns[position].clone().expect("BUG: the column was just read"))
    }

    fn stream_column(&self, rows: Option<&RowSet>) -> ArrayRef {
        let (index, first) = (&self.segment.index, self.granule.rows.start);
        let mut position = index.streams.partition_point(|stream| stream.rows.end <= first);
        let mut refs = Vec::with_capacity(rows.map_or(self.rows(), RowSet::count) as usize);
        let mut push = |row: u32| {
            while index.streams[position].rows.end <= first + row {
                position += 1;
            }
            refs.push(self.segment.streams[position]);
        };
        match rows {
            Some(rows) => rows.iter().for_each(&mut push),
            None => (0..self.rows()).for_each(&mut push),
        }
        Arc::new(UInt32Array::from(refs))
    }

    fn body_block(&mut self) -> Result<Bytes, SegmentError> {
        if self.block.is_none() {
            self.block = Some(self.reader.read(self.granule.body.clone())?);
        }
        Ok(self.block.clone().expect("BUG: the block was just read"))
    }

    fn bad_body(&self, error: &dyn std::fmt::Display) -> SegmentError {
        self.segment.file.corrupt(self.granule.body.start, format!("a body block cannot be decoded: {error}"))
    }

    fn decode_body(&mut self, rows: Option<&RowSet>) -> Result<ArrayRef, SegmentError> {
        let bytes = self.body_block()?;
        let templates = self.segment.templates.as_ref().expect("BUG: the segment has body blocks");
        let wanted: Option<Vec<u32>> = rows.map(|rows| rows.iter().collect());
        let count = wanted.as_ref().map_or(self.rows() as usize, Vec::len);
        let (mut text, mut ends) = (Vec::new(), Vec::with_capacity(count + 1));
        ends.push(0);
        let block = Block::parse(&bytes).map_err(|error| self.bad_body(&error))?;
        if block.rows() != self.rows() {
            return Err(self.bad_body(&"it has another number of rows"));
        }
        SCRATCH
            .with_borrow_mut(|scratch| {
                block.decode(templates, wanted.as_deref(), scratch, &mut text, &mut ends)
            })
            .map_err(|error| self.bad_body(&error))?;
        if ends.len() != count + 1 {
            return Err(self.bad_body(&"it gave another number of rows"));
        }
        let offsets = OffsetBuffer::new(ScalarBuffer::from(ends));
        let lines = StringArray::try_new(offsets, Buffer::from_vec(text), None);
        Ok(Arc::new(lines.map_err(|error| self.bad_body(&error))?))
    }

    /// Rows of the work that pass all conditions of the scan.
    pub fn select(
        &mut self,
        plan: &SegmentPlan,
        work: &Work,
        scan: &LogScan,
    ) -> Result<RowSet, SegmentError> {
        let mut selected = RowSet::new(self.rows());
        if work.rows.len() == 1 && work.rows[0] == (0..self.rows()) {
            selected.insert_all();
        } else {
            work.rows.iter().flat_map(Clone::clone).for_each(|row| selected.insert(row));
        }
        if work.check_time {
            let array = self.column(column::TIMESTAMP)?;
            let times = array.as_primitive::<TimestampNanosecondType>().values();
            retain(&mut selected, |row| scan.in_range(times[row]));
        }
        for filter in by_cost(&scan.filters) {
            if selected.is_empty() {
                break;
            }
            match filter {
                LogFilter::Severity(_) if work.severity_holds => {}
                LogFilter::Line(_) => {}
                other => {
                    let array = self.column(column_of(other))?;
                    keep(other, &array, &mut selected);
                }
            }
        }
        // Lines last: a body block is the largest thing to read.
        for line in &work.lines {
            if selected.is_empty() {
                break;
            }
            if self.segment.templates.is_some() {
                self.search(plan, *line, &mut selected)?;
            } else {
                let filter = crate::plan::line_filters(scan).nth(*line).expect("BUG: the filter was counted");
                let lines = self.column(column::BODY)?;
                keep_lines(lines.as_string(), filter, &mut selected);
            }
        }
        Ok(selected)
    }

    fn search(&mut self, plan: &SegmentPlan, line: usize, selected: &mut RowSet) -> Result<(), SegmentError> {
        let bytes = self.body_block()?;
        let templates = self.segment.templates.as_ref().expect("BUG: the segment has body blocks");
        let block = Block::parse(&bytes).map_err(|error| self.bad_body(&error))?;
        if block.rows() != self.rows() {
            return Err(self.bad_body(&"it has another number of rows"));
        }
        let prepared = &plan.lines[line];
        let (mut any, mut found) = (RowSet::new(self.rows()), RowSet::new(self.rows()));
        for query in &prepared.any {
            SCRATCH
                .with_borrow_mut(|scratch| {
                    block.search(templates, query, Some(&*selected), scratch, &mut found)
                })
                .map_err(|error| self.bad_body(&error))?;
            any.union(&found);
        }
        if prepared.negated {
            any.complement();
        }
        selected.intersect(&any);
        Ok(())
    }

    /// The projected columns of the selected rows, in order.
    pub fn produce(&mut self, selected: &RowSet, projection: &[usize]) -> Result<RecordBatch, SegmentError> {
        let rows = selected.count();
        let options = RecordBatchOptions::new().with_row_count(Some(rows as usize));
        let schema = projected_schema(projection);
        if projection.is_empty() {
            return Ok(RecordBatch::try_new_with_options(schema, vec![], &options)?);
        }
        let all = rows == self.rows();
        let sparse = !all && rows < self.rows() / SPARSE;
        let some = (!all).then_some(selected);
        let missing: Vec<usize> = projection
            .iter()
            .copied()
            .filter(|position| self.columns[*position].is_none() && in_parquet(self.segment, *position))
            .collect();
        let read = if missing.is_empty() {
            Vec::new()
        } else {
            self.read_parquet(&missing, if sparse { some } else { None })?
        };
        let indices = some.map(|selected| UInt32Array::from_iter_values(selected.iter()));
        let pick = |array: &ArrayRef| match &indices {
            Some(indices) => compute::take(array, indices, None),
            None => Ok(array.clone()),
        };
        let mut columns = Vec::with_capacity(projection.len());
        for position in projection {
            columns.push(match (&self.columns[*position], missing.binary_search(position)) {
                (Some(whole), _) => pick(whole)?,
                (None, Ok(place)) if sparse => read[place].clone(),
                (None, Ok(place)) => pick(&read[place])?,
                (None, Err(_)) if *position == column::STREAM => self.stream_column(some),
                (None, Err(_)) => self.decode_body(some)?,
            });
        }
        Ok(RecordBatch::try_new_with_options(schema, columns, &options)?)
    }
}

/// Whether the column is read from Parquet's pages.
pub fn in_parquet(segment: &Segment, position: usize) -> bool {
    position != column::STREAM && (position != column::BODY || segment.templates.is_none())
}

/// Columns as Parquet gave them, as ours; they stand in the same order. Observed times need the timestamps.
fn from_stored(logical: &[usize], batch: &RecordBatch) -> Vec<ArrayRef> {
    let place = logical.iter().position(|position| *position == column::TIMESTAMP);
    let timestamps = || batch.column(place.expect("BUG: observed times are read with the timestamps"));
    let convert = |(position, array): (&usize, &ArrayRef)| match *position {
        column::ATTRIBUTES => map_from_stored(array.as_map()),
        column::OBSERVED_TIMESTAMP => observed_from_delay(timestamps(), array),
        _ => array.clone(),
    };
    logical.iter().zip(batch.columns()).map(convert).collect()
}

/// Joins neighbouring ranges.
fn joined(
    ranges: impl Iterator<Item = std::ops::Range<usize>>,
) -> impl Iterator<Item = std::ops::Range<usize>> {
    let mut ranges = ranges.peekable();
    std::iter::from_fn(move || {
        let mut range = ranges.next()?;
        while let Some(next) = ranges.next_if(|next| next.start == range.end) {
            range.end = next.end;
        }
        Some(range)
    })
}
