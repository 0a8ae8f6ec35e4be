//! Sums, differences and multiples of histograms, and whether a counter was reset between two.

use std::sync::Arc;

use super::{
    Buckets, Histogram, ResetHint,
    bounds::{coarser, exponential_bound},
};
use crate::kahan::Kahan;

/// Exponential and custom bounds cannot be brought together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Incompatible;

/// What a reader should know about an addition.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Notes {
    /// One side said "reset", the other "not reset".
    pub reset_collision: bool,
    /// Custom bounds differed; those both have were kept.
    pub bounds_reconciled: bool,
}

/// What rounding has taken from a running sum of histograms; its buckets lie as those of the sum.
#[derive(Clone, Debug, Default)]
pub(crate) struct Compensation {
    zero_count: f64,
    count: f64,
    sum: f64,
    positive: Vec<f64>,
    negative: Vec<f64>,
}

impl Compensation {
    pub fn scale(&mut self, factor: f64) {
        self.zero_count *= factor;
        self.count *= factor;
        self.sum *= factor;
        self.positive.iter_mut().chain(&mut self.negative).for_each(|value| *value *= factor);
    }
}

impl Histogram {
    pub(crate) fn scale(&mut self, factor: f64) {
        self.zero_count *= factor;
        self.count *= factor;
        self.sum *= factor;
        self.positive.count.iter_mut().chain(&mut self.negative.count).for_each(|count| *count *= factor);
        if factor < 0.0 {
            self.reset_hint = ResetHint::Gauge;
        }
    }

    pub(crate) fn divide(&mut self, divisor: f64) {
        self.zero_count /= divisor;
        self.count /= divisor;
        self.sum /= divisor;
        if divisor == 0.0 {
            self.positive = Buckets::default();
            self.negative = Buckets::default();
            return;
        }
        self.positive.count.iter_mut().chain(&mut self.negative.count).for_each(|count| *count /= divisor);
        if divisor < 0.0 {
            self.reset_hint = ResetHint::Gauge;
        }
    }

    pub(crate) fn add(&mut self, other: &Self) -> Result<Notes, Incompatible> {
        let mut none = self.no_compensation();
        self.combine(other, 1.0, &mut none)
    }

    pub(crate) fn subtract(&mut self, other: &Self) -> Result<Notes, Incompatible> {
        let mut none = self.no_compensation();
        self.combine(other, -1.0, &mut none)
    }

    /// Adds, and keeps in `lost` what rounding takes.
    pub(crate) fn add_kahan(
        &mut self,
        other: &Self,
        lost: &mut Option<Compensation>,
    ) -> Result<Notes, Incompatible> {
        let lost = lost.get_or_insert_with(|| self.no_compensation());
        self.combine(other, 1.0, lost)
    }

    /// Puts back what rounding has taken.
    pub(crate) fn compensate(&mut self, lost: &Compensation) {
        self.zero_count += lost.zero_count;
        self.count += lost.count;
        self.sum += lost.sum;
        for (count, lost) in self.positive.count.iter_mut().zip(&lost.positive) {
            *count += lost;
        }
        for (count, lost) in self.negative.count.iter_mut().zip(&lost.negative) {
            *count += lost;
        }
    }

    fn no_compensation(&self) -> Compensation {
        Compensation {
            positive: vec![0.0; self.positive.count.len()],
            negative: vec![0.0; self.negative.count.len()],
            ..Compensation::default()
        }
    }

    fn combine(&mut self, other: &Self, sign: f64, lost: &mut Compensation) -> Result<Notes, Incompatible> {
        if self.has_custom_bounds() != other.has_custom_bounds() {
            return Err(Incompatible);
        }
        let mut notes = Notes { reset_collision: self.adjust_hint(other.reset_hint), ..Notes::default() };
        if self.has_custom_bounds() {
            accumulate(&mut self.count, &mut lost.count, sign * other.count);
            accumulate(&mut self.sum, &mut lost.sum, sign * other.sum);
            if self.custom_bounds == other.custom_bounds {
                merge(&mut self.positive, &mut lost.positive, &other.positive, sign, |_| true);
            } else {
                notes.bounds_reconciled = true;
                self.combine_mismatched(other, sign, lost);
            }
            return Ok(notes);
        }
        let other_zero = self.reconcile_zero(other, lost);
        accumulate(&mut self.zero_count, &mut lost.zero_count, sign * other_zero);
        accumulate(&mut self.count, &mut lost.count, sign * other.count);
        accumulate(&mut self.sum, &mut lost.sum, sign * other.sum);
        if other.schema < self.schema {
            reduce(&mut self.positive, &mut lost.positive, self.schema, other.schema);
            reduce(&mut self.negative, &mut lost.negative, self.schema, other.schema);
            self.schema = other.schema;
        }
        let (schema, threshold) = (self.schema, self.zero_threshold);
        let outside_zero = |index| exponential_bound(index, schema) > threshold;
        let fitted = |buckets: &Buckets| {
            if other.schema > schema { coarser(buckets, other.schema, schema) } else { buckets.clone() }
        };
        merge(&mut self.positive, &mut lost.positive, &fitted(&other.positive), sign, outside_zero);
        merge(&mut self.negative, &mut lost.negative, &fitted(&other.negative), sign, outside_zero);
        Ok(notes)
    }

    fn adjust_hint(&mut self, other: ResetHint) -> bool {
        let mine = self.reset_hint;
        if mine == other || mine == ResetHint::Gauge {
            return false;
        }
        if other == ResetHint::Gauge {
            self.reset_hint = ResetHint::Gauge;
            return false;
        }
        if mine == ResetHint::Unknown {
            return false;
        }
        self.reset_hint = ResetHint::Unknown;
        other != ResetHint::Unknown
    }

    /// Counts go to the bounds both sides have.
    fn combine_mismatched(&mut self, other: &Self, sign: f64, lost: &mut Compensation) {
        let shared: Vec<f64> =
            self.custom_bounds.iter().copied().filter(|bound| other.custom_bounds.contains(bound)).collect();
        let mut sums = vec![Kahan::default(); shared.len() + 1];
        let target = |index: i32, bounds: &[f64]| {
            let source = bounds.get(index.max(0) as usize);
            source.map_or(shared.len(), |bound| shared.partition_point(|shared| shared < bound))
        };
        for (position, &index) in self.positive.index.iter().enumerate() {
            let slot = &mut sums[target(index, &self.custom_bounds)];
            slot.add(self.positive.count[position]);
            slot.add(lost.positive[position]);
        }
        for (&index, &count) in other.positive.index.iter().zip(&other.positive.count) {
            sums[target(index, &other.custom_bounds)].add(sign * count);
        }
        self.positive = Buckets::default();
        lost.positive.clear();
        for (index, slot) in sums.iter().enumerate().filter(|(_, slot)| slot.sum != 0.0 || slot.lost != 0.0) {
            self.positive.index.push(index as i32);
            self.positive.count.push(slot.sum);
            lost.positive.push(slot.lost);
        }
        self.custom_bounds = Arc::from(shared);
    }

    /// Brings both zero buckets to one width; returns what the other then counts in it.
    fn reconcile_zero(&mut self, other: &Self, lost: &mut Compensation) -> f64 {
        let (mut other_count, mut other_threshold) = (other.zero_count, other.zero_threshold);
        let zeros = other.no_compensation();
        while other_threshold != self.zero_threshold {
            if self.zero_threshold > other_threshold {
                let wide = other.widened_zero(self.zero_threshold, &zeros);
                (other_count, other_threshold) = (wide.0.sum, wide.1);
            }
            if other_threshold > self.zero_threshold {
                let (count, threshold) = self.widened_zero(other_threshold, lost);
                self.zero_count = count.sum;
                lost.zero_count = count.lost;
                self.zero_threshold = threshold;
                self.clear_inside_zero(lost);
            }
            if self.zero_threshold.is_nan() || other_threshold.is_nan() {
                break;
            }
        }
        other_count
    }

    /// What a zero bucket of at least this width counts, and its width: it never ends inside a bucket
    /// that holds anything.
    fn widened_zero(&self, threshold: f64, lost: &Compensation) -> (Kahan, f64) {
        let mut threshold = threshold;
        if threshold <= self.zero_threshold {
            return (Kahan { sum: self.zero_count, lost: lost.zero_count }, self.zero_threshold);
        }
        'wider: loop {
            let mut total = Kahan { sum: self.zero_count, lost: lost.zero_count };
            for position in 0..self.positive.index.len() {
                let bucket = self.positive_bucket(position);
                if bucket.lower >= threshold {
                    break;
                }
                total.add(bucket.count);
                total.add(lost.positive[position]);
                if bucket.upper > threshold {
                    if bucket.count != 0.0 {
                        threshold = bucket.upper;
                    }
                    break;
                }
            }
            for position in 0..self.negative.index.len() {
                let bucket = self.negative_bucket(position);
                if bucket.upper <= -threshold {
                    break;
                }
                total.add(bucket.count);
                total.add(lost.negative[position]);
                if bucket.lower < -threshold {
                    if bucket.count != 0.0 {
                        threshold = -bucket.lower;
                        continue 'wider;
                    }
                    break;
                }
            }
            return (total, threshold);
        }
    }

    fn clear_inside_zero(&mut self, lost: &mut Compensation) {
        let (schema, threshold) = (self.schema, self.zero_threshold);
        let clear = |buckets: &mut Buckets, lost: &mut Vec<f64>| {
            let keep: Vec<usize> = (0..buckets.index.len())
                .filter(|&at| exponential_bound(buckets.index[at] - 1, schema) >= threshold)
                .filter(|&at| buckets.count[at] != 0.0 || lost[at] != 0.0)
                .collect();
            *lost = keep.iter().map(|&at| lost[at]).collect();
            buckets.index = keep.iter().map(|&at| buckets.index[at]).collect();
            buckets.count = keep.iter().map(|&at| buckets.count[at]).collect();
        };
        clear(&mut self.positive, &mut lost.positive);
        clear(&mut self.negative, &mut lost.negative);
    }

    /// In a coarser exponential schema.
    pub(crate) fn to_schema(&self, schema: i32) -> Self {
        if schema >= self.schema || self.has_custom_bounds() {
            return self.clone();
        }
        Self {
            reset_hint: ResetHint::Unknown,
            schema,
            positive: coarser(&self.positive, self.schema, schema),
            negative: coarser(&self.negative, self.schema, schema),
            ..self.clone()
        }
    }

    pub(crate) fn has_overflow(&self) -> bool {
        let counts = self.positive.count.iter().chain(&self.negative.count).chain(self.custom_bounds.iter());
        [self.zero_count, self.count, self.sum].iter().chain(counts).any(|value| value.is_infinite())
    }

    /// Whether a counter started anew between `previous` and this histogram.
    pub(crate) fn is_reset_after(&self, previous: &Self) -> bool {
        match self.reset_hint {
            ResetHint::Reset => return true,
            ResetHint::NotReset => return false,
            ResetHint::Unknown | ResetHint::Gauge => {}
        }
        if self.count < previous.count {
            return true;
        }
        if self.has_custom_bounds() {
            if !previous.has_custom_bounds() {
                return true;
            }
            if self.custom_bounds != previous.custom_bounds {
                return self.is_reset_with_other_bounds(previous);
            }
            return falls(&self.positive, &previous.positive, |_| true);
        }
        if previous.has_custom_bounds() || self.schema > previous.schema {
            return true;
        }
        if self.zero_threshold < previous.zero_threshold {
            return true;
        }
        let (previous_zero, threshold) =
            previous.widened_zero(self.zero_threshold, &previous.no_compensation());
        if threshold != self.zero_threshold || self.zero_count < previous_zero.sum {
            return true;
        }
        let (schema, threshold) = (self.schema, self.zero_threshold);
        let outside = |index| threshold == 0.0 || exponential_bound(index, schema) > threshold;
        falls(&self.positive, &coarser(&previous.positive, previous.schema, schema), outside)
            || falls(&self.negative, &coarser(&previous.negative, previous.schema, schema), outside)
    }

    fn is_reset_with_other_bounds(&self, previous: &Self) -> bool {
        let upper =
            |index: i32, bounds: &[f64]| bounds.get(index.max(0) as usize).copied().unwrap_or(f64::INFINITY);
        let up_to = |histogram: &Self, after: f64, bound: f64| -> f64 {
            let buckets = histogram.positive.index.iter().zip(&histogram.positive.count);
            let inside = buckets.filter(|(index, _)| {
                let upper = upper(**index, &histogram.custom_bounds);
                upper > after && upper <= bound
            });
            inside.map(|(_, count)| *count).sum()
        };
        let mut after = f64::NEG_INFINITY;
        let bounds = self.custom_bounds.iter().copied();
        let shared = bounds.filter(|bound| previous.custom_bounds.contains(bound));
        for bound in shared.chain([f64::INFINITY]) {
            if up_to(self, after, bound) < up_to(previous, after, bound) {
                return true;
            }
            after = bound;
        }
        false
    }
}

/// Whether a bucket counts less than it did.
fn falls(now: &Buckets, before: &Buckets, counts: impl Fn(i32) -> bool) -> bool {
    let mut at = 0;
    for (&index, &count) in before.index.iter().zip(&before.count).filter(|(index, _)| counts(**index)) {
        while now.index.get(at).is_some_and(|&now| now < index) {
            at += 1;
        }
        let current = if now.index.get(at) == Some(&index) { now.count[at] } else { 0.0 };
        if current < count {
            return true;
        }
    }
    false
}

fn accumulate(sum: &mut f64, lost: &mut f64, value: f64) {
    let mut kahan = Kahan { sum: *sum, lost: *lost };
    kahan.add(value);
    (*sum, *lost) = (kahan.sum, kahan.lost);
}

fn reduce(buckets: &mut Buckets, lost: &mut Vec<f64>, from: i32, to: i32) {
    let lost_buckets = Buckets { index: buckets.index.clone(), count: std::mem::take(lost) };
    *lost = coarser(&lost_buckets, from, to).count;
    *buckets = coarser(buckets, from, to);
}

/// Adds `other`'s buckets into `into`, as far as `wanted` takes them.
fn merge(into: &mut Buckets, lost: &mut Vec<f64>, other: &Buckets, sign: f64, wanted: impl Fn(i32) -> bool) {
    if into.index == other.index && other.index.first().is_none_or(|first| wanted(*first)) {
        for ((count, lost), add) in into.count.iter_mut().zip(lost.iter_mut()).zip(&other.count) {
            accumulate(count, lost, sign * add);
        }
        return;
    }
    let mut merged = Buckets::default();
    let mut merged_lost = Vec::with_capacity(lost.len());
    let mut take = |index: i32, count: f64, lost: f64| {
        merged.index.push(index);
        merged.count.push(count);
        merged_lost.push(lost);
    };
    let mut mine = 0;
    for (&index, &add) in other.index.iter().zip(&other.count).filter(|(index, _)| wanted(**index)) {
        while mine < into.index.len() && into.index[mine] < index {
            take(into.index[mine], into.count[mine], lost[mine]);
            mine += 1;
        }
        if into.index.get(mine) == Some(&index) {
            let mut kahan = Kahan { sum: into.count[mine], lost: lost[mine] };
            kahan.add(sign * add);
            take(index, kahan.sum, kahan.lost);
            mine += 1;
        } else {
            take(index, sign * add, 0.0);
        }
    }
    for ((index, count), lost) in into.index.iter().zip(&into.count).zip(lost.iter()).skip(mine) {
        take(*index, *count, *lost);
    }
    *into = merged;
    *lost = merged_lost;
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(schema: i32, index: &[i32], count: &[f64]) -> Histogram {
        Histogram {
            schema,
            count: count.iter().sum(),
            positive: Buckets { index: index.to_vec(), count: count.to_vec() },
            ..Histogram::default()
        }
    }

    #[test]
    fn addition_takes_the_coarser_schema() {
        let mut sum = with(1, &[1, 2, 3], &[1.0, 2.0, 4.0]);
        sum.add(&with(0, &[1, 4], &[10.0, 20.0])).unwrap();
        assert_eq!((sum.schema, sum.count), (0, 37.0));
        assert_eq!(sum.positive, Buckets { index: vec![1, 2, 4], count: vec![13.0, 4.0, 20.0] });
    }

    #[test]
    fn custom_bounds_meet_where_both_have_them() {
        let custom = |bounds: &[f64], count: &[f64]| Histogram {
            schema: super::super::CUSTOM_BUCKETS,
            custom_bounds: Arc::from(bounds),
            ..with(0, &(0..count.len() as i32).collect::<Vec<_>>(), count)
        };
        let mut sum = custom(&[1.0, 2.0, 3.0], &[1.0, 1.0, 1.0, 1.0]);
        let notes = sum.add(&custom(&[1.0, 3.0], &[5.0, 5.0])).unwrap();
        assert!(notes.bounds_reconciled);
        assert_eq!(*sum.custom_bounds, [1.0, 3.0]);
        assert_eq!(sum.positive.count, [6.0, 7.0, 1.0]);
        assert_eq!(sum.add(&with(0, &[], &[])), Err(Incompatible));
    }

    #[test]
    fn a_falling_bucket_is_a_reset() {
        let before = with(0, &[1, 2], &[3.0, 1.0]);
        assert!(!with(0, &[1, 2], &[3.0, 2.0]).is_reset_after(&before));
        assert!(with(0, &[1, 2], &[2.0, 9.0]).is_reset_after(&before));
        assert!(with(0, &[2], &[9.0]).is_reset_after(&before));
    }
}
