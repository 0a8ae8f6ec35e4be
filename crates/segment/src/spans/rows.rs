//! Rows of a segment with the columns of the span table.

use std::{ops::Range, sync::Arc};

use arrow::{
    array::{
        Array, ArrayRef, AsArray, FixedSizeBinaryBuilder, ListArray, MapArray, RecordBatch,
        RecordBatchOptions, StringArray, StructArray, UInt32Array, new_empty_array, new_null_array,
    },
    buffer::{OffsetBuffer, ScalarBuffer},
    compute::{cast, concat_batches},
    datatypes::{DataType, Int32Type, SchemaRef, UInt32Type},
};
use hashbrown::HashMap;
use trine_schema::{
    SpanScan, StreamRef,
    columns::{AttributeName, attributes_of},
    spans::{column, schema},
};

use super::{
    columns::{stored, stored_of},
    index::{AttributePlaces, holds},
    read::{CACHED_ROWS, LoadedSpans, Texts, own_columns, place_among},
};
use crate::{SegmentError, file::CheckedReader};

/// What rows are wanted as.
pub(super) struct Shape<'a> {
    /// Columns of [`trine_schema::spans::schema`], rising.
    pub projection: &'a [usize],
    /// Single attributes behind them.
    pub attributes: &'a [String],
    /// Schema of all.
    pub schema: SchemaRef,
}

impl<'a> Shape<'a> {
    /// What a scan wants.
    pub fn of(scan: &'a SpanScan) -> Self {
        Self { projection: &scan.projection, attributes: &scan.attribute_columns, schema: scan.schema() }
    }
}

impl LoadedSpans {
    /// All rows of a granule with all columns of [`trine_schema::spans::schema`].
    pub fn granule(&self, number: usize) -> Result<RecordBatch, SegmentError> {
        let all: Vec<usize> = (0..column::COUNT).collect();
        let shape = Shape { projection: &all, attributes: &[], schema: schema() };
        let rows = std::slice::from_ref(&self.places[number].rows);
        let batches = self.rows(&self.reader(), &[number], rows, &shape)?;
        Ok(concat_batches(&shape.schema, &batches)?)
    }

    /// Rows (rising and apart, by their places in the row group) as they are wanted, in one or more batches.
    /// All lie in these granules of one row group, rising.
    pub(super) fn rows(
        &self,
        reader: &CheckedReader,
        granules: &[usize],
        rows: &[Range<usize>],
        shape: &Shape<'_>,
    ) -> Result<Vec<RecordBatch>, SegmentError> {
        let places: Vec<AttributePlaces> =
            shape.attributes.iter().map(|name| self.index.attribute(name)).collect();
        let positions = self.positions(granules, shape.projection, &places);
        // Parents are found by the places of all rows.
        let whole = shape.projection.contains(&column::PARENT_SPAN_ID);
        let most = if whole { usize::MAX } else { CACHED_ROWS };
        let mut streams = References::default();
        let read = self.read_pieces(reader, granules, &positions, rows, most)?.into_iter();
        let batches = read.map(|read| {
            let stored_column = |position: usize| {
                let read_column = positions.binary_search(&position).ok().map(|at| read.column(at).clone());
                read_column.unwrap_or_else(|| without_values(position, read.num_rows()))
            };
            let mut columns: Vec<ArrayRef> = Vec::with_capacity(shape.schema.fields().len());
            for logical in shape.projection {
                columns.push(match (*logical, stored_of(*logical)) {
                    (_, Some(position)) => {
                        let array = stored_column(position);
                        let wanted = shape.schema.field(columns.len()).data_type();
                        if array.data_type() == wanted { array } else { cast(&array, wanted)? }
                    }
                    (column::STREAM, _) => {
                        self.references(&stored_column(stored::LABELS), granules, &mut streams)?
                    }
                    (column::PARENT_SPAN_ID, _) => {
                        let distance = stored_column(stored::PARENT_DISTANCE);
                        let elsewhere = stored_column(stored::PARENT_SPAN_ID);
                        self.parents(reader, granules, rows, (&distance, &elsewhere))?
                    }
                    (column::ATTRIBUTES, _) => {
                        let own = own_columns(&self.index)
                            .map(|position| read.column(place_among(&positions, position)));
                        let own: Vec<&ArrayRef> = own.collect();
                        self.attributes(&stored_column(stored::ATTRIBUTES), &own)?
                    }
                    (logical, _) => unreachable!("BUG: column {logical} comes from nowhere"),
                });
            }
            for (name, places) in shape.attributes.iter().zip(&places) {
                let found = AttributeColumns::new(name, places, |position| {
                    positions.binary_search(&position).ok().map(|place| read.column(place))
                });
                let array = found.array(read.num_rows());
                let wanted = shape.schema.field(columns.len()).data_type();
                columns.push(if array.data_type() == wanted { array } else { cast(&array, wanted)? });
            }
            let options = RecordBatchOptions::new().with_row_count(Some(read.num_rows()));
            Ok(RecordBatch::try_new_with_options(shape.schema.clone(), columns, &options)?)
        });
        batches.collect()
    }

    /// The stored columns that these logical ones are made of, without those that have no value.
    fn positions(
        &self,
        granules: &[usize],
        projection: &[usize],
        attributes: &[AttributePlaces],
    ) -> Vec<usize> {
        let mut positions: Vec<usize> = Vec::new();
        for logical in projection {
            match (*logical, stored_of(*logical)) {
                (_, Some(position)) => positions.push(position),
                (column::STREAM, _) => positions.push(stored::LABELS),
                (column::PARENT_SPAN_ID, _) => {
                    positions.extend([stored::PARENT_DISTANCE, stored::PARENT_SPAN_ID]);
                }
                _ => positions.extend(std::iter::once(stored::ATTRIBUTES).chain(own_columns(&self.index))),
            }
        }
        for places in attributes {
            positions.extend(places.are_among_others().then_some(stored::ATTRIBUTES));
            positions.extend(places.own().map(|column| stored::COUNT + column));
        }
        let held = granules.iter().fold(0, |all, number| all | self.index.granules[*number].holds);
        positions.retain(|position| {
            let bit = holds::COLUMNS.iter().position(|column| column == position);
            bit.is_none_or(|bit| held >> bit & 1 == 1)
        });
        positions.sort_unstable();
        positions.dedup();
        positions
    }

    /// The stored columns that an attribute is looked for in, without those that have no value.
    pub(super) fn attribute_positions(&self, granules: &[usize], places: &AttributePlaces) -> Vec<usize> {
        self.positions(granules, &[], std::slice::from_ref(places))
    }

    /// Streams by the labels of rows.
    fn references(
        &self,
        labels: &ArrayRef,
        granules: &[usize],
        known: &mut References,
    ) -> Result<ArrayRef, SegmentError> {
        /// No process has so many streams.
        const UNKNOWN: StreamRef = StreamRef::MAX;
        let unknown = || self.corrupt("labels of a row are not in the index");
        let codes = labels.as_dictionary_opt::<UInt32Type>().ok_or_else(unknown)?;
        if known.labels.as_ref().is_none_or(|labels| !Arc::ptr_eq(labels, codes.values())) {
            // Granules asked for together are of one tenant.
            let tenant = self.index.granules[granules[0]].streams.iter().next();
            let tenant = tenant.map(|stream| self.index.streams[stream as usize].tenant.as_str());
            let streams = self.index.streams.iter().zip(self.streams.iter());
            let streams = streams.filter(|(stream, _)| Some(stream.tenant.as_str()) == tenant);
            let by_labels: HashMap<&str, StreamRef> =
                streams.map(|(stream, reference)| (stream.labels.as_str(), *reference)).collect();
            let of_text = |text: Option<&str>| text.and_then(|text| by_labels.get(text).copied());
            let texts = codes.values().as_string::<i32>().iter();
            known.by_code = texts.map(|text| of_text(text).unwrap_or(UNKNOWN)).collect();
            known.labels = Some(codes.values().clone());
        }
        let of_code = |code: &u32| known.by_code.get(*code as usize).copied().unwrap_or(UNKNOWN);
        let references: Vec<StreamRef> = codes.keys().values().iter().map(of_code).collect();
        if references.contains(&UNKNOWN) {
            return Err(unknown());
        }
        Ok(Arc::new(UInt32Array::from(references)))
    }

    /// Parents by their distances and, where they stand elsewhere, their ids.
    fn parents(
        &self,
        reader: &CheckedReader,
        granules: &[usize],
        rows: &[Range<usize>],
        stored_columns: (&ArrayRef, &ArrayRef),
    ) -> Result<ArrayRef, SegmentError> {
        // Parents stand among all spans of the granules.
        let places: Vec<Range<usize>> =
            granules.iter().map(|number| self.places[*number].rows.clone()).collect();
        let spans = self.read(reader, self.places[granules[0]].group, &[stored::SPAN_ID], &places)?;
        let spans = spans.column(0).as_fixed_size_binary();
        let (distance, elsewhere) = stored_columns;
        let (distance, elsewhere) = (distance.as_primitive::<Int32Type>(), elsewhere.as_fixed_size_binary());
        let mut parents = FixedSizeBinaryBuilder::with_capacity(distance.len(), 8);
        // The granule of the row, and how many spans stand before it in `spans`.
        let (mut granule, mut before) = (0, 0);
        for (row, place) in rows.iter().cloned().flatten().enumerate() {
            while places[granule].end <= place {
                before += places[granule].len();
                granule += 1;
            }
            if distance.is_valid(row) {
                let parent = place as i64 - i64::from(distance.value(row));
                let parent = usize::try_from(parent).ok().filter(|parent| places[granule].contains(parent));
                let parent = parent.ok_or_else(|| self.corrupt("a parent is outside of its granule"))?;
                parents.append_value(spans.value(before + parent - places[granule].start))?;
            } else if elsewhere.is_valid(row) {
                parents.append_value(elsewhere.value(row))?;
            } else {
                parents.append_null();
            }
        }
        Ok(Arc::new(parents.finish()))
    }

    /// The attributes of rows from their own columns and the map of the others.
    fn attributes(&self, rest: &ArrayRef, own: &[&ArrayRef]) -> Result<ArrayRef, SegmentError> {
        if own.is_empty() {
            return Ok(rest.clone());
        }
        let rest = rest.as_map();
        let own: Vec<(&str, Texts<'_>)> = self
            .index
            .attributes
            .iter()
            .map(String::as_str)
            .zip(own.iter().map(|own| Texts::of(own)))
            .collect();
        let (mut keys, mut values) = (TextParts::default(), TextParts::default());
        let mut ends = Vec::with_capacity(rest.len() + 1);
        ends.push(0);
        for row in 0..rest.len() {
            let own = own.iter().filter_map(|(name, texts)| Some((*name, texts.get(row)?)));
            for (key, value) in own.chain(attributes_of(rest, row)) {
                keys.push(key);
                values.push(value);
            }
            ends.push(keys.count());
        }
        attribute_map(ends, keys, values)
    }
}

/// A map of attributes; `ends` are where those of each row begin, and the end of all.
pub(super) fn attribute_map(
    ends: Vec<i32>,
    keys: TextParts,
    values: TextParts,
) -> Result<ArrayRef, SegmentError> {
    let DataType::Map(entries, sorted) = schema().field(column::ATTRIBUTES).data_type().clone() else {
        unreachable!("attributes are a map")
    };
    let DataType::Struct(fields) = entries.data_type() else { unreachable!("a map holds a struct") };
    let pairs: Vec<ArrayRef> = vec![Arc::new(keys.finish()?), Arc::new(values.finish()?)];
    let pairs = StructArray::try_new(fields.clone(), pairs, None)?;
    let ends = OffsetBuffer::new(ScalarBuffer::from(ends));
    Ok(Arc::new(MapArray::try_new(entries, ends, pairs, None, sorted)?))
}

/// Streams of the labels in a dictionary.
#[derive(Default)]
struct References {
    labels: Option<ArrayRef>,
    by_code: Vec<StreamRef>,
}

/// Where an attribute is found in rows that were read.
pub(super) struct AttributeColumns<'a> {
    name: AttributeName<'a>,
    exact: Option<&'a ArrayRef>,
    respelled: Vec<&'a ArrayRef>,
    /// The map of other attributes, when it may hold it.
    others: Option<&'a MapArray>,
}

impl<'a> AttributeColumns<'a> {
    /// `column` gives a stored column, or none when it has no value.
    pub fn new(
        name: &'a str,
        places: &AttributePlaces,
        column: impl Fn(usize) -> Option<&'a ArrayRef>,
    ) -> Self {
        let own = |number: usize| column(stored::COUNT + number);
        let others = places.are_among_others().then(|| column(stored::ATTRIBUTES)).flatten();
        Self {
            name: AttributeName::new(name),
            exact: places.exact.and_then(own),
            respelled: places.respelled.iter().filter_map(|number| own(*number)).collect(),
            others: others.map(arrow::array::AsArray::as_map),
        }
    }

    /// The column that holds all of its values, if one does.
    pub fn only(&self) -> Option<&'a ArrayRef> {
        match (self.exact, self.respelled.as_slice(), self.others) {
            (Some(only), [], None) => Some(only),
            (None, [only], None) => Some(*only),
            _ => None,
        }
    }

    /// Its value in a row.
    pub fn get(&self, row: usize) -> Option<&'a str> {
        let other = || self.others.map(|others| attributes_of(others, row)).into_iter().flatten();
        let found = self.exact.and_then(|exact| Texts::of(exact).get(row));
        found
            .or_else(|| other().find(|(key, _)| *key == self.name.name).map(|(_, value)| value))
            .or_else(|| self.respelled.iter().find_map(|column| Texts::of(column).get(row)))
            .or_else(|| other().find(|(key, _)| self.name.is_respelled(key)).map(|(_, value)| value))
    }

    /// Its values by row, as text or as codes.
    fn array(&self, rows: usize) -> ArrayRef {
        match self.only() {
            Some(only) => only.clone(),
            None => Arc::new((0..rows).map(|row| self.get(row)).collect::<StringArray>()),
        }
    }
}

/// Texts one behind the other.
#[derive(Default)]
pub(super) struct TextParts {
    data: Vec<u8>,
    /// Where each but the first begins.
    ends: Vec<i32>,
}

impl TextParts {
    pub fn push(&mut self, text: &str) {
        self.data.extend_from_slice(text.as_bytes());
        self.ends.push(self.data.len() as i32);
    }

    pub fn count(&self) -> i32 {
        self.ends.len() as i32
    }

    fn finish(self) -> Result<StringArray, SegmentError> {
        let ends = std::iter::once(0).chain(self.ends).collect::<Vec<i32>>();
        if self.data.len() > i32::MAX as usize {
            return Err(SegmentError::Contract("attributes of a step have less than 2 GiB".into()));
        }
        let ends = OffsetBuffer::new(ScalarBuffer::from(ends));
        Ok(StringArray::try_new(ends, self.data.into(), None)?)
    }
}

/// A stored column of which no row has a value.
fn without_values(position: usize, rows: usize) -> ArrayRef {
    let stored = super::columns::stored_schema(&[]);
    let empty = || OffsetBuffer::<i32>::new_zeroed(rows);
    match stored.field(position).data_type() {
        DataType::Map(entries, sorted) => {
            let pairs = new_empty_array(entries.data_type()).as_struct().clone();
            Arc::new(MapArray::new(entries.clone(), empty(), pairs, None, *sorted))
        }
        DataType::List(item) => {
            let items = new_empty_array(item.data_type());
            Arc::new(ListArray::new(item.clone(), empty(), items, None))
        }
        other => new_null_array(other, rows),
    }
}
