//! The Parquet columns of a segment of spans.

use std::sync::Arc;

use arrow::datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit};
use trine_schema::spans;

/// Before the name of an attribute that is a column of its own.
pub const ATTRIBUTE: &str = "attribute.";

/// Positions of the columns that every segment has; columns of attributes follow.
pub mod stored {
    pub const TENANT: usize = 0;
    pub const SERVICE: usize = 1;
    pub const LABELS: usize = 2;
    pub const TIMESTAMP: usize = 3;
    pub const DURATION: usize = 4;
    pub const TRACE_ID: usize = 5;
    pub const SPAN_ID: usize = 6;
    /// Int32: so many rows before this one stands its parent; negative: behind it. Null: see the next.
    pub const PARENT_DISTANCE: usize = 7;
    /// The parent's id where it is not in the segment.
    pub const PARENT_SPAN_ID: usize = 8;
    pub const OPERATION: usize = 9;
    pub const KIND: usize = 10;
    pub const STATUS_CODE: usize = 11;
    pub const STATUS_MESSAGE: usize = 12;
    pub const TRACE_STATE: usize = 13;
    pub const TRACE_FLAGS: usize = 14;
    pub const SCOPE_NAME: usize = 15;
    /// Attributes without a column of their own.
    pub const ATTRIBUTES: usize = 16;
    pub const EVENTS: usize = 17;
    pub const LINKS: usize = 18;
    /// Number of columns that every segment has.
    pub const COUNT: usize = 19;
}

/// Arrow schema of the Parquet columns with these attributes as columns of their own.
pub fn stored_schema(attributes: &[String]) -> SchemaRef {
    let logical = spans::schema();
    let of = |name: &str, position: usize| Field::clone(logical.field(position)).with_name(name);
    let time = DataType::Timestamp(TimeUnit::Nanosecond, Some("UTC".into()));
    let mut fields = vec![
        Field::new("tenant", DataType::Utf8, false),
        Field::new("service", DataType::Utf8, false),
        Field::new("labels", DataType::Utf8, false),
        Field::new("timestamp", time, false),
        of("duration_ns", spans::column::DURATION),
        of("trace_id", spans::column::TRACE_ID),
        of("span_id", spans::column::SPAN_ID),
        Field::new("parent_distance", DataType::Int32, true),
        of("parent_span_id", spans::column::PARENT_SPAN_ID),
        of("operation", spans::column::OPERATION),
        of("kind", spans::column::KIND),
        of("status_code", spans::column::STATUS_CODE),
        of("status_message", spans::column::STATUS_MESSAGE),
        of("trace_state", spans::column::TRACE_STATE),
        of("trace_flags", spans::column::TRACE_FLAGS),
        of("scope_name", spans::column::SCOPE_NAME),
        of("attributes", spans::column::ATTRIBUTES),
        of("events", spans::column::EVENTS),
        of("links", spans::column::LINKS),
    ];
    fields
        .extend(attributes.iter().map(|name| Field::new(format!("{ATTRIBUTE}{name}"), DataType::Utf8, true)));
    Arc::new(Schema::new(fields))
}

/// The Parquet column that holds a column of [`spans::schema`] as it is; none for those that are made of
/// several or of the index.
pub const fn stored_of(logical: usize) -> Option<usize> {
    use spans::column;
    Some(match logical {
        column::TIMESTAMP => stored::TIMESTAMP,
        column::DURATION => stored::DURATION,
        column::TRACE_ID => stored::TRACE_ID,
        column::SPAN_ID => stored::SPAN_ID,
        column::OPERATION => stored::OPERATION,
        column::KIND => stored::KIND,
        column::STATUS_CODE => stored::STATUS_CODE,
        column::STATUS_MESSAGE => stored::STATUS_MESSAGE,
        column::TRACE_STATE => stored::TRACE_STATE,
        column::TRACE_FLAGS => stored::TRACE_FLAGS,
        column::SCOPE_NAME => stored::SCOPE_NAME,
        column::EVENTS => stored::EVENTS,
        column::LINKS => stored::LINKS,
        _ => return None,
    })
}
