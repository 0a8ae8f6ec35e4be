//! The plan's leaf that reads the log table, and the table that makes it.

use std::{fmt, sync::Arc, time::Instant};

use arrow::datatypes::SchemaRef;
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
use futures::{StreamExt, stream};
use trine_model::{Severity, TenantId};
use trine_schema::{
    Direction, LabelMatch, LabelMatcher, LogFilter, LogScan, Needle, ScanError, ScanStats, Tables,
};

use crate::{
    columns::LogColumns,
    pushdown::{Condition, push},
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
}

impl fmt::Debug for QueryContext {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("QueryContext").field("tenant", &self.tenant).finish_non_exhaustive()
    }
}

/// Conditions, order and limit of one scan.
#[derive(Debug, Clone)]
pub(crate) struct Selection {
    pub(crate) start: i64,
    pub(crate) end: i64,
    pub(crate) streams: Vec<LabelMatcher>,
    pub(crate) rows: Vec<LogFilter>,
    /// No row can pass.
    pub(crate) never: bool,
    pub(crate) top: Option<(Direction, usize)>,
    pub(crate) limit: Option<usize>,
}

impl Selection {
    fn add(&mut self, condition: Condition) {
        match condition {
            Condition::Time(start, end) => {
                self.start = self.start.max(start);
                self.end = self.end.min(end);
            }
            Condition::Stream(matcher) => self.streams.push(matcher),
            Condition::Row(filter) => self.rows.push(filter),
            Condition::Never => self.never = true,
        }
    }

    /// The read it stands for.
    pub(crate) fn scan(&self, context: &QueryContext, projection: Vec<usize>) -> LogScan {
        LogScan {
            tenant: context.tenant.clone(),
            start: self.start,
            end: self.end,
            streams: self.streams.clone(),
            filters: self.rows.clone(),
            projection,
            top: self.top,
            deadline: Some(context.deadline),
            memory_limit: Some(context.memory_limit),
            stats: context.stats.clone(),
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.never || self.start >= self.end && self.end != i64::MAX
    }
}

impl fmt::Display for Selection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.never {
            f.write_str(", nothing")?;
        }
        let time = |at: i64| chrono::DateTime::from_timestamp_nanos(at).format("%Y-%m-%dT%H:%M:%S%.fZ");
        match (self.start, self.end) {
            (i64::MIN, i64::MAX) => {}
            (start, i64::MAX) => write!(f, ", time=[{}..]", time(start))?,
            (i64::MIN, end) => write!(f, ", time=[..{}]", time(end))?,
            (start, end) => write!(f, ", time=[{}..{}]", time(start), time(end))?,
        }
        if !self.streams.is_empty() {
            let streams: Vec<String> = self.streams.iter().map(matcher_text).collect();
            write!(f, ", streams=[{}]", streams.join(", "))?;
        }
        if !self.rows.is_empty() {
            let rows: Vec<String> = self.rows.iter().map(filter_text).collect();
            write!(f, ", rows=[{}]", rows.join(", "))?;
        }
        if let Some((direction, count)) = self.top {
            let word = if direction == Direction::Backward { "newest" } else { "oldest" };
            write!(f, ", top={count} {word}")?;
        }
        if let Some(limit) = self.limit {
            write!(f, ", limit={limit}")?;
        }
        Ok(())
    }
}

fn matcher_text(matcher: &LabelMatcher) -> String {
    let name = &matcher.name;
    match &matcher.value {
        LabelMatch::Equal(value) => format!("{name}={value:?}"),
        LabelMatch::NotEqual(value) => format!("{name}!={value:?}"),
        LabelMatch::Regex(regex) => format!("{name}=~{:?}", regex.as_str()),
        LabelMatch::NotRegex(regex) => format!("{name}!~{:?}", regex.as_str()),
    }
}

fn filter_text(filter: &LogFilter) -> String {
    match filter {
        LogFilter::Line(line) => {
            let any: Vec<String> = line
                .any
                .iter()
                .map(|needle| match needle {
                    Needle::Literal(text) => format!("{text:?}"),
                    Needle::Regex(regex) => format!("/{}/", regex.as_str()),
                })
                .collect();
            format!("body {}contains {}", if line.negated { "not " } else { "" }, any.join(" or "))
        }
        LogFilter::TraceIds(ids) => match ids.as_ref() {
            [id] => format!("trace_id={id}"),
            ids => format!("trace_id in {} ids", ids.len()),
        },
        LogFilter::SpanId(id) => format!("span_id={id}"),
        LogFilter::Severity(range) => format!("severity={}..{}", range.start(), range.end()),
        LogFilter::Attribute { key, value } => format!("attribute {key:?}={value:?}"),
    }
}

/// Whether a severity range covers whole levels, as roll-ups need it.
pub(crate) fn covers_levels(filter: &LogFilter) -> bool {
    let LogFilter::Severity(range) = filter else { return false };
    let level = |number: u8| Severity::from_number(i64::from(number)).level();
    let (start, end) = (*range.start(), *range.end());
    let whole_start = start == 0 || level(start - 1) != level(start);
    whole_start && (end >= 24 || level(end + 1) != level(end))
}

/// The SQL table `logs` of one tenant within one query.
#[derive(Debug)]
pub(crate) struct LogsTable {
    pub(crate) context: Arc<QueryContext>,
    pub(crate) columns: LogColumns,
}

#[async_trait]
impl TableProvider for LogsTable {
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
        let mut selection = Selection {
            start: self.context.start,
            end: self.context.end,
            streams: Vec::new(),
            rows: Vec::new(),
            never: false,
            top: None,
            limit,
        };
        for pushed in filters.iter().filter_map(|filter| push(filter, &self.columns)) {
            pushed.conditions.into_iter().for_each(|condition| selection.add(condition));
        }
        let columns = match projection {
            Some(projection) => self.columns.project(projection)?,
            None => self.columns.clone(),
        };
        Ok(Arc::new(LogsExec::new(self.context.clone(), columns, selection)))
    }
}

/// Reads the log table through [`Tables::scan_logs`], one partition.
#[derive(Debug, Clone)]
pub(crate) struct LogsExec {
    pub(crate) context: Arc<QueryContext>,
    pub(crate) columns: LogColumns,
    pub(crate) selection: Selection,
    properties: Arc<PlanProperties>,
    metrics: ExecutionPlanMetricsSet,
}

impl LogsExec {
    fn new(context: Arc<QueryContext>, columns: LogColumns, selection: Selection) -> Self {
        let properties = PlanProperties::new(
            EquivalenceProperties::new(columns.schema.clone()),
            Partitioning::UnknownPartitioning(1),
            EmissionType::Incremental,
            Boundedness::Bounded,
        );
        let metrics = ExecutionPlanMetricsSet::new();
        Self { context, columns, selection, properties: Arc::new(properties), metrics }
    }

    /// The same read, but only the first rows by time.
    pub(crate) fn with_top(&self, direction: Direction, count: usize) -> Self {
        let selection = Selection { top: Some((direction, count)), ..self.selection.clone() };
        Self { selection, ..self.clone() }
    }
}

impl DisplayAs for LogsExec {
    fn fmt_as(&self, _: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<&str> =
            self.columns.schema.fields().iter().map(|field| field.name().as_str()).collect();
        write!(f, "LogsExec: columns=[{}]{}", names.join(", "), self.selection)
    }
}

impl ExecutionPlan for LogsExec {
    fn name(&self) -> &'static str {
        "LogsExec"
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
        let stored = self.columns.stored();
        let scan = self.selection.scan(&self.context, stored.clone());
        let metrics = BaselineMetrics::new(&self.metrics, partition);
        let (context, columns) = (self.context.clone(), self.columns.clone());
        let limit = self.selection.limit.unwrap_or(usize::MAX);
        let source = context.tables.scan_logs(scan);
        let batches = stream::unfold(Some((source, limit)), move |state| {
            let (context, columns, stored) = (context.clone(), columns.clone(), stored.clone());
            let metrics = metrics.clone();
            async move {
                let (mut source, left) = state?;
                let mut batch = match source.next().await? {
                    Ok(batch) => batch,
                    Err(error) => return Some((Err(scan_error(error)), None)),
                };
                let _timer = metrics.elapsed_compute().timer();
                if batch.num_rows() > left {
                    batch = batch.slice(0, left);
                }
                let left = left - batch.num_rows();
                metrics.record_output(batch.num_rows());
                let batch = columns.convert(context.tables.registry(), &stored, &batch).map_err(Into::into);
                // The batch that fills the limit drops the source, so no further one is read.
                Some((batch, (left > 0).then_some((source, left))))
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
