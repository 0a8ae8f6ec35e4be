//! Jaeger's Thrift over HTTP. The writer below follows Thrift's description of the binary protocol.

use expect_test::{Expect, expect};
use trine_protocols::jaeger::decode_batch_thrift;

use crate::{
    otlp_spans::lines,
    rows::{Context, NOW, SpanRow},
};

/// One field: type, number, value.
fn field(kind: u8, number: i16, value: &[u8]) -> Vec<u8> {
    [&[kind][..], &number.to_be_bytes(), value].concat()
}

fn text(number: i16, text: &[u8]) -> Vec<u8> {
    field(11, number, &[&(text.len() as i32).to_be_bytes(), text].concat())
}

fn long(number: i16, value: i64) -> Vec<u8> {
    field(10, number, &value.to_be_bytes())
}

fn int(number: i16, value: i32) -> Vec<u8> {
    field(8, number, &value.to_be_bytes())
}

fn structure(fields: &[Vec<u8>]) -> Vec<u8> {
    [fields.concat(), vec![0]].concat()
}

fn list(number: i16, structs: &[Vec<u8>]) -> Vec<u8> {
    field(15, number, &[&[12][..], &(structs.len() as i32).to_be_bytes(), &structs.concat()].concat())
}

fn tag(key: &str, value: &str) -> Vec<u8> {
    structure(&[text(1, key.as_bytes()), int(2, 0), text(3, value.as_bytes())])
}

fn reference(kind: i32, trace: i64, span: i64) -> Vec<u8> {
    structure(&[int(1, kind), long(2, trace), long(3, 9), long(4, span)])
}

/// A span of trace 9:1 with id 2.
fn span(more: &[Vec<u8>]) -> Vec<u8> {
    structure(&[long(1, 1), long(2, 9), long(3, 2), more.concat()])
}

fn process() -> Vec<u8> {
    let number = structure(&[text(1, b"pid"), int(2, 3), long(6, -7)]);
    field(12, 1, &structure(&[text(1, b"cart"), list(2, &[tag("hostname", "h1"), number])]))
}

pub fn batch(spans: &[Vec<u8>]) -> Vec<u8> {
    structure(&[process(), list(2, spans)])
}

/// A span with all there is.
pub fn full() -> Vec<u8> {
    span(&[
        text(5, "op é".as_bytes()),
        list(6, &[reference(1, 1, 5), reference(0, 8, 6), reference(0, 1, 3), reference(0, 1, 4)]),
        int(7, 3),
        long(8, 1_000),
        long(9, 20),
        list(
            10,
            &[
                tag("a", "b"),
                structure(&[text(1, b"d"), int(2, 1), field(4, 4, &0.25f64.to_be_bytes())]),
                structure(&[field(2, 5, &[1]), int(2, 2), text(1, b"t")]),
                structure(&[text(1, b"l"), int(2, 3), long(6, -9)]),
                structure(&[text(1, b"y"), int(2, 4), text(7, &[1, 2])]),
                tag("span.kind", "client"),
                structure(&[text(1, b"error"), int(2, 2), field(2, 5, &[1])]),
                tag("otel.status_description", "no"),
                tag("otel.scope.name", "lib"),
                tag("w3c.tracestate", "a=b"),
            ],
        ),
        list(11, &[structure(&[long(1, 1_010), list(2, &[tag("event", "retry"), tag("n", "2")])])]),
        // Unknown fields of every kind.
        field(2, 90, &[1]),
        field(3, 91, &[1]),
        field(6, 92, &[0, 1]),
        field(13, 93, &[11, 8, 0, 0, 0, 1, 0, 0, 0, 1, b'k', 0, 0, 0, 1]),
        field(14, 94, &[10, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 1]),
    ])
}

fn rows(bytes: &[u8]) -> Vec<SpanRow> {
    let context = Context::default();
    let Context { tenant, registry, limits } = &context;
    let decoded = decode_batch_thrift(bytes, tenant, registry, NOW, limits).unwrap();
    assert_eq!(decoded.error_message(), "");
    context.spans(&decoded)
}

fn pairs(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
    pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
}

/// The process may stand before the spans or behind them.
#[test]
fn a_span_arrives_whole() {
    let link = |trace: &str, span: &str, kind| {
        (
            format!("0000000000000009{trace:0>16}"),
            format!("{span:0>16}"),
            None,
            pairs(&[("opentracing.ref_type", kind)]),
        )
    };
    let want = SpanRow {
        labels: r#"{"host.name":"h1","pid":"-7","service.name":"cart"}"#.into(),
        timestamp: 1_000_000,
        duration: 20_000,
        trace_id: "00000000000000090000000000000001".into(),
        span_id: "0000000000000002".into(),
        parent: Some("0000000000000003".into()),
        operation: "op é".into(),
        kind: 3,
        status: 2,
        status_message: Some("no".into()),
        trace_state: Some("a=b".into()),
        flags: 1,
        scope_name: Some("lib".into()),
        attributes: pairs(&[("a", "b"), ("d", "0.25"), ("t", "true"), ("l", "-9"), ("y", "AQI=")]),
        events: vec![(1_010_000, "retry".into(), pairs(&[("n", "2")]))],
        links: vec![link("1", "5", "follows_from"), link("8", "6", "child_of"), link("1", "4", "child_of")],
    };
    assert_eq!(rows(&batch(&[full()])), std::slice::from_ref(&want));
    assert_eq!(rows(&structure(&[list(2, &[full()]), process()])), [want]);
}

#[test]
fn a_parent_that_is_given_is_the_parent() {
    let given = span(&[long(4, 7), list(6, &[reference(0, 1, 3), reference(0, 1, 7)])]);
    let rows = rows(&batch(&[given, span(&[])]));
    assert_eq!(rows[0].parent.as_deref(), Some("0000000000000007"));
    let links: Vec<_> = rows[0].links.iter().map(|link| &*link.1).collect();
    assert_eq!(links, ["0000000000000003"]);
    assert_eq!((rows[1].parent.as_deref(), rows[1].timestamp, rows[1].duration), (None, NOW, 0));
}

#[test]
fn bad_batches() {
    let check = |bytes: &[u8], want: Expect| {
        let context = Context::default();
        let Context { tenant, registry, limits } = &context;
        let text = match decode_batch_thrift(bytes, tenant, registry, NOW, limits) {
            Err(error) => format!("{}: {error}", error.http_status()),
            Ok(decoded) => format!("took {}\n{}", decoded.accepted, lines(&decoded)),
        };
        want.assert_eq(&text);
    };
    check(
        &[],
        expect![
            "400: the body is not a valid Thrift batch in the binary protocol: the message ends inside a value at byte 0"
        ],
    );
    check(
        &[0, 0],
        expect![
            "400: the body is not a valid Thrift batch in the binary protocol: bytes behind the end of the batch at byte 1"
        ],
    );
    check(
        &[7, 0, 1],
        expect![
            "400: the body is not a valid Thrift batch in the binary protocol: an unknown type at byte 3"
        ],
    );
    check(
        &field(15, 2, &[12, 0x7f, 0xff, 0xff, 0xff]),
        expect![
            "400: the body is not a valid Thrift batch in the binary protocol: a size that is more than what is left at byte 8"
        ],
    );
    check(
        &field(15, 2, &[12, 0xff, 0xff, 0xff, 0xff]),
        expect![
            "400: the body is not a valid Thrift batch in the binary protocol: a size that is more than what is left at byte 8"
        ],
    );
    check(
        &[12, 0, 9].repeat(40),
        expect![
            "400: the body is not a valid Thrift batch in the binary protocol: values are nested too deep at byte 99"
        ],
    );
    // A list of something else than structs is no list of spans.
    check(
        &structure(&[field(15, 2, &[8, 0, 0, 0, 1, 0, 0, 0, 7])]),
        expect![[r#"
        took 0
    "#]],
    );
    let spans = [
        structure(&[]),
        structure(&[long(1, 1), long(3, 0)]),
        span(&[text(5, b"\xff")]),
        span(&[list(10, &[structure(&[text(1, b"\xff")])])]),
        span(&[list(10, &[structure(&[int(2, 5)])])]),
        span(&[long(8, i64::MAX)]),
        full(),
    ];
    check(
        &batch(&spans),
        expect![[r#"
        took 1
        6 of 7 spans were rejected: span 1: the trace id or the span id is 0
        span 2: the trace id or the span id is 0
        span 3: the operation is not valid UTF-8; send text as UTF-8
        span 4: a tag's key is not valid UTF-8; send text as UTF-8
        span 5: a tag's type is none of STRING, DOUBLE, BOOL, LONG, BINARY
        span 6: 9223372036854775807 microseconds are more than 292 years; send microseconds"#]],
    );
    let process = field(12, 1, &structure(&[list(2, &vec![tag("a", "b"); 200])]));
    check(
        &structure(&[process, list(2, &spans)]),
        expect![[r#"
        took 0
        7 of 7 spans were rejected: span 1: the process has 200 tags, 128 are allowed; send some with the spans"#]],
    );
}
