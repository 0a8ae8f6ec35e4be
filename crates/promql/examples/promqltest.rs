//! Runs scripts in Prometheus' test format: `cargo run --example promqltest -- FILE...`

use std::{env, fs, process::ExitCode};

use trine_promql::script;

fn main() -> ExitCode {
    let (mut evals, mut failed) = (0, 0);
    for path in env::args().skip(1) {
        let text = fs::read_to_string(&path).unwrap_or_else(|error| panic!("{path}: {error}"));
        match script::run(&script::engine(), &text) {
            Ok(report) => {
                println!("{path}: {} of {} hold", report.evals - report.failures.len(), report.evals);
                report.failures.iter().for_each(|failure| println!("  {failure}"));
                evals += report.evals;
                failed += report.failures.len();
            }
            Err(error) => {
                println!("{path}: {error}");
                failed += 1;
            }
        }
    }
    println!("{} of {evals} hold", evals - failed);
    if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
