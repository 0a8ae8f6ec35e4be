//! Chores of the workspace. `cargo xtask check` is the one gate, `cargo xtask test` installs what
//! the tests need, runs the gate and then all tests.

mod gate;
mod install;
mod walls;

use std::process::{Command, ExitCode};

use anyhow::{Context, bail};

const USAGE: &str = "usage: cargo xtask COMMAND

  check     format, lints, walls between crates, licences
  install   what the tests need besides Rust (Python packages and a Prometheus, in a cache directory)
  test      install, check, then every test of the workspace
";

fn main() -> ExitCode {
    let command = std::env::args().nth(1);
    let done = match command.as_deref() {
        Some("check") => gate::check(),
        Some("install") => install::python().and_then(|_| install::prometheus()).map(drop),
        Some("test") => test(),
        _ => {
            eprint!("{USAGE}");
            return ExitCode::from(2);
        }
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn test() -> anyhow::Result<()> {
    let (python, prometheus) = (install::python()?, install::prometheus()?);
    gate::check()?;
    run(cargo().args([
        "test",
        "--release",
        "--package",
        "trine-scrape",
        "--features",
        "test-clock",
        "--tests",
    ]))?;
    run(cargo()
        .args(["test", "--release", "--workspace", "--lib", "--bins", "--tests", "--no-fail-fast"])
        .env("TRINE_TEST_PYTHON", python)
        .envs(prometheus.map(|binary| ("TRINE_PROMETHEUS", binary))))
}

fn cargo() -> Command {
    Command::new(std::env::var("CARGO").unwrap_or_else(|_| "cargo".into()))
}

/// Runs a command whose output the reader sees; failure names the command.
fn run(command: &mut Command) -> anyhow::Result<()> {
    println!("$ {command:?}");
    let status = command.status().with_context(|| format!("cannot start {command:?}"))?;
    if !status.success() {
        bail!("{command:?} ended with {status}");
    }
    Ok(())
}
