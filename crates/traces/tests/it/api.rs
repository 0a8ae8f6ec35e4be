//! Guarantee: every route answers what its API promises, over tables that know nothing of traces but spans.

use std::{future::Future, sync::Arc};

use expect_test::{Expect, expect};
use futures::executor::block_on;
use proptest::prelude::*;
use serde_json::Value as Json;
use trine_model::TenantId;
use trine_schema::ScanStats;
use trine_traces::{
    Budget,
    api::{Answer, Question, Request, answer},
};

use crate::{
    memory::Memory,
    spans::{MS, Row, Spans, T0, row},
};

/// Three traces of a shop: a checkout that fails after 40 ms, and two quick visits.
fn shop() -> Memory {
    let mut spans = Spans::new();
    let tagged = [("http.response.status_code", "500"), ("user", "7")];
    spans.push(Row { kind: 2, ..row("frontend", "POST /checkout", 1, 0, 0, 40 * MS) });
    spans.push(Row {
        kind: 3,
        attributes: &tagged,
        status: (2, "card"),
        ..row("frontend", "charge", 2, 1, MS, 30 * MS)
    });
    spans.push(Row { kind: 2, attributes: &tagged[..1], ..row("payment", "charge", 3, 2, 2 * MS, 20 * MS) });
    let first = spans.batch();
    for trace in [2, 3] {
        let visit = row("frontend", "GET /", 10 * trace as u64, 0, 1_000 * trace as i64 * MS, 5 * MS);
        spans.push(Row { trace, kind: 2, attributes: &[("user", "8")], ..visit });
        let part = row("catalog", "list", 10 * trace as u64 + 1, 10 * trace as u64, visit.start + MS, MS);
        spans.push(Row { trace, ..part });
    }
    let batches = vec![first, spans.batch()];
    Memory { registry: spans.registry, batches }
}

fn ask(question: Question, parameters: &[(&str, &str)]) -> Answer {
    let request = Request {
        question,
        tenant: TenantId::default(),
        parameters: parameters.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect(),
        accept: String::new(),
        now: T0 + 10_000 * MS,
    };
    let budget = Budget { deadline: None, memory_limit: Some(1 << 24), stats: Arc::default() };
    let tables = shop();
    block_on(sendable(answer(&tables, &request, &budget)))
}

/// The server runs answers on other threads.
fn sendable<F: Future + Send>(future: F) -> F {
    future
}

fn json(question: Question, parameters: &[(&str, &str)]) -> Json {
    let answer = ask(question, parameters);
    let text = String::from_utf8(answer.body).unwrap();
    assert_eq!((answer.status, answer.content_type), (200, "application/json"), "{text}");
    serde_json::from_str(&text).unwrap()
}

fn check(question: Question, parameters: &[(&str, &str)], want: &Expect) {
    want.assert_eq(&format!("{:#}\n", json(question, parameters)));
}

fn check_line(question: Question, parameters: &[(&str, &str)], want: &Expect) {
    let answer = ask(question, parameters);
    want.assert_eq(&format!("{} {}", answer.status, String::from_utf8(answer.body).unwrap().trim_end()));
}

/// Ids of the traces that Tempo's search finds, as numbers.
fn found(parameters: &[(&str, &str)]) -> Vec<u64> {
    let answer = json(Question::TempoSearch, parameters);
    let id = |trace: &Json| u64::from_str_radix(trace["traceID"].as_str().unwrap(), 16).unwrap();
    answer["traces"].as_array().unwrap().iter().map(id).collect()
}

/// The same for Jaeger's.
fn jaeger_found(parameters: &[(&str, &str)]) -> Vec<u64> {
    let answer = json(Question::JaegerTraces, parameters);
    let id = |trace: &Json| u64::from_str_radix(trace["traceID"].as_str().unwrap(), 16).unwrap();
    answer["data"].as_array().unwrap().iter().map(id).collect()
}

#[test]
fn a_trace_is_found_by_its_id_however_it_is_written() {
    for id in ["1", "0001", "00000000000000000000000000000001"] {
        let answer = json(Question::Trace(id.into()), &[]);
        assert_eq!(answer["resourceSpans"].as_array().unwrap().len(), 2);
        assert!(json(Question::TempoTrace(id.into()), &[])["batches"].is_array());
        assert!(json(Question::TempoTraceV2(id.into()), &[])["trace"]["resourceSpans"].is_array());
    }
    // Its spans do not start in this second.
    let elsewhere = [("start", "1674982160"), ("end", "1674982161")];
    assert_eq!(ask(Question::TempoTrace("1".into()), &elsewhere).status, 404);
}

#[test]
fn what_is_not_there_or_no_id_is_told_in_each_apis_form() {
    let not_found = "404 trace 000000000000000000000000000000ff is not found; it may not have arrived yet, or its retention is over";
    for question in [Question::Trace("ff".into()), Question::TempoTrace("ff".into())] {
        let answer = ask(question, &[]);
        assert_eq!(
            format!("{} {}", answer.status, String::from_utf8(answer.body).unwrap().trim_end()),
            not_found
        );
    }
    // Whether it is there cannot be known where data is damaged.
    let stats: Arc<ScanStats> = Arc::default();
    stats.partial.lock().push("segment 7 is in quarantine".into());
    let budget = Budget { deadline: None, memory_limit: None, stats };
    let request = Request {
        question: Question::Trace("ff".into()),
        tenant: TenantId::default(),
        parameters: Vec::new(),
        accept: String::new(),
        now: T0,
    };
    let told = block_on(answer(&shop(), &request, &budget));
    assert_eq!(told.status, 404);
    let text = String::from_utf8(told.body).unwrap();
    let end = "is not found in what can be read; it may lie in what cannot: segment 7 is in quarantine\n";
    assert!(text.ends_with(end), "{text}");
    check_line(Question::TempoTraceV2("ff".into()), &[], &expect![[r#"200 {"trace":{},"metrics":{}}"#]]);
    check_line(
        Question::JaegerTrace("ff".into()),
        &[],
        &expect![[
            r#"404 {"data":null,"errors":[{"code":404,"msg":"trace 000000000000000000000000000000ff is not found; it may not have arrived yet, or its retention is over"}],"limit":0,"offset":0,"total":0}"#
        ]],
    );
    check_line(
        Question::TempoTrace("xyz".into()),
        &[],
        &expect![[
            r#"400 "xyz" is no trace id; give 1 to 32 hex digits (leading zeros may be missing), not all of them zero"#
        ]],
    );
    check_line(
        Question::TempoSearch,
        &[("limit", "-3")],
        &expect![[r#"400 limit="-3" is no whole number from 1 to 10000"#]],
    );
    check_line(
        Question::TempoSearch,
        &[("tags", "a=\"b")],
        &expect![[
            r#"400 tags="a=\"b" is no logfmt: at byte 2: a quoted value has no end or a wrong escape"#
        ]],
    );
    check_line(
        Question::TempoSearch,
        &[("q", "{ name =~ \"a\" }")],
        &expect![[
            r#"400 q="{ name =~ \"a\" }" at byte 10: the operator =~ is not understood here; understood is one { … } with conditions joined by &&, each `field = value`, or `duration` (also `traceDuration`) with =, >, >=, < or <= and a value such as 1.5s"#
        ]],
    );
    check_line(
        Question::TempoSearch,
        &[("q", "{}"), ("tags", "a=b")],
        &expect![[r#"400 q="{}" cannot stand beside tags; write all conditions in one of them"#]],
    );
    check_line(
        Question::TempoSearch,
        &[("minDuration", "2s"), ("maxDuration", "1s")],
        &expect![[r#"400 maxDuration="1s" is shorter than minDuration; swap them"#]],
    );
    check_line(
        Question::TempoTags,
        &[("scope", "trace")],
        &expect![[r#"400 scope="trace" is no scope; give resource, span, intrinsic or none"#]],
    );
    check_line(
        Question::JaegerTraces,
        &[],
        &expect![[
            r#"400 {"data":null,"errors":[{"code":400,"msg":"service=\"\" is missing; name a service, or traces with traceID"}],"limit":0,"offset":0,"total":0}"#
        ]],
    );
}

#[test]
fn a_trace_too_large_for_the_budget_is_refused_with_the_way_out() {
    let request = Request {
        question: Question::TempoTrace("1".into()),
        tenant: TenantId::default(),
        parameters: Vec::new(),
        accept: String::new(),
        now: T0,
    };
    let budget = Budget { deadline: None, memory_limit: Some(400), stats: Arc::default() };
    let answer = block_on(answer(&shop(), &request, &budget));
    let text = String::from_utf8(answer.body).unwrap();
    assert_eq!(answer.status, 422);
    assert!(text.contains("more than 100 bytes of spans; ask for a part of them with SQL"), "{text}");

    // So is a search that finds too much.
    let search = Request {
        question: Question::JaegerTraces,
        parameters: vec![("service".to_owned(), "catalog".to_owned())],
        now: T0 + 10_000 * MS,
        ..request
    };
    for (limit, status) in [(1 << 20, 200), (1_000, 422)] {
        let budget = Budget { deadline: None, memory_limit: Some(limit), stats: Arc::default() };
        assert_eq!(block_on(trine_traces::api::answer(&shop(), &search, &budget)).status, status);
    }
}

#[test]
fn tempos_search_takes_conditions_on_one_span_and_on_the_trace() {
    assert_eq!(found(&[]), [3, 2, 1], "newest first");
    assert_eq!(found(&[("limit", "2")]), [3, 2]);
    assert_eq!(found(&[("tags", "service.name=payment")]), [1]);
    assert_eq!(found(&[("tags", "service.name=frontend user=8")]), [3, 2]);
    assert_eq!(found(&[("tags", "service.name=catalog user=8")]), [0u64; 0], "both on one span");
    assert_eq!(found(&[("tags", "name=\"GET /\"")]), [3, 2]);
    assert_eq!(found(&[("tags", "status=error")]), [1]);
    assert_eq!(found(&[("tags", "k8s.pod.name=pod-1"), ("limit", "1")]), [3]);
    assert_eq!(found(&[("tags", "span.k8s.pod.name=pod-1")]), [0u64; 0]);
    assert_eq!(found(&[("minDuration", "6ms")]), [1]);
    assert_eq!(found(&[("maxDuration", "6ms")]), [3, 2]);
    assert_eq!(found(&[("start", "1674982161"), ("end", "1674982162")]), [3, 2]);
    assert_eq!(found(&[("q", "{ name = \"charge\" && kind = server && duration < 25ms }")]), [1]);
    assert_eq!(found(&[("q", "{ name = \"charge\" && kind = producer }")]), [0u64; 0]);
    assert_eq!(found(&[("q", "{ .http.response.status_code = 500 && traceDuration > 1ms }")]), [1]);
    assert_eq!(found(&[("q", "{ name = \"a\" && name = \"b\" }")]), [0u64; 0]);
}

/// A tag that is looked for among labels and attributes makes two questions of one; many tags stay bounded.
#[test]
fn many_tags_are_a_bounded_search() {
    let pod = ".k8s.pod.name = \"pod-1\"";
    let query = |fields: usize, last: &str| format!("{{ {} && {last} }}", vec![pod; fields].join(" && "));
    assert_eq!(found(&[("q", &query(60, ".user = 8"))]), [3, 2]);
    assert_eq!(found(&[("q", &query(60, ".user = 9"))]), [0u64; 0]);
    assert_eq!(ask(Question::TempoSearch, &[("q", &query(64, ".user = 8"))]).status, 400);
    let tag = ("tag", "k8s.pod.name:pod-1");
    let jaeger = |tags: usize| [vec![("service", "frontend")], vec![tag; tags]].concat();
    assert_eq!(jaeger_found(&jaeger(63)), [3, 2, 1]);
    assert_eq!(ask(Question::JaegerTraces, &jaeger(64)).status, 400);
    let tempo = |tags: usize| vec!["k8s.pod.name=pod-1"; tags].join(" ");
    assert_eq!(found(&[("tags", &tempo(64))]), [3, 2, 1]);
    assert_eq!(ask(Question::TempoSearch, &[("tags", &tempo(65))]).status, 400);
}

#[test]
fn tempos_search_answers_with_the_spans_that_fit() {
    check(
        Question::TempoSearch,
        &[("tags", "http.response.status_code=500"), ("spss", "1")],
        &expect![[r#"
        {
          "metrics": {
            "inspectedBytes": "0",
            "inspectedSpans": "0"
          },
          "traces": [
            {
              "durationMs": 40,
              "rootServiceName": "frontend",
              "rootTraceName": "POST /checkout",
              "serviceStats": {
                "frontend": {
                  "errorCount": 1,
                  "spanCount": 2
                },
                "payment": {
                  "spanCount": 1
                }
              },
              "spanSet": {
                "matched": 2,
                "spans": [
                  {
                    "attributes": [
                      {
                        "key": "service.name",
                        "value": {
                          "stringValue": "frontend"
                        }
                      },
                      {
                        "key": "status",
                        "value": {
                          "stringValue": "error"
                        }
                      }
                    ],
                    "durationNanos": "30000000",
                    "name": "charge",
                    "spanID": "0000000000000002",
                    "startTimeUnixNano": "1674982159001000000"
                  }
                ]
              },
              "spanSets": [
                {
                  "matched": 2,
                  "spans": [
                    {
                      "attributes": [
                        {
                          "key": "service.name",
                          "value": {
                            "stringValue": "frontend"
                          }
                        },
                        {
                          "key": "status",
                          "value": {
                            "stringValue": "error"
                          }
                        }
                      ],
                      "durationNanos": "30000000",
                      "name": "charge",
                      "spanID": "0000000000000002",
                      "startTimeUnixNano": "1674982159001000000"
                    }
                  ]
                }
              ],
              "startTimeUnixNano": "1674982159000000000",
              "traceID": "00000000000000000000000000000001"
            }
          ]
        }
    "#]],
    );
}

#[test]
fn jaegers_search() {
    assert_eq!(jaeger_found(&[("service", "frontend")]), [3, 2, 1]);
    assert_eq!(jaeger_found(&[("service", "frontend"), ("limit", "1")]), [3]);
    assert_eq!(jaeger_found(&[("service", "frontend"), ("operation", "charge")]), [1]);
    assert_eq!(jaeger_found(&[("service", "frontend"), ("tags", "{\"error\":\"true\"}")]), [1]);
    assert_eq!(jaeger_found(&[("service", "payment"), ("tags", "{\"error\":\"true\"}")]), [0u64; 0]);
    assert_eq!(jaeger_found(&[("service", "frontend"), ("minDuration", "35ms")]), [1]);
    assert_eq!(jaeger_found(&[("service", "frontend"), ("tag", "user:8"), ("spanKind", "server")]), [3, 2]);
    assert_eq!(jaeger_found(&[("service", "frontend"), ("lookback", "7500ms")]), [3]);
    assert_eq!(jaeger_found(&[("traceID", "1"), ("traceID", "3"), ("traceID", "99")]), [3, 1]);
}

#[test]
fn a_trace_in_jaegers_form() {
    check(
        Question::JaegerTrace("1".into()),
        &[],
        &expect![[r#"
        {
          "data": [
            {
              "processes": {
                "p1": {
                  "serviceName": "frontend",
                  "tags": [
                    {
                      "key": "k8s.pod.name",
                      "type": "string",
                      "value": "pod-1"
                    }
                  ]
                },
                "p2": {
                  "serviceName": "payment",
                  "tags": [
                    {
                      "key": "k8s.pod.name",
                      "type": "string",
                      "value": "pod-1"
                    }
                  ]
                }
              },
              "spans": [
                {
                  "duration": 40000,
                  "flags": 1,
                  "logs": [],
                  "operationName": "POST /checkout",
                  "processID": "p1",
                  "references": [],
                  "spanID": "0000000000000001",
                  "startTime": 1674982159000000,
                  "tags": [
                    {
                      "key": "span.kind",
                      "type": "string",
                      "value": "server"
                    },
                    {
                      "key": "otel.scope.name",
                      "type": "string",
                      "value": "io.shop"
                    }
                  ],
                  "traceID": "00000000000000000000000000000001",
                  "warnings": null
                },
                {
                  "duration": 30000,
                  "flags": 1,
                  "logs": [],
                  "operationName": "charge",
                  "processID": "p1",
                  "references": [
                    {
                      "refType": "CHILD_OF",
                      "spanID": "0000000000000001",
                      "traceID": "00000000000000000000000000000001"
                    }
                  ],
                  "spanID": "0000000000000002",
                  "startTime": 1674982159001000,
                  "tags": [
                    {
                      "key": "http.response.status_code",
                      "type": "string",
                      "value": "500"
                    },
                    {
                      "key": "user",
                      "type": "string",
                      "value": "7"
                    },
                    {
                      "key": "span.kind",
                      "type": "string",
                      "value": "client"
                    },
                    {
                      "key": "otel.status_code",
                      "type": "string",
                      "value": "ERROR"
                    },
                    {
                      "key": "otel.scope.name",
                      "type": "string",
                      "value": "io.shop"
                    },
                    {
                      "key": "otel.status_description",
                      "type": "string",
                      "value": "card"
                    },
                    {
                      "key": "w3c.tracestate",
                      "type": "string",
                      "value": "vendor=1"
                    },
                    {
                      "key": "error",
                      "type": "bool",
                      "value": true
                    }
                  ],
                  "traceID": "00000000000000000000000000000001",
                  "warnings": null
                },
                {
                  "duration": 20000,
                  "flags": 1,
                  "logs": [],
                  "operationName": "charge",
                  "processID": "p2",
                  "references": [
                    {
                      "refType": "CHILD_OF",
                      "spanID": "0000000000000002",
                      "traceID": "00000000000000000000000000000001"
                    }
                  ],
                  "spanID": "0000000000000003",
                  "startTime": 1674982159002000,
                  "tags": [
                    {
                      "key": "http.response.status_code",
                      "type": "string",
                      "value": "500"
                    },
                    {
                      "key": "span.kind",
                      "type": "string",
                      "value": "server"
                    },
                    {
                      "key": "otel.scope.name",
                      "type": "string",
                      "value": "io.shop"
                    }
                  ],
                  "traceID": "00000000000000000000000000000001",
                  "warnings": null
                }
              ],
              "traceID": "00000000000000000000000000000001",
              "warnings": null
            }
          ],
          "errors": null,
          "limit": 0,
          "offset": 0,
          "total": 0
        }
    "#]],
    );
}

#[test]
fn names_to_choose_from() {
    let line = |question, parameters: &[(&str, &str)]| json(question, parameters).to_string();
    expect![[r#"{"data":["catalog","frontend","payment"],"errors":null,"limit":0,"offset":0,"total":3}"#]]
        .assert_eq(&line(Question::JaegerServices, &[]));
    expect![[r#"{"data":["GET /","POST /checkout","charge"],"errors":null,"limit":0,"offset":0,"total":3}"#]]
        .assert_eq(&line(Question::JaegerOperationsOf("frontend".into()), &[]));
    expect![[
        r#"{"data":[{"name":"charge","spanKind":"client"}],"errors":null,"limit":0,"offset":0,"total":1}"#
    ]]
    .assert_eq(&line(Question::JaegerOperations, &[("service", "frontend"), ("spanKind", "client")]));
    expect![[r#"{"tagNames":["duration","http.response.status_code","k8s.pod.name","kind","name","service.name","status","traceDuration","user"]}"#]].assert_eq(&line(Question::TempoTags, &[]));
    expect![[r#"{"scopes":[{"name":"span","tags":["http.response.status_code","user"]}]}"#]]
        .assert_eq(&line(Question::TempoTagsV2, &[("scope", "span")]));
    expect![[r#"{"tagValues":["7","8"]}"#]].assert_eq(&line(Question::TempoTagValues("user".into()), &[]));
    expect![[r#"{"tagValues":["catalog","frontend","payment"]}"#]]
        .assert_eq(&line(Question::TempoTagValues("service.name".into()), &[]));
    expect![[r#"{"tagValues":[{"type":"string","value":"pod-1"}]}"#]]
        .assert_eq(&line(Question::TempoTagValuesV2("resource.k8s.pod.name".into()), &[]));
    expect![[r#"{"tagValues":[{"type":"string","value":"GET /"},{"type":"string","value":"POST /checkout"},{"type":"string","value":"charge"},{"type":"string","value":"list"}]}"#]].assert_eq(&line(Question::TempoTagValuesV2("name".into()), &[]));
    expect![[r#"{"tagValues":[{"type":"keyword","value":"error"},{"type":"keyword","value":"ok"},{"type":"keyword","value":"unset"}]}"#]].assert_eq(&line(Question::TempoTagValuesV2("status".into()), &[]));
}

/// Pieces of which parameters are made, right and wrong.
fn any_value() -> impl Strategy<Value = String> {
    let piece = prop_oneof![
        Just("{"),
        Just("}"),
        Just("&&"),
        Just("="),
        Just(">="),
        Just("name"),
        Just("status"),
        Just("kind"),
        Just("duration"),
        Just(".a"),
        Just("span."),
        Just("resource.\"x y\""),
        Just("\"a\""),
        Just("\\"),
        Just("`"),
        Just("5ms"),
        Just("1e99"),
        Just("error"),
        Just("server"),
        Just(" "),
        Just("é"),
        Just(":"),
        Just("9223372036854775807"),
        Just("-1"),
        Just("0"),
        Just("service.name"),
        Just("true"),
        Just("[1]"),
    ];
    prop_oneof![
        prop::collection::vec(piece, 0..12).prop_map(|pieces| pieces.concat()),
        any::<String>(),
        Just(r#"{"error":"true"}"#.to_owned()),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(500) })]

    /// Whatever the parameters are, they are answered or refused.
    #[test]
    fn parameters_never_break_an_answer(
        values in prop::collection::vec((0..14usize, any_value()), 0..5),
        question in 0..8usize,
    ) {
        const NAMES: [&str; 14] = [
            "q", "tags", "tag", "start", "end", "limit", "spss", "minDuration", "maxDuration", "lookback",
            "service", "operation", "traceID", "spanKind",
        ];
        let name = values.first().map_or_else(String::new, |(_, value)| value.clone());
        let question = match question {
            0..3 => Question::TempoSearch,
            3..5 => Question::JaegerTraces,
            5 => Question::TempoTagValues(name),
            6 => Question::JaegerOperations,
            _ => Question::JaegerTrace(name),
        };
        let parameters: Vec<_> = values.iter().map(|(name, value)| (NAMES[*name], value.as_str())).collect();
        let answer = ask(question, &parameters);
        prop_assert!(matches!(answer.status, 200 | 400 | 404), "{}", answer.status);
    }
}
