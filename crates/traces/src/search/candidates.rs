//! Which traces have a span that satisfies the conditions.

use std::ops::RangeInclusive;

use arrow::{
    array::{AsArray, RecordBatch},
    datatypes::{TimestampNanosecondType, UInt8Type},
};
use futures::StreamExt;
use hashbrown::HashMap;
use trine_model::{TenantId, TraceId};
use trine_schema::{SpanScan, StreamRegistry, Tables, TraceSummary, spans::column};

use super::{
    Search,
    condition::{Condition, TagPlace, label},
};
use crate::{AssembleError, Budget, FindError, find};

/// A trace that may fit.
pub(super) struct Candidate {
    pub(super) id: TraceId,
    /// Where it is known without reading the spans.
    pub(super) duration: Option<i64>,
}

/// Searches for candidates.
pub(super) struct Candidates<'a> {
    tables: &'a dyn Tables,
    /// A span that fits satisfies one of these...
    scans: Vec<SpanScan>,
    /// ... and is of this kind, which scans know nothing of.
    kind: Option<u8>,
}

/// Most scans of one search. A tag that is looked for in two places doubles them; what would be more is left
/// to be decided when the spans are read.
const MAX_SCANS: usize = 16;

/// Traces and the start of the last fitting span seen.
type LastStarts = HashMap<TraceId, i64>;

/// Spans that are read at first for each trace that is wanted.
const SPANS_PER_TRACE: usize = 16;

/// Traces that are remembered beyond those wanted while all spans are read.
const SPARE: usize = 10_000;

impl<'a> Candidates<'a> {
    pub(super) fn new(tables: &'a dyn Tables, tenant: &TenantId, search: &Search, budget: &Budget) -> Self {
        let mut scan = find::scan(tenant, search.range.clone(), budget);
        scan.projection = vec![column::TIMESTAMP, column::TRACE_ID, column::KIND];
        let mut candidates = Self { tables, scans: vec![scan], kind: None };
        for condition in &search.conditions {
            candidates.narrow(condition, tenant, tables.registry());
        }
        candidates
    }

    /// Adds a condition; one that contradicts another leaves no scan.
    fn narrow(&mut self, condition: &Condition, tenant: &TenantId, registry: &StreamRegistry) {
        match condition {
            Condition::Service(service) => {
                self.scans.iter_mut().for_each(|scan| scan.streams.push(label("service", service)));
            }
            Condition::Operation(operation) => self
                .scans
                .retain_mut(|scan| scan.operation.get_or_insert_with(|| operation.clone()) == operation),
            Condition::Duration(range) => self.scans.retain_mut(|scan| {
                scan.duration = intersection(&scan.duration, range);
                !scan.duration.is_empty()
            }),
            Condition::Status(code) => {
                self.scans.retain_mut(|scan| scan.status_code.get_or_insert(*code) == code);
            }
            Condition::Kind(kind) => {
                if self.kind.is_some_and(|other| other != *kind) {
                    self.scans.clear();
                }
                self.kind = Some(*kind);
            }
            Condition::Tag { place, key, value } => {
                let mut scans = Vec::new();
                let in_resource = match place {
                    TagPlace::Resource => true,
                    TagPlace::Span => false,
                    TagPlace::Any if 2 * self.scans.len() > MAX_SCANS => return,
                    TagPlace::Any => is_label(registry, tenant, key, value),
                };
                if in_resource {
                    scans.extend(self.scans.iter().cloned().map(|mut scan| {
                        scan.streams.push(label(key, value));
                        scan
                    }));
                }
                if *place != TagPlace::Resource {
                    scans.extend(self.scans.drain(..).map(|mut scan| {
                        scan.attributes.push((key.clone(), value.clone()));
                        scan
                    }));
                }
                self.scans = scans;
            }
        }
    }

    /// So many (fewer only when there are no more), those whose fitting spans started last, in any order.
    pub(super) async fn newest(&self, wanted: usize) -> Result<Vec<Candidate>, FindError> {
        // Summaries know nothing of kinds, and are of one scan only.
        if self.kind.is_none()
            && let [scan] = self.scans.as_slice()
        {
            let scan = SpanScan { newest: Some(wanted), ..scan.clone() };
            let summaries = self.tables.search_traces(scan)?;
            if !summaries.is_empty() {
                let known = |summary: TraceSummary| Candidate {
                    id: summary.trace_id,
                    duration: Some(summary.duration_ns),
                };
                return Ok(summaries.into_iter().map(known).collect());
            }
        }
        let mut last_starts =
            self.of_newest_spans(Some(wanted.saturating_mul(SPANS_PER_TRACE)), wanted).await?;
        if last_starts.is_none() {
            last_starts = self.of_newest_spans(None, wanted).await?;
        }
        let mut newest: Vec<(TraceId, i64)> = last_starts.unwrap_or_default().into_iter().collect();
        newest.sort_by_key(|(id, last)| (std::cmp::Reverse(*last), *id));
        newest.truncate(wanted);
        Ok(newest.into_iter().map(|(id, _)| Candidate { id, duration: None }).collect())
    }

    /// Traces of the newest fitting spans with the start of the last of them; `None` when more spans have to
    /// be read for so many traces.
    async fn of_newest_spans(
        &self,
        newest: Option<usize>,
        wanted: usize,
    ) -> Result<Option<LastStarts>, FindError> {
        let mut all = LastStarts::new();
        for scan in &self.scans {
            let mut of_scan = LastStarts::new();
            let mut rows = 0;
            let mut stream = self.tables.scan_spans(SpanScan { newest, ..scan.clone() });
            while let Some(batch) = stream.next().await {
                let batch = batch?;
                rows += batch.num_rows();
                self.note(&batch, &mut of_scan)?;
                if of_scan.len() > wanted + SPARE {
                    keep_newest(&mut of_scan, wanted);
                }
            }
            if newest.is_some_and(|newest| rows >= newest) && of_scan.len() < wanted {
                return Ok(None);
            }
            for (id, start) in of_scan {
                note(&mut all, id, start);
            }
        }
        Ok(Some(all))
    }

    /// Notes the traces of a batch.
    fn note(&self, batch: &RecordBatch, last_starts: &mut LastStarts) -> Result<(), FindError> {
        let column = |name| batch.column_by_name(name).ok_or(AssembleError::missing(name));
        let starts = column("timestamp")?.as_primitive::<TimestampNanosecondType>();
        let ids = column("trace_id")?.as_fixed_size_binary();
        let kinds = column("kind")?.as_primitive::<UInt8Type>();
        for row in 0..batch.num_rows() {
            if self.kind.is_some_and(|kind| kinds.value(row) != kind) {
                continue;
            }
            let id = TraceId(ids.value(row).try_into().map_err(|_| AssembleError::missing("trace_id"))?);
            note(last_starts, id, starts.value(row));
        }
        Ok(())
    }
}

fn note(last_starts: &mut LastStarts, id: TraceId, start: i64) {
    last_starts.entry(id).and_modify(|last| *last = start.max(*last)).or_insert(start);
}

/// Forgets all but so many.
fn keep_newest(last_starts: &mut LastStarts, wanted: usize) {
    let mut order: Vec<(i64, TraceId)> = last_starts.iter().map(|(id, last)| (*last, *id)).collect();
    let dropped = order.len() - wanted;
    let (_, oldest, _) = order.select_nth_unstable(dropped);
    let oldest = *oldest;
    last_starts.retain(|id, last| (*last, *id) >= oldest);
}

fn intersection(a: &RangeInclusive<i64>, b: &RangeInclusive<i64>) -> RangeInclusive<i64> {
    *a.start().max(b.start())..=*a.end().min(b.end())
}

/// Whether any of the tenant's streams has this label.
fn is_label(registry: &StreamRegistry, tenant: &TenantId, key: &str, value: &str) -> bool {
    let matcher = label(key, value);
    (0..registry.len()).any(|stream| {
        let stream = registry.get(stream as u32);
        stream.tenant == *tenant && stream.labels.get(key).is_some() && matcher.matches(&stream)
    })
}
