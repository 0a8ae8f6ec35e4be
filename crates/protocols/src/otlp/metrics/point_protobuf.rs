//! Data points of all kinds in protobuf.

use std::borrow::Cow;

use trine_model::{SpanId, TraceId};
use trine_schema::NativeHistogram;

use super::{
    super::value,
    attributes::Attributes,
    point::{Buckets, Exemplar, Point, exemplar_labels},
};
use crate::{
    Limits,
    intake::{Fault, bad},
    wire::{Tag, Wire},
};

/// Every data point.
const START_TIME: Tag = Tag::fixed64(2);
const TIME: Tag = Tag::fixed64(3);
/// `NumberDataPoint`.
const AS_DOUBLE: Tag = Tag::fixed64(4);
const NUMBER_EXEMPLAR: Tag = Tag::bytes(5);
const AS_INT: Tag = Tag::fixed64(6);
const NUMBER_ATTRIBUTE: Tag = Tag::bytes(7);
const NUMBER_FLAGS: Tag = Tag::varint(8);
/// `HistogramDataPoint`, `SummaryDataPoint`, and `ExponentialHistogramDataPoint` as far as they agree.
const COUNT: Tag = Tag::fixed64(4);
const SUM: Tag = Tag::fixed64(5);
/// `HistogramDataPoint`.
const BUCKET_COUNTS: Tag = Tag::bytes(6);
const BUCKET_COUNT: Tag = Tag::fixed64(6);
const BOUNDS: Tag = Tag::bytes(7);
const BOUND: Tag = Tag::fixed64(7);
const HISTOGRAM_EXEMPLAR: Tag = Tag::bytes(8);
const HISTOGRAM_ATTRIBUTE: Tag = Tag::bytes(9);
const HISTOGRAM_FLAGS: Tag = Tag::varint(10);
/// `ExponentialHistogramDataPoint`.
const EXPONENTIAL_ATTRIBUTE: Tag = Tag::bytes(1);
const SCALE: Tag = Tag::varint(6);
const ZERO_COUNT: Tag = Tag::fixed64(7);
const POSITIVE: Tag = Tag::bytes(8);
const NEGATIVE: Tag = Tag::bytes(9);
const EXPONENTIAL_FLAGS: Tag = Tag::varint(10);
const EXPONENTIAL_EXEMPLAR: Tag = Tag::bytes(11);
const ZERO_THRESHOLD: Tag = Tag::fixed64(14);
/// `Buckets`.
const OFFSET: Tag = Tag::varint(1);
const COUNTS: Tag = Tag::bytes(2);
const ONE_COUNT: Tag = Tag::varint(2);
/// `SummaryDataPoint`.
const QUANTILE: Tag = Tag::bytes(6);
const SUMMARY_ATTRIBUTE: Tag = Tag::bytes(7);
const SUMMARY_FLAGS: Tag = Tag::varint(8);
/// `ValueAtQuantile`.
const QUANTILE_OF: Tag = Tag::fixed64(1);
const QUANTILE_VALUE: Tag = Tag::fixed64(2);
/// `Exemplar`.
const EXEMPLAR_TIME: Tag = Tag::fixed64(2);
const EXEMPLAR_DOUBLE: Tag = Tag::fixed64(3);
const EXEMPLAR_SPAN_ID: Tag = Tag::bytes(4);
const EXEMPLAR_TRACE_ID: Tag = Tag::bytes(5);
const EXEMPLAR_INT: Tag = Tag::fixed64(6);
const EXEMPLAR_ATTRIBUTE: Tag = Tag::bytes(7);

/// The attributes of a point, which are one piece of it unless the sender is odd.
struct Pieces<'a> {
    point: &'a [u8],
    field: Tag,
    start: usize,
    end: usize,
    /// Pieces apart from each other.
    scattered: Option<Vec<u8>>,
}

impl<'a> Pieces<'a> {
    fn new(field: Tag, point: Wire<'a>) -> Self {
        Self { point: point.rest(), field, start: 0, end: 0, scattered: None }
    }

    /// Passes over an attribute of which the tag was read; `before` was left to read before the tag.
    #[inline]
    fn take(&mut self, before: usize, wire: &mut Wire<'a>) -> Result<(), Fault> {
        wire.message()?;
        let (start, end) = (self.point.len() - before, self.point.len() - wire.rest().len());
        if self.end == 0 {
            self.start = start;
        } else if self.end != start || self.scattered.is_some() {
            let found = &self.point[self.start..self.end];
            let scattered = self.scattered.get_or_insert_with(|| found.to_vec());
            scattered.extend_from_slice(&self.point[start..end]);
        }
        self.end = end;
        Ok(())
    }

    fn attributes(self) -> Attributes<'a> {
        let bytes = match self.scattered {
            Some(bytes) => Cow::Owned(bytes),
            None => Cow::Borrowed(&self.point[self.start..self.end]),
        };
        Attributes::Protobuf(bytes, self.field)
    }
}

/// Refuses lists that would take too much memory.
fn push<T>(list: &mut Vec<T>, item: T) -> Result<(), Fault> {
    if list.len() >= NativeHistogram::MAX_BUCKETS {
        return Err(bad("the data point has more than 65536 buckets, quantiles or exemplars; send fewer"));
    }
    list.push(item);
    Ok(())
}

/// `NumberDataPoint`.
#[inline]
pub(super) fn number<'a>(
    point: &mut Point,
    mut wire: Wire<'a>,
    limits: &Limits,
) -> Result<Attributes<'a>, Fault> {
    let mut pieces = Pieces::new(NUMBER_ATTRIBUTE, wire);
    loop {
        let before = wire.rest().len();
        let Some(tag) = wire.tag()? else { return Ok(pieces.attributes()) };
        match tag {
            NUMBER_ATTRIBUTE => pieces.take(before, &mut wire)?,
            START_TIME => point.start = wire.fixed64()?,
            TIME => point.time = wire.fixed64()?,
            AS_DOUBLE => point.value = Some(f64::from_bits(wire.fixed64()?)),
            AS_INT => point.value = Some(wire.fixed64()? as i64 as f64),
            NUMBER_FLAGS => point.flags = wire.varint()?,
            NUMBER_EXEMPLAR => push(&mut point.exemplars, exemplar(wire.message()?, limits)?)?,
            _ => wire.skip(tag)?,
        }
    }
}

/// `HistogramDataPoint`.
pub(super) fn histogram<'a>(
    point: &mut Point,
    mut wire: Wire<'a>,
    limits: &Limits,
) -> Result<Attributes<'a>, Fault> {
    let mut pieces = Pieces::new(HISTOGRAM_ATTRIBUTE, wire);
    loop {
        let before = wire.rest().len();
        let Some(tag) = wire.tag()? else { return Ok(pieces.attributes()) };
        match tag {
            HISTOGRAM_ATTRIBUTE => pieces.take(before, &mut wire)?,
            START_TIME => point.start = wire.fixed64()?,
            TIME => point.time = wire.fixed64()?,
            COUNT => point.count = wire.fixed64()?,
            SUM => point.sum = Some(f64::from_bits(wire.fixed64()?)),
            BUCKET_COUNTS => {
                let mut packed = wire.message()?;
                while !packed.rest().is_empty() {
                    push(&mut point.bucket_counts, packed.fixed64()?)?;
                }
            }
            BUCKET_COUNT => push(&mut point.bucket_counts, wire.fixed64()?)?,
            BOUNDS => {
                let mut packed = wire.message()?;
                while !packed.rest().is_empty() {
                    push(&mut point.bounds, f64::from_bits(packed.fixed64()?))?;
                }
            }
            BOUND => push(&mut point.bounds, f64::from_bits(wire.fixed64()?))?,
            HISTOGRAM_FLAGS => point.flags = wire.varint()?,
            HISTOGRAM_EXEMPLAR => push(&mut point.exemplars, exemplar(wire.message()?, limits)?)?,
            _ => wire.skip(tag)?,
        }
    }
}

/// `ExponentialHistogramDataPoint`.
pub(super) fn exponential<'a>(
    point: &mut Point,
    mut wire: Wire<'a>,
    limits: &Limits,
) -> Result<Attributes<'a>, Fault> {
    let mut pieces = Pieces::new(EXPONENTIAL_ATTRIBUTE, wire);
    loop {
        let before = wire.rest().len();
        let Some(tag) = wire.tag()? else { return Ok(pieces.attributes()) };
        match tag {
            EXPONENTIAL_ATTRIBUTE => pieces.take(before, &mut wire)?,
            START_TIME => point.start = wire.fixed64()?,
            TIME => point.time = wire.fixed64()?,
            COUNT => point.count = wire.fixed64()?,
            SUM => point.sum = Some(f64::from_bits(wire.fixed64()?)),
            SCALE => point.scale = wire.zigzag()? as i32,
            ZERO_COUNT => point.zero_count = wire.fixed64()?,
            POSITIVE => buckets(&mut point.positive, wire.message()?)?,
            NEGATIVE => buckets(&mut point.negative, wire.message()?)?,
            EXPONENTIAL_FLAGS => point.flags = wire.varint()?,
            EXPONENTIAL_EXEMPLAR => push(&mut point.exemplars, exemplar(wire.message()?, limits)?)?,
            ZERO_THRESHOLD => point.zero_threshold = f64::from_bits(wire.fixed64()?),
            _ => wire.skip(tag)?,
        }
    }
}

fn buckets(buckets: &mut Buckets, mut wire: Wire<'_>) -> Result<(), Fault> {
    while let Some(tag) = wire.tag()? {
        match tag {
            OFFSET => buckets.offset = wire.zigzag()? as i32,
            COUNTS => {
                let mut packed = wire.message()?;
                while !packed.rest().is_empty() {
                    push(&mut buckets.counts, packed.varint()?)?;
                }
            }
            ONE_COUNT => push(&mut buckets.counts, wire.varint()?)?,
            _ => wire.skip(tag)?,
        }
    }
    Ok(())
}

/// `SummaryDataPoint`.
pub(super) fn summary<'a>(point: &mut Point, mut wire: Wire<'a>) -> Result<Attributes<'a>, Fault> {
    let mut pieces = Pieces::new(SUMMARY_ATTRIBUTE, wire);
    loop {
        let before = wire.rest().len();
        let Some(tag) = wire.tag()? else { return Ok(pieces.attributes()) };
        match tag {
            SUMMARY_ATTRIBUTE => pieces.take(before, &mut wire)?,
            START_TIME => point.start = wire.fixed64()?,
            TIME => point.time = wire.fixed64()?,
            COUNT => point.count = wire.fixed64()?,
            SUM => point.sum = Some(f64::from_bits(wire.fixed64()?)),
            QUANTILE => {
                let (mut pair, mut bytes) = ((0.0, 0.0), wire.message()?);
                while let Some(tag) = bytes.tag()? {
                    match tag {
                        QUANTILE_OF => pair.0 = f64::from_bits(bytes.fixed64()?),
                        QUANTILE_VALUE => pair.1 = f64::from_bits(bytes.fixed64()?),
                        _ => bytes.skip(tag)?,
                    }
                }
                push(&mut point.quantiles, pair)?;
            }
            SUMMARY_FLAGS => point.flags = wire.varint()?,
            _ => wire.skip(tag)?,
        }
    }
}

fn exemplar(mut wire: Wire<'_>, limits: &Limits) -> Result<Exemplar, Fault> {
    let (mut pairs, mut time, mut value) = (Vec::new(), 0, 0.0);
    let (mut trace_id, mut span_id) = (None, None);
    let mut buffer = String::new();
    while let Some(tag) = wire.tag()? {
        match tag {
            EXEMPLAR_TIME => time = wire.fixed64()?,
            EXEMPLAR_DOUBLE => value = f64::from_bits(wire.fixed64()?),
            EXEMPLAR_INT => value = wire.fixed64()? as i64 as f64,
            EXEMPLAR_SPAN_ID => span_id = SpanId::from_bytes(wire.bytes()?).ok(),
            EXEMPLAR_TRACE_ID => trace_id = TraceId::from_bytes(wire.bytes()?).ok(),
            EXEMPLAR_ATTRIBUTE => {
                let (key, text) = value::pair(wire.message()?, &mut buffer, limits.max_depth)?;
                // One more than allowed is enough to know.
                if pairs.len() <= limits.max_attributes_per_record {
                    pairs.push((key.into(), text.into()));
                }
            }
            _ => wire.skip(tag)?,
        }
    }
    Ok(Exemplar { time, value, labels: exemplar_labels(pairs, trace_id, span_id, limits)? })
}
