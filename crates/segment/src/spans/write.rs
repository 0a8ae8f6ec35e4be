//! Writing a segment of spans.
//!
//! Granules are encoded as they come; a row group's pages are held until it is full.

use std::{io::Write, sync::Arc};

use arrow::{
    array::{
        Array, ArrayRef, AsArray, FixedSizeBinaryArray, FixedSizeBinaryBuilder, Int32Array, MapArray,
        MapBuilder, MapFieldNames, RecordBatch, StringArray, StringBuilder,
    },
    compute::{max, min},
    datatypes::{DataType, Int64Type, SchemaRef, TimestampNanosecondType, UInt8Type},
};
use hashbrown::HashMap;
use parquet::{
    arrow::arrow_writer::{ArrowColumnWriter, ArrowRowGroupWriterFactory, compute_leaves},
    basic::{Compression, Encoding, ZstdLevel},
    file::{
        properties::{EnabledStatistics, WriterProperties},
        writer::SerializedFileWriter,
    },
    schema::types::ColumnPath,
};
use trine_body::TraceIdBloom;
use trine_schema::{
    Stream, StreamRegistry,
    columns::attributes_of,
    spans::{self, column},
};

use super::{
    ROW_GROUP_ROWS, SPAN_GRANULE_ROWS, SortedSpans,
    columns::{stored, stored_of, stored_schema},
    index::{Granule, SpanIndex, StreamName},
};
use crate::{
    BodyEncoding, SegmentError, SegmentMeta, WriteOptions,
    blocks::BlockWriter,
    write::{FileEnd, begin_parquet, close_parquet, stream_refs},
};

/// An attribute gets a column when one span in so many has it …
const COLUMN_SHARE: usize = 100;
/// … and it is among so many most frequent ones.
const MAX_COLUMNS: usize = 64;
/// Rows that Parquet's writer takes at once; pages can end only between two of them.
const WRITE_BATCH_ROWS: usize = 512;
/// Size at which a page ends before its granule does.
const PAGE_BYTES: usize = 16 << 20;
/// Size at which a dictionary of texts is given up: who reads one page reads it too.
const DICTIONARY_BYTES: usize = 64 << 10;
/// In traces with more spans of a granule than this, parents are looked up by hash.
const FEW_SPANS: usize = 32;

/// Writes one segment to `file`; the caller syncs it. No row at all is an error.
pub fn write_spans<W: Write + Send>(
    file: W,
    registry: &StreamRegistry,
    rows: SortedSpans,
    options: &WriteOptions,
) -> Result<SegmentMeta, SegmentError> {
    if rows.is_empty() {
        return Err(SegmentError::Contract("a segment needs at least one span".into()));
    }
    let attributes = frequent(rows.batches(), rows.len());
    let schema = stored_schema(&attributes);
    let file = begin_parquet(file, &schema, properties(&attributes, options)?)?;
    let mut writer = Writer {
        file,
        schema,
        registry,
        leaves: Vec::new(),
        group_rows: 0,
        streams: HashMap::new(),
        operations: HashMap::new(),
        index: SpanIndex { attributes, ..SpanIndex::default() },
    };
    for batch in rows {
        writer.granule(&batch?)?;
    }
    writer.finish()
}

/// Attributes that get columns, sorted by name.
fn frequent(batches: &[RecordBatch], rows: usize) -> Vec<String> {
    let mut counts: HashMap<&str, usize> = HashMap::new();
    for batch in batches {
        for key in batch.column(column::ATTRIBUTES).as_map().keys().as_string::<i32>().iter().flatten() {
            *counts.entry(key).or_default() += 1;
        }
    }
    let mut found: Vec<(&str, usize)> =
        counts.into_iter().filter(|(_, count)| count * COLUMN_SHARE >= rows).collect();
    found.sort_unstable_by(|a, b| b.1.cmp(&a.1).then(a.0.cmp(b.0)));
    found.truncate(MAX_COLUMNS);
    let mut names: Vec<String> = found.into_iter().map(|(name, _)| name.to_owned()).collect();
    names.sort_unstable();
    names
}

fn properties(attributes: &[String], options: &WriteOptions) -> Result<WriterProperties, SegmentError> {
    let schema = stored_schema(attributes);
    let path = |position: usize| ColumnPath::from(vec![schema.field(position).name().clone()]);
    let mut properties = WriterProperties::builder()
        .set_created_by(format!("trine {}", env!("CARGO_PKG_VERSION")))
        .set_compression(Compression::ZSTD(ZstdLevel::try_new(options.zstd_level)?))
        .set_dictionary_enabled(false)
        .set_statistics_enabled(EnabledStatistics::None)
        .set_column_encoding(path(stored::TIMESTAMP), Encoding::DELTA_BINARY_PACKED)
        .set_column_statistics_enabled(path(stored::TIMESTAMP), EnabledStatistics::Page)
        .set_column_encoding(path(stored::DURATION), Encoding::BYTE_STREAM_SPLIT)
        // Their bits are random: zstd saves nothing and costs every reader.
        .set_column_compression(path(stored::TIMESTAMP), Compression::UNCOMPRESSED)
        .set_column_compression(path(stored::SPAN_ID), Compression::UNCOMPRESSED)
        .set_data_page_row_count_limit(SPAN_GRANULE_ROWS)
        .set_data_page_size_limit(PAGE_BYTES)
        .set_max_row_group_row_count(Some(ROW_GROUP_ROWS))
        .set_dictionary_page_size_limit(DICTIONARY_BYTES)
        .set_write_batch_size(WRITE_BATCH_ROWS);
    let repeating = [
        stored::TENANT,
        stored::SERVICE,
        stored::LABELS,
        stored::OPERATION,
        stored::KIND,
        stored::STATUS_CODE,
        stored::STATUS_MESSAGE,
        stored::TRACE_STATE,
        stored::TRACE_FLAGS,
        stored::SCOPE_NAME,
    ];
    for position in repeating.into_iter().chain(stored::COUNT..stored::COUNT + attributes.len()) {
        properties = properties.set_column_dictionary_enabled(path(position), true);
    }
    Ok(properties.build())
}

struct Writer<'a, W: Write + Send> {
    file: SerializedFileWriter<BlockWriter<W>>,
    schema: SchemaRef,
    registry: &'a StreamRegistry,
    /// Parquet's writers of the open row group by leaf.
    leaves: Vec<ArrowColumnWriter>,
    group_rows: usize,
    /// By reference: number in the index.
    streams: HashMap<u32, (u32, Arc<Stream>)>,
    operations: HashMap<String, u32>,
    index: SpanIndex,
}

impl<W: Write + Send> Writer<'_, W> {
    fn granule(&mut self, batch: &RecordBatch) -> Result<(), SegmentError> {
        if self.leaves.is_empty() {
            let factory = ArrowRowGroupWriterFactory::new(&self.file, self.schema.clone());
            self.leaves = factory.create_column_writers(self.file.flushed_row_groups().len())?;
        }
        self.note(batch);
        let columns = self.stored(batch)?;
        let mut leaves = self.leaves.iter_mut();
        for (field, array) in self.schema.fields().iter().zip(&columns) {
            for leaf in compute_leaves(field, array)? {
                leaves.next().expect("BUG: the schema has a writer for each leaf").write(&leaf)?;
            }
        }
        self.group_rows += batch.num_rows();
        if self.group_rows >= ROW_GROUP_ROWS {
            self.end_row_group()?;
        }
        Ok(())
    }

    fn end_row_group(&mut self) -> Result<(), SegmentError> {
        let mut group = self.file.next_row_group()?;
        for leaf in self.leaves.drain(..) {
            leaf.close()?.append_to_row_group(&mut group)?;
        }
        group.close()?;
        self.group_rows = 0;
        Ok(())
    }

    /// Enters the granule into the index.
    fn note(&mut self, batch: &RecordBatch) {
        let mut streams: Vec<u32> = Vec::new();
        for reference in stream_refs(batch) {
            let (registry, index) = (self.registry, &mut self.index);
            let (number, _) = self.streams.entry(*reference).or_insert_with(|| {
                let stream = registry.get(*reference);
                let labels = stream.labels.to_json().clone();
                index.streams.push(StreamName { tenant: stream.tenant.as_str().to_owned(), labels });
                (index.streams.len() as u32 - 1, stream)
            });
            streams.push(*number);
        }
        let mut operations: Vec<u32> = Vec::new();
        for name in batch.column(column::OPERATION).as_string::<i32>().iter().flatten() {
            let names = &mut self.index.operations;
            let number = self.operations.entry_ref(name).or_insert_with(|| {
                names.push(name.to_owned());
                names.len() as u32 - 1
            });
            operations.push(*number);
            self.index.raw_bytes += name.len() as u64;
        }
        for numbers in [&mut streams, &mut operations] {
            numbers.sort_unstable();
            numbers.dedup();
        }
        let map = batch.column(column::ATTRIBUTES).as_map();
        self.index.raw_bytes += (0..batch.num_rows())
            .flat_map(|row| attributes_of(map, row))
            .map(|(key, value)| (key.len() + value.len()) as u64)
            .sum::<u64>();
        let times = batch.column(column::TIMESTAMP).as_primitive::<TimestampNanosecondType>();
        let durations = batch.column(column::DURATION).as_primitive::<Int64Type>();
        let statuses = batch.column(column::STATUS_CODE).as_primitive::<UInt8Type>().values();
        let ids = batch.column(column::TRACE_ID).as_fixed_size_binary();
        let ids = ids.iter().flatten().map(|id| id.try_into().expect("the column has 16 bytes a row"));
        let mut traces = Vec::new();
        TraceIdBloom::build(ids).write(&mut traces);
        self.index.granules.push(Granule {
            rows: batch.num_rows() as u32,
            min: min(times).unwrap_or_default(),
            max: max(times).unwrap_or_default(),
            longest: max(durations).unwrap_or_default(),
            statuses: statuses.iter().fold(0, |all, code| all | 1 << code.min(&7)),
            streams,
            operations,
            traces: traces.into(),
        });
    }

    /// The columns as they are stored.
    fn stored(&self, batch: &RecordBatch) -> Result<Vec<ArrayRef>, SegmentError> {
        let streams = || stream_refs(batch).iter().map(|reference| &*self.streams[reference].1);
        let labels: HashMap<u32, &str> = self
            .streams
            .iter()
            .map(|(r, (number, _))| (*r, &*self.index.streams[*number as usize].labels))
            .collect();
        let (distance, parent) = parents(batch);
        let (rest, own) =
            split_attributes(batch.column(column::ATTRIBUTES).as_map(), &self.index.attributes)?;
        let mut columns = Vec::with_capacity(stored::COUNT + own.len());
        for position in 0..stored::COUNT {
            columns.push(match position {
                stored::TENANT => {
                    Arc::new(StringArray::from_iter_values(streams().map(|s| s.tenant.as_str())))
                }
                stored::SERVICE => Arc::new(StringArray::from_iter_values(streams().map(Stream::service))),
                stored::LABELS => {
                    Arc::new(StringArray::from_iter_values(stream_refs(batch).iter().map(|r| labels[r])))
                }
                stored::PARENT_DISTANCE => distance.clone(),
                stored::PARENT_SPAN_ID => parent.clone(),
                stored::ATTRIBUTES => rest.clone(),
                _ => {
                    let logical = (0..column::COUNT).find(|logical| stored_of(*logical) == Some(position));
                    batch.column(logical.expect("BUG: the column stands for itself")).clone()
                }
            });
        }
        columns.extend(own);
        Ok(columns)
    }

    fn finish(mut self) -> Result<SegmentMeta, SegmentError> {
        if self.group_rows > 0 {
            self.end_row_group()?;
        }
        let FileEnd { file_bytes, tail_offset, root } =
            close_parquet(self.file, &self.index.encode().map_err(crate::write::io_error)?)?;
        let mut tenants: Vec<_> = self.streams.values().map(|(_, stream)| stream.tenant.clone()).collect();
        tenants.sort();
        tenants.dedup();
        let granules = &self.index.granules;
        Ok(SegmentMeta {
            rows: self.index.rows(),
            raw_bytes: self.index.raw_bytes,
            file_bytes,
            min_timestamp: granules.iter().map(|granule| granule.min).min().unwrap_or_default(),
            max_timestamp: granules.iter().map(|granule| granule.max).max().unwrap_or_default(),
            root,
            tail_offset,
            tenants,
            body: BodyEncoding::Plain,
        })
    }
}

/// Per row how far before it its parent stands in the granule, and the ids of parents that stand elsewhere.
fn parents(batch: &RecordBatch) -> (ArrayRef, ArrayRef) {
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
fn split_attributes(map: &MapArray, own: &[String]) -> Result<(ArrayRef, Vec<ArrayRef>), SegmentError> {
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
