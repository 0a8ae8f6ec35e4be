//! Reading a trace from the tables.

use std::{ops::RangeInclusive, sync::Arc, time::Instant};

use arrow::array::RecordBatch;
use futures::StreamExt;
use trine_model::{TenantId, TraceId};
use trine_schema::{ScanError, ScanStats, SpanScan, Tables, columns};

use crate::{AssembleError, Trace, assemble};

/// What a question about traces may take.
#[derive(Debug, Clone)]
pub struct Budget {
    /// When to give up.
    pub deadline: Option<Instant>,
    /// Most bytes of spans held at once.
    pub memory_limit: Option<usize>,
    /// Where the scans count what they touched.
    pub stats: Arc<ScanStats>,
}

/// Why traces could not be read.
#[derive(Debug, Clone, thiserror::Error)]
pub enum FindError {
    /// The tables gave up.
    #[error(transparent)]
    Scan(#[from] ScanError),
    /// The tables gave something else than spans.
    #[error(transparent)]
    Assemble(#[from] AssembleError),
    /// The spans do not fit.
    #[error(
        "the traces asked for have more than {limit} bytes of spans; ask for a part of them with SQL \
         (SELECT … FROM spans WHERE trace_id = …), or for fewer at once"
    )]
    TooLarge {
        /// The bound in bytes.
        limit: usize,
    },
}

/// The part of a budget that the spans of the tables may take; assembled they are up to three times as large,
/// and written once more.
const SHARE: usize = 4;

/// The trace with this id, of the spans that start in the range; `None` when there are none.
pub async fn find_trace(
    tables: &dyn Tables,
    tenant: &TenantId,
    id: TraceId,
    range: RangeInclusive<i64>,
    budget: &Budget,
) -> Result<Option<Trace>, FindError> {
    let mut scan = scan(tenant, range, budget);
    scan.traces = Some([id].into());
    let (batches, _) = gather(tables, scan, 0).await?;
    Ok(assemble(&batches, tables.registry())?.into_iter().find(|trace| trace.id == id))
}

pub(crate) fn scan(tenant: &TenantId, range: RangeInclusive<i64>, budget: &Budget) -> SpanScan {
    let mut scan = SpanScan::all(tenant.clone());
    (scan.start, scan.last) = range.into_inner();
    (scan.deadline, scan.memory_limit) = (budget.deadline, budget.memory_limit);
    scan.stats = budget.stats.clone();
    scan
}

/// All batches of a scan and their bytes, beside which so many are held already.
pub(crate) async fn gather(
    tables: &dyn Tables,
    scan: SpanScan,
    held: usize,
) -> Result<(Vec<RecordBatch>, usize), FindError> {
    let limit = scan.memory_limit.map_or(usize::MAX, |bytes| bytes / SHARE);
    let mut stream = tables.scan_spans(scan);
    let (mut batches, mut bytes) = (Vec::new(), 0);
    while let Some(batch) = stream.next().await {
        let batch = batch?;
        bytes += columns::memory(&batch);
        if held.saturating_add(bytes) > limit {
            return Err(FindError::TooLarge { limit });
        }
        batches.push(batch);
    }
    Ok((batches, bytes))
}
