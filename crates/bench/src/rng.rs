//! A small deterministic random source: the same seed gives the same load on every machine.

/// xoshiro256++ (Blackman and Vigna), seeded by splitmix64.
#[derive(Debug, Clone)]
pub struct Rng {
    state: [u64; 4],
}

/// One step of splitmix64; also a good mixer for hashing small keys.
pub const fn mix(value: u64) -> u64 {
    let mut z = value.wrapping_add(0x9E37_79B9_7F4A_7C15);
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

impl Rng {
    /// A source whose whole sequence follows from `seed`.
    pub const fn new(seed: u64) -> Self {
        let a = mix(seed);
        let b = mix(a);
        let c = mix(b);
        Self { state: [a, b, c, mix(c)] }
    }

    /// The next 64 bits.
    pub const fn next_u64(&mut self) -> u64 {
        let [a, b, c, d] = self.state;
        let result = a.wrapping_add(d).rotate_left(23).wrapping_add(a);
        let shifted = b << 17;
        let c2 = c ^ a;
        let d2 = d ^ b;
        self.state = [a ^ d2, b ^ c2, c2 ^ shifted, d2.rotate_left(45)];
        result
    }

    /// Uniform in `0..bound`; `bound` must not be 0.
    pub const fn below(&mut self, bound: u64) -> u64 {
        ((self.next_u64() as u128 * bound as u128) >> 64) as u64
    }

    /// Uniform in `0.0..1.0`.
    pub const fn unit(&mut self) -> f64 {
        (self.next_u64() >> 11) as f64 / (1u64 << 53) as f64
    }

    /// True with probability `p`.
    pub const fn chance(&mut self, p: f64) -> bool {
        self.unit() < p
    }

    /// An index in `0..len`, low ones far more often (cube of a uniform number).
    pub const fn skewed(&mut self, len: usize) -> usize {
        let u = self.unit();
        (u * u * u * len as f64) as usize
    }

    /// Exponentially distributed with the given mean, at least 1.
    pub fn gap(&mut self, mean: f64) -> i64 {
        (-(1.0 - self.unit()).ln() * mean) as i64 + 1
    }

    /// Random bytes that are not all zero, for ids.
    pub fn id<const N: usize>(&mut self) -> [u8; N] {
        let mut id = [0; N];
        for chunk in id.chunks_mut(8) {
            let bytes = self.next_u64().to_le_bytes();
            chunk.copy_from_slice(&bytes[..chunk.len()]);
        }
        id[0] |= 1;
        id
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_seeds_agree_and_bounds_hold() {
        let (mut a, mut b, mut other) = (Rng::new(7), Rng::new(7), Rng::new(8));
        let drawn: Vec<u64> = (0..1000).map(|_| a.below(10)).collect();
        assert!(drawn.iter().all(|v| *v < 10));
        assert!((0..10).all(|v| drawn.contains(&v)), "a value of ten never came in a thousand draws");
        assert_eq!(drawn, (0..1000).map(|_| b.below(10)).collect::<Vec<_>>());
        assert_ne!(drawn, (0..1000).map(|_| other.below(10)).collect::<Vec<_>>());
    }

    #[test]
    fn skewed_prefers_low_indexes() {
        let mut rng = Rng::new(1);
        let low = (0..10_000).filter(|_| rng.skewed(100) < 13).count();
        assert!((4_500..5_700).contains(&low), "half of the draws lie in the lowest eighth, got {low}");
    }
}
