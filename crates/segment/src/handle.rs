//! A segment that can be asked, with its index in memory or not.

use std::{
    sync::{
        Arc, Weak,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::Instant,
};

use object_store::path::Path;
use parking_lot::Mutex;
use trine_model::TenantId;
use trine_schema::{LogScan, StreamRef};

use crate::{
    IndexCache, Segment, SegmentError, SegmentMeta, StreamMatcher, file::SegmentFile, read::last_instant,
};

/// What stays in memory of a segment while nobody asks: enough to pass it by, to name its streams and
/// attributes, and to read its index again. Its file stays open, so that it can be read after it was deleted.
pub struct SegmentHandle {
    path: Path,
    meta: Arc<SegmentMeta>,
    file: Arc<SegmentFile>,
    runs: usize,
    granules: usize,
    /// Each stream once, in the order of the file.
    streams: Arc<[StreamRef]>,
    /// When they have rows.
    spans: Box<[Span]>,
    /// Attribute names: position of the tenant in the meta, name, rows.
    attributes: Box<[(u32, Box<str>, u64)]>,
    damaged: AtomicBool,
    /// The index while it is in memory; the lock is held while it is read, so that two do not read it.
    index: Mutex<Weak<Segment>>,
    cache: Arc<IndexCache>,
    /// Its number in the cache.
    number: u64,
}

/// First and last time of a stream in a segment.
#[derive(Clone, Copy)]
struct Span {
    min: i64,
    max: i64,
}

impl std::fmt::Debug for SegmentHandle {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SegmentHandle").field("path", &self.path).finish_non_exhaustive()
    }
}

impl SegmentHandle {
    /// The handle of an opened segment. It does not keep the index in memory; [`SegmentHandle::load`] does.
    pub fn new(segment: &Arc<Segment>, cache: &Arc<IndexCache>) -> Arc<Self> {
        let index = &segment.index;
        let mut spans = vec![Span { min: i64::MAX, max: i64::MIN }; index.names.len()];
        // A stream has an entry in each run.
        for entry in &index.streams {
            let span = &mut spans[entry.name as usize];
            (span.min, span.max) = (span.min.min(entry.min), span.max.max(entry.max));
        }
        let attributes = index.attributes.iter();
        let attributes = attributes.map(|(tenant, name, rows)| (*tenant, name.as_str().into(), *rows));
        Arc::new(Self {
            path: segment.path().clone(),
            meta: segment.meta.clone(),
            file: segment.file.clone(),
            runs: index.runs.len(),
            granules: index.granules.len(),
            streams: segment.names.clone(),
            spans: spans.into_boxed_slice(),
            attributes: attributes.collect(),
            damaged: AtomicBool::new(false),
            index: Mutex::new(Arc::downgrade(segment)),
            number: cache.number(),
            cache: cache.clone(),
        })
    }

    /// The segment with its index, which stays in memory for a while for the next one who asks. Blocks the
    /// thread while the index is read.
    pub fn load(&self) -> Result<Arc<Segment>, SegmentError> {
        let segment = self.open()?;
        self.keep(&segment);
        Ok(segment)
    }

    /// Keeps its index in memory for a while, as if somebody had asked for it now.
    pub fn keep(&self, segment: &Arc<Segment>) {
        self.cache.keep(self.number, segment.clone());
    }

    /// [`SegmentHandle::load`] for one who works through the whole segment and will not come back: the index
    /// goes with the last that holds it.
    pub fn open(&self) -> Result<Arc<Segment>, SegmentError> {
        let mut index = self.index.lock();
        if let Some(segment) = index.upgrade() {
            return Ok(segment);
        }
        let begun = Instant::now();
        let (path, streams) = (self.path.clone(), self.streams.clone());
        let segment = Segment::open_again(path, self.meta.clone(), self.file.clone(), streams)?;
        let segment = Arc::new(segment);
        *index = Arc::downgrade(&segment);
        self.cache.loaded(begun.elapsed());
        Ok(segment)
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

    /// Number of its sorted runs.
    pub fn runs(&self) -> usize {
        self.runs
    }

    /// Number of its granules.
    pub(crate) fn granules(&self) -> usize {
        self.granules
    }

    /// Whether a scan has met damage in it; scans leave it out from then on.
    pub fn is_damaged(&self) -> bool {
        self.damaged.load(Relaxed)
    }

    pub(crate) fn set_damaged(&self) {
        self.damaged.store(true, Relaxed);
    }

    /// Streams of the scan's tenant that match and have rows in its range, each once.
    pub fn streams<'a>(
        &'a self,
        scan: &LogScan,
        matcher: &'a StreamMatcher,
    ) -> impl Iterator<Item = StreamRef> + 'a {
        let (start, last) = (scan.start, last_instant(scan));
        let in_range = move |span: &Span| last.is_some_and(|last| span.min <= last && span.max >= start);
        let streams = self.streams.iter().zip(&self.spans).filter(move |(_, span)| in_range(span));
        streams.map(|(stream, _)| *stream).filter(|stream| matcher.matches(*stream))
    }

    /// Attribute names of a tenant's rows with the number of rows that have them, most frequent first.
    pub fn attribute_names<'a>(
        &'a self,
        tenant: &TenantId,
    ) -> impl Iterator<Item = (&'a str, u64)> + use<'a> {
        let position = self.meta.tenants.iter().position(|name| name == tenant);
        let named = self.attributes.iter().filter(move |(whose, _, _)| Some(*whose as usize) == position);
        named.map(|(_, name, rows)| (&**name, *rows))
    }
}

impl Drop for SegmentHandle {
    fn drop(&mut self) {
        self.cache.forget(self.number);
    }
}
