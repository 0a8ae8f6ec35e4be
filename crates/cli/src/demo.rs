//! `trine demo`: a server in a fresh directory, a live sample, three questions with their answers.

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
    encode::{Encoder, Format},
    generate::shop::Shop,
    record::{Record, Source},
};

use crate::{
    client::{BOLD, Client, DIM, GREEN, Output, PLAIN, ServerOptions},
    logql::{self, DirectionArg},
    server::{ServerArgs, Site, Stop},
    sql,
};

/// A small web shop logs into a fresh server: the last fifteen minutes at once, then live. Nothing
/// is kept after the end unless --data-dir names a directory.
#[derive(Debug, Args)]
pub struct DemoArgs {
    /// Where to serve; another port is taken when this one is in use
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:7070")]
    http: SocketAddr,
    /// Directory to keep the data in [default: a temporary one, removed at the end]
    #[arg(long, value_name = "DIR")]
    data_dir: Option<std::path::PathBuf>,
    /// Requests a second that the shop serves; each logs about three lines
    #[arg(long, default_value_t = 20.0, value_parser = parse_rate)]
    rate: f64,
    /// End by itself after so many seconds of live lines [default: run until Ctrl-C]
    #[arg(long, value_name = "SECONDS")]
    seconds: Option<u64>,
}

/// Time before now that the sample begins with.
const HISTORY: Duration = Duration::from_secs(15 * 60);
/// Records of one request while the history is sent.
const BATCH: usize = 5_000;
/// The shop's lines are sent this often.
const TICK: Duration = Duration::from_millis(100);

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
    let mut shop = Feed::new(Shop::new(now.as_second().unsigned_abs(), first, args.rate));
    let begun = std::time::Instant::now();
    shop.send_until(&client, now_ns()).await?;
    let sent = shop.sent.load(Relaxed);
    anstream::println!(
        "{BOLD}Trine serves at {url}{PLAIN}   data in {}, OTLP at {} (gRPC) and {} (HTTP)",
        dir.display(),
        site.server.otlp_grpc,
        site.server.otlp_http
    );
    anstream::println!(
        "A small web shop has logged {sent} lines over the last {} minutes (stored in {:.1} s) and goes on live.\n",
        HISTORY.as_secs() / 60,
        begun.elapsed().as_secs_f64()
    );
    let counter = shop.sent.clone();
    let feeding = tokio::spawn(async move { shop.live(&client).await });
    let ask = Client::new(&ServerOptions { server: url.clone(), tenant: None })?;
    let told = async {
        three_questions(&ask, &url).await?;
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
    let _ = writeln!(std::io::stdout(), "\n{} lines in all; stopping", counter.load(Relaxed));
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

/// Sends the shop's lines.
struct Feed {
    shop: Shop,
    next: Record,
    encoder: Encoder,
    sent: Arc<AtomicU64>,
}

impl Feed {
    fn new(mut shop: Shop) -> Self {
        let mut next = Record::default();
        shop.next_into(&mut next);
        Self { shop, next, encoder: Encoder::new(Format::Otlp), sent: Arc::default() }
    }

    /// Sends every record up to a time.
    async fn send_until(&mut self, client: &Client, until: i64) -> anyhow::Result<()> {
        while self.next.timestamp_ns <= until {
            let mut batch = Vec::new();
            while self.next.timestamp_ns <= until && batch.len() < BATCH {
                let mut record = Record::default();
                self.shop.next_into(&mut record);
                batch.push(std::mem::replace(&mut self.next, record));
            }
            let mut body = Vec::new();
            self.encoder.encode(&batch, self.shop.streams(), &mut body)?;
            let request = client.post("/v1/logs").header("Content-Type", "application/x-protobuf").body(body);
            client.send(request).await?;
            self.sent.fetch_add(batch.len() as u64, Relaxed);
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

fn now_ns() -> i64 {
    Timestamp::now().as_nanosecond() as i64
}

async fn three_questions(client: &Client, url: &str) -> anyhow::Result<()> {
    let by_service = "SELECT service, count(*) AS lines, count(*) FILTER (WHERE level = 'ERROR') AS errors \
                      FROM logs GROUP BY service ORDER BY errors DESC, lines DESC";
    anstream::println!(
        "{BOLD}1. Which services fail?{PLAIN}\n   {GREEN}trine sql --server {url} \"{by_service}\"{PLAIN}"
    );
    ask_sql(client, by_service).await?;

    let last_errors = r#"{service_name=~".+"} | level="error""#;
    anstream::println!(
        "{BOLD}2. What do the last errors say?{PLAIN}\n   {GREEN}trine logql --server {url} '{last_errors}' --limit 5{PLAIN}"
    );
    let request = client.get("/loki/api/v1/query_range").query(&[
        ("query", last_errors),
        ("limit", "5"),
        ("since", "15m"),
    ]);
    let answer: serde_json::Value = client.send(request).await?.json().await?;
    logql::print(&answer["data"], Output::Table, DirectionArg::Backward)?;

    let story = "SELECT timestamp, service, level, body FROM logs WHERE trace_id = \
                 (SELECT max(trace_id) FROM logs WHERE level = 'ERROR') ORDER BY timestamp";
    anstream::println!(
        "\n{BOLD}3. What happened in the request behind one of them?{PLAIN}\n   {GREEN}trine sql --server {url} \"{story}\"{PLAIN}"
    );
    ask_sql(client, story).await
}

async fn ask_sql(client: &Client, query: &str) -> anyhow::Result<()> {
    let body = serde_json::json!({"query": query, "format": "arrow"});
    let bytes = client.send(client.post("/api/v1/sql").json(&body)).await?.bytes().await?;
    sql::print_table(&bytes)?;
    println!();
    Ok(())
}
