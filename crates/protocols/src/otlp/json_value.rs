//! `AnyValue` of OTLP's JSON encoding as text.

use crate::{
    intake::{Fault, bad},
    json::{Json, Str, Value},
    render,
};

use super::value::TOO_DEEP;

const NOT_A_VALUE: &str = "a value is not an AnyValue object like {\"stringValue\":\"…\"}";

const NOT_A_LIST: &str = "an arrayValue or kvlistValue is not an object with values";
const NOT_A_PAIR: &str = "an attribute is not an object like {\"key\":\"…\",\"value\":{…}}";

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
        value = known(kind.raw(), given)?.unwrap_or(value);
    }
    Ok(value)
}

/// A member of an `AnyValue`; `None` when it is null or unknown.
#[inline]
fn known<'a>(kind: &str, given: Value<'a>) -> Result<Option<Any<'a>>, Fault> {
    Ok(Some(match (kind, given) {
        (_, Value::Null) => return Ok(None),
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
        _ => return Ok(None),
    }))
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
        Any::Array(at) | Any::Map(at) => {
            buffer.clear();
            let back = json.position();
            json.rewind(at);
            render_list(matches!(value, Any::Map(_)), json, buffer, depth)?;
            json.rewind(back);
            Ok(buffer)
        }
    }
}

/// Appends the `AnyValue` that is next as JSON, in one pass, so that nesting cannot multiply work.
fn render_any(json: &mut Json<'_>, out: &mut String, depth: usize) -> Result<(), Fault> {
    if json.null()? {
        out.push_str("null");
        return Ok(());
    }
    if json.peek() != b'{' {
        return Err(bad(NOT_A_VALUE));
    }
    json.object()?;
    let start = out.len();
    let mut first = true;
    while let Some(kind) = json.member(&mut first)? {
        let map = kind.raw() == "kvlistValue";
        if (map || kind.raw() == "arrayValue") && json.peek() == b'{' {
            out.truncate(start);
            render_list(map, json, out, depth)?;
            continue;
        }
        let given = json.value()?;
        let Some(value) = known(kind.raw(), given)? else { continue };
        out.truncate(start);
        match value {
            Any::Text(text) | Any::Bytes(text) => render_str(out, text),
            Any::Number(word @ ("NaN" | "Infinity" | "-Infinity")) => render::json_string(out, word),
            Any::Number(number) => out.push_str(number),
            Any::Bool(truth) => out.push_str(if truth { "true" } else { "false" }),
            Any::Empty | Any::Array(_) | Any::Map(_) => return Err(bad(NOT_A_LIST)),
        }
    }
    if out.len() == start {
        out.push_str("null");
    }
    Ok(())
}

/// Appends the `ArrayValue` or `KeyValueList` that is next as JSON.
fn render_list(map: bool, json: &mut Json<'_>, out: &mut String, depth: usize) -> Result<(), Fault> {
    if depth == 0 {
        return Err(bad(TOO_DEEP));
    }
    if json.peek() != b'{' {
        return Err(bad(NOT_A_LIST));
    }
    json.object()?;
    out.push(if map { '{' } else { '[' });
    let mut separator = "";
    let mut first = true;
    while let Some(name) = json.member(&mut first)? {
        if name.raw() != "values" || json.peek() != b'[' {
            json.skip()?;
            continue;
        }
        json.array()?;
        let mut first = true;
        while json.element(&mut first)? {
            out.push_str(std::mem::replace(&mut separator, ","));
            if map {
                render_pair(json, out, depth - 1)?;
            } else {
                render_any(json, out, depth - 1)?;
            }
        }
    }
    out.push(if map { '}' } else { ']' });
    Ok(())
}

/// Appends the `KeyValue` that is next as a JSON member.
fn render_pair(json: &mut Json<'_>, out: &mut String, depth: usize) -> Result<(), Fault> {
    if json.peek() != b'{' {
        return Err(bad(NOT_A_PAIR));
    }
    json.object()?;
    let start = out.len();
    let mut key = None;
    let mut keyed = false;
    let mut first = true;
    while let Some(name) = json.member(&mut first)? {
        match name.raw() {
            "key" => key = Some(key_text(json.value()?)?),
            "value" => {
                out.truncate(start);
                keyed = key.is_some();
                if let Some(key) = key {
                    render_str(out, key);
                    out.push(':');
                }
                render_any(json, out, depth)?;
            }
            _ => json.skip()?,
        }
    }
    if out.len() == start {
        out.push_str("null");
    }
    if !keyed {
        // The value came before its key, or one of them not at all.
        let mut member = String::new();
        render_str(&mut member, key.unwrap_or(Str::plain("")));
        member.push(':');
        out.insert_str(start, &member);
    }
    Ok(())
}

fn key_text(value: Value<'_>) -> Result<Str<'_>, Fault> {
    match value {
        Value::Str(text) => Ok(text),
        Value::Null => Ok(Str::plain("")),
        _ => Err(bad("an attribute's key is not a string")),
    }
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

/// Reads a `KeyValue`; the value may be missing.
#[inline]
pub(super) fn key_value<'a>(json: &mut Json<'a>) -> Result<(Str<'a>, Any<'a>), Fault> {
    if json.peek() != b'{' {
        return Err(bad(NOT_A_PAIR));
    }
    json.object()?;
    let (mut key, mut value) = (Str::plain(""), Any::Empty);
    let mut first = true;
    while let Some(name) = json.member(&mut first)? {
        match name.raw() {
            "key" => key = key_text(json.value()?)?,
            "value" => value = any(json)?,
            _ => json.skip()?,
        }
    }
    Ok((key, value))
}

/// Reads a `KeyValue` as text; the buffers are used when key or value are not plain text already.
#[inline]
pub(super) fn pair<'s, 'a: 's>(
    json: &mut Json<'a>,
    key_buffer: &'s mut String,
    buffer: &'s mut String,
    depth: usize,
) -> Result<(&'s str, &'s str), Fault> {
    let (key, value) = key_value(json)?;
    Ok((key.text(key_buffer), text(value, json, buffer, depth)?))
}
