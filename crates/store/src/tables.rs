//! Reading: [`Tables`] over a snapshot of memtables and segments.

use std::{cmp::Reverse, collections::BTreeSet, pin::Pin, sync::Arc};

use arrow::{array::AsArray, datatypes::UInt32Type};
use async_trait::async_trait;
use futures::Stream as FuturesStream;
use hashbrown::HashMap;
use trine_model::TenantId;
use trine_schema::{
    Exemplar, LogBatch, LogCount, LogCountRow, LogScan, Metadata, MetricScan, MetricSeries,
    RecordBatchStream, ScanError, Signal, SpanScan, Stream, StreamRef, StreamRegistry, Tables, TailLag,
    TraceSummary, signal::STREAM,
};
use trine_segment::{
    Handle, MetricSnapshot, OnCorrupt, SegmentError, SegmentIndex, Snapshot, SpanSnapshot, exemplars,
    metric_metadata, scan_spans, search_traces, select_series,
};

use crate::{
    Store,
    engine::Engine,
    memtable::{Wanted, count_names},
    segment::LiveSegment,
};

/// Most attribute names that [`Tables::attribute_names`] tells.
const MAX_ATTRIBUTE_NAMES: usize = 1000;

impl Engine {
    fn logs(&self, scan: &mut LogScan) -> Snapshot {
        scan.start = self.within_retention(scan.start);
        let last = if scan.end == i64::MAX { i64::MAX } else { scan.end.saturating_sub(1) };
        let wanted = Wanted { signal: Signal::Logs, tenant: &scan.tenant, start: scan.start, last };
        let seen = self.snapshot(&wanted, &scan.stats);
        let segments = seen.segments.iter().filter_map(LiveSegment::logs).cloned().collect();
        Snapshot { memtable: seen.memtable, segments }
    }

    fn spans(&self, scan: &mut SpanScan) -> SpanSnapshot {
        scan.start = self.within_retention(scan.start);
        let SpanScan { tenant, start, last, stats, .. } = scan;
        let seen =
            self.snapshot(&Wanted { signal: Signal::Spans, tenant, start: *start, last: *last }, stats);
        let segments = seen.segments.iter().filter_map(LiveSegment::spans).collect();
        SpanSnapshot { memtable: seen.memtable, segments }
    }

    fn metrics(&self, scan: &mut MetricScan) -> MetricSnapshot {
        let start = self.within_retention(scan.start_ms.saturating_mul(1_000_000));
        scan.start_ms = scan.start_ms.max(start.div_euclid(1_000_000));
        let last = scan.end_ms.saturating_mul(1_000_000);
        let wanted = Wanted { signal: Signal::Metrics, tenant: &scan.tenant, start, last };
        let seen = self.snapshot(&wanted, &scan.stats);
        let segments = seen.segments.iter().filter_map(LiveSegment::metrics).collect();
        MetricSnapshot { memtable: seen.memtable, segments }
    }
}

impl Store {
    fn on_corrupt<I: SegmentIndex>(&self) -> OnCorrupt<Handle<I>> {
        let engine = self.engine.clone();
        Arc::new(move |segment: &Arc<Handle<I>>, e: &SegmentError| {
            engine.quarantine(segment.path().as_ref(), &e.to_string());
        })
    }
}

#[async_trait]
impl Tables for Store {
    fn registry(&self) -> &StreamRegistry {
        &self.engine.registry
    }

    fn scan_logs(&self, mut scan: LogScan) -> RecordBatchStream {
        let snapshot = self.engine.logs(&mut scan);
        let on_corrupt = self.on_corrupt();
        trine_segment::scan(snapshot, self.engine.registry.clone(), scan, on_corrupt)
    }

    async fn count_logs(&self, mut count: LogCount) -> Result<Option<Vec<LogCountRow>>, ScanError> {
        let (engine, on_corrupt) = (self.engine.clone(), self.on_corrupt());
        let work = move || {
            let snapshot = engine.logs(&mut count.scan);
            trine_segment::count(&snapshot, &engine.registry, &count, &on_corrupt)
        };
        blocking(work).await?
    }

    async fn streams(&self, mut scan: LogScan) -> Result<Vec<Arc<Stream>>, ScanError> {
        let engine = self.engine.clone();
        let work = move || {
            let snapshot = engine.logs(&mut scan);
            let streams = trine_segment::streams(&snapshot, &engine.registry, &scan)?;
            Ok(streams.into_iter().map(|stream| engine.registry.get(stream)).collect())
        };
        blocking(work).await?
    }

    fn attribute_names(&self, tenant: &TenantId) -> Vec<String> {
        let (batches, segments) = {
            let state = self.engine.state.read();
            let mut batches = state.active.of(Signal::Logs, tenant).to_vec();
            batches.extend(state.flushing.iter().flat_map(|table| table.of(Signal::Logs, tenant)).cloned());
            (batches, state.segments.clone())
        };
        let mut counts: HashMap<String, u64> = HashMap::new();
        count_names(&batches, &mut counts);
        for segment in segments.iter().filter_map(|live| live.segment.logs()) {
            for (name, rows) in segment.attribute_names(tenant) {
                *counts.entry_ref(name).or_default() += rows;
            }
        }
        let mut names: Vec<(String, u64)> = counts.into_iter().collect();
        if names.len() > MAX_ATTRIBUTE_NAMES {
            names.sort_unstable_by_key(|(_, count)| Reverse(*count));
            names.truncate(MAX_ATTRIBUTE_NAMES);
        }
        let mut names: Vec<String> = names.into_iter().map(|(name, _)| name).collect();
        names.sort_unstable();
        names
    }

    fn scan_spans(&self, mut scan: SpanScan) -> RecordBatchStream {
        let snapshot = self.engine.spans(&mut scan);
        scan_spans(snapshot, self.engine.registry.clone(), scan, self.on_corrupt())
    }

    fn search_traces(&self, mut scan: SpanScan) -> Result<Vec<TraceSummary>, ScanError> {
        let snapshot = self.engine.spans(&mut scan);
        search_traces(&snapshot, &self.engine.registry, &scan, &self.on_corrupt())
    }

    fn span_names(&self, tenant: &TenantId) -> Result<(Vec<String>, Vec<String>), ScanError> {
        let (batches, segments) = {
            let state = self.engine.state.read();
            let mut batches = state.active.of(Signal::Spans, tenant).to_vec();
            batches.extend(state.flushing.iter().flat_map(|table| table.of(Signal::Spans, tenant)).cloned());
            (batches, state.segments.clone())
        };
        let mut counts: HashMap<String, u64> = HashMap::new();
        count_names(&batches, &mut counts);
        let mut attributes: BTreeSet<String> = counts.into_keys().collect();
        let mut streams: BTreeSet<StreamRef> = BTreeSet::new();
        for batch in &batches {
            streams.extend(batch.records.column(STREAM).as_primitive::<UInt32Type>().values());
        }
        for segment in segments.iter().filter_map(|live| live.segment.spans()) {
            attributes.extend(segment.attribute_names().map(str::to_owned));
            streams.extend(segment.streams());
        }
        let mut labels: BTreeSet<String> = BTreeSet::new();
        for stream in streams.into_iter().map(|stream| self.engine.registry.get(stream)) {
            if stream.tenant == *tenant {
                labels.extend(stream.labels.iter().map(|(name, _)| name.to_owned()));
            }
        }
        let attributes = attributes.into_iter().take(MAX_ATTRIBUTE_NAMES).collect();
        Ok((labels.into_iter().collect(), attributes))
    }

    fn select_series(&self, scan: &MetricScan) -> Result<Vec<MetricSeries>, ScanError> {
        let mut scan = scan.clone();
        let snapshot = self.engine.metrics(&mut scan);
        select_series(snapshot, &self.engine.registry, &scan, &self.on_corrupt())
    }

    fn exemplars(&self, scan: &MetricScan) -> Result<Vec<Exemplar>, ScanError> {
        let mut scan = scan.clone();
        let snapshot = self.engine.metrics(&mut scan);
        exemplars(snapshot, &self.engine.registry, &scan, &self.on_corrupt())
    }

    fn metric_metadata(&self, tenant: &TenantId) -> Result<Vec<(String, Metadata)>, ScanError> {
        let mut scan = MetricScan::all(tenant.clone());
        let snapshot = self.engine.metrics(&mut scan);
        metric_metadata(snapshot, &self.engine.registry, tenant, &self.on_corrupt())
    }

    fn tail_logs(
        &self,
        tenant: &TenantId,
    ) -> Pin<Box<dyn FuturesStream<Item = Result<LogBatch, TailLag>> + Send>> {
        Box::pin(self.engine.tail.subscribe(tenant))
    }
}

/// Runs work that reads from disk off the runtime's threads, where there is a runtime.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, ScanError> {
    if tokio::runtime::Handle::try_current().is_err() {
        return Ok(work());
    }
    tokio::task::spawn_blocking(work).await.map_err(|e| ScanError::Storage(e.to_string()))
}
