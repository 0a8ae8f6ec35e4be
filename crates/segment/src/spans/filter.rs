//! Exact filters on spans in memory.

use arrow::{
    array::{AsArray, RecordBatch},
    compute::cast,
    datatypes::{Int64Type, TimestampNanosecondType, UInt8Type},
};
use trine_body::RowSet;
use trine_model::TraceId;
use trine_schema::{
    SpanScan,
    columns::attributes_of,
    spans::{column, operation_codes},
};

use crate::{SegmentError, StreamMatcher, filter::retain, write::stream_refs};

/// The trace id of a row.
pub(super) fn trace_id(ids: &arrow::array::FixedSizeBinaryArray, row: usize) -> TraceId {
    TraceId(ids.value(row).try_into().expect("the column has 16 bytes a row"))
}

/// Rows of a batch of [`trine_schema::spans::schema`] that pass all conditions.
pub(super) fn select(batch: &RecordBatch, scan: &SpanScan, streams: &StreamMatcher) -> RowSet {
    let mut selected = RowSet::new(batch.num_rows() as u32);
    let times = batch.column(column::TIMESTAMP).as_primitive::<TimestampNanosecondType>().values();
    let mut last = None;
    for (row, (stream, time)) in stream_refs(batch).iter().zip(times).enumerate() {
        let matches = match last {
            Some((same, matches)) if same == *stream => matches,
            _ => streams.matches(*stream),
        };
        last = Some((*stream, matches));
        if matches && (scan.start..=scan.last).contains(time) {
            selected.insert(row as u32);
        }
    }
    if let Some(traces) = &scan.traces {
        let ids = batch.column(column::TRACE_ID).as_fixed_size_binary();
        retain(&mut selected, |row| traces.binary_search(&trace_id(ids, row)).is_ok());
    }
    if scan.duration != (i64::MIN..=i64::MAX) {
        let durations = batch.column(column::DURATION).as_primitive::<Int64Type>().values();
        retain(&mut selected, |row| scan.duration.contains(&durations[row]));
    }
    if let Some(code) = scan.status_code {
        let codes = batch.column(column::STATUS_CODE).as_primitive::<UInt8Type>().values();
        retain(&mut selected, |row| codes[row] == code);
    }
    if let Some(name) = &scan.operation {
        let names = batch.column(column::OPERATION).as_string::<i32>();
        retain(&mut selected, |row| names.value(row) == name);
    }
    let map = batch.column(column::ATTRIBUTES).as_map();
    for (name, value) in &scan.attributes {
        retain(&mut selected, |row| {
            let first = attributes_of(map, row).find(|(key, _)| key == name);
            first.is_some_and(|(_, found)| found == value)
        });
    }
    selected
}

/// Columns of the selected rows of a batch of [`trine_schema::spans::schema`].
pub(super) fn project(
    batch: &RecordBatch,
    scan: &SpanScan,
    selected: &RowSet,
) -> Result<RecordBatch, SegmentError> {
    let column = |position: &usize| {
        let column = batch.column(*position);
        let coded = scan.dictionaries && *position == column::OPERATION;
        if coded { cast(column, &operation_codes()) } else { Ok(column.clone()) }
    };
    let columns = scan.projection.iter().map(column).collect::<Result<_, _>>()?;
    crate::filter::keep_rows(scan.schema(), columns, selected)
}
