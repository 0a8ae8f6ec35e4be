//! Residuals of one piece of a column as tokens and bits.

use crate::{
    ChunkError,
    bits::{BitWriter, word_at},
    error::corrupt,
    model::{Counts, LONGEST_RUN, SHORT_RUN, TOKENS, Table, VALUE, token_of, token_of_run},
    wire::{unzigzag, zigzag},
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
            Ok(residual) => token_of(zigzag(residual >> shift)).0,
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
                let high = zigzag(residual >> shift);
                let (token, extra) = token_of(high);
                let low = residual as u64 & ((1u64 << shift) - 1);
                // At most 64 bits: what `high` has more, `low` has less.
                (token, (high & ((1u64 << extra) - 1)) << shift | low, extra + shift)
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

/// Reads `n` residuals into the front of `out`, which has room for [`SLACK`] more. What `bytes` lacks is zeros.
pub(crate) fn read(
    table: &Table,
    shift: u32,
    bytes: &[u8],
    n: usize,
    out: &mut [i64],
) -> Result<(), ChunkError> {
    let (mut at, mut bit) = (0usize, 0usize);
    let low = (1u64 << shift) - 1;
    while at < n {
        let word = word_at(bytes, bit >> 3) >> (bit & 7);
        let entry = table.entry(word);
        let (length, extra) = (u32::from(entry.length), u32::from(entry.extra));
        let is_value = u32::from(entry.count >> 7);
        let follows = extra + shift * is_value;
        if length + follows > 57 || entry.count == 0 {
            // Codes that do not exist have length 0 and count 0.
            if length == 0 {
                return Err(corrupt("a code has no meaning"));
            }
            bit += length as usize;
            if entry.count == 0 {
                let word = word_at(bytes, bit >> 3) >> (bit & 7);
                let run = (1 << extra) + (word & ((1 << extra) - 1)) as usize + 1;
                bit += extra as usize;
                let end = at + run;
                out.get_mut(at..end.min(n)).ok_or(corrupt("a run is too long"))?.fill(0);
                if end > n {
                    return Err(corrupt("a run is too long"));
                }
                at = end;
                continue;
            }
            if follows > 64 {
                return Err(corrupt("a residual is longer than 64 bits"));
            }
            let first = word_at(bytes, bit >> 3) >> (bit & 7) & 0xffff_ffff;
            bit += 32;
            let second = word_at(bytes, bit >> 3) >> (bit & 7);
            bit += follows as usize - 32;
            let field = first | (second & ((1u64 << (follows - 32)) - 1)) << 32;
            out[at] = value(entry.lead, extra, shift, field, low);
            at += 1;
            continue;
        }
        let field = (word >> length) & ((1u64 << follows) - 1);
        let residual = value(entry.lead, extra, shift, field, low);
        out[at..at + SHORT_RUN].fill(residual);
        at += usize::from(entry.count & !VALUE);
        bit += (length + follows) as usize;
    }
    if at > n || bit > bytes.len() * 8 {
        return Err(corrupt("a column's bits end early"));
    }
    Ok(())
}

#[inline]
fn value(lead: u8, extra: u32, shift: u32, field: u64, low: u64) -> i64 {
    let high = u64::from(lead) << extra | field >> shift;
    (unzigzag(high) << shift) | (field & low) as i64
}
