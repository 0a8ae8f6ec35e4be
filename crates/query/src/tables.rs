//! The SQL tables: their names, and the columns each of them has.

use std::sync::{Arc, OnceLock};

use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use trine_schema::{logs, spans};

use crate::columns::{Source, timestamp_type};

/// One of the tables. In all of them the stored column 0 is `stream` and column 1 `timestamp`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Table {
    Logs,
    Spans,
    Metrics,
}

/// Position of `stream` in every table.
pub(crate) const STREAM: usize = trine_schema::signal::STREAM;
/// Position of `timestamp` in every table.
pub(crate) const TIMESTAMP: usize = trine_schema::signal::TIMESTAMP;

/// Column positions of the samples as `metrics.rs` makes them; `stream` is never filled there.
pub(crate) mod sample {
    /// Float64; null for a histogram.
    pub(crate) const VALUE: usize = 2;
    /// Float64: observations of a histogram; null for a float.
    pub(crate) const COUNT: usize = 3;
    /// Float64: sum of a histogram; null for a float.
    pub(crate) const SUM: usize = 4;
}

static LOGS: [(&str, Source); 15] = [
    ("timestamp", Source::Stored(TIMESTAMP)),
    ("observed_timestamp", Source::Stored(logs::column::OBSERVED_TIMESTAMP)),
    ("service", Source::Service),
    ("level", Source::Level),
    ("severity_number", Source::Stored(logs::column::SEVERITY_NUMBER)),
    ("severity_text", Source::Stored(logs::column::SEVERITY_TEXT)),
    ("body", Source::Stored(logs::column::BODY)),
    ("trace_id", Source::Hex(logs::column::TRACE_ID)),
    ("span_id", Source::Hex(logs::column::SPAN_ID)),
    ("trace_flags", Source::Stored(logs::column::TRACE_FLAGS)),
    ("event_name", Source::Stored(logs::column::EVENT_NAME)),
    ("scope_name", Source::Stored(logs::column::SCOPE_NAME)),
    ("labels", Source::Labels),
    ("attributes", Source::Stored(logs::column::ATTRIBUTES)),
    ("stream_id", Source::StreamId),
];

static SPANS: [(&str, Source); 20] = [
    ("start", Source::Stored(TIMESTAMP)),
    ("end", Source::End),
    ("duration_ns", Source::Stored(spans::column::DURATION)),
    ("service_name", Source::Known("service_name")),
    ("operation", Source::Stored(spans::column::OPERATION)),
    ("kind", Source::Kind),
    ("status", Source::Status),
    ("status_code", Source::Stored(spans::column::STATUS_CODE)),
    ("status_message", Source::Stored(spans::column::STATUS_MESSAGE)),
    ("trace_id", Source::Hex(spans::column::TRACE_ID)),
    ("span_id", Source::Hex(spans::column::SPAN_ID)),
    ("parent_span_id", Source::Hex(spans::column::PARENT_SPAN_ID)),
    ("labels", Source::Labels),
    ("attributes", Source::Stored(spans::column::ATTRIBUTES)),
    ("events", Source::Stored(spans::column::EVENTS)),
    ("links", Source::Stored(spans::column::LINKS)),
    ("trace_state", Source::Stored(spans::column::TRACE_STATE)),
    ("trace_flags", Source::Stored(spans::column::TRACE_FLAGS)),
    ("scope_name", Source::Stored(spans::column::SCOPE_NAME)),
    ("stream_id", Source::StreamId),
];

static METRICS: [(&str, Source); 10] = [
    ("timestamp", Source::Stored(TIMESTAMP)),
    ("metric", Source::Metric),
    ("value", Source::Stored(sample::VALUE)),
    ("count", Source::Stored(sample::COUNT)),
    ("sum", Source::Stored(sample::SUM)),
    ("service_name", Source::Known("service_name")),
    ("job", Source::Known("job")),
    ("instance", Source::Known("instance")),
    ("labels", Source::Labels),
    ("stream_id", Source::StreamId),
];

impl Table {
    pub(crate) const ALL: [Self; 3] = [Self::Logs, Self::Spans, Self::Metrics];

    /// Names it has in SQL, the first of them the usual one.
    pub(crate) const fn names(self) -> &'static [&'static str] {
        match self {
            Self::Logs => &["logs"],
            Self::Spans => &["spans", "traces"],
            Self::Metrics => &["metrics"],
        }
    }

    /// The table with this name.
    pub(crate) fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|table| table.names().contains(&name))
    }

    /// Name of the plan's leaf that reads it.
    pub(crate) const fn leaf(self) -> &'static str {
        match self {
            Self::Logs => "LogsExec",
            Self::Spans => "SpansExec",
            Self::Metrics => "MetricsExec",
        }
    }

    /// Columns in the order of `SELECT *`.
    pub(crate) fn base(self) -> &'static [(&'static str, Source)] {
        match self {
            Self::Logs => &LOGS,
            Self::Spans => &SPANS,
            Self::Metrics => &METRICS,
        }
    }

    /// Whether `SELECT *` shows a column of this name.
    pub(crate) fn has_base(self, name: &str) -> bool {
        self.base().iter().any(|(base, _)| *base == name)
    }

    /// Further columns of every row, which `SELECT *` leaves out: other names of the same.
    pub(crate) fn further(self, name: &str) -> Option<Source> {
        Some(match (self, name) {
            (Self::Spans, "timestamp") => Source::Stored(TIMESTAMP),
            (Self::Spans, "name") => Source::Stored(spans::column::OPERATION),
            (Self::Metrics, "name") => Source::Metric,
            (Self::Spans | Self::Metrics, "service") => Source::Service,
            (Self::Logs, "service_name") => Source::Known("service_name"),
            (_, "minute") => Source::Minute,
            (_, "resource") => Source::Labels,
            _ => return None,
        })
    }

    /// What [`trine_schema::Tables`] hands out, or `metrics.rs` makes of it.
    pub(crate) fn stored(self) -> SchemaRef {
        static SAMPLES: OnceLock<SchemaRef> = OnceLock::new();
        match self {
            Self::Logs => logs::schema(),
            Self::Spans => spans::schema(),
            Self::Metrics => SAMPLES
                .get_or_init(|| {
                    let number = |name: &str| Field::new(name, DataType::Float64, true);
                    Arc::new(Schema::new(vec![
                        Field::new("stream", DataType::UInt32, false),
                        Field::new("timestamp", timestamp_type(), false),
                        number("value"),
                        number("count"),
                        number("sum"),
                    ]))
                })
                .clone(),
        }
    }

    /// Position of the map of attributes; metrics have none.
    pub(crate) const fn attributes(self) -> Option<usize> {
        match self {
            Self::Logs => Some(logs::column::ATTRIBUTES),
            Self::Spans => Some(spans::column::ATTRIBUTES),
            Self::Metrics => None,
        }
    }

    /// Position of `trace_id`.
    pub(crate) const fn trace_id(self) -> Option<usize> {
        match self {
            Self::Logs => Some(logs::column::TRACE_ID),
            Self::Spans => Some(spans::column::TRACE_ID),
            Self::Metrics => None,
        }
    }
}
