//! Samples of one series folded into slots, and windows read from slots.
//!
//! Window `i` takes samples in `(origin + i*step, origin + i*step + range]`. The windows' edges
//! cut time into slots; a sample is folded into its slot when it comes and forgotten. Windows
//! that overlap are read with two running stacks, so that each costs a few merges whatever their
//! width.

use super::{Grid, missing};
use crate::ast::RangeOp;

/// Where the slots lie.
#[derive(Debug, Clone, Copy)]
pub struct Slots {
    /// The first window begins behind this instant.
    pub origin: i64,
    step: i64,
    range: i64,
    /// `range` modulo `step`; 0 gives one slot per step, else two.
    rest: i64,
    /// Number of windows.
    steps: usize,
}

impl Slots {
    /// For windows that end at the grid's times, `offset` earlier.
    pub fn new(grid: Grid, range: i64, offset: i64) -> Option<Self> {
        let step = if grid.steps == 1 { range } else { grid.step };
        let origin = grid.start.checked_sub(offset)?.checked_sub(range)?;
        Some(Self { origin, step, range, rest: range % step, steps: grid.steps })
    }

    /// First instant of any window, inclusive.
    pub fn first(&self) -> i64 {
        self.origin.saturating_add(1)
    }

    /// Last instant of any window, inclusive.
    pub fn last(&self) -> i64 {
        self.origin.saturating_add(self.range).saturating_add(self.step.saturating_mul(self.steps as i64 - 1))
    }

    /// The slot of an instant; `None` in a gap between windows and outside of them.
    pub fn slot(&self, timestamp: i64) -> Option<usize> {
        self.span(timestamp).0
    }

    /// The slot of an instant, and the first and last instant for which the answer is the same.
    pub fn span(&self, timestamp: i64) -> (Option<usize>, i64, i64) {
        let past = match timestamp.checked_sub(self.origin) {
            Some(past) if past > 0 => past - 1,
            _ => return (None, timestamp, timestamp),
        };
        let period = past / self.step;
        let within = past - period * self.step;
        let begin = self.first() + period * self.step;
        let (slot, from, to) = if self.rest == 0 {
            (period as usize, begin, begin.saturating_add(self.step - 1))
        } else if within < self.rest {
            (2 * period as usize, begin, begin + self.rest - 1)
        } else {
            (2 * period as usize + 1, begin + self.rest, begin.saturating_add(self.step - 1))
        };
        let gap = self.range < self.step && within >= self.range;
        let inside = !gap && slot < self.window(self.steps - 1).1;
        (inside.then_some(slot), from, to)
    }

    /// First slot of a window and the slot behind its last.
    pub fn window(&self, at: usize) -> (usize, usize) {
        let whole = (self.range / self.step) as usize;
        if self.rest == 0 { (at, at + whole) } else { (2 * at, 2 * (at + whole) + 1) }
    }
}

/// What becomes of the samples of a slot.
pub trait Accumulator: Default + Clone + Send {
    /// Takes in one sample.
    fn add(&mut self, timestamp: i64, value: f64);
    /// Takes in those of another slot.
    fn merge(&mut self, other: &Self);
    /// Whether no sample came.
    fn is_empty(&self) -> bool;
    /// The function's value.
    fn value(&self, op: &Function) -> f64;
    /// Heap bytes that one more sample takes at most.
    const SAMPLE_BYTES: usize = 0;
}

/// A range function and its numbers.
#[derive(Debug, Clone, Copy)]
pub struct Function {
    /// The function.
    pub op: RangeOp,
    /// The quantile.
    pub parameter: f64,
    /// Width of the range in seconds.
    pub seconds: f64,
    /// Last instant of the window at hand, nanoseconds.
    pub end: i64,
}

/// Number and sum: counts, bytes, sums, rates. Whole numbers up to 2^53 stay exact.
#[derive(Debug, Clone, Default)]
pub struct Total {
    samples: u64,
    sum: f64,
}

impl Total {
    /// Takes in `count` samples of 1 at once.
    pub fn add_count(&mut self, count: u64) {
        self.samples += count;
        self.sum += count as f64;
    }
}

impl Accumulator for Total {
    fn add(&mut self, _timestamp: i64, value: f64) {
        self.samples += 1;
        self.sum += value;
    }

    fn merge(&mut self, other: &Self) {
        self.samples += other.samples;
        self.sum += other.sum;
    }

    fn is_empty(&self) -> bool {
        self.samples == 0
    }

    fn value(&self, function: &Function) -> f64 {
        match function.op {
            RangeOp::Rate | RangeOp::BytesRate => self.sum / function.seconds,
            RangeOp::AbsentOverTime => 1.0,
            _ => self.sum,
        }
    }
}

/// Mean and spread, by Welford's method.
#[derive(Debug, Clone, Default)]
pub struct Moments {
    samples: f64,
    mean: f64,
    squares: f64,
}

impl Accumulator for Moments {
    fn add(&mut self, _timestamp: i64, value: f64) {
        self.samples += 1.0;
        let delta = value - self.mean;
        self.mean += delta / self.samples;
        self.squares += delta * (value - self.mean);
    }

    fn merge(&mut self, other: &Self) {
        if other.samples == 0.0 {
            return;
        }
        let samples = self.samples + other.samples;
        let delta = other.mean - self.mean;
        self.squares += other.squares + delta * delta * self.samples * other.samples / samples;
        self.mean += delta * other.samples / samples;
        self.samples = samples;
    }

    fn is_empty(&self) -> bool {
        self.samples == 0.0
    }

    fn value(&self, function: &Function) -> f64 {
        match function.op {
            RangeOp::AvgOverTime => self.mean,
            RangeOp::StdvarOverTime => self.squares / self.samples,
            _ => (self.squares / self.samples).sqrt(),
        }
    }
}

/// Least and greatest, earliest and latest.
#[derive(Debug, Clone, Default)]
pub struct Extremes(Option<Ends>);

#[derive(Debug, Clone)]
struct Ends {
    min: f64,
    max: f64,
    first: (i64, f64),
    last: (i64, f64),
}

impl Accumulator for Extremes {
    fn add(&mut self, timestamp: i64, value: f64) {
        let one = Ends { min: value, max: value, first: (timestamp, value), last: (timestamp, value) };
        self.merge(&Self(Some(one)));
    }

    fn merge(&mut self, other: &Self) {
        match (&mut self.0, &other.0) {
            (_, None) => {}
            (None, Some(other)) => self.0 = Some(other.clone()),
            (Some(ends), Some(other)) => {
                ends.min = ends.min.min(other.min);
                ends.max = ends.max.max(other.max);
                if other.first.0 < ends.first.0 {
                    ends.first = other.first;
                }
                if other.last.0 >= ends.last.0 {
                    ends.last = other.last;
                }
            }
        }
    }

    fn is_empty(&self) -> bool {
        self.0.is_none()
    }

    fn value(&self, function: &Function) -> f64 {
        self.0.as_ref().map_or_else(missing, |ends| match function.op {
            RangeOp::MinOverTime => ends.min,
            RangeOp::MaxOverTime => ends.max,
            RangeOp::FirstOverTime => ends.first.1,
            _ => ends.last.1,
        })
    }
}

/// Every sample: quantiles and counters need them.
#[derive(Debug, Clone, Default)]
pub struct Samples(Vec<(i64, f64)>);

impl Accumulator for Samples {
    const SAMPLE_BYTES: usize = 2 * size_of::<(i64, f64)>();

    fn add(&mut self, timestamp: i64, value: f64) {
        self.0.push((timestamp, value));
    }

    fn merge(&mut self, other: &Self) {
        self.0.extend_from_slice(&other.0);
    }

    fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    fn value(&self, function: &Function) -> f64 {
        if function.op == RangeOp::RateCounter {
            return counter_rate(&self.0, function);
        }
        let mut values: Vec<f64> = self.0.iter().map(|sample| sample.1).collect();
        quantile(&mut values, function.parameter)
    }
}

/// The φ-quantile by linear interpolation, as Prometheus defines it.
fn quantile(values: &mut [f64], q: f64) -> f64 {
    if q < 0.0 {
        return f64::NEG_INFINITY;
    }
    if q > 1.0 {
        return f64::INFINITY;
    }
    values.sort_unstable_by(f64::total_cmp);
    let rank = q * (values.len() - 1) as f64;
    let (lower, upper) = (rank.floor() as usize, (rank.ceil() as usize).min(values.len() - 1));
    let weight = rank - rank.floor();
    values[lower] * (1.0 - weight) + values[upper] * weight
}

/// Per-second increase of a counter, with resets and extrapolation to the window's edges, as
/// Prometheus defines `rate`.
fn counter_rate(samples: &[(i64, f64)], function: &Function) -> f64 {
    let mut samples = samples.to_vec();
    samples.sort_by_key(|sample| sample.0);
    let [first, .., last] = samples.as_slice() else { return missing() };
    let resets: f64 = samples.windows(2).filter(|two| two[1].1 < two[0].1).map(|two| two[0].1).sum();
    let increase = last.1 - first.1 + resets;
    let seconds = |nanoseconds: i64| nanoseconds as f64 / 1e9;
    let sampled = seconds(last.0 - first.0);
    if sampled <= 0.0 {
        return missing();
    }
    let average = sampled / (samples.len() - 1) as f64;
    let mut to_start = function.seconds - seconds(function.end - first.0);
    let mut to_end = seconds(function.end - last.0);
    if to_start >= average * 1.1 {
        to_start = average / 2.0;
    }
    if increase > 0.0 && first.1 >= 0.0 {
        // A counter does not begin below zero.
        to_start = to_start.min(sampled * (first.1 / increase));
    }
    if to_end >= average * 1.1 {
        to_end = average / 2.0;
    }
    increase * ((sampled + to_start + to_end) / sampled) / function.seconds
}

/// Slots of one series, stored from the first to the last that has samples.
#[derive(Debug, Clone, Default)]
pub struct SlotSeries<A> {
    first: usize,
    slots: Vec<A>,
}

impl<A: Accumulator> SlotSeries<A> {
    /// The slot, made when it is new. Adds the bytes it took to `bytes`.
    pub fn slot(&mut self, at: usize, bytes: &mut usize) -> &mut A {
        let before = self.slots.len();
        if self.slots.is_empty() {
            self.first = at;
        }
        if at < self.first {
            // Batches come in no order; growing to the front by halves keeps the copying small.
            let room = (self.first - at).max(self.slots.len() / 2).min(self.first);
            self.slots.splice(0..0, std::iter::repeat_n(A::default(), room));
            self.first -= room;
        }
        if at - self.first >= self.slots.len() {
            self.slots.resize(at - self.first + 1, A::default());
        }
        *bytes += (self.slots.len() - before) * size_of::<A>();
        &mut self.slots[at - self.first]
    }

    /// Slots that have samples.
    pub fn filled(&self) -> impl Iterator<Item = (usize, &A)> {
        let numbered = self.slots.iter().enumerate().map(|(at, slot)| (self.first + at, slot));
        numbered.filter(|(_, slot)| !slot.is_empty())
    }

    /// Values of all windows.
    pub fn finish(&self, slots: &Slots, mut function: Function) -> Vec<f64> {
        let end = self.first + self.slots.len();
        let mut values = Vec::with_capacity(slots.steps);
        // Suffixes of `[.., middle)` and the running merge of `[middle, right)`.
        let mut suffixes: Vec<A> = Vec::new();
        let (mut left_edge, mut middle, mut right) = (0, 0, 0);
        let mut back = A::default();
        for at in 0..slots.steps {
            function.end = slots.origin + slots.range + slots.step * at as i64;
            let (from, to) = slots.window(at);
            let (from, to) = (from.clamp(self.first, end), to.clamp(self.first, end));
            if from >= middle {
                suffixes.clear();
                let mut merged = A::default();
                for slot in (from..to).rev() {
                    merged.merge(&self.slots[slot - self.first]);
                    suffixes.push(merged.clone());
                }
                suffixes.reverse();
                (left_edge, middle, right) = (from, to.max(from), to.max(from));
                back = A::default();
            }
            while right < to {
                back.merge(&self.slots[right - self.first]);
                right += 1;
            }
            let mut window = suffixes.get(from - left_edge).cloned().unwrap_or_default();
            window.merge(&back);
            values.push(if window.is_empty() { missing() } else { window.value(&function) });
        }
        values
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// Slots and stacks give what looking at every sample for every window gives.
        #[test]
        fn windows_hold_exactly_their_samples(
            start in -50i64..50, step in 1i64..20, steps in 1usize..20, range in 1i64..60, offset in -10i64..10,
            samples in prop::collection::vec((-120i64..500, 1i64..9), 0..60),
        ) {
            let grid = Grid { start, step, steps };
            let slots = Slots::new(grid, range, offset).unwrap();
            let mut total = SlotSeries::<Total>::default();
            let mut extremes = SlotSeries::<Extremes>::default();
            let mut bytes = 0;
            for (time, value) in &samples {
                let (slot, from, to) = slots.span(*time);
                prop_assert!(from <= *time && *time <= to);
                prop_assert!(slots.slot(from) == slot && slots.slot(to) == slot);
                if let Some(slot) = slot {
                    prop_assert!(*time >= slots.first() && *time <= slots.last());
                    total.slot(slot, &mut bytes).add(*time, *value as f64);
                    extremes.slot(slot, &mut bytes).add(*time, *value as f64);
                }
            }
            let function = |op| Function { op, parameter: 0.0, seconds: 1.0, end: 0 };
            let sums = total.finish(&slots, function(RangeOp::SumOverTime));
            let highest = extremes.finish(&slots, function(RangeOp::MaxOverTime));
            for at in 0..steps {
                let end = start + step * at as i64 - offset;
                let inside: Vec<i64> = samples
                    .iter()
                    .filter(|(time, _)| *time > end - range && *time <= end)
                    .map(|(_, value)| *value)
                    .collect();
                if inside.is_empty() {
                    prop_assert!(super::super::is_missing(sums[at]) && super::super::is_missing(highest[at]));
                } else {
                    prop_assert_eq!(sums[at] as i64, inside.iter().sum::<i64>());
                    prop_assert_eq!(highest[at] as i64, *inside.iter().max().unwrap());
                }
            }
        }
    }

    #[test]
    fn quantiles_interpolate() {
        assert!((quantile(&mut [1.0, 2.0, 3.0, 4.0], 0.5) - 2.5).abs() < 1e-12);
        assert!((quantile(&mut [4.0], 0.99) - 4.0).abs() < 1e-12);
    }
}
