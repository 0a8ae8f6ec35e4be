//! Quantiles and fractions of native histograms and of classic ones, whose buckets are series.

use hashbrown::HashMap;

use super::{Column, Context, Result, Steps, merge_same, refuse_same};
use crate::{
    annotations::Annotations,
    format::float,
    histogram::{self, NanNote},
    labels::Labels,
    parser::Pos,
};

const BUCKET: &str = "le";

/// Quantiles wanted at each step, where they stand in the query, and the label that tells them apart.
pub(super) type Quantile<'a> = (Vec<f64>, Pos, Option<&'a str>);

/// A classic histogram: its bucket series by upper bound.
struct Classic {
    labels: Labels,
    drop_name: bool,
    /// Upper bound and column, sorted by bound.
    buckets: Vec<(f64, usize)>,
}

/// Native histograms and classic ones among the columns.
struct Split<'a> {
    context: &'a Context<'a>,
    columns: Vec<Column>,
    classic: Vec<Classic>,
    /// Native series whose labels a classic histogram has too.
    twins: HashMap<Labels, usize>,
    pos: Pos,
}

impl<'a> Split<'a> {
    fn new(context: &'a Context<'a>, columns: Vec<Column>, pos: Pos, notes: &mut Annotations) -> Self {
        let mut known: HashMap<Labels, usize> = HashMap::new();
        let mut classic: Vec<Classic> = Vec::new();
        for (at, column) in columns.iter().enumerate().filter(|(_, column)| column.present.any()) {
            let label = column.labels.get(BUCKET);
            let Some(bound) = parse_bound(label) else {
                notes.bad_bucket_label(context.late_name(&column.labels), label, pos);
                continue;
            };
            let labels = column.labels.filter(|label| label != BUCKET);
            let next = classic.len();
            let group = *known.entry(labels.clone()).or_insert(next);
            if group == next {
                classic.push(Classic { labels, drop_name: column.drop_name, buckets: Vec::new() });
            }
            classic[group].buckets.push((bound, at));
        }
        for group in &mut classic {
            group.buckets.sort_by(|a, b| a.0.total_cmp(&b.0));
        }
        Self { context, columns, classic, twins: known, pos }
    }

    /// Whether a native sample stands beside a classic one with the same labels.
    fn has_twin(&self, column: &Column, at: usize, notes: &mut Annotations) -> bool {
        let Some(group) = self.twins.get(&column.labels) else { return false };
        let twin =
            self.classic[*group].buckets.iter().any(|(_, bucket)| self.columns[*bucket].present.get(at));
        if twin {
            notes.mixed_classic_native(self.context.late_name(&column.labels), self.pos);
        }
        twin
    }

    /// Evaluates `native` on each native sample and `buckets` on each classic histogram, at all steps.
    fn evaluate(
        &self,
        steps: &Steps,
        notes: &mut Annotations,
        native: impl Fn(&histogram::Histogram, usize) -> (f64, Option<NanNote>),
        mut classic: impl FnMut(&mut Vec<(f64, f64)>, usize, &str, &mut Annotations) -> f64,
    ) -> Vec<Column> {
        let mut results = Vec::new();
        for column in self.columns.iter().filter(|column| column.histograms.iter().any(Option::is_some)) {
            let mut result = Column::new(column.labels.clone(), steps.count);
            let name = self.context.late_name(&column.labels);
            for (at, histogram) in column.histograms.iter().enumerate() {
                let Some(histogram) = histogram.as_ref().filter(|_| !self.has_twin(column, at, notes)) else {
                    continue;
                };
                let (value, note) = native(histogram, at);
                match note {
                    Some(NanNote::Result) => notes.quantile_nan_result(name, self.pos),
                    Some(NanNote::Skew) => notes.quantile_nan_skew(name, self.pos),
                    Some(NanNote::Excluded) => notes.fraction_nans(name, self.pos),
                    None => {}
                }
                result.set_float(at, value);
            }
            result.drop_name = column.drop_name;
            results.push(result);
        }
        let mut buckets = Vec::new();
        for group in &self.classic {
            let mut result = Column::new(group.labels.clone(), steps.count);
            let name = self.context.late_name(&group.labels);
            let twins: Vec<&Column> =
                self.columns.iter().filter(|column| column.labels == group.labels).collect();
            for at in 0..steps.count {
                buckets.clear();
                let present =
                    group.buckets.iter().filter(|(_, column)| self.columns[*column].present.get(at));
                buckets.extend(present.map(|(bound, column)| (*bound, self.columns[*column].floats[at])));
                let mixed = twins.iter().any(|column| column.histogram(at).is_some());
                if !buckets.is_empty() && !mixed {
                    result.set_float(at, classic(&mut buckets, at, name, notes));
                }
            }
            result.drop_name = group.drop_name;
            results.push(result);
        }
        results.retain(|column| !column.is_empty());
        results.iter_mut().for_each(|column| self.context.drop_name(column));
        results
    }
}

/// Upper bound of a bucket as its label has it.
fn parse_bound(label: &str) -> Option<f64> {
    label.parse().ok()
}

/// `histogram_quantile` and `histogram_quantiles`.
pub(super) fn quantiles(
    context: &Context<'_>,
    columns: Vec<Column>,
    wanted: &[Quantile<'_>],
    pos: Pos,
    steps: &Steps,
    notes: &mut Annotations,
) -> Result<Vec<Column>> {
    let split = Split::new(context, columns, pos, notes);
    let mut results = Vec::new();
    for (q, q_pos, label) in wanted {
        for &q in q {
            if q.is_nan() || !(0.0..=1.0).contains(&q) {
                notes.invalid_quantile(q, *q_pos);
            }
        }
        let mut columns = split.evaluate(
            steps,
            notes,
            |histogram, at| histogram::quantile(q[at], histogram),
            |buckets, at, name, notes| {
                let (value, forced) = bucket_quantile(q[at], buckets);
                if let Some((bounds, difference)) = forced {
                    notes.forced_monotonicity(name, pos, steps.time(at), bounds, difference);
                }
                value
            },
        );
        match label {
            None => results.extend(columns),
            // A quantile may differ from step to step; each has a series of its own.
            Some(label) => {
                let mut distinct: Vec<f64> = Vec::new();
                for q in q {
                    if !distinct.iter().any(|known| known.to_bits() == q.to_bits()) {
                        distinct.push(*q);
                    }
                }
                for value in distinct {
                    let mut at_value = super::Bits::new(steps.count);
                    let same = q.iter().enumerate().filter(|(_, q)| q.to_bits() == value.to_bits());
                    same.for_each(|(at, _)| at_value.set(at));
                    for column in &mut columns {
                        let mut part = column.clone();
                        part.keep(&at_value);
                        part.labels = part.labels.with(label, &open_metrics_float(value));
                        if !part.is_empty() {
                            results.push(part);
                        }
                    }
                }
            }
        }
    }
    if context.engine.delayed_name_removal {
        return Ok(results);
    }
    if steps.count == 1 {
        refuse_same(&results)?;
    }
    merge_same(results)
}

/// `1.0` rather than `1`.
fn open_metrics_float(value: f64) -> String {
    let text = float(value);
    if value.is_finite() && !text.contains('.') { format!("{text}.0") } else { text }
}

/// `histogram_fraction`.
pub(super) fn fraction(
    context: &Context<'_>,
    columns: Vec<Column>,
    (lower, upper): (&[f64], &[f64]),
    pos: Pos,
    steps: &Steps,
    notes: &mut Annotations,
) -> Result<Vec<Column>> {
    let split = Split::new(context, columns, pos, notes);
    let results = split.evaluate(
        steps,
        notes,
        |histogram, at| histogram::fraction(lower[at], upper[at], histogram),
        |buckets, at, _, _| bucket_fraction(lower[at], upper[at], buckets),
    );
    if context.engine.delayed_name_removal { Ok(results) } else { merge_same(results) }
}

/// How buckets had to be changed to be monotonic: between which bounds, by how much at most.
type Forced = Option<((f64, f64), f64)>;

/// Quantile of cumulative buckets sorted by upper bound.
fn bucket_quantile(q: f64, buckets: &mut Vec<(f64, f64)>) -> (f64, Forced) {
    if q.is_nan() {
        return (f64::NAN, None);
    }
    if q < 0.0 {
        return (f64::NEG_INFINITY, None);
    }
    if q > 1.0 {
        return (f64::INFINITY, None);
    }
    if buckets.last().is_none_or(|last| last.0 != f64::INFINITY) {
        return (f64::NAN, None);
    }
    coalesce(buckets);
    let forced = make_monotonic(buckets);
    let last = buckets.len() - 1;
    let observations = buckets[last].1;
    if last == 0 || observations == 0.0 {
        return (f64::NAN, forced);
    }
    let mut rank = q * observations;
    let at = (0..last).find(|at| buckets[*at].1 >= rank).unwrap_or(last);
    let value = if at == last {
        buckets[last - 1].0
    } else if at == 0 && buckets[0].0 <= 0.0 {
        buckets[0].0
    } else {
        let (end, mut count) = buckets[at];
        let mut start = 0.0;
        if at > 0 {
            start = buckets[at - 1].0;
            count -= buckets[at - 1].1;
            rank -= buckets[at - 1].1;
        }
        start + (end - start) * (rank / count)
    };
    (value, forced)
}

/// Share of the observations between two values.
fn bucket_fraction(lower: f64, upper: f64, buckets: &mut Vec<(f64, f64)>) -> f64 {
    if buckets.last().is_none_or(|last| last.0 != f64::INFINITY) {
        return f64::NAN;
    }
    coalesce(buckets);
    let count = buckets[buckets.len() - 1].1;
    if count == 0.0 || lower.is_nan() || upper.is_nan() {
        return f64::NAN;
    }
    if lower >= upper {
        return 0.0;
    }
    let mut rank = 0.0;
    let (mut lower_rank, mut upper_rank) = (None, None);
    let mut start = if buckets[0].0 <= 0.0 { f64::NEG_INFINITY } else { 0.0 };
    for &(end, total) in buckets.iter() {
        for (value, found) in [(lower, &mut lower_rank), (upper, &mut upper_rank)] {
            if found.is_none() && start >= value {
                *found = Some(rank);
            }
            if found.is_none() && start < value && end > value {
                *found = Some(if start == f64::NEG_INFINITY {
                    total
                } else {
                    rank + (total - rank) * (value - start) / (end - start)
                });
            }
        }
        if lower_rank.is_some() && upper_rank.is_some() {
            break;
        }
        rank = total;
        start = end;
    }
    let capped = |rank: Option<f64>| rank.filter(|rank| *rank <= count).unwrap_or(count);
    (capped(upper_rank) - capped(lower_rank)) / count
}

/// Buckets with the same bound become one.
fn coalesce(buckets: &mut Vec<(f64, f64)>) {
    buckets.dedup_by(|next, kept| {
        let same = next.0 == kept.0;
        if same {
            kept.1 += next.1;
        }
        same
    });
}

/// Counts may not fall; differences of rounding are passed over.
fn make_monotonic(buckets: &mut [(f64, f64)]) -> Forced {
    const TOLERANCE: f64 = 1e-12;
    let mut forced: Forced = None;
    let mut previous = buckets[0].1;
    for (bound, count) in buckets.iter_mut().skip(1) {
        if *count == previous {
            continue;
        }
        if almost_equal(previous, *count, TOLERANCE) {
            *count = previous;
        } else if *count < previous {
            let ((least, most), difference) = forced.unwrap_or(((f64::INFINITY, f64::NEG_INFINITY), 0.0));
            forced = Some(((least.min(*bound), most.max(*bound)), difference.max(previous - *count)));
            *count = previous;
        } else {
            previous = *count;
        }
    }
    forced
}

/// Whether two numbers differ by less than so large a part of their sum.
pub(crate) fn almost_equal(a: f64, b: f64, epsilon: f64) -> bool {
    if a.is_nan() && b.is_nan() || a == b {
        return true;
    }
    let (sum, difference) = (a.abs() + b.abs(), (a - b).abs());
    if a == 0.0 || b == 0.0 || sum < f64::MIN_POSITIVE {
        return difference < epsilon * f64::MIN_POSITIVE;
    }
    difference / sum.min(f64::MAX) < epsilon
}
