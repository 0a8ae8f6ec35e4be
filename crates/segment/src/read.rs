//! An opened segment.
use std::sync::Arc;

use arrow::array::RecordBatch;
use object_store::{ObjectStore, path::Path};
use trine_model::TenantId;
use trine_schema::{LogCount, LogCountRow, LogScan, StreamRef, StreamRegistry};

use crate::{SegmentError, SegmentMeta};

/// An opened segment: its index in memory, its file open.
pub struct Segment {
    path: Path,
    meta: SegmentMeta,
}

impl Segment {
    /// Opens a segment and registers its streams. With `expect` (from the catalog) the root is checked;
    /// without, the file's own checksums.
    pub async fn open(
        store: Arc<dyn ObjectStore>,
        path: Path,
        registry: &StreamRegistry,
        expect: Option<SegmentMeta>,
    ) -> Result<Self, SegmentError> {
        let _ = (store, path, registry, expect);
        todo!()
    }

    /// Where it lies in the object store.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// What the catalog keeps.
    pub fn meta(&self) -> &SegmentMeta {
        &self.meta
    }

    /// Bytes of memory the opened segment holds.
    pub fn memory(&self) -> usize {
        todo!()
    }

    /// Streams of the scan's tenant that match and have rows in its range.
    pub fn streams(&self, scan: &LogScan, registry: &StreamRegistry) -> Vec<StreamRef> {
        let _ = (scan, registry);
        todo!()
    }

    /// Counts by stream, level and bucket; `None` when the filters are not about levels only.
    pub fn count(
        &self,
        count: &LogCount,
        registry: &StreamRegistry,
    ) -> Result<Option<Vec<LogCountRow>>, SegmentError> {
        let _ = (count, registry);
        todo!()
    }

    /// Attribute names of a tenant's rows with the number of rows that have them, most frequent first.
    pub fn attribute_names(&self, tenant: &TenantId) -> Vec<(String, u64)> {
        let _ = tenant;
        todo!()
    }

    /// All rows in file order, full schema, a granule at a time; for compaction.
    pub fn sorted_batches(
        self: &Arc<Self>,
    ) -> impl Iterator<Item = Result<RecordBatch, SegmentError>> + Send + 'static {
        todo!();
        #[allow(unreachable_code)]
        std::iter::empty()
    }

    /// Checks every block, the root, and the index against the rows. Takes seconds per GB.
    pub async fn verify(&self) -> Result<(), SegmentError> {
        todo!()
    }
}
