//! Several segments as one file, without encoding a row again.
//!
//! Column chunks are copied as they are, body blocks get the template ids of the common dictionary, the
//! indexes are laid end to end: each input stays a run, sorted in itself. It costs about what copying
//! the bytes costs.

use std::{io::Write, sync::Arc};

use parquet::{
    column::writer::ColumnCloseResult,
    file::{
        metadata::{PageIndexPolicy, ParquetMetaData, ParquetMetaDataReader},
        page_index::column_index::ColumnIndexMetaData,
    },
};
use trine_body::DictionaryMerger;

use crate::{
    Segment, SegmentError, SegmentMeta, WriteOptions,
    file::CheckedReader,
    index::{Granule, Index, SortedRun, StreamEntry},
    write::{begin_file, finish_file, io_error},
};

/// Joins segments of one body encoding into one file; the caller syncs it. `None` (and a file that must be
/// thrown away) when together they have too many rows or templates for one segment; then merging their rows
/// is what is left.
pub fn concat_segments<W: Write + Send>(
    file: W,
    inputs: &[Arc<Segment>],
    options: &WriteOptions,
) -> Result<Option<SegmentMeta>, SegmentError> {
    let Some(first) = inputs.first() else {
        return Err(SegmentError::Contract("no segment was to be joined".into()));
    };
    let mut all = Index {
        body: first.index.body,
        rows: 0,
        raw_bytes: 0,
        tenants: tenants(inputs),
        runs: Vec::new(),
        streams: Vec::new(),
        granules: Vec::new(),
        row_groups: vec![0],
        marks: Vec::new(),
        attributes: Vec::new(),
        templates: Vec::new(),
    };
    let mut templates = DictionaryMerger::new(options.body_options());
    let mut file = begin_file(file, options)?;
    for segment in inputs {
        let index = &segment.index;
        if index.body != all.body {
            return Err(SegmentError::Contract("segments of different body encodings were to be joined".into()));
        }
        let ids = match &segment.templates {
            None => Vec::new(),
            Some(dictionary) => match templates.add(dictionary) {
                Some(ids) => ids,
                None => return Ok(None),
            },
        };
        let (Some(rows), Ok(marks)) =
            (all.rows.checked_add(index.rows), u32::try_from(all.marks.len() + index.marks.len()))
        else {
            return Ok(None);
        };
        let base = Base {
            row: all.rows,
            mark: marks - index.marks.len() as u32,
            row_group: all.row_groups.len() as u32 - 1,
        };
        let (reader, metadata) = (segment.reader(), segment.page_indexes()?);
        let mut granules = index.granules.iter().peekable();
        for group in 0..metadata.num_row_groups() {
            let failed = |error| {
                let at = metadata.row_group(group).file_offset().unwrap_or_default();
                reader.error(u64::try_from(at).unwrap_or_default(), &error)
            };
            copy_row_group(&mut file, &reader, &metadata, group).map_err(failed)?;
            while let Some(granule) = granules.next_if(|granule| granule.row_group as usize == group) {
                let start = file.bytes_written() as u64;
                let mut moved = base.granule(granule);
                if let Some(body_index) = &mut moved.body_index {
                    let bad = |error| segment.bad_body(granule, &error);
                    let mut block = Vec::new();
                    let bytes = reader.read(granule.body.clone())?;
                    trine_body::renumber_block(&bytes, &ids, &options.body_options(), &mut block).map_err(bad)?;
                    body_index.renumber(&ids).map_err(bad)?;
                    file.write_all(&block).map_err(io_error)?;
                }
                moved.body = start..file.bytes_written() as u64;
                if moved.body.is_empty() {
                    // A granule without a block says where the one before ended.
                    moved.body = all.granules.last().map_or(0..0, |last: &Granule| last.body.end..last.body.end);
                }
                all.granules.push(moved);
            }
        }
        all.append(index, rows, &base);
    }
    all.attributes = attributes(inputs, &all.tenants);
    if first.templates.is_some() {
        all.templates = templates.finish();
    }
    finish_file(file, &all).map(Some)
}

/// Copies the column chunks of a row group.
fn copy_row_group<W: Write + Send>(
    file: &mut parquet::file::writer::SerializedFileWriter<W>,
    reader: &CheckedReader,
    metadata: &ParquetMetaData,
    group: usize,
) -> parquet::errors::Result<()> {
    let mut row_group = file.next_row_group()?;
    let chunks = metadata.row_group(group);
    for (position, chunk) in chunks.columns().iter().enumerate() {
        let close = ColumnCloseResult {
            bytes_written: chunk.compressed_size() as u64,
            rows_written: chunks.num_rows() as u64,
            metadata: chunk.clone(),
            bloom_filter: None,
            column_index: metadata
                .column_index()
                .map(|all| all[group][position].clone())
                .filter(|index| !matches!(index, ColumnIndexMetaData::NONE)),
            offset_index: metadata.offset_index().map(|all| all[group][position].clone()),
        };
        row_group.append_column(reader, close)?;
    }
    row_group.close()?;
    Ok(())
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
    /// Lays the rest of an input's index behind what is there; its granules are there already.
    fn append(&mut self, input: &Self, rows: u32, base: &Base) {
        self.runs.extend(
            input.runs.iter().map(|run| SortedRun { row: run.row + base.row, mark: run.mark + base.mark }),
        );
        for stream in &input.streams {
            self.streams.push(StreamEntry {
                tenant: position(&self.tenants, &input.tenants[stream.tenant as usize]),
                rows: stream.rows.start + base.row..stream.rows.end + base.row,
                ..stream.clone()
            });
        }
        self.row_groups.extend(input.row_groups[1..].iter().map(|row| row + base.row));
        self.marks.extend_from_slice(&input.marks);
        self.rows = rows;
        self.raw_bytes += input.raw_bytes;
    }
}

impl Segment {
    /// Parquet's metadata with both page indexes, as they are on disk now.
    fn page_indexes(&self) -> Result<ParquetMetaData, SegmentError> {
        let tail = self.file.read_tail(self.meta().tail_offset, &self.meta().root)?;
        ParquetMetaDataReader::new()
            .with_column_index_policy(PageIndexPolicy::Optional)
            .with_offset_index_policy(PageIndexPolicy::Required)
            .parse_and_finish(&tail)
            .map_err(|error| {
                self.file.corrupt(self.meta().tail_offset, format!("the Parquet footer cannot be read: {error}"))
            })
    }

    fn bad_body(&self, granule: &Granule, error: &dyn std::fmt::Display) -> SegmentError {
        self.file.corrupt(granule.body.start, format!("a body block cannot be read: {error}"))
    }
}
