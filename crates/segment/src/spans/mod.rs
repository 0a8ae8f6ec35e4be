//! Segments of spans: Parquet like those of logs, in an order and with an index of their own.
//!
//! Rows lie by trace, traces by their first span in the segment: siblings share all but the last bytes of
//! their ids, a trace is one or two pages, and time still rises through the file, so "the newest" is at its
//! end. A parent in the same segment is named by its distance in rows. Attributes that many spans have
//! are columns of their own.

mod columns;
mod digest;
mod directory;
mod encode;
mod filter;
mod index;
mod join;
mod merge;
mod newest;
mod numbers;
mod order;
mod prepare;
mod read;
mod rows;
mod scan;
mod search;
mod shape;
mod summary;
mod traces;
mod values;
mod verify;
mod write;

pub use digest::SpanSegment;
pub(crate) use filter::Ids;
pub use join::{can_join_spans, join_spans};
pub use merge::merge_spans;
pub use order::{SortedSpans, sort_spans};
pub use scan::{SpanSnapshot, scan_spans};
pub use traces::search_traces;
pub use write::write_spans;

/// Spans that are read together: a Parquet page, a bloom. Fewer than log rows, because a trace is few spans
/// and all its columns are wanted.
pub const SPAN_GRANULE_ROWS: usize = 4_096;
/// Rows of a row group.
pub(crate) const ROW_GROUP_ROWS: usize = 32 * SPAN_GRANULE_ROWS;
