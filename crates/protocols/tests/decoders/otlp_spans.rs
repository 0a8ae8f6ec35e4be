//! OTLP traces against `opentelemetry-proto` as the oracle, as `otlp.rs` does for logs.

use opentelemetry_proto::tonic::{
    collector::trace::v1::ExportTraceServiceRequest,
    common::v1::{InstrumentationScope, KeyValue},
    resource::v1::Resource,
    trace::v1::{
        ResourceSpans, ScopeSpans, Span, Status,
        span::{Event, Link},
    },
};
use proptest::{collection::vec, option, prelude::*};
use prost::Message as _;
use trine_protocols::otlp::decode_spans_protobuf;
use trine_schema::Labels;

use crate::{
    otlp::{attributes, plain, text},
    rows::{Context, NOW, SpanRow},
};

fn time() -> impl Strategy<Value = u64> {
    prop_oneof![1 => Just(0), 4 => 1..i64::MAX as u64]
}

/// A count of what was dropped.
fn dropped() -> impl Strategy<Value = u32> {
    prop_oneof![Just(0), any::<u32>()]
}

fn id(length: usize) -> impl Strategy<Value = Vec<u8>> {
    (vec(any::<u8>(), length - 1), 1..=u8::MAX).prop_map(|(mut id, last)| {
        id.push(last);
        id
    })
}

prop_compose! {
    fn event()(
        time_unix_nano in time(),
        name in text(),
        attributes in attributes(),
        dropped_attributes_count in dropped(),
    ) -> Event {
        Event { time_unix_nano, name, attributes, dropped_attributes_count }
    }
}

prop_compose! {
    fn link()(
        trace_id in prop_oneof![4 => id(16), 1 => vec(0..1u8, 0..18)],
        span_id in prop_oneof![4 => id(8), 1 => vec(0..1u8, 0..18)],
        trace_state in text(),
        attributes in attributes(),
        dropped_attributes_count in dropped(),
        flags in any::<u32>(),
    ) -> Link {
        Link { trace_id, span_id, trace_state, attributes, dropped_attributes_count, flags }
    }
}

prop_compose! {
    fn span()(
        ids in (id(16), id(8), prop_oneof![Just(Vec::new()), Just(vec![0; 8]), id(8)]),
        texts in (text(), text(), option::of((text(), -1..4i32))),
        kind in -1..7i32,
        times in (time(), time()),
        attributes in attributes(),
        events in vec(event(), 0..3),
        links in vec(link(), 0..3),
        dropped in (dropped(), dropped(), dropped()),
        flags in any::<u32>(),
    ) -> Span {
        Span {
            trace_id: ids.0,
            span_id: ids.1,
            parent_span_id: ids.2,
            name: texts.0,
            trace_state: texts.1,
            status: texts.2.map(|(message, code)| Status { message, code }),
            kind,
            start_time_unix_nano: times.0,
            end_time_unix_nano: times.1,
            attributes,
            dropped_attributes_count: dropped.0,
            events,
            dropped_events_count: dropped.1,
            links,
            dropped_links_count: dropped.2,
            flags,
        }
    }
}

prop_compose! {
    fn scope_spans()(
        scope in option::of((text(), text(), attributes())),
        spans in vec(span(), 0..4),
    ) -> ScopeSpans {
        let scope = scope.map(|(name, version, attributes)| {
            InstrumentationScope { name, version, attributes, dropped_attributes_count: 3 }
        });
        ScopeSpans { scope, spans, schema_url: "u".into() }
    }
}

prop_compose! {
    pub fn request()(
        resource_spans in vec((option::of(attributes()), vec(scope_spans(), 0..3)), 0..3)
    ) -> ExportTraceServiceRequest {
        let resource_spans = resource_spans.into_iter().map(|(attributes, scope_spans)| {
            let resource = attributes.map(|mut attributes| {
                for (i, pair) in attributes.iter_mut().enumerate() {
                    pair.key = format!("{}{i}", pair.key);
                }
                Resource { attributes, ..Resource::default() }
            });
            ResourceSpans { resource, scope_spans, schema_url: "u".into() }
        });
        ExportTraceServiceRequest { resource_spans: resource_spans.collect() }
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The pairs as stored, with the count of those that were dropped.
fn stored(attributes: &[KeyValue], dropped: u32) -> Vec<(String, String)> {
    let mut pairs: Vec<_> =
        attributes.iter().map(|pair| (pair.key.clone(), plain(pair.value.as_ref()))).collect();
    if dropped != 0 {
        pairs.push(("otel.dropped_attributes_count".into(), dropped.to_string()));
    }
    pairs
}

fn expected(request: &ExportTraceServiceRequest) -> Vec<SpanRow> {
    let mut rows = Vec::new();
    let set = |text: &str| (!text.is_empty()).then(|| text.to_owned());
    for resource_spans in &request.resource_spans {
        let attributes = resource_spans.resource.as_ref().map_or(&[][..], |resource| &resource.attributes);
        let pairs =
            attributes.iter().map(|pair| (pair.key.clone().into(), plain(pair.value.as_ref()).into()));
        let labels = Labels::new(pairs.collect()).unwrap().to_json();
        for scope_spans in &resource_spans.scope_spans {
            let scope = scope_spans.scope.clone().unwrap_or_default();
            for span in &scope_spans.spans {
                let mut attributes = Vec::new();
                if let Some(version) = set(&scope.version) {
                    attributes.push(("otel.scope.version".to_owned(), version));
                }
                for (key, value) in stored(&scope.attributes, 0) {
                    attributes.push((format!("otel.scope.{key}"), value));
                }
                attributes.extend(stored(&span.attributes, span.dropped_attributes_count));
                let counts = [("events", span.dropped_events_count), ("links", span.dropped_links_count)];
                for (what, count) in counts.into_iter().filter(|(_, count)| *count != 0) {
                    attributes.push((format!("otel.dropped_{what}_count"), count.to_string()));
                }
                let (start, end) = (span.start_time_unix_nano as i64, span.end_time_unix_nano as i64);
                let event = |event: &Event| {
                    let pairs = stored(&event.attributes, event.dropped_attributes_count);
                    (event.time_unix_nano as i64, event.name.clone(), pairs)
                };
                let link = |link: &Link| {
                    let id = |id: &[u8], length| {
                        if id.len() == length { hex(id) } else { "00".repeat(length) }
                    };
                    let pairs = stored(&link.attributes, link.dropped_attributes_count);
                    (id(&link.trace_id, 16), id(&link.span_id, 8), set(&link.trace_state), pairs)
                };
                let status = span.status.clone().unwrap_or_default();
                rows.push(SpanRow {
                    labels: labels.clone(),
                    timestamp: [start, end, NOW].into_iter().find(|time| *time != 0).unwrap(),
                    duration: if start == 0 || end == 0 { 0 } else { end - start },
                    trace_id: hex(&span.trace_id),
                    span_id: hex(&span.span_id),
                    parent: Some(hex(&span.parent_span_id))
                        .filter(|id| id.bytes().any(|digit| digit != b'0')),
                    operation: span.name.clone(),
                    kind: u8::try_from(span.kind).ok().filter(|kind| *kind < 6).unwrap_or(0),
                    status: u8::try_from(status.code).ok().filter(|code| *code < 3).unwrap_or(0),
                    status_message: set(&status.message),
                    trace_state: set(&span.trace_state),
                    flags: span.flags,
                    scope_name: set(&scope.name),
                    attributes,
                    events: span.events.iter().map(event).collect(),
                    links: span.links.iter().map(link).collect(),
                });
            }
        }
    }
    rows
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    /// Whatever a prost client encodes arrives field by field.
    #[test]
    fn protobuf_of_prost_arrives_whole(request in request()) {
        let context = Context::default();
        let bytes = request.encode_to_vec();
        let decoded = decode_spans_protobuf(&bytes, &context.tenant, &context.registry, NOW, &context.limits).unwrap();
        prop_assert_eq!((decoded.rejected, &decoded.first_errors[..]), (0, &[][..]));
        prop_assert_eq!(context.spans(&decoded), expected(&request));
    }

    /// A resource and a scope behind their spans, and in two parts, are merged as protobuf says.
    #[test]
    fn protobuf_order_is_free(scope_spans in scope_spans(), attributes in attributes()) {
        let mut attributes = attributes;
        for (i, pair) in attributes.iter_mut().enumerate() {
            pair.key = format!("{}{i}", pair.key);
        }
        let half = attributes.len() / 2;
        let resource = |part: &[KeyValue]| {
            let resource = Some(Resource { attributes: part.to_vec(), ..Resource::default() });
            ResourceSpans { resource, ..ResourceSpans::default() }.encode_to_vec()
        };
        let scope = scope_spans.scope.clone().unwrap_or_default();
        let spans = ScopeSpans { scope: None, ..scope_spans.clone() }.encode_to_vec();
        let late = ScopeSpans { scope: Some(scope), ..ScopeSpans::default() }.encode_to_vec();
        let inner = [spans, late].concat();
        let mut outer = resource(&attributes[..half]);
        outer.push(2 << 3 | 2);
        prost::encoding::encode_varint(inner.len() as u64, &mut outer);
        outer.extend(inner);
        outer.extend(resource(&attributes[half..]));
        let mut bytes = vec![1 << 3 | 2];
        prost::encoding::encode_varint(outer.len() as u64, &mut bytes);
        bytes.extend(outer);

        let request = ExportTraceServiceRequest::decode(&bytes[..]).unwrap();
        let context = Context::default();
        let decoded = decode_spans_protobuf(&bytes, &context.tenant, &context.registry, NOW, &context.limits).unwrap();
        prop_assert_eq!(context.spans(&decoded), expected(&request));
    }
}
