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

/// Up to so many columns are read in few pieces when many of their pages are wanted.
const MAX_RUN_COLUMNS: usize = 8;
/// More pieces than this in a column are read page by page.
const MAX_RUNS: usize = 2;
/// Unwanted bytes between two pages that are read along with them.
const MAX_GAP_BYTES: u64 = 128 << 10;
/// Rows that stay in the processor's cache from column to column.
pub(super) const CACHED_ROWS: usize = 16 * 1_024;

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
        match self.read_batches(reader, group, positions, rows, usize::MAX)?.as_slice() {
            [one] => Ok(one.clone()),
            several => Ok(concat_batches(&several[0].schema(), several)?),
        }
    }

    /// [`LoadedSpans::read`] in batches of up to `most` rows; at least one.
    pub(super) fn read_batches(
        &self,
        reader: &CheckedReader,
        group: usize,
        positions: &[usize],
        rows: &[Range<usize>],
        most: usize,
    ) -> Result<Vec<RecordBatch>, SegmentError> {
        let failed = |shown: &dyn std::fmt::Display| reader.error(self.file.index().start, shown);
        let want: usize = rows.iter().map(Range::len).sum();
        let metadata = &self.groups[group];
        let group_rows = metadata.metadata().row_group(group).num_rows().max(0) as usize;
        let selection = RowSelection::from_consecutive_ranges(rows.iter().cloned(), group_rows);
        let mask = ProjectionMask::roots(metadata.parquet_schema(), positions.iter().copied());
        if positions.len() <= MAX_RUN_COLUMNS {
            for leaf in 0..metadata.metadata().row_group(group).num_columns() {
                if mask.leaf_included(leaf) {
                    for run in runs(metadata.metadata(), (group, leaf), rows) {
                        reader.read(run)?;
                    }
                }
            }
        }
        let batches = ParquetRecordBatchReaderBuilder::new_with_metadata(reader.clone(), metadata.clone())
            .with_row_groups(vec![group])
            .with_projection(mask)
            .with_row_selection(selection)
            .with_batch_size(want.clamp(1, most))
            .build()
            .map_err(|error| failed(&error))?;
        let batches = batches.collect::<Result<Vec<_>, _>>().map_err(|error| failed(&error))?;
        let found: usize = batches.iter().map(RecordBatch::num_rows).sum();
        if found != want || batches.first().is_none_or(|batch| batch.num_columns() != positions.len()) {
            return Err(failed(&format!("{found} of {want} rows were found")));
        }
        Ok(batches)
    }

    /// [`LoadedSpans::read`] where the rows may be many pieces: then whole granules are read and what was not
    /// asked for is dropped, which is quicker than hopping. In batches of about `most` rows.
    pub(super) fn read_pieces(
        &self,
        reader: &CheckedReader,
        granules: &[usize],
        positions: &[usize],
        rows: &[Range<usize>],
        most: usize,
    ) -> Result<Vec<RecordBatch>, SegmentError> {
        /// A piece costs about as much as decoding so many rows.
        const ROWS_PER_PIECE: usize = 256;
        let group = self.places[granules[0]].group;
        let want: usize = rows.iter().map(Range::len).sum();
        if positions.is_empty() {
            let options = RecordBatchOptions::new().with_row_count(Some(want));
            return Ok(vec![RecordBatch::try_new_with_options(Arc::new(Schema::empty()), vec![], &options)?]);
        }
        let whole: Vec<Range<usize>> =
            granules.iter().map(|number| self.places[*number].rows.clone()).collect();
        let all: usize = whole.iter().map(Range::len).sum();
        if rows.len() * ROWS_PER_PIECE < all {
            return self.read_batches(reader, group, positions, rows, most);
        }
        let batches = self.read_batches(reader, group, positions, &whole, most)?;
        if want == all {
            return Ok(batches);
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
        let (mut left, mut base, mut taken) = (wanted.as_slice(), 0, Vec::with_capacity(batches.len()));
        for batch in batches {
            let end = base + batch.num_rows() as u32;
            let (here, later) = left.split_at(left.partition_point(|row| *row < end));
            let here = UInt32Array::from_iter_values(here.iter().map(|row| row - base));
            taken.push(take_record_batch(&batch, &here)?);
            (left, base) = (later, end);
        }
        Ok(taken)
    }
}

/// The bytes of a column that hold pages with these rows, in few pieces; nothing when they would be many.
/// Pages do not end where checked blocks do, so that single ones are read with parts of their neighbours.
fn runs(metadata: &ParquetMetaData, (group, leaf): (usize, usize), rows: &[Range<usize>]) -> Vec<Range<u64>> {
    let pages = metadata.offset_index().and_then(|index| Some(index.get(group)?.get(leaf)?.page_locations()));
    let Some(pages) = pages else { return Vec::new() };
    let mut runs: Vec<Range<u64>> = Vec::new();
    let mut rows = rows.iter().filter(|rows| !rows.is_empty()).peekable();
    for (number, page) in pages.iter().enumerate() {
        let end = pages.get(number + 1).map_or(usize::MAX, |next| next.first_row_index.max(0) as usize);
        let wanted = rows.peek().is_some_and(|rows| rows.start < end);
        while rows.next_if(|rows| rows.end <= end).is_some() {}
        if !wanted {
            continue;
        }
        let start = page.offset.max(0) as u64;
        let page = start..start.saturating_add(page.compressed_page_size.max(0) as u64);
        let many = runs.len() == MAX_RUNS;
        match runs.last_mut() {
            Some(run) if page.start.saturating_sub(run.end) <= MAX_GAP_BYTES => run.end = page.end,
            _ if many => return Vec::new(),
            _ => runs.push(page),
        }
    }
    runs
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
