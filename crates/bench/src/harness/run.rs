//! One measuring run from begin to end; the steps are those of the table in [`super`].

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use reqwest::Client;

use super::kind::{Kind, Protocol};
use super::process::{Process, disk_bytes};
use super::questions::{Language, Question, questions};
use super::report::{Report, Timing, quantile};
use super::send::{Target, full_speed, steady};
use super::visible::probe;
use crate::encode::Format;
use crate::generate::truth::Truth;
use crate::generate::{Corpus, Plan, read_truth, truth_path, write_files};

/// Time a spawned server gets to answer.
const MAX_START: Duration = Duration::from_mins(1);
/// Time a spawned server gets to stop after it was asked to.
const MAX_STOP: Duration = Duration::from_mins(1);
/// Bytes of the load for the steady phase, at most.
const MAX_STEADY_BYTES: f64 = 4e9;
const MIB: f64 = 1024.0 * 1024.0;
const DAY_NS: i64 = 86_400_000_000_000;

/// What to measure.
#[derive(Debug, Clone)]
pub struct Options {
    /// `http://host:port` of the server.
    pub base: String,
    /// Which server it is; found out when not given.
    pub kind: Option<Kind>,
    /// Command that starts the server; it is stopped at the end.
    pub spawn: Option<String>,
    /// The server's process; without it no CPU and memory.
    pub pid: Option<u32>,
    /// The server's data directory; without it no disk.
    pub data_dir: Option<PathBuf>,
    /// Tenant header.
    pub tenant: Option<String>,
    /// How to push.
    pub protocol: Protocol,
    /// The load.
    pub plan: Plan,
    /// Where loads are kept.
    pub cache: PathBuf,
    /// Pushes under way at one time.
    pub connections: usize,
    /// Rounds of questions.
    pub repeats: usize,
    /// Languages to ask Trine in; all it speaks when empty.
    pub languages: Vec<Language>,
    /// Length of the steady phase; zero leaves it out.
    pub steady: Duration,
    /// Rate of the steady phase, lines per second; half the highest when not given.
    pub rate: Option<f64>,
    /// The load is there already: settle and ask only.
    pub skip_ingest: bool,
}

/// A server this run started; stopped when dropped.
struct Spawned(Child);

impl Spawned {
    fn start(command: &str) -> Result<Self> {
        let mut words = command.split_ascii_whitespace();
        let program = words.next().context("--spawn needs a command")?;
        let child = Command::new(program)
            .args(words)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .spawn()
            .with_context(|| format!("start {program}"))?;
        Ok(Self(child))
    }

    fn alive(&mut self) -> Result<()> {
        match self.0.try_wait()? {
            None => Ok(()),
            Some(status) => bail!("the server ended early: {status}"),
        }
    }
}

impl Drop for Spawned {
    fn drop(&mut self) {
        let pid = rustix::process::Pid::from_child(&self.0);
        _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
        let begun = Instant::now();
        while begun.elapsed() < MAX_STOP && matches!(self.0.try_wait(), Ok(None)) {
            std::thread::sleep(Duration::from_millis(50));
        }
        _ = self.0.kill();
        _ = self.0.wait();
    }
}

/// File of a load in `cache`; made if it is not there.
pub fn prepared(plan: &Plan, format: Format, cache: &Path) -> Result<PathBuf> {
    std::fs::create_dir_all(cache).with_context(|| format!("create {}", cache.display()))?;
    let corpus = match plan.corpus {
        Corpus::Replay => "replay",
        Corpus::Unmutated => "unmutated",
        Corpus::Trainticket => "trainticket",
        Corpus::Shop => "shop",
    };
    let name = format!(
        "{corpus}-{}-seed{}-at{}.{}",
        plan.raw_bytes,
        plan.seed,
        plan.start_ns / 1_000_000_000,
        format.extension()
    );
    let path = cache.join(name);
    // The right answers are written last: where they are, the load is whole.
    if !truth_path(&path).is_file() {
        eprintln!("making {}", path.display());
        write_files(plan, &[(path.clone(), format)])?;
    }
    Ok(path)
}

/// Runs all steps.
pub async fn run(options: &Options) -> Result<Report> {
    let (plan, cache, format) = (options.plan.clone(), options.cache.clone(), options.protocol.format());
    let data = tokio::task::spawn_blocking(move || prepared(&plan, format, &cache)).await??;
    let truth = read_truth(&data)?;

    let http = Client::builder().pool_max_idle_per_host(options.connections + 2).build()?;
    let mut spawned = options.spawn.as_deref().map(Spawned::start).transpose()?;
    if let Some(server) = &mut spawned {
        wait_ready(&http, &options.base, server).await?;
    }
    let kind = match options.kind {
        Some(kind) => kind,
        None => Kind::of(&http, &options.base).await?,
    };
    let process = options.pid.or(spawned.as_ref().map(|s| s.0.id())).map(Process);
    let path = kind.push_path(options.protocol).with_context(|| {
        format!("{} takes no {:?}; choose another --protocol", kind.name(), options.protocol)
    })?;
    let target = Target {
        http: http.clone(),
        url: format!("{}{path}", options.base),
        protocol: options.protocol,
        tenant: options.tenant.clone(),
        connections: options.connections,
    };
    let mut report = Report {
        name: kind.name().to_owned(),
        load: format!(
            "{:?} of {} bytes, seed {}, by {:?}, {} connections",
            options.plan.corpus, truth.raw_bytes, options.plan.seed, options.protocol, options.connections
        ),
        lines: truth.lines,
        ..Report::default()
    };
    let raw_gb = truth.raw_bytes as f64 / 1e9;
    let disk_before = options.data_dir.as_deref().map(disk_bytes);
    let cpu = |process: Option<Process>| process.map(Process::cpu_seconds).transpose();
    let cpu_before = cpu(process)?;
    if !options.skip_ingest {
        eprintln!("sending {} lines to {}", truth.lines, target.url);
        let sent = full_speed(&target, &data, process).await?;
        report.lines_per_s = Some(sent.lines as f64 / sent.wall.as_secs_f64());
        report.retries = sent.retries;
        report.cpu_s_per_gb_taking_in =
            cpu(process)?.zip(cpu_before).map(|(now, then)| (now - then) / raw_gb);
        if process.is_some() {
            report.rss_quarters_mib = Some(sent.rss_quarters.map(|b| b as f64 / MIB));
            report.peak_anonymous_mib = Some(sent.rss_anonymous as f64 / MIB);
        }
    }
    eprintln!("waiting for flush and compaction");
    kind.settle(&http, &options.base, process).await?;
    if !options.skip_ingest {
        report.cpu_s_per_gb = cpu(process)?.zip(cpu_before).map(|(now, then)| (now - then) / raw_gb);
        report.peak_rss_mib = process.map(Process::memory).transpose()?.map(|m| m.peak as f64 / MIB);
        let disk = options.data_dir.as_deref().map(disk_bytes).zip(disk_before);
        report.disk_per_raw =
            disk.map(|(now, then)| now.saturating_sub(then) as f64 / truth.raw_bytes as f64);
    }
    report.queries = ask_all(options, kind, &http, &truth).await?;
    if !options.steady.is_zero() {
        let rate = options.rate.or(report.lines_per_s.map(|r| r / 2.0));
        let rate = rate.context("the steady phase needs --rate when nothing is sent before")?;
        watch_visibility(options, kind, &target, rate, &truth, &mut report).await?;
    }
    if let Some(server) = &mut spawned {
        server.alive()?;
    }
    Ok(report)
}

async fn wait_ready(http: &Client, base: &str, server: &mut Spawned) -> Result<()> {
    let begun = Instant::now();
    while http.get(format!("{base}/metrics")).send().await.is_err() {
        server.alive()?;
        if begun.elapsed() > MAX_START {
            bail!("nothing answers at {base} {} s after the start", MAX_START.as_secs());
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    Ok(())
}

/// Every question once per round, so that a disturbance hits all alike; the first round warms up.
async fn ask_all(
    options: &Options,
    kind: Kind,
    http: &Client,
    truth: &Truth,
) -> Result<std::collections::BTreeMap<String, Timing>> {
    let spoken = Language::of(kind);
    let languages: Vec<Language> = spoken
        .iter()
        .copied()
        .filter(|l| options.languages.is_empty() || options.languages.contains(l))
        .collect();
    let asked: Vec<Question> =
        languages.iter().flat_map(|l| questions(options.protocol, *l, truth)).collect();
    let mut times: Vec<Vec<f64>> = vec![Vec::new(); asked.len()];
    let mut wrong: Vec<Option<String>> = vec![None; asked.len()];
    for round in 0..=options.repeats {
        for (index, question) in asked.iter().enumerate() {
            // A question that failed once is not asked again: its time would say nothing.
            if round > 0 && times[index].is_empty() && wrong[index].is_some() {
                continue;
            }
            match question.ask(http, &options.base, options.tenant.as_deref()).await {
                Ok((ms, body)) => {
                    if round > 0 || options.repeats == 0 {
                        times[index].push(ms);
                    }
                    if let Err(why) = question.check(&body, truth) {
                        wrong[index].get_or_insert(why);
                        if times[index].is_empty() {
                            times[index].push(ms);
                        }
                    }
                }
                Err(error) => _ = wrong[index].get_or_insert(format!("{error:#}")),
            }
        }
    }
    let several = spoken.len() > 1;
    Ok(asked
        .iter()
        .zip(times.iter().zip(wrong))
        .map(|(question, (times, wrong))| {
            let language = format!("{:?}", question.language).to_lowercase();
            let key =
                if several { format!("{} {language}", question.name) } else { question.name.to_owned() };
            let timing = Timing {
                median_ms: quantile(times, 0.5).unwrap_or(f64::NAN),
                p95_ms: quantile(times, 0.95).unwrap_or(f64::NAN),
                ok: wrong.is_none(),
                wrong,
            };
            (key, timing)
        })
        .collect())
}

async fn watch_visibility(
    options: &Options,
    kind: Kind,
    target: &Target,
    rate: f64,
    truth: &Truth,
    report: &mut Report,
) -> Result<()> {
    // Other lines at another time: the same ones could be taken for a repeated delivery.
    let mean = truth.raw_bytes as f64 / truth.lines as f64;
    let bytes = (rate * options.steady.as_secs_f64() * mean * 1.2).clamp(1e6, MAX_STEADY_BYTES);
    let plan = Plan {
        raw_bytes: (bytes / 1e6).ceil() as u64 * 1_000_000,
        seed: options.plan.seed + 1,
        start_ns: options.plan.start_ns - DAY_NS,
        ..options.plan.clone()
    };
    let (cache, format) = (options.cache.clone(), options.protocol.format());
    let data = tokio::task::spawn_blocking(move || prepared(&plan, format, &cache)).await??;
    eprintln!("watching lines become visible under {rate:.0} lines/s for {:?}", options.steady);
    let stop = AtomicBool::new(false);
    let load = steady(target, &data, rate, &stop);
    let watch = async {
        // The load has to be there before the first look.
        tokio::time::sleep(Duration::from_secs(1)).await;
        let found = probe(target, kind, &options.base, Instant::now() + options.steady).await;
        stop.store(true, Relaxed);
        found
    };
    let (reached, found) = tokio::join!(load, watch);
    let found = found?;
    report.steady_lines_per_s = Some(reached?);
    report.visible_p50_ms = quantile(&found.all, 0.5);
    report.visible_p99_ms = quantile(&found.all, 0.99);
    report.visible_new_stream_p99_ms = quantile(&found.new_streams, 0.99);
    report.acknowledged_p99_ms = quantile(&found.acknowledged, 0.99);
    Ok(())
}
