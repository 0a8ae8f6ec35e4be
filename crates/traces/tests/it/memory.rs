//! Tables that hold a few batches of spans and answer scans by a plain filter.

use std::{pin::Pin, sync::Arc};

use arrow::{
    array::{AsArray, BooleanArray, RecordBatch, UInt32Array},
    compute::{concat_batches, filter_record_batch, take_record_batch},
    datatypes::{Int64Type, TimestampNanosecondType, UInt8Type, UInt32Type},
};
use async_trait::async_trait;
use futures::{Stream as FuturesStream, stream};
use trine_model::{TenantId, TraceId};
use trine_schema::{
    LogBatch, LogCount, LogCountRow, LogScan, RecordBatchStream, ScanError, SpanScan, Stream, StreamRegistry,
    Tables, TailLag, columns::attributes_of, spans::column,
};

pub struct Memory {
    pub registry: StreamRegistry,
    pub batches: Vec<RecordBatch>,
}

impl Memory {
    fn matches(&self, scan: &SpanScan, batch: &RecordBatch, row: usize) -> bool {
        let start = batch.column(column::TIMESTAMP).as_primitive::<TimestampNanosecondType>().value(row);
        let duration = batch.column(column::DURATION).as_primitive::<Int64Type>().value(row);
        let status = batch.column(column::STATUS_CODE).as_primitive::<UInt8Type>().value(row);
        let operation = batch.column(column::OPERATION).as_string::<i32>().value(row);
        let id =
            TraceId(batch.column(column::TRACE_ID).as_fixed_size_binary().value(row).try_into().unwrap());
        let stream = self.registry.get(batch.column(column::STREAM).as_primitive::<UInt32Type>().value(row));
        let attributes: Vec<_> = attributes_of(batch.column(column::ATTRIBUTES).as_map(), row).collect();
        (scan.start..=scan.last).contains(&start)
            && stream.tenant == scan.tenant
            && scan.streams.iter().all(|matcher| matcher.matches(&stream))
            && scan.traces.as_ref().is_none_or(|ids| ids.binary_search(&id).is_ok())
            && scan.operation.as_ref().is_none_or(|name| name == operation)
            && scan.duration.contains(&duration)
            && scan.status_code.is_none_or(|code| code == status)
            && scan.attributes.iter().all(|(k, v)| attributes.contains(&(k.as_str(), v.as_str())))
    }
}

#[async_trait]
impl Tables for Memory {
    fn registry(&self) -> &StreamRegistry {
        &self.registry
    }

    fn scan_spans(&self, scan: SpanScan) -> RecordBatchStream {
        let fitting = |batch: &RecordBatch| {
            let rows: BooleanArray =
                (0..batch.num_rows()).map(|row| Some(self.matches(&scan, batch, row))).collect();
            filter_record_batch(batch, &rows).unwrap()
        };
        let mut batches: Vec<RecordBatch> = self.batches.iter().map(fitting).collect();
        if let Some(newest) = scan.newest {
            let all = concat_batches(&trine_schema::spans::schema(), &batches).unwrap();
            let starts = all.column(column::TIMESTAMP).as_primitive::<TimestampNanosecondType>().values();
            let mut order: Vec<u32> = (0..all.num_rows() as u32).collect();
            order.sort_by_key(|row| std::cmp::Reverse(starts[*row as usize]));
            order.truncate(newest);
            batches = vec![take_record_batch(&all, &UInt32Array::from(order)).unwrap()];
        }
        let project = |batch: RecordBatch| Ok(batch.project(&scan.projection).unwrap());
        Box::pin(stream::iter(batches.into_iter().map(project).collect::<Vec<_>>()))
    }

    fn scan_logs(&self, _scan: LogScan) -> RecordBatchStream {
        Box::pin(stream::empty())
    }

    async fn count_logs(&self, _count: LogCount) -> Result<Option<Vec<LogCountRow>>, ScanError> {
        Ok(None)
    }

    async fn streams(&self, _scan: LogScan) -> Result<Vec<Arc<Stream>>, ScanError> {
        Ok(Vec::new())
    }

    fn attribute_names(&self, _tenant: &TenantId) -> Vec<String> {
        Vec::new()
    }

    fn tail_logs(
        &self,
        _tenant: &TenantId,
    ) -> Pin<Box<dyn FuturesStream<Item = Result<LogBatch, TailLag>> + Send>> {
        Box::pin(stream::empty())
    }
}
