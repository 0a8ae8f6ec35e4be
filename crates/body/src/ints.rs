//! Columns of whole numbers: constant, bit-packed or as byte planes, plain or as differences.
//!
//! Random numbers are cheapest bit-packed and skip zstd; skewed ones are cheapest as byte planes,
//! whose bytes zstd's entropy coder squeezes. Which it is, a sample's entropy tells.

use std::sync::LazyLock;

use crate::{
    BodyError,
    sections::{Sections, Writer},
    wire::put_varint,
};

const CONSTANT: u8 = 0;
const PACKED: u8 = 1;
const PLANES: u8 = 2;
const MODE: u8 = 3;
/// The numbers are differences to the one before, zigzag.
const DELTA: u8 = 4;

/// Values looked at to guess the cheapest form.
const SAMPLE: usize = 512;
/// Differences looked at to tell whether they are worth a guess.
const DIFFERENCES: usize = 64;
/// Fewer values than this are not worth a histogram.
const MIN_SAMPLED: usize = 192;

/// Scratch of [`encode`].
#[derive(Default)]
pub(crate) struct IntScratch {
    deltas: Vec<u64>,
    plane: Vec<u8>,
}

fn zigzag(value: i64) -> u64 {
    ((value << 1) ^ (value >> 63)) as u64
}

fn unzigzag(value: u64) -> i64 {
    (value >> 1) as i64 ^ -((value & 1) as i64)
}

/// Bits needed for numbers up to `max`.
pub(crate) fn bits_for(max: u64) -> u32 {
    64 - max.leading_zeros()
}

/// `c * log2(c)` for counts of a sample.
static C_LOG_C: LazyLock<Vec<f32>> =
    LazyLock::new(|| (0..=SAMPLE).map(|c| if c < 2 { 0.0 } else { c as f32 * (c as f32).log2() }).collect());

/// Entropy in bits per value of one byte plane of a sample, a little raised because a sample
/// sees too few of the rare values.
fn entropy(values: &[u64], min: u64, shift: u32) -> f32 {
    let mut histogram = [0u32; 256];
    let step = values.len().div_ceil(SAMPLE);
    let mut n = 0u32;
    for value in values.iter().step_by(step) {
        histogram[(value.wrapping_sub(min) >> shift) as usize & 0xff] += 1;
        n += 1;
    }
    let (mut sum, mut kinds) = (0.0, 0u32);
    let table: &[f32] = &C_LOG_C;
    for count in histogram {
        sum += table[count as usize];
        kinds += u32::from(count > 0);
    }
    let n = n as f32;
    n.log2() - sum / n + (kinds - 1) as f32 * 0.72 / n
}

/// Cheapest form found: estimated bits, mode, minimum, bits per value.
struct Plan {
    cost: f32,
    mode: u8,
    min: u64,
    bits: u32,
}

fn plan(values: &[u64]) -> Plan {
    let (mut min, mut max) = (u64::MAX, 0);
    for &value in values {
        min = min.min(value);
        max = max.max(value);
    }
    let n = values.len() as f32;
    let bits = bits_for(max - min);
    if bits == 0 {
        return Plan { cost: 16.0, mode: CONSTANT, min, bits };
    }
    let packed = bits as f32 * n;
    if values.len() < MIN_SAMPLED {
        // One short plane goes to the shared section, where zstd sees it next to its like.
        let mode = if bits <= 8 { PLANES } else { PACKED };
        return Plan { cost: packed, mode, min, bits };
    }
    let mut planes = 0.0;
    for shift in (0..bits).step_by(8) {
        planes += entropy(values, min, shift).min(8.0) * n + 300.0;
        if planes > packed {
            break;
        }
    }
    // Repeats are worth more than their entropy: zstd sees runs.
    let repeats = values.windows(2).take(SAMPLE).filter(|two| two[0] == two[1]).count();
    if repeats * 2 > values.len().min(SAMPLE) {
        planes *= 1.0 - repeats as f32 / values.len().min(SAMPLE + 1) as f32 * 0.7;
    }
    if planes < packed * 0.95 {
        Plan { cost: planes, mode: PLANES, min, bits }
    } else {
        Plan { cost: packed, mode: PACKED, min, bits }
    }
}

/// Whether differences to the number before may be shorter than the numbers above their minimum.
fn may_differ_less(values: &[u64], min: u64) -> bool {
    let (mut numbers, mut differences) = (0, 0);
    for two in values.windows(2).step_by(values.len().div_ceil(DIFFERENCES)) {
        numbers += bits_for(two[1].wrapping_sub(min));
        differences += bits_for(zigzag(two[1].wrapping_sub(two[0]) as i64));
    }
    differences <= numbers
}

/// Writes the numbers; the reader must know how many they are. `values` is overwritten.
pub(crate) fn encode(values: &mut [u64], scratch: &mut IntScratch, out: &mut Writer) {
    if values.is_empty() {
        return;
    }
    let plain = plan(values);
    scratch.deltas.clear();
    if plain.mode != CONSTANT && values.len() > 2 && may_differ_less(values, plain.min) {
        scratch.deltas.extend(values.windows(2).map(|two| zigzag(two[1].wrapping_sub(two[0]) as i64)));
        let differences = plan(&scratch.deltas);
        if differences.cost < plain.cost * 0.97 {
            out.head.push(differences.mode | DELTA);
            put_varint(&mut out.head, values[0]);
            body(&scratch.deltas, &differences, &mut scratch.plane, out);
            return;
        }
    }
    out.head.push(plain.mode);
    body(values, &plain, &mut scratch.plane, out);
}

fn body(values: &[u64], plan: &Plan, plane: &mut Vec<u8>, out: &mut Writer) {
    put_varint(&mut out.head, plan.min);
    match plan.mode {
        CONSTANT => {}
        PACKED => {
            out.head.push(plan.bits as u8);
            pack(values, plan.min, plan.bits, &mut out.big);
        }
        _ => {
            out.head.push(plan.bits as u8);
            for shift in (0..plan.bits).step_by(8) {
                plane.clear();
                plane.extend(values.iter().map(|value| (value.wrapping_sub(plan.min) >> shift) as u8));
                out.plane(plane);
            }
        }
    }
}

/// Which values of a column are to be read.
#[derive(Clone, Copy)]
pub(crate) enum Wanted<'a> {
    Nothing,
    All,
    /// Those at these positions, which ascend and are within the column.
    These(&'a [u32]),
}

impl Wanted<'_> {
    /// How many of `n` values.
    pub(crate) fn count(self, n: usize) -> usize {
        match self {
            Self::Nothing => 0,
            Self::All => n,
            Self::These(places) => places.len(),
        }
    }

    /// How many of `n` values there are up to the last one that is wanted.
    fn reach(self, n: usize) -> usize {
        match self {
            Self::Nothing => 0,
            Self::All => n,
            Self::These(places) => places.last().map_or(0, |&last| last as usize + 1),
        }
    }
}

/// Reads those of `n` numbers that are wanted into `values` (replacing its content).
pub(crate) fn decode(
    n: usize,
    wanted: Wanted<'_>,
    sections: &mut Sections<'_>,
    values: &mut Vec<u64>,
) -> Result<(), BodyError> {
    values.clear();
    if n == 0 {
        return Ok(());
    }
    let head = sections.head.u8()?;
    let (mode, delta) = (head & MODE, head & DELTA != 0);
    let first = if delta { sections.head.varint()? } else { 0 };
    let min = sections.head.varint()?;
    let stored = n - usize::from(delta);
    let skip = matches!(wanted, Wanted::Nothing);
    // Differences must be summed from the first one on; other numbers are read where they lie.
    let read = match wanted {
        Wanted::These(_) if !delta => wanted,
        _ => Wanted::All,
    };
    let count = match read {
        Wanted::These(places) => places.len(),
        _ => wanted.reach(n).saturating_sub(usize::from(delta)),
    };
    match mode {
        CONSTANT => values.resize(count, min),
        PACKED => {
            let bits = u32::from(sections.head.u8()?);
            if bits == 0 || bits > 64 {
                return Err(BodyError::Corrupt("packed numbers have an impossible width"));
            }
            let bytes = sections.big.take((stored * bits as usize).div_ceil(8))?;
            match read {
                Wanted::These(places) => {
                    values.extend(places.iter().map(|&place| unpack_one(bytes, place as usize, min, bits)));
                }
                _ => unpack(bytes, count, min, bits, values),
            }
        }
        PLANES => {
            let bits = u32::from(sections.head.u8()?);
            if bits == 0 || bits > 64 {
                return Err(BodyError::Corrupt("planes have an impossible width"));
            }
            values.resize(count, min);
            for shift in (0..bits).step_by(8) {
                let Some(plane) = sections.plane(stored, skip)? else { continue };
                match read {
                    Wanted::These(places) => {
                        for (value, &place) in values.iter_mut().zip(places) {
                            *value = value.wrapping_add(u64::from(plane[place as usize]) << shift);
                        }
                    }
                    _ => {
                        for (value, &byte) in values.iter_mut().zip(plane) {
                            *value = value.wrapping_add(u64::from(byte) << shift);
                        }
                    }
                }
            }
        }
        _ => return Err(BodyError::Corrupt("numbers have an unknown form")),
    }
    if delta && !skip {
        let mut last = first;
        values.insert(0, first);
        for value in &mut values[1..] {
            last = last.wrapping_add(unzigzag(*value) as u64);
            *value = last;
        }
        if let Wanted::These(places) = wanted {
            for (i, &place) in places.iter().enumerate() {
                values[i] = values[place as usize];
            }
            values.truncate(places.len());
        }
    }
    Ok(())
}

/// Appends the low `bits` of each `value - min`, lowest first.
pub(crate) fn pack(values: &[u64], min: u64, bits: u32, out: &mut Vec<u8>) {
    let (mut buffer, mut filled) = (0u128, 0u32);
    for value in values {
        buffer |= u128::from(value.wrapping_sub(min)) << filled;
        filled += bits;
        if filled >= 64 {
            out.extend_from_slice(&(buffer as u64).to_le_bytes());
            buffer >>= 64;
            filled -= 64;
        }
    }
    let rest = filled.div_ceil(8) as usize;
    out.extend_from_slice(&(buffer as u64).to_le_bytes()[..rest]);
}

/// Inverse of [`pack`]; `bytes` holds exactly the packed numbers.
pub(crate) fn unpack(bytes: &[u8], n: usize, min: u64, bits: u32, values: &mut Vec<u64>) {
    values.reserve(n);
    let mask = if bits == 64 { u64::MAX } else { (1 << bits) - 1 };
    let (mut buffer, mut filled) = (0u128, 0u32);
    let mut words = bytes.chunks(8);
    for _ in 0..n {
        if filled < bits {
            let mut word = [0; 8];
            if let Some(chunk) = words.next() {
                word[..chunk.len()].copy_from_slice(chunk);
            }
            buffer |= u128::from(u64::from_le_bytes(word)) << filled;
            filled += 64;
        }
        values.push(min.wrapping_add(buffer as u64 & mask));
        buffer >>= bits;
        filled -= bits;
    }
}

/// Number `i` of what [`pack`] wrote.
fn unpack_one(bytes: &[u8], i: usize, min: u64, bits: u32) -> u64 {
    let at = i * bits as usize;
    let rest = &bytes[at / 8..];
    let mut word = [0; 16];
    let len = rest.len().min(9);
    word[..len].copy_from_slice(&rest[..len]);
    let value = (u128::from_le_bytes(word) >> (at % 8)) as u64;
    min.wrapping_add(value & (u64::MAX >> (64 - bits)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(values: &[u64]) {
        let mut out = Writer::new(1);
        encode(&mut values.to_vec(), &mut IntScratch::default(), &mut out);
        let mut bytes = Vec::new();
        out.finish(0, &mut bytes);
        let mut buffers = crate::sections::Buffers::default();
        let mut sections = Sections::open(&bytes, &mut buffers).unwrap();
        let mut back = Vec::new();
        decode(values.len(), Wanted::All, &mut sections, &mut back).unwrap();
        assert_eq!(back, values);
        for step in [1, 2, 7, values.len()] {
            let places: Vec<u32> = (0..values.len() as u32).rev().step_by(step).collect();
            let places: Vec<u32> = places.into_iter().rev().collect();
            let mut sections = Sections::open(&bytes, &mut buffers).unwrap();
            decode(values.len(), Wanted::These(&places), &mut sections, &mut back).unwrap();
            assert!(sections.all_read(), "reading some must move as far as reading all");
            assert_eq!(back, places.iter().map(|&place| values[place as usize]).collect::<Vec<_>>());
        }
        let mut sections = Sections::open(&bytes, &mut buffers).unwrap();
        decode(values.len(), Wanted::Nothing, &mut sections, &mut back).unwrap();
        assert!(sections.all_read(), "skipping must move as far as reading");
    }

    #[test]
    fn numbers_of_any_distribution_come_back() {
        let mut seed = 7u64;
        let mut random = move || {
            seed = seed.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(0x1405_7b7e_f767_814f);
            seed >> 1 ^ seed << 33
        };
        for n in [1usize, 2, 3, 100, 1000, 5000] {
            check(&vec![42; n]);
            check(&(0..n as u64).map(|i| i * 3 + 5).collect::<Vec<_>>());
            for bits in [1, 7, 8, 9, 16, 31, 33, 63, 64] {
                check(&(0..n).map(|_| random() >> (64 - bits)).collect::<Vec<_>>());
                check(&(0..n).map(|_| (random() >> (64 - bits)) & random() & random()).collect::<Vec<_>>());
            }
            let mut sum = 0u64;
            check(
                &(0..n)
                    .map(|_| {
                        sum += random() & 0xff;
                        sum
                    })
                    .collect::<Vec<_>>(),
            );
            check(&(0..n).map(|i| if i % 2 == 0 { 0 } else { u64::MAX }).collect::<Vec<_>>());
        }
    }
}
