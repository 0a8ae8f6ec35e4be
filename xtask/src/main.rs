//! Chores of the workspace. `cargo xtask check` is the one gate, `cargo xtask test` installs what
//! the tests need, runs the gate and then all tests.

mod gate;
mod install;
mod walls;

use std::process::{Command, ExitCode};

use anyhow::{Context, bail};

const USAGE: &str = "usage: cargo xtask COMMAND

  check     format, lints, walls between crates, licences
  install   what the tests need besides Rust (packages of Python, Node and Java, a Prometheus; in a cache
            directory) and print the variables by which they find it
  test      install, check, then every test of the workspace
";

fn main() -> ExitCode {
    let command = std::env::args().nth(1);
    let done = match command.as_deref() {
        Some("check") => gate::check(),
        Some("install") => install::all().map(|all| {
            all.iter().for_each(|(name, path)| println!("export {name}={}", path.display()));
        }),
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
    let installed = install::all()?;
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
        .envs(installed))
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
