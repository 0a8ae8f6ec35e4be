//! One question across the three signals, on copies of a real system's telemetry: loads them over OTLP and asks
//! the join of logs, spans and metrics, whose answer was counted while the files were read.

mod copies;

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use futures::stream::{self, StreamExt, TryStreamExt};
use reqwest::Client;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use self::copies::{Counts, METRIC, Request};
use super::kind::Kind;
use super::process::{Process, disk_bytes};
use super::questions::{self, Body, Question, Server, ask_all};
use super::report::Timing;
use super::run::{MAX_REQUEST, Spawned, wait_ready};
use super::send::post;
use super::signal::Signal;

/// Of the answers with a limit.
const LIMIT: u64 = 100;

/// What to measure.
#[derive(Debug, Clone)]
pub struct Options {
    /// `http://host:port` of a Trine.
    pub base: String,
    /// Command that starts the server; it is stopped at the end.
    pub spawn: Option<String>,
    /// The server's data directory; without it no disk.
    pub data_dir: Option<PathBuf>,
    /// Folder of the files.
    pub files: PathBuf,
    /// How often they are loaded.
    pub copies: u32,
    /// Pushes under way at one time.
    pub connections: usize,
    /// Rounds of questions.
    pub repeats: usize,
    /// The copies are there already.
    pub skip_ingest: bool,
}

/// What came of it.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct JoinReport {
    /// How often the files were loaded.
    pub copies: u32,
    /// What one copy holds.
    pub counts: Counts,
    /// Seconds until all was acknowledged.
    pub load_s: Option<f64>,
    /// Bytes on disk after compaction.
    pub disk_bytes: Option<u64>,
    /// What the server does not have although it acknowledged it.
    pub lost: Vec<String>,
    /// By question.
    pub queries: BTreeMap<String, Timing>,
    /// What `EXPLAIN ANALYZE` said, by question.
    pub plans: BTreeMap<String, String>,
}

impl JoinReport {
    /// For people.
    pub fn table(&self) -> String {
        let Counts { logs, spans, samples, .. } = self.counts;
        let mut out = format!("{} copies of {logs} logs, {spans} spans, {samples} samples\n", self.copies);
        if let Some(seconds) = self.load_s {
            _ = writeln!(out, "loaded in {seconds:.0} s");
        }
        if let Some(bytes) = self.disk_bytes {
            _ = writeln!(out, "{} MiB on disk", bytes >> 20);
        }
        for lost in &self.lost {
            _ = writeln!(out, "LOST: {lost}");
        }
        for (key, plan) in &self.plans {
            _ = writeln!(out, "\n{key}\n{plan}");
        }
        for (key, timing) in &self.queries {
            _ = writeln!(out, "{key:<50} {}", timing.line());
        }
        out
    }

    /// True when nothing was lost and no question was answered wrongly.
    pub fn all_right(&self) -> bool {
        self.lost.is_empty() && self.queries.values().all(|t| t.ok)
    }
}

/// Loads and asks.
pub async fn run(options: &Options) -> Result<JoinReport> {
    let files = options.files.clone();
    let (requests, counts) = tokio::task::spawn_blocking(move || copies::read(&files)).await??;
    let http = Client::builder().timeout(MAX_REQUEST).build()?;
    let mut spawned = options.spawn.as_deref().map(Spawned::start).transpose()?;
    if let Some(server) = &mut spawned {
        wait_ready(&http, &options.base, server).await?;
    }
    let mut report = JoinReport { copies: options.copies, counts, ..JoinReport::default() };
    if !options.skip_ingest {
        eprintln!("sending {} copies to {}", options.copies, options.base);
        report.load_s = Some(load(&http, options, &requests).await?.as_secs_f64());
    }
    drop(requests);
    eprintln!("waiting for flush and compaction");
    let process = spawned.as_ref().map(|server| Process(server.pid()));
    Kind::Trine.settle(&http, &options.base, process).await?;
    report.disk_bytes = options.data_dir.as_deref().map(disk_bytes);
    let server = Server { http, base: options.base.clone(), tenant: None };
    for (key, count) in ask_all(&server, &totals(&report), 0).await {
        report.lost.extend(count.wrong.map(|wrong| format!("{key}: {wrong}")));
    }
    let joins = joins(&report);
    let questions: Vec<Question> =
        joins.iter().map(|join| question(join.name, &join.sql, join.check)).collect();
    report.queries = ask_all(&server, &questions, options.repeats).await;
    for join in &joins {
        report.plans.insert(join.name.to_owned(), plan(&server, &join.sql).await?);
    }
    Ok(report)
}

/// Sends all copies, one after the other, several requests at a time.
async fn load(http: &Client, options: &Options, requests: &[Request]) -> Result<Duration> {
    let (begun, retries) = (Instant::now(), AtomicU64::new(0));
    let (retries, sent) = (&retries, &AtomicU64::new(0));
    let all = (0..options.copies).flat_map(|copy| requests.iter().map(move |request| (copy, request)));
    let send = |(copy, request): (u32, &Request)| {
        let body = bytes::Bytes::from(request.copy(copy));
        let url = match request.signal {
            Signal::Logs => format!("{}/v1/logs", options.base),
            Signal::Traces => format!("{}/v1/traces", options.base),
            Signal::Metrics => format!("{}/v1/metrics", options.base),
        };
        async move {
            let push = || http.post(&url).header("content-type", "application/json").body(body.clone());
            post(&url, push, retries).await?;
            if sent.fetch_add(1, Relaxed) + 1 == u64::from(copy + 1) * requests.len() as u64 {
                eprintln!("copy {} of {} after {:.0?}", copy + 1, options.copies, begun.elapsed());
            }
            anyhow::Ok(())
        }
    };
    stream::iter(all).map(send).buffer_unordered(options.connections).try_collect::<Vec<()>>().await?;
    Ok(begun.elapsed())
}

/// Questions that show that nothing was lost.
fn totals(report: &JoinReport) -> Vec<Question> {
    let Counts { logs, spans, samples, .. } = report.counts;
    let total = |(table, rows): (&str, u64)| {
        let sql = format!("SELECT count(*) AS n FROM {table}");
        question(table, &sql, Check::Count(rows * u64::from(report.copies)))
    };
    // The samples that tell a resource's attributes come on top.
    let metrics = "metrics WHERE metric <> 'target_info'";
    [("logs", logs), ("spans", spans), (metrics, samples)].map(total).into()
}

/// What makes an answer right.
#[derive(Clone, Copy)]
enum Check {
    /// So many rows.
    Rows(u64),
    /// One row that says so many.
    Count(u64),
}

/// A join and its right answer.
struct Join {
    name: &'static str,
    sql: String,
    check: Check,
}

fn joins(report: &JoinReport) -> Vec<Join> {
    let pair = "FROM traces span JOIN logs log ON span.trace_id = log.trace_id \
        AND log.timestamp BETWEEN span.start AND span.end";
    let metric = "JOIN metrics metric ON span.service_name = metric.service_name \
        AND metric.minute = date_trunc('minute', span.start)";
    let named = format!("{metric} AND metric.metric = '{METRIC}'");
    let slow = "WHERE span.duration_ns > 1e9 AND log.level = 'ERROR'";
    let columns = "SELECT span.operation, log.level, metric.value";
    let copies = u64::from(report.copies);
    let Counts { pairs, joined, named: of_metric, .. } = report.counts;
    let join = |name, sql, check| Join { name, sql, check };
    vec![
        join(
            "join of three, 100 rows",
            format!("{columns} {pair} {metric} {slow} LIMIT {LIMIT}"),
            Check::Rows(LIMIT.min(joined * copies)),
        ),
        join(
            "join of three, a metric named, 100 rows",
            format!("{columns} {pair} {named} {slow} LIMIT {LIMIT}"),
            Check::Rows(LIMIT.min(of_metric * copies)),
        ),
        join(
            "join of three, all counted",
            format!("SELECT count(*) AS n {pair} {metric} {slow}"),
            Check::Count(joined * copies),
        ),
        join(
            "join of three, a metric named, all counted",
            format!("SELECT count(*) AS n {pair} {named} {slow}"),
            Check::Count(of_metric * copies),
        ),
        join(
            "join of spans and logs, all counted",
            format!("SELECT count(*) AS n {pair} {slow}"),
            Check::Count(pairs * copies),
        ),
    ]
}

fn request(sql: &str) -> questions::Request {
    let body = Body::Json(json!({"query": sql, "format": "json"}));
    questions::Request { path: "/api/v1/sql".to_owned(), body }
}

fn question(key: &str, sql: &str, check: Check) -> Question {
    Question::new(key, request(sql), move |body| {
        let rows: Vec<Value> = serde_json::from_slice(body).map_err(|e| format!("answer is no rows: {e}"))?;
        let (found, want) = match check {
            Check::Rows(want) => (Some(rows.len() as u64), want),
            Check::Count(want) => (rows.first().and_then(|row| row["n"].as_u64()), want),
        };
        if found == Some(want) { Ok(()) } else { Err(format!("want {want}, got {found:?}")) }
    })
}

/// The plan of a statement with what it took.
async fn plan(server: &Server, sql: &str) -> Result<String> {
    let answer = server.ask(&request(&format!("EXPLAIN ANALYZE {sql}"))).await?;
    let rows: Vec<Value> = serde_json::from_slice(&answer.body)
        .with_context(|| format!("EXPLAIN answered {}", String::from_utf8_lossy(&answer.body)))?;
    Ok(rows.iter().filter_map(|row| row["plan"].as_str()).collect::<Vec<_>>().join("\n"))
}
