//! One body becomes rows: the sink of the parsers.

use std::hash::BuildHasher as _;

use hashbrown::DefaultHashBuilder;
use trine_model::TenantId;
use trine_protocols::exposition::{
    ExpositionExemplar, Format, MetadataField, ParseOptions, Series, Sink, parse,
};
use trine_schema::{
    Labels, Metadata, MetricBatch, MetricBatchBuilder, NativeHistogram, StreamRef, StreamRegistry,
    metrics::METRIC_NAME,
};

use crate::{
    LabelSet,
    cache::{Cache, DROPPED, Live},
    config::Job,
    rules::SampleRules,
};

/// Longest labels of an exemplar, names and values together, in characters (OpenMetrics).
const EXEMPLAR_CHARACTERS: usize = 128;

/// How far ahead of the scrape a target's own timestamp may be, in milliseconds.
const MAX_AHEAD_MS: i64 = 10 * 60 * 1000;

/// The series that report on a scrape, in the order of [`Reading::batch`]'s values.
const REPORTS: [&str; 8] = [
    "up",
    "scrape_duration_seconds",
    "scrape_samples_scraped",
    "scrape_samples_post_metric_relabeling",
    "scrape_series_added",
    "scrape_timeout_seconds",
    "scrape_sample_limit",
    "scrape_body_size_bytes",
];

/// What one scrape came to.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Counts {
    /// Samples in the body.
    pub(crate) scraped: usize,
    /// Those that relabelling kept.
    pub(crate) kept: usize,
    /// Series that were new to the target.
    pub(crate) added: usize,
    /// Samples that repeat a series of the same scrape.
    pub(crate) duplicates: usize,
    /// Samples too far in the future.
    pub(crate) ahead: usize,
    /// Bytes of the body; -1 when it was too long.
    pub(crate) bytes: i64,
}

struct Row {
    series: StreamRef,
    at_ms: i64,
    value: f64,
    start_ms: i64,
    /// Position of its histogram.
    histogram: Option<u32>,
}

/// Everything that outlives the scrapes of a target.
pub(crate) struct Reading {
    pub(crate) cache: Cache,
    pub(crate) rules: SampleRules,
    tenant: TenantId,
    reports: Vec<StreamRef>,
    hasher: DefaultHashBuilder,
    // Kept for their memory.
    rows: Vec<Row>,
    histograms: Vec<NativeHistogram>,
    exemplars: Vec<(StreamRef, i64, f64, Labels)>,
}

/// A scrape under way.
struct Under<'a> {
    reading: &'a mut Reading,
    registry: &'a StreamRegistry,
    at_ms: i64,
    honor_timestamps: bool,
    track_timestamps: bool,
    limit: usize,
    over_limit: bool,
    matched: Option<u32>,
    counts: Counts,
    /// Entry and time of the last sample, if it was kept.
    last: Option<(u32, i64)>,
}

impl Reading {
    pub(crate) fn new(tenant: TenantId, rules: SampleRules, cache: Cache) -> Self {
        Self {
            cache,
            rules,
            tenant,
            reports: Vec::new(),
            hasher: DefaultHashBuilder::default(),
            rows: Vec::new(),
            histograms: Vec::new(),
            exemplars: Vec::new(),
        }
    }

    /// Reads a body of the time `at_ms`. When it is refused, nothing of it is kept and everything that lived is
    /// ended.
    pub(crate) fn read(
        &mut self,
        format: Format,
        body: &[u8],
        job: &Job,
        registry: &StreamRegistry,
        at_ms: i64,
    ) -> (Counts, Result<(), String>) {
        self.clear();
        self.cache.begin();
        let options = ParseOptions {
            native_histograms: job.native_histograms,
            always_classic_histograms: job.always_classic_histograms,
        };
        let mut under = Under {
            reading: self,
            registry,
            at_ms,
            honor_timestamps: job.honor_timestamps,
            track_timestamps: job.track_timestamps_staleness,
            limit: job.limits.samples.unwrap_or(usize::MAX),
            over_limit: false,
            matched: None,
            counts: Counts { bytes: body.len() as i64, ..Counts::default() },
            last: None,
        };
        let mut outcome = parse(format, body, options, &mut under).map_err(|error| error.to_string());
        if outcome.is_ok() && under.over_limit {
            outcome = Err(format!(
                "sample_limit exceeded (samples: {}, limit: {})",
                under.counts.kept, under.limit
            ));
        }
        let counts = under.counts;
        if outcome.is_ok() {
            let rows = &mut self.rows;
            let histograms = &mut self.histograms;
            self.cache.commit(|live| end(live, at_ms, rows, histograms));
        } else {
            self.fail(at_ms);
        }
        (counts, outcome)
    }

    /// There was no body at `at_ms`: everything that lived is ended.
    pub(crate) fn nothing(&mut self, at_ms: i64) {
        self.cache.begin();
        self.fail(at_ms);
    }

    fn fail(&mut self, at_ms: i64) {
        self.clear();
        let rows = &mut self.rows;
        let histograms = &mut self.histograms;
        self.cache.fail(|live| end(live, at_ms, rows, histograms));
    }

    fn clear(&mut self) {
        self.rows.clear();
        self.histograms.clear();
        self.exemplars.clear();
    }

    /// The rows of the last scrape, with the values of the first of [`REPORTS`].
    pub(crate) fn batch(
        &mut self,
        reports: &[f64],
        at_ms: i64,
        registry: &StreamRegistry,
    ) -> Result<MetricBatch, String> {
        let mut builder = MetricBatchBuilder::new(self.tenant.clone(), self.rows.len() + reports.len());
        for row in self.rows.iter().filter(|row| row.series != DROPPED) {
            match row.histogram {
                None => builder.float(row.series, row.at_ms, row.value, row.start_ms),
                Some(at) => {
                    builder.histogram(row.series, row.at_ms, &self.histograms[at as usize], row.start_ms);
                }
            }
        }
        for (series, at_ms, value, labels) in &self.exemplars {
            builder.exemplar(*series, *at_ms, *value, labels);
        }
        for (name, family) in self.cache.families() {
            if !family.written {
                let labels = Labels::from_pairs(&[(METRIC_NAME, name)]);
                let metric = registry.intern(&self.tenant, labels).map_err(|error| error.to_string())?;
                builder.metadata(metric, at_ms, &family.metadata);
                family.written = true;
            }
        }
        for (number, value) in reports.iter().enumerate() {
            if self.reports.len() == number {
                self.reports.push(intern(registry, &self.tenant, &self.rules.report(REPORTS[number]))?);
            }
            builder.float(self.reports[number], at_ms, *value, 0);
        }
        self.clear();
        Ok(builder.finish())
    }

    /// A batch that ends the target's series and the first `reports` of its reports.
    pub(crate) fn ending(
        &mut self,
        reports: usize,
        at_ms: i64,
        registry: &StreamRegistry,
    ) -> Result<MetricBatch, String> {
        self.nothing(at_ms);
        self.batch(&vec![Live::stale(); reports], at_ms, registry)
    }
}

/// A row that ends a series.
fn end(live: Live, at_ms: i64, rows: &mut Vec<Row>, histograms: &mut Vec<NativeHistogram>) {
    let histogram = live.histogram.then(|| {
        histograms.push(NativeHistogram { sum: Live::stale(), ..NativeHistogram::default() });
        histograms.len() as u32 - 1
    });
    rows.push(Row { series: live.series, at_ms, value: Live::stale(), start_ms: 0, histogram });
}

fn intern(registry: &StreamRegistry, tenant: &TenantId, labels: &LabelSet) -> Result<StreamRef, String> {
    let labels = labels.labels().map_err(|error| error.to_string())?;
    registry.intern(tenant, labels).map_err(|error| error.to_string())
}

impl Under<'_> {
    /// A sample: the row's place is taken in any case, so that rows count as samples do.
    fn sample(
        &mut self,
        series: &Series<'_>,
        at_ms: Option<i64>,
        value: f64,
        histogram: Option<&NativeHistogram>,
    ) -> Result<(), String> {
        self.counts.scraped += 1;
        self.last = None;
        self.reading.rows.push(Row { series: DROPPED, at_ms: 0, value, start_ms: 0, histogram: None });
        let at = match self.matched.take().or_else(|| self.reading.cache.find(series.text)) {
            Some(at) => at,
            None => match self.new_series(series, histogram.is_some())? {
                Some(at) => at,
                None => return Ok(()),
            },
        };
        let cache = &mut self.reading.cache;
        let again = cache.see(at);
        let entry = cache.entry(at);
        let stream = entry.series;
        if stream == DROPPED {
            return Ok(());
        }
        entry.histogram = histogram.is_some();
        self.counts.kept += 1;
        let own_ms = at_ms.filter(|_| self.honor_timestamps);
        let at_ms = own_ms.unwrap_or(self.at_ms);
        if own_ms.is_none() && (again || cache.repeats(stream)) {
            self.counts.duplicates += 1;
            return Ok(());
        }
        if at_ms > self.at_ms.saturating_add(MAX_AHEAD_MS) {
            self.counts.ahead += 1;
            return Ok(());
        }
        if self.counts.kept > self.limit {
            self.over_limit = true;
            return Ok(());
        }
        if own_ms.is_none() || self.track_timestamps {
            cache.track(at);
        }
        let histogram = histogram.map(|histogram| {
            self.reading.histograms.push(histogram.clone());
            self.reading.histograms.len() as u32 - 1
        });
        if let Some(row) = self.reading.rows.last_mut() {
            *row = Row { series: stream, at_ms, value, start_ms: 0, histogram };
        }
        self.last = Some((at, at_ms));
        Ok(())
    }

    /// `None` when the scrape is over its limit: such series are counted and not remembered.
    fn new_series(&mut self, series: &Series<'_>, histogram: bool) -> Result<Option<u32>, String> {
        let labels = self.reading.rules.apply(series)?;
        let stream = match labels {
            None => DROPPED,
            Some(_) if self.counts.kept >= self.limit => {
                self.counts.kept += 1;
                self.over_limit = true;
                return Ok(None);
            }
            Some(labels) => {
                self.counts.added += 1;
                intern(self.registry, &self.reading.tenant, &labels)?
            }
        };
        Ok(Some(self.reading.cache.insert(series.text, stream, histogram)))
    }
}

impl Sink for Under<'_> {
    #[inline]
    fn expected(&mut self, rest: &[u8]) -> Option<usize> {
        let (at, text) = self.reading.cache.next()?;
        let begins = Series::begins(rest, text);
        self.matched = begins.then_some(at);
        begins.then_some(text.len())
    }

    fn float(&mut self, series: &Series<'_>, at_ms: Option<i64>, value: f64) -> Result<(), String> {
        self.sample(series, at_ms, value, None)
    }

    fn histogram(
        &mut self,
        series: &Series<'_>,
        at_ms: Option<i64>,
        histogram: &NativeHistogram,
    ) -> Result<(), String> {
        self.sample(series, at_ms, 0.0, Some(histogram))
    }

    fn start(&mut self, sample: usize, start_ms: i64) {
        if let Some(row) = self.reading.rows.get_mut(sample) {
            row.start_ms = start_ms;
        }
    }

    fn exemplar(&mut self, exemplar: ExpositionExemplar) {
        let Some((at, sample_ms)) = self.last else { return };
        let ExpositionExemplar { at_ms, value, labels } = exemplar;
        let characters: usize =
            labels.iter().map(|(name, value)| name.chars().count() + value.chars().count()).sum();
        if characters > EXEMPLAR_CHARACTERS {
            return;
        }
        let hash = self.reading.hasher.hash_one((&labels, value.to_bits(), at_ms)) | 1;
        let entry = self.reading.cache.entry(at);
        if entry.exemplar == hash {
            return;
        }
        entry.exemplar = hash;
        let series = entry.series;
        if let Ok(labels) = Labels::new(labels) {
            self.reading.exemplars.push((series, at_ms.unwrap_or(sample_ms), value, labels));
        }
    }

    fn metadata(&mut self, family: &str, field: MetadataField<'_>) {
        fn set(own: &mut String, new: &str) -> bool {
            let changed = own != new;
            if changed {
                new.clone_into(own);
            }
            changed
        }
        self.reading.cache.family(family, |metadata: &mut Metadata| match field {
            MetadataField::Kind(kind) => set(&mut metadata.kind, kind.name()),
            MetadataField::Unit(unit) => set(&mut metadata.unit, unit),
            MetadataField::Help(help) => set(&mut metadata.help, help),
        });
    }
}
