//! JSON: OTLP's own mapping, and the two forms in which Tempo prints a trace.

use std::fmt::Display;

use serde::{Serialize, Serializer};

use super::{
    group::{group, unfold},
    protobuf::unsigned,
};
use crate::{Span, Trace, base64};

/// Whose JSON.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// OTLP's specification: ids as hex digits, enums as numbers; a span comes as often as it was stored.
    Otlp,
    /// Tempo's `/api/traces/{id}`: protobuf's mapping (ids as base64, enums by name), resources in `batches`.
    TempoV1,
    /// The trace in Tempo's `/api/v2/traces/{id}`: as v1, resources under `resourceSpans`.
    TempoV2,
}

/// The trace alone.
pub fn encode_json(trace: &Trace, form: Form) -> Vec<u8> {
    to_vec(&TracesData::of(trace, form))
}

/// Tempo's `TraceByIDResponse`. Without a trace it holds an empty one, as Tempo's does. `missing` says what
/// is not in the trace, empty when it is complete.
pub fn encode_tempo_v2_json(trace: Option<&Trace>, missing: &str) -> Vec<u8> {
    to_vec(&TraceByIdResponse {
        trace: trace.map_or_else(TracesData::default, |trace| TracesData::of(trace, Form::TempoV2)),
        metrics: Empty {},
        status: (!missing.is_empty()).then_some("PARTIAL"),
        message: missing,
    })
}

fn to_vec(value: &impl Serialize) -> Vec<u8> {
    serde_json::to_vec(value).expect("BUG: text, numbers and lists always have a JSON form")
}

#[derive(Serialize)]
struct Empty {}

#[derive(Serialize)]
struct TraceByIdResponse<'a> {
    trace: TracesData<'a>,
    metrics: Empty,
    #[serde(skip_serializing_if = "Option::is_none")]
    status: Option<&'static str>,
    #[serde(skip_serializing_if = "str::is_empty")]
    message: &'a str,
}

#[derive(Serialize, Default)]
#[serde(rename_all = "camelCase")]
struct TracesData<'a> {
    #[serde(skip_serializing_if = "Vec::is_empty")]
    batches: Vec<ResourceSpans<'a>>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    resource_spans: Vec<ResourceSpans<'a>>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct ResourceSpans<'a> {
    resource: Resource<'a>,
    scope_spans: Vec<ScopeSpans<'a>>,
}

#[derive(Serialize)]
struct Resource<'a> {
    #[serde(skip_serializing_if = "Vec::is_empty")]
    attributes: Vec<KeyValue<'a>>,
}

#[derive(Serialize)]
struct ScopeSpans<'a> {
    scope: Scope<'a>,
    spans: Vec<SpanJson<'a>>,
}

#[derive(Serialize)]
struct Scope<'a> {
    #[serde(skip_serializing_if = "str::is_empty")]
    name: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    version: &'a str,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    attributes: Vec<KeyValue<'a>>,
}

#[derive(Serialize)]
struct KeyValue<'a> {
    key: &'a str,
    value: AnyValue<'a>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct AnyValue<'a> {
    string_value: &'a str,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct SpanJson<'a> {
    trace_id: String,
    span_id: String,
    #[serde(skip_serializing_if = "str::is_empty")]
    trace_state: &'a str,
    #[serde(skip_serializing_if = "String::is_empty")]
    parent_span_id: String,
    #[serde(skip_serializing_if = "is_zero")]
    flags: u32,
    #[serde(skip_serializing_if = "str::is_empty")]
    name: &'a str,
    #[serde(skip_serializing_if = "Enum::is_default")]
    kind: Enum,
    #[serde(serialize_with = "as_text")]
    start_time_unix_nano: u64,
    #[serde(serialize_with = "as_text")]
    end_time_unix_nano: u64,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    attributes: Vec<KeyValue<'a>>,
    #[serde(skip_serializing_if = "is_zero")]
    dropped_attributes_count: u32,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    events: Vec<EventJson<'a>>,
    #[serde(skip_serializing_if = "is_zero")]
    dropped_events_count: u32,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    links: Vec<LinkJson<'a>>,
    #[serde(skip_serializing_if = "is_zero")]
    dropped_links_count: u32,
    status: Status<'a>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct EventJson<'a> {
    #[serde(serialize_with = "as_text")]
    time_unix_nano: u64,
    #[serde(skip_serializing_if = "str::is_empty")]
    name: &'a str,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    attributes: Vec<KeyValue<'a>>,
    #[serde(skip_serializing_if = "is_zero")]
    dropped_attributes_count: u32,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct LinkJson<'a> {
    trace_id: String,
    span_id: String,
    #[serde(skip_serializing_if = "str::is_empty")]
    trace_state: &'a str,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    attributes: Vec<KeyValue<'a>>,
    #[serde(skip_serializing_if = "is_zero")]
    dropped_attributes_count: u32,
}

#[derive(Serialize)]
struct Status<'a> {
    #[serde(skip_serializing_if = "str::is_empty")]
    message: &'a str,
    #[serde(skip_serializing_if = "Enum::is_default")]
    code: Enum,
}

/// An enum's value: by number as OTLP wants it, by name as protobuf's mapping writes it.
#[derive(Serialize, PartialEq)]
#[serde(untagged)]
enum Enum {
    Number(u8),
    Name(&'static str),
}

impl Enum {
    fn is_default(&self) -> bool {
        *self == Self::Number(0)
    }

    fn of(form: Form, number: u8, names: &[&'static str]) -> Self {
        match names.get(usize::from(number)) {
            Some(name) if form != Form::Otlp && number != 0 => Self::Name(name),
            _ => Self::Number(number),
        }
    }
}

const KINDS: [&str; 6] = [
    "SPAN_KIND_UNSPECIFIED",
    "SPAN_KIND_INTERNAL",
    "SPAN_KIND_SERVER",
    "SPAN_KIND_CLIENT",
    "SPAN_KIND_PRODUCER",
    "SPAN_KIND_CONSUMER",
];

const CODES: [&str; 3] = ["STATUS_CODE_UNSET", "STATUS_CODE_OK", "STATUS_CODE_ERROR"];

#[allow(clippy::trivially_copy_pass_by_ref)] // serde's signature
fn is_zero(number: &u32) -> bool {
    *number == 0
}

/// 64-bit numbers are text in protobuf's JSON mapping.
#[allow(clippy::trivially_copy_pass_by_ref)] // serde's signature
fn as_text<S: Serializer>(number: &u64, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(number)
}

fn id(form: Form, bytes: &[u8], hex: impl Display) -> String {
    if form == Form::Otlp { hex.to_string() } else { base64::encode(bytes) }
}

fn pairs<'a>(pairs: impl IntoIterator<Item = (&'a str, &'a str)>) -> Vec<KeyValue<'a>> {
    let pair = |(key, value)| KeyValue { key, value: AnyValue { string_value: value } };
    pairs.into_iter().map(pair).collect()
}

impl<'a> TracesData<'a> {
    fn of(trace: &'a Trace, form: Form) -> Self {
        let mut resource_spans = Vec::new();
        for resource in group(trace, form == Form::Otlp) {
            let mut scope_spans = Vec::new();
            for scope in resource.scopes {
                scope_spans.push(ScopeSpans {
                    scope: Scope {
                        name: scope.name,
                        version: scope.version,
                        attributes: pairs(scope.attributes),
                    },
                    spans: scope.spans.into_iter().map(|span| SpanJson::of(trace, span, form)).collect(),
                });
            }
            let attributes = pairs(resource.resource.labels.iter());
            resource_spans.push(ResourceSpans { resource: Resource { attributes }, scope_spans });
        }
        match form {
            Form::TempoV1 => Self { batches: resource_spans, resource_spans: Vec::new() },
            Form::Otlp | Form::TempoV2 => Self { batches: Vec::new(), resource_spans },
        }
    }
}

impl<'a> SpanJson<'a> {
    fn of(trace: &'a Trace, span: &'a Span, form: Form) -> Self {
        let (own, dropped) = unfold(&span.attributes);
        Self {
            trace_id: id(form, &trace.id.0, trace.id),
            span_id: id(form, &span.id.0, span.id),
            trace_state: &span.trace_state,
            parent_span_id: span.parent_id.map_or_else(String::new, |parent| id(form, &parent.0, parent)),
            flags: span.trace_flags,
            name: &span.operation,
            kind: Enum::of(form, span.kind, &KINDS),
            start_time_unix_nano: unsigned(span.start),
            end_time_unix_nano: unsigned(span.end()),
            attributes: pairs(own),
            dropped_attributes_count: dropped.attributes,
            events: span.events.iter().map(EventJson::of).collect(),
            dropped_events_count: dropped.events,
            links: span.links.iter().map(|link| LinkJson::of(link, form)).collect(),
            dropped_links_count: dropped.links,
            status: Status { message: &span.status_message, code: Enum::of(form, span.status_code, &CODES) },
        }
    }
}

impl<'a> EventJson<'a> {
    fn of(event: &'a crate::Event) -> Self {
        let (own, dropped) = unfold(&event.attributes);
        Self {
            time_unix_nano: unsigned(event.timestamp),
            name: &event.name,
            attributes: pairs(own),
            dropped_attributes_count: dropped.attributes,
        }
    }
}

impl<'a> LinkJson<'a> {
    fn of(link: &'a crate::Link, form: Form) -> Self {
        let (own, dropped) = unfold(&link.attributes);
        Self {
            trace_id: id(form, &link.trace_id.0, link.trace_id),
            span_id: id(form, &link.span_id.0, link.span_id),
            trace_state: &link.trace_state,
            attributes: pairs(own),
            dropped_attributes_count: dropped.attributes,
        }
    }
}
