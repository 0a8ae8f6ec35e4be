//! Writing a segment.
//!
//! Rows come sorted and are cut into granules and row groups without copying. Per granule the index
//! notes what it needs and the bodies are encoded and let go, so that one granule of them is held.
//! Per row group the other Parquet columns are encoded (constant and small ones as runs by
//! [`crate::pages`], the rest by Parquet's writer), then the body blocks follow. Index, block table
//! and footer close the file. A crash leaves a file without a footer, which nothing refers to.

use std::{
    io::Write,
    ops::Range,
    sync::{Arc, OnceLock},
};

use arrow::{
    array::{Array, ArrayRef, AsArray, NullArray, RecordBatch},
    datatypes::{DataType, Field, Schema, SchemaRef, TimestampNanosecondType, UInt8Type, UInt32Type},
};
use hashbrown::HashMap;
use parquet::{
    arrow::{
        ArrowSchemaConverter,
        arrow_writer::{ArrowColumnWriter, ArrowRowGroupWriterFactory, compute_leaves},
    },
    basic::{Compression, Encoding, ZstdLevel},
    file::{
        metadata::KeyValue,
        properties::{EnabledStatistics, WriterProperties},
        writer::SerializedFileWriter,
    },
    schema::types::ColumnPath,
};
use trine_model::{Level, Severity, TenantId};
use trine_schema::{StreamRegistry, logs::column};

use crate::{
    GRANULE_ROWS, SegmentError,
    blocks::{BlockWriter, TAIL_CRC_MARK},
    columns::{map_to_stored, observed_to_delay, stored, stored_of, stored_schema},
    index::{Index, VERSION},
    index_builder::IndexBuilder,
    pages::{Dictionary, Pages, Run, dictionary_chunk},
};

/// Key of the footer entry that says where our parts of the file are.
pub const FOOTER_KEY: &str = "trine.segment";
/// Bytes of bodies after which a granule ends early, so that one granule always fits in memory.
const GRANULE_BYTES: usize = 32 << 20;
/// Bytes of bodies after which a row group ends early.
const ROW_GROUP_BYTES: usize = 64 << 20;
/// Size of the pages of plain bodies: small enough that reading few rows decompresses little.
const BODY_PAGE_BYTES: usize = 256 << 10;
/// Size at which any other page ends before its granule does.
const PAGE_BYTES: usize = 16 << 20;
/// Rows that Parquet's writer takes at once; pages can end only between two of them.
const WRITE_BATCH_ROWS: usize = 512;
/// Most texts of a column in one row group that are written as a dictionary.
const MAX_DICTIONARY: usize = 4_096;
/// Trace ids are written as a dictionary when each stands in so many rows of a row group on average.
const TRACE_ID_REPEATS: usize = 2;

/// How bodies are stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BodyEncoding {
    /// As a Parquet column that every reader understands.
    Plain,
    /// As template blocks in our own bytes: smaller, and searched without rebuilding lines.
    Template,
}

/// How to write a segment.
#[derive(Debug, Clone)]
pub struct WriteOptions {
    /// How bodies are stored.
    pub body: BodyEncoding,
    /// zstd level of pages and blocks, 1 to 22.
    pub zstd_level: i32,
    /// Most rows of one row group, rounded up to whole granules ([`crate::GRANULE_ROWS`]).
    pub row_group_rows: usize,
}

impl Default for WriteOptions {
    fn default() -> Self {
        Self { body: BodyEncoding::Plain, zstd_level: 1, row_group_rows: 32 * GRANULE_ROWS }
    }
}

impl WriteOptions {
    pub(crate) fn body_options(&self) -> trine_body::Options {
        trine_body::Options { zstd_level: self.zstd_level, ..Default::default() }
    }
}

/// What the catalog keeps about a segment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SegmentMeta {
    /// Rows in the file.
    pub rows: u64,
    /// Bytes of all bodies before encoding.
    pub raw_bytes: u64,
    /// Length of the file.
    pub file_bytes: u64,
    /// Earliest timestamp, nanoseconds since 1970.
    pub min_timestamp: i64,
    /// Latest timestamp, nanoseconds since 1970.
    pub max_timestamp: i64,
    /// Root of the Merkle tree over the file (BLAKE3).
    pub root: [u8; 32],
    /// First byte of the tail: block table, page indexes and Parquet footer, which `root` covers directly.
    pub tail_offset: u64,
    /// Tenants with rows in the file, sorted.
    pub tenants: Vec<TenantId>,
    /// How bodies are stored.
    pub body: BodyEncoding,
}

/// Writes one segment to `file`; the caller syncs it. `rows` are batches of [`trine_schema::logs::schema`]
/// sorted by [`crate::StreamOrder`] and timestamp; they are pulled one by one, at most one row group is
/// held. No row at all is an error.
pub fn write_segment<W, E>(
    file: W,
    registry: &StreamRegistry,
    rows: impl Iterator<Item = Result<RecordBatch, E>>,
    options: &WriteOptions,
) -> Result<SegmentMeta, SegmentError>
where
    W: Write + Send,
    E: std::error::Error + Send + Sync + 'static,
{
    let mut writer = Writer::new(file, registry, options)?;
    for batch in rows {
        writer.push(&batch.map_err(|error| SegmentError::Rows(Box::new(error)))?)?;
    }
    writer.finish()
}

/// Rows of one granule, as slices of the batches they came in.
#[derive(Default)]
pub(crate) struct GranuleRows {
    pub slices: Vec<RecordBatch>,
    pub rows: usize,
    bytes: usize,
}

/// Values of a column as a dictionary and, per page, runs of codes.
type Encoded<T> = (Vec<T>, Vec<Vec<Run>>);

struct Writer<'a, W: Write + Send> {
    file: SerializedFileWriter<BlockWriter<W>>,
    options: &'a WriteOptions,
    index: IndexBuilder<'a>,
    encoder: Option<trine_body::Encoder>,
    /// Full granules of the open row group, without their bodies.
    group: Vec<GranuleRows>,
    /// Parquet's writers of the open row group by leaf; the one of plain bodies has the group's bodies.
    leaves: Vec<Option<ArrowColumnWriter>>,
    /// Body blocks of the open row group, and for each its place there and its index.
    blocks: Vec<u8>,
    placed: Vec<(Range<usize>, trine_body::BlockIndex)>,
    open: GranuleRows,
}

impl<'a, W: Write + Send> Writer<'a, W> {
    fn new(file: W, registry: &'a StreamRegistry, options: &'a WriteOptions) -> Result<Self, SegmentError> {
        let file = begin_file(file, options)?;
        let encoder = (options.body == BodyEncoding::Template)
            .then(|| trine_body::Encoder::new(options.body_options()));
        Ok(Self {
            file,
            options,
            index: IndexBuilder::new(registry, options.body),
            encoder,
            group: Vec::new(),
            leaves: Vec::new(),
            blocks: Vec::new(),
            placed: Vec::new(),
            open: GranuleRows::default(),
        })
    }

    fn push(&mut self, batch: &RecordBatch) -> Result<(), SegmentError> {
        let ends = &batch.column(column::BODY).as_string::<i32>().value_offsets()[1..];
        let mut start = 0;
        while start < batch.num_rows() {
            let before = if start == 0 { body_start(batch) } else { ends[start - 1] as usize };
            let room = GRANULE_BYTES.saturating_sub(self.open.bytes);
            let fitting = ends[start..].partition_point(|end| *end as usize - before <= room);
            let least = usize::from(self.open.rows == 0);
            let count = fitting.max(least).min(GRANULE_ROWS - self.open.rows);
            if count > 0 {
                self.open.slices.push(batch.slice(start, count));
                self.open.rows += count;
                self.open.bytes += ends[start + count - 1] as usize - before;
                start += count;
            }
            if self.open.rows == GRANULE_ROWS || start < batch.num_rows() {
                self.close_granule()?;
            }
        }
        Ok(())
    }

    fn close_granule(&mut self) -> Result<(), SegmentError> {
        let mut granule = std::mem::take(&mut self.open);
        self.index.granule(&granule)?;
        self.write_bodies(&granule)?;
        for slice in &mut granule.slices {
            *slice = without_body(slice)?;
        }
        self.group.push(granule);
        let bytes: usize = self.group.iter().map(|granule| granule.bytes).sum();
        if self.group.len() * GRANULE_ROWS >= self.options.row_group_rows || bytes >= ROW_GROUP_BYTES {
            self.write_row_group()?;
        }
        Ok(())
    }

    /// Encodes the bodies of one granule.
    fn write_bodies(&mut self, granule: &GranuleRows) -> Result<(), SegmentError> {
        if self.leaves.is_empty() {
            let factory = ArrowRowGroupWriterFactory::new(&self.file, stored_schema());
            let leaves = factory.create_column_writers(self.file.flushed_row_groups().len())?;
            self.leaves = leaves.into_iter().map(Some).collect();
        }
        if let Some(encoder) = &mut self.encoder {
            let start = self.blocks.len();
            let lines = granule.slices.iter().flat_map(|slice| {
                slice.column(column::BODY).as_string::<i32>().iter().map(|line| line.unwrap_or("").as_bytes())
            });
            let body_index = encoder.encode_block(lines, &mut self.blocks);
            self.placed.push((start..self.blocks.len(), body_index));
            return Ok(());
        }
        for slice in &granule.slices {
            write_leaves(&mut self.leaves, stored::BODY, slice.column(column::BODY))?;
        }
        Ok(())
    }

    fn write_row_group(&mut self) -> Result<(), SegmentError> {
        let group = std::mem::take(&mut self.group);
        self.write_columns(&group)?;
        let base = self.file.bytes_written() as u64;
        for (place, body_index) in self.placed.drain(..) {
            self.index.body_block(base + place.start as u64..base + place.end as u64, body_index);
        }
        self.file.write_all(&self.blocks).map_err(io_error)?;
        self.blocks.clear();
        self.index.end_row_group();
        Ok(())
    }

    fn write_columns(&mut self, group: &[GranuleRows]) -> Result<(), SegmentError> {
        let mut generic = std::mem::take(&mut self.leaves);
        let columns = self.file.schema_descr().columns().to_vec();
        let level = self.options.zstd_level;
        let streams = self.index.stream_columns(group);
        let mut row_group = self.file.next_row_group()?;
        for position in 0..stored::COUNT {
            let logical = (0..column::COUNT).find(|logical| stored_of(*logical) == Some(position));
            // Small columns: (dictionary, pages).
            let small: Option<Encoded<&[u8]>> = match position {
                stored::TENANT => Some(streams.tenant()),
                stored::SERVICE => Some(streams.service()),
                stored::LABELS => Some(streams.labels()),
                stored::LEVEL => Some(levels(group)),
                stored::SEVERITY_TEXT | stored::EVENT_NAME | stored::SCOPE_NAME => {
                    logical.and_then(|logical| texts(group, logical))
                }
                stored::BODY if self.options.body == BodyEncoding::Template => Some((vec![], nulls(group))),
                stored::OBSERVED_DELAY | stored::TRACE_ID | stored::SPAN_ID
                    if logical.is_some_and(|logical| all_null(group, logical)) =>
                {
                    Some((vec![], nulls(group)))
                }
                stored::TRACE_ID => trace_ids(group),
                stored::ATTRIBUTES if no_attributes(group) => Some((vec![], nulls(group))),
                _ => None,
            };
            let numbers = match position {
                stored::SEVERITY_NUMBER => Some(severity_numbers(group)),
                stored::TRACE_FLAGS => trace_flags(group),
                _ => None,
            };
            let leaves =
                if position == stored::ATTRIBUTES { position..position + 2 } else { position..position + 1 };
            if let Some((dictionary, pages)) = small {
                for leaf in leaves {
                    let dictionary = match position {
                        stored::TRACE_ID => Dictionary::Fixed(&dictionary),
                        _ => Dictionary::Text(&dictionary),
                    };
                    let (bytes, close) =
                        dictionary_chunk(&columns[leaf], &dictionary, Pages::Runs(&pages), level)?;
                    row_group.append_column(&bytes, close)?;
                }
            } else if let Some((dictionary, pages)) = numbers {
                let dictionary = Dictionary::Numbers(&dictionary);
                let (bytes, close) =
                    dictionary_chunk(&columns[position], &dictionary, Pages::Runs(&pages), level)?;
                row_group.append_column(&bytes, close)?;
            } else {
                let logical = logical.expect("BUG: columns of the stream are written as runs");
                // Plain bodies were written granule by granule.
                if position != stored::BODY {
                    for slice in group.iter().flat_map(|granule| &granule.slices) {
                        let array = match position {
                            stored::OBSERVED_DELAY => {
                                observed_to_delay(timestamps(slice), slice.column(logical))
                            }
                            stored::ATTRIBUTES => map_to_stored(slice.column(logical).as_map()),
                            _ => slice.column(logical).clone(),
                        };
                        write_leaves(&mut generic, position, &array)?;
                    }
                }
                for leaf in leaves {
                    let writer = generic[leaf].take().expect("BUG: a leaf is written once");
                    writer.close()?.append_to_row_group(&mut row_group)?;
                }
            }
        }
        row_group.close()?;
        Ok(())
    }

    fn finish(mut self) -> Result<SegmentMeta, SegmentError> {
        if self.open.rows > 0 {
            self.close_granule()?;
        }
        if !self.group.is_empty() {
            self.write_row_group()?;
        }
        let templates = self.encoder.map(trine_body::Encoder::finish).unwrap_or_default();
        let index = self.index.finish(templates)?;
        finish_file(self.file, &index)
    }
}

/// A file without row groups.
pub(crate) fn begin_file<W: Write + Send>(
    file: W,
    options: &WriteOptions,
) -> Result<SerializedFileWriter<BlockWriter<W>>, SegmentError> {
    begin_parquet(file, &stored_schema(), properties(options)?)
}

/// A file with these columns and without row groups.
pub(crate) fn begin_parquet<W: Write + Send>(
    file: W,
    schema: &Schema,
    properties: WriterProperties,
) -> Result<SerializedFileWriter<BlockWriter<W>>, SegmentError> {
    let schema = ArrowSchemaConverter::new().with_coerce_types(false).convert(schema)?;
    Ok(SerializedFileWriter::new(BlockWriter::new(file), schema.root_schema_ptr(), Arc::new(properties))?)
}

/// Writes the index, the block table and the footer behind the row groups.
pub(crate) fn finish_file<W: Write + Send>(
    file: SerializedFileWriter<BlockWriter<W>>,
    index: &Index,
) -> Result<SegmentMeta, SegmentError> {
    let end = close_parquet(file, &index.encode().map_err(io_error)?)?;
    Ok(crate::read::meta_of(index, end.file_bytes, end.tail_offset, end.root))
}

/// How a file ended.
pub(crate) struct FileEnd {
    /// Its length.
    pub file_bytes: u64,
    /// First byte of its tail.
    pub tail_offset: u64,
    /// Root of the Merkle tree over it.
    pub root: [u8; 32],
}

/// Writes the encoded index, the block table and the footer behind the row groups.
pub(crate) fn close_parquet<W: Write + Send>(
    mut file: SerializedFileWriter<BlockWriter<W>>,
    index: &[u8],
) -> Result<FileEnd, SegmentError> {
    let index_offset = file.bytes_written();
    file.write_all(index).map_err(io_error)?;
    let tail_offset = file.bytes_written();
    file.flush().map_err(io_error)?;
    let table = file.inner_mut().begin_tail().map_err(io_error)?;
    file.write_all(&table).map_err(io_error)?;
    let place = format!(
        "version={VERSION} index={index_offset}+{} table={tail_offset} {TAIL_CRC_MARK}00000000",
        index.len()
    );
    file.append_key_value_metadata(KeyValue::new(FOOTER_KEY.to_owned(), place));
    let (file_bytes, root) = file.into_inner()?.finish().map_err(io_error)?;
    Ok(FileEnd { file_bytes, tail_offset: tail_offset as u64, root })
}

/// Gives a Parquet column of a slice to the writers of its leaves.
fn write_leaves(
    leaves: &mut [Option<ArrowColumnWriter>],
    position: usize,
    array: &ArrayRef,
) -> Result<(), SegmentError> {
    let parts = compute_leaves(stored_schema().field(position), array)?;
    for (writer, part) in leaves[position..].iter_mut().zip(&parts) {
        writer.as_mut().expect("BUG: a leaf is closed after its last value").write(part)?;
    }
    Ok(())
}

/// The rows without their bodies, so that the memory is free before the row group ends.
fn without_body(batch: &RecordBatch) -> Result<RecordBatch, SegmentError> {
    static SCHEMA: OnceLock<SchemaRef> = OnceLock::new();
    let schema = SCHEMA.get_or_init(|| {
        let mut fields = trine_schema::logs::schema().fields().to_vec();
        fields[column::BODY] = Arc::new(Field::new("body", DataType::Null, true));
        Arc::new(Schema::new(fields))
    });
    let mut columns = batch.columns().to_vec();
    columns[column::BODY] = Arc::new(NullArray::new(batch.num_rows()));
    Ok(RecordBatch::try_new(schema.clone(), columns)?)
}

pub(crate) fn io_error(source: std::io::Error) -> SegmentError {
    SegmentError::Io { file: "(new)".into(), source }
}

/// First byte of the batch's bodies in their buffer.
fn body_start(batch: &RecordBatch) -> usize {
    batch.column(column::BODY).as_string::<i32>().value_offsets()[0] as usize
}

fn properties(options: &WriteOptions) -> Result<WriterProperties, SegmentError> {
    let path = |position: usize| ColumnPath::from(stored_schema().field(position).name().as_str());
    let (body, timestamp) = (path(stored::BODY), path(stored::TIMESTAMP));
    let key = ColumnPath::from(vec!["attributes".into(), "key_value".into(), "key".into()]);
    let value = ColumnPath::from(vec!["attributes".into(), "key_value".into(), "value".into()]);
    Ok(WriterProperties::builder()
        .set_created_by(format!("trine {}", env!("CARGO_PKG_VERSION")))
        .set_compression(Compression::ZSTD(ZstdLevel::try_new(options.zstd_level)?))
        // Their bits are random: zstd saves nothing and costs every reader.
        .set_column_compression(timestamp.clone(), Compression::UNCOMPRESSED)
        .set_column_compression(path(stored::OBSERVED_DELAY), Compression::UNCOMPRESSED)
        .set_column_compression(path(stored::TRACE_ID), Compression::UNCOMPRESSED)
        .set_column_compression(path(stored::SPAN_ID), Compression::UNCOMPRESSED)
        .set_dictionary_enabled(false)
        .set_statistics_enabled(EnabledStatistics::None)
        .set_column_statistics_enabled(timestamp.clone(), EnabledStatistics::Page)
        .set_column_encoding(timestamp, Encoding::DELTA_BINARY_PACKED)
        .set_column_encoding(path(stored::OBSERVED_DELAY), Encoding::DELTA_BINARY_PACKED)
        .set_column_encoding(body.clone(), Encoding::DELTA_LENGTH_BYTE_ARRAY)
        .set_column_data_page_size_limit(body, BODY_PAGE_BYTES)
        .set_column_dictionary_enabled(key, true)
        .set_column_dictionary_enabled(value, true)
        .set_data_page_row_count_limit(GRANULE_ROWS)
        .set_data_page_size_limit(PAGE_BYTES)
        .set_write_batch_size(WRITE_BATCH_ROWS)
        .build())
}

fn all_null(group: &[GranuleRows], logical: usize) -> bool {
    group.iter().flat_map(|granule| &granule.slices).all(|slice| {
        let array = slice.column(logical);
        array.null_count() == array.len()
    })
}

fn no_attributes(group: &[GranuleRows]) -> bool {
    group.iter().flat_map(|granule| &granule.slices).all(|slice| {
        let offsets = slice.column(column::ATTRIBUTES).as_map().value_offsets();
        offsets.first() == offsets.last()
    })
}

/// One run of nulls per page.
fn nulls(group: &[GranuleRows]) -> Vec<Vec<Run>> {
    group.iter().map(|granule| vec![(None, granule.rows as u32)]).collect()
}

/// Lengthens the last run or begins one.
pub(crate) fn add_run(runs: &mut Vec<Run>, code: Option<u32>, rows: u32) {
    match runs.last_mut() {
        Some((last, count)) if *last == code => *count += rows,
        _ => runs.push((code, rows)),
    }
}

/// A column of small numbers, each below 256, as a dictionary.
fn small_numbers(group: &[GranuleRows], key: impl Fn(u8) -> u8) -> (Vec<u8>, Vec<Vec<Run>>) {
    let (mut dictionary, mut codes) = (Vec::new(), [None; 256]);
    let mut page = |granule: &GranuleRows| {
        let mut runs = Vec::new();
        for slice in &granule.slices {
            for number in slice.column(column::SEVERITY_NUMBER).as_primitive::<UInt8Type>().values() {
                let value = key(*number);
                let code = *codes[usize::from(value)].get_or_insert_with(|| {
                    dictionary.push(value);
                    dictionary.len() as u32 - 1
                });
                add_run(&mut runs, Some(code), 1);
            }
        }
        runs
    };
    let pages = group.iter().map(&mut page).collect();
    (dictionary, pages)
}

fn severity_numbers(group: &[GranuleRows]) -> Encoded<u32> {
    let (dictionary, pages) = small_numbers(group, |number| number);
    (dictionary.into_iter().map(u32::from).collect(), pages)
}

fn levels(group: &[GranuleRows]) -> Encoded<&'static [u8]> {
    let (dictionary, pages) = small_numbers(group, |number| level_of(number) as u8);
    (dictionary.into_iter().map(|level| Level::ALL[usize::from(level)].name().as_bytes()).collect(), pages)
}

/// Level of a severity number.
pub(crate) fn level_of(number: u8) -> Level {
    Severity::from_number(i64::from(number)).level()
}

/// Trace flags as a dictionary; `None` when there are too many different ones.
fn trace_flags(group: &[GranuleRows]) -> Option<Encoded<u32>> {
    let (mut dictionary, mut codes) = (Vec::new(), HashMap::new());
    let mut pages = Vec::with_capacity(group.len());
    for granule in group {
        let mut runs = Vec::new();
        let mut last = None;
        for slice in &granule.slices {
            for flags in slice.column(column::TRACE_FLAGS).as_primitive::<UInt32Type>().values() {
                let code = match last {
                    Some((same, code)) if same == *flags => code,
                    _ => *codes.entry(*flags).or_insert_with(|| {
                        dictionary.push(*flags);
                        dictionary.len() as u32 - 1
                    }),
                };
                last = Some((*flags, code));
                add_run(&mut runs, Some(code), 1);
            }
        }
        if dictionary.len() > MAX_DICTIONARY {
            return None;
        }
        pages.push(runs);
    }
    Some((dictionary, pages))
}

/// A text column as a dictionary; `None` when it has too many different values.
fn texts(group: &[GranuleRows], logical: usize) -> Option<Encoded<&[u8]>> {
    dictionary(group, logical, MAX_DICTIONARY, |array, add| {
        array.as_string::<i32>().iter().for_each(|value| add(value.map(str::as_bytes)));
    })
}

/// Trace ids as a dictionary; `None` when most ids stand in one row only and a dictionary saves nothing.
fn trace_ids(group: &[GranuleRows]) -> Option<Encoded<&[u8]>> {
    let slices = group.iter().flat_map(|granule| &granule.slices);
    let present: usize =
        slices.map(|slice| slice.column(column::TRACE_ID)).map(|ids| ids.len() - ids.null_count()).sum();
    dictionary(group, column::TRACE_ID, present / TRACE_ID_REPEATS, |array, add| {
        array.as_fixed_size_binary().iter().for_each(add);
    })
}

/// A column as a dictionary; `None` when it has more than `most` different values. `values` gives each
/// value of an array to the function.
fn dictionary<'g>(
    group: &'g [GranuleRows],
    logical: usize,
    most: usize,
    values: impl Fn(&'g ArrayRef, &mut dyn FnMut(Option<&'g [u8]>)),
) -> Option<Encoded<&'g [u8]>> {
    let (mut dictionary, mut codes): (Vec<&[u8]>, HashMap<&[u8], u32>) = (Vec::new(), HashMap::new());
    let mut pages = Vec::with_capacity(group.len());
    for granule in group {
        let mut runs = Vec::new();
        let mut last: Option<(&[u8], u32)> = None;
        for slice in &granule.slices {
            let array = slice.column(logical);
            if array.null_count() == array.len() {
                add_run(&mut runs, None, array.len() as u32);
                continue;
            }
            values(array, &mut |value| {
                let code = value.map(|value| match last {
                    Some((same, code)) if same == value => code,
                    _ => *codes.entry(value).or_insert_with(|| {
                        dictionary.push(value);
                        dictionary.len() as u32 - 1
                    }),
                });
                last = value.zip(code).or(last);
                add_run(&mut runs, code, 1);
            });
            if dictionary.len() > most {
                return None;
            }
        }
        pages.push(runs);
    }
    Some((dictionary, pages))
}

/// Timestamps of a slice.
pub(crate) fn timestamps(batch: &RecordBatch) -> &[i64] {
    batch.column(column::TIMESTAMP).as_primitive::<TimestampNanosecondType>().values()
}

/// Stream references of a slice.
pub(crate) fn stream_refs(batch: &RecordBatch) -> &[u32] {
    batch.column(column::STREAM).as_primitive::<UInt32Type>().values()
}
