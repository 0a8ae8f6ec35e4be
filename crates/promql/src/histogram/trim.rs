//! `</` and `>/`: the part of a histogram below or above a value.

use super::{Bucket, Histogram};

impl Histogram {
    /// Drops observations above (`upper`) or below `at`; a bucket that holds `at` is split by estimate.
    pub(crate) fn trim(&mut self, at: f64, upper: bool) {
        let custom = self.has_custom_bounds();
        let (mut count, mut sum, mut changed) = (0.0, 0.0, false);
        let mut side = |bucket: Bucket, positive: bool| -> f64 {
            let whole = if upper { bucket.upper <= at } else { bucket.lower >= at };
            let split = if upper { bucket.lower < at } else { bucket.upper > at };
            let (kept, middle) = if whole {
                (bucket.count, midpoint(bucket.lower, bucket.upper, positive, custom))
            } else if split {
                split_bucket(&bucket, at, upper, positive, custom)
            } else {
                changed = true;
                return 0.0;
            };
            count += kept;
            sum += middle * kept;
            changed |= kept != bucket.count;
            kept
        };
        let (mut has_positive, mut has_negative) = (false, false);
        for position in 0..self.positive.count.len() {
            if self.positive.count[position] != 0.0 {
                has_positive = true;
                self.positive.count[position] = side(self.positive_bucket(position), true);
            }
        }
        for position in 0..self.negative.count.len() {
            if self.negative.count[position] != 0.0 {
                has_negative = true;
                self.negative.count[position] = side(self.negative_bucket(position), false);
            }
        }
        if self.zero_count > 0.0 {
            let bucket = self.zero_bucket();
            let low = if has_positive && !has_negative { 0.0 } else { bucket.lower };
            let high = if has_negative && !has_positive { 0.0 } else { bucket.upper };
            let (kept, middle) = split_zero(bucket.count, low, high, at, upper);
            changed |= kept != self.zero_count;
            self.zero_count = kept;
            sum += middle * kept;
            count += kept;
        }
        if changed {
            self.count = count;
            self.sum = sum;
            self.compact();
        }
    }
}

fn split_zero(count: f64, low: f64, high: f64, at: f64, upper: bool) -> (f64, f64) {
    match (upper, at <= low, at >= high) {
        (true, true, _) | (false, false, true) => (0.0, 0.0),
        (true, false, true) | (false, true, _) => (count, f64::midpoint(low, high)),
        (true, false, false) => (count * ((at - low) / (high - low)), f64::midpoint(low, at)),
        (false, false, false) => (count * ((high - at) / (high - low)), f64::midpoint(at, high)),
    }
}

fn split_bucket(bucket: &Bucket, at: f64, upper: bool, positive: bool, linear: bool) -> (f64, f64) {
    if bucket.lower == f64::NEG_INFINITY || bucket.upper == f64::INFINITY {
        return split_infinite(bucket, at, upper);
    }
    let under = if at <= bucket.lower {
        0.0
    } else if at >= bucket.upper {
        bucket.count
    } else {
        bucket.count * bucket.fraction_below(at, linear)
    };
    if upper {
        (under, midpoint(bucket.lower, at, positive, linear))
    } else {
        (bucket.count - under, midpoint(at, bucket.upper, positive, linear))
    }
}

/// A bucket without an end is taken to lie at its finite bound, or to begin at zero.
fn split_infinite(bucket: &Bucket, at: f64, upper: bool) -> (f64, f64) {
    let finite = |value: f64| if value.is_infinite() { 0.0 } else { value };
    if bucket.lower == f64::NEG_INFINITY {
        let closed = bucket.upper != f64::INFINITY;
        return match upper {
            true if at >= bucket.upper => (bucket.count, 0.0),
            true if at > 0.0 && bucket.upper > 0.0 && closed => (bucket.count * at / bucket.upper, at / 2.0),
            true if bucket.upper <= 0.0 => (bucket.count, at),
            false if at <= bucket.lower => (bucket.count, 0.0),
            false if at >= 0.0 && bucket.upper > at && closed => {
                (bucket.count * (1.0 - at / bucket.upper), f64::midpoint(at, bucket.upper))
            }
            _ => (0.0, finite(bucket.upper)),
        };
    }
    if !upper && at >= bucket.lower { (bucket.count, at) } else { (0.0, finite(bucket.lower)) }
}

fn midpoint(lower: f64, upper: f64, positive: bool, linear: bool) -> f64 {
    match (lower.is_infinite(), upper.is_infinite()) {
        (true, true) => 0.0,
        (true, false) if upper > 0.0 => upper / 2.0,
        (true, false) => upper,
        (false, true) => lower,
        (false, false) if linear => f64::midpoint(lower, upper),
        (false, false) => {
            let mean = (lower * upper).abs().sqrt();
            if positive { mean } else { -mean }
        }
    }
}
