//! Series of metrics as queries read them.

use std::{sync::Arc, time::Instant};

use trine_model::TenantId;

use crate::{LabelMatcher, Labels, NativeHistogram, ScanError, ScanStats, Stream};

/// One read of the metrics.
#[derive(Debug, Clone)]
pub struct MetricScan {
    /// Whose series.
    pub tenant: TenantId,
    /// First millisecond, inclusive.
    pub start_ms: i64,
    /// Last millisecond, inclusive.
    pub end_ms: i64,
    /// All must match the series by the names as they are written ([`LabelMatcher::matches_exactly`]).
    pub matchers: Vec<LabelMatcher>,
    /// When to give up.
    pub deadline: Option<Instant>,
    /// Where the scan counts what it touched.
    pub stats: Arc<ScanStats>,
}

impl MetricScan {
    /// Everything of a tenant; narrow it by setting fields.
    pub fn all(tenant: TenantId) -> Self {
        Self {
            tenant,
            start_ms: i64::MIN,
            end_ms: i64::MAX,
            matchers: Vec::new(),
            deadline: None,
            stats: Arc::default(),
        }
    }

    /// Whether a series passes all matchers.
    pub fn matches(&self, labels: &Labels) -> bool {
        self.matchers.iter().all(|matcher| matcher.matches_exactly(labels))
    }

    /// Fails once the deadline has passed.
    pub fn check_deadline(&self) -> Result<(), ScanError> {
        self.stats.check_deadline(self.deadline)
    }
}

/// Samples of one series, each list sorted by time (milliseconds since 1970) and with one sample a time.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Samples {
    /// Times of the floats. Series that were scraped together may share them.
    pub timestamps: Arc<Vec<i64>>,
    /// The floats; stale markers are among them.
    pub values: Vec<f64>,
    /// When the counter of each float began, milliseconds, 0 if not known; empty if nothing is known.
    pub start_timestamps: Vec<i64>,
    /// Times of the histograms.
    pub histogram_timestamps: Vec<i64>,
    /// The histograms; one whose sum is the stale marker is one.
    pub histograms: Vec<Arc<NativeHistogram>>,
    /// As `start_timestamps`, of the histograms.
    pub histogram_start_timestamps: Vec<i64>,
}

/// Reads the samples of one series. May block the thread.
pub trait LoadSamples: Send + Sync {
    /// Replaces what is in `samples` by the series' samples in the range of the scan that found it; samples
    /// outside of it may come too. Of two samples with one timestamp the later arrival counts.
    fn load(&self, samples: &mut Samples) -> Result<(), ScanError>;
}

/// A series that a scan found.
#[derive(Clone)]
pub struct MetricSeries {
    /// Its labels.
    pub stream: Arc<Stream>,
    /// Its samples.
    pub data: Arc<dyn LoadSamples>,
}

/// An exemplar: an observation with labels of its own, such as a trace id.
#[derive(Debug, Clone)]
pub struct Exemplar {
    /// The series it was seen with.
    pub series: Arc<Stream>,
    /// Milliseconds since 1970.
    pub timestamp: i64,
    /// The observed value.
    pub value: f64,
    /// Its own labels.
    pub labels: Labels,
}
