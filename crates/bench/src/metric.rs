//! Metrics as an instrumented application exports them: the point kinds of OTLP, all cumulative.

use trine_model::{SpanId, TraceId};

use crate::span::Attributes;

/// A measurement that tells the trace it was made in.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Exemplar {
    /// Unix nanoseconds.
    pub time_ns: i64,
    /// The value measured.
    pub value: f64,
    /// The trace.
    pub trace_id: TraceId,
    /// The span.
    pub span_id: SpanId,
}

/// A number at a time.
#[derive(Debug, Clone)]
pub struct Number {
    /// What tells the series apart.
    pub attributes: Attributes,
    /// The value.
    pub value: f64,
    /// Measurements since the last export.
    pub exemplar: Option<Exemplar>,
}

/// A histogram with explicit bounds.
#[derive(Debug, Clone)]
pub struct Histogram {
    /// What tells the series apart.
    pub attributes: Attributes,
    /// Sum of all values.
    pub sum: f64,
    /// Values by bucket; one more than bounds.
    pub counts: Vec<u64>,
    /// Measurements since the last export.
    pub exemplar: Option<Exemplar>,
}

/// A histogram with exponential buckets, positive values only.
#[derive(Debug, Clone)]
pub struct ExponentialHistogram {
    /// What tells the series apart.
    pub attributes: Attributes,
    /// Sum of all values.
    pub sum: f64,
    /// Bucket `i` of scale `s` holds values in `(2^(i / 2^s), 2^((i + 1) / 2^s)]`.
    pub scale: i32,
    /// Index of the first count.
    pub offset: i32,
    /// Values by bucket.
    pub counts: Vec<u64>,
    /// Measurements since the last export.
    pub exemplar: Option<Exemplar>,
}

/// Points of one metric.
#[derive(Debug, Clone)]
pub enum Points {
    /// Values that go up and down.
    Gauge(Vec<Number>),
    /// Counters: monotonic, cumulative.
    Sum(Vec<Number>),
    /// Cumulative histograms that share their bounds.
    Histogram(&'static [f64], Vec<Histogram>),
    /// Cumulative exponential histograms.
    ExponentialHistogram(Vec<ExponentialHistogram>),
}

impl Points {
    /// Number of points.
    pub const fn len(&self) -> usize {
        match self {
            Self::Gauge(points) | Self::Sum(points) => points.len(),
            Self::Histogram(_, points) => points.len(),
            Self::ExponentialHistogram(points) => points.len(),
        }
    }

    /// Whether there is none.
    pub const fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// One metric of one process.
#[derive(Debug, Clone)]
pub struct Metric {
    /// OpenTelemetry name.
    pub name: &'static str,
    /// UCUM unit.
    pub unit: &'static str,
    /// What it counts.
    pub description: &'static str,
    /// Its points.
    pub points: Points,
}

/// What one process exports at one time.
#[derive(Debug, Clone)]
pub struct Export {
    /// Index of its resource in the generator's streams.
    pub stream: usize,
    /// When the process began to count, Unix nanoseconds.
    pub start_ns: i64,
    /// Unix nanoseconds.
    pub time_ns: i64,
    /// Its metrics.
    pub metrics: Vec<Metric>,
}

impl Export {
    /// Points of all metrics.
    pub fn points(&self) -> usize {
        self.metrics.iter().map(|m| m.points.len()).sum()
    }
}
