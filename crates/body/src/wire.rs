//! Varints and a reader that never reads past the end.

use crate::BodyError;

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
    put_varint(out, ((value << 1) ^ (value >> 63)) as u64);
}

/// Appends `from[start..end]`. Pieces are mostly short: copying 16 bytes and dropping the surplus
/// is one move instead of a call.
#[allow(clippy::inline_always)] // a call would cost as much as it saves
#[inline(always)]
pub(crate) fn append(out: &mut Vec<u8>, from: &[u8], start: usize, end: usize) {
    let len = end - start;
    if len <= 16
        && let Some(chunk) = from.get(start..).and_then(|rest| rest.first_chunk::<16>())
    {
        let wanted = out.len() + len;
        out.extend_from_slice(chunk);
        out.truncate(wanted);
    } else {
        out.extend_from_slice(&from[start..end]);
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

    pub(crate) fn position(&self) -> usize {
        self.pos
    }

    /// Bytes that were not read yet.
    pub(crate) fn left(&self) -> usize {
        self.bytes.len() - self.pos
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.pos == self.bytes.len()
    }

    pub(crate) fn peek(&self) -> Option<u8> {
        self.bytes.get(self.pos).copied()
    }

    #[inline]
    pub(crate) fn u8(&mut self) -> Result<u8, BodyError> {
        let byte = *self.bytes.get(self.pos).ok_or(BodyError::Corrupt("data ends early"))?;
        self.pos += 1;
        Ok(byte)
    }

    pub(crate) fn u32(&mut self) -> Result<u32, BodyError> {
        let four = self.take(4)?;
        Ok(u32::from_le_bytes([four[0], four[1], four[2], four[3]]))
    }

    pub(crate) fn u64(&mut self) -> Result<u64, BodyError> {
        let mut eight = [0; 8];
        eight.copy_from_slice(self.take(8)?);
        Ok(u64::from_le_bytes(eight))
    }

    #[inline]
    pub(crate) fn varint(&mut self) -> Result<u64, BodyError> {
        // Most are short.
        if let Some(&byte) = self.bytes.get(self.pos)
            && byte < 0x80
        {
            self.pos += 1;
            return Ok(u64::from(byte));
        }
        self.long_varint()
    }

    fn long_varint(&mut self) -> Result<u64, BodyError> {
        let mut value = 0u64;
        for shift in (0..64).step_by(7) {
            let byte = self.u8()?;
            value |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return Ok(value);
            }
        }
        Err(BodyError::Corrupt("a number is longer than 64 bits"))
    }

    /// A varint that must not exceed `max`.
    #[inline]
    pub(crate) fn bounded(&mut self, max: usize) -> Result<usize, BodyError> {
        let value = self.varint()?;
        match usize::try_from(value) {
            Ok(value) if value <= max => Ok(value),
            _ => Err(BodyError::Corrupt("a length is out of bounds")),
        }
    }

    /// What [`put_zigzag`] wrote, when it fits into 32 bits.
    pub(crate) fn zigzag32(&mut self) -> Result<i32, BodyError> {
        let coded = self.varint()?;
        i32::try_from((coded >> 1) as i64 ^ -((coded & 1) as i64))
            .map_err(|_| BodyError::Corrupt("a number is out of bounds"))
    }

    #[inline]
    pub(crate) fn take(&mut self, len: usize) -> Result<&'a [u8], BodyError> {
        let end = self.pos.checked_add(len).ok_or(BodyError::Corrupt("a length overflows"))?;
        let bytes = self.bytes.get(self.pos..end).ok_or(BodyError::Corrupt("data ends early"))?;
        self.pos = end;
        Ok(bytes)
    }
}
