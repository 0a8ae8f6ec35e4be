//! The span table: its Arrow schema and the builder that decoders write into.
//!
//! One row is one span. Attributes, events and links are staged by the calls before
//! [`SpanBatchBuilder::push`], which closes the row, or [`SpanBatchBuilder::discard`], which forgets them.
//! Names are those of the OpenTelemetry trace data model; `operation` is the span's name.

use std::{
    fmt,
    ops::RangeInclusive,
    sync::{Arc, OnceLock},
    time::Instant,
};

use arrow::{
    array::{
        ArrayRef, FixedSizeBinaryArray, Int64Array, ListArray, RecordBatch, StructArray,
        TimestampNanosecondArray, UInt8Array, UInt32Array,
    },
    buffer::{Buffer, OffsetBuffer, ScalarBuffer},
    datatypes::{DataType, Field, Fields, Schema, SchemaRef},
};
use trine_model::{SpanId, TenantId, TraceId};

use crate::{
    LabelMatcher, ScanError, ScanStats, StreamRef,
    columns::{Attributes, OptionalFixed, OptionalText, Runs, TextColumn, map_type, offset, timestamp_type},
};

/// Column positions in [`schema`].
pub mod column {
    /// `stream`: UInt32, [`crate::StreamRef`] of the resource.
    pub const STREAM: usize = 0;
    /// `timestamp`: start, nanoseconds since 1970, UTC.
    pub const TIMESTAMP: usize = 1;
    /// `duration_ns`: Int64, end minus start; negative when the sender's clock went back.
    pub const DURATION: usize = 2;
    /// `trace_id`: 16 bytes.
    pub const TRACE_ID: usize = 3;
    /// `span_id`: 8 bytes.
    pub const SPAN_ID: usize = 4;
    /// `parent_span_id`: 8 bytes, null for a root.
    pub const PARENT_SPAN_ID: usize = 5;
    /// `operation`: the span's name.
    pub const OPERATION: usize = 6;
    /// `kind`: UInt8, OTLP `SpanKind`, 0 to 5.
    pub const KIND: usize = 7;
    /// `status_code`: UInt8, OTLP `StatusCode`: 0 unset, 1 ok, 2 error.
    pub const STATUS_CODE: usize = 8;
    /// `status_message`: null when not given.
    pub const STATUS_MESSAGE: usize = 9;
    /// `trace_state`: W3C `tracestate`, null when not given.
    pub const TRACE_STATE: usize = 10;
    /// `trace_flags`: UInt32, W3C flags in the low byte; 0 when not given.
    pub const TRACE_FLAGS: usize = 11;
    /// `scope_name`: instrumentation scope, null when not given.
    pub const SCOPE_NAME: usize = 12;
    /// `attributes`: map of text to text.
    pub const ATTRIBUTES: usize = 13;
    /// `events`: list of [`super::event_fields`].
    pub const EVENTS: usize = 14;
    /// `links`: list of [`super::link_fields`].
    pub const LINKS: usize = 15;
    /// Number of columns.
    pub const COUNT: usize = 16;
}

/// The OTLP `StatusCode` of an error.
pub const STATUS_ERROR: u8 = 2;

/// Fields of an event: `timestamp`, `name`, `attributes`.
pub fn event_fields() -> Fields {
    Fields::from(vec![
        Field::new("timestamp", timestamp_type(), false),
        Field::new("name", DataType::Utf8, false),
        Field::new("attributes", map_type(), false),
    ])
}

/// Fields of a link: `trace_id`, `span_id`, `trace_state`, `attributes`.
pub fn link_fields() -> Fields {
    Fields::from(vec![
        Field::new("trace_id", DataType::FixedSizeBinary(16), false),
        Field::new("span_id", DataType::FixedSizeBinary(8), false),
        Field::new("trace_state", DataType::Utf8, true),
        Field::new("attributes", map_type(), false),
    ])
}

fn item_field(fields: Fields) -> Arc<Field> {
    Arc::new(Field::new("item", DataType::Struct(fields), false))
}

/// Arrow schema of a [`SpanBatch`]; positions are in [`column`].
pub fn schema() -> SchemaRef {
    static SCHEMA: OnceLock<SchemaRef> = OnceLock::new();
    let build = || {
        Arc::new(Schema::new(vec![
            Field::new("stream", DataType::UInt32, false),
            Field::new("timestamp", timestamp_type(), false),
            Field::new("duration_ns", DataType::Int64, false),
            Field::new("trace_id", DataType::FixedSizeBinary(16), false),
            Field::new("span_id", DataType::FixedSizeBinary(8), false),
            Field::new("parent_span_id", DataType::FixedSizeBinary(8), true),
            Field::new("operation", DataType::Utf8, false),
            Field::new("kind", DataType::UInt8, false),
            Field::new("status_code", DataType::UInt8, false),
            Field::new("status_message", DataType::Utf8, true),
            Field::new("trace_state", DataType::Utf8, true),
            Field::new("trace_flags", DataType::UInt32, false),
            Field::new("scope_name", DataType::Utf8, true),
            Field::new("attributes", map_type(), false),
            Field::new("events", DataType::List(item_field(event_fields())), false),
            Field::new("links", DataType::List(item_field(link_fields())), false),
        ]))
    };
    SCHEMA.get_or_init(build).clone()
}

/// Spans of one tenant in order of arrival.
#[derive(Debug, Clone)]
pub struct SpanBatch {
    /// Whose spans.
    pub tenant: TenantId,
    /// Rows with the schema of [`schema`]; `stream` holds refs of the process's registry.
    pub records: RecordBatch,
}

/// The fixed part of one span; attributes, events and links are staged in the builder before.
#[derive(Debug, Clone, Copy)]
pub struct Span<'a> {
    /// Stream of its resource.
    pub stream: StreamRef,
    /// Start, nanoseconds since 1970.
    pub timestamp: i64,
    /// End minus start in nanoseconds.
    pub duration_ns: i64,
    /// Its trace.
    pub trace_id: TraceId,
    /// Its id.
    pub span_id: SpanId,
    /// The span it is a part of.
    pub parent_span_id: Option<SpanId>,
    /// Its name.
    pub operation: &'a str,
    /// OTLP `SpanKind`, 0 to 5.
    pub kind: u8,
    /// OTLP `StatusCode`, 0 to 2.
    pub status_code: u8,
    /// Empty when none.
    pub status_message: &'a str,
    /// W3C `tracestate`, empty when none.
    pub trace_state: &'a str,
    /// W3C trace flags.
    pub trace_flags: u32,
    /// Instrumentation scope, empty when none.
    pub scope_name: &'a str,
}

/// One read of the span table. Every condition is applied exactly.
#[derive(Debug, Clone)]
pub struct SpanScan {
    /// Whose spans.
    pub tenant: TenantId,
    /// First nanosecond of the start, inclusive.
    pub start: i64,
    /// Last nanosecond of the start, inclusive.
    pub last: i64,
    /// All must match the resource; empty takes every one.
    pub streams: Vec<LabelMatcher>,
    /// The trace is one of these, sorted; `None` takes every one.
    pub traces: Option<Arc<[TraceId]>>,
    /// The span's name.
    pub operation: Option<String>,
    /// Nanoseconds.
    pub duration: RangeInclusive<i64>,
    /// OTLP `StatusCode`.
    pub status_code: Option<u8>,
    /// Each must be set to its value; which attribute a name means tells [`AttributeName`].
    ///
    /// [`AttributeName`]: crate::columns::AttributeName
    pub attributes: Vec<(String, String)>,
    /// Only so many, those that started last, newest first. Without it the spans come in no order.
    pub newest: Option<usize>,
    /// Columns of [`schema`] to return, rising. May be empty: only row counts come.
    pub projection: Vec<usize>,
    /// Single attributes to return as columns behind those, null where a span has none; names as in
    /// `attributes`. Far cheaper than the column of all attributes.
    pub attribute_columns: Vec<String>,
    /// `operation` and the columns of attributes come as [`text_codes`] instead of text: no text is copied,
    /// and who groups by them looks at each value once a batch. Different batches may have different
    /// dictionaries, with values that no row of the batch has.
    pub dictionaries: bool,
    /// When to give up.
    pub deadline: Option<Instant>,
    /// Most bytes this scan may hold at once.
    pub memory_limit: Option<usize>,
    /// Where the scan counts what it touched.
    pub stats: Arc<ScanStats>,
}

/// Type of `operation` and of attributes in the answer to a scan with [`SpanScan::dictionaries`].
pub fn text_codes() -> DataType {
    DataType::Dictionary(Box::new(DataType::UInt32), Box::new(DataType::Utf8))
}

/// What is known of a trace without reading its spans, from all parts of the table where it has some.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TraceSummary {
    /// Its id.
    pub trace_id: TraceId,
    /// First start of a span, nanoseconds since 1970.
    pub start: i64,
    /// Last end of a span minus the first start, nanoseconds.
    pub duration_ns: i64,
    /// Number of its spans.
    pub spans: u64,
    /// Number of its spans with status error.
    pub errors: u64,
    /// Whether a span without parent is known. The next two are of the one that started first, or without
    /// any of the span that started first.
    pub has_root: bool,
    /// Service of the root.
    pub root_service: String,
    /// Operation of the root.
    pub root_operation: String,
    /// By name.
    pub services: Vec<TraceService>,
}

/// The part of a service in a trace.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TraceService {
    /// Its name.
    pub service: String,
    /// Number of its spans in the trace.
    pub spans: u64,
    /// Number of those with status error.
    pub errors: u64,
}

impl SpanScan {
    /// Everything of a tenant; narrow it by setting fields.
    pub fn all(tenant: TenantId) -> Self {
        Self {
            tenant,
            start: i64::MIN,
            last: i64::MAX,
            streams: Vec::new(),
            traces: None,
            operation: None,
            duration: i64::MIN..=i64::MAX,
            status_code: None,
            attributes: Vec::new(),
            newest: None,
            projection: (0..column::COUNT).collect(),
            attribute_columns: Vec::new(),
            dictionaries: false,
            deadline: None,
            memory_limit: None,
            stats: Arc::default(),
        }
    }

    /// Schema of the batches that come.
    pub fn schema(&self) -> SchemaRef {
        let all = schema();
        let text = if self.dictionaries { text_codes() } else { DataType::Utf8 };
        let field = |position: &usize| {
            let field = all.field(*position).clone();
            if *position == column::OPERATION { field.with_data_type(text.clone()) } else { field }
        };
        let attribute = |name: &String| Field::new(name, text.clone(), true);
        let attributes = self.attribute_columns.iter().map(attribute);
        Arc::new(Schema::new(self.projection.iter().map(field).chain(attributes).collect::<Vec<_>>()))
    }

    /// Fails once the deadline has passed.
    pub fn check_deadline(&self) -> Result<(), ScanError> {
        self.stats.check_deadline(self.deadline)
    }
}

/// Events of all rows.
struct Events {
    /// Those of row `n` end at position `n + 1`.
    rows: Runs<i32>,
    timestamp: Vec<i64>,
    name: TextColumn,
    attributes: Attributes,
}

/// Links of all rows.
struct Links {
    /// Those of row `n` end at position `n + 1`.
    rows: Runs<i32>,
    trace_id: Vec<[u8; 16]>,
    span_id: Vec<[u8; 8]>,
    trace_state: OptionalText,
    attributes: Attributes,
}

/// Builds one [`SpanBatch`].
pub struct SpanBatchBuilder {
    tenant: TenantId,
    stream: Runs<u32>,
    timestamp: Vec<i64>,
    duration: Vec<i64>,
    trace_id: Vec<[u8; 16]>,
    span_id: Vec<[u8; 8]>,
    parent_span_id: OptionalFixed<[u8; 8]>,
    operation: TextColumn,
    kind: Runs<u8>,
    status_code: Runs<u8>,
    status_message: OptionalText,
    trace_state: OptionalText,
    trace_flags: Runs<u32>,
    scope_name: OptionalText,
    attributes: Attributes,
    events: Events,
    links: Links,
}

fn ids<const N: usize>(ids: Vec<[u8; N]>) -> FixedSizeBinaryArray {
    FixedSizeBinaryArray::try_new(N as i32, Buffer::from_vec(ids.into_flattened()), None)
        .expect("BUG: every id has N bytes")
}

fn list(fields: Fields, offsets: Buffer, columns: Vec<ArrayRef>) -> ListArray {
    let offsets = OffsetBuffer::new(ScalarBuffer::from(offsets));
    let items = StructArray::new(fields.clone(), columns, None);
    ListArray::new(item_field(fields), offsets, Arc::new(items), None)
}

impl SpanBatchBuilder {
    /// `rows` is a guess that spares reallocation.
    pub fn new(tenant: TenantId, rows: usize) -> Self {
        Self::with_room(tenant, rows, 0)
    }

    /// As [`SpanBatchBuilder::new`], for spans that were so many bytes on the wire: text that grows by doubling
    /// is copied again and again, which takes a tenth of decoding.
    pub fn with_room(tenant: TenantId, rows: usize, wire_bytes: usize) -> Self {
        Self {
            tenant,
            stream: Runs::new(),
            timestamp: Vec::with_capacity(rows),
            duration: Vec::with_capacity(rows),
            trace_id: Vec::with_capacity(rows),
            span_id: Vec::with_capacity(rows),
            parent_span_id: OptionalFixed::new(),
            operation: TextColumn::new(rows, wire_bytes / 12),
            kind: Runs::new(),
            status_code: Runs::new(),
            status_message: OptionalText::new(),
            trace_state: OptionalText::new(),
            trace_flags: Runs::new(),
            scope_name: OptionalText::new(),
            attributes: Attributes::with_room(wire_bytes / 48, wire_bytes / 3),
            events: Events {
                rows: Runs::new(),
                timestamp: Vec::new(),
                name: TextColumn::new(0, 0),
                attributes: Attributes::new(),
            },
            links: Links {
                rows: Runs::new(),
                trace_id: Vec::new(),
                span_id: Vec::new(),
                trace_state: OptionalText::new(),
                attributes: Attributes::new(),
            },
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

    /// Bytes of names and attributes so far, staged ones included.
    pub fn text_bytes(&self) -> usize {
        self.operation.data.len()
            + self.attributes.text_bytes()
            + self.events.name.data.len()
            + self.events.attributes.text_bytes()
            + self.links.attributes.text_bytes()
    }

    /// Stages an attribute of the span.
    #[inline]
    pub fn attribute(&mut self, key: &str, value: &str) {
        self.attributes.push(key, value);
    }

    /// Stages an attribute of the span whose value is written by `Display`.
    pub fn attribute_display(&mut self, key: &str, value: impl fmt::Display) {
        self.attributes.push_display(key, value);
    }

    /// Stages an attribute of the event that [`SpanBatchBuilder::event`] closes.
    pub fn event_attribute(&mut self, key: &str, value: &str) {
        self.events.attributes.push(key, value);
    }

    /// Stages an attribute of the event whose value is written by `Display`.
    pub fn event_attribute_display(&mut self, key: &str, value: impl fmt::Display) {
        self.events.attributes.push_display(key, value);
    }

    /// Stages an event of the span (nanoseconds since 1970).
    pub fn event(&mut self, timestamp: i64, name: &str) {
        let position = self.events.timestamp.len();
        self.events.timestamp.push(timestamp);
        self.events.name.push(name);
        self.events.attributes.close(position);
    }

    /// Stages an attribute of the link that [`SpanBatchBuilder::link`] closes.
    pub fn link_attribute(&mut self, key: &str, value: &str) {
        self.links.attributes.push(key, value);
    }

    /// Stages an attribute of the link whose value is written by `Display`.
    pub fn link_attribute_display(&mut self, key: &str, value: impl fmt::Display) {
        self.links.attributes.push_display(key, value);
    }

    /// Stages a link of the span.
    pub fn link(&mut self, trace_id: TraceId, span_id: SpanId, trace_state: &str) {
        let position = self.links.trace_id.len();
        self.links.trace_id.push(trace_id.0);
        self.links.span_id.push(span_id.0);
        self.links.trace_state.set(position, trace_state);
        self.links.attributes.close(position);
    }

    /// Closes the row with what was staged.
    pub fn push(&mut self, span: &Span<'_>) {
        let row = self.timestamp.len();
        self.stream.set(row, span.stream);
        self.timestamp.push(span.timestamp);
        self.duration.push(span.duration_ns);
        self.trace_id.push(span.trace_id.0);
        self.span_id.push(span.span_id.0);
        self.parent_span_id.set(row, span.parent_span_id.map(|id| id.0));
        self.operation.push(span.operation);
        self.kind.set(row, span.kind);
        self.status_code.set(row, span.status_code);
        self.status_message.set(row, span.status_message);
        self.trace_state.set(row, span.trace_state);
        self.trace_flags.set(row, span.trace_flags);
        self.scope_name.set(row, span.scope_name);
        self.attributes.close(row);
        self.events.rows.set(row + 1, offset(self.events.timestamp.len()));
        self.links.rows.set(row + 1, offset(self.links.trace_id.len()));
    }

    /// Forgets what was staged.
    pub fn discard(&mut self) {
        self.attributes.discard();
        let events = self.events.rows.last as usize;
        self.events.timestamp.truncate(events);
        self.events.name.truncate(events);
        self.events.attributes.truncate(events);
        let links = self.links.rows.last as usize;
        self.links.trace_id.truncate(links);
        self.links.span_id.truncate(links);
        self.links.trace_state.truncate(links);
        self.links.attributes.truncate(links);
    }

    /// The batch of all closed rows.
    pub fn finish(mut self) -> SpanBatch {
        self.discard();
        let rows = self.len();
        let (events, links) = (self.events.timestamp.len(), self.links.trace_id.len());
        let events = list(
            event_fields(),
            self.events.rows.finish(rows + 1),
            vec![
                Arc::new(TimestampNanosecondArray::from(self.events.timestamp).with_timezone("UTC")),
                Arc::new(self.events.name.finish()),
                Arc::new(self.events.attributes.finish(events)),
            ],
        );
        let links = list(
            link_fields(),
            self.links.rows.finish(rows + 1),
            vec![
                Arc::new(ids(self.links.trace_id)),
                Arc::new(ids(self.links.span_id)),
                Arc::new(self.links.trace_state.finish(links)),
                Arc::new(self.links.attributes.finish(links)),
            ],
        );
        let columns: Vec<ArrayRef> = vec![
            Arc::new(UInt32Array::new(ScalarBuffer::from(self.stream.finish(rows)), None)),
            Arc::new(TimestampNanosecondArray::from(self.timestamp).with_timezone("UTC")),
            Arc::new(Int64Array::from(self.duration)),
            Arc::new(ids(self.trace_id)),
            Arc::new(ids(self.span_id)),
            Arc::new(self.parent_span_id.finish_binary(rows)),
            Arc::new(self.operation.finish()),
            Arc::new(UInt8Array::new(ScalarBuffer::from(self.kind.finish(rows)), None)),
            Arc::new(UInt8Array::new(ScalarBuffer::from(self.status_code.finish(rows)), None)),
            Arc::new(self.status_message.finish(rows)),
            Arc::new(self.trace_state.finish(rows)),
            Arc::new(UInt32Array::new(ScalarBuffer::from(self.trace_flags.finish(rows)), None)),
            Arc::new(self.scope_name.finish(rows)),
            Arc::new(self.attributes.finish(rows)),
            Arc::new(events),
            Arc::new(links),
        ];
        let records = RecordBatch::try_new(schema(), columns).expect("BUG: columns follow the schema");
        SpanBatch { tenant: self.tenant, records }
    }
}

#[cfg(test)]
mod tests {
    use arrow::{
        array::{Array as _, AsArray},
        datatypes::{Int64Type, TimestampNanosecondType},
    };

    use super::*;
    use crate::columns::attributes_of;

    #[test]
    fn spans_come_back_with_their_events_and_links_and_discarded_ones_leave_nothing() {
        let mut b = SpanBatchBuilder::new(TenantId::default(), 4);
        let id = |n: u8| SpanId([n; 8]);
        for row in 0..4u8 {
            b.attribute("row", &row.to_string());
            for event in 0..row {
                b.event_attribute("n", &event.to_string());
                b.event(i64::from(event), &format!("e{row}{event}"));
            }
            if row % 2 == 1 {
                b.link_attribute("why", "batch");
                b.link(TraceId([row; 16]), id(row), if row == 3 { "a=b" } else { "" });
            }
            if row == 2 {
                b.discard();
                continue;
            }
            b.push(&Span {
                stream: 5,
                timestamp: 100 + i64::from(row),
                duration_ns: -1,
                trace_id: TraceId([9; 16]),
                span_id: id(row),
                parent_span_id: (row > 0).then(|| id(0)),
                operation: "GET /",
                kind: row,
                status_code: 2,
                status_message: if row == 3 { "broken" } else { "" },
                trace_state: "",
                trace_flags: 1,
                scope_name: "scope",
            });
        }
        b.event_attribute("staged", "never pushed");
        b.event(1, "never pushed");
        b.link(TraceId([1; 16]), id(1), "never=pushed");
        let batch = b.finish().records;
        assert_eq!(batch.num_rows(), 3);
        batch.columns().iter().for_each(|column| column.to_data().validate_full().unwrap());
        let durations = batch.column(column::DURATION).as_primitive::<Int64Type>();
        assert_eq!(durations.values(), &[-1, -1, -1]);
        assert_eq!(batch.column(column::PARENT_SPAN_ID).null_count(), 1);
        assert_eq!(batch.column(column::STATUS_MESSAGE).null_count(), 2);
        let events = batch.column(column::EVENTS).as_list::<i32>();
        assert_eq!(events.value_length(0), 0);
        assert_eq!((events.value_length(1), events.value_length(2)), (1, 3));
        let of_last = events.value(2);
        let of_last = of_last.as_struct();
        assert_eq!(of_last.column(1).as_string::<i32>().value(2), "e32");
        assert_eq!(of_last.column(0).as_primitive::<TimestampNanosecondType>().value(2), 2);
        let pairs: Vec<_> = attributes_of(of_last.column(2).as_map(), 2).collect();
        assert_eq!(pairs, [("n", "2")]);
        let links = batch.column(column::LINKS).as_list::<i32>();
        assert_eq!((links.value_length(0), links.value_length(1), links.value_length(2)), (0, 1, 1));
        let link = links.value(2);
        assert_eq!(link.as_struct().column(0).as_fixed_size_binary().value(0), [3; 16]);
        assert_eq!(link.as_struct().column(2).as_string::<i32>().value(0), "a=b");
    }
}
