//! `info()`: labels of info metrics put onto the series they describe.

use std::collections::BTreeMap;

use hashbrown::{HashMap, HashSet};

use super::{Bits, Column, Context, Result, Steps, eval_vector, merge_same, selector};
use crate::{
    annotations::Annotations,
    engine::Error,
    labels::{Labels, METRIC_NAME, MatchOp, Matcher},
    parser::{At, Duration, Expr},
    source::{Hints, Selection},
};

/// Labels by which an info metric names what it describes.
const IDENTIFYING: [&str; 2] = ["instance", "job"];

/// Evaluates `info(vector, selector)`.
pub(super) fn info(
    context: &Context<'_>,
    args: &[Expr],
    steps: &Steps,
    notes: &mut Annotations,
) -> Result<Vec<Column>> {
    let base = eval_vector(context, &args[0], steps, notes)?;
    let matchers: &[Matcher] = match args.get(1).map(Expr::unwrapped) {
        Some(Expr::Vector(selector)) => &selector.matchers,
        Some(Expr::StepInvariant(inner)) => match &**inner {
            Expr::Vector(selector) => &selector.matchers,
            _ => &[],
        },
        _ => &[],
    };
    let names: Vec<Matcher> =
        matchers.iter().filter(|matcher| matcher.name == METRIC_NAME).cloned().collect();
    let data: Vec<&Matcher> = matchers.iter().filter(|matcher| matcher.name != METRIC_NAME).collect();
    let names = effective_names(names);
    let is_info = |labels: &Labels| names.iter().all(|matcher| matcher.matches(labels.metric_name()));
    let infos = fetch(context, &args[0], &base, &names, &data, steps, &is_info)?;
    combine(base, &infos, &data, steps, &is_info)
}

fn effective_names(mut names: Vec<Matcher>) -> Vec<Matcher> {
    let matcher = |op, value: &str| Matcher::new(op, METRIC_NAME, value).ok();
    if names.iter().any(|matcher| matches!(matcher.op, MatchOp::Equal | MatchOp::Regex)) {
        return names;
    }
    names.extend(if names.is_empty() {
        matcher(MatchOp::Equal, "target_info")
    } else {
        matcher(MatchOp::Regex, ".+_info")
    });
    names
}

/// The `@` and the offset of the first selector below.
fn first_times<'e>(expr: &'e Expr, outer: &mut Vec<(Option<&'e Duration>, Option<At>)>) -> bool {
    match expr {
        Expr::Vector(selector) | Expr::Matrix { selector, .. } => {
            outer.push((selector.offset.as_ref(), selector.at));
            true
        }
        Expr::Subquery { expr, offset, at, .. } => {
            outer.push((offset.as_ref(), *at));
            if first_times(expr, outer) {
                return true;
            }
            outer.pop();
            false
        }
        expr => expr.children().into_iter().any(|child| first_times(child, outer)),
    }
}

fn fetch(
    context: &Context<'_>,
    arg: &Expr,
    base: &[Column],
    names: &[Matcher],
    data: &[&Matcher],
    steps: &Steps,
    is_info: &dyn Fn(&Labels) -> bool,
) -> Result<Vec<Column>> {
    let mut values: BTreeMap<&str, HashSet<&str>> = BTreeMap::new();
    for column in base.iter().filter(|column| !is_info(&column.labels)) {
        for label in IDENTIFYING {
            let value = column.labels.get(label);
            if !value.is_empty() {
                values.entry(label).or_default().insert(value);
            }
        }
    }
    if values.is_empty() {
        return Ok(Vec::new());
    }
    let mut matchers = names.to_vec();
    for (label, values) in &values {
        let mut values: Vec<String> = values.iter().map(|value| regex::escape(value)).collect();
        values.sort();
        let matcher = Matcher::new(MatchOp::Regex, *label, values.join("|"));
        matchers.push(matcher.map_err(Error::execution)?);
    }
    matchers.extend(data.iter().map(|matcher| (*matcher).clone()));
    let mut times = Vec::new();
    first_times(arg, &mut times);
    let mut lookup = context.lookup(None, None, arg.pos())?;
    for (offset, at) in times.into_iter().rev() {
        let part = context.lookup(offset, at, arg.pos())?;
        lookup.offset += part.offset;
        if part.at.is_some() {
            lookup.at = part.at;
            break;
        }
    }
    let (first, last) = lookup.span(steps);
    let hints = Hints { function: Some("info"), step_ms: steps.step, ..Hints::default() };
    let start_ms = first - context.lookback + 1;
    let series = context.select_raw(&Selection { matchers: &matchers, start_ms, end_ms: last, hints })?;
    // The value is of no interest, the sample's time decides between two of one target.
    let infos =
        selector::look_up(context, series, steps, (lookup, false), |column, step, found| match found {
            selector::Found::Float { time, .. } => column.set_float(step, time as f64),
            selector::Found::Histogram { value, .. } => column.set_histogram(step, value.clone()),
        })?;
    match infos.iter().find(|column| column.histograms.iter().any(Option::is_some)) {
        Some(column) => {
            let message = "this should be an info metric, with float samples";
            Err(Error::execution(format!("{message}: {}", column.labels)))
        }
        None => Ok(infos),
    }
}

/// The name of an info metric and whom it describes.
fn signature(name: &str, labels: &Labels) -> Labels {
    let identifying = IDENTIFYING.map(|label| (label, labels.get(label)));
    Labels::new(identifying.into_iter().chain([(METRIC_NAME, name)]))
}

fn combine(
    base: Vec<Column>,
    infos: &[Column],
    data: &[&Matcher],
    steps: &Steps,
    is_info: &dyn Fn(&Labels) -> bool,
) -> Result<Vec<Column>> {
    let mut by_signature: HashMap<Labels, Vec<&Column>> = HashMap::new();
    let mut names: Vec<&str> = Vec::new();
    for column in infos {
        let name = column.labels.metric_name();
        by_signature.entry(signature(name, &column.labels)).or_default().push(column);
        if !names.contains(&name) {
            names.push(name);
        }
    }
    names.sort_unstable();
    let optional = data.iter().all(|matcher| matcher.matches(""));
    let mut results = Vec::new();
    for column in base {
        if is_info(&column.labels) {
            results.push(column);
            continue;
        }
        let candidates: Vec<&Vec<&Column>> =
            (names.iter()).filter_map(|name| by_signature.get(&signature(name, &column.labels))).collect();
        let mut by_labels: HashMap<Labels, Bits> = HashMap::new();
        for at in column.filled().iter() {
            let mut added: BTreeMap<&str, &str> = BTreeMap::new();
            let mut any = false;
            for candidates in &candidates {
                let Some(newest) = newest(candidates, at)? else { continue };
                any = true;
                for (name, value) in newest.labels.iter().filter(|(name, _)| *name != METRIC_NAME) {
                    if !data.is_empty() && !data.iter().any(|matcher| matcher.name == name) {
                        continue;
                    }
                    if added.get(name).is_some_and(|known| *known != value) {
                        return Err(Error::execution(format!("conflicting label: {name}")));
                    }
                    if column.labels.get(name).is_empty() {
                        added.insert(name, value);
                    }
                }
            }
            if !any && !optional {
                continue;
            }
            let labels = added
                .into_iter()
                .fold(column.labels.clone(), |labels, (name, value)| labels.with(name, value));
            by_labels.entry(labels).or_insert_with(|| Bits::new(steps.count)).set(at);
        }
        for (labels, at) in by_labels {
            let mut part = column.clone();
            part.keep(&at);
            part.labels = labels;
            results.push(part);
        }
    }
    merge_same(results)
}

fn newest<'c>(candidates: &[&'c Column], at: usize) -> Result<Option<&'c Column>> {
    let mut newest: Option<&Column> = None;
    for candidate in candidates.iter().filter(|candidate| candidate.present.get(at)) {
        let time = candidate.floats[at];
        match newest {
            Some(known) if known.floats[at] == time => {
                return Err(Error::execution(format!(
                    "found duplicate series for info metric: existing {} @ {time}, new {} @ {time}",
                    known.labels, candidate.labels
                )));
            }
            Some(known) if known.floats[at] > time => {}
            _ => newest = Some(candidate),
        }
    }
    Ok(newest)
}
