//! What senders read when they send something bad.

use std::fmt::Write as _;

use expect_test::{Expect, expect};
use prost::Message as _;
use trine_protocols::Limits;

use crate::{
    loki::{EntryAdapter, PushRequest, StreamAdapter, Timestamp},
    robustness::decode,
    rows::Context,
};

fn check_limits(limits: Limits, which: &str, bytes: &[u8], want: Expect) {
    let context = Context { limits, ..Context::default() };
    let text = match decode(which, bytes, &context) {
        Err(error) => format!("{}: {error}", error.http_status()),
        Ok(decoded) => {
            let mut text = format!("took {}", decoded.accepted);
            write!(text, "\n{}", decoded.error_message()).unwrap();
            text
        }
    };
    want.assert_eq(&text);
}

fn check(which: &str, bytes: impl AsRef<[u8]>, want: Expect) {
    check_limits(Limits::default(), which, bytes.as_ref(), want);
}

#[test]
fn broken_protobuf() {
    let which = "otlp protobuf";
    check(
        which,
        [0x0a, 5, 0x12],
        expect![
            "400: the body is not a valid protobuf message: a field is longer than what is left at byte 2"
        ],
    );
    check(
        which,
        [0x80],
        expect!["400: the body is not a valid protobuf message: a varint that does not end at byte 0"],
    );
    check(
        which,
        [0xff; 11],
        expect!["400: the body is not a valid protobuf message: a varint of more than 64 bits at byte 0"],
    );
    check(
        which,
        [0x00],
        expect![
            "400: the body is not a valid protobuf message: a field number outside 1 to 536870911 at byte 0"
        ],
    );
    check(
        which,
        [0x0f],
        expect!["400: the body is not a valid protobuf message: an unknown wire type at byte 1"],
    );
    check(
        which,
        [0x0c],
        expect![
            "400: the body is not a valid protobuf message: the end of a group that was not begun at byte 1"
        ],
    );
    check(
        which,
        [0x0b, 0x08],
        expect!["400: the body is not a valid protobuf message: a varint that does not end at byte 2"],
    );
    check(
        which,
        [0x0a, 4, 0x12, 2, 0x12, 1],
        expect![
            "400: the body is not a valid protobuf message: a field is longer than what is left at byte 6"
        ],
    );
    // Unknown fields of every wire type, a group among them.
    check(
        which,
        [0x78, 1, 0x7a, 1, 0, 0x7b, 0x08, 1, 0x7c, 0x7d, 0, 0, 0, 0, 0x79, 0, 0, 0, 0, 0, 0, 0, 0],
        expect![[r#"
            took 0
        "#]],
    );
}

/// An OTLP request of one scope with these encoded records.
fn records(records: &[&[u8]]) -> Vec<u8> {
    let field = |number: u8, bytes: &[u8]| {
        let mut field = vec![number << 3 | 2];
        prost::encoding::encode_varint(bytes.len() as u64, &mut field);
        field.extend_from_slice(bytes);
        field
    };
    let records: Vec<u8> = records.iter().flat_map(|record| field(2, record)).collect();
    field(1, &field(2, &records))
}

#[test]
fn bad_records_of_otlp_protobuf_are_rejected_alone() {
    let bad: [&[u8]; 8] = [
        &[0x2a, 3, 0x0a, 1, 0xff],          // body not UTF-8
        &[0x1a, 1, 0xff],                   // severity_text
        &[0x62, 1, 0xff],                   // event_name
        &[0x32, 3, 0x0a, 1, 0xff],          // attribute key
        &[0x32, 5, 0x12, 3, 0x0a, 1, 0xff], // attribute value
        &[0x09, 0, 0, 0, 0, 0, 0, 0, 0x80], // after 2262
        &[0x4a, 2, 1, 2],                   // a trace id of 2 bytes is no fault
        &[0x32, 0, 0x32, 0, 0x32, 0],       // too many attributes, below
    ];
    let limits = Limits { max_attributes_per_record: 2, ..Limits::default() };
    check_limits(
        limits,
        "otlp protobuf",
        &records(&bad),
        expect![[r#"
        took 1
        7 of 8 records were rejected: record 1: the body is not valid UTF-8; send text as UTF-8 or bytes_value; record 2: severity_text is not valid UTF-8; send text as UTF-8; record 3: event_name is not valid UTF-8; send text as UTF-8; record 4: an attribute key is not valid UTF-8; send text as UTF-8; record 5: an attribute value is not valid UTF-8; send text as UTF-8 or bytes_value; record 6: time 9223372036854775808 lies after the year 2262; send nanoseconds since 1970; record 8: the record has more than 2 attributes; send fewer"#]],
    );
}

#[test]
fn nesting_beyond_the_bound_rejects_the_record() {
    // array(array(array(…))) as protobuf and JSON.
    let mut value = vec![0x0a, 1, b'x'];
    let mut json = r#"{"stringValue":"x"}"#.to_owned();
    for _ in 0..3 {
        let array = [&[0x0a, value.len() as u8], &value[..]].concat();
        value = [&[0x2a, array.len() as u8], &array[..]].concat();
        json = format!(r#"{{"arrayValue":{{"values":[{json}]}}}}"#);
    }
    let body = [&[0x2a, value.len() as u8], &value[..]].concat();
    let json = format!(r#"{{"resourceLogs":[{{"scopeLogs":[{{"logRecords":[{{"body":{json}}}]}}]}}]}}"#);
    for (max_depth, want) in [
        (
            3,
            [
                expect![[r#"
        took 1
    "#]],
                expect![[r#"
        took 1
    "#]],
            ],
        ),
        (
            2,
            [
                expect![[r#"
        took 0
        1 of 1 records were rejected: record 1: a value is nested too deep; flatten it"#]],
                expect![[r#"
        took 0
        1 of 1 records were rejected: record 1: a value is nested too deep; flatten it"#]],
            ],
        ),
    ] {
        let limits = || Limits { max_depth, ..Limits::default() };
        let [first, second] = want;
        check_limits(limits(), "otlp protobuf", &records(&[&body]), first);
        check_limits(limits(), "otlp json", json.as_bytes(), second);
    }
}

#[test]
fn bad_otlp_json() {
    let which = "otlp json";
    check(
        which,
        "",
        expect!["400: the body is not valid JSON for this endpoint: expected an object at byte 0"],
    );
    check(
        which,
        "[]",
        expect!["400: the body is not valid JSON for this endpoint: expected an object at byte 0"],
    );
    check(
        which,
        r#"{"resourceLogs":{}}"#,
        expect!["400: the body is not valid JSON for this endpoint: expected an array at byte 16"],
    );
    check(
        which,
        r#"{"resourceLogs":[1]}"#,
        expect!["400: the body is not valid JSON for this endpoint: expected an object at byte 17"],
    );
    check(
        which,
        r#"{"resourceLogs":[{"resource":7}]}"#,
        expect!["400: the body is not valid JSON for this endpoint: expected a resource object at byte 29"],
    );
    check(
        which,
        r#"{"resourceLogs":[]} x"#,
        expect![
            "400: the body is not valid JSON for this endpoint: text after the end of the value at byte 20"
        ],
    );
    check(
        which,
        b"{\"resourceLogs\":\"\xff\"}",
        expect!["400: the body is not valid JSON for this endpoint: bytes that are not UTF-8 at byte 17"],
    );
    let records = [
        r#"{"timeUnixNano":"soon"}"#,
        r#"{"timeUnixNano":-1}"#,
        r#"{"timeUnixNano":"18446744073709551615"}"#,
        r#"{"severityNumber":"SEVERITY_NUMBER_LOUD"}"#,
        r#"{"severityText":1}"#,
        r#"{"body":"text"}"#,
        r#"{"body":{"intValue":1.5}}"#,
        r#"{"body":{"stringValue":1}}"#,
        r#"{"attributes":{}}"#,
        r#"{"attributes":[1]}"#,
        r#"{"flags":4294967296}"#,
        "7",
        r#"{"body":{"stringValue":"good"}}"#,
    ];
    for part in records.chunks(7) {
        let json = format!(r#"{{"resourceLogs":[{{"scopeLogs":[{{"logRecords":[{}]}}]}}]}}"#, part.join(","));
        let want = if part.len() == 7 {
            expect![[r#"
            took 0
            7 of 7 records were rejected: record 1: a time is not an unsigned integer of nanoseconds since 1970; record 2: a time is not an unsigned integer of nanoseconds since 1970; record 3: time 18446744073709551615 lies after the year 2262; send nanoseconds since 1970; record 4: severityNumber is a name that OTLP does not know; record 5: severityText is not a string; record 6: a value is not an AnyValue object like {"stringValue":"…"}; record 7: an intValue is not a 64-bit integer"#]]
        } else {
            expect![[r#"
            took 1
            5 of 6 records were rejected: record 1: a value does not fit its kind, like {"intValue":true}; record 2: attributes are not an array; record 3: an attribute is not an object like {"key":"…","value":{…}}; record 4: flags are not an unsigned 32-bit integer; record 5: the record is not an object"#]]
        };
        check(which, json, want);
    }
}

#[test]
fn resources_and_scopes_beyond_the_limits_reject_their_records() {
    let limits = || Limits {
        max_labels_per_stream: 2,
        max_label_name_bytes: 5,
        max_label_value_bytes: 5,
        max_scope_bytes: 60,
        ..Limits::default()
    };
    let request = |resource: &str, scope: &str| {
        let pair = |pair: &str| {
            let (key, value) = pair.split_once('=').unwrap();
            format!(r#"{{"key":"{key}","value":{{"stringValue":"{value}"}}}}"#)
        };
        let list = |text: &str| {
            text.split(',').filter(|part| !part.is_empty()).map(pair).collect::<Vec<_>>().join(",")
        };
        format!(
            r#"{{"resourceLogs":[{{"resource":{{"attributes":[{}]}},"scopeLogs":[{{"scope":{{"attributes":[{}]}},"logRecords":[{{}},{{}}]}}]}},{{"scopeLogs":[{{"logRecords":[{{}}]}}]}}]}}"#,
            list(resource),
            list(scope)
        )
    };
    let check = |resource, scope, want| {
        check_limits(limits(), "otlp json", request(resource, scope).as_bytes(), want);
    };
    check(
        "a=1,b=2,c=3",
        "",
        expect![[r#"
        took 1
        2 of 3 records were rejected: record 1: the stream has more than 2 labels; send some as attributes"#]],
    );
    check(
        "toolong=1",
        "",
        expect![[r#"
        took 1
        2 of 3 records were rejected: record 1: label name "toolong"… has 7 bytes, 5 are allowed; shorten it"#]],
    );
    check(
        "a=toolong",
        "",
        expect![[r#"
        took 1
        2 of 3 records were rejected: record 1: the value of label "a" has 7 bytes, 5 are allowed; send it as an attribute"#]],
    );
    check(
        "=1",
        "",
        expect![[r#"
        took 1
        2 of 3 records were rejected: record 1: a resource attribute has no key; name it"#]],
    );
    check(
        "a=1,a=2",
        "",
        expect![[r#"
        took 1
        2 of 3 records were rejected: record 1: label "a" is given twice with different values; send each label once"#]],
    );
    check(
        "a=1",
        "x=1,y=2222222222222222222222222",
        expect![[r#"
        took 1
        2 of 3 records were rejected: record 1: the instrumentation scope has more than 60 bytes; send some as resource attributes"#]],
    );
}

#[test]
fn bad_loki_pushes() {
    let which = "loki json";
    check(
        which,
        r#"{"streams":7}"#,
        expect!["400: the body is not valid JSON for this endpoint: expected an array at byte 11"],
    );
    check(
        which,
        r#"{"streams":[{"stream":"{}"}]}"#,
        expect![
            "400: the body is not valid JSON for this endpoint: a stream's labels are not an object at byte 26"
        ],
    );
    check(
        which,
        r#"{"streams":[{"stream":{},"values":[["1","a"],["2","b"]]},{"stream":{"a":"b"},"values":[["x","a"],["1"],["1",2],{},["1","a",[]],["1","good"]]},{"values":[["1","a"]]}]}"#,
        expect![[r#"
            took 1
            8 of 9 records were rejected: record 1: the stream has no labels; send at least one; record 3: time "x" is not an integer of nanoseconds since 1970; record 4: the entry is not ["nanoseconds", "line"] or ["nanoseconds", "line", {…}]; record 5: the entry is not ["nanoseconds", "line"] or ["nanoseconds", "line", {…}]; record 6: the entry is not ["nanoseconds", "line"] or ["nanoseconds", "line", {…}]; record 7: the entry's structured metadata are not an object; record 9: the stream has no labels; send at least one"#]],
    );
    let entry = |seconds| EntryAdapter {
        timestamp: Some(Timestamp { seconds, nanos: 5 }),
        line: "x".into(),
        ..Default::default()
    };
    let stream = |labels: &str, seconds| StreamAdapter {
        labels: labels.into(),
        entries: vec![entry(seconds)],
        hash: 0,
    };
    let streams = vec![
        stream("{a=\"b\"}", 1),
        stream("{}", 1),
        stream("{a=\"b\"", 1),
        stream("{a=\"b\"}", i64::MAX),
        stream("{a=\"1\",a=\"2\"}", 1),
    ];
    check(
        "loki protobuf",
        PushRequest { streams }.encode_to_vec(),
        expect![[r#"
        took 1
        4 of 5 records were rejected: record 2: the stream has no labels; send at least one; record 3: stream labels "{a=\"b\"" are broken at byte 6: expected , or } after a value; record 4: the time lies outside the years 1677 to 2262; send nanoseconds since 1970; record 5: label "a" is given twice with different values; send each label once"#]],
    );
    // The line's byte is made invalid.
    let mut bytes = PushRequest { streams: vec![stream("{a=\"b\"}", 1)] }.encode_to_vec();
    let at = bytes.iter().position(|byte| *byte == b'x').unwrap();
    bytes[at] = 0xff;
    check(
        "loki protobuf",
        bytes,
        expect![[r#"
        took 0
        1 of 1 records were rejected: record 1: the line is not valid UTF-8; send text as UTF-8"#]],
    );
}

#[test]
fn requests_beyond_the_limits_are_refused_whole() {
    let limits = Limits { max_records: 2, ..Limits::default() };
    check_limits(
        limits.clone(),
        "otlp protobuf",
        &records(&[&[], &[], &[]]),
        expect!["413: the request holds more than 2 records; send smaller batches"],
    );
    check_limits(
        limits,
        "json lines",
        b"{}\n{}\n{}",
        expect!["413: the request holds more than 2 records; send smaller batches"],
    );
    // A scope of 5,000 bytes repeated in 100 records.
    let record = vec!["{}"; 100].join(",");
    let json = format!(
        r#"{{"resourceLogs":[{{"scopeLogs":[{{"scope":{{"name":"{}"}},"logRecords":[{record}]}}]}}]}}"#,
        "s".repeat(5000)
    );
    let limits = Limits { max_expanded_bytes: 400_000, ..Limits::default() };
    check_limits(
        limits,
        "otlp json",
        json.as_bytes(),
        expect!["413: the request grows to more than 400000 bytes of text; send smaller batches"],
    );
    let limits = Limits { max_record_bytes: 20, ..Limits::default() };
    check_limits(
        limits,
        "json lines",
        b"{\"msg\":\"much too long\"}\n{}",
        expect![[r#"
        took 1
        1 of 2 records were rejected: record 1: the record has 23 bytes, 20 are allowed; shorten it"#]],
    );
}
