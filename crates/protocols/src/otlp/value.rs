//! `AnyValue` of protobuf as text.

use std::fmt::Write as _;

use crate::{
    intake::{Fault, bad, utf8},
    render,
    wire::{Field, Wire},
};

pub(super) const TOO_DEEP: &str = "a value is nested too deep; flatten it";
pub(super) const VALUE_NOT_UTF8: &str =
    "an attribute value is not valid UTF-8; send text as UTF-8 or bytes_value";
pub(super) const KEY_NOT_UTF8: &str = "an attribute key is not valid UTF-8; send text as UTF-8";

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
    while let Some(field) = wire.next()? {
        value = match field {
            (1, Field::Bytes(text)) => Any::Text(text.bytes()),
            (2, Field::Varint(n)) => Any::Bool(n != 0),
            (3, Field::Varint(n)) => Any::Int(n as i64),
            (4, Field::Fixed64(bits)) => Any::Double(f64::from_bits(bits)),
            (5, Field::Bytes(array)) => Any::Array(array),
            (6, Field::Bytes(map)) => Any::Map(map),
            (7, Field::Bytes(bytes)) => Any::Bytes(bytes.bytes()),
            _ => value,
        };
    }
    Ok(value)
}

/// Reads a `KeyValue`; the value may be missing.
#[inline]
pub(super) fn key_value(mut wire: Wire<'_>) -> Result<(&[u8], Any<'_>), Fault> {
    let (mut key, mut value): (&[u8], _) = (&[], Any::Empty);
    while let Some(field) = wire.next()? {
        match field {
            (1, Field::Bytes(text)) => key = text.bytes(),
            (2, Field::Bytes(inner)) => value = any(inner)?,
            _ => {}
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
            while let Some(field) = wire.next()? {
                if let (1, Field::Bytes(element)) = field {
                    out.push_str(std::mem::replace(&mut separator, ","));
                    json(any(element)?, out, depth - 1)?;
                }
            }
            out.push(']');
        }
        Any::Map(mut wire) => {
            out.push('{');
            let mut separator = "";
            while let Some(field) = wire.next()? {
                if let (1, Field::Bytes(pair)) = field {
                    let (key, value) = key_value(pair)?;
                    out.push_str(std::mem::replace(&mut separator, ","));
                    render::json_string(out, utf8(key, KEY_NOT_UTF8)?);
                    out.push(':');
                    json(value, out, depth - 1)?;
                }
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
