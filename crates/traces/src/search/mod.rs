//! Searching traces: conditions on one of their spans and on the whole.
//!
//! A trace fits when *one* span satisfies all conditions of spans and the trace those of traces. The newest
//! are wanted, by the start of their fitting spans. Candidates come from `Tables::search_traces`, or, where
//! the tables have no summaries, from a scan of the spans; then the spans of the candidates are read, and decide.

mod candidates;
mod condition;

use std::{ops::RangeInclusive, sync::Arc};

use hashbrown::HashSet;
use trine_model::{TenantId, TraceId};
use trine_schema::{Tables, spans::column};

use self::candidates::Candidates;
pub(crate) use self::condition::MAX_CONDITIONS;
pub use self::condition::{Condition, TagPlace};
use crate::{Budget, FindError, Span, Trace, assemble, find};

/// What is searched.
#[derive(Debug, Clone)]
pub struct Search {
    /// When the fitting span starts, nanoseconds since 1970.
    pub range: RangeInclusive<i64>,
    /// All hold for one span.
    pub conditions: Vec<Condition>,
    /// From the first start to the latest end of the trace, nanoseconds.
    pub trace_duration: RangeInclusive<i64>,
    /// Most traces.
    pub limit: usize,
    /// Whether the traces are to be shown; else their events and links (and attributes that no condition needs)
    /// are not read.
    pub whole: bool,
}

/// Candidates that are looked at for one answer; conditions on whole traces that hardly any trace satisfies
/// end here, and the answer says so.
const MAX_EXAMINED: usize = 20_000;

/// Traces whose spans are read at once.
const AT_ONCE: usize = 64;

impl Search {
    /// Columns that are read of the spans of candidates.
    fn projection(&self) -> Vec<usize> {
        let of_tags = self.conditions.iter().any(|condition| matches!(condition, Condition::Tag { .. }));
        let needed = |position: &usize| match *position {
            column::EVENTS | column::LINKS => self.whole,
            column::ATTRIBUTES => self.whole || of_tags,
            _ => true,
        };
        (0..column::COUNT).filter(needed).collect()
    }

    /// Whether the span is one that makes its trace fit.
    pub fn fits(&self, span: &Span) -> bool {
        self.range.contains(&span.start) && self.conditions.iter().all(|condition| condition.matches(span))
    }
}

/// The newest traces that fit, whole, the one that starts last first.
pub async fn search(
    tables: &dyn Tables,
    tenant: &TenantId,
    search: &Search,
    budget: &Budget,
) -> Result<Vec<Trace>, FindError> {
    let candidates = Candidates::new(tables, tenant, search, budget);
    let mut examined: HashSet<TraceId> = HashSet::new();
    let mut found: Vec<(i64, Trace)> = Vec::new();
    // Bytes of the spans of what was found, as they were read.
    let mut held = 0;
    let mut wanted = search.limit;
    loop {
        let newest = candidates.newest(wanted).await?;
        let exhausted = newest.len() < wanted;
        let fresh: Vec<TraceId> = newest
            .into_iter()
            .filter(|candidate| {
                let fits = candidate.duration.is_none_or(|ns| search.trace_duration.contains(&ns));
                examined.insert(candidate.id) && fits
            })
            .map(|candidate| candidate.id)
            .collect();
        for ids in fresh.chunks(AT_ONCE) {
            let (traces, bytes) = read(tables, tenant, (ids, search.projection()), held, budget).await?;
            let (read, before) = (traces.len().max(1), found.len());
            for trace in traces {
                let last = trace.spans().iter().filter(|span| search.fits(span)).map(|span| span.start).max();
                if let Some(last) = last.filter(|_| search.trace_duration.contains(&trace.duration())) {
                    found.push((last, trace));
                }
            }
            held += bytes / read * (found.len() - before);
        }
        if found.len() >= search.limit || exhausted {
            break;
        }
        if examined.len() >= MAX_EXAMINED {
            let missing = format!(
                "only the newest {MAX_EXAMINED} traces were looked at; narrow the range or the conditions"
            );
            budget.stats.partial.lock().push(missing);
            break;
        }
        wanted = (wanted * 4).min(MAX_EXAMINED.max(search.limit));
    }
    found.sort_by_key(|(last, trace)| (std::cmp::Reverse(*last), trace.id));
    found.truncate(search.limit);
    let mut traces: Vec<Trace> = found.into_iter().map(|(_, trace)| trace).collect();
    traces.sort_by_key(|trace| (std::cmp::Reverse(trace.start()), trace.id));
    Ok(traces)
}

/// These traces, as far as they are there, whole.
pub async fn read_whole(
    tables: &dyn Tables,
    tenant: &TenantId,
    ids: &[TraceId],
    budget: &Budget,
) -> Result<Vec<Trace>, FindError> {
    let (traces, _) = read(tables, tenant, (ids, (0..column::COUNT).collect()), 0, budget).await?;
    Ok(traces)
}

/// Columns of these traces, and the bytes of their spans, beside which so many are held already.
async fn read(
    tables: &dyn Tables,
    tenant: &TenantId,
    (ids, projection): (&[TraceId], Vec<usize>),
    held: usize,
    budget: &Budget,
) -> Result<(Vec<Trace>, usize), FindError> {
    let mut sorted = ids.to_vec();
    sorted.sort_unstable();
    sorted.dedup();
    let mut scan = find::scan(tenant, i64::MIN..=i64::MAX, budget);
    (scan.traces, scan.projection) = (Some(Arc::from(sorted)), projection);
    let (batches, bytes) = find::gather(tables, scan, held).await?;
    Ok((assemble(&batches, tables.registry())?, bytes))
}
