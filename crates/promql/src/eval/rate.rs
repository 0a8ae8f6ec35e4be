//! `rate`, `increase`, `delta`, `irate`, `idelta`.

use std::sync::Arc;

use hashbrown::HashMap;

use super::{
    Bits, Column, Lookup, Result, Steps,
    extended::{extended_floats, extended_histograms},
    selector::advance,
    windows::Window,
};
use crate::{
    annotations::{Annotations, Operation},
    histogram::{Histogram, Incompatible, ResetHint},
    parser::{Edges, Pos},
    source::is_stale,
    value::Sample,
};

/// Which of the extrapolating functions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Rate,
    Increase,
    Delta,
}

impl Kind {
    pub fn of(name: &str) -> Option<Self> {
        match name {
            "rate" => Some(Self::Rate),
            "increase" => Some(Self::Increase),
            "delta" => Some(Self::Delta),
            _ => None,
        }
    }

    pub fn is_counter(self) -> bool {
        self != Self::Delta
    }

    /// A series of floats at all steps. Where a counter falls is found beforehand: a window then costs the same
    /// however many samples it holds.
    pub fn floats(self, values: &[f64], plan: &Plan, falls: &[usize], column: &mut Column) {
        let mut fall = 0;
        for (window, float) in plan.windows.iter().zip(&mut column.floats) {
            let (from, to) = (window.from as usize, window.to as usize);
            if to - from < 2 {
                continue;
            }
            let first = values[from];
            let mut result = values[to - 1] - first;
            if !falls.is_empty() {
                while falls.get(fall).is_some_and(|at| *at <= from) {
                    fall += 1;
                }
                for &at in falls[fall..].iter().take_while(|at| **at < to) {
                    result += values[at - 1];
                }
            }
            let PlannedWindow { to_start, sampled, mut factor, .. } = *window;
            // A counter that would have been 0 within the window began there. Where it is far from that the
            // division is spared; what is added and multiplied is more than rounding can take.
            let is_far = first * sampled > to_start * result * 1.000_000_1 + f64::MIN_POSITIVE;
            if self.is_counter() && result > 0.0 && first >= 0.0 && !is_far {
                let to_start = to_start.min(sampled * (first / result));
                factor = finish(self, sampled, to_start, window.to_end, plan.range);
            }
            *float = result * factor;
        }
        column.present.copy_from(&plan.present);
    }
}

/// Finds the positions at which values are smaller than the one before; false if there is a stale marker, with
/// which they are not found. Both are rare: blocks without are passed over, and a comparison with NaN tells of
/// markers too.
pub(super) fn find_falls(values: &[f64], falls: &mut Vec<usize>) -> bool {
    const BLOCK: usize = 64;
    if values.first().is_some_and(|first| is_stale(*first)) {
        return false;
    }
    let mut start = 1;
    while start < values.len() {
        let end = (start + BLOCK).min(values.len());
        let pairs = || values[start - 1..end - 1].iter().zip(&values[start..end]);
        let rises = pairs().map(|(before, now)| u64::from(now >= before)).sum::<u64>();
        if rises < (end - start) as u64 {
            if values[start..end].iter().any(|value| is_stale(*value)) {
                return false;
            }
            let inside = pairs().enumerate().filter(|(_, (before, now))| now < before);
            falls.extend(inside.map(|(at, _)| start + at));
        }
        start = end;
    }
    true
}

/// Most that plans may hold, 8 bytes each.
const MAX_WORDS: usize = 1 << 19;

/// Plans of the times met so far: series of one target share their times and so the plan, but do not follow one
/// another.
#[derive(Default)]
pub(super) struct Plans {
    /// By the place of the times in memory, where they stay as long as the plan holds them.
    known: HashMap<*const Vec<i64>, Plan>,
    words: usize,
}

impl Plans {
    /// The plan of these times; function, steps and range are always the same.
    pub fn of(
        &mut self,
        times: &Arc<Vec<i64>>,
        kind: Kind,
        steps: &Steps,
        lookup: Lookup,
        range: i64,
    ) -> &Plan {
        let place = Arc::as_ptr(times);
        if !self.known.contains_key(&place) {
            let words = times.len() + (steps.count + 4) * size_of::<PlannedWindow>() / 8;
            if self.words + words > MAX_WORDS {
                self.known.clear();
                self.words = 0;
            }
            self.words += words;
        }
        self.known.entry(place).or_insert_with(|| Plan::new(times, kind, steps, lookup, range))
    }
}

/// Windows of all steps over one series' times.
pub(super) struct Plan {
    /// Kept so that no others come to stand in their place.
    _times: Arc<Vec<i64>>,
    /// The samples that any window sees.
    pub inside: std::ops::Range<usize>,
    /// How many all windows see together.
    pub seen: usize,
    range: i64,
    windows: Vec<PlannedWindow>,
    /// Steps at which there is a result.
    present: Bits,
}

impl Plan {
    fn new(times: &Arc<Vec<i64>>, kind: Kind, steps: &Steps, lookup: Lookup, range: i64) -> Self {
        let (first, last) = lookup.span(steps);
        let start = times.partition_point(|time| *time <= first - range);
        let inside = start..start + times[start..].partition_point(|time| *time <= last);
        let mut windows = Vec::with_capacity(steps.count);
        let mut present = Bits::new(steps.count);
        let (mut from, mut to, mut seen) = (0, 0, 0);
        let within = &times[inside.clone()];
        for step in 0..steps.count {
            let end = lookup.time(steps.time(step));
            from = advance(within, from, end - range);
            to = advance(within, to.max(from), end);
            seen += to - from;
            if to - from < 2 {
                let (from, to) = (from as u32, to as u32);
                windows.push(PlannedWindow { from, to, ..PlannedWindow::default() });
                continue;
            }
            present.set(step);
            windows.push(PlannedWindow::new(&within[from..to], from, kind, end - range, end));
        }
        Self { _times: times.clone(), inside, seen, range, windows, present }
    }

    /// Samples that the window of each step sees.
    pub fn seen_by_step(&self) -> impl Iterator<Item = (usize, usize)> + '_ {
        self.windows.iter().map(|window| (window.to - window.from) as usize).enumerate()
    }

    /// Whether any step has a result.
    pub fn any(&self) -> bool {
        self.present.any()
    }
}

/// A window's samples, how far it is extrapolated (seconds), and by what the difference of the samples is
/// multiplied unless the counter began within.
#[derive(Clone, Copy, Default)]
struct PlannedWindow {
    from: u32,
    to: u32,
    sampled: f64,
    to_start: f64,
    to_end: f64,
    factor: f64,
}

impl PlannedWindow {
    /// Of a window with at least two samples, the first of which is number `from`.
    fn new(times: &[i64], from: usize, kind: Kind, start: i64, end: i64) -> Self {
        let (first, last) = (times[0], times[times.len() - 1]);
        let mut to_start = (first - start) as f64 / 1000.0;
        let mut to_end = (end - last) as f64 / 1000.0;
        let sampled = (last - first) as f64 / 1000.0;
        let average = sampled / (times.len() - 1) as f64;
        let threshold = average * 1.1;
        if to_start >= threshold {
            to_start = average / 2.0;
        }
        if to_end >= threshold {
            to_end = average / 2.0;
        }
        let factor = finish(kind, sampled, to_start, to_end, end - start);
        Self { from: from as u32, to: (from + times.len()) as u32, sampled, to_start, to_end, factor }
    }
}

/// By what the difference of a window's samples is multiplied.
#[inline]
fn finish(kind: Kind, sampled: f64, to_start: f64, to_end: f64, range: i64) -> f64 {
    let factor = if sampled == 0.0 { 1.0 } else { (sampled + to_start + to_end) / sampled };
    if kind == Kind::Rate { factor / (range as f64 / 1000.0) } else { factor }
}

#[allow(clippy::unnecessary_wraps, reason = "the form of all range functions")]
/// Any window: floats, histograms, start times.
pub(super) fn extrapolated(
    window: &Window<'_>,
    kind: Kind,
    notes: &mut Annotations,
) -> Result<Option<Sample>> {
    let name = window.labels.metric_name();
    if !window.times.is_empty() && !window.histogram_times.is_empty() {
        notes.mixed_floats_histograms(name, window.pos);
        return Ok(None);
    }
    if window.edges != Edges::Plain {
        return Ok(if window.histogram_times.is_empty() {
            extended_floats(window, kind)
        } else {
            extended_histograms(window, kind, notes)
        });
    }
    let floats = window.histogram_times.is_empty();
    let (times, starts) = if floats {
        (window.times, window.starts)
    } else {
        (window.histogram_times, window.histogram_starts)
    };
    let (Some(&first), Some(&last)) = (times.first(), times.last()) else { return Ok(None) };
    let mut number = 0.0;
    let mut histogram: Option<Histogram> = None;
    if floats {
        let values = window.values;
        number = values[values.len() - 1] - values[0];
        if kind.is_counter() {
            let mut overlap = false;
            for at in 1..values.len() {
                if !overlap && is_overlap(starts, times, at) {
                    notes.start_time_overlap(name, window.pos);
                    overlap = true;
                }
                if values[at] < values[at - 1] || is_start_reset(starts, times, at) {
                    number += values[at - 1];
                }
            }
        }
    } else if times.len() > 1 {
        histogram = histogram_difference(window, kind, notes);
        if histogram.is_none() {
            return Ok(None);
        }
    }
    let factor = match starts.first() {
        Some(&began) if kind.is_counter() && began != 0 && began > window.from && began < first => {
            if floats {
                number += window.values[0];
            } else if let Some(sum) = &mut histogram {
                if !add(sum, &window.histograms[0], notes, name, window.pos) {
                    return Ok(None);
                }
            } else {
                histogram = Some((*window.histograms[0]).clone());
            }
            let sampled = (last - began) as f64 / 1000.0;
            let mut to_end = (window.to - last) as f64 / 1000.0;
            let average =
                if times.len() > 1 { (last - first) as f64 / 1000.0 / (times.len() - 1) as f64 } else { 0.0 };
            if to_end >= average * 1.1 {
                to_end = average / 2.0;
            }
            finish(kind, sampled, 0.0, to_end, window.range)
        }
        _ if times.len() < 2 => return Ok(None),
        _ => {
            let zero = match (&histogram, kind.is_counter()) {
                (None, true) if number > 0.0 && window.values[0] >= 0.0 => Some(window.values[0] / number),
                (Some(sum), true) if sum.count > 0.0 && window.histograms[0].count >= 0.0 => {
                    Some(window.histograms[0].count / sum.count)
                }
                _ => None,
            };
            let ends = PlannedWindow::new(times, 0, kind, window.from, window.to);
            let to_start = zero.map_or(ends.to_start, |zero| ends.to_start.min(ends.sampled * zero));
            finish(kind, ends.sampled, to_start, ends.to_end, window.range)
        }
    };
    Ok(Some(match histogram {
        None => Sample::Float(number * factor),
        Some(mut histogram) => {
            histogram.scale(factor);
            Sample::Histogram(Arc::new(histogram))
        }
    }))
}

/// Adds, telling the reader what he should know; false if the two do not go together.
pub(super) fn add(
    sum: &mut Histogram,
    other: &Histogram,
    notes: &mut Annotations,
    name: &str,
    pos: Pos,
) -> bool {
    match sum.add(other) {
        Err(Incompatible) => notes.mixed_exponential_custom(name, pos),
        Ok(told) if told.bounds_reconciled => notes.bounds_reconciled(Operation::Addition, pos),
        Ok(_) => return true,
    }
    sum.has_custom_bounds() == other.has_custom_bounds()
}

/// As [`add`], the other way.
pub(super) fn subtract(
    from: &mut Histogram,
    other: &Histogram,
    notes: &mut Annotations,
    name: &str,
    pos: Pos,
) -> bool {
    match from.subtract(other) {
        Err(Incompatible) => notes.mixed_exponential_custom(name, pos),
        Ok(told) if told.bounds_reconciled => notes.bounds_reconciled(Operation::Subtraction, pos),
        Ok(_) => return true,
    }
    from.has_custom_bounds() == other.has_custom_bounds()
}

fn histogram_difference(window: &Window<'_>, kind: Kind, notes: &mut Annotations) -> Option<Histogram> {
    let (name, pos, points) = (window.labels.metric_name(), window.pos, window.histograms);
    let (starts, times) = (window.histogram_starts, window.histogram_times);
    let (first, last) = (&points[0], &points[points.len() - 1]);
    let counter = kind.is_counter();
    let mut told = Annotations::default();
    if counter {
        told.not_counter(first.reset_hint, name, pos);
        told.not_counter(last.reset_hint, name, pos);
    }
    let mut before: Histogram = (**first).clone();
    if counter && (is_start_reset(starts, times, 1) || points[1].is_reset_after(first)) {
        // The first sample does not count; what comes is compared with nothing.
        before = Histogram {
            schema: points[1].schema,
            custom_bounds: points[1].custom_bounds.clone(),
            ..Histogram::default()
        };
    }
    let custom = before.has_custom_bounds();
    let mixed = |notes: &mut Annotations| {
        notes.mixed_exponential_custom(name, pos);
        None
    };
    if last.has_custom_bounds() != custom {
        notes.merge(told);
        return mixed(notes);
    }
    let mut schema = last.schema.min(before.schema);
    if counter {
        for point in &points[1..points.len() - 1] {
            told.not_counter(point.reset_hint, name, pos);
            schema = schema.min(point.schema);
            if point.has_custom_bounds() != custom {
                return mixed(notes);
            }
        }
    }
    let mut result = last.to_schema(schema);
    match result.subtract(&before) {
        Err(Incompatible) => return mixed(notes),
        Ok(note) if note.bounds_reconciled => told.bounds_reconciled(Operation::Subtraction, pos),
        Ok(_) => {}
    }
    if counter {
        let mut overlap = false;
        for (at, point) in points.iter().enumerate().skip(1) {
            if !overlap && is_overlap(starts, times, at) {
                told.start_time_overlap(name, pos);
                overlap = true;
            }
            if is_start_reset(starts, times, at) || point.is_reset_after(&before) {
                match result.add(&before) {
                    Err(Incompatible) => return mixed(notes),
                    Ok(note) if note.bounds_reconciled => told.bounds_reconciled(Operation::Addition, pos),
                    Ok(_) => {}
                }
            }
            before.clone_from(point);
        }
    } else if first.reset_hint != ResetHint::Gauge || last.reset_hint != ResetHint::Gauge {
        told.not_gauge(name, pos);
    }
    notes.merge(told);
    result.reset_hint = ResetHint::Gauge;
    result.compact();
    Some(result)
}

/// Whether start times say that a counter began anew between two samples.
pub(super) fn is_start_reset(starts: &[i64], times: &[i64], at: usize) -> bool {
    let (Some(&before), Some(&now)) = (starts.get(at - 1), starts.get(at)) else { return false };
    let previous = times[at - 1];
    if now == 0 || now >= times[at] || now < previous {
        return false;
    }
    if now > previous {
        return true;
    }
    before <= previous && before != 0 && before != previous
}

fn is_overlap(starts: &[i64], times: &[i64], at: usize) -> bool {
    match (starts.get(at - 1), starts.get(at)) {
        (Some(before), Some(now)) => *now != 0 && *now < times[at - 1] && now != before,
        _ => false,
    }
}

#[allow(clippy::unnecessary_wraps, reason = "the form of all range functions")]
/// `irate` and `idelta`: the last two samples.
pub(super) fn instant(window: &Window<'_>, rate: bool, notes: &mut Annotations) -> Result<Option<Sample>> {
    let (floats, histograms) = (window.times.len(), window.histogram_times.len());
    if floats + histograms < 2 {
        return Ok(None);
    }
    let start = |starts: &[i64], at: usize| starts.get(at).copied().unwrap_or(0);
    let mut last: Vec<(i64, i64, Sample)> = Vec::with_capacity(4);
    for at in floats.saturating_sub(2)..floats {
        last.push((window.times[at], start(window.starts, at), Sample::Float(window.values[at])));
    }
    for at in histograms.saturating_sub(2)..histograms {
        let sample = Sample::Histogram(window.histograms[at].clone());
        last.push((window.histogram_times[at], start(window.histogram_starts, at), sample));
    }
    last.sort_by_key(|(time, _, _)| *time);
    let last = &last[last.len() - 2..];
    let ((from, from_start, before), (to, to_start, now)) = (&last[0], &last[1]);
    if from == to {
        return Ok(None);
    }
    let seconds = (to - from) as f64 / 1000.0;
    let reset = rate && is_start_reset(&[*from_start, *to_start], &[*from, *to], 1);
    let (name, pos) = (window.labels.metric_name(), window.pos);
    match (before, now) {
        (Sample::Float(before), Sample::Float(now)) => {
            let difference = if rate && (now < before || reset) { *now } else { now - before };
            Ok(Some(Sample::Float(if rate { difference / seconds } else { difference })))
        }
        (Sample::Histogram(before), Sample::Histogram(now)) => {
            if rate {
                notes.not_counter(now.reset_hint, name, pos);
                notes.not_counter(before.reset_hint, name, pos);
            } else if now.reset_hint != ResetHint::Gauge || before.reset_hint != ResetHint::Gauge {
                notes.not_gauge(name, pos);
            }
            let mut result = (**now).clone();
            if (!rate || !(reset || now.is_reset_after(before)))
                && !subtract(&mut result, before, notes, name, pos)
            {
                return Ok(None);
            }
            result.reset_hint = ResetHint::Gauge;
            result.compact();
            if rate {
                result.divide(seconds);
            }
            Ok(Some(Sample::Histogram(Arc::new(result))))
        }
        _ => {
            notes.mixed_floats_histograms(name, pos);
            Ok(None)
        }
    }
}

/// A histogram between two others.
pub(super) fn interpolate_histogram(
    ((from, before), (to, after)): ((i64, &Histogram), (i64, &Histogram)),
    time: i64,
    counter: bool,
    notes: &mut Annotations,
    pos: Pos,
) -> std::result::Result<Histogram, Incompatible> {
    if time == from {
        return Ok(before.clone());
    }
    if time == to {
        return Ok(after.clone());
    }
    let fraction = (time - from) as f64 / (to - from) as f64;
    let mut result = after.clone();
    if counter && after.is_reset_after(before) {
        result.scale(fraction);
        return Ok(result);
    }
    if result.subtract(before)?.bounds_reconciled {
        notes.bounds_reconciled(Operation::Subtraction, pos);
    }
    result.scale(fraction);
    if result.add(before)?.bounds_reconciled {
        notes.bounds_reconciled(Operation::Addition, pos);
    }
    Ok(result)
}
