//! What a batch of telemetry looks like in memory, and the border through which it is read.
//!
//! Decoders fill a [`LogBatchBuilder`], [`SpanBatchBuilder`] or [`MetricBatchBuilder`], the store keeps the
//! batches, queries read them back through [`Tables`]. Nothing here does I/O.

pub mod columns;
pub mod logs;
pub mod metrics;
mod native_histogram;
mod series;
pub mod signal;
pub mod spans;
mod stream;
mod tables;
pub mod unchecked;

pub use logs::{LogBatch, LogBatchBuilder, LogRecord};
pub use metrics::{Metadata, MetricBatch, MetricBatchBuilder, RowKind};
pub use native_histogram::{BucketSpans, CUSTOM_BOUNDS, NativeHistogram, ResetHint};
pub use series::{Exemplar, LoadSamples, MetricScan, MetricSeries, Samples};
pub use signal::{AnyBatch, Signal};
pub use spans::{Span, SpanBatch, SpanBatchBuilder, SpanScan, TraceService, TraceSummary};
pub use stream::{
    Labels, LabelsError, RawKey, SpellingPlace, Stream, StreamId, StreamRef, StreamRegistry, label_name,
    label_name_eq, metric_hash,
};
pub use tables::{
    Direction, LabelMatch, LabelMatcher, LineFilter, LogCount, LogCountRow, LogFilter, LogScan, Needle,
    RecordBatchStream, ScanError, ScanStats, ScanStatsSnapshot, Tables, TailLag,
};
