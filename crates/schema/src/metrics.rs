//! The metric table as it is taken in: its Arrow schema and the builder that decoders write into.
//!
//! One row is one sample, one exemplar, or the metadata of one metric. A *series* is a stream of the
//! [`crate::StreamRegistry`] whose labels hold the metric's name under [`METRIC_NAME`] and are otherwise
//! those of Prometheus' data model: names as `[a-zA-Z_:][a-zA-Z0-9_:]*` or any UTF-8, no empty values. Times
//! are whole milliseconds, as Prometheus keeps them, written as nanoseconds like those of the other tables.

use std::sync::{Arc, OnceLock};

use arrow::{
    array::{
        AsArray, BinaryArray, Float64Array, RecordBatch, TimestampNanosecondArray, UInt8Array, UInt32Array,
    },
    buffer::{Buffer, ScalarBuffer},
    datatypes::{DataType, Field, Schema, SchemaRef, UInt8Type},
};
use trine_model::TenantId;

use crate::{
    Labels, NativeHistogram, StreamRef,
    columns::{OptionalBytes, OptionalFixed, Runs, timestamp_type},
};

/// Label that holds a metric's name.
pub const METRIC_NAME: &str = "__name__";

/// The value that says "this series ended here" (Prometheus' stale marker), as bits.
pub const STALE_NAN: u64 = 0x7ff0_0000_0000_0002;

/// Column positions in [`schema`].
pub mod column {
    /// `stream`: UInt32, [`crate::StreamRef`] of the series; of metadata, that of the labels `{__name__}`.
    pub const STREAM: usize = 0;
    /// `timestamp`: nanoseconds since 1970, UTC, whole milliseconds; of metadata the time of arrival.
    pub const TIMESTAMP: usize = 1;
    /// `kind`: UInt8, [`super::RowKind`].
    pub const KIND: usize = 2;
    /// `value`: Float64 of a float sample or an exemplar, else 0.
    pub const VALUE: usize = 3;
    /// `start_timestamp`: when the counter began, nanoseconds since 1970; null when not given.
    pub const START: usize = 4;
    /// `payload`: Binary. A histogram as [`crate::NativeHistogram::to_bytes`], labels of an exemplar as
    /// [`crate::Labels::to_json`], metadata as [`super::Metadata::to_json`]; null for a float sample.
    pub const PAYLOAD: usize = 5;
    /// Number of columns.
    pub const COUNT: usize = 6;
}

/// What a row is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum RowKind {
    /// A float sample.
    Float = 0,
    /// A native histogram sample.
    Histogram = 1,
    /// An exemplar: a value with labels of its own, such as a trace id.
    Exemplar = 2,
    /// Type, unit and help of a metric.
    Metadata = 3,
}

/// Arrow schema of a [`MetricBatch`]; positions are in [`column`].
pub fn schema() -> SchemaRef {
    static SCHEMA: OnceLock<SchemaRef> = OnceLock::new();
    let build = || {
        Arc::new(Schema::new(vec![
            Field::new("stream", DataType::UInt32, false),
            Field::new("timestamp", timestamp_type(), false),
            Field::new("kind", DataType::UInt8, false),
            Field::new("value", DataType::Float64, false),
            Field::new("start_timestamp", timestamp_type(), true),
            Field::new("payload", DataType::Binary, true),
        ]))
    };
    SCHEMA.get_or_init(build).clone()
}

/// Rows of one tenant in order of arrival.
#[derive(Debug, Clone)]
pub struct MetricBatch {
    /// Whose rows.
    pub tenant: TenantId,
    /// Rows with the schema of [`schema`]; `stream` holds refs of the process's registry.
    pub records: RecordBatch,
}

impl MetricBatch {
    /// Number of rows of a kind.
    pub fn rows_of(&self, kind: RowKind) -> usize {
        let kinds = self.records.column(column::KIND).as_primitive::<UInt8Type>();
        kinds.values().iter().map(|row| usize::from(*row == kind as u8)).sum()
    }
}

/// Type, unit and help of a metric, as Prometheus' `/api/v1/metadata` tells them.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Metadata {
    /// `counter`, `gauge`, `histogram`, `gaugehistogram`, `summary`, `info`, `stateset` or `unknown`.
    pub kind: String,
    /// Empty when not given.
    pub unit: String,
    /// Empty when not given.
    pub help: String,
}

impl Metadata {
    /// `{"type":…,"unit":…,"help":…}`
    pub fn to_json(&self) -> String {
        serde_json::json!({"type": self.kind, "unit": self.unit, "help": self.help}).to_string()
    }

    /// Reads back [`Metadata::to_json`].
    pub fn from_json(text: &str) -> Option<Self> {
        let object: serde_json::Value = serde_json::from_str(text).ok()?;
        let text = |name: &str| object.get(name)?.as_str().map(str::to_owned);
        Some(Self { kind: text("type")?, unit: text("unit")?, help: text("help")? })
    }
}

/// Builds one [`MetricBatch`].
pub struct MetricBatchBuilder {
    tenant: TenantId,
    stream: Vec<u32>,
    timestamp: Vec<i64>,
    kind: Runs<u8>,
    value: Vec<f64>,
    start: OptionalFixed<i64>,
    payload: OptionalBytes,
}

impl MetricBatchBuilder {
    /// `rows` is a guess that spares reallocation.
    pub fn new(tenant: TenantId, rows: usize) -> Self {
        Self {
            tenant,
            stream: Vec::with_capacity(rows),
            timestamp: Vec::with_capacity(rows),
            kind: Runs::new(),
            value: Vec::with_capacity(rows),
            start: OptionalFixed::new(),
            payload: OptionalBytes::new(),
        }
    }

    /// Rows so far.
    pub fn len(&self) -> usize {
        self.stream.len()
    }

    /// Whether there is no row.
    pub fn is_empty(&self) -> bool {
        self.stream.is_empty()
    }

    /// Bytes of payloads so far.
    pub fn payload_bytes(&self) -> usize {
        self.payload.bytes()
    }

    /// A row without its payload. `start_ms` of 0 is "not known".
    #[inline]
    fn row(&mut self, stream: StreamRef, kind: RowKind, at_ms: i64, value: f64, start_ms: i64) -> usize {
        let row = self.stream.len();
        self.stream.push(stream);
        self.timestamp.push(at_ms.saturating_mul(1_000_000));
        self.kind.set(row, kind as u8);
        self.value.push(value);
        self.start.set(row, (start_ms != 0).then(|| start_ms.saturating_mul(1_000_000)));
        row
    }

    /// Adds a float sample: milliseconds since 1970, value, and when its counter began (0: not known).
    #[inline]
    pub fn float(&mut self, series: StreamRef, at_ms: i64, value: f64, start_ms: i64) {
        self.row(series, RowKind::Float, at_ms, value, start_ms);
    }

    /// Adds a native histogram.
    pub fn histogram(&mut self, series: StreamRef, at_ms: i64, histogram: &NativeHistogram, start_ms: i64) {
        let row = self.row(series, RowKind::Histogram, at_ms, 0.0, start_ms);
        self.payload.set(row, &histogram.to_bytes());
    }

    /// Adds an exemplar of a series.
    pub fn exemplar(&mut self, series: StreamRef, at_ms: i64, value: f64, labels: &Labels) {
        let row = self.row(series, RowKind::Exemplar, at_ms, value, 0);
        self.payload.set(row, labels.to_json().as_bytes());
    }

    /// Adds the metadata of a metric; `metric` is the stream of the labels `{__name__}`.
    pub fn metadata(&mut self, metric: StreamRef, at_ms: i64, metadata: &Metadata) {
        let row = self.row(metric, RowKind::Metadata, at_ms, 0.0, 0);
        self.payload.set(row, metadata.to_json().as_bytes());
    }

    /// The batch of all rows.
    pub fn finish(self) -> MetricBatch {
        let rows = self.len();
        let (starts, known) = self.start.finish(rows, Buffer::from_vec);
        let starts = TimestampNanosecondArray::new(ScalarBuffer::from(starts), known);
        let columns: Vec<arrow::array::ArrayRef> = vec![
            Arc::new(UInt32Array::from(self.stream)),
            Arc::new(TimestampNanosecondArray::from(self.timestamp).with_timezone("UTC")),
            Arc::new(UInt8Array::new(ScalarBuffer::from(self.kind.finish(rows)), None)),
            Arc::new(Float64Array::from(self.value)),
            Arc::new(starts.with_timezone("UTC")),
            Arc::new(self.payload.finish(rows) as BinaryArray),
        ];
        let records =
            RecordBatch::try_new(schema(), columns).expect("BUG: the builder's columns fit the schema");
        MetricBatch { tenant: self.tenant, records }
    }
}

#[cfg(test)]
mod tests {
    use arrow::array::Array;

    use super::*;

    #[test]
    fn rows_of_all_kinds_become_columns() {
        let mut builder = MetricBatchBuilder::new(TenantId::default(), 4);
        let labels = Labels::from_pairs(&[("trace_id", "abc")]);
        let metadata = Metadata { kind: "counter".into(), unit: "seconds".into(), help: "a\"b".into() };
        builder.float(3, 5, f64::from_bits(STALE_NAN), 0);
        builder.exemplar(3, 5, 0.5, &labels);
        builder.histogram(4, 6, &NativeHistogram::default(), 2);
        builder.metadata(1, 7, &metadata);
        let records = builder.finish().records;
        let kinds = records.column(column::KIND).as_primitive::<arrow::datatypes::UInt8Type>();
        assert_eq!(kinds.values(), &[0, 2, 1, 3]);
        let values = records.column(column::VALUE).as_primitive::<arrow::datatypes::Float64Type>();
        assert_eq!(values.value(0).to_bits(), STALE_NAN);
        let starts = records.column(column::START);
        let starts = starts.as_primitive::<arrow::datatypes::TimestampNanosecondType>();
        assert_eq!((starts.null_count(), starts.value(2)), (3, 2_000_000));
        let payload = records.column(column::PAYLOAD).as_binary::<i32>();
        assert!(payload.is_null(0));
        let text = |row| std::str::from_utf8(payload.value(row)).unwrap();
        assert_eq!(Labels::from_json(text(1)), Some(labels));
        assert_eq!(NativeHistogram::from_bytes(payload.value(2)), Some(NativeHistogram::default()));
        assert_eq!(Metadata::from_json(text(3)), Some(metadata));
    }
}
