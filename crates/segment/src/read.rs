//! An opened segment.

use std::sync::Arc;

use object_store::{ObjectStore, path::Path};
use parquet::{
    arrow::arrow_reader::{ArrowReaderMetadata, ArrowReaderOptions},
    file::metadata::{PageIndexPolicy, ParquetMetaDataReader, RowGroupMetaData},
};
use trine_body::Dictionary;
use trine_model::TenantId;
use trine_schema::{LogScan, StreamRef, StreamRegistry};

use crate::{
    CachedIndex, SegmentError, SegmentMeta,
    columns::stored_schema,
    file::{CheckedReader, SegmentFile, Tail},
    handle::register,
    index::Index,
};

/// An opened segment: its index in memory, its file open.
pub struct Segment {
    path: Path,
    pub(crate) meta: Arc<SegmentMeta>,
    pub(crate) file: Arc<SegmentFile>,
    pub(crate) parquet: ArrowReaderMetadata,
    pub(crate) index: Index,
    /// The process's references of [`Index::names`].
    pub(crate) names: Arc<[StreamRef]>,
    /// The process's references of [`Index::streams`].
    pub(crate) streams: Vec<StreamRef>,
    /// Templates; `None` for plain bodies.
    pub(crate) templates: Option<Arc<Dictionary>>,
    memory: usize,
}

impl std::fmt::Debug for Segment {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Segment").field("path", &self.path).field("meta", &self.meta).finish_non_exhaustive()
    }
}

/// What the catalog keeps about a file with this index.
pub(crate) fn meta_of(index: &Index, file_bytes: u64, tail_offset: u64, root: [u8; 32]) -> SegmentMeta {
    SegmentMeta {
        rows: u64::from(index.rows),
        raw_bytes: index.raw_bytes,
        file_bytes,
        min_timestamp: index.streams.iter().map(|stream| stream.min).min().unwrap_or_default(),
        max_timestamp: index.streams.iter().map(|stream| stream.max).max().unwrap_or_default(),
        root,
        tail_offset,
        tenants: index.tenants.iter().filter_map(|tenant| TenantId::new(tenant).ok()).collect(),
        body: index.body,
    }
}

/// What is read of a file before its rows.
struct Parts {
    index: Index,
    templates: Option<Arc<Dictionary>>,
    parquet: ArrowReaderMetadata,
    memory: usize,
}

/// Decodes index and Parquet's metadata and checks that they are of one file.
fn decode(file: &SegmentFile, tail: &Tail, encoded: &[u8]) -> Result<Parts, SegmentError> {
    let at = file.index().start;
    let malformed = |what: &str| file.corrupt(at, format!("{what} cannot be read"));
    let mut index = Index::decode(encoded).map_err(|found| malformed(found.0))?;
    let templates = match index.body {
        crate::BodyEncoding::Plain => None,
        crate::BodyEncoding::Template => {
            let bytes = std::mem::take(&mut index.templates);
            Some(Arc::new(Dictionary::parse(&bytes).map_err(|error| malformed(&error.to_string()))?))
        }
    };
    let unreadable =
        |error| file.corrupt(tail.offset(), format!("the Parquet footer cannot be read: {error}"));
    let metadata = ParquetMetaDataReader::new()
        .with_column_index_policy(PageIndexPolicy::Skip)
        .with_offset_index_policy(PageIndexPolicy::Required)
        .parse_and_finish(tail)
        .map_err(unreadable)?;
    let parquet =
        ArrowReaderMetadata::try_new(Arc::new(metadata), ArrowReaderOptions::new()).map_err(unreadable)?;
    if parquet.schema().fields() != stored_schema().fields() {
        return Err(file.corrupt(tail.offset(), "the columns are not those of this format".into()));
    }
    let groups = parquet.metadata().row_groups().iter().map(RowGroupMetaData::num_rows);
    let ours = index.row_groups.windows(2).map(|two| i64::from(two[1] - two[0]));
    if !groups.eq(ours) {
        return Err(file.corrupt(at, "index and Parquet disagree about row groups".into()));
    }
    let memory = size_of::<Segment>()
        + index.memory(encoded)
        + index.streams.len() * size_of::<StreamRef>()
        + templates.as_deref().map_or(0, Dictionary::memory)
        + parquet.metadata().memory_size();
    Ok(Parts { index, templates, parquet, memory })
}

/// References of the entries of streams by those of their names.
fn references(index: &Index, names: &[StreamRef]) -> Vec<StreamRef> {
    index.streams.iter().map(|entry| names[entry.name as usize]).collect()
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
        let (file, tail) = SegmentFile::open(store, &path, expect.as_ref()).await?;
        let encoded = file.read(file.index()).await?;
        let Parts { index, templates, parquet, memory } = decode(&file, &tail, &encoded)?;
        let mut names = Vec::with_capacity(index.names.len());
        for name in &index.names {
            let reference = register(&file, registry, &index.tenants[name.tenant as usize], &name.labels)?;
            if registry.get(reference).id.0 != name.id {
                return Err(file.corrupt(file.index().start, "stream id cannot be read".into()));
            }
            names.push(reference);
        }
        let streams = references(&index, &names);
        let (length, root) = (parquet::file::reader::Length::len(&tail), tail.root());
        let meta = Arc::new(meta_of(&index, length, tail.offset(), root));
        Ok(Self {
            path,
            meta,
            file: Arc::new(file),
            parquet,
            index,
            names: names.into(),
            streams,
            templates,
            memory,
        })
    }

    /// Reads index and metadata of a file that was opened before; blocks the thread. `names` are the
    /// references of [`Index::names`].
    pub(crate) fn open_again(
        path: Path,
        meta: Arc<SegmentMeta>,
        file: Arc<SegmentFile>,
        names: Arc<[StreamRef]>,
    ) -> Result<Self, SegmentError> {
        let tail = file.read_tail(meta.tail_offset, &meta.root)?;
        let encoded = file.read_now(file.index())?;
        let Parts { index, templates, parquet, memory } = decode(&file, &tail, &encoded)?;
        if index.names.len() != names.len() {
            return Err(file.corrupt(file.index().start, "its streams have changed".into()));
        }
        let streams = references(&index, &names);
        Ok(Self { path, meta, file, parquet, index, names, streams, templates, memory })
    }

    /// Where it lies in the object store.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// What the catalog keeps.
    pub fn meta(&self) -> &SegmentMeta {
        &self.meta
    }

    /// A reader for one step of a query.
    pub(crate) fn reader(&self) -> CheckedReader {
        CheckedReader::new(self.file.clone())
    }
}

impl CachedIndex for Segment {
    /// Bytes of memory that index and metadata take.
    fn memory(&self) -> usize {
        self.memory
    }
}

/// Last nanosecond of the scan's range, inclusive; `None` when the range is empty.
pub(crate) fn last_instant(scan: &LogScan) -> Option<i64> {
    let last = if scan.end == i64::MAX { i64::MAX } else { scan.end.checked_sub(1)? };
    (last >= scan.start).then_some(last)
}

impl Segment {
    /// Bytes on disk by Parquet column and by our own parts, summed over segments; for measuring.
    pub fn bytes_by_part(segments: &[Arc<Self>]) -> Vec<(String, u64)> {
        let mut parts = std::collections::BTreeMap::<String, u64>::new();
        for segment in segments {
            let mut columns = 0;
            for column in segment.parquet.metadata().row_groups().iter().flat_map(RowGroupMetaData::columns) {
                *parts.entry(column.column_path().string()).or_default() += column.compressed_size() as u64;
                columns += column.compressed_size() as u64;
            }
            let bodies: u64 =
                segment.index.granules.iter().map(|granule| granule.body.end - granule.body.start).sum();
            *parts.entry("(body blocks)".into()).or_default() += bodies;
            *parts.entry("(tail)".into()).or_default() += segment.meta.file_bytes - segment.meta.tail_offset;
            let index = segment.meta.tail_offset.saturating_sub(columns + bodies);
            *parts.entry("(index)".into()).or_default() += index;
        }
        parts.into_iter().collect()
    }
}
