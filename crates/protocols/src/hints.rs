//! Field names that senders use for severity and ids, and what their values mean.

use trine_model::{Severity, SpanId, TraceId};

/// Names of the severity word in Loki's labels and structured metadata, by falling preference.
pub(crate) const LEVEL_NAMES: [&str; 4] = ["level", "severity", "severity_text", "detected_level"];

/// What a piece of structured metadata turned out to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Hint<'a> {
    TraceId(TraceId),
    SpanId(SpanId),
    /// Severity and the word.
    Level(Severity, &'a str),
    /// Just an attribute.
    None,
}

/// Whether a pair belongs into a column of its own. Pairs whose value does not fit stay attributes.
#[inline]
pub(crate) fn hint<'a>(name: &str, value: &'a str) -> Hint<'a> {
    match name {
        "trace_id" | "traceid" | "traceId" | "traceID" | "trace.id" => {
            TraceId::from_hex(value.as_bytes()).map_or(Hint::None, Hint::TraceId)
        }
        "span_id" | "spanid" | "spanId" | "spanID" | "span.id" => {
            SpanId::from_hex(value.as_bytes()).map_or(Hint::None, Hint::SpanId)
        }
        _ if LEVEL_NAMES.contains(&name) => {
            Severity::from_text(value).map_or(Hint::None, |severity| Hint::Level(severity, value))
        }
        _ => Hint::None,
    }
}
