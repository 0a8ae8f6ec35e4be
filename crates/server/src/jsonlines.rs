//! `POST /api/v1/ingest/jsonlines`: one JSON object per line.

use std::sync::Arc;

use axum::{
    Json,
    extract::{Query, Request, State},
    http::StatusCode,
    response::{IntoResponse, Response},
};
use serde_json::json;
use trine_protocols::{
    Compression,
    jsonlines::{self, FieldNames},
};

use crate::{App, error::ApiError, ingest::ingest_http, metrics::Protocol};

/// Answers 200, or 400 when lines were rejected; either way with the counts and the first reasons.
pub async fn ingest(
    State(app): State<Arc<App>>,
    Query(query): Query<Vec<(String, String)>>,
    request: Request,
) -> Result<Response, ApiError> {
    let names = FieldNames::from_query(query.iter().map(|(k, v)| (k.as_str(), v.as_str())))
        .map_err(|error| ApiError::bad_request(error.to_string()))?;
    let ingested = ingest_http(
        &app,
        Protocol::JsonLines,
        request,
        Compression::None,
        move |bytes, tenant, registry, now, limits| {
            jsonlines::decode(bytes, &names, tenant, registry, now, limits)
        },
    )
    .await?;
    let decoded = &ingested.decoded;
    let errors: Vec<_> =
        decoded.first_errors.iter().map(|e| json!({"line": e.position, "reason": e.reason})).collect();
    let status = if decoded.rejected > 0 { StatusCode::BAD_REQUEST } else { StatusCode::OK };
    let body = json!({
        "accepted": decoded.accepted,
        "rejected": decoded.rejected,
        "duplicate": ingested.duplicate,
        "errors": errors,
    });
    Ok((status, Json(body)).into_response())
}
