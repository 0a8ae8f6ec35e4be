//! A segment of any signal that can be asked, with its index in memory or not.

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
use trine_schema::{Labels, ScanError, ScanStats, StreamRef, StreamRegistry};

use crate::{CachedIndex, IndexCache, SegmentError, SegmentHandle, SegmentMeta, file::SegmentFile};

/// The index of a segment of one signal.
pub trait SegmentIndex: CachedIndex + Sized + 'static {
    /// What stays in memory of it while nobody asks: enough to pass the segment by.
    type Digest: Send + Sync;

    /// Reads the index of a file again; blocks the thread.
    fn read_again(handle: &Handle<Self>) -> Result<Self, SegmentError>;
}

/// What stays in memory of a segment while nobody asks: its digest and what it takes to read its index again.
/// Its file stays open, so that it can be read after it was deleted.
pub struct Handle<I: SegmentIndex> {
    path: Path,
    pub(crate) meta: Arc<SegmentMeta>,
    file: Arc<SegmentFile>,
    pub(crate) digest: I::Digest,
    damaged: AtomicBool,
    /// The index while it is in memory; the lock is held while it is read, so that two do not read it.
    index: Mutex<Weak<I>>,
    cache: Arc<IndexCache>,
    /// Its number in the cache.
    number: u64,
}

/// Called once when a segment turns out to be damaged; the store puts it into quarantine.
pub type OnCorrupt<S = SegmentHandle> = Arc<dyn Fn(&Arc<S>, &SegmentError) + Send + Sync>;

impl<I: SegmentIndex> std::fmt::Debug for Handle<I> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Handle").field("path", &self.path).finish_non_exhaustive()
    }
}

impl<I: SegmentIndex> Handle<I> {
    /// The handle of an opened file. `index` may still be in memory; [`Handle::load`] keeps it there.
    pub(crate) fn of(
        path: Path,
        meta: Arc<SegmentMeta>,
        file: Arc<SegmentFile>,
        digest: I::Digest,
        index: Weak<I>,
        cache: &Arc<IndexCache>,
    ) -> Arc<Self> {
        Arc::new(Self {
            path,
            meta,
            file,
            digest,
            damaged: AtomicBool::new(false),
            index: Mutex::new(index),
            number: cache.number(),
            cache: cache.clone(),
        })
    }

    /// The index, which stays in memory for a while for the next one who asks. Blocks the thread while it is
    /// read.
    pub fn load(&self) -> Result<Arc<I>, SegmentError> {
        let index = self.load_once()?;
        self.cache.keep(self.number, index.clone());
        Ok(index)
    }

    /// [`Handle::load`] for one who works through the whole segment and will not come back: the index goes
    /// with the last that holds it.
    pub fn load_once(&self) -> Result<Arc<I>, SegmentError> {
        let mut known = self.index.lock();
        if let Some(index) = known.upgrade() {
            return Ok(index);
        }
        let begun = Instant::now();
        let index = Arc::new(I::read_again(self)?);
        *known = Arc::downgrade(&index);
        self.cache.loaded(begun.elapsed());
        Ok(index)
    }

    /// Whether its index is kept in memory because somebody asked for it.
    pub fn is_loaded(&self) -> bool {
        self.cache.keeps(self.number)
    }

    /// Whether its index is in memory now, for whatever reason.
    pub(crate) fn is_at_hand(&self) -> bool {
        self.index.lock().strong_count() > 0
    }

    /// Where it lies in the object store.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// What the catalog keeps.
    pub fn meta(&self) -> &SegmentMeta {
        &self.meta
    }

    pub(crate) fn file(&self) -> &Arc<SegmentFile> {
        &self.file
    }

    /// Whether a question has met damage in it; later ones leave it out.
    pub fn is_damaged(&self) -> bool {
        self.damaged.load(Relaxed)
    }

    /// [`Handle::is_damaged`] for a question, whose statistics then name it.
    pub(crate) fn is_left_out(&self, stats: &ScanStats) -> bool {
        let damaged = self.is_damaged();
        if damaged {
            stats.partial.lock().push(format!("segment {} is damaged and left out", self.path));
        }
        damaged
    }

    /// Takes a failure of a question in it: damage is noted and the question goes on, anything else ends it.
    pub(crate) fn failed(
        self: &Arc<Self>,
        error: SegmentError,
        stats: &ScanStats,
        on_corrupt: &OnCorrupt<Self>,
    ) -> Result<(), ScanError> {
        match error {
            SegmentError::Scan(error) => Err(error),
            error if error.is_corrupt() => {
                stats.partial.lock().push(format!(
                    "{error}; this answer may hold some of its rows, later ones are without the file"
                ));
                // Another step or question may have met it before.
                if !self.damaged.swap(true, Relaxed) {
                    on_corrupt(self, &error);
                }
                Ok(())
            }
            error => Err(ScanError::Storage(error.to_string())),
        }
    }
}

impl<I: SegmentIndex> Drop for Handle<I> {
    fn drop(&mut self) {
        self.cache.forget(self.number);
    }
}

/// Registers a stream that an index names.
pub(crate) fn register(
    file: &SegmentFile,
    registry: &StreamRegistry,
    tenant: &str,
    labels: &str,
) -> Result<StreamRef, SegmentError> {
    let malformed = |what: &str| file.corrupt(file.index().start, format!("{what} cannot be read"));
    let tenant = TenantId::new(tenant).map_err(|_| malformed("tenant"))?;
    let labels = Labels::from_json(labels).ok_or_else(|| malformed("labels"))?;
    registry.intern(&tenant, labels).map_err(|source| file.refused(source))
}
