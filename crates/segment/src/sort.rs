//! The order of rows in a segment.

use std::{cmp::Ordering, sync::Arc};

use arrow::{
    array::{AsArray, RecordBatch},
    buffer::OffsetBuffer,
    datatypes::SchemaRef,
};
use hashbrown::HashMap;
use trine_schema::{
    Stream, StreamRef, StreamRegistry,
    logs::{self, column},
};

use crate::{
    GRANULE_ROWS, SegmentError,
    gather::{Piece, gather},
    write::{stream_refs, timestamps},
};

/// Bytes of bodies after which a batch of sorted rows ends early, so that its offsets always fit.
const BATCH_BYTES: usize = 32 << 20;

/// Order of streams in a segment: tenant, service, stream id. The same in every process.
pub struct StreamOrder<'a> {
    registry: &'a StreamRegistry,
    known: HashMap<StreamRef, Arc<Stream>>,
}

impl<'a> StreamOrder<'a> {
    /// Over the streams of a registry.
    pub fn new(registry: &'a StreamRegistry) -> Self {
        Self { registry, known: HashMap::new() }
    }

    fn stream(&mut self, reference: StreamRef) -> Arc<Stream> {
        self.known.entry(reference).or_insert_with(|| self.registry.get(reference)).clone()
    }

    /// How two streams compare.
    pub fn compare(&mut self, a: StreamRef, b: StreamRef) -> Ordering {
        if a == b {
            return Ordering::Equal;
        }
        let (a, b) = (self.stream(a), self.stream(b));
        a.tenant.cmp(&b.tenant).then_with(|| a.service().cmp(b.service())).then_with(|| a.id.cmp(&b.id))
    }
}

/// Sorts batches in memory for a flush; equal timestamps of a stream keep their order of arrival.
///
/// Runs of neighbouring rows of one stream are dealt to their streams by counting; a stream whose runs
/// do not follow each other in time is sorted by row. Rows are copied as they are asked for, up to
/// [`GRANULE_ROWS`] at a time, so that a flush holds one row group of copies and its memory is used again.
///
/// Batches with other columns than [`trine_schema::logs::schema`] are an error.
pub fn sort_batches(batches: &[RecordBatch], registry: &StreamRegistry) -> Result<SortedRows, SegmentError> {
    let schema = logs::schema();
    if let Some(other) = batches.iter().find(|batch| batch.schema_ref().fields() != schema.fields()) {
        let found = other.schema_ref();
        return Err(SegmentError::Contract(format!("rows to be sorted have other columns: {found}")));
    }
    let bodies = batches.iter().map(|batch| batch.column(column::BODY).as_string::<i32>().offsets().clone());
    Ok(SortedRows {
        schema,
        bodies: bodies.collect(),
        pieces: sorted_pieces(batches, registry),
        batches: batches.to_vec(),
        next: 0,
        taken: Vec::new(),
    })
}

/// One stream while its runs are dealt.
struct Dealt {
    stream: StreamRef,
    /// Runs, then where the next one goes.
    pieces: usize,
    /// Time of the last row so far.
    last: i64,
    in_order: bool,
}

/// Runs of one stream whose times do not fall.
fn runs(batch: &RecordBatch) -> impl Iterator<Item = (usize, usize)> {
    let (streams, times) = (stream_refs(batch), timestamps(batch));
    let mut start = 0;
    std::iter::from_fn(move || {
        let stream = *streams.get(start)?;
        let first = start;
        start += 1;
        while start < streams.len() && streams[start] == stream && times[start] >= times[start - 1] {
            start += 1;
        }
        Some((first, start))
    })
}

/// Runs of rows in the order of a segment.
fn sorted_pieces(batches: &[RecordBatch], registry: &StreamRegistry) -> Vec<Piece> {
    // Streams are numbered as they are met; neighbouring rows are often of the same few streams.
    let mut numbers: HashMap<StreamRef, u32> = HashMap::new();
    let mut dealt: Vec<Dealt> = Vec::new();
    let mut owners: Vec<u32> = Vec::new();
    for batch in batches {
        let (streams, times) = (stream_refs(batch), timestamps(batch));
        for (start, end) in runs(batch) {
            let stream = streams[start];
            let number = *numbers.entry(stream).or_insert_with(|| {
                dealt.push(Dealt { stream, pieces: 0, last: i64::MIN, in_order: true });
                dealt.len() as u32 - 1
            });
            let found = &mut dealt[number as usize];
            found.pieces += 1;
            found.in_order &= times[start] >= found.last;
            found.last = times[end - 1];
            owners.push(number);
        }
    }
    let mut order = StreamOrder::new(registry);
    let mut by_order: Vec<usize> = (0..dealt.len()).collect();
    by_order.sort_unstable_by(|a, b| order.compare(dealt[*a].stream, dealt[*b].stream));
    let mut start = 0;
    for number in &by_order {
        start += std::mem::replace(&mut dealt[*number].pieces, start);
    }
    let mut pieces = vec![Piece { batch: 0, start: 0, end: 0 }; owners.len()];
    let mut owners = owners.into_iter();
    for (number, batch) in batches.iter().enumerate() {
        for ((start, end), owner) in runs(batch).zip(&mut owners) {
            let place = &mut dealt[owner as usize].pieces;
            pieces[*place] = Piece { batch: number as u32, start: start as u32, end: end as u32 };
            *place += 1;
        }
    }
    if dealt.iter().all(|stream| stream.in_order) {
        return pieces;
    }
    let times: Vec<&[i64]> = batches.iter().map(timestamps).collect();
    let (mut sorted, mut start) = (Vec::with_capacity(pieces.len()), 0);
    for number in by_order {
        // After dealing, `pieces` is the end of the stream's runs.
        let (end, in_order) = (dealt[number].pieces, dealt[number].in_order);
        let of_stream = &pieces[start..end];
        start = end;
        if in_order {
            sorted.extend_from_slice(of_stream);
        } else {
            sort_stream(of_stream, &times, &mut sorted);
        }
    }
    sorted
}

/// Sorts the rows of one stream by time, stable, and appends them as runs.
fn sort_stream(pieces: &[Piece], times: &[&[i64]], sorted: &mut Vec<Piece>) {
    let mut rows: Vec<(i64, u32, u32)> = Vec::new();
    for piece in pieces {
        let of_batch = times[piece.batch as usize];
        rows.extend((piece.start..piece.end).map(|row| (of_batch[row as usize], piece.batch, row)));
    }
    rows.sort_by_key(|(time, _, _)| *time);
    let first = sorted.len();
    for (_, batch, row) in rows {
        match sorted[first..].last_mut() {
            Some(last) if last.batch == batch && last.end == row => last.end = row + 1,
            _ => sorted.push(Piece { batch, start: row, end: row + 1 }),
        }
    }
}

/// Sorted rows, copied as they are asked for; from [`sort_batches`].
pub struct SortedRows {
    schema: SchemaRef,
    batches: Vec<RecordBatch>,
    /// Offsets of the bodies of each batch.
    bodies: Vec<OffsetBuffer<i32>>,
    pieces: Vec<Piece>,
    /// First piece that was not given out whole; its `start` moves.
    next: usize,
    taken: Vec<Piece>,
}

impl Iterator for SortedRows {
    type Item = RecordBatch;

    fn next(&mut self) -> Option<Self::Item> {
        self.taken.clear();
        let (mut rows, mut bytes) = (0, 0);
        while let Some(piece) = self.pieces.get_mut(self.next).filter(|_| rows < GRANULE_ROWS) {
            let offsets = &self.bodies[piece.batch as usize];
            let size = |end: u32| (offsets[end as usize] - offsets[piece.start as usize]) as usize;
            let most = piece.end.min(piece.start + (GRANULE_ROWS - rows) as u32);
            let mut end = most;
            if bytes + size(most) > BATCH_BYTES {
                let fits = |end: &u32| bytes + size(*end) <= BATCH_BYTES;
                let within: Vec<u32> = (piece.start + 1..=most).collect();
                end = piece.start + within.partition_point(fits) as u32;
                // One row is always taken.
                if end == piece.start {
                    if rows > 0 {
                        break;
                    }
                    end += 1;
                }
            }
            bytes += size(end);
            rows += (end - piece.start) as usize;
            self.taken.push(Piece { end, ..*piece });
            piece.start = end;
            if piece.start == piece.end {
                self.next += 1;
            }
        }
        if rows == 0 {
            return None;
        }
        // The columns were checked, and a batch of sorted rows is far below what offsets can tell.
        let copied = gather(&self.schema, &self.batches, &self.taken);
        Some(copied.unwrap_or_else(|error| panic!("BUG: sorted rows cannot be copied: {error}")))
    }
}

#[cfg(test)]
mod tests {
    use trine_model::TenantId;
    use trine_schema::{Labels, LogBatchBuilder, LogRecord};

    use super::*;

    #[test]
    fn batches_of_sorted_rows_end_early_when_lines_are_long() {
        let (registry, tenant) = (StreamRegistry::new(), TenantId::default());
        let streams = ["a", "b"]
            .map(|name| registry.intern(&tenant, Labels::from_pairs(&[("service.name", name)])).unwrap());
        // One line alone is longer than a batch; the others fit three at a time.
        let lengths = [10 << 20, 10 << 20, BATCH_BYTES + 1, 5, 10 << 20, 10 << 20, 10 << 20, 10 << 20];
        let mut builder = LogBatchBuilder::new(tenant, lengths.len(), 0);
        for (row, length) in lengths.iter().enumerate() {
            builder.body(&"x".repeat(*length));
            let stream = streams[row / 4];
            builder.push(&LogRecord { stream, timestamp: row as i64, ..LogRecord::default() }).unwrap();
        }
        let batch = builder.finish().records;
        let sorted: Vec<RecordBatch> = sort_batches(&[batch], &registry).unwrap().collect();
        assert_eq!(sorted.iter().map(RecordBatch::num_rows).collect::<Vec<_>>(), [2, 1, 4, 1]);
        let times: Vec<i64> = sorted.iter().flat_map(timestamps).copied().collect();
        assert_eq!(times, [0, 1, 2, 3, 4, 5, 6, 7]);
    }
}
