//! Protobuf by hand, and the messages that all OTLP signals share.

use crate::record::StreamLabels;
use crate::span::{Attributes, Value};

/// Wire types.
const VARINT: u32 = 0;
const FIXED64: u32 = 1;
const BYTES: u32 = 2;
/// Bytes of the longest length that a message begins with.
const MAX_LENGTH: usize = 5;

pub(super) fn varint(mut value: u64, out: &mut Vec<u8>) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

fn tag(field: u32, wire: u32, out: &mut Vec<u8>) {
    varint(u64::from(field << 3 | wire), out);
}

pub(super) fn number(field: u32, value: u64, out: &mut Vec<u8>) {
    tag(field, VARINT, out);
    varint(value, out);
}

/// `sint32` and `sint64`.
pub(super) fn signed(field: u32, value: i64, out: &mut Vec<u8>) {
    number(field, (value << 1 ^ value >> 63) as u64, out);
}

pub(super) fn fixed64(field: u32, value: u64, out: &mut Vec<u8>) {
    tag(field, FIXED64, out);
    out.extend_from_slice(&value.to_le_bytes());
}

pub(super) fn double(field: u32, value: f64, out: &mut Vec<u8>) {
    fixed64(field, value.to_bits(), out);
}

pub(super) fn bytes(field: u32, value: &[u8], out: &mut Vec<u8>) {
    tag(field, BYTES, out);
    varint(value.len() as u64, out);
    out.extend_from_slice(value);
}

/// Appends a message whose length is known only when it is written.
pub(super) fn message(field: u32, out: &mut Vec<u8>, write: impl FnOnce(&mut Vec<u8>)) {
    tag(field, BYTES, out);
    let at = out.len();
    write(out);
    let mut prefix = Vec::with_capacity(MAX_LENGTH);
    varint((out.len() - at) as u64, &mut prefix);
    out.splice(at..at, prefix);
}

/// `repeated fixed64`, `repeated double` or `repeated uint64` as one run.
pub(super) fn packed<T: Copy>(field: u32, values: &[T], out: &mut Vec<u8>, put: impl Fn(T, &mut Vec<u8>)) {
    if !values.is_empty() {
        message(field, out, |out| values.iter().for_each(|value| put(*value, out)));
    }
}

/// `KeyValue` with a text.
pub(super) fn text_value(field: u32, key: &str, value: &str, out: &mut Vec<u8>) {
    message(field, out, |out| {
        bytes(1, key.as_bytes(), out);
        message(2, out, |out| bytes(1, value.as_bytes(), out));
    });
}

/// Each attribute as a `KeyValue`.
pub(super) fn key_values(field: u32, attributes: &Attributes, out: &mut Vec<u8>) {
    for (key, value) in attributes {
        match value {
            Value::Text(text) => text_value(field, key, text, out),
            Value::Int(int) => message(field, out, |out| {
                bytes(1, key.as_bytes(), out);
                message(2, out, |out| number(3, *int as u64, out));
            }),
        }
    }
}

/// `Resource` as field 1 of a `ResourceLogs`, `ResourceSpans` or `ResourceMetrics`.
pub(super) fn resource(stream: &StreamLabels, out: &mut Vec<u8>) {
    message(1, out, |out| {
        for (key, value) in stream.resource() {
            text_value(1, key, value, out);
        }
    });
}

/// `InstrumentationScope` as field 1 of a `ScopeSpans` or `ScopeMetrics`.
pub(super) fn scope(out: &mut Vec<u8>) {
    message(1, out, |out| bytes(1, SCOPE.as_bytes(), out));
}

/// Name of the scope that made-up spans and metrics come from.
pub(super) const SCOPE: &str = "shop";
