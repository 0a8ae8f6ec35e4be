//! Traces through Tempo's and Jaeger's HTTP APIs and our own
//! (<https://grafana.com/docs/tempo/latest/api_docs/>, <https://www.jaegertracing.io/docs/latest/architecture/apis/>).
//! What is asked and answered is in `trine-traces`; here are the routes.

use std::sync::Arc;

use axum::{
    Router,
    extract::{Path, State},
    http::{
        HeaderMap, HeaderValue, StatusCode,
        header::{CONTENT_TYPE, RETRY_AFTER},
    },
    response::{IntoResponse, Response},
    routing::{MethodRouter, get},
};
use trine_schema::Tables;
use trine_traces::{
    Budget,
    api::{self, Answer, Question, Request},
};

use crate::{
    App,
    asking::{Asking, Deadline, Params, budget, stats_headers},
    error::ApiError,
    media_type::accepted,
    metrics::Language,
    tenant::Tenant,
    time::now_ns,
};

/// Routes below `/tempo`, `/jaeger` and `/api/v1/traces`.
pub fn routes() -> Router<Arc<App>> {
    Router::new()
        .route("/api/v1/traces/{id}", named(Question::Trace))
        .route("/tempo/api/traces/{id}", named(Question::TempoTrace))
        .route("/tempo/api/v2/traces/{id}", named(Question::TempoTraceV2))
        .route("/tempo/api/search", fixed(Question::TempoSearch))
        .route("/tempo/api/search/tags", fixed(Question::TempoTags))
        .route("/tempo/api/search/tag/{name}/values", named(Question::TempoTagValues))
        .route("/tempo/api/v2/search/tags", fixed(Question::TempoTagsV2))
        .route("/tempo/api/v2/search/tag/{name}/values", named(Question::TempoTagValuesV2))
        .route("/tempo/api/echo", get(|| async { "echo\n" }))
        .route("/tempo/ready", get(|| async { "ready\n" }))
        .route("/tempo/api/status/buildinfo", fixed(Question::TempoBuildInfo))
        .route("/jaeger/api/traces", fixed(Question::JaegerTraces))
        .route("/jaeger/api/traces/{id}", named(Question::JaegerTrace))
        .route("/jaeger/api/services", fixed(Question::JaegerServices))
        .route("/jaeger/api/services/{name}/operations", named(Question::JaegerOperationsOf))
        .route("/jaeger/api/operations", fixed(Question::JaegerOperations))
        .route("/jaeger/api/dependencies", fixed(Question::JaegerDependencies))
}

/// What a request brings, or why it cannot be read; the error has to be told in the API's own form.
type Extracted<T> = Result<T, ApiError>;

/// A question that the path asks alone.
fn fixed(question: Question) -> MethodRouter<Arc<App>> {
    get(
        move |State(app): State<Arc<App>>,
              tenant: Extracted<Tenant>,
              headers: HeaderMap,
              params: Extracted<Params>| ask(app, tenant, headers, params, question),
    )
}

/// A question about what the path names.
fn named(question: fn(String) -> Question) -> MethodRouter<Arc<App>> {
    get(
        move |State(app): State<Arc<App>>,
              tenant: Extracted<Tenant>,
              Path(name): Path<String>,
              headers: HeaderMap,
              params: Extracted<Params>| ask(app, tenant, headers, params, question(name)),
    )
}

async fn ask(
    app: Arc<App>,
    tenant: Extracted<Tenant>,
    headers: HeaderMap,
    params: Extracted<Params>,
    question: Question,
) -> Response {
    let dialect = question.dialect();
    match try_ask(app, tenant, &headers, params, question).await {
        Ok(response) => response,
        Err(error) => {
            let mut response = http(Answer::error(dialect, error.status.as_u16(), &error.message));
            if let Some(seconds) = error.retry_after {
                response.headers_mut().insert(RETRY_AFTER, HeaderValue::from(seconds));
            }
            response
        }
    }
}

/// Runs the question on the query threads until its deadline.
async fn try_ask(
    app: Arc<App>,
    tenant: Extracted<Tenant>,
    headers: &HeaderMap,
    params: Extracted<Params>,
    question: Question,
) -> Result<Response, ApiError> {
    let (Tenant(tenant), params) = (tenant?, params?);
    let asking = Asking::begin(&app, Language::Traces);
    let deadline = Deadline::after(budget(&params, app.query_timeout)?);
    let accept = accepted(headers);
    let request = Request { question, tenant, parameters: params.pairs().to_vec(), accept, now: now_ns() };
    let budget = Budget {
        deadline: Some(deadline.at),
        memory_limit: Some(app.query_memory),
        stats: asking.stats.clone(),
    };
    let tables: Arc<dyn Tables> = app.store.clone();
    let work = async move { Ok::<_, ApiError>(api::answer(&*tables, &request, &budget).await) };
    let permit = app.query_threads.admit(deadline).await?;
    let answer = app.query_threads.run(permit, deadline, work).await?;
    // That there is no such trace is an answer.
    let answered = matches!(answer.status, 200 | 404);
    let mut response = http(answer);
    if answered {
        stats_headers(&mut response, &asking.succeeded());
    }
    Ok(response)
}

fn http(answer: Answer) -> Response {
    let status = StatusCode::from_u16(answer.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    (status, [(CONTENT_TYPE, answer.content_type)], answer.body).into_response()
}
