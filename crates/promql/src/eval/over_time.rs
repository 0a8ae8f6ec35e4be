//! `…_over_time` and the other functions that reduce a window to one value.

use std::sync::Arc;

use super::{
    Result,
    windows::{RangeFn, Window},
};
use crate::{
    annotations::{Annotations, Operation},
    engine::Error,
    histogram::{Compensation, Histogram, Incompatible, ResetHint},
    kahan::{Kahan, Mean},
    value::Sample,
};

/// The function of a name, if it reduces a window.
pub(super) fn function(name: &str) -> Option<RangeFn> {
    Some(match name {
        "sum_over_time" => |window, notes| Ok(sum(window, notes)),
        "avg_over_time" => |window, notes| Ok(average(window, notes)),
        "count_over_time" => |window, _| float((window.values.len() + window.histograms.len()) as f64),
        "present_over_time" | "absent_over_time" => |_, _| float(1.0),
        "min_over_time" => |window, notes| {
            Ok(floats(window, notes).map(|()| extreme(window.values, |value, best| value < best)))
        },
        "max_over_time" => |window, notes| {
            Ok(floats(window, notes).map(|()| extreme(window.values, |value, best| value > best)))
        },
        "ts_of_min_over_time" => {
            |window, notes| Ok(floats(window, notes).map(|()| best_time(window, |value, best| value <= best)))
        }
        "ts_of_max_over_time" => {
            |window, notes| Ok(floats(window, notes).map(|()| best_time(window, |value, best| value >= best)))
        }
        "first_over_time" => |window, _| Ok(first(window)),
        "last_over_time" => |window, _| Ok(last(window)),
        "ts_of_first_over_time" => |window, _| {
            let first = window.times.first().into_iter().chain(window.histogram_times.first()).min();
            Ok(first.map(|time| Sample::Float(*time as f64 / 1000.0)))
        },
        "ts_of_last_over_time" => |window, _| {
            let last = window.times.last().into_iter().chain(window.histogram_times.last()).max();
            Ok(last.map(|time| Sample::Float(*time as f64 / 1000.0)))
        },
        "stddev_over_time" => {
            |window, notes| Ok(floats(window, notes).map(|()| Sample::Float(variance(window.values).sqrt())))
        }
        "stdvar_over_time" => {
            |window, notes| Ok(floats(window, notes).map(|()| Sample::Float(variance(window.values))))
        }
        "mad_over_time" => {
            |window, notes| Ok(floats(window, notes).map(|()| Sample::Float(median_deviation(window.values))))
        }
        "quantile_over_time" => |window, notes| {
            if window.values.is_empty() {
                return Ok(None);
            }
            let q = window.scalars[0];
            if q.is_nan() || !(0.0..=1.0).contains(&q) {
                notes.invalid_quantile(q, window.pos);
            }
            floats(window, notes);
            float(quantile(q, &mut window.values.to_vec()))
        },
        "deriv" => |window, notes| {
            Ok(two_floats(window, notes)
                .map(|()| Sample::Float(regression(window.times, window.values, window.times[0]).0)))
        },
        "predict_linear" => |window, notes| {
            Ok(two_floats(window, notes).map(|()| {
                let (slope, intercept) = regression(window.times, window.values, window.now);
                Sample::Float(slope * window.scalars[0] + intercept)
            }))
        },
        "double_exponential_smoothing" => smoothing,
        _ => return None,
    })
}

#[allow(clippy::unnecessary_wraps, reason = "the form of all range functions")]
fn float(value: f64) -> Result<Option<Sample>> {
    Ok(Some(Sample::Float(value)))
}

/// Whether there are floats; histograms beside them are told to be ignored.
fn floats(window: &Window<'_>, notes: &mut Annotations) -> Option<()> {
    if window.values.is_empty() {
        return None;
    }
    if !window.histograms.is_empty() {
        notes.ignored_in_mixed_range(window.labels.metric_name(), window.pos);
    }
    Some(())
}

fn two_floats(window: &Window<'_>, notes: &mut Annotations) -> Option<()> {
    floats(window, notes)?;
    (window.values.len() >= 2).then_some(())
}

/// The best value; NaN gives way to any other.
fn extreme(values: &[f64], better: impl Fn(f64, f64) -> bool) -> Sample {
    let best = values.iter().copied().reduce(
        |best, value| {
            if better(value, best) || best.is_nan() { value } else { best }
        },
    );
    Sample::Float(best.unwrap_or(f64::NAN))
}

/// The last time of the best value.
fn best_time(window: &Window<'_>, better: impl Fn(f64, f64) -> bool) -> Sample {
    let mut at = 0;
    for (position, &value) in window.values.iter().enumerate() {
        if better(value, window.values[at]) || window.values[at].is_nan() {
            at = position;
        }
    }
    Sample::Float(window.times[at] as f64 / 1000.0)
}

fn first(window: &Window<'_>) -> Option<Sample> {
    match (window.times.first(), window.histogram_times.first()) {
        (Some(float), histogram) if histogram.is_none_or(|histogram| float < histogram) => {
            Some(Sample::Float(window.values[0]))
        }
        _ => window.histograms.first().cloned().map(Sample::Histogram),
    }
}

fn last(window: &Window<'_>) -> Option<Sample> {
    match (window.times.last(), window.histogram_times.last()) {
        (Some(float), histogram) if histogram.is_none_or(|histogram| histogram < float) => {
            window.values.last().copied().map(Sample::Float)
        }
        _ => window.histograms.last().cloned().map(Sample::Histogram),
    }
}

fn mixed(window: &Window<'_>, notes: &mut Annotations) -> bool {
    let mixed = !window.values.is_empty() && !window.histograms.is_empty();
    if mixed {
        notes.mixed_floats_histograms(window.labels.metric_name(), window.pos);
    }
    mixed
}

fn sum(window: &Window<'_>, notes: &mut Annotations) -> Option<Sample> {
    if mixed(window, notes) {
        return None;
    }
    if window.values.is_empty() {
        return histogram_sum(window, notes, false);
    }
    let mut sum = Kahan::default();
    window.values.iter().for_each(|value| sum.add(*value));
    Some(Sample::Float(if sum.sum.is_infinite() { sum.sum } else { sum.total() }))
}

fn average(window: &Window<'_>, notes: &mut Annotations) -> Option<Sample> {
    if mixed(window, notes) {
        return None;
    }
    let Some((first, rest)) = window.values.split_first() else {
        return histogram_sum(window, notes, true);
    };
    let mut mean = Mean::new(*first);
    rest.iter().for_each(|value| mean.add(*value));
    Some(Sample::Float(mean.mean()))
}

fn histogram_sum(window: &Window<'_>, notes: &mut Annotations, average: bool) -> Option<Sample> {
    let (first, rest) = window.histograms.split_first()?;
    let mut sum = HistogramSum::new(first);
    let mut result = Ok(());
    for histogram in rest {
        result = if average { sum.add_to_mean(histogram) } else { sum.add(histogram) };
        if result.is_err() {
            break;
        }
    }
    if result.is_err() {
        notes.mixed_exponential_custom(window.labels.metric_name(), window.pos);
        return None;
    }
    sum.tell(notes, window.pos);
    let sum = if average { sum.mean() } else { sum.total() };
    Some(Sample::Histogram(Arc::new(sum)))
}

#[allow(clippy::struct_excessive_bools, reason = "each is a fact of its own")]
/// A running sum or mean of histograms, and what the reader should know about it.
#[derive(Clone, Debug)]
pub(super) struct HistogramSum {
    sum: Histogram,
    lost: Option<Compensation>,
    count: f64,
    incremental: bool,
    reset: bool,
    not_reset: bool,
    reconciled: bool,
}

impl HistogramSum {
    pub fn new(first: &Histogram) -> Self {
        let mut sum = Self {
            sum: first.clone(),
            lost: None,
            count: 1.0,
            incremental: false,
            reset: false,
            not_reset: false,
            reconciled: false,
        };
        sum.track(first);
        sum
    }

    fn track(&mut self, histogram: &Histogram) {
        self.reset |= histogram.reset_hint == ResetHint::Reset;
        self.not_reset |= histogram.reset_hint == ResetHint::NotReset;
    }

    pub fn add(&mut self, histogram: &Histogram) -> std::result::Result<(), Incompatible> {
        self.track(histogram);
        self.count += 1.0;
        self.reconciled |= self.sum.add_kahan(histogram, &mut self.lost)?.bounds_reconciled;
        Ok(())
    }

    /// As [`Self::add`], but the sum stays finite where the mean is.
    pub fn add_to_mean(&mut self, histogram: &Histogram) -> std::result::Result<(), Incompatible> {
        if !self.incremental {
            let before = self.clone();
            self.add(histogram)?;
            if !self.sum.has_overflow() {
                return Ok(());
            }
            let (reset, not_reset) = (self.reset, self.not_reset);
            *self = Self { reset, not_reset, incremental: true, ..before };
            self.sum.divide(self.count);
            if let Some(lost) = &mut self.lost {
                lost.scale(1.0 / self.count);
            }
        }
        self.track(histogram);
        self.count += 1.0;
        let weight = (self.count - 1.0) / self.count;
        self.sum.scale(weight);
        if let Some(lost) = &mut self.lost {
            lost.scale(weight);
        }
        let mut part = histogram.clone();
        part.divide(self.count);
        self.reconciled |= self.sum.add_kahan(&part, &mut self.lost)?.bounds_reconciled;
        Ok(())
    }

    /// Takes another sum's histograms in.
    pub fn merge(&mut self, other: &Self) -> std::result::Result<(), Incompatible> {
        self.reset |= other.reset;
        self.not_reset |= other.not_reset;
        self.reconciled |= other.reconciled;
        let count = self.count + other.count;
        let mut part = other.sum.clone();
        if let Some(lost) = &other.lost {
            part.compensate(lost);
        }
        if self.incremental || other.incremental {
            let mine = std::mem::replace(self, other.clone());
            let Self { reset, not_reset, reconciled, .. } = mine;
            let share = mine.count / count;
            let mut sum = mine.mean();
            sum.scale(share);
            let mut part = other.clone().mean();
            part.scale(other.count / count);
            *self = Self { sum, lost: None, count, incremental: true, reset, not_reset, reconciled };
            self.sum.add(&part)?;
            return Ok(());
        }
        self.reconciled |= self.sum.add_kahan(&part, &mut self.lost)?.bounds_reconciled;
        self.count = count;
        Ok(())
    }

    pub fn total(mut self) -> Histogram {
        if let Some(lost) = &self.lost {
            self.sum.compensate(lost);
        }
        self.sum
    }

    pub fn mean(mut self) -> Histogram {
        if !self.incremental {
            self.sum.divide(self.count);
            if let Some(lost) = &mut self.lost {
                lost.scale(1.0 / self.count);
            }
        }
        self.total()
    }

    pub fn tell(&self, notes: &mut Annotations, pos: crate::parser::Pos) {
        if self.reset && self.not_reset {
            notes.reset_collision(Operation::Aggregation, pos);
        }
        if self.reconciled {
            notes.bounds_reconciled(Operation::Aggregation, pos);
        }
    }
}

fn variance(values: &[f64]) -> f64 {
    let (mut count, mut mean, mut squares) = (0.0, Kahan::default(), Kahan::default());
    for &value in values {
        count += 1.0;
        let delta = value - mean.total();
        mean.add(delta / count);
        squares.add(delta * (value - mean.total()));
    }
    squares.total() / count
}

/// Quantile with interpolation; sorts the values, NaN first.
pub(super) fn quantile(q: f64, values: &mut [f64]) -> f64 {
    if values.is_empty() || q.is_nan() {
        return f64::NAN;
    }
    if q < 0.0 {
        return f64::NEG_INFINITY;
    }
    if q > 1.0 {
        return f64::INFINITY;
    }
    values.sort_unstable_by(|a, b| match (a.is_nan(), b.is_nan()) {
        (false, false) => a.total_cmp(b),
        (a, b) => b.cmp(&a),
    });
    let last = (values.len() - 1) as f64;
    let rank = q * last;
    let lower = rank.floor().max(0.0);
    let upper = (lower + 1.0).min(last);
    let weight = rank - rank.floor();
    values[lower as usize] * (1.0 - weight) + values[upper as usize] * weight
}

fn median_deviation(values: &[f64]) -> f64 {
    if values.iter().any(|value| value.is_nan()) {
        return f64::NAN;
    }
    let mut values = values.to_vec();
    let median = quantile(0.5, &mut values);
    values.iter_mut().for_each(|value| *value = (*value - median).abs());
    quantile(0.5, &mut values)
}

/// Slope and intercept at `origin` of the straight line through the samples.
fn regression(times: &[i64], values: &[f64], origin: i64) -> (f64, f64) {
    let first = values[0];
    if values.iter().all(|value| *value == first) {
        return if first.is_infinite() { (f64::NAN, f64::NAN) } else { (0.0, first) };
    }
    let [mut x_sum, mut y_sum, mut xy_sum, mut xx_sum] = [Kahan::default(); 4];
    for (&time, &y) in times.iter().zip(values) {
        let x = (time - origin) as f64 / 1e3;
        x_sum.add(x);
        y_sum.add(y);
        xy_sum.add(x * y);
        xx_sum.add(x * x);
    }
    let n = values.len() as f64;
    let [x, y, xy, xx] = [x_sum, y_sum, xy_sum, xx_sum].map(Kahan::total);
    let slope = (xy - x * y / n) / (xx - x * x / n);
    (slope, y / n - slope * x / n)
}

fn smoothing(window: &Window<'_>, notes: &mut Annotations) -> Result<Option<Sample>> {
    let (smoothing, trend) = (window.scalars[0], window.scalars[1]);
    for (value, name, short) in [(smoothing, "smoothing", "sf"), (trend, "trend", "tf")] {
        if value <= 0.0 || value >= 1.0 {
            let message = format!("invalid {name} factor. Expected: 0 < {short} < 1, got: {value:.6}");
            return Err(Error::execution(message));
        }
    }
    if two_floats(window, notes).is_none() {
        return Ok(None);
    }
    let values = window.values;
    let (mut before, mut level, mut slope) = (0.0, values[0], values[1] - values[0]);
    for (at, value) in values.iter().enumerate().skip(1) {
        if at > 1 {
            slope = trend * (level - before) + (1.0 - trend) * slope;
        }
        let next = smoothing * value + (1.0 - smoothing) * (level + slope);
        (before, level) = (level, next);
    }
    float(level)
}
