//! Numbers and bytes of the index: little-endian, lengths as LEB128; reading never panics.

/// Appends a LEB128 number.
pub fn put_varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// Appends a signed number, small absolute values short.
pub fn put_zigzag(out: &mut Vec<u8>, value: i64) {
    put_varint(out, ((value << 1) ^ (value >> 63)) as u64);
}

/// Appends a length and the bytes.
pub fn put_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    put_varint(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

/// The bytes end early or hold a value that cannot be; the name of what was being read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Malformed(pub &'static str);

/// Reads what the functions above wrote.
pub struct Reader<'a> {
    bytes: &'a [u8],
    position: usize,
}

impl<'a> Reader<'a> {
    /// From the first byte.
    pub fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, position: 0 }
    }

    /// Bytes read so far.
    pub fn position(&self) -> usize {
        self.position
    }

    /// `count` bytes.
    pub fn take(&mut self, count: usize, what: &'static str) -> Result<&'a [u8], Malformed> {
        let end = self.position.checked_add(count).ok_or(Malformed(what))?;
        let taken = self.bytes.get(self.position..end).ok_or(Malformed(what))?;
        self.position = end;
        Ok(taken)
    }

    /// A fixed number of bytes.
    pub fn array<const N: usize>(&mut self, what: &'static str) -> Result<[u8; N], Malformed> {
        self.take(N, what)?.try_into().map_err(|_| Malformed(what))
    }

    /// One byte.
    pub fn byte(&mut self, what: &'static str) -> Result<u8, Malformed> {
        Ok(self.array::<1>(what)?[0])
    }

    /// A LEB128 number.
    #[inline]
    pub fn varint(&mut self, what: &'static str) -> Result<u64, Malformed> {
        let mut value = 0u64;
        for shift in (0..64).step_by(7) {
            let byte = *self.bytes.get(self.position).ok_or(Malformed(what))?;
            self.position += 1;
            value |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err(Malformed(what))
    }

    /// A LEB128 number that fits in 32 bits.
    pub fn varint32(&mut self, what: &'static str) -> Result<u32, Malformed> {
        u32::try_from(self.varint(what)?).map_err(|_| Malformed(what))
    }

    /// A signed number.
    pub fn zigzag(&mut self, what: &'static str) -> Result<i64, Malformed> {
        let value = self.varint(what)?;
        Ok((value >> 1) as i64 ^ -((value & 1) as i64))
    }

    /// A length and that many bytes.
    pub fn bytes(&mut self, what: &'static str) -> Result<&'a [u8], Malformed> {
        let length = usize::try_from(self.varint(what)?).map_err(|_| Malformed(what))?;
        self.take(length, what)
    }

    /// A length and that much text.
    pub fn text(&mut self, what: &'static str) -> Result<&'a str, Malformed> {
        std::str::from_utf8(self.bytes(what)?).map_err(|_| Malformed(what))
    }

    /// A count of items of which each takes at least so many bytes, so that a wrong count cannot make
    /// the reader allocate more than a few times the input.
    pub fn count(&mut self, least: usize, what: &'static str) -> Result<usize, Malformed> {
        let count = usize::try_from(self.varint(what)?).map_err(|_| Malformed(what))?;
        if count > (self.bytes.len() - self.position) / least { Err(Malformed(what)) } else { Ok(count) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_come_back_and_short_input_is_an_error() {
        let mut out = Vec::new();
        for value in [0, 1, -1, i64::MAX, i64::MIN, 300] {
            put_zigzag(&mut out, value);
        }
        put_bytes(&mut out, b"abc");
        let mut reader = Reader::new(&out);
        for value in [0, 1, -1, i64::MAX, i64::MIN, 300] {
            assert_eq!(reader.zigzag("number"), Ok(value));
        }
        assert_eq!(reader.text("text"), Ok("abc"));
        assert_eq!(reader.byte("more"), Err(Malformed("more")));
        assert_eq!(Reader::new(&[0xff; 11]).varint("long"), Err(Malformed("long")));
        assert_eq!(Reader::new(&[5, 1]).bytes("short"), Err(Malformed("short")));
    }
}
