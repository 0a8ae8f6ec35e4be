//! [`Tables`] over batches in memory, by the reference semantics of each filter.

use std::{
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
};

use arrow::{
    array::{Array as _, AsArray as _, RecordBatch, UInt32Array},
    compute::{concat_batches, take_record_batch},
    datatypes::{TimestampNanosecondType, UInt8Type, UInt32Type},
};
use async_trait::async_trait;
use futures::{Stream as FuturesStream, StreamExt as _, stream};
use trine_model::{Severity, TenantId};
use trine_schema::{
    Direction, LogBatch, LogCount, LogCountRow, LogFilter, LogScan, RecordBatchStream, ScanError, Stream,
    StreamRegistry, Tables, TailLag,
    columns::attributes_of,
    label_name,
    logs::{column, schema},
};

/// Rows per batch that a scan hands out; small, so that queries see many batches.
const BATCH_ROWS: usize = 3;
/// Roll-ups exist for whole minutes.
const MINUTE: i64 = 60_000_000_000;

/// A store of one tenant's batches.
#[derive(Default)]
pub struct Memory {
    pub registry: StreamRegistry,
    pub batches: Vec<LogBatch>,
    /// Whether counts are answered from "roll-ups".
    pub rollups: bool,
    /// How often they were.
    pub counted: AtomicUsize,
    /// Rows that scans handed out.
    pub rows_read: AtomicUsize,
}

impl Memory {
    fn all(&self) -> RecordBatch {
        concat_batches(&schema(), self.batches.iter().map(|batch| &batch.records)).expect("one schema")
    }

    fn passes(&self, scan: &LogScan, rows: &RecordBatch, row: usize) -> bool {
        let stream = self.registry.get(rows.column(column::STREAM).as_primitive::<UInt32Type>().value(row));
        let time = rows.column(column::TIMESTAMP).as_primitive::<TimestampNanosecondType>().value(row);
        let id = |column: usize, want: &[u8]| {
            let ids = rows.column(column).as_fixed_size_binary();
            ids.is_valid(row) && ids.value(row) == want
        };
        let severity = rows.column(column::SEVERITY_NUMBER).as_primitive::<UInt8Type>().value(row);
        stream.tenant == scan.tenant
            && scan.in_range(time)
            && scan.streams.iter().all(|matcher| matcher.matches(&stream))
            && scan.filters.iter().all(|filter| match filter {
                LogFilter::Line(line) => {
                    line.matches(rows.column(column::BODY).as_string::<i32>().value(row))
                }
                LogFilter::TraceIds(any) => any.iter().any(|want| id(column::TRACE_ID, &want.0)),
                LogFilter::SpanId(want) => id(column::SPAN_ID, &want.0),
                LogFilter::Severity(range) => range.contains(&severity),
                LogFilter::Attribute { key, value } => {
                    attributes_of(rows.column(column::ATTRIBUTES).as_map(), row)
                        .any(|(name, found)| (name == key || label_name(name) == *key) && found == value)
                }
            })
    }

    fn matching(&self, scan: &LogScan) -> (RecordBatch, Vec<u32>) {
        let all = self.all();
        let found =
            (0..all.num_rows()).filter(|row| self.passes(scan, &all, *row)).map(|row| row as u32).collect();
        (all, found)
    }
}

#[async_trait]
impl Tables for Memory {
    fn registry(&self) -> &StreamRegistry {
        &self.registry
    }

    fn scan_logs(&self, scan: LogScan) -> RecordBatchStream {
        let (all, mut rows) = self.matching(&scan);
        if let Some((direction, limit)) = scan.top {
            let times = all.column(column::TIMESTAMP).as_primitive::<TimestampNanosecondType>();
            match direction {
                Direction::Forward => rows.sort_by_key(|row| times.value(*row as usize)),
                Direction::Backward => rows.sort_by_key(|row| std::cmp::Reverse(times.value(*row as usize))),
            }
            rows.truncate(limit);
        }
        self.rows_read.fetch_add(rows.len(), Relaxed);
        let batches: Vec<Result<RecordBatch, ScanError>> = rows
            .chunks(BATCH_ROWS)
            .map(|chunk| {
                let taken =
                    take_record_batch(&all, &UInt32Array::from(chunk.to_vec())).expect("rows are in range");
                Ok(taken.project(&scan.projection).expect("columns are in range"))
            })
            .collect();
        stream::iter(batches).boxed()
    }

    async fn count_logs(&self, count: LogCount) -> Result<Option<Vec<LogCountRow>>, ScanError> {
        if !self.rollups || count.bucket_ns % MINUTE != 0 {
            return Ok(None);
        }
        self.counted.fetch_add(1, Relaxed);
        let (all, rows) = self.matching(&count.scan);
        let times = all.column(column::TIMESTAMP).as_primitive::<TimestampNanosecondType>();
        let streams = all.column(column::STREAM).as_primitive::<UInt32Type>();
        let severities = all.column(column::SEVERITY_NUMBER).as_primitive::<UInt8Type>();
        let row = |row: &u32| {
            let at = *row as usize;
            let bucket = times.value(at).div_euclid(count.bucket_ns) * count.bucket_ns;
            let level = Severity::from_number(i64::from(severities.value(at))).level() as u8;
            let at_start = u64::from(times.value(at) == bucket);
            LogCountRow { stream: streams.value(at), level, bucket, count: 1, at_start }
        };
        Ok(Some(rows.iter().map(row).collect()))
    }

    async fn streams(&self, scan: LogScan) -> Result<Vec<Arc<Stream>>, ScanError> {
        let (all, rows) = self.matching(&LogScan { filters: Vec::new(), ..scan });
        let streams = all.column(column::STREAM).as_primitive::<UInt32Type>();
        let mut refs: Vec<u32> = rows.iter().map(|row| streams.value(*row as usize)).collect();
        refs.sort_unstable();
        refs.dedup();
        Ok(refs.into_iter().map(|stream| self.registry.get(stream)).collect())
    }

    fn attribute_names(&self, _tenant: &TenantId) -> Vec<String> {
        let all = self.all();
        let map = all.column(column::ATTRIBUTES).as_map();
        let mut names: Vec<String> =
            map.keys().as_string::<i32>().iter().flatten().map(str::to_owned).collect();
        names.sort_unstable();
        names.dedup();
        names
    }

    fn tail_logs(
        &self,
        _tenant: &TenantId,
    ) -> Pin<Box<dyn FuturesStream<Item = Result<LogBatch, TailLag>> + Send>> {
        stream::empty().boxed()
    }
}
