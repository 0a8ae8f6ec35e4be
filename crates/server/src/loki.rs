//! Loki's HTTP API: push and query
//! (<https://grafana.com/docs/loki/latest/reference/loki-http-api/>).

use std::{collections::BTreeSet, sync::Arc};

use axum::{
    Json,
    extract::{Path, Request, State},
    http::{HeaderMap, StatusCode, header::CONTENT_TYPE},
    response::{IntoResponse, Response},
};
use serde_json::{Value, json};
use trine_logql::{Expr, LogqlError, Request as LogqlRequest, ast::LogExpr, loki_json};
use trine_model::TenantId;
use trine_protocols::{Compression, loki};
use trine_schema::{Direction, LogScan, ScanStats, ScanStatsSnapshot, Stream, Tables, label_name};

use crate::{
    App,
    asking::{Asking, Deadline, Params, budget, stats_headers},
    error::ApiError,
    ingest::ingest_http,
    media_type::media_type,
    metrics::{Language, Protocol},
    tenant::Tenant,
    time::{now_ns, parse_time},
};

/// Most lines of one answer, as Loki's `max_entries_limit_per_query`.
pub const MAX_ENTRIES: usize = 5_000_000;

/// Nanoseconds in a second.
const SECOND: i64 = 1_000_000_000;

/// Answers 204; 400 with the first reasons when entries were rejected, the good ones being kept.
pub async fn push(State(app): State<Arc<App>>, request: Request) -> Result<Response, ApiError> {
    let media_type = media_type(request.headers());
    let json = media_type == "application/json";
    // What programs send that were told of no type; none of Loki's clients does.
    if media_type.starts_with("text/") || media_type == "application/x-www-form-urlencoded" {
        let message = format!(
            "content type {media_type:?} is not known here; send application/json, or application/x-protobuf with snappy"
        );
        return Err(ApiError::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, message));
    }
    let done = if json {
        ingest_http(&app, Protocol::Loki, request, Compression::None, loki::decode_push_json).await?
    } else {
        ingest_http(&app, Protocol::Loki, request, Compression::Snappy, loki::decode_push_protobuf).await?
    };
    if done.decoded.rejected > 0 {
        let message = format!("{}; {} were stored", done.decoded.error_message(), done.decoded.accepted);
        return Err(ApiError::bad_request(message));
    }
    Ok((StatusCode::NO_CONTENT, done.count_headers()).into_response())
}

fn direction(params: &Params) -> Result<Direction, ApiError> {
    match params.get("direction").map(str::to_ascii_lowercase).as_deref() {
        None | Some("backward") => Ok(Direction::Backward),
        Some("forward") => Ok(Direction::Forward),
        Some(other) => {
            Err(ApiError::bad_request(format!("direction={other:?} is unknown; use forward or backward")))
        }
    }
}

fn limit(params: &Params) -> Result<usize, ApiError> {
    const DEFAULT: usize = 100;
    match params.number("limit")? {
        None | Some(0) => Ok(DEFAULT),
        Some(limit) if limit > MAX_ENTRIES => Err(ApiError::bad_request(format!(
            "limit={limit} is over the bound of {MAX_ENTRIES}; narrow the range or page through it"
        ))),
        Some(limit) => Ok(limit),
    }
}

async fn answer(
    app: &Arc<App>,
    params: &Params,
    headers: &HeaderMap,
    mut request: LogqlRequest,
) -> Result<Response, ApiError> {
    let asking = Asking::begin(app, Language::LogQl);
    let deadline = Deadline::after(budget(params, app.query_timeout)?);
    request.deadline = Some(deadline.at);
    request.memory_limit = Some(app.query_memory);
    request.stats = asking.stats.clone();
    let tables: Arc<dyn Tables> = app.store.clone();
    let permit = app.query_threads.admit(deadline).await?;
    let answer = app.query_threads.run(permit, deadline, trine_logql::run(tables, request)).await?;
    let categorize = headers
        .get("x-loki-response-encoding-flags")
        .is_some_and(|v| v.to_str().is_ok_and(|flags| flags.contains("categorize-labels")));
    let stats = asking.succeeded();
    let body = loki_json::query_response(&answer, &stats, categorize);
    let mut response = ([(CONTENT_TYPE, "application/json; charset=UTF-8")], body).into_response();
    stats_headers(&mut response, &stats);
    Ok(response)
}

/// `query_range`.
pub async fn query_range(
    State(app): State<Arc<App>>,
    Tenant(tenant): Tenant,
    headers: HeaderMap,
    params: Params,
) -> Result<Response, ApiError> {
    let query = trine_logql::parse(params.required("query")?).map_err(LogqlError::from)?;
    let (start, end) = params.range()?;
    let mut request = LogqlRequest::new(tenant, query, start, end);
    // Loki's default: 250 points, at least a second apart.
    let default_step = || (((end - start) / 250 / SECOND) * SECOND).max(SECOND);
    request.step = Some(params.duration("step")?.unwrap_or_else(default_step));
    request.interval = params.duration("interval")?;
    request.limit = limit(&params)?;
    request.direction = direction(&params)?;
    answer(&app, &params, &headers, request).await
}

/// `query`: a metric query at one time.
pub async fn query(
    State(app): State<Arc<App>>,
    Tenant(tenant): Tenant,
    headers: HeaderMap,
    params: Params,
) -> Result<Response, ApiError> {
    let query = trine_logql::parse(params.required("query")?).map_err(LogqlError::from)?;
    if matches!(query, Expr::Log(_)) {
        return Err(ApiError::bad_request(
            "log queries are not supported as an instant query; use query_range, or a metric query such as count_over_time",
        ));
    }
    let at = params.get("time").map_or_else(|| Ok(now_ns()), |text| parse_time("time", text, now_ns()))?;
    let mut request = LogqlRequest::new(tenant, query, at, at);
    request.limit = limit(&params)?;
    request.direction = direction(&params)?;
    answer(&app, &params, &headers, request).await
}

fn success(data: impl serde::Serialize) -> Json<Value> {
    Json(json!({"status": "success", "data": data}))
}

/// Streams that any of the selectors picks inside `start`/`end`; without a selector, all.
async fn streams(
    app: &Arc<App>,
    tenant: TenantId,
    params: &Params,
    selectors: &[&str],
) -> Result<(Vec<Arc<Stream>>, ScanStatsSnapshot), ApiError> {
    let (start, end) = params.range()?;
    let deadline = Some(std::time::Instant::now() + app.query_timeout);
    let stats: Arc<ScanStats> = Arc::default();
    let mut scans = Vec::new();
    for text in selectors {
        let Expr::Log(LogExpr { selector, .. }) = trine_logql::parse(text).map_err(LogqlError::from)? else {
            return Err(ApiError::bad_request(format!(
                "{text:?} is no stream selector; write {{app=\"web\"}}"
            )));
        };
        scans.push(trine_logql::label_matchers(&selector)?);
    }
    if scans.is_empty() {
        scans.push(Vec::new());
    }
    let mut found = Vec::new();
    for matchers in scans {
        let mut scan = LogScan::all(tenant.clone());
        (scan.start, scan.end, scan.streams) = (start, end, matchers);
        (scan.deadline, scan.stats) = (deadline, stats.clone());
        found.extend(app.store.streams(scan).await?);
    }
    Ok((found, stats.snapshot()))
}

/// Loki's answer, with what is missing from it told in headers.
fn listed(data: impl serde::Serialize, stats: &ScanStatsSnapshot) -> Response {
    let mut response = success(data).into_response();
    stats_headers(&mut response, stats);
    response
}

/// Name and value of each label as LogQL shows them; `service_name` is always among them, as in Loki.
fn shown_labels(stream: &Stream) -> Vec<(String, &str)> {
    let mut labels: Vec<_> = stream.labels.iter().map(|(name, value)| (label_name(name), value)).collect();
    if !stream.service().is_empty() && !labels.iter().any(|(name, _)| name == "service_name") {
        labels.push(("service_name".into(), stream.service()));
    }
    labels
}

/// `labels`: names.
pub async fn labels(
    State(app): State<Arc<App>>,
    Tenant(tenant): Tenant,
    params: Params,
) -> Result<Response, ApiError> {
    let selectors: Vec<_> = params.get("query").into_iter().collect();
    let (streams, stats) = streams(&app, tenant, &params, &selectors).await?;
    let names: BTreeSet<String> =
        streams.iter().flat_map(|stream| shown_labels(stream)).map(|(name, _)| name).collect();
    Ok(listed(names, &stats))
}

/// `label/{name}/values`.
pub async fn label_values(
    State(app): State<Arc<App>>,
    Tenant(tenant): Tenant,
    Path(name): Path<String>,
    params: Params,
) -> Result<Response, ApiError> {
    let selectors: Vec<_> = params.get("query").into_iter().collect();
    let (streams, stats) = streams(&app, tenant, &params, &selectors).await?;
    let mut values = BTreeSet::new();
    for stream in &streams {
        values.extend(
            shown_labels(stream).into_iter().filter(|(key, _)| *key == name).map(|(_, v)| v.to_owned()),
        );
    }
    Ok(listed(values, &stats))
}

/// `series`: label sets of the streams that any `match[]` picks.
pub async fn series(
    State(app): State<Arc<App>>,
    Tenant(tenant): Tenant,
    params: Params,
) -> Result<Response, ApiError> {
    let selectors: Vec<_> = params.all("match[]").chain(params.all("match")).collect();
    let (streams, stats) = streams(&app, tenant, &params, &selectors).await?;
    let sets: BTreeSet<Vec<(String, &str)>> = streams
        .iter()
        .map(|stream| {
            let mut labels = shown_labels(stream);
            labels.sort();
            labels
        })
        .collect();
    let sets: Vec<Value> = sets
        .into_iter()
        .map(|labels| labels.into_iter().map(|(k, v)| (k, Value::from(v))).collect())
        .collect();
    Ok(listed(sets, &stats))
}
