//! Bucket bounds, and a histogram's buckets in order.

use super::{Buckets, CUSTOM_BUCKETS, Histogram, roots::ROOTS};

/// A bucket with its bounds.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Bucket {
    pub lower: f64,
    pub upper: f64,
    pub lower_inclusive: bool,
    pub upper_inclusive: bool,
    pub count: f64,
}

impl Bucket {
    /// Which part of the bucket lies below `value`, which is inside it.
    pub fn fraction_below(&self, value: f64, linear: bool) -> f64 {
        if linear {
            return (value - self.lower) / (self.upper - self.lower);
        }
        let (lower, upper) = (self.lower.abs().log2(), self.upper.abs().log2());
        let at = value.abs().log2();
        if value > 0.0 { (at - lower) / (upper - lower) } else { 1.0 - (at - upper) / (lower - upper) }
    }
}

/// Upper bound of a bucket with exponential bounds.
pub(super) fn exponential_bound(index: i32, schema: i32) -> f64 {
    if schema < 0 {
        let exponent = i64::from(index) << -schema;
        return if exponent == 1024 { f64::MAX } else { power_of_two(exponent) };
    }
    let fraction = ROOTS[((index & ((1 << schema) - 1)) << (8 - schema)) as usize];
    let exponent = i64::from(index >> schema) + 1;
    if fraction == 0.5 && exponent == 1025 {
        return f64::MAX;
    }
    // In two steps, so that neither end of the range overflows on the way.
    let half = exponent / 2;
    fraction * power_of_two(half) * power_of_two(exponent - half)
}

fn power_of_two(exponent: i64) -> f64 {
    2f64.powi(exponent.clamp(-1100, 1100) as i32)
}

/// Upper bound of a bucket, `-Inf` and `+Inf` around custom bounds.
fn bound(index: i32, schema: i32, custom: &[f64]) -> f64 {
    if schema != CUSTOM_BUCKETS {
        return exponential_bound(index, schema);
    }
    match usize::try_from(index) {
        Ok(index) => custom.get(index).copied().unwrap_or(f64::INFINITY),
        Err(_) => f64::NEG_INFINITY,
    }
}

impl Histogram {
    /// The bucket at a position of the positive side.
    pub(crate) fn positive_bucket(&self, position: usize) -> Bucket {
        let index = self.positive.index[position];
        let lower = bound(index - 1, self.schema, &self.custom_bounds);
        let upper = bound(index, self.schema, &self.custom_bounds);
        let custom = self.has_custom_bounds();
        Bucket {
            lower,
            upper,
            lower_inclusive: if custom { index == 0 } else { lower < 0.0 },
            upper_inclusive: custom || upper > 0.0,
            count: self.positive.count[position],
        }
    }

    /// The bucket at a position of the negative side.
    pub(crate) fn negative_bucket(&self, position: usize) -> Bucket {
        let index = self.negative.index[position];
        let lower = -bound(index, self.schema, &[]);
        let upper = -bound(index - 1, self.schema, &[]);
        Bucket {
            lower,
            upper,
            lower_inclusive: lower < 0.0,
            upper_inclusive: upper > 0.0,
            count: self.negative.count[position],
        }
    }

    /// The bucket around zero.
    pub(crate) fn zero_bucket(&self) -> Bucket {
        Bucket {
            lower: -self.zero_threshold,
            upper: self.zero_threshold,
            lower_inclusive: true,
            upper_inclusive: true,
            count: self.zero_count,
        }
    }

    /// All buckets in ascending order, cut at the zero bucket's edge; the zero bucket if it holds anything.
    pub(crate) fn buckets(&self) -> Vec<Bucket> {
        let mut all = Vec::with_capacity(self.positive.index.len() + self.negative.index.len() + 1);
        for position in (0..self.negative.index.len()).rev() {
            let mut bucket = self.negative_bucket(position);
            if bucket.upper < 0.0 && bucket.upper > -self.zero_threshold {
                bucket.upper = -self.zero_threshold;
            }
            all.push(bucket);
        }
        if self.zero_count > 0.0 {
            all.push(self.zero_bucket());
        }
        for position in 0..self.positive.index.len() {
            let mut bucket = self.positive_bucket(position);
            if bucket.lower > 0.0 && bucket.lower < self.zero_threshold {
                bucket.lower = self.zero_threshold;
            }
            all.push(bucket);
        }
        all
    }

    /// Buckets for a reader of the answer: as [`Histogram::buckets`], without empty ones; boundary rule
    /// (0 open left, 1 open right, 2 open both, 3 closed both), lower bound, upper bound, count.
    pub fn answer_buckets(&self) -> Vec<(u8, f64, f64, f64)> {
        let boundary = |bucket: &Bucket| match (bucket.lower_inclusive, bucket.upper_inclusive) {
            (false, true) => 0,
            (true, false) => 1,
            (false, false) => 2,
            (true, true) => 3,
        };
        let all = self.buckets();
        let all = all.iter().filter(|bucket| bucket.count != 0.0);
        all.map(|bucket| (boundary(bucket), bucket.lower, bucket.upper, bucket.count)).collect()
    }
}

/// Buckets merged into those of a coarser schema.
pub(super) fn coarser(buckets: &Buckets, from: i32, to: i32) -> Buckets {
    let mut merged = Buckets::default();
    for (&index, &count) in buckets.index.iter().zip(&buckets.count) {
        let target = ((index - 1) >> (from - to)) + 1;
        if merged.index.last() == Some(&target) {
            let last = merged.count.len() - 1;
            merged.count[last] += count;
        } else {
            merged.index.push(target);
            merged.count.push(count);
        }
    }
    merged
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bounds_are_powers_and_roots_of_two() {
        for (index, schema, expected) in
            [(0, 0, 1.0), (3, 0, 8.0), (-1, 0, 0.5), (1, 1, 2f64.sqrt()), (2, -1, 16.0), (1024, 0, f64::MAX)]
        {
            let bound = exponential_bound(index, schema);
            assert!((bound / expected - 1.0).abs() < 1e-15, "{index} {schema}: {bound}");
        }
        assert!((exponential_bound(255, 8) - 1.994_592_112_170_940_2).abs() < 1e-14);
    }
}
