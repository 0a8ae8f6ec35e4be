//! The Parquet side of a segment: columns as other engines see them, and how ours map onto them.

use std::sync::Arc;

use arrow::{
    array::{Array, ArrayRef, AsArray, Int64Array, MapArray, StructArray, TimestampNanosecondArray},
    datatypes::{DataType, Field, Fields, Int64Type, Schema, SchemaRef, TimeUnit, TimestampNanosecondType},
};
use trine_schema::logs::column;

/// Positions of the Parquet columns. All but the map are one leaf, and the map is last.
pub mod stored {
    pub const TENANT: usize = 0;
    pub const SERVICE: usize = 1;
    pub const LABELS: usize = 2;
    pub const TIMESTAMP: usize = 3;
    pub const OBSERVED_DELAY: usize = 4;
    pub const SEVERITY_NUMBER: usize = 5;
    pub const SEVERITY_TEXT: usize = 6;
    pub const LEVEL: usize = 7;
    pub const BODY: usize = 8;
    pub const TRACE_ID: usize = 9;
    pub const SPAN_ID: usize = 10;
    pub const TRACE_FLAGS: usize = 11;
    pub const EVENT_NAME: usize = 12;
    pub const SCOPE_NAME: usize = 13;
    /// Leaves 14 (key) and 15 (value).
    pub const ATTRIBUTES: usize = 14;
    /// Number of columns.
    pub const COUNT: usize = 15;
}

/// The Parquet column behind a column of [`trine_schema::logs::schema`]; none for `stream`.
pub const fn stored_of(logical: usize) -> Option<usize> {
    Some(match logical {
        column::TIMESTAMP => stored::TIMESTAMP,
        column::OBSERVED_TIMESTAMP => stored::OBSERVED_DELAY,
        column::SEVERITY_NUMBER => stored::SEVERITY_NUMBER,
        column::SEVERITY_TEXT => stored::SEVERITY_TEXT,
        column::BODY => stored::BODY,
        column::TRACE_ID => stored::TRACE_ID,
        column::SPAN_ID => stored::SPAN_ID,
        column::TRACE_FLAGS => stored::TRACE_FLAGS,
        column::EVENT_NAME => stored::EVENT_NAME,
        column::SCOPE_NAME => stored::SCOPE_NAME,
        column::ATTRIBUTES => stored::ATTRIBUTES,
        _ => return None,
    })
}

fn entries() -> Fields {
    Fields::from(vec![Field::new("key", DataType::Utf8, false), Field::new("value", DataType::Utf8, true)])
}

/// The map field with the names that the Parquet specification asks for.
fn map_field() -> Arc<Field> {
    Arc::new(Field::new("key_value", DataType::Struct(entries()), false))
}

/// Arrow schema of the Parquet columns.
pub fn stored_schema() -> SchemaRef {
    static SCHEMA: std::sync::OnceLock<SchemaRef> = std::sync::OnceLock::new();
    let build = || {
        let time = DataType::Timestamp(TimeUnit::Nanosecond, Some("UTC".into()));
        Arc::new(Schema::new(vec![
            Field::new("tenant", DataType::Utf8, false),
            Field::new("service", DataType::Utf8, false),
            Field::new("labels", DataType::Utf8, false),
            Field::new("timestamp", time, false),
            Field::new("observed_delay", DataType::Int64, true),
            Field::new("severity_number", DataType::UInt8, false),
            Field::new("severity_text", DataType::Utf8, true),
            Field::new("level", DataType::Utf8, false),
            Field::new("body", DataType::Utf8, true),
            Field::new("trace_id", DataType::FixedSizeBinary(16), true),
            Field::new("span_id", DataType::FixedSizeBinary(8), true),
            Field::new("trace_flags", DataType::UInt32, false),
            Field::new("event_name", DataType::Utf8, true),
            Field::new("scope_name", DataType::Utf8, true),
            Field::new("attributes", DataType::Map(map_field(), false), false),
        ]))
    };
    SCHEMA.get_or_init(build).clone()
}

fn rename_map(map: &MapArray, field: Arc<Field>) -> ArrayRef {
    let DataType::Struct(fields) = field.data_type() else {
        unreachable!("the entries of a map are a struct")
    };
    let entries = StructArray::new(fields.clone(), map.entries().columns().to_vec(), None);
    Arc::new(MapArray::new(field, map.offsets().clone(), entries, map.nulls().cloned(), false))
}

/// Our map with the names of the Parquet column.
pub fn map_to_stored(map: &MapArray) -> ArrayRef {
    rename_map(map, map_field())
}

/// A map read from Parquet with the names of [`trine_schema::logs::schema`].
pub fn map_from_stored(map: &MapArray) -> ArrayRef {
    let schema = trine_schema::logs::schema();
    let DataType::Map(field, _) = schema.field(column::ATTRIBUTES).data_type() else {
        unreachable!("attributes are a map")
    };
    rename_map(map, field.clone())
}

/// Observed times as nanoseconds after the record's own time (wrapping): mostly small, where the times
/// themselves would repeat every nanosecond of the timestamps.
pub fn observed_to_delay(timestamps: &[i64], observed: &ArrayRef) -> ArrayRef {
    let observed = observed.as_primitive::<TimestampNanosecondType>();
    let delays =
        observed.values().iter().zip(timestamps).map(|(observed, time)| observed.wrapping_sub(*time));
    Arc::new(Int64Array::new(delays.collect(), observed.nulls().cloned()))
}

/// Inverse of [`observed_to_delay`].
pub fn observed_from_delay(timestamps: &ArrayRef, delay: &ArrayRef) -> ArrayRef {
    let timestamps = timestamps.as_primitive::<TimestampNanosecondType>().values();
    let delay = delay.as_primitive::<Int64Type>();
    let times = delay.values().iter().zip(timestamps).map(|(delay, time)| time.wrapping_add(*delay));
    Arc::new(TimestampNanosecondArray::new(times.collect(), delay.nulls().cloned()).with_timezone("UTC"))
}
