//! Spans as an `ExportTraceServiceRequest`: field tags are those of
//! `opentelemetry/proto/trace/v1/trace.proto`; and as rows of `ClickHouse`.

use super::protobuf::{bytes, fixed64, key_values, message, number, resource, scope, varint};
use crate::record::StreamLabels;
use crate::span::{Attributes, Kind, Span, Value};

/// `STATUS_CODE_ERROR`
pub(super) const ERROR: u64 = 2;

/// Appends the spans as one body, those of one resource together.
pub fn otlp_spans(spans: &[Span], streams: &[StreamLabels], out: &mut Vec<u8>) {
    for members in by_stream(spans) {
        message(1, out, |out| {
            resource(&streams[members[0].stream], out);
            message(2, out, |out| {
                scope(out);
                members.iter().for_each(|span| otlp_span(span, out));
            });
        });
    }
}

/// The spans of each stream in their order.
pub(super) fn by_stream(spans: &[Span]) -> Vec<Vec<&Span>> {
    let mut order: Vec<&Span> = spans.iter().collect();
    order.sort_by_key(|span| span.stream);
    order.chunk_by(|a, b| a.stream == b.stream).map(<[&Span]>::to_vec).collect()
}

fn otlp_span(span: &Span, out: &mut Vec<u8>) {
    message(2, out, |out| {
        bytes(1, &span.trace_id.0, out);
        bytes(2, &span.span_id.0, out);
        if let Some(parent) = span.parent {
            bytes(4, &parent.0, out);
        }
        bytes(5, span.name.as_bytes(), out);
        number(6, span.kind as u64, out);
        fixed64(7, span.start_ns as u64, out);
        fixed64(8, span.end_ns as u64, out);
        key_values(9, &span.attributes, out);
        for event in &span.events {
            message(11, out, |out| {
                fixed64(1, event.time_ns as u64, out);
                bytes(2, event.name.as_bytes(), out);
                key_values(3, &event.attributes, out);
            });
        }
        if let Some(error) = &span.error {
            message(15, out, |out| {
                if !error.is_empty() {
                    bytes(2, error.as_bytes(), out);
                }
                number(3, ERROR, out);
            });
        }
    });
}

/// Appends the spans as `RowBinary`: start, duration, trace id, span id, parent, name, kind, service, resource,
/// attributes, status, message, and of the events their times, names and attributes.
pub fn row_binary_spans(spans: &[Span], streams: &[StreamLabels], out: &mut Vec<u8>) {
    for span in spans {
        let stream = &streams[span.stream];
        out.extend_from_slice(&span.start_ns.to_le_bytes());
        out.extend_from_slice(&(span.end_ns - span.start_ns).to_le_bytes());
        text(&span.trace_id.to_string(), out);
        text(&span.span_id.to_string(), out);
        text(&span.parent.map(|id| id.to_string()).unwrap_or_default(), out);
        text(&span.name, out);
        text(kind_name(span.kind), out);
        text(&stream.service, out);
        list(&stream.resource(), out, |(key, value), out| {
            text(key, out);
            text(value, out);
        });
        map(&span.attributes, out);
        text(if span.error.is_some() { "Error" } else { "Unset" }, out);
        text(span.error.as_deref().unwrap_or_default(), out);
        list(&span.events, out, |event, out| out.extend_from_slice(&event.time_ns.to_le_bytes()));
        list(&span.events, out, |event, out| text(event.name, out));
        list(&span.events, out, |event, out| map(&event.attributes, out));
    }
}

fn text(value: &str, out: &mut Vec<u8>) {
    varint(value.len() as u64, out);
    out.extend_from_slice(value.as_bytes());
}

fn list<T>(items: &[T], out: &mut Vec<u8>, put: impl Fn(&T, &mut Vec<u8>)) {
    varint(items.len() as u64, out);
    items.iter().for_each(|item| put(item, out));
}

fn map(attributes: &Attributes, out: &mut Vec<u8>) {
    list(attributes, out, |(key, value), out| {
        text(key, out);
        match value {
            Value::Text(value) => text(value, out),
            Value::Int(value) => text(&value.to_string(), out),
        }
    });
}

/// As the collector's exporter for `ClickHouse` writes it.
const fn kind_name(kind: Kind) -> &'static str {
    match kind {
        Kind::Internal => "Internal",
        Kind::Server => "Server",
        Kind::Client => "Client",
        Kind::Producer => "Producer",
        Kind::Consumer => "Consumer",
    }
}
