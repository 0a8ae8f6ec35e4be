//! Tokens of residuals and the prefix code over them, shared by many columns.
//!
//! A column's residual `r` is cut into `low`, its last `shift` bits, which are stored as they are, and
//! `high = r >> shift`, whose zigzag form becomes a token: small ones a token each, greater ones a token per power
//! of two with the bits below it. With the right shift, columns of any scale share one distribution of tokens. Runs
//! of zeros are tokens of their own.

use crate::{ChunkError, error::corrupt, wire::Reader};

/// Zigzag values below this are tokens themselves.
pub(crate) const DIRECT: u64 = 32;
const DIRECT_BITS: u32 = DIRECT.ilog2();
/// Token of values in `2^(5 + i) .. 2^(6 + i)` is `DIRECT + i`.
const POWERS: usize = 64 - DIRECT_BITS as usize;
/// First token of runs of zeros: 1, 2, 3, 4, then 5-8, 9-16, …
const RUNS: usize = DIRECT as usize + POWERS;
/// Runs up to this length are tokens themselves; a reader writes as many zeros at any rate.
pub(crate) const SHORT_RUN: usize = 4;
/// Longest run of one token.
pub(crate) const LONGEST_RUN: usize = 1 << 16;
pub(crate) const TOKENS: usize = RUNS + SHORT_RUN + 14;
/// Longest code in bits: a table of 2,048 entries stays in the first-level cache.
pub(crate) const MAX_CODE: u32 = 11;

/// Token, and how many bits follow it, of a zigzag value.
#[inline]
pub(crate) fn token_of(value: u64) -> (usize, u32) {
    if value < DIRECT {
        return (value as usize, 0);
    }
    let power = value.ilog2();
    ((DIRECT as u32 + power - DIRECT_BITS) as usize, power)
}

/// Token, bits after it, and how many, of `run` zeros (1 to [`LONGEST_RUN`]).
#[inline]
pub(crate) fn token_of_run(run: usize) -> (usize, u64, u32) {
    if run <= SHORT_RUN {
        return (RUNS + run - 1, 0, 0);
    }
    let power = (run - 1).ilog2();
    (RUNS + SHORT_RUN + power as usize - 2, (run - 1) as u64 - (1 << power), power)
}

/// How often each token occurs.
pub(crate) type Counts = [u32; TOKENS];

/// Lengths of the code of each token (0: does not occur), shortest in sum for `counts`.
pub(crate) fn code_lengths(counts: &Counts) -> [u8; TOKENS] {
    let mut lengths = [0u8; TOKENS];
    let mut weights: Vec<(u64, u16)> = Vec::new();
    weights
        .extend(counts.iter().enumerate().filter(|(_, n)| **n > 0).map(|(t, n)| (u64::from(*n), t as u16)));
    if weights.len() == 1 {
        lengths[usize::from(weights[0].1)] = 1;
    }
    if weights.len() < 2 {
        return lengths;
    }
    loop {
        weights.sort_unstable();
        let depths = depths(&weights);
        if depths.iter().all(|depth| *depth <= MAX_CODE) {
            for ((_, token), depth) in weights.iter().zip(depths) {
                lengths[usize::from(*token)] = depth as u8;
            }
            return lengths;
        }
        // Rare tokens weigh more until none is too long.
        weights.iter_mut().for_each(|(weight, _)| *weight = *weight / 2 + 1);
    }
}

/// Huffman's depths of weights in ascending order, by two queues.
fn depths(weights: &[(u64, u16)]) -> Vec<u32> {
    let n = weights.len();
    let mut sums: Vec<u64> = weights.iter().map(|(weight, _)| *weight).collect();
    let mut parents = vec![0usize; 2 * n - 1];
    let (mut leaf, mut inner) = (0, n);
    for node in n..2 * n - 1 {
        let mut sum = 0;
        for _ in 0..2 {
            let take_leaf = leaf < n && (inner >= node || sums[leaf] <= sums[inner]);
            let child = if take_leaf { &mut leaf } else { &mut inner };
            sum += sums[*child];
            parents[*child] = node;
            *child += 1;
        }
        sums.push(sum);
    }
    let mut depths = vec![0u32; 2 * n - 1];
    for node in (0..2 * n - 2).rev() {
        depths[node] = depths[parents[node]] + 1;
    }
    depths.truncate(n);
    depths
}

/// The canonical codes, lowest bit first, of code lengths.
pub(crate) fn codes(lengths: &[u8; TOKENS]) -> [u16; TOKENS] {
    let mut codes = [0; TOKENS];
    let mut next = 0u32;
    for length in 1..=MAX_CODE {
        for token in (0..TOKENS).filter(|&token| u32::from(lengths[token]) == length) {
            codes[token] = (next.reverse_bits() >> (32 - length)) as u16;
            next += 1;
        }
        next <<= 1;
    }
    codes
}

/// Lengths as half bytes; 12 says that the next half byte + 2 lengths are 0.
pub(crate) fn put_lengths(out: &mut Vec<u8>, lengths: &[u8; TOKENS]) {
    let used = lengths.iter().rposition(|length| *length > 0).map_or(0, |last| last + 1);
    let mut halves = Vec::new();
    let mut at = 0;
    while at < used {
        let zeros = lengths[at..used].iter().take(17).take_while(|length| **length == 0).count();
        if zeros >= 2 {
            halves.extend([12, zeros as u8 - 2]);
            at += zeros;
        } else {
            halves.push(lengths[at]);
            at += 1;
        }
    }
    out.push(halves.len() as u8);
    out.extend(halves.chunks(2).map(|two| two[0] | two.get(1).unwrap_or(&0) << 4));
}

/// What a code of a table means.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Entry {
    /// Bits of the code; 0: no such code.
    pub length: u8,
    /// Bits that follow, low bits aside.
    pub extra: u8,
    /// Zigzag value above those bits; 0 for runs.
    pub lead: u8,
    /// Residuals it stands for: 1 and 0x81 (a value, low bits follow), 2 to 4, 0 (a long run).
    pub count: u8,
}

/// Set in [`Entry::count`] when it is a value and no run.
pub(crate) const VALUE: u8 = 0x80;

/// Codes of one model for reading.
pub(crate) struct Table {
    entries: Vec<Entry>,
    mask: usize,
}

impl Table {
    /// Reads what [`put_lengths`] wrote.
    pub(crate) fn parse(reader: &mut Reader<'_>) -> Result<Self, ChunkError> {
        let count = usize::from(reader.u8()?);
        let bytes = reader.take(count.div_ceil(2))?;
        let mut halves = (0..count).map(|i| (bytes[i / 2] >> (i % 2 * 4)) & 15);
        let mut lengths = [0u8; TOKENS];
        let mut at = 0;
        while let Some(half) = halves.next() {
            if half == 12 {
                at += usize::from(halves.next().unwrap_or(0)) + 2;
                continue;
            }
            match lengths.get_mut(at) {
                Some(length) if u32::from(half) <= MAX_CODE => *length = half,
                _ => return Err(corrupt("a model has an impossible code")),
            }
            at += 1;
        }
        Self::new(&lengths)
    }

    fn new(lengths: &[u8; TOKENS]) -> Result<Self, ChunkError> {
        let width = u32::from(lengths.iter().copied().max().unwrap_or(0));
        let room: u32 = lengths
            .iter()
            .filter(|length| **length > 0)
            .map(|length| 1 << (width - u32::from(*length)))
            .sum();
        if room > 1 << width {
            return Err(corrupt("a model has more codes than bits"));
        }
        let mut entries = vec![Entry::default(); 1 << width];
        let codes = codes(lengths);
        for token in (0..TOKENS).filter(|&token| lengths[token] > 0) {
            let length = lengths[token];
            let entry = if token < DIRECT as usize {
                Entry { length, extra: 0, lead: token as u8, count: 1 | VALUE }
            } else if token < RUNS {
                let power = token - DIRECT as usize + DIRECT_BITS as usize;
                Entry { length, extra: power as u8, lead: 1, count: 1 | VALUE }
            } else if token < RUNS + SHORT_RUN {
                Entry { length, extra: 0, lead: 0, count: (token - RUNS) as u8 + 1 }
            } else {
                Entry { length, extra: (token - RUNS - SHORT_RUN) as u8 + 2, lead: 0, count: 0 }
            };
            for at in (usize::from(codes[token])..entries.len()).step_by(1 << length) {
                entries[at] = entry;
            }
        }
        Ok(Self { mask: entries.len() - 1, entries })
    }

    #[inline]
    pub(crate) fn entry(&self, bits: u64) -> Entry {
        self.entries[bits as usize & self.mask]
    }
}
