//! Finds the variables of a line: one bit per byte for its class, then a walk over the bits.
//!
//! A *token* is a maximal run of letters, digits, `_ - .`, bytes of non-ASCII text and NUL; `: , /`
//! between two digits belong to it too, so that `18:01:50,353` is one token. A token that holds a
//! digit or NUL is a variable; `. - _` at its end are cut off (`took 12.`).

use crate::values::Span;

/// Classes of the bytes of one line, reused.
pub(crate) struct Masks {
    #[cfg(target_arch = "x86_64")]
    /// Whether the machine has what [`fast`] asks for.
    fast: bool,
    token: Vec<u64>,
    digit: Vec<u64>,
    joint: Vec<u64>,
    /// Words in use; the vectors only grow.
    words: usize,
}

/// Whether the byte can be in a token wherever it stands.
pub(crate) fn is_token_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-' | b'.' | 0) || byte >= 0x80
}

impl Default for Masks {
    fn default() -> Self {
        Self {
            #[cfg(target_arch = "x86_64")]
            fast: fast::is_available(),
            token: Vec::new(),
            digit: Vec::new(),
            joint: Vec::new(),
            words: 0,
        }
    }
}

impl Masks {
    /// Appends the variables of the line, in order. The line is `text[base..base + len]`, and the text goes on
    /// for [`crate::values::PADDING`] bytes at least.
    pub(crate) fn variables(&mut self, text: &[u8], base: usize, len: usize, spans: &mut Vec<Span>) {
        let text = &text[base..];
        self.classify(text, len);
        let (token, digit) = (&self.token[..self.words], &self.digit[..self.words]);
        #[cfg(target_arch = "x86_64")]
        if self.fast {
            // SAFETY: `fast` says that this machine has the instructions.
            unsafe { fast::walk(text, base, token, digit, spans) };
            return;
        }
        walk(text, base, token, digit, spans);
    }

    fn classify(&mut self, text: &[u8], len: usize) {
        let words = len.div_ceil(64);
        if self.token.len() < words {
            self.token.resize(words, 0);
            self.digit.resize(words, 0);
            self.joint.resize(words, 0);
        }
        self.words = words;
        if words == 0 {
            return;
        }
        let chunks = &text.as_chunks::<64>().0[..words];
        let (token, digit, joint) =
            (&mut self.token[..words], &mut self.digit[..words], &mut self.joint[..words]);
        #[cfg(target_arch = "x86_64")]
        if self.fast {
            // SAFETY: `fast` says that this machine has the instructions.
            unsafe { fast::classify(chunks, token, digit, joint) };
        } else {
            classify_chunks(chunks, token, digit, joint);
        }
        #[cfg(not(target_arch = "x86_64"))]
        classify_chunks(chunks, token, digit, joint);
        let behind = words * 64 - len;
        let mask = u64::MAX >> behind;
        token[words - 1] &= mask;
        digit[words - 1] &= mask;
        joint[words - 1] &= mask;
        if joint.iter().all(|joint| *joint == 0) {
            return;
        }
        let mut carry = 0;
        for i in 0..words {
            let before = digit[i] << 1 | carry;
            let after = digit[i] >> 1 | digit.get(i + 1).map_or(0, |next| next << 63);
            token[i] |= joint[i] & before & after;
            carry = digit[i] >> 63;
        }
    }
}

/// Appends the token runs with a digit, moved by `base`.
#[allow(clippy::inline_always)] // it is compiled for several instruction sets
#[inline(always)]
fn walk(text: &[u8], base: usize, token: &[u64], digit: &[u64], spans: &mut Vec<Span>) {
    let mut floor = 0;
    for (i, (&tokens, &digits)) in token.iter().zip(digit).enumerate() {
        let first = i * 64;
        // Digits before `floor` belong to the variable before.
        let mut digits = match floor {
            0 => digits,
            _ if floor >= first + 64 => continue,
            _ => digits & (u64::MAX << floor.saturating_sub(first)),
        };
        while digits != 0 {
            let at = digits.trailing_zeros();
            let before = !tokens & ((1 << at) - 1);
            let after = !tokens & (u64::MAX << at);
            let start = match before {
                0 => start_in(token, i),
                _ => first + 64 - before.leading_zeros() as usize,
            };
            (floor, digits) = match after {
                0 => (end_in(token, i + 1), 0),
                _ => {
                    let end = after.trailing_zeros();
                    (first + end as usize, digits & (u64::MAX << end))
                }
            };
            let mut end = floor;
            while end > first + at as usize + 1 && matches!(text[end - 1], b'.' | b'-' | b'_') {
                end -= 1;
            }
            spans.push(((base + start) as u32, (base + end) as u32));
        }
    }
}

/// Start of the token run that reaches up to word `i`.
fn start_in(token: &[u64], i: usize) -> usize {
    let gap = token[..i].iter().rposition(|tokens| *tokens != u64::MAX);
    gap.map_or(0, |i| i * 64 + 64 - (!token[i]).leading_zeros() as usize)
}

/// Position after the token run that goes on in word `i`.
fn end_in(token: &[u64], i: usize) -> usize {
    let gap = token[i..].iter().position(|tokens| *tokens != u64::MAX);
    gap.map_or(token.len() * 64, |more| (i + more) * 64 + (!token[i + more]).trailing_zeros() as usize)
}

/// Bit sets of all chunks, for machines without [`fast`].
fn classify_chunks(chunks: &[[u8; 64]], token: &mut [u64], digit: &mut [u64], joint: &mut [u64]) {
    for (i, chunk) in chunks.iter().enumerate() {
        (token[i], digit[i], joint[i]) = classes(chunk);
    }
}

#[cfg(target_arch = "x86_64")]
mod fast {
    use crate::values::Span;
    use std::arch::x86_64::{
        __m256i, _mm256_and_si256, _mm256_cmpeq_epi8, _mm256_loadu_si256, _mm256_movemask_epi8,
        _mm256_set1_epi8, _mm256_setr_epi8, _mm256_setzero_si256, _mm256_shuffle_epi8, _mm256_srli_epi16,
    };

    // A byte is of the kinds that both its halves allow, and that is one at most.
    const DIGIT: i8 = 1;
    /// Letters of `0x41..=0x4f` and `0x61..=0x6f`.
    const LETTER: i8 = 2;
    /// Letters of `0x50..=0x5a` and `0x70..=0x7a`.
    const LATE_LETTER: i8 = 4;
    const UNDERSCORE: i8 = 8;
    const DASH_DOT: i8 = 16;
    const COLON: i8 = 32;
    const COMMA_SLASH: i8 = 64;
    const NUL: i8 = i8::MIN;
    const LETTERS: i8 = LETTER | LATE_LETTER;

    /// Whether the machine has the instructions that the others here are compiled to.
    pub(super) fn is_available() -> bool {
        is_x86_feature_detected!("avx2")
            && is_x86_feature_detected!("bmi1")
            && is_x86_feature_detected!("bmi2")
            && is_x86_feature_detected!("lzcnt")
    }

    /// [`super::walk`] with instructions that count bits.
    #[target_feature(enable = "avx2,bmi1,bmi2,lzcnt")]
    pub(super) fn walk(text: &[u8], base: usize, token: &[u64], digit: &[u64], spans: &mut Vec<Span>) {
        super::walk(text, base, token, digit, spans);
    }

    /// Bit sets (token, digit or NUL, joint) of the chunks: what [`super::classes_by_byte`] says.
    #[allow(clippy::cast_ptr_alignment)] // read by an unaligned load
    #[target_feature(enable = "avx2")]
    pub(super) fn classify(chunks: &[[u8; 64]], token: &mut [u64], digit: &mut [u64], joint: &mut [u64]) {
        const D: i8 = DIGIT | LETTERS;
        let low = _mm256_setr_epi8(
            NUL | DIGIT | LATE_LETTER,
            D,
            D,
            D,
            D,
            D,
            D,
            D,
            D,
            D,
            LETTERS | COLON,
            LETTER,
            LETTER | COMMA_SLASH,
            LETTER | DASH_DOT,
            LETTER | DASH_DOT,
            LETTER | UNDERSCORE | COMMA_SLASH,
            NUL | DIGIT | LATE_LETTER,
            D,
            D,
            D,
            D,
            D,
            D,
            D,
            D,
            D,
            LETTERS | COLON,
            LETTER,
            LETTER | COMMA_SLASH,
            LETTER | DASH_DOT,
            LETTER | DASH_DOT,
            LETTER | UNDERSCORE | COMMA_SLASH,
        );
        let high = _mm256_setr_epi8(
            NUL,
            0,
            DASH_DOT | COMMA_SLASH,
            DIGIT | COLON,
            LETTER,
            LATE_LETTER | UNDERSCORE,
            LETTER,
            LATE_LETTER,
            0,
            0,
            0,
            0,
            0,
            0,
            0,
            0,
            NUL,
            0,
            DASH_DOT | COMMA_SLASH,
            DIGIT | COLON,
            LETTER,
            LATE_LETTER | UNDERSCORE,
            LETTER,
            LATE_LETTER,
            0,
            0,
            0,
            0,
            0,
            0,
            0,
            0,
        );
        let has = |kinds: __m256i, wanted: i8| {
            let none =
                _mm256_cmpeq_epi8(_mm256_and_si256(kinds, _mm256_set1_epi8(wanted)), _mm256_setzero_si256());
            !_mm256_movemask_epi8(none) as u32
        };
        for (i, chunk) in chunks.iter().enumerate() {
            let mut sets = [0u64; 3];
            for half in 0..2 {
                // SAFETY: `half * 32 + 32 <= 64`, and the load is unaligned by its name.
                let x = unsafe { _mm256_loadu_si256(chunk.as_ptr().add(half * 32).cast::<__m256i>()) };
                let by_high = _mm256_shuffle_epi8(
                    high,
                    _mm256_and_si256(_mm256_srli_epi16(x, 4), _mm256_set1_epi8(15)),
                );
                let kinds = _mm256_and_si256(_mm256_shuffle_epi8(low, x), by_high);
                let tokens = has(kinds, !(COLON | COMMA_SLASH)) | _mm256_movemask_epi8(x) as u32;
                let digits = has(kinds, DIGIT | NUL);
                let joints = has(kinds, COLON | COMMA_SLASH);
                for (set, bits) in sets.iter_mut().zip([tokens, digits, joints]) {
                    *set |= u64::from(bits) << (half * 32);
                }
            }
            [token[i], digit[i], joint[i]] = sets;
        }
    }
}

/// Bit sets (token, digit or NUL, joint) of 64 bytes.
#[cfg(target_arch = "x86_64")]
#[allow(clippy::cast_ptr_alignment)] // read by an unaligned load
#[inline]
fn classes(chunk: &[u8; 64]) -> (u64, u64, u64) {
    use std::arch::x86_64::{
        __m128i, _mm_add_epi8, _mm_cmpeq_epi8, _mm_loadu_si128, _mm_min_epu8, _mm_movemask_epi8,
        _mm_or_si128, _mm_set1_epi8, _mm_setzero_si128,
    };
    // SSE2 is part of every x86-64, so the intrinsics themselves are always available.
    #[inline]
    fn at_most(x: __m128i, first: u8, last: u8) -> __m128i {
        // SAFETY: SSE2 is part of the x86-64 baseline.
        unsafe {
            let moved = _mm_add_epi8(x, _mm_set1_epi8(first.wrapping_neg() as i8));
            _mm_cmpeq_epi8(_mm_min_epu8(moved, _mm_set1_epi8((last - first) as i8)), moved)
        }
    }
    let (mut token, mut digit, mut joint) = (0u64, 0u64, 0u64);
    for quarter in 0..4 {
        // SAFETY: `quarter * 16 + 16 <= 64`, the load is unaligned by its name, and SSE2 is part of
        // the x86-64 baseline.
        let (t, d, j) = unsafe {
            let x = _mm_loadu_si128(chunk.as_ptr().add(quarter * 16).cast::<__m128i>());
            let eq = |byte: u8| _mm_cmpeq_epi8(x, _mm_set1_epi8(byte as i8));
            let digits = _mm_or_si128(at_most(x, b'0', b'9'), _mm_cmpeq_epi8(x, _mm_setzero_si128()));
            let letters = at_most(_mm_or_si128(x, _mm_set1_epi8(0x20)), b'a', b'z');
            let marks = _mm_or_si128(at_most(x, b'-', b'.'), eq(b'_'));
            // `movemask` takes the top bit, so the bytes >= 0x80 join by themselves.
            let tokens = _mm_or_si128(_mm_or_si128(digits, letters), _mm_or_si128(marks, x));
            let joints = _mm_or_si128(_mm_or_si128(eq(b':'), eq(b',')), eq(b'/'));
            (_mm_movemask_epi8(tokens), _mm_movemask_epi8(digits), _mm_movemask_epi8(joints))
        };
        token |= u64::from(t as u16) << (quarter * 16);
        digit |= u64::from(d as u16) << (quarter * 16);
        joint |= u64::from(j as u16) << (quarter * 16);
    }
    (token, digit, joint)
}

#[cfg(not(target_arch = "x86_64"))]
fn classes(chunk: &[u8; 64]) -> (u64, u64, u64) {
    classes_by_byte(chunk)
}

/// The meaning of [`classes`], byte by byte.
#[cfg(any(test, not(target_arch = "x86_64")))]
fn classes_by_byte(chunk: &[u8; 64]) -> (u64, u64, u64) {
    let (mut token, mut digit, mut joint) = (0u64, 0u64, 0u64);
    for (i, &byte) in chunk.iter().enumerate() {
        token |= u64::from(is_token_byte(byte)) << i;
        digit |= u64::from(byte.is_ascii_digit() || byte == 0) << i;
        joint |= u64::from(matches!(byte, b':' | b',' | b'/')) << i;
    }
    (token, digit, joint)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::values::PADDING;

    fn variables(line: &str) -> Vec<&str> {
        let mut spans = Vec::new();
        // What lies behind a line must not matter.
        let padded = [b"9", line.as_bytes(), &[b'8'; PADDING]].concat();
        Masks::default().variables(&padded, 1, line.len(), &mut spans);
        spans.iter().map(|&(start, end)| &line[start as usize - 1..end as usize - 1]).collect()
    }

    #[test]
    fn variables_are_the_tokens_that_hold_a_digit() {
        assert_eq!(
            variables("081109 204106 INFO dfs.Data: block blk_-69 to /10.251.0.1:50010, took 12."),
            ["081109", "204106", "blk_-69", "10.251.0.1:50010", "12"]
        );
        assert_eq!(variables("2015-10-18 18:01:50,353 [main] a=1,b"), ["2015-10-18", "18:01:50,353", "1"]);
        assert_eq!(variables("no variable at all, at:all"), Vec::<&str>::new());
        assert_eq!(variables(""), Vec::<&str>::new());
        assert_eq!(variables("nul \0 is one, größe4 too"), ["\0", "größe4"]);
    }

    #[test]
    fn a_token_may_cross_any_number_of_chunks() {
        for pad in 0..130 {
            let line = format!("{}x1{}:9:{} end", " ".repeat(pad), "y".repeat(pad), "7".repeat(pad));
            let expected = if pad == 0 {
                vec!["x1:9".to_owned()]
            } else {
                vec![format!("x1{}", "y".repeat(pad)), format!("9:{}", "7".repeat(pad))]
            };
            assert_eq!(variables(&line), expected, "pad {pad}");
        }
    }

    #[test]
    fn the_vector_code_means_what_the_byte_code_says() {
        for byte in 0..=255u8 {
            for at in [0, 15, 16, 63] {
                let mut chunk = [b' '; 64];
                chunk[at] = byte;
                let expected = classes_by_byte(&chunk);
                assert_eq!(classes(&chunk), expected, "byte {byte} at {at}");
                #[cfg(target_arch = "x86_64")]
                if fast::is_available() {
                    let (mut token, mut digit, mut joint) = ([0], [0], [0]);
                    // SAFETY: the machine has the instructions, as was just asked.
                    unsafe { fast::classify(&[chunk], &mut token, &mut digit, &mut joint) };
                    assert_eq!((token[0], digit[0], joint[0]), expected, "byte {byte} at {at}");
                }
            }
        }
    }
}
