//! Residuals of one piece of a column as tokens and bits.

use std::ops::Range;

use crate::{
    ChunkError,
    bits::{BitWriter, word_at},
    error::corrupt,
    model::{
        Counts, Entry, LONG, LONGEST_RUN, MAX_CODE, Pair, SHORT_RUN, TOKENS, Table, token_of, token_of_run,
    },
};

/// Room that [`read`] needs behind the residuals.
pub(crate) const SLACK: usize = SHORT_RUN;

/// Calls `run` for runs of zeros and `value` for other residuals.
#[inline]
fn each(residuals: &[i64], mut on: impl FnMut(Result<i64, usize>)) {
    let mut at = 0;
    while at < residuals.len() {
        if residuals[at] != 0 {
            on(Ok(residuals[at]));
            at += 1;
            continue;
        }
        let start = at;
        while at < residuals.len() && residuals[at] == 0 && at - start < LONGEST_RUN {
            at += 1;
        }
        on(Err(at - start));
    }
}

/// Adds the tokens of residuals to `counts`.
pub(crate) fn count(residuals: &[i64], shift: u32, counts: &mut Counts) {
    each(residuals, |part| {
        let token = match part {
            Ok(residual) => token_of(residual >> shift).0,
            Err(run) => token_of_run(run).0,
        };
        counts[token] += 1;
    });
}

/// A model for writing.
pub(crate) struct Codes {
    pub lengths: [u8; TOKENS],
    pub codes: [u16; TOKENS],
}

/// Appends the tokens of residuals, filled up to a whole byte.
pub(crate) fn write(residuals: &[i64], shift: u32, model: &Codes, out: &mut Vec<u8>) {
    let mut bits = BitWriter::default();
    each(residuals, |part| {
        let (token, below, count) = match part {
            Ok(residual) => {
                let (token, extra) = token_of(residual >> shift);
                // At most 63 bits: what the power is greater, the shift is smaller.
                let count = extra + shift;
                (token, residual as u64 & ((1u64 << count) - 1), count)
            }
            Err(run) => token_of_run(run),
        };
        let (code, length) = (u64::from(model.codes[token]), u32::from(model.lengths[token]));
        if count + length <= 56 {
            bits.put(code | below << length, length + count, out);
        } else {
            bits.put(code, length, out);
            bits.put_long(below, count, out);
        }
    });
    bits.finish(out);
}

/// Residuals of one piece that are to be read.
pub(crate) struct Job {
    pub model: u8,
    pub shift: u8,
    /// Its bits within the data, in bytes.
    pub bytes: Range<usize>,
    /// Where they go. [`SLACK`] more numbers are overwritten.
    pub to: Range<usize>,
}

/// Reads the residuals of all jobs. Finding a code waits for the one before it, so that several pieces are
/// read at once, some codes of each in turn.
pub(crate) fn read(tables: &[Table], data: &[u8], jobs: &[Job], out: &mut [i64]) -> Result<(), ChunkError> {
    let mut jobs = jobs.iter();
    let mut next = || jobs.next().map(|job| Lane::new(tables, data, job));
    let mut lanes: [Option<Lane<'_>>; LANES] = [const { None }; LANES];
    lanes.iter_mut().for_each(|lane| *lane = next());
    while let [Some(a), Some(b), Some(c), Some(d)] = &mut lanes {
        if let (Some(pairs_a), Some(pairs_b), Some(pairs_c), Some(pairs_d)) =
            (a.pairs, b.pairs, c.pairs, d.pairs)
        {
            while a.has_room() && b.has_room() && c.has_room() && d.has_room() {
                a.step_pairs(pairs_a, out)?;
                b.step_pairs(pairs_b, out)?;
                c.step_pairs(pairs_c, out)?;
                d.step_pairs(pairs_d, out)?;
            }
        }
        while a.at < a.end && b.at < b.end && c.at < c.end && d.at < d.end {
            a.step(out)?;
            b.step(out)?;
            c.step(out)?;
            d.step(out)?;
        }
        for lane in &mut lanes {
            if let Some(ended) = lane
                && ended.at >= ended.end
            {
                ended.check()?;
                *lane = next();
            }
        }
    }
    for lane in lanes.iter_mut().flatten() {
        lane.finish(out)?;
    }
    Ok(())
}

const LANES: usize = 4;
/// Pairs of codes that are read of one piece before the next has its turn: their bits are loaded once.
const CODES: usize = 2;

/// A piece that is being read.
struct Lane<'a> {
    table: &'a Table,
    pairs: Option<&'a [Pair; 1 << MAX_CODE]>,
    shift: u32,
    /// From the piece on to the end of the data: what a damaged piece reads behind its own bits is found out
    /// by [`Self::check`].
    bytes: &'a [u8],
    bit: usize,
    bits: usize,
    at: usize,
    end: usize,
}

impl<'a> Lane<'a> {
    fn new(tables: &'a [Table], data: &'a [u8], job: &Job) -> Self {
        let table = &tables[usize::from(job.model)];
        Self {
            table,
            pairs: table.pairs(job.shift),
            shift: u32::from(job.shift),
            bytes: &data[job.bytes.start..],
            bit: 0,
            bits: job.bytes.len() * 8,
            at: job.to.start,
            end: job.to.end,
        }
    }

    fn check(&self) -> Result<(), ChunkError> {
        if self.at > self.end || self.bit > self.bits {
            return Err(corrupt("a column's bits end early"));
        }
        Ok(())
    }

    fn word(&self) -> u64 {
        word_at(self.bytes, self.bit >> 3) >> (self.bit & 7)
    }

    /// Whether [`Self::step_pairs`] stays within the piece.
    fn has_room(&self) -> bool {
        self.at + CODES * SHORT_RUN <= self.end
    }

    /// Reads some pairs of codes.
    #[allow(clippy::inline_always)] // its state lives in registers
    #[inline(always)]
    fn step_pairs(&mut self, pairs: &[Pair; 1 << MAX_CODE], out: &mut [i64]) -> Result<(), ChunkError> {
        let mut word = self.word();
        for _ in 0..CODES {
            let pair = pairs[word as usize & ((1 << MAX_CODE) - 1)];
            if pair.count == 0 {
                return self.step(out);
            }
            let [first, others @ ..] = &mut out[self.at..self.at + SHORT_RUN] else { return Ok(()) };
            *first = i64::from(pair.first);
            others.fill(i64::from(pair.others));
            self.at += usize::from(pair.count);
            self.bit += usize::from(pair.length);
            word >>= pair.length;
        }
        Ok(())
    }

    /// Reads all that is left.
    fn finish(&mut self, out: &mut [i64]) -> Result<(), ChunkError> {
        if let Some(pairs) = self.pairs {
            while self.has_room() {
                self.step_pairs(pairs, out)?;
            }
        }
        while self.at < self.end {
            self.step(out)?;
        }
        self.check()
    }

    /// Reads one token.
    #[allow(clippy::inline_always)] // its state lives in registers
    #[inline(always)]
    fn step(&mut self, out: &mut [i64]) -> Result<(), ChunkError> {
        let word = self.word();
        let entry = self.table.entry(word);
        let length = u32::from(entry.length);
        let follows = u32::from(entry.extra) + (self.shift & u32::from(entry.low_bits));
        if length + follows > 57 {
            return self.long(entry, out);
        }
        let field = (word >> length) & ((1u64 << follows) - 1);
        let residual = (i64::from(entry.base) << follows) + field as i64;
        out[self.at..self.at + SHORT_RUN].fill(residual);
        self.at += usize::from(entry.count);
        self.bit += (length + follows) as usize;
        Ok(())
    }

    /// Reads one token that is a long run, a number of many bits, or none at all.
    #[cold]
    fn long(&mut self, entry: Entry, out: &mut [i64]) -> Result<(), ChunkError> {
        if entry.length == 0 {
            return Err(corrupt("a code has no meaning"));
        }
        self.bit += usize::from(entry.length);
        if entry.extra > LONG {
            let extra = entry.extra - LONG;
            let end = self.at + (1 << extra) + (self.word() & ((1 << extra) - 1)) as usize + 1;
            self.bit += usize::from(extra);
            if end > self.end {
                return Err(corrupt("a run is too long"));
            }
            out[self.at..end].fill(0);
            self.at = end;
            return Ok(());
        }
        // Codes have at most 11 bits, so that there are more than 32.
        let follows = u32::from(entry.extra) + self.shift;
        if follows > 63 {
            return Err(corrupt("a residual is longer than 64 bits"));
        }
        let first = self.word() & 0xffff_ffff;
        self.bit += 32;
        let second = self.word() & ((1u64 << (follows - 32)) - 1);
        self.bit += follows as usize - 32;
        out[self.at] = (i64::from(entry.base) << follows).wrapping_add((first | second << 32) as i64);
        self.at += 1;
        Ok(())
    }
}
