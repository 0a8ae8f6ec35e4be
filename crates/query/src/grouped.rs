//! Aggregates straight from a scan, grouped by codes instead of by text.
//!
//! A scan hands out streams as references, names as codes of a dictionary, kinds and status as numbers.
//! When all groups of a *partial* aggregate over logs or spans are such columns or minutes, [`GroupsByCode`]
//! puts a [`GroupedScanExec`] in the place of the aggregate and its scan: a value is looked at once a batch,
//! a row costs a look into a small table. The functions are DataFusion's own accumulators, and the final
//! aggregate above merges what comes. Its partitions share one scan, batch by batch.

use std::{fmt, sync::Arc};

use arrow::{
    array::{
        Array, ArrayRef, AsArray, RecordBatch, RecordBatchOptions, StringViewArray, TimestampNanosecondArray,
        UInt8Array,
    },
    compute::cast,
    datatypes::{SchemaRef, TimestampNanosecondType, UInt8Type, UInt32Type},
};
use datafusion::{
    common::{
        Result,
        config::ConfigOptions,
        tree_node::{Transformed, TransformedResult, TreeNode, TreeNodeRecursion},
    },
    execution::{
        SendableRecordBatchStream, TaskContext,
        memory_pool::{MemoryConsumer, MemoryReservation},
    },
    logical_expr::{EmitTo, GroupsAccumulator},
    physical_expr::{
        EquivalenceProperties, PhysicalExpr,
        aggregate::AggregateFunctionExpr,
        expressions::Column,
        utils::{collect_columns, reassign_expr_columns},
    },
    physical_optimizer::PhysicalOptimizerRule,
    physical_plan::{
        DisplayAs, DisplayFormatType, ExecutionPlan, Partitioning, PlanProperties, ReplaceChildrenOptions,
        aggregates::{AggregateExec, AggregateMode},
        execution_plan::{Boundedness, EmissionType},
        metrics::{BaselineMetrics, ExecutionPlanMetricsSet, MetricsSet},
        stream::RecordBatchStreamAdapter,
    },
};
use futures::{StreamExt, stream};
use hashbrown::HashMap;
use tokio::sync::Mutex;
use trine_schema::{RecordBatchStream, Stream, logs, spans};

use crate::{
    columns::{Columns, Source, kind_names, label_value, level_names, minute_of, status_names},
    scan::{ScanExec, scan_error},
    tables::{TIMESTAMP, Table},
};

/// More groups than this are handed on before more rows are read.
const MAX_GROUPS: usize = 1 << 16;
/// Bytes of a group beside its accumulators, roughly.
const GROUP_BYTES: usize = 96;
/// In tables of codes: not seen yet.
const UNSEEN: u32 = u32::MAX;

/// The rule; see the module.
#[derive(Debug)]
pub(crate) struct GroupsByCode;

impl PhysicalOptimizerRule for GroupsByCode {
    fn optimize(
        &self,
        plan: Arc<dyn ExecutionPlan>,
        config: &ConfigOptions,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let partitions = config.execution.target_partitions;
        plan.transform_up(|plan| {
            let grouped = plan.downcast_ref::<AggregateExec>().and_then(|node| grouped(node, partitions));
            Ok(match grouped {
                Some(grouped) => Transformed::yes(Arc::new(grouped?) as Arc<dyn ExecutionPlan>),
                None => Transformed::no(plan),
            })
        })
        .data()
    }

    fn name(&self) -> &'static str {
        "GroupsByCode"
    }

    fn schema_check(&self) -> bool {
        true
    }
}

/// The node that stands for a partial aggregate and its scan, when the groups have codes.
fn grouped(aggregate: &AggregateExec, partitions: usize) -> Option<Result<GroupedScanExec>> {
    let (group_by, scan) = (aggregate.group_expr(), aggregate.input().downcast_ref::<ScanExec>()?);
    let free = scan.context.pushdown
        && scan.columns.table != Table::Metrics
        && scan.selection.limit.is_none()
        && scan.selection.top.is_none()
        && !scan.selection.is_empty();
    if *aggregate.mode() != AggregateMode::Partial
        || aggregate.limit_options().is_some()
        || !group_by.is_single()
        || group_by.expr().is_empty()
        || !free
        || !aggregate.aggr_expr().iter().all(|function| function.groups_accumulator_supported())
    {
        return None;
    }
    let mut groups = Vec::new();
    for (expr, _) in group_by.expr() {
        let source = &scan.columns.sources[expr.downcast_ref::<Column>()?.index()];
        groups.push(Code::of(source, &scan.columns)?);
    }
    Some(GroupedScanExec::new(aggregate, scan, groups, partitions.max(1)))
}

/// What the codes of a group column are.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Code {
    /// The stream; its values as this column has them.
    Stream(Source),
    /// Codes of the dictionary at this place of the scan's batches.
    Dictionary(usize),
    /// A number below 256 with a name, at this place.
    Named(usize, Names),
    /// Minutes of the times at this place.
    Minute(usize),
}

/// Names of numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Names {
    Level,
    Status,
    Kind,
    /// The number itself.
    Number,
}

impl Names {
    fn of(self, number: u8) -> Value {
        let (names, otherwise) = match self {
            Self::Level => (level_names(), 24),
            Self::Status => (status_names(), 0),
            Self::Kind => (kind_names(), 0),
            Self::Number => return Value::Number(number),
        };
        let place = Some(usize::from(number)).filter(|place| *place < names.len()).unwrap_or(otherwise);
        Value::Text(names.is_valid(place).then(|| names.value(place).into()))
    }
}

impl Code {
    fn of(source: &Source, columns: &Columns) -> Option<Self> {
        let (table, stored) = (columns.table, columns.stored());
        let place = |index: usize| stored.iter().position(|have| *have == index);
        let named = |index: usize, names: Names| Some(Self::Named(place(index)?, names));
        match source {
            Source::Stored(spans::column::OPERATION) if table == Table::Spans => {
                Some(Self::Dictionary(place(spans::column::OPERATION)?))
            }
            Source::Stored(index @ (spans::column::STATUS_CODE | spans::column::KIND))
                if table == Table::Spans =>
            {
                named(*index, Names::Number)
            }
            Source::Status => named(spans::column::STATUS_CODE, Names::Status),
            Source::Kind => named(spans::column::KIND, Names::Kind),
            Source::Level => named(logs::column::SEVERITY_NUMBER, Names::Level),
            Source::Minute => Some(Self::Minute(place(TIMESTAMP)?)),
            Source::Attribute(name) if table == Table::Spans => {
                let place = columns.attribute_columns().iter().position(|known| known == name)?;
                Some(Self::Dictionary(stored.len() + place))
            }
            Source::Service | Source::Label(_) | Source::Known(_) => Some(Self::Stream(source.clone())),
            _ => None,
        }
    }
}

/// An aggregate function over columns of its own batch.
#[derive(Debug, Clone)]
struct Function {
    aggregate: Arc<AggregateFunctionExpr>,
    arguments: Vec<Arc<dyn PhysicalExpr>>,
    filter: Option<Arc<dyn PhysicalExpr>>,
}

/// Reads a table and aggregates it; the output is that of a partial aggregate.
pub(crate) struct GroupedScanExec {
    scan: ScanExec,
    groups: Vec<Code>,
    /// Columns that the functions look at.
    columns: Columns,
    functions: Vec<Function>,
    /// The one scan of all partitions, once it has begun.
    shared: Arc<Mutex<Option<RecordBatchStream>>>,
    properties: Arc<PlanProperties>,
    metrics: ExecutionPlanMetricsSet,
    /// As the aggregate shows itself.
    shown: String,
}

impl GroupedScanExec {
    fn new(aggregate: &AggregateExec, scan: &ScanExec, groups: Vec<Code>, partitions: usize) -> Result<Self> {
        let (functions, filters) = (aggregate.aggr_expr(), aggregate.filter_expr());
        let read = functions.iter().flat_map(|function| function.expressions());
        let mut needed: Vec<usize> = read
            .chain(filters.iter().flatten().cloned())
            .flat_map(|expr| collect_columns(&expr))
            .map(|column| column.index())
            .collect();
        needed.sort_unstable();
        needed.dedup();
        let columns = scan.columns.project(&needed)?;
        let own = |expr: &Arc<dyn PhysicalExpr>| reassign_expr_columns(expr.clone(), &columns.schema);
        let function = |(function, filter): (&Arc<AggregateFunctionExpr>, &Option<Arc<dyn PhysicalExpr>>)| {
            Ok(Function {
                aggregate: function.clone(),
                arguments: function.expressions().iter().map(own).collect::<Result<_>>()?,
                filter: filter.as_ref().map(own).transpose()?,
            })
        };
        let functions = functions.iter().zip(filters).map(function).collect::<Result<Vec<_>>>()?;
        let names = aggregate.group_expr().expr().iter().map(|(_, name)| name.as_str());
        let shown = format!("groups=[{}]", names.collect::<Vec<_>>().join(", "));
        let properties = PlanProperties::new(
            EquivalenceProperties::new(aggregate.schema()),
            Partitioning::UnknownPartitioning(partitions),
            EmissionType::Final,
            Boundedness::Bounded,
        );
        Ok(Self {
            scan: scan.clone(),
            groups,
            columns,
            functions,
            shared: Arc::default(),
            properties: Arc::new(properties),
            metrics: ExecutionPlanMetricsSet::new(),
            shown,
        })
    }
}

impl fmt::Debug for GroupedScanExec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("GroupedScanExec").field("scan", &self.scan).finish_non_exhaustive()
    }
}

impl DisplayAs for GroupedScanExec {
    fn fmt_as(&self, _: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let functions: Vec<&str> = self.functions.iter().map(|function| function.aggregate.name()).collect();
        let table = self.scan.columns.table.names()[0];
        write!(f, "GroupedScanExec: {table}, {}, aggr=[{}]", self.shown, functions.join(", "))?;
        write!(f, "{}", self.scan.selection)
    }
}

impl ExecutionPlan for GroupedScanExec {
    fn name(&self) -> &'static str {
        "GroupedScanExec"
    }

    fn properties(&self) -> &Arc<PlanProperties> {
        &self.properties
    }

    fn children(&self) -> Vec<&Arc<dyn ExecutionPlan>> {
        Vec::new()
    }

    fn apply_expressions(
        &self,
        _: &mut dyn FnMut(&Arc<dyn PhysicalExpr>) -> Result<TreeNodeRecursion>,
    ) -> Result<TreeNodeRecursion> {
        Ok(TreeNodeRecursion::Continue)
    }

    fn replace_children(
        self: Arc<Self>,
        _: Vec<Arc<dyn ExecutionPlan>>,
        _: ReplaceChildrenOptions,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        Ok(self)
    }

    fn with_new_children(self: Arc<Self>, _: Vec<Arc<dyn ExecutionPlan>>) -> Result<Arc<dyn ExecutionPlan>> {
        Ok(self)
    }

    fn reset_state(self: Arc<Self>) -> Result<Arc<dyn ExecutionPlan>> {
        Ok(Arc::new(Self {
            scan: self.scan.clone(),
            groups: self.groups.clone(),
            columns: self.columns.clone(),
            functions: self.functions.clone(),
            shared: Arc::default(),
            properties: self.properties.clone(),
            metrics: ExecutionPlanMetricsSet::new(),
            shown: self.shown.clone(),
        }))
    }

    fn execute(&self, partition: usize, task: Arc<TaskContext>) -> Result<SendableRecordBatchStream> {
        let run = Run {
            scan: self.scan.clone(),
            columns: self.columns.clone(),
            functions: self.functions.clone(),
            shared: self.shared.clone(),
            codes: self.groups.clone(),
            groups: Groups::default(),
            schema: self.schema(),
            reservation: MemoryConsumer::new("GroupedScanExec").register(task.memory_pool()),
            metrics: BaselineMetrics::new(&self.metrics, partition),
            size: task.session_config().batch_size(),
            waiting: None,
            ended: false,
        };
        let batches =
            stream::try_unfold(run, |mut run| async move { Ok(run.next().await?.map(|batch| (batch, run))) });
        Ok(Box::pin(RecordBatchStreamAdapter::new(self.schema(), batches)))
    }

    fn metrics(&self) -> Option<MetricsSet> {
        Some(self.metrics.clone_inner())
    }
}

/// One partition of one execution.
struct Run {
    scan: ScanExec,
    columns: Columns,
    functions: Vec<Function>,
    shared: Arc<Mutex<Option<RecordBatchStream>>>,
    codes: Vec<Code>,
    groups: Groups,
    schema: SchemaRef,
    reservation: MemoryReservation,
    metrics: BaselineMetrics,
    /// Most rows of a batch.
    size: usize,
    /// Groups that are handed on, and how many of them were.
    waiting: Option<(RecordBatch, usize)>,
    ended: bool,
}

impl Run {
    async fn next(&mut self) -> Result<Option<RecordBatch>> {
        loop {
            if let Some((batch, at)) = &mut self.waiting {
                let part = batch.slice(*at, self.size.min(batch.num_rows() - *at));
                *at += part.num_rows();
                if *at >= batch.num_rows() {
                    self.waiting = None;
                }
                self.metrics.record_output(part.num_rows());
                return Ok(Some(part));
            }
            if self.ended {
                return Ok(None);
            }
            self.groups = Groups::new(&self.codes);
            let functions = self.functions.iter();
            let mut accumulators = functions
                .map(|function| function.aggregate.create_groups_accumulator())
                .collect::<Result<Vec<_>>>()?;
            while self.groups.count() <= MAX_GROUPS {
                let Some(batch) = self.read().await? else {
                    self.ended = true;
                    break;
                };
                self.add(&batch, &mut accumulators)?;
                let held: usize = accumulators.iter().map(|accumulator| accumulator.size()).sum();
                self.reservation.try_resize(held + self.groups.count() * GROUP_BYTES)?;
            }
            if self.groups.count() > 0 {
                self.waiting = Some((self.emit(&mut accumulators)?, 0));
            }
        }
    }

    /// The next batch of the scan that all partitions share.
    async fn read(&self) -> Result<Option<RecordBatch>> {
        let mut shared = self.shared.lock().await;
        let source = shared.get_or_insert_with(|| self.scan.source());
        let batch = source.next().await.transpose().map_err(scan_error)?;
        if batch.is_none() {
            // Lets go of what the scan holds.
            *shared = Some(stream::empty().boxed());
        }
        Ok(batch)
    }

    fn add(&mut self, batch: &RecordBatch, accumulators: &mut [Box<dyn GroupsAccumulator>]) -> Result<()> {
        let registry = self.scan.context.tables.registry();
        let groups = self.groups.of(batch, |stream| registry.get(stream));
        let count = self.groups.count();
        let rows = self.columns.convert_part(registry, &self.scan.columns, batch)?;
        for (function, accumulator) in self.functions.iter().zip(accumulators) {
            let evaluate = |expr: &Arc<dyn PhysicalExpr>| expr.evaluate(&rows)?.into_array(rows.num_rows());
            let values = function.arguments.iter().map(evaluate).collect::<Result<Vec<_>>>()?;
            let filter = function.filter.as_ref().map(evaluate).transpose()?;
            let filter = filter.as_ref().map(AsArray::as_boolean);
            accumulator.update_batch(&values, &groups, filter, count)?;
        }
        Ok(())
    }

    /// All groups with the states of their functions.
    fn emit(&self, accumulators: &mut [Box<dyn GroupsAccumulator>]) -> Result<RecordBatch> {
        let mut columns = self.groups.columns();
        for accumulator in accumulators {
            columns.extend(accumulator.state(EmitTo::All)?);
        }
        let columns = columns.into_iter().zip(self.schema.fields()).map(|(array, field)| {
            if array.data_type() == field.data_type() { Ok(array) } else { cast(&array, field.data_type()) }
        });
        let options = RecordBatchOptions::new().with_row_count(Some(self.groups.count()));
        let columns = columns.collect::<Result<Vec<_>, _>>()?;
        Ok(RecordBatch::try_new_with_options(self.schema.clone(), columns, &options)?)
    }
}

/// A value of a group column.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Value {
    Text(Option<Box<str>>),
    Number(u8),
    Minute(i64),
}

/// The values of one group column, numbered.
struct Keys {
    code: Code,
    values: Vec<Value>,
    numbers: HashMap<Value, u32>,
    /// Numbers by stream.
    streams: HashMap<u32, u32>,
    /// Numbers by named number.
    named: Vec<u32>,
    /// The latest dictionary and numbers by its codes: many batches share one.
    dictionary: Option<(ArrayRef, Vec<u32>)>,
}

impl Keys {
    fn new(code: Code) -> Self {
        let named = if matches!(code, Code::Named(..)) { vec![UNSEEN; 256] } else { Vec::new() };
        Self {
            code,
            values: Vec::new(),
            numbers: HashMap::new(),
            streams: HashMap::new(),
            named,
            dictionary: None,
        }
    }

    /// The number of each row's value.
    fn of(&mut self, batch: &RecordBatch, stream: impl Fn(u32) -> Arc<Stream>) -> Vec<u32> {
        let Self { code, values, numbers, streams, named, dictionary } = self;
        let mut number = |value: Value| match numbers.get(&value) {
            Some(number) => *number,
            None => {
                values.push(value.clone());
                numbers.insert(value, values.len() as u32 - 1);
                values.len() as u32 - 1
            }
        };
        match code {
            Code::Stream(source) => {
                let mut last = (0, UNSEEN);
                let references = batch.column(0).as_primitive::<UInt32Type>().values().iter();
                let of_row = references.map(|reference| {
                    if last.1 == UNSEEN || last.0 != *reference {
                        let found = streams.entry(*reference);
                        let found = found.or_insert_with(|| number(of_stream(&stream(*reference), source)));
                        last = (*reference, *found);
                    }
                    last.1
                });
                of_row.collect()
            }
            Code::Dictionary(place) => {
                let codes = batch.column(*place).as_dictionary::<UInt32Type>();
                let texts = codes.values().as_string::<i32>();
                if dictionary.as_ref().is_none_or(|(latest, _)| !Arc::ptr_eq(latest, codes.values())) {
                    *dictionary = Some((codes.values().clone(), vec![UNSEEN; texts.len()]));
                }
                let Some((_, known)) = dictionary else { unreachable!("BUG: it was set") };
                let mut of_code = |code: usize| {
                    if known[code] == UNSEEN {
                        known[code] =
                            number(Value::Text(texts.is_valid(code).then(|| texts.value(code).into())));
                    }
                    known[code]
                };
                let keys = codes.keys();
                if keys.null_count() == 0 {
                    return keys.values().iter().map(|code| of_code(*code as usize)).collect();
                }
                let found: Vec<u32> =
                    keys.iter().map(|code| code.map_or(UNSEEN, |code| of_code(code as usize))).collect();
                let null = number(Value::Text(None));
                found.into_iter().map(|found| if found == UNSEEN { null } else { found }).collect()
            }
            Code::Named(place, names) => {
                let numbers = batch.column(*place).as_primitive::<UInt8Type>().values().iter();
                let of_row = numbers.map(|found| {
                    let known = &mut named[usize::from(*found)];
                    if *known == UNSEEN {
                        *known = number(names.of(*found));
                    }
                    *known
                });
                of_row.collect()
            }
            Code::Minute(place) => {
                let mut last = (0, UNSEEN);
                let times = batch.column(*place).as_primitive::<TimestampNanosecondType>().values().iter();
                let of_row = times.map(|time| {
                    let minute = minute_of(*time);
                    if last.1 == UNSEEN || last.0 != minute {
                        last = (minute, number(Value::Minute(minute)));
                    }
                    last.1
                });
                of_row.collect()
            }
        }
    }

    /// The values with these numbers.
    fn column(&self, numbers: impl Iterator<Item = u32>) -> ArrayRef {
        let values = numbers.map(|number| &self.values[number as usize]);
        match &self.code {
            Code::Minute(_) => {
                let minutes = values.map(|value| if let Value::Minute(at) = value { *at } else { 0 });
                Arc::new(TimestampNanosecondArray::from_iter_values(minutes).with_timezone("UTC"))
            }
            Code::Named(_, Names::Number) => {
                let numbers = values.map(|value| if let Value::Number(number) = value { *number } else { 0 });
                Arc::new(UInt8Array::from_iter_values(numbers))
            }
            Code::Stream(_) | Code::Dictionary(_) | Code::Named(..) => {
                let texts = values.map(|value| match value {
                    Value::Text(text) => text.as_deref(),
                    Value::Number(_) | Value::Minute(_) => None,
                });
                Arc::new(texts.collect::<StringViewArray>())
            }
        }
    }
}

/// What a column that depends on the stream says of one.
fn of_stream(stream: &Stream, source: &Source) -> Value {
    let text = match source {
        Source::Service => Some(label_value(stream, "service").unwrap_or("")),
        Source::Label(name) => label_value(stream, name),
        Source::Known(name) => label_value(stream, name),
        other => unreachable!("BUG: {other:?} is no label"),
    };
    Value::Text(text.map(Into::into))
}

/// The groups that were seen, numbered.
#[derive(Default)]
struct Groups {
    keys: Vec<Keys>,
    /// For each column but the first: combinations of one of the columns before and one of its values …
    pairs: Vec<Vec<(u32, u32)>>,
    /// … and their numbers.
    numbers: Vec<HashMap<(u32, u32), u32>>,
}

impl Groups {
    fn new(codes: &[Code]) -> Self {
        let more = codes.len().saturating_sub(1);
        Self {
            keys: codes.iter().cloned().map(Keys::new).collect(),
            pairs: vec![Vec::new(); more],
            numbers: vec![HashMap::new(); more],
        }
    }

    fn count(&self) -> usize {
        let single = self.keys.first().map_or(0, |keys| keys.values.len());
        self.pairs.last().map_or(single, Vec::len)
    }

    /// The group of each row.
    fn of(&mut self, batch: &RecordBatch, stream: impl Fn(u32) -> Arc<Stream>) -> Vec<usize> {
        let Some((first, rest)) = self.keys.split_first_mut() else { return vec![0; batch.num_rows()] };
        let mut groups = first.of(batch, &stream);
        for ((keys, pairs), numbers) in rest.iter_mut().zip(&mut self.pairs).zip(&mut self.numbers) {
            let mut last = ((0, 0), UNSEEN);
            for (group, number) in groups.iter_mut().zip(keys.of(batch, &stream)) {
                let pair = (*group, number);
                if last.1 == UNSEEN || last.0 != pair {
                    let found = *numbers.entry(pair).or_insert_with(|| {
                        pairs.push(pair);
                        pairs.len() as u32 - 1
                    });
                    last = (pair, found);
                }
                *group = last.1;
            }
        }
        groups.into_iter().map(|group| group as usize).collect()
    }

    /// The values of all groups, by column.
    fn columns(&self) -> Vec<ArrayRef> {
        let mut groups: Vec<u32> = (0..self.count() as u32).collect();
        let mut columns = Vec::with_capacity(self.keys.len());
        for (keys, pairs) in self.keys.iter().skip(1).zip(&self.pairs).rev() {
            columns.push(keys.column(groups.iter().map(|group| pairs[*group as usize].1)));
            groups.iter_mut().for_each(|group| *group = pairs[*group as usize].0);
        }
        columns.extend(self.keys.first().map(|keys| keys.column(groups.into_iter())));
        columns.reverse();
        columns
    }
}
