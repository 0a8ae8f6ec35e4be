//! Reading rows of a segment of spans.

use std::{ops::Range, sync::Arc};

use arrow::{
    array::{
        Array, ArrayRef, AsArray, DictionaryArray, RecordBatch, RecordBatchOptions, StringArray, UInt32Array,
    },
    compute::{concat_batches, take_record_batch},
    datatypes::{DataType, Schema, UInt32Type},
};
use parquet::{
    arrow::{
        ProjectionMask,
        arrow_reader::{
            ArrowReaderMetadata, ArrowReaderOptions, ParquetRecordBatchReaderBuilder, RowSelection,
        },
    },
    file::metadata::{PageIndexPolicy, ParquetMetaData, ParquetMetaDataReader, RowGroupMetaData},
};
use trine_schema::StreamRef;

use super::{
    columns::{stored, stored_schema},
    index::SpanIndex,
};
use crate::{
    SegmentError,
    cache::CachedIndex,
    file::{CheckedReader, SegmentFile, Tail},
};

/// Up to so many columns are read in one piece when most rows are wanted.
const MAX_WHOLE_COLUMNS: usize = 8;

/// The index of a segment of spans in memory, and its file.
pub struct LoadedSpans {
    pub(super) file: Arc<SegmentFile>,
    /// Parquet's metadata by row group: columns with dictionaries are read as codes.
    groups: Vec<ArrowReaderMetadata>,
    pub(super) index: SpanIndex,
    /// The process's references of the index's streams.
    pub(super) streams: Arc<[StreamRef]>,
    /// Where each granule lies.
    pub(super) places: Vec<Place>,
    memory: usize,
}

impl CachedIndex for LoadedSpans {
    fn memory(&self) -> usize {
        self.memory
    }
}

/// Rows of a granule in its row group.
#[derive(Debug, Clone)]
pub(super) struct Place {
    pub group: usize,
    pub rows: Range<usize>,
}

/// A column of text as it was read.
pub(super) enum Texts<'a> {
    Coded(&'a DictionaryArray<UInt32Type>, &'a StringArray),
    Plain(&'a StringArray),
}

impl<'a> Texts<'a> {
    pub fn of(array: &'a ArrayRef) -> Self {
        match array.as_dictionary_opt::<UInt32Type>() {
            Some(codes) => Self::Coded(codes, codes.values().as_string()),
            None => Self::Plain(array.as_string()),
        }
    }

    pub fn get(&self, row: usize) -> Option<&'a str> {
        match self {
            Self::Coded(codes, values) => codes.key(row).map(|code| values.value(code)),
            Self::Plain(values) => values.is_valid(row).then(|| values.value(row)),
        }
    }
}

impl LoadedSpans {
    /// Reads the index of a file whose tail is at hand. `streams` gives the references of its streams.
    pub(super) fn decode(
        file: Arc<SegmentFile>,
        tail: &Tail,
        encoded: &[u8],
        streams: impl FnOnce(&SpanIndex) -> Result<Arc<[StreamRef]>, SegmentError>,
    ) -> Result<Self, SegmentError> {
        let at = file.index().start;
        let malformed = |what: &str| file.corrupt(at, format!("{what} cannot be read"));
        let index = SpanIndex::decode(encoded, at).map_err(|found| malformed(found.0))?;
        let unreadable =
            |error| file.corrupt(tail.offset(), format!("the Parquet footer cannot be read: {error}"));
        let metadata = ParquetMetaDataReader::new()
            .with_column_index_policy(PageIndexPolicy::Skip)
            .with_offset_index_policy(PageIndexPolicy::Required)
            .parse_and_finish(tail)
            .map_err(unreadable)?;
        let plain = ArrowReaderMetadata::try_new(Arc::new(metadata), ArrowReaderOptions::new())
            .map_err(unreadable)?;
        if plain.schema().fields() != stored_schema(&index.attributes).fields() {
            return Err(file.corrupt(tail.offset(), "the columns are not those of this format".into()));
        }
        let groups = with_codes(&plain).map_err(unreadable)?;
        let places =
            places(&index, plain.metadata()).ok_or_else(|| malformed("a granule across row groups"))?;
        let streams = streams(&index)?;
        if streams.len() != index.streams.len() {
            return Err(malformed("the list of streams"));
        }
        let memory = size_of::<Self>()
            + index.memory(encoded)
            + places.len() * size_of::<Place>()
            + groups.len() * size_of::<ArrowReaderMetadata>()
            + plain.metadata().memory_size();
        Ok(Self { file, groups, index, streams, places, memory })
    }

    /// Number of its granules.
    pub fn granules(&self) -> usize {
        self.index.granules.len()
    }

    /// A reader for one step of a query.
    pub(super) fn reader(&self) -> CheckedReader {
        CheckedReader::new(self.file.clone())
    }

    /// Damage at the index, or where index and rows do not fit.
    pub(super) fn corrupt(&self, what: &str) -> SegmentError {
        self.file.corrupt(self.file.index().start, what.to_owned())
    }

    /// Bytes on disk by Parquet column and by our own parts; for measuring.
    pub fn bytes_by_part(&self) -> Vec<(String, u64)> {
        let mut parts = std::collections::BTreeMap::<String, u64>::new();
        let groups = self.groups.first().map(|group| group.metadata().row_groups()).unwrap_or_default();
        for column in groups.iter().flat_map(RowGroupMetaData::columns) {
            *parts.entry(column.column_path().string()).or_default() +=
                column.compressed_size().max(0) as u64;
        }
        let index = self.file.index();
        parts.insert("(index)".into(), index.end - index.start);
        let traces = self.index.directory.range();
        parts.insert("(traces)".into(), traces.end - traces.start);
        let frames = self.index.frames.iter().map(|frame| frame.end - frame.start);
        parts.insert("(summaries)".into(), frames.sum());
        parts.into_iter().collect()
    }

    /// Columns of the file (by position, rising) for rows of a row group (rising and apart). Text is codes
    /// where the row group has a dictionary; see [`Texts`].
    pub(super) fn read(
        &self,
        reader: &CheckedReader,
        group: usize,
        positions: &[usize],
        rows: &[Range<usize>],
    ) -> Result<RecordBatch, SegmentError> {
        let failed = |shown: &dyn std::fmt::Display| reader.error(self.file.index().start, shown);
        let want: usize = rows.iter().map(Range::len).sum();
        let metadata = &self.groups[group];
        let group_rows = metadata.metadata().row_group(group).num_rows().max(0) as usize;
        let selection = RowSelection::from_consecutive_ranges(rows.iter().cloned(), group_rows);
        let mask = ProjectionMask::roots(metadata.parquet_schema(), positions.iter().copied());
        if positions.len() <= MAX_WHOLE_COLUMNS && want * 2 > group_rows {
            // In one piece: pages do not end where checked blocks do.
            for (leaf, column) in metadata.metadata().row_group(group).columns().iter().enumerate() {
                if mask.leaf_included(leaf) {
                    let (start, length) = column.byte_range();
                    reader.read(start..start.saturating_add(length))?;
                }
            }
        }
        let batches = ParquetRecordBatchReaderBuilder::new_with_metadata(reader.clone(), metadata.clone())
            .with_row_groups(vec![group])
            .with_projection(mask)
            .with_row_selection(selection)
            .with_batch_size(want.max(1))
            .build()
            .map_err(|error| failed(&error))?;
        let batches = batches.collect::<Result<Vec<_>, _>>().map_err(|error| failed(&error))?;
        let batch = match batches.as_slice() {
            [one] => one.clone(),
            [] => return Err(failed(&"rows are missing")),
            several => concat_batches(&several[0].schema(), several)?,
        };
        if batch.num_rows() != want || batch.num_columns() != positions.len() {
            return Err(failed(&format!("{} of {want} rows were found", batch.num_rows())));
        }
        Ok(batch)
    }

    /// [`LoadedSpans::read`] where the rows may be many pieces: then whole granules are read and what was not
    /// asked for is dropped, which is quicker than hopping.
    pub(super) fn read_pieces(
        &self,
        reader: &CheckedReader,
        granules: &[usize],
        positions: &[usize],
        rows: &[Range<usize>],
    ) -> Result<RecordBatch, SegmentError> {
        /// A piece costs about as much as decoding so many rows.
        const ROWS_PER_PIECE: usize = 256;
        let group = self.places[granules[0]].group;
        let want: usize = rows.iter().map(Range::len).sum();
        if positions.is_empty() {
            let options = RecordBatchOptions::new().with_row_count(Some(want));
            return Ok(RecordBatch::try_new_with_options(Arc::new(Schema::empty()), vec![], &options)?);
        }
        let whole: Vec<Range<usize>> =
            granules.iter().map(|number| self.places[*number].rows.clone()).collect();
        let all: usize = whole.iter().map(Range::len).sum();
        if rows.len() * ROWS_PER_PIECE < all {
            return self.read(reader, group, positions, rows);
        }
        let batch = self.read(reader, group, positions, &whole)?;
        if want == all {
            return Ok(batch);
        }
        // By their positions among the rows that were read.
        let mut wanted = Vec::with_capacity(want);
        let (mut granule, mut before) = (0, 0);
        for piece in rows {
            let mut start = piece.start;
            while start < piece.end {
                while whole[granule].end <= start {
                    before += whole[granule].len();
                    granule += 1;
                }
                let (first, end) = (whole[granule].start, piece.end.min(whole[granule].end));
                wanted.extend((before + start - first) as u32..(before + end - first) as u32);
                start = end;
            }
        }
        Ok(take_record_batch(&batch, &UInt32Array::from(wanted))?)
    }
}

/// Where the granules lie; `None` when index and Parquet disagree.
fn places(index: &SpanIndex, metadata: &ParquetMetaData) -> Option<Vec<Place>> {
    let mut groups = metadata.row_groups().iter().map(|group| group.num_rows().max(0) as usize);
    let (mut group, mut left, mut start) = (0, groups.next().unwrap_or(0), 0);
    let mut places = Vec::with_capacity(index.granules.len());
    for granule in &index.granules {
        if left == 0 {
            (group, left, start) = (group + 1, groups.next()?, 0);
        }
        left = left.checked_sub(granule.rows as usize)?;
        places.push(Place { group, rows: start..start + granule.rows as usize });
        start += granule.rows as usize;
    }
    (left == 0 && groups.next().is_none()).then_some(places)
}

/// Metadata by row group, with codes in the place of text where there is a dictionary. Without one Parquet's
/// reader would have to make it.
fn with_codes(plain: &ArrowReaderMetadata) -> parquet::errors::Result<Vec<ArrowReaderMetadata>> {
    let codes = trine_schema::spans::text_codes();
    let descriptor = plain.parquet_schema();
    let mut known: Vec<(Vec<bool>, ArrowReaderMetadata)> = Vec::new();
    let mut groups = Vec::with_capacity(plain.metadata().num_row_groups());
    for group in plain.metadata().row_groups() {
        let mut coded = vec![false; plain.schema().fields().len()];
        for (leaf, column) in group.columns().iter().enumerate() {
            let root = descriptor.get_column_root_idx(leaf);
            let text = *plain.schema().field(root).data_type() == DataType::Utf8;
            coded[root] = text && column.dictionary_page_offset().is_some();
        }
        if let Some((_, metadata)) = known.iter().find(|(same, _)| *same == coded) {
            groups.push(metadata.clone());
            continue;
        }
        let fields = plain.schema().fields().iter().zip(&coded).map(|(field, coded)| {
            let field = field.as_ref().clone();
            if *coded { field.with_data_type(codes.clone()) } else { field }
        });
        let options =
            ArrowReaderOptions::new().with_schema(Arc::new(Schema::new(fields.collect::<Vec<_>>())));
        let metadata = ArrowReaderMetadata::try_new(plain.metadata().clone(), options)?;
        groups.push(metadata.clone());
        known.push((coded, metadata));
    }
    Ok(groups)
}

/// The position of a stored column among those that were read.
pub(super) fn place_among(positions: &[usize], position: usize) -> usize {
    positions.binary_search(&position).expect("BUG: the column was read")
}

/// Positions of the columns of attributes.
pub(super) fn own_columns(index: &SpanIndex) -> Range<usize> {
    stored::COUNT..stored::COUNT + index.attributes.len()
}
