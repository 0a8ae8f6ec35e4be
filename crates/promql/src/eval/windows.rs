//! Functions over ranges: per series two indices move forward with the steps, a window lies between them.

use std::{borrow::Cow, sync::Arc};

use super::{
    Bits, Column, Context, Lookup, Result, Steps, eval_scalar, eval_vector, extended,
    extremes::{Extreme, Extremes},
    merge_same, over_time,
    rate::{self, find_falls},
    refuse_same,
    selector::{advance, samples, statistics},
};
use crate::{
    annotations::Annotations,
    engine::Error,
    histogram::{Histogram, ResetHint},
    labels::Labels,
    parser::{Edges, Expr, Pos},
    source::{Data, Hints, Samples, Series, is_stale},
    value::{MatrixSeries, Sample},
};

/// The samples a range function sees at one step.
#[derive(Clone, Copy)]
pub(super) struct Window<'a> {
    pub times: &'a [i64],
    pub values: &'a [f64],
    /// Start times of the counters; empty if they are not used.
    pub starts: &'a [i64],
    pub histogram_times: &'a [i64],
    pub histograms: &'a [Arc<Histogram>],
    pub histogram_starts: &'a [i64],
    /// The range's beginning (not in it) and end (in it), milliseconds.
    pub from: i64,
    pub to: i64,
    pub range: i64,
    /// The time of the step itself.
    pub now: i64,
    pub edges: Edges,
    /// The function's scalar arguments at this step.
    pub scalars: &'a [f64],
    pub labels: &'a Labels,
    pub pos: Pos,
}

/// What a range function does with a window.
pub(super) type RangeFn = fn(&Window<'_>, &mut Annotations) -> Result<Option<Sample>>;

/// A range function, ready to be run on each of its series.
pub(super) struct RangeCall<'a> {
    context: &'a Context<'a>,
    name: &'static str,
    function: RangeFn,
    rate: Option<rate::Kind>,
    pub series: Vec<Series>,
    dropped: Vec<bool>,
    /// All series have one name, so that they stay apart without it.
    one_name: bool,
    lookup: Lookup,
    range: i64,
    edges: Edges,
    histogram_stats: bool,
    steps: Steps,
    scalars: Vec<Vec<f64>>,
    pos: Pos,
}

/// Room for one series' work, used again for the next.
#[derive(Default)]
pub(super) struct Scratch {
    samples: Samples,
    falls: Vec<usize>,
    plans: rate::Plans,
    scalars: Vec<f64>,
    extremes: Extremes,
}

impl<'a> RangeCall<'a> {
    /// Reads the arguments of a range function; `None` if it is none.
    pub fn new(
        context: &'a Context<'a>,
        name: &'static str,
        args: &[Expr],
        steps: &Steps,
        above: Hints,
        notes: &mut Annotations,
    ) -> Result<Option<Self>> {
        let is_range = |arg: &&Expr| matches!(arg, Expr::Matrix { .. } | Expr::Subquery { .. });
        let Some(range_arg) = args.iter().map(Expr::unwrapped).find(is_range) else {
            return Ok(None);
        };
        let Some(function) = function(name) else { return Ok(None) };
        let mut scalars = Vec::new();
        for arg in args.iter().filter(|arg| !is_range(&arg.unwrapped())) {
            scalars.push(eval_scalar(context, arg, steps, notes)?);
        }
        let pos = args.first().map_or(0, Expr::pos);
        let rate = rate::Kind::of(name);
        let mut call = Self {
            context,
            name,
            function,
            rate,
            series: Vec::new(),
            dropped: Vec::new(),
            one_name: false,
            lookup: context.lookup(None, None, pos)?,
            range: 0,
            edges: Edges::Plain,
            histogram_stats: false,
            steps: *steps,
            scalars,
            pos,
        };
        match range_arg {
            Expr::Matrix { selector, range } => {
                check_edges(selector.edges, name)?;
                call.range = context.millis(range, selector.pos, false)?;
                call.lookup = context.lookup(selector.offset.as_ref(), selector.at, selector.pos)?;
                call.edges = selector.edges;
                call.histogram_stats = selector.histogram_stats;
                call.one_name = selector.name.is_some();
                let (before, after) = call.margins();
                let (first, last) = call.lookup.span(steps);
                let hints = Hints {
                    function: Some(name),
                    range_ms: call.range,
                    step_ms: if steps.count > 1 { steps.step } else { 0 },
                    ..above
                };
                let first = first - call.range - before + 1;
                call.series = context.select(selector, first, last + after, hints)?;
            }
            Expr::Subquery { expr, range, step, offset, at } => {
                call.range = context.millis(range, expr.pos(), false)?;
                call.lookup = context.lookup(offset.as_ref(), *at, expr.pos())?;
                let step = step.as_ref().map(|step| context.millis(step, expr.pos(), false)).transpose()?;
                // Its samples count where the function sees them.
                let (columns, _) =
                    context.apart(|| subquery(context, expr, call.range, step, call.lookup, steps, notes));
                if let Some((inner, columns)) = columns? {
                    call.dropped = columns.iter().map(|column| column.drop_name).collect();
                    call.series = as_series(columns, &inner);
                }
            }
            _ => {}
        }
        Ok(Some(call))
    }

    /// How far beyond the range samples count.
    fn margins(&self) -> (i64, i64) {
        let lookback = self.context.lookback;
        match self.edges {
            Edges::Plain => (0, 0),
            Edges::Anchored => (lookback, 0),
            Edges::Smoothed => (lookback, lookback),
        }
    }

    fn keeps_name(&self) -> bool {
        matches!(self.name, "last_over_time" | "first_over_time")
    }

    /// Evaluates all series.
    pub fn columns(&self, notes: &mut Annotations) -> Result<Vec<Column>> {
        let all: Vec<usize> = (0..self.series.len()).collect();
        let parts = self.context.share(&all, |part| {
            let (mut scratch, mut notes) = (Scratch::default(), Annotations::default());
            let mut columns = Vec::with_capacity(part.len());
            for &at in part {
                let mut column = Column::new(self.series[at].labels.clone(), self.steps.count);
                if self.run(at, &mut scratch, &mut column, &mut notes)? {
                    if !self.keeps_name() || self.dropped.get(at).copied().unwrap_or(false) {
                        self.context.drop_name(&mut column);
                    }
                    self.context.hold(column.cost())?;
                    columns.push(column);
                }
            }
            Ok((columns, notes))
        })?;
        let mut columns = Vec::with_capacity(self.series.len());
        for (part, part_notes) in parts {
            columns.extend(part);
            notes.merge(part_notes);
        }
        if !self.context.engine.delayed_name_removal && !self.one_name {
            refuse_same(&columns)?;
        }
        Ok(columns)
    }

    /// Which series have a sample at which steps, whatever their labels.
    pub fn present(&self) -> Result<Vec<Column>> {
        let (mut scratch, mut notes) = (Scratch::default(), Annotations::default());
        let mut all = Column::new(Labels::default(), self.steps.count);
        for at in 0..self.series.len() {
            self.run(at, &mut scratch, &mut all, &mut notes)?;
        }
        Ok(vec![all])
    }

    /// Evaluates one series into an empty column; tells whether there is a sample.
    pub fn run(
        &self,
        at: usize,
        scratch: &mut Scratch,
        column: &mut Column,
        notes: &mut Annotations,
    ) -> Result<bool> {
        if at.is_multiple_of(64) {
            self.context.check_time()?;
        }
        let series = &self.series[at];
        let Scratch { samples: loaded, falls, scalars, plans, extremes } = scratch;
        let samples = samples(series, loaded)?;
        if let Some(kind) = self.rate.filter(|_| self.is_plain(samples)) {
            let plan = plans.of(&samples.timestamps, kind, &self.steps, self.lookup, self.range);
            let values = &samples.values[plan.inside.clone()];
            falls.clear();
            let whole = if kind.is_counter() { find_falls(values, falls) } else { !any_stale(values) };
            if whole {
                self.context.touch(plan.seen, || plan.seen_by_step());
                if plan.any() {
                    kind.floats(values, plan, falls, column);
                    self.tell_non_counter(&series.labels, notes);
                }
                return Ok(plan.any());
            }
        }
        let (before, after) = self.margins();
        let (first, last) = self.lookup.span(&self.steps);
        let inside = |times: &[i64]| {
            let from = times.partition_point(|time| *time <= first - self.range - before);
            from..from + times[from..].partition_point(|time| *time <= last + after)
        };
        let samples = if self.histogram_stats && !samples.histograms.is_empty() {
            Cow::Owned(without_stale(&statistics(samples)).into_owned())
        } else if any_stale(&samples.values[inside(&samples.timestamps)]) || !samples.histograms.is_empty() {
            without_stale(samples)
        } else {
            Cow::Borrowed(samples)
        };
        let floats = inside(&samples.timestamps);
        let histograms = inside(&samples.histogram_timestamps);
        let (times, values) = (&samples.timestamps[floats.clone()], &samples.values[floats.clone()]);
        let histogram_times = &samples.histogram_timestamps[histograms.clone()];
        let use_starts = self.context.engine.use_start_timestamps
            && matches!(self.name, "rate" | "irate" | "increase" | "resets");
        let starts = |starts: &'_ [i64], range: std::ops::Range<usize>| {
            if use_starts { starts.get(range).unwrap_or(&[]).to_vec() } else { Vec::new() }
        };
        let float_starts = starts(&samples.start_timestamps, floats);
        let histogram_starts = starts(&samples.histogram_start_timestamps, histograms.clone());
        let mut any = false;
        let values_of_histograms = &samples.histograms[histograms];
        let (mut from, mut to, mut h_from, mut h_to) = (0, 0, 0, 0);
        let extreme = Extreme::of(self.name).filter(|_| values_of_histograms.is_empty());
        extremes.clear();
        for step in 0..self.steps.count {
            let now = self.steps.time(step);
            let end = self.lookup.time(now);
            let start = end - self.range;
            from = advance(times, from, start - before);
            to = advance(times, to.max(from), end + after);
            h_from = advance(histogram_times, h_from, start - before);
            h_to = advance(histogram_times, h_to.max(h_from), end + after);
            if from == to && h_from == h_to {
                continue;
            }
            let cost = to - from + cost_of(&values_of_histograms[h_from..h_to]);
            self.context.touch(cost, || [(step, cost)]);
            if let Some(wanted) = extreme {
                column.set_float(step, extremes.of(values, from, to, wanted));
                any = true;
                continue;
            }
            scalars.clear();
            scalars.extend(self.scalars.iter().map(|values| values[step]));
            let window = Window {
                times: &times[from..to],
                values: &values[from..to],
                starts: float_starts.get(from..to).unwrap_or(&[]),
                histogram_times: &histogram_times[h_from..h_to],
                histograms: &values_of_histograms[h_from..h_to],
                histogram_starts: histogram_starts.get(h_from..h_to).unwrap_or(&[]),
                from: start,
                to: end,
                range: self.range,
                now,
                edges: self.edges,
                scalars,
                labels: &series.labels,
                pos: self.pos,
            };
            if let Some(sample) = (self.function)(&window, notes)? {
                column.set(step, sample);
                any = true;
            }
        }
        if column.present.any() {
            self.tell_non_counter(&series.labels, notes);
        }
        Ok(any)
    }

    /// Whether a series is one of floats alone, without start times that count.
    fn is_plain(&self, samples: &Samples) -> bool {
        let starts = self.context.engine.use_start_timestamps && !samples.start_timestamps.is_empty();
        self.edges == Edges::Plain && samples.histogram_timestamps.is_empty() && !starts
    }

    fn tell_non_counter(&self, labels: &Labels, notes: &mut Annotations) {
        if !matches!(self.name, "rate" | "increase") {
            return;
        }
        let name = labels.metric_name();
        let counter = ["_total", "_sum", "_count", "_bucket"].iter().any(|suffix| name.ends_with(suffix));
        if !name.is_empty() && !counter {
            notes.possible_non_counter(name, self.pos);
        }
    }
}

fn check_edges(edges: Edges, name: &str) -> Result<()> {
    let (modifier, safe): (&str, &[&str]) = match edges {
        Edges::Plain => return Ok(()),
        Edges::Anchored => ("anchored", &["changes", "delta", "increase", "rate", "resets"]),
        Edges::Smoothed => ("smoothed", &["delta", "increase", "rate"]),
    };
    if safe.contains(&name) {
        return Ok(());
    }
    let safe = safe.join(", ");
    Err(Error::execution(format!("{modifier} modifier can only be used with: {safe} - not with {name}")))
}

fn function(name: &str) -> Option<RangeFn> {
    Some(match name {
        "rate" => |window, notes| rate::extrapolated(window, rate::Kind::Rate, notes),
        "increase" => |window, notes| rate::extrapolated(window, rate::Kind::Increase, notes),
        "delta" => |window, notes| rate::extrapolated(window, rate::Kind::Delta, notes),
        "irate" => |window, notes| rate::instant(window, true, notes),
        "idelta" => |window, notes| rate::instant(window, false, notes),
        "resets" => |window, _| Ok(extended::resets(window)),
        "changes" => |window, _| Ok(extended::changes(window)),
        name => return over_time::function(name),
    })
}

/// Whether there is a stale marker; whole blocks are looked through at once.
fn any_stale(values: &[f64]) -> bool {
    values.chunks(64).any(|block| block.iter().map(|value| u32::from(is_stale(*value))).sum::<u32>() > 0)
}

/// The samples without stale markers.
pub(super) fn without_stale(samples: &Samples) -> Cow<'_, Samples> {
    let floats = any_stale(&samples.values);
    let histograms = samples.histograms.iter().any(|histogram| is_stale(histogram.sum));
    if !floats && !histograms {
        return Cow::Borrowed(samples);
    }
    let mut kept = Samples::default();
    let times = Arc::make_mut(&mut kept.timestamps);
    for (at, value) in samples.values.iter().enumerate().filter(|(_, value)| !is_stale(**value)) {
        times.push(samples.timestamps[at]);
        kept.values.push(*value);
        kept.start_timestamps.extend(samples.start_timestamps.get(at));
    }
    for (at, histogram) in samples.histograms.iter().enumerate().filter(|(_, value)| !is_stale(value.sum)) {
        kept.histogram_timestamps.push(samples.histogram_timestamps[at]);
        kept.histograms.push(histogram.clone());
        kept.histogram_start_timestamps.extend(samples.histogram_start_timestamps.get(at));
    }
    Cow::Owned(kept)
}

/// Evaluates a subquery's inside at its own steps, which are multiples of their distance.
fn subquery(
    context: &Context<'_>,
    expr: &Expr,
    range: i64,
    step: Option<i64>,
    lookup: Lookup,
    steps: &Steps,
    notes: &mut Annotations,
) -> Result<Option<(Steps, Vec<Column>)>> {
    let step = step.unwrap_or(context.engine.subquery_step.as_millis() as i64).max(1);
    let (first, last) = lookup.span(steps);
    let start = ((first - range).div_euclid(step) + 1) * step;
    if last < start {
        return Ok(None);
    }
    let inner = Steps { start, step, count: ((last - start) / step + 1) as usize };
    if inner.count > context.engine.max_samples {
        return Err(Error::TooManySamples);
    }
    Ok(Some((inner, eval_vector(context, expr, &inner, notes)?)))
}

/// How many samples histograms count for.
fn cost_of<'h>(histograms: impl IntoIterator<Item = &'h Arc<Histogram>>) -> usize {
    histograms.into_iter().map(|histogram| histogram.cost()).sum()
}

/// Columns as series of samples.
fn as_series(columns: Vec<Column>, steps: &Steps) -> Vec<Series> {
    let all: Arc<Vec<i64>> = Arc::new((0..steps.count).map(|at| steps.time(at)).collect());
    let full = Bits::full(steps.count);
    let series = columns.into_iter().map(|column| {
        let mut samples = Samples::default();
        if column.present == full {
            samples.timestamps = all.clone();
            samples.values = column.floats;
        } else {
            samples.timestamps = Arc::new(column.present.iter().map(|at| steps.time(at)).collect());
            samples.values = column.present.iter().map(|at| column.floats[at]).collect();
        }
        for (at, histogram) in column.histograms.into_iter().enumerate() {
            let Some(mut histogram) = histogram else { continue };
            if matches!(histogram.reset_hint, ResetHint::Reset | ResetHint::NotReset) {
                Arc::make_mut(&mut histogram).reset_hint = ResetHint::Unknown;
            }
            samples.histogram_timestamps.push(steps.time(at));
            samples.histograms.push(histogram);
        }
        Series { labels: column.labels, data: Data::Ready(Arc::new(samples)) }
    });
    series.collect()
}

/// The samples of a range selector or subquery as they are, at a single step.
pub(super) fn raw(
    context: &Context<'_>,
    expr: &Expr,
    steps: &Steps,
    notes: &mut Annotations,
) -> Result<Vec<MatrixSeries>> {
    let series = match expr {
        Expr::Matrix { selector, range } => {
            let range = context.millis(range, selector.pos, false)?;
            let lookup = context.lookup(selector.offset.as_ref(), selector.at, selector.pos)?;
            let to = lookup.time(steps.start);
            let from = to - range;
            let (before, after) = match selector.edges {
                Edges::Plain => (0, 0),
                Edges::Anchored => (context.lookback, 0),
                Edges::Smoothed => (context.lookback, context.lookback),
            };
            let hints = Hints { range_ms: range, ..Hints::default() };
            let (first, last) = (from - before, to + after);
            let mut matrix = Vec::new();
            let mut scratch = Samples::default();
            for series in &context.select(selector, first + 1, last, hints)? {
                let samples = without_stale(samples(series, &mut scratch)?);
                let inside = |times: &[i64]| {
                    let start = times.partition_point(|time| *time <= first);
                    start..times.partition_point(|time| *time <= last).max(start)
                };
                let floats =
                    inside(&samples.timestamps).map(|at| (samples.timestamps[at], samples.values[at]));
                let mut floats: Vec<(i64, f64)> = floats.collect();
                let histograms = inside(&samples.histogram_timestamps)
                    .map(|at| (samples.histogram_timestamps[at], samples.histograms[at].clone()))
                    .collect::<Vec<_>>();
                if selector.edges != Edges::Plain {
                    if !histograms.is_empty() {
                        let name = if selector.edges == Edges::Anchored { "anchored" } else { "smoothed" };
                        let message = format!("{name} modifier is not supported with histograms");
                        return Err(Error::execution(message));
                    }
                    floats = extended::with_edges(&floats, from, to, selector.edges == Edges::Smoothed);
                }
                let cost = floats.len() + cost_of(histograms.iter().map(|(_, value)| value));
                context.touch(cost, || [(0, cost)]);
                context.hold(cost)?;
                if !floats.is_empty() || !histograms.is_empty() {
                    matrix.push(MatrixSeries { labels: series.labels.clone(), floats, histograms });
                }
            }
            return Ok(matrix);
        }
        Expr::Subquery { expr, range, step, offset, at } => {
            let range = context.millis(range, expr.pos(), false)?;
            let lookup = context.lookup(offset.as_ref(), *at, expr.pos())?;
            let step = step.as_ref().map(|step| context.millis(step, expr.pos(), false)).transpose()?;
            let (found, counted) =
                context.apart(|| subquery(context, expr, range, step, lookup, steps, notes));
            context.touch(counted, || [(0, counted)]);
            let Some((inner, mut columns)) = found? else { return Ok(Vec::new()) };
            if context.engine.delayed_name_removal {
                for column in columns.iter_mut().filter(|column| column.drop_name) {
                    column.labels = column.labels.without_metadata();
                }
                columns = merge_same(columns)?;
            }
            as_series(columns, &inner)
        }
        _ => return Err(Error::execution("a range vector was expected")),
    };
    let matrix = series.into_iter().filter_map(|series| {
        let Data::Ready(samples) = series.data else { return None };
        let floats: Vec<_> = samples.timestamps.iter().copied().zip(samples.values.iter().copied()).collect();
        let times = samples.histogram_timestamps.iter().copied();
        let histograms: Vec<_> = times.zip(samples.histograms.iter().cloned()).collect();
        let filled = !floats.is_empty() || !histograms.is_empty();
        filled.then_some(MatrixSeries { labels: series.labels, floats, histograms })
    });
    Ok(matrix.collect())
}
