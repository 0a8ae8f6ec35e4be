//! Metric queries: every expression becomes series over one grid of evaluation times.

mod accumulate;
mod binary;
mod range;
mod vector;

use std::{pin::Pin, sync::Arc};

use trine_schema::{ScanError, Tables};

use crate::{
    Answer, LogqlError, Request, Sample, Series, SeriesLabels,
    ast::{Grouping, MetricExpr, RangeOp, VectorOp},
    parser::is_scalar,
    pipeline,
};

/// Stands for "no value at this time". A quiet NaN that no calculation gives.
const MISSING: u64 = 0x7ff8_0000_0000_07ee;

/// The value for "nothing".
pub fn missing() -> f64 {
    f64::from_bits(MISSING)
}

/// Whether there is no value.
pub fn is_missing(value: f64) -> bool {
    value.to_bits() == MISSING
}

/// Evaluation times: `start`, `start + step`, and so on, `steps` of them.
#[derive(Debug, Clone, Copy)]
pub struct Grid {
    /// First time, nanoseconds since 1970.
    pub start: i64,
    /// Nanoseconds between times; 1 when there is one.
    pub step: i64,
    /// Number of times, at least 1.
    pub steps: usize,
}

impl Grid {
    fn new(request: &Request) -> Result<Self, LogqlError> {
        let Some(step) = request.step else {
            return Ok(Self { start: request.end, step: 1, steps: 1 });
        };
        if step <= 0 {
            return Err(LogqlError::Request(format!("the step is {step} ns; use a positive one")));
        }
        if request.end < request.start {
            return Err(LogqlError::Request("the end lies before the start; swap them".to_owned()));
        }
        let steps = (i128::from(request.end) - i128::from(request.start)) / i128::from(step) + 1;
        let limit = request.limits.points;
        if steps > limit as i128 {
            return Err(LogqlError::Limit { what: "points per series", limit, hint: "use a larger step" });
        }
        Ok(Self { start: request.start, step, steps: steps as usize })
    }

    fn time(&self, at: usize) -> i64 {
        self.start + self.step * at as i64
    }
}

/// A series with a value, perhaps missing, at each time of the grid.
#[derive(Debug, Clone)]
pub struct GridSeries {
    /// Its labels.
    pub labels: SeriesLabels,
    /// One value per time.
    pub values: Vec<f64>,
}

/// What an expression gives.
pub enum Evaluated {
    /// The same number at all times.
    Scalar(f64),
    /// Series with unique labels.
    Vector(Vec<GridSeries>),
}

/// What all parts of one evaluation share.
pub struct Context {
    /// What is read.
    pub tables: Arc<dyn Tables>,
    /// The question.
    pub request: Request,
    /// When it is evaluated.
    pub grid: Grid,
}

impl Context {
    /// Fails when series do not fit the limits.
    pub fn check_size(&self, series: usize) -> Result<(), LogqlError> {
        let limit = self.request.limits.series;
        if series > limit {
            let hint = "group by fewer labels, for example sum by (app) (...)";
            return Err(LogqlError::Limit { what: "series", limit, hint });
        }
        let bytes = series * self.grid.steps * size_of::<f64>();
        match self.request.memory_limit {
            Some(limit) if bytes > limit => Err(ScanError::Memory { limit }.into()),
            _ => Ok(()),
        }
    }
}

/// Which labels of a range aggregation matter to what stands around it.
#[derive(Clone)]
pub enum Need {
    /// All labels of the stream and those that stages make, and of the record's metadata those
    /// that the query names.
    All(Vec<String>),
    /// Only these; series that differ in others are added up.
    Only(Vec<String>),
}

type Evaluation<'a> = Pin<Box<dyn Future<Output = Result<Evaluated, LogqlError>> + Send + 'a>>;

fn evaluate<'a>(context: &'a Context, expr: &'a MetricExpr, need: Need) -> Evaluation<'a> {
    Box::pin(async move {
        Ok(match expr {
            MetricExpr::Number(value) => Evaluated::Scalar(*value),
            MetricExpr::Constant(value) => Evaluated::Vector(vec![GridSeries {
                labels: SeriesLabels::default(),
                values: vec![*value; context.grid.steps],
            }]),
            MetricExpr::Range(aggregation) => {
                Evaluated::Vector(range::evaluate(context, aggregation, &need).await?)
            }
            MetricExpr::Vector(aggregation) => {
                let inner = match (&aggregation.inner, &aggregation.grouping) {
                    (MetricExpr::Range(range), grouping)
                        if aggregation.op == VectorOp::Sum
                            && is_additive(range.op)
                            && grouping.as_ref().is_none_or(|grouping| !grouping.without) =>
                    {
                        Need::Only(
                            grouping.as_ref().map_or_else(Vec::new, |grouping| grouping.labels.clone()),
                        )
                    }
                    (_, grouping) => with_names(&need, grouping.iter().flat_map(|grouping| &grouping.labels)),
                };
                match evaluate(context, &aggregation.inner, inner).await? {
                    Evaluated::Vector(series) => {
                        Evaluated::Vector(vector::aggregate(context.grid, aggregation, series))
                    }
                    Evaluated::Scalar(_) => {
                        return Err(LogqlError::Request("an aggregation needs a vector".into()));
                    }
                }
            }
            MetricExpr::Binary(operation) => {
                let matching = operation.matching.iter();
                let names = matching
                    .flat_map(|m| m.labels.iter().chain(m.group.iter().flat_map(|(_, labels)| labels)));
                let need = with_names(&need, names);
                let left = evaluate(context, &operation.left, need.clone()).await?;
                let right = evaluate(context, &operation.right, need).await?;
                binary::operate(context.grid, operation, left, right)?
            }
            MetricExpr::LabelReplace(replace) => {
                let need = with_names(&need, [&replace.source, &replace.destination].into_iter());
                let Evaluated::Vector(mut series) = evaluate(context, &replace.inner, need).await? else {
                    return Err(LogqlError::Request("label_replace needs a vector".into()));
                };
                let regex = pipeline::regex::anchored(&replace.regex).map_err(LogqlError::Request)?;
                for one in &mut series {
                    let source = one.labels.get(&replace.source).to_owned();
                    if let Some(captures) = regex.captures(&source) {
                        let mut value = String::new();
                        captures.expand(&replace.replacement, &mut value);
                        one.labels.set(&replace.destination, &value);
                    }
                }
                Evaluated::Vector(vector::unique(series)?)
            }
        })
    })
}

/// The aggregations that can be added up over series.
fn is_additive(op: RangeOp) -> bool {
    matches!(
        op,
        RangeOp::Rate
            | RangeOp::CountOverTime
            | RangeOp::BytesRate
            | RangeOp::BytesOverTime
            | RangeOp::SumOverTime
    )
}

fn with_names<'a>(need: &Need, names: impl Iterator<Item = &'a String>) -> Need {
    let (Need::All(known) | Need::Only(known)) = need;
    let mut all = known.clone();
    all.extend(names.cloned());
    all.sort_unstable();
    all.dedup();
    Need::All(all)
}

/// Labels of a series after grouping.
pub fn group_labels(labels: &SeriesLabels, grouping: Option<&Grouping>) -> SeriesLabels {
    let Some(grouping) = grouping else { return SeriesLabels::default() };
    let chosen = |name: &String| grouping.labels.contains(name) != grouping.without;
    SeriesLabels(labels.0.iter().filter(|(name, _)| chosen(name)).cloned().collect())
}

/// Answers a metric query.
pub async fn run(tables: Arc<dyn Tables>, request: Request, expr: &MetricExpr) -> Result<Answer, LogqlError> {
    let grid = Grid::new(&request)?;
    let instant = request.step.is_none();
    let context = Context { tables, request, grid };
    let result = evaluate(&context, expr, Need::All(Vec::new())).await?;
    let mut series = match result {
        Evaluated::Scalar(value) if instant && is_scalar(expr) => {
            return Ok(Answer::Scalar(grid.start, value));
        }
        Evaluated::Scalar(value) => {
            vec![GridSeries { labels: SeriesLabels::default(), values: vec![value; grid.steps] }]
        }
        Evaluated::Vector(series) => series,
    };
    let order = match expr {
        MetricExpr::Vector(aggregation) if instant => match aggregation.op {
            VectorOp::Sort | VectorOp::Bottomk => Some(false),
            VectorOp::SortDesc | VectorOp::Topk | VectorOp::ApproxTopk => Some(true),
            _ => None,
        },
        _ => None,
    };
    series.sort_by(|a, b| a.labels.cmp(&b.labels));
    match order {
        Some(false) => series.sort_by(|a, b| a.values[0].total_cmp(&b.values[0])),
        Some(true) => series.sort_by(|a, b| b.values[0].total_cmp(&a.values[0])),
        None => {}
    }
    if instant {
        let samples = series.into_iter().filter(|one| !is_missing(one.values[0]));
        let sample =
            |one: GridSeries| Sample { labels: one.labels, timestamp: grid.start, value: one.values[0] };
        return Ok(Answer::Vector(samples.map(sample).collect()));
    }
    let points = |one: GridSeries| {
        let present = one.values.iter().enumerate().filter(|(_, value)| !is_missing(**value));
        let points: Vec<(i64, f64)> = present.map(|(at, value)| (grid.time(at), *value)).collect();
        (!points.is_empty()).then_some(Series { labels: one.labels, points })
    };
    Ok(Answer::Matrix(series.into_iter().filter_map(points).collect()))
}
