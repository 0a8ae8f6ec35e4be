//! Reading columns of numbers that lie together.

use std::ops::Range;

use crate::{
    ChunkError,
    columns::{EXCEPTIONS, MAX_CHAIN, OTHER, PIECE},
    decimal::{Mapping, pick_values, to_values},
    error::corrupt,
    model::Table,
    residuals::{self, Job, SLACK},
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

/// Buffers, and what they hold.
#[derive(Default)]
struct Scratch {
    numbers: Vec<i64>,
    previous: Vec<i64>,
    /// Column and samples that `numbers` holds.
    holds: Option<(usize, Range<usize>)>,
    /// Consecutive columns whose residuals were read together.
    batch: Vec<Pieces>,
    residuals: Vec<i64>,
    jobs: Vec<Job>,
}

/// Residuals of some pieces of one column.
struct Pieces {
    column: usize,
    /// Samples of the column that the pieces hold.
    samples: Range<usize>,
    /// First number of the first piece.
    start: i64,
    center: i64,
    /// Where the starts of the pieces after it stand in the data.
    starts: usize,
    /// Where the residuals stand, [`STRIDE`] per piece.
    residuals: usize,
}

/// Room for the residuals of a piece.
const STRIDE: usize = PIECE + SLACK;
/// Samples that are read together when columns are read one after another.
const BATCH: usize = 2048;

/// A column's own bytes, cut into their parts.
struct Parts<'a> {
    first: i64,
    center: i64,
    /// What follows: starts and sizes of pieces, exceptions, bits.
    rest: Reader<'a>,
    /// Where the column ends in the data.
    end: usize,
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
        let numbers = &self.scratch.numbers[numbers];
        if spec.mapping == Mapping::Few {
            let mut list = self.exceptions(column, spec)?;
            let (mut few, mut last) = (Vec::new(), 0i64);
            while !list.is_empty() {
                last = last.wrapping_add(list.zigzag()?);
                few.push(last);
            }
            if !pick_values(&few, numbers, values) {
                return Err(corrupt("a value is none of the few"));
            }
            return Ok(());
        }
        to_values(spec.mapping, numbers, values);
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
        let held = self.scratch.holds.take();
        if held != Some((column, whole.clone())) {
            let mut next = self.chain_start(column);
            // Who reads the next column wants the ones after it, too.
            let mut ahead = 0;
            if let Some((held, range)) = held {
                ahead = if held + 1 == column { BATCH } else { 0 };
                if (next..column).contains(&held) && range == whole {
                    next = held + 1;
                }
            }
            for next in next..=column {
                self.load_one(next, column, &whole, ahead)?;
            }
        }
        self.scratch.holds = Some((column, whole.clone()));
        Ok(at.start - whole.start..at.end - whole.start)
    }

    /// Reads one column, of those up to `last` that are needed.
    fn load_one(
        &mut self,
        column: usize,
        last: usize,
        at: &Range<usize>,
        ahead: usize,
    ) -> Result<(), ChunkError> {
        let spec = self.spec(column);
        std::mem::swap(&mut self.scratch.numbers, &mut self.scratch.previous);
        self.scratch.numbers.clear();
        if spec.constant {
            let first = self.parts(column, spec)?.first;
            self.scratch.numbers.resize(at.len(), first);
        } else {
            let found = |batch: &[Pieces]| {
                let found = batch.binary_search_by_key(&column, |pieces| pieces.column).ok()?;
                (batch[found].samples == *at).then_some(found)
            };
            let pieces = match found(&self.scratch.batch) {
                Some(found) => found,
                None => {
                    if let Err(error) = self.read_batch(column, last, at, ahead) {
                        // It names columns that were not read.
                        self.scratch.batch.clear();
                        return Err(error);
                    }
                    0
                }
            };
            let Scratch { numbers, batch, residuals, .. } = &mut self.scratch;
            add_up(&batch[pieces], spec, self.data, residuals, numbers)?;
        }
        if spec.linked {
            let Scratch { numbers, previous, .. } = &mut self.scratch;
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

    /// Reads the residuals of the columns up to `last`, and of those after it as long as they fit into
    /// `ahead` samples.
    fn read_batch(
        &mut self,
        first: usize,
        last: usize,
        at: &Range<usize>,
        ahead: usize,
    ) -> Result<(), ChunkError> {
        let len = self.len_of(first);
        self.scratch.batch.clear();
        self.scratch.jobs.clear();
        let mut samples = 0;
        for column in first..self.places.len() {
            let (spec, own) = (self.spec(column), self.len_of(column));
            // What a reader of all samples wants of a column of another length is all of it.
            let at = if at.len() == len { 0..own } else { at.clone() };
            samples += at.len();
            if column > last && (samples > ahead || at.end > own) {
                break;
            }
            if !spec.constant {
                let parts = self.parts(column, spec)?;
                let residuals = self.scratch.jobs.last().map_or(0, |job| job.to.end + SLACK);
                let mut pieces = Pieces {
                    column,
                    samples: at,
                    start: parts.first,
                    center: parts.center,
                    starts: 0,
                    residuals,
                };
                find_pieces(&parts, spec, own, &mut pieces, &mut self.scratch.jobs)?;
                self.scratch.batch.push(pieces);
            }
        }
        let Scratch { residuals, jobs, .. } = &mut self.scratch;
        for job in jobs.iter() {
            self.tables[usize::from(job.model)].expect(job.shift, job.to.len());
        }
        let room = jobs.last().map_or(0, |job| job.to.end + SLACK);
        if residuals.len() < room {
            residuals.resize(room, 0);
        }
        residuals::read(&self.tables, self.data, jobs, residuals)
    }

    fn parts(&self, column: usize, spec: Spec) -> Result<Parts<'a>, ChunkError> {
        let end = self.places[column].end;
        let mut rest = Reader::new(&self.data[self.start_of(column)..end]);
        let first = rest.zigzag()?;
        let center = if spec.center { rest.zigzag()? } else { 0 };
        Ok(Parts { first, center, rest, end })
    }

    /// The bytes of a column's exceptions, or of its few values.
    fn exceptions(&self, column: usize, spec: Spec) -> Result<Reader<'a>, ChunkError> {
        let mut rest = self.parts(column, spec)?.rest;
        if !spec.constant {
            let further = self.len_of(column).div_ceil(PIECE).saturating_sub(1);
            for _ in 0..further * (1 + usize::from(spec.differences)) {
                rest.varint()?;
            }
        }
        let size = rest.bounded(rest.rest().len())?;
        Ok(Reader::new(rest.take(size)?))
    }

    /// Puts the values in place that numbers do not stand for.
    fn put_exceptions(
        &self,
        column: usize,
        spec: Spec,
        at: &Range<usize>,
        values: &mut [f64],
    ) -> Result<(), ChunkError> {
        let mut runs = self.exceptions(column, spec)?;
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

/// Finds the bits of the pieces that make up the samples of `pieces`, and the number that they start with.
fn find_pieces(
    parts: &Parts<'_>,
    spec: Spec,
    len: usize,
    pieces: &mut Pieces,
    jobs: &mut Vec<Job>,
) -> Result<(), ChunkError> {
    let at = &pieces.samples;
    let (first, last) = (at.start / PIECE, at.end.div_ceil(PIECE));
    let further = len.div_ceil(PIECE).saturating_sub(1);
    let mut rest = parts.rest;
    let position = |reader: &Reader<'_>| parts.end - reader.rest().len();
    if spec.differences {
        for piece in 0..further {
            if piece == first {
                pieces.starts = position(&rest);
            }
            let start = rest.zigzag()?;
            if piece < first {
                pieces.start = next_start(pieces.start, start, spec, pieces.center);
            }
        }
    }
    let mut sizes = rest;
    for _ in 0..further {
        rest.varint()?;
    }
    if spec.exceptions {
        let size = rest.bounded(rest.rest().len())?;
        rest.take(size)?;
    }
    let mut from = position(&rest);
    for piece in 0..last {
        let end = if piece < further { from + sizes.bounded(parts.end - from)? } else { parts.end };
        if piece >= first {
            let samples = PIECE.min(len - piece * PIECE) - usize::from(spec.differences);
            let to = pieces.residuals + (piece - first) * STRIDE;
            jobs.push(Job { model: spec.model, shift: spec.shift, bytes: from..end, to: to..to + samples });
        }
        from = end;
    }
    Ok(())
}

/// First number of a piece from that of the piece before.
fn next_start(start: i64, stored: i64, spec: Spec, center: i64) -> i64 {
    let leap = center.wrapping_mul(PIECE as i64);
    start.wrapping_add(stored.wrapping_add(leap).wrapping_mul(spec.divisor as i64))
}

/// Turns residuals into numbers.
fn add_up(
    pieces: &Pieces,
    spec: Spec,
    data: &[u8],
    residuals: &[i64],
    numbers: &mut Vec<i64>,
) -> Result<(), ChunkError> {
    let divisor = spec.divisor as i64;
    let step = pieces.center.wrapping_mul(divisor);
    let mut starts = Reader::new(&data[pieces.starts..]);
    let mut start = pieces.start;
    for (piece, from) in (0..pieces.samples.len()).step_by(PIECE).enumerate() {
        let samples = PIECE.min(pieces.samples.len() - from);
        let residuals = &residuals[pieces.residuals + piece * STRIDE..][..samples];
        if !spec.differences {
            numbers
                .extend(residuals.iter().map(|residual| residual.wrapping_mul(divisor).wrapping_add(start)));
            continue;
        }
        if piece > 0 {
            start = next_start(start, starts.zigzag()?, spec, pieces.center);
        }
        let mut last = start;
        numbers.push(start);
        numbers.extend(residuals[..samples - 1].iter().map(|residual| {
            last = last.wrapping_add(residual.wrapping_mul(divisor).wrapping_add(step));
            last
        }));
    }
    Ok(())
}
