//! Values as whole numbers: exact decimals, or the bits of the float in an order that differences respect.

/// Whole numbers up to this size turn into floats, and back, by adding [`MAGIC`].
const EXACT: f64 = (1u64 << 51) as f64;
/// 2^52 + 2^51: a float of this size has no room for fractions, so its low bits are the number.
const MAGIC: f64 = (3u64 << 51) as f64;
/// Decimals more than this say no more than the bits do.
pub(crate) const MAX_DIGITS: usize = 17;
/// Values looked at to guess how many decimals a series has.
const SAMPLE: usize = 24;
/// Values looked at to guess whether a series has few distinct ones, and how many of them may be distinct.
const FEW_SAMPLE: (usize, usize) = (64, 52);

/// Powers of ten that a float holds exactly.
pub(crate) const POWERS: [f64; MAX_DIGITS + 1] =
    [1.0, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9, 1e10, 1e11, 1e12, 1e13, 1e14, 1e15, 1e16, 1e17];

/// How floats became whole numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Mapping {
    /// They are whole numbers (timestamps).
    Whole,
    /// number / 10^digits, the number within ±2^51.
    Decimal { digits: u8 },
    /// Whole floats of any size.
    Large,
    /// [`ordered`] bits.
    Bits,
    /// Positions in a list of the distinct values, which the column has in place of exceptions.
    Few,
}

/// The number nearest to `value * power`, and whether dividing it gives `value` back bit for bit.
#[inline]
fn to_decimal(value: f64, power: f64) -> (i64, bool) {
    let scaled = value * power;
    let moved = scaled + MAGIC;
    let whole = moved - MAGIC;
    let exact = (whole / power).to_bits() == value.to_bits() && scaled.abs() < EXACT;
    ((moved.to_bits().wrapping_sub(MAGIC.to_bits())) as i64, exact)
}

/// Bits of a float such that greater floats have greater numbers.
#[inline]
fn ordered(value: f64) -> i64 {
    let bits = value.to_bits() as i64;
    bits ^ ((bits >> 63) as u64 >> 1) as i64
}

#[inline]
fn from_ordered(number: i64) -> f64 {
    f64::from_bits((number ^ ((number >> 63) as u64 >> 1) as i64) as u64)
}

/// Whether a value may be a decimal; others are exceptions at any number of decimals.
fn is_plain(value: f64) -> bool {
    value.is_finite() && value.to_bits() != (-0.0f64).to_bits()
}

/// Fewest decimals from `digits` up to `most` with which `value` is exact.
fn digits_of(value: f64, digits: usize, most: usize) -> Option<usize> {
    (digits..=most).find(|&digits| to_decimal(value, POWERS[digits]).1)
}

/// Turns values into numbers. `exceptions` receives the positions whose number does not give the value back;
/// they hold their neighbour's number.
pub(crate) fn to_numbers(values: &[f64], numbers: &mut Vec<i64>, exceptions: &mut Vec<u32>) -> Mapping {
    exceptions.clear();
    // More decimals would be too many for the greatest value: one long fraction must not cost all others theirs.
    let plain = values.iter().copied().filter(|value| is_plain(*value));
    let greatest = plain.fold(0.0, |greatest, value| f64::max(greatest, value.abs()));
    let most = POWERS.iter().rposition(|power| greatest * power < EXACT).unwrap_or(0);
    let (mut needs, mut failed) = ([0u8; SAMPLE], 0);
    let mut seen = 0;
    let step = values.len().div_ceil(SAMPLE).max(1);
    for value in values.iter().step_by(step).filter(|value| is_plain(**value)) {
        match digits_of(*value, 0, most) {
            Some(digits) => needs[seen] = digits as u8,
            None => failed += 1,
        }
        seen += 1;
        if failed * 8 > SAMPLE {
            break;
        }
    }
    // One value in eight may be odd, needing more decimals than the others or not being a decimal.
    if failed * 8 <= seen {
        needs[..seen].sort_unstable();
        let mut digits = usize::from(needs[(seen * 7 / 8).min(seen.saturating_sub(1))]);
        let mut tries = 0;
        loop {
            numbers.clear();
            let power = POWERS[digits];
            let mut odd = 0usize;
            numbers.extend(values.iter().map(|&value| {
                let (number, exact) = to_decimal(value, power);
                odd += usize::from(!exact);
                number
            }));
            if odd == 0 {
                return Mapping::Decimal { digits: digits as u8 };
            }
            exceptions.clear();
            let inexact = |&at: &usize| !to_decimal(values[at], power).1;
            exceptions.extend((0..values.len()).filter(inexact).map(|at| at as u32));
            let plain = || exceptions.iter().map(|&at| values[at as usize]).filter(|value| is_plain(*value));
            let longer = plain().filter_map(|value| digits_of(value, digits + 1, most)).max();
            let odd = plain().count();
            // A further digit costs 3.3 bits per number, an exception about 11 bytes.
            if let Some(longer) = longer
                && (odd * 27 > (longer - digits) * values.len() || odd * 16 > values.len())
                && tries < 4
            {
                (digits, tries) = (longer, tries + 1);
                continue;
            }
            if odd * 16 <= values.len() {
                fill_exceptions(numbers, exceptions);
                return Mapping::Decimal { digits: digits as u8 };
            }
            break;
        }
    }
    exceptions.clear();
    numbers.clear();
    numbers.extend(values.iter().map(|&value| value as i64));
    let large = |(&number, &value): (&i64, &f64)| {
        (number as f64).to_bits() == value.to_bits() && number.unsigned_abs() < 1 << 62
    };
    if numbers.iter().zip(values).all(large) {
        return Mapping::Large;
    }
    numbers.clear();
    numbers.extend(values.iter().map(|&value| ordered(value)));
    Mapping::Bits
}

/// The distinct values, as ordered bits, when it pays to list them. `numbers` are then positions in the list.
pub(crate) fn few_values(values: &[f64], numbers: &mut Vec<i64>) -> Option<Vec<i64>> {
    let (size, distinct) = FEW_SAMPLE;
    let step = values.len().div_ceil(size).max(1);
    let mut few: Vec<i64> = values.iter().step_by(step).map(|&value| ordered(value)).collect();
    few.sort_unstable();
    let seen = few.len();
    few.dedup();
    if seen < 16 || few.len() * size > distinct * seen {
        return None;
    }
    few.clear();
    few.extend(values.iter().map(|&value| ordered(value)));
    few.sort_unstable();
    few.dedup();
    if few.len() * 3 > values.len() {
        return None;
    }
    numbers.clear();
    let position = |value: &f64| few.partition_point(|few| *few < ordered(*value)) as i64;
    numbers.extend(values.iter().map(position));
    Some(few)
}

/// Appends values whose numbers are positions in `few`; false when one is not.
pub(crate) fn pick_values(few: &[i64], numbers: &[i64], values: &mut Vec<f64>) -> bool {
    for &number in numbers {
        let Some(&value) = usize::try_from(number).ok().and_then(|at| few.get(at)) else { return false };
        values.push(from_ordered(value));
    }
    true
}

/// Exceptions repeat the number before them (the first ones the first good number), so that they cost
/// nothing.
fn fill_exceptions(numbers: &mut [i64], exceptions: &[u32]) {
    let mut odd = exceptions.iter().map(|&at| at as usize).peekable();
    let mut good = 0;
    while odd.next_if_eq(&good).is_some() {
        good += 1;
    }
    let mut last = numbers.get(good).copied().unwrap_or(0);
    for &at in exceptions {
        let at = at as usize;
        if at > good {
            last = numbers[at - 1];
        }
        numbers[at] = last;
    }
}

/// Turns numbers back into values (appended).
pub(crate) fn to_values(mapping: Mapping, numbers: &[i64], values: &mut Vec<f64>) {
    let float = |number: i64| f64::from_bits((number as u64).wrapping_add(MAGIC.to_bits())) - MAGIC;
    match mapping {
        Mapping::Decimal { digits: 0 } => values.extend(numbers.iter().map(|&number| float(number))),
        Mapping::Decimal { digits } => {
            let power = POWERS[usize::from(digits).min(MAX_DIGITS)];
            values.extend(numbers.iter().map(|&number| float(number) / power));
        }
        Mapping::Large | Mapping::Whole | Mapping::Few => {
            values.extend(numbers.iter().map(|&number| number as f64));
        }
        Mapping::Bits => values.extend(numbers.iter().map(|&number| from_ordered(number))),
    }
}

/// Greatest number that divides the differences of all neighbours; 1 when there is no better one.
pub(crate) fn common_divisor(numbers: &[i64]) -> u64 {
    let mut divisor = 0u64;
    for two in numbers.windows(2) {
        let difference = two[1].wrapping_sub(two[0]).unsigned_abs();
        if divisor == 0 {
            divisor = difference;
        } else if difference != 0 && (difference < divisor || !difference.is_multiple_of(divisor)) {
            divisor = greatest(divisor, difference);
        }
        if divisor == 1 {
            return 1;
        }
    }
    // Where differences may wrap, only a power of two divides their sums as well.
    if numbers.iter().any(|number| number.unsigned_abs() >= 1 << 62) {
        divisor = 1 << divisor.trailing_zeros().min(62);
    }
    divisor.max(1)
}

fn greatest(mut a: u64, mut b: u64) -> u64 {
    while b != 0 {
        (a, b) = (b, a % b);
    }
    a
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ordered_bits_are_ordered_and_come_back() {
        let values =
            [f64::NEG_INFINITY, -1e300, -1.0, -f64::MIN_POSITIVE, -0.0, 0.0, 1e-9, 1.0, f64::INFINITY];
        assert!(values.windows(2).all(|two| ordered(two[0]) < ordered(two[1])));
        for bits in [0, 1, u64::MAX, 1 << 63, 0x7ff0_0000_0000_0002, 0xfff8_dead_beef_0001] {
            assert_eq!(from_ordered(ordered(f64::from_bits(bits))).to_bits(), bits);
        }
    }

    #[test]
    fn decimals_are_recognised() {
        const OUTLIER: [f64; 20] = {
            let mut values = [594.0; 20];
            values[7] = 0.133_333_333_333_333_33;
            values
        };
        let cases: [(&[f64], Mapping); 7] = [
            (&[1.0, 2.0, 1e15], Mapping::Decimal { digits: 0 }),
            (&[0.1, 0.25, 17.0], Mapping::Decimal { digits: 2 }),
            (&[36.6, f64::NAN, 37.1, f64::INFINITY, -0.0], Mapping::Decimal { digits: 1 }),
            (&[1.7e18, 1.7e18 + 256.0], Mapping::Large),
            (&OUTLIER, Mapping::Decimal { digits: 0 }),
            (&[std::f64::consts::PI * 1e5, std::f64::consts::E * 1e9], Mapping::Bits),
            (&[f64::NAN, f64::NAN], Mapping::Decimal { digits: 0 }),
        ];
        for (values, mapping) in cases {
            let (mut numbers, mut exceptions) = (Vec::new(), Vec::new());
            assert_eq!(to_numbers(values, &mut numbers, &mut exceptions), mapping, "{values:?}");
            let mut back = Vec::new();
            to_values(mapping, &numbers, &mut back);
            for (at, (a, b)) in values.iter().zip(&back).enumerate() {
                assert!(a.to_bits() == b.to_bits() || exceptions.contains(&(at as u32)), "{a} {b}");
            }
        }
    }
}
