//! What the decoders of metrics share: rows of samples, names and bounds of series.

use trine_model::TenantId;
use trine_schema::{
    Labels, Metadata, MetricBatch, MetricBatchBuilder, NativeHistogram, RawKey, StreamRef,
    metrics::METRIC_NAME,
};

use crate::{
    Limits,
    intake::{Dialect, Fault, Intake, Rows, bad, check_labels},
};

impl Rows for MetricBatchBuilder {
    type Batch = MetricBatch;

    fn new(tenant: TenantId, rows: usize, _bytes: usize) -> Self {
        Self::new(tenant, rows)
    }

    fn len(&self) -> usize {
        self.len()
    }

    #[inline]
    fn text_bytes(&self) -> usize {
        self.payload_bytes()
    }

    fn attribute(&mut self, _key: &str, _value: &str) {}

    fn discard(&mut self) {}

    fn finish(self) -> MetricBatch {
        self.finish()
    }
}

impl Intake<'_, MetricBatchBuilder> {
    /// Adds a float sample (milliseconds since 1970; a start of 0 is not known).
    #[inline]
    pub(crate) fn float(
        &mut self,
        series: StreamRef,
        at_ms: i64,
        value: f64,
        start_ms: i64,
    ) -> Result<(), Fault> {
        self.builder.float(series, time(at_ms)?, value, start(start_ms));
        self.grew(0);
        Ok(())
    }

    /// Adds a native histogram.
    pub(crate) fn histogram(
        &mut self,
        series: StreamRef,
        at_ms: i64,
        histogram: &NativeHistogram,
        start_ms: i64,
    ) -> Result<(), Fault> {
        self.builder.histogram(series, time(at_ms)?, histogram, start(start_ms));
        self.grew(0);
        Ok(())
    }

    /// Adds an exemplar of a series.
    pub(crate) fn exemplar(
        &mut self,
        series: StreamRef,
        at_ms: i64,
        value: f64,
        labels: &Labels,
    ) -> Result<(), Fault> {
        self.builder.exemplar(series, time(at_ms)?, value, labels);
        self.grew(0);
        Ok(())
    }

    /// Adds what is known of a metric; its time is that of arrival.
    pub(crate) fn metadata(&mut self, metric: StreamRef, metadata: &Metadata) {
        let now_ms = self.now_ns / 1_000_000;
        self.builder.metadata(metric, now_ms, metadata);
        self.grew(0);
    }

    /// The stream that the metadata of a metric belong to.
    pub(crate) fn metric(&mut self, name: &str) -> Result<StreamRef, Fault> {
        let key = self.spelling(Dialect::MetricName).with(RawKey::of(name.as_bytes()));
        self.stream_of(key, |limits| series_labels(vec![(METRIC_NAME.into(), name.into())], limits))
    }
}

/// Refuses a time that the tables cannot hold.
#[inline]
fn time(at_ms: i64) -> Result<i64, Fault> {
    if at_ms.checked_mul(1_000_000).is_some() {
        return Ok(at_ms);
    }
    let text = format!("time {at_ms} ms lies outside the years 1677 to 2262; send milliseconds since 1970");
    Err(Fault::Record(text.into()))
}

/// A start that the tables cannot hold is not known.
#[inline]
fn start(start_ms: i64) -> i64 {
    start_ms.checked_mul(1_000_000).map_or(0, |_| start_ms)
}

/// Labels of a series: empty values are none, names are unique, and one of them names the metric.
pub(crate) fn series_labels(mut pairs: Vec<(Box<str>, Box<str>)>, limits: &Limits) -> Result<Labels, Fault> {
    if pairs.iter().any(|(name, _)| name.is_empty()) {
        return Err(bad("a label has no name; name it"));
    }
    pairs.retain(|(_, value)| !value.is_empty());
    let refuse = |text: String| Err(Fault::Record(text.into()));
    if pairs.len() > limits.max_labels_per_stream {
        let limit = limits.max_labels_per_stream;
        return refuse(format!("the series has more than {limit} labels; send fewer"));
    }
    check_labels(&pairs, limits, "shorten it")?;
    if !pairs.iter().any(|(name, _)| &**name == METRIC_NAME) {
        return refuse(format!("the series has no label {METRIC_NAME}; name the metric in it"));
    }
    Ok(Labels::new(pairs)?)
}

/// A metric's type by its number in both versions of remote write.
pub(crate) fn type_name(number: u64) -> &'static str {
    const NAMES: [&str; 8] =
        ["unknown", "counter", "gauge", "histogram", "gaugehistogram", "summary", "info", "stateset"];
    usize::try_from(number).ok().and_then(|number| NAMES.get(number)).unwrap_or(&NAMES[0])
}

/// Name of the metric that a series of this type belongs to.
pub(crate) fn family<'a>(series: &'a str, kind: &str) -> &'a str {
    let suffixes: &[&str] = match kind {
        "histogram" => &["_bucket", "_sum", "_count"],
        "gaugehistogram" => &["_bucket", "_gsum", "_gcount"],
        "summary" => &["_sum", "_count"],
        _ => &[],
    };
    suffixes.iter().find_map(|suffix| series.strip_suffix(suffix)).unwrap_or(series)
}
