//! `eval` and what it expects.

use regex::Regex;

use super::{
    series::{self, Item},
    time,
};
use crate::{
    engine::{Answer, Engine, Error},
    histogram::Histogram,
    labels::Labels,
    source::MemorySource,
    value::{Sample, Value},
};

/// When a query is evaluated, milliseconds.
#[derive(Clone, Copy, Debug)]
pub(super) enum Times {
    Instant(i64),
    Range { start: i64, end: i64, step: i64 },
}

impl Times {
    pub fn run(self, engine: &Engine, source: &MemorySource, query: &str) -> Result<Answer, Error> {
        match self {
            Self::Instant(time) => engine.instant(source, query, time),
            Self::Range { start, end, step } => engine.range(source, query, start, end, step),
        }
    }
}

/// A text an annotation or error must have.
#[derive(Clone, Debug)]
enum Text {
    Any,
    Exact(String),
    Pattern(Regex),
}

impl Text {
    fn matches(&self, text: &str) -> bool {
        match self {
            Self::Any => true,
            Self::Exact(expected) => text == expected,
            Self::Pattern(pattern) => pattern.is_match(text),
        }
    }
}

/// An `eval` with all it expects.
#[derive(Debug)]
pub(super) struct Expectation {
    pub query: String,
    pub times: Times,
    ordered: bool,
    fail: Option<Text>,
    warn: Vec<Text>,
    info: Vec<Text>,
    no_warn: bool,
    no_info: bool,
    string: Option<String>,
    scalar: Option<f64>,
    series: Vec<(Labels, Vec<Item>)>,
    /// Times of the samples of a range vector: from, step.
    range_vector: Option<(i64, i64)>,
}

/// Reads an `eval` line and the lines below; also tells how many of them belong to it.
pub(super) fn read(line: &str, body: &[&str]) -> Result<(Expectation, usize), String> {
    let (command, rest) = line.split_once(char::is_whitespace).ok_or("eval without a query")?;
    let mut words = rest.trim();
    let mut word = || {
        let (word, rest) = words.split_once(char::is_whitespace).unwrap_or((words, ""));
        words = rest.trim_start();
        word
    };
    let times = match word() {
        "instant" => {
            let rest = words_after(&mut word, "at")?;
            Times::Instant(time(rest)?)
        }
        "range" => {
            let start = time(words_after(&mut word, "from")?)?;
            let end = time(words_after(&mut word, "to")?)?;
            let step = time(words_after(&mut word, "step")?)?;
            Times::Range { start, end, step }
        }
        other => return Err(format!("invalid evaluation command: eval {other}")),
    };
    let any = |wanted: bool| if wanted { vec![Text::Any] } else { Vec::new() };
    let mut expectation = Expectation {
        query: words.to_owned(),
        times,
        ordered: command == "eval_ordered",
        fail: (command == "eval_fail").then_some(Text::Any),
        warn: any(command == "eval_warn"),
        info: any(command == "eval_info"),
        no_warn: false,
        no_info: false,
        string: None,
        scalar: None,
        series: Vec::new(),
        range_vector: None,
    };
    let mut used = 0;
    for line in body {
        used += 1;
        if let Some(text) = line.strip_prefix("expected_fail_message") {
            expectation.fail = Some(Text::Exact(text.trim().to_owned()));
            break;
        }
        if let Some(text) = line.strip_prefix("expected_fail_regexp") {
            expectation.fail = Some(Text::Pattern(pattern(text.trim())?));
            break;
        }
        if line.split_whitespace().next() == Some("expect") {
            expectation.read_expect(line["expect".len()..].trim_start())?;
            continue;
        }
        if let Some(value) = plain_number(line) {
            expectation.scalar = Some(value);
            break;
        }
        let (labels, rest) = series::metric(line)?;
        expectation.series.push((labels, series::items(rest)?));
    }
    Ok((expectation, used))
}

fn words_after<'w>(word: &mut impl FnMut() -> &'w str, keyword: &str) -> Result<&'w str, String> {
    match word() {
        found if found == keyword => Ok(word()),
        found => Err(format!("expected {keyword:?}, found {found:?}")),
    }
}

fn pattern(text: &str) -> Result<Regex, String> {
    Regex::new(text).map_err(|error| error.to_string())
}

fn plain_number(line: &str) -> Option<f64> {
    let lower = line.to_ascii_lowercase();
    let unsigned = lower.trim_start_matches(['+', '-']);
    match unsigned {
        "inf" => Some(if lower.starts_with('-') { f64::NEG_INFINITY } else { f64::INFINITY }),
        "nan" => Some(f64::NAN),
        _ => {
            let value = crate::parser::number(unsigned)?;
            Some(if lower.starts_with('-') { -value } else { value })
        }
    }
}

impl Expectation {
    fn read_expect(&mut self, text: &str) -> Result<(), String> {
        if let Some(rest) = text.strip_prefix("range vector") {
            let words: Vec<&str> = rest.split_whitespace().collect();
            let ["from", from, "to", _, "step", step] = words[..] else {
                return Err(format!("invalid range vector definition {text:?}"));
            };
            self.range_vector = Some((time(from)?, time(step)?));
            return Ok(());
        }
        if let Some(rest) = text.strip_prefix("string") {
            let parsed = crate::parser::parse(rest.trim()).map_err(|error| error.to_string())?;
            let crate::parser::Expr::String { value, .. } = parsed else {
                return Err("expected string literal not valid".to_owned());
            };
            self.string = Some(value);
            return Ok(());
        }
        let (kind, rest) = text.split_once(char::is_whitespace).unwrap_or((text, ""));
        let rest = rest.trim();
        let text = if let Some(exact) = rest.strip_prefix("msg:") {
            Text::Exact(exact.trim().to_owned())
        } else if let Some(found) = rest.strip_prefix("regex:") {
            Text::Pattern(pattern(found.trim())?)
        } else {
            Text::Any
        };
        match kind {
            "ordered" => self.ordered = true,
            "fail" => self.fail = Some(text),
            "warn" => self.warn.push(text),
            "info" => self.info.push(text),
            "no_warn" => self.no_warn = true,
            "no_info" => self.no_info = true,
            _ => return Err(format!("invalid expected error/annotation type {kind}")),
        }
        Ok(())
    }

    /// Compares an answer.
    pub fn check(&self, answer: Result<Answer, Error>) -> Result<(), String> {
        let answer = match (answer, &self.fail) {
            (Err(error), Some(text)) => {
                let error = error.to_string();
                return if text.matches(&error) {
                    Ok(())
                } else {
                    Err(format!("failed with {error:?}, expected {text:?}"))
                };
            }
            (Err(error), None) => return Err(format!("failed: {error}")),
            (Ok(answer), Some(_)) => return Err(format!("should fail, got {}", answer.value)),
            (Ok(answer), None) => answer,
        };
        annotations("warning", &answer.warnings, &self.warn, self.no_warn)?;
        annotations("info", &answer.infos, &self.info, self.no_info)?;
        self.check_value(&answer.value).map_err(|error| format!("{error}; got\n{}", answer.value))
    }

    fn check_value(&self, value: &Value) -> Result<(), String> {
        if let Some(expected) = &self.string {
            return match value {
                Value::String(_, found) if found == expected => Ok(()),
                _ => Err(format!("expected string {expected:?}")),
            };
        }
        if let Some(expected) = self.scalar {
            return match value {
                Value::Scalar(_, found) => float_equal(expected, *found),
                _ => Err("expected a scalar".to_owned()),
            };
        }
        match value {
            Value::Scalar(..) | Value::String(..) => Err("expected a vector".to_owned()),
            Value::Vector(found) => {
                let found: Vec<(&Labels, Vec<(i64, Sample)>)> =
                    found.iter().map(|series| (&series.labels, vec![(0, series.sample.clone())])).collect();
                self.check_series(&found, (0, 1), self.ordered)
            }
            Value::Matrix(found) => {
                let found: Vec<(&Labels, Vec<(i64, Sample)>)> = found
                    .iter()
                    .map(|series| {
                        let floats = series.floats.iter().map(|(time, value)| (*time, Sample::Float(*value)));
                        let histograms = series.histograms.iter();
                        let histograms =
                            histograms.map(|(time, value)| (*time, Sample::Histogram(value.clone())));
                        let mut samples: Vec<_> = floats.chain(histograms).collect();
                        samples.sort_by_key(|(time, _)| *time);
                        (&series.labels, samples)
                    })
                    .collect();
                let grid = match (self.times, self.range_vector) {
                    (_, Some(grid)) => grid,
                    (Times::Range { start, step, .. }, None) => (start, step),
                    (Times::Instant(time), None) => (time, 1),
                };
                self.check_series(&found, grid, self.ordered)
            }
        }
    }

    fn check_series(
        &self,
        found: &[(&Labels, Vec<(i64, Sample)>)],
        (start, step): (i64, i64),
        ordered: bool,
    ) -> Result<(), String> {
        for (labels, _) in found {
            if !self.series.iter().any(|(expected, _)| expected == *labels) {
                return Err(format!("unexpected series {labels}"));
            }
        }
        for (position, (labels, items)) in self.series.iter().enumerate() {
            let at = found.iter().position(|(found, _)| *found == labels);
            let Some(at) = at else {
                if items.iter().all(|item| *item == Item::Omitted) {
                    continue;
                }
                return Err(format!("expected series {labels}"));
            };
            if ordered && at != position {
                return Err(format!("expected {labels} at position {position}, it is at {at}"));
            }
            let expected: Vec<(i64, &Item)> = (items.iter().enumerate())
                .filter(|(_, item)| **item != Item::Omitted)
                .map(|(position, item)| (start + position as i64 * step, item))
                .collect();
            let samples = &found[at].1;
            if samples.len() != expected.len() {
                let (wanted, got) = (expected.len(), samples.len());
                return Err(format!("expected {wanted} samples of {labels}, got {got}"));
            }
            for ((wanted_time, item), (time, sample)) in expected.into_iter().zip(samples) {
                if wanted_time != *time {
                    return Err(format!("expected a sample of {labels} at {wanted_time}, got one at {time}"));
                }
                sample_equal(item, sample).map_err(|error| format!("{labels} at {time}: {error}"))?;
            }
        }
        Ok(())
    }

    /// What an instant query yields must be what a range query around its time yields there.
    pub fn check_as_range(&self, engine: &Engine, source: &MemorySource) -> Result<(), String> {
        let Times::Instant(time) = self.times else { return Ok(()) };
        let lower = self.query.to_ascii_lowercase();
        let context = ["start()", "end()", "range()", "step()"].iter().any(|word| lower.contains(word));
        if self.fail.is_some() || self.string.is_some() || self.range_vector.is_some() || context {
            return Ok(());
        }
        let minute = 60_000;
        let Ok(answer) = engine.range(source, &self.query, time - minute, time + minute, minute) else {
            // Another step may fail where this one does not, and raw ranges have no range query.
            return Ok(());
        };
        let Value::Matrix(matrix) = answer.value else { return Ok(()) };
        if let Some(expected) = self.scalar {
            let found = matrix.first().and_then(|series| series.floats.get(1)).map(|(_, value)| *value);
            return float_equal(expected, found.unwrap_or(f64::NAN))
                .map_err(|error| format!("as range: {error}"));
        }
        let mut found = Vec::new();
        for series in &matrix {
            let float =
                series.floats.iter().find(|(at, _)| *at == time).map(|(_, value)| Sample::Float(*value));
            let histogram = series.histograms.iter().find(|(at, _)| *at == time);
            let sample = float.or_else(|| histogram.map(|(_, value)| Sample::Histogram(value.clone())));
            found.extend(sample.map(|sample| (&series.labels, vec![(0, sample)])));
        }
        self.check_series(&found, (0, 1), false).map_err(|error| format!("as range query: {error}"))
    }
}

fn annotations(kind: &str, found: &[String], expected: &[Text], none: bool) -> Result<(), String> {
    if none && !found.is_empty() {
        return Err(format!("unexpected {kind} annotations: {found:?}"));
    }
    for text in expected {
        if !found.iter().any(|found| text.matches(found)) {
            return Err(format!("expected {kind} {text:?}, found {found:?}"));
        }
    }
    if !expected.is_empty() {
        for found in found {
            if !expected.iter().any(|text| text.matches(found)) {
                return Err(format!("unexpected {kind} {found:?}"));
            }
        }
    }
    Ok(())
}

/// Relative difference that is still equal.
const EPSILON: f64 = 1e-6;

fn float_equal(expected: f64, found: f64) -> Result<(), String> {
    if crate::eval::almost_equal(expected, found, EPSILON) {
        Ok(())
    } else {
        Err(format!("expected {expected}, got {found}"))
    }
}

fn sample_equal(expected: &Item, found: &Sample) -> Result<(), String> {
    match (expected, found) {
        (Item::Float(expected), Sample::Float(found)) => float_equal(*expected, *found),
        (Item::Histogram(expected, hint), Sample::Histogram(found)) => {
            histogram_equal(expected, found, *hint)
                .map_err(|error| format!("{error}: expected {expected:?}, got {found:?}"))
        }
        (expected, found) => Err(format!("expected {expected:?}, got {found}")),
    }
}

fn histogram_equal(expected: &Histogram, found: &Histogram, hint: bool) -> Result<(), String> {
    let (mut expected, mut found) = (expected.clone(), found.clone());
    expected.compact();
    found.compact();
    if expected.schema != found.schema || expected.zero_threshold != found.zero_threshold {
        return Err("schema or zero threshold".to_owned());
    }
    if hint && expected.reset_hint != found.reset_hint {
        return Err("counter reset hint".to_owned());
    }
    let floats =
        [(expected.count, found.count), (expected.sum, found.sum), (expected.zero_count, found.zero_count)];
    floats.into_iter().try_for_each(|(expected, found)| float_equal(expected, found))?;
    if expected.positive.index != found.positive.index || expected.negative.index != found.negative.index {
        return Err("bucket layout".to_owned());
    }
    if expected.custom_bounds != found.custom_bounds {
        return Err("custom bounds".to_owned());
    }
    let counts = (expected.positive.count.iter().zip(&found.positive.count))
        .chain(expected.negative.count.iter().zip(&found.negative.count));
    for (expected, found) in counts {
        float_equal(*expected, *found)?;
    }
    Ok(())
}
