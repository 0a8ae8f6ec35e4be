//! Guarantee: what is encoded is what was stored, by the reading of others' types and of our own decoder.

use expect_test::expect;
use opentelemetry_proto::tonic::{
    common::v1::{AnyValue, KeyValue, any_value::Value},
    trace::v1::{TracesData, span::SpanKind},
};
use prost::Message;
use serde_json::Value as Json;
use trine_model::TenantId;
use trine_protocols::{Limits, otlp::decode_spans_protobuf};
use trine_schema::StreamRegistry;
use trine_traces::{
    assemble,
    otlp::{Form, encode_json, encode_protobuf, encode_tempo_v2_json, encode_tempo_v2_protobuf},
};

use crate::spans::{MS, T0, checkout, row, trace_of};

/// Tempo's `TraceByIDResponse`, with the trace as OTLP has it.
#[derive(Clone, PartialEq, Message)]
struct TraceById {
    #[prost(message, optional, tag = "1")]
    trace: Option<TracesData>,
    #[prost(message, optional, tag = "2")]
    metrics: Option<TraceByIdMetrics>,
    #[prost(int32, tag = "3")]
    status: i32,
    #[prost(string, tag = "4")]
    message: String,
}

#[derive(Clone, PartialEq, Message)]
struct TraceByIdMetrics {
    #[prost(uint64, tag = "1")]
    inspected_bytes: u64,
}

fn text(attributes: &[KeyValue], key: &str) -> Option<String> {
    let value = attributes.iter().find(|pair| pair.key == key)?.value.clone();
    match value {
        Some(AnyValue { value: Some(Value::StringValue(text)) }) => Some(text),
        _ => None,
    }
}

#[test]
fn protobuf_is_read_by_opentelemetrys_types() {
    let trace = checkout();
    let data = TracesData::decode(&*encode_protobuf(&trace, false)).unwrap();
    assert_eq!(data.resource_spans.len(), 2);
    let frontend = &data.resource_spans[0];
    let resource = frontend.resource.as_ref().unwrap();
    assert_eq!(text(&resource.attributes, "service.name").as_deref(), Some("frontend"));
    // The root's scope has a version, the call's has none.
    assert_eq!(frontend.scope_spans.len(), 2);
    let scope = frontend.scope_spans[0].scope.as_ref().unwrap();
    assert_eq!((scope.name.as_str(), scope.version.as_str()), ("io.shop", "1.2"));
    let root = &frontend.scope_spans[0].spans[0];
    assert_eq!(root.attributes.len(), 1);
    assert_eq!(root.kind(), SpanKind::Server);
    assert_eq!(root.flags, 1);
    assert_eq!(root.parent_span_id, Vec::<u8>::new());
    let served = &data.resource_spans[1].scope_spans[0].spans[0];
    assert_eq!(served.trace_id, trace.id.0);
    assert_eq!(served.parent_span_id, [0, 0, 0, 0, 0, 0, 0, 2]);
    assert_eq!(served.start_time_unix_nano, T0 as u64 + 8_000_000);
    assert_eq!(served.end_time_unix_nano, T0 as u64 + 28_000_000);
    assert_eq!(served.status.as_ref().unwrap().message, "card expired");
    assert_eq!(served.dropped_events_count, 3);
    assert_eq!(served.events[0].dropped_attributes_count, 2);
    assert_eq!(text(&served.events[0].attributes, "exception.message").unwrap(), "card \"4711\" expired");
    assert_eq!(served.links[0].trace_state, "a=b");
    assert_eq!(text(&served.links[0].attributes, "why").as_deref(), Some("retry"));
}

#[test]
fn our_own_decoder_gives_back_the_same_trace() {
    let trace = checkout();
    let registry = StreamRegistry::new();
    let decoded = decode_spans_protobuf(
        &encode_protobuf(&trace, false),
        &TenantId::default(),
        &registry,
        0,
        &Limits::default(),
    )
    .unwrap();
    assert_eq!(decoded.rejected, 0);
    let again = assemble(&[decoded.batch.unwrap().records], &registry).unwrap();
    assert_eq!(again[0].spans(), trace.spans());
}

#[test]
fn the_second_version_wraps_the_trace_and_tells_what_is_missing() {
    let trace = checkout();
    let whole = TraceById::decode(&*encode_tempo_v2_protobuf(Some(&trace), "")).unwrap();
    assert_eq!(whole.trace.unwrap(), TracesData::decode(&*encode_protobuf(&trace, false)).unwrap());
    assert_eq!((whole.status, whole.message.as_str()), (0, ""));
    let part = TraceById::decode(&*encode_tempo_v2_protobuf(None, "segment 7 is damaged")).unwrap();
    assert_eq!(part.trace, Some(TracesData::default()));
    assert_eq!((part.status, part.message.as_str()), (1, "segment 7 is damaged"));

    let json = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    expect![[r#"{"trace":{},"metrics":{}}"#]].assert_eq(&json(encode_tempo_v2_json(None, "")));
    expect![[r#"{"trace":{},"metrics":{},"status":"PARTIAL","message":"segment 7 is damaged"}"#]]
        .assert_eq(&json(encode_tempo_v2_json(None, "segment 7 is damaged")));
}

fn pretty(bytes: &[u8]) -> String {
    format!("{:#}\n", serde_json::from_slice::<Json>(bytes).unwrap())
}

#[test]
fn json_by_otlps_specification() {
    let trace = checkout();
    let json = encode_json(&trace, Form::Otlp);
    expect![[r#"
        {
          "resourceSpans": [
            {
              "resource": {
                "attributes": [
                  {
                    "key": "k8s.pod.name",
                    "value": {
                      "stringValue": "pod-1"
                    }
                  },
                  {
                    "key": "service.name",
                    "value": {
                      "stringValue": "frontend"
                    }
                  }
                ]
              },
              "scopeSpans": [
                {
                  "scope": {
                    "name": "io.shop",
                    "version": "1.2"
                  },
                  "spans": [
                    {
                      "attributes": [
                        {
                          "key": "http.request.method",
                          "value": {
                            "stringValue": "POST"
                          }
                        }
                      ],
                      "endTimeUnixNano": "1674982159040000000",
                      "flags": 1,
                      "kind": 2,
                      "name": "POST /checkout",
                      "spanId": "0000000000000001",
                      "startTimeUnixNano": "1674982159000000000",
                      "status": {},
                      "traceId": "00000000000000000000000000000001"
                    }
                  ]
                },
                {
                  "scope": {
                    "name": "io.shop"
                  },
                  "spans": [
                    {
                      "endTimeUnixNano": "1674982159035000000",
                      "flags": 1,
                      "kind": 3,
                      "name": "charge",
                      "parentSpanId": "0000000000000001",
                      "spanId": "0000000000000002",
                      "startTimeUnixNano": "1674982159005000000",
                      "status": {},
                      "traceId": "00000000000000000000000000000001",
                      "traceState": "vendor=1"
                    }
                  ]
                }
              ]
            },
            {
              "resource": {
                "attributes": [
                  {
                    "key": "k8s.pod.name",
                    "value": {
                      "stringValue": "pod-1"
                    }
                  },
                  {
                    "key": "service.name",
                    "value": {
                      "stringValue": "payment"
                    }
                  }
                ]
              },
              "scopeSpans": [
                {
                  "scope": {
                    "name": "io.shop"
                  },
                  "spans": [
                    {
                      "attributes": [
                        {
                          "key": "rpc.system",
                          "value": {
                            "stringValue": "grpc"
                          }
                        }
                      ],
                      "droppedEventsCount": 3,
                      "endTimeUnixNano": "1674982159028000000",
                      "events": [
                        {
                          "attributes": [
                            {
                              "key": "exception.message",
                              "value": {
                                "stringValue": "card \"4711\" expired"
                              }
                            }
                          ],
                          "droppedAttributesCount": 2,
                          "name": "exception",
                          "timeUnixNano": "1674982159020000000"
                        }
                      ],
                      "flags": 1,
                      "kind": 2,
                      "links": [
                        {
                          "attributes": [
                            {
                              "key": "why",
                              "value": {
                                "stringValue": "retry"
                              }
                            }
                          ],
                          "spanId": "0000000000000def",
                          "traceId": "00000000000000000000000000000abc",
                          "traceState": "a=b"
                        }
                      ],
                      "name": "Charge",
                      "parentSpanId": "0000000000000002",
                      "spanId": "0000000000000003",
                      "startTimeUnixNano": "1674982159008000000",
                      "status": {
                        "code": 2,
                        "message": "card expired"
                      },
                      "traceId": "00000000000000000000000000000001"
                    }
                  ]
                }
              ]
            }
          ]
        }
    "#]]
    .assert_eq(&pretty(&json));
    // opentelemetry-proto's own reading of it.
    let data: TracesData = serde_json::from_slice(&json).unwrap();
    assert_eq!(data, TracesData::decode(&*encode_protobuf(&trace, false)).unwrap());
}

/// Tempo prints by protobuf's JSON mapping: ids as base64, enums by name, `batches` in the first version.
#[test]
fn json_as_tempo_prints_it() {
    let trace = checkout();
    let first: Json = serde_json::from_slice(&encode_json(&trace, Form::TempoV1)).unwrap();
    let second: Json = serde_json::from_slice(&encode_tempo_v2_json(Some(&trace), "")).unwrap();
    assert_eq!(first["batches"], second["trace"]["resourceSpans"]);
    let served = &first["batches"][1]["scopeSpans"][0]["spans"][0];
    expect![[r#"
        {
          "attributes": [
            {
              "key": "rpc.system",
              "value": {
                "stringValue": "grpc"
              }
            }
          ],
          "droppedEventsCount": 3,
          "endTimeUnixNano": "1674982159028000000",
          "events": [
            {
              "attributes": [
                {
                  "key": "exception.message",
                  "value": {
                    "stringValue": "card \"4711\" expired"
                  }
                }
              ],
              "droppedAttributesCount": 2,
              "name": "exception",
              "timeUnixNano": "1674982159020000000"
            }
          ],
          "flags": 1,
          "kind": "SPAN_KIND_SERVER",
          "links": [
            {
              "attributes": [
                {
                  "key": "why",
                  "value": {
                    "stringValue": "retry"
                  }
                }
              ],
              "spanId": "AAAAAAAADe8=",
              "traceId": "AAAAAAAAAAAAAAAAAAAKvA==",
              "traceState": "a=b"
            }
          ],
          "name": "Charge",
          "parentSpanId": "AAAAAAAAAAI=",
          "spanId": "AAAAAAAAAAM=",
          "startTimeUnixNano": "1674982159008000000",
          "status": {
            "code": "STATUS_CODE_ERROR",
            "message": "card expired"
          },
          "traceId": "AAAAAAAAAAAAAAAAAAAAAQ=="
        }
    "#]]
    .assert_eq(&format!("{served:#}\n"));
}

/// `trine trace` reads this form and counts the copies.
#[test]
fn our_own_form_tells_a_span_as_often_as_it_was_stored() {
    let again = row("web", "again", 2, 1, MS, MS);
    let trace = trace_of(&[row("web", "root", 1, 0, 0, 10 * MS), again, again]);
    let spans = |copies: bool| {
        let data = TracesData::decode(&*encode_protobuf(&trace, copies)).unwrap();
        data.resource_spans[0].scope_spans[0].spans.len()
    };
    assert_eq!((spans(true), spans(false)), (3, 2));
    let count =
        |form: Form| String::from_utf8(encode_json(&trace, form)).unwrap().matches("\"again\"").count();
    assert_eq!((count(Form::Otlp), count(Form::TempoV1)), (2, 1));
}
