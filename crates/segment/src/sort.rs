//! The order of rows in a segment.

use std::{cmp::Ordering, sync::Arc};

use arrow::array::RecordBatch;
use hashbrown::HashMap;
use trine_schema::{Stream, StreamRef, StreamRegistry, logs};

use crate::{
    GRANULE_ROWS, SegmentError,
    gather::{Piece, gather},
    write::{stream_refs, timestamps},
};

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
/// Rows are first dealt to their streams (a counting sort over runs of neighbouring rows), then each
/// stream is sorted by time, which costs little because rows mostly arrive in order.
pub fn sort_batches(
    batches: &[RecordBatch],
    registry: &StreamRegistry,
) -> Result<Vec<RecordBatch>, SegmentError> {
    let mut dealt: HashMap<StreamRef, Vec<Piece>> = HashMap::new();
    for (batch_index, batch) in batches.iter().enumerate() {
        let (streams, times) = (stream_refs(batch), timestamps(batch));
        let mut start = 0;
        while start < streams.len() {
            // A piece is a run of one stream whose times do not fall.
            let stream = streams[start];
            let mut end = start + 1;
            while end < streams.len() && streams[end] == stream && times[end] >= times[end - 1] {
                end += 1;
            }
            dealt.entry(stream).or_default().push(Piece { batch: batch_index, start, end });
            start = end;
        }
    }
    let mut order = StreamOrder::new(registry);
    let mut streams: Vec<StreamRef> = dealt.keys().copied().collect();
    streams.sort_unstable_by(|a, b| order.compare(*a, *b));
    let times: Vec<&[i64]> = batches.iter().map(timestamps).collect();
    let mut sorted: Vec<Piece> = Vec::new();
    for stream in streams {
        let pieces = dealt.remove(&stream).unwrap_or_default();
        let in_order = pieces
            .windows(2)
            .all(|two| times[two[0].batch][two[0].end - 1] <= times[two[1].batch][two[1].start]);
        if in_order {
            sorted.extend(pieces);
            continue;
        }
        let mut rows: Vec<(i64, usize, usize)> = Vec::new();
        for piece in &pieces {
            rows.extend((piece.start..piece.end).map(|row| (times[piece.batch][row], piece.batch, row)));
        }
        rows.sort_by_key(|(time, _, _)| *time);
        for (_, batch, row) in rows {
            match sorted.last_mut() {
                Some(last) if last.batch == batch && last.end == row && last.end > last.start => {
                    last.end = row + 1;
                }
                _ => sorted.push(Piece { batch, start: row, end: row + 1 }),
            }
        }
    }
    // Batches of one granule, so that the copies are freed as the writer goes on.
    let mut out = Vec::new();
    let (mut taken, mut rows) = (Vec::new(), 0);
    for mut piece in sorted {
        while piece.start < piece.end {
            let count = (piece.end - piece.start).min(GRANULE_ROWS - rows);
            taken.push(Piece { end: piece.start + count, ..piece });
            piece.start += count;
            rows += count;
            if rows == GRANULE_ROWS {
                out.push(gather(&logs::schema(), batches, &taken)?);
                taken.clear();
                rows = 0;
            }
        }
    }
    if rows > 0 {
        out.push(gather(&logs::schema(), batches, &taken)?);
    }
    Ok(out)
}
