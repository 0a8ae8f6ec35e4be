//! Varints, short columns of whole numbers, and a reader that never reads past the end.

use crate::{ChunkError, error::corrupt};

/// The numbers are stored as zigzag differences to the one before.
const DELTA: u8 = 0x80;

pub(crate) fn zigzag(value: i64) -> u64 {
    ((value << 1) ^ (value >> 63)) as u64
}

pub(crate) fn unzigzag(value: u64) -> i64 {
    (value >> 1) as i64 ^ -((value & 1) as i64)
}

/// Bits needed for numbers up to `max`.
pub(crate) fn bits_for(max: u64) -> u32 {
    64 - max.leading_zeros()
}

/// Bytes of `value` as a varint.
pub(crate) fn varint_len(value: u64) -> usize {
    bits_for(value | 1).div_ceil(7) as usize
}

/// Appends `value` in 7-bit groups, lowest first (LEB128).
pub(crate) fn put_varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// Appends a signed number: the sign is the lowest bit of a varint.
pub(crate) fn put_zigzag(out: &mut Vec<u8>, value: i64) {
    put_varint(out, zigzag(value));
}

/// Appends numbers above their minimum, bit-packed, or their differences if these are narrower.
pub(crate) fn put_ints(out: &mut Vec<u8>, values: &[u64]) {
    let Some(&first) = values.first() else { return };
    let differences: Vec<u64> =
        values.windows(2).map(|two| zigzag(two[1].wrapping_sub(two[0]) as i64)).collect();
    let width = |values: &[u64]| {
        let min = values.iter().copied().min().unwrap_or(0);
        (min, bits_for(values.iter().copied().max().unwrap_or(0) - min))
    };
    let (plain, delta) = (width(values), width(&differences));
    // The first number costs as much again as a varint.
    let saved = (values.len() as u64) * u64::from(plain.1.saturating_sub(delta.1));
    if saved > 8 * varint_len(first) as u64 {
        out.push(delta.1 as u8 | DELTA);
        put_varint(out, delta.0);
        put_varint(out, first);
        pack(&differences, delta.0, delta.1, out);
    } else {
        out.push(plain.1 as u8);
        put_varint(out, plain.0);
        pack(values, plain.0, plain.1, out);
    }
}

/// Appends the low `bits` of each `value - min`, lowest first.
fn pack(values: &[u64], min: u64, bits: u32, out: &mut Vec<u8>) {
    let (mut buffer, mut filled) = (0u128, 0u32);
    for value in values {
        buffer |= u128::from(value - min) << filled;
        filled += bits;
        while filled >= 8 {
            out.push(buffer as u8);
            buffer >>= 8;
            filled -= 8;
        }
    }
    if filled > 0 {
        out.push(buffer as u8);
    }
}

/// Reads front to back; every read is checked.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Reader<'a> {
    bytes: &'a [u8],
    pos: usize,
}

impl<'a> Reader<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, pos: 0 }
    }

    /// Bytes that were not read yet.
    pub(crate) fn rest(&self) -> &'a [u8] {
        &self.bytes[self.pos..]
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.pos == self.bytes.len()
    }

    #[inline]
    pub(crate) fn u8(&mut self) -> Result<u8, ChunkError> {
        let byte = *self.bytes.get(self.pos).ok_or(corrupt("data ends early"))?;
        self.pos += 1;
        Ok(byte)
    }

    pub(crate) fn u64(&mut self) -> Result<u64, ChunkError> {
        let mut eight = [0; 8];
        eight.copy_from_slice(self.take(8)?);
        Ok(u64::from_le_bytes(eight))
    }

    #[inline]
    pub(crate) fn varint(&mut self) -> Result<u64, ChunkError> {
        let mut value = 0u64;
        for shift in (0..64).step_by(7) {
            let byte = self.u8()?;
            value |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return Ok(value);
            }
        }
        Err(corrupt("a number is longer than 64 bits"))
    }

    pub(crate) fn zigzag(&mut self) -> Result<i64, ChunkError> {
        Ok(unzigzag(self.varint()?))
    }

    /// A varint that must not exceed `max`.
    #[inline]
    pub(crate) fn bounded(&mut self, max: usize) -> Result<usize, ChunkError> {
        match usize::try_from(self.varint()?) {
            Ok(value) if value <= max => Ok(value),
            _ => Err(corrupt("a number is out of bounds")),
        }
    }

    #[inline]
    pub(crate) fn take(&mut self, len: usize) -> Result<&'a [u8], ChunkError> {
        let end = self.pos.checked_add(len).ok_or(corrupt("a length overflows"))?;
        let bytes = self.bytes.get(self.pos..end).ok_or(corrupt("data ends early"))?;
        self.pos = end;
        Ok(bytes)
    }

    /// What [`put_ints`] wrote: `n` numbers of at most `max`. The caller bounds `n`.
    pub(crate) fn ints(&mut self, n: usize, max: u64) -> Result<Vec<u64>, ChunkError> {
        let mut values = Vec::new();
        if n == 0 {
            return Ok(values);
        }
        let head = self.u8()?;
        let (bits, delta) = (u32::from(head & !DELTA), head & DELTA != 0);
        if bits > 64 {
            return Err(corrupt("packed numbers have an impossible width"));
        }
        let min = self.varint()?;
        let first = if delta { self.varint()? } else { 0 };
        let stored = n - usize::from(delta);
        let bytes = self.take((stored * bits as usize).div_ceil(8))?;
        values.reserve_exact(n);
        if delta {
            values.push(first);
        }
        let mask = if bits == 64 { u64::MAX } else { (1 << bits) - 1 };
        let (mut buffer, mut filled, mut last) = (0u128, 0u32, first);
        let mut bytes = bytes.iter();
        for _ in 0..stored {
            while filled < bits {
                buffer |= u128::from(bytes.next().copied().unwrap_or(0)) << filled;
                filled += 8;
            }
            let mut value = min.wrapping_add(buffer as u64 & mask);
            buffer >>= bits;
            filled -= bits;
            if delta {
                value = last.wrapping_add(unzigzag(value) as u64);
                last = value;
            }
            values.push(value);
        }
        if values.iter().any(|&value| value > max) {
            return Err(corrupt("a number is out of bounds"));
        }
        Ok(values)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn short_columns_come_back() {
        let columns: [&[u64]; 7] = [
            &[],
            &[7],
            &[3, 3, 3],
            &[0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12],
            &[u64::MAX, 0, 5],
            &[1 << 40, 3, 1 << 41],
            &[9, 8, 7, 6, 5, 1_000_000_007],
        ];
        for column in columns {
            let mut bytes = Vec::new();
            put_ints(&mut bytes, column);
            let mut reader = Reader::new(&bytes);
            assert_eq!(reader.ints(column.len(), u64::MAX).unwrap(), column);
            assert!(reader.is_empty());
        }
    }
}
