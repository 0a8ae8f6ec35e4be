//! A vector at all steps at once: one column a series.

use std::sync::Arc;

use crate::{histogram::Histogram, labels::Labels, value::Sample};

/// Times at which a query is evaluated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Steps {
    /// The first, milliseconds.
    pub start: i64,
    /// Distance, milliseconds; at least 1.
    pub step: i64,
    /// How many; at least 1.
    pub count: usize,
}

impl Steps {
    pub fn time(&self, at: usize) -> i64 {
        self.start + self.step * at as i64
    }

    pub fn last(&self) -> i64 {
        self.time(self.count - 1)
    }

    pub fn first_only(&self) -> Self {
        Self { count: 1, ..*self }
    }
}

/// One bit a step.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Bits(Vec<u64>);

impl Bits {
    pub fn new(count: usize) -> Self {
        Self(vec![0; count.div_ceil(64)])
    }

    pub fn full(count: usize) -> Self {
        let mut bits = Self(vec![u64::MAX; count.div_ceil(64)]);
        if let Some(last) = bits.0.last_mut().filter(|_| !count.is_multiple_of(64)) {
            *last = (1 << (count % 64)) - 1;
        }
        bits
    }

    #[inline]
    pub fn get(&self, at: usize) -> bool {
        self.0[at / 64] >> (at % 64) & 1 == 1
    }

    #[inline]
    pub fn set(&mut self, at: usize) {
        self.0[at / 64] |= 1 << (at % 64);
    }

    #[inline]
    pub fn clear(&mut self, at: usize) {
        self.0[at / 64] &= !(1 << (at % 64));
    }

    pub fn reset(&mut self) {
        self.0.fill(0);
    }

    /// Whether all of so many bits are set.
    pub fn is_full(&self, count: usize) -> bool {
        let (words, rest) = (count / 64, count % 64);
        self.0[..words].iter().all(|word| *word == u64::MAX)
            && (rest == 0 || self.0[words] == (1 << rest) - 1)
    }

    pub fn copy_from(&mut self, other: &Self) {
        self.0.copy_from_slice(&other.0);
    }

    pub fn any(&self) -> bool {
        self.0.iter().any(|word| *word != 0)
    }

    pub fn count(&self) -> usize {
        self.0.iter().map(|word| word.count_ones() as usize).sum()
    }

    pub fn intersects(&self, other: &Self) -> bool {
        self.0.iter().zip(&other.0).any(|(a, b)| a & b != 0)
    }

    pub fn or(&mut self, other: &Self) {
        self.0.iter_mut().zip(&other.0).for_each(|(a, b)| *a |= b);
    }

    pub fn and(&mut self, other: &Self) {
        self.0.iter_mut().zip(&other.0).for_each(|(a, b)| *a &= b);
    }

    pub fn and_not(&mut self, other: &Self) {
        self.0.iter_mut().zip(&other.0).for_each(|(a, b)| *a &= !b);
    }

    /// Positions of the bits that are set.
    pub fn iter(&self) -> impl Iterator<Item = usize> + '_ {
        self.0.iter().enumerate().flat_map(|(at, word)| {
            let mut rest = *word;
            std::iter::from_fn(move || {
                (rest != 0).then(|| {
                    let bit = rest.trailing_zeros() as usize;
                    rest &= rest - 1;
                    at * 64 + bit
                })
            })
        })
    }
}

/// One series at all steps. Where `present` is not set, there is a histogram or nothing.
#[derive(Clone, Debug, Default)]
pub(crate) struct Column {
    pub labels: Labels,
    /// The metric's name is to go when the query is done.
    pub drop_name: bool,
    pub floats: Vec<f64>,
    pub present: Bits,
    /// Histograms by step; empty if the series has none.
    pub histograms: Vec<Option<Arc<Histogram>>>,
}

impl Column {
    pub fn new(labels: Labels, count: usize) -> Self {
        Self { labels, floats: vec![0.0; count], present: Bits::new(count), ..Self::default() }
    }

    #[inline]
    pub fn set_float(&mut self, at: usize, value: f64) {
        self.floats[at] = value;
        self.present.set(at);
    }

    pub fn set(&mut self, at: usize, sample: Sample) {
        match sample {
            Sample::Float(value) => self.set_float(at, value),
            Sample::Histogram(histogram) => self.set_histogram(at, histogram),
        }
    }

    pub fn set_histogram(&mut self, at: usize, histogram: Arc<Histogram>) {
        if self.histograms.is_empty() {
            self.histograms.resize(self.floats.len(), None);
        }
        self.histograms[at] = Some(histogram);
    }

    pub fn histogram(&self, at: usize) -> Option<&Arc<Histogram>> {
        self.histograms.get(at)?.as_ref()
    }

    pub fn sample(&self, at: usize) -> Option<Sample> {
        if self.present.get(at) {
            Some(Sample::Float(self.floats[at]))
        } else {
            self.histogram(at).cloned().map(Sample::Histogram)
        }
    }

    /// Steps with a sample of either kind.
    pub fn filled(&self) -> Bits {
        let mut bits = self.present.clone();
        for (at, histogram) in self.histograms.iter().enumerate() {
            if histogram.is_some() {
                bits.set(at);
            }
        }
        bits
    }

    pub fn is_empty(&self) -> bool {
        !self.present.any() && self.histograms.iter().all(Option::is_none)
    }

    /// Keeps only samples at these steps.
    pub fn keep(&mut self, steps: &Bits) {
        self.present.and(steps);
        for (at, histogram) in self.histograms.iter_mut().enumerate() {
            if !steps.get(at) {
                *histogram = None;
            }
        }
    }

    /// How many float samples it counts for.
    pub fn cost(&self) -> usize {
        let histograms = self.histograms.iter().flatten().map(|histogram| histogram.cost());
        self.present.count() + histograms.sum::<usize>()
    }

    /// The one sample of a column, at this many steps.
    pub fn repeated(self, count: usize) -> Self {
        match self.sample(0) {
            Some(Sample::Float(value)) => Self {
                floats: vec![value; count],
                present: Bits::full(count),
                histograms: Vec::new(),
                ..self
            },
            Some(Sample::Histogram(histogram)) => Self {
                floats: vec![0.0; count],
                present: Bits::new(count),
                histograms: vec![Some(histogram); count],
                ..self
            },
            None => Self { floats: vec![0.0; count], present: Bits::new(count), ..self },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bits_hold_what_is_set() {
        let mut bits = Bits::new(130);
        [0, 63, 64, 129].into_iter().for_each(|at| bits.set(at));
        assert_eq!(bits.iter().collect::<Vec<_>>(), [0, 63, 64, 129]);
        assert_eq!((bits.count(), Bits::full(130).count()), (4, 130));
        bits.and_not(&Bits::full(130));
        assert!(!bits.any());
    }
}
