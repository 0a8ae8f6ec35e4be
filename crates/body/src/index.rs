//! What is kept per block outside of it, so that a query can pass it by.
//!
//! The *token filter* is a bloom filter over the *runs* of the block's variables: maximal runs of
//! letters and digits of at least [`MIN_RUN`] bytes. A run is entered by its first [`RUN_PREFIX`]
//! bytes, so a needle that knows where a run starts needs not know where it ends. A needle that
//! knows neither can still be excluded: the filter notes which lengths runs have, and a run that
//! contains the needle's run but has no greater length must be the needle's run itself.
//!
//! Words and other runs with letters past `f` are few in variables, so their [`GRAM`]-letter pieces
//! are noted too (the *gram filter*): a bare word inside a longer one is decided by its pieces.

use bytes::Bytes;
use xxhash_rust::xxh3::xxh3_64;

use crate::{
    BodyError,
    dictionary::{Slot, class},
    values::{self, Span},
    wire::{Reader, put_varint},
};

/// Version of the index format, see `FORMAT.md`.
const VERSION: u8 = 1;
/// Shortest run in the filter, in bytes.
pub(crate) const MIN_RUN: usize = 7;
/// Bytes of a run that are hashed.
pub(crate) const RUN_PREFIX: usize = 8;
/// Filter bits per run: 3.5 % false answers with [`PROBES`].
const BITS_PER_RUN: usize = 7;
/// Bits that a run sets.
const PROBES: u32 = 4;
/// Slots of the cache that drops repeated runs, a power of two.
const SEEN: usize = 1 << 14;
/// Bytes of a gram.
const GRAM: usize = 4;
/// Gram filter bits per gram: 2.4 % false answers for one gram with [`GRAM_PROBES`]. Blocks of one service
/// have the same grams, hence the same false answers, so few must be wrong.
const BITS_PER_GRAM: usize = 8;
/// Bits that a gram sets.
const GRAM_PROBES: u32 = 4;
/// With more grams in a block than this, the gram filter says nothing.
const MAX_GRAMS: usize = 3000;
/// Slots of the cache that drops repeated words, a power of two.
const SEEN_WORDS: usize = 1 << 10;
/// Largest filter a reader accepts, in bytes.
const MAX_FILTER_BYTES: usize = 64 << 20;

/// Kinds of runs: only digits; hex digits; any letters.
pub(crate) const KINDS: usize = 3;

/// Templates and tokens of one block.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct BlockIndex {
    /// Rows of the block.
    pub rows: u32,
    /// Template ids of the block, ascending, with the number of rows of each.
    pub templates: Vec<(u32, u32)>,
    /// Per kind: bit `n` is set when a run has `n` bytes, bit 63 for 63 and more.
    pub(crate) lengths: [u64; KINDS],
    pub(crate) filter: Bytes,
    pub(crate) grams: Bytes,
}

impl BlockIndex {
    /// Appends the serialised index.
    pub fn write(&self, out: &mut Vec<u8>) {
        out.push(VERSION);
        put_varint(out, u64::from(self.rows));
        put_varint(out, self.templates.len() as u64);
        let mut last = 0;
        for &(template, rows) in &self.templates {
            put_varint(out, u64::from(template - last));
            put_varint(out, u64::from(rows));
            last = template;
        }
        for lengths in self.lengths {
            out.extend_from_slice(&lengths.to_le_bytes());
        }
        for filter in [&self.filter, &self.grams] {
            put_varint(out, filter.len() as u64);
            out.extend_from_slice(filter);
        }
    }

    /// Reads what [`BlockIndex::write`] wrote; the bytes must end with it. The filters stay in them.
    pub fn parse(bytes: &Bytes) -> Result<Self, BodyError> {
        let mut reader = Reader::new(bytes);
        let version = reader.u8()?;
        if version != VERSION {
            return Err(BodyError::Version { found: version, supported: VERSION });
        }
        let rows = reader.bounded(u32::MAX as usize)? as u32;
        let count = reader.bounded(bytes.len() / 2)?;
        let mut templates = Vec::with_capacity(count);
        let mut last = 0u32;
        for _ in 0..count {
            let step = reader.bounded(u32::MAX as usize)? as u32;
            last = last.checked_add(step).ok_or(BodyError::Corrupt("a template id overflows"))?;
            templates.push((last, reader.bounded(u32::MAX as usize)? as u32));
        }
        let mut lengths = [0; KINDS];
        for length in &mut lengths {
            *length = reader.u64()?;
        }
        let mut filters = [Bytes::new(), Bytes::new()];
        for filter in &mut filters {
            let len = reader.bounded(MAX_FILTER_BYTES)?;
            reader.take(len)?;
            *filter = bytes.slice(reader.position() - len..reader.position());
        }
        let [filter, grams] = filters;
        if !reader.is_empty() {
            return Err(BodyError::Corrupt("an index is longer than its parts"));
        }
        Ok(Self { rows, templates, lengths, filter, grams })
    }

    /// Bytes of memory it takes beside the bytes it was read from.
    pub fn memory(&self) -> usize {
        self.templates.capacity() * size_of::<(u32, u32)>()
    }

    /// Whether a variable of the block may hold this run of a needle. `left` and `right` tell
    /// whether the needle shows that the run starts and ends there.
    pub(crate) fn may_hold(&self, run: &[u8], left: bool, right: bool) -> bool {
        let kind = kind_of(run.iter().fold(0, |classes, &byte| classes | class::OF[byte as usize]));
        let len = run.len().min(63);
        // A run of this kind may lie inside a run of a later kind.
        let lengths = self.lengths[kind..].iter().fold(0, |all, lengths| all | lengths);
        let longer = if len < 63 { lengths >> (len + 1) != 0 } else { lengths >> 63 != 0 };
        let equal = lengths >> len & 1 == 1;
        let starts_it = left && (right || run.len() >= RUN_PREFIX);
        let is_it = left && right;
        if (is_it || !longer) && !equal {
            return false;
        }
        if kind == KINDS - 1 && !grams_of(run).all(|hash| holds(&self.grams, hash, GRAM_PROBES)) {
            return false;
        }
        if run.len() < MIN_RUN || (longer && !starts_it) {
            return true;
        }
        holds(&self.filter, hash_of(run), PROBES)
    }
}

/// Whether all bits of the hash are set.
fn holds(filter: &[u8], hash: u64, probes: u32) -> bool {
    let bits = filter.len() as u64 * 8;
    bits != 0
        && (0..probes).all(|probe| {
            let bit = position(hash, probe, bits);
            filter[(bit / 8) as usize] >> (bit % 8) & 1 == 1
        })
}

/// A filter with the bits of these hashes.
fn filter_of(hashes: impl ExactSizeIterator<Item = u64>, bits_per_hash: usize, probes: u32) -> Vec<u8> {
    let mut filter = vec![0u8; (hashes.len() * bits_per_hash).div_ceil(8)];
    let bits = filter.len() as u64 * 8;
    for hash in hashes {
        for probe in 0..probes {
            let bit = position(hash, probe, bits);
            filter[(bit / 8) as usize] |= 1 << (bit % 8);
        }
    }
    filter
}

/// Hashes of the grams of a run that are all letters; with digits they would be too many.
fn grams_of(run: &[u8]) -> impl Iterator<Item = u64> + '_ {
    run.windows(GRAM).filter(|gram| gram.iter().all(u8::is_ascii_alphabetic)).map(gram_hash)
}

/// Hash of a gram: its bytes as a number, spread over 64 bits.
fn gram_hash(gram: &[u8]) -> u64 {
    let number = gram.iter().fold(0u64, |sum, &byte| sum << 8 | u64::from(byte));
    let mixed = (number + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    (mixed ^ (mixed >> 29)).wrapping_mul(0xbf58_476d_1ce4_e5b9)
}

/// Kind of a run with these byte classes.
fn kind_of(classes: u16) -> usize {
    if classes & (class::LOWER | class::UPPER) != 0 { 2 } else { usize::from(classes & class::LETTERS != 0) }
}

fn hash_of(run: &[u8]) -> u64 {
    xxh3_64(&run[..run.len().min(RUN_PREFIX)])
}

/// Bit of a probe: double hashing, scaled to the filter by multiplication.
fn position(hash: u64, probe: u32, bits: u64) -> u64 {
    let step = hash.rotate_left(32) | 1;
    let mixed = hash.wrapping_add(step.wrapping_mul(u64::from(probe)));
    ((u128::from(mixed) * u128::from(bits)) >> 64) as u64
}

/// Gathers the index of one block; keeps its buffers.
pub(crate) struct IndexBuilder {
    seen: Vec<u64>,
    hashes: Vec<u64>,
    seen_words: Vec<u64>,
    grams: Vec<u64>,
    too_many_grams: bool,
    lengths: [u64; KINDS],
}

impl Default for IndexBuilder {
    fn default() -> Self {
        Self {
            seen: vec![0; SEEN],
            hashes: Vec::new(),
            seen_words: vec![0; SEEN_WORDS],
            grams: Vec::new(),
            too_many_grams: false,
            lengths: [0; KINDS],
        }
    }
}

impl IndexBuilder {
    pub(crate) fn start(&mut self) {
        self.seen.fill(0);
        self.hashes.clear();
        self.seen_words.fill(0);
        self.grams.clear();
        self.too_many_grams = false;
        self.lengths = [0; KINDS];
    }

    /// Enters values of any kind; the classes of their bytes.
    pub(crate) fn values(&mut self, text: &[u8], all: &[Span]) -> u16 {
        let mut classes = 0;
        for (i, &span) in all.iter().enumerate() {
            if i == 0 || !values::equal(text, all[i - 1], span) {
                classes |= self.value(values::slice(text, span));
            }
        }
        classes
    }

    /// Enters the values of a column of any kind; what they have in common.
    pub(crate) fn column(&mut self, text: &[u8], all: &[Span]) -> Slot {
        let longest = all.iter().map(|span| span.1 - span.0).max().unwrap_or(0);
        Slot { classes: self.values(text, all), longest }
    }

    /// Enters values that are one run of digits each, with or without a sign. Bit `n` of `lengths` is set
    /// when a run has `n` digits.
    pub(crate) fn digits(&mut self, text: &[u8], all: &[Span], lengths: u64) {
        self.lengths[0] |= lengths;
        if lengths >> MIN_RUN != 0 {
            for &span in all {
                let value = values::slice(text, span);
                let run = value.strip_prefix(b"-").unwrap_or(value);
                if run.len() >= MIN_RUN {
                    self.enter(run);
                }
            }
        }
    }

    /// Enters the runs of a value; the classes of its bytes.
    pub(crate) fn value(&mut self, value: &[u8]) -> u16 {
        const RUN: u16 = class::DIGIT | class::LETTERS;
        let (mut all, mut run, mut start) = (0u16, 0u16, 0usize);
        for (i, &byte) in value.iter().enumerate() {
            let class = class::OF[byte as usize];
            if class & RUN != 0 {
                run |= class;
            } else {
                all |= run | class;
                if i > start {
                    self.run(&value[start..i], run);
                }
                run = 0;
                start = i + 1;
            }
        }
        if value.len() > start {
            self.run(&value[start..], run);
        }
        all | run
    }

    #[inline]
    fn run(&mut self, run: &[u8], classes: u16) {
        let kind = kind_of(classes);
        self.lengths[kind] |= 1 << run.len().min(63);
        if kind == KINDS - 1 && run.len() >= GRAM && !self.too_many_grams {
            self.word(run);
        }
        if run.len() >= MIN_RUN {
            self.enter(run);
        }
    }

    /// Enters a run into the token filter.
    #[inline]
    fn enter(&mut self, run: &[u8]) {
        let hash = hash_of(run);
        let seen = &mut self.seen[hash as usize & (SEEN - 1)];
        if *seen != hash {
            *seen = hash;
            self.hashes.push(hash);
        }
    }

    /// Enters the grams of a run with letters.
    fn word(&mut self, word: &[u8]) {
        let hash = xxh3_64(word);
        let seen = &mut self.seen_words[hash as usize & (SEEN_WORDS - 1)];
        if *seen == hash {
            return;
        }
        *seen = hash;
        self.grams.extend(grams_of(word));
        if self.grams.len() > MAX_GRAMS * 2 {
            self.grams.sort_unstable();
            self.grams.dedup();
            self.too_many_grams = self.grams.len() > MAX_GRAMS;
        }
    }

    pub(crate) fn finish(&mut self, rows: u32, templates: Vec<(u32, u32)>) -> BlockIndex {
        // The caches forget, so some hashes stand here twice.
        for hashes in [&mut self.hashes, &mut self.grams] {
            hashes.sort_unstable();
            hashes.dedup();
        }
        let filter = filter_of(self.hashes.iter().copied(), BITS_PER_RUN, PROBES);
        let grams = if self.too_many_grams || self.grams.len() > MAX_GRAMS {
            // Every bit set: it says yes to everything.
            vec![u8::MAX]
        } else {
            filter_of(self.grams.iter().copied(), BITS_PER_GRAM, GRAM_PROBES)
        };
        let (filter, grams) = (filter.into(), grams.into());
        BlockIndex { rows, templates, lengths: self.lengths, filter, grams }
    }
}
