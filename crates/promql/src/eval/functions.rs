//! Calls: functions of each sample alone, of the time, and the way to all others.

use super::{
    Column, Context, Eval, Result, Steps, classic, eval_scalar, eval_vector, info, merge_same, relabel,
    selector::{self, Found},
    windows::RangeCall,
};
use crate::{
    annotations::Annotations,
    calendar::Date,
    engine::Error,
    histogram::{Histogram, variance},
    labels::{Labels, METRIC_NAME, MatchOp, Matcher},
    parser::{Edges, Expr, Pos},
    source::Hints,
};

/// Evaluates a call.
pub(super) fn call(
    context: &Context<'_>,
    name: &'static str,
    args: &[Expr],
    pos: Pos,
    steps: &Steps,
    notes: &mut Annotations,
) -> Result<Eval> {
    if name == "absent_over_time" {
        return absent_over_time(context, name, args, steps, notes).map(Eval::Vector);
    }
    if let Some(range_call) = RangeCall::new(context, name, args, steps, Hints::default(), notes)? {
        return range_call.columns(notes).map(Eval::Vector);
    }
    if let Some(function) = number_function(name) {
        let columns = eval_vector(context, &args[0], steps, notes)?;
        return each_float(context, columns, |_, value| function(value)).map(Eval::Vector);
    }
    if let Some(function) = date_function(name) {
        let Some(arg) = args.first() else {
            let mut column = Column::new(Labels::default(), steps.count);
            for at in 0..steps.count {
                column.set_float(at, function(Date::of(steps.time(at) / 1000)) as f64);
            }
            return Ok(Eval::Vector(vec![column]));
        };
        let columns = eval_vector(context, arg, steps, notes)?;
        let part = |_, value: f64| function(Date::of(value as i64)) as f64;
        return each_float(context, columns, part).map(Eval::Vector);
    }
    if let Some(function) = histogram_function(name) {
        let mut columns = eval_vector(context, &args[0], steps, notes)?;
        for column in &mut columns {
            column.present.reset();
            for (at, histogram) in std::mem::take(&mut column.histograms).into_iter().enumerate() {
                if let Some(histogram) = histogram {
                    column.set_float(at, function(&histogram));
                }
            }
        }
        return renamed(context, columns).map(Eval::Vector);
    }
    let scalar = |at: usize, notes: &mut Annotations| eval_scalar(context, &args[at], steps, notes);
    let vector = |at: usize, notes: &mut Annotations| eval_vector(context, &args[at], steps, notes);
    Ok(match name {
        "time" => Eval::Scalar((0..steps.count).map(|at| steps.time(at) as f64 / 1000.0).collect()),
        "pi" => Eval::Scalar(vec![std::f64::consts::PI; steps.count]),
        "max_of" | "min_of" => {
            let (mut left, right) = (scalar(0, notes)?, scalar(1, notes)?);
            let choose = if name == "max_of" { go_max } else { go_min };
            left.iter_mut().zip(right).for_each(|(left, right)| *left = choose(*left, right));
            Eval::Scalar(left)
        }
        "scalar" => Eval::Scalar(as_scalar(&vector(0, notes)?, steps)),
        "vector" => {
            let mut column = Column::new(Labels::default(), steps.count);
            for (at, value) in scalar(0, notes)?.into_iter().enumerate() {
                column.set_float(at, value);
            }
            Eval::Vector(vec![column])
        }
        "clamp" | "clamp_min" | "clamp_max" => {
            let columns = vector(0, notes)?;
            let first = scalar(1, notes)?;
            let (least, most) = match name {
                "clamp_min" => (first, vec![f64::INFINITY; steps.count]),
                "clamp_max" => (vec![f64::NEG_INFINITY; steps.count], first),
                _ => (first, scalar(2, notes)?),
            };
            Eval::Vector(clamp(context, columns, &least, &most)?)
        }
        "round" => {
            let columns = vector(0, notes)?;
            let nearest = if args.len() > 1 { scalar(1, notes)? } else { vec![1.0; steps.count] };
            Eval::Vector(each_float(context, columns, |at, value| {
                let inverse = 1.0 / nearest[at];
                (value * inverse + 0.5).floor() / inverse
            })?)
        }
        "timestamp" | "start_timestamp" => {
            Eval::Vector(timestamp(context, name == "timestamp", &args[0], steps, notes)?)
        }
        "absent" => Eval::Vector(absent(&vector(0, notes)?, &args[0], steps)),
        "sort" | "sort_desc" | "sort_by_label" | "sort_by_label_desc" => {
            if context.steps.count > 1 {
                notes.sort_in_range_query(pos);
            }
            let columns = vector(0, notes)?;
            let labels: Vec<&str> = args[1..].iter().map(super::text).collect();
            Eval::Vector(relabel::sort(columns, name, &labels))
        }
        "label_replace" => Eval::Vector(relabel::replace(vector(0, notes)?, args)?),
        "label_join" => Eval::Vector(relabel::join(vector(0, notes)?, args)?),
        "histogram_quantile" => {
            let q = scalar(0, notes)?;
            let columns = vector(1, notes)?;
            let quantiles = [(q, args[0].pos(), None)];
            Eval::Vector(classic::quantiles(context, columns, &quantiles, args[1].pos(), steps, notes)?)
        }
        "histogram_quantiles" => {
            let columns = vector(0, notes)?;
            let label = super::text(&args[1]);
            let mut quantiles = Vec::new();
            for (at, arg) in args.iter().enumerate().skip(2) {
                quantiles.push((scalar(at, notes)?, arg.pos(), Some(label)));
            }
            Eval::Vector(classic::quantiles(context, columns, &quantiles, args[0].pos(), steps, notes)?)
        }
        "histogram_fraction" => {
            let (lower, upper) = (scalar(0, notes)?, scalar(1, notes)?);
            let columns = vector(2, notes)?;
            let bounds = (&lower[..], &upper[..]);
            Eval::Vector(classic::fraction(context, columns, bounds, args[2].pos(), steps, notes)?)
        }
        "info" => Eval::Vector(info::info(context, args, steps, notes)?),
        _ => return Err(Error::execution(format!("function {name} cannot be evaluated here"))),
    })
}

/// The larger one; NaN unless one is infinite.
fn go_max(a: f64, b: f64) -> f64 {
    match (a.is_nan() || b.is_nan(), a == f64::INFINITY || b == f64::INFINITY) {
        (_, true) => f64::INFINITY,
        (true, false) => f64::NAN,
        (false, false) => a.max(b),
    }
}

fn go_min(a: f64, b: f64) -> f64 {
    -go_max(-a, -b)
}

/// Columns under their new names; fails if two become one.
fn renamed(context: &Context<'_>, columns: Vec<Column>) -> Result<Vec<Column>> {
    let mut columns: Vec<Column> = columns.into_iter().filter(|column| !column.is_empty()).collect();
    columns.iter_mut().for_each(|column| context.drop_name(column));
    if context.engine.delayed_name_removal { Ok(columns) } else { merge_same(columns) }
}

/// Changes each float; histograms go.
fn each_float(
    context: &Context<'_>,
    mut columns: Vec<Column>,
    change: impl Fn(usize, f64) -> f64,
) -> Result<Vec<Column>> {
    for column in &mut columns {
        column.histograms.clear();
        for at in column.present.iter() {
            column.floats[at] = change(at, column.floats[at]);
        }
    }
    renamed(context, columns)
}

/// Unary minus.
pub(super) fn negate(context: &Context<'_>, value: Eval) -> Result<Eval> {
    match value {
        Eval::Scalar(values) => Ok(Eval::Scalar(values.into_iter().map(|value| -value).collect())),
        Eval::Vector(mut columns) => {
            for column in &mut columns {
                column.floats.iter_mut().for_each(|value| *value = -*value);
                for histogram in column.histograms.iter_mut().flatten() {
                    std::sync::Arc::make_mut(histogram).scale(-1.0);
                }
            }
            renamed(context, columns).map(Eval::Vector)
        }
        Eval::String(_) => Err(Error::execution("a string cannot be negated")),
    }
}

fn number_function(name: &str) -> Option<fn(f64) -> f64> {
    Some(match name {
        "abs" => f64::abs,
        "ceil" => f64::ceil,
        "floor" => f64::floor,
        "exp" => f64::exp,
        "sqrt" => f64::sqrt,
        "ln" => f64::ln,
        "log2" => f64::log2,
        "log10" => f64::log10,
        "sin" => f64::sin,
        "cos" => f64::cos,
        "tan" => f64::tan,
        "asin" => f64::asin,
        "acos" => f64::acos,
        "atan" => f64::atan,
        "sinh" => f64::sinh,
        "cosh" => f64::cosh,
        "tanh" => f64::tanh,
        "asinh" => f64::asinh,
        "acosh" => f64::acosh,
        "atanh" => f64::atanh,
        "rad" => |value| value * std::f64::consts::PI / 180.0,
        "deg" => |value| value * 180.0 / std::f64::consts::PI,
        "sgn" => |value| {
            if value < 0.0 {
                -1.0
            } else if value > 0.0 {
                1.0
            } else {
                value
            }
        },
        _ => return None,
    })
}

fn date_function(name: &str) -> Option<fn(Date) -> i64> {
    Some(match name {
        "days_in_month" => Date::days_in_month,
        "day_of_month" => |date| date.day,
        "day_of_week" => |date| date.weekday,
        "day_of_year" => |date| date.day_of_year,
        "hour" => |date| date.hour,
        "minute" => |date| date.minute,
        "month" => |date| date.month,
        "year" => |date| date.year,
        _ => return None,
    })
}

fn histogram_function(name: &str) -> Option<fn(&Histogram) -> f64> {
    Some(match name {
        "histogram_count" => |histogram| histogram.count,
        "histogram_sum" => |histogram| histogram.sum,
        "histogram_avg" => |histogram| histogram.sum / histogram.count,
        "histogram_stdvar" => variance,
        "histogram_stddev" => |histogram| variance(histogram).sqrt(),
        _ => return None,
    })
}

fn as_scalar(columns: &[Column], steps: &Steps) -> Vec<f64> {
    let mut values = vec![f64::NAN; steps.count];
    let mut counts = vec![0u8; steps.count];
    for column in columns {
        for at in column.present.iter() {
            counts[at] = counts[at].saturating_add(1);
            values[at] = if counts[at] == 1 { column.floats[at] } else { f64::NAN };
        }
    }
    values
}

fn clamp(context: &Context<'_>, columns: Vec<Column>, least: &[f64], most: &[f64]) -> Result<Vec<Column>> {
    let mut columns = each_float(context, columns, |at, value| go_max(least[at], go_min(most[at], value)))?;
    for column in &mut columns {
        for at in 0..least.len() {
            if most[at] < least[at] {
                column.present.clear(at);
            }
        }
    }
    columns.retain(|column| !column.is_empty());
    Ok(columns)
}

fn timestamp(
    context: &Context<'_>,
    of_sample: bool,
    arg: &Expr,
    steps: &Steps,
    notes: &mut Annotations,
) -> Result<Vec<Column>> {
    let inner = match arg {
        Expr::StepInvariant(inner) => inner.unwrapped(),
        arg => arg.unwrapped(),
    };
    if let Expr::Vector(selector) = inner
        && selector.edges == Edges::Plain
    {
        let known = of_sample || context.engine.use_start_timestamps;
        let hints = Hints { function: Some("timestamp"), step_ms: steps.step, ..Hints::default() };
        let columns = selector::each(context, selector, steps, hints, |column, step, found| {
            let (Found::Float { time, start, .. } | Found::Histogram { time, start, .. }) = found;
            if known {
                column.set_float(step, if of_sample { time } else { start } as f64 / 1000.0);
            }
        })?;
        return renamed(context, columns);
    }
    if !of_sample {
        return Ok(Vec::new());
    }
    let mut columns = eval_vector(context, arg, steps, notes)?;
    for column in &mut columns {
        for at in column.filled().iter() {
            column.set_float(at, steps.time(at) as f64 / 1000.0);
        }
        column.histograms.clear();
    }
    renamed(context, columns)
}

fn absent(columns: &[Column], arg: &Expr, steps: &Steps) -> Vec<Column> {
    let mut column = Column::new(absent_labels(arg), steps.count);
    let mut filled = super::Bits::new(steps.count);
    columns.iter().for_each(|column| filled.or(&column.filled()));
    for at in (0..steps.count).filter(|at| !filled.get(*at)) {
        column.set_float(at, 1.0);
    }
    if column.is_empty() { Vec::new() } else { vec![column] }
}

fn absent_over_time(
    context: &Context<'_>,
    name: &'static str,
    args: &[Expr],
    steps: &Steps,
    notes: &mut Annotations,
) -> Result<Vec<Column>> {
    let Some(range_call) = RangeCall::new(context, name, args, steps, Hints::default(), notes)? else {
        return Err(Error::execution("a range vector was expected"));
    };
    // Label sets may become alike here without harm: only whether there is anything counts.
    let columns = range_call.present()?;
    Ok(absent(&columns, &args[0], steps))
}

/// Labels of the sample that says "nothing": those the selector pins to one value.
fn absent_labels(arg: &Expr) -> Labels {
    let matchers: &[Matcher] = match arg {
        Expr::Vector(selector) | Expr::Matrix { selector, .. } => &selector.matchers,
        Expr::StepInvariant(inner) | Expr::Paren { expr: inner, .. } => return absent_labels(inner),
        _ => &[],
    };
    let pinned = matchers.iter().filter(|matcher| {
        let of_label = || matchers.iter().filter(|other| other.name == matcher.name);
        matcher.name != METRIC_NAME && matcher.op == MatchOp::Equal && of_label().count() == 1
    });
    Labels::new(pinned.map(|matcher| (matcher.name.as_str(), matcher.value.as_str())))
}
