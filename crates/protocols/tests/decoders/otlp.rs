//! OTLP against `opentelemetry-proto` as the oracle: it encodes random requests with prost and
//! serde, we decode them, and the rows must be what the request says.

use opentelemetry_proto::tonic::{
    collector::logs::v1::{ExportLogsPartialSuccess, ExportLogsServiceRequest, ExportLogsServiceResponse},
    common::v1::{AnyValue, ArrayValue, InstrumentationScope, KeyValue, KeyValueList, any_value::Value},
    logs::v1::{LogRecord, ResourceLogs, ScopeLogs},
    resource::v1::Resource,
};
use proptest::{collection::vec, option, prelude::*};
use prost::Message as _;
use trine_model::Severity;
use trine_protocols::otlp::{
    decode_logs_json, decode_logs_protobuf, encode_logs_response, encode_retry_status, encode_status,
};
use trine_schema::Labels;

use crate::rows::{Context, NOW, Row};

pub fn text() -> impl Strategy<Value = String> {
    prop_oneof!["[a-z .]{0,12}", "\\PC{0,8}", "[\"\\\\\n\u{1}é😀]{0,5}", "[a-z ]{60,90}"]
}

fn value() -> impl Strategy<Value = Option<AnyValue>> {
    let leaf = prop_oneof![
        4 => text().prop_map(Value::StringValue),
        1 => any::<bool>().prop_map(Value::BoolValue),
        1 => any::<i64>().prop_map(Value::IntValue),
        1 => any::<i32>().prop_map(|n| Value::DoubleValue(f64::from(n) + 0.5)),
        1 => vec(any::<u8>(), 0..7).prop_map(Value::BytesValue),
    ];
    let tree = leaf.prop_recursive(4, 16, 4, |inner| {
        let any = option::weighted(0.9, inner).prop_map(|value| AnyValue { value });
        prop_oneof![
            vec(any.clone(), 0..4).prop_map(|values| Value::ArrayValue(ArrayValue { values })),
            vec((text(), any), 0..4).prop_map(|pairs| {
                let values = pairs.into_iter().map(|(key, value)| key_value(key, Some(value))).collect();
                Value::KvlistValue(KeyValueList { values })
            }),
        ]
    });
    option::weighted(0.95, option::weighted(0.95, tree).prop_map(|value| AnyValue { value }))
}

pub fn key_value(key: String, value: Option<AnyValue>) -> KeyValue {
    KeyValue { key, value, ..KeyValue::default() }
}

pub fn attributes() -> impl Strategy<Value = Vec<KeyValue>> {
    vec((text(), value()).prop_map(|(key, value)| key_value(key, value)), 0..4)
}

prop_compose! {
    fn record()(
        times in (prop_oneof![Just(0), 1..i64::MAX as u64], prop_oneof![Just(0), 1..i64::MAX as u64]),
        severity_number in 0..=24,
        severity_text in prop_oneof![Just(String::new()), Just("INFO".to_owned()), text()],
        body in value(),
        attributes in attributes(),
        dropped_attributes_count in prop_oneof![Just(0), any::<u32>()],
        flags in any::<u32>(),
        ids in (prop_oneof![vec(any::<u8>(), 0..1), vec(any::<u8>(), 16), vec(any::<u8>(), 1..20)], prop_oneof![vec(any::<u8>(), 0..1), vec(any::<u8>(), 8)]),
        event_name in prop_oneof![Just(String::new()), text()],
    ) -> LogRecord {
        LogRecord {
            time_unix_nano: times.0,
            observed_time_unix_nano: times.1,
            severity_number,
            severity_text,
            body,
            attributes,
            dropped_attributes_count,
            flags,
            trace_id: ids.0,
            span_id: ids.1,
            event_name,
        }
    }
}

prop_compose! {
    fn scope_logs()(
        scope in option::of((text(), text(), attributes())),
        log_records in vec(record(), 0..4),
    ) -> ScopeLogs {
        let scope = scope.map(|(name, version, attributes)| {
            InstrumentationScope { name, version, attributes, dropped_attributes_count: 3 }
        });
        ScopeLogs { scope, log_records, schema_url: "u".into() }
    }
}

prop_compose! {
    pub fn request()(
        resource_logs in vec((option::of(attributes()), vec(scope_logs(), 0..3)), 0..3)
    ) -> ExportLogsServiceRequest {
        let resource_logs = resource_logs.into_iter().map(|(attributes, scope_logs)| {
            let resource = attributes.map(|mut attributes| {
                // Keys of a resource are unique and not empty.
                for (i, pair) in attributes.iter_mut().enumerate() {
                    pair.key = format!("{}{i}", pair.key);
                }
                Resource { attributes, ..Resource::default() }
            });
            ResourceLogs { resource, scope_logs, schema_url: "u".into() }
        });
        ExportLogsServiceRequest { resource_logs: resource_logs.collect() }
    }
}

/// A value as JSON, written by serde_json.
fn json(value: &AnyValue) -> String {
    let quoted = |text: &str| serde_json::to_string(text).unwrap();
    match &value.value {
        None => "null".into(),
        Some(Value::StringValue(text)) => quoted(text),
        Some(Value::ArrayValue(array)) => {
            format!("[{}]", array.values.iter().map(json).collect::<Vec<_>>().join(","))
        }
        Some(Value::KvlistValue(map)) => {
            let pair = |pair: &KeyValue| {
                format!("{}:{}", quoted(&pair.key), json(&pair.value.clone().unwrap_or_default()))
            };
            format!("{{{}}}", map.values.iter().map(pair).collect::<Vec<_>>().join(","))
        }
        Some(Value::BytesValue(_)) => quoted(&plain(Some(value))),
        _ => plain(Some(value)),
    }
}

pub fn plain(value: Option<&AnyValue>) -> String {
    match value.and_then(|value| value.value.as_ref()) {
        None => String::new(),
        Some(Value::StringValue(text)) => text.clone(),
        Some(Value::BoolValue(truth)) => truth.to_string(),
        Some(Value::IntValue(number)) => number.to_string(),
        Some(Value::DoubleValue(number)) => format!("{number}"),
        Some(Value::BytesValue(bytes)) => {
            const ALPHABET: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
            let bits: Vec<u8> =
                bytes.iter().flat_map(|byte| (0..8).rev().map(move |i| byte >> i & 1)).collect();
            let mut text: String = bits
                .chunks(6)
                .map(|six| (0..6).fold(0, |n, i| n << 1 | six.get(i).copied().unwrap_or(0)))
                .map(|digit: u8| char::from(ALPHABET[digit as usize]))
                .collect();
            while !text.len().is_multiple_of(4) {
                text.push('=');
            }
            text
        }
        Some(_) => json(value.unwrap()),
    }
}

fn expected(request: &ExportLogsServiceRequest) -> Vec<Row> {
    let mut rows = Vec::new();
    let hex = |bytes: &[u8], length: usize| {
        (bytes.len() == length && bytes.iter().any(|b| *b != 0))
            .then(|| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>())
    };
    let set = |text: &str| (!text.is_empty()).then(|| text.to_owned());
    for resource_logs in &request.resource_logs {
        let attributes = resource_logs.resource.as_ref().map_or(&[][..], |resource| &resource.attributes);
        let pairs =
            attributes.iter().map(|pair| (pair.key.clone().into(), plain(pair.value.as_ref()).into()));
        let labels = Labels::new(pairs.collect()).unwrap().to_json();
        for scope_logs in &resource_logs.scope_logs {
            let scope = scope_logs.scope.clone().unwrap_or_default();
            for record in &scope_logs.log_records {
                let mut attributes = Vec::new();
                if !scope.version.is_empty() {
                    attributes.push(("otel.scope.version".to_owned(), scope.version.clone()));
                }
                for pair in &scope.attributes {
                    attributes.push((format!("otel.scope.{}", pair.key), plain(pair.value.as_ref())));
                }
                for pair in &record.attributes {
                    attributes.push((pair.key.clone(), plain(pair.value.as_ref())));
                }
                if record.dropped_attributes_count != 0 {
                    let count = record.dropped_attributes_count.to_string();
                    attributes.push(("otel.dropped_attributes_count".to_owned(), count));
                }
                let time = [record.time_unix_nano, record.observed_time_unix_nano, NOW as u64];
                let mut severity = Severity::from_number(i64::from(record.severity_number));
                if severity == Severity::UNSET {
                    severity = Severity::from_text(&record.severity_text).unwrap_or_default();
                }
                let told = severity.level().name() == record.severity_text;
                rows.push(Row {
                    labels: labels.clone(),
                    timestamp: *time.iter().find(|time| **time != 0).unwrap() as i64,
                    observed: Some(record.observed_time_unix_nano as i64).filter(|time| *time != 0),
                    severity: severity.number(),
                    severity_text: set(&record.severity_text).filter(|_| !told),
                    body: plain(record.body.as_ref()),
                    trace_id: hex(&record.trace_id, 16),
                    span_id: hex(&record.span_id, 8),
                    flags: record.flags,
                    event_name: set(&record.event_name),
                    scope_name: set(&scope.name),
                    attributes,
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
        let decoded = decode_logs_protobuf(&bytes, &context.tenant, &context.registry, NOW, &context.limits).unwrap();
        prop_assert_eq!((decoded.rejected, &decoded.first_errors[..]), (0, &[][..]));
        prop_assert_eq!(context.rows(&decoded), expected(&request));
    }

    /// The same for the JSON that opentelemetry-proto writes, and for the same JSON with every
    /// object's members turned around (so that `resource` and `scope` come last).
    #[test]
    fn json_of_serde_arrives_whole_in_any_order(request in request()) {
        let forward = serde_json::to_string(&request).unwrap();
        let context = Context::default();
        for json in [turned(&forward), forward] {
            let decoded =
                decode_logs_json(json.as_bytes(), &context.tenant, &context.registry, NOW, &context.limits).unwrap();
            prop_assert_eq!((decoded.rejected, &decoded.first_errors[..]), (0, &[][..]), "{}", json);
            prop_assert_eq!(context.rows(&decoded), expected(&request));
        }
    }

    /// A resource and a scope behind their records, and in two parts, are merged as protobuf says.
    #[test]
    fn protobuf_order_is_free(scope_logs in scope_logs(), attributes in attributes()) {
        let mut attributes = attributes;
        for (i, pair) in attributes.iter_mut().enumerate() {
            pair.key = format!("{}{i}", pair.key);
        }
        let half = attributes.len() / 2;
        let parts = [&attributes[..half], &attributes[half..]];
        let part = |part: &[KeyValue]| ResourceLogs {
            resource: Some(Resource { attributes: part.to_vec(), ..Resource::default() }),
            ..ResourceLogs::default()
        };
        let scope_part = |scope: InstrumentationScope| ScopeLogs { scope: Some(scope), ..ScopeLogs::default() };
        let scope = scope_logs.scope.clone().unwrap_or_default();
        let records = ScopeLogs { scope: None, ..scope_logs.clone() };
        let name = InstrumentationScope { name: scope.name.clone(), version: scope.version.clone(), ..Default::default() };
        let rest = InstrumentationScope { attributes: scope.attributes.clone(), ..Default::default() };
        let mut inner = scope_part(name).encode_to_vec();
        inner.extend(records.encode_to_vec());
        inner.extend(scope_part(rest).encode_to_vec());
        let mut outer = part(parts[0]).encode_to_vec();
        outer.push(2 << 3 | 2);
        prost::encoding::encode_varint(inner.len() as u64, &mut outer);
        outer.extend(inner);
        outer.extend(part(parts[1]).encode_to_vec());
        let mut bytes = vec![1 << 3 | 2];
        prost::encoding::encode_varint(outer.len() as u64, &mut bytes);
        bytes.extend(outer);

        let request = ExportLogsServiceRequest::decode(&bytes[..]).unwrap();
        let context = Context::default();
        let decoded = decode_logs_protobuf(&bytes, &context.tenant, &context.registry, NOW, &context.limits).unwrap();
        prop_assert_eq!(context.rows(&decoded), expected(&request));
    }
}

/// The same JSON with the members of every object in reverse order.
pub fn turned(json: &str) -> String {
    fn turn(value: &serde_json::Value, out: &mut String) {
        match value {
            serde_json::Value::Object(members) => {
                out.push('{');
                for (i, (name, value)) in members.iter().rev().enumerate() {
                    out.push_str(if i == 0 { "" } else { " ,\n" });
                    out.push_str(&serde_json::to_string(name).unwrap());
                    out.push_str(" : ");
                    turn(value, out);
                }
                out.push('}');
            }
            serde_json::Value::Array(elements) => {
                out.push('[');
                for (i, element) in elements.iter().enumerate() {
                    out.push_str(if i == 0 { "" } else { "," });
                    turn(element, out);
                }
                out.push(']');
            }
            scalar => out.push_str(&scalar.to_string()),
        }
    }
    let mut out = String::new();
    turn(&serde_json::from_str(json).unwrap(), &mut out);
    out
}

#[test]
fn json_takes_the_spellings_senders_use() {
    let context = Context::default();
    let json = r#"{"future":{"x":[1]},"resourceLogs":[{"resource":null,"scopeLogs":[{"logRecords":[
        {"timeUnixNano":5,"observedTimeUnixNano":"7","severityNumber":"SEVERITY_NUMBER_WARN3","traceId":"","unknown":[{}],
         "attributes":[{"key":"i","value":{"intValue":"-9"}},{"key":"j","value":{"intValue":8}},
                       {"key":"d","value":{"doubleValue":"NaN"}},{"value":{"stringValue":"\ud83d\ude00"},"key":"k\n"}]},
        {"timeUnixNano":"1e3","severityNumber":"9","body":null,"flags":1,"traceId":"49A51828322183eb20bfe4ace3060000"}
    ]},{"scope":{},"logRecords":null}]}]}"#;
    let decoded =
        decode_logs_json(json.as_bytes(), &context.tenant, &context.registry, NOW, &context.limits).unwrap();
    assert_eq!(decoded.error_message(), "");
    let rows = context.rows(&decoded);
    let pair = |key: &str, value: &str| (key.to_owned(), value.to_owned());
    let first = Row {
        labels: "{}".into(),
        timestamp: 5,
        observed: Some(7),
        severity: 15,
        attributes: vec![pair("i", "-9"), pair("j", "8"), pair("d", "NaN"), pair("k\n", "😀")],
        ..Row::default()
    };
    let second = Row {
        labels: "{}".into(),
        timestamp: 1000,
        severity: 9,
        flags: 1,
        trace_id: Some("49a51828322183eb20bfe4ace3060000".into()),
        ..Row::default()
    };
    assert_eq!(rows, [first, second]);
}

/// `google.rpc.Status`.
#[derive(prost::Message)]
struct Status {
    #[prost(int32, tag = "1")]
    code: i32,
    #[prost(string, tag = "2")]
    message: String,
    #[prost(message, repeated, tag = "3")]
    details: Vec<Detail>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Detail {
    #[prost(string, tag = "1")]
    type_url: String,
    #[prost(bytes, tag = "2")]
    value: Vec<u8>,
}

#[test]
fn answers_are_read_by_prost_and_serde() {
    for (rejected, message) in [(0, ""), (3, "record 2: \"bad\"\n"), (0, "a warning")] {
        let want =
            ExportLogsPartialSuccess { rejected_log_records: rejected as i64, error_message: message.into() };
        let want = (rejected != 0 || !message.is_empty()).then_some(want);
        let proto = encode_logs_response(rejected, message, false);
        assert_eq!(ExportLogsServiceResponse::decode(&proto[..]).unwrap().partial_success, want);
        let json: serde_json::Value =
            serde_json::from_slice(&encode_logs_response(rejected, message, true)).unwrap();
        match want {
            None => assert_eq!(json, serde_json::json!({})),
            Some(_) => assert_eq!(
                json,
                serde_json::json!({"partialSuccess": {"rejectedLogRecords": rejected.to_string(), "errorMessage": message}})
            ),
        }
    }

    let status = Status::decode(&encode_status(3, "bad\u{1}", false)[..]).unwrap();
    assert_eq!((status.code, status.message.as_str()), (3, "bad\u{1}"));
    let json: serde_json::Value = serde_json::from_slice(&encode_status(3, "bad\u{1}", true)).unwrap();
    assert_eq!(json, serde_json::json!({"code": 3, "message": "bad\u{1}"}));

    let status = Status::decode(&encode_retry_status(8, "full", 5)[..]).unwrap();
    assert_eq!((status.code, status.message.as_str()), (8, "full"));
    // `google.rpc.RetryInfo { retry_delay: Duration { seconds: 5 } }`
    let detail =
        Detail { type_url: "type.googleapis.com/google.rpc.RetryInfo".into(), value: vec![10, 2, 8, 5] };
    assert_eq!(status.details, [detail]);
}

/// A word that repeats the level it came after is kept when the level changes behind it.
#[test]
fn a_severity_word_outlives_the_number_before_it() {
    let context = Context::default();
    let field = |tag: u8, bytes: &[u8]| [&[tag, bytes.len() as u8], bytes].concat();
    // severity_number 9, severity_text, severity_number 17.
    let record = [&[0x10, 9][..], &field(0x1a, b"INFO"), &[0x10, 17]].concat();
    let request = field(0x0a, &field(0x12, &field(0x12, &record)));
    let decoded =
        decode_logs_protobuf(&request, &context.tenant, &context.registry, NOW, &context.limits).unwrap();
    let row = &context.rows(&decoded)[0];
    assert_eq!((row.severity, row.severity_text.as_deref()), (17, Some("INFO")));
}
