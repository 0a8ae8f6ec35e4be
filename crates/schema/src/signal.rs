//! The kinds of telemetry, and a batch of any of them.

use std::fmt;

use arrow::{array::RecordBatch, datatypes::SchemaRef};
use trine_model::TenantId;

use crate::{LogBatch, MetricBatch, SpanBatch};

/// A kind of telemetry. Each has a table of its own; in all of them column 0 is `stream` and column 1
/// `timestamp`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Signal {
    /// Log records.
    Logs,
    /// Spans of traces.
    Spans,
    /// Samples of metrics, with their exemplars and metadata.
    Metrics,
}

/// Position of `stream` in every table.
pub const STREAM: usize = 0;
/// Position of `timestamp` in every table.
pub const TIMESTAMP: usize = 1;

impl Signal {
    /// All of them, in a fixed order.
    pub const ALL: [Self; 3] = [Self::Logs, Self::Spans, Self::Metrics];

    /// `logs`, `spans` or `metrics`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Logs => "logs",
            Self::Spans => "spans",
            Self::Metrics => "metrics",
        }
    }

    /// Reads back [`Signal::name`].
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|signal| signal.name() == name)
    }

    /// Arrow schema of its batches.
    pub fn schema(self) -> SchemaRef {
        match self {
            Self::Logs => crate::logs::schema(),
            Self::Spans => crate::spans::schema(),
            Self::Metrics => crate::metrics::schema(),
        }
    }
}

impl fmt::Display for Signal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Rows of one signal and one tenant in order of arrival: what the store takes.
#[derive(Debug, Clone)]
pub struct AnyBatch {
    /// Which table they belong to.
    pub signal: Signal,
    /// Whose rows.
    pub tenant: TenantId,
    /// Rows with [`Signal::schema`]; `stream` holds refs of the process's registry.
    pub records: RecordBatch,
}

impl From<LogBatch> for AnyBatch {
    fn from(LogBatch { tenant, records }: LogBatch) -> Self {
        Self { signal: Signal::Logs, tenant, records }
    }
}

impl From<SpanBatch> for AnyBatch {
    fn from(SpanBatch { tenant, records }: SpanBatch) -> Self {
        Self { signal: Signal::Spans, tenant, records }
    }
}

impl From<MetricBatch> for AnyBatch {
    fn from(MetricBatch { tenant, records }: MetricBatch) -> Self {
        Self { signal: Signal::Metrics, tenant, records }
    }
}
