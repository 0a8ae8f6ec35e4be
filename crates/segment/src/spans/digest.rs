//! What stays in memory of a segment of spans while nobody asks.

use std::sync::{Arc, Weak};

use arrow::array::RecordBatch;
use object_store::{ObjectStore, path::Path};
use parquet::file::reader::Length as _;
use trine_model::TenantId;
use trine_schema::{SpanScan, StreamRef, StreamRegistry};

use super::{directory::Directory, filter::Ids, index::SpanIndex, read::LoadedSpans};
use crate::{
    BodyEncoding, IndexCache, SegmentError, SegmentMeta, StreamMatcher,
    file::{CheckedReader, SegmentFile},
    handle::{Handle, SegmentIndex, register},
};

/// Above so many trace ids the index is loaded without a look into the table of traces.
const FEW_TRACES: usize = 64;
/// A segment with more operations than this does not keep their names in memory.
const MAX_OPERATIONS: usize = 1_024;

/// A segment of spans that can be asked, with its index in memory or not.
pub type SpanSegment = Handle<LoadedSpans>;

/// What stays of an index: enough to pass the segment by and to name its streams and attributes.
pub struct SpanDigest {
    /// The process's references of the index's streams.
    streams: Arc<[StreamRef]>,
    /// Names of its operations, sorted; none when they are too many.
    operations: Option<Box<[Box<str>]>>,
    /// Where the table of its traces lies: a look-up needs no index.
    directory: Directory,
    granules: usize,
    /// Names of the attributes of its spans, those with columns of their own first.
    attributes: Box<[Box<str>]>,
    /// How many have columns.
    columns: usize,
}

/// What the catalog keeps about a file with this index.
pub(super) fn meta_of(index: &SpanIndex, file_bytes: u64, tail_offset: u64, root: [u8; 32]) -> SegmentMeta {
    let granules = &index.granules;
    let mut tenants: Vec<&str> = index.streams.iter().map(|stream| stream.tenant.as_str()).collect();
    tenants.sort_unstable();
    tenants.dedup();
    SegmentMeta {
        rows: index.rows(),
        raw_bytes: index.raw_bytes,
        file_bytes,
        min_timestamp: granules.iter().map(|granule| granule.min).min().unwrap_or_default(),
        max_timestamp: granules.iter().map(|granule| granule.max).max().unwrap_or_default(),
        root,
        tail_offset,
        tenants: tenants.into_iter().filter_map(|tenant| TenantId::new(tenant).ok()).collect(),
        body: BodyEncoding::Plain,
    }
}

impl SegmentIndex for LoadedSpans {
    type Digest = SpanDigest;

    fn read_again(handle: &SpanSegment) -> Result<Self, SegmentError> {
        let (meta, file) = (handle.meta(), handle.file());
        let tail = file.read_tail(meta.tail_offset, &meta.root)?;
        let encoded = file.read_now(file.index())?;
        Self::decode(file.clone(), &tail, &encoded, |_| Ok(handle.digest.streams.clone()))
    }
}

impl SpanSegment {
    /// Opens a segment and registers its streams. With `expect` (from the catalog) the root is checked;
    /// without, the file's own checksums. The index is let go of; it is read again when somebody asks
    /// and then kept in the cache.
    pub async fn open(
        store: Arc<dyn ObjectStore>,
        path: Path,
        registry: &StreamRegistry,
        expect: Option<&SegmentMeta>,
        cache: &Arc<IndexCache>,
    ) -> Result<Arc<Self>, SegmentError> {
        let (file, tail) = SegmentFile::open(store, &path, expect).await?;
        let file = Arc::new(file);
        let encoded = file.read(file.index()).await?;
        let loaded = LoadedSpans::decode(file.clone(), &tail, &encoded, |index| {
            let streams = index.streams.iter();
            streams.map(|stream| register(&file, registry, &stream.tenant, &stream.labels)).collect()
        })?;
        let names = &loaded.index.operations;
        let operations = (names.len() <= MAX_OPERATIONS).then(|| {
            let mut names: Vec<Box<str>> = names.iter().map(|name| name.as_str().into()).collect();
            names.sort_unstable();
            names.into_boxed_slice()
        });
        let digest = SpanDigest {
            operations,
            directory: loaded.index.directory,
            streams: loaded.streams.clone(),
            granules: loaded.granules(),
            attributes: {
                let index = &loaded.index;
                index.attributes.iter().chain(&index.others).map(|name| name.as_str().into()).collect()
            },
            columns: loaded.index.attributes.len(),
        };
        let meta = Arc::new(meta_of(&loaded.index, tail.len(), tail.offset(), tail.root()));
        Ok(Self::of(path, meta, file, digest, Weak::new(), cache))
    }

    /// Number of its granules.
    pub fn granules(&self) -> usize {
        self.digest.granules
    }

    /// The streams that have spans in it.
    pub fn streams(&self) -> &[StreamRef] {
        &self.digest.streams
    }

    /// Names of the attributes with columns of their own.
    pub(super) fn columns(&self) -> impl Iterator<Item = &str> {
        self.digest.attributes[..self.digest.columns].iter().map(|name| &**name)
    }

    /// Names of the attributes of its spans; of those without a column of their own about the first
    /// thousand.
    pub fn attribute_names(&self) -> impl Iterator<Item = &str> {
        self.digest.attributes.iter().map(|name| &**name)
    }

    /// Whether its streams, operations and traces let it hold rows of a scan. Reads a block of the table of
    /// traces for each id that is looked for.
    pub(super) fn may_hold(
        &self,
        scan: &SpanScan,
        streams: &StreamMatcher,
        ids: Option<&Ids>,
    ) -> Result<bool, SegmentError> {
        if !self.digest.streams.iter().any(|stream| streams.matches(*stream)) {
            return Ok(false);
        }
        if let (Some(name), Some(names)) = (&scan.operation, &self.digest.operations)
            && names.binary_search_by(|known| (**known).cmp(name)).is_err()
        {
            return Ok(false);
        }
        ids.map_or(Ok(true), |ids| self.may_hold_traces(ids))
    }

    /// Whether it may hold one of these traces.
    pub(super) fn may_hold_traces(&self, ids: &Ids) -> Result<bool, SegmentError> {
        // Among many ids there is nearly always one, and the look-up would be made twice.
        if ids.sorted().len() > FEW_TRACES || self.is_at_hand() {
            return Ok(true);
        }
        let reader = CheckedReader::new(self.file().clone());
        Ok(!self.digest.directory.find(&reader, ids.sorted())?.is_empty())
    }

    /// All rows of a granule with the columns of [`trine_schema::spans::schema`].
    pub fn granule(&self, number: usize) -> Result<RecordBatch, SegmentError> {
        self.load_once()?.granule(number)
    }

    /// Bytes on disk by Parquet column and by our own parts; for measuring.
    pub fn bytes_by_part(&self) -> Result<Vec<(String, u64)>, SegmentError> {
        Ok(self.load()?.bytes_by_part())
    }
}
