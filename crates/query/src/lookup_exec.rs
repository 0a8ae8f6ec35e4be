//! The operator behind [`crate::lookup`].

use std::{
    collections::{HashSet, VecDeque},
    fmt,
    sync::Arc,
};

use arrow::{
    array::{Array, RecordBatch},
    compute::concat_batches,
};
use datafusion::{
    catalog::memory::MemorySourceConfig,
    common::{Result, tree_node::TreeNodeRecursion},
    error::DataFusionError,
    execution::{
        SendableRecordBatchStream, TaskContext,
        memory_pool::{MemoryConsumer, MemoryReservation},
    },
    physical_expr::{Distribution, EquivalenceProperties, PhysicalExpr},
    physical_plan::{
        DisplayAs, DisplayFormatType, ExecutionPlan, Partitioning, PlanProperties, ReplaceChildrenOptions,
        execution_plan::{Boundedness, EmissionType},
        joins::{HashJoinExec, PartitionMode},
        metrics::{BaselineMetrics, Count, ExecutionPlanMetricsSet, MetricBuilder, MetricsSet},
        stream::RecordBatchStreamAdapter,
    },
};
use futures::{StreamExt, stream};
use trine_model::TraceId;

use crate::{
    chain::{scan_of, with_scan},
    lookup::Narrowing,
    scan::{ScanExec, scan_error},
};

/// Rows of the first chunk: few, so that a query with a limit is soon done …
const FIRST_CHUNK_ROWS: usize = 512;
/// … each chunk has so many times the rows of the one before …
const GROWTH: usize = 4;
/// … until there are this many, so that a long join reads its inner side a few times only …
const MAX_CHUNK_ROWS: usize = 1 << 19;
/// … or they fill this part of the query's memory.
const MEMORY_PART: usize = 8;

/// Bytes a trace id takes in a set, roughly.
const SEEN_BYTES: usize = 32;

/// Joins chunks of its outer (left) side to what its inner (right) side has for them.
#[derive(Debug)]
pub(crate) struct LookupJoinExec {
    /// The join as DataFusion would run it: keys, conditions, kind, both sides.
    join: HashJoinExec,
    narrowing: Narrowing,
    properties: Arc<PlanProperties>,
    metrics: ExecutionPlanMetricsSet,
}

impl LookupJoinExec {
    /// The left side of `join` becomes the outer one.
    pub(crate) fn new(join: &HashJoinExec, narrowing: Narrowing) -> Self {
        let properties = PlanProperties::new(
            EquivalenceProperties::new(join.schema()),
            Partitioning::UnknownPartitioning(1),
            EmissionType::Incremental,
            Boundedness::Bounded,
        );
        let join = join.builder().with_partition_mode(PartitionMode::CollectLeft);
        let join = join.build().expect("BUG: the join was one before");
        Self { join, narrowing, properties: Arc::new(properties), metrics: ExecutionPlanMetricsSet::new() }
    }

    fn inner(&self) -> Option<&ScanExec> {
        scan_of(self.join.right())
    }
}

impl DisplayAs for LookupJoinExec {
    fn fmt_as(&self, _: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let tables = tables_below(self.join.left());
        let inner = self.inner().map_or("", |scan| scan.columns.table.names()[0]);
        let on = self.join.on().iter().map(|(outer, inner)| format!("({outer}, {inner})"));
        write!(
            f,
            "LookupJoinExec: {} → {inner} by [{}], join_type={:?}, on=[{}]",
            if tables.is_empty() { "rows".to_owned() } else { tables.join(", ") },
            self.narrowing,
            self.join.join_type(),
            on.collect::<Vec<_>>().join(", "),
        )?;
        match self.join.filter() {
            Some(filter) => write!(f, ", filter={}", filter.expression()),
            None => Ok(()),
        }
    }
}

/// Names of the tables a plan reads.
fn tables_below(plan: &Arc<dyn ExecutionPlan>) -> Vec<&'static str> {
    match plan.downcast_ref::<ScanExec>() {
        Some(scan) => vec![scan.columns.table.names()[0]],
        None => plan.children().into_iter().flat_map(tables_below).collect(),
    }
}

impl ExecutionPlan for LookupJoinExec {
    fn name(&self) -> &'static str {
        "LookupJoinExec"
    }

    fn properties(&self) -> &Arc<PlanProperties> {
        &self.properties
    }

    fn children(&self) -> Vec<&Arc<dyn ExecutionPlan>> {
        vec![self.join.left(), self.join.right()]
    }

    fn required_input_distribution(&self) -> Vec<Distribution> {
        vec![Distribution::SinglePartition; 2]
    }

    fn benefits_from_input_partitioning(&self) -> Vec<bool> {
        vec![false; 2]
    }

    fn apply_expressions(
        &self,
        _: &mut dyn FnMut(&Arc<dyn PhysicalExpr>) -> Result<TreeNodeRecursion>,
    ) -> Result<TreeNodeRecursion> {
        Ok(TreeNodeRecursion::Continue)
    }

    fn replace_children(
        self: Arc<Self>,
        children: Vec<Arc<dyn ExecutionPlan>>,
        _: ReplaceChildrenOptions,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let join = self.join.builder().with_new_children(children)?.build()?;
        Ok(Arc::new(Self::new(&join, self.narrowing.clone())))
    }

    fn with_new_children(
        self: Arc<Self>,
        children: Vec<Arc<dyn ExecutionPlan>>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let join = self.join.builder().with_new_children(children)?.build()?;
        Ok(Arc::new(Self::new(&join, self.narrowing.clone())))
    }

    fn execute(&self, partition: usize, task: Arc<TaskContext>) -> Result<SendableRecordBatchStream> {
        let scan = self.inner().ok_or_else(|| bug("the inner side is no scan"))?.clone();
        let context = scan.context.clone();
        let run = Run {
            join: self.join.builder().build()?,
            narrowing: self.narrowing.clone(),
            chunks: Chunks {
                outer: Some(self.join.left().execute(0, task.clone())?),
                waiting: VecDeque::new(),
                rows: FIRST_CHUNK_ROWS,
                least: 1,
                max_bytes: context.memory_limit / MEMORY_PART,
            },
            scan,
            joined: None,
            seen: HashSet::new(),
            seen_bytes: MemoryConsumer::new("LookupJoinExec").register(task.memory_pool()),
            task,
            output: BaselineMetrics::new(&self.metrics, partition),
            lookups: MetricBuilder::new(&self.metrics).counter("lookups", partition),
        };
        let batches = stream::try_unfold(run, |mut run| async move {
            context_check(&run)?;
            Ok(run.next().await?.map(|batch| (batch, run)))
        });
        Ok(Box::pin(RecordBatchStreamAdapter::new(self.schema(), batches)))
    }

    fn metrics(&self) -> Option<MetricsSet> {
        Some(self.metrics.clone_inner())
    }
}

fn context_check(run: &Run) -> Result<()> {
    run.scan.context.check_deadline().map_err(scan_error)
}

fn bug(text: &str) -> DataFusionError {
    DataFusionError::Internal(format!("BUG: {text}"))
}

/// One execution.
struct Run {
    join: HashJoinExec,
    narrowing: Narrowing,
    scan: ScanExec,
    chunks: Chunks,
    task: Arc<TaskContext>,
    /// The join of the chunk at hand.
    joined: Option<SendableRecordBatchStream>,
    /// Traces that were looked up, where each counts once.
    seen: HashSet<TraceId>,
    seen_bytes: MemoryReservation,
    output: BaselineMetrics,
    lookups: Count,
}

impl Run {
    async fn next(&mut self) -> Result<Option<RecordBatch>> {
        loop {
            if let Some(joined) = &mut self.joined {
                match joined.next().await.transpose()? {
                    Some(batch) if batch.num_rows() > 0 => {
                        self.output.record_output(batch.num_rows());
                        return Ok(Some(batch));
                    }
                    Some(_) => continue,
                    None => self.joined = None,
                }
            }
            let Some(chunk) = self.chunks.next().await? else { return Ok(None) };
            context_check(self)?;
            let chunk = self.narrowing.unseen(chunk, &mut self.seen)?;
            self.seen_bytes.try_resize(self.seen.len() * SEEN_BYTES)?;
            self.joined = Some(self.look_up(chunk)?);
        }
    }

    fn look_up(&self, chunk: RecordBatch) -> Result<SendableRecordBatchStream> {
        let table = self.scan.columns.table;
        let selection = match self.narrowing.narrow(&self.scan.selection, table, &chunk)? {
            Some(selection) => {
                self.lookups.add(1);
                selection
            }
            None => {
                let mut nothing = self.scan.selection.clone();
                nothing.never = true;
                nothing
            }
        };
        let scan = Arc::new(self.scan.with_selection(selection));
        let inner = with_scan(self.join.right(), &scan)?;
        let outer = MemorySourceConfig::try_new_exec(&[vec![chunk]], self.join.left().schema(), None)?;
        let join = self.join.builder().with_new_children(vec![outer, inner])?.reset_state().build()?;
        join.execute(0, self.task.clone())
    }
}

/// The outer rows in chunks that grow. The first is what comes first, later ones wait for more rows.
struct Chunks {
    outer: Option<SendableRecordBatchStream>,
    waiting: VecDeque<RecordBatch>,
    /// Most rows of the next chunk.
    rows: usize,
    /// Rows for which it waits.
    least: usize,
    max_bytes: usize,
}

impl Chunks {
    async fn next(&mut self) -> Result<Option<RecordBatch>> {
        let (mut parts, mut rows, mut bytes): (Vec<RecordBatch>, usize, usize) = (Vec::new(), 0, 0);
        while rows < self.least && (rows == 0 || bytes < self.max_bytes) {
            let batch = match (self.waiting.pop_front(), &mut self.outer) {
                (Some(batch), _) => batch,
                (None, Some(outer)) => match outer.next().await.transpose()? {
                    Some(batch) => batch,
                    None => {
                        self.outer = None;
                        break;
                    }
                },
                (None, None) => break,
            };
            if batch.num_rows() == 0 {
                continue;
            }
            let room = self.rows - rows;
            let batch = if batch.num_rows() > room {
                self.waiting.push_front(batch.slice(room, batch.num_rows() - room));
                batch.slice(0, room)
            } else {
                batch
            };
            rows += batch.num_rows();
            bytes += batch.columns().iter().map(|column| sliced_bytes(column.as_ref())).sum::<usize>();
            parts.push(batch);
        }
        let Some(first) = parts.first() else { return Ok(None) };
        self.least = self.rows;
        self.rows = (self.rows * GROWTH).min(MAX_CHUNK_ROWS);
        Ok(Some(concat_batches(&first.schema(), &parts)?))
    }
}

/// Bytes of the rows alone; of a slice not those of the whole.
fn sliced_bytes(array: &dyn Array) -> usize {
    array.to_data().get_slice_memory_size().unwrap_or_else(|_| array.get_array_memory_size())
}
