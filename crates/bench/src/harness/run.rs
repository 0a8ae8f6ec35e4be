//! One measuring run from begin to end; the steps are those of the table in [`super`].

use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use reqwest::Client;

use super::kind::{Kind, Protocol};
use super::load::{Load, Prepared};
use super::process::{Process, disk_bytes};
use super::questions::{Language, Server, ask_all};
use super::report::{Report, quantile};
use super::send::{Target, full_speed, steady};
use super::signal::Signal;
use super::visible::{MAX_WAIT, Probe, now_ns};

/// Time a spawned server gets to answer.
const MAX_START: Duration = Duration::from_mins(1);
/// Time a spawned server gets to stop after it was asked to.
const MAX_STOP: Duration = Duration::from_mins(1);
/// A push or question that takes longer fails.
pub(super) const MAX_REQUEST: Duration = Duration::from_mins(5);
const MIB: f64 = 1024.0 * 1024.0;

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
    /// What is sent.
    pub load: Load,
    /// Where loads are kept.
    pub cache: PathBuf,
    /// Pushes under way at one time.
    pub connections: usize,
    /// Rounds of questions.
    pub repeats: usize,
    /// Languages to ask Trine in; all it speaks when empty.
    pub languages: Vec<Language>,
    /// Names of the questions to ask; all when empty.
    pub only: Vec<String>,
    /// Length of the steady phase; zero leaves it out.
    pub steady: Duration,
    /// Rate of the steady phase, lines per second; half the highest when not given.
    pub rate: Option<f64>,
    /// The load is there already: settle and ask only.
    pub skip_ingest: bool,
}

/// A server this run started; stopped when dropped.
pub(super) struct Spawned(Child);

impl Spawned {
    pub(super) fn start(command: &str) -> Result<Self> {
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

    pub(super) fn pid(&self) -> u32 {
        self.0.id()
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

async fn prepare(load: &Load, options: &Options) -> Result<Prepared> {
    let (load, cache) = (load.clone(), options.cache.clone());
    let (protocol, connections) = (options.protocol, options.connections);
    tokio::task::spawn_blocking(move || load.prepare(protocol, connections, &cache)).await?
}

/// Runs all steps.
pub async fn run(options: &Options) -> Result<Report> {
    let mut prepared = prepare(&options.load, options).await?;
    let signal = options.load.signal();

    let http =
        Client::builder().pool_max_idle_per_host(options.connections + 2).timeout(MAX_REQUEST).build()?;
    let mut spawned = options.spawn.as_deref().map(Spawned::start).transpose()?;
    if let Some(server) = &mut spawned {
        wait_ready(&http, &options.base, server).await?;
    }
    let kind = match options.kind {
        Some(kind) => kind,
        None => Kind::of(&http, &options.base).await?,
    };
    let process = options.pid.or(spawned.as_ref().map(Spawned::pid)).map(Process);
    let path = kind.push_path(signal, options.protocol).with_context(|| {
        format!("{} takes no {signal:?} by {:?}; choose another --protocol", kind.name(), options.protocol)
    })?;
    let target = Target {
        http: http.clone(),
        url: format!("{}{path}", options.base),
        protocol: options.protocol,
        tenant: options.tenant.clone(),
        connections: options.connections,
        ordered: signal == Signal::Metrics,
    };
    let server = Server { http: http.clone(), base: options.base.clone(), tenant: options.tenant.clone() };
    let describe = |prepared: &Prepared| {
        let load = options.load.describe(prepared);
        format!("{load}, by {:?}, {} connections", options.protocol, options.connections)
    };
    let mut report = Report {
        name: kind.name().to_owned(),
        signal,
        load: describe(&prepared),
        lines: prepared.items,
        ..Report::default()
    };
    let disk = || options.data_dir.as_deref().map(|dir| disk_bytes(&kind.data_folder(dir)));
    let disk_before = disk();
    let cpu = || process.map(Process::cpu_seconds).transpose();
    let cpu_before = cpu()?;
    if !options.skip_ingest {
        eprintln!("sending {} {} to {}", prepared.items, signal.items(), target.url);
        let sent = full_speed(&target, &prepared.data, process).await?;
        prepared = prepare(&options.load, options).await?;
        report.load = describe(&prepared);
        report.lines = prepared.items;
        report.lines_per_s = Some(sent.lines as f64 / sent.wall.as_secs_f64());
        report.retries = sent.retries;
        report.set_cpu_taking_in(cpu()?.zip(cpu_before).map(|(now, then)| now - then), prepared.raw_bytes);
        if process.is_some() {
            report.rss_quarters_mib = Some(sent.rss_quarters.map(|b| b as f64 / MIB));
            report.peak_anonymous_mib = Some(sent.rss_anonymous as f64 / MIB);
        }
    }
    eprintln!("waiting for flush and compaction");
    kind.settle(&http, &options.base, process).await?;
    if !options.skip_ingest {
        report.set_cpu(cpu()?.zip(cpu_before).map(|(now, then)| now - then), prepared.raw_bytes);
        report.peak_rss_mib = process.map(Process::memory).transpose()?.map(|m| m.peak as f64 / MIB);
        let disk = disk().zip(disk_before).map(|(now, then)| now.saturating_sub(then));
        report.set_disk(disk, prepared.raw_bytes);
    }
    for (key, count) in ask_all(&server, &prepared.counts(kind), 0).await {
        report.lost.extend(count.wrong.map(|wrong| format!("{key}: {wrong}")));
    }
    let mut questions = prepared.questions(kind, options.protocol, &options.languages);
    if !options.only.is_empty() {
        questions.retain(|q| options.only.iter().any(|name| q.key.split(' ').next() == Some(name)));
        ensure!(!questions.is_empty(), "no question is named {}", options.only.join(" or "));
    }
    report.queries = ask_all(&server, &questions, options.repeats).await;
    if !options.steady.is_zero() {
        let rate = options.rate.or(report.lines_per_s.map(|r| r / 2.0));
        let rate = rate.context("the steady phase needs --rate when nothing is sent before")?;
        let probe = Probe { kind, signal, server: &server, target: &target };
        // What was measured until here is worth a report whatever comes of this.
        if let Err(error) = watch_visibility(options, &prepared, &probe, rate, &mut report).await {
            report.lost.push(format!("visibility: {error:#}"));
        }
    }
    if let Some(server) = &mut spawned {
        server.alive()?;
    }
    Ok(report)
}

pub(super) async fn wait_ready(http: &Client, base: &str, server: &mut Spawned) -> Result<()> {
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

async fn watch_visibility(
    options: &Options,
    main: &Prepared,
    probe: &Probe<'_>,
    rate: f64,
    report: &mut Report,
) -> Result<()> {
    let load = options.load.for_steady(main, rate, options.steady);
    let prepared = prepare(&load, options).await?;
    let items = probe.signal.items();
    eprintln!("watching {items} become visible under {rate:.0} a second for {:?}", options.steady);
    let (stop, taken) = (AtomicBool::new(false), AtomicU64::new(0));
    let sending = steady(probe.target, &prepared.data, rate, &taken, &stop);
    let watch = async {
        // The load has to be there before the first look.
        tokio::time::sleep(Duration::from_secs(1)).await;
        let clock = || load.clock_ns(taken.load(Relaxed)).unwrap_or_else(now_ns);
        let found = probe.run(Instant::now() + options.steady, clock).await;
        stop.store(true, Relaxed);
        found
    };
    let (reached, found) = tokio::join!(sending, watch);
    let found = found?;
    report.steady_lines_per_s = Some(reached?);
    report.visible_p50_ms = quantile(&found.all, 0.5);
    report.visible_p99_ms = quantile(&found.all, 0.99);
    report.visible_new_stream_p99_ms = quantile(&found.new_streams, 0.99);
    report.acknowledged_p99_ms = quantile(&found.acknowledged, 0.99);
    if found.unseen > 0 {
        let (unseen, all, seconds) = (found.unseen, found.all.len(), MAX_WAIT.as_secs());
        bail!("{unseen} of {all} pushes did not show within {seconds} s");
    }
    Ok(())
}
