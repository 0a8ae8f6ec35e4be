//! `min_over_time` and `max_over_time` over windows that move forward: a queue keeps the samples that can still
//! become the best of a window, so that each sample is looked at about twice however many windows see it.

use std::collections::VecDeque;

/// Which value of a window is wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Extreme {
    Min,
    Max,
}

impl Extreme {
    /// Of the function of a name.
    pub fn of(name: &str) -> Option<Self> {
        match name {
            "min_over_time" => Some(Self::Min),
            "max_over_time" => Some(Self::Max),
            _ => None,
        }
    }
}

/// The samples of a window that no later one of the window surpasses, best first.
#[derive(Debug, Default)]
pub(super) struct Extremes {
    queue: VecDeque<usize>,
    seen: usize,
}

impl Extremes {
    /// Begins with another series.
    pub fn clear(&mut self) {
        self.queue.clear();
        self.seen = 0;
    }

    /// The best value of `values[from..to]`, the first of equal ones; NaN only if there is no other. Neither end
    /// may lie before that of the window before. The window must not be empty.
    pub fn of(&mut self, values: &[f64], from: usize, to: usize, wanted: Extreme) -> f64 {
        for at in self.seen.max(from)..to {
            let value = values[at];
            if value.is_nan() {
                continue;
            }
            let surpassed = |last: &usize| match wanted {
                Extreme::Min => value < values[*last],
                Extreme::Max => value > values[*last],
            };
            while self.queue.back().is_some_and(surpassed) {
                self.queue.pop_back();
            }
            self.queue.push_back(at);
        }
        self.seen = to;
        while self.queue.front().is_some_and(|first| *first < from) {
            self.queue.pop_front();
        }
        self.queue.front().map_or(f64::NAN, |best| values[*best])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moving_windows_have_the_extremes_of_their_samples() {
        let mut state = 1u64;
        let mut next = move |below: u64| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 33) % below
        };
        let mut extremes = Extremes::default();
        for _ in 0..500 {
            let values: Vec<f64> = (0..60)
                .map(|_| match next(12) {
                    0 => f64::NAN,
                    1 => -0.0,
                    value => value as f64 - 2.0,
                })
                .collect();
            for wanted in [Extreme::Min, Extreme::Max] {
                extremes.clear();
                let (mut from, mut to) = (0, 0);
                while to < values.len() {
                    to = (to + 1 + next(9) as usize).min(values.len());
                    from = (from + next(9) as usize).min(to - 1);
                    let plain = values[from..to].iter().copied().reduce(|best, value| {
                        let better = if wanted == Extreme::Min { value < best } else { value > best };
                        if better || best.is_nan() { value } else { best }
                    });
                    let found = extremes.of(&values, from, to, wanted);
                    let plain = plain.unwrap();
                    assert!(found.to_bits() == plain.to_bits() || found.is_nan() && plain.is_nan());
                }
            }
        }
    }
}
