//! Finds the variables of a line: one bit per byte for its class, then a walk over the bits.
//!
//! A *token* is a maximal run of letters, digits, `_ - .`, bytes of non-ASCII text and NUL; `: , /`
//! between two digits belong to it too, so that `18:01:50,353` is one token. A token that holds a
//! digit or NUL is a variable; `. - _` at its end are cut off (`took 12.`).

/// Classes of the bytes of one line, reused.
#[derive(Default)]
pub(crate) struct Masks {
    token: Vec<u64>,
    digit: Vec<u64>,
    joint: Vec<u64>,
    /// Words in use; the vectors only grow.
    words: usize,
}

/// Start and end of a variable in its line.
pub(crate) type Span = (u32, u32);

/// Whether the byte can be in a token wherever it stands.
pub(crate) fn is_token_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-' | b'.' | 0) || byte >= 0x80
}

impl Masks {
    /// Replaces `spans` by the variables of the line, in order.
    pub(crate) fn variables(&mut self, line: &[u8], spans: &mut Vec<Span>) {
        spans.clear();
        self.classify(line);
        let words = self.words;
        let mut word = 0;
        let mut digits = if words == 0 { 0 } else { self.digit[0] };
        let mut floor = 0usize;
        loop {
            while digits == 0 {
                word += 1;
                if word >= words {
                    return;
                }
                digits = self.digit[word];
            }
            let at = word * 64 + digits.trailing_zeros() as usize;
            let start = self.run_start(at).max(floor);
            let run_end = self.run_end(at).min(line.len());
            let mut end = run_end;
            while end > at + 1 && matches!(line[end - 1], b'.' | b'-' | b'_') {
                end -= 1;
            }
            spans.push((start as u32, end as u32));
            floor = run_end;
            word = run_end >> 6;
            if word >= words {
                return;
            }
            digits = self.digit[word] & (u64::MAX << (run_end & 63));
        }
    }

    /// First position of the token run that holds `at`.
    #[inline]
    fn run_start(&self, at: usize) -> usize {
        let mut word = at >> 6;
        let mut gaps = !self.token[word] & ((1u64 << (at & 63)) - 1);
        while gaps == 0 {
            if word == 0 {
                return 0;
            }
            word -= 1;
            gaps = !self.token[word];
        }
        word * 64 + 64 - gaps.leading_zeros() as usize
    }

    /// Position after the token run that holds `at`.
    #[inline]
    fn run_end(&self, at: usize) -> usize {
        let mut word = at >> 6;
        let mut gaps = !self.token[word] & (u64::MAX << (at & 63));
        while gaps == 0 {
            word += 1;
            if word >= self.words {
                return word * 64;
            }
            gaps = !self.token[word];
        }
        word * 64 + gaps.trailing_zeros() as usize
    }

    fn classify(&mut self, line: &[u8]) {
        let words = line.len().div_ceil(64);
        if self.token.len() < words {
            self.token.resize(words, 0);
            self.digit.resize(words, 0);
            self.joint.resize(words, 0);
        }
        self.words = words;
        let (token, digit, joint) =
            (&mut self.token[..words], &mut self.digit[..words], &mut self.joint[..words]);
        let (chunks, rest) = line.as_chunks::<64>();
        let mut any_joint = 0;
        for (i, chunk) in chunks.iter().enumerate() {
            (token[i], digit[i], joint[i]) = classes(chunk);
            any_joint |= joint[i];
        }
        if !rest.is_empty() {
            let mut padded = [b' '; 64];
            padded[..rest.len()].copy_from_slice(rest);
            let last = words - 1;
            (token[last], digit[last], joint[last]) = classes(&padded);
            any_joint |= joint[last];
        }
        if any_joint == 0 {
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

    fn variables(line: &str) -> Vec<&str> {
        let mut spans = Vec::new();
        Masks::default().variables(line.as_bytes(), &mut spans);
        spans.iter().map(|&(start, end)| &line[start as usize..end as usize]).collect()
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
                assert_eq!(classes(&chunk), classes_by_byte(&chunk), "byte {byte} at {at}");
            }
        }
    }
}
