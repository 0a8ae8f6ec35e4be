//! Native histograms as they arrive: checked, and brought to a resolution that Prometheus keeps
//! (Prometheus' "Native Histograms" specification).

use trine_schema::{BucketSpans, CUSTOM_BOUNDS, NativeHistogram};

use crate::intake::{Fault, Reason, bad};

/// Finest resolution that is kept.
pub(crate) const MAX_SCHEMA: i32 = 8;
/// Coarsest resolution.
pub(crate) const MIN_SCHEMA: i32 = -4;
/// Finest resolution that may be sent.
const MAX_SENT_SCHEMA: i32 = 52;

fn refuse(text: String) -> Fault {
    Fault::Record(Reason::from(text))
}

/// Refuses a histogram that contradicts itself, and merges buckets that are finer than [`MAX_SCHEMA`].
pub(crate) fn normalize(histogram: &mut NativeHistogram) -> Result<(), Fault> {
    match histogram.schema {
        CUSTOM_BOUNDS => check_custom(histogram)?,
        MIN_SCHEMA..=MAX_SENT_SCHEMA => {
            if !histogram.custom_bounds.is_empty() {
                return Err(bad("a histogram with an exponential schema has custom bounds; drop them"));
            }
        }
        schema => {
            return Err(refuse(format!(
                "schema {schema} of a histogram is not known; use {MIN_SCHEMA} to {MAX_SCHEMA}, \
                 or {CUSTOM_BOUNDS} for custom bounds"
            )));
        }
    }
    if histogram.zero_count < 0.0 || histogram.count < 0.0 {
        return Err(bad("a histogram counts less than no observations; send counts of 0 or more"));
    }
    if histogram.zero_threshold.is_nan() || histogram.zero_threshold < 0.0 {
        return Err(bad("a histogram's zero threshold is not 0 or more; send its half width"));
    }
    let finer = histogram.schema - MAX_SCHEMA;
    for side in [&mut histogram.positive, &mut histogram.negative] {
        check_side(side)?;
        if finer > 0 {
            *side = coarser(side, finer.unsigned_abs());
        }
    }
    histogram.schema = histogram.schema.min(MAX_SCHEMA);
    Ok(())
}

fn check_custom(histogram: &NativeHistogram) -> Result<(), Fault> {
    let NativeHistogram { custom_bounds, positive, negative, .. } = histogram;
    if custom_bounds.iter().any(|bound| bound.is_nan() || *bound == f64::INFINITY)
        || custom_bounds.windows(2).any(|two| two[0] >= two[1])
    {
        return Err(bad("custom bounds of a histogram are not ascending numbers without +Inf; sort them"));
    }
    if histogram.zero_count != 0.0 || histogram.zero_threshold != 0.0 || *negative != BucketSpans::default() {
        return Err(bad("a histogram with custom bounds has a zero bucket or negative ones; it may not"));
    }
    let reach: i64 =
        positive.spans.iter().map(|(offset, length)| i64::from(*offset) + i64::from(*length)).sum();
    if positive.spans.first().is_some_and(|(offset, _)| *offset < 0) || reach > custom_bounds.len() as i64 + 1
    {
        return Err(bad("a histogram has buckets beyond its custom bounds; send a bound for each"));
    }
    Ok(())
}

fn check_side(side: &BucketSpans) -> Result<(), Fault> {
    let mut end = 0;
    for (number, (offset, length)) in side.spans.iter().enumerate() {
        if number > 0 && *offset < 0 {
            return Err(bad("spans of a histogram overlap; send them in order"));
        }
        end += i64::from(*offset) + i64::from(*length);
        if end > i64::from(i32::MAX) || end < i64::from(i32::MIN) {
            return Err(bad("a span of a histogram lies beyond all buckets; send indexes of 32 bits"));
        }
    }
    let needed: u64 = side.spans.iter().map(|(_, length)| u64::from(*length)).sum();
    if needed != side.counts.len() as u64 {
        let given = side.counts.len();
        return Err(refuse(format!(
            "spans of a histogram name {needed} buckets, {given} are given; send as many"
        )));
    }
    if side.counts.iter().any(|count| *count < 0.0) {
        return Err(bad("a bucket of a histogram counts less than nothing; send counts of 0 or more"));
    }
    Ok(())
}

/// The side with `2^steps` buckets merged into one. Bucket `i` ends at `base^i`, so that it falls into the
/// coarser bucket `ceil(i / 2^steps)`.
fn coarser(side: &BucketSpans, steps: u32) -> BucketSpans {
    let mut out = SideWriter::default();
    buckets(side, steps).for_each(|(index, count)| out.push(index, count));
    out.side
}

/// Refuses counts that do not add up: `found` observations in buckets of `count`. One that is no number has no
/// bucket, and makes the sum none.
pub(crate) fn check_count(found: i128, count: u64, sum: f64) -> Result<(), Fault> {
    if found == i128::from(count) || (found < i128::from(count) && sum.is_nan()) {
        return Ok(());
    }
    Err(refuse(format!("a histogram has {found} observations in buckets and counts {count}; send all")))
}

/// Adds `other` to a histogram with an exponential schema, at the coarser resolution of both. With different
/// zero thresholds the wider one stands; buckets within it keep their place.
pub(crate) fn add(histogram: &mut NativeHistogram, other: &NativeHistogram) {
    let schema = histogram.schema.min(other.schema);
    let sum = |left: &BucketSpans, right: &BucketSpans| {
        let finer = |schema_of: i32| (schema_of - schema).unsigned_abs();
        let mut right = buckets(right, finer(other.schema)).peekable();
        let mut out = SideWriter::default();
        for (index, count) in buckets(left, finer(histogram.schema)) {
            while let Some((index, count)) = right.next_if(|(other, _)| *other <= index) {
                out.push(index, count);
            }
            out.push(index, count);
        }
        right.for_each(|(index, count)| out.push(index, count));
        out.side
    };
    let positive = sum(&histogram.positive, &other.positive);
    let negative = sum(&histogram.negative, &other.negative);
    (histogram.positive, histogram.negative, histogram.schema) = (positive, negative, schema);
    histogram.zero_threshold = histogram.zero_threshold.max(other.zero_threshold);
    histogram.zero_count += other.zero_count;
    histogram.count += other.count;
    histogram.sum += other.sum;
}

/// Indexes and counts of the buckets of a side, with `2^steps` merged into one where they meet.
fn buckets(side: &BucketSpans, steps: u32) -> impl Iterator<Item = (i64, f64)> {
    let mut end = 0;
    let indexes = side.spans.iter().flat_map(move |(offset, length)| {
        let start = end + i64::from(*offset);
        end = start + i64::from(*length);
        start..end
    });
    indexes.map(move |index| target(index, steps)).zip(side.counts.iter().copied())
}

/// Index of the coarser bucket that holds bucket `index`.
pub(crate) fn target(index: i64, steps: u32) -> i64 {
    ((index - 1) >> steps.min(62)) + 1
}

/// Writes one side, bucket by bucket.
#[derive(Default)]
pub(crate) struct SideWriter {
    pub(crate) side: BucketSpans,
    /// Index behind the last bucket.
    end: i64,
}

impl SideWriter {
    /// Adds observations to the bucket at `index`, which never falls.
    pub(crate) fn push(&mut self, index: i64, count: f64) {
        match (self.side.spans.last_mut(), self.side.counts.last_mut()) {
            (Some(_), Some(last)) if index == self.end - 1 => {
                *last += count;
                return;
            }
            (Some((_, length)), Some(_)) if index == self.end => *length += 1,
            _ => {
                let mut gap = index - self.end;
                // Two gaps where one number does not hold it.
                if gap > i64::from(i32::MAX) {
                    self.side.spans.push((i32::MAX, 0));
                    gap -= i64::from(i32::MAX);
                }
                self.side.spans.push((gap as i32, 1));
            }
        }
        self.side.counts.push(count);
        self.end = index + 1;
    }
}
