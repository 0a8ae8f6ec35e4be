//! Prometheus' HTTP API: `/prometheus/api/v1/…`, and `/api/v1/…` where no other API is in the way.

use std::{collections::BTreeMap, sync::Arc};

use axum::{
    Router,
    body::Body,
    extract::{Path, Request as HttpRequest, State},
    http::{
        HeaderValue, StatusCode,
        header::{CONTENT_ENCODING, CONTENT_TYPE, RETRY_AFTER},
    },
    response::{IntoResponse, Response},
    routing::{MethodRouter, get, post},
};
use bytes::Bytes;
use futures::{StreamExt, stream};
use trine_model::TenantId;
use trine_promql::api::{
    Api, Endpoint, FRAMES, Facts, ReadFrames, Reply, Report, Request, decode_read_request, report,
};
use trine_query::SqlError;
use trine_schema::{ScanStats, ScanStatsSnapshot};

use crate::{
    App, ServerConfig, admin,
    asking::{Asking, Deadline, Params, stats_headers},
    error::ApiError,
    metrics::Language,
    scraping,
    sql::counted,
    tenant::Tenant,
    time::now_ns,
};

/// Longest body of a remote read, bytes; it holds matchers only.
const MAX_READ_BYTES: usize = 4 << 20;

/// All routes, with and without the prefix.
pub fn routes() -> Router<Arc<App>> {
    let mut routes = Router::new();
    for prefix in ["/prometheus", ""] {
        let path = |name: &str| format!("{prefix}/api/v1/{name}");
        for (name, endpoint) in [
            ("query", Endpoint::Query),
            ("query_range", Endpoint::QueryRange),
            ("query_exemplars", Endpoint::QueryExemplars),
            ("format_query", Endpoint::FormatQuery),
            ("parse_query", Endpoint::ParseQuery),
            ("series", Endpoint::Series),
            ("labels", Endpoint::Labels),
            ("metadata", Endpoint::Metadata),
            ("status/tsdb", Endpoint::TsdbStatus),
        ] {
            routes = routes.route(&path(name), question(endpoint));
        }
        for (name, what) in [
            ("status/config", Report::Config),
            ("status/flags", Report::Flags),
            ("status/runtimeinfo", Report::RuntimeInfo),
            ("status/buildinfo", Report::BuildInfo),
            ("status/walreplay", Report::WalReplay),
            ("rules", Report::Rules),
            ("alerts", Report::Alerts),
            ("alertmanagers", Report::Alertmanagers),
            ("notifications", Report::Notifications),
        ] {
            routes = routes.route(&path(name), told(what));
        }
        routes = routes
            .route(&path("label/{name}/values"), get(label_values).post(label_values))
            .route(&path("scrape_pools"), get(scraping::pools))
            .route(&path("targets"), get(scraping::targets))
            .route(&path("targets/metadata"), get(scraping::metadata))
            .route(&path("read"), post(read))
            .route(&format!("{prefix}/federate"), get(federate))
            .route(&format!("{prefix}/-/healthy"), get(healthy))
            .route(&format!("{prefix}/-/ready"), get(admin::ready));
    }
    routes
}

/// What is known when the server starts.
pub fn facts(config: &ServerConfig) -> Facts {
    let flags: BTreeMap<String, String> = [
        ("http", config.http.to_string()),
        ("otlp-grpc", config.otlp_grpc.to_string()),
        ("otlp-http", config.otlp_http.to_string()),
        ("query-timeout", format!("{}s", config.query_timeout.as_secs())),
        ("query-memory", config.query_memory.to_string()),
        ("max-inflight-bytes", config.max_inflight_bytes.to_string()),
    ]
    .map(|(name, value)| (name.to_owned(), value))
    .into();
    Facts {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        config: flags.iter().map(|(name, value)| format!("{name}: {value}\n")).collect(),
        flags,
        start_ms: now_ms(),
        working_directory: std::env::current_dir().unwrap_or_default().display().to_string(),
        hostname: std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default().trim().to_owned(),
        threads: std::thread::available_parallelism().map_or(1, usize::from),
        ..Facts::default()
    }
}

fn now_ms() -> i64 {
    now_ns().div_euclid(1_000_000)
}

/// What fails before the API is reached is told in its form too.
type Extracted<T> = Result<T, ApiError>;

fn question(endpoint: Endpoint) -> MethodRouter<Arc<App>> {
    let handler = move |State(app): State<Arc<App>>, tenant: Extracted<Tenant>, params: Extracted<Params>| async move {
        respond(ask(&app, tenant, params, move |api, request| api.answer(&endpoint, request)).await)
    };
    get(handler.clone()).post(handler)
}

fn told(what: Report) -> MethodRouter<Arc<App>> {
    get(move |State(app): State<Arc<App>>| async move {
        let mut facts = app.facts.clone();
        facts.corruptions = app.store.status().quarantined.len() as u64;
        send(report(what, &facts, now_ms()))
    })
}

async fn label_values(
    State(app): State<Arc<App>>,
    Path(name): Path<String>,
    tenant: Extracted<Tenant>,
    params: Extracted<Params>,
) -> Response {
    let endpoint = Endpoint::LabelValues(name);
    respond(ask(&app, tenant, params, move |api, request| api.answer(&endpoint, request)).await)
}

async fn federate(
    State(app): State<Arc<App>>,
    tenant: Extracted<Tenant>,
    params: Extracted<Params>,
) -> Response {
    respond(ask(&app, tenant, params, Api::federate).await)
}

/// Samples come as one answer, chunks frame by frame.
async fn read(State(app): State<Arc<App>>, tenant: Extracted<Tenant>, request: HttpRequest) -> Response {
    let answer = async {
        let Tenant(tenant) = tenant?;
        let body = axum::body::to_bytes(request.into_body(), MAX_READ_BYTES)
            .await
            .map_err(|error| ApiError::bad_request(format!("the request cannot be read: {error}")))?;
        let asking = Asking::begin(&app, Language::PromQl);
        let deadline = Deadline::after(app.query_timeout);
        let permit = app.query_threads.admit(deadline).await?;
        let mut reading = Reading {
            app: app.clone(),
            tenant,
            deadline,
            stats: asking.stats.clone(),
            frames: ReadFrames::default(),
        };
        let work = async move {
            let begun = reading.begin(&body);
            Ok::<_, ApiError>((begun, reading))
        };
        let (begun, reading) = app.query_threads.run(permit.clone(), deadline, work).await?;
        let first = match begun {
            Begun::Frames(first) => Bytes::from(first),
            Begun::Whole(reply) => {
                let stats = if reply.status == 200 { asking.succeeded() } else { asking.stats.snapshot() };
                return Ok(respond(Ok((reply, stats))));
            }
        };
        let rest = stream::unfold(reading, |mut reading| async move {
            let frame = reading.next()?;
            Some((frame.map(Bytes::from).map_err(|reply| told_late(&reply)), reading))
        });
        let rest = app.query_threads.pull(permit, deadline, rest);
        let frames = stream::iter([Ok(first)]).chain(rest);
        let body = Body::from_stream(counted(frames, asking));
        Ok::<Response, ApiError>(([(CONTENT_TYPE, FRAMES)], body).into_response())
    };
    answer.await.unwrap_or_else(|error| respond(Err(error)))
}

/// A remote read under way.
struct Reading {
    app: Arc<App>,
    tenant: TenantId,
    deadline: Deadline,
    stats: Arc<ScanStats>,
    frames: ReadFrames,
}

/// What a remote read begins with.
enum Begun {
    /// All that there is to say.
    Whole(Reply),
    /// The first frame; others may follow.
    Frames(Vec<u8>),
}

impl Reading {
    fn with_request<T>(&mut self, work: impl FnOnce(&Api, &Request<'_>, &mut ReadFrames) -> T) -> T {
        let request = Request {
            params: &[],
            tenant: self.tenant.clone(),
            tables: &*self.app.store,
            now_ms: now_ms(),
            deadline: self.deadline.at,
            stats: self.stats.clone(),
        };
        work(&self.app.prometheus, &request, &mut self.frames)
    }

    fn begin(&mut self, body: &[u8]) -> Begun {
        self.with_request(|api, request, frames| match decode_read_request(body) {
            Err(what) => Begun::Whole(Reply::refused_read(&what)),
            Ok(asked) if asked.chunks => {
                *frames = ReadFrames::new(asked.queries);
                match frames.next(api, request) {
                    Some(Ok(first)) => Begun::Frames(first),
                    Some(Err(reply)) => Begun::Whole(reply),
                    None => Begun::Whole(Reply::no_frames()),
                }
            }
            Ok(asked) => Begun::Whole(api.remote_read(request, &asked.queries)),
        })
    }

    fn next(&mut self) -> Option<Result<Vec<u8>, Reply>> {
        self.with_request(|api, request, frames| frames.next(api, request))
    }
}

/// What goes wrong when the answer is under way already.
fn told_late(reply: &Reply) -> SqlError {
    SqlError::Storage(String::from_utf8_lossy(&reply.body).trim_end().to_owned())
}

async fn healthy() -> &'static str {
    "Trine is healthy.\n"
}

/// Answers on the threads of the queries.
async fn ask(
    app: &Arc<App>,
    tenant: Extracted<Tenant>,
    params: Extracted<Params>,
    answer: impl FnOnce(&Api, &Request<'_>) -> Reply + Send + 'static,
) -> Result<(Reply, ScanStatsSnapshot), ApiError> {
    let (Tenant(tenant), params) = (tenant?, params?);
    let asking = Asking::begin(app, Language::PromQl);
    let deadline = Deadline::after(app.query_timeout);
    let permit = app.query_threads.admit(deadline).await?;
    let (shared, stats) = (app.clone(), asking.stats.clone());
    let work = async move {
        let request = Request {
            params: params.pairs(),
            tenant,
            tables: &*shared.store,
            now_ms: now_ms(),
            deadline: deadline.at,
            stats,
        };
        Ok::<Reply, ApiError>(answer(&shared.prometheus, &request))
    };
    let reply = app.query_threads.run(permit, deadline, work).await?;
    let stats = if reply.status == 200 { asking.succeeded() } else { asking.stats.snapshot() };
    Ok((reply, stats))
}

fn respond(answer: Result<(Reply, ScanStatsSnapshot), ApiError>) -> Response {
    match answer {
        Ok((reply, stats)) => {
            let mut response = send(reply);
            stats_headers(&mut response, &stats);
            response
        }
        Err(error) => {
            let mut response = send(Reply::failed(error.status.as_u16(), error.message));
            if let Some(seconds) = error.retry_after {
                response.headers_mut().insert(RETRY_AFTER, HeaderValue::from(seconds));
            }
            response
        }
    }
}

pub fn send(reply: Reply) -> Response {
    let status = StatusCode::from_u16(reply.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let mut response = (status, [(CONTENT_TYPE, reply.content_type)], reply.body).into_response();
    if let Some(encoding) = reply.encoding {
        response.headers_mut().insert(CONTENT_ENCODING, HeaderValue::from_static(encoding));
    }
    response
}
