//! Range aggregations: scanned batches are folded into slots and forgotten.
//!
//! Three ways, from cheap to dear, all exact:
//! 1. counts from the store's roll-ups, when nothing is left to do per line and the grid falls
//!    on whole buckets;
//! 2. stream, time and (for levels) severity columns, when the series follow from the stream;
//! 3. all columns the query names, with the pipeline run on each line.

use arrow::array::RecordBatch;
use futures::StreamExt as _;
use hashbrown::HashMap;
use trine_model::Level;
use trine_schema::{LogCount, LogFilter, ScanError, StreamRef, logs::column};

use super::{
    Context, GridSeries, Need,
    accumulate::{Accumulator, Extremes, Function, Moments, Samples, SlotSeries, Slots, Total},
    group_labels, missing,
};
use crate::{
    LogqlError, SeriesLabels,
    ast::{Conversion, MatchOp, RangeAggregation, RangeOp, Stage},
    logs::wanted_names,
    pipeline::{
        self, Pipeline,
        labels::{DETECTED_LEVEL, ERROR, ERROR_DETAILS, LEVEL, LabelSet, Wanted, level_word},
    },
    plan::Plan,
    request::LabelKind,
    rows::{BaseCache, Rows, metadata_columns},
    units::{parse_bytes, parse_float, parse_go_duration},
};

/// Value of `__error__` when an unwrapped label is no number.
const UNWRAP_ERROR: &str = "SampleExtractionErr";

/// Narrowest bucket for which the roll-ups are asked, in nanoseconds.
const MIN_BUCKET: i64 = 1_000_000_000;

/// Bytes counted for a series besides its slots.
const SERIES_BYTES: usize = 300;

/// Answers one range aggregation.
pub async fn evaluate(
    context: &Context,
    aggregation: &RangeAggregation,
    need: &Need,
) -> Result<Vec<GridSeries>, LogqlError> {
    match aggregation.op {
        RangeOp::AvgOverTime | RangeOp::StddevOverTime | RangeOp::StdvarOverTime => {
            fold::<Moments>(context, aggregation, need).await
        }
        RangeOp::MinOverTime | RangeOp::MaxOverTime | RangeOp::FirstOverTime | RangeOp::LastOverTime => {
            fold::<Extremes>(context, aggregation, need).await
        }
        RangeOp::QuantileOverTime | RangeOp::RateCounter => fold::<Samples>(context, aggregation, need).await,
        RangeOp::AbsentOverTime => {
            let found = fold::<Total>(context, aggregation, &Need::Only(Vec::new())).await?;
            Ok(absent(context, aggregation, &found))
        }
        _ => fold::<Total>(context, aggregation, need).await,
    }
}

/// 1 where nothing was found, with the labels that the selector fixes.
fn absent(context: &Context, aggregation: &RangeAggregation, found: &[GridSeries]) -> Vec<GridSeries> {
    let mut labels = SeriesLabels::default();
    let selector = &aggregation.log.selector;
    for matcher in selector {
        let once = selector.iter().filter(|other| other.name == matcher.name).count() == 1;
        if matcher.op == MatchOp::Equal && once {
            labels.set(&matcher.name, &matcher.value);
        }
    }
    let values = (0..context.grid.steps)
        .map(|at| {
            let any = found.iter().any(|one| !super::is_missing(one.values[at]));
            if any { missing() } else { 1.0 }
        })
        .collect();
    vec![GridSeries { labels, values }]
}

/// Series found so far and the folded samples of each.
struct Folded<A> {
    slots: Slots,
    series: Vec<(SeriesLabels, SlotSeries<A>)>,
    /// Bytes held.
    bytes: usize,
}

impl<A: Accumulator> Folded<A> {
    fn add_series(&mut self, context: &Context, labels: SeriesLabels) -> Result<u32, LogqlError> {
        let text: usize = labels.0.iter().map(|(name, value)| name.len() + value.len() + 48).sum();
        self.bytes += text + SERIES_BYTES;
        self.series.push((labels, SlotSeries::default()));
        context.check_size(self.series.len())?;
        Ok(self.series.len() as u32 - 1)
    }

    fn check_memory(&self, context: &Context) -> Result<(), LogqlError> {
        match context.request.memory_limit {
            Some(limit) if self.bytes > limit => Err(ScanError::Memory { limit }.into()),
            _ => Ok(()),
        }
    }

    fn add(&mut self, series: u32, slot: usize, timestamp: i64, value: f64) {
        self.series[series as usize].1.slot(slot, &mut self.bytes).add(timestamp, value);
        self.bytes += A::SAMPLE_BYTES;
    }
}

async fn fold<A: Accumulator + FromCount>(
    context: &Context,
    aggregation: &RangeAggregation,
    need: &Need,
) -> Result<Vec<GridSeries>, LogqlError> {
    let out_of_range =
        || LogqlError::Request("the range reaches before the year 1677; shorten it".to_owned());
    let slots = Slots::new(context.grid, aggregation.range, aggregation.offset).ok_or_else(out_of_range)?;
    let mut folded = Folded::<A> { slots, series: Vec::new(), bytes: 0 };
    let (start, end) = (slots.first(), slots.last().saturating_add(1));
    let mut plan = Plan::new(&context.tables, &context.request, &aggregation.log, start, end).await?;

    // A grouping of the range itself narrows or names labels like one around it.
    let need = match &aggregation.grouping {
        Some(grouping) if !grouping.without => Need::Only(grouping.labels.clone()),
        Some(grouping) => super::with_names(need, grouping.labels.iter()),
        None => need.clone(),
    };
    let (Need::All(named) | Need::Only(named)) = &need;
    let per_line = !plan.stages.is_empty() || aggregation.unwrap.is_some();
    let by_stream = if per_line { None } else { plan.decided_by_stream(&context.tables, named).await? };
    match by_stream {
        Some(severity) => {
            if !A::from_rollups(context, aggregation, &plan, &need, severity, &mut folded).await? {
                scan_by_stream(context, aggregation, &plan, &need, severity, &mut folded).await?;
            }
        }
        None => scan_lines(context, aggregation, &plan, &need, &mut folded).await?,
    }

    let function = Function {
        op: aggregation.op,
        parameter: aggregation.parameter.unwrap_or(0.0),
        seconds: aggregation.range as f64 / 1e9,
        end: 0,
    };
    // Streams that look alike under Prometheus-style names are one series.
    let mut positions: HashMap<SeriesLabels, usize> = HashMap::new();
    let mut merged: Vec<(SeriesLabels, SlotSeries<A>)> = Vec::new();
    for (labels, one) in folded.series {
        if let Some(at) = positions.get(&labels) {
            merged[*at].1.absorb(&one, &mut folded.bytes);
        } else {
            positions.insert(labels.clone(), merged.len());
            merged.push((labels, one));
        }
    }
    let finish = |(labels, one): (SeriesLabels, SlotSeries<A>)| GridSeries {
        labels,
        values: one.finish(&slots, function),
    };
    let mut series: Vec<GridSeries> = merged.into_iter().map(finish).collect();
    series.sort_by(|a, b| a.labels.cmp(&b.labels));
    Ok(series)
}

/// Labels of the series that a stream's rows of one level belong to.
fn stream_labels(
    cache: &mut BaseCache,
    context: &Context,
    need: &Need,
    stream: StreamRef,
    severity: u8,
) -> SeriesLabels {
    let base = cache.get(stream, context.tables.registry());
    let word = level_word(severity);
    let mut labels = SeriesLabels::default();
    let (Need::All(named) | Need::Only(named)) = need;
    if let Need::All(_) = need {
        base.iter().for_each(|(name, value)| labels.set(name, value));
    }
    for name in named {
        match base.get(name) {
            Some(value) => labels.set(name, value),
            None if name == LEVEL || name == DETECTED_LEVEL => labels.set(name, word),
            None => {}
        }
    }
    labels
}

/// Severity as far as it tells series apart: the first number of its level.
fn level_key(severity: u8) -> u8 {
    if severity == 0 { 0 } else { (severity - 1) / 4 * 4 + 1 }
}

async fn scan_by_stream<A: Accumulator>(
    context: &Context,
    aggregation: &RangeAggregation,
    plan: &Plan,
    need: &Need,
    severity: bool,
    folded: &mut Folded<A>,
) -> Result<(), LogqlError> {
    let bytes = matches!(aggregation.op, RangeOp::BytesRate | RangeOp::BytesOverTime);
    let mut scan = plan.scan.clone();
    // One number for one window: the scan's range is the window, so counting rows is enough.
    let rows_only =
        !bytes && context.grid.steps == 1 && matches!(need, Need::Only(names) if names.is_empty());
    scan.projection = if rows_only { Vec::new() } else { vec![column::STREAM, column::TIMESTAMP] };
    if severity {
        scan.projection.push(column::SEVERITY_NUMBER);
    }
    if bytes {
        scan.projection.push(column::BODY);
    }
    let check = scan.clone();
    let mut cache = BaseCache::default();
    let mut known: HashMap<(StreamRef, u8), u32> = HashMap::new();
    let mut batches = context.tables.scan_logs(scan);
    while let Some(batch) = batches.next().await {
        let batch = batch?;
        check.check_deadline()?;
        if rows_only {
            if folded.series.is_empty() && batch.num_rows() > 0 {
                folded.add_series(context, SeriesLabels::default())?;
            }
            if batch.num_rows() > 0 {
                folded.add(0, 0, 0, batch.num_rows() as f64);
            }
            continue;
        }
        let rows = Rows::new(&batch);
        // Rows of a stream stand together and rise in time: runs that share series and slot are
        // added up before they are stored.
        let mut run: Option<Run> = None;
        for row in 0..rows.len {
            let timestamp = rows.timestamp(row);
            let key = (rows.stream(row), level_key(rows.severity(row)));
            let value = if bytes { rows.body_len(row) as f64 } else { 1.0 };
            if let Some(run) = &mut run
                && run.key == key
                && (run.from..=run.to).contains(&timestamp)
            {
                run.value += value;
                continue;
            }
            store_run(folded, run.as_ref());
            let (slot, from, to) = folded.slots.span(timestamp);
            let series = match (slot, known.get(&key)) {
                // Rows outside of all windows make no series.
                (None, _) => 0,
                (_, Some(series)) => *series,
                (_, None) => {
                    let labels = stream_labels(&mut cache, context, need, key.0, key.1);
                    let series = folded.add_series(context, labels)?;
                    known.insert(key, series);
                    series
                }
            };
            run = Some(Run { key, from, to, slot, series, value });
        }
        store_run(folded, run.as_ref());
        folded.check_memory(context)?;
    }
    Ok(())
}

/// Rows of one series in one slot, added up.
struct Run {
    key: (StreamRef, u8),
    from: i64,
    to: i64,
    slot: Option<usize>,
    series: u32,
    value: f64,
}

fn store_run<A: Accumulator>(folded: &mut Folded<A>, run: Option<&Run>) {
    if let Some(Run { slot: Some(slot), series, from, value, .. }) = run {
        folded.add(*series, *slot, *from, *value);
    }
}

/// Functions that counts alone can answer.
trait FromCount: Accumulator {
    /// Fills in counts from the store's roll-ups; `false` when they do not fit the question.
    fn from_rollups(
        _context: &Context,
        _aggregation: &RangeAggregation,
        _plan: &Plan,
        _need: &Need,
        _severity: bool,
        _folded: &mut Folded<Self>,
    ) -> impl Future<Output = Result<bool, LogqlError>> + Send
    where
        Self: Sized,
    {
        async { Ok(false) }
    }
}

impl FromCount for Moments {}
impl FromCount for Extremes {}
impl FromCount for Samples {}

impl FromCount for Total {
    async fn from_rollups(
        context: &Context,
        aggregation: &RangeAggregation,
        plan: &Plan,
        need: &Need,
        severity: bool,
        folded: &mut Folded<Self>,
    ) -> Result<bool, LogqlError> {
        let counts =
            matches!(aggregation.op, RangeOp::CountOverTime | RangeOp::Rate | RangeOp::AbsentOverTime);
        let whole_levels = |filter: &LogFilter| match filter {
            LogFilter::Severity(range) => {
                let edge = |number: u8| number == 0 || number % 4 == 1;
                edge(*range.start()) && (*range.end() == 0 || range.end() % 4 == 0)
            }
            _ => false,
        };
        if !counts || !plan.scan.filters.iter().all(whole_levels) {
            return Ok(false);
        }
        let step = if context.grid.steps == 1 { 0 } else { context.grid.step };
        let bucket_ns = gcd(gcd(aggregation.range, step), folded.slots.origin);
        if bucket_ns < MIN_BUCKET {
            return Ok(false);
        }
        // A bucket holds its first instant, a window its last: the rows at a bucket's first
        // instant belong to the window before.
        let mut scan = plan.scan.clone();
        scan.start = folded.slots.origin;
        scan.end = folded.slots.last().saturating_add(bucket_ns);
        let Some(rows) = context.tables.count_logs(LogCount { scan, bucket_ns }).await? else {
            return Ok(false);
        };
        let mut cache = BaseCache::default();
        let mut known: HashMap<(StreamRef, u8), u32> = HashMap::new();
        for row in rows {
            let first_number = [0, 1, 5, 9, 13, 17, 21][usize::from(row.level).min(Level::ALL.len() - 1)];
            let key = (row.stream, if severity { first_number } else { 0 });
            let parts = [(row.bucket, row.at_start), (row.bucket + 1, row.count - row.at_start)];
            for (timestamp, count) in parts {
                let Some(slot) = folded.slots.slot(timestamp).filter(|_| count > 0) else { continue };
                let series = if let Some(series) = known.get(&key) {
                    *series
                } else {
                    let labels = stream_labels(&mut cache, context, need, key.0, key.1);
                    let series = folded.add_series(context, labels)?;
                    known.insert(key, series);
                    series
                };
                folded.series[series as usize].1.slot(slot, &mut folded.bytes).add_count(count);
            }
        }
        folded.check_memory(context)?;
        Ok(true)
    }
}

fn gcd(a: i64, b: i64) -> i64 {
    let (mut a, mut b) = (a.unsigned_abs(), b.unsigned_abs());
    while b != 0 {
        (a, b) = (b, a % b);
    }
    i64::try_from(a).unwrap_or(1)
}

async fn scan_lines<A: Accumulator>(
    context: &Context,
    aggregation: &RangeAggregation,
    plan: &Plan,
    need: &Need,
    folded: &mut Folded<A>,
) -> Result<(), LogqlError> {
    let mut stages = plan.stages.clone();
    // Filters behind unwrap run in a pipeline of their own, after the value was read.
    let mut late = Vec::new();
    let mut names = Vec::new();
    if let Some(unwrap) = &aggregation.unwrap {
        names.push(unwrap.label.clone());
        late.extend(unwrap.filters.iter().cloned().map(Stage::Label));
    }
    for stage in stages.iter().chain(&late) {
        pipeline::collect_names(stage, &mut names);
    }
    let (Need::All(named) | Need::Only(named)) = need;
    names.extend(named.iter().cloned());
    let metadata = wanted_names(names);
    let parsed = match need {
        Need::All(_) => Wanted::All,
        Need::Only(_) => metadata.clone(),
    };
    let filters_behind = !late.is_empty();
    stages.shrink_to_fit();
    let mut lines = Lines {
        pipeline: Pipeline::new(&stages).map_err(LogqlError::Request)?,
        late: filters_behind.then(|| Pipeline::new(&late).map_err(LogqlError::Request)).transpose()?,
        known: HashMap::new(),
        key: Vec::new(),
        hex: String::new(),
        base: BaseCache::default(),
        parsed,
        metadata,
    };
    let uses_line = stages.iter().any(|stage| {
        pipeline::is_parser(stage)
            || pipeline::rewrites_line(stage)
            || matches!(stage, Stage::Line(_) | Stage::LabelFormat(_))
    });
    let bytes = matches!(aggregation.op, RangeOp::BytesRate | RangeOp::BytesOverTime);
    let mut scan = plan.scan.clone();
    scan.projection = vec![column::STREAM, column::TIMESTAMP];
    if uses_line || bytes {
        scan.projection.push(column::BODY);
    }
    scan.projection.extend(metadata_columns(&lines.metadata));
    scan.projection.sort_unstable();
    let check = scan.clone();
    let mut batches = context.tables.scan_logs(scan);
    while let Some(batch) = batches.next().await {
        check.check_deadline()?;
        lines.fold(context, aggregation, need, &batch?, folded)?;
        folded.check_memory(context)?;
    }
    Ok(())
}

/// State of [`scan_lines`].
struct Lines {
    pipeline: Pipeline,
    late: Option<Pipeline>,
    known: HashMap<Box<[u8]>, u32>,
    key: Vec<u8>,
    hex: String,
    base: BaseCache,
    parsed: Wanted,
    metadata: Wanted,
}

impl Lines {
    fn fold<A: Accumulator>(
        &mut self,
        context: &Context,
        aggregation: &RangeAggregation,
        need: &Need,
        batch: &RecordBatch,
        folded: &mut Folded<A>,
    ) -> Result<(), LogqlError> {
        let rows = Rows::new(batch);
        let bytes = matches!(aggregation.op, RangeOp::BytesRate | RangeOp::BytesOverTime);
        for row in 0..rows.len {
            let timestamp = rows.timestamp(row);
            let Some(slot) = folded.slots.slot(timestamp) else { continue };
            let body = rows.body(row);
            let base = self.base.get(rows.stream(row), context.tables.registry());
            rows.load(row, base, &mut self.pipeline.labels, &self.metadata, &mut self.hex);
            if !self.pipeline.run(body, timestamp, &self.parsed) {
                continue;
            }
            let value = match &aggregation.unwrap {
                Some(unwrap) => {
                    let Some(value) = unwrapped(&mut self.pipeline.labels, &unwrap.label, unwrap.conversion)
                    else {
                        continue;
                    };
                    if let Some(late) = &mut self.late {
                        std::mem::swap(&mut late.labels, &mut self.pipeline.labels);
                        let passes = late.run("", timestamp, &Wanted::All);
                        std::mem::swap(&mut late.labels, &mut self.pipeline.labels);
                        if !passes {
                            continue;
                        }
                    }
                    self.pipeline.labels.remove(&unwrap.label);
                    value
                }
                None if bytes => self.pipeline.line(body).len() as f64,
                None => 1.0,
            };
            let series = self.series(context, aggregation, need, folded)?;
            folded.add(series, slot, timestamp, value);
        }
        Ok(())
    }

    /// The series of the labels at hand.
    fn series<A: Accumulator>(
        &mut self,
        context: &Context,
        aggregation: &RangeAggregation,
        need: &Need,
        folded: &mut Folded<A>,
    ) -> Result<u32, LogqlError> {
        let labels = &self.pipeline.labels;
        if labels.has_error() {
            return Err(LogqlError::Pipeline {
                error: labels.get(ERROR).to_owned(),
                details: labels.get(ERROR_DETAILS).to_owned(),
                labels: series_labels(labels, need).to_string(),
            });
        }
        self.key.clear();
        match need {
            Need::Only(names) => {
                for name in names {
                    push_part(&mut self.key, labels.get(name));
                }
            }
            // The order of labels is the order in which stages made them: equal sets in another
            // order get a second entry, which the merge at the end folds into the first.
            Need::All(named) => {
                for (name, value, kind) in labels.iter() {
                    if kind != LabelKind::Metadata || named.iter().any(|known| known == name) {
                        push_part(&mut self.key, name);
                        push_part(&mut self.key, value);
                    }
                }
                if named.iter().any(|name| name == LEVEL) {
                    push_part(&mut self.key, labels.get(LEVEL));
                }
            }
        }
        if let Some(series) = self.known.get(self.key.as_slice()) {
            return Ok(*series);
        }
        let mut all = series_labels(labels, need);
        if let Some(grouping) = &aggregation.grouping {
            all = group_labels(&all, Some(grouping));
        }
        let series = folded.add_series(context, all)?;
        folded.bytes += self.key.len();
        self.known.insert(self.key.as_slice().into(), series);
        Ok(series)
    }
}

fn push_part(key: &mut Vec<u8>, text: &str) {
    key.extend_from_slice(&(text.len() as u32).to_le_bytes());
    key.extend_from_slice(text.as_bytes());
}

fn series_labels(labels: &LabelSet, need: &Need) -> SeriesLabels {
    let mut found = SeriesLabels::default();
    let (Need::All(named) | Need::Only(named)) = need;
    if let Need::All(_) = need {
        for (name, value, kind) in labels.iter() {
            if kind != LabelKind::Metadata {
                found.set(name, value);
            }
        }
    }
    for name in named {
        found.set(name, labels.get(name));
    }
    found
}

/// The label as a number; a text that is none sets an error, a missing label gives `None`.
fn unwrapped(labels: &mut LabelSet, name: &str, conversion: Conversion) -> Option<f64> {
    let text = labels.get(name);
    if text.is_empty() {
        return None;
    }
    let value = match conversion {
        Conversion::Number => parse_float(text),
        Conversion::Duration | Conversion::DurationSeconds => parse_go_duration(text).map(|n| n as f64 / 1e9),
        Conversion::Bytes => parse_bytes(text).map(|bytes| bytes as f64),
    };
    if value.is_none() {
        let details = format!("cannot read {:?} of label {name} as a value", crate::lexer::shorten(text));
        labels.set_error(UNWRAP_ERROR, details);
    }
    Some(value.unwrap_or(0.0))
}

impl<A: Accumulator> SlotSeries<A> {
    /// Takes in the slots of another series.
    fn absorb(&mut self, other: &Self, bytes: &mut usize) {
        for (at, slot) in other.filled() {
            self.slot(at, bytes).merge(slot);
        }
    }
}
