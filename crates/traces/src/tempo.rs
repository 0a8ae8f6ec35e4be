//! Tempo's search: its parameters and its answers in JSON
//! (<https://grafana.com/docs/tempo/latest/api_docs/#search>).

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;

use crate::{
    Span, Trace,
    api::ordered,
    logfmt,
    parameters::{ParameterError, Parameters, Unit, parse_duration},
    search::{Condition, MAX_CONDITIONS, Search, TagPlace},
    status, traceql,
};

/// Traces that are returned when no `limit` is given, as in Tempo.
const DEFAULT_LIMIT: usize = 20;

/// Most traces of one answer.
const MAX_LIMIT: usize = 10_000;

/// Fitting spans per trace that are returned when no `spss` is given, as in Tempo.
const DEFAULT_SPANS: usize = 3;

/// What is searched and how much of it is told.
#[derive(Debug, Clone)]
pub(crate) struct TempoSearch {
    pub(crate) search: Search,
    /// Fitting spans that are told of each trace.
    pub(crate) spans: usize,
}

impl TempoSearch {
    /// `tags` or `q`, `minDuration` and `maxDuration` of the trace, `limit`, `start`, `end`, `spss`.
    pub(crate) fn parse(parameters: &Parameters<'_>) -> Result<Self, ParameterError> {
        let start = parameters.time("start", Unit::Seconds)?.unwrap_or(i64::MIN);
        let last = parameters.time("end", Unit::Seconds)?.unwrap_or(i64::MAX);
        let mut trace_duration = parameters.duration("minDuration")?.unwrap_or(i64::MIN)
            ..=parameters.duration("maxDuration")?.unwrap_or(i64::MAX);
        if let (true, Some(text)) = (trace_duration.is_empty(), parameters.get("maxDuration")) {
            return Err(ParameterError::new("maxDuration", text, "is shorter than minDuration; swap them"));
        }
        let mut conditions = Vec::new();
        match (parameters.get("q"), parameters.get("tags")) {
            (Some(q), Some(_)) => {
                return Err(ParameterError::new(
                    "q",
                    q,
                    "cannot stand beside tags; write all conditions in one of them",
                ));
            }
            (Some(q), None) => {
                let selection =
                    traceql::parse(q).map_err(|error| ParameterError::new("q", q, error.to_string()))?;
                conditions = selection.conditions;
                let of_query = selection.trace_duration;
                trace_duration =
                    *trace_duration.start().max(of_query.start())..=*trace_duration.end().min(of_query.end());
            }
            (None, Some(tags)) => {
                let pairs = logfmt::parse(tags).map_err(|(position, problem)| {
                    ParameterError::new("tags", tags, format!("is no logfmt: at byte {position}: {problem}"))
                })?;
                if pairs.len() > MAX_CONDITIONS {
                    let problem = format!("has more than {MAX_CONDITIONS} pairs; give fewer");
                    return Err(ParameterError::new("tags", tags, problem));
                }
                for (key, value) in pairs {
                    conditions.push(
                        of_tag(&key, value).map_err(|problem| ParameterError::new("tags", tags, problem))?,
                    );
                }
            }
            (None, None) => {}
        }
        let search = Search {
            range: ordered(start, last)?,
            conditions,
            trace_duration,
            limit: parameters.limit("limit", MAX_LIMIT)?.unwrap_or(DEFAULT_LIMIT),
            whole: false,
        };
        let spans = parameters.get("spss").map_or(Ok(DEFAULT_SPANS), |text| {
            text.parse().map_err(|_| ParameterError::new("spss", text, "is no whole number"))
        })?;
        Ok(Self { search, spans })
    }
}

/// A tag of `tags`; some names mean what is no attribute.
fn of_tag(key: &str, value: String) -> Result<Condition, String> {
    let bound = |value: &str| {
        parse_duration(value).ok_or_else(|| format!("has {key}={value:?}, which is no duration"))
    };
    Ok(match key {
        "service.name" | "resource.service.name" => Condition::Service(value),
        "name" => Condition::Operation(value),
        "status" | "status.code" => Condition::Status(match value.as_str() {
            "unset" => status::UNSET,
            "ok" => status::OK,
            "error" => status::ERROR,
            _ => return Err(format!("has {key}={value:?}; give unset, ok or error")),
        }),
        "error" if value == "true" => Condition::Status(status::ERROR),
        "duration" => {
            let ns = bound(&value)?;
            Condition::Duration(ns..=ns)
        }
        _ => {
            let (place, key) = match key.split_once('.') {
                Some(("resource", key)) => (TagPlace::Resource, key),
                Some(("span", key)) => (TagPlace::Span, key),
                Some(("", key)) => (TagPlace::Any, key),
                _ => (TagPlace::Any, key),
            };
            Condition::Tag { place, key: key.to_owned(), value }
        }
    })
}

#[derive(Serialize)]
struct SearchResponse<'a> {
    traces: Vec<TraceSearchMetadata<'a>>,
    metrics: SearchMetrics,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct SearchMetrics {
    inspected_bytes: String,
    inspected_spans: String,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct TraceSearchMetadata<'a> {
    #[serde(rename = "traceID")]
    trace_id: String,
    root_service_name: &'a str,
    root_trace_name: &'a str,
    start_time_unix_nano: String,
    #[serde(skip_serializing_if = "is_zero")]
    duration_ms: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    span_set: Option<SpanSet<'a>>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    span_sets: Vec<SpanSet<'a>>,
    service_stats: BTreeMap<&'a str, ServiceStats>,
}

#[derive(Serialize, Clone)]
struct SpanSet<'a> {
    spans: Vec<SpanJson<'a>>,
    matched: usize,
}

#[derive(Serialize, Clone)]
#[serde(rename_all = "camelCase")]
struct SpanJson<'a> {
    #[serde(rename = "spanID")]
    span_id: String,
    name: &'a str,
    start_time_unix_nano: String,
    duration_nanos: String,
    attributes: Vec<KeyValue<'a>>,
}

#[derive(Serialize, Clone)]
struct KeyValue<'a> {
    key: &'static str,
    value: StringValue<'a>,
}

#[derive(Serialize, Clone)]
#[serde(rename_all = "camelCase")]
struct StringValue<'a> {
    string_value: &'a str,
}

#[derive(Serialize, Default)]
#[serde(rename_all = "camelCase")]
struct ServiceStats {
    span_count: u64,
    #[serde(skip_serializing_if = "is_zero")]
    error_count: u64,
}

#[allow(clippy::trivially_copy_pass_by_ref)] // serde's signature
fn is_zero(number: &u64) -> bool {
    *number == 0
}

/// What Tempo says of a trace whose root it has not seen.
const NO_ROOT: &str = "<root span not yet received>";

fn to_vec(value: &impl Serialize) -> Vec<u8> {
    serde_json::to_vec(value).expect("BUG: text, numbers and lists always have a JSON form")
}

/// The answer to a search.
pub(crate) fn encode_search(traces: &[Trace], asked: &TempoSearch, bytes: u64, rows: u64) -> Vec<u8> {
    to_vec(&SearchResponse {
        traces: traces.iter().map(|trace| metadata(trace, asked)).collect(),
        metrics: SearchMetrics { inspected_bytes: bytes.to_string(), inspected_spans: rows.to_string() },
    })
}

fn metadata<'a>(trace: &'a Trace, asked: &TempoSearch) -> TraceSearchMetadata<'a> {
    let root = trace.root();
    let has_root = root.parent_id.is_none();
    let mut service_stats: BTreeMap<&str, ServiceStats> = BTreeMap::new();
    for span in trace.spans() {
        let stats = service_stats.entry(span.service()).or_default();
        stats.span_count += 1;
        stats.error_count += u64::from(span.is_error());
    }
    let fitting: Vec<&Span> = trace.spans().iter().filter(|span| asked.search.fits(span)).collect();
    let span_set = SpanSet {
        spans: fitting.iter().take(asked.spans).map(|span| fitting_span(span)).collect(),
        matched: fitting.len(),
    };
    TraceSearchMetadata {
        trace_id: trace.id.to_string(),
        root_service_name: if has_root { root.service() } else { NO_ROOT },
        root_trace_name: if has_root { &root.operation } else { "" },
        start_time_unix_nano: trace.start().to_string(),
        duration_ms: (trace.duration() / 1_000_000).unsigned_abs(),
        span_sets: vec![span_set.clone()],
        span_set: Some(span_set),
        service_stats,
    }
}

fn fitting_span(span: &Span) -> SpanJson<'_> {
    let status = match span.status_code {
        status::ERROR => "error",
        status::OK => "ok",
        _ => "unset",
    };
    let pair = |key, string_value| KeyValue { key, value: StringValue { string_value } };
    SpanJson {
        span_id: span.id.to_string(),
        name: &span.operation,
        start_time_unix_nano: span.start.to_string(),
        duration_nanos: span.duration.to_string(),
        attributes: vec![pair("service.name", span.service()), pair("status", status)],
    }
}

/// Fields that every span has, beside its attributes.
pub(crate) const INTRINSICS: [&str; 5] = ["duration", "kind", "name", "status", "traceDuration"];

/// Names of attributes by where they stand.
#[derive(Debug, Default)]
pub(crate) struct TagNames {
    pub(crate) resource: BTreeSet<String>,
    pub(crate) span: BTreeSet<String>,
}

/// `/api/search/tags`.
pub(crate) fn encode_tags(names: &TagNames, scope: Option<&str>) -> Result<Vec<u8>, ParameterError> {
    #[derive(Serialize)]
    #[serde(rename_all = "camelCase")]
    struct SearchTagsResponse<'a> {
        tag_names: BTreeSet<&'a str>,
    }
    let tag_names = scopes(names, scope)?.into_iter().flat_map(|scope| scope.tags).collect();
    Ok(to_vec(&SearchTagsResponse { tag_names }))
}

#[derive(Serialize)]
struct Scope<'a> {
    name: &'static str,
    tags: Vec<&'a str>,
}

/// `/api/v2/search/tags`.
pub(crate) fn encode_tags_v2(names: &TagNames, scope: Option<&str>) -> Result<Vec<u8>, ParameterError> {
    #[derive(Serialize)]
    struct SearchTagsV2Response<'a> {
        scopes: Vec<Scope<'a>>,
    }
    Ok(to_vec(&SearchTagsV2Response { scopes: scopes(names, scope)? }))
}

fn scopes<'a>(names: &'a TagNames, scope: Option<&str>) -> Result<Vec<Scope<'a>>, ParameterError> {
    let all = [
        Scope { name: "resource", tags: names.resource.iter().map(String::as_str).collect() },
        Scope { name: "span", tags: names.span.iter().map(String::as_str).collect() },
        Scope { name: "intrinsic", tags: INTRINSICS.to_vec() },
    ];
    match scope {
        None | Some("none") => Ok(all.into()),
        // Scopes that Tempo knows and that are not told apart here.
        Some("event" | "link" | "instrumentation") => Ok(Vec::new()),
        Some(name) => {
            let chosen: Vec<_> = all.into_iter().filter(|scope| scope.name == name).collect();
            let problem = "is no scope; give resource, span, intrinsic or none";
            if chosen.is_empty() { Err(ParameterError::new("scope", name, problem)) } else { Ok(chosen) }
        }
    }
}

/// `/api/search/tag/{name}/values`.
pub(crate) fn encode_values(values: &BTreeSet<String>) -> Vec<u8> {
    #[derive(Serialize)]
    #[serde(rename_all = "camelCase")]
    struct SearchTagValuesResponse<'a> {
        tag_values: &'a BTreeSet<String>,
    }
    to_vec(&SearchTagValuesResponse { tag_values: values })
}

/// `/api/v2/search/tag/{name}/values`; keywords are the values of `status` and `kind`.
pub(crate) fn encode_values_v2(values: &BTreeSet<String>, keywords: bool) -> Vec<u8> {
    #[derive(Serialize)]
    #[serde(rename_all = "camelCase")]
    struct SearchTagValuesV2Response<'a> {
        tag_values: Vec<TagValue<'a>>,
    }
    #[derive(Serialize)]
    struct TagValue<'a> {
        r#type: &'static str,
        value: &'a str,
    }
    let r#type = if keywords { "keyword" } else { "string" };
    to_vec(&SearchTagValuesV2Response {
        tag_values: values.iter().map(|value| TagValue { r#type, value }).collect(),
    })
}
