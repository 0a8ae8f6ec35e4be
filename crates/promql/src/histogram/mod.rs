//! Native histograms: exponential buckets or custom bounds, float counts.
//!
//! Buckets are kept as pairs of index and count rather than as spans; a span is how they travel, see
//! [`Buckets::from_spans`]. Semantics follow Prometheus' float histograms.

mod arithmetic;
mod bounds;
mod quantile;
mod roots;
mod trim;

use std::sync::Arc;

pub(crate) use arithmetic::{Compensation, Incompatible};
pub(crate) use bounds::Bucket;
pub(crate) use quantile::{NanNote, fraction, quantile, variance};

use crate::format::general;

/// Schema of histograms whose bounds are listed ([`Histogram::custom_bounds`]).
pub const CUSTOM_BUCKETS: i32 = -53;

/// What is known of whether a counter started anew before this histogram.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ResetHint {
    /// Nothing; it is found out by comparing.
    #[default]
    Unknown,
    /// It did.
    Reset,
    /// It did not.
    NotReset,
    /// This is no counter.
    Gauge,
}

/// One side's buckets, sorted by index.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Buckets {
    /// Index of each bucket in its schema.
    pub index: Vec<i32>,
    /// Observations in each, not cumulative.
    pub count: Vec<f64>,
}

impl Buckets {
    /// Reads spans as the wire formats have them: distance to the end of the previous one, and length.
    /// Counts that are missing are zero, counts beyond the spans are dropped.
    pub fn from_spans(spans: &[(i32, u32)], counts: &[f64]) -> Self {
        let mut index = Vec::with_capacity(counts.len());
        let mut next = 0i32;
        for &(offset, length) in spans {
            next = next.saturating_add(offset);
            for _ in 0..length {
                if index.len() == counts.len() {
                    break;
                }
                index.push(next);
                next = next.saturating_add(1);
            }
        }
        Self { count: counts[..index.len()].to_vec(), index }
    }

    /// The same buckets as spans.
    pub fn spans(&self) -> Vec<(i32, u32)> {
        let mut spans: Vec<(i32, u32)> = Vec::new();
        let mut end = 0;
        for &index in &self.index {
            match spans.last_mut() {
                Some(span) if index == end => span.1 += 1,
                _ => spans.push((index - end, 1)),
            }
            end = index + 1;
        }
        spans
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.index.is_empty()
    }

    fn compact(&mut self) {
        if self.count.contains(&0.0) {
            let keep: Vec<bool> = self.count.iter().map(|count| *count != 0.0).collect();
            let mut position = 0;
            self.index.retain(|_| {
                position += 1;
                keep[position - 1]
            });
            self.count.retain(|count| *count != 0.0);
        }
    }
}

/// A native histogram.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Histogram {
    /// Whether a counter reset is known.
    pub reset_hint: ResetHint,
    /// Resolution: bounds grow by `2^(2^-schema)`, -4 to 8; or [`CUSTOM_BUCKETS`].
    pub schema: i32,
    /// Half width of the bucket around zero.
    pub zero_threshold: f64,
    /// Observations in it.
    pub zero_count: f64,
    /// All observations.
    pub count: f64,
    /// Their sum.
    pub sum: f64,
    /// Buckets above zero, or all of them with custom bounds.
    pub positive: Buckets,
    /// Buckets below zero.
    pub negative: Buckets,
    /// Upper bounds of custom buckets, ascending, without `+Inf`.
    pub custom_bounds: Arc<[f64]>,
}

impl Histogram {
    /// Whether the bounds are listed rather than exponential.
    pub fn has_custom_bounds(&self) -> bool {
        self.schema == CUSTOM_BUCKETS
    }

    /// How many float samples this one counts for against a query's limit.
    pub(crate) fn cost(&self) -> usize {
        let sides = [&self.positive, &self.negative];
        let in_side = |side: &&Buckets| {
            let breaks = side.index.windows(2).filter(|two| two[0] + 1 != two[1]).count();
            side.count.len() + breaks + usize::from(!side.index.is_empty())
        };
        let numbers = sides.iter().map(in_side).sum::<usize>() + self.custom_bounds.len();
        11 + numbers / 2
    }

    /// Drops empty buckets.
    pub(crate) fn compact(&mut self) {
        self.positive.compact();
        self.negative.compact();
    }

    /// Equal to the bit, as `==` in a query compares.
    pub(crate) fn same(&self, other: &Self) -> bool {
        let bits = |a: &[f64], b: &[f64]| {
            a.len() == b.len() && a.iter().zip(b).all(|(a, b)| a.to_bits() == b.to_bits())
        };
        self.schema == other.schema
            && bits(
                &[self.count, self.sum, self.zero_count, self.zero_threshold],
                &[other.count, other.sum, other.zero_count, other.zero_threshold],
            )
            && (!self.has_custom_bounds() || self.custom_bounds == other.custom_bounds)
            && self.positive.index == other.positive.index
            && self.negative.index == other.negative.index
            && bits(&self.positive.count, &other.positive.count)
            && bits(&self.negative.count, &other.negative.count)
    }
}

impl std::fmt::Display for Histogram {
    /// `{count:3, sum:2, [-1,-0.5):1, (0.5,1]:2}`.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{{count:{}, sum:{}", general(self.count), general(self.sum))?;
        for bucket in self.buckets().iter().filter(|bucket| bucket.count != 0.0) {
            let open = if bucket.lower_inclusive { '[' } else { '(' };
            let close = if bucket.upper_inclusive { ']' } else { ')' };
            let (lower, upper) = (general(bucket.lower), general(bucket.upper));
            write!(f, ", {open}{lower},{upper}{close}:{}", general(bucket.count))?;
        }
        f.write_str("}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_and_indexes_are_the_same() {
        let spans = [(-2, 2), (3, 1)];
        let buckets = Buckets::from_spans(&spans, &[1.0, 2.0, 3.0]);
        assert_eq!(buckets.index, [-2, -1, 3]);
        assert_eq!(buckets.spans(), spans);
    }

    #[test]
    fn a_histogram_prints_as_prometheus_prints_it() {
        let histogram = Histogram {
            count: 5.0,
            sum: 2.5,
            zero_count: 1.0,
            zero_threshold: 0.001,
            positive: Buckets { index: vec![0, 1], count: vec![1.0, 2.0] },
            negative: Buckets { index: vec![0], count: vec![1.0] },
            ..Histogram::default()
        };
        let text = "{count:5, sum:2.5, [-1,-0.5):1, [-0.001,0.001]:1, (0.5,1]:1, (1,2]:2}";
        assert_eq!(histogram.to_string(), text);
    }
}
