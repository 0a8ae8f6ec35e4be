//! Protobuf: field numbers of opentelemetry-proto's `trace.proto`, `common.proto` and Tempo's `tempo.proto`.

use super::group::{group, unfold};
use crate::{Span, Trace, wire::Message};

/// `TracesData`, which is also Tempo's `Trace` and an `ExportTraceServiceRequest`. `copies` tells a span as often
/// as it was stored, else once.
pub fn encode_protobuf(trace: &Trace, copies: bool) -> Vec<u8> {
    let mut message = Message::default();
    traces_data(&mut message, trace, copies);
    message.finish()
}

/// Tempo's `TraceByIDResponse`. Without a trace it holds an empty one, as Tempo's does. `missing` says what
/// is not in the trace, empty when it is complete.
pub fn encode_tempo_v2_protobuf(trace: Option<&Trace>, missing: &str) -> Vec<u8> {
    const PARTIAL: u64 = 1;
    let mut message = Message::default();
    message.message(1, |message| {
        if let Some(trace) = trace {
            traces_data(message, trace, false);
        }
    });
    message.message(2, |_metrics| {});
    if !missing.is_empty() {
        message.varint(3, PARTIAL);
        message.bytes(4, missing.as_bytes());
    }
    message.finish()
}

fn traces_data(message: &mut Message, trace: &Trace, copies: bool) {
    for resource in group(trace, copies) {
        message.message(1, |message| {
            message.message(1, |message| attributes(message, 1, resource.resource.labels.iter()));
            for scope in &resource.scopes {
                message.message(2, |message| {
                    message.message(1, |message| {
                        message.bytes(1, scope.name.as_bytes());
                        message.bytes(2, scope.version.as_bytes());
                        attributes(message, 3, scope.attributes.iter().copied());
                    });
                    for span in &scope.spans {
                        message.message(2, |message| write_span(message, trace, span));
                    }
                });
            }
        });
    }
}

fn attributes<'a>(message: &mut Message, field: u32, pairs: impl Iterator<Item = (&'a str, &'a str)>) {
    for (key, value) in pairs {
        message.message(field, |message| {
            message.bytes(1, key.as_bytes());
            message.message(2, |message| message.required_bytes(1, value.as_bytes()));
        });
    }
}

/// Times before 1970 have no form in OTLP.
pub(super) fn unsigned(timestamp: i64) -> u64 {
    u64::try_from(timestamp).unwrap_or(0)
}

fn write_span(message: &mut Message, trace: &Trace, span: &Span) {
    let (own, dropped) = unfold(&span.attributes);
    message.bytes(1, &trace.id.0);
    message.bytes(2, &span.id.0);
    message.bytes(3, span.trace_state.as_bytes());
    message.bytes(4, span.parent_id.as_ref().map_or(&[], |id| &id.0));
    message.bytes(5, span.operation.as_bytes());
    message.varint(6, u64::from(span.kind));
    message.fixed64(7, unsigned(span.start));
    message.fixed64(8, unsigned(span.end()));
    attributes(message, 9, own.into_iter());
    message.varint(10, u64::from(dropped.attributes));
    for event in &span.events {
        message.message(11, |message| {
            let (own, dropped) = unfold(&event.attributes);
            message.fixed64(1, unsigned(event.timestamp));
            message.bytes(2, event.name.as_bytes());
            attributes(message, 3, own.into_iter());
            message.varint(4, u64::from(dropped.attributes));
        });
    }
    message.varint(12, u64::from(dropped.events));
    for link in &span.links {
        message.message(13, |message| {
            let (own, dropped) = unfold(&link.attributes);
            message.bytes(1, &link.trace_id.0);
            message.bytes(2, &link.span_id.0);
            message.bytes(3, link.trace_state.as_bytes());
            attributes(message, 4, own.into_iter());
            message.varint(5, u64::from(dropped.attributes));
        });
    }
    message.varint(14, u64::from(dropped.links));
    message.message(15, |message| {
        message.bytes(2, span.status_message.as_bytes());
        message.varint(3, u64::from(span.status_code));
    });
    message.fixed32(16, span.trace_flags);
}
