//! The order of spans in a segment.

use arrow::{
    array::{AsArray, RecordBatch},
    compute::interleave_record_batch,
    datatypes::TimestampNanosecondType,
};
use hashbrown::HashMap;
use trine_schema::{
    StreamRegistry,
    spans::{column, schema},
};

use super::SPAN_GRANULE_ROWS;
use crate::{SegmentError, write::stream_refs};

/// Place of a row in the order.
type Key = (u32, u32, i64, u32, u32);

/// Spans in the order of a segment, copied as they are asked for; from [`sort_spans`].
pub struct SortedSpans {
    batches: Vec<RecordBatch>,
    /// Batch and row.
    rows: Vec<(usize, usize)>,
    /// Where the rows of each tenant end; no batch goes across.
    ends: Vec<usize>,
    next: usize,
}

impl SortedSpans {
    /// Number of rows.
    pub fn len(&self) -> usize {
        self.rows.len()
    }

    /// Whether there is no row.
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// The batches that the rows come from.
    pub(super) fn batches(&self) -> &[RecordBatch] {
        &self.batches
    }

    /// The same order of the rows of others.
    pub(super) fn of(self, batches: Vec<RecordBatch>) -> Self {
        Self { batches, ..self }
    }
}

/// Sorts batches of [`trine_schema::spans::schema`] by tenant, first start in a trace, trace and start.
pub fn sort_spans(batches: &[RecordBatch], registry: &StreamRegistry) -> Result<SortedSpans, SegmentError> {
    if let Some(other) = batches.iter().find(|batch| batch.schema_ref().fields() != schema().fields()) {
        let found = other.schema_ref();
        return Err(SegmentError::Contract(format!("spans to be sorted have other columns: {found}")));
    }
    let mut tenants = Vec::new();
    let mut tenant_of: HashMap<u32, u32> = HashMap::new();
    for stream in batches.iter().flat_map(stream_refs) {
        tenant_of.entry(*stream).or_insert_with(|| {
            tenants.push((registry.get(*stream).tenant.clone(), *stream));
            0
        });
    }
    tenants.sort();
    let mut number = 0;
    for (place, (tenant, stream)) in tenants.iter().enumerate() {
        number += u32::from(place > 0 && *tenant != tenants[place - 1].0);
        tenant_of.insert(*stream, number);
    }
    // Traces are numbered as they are met, then by their first start.
    let mut numbers: HashMap<(u32, [u8; 16]), u32> = HashMap::new();
    let mut firsts: Vec<(u32, i64, [u8; 16])> = Vec::new();
    let mut keys: Vec<Key> = Vec::with_capacity(batches.iter().map(RecordBatch::num_rows).sum());
    for (position, batch) in batches.iter().enumerate() {
        let times = batch.column(column::TIMESTAMP).as_primitive::<TimestampNanosecondType>().values();
        let ids = batch.column(column::TRACE_ID).as_fixed_size_binary();
        for (row, (stream, time)) in stream_refs(batch).iter().zip(times).enumerate() {
            let tenant = tenant_of[stream];
            let id: [u8; 16] = ids.value(row).try_into().expect("the column has 16 bytes a row");
            let trace = *numbers.entry((tenant, id)).or_insert_with(|| {
                firsts.push((tenant, *time, id));
                firsts.len() as u32 - 1
            });
            let first = &mut firsts[trace as usize].1;
            *first = (*first).min(*time);
            keys.push((tenant, trace, *time, position as u32, row as u32));
        }
    }
    let mut by_start: Vec<u32> = (0..firsts.len() as u32).collect();
    by_start.sort_unstable_by_key(|trace| firsts[*trace as usize]);
    let mut rank = vec![0; firsts.len()];
    by_start.iter().enumerate().for_each(|(place, trace)| rank[*trace as usize] = place as u32);
    keys.sort_unstable_by_key(|(tenant, trace, time, batch, row)| {
        (*tenant, rank[*trace as usize], *time, *batch, *row)
    });
    let ends = keys.chunk_by(|a, b| a.0 == b.0).scan(0, |end, of_tenant| {
        *end += of_tenant.len();
        Some(*end)
    });
    let ends = ends.collect();
    let rows = keys.iter().map(|(_, _, _, batch, row)| (*batch as usize, *row as usize)).collect();
    Ok(SortedSpans { batches: batches.to_vec(), rows, ends, next: 0 })
}

impl Iterator for SortedSpans {
    type Item = Result<RecordBatch, SegmentError>;

    fn next(&mut self) -> Option<Self::Item> {
        let of_tenant = self.ends[self.ends.partition_point(|end| *end <= self.next)..].first();
        let end = (self.next + SPAN_GRANULE_ROWS).min(of_tenant.copied().unwrap_or(self.next));
        let rows = &self.rows[self.next..end];
        if rows.is_empty() {
            return None;
        }
        self.next = end;
        let batches: Vec<&RecordBatch> = self.batches.iter().collect();
        Some(interleave_record_batch(&batches, rows).map_err(SegmentError::from))
    }
}
