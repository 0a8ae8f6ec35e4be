//! As much of protobuf as remote read takes. What is read is untrusted: no length is believed before its bytes
//! are there.

/// The bytes are no message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Malformed(pub &'static str);

/// A field's value.
#[derive(Debug, Clone, Copy)]
pub(super) enum Field<'a> {
    Varint(u64),
    Bytes(&'a [u8]),
    /// Fixed lengths, which no field of a read request has.
    Other,
}

impl<'a> Field<'a> {
    pub fn bytes(self) -> Result<&'a [u8], Malformed> {
        if let Self::Bytes(bytes) = self { Ok(bytes) } else { Err(Malformed("a field has the wrong type")) }
    }

    pub fn text(self) -> Result<&'a str, Malformed> {
        std::str::from_utf8(self.bytes()?).map_err(|_| Malformed("a text is not UTF-8"))
    }

    pub fn number(self) -> Result<u64, Malformed> {
        if let Self::Varint(value) = self { Ok(value) } else { Err(Malformed("a field has the wrong type")) }
    }

    /// Calls `each` with the numbers of a repeated field, packed or not.
    pub fn numbers(self, mut each: impl FnMut(u64)) -> Result<(), Malformed> {
        let Self::Bytes(mut packed) = self else { return self.number().map(each) };
        while !packed.is_empty() {
            each(varint(&mut packed)?);
        }
        Ok(())
    }
}

fn varint(bytes: &mut &[u8]) -> Result<u64, Malformed> {
    let mut value = 0u64;
    for shift in (0..64).step_by(7) {
        let (byte, rest) = bytes.split_first().ok_or(Malformed("a number ends early"))?;
        *bytes = rest;
        if shift == 63 && *byte > 1 {
            break;
        }
        value |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Ok(value);
        }
    }
    Err(Malformed("a number has more than 64 bits"))
}

fn split<'a>(bytes: &mut &'a [u8], length: usize) -> Result<&'a [u8], Malformed> {
    let (taken, rest) = bytes.split_at_checked(length).ok_or(Malformed("a field ends early"))?;
    *bytes = rest;
    Ok(taken)
}

/// Calls `each` with every field and its number.
pub(super) fn fields<'a>(
    mut bytes: &'a [u8],
    mut each: impl FnMut(u64, Field<'a>) -> Result<(), Malformed>,
) -> Result<(), Malformed> {
    while !bytes.is_empty() {
        let key = varint(&mut bytes)?;
        let field = match key & 7 {
            0 => Field::Varint(varint(&mut bytes)?),
            1 => split(&mut bytes, 8).map(|_| Field::Other)?,
            2 => {
                let length = usize::try_from(varint(&mut bytes)?).unwrap_or(usize::MAX);
                Field::Bytes(split(&mut bytes, length)?)
            }
            5 => split(&mut bytes, 4).map(|_| Field::Other)?,
            _ => return Err(Malformed("a field has an unknown type")),
        };
        each(key >> 3, field)?;
    }
    Ok(())
}

pub(super) fn put_varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

pub(super) fn put_number(out: &mut Vec<u8>, field: u64, value: u64) {
    put_varint(out, field << 3);
    put_varint(out, value);
}

pub(super) fn put_signed(out: &mut Vec<u8>, field: u64, value: i32) {
    put_number(out, field, u64::from((value << 1 ^ value >> 31) as u32));
}

pub(super) fn put_double(out: &mut Vec<u8>, field: u64, value: f64) {
    put_varint(out, field << 3 | 1);
    out.extend_from_slice(&value.to_le_bytes());
}

pub(super) fn put_bytes(out: &mut Vec<u8>, field: u64, value: &[u8]) {
    put_varint(out, field << 3 | 2);
    put_varint(out, value.len() as u64);
    out.extend_from_slice(value);
}

pub(super) fn put_doubles(out: &mut Vec<u8>, field: u64, values: &[f64]) {
    if !values.is_empty() {
        put_varint(out, field << 3 | 2);
        put_varint(out, values.len() as u64 * 8);
        values.iter().for_each(|value| out.extend_from_slice(&value.to_le_bytes()));
    }
}
