//! What is kept per block outside of it, so that a query can pass it by.
//!
//! The *token filter* is a bloom filter over the *runs* of the block's variables: maximal runs of
//! letters and digits of at least [`MIN_RUN`] bytes. A run is entered by its first [`RUN_PREFIX`]
//! bytes, so a needle that knows where a run starts needs not know where it ends. A needle that
//! knows neither can still be excluded: the filter notes which lengths runs have, and a run that
//! contains the needle's run but has no greater length must be the needle's run itself.

use xxhash_rust::xxh3::xxh3_64;

use crate::{
    BodyError,
    dictionary::{Slot, class},
    scan::Span,
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
    pub(crate) filter: Vec<u8>,
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
        put_varint(out, self.filter.len() as u64);
        out.extend_from_slice(&self.filter);
    }

    /// Reads what [`BlockIndex::write`] wrote; the bytes must end with it.
    pub fn parse(bytes: &[u8]) -> Result<Self, BodyError> {
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
        let filter_len = reader.bounded(MAX_FILTER_BYTES)?;
        let filter = reader.take(filter_len)?.to_vec();
        if !reader.is_empty() {
            return Err(BodyError::Corrupt("an index is longer than its parts"));
        }
        Ok(Self { rows, templates, lengths, filter })
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
        if run.len() < MIN_RUN || longer && !starts_it {
            return true;
        }
        self.contains(hash_of(run))
    }

    fn contains(&self, hash: u64) -> bool {
        let bits = self.filter.len() as u64 * 8;
        bits != 0
            && (0..PROBES).all(|probe| {
                let bit = position(hash, probe, bits);
                self.filter[(bit / 8) as usize] >> (bit % 8) & 1 == 1
            })
    }
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
    (u128::from(mixed) * u128::from(bits) >> 64) as u64
}

/// Gathers the index of one block; keeps its buffers.
pub(crate) struct IndexBuilder {
    seen: Vec<u64>,
    hashes: Vec<u64>,
    lengths: [u64; KINDS],
}

impl Default for IndexBuilder {
    fn default() -> Self {
        Self { seen: vec![0; SEEN], hashes: Vec::new(), lengths: [0; KINDS] }
    }
}

impl IndexBuilder {
    pub(crate) fn start(&mut self) {
        self.seen.fill(0);
        self.hashes.clear();
        self.lengths = [0; KINDS];
    }

    /// Enters the values of a column and widens what is known of its slot.
    pub(crate) fn column(&mut self, bytes: &[u8], values: &[Span], slot: &mut Slot) {
        let mut last: &[u8] = &[];
        for &(start, end) in values {
            let value = &bytes[start as usize..end as usize];
            if value == last {
                continue;
            }
            last = value;
            slot.longest = slot.longest.max(value.len() as u32);
            slot.classes |= self.value(value);
        }
    }

    /// Enters the runs of a value; the classes of its bytes.
    #[inline]
    fn value(&mut self, value: &[u8]) -> u16 {
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
        self.lengths[kind_of(classes)] |= 1 << run.len().min(63);
        if run.len() < MIN_RUN {
            return;
        }
        let hash = hash_of(run);
        let seen = &mut self.seen[hash as usize & (SEEN - 1)];
        if *seen != hash {
            *seen = hash;
            self.hashes.push(hash);
        }
    }

    pub(crate) fn finish(&mut self, rows: u32, templates: Vec<(u32, u32)>) -> BlockIndex {
        // The cache forgets, so some hashes stand here twice.
        self.hashes.sort_unstable();
        self.hashes.dedup();
        let mut filter = vec![0u8; (self.hashes.len() * BITS_PER_RUN).div_ceil(8)];
        let bits = filter.len() as u64 * 8;
        for &hash in &self.hashes {
            for probe in 0..PROBES {
                let bit = position(hash, probe, bits);
                filter[(bit / 8) as usize] |= 1 << (bit % 8);
            }
        }
        BlockIndex { rows, templates, lengths: self.lengths, filter }
    }
}
