//! OTLP traces against `opentelemetry-proto` as the oracle, as `otlp.rs` does for logs.

use expect_test::{Expect, expect};
use opentelemetry_proto::tonic::{
    collector::trace::v1::{
        ExportTracePartialSuccess, ExportTraceServiceRequest, ExportTraceServiceResponse,
    },
    common::v1::{InstrumentationScope, KeyValue},
    resource::v1::Resource,
    trace::v1::{
        ResourceSpans, ScopeSpans, Span, Status,
        span::{Event, Link},
    },
};
use proptest::{collection::vec, option, prelude::*};
use prost::Message as _;
use trine_protocols::{
    Decoded,
    otlp::{decode_spans_json, decode_spans_protobuf, encode_traces_response},
};
use trine_schema::{Labels, SpanBatch};

use crate::{
    otlp::{attributes, plain, text, turned},
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

    /// The same for the JSON that opentelemetry-proto writes, and for the same JSON with every
    /// object's members turned around (so that `resource` and `scope` come last).
    #[test]
    fn json_of_serde_arrives_whole_in_any_order(request in request()) {
        let forward = serde_json::to_string(&request).unwrap();
        let context = Context::default();
        for json in [turned(&forward), forward] {
            let decoded =
                decode_spans_json(json.as_bytes(), &context.tenant, &context.registry, NOW, &context.limits).unwrap();
            prop_assert_eq!((decoded.rejected, &decoded.first_errors[..]), (0, &[][..]), "{}", json);
            prop_assert_eq!(context.spans(&decoded), expected(&request));
        }
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

#[test]
fn json_takes_the_spellings_senders_use() {
    let context = Context::default();
    let json = r#"{"future":{"x":[1]},"resourceSpans":[{"resource":null,"scopeSpans":[{"spans":[
        {"traceId":"49A51828322183EB20BFE4ACE3060000","spanId":"083E5D40259E7999","parentSpanId":"0000000000000000",
         "startTimeUnixNano":9,"endTimeUnixNano":"5","kind":"SPAN_KIND_PRODUCER","name":"a\u00e9","unknown":[{}],
         "status":{"code":"STATUS_CODE_ERROR","message":"no\n"},"traceState":"a=b","events":null,"links":null,
         "attributes":null,"droppedEventsCount":"3"},
        {"traceId":"49a51828322183eb20bfe4ace3060000","spanId":"083e5d40259e7999","parentSpanId":"",
         "startTimeUnixNano":"1e3","kind":"3","status":null,
         "events":[{"timeUnixNano":"7","name":"e\t","attributes":[{"key":"k","value":{"intValue":"1"}}]},{}],
         "links":[{"traceId":"","spanId":"083e5d40259e7999"}]}
    ]},{"scope":{},"spans":null}]}]}"#;
    let decoded =
        decode_spans_json(json.as_bytes(), &context.tenant, &context.registry, NOW, &context.limits).unwrap();
    assert_eq!(decoded.error_message(), "");
    let pair = |key: &str, value: &str| (key.to_owned(), value.to_owned());
    let ids = SpanRow {
        labels: "{}".into(),
        trace_id: "49a51828322183eb20bfe4ace3060000".into(),
        span_id: "083e5d40259e7999".into(),
        ..SpanRow::default()
    };
    let first = SpanRow {
        timestamp: 9,
        duration: -4,
        operation: "a\u{e9}".into(),
        kind: 4,
        status: 2,
        status_message: Some("no\n".into()),
        trace_state: Some("a=b".into()),
        attributes: vec![pair("otel.dropped_events_count", "3")],
        ..ids.clone()
    };
    let second = SpanRow {
        timestamp: 1000,
        kind: 3,
        events: vec![(7, "e\t".into(), vec![pair("k", "1")]), (0, String::new(), Vec::new())],
        links: vec![("00".repeat(16), "083e5d40259e7999".into(), None, Vec::new())],
        ..ids
    };
    assert_eq!(context.spans(&decoded), [first, second]);
}

/// The rejections, one a line.
pub fn lines(decoded: &Decoded<SpanBatch>) -> String {
    decoded.error_message().replace("; span", "\nspan")
}

/// Spans that OTLP forbids are named, their neighbours kept; both encodings say the same.
#[test]
fn bad_spans_are_rejected_alone() {
    let good = Span { trace_id: vec![1; 16], span_id: vec![2; 8], ..Span::default() };
    let spans = vec![
        Span { trace_id: Vec::new(), ..good.clone() },
        Span { trace_id: vec![0; 16], ..good.clone() },
        good.clone(),
        Span { trace_id: vec![1; 8], ..good.clone() },
        Span { span_id: vec![0; 8], ..good.clone() },
        Span { span_id: vec![1; 16], ..good.clone() },
        Span { parent_span_id: vec![1; 3], ..good.clone() },
        Span { start_time_unix_nano: 1 << 63, ..good.clone() },
        Span { attributes: vec![KeyValue::default(); 3], ..good.clone() },
        Span { events: vec![Event::default(); 4], ..good.clone() },
        Span { links: vec![Link::default(); 4], ..good.clone() },
        Span {
            events: vec![Event { attributes: vec![KeyValue::default(); 3], ..Event::default() }],
            ..good.clone()
        },
        Span { name: "too long".repeat(100), ..good.clone() },
        good,
    ];
    let scope_spans = vec![ScopeSpans { spans, ..ScopeSpans::default() }];
    let resource_spans = vec![ResourceSpans { scope_spans, ..ResourceSpans::default() }];
    let request = ExportTraceServiceRequest { resource_spans };
    let mut context = Context::default();
    context.limits.max_attributes_per_record = 2;
    context.limits.max_events_per_span = 3;
    context.limits.max_record_bytes = 700;
    let protobuf = request.encode_to_vec();
    let json = serde_json::to_vec(&request).unwrap();
    let Context { tenant, registry, limits } = &context;
    let of_protobuf = decode_spans_protobuf(&protobuf, tenant, registry, NOW, limits).unwrap();
    let of_json = decode_spans_json(&json, tenant, registry, NOW, limits).unwrap();
    assert_eq!(context.spans(&of_protobuf), context.spans(&of_json));
    expect![[r#"
        12 of 14 spans were rejected: span 1: a trace id is 16 bytes or 32 hex digits, not all zero; got length 0
        span 2: a trace id is 16 bytes or 32 hex digits, not all zero; got length 16
        span 4: a trace id is 16 bytes or 32 hex digits, not all zero; got length 8
        span 5: a span id is 8 bytes or 16 hex digits, not all zero; got length 8
        span 6: a span id is 8 bytes or 16 hex digits, not all zero; got length 16
        span 7: the parent's id: a span id is 8 bytes or 16 hex digits, not all zero; got length 3
        span 8: time 9223372036854775808 lies after the year 2262; send nanoseconds since 1970
        span 9: the span has more than 2 attributes; send fewer
        span 10: the span has more than 3 events; send fewer
        span 11: the span has more than 3 links; send fewer"#]].assert_eq(&lines(&of_protobuf));
    expect![[r#"
        12 of 14 spans were rejected: span 1: a trace id is 16 bytes or 32 hex digits, not all zero; got length 0
        span 2: a trace id is 16 bytes or 32 hex digits, not all zero; got length 32
        span 4: a trace id is 16 bytes or 32 hex digits, not all zero; got length 16
        span 5: a span id is 8 bytes or 16 hex digits, not all zero; got length 16
        span 6: a span id is 8 bytes or 16 hex digits, not all zero; got length 32
        span 7: the parent's id: a span id is 8 bytes or 16 hex digits, not all zero; got length 6
        span 8: time 9223372036854775808 lies after the year 2262; send nanoseconds since 1970
        span 9: the span has more than 2 attributes; send fewer
        span 10: the span has more than 3 events; send fewer
        span 11: the span has more than 3 links; send fewer"#]].assert_eq(&lines(&of_json));
}

#[test]
fn bad_span_json() {
    let check = |json: &str, want: Expect| {
        let context = Context::default();
        let Context { tenant, registry, limits } = &context;
        let text = match decode_spans_json(json.as_bytes(), tenant, registry, NOW, limits) {
            Err(error) => format!("{}: {error}", error.http_status()),
            Ok(decoded) => lines(&decoded),
        };
        want.assert_eq(&text);
    };
    check(
        r#"{"resourceSpans":{}}"#,
        expect!["400: the body is not valid JSON for this endpoint: expected an array at byte 17"],
    );
    check(
        r#"{"resourceSpans":[{"scopeSpans":[{"spans":[{]}]}]}"#,
        expect![
            "400: the body is not valid JSON for this endpoint: expected a member name in quotes at byte 44"
        ],
    );
    let spans = [
        "7",
        r#"{"traceId":7}"#,
        r#"{"traceId":"49a51828322183eb20bfe4ace306000g"}"#,
        r#"{"name":[]}"#,
        r#"{"kind":"SPAN_KIND_LOUD"}"#,
        r#"{"kind":{}}"#,
        r#"{"status":2}"#,
        r#"{"status":{"code":"BAD"}}"#,
        r#"{"events":{}}"#,
        r#"{"links":[7]}"#,
    ];
    let json = format!(r#"{{"resourceSpans":[{{"scopeSpans":[{{"spans":[{}]}}]}}]}}"#, spans.join(","));
    check(
        &json,
        expect![[r#"
        10 of 10 spans were rejected: span 1: the span is not an object
        span 2: traceId is not a string of hex digits
        span 3: a trace id is 16 bytes or 32 hex digits, not all zero; got length 32
        span 4: the span's name is not a string
        span 5: kind is neither an integer nor a kind that OTLP knows
        span 6: kind is neither an integer nor a kind that OTLP knows
        span 7: status is not an object
        span 8: the status code is neither an integer nor a code that OTLP knows
        span 9: events are not an array of objects
        span 10: links are not an array of objects"#]],
    );
}

#[test]
fn answers_are_read_by_prost_and_serde() {
    for (rejected, message) in [(0, ""), (3, "span 2: \"bad\"\n"), (0, "a warning")] {
        let want =
            ExportTracePartialSuccess { rejected_spans: rejected as i64, error_message: message.into() };
        let want = (rejected != 0 || !message.is_empty()).then_some(want);
        let protobuf = encode_traces_response(rejected, message, false);
        assert_eq!(ExportTraceServiceResponse::decode(&protobuf[..]).unwrap().partial_success, want);
        let json: serde_json::Value =
            serde_json::from_slice(&encode_traces_response(rejected, message, true)).unwrap();
        match want {
            None => assert_eq!(json, serde_json::json!({})),
            Some(_) => assert_eq!(
                json,
                serde_json::json!({"partialSuccess": {"rejectedSpans": rejected.to_string(), "errorMessage": message}})
            ),
        }
    }
}
