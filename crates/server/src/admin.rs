//! State of the server and the levers on it.

use std::{sync::Arc, time::Instant};

use axum::{
    Json,
    extract::State,
    http::{StatusCode, header::CONTENT_TYPE},
    response::{IntoResponse, Response},
};
use serde_json::{Value, json};
use trine_store::VerifyReport;

use crate::{App, error::ApiError, scraping};

/// A signpost for people who open the address in a browser.
pub async fn index() -> &'static str {
    concat!(
        "Trine ",
        env!("CARGO_PKG_VERSION"),
        "\n\n",
        "ask     POST /api/v1/sql            SELECT … FROM logs, spans, metrics\n",
        "        GET  /loki/api/v1/…         LogQL, for Grafana and logcli\n",
        "        GET  /prometheus/api/v1/…   PromQL, for Grafana and Prometheus\n",
        "        GET  /tempo/api/…           traces, for Grafana; /jaeger/api/… for Jaeger's UI\n",
        "follow  GET  /api/v1/tail?query={…}\n",
        "send    POST /v1/logs, /v1/traces, /v1/metrics   OTLP (protobuf, JSON)\n",
        "        POST /prometheus/api/v1/write   remote write 1 and 2\n",
        "        POST /api/v2/spans          Zipkin; /api/traces for Jaeger's Thrift\n",
        "        POST /loki/api/v1/push      Loki push\n",
        "        POST /api/v1/ingest/jsonlines\n",
        "state   GET  /api/v1/status, /metrics, /health, /ready\n",
    )
}

/// 200 while the store takes data.
pub async fn ready(State(app): State<Arc<App>>) -> Response {
    let status = app.store.status();
    match status.poisoned.or(status.full) {
        None => "ready\n".into_response(),
        Some(reason) => (StatusCode::SERVICE_UNAVAILABLE, format!("{reason}\n")).into_response(),
    }
}

/// `ready`, `degraded` (answers, but something is missing or refused) or `unready`, with reasons; notes
/// tell what was found at the start and needs no action, such as a torn end of the log.
pub async fn health(State(app): State<Arc<App>>) -> Response {
    let status = app.store.status();
    let mut reasons: Vec<String> = status.full.iter().chain(&status.background_error).cloned().collect();
    reasons.extend(scraping::complaints(&app));
    reasons.extend(
        status.quarantined.iter().map(|file| format!("{} is quarantined: {}", file.name, file.reason)),
    );
    let state = if status.poisoned.is_some() {
        "unready"
    } else if reasons.is_empty() {
        "ready"
    } else {
        "degraded"
    };
    reasons.extend(status.poisoned);
    let notes = status.notes;
    let code = if state == "unready" { StatusCode::SERVICE_UNAVAILABLE } else { StatusCode::OK };
    (code, Json(json!({"status": state, "reasons": reasons, "notes": notes}))).into_response()
}

/// Prometheus' text format.
pub async fn metrics(State(app): State<Arc<App>>) -> Response {
    let text =
        app.metrics.render(&app.store.status(), app.admission.free_bytes(), scraping::facts(&app).as_ref());
    ([(CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], text).into_response()
}

/// What the store holds.
pub async fn status(State(app): State<Arc<App>>) -> Json<Value> {
    let status = app.store.status();
    let levels: Vec<_> = status
        .levels
        .iter()
        .map(|l| json!({"signal": l.signal.name(), "level": l.level, "segments": l.segments, "rows": l.rows, "bytes": l.bytes, "raw_bytes": l.raw_bytes}))
        .collect();
    let quarantined: Vec<_> = status
        .quarantined
        .iter()
        .map(|f| json!({"name": f.name, "reason": f.reason, "rows": f.rows}))
        .collect();
    Json(json!({
        "version": env!("CARGO_PKG_VERSION"),
        "rows": status.rows,
        "segment_bytes": status.segment_bytes,
        "levels": levels,
        "wal_bytes": status.wal_bytes,
        "memtable_rows": status.memtable_rows,
        "memtable_bytes": status.memtable_bytes,
        "streams": status.streams,
        "quarantined": quarantined,
        "poisoned": status.poisoned,
        "full": status.full,
        "background_error": status.background_error,
        "notes": status.notes,
        "appended_rows": status.counters.appended_rows,
        "duplicate_batches": status.counters.duplicate_batches,
    }))
}

/// Writes memtables to segments now.
pub async fn flush(State(app): State<Arc<App>>) -> Result<Json<Value>, ApiError> {
    let begun = Instant::now();
    app.store.flush().await?;
    Ok(Json(json!({"flushed": true, "seconds": begun.elapsed().as_secs_f64()})))
}

/// Merges segments into their final shape now.
pub async fn compact(State(app): State<Arc<App>>) -> Result<Json<Value>, ApiError> {
    let begun = Instant::now();
    app.store.compact().await?;
    Ok(Json(json!({"compacted": true, "seconds": begun.elapsed().as_secs_f64()})))
}

/// Reads and checks everything that is stored.
pub async fn verify(State(app): State<Arc<App>>) -> Json<Value> {
    Json(verify_json(&app.store.verify().await))
}

/// A report as `verify` answers it.
pub fn verify_json(report: &VerifyReport) -> Value {
    json!({
        "ok": report.is_ok(),
        "segments": report.segments,
        "rows": report.rows,
        "bytes": report.bytes,
        "wal_records": report.wal_records,
        "problems": report.problems,
        "notes": report.notes,
    })
}

/// What Grafana asks to learn the version of Loki's API.
pub async fn buildinfo() -> Json<Value> {
    Json(json!({"version": "3.0.0", "revision": "trine", "branch": "", "buildDate": "", "goVersion": ""}))
}
