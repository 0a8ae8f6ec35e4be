//! Rows of a segment in file order, for merges and checks.
//!
//! Granules of a row group come from one Parquet reader: decompressors and page readers are made
//! once per row group and column, not once per granule.

use std::{ops::Range, sync::Arc};

use arrow::array::RecordBatch;
use parquet::arrow::{
    ProjectionMask,
    arrow_reader::{ParquetRecordBatchReader, ParquetRecordBatchReaderBuilder},
};
use trine_body::RowSet;
use trine_schema::logs::column;

use crate::{
    GRANULE_ROWS, Segment, SegmentError,
    columns::stored_of,
    file::CheckedReader,
    granule::{GranuleReader, in_parquet},
};

/// Sorted rows, a batch at a time.
pub type SortedBatches = Box<dyn Iterator<Item = Result<RecordBatch, SegmentError>> + Send>;

impl Segment {
    /// All rows in file order, full schema, a granule at a time.
    pub fn batches(
        self: &Arc<Self>,
    ) -> impl Iterator<Item = Result<RecordBatch, SegmentError>> + Send + 'static {
        self.granule_batches(0..self.index.granules.len())
    }

    /// The rows of each run, each sorted: what a merge takes in.
    pub fn sorted_runs(self: &Arc<Self>) -> Vec<SortedBatches> {
        let granules = &self.index.granules;
        let starts = self.index.runs.iter().map(|run| granules.partition_point(|g| g.rows.end <= run.row));
        let starts: Vec<usize> = starts.chain([granules.len()]).collect();
        starts
            .windows(2)
            .map(|two| -> SortedBatches { Box::new(self.granule_batches(two[0]..two[1])) })
            .collect()
    }

    fn granule_batches(
        self: &Arc<Self>,
        granules: Range<usize>,
    ) -> impl Iterator<Item = Result<RecordBatch, SegmentError>> + Send + 'static {
        let (segment, reader) = (self.clone(), self.reader());
        let all_columns: Vec<usize> = (0..column::COUNT).collect();
        let stored: Vec<usize> = (0..column::COUNT).filter(|at| in_parquet(self, *at)).collect();
        let mut open: Option<(u32, ParquetRecordBatchReader)> = None;
        granules.map(move |position| {
            let row_group = segment.index.granules[position].row_group;
            let mut granule = GranuleReader::new(&segment, position, reader.clone());
            if segment.has_even_granules(row_group) {
                if open.as_ref().is_none_or(|(group, _)| *group != row_group) {
                    let batches = row_group_reader(&segment, &reader, row_group, &stored);
                    open = Some((row_group, batches.map_err(|error| granule.failed(&error))?));
                }
                let batch = open.as_mut().and_then(|(_, batches)| batches.next());
                let batch = batch.ok_or_else(|| granule.failed(&"rows are missing"))?;
                granule.take_columns(&stored, &batch.map_err(|error| granule.failed(&error))?)?;
            }
            let mut all = RowSet::new(granule.rows());
            all.insert_all();
            granule.produce(&all, &all_columns)
        })
    }

    /// Whether all granules of the row group but its last have the same number of rows.
    fn has_even_granules(&self, row_group: u32) -> bool {
        let granules = &self.index.granules;
        let start = granules.partition_point(|granule| granule.row_group < row_group);
        let end = granules.partition_point(|granule| granule.row_group <= row_group);
        granules[start..end.saturating_sub(1).max(start)]
            .iter()
            .all(|granule| granule.rows.len() == GRANULE_ROWS)
    }
}

fn row_group_reader(
    segment: &Segment,
    reader: &CheckedReader,
    row_group: u32,
    logical: &[usize],
) -> Result<ParquetRecordBatchReader, parquet::errors::ParquetError> {
    let positions = logical.iter().filter_map(|position| stored_of(*position));
    let mask = ProjectionMask::roots(segment.parquet.parquet_schema(), positions);
    ParquetRecordBatchReaderBuilder::new_with_metadata(reader.clone(), segment.parquet.clone())
        .with_row_groups(vec![row_group as usize])
        .with_projection(mask)
        .with_batch_size(GRANULE_ROWS)
        .build()
}
