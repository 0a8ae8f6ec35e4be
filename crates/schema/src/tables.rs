//! The border between what is stored and what asks: a query sees [`Tables`] and nothing else.

use std::{
    ops::RangeInclusive,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Instant,
};

use arrow::array::RecordBatch;
use async_trait::async_trait;
use futures::Stream as FuturesStream;
use parking_lot::Mutex;
use regex::Regex;
use trine_model::{SpanId, TenantId, TraceId};

use crate::{
    Exemplar, Labels, LogBatch, Metadata, MetricScan, MetricSeries, SpanScan, Stream, StreamRef,
    StreamRegistry, TraceSummary,
};

/// Batches as they are found. Dropping the stream stops the work behind it.
pub type RecordBatchStream = Pin<Box<dyn FuturesStream<Item = Result<RecordBatch, ScanError>> + Send>>;

/// Why a scan ended early.
#[derive(Debug, Clone, thiserror::Error)]
pub enum ScanError {
    /// The time budget is used up.
    #[error("the query ran into its time limit after {0} ms; narrow the time range or add a filter")]
    Deadline(u64),
    /// The memory budget is used up.
    #[error(
        "the query needs more than its {limit} bytes of memory; narrow the time range, add a filter or a limit"
    )]
    Memory {
        /// The budget in bytes.
        limit: usize,
    },
    /// Reading failed.
    #[error("reading stored data failed: {0}")]
    Storage(String),
}

/// How one label of a stream is compared (LogQL and PromQL matchers).
#[derive(Debug, Clone)]
pub enum LabelMatch {
    /// `=`; the empty text also matches a stream without the label.
    Equal(String),
    /// `!=`
    NotEqual(String),
    /// `=~`, the regex anchored at both ends.
    Regex(Regex),
    /// `!~`, the regex anchored at both ends.
    NotRegex(Regex),
}

impl LabelMatch {
    /// Whether a value passes; a missing label counts as empty.
    pub fn matches(&self, value: &str) -> bool {
        match self {
            Self::Equal(want) => value == want,
            Self::NotEqual(want) => value != want,
            Self::Regex(regex) => regex.is_match(value),
            Self::NotRegex(regex) => !regex.is_match(value),
        }
    }
}

/// One matcher of a stream selector.
#[derive(Debug, Clone)]
pub struct LabelMatcher {
    /// Stored or Prometheus-style name; `service` means [`Stream::service`] where no label is so named.
    pub name: String,
    /// The comparison.
    pub value: LabelMatch,
}

impl LabelMatcher {
    /// Whether labels pass by the name as it is written (Prometheus' rule); a missing label counts as empty.
    pub fn matches_exactly(&self, labels: &Labels) -> bool {
        let found = labels.iter().find(|(name, _)| *name == self.name);
        self.value.matches(found.map_or("", |(_, value)| value))
    }

    /// Whether the stream passes; a missing label counts as empty.
    pub fn matches(&self, stream: &Stream) -> bool {
        let value = match stream.labels.get(&self.name) {
            Some(value) => value,
            None if self.name == "service" || self.name == "service_name" => stream.service(),
            None => "",
        };
        self.value.matches(value)
    }
}

/// What a line must contain.
#[derive(Debug, Clone)]
pub enum Needle {
    /// A substring, case-sensitive.
    Literal(String),
    /// An unanchored regular expression.
    Regex(Regex),
}

/// One line filter: any of the needles is in the body (or, negated, none is).
#[derive(Debug, Clone)]
pub struct LineFilter {
    /// Alternatives; never empty.
    pub any: Vec<Needle>,
    /// `!=` and `!~`.
    pub negated: bool,
}

impl LineFilter {
    /// The body contains this text.
    pub fn contains(text: impl Into<String>) -> Self {
        Self { any: vec![Needle::Literal(text.into())], negated: false }
    }

    /// Whether the line passes. The reference semantics; the store may decide faster.
    pub fn matches(&self, line: &str) -> bool {
        let found = self.any.iter().any(|needle| match needle {
            Needle::Literal(text) => line.contains(text.as_str()),
            Needle::Regex(regex) => regex.is_match(line),
        });
        found != self.negated
    }
}

/// A condition on single rows.
#[derive(Debug, Clone)]
pub enum LogFilter {
    /// On the body.
    Line(LineFilter),
    /// `trace_id` is one of these, which are sorted; a row without one does not pass.
    TraceIds(Arc<[TraceId]>),
    /// `span_id` equals.
    SpanId(SpanId),
    /// `severity_number` lies in the range.
    Severity(RangeInclusive<u8>),
    /// The attribute is set to this value.
    Attribute {
        /// Stored or Prometheus-style name.
        key: String,
        /// The value.
        value: String,
    },
}

impl LogFilter {
    /// `trace_id` equals.
    pub fn trace_id(id: TraceId) -> Self {
        Self::TraceIds(Arc::new([id]))
    }
}

/// Order of the rows by time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    /// Oldest first.
    Forward,
    /// Newest first.
    Backward,
}

/// One read of the log table. Every condition is applied exactly: what comes back satisfies all.
#[derive(Debug, Clone)]
pub struct LogScan {
    /// Whose records.
    pub tenant: TenantId,
    /// First nanosecond, inclusive.
    pub start: i64,
    /// Last nanosecond, exclusive. `i64::MAX` means no end, and takes in that instant too.
    pub end: i64,
    /// All must match the stream; empty takes every stream.
    pub streams: Vec<LabelMatcher>,
    /// All must match the row.
    pub filters: Vec<LogFilter>,
    /// Columns of [`crate::logs::schema`] to return, rising. May be empty: only row counts come.
    pub projection: Vec<usize>,
    /// With an order and a limit, the answer is one or few batches sorted by time (`timestamp`
    /// need not be projected). Without a limit the batches come in no order.
    pub top: Option<(Direction, usize)>,
    /// When to give up.
    pub deadline: Option<Instant>,
    /// Most bytes this scan may hold at once.
    pub memory_limit: Option<usize>,
    /// Where the scan counts what it touched.
    pub stats: Arc<ScanStats>,
}

impl LogScan {
    /// Everything of a tenant, all columns; narrow it by setting fields.
    pub fn all(tenant: TenantId) -> Self {
        Self {
            tenant,
            start: i64::MIN,
            end: i64::MAX,
            streams: Vec::new(),
            filters: Vec::new(),
            projection: (0..crate::logs::column::COUNT).collect(),
            top: None,
            deadline: None,
            memory_limit: None,
            stats: Arc::default(),
        }
    }

    /// Whether a timestamp lies in the range.
    pub fn in_range(&self, timestamp: i64) -> bool {
        timestamp >= self.start && (timestamp < self.end || self.end == i64::MAX)
    }

    /// Fails once the deadline has passed.
    pub fn check_deadline(&self) -> Result<(), ScanError> {
        self.stats.check_deadline(self.deadline)
    }
}

/// Counters of one query; shared by all its scans.
#[derive(Debug)]
pub struct ScanStats {
    /// When the query began.
    pub started: Instant,
    /// Segments that were opened for rows.
    pub segments_scanned: AtomicU64,
    /// Segments that the catalog or the index excluded.
    pub segments_skipped: AtomicU64,
    /// Granules (8,192 rows) whose rows were looked at.
    pub granules_scanned: AtomicU64,
    /// Granules that time range, stream or index excluded.
    pub granules_skipped: AtomicU64,
    /// Bytes read from segments and memtable, as stored.
    pub bytes_scanned: AtomicU64,
    /// Rows looked at.
    pub rows_scanned: AtomicU64,
    /// Rows returned.
    pub rows_matched: AtomicU64,
    /// What is missing from the answer and why; empty means complete.
    pub partial: Mutex<Vec<String>>,
}

impl Default for ScanStats {
    fn default() -> Self {
        Self {
            started: Instant::now(),
            segments_scanned: AtomicU64::new(0),
            segments_skipped: AtomicU64::new(0),
            granules_scanned: AtomicU64::new(0),
            granules_skipped: AtomicU64::new(0),
            bytes_scanned: AtomicU64::new(0),
            rows_scanned: AtomicU64::new(0),
            rows_matched: AtomicU64::new(0),
            partial: Mutex::new(Vec::new()),
        }
    }
}

/// [`ScanStats`] at one moment.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[allow(missing_docs)] // the fields are those of ScanStats
pub struct ScanStatsSnapshot {
    pub elapsed_ns: u64,
    pub segments_scanned: u64,
    pub segments_skipped: u64,
    pub granules_scanned: u64,
    pub granules_skipped: u64,
    pub bytes_scanned: u64,
    pub rows_scanned: u64,
    pub rows_matched: u64,
    pub partial: Vec<String>,
}

impl ScanStats {
    /// Fails once the deadline has passed.
    pub fn check_deadline(&self, deadline: Option<Instant>) -> Result<(), ScanError> {
        match deadline {
            Some(deadline) if Instant::now() >= deadline => {
                Err(ScanError::Deadline(self.started.elapsed().as_millis() as u64))
            }
            _ => Ok(()),
        }
    }

    /// The counters now.
    pub fn snapshot(&self) -> ScanStatsSnapshot {
        ScanStatsSnapshot {
            elapsed_ns: self.started.elapsed().as_nanos() as u64,
            segments_scanned: self.segments_scanned.load(Relaxed),
            segments_skipped: self.segments_skipped.load(Relaxed),
            granules_scanned: self.granules_scanned.load(Relaxed),
            granules_skipped: self.granules_skipped.load(Relaxed),
            bytes_scanned: self.bytes_scanned.load(Relaxed),
            rows_scanned: self.rows_scanned.load(Relaxed),
            rows_matched: self.rows_matched.load(Relaxed),
            partial: self.partial.lock().clone(),
        }
    }
}

/// A question for counts only, which the segments' roll-ups can answer without reading rows.
#[derive(Debug, Clone)]
pub struct LogCount {
    /// Tenant, range, stream matchers, stats. `filters` must be empty or hold only
    /// [`LogFilter::Severity`] ranges that cover whole levels; projection and `top` are ignored.
    pub scan: LogScan,
    /// Width of a time bucket in nanoseconds; buckets begin at multiples of it since 1970.
    pub bucket_ns: i64,
}

/// One row of the answer to [`LogCount`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LogCountRow {
    /// The stream.
    pub stream: StreamRef,
    /// [`trine_model::Severity`] level's position in [`trine_model::Level::ALL`].
    pub level: u8,
    /// First nanosecond of the bucket.
    pub bucket: i64,
    /// Rows in it; keys may repeat, the reader adds them up.
    pub count: u64,
    /// How many of `count` lie exactly at `bucket`, its first nanosecond. LogQL's ranges exclude
    /// their first instant and include their last; with this number they are exact.
    pub at_start: u64,
}

/// What queries read from. Implemented by the store.
#[async_trait]
pub trait Tables: Send + Sync + 'static {
    /// The registry behind the `stream` column.
    fn registry(&self) -> &StreamRegistry;

    /// Reads the log table.
    fn scan_logs(&self, scan: LogScan) -> RecordBatchStream;

    /// Exact counts by stream, level and bucket, or `None` when the roll-ups cannot answer this
    /// question and the caller has to scan.
    async fn count_logs(&self, count: LogCount) -> Result<Option<Vec<LogCountRow>>, ScanError>;

    /// Streams of the scan's tenant that match and have rows in its range (by the streams' first
    /// and last times in each segment, so a stream may have a gap there).
    async fn streams(&self, scan: LogScan) -> Result<Vec<Arc<Stream>>, ScanError>;

    /// Attribute names seen in the tenant's logs, sorted; bounded to the most frequent ones.
    fn attribute_names(&self, tenant: &TenantId) -> Vec<String>;

    /// Reads the span table. Tables of logs alone have none.
    fn scan_spans(&self, _scan: SpanScan) -> RecordBatchStream {
        Box::pin(futures::stream::empty())
    }

    /// The traces of which a span satisfies the scan, the [`SpanScan::newest`] of those whose fitting spans
    /// started last; sorted by their starts, newest first. Summaries are of whole traces. The projection is
    /// ignored. May block the thread. Tables of logs alone have none.
    fn search_traces(&self, _scan: SpanScan) -> Result<Vec<TraceSummary>, ScanError> {
        Ok(Vec::new())
    }

    /// Names of resource labels and of attributes seen in the tenant's spans, each sorted; bounded to the most
    /// frequent ones.
    fn span_names(&self, _tenant: &TenantId) -> Result<(Vec<String>, Vec<String>), ScanError> {
        Ok((Vec::new(), Vec::new()))
    }

    /// Series that match and have samples in the range, sorted by labels. Their samples are read when
    /// [`MetricSeries::data`] is asked for them. May block the thread. Tables of logs alone have none.
    fn select_series(&self, _scan: &MetricScan) -> Result<Vec<MetricSeries>, ScanError> {
        Ok(Vec::new())
    }

    /// Exemplars of the series that match, in the range, by series and time. May block the thread.
    fn exemplars(&self, _scan: &MetricScan) -> Result<Vec<Exemplar>, ScanError> {
        Ok(Vec::new())
    }

    /// Metadata of the tenant's metrics by their names, sorted; of each metric what was told last.
    fn metric_metadata(&self, _tenant: &TenantId) -> Result<Vec<(String, Metadata)>, ScanError> {
        Ok(Vec::new())
    }

    /// Batches of the tenant as they become visible, from now on. A reader that falls behind by
    /// more than the bound gets an error item that counts the batches it missed.
    fn tail_logs(
        &self,
        tenant: &TenantId,
    ) -> Pin<Box<dyn FuturesStream<Item = Result<LogBatch, TailLag>> + Send>>;
}

/// A tail reader was too slow.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{0} batches were skipped because the reader was too slow")]
pub struct TailLag(pub u64);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_label_is_empty_and_service_is_found_under_any_of_its_names() {
        let stream = Stream {
            id: crate::StreamId(1),
            tenant: TenantId::default(),
            labels: Labels::from_pairs(&[("service.name", "cart")]),
        };
        let matches = |name: &str, value| LabelMatcher { name: name.into(), value }.matches(&stream);
        assert!(matches("pod", LabelMatch::Equal(String::new())));
        assert!(matches("service_name", LabelMatch::Equal("cart".into())));
        assert!(matches("service", LabelMatch::Regex(Regex::new("^(?:ca.*)$").unwrap())));
        assert!(!matches("service", LabelMatch::NotEqual("cart".into())));
    }
}
