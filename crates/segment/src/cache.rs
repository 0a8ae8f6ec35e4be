//! The indexes that are kept in memory after a question, until they are idle or too many.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use hashbrown::HashMap;
use parking_lot::Mutex;

/// An index of a segment, of whatever signal.
pub trait CachedIndex: Send + Sync {
    /// Bytes of memory it takes.
    fn memory(&self) -> usize;
}

/// Indexes of segments that were asked for lately, up to a bound; the least recently asked for go first.
/// A query that reads with an index keeps it alive by itself, so letting go never disturbs one.
pub struct IndexCache {
    most_bytes: usize,
    kept: Mutex<Kept>,
    next: AtomicU64,
    loads: AtomicU64,
    load_ns: AtomicU64,
}

#[derive(Default)]
struct Kept {
    /// By the number of the handle.
    indexes: HashMap<u64, Entry>,
    bytes: usize,
}

struct Entry {
    index: Arc<dyn CachedIndex>,
    /// What it took when it came.
    bytes: usize,
    asked: Instant,
}

impl Kept {
    fn remove(&mut self, handle: u64) -> Option<Arc<dyn CachedIndex>> {
        let entry = self.indexes.remove(&handle)?;
        self.bytes -= entry.bytes;
        Some(entry.index)
    }
}

impl IndexCache {
    /// Keeps indexes of at most so many bytes together. With 0 each question reads its indexes anew.
    pub fn new(most_bytes: usize) -> Arc<Self> {
        Arc::new(Self {
            most_bytes,
            kept: Mutex::default(),
            next: AtomicU64::new(0),
            loads: AtomicU64::new(0),
            load_ns: AtomicU64::new(0),
        })
    }

    /// Bytes of the indexes it keeps.
    pub fn bytes(&self) -> usize {
        self.kept.lock().bytes
    }

    /// How many indexes were read for questions so far.
    pub fn loads(&self) -> u64 {
        self.loads.load(Relaxed)
    }

    /// Nanoseconds that took.
    pub fn load_ns(&self) -> u64 {
        self.load_ns.load(Relaxed)
    }

    /// Lets go of what nobody asked for within `idle`.
    pub fn let_go(&self, idle: Duration) {
        let now = Instant::now();
        let mut kept = self.kept.lock();
        let is_idle = |entry: &Entry| now.saturating_duration_since(entry.asked) >= idle;
        let handles = kept.indexes.iter().filter(|(_, entry)| is_idle(entry)).map(|(handle, _)| *handle);
        let handles: Vec<u64> = handles.collect();
        let gone: Vec<_> = handles.into_iter().filter_map(|handle| kept.remove(handle)).collect();
        // Freeing takes a while; others need not wait for it.
        drop(kept);
        drop(gone);
    }

    /// A number for a new handle.
    pub(crate) fn number(&self) -> u64 {
        self.next.fetch_add(1, Relaxed)
    }

    pub(crate) fn loaded(&self, took: Duration) {
        self.loads.fetch_add(1, Relaxed);
        self.load_ns.fetch_add(took.as_nanos() as u64, Relaxed);
    }

    /// The index was asked for: keeps it and lets others go when they are too much together.
    pub(crate) fn keep(&self, handle: u64, index: Arc<dyn CachedIndex>) {
        let bytes = index.memory();
        let mut kept = self.kept.lock();
        let mut gone: Vec<_> = kept.remove(handle).into_iter().collect();
        kept.indexes.insert(handle, Entry { index, bytes, asked: Instant::now() });
        kept.bytes += bytes;
        while kept.bytes > self.most_bytes {
            let oldest = kept.indexes.iter().min_by_key(|(_, entry)| entry.asked).map(|(handle, _)| *handle);
            gone.extend(oldest.and_then(|handle| kept.remove(handle)));
        }
        drop(kept);
        drop(gone);
    }

    pub(crate) fn keeps(&self, handle: u64) -> bool {
        self.kept.lock().indexes.contains_key(&handle)
    }

    pub(crate) fn forget(&self, handle: u64) {
        let gone = self.kept.lock().remove(handle);
        drop(gone);
    }
}
