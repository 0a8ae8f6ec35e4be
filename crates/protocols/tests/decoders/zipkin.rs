//! Zipkin v2 JSON.

use expect_test::{Expect, expect};
use trine_protocols::zipkin::decode_spans;

use crate::{
    otlp_spans::lines,
    rows::{Context, NOW, SpanRow},
};

fn rows(json: &str) -> Vec<SpanRow> {
    let context = Context::default();
    let Context { tenant, registry, limits } = &context;
    let decoded = decode_spans(json.as_bytes(), tenant, registry, NOW, limits).unwrap();
    assert_eq!(decoded.error_message(), "");
    context.spans(&decoded)
}

fn pairs(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
    pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
}

/// The example of Zipkin's API description, with a word or two more.
#[test]
fn a_span_arrives_whole() {
    let json = r#"[{"id":"352bff9a74ca9ad2","traceId":"5AF7183FB1D4CF5F","parentId":"6b221d5bc9e6496c",
        "name":"get /api \u00e9","timestamp":1556604172355737,"duration":1431,"kind":"SERVER",
        "localEndpoint":{"serviceName":"backend","ipv4":"192.168.99.1","port":3306},
        "remoteEndpoint":{"serviceName":"front\"end","ipv6":"2001:db8::1","port":58648},
        "annotations":[{"timestamp":1556604172355800,"value":"ws"},{"value":"wr\n","timestamp":1556604172355900}],
        "tags":{"http.method":"GET","otel.scope.name":"lib","w3c.tracestate":"a=b","n":7,"no":null},
        "shared":true,"debug":true}]"#;
    let want = SpanRow {
        labels: r#"{"service.name":"backend"}"#.into(),
        timestamp: 1_556_604_172_355_737_000,
        duration: 1_431_000,
        trace_id: "00000000000000005af7183fb1d4cf5f".into(),
        span_id: "352bff9a74ca9ad2".into(),
        parent: Some("6b221d5bc9e6496c".into()),
        operation: "get /api é".into(),
        kind: 2,
        scope_name: Some("lib".into()),
        trace_state: Some("a=b".into()),
        attributes: pairs(&[
            ("http.method", "GET"),
            ("n", "7"),
            ("peer.service", "front\"end"),
            ("net.host.ip", "192.168.99.1"),
            ("net.host.port", "3306"),
            ("net.peer.ip", "2001:db8::1"),
            ("net.peer.port", "58648"),
            ("zipkin.shared", "true"),
            ("zipkin.debug", "true"),
        ]),
        events: vec![
            (1_556_604_172_355_800_000, "ws".into(), Vec::new()),
            (1_556_604_172_355_900_000, "wr\n".into(), Vec::new()),
        ],
        ..SpanRow::default()
    };
    assert_eq!(rows(json), [want]);
}

/// Spans of several services in turn get their own streams; times may be missing.
#[test]
fn services_and_times() {
    let span = |members: &str| format!(r#"{{"traceId":"1","id":"2"{members}}}"#);
    let json = [
        span(r#","localEndpoint":{"serviceName":"a"}"#),
        span(
            r#","localEndpoint":{"serviceName":"b"},"annotations":[{"timestamp":9,"value":"x"},{"timestamp":8,"value":"y"}]"#,
        ),
        span(r#","localEndpoint":{"serviceName":"a"},"timestamp":3,"duration":2"#),
        span(r#","localEndpoint":null,"parentId":"0000000000000002","kind":null"#),
        span(r#","parentId":"000000000000000","tags":null,"annotations":null"#),
    ];
    let rows = rows(&format!("[{}]", json.join(",")));
    let seen: Vec<_> =
        rows.iter().map(|row| (&*row.labels, row.timestamp, row.duration, row.parent.is_some())).collect();
    let (a, b) = (r#"{"service.name":"a"}"#, r#"{"service.name":"b"}"#);
    assert_eq!(
        seen,
        [
            (a, NOW, 0, false),
            (b, 8000, 0, false),
            (a, 3000, 2000, false),
            ("{}", NOW, 0, false),
            ("{}", NOW, 0, false)
        ]
    );
    assert_eq!(
        (&*rows[0].trace_id, &*rows[0].span_id),
        ("00000000000000000000000000000001", "0000000000000002")
    );
}

#[test]
fn kind_and_status_come_from_tags() {
    let cases = [
        (r#""tags":{"error":"true"}"#, (0, 2, None, 0)),
        (r#""tags":{"error":""}"#, (0, 2, None, 0)),
        (r#""tags":{"error":"it\tbroke"}"#, (0, 2, Some("it\tbroke"), 0)),
        (r#""tags":{"error":"false"}"#, (0, 0, None, 1)),
        (
            r#""tags":{"error":"x","otel.status_description":"y","otel.status_code":"OK"}"#,
            (0, 2, Some("y"), 0),
        ),
        (r#""tags":{"otel.status_code":"STATUS_CODE_ERROR"}"#, (0, 2, None, 0)),
        (r#""tags":{"otel.status_code":"OK"}"#, (0, 1, None, 0)),
        (r#""tags":{"otel.status_code":"odd"}"#, (0, 0, None, 1)),
        (r#""tags":{"span.kind":"internal"}"#, (1, 0, None, 0)),
        (r#""kind":"CLIENT","tags":{"span.kind":"internal"}"#, (3, 0, None, 0)),
        (r#""kind":"PRODUCER""#, (4, 0, None, 0)),
        (r#""kind":"CONSUMER""#, (5, 0, None, 0)),
    ];
    for (members, want) in cases {
        let rows = rows(&format!(r#"[{{"traceId":"1","id":"2",{members}}}]"#));
        let row = &rows[0];
        assert_eq!(
            (row.kind, row.status, row.status_message.as_deref(), row.attributes.len()),
            want,
            "{members}"
        );
    }
}

#[test]
fn bad_spans() {
    let check = |json: &str, want: Expect| {
        let context = Context::default();
        let Context { tenant, registry, limits } = &context;
        let text = match decode_spans(json.as_bytes(), tenant, registry, NOW, limits) {
            Err(error) => format!("{}: {error}", error.http_status()),
            Ok(decoded) => format!("took {}\n{}", decoded.accepted, lines(&decoded)),
        };
        want.assert_eq(&text);
    };
    check("{}", expect!["400: the body is not valid JSON for this endpoint: expected an array at byte 0"]);
    check(
        r#"[{"traceId":"1"}"#,
        expect!["400: the body is not valid JSON for this endpoint: expected , or ] in an array at byte 16"],
    );
    check(
        "[]",
        expect![[r#"
        took 0
    "#]],
    );
    let spans = [
        "7",
        r#"{"id":"1"}"#,
        r#"{"traceId":"0","id":"1"}"#,
        r#"{"traceId":"1","id":"00000000000000001"}"#,
        r#"{"traceId":"1x","id":"1"}"#,
        r#"{"traceId":"1","id":"2"}"#,
        r#"{"traceId":"1","id":"2","parentId":"z"}"#,
        r#"{"traceId":"1","id":"2","kind":"LOUD"}"#,
        r#"{"traceId":"1","id":"2","timestamp":-5}"#,
    ];
    check(
        &format!("[{}]", spans.join(",")),
        expect![[r#"
            took 1
            8 of 9 spans were rejected: span 1: the span is not an object
            span 2: traceId is not 1 to 32 hex digits
            span 3: traceId is all zero
            span 4: id is not 1 to 16 hex digits
            span 5: traceId is not 1 to 32 hex digits
            span 7: parentId is not 1 to 16 hex digits
            span 8: kind is none of CLIENT, SERVER, PRODUCER, CONSUMER
            span 9: timestamp is not an integer of microseconds"#]],
    );
    let spans = [
        r#"{"traceId":"1","id":"2","timestamp":9223372036854775807}"#,
        r#"{"traceId":"1","id":"2","tags":{"a":[]}}"#,
        r#"{"traceId":"1","id":"2","tags":[]}"#,
        r#"{"traceId":"1","id":"2","annotations":[7]}"#,
        r#"{"traceId":"1","id":"2","localEndpoint":"a"}"#,
    ];
    check(
        &format!("[{}]", spans.join(",")),
        expect![[r#"
        took 0
        5 of 5 spans were rejected: span 1: 9223372036854775807 microseconds are more than 292 years; send microseconds
        span 2: tags are not an object of strings
        span 3: tags are not an object of strings
        span 4: annotations are not an array of objects with timestamp and value
        span 5: an endpoint is not an object with serviceName, ipv4, ipv6 and port"#]],
    );
}
