//! The way of one query.

use std::{
    collections::{BTreeSet, HashMap},
    pin::Pin,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use arrow::{array::RecordBatch, datatypes::SchemaRef};
use datafusion::{
    catalog::{
        CatalogProvider, CatalogProviderList, MemoryCatalogProvider, MemoryCatalogProviderList,
        MemorySchemaProvider, SchemaProvider,
    },
    common::SchemaError,
    error::DataFusionError,
    execution::{
        SendableRecordBatchStream, SessionState, SessionStateBuilder,
        context::SQLOptions,
        disk_manager::{DiskManagerBuilder, DiskManagerMode},
        runtime_env::RuntimeEnvBuilder,
    },
    logical_expr::{AggregateUDF, registry::FunctionRegistry},
    optimizer::{Analyzer, Optimizer},
    physical_optimizer::optimizer::PhysicalOptimizer,
    physical_plan::execute_stream,
    prelude::SessionConfig,
};
use futures::{Stream, StreamExt, stream};
use trine_model::TenantId;
use trine_schema::{LogScan, MetricScan, ScanError, ScanStats, Tables};

use crate::{
    SqlError,
    asof::metric_at,
    columns::Columns,
    cooperative::JoinsYield,
    count::CountFromRollups,
    grouped::GroupsByCode,
    lengths::{SmallLengths, remove_multipliers},
    level::LevelNames,
    lookup::LookupJoins,
    memory::{Permit, QueryMemory},
    names::KnownNames,
    percentile::ApproxPercentile,
    reorder::SelectiveFirst,
    scan::{QueryContext, SqlTable, scan_error},
    statement::{Mentions, parse},
    tables::Table,
    top::{SeriesOnly, TopByTime},
};

/// Batches of an answer as they are found. Dropping it stops the query.
pub type SqlBatches = Pin<Box<dyn Stream<Item = Result<RecordBatch, SqlError>> + Send>>;

/// Budgets of one query.
#[derive(Debug, Clone)]
pub struct SqlLimits {
    /// Most bytes that sorting, grouping, joining and scanning may hold at once.
    pub memory_bytes: usize,
    /// Longest run, planning included.
    pub timeout: Duration,
    /// Most rows of an answer; what is cut is told in [`ScanStats::partial`].
    pub max_rows: Option<usize>,
    /// How many partitions work in parallel.
    pub target_partitions: usize,
}

impl Default for SqlLimits {
    fn default() -> Self {
        Self {
            memory_bytes: 512 << 20,
            timeout: Duration::from_secs(60),
            max_rows: None,
            target_partitions: std::thread::available_parallelism().map_or(1, std::num::NonZero::get),
        }
    }
}

/// One query.
#[derive(Clone)]
pub struct SqlRequest {
    /// Whose data; no query can read another tenant's.
    pub tenant: TenantId,
    /// One statement.
    pub sql: String,
    /// First nanosecond the query sees, inclusive: of logs, of the starts of spans, of samples.
    pub start: Option<i64>,
    /// Last nanosecond the query sees, exclusive.
    pub end: Option<i64>,
    /// Instead of the engine's own.
    pub limits: Option<SqlLimits>,
    /// Given back when the last operator has let go of its memory. After the answer was dropped that
    /// can be a while: an operator that calculates ends only where it yields.
    pub permit: Option<Permit>,
}

impl SqlRequest {
    /// A query over all time with the engine's limits.
    pub fn new(tenant: TenantId, sql: impl Into<String>) -> Self {
        Self { tenant, sql: sql.into(), start: None, end: None, limits: None, permit: None }
    }
}

/// The answer, under way.
pub struct SqlAnswer {
    /// Columns of the batches.
    pub schema: SchemaRef,
    /// The rows.
    pub stream: SqlBatches,
    /// What was touched so far.
    pub stats: Arc<ScanStats>,
}

/// Names of a tenant as they were found last.
struct NamesAt {
    found: Instant,
    names: Arc<KnownNames>,
}

/// How long names that a query gives itself (aliases) are looked up in what was found before.
const NAMES_FRESH: Duration = Duration::from_secs(1);

/// Most tenants whose names are remembered.
const MAX_NAME_CACHE: usize = 10_000;

/// Rows per batch inside a plan.
const BATCH_ROWS: usize = 8_192;

/// Answers SQL over one [`Tables`].
pub struct SqlEngine {
    tables: Arc<dyn Tables>,
    limits: SqlLimits,
    /// Functions and rules, cloned for each query.
    template: SessionState,
    names: Mutex<HashMap<TenantId, NamesAt>>,
    pushdown: bool,
}

impl SqlEngine {
    /// `limits` hold for requests that bring none.
    pub fn new(tables: Arc<dyn Tables>, limits: SqlLimits) -> Self {
        let mut rules = PhysicalOptimizer::new().rules;
        rules.insert(0, Arc::new(CountFromRollups));
        rules.insert(1, Arc::new(GroupsByCode));
        rules.insert(2, Arc::new(SeriesOnly));
        rules.insert(3, Arc::new(LookupJoins));
        // Behind the rules that move limits and projections, before those that wrap leaves.
        let last = rules.iter().position(|rule| rule.name() == "EnsureCooperative").unwrap_or(rules.len());
        rules.insert(last, Arc::new(TopByTime));
        rules.push(Arc::new(JoinsYield));
        let mut logical = Optimizer::new().rules;
        // While conditions lie in the scans and no projection lies between joins yet.
        let pushed = logical.iter().position(|rule| rule.name() == "push_down_filter");
        logical.insert(pushed.map_or(logical.len(), |at| at + 1), Arc::new(SelectiveFirst));
        let mut names = Analyzer::new().rules;
        names.insert(0, Arc::new(LevelNames));
        names.insert(0, Arc::new(SmallLengths));
        let mut template = SessionStateBuilder::new()
            .with_default_features()
            .with_analyzer_rules(names)
            .with_optimizer_rules(logical)
            .with_config(SessionConfig::new().with_create_default_catalog_and_schema(false))
            .with_physical_optimizer_rules(rules)
            .build();
        template
            .register_udaf(Arc::new(AggregateUDF::from(ApproxPercentile::default())))
            .expect("BUG: functions can be replaced");
        remove_multipliers(&mut template).expect("BUG: functions can be taken away");
        Self { tables, limits, template, names: Mutex::default(), pushdown: true }
    }

    /// The same engine, reading everything and deciding all by itself: what the answers are
    /// measured against in tests.
    #[doc(hidden)]
    #[must_use]
    pub fn without_pushdown(mut self) -> Self {
        self.pushdown = false;
        self
    }

    /// The same engine, joining by hash tables alone: what lookup joins are measured against in tests.
    #[doc(hidden)]
    #[must_use]
    pub fn without_lookup_joins(mut self) -> Self {
        let rules = self.template.physical_optimizers().iter();
        let rules = rules.filter(|rule| rule.name() != "LookupJoins").cloned().collect();
        let builder = SessionStateBuilder::new_from_existing(self.template);
        self.template = builder.with_physical_optimizer_rules(rules).build();
        self
    }

    /// Plans the query and starts it. Must run inside a tokio runtime with its timer enabled.
    ///
    /// Planning and the first steps happen here, everything else while the stream is polled.
    pub async fn query(&self, request: SqlRequest) -> Result<SqlAnswer, SqlError> {
        let limits = request.limits.clone().unwrap_or_else(|| self.limits.clone());
        let context = Arc::new(QueryContext {
            tables: self.tables.clone(),
            tenant: request.tenant.clone(),
            deadline: Instant::now() + limits.timeout,
            memory_limit: limits.memory_bytes,
            stats: Arc::default(),
            start: request.start.unwrap_or(i64::MIN),
            end: request.end.unwrap_or(i64::MAX),
            pushdown: self.pushdown,
            _permit: request.permit.clone(),
        });
        let budget = Budget {
            deadline: context.deadline.into(),
            timeout_ms: limits.timeout.as_millis() as u64,
            memory_bytes: limits.memory_bytes,
        };
        let started = tokio::time::timeout_at(budget.deadline, self.start(&request, &limits, &context)).await;
        let batches = match started {
            Ok(Ok(batches)) => batches,
            Ok(Err(error)) => return Err(budget.fill(error)),
            Err(_) => return Err(SqlError::Timeout { limit_ms: budget.timeout_ms }),
        };
        let schema = batches.schema();
        let stats = context.stats.clone();
        let stream = Box::pin(bounded(batches, budget, limits.max_rows, stats.clone()));
        Ok(SqlAnswer { schema, stream, stats })
    }

    async fn start(
        &self,
        request: &SqlRequest,
        limits: &SqlLimits,
        context: &Arc<QueryContext>,
    ) -> Result<SendableRecordBatchStream, SqlError> {
        let mut statement = parse(&request.sql)?;
        let mentions = Mentions::of(&mut statement)?;
        let known = self.known_names(&mentions, context).await?;
        let read = mentions.tables();
        let extra = mentions.rewrite(&mut statement, &known);
        let tables = Table::ALL.map(|table| {
            let own = extra.iter().filter(|((of, _), _)| *of == table);
            let columns = Columns::new(table, own.map(|((_, name), source)| (name.clone(), source.clone())));
            Arc::new(SqlTable { context: context.clone(), columns })
        });
        let mut state = self.session(request, limits, tables)?;
        state.register_udf(Arc::new(metric_at(context.clone()))).map_err(SqlError::from_datafusion)?;
        let plan = match state.statement_to_plan(statement).await {
            Ok(plan) => plan,
            Err(error) => return Err(self.explain_missing(error, &read, context).await),
        };
        let only_read =
            SQLOptions::new().with_allow_ddl(false).with_allow_dml(false).with_allow_statements(false);
        only_read.verify_plan(&plan).map_err(SqlError::from_datafusion)?;
        let physical = state.create_physical_plan(&plan).await.map_err(SqlError::from_datafusion)?;
        execute_stream(physical, state.task_ctx()).map_err(SqlError::from_datafusion)
    }

    /// A session that knows one tenant's tables and nothing else.
    fn session(
        &self,
        request: &SqlRequest,
        limits: &SqlLimits,
        tables: [Arc<SqlTable>; Table::ALL.len()],
    ) -> Result<SessionState, SqlError> {
        let mut config = SessionConfig::new()
            .with_batch_size(BATCH_ROWS)
            .with_target_partitions(limits.target_partitions.max(1))
            .with_information_schema(true)
            .with_create_default_catalog_and_schema(false)
            .with_default_catalog_and_schema("trine", "public");
        let options = config.options_mut();
        options.execution.time_zone = Some("UTC".to_owned());
        options.sql_parser.collect_spans = true;
        let runtime = RuntimeEnvBuilder::new()
            .with_memory_pool(Arc::new(QueryMemory::new(limits.memory_bytes, request.permit.clone())))
            .with_disk_manager_builder(DiskManagerBuilder::default().with_mode(DiskManagerMode::Disabled))
            .build_arc()
            .map_err(SqlError::from_datafusion)?;
        let schema = MemorySchemaProvider::new();
        let catalog = MemoryCatalogProvider::new();
        let catalogs = MemoryCatalogProviderList::new();
        for table in tables {
            for name in table.columns.table.names() {
                let table = table.clone();
                schema.register_table((*name).to_owned(), table).map_err(SqlError::from_datafusion)?;
            }
        }
        catalog.register_schema("public", Arc::new(schema)).map_err(SqlError::from_datafusion)?;
        catalogs.register_catalog("trine".to_owned(), Arc::new(catalog));
        let mut state = SessionStateBuilder::new_from_existing(self.template.clone())
            .with_config(config)
            .with_runtime_env(runtime)
            .with_catalog_list(Arc::new(catalogs))
            .build();
        state.mark_start_execution();
        Ok(state)
    }

    /// Names of labels and attributes, asked for only when the query mentions one that is not known.
    async fn known_names(
        &self,
        mentions: &Mentions,
        context: &QueryContext,
    ) -> Result<Arc<KnownNames>, SqlError> {
        if mentions.names.is_empty() {
            return Ok(Arc::default());
        }
        if let Some(cached) = self.names.lock().expect("BUG: no panic under this lock").get(&context.tenant) {
            let fresh = cached.found.elapsed() < NAMES_FRESH;
            let known = |table: Table, name: &String| {
                let alias = || fresh && mentions.aliases.contains(name);
                cached.names.source(table, name).is_some() || alias()
            };
            let covered = cached.names.cover(mentions.names.iter().map(|(table, _)| *table));
            if covered && mentions.names.iter().all(|(table, name)| known(*table, name)) {
                return Ok(cached.names.clone());
            }
        }
        let tables = mentions.names.iter().map(|(table, _)| *table).collect();
        self.find_names(&tables, context).await
    }

    async fn find_names(
        &self,
        tables: &BTreeSet<Table>,
        context: &QueryContext,
    ) -> Result<Arc<KnownNames>, SqlError> {
        let mut names = KnownNames::default();
        for table in tables {
            self.names_of(*table, &mut names, context)
                .await
                .map_err(|error| SqlError::from_datafusion(scan_error(error)))?;
        }
        let names = Arc::new(names);
        let mut cache = self.names.lock().expect("BUG: no panic under this lock");
        if cache.len() >= MAX_NAME_CACHE {
            cache.clear();
        }
        cache.insert(context.tenant.clone(), NamesAt { found: Instant::now(), names: names.clone() });
        Ok(names)
    }

    async fn names_of(
        &self,
        table: Table,
        names: &mut KnownNames,
        context: &QueryContext,
    ) -> Result<(), ScanError> {
        let names = names.of(table);
        let (tables, tenant) = (self.tables.clone(), context.tenant.clone());
        match table {
            Table::Logs => {
                let mut scan = LogScan::all(context.tenant.clone());
                scan.deadline = Some(context.deadline);
                for stream in self.tables.streams(scan).await? {
                    stream.labels.iter().for_each(|(name, _)| names.add_label(name));
                }
                self.tables
                    .attribute_names(&context.tenant)
                    .iter()
                    .for_each(|name| names.add_attribute(name));
            }
            Table::Spans => {
                let (labels, attributes) = blocking(move || tables.span_names(&tenant)).await?;
                labels.iter().for_each(|name| names.add_label(name));
                attributes.iter().for_each(|name| names.add_attribute(name));
            }
            Table::Metrics => {
                let scan = MetricScan { deadline: Some(context.deadline), ..MetricScan::all(tenant) };
                for series in blocking(move || tables.select_series(&scan)).await? {
                    series.stream.labels.iter().for_each(|(name, _)| names.add_label(name));
                }
            }
        }
        Ok(())
    }

    /// An unknown name gets a hint with names that are near.
    async fn explain_missing(
        &self,
        error: DataFusionError,
        tables: &BTreeSet<Table>,
        context: &QueryContext,
    ) -> SqlError {
        let missing = missing_column(&error);
        let error = SqlError::from_datafusion(error);
        let (Some(name), SqlError::BadQuery { message, hint, position }) = (missing, error.clone()) else {
            return error;
        };
        let near = match self.find_names(tables, context).await {
            Ok(names) => names.near(tables, &name),
            Err(_) => Vec::new(),
        };
        let hint = match near.as_slice() {
            [] => hint,
            near => Some(format!("near names are {}", near.join(", "))),
        };
        SqlError::BadQuery { message, hint, position }
    }
}

/// Runs on a thread that may wait.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, ScanError> + Send + 'static,
) -> Result<T, ScanError> {
    let done = tokio::task::spawn_blocking(work).await;
    done.unwrap_or_else(|error| Err(ScanError::Storage(error.to_string())))
}

fn missing_column(error: &DataFusionError) -> Option<String> {
    match error {
        DataFusionError::Diagnostic(_, inner) | DataFusionError::Context(_, inner) => missing_column(inner),
        DataFusionError::Collection(errors) => missing_column(errors.first()?),
        DataFusionError::SchemaError(inner, _) => match inner.as_ref() {
            SchemaError::FieldNotFound { field, .. } => Some(field.name.clone()),
            _ => None,
        },
        _ => None,
    }
}

/// What a running query may use.
#[derive(Clone, Copy)]
struct Budget {
    deadline: tokio::time::Instant,
    timeout_ms: u64,
    memory_bytes: usize,
}

impl Budget {
    fn fill(&self, error: SqlError) -> SqlError {
        error.with_limits(self.timeout_ms, self.memory_bytes)
    }
}

/// The batches until the deadline, the first error or the row limit; then the plan is dropped.
fn bounded(
    batches: SendableRecordBatchStream,
    budget: Budget,
    max_rows: Option<usize>,
    stats: Arc<ScanStats>,
) -> impl Stream<Item = Result<RecordBatch, SqlError>> + Send {
    stream::unfold(Some((batches, max_rows.unwrap_or(usize::MAX))), move |state| {
        let stats = stats.clone();
        async move {
            let (mut batches, left) = state?;
            let next = match tokio::time::timeout_at(budget.deadline, batches.next()).await {
                Ok(next) => next?,
                Err(_) => return Some((Err(SqlError::Timeout { limit_ms: budget.timeout_ms }), None)),
            };
            match next {
                Err(error) => Some((Err(budget.fill(SqlError::from_datafusion(error))), None)),
                Ok(batch) if batch.num_rows() <= left => {
                    let left = left - batch.num_rows();
                    Some((Ok(batch), Some((batches, left))))
                }
                Ok(batch) => {
                    let limit = max_rows.unwrap_or(usize::MAX);
                    stats.partial.lock().push(format!("the answer was cut at {limit} rows"));
                    (left > 0).then(|| (Ok(batch.slice(0, left)), None))
                }
            }
        }
    })
}
