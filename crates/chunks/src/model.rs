//! Tokens of residuals and the prefix code over them, shared by many columns.
//!
//! A column's residual is cut into its last `shift` bits, which are stored as they are, and `high`, the bits above
//! them, which become a token: from -16 to 15 each has its own, beyond there is one per sign and power of two, with
//! the bits below that power after it. With the right shift, columns of any scale share one distribution of tokens.
//! Runs of zeros are tokens of their own.

use crate::{
    ChunkError,
    error::corrupt,
    wire::{Reader, unzigzag, zigzag},
};

/// Values whose zigzag form is below this are tokens themselves.
const DIRECT: usize = 32;
const FIRST_POWER: u32 = DIRECT.ilog2() - 1;
/// Token `DIRECT + 2i` is `high` in `2^(4 + i) .. 2^(5 + i)`, the one after it the same of `!high`.
const POWERS: usize = 2 * (63 - FIRST_POWER as usize);
/// First token of runs of zeros: 1, 2, 3, 4, then 5-8, 9-16, …
const RUNS: usize = DIRECT + POWERS;
/// Runs up to this length are tokens themselves; a reader writes as many zeros at any rate.
pub(crate) const SHORT_RUN: usize = 4;
/// Longest run of one token.
pub(crate) const LONGEST_RUN: usize = 1 << 16;
pub(crate) const TOKENS: usize = RUNS + SHORT_RUN + 14;
/// Longest code in bits: a table of 2,048 entries stays in the first-level cache.
pub(crate) const MAX_CODE: u32 = 11;

/// Token of the high bits of a residual, and how many of them follow it.
#[inline]
pub(crate) fn token_of(high: i64) -> (usize, u32) {
    if (-(DIRECT as i64) / 2..DIRECT as i64 / 2).contains(&high) {
        return (zigzag(high) as usize, 0);
    }
    let negative = high < 0;
    let power = (if negative { !high } else { high }).ilog2();
    (DIRECT + 2 * (power - FIRST_POWER) as usize + usize::from(negative), power)
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

/// Calls `each` with the tokens that have a code, their lengths and canonical codes, lowest bit first; shorter
/// ones come first.
fn each_code(lengths: &[u8; TOKENS], mut each: impl FnMut(usize, u32, u16)) {
    // Where the tokens of each length begin among all of them by length.
    let mut places = [0usize; MAX_CODE as usize + 2];
    lengths.iter().for_each(|length| places[usize::from(*length) + 1] += 1);
    (1..places.len()).for_each(|length| places[length] += places[length - 1]);
    let mut order = [0u8; TOKENS];
    let first = places[1];
    for (token, length) in lengths.iter().enumerate() {
        let place = &mut places[usize::from(*length)];
        order[*place] = token as u8;
        *place += 1;
    }
    let (mut next, mut last) = (0u32, 0u32);
    for token in &order[first..] {
        let length = u32::from(lengths[usize::from(*token)]);
        next <<= length - last;
        last = length;
        each(usize::from(*token), length, (next.reverse_bits() >> (32 - length)) as u16);
        next += 1;
    }
}

/// The canonical codes of code lengths, for writing.
pub(crate) fn codes(lengths: &[u8; TOKENS]) -> [u16; TOKENS] {
    let mut codes = [0; TOKENS];
    each_code(lengths, |token, _, code| codes[token] = code);
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
    /// Bits that follow, those of the shift aside. More than [`LONG`]: a long run with as many more bits.
    pub extra: u8,
    /// Residual in units of what follows; 0 for runs.
    pub base: i8,
    /// Residuals it stands for, unless it is a long run.
    pub count: u8,
    /// All bits set when bits of the shift follow, which is after values.
    pub low_bits: u8,
}

/// A residual takes fewer bits after its code.
pub(crate) const LONG: u8 = 64;

/// Most codes of a table.
const ENTRIES: usize = 1 << MAX_CODE;

/// Codes of one model for reading: what the next [`MAX_CODE`] bits of a stream begin with.
pub(crate) struct Table {
    entries: Box<[Entry; ENTRIES]>,
    pairs: Vec<Pairs>,
}

/// Pairs of codes of residuals with so many low bits.
struct Pairs {
    shift: u8,
    /// Residuals that were read so far.
    read: usize,
    found: Option<Box<[Pair; ENTRIES]>>,
}

/// Residuals after which pairs are worth to be found: that takes as long as reading about so many.
const PAIRS_FROM: usize = 4096;
/// With more low bits the bits of a table seldom hold two codes.
const MOST_LOW_BITS: u8 = 5;

/// One or two codes that follow one another, of residuals that are known with them: small values and short runs
/// of zeros.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Pair {
    /// Bits of both, low bits included.
    pub length: u8,
    /// Residuals, up to [`SHORT_RUN`]; 0 where the first code is of another kind.
    pub count: u8,
    pub first: i16,
    /// All residuals after the first.
    pub others: i16,
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
        let room = |length: &u8| if *length > 0 { 1u32 << (width - u32::from(*length)) } else { 0 };
        if lengths.iter().map(room).sum::<u32>() > 1 << width {
            return Err(corrupt("a model has more codes than bits"));
        }
        let mut entries = Box::new([Entry { extra: LONG, ..Entry::default() }; ENTRIES]);
        let mut filled = 0;
        let mut fill_to = |entries: &mut [Entry; ENTRIES], length| {
            (filled..length).for_each(|bits| entries.copy_within(..1 << bits, 1 << bits));
            filled = length;
        };
        each_code(lengths, |token, length, code| {
            fill_to(&mut entries, length);
            entries[usize::from(code)] = entry(token, length as u8);
        });
        fill_to(&mut entries, MAX_CODE);
        Ok(Self { entries, pairs: Vec::new() })
    }

    #[inline]
    pub(crate) fn entry(&self, bits: u64) -> Entry {
        self.entries[bits as usize & (ENTRIES - 1)]
    }

    /// Says that so many residuals with so many low bits are to be read.
    pub(crate) fn expect(&mut self, shift: u8, residuals: usize) {
        if shift > MOST_LOW_BITS {
            return;
        }
        let known = self.pairs.iter().position(|pairs| pairs.shift == shift);
        let at = known.unwrap_or_else(|| {
            self.pairs.push(Pairs { shift, read: 0, found: None });
            self.pairs.len() - 1
        });
        self.pairs[at].read += residuals;
        if self.pairs[at].read > PAIRS_FROM && self.pairs[at].found.is_none() {
            self.pairs[at].found = Some(self.find_pairs(shift));
        }
    }

    /// The pairs by the next bits, if they were worth it.
    pub(crate) fn pairs(&self, shift: u8) -> Option<&[Pair; ENTRIES]> {
        self.pairs.iter().find(|pairs| pairs.shift == shift)?.found.as_deref()
    }

    fn find_pairs(&self, shift: u8) -> Box<[Pair; ENTRIES]> {
        // Of some bits, so many of them known: length and number of the residuals that they begin with.
        let known = |bits: usize, count: u32| {
            let entry = &self.entries[bits];
            let low_bits = shift & entry.low_bits;
            let length = entry.length + low_bits;
            let low = bits >> entry.length & ((1 << low_bits) - 1);
            let residual = (i16::from(entry.base) << low_bits) + low as i16;
            let is_known = entry.length > 0 && entry.extra == 0 && u32::from(length) <= count;
            is_known.then_some((length, entry.count, residual))
        };
        let mut pairs = Box::new([Pair::default(); ENTRIES]);
        for (bits, pair) in pairs.iter_mut().enumerate() {
            let Some((length, count, first)) = known(bits, MAX_CODE) else { continue };
            *pair = Pair { length, count, first, others: 0 };
            let next = known(bits >> length, MAX_CODE - u32::from(length)).filter(|_| count == 1);
            if let Some((more, further, others)) = next
                && usize::from(count + further) <= SHORT_RUN
            {
                *pair = Pair { length: length + more, count: count + further, first, others };
            }
        }
        pairs
    }
}

/// What a token means whose code has this length.
fn entry(token: usize, length: u8) -> Entry {
    let value = Entry { length, extra: 0, base: 0, count: 1, low_bits: u8::MAX };
    let run = Entry { low_bits: 0, ..value };
    if token < DIRECT {
        return Entry { base: unzigzag(token as u64) as i8, ..value };
    }
    if token < RUNS {
        let power = (token - DIRECT) / 2 + FIRST_POWER as usize;
        return Entry { extra: power as u8, base: if token.is_multiple_of(2) { 1 } else { -2 }, ..value };
    }
    match token - RUNS {
        zeros if zeros < SHORT_RUN => Entry { count: zeros as u8 + 1, ..run },
        power => Entry { extra: (power - SHORT_RUN) as u8 + 2 + LONG, ..run },
    }
}
