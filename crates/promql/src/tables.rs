//! The source over what is stored.

use std::{
    hash::{BuildHasherDefault, Hasher},
    mem::take,
    sync::{Arc, PoisonError, RwLock},
    time::Instant,
};

use hashbrown::{HashMap, HashSet};
use trine_model::TenantId;
use trine_schema::{
    LabelMatch, LabelMatcher, LoadSamples, MetricScan, MetricSeries, NativeHistogram, ScanError, ScanStats,
    Stream, StreamId, Tables,
};

use crate::{
    histogram::{Buckets, Histogram, ResetHint},
    labels::{Labels, MatchOp, Matcher},
    source::{Data, Load, Samples, Selected, Selection, Series, Source, SourceError},
};

const _: () = assert!(crate::CUSTOM_BUCKETS == trine_schema::CUSTOM_BOUNDS);

/// Most label pairs the cache keeps before it starts anew; a pair takes 32 bytes, its texts are shared.
const MAX_CACHED_PAIRS: usize = 4_000_000;

/// Label sets of streams as the engine has them, kept between queries: converting 10,000 sets takes about
/// twenty times as long as finding them here.
#[derive(Default)]
pub struct LabelCache(RwLock<Known>);

#[derive(Default)]
struct Known {
    sets: HashMap<StreamId, Labels, BuildHasherDefault<IdHasher>>,
    texts: HashSet<Arc<str>>,
    pairs: usize,
}

/// A stream's id is a hash already.
#[derive(Default)]
struct IdHasher(u64);

impl Hasher for IdHasher {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        bytes.iter().for_each(|byte| self.0 = self.0.rotate_left(8) ^ u64::from(*byte));
    }

    fn write_u128(&mut self, id: u128) {
        self.0 = id as u64;
    }
}

impl Known {
    fn text(&mut self, text: &str) -> Arc<str> {
        self.texts.get_or_insert_with(text, |text| Arc::from(text)).clone()
    }

    fn add(&mut self, stream: &Stream) -> Labels {
        if let Some(known) = self.sets.get(&stream.id) {
            return known.clone();
        }
        let pairs = stream.labels.iter().filter(|(_, value)| !value.is_empty());
        let pairs: Vec<_> = pairs.map(|(name, value)| (self.text(name), self.text(value))).collect();
        self.pairs += pairs.len();
        let labels = Labels::from_sorted(pairs);
        self.sets.insert(stream.id, labels.clone());
        labels
    }
}

impl LabelCache {
    /// The label sets of these streams, in their order.
    pub fn labels<'a>(&self, streams: impl ExactSizeIterator<Item = &'a Arc<Stream>> + Clone) -> Vec<Labels> {
        let mut all = Vec::with_capacity(streams.len());
        {
            let known = self.0.read().unwrap_or_else(PoisonError::into_inner);
            all.extend(streams.clone().map_while(|stream| known.sets.get(&stream.id).cloned()));
        }
        if all.len() < streams.len() {
            let mut known = self.0.write().unwrap_or_else(PoisonError::into_inner);
            let missing = streams.skip(all.len());
            all.extend(missing.map(|stream| {
                if known.pairs >= MAX_CACHED_PAIRS {
                    *known = Known::default();
                }
                known.add(stream)
            }));
        }
        all
    }
}

/// Series of one tenant, for one query.
pub struct TablesSource<'a> {
    /// Where they are read.
    pub tables: &'a dyn Tables,
    /// Whose they are.
    pub tenant: TenantId,
    /// When to give up.
    pub deadline: Option<Instant>,
    /// What was touched, and what is missing.
    pub stats: Arc<ScanStats>,
    /// Label sets of earlier queries.
    pub cache: &'a LabelCache,
}

impl TablesSource<'_> {
    /// A scan of the tenant's series in a range of milliseconds, both inclusive.
    pub(crate) fn scan(&self, matchers: &[Matcher], start_ms: i64, end_ms: i64) -> MetricScan {
        MetricScan {
            tenant: self.tenant.clone(),
            start_ms,
            end_ms,
            matchers: matchers.iter().map(label_matcher).collect(),
            deadline: self.deadline,
            stats: self.stats.clone(),
        }
    }

    /// The series and their labels, in one order.
    pub(crate) fn find(
        &self,
        matchers: &[Matcher],
        start_ms: i64,
        end_ms: i64,
    ) -> Result<(Vec<MetricSeries>, Vec<Labels>), ScanError> {
        let found = self.tables.select_series(&self.scan(matchers, start_ms, end_ms))?;
        let labels = self.cache.labels(found.iter().map(|series| &series.stream));
        Ok((found, labels))
    }
}

impl Source for TablesSource<'_> {
    fn select(&self, selection: &Selection<'_>) -> Result<Selected, SourceError> {
        let (found, labels) = self.find(selection.matchers, selection.start_ms, selection.end_ms)?;
        let series = found.into_iter().zip(labels);
        let series = series
            .map(|(series, labels)| Series { labels, data: Data::Lazy(Arc::new(Stored(series.data))) })
            .collect();
        // What could not be read is in the statistics, also what samples read later leave there.
        Ok(Selected { series, warnings: Vec::new() })
    }
}

pub(crate) fn label_matcher(matcher: &Matcher) -> LabelMatcher {
    let value = match (matcher.op, matcher.regex()) {
        (MatchOp::Regex, Some(regex)) => LabelMatch::Regex(regex.clone()),
        (MatchOp::NotRegex, Some(regex)) => LabelMatch::NotRegex(regex.clone()),
        (MatchOp::NotEqual | MatchOp::NotRegex, _) => LabelMatch::NotEqual(matcher.value.clone()),
        (MatchOp::Equal | MatchOp::Regex, _) => LabelMatch::Equal(matcher.value.clone()),
    };
    LabelMatcher { name: matcher.name.clone(), value }
}

/// The samples of one stored series.
struct Stored(Arc<dyn LoadSamples>);

impl Load for Stored {
    fn load(&self, samples: &mut Samples) -> Result<(), SourceError> {
        load(&*self.0, samples).map_err(Into::into)
    }
}

/// Reads samples; columns move, only histograms are converted.
pub(crate) fn load(data: &dyn LoadSamples, samples: &mut Samples) -> Result<(), ScanError> {
    let mut stored = trine_schema::Samples {
        timestamps: take(&mut samples.timestamps),
        values: take(&mut samples.values),
        start_timestamps: take(&mut samples.start_timestamps),
        histogram_timestamps: take(&mut samples.histogram_timestamps),
        histograms: Vec::new(),
        histogram_start_timestamps: take(&mut samples.histogram_start_timestamps),
    };
    data.load(&mut stored)?;
    samples.histograms.clear();
    samples.histograms.extend(stored.histograms.iter().map(|stored| Arc::new(histogram(stored))));
    samples.timestamps = stored.timestamps;
    samples.values = stored.values;
    samples.start_timestamps = stored.start_timestamps;
    samples.histogram_timestamps = stored.histogram_timestamps;
    samples.histogram_start_timestamps = stored.histogram_start_timestamps;
    Ok(())
}

fn histogram(stored: &NativeHistogram) -> Histogram {
    Histogram {
        reset_hint: match stored.reset_hint {
            trine_schema::ResetHint::Unknown => ResetHint::Unknown,
            trine_schema::ResetHint::Reset => ResetHint::Reset,
            trine_schema::ResetHint::NotReset => ResetHint::NotReset,
            trine_schema::ResetHint::Gauge => ResetHint::Gauge,
        },
        schema: stored.schema,
        zero_threshold: stored.zero_threshold,
        zero_count: stored.zero_count,
        count: stored.count,
        sum: stored.sum,
        positive: Buckets::from_spans(&stored.positive.spans, &stored.positive.counts),
        negative: Buckets::from_spans(&stored.negative.spans, &stored.negative.counts),
        custom_bounds: stored.custom_bounds.as_slice().into(),
    }
}
