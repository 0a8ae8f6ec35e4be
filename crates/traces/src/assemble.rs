//! Traces from batches of the span table.

use std::hash::BuildHasher;

use arrow::{
    array::{
        Array, AsArray, FixedSizeBinaryArray, ListArray, MapArray, PrimitiveArray, RecordBatch, StringArray,
    },
    datatypes::{ArrowPrimitiveType, Int64Type, TimestampNanosecondType, UInt8Type, UInt32Type},
};
use hashbrown::{DefaultHashBuilder, HashMap, HashTable};
use trine_model::{SpanId, TraceId};
use trine_schema::{StreamRef, StreamRegistry, columns::attributes_of};

use crate::{Attributes, Event, Link, Resource, Span, Trace};

/// A batch is not one of the span table: a bug of whoever made it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("BUG: a batch of spans has no column {0:?} of the type that the span table gives it")]
pub struct AssembleError(&'static str);

impl AssembleError {
    pub(crate) fn missing(column: &'static str) -> Self {
        Self(column)
    }
}

/// The traces that batches of `trine_schema::spans::schema()` hold, the one that starts last first. Columns
/// other than `stream`, `timestamp`, `trace_id` and `span_id` may be left out and count as empty.
///
/// # Panics
/// When a stream is not of this registry: a bug.
pub fn assemble(batches: &[RecordBatch], registry: &StreamRegistry) -> Result<Vec<Trace>, AssembleError> {
    let mut resources: HashMap<StreamRef, Resource> = HashMap::new();
    let mut by_trace: HashMap<TraceId, Vec<Span>> = HashMap::new();
    for batch in batches {
        let columns = Columns::of(batch)?;
        for row in 0..batch.num_rows() {
            let stream = columns.stream.value(row);
            let resource = resources.entry(stream).or_insert_with(|| Resource(registry.get(stream)));
            let spans = by_trace.entry(TraceId(fixed(columns.trace_id, row))).or_default();
            spans.push(columns.span(row, resource.clone()));
        }
    }
    let mut traces: Vec<Trace> =
        by_trace.into_iter().map(|(id, spans)| Trace::new(id, fold_copies(spans))).collect();
    traces.sort_by_key(|trace| (std::cmp::Reverse(trace.start()), trace.id));
    Ok(traces)
}

/// What was stored several times with nothing different becomes one span that counts its copies.
fn fold_copies(mut spans: Vec<Span>) -> Vec<Span> {
    let hasher = DefaultHashBuilder::default();
    let hashes: Vec<u64> = spans.iter().map(|span| hasher.hash_one(span)).collect();
    let mut seen: HashTable<usize> = HashTable::with_capacity(spans.len());
    let mut copies = vec![0; spans.len()];
    for position in 0..spans.len() {
        let same = |other: &usize| spans[*other] == spans[position];
        let first = *seen.entry(hashes[position], same, |other| hashes[*other]).or_insert(position).get();
        copies[first] += 1;
    }
    for (span, copies) in spans.iter_mut().zip(&copies) {
        span.copies = *copies;
    }
    spans.retain(|span| span.copies > 0);
    spans
}

/// The columns of one batch.
struct Columns<'a> {
    stream: &'a PrimitiveArray<UInt32Type>,
    timestamp: &'a PrimitiveArray<TimestampNanosecondType>,
    trace_id: &'a FixedSizeBinaryArray,
    span_id: &'a FixedSizeBinaryArray,
    duration: Option<&'a PrimitiveArray<Int64Type>>,
    parent_span_id: Option<&'a FixedSizeBinaryArray>,
    operation: Option<&'a StringArray>,
    kind: Option<&'a PrimitiveArray<UInt8Type>>,
    status_code: Option<&'a PrimitiveArray<UInt8Type>>,
    status_message: Option<&'a StringArray>,
    trace_state: Option<&'a StringArray>,
    trace_flags: Option<&'a PrimitiveArray<UInt32Type>>,
    scope_name: Option<&'a StringArray>,
    attributes: Option<&'a MapArray>,
    events: Option<&'a ListArray>,
    links: Option<&'a ListArray>,
}

/// A column that may be missing, but not be of another type.
fn optional<'a, T: 'a>(
    batch: &'a RecordBatch,
    name: &'static str,
    cast: impl FnOnce(&'a dyn Array) -> Option<&'a T>,
) -> Result<Option<&'a T>, AssembleError> {
    let Some(column) = batch.column_by_name(name) else { return Ok(None) };
    cast(column).map(Some).ok_or(AssembleError(name))
}

fn ids<'a>(
    batch: &'a RecordBatch,
    name: &'static str,
    width: i32,
) -> Result<Option<&'a FixedSizeBinaryArray>, AssembleError> {
    optional(batch, name, |column| {
        column.as_fixed_size_binary_opt().filter(|column| column.value_length() == width)
    })
}

fn numbers<'a, T: ArrowPrimitiveType>(
    batch: &'a RecordBatch,
    name: &'static str,
) -> Result<Option<&'a PrimitiveArray<T>>, AssembleError> {
    optional(batch, name, AsArray::as_primitive_opt)
}

impl<'a> Columns<'a> {
    fn of(batch: &'a RecordBatch) -> Result<Self, AssembleError> {
        let text = |name| optional(batch, name, AsArray::as_string_opt::<i32>);
        let list = |name| optional(batch, name, AsArray::as_list_opt::<i32>);
        Ok(Self {
            stream: numbers(batch, "stream")?.ok_or(AssembleError("stream"))?,
            timestamp: numbers(batch, "timestamp")?.ok_or(AssembleError("timestamp"))?,
            trace_id: ids(batch, "trace_id", 16)?.ok_or(AssembleError("trace_id"))?,
            span_id: ids(batch, "span_id", 8)?.ok_or(AssembleError("span_id"))?,
            duration: numbers(batch, "duration_ns")?,
            parent_span_id: ids(batch, "parent_span_id", 8)?,
            operation: text("operation")?,
            kind: numbers(batch, "kind")?,
            status_code: numbers(batch, "status_code")?,
            status_message: text("status_message")?,
            trace_state: text("trace_state")?,
            trace_flags: numbers(batch, "trace_flags")?,
            scope_name: text("scope_name")?,
            attributes: optional(batch, "attributes", |column| column.as_map_opt())?,
            events: list("events")?,
            links: list("links")?,
        })
    }

    fn span(&self, row: usize, resource: Resource) -> Span {
        Span {
            resource,
            start: self.timestamp.value(row),
            duration: self.duration.map_or(0, |column| column.value(row)),
            id: SpanId(fixed(self.span_id, row)),
            parent_id: self
                .parent_span_id
                .filter(|column| column.is_valid(row))
                .map(|column| SpanId(fixed(column, row))),
            operation: text(self.operation, row),
            kind: self.kind.map_or(0, |column| column.value(row)),
            status_code: self.status_code.map_or(0, |column| column.value(row)),
            status_message: text(self.status_message, row),
            trace_state: text(self.trace_state, row),
            trace_flags: self.trace_flags.map_or(0, |column| column.value(row)),
            scope_name: text(self.scope_name, row),
            attributes: self.attributes.map_or_else(Attributes::new, |column| pairs(column, row)),
            events: self.events.map_or_else(Vec::new, |column| events(column, row)),
            links: self.links.map_or_else(Vec::new, |column| links(column, row)),
            copies: 1,
        }
    }
}

fn fixed<const N: usize>(column: &FixedSizeBinaryArray, row: usize) -> [u8; N] {
    column.value(row).try_into().expect("BUG: the width was checked")
}

fn text(column: Option<&StringArray>, row: usize) -> Box<str> {
    column.filter(|column| column.is_valid(row)).map_or_else(Box::default, |column| column.value(row).into())
}

/// Sorted, since a segment gives them back in another order than a memtable.
fn pairs(column: &MapArray, row: usize) -> Attributes {
    let mut pairs: Attributes =
        attributes_of(column, row).map(|(key, value)| (key.into(), value.into())).collect();
    pairs.sort_by(|a, b| a.0.cmp(&b.0));
    pairs
}

fn events(column: &ListArray, row: usize) -> Vec<Event> {
    let items = column.value(row);
    let items = items.as_struct();
    let timestamp = items.column(0).as_primitive::<TimestampNanosecondType>();
    let (name, attributes) = (items.column(1).as_string::<i32>(), items.column(2).as_map());
    let event = |n| Event {
        timestamp: timestamp.value(n),
        name: name.value(n).into(),
        attributes: pairs(attributes, n),
    };
    let mut events: Vec<Event> = (0..items.len()).map(event).collect();
    events.sort_by_key(|event| event.timestamp);
    events
}

fn links(column: &ListArray, row: usize) -> Vec<Link> {
    let items = column.value(row);
    let items = items.as_struct();
    let (trace_id, span_id) =
        (items.column(0).as_fixed_size_binary(), items.column(1).as_fixed_size_binary());
    let (trace_state, attributes) = (items.column(2).as_string::<i32>(), items.column(3).as_map());
    let link = |n| Link {
        trace_id: TraceId(fixed(trace_id, n)),
        span_id: SpanId(fixed(span_id, n)),
        trace_state: text(Some(trace_state), n),
        attributes: pairs(attributes, n),
    };
    (0..items.len()).map(link).collect()
}
