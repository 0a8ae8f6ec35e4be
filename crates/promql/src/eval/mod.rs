//! Evaluation: each node of the tree for all steps at once.
//!
//! A vector is a list of columns, a column one series at all steps. What does not change from step to step is
//! found beforehand (`prepare`) and evaluated once. Work on many series is shared among threads.

mod aggregate;
mod binary;
mod classic;
mod columns;
mod extended;
mod extremes;
mod functions;
mod info;
mod over_time;
mod prepare;
mod rank;
mod rate;
mod relabel;
mod selector;
mod windows;

use std::{
    sync::{
        Mutex,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    time::Instant,
};

use hashbrown::HashMap;

pub(crate) use classic::almost_equal;
pub(crate) use columns::{Bits, Column, Steps};

use crate::{
    annotations::Annotations,
    engine::{Engine, Error, Statistics},
    labels::Labels,
    parser::{At, Duration, Expr, Pos, VectorSelector},
    source::{Hints, Selection, Series, Source},
    value::MatrixSeries,
};

/// Series from which on work is shared among threads: starting one costs about as much as so many.
const PARALLEL_FROM: usize = 128;

/// What a whole query yields.
pub(crate) enum Output {
    String(String),
    Scalar(Vec<f64>),
    Vector(Vec<Column>),
    /// Raw samples of a range selector or subquery; only at a single step.
    Matrix(Vec<MatrixSeries>),
}

/// What a node yields.
pub(crate) enum Eval {
    String(String),
    /// One number a step.
    Scalar(Vec<f64>),
    Vector(Vec<Column>),
}

pub(crate) type Result<T> = std::result::Result<T, Error>;

/// Samples looked at.
struct Counts {
    all: AtomicU64,
    /// At each step of the query; empty if nobody asked.
    steps: Vec<AtomicU64>,
    /// Evaluations under way that have other steps.
    apart: AtomicUsize,
}

impl Counts {
    fn of(steps: usize) -> Self {
        let steps = (0..steps).map(|_| AtomicU64::new(0)).collect();
        Self { all: AtomicU64::new(0), steps, apart: AtomicUsize::new(0) }
    }
}

/// What all nodes of a query share.
pub(crate) struct Context<'a> {
    pub engine: &'a Engine,
    pub source: &'a dyn Source,
    /// The query's own steps; subqueries have others.
    pub steps: Steps,
    range: i64,
    end: i64,
    pub lookback: i64,
    deadline: Option<Instant>,
    held: AtomicUsize,
    peak: AtomicUsize,
    counts: Counts,
    series: AtomicU64,
    warnings: Mutex<Vec<String>>,
}

impl<'a> Context<'a> {
    pub fn new(
        engine: &'a Engine,
        source: &'a dyn Source,
        steps: Steps,
        range: i64,
        deadline: Option<Instant>,
    ) -> Self {
        Self {
            engine,
            source,
            steps,
            range,
            end: steps.start + range,
            lookback: engine.lookback.as_millis() as i64,
            deadline,
            held: AtomicUsize::new(0),
            peak: AtomicUsize::new(0),
            counts: Counts::of(if engine.per_step_statistics { steps.count } else { 0 }),
            series: AtomicU64::new(0),
            warnings: Mutex::default(),
        }
    }

    pub fn finish(self) -> (Vec<String>, Statistics) {
        let mut warnings = self.warnings.into_inner().unwrap_or_default();
        warnings.sort();
        warnings.dedup();
        let statistics = Statistics {
            samples: self.counts.all.into_inner(),
            samples_per_step: self.counts.steps.into_iter().map(AtomicU64::into_inner).collect(),
            peak_samples: self.peak.into_inner() as u64,
            series: self.series.into_inner(),
        };
        (warnings, statistics)
    }

    /// Fails when the query's time is over.
    pub fn check_time(&self) -> Result<()> {
        match self.deadline {
            Some(deadline) if Instant::now() >= deadline => Err(Error::Timeout),
            _ => Ok(()),
        }
    }

    /// Takes so many samples into account; fails if they are too many.
    pub fn hold(&self, samples: usize) -> Result<()> {
        let held = self.held.fetch_add(samples, Ordering::Relaxed) + samples;
        self.peak.fetch_max(held, Ordering::Relaxed);
        if held > self.engine.max_samples { Err(Error::TooManySamples) } else { Ok(()) }
    }

    /// Counts samples that were looked at: all of them, and how many at which steps.
    pub fn touch<I: IntoIterator<Item = (usize, usize)>>(&self, all: usize, steps: impl FnOnce() -> I) {
        let Counts { all: sum, steps: by_step, apart } = &self.counts;
        sum.fetch_add(all as u64, Ordering::Relaxed);
        if !by_step.is_empty() && apart.load(Ordering::Relaxed) == 0 {
            for (step, count) in steps() {
                by_step[step].fetch_add(count as u64, Ordering::Relaxed);
            }
        }
    }

    /// Evaluates what has other steps; tells what was counted meanwhile, which does not go into the sums.
    pub fn apart<T>(&self, work: impl FnOnce() -> T) -> (T, usize) {
        let Counts { all, apart, .. } = &self.counts;
        let before = all.load(Ordering::Relaxed);
        apart.fetch_add(1, Ordering::Relaxed);
        let result = work();
        apart.fetch_sub(1, Ordering::Relaxed);
        (result, (all.swap(before, Ordering::Relaxed) - before) as usize)
    }

    /// The name goes with the operation, or at the end of the query.
    pub fn drop_name(&self, column: &mut Column) {
        if !self.engine.delayed_name_removal {
            column.labels = column.labels.without_metadata();
        }
        column.drop_name = true;
    }

    /// The metric's name for annotations that only know it while names are kept.
    pub fn late_name<'l>(&self, labels: &'l Labels) -> &'l str {
        if self.engine.delayed_name_removal { labels.metric_name() } else { "" }
    }

    pub fn millis(&self, duration: &Duration, pos: Pos, negative: bool) -> Result<i64> {
        let step = if self.steps.count > 1 || self.range > 0 { self.steps.step } else { 0 };
        duration
            .millis(step, self.range, negative)
            .map_err(|message| Error::execution(format!("{pos}:{pos}: {message}")))
    }

    /// When samples are looked up, given a selector's `offset` and `@`.
    pub fn lookup(&self, offset: Option<&Duration>, at: Option<At>, pos: Pos) -> Result<Lookup> {
        let offset = offset.map_or(Ok(0), |offset| self.millis(offset, pos, true))?;
        let at = at.map(|at| match at {
            At::Time(time) => time,
            At::Start => self.steps.start,
            At::End => self.end,
        });
        Ok(Lookup { at, offset })
    }

    /// The series of a selector for samples after `before` up to `after` milliseconds around the steps.
    pub fn select(
        &self,
        selector: &VectorSelector,
        first: i64,
        last: i64,
        hints: Hints,
    ) -> Result<Vec<Series>> {
        let selection = Selection { matchers: &selector.matchers, start_ms: first, end_ms: last, hints };
        self.select_raw(&selection)
    }

    pub fn select_raw(&self, selection: &Selection<'_>) -> Result<Vec<Series>> {
        let selected = self.source.select(selection).map_err(Error::Source)?;
        self.series.fetch_add(selected.series.len() as u64, Ordering::Relaxed);
        if let Ok(mut warnings) = self.warnings.lock() {
            warnings.extend(selected.warnings);
        }
        Ok(selected.series)
    }

    /// Runs `work` on parts of `items`, on several threads if they are many; results come in order.
    pub fn share<I: Sync, T: Send>(
        &self,
        items: &[I],
        work: impl Fn(&[I]) -> Result<T> + Sync,
    ) -> Result<Vec<T>> {
        let threads = self.engine.threads.min(items.len() / PARALLEL_FROM + 1).max(1);
        if threads == 1 {
            return Ok(vec![work(items)?]);
        }
        let part = items.len().div_ceil(threads);
        std::thread::scope(|scope| {
            let work = &work;
            let mut parts = items.chunks(part);
            let own = parts.next();
            let others: Vec<_> = parts.map(|part| scope.spawn(move || work(part))).collect();
            let mut results = Vec::with_capacity(threads);
            results.extend(own.map(work));
            for other in others {
                results.push(other.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)));
            }
            results.into_iter().collect()
        })
    }
}

/// When samples are looked up for a step.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Lookup {
    at: Option<i64>,
    offset: i64,
}

impl Lookup {
    pub fn time(&self, step: i64) -> i64 {
        self.at.unwrap_or(step) - self.offset
    }

    /// First and last lookup of these steps.
    pub fn span(&self, steps: &Steps) -> (i64, i64) {
        (self.time(steps.start), self.time(steps.last()))
    }
}

/// Evaluates a whole query.
pub(crate) fn evaluate(context: &Context<'_>, expr: Expr, notes: &mut Annotations) -> Result<Output> {
    let expr = prepare::prepare(context, expr);
    let steps = context.steps;
    let inner = match &expr {
        Expr::StepInvariant(inner) => inner.unwrapped(),
        expr => expr.unwrapped(),
    };
    if matches!(inner, Expr::Matrix { .. } | Expr::Subquery { .. }) {
        return windows::raw(context, inner, &steps, notes).map(Output::Matrix);
    }
    Ok(match eval(context, &expr, &steps, notes)? {
        Eval::String(text) => Output::String(text),
        Eval::Scalar(values) => Output::Scalar(values),
        Eval::Vector(mut columns) => {
            if context.engine.delayed_name_removal {
                for column in columns.iter_mut().filter(|column| column.drop_name) {
                    column.labels = column.labels.without_metadata();
                }
                columns = merge_same(columns)?;
            }
            Output::Vector(columns)
        }
    })
}

/// Evaluates a node; what its children held is released when it is done.
pub(crate) fn eval(
    context: &Context<'_>,
    expr: &Expr,
    steps: &Steps,
    notes: &mut Annotations,
) -> Result<Eval> {
    context.check_time()?;
    let before = context.held.load(Ordering::Relaxed);
    let result = eval_node(context, expr, steps, notes)?;
    context.held.store(before, Ordering::Relaxed);
    context.hold(match &result {
        Eval::String(_) => 0,
        Eval::Scalar(values) => values.len(),
        Eval::Vector(columns) => columns.iter().map(Column::cost).sum(),
    })?;
    Ok(result)
}

fn eval_node(context: &Context<'_>, expr: &Expr, steps: &Steps, notes: &mut Annotations) -> Result<Eval> {
    match expr {
        Expr::Number { value, .. } => Ok(Eval::Scalar(vec![*value; steps.count])),
        Expr::String { value, .. } => Ok(Eval::String(value.clone())),
        Expr::Paren { expr, .. } => eval(context, expr, steps, notes),
        Expr::StepInvariant(expr) => {
            let (once, counted) = context.apart(|| eval(context, expr, &steps.first_only(), notes));
            context.touch(counted * steps.count, || (0..steps.count).map(|step| (step, counted)));
            Ok(match once? {
                Eval::String(text) => Eval::String(text),
                Eval::Scalar(values) => Eval::Scalar(vec![values[0]; steps.count]),
                Eval::Vector(columns) => {
                    Eval::Vector(columns.into_iter().map(|column| column.repeated(steps.count)).collect())
                }
            })
        }
        Expr::Unary { minus, expr, .. } => {
            let value = eval(context, expr, steps, notes)?;
            if *minus { functions::negate(context, value) } else { Ok(value) }
        }
        Expr::Vector(selector) => selector::instant(context, selector, steps, notes).map(Eval::Vector),
        Expr::Matrix { .. } | Expr::Subquery { .. } => {
            Err(Error::execution("a range vector stands where none can be evaluated"))
        }
        Expr::Aggregate { .. } => aggregate::aggregate(context, expr, steps, notes).map(Eval::Vector),
        Expr::Binary { .. } => binary::binary(context, expr, steps, notes),
        Expr::Call { function, args, pos } => {
            functions::call(context, function.name, args, *pos, steps, notes)
        }
    }
}

/// A node that yields a vector.
pub(crate) fn eval_vector(
    context: &Context<'_>,
    expr: &Expr,
    steps: &Steps,
    notes: &mut Annotations,
) -> Result<Vec<Column>> {
    match eval(context, expr, steps, notes)? {
        Eval::Vector(columns) => Ok(columns),
        _ => Err(Error::execution("an instant vector was expected")),
    }
}

/// A node that yields a scalar.
pub(crate) fn eval_scalar(
    context: &Context<'_>,
    expr: &Expr,
    steps: &Steps,
    notes: &mut Annotations,
) -> Result<Vec<f64>> {
    match eval(context, expr, steps, notes)? {
        Eval::Scalar(values) => Ok(values),
        _ => Err(Error::execution("a scalar was expected")),
    }
}

/// The text of a string argument.
pub(crate) fn text(expr: &Expr) -> &str {
    match expr {
        Expr::String { value, .. } => value,
        Expr::Paren { expr, .. } | Expr::StepInvariant(expr) => text(expr),
        _ => "",
    }
}

const SAME_LABELS: &str = "vector cannot contain metrics with the same labelset";

/// Brings columns with one label set together; fails if two have a sample at the same step.
pub(crate) fn merge_same(columns: Vec<Column>) -> Result<Vec<Column>> {
    if columns.len() < 2 {
        return Ok(columns);
    }
    let mut known: HashMap<Labels, usize> = HashMap::with_capacity(columns.len());
    let mut merged: Vec<Column> = Vec::with_capacity(columns.len());
    for column in columns {
        let next = merged.len();
        let at = *known.entry(column.labels.clone()).or_insert(next);
        if at == next {
            merged.push(column);
            continue;
        }
        let into = &mut merged[at];
        if into.filled().intersects(&column.filled()) {
            return Err(Error::execution(SAME_LABELS));
        }
        for step in column.present.iter() {
            into.set_float(step, column.floats[step]);
        }
        for (step, histogram) in column.histograms.into_iter().enumerate() {
            if let Some(histogram) = histogram {
                into.set_histogram(step, histogram);
            }
        }
    }
    Ok(merged)
}

/// Fails if two columns have one label set at all, as range functions do.
pub(crate) fn refuse_same(columns: &[Column]) -> Result<()> {
    let mut known = hashbrown::HashSet::with_capacity(columns.len());
    if columns.iter().all(|column| known.insert(&column.labels)) {
        Ok(())
    } else {
        Err(Error::execution(SAME_LABELS))
    }
}
