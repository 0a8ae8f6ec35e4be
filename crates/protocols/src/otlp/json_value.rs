//! `AnyValue` of OTLP's JSON encoding as text.

use crate::{
    intake::{Fault, bad},
    json::{Json, Str, Value},
    render,
};

use super::value::TOO_DEEP;

const NOT_A_VALUE: &str = "a value is not an AnyValue object like {\"stringValue\":\"…\"}";

/// One `AnyValue`; containers are remembered by place.
#[derive(Debug, Clone, Copy)]
pub(super) enum Any<'a> {
    Empty,
    Text(Str<'a>),
    /// A number as spelled; quotes around it are gone.
    Number(&'a str),
    Bool(bool),
    /// Where the `ArrayValue` begins.
    Array(usize),
    /// Where the `KeyValueList` begins.
    Map(usize),
    /// Base64 as sent.
    Bytes(Str<'a>),
}

/// Reads an `AnyValue`; of several kinds the last one counts.
#[inline]
pub(super) fn any<'a>(json: &mut Json<'a>) -> Result<Any<'a>, Fault> {
    let mut value = Any::Empty;
    if json.null()? {
        return Ok(value);
    }
    if json.peek() != b'{' {
        return Err(bad(NOT_A_VALUE));
    }
    json.object()?;
    let mut first = true;
    while let Some(kind) = json.member(&mut first)? {
        let given = json.value()?;
        value = match (kind.raw(), given) {
            (_, Value::Null) => value,
            ("stringValue", Value::Str(text)) => Any::Text(text),
            ("boolValue", Value::Bool(truth)) => Any::Bool(truth),
            ("intValue", Value::Number(digits)) => Any::Number(integer(digits)?),
            ("intValue", Value::Str(digits)) => Any::Number(integer(digits.raw())?),
            ("doubleValue", Value::Number(number)) => Any::Number(number),
            ("doubleValue", Value::Str(number)) => Any::Number(double(number.raw())?),
            ("arrayValue", Value::Nested(at, _)) => Any::Array(at),
            ("kvlistValue", Value::Nested(at, _)) => Any::Map(at),
            ("bytesValue", Value::Str(base64)) => Any::Bytes(base64),
            (
                "stringValue" | "boolValue" | "intValue" | "doubleValue" | "arrayValue" | "kvlistValue"
                | "bytesValue",
                _,
            ) => return Err(bad("a value does not fit its kind, like {\"intValue\":true}")),
            _ => value,
        };
    }
    Ok(value)
}

fn integer(digits: &str) -> Result<&str, Fault> {
    match digits.parse::<i64>() {
        Ok(_) => Ok(digits),
        Err(_) => Err(bad("an intValue is not a 64-bit integer")),
    }
}

fn double(number: &str) -> Result<&str, Fault> {
    if matches!(number, "NaN" | "Infinity" | "-Infinity") || Json::new(number).number() == Ok(number) {
        Ok(number)
    } else {
        Err(bad("a doubleValue is not a number"))
    }
}

/// The value as plain text; `buffer` is used when it is not text already. Comes back at the place
/// where `json` stood.
#[inline]
pub(super) fn text<'s, 'a: 's>(
    value: Any<'a>,
    json: &mut Json<'a>,
    buffer: &'s mut String,
    depth: usize,
) -> Result<&'s str, Fault> {
    match value {
        Any::Text(text) | Any::Bytes(text) => Ok(text.text(buffer)),
        Any::Number(number) => Ok(number),
        Any::Bool(truth) => Ok(if truth { "true" } else { "false" }),
        Any::Empty => Ok(""),
        Any::Array(_) | Any::Map(_) => {
            buffer.clear();
            let back = json.position();
            render_json(value, json, buffer, depth)?;
            json.rewind(back);
            Ok(buffer)
        }
    }
}

/// Appends the value as JSON.
fn render_json<'a>(value: Any<'a>, json: &mut Json<'a>, out: &mut String, depth: usize) -> Result<(), Fault> {
    match value {
        Any::Empty => out.push_str("null"),
        Any::Text(text) | Any::Bytes(text) => render_str(out, text),
        Any::Number(word @ ("NaN" | "Infinity" | "-Infinity")) => render::json_string(out, word),
        Any::Number(number) => out.push_str(number),
        Any::Bool(truth) => out.push_str(if truth { "true" } else { "false" }),
        Any::Array(_) | Any::Map(_) if depth == 0 => return Err(bad(TOO_DEEP)),
        Any::Array(at) => {
            out.push('[');
            let mut separator = "";
            values(json, at, |json| {
                out.push_str(std::mem::replace(&mut separator, ","));
                let element = any(json)?;
                let back = json.position();
                render_json(element, json, out, depth - 1)?;
                json.rewind(back);
                Ok(())
            })?;
            out.push(']');
        }
        Any::Map(at) => {
            out.push('{');
            let mut separator = "";
            values(json, at, |json| {
                let (key, value) = key_value(json)?;
                out.push_str(std::mem::replace(&mut separator, ","));
                render_str(out, key);
                out.push(':');
                let back = json.position();
                render_json(value, json, out, depth - 1)?;
                json.rewind(back);
                Ok(())
            })?;
            out.push('}');
        }
    }
    Ok(())
}

/// A string is copied as spelled, which is JSON already.
fn render_str(out: &mut String, text: Str<'_>) {
    if text.as_plain().is_some() {
        out.push('"');
        out.push_str(text.raw());
        out.push('"');
    } else {
        // Lone surrogates must not survive into what we store.
        let mut plain = String::new();
        text.pieces(|piece| plain.push_str(piece));
        render::json_string(out, &plain);
    }
}

/// Runs over the `values` of the `ArrayValue` or `KeyValueList` at a place.
fn values<'a>(
    json: &mut Json<'a>,
    at: usize,
    mut each: impl FnMut(&mut Json<'a>) -> Result<(), Fault>,
) -> Result<(), Fault> {
    json.rewind(at);
    if json.peek() != b'{' {
        return Err(bad("an arrayValue or kvlistValue is not an object with values"));
    }
    json.object()?;
    let mut first = true;
    while let Some(name) = json.member(&mut first)? {
        if name.raw() != "values" || json.peek() != b'[' {
            json.skip()?;
            continue;
        }
        json.array()?;
        let mut first = true;
        while json.element(&mut first)? {
            each(json)?;
        }
    }
    Ok(())
}

/// Reads a `KeyValue`; the value may be missing.
#[inline]
pub(super) fn key_value<'a>(json: &mut Json<'a>) -> Result<(Str<'a>, Any<'a>), Fault> {
    if json.peek() != b'{' {
        return Err(bad("an attribute is not an object like {\"key\":\"…\",\"value\":{…}}"));
    }
    json.object()?;
    let (mut key, mut value) = (Str::plain(""), Any::Empty);
    let mut first = true;
    while let Some(name) = json.member(&mut first)? {
        match name.raw() {
            "key" => match json.value()? {
                Value::Str(text) => key = text,
                Value::Null => {}
                _ => return Err(bad("an attribute's key is not a string")),
            },
            "value" => value = any(json)?,
            _ => json.skip()?,
        }
    }
    Ok((key, value))
}
