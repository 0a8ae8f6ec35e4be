//! The way of one query.

use std::{pin::Pin, sync::Arc, time::Duration};

use arrow::{array::RecordBatch, datatypes::SchemaRef};
use futures::Stream;
use trine_model::TenantId;
use trine_schema::{ScanStats, Tables};

use crate::SqlError;

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
#[derive(Debug, Clone)]
pub struct SqlRequest {
    /// Whose data; no query can read another tenant's.
    pub tenant: TenantId,
    /// One statement.
    pub sql: String,
    /// First nanosecond of `logs` the query sees, inclusive.
    pub start: Option<i64>,
    /// Last nanosecond of `logs` the query sees, exclusive.
    pub end: Option<i64>,
    /// Instead of the engine's own.
    pub limits: Option<SqlLimits>,
}

impl SqlRequest {
    /// A query over all time with the engine's limits.
    pub fn new(tenant: TenantId, sql: impl Into<String>) -> Self {
        Self { tenant, sql: sql.into(), start: None, end: None, limits: None }
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

/// Answers SQL over one [`Tables`].
pub struct SqlEngine {
    tables: Arc<dyn Tables>,
    limits: SqlLimits,
}

impl SqlEngine {
    /// `limits` hold for requests that bring none.
    pub fn new(tables: Arc<dyn Tables>, limits: SqlLimits) -> Self {
        Self { tables, limits }
    }

    /// Plans the query and starts it. Must run inside a tokio runtime with its timer enabled.
    pub async fn query(&self, request: SqlRequest) -> Result<SqlAnswer, SqlError> {
        let _ = (&self.tables, &self.limits, request);
        todo!()
    }
}
