//! Reading protobuf on slices: nothing is copied, and every fault names its byte.
//!
//! Guarantees: unknown fields, unknown orders and fields of an unexpected wire type are passed
//! over; a message that ends inside a field, a varint of more than 10 bytes, field number 0 and
//! wire types 6 and 7 are errors. Format: <https://protobuf.dev/programming-guides/encoding/>.

use crate::DecodeError;

/// Deepest nesting of (deprecated, unknown) groups that is passed over.
const MAX_GROUP_DEPTH: usize = 32;

/// Number and wire type of a field, as they stand before it. The decoders name those they know as
/// constants; a field that comes with another wire type is not known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Tag(u32);

impl Tag {
    pub(crate) const fn varint(number: u32) -> Self {
        Self(number << 3)
    }

    pub(crate) const fn fixed64(number: u32) -> Self {
        Self(number << 3 | 1)
    }

    /// Text, bytes or a message.
    pub(crate) const fn bytes(number: u32) -> Self {
        Self(number << 3 | 2)
    }

    pub(crate) const fn fixed32(number: u32) -> Self {
        Self(number << 3 | 5)
    }
}

/// One message, read from front to back: [`Wire::tag`], then the value that fits the tag or [`Wire::skip`].
///
/// Nearly all tags have one byte, and most numbers and lengths one or two. These are read in place at every
/// caller; what is longer is read by a function that takes and gives the reader by value, so that
/// it can stay in registers.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Wire<'a> {
    rest: &'a [u8],
    /// Position of the end of `rest` in the request.
    end: usize,
}

impl<'a> Wire<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes, end: bytes.len() }
    }

    /// What is left to read.
    pub(crate) fn rest(self) -> &'a [u8] {
        self.rest
    }

    #[cold]
    fn fault(self, reason: &'static str) -> DecodeError {
        DecodeError::Protobuf { offset: self.end - self.rest.len(), reason }
    }

    /// The next field's tag, or `None` at the end.
    #[allow(clippy::inline_always)] // a call costs as much as reading
    #[inline(always)]
    pub(crate) fn tag(&mut self) -> Result<Option<Tag>, DecodeError> {
        let Some((tag, rest)) = self.rest.split_first() else { return Ok(None) };
        if (8..0x80).contains(tag) {
            self.rest = rest;
            return Ok(Some(Tag(u32::from(*tag))));
        }
        let (tag, after) = self.long_tag()?;
        *self = after;
        Ok(Some(tag))
    }

    #[inline(never)]
    fn long_tag(self) -> Result<(Tag, Self), DecodeError> {
        let (tag, after) = self.long_varint()?;
        match u32::try_from(tag) {
            Ok(tag) if tag >> 3 != 0 => Ok((Tag(tag), after)),
            _ => Err(self.fault("a field number outside 1 to 536870911")),
        }
    }

    #[allow(clippy::inline_always)]
    #[inline(always)]
    pub(crate) fn varint(&mut self) -> Result<u64, DecodeError> {
        match self.rest {
            [low @ ..0x80, rest @ ..] => {
                self.rest = rest;
                Ok(u64::from(*low))
            }
            [low, high @ ..0x80, rest @ ..] => {
                self.rest = rest;
                Ok(u64::from(low & 0x7f) | u64::from(*high) << 7)
            }
            _ => {
                let (value, after) = self.long_varint()?;
                *self = after;
                Ok(value)
            }
        }
    }

    /// A number of `sint32` or `sint64`.
    #[inline]
    pub(crate) fn zigzag(&mut self) -> Result<i64, DecodeError> {
        let number = self.varint()?;
        Ok((number >> 1) as i64 ^ -((number & 1) as i64))
    }

    #[inline(never)]
    fn long_varint(self) -> Result<(u64, Self), DecodeError> {
        let mut value = 0;
        for i in 0..10 {
            let Some(byte) = self.rest.get(i) else { break };
            // The tenth byte holds one bit only.
            if i == 9 && *byte > 1 {
                return Err(self.fault("a varint of more than 64 bits"));
            }
            value |= u64::from(byte & 0x7f) << (7 * i);
            if *byte < 0x80 {
                return Ok((value, Self { rest: &self.rest[i + 1..], ..self }));
            }
        }
        Err(self.fault("a varint that does not end"))
    }

    #[inline]
    fn fixed<const N: usize>(&mut self) -> Result<[u8; N], DecodeError> {
        match self.rest.split_first_chunk::<N>() {
            Some((bytes, rest)) => {
                self.rest = rest;
                Ok(*bytes)
            }
            None => Err(self.fault("the message ends inside a fixed-width number")),
        }
    }

    #[inline]
    pub(crate) fn fixed64(&mut self) -> Result<u64, DecodeError> {
        Ok(u64::from_le_bytes(self.fixed()?))
    }

    #[inline]
    pub(crate) fn fixed32(&mut self) -> Result<u32, DecodeError> {
        Ok(u32::from_le_bytes(self.fixed()?))
    }

    /// A length-delimited field as a message of its own.
    #[allow(clippy::inline_always)]
    #[inline(always)]
    pub(crate) fn message(&mut self) -> Result<Self, DecodeError> {
        let length = self.varint()?;
        match usize::try_from(length).ok().and_then(|length| self.rest.split_at_checked(length)) {
            Some((field, rest)) => {
                self.rest = rest;
                Ok(Self { rest: field, end: self.end - rest.len() })
            }
            None => Err(self.fault("a field is longer than what is left")),
        }
    }

    /// A length-delimited field as bytes.
    #[inline]
    pub(crate) fn bytes(&mut self) -> Result<&'a [u8], DecodeError> {
        Ok(self.message()?.rest)
    }

    /// Passes over the value of a field.
    pub(crate) fn skip(&mut self, tag: Tag) -> Result<(), DecodeError> {
        self.skip_nested(tag, MAX_GROUP_DEPTH)
    }

    fn skip_nested(&mut self, tag: Tag, depth: usize) -> Result<(), DecodeError> {
        match tag.0 & 7 {
            0 => self.varint().map(|_| ()),
            1 => self.fixed64().map(|_| ()),
            2 => self.message().map(|_| ()),
            3 => self.skip_group(tag, depth),
            4 => Err(self.fault("the end of a group that was not begun")),
            5 => self.fixed32().map(|_| ()),
            _ => Err(self.fault("an unknown wire type")),
        }
    }

    #[cold]
    fn skip_group(&mut self, begin: Tag, depth: usize) -> Result<(), DecodeError> {
        if depth == 0 {
            return Err(self.fault("groups are nested too deep"));
        }
        let end = Tag(begin.0 + 1);
        loop {
            match self.tag()? {
                None => return Err(self.fault("the message ends inside a group")),
                Some(tag) if tag == end => return Ok(()),
                Some(tag) => self.skip_nested(tag, depth - 1)?,
            }
        }
    }
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
