//! Merging sorted inputs for compaction.
//!
//! Inputs of a compaction mostly hold different times, so long stretches of one input follow each
//! other: whole runs are taken, found by binary search, and long runs are passed on as slices.

use std::{cmp::Ordering, sync::Arc};

use arrow::array::RecordBatch;
use hashbrown::HashMap;
use trine_schema::{Stream, StreamRef, StreamRegistry, logs};

use crate::{
    GRANULE_ROWS, SegmentError,
    compaction::SortedBatches,
    gather::{Piece, gather},
    write::{stream_refs, timestamps},
};

/// A run of at least so many rows is passed on as it is; shorter ones are copied together.
const SLICE_ROWS: usize = 512;

/// Merges inputs that are each sorted; rows of equal stream and time come in the order of the inputs.
/// Holds one batch per input and the batches that runs were taken from.
pub fn merge_sorted(
    inputs: Vec<SortedBatches>,
    registry: Arc<StreamRegistry>,
) -> impl Iterator<Item = Result<RecordBatch, SegmentError>> + Send {
    let heads = inputs.into_iter().map(|rows| Head { rows, batch: None, position: 0, slot: None }).collect();
    let mut merge = Merge {
        heads,
        registry,
        known: HashMap::new(),
        batches: vec![],
        pieces: vec![],
        rows: 0,
        waiting: None,
        started: false,
        failed: false,
    };
    std::iter::from_fn(move || {
        if merge.failed {
            return None;
        }
        let next = merge.next().transpose();
        merge.failed = matches!(next, Some(Err(_)));
        next
    })
}

/// Where one input stands.
struct Head {
    rows: SortedBatches,
    batch: Option<RecordBatch>,
    position: usize,
    /// Place of `batch` among the batches to copy from.
    slot: Option<usize>,
}

impl Head {
    /// Makes the current row available; `batch` is none at the end.
    fn load(&mut self) -> Result<(), SegmentError> {
        while self.batch.as_ref().is_none_or(|batch| self.position >= batch.num_rows()) {
            self.position = 0;
            self.slot = None;
            self.batch = self.rows.next().transpose()?;
            if self.batch.is_none() {
                break;
            }
        }
        Ok(())
    }

    fn key(&self) -> Option<(StreamRef, i64)> {
        let batch = self.batch.as_ref()?;
        Some((stream_refs(batch)[self.position], timestamps(batch)[self.position]))
    }
}

struct Merge {
    heads: Vec<Head>,
    registry: Arc<StreamRegistry>,
    known: HashMap<StreamRef, Arc<Stream>>,
    /// What pieces point into.
    batches: Vec<RecordBatch>,
    pieces: Vec<Piece>,
    rows: usize,
    /// A long run that comes after what was copied before it.
    waiting: Option<RecordBatch>,
    started: bool,
    failed: bool,
}

impl Merge {
    fn stream(&mut self, reference: StreamRef) -> Arc<Stream> {
        self.known.entry(reference).or_insert_with(|| self.registry.get(reference)).clone()
    }

    fn compare(&mut self, a: (StreamRef, i64), b: (StreamRef, i64)) -> Ordering {
        if a.0 == b.0 {
            return a.1.cmp(&b.1);
        }
        let (a, b) = (self.stream(a.0), self.stream(b.0));
        a.tenant.cmp(&b.tenant).then_with(|| a.service().cmp(b.service())).then_with(|| a.id.cmp(&b.id))
    }

    fn next(&mut self) -> Result<Option<RecordBatch>, SegmentError> {
        if !self.started {
            self.started = true;
            for head in &mut self.heads {
                head.load()?;
            }
        }
        loop {
            if let Some(waiting) = self.waiting.take() {
                return Ok(Some(waiting));
            }
            if self.rows >= GRANULE_ROWS {
                return self.copied();
            }
            // The least head and the least of the others; the earlier input wins a tie.
            let (mut least, mut second): (Option<usize>, Option<usize>) = (None, None);
            for position in 0..self.heads.len() {
                let Some(key) = self.heads[position].key() else { continue };
                let before =
                    |merge: &mut Self, other: Option<usize>| match other.and_then(|o| merge.heads[o].key()) {
                        Some(other) => merge.compare(key, other).is_lt(),
                        None => true,
                    };
                if before(self, least) {
                    second = least;
                    least = Some(position);
                } else if before(self, second) {
                    second = Some(position);
                }
            }
            let Some(least) = least else { return self.copied() };
            let end = self.run_end(least, second);
            if let Some(long) = self.take(least, end)? {
                let copied = self.copied()?;
                if copied.is_some() {
                    self.waiting = Some(long);
                    return Ok(copied);
                }
                return Ok(Some(long));
            }
        }
    }

    /// End of the rows of `least` that come before the next row of `second`.
    fn run_end(&mut self, least: usize, second: Option<usize>) -> usize {
        let head = &self.heads[least];
        let batch = head.batch.clone().expect("BUG: the least head has a batch");
        let (streams, times, start) = (stream_refs(&batch), timestamps(&batch), head.position);
        let Some((second, limit)) = second.and_then(|second| Some((second, self.heads[second].key()?)))
        else {
            return batch.num_rows();
        };
        let takes_ties = least < second;
        let mut row = start;
        while row < streams.len() {
            let stream = streams[row];
            // A stream stands in one run, so its end is found by halving.
            let stream_end = row + streams[row..].partition_point(|other| *other == stream);
            if stream == limit.0 {
                let before = |time: &i64| *time < limit.1 || (takes_ties && *time == limit.1);
                let end = row + times[row..stream_end].partition_point(before);
                return end.max(start + 1);
            }
            if self.compare((stream, 0), (limit.0, 0)).is_gt() {
                break;
            }
            row = stream_end;
        }
        row.max(start + 1)
    }

    /// Takes rows of a head: a long run is returned, a short one noted to be copied.
    fn take(&mut self, least: usize, end: usize) -> Result<Option<RecordBatch>, SegmentError> {
        let head = &mut self.heads[least];
        let batch = head.batch.clone().expect("BUG: the least head has a batch");
        let start = std::mem::replace(&mut head.position, end);
        let long = (end - start >= SLICE_ROWS).then(|| batch.slice(start, end - start));
        if long.is_none() {
            let slot = *head.slot.get_or_insert_with(|| {
                self.batches.push(batch);
                self.batches.len() - 1
            });
            self.pieces.push(Piece { batch: slot as u32, start: start as u32, end: end as u32 });
            self.rows += end - start;
        }
        self.heads[least].load()?;
        Ok(long)
    }

    /// The short runs so far as one batch.
    fn copied(&mut self) -> Result<Option<RecordBatch>, SegmentError> {
        if self.pieces.is_empty() {
            return Ok(None);
        }
        let batch = gather(&logs::schema(), &self.batches, &self.pieces)?;
        self.pieces.clear();
        self.batches.clear();
        self.rows = 0;
        self.heads.iter_mut().for_each(|head| head.slot = None);
        Ok(Some(batch))
    }
}
