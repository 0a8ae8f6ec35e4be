//! `trine demo`: a server in a fresh directory, a live sample of all three signals, four questions with
//! their answers.

use std::{
    io::Write as _,
    net::SocketAddr,
    process::ExitCode,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use anyhow::Context;
use clap::{Args, Parser};
use jiff::Timestamp;
use trine_bench::{
    encode::{Encoder, Format, otlp_metrics, otlp_spans},
    generate::shop::Shop,
    record::Source,
};

use crate::{
    client::{BOLD, Client, DIM, GREEN, Output, PLAIN, ServerOptions},
    logql::{self, DirectionArg},
    server::{ServerArgs, Site, Stop},
    sql,
};

/// A small web shop sends its logs, traces and metrics to a fresh server: the last fifteen minutes at
/// once, then live. Nothing is kept after the end unless --data-dir names a directory.
#[derive(Debug, Args)]
pub struct DemoArgs {
    /// Where to serve; another port is taken when this one is in use
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:7070")]
    http: SocketAddr,
    /// Directory to keep the data in [default: a temporary one, removed at the end]
    #[arg(long, value_name = "DIR")]
    data_dir: Option<std::path::PathBuf>,
    /// Requests a second that the shop serves; each logs about three lines and leaves about seven spans
    #[arg(long, default_value_t = 20.0, value_parser = parse_rate)]
    rate: f64,
    /// End by itself after so many seconds of live lines [default: run until Ctrl-C]
    #[arg(long, value_name = "SECONDS")]
    seconds: Option<u64>,
}

/// Time before now that the sample begins with.
const HISTORY: Duration = Duration::from_secs(15 * 60);
/// Of the history, so much is sent at once.
const STEP_NS: i64 = 10_000_000_000;
/// Records and spans of one request at most.
const BATCH: usize = 5_000;
/// The shop's lines and spans are sent this often.
const TICK: Duration = Duration::from_millis(100);
/// Every pod exports its metrics this often.
const EXPORT_NS: i64 = 5_000_000_000;
/// So long before now the inventory's database stalled.
const STALL_NS: i64 = 4 * 60 * 1_000_000_000;

pub async fn run(args: DemoArgs) -> anyhow::Result<ExitCode> {
    let mut stop = Stop::listen()?;
    let (_temporary, dir) = match args.data_dir {
        Some(dir) => (None, dir),
        None => {
            let dir = tempfile::Builder::new()
                .prefix("trine-demo-")
                .tempdir()
                .context("cannot make a directory")?;
            let path = dir.path().to_owned();
            (Some(dir), path)
        }
    };
    let site = start(args.http, &dir).await?;
    let url = format!("http://{}", site.server.http);
    let client = Client::new(&ServerOptions { server: url.clone(), tenant: None })?;

    let now = Timestamp::now();
    let first = now.as_nanosecond() as i64 - HISTORY.as_nanos() as i64;
    let stall = now.as_nanosecond() as i64 - STALL_NS;
    let seed = now.as_second().unsigned_abs();
    let shop = Shop::new(seed, first, args.rate).export_every(EXPORT_NS).stall_at(stall);
    let mut feed = Feed::new(shop);
    let begun = std::time::Instant::now();
    feed.history(&client, first).await?;
    anstream::println!(
        "{BOLD}Trine serves at {url}{PLAIN}   data in {}, OTLP at {} (gRPC) and {} (HTTP)",
        dir.display(),
        site.server.otlp_grpc,
        site.server.otlp_http
    );
    anstream::println!(
        "A small web shop has sent {} over the last {} minutes (stored in {:.1} s) and goes on live.\n",
        feed.sent,
        HISTORY.as_secs() / 60,
        begun.elapsed().as_secs_f64()
    );
    let sent = feed.sent.clone();
    let feeding = tokio::spawn(async move { feed.live(&client).await });
    let ask = Client::new(&ServerOptions { server: url.clone(), tenant: None })?;
    let told = async {
        questions(&ask, &url).await?;
        anstream::println!("{BOLD}Follow it live:{PLAIN}  {GREEN}trine tail --server {url}{PLAIN}\n");
        anstream::println!("{DIM}Ctrl-C ends the demo.{PLAIN}");
        anyhow::Ok(())
    };
    let ended = async {
        told.await?;
        match args.seconds {
            Some(seconds) => tokio::time::sleep(Duration::from_secs(seconds)).await,
            None => std::future::pending().await,
        }
        anyhow::Ok(())
    };
    tokio::select! {
        result = ended => result?,
        result = feeding => result??,
        () = stop.asked() => {}
    }
    // Where nobody reads any more, stopping goes on without words.
    let _ = writeln!(std::io::stdout(), "\n{sent} in all; stopping");
    site.stop().await;
    Ok(ExitCode::SUCCESS)
}

/// Requests a second that the shop can keep up with.
fn parse_rate(text: &str) -> Result<f64, String> {
    const FASTEST: f64 = 100_000.0;
    match text.parse::<f64>() {
        Ok(rate) if rate > 0.0 && rate <= FASTEST => Ok(rate),
        _ => Err(format!("{text:?} is no rate; give a number above 0, at most {FASTEST}")),
    }
}

/// Takes the usual ports where they are free, others where not.
async fn start(http: SocketAddr, dir: &std::path::Path) -> anyhow::Result<Site> {
    let args = |http: SocketAddr, grpc: u16, otlp: u16| {
        #[derive(Parser)]
        struct Defaults {
            #[command(flatten)]
            server: ServerArgs,
        }
        let mut args = Defaults::parse_from(["demo"]).server;
        dir.clone_into(&mut args.data_dir);
        args.http = http;
        args.otlp_grpc = SocketAddr::new(http.ip(), grpc);
        args.otlp_http = SocketAddr::new(http.ip(), otlp);
        args
    };
    let free = |address: SocketAddr| std::net::TcpListener::bind(address).is_ok();
    let port = |wanted: u16| if free(SocketAddr::new(http.ip(), wanted)) { wanted } else { 0 };
    let http = SocketAddr::new(http.ip(), port(http.port()));
    Site::start(&args(http, port(4317), port(4318))).await
}

/// What the server has taken.
#[derive(Debug, Default)]
struct Sent {
    lines: AtomicU64,
    spans: AtomicU64,
    points: AtomicU64,
}

impl std::fmt::Display for Sent {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (lines, spans) = (self.lines.load(Relaxed), self.spans.load(Relaxed));
        write!(out, "{lines} lines, {spans} spans and {} points of metrics", self.points.load(Relaxed))
    }
}

/// Sends what the shop tells.
struct Feed {
    shop: Shop,
    encoder: Encoder,
    sent: Arc<Sent>,
}

impl Feed {
    fn new(shop: Shop) -> Self {
        Self { shop, encoder: Encoder::new(Format::Otlp), sent: Arc::default() }
    }

    /// Sends everything from the shop's opening at `first` to now.
    async fn history(&mut self, client: &Client, first: i64) -> anyhow::Result<()> {
        let (mut until, end) = (first, now_ns());
        while until < end {
            until = (until + STEP_NS).min(end);
            self.send_until(client, until).await?;
        }
        Ok(())
    }

    /// Sends everything up to a time.
    async fn send_until(&mut self, client: &Client, until: i64) -> anyhow::Result<()> {
        let found = self.shop.until(until);
        let streams = self.shop.streams();
        for records in found.logs.chunks(BATCH) {
            let mut body = Vec::new();
            self.encoder.encode(records, streams, &mut body)?;
            post(client, "/v1/logs", body).await?;
            self.sent.lines.fetch_add(records.len() as u64, Relaxed);
        }
        for spans in found.spans.chunks(BATCH) {
            let mut body = Vec::new();
            otlp_spans(spans, streams, &mut body);
            post(client, "/v1/traces", body).await?;
            self.sent.spans.fetch_add(spans.len() as u64, Relaxed);
        }
        if !found.metrics.is_empty() {
            let mut body = Vec::new();
            otlp_metrics(&found.metrics, streams, &mut body);
            post(client, "/v1/metrics", body).await?;
            let points = found.metrics.iter().map(|export| export.points() as u64).sum();
            self.sent.points.fetch_add(points, Relaxed);
        }
        Ok(())
    }

    /// Goes on as time goes on.
    async fn live(mut self, client: &Client) -> anyhow::Result<()> {
        let mut tick = tokio::time::interval(TICK);
        loop {
            tick.tick().await;
            self.send_until(client, now_ns()).await?;
        }
    }
}

/// Sends one export request.
async fn post(client: &Client, path: &str, body: Vec<u8>) -> anyhow::Result<()> {
    let request = client.post(path).header("Content-Type", "application/x-protobuf").body(body);
    client.send(request).await?;
    Ok(())
}

fn now_ns() -> i64 {
    Timestamp::now().as_nanosecond() as i64
}

async fn questions(client: &Client, url: &str) -> anyhow::Result<()> {
    let by_service = "SELECT service_name, count(*) AS requests, count(*) FILTER (WHERE status = 'error') AS errors, \
                      max(duration_ns) / 1000000 AS slowest_ms FROM spans WHERE kind = 'server' \
                      GROUP BY service_name ORDER BY errors DESC, requests DESC";
    heading("1. Which services fail?", &format!("trine sql --server {url} \"{by_service}\""));
    ask_sql(client, by_service).await?;

    heading("2. How many requests a second does the front end answer, by status?", "");
    let in_sql = "SELECT attributes['http.response.status_code'] AS code, count(*) / 300.0 AS per_second FROM spans \
                  WHERE service_name = 'frontend' AND parent_span_id IS NULL \
                  AND start >= now() - INTERVAL '5 minutes' GROUP BY code ORDER BY code";
    heading("   By its spans, in SQL", &format!("trine sql --server {url} \"{in_sql}\""));
    ask_sql(client, in_sql).await?;
    let in_logql = r#"sum by (http_status) (rate({service_name="frontend"}[5m]))"#;
    heading("   By its lines, in LogQL", &format!("trine logql --server {url} '{in_logql}'"));
    ask_rates(client, "/loki/api/v1/query", in_logql).await?;
    let in_promql = r#"sum by (http_response_status_code) (rate(http_server_requests_total{service_name="frontend"}[5m]))"#;
    heading("   By its counters, in PromQL", &format!("trine promql --server {url} '{in_promql}'"));
    ask_rates(client, "/prometheus/api/v1/query", in_promql).await?;

    let slowest = "SELECT trace_id, operation, duration_ns / 1000000 AS ms FROM spans \
                   WHERE parent_span_id IS NULL ORDER BY duration_ns DESC LIMIT 1";
    heading("3. Which request took longest?", &format!("trine sql --server {url} \"{slowest}\""));
    ask_sql(client, slowest).await?;
    let body = serde_json::json!({"query": slowest, "format": "json"});
    let rows: serde_json::Value = client.send(client.post("/api/v1/sql").json(&body)).await?.json().await?;
    if let Some(trace) = rows[0]["trace_id"].as_str() {
        anstream::println!("   All of it:  {GREEN}trine trace --server {url} {trace}{PLAIN}\n");
    }

    let join = "SELECT span.service_name, span.operation, log.level, max(log.body) AS line, count(DISTINCT span.span_id) AS spans, \
                max(metric.value) AS under_way FROM traces span JOIN logs log ON span.trace_id = log.trace_id \
                AND log.timestamp BETWEEN span.start AND span.end JOIN metrics metric \
                ON span.service_name = metric.service_name AND span.minute = metric.minute \
                WHERE span.duration_ns > 1e9 AND log.level = 'ERROR' \
                AND metric.metric = 'http_server_active_requests' \
                GROUP BY span.service_name, span.operation, log.level ORDER BY spans DESC LIMIT 5";
    heading(
        "4. What did slow spans log, and how many requests were under way in that minute?",
        &format!("trine sql --server {url} \"{join}\""),
    );
    ask_sql(client, join).await
}

/// A question and the command that asks it.
fn heading(question: &str, command: &str) {
    anstream::println!("{BOLD}{question}{PLAIN}");
    if !command.is_empty() {
        anstream::println!("   {GREEN}{command}{PLAIN}");
    }
}

/// Asks for an instant vector; Loki and Prometheus answer alike.
async fn ask_rates(client: &Client, path: &str, query: &str) -> anyhow::Result<()> {
    let answer: serde_json::Value =
        client.send(client.get(path).query(&[("query", query)])).await?.json().await?;
    logql::print(&answer["data"], Output::Table, DirectionArg::Backward)?;
    println!();
    Ok(())
}

async fn ask_sql(client: &Client, query: &str) -> anyhow::Result<()> {
    let body = serde_json::json!({"query": query, "format": "arrow"});
    let bytes = client.send(client.post("/api/v1/sql").json(&body)).await?.bytes().await?;
    sql::print_table(&bytes)?;
    println!();
    Ok(())
}
