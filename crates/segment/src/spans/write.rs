//! Writing a segment of spans.
//!
//! Granules are taken as they come and encoded when their row group is full: columns with few values as
//! dictionaries that we fill ourselves ([`crate::pages`]), the others by Parquet's writers. Behind the row
//! groups come the table of traces, their summaries and the index.

use std::{io::Write, sync::Arc};

use arrow::{
    array::{ArrayRef, AsArray, RecordBatch},
    compute::{max, min},
    datatypes::{Int64Type, SchemaRef, TimestampNanosecondType, UInt8Type, UInt32Type},
};
use hashbrown::{HashMap, HashSet};
use parquet::{
    arrow::arrow_writer::{ArrowColumnWriter, ArrowRowGroupWriterFactory, compute_leaves},
    basic::{Compression, Encoding, ZstdLevel},
    file::{
        properties::{EnabledStatistics, WriterProperties},
        writer::SerializedFileWriter,
    },
    schema::types::{ColumnDescPtr, ColumnPath},
};
use trine_schema::{Stream, StreamRegistry, spans::column};

use super::{
    ROW_GROUP_ROWS, SPAN_GRANULE_ROWS, SortedSpans,
    columns::{stored, stored_of, stored_schema},
    digest::meta_of,
    directory,
    encode::{
        Chunk, DICTIONARY_BYTES, EncodedLeaf, decoded, distinct, is_empty, nulls, numbers, recoded, texts,
    },
    index::{Granule, MAX_OTHERS, SpanIndex, StreamName, holds},
    numbers::NumberSet,
    prepare::{Prepared, Values, prepare, prepare_plain},
    shape::parents,
    summary::Summaries,
    values::{self, ValueFilter},
};
use crate::{
    SegmentError, SegmentMeta, WriteOptions,
    blocks::BlockWriter,
    pages::NONE,
    write::{FileEnd, begin_parquet, close_parquet, io_error, stream_refs},
};

/// Rows that Parquet's writer takes at once; pages can end only between two of them.
const WRITE_BATCH_ROWS: usize = 512;
/// Bytes at which a row group gives up the dictionary of its operations, by which many questions group.
const OPERATION_BYTES: usize = 512 << 10;
/// zstd level of attributes without a dictionary.
const TEXT_ZSTD_LEVEL: i32 = 3;
/// Size at which a page ends before its granule does.
const PAGE_BYTES: usize = 16 << 20;
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
    let groups = rows.len().div_ceil(group_rows(rows.len()));
    let Prepared { batches, values, attributes, raw_bytes } =
        prepare(rows.batches(), (groups * OPERATION_BYTES, groups * DICTIONARY_BYTES))?;
    let mut writer = SpanWriter::new(file, registry, attributes, rows.len(), options)?;
    (writer.values, writer.index.raw_bytes) = (values, raw_bytes);
    for batch in rows.of(batches) {
        writer.prepared(&batch?)?;
    }
    writer.finish()
}

/// How Parquet writes a file with these attributes as columns.
pub(super) fn properties(
    attributes: &[String],
    options: &WriteOptions,
) -> Result<WriterProperties, SegmentError> {
    let schema = stored_schema(attributes);
    let path = |position: usize| ColumnPath::from(vec![schema.field(position).name().clone()]);
    let mut properties = WriterProperties::builder()
        .set_created_by(format!("trine {}", env!("CARGO_PKG_VERSION")))
        .set_compression(Compression::ZSTD(ZstdLevel::try_new(options.zstd_level)?))
        .set_dictionary_enabled(false)
        .set_statistics_enabled(EnabledStatistics::None)
        .set_column_encoding(path(stored::TIMESTAMP), Encoding::DELTA_BINARY_PACKED)
        .set_column_statistics_enabled(path(stored::TIMESTAMP), EnabledStatistics::Page)
        // Byte planes and zstd take a byte less per span, and five times as long to read.
        .set_column_encoding(path(stored::DURATION), Encoding::DELTA_BINARY_PACKED)
        .set_column_compression(path(stored::DURATION), Compression::UNCOMPRESSED)
        // Their bits are random: zstd saves nothing and costs every reader.
        .set_column_compression(path(stored::TIMESTAMP), Compression::UNCOMPRESSED)
        .set_column_compression(path(stored::SPAN_ID), Compression::UNCOMPRESSED)
        .set_data_page_row_count_limit(SPAN_GRANULE_ROWS)
        .set_data_page_size_limit(PAGE_BYTES)
        .set_max_row_group_row_count(Some(ROW_GROUP_ROWS))
        .set_write_batch_size(WRITE_BATCH_ROWS);
    // Of many different texts: lengths apart from them and a little more search save a tenth.
    let texts = ZstdLevel::try_new(options.zstd_level.max(TEXT_ZSTD_LEVEL))?;
    for attribute in stored::COUNT..schema.fields().len() {
        properties = properties
            .set_column_encoding(path(attribute), Encoding::DELTA_LENGTH_BYTE_ARRAY)
            .set_column_compression(path(attribute), Compression::ZSTD(texts));
    }
    Ok(properties.build())
}

/// Rows of a row group, so that none is a small rest.
fn group_rows(rows: usize) -> usize {
    let groups = ((rows + ROW_GROUP_ROWS / 2) / ROW_GROUP_ROWS).max(1);
    rows.div_ceil(groups).next_multiple_of(SPAN_GRANULE_ROWS)
}

/// A granule whose row group is not full yet.
struct Held {
    rows: u32,
    /// Numbers of streams and operations by row.
    streams: Vec<u32>,
    operations: Vec<u32>,
    /// Columns as they are stored, by position; none for those that are made of the numbers above or
    /// were given to Parquet's writers.
    columns: Vec<Option<ArrayRef>>,
}

pub(super) struct SpanWriter<'a, W: Write + Send> {
    file: SerializedFileWriter<BlockWriter<W>>,
    schema: SchemaRef,
    registry: &'a StreamRegistry,
    zstd_level: i32,
    /// Rows at which a row group is full.
    group_rows: usize,
    /// Parquet's writers of the open row group.
    leaves: Vec<ArrowColumnWriter>,
    /// The first leaf of each column.
    first_leaf: Vec<usize>,
    group: Vec<Held>,
    /// By reference: number in the index.
    streams: HashMap<u32, u32>,
    /// Texts of columns that come as codes, by position.
    values: Vec<Option<Values>>,
    /// By code of an operation: number in the index.
    coded_operations: Vec<u32>,
    /// By number in the index.
    named: Vec<(Arc<Stream>, u32)>,
    services: HashMap<String, u32>,
    operations: HashMap<String, u32>,
    /// Names of attributes without a column of their own.
    others: HashSet<String>,
    summaries: Summaries,
    last_tenant: Option<u32>,
    index: SpanIndex,
}

/// How a column is encoded.
#[derive(PartialEq, Eq)]
enum Kind {
    /// From the numbers of streams and operations.
    Numbered,
    /// By Parquet's writers as it comes.
    Plain,
    /// By Parquet's writers, when it is not empty in the whole row group.
    Sparse,
    /// As a dictionary while its values are few.
    Text,
    /// As a dictionary.
    Number,
}

fn kind_of(position: usize) -> Kind {
    match position {
        stored::TENANT | stored::SERVICE | stored::LABELS | stored::OPERATION => Kind::Numbered,
        stored::ATTRIBUTES | stored::EVENTS | stored::LINKS | stored::PARENT_SPAN_ID => Kind::Sparse,
        stored::KIND | stored::STATUS_CODE | stored::TRACE_FLAGS | stored::PARENT_DISTANCE => Kind::Number,
        stored::STATUS_MESSAGE | stored::TRACE_STATE | stored::SCOPE_NAME | stored::COUNT.. => Kind::Text,
        _ => Kind::Plain,
    }
}

impl<'a, W: Write + Send> SpanWriter<'a, W> {
    /// `attributes` get columns of their own; they are sorted. `rows` is how many will come.
    pub fn new(
        file: W,
        registry: &'a StreamRegistry,
        attributes: Vec<String>,
        rows: usize,
        options: &WriteOptions,
    ) -> Result<Self, SegmentError> {
        let schema = stored_schema(&attributes);
        let file = begin_parquet(file, &schema, properties(&attributes, options)?)?;
        let roots =
            (0..file.schema_descr().num_columns()).map(|leaf| file.schema_descr().get_column_root_idx(leaf));
        let roots: Vec<usize> = roots.collect();
        let first_leaf =
            (0..=schema.fields().len()).map(|column| roots.partition_point(|root| *root < column));
        Ok(Self {
            first_leaf: first_leaf.collect(),
            file,
            schema,
            registry,
            zstd_level: options.zstd_level,
            group_rows: group_rows(rows),
            leaves: Vec::new(),
            group: Vec::new(),
            streams: HashMap::new(),
            values: Vec::new(),
            coded_operations: Vec::new(),
            named: Vec::new(),
            services: HashMap::new(),
            operations: HashMap::new(),
            others: HashSet::new(),
            summaries: Summaries::default(),
            last_tenant: None,
            index: SpanIndex { attributes, ..SpanIndex::default() },
        })
    }

    /// Takes the rows of the next granule, all of one tenant, in the order of a segment.
    pub fn granule(&mut self, batch: &RecordBatch) -> Result<(), SegmentError> {
        let (prepared, raw_bytes) = prepare_plain(batch, &self.index.attributes)?;
        self.index.raw_bytes += raw_bytes;
        self.prepared(&prepared)
    }

    /// [`SpanWriter::granule`] of rows in the form of [`Prepared`].
    fn prepared(&mut self, batch: &RecordBatch) -> Result<(), SegmentError> {
        if self.leaves.is_empty() {
            let factory = ArrowRowGroupWriterFactory::new(&self.file, self.schema.clone());
            let writers = factory.create_column_writers(self.file.flushed_row_groups().len())?;
            self.leaves = writers;
        }
        let (streams, operations) = self.note(batch)?;
        let (distance, parent) = parents(batch);
        let own = &batch.columns()[column::COUNT..];
        let mut columns: Vec<Option<ArrayRef>> = Vec::with_capacity(stored::COUNT + own.len());
        for position in 0..stored::COUNT {
            let array = match position {
                stored::TENANT | stored::SERVICE | stored::LABELS => None,
                stored::PARENT_DISTANCE => Some(distance.clone()),
                stored::PARENT_SPAN_ID => Some(parent.clone()),
                stored::ATTRIBUTES => Some(batch.column(column::ATTRIBUTES).clone()),
                _ => {
                    let logical = (0..column::COUNT).find(|logical| stored_of(*logical) == Some(position));
                    Some(batch.column(logical.expect("BUG: the column stands for itself")).clone())
                }
            };
            columns.push(match array {
                Some(array) if kind_of(position) == Kind::Plain => {
                    self.write_leaves(position, &array)?;
                    None
                }
                array => array,
            });
        }
        columns.extend(own.iter().cloned().map(Some));
        self.note_others(batch.column(column::ATTRIBUTES));
        let granule = self.index.granules.last_mut().expect("BUG: the granule was entered");
        for (bit, position) in holds::COLUMNS.iter().enumerate() {
            let empty = columns[*position].as_ref().is_none_or(is_empty);
            granule.holds |= u8::from(!empty) << bit;
        }
        self.group.push(Held { rows: batch.num_rows() as u32, streams, operations, columns });
        if self.group.iter().map(|held| held.rows as usize).sum::<usize>() + SPAN_GRANULE_ROWS
            > self.group_rows
        {
            self.end_row_group()?;
        }
        Ok(())
    }

    /// Gives a column to the writers of its leaves.
    fn write_leaves(&mut self, position: usize, array: &ArrayRef) -> Result<(), SegmentError> {
        let parts = compute_leaves(self.schema.field(position), array)?;
        for (writer, part) in self.leaves[self.first_leaf[position]..].iter_mut().zip(&parts) {
            writer.write(part)?;
        }
        Ok(())
    }

    fn end_row_group(&mut self) -> Result<(), SegmentError> {
        let group = std::mem::take(&mut self.group);
        let columns: Vec<ColumnDescPtr> = self.file.schema_descr().columns().to_vec();
        let attributes = self.index.attributes.len();
        let mut values: Vec<Vec<Option<Vec<u64>>>> = vec![vec![None; attributes]; group.len()];
        let mut encoded: Vec<Option<Vec<EncodedLeaf>>> = Vec::new();
        for position in 0..self.schema.fields().len() {
            let arrays = || group.iter().filter_map(|held| held.columns[position].as_ref());
            let chunk = match kind_of(position) {
                Kind::Plain => None,
                Kind::Numbered => self.numbered(position, &group),
                Kind::Number => Some(numbers(arrays())),
                Kind::Sparse => {
                    let empty = arrays().all(is_empty);
                    empty.then(|| nulls(group.iter().map(|held| held.rows)))
                }
                Kind::Text => match self.values_of(position) {
                    Some(values) => recoded(arrays(), values),
                    None => texts(arrays()),
                }
                .map(|(dictionary, pages)| {
                    if let Some(own) = position.checked_sub(stored::COUNT) {
                        let name = &self.index.attributes[own];
                        let hashes: Vec<u64> =
                            dictionary.iter().map(|value| values::hash(name, value)).collect();
                        for (values, codes) in values.iter_mut().zip(&pages) {
                            values[own] = distinct(codes, &hashes);
                        }
                    }
                    Chunk::Text(dictionary, pages)
                }),
            };
            let leaves = &columns[self.first_leaf[position]..self.first_leaf[position + 1]];
            let encode = |chunk: Chunk<'_>| {
                leaves.iter().map(|leaf| chunk.encode(leaf, self.zstd_level)).collect::<Result<_, _>>()
            };
            encoded.push(chunk.map(encode).transpose()?);
        }
        for (position, chunk) in encoded.iter().enumerate() {
            if chunk.is_none() && kind_of(position) != Kind::Plain {
                for held in &group {
                    let array = held.columns[position].as_ref().expect("BUG: the column was kept");
                    let text = self.values_of(position).map(|values| decoded(array, values));
                    self.write_leaves(position, text.as_ref().unwrap_or(array))?;
                }
            }
        }
        let mut row_group = self.file.next_row_group()?;
        let mut writers = self.leaves.drain(..);
        for (position, chunk) in encoded.into_iter().enumerate() {
            let leaves = self.first_leaf[position + 1] - self.first_leaf[position];
            let unused = writers.by_ref().take(leaves).collect::<Vec<_>>();
            match chunk {
                None => {
                    for writer in unused {
                        writer.close()?.append_to_row_group(&mut row_group)?;
                    }
                }
                Some(leaves) => {
                    for (bytes, close) in leaves {
                        row_group.append_column(&bytes, close)?;
                    }
                }
            }
        }
        drop(writers);
        row_group.close()?;
        let first = self.index.granules.len() - values.len();
        for (granule, values) in self.index.granules[first..].iter_mut().zip(values) {
            granule.values = ValueFilter::build(&values);
        }
        Ok(())
    }

    /// The texts of a column that comes as codes.
    fn values_of(&self, position: usize) -> Option<&Values> {
        self.values.get(position).and_then(Option::as_ref)
    }

    /// A column that the numbers of streams or operations give; `None` when operations are too many bytes.
    fn numbered<'s>(&'s self, position: usize, group: &[Held]) -> Option<Chunk<'s>> {
        let value = |number: u32| -> &'s [u8] {
            let index = &self.index;
            let text = match position {
                stored::OPERATION => index.operations[number as usize].as_str(),
                stored::TENANT => index.streams[number as usize].tenant.as_str(),
                stored::SERVICE => index.services[self.named[number as usize].1 as usize].as_str(),
                _ => index.streams[number as usize].labels.as_str(),
            };
            text.as_bytes()
        };
        let (mut dictionary, mut by_value) = (Vec::new(), HashMap::<&[u8], u32>::new());
        let numbers: Vec<&[u32]> = group
            .iter()
            .map(|held| if position == stored::OPERATION { &*held.operations } else { &*held.streams })
            .collect();
        let most = numbers.iter().copied().flatten().max().map_or(0, |most| *most as usize + 1);
        let mut codes = vec![NONE; most];
        let mut pages = Vec::with_capacity(group.len());
        for of_granule in numbers {
            let code = |number: &u32| {
                let code = &mut codes[*number as usize];
                if *code == NONE {
                    let text = value(*number);
                    *code = *by_value.entry(text).or_insert_with(|| {
                        dictionary.push(text);
                        dictionary.len() as u32 - 1
                    });
                }
                *code
            };
            pages.push(of_granule.iter().map(code).collect());
        }
        let bytes: usize = dictionary.iter().map(|text| text.len()).sum();
        let fits = position != stored::OPERATION || bytes <= OPERATION_BYTES;
        fits.then_some(Chunk::Text(dictionary, pages))
    }

    /// Enters the granule into the index. Returns the numbers of streams and operations by row.
    fn note(&mut self, batch: &RecordBatch) -> Result<(Vec<u32>, Vec<u32>), SegmentError> {
        let streams: Vec<u32> = stream_refs(batch).iter().map(|stream| self.stream(*stream)).collect();
        let operations = self.operations(batch.column(column::OPERATION));
        let tenant = |number: u32| &self.index.streams[number as usize].tenant;
        if self.last_tenant.is_some_and(|last| tenant(last) != tenant(streams[0])) {
            self.summaries.end_trace();
        }
        self.last_tenant = Some(streams[0]);
        let first_trace =
            self.summaries.add(batch, |row| (self.named[streams[row] as usize].1, operations[row]))?;
        let times = batch.column(column::TIMESTAMP).as_primitive::<TimestampNanosecondType>();
        let durations = batch.column(column::DURATION).as_primitive::<Int64Type>();
        let statuses = batch.column(column::STATUS_CODE).as_primitive::<UInt8Type>().values();
        let set = |numbers: &[u32]| {
            let mut numbers = numbers.to_vec();
            numbers.sort_unstable();
            numbers.dedup();
            NumberSet::new(&numbers)
        };
        self.index.granules.push(Granule {
            rows: batch.num_rows() as u32,
            first_trace,
            min: min(times).unwrap_or_default(),
            max: max(times).unwrap_or_default(),
            shortest: min(durations).unwrap_or_default(),
            longest: max(durations).unwrap_or_default(),
            statuses: statuses.iter().fold(0, |all, code| all | 1 << code.min(&7)),
            holds: 0,
            streams: set(&streams),
            operations: set(&operations),
            values: ValueFilter::default(),
        });
        Ok((streams, operations))
    }

    /// Remembers names of attributes without a column of their own, until there are too many.
    fn note_others(&mut self, rest: &ArrayRef) {
        for name in rest.as_map().keys().as_string::<i32>().iter().flatten() {
            if self.others.len() > MAX_OTHERS {
                return;
            }
            if !self.others.contains(name) {
                self.others.insert(name.to_owned());
            }
        }
    }

    /// The numbers of operations in the index.
    fn operations(&mut self, names: &ArrayRef) -> Vec<u32> {
        let Some(codes) = names.as_primitive_opt::<UInt32Type>() else {
            let names = names.as_string::<i32>().iter();
            return names.map(|name| self.operation(name.unwrap_or(""))).collect();
        };
        if self.coded_operations.is_empty() {
            let names = self.values[stored::OPERATION].take().unwrap_or_default();
            self.coded_operations = names.iter().map(|name| self.operation(name)).collect();
            self.values[stored::OPERATION] = Some(names);
        }
        codes.values().iter().map(|code| self.coded_operations[*code as usize]).collect()
    }

    fn operation(&mut self, name: &str) -> u32 {
        let names = &mut self.index.operations;
        *self.operations.entry_ref(name).or_insert_with(|| {
            names.push(name.to_owned());
            names.len() as u32 - 1
        })
    }

    /// The number of a stream in the index.
    fn stream(&mut self, reference: u32) -> u32 {
        if let Some(number) = self.streams.get(&reference) {
            return *number;
        }
        let (stream, index) = (self.registry.get(reference), &mut self.index);
        let service = *self.services.entry_ref(stream.service()).or_insert_with(|| {
            index.services.push(stream.service().to_owned());
            index.services.len() as u32 - 1
        });
        let labels = stream.labels.to_json().clone();
        index.streams.push(StreamName { tenant: stream.tenant.as_str().to_owned(), labels });
        self.named.push((stream, service));
        let number = self.named.len() as u32 - 1;
        self.streams.insert(reference, number);
        number
    }

    /// Ends the file.
    pub fn finish(mut self) -> Result<SegmentMeta, SegmentError> {
        if !self.group.is_empty() {
            self.end_row_group()?;
        }
        self.index.others = self.others.into_iter().collect();
        self.index.others.sort_unstable();
        finish(self.file, self.summaries, self.index)
    }
}

/// Writes table and summaries of the traces and the index behind the row groups.
pub(super) fn finish<W: Write + Send>(
    mut file: SerializedFileWriter<BlockWriter<W>>,
    mut summaries: Summaries,
    mut index: SpanIndex,
) -> Result<SegmentMeta, SegmentError> {
    summaries.end_frame()?;
    index.traces = summaries.hashes.len() as u32;
    let (directory, table) = directory::encode(&summaries.hashes, file.bytes_written() as u64);
    index.directory = directory;
    file.write_all(&table).map_err(io_error)?;
    let mut start = file.bytes_written() as u64;
    let base = start;
    file.write_all(&summaries.frames).map_err(io_error)?;
    for end in &summaries.ends {
        index.frames.push(start..base + end);
        start = base + end;
    }
    let FileEnd { file_bytes, tail_offset, root } = close_parquet(file, &index.encode().map_err(io_error)?)?;
    Ok(meta_of(&index, file_bytes, tail_offset, root))
}
