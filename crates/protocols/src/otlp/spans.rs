//! What spans of both encodings share.

use std::fmt::Display;

use trine_model::{IdError, SpanId, TraceId};
use trine_schema::SpanBatchBuilder;

use super::DROPPED_COUNT;
use crate::{
    intake::{Fault, Intake, timestamp},
    span_intake::{Staged, kind, status},
};

/// Counts of what the sender left out of a span.
#[derive(Debug, Default)]
pub(super) struct Dropped {
    pub(super) attributes: u32,
    pub(super) events: u32,
    pub(super) links: u32,
}

impl Dropped {
    /// Counts other than 0 become attributes.
    #[inline]
    pub(super) fn stage(&self, intake: &mut Intake<'_, SpanBatchBuilder>, staged: &mut Staged) {
        for (name, count) in [
            (DROPPED_COUNT, self.attributes),
            ("otel.dropped_events_count", self.events),
            ("otel.dropped_links_count", self.links),
        ] {
            if count != 0 {
                intake.attribute_display(staged, name, count);
            }
        }
    }
}

/// The ids without which a span is rejected.
#[inline]
pub(super) fn id<T>(id: Result<T, IdError>) -> Result<T, Fault> {
    id.map_err(wrong)
}

/// A parent that is empty or of nothing but `zero` is none.
#[inline]
pub(super) fn parent<T>(
    id: &[u8],
    zero: u8,
    read: impl FnOnce(&[u8]) -> Result<T, IdError>,
) -> Result<Option<T>, Fault> {
    if id.iter().all(|digit| *digit == zero) {
        return Ok(None);
    }
    read(id).map(Some).map_err(|error| wrong(format_args!("the parent's id: {error}")))
}

/// Ends an event whose `attributes` are staged; the sender left out `dropped` more.
#[inline]
pub(super) fn end_event(
    intake: &mut Intake<'_, SpanBatchBuilder>,
    staged: &mut Staged,
    time: u64,
    name: &str,
    mut attributes: usize,
    dropped: u32,
) -> Result<(), Fault> {
    if dropped != 0 {
        attributes += 1;
        intake.builder.event_attribute_display(DROPPED_COUNT, dropped);
    }
    intake.event(staged, timestamp(time)?, name, attributes)
}

/// Ends a link in the same way. An id that is not valid is kept as all zero, since a link may tell something
/// without them (OpenTelemetry tracing API, "Link").
#[inline]
pub(super) fn end_link(
    intake: &mut Intake<'_, SpanBatchBuilder>,
    staged: &mut Staged,
    (trace_id, span_id): (Option<TraceId>, Option<SpanId>),
    trace_state: &str,
    mut attributes: usize,
    dropped: u32,
) -> Result<(), Fault> {
    if dropped != 0 {
        attributes += 1;
        intake.builder.link_attribute_display(DROPPED_COUNT, dropped);
    }
    let trace_id = trace_id.unwrap_or(TraceId([0; TraceId::LEN]));
    let span_id = span_id.unwrap_or(SpanId([0; SpanId::LEN]));
    intake.link(staged, (trace_id, span_id), trace_state, attributes)
}

#[cold]
fn wrong(error: impl Display) -> Fault {
    Fault::Record(error.to_string().into())
}

/// OTLP `SpanKind`; unknown ones count as unspecified.
#[inline]
pub(super) fn known_kind(number: i64) -> u8 {
    u8::try_from(number).ok().filter(|kind| *kind <= kind::CONSUMER).unwrap_or(kind::UNSPECIFIED)
}

/// OTLP `StatusCode`; unknown ones count as unset.
#[inline]
pub(super) fn known_status(number: i64) -> u8 {
    u8::try_from(number).ok().filter(|code| *code <= status::ERROR).unwrap_or(status::UNSET)
}
