//! `AnyValue` of protobuf as text.

use std::fmt::Write as _;

use crate::{
    intake::{Fault, bad, utf8},
    render,
    wire::{Tag, Wire},
};

pub(super) const TOO_DEEP: &str = "a value is nested too deep; flatten it";
pub(super) const VALUE_NOT_UTF8: &str =
    "an attribute value is not valid UTF-8; send text as UTF-8 or bytes_value";
pub(super) const KEY_NOT_UTF8: &str = "an attribute key is not valid UTF-8; send text as UTF-8";

/// `AnyValue`.
const TEXT: Tag = Tag::bytes(1);
const BOOL: Tag = Tag::varint(2);
const INT: Tag = Tag::varint(3);
const DOUBLE: Tag = Tag::fixed64(4);
const ARRAY: Tag = Tag::bytes(5);
const MAP: Tag = Tag::bytes(6);
const BYTES: Tag = Tag::bytes(7);
/// `ArrayValue` and `KeyValueList`.
const ELEMENT: Tag = Tag::bytes(1);
/// `KeyValue`.
const KEY: Tag = Tag::bytes(1);
const VALUE: Tag = Tag::bytes(2);

/// One `AnyValue`; text is not checked yet.
#[derive(Debug, Clone, Copy)]
pub(super) enum Any<'a> {
    Empty,
    Text(&'a [u8]),
    Bool(bool),
    Int(i64),
    Double(f64),
    Array(Wire<'a>),
    Map(Wire<'a>),
    Bytes(&'a [u8]),
}

/// Reads an `AnyValue`; of several kinds the last one counts.
#[inline]
pub(super) fn any(mut wire: Wire<'_>) -> Result<Any<'_>, Fault> {
    let mut value = Any::Empty;
    while let Some(tag) = wire.tag()? {
        match tag {
            TEXT => value = Any::Text(wire.bytes()?),
            BOOL => value = Any::Bool(wire.varint()? != 0),
            INT => value = Any::Int(wire.varint()? as i64),
            DOUBLE => value = Any::Double(f64::from_bits(wire.fixed64()?)),
            ARRAY => value = Any::Array(wire.message()?),
            MAP => value = Any::Map(wire.message()?),
            BYTES => value = Any::Bytes(wire.bytes()?),
            _ => wire.skip(tag)?,
        }
    }
    Ok(value)
}

/// Reads a `KeyValue`; the value may be missing.
#[inline]
pub(super) fn key_value(mut wire: Wire<'_>) -> Result<(&[u8], Any<'_>), Fault> {
    let (mut key, mut value): (&[u8], _) = (&[], Any::Empty);
    while let Some(tag) = wire.tag()? {
        match tag {
            KEY => key = wire.bytes()?,
            VALUE => value = any(wire.message()?)?,
            _ => wire.skip(tag)?,
        }
    }
    Ok((key, value))
}

/// The value as plain text; `buffer` is used when it is not text already.
#[inline]
pub(super) fn text<'s, 'a: 's>(
    value: Any<'a>,
    buffer: &'s mut String,
    depth: usize,
    not_utf8: &'static str,
) -> Result<&'s str, Fault> {
    if let Any::Text(bytes) = value {
        return utf8(bytes, not_utf8);
    }
    buffer.clear();
    match value {
        Any::Empty | Any::Text(_) => {}
        Any::Double(number) => render::double(buffer, number),
        Any::Bytes(bytes) => render::base64(buffer, bytes),
        value => json(value, buffer, depth)?,
    }
    Ok(buffer)
}

/// Reads a `KeyValue` as text; `buffer` is used when the value is not text already.
#[inline]
pub(super) fn pair<'s, 'a: 's>(
    wire: Wire<'a>,
    buffer: &'s mut String,
    depth: usize,
) -> Result<(&'a str, &'s str), Fault> {
    let (key, value) = key_value(wire)?;
    Ok((utf8(key, KEY_NOT_UTF8)?, text(value, buffer, depth, VALUE_NOT_UTF8)?))
}

/// Appends the value as JSON.
fn json(value: Any<'_>, out: &mut String, depth: usize) -> Result<(), Fault> {
    match value {
        Any::Empty => out.push_str("null"),
        Any::Text(bytes) => render::json_string(out, utf8(bytes, VALUE_NOT_UTF8)?),
        Any::Bool(truth) => out.push_str(if truth { "true" } else { "false" }),
        Any::Int(number) => write!(out, "{number}").expect("writing to memory cannot fail"),
        Any::Double(number) if number.is_finite() => render::double(out, number),
        Any::Double(number) => quoted(out, |out| render::double(out, number)),
        Any::Bytes(bytes) => quoted(out, |out| render::base64(out, bytes)),
        Any::Array(_) | Any::Map(_) if depth == 0 => return Err(bad(TOO_DEEP)),
        Any::Array(mut wire) => {
            out.push('[');
            let mut separator = "";
            while let Some(tag) = wire.tag()? {
                if tag != ELEMENT {
                    wire.skip(tag)?;
                    continue;
                }
                let element = any(wire.message()?)?;
                out.push_str(std::mem::replace(&mut separator, ","));
                json(element, out, depth - 1)?;
            }
            out.push(']');
        }
        Any::Map(mut wire) => {
            out.push('{');
            let mut separator = "";
            while let Some(tag) = wire.tag()? {
                if tag != ELEMENT {
                    wire.skip(tag)?;
                    continue;
                }
                let (key, value) = key_value(wire.message()?)?;
                out.push_str(std::mem::replace(&mut separator, ","));
                render::json_string(out, utf8(key, KEY_NOT_UTF8)?);
                out.push(':');
                json(value, out, depth - 1)?;
            }
            out.push('}');
        }
    }
    Ok(())
}

fn quoted(out: &mut String, write: impl FnOnce(&mut String)) {
    out.push('"');
    write(out);
    out.push('"');
}
