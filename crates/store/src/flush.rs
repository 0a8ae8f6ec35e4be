//! Memtable → segment.
//!
//! Steps, and what a crash after each leaves:
//! 1. rows of each signal are sorted and written to a temporary file: the next open removes it, the log has the rows;
//! 2. the file is synced, renamed, its folder synced: an orphan whose log sequences lie above the
//!    flushed one; the next open removes it, the log has the rows;
//! 3. one catalog transaction adds the segments, raises the flushed sequence and saves the batch keys:
//!    the segments count from here, replay starts behind it;
//! 4. queries get the segments instead of the memtable, in one exchange under the state lock;
//! 5. the log is cut: until then it is only longer than needed.
//!
//! A failure before step 3 removes the files, keeps the memtable and tries again with growing pauses.

use std::{
    sync::{Arc, atomic::Ordering::Relaxed},
    time::{Duration, Instant},
};

use trine_schema::Signal;
use trine_segment::WriteOptions;

use crate::{
    StoreError,
    catalog::{FlushCommit, SegmentRow, Sources},
    engine::{Engine, Live},
    files::{SegmentName, segment_error},
    memtable::Memtable,
    segment,
};

/// Pauses after failed flushes.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// The flush thread: runs until the store closes. It also removes the log's files. It has the priority of the
/// threads that take rows in, because under full load these wait for it.
pub(crate) fn run(engine: &Arc<Engine>) {
    let mut pause = FIRST_PAUSE;
    while !engine.is_closed() {
        let removed = remove_log_files(engine);
        let table = engine.state.read().flushing.clone();
        let Some(table) = table else {
            let mut removals = engine.log_removals.lock();
            if engine.state.read().flushing.is_none() && !engine.is_closed() {
                if !removed {
                    engine.flush_signal.wait_for(&mut removals, LONGEST_PAUSE);
                } else if removals.is_empty() {
                    engine.flush_signal.wait(&mut removals);
                }
            }
            continue;
        };
        let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| flush(engine, &table)))
            .unwrap_or_else(|_| Err(StoreError::io("flushing", "BUG: the flush panicked; see the log")));
        let failed = outcome.as_ref().err().cloned();
        engine.health.lock().flush_failing.clone_from(&failed);
        let waiting: Vec<_> = {
            let mut waiters = engine.flush_waiters.lock();
            let (ready, rest) = waiters
                .drain(..)
                .partition(|(generation, _)| failed.is_some() || *generation <= table.generation);
            *waiters = rest;
            ready
        };
        for (_, done) in waiting {
            drop(done.send(outcome.clone()));
        }
        {
            let mut queue = engine.queue.lock();
            if failed.is_none() {
                queue.truncate = table.sequences.map(|(_, last)| last + 1);
            }
            engine.queue_signal.notify_all();
        }
        if failed.is_none() {
            pause = FIRST_PAUSE;
            engine.upkeep.lock().poked = true;
            engine.upkeep_signal.notify_all();
        } else {
            let mut lock = engine.log_removals.lock();
            if !engine.is_closed() {
                engine.flush_signal.wait_for(&mut lock, pause);
            }
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }
    engine.flush_waiters.lock().clear();
}

/// Removes what the log let go; false when something is left for a later try.
fn remove_log_files(engine: &Engine) -> bool {
    let mut removals = std::mem::take(&mut *engine.log_removals.lock());
    while let Some(removal) = removals.front_mut() {
        if let Err(e) = removal.run() {
            engine.health.lock().compaction_failing = Some(e.to_string());
            let mut later = engine.log_removals.lock();
            removals.append(&mut later);
            *later = removals;
            return false;
        }
        removals.pop_front();
    }
    true
}

/// Writes and commits one generation.
fn flush(engine: &Engine, table: &Arc<Memtable>) -> Result<(), StoreError> {
    let begun = Instant::now();
    let (first, last) = table.sequences.expect("BUG: an empty memtable is not flushed");
    let mut live: Vec<Arc<Live>> = Vec::new();
    for signal in Signal::ALL {
        match write(engine, table, signal, first, last) {
            Ok(written) => live.extend(written.map(Arc::new)),
            Err(e) => {
                remove(engine, &live);
                return Err(e);
            }
        }
    }
    let rows: Vec<SegmentRow> = live.iter().map(|live| live.row.clone()).collect();
    {
        let _commit = engine.commit.lock();
        let committed = engine.catalog.commit_flush(&FlushCommit {
            segments: &rows,
            flushed_sequence: last,
            keys: &table.keys,
            most_keys: engine.config.dedup_keys,
            forget_keys_before_ms: engine.now_ms().saturating_sub(engine.dedup_window_ms()),
        });
        // A commit may fail after it took effect; then its segments must stay.
        let took_effect = committed.is_err() && engine.catalog.flushed_sequence().is_ok_and(|at| at == last);
        if let (Err(e), false) = (committed, took_effect) {
            remove(engine, &live);
            return Err(e);
        }
        let mut state = engine.state.write();
        state.flushing = None;
        Arc::make_mut(&mut state.segments).extend(live);
    }
    let counters = &engine.counters;
    counters.flushes.fetch_add(1, Relaxed);
    counters.flush_rows.fetch_add(table.rows, Relaxed);
    counters.flush_ns.fetch_add(begun.elapsed().as_nanos() as u64, Relaxed);
    Ok(())
}

/// Removes what a flush that fails has written.
fn remove(engine: &Engine, live: &[Arc<Live>]) {
    // Best effort: what stays is swept at the next open.
    live.iter().for_each(|live| drop(engine.files.remove(&live.row.path)));
}

/// Writes the rows of a signal, if there are any.
fn write(
    engine: &Engine,
    table: &Memtable,
    signal: Signal,
    first: u64,
    last: u64,
) -> Result<Option<Live>, StoreError> {
    let batches = table.batches(signal);
    if batches.is_empty() {
        return Ok(None);
    }
    let options = WriteOptions { body: engine.config.body_encoding.into(), ..WriteOptions::default() };
    let name = SegmentName {
        id: engine.next_id.fetch_add(1, Relaxed),
        signal,
        level: 0,
        sources: Sources::range(first, last),
    };
    let path = name.path(table.max_timestamp(signal));
    let meta = engine
        .files
        .write(&path, |file| segment::write(signal, &batches, &engine.registry, &options, file))?;
    let row = SegmentRow { id: name.id, signal, path, level: 0, sources: name.sources, meta };
    open(engine, row).map(Some)
}

/// Opens what was just written; a file that cannot be opened is removed again.
pub(crate) fn open(engine: &Engine, row: SegmentRow) -> Result<Live, StoreError> {
    match engine.opener().open(row.signal, &row.path, Some(&row.meta)) {
        Ok(segment) => Ok(Live { row, segment }),
        Err(e) => {
            let _ = engine.files.remove(&row.path);
            Err(segment_error(format!("reading back segment {}", row.path), &e))
        }
    }
}
