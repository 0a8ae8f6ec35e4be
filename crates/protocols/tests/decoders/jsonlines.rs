//! JSON lines by example.

use expect_test::{Expect, expect};
use trine_protocols::jsonlines::{FieldNames, decode};

use crate::rows::{Context, NOW, Row};

/// Rows in short form: what differs from an empty row at the time of arrival.
fn check(query: &[(&str, &str)], lines: &str, want: Expect) {
    let context = Context::default();
    let fields = FieldNames::from_query(query.iter().copied()).unwrap();
    let decoded =
        decode(lines.as_bytes(), &fields, &context.tenant, &context.registry, NOW, &context.limits).unwrap();
    let mut text = String::new();
    for row in context.rows(&decoded) {
        let Row { labels, timestamp, severity, severity_text, body, trace_id, span_id, attributes, .. } = row;
        let time = if timestamp == NOW { "now".into() } else { timestamp.to_string() };
        text += &format!("{labels} {time} {severity} {}| {body}", severity_text.unwrap_or_default());
        for id in [trace_id, span_id].into_iter().flatten() {
            text += &format!(" #{id}");
        }
        for (key, value) in attributes {
            text += &format!(" {key}={value:?}");
        }
        text.push('\n');
    }
    text += &decoded.error_message();
    want.assert_eq(&text);
}

#[test]
fn default_names() {
    check(
        &[],
        concat!(
            r#"{"time":"2023-01-29T12:00:00.5+01:00","msg":"hi \"you\"","level":"warning","service":"cart","n":1.50}"#,
            "\r\n\n  \n",
            r#"{"ts":1674993600123,"_msg":"x","a":{"b":{"c":[1, 2],"d":null},"e":true},"trace_id":"49a51828322183eb20bfe4ace3060000","span_id":"nope"}"#,
            "\n",
            r#"{"lvl":"loud","k\u0065y":"v\n"}"#,
        ),
        expect![[r#"
            {"service":"cart"} 1674990000500000000 13 warning| hi "you" n="1.50"
            {} 1674993600123000000 0 | x #49a51828322183eb20bfe4ace3060000 a.b.c="[1, 2]" a.e="true" span_id="nope"
            {} now 0 | {"lvl":"loud","k\u0065y":"v\n"} lvl="loud" key="v\n"
        "#]],
    );
}

#[test]
fn the_first_name_of_a_list_wins_and_losers_stay_attributes() {
    check(
        &[],
        r#"{"log":"c","message":"b","_msg":"a","time":1,"_time":2}"#,
        expect![[r#"
        {} 2000000000 0 | a log="c" message="b" time="1"
    "#]],
    );
}

#[test]
fn named_fields_of_a_query() {
    check(
        &[
            ("_time_field", "when.at"),
            ("_msg_field", "text,_msg"),
            ("_stream_fields", "k.pod, level"),
            ("other", "x"),
        ],
        r#"{"when":{"at":0},"text":{"a":1},"k":{"pod":"p-1"},"level":"info","msg":"m"}
{"k.pod":"p-1","text":7,"level":"info","when":{"at":1674993600}}"#,
        expect![[r#"
            {"k.pod":"p-1","level":"info"} now 9 info| {"when":{"at":0},"text":{"a":1},"k":{"pod":"p-1"},"level":"info","msg":"m"} text.a="1" msg="m"
            {"k.pod":"p-1","level":"info"} 1674993600000000000 9 info| 7
        "#]],
    );
}

#[test]
fn bad_lines_are_named_and_good_ones_kept() {
    check(
        &[],
        "{\"msg\":\"ok\"}\n[1]\n\n{\"msg\":\"x\",}\n{\"time\":\"yesterday\"}\n{\"msg\":\"fine\"} x\n{\"msg\":\"ok too\"}\nhello",
        expect![[r#"
            {} now 0 | ok
            {} now 0 | ok too
            5 of 7 records were rejected: record 2: the line is not a JSON object; record 4: not valid JSON: expected a member name in quotes at byte 11 of the line; record 5: field "time" holds "yesterday", which is no time; send RFC 3339 or a number since 1970; record 6: not valid JSON: text after the end of the value at byte 15 of the line; record 8: the line is not a JSON object"#]],
    );
}

#[test]
fn a_line_that_is_not_utf8_does_not_hurt_its_neighbours() {
    let context = Context::default();
    let decoded = decode(
        b"{\"msg\":\"a\"}\n{\"msg\":\"\xff\"}\n{\"msg\":\"\xc3\xa9\"}",
        &FieldNames::default(),
        &context.tenant,
        &context.registry,
        NOW,
        &context.limits,
    )
    .unwrap();
    let bodies: Vec<_> = context.rows(&decoded).into_iter().map(|row| row.body).collect();
    assert_eq!(bodies, ["a", "é"]);
    assert_eq!(
        decoded.error_message(),
        "1 of 3 records were rejected: record 2: the line is not valid UTF-8; send text as UTF-8"
    );
}

#[test]
fn a_list_has_a_bound() {
    let list = "a,".repeat(65);
    let error = FieldNames::from_query([("stream", list.as_str())]).unwrap_err();
    assert_eq!(error.to_string(), "parameter \"stream\" names more than 64 fields; name fewer");
    assert_eq!(FieldNames::from_query([("stream", "")]).unwrap().stream, Vec::<String>::new());
}
