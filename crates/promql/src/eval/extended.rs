//! `anchored` and `smoothed` ranges, and `resets` and `changes`, which know the former.

use std::sync::Arc;

use super::{
    rate::{Kind, add, interpolate_histogram, is_start_reset, subtract},
    windows::Window,
};
use crate::{
    annotations::Annotations,
    histogram::{Histogram, ResetHint},
    parser::Edges,
    value::Sample,
};

/// The value between two samples; a counter that falls is taken to have begun at zero.
pub(super) fn interpolate(before: (i64, f64), after: (i64, f64), time: i64, counter: bool) -> f64 {
    let from = if counter && after.1 < before.1 { 0.0 } else { before.1 };
    from + (after.1 - from) * (time - before.0) as f64 / (after.0 - before.0) as f64
}

/// First and last sample that count for a range: the one before its beginning, and with `smoothed` the one
/// after its end.
fn span(times: &[i64], from: i64, to: i64, smoothed: bool) -> Option<(usize, usize)> {
    let mut last = times.len().checked_sub(1)?;
    let first = times[..last].partition_point(|time| *time <= from).saturating_sub(1);
    if smoothed {
        last = times[..last].partition_point(|time| *time < to);
    }
    (times[last] > from && !(smoothed && times[first] > to)).then_some((first, last))
}

fn edges(
    (times, values): (&[i64], &[f64]),
    (first, last): (usize, usize),
    (from, to): (i64, i64),
    smoothed: bool,
    counter: bool,
) -> (f64, f64) {
    let point = |at: usize| (times[at], values[at]);
    let left = if smoothed && times[first] < from {
        interpolate(point(first), point(first + 1), from, counter)
    } else {
        values[first]
    };
    let right = if smoothed && last > 0 && times[last] > to {
        interpolate(point(last - 1), point(last), to, counter)
    } else {
        values[last]
    };
    (left, right)
}

/// Samples of a range with values at its edges.
pub(super) fn with_edges(floats: &[(i64, f64)], from: i64, to: i64, smoothed: bool) -> Vec<(i64, f64)> {
    let (times, values): (Vec<i64>, Vec<f64>) = floats.iter().copied().unzip();
    let Some(mut last) = times.len().checked_sub(1) else { return Vec::new() };
    let first = times[..last].partition_point(|time| *time <= from).saturating_sub(1);
    if smoothed {
        last = times[..last].partition_point(|time| *time < to);
    }
    if times[last] <= from {
        return Vec::new();
    }
    let (left, right) = edges((&times, &values), (first, last), (from, to), smoothed, false);
    let inner = floats[first..=last].iter().filter(|(time, _)| *time > from && *time < to);
    [(from, left)].into_iter().chain(inner.copied()).chain([(to, right)]).collect()
}

pub(super) fn extended_floats(window: &Window<'_>, kind: Kind) -> Option<Sample> {
    let smoothed = window.edges == Edges::Smoothed;
    let (mut first, last) = span(window.times, window.from, window.to, smoothed)?;
    let range = (window.from, window.to);
    let (left, right) =
        edges((window.times, window.values), (first, last), range, smoothed, kind.is_counter());
    let mut result = right - left;
    if kind.is_counter() {
        if window.times[first] <= window.from {
            first += 1;
        }
        let end = if window.times[last] >= window.to { last } else { last + 1 };
        let mut previous = left;
        for &value in window.values.get(first..end).unwrap_or(&[]).iter().chain([&right]) {
            if value < previous {
                result += previous;
            }
            previous = value;
        }
    }
    if kind == Kind::Rate {
        result /= window.range as f64 / 1000.0;
    }
    Some(Sample::Float(result))
}

pub(super) fn extended_histograms(
    window: &Window<'_>,
    kind: Kind,
    notes: &mut Annotations,
) -> Option<Sample> {
    let smoothed = window.edges == Edges::Smoothed;
    let counter = kind.is_counter();
    let (times, points) = (window.histogram_times, window.histograms);
    let (name, pos) = (window.labels.metric_name(), window.pos);
    let (first, last) = span(times, window.from, window.to, smoothed)?;
    let custom = points[0].has_custom_bounds();
    for point in &points[first..=last] {
        if point.has_custom_bounds() != points[first].has_custom_bounds()
            || point.has_custom_bounds() != custom
        {
            notes.mixed_exponential_custom(name, pos);
            return None;
        }
        if counter {
            notes.not_counter(point.reset_hint, name, pos);
        }
    }
    let point = |at: usize| (times[at], &*points[at]);
    let between = |at: usize, time: i64, notes: &mut Annotations| {
        interpolate_histogram((point(at), point(at + 1)), time, counter, notes, pos)
    };
    let left = if smoothed && times[first] < window.from {
        between(first, window.from, notes)
    } else {
        Ok((*points[first]).clone())
    };
    let right = if smoothed && last > 0 && times[last] > window.to {
        between(last - 1, window.to, notes)
    } else {
        Ok((*points[last]).clone())
    };
    let (Ok(left), Ok(right)) = (left, right) else {
        notes.mixed_exponential_custom(name, pos);
        return None;
    };
    if !counter && (left.reset_hint != ResetHint::Gauge || right.reset_hint != ResetHint::Gauge) {
        notes.not_gauge(name, pos);
    }
    let mut result = right.clone();
    if !subtract(&mut result, &left, notes, name, pos) {
        return None;
    }
    if counter {
        let mut next = first + 1;
        let mut previous: &Histogram = &left;
        if smoothed && times[first] < window.from && points[first + 1].is_reset_after(&points[first]) {
            previous = &points[first + 1];
            next += 1;
        }
        let mut correction: Option<Histogram> = None;
        if next <= last {
            let inner = points[next..last].iter().map(|point| &**point);
            for point in inner.chain([&right]) {
                if point.is_reset_after(previous) {
                    match &mut correction {
                        None => correction = Some(previous.clone()),
                        Some(sum) => {
                            if !add(sum, previous, notes, name, pos) {
                                return None;
                            }
                        }
                    }
                }
                previous = point;
            }
        }
        if let Some(correction) = correction
            && !add(&mut result, &correction, notes, name, pos)
        {
            return None;
        }
    }
    if kind == Kind::Rate {
        result.divide(window.range as f64 / 1000.0);
    }
    result.reset_hint = ResetHint::Gauge;
    result.compact();
    Some(Sample::Histogram(Arc::new(result)))
}

/// A sample in a window of floats and histograms.
#[derive(Clone, Copy)]
enum Point<'a> {
    Float(f64),
    Histogram(&'a Histogram),
}

/// Walks through floats and histograms in order of time; counts pairs of neighbours.
fn count_pairs(window: &Window<'_>, counts: impl Fn(Point<'_>, Point<'_>, bool) -> bool) -> Option<Sample> {
    let (mut float, mut histogram) = (0, 0);
    if window.edges == Edges::Anchored {
        let before = |times: &[i64]| times.partition_point(|time| *time <= window.from);
        let (floats, histograms) = (before(window.times), before(window.histogram_times));
        if floats >= window.times.len() && histograms >= window.histogram_times.len() {
            return None;
        }
        (float, histogram) = match (floats.checked_sub(1), histograms.checked_sub(1)) {
            (None, None) => (0, 0),
            (Some(at), None) => (at, histograms),
            (None, Some(at)) => (floats, at),
            (Some(f), Some(h)) if window.times[f] >= window.histogram_times[h] => (f, histograms),
            (Some(_), Some(h)) => (floats, h),
        };
    }
    let mut previous: Option<(Point<'_>, i64, i64)> = None;
    let mut count = 0.0;
    let start = |starts: &[i64], at: usize| starts.get(at).copied().unwrap_or(0);
    loop {
        let (point, time, began) = match (window.times.get(float), window.histogram_times.get(histogram)) {
            (None, None) => return Some(Sample::Float(count)),
            (Some(time), other) if other.is_none_or(|other| time <= other) => {
                float += 1;
                (Point::Float(window.values[float - 1]), *time, start(window.starts, float - 1))
            }
            (_, time) => {
                histogram += 1;
                let began = start(window.histogram_starts, histogram - 1);
                let time = time.copied().unwrap_or_default();
                (Point::Histogram(&window.histograms[histogram - 1]), time, began)
            }
        };
        if let Some((before, before_time, before_start)) = previous {
            let reset = is_start_reset(&[before_start, began], &[before_time, time], 1);
            if counts(before, point, reset) {
                count += 1.0;
            }
        }
        previous = Some((point, time, began));
    }
}

pub(super) fn resets(window: &Window<'_>) -> Option<Sample> {
    count_pairs(window, |before, now, reset| match (before, now) {
        (Point::Float(before), Point::Float(now)) => now < before || reset,
        (Point::Histogram(before), Point::Histogram(now)) => reset || now.is_reset_after(before),
        _ => true,
    })
}

pub(super) fn changes(window: &Window<'_>) -> Option<Sample> {
    count_pairs(window, |before, now, _| match (before, now) {
        (Point::Float(before), Point::Float(now)) => now != before && !(now.is_nan() && before.is_nan()),
        (Point::Histogram(before), Point::Histogram(now)) => !now.same(before),
        _ => true,
    })
}
