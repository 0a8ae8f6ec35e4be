//! Memtable → segment.
//!
//! Steps, and what a crash after each leaves:
//! 1. rows are sorted and written to a temporary file: the next open removes it, the log has the rows;
//! 2. the file is synced, renamed, its folder synced: an orphan whose log sequences lie above the
//!    flushed one; the next open removes it, the log has the rows;
//! 3. one catalog transaction adds the segment, raises the flushed sequence and saves the batch keys:
//!    the segment counts from here, replay starts behind it;
//! 4. queries get the segment instead of the memtable, in one exchange under the state lock;
//! 5. the log is cut: until then it is only longer than needed.
//!
//! A failure before step 3 removes the file, keeps the memtable and tries again with growing pauses.

use std::{
    convert::Infallible,
    sync::{Arc, atomic::Ordering::Relaxed},
    time::{Duration, Instant},
};

use object_store::path::Path as ObjectPath;
use trine_segment::{Segment, SegmentHandle, WriteOptions, block_on, sort_batches, write_segment};

use crate::{
    StoreError,
    catalog::{FlushCommit, SegmentRow, Sources},
    engine::{Engine, Live},
    files::{SegmentName, segment_error},
    memtable::Memtable,
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
        let failed = outcome.as_ref().err().map(ToString::to_string);
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
    let live = if table.rows == 0 { None } else { Some(Arc::new(write(engine, table, first, last)?)) };
    {
        let _commit = engine.commit.lock();
        let committed = engine.catalog.commit_flush(&FlushCommit {
            segment: live.as_ref().map(|live| &live.row),
            flushed_sequence: last,
            keys: &table.keys,
            most_keys: engine.config.dedup_keys,
            forget_keys_before_ms: engine.now_ms().saturating_sub(engine.dedup_window_ms()),
        });
        // A commit may fail after it took effect; then its segment must stay.
        let took_effect = committed.is_err() && engine.catalog.flushed_sequence().is_ok_and(|at| at == last);
        if let (Err(e), false) = (committed, took_effect) {
            if let Some(live) = live {
                let _ = engine.files.remove(&live.row.path);
            }
            return Err(e);
        }
        let mut state = engine.state.write();
        state.flushing = None;
        if let Some(live) = live {
            Arc::make_mut(&mut state.segments).push(live);
        }
    }
    let counters = &engine.counters;
    counters.flushes.fetch_add(1, Relaxed);
    counters.flush_rows.fetch_add(table.rows, Relaxed);
    counters.flush_ns.fetch_add(begun.elapsed().as_nanos() as u64, Relaxed);
    Ok(())
}

fn write(engine: &Engine, table: &Memtable, first: u64, last: u64) -> Result<Live, StoreError> {
    let sorted =
        sort_batches(&table.batches(), &engine.registry).map_err(|e| segment_error("sorting a flush", &e))?;
    let options = WriteOptions { body: engine.config.body_encoding.into(), ..WriteOptions::default() };
    let name = SegmentName {
        id: engine.next_id.fetch_add(1, Relaxed),
        level: 0,
        sources: Sources::range(first, last),
    };
    let path = name.path(table.max_timestamp());
    let rows = sorted.into_iter().map(Ok::<_, Infallible>);
    let meta = engine.files.write(&path, |file| write_segment(file, &engine.registry, rows, &options))?;
    let row = SegmentRow { id: name.id, path, level: 0, sources: name.sources, meta };
    let (live, _) = open(engine, row)?;
    Ok(live)
}

/// Opens what was just written; a file that cannot be opened is removed again. The index stays in memory
/// while the second value is held.
pub(crate) fn open(engine: &Engine, row: SegmentRow) -> Result<(Live, Arc<Segment>), StoreError> {
    let path = ObjectPath::from(row.path.as_str());
    let opened =
        block_on(Segment::open(engine.files.objects.clone(), path, &engine.registry, Some(row.meta.clone())));
    match opened {
        Ok(segment) => {
            let opened = Arc::new(segment);
            Ok((Live { row, segment: SegmentHandle::new(&opened, &engine.indexes) }, opened))
        }
        Err(e) => {
            let _ = engine.files.remove(&row.path);
            Err(segment_error(format!("reading back segment {}", row.path), &e))
        }
    }
}
