//! Aggregations that reduce a group to one sample a step. Groups are found once, values are added
//! series by series.

use hashbrown::HashMap;

use super::{
    Bits, Column, Context, Result, Steps, eval_scalar, eval_vector, merge_same,
    over_time::{HistogramSum, quantile},
    rank,
    selector::{self, InstantCall},
    windows::{RangeCall, Scratch},
};
use crate::{
    annotations::Annotations,
    engine::Error,
    format::{float, quote},
    kahan::{Kahan, Mean},
    labels::{Labels, METRIC_NAME},
    parser::{AggregateOp, Edges, Expr, Pos, VectorSelector},
    source::{Hints, Series},
    value::Sample,
};

/// Which series belong together.
pub(super) struct Groups {
    /// Group of each series.
    pub of: Vec<usize>,
    /// Labels of each group.
    pub labels: Vec<Labels>,
}

impl Groups {
    pub fn new<'l>(labels: impl Iterator<Item = &'l Labels>, grouping: &[String], without: bool) -> Self {
        if !without && grouping.is_empty() {
            let of: Vec<usize> = labels.map(|_| 0).collect();
            let labels = of.first().map(|_| Labels::default());
            return Self { of, labels: labels.into_iter().collect() };
        }
        let mut known: HashMap<Labels, usize> = HashMap::new();
        let mut groups = Self { of: Vec::new(), labels: Vec::new() };
        for labels in labels {
            let key = labels.filter(|label| {
                let named = grouping.iter().any(|name| name == label);
                if without { !named && label != METRIC_NAME } else { named }
            });
            let next = groups.labels.len();
            let group = *known.entry(key).or_insert_with_key(|key| {
                groups.labels.push(key.clone());
                next
            });
            groups.of.push(group);
        }
        groups
    }
}

/// Evaluates an aggregation.
pub(super) fn aggregate(
    context: &Context<'_>,
    expr: &Expr,
    steps: &Steps,
    notes: &mut Annotations,
) -> Result<Vec<Column>> {
    let Expr::Aggregate { op, expr: inner, parameter, grouping, without, pos } = expr else {
        return Ok(Vec::new());
    };
    if let Some(columns) = fused(context, *op, inner, grouping, *without, steps, notes)? {
        return Ok(columns);
    }
    if *op == AggregateOp::CountValues {
        let label = parameter.as_ref().map_or("", |parameter| super::text(parameter));
        if !crate::parser::is_label_name(label) {
            return Err(Error::execution(format!("invalid label name {}", quote(label))));
        }
        let columns = eval_vector(context, inner, steps, notes)?;
        return count_values(columns, label, grouping, *without, steps);
    }
    let parameter = match parameter {
        Some(parameter) => Some((eval_scalar(context, parameter, steps, notes)?, parameter.pos())),
        None => None,
    };
    let columns = eval_vector(context, inner, steps, notes)?;
    let groups = Groups::new(columns.iter().map(|column| &column.labels), grouping, *without);
    match (op, parameter) {
        (
            AggregateOp::TopK | AggregateOp::BottomK | AggregateOp::LimitK | AggregateOp::LimitRatio,
            Some((parameter, parameter_pos)),
        ) => {
            let ranked = rank::Ranked { op: *op, parameter, parameter_pos, pos: *pos };
            ranked.select(columns, &groups, steps, notes)
        }
        (AggregateOp::Quantile, Some((parameter, parameter_pos))) => {
            Ok(quantiles(&columns, &groups, &parameter, (parameter_pos, inner.pos()), steps, notes))
        }
        _ => {
            let mut sums = Sums::new(*op, groups.labels.len(), steps.count, inner.pos());
            for (column, group) in columns.iter().zip(&groups.of) {
                sums.add(*group, column, &column.labels, notes);
            }
            Ok(sums.finish(groups.labels, notes))
        }
    }
}

/// Aggregates what a range function or selector yields without keeping it: series by series, on several
/// threads.
fn fused(
    context: &Context<'_>,
    op: AggregateOp,
    inner: &Expr,
    grouping: &[String],
    without: bool,
    steps: &Steps,
    notes: &mut Annotations,
) -> Result<Option<Vec<Column>>> {
    let single = matches!(
        op,
        AggregateOp::Sum
            | AggregateOp::Avg
            | AggregateOp::Count
            | AggregateOp::Min
            | AggregateOp::Max
            | AggregateOp::Group
    );
    if !single || grouping.iter().any(|label| label == METRIC_NAME) {
        return Ok(None);
    }
    let hints = Hints { grouping: grouping.to_vec(), by: !without, ..Hints::default() };
    let pos = inner.pos();
    match inner.unwrapped() {
        Expr::Vector(selector) if selector.edges == Edges::Plain => {
            let step_ms = if steps.count > 1 { steps.step } else { 0 };
            let hints = Hints { function: Some(op.name()), step_ms, ..hints };
            let call = InstantCall::new(context, selector, steps, hints)?;
            let groups = Groups::new(call.series.iter().map(|series| &series.labels), grouping, without);
            let sums = Sums::new(op, groups.labels.len(), steps.count, pos);
            let run =
                |at: usize, scratch: &mut selector::Scratch, column: &mut Column, _: &mut Annotations| {
                    call.run(at, scratch, column, &selector::take_value)
                };
            sums.of_series(context, &call.series, groups, run, notes).map(Some)
        }
        Expr::Call { function, args, .. } => {
            // Only where series stay apart without their names: two of one label set are an error.
            let named = |arg: &Expr| match arg.unwrapped() {
                Expr::Matrix { selector: VectorSelector { name, edges, .. }, .. } => {
                    name.is_some() && *edges == Edges::Plain
                }
                _ => false,
            };
            let keeps_name =
                matches!(function.name, "last_over_time" | "first_over_time" | "absent_over_time");
            if keeps_name || !args.iter().any(named) {
                return Ok(None);
            }
            let Some(call) = RangeCall::new(context, function.name, args, steps, hints, notes)? else {
                return Ok(None);
            };
            let groups = Groups::new(call.series.iter().map(|series| &series.labels), grouping, without);
            let sums = Sums::new(op, groups.labels.len(), steps.count, pos);
            let run = |at: usize, scratch: &mut Scratch, column: &mut Column, notes: &mut Annotations| {
                call.run(at, scratch, column, notes)
            };
            sums.of_series(context, &call.series, groups, run, notes).map(Some)
        }
        _ => Ok(None),
    }
}

/// Running results of all groups at all steps.
#[derive(Clone)]
struct Sums {
    op: AggregateOp,
    steps: usize,
    pos: Pos,
    groups: Vec<Group>,
}

#[derive(Clone)]
struct Group {
    /// Steps with any sample that counts.
    seen: Bits,
    /// Sums, extremes or means, by `op`.
    floats: Vec<f64>,
    /// What rounding took of a sum; squares of a variance.
    lost: Vec<f64>,
    counts: Vec<f64>,
    means: Vec<Option<Mean>>,
    has_float: Bits,
    /// Empty until the group has a histogram.
    histograms: Vec<HistogramState>,
    drop_name: bool,
}

#[derive(Clone, Default)]
enum HistogramState {
    #[default]
    None,
    Sum(Box<HistogramSum>),
    Incompatible,
}

impl Sums {
    fn new(op: AggregateOp, groups: usize, steps: usize, pos: Pos) -> Self {
        let counts = matches!(op, AggregateOp::Count | AggregateOp::Stddev | AggregateOp::Stdvar);
        let lost = matches!(op, AggregateOp::Sum | AggregateOp::Stddev | AggregateOp::Stdvar);
        let extreme = matches!(op, AggregateOp::Min | AggregateOp::Max);
        let vector = |wanted: bool| vec![0.0; if wanted { steps } else { 0 }];
        let group = Group {
            seen: Bits::new(steps),
            // NaN gives way to every other value.
            floats: vec![if extreme { f64::NAN } else { 0.0 }; steps],
            lost: vector(lost),
            counts: vector(counts),
            means: if op == AggregateOp::Avg { vec![None; steps] } else { Vec::new() },
            has_float: Bits::new(steps),
            histograms: Vec::new(),
            drop_name: false,
        };
        Self { op, steps, pos, groups: vec![group; groups] }
    }

    fn add(&mut self, group: usize, column: &Column, labels: &Labels, notes: &mut Annotations) {
        let (op, pos, steps) = (self.op, self.pos, self.steps);
        let group = &mut self.groups[group];
        group.drop_name |= column.drop_name;
        if !column.histograms.is_empty() {
            group.add_histograms(op, column, labels, steps, pos, notes);
        }
        group.seen.or(&column.present);
        group.has_float.or(&column.present);
        let floats = &column.floats;
        match op {
            AggregateOp::Sum if column.present.is_full(steps) => {
                for ((sum, lost), value) in group.floats.iter_mut().zip(&mut group.lost).zip(floats) {
                    let mut kahan = Kahan { sum: *sum, lost: *lost };
                    kahan.add(*value);
                    (*sum, *lost) = (kahan.sum, kahan.lost);
                }
            }
            AggregateOp::Sum => {
                for at in column.present.iter() {
                    let mut kahan = Kahan { sum: group.floats[at], lost: group.lost[at] };
                    kahan.add(floats[at]);
                    (group.floats[at], group.lost[at]) = (kahan.sum, kahan.lost);
                }
            }
            AggregateOp::Avg => {
                for at in column.present.iter() {
                    match &mut group.means[at] {
                        Some(mean) => mean.add(floats[at]),
                        empty => *empty = Some(Mean::new(floats[at])),
                    }
                }
            }
            AggregateOp::Count => column.present.iter().for_each(|at| group.counts[at] += 1.0),
            AggregateOp::Min | AggregateOp::Max => {
                for at in column.present.iter() {
                    group.extreme(op, at, floats[at]);
                }
            }
            AggregateOp::Stddev | AggregateOp::Stdvar => {
                for at in column.present.iter() {
                    let value = floats[at];
                    group.counts[at] += 1.0;
                    if group.counts[at] == 1.0 {
                        group.floats[at] = value;
                        group.lost[at] = if value.is_finite() { 0.0 } else { f64::NAN };
                    } else {
                        let delta = value - group.floats[at];
                        group.floats[at] += delta / group.counts[at];
                        group.lost[at] += delta * (value - group.floats[at]);
                    }
                }
            }
            _ => {}
        }
    }

    /// Adds all series, each of which `run` writes into an empty column.
    fn of_series<S: Default>(
        self,
        context: &Context<'_>,
        series: &[Series],
        groups: Groups,
        run: impl Fn(usize, &mut S, &mut Column, &mut Annotations) -> Result<bool> + Sync,
        notes: &mut Annotations,
    ) -> Result<Vec<Column>> {
        let all: Vec<usize> = (0..series.len()).collect();
        let parts = context.share(&all, |part| {
            let mut sums = self.clone();
            let (mut scratch, mut notes) = (S::default(), Annotations::default());
            let mut column = Column::new(Labels::default(), sums.steps);
            for &at in part {
                column.present.reset();
                column.histograms.clear();
                if run(at, &mut scratch, &mut column, &mut notes)? {
                    sums.add(groups.of[at], &column, &series[at].labels, &mut notes);
                }
            }
            Ok((sums, notes))
        })?;
        let mut merged = self.clone();
        for (position, (sums, part_notes)) in parts.into_iter().enumerate() {
            notes.merge(part_notes);
            if position == 0 {
                merged = sums;
            } else {
                merged.merge(sums, notes);
            }
        }
        Ok(merged.finish(groups.labels, notes))
    }

    /// Adds what another thread has found; only for operations whose parts add up.
    fn merge(&mut self, other: Self, notes: &mut Annotations) {
        for (into, from) in self.groups.iter_mut().zip(other.groups) {
            into.drop_name |= from.drop_name;
            match self.op {
                AggregateOp::Sum => {
                    for at in from.has_float.iter() {
                        let mut kahan = Kahan { sum: into.floats[at], lost: into.lost[at] };
                        kahan.add(from.floats[at]);
                        kahan.lost += from.lost[at];
                        (into.floats[at], into.lost[at]) = (kahan.sum, kahan.lost);
                    }
                }
                AggregateOp::Avg => {
                    for (into, from) in into.means.iter_mut().zip(&from.means) {
                        match (&mut *into, from) {
                            (Some(into), Some(from)) => into.merge(*from),
                            (None, from) => *into = *from,
                            (Some(_), None) => {}
                        }
                    }
                }
                AggregateOp::Count => {
                    into.counts.iter_mut().zip(&from.counts).for_each(|(into, from)| *into += from);
                }
                AggregateOp::Min | AggregateOp::Max => {
                    for at in from.has_float.iter() {
                        into.extreme(self.op, at, from.floats[at]);
                    }
                }
                _ => {}
            }
            into.seen.or(&from.seen);
            into.has_float.or(&from.has_float);
            if into.histograms.is_empty() {
                into.histograms = from.histograms;
                continue;
            }
            for (into, from) in into.histograms.iter_mut().zip(from.histograms) {
                match (&mut *into, from) {
                    (_, HistogramState::None) | (HistogramState::Incompatible, _) => {}
                    (HistogramState::None, from) => *into = from,
                    (HistogramState::Sum(_), HistogramState::Incompatible) => {
                        *into = HistogramState::Incompatible;
                    }
                    (HistogramState::Sum(sum), HistogramState::Sum(other)) => {
                        if sum.merge(&other).is_err() {
                            notes.mixed_exponential_custom("", self.pos);
                            *into = HistogramState::Incompatible;
                        }
                    }
                }
            }
        }
    }

    fn finish(self, labels: Vec<Labels>, notes: &mut Annotations) -> Vec<Column> {
        let (op, pos) = (self.op, self.pos);
        let mut columns = Vec::with_capacity(labels.len());
        for (group, labels) in self.groups.into_iter().zip(labels) {
            if !group.seen.any() {
                continue;
            }
            let mut column = Column::new(labels, self.steps);
            column.drop_name = group.drop_name;
            for at in group.seen.iter() {
                let state = group.histograms.get(at).unwrap_or(&HistogramState::None);
                match state {
                    HistogramState::Incompatible => {
                        if group.has_float.get(at) {
                            notes.mixed_in_aggregation(pos);
                        }
                        continue;
                    }
                    HistogramState::Sum(_) if group.has_float.get(at) => {
                        notes.mixed_in_aggregation(pos);
                        continue;
                    }
                    HistogramState::Sum(sum) => {
                        sum.tell(notes, pos);
                        let sum = sum.clone();
                        let mut result = if op == AggregateOp::Avg { sum.mean() } else { sum.total() };
                        result.compact();
                        column.set_histogram(at, result.into());
                        continue;
                    }
                    HistogramState::None => {}
                }
                column.set_float(
                    at,
                    match op {
                        AggregateOp::Sum => group.floats[at] + group.lost[at],
                        AggregateOp::Avg => group.means[at].map_or(f64::NAN, Mean::mean),
                        AggregateOp::Count => group.counts[at],
                        AggregateOp::Group => 1.0,
                        AggregateOp::Stdvar => group.lost[at] / group.counts[at],
                        AggregateOp::Stddev => (group.lost[at] / group.counts[at]).sqrt(),
                        _ => group.floats[at],
                    },
                );
            }
            if !column.is_empty() {
                columns.push(column);
            }
        }
        columns
    }
}

impl Group {
    #[inline]
    fn extreme(&mut self, op: AggregateOp, at: usize, value: f64) {
        let known = self.floats[at];
        let better = if op == AggregateOp::Max { known < value } else { known > value };
        if better || known.is_nan() {
            self.floats[at] = value;
        }
    }

    fn add_histograms(
        &mut self,
        op: AggregateOp,
        column: &Column,
        labels: &Labels,
        steps: usize,
        pos: Pos,
        notes: &mut Annotations,
    ) {
        for (at, histogram) in column.histograms.iter().enumerate() {
            let Some(histogram) = histogram else { continue };
            match op {
                AggregateOp::Count => {
                    self.seen.set(at);
                    self.counts[at] += 1.0;
                }
                AggregateOp::Group => self.seen.set(at),
                AggregateOp::Sum | AggregateOp::Avg => {
                    self.seen.set(at);
                    if self.histograms.is_empty() {
                        self.histograms.resize(steps, HistogramState::None);
                    }
                    let state = &mut self.histograms[at];
                    match state {
                        HistogramState::Incompatible => {}
                        HistogramState::None => {
                            *state = HistogramState::Sum(Box::new(HistogramSum::new(histogram)));
                        }
                        HistogramState::Sum(sum) => {
                            let added = if op == AggregateOp::Avg {
                                sum.add_to_mean(histogram)
                            } else {
                                sum.add(histogram)
                            };
                            if added.is_err() {
                                notes.mixed_exponential_custom(labels.metric_name(), pos);
                                *state = HistogramState::Incompatible;
                            }
                        }
                    }
                }
                _ => notes.ignored_in_aggregation(op.name(), pos),
            }
        }
    }
}

fn quantiles(
    columns: &[Column],
    groups: &Groups,
    q: &[f64],
    (parameter_pos, pos): (Pos, Pos),
    steps: &Steps,
    notes: &mut Annotations,
) -> Vec<Column> {
    let all = || q.iter().copied();
    if all().any(f64::is_nan) {
        notes.invalid_quantile(f64::NAN, parameter_pos);
    }
    let (least, most) = (all().fold(f64::INFINITY, f64::min), all().fold(f64::NEG_INFINITY, f64::max));
    if most > 1.0 {
        notes.invalid_quantile(most, parameter_pos);
    }
    if least < 0.0 {
        notes.invalid_quantile(least, parameter_pos);
    }
    let mut members: Vec<Vec<&Column>> = vec![Vec::new(); groups.labels.len()];
    for (column, group) in columns.iter().zip(&groups.of) {
        members[*group].push(column);
        if column.histograms.iter().any(Option::is_some) {
            notes.ignored_in_aggregation("quantile", pos);
        }
    }
    let mut values = Vec::new();
    let mut results = Vec::new();
    for (members, labels) in members.iter().zip(&groups.labels) {
        let mut column = Column::new(labels.clone(), steps.count);
        column.drop_name = members.iter().any(|column| column.drop_name);
        for (at, q) in q.iter().enumerate() {
            values.clear();
            let present = members.iter().filter(|column| column.present.get(at));
            values.extend(present.map(|column| column.floats[at]));
            if !values.is_empty() {
                column.set_float(at, quantile(*q, &mut values));
            }
        }
        if column.present.any() {
            results.push(column);
        }
    }
    results
}

fn count_values(
    columns: Vec<Column>,
    label: &str,
    grouping: &[String],
    without: bool,
    steps: &Steps,
) -> Result<Vec<Column>> {
    let mut grouping = grouping.to_vec();
    if !without {
        grouping.push(label.to_owned());
    }
    let mut known: HashMap<(Labels, String), Labels> = HashMap::new();
    let mut results: HashMap<Labels, Column> = HashMap::new();
    for column in columns {
        for at in 0..steps.count {
            let Some(sample) = column.sample(at) else { continue };
            let value = match sample {
                Sample::Float(value) => float(value),
                Sample::Histogram(histogram) => histogram.to_string(),
            };
            let key = (column.labels.clone(), value);
            let labels = known.entry(key).or_insert_with_key(|(labels, value)| {
                Groups::new([labels.with(label, value)].iter(), &grouping, without).labels[0].clone()
            });
            let result =
                results.entry(labels.clone()).or_insert_with(|| Column::new(labels.clone(), steps.count));
            let count = result.floats[at] + 1.0;
            result.set_float(at, count);
        }
    }
    merge_same(results.into_values().collect())
}
