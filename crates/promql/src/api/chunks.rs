//! Samples in Prometheus' own chunks: XOR chunks of floats, chunks of float histograms
//! (<https://github.com/prometheus/prometheus/blob/main/tsdb/docs/format/chunks.md>).

use crate::{
    CUSTOM_BUCKETS,
    histogram::{Buckets, Histogram, ResetHint},
    source::is_stale,
};

/// Most samples of a chunk, as Prometheus cuts them.
const MAX_SAMPLES: usize = 120;
/// A chunk of histograms with so many bytes takes no further one.
const HISTOGRAM_BYTES: usize = 64 << 10;

/// An encoded chunk.
pub(super) struct Chunk {
    /// Prometheus' number of the encoding.
    pub encoding: u64,
    /// First and last time, milliseconds.
    pub times: (i64, i64),
    pub data: Vec<u8>,
}

/// Bits, highest first.
#[derive(Default)]
struct Bits {
    bytes: Vec<u8>,
    /// Bits of the last byte that are still free.
    free: u32,
}

impl Bits {
    /// Appends the low `count` (at most 64) bits.
    fn put(&mut self, value: u64, mut count: u32) {
        while count > 0 {
            if self.free == 0 {
                self.bytes.push(0);
                self.free = 8;
            }
            let taken = count.min(self.free);
            let part = (value >> (count - taken)) as u8 & (0xff >> (8 - taken));
            (self.free, count) = (self.free - taken, count - taken);
            if let Some(last) = self.bytes.last_mut() {
                *last |= part << self.free;
            }
        }
    }

    fn put_float(&mut self, value: f64) {
        self.put(value.to_bits(), 64);
    }

    /// Protobuf's varint.
    fn put_varint(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.put(value | 0x80, 8);
            value >>= 7;
        }
        self.put(value, 8);
    }

    /// A number of any size; small ones take few bits.
    fn put_varbit(&mut self, value: i64) {
        let fitting = VARBITS.iter().find(|(_, bits)| fits(value, *bits));
        self.put_bucket(value as u64, value == 0, fitting.copied());
    }

    fn put_varbit_unsigned(&mut self, value: u64) {
        let fitting = VARBITS.iter().find(|(_, bits)| value >> bits == 0);
        self.put_bucket(value, value == 0, fitting.copied());
    }

    fn put_bucket(&mut self, value: u64, zero: bool, fitting: Option<(u32, u32)>) {
        if zero {
            return self.put(0, 1);
        }
        let (ones, bits) = fitting.unwrap_or((8, 64));
        // So many ones, then a zero unless there are eight.
        if ones == 8 {
            self.put(0xff, 8);
        } else {
            self.put((1 << (ones + 1)) - 2, ones + 1);
        }
        self.put(value, bits);
    }
}

/// Leading ones and bits of the value.
const VARBITS: [(u32, u32); 7] = [(1, 3), (2, 6), (3, 9), (4, 12), (5, 18), (6, 25), (7, 56)];

/// Whether so many bits hold the number; they hold one more above zero than below.
fn fits(value: i64, bits: u32) -> bool {
    let half = 1i64 << (bits - 1);
    -half < value && value <= half
}

/// A float as what differs from the one before.
struct Xor {
    last: u64,
    /// Zeros around what differs, of which the reader knows.
    window: Option<(u32, u32)>,
}

impl Xor {
    fn after(first: f64) -> Self {
        Self { last: first.to_bits(), window: None }
    }

    fn put(&mut self, value: f64, bits: &mut Bits) {
        let differing = value.to_bits() ^ self.last;
        self.last = value.to_bits();
        if differing == 0 {
            return bits.put(0, 1);
        }
        // There are five bits for the number of zeros.
        let (leading, trailing) = (differing.leading_zeros().min(31), differing.trailing_zeros());
        if let Some((known_leading, known_trailing)) = self.window
            && leading >= known_leading
            && trailing >= known_trailing
        {
            bits.put(0b10, 2);
            return bits.put(differing >> known_trailing, 64 - known_leading - known_trailing);
        }
        self.window = Some((leading, trailing));
        let length = 64 - leading - trailing;
        bits.put(0b11, 2);
        bits.put(u64::from(leading), 5);
        // 64 becomes 0.
        bits.put(u64::from(length), 6);
        bits.put(differing >> trailing, length);
    }
}

/// A chunk of the first floats, and how many there are in it; times ascend.
pub(super) fn floats(times: &[i64], values: &[f64]) -> (Chunk, usize) {
    let count = times.len().min(values.len()).min(MAX_SAMPLES);
    let mut bits = Bits { bytes: (count as u16).to_be_bytes().to_vec(), free: 0 };
    let mut xor = Xor::after(0.0);
    let mut distance = 0i64;
    for at in 0..count {
        let (time, value) = (times[at], values[at]);
        if at == 0 {
            bits.put_varint((time << 1 ^ time >> 63) as u64);
            bits.put_float(value);
            xor = Xor::after(value);
            continue;
        }
        let next = time.wrapping_sub(times[at - 1]);
        if at == 1 {
            bits.put_varint(next as u64);
        } else {
            let change = next.wrapping_sub(distance);
            match change {
                0 => bits.put(0, 1),
                change if fits(change, 14) => {
                    bits.put(0b10, 2);
                    bits.put(change as u64, 14);
                }
                change if fits(change, 17) => {
                    bits.put(0b110, 3);
                    bits.put(change as u64, 17);
                }
                change if fits(change, 20) => {
                    bits.put(0b1110, 4);
                    bits.put(change as u64, 20);
                }
                change => {
                    bits.put(0b1111, 4);
                    bits.put(change as u64, 64);
                }
            }
        }
        distance = next;
        xor.put(value, &mut bits);
    }
    (Chunk { encoding: 1, times: (times[0], times[count - 1]), data: bits.bytes }, count)
}

/// A chunk of the first histograms that may stand in one, and how many they are; times ascend.
///
/// To a reader no histogram of a chunk but the first is a reset, unless all are gauges.
pub(super) fn histograms(times: &[i64], histograms: &[impl AsRef<Histogram>]) -> (Chunk, usize) {
    let first = histograms[0].as_ref();
    let header: u8 = match first.reset_hint {
        ResetHint::Unknown => 0,
        ResetHint::NotReset => 0x40,
        ResetHint::Reset => 0x80,
        ResetHint::Gauge => 0xc0,
    };
    let mut bits = Bits { bytes: vec![0, 0, header], free: 0 };
    // Of one that says that a series ended nothing counts but that.
    let ended = is_stale(first.sum).then(|| Histogram { sum: first.sum, ..Histogram::default() });
    let first = ended.as_ref().unwrap_or(first);
    put_layout(&mut bits, first);
    bits.put_varbit(times[0]);
    numbers(first).for_each(|number| bits.put_float(number));
    let mut fields: Vec<Xor> = numbers(first).map(Xor::after).collect();
    let (mut count, mut distance, mut last) = (1, 0i64, first);
    for (at, next) in histograms.iter().map(AsRef::as_ref).enumerate().take(MAX_SAMPLES).skip(1) {
        if ended.is_some() || bits.bytes.len() >= HISTOGRAM_BYTES || !may_follow(last, next) {
            break;
        }
        let between = times[at].wrapping_sub(times[at - 1]);
        bits.put_varbit(between.wrapping_sub(distance));
        distance = between;
        fields.iter_mut().zip(numbers(next)).for_each(|(field, number)| field.put(number, &mut bits));
        last = next;
        count += 1;
    }
    bits.bytes[..2].copy_from_slice(&(count as u16).to_be_bytes());
    (Chunk { encoding: 3, times: (times[0], times[count - 1]), data: bits.bytes }, count)
}

/// Whether a histogram can stand behind another in a chunk.
fn may_follow(last: &Histogram, next: &Histogram) -> bool {
    let same_layout = last.schema == next.schema
        && last.zero_threshold.to_bits() == next.zero_threshold.to_bits()
        && last.custom_bounds == next.custom_bounds
        && last.positive.index == next.positive.index
        && last.negative.index == next.negative.index;
    let gauges = [last, next].map(|histogram| histogram.reset_hint == ResetHint::Gauge);
    let continues = match next.reset_hint {
        ResetHint::NotReset | ResetHint::Gauge => true,
        ResetHint::Reset => false,
        ResetHint::Unknown => !next.is_reset_after(last),
    };
    same_layout && gauges[0] == gauges[1] && continues && !is_stale(next.sum)
}

/// All that changes from one histogram to the next.
fn numbers(histogram: &Histogram) -> impl Iterator<Item = f64> {
    let buckets = histogram.positive.count.iter().chain(&histogram.negative.count);
    [histogram.count, histogram.zero_count, histogram.sum].into_iter().chain(buckets.copied())
}

fn put_layout(bits: &mut Bits, histogram: &Histogram) {
    put_zero_threshold(bits, histogram.zero_threshold);
    bits.put_varbit(i64::from(histogram.schema));
    put_spans(bits, &histogram.positive);
    put_spans(bits, &histogram.negative);
    if histogram.schema == CUSTOM_BUCKETS {
        bits.put_varbit_unsigned(histogram.custom_bounds.len() as u64);
        histogram.custom_bounds.iter().for_each(|bound| put_bound(bits, *bound));
    }
}

/// A byte for zero and most powers of two.
fn put_zero_threshold(bits: &mut Bits, threshold: f64) {
    let raw = threshold.to_bits();
    let exponent = (raw >> 52) as i64 - 1022;
    let power = raw << 12 == 0 && (-242..=11).contains(&exponent);
    match threshold {
        0.0 => bits.put(0, 8),
        _ if power => bits.put((exponent + 243) as u64, 8),
        threshold => {
            bits.put(255, 8);
            bits.put_float(threshold);
        }
    }
}

fn put_spans(bits: &mut Bits, buckets: &Buckets) {
    let spans = buckets.spans();
    bits.put_varbit_unsigned(spans.len() as u64);
    for (offset, length) in spans {
        bits.put_varbit_unsigned(u64::from(length));
        bits.put_varbit(i64::from(offset));
    }
}

/// Thousandths up to some size take few bits.
fn put_bound(bits: &mut Bits, bound: f64) {
    let thousandths = (bound * 1000.0).round();
    if (0.0..=33_554_430.0).contains(&(bound * 1000.0)) && thousandths / 1000.0 == bound {
        bits.put_varbit_unsigned(thousandths as u64 + 1);
    } else {
        bits.put(0, 1);
        bits.put_float(bound);
    }
}
