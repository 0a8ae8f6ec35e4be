//! Warnings and infos that go with an answer, in Prometheus' wording.

use std::collections::BTreeMap;

use crate::{
    format::{general, quote, rfc3339},
    histogram::ResetHint,
    parser::{Pos, line_and_column},
};

/// What an annotation is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Kind {
    Warning,
    Info,
}

/// Operations on histograms, as annotations name them.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Operation {
    Addition,
    Subtraction,
    Aggregation,
}

impl Operation {
    fn name(self) -> &'static str {
        match self {
            Self::Addition => "addition",
            Self::Subtraction => "subtraction",
            Self::Aggregation => "aggregation",
        }
    }
}

/// How far classic buckets had to be made monotonic; grows as samples come.
#[derive(Clone, Copy, Debug)]
struct Monotonicity {
    times: (i64, i64),
    buckets: (f64, f64),
    difference: f64,
    samples: usize,
}

#[derive(Clone, Copy, Debug)]
enum Detail {
    None,
    Monotonicity(Monotonicity),
    Occurrences(usize),
}

/// Annotations of one query, each told once.
#[derive(Clone, Debug, Default)]
pub struct Annotations(BTreeMap<(Kind, String, Pos), Detail>);

impl Annotations {
    pub(crate) fn merge(&mut self, other: Self) {
        for (key, detail) in other.0 {
            self.insert(key, detail);
        }
    }

    fn insert(&mut self, key: (Kind, String, Pos), detail: Detail) {
        let known = self.0.entry(key);
        known
            .and_modify(|known| match (known, detail) {
                (Detail::Monotonicity(known), Detail::Monotonicity(new)) => {
                    known.times = (known.times.0.min(new.times.0), known.times.1.max(new.times.1));
                    known.buckets = (known.buckets.0.min(new.buckets.0), known.buckets.1.max(new.buckets.1));
                    known.difference = known.difference.max(new.difference);
                    known.samples += new.samples;
                }
                (Detail::Occurrences(known), Detail::Occurrences(new)) => *known += new,
                _ => {}
            })
            .or_insert(detail);
    }

    fn add(&mut self, kind: Kind, text: String, pos: Pos) {
        self.insert((kind, text, pos), Detail::None);
    }

    fn warn(&mut self, pos: Pos, text: String) {
        self.add(Kind::Warning, text, pos);
    }

    fn info(&mut self, pos: Pos, text: String) {
        self.add(Kind::Info, text, pos);
    }

    fn render(&self, wanted: Kind, query: &str) -> Vec<String> {
        let of_kind = self.0.iter().filter(|((kind, _, _), _)| *kind == wanted);
        let prefix = if wanted == Kind::Warning { "PromQL warning" } else { "PromQL info" };
        of_kind
            .map(|((_, text, pos), detail)| {
                let (line, column) = line_and_column(query, *pos);
                let detail = match detail {
                    Detail::None | Detail::Occurrences(..=1) => String::new(),
                    Detail::Occurrences(count) => format!(" ({count} occurrences)"),
                    Detail::Monotonicity(found) => format!(
                        ", from buckets {} to {}, with a max diff of {}, over {} samples from {} to {}",
                        general(found.buckets.0),
                        general(found.buckets.1),
                        two_digits(found.difference),
                        found.samples,
                        rfc3339(found.times.0),
                        rfc3339(found.times.1),
                    ),
                };
                format!("{prefix}: {text}{detail} ({line}:{column})")
            })
            .collect()
    }

    /// Warnings, each with the place in the query it is about.
    pub fn warnings(&self, query: &str) -> Vec<String> {
        self.render(Kind::Warning, query)
    }

    /// Infos, each with the place in the query it is about.
    pub fn infos(&self, query: &str) -> Vec<String> {
        self.render(Kind::Info, query)
    }

    pub(crate) fn invalid_quantile(&mut self, q: f64, pos: Pos) {
        self.warn(pos, format!("quantile value should be between 0 and 1, got {}", general(q)));
    }

    pub(crate) fn invalid_ratio(&mut self, ratio: f64, to: f64, pos: Pos) {
        let (ratio, to) = (general(ratio), general(to));
        self.warn(pos, format!("ratio value should be between -1 and 1, got {ratio}, capping to {to}"));
    }

    pub(crate) fn bad_bucket_label(&mut self, metric: &str, label: &str, pos: Pos) {
        let text = format!("bucket label \"le\" is missing or has a malformed value of {}", quote(label));
        self.warn(pos, with_metric(text, metric));
    }

    pub(crate) fn mixed_floats_histograms(&mut self, metric: &str, pos: Pos) {
        let metric = quote(metric);
        self.warn(pos, format!("encountered a mix of histograms and floats for metric name {metric}"));
    }

    pub(crate) fn mixed_in_aggregation(&mut self, pos: Pos) {
        self.warn(pos, "encountered a mix of histograms and floats for aggregation".to_owned());
    }

    pub(crate) fn mixed_classic_native(&mut self, metric: &str, pos: Pos) {
        let text = "vector contains a mix of classic and native histograms".to_owned();
        self.warn(pos, with_metric(text, metric));
    }

    pub(crate) fn not_counter(&mut self, hint: ResetHint, metric: &str, pos: Pos) {
        if hint == ResetHint::Gauge {
            let metric = quote(metric);
            self.warn(pos, format!("this native histogram metric is not a counter: {metric}"));
        }
    }

    pub(crate) fn not_gauge(&mut self, metric: &str, pos: Pos) {
        self.warn(pos, format!("this native histogram metric is not a gauge: {}", quote(metric)));
    }

    pub(crate) fn mixed_exponential_custom(&mut self, metric: &str, pos: Pos) {
        let what = "vector contains a mix of histograms with exponential and custom buckets schemas";
        self.warn(pos, format!("{what} for metric name {}", quote(metric)));
    }

    pub(crate) fn incompatible_layout(&mut self, op: &str, pos: Pos) {
        self.warn(pos, format!("incompatible bucket layout encountered for binary operator {op}"));
    }

    pub(crate) fn sort_in_range_query(&mut self, pos: Pos) {
        let text = "sort is ineffective for range queries since results are always ordered by labels";
        self.warn(pos, text.to_owned());
    }

    pub(crate) fn reset_collision(&mut self, operation: Operation, pos: Pos) {
        self.warn(pos, format!("conflicting counter resets during histogram {}", operation.name()));
    }

    pub(crate) fn start_time_overlap(&mut self, metric: &str, pos: Pos) {
        let what = "sample has start time that overlaps with previous sample timestamp";
        let text = format!("{what} for metric {}", quote(metric));
        self.insert((Kind::Warning, text, pos), Detail::Occurrences(1));
    }

    pub(crate) fn possible_non_counter(&mut self, metric: &str, pos: Pos) {
        let what = "metric might not be a counter, name does not end in _total/_sum/_count/_bucket";
        self.info(pos, format!("{what}: {}", quote(metric)));
    }

    pub(crate) fn forced_monotonicity(
        &mut self,
        metric: &str,
        pos: Pos,
        time: i64,
        buckets: (f64, f64),
        difference: f64,
    ) {
        let what = "input to histogram_quantile needed to be fixed for monotonicity \
            (see https://prometheus.io/docs/prometheus/latest/querying/functions/#histogram_quantile)";
        let found = Monotonicity { times: (time, time), buckets, difference, samples: 1 };
        let key = (Kind::Info, with_metric(what.to_owned(), metric), pos);
        self.insert(key, Detail::Monotonicity(found));
    }

    pub(crate) fn incompatible_types(&mut self, left: &str, op: &str, right: &str, pos: Pos) {
        let what = "incompatible sample types encountered for binary operator";
        self.info(pos, format!("{what} {}: {left} {op} {right}", quote(op)));
    }

    pub(crate) fn ignored_in_aggregation(&mut self, aggregation: &str, pos: Pos) {
        self.info(pos, format!("ignored histogram in {aggregation} aggregation"));
    }

    pub(crate) fn ignored_in_mixed_range(&mut self, metric: &str, pos: Pos) {
        let what = "ignored histograms in a range containing both floats and histograms for metric name";
        self.info(pos, format!("{what} {}", quote(metric)));
    }

    pub(crate) fn quantile_nan_result(&mut self, metric: &str, pos: Pos) {
        let text = "input to histogram_quantile has NaN observations, result is NaN".to_owned();
        self.info(pos, with_metric(text, metric));
    }

    pub(crate) fn quantile_nan_skew(&mut self, metric: &str, pos: Pos) {
        let text = "input to histogram_quantile has NaN observations, result is skewed higher".to_owned();
        self.info(pos, with_metric(text, metric));
    }

    pub(crate) fn fraction_nans(&mut self, metric: &str, pos: Pos) {
        let what = "input to histogram_fraction has NaN observations, which are excluded from all fractions";
        self.info(pos, with_metric(what.to_owned(), metric));
    }

    pub(crate) fn bounds_reconciled(&mut self, operation: Operation, pos: Pos) {
        self.info(pos, format!("mismatched custom buckets were reconciled during {}", operation.name()));
    }
}

fn with_metric(text: String, metric: &str) -> String {
    if metric.is_empty() { text } else { format!("{text} for metric name {}", quote(metric)) }
}

/// `%.2g`.
fn two_digits(value: f64) -> String {
    let rounded: f64 = format!("{value:.1e}").parse().unwrap_or(value);
    let exponent = rounded.abs().log10().floor();
    if rounded != 0.0 && (2.0..6.0).contains(&exponent) {
        let mantissa = rounded / 10f64.powf(exponent);
        return format!("{}e+{exponent:02}", (mantissa * 10.0).round() / 10.0);
    }
    general(rounded)
}
