//! Exact filters on spans in memory.

use std::sync::Arc;

use arrow::{
    array::{Array as _, ArrayRef, AsArray, RecordBatch, RecordBatchOptions, StringArray},
    compute::cast,
    datatypes::{Int64Type, TimestampNanosecondType, UInt8Type},
};
use trine_body::RowSet;
use trine_model::TraceId;
use trine_schema::{SpanScan, columns::AttributeName, spans::column};

use crate::{SegmentError, StreamMatcher, filter::retain, write::stream_refs};

/// The trace id of a row.
pub(super) fn trace_id(ids: &arrow::array::FixedSizeBinaryArray, row: usize) -> TraceId {
    TraceId(ids.value(row).try_into().expect("the column has 16 bytes a row"))
}

/// Trace ids that are looked for, prepared for many questions of which most are answered with no.
pub(crate) struct Ids {
    sorted: Arc<[TraceId]>,
    /// A bit for each of 65,536 hashes of an id.
    seen: Box<[u64; 1024]>,
}

impl Ids {
    /// Of sorted ids.
    pub fn new(sorted: Arc<[TraceId]>) -> Self {
        let mut seen = Box::new([0; 1024]);
        for id in sorted.iter() {
            let (word, bit) = Self::place(&id.0);
            seen[word] |= bit;
        }
        Self { sorted, seen }
    }

    /// All bytes mixed: some senders begin an id with a time, others end it with zeros.
    fn place(id: &[u8]) -> (usize, u64) {
        let Ok(id) = <[u8; TraceId::LEN]>::try_from(id) else { return (0, 0) };
        let id = u128::from_le_bytes(id);
        let mixed = ((id as u64) ^ (id >> 64) as u64).wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 48;
        (mixed as usize / 64, 1 << (mixed % 64))
    }

    pub fn sorted(&self) -> &[TraceId] {
        &self.sorted
    }

    pub fn contains(&self, id: &[u8]) -> bool {
        let (word, bit) = Self::place(id);
        self.seen[word] & bit != 0 && self.sorted.binary_search_by(|known| known.0.as_slice().cmp(id)).is_ok()
    }
}

/// Rows of a batch of [`trine_schema::spans::schema`] that pass all conditions.
pub(super) fn select(
    batch: &RecordBatch,
    scan: &SpanScan,
    streams: &StreamMatcher,
    wanted: Option<&Ids>,
) -> RowSet {
    let mut selected = RowSet::new(batch.num_rows() as u32);
    let times = batch.column(column::TIMESTAMP).as_primitive::<TimestampNanosecondType>().values();
    let mut last = None;
    for (row, (stream, time)) in stream_refs(batch).iter().zip(times).enumerate() {
        let matches = match last {
            Some((same, matches)) if same == *stream => matches,
            _ => streams.matches(*stream),
        };
        last = Some((*stream, matches));
        if matches && (scan.start..=scan.last).contains(time) {
            selected.insert(row as u32);
        }
    }
    if let Some(wanted) = wanted {
        let ids = batch.column(column::TRACE_ID).as_fixed_size_binary();
        retain(&mut selected, |row| wanted.contains(ids.value(row)));
    }
    if scan.duration != (i64::MIN..=i64::MAX) {
        let durations = batch.column(column::DURATION).as_primitive::<Int64Type>().values();
        retain(&mut selected, |row| scan.duration.contains(&durations[row]));
    }
    if let Some(code) = scan.status_code {
        let codes = batch.column(column::STATUS_CODE).as_primitive::<UInt8Type>().values();
        retain(&mut selected, |row| codes[row] == code);
    }
    if let Some(name) = &scan.operation {
        let names = batch.column(column::OPERATION).as_string::<i32>();
        retain(&mut selected, |row| names.value(row) == name);
    }
    let map = batch.column(column::ATTRIBUTES).as_map();
    for (name, value) in &scan.attributes {
        let name = AttributeName::new(name);
        retain(&mut selected, |row| name.value(map, row) == Some(value));
    }
    selected
}

/// Columns of the selected rows of a batch of [`trine_schema::spans::schema`].
pub(super) fn project(
    batch: &RecordBatch,
    scan: &SpanScan,
    selected: &RowSet,
) -> Result<RecordBatch, SegmentError> {
    let text = SpanScan { dictionaries: false, ..scan.clone() };
    let columns: Vec<_> = scan.projection.iter().map(|position| batch.column(*position).clone()).collect();
    let map = batch.column(column::ATTRIBUTES).as_map();
    let attribute = |name: &String| {
        let name = AttributeName::new(name);
        // Only of rows that are kept.
        let value = |row: usize| selected.contains(row as u32).then(|| name.value(map, row)).flatten();
        Arc::new((0..map.len()).map(value).collect::<StringArray>()) as ArrayRef
    };
    let attributes = scan.attribute_columns.iter().map(attribute);
    let kept =
        crate::filter::keep_rows(text.schema(), columns.into_iter().chain(attributes).collect(), selected)?;
    if !scan.dictionaries {
        return Ok(kept);
    }
    let schema = scan.schema();
    let wanted = kept.columns().iter().zip(schema.fields());
    let wanted = wanted.map(|(array, field)| cast(array, field.data_type())).collect::<Result<_, _>>()?;
    let options = RecordBatchOptions::new().with_row_count(Some(kept.num_rows()));
    Ok(RecordBatch::try_new_with_options(schema, wanted, &options)?)
}
