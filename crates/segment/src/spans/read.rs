//! Reading a segment of spans.

use std::{
    ops::Range,
    sync::{Arc, atomic::Ordering::Relaxed},
};

use arrow::{
    array::{
        Array, ArrayRef, AsArray, FixedSizeBinaryBuilder, MapBuilder, MapFieldNames, RecordBatch,
        StringBuilder, UInt32Array,
    },
    compute::concat_batches,
    datatypes::{DataType, Int32Type, Schema, SchemaRef},
};
use hashbrown::HashMap;
use parquet::{
    arrow::{
        ProjectionMask,
        arrow_reader::{
            ArrowReaderMetadata, ArrowReaderOptions, ParquetRecordBatchReaderBuilder, RowSelection,
        },
    },
    file::metadata::{PageIndexPolicy, ParquetMetaDataReader, RowGroupMetaData},
};
use trine_body::TraceIdBloom;
use trine_model::{TenantId, TraceId};
use trine_schema::{
    ScanStats, StreamRef,
    columns::attributes_of,
    spans::{column, schema},
};

use super::{
    columns::{stored, stored_of, stored_schema},
    index::{Granule, SpanIndex},
};
use crate::{
    SegmentError,
    cache::CachedIndex,
    file::{CheckedReader, SegmentFile, Tail},
};

/// The index of a segment of spans in memory, and its file.
pub struct LoadedSpans {
    pub(super) file: Arc<SegmentFile>,
    parquet: ArrowReaderMetadata,
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

impl LoadedSpans {
    /// Reads the index of a file whose tail is at hand. `streams` gives the references of the index's streams.
    pub(super) fn decode(
        file: Arc<SegmentFile>,
        tail: &Tail,
        encoded: &[u8],
        streams: impl FnOnce(&SpanIndex) -> Result<Arc<[StreamRef]>, SegmentError>,
    ) -> Result<Self, SegmentError> {
        let at = file.index().start;
        let malformed = |what: &str| file.corrupt(at, format!("{what} cannot be read"));
        let index = SpanIndex::decode(encoded).map_err(|found| malformed(found.0))?;
        let unreadable =
            |error| file.corrupt(tail.offset(), format!("the Parquet footer cannot be read: {error}"));
        let metadata = ParquetMetaDataReader::new()
            .with_column_index_policy(PageIndexPolicy::Skip)
            .with_offset_index_policy(PageIndexPolicy::Required)
            .parse_and_finish(tail)
            .map_err(unreadable)?;
        let parquet = ArrowReaderMetadata::try_new(Arc::new(metadata), ArrowReaderOptions::new())
            .map_err(unreadable)?;
        if parquet.schema().fields() != stored_schema(&index.attributes).fields() {
            return Err(file.corrupt(tail.offset(), "the columns are not those of this format".into()));
        }
        // Codes of a dictionary are read instead of the labels of each row.
        let options = ArrowReaderOptions::new().with_schema(with_label_codes(parquet.schema()));
        let parquet =
            ArrowReaderMetadata::try_new(parquet.metadata().clone(), options).map_err(unreadable)?;
        let places = places(&index, &parquet).ok_or_else(|| malformed("a granule across row groups"))?;
        let streams = streams(&index)?;
        if streams.len() != index.streams.len() {
            return Err(malformed("the list of streams"));
        }
        let memory = size_of::<Self>()
            + index.memory(encoded)
            + places.len() * size_of::<Place>()
            + parquet.metadata().memory_size();
        Ok(Self { file, parquet, index, streams, places, memory })
    }

    /// Number of its granules.
    pub fn granules(&self) -> usize {
        self.index.granules.len()
    }

    /// All spans of a trace, in the order of their starts; no batch when there is none.
    pub fn trace(
        &self,
        tenant: &TenantId,
        id: TraceId,
        stats: &ScanStats,
    ) -> Result<Vec<RecordBatch>, SegmentError> {
        let mut found = Vec::new();
        for (number, granule) in self.index.granules.iter().enumerate() {
            if !self.is_of(granule, tenant) || !TraceIdBloom::may_contain(&granule.traces, &id.0) {
                continue;
            }
            let reader = CheckedReader::new(self.file.clone());
            let place = &self.places[number];
            let ids =
                self.read(&reader, place.group, &[stored::TRACE_ID], std::slice::from_ref(&place.rows))?;
            let ids = ids.column(0).as_fixed_size_binary();
            // Spans of a trace are neighbours.
            if let Some(start) = (0..ids.len()).find(|row| ids.value(*row) == id.0) {
                let end = (start..ids.len()).find(|row| ids.value(*row) != id.0).unwrap_or(ids.len());
                stats.rows_matched.fetch_add((end - start) as u64, Relaxed);
                let rows = place.rows.start + start..place.rows.start + end;
                found.push(self.logical(&reader, &[number], &[rows])?);
            }
            stats.granules_scanned.fetch_add(1, Relaxed);
            stats.rows_scanned.fetch_add(u64::from(granule.rows), Relaxed);
            stats.bytes_scanned.fetch_add(reader.bytes_read(), Relaxed);
        }
        Ok(found)
    }

    /// Whether the granule's rows are the tenant's; all of a granule are of one.
    fn is_of(&self, granule: &Granule, tenant: &TenantId) -> bool {
        granule
            .streams
            .first()
            .is_some_and(|stream| self.index.streams[*stream as usize].tenant == tenant.as_str())
    }

    /// All rows of a granule with the columns of [`trine_schema::spans::schema`].
    pub fn granule(&self, number: usize) -> Result<RecordBatch, SegmentError> {
        let reader = CheckedReader::new(self.file.clone());
        self.logical(&reader, &[number], std::slice::from_ref(&self.places[number].rows))
    }

    /// Bytes on disk by Parquet column and by our own parts; for measuring.
    pub fn bytes_by_part(&self) -> Vec<(String, u64)> {
        let mut parts = std::collections::BTreeMap::<String, u64>::new();
        for column in self.parquet.metadata().row_groups().iter().flat_map(RowGroupMetaData::columns) {
            *parts.entry(column.column_path().string()).or_default() +=
                column.compressed_size().max(0) as u64;
        }
        let index = self.file.index();
        parts.insert("(index)".into(), index.end - index.start);
        parts.into_iter().collect()
    }

    /// Columns of the file (by position, rising) for rows of a row group (rising and apart).
    pub(super) fn read(
        &self,
        reader: &CheckedReader,
        group: usize,
        positions: &[usize],
        rows: &[Range<usize>],
    ) -> Result<RecordBatch, SegmentError> {
        let failed = |shown: &dyn std::fmt::Display| reader.error(self.file.index().start, shown);
        let want: usize = rows.iter().map(Range::len).sum();
        let group_rows = self.parquet.metadata().row_group(group).num_rows().max(0) as usize;
        let selection = RowSelection::from_consecutive_ranges(rows.iter().cloned(), group_rows);
        let mask = ProjectionMask::roots(self.parquet.parquet_schema(), positions.iter().copied());
        let batches =
            ParquetRecordBatchReaderBuilder::new_with_metadata(reader.clone(), self.parquet.clone())
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

    /// Rows (rising and apart, by their places in the row group) with the columns of
    /// [`trine_schema::spans::schema`]. All lie in these granules of one row group, rising.
    pub(super) fn logical(
        &self,
        reader: &CheckedReader,
        granules: &[usize],
        rows: &[Range<usize>],
    ) -> Result<RecordBatch, SegmentError> {
        let group = self.places[granules[0]].group;
        let all: Vec<usize> = (stored::LABELS..stored::COUNT + self.index.attributes.len()).collect();
        let read = self.read(reader, group, &all, rows)?;
        let stored_column = |position: usize| read.column(position - stored::LABELS);
        let mut columns: Vec<ArrayRef> = Vec::with_capacity(column::COUNT);
        for logical in 0..column::COUNT {
            columns.push(match (logical, stored_of(logical)) {
                (_, Some(position)) => stored_column(position).clone(),
                (column::STREAM, _) => self.references(&read, granules)?,
                (column::PARENT_SPAN_ID, _) => {
                    // Parents stand among all spans of the granules.
                    let whole: Vec<Range<usize>> =
                        granules.iter().map(|number| self.places[*number].rows.clone()).collect();
                    let spans = self.read(reader, group, &[stored::SPAN_ID], &whole)?;
                    let (distance, parent) =
                        (stored_column(stored::PARENT_DISTANCE), stored_column(stored::PARENT_SPAN_ID));
                    self.parents(distance, parent, rows, (&whole, spans.column(0)))?
                }
                (column::ATTRIBUTES, _) => self.attributes(&read)?,
                _ => unreachable!("BUG: column {logical} comes from nowhere"),
            });
        }
        Ok(RecordBatch::try_new(schema(), columns)?)
    }

    /// Streams by the labels of rows.
    fn references(&self, read: &RecordBatch, granules: &[usize]) -> Result<ArrayRef, SegmentError> {
        let bad = |what: &str| self.file.corrupt(self.file.index().start, what.to_owned());
        let mut by_labels: HashMap<&str, StreamRef> = HashMap::new();
        for stream in granules.iter().flat_map(|number| &self.index.granules[*number].streams) {
            by_labels.insert(&self.index.streams[*stream as usize].labels, self.streams[*stream as usize]);
        }
        let codes = read.column(0).as_dictionary::<Int32Type>();
        let texts = codes.values().as_string::<i32>();
        let known: Vec<Option<StreamRef>> =
            texts.iter().map(|text| text.and_then(|text| by_labels.get(text).copied())).collect();
        let references: Option<Vec<u32>> = codes
            .keys()
            .values()
            .iter()
            .map(|code| usize::try_from(*code).ok().and_then(|code| known.get(code).copied().flatten()))
            .collect();
        let references = references.ok_or_else(|| bad("labels of a row are not in the index"))?;
        Ok(Arc::new(UInt32Array::from(references)))
    }

    /// `known`: places in the row group and the ids of the spans there.
    fn parents(
        &self,
        distance: &ArrayRef,
        elsewhere: &ArrayRef,
        rows: &[Range<usize>],
        known: (&[Range<usize>], &ArrayRef),
    ) -> Result<ArrayRef, SegmentError> {
        let (distance, elsewhere) = (distance.as_primitive::<Int32Type>(), elsewhere.as_fixed_size_binary());
        let (places, spans) = (known.0, known.1.as_fixed_size_binary());
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
                let parent = parent.ok_or_else(|| {
                    self.file.corrupt(self.file.index().start, "a parent is outside of its granule".into())
                })?;
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
    fn attributes(&self, read: &RecordBatch) -> Result<ArrayRef, SegmentError> {
        let rest = read.column(stored::ATTRIBUTES - stored::LABELS);
        if self.index.attributes.is_empty() {
            return Ok(rest.clone());
        }
        let rest = rest.as_map();
        let own: Vec<_> = (stored::COUNT..stored::COUNT + self.index.attributes.len())
            .map(|position| read.column(position - stored::LABELS).as_string::<i32>())
            .collect();
        let schema = schema();
        let DataType::Map(entries, _) = schema.field(column::ATTRIBUTES).data_type() else {
            unreachable!("attributes are a map")
        };
        let DataType::Struct(fields) = entries.data_type() else { unreachable!("a map holds a struct") };
        let names = MapFieldNames { entry: "entries".into(), key: "keys".into(), value: "values".into() };
        let mut map = MapBuilder::new(Some(names), StringBuilder::new(), StringBuilder::new())
            .with_keys_field(fields[0].clone())
            .with_values_field(fields[1].clone());
        for row in 0..rest.len() {
            for (name, values) in self.index.attributes.iter().zip(&own) {
                if values.is_valid(row) {
                    map.keys().append_value(name);
                    map.values().append_value(values.value(row));
                }
            }
            for (key, value) in attributes_of(rest, row) {
                map.keys().append_value(key);
                map.values().append_value(value);
            }
            map.append(true)?;
        }
        Ok(Arc::new(map.finish()))
    }
}

/// Where the granules lie; `None` when index and Parquet disagree.
fn places(index: &SpanIndex, parquet: &ArrowReaderMetadata) -> Option<Vec<Place>> {
    let mut groups = parquet.metadata().row_groups().iter().map(|group| group.num_rows().max(0) as usize);
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

/// The schema with codes in the place of labels.
fn with_label_codes(schema: &SchemaRef) -> SchemaRef {
    let mut fields = schema.fields().to_vec();
    let codes = DataType::Dictionary(Box::new(DataType::Int32), Box::new(DataType::Utf8));
    fields[stored::LABELS] = Arc::new(fields[stored::LABELS].as_ref().clone().with_data_type(codes));
    Arc::new(Schema::new(fields))
}
