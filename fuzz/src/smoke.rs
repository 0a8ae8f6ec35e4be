//! A run without libFuzzer, on any toolchain: `smoke [seconds per target] [seed] [target]…` mutates the seeds
//! at random and runs the targets, all without names; `smoke --write-seeds DIR` writes them as corpora for cargo-fuzz.
//! An input that breaks something is written to `crash-<target>` before the panic ends the run.

use std::{
    path::Path,
    time::{Duration, Instant},
};

use trine_fuzz::{Mutants, TARGETS, run, seeds};

fn main() -> std::io::Result<()> {
    let mut arguments = std::env::args().skip(1);
    let first = arguments.next();
    if first.as_deref() == Some("--write-seeds") {
        return write_seeds(Path::new(&arguments.next().expect("name a directory after --write-seeds")));
    }
    let seconds = first.map_or(5.0, |text| text.parse().expect("the first argument is a number of seconds"));
    let seed = arguments.next().map_or(1, |text| text.parse().expect("the second argument is an integer"));
    let named: Vec<String> = arguments.collect();
    for target in
        TARGETS.into_iter().filter(|target| named.is_empty() || named.iter().any(|name| name == target))
    {
        let start = Instant::now();
        let mut inputs = 0u64;
        for bytes in Mutants::new(target, seed) {
            if start.elapsed() >= Duration::from_secs_f64(seconds) {
                break;
            }
            if let Err(panic) = std::panic::catch_unwind(|| run(target, &bytes)) {
                std::fs::write(format!("crash-{target}"), &bytes)?;
                std::panic::resume_unwind(panic);
            }
            inputs += 1;
        }
        println!("{target}: {inputs} inputs, no fault");
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
