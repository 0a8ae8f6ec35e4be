//! A question and its answer.

use std::{fmt, pin::Pin, sync::Arc, time::Instant};

use futures::Stream;
use trine_model::TenantId;
use trine_schema::{Direction, ScanStats};

use crate::{LogqlError, ast::Expr};

/// Bounds of one query.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Most series a metric query may hold.
    pub series: usize,
    /// Most points (steps) per series.
    pub points: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self { series: 50_000, points: 11_000 }
    }
}

/// One question.
#[derive(Debug, Clone)]
pub struct Request {
    /// Whose data.
    pub tenant: TenantId,
    /// The parsed query.
    pub query: Expr,
    /// First nanosecond, inclusive.
    pub start: i64,
    /// Log queries: the end, exclusive. Metric queries: the last evaluation time, inclusive.
    pub end: i64,
    /// Nanoseconds between evaluations of a metric query; `None` evaluates once, at `end`.
    pub step: Option<i64>,
    /// Log queries: entries of a stream are at least so many nanoseconds apart.
    pub interval: Option<i64>,
    /// Log queries: most entries in the answer. Unused by metric queries.
    pub limit: usize,
    /// Which end of the range a limited log query takes.
    pub direction: Direction,
    /// When to give up.
    pub deadline: Option<Instant>,
    /// Most bytes the evaluation may hold.
    pub memory_limit: Option<usize>,
    /// Where scans count what they touch.
    pub stats: Arc<ScanStats>,
    /// Bounds on series and points.
    pub limits: Limits,
}

impl Request {
    /// A question with Loki's defaults: limit 100, newest first, no step.
    pub fn new(tenant: TenantId, query: Expr, start: i64, end: i64) -> Self {
        Self {
            tenant,
            query,
            start,
            end,
            step: None,
            interval: None,
            limit: 100,
            direction: Direction::Backward,
            deadline: None,
            memory_limit: None,
            stats: Arc::default(),
            limits: Limits::default(),
        }
    }
}

/// Where a label of a log line comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum LabelKind {
    /// A label of the stream.
    Stream,
    /// Stored with the record: attribute, trace id, level and so on ("structured metadata").
    Metadata,
    /// Made by a stage of the query.
    Parsed,
}

/// One label of a result.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Label {
    /// Prometheus-style name.
    pub name: String,
    /// The value, never empty in series.
    pub value: String,
    /// Where it comes from.
    pub kind: LabelKind,
}

/// One line of a result.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Nanoseconds since 1970.
    pub timestamp: i64,
    /// The line after all stages.
    pub line: String,
}

/// Lines that share all labels.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StreamResult {
    /// Sorted by name.
    pub labels: Vec<Label>,
    /// In the order of the request's direction.
    pub entries: Vec<Entry>,
}

/// One line with its labels, as [`crate::run_stream`] and [`crate::TailFilter`] hand it out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LabeledEntry {
    /// Sorted by name; equal label sets of one batch share the allocation.
    pub labels: Arc<[Label]>,
    /// Nanoseconds since 1970.
    pub timestamp: i64,
    /// The line after all stages.
    pub line: String,
}

/// Labels of a series: sorted by name, names unique, values not empty.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct SeriesLabels(pub Vec<(String, String)>);

impl SeriesLabels {
    /// Value of a label, empty when it is missing.
    pub fn get(&self, name: &str) -> &str {
        self.0.binary_search_by(|(key, _)| key.as_str().cmp(name)).map_or("", |at| &self.0[at].1)
    }

    /// Sets a label; the empty value removes it.
    pub fn set(&mut self, name: &str, value: &str) {
        match self.0.binary_search_by(|(key, _)| key.as_str().cmp(name)) {
            Ok(at) if value.is_empty() => drop(self.0.remove(at)),
            Ok(at) => value.clone_into(&mut self.0[at].1),
            Err(_) if value.is_empty() => {}
            Err(at) => self.0.insert(at, (name.to_owned(), value.to_owned())),
        }
    }
}

impl fmt::Display for SeriesLabels {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("{")?;
        for (i, (name, value)) in self.0.iter().enumerate() {
            let comma = if i > 0 { ", " } else { "" };
            write!(f, "{comma}{name}={value:?}")?;
        }
        f.write_str("}")
    }
}

/// One line of a graph.
#[derive(Debug, Clone, PartialEq)]
pub struct Series {
    /// Its labels.
    pub labels: SeriesLabels,
    /// Time in nanoseconds since 1970 and value; times rise, steps without a value are left out.
    pub points: Vec<(i64, f64)>,
}

/// One value of an instant answer.
#[derive(Debug, Clone, PartialEq)]
pub struct Sample {
    /// Its labels.
    pub labels: SeriesLabels,
    /// Time of the evaluation, nanoseconds since 1970.
    pub timestamp: i64,
    /// The value.
    pub value: f64,
}

/// What a query gives.
#[derive(Debug, Clone, PartialEq)]
pub enum Answer {
    /// Of a log query; streams in order of their labels.
    Streams(Vec<StreamResult>),
    /// Of a metric query with a step; series in order of their labels.
    Matrix(Vec<Series>),
    /// Of a metric query at one time.
    Vector(Vec<Sample>),
    /// Of a query that is only a number, at one time.
    Scalar(i64, f64),
}

/// Lines of a log query in order, in chunks. Dropping it stops the work behind it.
pub type EntryStream = Pin<Box<dyn Stream<Item = Result<Vec<LabeledEntry>, LogqlError>> + Send>>;
