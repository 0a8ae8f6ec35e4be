//! Merging sorted inputs for compaction.
use std::sync::Arc;

use arrow::array::RecordBatch;
use trine_schema::StreamRegistry;

use crate::SegmentError;

/// Merges inputs that are each sorted; rows of equal stream and time come in the order of the inputs.
/// Holds one batch per input.
pub fn merge_sorted(
    inputs: Vec<Box<dyn Iterator<Item = Result<RecordBatch, SegmentError>> + Send>>,
    registry: Arc<StreamRegistry>,
) -> impl Iterator<Item = Result<RecordBatch, SegmentError>> + Send {
    let _ = (inputs, registry);
    todo!();
    #[allow(unreachable_code)]
    std::iter::empty()
}
