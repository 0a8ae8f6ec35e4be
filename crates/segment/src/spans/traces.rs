//! Searching for traces: those of which a span fits, as summaries.
//!
//! Two steps: the spans that fit give trace ids, the newest first and no further than needed; then each
//! segment is asked for its summaries of these traces, and memory for its spans.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, atomic::Ordering::Relaxed},
};

use arrow::{
    array::{Array, AsArray, RecordBatch},
    datatypes::{Int64Type, TimestampNanosecondType, UInt8Type},
};
use hashbrown::HashMap;
use trine_model::TraceId;
use trine_schema::{
    ScanError, SpanScan, StreamRegistry, TraceService, TraceSummary,
    spans::{STATUS_ERROR, column},
};

use super::{
    SpanSegment, SpanSnapshot,
    columns::stored,
    filter::{self, Ids, trace_id},
    newest::walk,
    read::LoadedSpans,
    scan::Shared,
    summary::{FRAME_TRACES, Summary, decode_frame},
};
use crate::{OnCorrupt, SegmentError, StreamMatcher, block_on, steps::on_pool, write::stream_refs};

/// The traces of which a span satisfies the scan, the [`SpanScan::newest`] of those whose fitting spans
/// started last (of equal ones those with the least ids); sorted by their starts, newest first. Summaries
/// are of whole traces. Blocks the thread while it reads.
pub fn search_traces(
    snapshot: &SpanSnapshot,
    registry: &Arc<StreamRegistry>,
    scan: &SpanScan,
    on_corrupt: &OnCorrupt<SpanSegment>,
) -> Result<Vec<TraceSummary>, ScanError> {
    let shared = Shared::new(scan.clone(), registry.clone(), on_corrupt.clone());
    let mut ids = fitting(snapshot.clone(), &shared)?;
    ids.sort_unstable();
    let ids = Arc::new(Ids::new(ids.into()));
    let mut traces: HashMap<TraceId, Parts> = HashMap::new();
    let every_stream = StreamMatcher::of(registry.clone(), scan.tenant.clone(), Vec::new());
    for batch in &snapshot.memtable {
        shared.check()?;
        add_memtable(batch, registry, (&ids, &every_stream), &mut traces);
    }
    let jobs = shared.usable(snapshot.segments.clone(), false).into_iter().map(|segment| {
        let (shared, ids) = (shared.clone(), ids.clone());
        on_pool(move || match summaries(&segment, &ids, &shared) {
            Ok(found) => Ok(found),
            Err(error) => shared.failed(&segment, error).map(|()| Vec::new()),
        })
    });
    for found in block_on(futures::future::join_all(jobs)) {
        for (id, part) in found?? {
            traces.entry(id).or_default().add(part);
        }
    }
    let mut summaries: Vec<TraceSummary> = traces.into_iter().map(|(id, parts)| parts.summary(id)).collect();
    summaries.sort_unstable_by_key(|summary| (Reverse(summary.start), summary.trace_id));
    Ok(summaries)
}

/// The ids of the traces.
fn fitting(snapshot: SpanSnapshot, shared: &Arc<Shared>) -> Result<Vec<TraceId>, ScanError> {
    let most = shared.scan.newest.unwrap_or(usize::MAX);
    let shared = shared.clone();
    block_on(on_pool(move || {
        let mut newest: HashMap<TraceId, i64> = HashMap::new();
        // The worst first: the oldest, of equal ones that with the greatest id.
        let mut order: BTreeSet<(i64, Reverse<TraceId>)> = BTreeSet::new();
        walk(snapshot, &shared, true, |found| {
            let ids = found.ids.expect("BUG: ids were asked for");
            for (time, row) in found.times() {
                let id = trace_id(ids, row);
                let known = newest.get(&id).copied();
                if known.is_some_and(|known| known >= time) {
                    continue;
                }
                newest.insert(id, time);
                if most < usize::MAX {
                    known.map(|known| order.remove(&(known, Reverse(id))));
                    order.insert((time, Reverse(id)));
                    if order.len() > most {
                        let worst = order.pop_first().expect("BUG: it has more than none");
                        newest.remove(&worst.1.0);
                    }
                }
            }
            order.first().filter(|_| order.len() >= most).map_or(i64::MIN, |worst| worst.0)
        })?;
        Ok(newest.into_keys().collect())
    }))?
}

/// What a part of the table says about a trace.
struct Part {
    start: i64,
    end: i64,
    /// Whether it has a parent, its start, service and operation.
    root: (bool, i64, String, String),
    /// Name, spans, errors.
    services: Vec<(String, u64, u64)>,
}

/// What the parts of a trace say together.
#[derive(Default)]
struct Parts {
    start: Option<i64>,
    end: Option<i64>,
    root: Option<(bool, i64, String, String)>,
    services: BTreeMap<String, (u64, u64)>,
}

impl Parts {
    fn add(&mut self, part: Part) {
        self.start = Some(self.start.map_or(part.start, |known| known.min(part.start)));
        self.end = Some(self.end.map_or(part.end, |known| known.max(part.end)));
        if self.root.as_ref().is_none_or(|root| (part.root.0, part.root.1) < (root.0, root.1)) {
            self.root = Some(part.root);
        }
        for (service, spans, errors) in part.services {
            let known = self.services.entry(service).or_default();
            *known = (known.0 + spans, known.1 + errors);
        }
    }

    fn summary(self, trace_id: TraceId) -> TraceSummary {
        let start = self.start.unwrap_or_default();
        let (has_parent, _, root_service, root_operation) = self.root.unwrap_or_default();
        let services = self.services.into_iter();
        let services: Vec<TraceService> =
            services.map(|(service, (spans, errors))| TraceService { service, spans, errors }).collect();
        TraceSummary {
            trace_id,
            start,
            duration_ns: self.end.unwrap_or_default().saturating_sub(start),
            spans: services.iter().map(|service| service.spans).sum(),
            errors: services.iter().map(|service| service.errors).sum(),
            has_root: !has_parent,
            root_service,
            root_operation,
            services,
        }
    }
}

/// Adds the spans of traces in memory.
fn add_memtable(
    batch: &RecordBatch,
    registry: &StreamRegistry,
    (wanted, of_tenant): (&Ids, &StreamMatcher),
    traces: &mut HashMap<TraceId, Parts>,
) {
    let times = batch.column(column::TIMESTAMP).as_primitive::<TimestampNanosecondType>().values();
    let durations = batch.column(column::DURATION).as_primitive::<Int64Type>().values();
    let ids = batch.column(column::TRACE_ID).as_fixed_size_binary();
    let parents = batch.column(column::PARENT_SPAN_ID);
    let operations = batch.column(column::OPERATION).as_string::<i32>();
    let codes = batch.column(column::STATUS_CODE).as_primitive::<UInt8Type>().values();
    for (row, stream) in stream_refs(batch).iter().enumerate() {
        if !wanted.contains(ids.value(row)) || !of_tenant.matches(*stream) {
            continue;
        }
        let (start, stream) = (times[row], registry.get(*stream));
        let service = stream.service();
        traces.entry(trace_id(ids, row)).or_default().add(Part {
            start,
            end: start.saturating_add(durations[row]),
            root: (parents.is_valid(row), start, service.to_owned(), operations.value(row).to_owned()),
            services: vec![(service.to_owned(), 1, u64::from(codes[row] == STATUS_ERROR))],
        });
    }
}

/// What a segment knows of traces.
fn summaries(
    segment: &SpanSegment,
    ids: &Ids,
    shared: &Shared,
) -> Result<Vec<(TraceId, Part)>, SegmentError> {
    shared.check()?;
    if !segment.may_hold_traces(ids)? {
        return Ok(Vec::new());
    }
    let loaded = segment.load()?;
    let numbers = loaded.numbers(ids, shared)?;
    let reader = loaded.reader();
    let (mut frame, mut found) = ((usize::MAX, Vec::new()), Vec::with_capacity(numbers.len()));
    for (id, number) in numbers {
        let wanted = number as usize / FRAME_TRACES;
        if frame.0 != wanted {
            shared.check()?;
            frame = (wanted, loaded.frame(&reader, wanted)?);
        }
        let summary = frame.1.get(number as usize % FRAME_TRACES);
        let summary = summary.ok_or_else(|| loaded.corrupt("a summary is missing"))?;
        found.push((id, loaded.part(summary)));
    }
    shared.scan.stats.bytes_scanned.fetch_add(reader.bytes_read(), Relaxed);
    Ok(found)
}

impl LoadedSpans {
    /// The summaries of some hundred traces.
    pub(super) fn frame(
        &self,
        reader: &crate::file::CheckedReader,
        number: usize,
    ) -> Result<Vec<Summary>, SegmentError> {
        let range = self.index.frames.get(number).cloned();
        let range = range.ok_or_else(|| self.corrupt("there are more traces than summaries"))?;
        let bytes = reader.read(range.clone())?;
        decode_frame(&bytes, &self.index)
            .map_err(|bad| self.file.corrupt(range.start, format!("{} cannot be read", bad.0)))
    }

    /// Numbers of the scan's tenant's traces that have these ids, rising.
    fn numbers(&self, ids: &Ids, shared: &Shared) -> Result<Vec<(TraceId, u32)>, SegmentError> {
        let guesses = self.index.directory.find(&self.reader(), ids.sorted())?;
        // Each is looked up in the last granule that has it: there it is the first trace or a whole one.
        let granule = |trace: &u32| self.index.granules_of(*trace).end.checked_sub(1);
        let mut found = Vec::with_capacity(guesses.len());
        for of_granule in guesses.chunk_by(|a, b| granule(a) == granule(b)) {
            let Some(number) = granule(&of_granule[0]) else { continue };
            if !self.is_of(number, &shared.scan.tenant) {
                continue;
            }
            shared.check()?;
            let (reader, place) = (self.reader(), &self.places[number]);
            let read =
                self.read(&reader, place.group, &[stored::TRACE_ID], std::slice::from_ref(&place.rows))?;
            let traces = read.column(0).as_fixed_size_binary();
            let mut guesses = of_granule.iter().peekable();
            let mut trace = self.index.granules[number].first_trace;
            for row in 0..traces.len() {
                if row > 0 && traces.value(row) != traces.value(row - 1) {
                    trace += 1;
                } else if row > 0 {
                    continue;
                }
                if guesses.next_if_eq(&&trace).is_some() && ids.contains(traces.value(row)) {
                    found.push((filter::trace_id(traces, row), trace));
                }
            }
            let stats = &shared.scan.stats;
            stats.granules_scanned.fetch_add(1, Relaxed);
            stats.bytes_scanned.fetch_add(reader.bytes_read(), Relaxed);
        }
        Ok(found)
    }

    fn part(&self, summary: &Summary) -> Part {
        let service = |number: u32| self.index.services[number as usize].clone();
        let services = summary.services.iter();
        Part {
            start: summary.start,
            end: summary.end,
            root: (
                summary.root_has_parent,
                summary.root_start,
                service(summary.root_service),
                self.index.operations[summary.root_operation as usize].clone(),
            ),
            services: services
                .map(|(number, spans, errors)| (service(*number), u64::from(*spans), u64::from(*errors)))
                .collect(),
        }
    }
}
