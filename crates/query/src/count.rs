//! Counts from roll-ups: an aggregate whose groups and values depend only on stream, level and
//! time bucket is answered by [`trine_schema::Tables::count_logs`] instead of reading rows.
//!
//! [`CountFromRollups`] puts a [`LogCountExec`] around the *partial* aggregate over the log table.
//! When it runs, it asks for counts by (stream, level, bucket), makes one synthetic row of each,
//! sends it through the plan's own filters, projections and group expressions, and emits what the
//! partial aggregate would have emitted: group values and partial counts. The final aggregate above
//! adds them up. So the answer is exact by construction, and where the roll-ups cannot tell, the
//! partial aggregate runs as if nothing had happened.

use std::{collections::HashMap, fmt, sync::Arc};

use arrow::{
    array::{
        Array, ArrayRef, AsArray, BooleanArray, Int64Array, RecordBatch, RecordBatchOptions, StringViewArray,
        TimestampNanosecondArray, UInt32Array, new_null_array,
    },
    compute::{filter_record_batch, take},
    datatypes::{
        DataType, Field, Int64Type, Schema, SchemaRef, TimeUnit, TimestampNanosecondType, UInt8Type,
        UInt32Type,
    },
};
use datafusion::{
    common::{
        Result, ScalarValue,
        config::ConfigOptions,
        tree_node::{Transformed, TransformedResult, TreeNode, TreeNodeRecursion},
    },
    execution::{SendableRecordBatchStream, TaskContext, memory_pool::MemoryConsumer},
    physical_expr::{
        EquivalenceProperties, PhysicalExpr, ScalarFunctionExpr,
        expressions::{CastExpr, Column, Literal},
    },
    physical_optimizer::PhysicalOptimizerRule,
    physical_plan::{
        DisplayAs, DisplayFormatType, ExecutionPlan, ExecutionPlanProperties, Partitioning, PlanProperties,
        ReplaceChildrenOptions,
        aggregates::{AggregateExec, AggregateMode},
        execution_plan::{Boundedness, EmissionType},
        filter::FilterExec,
        projection::ProjectionExec,
        stream::RecordBatchStreamAdapter,
    },
};
use futures::{StreamExt, TryStreamExt, stream};
use tokio::sync::OnceCell;
use trine_model::{Level, Severity};
use trine_schema::{LogCount, LogCountRow, logs::column};

use crate::{
    columns::{BatchStreams, Columns, MINUTE_NS, Source, minute_of, timestamp_type},
    scan::{QueryContext, ScanExec, scan_error},
    selection::{Selection, covers_levels},
    tables::Table,
};

const SECOND_NS: i64 = 1_000_000_000;
const DAY_NS: i64 = 86_400 * SECOND_NS;

/// Bytes one count takes as a row of the synthetic batch, roughly; for the memory budget.
const COUNT_ROW_BYTES: usize = 128;

/// What is known about an expression over the log table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Class {
    /// The same for all rows of one stream, level and bucket.
    Fixed,
    /// The timestamp itself.
    Time,
    /// The timestamp's minute.
    Minute,
    /// Different from row to row, but never null.
    NeverNull,
    /// Anything else.
    Free,
}

/// What happens to the rows between the log table and the aggregate.
#[derive(Debug, Clone)]
enum Step {
    Filter(Arc<dyn PhysicalExpr>),
    Project(Vec<Arc<dyn PhysicalExpr>>, SchemaRef),
}

/// The partial state of one aggregate function.
#[derive(Debug, Clone)]
enum State {
    /// Counts rows in which all these are set.
    Count(Vec<Arc<dyn PhysicalExpr>>),
    /// Adds up a 64-bit integer.
    Sum(Arc<dyn PhysicalExpr>),
}

#[derive(Debug)]
struct Question {
    context: Arc<QueryContext>,
    columns: Columns,
    selection: Selection,
    bucket_ns: i64,
    steps: Vec<Step>,
    groups: Vec<Arc<dyn PhysicalExpr>>,
    states: Vec<(State, Option<Arc<dyn PhysicalExpr>>)>,
    /// Schema of the partial aggregate.
    schema: SchemaRef,
}

/// The rule; see the module.
#[derive(Debug)]
pub(crate) struct CountFromRollups;

impl PhysicalOptimizerRule for CountFromRollups {
    fn optimize(&self, plan: Arc<dyn ExecutionPlan>, _: &ConfigOptions) -> Result<Arc<dyn ExecutionPlan>> {
        plan.transform_up(|plan| {
            let question = plan.downcast_ref::<AggregateExec>().and_then(question);
            Ok(match question {
                Some(question) => Transformed::yes(LogCountExec::wrap(plan, Arc::new(question))),
                None => Transformed::no(plan),
            })
        })
        .data()
    }

    fn name(&self) -> &'static str {
        "CountFromRollups"
    }

    fn schema_check(&self) -> bool {
        true
    }
}

/// The question behind a partial aggregate, when roll-ups may answer it.
fn question(aggregate: &AggregateExec) -> Option<Question> {
    let group_by = aggregate.group_expr();
    let whole = group_by.is_single() || group_by.is_empty();
    if *aggregate.mode() != AggregateMode::Partial || !whole || group_by.has_grouping_set() {
        return None;
    }
    let mut nodes = Vec::new();
    let mut input = aggregate.input();
    while !input.is::<ScanExec>() {
        nodes.push(input);
        input = input.children().first().copied().filter(|_| input.children().len() == 1)?;
    }
    let logs = input.downcast_ref::<ScanExec>()?;
    let selection = &logs.selection;
    if logs.columns.table != Table::Logs
        || !logs.context.pushdown
        || selection.top.is_some()
        || selection.limit.is_some()
        || !selection.rows.iter().all(covers_levels)
    {
        return None;
    }
    let mut classes: Vec<Class> = logs.columns.sources.iter().map(source_class).collect();
    let mut bucket_ns = 0;
    let mut steps = Vec::new();
    for node in nodes.into_iter().rev() {
        if let Some(filter) = node.downcast_ref::<FilterExec>() {
            if filter.projection().is_some() || filter.fetch().is_some() {
                return None;
            }
            fixed(filter.predicate(), &classes, &mut bucket_ns)?;
            steps.push(Step::Filter(filter.predicate().clone()));
        } else if let Some(projection) = node.downcast_ref::<ProjectionExec>() {
            let exprs: Vec<_> = projection.expr().iter().map(|named| named.expr.clone()).collect();
            classes = exprs.iter().map(|expr| class(expr, &classes, &mut bucket_ns)).collect();
            steps.push(Step::Project(exprs, nullable(&projection.schema())));
        } else {
            return None;
        }
    }
    let groups: Vec<_> = group_by.expr().iter().map(|(expr, _)| expr.clone()).collect();
    groups.iter().try_for_each(|expr| fixed(expr, &classes, &mut bucket_ns))?;
    let mut states = Vec::new();
    for (function, filter) in aggregate.aggr_expr().iter().zip(aggregate.filter_expr()) {
        if let Some(filter) = filter {
            fixed(filter, &classes, &mut bucket_ns)?;
        }
        if function.is_distinct() || !function.order_bys().is_empty() {
            return None;
        }
        let state = match (function.fun().name(), function.state_fields().ok()?.as_slice()) {
            ("count", [state]) if *state.data_type() == DataType::Int64 => {
                let mut set = Vec::new();
                for expr in function.expressions() {
                    match class(&expr, &classes, &mut bucket_ns) {
                        Class::Fixed => set.push(expr),
                        Class::Time | Class::NeverNull => {}
                        Class::Minute | Class::Free => return None,
                    }
                }
                State::Count(set)
            }
            ("sum", [state]) if *state.data_type() == DataType::Int64 => {
                let [expr] = <[_; 1]>::try_from(function.expressions()).ok()?;
                fixed(&expr, &classes, &mut bucket_ns)?;
                State::Sum(expr)
            }
            _ => return None,
        };
        states.push((state, filter.clone()));
    }
    if bucket_ns != 0 && bucket_ns < SECOND_NS {
        return None;
    }
    Some(Question {
        context: logs.context.clone(),
        columns: logs.columns.clone(),
        selection: selection.clone(),
        bucket_ns: if bucket_ns == 0 { DAY_NS } else { bucket_ns },
        steps,
        groups,
        states,
        schema: aggregate.schema(),
    })
}

fn source_class(source: &Source) -> Class {
    match source {
        Source::Stored(column::TIMESTAMP) => Class::Time,
        Source::Minute => Class::Minute,
        Source::Level => Class::Fixed,
        source if source.is_of_stream() => Class::Fixed,
        Source::Stored(index) if !trine_schema::logs::schema().field(*index).is_nullable() => {
            Class::NeverNull
        }
        _ => Class::Free,
    }
}

fn fixed(expr: &Arc<dyn PhysicalExpr>, classes: &[Class], bucket_ns: &mut i64) -> Option<()> {
    (class(expr, classes, bucket_ns) == Class::Fixed).then_some(())
}

/// Class of an expression; functions that cut time narrow the bucket to one they are constant in.
fn class(expr: &Arc<dyn PhysicalExpr>, classes: &[Class], bucket_ns: &mut i64) -> Class {
    if let Some(column) = expr.downcast_ref::<Column>() {
        return match classes.get(column.index()) {
            Some(Class::Minute) => {
                *bucket_ns = gcd(*bucket_ns, MINUTE_NS);
                Class::Fixed
            }
            Some(class) => *class,
            None => Class::Free,
        };
    }
    if expr.is_volatile_node() {
        return Class::Free;
    }
    if let Some(function) = expr.downcast_ref::<ScalarFunctionExpr>()
        && matches!(function.fun().name(), "date_trunc" | "date_bin")
        && let Some(time) = function.args().get(1)
        && class(time, classes, bucket_ns) == Class::Time
    {
        return match cut_width(function) {
            Some(width) => {
                *bucket_ns = gcd(*bucket_ns, width);
                Class::Fixed
            }
            None => Class::Free,
        };
    }
    if let Some(cast) = expr.downcast_ref::<CastExpr>()
        && class(cast.expr(), classes, bucket_ns) == Class::Time
    {
        let utc = |zone: &str| matches!(zone, "UTC" | "+00:00" | "Z");
        return match cast.cast_type() {
            DataType::Timestamp(TimeUnit::Nanosecond, zone) if zone.as_deref().is_none_or(utc) => Class::Time,
            _ => Class::Free,
        };
    }
    let all_fixed = expr.children().iter().all(|child| class(child, classes, bucket_ns) == Class::Fixed);
    if all_fixed { Class::Fixed } else { Class::Free }
}

/// Width in nanoseconds of buckets, aligned to 1970, within which the call is constant.
fn cut_width(function: &ScalarFunctionExpr) -> Option<i64> {
    let literal = |index: usize| function.args().get(index)?.downcast_ref::<Literal>().map(Literal::value);
    if function.fun().name() == "date_trunc" {
        return match literal(0)?.try_as_str()??.to_ascii_lowercase().as_str() {
            "second" => Some(SECOND_NS),
            "minute" => Some(60 * SECOND_NS),
            "hour" => Some(3_600 * SECOND_NS),
            "day" | "week" | "month" | "quarter" | "year" => Some(DAY_NS),
            _ => None,
        };
    }
    let width = match literal(0)? {
        ScalarValue::IntervalMonthDayNano(Some(interval)) if interval.months == 0 => {
            i64::from(interval.days).checked_mul(DAY_NS)?.checked_add(interval.nanoseconds)?
        }
        ScalarValue::IntervalDayTime(Some(interval)) => i64::from(interval.days)
            .checked_mul(DAY_NS)?
            .checked_add(i64::from(interval.milliseconds).checked_mul(1_000_000)?)?,
        _ => return None,
    };
    let origin = match function.args().len() {
        2 => 0,
        _ => match literal(2)? {
            ScalarValue::TimestampNanosecond(Some(origin), _) => *origin,
            _ => return None,
        },
    };
    (width > 0).then(|| gcd(width, origin.rem_euclid(width)))
}

fn gcd(a: i64, b: i64) -> i64 {
    if b == 0 { a } else { gcd(b, a % b) }
}

fn nullable(schema: &Schema) -> SchemaRef {
    let fields: Vec<Field> =
        schema.fields().iter().map(|field| field.as_ref().clone().with_nullable(true)).collect();
    Arc::new(Schema::new(fields))
}

impl Question {
    /// The partial aggregate's output, or `None` when rows must be read.
    async fn answer(&self, task: &TaskContext) -> Result<Option<RecordBatch>> {
        if self.selection.is_empty() {
            return Ok(Some(RecordBatch::new_empty(self.schema.clone())));
        }
        let Some(counts) = self.counts().await? else { return Ok(None) };
        let reservation = MemoryConsumer::new("LogCountExec").register(task.memory_pool());
        reservation.try_grow(counts.len() * COUNT_ROW_BYTES)?;
        self.partial(&counts).map(Some)
    }

    /// Counts from the roll-ups; edges of the range that cut a bucket are counted from their rows.
    async fn counts(&self) -> Result<Option<Vec<LogCountRow>>> {
        let tables = &self.context.tables;
        let ask = |start: i64, end: i64| {
            let selection = Selection { start, end, ..self.selection.clone() };
            let scan = selection.logs(&self.context, Vec::new());
            tables.count_logs(LogCount { scan, bucket_ns: self.bucket_ns })
        };
        let (start, end) = (self.selection.start, self.selection.end);
        if let Some(counts) = ask(start, end).await.map_err(scan_error)? {
            return Ok(Some(counts));
        }
        // A bucket that holds whole minutes is one that roll-ups can be expected to keep.
        let step = self.bucket_ns.min(60 * SECOND_NS);
        let first = if start == i64::MIN { start } else { start.saturating_add((-start).rem_euclid(step)) };
        let last = if end == i64::MAX { end } else { end - end.rem_euclid(step) };
        if (first, last) == (start, end) || first >= last {
            return Ok(None);
        }
        let Some(mut counts) = ask(first, last).await.map_err(scan_error)? else { return Ok(None) };
        for (start, end) in [(start, first), (last, end)] {
            if start < end {
                self.count_rows(start, end, &mut counts).await?;
            }
        }
        Ok(Some(counts))
    }

    async fn count_rows(&self, start: i64, end: i64, counts: &mut Vec<LogCountRow>) -> Result<()> {
        let selection = Selection { start, end, ..self.selection.clone() };
        let projection = vec![column::STREAM, column::TIMESTAMP, column::SEVERITY_NUMBER];
        let mut batches = self.context.tables.scan_logs(selection.logs(&self.context, projection));
        let mut found: HashMap<(u32, u8, i64), (u64, u64)> = HashMap::new();
        while let Some(batch) = batches.next().await {
            let batch = batch.map_err(scan_error)?;
            let streams = batch.column(0).as_primitive::<UInt32Type>().values();
            let times = batch.column(1).as_primitive::<TimestampNanosecondType>().values();
            let severities = batch.column(2).as_primitive::<UInt8Type>().values();
            for ((stream, time), severity) in streams.iter().zip(times).zip(severities) {
                let level = Severity::from_number(i64::from(*severity)).level() as u8;
                let bucket = time - time.rem_euclid(self.bucket_ns);
                let (count, at_start) = found.entry((*stream, level, bucket)).or_default();
                *count += 1;
                *at_start += u64::from(*time == bucket);
            }
        }
        counts.extend(found.into_iter().map(|((stream, level, bucket), (count, at_start))| LogCountRow {
            stream,
            level,
            bucket,
            count,
            at_start,
        }));
        Ok(())
    }

    /// Sends one row per count through the plan's expressions.
    fn partial(&self, counts: &[LogCountRow]) -> Result<RecordBatch> {
        let mut batch = self.synthetic(counts)?;
        let mut weights = Int64Array::from_iter_values(counts.iter().map(|row| row.count as i64));
        for step in &self.steps {
            match step {
                Step::Filter(predicate) => {
                    let keep = predicate.evaluate(&batch)?.into_array(batch.num_rows())?;
                    let keep = keep.as_boolean();
                    weights = arrow::compute::filter(&weights, keep)?.as_primitive::<Int64Type>().clone();
                    batch = filter_record_batch(&batch, keep)?;
                }
                Step::Project(exprs, schema) => {
                    let columns = exprs
                        .iter()
                        .map(|expr| expr.evaluate(&batch)?.into_array(batch.num_rows()))
                        .collect::<Result<Vec<_>>>()?;
                    batch = with_rows(schema.clone(), columns, batch.num_rows())?;
                }
            }
        }
        let evaluate = |expr: &Arc<dyn PhysicalExpr>| expr.evaluate(&batch)?.into_array(batch.num_rows());
        let mut columns = self.groups.iter().map(evaluate).collect::<Result<Vec<_>>>()?;
        for (state, filter) in &self.states {
            let keep: Option<BooleanArray> = filter
                .as_ref()
                .map(|filter| evaluate(filter).map(|keep| keep.as_boolean().clone()))
                .transpose()?;
            let kept = |row: usize| keep.as_ref().is_none_or(|keep| keep.is_valid(row) && keep.value(row));
            let weight = weights.values();
            let column: Int64Array = match state {
                State::Count(set) => {
                    let set = set.iter().map(evaluate).collect::<Result<Vec<ArrayRef>>>()?;
                    let nulls: Vec<_> = set.iter().map(arrow::array::Array::logical_nulls).collect();
                    let counts =
                        |row: usize| kept(row) && nulls.iter().flatten().all(|nulls| nulls.is_valid(row));
                    (0..batch.num_rows()).map(|row| Some(if counts(row) { weight[row] } else { 0 })).collect()
                }
                State::Sum(expr) => {
                    let values = evaluate(expr)?;
                    let values = values.as_primitive::<Int64Type>();
                    (0..batch.num_rows())
                        .map(|row| {
                            let counted = kept(row) && values.is_valid(row);
                            counted.then(|| values.value(row).wrapping_mul(weight[row]))
                        })
                        .collect()
                }
            };
            columns.push(Arc::new(column));
        }
        with_rows(self.schema.clone(), columns, batch.num_rows())
    }

    /// One row per count, with the columns of the log table; those no roll-up knows are null.
    fn synthetic(&self, counts: &[LogCountRow]) -> Result<RecordBatch> {
        let streams: UInt32Array = counts.iter().map(|row| Some(row.stream)).collect();
        let streams = BatchStreams::new(self.context.tables.registry(), &streams);
        let names: StringViewArray =
            Level::ALL.iter().map(|level| Some(level.name()).filter(|name| !name.is_empty())).collect();
        let columns = self
            .columns
            .sources
            .iter()
            .zip(self.columns.schema.fields())
            .map(|(source, field)| -> Result<ArrayRef> {
                Ok(match source {
                    Source::Stored(column::TIMESTAMP) => {
                        debug_assert_eq!(field.data_type(), &timestamp_type());
                        let times =
                            TimestampNanosecondArray::from_iter_values(counts.iter().map(|row| row.bucket));
                        Arc::new(times.with_timezone("UTC"))
                    }
                    Source::Level => {
                        let levels: UInt32Array =
                            counts.iter().map(|row| Some(u32::from(row.level))).collect();
                        take(&names, &levels, None)?
                    }
                    Source::Minute => {
                        let minutes = counts.iter().map(|row| minute_of(row.bucket));
                        Arc::new(TimestampNanosecondArray::from_iter_values(minutes).with_timezone("UTC"))
                    }
                    source if source.is_of_stream() => streams.column(source)?,
                    _ => new_null_array(field.data_type(), counts.len()),
                })
            })
            .collect::<Result<Vec<_>>>()?;
        with_rows(nullable(&self.columns.schema), columns, counts.len())
    }
}

fn with_rows(schema: SchemaRef, columns: Vec<ArrayRef>, rows: usize) -> Result<RecordBatch> {
    Ok(RecordBatch::try_new_with_options(
        schema,
        columns,
        &RecordBatchOptions::new().with_row_count(Some(rows)),
    )?)
}

/// Answers a partial aggregate from roll-ups, or runs it.
#[derive(Debug)]
pub(crate) struct LogCountExec {
    question: Arc<Question>,
    partial: Arc<dyn ExecutionPlan>,
    /// The roll-ups' answer, given once for all partitions and handed out by the first.
    answer: Arc<OnceCell<Option<RecordBatch>>>,
    properties: Arc<PlanProperties>,
}

impl LogCountExec {
    fn wrap(partial: Arc<dyn ExecutionPlan>, question: Arc<Question>) -> Arc<dyn ExecutionPlan> {
        let properties = PlanProperties::new(
            EquivalenceProperties::new(partial.schema()),
            Partitioning::UnknownPartitioning(partial.output_partitioning().partition_count()),
            EmissionType::Final,
            Boundedness::Bounded,
        );
        Arc::new(Self { question, partial, answer: Arc::default(), properties: Arc::new(properties) })
    }
}

impl DisplayAs for LogCountExec {
    fn fmt_as(&self, _: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let question = &self.question;
        write!(f, "LogCountExec: from roll-ups, bucket={}s", question.bucket_ns / SECOND_NS)?;
        write!(f, "{}; else:", question.selection)
    }
}

impl ExecutionPlan for LogCountExec {
    fn name(&self) -> &'static str {
        "LogCountExec"
    }

    fn properties(&self) -> &Arc<PlanProperties> {
        &self.properties
    }

    fn children(&self) -> Vec<&Arc<dyn ExecutionPlan>> {
        vec![&self.partial]
    }

    fn benefits_from_input_partitioning(&self) -> Vec<bool> {
        vec![false]
    }

    fn apply_expressions(
        &self,
        _: &mut dyn FnMut(&Arc<dyn PhysicalExpr>) -> Result<TreeNodeRecursion>,
    ) -> Result<TreeNodeRecursion> {
        Ok(TreeNodeRecursion::Continue)
    }

    fn replace_children(
        self: Arc<Self>,
        mut children: Vec<Arc<dyn ExecutionPlan>>,
        _: ReplaceChildrenOptions,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        Ok(Self::wrap(children.swap_remove(0), self.question.clone()))
    }

    fn with_new_children(
        self: Arc<Self>,
        mut children: Vec<Arc<dyn ExecutionPlan>>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        Ok(Self::wrap(children.swap_remove(0), self.question.clone()))
    }

    fn execute(&self, partition: usize, task: Arc<TaskContext>) -> Result<SendableRecordBatchStream> {
        let (question, answer, partial) = (self.question.clone(), self.answer.clone(), self.partial.clone());
        let schema = self.schema();
        let batches = stream::once(async move {
            let answer = answer.get_or_try_init(|| question.answer(&task)).await?;
            Ok::<_, datafusion::error::DataFusionError>(match answer {
                None => partial.execute(partition, task)?,
                Some(batch) => {
                    let rows = if partition == 0 { batch.num_rows() } else { 0 };
                    let size = task.session_config().batch_size();
                    let batch = batch.clone();
                    let slices = (0..rows)
                        .step_by(size)
                        .map(move |start| Ok(batch.slice(start, size.min(rows - start))));
                    Box::pin(RecordBatchStreamAdapter::new(partial.schema(), stream::iter(slices)))
                }
            })
        });
        Ok(Box::pin(RecordBatchStreamAdapter::new(schema, batches.try_flatten())))
    }
}
