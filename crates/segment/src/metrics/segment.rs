//! A segment of metrics that can be asked, with its index in memory or not.

use std::{
    ops::Range,
    sync::{
        Arc, OnceLock, Weak,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::Instant,
};

use bytes::Bytes;
use object_store::{ObjectStore, path::Path};
use parking_lot::Mutex;
use parquet::file::reader::Length as _;
use trine_chunks::{ChunkError, Outline};
use trine_schema::StreamRegistry;

use super::{
    index::{MetricIndex, Totals},
    rows::ns,
    side::{self, ExemplarRow, FrameKind, FramePlace, MetadataRow, OddRow},
};
use crate::{BodyEncoding, IndexCache, SegmentError, SegmentMeta, codec::Malformed, file::SegmentFile};

/// What stays in memory of a segment while nobody asks: its open file, checksums and [`SegmentMeta`].
pub struct MetricSegment {
    path: Path,
    meta: SegmentMeta,
    file: SegmentFile,
    damaged: AtomicBool,
    /// Where its metadata lies, once that is known: what is told of metrics is asked for again and again.
    metadata: OnceLock<Box<[FramePlace]>>,
    /// The index while it is in memory; the lock is held while it is read, so that two do not read it.
    index: Mutex<Weak<MetricIndex>>,
    /// Who keeps the index after a question, and the segment's number there.
    cache: Option<(Arc<IndexCache>, u64)>,
}

impl std::fmt::Debug for MetricSegment {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("MetricSegment").field("path", &self.path).finish_non_exhaustive()
    }
}

/// What the catalog keeps about a file with these totals.
pub(super) fn meta_of(totals: &Totals, file_bytes: u64, tail_offset: u64, root: [u8; 32]) -> SegmentMeta {
    SegmentMeta {
        rows: totals.rows,
        raw_bytes: totals.raw_bytes,
        file_bytes,
        min_timestamp: ns(totals.min),
        max_timestamp: ns(totals.max),
        root,
        tail_offset,
        tenants: totals.tenants.clone(),
        body: BodyEncoding::Plain,
    }
}

impl MetricSegment {
    /// Opens a segment. With `expect` (from the catalog) the root is checked; without, the file's own
    /// checksums and its index. Series are registered when a question reaches them, so the registry is as it was.
    pub async fn open(
        store: Arc<dyn ObjectStore>,
        path: Path,
        _registry: &StreamRegistry,
        expect: Option<&SegmentMeta>,
    ) -> Result<Self, SegmentError> {
        let (file, tail) = SegmentFile::open(store, &path, expect).await?;
        let meta = match expect {
            Some(expect) => expect.clone(),
            None => {
                let index = decode_index(&file, &file.read(file.index()).await?)?;
                meta_of(&index.totals, tail.len(), tail.offset(), tail.root())
            }
        };
        Ok(Self {
            path,
            meta,
            file,
            damaged: AtomicBool::new(false),
            metadata: OnceLock::new(),
            index: Mutex::new(Weak::new()),
            cache: None,
        })
    }

    /// Lets the index stay in memory for a while after a question. Without this it is read for each one.
    #[must_use]
    pub fn cached(mut self, cache: &Arc<IndexCache>) -> Self {
        self.cache = Some((cache.clone(), cache.number()));
        self
    }

    /// Where it lies in the object store.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// What the catalog keeps.
    pub fn meta(&self) -> &SegmentMeta {
        &self.meta
    }

    /// Bytes on disk by part; for measuring.
    pub fn bytes_by_part(&self) -> Result<Vec<(&'static str, u64)>, SegmentError> {
        let index = self.index_once()?;
        let own = self.file.index();
        Ok(vec![
            ("blocks", index.blocks.iter().map(|block| block.place.length).sum()),
            ("frames", index.frames.iter().map(|frame| frame.length).sum()),
            ("index", own.end - own.start),
            ("tail", self.meta.file_bytes - self.meta.tail_offset),
        ])
    }

    /// Whether a question has met damage in it; later ones leave it out.
    pub fn is_damaged(&self) -> bool {
        self.damaged.load(Relaxed)
    }

    /// Whether it was whole until now.
    pub(super) fn set_damaged(&self) -> bool {
        !self.damaged.swap(true, Relaxed)
    }

    pub(super) fn file(&self) -> &SegmentFile {
        &self.file
    }

    /// The index, which stays in memory for a while for the next one who asks. Blocks the thread while it is
    /// read.
    pub(super) fn index(&self) -> Result<Arc<MetricIndex>, SegmentError> {
        let index = self.index_once()?;
        if let Some((cache, number)) = &self.cache {
            cache.keep(*number, index.clone());
        }
        Ok(index)
    }

    /// The index for one who works through the whole segment and will not come back.
    pub(super) fn index_once(&self) -> Result<Arc<MetricIndex>, SegmentError> {
        let mut known = self.index.lock();
        if let Some(index) = known.upgrade() {
            return Ok(index);
        }
        let begun = Instant::now();
        let index = Arc::new(decode_index(&self.file, &self.file.read_now(self.file.index())?)?);
        *known = Arc::downgrade(&index);
        if let Some((cache, _)) = &self.cache {
            cache.loaded(begun.elapsed());
        }
        Ok(index)
    }

    /// Checked bytes at places of the index; blocks the thread.
    pub(super) fn read(&self, offset: u64, within: Range<usize>) -> Result<Bytes, SegmentError> {
        let place = |at: usize| offset.saturating_add(at as u64);
        self.file.read_now(place(within.start)..place(within.end))
    }

    /// The directory of a block.
    pub(super) fn outline<'i>(
        &self,
        index: &'i MetricIndex,
        block: usize,
    ) -> Result<&'i Outline, SegmentError> {
        let block = &index.blocks[block];
        if let Some(outline) = block.outline.get() {
            return Ok(outline);
        }
        let place = &block.place;
        let bytes = self.read(place.offset, 0..place.head as usize)?;
        let outline = Outline::parse(&bytes, place.length as usize)
            .map_err(|error| self.damage(place.offset, error))?;
        Ok(block.outline.get_or_init(|| outline))
    }

    /// An error about a block that begins at `offset`.
    pub(super) fn damage(&self, offset: u64, error: ChunkError) -> SegmentError {
        match error {
            ChunkError::Version(found) => SegmentError::Version {
                file: self.path.to_string(),
                found: u32::from(found),
                known: u32::from(trine_chunks::VERSION),
            },
            error => self.file.corrupt(offset, error.to_string()),
        }
    }

    fn frame<T>(
        &self,
        place: &FramePlace,
        read: impl Fn(&FramePlace, &[u8]) -> Result<Vec<T>, Malformed>,
    ) -> Result<Vec<T>, SegmentError> {
        let bytes = self.read(place.offset, 0..place.length as usize)?;
        read(place, &bytes)
            .map_err(|found| self.file.corrupt(place.offset, format!("{} cannot be read", found.0)))
    }

    pub(super) fn exemplars(&self, place: &FramePlace) -> Result<Vec<ExemplarRow>, SegmentError> {
        self.frame(place, side::exemplars)
    }

    pub(super) fn odd(&self, place: &FramePlace) -> Result<Vec<OddRow>, SegmentError> {
        self.frame(place, side::odd)
    }

    pub(super) fn metadata_frame(&self, place: &FramePlace) -> Result<Vec<MetadataRow>, SegmentError> {
        self.frame(place, side::metadata)
    }

    /// All metadata in it.
    pub(super) fn metadata(&self) -> Result<Vec<MetadataRow>, SegmentError> {
        let places = match self.metadata.get() {
            Some(places) => places,
            None => {
                let index = self.index_once()?;
                let places = index.frames.iter().filter(|place| place.kind == FrameKind::Metadata);
                self.metadata.get_or_init(|| places.cloned().collect())
            }
        };
        let mut rows = Vec::new();
        for place in places {
            rows.extend(self.metadata_frame(place)?);
        }
        Ok(rows)
    }
}

impl Drop for MetricSegment {
    fn drop(&mut self) {
        if let Some((cache, number)) = &self.cache {
            cache.forget(*number);
        }
    }
}

fn decode_index(file: &SegmentFile, encoded: &[u8]) -> Result<MetricIndex, SegmentError> {
    MetricIndex::decode(encoded)
        .map_err(|found| file.corrupt(file.index().start, format!("{} cannot be read", found.0)))
}
