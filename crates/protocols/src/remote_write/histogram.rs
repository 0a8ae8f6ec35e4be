//! `Histogram`, which is the same message in both versions, but for the start time of version 2.

use trine_schema::{BucketSpans, MetricBatchBuilder, NativeHistogram, ResetHint, StreamRef};

use crate::{
    intake::{Fault, Intake, bad},
    native,
    wire::{Tag, Wire},
};

const COUNT_INT: Tag = Tag::varint(1);
const COUNT_FLOAT: Tag = Tag::fixed64(2);
const SUM: Tag = Tag::fixed64(3);
const SCHEMA: Tag = Tag::varint(4);
const ZERO_THRESHOLD: Tag = Tag::fixed64(5);
const ZERO_COUNT_INT: Tag = Tag::varint(6);
const ZERO_COUNT_FLOAT: Tag = Tag::fixed64(7);
const NEGATIVE_SPAN: Tag = Tag::bytes(8);
const NEGATIVE_DELTAS: Tag = Tag::bytes(9);
const NEGATIVE_DELTA: Tag = Tag::varint(9);
const NEGATIVE_COUNTS: Tag = Tag::bytes(10);
const NEGATIVE_COUNT: Tag = Tag::fixed64(10);
const POSITIVE_SPAN: Tag = Tag::bytes(11);
const POSITIVE_DELTAS: Tag = Tag::bytes(12);
const POSITIVE_DELTA: Tag = Tag::varint(12);
const POSITIVE_COUNTS: Tag = Tag::bytes(13);
const POSITIVE_COUNT: Tag = Tag::fixed64(13);
const RESET_HINT: Tag = Tag::varint(14);
const TIMESTAMP: Tag = Tag::varint(15);
const CUSTOM_VALUES: Tag = Tag::bytes(16);
const CUSTOM_VALUE: Tag = Tag::fixed64(16);
const START_TIMESTAMP: Tag = Tag::varint(17);
/// `BucketSpan`.
const OFFSET: Tag = Tag::varint(1);
const LENGTH: Tag = Tag::varint(2);

/// One side on the wire: its counts come as differences of integers, or as floats.
#[derive(Default)]
struct Side {
    spans: Vec<(i32, u32)>,
    deltas: Vec<i64>,
    counts: Vec<f64>,
}

impl Side {
    /// The buckets, and the observations in them when they are integers.
    fn buckets(self, integers: bool) -> Result<(BucketSpans, i128), Fault> {
        if !integers {
            return Ok((BucketSpans { spans: self.spans, counts: self.counts }, 0));
        }
        let (mut count, mut sum) = (0i64, 0);
        let mut counts = Vec::with_capacity(self.deltas.len());
        for delta in self.deltas {
            count = count.checked_add(delta).ok_or_else(|| bad("a bucket of a histogram overflows"))?;
            sum += i128::from(count);
            counts.push(count as f64);
        }
        Ok((BucketSpans { spans: self.spans, counts }, sum))
    }
}

/// Refuses lists that could not be read back.
fn push<T>(list: &mut Vec<T>, item: T) -> Result<(), Fault> {
    if list.len() >= NativeHistogram::MAX_BUCKETS {
        return Err(bad("a histogram has more than 65536 buckets; lower its resolution"));
    }
    list.push(item);
    Ok(())
}

fn doubles(list: &mut Vec<f64>, mut packed: Wire<'_>) -> Result<(), Fault> {
    while !packed.rest().is_empty() {
        push(list, f64::from_bits(packed.fixed64()?))?;
    }
    Ok(())
}

fn deltas(list: &mut Vec<i64>, mut packed: Wire<'_>) -> Result<(), Fault> {
    while !packed.rest().is_empty() {
        push(list, packed.zigzag()?)?;
    }
    Ok(())
}

fn span(list: &mut Vec<(i32, u32)>, mut wire: Wire<'_>) -> Result<(), Fault> {
    let (mut offset, mut length) = (0, 0);
    while let Some(tag) = wire.tag()? {
        match tag {
            OFFSET => offset = wire.zigzag()? as i32,
            LENGTH => length = wire.varint()? as u32,
            _ => wire.skip(tag)?,
        }
    }
    push(list, (offset, length))
}

/// Decodes a histogram of a series.
pub(super) fn histogram(
    intake: &mut Intake<'_, MetricBatchBuilder>,
    series: StreamRef,
    mut wire: Wire<'_>,
) -> Result<(), Fault> {
    intake.check_length(wire.rest().len())?;
    let mut out = NativeHistogram::default();
    let (mut positive, mut negative) = (Side::default(), Side::default());
    let (mut count, mut zero_count) = (Some(0), 0);
    let (mut at_ms, mut start_ms) = (0, 0);
    while let Some(tag) = wire.tag()? {
        match tag {
            COUNT_INT => count = Some(wire.varint()?),
            COUNT_FLOAT => {
                count = None;
                out.count = f64::from_bits(wire.fixed64()?);
            }
            SUM => out.sum = f64::from_bits(wire.fixed64()?),
            SCHEMA => out.schema = wire.zigzag()? as i32,
            ZERO_THRESHOLD => out.zero_threshold = f64::from_bits(wire.fixed64()?),
            ZERO_COUNT_INT => zero_count = wire.varint()?,
            ZERO_COUNT_FLOAT => out.zero_count = f64::from_bits(wire.fixed64()?),
            NEGATIVE_SPAN => span(&mut negative.spans, wire.message()?)?,
            NEGATIVE_DELTAS => deltas(&mut negative.deltas, wire.message()?)?,
            NEGATIVE_DELTA => push(&mut negative.deltas, wire.zigzag()?)?,
            NEGATIVE_COUNTS => doubles(&mut negative.counts, wire.message()?)?,
            NEGATIVE_COUNT => push(&mut negative.counts, f64::from_bits(wire.fixed64()?))?,
            POSITIVE_SPAN => span(&mut positive.spans, wire.message()?)?,
            POSITIVE_DELTAS => deltas(&mut positive.deltas, wire.message()?)?,
            POSITIVE_DELTA => push(&mut positive.deltas, wire.zigzag()?)?,
            POSITIVE_COUNTS => doubles(&mut positive.counts, wire.message()?)?,
            POSITIVE_COUNT => push(&mut positive.counts, f64::from_bits(wire.fixed64()?))?,
            RESET_HINT => {
                out.reset_hint = match wire.varint()? {
                    1 => ResetHint::Reset,
                    2 => ResetHint::NotReset,
                    3 => ResetHint::Gauge,
                    _ => ResetHint::Unknown,
                };
            }
            TIMESTAMP => at_ms = wire.varint()? as i64,
            CUSTOM_VALUES => doubles(&mut out.custom_bounds, wire.message()?)?,
            CUSTOM_VALUE => push(&mut out.custom_bounds, f64::from_bits(wire.fixed64()?))?,
            START_TIMESTAMP => start_ms = wire.varint()? as i64,
            _ => wire.skip(tag)?,
        }
    }
    let (positive, above) = positive.buckets(count.is_some())?;
    let (negative, below) = negative.buckets(count.is_some())?;
    (out.positive, out.negative) = (positive, negative);
    if let Some(count) = count {
        (out.count, out.zero_count) = (count as f64, zero_count as f64);
        native::check_count(above + below + i128::from(zero_count), count, out.sum)?;
    }
    native::normalize(&mut out)?;
    intake.histogram(series, at_ms, &out, start_ms)
}
