//! `/api/v1/sql`: SQL in, rows out as JSON, JSON lines, CSV or an Arrow stream.

use std::{sync::Arc, time::Duration};

use axum::{
    body::Body,
    extract::{Query, State},
    http::{HeaderMap, header::CONTENT_TYPE},
    response::{IntoResponse, Response},
};
use bytes::Bytes;
use futures::{Stream, StreamExt, stream};
use serde::Deserialize;
use trine_query::{
    SqlError, SqlRequest,
    output::{self, Format},
};

use crate::{
    App,
    asking::{Asking, Deadline, stats_headers},
    error::ApiError,
    media_type::{accepted, essence, media_type},
    metrics::Language,
    tenant::Tenant,
    time::{now_ns, parse_time},
};

/// Longest SQL text in bytes.
const MAX_SQL_BYTES: usize = 1 << 20;

/// Parameters, from the URL or from a JSON body.
#[derive(Debug, Default, Deserialize)]
pub struct SqlParams {
    /// The statement.
    query: Option<String>,
    /// `json` (default), `jsonl`, `csv` or `arrow`; wins over `Accept`.
    format: Option<String>,
    /// First instant of `logs` that the query sees.
    from: Option<String>,
    /// End (exclusive) of what the query sees.
    to: Option<String>,
}

/// The statement in the URL.
pub async fn get(
    State(app): State<Arc<App>>,
    Tenant(tenant): Tenant,
    headers: HeaderMap,
    Query(params): Query<SqlParams>,
) -> Result<Response, ApiError> {
    answer(app, tenant, &headers, params).await
}

/// The statement in the body: as text, or as JSON `{"query": "…", "format": "csv"}`.
pub async fn post(
    State(app): State<Arc<App>>,
    Tenant(tenant): Tenant,
    headers: HeaderMap,
    Query(url): Query<SqlParams>,
    body: Body,
) -> Result<Response, ApiError> {
    let body = axum::body::to_bytes(body, MAX_SQL_BYTES)
        .await
        .map_err(|error| ApiError::bad_request(format!("the statement cannot be read: {error}")))?;
    let json = media_type(&headers) == "application/json";
    let mut params = if json {
        serde_json::from_slice(&body).map_err(|error| {
            ApiError::bad_request(format!("the body is not {{\"query\": \"…\"}}: {error}"))
        })?
    } else {
        let text =
            std::str::from_utf8(&body).map_err(|_| ApiError::bad_request("the statement is not UTF-8"))?;
        SqlParams { query: (!text.trim().is_empty()).then(|| text.to_owned()), ..SqlParams::default() }
    };
    params.query = params.query.or(url.query);
    params.format = params.format.or(url.format);
    params.from = params.from.or(url.from);
    params.to = params.to.or(url.to);
    answer(app, tenant, &headers, params).await
}

fn format_of(params: &SqlParams, headers: &HeaderMap) -> Result<Format, ApiError> {
    if let Some(name) = &params.format {
        return Format::from_name(name).ok_or_else(|| {
            ApiError::bad_request(format!("format={name:?} is unknown; use json, jsonl, csv or arrow"))
        });
    }
    let accept = accepted(headers);
    let known = [Format::JsonLines, Format::Csv, Format::Arrow, Format::Json];
    Ok(known.into_iter().find(|f| accept.contains(essence(f.content_type()))).unwrap_or(Format::Json))
}

async fn answer(
    app: Arc<App>,
    tenant: trine_model::TenantId,
    headers: &HeaderMap,
    params: SqlParams,
) -> Result<Response, ApiError> {
    let format = format_of(&params, headers)?;
    let sql = params.query.as_deref().ok_or_else(|| {
        ApiError::bad_request("the statement is missing; POST it as text or as {\"query\": \"SELECT …\"}")
    })?;
    let mut request = SqlRequest::new(tenant, sql);
    let now = now_ns();
    request.start = params.from.as_deref().map(|text| parse_time("from", text, now)).transpose()?;
    request.end = params.to.as_deref().map(|text| parse_time("to", text, now)).transpose()?;

    let asking = Asking::begin(&app, Language::Sql);
    let deadline = Deadline::after(app.query_timeout);
    let permit = app.query_threads.admit(deadline).await?;
    request.permit = Some(permit.clone());
    let plan = {
        let app = app.clone();
        async move { app.sql.query(request).await }
    };
    let planned = app.query_threads.run(permit.clone(), deadline, plan).await?;
    let stats = planned.stats.clone();
    let encoded = output::encode(format, &planned.schema, planned.stream);
    let mut bytes = app.query_threads.pull(permit, deadline, encoded);

    // Short answers are gathered before the status goes out, so that an error still has its status
    // and the headers tell the final counts; long ones stream.
    let mut head = Vec::new();
    let begun = tokio::time::Instant::now();
    while head.iter().map(Bytes::len).sum::<usize>() < GATHER_BYTES {
        // Without a row yet there is nothing to stream, and an error may still come.
        let next = if head.is_empty() {
            bytes.next().await
        } else {
            let left = GATHER_TIME.saturating_sub(begun.elapsed());
            let Ok(next) = tokio::time::timeout(left, bytes.next()).await else { break };
            next
        };
        match next {
            Some(chunk) => head.push(chunk?),
            None => {
                asking.succeeded();
                let body: Vec<u8> = head.concat();
                let mut response = ([(CONTENT_TYPE, format.content_type())], body).into_response();
                stats_headers(&mut response, &stats.snapshot());
                return Ok(response);
            }
        }
    }
    let body = Body::from_stream(stream::iter(head.into_iter().map(Ok)).chain(counted(bytes, asking)));
    Ok(([(CONTENT_TYPE, format.content_type())], body).into_response())
}

/// Bytes of an answer that are gathered before it begins to stream.
const GATHER_BYTES: usize = 1 << 20;
/// Time for which an answer is gathered before it begins to stream.
const GATHER_TIME: Duration = Duration::from_secs(2);

/// An error in the middle breaks the connection off, so that no client takes half for the whole; the reason
/// goes to the server's log.
pub fn counted(
    bytes: impl Stream<Item = Result<Bytes, SqlError>> + Send + Unpin + 'static,
    asking: Asking,
) -> impl Stream<Item = Result<Bytes, SqlError>> + Send + 'static {
    stream::unfold((bytes, Some(asking)), |(mut bytes, mut asking)| async move {
        let next = bytes.next().await;
        if next.is_none()
            && let Some(asking) = asking.take()
        {
            asking.succeeded();
        }
        if let Some(Err(error)) = &next {
            eprintln!("trine: an answer was broken off: {error}");
        }
        next.map(|chunk| (chunk, (bytes, asking)))
    })
}
