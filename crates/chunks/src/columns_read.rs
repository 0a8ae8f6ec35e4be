//! Reading columns of numbers that lie together.

use std::ops::Range;

use crate::{
    ChunkError,
    columns::{EXCEPTIONS, MAX_CHAIN, OTHER, PIECE},
    decimal::to_values,
    error::corrupt,
    model::Table,
    residuals::{self, SLACK},
    spec::Spec,
    wire::Reader,
};

/// Kinds of columns and models that a unit may name.
const MAX_SPECS: usize = 1 << 16;
const MAX_MODELS: usize = 255;

/// Columns of one unit; parsing reads the head and builds the tables.
pub(crate) struct Columns<'a> {
    specs: Vec<Spec>,
    tables: Vec<Table>,
    places: Vec<Place>,
    data: &'a [u8],
    scratch: Scratch,
}

/// Where a column lies in the data.
struct Place {
    spec: u32,
    len: u32,
    end: usize,
}

/// Numbers of the column read last, and of the one that it hangs on.
#[derive(Default)]
struct Scratch {
    numbers: Vec<i64>,
    previous: Vec<i64>,
    /// Column and samples that `numbers` holds.
    holds: Option<(usize, Range<usize>)>,
}

/// A column's own bytes, cut into their parts.
struct Parts<'a> {
    first: i64,
    center: i64,
    /// What follows: starts and sizes of pieces, exceptions, bits.
    rest: Reader<'a>,
}

impl<'a> Columns<'a> {
    /// Parses a unit of columns with these numbers of samples.
    pub(crate) fn parse(
        bytes: &'a [u8],
        lens: impl ExactSizeIterator<Item = u32>,
    ) -> Result<Self, ChunkError> {
        let n = lens.len();
        let mut reader = Reader::new(bytes);
        let models = reader.bounded(MAX_MODELS)?;
        let mut tables = Vec::new();
        for _ in 0..models {
            tables.push(Table::parse(&mut reader)?);
        }
        let count = reader.bounded(MAX_SPECS)?;
        let mut specs = Vec::new();
        for _ in 0..count {
            specs.push(Spec::parse(&mut reader, models)?);
        }
        let ids = reader.ints(n, (count as u64).saturating_sub(1))?;
        let sizes = reader.ints(n, bytes.len() as u64)?;
        let data = reader.rest();
        let mut places = Vec::with_capacity(n);
        let (mut end, mut chain, mut last) = (0usize, 0, None);
        for ((id, size), len) in ids.into_iter().zip(sizes).zip(lens) {
            end += size as usize;
            let spec: &Spec = specs.get(id as usize).ok_or(corrupt("a column has no form"))?;
            chain = if spec.linked { chain + 1 } else { 0 };
            if chain >= MAX_CHAIN || (spec.linked && last != Some(len)) {
                return Err(corrupt("a column hangs on one that it cannot hang on"));
            }
            last = Some(len);
            places.push(Place { spec: id as u32, len, end });
        }
        if end != data.len() {
            return Err(corrupt("columns do not fill their unit"));
        }
        Ok(Self { specs, tables, places, data, scratch: Scratch::default() })
    }

    /// Bytes of all columns, the head aside.
    pub(crate) fn data_len(&self) -> usize {
        self.data.len()
    }

    pub(crate) fn len_of(&self, column: usize) -> usize {
        self.places[column].len as usize
    }

    /// Bytes that reading one column touches, the unit's head aside.
    pub(crate) fn bytes_of(&self, column: usize) -> usize {
        let start = self.chain_start(column);
        self.places[column].end - self.start_of(start)
    }

    fn start_of(&self, column: usize) -> usize {
        column.checked_sub(1).map_or(0, |before| self.places[before].end)
    }

    fn spec(&self, column: usize) -> Spec {
        self.specs[self.places[column].spec as usize]
    }

    /// The first of the columns that this one hangs on.
    fn chain_start(&self, column: usize) -> usize {
        (0..=column).rev().find(|&column| !self.spec(column).linked).unwrap_or(0)
    }

    /// Appends the column's samples at these positions as values.
    pub(crate) fn values(
        &mut self,
        column: usize,
        at: Range<usize>,
        values: &mut Vec<f64>,
    ) -> Result<(), ChunkError> {
        let from = values.len();
        let numbers = self.load(column, &at)?;
        let spec = self.spec(column);
        to_values(spec.mapping, &self.scratch.numbers[numbers], values);
        if spec.exceptions {
            self.put_exceptions(column, spec, &at, &mut values[from..])?;
        }
        Ok(())
    }

    /// Appends the column's samples at these positions as whole numbers.
    pub(crate) fn numbers(
        &mut self,
        column: usize,
        at: Range<usize>,
        numbers: &mut Vec<i64>,
    ) -> Result<(), ChunkError> {
        let read = self.load(column, &at)?;
        numbers.extend_from_slice(&self.scratch.numbers[read]);
        Ok(())
    }

    /// Reads a column into the scratch, after those that it hangs on; where in the scratch the samples are.
    fn load(&mut self, column: usize, at: &Range<usize>) -> Result<Range<usize>, ChunkError> {
        let len = self.len_of(column);
        assert!(at.start <= at.end && at.end <= len, "samples {at:?} of {len}");
        // Whole pieces.
        let whole = at.start / PIECE * PIECE..at.end.next_multiple_of(PIECE).min(len);
        if self.scratch.holds != Some((column, whole.clone())) {
            let mut next = self.chain_start(column);
            if let Some((held, range)) = &self.scratch.holds
                && (next..column).contains(held)
                && *range == whole
            {
                next = held + 1;
            }
            self.scratch.holds = None;
            for next in next..=column {
                self.load_one(next, &whole)?;
            }
            self.scratch.holds = Some((column, whole.clone()));
        }
        Ok(at.start - whole.start..at.end - whole.start)
    }

    fn load_one(&mut self, column: usize, at: &Range<usize>) -> Result<(), ChunkError> {
        let spec = self.spec(column);
        let mut parts = self.parts(column, spec)?;
        let Scratch { numbers, previous, .. } = &mut self.scratch;
        std::mem::swap(numbers, previous);
        numbers.resize(at.len() + SLACK, 0);
        if spec.constant {
            numbers.fill(parts.first);
        } else {
            let len = self.places[column].len as usize;
            let table = &self.tables[usize::from(spec.model)];
            read_pieces(&mut parts, spec, table, len, at, numbers)?;
        }
        numbers.truncate(at.len());
        if spec.linked {
            if previous.len() != numbers.len() {
                return Err(corrupt("a column hangs on a shorter one"));
            }
            numbers
                .iter_mut()
                .zip(previous)
                .for_each(|(number, other)| *number = number.wrapping_add(*other));
        }
        Ok(())
    }

    fn parts(&self, column: usize, spec: Spec) -> Result<Parts<'a>, ChunkError> {
        let mut rest = Reader::new(&self.data[self.start_of(column)..self.places[column].end]);
        let first = rest.zigzag()?;
        let center = if spec.center { rest.zigzag()? } else { 0 };
        Ok(Parts { first, center, rest })
    }

    /// Puts the values in place that numbers do not stand for.
    fn put_exceptions(
        &self,
        column: usize,
        spec: Spec,
        at: &Range<usize>,
        values: &mut [f64],
    ) -> Result<(), ChunkError> {
        let mut rest = self.parts(column, spec)?.rest;
        if !spec.constant {
            let further = self.len_of(column).div_ceil(PIECE).saturating_sub(1);
            for _ in 0..further * (1 + usize::from(spec.differences)) {
                rest.varint()?;
            }
        }
        let size = rest.bounded(rest.rest().len())?;
        let mut runs = Reader::new(rest.take(size)?);
        let mut place = 0usize;
        while !runs.is_empty() && place < at.end {
            let len = self.len_of(column);
            let start = place + runs.bounded(len)?;
            let end = start + runs.bounded(len)?;
            let bits = match runs.u8()? {
                OTHER => runs.u64()?,
                kind => *EXCEPTIONS.get(usize::from(kind)).ok_or(corrupt("a value is of no known kind"))?,
            };
            if end > len || end == place {
                return Err(corrupt("values stand outside of their column"));
            }
            let within = start.max(at.start)..end.min(at.end);
            if within.start < within.end {
                values[within.start - at.start..within.end - at.start].fill(f64::from_bits(bits));
            }
            place = end;
        }
        Ok(())
    }
}

/// Reads the pieces that make up `at` into the front of `numbers`.
fn read_pieces(
    parts: &mut Parts<'_>,
    spec: Spec,
    table: &Table,
    len: usize,
    at: &Range<usize>,
    numbers: &mut [i64],
) -> Result<(), ChunkError> {
    let further = len.div_ceil(PIECE).saturating_sub(1);
    let (divisor, center) = (spec.divisor as i64, parts.center);
    let skipped = at.start / PIECE;
    let mut start = parts.first;
    let leap = center.wrapping_mul(PIECE as i64);
    let mut starts = parts.rest;
    if spec.differences {
        for _ in 0..further {
            parts.rest.varint()?;
        }
    }
    let mut next_start = |start: i64| -> Result<i64, ChunkError> {
        Ok(start.wrapping_add(starts.zigzag()?.wrapping_add(leap).wrapping_mul(divisor)))
    };
    let mut sizes = parts.rest;
    for _ in 0..further {
        parts.rest.varint()?;
    }
    if spec.exceptions {
        let size = parts.rest.bounded(parts.rest.rest().len())?;
        parts.rest.take(size)?;
    }
    let mut bits = parts.rest;
    let step = center.wrapping_mul(divisor);
    for piece in 0..at.end.div_ceil(PIECE) {
        let own = if piece < further {
            let size = sizes.bounded(bits.rest().len())?;
            bits.take(size)?
        } else {
            bits.rest()
        };
        if piece > 0 && spec.differences {
            start = next_start(start)?;
        }
        if piece < skipped {
            continue;
        }
        let samples = PIECE.min(len - piece * PIECE);
        let from = (piece - skipped) * PIECE;
        if spec.differences {
            residuals::read(table, u32::from(spec.shift), own, samples - 1, &mut numbers[from + 1..])?;
            let mut last = start;
            numbers[from] = start;
            for number in &mut numbers[from + 1..from + samples] {
                last = last.wrapping_add(number.wrapping_mul(divisor).wrapping_add(step));
                *number = last;
            }
        } else {
            residuals::read(table, u32::from(spec.shift), own, samples, &mut numbers[from..])?;
            for number in &mut numbers[from..from + samples] {
                *number = number.wrapping_mul(divisor).wrapping_add(start);
            }
        }
    }
    Ok(())
}
