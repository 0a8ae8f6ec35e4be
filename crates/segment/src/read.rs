//! An opened segment.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering::Relaxed},
};

use hashbrown::HashMap;
use object_store::{ObjectStore, path::Path};
use parquet::{
    arrow::arrow_reader::{ArrowReaderMetadata, ArrowReaderOptions},
    file::metadata::{PageIndexPolicy, ParquetMetaDataReader, RowGroupMetaData},
};
use trine_body::Dictionary;
use trine_model::TenantId;
use trine_schema::{Labels, LogScan, StreamRef, StreamRegistry};

use crate::{
    SegmentError, SegmentMeta, StreamMatcher,
    columns::stored_schema,
    file::{CheckedReader, SegmentFile},
    index::Index,
};

/// Bytes a parsed page location takes, about; for [`Segment::memory`].
const PAGE_LOCATION_BYTES: usize = 24;

/// An opened segment: its index in memory, its file open.
pub struct Segment {
    path: Path,
    meta: SegmentMeta,
    pub(crate) file: Arc<SegmentFile>,
    pub(crate) parquet: ArrowReaderMetadata,
    pub(crate) index: Index,
    /// The process's references of [`Index::streams`].
    pub(crate) streams: Vec<StreamRef>,
    /// Each stream once.
    spans: Vec<StreamSpan>,
    /// Templates; `None` for plain bodies.
    pub(crate) templates: Option<Dictionary>,
    damaged: AtomicBool,
    memory: usize,
}

/// First and last time of a stream in a segment.
struct StreamSpan {
    stream: StreamRef,
    min: i64,
    max: i64,
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

impl Segment {
    /// Opens a segment and registers its streams. With `expect` (from the catalog) the root is checked;
    /// without, the file's own checksums.
    pub async fn open(
        store: Arc<dyn ObjectStore>,
        path: Path,
        registry: &StreamRegistry,
        expect: Option<SegmentMeta>,
    ) -> Result<Self, SegmentError> {
        let (file, tail, places) = SegmentFile::open(store, &path, expect.as_ref()).await?;
        let malformed = |what: &str| file.corrupt(places.index.start, format!("{what} cannot be read"));
        let encoded = file.read(places.index.clone()).await?;
        let mut index = Index::decode(&encoded).map_err(|found| malformed(found.0))?;
        let templates = match index.body {
            crate::BodyEncoding::Plain => None,
            crate::BodyEncoding::Template => {
                let bytes = std::mem::take(&mut index.templates);
                Some(Dictionary::parse(&bytes).map_err(|error| malformed(&error.to_string()))?)
            }
        };
        let metadata = ParquetMetaDataReader::new()
            .with_column_index_policy(PageIndexPolicy::Skip)
            .with_offset_index_policy(PageIndexPolicy::Required)
            .parse_and_finish(&tail)
            .map_err(|error| {
                file.corrupt(places.tail_offset, format!("the Parquet footer cannot be read: {error}"))
            })?;
        let pages: usize = metadata
            .row_groups()
            .iter()
            .map(|group| group.num_columns() * (group.num_rows() as usize).div_ceil(crate::GRANULE_ROWS))
            .sum();
        let parquet =
            ArrowReaderMetadata::try_new(Arc::new(metadata), ArrowReaderOptions::new()).map_err(|error| {
                file.corrupt(places.tail_offset, format!("the Parquet footer cannot be read: {error}"))
            })?;
        if parquet.schema().fields() != stored_schema().fields() {
            return Err(file.corrupt(places.tail_offset, "the columns are not those of this format".into()));
        }
        let groups = parquet.metadata().row_groups().iter().map(RowGroupMetaData::num_rows);
        let ours = index.row_groups.windows(2).map(|two| i64::from(two[1] - two[0]));
        if !groups.eq(ours) {
            return Err(
                file.corrupt(places.index.start, "index and Parquet disagree about row groups".into())
            );
        }
        let mut streams = Vec::with_capacity(index.streams.len());
        // A stream has an entry in each run.
        let mut known: HashMap<(u32, u128), usize> = HashMap::new();
        let mut spans: Vec<StreamSpan> = Vec::new();
        for stream in &index.streams {
            if let Some(position) = known.get(&(stream.tenant, stream.id)) {
                let span = &mut spans[*position];
                (span.min, span.max) = (span.min.min(stream.min), span.max.max(stream.max));
                streams.push(span.stream);
                continue;
            }
            let tenant =
                TenantId::new(&index.tenants[stream.tenant as usize]).map_err(|_| malformed("tenant"))?;
            let labels = Labels::from_json(&stream.labels).ok_or_else(|| malformed("labels"))?;
            let reference = registry
                .intern(&tenant, labels)
                .map_err(|source| SegmentError::Streams { file: path.to_string(), source })?;
            if registry.get(reference).id.0 != stream.id {
                return Err(malformed("stream id"));
            }
            known.insert((stream.tenant, stream.id), spans.len());
            spans.push(StreamSpan { stream: reference, min: stream.min, max: stream.max });
            streams.push(reference);
        }
        let memory = encoded.len() * 2 + file.memory() + pages * PAGE_LOCATION_BYTES + index.marks.len() * 8;
        let (length, root) = (parquet::file::reader::Length::len(&tail), tail.root());
        let meta = meta_of(&index, length, places.tail_offset, root);
        let file = Arc::new(file);
        Ok(Self {
            path,
            meta,
            file,
            parquet,
            index,
            streams,
            spans,
            templates,
            damaged: AtomicBool::new(false),
            memory,
        })
    }

    /// Where it lies in the object store.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// What the catalog keeps.
    pub fn meta(&self) -> &SegmentMeta {
        &self.meta
    }

    /// Bytes of memory the opened segment holds, about.
    pub fn memory(&self) -> usize {
        self.memory
    }

    /// Number of its sorted runs.
    pub fn runs(&self) -> usize {
        self.index.runs.len()
    }

    /// Whether a scan has met damage in it; scans leave it out from then on.
    pub fn is_damaged(&self) -> bool {
        self.damaged.load(Relaxed)
    }

    pub(crate) fn set_damaged(&self) {
        self.damaged.store(true, Relaxed);
    }

    /// A reader for one step of a query.
    pub(crate) fn reader(&self) -> CheckedReader {
        CheckedReader::new(self.file.clone())
    }

    /// Streams of the scan's tenant that match and have rows in its range, each once.
    pub fn streams(&self, scan: &LogScan, matcher: &StreamMatcher) -> Vec<StreamRef> {
        let Some(last) = last_instant(scan) else { return Vec::new() };
        let in_range = self.spans.iter().filter(|span| span.min <= last && span.max >= scan.start);
        in_range.map(|span| span.stream).filter(|stream| matcher.matches(*stream)).collect()
    }

    /// Attribute names of a tenant's rows with the number of rows that have them, most frequent first.
    pub fn attribute_names(&self, tenant: &TenantId) -> Vec<(String, u64)> {
        let position = self.index.tenants.iter().position(|name| name == tenant.as_str());
        let named = |entry: &&(u32, String, u64)| Some(entry.0 as usize) == position;
        self.index.attributes.iter().filter(named).map(|(_, name, rows)| (name.clone(), *rows)).collect()
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
