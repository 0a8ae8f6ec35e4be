//! Spans as Zipkin and Jaeger send them.

use std::sync::Arc;

use axum::{
    extract::{Request, State},
    http::StatusCode,
    response::{IntoResponse, Response},
};
use trine_protocols::{Compression, jaeger, zipkin};

use crate::{App, error::ApiError, ingest::ingest_http, media_type::media_type, metrics::Protocol};

/// `POST /api/v2/spans`: Zipkin v2 JSON (<https://zipkin.io/zipkin-api/>). Answers 202; 400 when spans were
/// rejected, with the first reasons, the others are kept.
pub async fn zipkin(State(app): State<Arc<App>>, request: Request) -> Result<Response, ApiError> {
    let media_type = media_type(request.headers());
    if media_type.contains("protobuf") {
        return Err(unsupported(&media_type, "application/json"));
    }
    let done = ingest_http(&app, Protocol::Zipkin, request, Compression::None, zipkin::decode_spans).await?;
    done.check_rejected()?;
    Ok((StatusCode::ACCEPTED, done.count_headers()).into_response())
}

/// `POST /api/traces`: a batch of Jaeger's Thrift in the binary protocol. Answers as [`zipkin`] does.
pub async fn jaeger(State(app): State<Arc<App>>, request: Request) -> Result<Response, ApiError> {
    let media_type = media_type(request.headers());
    if !(media_type.is_empty() || media_type.contains("thrift")) {
        return Err(unsupported(&media_type, "application/x-thrift"));
    }
    let decode = jaeger::decode_batch_thrift;
    let done = ingest_http(&app, Protocol::Jaeger, request, Compression::None, decode).await?;
    done.check_rejected()?;
    Ok((StatusCode::ACCEPTED, done.count_headers()).into_response())
}

fn unsupported(media_type: &str, wanted: &str) -> ApiError {
    let message = format!("content type {media_type:?} is not known here; send {wanted}");
    ApiError::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, message)
}
