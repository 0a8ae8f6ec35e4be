//! Runs scripts in the format of Prometheus' `promqltest`: `load`, `clear`, `eval instant`, `eval range` and
//! what they expect. See Prometheus' `promql/promqltest/README.md` for the language.

mod expect;
mod series;

use std::{collections::BTreeMap, sync::Arc};

use expect::Expectation;
use series::Item;

use crate::{
    engine::Engine,
    histogram::{Buckets, CUSTOM_BUCKETS, Histogram, ResetHint},
    labels::{Labels, METRIC_NAME},
    parser::duration_seconds,
    source::{MemorySource, is_stale},
};

/// What a script has shown.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Report {
    /// How many `eval`s there were.
    pub evals: usize,
    /// Those that did not hold, each with its line and why.
    pub failures: Vec<String>,
}

/// An engine as Prometheus' own scripts are written for.
pub fn engine() -> Engine {
    Engine { delayed_name_removal: true, use_start_timestamps: true, ..Engine::default() }
}

/// Runs a script; fails if it cannot be read.
pub fn run(engine: &Engine, script: &str) -> Result<Report, String> {
    let lines: Vec<&str> = script.lines().map(str::trim).collect();
    let lines: Vec<&str> =
        lines.into_iter().map(|line| if line.starts_with('#') { "" } else { line }).collect();
    let mut source = MemorySource::default();
    let mut report = Report::default();
    let mut at = 0;
    while at < lines.len() {
        let line = lines[at];
        let end = at + 1 + lines[at + 1..].iter().take_while(|line| !line.is_empty()).count();
        let body = &lines[at + 1..end];
        let word = line.split_whitespace().next().unwrap_or("");
        let in_line = |error: String| format!("line {}: {error}", at + 1);
        match word {
            "" => {
                at += 1;
                continue;
            }
            "clear" => {
                source = MemorySource::default();
                at += 1;
                continue;
            }
            "load" | "load_with_nhcb" => {
                let interval = time(line[word.len()..].trim()).map_err(in_line)?;
                load(&mut source, interval, body, word == "load_with_nhcb").map_err(in_line)?;
            }
            _ if word.starts_with("eval") => {
                report.evals += 1;
                let (expectation, used) = expect::read(line, body).map_err(in_line)?;
                if let Err(error) = check(engine, &source, &expectation) {
                    report.failures.push(format!("line {}: {}: {error}", at + 1, expectation.query));
                }
                at += 1 + used;
                continue;
            }
            _ => return Err(in_line(format!("invalid command {line:?}"))),
        }
        at = end;
    }
    Ok(report)
}

fn check(engine: &Engine, source: &MemorySource, expectation: &Expectation) -> Result<(), String> {
    expectation.check(expectation.times.run(engine, source, &expectation.query))?;
    expectation.check_as_range(engine, source)
}

/// A time or interval, milliseconds.
fn time(text: &str) -> Result<i64, String> {
    let (sign, text) = text.strip_prefix('-').map_or((1, text), |text| (-1, text));
    let seconds = if text == "0" { Some(0.0) } else { duration_seconds(text) };
    let seconds = seconds.ok_or_else(|| format!("invalid duration {text:?}"))?;
    Ok(sign * (seconds * 1000.0).round() as i64)
}

fn load(source: &mut MemorySource, interval: i64, lines: &[&str], with_nhcb: bool) -> Result<(), String> {
    let mut starts: Option<Vec<Option<i64>>> = None;
    let mut loaded = Vec::new();
    for line in lines {
        if let Some((metric, offsets)) = line.split_once("@st")
            && offsets.starts_with([' ', '\t'])
            && !metric.contains(' ')
        {
            starts = Some(series::start_offsets(offsets)?);
            continue;
        }
        let (labels, rest) = series::metric(line)?;
        let items = series::items(rest)?;
        store(source, &labels, interval, &items, starts.take().as_deref());
        loaded.push((labels, items));
    }
    if with_nhcb {
        for (labels, items) in native(&loaded) {
            store(source, &labels, interval, &items, None);
        }
    }
    Ok(())
}

fn store(
    source: &mut MemorySource,
    labels: &Labels,
    interval: i64,
    items: &[Item],
    starts: Option<&[Option<i64>]>,
) {
    let samples = source.series(labels.clone());
    let start =
        |at: usize, time: i64| starts.and_then(|starts| *starts.get(at)?).map_or(0, |offset| time + offset);
    for (at, item) in items.iter().enumerate() {
        let time = at as i64 * interval;
        match item {
            Item::Omitted => {}
            Item::Float(value) => {
                let times = Arc::make_mut(&mut samples.timestamps);
                let position = times.partition_point(|known| *known < time);
                if times.get(position) == Some(&time) {
                    samples.values[position] = *value;
                    samples.start_timestamps[position] = start(at, time);
                } else {
                    times.insert(position, time);
                    samples.values.insert(position, *value);
                    samples.start_timestamps.insert(position, start(at, time));
                }
            }
            Item::Histogram(histogram, _) => {
                let position = samples.histogram_timestamps.partition_point(|known| *known <= time);
                samples.histogram_timestamps.insert(position, time);
                samples.histograms.insert(position, histogram.clone());
                samples.histogram_start_timestamps.insert(position, start(at, time));
            }
        }
    }
    hint(&mut samples.histograms);
}

/// Says of counters that they were not reset, as Prometheus' storage does when it is read: the hints of the
/// first sample and of one after a reset stay unknown.
fn hint(histograms: &mut [Arc<Histogram>]) {
    for at in 1..histograms.len() {
        let (before, now) = (&histograms[at - 1], &histograms[at]);
        let known = now.reset_hint != ResetHint::Unknown || before.reset_hint == ResetHint::Gauge;
        if !known && !is_stale(before.sum) && !is_stale(now.sum) && !now.is_reset_after(before) {
            Arc::make_mut(&mut histograms[at]).reset_hint = ResetHint::NotReset;
        }
    }
}

/// The parts of one classic histogram at one position: cumulative buckets, count, sum.
#[derive(Clone, Default)]
struct Classic {
    buckets: BTreeMap<u64, (f64, f64)>,
    count: Option<f64>,
    sum: f64,
}

/// Classic histograms of a load as native ones with custom bounds.
fn native(loaded: &[(Labels, Vec<Item>)]) -> Vec<(Labels, Vec<Item>)> {
    let mut groups: BTreeMap<Labels, Vec<Option<Classic>>> = BTreeMap::new();
    for (labels, items) in loaded {
        let name = labels.metric_name();
        let Some((base, part)) =
            ["_bucket", "_count", "_sum"].iter().find_map(|part| Some((name.strip_suffix(part)?, *part)))
        else {
            continue;
        };
        let bound = labels.get("le").parse::<f64>();
        if part == "_bucket" && bound.is_err() {
            continue;
        }
        let key = labels.with(METRIC_NAME, base).with("le", "");
        let group = groups.entry(key).or_default();
        group.resize(group.len().max(items.len()), None);
        for (slot, item) in group.iter_mut().zip(items) {
            let Item::Float(value) = item else { continue };
            let slot = slot.get_or_insert_default();
            match (part, &bound) {
                ("_bucket", Ok(bound)) => {
                    // Bits of floats with the sign turned are ordered as the floats are.
                    let bits = bound.to_bits();
                    let order = if bits >> 63 == 1 { !bits } else { bits | 1 << 63 };
                    slot.buckets.insert(order, (*bound, *value));
                }
                ("_count", _) => slot.count = Some(*value),
                _ => slot.sum = *value,
            }
        }
    }
    let convert = |classic: Option<Classic>| {
        let Some(classic) = classic.filter(|classic| !classic.buckets.is_empty()) else {
            return Item::Omitted;
        };
        Item::Histogram(Arc::new(from_classic(&classic)), false)
    };
    groups.into_iter().map(|(labels, group)| (labels, group.into_iter().map(convert).collect())).collect()
}

fn from_classic(classic: &Classic) -> Histogram {
    let buckets: Vec<(f64, f64)> = classic.buckets.values().copied().collect();
    let bounds: Vec<f64> =
        buckets.iter().map(|(bound, _)| *bound).filter(|bound| bound.is_finite()).collect();
    let last = buckets.last().map_or(0.0, |(_, count)| *count);
    let total = buckets.iter().find(|(bound, _)| *bound == f64::INFINITY).map(|(_, count)| *count);
    let count = classic.count.or(total).unwrap_or(last);
    let mut histogram = Histogram {
        schema: CUSTOM_BUCKETS,
        count,
        sum: classic.sum,
        custom_bounds: bounds.into(),
        ..Histogram::default()
    };
    let mut below = 0.0;
    let mut positive = Buckets::default();
    let cumulative = buckets.iter().filter(|(bound, _)| bound.is_finite()).map(|(_, count)| *count);
    for (index, count) in cumulative.chain([total.unwrap_or(count)]).enumerate() {
        if count != below {
            positive.index.push(index as i32);
            positive.count.push(count - below);
        }
        below = count;
    }
    histogram.positive = positive;
    histogram
}
