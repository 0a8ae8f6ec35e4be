//! `/federate`: the newest sample of each series in the text format, for another Prometheus to scrape.

use std::fmt::Write as _;

use hashbrown::HashMap;

use super::{Api, Failure, Reply, Request};
use crate::{
    format::{general, quote},
    histogram::Histogram,
    labels::{Labels, METRIC_NAME, is_plain_label},
    source::{Samples, is_stale},
    tables,
    value::Sample,
};

const TEXT: &str = "text/plain; version=0.0.4; charset=utf-8";

/// The newest sample up to a time and not older than another, unless the series ended with it.
fn newest(samples: &Samples, oldest: i64, now: i64) -> Option<(i64, Sample)> {
    let last = |times: &[i64]| {
        let at = times.partition_point(|time| *time <= now).checked_sub(1)?;
        (times[at] >= oldest).then_some((times[at], at))
    };
    let float = last(&samples.timestamps);
    let histogram = last(&samples.histogram_timestamps);
    match (float, histogram) {
        (Some((time, at)), other) if other.is_none_or(|(later, _)| time >= later) => {
            let value = samples.values[at];
            (!is_stale(value)).then_some((time, Sample::Float(value)))
        }
        (_, Some((time, at))) => {
            let value = &samples.histograms[at];
            (!is_stale(value.sum)).then(|| (time, Sample::Histogram(value.clone())))
        }
        (_, None) => None,
    }
}

/// The text format, a family at a time.
struct Families<'a> {
    text: String,
    kinds: HashMap<&'a str, &'a str>,
    last: Option<(String, bool)>,
}

impl Families<'_> {
    /// Opens a family unless it is open.
    fn family(&mut self, name: &str, histogram: bool) {
        if self.last.as_ref().is_some_and(|(last, kind)| last == name && *kind == histogram) {
            return;
        }
        let told = self.kinds.get(name).or_else(|| self.kinds.get(name.strip_suffix("_total")?));
        // Parts of classic histograms and summaries stand alone here, and so have no type.
        let kind = match told.copied() {
            _ if histogram => "histogram",
            Some(kind @ ("counter" | "gauge")) => kind,
            _ => "untyped",
        };
        let _ = writeln!(self.text, "# TYPE {} {kind}", plain_or_quoted(name));
        self.last = Some((name.to_owned(), histogram));
    }

    /// One line. The label `instance` is there even if it is empty, so that the reader adds none of its own.
    fn line(&mut self, name: &str, suffix: &str, labels: &Labels, le: Option<&str>, value: f64, time: i64) {
        let text = &mut self.text;
        let name = format!("{name}{suffix}");
        let plain = is_plain_metric(&name);
        text.push_str(if plain { &name } else { "" });
        text.push('{');
        let mut between = "";
        if !plain {
            text.push_str(&quote(&name));
            between = ",";
        }
        let instance = labels.get("instance").is_empty().then_some(("instance", ""));
        let own = labels.iter().filter(|(name, _)| *name != METRIC_NAME);
        for (name, value) in own.chain(instance).chain(le.map(|le| ("le", le))) {
            text.push_str(between);
            between = ",";
            if is_plain_label(name) {
                text.push_str(name);
            } else {
                text.push_str(&quote(name));
            }
            text.push_str("=\"");
            for char in value.chars() {
                match char {
                    '\\' => text.push_str("\\\\"),
                    '"' => text.push_str("\\\""),
                    '\n' => text.push_str("\\n"),
                    char => text.push(char),
                }
            }
            text.push('"');
        }
        let _ = writeln!(text, "}} {} {time}", general(value));
    }

    /// Custom bounds are those of a classic histogram.
    fn classic(&mut self, name: &str, labels: &Labels, histogram: &Histogram, time: i64) {
        let mut below = 0.0;
        let mut buckets = histogram.positive.index.iter().zip(&histogram.positive.count).peekable();
        for (index, bound) in histogram.custom_bounds.iter().enumerate() {
            while let Some((_, count)) = buckets.next_if(|(at, _)| **at <= index as i32) {
                below += count;
            }
            self.line(name, "_bucket", labels, Some(&general(*bound)), below, time);
        }
        self.line(name, "_bucket", labels, Some("+Inf"), histogram.count, time);
        self.line(name, "_sum", labels, None, histogram.sum, time);
        self.line(name, "_count", labels, None, histogram.count, time);
    }
}

fn is_plain_metric(name: &str) -> bool {
    is_plain_label(&name.replace(':', "_"))
}

fn plain_or_quoted(name: &str) -> String {
    if is_plain_metric(name) { name.to_owned() } else { quote(name) }
}

impl Api {
    /// The newest samples of the series that any `match[]` finds; errors are plain text. Exponential native
    /// histograms have no form in the text format and are left out, as Prometheus does it.
    pub fn federate(&self, request: &Request<'_>) -> Reply {
        self.federated(request).unwrap_or_else(|failure| {
            let status = Reply::from(failure.clone()).status;
            Reply { status, content_type: TEXT, encoding: None, body: (failure.message + "\n").into_bytes() }
        })
    }

    fn federated(&self, request: &Request<'_>) -> Result<Reply, Failure> {
        let selectors = request.all("match[]").map(crate::parser::parse_selector);
        let selectors: Vec<_> =
            selectors.collect::<Result<_, _>>().map_err(|error| Failure::bad_data(error.to_string()))?;
        let (now, oldest) = (request.now_ms, request.now_ms - self.engine.lookback.as_millis() as i64);
        let source = self.source(request, request.deadline);
        let mut found = Vec::new();
        for matchers in &selectors {
            let (series, labels) = source.find(matchers, oldest, now)?;
            found.extend(labels.into_iter().zip(series));
        }
        found.sort_by(|a, b| a.0.metric_name().cmp(b.0.metric_name()).then_with(|| a.0.cmp(&b.0)));
        found.dedup_by(|a, b| a.0 == b.0);
        let metadata = request.tables.metric_metadata(&request.tenant)?;
        let kinds = metadata.iter().map(|(name, told)| (name.as_str(), told.kind.as_str())).collect();
        let mut families = Families { text: String::new(), kinds, last: None };
        let mut samples = Samples::default();
        for (labels, series) in &found {
            let name = labels.metric_name();
            if name.is_empty() {
                continue;
            }
            tables::load(&*series.data, &mut samples)?;
            match newest(&samples, oldest, now) {
                Some((time, Sample::Float(value))) => {
                    families.family(name, false);
                    families.line(name, "", labels, None, value, time);
                }
                Some((time, Sample::Histogram(histogram))) if histogram.has_custom_bounds() => {
                    families.family(name, true);
                    families.classic(name, labels, &histogram, time);
                }
                Some(_) | None => {}
            }
        }
        Ok(Reply { status: 200, content_type: TEXT, encoding: None, body: families.text.into_bytes() })
    }
}
