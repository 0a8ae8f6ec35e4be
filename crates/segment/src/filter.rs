//! Exact filters on batches in memory.
use std::sync::Arc;

use arrow::array::RecordBatch;
use trine_schema::{LogScan, StreamRef, StreamRegistry};

use crate::SegmentError;

/// Remembers which streams a scan takes; one per scan, shared by its threads.
pub struct StreamMatcher {
    registry: Arc<StreamRegistry>,
}

impl StreamMatcher {
    /// For one scan: its tenant and its matchers.
    pub fn new(registry: Arc<StreamRegistry>, scan: &LogScan) -> Self {
        let _ = scan;
        Self { registry }
    }

    /// Whether the stream is of the scan's tenant and passes its matchers.
    pub fn matches(&self, stream: StreamRef) -> bool {
        let _ = (stream, &self.registry);
        todo!()
    }
}

/// The rows of a batch (full schema) that pass all conditions of the scan, with its projection.
pub fn filter_batch(
    batch: &RecordBatch,
    scan: &LogScan,
    streams: &StreamMatcher,
) -> Result<RecordBatch, SegmentError> {
    let _ = (batch, scan, streams);
    todo!()
}
