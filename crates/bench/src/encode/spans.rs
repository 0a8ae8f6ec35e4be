//! Spans as an `ExportTraceServiceRequest`: field tags are those of
//! `opentelemetry/proto/trace/v1/trace.proto`.

use super::protobuf::{bytes, fixed64, key_values, message, number, resource, scope};
use crate::record::StreamLabels;
use crate::span::Span;

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
