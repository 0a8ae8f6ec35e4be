//! Instant selectors: the newest sample at each step that is not older than the look-back.

use std::sync::Arc;

use super::{Column, Context, Lookup, Result, Steps, rate::interpolate_histogram};
use crate::{
    annotations::Annotations,
    engine::Error,
    histogram::{Histogram, ResetHint},
    parser::{Edges, VectorSelector},
    source::{Data, Hints, Samples, Series, is_stale},
};

/// Reads a series' samples, into `scratch` if they are not at hand.
pub(super) fn samples<'a>(series: &'a Series, scratch: &'a mut Samples) -> Result<&'a Samples> {
    match &series.data {
        Data::Ready(samples) => Ok(samples),
        Data::Lazy(load) => {
            load.load(scratch).map_err(Error::Source)?;
            Ok(scratch)
        }
    }
}

/// Histograms reduced to count and sum. As their buckets would tell resets, hints do so from here on.
pub(super) fn statistics(samples: &Samples) -> Samples {
    let mut last: Option<&Histogram> = None;
    let mut reduced = samples.clone();
    for (histogram, slot) in samples.histograms.iter().zip(&mut reduced.histograms) {
        let mut reset_hint = histogram.reset_hint;
        if !is_stale(histogram.sum) {
            reset_hint = match (reset_hint, last) {
                (ResetHint::Unknown, Some(last)) if histogram.is_reset_after(last) => ResetHint::Reset,
                (ResetHint::Unknown, Some(_)) => ResetHint::NotReset,
                (hint, _) => hint,
            };
            last = Some(histogram);
        }
        let Histogram { schema, count, sum, .. } = **histogram;
        *slot = Arc::new(Histogram { reset_hint, schema, count, sum, ..Histogram::default() });
    }
    reduced
}

/// Where samples are found, moving forward with the lookups.
struct Cursor<'a> {
    samples: &'a Samples,
    float: usize,
    histogram: usize,
}

/// A sample and its times.
#[derive(Clone, Copy)]
pub(super) enum Found<'a> {
    Float { time: i64, start: i64, value: f64 },
    Histogram { time: i64, start: i64, value: &'a Arc<Histogram> },
}

/// How many of the times are at most `time`, from a known position on.
#[inline]
pub(super) fn advance(times: &[i64], mut at: usize, time: i64) -> usize {
    // Steps are mostly a few samples apart.
    for _ in 0..8 {
        match times.get(at) {
            Some(next) if *next <= time => at += 1,
            _ => return at,
        }
    }
    at + times[at..].partition_point(|next| *next <= time)
}

impl<'a> Cursor<'a> {
    fn new(samples: &'a Samples) -> Self {
        Self { samples, float: 0, histogram: 0 }
    }

    /// The newest sample after `time - lookback` up to `time`, unless it is a stale marker.
    fn find(&mut self, time: i64, lookback: i64) -> Option<Found<'a>> {
        let samples = self.samples;
        self.float = advance(&samples.timestamps, self.float, time);
        self.histogram = advance(&samples.histogram_timestamps, self.histogram, time);
        let float = self.float.checked_sub(1).map(|at| (samples.timestamps[at], at));
        let histogram = self.histogram.checked_sub(1).map(|at| (samples.histogram_timestamps[at], at));
        let (newest, is_histogram, at) = match (float, histogram) {
            (Some((float, at)), other) if other.is_none_or(|(histogram, _)| float >= histogram) => {
                (float, false, at)
            }
            (_, Some((histogram, at))) => (histogram, true, at),
            (_, None) => return None,
        };
        if newest <= time - lookback {
            return None;
        }
        if is_histogram {
            let value = &samples.histograms[at];
            let start = samples.histogram_start_timestamps.get(at).copied().unwrap_or(0);
            (!is_stale(value.sum)).then_some(Found::Histogram { time: newest, start, value })
        } else {
            let value = samples.values[at];
            let start = samples.start_timestamps.get(at).copied().unwrap_or(0);
            (!is_stale(value)).then_some(Found::Float { time: newest, start, value })
        }
    }
}

/// The newest sample of each step over one series' times. Series of one target share their times and so
/// the plan.
#[derive(Default)]
struct Plan {
    times: Option<Arc<Vec<i64>>>,
    /// Number of the sample, from 1; 0 if there is none.
    newest: Vec<u32>,
}

impl Plan {
    fn update(&mut self, times: &Arc<Vec<i64>>, steps: &Steps, lookup: Lookup, lookback: i64) {
        if self.times.as_ref().is_some_and(|known| Arc::ptr_eq(known, times)) {
            return;
        }
        self.times = Some(times.clone());
        self.newest.clear();
        let mut at = 0;
        for step in 0..steps.count {
            let time = lookup.time(steps.time(step));
            at = advance(times, at, time);
            let fresh = at > 0 && times[at - 1] > time - lookback;
            self.newest.push(if fresh { at as u32 } else { 0 });
        }
    }
}

/// Selects and looks samples up; `value` turns what is found into a column's sample.
pub(super) fn each(
    context: &Context<'_>,
    selector: &VectorSelector,
    steps: &Steps,
    hints: Hints,
    take: impl Fn(&mut Column, usize, Found<'_>) + Sync,
) -> Result<Vec<Column>> {
    let lookup = context.lookup(selector.offset.as_ref(), selector.at, selector.pos)?;
    let (first, last) = lookup.span(steps);
    let series = context.select(selector, first - context.lookback + 1, last, hints)?;
    look_up(context, series, steps, (lookup, selector.histogram_stats), take)
}

/// Looks samples of given series up.
pub(super) fn look_up(
    context: &Context<'_>,
    series: Vec<Series>,
    steps: &Steps,
    (lookup, histogram_stats): (Lookup, bool),
    take: impl Fn(&mut Column, usize, Found<'_>) + Sync,
) -> Result<Vec<Column>> {
    let call = InstantCall { context, steps: *steps, lookup, histogram_stats, series };
    let all: Vec<usize> = (0..call.series.len()).collect();
    let parts = context.share(&all, |part| {
        let mut scratch = Scratch::default();
        let mut columns = Vec::with_capacity(part.len());
        for &at in part {
            let mut column = Column::new(call.series[at].labels.clone(), steps.count);
            if call.run(at, &mut scratch, &mut column, &take)? {
                context.hold(column.cost())?;
                columns.push(column);
            }
        }
        Ok(columns)
    })?;
    Ok(parts.into_iter().flatten().collect())
}

/// An instant selector, ready to be run on each of its series.
pub(super) struct InstantCall<'a> {
    context: &'a Context<'a>,
    steps: Steps,
    lookup: Lookup,
    histogram_stats: bool,
    pub series: Vec<Series>,
}

/// Room for one series' work, used again for the next.
#[derive(Default)]
pub(super) struct Scratch {
    samples: Samples,
    plan: Plan,
}

impl<'a> InstantCall<'a> {
    pub fn new(
        context: &'a Context<'a>,
        selector: &VectorSelector,
        steps: &Steps,
        hints: Hints,
    ) -> Result<Self> {
        let lookup = context.lookup(selector.offset.as_ref(), selector.at, selector.pos)?;
        let (first, last) = lookup.span(steps);
        let series = context.select(selector, first - context.lookback + 1, last, hints)?;
        Ok(Self { context, steps: *steps, lookup, histogram_stats: selector.histogram_stats, series })
    }

    /// Looks one series up into an empty column; tells whether there is a sample.
    pub fn run(
        &self,
        at: usize,
        scratch: &mut Scratch,
        column: &mut Column,
        take: &impl Fn(&mut Column, usize, Found<'_>),
    ) -> Result<bool> {
        if at.is_multiple_of(64) {
            self.context.check_time()?;
        }
        let Self { steps, lookup, context, .. } = self;
        let samples = samples(&self.series[at], &mut scratch.samples)?;
        let mut found = 0;
        if samples.histogram_timestamps.is_empty() {
            let plan = &mut scratch.plan;
            plan.update(&samples.timestamps, steps, *lookup, context.lookback);
            let newest = || {
                let newest = plan.newest.iter().enumerate();
                let at = newest.filter_map(|(step, at)| Some((step, at.checked_sub(1)? as usize)));
                at.filter(|(_, at)| !is_stale(samples.values[*at]))
            };
            for (step, at) in newest() {
                let start = samples.start_timestamps.get(at).copied().unwrap_or(0);
                let (time, value) = (samples.timestamps[at], samples.values[at]);
                take(column, step, Found::Float { time, start, value });
                found += 1;
            }
            context.touch(found, || newest().map(|(step, _)| (step, 1)));
        } else {
            let stats = self.histogram_stats.then(|| statistics(samples));
            let mut cursor = Cursor::new(stats.as_ref().unwrap_or(samples));
            for step in 0..steps.count {
                if let Some(sample) = cursor.find(lookup.time(steps.time(step)), context.lookback) {
                    found += 1;
                    let cost = match sample {
                        Found::Float { .. } => 1,
                        Found::Histogram { value, .. } => value.cost(),
                    };
                    context.touch(cost, || [(step, cost)]);
                    take(column, step, sample);
                }
            }
        }
        Ok(found > 0)
    }
}

/// Takes a sample's value over.
pub(super) fn take_value(column: &mut Column, step: usize, found: Found<'_>) {
    match found {
        Found::Float { value, .. } => column.set_float(step, value),
        Found::Histogram { value, .. } => column.set_histogram(step, value.clone()),
    }
}

/// Evaluates an instant selector.
pub(super) fn instant(
    context: &Context<'_>,
    selector: &VectorSelector,
    steps: &Steps,
    notes: &mut Annotations,
) -> Result<Vec<Column>> {
    if selector.edges == Edges::Smoothed {
        return smoothed(context, selector, steps, notes);
    }
    let hints = Hints { step_ms: steps.step, ..Hints::default() };
    each(context, selector, steps, hints, take_value)
}

/// Values between the samples on both sides of a step.
fn smoothed(
    context: &Context<'_>,
    selector: &VectorSelector,
    steps: &Steps,
    notes: &mut Annotations,
) -> Result<Vec<Column>> {
    let lookup = context.lookup(selector.offset.as_ref(), selector.at, selector.pos)?;
    let (first, last) = lookup.span(steps);
    let lookback = context.lookback;
    let hints = Hints { step_ms: steps.step, ..Hints::default() };
    let series = context.select(selector, first - lookback + 1, last + lookback, hints)?;
    let pos = selector.pos;
    let mut columns = Vec::new();
    let mut scratch = Samples::default();
    for series in &series {
        let mut column = Column::new(series.labels.clone(), steps.count);
        let samples = super::windows::without_stale(samples(series, &mut scratch)?);
        for step in 0..steps.count {
            let time = lookup.time(steps.time(step));
            let inside = |times: &[i64]| {
                let from = times.partition_point(|at| *at <= time - lookback);
                (from, times.partition_point(|at| *at <= time + lookback))
            };
            let (float_from, float_to) = inside(&samples.timestamps);
            let (histogram_from, histogram_to) = inside(&samples.histogram_timestamps);
            let name = series.labels.metric_name();
            if float_from < float_to && histogram_from < histogram_to {
                notes.mixed_floats_histograms(name, pos);
                continue;
            }
            if histogram_from < histogram_to {
                let times = &samples.histogram_timestamps[histogram_from..histogram_to];
                let values = &samples.histograms[histogram_from..histogram_to];
                let next = times.partition_point(|at| *at < time);
                if times.get(next) == Some(&time) {
                    column.set_histogram(step, values[next].clone());
                } else if next > 0 && next < times.len() {
                    let (before, after) = (&values[next - 1], &values[next]);
                    if before.has_custom_bounds() != after.has_custom_bounds() {
                        notes.mixed_exponential_custom(name, pos);
                        continue;
                    }
                    let counter =
                        before.reset_hint != ResetHint::Gauge || after.reset_hint != ResetHint::Gauge;
                    let between = ((times[next - 1], &**before), (times[next], &**after));
                    match interpolate_histogram(between, time, counter, notes, pos) {
                        Ok(value) => column.set_histogram(step, Arc::new(value)),
                        Err(_) => notes.mixed_exponential_custom(name, pos),
                    }
                } else if next > 0 {
                    let mut value = (*values[next - 1]).clone();
                    value.reset_hint = ResetHint::Unknown;
                    column.set_histogram(step, Arc::new(value));
                }
                continue;
            }
            let times = &samples.timestamps[float_from..float_to];
            let values = &samples.values[float_from..float_to];
            let next = times.partition_point(|at| *at < time);
            if times.get(next) == Some(&time) {
                column.set_float(step, values[next]);
            } else if next > 0 && next < times.len() {
                let (before, after) = ((times[next - 1], values[next - 1]), (times[next], values[next]));
                column.set_float(step, super::extended::interpolate(before, after, time, false));
            } else if next > 0 {
                column.set_float(step, values[next - 1]);
            }
        }
        if !column.is_empty() {
            columns.push(column);
        }
    }
    Ok(columns)
}
