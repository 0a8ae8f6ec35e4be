//! Operations between two expressions, by the rules of PromQL.

use hashbrown::HashMap;

use super::{Evaluated, Grid, GridSeries, is_missing, missing};
use crate::{
    LogqlError, SeriesLabels,
    ast::{Binary, BinaryOp, Matching, Side},
};

/// Applies the operation at each time.
pub fn operate(
    grid: Grid,
    binary: &Binary,
    left: Evaluated,
    right: Evaluated,
) -> Result<Evaluated, LogqlError> {
    Ok(match (left, right) {
        (Evaluated::Scalar(a), Evaluated::Scalar(b)) => {
            Evaluated::Scalar(calculate(binary.op, a, b).unwrap_or_else(|truth| f64::from(u8::from(truth))))
        }
        (Evaluated::Vector(series), Evaluated::Scalar(b)) => with_scalar(binary, series, |a| (a, b)),
        (Evaluated::Scalar(a), Evaluated::Vector(series)) => with_scalar(binary, series, |b| (a, b)),
        (Evaluated::Vector(left), Evaluated::Vector(right)) => Evaluated::Vector(match binary.op {
            BinaryOp::And | BinaryOp::Or | BinaryOp::Unless => combine(grid, binary, left, right),
            _ => join(grid, binary, left, right)?,
        }),
    })
}

/// `Ok` is a number, `Err` the truth of a comparison.
fn calculate(op: BinaryOp, a: f64, b: f64) -> Result<f64, bool> {
    match op {
        BinaryOp::Add => Ok(a + b),
        BinaryOp::Sub => Ok(a - b),
        BinaryOp::Mul => Ok(a * b),
        BinaryOp::Div => Ok(a / b),
        BinaryOp::Mod => Ok(a % b),
        BinaryOp::Pow => Ok(a.powf(b)),
        #[allow(clippy::float_cmp)] // the language compares exactly
        BinaryOp::Equal => Err(a == b),
        #[allow(clippy::float_cmp)] // the language compares exactly
        BinaryOp::NotEqual => Err(a != b),
        BinaryOp::Greater => Err(a > b),
        BinaryOp::GreaterEqual => Err(a >= b),
        BinaryOp::Less => Err(a < b),
        BinaryOp::LessEqual => Err(a <= b),
        BinaryOp::And | BinaryOp::Or | BinaryOp::Unless => Err(false),
    }
}

/// The value of a pair; `kept` is what a true filter passes on.
fn apply(binary: &Binary, a: f64, b: f64, kept: f64) -> f64 {
    if is_missing(a) || is_missing(b) {
        return missing();
    }
    match calculate(binary.op, a, b) {
        Ok(value) => value,
        Err(truth) if binary.return_bool => f64::from(u8::from(truth)),
        Err(true) => kept,
        Err(false) => missing(),
    }
}

fn with_scalar(binary: &Binary, mut series: Vec<GridSeries>, pair: impl Fn(f64) -> (f64, f64)) -> Evaluated {
    for value in series.iter_mut().flat_map(|one| &mut one.values) {
        let (a, b) = pair(*value);
        *value = apply(binary, a, b, *value);
    }
    series.retain(|one| one.values.iter().any(|value| !is_missing(*value)));
    Evaluated::Vector(series)
}

/// The labels by which elements find each other.
fn signature(labels: &SeriesLabels, matching: Option<&Matching>) -> SeriesLabels {
    let Some(matching) = matching else { return labels.clone() };
    let chosen = |name: &String| matching.labels.contains(name) == matching.on;
    SeriesLabels(labels.0.iter().filter(|(name, _)| chosen(name)).cloned().collect())
}

fn combine(
    grid: Grid,
    binary: &Binary,
    mut left: Vec<GridSeries>,
    right: Vec<GridSeries>,
) -> Vec<GridSeries> {
    let matching = binary.matching.as_ref();
    let index = |series: &[GridSeries]| {
        let mut index: HashMap<SeriesLabels, Vec<bool>> = HashMap::new();
        for one in series {
            let present =
                index.entry(signature(&one.labels, matching)).or_insert_with(|| vec![false; grid.steps]);
            for (present, value) in present.iter_mut().zip(&one.values) {
                *present |= !is_missing(*value);
            }
        }
        index
    };
    let hide = |series: &mut Vec<GridSeries>, index: &HashMap<SeriesLabels, Vec<bool>>, when: bool| {
        for one in series.iter_mut() {
            let present = index.get(&signature(&one.labels, matching));
            for (at, value) in one.values.iter_mut().enumerate() {
                if present.is_some_and(|present| present[at]) == when {
                    *value = missing();
                }
            }
        }
        series.retain(|one| one.values.iter().any(|value| !is_missing(*value)));
    };
    match binary.op {
        BinaryOp::And => hide(&mut left, &index(&right), false),
        BinaryOp::Unless => hide(&mut left, &index(&right), true),
        _ => {
            let mut right = right;
            hide(&mut right, &index(&left), true);
            // The same labels may come from both sides at different times.
            for one in right {
                match left.iter_mut().find(|known| known.labels == one.labels) {
                    Some(known) => {
                        for (value, other) in known.values.iter_mut().zip(one.values) {
                            if is_missing(*value) {
                                *value = other;
                            }
                        }
                    }
                    None => left.push(one),
                }
            }
        }
    }
    left
}

fn join(
    grid: Grid,
    binary: &Binary,
    left: Vec<GridSeries>,
    right: Vec<GridSeries>,
) -> Result<Vec<GridSeries>, LogqlError> {
    let matching = binary.matching.as_ref();
    let group = matching.and_then(|matching| matching.group.as_ref());
    let many_left = !matches!(group, Some((Side::Right, _)));
    let (many, one_side) = if many_left { (left, right) } else { (right, left) };
    let mut index: HashMap<SeriesLabels, Vec<usize>> = HashMap::new();
    for (at, one) in one_side.iter().enumerate() {
        index.entry(signature(&one.labels, matching)).or_default().push(at);
    }
    let overlap = |a: &GridSeries, b: &GridSeries| {
        (0..grid.steps).any(|at| !is_missing(a.values[at]) && !is_missing(b.values[at]))
    };
    let mut results: HashMap<SeriesLabels, GridSeries> = HashMap::new();
    for element in many {
        let key = signature(&element.labels, matching);
        let Some(partners) = index.get(&key) else { continue };
        for (i, partner) in partners.iter().enumerate() {
            let other = &one_side[*partner];
            if partners[..i].iter().any(|before| overlap(&one_side[*before], other)) {
                return Err(LogqlError::Matching(format!(
                    "many elements on the {} side of `{}` match {key}; group them first",
                    if many_left { "right" } else { "left" },
                    binary.op.name()
                )));
            }
            let mut labels = if group.is_some() { element.labels.clone() } else { key.clone() };
            for name in group.iter().flat_map(|(_, names)| names) {
                labels.set(name, other.labels.get(name));
            }
            let values: Vec<f64> = element
                .values
                .iter()
                .zip(&other.values)
                .map(|(m, o)| {
                    let (a, b) = if many_left { (*m, *o) } else { (*o, *m) };
                    apply(binary, a, b, a)
                })
                .collect();
            let found = GridSeries { labels: labels.clone(), values };
            match results.get_mut(&labels) {
                None => drop(results.insert(labels, found)),
                Some(known) if overlap(known, &found) => {
                    return Err(LogqlError::Matching(format!(
                        "several elements on the left and right of `{}` match {key}; use group_left or group_right",
                        binary.op.name()
                    )));
                }
                Some(known) => {
                    for (value, other) in known.values.iter_mut().zip(found.values) {
                        if is_missing(*value) {
                            *value = other;
                        }
                    }
                }
            }
        }
    }
    let mut results: Vec<GridSeries> =
        results.into_values().filter(|one| one.values.iter().any(|value| !is_missing(*value))).collect();
    results.sort_by(|a, b| a.labels.cmp(&b.labels));
    Ok(results)
}
