//! Mutants of seeds, the same in every run.

use crate::seeds;

/// Most inputs that are kept to be changed further.
const POOL: usize = 200;
/// Longest of them, in bytes.
const MAX_KEPT_BYTES: usize = 4096;

/// Endless mutants of the seeds of a target.
pub struct Mutants {
    random: Random,
    pool: Vec<Vec<u8>>,
    seeds: usize,
}

impl Mutants {
    /// Another `seed` makes others.
    pub fn new(target: &str, seed: u64) -> Self {
        let pool = seeds(target);
        Self { random: Random(seed.max(1)), seeds: pool.len(), pool }
    }
}

impl Iterator for Mutants {
    type Item = Vec<u8>;

    fn next(&mut self) -> Option<Vec<u8>> {
        let random = &mut self.random;
        // Half of them close to what is valid.
        let from = if random.below(2) == 0 { self.seeds } else { self.pool.len() };
        let mut bytes = self.pool[random.below(from)].clone();
        let other = &self.pool[random.below(self.pool.len())];
        for _ in 0..=random.below(6) {
            mutate(&mut bytes, other, random);
        }
        // Some breed, so that faults can add up.
        if random.below(64) == 0 && bytes.len() < MAX_KEPT_BYTES {
            if self.pool.len() < POOL {
                self.pool.push(bytes.clone());
            } else {
                let at = self.seeds + random.below(POOL - self.seeds);
                self.pool[at].clone_from(&bytes);
            }
        }
        Some(bytes)
    }
}

fn mutate(bytes: &mut Vec<u8>, other: &[u8], random: &mut Random) {
    const SPECIAL: [u8; 16] = *b"\0\x7f\x80\xff\"\\{}[]:,u\n0\x01";
    if bytes.is_empty() {
        bytes.push(random.next() as u8);
        return;
    }
    let at = random.below(bytes.len());
    match random.below(8) {
        0 => bytes[at] = random.next() as u8,
        1 => bytes[at] = SPECIAL[random.below(SPECIAL.len())],
        2 => bytes[at] ^= 1 << random.below(8),
        3 => bytes.insert(at, SPECIAL[random.below(SPECIAL.len())]),
        4 => {
            bytes.remove(at);
        }
        5 => bytes.truncate(at),
        6 => {
            let end = (at + random.below(32)).min(bytes.len());
            let part = bytes[at..end].to_vec();
            bytes.splice(at..at, part);
        }
        _ => {
            let from = random.below(other.len().max(1)).min(other.len());
            bytes.splice(at.., other[from..].iter().copied());
        }
    }
}

/// xorshift64*.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 24
    }

    fn below(&mut self, bound: usize) -> usize {
        (self.next() % bound as u64) as usize
    }
}
