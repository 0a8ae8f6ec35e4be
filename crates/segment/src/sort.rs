//! The order of rows in a segment.
use arrow::array::RecordBatch;
use trine_schema::{StreamRef, StreamRegistry};

use crate::SegmentError;

/// Order of streams in a segment: tenant, service, stream id. The same in every process.
pub struct StreamOrder<'a> {
    registry: &'a StreamRegistry,
}

impl<'a> StreamOrder<'a> {
    /// Over the streams of a registry.
    pub fn new(registry: &'a StreamRegistry) -> Self {
        Self { registry }
    }

    /// How two streams compare.
    pub fn compare(&mut self, a: StreamRef, b: StreamRef) -> std::cmp::Ordering {
        let _ = (a, b, self.registry);
        todo!()
    }
}

/// Sorts batches in memory for a flush; equal timestamps of a stream keep their order of arrival.
pub fn sort_batches(
    batches: &[RecordBatch],
    registry: &StreamRegistry,
) -> Result<Vec<RecordBatch>, SegmentError> {
    let _ = (batches, registry);
    todo!()
}
