//! Traces as Jaeger's UI reads them (`data` of `/api/traces`), and the envelope around every answer.

use hashbrown::HashMap;
use serde::Serialize;

use crate::{Attributes, Place, Resource, Span, Trace, kind, status, waterfall::duration};

/// Answer of Jaeger's API: `data` and how many there are.
pub fn envelope(data: impl Serialize, total: usize) -> Vec<u8> {
    #[derive(Serialize)]
    struct Envelope<T> {
        data: T,
        total: usize,
        limit: usize,
        offset: usize,
        errors: Option<()>,
    }
    let envelope = Envelope { data, total, limit: 0, offset: 0, errors: None };
    serde_json::to_vec(&envelope).expect("BUG: text, numbers and lists always have a JSON form")
}

/// Several traces as an answer.
pub fn encode_traces(traces: &[Trace]) -> Vec<u8> {
    envelope(traces.iter().map(TraceJson::of).collect::<Vec<_>>(), 0)
}

/// What a span without a service is shown as, by the OpenTelemetry collector's translation to Jaeger.
const NO_SERVICE: &str = "OTLPResourceNoServiceName";

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct TraceJson<'a> {
    #[serde(rename = "traceID")]
    trace_id: String,
    spans: Vec<SpanJson<'a>>,
    #[serde(serialize_with = "as_object")]
    processes: Vec<Process<'a>>,
    warnings: Option<Vec<String>>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct SpanJson<'a> {
    #[serde(rename = "traceID")]
    trace_id: String,
    #[serde(rename = "spanID")]
    span_id: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    flags: Option<u32>,
    operation_name: &'a str,
    references: Vec<Reference>,
    start_time: u64,
    duration: u64,
    tags: Vec<Tag<'a>>,
    logs: Vec<Log<'a>>,
    #[serde(rename = "processID")]
    process_id: String,
    warnings: Option<Vec<String>>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Reference {
    ref_type: &'static str,
    #[serde(rename = "traceID")]
    trace_id: String,
    #[serde(rename = "spanID")]
    span_id: String,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Process<'a> {
    service_name: &'a str,
    tags: Vec<Tag<'a>>,
}

#[derive(Serialize)]
struct Log<'a> {
    timestamp: u64,
    fields: Vec<Tag<'a>>,
}

#[derive(Serialize)]
struct Tag<'a> {
    key: &'a str,
    #[serde(flatten)]
    value: Value<'a>,
}

/// A value with its type beside it.
#[derive(Serialize)]
#[serde(tag = "type", content = "value", rename_all = "lowercase")]
enum Value<'a> {
    String(&'a str),
    Bool(bool),
}

fn tag<'a>(key: &'a str, value: &'a str) -> Tag<'a> {
    Tag { key, value: Value::String(value) }
}

fn tags(attributes: &Attributes) -> Vec<Tag<'_>> {
    attributes.iter().map(|(key, value)| tag(key, value)).collect()
}

/// `p1`, `p2`, …
fn as_object<S: serde::Serializer>(processes: &[Process<'_>], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_map(processes.iter().enumerate().map(|(n, process)| (format!("p{}", n + 1), process)))
}

/// Times of Jaeger are not before 1970.
fn micros(ns: i64) -> u64 {
    u64::try_from(ns / 1_000).unwrap_or(0)
}

impl<'a> TraceJson<'a> {
    fn of(trace: &'a Trace) -> Self {
        let mut numbers: HashMap<&Resource, usize> = HashMap::new();
        let mut processes = Vec::new();
        let mut spans = Vec::with_capacity(trace.spans().len());
        for (position, span) in trace.spans().iter().enumerate() {
            let number = *numbers.entry(&span.resource).or_insert_with(|| {
                processes.push(Process::of(&span.resource));
                processes.len()
            });
            spans.push(SpanJson::of(trace, position, number));
        }
        Self { trace_id: trace.id.to_string(), spans, processes, warnings: None }
    }
}

impl<'a> Process<'a> {
    fn of(resource: &'a Resource) -> Self {
        let service = resource.service();
        let named = |key: &str| key == "service.name" || key == "service_name";
        Self {
            service_name: if service.is_empty() { NO_SERVICE } else { service },
            tags: resource.labels.iter().filter(|(k, _)| !named(k)).map(|(k, v)| tag(k, v)).collect(),
        }
    }
}

/// Values of the tag `span.kind`.
pub(crate) const KINDS: [(u8, &str); 5] = [
    (kind::INTERNAL, "internal"),
    (kind::SERVER, "server"),
    (kind::CLIENT, "client"),
    (kind::PRODUCER, "producer"),
    (kind::CONSUMER, "consumer"),
];

/// The kind as Jaeger names it, empty when it was not given.
pub(crate) fn kind_name(kind: u8) -> &'static str {
    KINDS.iter().find(|(number, _)| *number == kind).map_or("", |(_, name)| name)
}

impl<'a> SpanJson<'a> {
    fn of(trace: &'a Trace, position: usize, process: usize) -> Self {
        let span = &trace.spans()[position];
        let place = trace.tree().place(position);
        let flags = span.trace_flags & 0xff;
        Self {
            trace_id: trace.id.to_string(),
            span_id: span.id.to_string(),
            flags: (flags != 0).then_some(flags),
            operation_name: &span.operation,
            references: references(trace, span, place),
            start_time: micros(span.start),
            duration: micros(span.duration),
            tags: span_tags(span),
            logs: span.events.iter().map(log).collect(),
            process_id: format!("p{process}"),
            warnings: warnings(span, place),
        }
    }
}

/// The parent, then the links. The parent of an opened circle is left out: the UI would lose all its spans.
fn references(trace: &Trace, span: &Span, place: Place) -> Vec<Reference> {
    let parent = span.parent_id.filter(|_| place != Place::Cycle).map(|parent| Reference {
        ref_type: "CHILD_OF",
        trace_id: trace.id.to_string(),
        span_id: parent.to_string(),
    });
    let links = span.links.iter().map(|link| {
        let child = link.attributes.iter().any(|(k, v)| &**k == "opentracing.ref_type" && &**v == "child_of");
        Reference {
            ref_type: if child { "CHILD_OF" } else { "FOLLOWS_FROM" },
            trace_id: link.trace_id.to_string(),
            span_id: link.span_id.to_string(),
        }
    });
    parent.into_iter().chain(links).collect()
}

/// Attributes and what Jaeger keeps as tags.
fn span_tags(span: &Span) -> Vec<Tag<'_>> {
    let mut tags = tags(&span.attributes);
    let mut add = |key, value: &'static str| {
        if !value.is_empty() {
            tags.push(tag(key, value));
        }
    };
    add("span.kind", kind_name(span.kind));
    add("otel.status_code", ["", "OK", "ERROR"].get(usize::from(span.status_code)).copied().unwrap_or(""));
    for (key, value) in [
        ("otel.scope.name", &span.scope_name),
        ("otel.status_description", &span.status_message),
        ("w3c.tracestate", &span.trace_state),
    ] {
        if !value.is_empty() {
            tags.push(tag(key, value));
        }
    }
    if span.status_code == status::ERROR && !span.attributes.iter().any(|(key, _)| &**key == "error") {
        tags.push(Tag { key: "error", value: Value::Bool(true) });
    }
    tags
}

fn log(event: &crate::Event) -> Log<'_> {
    let mut fields = Vec::with_capacity(event.attributes.len() + 1);
    if !event.name.is_empty() && !event.attributes.iter().any(|(key, _)| &**key == "event") {
        fields.push(tag("event", &event.name));
    }
    fields.extend(tags(&event.attributes));
    Log { timestamp: micros(event.timestamp), fields }
}

fn warnings(span: &Span, place: Place) -> Option<Vec<String>> {
    let mut warnings = Vec::new();
    match (place, span.parent_id) {
        (Place::Orphan, Some(parent)) => {
            warnings.push(format!("parent span ID={parent} is not in the trace: late or lost"));
        }
        (Place::Cycle, Some(parent)) => {
            warnings
                .push(format!("parent span ID={parent} is a part of this span; the reference is left out"));
        }
        _ => {}
    }
    if span.duration < 0 {
        warnings.push(format!("the duration is {}; shown as 0", duration(span.duration)));
    }
    if span.copies > 1 {
        warnings.push(format!("stored {} times", span.copies));
    }
    (!warnings.is_empty()).then_some(warnings)
}
