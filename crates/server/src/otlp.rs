//! OTLP over gRPC and over HTTP (<https://opentelemetry.io/docs/specs/otlp/>).

use std::{marker::PhantomData, pin::Pin, sync::Arc};

use axum::{
    Router,
    body::Body,
    extract::{Request, State},
    http::{
        StatusCode,
        header::{CONTENT_TYPE, RETRY_AFTER},
    },
    response::{IntoResponse, Response},
    routing::post,
};
use bytes::{Buf, BufMut, Bytes};
use tonic::{
    Status,
    codec::{Codec, CompressionEncoding, DecodeBuf, Decoder, EncodeBuf, Encoder},
    server::{Grpc, UnaryService},
};
use trine_model::TenantId;
use trine_protocols::{
    Compression, Decoded, Limits,
    otlp::{self, DeltaUpdate},
};
use trine_schema::{LogBatch, MetricBatch, SpanBatch, StreamRegistry};

use crate::{
    App,
    error::ApiError,
    ingest::{Decode, Head, Outcome, ingest_bytes, ingest_http},
    media_type::media_type,
    metrics::Protocol,
};

/// `POST /v1/logs`, `/v1/traces`, `/v1/metrics`.
pub fn http_routes() -> Router<Arc<App>> {
    Router::new()
        .route("/v1/logs", post(http::<Logs>))
        .route("/v1/traces", post(http::<Traces>))
        .route("/v1/metrics", post(http::<Metrics>))
}

/// The gRPC methods, which are paths under HTTP/2.
pub fn grpc_routes() -> Router<Arc<App>> {
    Router::new()
        .route("/opentelemetry.proto.collector.logs.v1.LogsService/Export", post(grpc::<Logs>))
        .route("/opentelemetry.proto.collector.trace.v1.TraceService/Export", post(grpc::<Traces>))
        .route("/opentelemetry.proto.collector.metrics.v1.MetricsService/Export", post(grpc::<Metrics>))
}

/// What differs between the signals.
trait Service: Send + Sync + 'static {
    type Outcome: Outcome;

    fn decoder(app: &App, json: bool) -> impl Decode<Self::Outcome>;

    /// The answer to a request that was taken, perhaps without some of its records.
    fn respond(rejected: usize, message: &str, json: bool) -> Vec<u8>;
}

struct Logs;

impl Service for Logs {
    type Outcome = Decoded<LogBatch>;

    fn decoder(_: &App, json: bool) -> impl Decode<Self::Outcome> {
        if json { otlp::decode_logs_json } else { otlp::decode_logs_protobuf }
    }

    fn respond(rejected: usize, message: &str, json: bool) -> Vec<u8> {
        otlp::encode_logs_response(rejected, message, json)
    }
}

struct Traces;

impl Service for Traces {
    type Outcome = Decoded<SpanBatch>;

    fn decoder(_: &App, json: bool) -> impl Decode<Self::Outcome> {
        if json { otlp::decode_spans_json } else { otlp::decode_spans_protobuf }
    }

    fn respond(rejected: usize, message: &str, json: bool) -> Vec<u8> {
        otlp::encode_traces_response(rejected, message, json)
    }
}

struct Metrics;

impl Service for Metrics {
    type Outcome = (Decoded<MetricBatch>, DeltaUpdate);

    fn decoder(app: &App, json: bool) -> impl Decode<Self::Outcome> {
        let deltas = app.deltas.clone();
        let decode = if json { otlp::decode_metrics_json } else { otlp::decode_metrics_protobuf };
        move |bytes: &[u8], tenant: &TenantId, registry: &StreamRegistry, now_ns: i64, limits: &Limits| {
            decode(bytes, tenant, registry, now_ns, limits, &deltas)
        }
    }

    fn respond(rejected: usize, message: &str, json: bool) -> Vec<u8> {
        otlp::encode_metrics_response(rejected, message, json)
    }
}

const PROTOBUF: &str = "application/x-protobuf";
const JSON: &str = "application/json";

async fn http<S: Service>(State(app): State<Arc<App>>, request: Request) -> Response {
    let json = match media_type(request.headers()).as_str() {
        JSON => true,
        PROTOBUF | "application/protobuf" | "application/octet-stream" => false,
        other => {
            let message = format!("content type {other:?} is not known; send {PROTOBUF} or {JSON}");
            return ApiError::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, message).into_response();
        }
    };
    let content_type = [(CONTENT_TYPE, if json { JSON } else { PROTOBUF })];
    let decode = S::decoder(&app, json);
    match ingest_http(&app, Protocol::OtlpHttp, request, Compression::None, decode).await {
        Ok(done) => {
            let message = done.decoded.error_message();
            let body = S::respond(done.decoded.rejected, &message, json);
            (StatusCode::OK, done.count_headers(), content_type, body).into_response()
        }
        Err(error) => {
            let body = otlp::encode_status(grpc_code(&error) as i32, &error.message, json);
            let mut response = (error.status, content_type, body).into_response();
            if let Some(seconds) = error.retry_after {
                response.headers_mut().insert(RETRY_AFTER, seconds.into());
            }
            response
        }
    }
}

fn grpc_code(error: &ApiError) -> tonic::Code {
    match error.status {
        StatusCode::SERVICE_UNAVAILABLE if error.retry_after.is_some() => tonic::Code::ResourceExhausted,
        StatusCode::SERVICE_UNAVAILABLE => tonic::Code::Unavailable,
        StatusCode::INTERNAL_SERVER_ERROR => tonic::Code::Internal,
        _ => tonic::Code::InvalidArgument,
    }
}

async fn grpc<S: Service>(State(app): State<Arc<App>>, request: Request) -> Response {
    let max = app.limits.max_body_bytes;
    let mut grpc = Grpc::new(BytesCodec)
        .accept_compressed(CompressionEncoding::Gzip)
        .accept_compressed(CompressionEncoding::Zstd)
        .max_decoding_message_size(max);
    let response = grpc.unary(Export::<S>(app.clone(), PhantomData), request).await;
    match Status::from_header_map(response.headers()) {
        Some(status) if is_too_large(&status) => {
            app.metrics.ingest_failed(Protocol::OtlpGrpc);
            let message = format!("{}; send smaller batches", status.message());
            Status::invalid_argument(message).into_http()
        }
        _ => response.map(Body::new),
    }
}

/// Whether tonic refused the message for its size. Senders would repeat both of its codes for ever; where
/// repeating helps, our own say when ([`grpc_status`]).
fn is_too_large(status: &Status) -> bool {
    match status.code() {
        tonic::Code::OutOfRange => true,
        tonic::Code::ResourceExhausted => status.details().is_empty(),
        _ => false,
    }
}

/// `RESOURCE_EXHAUSTED` is repeated only where it comes with the time to wait (OTLP specification, "Failures").
fn grpc_status(error: ApiError) -> Status {
    let code = grpc_code(&error);
    match error.retry_after {
        None => Status::new(code, error.message),
        Some(seconds) => {
            let details = otlp::encode_retry_status(code as i32, &error.message, seconds);
            Status::with_details(code, error.message, details.into())
        }
    }
}

/// The one method of a signal's service.
struct Export<S>(Arc<App>, PhantomData<S>);

impl<S: Service> UnaryService<Bytes> for Export<S> {
    type Response = Bytes;
    type Future = Pin<Box<dyn Future<Output = Result<tonic::Response<Bytes>, Status>> + Send>>;

    fn call(&mut self, request: tonic::Request<Bytes>) -> Self::Future {
        let app = self.0.clone();
        Box::pin(async move {
            let (metadata, _, body) = request.into_parts();
            let exported = async {
                // tonic has unpacked the message by now; the header speaks of something else here.
                let mut headers = metadata.into_headers();
                headers.remove(axum::http::header::CONTENT_ENCODING);
                let head = Head::from_headers(&headers, Compression::None)?;
                ingest_bytes(&app, Protocol::OtlpGrpc, head, body, S::decoder(&app, false)).await
            };
            match exported.await {
                Ok(done) => {
                    let message = done.decoded.error_message();
                    let response = S::respond(done.decoded.rejected, &message, false);
                    Ok(tonic::Response::new(response.into()))
                }
                Err(error) => {
                    app.metrics.ingest_failed(Protocol::OtlpGrpc);
                    Err(grpc_status(error))
                }
            }
        })
    }
}

/// Hands message bytes through as they are; our own decoder reads them.
#[derive(Debug, Clone, Copy, Default)]
struct BytesCodec;

impl Codec for BytesCodec {
    type Encode = Bytes;
    type Decode = Bytes;
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        Self
    }

    fn decoder(&mut self) -> Self {
        Self
    }
}

impl Encoder for BytesCodec {
    type Item = Bytes;
    type Error = Status;

    fn encode(&mut self, item: Bytes, into: &mut EncodeBuf<'_>) -> Result<(), Status> {
        into.put(item);
        Ok(())
    }
}

impl Decoder for BytesCodec {
    type Item = Bytes;
    type Error = Status;

    fn decode(&mut self, from: &mut DecodeBuf<'_>) -> Result<Option<Bytes>, Status> {
        Ok(Some(from.copy_to_bytes(from.remaining())))
    }
}
