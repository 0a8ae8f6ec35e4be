//! Several segments as one file, without encoding a row again.
//!
//! Column chunks are copied as they are, body blocks get the template ids of the common dictionary, the
//! indexes are laid end to end: each input stays a run, sorted in itself. It costs about what copying
//! the bytes costs.

use std::{io::Write, sync::Arc};

use hashbrown::HashMap;
use parquet::{
    column::writer::ColumnCloseResult,
    file::{
        metadata::{PageIndexPolicy, ParquetMetaData, ParquetMetaDataReader},
        page_index::column_index::ColumnIndexMetaData,
    },
};
use trine_body::{DictionaryMerger, renumber_block};

use crate::{
    BodyEncoding, Segment, SegmentError, SegmentMeta, WriteOptions,
    file::{CheckedReader, SegmentFile},
    index::{Granule, Index, SortedRun, StreamEntry, StreamName},
    write::{begin_file, finish_file, io_error},
};

/// Segments that fit together into one.
pub struct Join<'a> {
    inputs: &'a [Arc<Segment>],
    options: &'a WriteOptions,
    /// Per input the new ids of its templates.
    ids: Vec<Vec<u32>>,
    /// The dictionary of all.
    templates: Vec<u8>,
}

impl<'a> Join<'a> {
    /// `None` when the segments differ in their body encoding, or have too many rows or templates for one
    /// segment; then merging their rows is what is left.
    pub fn new(inputs: &'a [Arc<Segment>], options: &'a WriteOptions) -> Option<Self> {
        let body = inputs.first()?.index.body;
        let rows: u64 = inputs.iter().map(|segment| u64::from(segment.index.rows)).sum();
        if rows > u64::from(u32::MAX) || inputs.iter().any(|segment| segment.index.body != body) {
            return None;
        }
        let mut templates = DictionaryMerger::new(options.body_options());
        let ids = inputs
            .iter()
            .map(|segment| match &segment.templates {
                None => Some(Vec::new()),
                Some(dictionary) => templates.add(dictionary),
            })
            .collect::<Option<_>>()?;
        let templates = if body == BodyEncoding::Template { templates.finish() } else { Vec::new() };
        Some(Self { inputs, options, ids, templates })
    }

    /// Writes the file; the caller syncs it.
    pub fn write<W: Write + Send>(self, file: W) -> Result<SegmentMeta, SegmentError> {
        let mut all = Index {
            body: self.inputs[0].index.body,
            rows: 0,
            raw_bytes: 0,
            tenants: tenants(self.inputs),
            runs: Vec::new(),
            names: Vec::new(),
            streams: Vec::new(),
            granules: Vec::new(),
            row_groups: vec![0],
            marks: Vec::new(),
            attributes: Vec::new(),
            templates: self.templates.into(),
        };
        let mut numbers = HashMap::new();
        let mut file = begin_file(file, self.options)?;
        for (segment, ids) in self.inputs.iter().zip(&self.ids) {
            let base = all.append(&segment.index, &mut numbers);
            let (reader, metadata) = (segment.reader(), page_indexes(&segment.file, segment.meta())?);
            let mut granules = segment.index.granules.iter().peekable();
            for group in 0..metadata.num_row_groups() {
                // Nothing is decoded: what the reader did not refuse is a failure of the new file.
                copy_row_group(&mut file, &reader, &metadata, group)
                    .map_err(|error| reader.refusal().unwrap_or(SegmentError::Parquet(error)))?;
                while let Some(granule) = granules.next_if(|granule| granule.row_group as usize == group) {
                    let mut moved = base.granule(granule);
                    // A granule without a body block says where the one before ended.
                    let end = all.granules.last().map_or(0, |last| last.body.end);
                    moved.body = end..end;
                    if let Some(body_index) = &mut moved.body_index {
                        let bad = |error| segment.bad_body(granule, &error);
                        let (mut block, bytes) = (Vec::new(), reader.read(granule.body.clone())?);
                        renumber_block(&bytes, ids, &self.options.body_options(), &mut block).map_err(bad)?;
                        body_index.renumber(ids).map_err(bad)?;
                        let start = file.bytes_written() as u64;
                        file.write_all(&block).map_err(io_error)?;
                        moved.body = start..file.bytes_written() as u64;
                    }
                    all.granules.push(moved);
                }
            }
        }
        all.attributes = attributes(self.inputs, &all.tenants);
        finish_file(file, &all)
    }
}

/// Copies the column chunks of a row group.
fn copy_row_group<W: Write + Send>(
    file: &mut parquet::file::writer::SerializedFileWriter<W>,
    reader: &CheckedReader,
    metadata: &ParquetMetaData,
    group: usize,
) -> parquet::errors::Result<()> {
    let mut row_group = file.next_row_group()?;
    for leaf in 0..metadata.row_group(group).num_columns() {
        row_group.append_column(reader, as_it_is(metadata, group, leaf))?;
    }
    row_group.close()?;
    Ok(())
}

/// What Parquet keeps about a column chunk that is copied.
pub(crate) fn as_it_is(metadata: &ParquetMetaData, group: usize, leaf: usize) -> ColumnCloseResult {
    let (chunks, chunk) = (metadata.row_group(group), metadata.row_group(group).column(leaf));
    ColumnCloseResult {
        bytes_written: chunk.compressed_size() as u64,
        rows_written: chunks.num_rows() as u64,
        metadata: chunk.clone(),
        bloom_filter: None,
        column_index: metadata
            .column_index()
            .map(|all| all[group][leaf].clone())
            .filter(|index| !matches!(index, ColumnIndexMetaData::NONE)),
        offset_index: metadata.offset_index().map(|all| all[group][leaf].clone()),
    }
}

/// Parquet's metadata of a file with both page indexes, as they are on disk now.
pub(crate) fn page_indexes(file: &SegmentFile, meta: &SegmentMeta) -> Result<ParquetMetaData, SegmentError> {
    let tail = file.read_tail(meta.tail_offset, &meta.root)?;
    ParquetMetaDataReader::new()
        .with_column_index_policy(PageIndexPolicy::Optional)
        .with_offset_index_policy(PageIndexPolicy::Required)
        .parse_and_finish(&tail)
        .map_err(|error| {
            file.corrupt(meta.tail_offset, format!("the Parquet footer cannot be read: {error}"))
        })
}

/// Tenants of all inputs, sorted.
fn tenants(inputs: &[Arc<Segment>]) -> Vec<String> {
    let mut all: Vec<String> = inputs.iter().flat_map(|segment| segment.index.tenants.clone()).collect();
    all.sort_unstable();
    all.dedup();
    all
}

/// Attribute names of all inputs with their rows added up.
fn attributes(inputs: &[Arc<Segment>], tenants: &[String]) -> Vec<(u32, String, u64)> {
    let mut names = crate::index_builder::AttributeNames::default();
    for index in inputs.iter().map(|segment| &segment.index) {
        for (tenant, name, rows) in &index.attributes {
            names.add(position(tenants, &index.tenants[*tenant as usize]), name, *rows);
        }
    }
    names.finish()
}

fn position(tenants: &[String], tenant: &str) -> u32 {
    tenants.partition_point(|other| other.as_str() < tenant) as u32
}

/// Where an input begins in the file.
struct Base {
    row: u32,
    mark: u32,
    row_group: u32,
}

impl Base {
    fn granule(&self, granule: &Granule) -> Granule {
        let rows = granule.rows.start + self.row..granule.rows.end + self.row;
        Granule { rows, row_group: granule.row_group + self.row_group, ..granule.clone() }
    }
}

impl Index {
    /// Lays an input's index behind what is there, but for its granules. `numbers` holds the positions of the
    /// names by tenant and id.
    fn append(&mut self, input: &Self, numbers: &mut HashMap<(u32, u128), u32>) -> Base {
        let base = Base {
            row: self.rows,
            mark: self.marks.len() as u32,
            row_group: self.row_groups.len() as u32 - 1,
        };
        self.runs.extend(
            input.runs.iter().map(|run| SortedRun { row: run.row + base.row, mark: run.mark + base.mark }),
        );
        let mut names = Vec::with_capacity(input.names.len());
        for name in &input.names {
            let tenant = position(&self.tenants, &input.tenants[name.tenant as usize]);
            names.push(*numbers.entry((tenant, name.id)).or_insert_with(|| {
                self.names.push(StreamName { tenant, ..name.clone() });
                self.names.len() as u32 - 1
            }));
        }
        for stream in &input.streams {
            self.streams.push(StreamEntry {
                name: names[stream.name as usize],
                rows: stream.rows.start + base.row..stream.rows.end + base.row,
                ..stream.clone()
            });
        }
        self.row_groups.extend(input.row_groups[1..].iter().map(|row| row + base.row));
        self.marks.extend_from_slice(&input.marks);
        self.rows += input.rows;
        self.raw_bytes = self.raw_bytes.saturating_add(input.raw_bytes);
        base
    }
}

impl Segment {
    fn bad_body(&self, granule: &Granule, error: &dyn std::fmt::Display) -> SegmentError {
        self.file.corrupt(granule.body.start, format!("a body block cannot be read: {error}"))
    }
}
