//! Timestamp columns of a block: each stands once, however many series have it.

use std::{collections::HashMap, ops::Range};

use crate::{
    ChunkError, MAX_SAMPLES,
    block::TimeUnit,
    columns::ColumnsWriter,
    columns_read::Columns,
    error::corrupt,
    wire::{Reader, put_ints},
};

/// Columns of one unit: what reading one timestamp column parses.
pub(crate) const UNIT: usize = 256;
/// Columns with the same ends that are compared before a new one is added.
const CANDIDATES: usize = 8;
/// Timestamps that the columns of one reader hold in memory at most (8 bytes each).
const MAX_DECODED: usize = 1 << 25;

/// A stretch of a timestamp column.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct TimesRef {
    pub column: u32,
    pub start: u32,
    pub len: u32,
}

/// Distinct timestamp columns, as series bring them.
#[derive(Default)]
pub(crate) struct TimesWriter {
    columns: Vec<Vec<i64>>,
    by_first: HashMap<i64, Vec<u32>>,
    by_last: HashMap<i64, Vec<u32>>,
}

impl TimesWriter {
    /// The column that holds these timestamps as a whole, at its start or at its end, or a new one.
    pub(crate) fn intern(&mut self, times: &[i64]) -> TimesRef {
        let len = times.len() as u32;
        let (Some(first), Some(last)) = (times.first(), times.last()) else {
            return TimesRef { column: 0, start: 0, len: 0 };
        };
        let recent = |ids: Option<&Vec<u32>>| -> Vec<u32> {
            ids.map_or(Vec::new(), |ids| ids.iter().rev().take(CANDIDATES).copied().collect())
        };
        for column in recent(self.by_last.get(last)) {
            let known = &self.columns[column as usize];
            if known.ends_with(times) {
                return TimesRef { column, start: (known.len() - times.len()) as u32, len };
            }
        }
        for column in recent(self.by_first.get(first)) {
            if self.columns[column as usize].starts_with(times) {
                return TimesRef { column, start: 0, len };
            }
        }
        let column = self.columns.len() as u32;
        self.columns.push(times.to_vec());
        self.by_first.entry(*first).or_default().push(column);
        self.by_last.entry(*last).or_default().push(column);
        TimesRef { column, start: 0, len }
    }

    pub(crate) fn len(&self) -> usize {
        self.columns.len()
    }

    /// Appends the units of all columns; what each has.
    pub(crate) fn finish(&self, out: &mut Vec<u8>) -> Vec<TimeUnit> {
        let mut writer = ColumnsWriter::default();
        let mut units = Vec::new();
        for columns in self.columns.chunks(UNIT) {
            let start = out.len();
            put_ints(out, &columns.iter().map(|column| column.len() as u64).collect::<Vec<_>>());
            columns.iter().for_each(|column| writer.push_numbers(column));
            writer.finish(out);
            units.push(TimeUnit { columns: columns.len() as u32, bytes: start..out.len() });
        }
        units
    }
}

/// Timestamp columns of a block for reading; each is decoded when it is asked for and kept.
pub(crate) struct Times<'a> {
    units: Vec<Unit<'a>>,
    decoded: Vec<Option<Box<[i64]>>>,
    held: usize,
}

struct Unit<'a> {
    bytes: &'a [u8],
    columns: Range<usize>,
    parsed: Option<Columns<'a>>,
}

impl<'a> Times<'a> {
    pub(crate) fn new(units: &[TimeUnit], bytes: &'a [u8]) -> Self {
        let mut first = 0;
        let unit = |unit: &TimeUnit| {
            let columns = first..first + unit.columns as usize;
            first = columns.end;
            Unit { bytes: &bytes[unit.bytes.clone()], columns, parsed: None }
        };
        let units: Vec<Unit<'a>> = units.iter().map(unit).collect();
        let columns = units.last().map_or(0, |unit| unit.columns.end);
        Self { units, decoded: (0..columns).map(|_| None).collect(), held: 0 }
    }

    /// The timestamps of one stretch.
    pub(crate) fn get(&mut self, wanted: TimesRef) -> Result<&[i64], ChunkError> {
        if wanted.len == 0 {
            return Ok(&[]);
        }
        let column = wanted.column as usize;
        if self.decoded.get(column).ok_or(corrupt("a series has no timestamps"))?.is_none() {
            self.decode(column)?;
        }
        let (start, end) = (wanted.start as usize, wanted.start as usize + wanted.len as usize);
        let times = self.decoded[column].as_deref().unwrap_or_default();
        times.get(start..end).ok_or(corrupt("a series has more samples than timestamps"))
    }

    fn decode(&mut self, column: usize) -> Result<(), ChunkError> {
        let unit = self.units.partition_point(|unit| unit.columns.end <= column);
        let unit = &mut self.units[unit];
        let columns = match &mut unit.parsed {
            Some(columns) => columns,
            None => {
                let mut reader = Reader::new(unit.bytes);
                let lens = reader.ints(unit.columns.len(), MAX_SAMPLES as u64)?;
                unit.parsed.insert(Columns::parse(reader.rest(), lens.into_iter().map(|len| len as u32))?)
            }
        };
        let within = column - unit.columns.start;
        let len = columns.len_of(within);
        self.held += len;
        if self.held > MAX_DECODED {
            return Err(corrupt("a block has more timestamps than a writer puts into one"));
        }
        let mut times = Vec::with_capacity(len);
        columns.numbers(within, 0..len, &mut times)?;
        self.decoded[column] = Some(times.into_boxed_slice());
        Ok(())
    }
}
