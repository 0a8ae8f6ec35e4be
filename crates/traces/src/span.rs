//! One span with everything that was sent about it.

use std::{
    hash::{Hash, Hasher},
    ops::Deref,
    sync::Arc,
};

use trine_model::{SpanId, TraceId};
use trine_schema::Stream;

/// OTLP `SpanKind`.
#[allow(missing_docs)] // the names are the specification's
pub mod kind {
    pub const INTERNAL: u8 = 1;
    pub const SERVER: u8 = 2;
    pub const CLIENT: u8 = 3;
    pub const PRODUCER: u8 = 4;
    pub const CONSUMER: u8 = 5;
}

/// OTLP `StatusCode`.
#[allow(missing_docs)] // the names are the specification's
pub mod status {
    pub const UNSET: u8 = 0;
    pub const OK: u8 = 1;
    pub const ERROR: u8 = 2;
}

/// Pairs in order of key.
pub type Attributes = Vec<(Box<str>, Box<str>)>;

/// Who sent a span: the stream whose labels are the attributes of the OTLP resource.
#[derive(Debug, Clone)]
pub struct Resource(pub Arc<Stream>);

impl Deref for Resource {
    type Target = Stream;

    fn deref(&self) -> &Stream {
        &self.0
    }
}

impl PartialEq for Resource {
    fn eq(&self, other: &Self) -> bool {
        self.0.id == other.0.id
    }
}

impl Eq for Resource {}

impl Hash for Resource {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.0.id.hash(state);
    }
}

/// A span of a [`crate::Trace`].
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Span {
    /// Who sent it.
    pub resource: Resource,
    /// Nanoseconds since 1970.
    pub start: i64,
    /// End minus start in nanoseconds; negative when the sender's clock went back.
    pub duration: i64,
    /// Its id; may repeat within a trace.
    pub id: SpanId,
    /// The span it says it is a part of.
    pub parent_id: Option<SpanId>,
    /// Its name.
    pub operation: Box<str>,
    /// OTLP `SpanKind`, 0 to 5.
    pub kind: u8,
    /// OTLP `StatusCode`, 0 to 2.
    pub status_code: u8,
    /// Empty when none.
    pub status_message: Box<str>,
    /// W3C `tracestate`, empty when none.
    pub trace_state: Box<str>,
    /// W3C trace flags.
    pub trace_flags: u32,
    /// Instrumentation scope, empty when none.
    pub scope_name: Box<str>,
    /// Its attributes; those of its scope are among them as `otel.scope.…`.
    pub attributes: Attributes,
    /// In order of time.
    pub events: Vec<Event>,
    /// Other spans it names.
    pub links: Vec<Link>,
    /// How often this very span was stored; senders repeat what they think was lost.
    pub copies: u32,
}

impl Span {
    /// Name of the service; empty when the resource names none.
    pub fn service(&self) -> &str {
        self.resource.service()
    }

    /// Nanoseconds since 1970; before the start when the duration is negative.
    pub fn end(&self) -> i64 {
        self.start.saturating_add(self.duration)
    }

    /// Whether it failed.
    pub fn is_error(&self) -> bool {
        self.status_code == status::ERROR
    }
}

/// Something that happened during a span.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Event {
    /// Nanoseconds since 1970.
    pub timestamp: i64,
    /// Its name.
    pub name: Box<str>,
    /// Its attributes.
    pub attributes: Attributes,
}

/// Another span, of this or another trace. An id that the sender wrote wrongly is all zero.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Link {
    /// The other trace.
    pub trace_id: TraceId,
    /// The other span.
    pub span_id: SpanId,
    /// W3C `tracestate`, empty when none.
    pub trace_state: Box<str>,
    /// Attributes of the link.
    pub attributes: Attributes,
}
