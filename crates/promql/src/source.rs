//! Where series come from.

use std::{collections::BTreeMap, sync::Arc};

use crate::{
    histogram::Histogram,
    labels::{Labels, Matcher},
};

/// The NaN that says "this series ended here".
pub const STALE: u64 = 0x7ff0_0000_0000_0002;

/// Whether a value is the stale marker.
#[inline]
pub fn is_stale(value: f64) -> bool {
    value.to_bits() == STALE
}

/// Columns of one series: floats and native histograms, each sorted by time (milliseconds since 1970).
#[derive(Clone, Debug, Default)]
pub struct Samples {
    /// Times of the floats. Series of one target share them.
    pub timestamps: Arc<Vec<i64>>,
    /// The floats; stale markers are among them.
    pub values: Vec<f64>,
    /// When the counter of each float began, 0 if unknown; empty if nothing is known.
    pub start_timestamps: Vec<i64>,
    /// Times of the histograms.
    pub histogram_timestamps: Vec<i64>,
    /// The histograms; one whose sum is the stale marker is one.
    pub histograms: Vec<Arc<Histogram>>,
    /// As `start_timestamps`, of the histograms.
    pub histogram_start_timestamps: Vec<i64>,
}

/// A failure of a source; the query fails with it.
pub type SourceError = Box<dyn std::error::Error + Send + Sync>;

/// Reads the samples of one series when the engine comes to it, on the engine's threads.
pub trait Load: Send + Sync {
    /// Replaces what is in `samples`. Samples outside of the time asked for do no harm.
    fn load(&self, samples: &mut Samples) -> Result<(), SourceError>;
}

/// Samples at hand, or to be read.
#[derive(Clone)]
pub enum Data {
    /// In memory.
    Ready(Arc<Samples>),
    /// Read series by series, so that not all are in memory at once.
    Lazy(Arc<dyn Load>),
}

/// A series.
#[derive(Clone)]
pub struct Series {
    /// Its labels.
    pub labels: Labels,
    /// Its samples; may reach beyond the time asked for.
    pub data: Data,
}

/// What the engine will do with the series, so that a source may answer from less.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Hints {
    /// The function or aggregation right above the selector.
    pub function: Option<&'static str>,
    /// The selector's range, milliseconds; 0 for an instant selector.
    pub range_ms: i64,
    /// Distance of the steps, milliseconds; 0 at a single one.
    pub step_ms: i64,
    /// Labels of the aggregation above.
    pub grouping: Vec<String>,
    /// `by` rather than `without`.
    pub by: bool,
}

/// A question to a source.
#[derive(Clone, Debug)]
pub struct Selection<'a> {
    /// All of which a series must satisfy.
    pub matchers: &'a [Matcher],
    /// First time that matters, milliseconds, inclusive.
    pub start_ms: i64,
    /// Last time that matters, inclusive.
    pub end_ms: i64,
    /// See [`Hints`].
    pub hints: Hints,
}

/// A source's answer.
#[derive(Clone, Default)]
pub struct Selected {
    /// Series, each label set once.
    pub series: Vec<Series>,
    /// What the reader should know, such as parts that could not be read.
    pub warnings: Vec<String>,
}

/// Where the engine reads series.
pub trait Source: Sync {
    /// The series that satisfy the matchers and may have samples in the time asked for.
    fn select(&self, selection: &Selection<'_>) -> Result<Selected, SourceError>;
}

/// Series in memory, for tests and examples.
#[derive(Clone, Debug, Default)]
pub struct MemorySource(BTreeMap<Labels, Arc<Samples>>);

impl MemorySource {
    /// The samples of a series, to be added to.
    pub fn series(&mut self, labels: Labels) -> &mut Samples {
        Arc::make_mut(self.0.entry(labels).or_default())
    }

    /// All label sets, sorted.
    pub fn labels(&self) -> impl Iterator<Item = &Labels> {
        self.0.keys()
    }

    /// All series with their samples, sorted by labels.
    pub fn iter(&self) -> impl Iterator<Item = (&Labels, &Samples)> {
        self.0.iter().map(|(labels, samples)| (labels, &**samples))
    }
}

impl Source for MemorySource {
    fn select(&self, selection: &Selection<'_>) -> Result<Selected, SourceError> {
        let wanted = |labels: &Labels| {
            selection.matchers.iter().all(|matcher| matcher.matches(labels.get(&matcher.name)))
        };
        let inside = |times: &[i64]| {
            let at = times.partition_point(|time| *time < selection.start_ms);
            times.get(at).is_some_and(|time| *time <= selection.end_ms)
        };
        let series = self.0.iter().filter(|(labels, samples)| {
            wanted(labels) && (inside(&samples.timestamps) || inside(&samples.histogram_timestamps))
        });
        let series = series
            .map(|(labels, samples)| Series { labels: labels.clone(), data: Data::Ready(samples.clone()) });
        Ok(Selected { series: series.collect(), warnings: Vec::new() })
    }
}
