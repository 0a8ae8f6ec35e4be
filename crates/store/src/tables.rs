//! Reading: [`Tables`] over a snapshot of memtables and segments.

use std::{pin::Pin, sync::Arc};

use async_trait::async_trait;
use futures::Stream as FuturesStream;
use trine_model::TenantId;
use trine_schema::{
    LogBatch, LogCount, LogCountRow, LogScan, RecordBatchStream, ScanError, Stream, StreamRegistry, Tables,
    TailLag,
};

use crate::Store;

#[async_trait]
impl Tables for Store {
    fn registry(&self) -> &StreamRegistry {
        Store::registry(self)
    }

    fn scan_logs(&self, _scan: LogScan) -> RecordBatchStream {
        todo!()
    }

    async fn count_logs(&self, _count: LogCount) -> Result<Option<Vec<LogCountRow>>, ScanError> {
        Ok(None)
    }

    async fn streams(&self, _scan: LogScan) -> Result<Vec<Arc<Stream>>, ScanError> {
        todo!()
    }

    fn attribute_names(&self, _tenant: &TenantId) -> Vec<String> {
        todo!()
    }

    fn tail_logs(
        &self,
        _tenant: &TenantId,
    ) -> Pin<Box<dyn FuturesStream<Item = Result<LogBatch, TailLag>> + Send>> {
        todo!()
    }
}
