//! Checking a whole segment: every block, the root, and the index against the rows.

use std::sync::Arc;

use arrow::{
    array::{Array, AsArray, RecordBatch},
    datatypes::UInt8Type,
};
use futures::channel::oneshot;
use parquet::arrow::{ProjectionMask, arrow_reader::ParquetRecordBatchReaderBuilder};
use trine_body::TraceIdBloom;
use trine_schema::logs::column;

use crate::{
    GRANULE_ROWS, Segment, SegmentError, SegmentHandle, SegmentMeta,
    blocks::{BLOCK_BYTES, BlockTable},
    columns::stored,
    file::SegmentFile,
    index::{LEVELS, MARK_ROWS, MINUTE_NS, Minute, minutes, span},
    pool,
    write::{level_of, timestamps},
};

/// Blocks that are read at once.
const STEP_BLOCKS: u64 = 64;

/// Runs checks on the scan pool.
pub(crate) async fn on_pool(
    checks: impl FnOnce() -> Result<(), SegmentError> + Send + 'static,
) -> Result<(), SegmentError> {
    let (sender, receiver) = oneshot::channel();
    pool::spawn(move || {
        let _ = sender.send(checks());
    });
    let stopped = |_| SegmentError::Contract("checking a segment panicked; see the log".into());
    receiver.await.map_err(stopped)?
}

/// Checks every block of the data against its hash, and the tail against the root.
pub(crate) fn verify_blocks(file: &SegmentFile, meta: &SegmentMeta) -> Result<(), SegmentError> {
    let tail = file.read_tail(meta.tail_offset, &meta.root)?;
    let table = BlockTable::parse(tail.bytes())
        .map_err(|bad| file.corrupt(meta.tail_offset, format!("{} cannot be read", bad.0)))?;
    let step = STEP_BLOCKS * BLOCK_BYTES as u64;
    let mut start = 0;
    while start < meta.tail_offset {
        let end = (start + step).min(meta.tail_offset);
        let (_, bytes) = file.read_blocks(start..end)?;
        for (number, block) in bytes.chunks(BLOCK_BYTES).enumerate() {
            let position = (start / BLOCK_BYTES as u64) as usize + number;
            if *blake3::hash(block).as_bytes() != table.hashes[position] {
                let at = (position * BLOCK_BYTES) as u64;
                return Err(file.corrupt(at, "a 64 KiB block does not have its hash".into()));
            }
        }
        start = end;
    }
    Ok(())
}

impl SegmentHandle {
    /// [`Segment::verify`], the index read for it where it is not in memory.
    pub async fn verify(self: &Arc<Self>) -> Result<(), SegmentError> {
        let handle = self.clone();
        on_pool(move || handle.load_once()?.check()).await
    }
}

impl Segment {
    /// Checks every block, the root, and the index against the rows. Runs on a thread of the scan
    /// pool for seconds per GB of raw text.
    pub async fn verify(self: &Arc<Self>) -> Result<(), SegmentError> {
        let segment = self.clone();
        on_pool(move || segment.check()).await
    }

    fn check(self: &Arc<Self>) -> Result<(), SegmentError> {
        verify_blocks(&self.file, self.meta())?;
        self.verify_streams()?;
        self.verify_rows()
    }

    fn differs(&self, row: u32, what: &str) -> SegmentError {
        let offset = self.meta().tail_offset;
        self.file.corrupt(offset, format!("the index does not fit row {row}: {what}"))
    }

    /// Tenant and labels of each row against the stream directory.
    fn verify_streams(&self) -> Result<(), SegmentError> {
        let reader = self.reader();
        let mask = ProjectionMask::roots(self.parquet.parquet_schema(), [stored::TENANT, stored::LABELS]);
        let batches =
            ParquetRecordBatchReaderBuilder::new_with_metadata(reader.clone(), self.parquet.clone())
                .with_projection(mask)
                .with_batch_size(GRANULE_ROWS)
                .build()
                .map_err(|error| reader.error(0, &error))?;
        let (mut row, mut position) = (0u32, 0);
        for batch in batches {
            let batch = batch.map_err(|error| reader.error(0, &error))?;
            let (tenants, labels) = (batch.column(0).as_string::<i32>(), batch.column(1).as_string::<i32>());
            for at in 0..batch.num_rows() {
                while self.index.streams.get(position).is_some_and(|entry| entry.rows.end <= row) {
                    position += 1;
                }
                let Some(entry) = self.index.streams.get(position) else {
                    return Err(self.differs(row, "there are more rows than the index names"));
                };
                let name = &self.index.names[entry.name as usize];
                let tenant = &self.index.tenants[name.tenant as usize];
                if tenants.value(at) != tenant || labels.value(at) != &*name.labels {
                    return Err(self.differs(row, "another stream"));
                }
                row += 1;
            }
        }
        if row == self.index.rows { Ok(()) } else { Err(self.differs(row, "rows are missing")) }
    }

    /// Times, levels, trace filters, marks, roll-ups and body sizes against the rows.
    fn verify_rows(self: &Arc<Self>) -> Result<(), SegmentError> {
        let mut check =
            RowCheck { segment: self, row: 0, stream: 0, minutes: Vec::new(), last: i64::MIN, raw_bytes: 0 };
        for (batch, granule) in self.batches().zip(&self.index.granules) {
            check.granule(&batch?, granule)?;
        }
        if check.raw_bytes == self.index.raw_bytes {
            Ok(())
        } else {
            Err(self.differs(check.row, "another number of bytes of bodies"))
        }
    }
}

struct RowCheck<'a> {
    segment: &'a Segment,
    row: u32,
    /// Position of the open stream.
    stream: usize,
    minutes: Vec<Minute>,
    last: i64,
    raw_bytes: u64,
}

impl RowCheck<'_> {
    fn granule(&mut self, batch: &RecordBatch, granule: &crate::index::Granule) -> Result<(), SegmentError> {
        let severities = batch.column(column::SEVERITY_NUMBER).as_primitive::<UInt8Type>().values();
        let traces = batch.column(column::TRACE_ID).as_fixed_size_binary();
        let (mut min, mut max, mut levels) = (i64::MAX, i64::MIN, 0u8);
        for (at, time) in timestamps(batch).iter().enumerate() {
            let level = level_of(severities[at]) as usize;
            self.time(*time, level)?;
            (min, max) = (min.min(*time), max.max(*time));
            levels |= 1 << level;
            if let Some(id) = traces.is_valid(at).then(|| traces.value(at))
                && let Ok(id) = <&[u8; 16]>::try_from(id)
                && !TraceIdBloom::may_contain(&granule.traces, id)
            {
                return Err(self.segment.differs(self.row, "the filter denies its trace id"));
            }
            self.row += 1;
        }
        if (min, max, levels) != (granule.min, granule.max, granule.levels) {
            return Err(self.segment.differs(self.row, "times or levels of its granule"));
        }
        let offsets = batch.column(column::BODY).as_string::<i32>().value_offsets();
        self.raw_bytes += (offsets[batch.num_rows()] - offsets[0]) as u64;
        Ok(())
    }

    fn time(&mut self, time: i64, level: usize) -> Result<(), SegmentError> {
        let index = &self.segment.index;
        let entry = &index.streams[self.stream];
        let first = self.row == entry.rows.start;
        if (first && time != entry.min) || (!first && time < self.last) {
            return Err(self.segment.differs(self.row, "the times of its stream"));
        }
        self.last = time;
        let (base, marks) = index.marks_of(entry);
        let in_run = self.row - base;
        if in_run.is_multiple_of(MARK_ROWS) && marks[(in_run / MARK_ROWS) as usize] != time {
            return Err(self.segment.differs(self.row, "its time mark"));
        }
        let minute = time.div_euclid(MINUTE_NS);
        if self.minutes.last().is_none_or(|last| last.number != minute) {
            self.minutes.push(Minute { number: minute, counts: [0; LEVELS], starts: [0; LEVELS] });
        }
        if let Some(open) = self.minutes.last_mut() {
            open.counts[level] += 1;
            open.starts[level] += u32::from(time == span(minute, MINUTE_NS).0);
        }
        if self.row + 1 == entry.rows.end {
            let kept: Result<Vec<_>, _> = minutes(&entry.rollup).collect();
            let fits = entry.rollup.is_empty() || kept.is_ok_and(|kept| kept == self.minutes);
            if time != entry.max || !fits {
                return Err(self.segment.differs(self.row, "the roll-up of its stream"));
            }
            self.minutes.clear();
            self.stream += 1;
        }
        Ok(())
    }
}
