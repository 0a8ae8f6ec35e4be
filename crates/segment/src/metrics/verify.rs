//! Checking a whole segment of metrics: every block of the file, and the index against the samples.

use std::{ops::RangeInclusive, sync::Arc};

use trine_chunks::Block;

use super::{
    MetricSegment,
    histogram::{self, FLOATS_WITH_STARTS},
    index::{BlockPlace, MetricIndex},
    segment::meta_of,
    side::FrameKind,
};
use crate::{
    SegmentError,
    verify::{on_pool, verify_blocks},
};

const ALL_TIMES: RangeInclusive<i64> = i64::MIN..=i64::MAX;

/// Whether a run with this layout and so many columns is one of floats.
fn are_floats(layout: &[u8], columns: usize) -> bool {
    layout.is_empty() && columns == 1 || layout == FLOATS_WITH_STARTS && columns == 2
}

impl MetricSegment {
    /// Checks every block, the root, and the index against all samples. Runs on a thread of the scan pool for
    /// about a second per 200 million samples.
    pub async fn verify(self: &Arc<Self>) -> Result<(), SegmentError> {
        let segment = self.clone();
        on_pool(move || segment.check()).await
    }

    fn differs(&self, what: &str) -> SegmentError {
        self.file().corrupt(self.file().index().start, format!("the index does not fit: {what}"))
    }

    fn check(&self) -> Result<(), SegmentError> {
        verify_blocks(self.file(), self.meta())?;
        let index = self.load_once()?;
        let meta = self.meta();
        if meta_of(&index.totals, meta.file_bytes, meta.tail_offset, meta.root) != *meta {
            return Err(self.differs("rows, times or tenants of the catalog"));
        }
        let mut rows = 0;
        for block in &index.blocks {
            self.check_block(&block.place)?;
            rows += block.place.samples;
        }
        rows += self.check_frames(&index)?;
        if rows == index.totals.rows { Ok(()) } else { Err(self.differs("the number of rows")) }
    }

    fn check_block(&self, place: &BlockPlace) -> Result<(), SegmentError> {
        let damage = |error| self.damage(place.offset, error);
        let bytes = self.read(place.offset, 0..place.length as usize)?;
        let block = Block::parse(&bytes).map_err(damage)?;
        let (mut samples, mut runs, mut wrong) = (0, 0, None);
        let visit = |run: trine_chunks::Run<'_>| {
            samples += run.times.len() as u64;
            runs += 1;
            let inside = |time: Option<&i64>| time.is_some_and(|time| place.times.contains(time));
            let columns = run.columns().len();
            if place.in_file(run.series).is_none() {
                wrong = Some("a series of a block");
            } else if run.times.windows(2).any(|two| two[0] >= two[1])
                || !inside(run.times.first())
                || !inside(run.times.last())
            {
                wrong = Some("the times of a series");
            } else if !are_floats(run.layout, columns) {
                let values: Vec<f64> = run.columns().flatten().copied().collect();
                if histogram::read(run.layout, run.times.len(), &values).is_none() {
                    wrong = Some("the layout of a histogram");
                }
            }
        };
        block.reader().all(&ALL_TIMES, visit).map_err(damage)?;
        match wrong {
            None if (samples, runs) == (place.samples, place.runs) => Ok(()),
            None => Err(self.differs("the samples of a block")),
            Some(what) => Err(self.differs(what)),
        }
    }

    /// Rows of all frames.
    fn check_frames(&self, index: &MetricIndex) -> Result<u64, SegmentError> {
        let mut rows = 0;
        for place in &index.frames {
            let times: Vec<i64> = match place.kind {
                FrameKind::Exemplars => self.exemplars(place)?.iter().map(|row| row.time).collect(),
                FrameKind::Metadata => self.metadata_frame(place)?.iter().map(|row| row.time).collect(),
                FrameKind::Odd => self.odd(place)?.iter().map(|row| row.time).collect(),
            };
            if times.iter().any(|time| !place.times.contains(time)) {
                return Err(self.differs("the times of a frame"));
            }
            rows += times.len() as u64;
        }
        Ok(rows)
    }
}
