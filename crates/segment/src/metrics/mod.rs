//! Segments of metrics: blocks of compressed samples (`trine-chunks`), an index of labels, and frames of what
//! is rare.
//!
//! Series lie by tenant, metric and labels. The index holds the labels as columns of codes, so that matchers
//! are compared once per distinct value; it is in memory only while it is asked for. Times are milliseconds in
//! the file and nanoseconds in batches and in the [`crate::SegmentMeta`].

mod groups;
mod histogram;
mod index;
mod index_read;
mod index_write;
mod labels;
mod load;
mod memory;
mod merge;
mod order;
mod rows;
mod scan;
mod segment;
mod select;
mod side;
mod times;
mod verify;
mod write;

pub use merge::merge_samples;
pub use order::{SortedSamples, sort_samples};
pub use scan::{MetricSnapshot, exemplars, metric_metadata, select_series};
pub use segment::MetricSegment;
pub use write::write_samples;
