//! `trine bench …` as clap sees it.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use clap::{Args, Subcommand};
use serde::Serialize;

use crate::encode::Format;
use crate::generate::fleet::{FleetKind, FleetPlan};
use crate::generate::traces::TracePlan;
use crate::generate::{Corpus, DEFAULT_START_NS, Plan, write_files};
use crate::harness::join;
use crate::harness::kind::{Kind, Protocol};
use crate::harness::load::Load;
use crate::harness::questions::Language;
use crate::harness::report::{Report, compare};
use crate::harness::run::{Options, run as measure};
use crate::harness::signal::Signal;
use crate::peers::clickhouse;

/// The subcommands of `trine bench`.
#[derive(Debug, Subcommand)]
pub enum BenchCommand {
    /// Make a load and its right answers, as files
    Generate(GenerateArgs),
    /// Measure a running Trine, VictoriaLogs, Loki, VictoriaMetrics or Prometheus
    Run(Box<RunArgs>),
    /// Measure the join of logs, spans and metrics in a Trine, on copies of a real system's telemetry
    Join(JoinArgs),
    /// Measure ClickHouse on the same load, in a process of its own (needs Python 3)
    Clickhouse(ClickhouseArgs),
    /// Print reports of earlier runs side by side, with the ratio of the first to each other
    Compare(CompareArgs),
}

/// How a report is printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Output {
    /// For people
    Table,
    /// One JSON object
    Json,
}

/// Where a report goes and what it is compared with.
#[derive(Debug, Args)]
pub struct ReportArgs {
    /// How the report is printed
    #[arg(long, value_enum, default_value = "table")]
    output: Output,
    /// Also write the report, as JSON, to this file
    #[arg(long, value_name = "FILE")]
    save: Option<PathBuf>,
    /// Folder for loads and peers [default: trine-bench in the user's cache folder]
    #[arg(long, value_name = "DIR")]
    cache: Option<PathBuf>,
}

/// Arguments of `trine bench run`.
#[derive(Debug, Args)]
pub struct RunArgs {
    /// Address of the server
    #[arg(long, value_name = "URL", env = "TRINE_SERVER", default_value = "http://127.0.0.1:7070")]
    server: String,
    /// Which server it is [default: found out by its /metrics]
    #[arg(long, value_enum)]
    kind: Option<Kind>,
    /// Command that starts the server (split at spaces); it is stopped at the end
    #[arg(long, value_name = "COMMAND")]
    spawn: Option<String>,
    /// Process of the server, for CPU and memory; known with --spawn
    #[arg(long)]
    pid: Option<u32>,
    /// Data directory of the server, for bytes on disk
    #[arg(long, value_name = "DIR")]
    data_dir: Option<PathBuf>,
    /// Tenant, sent as X-Scope-OrgID
    #[arg(long, env = "TRINE_TENANT")]
    tenant: Option<String>,
    #[command(flatten)]
    load: LoadArgs,
    /// How to push [default: loki for logs, otlp for traces, remote-write for metrics]
    #[arg(long, value_enum)]
    protocol: Option<Protocol>,
    /// Pushes under way at one time
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u16).range(1..=256))]
    connections: u16,
    /// How often each question is asked, in turns
    #[arg(long, default_value_t = 15)]
    repeats: usize,
    /// Languages to ask in, of those the server speaks [default: all]
    #[arg(long, value_enum)]
    language: Vec<Language>,
    /// Ask this question alone, by the first word of its name in the saved report; may be repeated
    #[arg(long = "question", value_name = "NAME")]
    only: Vec<String>,
    /// Seconds of steady load during which push to visible is measured; 0 leaves it out
    #[arg(long, default_value_t = 10)]
    steady: u64,
    /// Lines, spans or samples per second of the steady load [default: half of the highest rate]
    #[arg(long)]
    rate: Option<f64>,
    /// The load is there from an earlier run: do not send it again
    #[arg(long)]
    skip_ingest: bool,
    /// Report of a peer to print ratios against; may be repeated
    #[arg(long, value_name = "FILE")]
    peer: Vec<PathBuf>,
    #[command(flatten)]
    report: ReportArgs,
}

/// Arguments of `trine bench join`.
#[derive(Debug, Args)]
pub struct JoinArgs {
    /// Folder of logs.jsonl.zst, spans.jsonl.zst and metrics.jsonl.zst: OTLP JSON lines
    #[arg(long, value_name = "DIR", default_value = "../shared/data/trainticket")]
    data: PathBuf,
    /// How often they are loaded, each time with other times and ids
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=1000))]
    copies: u32,
    /// Address of the server
    #[arg(long, value_name = "URL", env = "TRINE_SERVER", default_value = "http://127.0.0.1:7070")]
    server: String,
    /// Command that starts the server (split at spaces); it is stopped at the end
    #[arg(long, value_name = "COMMAND")]
    spawn: Option<String>,
    /// Data directory of the server, for bytes on disk
    #[arg(long, value_name = "DIR")]
    data_dir: Option<PathBuf>,
    /// Pushes under way at one time
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u16).range(1..=256))]
    connections: u16,
    /// How often each question is asked, in turns
    #[arg(long, default_value_t = 11)]
    repeats: usize,
    /// The copies are there from an earlier run: do not send them again
    #[arg(long)]
    skip_ingest: bool,
    /// How the report is printed
    #[arg(long, value_enum, default_value = "table")]
    output: Output,
    /// Also write the report, as JSON, to this file
    #[arg(long, value_name = "FILE")]
    save: Option<PathBuf>,
}

/// Arguments of `trine bench clickhouse`.
#[derive(Debug, Args)]
pub struct ClickhouseArgs {
    #[command(flatten)]
    load: LoadArgs,
    /// Interpreter that has chdb [default: one in the cache folder, installed on first use]
    #[arg(long, value_name = "FILE")]
    python: Option<PathBuf>,
    /// Give the body of log lines a token filter
    #[arg(long)]
    text_index: bool,
    /// How often each question is asked
    #[arg(long, default_value_t = 15)]
    repeats: usize,
    #[command(flatten)]
    report: ReportArgs,
}

/// Arguments of `trine bench compare`.
#[derive(Debug, Args)]
pub struct CompareArgs {
    /// Reports written by --save, ours first
    #[arg(required = true, num_args = 2..)]
    reports: Vec<PathBuf>,
}

/// Which load, of which signal.
#[derive(Debug, Args)]
pub struct LoadArgs {
    /// What to send and to ask about
    #[arg(long, value_enum, default_value = "logs")]
    signal: Signal,
    #[command(flatten)]
    plan: PlanArgs,
    /// Spans to send, with --signal traces
    #[arg(long, default_value_t = 4_000_000, value_parser = clap::value_parser!(u64).range(1000..))]
    spans: u64,
    /// Which series to send, with --signal metrics
    #[arg(long, value_enum, default_value = "hosts")]
    fleet: FleetKind,
    /// How many series, with --signal metrics
    #[arg(long, default_value_t = 10_000, value_parser = clap::value_parser!(u32).range(1..))]
    series: u32,
    /// Minutes that the samples span, one each 15 s, with --signal metrics
    #[arg(long, default_value_t = 360, value_parser = clap::value_parser!(u32).range(1..))]
    minutes: u32,
}

/// Which lines.
#[derive(Debug, Clone, Args)]
pub struct PlanArgs {
    /// Which lines the load is made of
    #[arg(long, value_enum, default_value = "replay")]
    pub corpus: Corpus,
    /// Folder or file of the lines; for `replay` and `unmutated` a folder of *_2k.log files or the
    /// archive of them, for `trainticket` an OTLP JSON file [default: ../shared/data]
    #[arg(long, value_name = "PATH")]
    pub corpus_path: Option<PathBuf>,
    /// Bytes of all bodies together: a number with kB, MB, GB or nothing behind it
    #[arg(long, default_value = "1GB", value_parser = parse_bytes)]
    pub raw_bytes: u64,
    /// Equal seeds give equal loads
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
    /// Time of the first record, Unix seconds
    #[arg(long, default_value_t = DEFAULT_START_NS / 1_000_000_000)]
    pub start: i64,
}

impl PlanArgs {
    /// The plan these arguments ask for.
    pub fn plan(&self) -> Plan {
        Plan {
            corpus: self.corpus,
            path: self.corpus_path.clone(),
            raw_bytes: self.raw_bytes,
            seed: self.seed,
            start_ns: self.start * 1_000_000_000,
        }
    }
}

/// Arguments of `trine bench generate`.
#[derive(Debug, Args)]
pub struct GenerateArgs {
    #[command(flatten)]
    plan: PlanArgs,
    /// File to write; the format's ending is added when several formats are asked for
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
    /// How to write it; may be repeated, all files then hold the same records
    #[arg(long, value_enum, default_value = "jsonl")]
    format: Vec<Format>,
}

/// `10GB` as bytes; decimal units.
pub fn parse_bytes(text: &str) -> Result<u64> {
    let split = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at(split);
    let factor = match unit.trim().to_ascii_lowercase().as_str() {
        "" | "b" => 1.0,
        "k" | "kb" => 1e3,
        "m" | "mb" => 1e6,
        "g" | "gb" => 1e9,
        _ => bail!("unit {unit:?} is unknown; write kB, MB or GB"),
    };
    let number: f64 =
        number.parse().map_err(|_| anyhow::anyhow!("{text:?} is no size; write one such as 10GB"))?;
    if number * factor < 1.0 {
        bail!("{text:?} is less than a byte; write a size such as 10GB");
    }
    Ok((number * factor) as u64)
}

/// Runs one subcommand. A wrong answer is printed with the report and is an error at the end.
pub async fn run(command: BenchCommand) -> Result<()> {
    match command {
        BenchCommand::Generate(args) => tokio::task::spawn_blocking(move || generate(&args)).await?,
        BenchCommand::Run(args) => {
            let peers = args.peer.iter().map(|p| read_report(p)).collect::<Result<Vec<_>>>()?;
            let report = measure(&args.options()?).await?;
            finish(&report, &peers, &args.report)
        }
        BenchCommand::Join(args) => {
            let report = join::run(&args.options()).await?;
            save(args.save.as_deref(), &report)?;
            match args.output {
                Output::Json => println!("{}", serde_json::to_string_pretty(&report)?),
                Output::Table => print!("{}", report.table()),
            }
            ensure!(report.all_right(), "something was lost or wrong; the report says what");
            Ok(())
        }
        BenchCommand::Clickhouse(args) => {
            let measured = tokio::task::spawn_blocking(move || {
                let cache = cache_folder(args.report.cache.as_deref())?;
                let report = clickhouse(
                    &args.load.load(),
                    &cache,
                    args.python.as_deref(),
                    args.repeats,
                    args.text_index,
                )?;
                anyhow::Ok((report, args.report))
            });
            let (report, how) = measured.await??;
            finish(&report, &[], &how)
        }
        BenchCommand::Compare(args) => {
            let reports = args.reports.iter().map(|p| read_report(p)).collect::<Result<Vec<_>>>()?;
            print!("{}", compare(&reports[0], &reports[1..]));
            Ok(())
        }
    }
}

fn finish(report: &Report, peers: &[Report], how: &ReportArgs) -> Result<()> {
    save(how.save.as_deref(), report)?;
    match how.output {
        Output::Json => println!("{}", serde_json::to_string_pretty(report)?),
        Output::Table => {
            print!("{}", report.table());
            if !peers.is_empty() {
                print!("\n{}", compare(report, peers));
            }
        }
    }
    if !report.all_right() {
        bail!("{} lost something or gave a wrong answer; the report says what", report.name);
    }
    Ok(())
}

fn save(path: Option<&Path>, report: &impl Serialize) -> Result<()> {
    let Some(path) = path else { return Ok(()) };
    let json = serde_json::to_vec_pretty(report)?;
    std::fs::write(path, json).with_context(|| format!("write {}", path.display()))
}

fn read_report(path: &Path) -> Result<Report> {
    let bytes = std::fs::read(path).with_context(|| format!("read {}", path.display()))?;
    serde_json::from_slice(&bytes).with_context(|| format!("{} is not a report of --save", path.display()))
}

/// `given`, or `trine-bench` below `XDG_CACHE_HOME` or `HOME/.cache`.
fn cache_folder(given: Option<&Path>) -> Result<PathBuf> {
    if let Some(given) = given {
        std::fs::create_dir_all(given).with_context(|| format!("create {}", given.display()))?;
        // Scripts run elsewhere get paths from here.
        return given.canonicalize().with_context(|| format!("find {}", given.display()));
    }
    let set = |name: &str| std::env::var_os(name).filter(|v| !v.is_empty()).map(PathBuf::from);
    let base = set("XDG_CACHE_HOME").or_else(|| set("HOME").map(|h| h.join(".cache")));
    let folder = base.context("no cache folder is known; name one with --cache")?.join("trine-bench");
    std::fs::create_dir_all(&folder).with_context(|| format!("create {}", folder.display()))?;
    Ok(folder)
}

impl JoinArgs {
    fn options(&self) -> join::Options {
        join::Options {
            base: self.server.trim_end_matches('/').to_owned(),
            spawn: self.spawn.clone(),
            data_dir: self.data_dir.clone(),
            files: self.data.clone(),
            copies: self.copies,
            connections: usize::from(self.connections),
            repeats: self.repeats,
            skip_ingest: self.skip_ingest,
        }
    }
}

impl LoadArgs {
    fn load(&self) -> Load {
        let plan = self.plan.plan();
        match self.signal {
            Signal::Logs => Load::Logs(plan),
            Signal::Traces => {
                Load::Traces(TracePlan { spans: self.spans, seed: plan.seed, start_ns: plan.start_ns })
            }
            Signal::Metrics => Load::Metrics(FleetPlan {
                kind: self.fleet,
                series: self.series as usize,
                samples: self.minutes as usize * 4,
                seed: plan.seed,
                start_s: self.plan.start,
            }),
        }
    }
}

impl RunArgs {
    fn options(&self) -> Result<Options> {
        Ok(Options {
            base: self.server.trim_end_matches('/').to_owned(),
            kind: self.kind,
            spawn: self.spawn.clone(),
            pid: self.pid,
            data_dir: self.data_dir.clone(),
            tenant: self.tenant.clone(),
            protocol: self.protocol.unwrap_or(Protocol::of(self.load.signal)),
            load: self.load.load(),
            cache: cache_folder(self.report.cache.as_deref())?,
            connections: usize::from(self.connections),
            repeats: self.repeats,
            languages: self.language.clone(),
            only: self.only.clone(),
            steady: Duration::from_secs(self.steady),
            rate: self.rate,
            skip_ingest: self.skip_ingest,
        })
    }
}

fn generate(args: &GenerateArgs) -> Result<()> {
    let outputs: Vec<(PathBuf, Format)> = if let [format] = args.format[..] {
        vec![(args.out.clone(), format)]
    } else {
        let name = |f: Format| PathBuf::from(format!("{}.{}", args.out.display(), f.extension()));
        args.format.iter().map(|f| (name(*f), *f)).collect()
    };
    let truth = write_files(&args.plan.plan(), &outputs)?;
    println!("{} lines, {} bytes of bodies, {} streams", truth.lines, truth.raw_bytes, truth.streams);
    for (path, _) in outputs {
        println!("{}", path.display());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes() {
        for (text, bytes) in [("1GB", 1_000_000_000), ("1.5 MB", 1_500_000), ("7", 7), ("20k", 20_000)] {
            assert_eq!(parse_bytes(text).unwrap(), bytes, "{text}");
        }
        assert!(parse_bytes("1GiB").is_err() && parse_bytes("").is_err() && parse_bytes("0").is_err());
    }
}
