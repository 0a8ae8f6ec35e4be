//! What a generator yields and what an encoder takes.

use trine_model::{Level, SpanId, TraceId};

/// Labels of one stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StreamLabels {
    /// Label `service_name`; resource attribute `service.name` in OTLP.
    pub service: String,
    /// Label `pod`; resource attribute `k8s.pod.name` in OTLP.
    pub pod: String,
    /// Label `namespace`; resource attribute `k8s.namespace.name` in OTLP.
    pub namespace: String,
}

impl StreamLabels {
    /// The labels as attributes of an OpenTelemetry resource.
    pub fn resource(&self) -> [(&'static str, &str); 3] {
        [
            ("service.name", &self.service),
            ("k8s.pod.name", &self.pod),
            ("k8s.namespace.name", &self.namespace),
        ]
    }
}

/// One log record. Its buffers are meant to be reused from record to record.
#[derive(Debug, Clone)]
pub struct Record {
    /// Nanoseconds since the Unix epoch. Sources never repeat one.
    pub timestamp_ns: i64,
    /// Index in [`Source::streams`].
    pub stream: usize,
    /// Level of the line.
    pub level: Level,
    /// The body.
    pub line: String,
    /// The trace the record belongs to.
    pub trace_id: Option<TraceId>,
    /// The span the record belongs to.
    pub span_id: Option<SpanId>,
    /// Attributes of the record; structured metadata in Loki.
    pub attributes: Vec<(&'static str, String)>,
}

impl Default for Record {
    fn default() -> Self {
        Self {
            timestamp_ns: 0,
            stream: 0,
            level: Level::Unset,
            line: String::new(),
            trace_id: None,
            span_id: None,
            attributes: Vec::new(),
        }
    }
}

/// An endless, deterministic supply of records in order of time.
pub trait Source {
    /// All streams records refer to. Fixed for the life of the source.
    fn streams(&self) -> &[StreamLabels];

    /// Overwrites `record` with the next one.
    fn next_into(&mut self, record: &mut Record);

    /// A text that stands inside many lines, for the question that counts.
    fn common_substring(&self) -> &'static str;
}

/// Severity number of a level: the lowest of its family, 0 when unset.
pub const fn severity_number(level: Level) -> u8 {
    match level {
        Level::Unset => 0,
        Level::Trace => 1,
        Level::Debug => 5,
        Level::Info => 9,
        Level::Warn => 13,
        Level::Error => 17,
        Level::Fatal => 21,
    }
}
