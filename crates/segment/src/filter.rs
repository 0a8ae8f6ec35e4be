//! Exact filters on batches in memory.

use std::{
    ops::{Range, RangeInclusive},
    sync::Arc,
};

use arrow::{
    array::{
        Array, ArrayRef, AsArray, BooleanArray, FixedSizeBinaryArray, MapArray, RecordBatch,
        RecordBatchOptions, StringArray,
    },
    buffer::BooleanBuffer,
    compute,
    datatypes::{SchemaRef, UInt8Type},
};
use parking_lot::RwLock;
use trine_body::RowSet;
use trine_model::TraceId;
use trine_schema::{
    LineFilter, LogFilter, LogScan, Needle, StreamRef, StreamRegistry, columns::attributes_of, label_name,
    logs, logs::column,
};

use crate::{
    SegmentError,
    spans::Ids,
    write::{level_of, stream_refs, timestamps},
};

/// Numbers of severities.
const SEVERITIES: Range<u8> = 0..25;

/// Levels, one bit each: those of which some number lies in the range, and those of which none lies outside.
pub fn levels_in(range: &RangeInclusive<u8>) -> (u8, u8) {
    let (mut some, mut all) = (0u8, u8::MAX);
    for number in SEVERITIES {
        let bit = 1 << level_of(number) as u8;
        if range.contains(&number) { some |= bit } else { all &= !bit }
    }
    (some, all)
}

/// Remembers which streams a scan takes; one per scan, shared by its threads.
pub struct StreamMatcher {
    registry: Arc<StreamRegistry>,
    tenant: trine_model::TenantId,
    matchers: Vec<trine_schema::LabelMatcher>,
    /// By stream reference.
    known: RwLock<Vec<Option<bool>>>,
}

impl StreamMatcher {
    /// For one scan: its tenant and its matchers.
    pub fn new(registry: Arc<StreamRegistry>, scan: &LogScan) -> Self {
        Self::of(registry, scan.tenant.clone(), scan.streams.clone())
    }

    /// For a tenant and matchers that all must pass.
    pub fn of(
        registry: Arc<StreamRegistry>,
        tenant: trine_model::TenantId,
        matchers: Vec<trine_schema::LabelMatcher>,
    ) -> Self {
        Self { registry, tenant, matchers, known: RwLock::new(Vec::new()) }
    }

    /// Whether the stream is of the scan's tenant and passes its matchers.
    pub fn matches(&self, stream: StreamRef) -> bool {
        let known = self.known.read().get(stream as usize).copied().flatten();
        known.unwrap_or_else(|| self.decide(&mut self.known.write(), stream))
    }

    /// [`StreamMatcher::matches`] of each.
    pub fn matches_each(&self, streams: &[StreamRef]) -> Vec<bool> {
        let known = self.known.read();
        let all: Option<Vec<bool>> =
            streams.iter().map(|stream| known.get(*stream as usize).copied().flatten()).collect();
        drop(known);
        all.unwrap_or_else(|| {
            let mut known = self.known.write();
            streams.iter().map(|stream| self.decide(&mut known, *stream)).collect()
        })
    }

    fn decide(&self, known: &mut Vec<Option<bool>>, stream: StreamRef) -> bool {
        let position = stream as usize;
        if known.len() <= position {
            known.resize(position + 1, None);
        }
        *known[position].get_or_insert_with(|| {
            let found = self.registry.get(stream);
            found.tenant == self.tenant && self.matchers.iter().all(|matcher| matcher.matches(&found))
        })
    }
}

/// The rows of a batch (full schema) that pass all conditions of the scan, with its projection.
pub fn filter_batch(
    batch: &RecordBatch,
    scan: &LogScan,
    streams: &StreamMatcher,
) -> Result<RecordBatch, SegmentError> {
    let selected = select(batch, scan, streams);
    let columns = scan.projection.iter().map(|position| batch.column(*position).clone()).collect();
    keep_rows(projected_schema(&scan.projection), columns, &selected)
}

/// Schema of a projection of the log table.
pub(crate) fn projected_schema(projection: &[usize]) -> SchemaRef {
    let schema = logs::schema();
    if projection.len() == schema.fields().len() {
        return schema;
    }
    Arc::new(schema.project(projection).expect("BUG: a projection names columns of the log table"))
}

/// The rows of `selected`.
pub(crate) fn keep_rows(
    schema: SchemaRef,
    columns: Vec<ArrayRef>,
    selected: &RowSet,
) -> Result<RecordBatch, SegmentError> {
    let rows = selected.count() as usize;
    let options = RecordBatchOptions::new().with_row_count(Some(rows));
    if rows == selected.domain() as usize || columns.is_empty() {
        return Ok(RecordBatch::try_new_with_options(schema, columns, &options)?);
    }
    let mask = BooleanArray::new(
        BooleanBuffer::collect_bool(selected.domain() as usize, |row| selected.contains(row as u32)),
        None,
    );
    let predicate = compute::FilterBuilder::new(&mask).optimize().build();
    let columns = columns.iter().map(|array| predicate.filter(array)).collect::<Result<Vec<_>, _>>()?;
    Ok(RecordBatch::try_new_with_options(schema, columns, &options)?)
}

/// Rows of a batch that pass all conditions.
pub(crate) fn select(batch: &RecordBatch, scan: &LogScan, streams: &StreamMatcher) -> RowSet {
    let rows = batch.num_rows() as u32;
    let mut selected = RowSet::new(rows);
    let mut last = None;
    for (row, (stream, time)) in stream_refs(batch).iter().zip(timestamps(batch)).enumerate() {
        let matches = match last {
            Some((same, matches)) if same == *stream => matches,
            _ => streams.matches(*stream),
        };
        last = Some((*stream, matches));
        if matches && scan.in_range(*time) {
            selected.insert(row as u32);
        }
    }
    for filter in by_cost(&scan.filters) {
        if selected.is_empty() {
            break;
        }
        match filter {
            LogFilter::Line(line) => keep_lines(batch.column(column::BODY).as_string(), line, &mut selected),
            other => keep(other, batch.column(column_of(other)), &mut selected),
        }
    }
    selected
}

/// Filters with the cheap and sharp ones first.
pub(crate) fn by_cost(filters: &[LogFilter]) -> Vec<&LogFilter> {
    let mut sorted: Vec<&LogFilter> = filters.iter().collect();
    sorted.sort_by_key(|filter| match filter {
        LogFilter::TraceIds(_) => 0,
        LogFilter::SpanId(_) => 1,
        LogFilter::Severity(_) => 2,
        LogFilter::Line(_) => 3,
        LogFilter::Attribute { .. } => 4,
    });
    sorted
}

/// The column a filter looks at.
pub(crate) fn column_of(filter: &LogFilter) -> usize {
    match filter {
        LogFilter::Line(_) => column::BODY,
        LogFilter::TraceIds(_) => column::TRACE_ID,
        LogFilter::SpanId(_) => column::SPAN_ID,
        LogFilter::Severity(_) => column::SEVERITY_NUMBER,
        LogFilter::Attribute { .. } => column::ATTRIBUTES,
    }
}

/// Keeps the rows of the set for which `test` holds.
pub(crate) fn retain(selected: &mut RowSet, test: impl Fn(usize) -> bool) {
    let mut kept = RowSet::new(selected.domain());
    selected.iter().filter(|row| test(*row as usize)).for_each(|row| kept.insert(row));
    *selected = kept;
}

/// Applies any filter but a line filter to its column.
pub(crate) fn keep(filter: &LogFilter, array: &ArrayRef, selected: &mut RowSet) {
    match filter {
        LogFilter::Severity(range) => {
            let values = array.as_primitive::<UInt8Type>().values();
            retain(selected, |row| range.contains(&values[row]));
        }
        LogFilter::TraceIds(ids) => keep_trace_ids(array.as_fixed_size_binary(), ids, selected),
        LogFilter::SpanId(id) => keep_id(array.as_fixed_size_binary(), &id.0, selected),
        LogFilter::Attribute { key, value } => keep_attribute(array.as_map(), key, value, selected),
        LogFilter::Line(line) => keep_lines(array.as_string(), line, selected),
    }
}

fn keep_id(array: &FixedSizeBinaryArray, id: &[u8], selected: &mut RowSet) {
    retain(selected, |row| array.is_valid(row) && array.value(row) == id);
}

fn keep_trace_ids(array: &FixedSizeBinaryArray, ids: &Arc<[TraceId]>, selected: &mut RowSet) {
    match &**ids {
        [id] => keep_id(array, &id.0, selected),
        _ => {
            let ids = Ids::new(ids.clone());
            retain(selected, |row| array.is_valid(row) && ids.contains(array.value(row)));
        }
    }
}

/// An attribute under its stored name decides; without one, any whose Prometheus-style name fits.
fn keep_attribute(map: &MapArray, key: &str, value: &str, selected: &mut RowSet) {
    retain(selected, |row| {
        let exact = attributes_of(map, row).find(|(name, _)| *name == key);
        let found = exact.or_else(|| attributes_of(map, row).find(|(name, _)| same_label(name, key)));
        found.is_some_and(|(_, found)| found == value)
    });
}

/// `label_name(stored) == name`; an ASCII name keeps its length or grows by one, which mostly decides.
fn same_label(stored: &str, name: &str) -> bool {
    let possible = !stored.is_ascii() || (stored.len()..=stored.len() + 1).contains(&name.len());
    possible && label_name(stored) == name
}

/// Keeps the lines that pass.
pub(crate) fn keep_lines(lines: &StringArray, filter: &LineFilter, selected: &mut RowSet) {
    let mut found = RowSet::new(selected.domain());
    for needle in &filter.any {
        match needle {
            Needle::Literal(text) => find_literal(lines, text.as_bytes(), &mut found),
            Needle::Regex(regex) => {
                selected
                    .iter()
                    .filter(|row| regex.is_match(lines.value(*row as usize)))
                    .for_each(|row| found.insert(row));
            }
        }
    }
    if filter.negated {
        found.complement();
    }
    selected.intersect(&found);
}

/// Searches all lines at once: they lie one after another in one buffer.
fn find_literal(lines: &StringArray, needle: &[u8], found: &mut RowSet) {
    if needle.is_empty() {
        found.insert_all();
        return;
    }
    let (offsets, data) = (lines.value_offsets(), lines.value_data());
    let (mut position, end) = (offsets[0] as usize, offsets[lines.len()] as usize);
    let finder = memchr::memmem::Finder::new(needle);
    let mut row = 0;
    while let Some(hit) = finder.find(&data[position..end]) {
        let at = position + hit;
        row += offsets[row + 1..].partition_point(|stop| *stop as usize <= at);
        let stop = offsets[row + 1] as usize;
        if at + needle.len() <= stop {
            found.insert(row as u32);
            position = stop;
        } else {
            // Half in this line, half in the next: no hit, look on from the next byte.
            position = at + 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_literal_is_found_within_lines_and_never_across_two() {
        let all = ["abc", "", "ca", "bcab", "äbc", "c"];
        let array = StringArray::from(all.to_vec());
        for needle in ["abc", "a", "bc", "cab", "cc", "ä", "", "abcc", "ca"] {
            for (from, to) in [(0, 6), (1, 5), (3, 3)] {
                let lines = array.slice(from, to - from);
                let mut found = RowSet::new(lines.len() as u32);
                find_literal(&lines, needle.as_bytes(), &mut found);
                let want: Vec<u32> = (0..(to - from) as u32)
                    .filter(|row| all[from + *row as usize].contains(needle))
                    .collect();
                assert_eq!(found.iter().collect::<Vec<_>>(), want, "{needle:?} in {from}..{to}");
            }
        }
    }

    #[test]
    fn attribute_names_are_found_in_either_spelling() {
        assert!(same_label("http.status", "http_status"));
        assert!(same_label("9x", "_9x"));
        assert!(!same_label("http.status", "http_state"));
    }
}
