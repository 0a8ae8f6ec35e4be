//! Prometheus remote write, versions 1 and 2
//! (<https://prometheus.io/docs/specs/prw/remote_write_spec_2_0/>).

use std::sync::Arc;

use axum::{
    extract::{Request, State},
    http::{StatusCode, header::CONTENT_TYPE},
    response::{IntoResponse, Response},
};
use trine_protocols::{
    Compression,
    remote_write::{Version, Written, decode_v1, decode_v2},
};

use crate::{App, error::ApiError, ingest::ingest_http, metrics::Protocol};

/// `POST /prometheus/api/v1/write`. Answers 204; 400 when samples were rejected, with the first reasons: the
/// others are kept, and sending them again would not help. The headers tell what was written.
pub async fn write(State(app): State<Arc<App>>, request: Request) -> Result<Response, ApiError> {
    let content_type = request.headers().get(CONTENT_TYPE).and_then(|value| value.to_str().ok());
    let version = match content_type {
        None => Version::V1,
        Some(text) => Version::from_content_type(text)
            .map_err(|error| ApiError::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, error.to_string()))?,
    };
    let decode = match version {
        Version::V1 => decode_v1,
        Version::V2 => decode_v2,
    };
    let done = ingest_http(&app, Protocol::RemoteWrite, request, Compression::Snappy, decode).await?;
    let Written { samples, histograms, exemplars } = Written::of(done.decoded.batch.as_ref());
    let written = [
        ("x-prometheus-remote-write-samples-written", samples.to_string()),
        ("x-prometheus-remote-write-histograms-written", histograms.to_string()),
        ("x-prometheus-remote-write-exemplars-written", exemplars.to_string()),
    ];
    Ok(match done.check_rejected() {
        Ok(()) => (StatusCode::NO_CONTENT, written).into_response(),
        Err(error) => (written, error).into_response(),
    })
}
