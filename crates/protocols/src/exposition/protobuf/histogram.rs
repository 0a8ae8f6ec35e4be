//! Histograms of the protobuf format: classic buckets, native ones, or both.

use trine_schema::{BucketSpans, NativeHistogram, ResetHint};

use super::{ExpositionExemplar, Fault, Kind, MAX_BUCKETS, double, push, read_exemplar, timestamp, zigzag};
use crate::{
    native,
    wire::{Tag, Wire},
};

pub(super) struct Bucket {
    pub(super) bound: f64,
    pub(super) count: f64,
    pub(super) exemplar: Option<ExpositionExemplar>,
}

/// A histogram with what it has of both kinds.
#[derive(Default)]
pub(super) struct Histogram {
    count_whole: u64,
    pub(super) count_float: f64,
    pub(super) sum: f64,
    pub(super) start_ms: i64,
    pub(super) buckets: Vec<Bucket>,
    schema: i32,
    zero_threshold: f64,
    zero_whole: u64,
    zero_float: f64,
    negative: Side,
    positive: Side,
    exemplars: Vec<ExpositionExemplar>,
}

#[derive(Default)]
struct Side {
    spans: Vec<(i32, u32)>,
    deltas: Vec<i64>,
    counts: Vec<f64>,
}

impl Histogram {
    pub(super) fn read(mut wire: Wire<'_>) -> Result<Self, Fault> {
        let mut read = Self::default();
        while let Some(tag) = wire.tag()? {
            const COUNT: Tag = Tag::varint(1);
            const COUNT_FLOAT: Tag = Tag::fixed64(4);
            const SUM: Tag = Tag::fixed64(2);
            const BUCKET: Tag = Tag::bytes(3);
            const SCHEMA: Tag = Tag::varint(5);
            const ZERO_THRESHOLD: Tag = Tag::fixed64(6);
            const ZERO_COUNT: Tag = Tag::varint(7);
            const ZERO_COUNT_FLOAT: Tag = Tag::fixed64(8);
            const CREATED: Tag = Tag::bytes(15);
            const EXEMPLAR: Tag = Tag::bytes(16);
            match tag {
                COUNT => read.count_whole = wire.varint()?,
                COUNT_FLOAT => read.count_float = double(&mut wire)?,
                SUM => read.sum = double(&mut wire)?,
                BUCKET => push(&mut read.buckets, bucket(wire.message()?)?, MAX_BUCKETS, "buckets")?,
                SCHEMA => read.schema = zigzag(wire.varint()?) as i32,
                ZERO_THRESHOLD => read.zero_threshold = double(&mut wire)?,
                ZERO_COUNT => read.zero_whole = wire.varint()?,
                ZERO_COUNT_FLOAT => read.zero_float = double(&mut wire)?,
                CREATED => read.start_ms = timestamp(wire.message()?)?,
                EXEMPLAR => {
                    push(&mut read.exemplars, read_exemplar(wire.message()?)?, MAX_BUCKETS, "exemplars")?;
                }
                tag => {
                    if !read.negative.field(9, tag, &mut wire)? && !read.positive.field(12, tag, &mut wire)? {
                        wire.skip(tag)?;
                    }
                }
            }
        }
        Ok(read)
    }

    pub(super) fn count(&self) -> f64 {
        if self.count_float > 0.0 { self.count_float } else { self.count_whole as f64 }
    }

    /// A native histogram without observations says so by an empty span.
    pub(super) fn is_native(&self) -> bool {
        !self.positive.spans.is_empty()
            || !self.negative.spans.is_empty()
            || self.zero_threshold > 0.0
            || self.zero_whole > 0
    }

    /// The native part, and its exemplars: its own, else those of the classic buckets.
    pub(super) fn native(&self, kind: Kind) -> Result<(NativeHistogram, Vec<ExpositionExemplar>), Fault> {
        let floats = self.count_float > 0.0
            || self.zero_float > 0.0
            || !self.positive.counts.is_empty()
            || !self.negative.counts.is_empty();
        let mut histogram = NativeHistogram {
            reset_hint: if kind == Kind::GaugeHistogram { ResetHint::Gauge } else { ResetHint::Unknown },
            schema: self.schema,
            zero_threshold: self.zero_threshold,
            zero_count: if floats { self.zero_float } else { self.zero_whole as f64 },
            count: if floats { self.count_float } else { self.count_whole as f64 },
            sum: self.sum,
            positive: self.positive.spans(floats),
            negative: self.negative.spans(floats),
            custom_bounds: Vec::new(),
        };
        native::normalize(&mut histogram)?;
        let exemplars = if self.exemplars.is_empty() {
            self.buckets.iter().filter_map(|bucket| bucket.exemplar.clone()).collect()
        } else {
            self.exemplars.clone()
        };
        Ok((histogram, exemplars))
    }
}

impl Side {
    /// Takes a field when it is one of spans (`first`), deltas or counts (the two behind), packed or not.
    fn field(&mut self, first: u32, tag: Tag, wire: &mut Wire<'_>) -> Result<bool, Fault> {
        if tag == Tag::bytes(first) {
            let mut span = wire.message()?;
            let (mut offset, mut length) = (0, 0);
            while let Some(tag) = span.tag()? {
                const OFFSET: Tag = Tag::varint(1);
                const LENGTH: Tag = Tag::varint(2);
                match tag {
                    OFFSET => offset = zigzag(span.varint()?) as i32,
                    LENGTH => length = span.varint()? as u32,
                    _ => span.skip(tag)?,
                }
            }
            push(&mut self.spans, (offset, length), MAX_BUCKETS, "spans")?;
        } else if tag == Tag::bytes(first + 1) {
            let mut packed = wire.message()?;
            while !packed.rest().is_empty() {
                push(&mut self.deltas, zigzag(packed.varint()?), MAX_BUCKETS, "buckets")?;
            }
        } else if tag == Tag::varint(first + 1) {
            push(&mut self.deltas, zigzag(wire.varint()?), MAX_BUCKETS, "buckets")?;
        } else if tag == Tag::bytes(first + 2) {
            let mut packed = wire.message()?;
            while !packed.rest().is_empty() {
                push(&mut self.counts, double(&mut packed)?, MAX_BUCKETS, "buckets")?;
            }
        } else if tag == Tag::fixed64(first + 2) {
            push(&mut self.counts, double(wire)?, MAX_BUCKETS, "buckets")?;
        } else {
            return Ok(false);
        }
        Ok(true)
    }

    /// Spans without buckets are left out: they only say that the histogram is native.
    fn spans(&self, floats: bool) -> BucketSpans {
        let counts: Vec<f64> = if floats {
            self.counts.clone()
        } else {
            let running = self.deltas.iter().scan(0i64, |count, delta| {
                *count = count.saturating_add(*delta);
                Some(*count as f64)
            });
            running.collect()
        };
        let mut spans: Vec<(i32, u32)> = Vec::with_capacity(self.spans.len());
        let mut gap = 0i32;
        for (offset, length) in &self.spans {
            let offset = offset.saturating_add(gap);
            gap = if *length == 0 { offset } else { 0 };
            match spans.last_mut() {
                _ if *length == 0 => {}
                Some((_, before)) if offset == 0 => *before = before.saturating_add(*length),
                _ => spans.push((offset, *length)),
            }
        }
        BucketSpans { spans, counts }
    }
}

fn bucket(mut wire: Wire<'_>) -> Result<Bucket, Fault> {
    const COUNT: Tag = Tag::varint(1);
    const COUNT_FLOAT: Tag = Tag::fixed64(4);
    const BOUND: Tag = Tag::fixed64(2);
    const EXEMPLAR: Tag = Tag::bytes(3);
    let (mut whole, mut float) = (0, 0.0);
    let mut bucket = Bucket { bound: 0.0, count: 0.0, exemplar: None };
    while let Some(tag) = wire.tag()? {
        match tag {
            COUNT => whole = wire.varint()?,
            COUNT_FLOAT => float = double(&mut wire)?,
            BOUND => bucket.bound = double(&mut wire)?,
            EXEMPLAR => bucket.exemplar = Some(read_exemplar(wire.message()?)?),
            _ => wire.skip(tag)?,
        }
    }
    bucket.count = if float > 0.0 { float } else { whole as f64 };
    Ok(bucket)
}
