//! Samples of metrics as rows: series are found by their labels first, then read a few at a time.

use std::{collections::HashMap, sync::Arc};

use arrow::{
    array::{ArrayRef, Float64Array, RecordBatch, RecordBatchOptions, TimestampNanosecondArray, UInt32Array},
    datatypes::Schema,
};
use datafusion::{common::Result, error::DataFusionError};
use futures::{Stream, stream};
use trine_schema::{
    MetricSeries, Samples, ScanError, Stream as Labelled, metrics::STALE_NAN, metrics::column::STREAM,
};

use crate::{
    columns::{BatchStreams, Columns, label_value, minute_of},
    scan::{QueryContext, scan_error},
    selection::Selection,
    tables::{TIMESTAMP, sample},
};

/// Rows after which a batch is handed on.
const BATCH_ROWS: usize = 8_192;

const MS: i64 = 1_000_000;

/// Series that pass all conditions on labels. Blocks.
pub(crate) fn series(context: &QueryContext, selection: &Selection) -> Result<Vec<MetricSeries>, ScanError> {
    let mut series = context.tables.select_series(&selection.metrics(context))?;
    let known = |stream: &Labelled| match &selection.services {
        Some(services) => services.any.contains(label_value(stream, services.label).unwrap_or("")),
        None => true,
    };
    series.retain(|series| {
        known(&series.stream) && selection.streams.iter().all(|matcher| matcher.matches(&series.stream))
    });
    Ok(series)
}

/// Rows under way.
struct Rows {
    streams: Vec<Arc<Labelled>>,
    stream: Vec<u32>,
    timestamp: Vec<i64>,
    value: Vec<Option<f64>>,
    count: Vec<Option<f64>>,
    sum: Vec<Option<f64>>,
}

impl Rows {
    fn new() -> Self {
        Self {
            streams: Vec::new(),
            stream: Vec::new(),
            timestamp: Vec::new(),
            value: Vec::new(),
            count: Vec::new(),
            sum: Vec::new(),
        }
    }

    fn push(&mut self, at_ms: i64, value: Option<f64>, count: Option<f64>, sum: Option<f64>) {
        self.stream.push(self.streams.len() as u32 - 1);
        self.timestamp.push(at_ms.saturating_mul(MS));
        self.value.push(value);
        self.count.push(count);
        self.sum.push(sum);
    }

    /// Adds what a series has in the range; a stale marker is no sample.
    fn add(&mut self, series: &MetricSeries, samples: &Samples, selection: &Selection) {
        self.streams.push(series.stream.clone());
        let inside = |at_ms: i64| {
            let at = at_ms.saturating_mul(MS);
            let minute = || selection.minutes.as_ref().is_none_or(|minutes| minutes.contains(&minute_of(at)));
            at >= selection.start && at <= selection.last() && minute()
        };
        let live = |value: f64| value.to_bits() != STALE_NAN;
        for (at, value) in samples.timestamps.iter().zip(&samples.values) {
            if live(*value) && inside(*at) {
                self.push(*at, Some(*value), None, None);
            }
        }
        for (at, histogram) in samples.histogram_timestamps.iter().zip(&samples.histograms) {
            if live(histogram.sum) && inside(*at) {
                self.push(*at, None, Some(histogram.count), Some(histogram.sum));
            }
        }
    }

    fn finish(self, columns: &Columns) -> Result<RecordBatch> {
        let rows = self.stream.len();
        let streams = BatchStreams { streams: Arc::new(self.streams), rows: UInt32Array::from(self.stream) };
        let mut made: HashMap<usize, ArrayRef> = HashMap::from([
            (STREAM, Arc::new(streams.rows.clone()) as ArrayRef),
            (TIMESTAMP, Arc::new(TimestampNanosecondArray::from(self.timestamp).with_timezone("UTC"))),
            (sample::VALUE, Arc::new(Float64Array::from(self.value))),
            (sample::COUNT, Arc::new(Float64Array::from(self.count))),
            (sample::SUM, Arc::new(Float64Array::from(self.sum))),
        ]);
        let stored = columns.stored();
        let schema: Schema = columns.table.stored().project(&stored)?;
        let arrays = stored.iter().filter_map(|index| made.remove(index)).collect();
        let options = RecordBatchOptions::new().with_row_count(Some(rows));
        let batch = RecordBatch::try_new_with_options(Arc::new(schema), arrays, &options)?;
        Ok(columns.with_streams(Some(&streams), &stored, &batch)?)
    }
}

/// What is left to read.
enum Left {
    All,
    Series(std::vec::IntoIter<MetricSeries>),
}

/// The samples that pass, as SQL rows. Reading blocks threads of its own.
pub(crate) fn samples(
    context: Arc<QueryContext>,
    columns: Columns,
    selection: Selection,
) -> impl Stream<Item = Result<RecordBatch>> + Send {
    let next = move |left: Left| {
        let (context, columns, selection) = (context.clone(), columns.clone(), selection.clone());
        async move {
            let read = tokio::task::spawn_blocking(move || next_batch(&context, &columns, &selection, left));
            match read.await {
                Ok(result) => result,
                Err(error) => Err(DataFusionError::External(Box::new(error))),
            }
        }
    };
    stream::try_unfold(Left::All, next)
}

fn next_batch(
    context: &QueryContext,
    columns: &Columns,
    selection: &Selection,
    left: Left,
) -> Result<Option<(RecordBatch, Left)>> {
    let mut left = match left {
        Left::All => series(context, selection).map_err(scan_error)?.into_iter(),
        Left::Series(left) => left,
    };
    let (mut rows, mut loaded) = (Rows::new(), Samples::default());
    while rows.stream.len() < BATCH_ROWS {
        let Some(series) = left.next() else { break };
        if selection.distinct {
            rows.streams.push(series.stream.clone());
            rows.push(0, None, None, None);
            continue;
        }
        context.check_deadline().map_err(scan_error)?;
        series.data.load(&mut loaded).map_err(scan_error)?;
        rows.add(&series, &loaded, selection);
    }
    if rows.stream.is_empty() {
        return Ok(None);
    }
    Ok(Some((rows.finish(columns)?, Left::Series(left))))
}
