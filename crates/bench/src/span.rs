//! Spans as a generator yields them and an encoder takes them.

use std::borrow::Cow;

use trine_model::{SpanId, TraceId};

/// A text that is mostly fixed.
pub type Text = Cow<'static, str>;

/// Value of an attribute.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Value {
    /// `string_value`
    Text(Text),
    /// `int_value`
    Int(i64),
}

impl From<&'static str> for Value {
    fn from(text: &'static str) -> Self {
        Self::Text(Cow::Borrowed(text))
    }
}

impl From<String> for Value {
    fn from(text: String) -> Self {
        Self::Text(Cow::Owned(text))
    }
}

impl From<i64> for Value {
    fn from(number: i64) -> Self {
        Self::Int(number)
    }
}

/// Attributes by their OpenTelemetry names.
pub type Attributes = Vec<(&'static str, Value)>;

/// What a span stands for; the numbers are those of OTLP.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Kind {
    /// Work inside a service.
    Internal = 1,
    /// A request is answered.
    Server = 2,
    /// A request is sent.
    Client = 3,
    /// A message is sent.
    Producer = 4,
    /// A message is worked on.
    Consumer = 5,
}

/// Something that happened inside a span.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// Unix nanoseconds.
    pub time_ns: i64,
    /// For example `exception`.
    pub name: &'static str,
    /// Attributes of the event.
    pub attributes: Attributes,
}

/// One span.
#[derive(Debug, Clone)]
pub struct Span {
    /// The trace it belongs to.
    pub trace_id: TraceId,
    /// Its own id.
    pub span_id: SpanId,
    /// Absent for the root.
    pub parent: Option<SpanId>,
    /// Index of its resource in the generator's streams.
    pub stream: usize,
    /// The operation.
    pub name: Text,
    /// What it stands for.
    pub kind: Kind,
    /// Unix nanoseconds.
    pub start_ns: i64,
    /// Unix nanoseconds.
    pub end_ns: i64,
    /// Message of the status ERROR; the status is UNSET without.
    pub error: Option<Text>,
    /// Attributes of the span.
    pub attributes: Attributes,
    /// In order of time.
    pub events: Vec<Event>,
}

impl Span {
    /// The value of an attribute.
    pub fn get(&self, key: &str) -> Option<&Value> {
        self.attributes.iter().find(|(k, _)| *k == key).map(|(_, v)| v)
    }
}
