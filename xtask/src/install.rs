//! What the tests need besides Rust: clients and readers written by others, from PyPI and Debian.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::Context;

use crate::run;

/// Clients that deliver to Trine, and engines that read its segments.
const PACKAGES: &[&str] = &[
    "opentelemetry-sdk==1.45.2",
    "opentelemetry-exporter-otlp-proto-grpc==1.45.2",
    "opentelemetry-exporter-otlp-proto-http==1.45.2",
    "python-logging-loki==0.3.1",
    "pyarrow==26.0.1",
    "duckdb==2.0.0",
];

/// A Python that has [`PACKAGES`], made on first use; its path.
pub fn python() -> anyhow::Result<PathBuf> {
    let venv = cache()?.join("test-python");
    let python = venv.join("bin/python");
    let stamp = venv.join("packages.txt");
    let wanted = PACKAGES.join("\n");
    if fs::read_to_string(&stamp).is_ok_and(|have| have == wanted) {
        return Ok(python);
    }
    println!("installing for the tests, into {}: {}", venv.display(), PACKAGES.join(", "));
    run(Command::new("python3").args(["-m", "venv", "--clear"]).arg(&venv))
        .context("the tests need Python 3 with its venv module (Debian: apt-get install python3-venv)")?;
    run(Command::new(&python)
        .args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check"])
        .args(PACKAGES))?;
    fs::write(&stamp, wanted).with_context(|| format!("cannot write {}", stamp.display()))?;
    Ok(python)
}

/// A Prometheus server, which sends to Trine and reads from it: the one on the path, or Debian's package,
/// unpacked and not installed. `None`, with a message, where there is neither.
pub fn prometheus() -> anyhow::Result<Option<PathBuf>> {
    let on_path =
        env::var_os("PATH").into_iter().flat_map(|path| env::split_paths(&path).collect::<Vec<_>>());
    if let Some(found) = on_path.map(|dir| dir.join("prometheus")).find(|file| file.is_file()) {
        return Ok(Some(found));
    }
    let dir = cache()?.join("prometheus");
    let binary = dir.join("usr/bin/prometheus");
    if binary.is_file() {
        return Ok(Some(binary));
    }
    fs::create_dir_all(&dir).with_context(|| format!("cannot make {}", dir.display()))?;
    println!("unpacking Debian's prometheus for the tests, into {}", dir.display());
    let apt = |arguments: &[&str]| run(Command::new("apt-get").args(arguments).current_dir(&dir));
    let unpacked = apt(&["download", "-qq", "prometheus"])
        .or_else(|_| apt(&["update", "-qq"]).and_then(|()| apt(&["download", "-qq", "prometheus"])))
        .and_then(|()| {
            run(Command::new("sh").args(["-c", "dpkg-deb -x prometheus_*.deb ."]).current_dir(&dir))
        });
    if let Err(error) = unpacked {
        println!("no Prometheus for the tests, those with it are skipped: {error:#}");
        return Ok(None);
    }
    Ok(Some(binary))
}

/// `$XDG_CACHE_HOME/trine` or `~/.cache/trine`.
fn cache() -> anyhow::Result<PathBuf> {
    let base = env::var_os("XDG_CACHE_HOME")
        .map(PathBuf::from)
        .or_else(|| env::var_os("HOME").map(|home| Path::new(&home).join(".cache")));
    let dir = base.context("neither XDG_CACHE_HOME nor HOME is set")?.join("trine");
    fs::create_dir_all(&dir).with_context(|| format!("cannot make {}", dir.display()))?;
    Ok(dir)
}
