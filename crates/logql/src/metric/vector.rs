//! Aggregations of a vector: `sum by (a) (...)`, `topk(5, ...)`.

use hashbrown::HashMap;

use super::{Grid, GridSeries, group_labels, is_missing, missing};
use crate::{
    LogqlError, SeriesLabels,
    ast::{VectorAggregation, VectorOp},
};

/// Aggregates series at each time.
pub fn aggregate(grid: Grid, aggregation: &VectorAggregation, series: Vec<GridSeries>) -> Vec<GridSeries> {
    match aggregation.op {
        VectorOp::Sort | VectorOp::SortDesc => series,
        VectorOp::Topk | VectorOp::Bottomk | VectorOp::ApproxTopk => choose(grid, aggregation, series),
        _ => fold(grid, aggregation, &series),
    }
}

fn groups(aggregation: &VectorAggregation, series: &[GridSeries]) -> Vec<(SeriesLabels, Vec<usize>)> {
    let mut positions: HashMap<SeriesLabels, usize> = HashMap::new();
    let mut groups: Vec<(SeriesLabels, Vec<usize>)> = Vec::new();
    for (at, one) in series.iter().enumerate() {
        let labels = group_labels(&one.labels, aggregation.grouping.as_ref());
        let group = *positions.entry(labels.clone()).or_insert_with(|| {
            groups.push((labels, Vec::new()));
            groups.len() - 1
        });
        groups[group].1.push(at);
    }
    groups
}

fn fold(grid: Grid, aggregation: &VectorAggregation, series: &[GridSeries]) -> Vec<GridSeries> {
    let fold_group = |(labels, members): (SeriesLabels, Vec<usize>)| {
        let values = (0..grid.steps).map(|at| {
            let present =
                || members.iter().map(|member| series[*member].values[at]).filter(|v| !is_missing(*v));
            let count = present().count() as f64;
            if count == 0.0 {
                return missing();
            }
            let mean = || present().sum::<f64>() / count;
            let variance = || {
                let mean = mean();
                present().map(|value| (value - mean) * (value - mean)).sum::<f64>() / count
            };
            match aggregation.op {
                VectorOp::Sum => present().sum(),
                VectorOp::Avg => mean(),
                VectorOp::Min => present().fold(f64::NAN, f64::min),
                VectorOp::Max => present().fold(f64::NAN, f64::max),
                VectorOp::Count => count,
                VectorOp::Stdvar => variance(),
                _ => variance().sqrt(),
            }
        });
        let values = values.collect();
        GridSeries { labels, values }
    };
    groups(aggregation, series).into_iter().map(fold_group).collect()
}

/// Keeps the k largest or smallest of each group at each time; the others go missing there.
fn choose(grid: Grid, aggregation: &VectorAggregation, mut series: Vec<GridSeries>) -> Vec<GridSeries> {
    let k = aggregation.parameter.unwrap_or(1);
    let largest = aggregation.op != VectorOp::Bottomk;
    for (_, mut members) in groups(aggregation, &series) {
        for at in 0..grid.steps {
            let key = |member: &usize| series[*member].values[at];
            members.sort_by(|a, b| {
                let (a, b) = (key(a), key(b));
                let order = if largest { b.total_cmp(&a) } else { a.total_cmp(&b) };
                a.is_nan().cmp(&b.is_nan()).then(order)
            });
            let mut kept = 0;
            for member in &members {
                let value = &mut series[*member].values[at];
                if !is_missing(*value) {
                    kept += 1;
                    if kept > k {
                        *value = missing();
                    }
                }
            }
        }
    }
    series.retain(|one| one.values.iter().any(|value| !is_missing(*value)));
    series
}

/// Fails when two series have the same labels.
pub fn unique(series: Vec<GridSeries>) -> Result<Vec<GridSeries>, LogqlError> {
    let mut seen = hashbrown::HashSet::new();
    if let Some(twice) = series.iter().find(|one| !seen.insert(&one.labels)) {
        let message =
            format!("the result holds two series with the labels {}; keep labels apart", twice.labels);
        return Err(LogqlError::Matching(message));
    }
    drop(seen);
    Ok(series)
}
