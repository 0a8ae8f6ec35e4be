//! A segment of spans that can be asked, with its index in memory or not.

use std::{
    sync::{
        Arc, Weak,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::Instant,
};

use arrow::array::RecordBatch;
use object_store::{ObjectStore, path::Path};
use parking_lot::Mutex;
use parquet::file::reader::Length as _;
use trine_model::TenantId;
use trine_schema::{Labels, SpanScan, StreamRef, StreamRegistry};

use super::{directory::Directory, filter::Ids, index::SpanIndex, read::LoadedSpans};
use crate::{
    BodyEncoding, IndexCache, SegmentError, SegmentMeta, StreamMatcher,
    file::{CheckedReader, SegmentFile},
};

/// Above so many trace ids the index is loaded without a look into the table of traces.
const FEW_TRACES: usize = 64;
/// A segment with more operations than this does not keep their names in memory.
const MAX_OPERATIONS: usize = 1_024;

/// What stays in memory of a segment of spans while nobody asks: enough to pass it by and to read its
/// index again. Its file stays open, so that it can be read after it was deleted.
pub struct SpanSegment {
    path: Path,
    meta: Arc<SegmentMeta>,
    pub(super) file: Arc<SegmentFile>,
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
    damaged: AtomicBool,
    /// The index while it is in memory; the lock is held while it is read, so that two do not read it.
    index: Mutex<Weak<LoadedSpans>>,
    cache: Arc<IndexCache>,
    /// Its number in the cache.
    number: u64,
}

impl std::fmt::Debug for SpanSegment {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SpanSegment").field("path", &self.path).finish_non_exhaustive()
    }
}

/// Registers the streams of an index.
fn register(
    path: &Path,
    file: &SegmentFile,
    registry: &StreamRegistry,
    index: &SpanIndex,
) -> Result<Arc<[StreamRef]>, SegmentError> {
    let malformed = |what: &str| file.corrupt(file.index().start, format!("{what} cannot be read"));
    let reference = |stream: &super::index::StreamName| {
        let tenant = TenantId::new(&stream.tenant).map_err(|_| malformed("tenant"))?;
        let labels = Labels::from_json(&stream.labels).ok_or_else(|| malformed("labels"))?;
        let interned = registry.intern(&tenant, labels);
        interned.map_err(|source| SegmentError::Streams { file: path.to_string(), source })
    };
    index.streams.iter().map(reference).collect()
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
            register(&path, &file, registry, index)
        })?;
        let names = &loaded.index.operations;
        let operations = (names.len() <= MAX_OPERATIONS).then(|| {
            let mut names: Vec<Box<str>> = names.iter().map(|name| name.as_str().into()).collect();
            names.sort_unstable();
            names.into_boxed_slice()
        });
        Ok(Arc::new(Self {
            operations,
            directory: loaded.index.directory,
            meta: Arc::new(meta_of(&loaded.index, tail.len(), tail.offset(), tail.root())),
            streams: loaded.streams.clone(),
            granules: loaded.granules(),
            attributes: {
                let index = &loaded.index;
                index.attributes.iter().chain(&index.others).map(|name| name.as_str().into()).collect()
            },
            columns: loaded.index.attributes.len(),
            damaged: AtomicBool::new(false),
            index: Mutex::default(),
            number: cache.number(),
            cache: cache.clone(),
            path,
            file,
        }))
    }

    /// The index, which stays in memory for a while for the next one who asks. Blocks the thread while
    /// it is read.
    pub(super) fn load(&self) -> Result<Arc<LoadedSpans>, SegmentError> {
        let loaded = self.load_once()?;
        self.cache.keep(self.number, loaded.clone());
        Ok(loaded)
    }

    /// [`SpanSegment::load`] for one who works through the whole segment and will not come back: the index
    /// goes with the last that holds it.
    pub(super) fn load_once(&self) -> Result<Arc<LoadedSpans>, SegmentError> {
        let mut index = self.index.lock();
        if let Some(loaded) = index.upgrade() {
            return Ok(loaded);
        }
        let begun = Instant::now();
        let tail = self.file.read_tail(self.meta.tail_offset, &self.meta.root)?;
        let encoded = self.file.read_now(self.file.index())?;
        let streams = self.streams.clone();
        let loaded = Arc::new(LoadedSpans::decode(self.file.clone(), &tail, &encoded, |_| Ok(streams))?);
        *index = Arc::downgrade(&loaded);
        self.cache.loaded(begun.elapsed());
        Ok(loaded)
    }

    /// Whether its index is kept in memory because somebody asked for it.
    pub fn is_loaded(&self) -> bool {
        self.cache.keeps(self.number)
    }

    /// Where it lies in the object store.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// What the catalog keeps.
    pub fn meta(&self) -> &SegmentMeta {
        &self.meta
    }

    /// Number of its granules.
    pub fn granules(&self) -> usize {
        self.granules
    }

    /// The streams that have spans in it.
    pub fn streams(&self) -> &[StreamRef] {
        &self.streams
    }

    /// Names of the attributes with columns of their own.
    pub(super) fn columns(&self) -> impl Iterator<Item = &str> {
        self.attributes[..self.columns].iter().map(|name| &**name)
    }

    /// Names of the attributes of its spans; of those without a column of their own about the first
    /// thousand.
    pub fn attribute_names(&self) -> impl Iterator<Item = &str> {
        self.attributes.iter().map(|name| &**name)
    }

    /// Whether a scan has met damage in it; scans leave it out from then on.
    pub fn is_damaged(&self) -> bool {
        self.damaged.load(Relaxed)
    }

    pub(super) fn set_damaged(&self) {
        self.damaged.store(true, Relaxed);
    }

    /// Whether its streams, operations and traces let it hold rows of a scan. Reads a block of the table of
    /// traces for each id that is looked for.
    pub(super) fn may_hold(
        &self,
        scan: &SpanScan,
        streams: &StreamMatcher,
        ids: Option<&Ids>,
    ) -> Result<bool, SegmentError> {
        if !self.streams.iter().any(|stream| streams.matches(*stream)) {
            return Ok(false);
        }
        if let (Some(name), Some(names)) = (&scan.operation, &self.operations)
            && names.binary_search_by(|known| (**known).cmp(name)).is_err()
        {
            return Ok(false);
        }
        ids.map_or(Ok(true), |ids| self.may_hold_traces(ids))
    }

    /// Whether it may hold one of these traces.
    pub(super) fn may_hold_traces(&self, ids: &Ids) -> Result<bool, SegmentError> {
        // Among many ids there is nearly always one, and the look-up would be made twice.
        if ids.sorted().len() > FEW_TRACES || self.index.lock().strong_count() > 0 {
            return Ok(true);
        }
        let reader = CheckedReader::new(self.file.clone());
        Ok(!self.directory.find(&reader, ids.sorted())?.is_empty())
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

impl Drop for SpanSegment {
    fn drop(&mut self) {
        self.cache.forget(self.number);
    }
}
