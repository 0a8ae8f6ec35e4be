//! Native histograms as runs of columns, and back.
//!
//! A run has one schema, one zero threshold and one list of bounds; its buckets are those that any of its
//! samples has, so a bucket that a sample lacks is an empty one. What cannot be laid out like this is *odd* and
//! is stored as it came.

use std::{ops::RangeInclusive, sync::Arc};

use trine_chunks::{BlockWriter, Bounds, Buckets, ChunkError, HistogramLayout, MAX_SAMPLES};
use trine_schema::{BucketSpans, CUSTOM_BOUNDS, NativeHistogram, ResetHint, metrics::STALE_NAN};

/// Most buckets of one run.
const MAX_BUCKETS: i64 = 3_500;
/// Buckets by which a run may be wider than twice its widest sample.
const SLACK: i64 = 32;
/// Most numbers of one run.
const MAX_VALUES: i64 = 1 << 20;
/// Bits of a layout's flags: the reset hint of all samples, …
const HINT: u32 = 3;
/// … instead of it a column of hints, the first of the extra ones, …
const HINTS: u32 = 4;
/// … and a column of when the counters began, the last of the extra ones.
const STARTS: u32 = 8;

/// Layout of floats with a second column: when their counters began.
pub(super) const FLOATS_WITH_STARTS: &[u8] = &[1];

/// First and last bucket of each side.
#[derive(Debug, Clone, Default, PartialEq)]
struct Extent {
    positive: Option<RangeInclusive<i64>>,
    negative: Option<RangeInclusive<i64>>,
}

fn width(side: Option<&RangeInclusive<i64>>) -> i64 {
    side.map_or(0, |side| side.end() - side.start() + 1)
}

fn union(a: Option<&RangeInclusive<i64>>, b: Option<&RangeInclusive<i64>>) -> Option<RangeInclusive<i64>> {
    match (a, b) {
        (Some(a), Some(b)) => Some(*a.start().min(b.start())..=*a.end().max(b.end())),
        (one, other) => one.or(other).cloned(),
    }
}

impl Extent {
    fn width(&self) -> i64 {
        width(self.positive.as_ref()) + width(self.negative.as_ref())
    }

    fn with(&self, other: &Self) -> Self {
        Self {
            positive: union(self.positive.as_ref(), other.positive.as_ref()),
            negative: union(self.negative.as_ref(), other.negative.as_ref()),
        }
    }
}

/// The buckets of a side by index; `None` when spans and counts do not fit together.
fn buckets(side: &BucketSpans) -> Option<impl Iterator<Item = (i64, f64)>> {
    let mut next = 0i64;
    let mut total = 0u64;
    for (place, (offset, length)) in side.spans.iter().enumerate() {
        if place > 0 && *offset < 0 {
            return None;
        }
        next += i64::from(*offset) + i64::from(*length);
        total += u64::from(*length);
        if total > side.counts.len() as u64 || i32::try_from(next).is_err() {
            return None;
        }
    }
    if total != side.counts.len() as u64 {
        return None;
    }
    let indexes = side.spans.iter().scan(0i64, |end, (offset, length)| {
        let start = *end + i64::from(*offset);
        *end = start + i64::from(*length);
        Some(start..*end)
    });
    Some(indexes.flatten().zip(side.counts.iter().copied()))
}

/// `Some(None)` of a side without buckets, `None` of a malformed one.
#[allow(clippy::option_option)] // malformed and empty are different things
fn extent(side: &BucketSpans) -> Option<Option<RangeInclusive<i64>>> {
    let (mut first, mut last) = (None, None);
    for (index, _) in buckets(side)? {
        first = first.or(Some(index));
        last = Some(index);
    }
    Some(first.zip(last).map(|(first, last)| first..=last))
}

/// Whether a sample only says that the series ended.
fn is_stale(histogram: &NativeHistogram) -> bool {
    histogram.sum.to_bits() == STALE_NAN
        && histogram.positive.counts.is_empty()
        && histogram.negative.counts.is_empty()
        && histogram.count.to_bits() == 0
        && histogram.zero_count.to_bits() == 0
}

/// Where the buckets lie; `None` of odd histograms.
fn layable(histogram: &NativeHistogram) -> Option<Extent> {
    let found = Extent { positive: extent(&histogram.positive)?, negative: extent(&histogram.negative)? };
    let fits = if histogram.schema == CUSTOM_BOUNDS {
        let inside = |side: &RangeInclusive<i64>| {
            *side.start() >= 0 && *side.end() <= histogram.custom_bounds.len() as i64
        };
        found.negative.is_none()
            && found.positive.as_ref().is_none_or(inside)
            && histogram.custom_bounds.len() as i64 <= MAX_BUCKETS
            && histogram.zero_count.to_bits() == 0
            && histogram.zero_threshold.to_bits() == 0
    } else {
        histogram.custom_bounds.is_empty() && found.width() <= MAX_BUCKETS
    };
    fits.then_some(found)
}

fn same_bounds(a: &NativeHistogram, b: &NativeHistogram) -> bool {
    let bits = |bounds: &[f64]| bounds.iter().map(|bound| bound.to_bits()).collect::<Vec<_>>();
    a.schema == b.schema
        && a.zero_threshold.to_bits() == b.zero_threshold.to_bits()
        && a.custom_bounds.len() == b.custom_bounds.len()
        && bits(&a.custom_bounds) == bits(&b.custom_bounds)
}

/// A run that is being gathered.
#[derive(Default)]
struct Gathered {
    /// Positions of its samples.
    samples: Vec<usize>,
    /// A sample that tells schema and bounds; none while all are stale markers.
    model: Option<usize>,
    extent: Extent,
    widest: i64,
}

/// Writes histograms, ascending in time, as runs of a series. Returns the positions of the odd ones, which
/// were not written, and the number of runs. `starts` is empty if nothing is known.
pub(super) fn push(
    writer: &mut BlockWriter,
    series: u32,
    times: &[i64],
    histograms: &[Arc<NativeHistogram>],
    starts: &[i64],
) -> Result<(Vec<usize>, usize), ChunkError> {
    let (mut odd, mut runs) = (Vec::new(), 0);
    let mut run = Gathered::default();
    for (at, histogram) in histograms.iter().enumerate() {
        let stale = is_stale(histogram);
        let Some(own) = (if stale { Some(Extent::default()) } else { layable(histogram) }) else {
            odd.push(at);
            continue;
        };
        let (wider, widest) = (run.extent.with(&own), run.widest.max(own.width()));
        let fits = run.samples.len() < MAX_SAMPLES
            && (stale || run.model.is_none_or(|model| same_bounds(&histograms[model], histogram)))
            && wider.width() <= MAX_BUCKETS
            && (run.samples.len() as i64 + 1) * (wider.width() + 8) <= MAX_VALUES
            && wider.width() <= 2 * widest + SLACK;
        if !fits {
            write(writer, series, &run, (times, histograms, starts))?;
            runs += 1;
            run = Gathered::default();
        }
        run.extent = run.extent.with(&own);
        run.widest = run.widest.max(own.width());
        run.model = run.model.or((!stale).then_some(at));
        run.samples.push(at);
    }
    if !run.samples.is_empty() {
        write(writer, series, &run, (times, histograms, starts))?;
        runs += 1;
    }
    Ok((odd, runs))
}

fn write(
    writer: &mut BlockWriter,
    series: u32,
    run: &Gathered,
    (times, histograms, starts): (&[i64], &[Arc<NativeHistogram>], &[i64]),
) -> Result<(), ChunkError> {
    let samples = || run.samples.iter().map(|at| &histograms[*at]);
    let model = &histograms[run.model.unwrap_or(run.samples[0])];
    let hint = histograms[run.samples[0]].reset_hint;
    let hints = samples().any(|sample| sample.reset_hint != hint);
    let known = run.samples.iter().any(|at| starts.get(*at).is_some_and(|start| *start != 0));
    let flags = if hints { HINTS } else { hint as u32 } | if known { STARTS } else { 0 };
    let side = |side: Option<&RangeInclusive<i64>>| Buckets {
        offset: side.map_or(0, |side| *side.start() as i32),
        len: width(side) as u32,
    };
    let custom = run.model.is_some() && model.schema == CUSTOM_BOUNDS;
    let bounds = if custom {
        Bounds::Explicit(model.custom_bounds.clone())
    } else {
        Bounds::Exponential {
            scale: model.schema,
            zero_threshold: model.zero_threshold,
            positive: side(run.extent.positive.as_ref()),
            negative: side(run.extent.negative.as_ref()),
        }
    };
    let layout = HistogramLayout { bounds, extra: u32::from(hints) + u32::from(known), flags };
    let mut columns: Vec<Vec<f64>> = Vec::with_capacity(layout.columns());
    columns.push(samples().map(|sample| sample.count).collect());
    columns.push(samples().map(|sample| sample.sum).collect());
    if hints {
        columns.push(samples().map(|sample| f64::from(sample.reset_hint as u8)).collect());
    }
    if known {
        columns.push(run.samples.iter().map(|at| starts[*at] as f64).collect());
    }
    if !custom {
        columns.push(samples().map(|sample| sample.zero_count).collect());
    }
    let first = columns.len();
    columns.resize(layout.columns(), vec![0.0; run.samples.len()]);
    let origins = match &layout.bounds {
        Bounds::Explicit(_) => [(first, 0), (first, 0)],
        Bounds::Exponential { positive, negative, .. } => {
            [(first, i64::from(positive.offset)), (first + positive.len as usize, i64::from(negative.offset))]
        }
    };
    for (row, sample) in samples().enumerate() {
        for (side, (first, offset)) in [&sample.positive, &sample.negative].into_iter().zip(origins) {
            for (index, count) in buckets(side).into_iter().flatten() {
                columns[first + (index - offset) as usize][row] = count;
            }
        }
    }
    let times: Vec<i64> = run.samples.iter().map(|at| times[*at]).collect();
    let columns: Vec<&[f64]> = columns.iter().map(Vec::as_slice).collect();
    writer.push_run(series, &times, &layout.to_bytes(), &columns)
}

/// The histograms of a run, `samples` of them in these columns, one behind the other; and when their counters
/// began, if that is known. `None` when layout and columns do not fit together.
pub(super) fn read(
    layout: &[u8],
    samples: usize,
    columns: &[f64],
) -> Option<(Vec<Arc<NativeHistogram>>, Vec<i64>)> {
    let layout = HistogramLayout::parse(layout).ok()?;
    let (hints, known) = (layout.flags & HINTS != 0, layout.flags & STARTS != 0);
    if samples.checked_mul(layout.columns()) != Some(columns.len())
        || layout.extra != u32::from(hints) + u32::from(known)
    {
        return None;
    }
    let column = |column: usize| &columns[column * samples..(column + 1) * samples];
    let extra = 2 + layout.extra as usize;
    let mut histograms = Vec::with_capacity(samples);
    for row in 0..samples {
        let hint = if hints { column(2)[row] as u32 } else { layout.flags & HINT };
        let mut histogram = NativeHistogram {
            reset_hint: match hint {
                1 => ResetHint::Reset,
                2 => ResetHint::NotReset,
                3 => ResetHint::Gauge,
                _ => ResetHint::Unknown,
            },
            count: column(0)[row],
            sum: column(1)[row],
            ..NativeHistogram::default()
        };
        let side = |first: usize, buckets: Buckets| {
            let counts = (0..buckets.len as usize).map(|bucket| column(first + bucket)[row]);
            spans(i64::from(buckets.offset), counts)
        };
        match &layout.bounds {
            Bounds::Explicit(bounds) => {
                histogram.positive = side(extra, Buckets { offset: 0, len: bounds.len() as u32 + 1 });
            }
            Bounds::Exponential { positive, negative, .. } => {
                histogram.zero_count = column(extra)[row];
                histogram.positive = side(extra + 1, *positive);
                histogram.negative = side(extra + 1 + positive.len as usize, *negative);
            }
        }
        if !is_stale(&histogram) {
            match &layout.bounds {
                Bounds::Explicit(bounds) => {
                    histogram.schema = CUSTOM_BOUNDS;
                    histogram.custom_bounds.clone_from(bounds);
                }
                Bounds::Exponential { scale, zero_threshold, .. } => {
                    histogram.schema = *scale;
                    histogram.zero_threshold = *zero_threshold;
                }
            }
        }
        histograms.push(Arc::new(histogram));
    }
    let starts =
        if known { column(extra - 1).iter().map(|start| *start as i64).collect() } else { Vec::new() };
    Some((histograms, starts))
}

/// Buckets with counts as spans; the first has index `offset`.
fn spans(offset: i64, counts: impl Iterator<Item = f64>) -> BucketSpans {
    let mut side = BucketSpans::default();
    let mut end = 0i64;
    for (index, count) in (offset..).zip(counts).filter(|(_, count)| count.to_bits() != 0) {
        match side.spans.last_mut() {
            Some((_, length)) if index == end => *length += 1,
            _ => side.spans.push(((index - end) as i32, 1)),
        }
        end = index + 1;
        side.counts.push(count);
    }
    side
}
