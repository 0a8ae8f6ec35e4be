//! Rows of metrics as the columns that they come in.

use arrow::{
    array::{Array, AsArray, BinaryArray, RecordBatch, TimestampNanosecondArray},
    datatypes::{Float64Type, TimestampNanosecondType, UInt8Type},
};
use trine_schema::metrics::{column, schema};

use crate::{SegmentError, write::stream_refs};

/// Nanoseconds of a millisecond.
pub(super) const MS: i64 = 1_000_000;

/// Milliseconds since 1970 of a time in nanoseconds.
pub(super) fn ms(ns: i64) -> i64 {
    ns.div_euclid(MS)
}

/// Nanoseconds since 1970 of a time in milliseconds.
pub(super) fn ns(ms: i64) -> i64 {
    ms.saturating_mul(MS)
}

/// The columns of a batch of [`trine_schema::metrics::schema`].
pub(super) struct Rows<'a> {
    pub streams: &'a [u32],
    /// Nanoseconds.
    pub times: &'a [i64],
    /// [`trine_schema::RowKind`] as numbers.
    pub kinds: &'a [u8],
    pub values: &'a [f64],
    starts: Option<&'a TimestampNanosecondArray>,
    payloads: &'a BinaryArray,
}

impl<'a> Rows<'a> {
    pub(super) fn of(batch: &'a RecordBatch) -> Result<Self, SegmentError> {
        if batch.schema_ref().fields() != schema().fields() {
            let found = batch.schema_ref();
            return Err(SegmentError::Contract(format!("samples have other columns: {found}")));
        }
        let starts = batch.column(column::START).as_primitive::<TimestampNanosecondType>();
        Ok(Self {
            streams: stream_refs(batch),
            times: batch.column(column::TIMESTAMP).as_primitive::<TimestampNanosecondType>().values(),
            kinds: batch.column(column::KIND).as_primitive::<UInt8Type>().values(),
            values: batch.column(column::VALUE).as_primitive::<Float64Type>().values(),
            starts: (starts.null_count() < starts.len()).then_some(starts),
            payloads: batch.column(column::PAYLOAD).as_binary::<i32>(),
        })
    }

    /// Number of rows.
    pub(super) fn len(&self) -> usize {
        self.streams.len()
    }

    /// Whether any row says when its counter began.
    pub(super) fn has_starts(&self) -> bool {
        self.starts.is_some()
    }

    /// When the counter of a row began, milliseconds; 0 if not known.
    pub(super) fn start(&self, row: usize) -> i64 {
        self.starts.filter(|starts| starts.is_valid(row)).map_or(0, |starts| ms(starts.value(row)))
    }

    pub(super) fn payload(&self, row: usize) -> &'a [u8] {
        if self.payloads.is_valid(row) { self.payloads.value(row) } else { &[] }
    }

    /// A payload that is text; empty when it is none.
    pub(super) fn text(&self, row: usize) -> &'a str {
        std::str::from_utf8(self.payload(row)).unwrap_or("")
    }
}
