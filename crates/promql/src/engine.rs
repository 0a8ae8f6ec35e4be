//! The entry: a query and a source in, an answer out.

use std::time::{Duration, Instant};

use crate::{
    annotations::Annotations,
    eval::{self, Context, Output, Steps},
    parser::{self, Expr, ParseError, ValueType},
    source::{Source, SourceError},
    value::{MatrixSeries, Value, VectorSample},
};

/// What keeps a query from an answer. Texts are those of Prometheus where clients see them.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The query cannot be read.
    #[error(transparent)]
    Parse(#[from] ParseError),
    /// The query cannot be evaluated on this data, such as two series that match one.
    #[error("{0}")]
    Execution(String),
    /// More samples than [`Engine::max_samples`] at once.
    #[error("query processing would load too many samples into memory in query execution")]
    TooManySamples,
    /// [`Engine::timeout`] has passed.
    #[error("query timed out in expression evaluation")]
    Timeout,
    /// The times of a range query make no sense.
    #[error("{0}")]
    BadRange(String),
    /// The source failed.
    #[error("expanding series: {0}")]
    Source(SourceError),
}

impl Error {
    pub(crate) fn execution(message: impl Into<String>) -> Self {
        Self::Execution(message.into())
    }
}

/// What a query has touched.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Statistics {
    /// Samples that went into the evaluation, at each step anew; a histogram counts as several.
    pub samples: u64,
    /// The same by step; empty without [`Engine::per_step_statistics`].
    pub samples_per_step: Vec<u64>,
    /// Most samples held at one time.
    pub peak_samples: u64,
    /// Series read.
    pub series: u64,
}

/// A query's value and what goes with it.
#[derive(Clone, Debug)]
pub struct Answer {
    /// The value.
    pub value: Value,
    /// Warnings, each ending with its place in the query; the source's first.
    pub warnings: Vec<String>,
    /// Infos, likewise.
    pub infos: Vec<String>,
    /// What it took.
    pub statistics: Statistics,
}

/// Evaluates queries. Bounds and choices, all with Prometheus' defaults.
#[derive(Clone, Debug)]
pub struct Engine {
    /// How far back an instant selector looks for a sample.
    pub lookback: Duration,
    /// Most samples a query may hold at once.
    pub max_samples: usize,
    /// Longest time a query may take.
    pub timeout: Duration,
    /// Step of a subquery that names none.
    pub subquery_step: Duration,
    /// Metric names go at the end of a query, not with each operation
    /// (`--enable-feature=promql-delayed-name-removal`).
    pub delayed_name_removal: bool,
    /// Start times of counters tell resets (`--enable-feature=use-start-timestamps`).
    pub use_start_timestamps: bool,
    /// Samples are counted by step, too (`--enable-feature=promql-per-step-stats`).
    pub per_step_statistics: bool,
    /// Threads a query may use.
    pub threads: usize,
}

impl Default for Engine {
    fn default() -> Self {
        Self {
            lookback: Duration::from_secs(300),
            max_samples: 50_000_000,
            timeout: Duration::from_secs(120),
            subquery_step: Duration::from_secs(60),
            delayed_name_removal: false,
            use_start_timestamps: false,
            per_step_statistics: false,
            threads: std::thread::available_parallelism().map_or(1, usize::from),
        }
    }
}

/// Most steps after the first of a range query, as Prometheus' HTTP API bounds them.
pub const MAX_STEPS: i64 = 11_000;

impl Engine {
    /// Evaluates at one time (milliseconds since 1970).
    pub fn instant(&self, source: &dyn Source, query: &str, time: i64) -> Result<Answer, Error> {
        let expr = parser::parse(query)?;
        let kind = expr.value_type();
        let steps = Steps { start: time, step: 1, count: 1 };
        let run = self.run(source, query, expr, steps, 0)?;
        let value = match run.0 {
            Output::String(text) => Value::String(time, text),
            Output::Scalar(values) => Value::Scalar(time, values[0]),
            Output::Vector(columns) => {
                let samples = columns.into_iter().filter_map(|column| {
                    let sample = column.sample(0)?;
                    Some(VectorSample { labels: column.labels, timestamp: time, sample })
                });
                Value::Vector(samples.collect())
            }
            Output::Matrix(mut series) => {
                series.sort_by(|a, b| a.labels.cmp(&b.labels));
                Value::Matrix(series)
            }
        };
        debug_assert_eq!(value.type_name(), kind.name());
        Ok(run.1.answer(value))
    }

    /// Evaluates from `start` to `end`, both inclusive, every `step` milliseconds.
    pub fn range(
        &self,
        source: &dyn Source,
        query: &str,
        start: i64,
        end: i64,
        step: i64,
    ) -> Result<Answer, Error> {
        if end < start {
            return Err(Error::BadRange("end timestamp must not be before start time".to_owned()));
        }
        if step <= 0 {
            let message =
                "zero or negative query resolution step widths are not accepted. Try a positive integer";
            return Err(Error::BadRange(message.to_owned()));
        }
        if (end - start) / step > MAX_STEPS {
            let message = "exceeded maximum resolution of 11,000 points per timeseries. \
                Try decreasing the query resolution (?step=XX)";
            return Err(Error::BadRange(message.to_owned()));
        }
        let expr = parser::parse(query)?;
        if !matches!(expr.value_type(), ValueType::Scalar | ValueType::Vector) {
            let found = expr.value_type().documented();
            let message = format!(
                "invalid expression type \"{found}\" for range query, must be Scalar or instant Vector"
            );
            return Err(Error::BadRange(message));
        }
        let steps = Steps { start, step, count: ((end - start) / step + 1) as usize };
        let run = self.run(source, query, expr, steps, end - start)?;
        let mut matrix: Vec<MatrixSeries> = match run.0 {
            Output::Scalar(values) => {
                let floats = values.into_iter().enumerate().map(|(at, value)| (steps.time(at), value));
                vec![MatrixSeries { floats: floats.collect(), ..MatrixSeries::default() }]
            }
            Output::Vector(columns) => columns
                .into_iter()
                .filter(|column| !column.is_empty())
                .map(|column| MatrixSeries {
                    floats: column.present.iter().map(|at| (steps.time(at), column.floats[at])).collect(),
                    histograms: (column.histograms.iter().enumerate())
                        .filter_map(|(at, histogram)| Some((steps.time(at), histogram.clone()?)))
                        .collect(),
                    labels: column.labels,
                })
                .collect(),
            Output::Matrix(_) | Output::String(_) => Vec::new(),
        };
        matrix.sort_by(|a, b| a.labels.cmp(&b.labels));
        Ok(run.1.answer(Value::Matrix(matrix)))
    }

    fn run(
        &self,
        source: &dyn Source,
        query: &str,
        expr: Expr,
        steps: Steps,
        range: i64,
    ) -> Result<(Output, Told), Error> {
        let context = Context::new(self, source, steps, range, Instant::now().checked_add(self.timeout));
        let mut notes = Annotations::default();
        let output = eval::evaluate(&context, expr, &mut notes)?;
        let (mut warnings, statistics) = context.finish();
        warnings.extend(notes.warnings(query));
        Ok((output, Told { warnings, infos: notes.infos(query), statistics }))
    }
}

/// What goes with a value.
struct Told {
    warnings: Vec<String>,
    infos: Vec<String>,
    statistics: Statistics,
}

impl Told {
    fn answer(self, value: Value) -> Answer {
        Answer { value, warnings: self.warnings, infos: self.infos, statistics: self.statistics }
    }
}
