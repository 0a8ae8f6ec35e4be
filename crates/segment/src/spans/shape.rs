//! Logical columns as they are stored: parents by distance, frequent attributes apart.

use std::sync::Arc;

use arrow::{
    array::{
        Array, ArrayRef, AsArray, FixedSizeBinaryArray, FixedSizeBinaryBuilder, Int32Array, MapArray,
        MapBuilder, MapFieldNames, RecordBatch, StringBuilder,
    },
    datatypes::DataType,
};
use hashbrown::HashMap;
use trine_schema::{
    columns::attributes_of,
    spans::{self, column},
};

use crate::SegmentError;

/// An attribute gets a column when one span in so many has it …
const COLUMN_SHARE: usize = 100;
/// … and it is among so many most frequent ones.
pub(super) const MAX_COLUMNS: usize = 64;
/// In traces with more spans of a granule than this, parents are looked up by hash.
const FEW_SPANS: usize = 32;

/// Whether an attribute that so many of the rows have may get a column.
pub(super) fn is_frequent(count: usize, rows: usize) -> bool {
    count * COLUMN_SHARE >= rows
}

/// Per row how far before it its parent stands in the granule, and the ids of parents that stand elsewhere.
pub(super) fn parents(batch: &RecordBatch) -> (ArrayRef, ArrayRef) {
    let ids = |position: usize| batch.column(position).as_fixed_size_binary();
    let (traces, spans, parents) = (ids(column::TRACE_ID), ids(column::SPAN_ID), ids(column::PARENT_SPAN_ID));
    let rows = batch.num_rows();
    let mut distances: Vec<Option<i32>> = vec![None; rows];
    let mut elsewhere = FixedSizeBinaryBuilder::with_capacity(rows, 8);
    let mut start = 0;
    while start < rows {
        let end = (start + 1..rows).find(|row| traces.value(*row) != traces.value(start)).unwrap_or(rows);
        let find = place_of(spans, start..end);
        for (row, distance) in (start..end).zip(&mut distances[start..end]) {
            let place = parents.is_valid(row).then(|| find(parents.value(row), row)).flatten();
            *distance = place.map(|place| row as i32 - place as i32);
            if parents.is_valid(row) && place.is_none() {
                elsewhere.append_value(parents.value(row)).expect("an id has 8 bytes");
            } else {
                elsewhere.append_null();
            }
        }
        start = end;
    }
    (Arc::new(Int32Array::from(distances)), Arc::new(elsewhere.finish()))
}

/// Finds the row of an id that is not the asking row.
fn place_of(
    spans: &FixedSizeBinaryArray,
    rows: std::ops::Range<usize>,
) -> impl Fn(&[u8], usize) -> Option<usize> {
    let known: Option<HashMap<&[u8], usize>> =
        (rows.len() > FEW_SPANS).then(|| rows.clone().rev().map(|row| (spans.value(row), row)).collect());
    move |id, asking| match &known {
        Some(known) => known.get(id).copied().filter(|row| *row != asking),
        None => rows.clone().find(|row| *row != asking && spans.value(*row) == id),
    }
}

/// The attributes without a column of their own, and the columns of the others.
pub(super) fn split_attributes(
    map: &MapArray,
    own: &[String],
) -> Result<(ArrayRef, Vec<ArrayRef>), SegmentError> {
    let schema = spans::schema();
    let DataType::Map(entries, _) = schema.field(column::ATTRIBUTES).data_type() else {
        unreachable!("attributes are a map")
    };
    let DataType::Struct(fields) = entries.data_type() else { unreachable!("a map holds a struct") };
    let names = MapFieldNames { entry: "entries".into(), key: "keys".into(), value: "values".into() };
    let mut rest = MapBuilder::new(Some(names), StringBuilder::new(), StringBuilder::new())
        .with_keys_field(fields[0].clone())
        .with_values_field(fields[1].clone());
    let mut columns: Vec<StringBuilder> = own.iter().map(|_| StringBuilder::new()).collect();
    let numbers: HashMap<&str, usize> = own.iter().enumerate().map(|(i, name)| (name.as_str(), i)).collect();
    let mut filled = vec![usize::MAX; own.len()];
    for row in 0..map.len() {
        for (key, value) in attributes_of(map, row) {
            match numbers.get(key).filter(|number| filled[**number] != row) {
                Some(number) => {
                    filled[*number] = row;
                    columns[*number].append_value(value);
                }
                None => {
                    rest.keys().append_value(key);
                    rest.values().append_value(value);
                }
            }
        }
        rest.append(true)?;
        for (column, filled) in columns.iter_mut().zip(&filled) {
            if *filled != row {
                column.append_null();
            }
        }
    }
    let rest = rest.finish();
    Ok((Arc::new(rest), columns.iter_mut().map(|column| Arc::new(column.finish()) as ArrayRef).collect()))
}
