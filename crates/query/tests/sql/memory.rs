//! `Tables` in memory: every condition is applied row by row, as its documentation says.

use std::{
    collections::{BTreeMap, BTreeSet},
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
};

use arrow::{
    array::{Array, ArrayRef, AsArray, RecordBatch, RecordBatchOptions, StringArray, UInt32Array},
    compute::{cast, concat_batches, take_record_batch},
    datatypes::{Int64Type, TimestampNanosecondType, UInt8Type, UInt32Type},
};
use async_trait::async_trait;
use futures::{Stream as FuturesStream, StreamExt, stream};
use trine_model::{Severity, TenantId};
use trine_query::{SqlAnswer, SqlEngine, SqlError, SqlLimits, SqlRequest};
use trine_schema::{
    Direction, LoadSamples, LogBatch, LogCount, LogCountRow, LogFilter, LogScan, MetricScan, MetricSeries,
    RecordBatchStream, Samples, ScanError, SpanBatch, SpanScan, Stream, StreamRegistry, Tables, TailLag,
    columns::{AttributeName, attributes_of},
    label_name_eq,
    logs::column,
    spans,
};

/// Rows a scan hands out at once: few, so that queries see many batches.
const BATCH_ROWS: usize = 7;

#[derive(Default)]
pub struct MemoryTables {
    pub registry: StreamRegistry,
    pub batches: Vec<LogBatch>,
    pub spans: Vec<SpanBatch>,
    pub series: Vec<(Arc<Stream>, Arc<Samples>)>,
    /// How often counts were answered.
    pub counted: AtomicU64,
    /// Rows of logs handed out.
    pub served: AtomicU64,
    /// How often logs were read.
    pub scans: AtomicU64,
    /// Rows of spans handed out.
    pub served_spans: Arc<AtomicU64>,
    /// Series whose samples were read.
    pub loaded: Arc<AtomicU64>,
    /// Refuses ranges that do not begin and end at whole minutes, as roll-ups by minute would.
    pub whole_minutes_only: AtomicBool,
    /// Answers no count at all.
    pub no_rollups: AtomicBool,
}

impl MemoryTables {
    fn matches(&self, scan: &LogScan, batch: &RecordBatch, row: usize) -> bool {
        let time = batch.column(column::TIMESTAMP).as_primitive::<TimestampNanosecondType>().value(row);
        let stream = self.stream(batch, row);
        let fixed = |index: usize| {
            let ids = batch.column(index).as_fixed_size_binary();
            ids.is_valid(row).then(|| ids.value(row).to_vec())
        };
        scan.in_range(time)
            && scan.streams.iter().all(|matcher| matcher.matches(&stream))
            && scan.filters.iter().all(|filter| match filter {
                LogFilter::Line(line) => {
                    line.matches(batch.column(column::BODY).as_string::<i32>().value(row))
                }
                LogFilter::TraceIds(ids) => {
                    assert!(ids.is_sorted(), "trace ids come sorted");
                    fixed(column::TRACE_ID)
                        .is_some_and(|id| ids.binary_search_by(|any| any.0[..].cmp(&id[..])).is_ok())
                }
                LogFilter::SpanId(id) => fixed(column::SPAN_ID) == Some(id.0.to_vec()),
                LogFilter::Severity(range) => range.contains(&severity(batch, row)),
                LogFilter::Attribute { key, value } => {
                    attributes_of(batch.column(column::ATTRIBUTES).as_map(), row)
                        .any(|(have, is)| (have == key || label_name_eq(have, key)) && is == value)
                }
            })
    }

    fn span_matches(&self, scan: &SpanScan, batch: &RecordBatch, row: usize) -> bool {
        let time =
            batch.column(spans::column::TIMESTAMP).as_primitive::<TimestampNanosecondType>().value(row);
        let duration = batch.column(spans::column::DURATION).as_primitive::<Int64Type>().value(row);
        let status = batch.column(spans::column::STATUS_CODE).as_primitive::<UInt8Type>().value(row);
        let operation = batch.column(spans::column::OPERATION).as_string::<i32>().value(row);
        let trace = batch.column(spans::column::TRACE_ID).as_fixed_size_binary().value(row);
        let map = batch.column(spans::column::ATTRIBUTES).as_map();
        let stream = self.stream(batch, row);
        (scan.start..=scan.last).contains(&time)
            && scan.duration.contains(&duration)
            && scan.status_code.is_none_or(|code| code == status)
            && scan.operation.as_ref().is_none_or(|name| name == operation)
            && scan.traces.as_ref().is_none_or(|ids| {
                assert!(ids.is_sorted(), "trace ids come sorted");
                ids.binary_search_by(|id| id.0[..].cmp(trace)).is_ok()
            })
            && scan.streams.iter().all(|matcher| matcher.matches(&stream))
            && scan
                .attributes
                .iter()
                .all(|(key, value)| AttributeName::new(key).value(map, row) == Some(value))
    }

    fn stream(&self, batch: &RecordBatch, row: usize) -> Arc<Stream> {
        self.registry.get(batch.column(column::STREAM).as_primitive::<UInt32Type>().value(row))
    }

    fn select(&self, scan: &LogScan) -> RecordBatch {
        let parts: Vec<RecordBatch> = self
            .batches
            .iter()
            .filter(|batch| batch.tenant == scan.tenant)
            .map(|batch| {
                let rows =
                    (0..batch.records.num_rows()).filter(|row| self.matches(scan, &batch.records, *row));
                let rows = UInt32Array::from_iter_values(rows.map(|row| row as u32));
                take_record_batch(&batch.records, &rows).unwrap()
            })
            .collect();
        concat_batches(&trine_schema::logs::schema(), &parts).unwrap()
    }
}

/// Samples, counted when they are read.
struct Loaded(Arc<Samples>, Arc<AtomicU64>);

impl LoadSamples for Loaded {
    fn load(&self, samples: &mut Samples) -> Result<(), ScanError> {
        self.1.fetch_add(1, Relaxed);
        samples.clone_from(&self.0);
        Ok(())
    }
}

/// The columns that a scan asks for.
fn spans_as_asked(batch: &RecordBatch, scan: &SpanScan) -> RecordBatch {
    let map = batch.column(spans::column::ATTRIBUTES).as_map();
    let attribute = |name: &String| -> ArrayRef {
        let name = AttributeName::new(name);
        Arc::new((0..map.len()).map(|row| name.value(map, row)).collect::<StringArray>())
    };
    let stored = scan.projection.iter().map(|position| batch.column(*position).clone());
    let columns = stored.chain(scan.attribute_columns.iter().map(attribute));
    let schema = scan.schema();
    let columns = columns.zip(schema.fields()).map(|(array, field)| cast(&array, field.data_type()).unwrap());
    let options = RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
    RecordBatch::try_new_with_options(schema.clone(), columns.collect(), &options).unwrap()
}

/// The projected columns in small batches.
fn slices(rows: &RecordBatch, projection: &[usize]) -> Vec<RecordBatch> {
    let options = RecordBatchOptions::new().with_row_count(Some(rows.num_rows()));
    let columns = projection.iter().map(|index| rows.column(*index).clone()).collect();
    let schema = Arc::new(rows.schema().project(projection).unwrap());
    let rows = RecordBatch::try_new_with_options(schema, columns, &options).unwrap();
    let slice = |start| rows.slice(start, BATCH_ROWS.min(rows.num_rows() - start));
    (0..rows.num_rows()).step_by(BATCH_ROWS).map(slice).collect()
}

fn severity(batch: &RecordBatch, row: usize) -> u8 {
    batch.column(column::SEVERITY_NUMBER).as_primitive::<UInt8Type>().value(row)
}

#[async_trait]
impl Tables for MemoryTables {
    fn registry(&self) -> &StreamRegistry {
        &self.registry
    }

    fn scan_logs(&self, scan: LogScan) -> RecordBatchStream {
        self.scans.fetch_add(1, Relaxed);
        let mut rows = self.select(&scan);
        if let Some((direction, count)) = scan.top {
            let times = rows.column(column::TIMESTAMP).as_primitive::<TimestampNanosecondType>();
            let mut order: Vec<u32> = (0..rows.num_rows() as u32).collect();
            order.sort_by_key(|row| times.value(*row as usize));
            if direction == Direction::Backward {
                order.reverse();
            }
            order.truncate(count);
            rows = take_record_batch(&rows, &UInt32Array::from(order)).unwrap();
        }
        self.served.fetch_add(rows.num_rows() as u64, Relaxed);
        stream::iter(slices(&rows, &scan.projection))
            .map(move |batch| scan.check_deadline().map(|()| batch))
            .boxed()
    }

    fn scan_spans(&self, scan: SpanScan) -> RecordBatchStream {
        let parts: Vec<RecordBatch> = self
            .spans
            .iter()
            .filter(|batch| batch.tenant == scan.tenant)
            .map(|batch| {
                let rows = 0..batch.records.num_rows();
                let rows = rows.filter(|row| self.span_matches(&scan, &batch.records, *row));
                let rows = UInt32Array::from_iter_values(rows.map(|row| row as u32));
                take_record_batch(&batch.records, &rows).unwrap()
            })
            .collect();
        let mut rows = concat_batches(&spans::schema(), &parts).unwrap();
        if let Some(newest) = scan.newest {
            let times = rows.column(1).as_primitive::<TimestampNanosecondType>();
            let mut order: Vec<u32> = (0..rows.num_rows() as u32).collect();
            order.sort_by_key(|row| std::cmp::Reverse(times.value(*row as usize)));
            order.truncate(newest);
            rows = take_record_batch(&rows, &UInt32Array::from(order)).unwrap();
        }
        let served = self.served_spans.clone();
        let all: Vec<usize> = (0..spans::column::COUNT).collect();
        let batches = slices(&rows, &all).into_iter();
        stream::iter(batches.map(move |batch| {
            served.fetch_add(batch.num_rows() as u64, Relaxed);
            Ok(spans_as_asked(&batch, &scan))
        }))
        .boxed()
    }

    fn span_names(&self, tenant: &TenantId) -> Result<(Vec<String>, Vec<String>), ScanError> {
        let (mut labels, mut names) = (BTreeSet::new(), BTreeSet::new());
        for batch in self.spans.iter().filter(|batch| batch.tenant == *tenant) {
            let map = batch.records.column(spans::column::ATTRIBUTES).as_map();
            for row in 0..map.len() {
                names.extend(attributes_of(map, row).map(|(key, _)| key.to_owned()));
                labels.extend(self.stream(&batch.records, row).labels.iter().map(|(key, _)| key.to_owned()));
            }
        }
        Ok((labels.into_iter().collect(), names.into_iter().collect()))
    }

    fn select_series(&self, scan: &MetricScan) -> Result<Vec<MetricSeries>, ScanError> {
        let inside = |at: &i64| (scan.start_ms..=scan.end_ms).contains(at);
        let found = self.series.iter().filter(|(stream, samples)| {
            let mut times = samples.timestamps.iter().chain(&samples.histogram_timestamps);
            stream.tenant == scan.tenant && scan.matches(&stream.labels) && times.any(inside)
        });
        let series = found.map(|(stream, samples)| {
            let data = Arc::new(Loaded(samples.clone(), self.loaded.clone()));
            MetricSeries { stream: stream.clone(), data }
        });
        Ok(series.collect())
    }

    async fn count_logs(&self, count: LogCount) -> Result<Option<Vec<LogCountRow>>, ScanError> {
        const MINUTE: i64 = 60_000_000_000;
        let whole = |at: i64| at == i64::MIN || at == i64::MAX || at % MINUTE == 0;
        let unfit =
            self.whole_minutes_only.load(Relaxed) && !(whole(count.scan.start) && whole(count.scan.end));
        if self.no_rollups.load(Relaxed) || unfit {
            return Ok(None);
        }
        assert!(count.scan.filters.iter().all(|filter| matches!(filter, LogFilter::Severity(_))));
        self.counted.fetch_add(1, Relaxed);
        let rows = self.select(&count.scan);
        let mut counts: BTreeMap<(u32, u8, i64), (u64, u64)> = BTreeMap::new();
        for row in 0..rows.num_rows() {
            let stream = rows.column(column::STREAM).as_primitive::<UInt32Type>().value(row);
            let time = rows.column(column::TIMESTAMP).as_primitive::<TimestampNanosecondType>().value(row);
            let level = Severity::from_number(i64::from(severity(&rows, row))).level() as u8;
            let bucket = time - time.rem_euclid(count.bucket_ns);
            let counted = counts.entry((stream, level, bucket)).or_default();
            counted.0 += 1;
            counted.1 += u64::from(time == bucket);
        }
        let row = |((stream, level, bucket), (count, at_start))| LogCountRow {
            stream,
            level,
            bucket,
            count,
            at_start,
        };
        Ok(Some(counts.into_iter().map(row).collect()))
    }

    async fn streams(&self, scan: LogScan) -> Result<Vec<Arc<Stream>>, ScanError> {
        let streams = (0..self.registry.len() as u32).map(|stream| self.registry.get(stream));
        Ok(streams
            .filter(|stream| stream.tenant == scan.tenant && scan.streams.iter().all(|m| m.matches(stream)))
            .collect())
    }

    fn attribute_names(&self, tenant: &TenantId) -> Vec<String> {
        let mut names = BTreeSet::new();
        for batch in self.batches.iter().filter(|batch| batch.tenant == *tenant) {
            let map = batch.records.column(column::ATTRIBUTES).as_map();
            (0..map.len())
                .for_each(|row| names.extend(attributes_of(map, row).map(|(key, _)| key.to_owned())));
        }
        names.into_iter().collect()
    }

    fn tail_logs(
        &self,
        _: &TenantId,
    ) -> Pin<Box<dyn FuturesStream<Item = Result<LogBatch, TailLag>> + Send>> {
        stream::empty().boxed()
    }
}

pub fn limits() -> SqlLimits {
    SqlLimits {
        memory_bytes: 64 << 20,
        timeout: std::time::Duration::from_secs(20),
        max_rows: None,
        target_partitions: 2,
    }
}

/// A runtime whose threads have the stack that a server's have.
pub fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap()
}

/// Runs a query to its end on a worker thread.
pub fn run(engine: &Arc<SqlEngine>, request: SqlRequest) -> Result<Vec<RecordBatch>, SqlError> {
    let engine = engine.clone();
    let runtime = runtime();
    runtime.block_on(runtime.spawn(async move { collect(engine.query(request).await?).await })).unwrap()
}

pub async fn collect(answer: SqlAnswer) -> Result<Vec<RecordBatch>, SqlError> {
    let mut stream = answer.stream;
    let mut batches = Vec::new();
    while let Some(batch) = stream.next().await {
        batches.push(batch?);
    }
    Ok(batches)
}
