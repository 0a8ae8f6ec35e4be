//! Sums with compensation (Neumaier's form of Kahan's), step by step as Prometheus adds.

/// A running sum and what rounding has taken from it.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Kahan {
    pub sum: f64,
    pub lost: f64,
}

impl Kahan {
    pub fn new(sum: f64) -> Self {
        Self { sum, lost: 0.0 }
    }

    /// Adds a value. Once the sum is infinite nothing is compensated any more.
    #[inline]
    pub fn add(&mut self, value: f64) {
        let total = self.sum + value;
        let larger = self.sum.abs() >= value.abs();
        let (large, small) = if larger { (self.sum, value) } else { (value, self.sum) };
        let lost = self.lost + ((large - total) + small);
        // No branch but choices, so that sums of many steps are done several at once.
        self.lost = if total.is_infinite() { 0.0 } else { lost };
        self.sum = total;
    }

    /// The sum with its compensation.
    #[inline]
    pub fn total(self) -> f64 {
        self.sum + self.lost
    }
}

/// The mean of values that come one by one, also where their sum is no longer finite.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Mean {
    kahan: Kahan,
    count: f64,
    incremental: bool,
}

impl Mean {
    pub fn new(first: f64) -> Self {
        Self { kahan: Kahan::new(first), count: 1.0, incremental: false }
    }

    pub fn add(&mut self, value: f64) {
        self.count += 1.0;
        if !self.incremental {
            let mut next = self.kahan;
            next.add(value);
            if !next.sum.is_infinite() {
                self.kahan = next;
                return;
            }
            self.incremental = true;
            self.kahan.sum /= self.count - 1.0;
            self.kahan.lost /= self.count - 1.0;
        }
        let weight = (self.count - 1.0) / self.count;
        self.kahan.sum *= weight;
        self.kahan.lost *= weight;
        self.kahan.add(value / self.count);
    }

    /// Takes another mean's values in.
    pub fn merge(&mut self, other: Self) {
        let count = self.count + other.count;
        if !self.incremental && !other.incremental {
            let mut sum = self.kahan;
            sum.add(other.kahan.sum);
            sum.lost += other.kahan.lost;
            if !sum.sum.is_infinite() {
                *self = Self { kahan: sum, count, incremental: false };
                return;
            }
        }
        let (mine, theirs) = (self.mean(), other.mean());
        let mut kahan = Kahan::new(mine * (self.count / count));
        kahan.add(theirs * (other.count / count));
        *self = Self { kahan, count, incremental: true };
    }

    pub fn mean(self) -> f64 {
        if self.incremental {
            self.kahan.total()
        } else {
            self.kahan.sum / self.count + self.kahan.lost / self.count
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn small_values_survive_large_ones() {
        let mut sum = Kahan::default();
        [1e100, 1.0, -1e100].into_iter().for_each(|value| sum.add(value));
        assert!((sum.total() - 1.0).abs() < f64::EPSILON);
    }

    #[test]
    fn a_mean_does_not_overflow() {
        let mut mean = Mean::new(f64::MAX);
        mean.add(f64::MAX);
        assert!((mean.mean() / f64::MAX - 1.0).abs() < 1e-12);
    }
}
