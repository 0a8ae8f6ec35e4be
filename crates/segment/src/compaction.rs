//! All rows of a segment in file order, for compaction.

use std::sync::Arc;

use arrow::array::RecordBatch;
use trine_schema::logs::column;

use crate::{Segment, SegmentError, granule::GranuleReader};
use trine_body::RowSet;

impl Segment {
    /// All rows in file order, full schema, a granule at a time; for compaction.
    pub fn sorted_batches(
        self: &Arc<Self>,
    ) -> impl Iterator<Item = Result<RecordBatch, SegmentError>> + Send + 'static {
        let (segment, reader) = (self.clone(), self.reader());
        let projection: Vec<usize> = (0..column::COUNT).collect();
        (0..self.index.granules.len()).map(move |position| {
            let mut granule = GranuleReader::new(&segment, position, reader.clone());
            let mut all = RowSet::new(granule.rows());
            all.insert_all();
            granule.produce(&all, &projection)
        })
    }
}
