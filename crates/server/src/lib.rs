//! The server: sockets in front, [`Store`] behind.
//!
//! Everything is served on one HTTP port; OTLP also has its two usual ports. A request goes
//! `route → tenant → admission → decode → store → answer`; each protocol has its own file.

mod admin;
mod admission;
mod asking;
mod error;
mod ingest;
mod jsonlines;
mod loki;
mod media_type;
mod metrics;
mod otlp;
mod prometheus;
mod query_threads;
mod remote_write;
mod scraping;
mod spans;
mod sql;
mod tail;
mod tenant;
mod time;
mod traces;

use std::{
    io,
    net::SocketAddr,
    sync::{Arc, OnceLock},
    time::Duration,
};

use axum::{
    Router,
    extract::DefaultBodyLimit,
    routing::{get, post},
};
use tokio::{net::TcpListener, sync::watch, task::JoinHandle};
use trine_protocols::{Limits, otlp::DeltaState};
use trine_query::{SqlEngine, SqlLimits};
use trine_scrape::{ScrapeConfig, ScrapeError, Scraper};
use trine_store::Store;

pub use admin::verify_json;
use admission::Admission;
use metrics::Metrics;
use query_threads::QueryThreads;
use scraping::LastReload;

/// What the server listens on and what it allows.
#[derive(Debug, Clone)]
pub struct ServerConfig {
    /// Address of the HTTP port that serves everything; port 0 picks one.
    pub http: SocketAddr,
    /// Address of OTLP over gRPC; port 0 picks one.
    pub otlp_grpc: SocketAddr,
    /// Address of OTLP over HTTP; port 0 picks one.
    pub otlp_http: SocketAddr,
    /// Bounds of one request body and its records.
    pub limits: Limits,
    /// Most bytes of request bodies in memory at once; further requests wait.
    pub max_inflight_bytes: usize,
    /// Longest run time of one query.
    pub query_timeout: Duration,
    /// Most memory of one query in bytes.
    pub query_memory: usize,
    /// What to scrape, if anything.
    pub scrape: Option<ScrapeConfig>,
}

/// What every handler sees.
pub(crate) struct App {
    pub store: Arc<Store>,
    pub sql: SqlEngine,
    pub prometheus: trine_promql::api::Api,
    /// What `status/…` of Prometheus' API tells.
    pub facts: trine_promql::api::Facts,
    pub limits: Limits,
    pub admission: Admission,
    pub metrics: Metrics,
    /// Running totals of OTLP metrics that come as deltas.
    pub deltas: Arc<DeltaState>,
    /// Set where there is something to scrape.
    pub scraper: OnceLock<Arc<Scraper>>,
    pub reload: Arc<LastReload>,
    pub query_threads: QueryThreads,
    pub query_timeout: Duration,
    pub query_memory: usize,
    /// Turns true when the server stops; endless answers (tail) end then.
    pub stopping: watch::Receiver<bool>,
}

/// A server that answers until [`Running::stop`].
pub struct Running {
    /// Where everything is served.
    pub http: SocketAddr,
    /// Where OTLP/gRPC is served.
    pub otlp_grpc: SocketAddr,
    /// Where OTLP/HTTP is served.
    pub otlp_http: SocketAddr,
    stop: watch::Sender<bool>,
    scraper: Option<Arc<Scraper>>,
    reload: Arc<LastReload>,
    tasks: Vec<JoinHandle<io::Result<()>>>,
}

/// Longest wait for requests in flight at shutdown.
const SHUTDOWN_GRACE: Duration = Duration::from_secs(10);

impl Running {
    /// Goes on scraping with another configuration; targets that stay are not interrupted.
    pub async fn scrape(&self, config: ScrapeConfig) -> Result<(), ScrapeError> {
        let outcome = match &self.scraper {
            Some(scraper) => scraper.reload(config).await,
            None => Err(ScrapeError::Stopped),
        };
        self.reload.record(outcome.as_ref().map_err(ToString::to_string).copied());
        outcome
    }

    /// Notes for `/health` and `/metrics` that a new configuration of what to scrape could not be read.
    pub fn scrape_refused(&self, reason: String) {
        self.reload.record(Err(reason));
    }

    /// Takes no new requests, lets those in flight end, and returns.
    pub async fn stop(self) {
        let _ = self.stop.send(true);
        if let Some(scraper) = &self.scraper {
            scraper.stop().await;
        }
        for task in self.tasks {
            let abort = task.abort_handle();
            if tokio::time::timeout(SHUTDOWN_GRACE, task).await.is_err() {
                abort.abort();
            }
        }
    }
}

/// The server could not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// An address is taken or not ours.
    #[error("cannot listen on {address} for {what}: {source}; choose another address with {flag}")]
    Bind {
        /// The address.
        address: SocketAddr,
        /// What was to be served there.
        what: &'static str,
        /// The option that chooses it.
        flag: &'static str,
        /// The system's reason.
        source: io::Error,
    },
    /// What is to be scraped cannot be.
    #[error("cannot scrape: {0}")]
    Scrape(#[from] ScrapeError),
    /// The system gives no threads.
    #[error("cannot start the query threads: {0}")]
    Threads(io::Error),
}

/// Binds the three ports and starts to serve.
pub async fn start(store: Arc<Store>, config: ServerConfig) -> Result<Running, StartError> {
    let bind = async |address: SocketAddr, what, flag| {
        TcpListener::bind(address).await.map_err(|source| StartError::Bind { address, what, flag, source })
    };
    let http = bind(config.http, "HTTP", "--http").await?;
    let otlp_grpc = bind(config.otlp_grpc, "OTLP over gRPC", "--otlp-grpc").await?;
    let otlp_http = bind(config.otlp_http, "OTLP over HTTP", "--otlp-http").await?;

    let (stop, stopping) = watch::channel(false);
    let sql_limits = SqlLimits {
        memory_bytes: config.query_memory,
        timeout: config.query_timeout,
        ..SqlLimits::default()
    };
    let app = Arc::new(App {
        sql: SqlEngine::new(store.clone(), sql_limits),
        prometheus: trine_promql::api::Api::default(),
        facts: prometheus::facts(&config),
        store,
        admission: Admission::new(config.max_inflight_bytes),
        limits: config.limits,
        metrics: Metrics::default(),
        deltas: Arc::default(),
        scraper: OnceLock::new(),
        reload: Arc::new(LastReload::taken()),
        query_threads: QueryThreads::start().map_err(StartError::Threads)?,
        query_timeout: config.query_timeout,
        query_memory: config.query_memory,
        stopping: stopping.clone(),
    });
    if let Some(scrape) = config.scrape {
        let scraper = scraping::start(&app, scrape)?;
        let _ = app.scraper.set(Arc::new(scraper));
    }
    let otlp_grpc_routes = otlp::grpc_routes().with_state(app.clone());
    let otlp_http_routes = otlp::http_routes().layer(DefaultBodyLimit::disable()).with_state(app.clone());
    let mut running = Running {
        http: http.local_addr().unwrap_or(config.http),
        otlp_grpc: otlp_grpc.local_addr().unwrap_or(config.otlp_grpc),
        otlp_http: otlp_http.local_addr().unwrap_or(config.otlp_http),
        stop,
        scraper: app.scraper.get().cloned(),
        reload: app.reload.clone(),
        tasks: Vec::new(),
    };
    for (listener, routes) in
        [(http, all_routes(app)), (otlp_grpc, otlp_grpc_routes), (otlp_http, otlp_http_routes)]
    {
        let mut stopping = stopping.clone();
        let stopped = async move {
            let _ = stopping.wait_for(|stop| *stop).await;
        };
        running.tasks.push(tokio::spawn(async move {
            axum::serve(tap_nodelay(listener), routes).with_graceful_shutdown(stopped).await
        }));
    }
    Ok(running)
}

/// Answers are small and waited for; Nagle's algorithm would hold them back.
fn tap_nodelay(
    listener: TcpListener,
) -> impl axum::serve::Listener<Io = tokio::net::TcpStream, Addr = SocketAddr> {
    use axum::serve::ListenerExt;
    listener.tap_io(|stream| {
        let _ = stream.set_nodelay(true);
    })
}

fn all_routes(app: Arc<App>) -> Router {
    Router::new()
        .route("/", get(admin::index))
        .route("/ready", get(admin::ready))
        .route("/health", get(admin::health))
        .route("/metrics", get(admin::metrics))
        .route("/api/v1/status", get(admin::status))
        .route("/api/v1/admin/flush", post(admin::flush))
        .route("/api/v1/admin/compact", post(admin::compact))
        .route("/api/v1/admin/verify", post(admin::verify))
        .route("/api/v1/ingest/jsonlines", post(jsonlines::ingest))
        .route("/api/v1/sql", get(sql::get).post(sql::post))
        .route("/api/v1/tail", get(tail::lines))
        .route("/api/v2/spans", post(spans::zipkin))
        .route("/api/traces", post(spans::jaeger))
        .route("/prometheus/api/v1/write", post(remote_write::write))
        .route("/api/v1/write", post(remote_write::write))
        .route("/loki/api/v1/push", post(loki::push))
        .route("/loki/api/v1/query", get(loki::query).post(loki::query))
        .route("/loki/api/v1/query_range", get(loki::query_range).post(loki::query_range))
        .route("/loki/api/v1/labels", get(loki::labels).post(loki::labels))
        .route("/loki/api/v1/label", get(loki::labels).post(loki::labels))
        .route("/loki/api/v1/label/{name}/values", get(loki::label_values).post(loki::label_values))
        .route("/loki/api/v1/series", get(loki::series).post(loki::series))
        .route("/loki/api/v1/tail", get(tail::websocket))
        .route("/loki/api/v1/status/buildinfo", get(admin::buildinfo))
        .merge(traces::routes())
        .merge(otlp::http_routes())
        .merge(otlp::grpc_routes())
        .merge(prometheus::routes())
        .layer(DefaultBodyLimit::disable())
        .with_state(app)
}
