//! What the decoders of spans share: rows of spans, their events and links, and their bounds.

use std::fmt::Display;

use trine_model::{SpanId, TenantId, TraceId};
use trine_schema::{Span, SpanBatch, SpanBatchBuilder};

use crate::intake::{ATTRIBUTE_BYTES, Fault, Intake, Rows};

/// What an event and a link cost besides their text, in bytes; for [`crate::Limits::max_expanded_bytes`].
const EVENT_BYTES: usize = 16;
const LINK_BYTES: usize = 32;

/// OTLP `SpanKind`.
pub(crate) mod kind {
    pub(crate) const UNSPECIFIED: u8 = 0;
    pub(crate) const INTERNAL: u8 = 1;
    pub(crate) const SERVER: u8 = 2;
    pub(crate) const CLIENT: u8 = 3;
    pub(crate) const PRODUCER: u8 = 4;
    pub(crate) const CONSUMER: u8 = 5;
}

/// OTLP `StatusCode`.
pub(crate) mod status {
    pub(crate) const UNSET: u8 = 0;
    pub(crate) const OK: u8 = 1;
    pub(crate) const ERROR: u8 = 2;
}

impl Rows for SpanBatchBuilder {
    type Batch = SpanBatch;

    fn new(tenant: TenantId, rows: usize, bytes: usize) -> Self {
        Self::with_room(tenant, rows, bytes)
    }

    fn len(&self) -> usize {
        self.len()
    }

    #[inline]
    fn text_bytes(&self) -> usize {
        self.text_bytes()
    }

    #[inline]
    fn attribute(&mut self, key: &str, value: &str) {
        self.attribute(key, value);
    }

    fn discard(&mut self) {
        self.discard();
    }

    fn finish(self) -> SpanBatch {
        self.finish()
    }
}

/// What was staged for one span.
#[derive(Debug, Default)]
pub(crate) struct Staged {
    /// Attributes of the span itself.
    attributes: usize,
    events: usize,
    links: usize,
    /// Bytes of events and links that [`Rows::text_bytes`] does not count.
    bytes: usize,
}

impl Staged {
    /// `attributes` are staged already.
    #[inline]
    pub(crate) fn new(attributes: usize) -> Self {
        Self { attributes, ..Self::default() }
    }
}

impl Intake<'_, SpanBatchBuilder> {
    /// Stages an attribute that is no part of what the sender is bound to.
    pub(crate) fn attribute_display(&mut self, staged: &mut Staged, key: &str, value: impl Display) {
        staged.attributes += 1;
        self.builder.attribute_display(key, value);
    }

    /// Stages an attribute of the span.
    #[inline]
    pub(crate) fn attribute(&mut self, staged: &mut Staged, key: &str, value: &str) -> Result<(), Fault> {
        staged.attributes += 1;
        self.check_attributes(staged.attributes)?;
        self.builder.attribute(key, value);
        Ok(())
    }

    /// Stages an event whose `attributes` are staged (nanoseconds since 1970).
    #[inline]
    pub(crate) fn event(
        &mut self,
        staged: &mut Staged,
        timestamp: i64,
        name: &str,
        attributes: usize,
    ) -> Result<(), Fault> {
        staged.events += 1;
        self.check_parts(staged.events, "events")?;
        staged.bytes += EVENT_BYTES + ATTRIBUTE_BYTES * attributes;
        self.builder.event(timestamp, name);
        Ok(())
    }

    /// Stages a link whose `attributes` are staged. An id that is not known is all zero.
    #[inline]
    pub(crate) fn link(
        &mut self,
        staged: &mut Staged,
        (trace_id, span_id): (TraceId, SpanId),
        trace_state: &str,
        attributes: usize,
    ) -> Result<(), Fault> {
        staged.links += 1;
        self.check_parts(staged.links, "links")?;
        staged.bytes += LINK_BYTES + trace_state.len() + ATTRIBUTE_BYTES * attributes;
        self.builder.link(trace_id, span_id, trace_state);
        Ok(())
    }

    fn check_parts(&self, count: usize, what: &str) -> Result<(), Fault> {
        let limit = self.limits.max_events_per_span;
        if count <= limit {
            return Ok(());
        }
        Err(Fault::Record(format!("the span has more than {limit} {what}; send fewer").into()))
    }

    /// Closes the row with what was staged.
    #[inline]
    pub(crate) fn push(&mut self, span: &Span<'_>, staged: &Staged) {
        self.builder.push(span);
        let texts = span.scope_name.len() + span.status_message.len() + span.trace_state.len();
        self.closed(span.timestamp, staged.bytes + ATTRIBUTE_BYTES * staged.attributes + texts);
    }
}

/// Start and duration of a span whose sender gave both ends (nanoseconds since 1970, 0 when not known).
/// Without a start the end stands in, then the time of arrival; without an end the duration is 0.
#[inline]
pub(crate) fn interval(start: i64, end: i64, now_ns: i64) -> (i64, i64) {
    match (start, end) {
        (0, 0) => (now_ns, 0),
        (0, end) => (end, 0),
        (start, 0) => (start, 0),
        (start, end) => (start, end - start),
    }
}

/// Nanoseconds from microseconds, of a time since 1970 or a duration.
#[inline]
pub(crate) fn microseconds(count: i64) -> Result<i64, Fault> {
    count.checked_mul(1000).ok_or_else(|| {
        Fault::Record(format!("{count} microseconds are more than 292 years; send microseconds").into())
    })
}

/// What the tags of systems with fewer columns say about ours. `T` is a text of the request.
#[derive(Debug, Default)]
pub(crate) struct Told<T> {
    pub(crate) kind: u8,
    error: Option<T>,
    /// Whether the error is more than a flag.
    error_text: bool,
    status_code: u8,
    status_message: Option<T>,
    pub(crate) trace_state: T,
    pub(crate) scope_name: T,
}

impl<T: Copy + Default> Told<T> {
    /// Takes a tag that speaks of a column; `word` is the value as spelled.
    #[inline]
    pub(crate) fn take(&mut self, key: &str, word: &str, value: T) -> bool {
        match key {
            "error" if word != "false" => {
                self.error = Some(value);
                self.error_text = !matches!(word, "true" | "");
            }
            "span.kind" => match kind_by_name(word) {
                Some(kind) => self.kind = kind,
                None => return false,
            },
            "otel.status_code" => match status_by_name(word) {
                Some(code) => self.status_code = code,
                None => return false,
            },
            "otel.status_description" => self.status_message = Some(value),
            "w3c.tracestate" => self.trace_state = value,
            // A scope was a library once.
            _ if matches!(key.strip_prefix("otel."), Some("scope.name" | "library.name")) => {
                self.scope_name = value;
            }
            _ => return false,
        }
        true
    }

    /// Code and message. An error is one whatever else is said.
    pub(crate) fn status(&self) -> (u8, T) {
        let code = if self.error.is_some() { status::ERROR } else { self.status_code };
        let text = self.error.filter(|_| self.error_text);
        (code, self.status_message.or(text).unwrap_or_default())
    }
}

/// OpenTracing's names of kinds, and OpenTelemetry's fifth.
fn kind_by_name(name: &str) -> Option<u8> {
    match name {
        "internal" => Some(kind::INTERNAL),
        "server" => Some(kind::SERVER),
        "client" => Some(kind::CLIENT),
        "producer" => Some(kind::PRODUCER),
        "consumer" => Some(kind::CONSUMER),
        _ => None,
    }
}

/// A status code by the name that OpenTelemetry's exporters write.
fn status_by_name(name: &str) -> Option<u8> {
    match name.strip_prefix("STATUS_CODE_").unwrap_or(name) {
        "UNSET" => Some(status::UNSET),
        "OK" => Some(status::OK),
        "ERROR" => Some(status::ERROR),
        _ => None,
    }
}
