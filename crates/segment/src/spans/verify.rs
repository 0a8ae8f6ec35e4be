//! Checking a whole segment of spans: every block, the root, and the index against the rows.

use std::sync::Arc;

use arrow::{
    array::{Array, AsArray, RecordBatch},
    compute::{max, min},
    datatypes::{Int64Type, TimestampNanosecondType, UInt8Type},
};
use trine_body::TraceIdBloom;
use trine_schema::spans::column;

use super::{SpanSegment, filter::trace_id, index::Granule, read::LoadedSpans};
use crate::{
    SegmentError,
    verify::{on_pool, verify_blocks},
    write::stream_refs,
};

impl SpanSegment {
    /// Checks every block, the root, and the index against the rows. Runs on a thread of the scan pool.
    pub async fn verify(self: &Arc<Self>) -> Result<(), SegmentError> {
        let segment = self.clone();
        on_pool(move || {
            verify_blocks(&segment.file, segment.meta())?;
            let loaded = segment.load_once()?;
            for (number, granule) in loaded.index.granules.iter().enumerate() {
                loaded.check(number, granule, &loaded.granule(number)?)?;
            }
            Ok(())
        })
        .await
    }
}

impl LoadedSpans {
    /// The index of a granule against its rows.
    fn check(&self, number: usize, granule: &Granule, batch: &RecordBatch) -> Result<(), SegmentError> {
        let differs = |what: &str| {
            let what = format!("the index does not fit granule {number}: {what}");
            Err(self.file.corrupt(self.file.index().start, what))
        };
        let times = batch.column(column::TIMESTAMP).as_primitive::<TimestampNanosecondType>();
        if (min(times), max(times)) != (Some(granule.min), Some(granule.max)) {
            return differs("its times");
        }
        let durations = batch.column(column::DURATION).as_primitive::<Int64Type>();
        if max(durations) != Some(granule.longest) {
            return differs("its longest span");
        }
        let codes = batch.column(column::STATUS_CODE).as_primitive::<UInt8Type>().values();
        if codes.iter().fold(0, |all, code| all | 1 << code.min(&7)) != granule.statuses {
            return differs("its status codes");
        }
        let named = |streams: &[u32]| {
            let mut found: Vec<u32> = streams.to_vec();
            found.sort_unstable();
            found.dedup();
            found
        };
        let known: Vec<u32> = granule.streams.iter().map(|stream| self.streams[*stream as usize]).collect();
        if named(stream_refs(batch)) != named(&known) {
            return differs("its streams");
        }
        let names = batch.column(column::OPERATION).as_string::<i32>();
        let mut found: Vec<&str> = names.iter().flatten().collect();
        found.sort_unstable();
        found.dedup();
        let mut known: Vec<&str> = granule
            .operations
            .iter()
            .map(|number| self.index.operations[*number as usize].as_str())
            .collect();
        known.sort_unstable();
        if found != known {
            return differs("its operations");
        }
        let ids = batch.column(column::TRACE_ID).as_fixed_size_binary();
        if !(0..ids.len()).all(|row| TraceIdBloom::may_contain(&granule.traces, &trace_id(ids, row).0)) {
            return differs("the filter denies a trace id");
        }
        Ok(())
    }
}
