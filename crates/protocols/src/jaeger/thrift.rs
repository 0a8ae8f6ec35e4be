//! Reading Thrift's binary protocol on slices: nothing is copied, and every fault names its byte.
//!
//! Guarantees: fields that are not known, or of an unexpected type, are passed over; a value that is longer
//! than what is left and nesting beyond a bound are errors. Format:
//! <https://github.com/apache/thrift/blob/master/doc/specs/thrift-binary-protocol.md>.

use crate::DecodeError;

/// Deepest nesting of what is passed over.
const MAX_DEPTH: usize = 32;

const BOOL: u8 = 2;
const BYTE: u8 = 3;
const DOUBLE: u8 = 4;
const I16: u8 = 6;
const I32: u8 = 8;
const I64: u8 = 10;
const BINARY: u8 = 11;
const STRUCT: u8 = 12;
const MAP: u8 = 13;
const SET: u8 = 14;
const LIST: u8 = 15;

/// Type and number of a field, as they stand before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Field(u8, i16);

impl Field {
    pub(super) const fn bool(number: i16) -> Self {
        Self(BOOL, number)
    }

    pub(super) const fn double(number: i16) -> Self {
        Self(DOUBLE, number)
    }

    pub(super) const fn i32(number: i16) -> Self {
        Self(I32, number)
    }

    pub(super) const fn i64(number: i16) -> Self {
        Self(I64, number)
    }

    /// Text or bytes.
    pub(super) const fn binary(number: i16) -> Self {
        Self(BINARY, number)
    }

    pub(super) const fn structure(number: i16) -> Self {
        Self(STRUCT, number)
    }

    pub(super) const fn list(number: i16) -> Self {
        Self(LIST, number)
    }
}

/// A reader at some place: [`Thrift::field`], then the value that fits it or [`Thrift::skip`].
#[derive(Debug, Clone, Copy)]
pub(super) struct Thrift<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Thrift<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, at: 0 }
    }

    pub(super) fn position(self) -> usize {
        self.at
    }

    /// What was read since a place.
    pub(super) fn since(self, start: usize) -> &'a [u8] {
        &self.bytes[start..self.at]
    }

    #[cold]
    pub(super) fn fault(self, reason: &'static str) -> DecodeError {
        DecodeError::Thrift { offset: self.at, reason }
    }

    #[inline]
    fn fixed<const N: usize>(&mut self) -> Result<[u8; N], DecodeError> {
        match self.bytes[self.at..].first_chunk::<N>() {
            Some(bytes) => {
                self.at += N;
                Ok(*bytes)
            }
            None => Err(self.fault("the message ends inside a value")),
        }
    }

    /// The next field of a struct, or `None` at its end.
    #[inline]
    pub(super) fn field(&mut self) -> Result<Option<Field>, DecodeError> {
        let [kind] = self.fixed()?;
        if kind == 0 {
            return Ok(None);
        }
        Ok(Some(Field(kind, i16::from_be_bytes(self.fixed()?))))
    }

    pub(super) fn bool(&mut self) -> Result<bool, DecodeError> {
        self.fixed::<1>().map(|[byte]| byte != 0)
    }

    pub(super) fn double(&mut self) -> Result<f64, DecodeError> {
        self.fixed().map(f64::from_be_bytes)
    }

    #[inline]
    pub(super) fn i32(&mut self) -> Result<i32, DecodeError> {
        self.fixed().map(i32::from_be_bytes)
    }

    #[inline]
    pub(super) fn i64(&mut self) -> Result<i64, DecodeError> {
        self.fixed().map(i64::from_be_bytes)
    }

    /// A length or a count; what it counts has at least one byte each.
    #[inline]
    fn size(&mut self) -> Result<usize, DecodeError> {
        let size = self.i32()?;
        match usize::try_from(size) {
            Ok(size) if size <= self.bytes.len() - self.at => Ok(size),
            _ => Err(self.fault("a size that is more than what is left")),
        }
    }

    #[inline]
    pub(super) fn binary(&mut self) -> Result<&'a [u8], DecodeError> {
        let size = self.size()?;
        self.at += size;
        Ok(&self.bytes[self.at - size..self.at])
    }

    /// The number of structs in the list that is next; a list of something else is passed over and has none.
    pub(super) fn structs(&mut self) -> Result<usize, DecodeError> {
        let before = *self;
        let [kind] = self.fixed()?;
        if kind == STRUCT {
            return self.size();
        }
        *self = before;
        self.skip_kind(LIST, MAX_DEPTH)?;
        Ok(0)
    }

    /// Passes over the value of a field.
    pub(super) fn skip(&mut self, field: Field) -> Result<(), DecodeError> {
        self.skip_kind(field.0, MAX_DEPTH)
    }

    /// Passes over a struct.
    pub(super) fn skip_struct(&mut self) -> Result<(), DecodeError> {
        self.skip_kind(STRUCT, MAX_DEPTH)
    }

    fn skip_kind(&mut self, kind: u8, depth: usize) -> Result<(), DecodeError> {
        if depth == 0 {
            return Err(self.fault("values are nested too deep"));
        }
        match kind {
            BOOL | BYTE => self.fixed::<1>().map(|_| ()),
            I16 => self.fixed::<2>().map(|_| ()),
            I32 => self.fixed::<4>().map(|_| ()),
            I64 | DOUBLE => self.fixed::<8>().map(|_| ()),
            BINARY => self.binary().map(|_| ()),
            STRUCT => {
                while let Some(Field(kind, _)) = self.field()? {
                    self.skip_kind(kind, depth - 1)?;
                }
                Ok(())
            }
            LIST | SET => {
                let [kind] = self.fixed()?;
                for _ in 0..self.size()? {
                    self.skip_kind(kind, depth - 1)?;
                }
                Ok(())
            }
            MAP => {
                let [key, value] = self.fixed()?;
                for _ in 0..self.size()? {
                    self.skip_kind(key, depth - 1)?;
                    self.skip_kind(value, depth - 1)?;
                }
                Ok(())
            }
            _ => Err(self.fault("an unknown type")),
        }
    }
}
