//! A run without libFuzzer, on any toolchain: `smoke [seconds per target] [seed]` mutates the seeds
//! at random and runs every target; `smoke --write-seeds DIR` writes them as corpora for cargo-fuzz.
//! An input that breaks something is written to `crash-<target>` before the panic ends the run.

use std::{
    path::Path,
    time::{Duration, Instant},
};

use trine_fuzz::{TARGETS, run, seeds};

fn main() -> std::io::Result<()> {
    let mut arguments = std::env::args().skip(1);
    let first = arguments.next();
    if first.as_deref() == Some("--write-seeds") {
        return write_seeds(Path::new(&arguments.next().expect("name a directory after --write-seeds")));
    }
    let seconds = first.map_or(5.0, |text| text.parse().expect("the first argument is a number of seconds"));
    let seed = arguments.next().map_or(1, |text| text.parse().expect("the second argument is an integer"));
    for target in TARGETS {
        let mut random = Random(seed.max(1));
        let mut pool = seeds(target);
        let start = Instant::now();
        let mut runs = 0u64;
        while start.elapsed() < Duration::from_secs_f64(seconds) {
            let mut bytes = pool[random.below(pool.len())].clone();
            let other = pool[random.below(pool.len())].clone();
            for _ in 0..=random.below(6) {
                mutate(&mut bytes, &other, &mut random);
            }
            if let Err(panic) = std::panic::catch_unwind(|| run(target, &bytes)) {
                std::fs::write(format!("crash-{target}"), &bytes)?;
                std::panic::resume_unwind(panic);
            }
            runs += 1;
            // Some mutants breed, so that faults can add up.
            if random.below(64) == 0 && bytes.len() < 4096 {
                if pool.len() < 200 {
                    pool.push(bytes);
                } else {
                    let at = seeds(target).len() + random.below(100);
                    pool[at] = bytes;
                }
            }
        }
        println!("{target}: {runs} inputs, no fault");
    }
    Ok(())
}

fn write_seeds(directory: &Path) -> std::io::Result<()> {
    for target in TARGETS {
        let corpus = directory.join(target);
        std::fs::create_dir_all(&corpus)?;
        for (i, seed) in seeds(target).iter().enumerate() {
            std::fs::write(corpus.join(format!("seed-{i}")), seed)?;
        }
    }
    Ok(())
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
