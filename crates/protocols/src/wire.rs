//! Reading protobuf on slices: nothing is copied, and every fault names its byte.
//!
//! Guarantees: unknown fields, unknown orders and fields of an unexpected wire type are passed
//! over; a message that ends inside a field, a varint of more than 10 bytes, field number 0 and
//! wire types 6 and 7 are errors. Format: <https://protobuf.dev/programming-guides/encoding/>.

use crate::DecodeError;

/// Deepest nesting of (deprecated, unknown) groups that is passed over.
const MAX_GROUP_DEPTH: usize = 32;

/// One message or length-delimited field, read from front to back.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Wire<'a> {
    rest: &'a [u8],
    /// Position of the end of `rest` in the request.
    end: usize,
}

/// Value of one field.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Field<'a> {
    Varint(u64),
    Fixed64(u64),
    Bytes(Wire<'a>),
    Fixed32(u32),
    /// A group, passed over.
    Group,
}

impl<'a> Wire<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes, end: bytes.len() }
    }

    /// What is left to read.
    pub(crate) fn bytes(&self) -> &'a [u8] {
        self.rest
    }

    fn fault(&self, reason: &'static str) -> DecodeError {
        DecodeError::Protobuf { offset: self.end - self.rest.len(), reason }
    }

    /// The next field, or `None` at the end.
    ///
    /// Nearly every field has a tag of one byte and is whole: such fields are read here, in place at
    /// every caller. All others, faults among them, are read by [`Wire::next_of_any_form`].
    #[allow(clippy::inline_always)] // a call per field costs as much as reading it
    #[inline(always)]
    pub(crate) fn next(&mut self) -> Result<Option<(u32, Field<'a>)>, DecodeError> {
        let Some((tag, rest)) = self.rest.split_first() else { return Ok(None) };
        let number = u32::from(tag >> 3);
        match tag & 7 {
            _ if !(8..0x80).contains(tag) => {}
            0 => {
                if let Some((value, rest)) = short_varint(rest) {
                    self.rest = rest;
                    return Ok(Some((number, Field::Varint(value))));
                }
            }
            1 => {
                if let Some((bytes, rest)) = rest.split_first_chunk() {
                    self.rest = rest;
                    return Ok(Some((number, Field::Fixed64(u64::from_le_bytes(*bytes)))));
                }
            }
            2 => {
                if let Some((length, rest)) = short_varint(rest)
                    && let Ok(length) = usize::try_from(length)
                    && let Some((field, rest)) = rest.split_at_checked(length)
                {
                    self.rest = rest;
                    return Ok(Some((
                        number,
                        Field::Bytes(Self { rest: field, end: self.end - rest.len() }),
                    )));
                }
            }
            _ => {}
        }
        self.next_of_any_form()
    }

    #[inline(never)]
    fn next_of_any_form(&mut self) -> Result<Option<(u32, Field<'a>)>, DecodeError> {
        let (number, wire_type) = self.tag()?;
        Ok(Some((number, self.value(number, wire_type, MAX_GROUP_DEPTH)?)))
    }

    fn tag(&mut self) -> Result<(u32, u8), DecodeError> {
        let start = *self;
        let tag = self.varint()?;
        let number = u32::try_from(tag >> 3).ok().filter(|number| (1..1 << 29).contains(number));
        match number {
            Some(number) => Ok((number, (tag & 7) as u8)),
            None => Err(start.fault("a field number outside 1 to 536870911")),
        }
    }

    fn value(&mut self, number: u32, wire_type: u8, depth: usize) -> Result<Field<'a>, DecodeError> {
        match wire_type {
            0 => Ok(Field::Varint(self.varint()?)),
            1 => Ok(Field::Fixed64(u64::from_le_bytes(self.fixed()?))),
            2 => {
                let length = self.varint()?;
                let here = self.end - self.rest.len();
                match usize::try_from(length).ok().and_then(|length| self.rest.split_at_checked(length)) {
                    Some((field, rest)) => {
                        self.rest = rest;
                        Ok(Field::Bytes(Self { rest: field, end: here + field.len() }))
                    }
                    None => Err(self.fault("a field is longer than what is left")),
                }
            }
            3 => self.skip_group(number, depth),
            4 => Err(self.fault("the end of a group that was not begun")),
            5 => Ok(Field::Fixed32(u32::from_le_bytes(self.fixed()?))),
            _ => Err(self.fault("an unknown wire type")),
        }
    }

    fn varint(&mut self) -> Result<u64, DecodeError> {
        let mut value = 0u64;
        for (i, byte) in self.rest.iter().take(10).enumerate() {
            // The tenth byte holds one bit only.
            if i == 9 && *byte > 1 {
                return Err(self.fault("a varint of more than 64 bits"));
            }
            value |= u64::from(byte & 0x7f) << (7 * i);
            if byte & 0x80 == 0 {
                self.rest = &self.rest[i + 1..];
                return Ok(value);
            }
        }
        Err(self.fault("a varint that does not end"))
    }

    fn fixed<const N: usize>(&mut self) -> Result<[u8; N], DecodeError> {
        match self.rest.split_first_chunk::<N>() {
            Some((bytes, rest)) => {
                self.rest = rest;
                Ok(*bytes)
            }
            None => Err(self.fault("the message ends inside a fixed-width number")),
        }
    }

    #[cold]
    fn skip_group(&mut self, number: u32, depth: usize) -> Result<Field<'a>, DecodeError> {
        if depth == 0 {
            return Err(self.fault("groups are nested too deep"));
        }
        loop {
            if self.rest.is_empty() {
                return Err(self.fault("the message ends inside a group"));
            }
            match self.tag()? {
                (end, 4) if end == number => return Ok(Field::Group),
                (inner, wire_type) => {
                    self.value(inner, wire_type, depth - 1)?;
                }
            }
        }
    }
}

/// A varint of at most five bytes, and what follows it.
#[inline]
fn short_varint(bytes: &[u8]) -> Option<(u64, &[u8])> {
    let longer = || varint_of::<3>(bytes).or_else(|| varint_of::<4>(bytes)).or_else(|| varint_of::<5>(bytes));
    varint_of::<1>(bytes).or_else(|| varint_of::<2>(bytes)).or_else(longer)
}

/// A varint of `N` bytes, given that it has no fewer.
#[inline]
fn varint_of<const N: usize>(bytes: &[u8]) -> Option<(u64, &[u8])> {
    let (groups, rest) = bytes.split_first_chunk::<N>().filter(|(groups, _)| groups[N - 1] < 0x80)?;
    Some((groups.iter().rev().fold(0, |number, group| number << 7 | u64::from(group & 0x7f)), rest))
}

/// Appends a varint.
pub(crate) fn put_varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// Appends a length-delimited field.
pub(crate) fn put_bytes(out: &mut Vec<u8>, number: u32, bytes: &[u8]) {
    put_varint(out, u64::from(number) << 3 | 2);
    put_varint(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

/// Appends a varint field unless it has its default.
pub(crate) fn put_number(out: &mut Vec<u8>, number: u32, value: u64) {
    if value != 0 {
        put_varint(out, u64::from(number) << 3);
        put_varint(out, value);
    }
}
