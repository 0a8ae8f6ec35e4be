//! The plan's leaf that reads a table, and the table that makes it.

use std::{fmt, sync::Arc, time::Instant};

use arrow::{array::RecordBatch, datatypes::SchemaRef};
use async_trait::async_trait;
use datafusion::{
    catalog::{Session, TableProvider},
    common::{Result, tree_node::TreeNodeRecursion},
    error::DataFusionError,
    execution::{SendableRecordBatchStream, TaskContext},
    logical_expr::{Expr, TableProviderFilterPushDown, TableType},
    physical_expr::EquivalenceProperties,
    physical_plan::{
        DisplayAs, DisplayFormatType, ExecutionPlan, Partitioning, PhysicalExpr, PlanProperties,
        ReplaceChildrenOptions,
        execution_plan::{Boundedness, EmissionType},
        metrics::{BaselineMetrics, ExecutionPlanMetricsSet, MetricsSet},
        stream::RecordBatchStreamAdapter,
    },
};
use futures::{StreamExt, stream, stream::BoxStream};
use trine_model::TenantId;
use trine_schema::{Direction, RecordBatchStream, ScanError, ScanStats, Tables};

use crate::{
    columns::Columns, memory::Permit, metrics::samples, pushdown::push, selection::Selection, tables::Table,
};

/// What all scans of one query share.
pub(crate) struct QueryContext {
    pub(crate) tables: Arc<dyn Tables>,
    pub(crate) tenant: TenantId,
    pub(crate) deadline: Instant,
    pub(crate) memory_limit: usize,
    pub(crate) stats: Arc<ScanStats>,
    /// Range of the whole query; `i64::MAX` means no end.
    pub(crate) start: i64,
    pub(crate) end: i64,
    /// Whether conditions, orders and counts are handed to the scan. Off only in tests.
    pub(crate) pushdown: bool,
    /// Reads on threads of their own go on after the answer was dropped; they hold this.
    pub(crate) _permit: Option<Permit>,
}

impl QueryContext {
    /// Fails once the deadline has passed.
    pub(crate) fn check_deadline(&self) -> Result<(), ScanError> {
        self.stats.check_deadline(Some(self.deadline))
    }
}

impl fmt::Debug for QueryContext {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("QueryContext").field("tenant", &self.tenant).finish_non_exhaustive()
    }
}

/// A SQL table of one tenant within one query.
#[derive(Debug)]
pub(crate) struct SqlTable {
    pub(crate) context: Arc<QueryContext>,
    pub(crate) columns: Columns,
}

#[async_trait]
impl TableProvider for SqlTable {
    fn schema(&self) -> SchemaRef {
        self.columns.schema.clone()
    }

    fn table_type(&self) -> TableType {
        TableType::Base
    }

    fn supports_filters_pushdown(&self, filters: &[&Expr]) -> Result<Vec<TableProviderFilterPushDown>> {
        let support = |filter: &&Expr| match push(filter, &self.columns) {
            Some(pushed) if self.context.pushdown && pushed.exact => TableProviderFilterPushDown::Exact,
            Some(_) if self.context.pushdown => TableProviderFilterPushDown::Inexact,
            _ => TableProviderFilterPushDown::Unsupported,
        };
        Ok(filters.iter().map(support).collect())
    }

    async fn scan(
        &self,
        _state: &dyn Session,
        projection: Option<&Vec<usize>>,
        filters: &[Expr],
        limit: Option<usize>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let mut selection = Selection::all(&self.context, limit);
        for pushed in filters.iter().filter_map(|filter| push(filter, &self.columns)) {
            pushed.conditions.into_iter().for_each(|condition| selection.add(condition));
        }
        let columns = match projection {
            Some(projection) => self.columns.project(projection)?,
            None => self.columns.clone(),
        };
        Ok(Arc::new(ScanExec::new(self.context.clone(), columns, selection)))
    }
}

/// Reads one table through [`Tables`], one partition.
#[derive(Debug, Clone)]
pub(crate) struct ScanExec {
    pub(crate) context: Arc<QueryContext>,
    pub(crate) columns: Columns,
    pub(crate) selection: Selection,
    properties: Arc<PlanProperties>,
    metrics: ExecutionPlanMetricsSet,
}

impl ScanExec {
    fn new(context: Arc<QueryContext>, columns: Columns, selection: Selection) -> Self {
        let properties = PlanProperties::new(
            EquivalenceProperties::new(columns.schema.clone()),
            Partitioning::UnknownPartitioning(1),
            EmissionType::Incremental,
            Boundedness::Bounded,
        );
        let metrics = ExecutionPlanMetricsSet::new();
        Self { context, columns, selection, properties: Arc::new(properties), metrics }
    }

    /// Stored batches of logs or spans.
    pub(crate) fn source(&self) -> RecordBatchStream {
        let (tables, columns) = (&self.context.tables, &self.columns);
        if columns.table == Table::Spans {
            tables.scan_spans(self.selection.spans(&self.context, columns))
        } else {
            tables.scan_logs(self.selection.logs(&self.context, columns.stored()))
        }
    }

    /// Stored batches as SQL ones.
    fn converted(&self, source: RecordBatchStream) -> BoxStream<'static, Result<RecordBatch>> {
        let (context, columns, stored) = (self.context.clone(), self.columns.clone(), self.columns.stored());
        let converted = source.map(move |batch| {
            let batch = batch.map_err(scan_error)?;
            Ok(columns.convert(context.tables.registry(), &stored, &batch)?)
        });
        converted.boxed()
    }

    /// The same read with other conditions.
    pub(crate) fn with_selection(&self, selection: Selection) -> Self {
        Self { selection, ..self.clone() }
    }

    /// The same read, but only the first rows by time.
    pub(crate) fn with_top(&self, direction: Direction, count: usize) -> Self {
        let selection = Selection { top: Some((direction, count)), ..self.selection.clone() };
        Self { selection, ..self.clone() }
    }
}

impl DisplayAs for ScanExec {
    fn fmt_as(&self, _: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<&str> =
            self.columns.schema.fields().iter().map(|field| field.name().as_str()).collect();
        write!(f, "{}: columns=[{}]{}", self.name(), names.join(", "), self.selection)
    }
}

impl ExecutionPlan for ScanExec {
    fn name(&self) -> &'static str {
        self.columns.table.leaf()
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

    fn execute(&self, partition: usize, _: Arc<TaskContext>) -> Result<SendableRecordBatchStream> {
        let schema = self.columns.schema.clone();
        if self.selection.is_empty() || self.selection.limit == Some(0) {
            return Ok(Box::pin(RecordBatchStreamAdapter::new(schema, stream::empty())));
        }
        let source = match self.columns.table {
            Table::Logs | Table::Spans => self.converted(self.source()),
            Table::Metrics => {
                samples(self.context.clone(), self.columns.clone(), self.selection.clone()).boxed()
            }
        };
        let metrics = BaselineMetrics::new(&self.metrics, partition);
        let limit = self.selection.limit.unwrap_or(usize::MAX);
        let batches = stream::unfold(Some((source, limit)), move |state| {
            let metrics = metrics.clone();
            async move {
                let (mut source, left) = state?;
                let mut batch = match source.next().await? {
                    Ok(batch) => batch,
                    Err(error) => return Some((Err(error), None)),
                };
                if batch.num_rows() > left {
                    batch = batch.slice(0, left);
                }
                let left = left - batch.num_rows();
                metrics.record_output(batch.num_rows());
                // The batch that fills the limit drops the source, so no further one is read.
                Some((Ok(batch), (left > 0).then_some((source, left))))
            }
        });
        Ok(Box::pin(RecordBatchStreamAdapter::new(schema, batches)))
    }

    fn metrics(&self) -> Option<MetricsSet> {
        Some(self.metrics.clone_inner())
    }

    fn with_fetch(&self, limit: Option<usize>) -> Option<Arc<dyn ExecutionPlan>> {
        let selection = Selection { limit, ..self.selection.clone() };
        Some(Arc::new(Self { selection, ..self.clone() }))
    }

    fn fetch(&self) -> Option<usize> {
        self.selection.limit
    }
}

/// Carries a scan's error through the plan; the engine unpacks it again.
pub(crate) fn scan_error(error: ScanError) -> DataFusionError {
    DataFusionError::External(Box::new(error))
}
