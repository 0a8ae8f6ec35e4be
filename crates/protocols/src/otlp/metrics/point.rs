//! A data point as both encodings bring it, and the native histogram that an exponential one becomes.

use trine_model::{SpanId, TraceId};
use trine_schema::{BucketSpans, Labels, NativeHistogram, metrics::STALE_NAN};

use crate::{
    Limits,
    intake::{Fault, Reason, bad, check_labels},
    native::{self, SideWriter},
};

/// `DataPointFlags`: the series has no value here, as it ended.
const NO_RECORDED_VALUE: u64 = 1;

/// Half width of the zero bucket where the sender did not say, as Prometheus' OTLP receiver sets it.
const DEFAULT_ZERO_THRESHOLD: f64 = 1e-128;

/// Empty buckets up to this many in a row are written rather than passed over by a span of their own.
const SMALL_GAP: i64 = 2;

/// Fields of all kinds of points; reused from point to point.
#[derive(Debug, Default)]
pub(super) struct Point {
    pub(super) time: u64,
    pub(super) start: u64,
    pub(super) flags: u64,
    /// Of a gauge or a sum.
    pub(super) value: Option<f64>,
    pub(super) count: u64,
    pub(super) sum: Option<f64>,
    /// Of an explicit histogram.
    pub(super) bucket_counts: Vec<u64>,
    pub(super) bounds: Vec<f64>,
    /// Of an exponential histogram.
    pub(super) scale: i32,
    pub(super) zero_count: u64,
    pub(super) zero_threshold: f64,
    pub(super) positive: Buckets,
    pub(super) negative: Buckets,
    /// Of a summary: quantiles and their values.
    pub(super) quantiles: Vec<(f64, f64)>,
    pub(super) exemplars: Vec<Exemplar>,
}

/// One side of an exponential histogram: bucket `offset + i` counts values above `base^(offset + i)`.
#[derive(Debug, Default)]
pub(super) struct Buckets {
    pub(super) offset: i32,
    pub(super) counts: Vec<u64>,
}

#[derive(Debug, Default)]
pub(super) struct Exemplar {
    pub(super) time: u64,
    pub(super) value: f64,
    pub(super) labels: Labels,
}

/// Labels of an exemplar: its ids, and the attributes that its series does not have.
pub(super) fn exemplar_labels(
    mut pairs: Vec<(Box<str>, Box<str>)>,
    trace_id: Option<TraceId>,
    span_id: Option<SpanId>,
    limits: &Limits,
) -> Result<Labels, Fault> {
    let ids =
        [("trace_id", trace_id.map(|id| id.to_string())), ("span_id", span_id.map(|id| id.to_string()))];
    for (name, id) in ids {
        if let Some(id) = id {
            pairs.retain(|(key, _)| &**key != name);
            pairs.push((name.into(), id.into()));
        }
    }
    if pairs.len() > limits.max_attributes_per_record {
        let limit = limits.max_attributes_per_record;
        return Err(Fault::Record(Reason::from(format!(
            "an exemplar has more than {limit} attributes; send fewer"
        ))));
    }
    check_labels(&pairs, limits, "shorten it")?;
    Ok(Labels::new(pairs)?)
}

impl Point {
    pub(super) fn clear(&mut self) {
        (self.time, self.start, self.flags) = (0, 0, 0);
        (self.value, self.sum) = (None, None);
        (self.count, self.zero_count, self.zero_threshold, self.scale) = (0, 0, 0.0, 0);
        (self.positive.offset, self.negative.offset) = (0, 0);
        for list in [&mut self.bucket_counts, &mut self.positive.counts, &mut self.negative.counts] {
            list.clear();
        }
        self.bounds.clear();
        self.quantiles.clear();
        self.exemplars.clear();
    }

    /// Whether it only says that the series ended.
    pub(super) fn is_stale(&self) -> bool {
        self.flags & NO_RECORDED_VALUE != 0
    }

    /// Bounds of an explicit histogram without `+Inf`, each with the count of its own bucket.
    pub(super) fn explicit(&self) -> Result<impl Iterator<Item = (f64, u64)>, Fault> {
        let bounds = match &self.bounds[..] {
            [bounds @ .., last] if *last == f64::INFINITY => bounds,
            bounds => bounds,
        };
        if bounds.iter().any(|bound| bound.is_nan()) || bounds.windows(2).any(|two| two[0] >= two[1]) {
            return Err(bad("explicit_bounds are not ascending numbers; sort them"));
        }
        if !self.bucket_counts.is_empty() && self.bucket_counts.len() <= bounds.len() {
            let (counts, bounds) = (self.bucket_counts.len(), bounds.len());
            return Err(Fault::Record(Reason::from(format!(
                "the histogram has {counts} bucket_counts for {bounds} explicit_bounds; send one more"
            ))));
        }
        Ok(bounds.iter().copied().zip(self.bucket_counts.iter().copied()))
    }

    /// An exponential histogram as a native one (specification, "Exponential Histograms").
    pub(super) fn native(&self) -> Result<NativeHistogram, Fault> {
        let mut out = NativeHistogram { schema: self.scale.min(native::MAX_SCHEMA), ..Default::default() };
        if self.scale < native::MIN_SCHEMA {
            return Err(Fault::Record(Reason::from(format!(
                "scale {} of an exponential histogram is below {}; use finer buckets",
                self.scale,
                native::MIN_SCHEMA
            ))));
        }
        let given = self.zero_threshold;
        if given.is_nan() || given < 0.0 {
            return Err(bad("zero_threshold is not 0 or more; send the half width of the zero bucket"));
        }
        out.zero_threshold = if given == 0.0 { DEFAULT_ZERO_THRESHOLD } else { given };
        if self.is_stale() {
            out.sum = f64::from_bits(STALE_NAN);
            return Ok(out);
        }
        out.sum = self.sum.unwrap_or(0.0);
        (out.count, out.zero_count) = (self.count as f64, self.zero_count as f64);
        let steps = (i64::from(self.scale) - i64::from(native::MAX_SCHEMA)).max(0) as u32;
        out.positive = side(&self.positive, steps)?;
        out.negative = side(&self.negative, steps)?;
        let counts = self.positive.counts.iter().chain(&self.negative.counts);
        let found = counts.map(|count| i128::from(*count)).sum::<i128>() + i128::from(self.zero_count);
        native::check_count(found, self.count, out.sum)?;
        Ok(out)
    }
}

/// Buckets with `2^steps` merged into one. OTLP's bucket `i` ends where Prometheus' bucket `i + 1` does.
fn side(buckets: &Buckets, steps: u32) -> Result<BucketSpans, Fault> {
    let mut out = SideWriter::default();
    let mut last = i64::MAX;
    for (at, count) in buckets.counts.iter().enumerate() {
        if *count == 0 {
            continue;
        }
        let index = native::target(i64::from(buckets.offset) + at as i64 + 1, steps);
        if index.abs() >= i64::from(i32::MAX) {
            return Err(bad(
                "a bucket of an exponential histogram lies beyond all numbers; check its offset",
            ));
        }
        if last < index && index - last - 1 <= SMALL_GAP {
            (last + 1..index).for_each(|empty| out.push(empty, 0.0));
        }
        out.push(index, *count as f64);
        last = index;
    }
    Ok(out.side)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn native(scale: i32, offset: i32, counts: &[u64]) -> NativeHistogram {
        let positive = Buckets { offset, counts: counts.to_vec() };
        let count = counts.iter().sum();
        Point { scale, count, sum: Some(1.0), positive, ..Point::default() }.native().unwrap()
    }

    #[test]
    fn exponential_buckets_move_up_by_one_and_merge_beyond_scale_8() {
        let plain = native(3, -2, &[1, 2, 0, 0, 3, 0, 0, 0, 4]);
        assert_eq!(plain.schema, 3);
        assert_eq!(plain.positive.spans, [(-1, 5), (3, 1)]);
        assert_eq!(plain.positive.counts, [1.0, 2.0, 0.0, 0.0, 3.0, 4.0]);
        // Scale 10: buckets (base^0, base^1] to (base^4, base^5] are 1 to 5, and ceil(i / 4) at scale 8.
        let merged = native(10, 0, &[1, 1, 1, 1, 1]);
        assert_eq!((merged.schema, merged.positive.spans), (8, vec![(1, 2)]));
        assert_eq!(merged.positive.counts, [4.0, 1.0]);
    }

    #[test]
    fn what_contradicts_itself_is_refused() {
        let histogram = |scale, count, offset| {
            let positive = Buckets { offset, counts: vec![1, 1] };
            Point { count, scale, positive, ..Point::default() }.native().is_ok()
        };
        assert!(histogram(0, 2, 0) && histogram(i32::MAX, 2, i32::MAX));
        assert!(!histogram(-5, 2, 0) && !histogram(0, 3, 0) && !histogram(0, 1, 0));
        assert!(!histogram(0, 2, i32::MAX) && histogram(0, 2, i32::MIN + 9));
    }
}
