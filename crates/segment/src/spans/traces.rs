//! Searching for traces: those of which a span fits, as summaries.

use std::{cmp::Reverse, collections::BTreeMap, sync::Arc};

use arrow::{
    array::{Array, AsArray, RecordBatch},
    datatypes::{Int64Type, TimestampNanosecondType, UInt8Type},
};
use futures::StreamExt as _;
use hashbrown::HashMap;
use trine_model::TraceId;
use trine_schema::{
    ScanError, SpanScan, StreamRegistry, TraceService, TraceSummary,
    spans::{STATUS_ERROR, column},
};

use super::{OnCorruptSpans, SpanSnapshot, filter::trace_id, scan_spans};
use crate::{block_on, write::stream_refs};

/// The traces of which a span satisfies the scan, the [`SpanScan::newest`] of those whose fitting spans
/// started last; sorted by their starts, newest first. Blocks the thread while it reads.
pub fn search_traces(
    snapshot: &SpanSnapshot,
    registry: &Arc<StreamRegistry>,
    scan: &SpanScan,
    on_corrupt: &OnCorruptSpans,
) -> Result<Vec<TraceSummary>, ScanError> {
    let run = |scan: SpanScan| -> Result<Vec<RecordBatch>, ScanError> {
        let found = scan_spans(snapshot.clone(), registry.clone(), scan, on_corrupt.clone());
        block_on(found.collect::<Vec<_>>()).into_iter().collect()
    };
    let projection = vec![column::TIMESTAMP, column::TRACE_ID];
    let mut newest: HashMap<TraceId, i64> = HashMap::new();
    for batch in run(SpanScan { projection, newest: None, dictionaries: false, ..scan.clone() })? {
        let times = batch.column(0).as_primitive::<TimestampNanosecondType>().values();
        let ids = batch.column(1).as_fixed_size_binary();
        for (row, time) in times.iter().enumerate() {
            let known = newest.entry(trace_id(ids, row)).or_insert(*time);
            *known = (*known).max(*time);
        }
    }
    let mut found: Vec<(TraceId, i64)> = newest.into_iter().collect();
    found.sort_unstable_by_key(|(id, time)| (Reverse(*time), id.0));
    found.truncate(scan.newest.unwrap_or(usize::MAX));
    let mut ids: Vec<TraceId> = found.into_iter().map(|(id, _)| id).collect();
    ids.sort_unstable();
    let whole = SpanScan {
        traces: Some(ids.into()),
        deadline: scan.deadline,
        memory_limit: scan.memory_limit,
        stats: scan.stats.clone(),
        ..SpanScan::all(scan.tenant.clone())
    };
    let mut traces: HashMap<TraceId, Parts> = HashMap::new();
    for batch in run(whole)? {
        add(&batch, registry, &mut traces);
    }
    let mut summaries: Vec<TraceSummary> = traces.into_iter().map(|(id, parts)| parts.summary(id)).collect();
    summaries.sort_unstable_by_key(|summary| (Reverse(summary.start), summary.trace_id.0));
    Ok(summaries)
}

/// What the parts of a trace say together.
#[derive(Default)]
pub(super) struct Parts {
    start: Option<i64>,
    end: Option<i64>,
    spans: u64,
    errors: u64,
    /// Whether it has a parent, its start, service and operation: the least is the root.
    root: Option<(bool, i64, String, String)>,
    services: BTreeMap<String, (u64, u64)>,
}

impl Parts {
    fn summary(self, trace_id: TraceId) -> TraceSummary {
        let start = self.start.unwrap_or_default();
        let (has_parent, _, root_service, root_operation) = self.root.unwrap_or_default();
        let services = self.services.into_iter();
        TraceSummary {
            trace_id,
            start,
            duration_ns: self.end.unwrap_or_default().saturating_sub(start),
            spans: self.spans,
            errors: self.errors,
            has_root: !has_parent,
            root_service,
            root_operation,
            services: services
                .map(|(service, (spans, errors))| TraceService { service, spans, errors })
                .collect(),
        }
    }
}

/// Adds spans of [`trine_schema::spans::schema`] to their traces.
fn add(batch: &RecordBatch, registry: &StreamRegistry, traces: &mut HashMap<TraceId, Parts>) {
    let times = batch.column(column::TIMESTAMP).as_primitive::<TimestampNanosecondType>().values();
    let durations = batch.column(column::DURATION).as_primitive::<Int64Type>().values();
    let ids = batch.column(column::TRACE_ID).as_fixed_size_binary();
    let parents = batch.column(column::PARENT_SPAN_ID);
    let operations = batch.column(column::OPERATION).as_string::<i32>();
    let codes = batch.column(column::STATUS_CODE).as_primitive::<UInt8Type>().values();
    for (row, stream) in stream_refs(batch).iter().enumerate() {
        let parts = traces.entry(trace_id(ids, row)).or_default();
        let (start, end) = (times[row], times[row].saturating_add(durations[row]));
        let error = u64::from(codes[row] == STATUS_ERROR);
        parts.start = Some(parts.start.map_or(start, |known| known.min(start)));
        parts.end = Some(parts.end.map_or(end, |known| known.max(end)));
        parts.spans += 1;
        parts.errors += error;
        let stream = registry.get(*stream);
        let service = stream.service();
        let place = (parents.is_valid(row), start);
        if parts.root.as_ref().is_none_or(|root| place < (root.0, root.1)) {
            parts.root = Some((place.0, start, service.to_owned(), operations.value(row).to_owned()));
        }
        let of_service = parts.services.entry(service.to_owned()).or_default();
        of_service.0 += 1;
        of_service.1 += error;
    }
}
