//! A segment of metrics that can be asked, with its index in memory or not.

use std::{
    ops::Range,
    sync::{Arc, OnceLock, Weak},
};

use bytes::Bytes;
use object_store::{ObjectStore, path::Path};
use parquet::file::reader::Length as _;
use trine_chunks::{ChunkError, Outline};

use super::{
    index::{MetricIndex, Totals},
    rows::ns,
    side::{self, ExemplarRow, FrameKind, FramePlace, MetadataRow, OddRow},
};
use crate::{
    BodyEncoding, IndexCache, SegmentError, SegmentMeta,
    codec::Malformed,
    file::SegmentFile,
    handle::{Handle, SegmentIndex},
};

/// A segment of metrics that can be asked, with its index in memory or not.
pub type MetricSegment = Handle<MetricIndex>;

/// What stays of an index: little, it is read quickly.
#[derive(Default)]
pub struct MetricDigest {
    /// Where its metadata lies, once that is known: what is told of metrics is asked for again and again.
    metadata: OnceLock<Box<[FramePlace]>>,
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

impl SegmentIndex for MetricIndex {
    type Digest = MetricDigest;

    fn read_again(handle: &MetricSegment) -> Result<Self, SegmentError> {
        let file = handle.file();
        decode_index(file, &file.read_now(file.index())?)
    }
}

impl MetricSegment {
    /// Opens a segment. With `expect` (from the catalog) the root is checked; without, the file's own
    /// checksums and its index.
    pub async fn open(
        store: Arc<dyn ObjectStore>,
        path: Path,
        expect: Option<&SegmentMeta>,
        cache: &Arc<IndexCache>,
    ) -> Result<Arc<Self>, SegmentError> {
        let (file, tail) = SegmentFile::open(store, &path, expect).await?;
        let meta = match expect {
            Some(expect) => expect.clone(),
            None => {
                let index = decode_index(&file, &file.read(file.index()).await?)?;
                meta_of(&index.totals, tail.len(), tail.offset(), tail.root())
            }
        };
        Ok(Self::of(path, Arc::new(meta), Arc::new(file), MetricDigest::default(), Weak::new(), cache))
    }

    /// Bytes on disk by part; for measuring.
    pub fn bytes_by_part(&self) -> Result<Vec<(&'static str, u64)>, SegmentError> {
        let index = self.load_once()?;
        let own = self.file().index();
        Ok(vec![
            ("blocks", index.blocks.iter().map(|block| block.place.length).sum()),
            ("frames", index.frames.iter().map(|frame| frame.length).sum()),
            ("index", own.end - own.start),
            ("tail", self.meta().file_bytes - self.meta().tail_offset),
        ])
    }

    /// Checked bytes at places of the index; blocks the thread.
    pub(super) fn read(&self, offset: u64, within: Range<usize>) -> Result<Bytes, SegmentError> {
        let place = |at: usize| offset.saturating_add(at as u64);
        self.file().read_now(place(within.start)..place(within.end))
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
                file: self.path().to_string(),
                found: u32::from(found),
                known: u32::from(trine_chunks::VERSION),
            },
            error => self.file().corrupt(offset, error.to_string()),
        }
    }

    fn frame<T>(
        &self,
        place: &FramePlace,
        read: impl Fn(&FramePlace, &[u8]) -> Result<Vec<T>, Malformed>,
    ) -> Result<Vec<T>, SegmentError> {
        let bytes = self.read(place.offset, 0..place.length as usize)?;
        read(place, &bytes)
            .map_err(|found| self.file().corrupt(place.offset, format!("{} cannot be read", found.0)))
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
        let places = match self.digest.metadata.get() {
            Some(places) => places,
            None => {
                let index = self.load_once()?;
                let places = index.frames.iter().filter(|place| place.kind == FrameKind::Metadata);
                self.digest.metadata.get_or_init(|| places.cloned().collect())
            }
        };
        let mut rows = Vec::new();
        for place in places {
            rows.extend(self.metadata_frame(place)?);
        }
        Ok(rows)
    }
}

fn decode_index(file: &SegmentFile, encoded: &[u8]) -> Result<MetricIndex, SegmentError> {
    MetricIndex::decode(encoded)
        .map_err(|found| file.corrupt(file.index().start, format!("{} cannot be read", found.0)))
}
