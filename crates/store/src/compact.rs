//! Upkeep: merging and joining segments, retention, removing files, letting go of idle indexes.
//!
//! A merge streams its inputs granule by granule into a new segment, a join copies them. Crash cases:
//! before the catalog transaction the output is an orphan whose rows all lie in other segments, the
//! next open removes it; after it the inputs are the orphans. The inputs' files go when the last query
//! that reads them ends.

use std::{
    io::Write,
    sync::{Arc, atomic::Ordering::Relaxed},
    time::{Duration, Instant},
};

use arrow::{
    array::{AsArray, BooleanArray, RecordBatch},
    compute::filter_record_batch,
    datatypes::TimestampNanosecondType,
};
use trine_schema::{Signal, signal::TIMESTAMP};
use trine_segment::{
    Join, MetricSegment, Segment, SegmentError, SegmentMeta, SpanSegment, WriteOptions, can_join_spans,
    join_spans, merge_samples, merge_sorted, merge_spans, write_segment,
};

use crate::{
    StoreError,
    catalog::{SegmentRow, Sources},
    engine::{Engine, Live},
    files::{Files, SegmentName, day_of, segment_error},
    flush::open,
    plan::{Candidate, MAX_MERGED, Mood, Step, plan, size},
    spare,
};

/// How often retention is applied, and old files and idle indexes are looked after.
const TICK: Duration = Duration::from_secs(2);

/// Without a flush for so long the store counts as quiet.
const QUIET_AFTER: Duration = Duration::from_secs(10);

/// Pause after a failed merge.
const PAUSE: Duration = Duration::from_secs(5);

/// Niceness of the upkeep thread.
const NICE: i32 = 10;

/// The upkeep thread: runs until the store closes.
pub(crate) fn run(engine: &Arc<Engine>) {
    // Where a lower priority is refused, nothing is lost but smoothness.
    let _ = rustix::process::setpriority_process(None, NICE);
    let mut last_flush = Instant::now();
    let mut not_before = Instant::now();
    let mut next_retention = Instant::now();
    while !engine.is_closed() {
        let (forced, poked) = {
            let mut upkeep = engine.upkeep.lock();
            if upkeep.forced.is_empty() && !upkeep.poked && !engine.is_closed() {
                engine.upkeep_signal.wait_for(&mut upkeep, TICK);
            }
            (std::mem::take(&mut upkeep.forced), std::mem::take(&mut upkeep.poked))
        };
        if poked {
            last_flush = Instant::now();
        }
        engine.indexes.let_go(engine.config.index_idle);
        engine.reap();
        if !forced.is_empty() {
            let outcome = guarded(|| {
                retain(engine)?;
                while drop_old_rows(engine)? {}
                settle(engine)
            });
            engine.reap();
            for done in forced {
                drop(done.send(outcome.clone()));
            }
        }
        if !engine.config.compaction || Instant::now() < not_before {
            continue;
        }
        let mood = if last_flush.elapsed() >= QUIET_AFTER { Mood::Quiet } else { Mood::Busy };
        let outcome = guarded(|| {
            if Instant::now() >= next_retention {
                retain(engine)?;
                drop_old_rows(engine)?;
                next_retention = Instant::now() + TICK;
            }
            step(engine, mood).map(|more| {
                if more {
                    engine.upkeep.lock().poked |= mood == Mood::Busy;
                }
            })
        });
        match &outcome {
            Err(error) => drop(spare::give(&engine.config.dir, error)),
            Ok(()) => spare::keep(&engine.config.dir),
        }
        let failed = outcome.err().filter(|_| !engine.is_closed());
        if failed.is_some() {
            not_before = Instant::now() + PAUSE;
        }
        engine.health.lock().compaction_failing = failed.map(|e| e.to_string());
    }
    engine.upkeep.lock().forced.clear();
}

fn guarded(work: impl FnOnce() -> Result<(), StoreError>) -> Result<(), StoreError> {
    std::panic::catch_unwind(std::panic::AssertUnwindSafe(work))
        .unwrap_or_else(|_| Err(StoreError::io("upkeep", "BUG: it panicked; see the log")))
}

/// Merges until everything has its final shape.
fn settle(engine: &Arc<Engine>) -> Result<(), StoreError> {
    while step(engine, Mood::Forced)? {
        if engine.is_closed() {
            return Err(StoreError::Closed);
        }
    }
    Ok(())
}

/// Does what is due next, if anything is.
fn step(engine: &Arc<Engine>, mood: Mood) -> Result<bool, StoreError> {
    for signal in Signal::ALL {
        if step_of(engine, signal, mood)? {
            return Ok(true);
        }
    }
    Ok(false)
}

fn step_of(engine: &Arc<Engine>, signal: Signal, mood: Mood) -> Result<bool, StoreError> {
    let segments = engine.state.read().segments.clone();
    let candidates: Vec<Candidate> = segments
        .iter()
        .filter(|live| live.row.signal == signal)
        .map(|live| Candidate {
            id: live.row.id,
            day: day_of(live.row.meta.max_timestamp),
            level: live.row.level,
            bytes: size(signal, live.row.meta.rows, live.row.meta.raw_bytes),
            sources: live.row.sources.clone(),
            times: (signal == Signal::Metrics)
                .then_some((live.row.meta.min_timestamp, live.row.meta.max_timestamp)),
        })
        .collect();
    let Some(step) = plan(&candidates, engine.config.segment_bytes, mood) else { return Ok(false) };
    let (Step::Merge(ids) | Step::Join(ids)) = &step;
    let mut inputs: Vec<Arc<Live>> = ids
        .iter()
        .map(|id| segments.iter().find(|l| l.row.id == *id).expect("planned from these").clone())
        .collect();
    if signal == Signal::Metrics {
        // As questions take them; the plan is by their first rows.
        inputs.sort_by_key(|live| live.row.arrival());
    }
    drop(segments);
    compact(engine, &inputs, matches!(step, Step::Join(_)))?;
    drop(inputs);
    engine.reap();
    Ok(true)
}

/// Brings segments of one signal together in a new one.
fn compact(engine: &Arc<Engine>, inputs: &[Arc<Live>], join: bool) -> Result<(), StoreError> {
    let begun = Instant::now();
    let options = WriteOptions { body: engine.config.body_encoding.into(), ..WriteOptions::default() };
    let join = join && can_join(engine, inputs);
    let inputs = if join { inputs } else { mergeable(inputs) };
    let Some(opened) = open_all(engine, inputs)? else { return Ok(()) };
    let (some, way) = opened.way(inputs, join, &options);
    let inputs = &inputs[..some];
    let day = inputs.iter().map(|live| live.row.meta.max_timestamp).max().expect("there are inputs");
    let name = SegmentName {
        id: engine.next_id.fetch_add(1, Relaxed),
        signal: inputs[0].row.signal,
        level: inputs.iter().map(|live| live.row.level).max().unwrap_or(0).saturating_add(1),
        sources: Sources::union(inputs.iter().map(|live| &live.row.sources)),
    };
    let path = name.path(day);
    let written = way.write(engine, &path, &options);
    drop(opened);
    let live = match written {
        Ok(Some(meta)) => {
            let SegmentName { id, signal, level, sources } = name;
            let row = SegmentRow { id, signal, path, level, sources, meta };
            let live = open(engine, row)?;
            // Who asks about these rows finds the index in memory. A failure to read it is met again there.
            if inputs.iter().any(|live| live.segment.is_loaded()) {
                let _ = live.segment.load();
            }
            Some(Arc::new(live))
        }
        Ok(None) => None,
        Err(_) if engine.is_closed() => return Err(StoreError::Closed),
        Err(StoreError::Corrupt { what, reason }) => {
            // The damaged input leaves; the others come together at the next try.
            if let Some(bad) = inputs.iter().find(|live| what.ends_with(&live.row.path)) {
                engine.quarantine(&bad.row.path, &reason);
                return Ok(());
            }
            return Err(StoreError::Corrupt { what, reason });
        }
        Err(e) => return Err(e),
    };
    let before: u64 = inputs.iter().map(|live| live.row.meta.rows).sum();
    let after = live.as_ref().map_or(0, |live| live.row.meta.rows);
    let ids: Vec<u64> = inputs.iter().map(|live| live.row.id).collect();
    {
        let _commit = engine.commit.lock();
        let state = engine.state.read();
        let all_there = ids.iter().all(|id| state.segments.iter().any(|live| live.row.id == *id));
        drop(state);
        let add: Vec<SegmentRow> = live.iter().map(|live| live.row.clone()).collect();
        // A query may have found an input damaged meanwhile; then its rows must not come back.
        let committed =
            if all_there { engine.replace_in_catalog(&add, &ids).map(|()| true) } else { Ok(false) };
        if !matches!(committed, Ok(true)) {
            // A commit may fail after it took effect; then the new segment must stay. Where that cannot be
            // told, its file stays for the next open to judge.
            let listed = match (&committed, add.as_slice()) {
                (Err(_), [row]) => engine.catalog.lists(row.id)?,
                _ => false,
            };
            if !listed {
                if let Some(live) = live {
                    let _ = engine.files.remove(&live.row.path);
                }
                return committed.map(drop);
            }
        }
        engine.swap_segments(live, &ids);
    }
    let counters = &engine.counters;
    counters.compactions.fetch_add(1, Relaxed);
    counters.compaction_rows.fetch_add(after, Relaxed);
    counters.retained_out_rows.fetch_add(before.saturating_sub(after), Relaxed);
    counters.compaction_ns.fetch_add(begun.elapsed().as_nanos() as u64, Relaxed);
    Ok(())
}

/// Segments of one signal, opened to be brought together.
enum Opened {
    Logs(Vec<Arc<Segment>>),
    Spans(Vec<Arc<SpanSegment>>),
    Metrics(Vec<Arc<MetricSegment>>),
}

/// How they come together.
enum Way<'a> {
    /// Logs, copied one behind the other.
    Join(Join<'a>),
    /// Logs, sorted and encoded anew.
    Logs(&'a [Arc<Segment>]),
    /// Spans, copied one behind the other.
    JoinSpans(&'a [Arc<SpanSegment>]),
    Spans(&'a [Arc<SpanSegment>]),
    Metrics(&'a [Arc<MetricSegment>]),
}

/// `None` when one is damaged. It leaves, and the others come together at the next try.
fn open_all(engine: &Engine, inputs: &[Arc<Live>]) -> Result<Option<Opened>, StoreError> {
    // The plan brings segments of one signal together.
    match inputs[0].row.signal {
        Signal::Spans => {
            Ok(Some(Opened::Spans(inputs.iter().filter_map(|live| live.segment.spans()).collect())))
        }
        Signal::Metrics => {
            Ok(Some(Opened::Metrics(inputs.iter().filter_map(|live| live.segment.metrics()).collect())))
        }
        Signal::Logs => Ok(open_logs(engine, inputs)?.map(Opened::Logs)),
    }
}

fn open_logs(engine: &Engine, inputs: &[Arc<Live>]) -> Result<Option<Vec<Arc<Segment>>>, StoreError> {
    let mut segments = Vec::with_capacity(inputs.len());
    for (live, handle) in inputs.iter().filter_map(|live| Some((live, live.segment.logs()?))) {
        match handle.load_once() {
            Ok(segment) => segments.push(segment),
            Err(e) if e.is_corrupt() => {
                engine.quarantine(&live.row.path, &e.to_string());
                return Ok(None);
            }
            Err(e) => return Err(segment_error(format!("opening segment {}", live.row.path), &e)),
        }
    }
    Ok(Some(segments))
}

impl Opened {
    /// The way, and how many of the segments go it.
    fn way<'a>(&'a self, inputs: &[Arc<Live>], join: bool, options: &'a WriteOptions) -> (usize, Way<'a>) {
        match self {
            Self::Logs(segments) => match join.then(|| Join::new(segments, options)).flatten() {
                Some(join) => (segments.len(), Way::Join(join)),
                None => {
                    let some = mergeable(inputs).len();
                    (some, Way::Logs(&segments[..some]))
                }
            },
            Self::Spans(segments) if join && can_join_spans(segments) => {
                (segments.len(), Way::JoinSpans(segments))
            }
            Self::Spans(segments) => (segments.len(), Way::Spans(segments)),
            Self::Metrics(segments) => (segments.len(), Way::Metrics(segments)),
        }
    }
}

impl Way<'_> {
    /// Writes the new segment; `None` when retention leaves no row.
    fn write(
        self,
        engine: &Engine,
        path: &str,
        options: &WriteOptions,
    ) -> Result<Option<SegmentMeta>, StoreError> {
        let (files, registry, cutoff) = (&engine.files, &engine.registry, engine.retention_cutoff());
        match self {
            Self::Join(join) => files.write(path, |file| join.write(file)).map(Some),
            Self::Logs(segments) => write_merged(engine, segments, path, options),
            Self::JoinSpans(segments) => {
                files.write(path, |file| join_spans(segments, options, file)).map(Some)
            }
            Self::Spans(segments) => {
                let merge =
                    |file: &mut (dyn Write + Send)| merge_spans(segments, registry, cutoff, options, file);
                keep_if_some(files, path, files.write(path, merge)?)
            }
            Self::Metrics(segments) => {
                let merge =
                    |file: &mut (dyn Write + Send)| merge_samples(segments, registry, cutoff, options, file);
                keep_if_some(files, path, files.write(path, merge)?)
            }
        }
    }
}

/// A file without rows goes again.
fn keep_if_some<T>(files: &Files, path: &str, written: Option<T>) -> Result<Option<T>, StoreError> {
    if written.is_none() {
        files.remove(path)?;
    }
    Ok(written)
}

/// Whether they are spans, or logs whose bodies are encoded as they should be. Rows past retention may be copied
/// too: no query sees them.
fn can_join(engine: &Engine, inputs: &[Arc<Live>]) -> bool {
    let body = engine.config.body_encoding.into();
    inputs.iter().all(|live| match live.row.signal {
        Signal::Logs => live.row.meta.body == body,
        Signal::Spans => true,
        Signal::Metrics => false,
    })
}

/// The first of the inputs, as many as one merge may hold open: each run takes a granule of memory.
fn mergeable(inputs: &[Arc<Live>]) -> &[Arc<Live>] {
    let mut runs = 0;
    let fitting = inputs.iter().take_while(|live| {
        runs += live.segment.logs().map_or(1, |segment| segment.runs());
        runs <= MAX_MERGED
    });
    &inputs[..fitting.count().max(2).min(inputs.len())]
}

/// `None` when retention leaves no row.
fn write_merged(
    engine: &Engine,
    inputs: &[Arc<Segment>],
    path: &str,
    options: &WriteOptions,
) -> Result<Option<SegmentMeta>, StoreError> {
    let cutoff = engine.retention_cutoff();
    let runs = inputs.iter().flat_map(Segment::sorted_runs).collect();
    let mut merged = merge_sorted(runs, engine.registry.clone())
        .map(|batch| {
            if engine.is_closed() {
                // Ends the writer early; the file it began is removed.
                return Err(SegmentError::Contract("the store closes".into()));
            }
            batch.and_then(|batch| keep_from(batch, cutoff))
        })
        .filter(|batch| !matches!(batch, Ok(batch) if batch.num_rows() == 0))
        .peekable();
    if merged.peek().is_none() {
        return Ok(None);
    }
    engine.files.write(path, |file| write_segment(file, &engine.registry, merged, options).map(Some))
}

/// The rows at or after the cutoff.
fn keep_from(batch: RecordBatch, cutoff: Option<i64>) -> Result<RecordBatch, SegmentError> {
    let Some(cutoff) = cutoff else { return Ok(batch) };
    let times = batch.column(TIMESTAMP).as_primitive::<TimestampNanosecondType>().values();
    if times.iter().all(|t| *t >= cutoff) {
        return Ok(batch);
    }
    let keep: BooleanArray = times.iter().map(|t| Some(*t >= cutoff)).collect();
    Ok(filter_record_batch(&batch, &keep)?)
}

/// Drops whole segments that are too old, then the oldest until the rest fits.
fn retain(engine: &Arc<Engine>) -> Result<(), StoreError> {
    let cutoff = engine.retention_cutoff();
    let _commit = engine.commit.lock();
    let mut segments = engine.state.read().segments.as_ref().clone();
    segments.sort_by_key(|live| (live.row.meta.max_timestamp, live.row.id));
    let mut bytes: u64 = segments.iter().map(|live| live.row.meta.file_bytes).sum();
    let mut gone: Vec<&Arc<Live>> = Vec::new();
    for live in &segments {
        let too_old = cutoff.is_some_and(|cutoff| live.row.meta.max_timestamp < cutoff);
        let too_much = engine.config.retention_bytes.is_some_and(|limit| bytes > limit);
        if !too_old && !too_much {
            break;
        }
        bytes -= live.row.meta.file_bytes;
        gone.push(live);
    }
    if gone.is_empty() {
        return Ok(());
    }
    let ids: Vec<u64> = gone.iter().map(|live| live.row.id).collect();
    engine.replace_in_catalog(&[], &ids)?;
    let rows = gone.iter().map(|live| live.row.meta.rows).sum();
    engine.counters.retained_out_segments.fetch_add(ids.len() as u64, Relaxed);
    engine.counters.retained_out_rows.fetch_add(rows, Relaxed);
    drop(segments);
    engine.swap_segments(None, &ids);
    engine.reap();
    Ok(())
}

/// Writes a segment anew of which rows are half as old again as retention allows, without the rows past it: one
/// row from a sender whose clock is ahead would keep its whole segment. Says whether there was one.
fn drop_old_rows(engine: &Arc<Engine>) -> Result<bool, StoreError> {
    let Some((cutoff, age)) = engine.retention_cutoff().zip(engine.config.retention_age) else {
        return Ok(false);
    };
    let slack = i64::try_from(age.as_nanos() / 2).unwrap_or(i64::MAX);
    let overdue = |live: &&Arc<Live>| {
        let meta = &live.row.meta;
        meta.min_timestamp < cutoff.saturating_sub(slack) && meta.max_timestamp >= cutoff
    };
    let found = engine.state.read().segments.iter().find(overdue).cloned();
    let Some(live) = found else { return Ok(false) };
    compact(engine, &[live], false)?;
    engine.reap();
    Ok(true)
}
