//! A stream of bits, lowest first.

/// Collects bits and appends whole bytes.
#[derive(Default)]
pub(crate) struct BitWriter {
    buffer: u64,
    filled: u32,
}

impl BitWriter {
    /// Appends the low `count` (≤ 57) bits of `value`, whose other bits are 0.
    #[inline]
    pub(crate) fn put(&mut self, value: u64, count: u32, out: &mut Vec<u8>) {
        self.buffer |= value << self.filled;
        self.filled += count;
        if self.filled >= 8 {
            let whole = self.filled / 8;
            let end = out.len() + whole as usize;
            out.extend_from_slice(&self.buffer.to_le_bytes());
            out.truncate(end);
            self.buffer = self.buffer.checked_shr(whole * 8).unwrap_or(0);
            self.filled -= whole * 8;
        }
    }

    /// As [`put`](Self::put), up to 64 bits.
    pub(crate) fn put_long(&mut self, value: u64, count: u32, out: &mut Vec<u8>) {
        let low = count.min(32);
        self.put(value & ((1 << low) - 1), low, out);
        if count > 32 {
            self.put(value >> 32, count - 32, out);
        }
    }

    /// Fills the last byte with zeros.
    pub(crate) fn finish(self, out: &mut Vec<u8>) {
        if self.filled > 0 {
            out.push(self.buffer as u8);
        }
    }
}

/// The 64 bits from byte `at` on; zeros after the end.
#[inline]
pub(crate) fn word_at(bytes: &[u8], at: usize) -> u64 {
    match bytes.get(at..at.wrapping_add(8)).and_then(|eight| eight.first_chunk::<8>()) {
        Some(eight) => u64::from_le_bytes(*eight),
        None => last_word(bytes, at),
    }
}

#[cold]
fn last_word(bytes: &[u8], at: usize) -> u64 {
    let mut eight = [0; 8];
    if let Some(rest) = bytes.get(at..) {
        eight[..rest.len()].copy_from_slice(rest);
    }
    u64::from_le_bytes(eight)
}
