//! The log table: its Arrow schema and the builder that decoders write into.
//!
//! The builder keeps raw buffers and appends bytes; a record costs no heap allocation. Attributes
//! and body are staged by the calls before [`LogBatchBuilder::push`], which closes the row, or
//! [`LogBatchBuilder::discard`], which forgets what was staged.

use std::{
    fmt,
    sync::{Arc, OnceLock},
};

use arrow::{
    array::{ArrayRef, RecordBatch, TimestampNanosecondArray, UInt8Array, UInt32Array},
    buffer::{Buffer, ScalarBuffer},
    datatypes::{DataType, Field, Schema, SchemaRef},
};
use trine_model::{Severity, SpanId, TenantId, TraceId};

use crate::{
    StreamRef,
    columns::{Attributes, OptionalFixed, OptionalText, Runs, TextColumn, map_type, timestamp_type},
};

/// Column positions in [`schema`].
pub mod column {
    /// `stream`: UInt32, [`crate::StreamRef`].
    pub const STREAM: usize = 0;
    /// `timestamp`: nanoseconds since 1970, UTC.
    pub const TIMESTAMP: usize = 1;
    /// `observed_timestamp`: nanoseconds since 1970, UTC; null when not given.
    pub const OBSERVED_TIMESTAMP: usize = 2;
    /// `severity_number`: UInt8, 0 to 24.
    pub const SEVERITY_NUMBER: usize = 3;
    /// `severity_text`: the sender's word, null when it is just the level's name.
    pub const SEVERITY_TEXT: usize = 4;
    /// `body`: the line.
    pub const BODY: usize = 5;
    /// `trace_id`: 16 bytes or null.
    pub const TRACE_ID: usize = 6;
    /// `span_id`: 8 bytes or null.
    pub const SPAN_ID: usize = 7;
    /// `trace_flags`: UInt32, W3C flags in the low byte; 0 when not given.
    pub const TRACE_FLAGS: usize = 8;
    /// `event_name`: null when not given.
    pub const EVENT_NAME: usize = 9;
    /// `scope_name`: instrumentation scope (logger), null when not given.
    pub const SCOPE_NAME: usize = 10;
    /// `attributes`: map of text to text.
    pub const ATTRIBUTES: usize = 11;
    /// Number of columns.
    pub const COUNT: usize = 12;
}

/// Arrow schema of a [`LogBatch`]; positions are in [`column`].
pub fn schema() -> SchemaRef {
    static SCHEMA: OnceLock<SchemaRef> = OnceLock::new();
    SCHEMA
        .get_or_init(|| {
            Arc::new(Schema::new(vec![
                Field::new("stream", DataType::UInt32, false),
                Field::new("timestamp", timestamp_type(), false),
                Field::new("observed_timestamp", timestamp_type(), true),
                Field::new("severity_number", DataType::UInt8, false),
                Field::new("severity_text", DataType::Utf8, true),
                Field::new("body", DataType::Utf8, false),
                Field::new("trace_id", DataType::FixedSizeBinary(16), true),
                Field::new("span_id", DataType::FixedSizeBinary(8), true),
                Field::new("trace_flags", DataType::UInt32, false),
                Field::new("event_name", DataType::Utf8, true),
                Field::new("scope_name", DataType::Utf8, true),
                Field::new("attributes", map_type(), false),
            ]))
        })
        .clone()
}

/// Records of one tenant in arrival order.
#[derive(Debug, Clone)]
pub struct LogBatch {
    /// Whose records.
    pub tenant: TenantId,
    /// Rows with the schema of [`schema`]; `stream` holds refs of the process's registry.
    pub records: RecordBatch,
}

/// The fixed part of one record; attributes and body are staged in the builder before.
#[derive(Debug, Clone, Copy, Default)]
pub struct LogRecord<'a> {
    /// Stream of the record.
    pub stream: StreamRef,
    /// Nanoseconds since 1970.
    pub timestamp: i64,
    /// Nanoseconds since 1970, when given.
    pub observed_timestamp: Option<i64>,
    /// Severity number. When unset and the text is a known word, the word decides.
    pub severity: Severity,
    /// The sender's severity word, empty when none.
    pub severity_text: &'a str,
    /// Trace the record belongs to.
    pub trace_id: Option<TraceId>,
    /// Span the record belongs to.
    pub span_id: Option<SpanId>,
    /// W3C trace flags.
    pub trace_flags: u32,
    /// Name of the event, empty when none.
    pub event_name: &'a str,
    /// Instrumentation scope, empty when none.
    pub scope_name: &'a str,
}

/// Builds one [`LogBatch`].
pub struct LogBatchBuilder {
    tenant: TenantId,
    stream: Runs<u32>,
    timestamp: Vec<i64>,
    observed: OptionalFixed<i64>,
    severity_number: Runs<u8>,
    severity_text: OptionalText,
    body: TextColumn,
    trace_id: OptionalFixed<[u8; 16]>,
    span_id: OptionalFixed<[u8; 8]>,
    trace_flags: Runs<u32>,
    event_name: OptionalText,
    scope_name: OptionalText,
    attributes: Attributes,
    /// Whether `body_bytes` wrote bytes that nobody has checked yet.
    body_unchecked: bool,
}

/// The staged body is not UTF-8; the row was discarded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the body is not valid UTF-8")]
pub struct BodyNotUtf8;

impl LogBatchBuilder {
    /// `rows` and `body_bytes` are guesses that spare reallocation.
    pub fn new(tenant: TenantId, rows: usize, body_bytes: usize) -> Self {
        Self {
            tenant,
            stream: Runs::new(),
            timestamp: Vec::with_capacity(rows),
            observed: OptionalFixed::new(),
            severity_number: Runs::new(),
            severity_text: OptionalText::new(),
            body: TextColumn::new(rows, body_bytes),
            trace_id: OptionalFixed::new(),
            span_id: OptionalFixed::new(),
            trace_flags: Runs::new(),
            event_name: OptionalText::new(),
            scope_name: OptionalText::new(),
            attributes: Attributes::new(),
            body_unchecked: false,
        }
    }

    /// Closed rows.
    pub fn len(&self) -> usize {
        self.timestamp.len()
    }

    /// Whether no row was closed.
    pub fn is_empty(&self) -> bool {
        self.timestamp.is_empty()
    }

    /// Bytes of bodies, attribute keys and attribute values so far, staged ones included.
    pub fn text_bytes(&self) -> usize {
        self.body.data.len() + self.attributes.text_bytes()
    }

    /// Stages an attribute of the row.
    #[inline]
    pub fn attribute(&mut self, key: &str, value: &str) {
        self.attributes.push(key, value);
    }

    /// Stages an attribute whose value is written by `Display`.
    pub fn attribute_display(&mut self, key: &str, value: impl fmt::Display) {
        self.attributes.push_display(key, value);
    }

    /// Appends to the staged body.
    #[inline]
    pub fn body(&mut self, text: &str) {
        self.body.data.extend_from_slice(text.as_bytes());
    }

    /// Appends unchecked bytes to the staged body; [`LogBatchBuilder::push`] checks them.
    pub fn body_bytes(&mut self, bytes: &[u8]) {
        self.body.data.extend_from_slice(bytes);
        self.body_unchecked = true;
    }

    /// Closes the row with what was staged.
    pub fn push(&mut self, record: &LogRecord<'_>) -> Result<(), BodyNotUtf8> {
        if std::mem::take(&mut self.body_unchecked) {
            let staged = &self.body.data[self.body.committed()..];
            if !staged.is_ascii() && std::str::from_utf8(staged).is_err() {
                self.discard();
                return Err(BodyNotUtf8);
            }
        }
        let row = self.timestamp.len();
        self.timestamp.push(record.timestamp);
        self.body.close();
        self.stream.set(row, record.stream);
        let mut severity = record.severity;
        // Tested first: comparing empty text with empty text costs half as much as decoding a record, where
        // `memcmp` loads from the address of nothing.
        if !record.severity_text.is_empty() {
            if severity == Severity::UNSET {
                severity = Severity::from_text(record.severity_text).unwrap_or_default();
            }
            if record.severity_text != severity.level().name() {
                self.severity_text.set(row, record.severity_text);
            }
        }
        self.severity_number.set(row, severity.number());
        self.observed.set(row, record.observed_timestamp);
        self.trace_id.set(row, record.trace_id.map(|id| id.0));
        self.span_id.set(row, record.span_id.map(|id| id.0));
        self.trace_flags.set(row, record.trace_flags);
        self.event_name.set(row, record.event_name);
        self.scope_name.set(row, record.scope_name);
        self.attributes.close(row);
        Ok(())
    }

    /// Forgets the staged body and attributes.
    pub fn discard(&mut self) {
        self.body_unchecked = false;
        let body = self.body.committed();
        self.body.data.truncate(body);
        self.attributes.discard();
    }

    /// The batch of all closed rows.
    pub fn finish(mut self) -> LogBatch {
        self.discard();
        let rows = self.len();
        let (observed, nulls) = self.observed.finish(rows, Buffer::from_vec);
        let observed = TimestampNanosecondArray::new(ScalarBuffer::from(observed), nulls);
        let columns: Vec<ArrayRef> = vec![
            Arc::new(UInt32Array::new(ScalarBuffer::from(self.stream.finish(rows)), None)),
            Arc::new(TimestampNanosecondArray::from(self.timestamp).with_timezone("UTC")),
            Arc::new(observed.with_timezone("UTC")),
            Arc::new(UInt8Array::new(ScalarBuffer::from(self.severity_number.finish(rows)), None)),
            Arc::new(self.severity_text.finish(rows)),
            Arc::new(self.body.finish()),
            Arc::new(self.trace_id.finish_binary(rows)),
            Arc::new(self.span_id.finish_binary(rows)),
            Arc::new(UInt32Array::new(ScalarBuffer::from(self.trace_flags.finish(rows)), None)),
            Arc::new(self.event_name.finish(rows)),
            Arc::new(self.scope_name.finish(rows)),
            Arc::new(self.attributes.finish(rows)),
        ];
        let records = RecordBatch::try_new(schema(), columns).expect("BUG: columns follow the schema");
        LogBatch { tenant: self.tenant, records }
    }
}

#[cfg(test)]
mod tests {
    use arrow::{
        array::{Array as _, AsArray},
        datatypes::{TimestampNanosecondType, UInt8Type, UInt32Type},
    };

    use super::*;
    use crate::columns::{attributes_of, memory};

    fn builder() -> LogBatchBuilder {
        LogBatchBuilder::new(TenantId::default(), 4, 64)
    }

    #[test]
    fn rows_come_back_as_pushed() {
        let mut b = builder();
        b.attribute("k", "v");
        b.attribute_display("n", 7);
        b.body("hello ");
        b.body_bytes("wörld".as_bytes());
        let trace = TraceId([1; 16]);
        b.push(&LogRecord {
            stream: 3,
            timestamp: 5,
            severity_text: "warning",
            trace_id: Some(trace),
            ..Default::default()
        })
        .unwrap();
        b.push(&LogRecord {
            severity: Severity::from_number(9),
            severity_text: "INFO",
            ..Default::default()
        })
        .unwrap();
        let batch = b.finish().records;
        assert_eq!(batch.num_rows(), 2);
        assert_eq!(batch.column(column::BODY).as_string::<i32>().value(0), "hello wörld");
        assert_eq!(batch.column(column::SEVERITY_NUMBER).as_primitive::<UInt8Type>().value(0), 13);
        let words = batch.column(column::SEVERITY_TEXT).as_string::<i32>();
        assert_eq!(words.value(0), "warning");
        assert!(words.is_null(1), "a word that only repeats the level is not stored");
        let attributes: Vec<_> = attributes_of(batch.column(column::ATTRIBUTES).as_map(), 0).collect();
        assert_eq!(attributes, [("k", "v"), ("n", "7")]);
        assert_eq!(attributes_of(batch.column(column::ATTRIBUTES).as_map(), 1).count(), 0);
    }

    /// Optional columns begin at any row: before, between and after are nulls.
    #[test]
    fn a_late_first_value_leaves_nulls_before_it() {
        let mut b = builder();
        let id = TraceId([7; 16]);
        let rows = [(None, ""), (None, ""), (Some(id), "login"), (None, ""), (Some(id), "logout")];
        for (trace_id, event_name) in rows {
            let observed_timestamp = trace_id.map(|_| 9);
            b.push(&LogRecord { observed_timestamp, trace_id, event_name, ..Default::default() }).unwrap();
        }
        let batch = b.finish().records;
        let (ids, names) = (batch.column(column::TRACE_ID), batch.column(column::EVENT_NAME));
        let observed = batch.column(column::OBSERVED_TIMESTAMP);
        for (row, (trace_id, event_name)) in rows.into_iter().enumerate() {
            assert_eq!(ids.is_valid(row), trace_id.is_some());
            assert_eq!(observed.is_valid(row), trace_id.is_some());
            assert_eq!(names.is_valid(row), !event_name.is_empty());
            assert_eq!(names.as_string::<i32>().value(row), event_name);
            assert_eq!(ids.as_fixed_size_binary().value(row), trace_id.map_or([0; 16], |id| id.0));
        }
        assert_eq!(batch.column(column::SPAN_ID).null_count(), 5);
        for column in batch.columns() {
            column.to_data().validate_full().unwrap();
        }
    }

    /// Whatever rows have values: each column gives back what its rows were pushed with.
    #[test]
    fn every_pattern_of_values_comes_back() {
        const ROWS: usize = 6;
        for pattern in 0..1 << ROWS {
            let set = |row: usize| pattern & 1 << row != 0;
            let mut b = builder();
            for row in 0..ROWS {
                let text = if set(row) { ["a", "bc"][row % 2] } else { "" };
                if set(row) {
                    b.attribute("k", text);
                }
                b.push(&LogRecord {
                    stream: if set(row) { 7 } else { 0 },
                    observed_timestamp: set(row).then_some(row as i64),
                    severity: Severity::from_number(if set(row) { 9 } else { 0 }),
                    severity_text: text,
                    span_id: set(row).then_some(SpanId([row as u8; 8])),
                    trace_flags: if set(row) { row as u32 + 1 } else { 0 },
                    ..Default::default()
                })
                .unwrap();
            }
            let batch = b.finish().records;
            let streams = batch.column(column::STREAM).as_primitive::<UInt32Type>();
            let observed = batch.column(column::OBSERVED_TIMESTAMP).as_primitive::<TimestampNanosecondType>();
            let severities = batch.column(column::SEVERITY_NUMBER).as_primitive::<UInt8Type>();
            let words = batch.column(column::SEVERITY_TEXT).as_string::<i32>();
            let spans = batch.column(column::SPAN_ID).as_fixed_size_binary();
            let flags = batch.column(column::TRACE_FLAGS).as_primitive::<UInt32Type>();
            let attributes = batch.column(column::ATTRIBUTES).as_map();
            for row in 0..ROWS {
                let text = ["a", "bc"][row % 2];
                let (word, pairs) = if set(row) { (text, vec![("k", text)]) } else { ("", Vec::new()) };
                assert_eq!(streams.value(row), if set(row) { 7 } else { 0 }, "{pattern:b}");
                assert_eq!(severities.value(row), if set(row) { 9 } else { 0 }, "{pattern:b}");
                assert_eq!(flags.value(row), if set(row) { row as u32 + 1 } else { 0 }, "{pattern:b}");
                assert_eq!(
                    observed.is_valid(row).then(|| observed.value(row)),
                    set(row).then_some(row as i64)
                );
                assert_eq!(
                    spans.is_valid(row).then(|| spans.value(row)),
                    set(row).then_some(&[row as u8; 8][..])
                );
                assert_eq!((words.is_valid(row), words.value(row)), (set(row), word), "{pattern:b}");
                assert_eq!(attributes_of(attributes, row).collect::<Vec<_>>(), pairs, "{pattern:b}");
            }
            for column in batch.columns() {
                column.to_data().validate_full().unwrap();
            }
        }
    }

    #[test]
    fn columns_without_values_take_no_memory() {
        let rows = 1_000;
        let batch = |trace_flags| {
            let mut b = builder();
            for _ in 0..rows {
                b.body("four");
                b.push(&LogRecord { trace_flags, ..LogRecord::default() }).unwrap();
            }
            memory(&b.finish().records)
        };
        // Timestamp, body with its offset, and bits for the columns that may be null.
        let needed = rows * (8 + 4 + 4);
        assert!((needed..needed + rows).contains(&batch(0)), "{} bytes", batch(0));
        assert_eq!(batch(1), batch(0) + rows * 4);
    }

    #[test]
    fn a_discarded_row_leaves_no_trace_and_bad_utf8_is_refused() {
        let mut b = builder();
        b.attribute("gone", "gone");
        b.body("gone");
        b.discard();
        b.body_bytes(&[0xff, 0xfe]);
        b.attribute("bad", "row");
        assert_eq!(b.push(&LogRecord::default()), Err(BodyNotUtf8));
        b.body("kept");
        b.push(&LogRecord::default()).unwrap();
        b.attribute("staged", "but never pushed");
        let batch = b.finish().records;
        assert_eq!(batch.num_rows(), 1);
        assert_eq!(batch.column(column::BODY).as_string::<i32>().value(0), "kept");
        assert_eq!(attributes_of(batch.column(column::ATTRIBUTES).as_map(), 0).count(), 0);
    }
}
