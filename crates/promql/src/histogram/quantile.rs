//! Quantiles, fractions and the variance of a native histogram.

use super::Histogram;
use crate::kahan::Kahan;

/// What a reader should know about a quantile of a histogram whose observations include NaN.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NanNote {
    /// The result itself is NaN.
    Result,
    /// The result is higher than it should be.
    Skew,
    /// They count in no fraction.
    Excluded,
}

/// The value below which a share `q` of the observations lies.
pub(crate) fn quantile(q: f64, histogram: &Histogram) -> (f64, Option<NanNote>) {
    if q < 0.0 {
        return (f64::NEG_INFINITY, None);
    }
    if q > 1.0 {
        return (f64::INFINITY, None);
    }
    if histogram.count == 0.0 || q.is_nan() {
        return (f64::NAN, None);
    }
    let forward = histogram.sum.is_nan() || q < 0.5;
    let mut buckets = histogram.buckets();
    if !forward {
        buckets.reverse();
    }
    let mut rank = if forward { q * histogram.count } else { (1.0 - q) * histogram.count };
    let mut count = 0.0;
    let mut bucket = histogram.zero_bucket();
    (bucket.lower, bucket.upper, bucket.count) = (0.0, 0.0, 0.0);
    let mut rest = buckets.iter();
    for candidate in rest.by_ref() {
        bucket = *candidate;
        if bucket.count == 0.0 {
            continue;
        }
        count += bucket.count;
        if count >= rank {
            break;
        }
    }
    if !histogram.has_custom_bounds() && bucket.lower < 0.0 && bucket.upper > 0.0 {
        if histogram.negative.is_empty() && !histogram.positive.is_empty() {
            bucket.lower = 0.0;
        } else if histogram.positive.is_empty() && !histogram.negative.is_empty() {
            bucket.upper = 0.0;
        }
    } else if histogram.has_custom_bounds() {
        if bucket.lower == f64::NEG_INFINITY {
            if bucket.upper <= 0.0 {
                return (bucket.upper, None);
            }
            bucket.lower = 0.0;
        } else if bucket.upper == f64::INFINITY {
            return (bucket.lower, None);
        }
    }
    count = count.min(histogram.count);
    if count < rank {
        return if histogram.sum.is_nan() { (f64::NAN, Some(NanNote::Result)) } else { (bucket.upper, None) };
    }
    rank = if forward { rank - (count - bucket.count) } else { count - rank };
    let mut note = None;
    if histogram.sum.is_nan() {
        count += rest.map(|bucket| bucket.count).sum::<f64>();
        if count < histogram.count {
            note = Some(NanNote::Skew);
        }
    }
    let fraction = rank / bucket.count;
    if histogram.has_custom_bounds() || (bucket.lower <= 0.0 && bucket.upper >= 0.0) {
        return (bucket.lower + (bucket.upper - bucket.lower) * fraction, note);
    }
    let (lower, upper) = (bucket.lower.abs().log2(), bucket.upper.abs().log2());
    let value = if bucket.lower > 0.0 {
        (lower + (upper - lower) * fraction).exp2()
    } else {
        -(upper + (lower - upper) * (1.0 - fraction)).exp2()
    };
    (value, note)
}

/// Which share of the observations lies between two values.
pub(crate) fn fraction(lower: f64, upper: f64, histogram: &Histogram) -> (f64, Option<NanNote>) {
    if histogram.count == 0.0 || lower.is_nan() || upper.is_nan() {
        return (f64::NAN, None);
    }
    if lower >= upper {
        return (0.0, None);
    }
    let buckets = histogram.buckets();
    let (mut count, mut rank) = (0.0, 0.0);
    let (mut lower_rank, mut upper_rank) = (None, None);
    let mut rest = buckets.iter();
    for bucket in rest.by_ref() {
        let mut bucket = *bucket;
        count += bucket.count;
        let mut linear = histogram.has_custom_bounds();
        if bucket.lower <= 0.0 && bucket.upper >= 0.0 {
            linear = true;
            if histogram.negative.is_empty() && !histogram.positive.is_empty() {
                bucket.lower = 0.0;
            } else if histogram.positive.is_empty() && !histogram.negative.is_empty() {
                bucket.upper = 0.0;
            }
        }
        let inside = |value: f64| {
            if linear && bucket.lower == f64::NEG_INFINITY {
                bucket.count
            } else {
                rank + bucket.count * bucket.fraction_below(value, linear)
            }
        };
        for (value, found) in [(lower, &mut lower_rank), (upper, &mut upper_rank)] {
            if found.is_none() && bucket.lower >= value {
                *found = Some(rank);
            }
            if found.is_none() && bucket.lower < value && bucket.upper > value {
                *found = Some(inside(value));
            }
        }
        if lower_rank.is_some() && upper_rank.is_some() {
            break;
        }
        rank += bucket.count;
    }
    let mut note = None;
    if histogram.sum.is_nan() {
        count += rest.map(|bucket| bucket.count).sum::<f64>();
        if count < histogram.count {
            note = Some(NanNote::Excluded);
        }
    } else {
        count = histogram.count;
    }
    let capped = |rank: Option<f64>| rank.filter(|rank| *rank <= count).unwrap_or(count);
    ((capped(upper_rank) - capped(lower_rank)) / histogram.count, note)
}

/// The estimated variance of the observations.
pub(crate) fn variance(histogram: &Histogram) -> f64 {
    let mean = histogram.sum / histogram.count;
    let mut sum = Kahan::default();
    for bucket in histogram.buckets().iter().filter(|bucket| bucket.count != 0.0) {
        let value = if histogram.has_custom_bounds() {
            f64::midpoint(bucket.upper, bucket.lower)
        } else if bucket.lower <= 0.0 && bucket.upper >= 0.0 {
            0.0
        } else {
            (bucket.upper * bucket.lower).sqrt().copysign(bucket.upper)
        };
        let delta = value - mean;
        sum.add(bucket.count * delta * delta);
    }
    sum.total() / histogram.count
}
