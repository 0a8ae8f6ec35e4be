//! ClickHouse as a peer: a Python script that runs the engine in its own process through the package
//! `chdb`, on the same load, and prints a report of the same shape as ours.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::encode::Format;
use crate::generate::truth_path;
use crate::harness::load::{Load, prepared_logs, prepared_span_rows};
use crate::harness::report::Report;

const SCRIPT: &str = include_str!("clickhouse.py");

/// Measures ClickHouse on lines or spans. Makes a virtual environment in `cache` and installs
/// `chdb` there unless `python` names an interpreter that has it.
pub fn clickhouse(
    load: &Load,
    cache: &Path,
    python: Option<&Path>,
    repeats: usize,
    text_index: bool,
) -> Result<Report> {
    let python = python.map_or_else(|| venv(&cache.join("venv")), |p| Ok(p.to_owned()))?;
    let (signal, data, described) = match load {
        Load::Logs(plan) => {
            let described = format!("{:?} of {} bytes, seed {}", plan.corpus, plan.raw_bytes, plan.seed);
            ("logs", prepared_logs(plan, Format::RowBinary, cache)?, described)
        }
        Load::Traces(plan) => {
            ("traces", prepared_span_rows(plan, cache)?, format!("spans, seed {}", plan.seed))
        }
        Load::Metrics(_) => bail!("ClickHouse is measured on logs and traces; choose one as --signal"),
    };
    let script = cache.join("clickhouse.py");
    std::fs::write(&script, SCRIPT)?;
    let work = cache.join(format!("clickhouse-{}", std::process::id()));
    let output = Command::new(&python)
        .arg(&script)
        .args([Path::new(signal), &data, &truth_path(&data), &work])
        .args([repeats.to_string(), u8::from(text_index).to_string()])
        .output()
        .with_context(|| format!("run {}", python.display()))?;
    _ = std::fs::remove_dir_all(&work);
    if !output.status.success() {
        bail!("the script for ClickHouse failed: {}", String::from_utf8_lossy(&output.stderr).trim());
    }
    let report: Report = serde_json::from_slice(&output.stdout).context("the script printed no report")?;
    Ok(Report { signal: load.signal(), load: format!("{described}, bulk insert"), ..report })
}

/// A virtual environment with `chdb`; made on first use.
fn venv(folder: &Path) -> Result<PathBuf> {
    let python = folder.join("bin/python");
    let works =
        || Command::new(&python).args(["-c", "import chdb"]).output().is_ok_and(|o| o.status.success());
    if works() {
        return Ok(python);
    }
    eprintln!("installing chdb into {}", folder.display());
    let run = |program: &Path, args: &[&str]| -> Result<()> {
        let status = Command::new(program).args(args).status().with_context(|| {
            format!("run {}; Python 3 with venv is needed for the ClickHouse peer", program.display())
        })?;
        if status.success() { Ok(()) } else { bail!("{} {args:?} failed: {status}", program.display()) }
    };
    run(Path::new("python3"), &["-m", "venv", &folder.to_string_lossy()])?;
    run(&python, &["-m", "pip", "install", "--quiet", "chdb"])?;
    if works() {
        Ok(python)
    } else {
        bail!("chdb was installed into {} but cannot be loaded", folder.display())
    }
}
