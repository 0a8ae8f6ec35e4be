//! Opening a data directory after whatever happened to it.
//!
//! 1. lock, version;
//! 2. catalog; when it is damaged or gone, it is set aside and rebuilt from the segment files: the
//!    file names tell which log sequences are inside, so a file whose sequences all lie in another
//!    file was merged into that one and is dropped, and the log is replayed behind the highest. Only
//!    the batch keys of flushed batches are lost that way;
//! 3. files that the catalog does not list are removed when their rows are known to be elsewhere or to
//!    have been dropped: what was being written, flushes that did not commit (the log has their rows),
//!    outputs of merges that did not commit (listed segments hold all their log sequences), and files
//!    that the catalog noted as leaving. A file that is none of these is set aside, never deleted;
//! 4. segments are opened; damaged and missing ones are set aside;
//! 5. the log is replayed into the memtable.

use std::{
    path::Path,
    sync::{Arc, atomic::AtomicU64},
};

use arrow::array::{ArrayRef, AsArray, RecordBatch, UInt32Array};
use hashbrown::HashMap;
use parking_lot::{Condvar, Mutex, RwLock};
use tokio::sync::Semaphore;
use trine_schema::{AnyBatch, StreamRef, StreamRegistry, signal::STREAM};
use trine_segment::IndexCache;
use trine_wal::{DirLock, LockError, TornTail, Wal, WalConfig, WalError, lock_directory};

use crate::{
    QuarantinedFile, StoreConfig, StoreError, StoreParts,
    catalog::{CATALOG, Catalog, Loaded, SegmentRow, Sources, corrupt},
    dedup::Dedup,
    engine::{Counters, Engine, Health, Live, State, Upkeep, millis},
    files::{Files, SegmentName},
    memtable::{MemBatch, Memtable},
    record::{Record, decode},
    segment::Opener,
    tail::TailHub,
    writer::{QUEUE_UNIT, Queue},
};

/// An engine whose threads do not run yet.
pub(crate) struct Opened {
    pub engine: Arc<Engine>,
    pub wal: Wal,
    pub lock: DirLock,
}

/// Size of the append queue in units.
pub(crate) fn queue_units(config: &StoreConfig) -> usize {
    (config.queue_bytes / QUEUE_UNIT).clamp(1, u32::MAX as usize >> 3)
}

/// Takes the directory's lock.
pub(crate) fn lock(dir: &Path) -> Result<DirLock, StoreError> {
    lock_directory(dir).map_err(|e| match e {
        LockError::Held { dir, pid } => StoreError::Locked {
            holder: pid.map_or_else(|| "another process".to_owned(), |pid| format!("process {pid}")),
            path: dir,
            pid,
        },
        LockError::Io { dir, source } => StoreError::io(format!("locking {}", dir.display()), source),
    })
}

pub(crate) fn open(config: StoreConfig, parts: &StoreParts) -> Result<Opened, StoreError> {
    let dir = config.dir.clone();
    std::fs::create_dir_all(&dir).map_err(|e| StoreError::io(format!("creating {}", dir.display()), e))?;
    let lock = lock(&dir)?;
    Files::check_version(&dir)?;
    let opened = match open_locked(config.clone(), parts) {
        Err(StoreError::Corrupt { what, reason }) if what == CATALOG => {
            set_catalog_aside(&Files::create(&dir, parts.objects.clone())?, &reason)?;
            open_locked(config, parts)
        }
        other => other,
    };
    opened.map(|(engine, wal)| Opened { engine, wal, lock })
}

fn open_locked(config: StoreConfig, parts: &StoreParts) -> Result<(Arc<Engine>, Wal), StoreError> {
    let files = Files::create(&config.dir, parts.objects.clone())?;
    let registry = Arc::new(StreamRegistry::new());
    files.sweep_local()?;
    let mut quarantined = Vec::new();
    let indexes = IndexCache::new(config.index_memory);
    let opener = Opener { objects: &files.objects, registry: &registry, indexes: &indexes };
    let rebuilder = Rebuilder { files: &files, opener, parts };
    let (catalog, loaded, note) = open_catalog(&rebuilder, &mut quarantined)?;
    let aside = loaded.quarantined.iter().filter(|file| files.in_quarantine(&file.name));
    quarantined.extend(aside.cloned());
    let Swept { highest, unflushed } = sweep(&files, &loaded, &catalog, &mut quarantined)?;

    let window_ms = millis(config.dedup_window);
    let dedup = Dedup::new(window_ms, config.dedup_keys);
    loaded.keys.iter().for_each(|(key, at_ms)| dedup.restore(*key, *at_ms));

    let engine = Engine {
        clock: parts.clock.clone(),
        files,
        catalog,
        state: RwLock::new(State { active: Memtable::new(1), flushing: None, segments: Arc::default() }),
        commit: Mutex::default(),
        dedup,
        tail: TailHub::default(),
        next_id: AtomicU64::new(highest + 1),
        space: Arc::new(Semaphore::new(queue_units(&config))),
        queue: Mutex::new(Queue::default()),
        queue_signal: Condvar::new(),
        log_removals: Mutex::default(),
        flush_signal: Condvar::new(),
        flush_waiters: Mutex::default(),
        upkeep: Mutex::new(Upkeep::default()),
        upkeep_signal: Condvar::new(),
        doomed: Mutex::default(),
        gone: Mutex::default(),
        quarantined: Mutex::new(quarantined),
        health: Mutex::new(Health::default()),
        notes: Mutex::new(note.into_iter().collect()),
        closed: false.into(),
        wal_bytes: AtomicU64::new(0),
        counters: Counters::default(),
        indexes,
        config,
        registry,
    };
    open_segments(&engine, loaded.segments)?;
    let wal = replay(&engine, parts, loaded.flushed_sequence, &unflushed)?;
    engine.wal_bytes.store(wal.size_bytes(), std::sync::atomic::Ordering::Relaxed);
    Ok((Arc::new(engine), wal))
}

/// A file in quarantine of whose rows nothing is known.
fn unknown(name: &str, reason: &str) -> QuarantinedFile {
    let (min_timestamp, max_timestamp) = (i64::MIN, i64::MAX);
    QuarantinedFile {
        name: name.to_owned(),
        reason: reason.to_owned(),
        rows: 0,
        min_timestamp,
        max_timestamp,
    }
}

/// Keeps a catalog that cannot be used as evidence and clears its place.
fn set_catalog_aside(files: &Files, reason: &str) -> Result<(), StoreError> {
    let path = files.dir().join("catalog.db");
    let name = format!("catalog-{:08x}.db", crc32c::crc32c(&std::fs::read(&path).unwrap_or_default()));
    let reason = format!(
        "the catalog was damaged ({reason}) and was rebuilt from the segments; batches that were flushed before \
         and are sent again now would not be recognised"
    );
    files.quarantine_copy(&path, &name, &reason)?;
    for file in [path, files.dir().join("catalog.db-journal")] {
        match std::fs::remove_file(&file) {
            Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
                return Err(StoreError::io(format!("removing {}", file.display()), e));
            }
            _ => {}
        }
    }
    Ok(())
}

/// Opens the catalog; one that is not there is built from the segments, which is worth a note.
fn open_catalog(
    rebuilder: &Rebuilder<'_>,
    quarantined: &mut Vec<QuarantinedFile>,
) -> Result<(Catalog, Loaded, Option<String>), StoreError> {
    let files = rebuilder.files;
    let path = files.dir().join("catalog.db");
    if path.exists() {
        let (catalog, loaded) = Catalog::open(&path)?;
        outdated(&files.list()?, &loaded.segments)?;
        return Ok((catalog, loaded, None));
    }
    let (segments, flushed) = rebuilder.rebuild(quarantined)?;
    let (catalog, mut loaded) = Catalog::open(&path)?;
    if !segments.is_empty() {
        catalog.fill(&segments, flushed)?;
    }
    let note = (!segments.is_empty()).then(|| {
        format!(
            "the catalog was missing or damaged and was rebuilt from {} segments; a batch that was flushed before and is \
             sent again now is not recognised and would be stored twice",
            segments.len()
        )
    });
    loaded.segments = segments;
    loaded.flushed_sequence = flushed;
    Ok((catalog, loaded, note))
}

/// Refuses a catalog from before a merge (somebody put a copy back): a segment it lists is gone, and
/// a file it does not know holds that segment's rows.
fn outdated(paths: &[String], listed: &[SegmentRow]) -> Result<(), StoreError> {
    let unlisted: Vec<SegmentName> = paths
        .iter()
        .filter(|path| !listed.iter().any(|row| row.path == **path))
        .filter_map(|path| SegmentName::parse(path))
        .collect();
    let gone = listed.iter().filter(|row| !paths.contains(&row.path));
    for row in gone {
        if unlisted.iter().any(|name| name.signal == row.signal && name.sources.covers(&row.sources)) {
            return Err(corrupt(format!("it is older than the merge that replaced {}", row.path)));
        }
    }
    Ok(())
}

/// What a lost catalog is made from.
struct Rebuilder<'a> {
    files: &'a Files,
    opener: Opener<'a>,
    parts: &'a StoreParts,
}

impl Rebuilder<'_> {
    /// What the segment files tell about themselves, and how far the log is flushed.
    fn rebuild(&self, quarantined: &mut Vec<QuarantinedFile>) -> Result<(Vec<SegmentRow>, u64), StoreError> {
        let mut found: Vec<SegmentRow> = Vec::new();
        for path in self.files.list()? {
            let Some(name) = SegmentName::parse(&path) else { continue };
            let SegmentName { id, signal, level, sources } = name;
            match self.opener.open(signal, &path, None) {
                Ok(segment) => {
                    let meta = segment.meta().clone();
                    found.push(SegmentRow { id, signal, path, level, sources, meta });
                }
                Err(e) if e.is_corrupt() => {
                    let moved = self.files.quarantine_segment(&path, &e.to_string())?;
                    quarantined.push(unknown(&moved, &e.to_string()));
                }
                Err(e) => return Err(StoreError::io(format!("reading segment {path}"), e)),
            }
        }
        let flushed = self.leave_to_the_log(&mut found)?;
        // Of two with the same sequences the later one was made from the earlier.
        let merged = |row: &SegmentRow| {
            found.iter().any(|other| {
                other.id != row.id
                    && other.signal == row.signal
                    && other.sources.covers(&row.sources)
                    && (!row.sources.covers(&other.sources) || other.id > row.id)
            })
        };
        Ok((found.iter().filter(|row| !merged(row)).cloned().collect(), flushed))
    }

    /// Of the last flush perhaps only the segments of some signals were written. While the log has its rows, it
    /// counts as not done. Returns the last sequence that is in segments.
    fn leave_to_the_log(&self, found: &mut Vec<SegmentRow>) -> Result<u64, StoreError> {
        let last = found.iter().map(|row| row.sources.last()).max().unwrap_or(0);
        let oldest =
            Wal::oldest_sequence(&*self.parts.disk, &self.files.dir().join("wal")).map_err(wal_error)?;
        let of_last = || found.iter().filter(|row| row.sources.last() == last);
        // What was compacted was committed before.
        let first = of_last().filter_map(|row| row.sources.0.first()).map(|range| range.0).min();
        let (Some(first), Some(oldest)) = (first, oldest) else { return Ok(last) };
        if oldest > first || of_last().any(|row| row.level > 0) {
            return Ok(last);
        }
        found.retain(|row| row.sources.last() != last);
        Ok(first - 1)
    }
}

/// What [`sweep`] found.
struct Swept {
    /// The highest segment id ever seen.
    highest: u64,
    /// Files whose rows should all be in the log, with the first sequence.
    unflushed: Vec<(String, u64)>,
}

/// What a file that the catalog does not list is.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Unlisted {
    /// A flush that did not commit; the log should have its rows, from this sequence on.
    Unflushed(u64),
    /// Its rows are in listed segments, or were dropped.
    Leftover,
    /// Nothing that this store left behind, for this reason.
    Foreign(&'static str),
}

/// Judges a file by its name.
pub(crate) fn judge(path: &str, loaded: &Loaded) -> Unlisted {
    if loaded.leaving.iter().any(|leaving| leaving == path) {
        return Unlisted::Leftover;
    }
    let Some(name) = SegmentName::parse(path) else {
        return Unlisted::Foreign("the file is no segment of this store");
    };
    if name.sources.last() > loaded.flushed_sequence {
        return Unlisted::Unflushed(name.sources.0[0].0);
    }
    let of_signal = loaded.segments.iter().filter(|row| row.signal == name.signal);
    if Sources::union(of_signal.map(|row| &row.sources)).covers(&name.sources) {
        return Unlisted::Leftover;
    }
    Unlisted::Foreign(
        "the catalog does not list this segment and no listed one has its rows; it was not left by a crash, \
         somebody put it there. Nothing of it is served",
    )
}

/// Removes files that the catalog does not list, or sets them aside.
fn sweep(
    files: &Files,
    loaded: &Loaded,
    catalog: &Catalog,
    quarantined: &mut Vec<QuarantinedFile>,
) -> Result<Swept, StoreError> {
    let highest = loaded.segments.iter().map(|row| row.id).max().unwrap_or(0);
    let mut swept = Swept { highest, unflushed: Vec::new() };
    for path in files.list()? {
        // An id is never used twice, not even that of a file that is removed now.
        swept.highest = swept.highest.max(SegmentName::parse(&path).map_or(0, |name| name.id));
        if loaded.segments.iter().any(|row| row.path == path) {
            continue;
        }
        match judge(&path, loaded) {
            Unlisted::Unflushed(first) => swept.unflushed.push((path, first)),
            Unlisted::Leftover => files.remove(&path)?,
            Unlisted::Foreign(reason) => {
                let moved = files.quarantine_segment(&path, reason)?;
                // Nothing is missing from any answer.
                let (min_timestamp, max_timestamp) = (i64::MAX, i64::MIN);
                let file = QuarantinedFile { min_timestamp, max_timestamp, ..unknown(&moved, reason) };
                catalog.quarantine(None, &file)?;
                quarantined.push(file);
            }
        }
    }
    if !loaded.leaving.is_empty() {
        catalog.all_gone()?;
    }
    Ok(swept)
}

fn open_segments(engine: &Engine, rows: Vec<SegmentRow>) -> Result<(), StoreError> {
    let mut live = Vec::with_capacity(rows.len());
    for row in rows {
        match engine.opener().open(row.signal, &row.path, Some(&row.meta)) {
            Ok(segment) => live.push(Arc::new(Live { row, segment })),
            Err(e) if e.is_corrupt() => engine.quarantine_row(&row, &e.to_string()),
            Err(e) if is_missing(&e) => engine.quarantine_row(&row, "the file is missing"),
            Err(e) => return Err(StoreError::io(format!("opening segment {}", row.path), e)),
        }
    }
    engine.state.write().segments = Arc::new(live);
    Ok(())
}

fn is_missing(error: &(dyn std::error::Error + 'static)) -> bool {
    let mut cause = Some(error);
    while let Some(e) = cause {
        let io = e.downcast_ref::<std::io::Error>().is_some_and(|e| e.kind() == std::io::ErrorKind::NotFound);
        if io || matches!(e.downcast_ref(), Some(object_store::Error::NotFound { .. })) {
            return true;
        }
        cause = e.source();
    }
    false
}

fn wal_error(e: WalError) -> StoreError {
    match e {
        WalError::Full { .. } => StoreError::Full("the write-ahead log".into()),
        WalError::Poisoned { reason } => StoreError::Poisoned(reason),
        other => StoreError::io("opening the log", other),
    }
}

/// What to say of a cut end of the log.
pub(crate) fn torn_note(torn: &TornTail) -> String {
    format!(
        "{} ended in {} bytes, from byte {} on, that are no whole write and are not used; how many rows they \
         held is not known. A crash while writing leaves such an end and nothing acknowledged is in it; after \
         an orderly end it means that the disk lost the last write",
        torn.file.display(),
        torn.bytes,
        torn.offset
    )
}

/// Brings back what was acknowledged and not flushed.
fn replay(
    engine: &Engine,
    parts: &StoreParts,
    flushed: u64,
    unflushed: &[(String, u64)],
) -> Result<Wal, StoreError> {
    let dir = engine.config.dir.join("wal");
    let config = WalConfig { fsync: engine.config.fsync, first_needed: flushed + 1, ..WalConfig::default() };
    let (wal, replay) = Wal::open(parts.disk.clone(), &dir, config).map_err(wal_error)?;
    for (path, first) in unflushed {
        if wal.first_sequence() > *first {
            return Err(corrupt(format!("it does not know {path}, whose rows are no longer in the log")));
        }
    }
    engine.notes.lock().extend(replay.recovery().torn.as_ref().map(torn_note));
    for corruption in &replay.recovery().corruptions {
        let file = corruption.file.file_name().unwrap_or_default().to_string_lossy();
        let (name, reason) = (format!("wal-{file}"), corruption.to_string());
        if !engine.files.in_quarantine(&name) {
            engine.files.quarantine_copy(&corruption.file, &name, &reason)?;
        }
        if corruption.lost.is_some() {
            set_aside(engine, &name, &reason)?;
        }
    }
    let mut numbers: HashMap<StreamRef, StreamRef> = HashMap::new();
    let mut state = engine.state.write();
    for entry in replay {
        let entry = entry.map_err(wal_error)?;
        let sequence = entry.sequence;
        if sequence <= flushed {
            continue;
        }
        state.active.cover(sequence);
        let evidence = entry.payload.clone();
        let taken = take_in(engine, &mut state.active, &mut numbers, sequence, entry.payload);
        if let Err(reason) = taken {
            let name = format!("wal-entry-{sequence}.bin");
            engine.files.quarantine_bytes(&evidence, &name, &reason)?;
            set_aside(engine, &name, &reason)?;
        }
    }
    drop(state);
    // Only now are their rows back.
    unflushed.iter().try_for_each(|(path, _)| engine.files.remove(path))?;
    Ok(wal)
}

fn set_aside(engine: &Engine, name: &str, reason: &str) -> Result<(), StoreError> {
    let file = unknown(name, reason);
    engine.catalog.quarantine(None, &file)?;
    let mut quarantined = engine.quarantined.lock();
    if !quarantined.contains(&file) {
        quarantined.push(file);
    }
    Ok(())
}

fn take_in(
    engine: &Engine,
    active: &mut Memtable,
    numbers: &mut HashMap<StreamRef, StreamRef>,
    sequence: u64,
    payload: Vec<u8>,
) -> Result<(), String> {
    match decode(payload).map_err(|e| format!("sequence {sequence}: {e}"))? {
        Record::Streams { fresh, streams } => {
            if fresh {
                numbers.clear();
            }
            for (number, tenant, labels) in streams {
                let here = engine.registry.intern(&tenant, labels).map_err(|e| e.to_string())?;
                numbers.insert(number, here);
            }
        }
        Record::Batch { batch, key, at_ms } => {
            let AnyBatch { signal, tenant, records } = batch;
            let records = renumber(&records, numbers).ok_or_else(|| {
                format!("sequence {sequence}: its streams were defined in a part that is lost")
            })?;
            if let Some(key) = key {
                engine.dedup.restore(key, at_ms);
            }
            let key = key.map(|key| (key, at_ms));
            active.push(signal, &tenant, Arc::new(MemBatch::new(records)), sequence, key);
            while let Some(folded) = active.fold(signal, &tenant) {
                active.replace(&folded);
            }
        }
    }
    Ok(())
}

/// The writer's stream numbers become this process's.
fn renumber(records: &RecordBatch, numbers: &HashMap<StreamRef, StreamRef>) -> Option<RecordBatch> {
    let theirs = records.column(STREAM).as_primitive::<arrow::datatypes::UInt32Type>();
    let mut last: Option<(StreamRef, StreamRef)> = None;
    let mut ours: Vec<u32> = Vec::with_capacity(records.num_rows());
    for number in theirs.values() {
        let (_, here) = match last {
            Some(known) if known.0 == *number => known,
            _ => *last.insert((*number, *numbers.get(number)?)),
        };
        ours.push(here);
    }
    let mut columns = records.columns().to_vec();
    columns[STREAM] = Arc::new(UInt32Array::from(ours)) as ArrayRef;
    Some(RecordBatch::try_new(records.schema(), columns).expect("BUG: only the values of a column changed"))
}
