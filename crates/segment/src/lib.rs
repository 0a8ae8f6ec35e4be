//! Segments: Parquet files with our index inside.
//!
//! A segment is written once ([`write_segment`]) from rows sorted by (tenant, service, stream id,
//! timestamp), and read through [`Segment`]. A [`SegmentHandle`] is what stays of it while nobody
//! asks; it reads the index when somebody does. [`scan`] runs one [`trine_schema::LogScan`] over a
//! [`Snapshot`] of in-memory batches and segments. The byte layout is in `docs/segment-format.md`.

mod blocks;
mod cache;
mod codec;
mod columns;
mod compaction;
mod count;
mod digest;
mod error;
mod file;
mod filter;
mod gather;
mod granule;
mod handle;
mod index;
mod index_builder;
mod join;
mod merge;
mod metrics;
mod pages;
mod plan;
mod pool;
mod read;
mod scan;
mod sort;
mod spans;
mod steps;
mod top;
mod verify;
mod write;

pub use cache::{CachedIndex, IndexCache};
pub use compaction::SortedBatches;
pub use digest::SegmentHandle;
pub use error::SegmentError;
pub use file::block_on;
pub use filter::{StreamMatcher, filter_batch};
pub use handle::{Handle, OnCorrupt, SegmentIndex};
pub use join::Join;
pub use merge::merge_sorted;
pub use metrics::{
    MetricSegment, MetricSnapshot, SortedSamples, exemplars, merge_samples, metric_metadata, select_series,
    sort_samples, write_samples,
};
pub use read::Segment;
pub use scan::{Snapshot, count, scan, streams};
pub use sort::{SortedRows, StreamOrder, sort_batches};
pub use spans::{
    SPAN_GRANULE_ROWS, SortedSpans, SpanSegment, SpanSnapshot, can_join_spans, join_spans, merge_spans,
    scan_spans, search_traces, sort_spans, write_spans,
};
pub use write::{BodyEncoding, SegmentMeta, WriteOptions, write_segment};

/// Rows that are decoded and skipped together: a Parquet page, a body block, a bloom.
pub const GRANULE_ROWS: usize = 8_192;
