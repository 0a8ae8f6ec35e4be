//! `trine server`.

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    process::ExitCode,
    time::Duration,
};

use anyhow::Context;
use clap::{ArgAction, Args, ValueEnum};
use jiff::SpanRelativeTo;
use trine_protocols::Limits;
use trine_scrape::ScrapeConfig;
use trine_server::{Running, ServerConfig};
use trine_store::{BodyEncoding, Store, StoreConfig};

use crate::client::{PLAIN, YELLOW};

/// How bodies lie in segments.
#[derive(Debug, Clone, Copy, ValueEnum)]
pub enum Bodies {
    /// Templates and variables: the smallest form
    Templates,
    /// A plain text column that any Parquet reader sees; takes about a third more disk
    Plain,
}

#[derive(Debug, Args)]
pub struct ServerCommand {
    /// TOML file of settings: the long options, with underscores. Options and environment win over it
    #[arg(long, value_name = "FILE", env = "TRINE_CONFIG")]
    pub config: Option<PathBuf>,
    /// Print the settings in force in the form of such a file, and end
    #[arg(long)]
    pub print_config: bool,
    /// Print a JSON Schema of such a file, and end
    #[arg(long, conflicts_with = "print_config")]
    pub config_schema: bool,
    #[command(flatten)]
    pub settings: ServerArgs,
}

/// The settings of a server, each declared here alone: [`crate::config`] makes the file's keys of them.
#[derive(Debug, Clone, Args)]
pub struct ServerArgs {
    /// Directory of all data; made when missing
    #[arg(long, value_name = "DIR", env = "TRINE_DATA_DIR", default_value = "trine-data")]
    pub data_dir: PathBuf,
    /// Where everything is served over HTTP; port 0 picks one
    #[arg(long, value_name = "ADDR", env = "TRINE_HTTP", default_value = "127.0.0.1:7070")]
    pub http: SocketAddr,
    /// Where OTLP over gRPC is taken; port 0 picks one
    #[arg(long, value_name = "ADDR", env = "TRINE_OTLP_GRPC", default_value = "127.0.0.1:4317")]
    pub otlp_grpc: SocketAddr,
    /// Where OTLP over HTTP is taken; port 0 picks one
    #[arg(long, value_name = "ADDR", env = "TRINE_OTLP_HTTP", default_value = "127.0.0.1:4318")]
    pub otlp_http: SocketAddr,
    /// Drop rows older than this, e.g. 30d or 12h [default: keep for ever]
    #[arg(long, value_name = "DURATION", env = "TRINE_RETENTION_AGE", value_parser = parse_some_time)]
    pub retention_age: Option<Duration>,
    /// Most bytes of segments on disk, e.g. 200GB; the oldest go first [default: no bound]
    #[arg(long, value_name = "BYTES", env = "TRINE_RETENTION_BYTES", value_parser = parse_some_bytes)]
    pub retention_bytes: Option<u64>,
    /// Wait for the disk (fdatasync) before an acknowledgement. `false` is faster on slow disks, but
    /// a power cut may lose the last seconds
    #[arg(long, value_name = "BOOL", env = "TRINE_FSYNC", default_value_t = true, action = ArgAction::Set)]
    pub fsync: bool,
    /// How long a batch is remembered so that it is not stored twice; 0s switches this off
    #[arg(long, value_name = "DURATION", env = "TRINE_DEDUP_WINDOW", default_value = "10m", value_parser = parse_duration)]
    pub dedup_window: Duration,
    /// Recognise a repeated request without Idempotency-Key header by a hash of its body, when all its
    /// records bring a time of their own
    #[arg(long, value_name = "BOOL", env = "TRINE_DEDUP_BY_CONTENT", default_value_t = true, action = ArgAction::Set)]
    pub dedup_by_content: bool,
    /// How bodies lie in segments
    #[arg(long, value_enum, env = "TRINE_BODIES", default_value = "templates")]
    pub bodies: Bodies,
    /// Rows are kept in memory up to this many bytes, then written to a segment; two such parts may
    /// exist at a time
    #[arg(long, value_name = "BYTES", env = "TRINE_MEMTABLE_BYTES", default_value = "32MiB", value_parser = parse_some_bytes)]
    pub memtable_bytes: u64,
    /// Most memory for the indexes of segments that queries read, kept for the next query; those asked
    /// for longest ago go first, and what is not asked for in 10 minutes goes by itself
    #[arg(long, value_name = "BYTES", env = "TRINE_INDEX_MEMORY", default_value = "256MiB", value_parser = parse_bytes)]
    pub index_memory: u64,
    /// Most bytes of request bodies in memory at once (each counted three times over, for its
    /// decoded forms); further requests wait
    #[arg(long, value_name = "BYTES", env = "TRINE_MAX_INFLIGHT_BYTES", default_value = "64MiB", value_parser = parse_bytes)]
    pub max_inflight_bytes: u64,
    /// Longest run of one query
    #[arg(long, value_name = "DURATION", env = "TRINE_QUERY_TIMEOUT", default_value = "60s", value_parser = parse_some_time)]
    pub query_timeout: Duration,
    /// Most memory of one query
    #[arg(long, value_name = "BYTES", env = "TRINE_QUERY_MEMORY", default_value = "512MiB", value_parser = parse_some_bytes)]
    pub query_memory: u64,
    /// What to scrape, as a file in the form of Prometheus' `prometheus.yml`; read again on SIGHUP
    #[arg(long, value_name = "FILE", env = "TRINE_SCRAPE_CONFIG")]
    pub scrape_config: Option<PathBuf>,
}

/// A store with a server in front.
pub struct Site {
    pub store: std::sync::Arc<Store>,
    pub server: Running,
}

impl Site {
    /// Opens the store and starts to serve.
    pub async fn start(args: &ServerArgs) -> anyhow::Result<Self> {
        let scrape = args.scrape_config.as_deref().map(scrape_config).transpose()?;
        let mut config = StoreConfig::new(&args.data_dir);
        config.fsync = args.fsync;
        config.retention_age = args.retention_age;
        config.retention_bytes = args.retention_bytes;
        config.dedup_window = args.dedup_window;
        config.dedup_by_content = args.dedup_by_content;
        config.memtable_bytes = args.memtable_bytes as usize;
        config.index_memory = args.index_memory as usize;
        config.body_encoding = match args.bodies {
            Bodies::Templates => BodyEncoding::Templates,
            Bodies::Plain => BodyEncoding::Plain,
        };
        let store = tokio::task::spawn_blocking(move || Store::open(config)).await??;
        let server = trine_server::start(
            store.clone(),
            ServerConfig {
                http: args.http,
                otlp_grpc: args.otlp_grpc,
                otlp_http: args.otlp_http,
                limits: Limits::default(),
                max_inflight_bytes: args.max_inflight_bytes as usize,
                query_timeout: args.query_timeout,
                query_memory: args.query_memory as usize,
                scrape,
            },
        )
        .await;
        match server {
            Ok(server) => Ok(Self { store, server }),
            Err(error) => {
                store.close().await;
                Err(error.into())
            }
        }
    }

    /// Lets requests in flight end, then closes the store.
    pub async fn stop(self) {
        self.server.stop().await;
        self.store.close().await;
    }
}

/// Reads what to scrape; all that is wrong with the file is told.
fn scrape_config(file: &Path) -> anyhow::Result<ScrapeConfig> {
    let config = ScrapeConfig::load(file).map_err(|errors| {
        let lines: Vec<String> = errors.iter().map(ToString::to_string).collect();
        anyhow::anyhow!("the scrape configuration cannot be used:\n{}", lines.join("\n"))
    })?;
    for warning in &config.warnings {
        anstream::eprintln!("{YELLOW}warning:{PLAIN} {warning}");
    }
    Ok(config)
}

/// Reads the file again and goes on with it; one that cannot be used changes nothing.
async fn scrape_again(site: &Site, file: &Path) {
    let again = match scrape_config(file) {
        Ok(config) => site.server.scrape(config).await.map_err(Into::into),
        Err(error) => {
            site.server.scrape_refused(format!("{error:#}"));
            Err(error)
        }
    };
    match again {
        Ok(()) => eprintln!("scraping by {} as it is now", file.display()),
        Err(error) => anstream::eprintln!("{YELLOW}warning:{PLAIN} scraping goes on as before: {error:#}"),
    }
}

/// Serves until Ctrl-C or SIGTERM.
pub async fn run(args: ServerArgs) -> anyhow::Result<ExitCode> {
    // Taken before the store opens: a signal during a long replay must end the program cleanly too.
    let mut stop = Stop::listen()?;
    let site = tokio::select! {
        site = Site::start(&args) => site?,
        () = stop.asked() => return Ok(ExitCode::from(130)),
    };
    println!(
        "trine ready: http=http://{} otlp-grpc={} otlp-http=http://{} data={}",
        site.server.http,
        site.server.otlp_grpc,
        site.server.otlp_http,
        args.data_dir.display()
    );
    let mut hangup = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::hangup())
        .context("cannot listen for SIGHUP")?;
    loop {
        tokio::select! {
            () = stop.asked() => break,
            _ = hangup.recv() => {
                if let Some(file) = &args.scrape_config {
                    scrape_again(&site, file).await;
                }
            }
        }
    }
    eprintln!("stopping; a second signal ends at once");
    tokio::select! {
        () = site.stop() => Ok(ExitCode::SUCCESS),
        () = stop.asked() => Ok(ExitCode::from(130)),
    }
}

/// Ctrl-C and SIGTERM.
pub struct Stop {
    interrupt: tokio::signal::unix::Signal,
    terminate: tokio::signal::unix::Signal,
}

impl Stop {
    pub fn listen() -> anyhow::Result<Self> {
        use tokio::signal::unix::{SignalKind, signal};
        Ok(Self {
            interrupt: signal(SignalKind::interrupt()).context("cannot listen for Ctrl-C")?,
            terminate: signal(SignalKind::terminate()).context("cannot listen for SIGTERM")?,
        })
    }

    pub async fn asked(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
        }
    }
}

/// `90s`, `10m`, `12h`, `30d`.
pub fn parse_duration(text: &str) -> Result<Duration, String> {
    let bad = || format!("{text:?} is no duration; write e.g. 90s, 10m, 12h or 30d");
    let span: jiff::Span = text.parse().map_err(|_| bad())?;
    let duration = span.to_duration(SpanRelativeTo::days_are_24_hours()).map_err(|_| bad())?;
    duration.try_into().map_err(|_| bad())
}

/// A duration above zero.
fn parse_some_time(text: &str) -> Result<Duration, String> {
    let found = parse_duration(text)?;
    if found.is_zero() { Err(nothing(text)) } else { Ok(found) }
}

/// A number of bytes above zero.
fn parse_some_bytes(text: &str) -> Result<u64, String> {
    let found = parse_bytes(text)?;
    if found == 0 { Err(nothing(text)) } else { Ok(found) }
}

fn nothing(text: &str) -> String {
    format!("{text:?} would leave nothing; give more, or leave the setting out")
}

/// `1048576`, `64MiB`, `200GB`.
fn parse_bytes(text: &str) -> Result<u64, String> {
    const UNITS: [(&str, u64); 10] = [
        ("KiB", 1 << 10),
        ("MiB", 1 << 20),
        ("GiB", 1 << 30),
        ("TiB", 1 << 40),
        ("kB", 1_000),
        ("KB", 1_000),
        ("MB", 1_000_000),
        ("GB", 1_000_000_000),
        ("TB", 1_000_000_000_000),
        ("B", 1),
    ];
    let (number, unit) =
        UNITS.iter().find_map(|(name, bytes)| Some((text.strip_suffix(name)?, *bytes))).unwrap_or((text, 1));
    let number: u64 =
        number.trim().parse().map_err(|_| format!("{text:?} is no size; write e.g. 64MiB or 200GB"))?;
    number.checked_mul(unit).ok_or_else(|| format!("{text:?} is more than 64 bits hold"))
}

#[cfg(test)]
mod tests {
    use clap::FromArgMatches;

    use super::*;

    /// The store has defaults too, for its tests; these must not say something else.
    #[test]
    fn the_defaults_are_the_stores() {
        let command = ServerArgs::augment_args(clap::Command::new("server").no_binary_name(true))
            .mut_args(|option| option.env(None::<&'static str>));
        let settings = ServerArgs::from_arg_matches(&command.get_matches_from([""; 0])).unwrap();
        let store = StoreConfig::new("trine-data");
        assert_eq!(settings.memtable_bytes, store.memtable_bytes as u64);
        assert_eq!(settings.index_memory, store.index_memory as u64);
        assert_eq!(settings.dedup_window, store.dedup_window);
        assert_eq!(settings.dedup_by_content, store.dedup_by_content);
        assert_eq!(settings.fsync, store.fsync);
    }

    #[test]
    fn sizes_and_durations() {
        assert_eq!(parse_bytes("64MiB"), Ok(64 << 20));
        assert_eq!(parse_bytes("200GB"), Ok(200_000_000_000));
        assert_eq!(parse_bytes("17"), Ok(17));
        assert!(parse_bytes("many").unwrap_err().contains("\"many\""));
        assert!(parse_bytes("99999999999TB").is_err());
        assert_eq!(parse_duration("30d"), Ok(Duration::from_secs(30 * 86_400)));
        assert_eq!(parse_duration("0s"), Ok(Duration::ZERO));
        assert!(parse_duration("-5m").is_err());
    }
}
