//! Reading: [`Tables`] over a snapshot of memtables and segments.

use std::{cmp::Reverse, pin::Pin, sync::Arc};

use async_trait::async_trait;
use futures::Stream as FuturesStream;
use hashbrown::HashMap;
use trine_model::TenantId;
use trine_schema::{
    LogBatch, LogCount, LogCountRow, LogScan, RecordBatchStream, ScanError, Stream, StreamRegistry, Tables,
    TailLag,
};
use trine_segment::{OnCorrupt, SegmentError, SegmentHandle};

use crate::{Store, memtable::count_names};

/// Most attribute names that [`Tables::attribute_names`] tells.
const MAX_ATTRIBUTE_NAMES: usize = 1000;

impl Store {
    fn on_corrupt(&self) -> OnCorrupt {
        let engine = self.engine.clone();
        Arc::new(move |segment: &Arc<SegmentHandle>, e: &SegmentError| {
            if e.is_corrupt() {
                engine.quarantine(segment, &e.to_string());
            }
        })
    }
}

#[async_trait]
impl Tables for Store {
    fn registry(&self) -> &StreamRegistry {
        &self.engine.registry
    }

    fn scan_logs(&self, mut scan: LogScan) -> RecordBatchStream {
        self.engine.keep_within_retention(&mut scan);
        let snapshot = self.engine.snapshot(&scan);
        trine_segment::scan(snapshot, self.engine.registry.clone(), scan, self.on_corrupt())
    }

    async fn count_logs(&self, mut count: LogCount) -> Result<Option<Vec<LogCountRow>>, ScanError> {
        self.engine.keep_within_retention(&mut count.scan);
        let (engine, on_corrupt) = (self.engine.clone(), self.on_corrupt());
        let work = move || {
            let snapshot = engine.snapshot(&count.scan);
            trine_segment::count(&snapshot, &engine.registry, &count, &on_corrupt)
        };
        blocking(work).await?
    }

    async fn streams(&self, mut scan: LogScan) -> Result<Vec<Arc<Stream>>, ScanError> {
        self.engine.keep_within_retention(&mut scan);
        let engine = self.engine.clone();
        let work = move || {
            let snapshot = engine.snapshot(&scan);
            let streams = trine_segment::streams(&snapshot, &engine.registry, &scan)?;
            Ok(streams.into_iter().map(|stream| engine.registry.get(stream)).collect())
        };
        blocking(work).await?
    }

    fn attribute_names(&self, tenant: &TenantId) -> Vec<String> {
        let (batches, segments) = {
            let state = self.engine.state.read();
            let mut batches = state.active.tenant_batches(tenant);
            batches.extend(state.flushing.iter().flat_map(|table| table.tenant_batches(tenant)));
            (batches, state.segments.clone())
        };
        let mut counts: HashMap<String, u64> = HashMap::new();
        count_names(&batches, &mut counts);
        for live in segments.iter() {
            for (name, rows) in live.segment.attribute_names(tenant) {
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
