//! The HTTP APIs without HTTP: what was asked goes in, status, type and bytes of the answer come out. Errors
//! have the form of the API that was asked.

use std::{collections::BTreeSet, ops::RangeInclusive};

use serde_json::json;
use trine_model::{TenantId, TraceId};
use trine_schema::{ScanError, Tables};

use crate::{
    Budget, FindError, Trace, TraceIdError, find_trace, jaeger,
    jaeger_query::{JaegerQuery, span_kind},
    names,
    otlp::{self, Form},
    parameters::{ParameterError, Parameters, Unit},
    parse_trace_id,
    search::{TagPlace, read_whole, search},
    tempo::{self, TempoSearch},
};

/// What is asked; ids and names as they stand in the path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Question {
    /// `/api/v1/traces/{id}`, our own: OTLP as JSON by its specification, or protobuf.
    Trace(String),
    /// Tempo's `/api/traces/{id}`.
    TempoTrace(String),
    /// Tempo's `/api/v2/traces/{id}`.
    TempoTraceV2(String),
    /// Tempo's `/api/search`.
    TempoSearch,
    /// Tempo's `/api/search/tags`.
    TempoTags,
    /// Tempo's `/api/v2/search/tags`.
    TempoTagsV2,
    /// Tempo's `/api/search/tag/{name}/values`.
    TempoTagValues(String),
    /// Tempo's `/api/v2/search/tag/{name}/values`.
    TempoTagValuesV2(String),
    /// Tempo's `/api/status/buildinfo`.
    TempoBuildInfo,
    /// Jaeger's `/api/traces/{id}`.
    JaegerTrace(String),
    /// Jaeger's `/api/traces`.
    JaegerTraces,
    /// Jaeger's `/api/services`.
    JaegerServices,
    /// Jaeger's `/api/services/{name}/operations`.
    JaegerOperationsOf(String),
    /// Jaeger's `/api/operations`.
    JaegerOperations,
    /// Jaeger's `/api/dependencies`, which are not computed: none.
    JaegerDependencies,
}

/// How an API tells an error.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dialect {
    /// A line of text.
    Text,
    /// `{"data":null,…,"errors":[{"code":…,"msg":…}]}`.
    Jaeger,
}

impl Question {
    /// How an error is told to whoever asks this.
    pub fn dialect(&self) -> Dialect {
        match self {
            Self::JaegerTrace(_)
            | Self::JaegerTraces
            | Self::JaegerServices
            | Self::JaegerOperationsOf(_)
            | Self::JaegerOperations
            | Self::JaegerDependencies => Dialect::Jaeger,
            _ => Dialect::Text,
        }
    }
}

/// A question and what came with it.
#[derive(Debug, Clone)]
pub struct Request {
    /// What is asked.
    pub question: Question,
    /// Whose traces.
    pub tenant: TenantId,
    /// Of the URL, decoded.
    pub parameters: Vec<(String, String)>,
    /// Header `Accept`, empty when there is none.
    pub accept: String,
    /// Nanoseconds since 1970.
    pub now: i64,
}

/// What is sent back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// HTTP status.
    pub status: u16,
    /// Header `Content-Type`.
    pub content_type: &'static str,
    /// The body.
    pub body: Vec<u8>,
}

const JSON: &str = "application/json";
const PROTOBUF: &str = "application/protobuf";
/// By the version Grafana learns what it may ask; this is the Tempo whose API is answered.
const BUILD_INFO: &str =
    r#"{"version":"2.8.0","revision":"trine","branch":"","buildUser":"","buildDate":"","goVersion":""}"#;
const TEXT: &str = "text/plain; charset=utf-8";

impl Answer {
    fn ok(content_type: &'static str, body: Vec<u8>) -> Self {
        Self { status: 200, content_type, body }
    }

    /// An error in the form that the caller understands.
    pub fn error(dialect: Dialect, status: u16, message: &str) -> Self {
        match dialect {
            Dialect::Text => Self { status, content_type: TEXT, body: format!("{message}\n").into_bytes() },
            Dialect::Jaeger => {
                let errors = [json!({"code": status, "msg": message})];
                let body = json!({"data": null, "total": 0, "limit": 0, "offset": 0, "errors": errors});
                Self { status, content_type: JSON, body: body.to_string().into_bytes() }
            }
        }
    }
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failure {
    #[error(transparent)]
    Parameter(#[from] ParameterError),
    #[error(transparent)]
    TraceId(#[from] TraceIdError),
    #[error("trace {0} is not found; it may not have arrived yet, or its retention is over")]
    NotFound(TraceId),
    #[error("trace {id} is not found in what can be read; it may lie in what cannot: {missing}")]
    Unreadable { id: TraceId, missing: String },
    #[error(transparent)]
    Find(#[from] FindError),
}

impl Failure {
    fn status(&self) -> u16 {
        match self {
            Self::Parameter(_) | Self::TraceId(_) => 400,
            Self::NotFound(_) | Self::Unreadable { .. } => 404,
            Self::Find(FindError::TooLarge { .. } | FindError::Scan(ScanError::Memory { .. })) => 422,
            Self::Find(FindError::Scan(ScanError::Deadline(_))) => 504,
            Self::Find(FindError::Scan(ScanError::Storage(_)) | FindError::Assemble(_)) => 500,
        }
    }
}

/// Asks the tables.
pub async fn answer(tables: &dyn Tables, request: &Request, budget: &Budget) -> Answer {
    match try_answer(tables, request, budget).await {
        Ok(answer) => answer,
        Err(failure) => Answer::error(request.question.dialect(), failure.status(), &failure.to_string()),
    }
}

async fn try_answer(tables: &dyn Tables, request: &Request, budget: &Budget) -> Result<Answer, Failure> {
    let parameters = Parameters::new(&request.parameters);
    let json = |body| Ok(Answer::ok(JSON, body));
    match &request.question {
        Question::Trace(id) => {
            let trace = found(tables, request, budget, id, range(&parameters, Unit::Seconds)?).await?;
            if wants_protobuf(request) {
                return Ok(Answer::ok(PROTOBUF, otlp::encode_protobuf(&trace, true)));
            }
            json(otlp::encode_json(&trace, Form::Otlp))
        }
        Question::TempoTrace(id) => {
            let trace = found(tables, request, budget, id, range(&parameters, Unit::Seconds)?).await?;
            if wants_protobuf(request) {
                return Ok(Answer::ok(PROTOBUF, otlp::encode_protobuf(&trace, false)));
            }
            json(otlp::encode_json(&trace, Form::TempoV1))
        }
        Question::TempoTraceV2(id) => {
            let (id, range) = (parse_trace_id(id)?, range(&parameters, Unit::Seconds)?);
            let trace = find_trace(tables, &request.tenant, id, range, budget).await?;
            let missing = budget.stats.snapshot().partial.join("; ");
            if wants_protobuf(request) {
                return Ok(Answer::ok(PROTOBUF, otlp::encode_tempo_v2_protobuf(trace.as_ref(), &missing)));
            }
            json(otlp::encode_tempo_v2_json(trace.as_ref(), &missing))
        }
        Question::TempoSearch => {
            let asked = TempoSearch::parse(&parameters)?;
            let traces = search(tables, &request.tenant, &asked.search, budget).await?;
            let stats = budget.stats.snapshot();
            json(tempo::encode_search(&traces, &asked, stats.bytes_scanned, stats.rows_scanned))
        }
        Question::TempoTags | Question::TempoTagsV2 => {
            let range = range(&parameters, Unit::Seconds)?;
            let names = names::tag_names(tables, &request.tenant, range, budget).await?;
            let scope = parameters.get("scope");
            if request.question == Question::TempoTags {
                return json(tempo::encode_tags(&names, scope)?);
            }
            json(tempo::encode_tags_v2(&names, scope)?)
        }
        Question::TempoTagValues(name) => {
            let (values, _) = tag_values(tables, request, budget, name, &parameters).await?;
            json(tempo::encode_values(&values))
        }
        Question::TempoTagValuesV2(name) => {
            let (values, keywords) = tag_values(tables, request, budget, name, &parameters).await?;
            json(tempo::encode_values_v2(&values, keywords))
        }
        Question::TempoBuildInfo => json(BUILD_INFO.into()),
        Question::JaegerTrace(id) => {
            let trace = found(tables, request, budget, id, range(&parameters, Unit::Microseconds)?).await?;
            json(jaeger::encode_traces(&[trace]))
        }
        Question::JaegerTraces => {
            let traces = match JaegerQuery::parse(&parameters, request.now)? {
                JaegerQuery::Ids(ids) => read_whole(tables, &request.tenant, &ids, budget).await?,
                JaegerQuery::Search(asked) => search(tables, &request.tenant, &asked, budget).await?,
            };
            json(jaeger::encode_traces(&traces))
        }
        Question::JaegerServices => {
            let services = names::services(tables, &request.tenant, ALL_TIME, budget).await?;
            json(jaeger::envelope(&services, services.len()))
        }
        Question::JaegerOperationsOf(service) => {
            let found = names::operations(tables, &request.tenant, Some(service), ALL_TIME, budget).await?;
            let names: BTreeSet<&str> = found.iter().map(|(name, _)| name.as_str()).collect();
            json(jaeger::envelope(&names, names.len()))
        }
        Question::JaegerOperations => {
            let kind = span_kind(&parameters)?;
            let service = parameters.get("service");
            let service = service.ok_or_else(|| {
                ParameterError::new("service", "", "is missing; name the service of the operations")
            })?;
            let found = names::operations(tables, &request.tenant, Some(service), ALL_TIME, budget).await?;
            let of_kind = found.iter().filter(|(_, of)| kind.is_none_or(|kind| *of == kind));
            let operations: Vec<_> = of_kind
                .map(|(name, kind)| json!({"name": name, "spanKind": jaeger::kind_name(*kind)}))
                .collect();
            json(jaeger::envelope(&operations, operations.len()))
        }
        Question::JaegerDependencies => json(jaeger::envelope([(); 0], 0)),
    }
}

const ALL_TIME: RangeInclusive<i64> = i64::MIN..=i64::MAX;

/// Values of a tag as Tempo names it, and whether they are keywords of TraceQL.
async fn tag_values(
    tables: &dyn Tables,
    request: &Request,
    budget: &Budget,
    name: &str,
    parameters: &Parameters<'_>,
) -> Result<(BTreeSet<String>, bool), Failure> {
    let range = range(parameters, Unit::Seconds)?;
    let words = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect();
    let place = match name {
        "status" | "span:status" => return Ok((words(&["error", "ok", "unset"]), true)),
        "kind" | "span:kind" => {
            let kinds = ["client", "consumer", "internal", "producer", "server", "unspecified"];
            return Ok((words(&kinds), true));
        }
        "name" | "span:name" => {
            let found = names::operations(tables, &request.tenant, None, range, budget).await?;
            return Ok((found.into_iter().map(|(name, _)| name).collect(), false));
        }
        "service.name" | "resource.service.name" | ".service.name" => {
            return Ok((names::services(tables, &request.tenant, range, budget).await?, false));
        }
        _ => match name.split_once('.') {
            Some(("resource", key)) => (TagPlace::Resource, key),
            Some(("span", key)) => (TagPlace::Span, key),
            Some(("", key)) => (TagPlace::Any, key),
            _ => (TagPlace::Any, name),
        },
    };
    Ok((names::tag_values(tables, &request.tenant, place, range, budget).await?, false))
}

fn wants_protobuf(request: &Request) -> bool {
    [PROTOBUF, "application/x-protobuf"].iter().any(|kind| request.accept.contains(kind))
}

async fn found(
    tables: &dyn Tables,
    request: &Request,
    budget: &Budget,
    id: &str,
    range: RangeInclusive<i64>,
) -> Result<Trace, Failure> {
    let id = parse_trace_id(id)?;
    let trace = find_trace(tables, &request.tenant, id, range, budget).await?;
    trace.ok_or_else(|| match budget.stats.snapshot().partial.join("; ") {
        missing if missing.is_empty() => Failure::NotFound(id),
        missing => Failure::Unreadable { id, missing },
    })
}

/// `start` and `end`; without them all of time.
fn range(parameters: &Parameters<'_>, unit: Unit) -> Result<RangeInclusive<i64>, ParameterError> {
    let start = parameters.time("start", unit)?.unwrap_or(i64::MIN);
    let last = parameters.time("end", unit)?.unwrap_or(i64::MAX);
    ordered(start, last)
}

/// A range whose start lies not after its end.
pub(crate) fn ordered(start: i64, last: i64) -> Result<RangeInclusive<i64>, ParameterError> {
    if start > last {
        return Err(ParameterError::new("start", &start.to_string(), "lies after end; swap them"));
    }
    Ok(start..=last)
}
