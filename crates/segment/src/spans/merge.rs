//! Several segments of spans become one.

use std::{io::Write, sync::Arc};

use arrow::{
    array::{AsArray, BooleanArray},
    compute::filter_record_batch,
    datatypes::TimestampNanosecondType,
};
use trine_schema::{StreamRegistry, spans::column};

use super::{SpanSegment, sort_spans, write_spans};
use crate::{SegmentError, SegmentMeta, WriteOptions};

/// Writes the spans of several segments to `out` in the order of one, those that started before
/// `keep_from_ns` left out; the caller syncs it. `None`, and nothing written, when none is left.
pub fn merge_spans<W: Write + Send>(
    segments: &[Arc<SpanSegment>],
    registry: &StreamRegistry,
    keep_from_ns: Option<i64>,
    options: &WriteOptions,
    out: W,
) -> Result<Option<SegmentMeta>, SegmentError> {
    let mut batches = Vec::new();
    for segment in segments {
        let loaded = segment.load_once()?;
        for number in 0..loaded.granules() {
            let batch = loaded.granule(number)?;
            let times = batch.column(column::TIMESTAMP).as_primitive::<TimestampNanosecondType>();
            let keep: BooleanArray =
                times.values().iter().map(|t| Some(keep_from_ns.is_none_or(|from| *t >= from))).collect();
            batches.push(filter_record_batch(&batch, &keep)?);
        }
    }
    let sorted = sort_spans(&batches, registry)?;
    if sorted.is_empty() {
        return Ok(None);
    }
    write_spans(out, registry, sorted, options).map(Some)
}
