//! What the tests need besides Rust: clients and readers written by others, by pip, npm, Maven and apt.

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

/// Folders of the lists of what Node and Java deliver with.
const NODE: &str = "crates/cli/tests/it/node";
const JAVA: &str = "crates/cli/tests/it/java";

/// Everything, with the variables by which the tests find it.
pub fn all() -> anyhow::Result<[(&'static str, PathBuf); 4]> {
    Ok([
        ("TRINE_TEST_PYTHON", python()?),
        ("TRINE_TEST_NODE_MODULES", node_modules()?),
        ("TRINE_TEST_JARS", jars()?),
        ("TRINE_PROMETHEUS", prometheus()?),
    ])
}

/// A Python that has [`PACKAGES`], made on first use; its path.
fn python() -> anyhow::Result<PathBuf> {
    let venv = cache()?.join("test-python");
    let python = venv.join("bin/python");
    once(&venv, PACKAGES.join("\n").as_bytes(), || {
        run(Command::new("python3").args(["-m", "venv", "--clear"]).arg(&venv))
            .context("the tests need Python 3 with its venv module (Debian: apt-get install python3-venv)")?;
        run(Command::new(&python)
            .args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check"])
            .args(PACKAGES))
    })?;
    Ok(python)
}

/// The packages of Node's lock file; the folder that `NODE_PATH` names.
fn node_modules() -> anyhow::Result<PathBuf> {
    debian(&["node", "npm"], &["nodejs", "npm"])?;
    let dir = cache()?.join("test-node");
    let lock = read(NODE, "package-lock.json")?;
    once(&dir, &lock, || {
        fs::write(dir.join("package.json"), read(NODE, "package.json")?)?;
        fs::write(dir.join("package-lock.json"), &lock)?;
        run(Command::new("npm").args(["ci", "--ignore-scripts", "--no-audit", "--no-fund"]).current_dir(&dir))
    })?;
    Ok(dir.join("node_modules"))
}

/// The jars that Java's list names, with those they need; their folder.
fn jars() -> anyhow::Result<PathBuf> {
    // `java` runs a source file only where the compiler is.
    debian(&["java", "javac", "mvn"], &["default-jdk-headless", "maven"])?;
    let dir = cache()?.join("test-java");
    let list = read(JAVA, "pom.xml")?;
    once(&dir, &list, || {
        run(Command::new("mvn")
            .args(["--quiet", "--batch-mode", "--file", &format!("{JAVA}/pom.xml")])
            .arg("org.apache.maven.plugins:maven-dependency-plugin:3.8.1:copy-dependencies")
            .arg(format!("-DoutputDirectory={}", dir.display())))
    })?;
    Ok(dir)
}

/// A Prometheus server, which sends to Trine and reads from it: the one on the path, or Debian's package,
/// unpacked and not installed.
fn prometheus() -> anyhow::Result<PathBuf> {
    if let Some(found) = on_path("prometheus") {
        return Ok(found);
    }
    let dir = cache()?.join("prometheus");
    let binary = dir.join("usr/bin/prometheus");
    if binary.is_file() {
        return Ok(binary);
    }
    fs::create_dir_all(&dir).with_context(|| format!("cannot make {}", dir.display()))?;
    println!("unpacking Debian's prometheus for the tests, into {}", dir.display());
    let apt = |arguments: &[&str]| run(Command::new("apt-get").args(arguments).current_dir(&dir));
    apt(&["download", "-qq", "prometheus"])
        .or_else(|_| apt(&["update", "-qq"]).and_then(|()| apt(&["download", "-qq", "prometheus"])))
        .and_then(|()| {
            run(Command::new("sh").args(["-c", "dpkg-deb -x prometheus_*.deb ."]).current_dir(&dir))
        })
        .context("the tests need a Prometheus; where apt-get is not, put one on the path")?;
    Ok(binary)
}

/// Fills a folder anew unless it was filled for the same list before.
fn once(dir: &Path, list: &[u8], fill: impl FnOnce() -> anyhow::Result<()>) -> anyhow::Result<()> {
    let stamp = dir.join("filled-for");
    if fs::read(&stamp).is_ok_and(|have| have == list) {
        return Ok(());
    }
    println!("installing for the tests, into {}", dir.display());
    if dir.exists() {
        fs::remove_dir_all(dir).with_context(|| format!("cannot remove {}", dir.display()))?;
    }
    fs::create_dir_all(dir).with_context(|| format!("cannot make {}", dir.display()))?;
    fill()?;
    fs::write(&stamp, list).with_context(|| format!("cannot write {}", stamp.display()))
}

/// Installs Debian's packages where one of the programs is missing.
fn debian(programs: &[&str], packages: &[&str]) -> anyhow::Result<()> {
    if programs.iter().all(|program| on_path(program).is_some()) {
        return Ok(());
    }
    let install = || {
        let arguments = ["install", "--yes", "-qq", "--no-install-recommends"];
        run(Command::new("apt-get").env("DEBIAN_FRONTEND", "noninteractive").args(arguments).args(packages))
    };
    install()
        .or_else(|_| run(Command::new("apt-get").args(["update", "-qq"])).and_then(|()| install()))
        .with_context(|| {
            let (programs, packages) = (programs.join(", "), packages.join(" "));
            format!("the tests need {programs} (Debian: as root, apt-get install {packages})")
        })
}

fn on_path(program: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH")?;
    env::split_paths(&path).map(|dir| dir.join(program)).find(|file| file.is_file())
}

fn read(folder: &str, name: &str) -> anyhow::Result<Vec<u8>> {
    let file = Path::new(folder).join(name);
    fs::read(&file)
        .with_context(|| format!("cannot read {}; start at the root of the workspace", file.display()))
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
