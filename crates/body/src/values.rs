//! The values of a block: spans of one text that is padded, so that short values are compared, hashed
//! and parsed as whole words instead of byte by byte.

/// Start and end of a value in the text.
pub(crate) type Span = (u32, u32);

/// Bytes past the end of the text that may be read; their content means nothing.
pub(crate) const PADDING: usize = 64;
/// Decimal digits that always fit into 64 bits.
pub(crate) const MAX_DIGITS: usize = 19;

/// Lines end to end, with [`PADDING`] behind them.
#[derive(Default)]
pub(crate) struct Text {
    bytes: Vec<u8>,
    len: usize,
}

impl Text {
    pub(crate) fn clear(&mut self) {
        self.len = 0;
    }

    /// Bytes of the text.
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// Appends a line; where it lies.
    pub(crate) fn push(&mut self, line: &[u8]) -> Span {
        let (start, end) = (self.len, self.len + line.len());
        if self.bytes.len() < end + PADDING {
            self.bytes.resize((end + PADDING).next_power_of_two(), 0);
        }
        self.bytes[start..end].copy_from_slice(line);
        self.len = end;
        (start as u32, end as u32)
    }

    /// The text and what lies behind it, at least [`PADDING`] bytes.
    pub(crate) fn padded(&self) -> &[u8] {
        &self.bytes
    }
}

#[inline]
pub(crate) fn slice(text: &[u8], span: Span) -> &[u8] {
    &text[span.0 as usize..span.1 as usize]
}

/// Eight bytes from `at` on, the first one lowest.
#[inline]
pub(crate) fn word(text: &[u8], at: usize) -> u64 {
    let mut word = [0; 8];
    word.copy_from_slice(&text[at..at + 8]);
    u64::from_le_bytes(word)
}

/// The first bytes of a value, and its last eight when it has more than eight.
#[inline]
fn words(text: &[u8], (start, end): Span) -> (u64, u64) {
    let first = word(text, start as usize);
    match end - start {
        0 => (0, 0),
        len @ 1..8 => (first & (u64::MAX >> (64 - len * 8)), 0),
        8 => (first, 0),
        _ => (first, word(text, end as usize - 8)),
    }
}

/// Whether two values are the same bytes.
#[allow(clippy::inline_always)] // asked for every value; a call would cost more than the answer
#[inline(always)]
pub(crate) fn equal(text: &[u8], a: Span, b: Span) -> bool {
    let len = a.1 - a.0;
    if len != b.1 - b.0 {
        return false;
    }
    let differ = word(text, a.0 as usize) ^ word(text, b.0 as usize);
    if len <= 8 {
        return len == 0 || differ << (64 - len * 8) == 0;
    }
    differ == 0
        && word(text, a.1 as usize - 8) == word(text, b.1 as usize - 8)
        && (len <= 16 || slice(text, a) == slice(text, b))
}

/// Mixes two words into one: the halves of their product.
#[inline]
fn fold(left: u64, right: u64) -> u64 {
    let product = u128::from(left ^ 0x9e37_79b9_7f4a_7c15) * u128::from(right ^ 0xbf58_476d_1ce4_e5b9);
    product as u64 ^ (product >> 64) as u64
}

/// A hash of the value for tables in memory.
#[inline]
pub(crate) fn hash(text: &[u8], span: Span) -> u64 {
    const LAST: u64 = 0x94d0_49bb_1331_11eb;
    let mut state = u64::from(span.1 - span.0);
    if state <= 16 {
        let (first, last) = words(text, span);
        return fold(first ^ state, last.rotate_left(32) ^ state).wrapping_mul(LAST);
    }
    let (mut at, last) = (span.0 as usize, span.1 as usize - 16);
    while at < last {
        state = fold(word(text, at) ^ state, word(text, at + 8).rotate_left(32) ^ state);
        at += 16;
    }
    fold(word(text, last) ^ state, word(text, last + 8).rotate_left(32) ^ state).wrapping_mul(LAST)
}

/// Bytes of a chunk of [`hash_chunks`].
pub(crate) const CHUNK: usize = 32;

/// A hash of `len` bytes for tables in memory; the last chunk is filled up with zeros.
#[inline]
pub(crate) fn hash_chunks(chunks: &[[u8; CHUNK]], len: usize) -> u64 {
    // Products that do not wait for each other; the rotation makes their order count.
    let (mut left, mut right) = (len as u64, 0u64);
    for chunk in chunks {
        left = left.rotate_left(23).wrapping_add(fold(word(chunk, 0), word(chunk, 8)));
        right = right.rotate_left(29).wrapping_add(fold(word(chunk, 16), word(chunk, 24)));
    }
    fold(left, right)
}

/// The highest bit of the bytes of a word that are no digits.
#[inline]
pub(crate) fn not_digits(word: u64) -> u64 {
    const LOW: u64 = 0x7f7f_7f7f_7f7f_7f7f;
    let digits = word ^ 0x3030_3030_3030_3030;
    // Without its highest bit, no byte's sum carries into the next.
    ((digits & LOW).wrapping_add(0x7676_7676_7676_7676) | digits) & !LOW
}

/// How many digits stand in the text from `at` on; at most 8 are counted.
#[inline]
pub(crate) fn digits(text: &[u8], at: usize) -> u32 {
    not_digits(word(text, at)).trailing_zeros() / 8
}

/// The number of 1 to 8 digits, given as their bytes with the first one lowest.
#[inline]
fn eight_digits(bytes: u64, len: u32) -> Option<u64> {
    // As if zeros stood before: the lowest bytes are the first digits.
    let digits = (bytes ^ 0x3030_3030_3030_3030) << (64 - len * 8);
    if (digits.wrapping_add(0x7676_7676_7676_7676) | digits) & 0x8080_8080_8080_8080 != 0 {
        return None;
    }
    let pairs = digits.wrapping_mul(10).wrapping_add(digits >> 8);
    let high = (pairs & 0xff_0000_00ff).wrapping_mul(0x000f_4240_0000_0064);
    let low = (pairs >> 16 & 0xff_0000_00ff).wrapping_mul(0x2710_0000_0001);
    Some(high.wrapping_add(low) >> 32)
}

/// The number of 1 to [`MAX_DIGITS`] decimal digits.
#[allow(clippy::inline_always)] // most numbers are short
#[inline(always)]
pub(crate) fn number(text: &[u8], span: Span) -> Option<u64> {
    match span.1 - span.0 {
        len @ 1..=8 => eight_digits(word(text, span.0 as usize), len),
        len => long_number(text, span, len),
    }
}

fn long_number(text: &[u8], (start, end): Span, len: u32) -> Option<u64> {
    match len {
        9..=16 => {
            let high = eight_digits(word(text, start as usize), len - 8)?;
            Some(high * 100_000_000 + eight_digits(word(text, end as usize - 8), 8)?)
        }
        17..=19 => {
            let high = eight_digits(word(text, start as usize), len - 16)?;
            let middle = eight_digits(word(text, end as usize - 16), 8)?;
            let low = eight_digits(word(text, end as usize - 8), 8)?;
            Some((high * 100_000_000 + middle) * 100_000_000 + low)
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digits_of_any_length_are_read_and_nothing_else() {
        let digits = "9876543210123456789";
        for len in 1..=MAX_DIGITS {
            for start in 0..=digits.len() - len {
                let value = &digits[start..start + len];
                let mut text = Text::default();
                text.push(b"77");
                let span = text.push(value.as_bytes());
                assert_eq!(number(text.padded(), span), Some(value.parse().unwrap()), "{value}");
                for at in 0..len {
                    for wrong in [b'/', b':', 0, b'a', 0x80, 0xb0, 0xff] {
                        let mut value = value.as_bytes().to_vec();
                        value[at] = wrong;
                        let span = text.push(&value);
                        assert_eq!(number(text.padded(), span), None, "{value:?}");
                    }
                }
            }
        }
        let mut text = Text::default();
        let (none, many) = (text.push(b""), text.push(&[b'1'; 20]));
        assert_eq!((number(text.padded(), none), number(text.padded(), many)), (None, None));
    }

    #[test]
    fn bytes_that_are_no_digits_are_marked_each_for_itself() {
        for byte in 0..=255u8 {
            for at in 0..8 {
                for other in [b'0', b'9', b'a', 0xff] {
                    let mut bytes = [other; 8];
                    bytes[at] = byte;
                    let expected = bytes.map(|byte| if byte.is_ascii_digit() { 0 } else { 0x80 });
                    let found = not_digits(u64::from_le_bytes(bytes)).to_le_bytes();
                    assert_eq!(found, expected, "{bytes:?}");
                }
            }
        }
    }

    #[test]
    fn values_are_equal_exactly_when_their_bytes_are() {
        for len in 0..40usize {
            let value: Vec<u8> = (0..len as u8).collect();
            let mut text = Text::default();
            let first = text.push(&value);
            text.push(b"between");
            let second = text.push(&value);
            assert!(equal(text.padded(), first, second));
            assert_eq!(hash(text.padded(), first), hash(text.padded(), second));
            for at in 0..len {
                let mut other = value.clone();
                other[at] ^= 1;
                let other = text.push(&other);
                assert!(!equal(text.padded(), first, other), "byte {at} of {len}");
                assert_ne!(hash(text.padded(), first), hash(text.padded(), other));
            }
            let longer = text.push(&[value.as_slice(), &[0]].concat());
            assert!(!equal(text.padded(), first, longer));
            assert_ne!(hash(text.padded(), first), hash(text.padded(), longer));
        }
    }
}
