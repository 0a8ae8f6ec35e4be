//! [`Tables`] over series in memory, by the reference semantics of its conditions.

use std::{pin::Pin, sync::Arc};

use async_trait::async_trait;
use futures::{Stream as FuturesStream, StreamExt as _, stream};
use trine_model::TenantId;
use trine_schema::{
    Exemplar, Labels, LoadSamples, LogBatch, LogCount, LogCountRow, LogScan, Metadata, MetricScan,
    MetricSeries, RecordBatchStream, Samples, ScanError, Stream, StreamRegistry, Tables, TailLag,
};

/// Series of one tenant.
#[derive(Default)]
pub struct Memory {
    registry: StreamRegistry,
    series: Vec<(Arc<Stream>, Arc<Samples>)>,
    pub exemplars: Vec<Exemplar>,
    pub metadata: Vec<(String, Metadata)>,
    /// What scans say is missing.
    pub missing: Option<String>,
    /// What loading a series fails with.
    pub broken: Option<ScanError>,
}

impl Memory {
    pub fn stream(&self, labels: &[(&str, &str)]) -> Arc<Stream> {
        let labels = Labels::from_pairs(labels);
        self.registry.get(self.registry.intern(&TenantId::default(), labels).unwrap())
    }

    pub fn add(&mut self, labels: &[(&str, &str)], samples: Samples) {
        self.extend(vec![(self.stream(labels), samples)]);
    }

    pub fn extend(&mut self, series: Vec<(Arc<Stream>, Samples)>) {
        self.series.extend(series.into_iter().map(|(stream, samples)| (stream, Arc::new(samples))));
        self.series.sort_by(|a, b| a.0.labels.cmp(&b.0.labels));
    }

    pub fn floats(&mut self, labels: &[(&str, &str)], samples: &[(i64, f64)]) {
        let (timestamps, values): (Vec<_>, Vec<_>) = samples.iter().copied().unzip();
        self.add(labels, Samples { timestamps: Arc::new(timestamps), values, ..Samples::default() });
    }
}

struct Held(Arc<Samples>, Option<ScanError>);

impl LoadSamples for Held {
    fn load(&self, samples: &mut Samples) -> Result<(), ScanError> {
        samples.clone_from(&self.0);
        self.1.clone().map_or(Ok(()), Err)
    }
}

#[async_trait]
impl Tables for Memory {
    fn registry(&self) -> &StreamRegistry {
        &self.registry
    }

    fn scan_logs(&self, _scan: LogScan) -> RecordBatchStream {
        stream::empty().boxed()
    }

    async fn count_logs(&self, _count: LogCount) -> Result<Option<Vec<LogCountRow>>, ScanError> {
        Ok(None)
    }

    async fn streams(&self, _scan: LogScan) -> Result<Vec<Arc<Stream>>, ScanError> {
        Ok(Vec::new())
    }

    fn attribute_names(&self, _tenant: &TenantId) -> Vec<String> {
        Vec::new()
    }

    fn select_series(&self, scan: &MetricScan) -> Result<Vec<MetricSeries>, ScanError> {
        scan.stats.partial.lock().extend(self.missing.clone());
        let inside = |times: &[i64]| times.iter().any(|time| (scan.start_ms..=scan.end_ms).contains(time));
        let found = self.series.iter().filter(|(stream, samples)| {
            stream.tenant == scan.tenant
                && scan.matches(&stream.labels)
                && (inside(&samples.timestamps) || inside(&samples.histogram_timestamps))
        });
        let series = found.map(|(stream, samples)| MetricSeries {
            stream: stream.clone(),
            data: Arc::new(Held(samples.clone(), self.broken.clone())),
        });
        Ok(series.collect())
    }

    fn exemplars(&self, scan: &MetricScan) -> Result<Vec<Exemplar>, ScanError> {
        let found = self.exemplars.iter().filter(|exemplar| {
            scan.matches(&exemplar.series.labels)
                && (scan.start_ms..=scan.end_ms).contains(&exemplar.timestamp)
        });
        Ok(found.cloned().collect())
    }

    fn metric_metadata(&self, _tenant: &TenantId) -> Result<Vec<(String, Metadata)>, ScanError> {
        Ok(self.metadata.clone())
    }

    fn tail_logs(
        &self,
        _tenant: &TenantId,
    ) -> Pin<Box<dyn FuturesStream<Item = Result<LogBatch, TailLag>> + Send>> {
        stream::empty().boxed()
    }
}
