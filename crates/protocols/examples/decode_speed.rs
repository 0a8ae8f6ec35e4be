//! How fast each decoder turns a request into a finished batch, on one core:
//! `cargo run --release -p trine-protocols --example decode_speed [decoder]`.
//!
//! The request of logs holds 6,000 lines of about 170 bytes in 20 streams, 9 % with a trace id; that of
//! traces 6,000 spans of about 350 bytes in 20 streams, with 6 attributes, some with an event, a link or an
//! error.

use std::{fmt::Write as _, time::Instant};

use opentelemetry_proto::tonic::{
    collector::{logs::v1::ExportLogsServiceRequest, trace::v1::ExportTraceServiceRequest},
    common::v1::{AnyValue, InstrumentationScope, KeyValue, any_value::Value},
    logs::v1::{LogRecord, ResourceLogs, ScopeLogs},
    resource::v1::Resource,
    trace::v1::{
        ResourceSpans, ScopeSpans, Span, Status,
        span::{Event, Link},
    },
};
use prost::Message as _;
use trine_model::TenantId;
use trine_protocols::{
    Limits,
    jsonlines::{self, FieldNames},
    loki, otlp,
};
use trine_schema::StreamRegistry;

const STREAMS: usize = 20;
const LINES: usize = 300;
const SECONDS: f64 = 1.0;

fn main() {
    let wanted = std::env::args().nth(1).unwrap_or_default();
    let mut raw = 0;
    let (mut loki_proto, mut loki_json, mut lines_json) =
        (Vec::new(), String::from("{\"streams\":["), String::new());
    let mut resource_logs = Vec::new();
    for stream in 0..STREAMS {
        let mut entries = Vec::new();
        let mut values = String::new();
        let mut log_records = Vec::new();
        let labels =
            format!("{{app=\"shop\",service_name=\"svc-{stream}\",env=\"prod\",pod=\"svc-{stream}-7d9f8\"}}");
        for line in 0..LINES {
            let n = (stream * LINES + line) as u64;
            let mixed = n.wrapping_mul(0x9E37_79B9_7F4A_7C15);
            let time = 1_700_000_000_000_000_000 + n * 1_000_003;
            let trace = format!("{mixed:016x}{n:016x}");
            let body = format!(
                "081109 203615 {} INFO dfs.DataNode$PacketResponder: PacketResponder {} for block blk_{mixed} terminating at \
                 /10.250.{}.{}:50010 after {} ms, state=FINALIZED replicas=3 ok",
                n % 999,
                n % 3,
                mixed % 250,
                n % 250,
                mixed % 5000
            );
            raw += body.len();
            let traced = n.is_multiple_of(11);
            let mut timestamp = Vec::new();
            put(&mut timestamp, 1, time / 1_000_000_000);
            put(&mut timestamp, 2, time % 1_000_000_000);
            let mut entry = Vec::new();
            bytes(&mut entry, 1, &timestamp);
            bytes(&mut entry, 2, body.as_bytes());
            if traced {
                let mut pair = Vec::new();
                bytes(&mut pair, 1, b"trace_id");
                bytes(&mut pair, 2, trace.as_bytes());
                bytes(&mut entry, 3, &pair);
            }
            bytes(&mut entries, 2, &entry);
            let metadata = if traced { format!(",{{\"trace_id\":\"{trace}\"}}") } else { String::new() };
            let comma = if line > 0 { "," } else { "" };
            write!(values, "{comma}[\"{time}\",\"{body}\"{metadata}]").unwrap();
            let id = if traced { format!(",\"trace_id\":\"{trace}\"") } else { String::new() };
            writeln!(lines_json, "{{\"time\":{time},\"service\":\"svc-{stream}\",\"level\":\"info\",\"msg\":\"{body}\",\"thread\":\"main\"{id}}}").unwrap();
            log_records.push(LogRecord {
                time_unix_nano: time,
                severity_number: 9,
                severity_text: "INFO".into(),
                body: Some(AnyValue { value: Some(Value::StringValue(body)) }),
                attributes: vec![text("thread", "main")],
                trace_id: if traced {
                    u128::from_str_radix(&trace, 16).unwrap().to_be_bytes().to_vec()
                } else {
                    Vec::new()
                },
                ..LogRecord::default()
            });
        }
        let mut adapter = Vec::new();
        bytes(&mut adapter, 1, labels.as_bytes());
        adapter.extend_from_slice(&entries);
        bytes(&mut loki_proto, 1, &adapter);
        let comma = if stream > 0 { "," } else { "" };
        write!(loki_json, "{comma}{{\"stream\":{{\"app\":\"shop\",\"service_name\":\"svc-{stream}\"}},\"values\":[{values}]}}").unwrap();
        let attributes =
            vec![text("service.name", &format!("svc-{stream}")), text("deployment.environment", "prod")];
        resource_logs.push(ResourceLogs {
            resource: Some(Resource { attributes, ..Resource::default() }),
            scope_logs: vec![ScopeLogs {
                scope: Some(InstrumentationScope {
                    name: "shop.cart".into(),
                    ..InstrumentationScope::default()
                }),
                log_records,
                ..ScopeLogs::default()
            }],
            ..ResourceLogs::default()
        });
    }
    loki_json.push_str("]}");
    let request = ExportLogsServiceRequest { resource_logs };
    let otlp_proto = request.encode_to_vec();
    let otlp_json = serde_json::to_vec(&request).unwrap();

    let (tenant, registry, limits) = (TenantId::default(), StreamRegistry::new(), Limits::default());
    let fields = FieldNames::default();
    let now = 1_700_000_000_000_000_000;
    let measure = |name: &str, bytes: &[u8], raw: usize, decode: &dyn Fn(&[u8]) -> usize| {
        if !name.starts_with(&wanted) {
            return;
        }
        assert_eq!(decode(bytes), STREAMS * LINES);
        let start = Instant::now();
        let mut best = f64::MAX;
        let mut rounds = 0;
        while start.elapsed().as_secs_f64() < SECONDS {
            let round = Instant::now();
            decode(bytes);
            best = best.min(round.elapsed().as_secs_f64());
            rounds += 1;
        }
        let mean = start.elapsed().as_secs_f64() / f64::from(rounds);
        let lines = (STREAMS * LINES) as f64;
        println!(
            "{name:14} {:6.1} ns/row {:7.0} MB/s of raw rows (mean {:6.1} ns/row), {} bytes on the wire for {raw} raw",
            best / lines * 1e9,
            raw as f64 / best / 1e6,
            mean / lines * 1e9,
            bytes.len(),
        );
    };
    let spans = spans();
    let spans_proto = spans.encode_to_vec();
    let spans_json = serde_json::to_vec(&spans).unwrap();
    measure("loki protobuf", &loki_proto, raw, &|b| {
        loki::decode_push_protobuf(b, &tenant, &registry, now, &limits).unwrap().accepted
    });
    measure("otlp protobuf", &otlp_proto, raw, &|b| {
        otlp::decode_logs_protobuf(b, &tenant, &registry, now, &limits).unwrap().accepted
    });
    measure("loki json", loki_json.as_bytes(), raw, &|b| {
        loki::decode_push_json(b, &tenant, &registry, now, &limits).unwrap().accepted
    });
    measure("otlp json", &otlp_json, raw, &|b| {
        otlp::decode_logs_json(b, &tenant, &registry, now, &limits).unwrap().accepted
    });
    measure("json lines", lines_json.as_bytes(), raw, &|b| {
        jsonlines::decode(b, &fields, &tenant, &registry, now, &limits).unwrap().accepted
    });
    let raw = spans_proto.len();
    measure("spans protobuf", &spans_proto, raw, &|b| {
        otlp::decode_spans_protobuf(b, &tenant, &registry, now, &limits).unwrap().accepted
    });
    measure("spans json", &spans_json, raw, &|b| {
        otlp::decode_spans_json(b, &tenant, &registry, now, &limits).unwrap().accepted
    });
}

fn text(key: &str, value: &str) -> KeyValue {
    let value = Some(AnyValue { value: Some(Value::StringValue(value.into())) });
    KeyValue { key: key.into(), value, ..KeyValue::default() }
}

fn put(out: &mut Vec<u8>, number: u64, value: u64) {
    prost::encoding::encode_varint(number << 3, out);
    prost::encoding::encode_varint(value, out);
}

fn bytes(out: &mut Vec<u8>, number: u64, bytes: &[u8]) {
    prost::encoding::encode_varint(number << 3 | 2, out);
    prost::encoding::encode_varint(bytes.len() as u64, out);
    out.extend_from_slice(bytes);
}
/// Spans of a small shop: a server span with a client span and three internal ones below it, six times per
/// trace.
fn spans() -> ExportTraceServiceRequest {
    let span = |stream: usize, line: usize| {
        let n = (stream * LINES + line) as u64;
        let mixed = n.wrapping_mul(0x9E37_79B9_7F4A_7C15);
        let start = 1_700_000_000_000_000_000 + n * 1_000_003;
        let id = |n: u64| (n.wrapping_mul(0xD6E8_FEB8_6659_FD93) | 1).to_be_bytes().to_vec();
        let trace = n / 30;
        let kind = [2, 3, 1, 1, 1][line % 5];
        let mut attributes = vec![
            text("http.request.method", ["GET", "POST"][line % 2]),
            text("url.path", &format!("/api/v1/orders/{}/items", mixed % 100_000)),
            text("server.address", &format!("svc-{}.shop.svc.cluster.local", mixed % 20)),
            text("network.protocol.version", "1.1"),
            text("thread.name", &format!("http-nio-8080-exec-{}", n % 16)),
        ];
        let status = Some(Value::IntValue(if n.is_multiple_of(50) { 500 } else { 200 }));
        attributes.push(KeyValue {
            key: "http.response.status_code".into(),
            value: Some(AnyValue { value: status }),
            ..KeyValue::default()
        });
        let event = Event {
            time_unix_nano: start + 500,
            name: "exception".into(),
            attributes: vec![text("exception.type", "java.net.SocketTimeoutException")],
            ..Event::default()
        };
        let link = Link { trace_id: [id(trace), id(7)].concat(), span_id: id(n + 9), ..Link::default() };
        Span {
            trace_id: [id(trace), id(trace + 1)].concat(),
            span_id: id(n),
            parent_span_id: if line.is_multiple_of(30) { Vec::new() } else { id(n - 1) },
            name: ["GET /api/v1/orders/{id}/items", "HTTP GET", "OrderRepository.find", "SELECT shop.orders"]
                [line % 4]
                .into(),
            kind,
            start_time_unix_nano: start,
            end_time_unix_nano: start + mixed % 50_000_000,
            attributes,
            events: if n.is_multiple_of(50) { vec![event] } else { Vec::new() },
            links: if n.is_multiple_of(100) { vec![link] } else { Vec::new() },
            status: n.is_multiple_of(50).then(|| Status { code: 2, message: "timed out".into() }),
            flags: 0x101,
            ..Span::default()
        }
    };
    let resource_spans = (0..STREAMS).map(|stream| {
        let attributes =
            vec![text("service.name", &format!("svc-{stream}")), text("deployment.environment", "prod")];
        let scope = InstrumentationScope {
            name: "io.opentelemetry.tomcat-10.0".into(),
            ..InstrumentationScope::default()
        };
        ResourceSpans {
            resource: Some(Resource { attributes, ..Resource::default() }),
            scope_spans: vec![ScopeSpans {
                scope: Some(scope),
                spans: (0..LINES).map(|line| span(stream, line)).collect(),
                ..ScopeSpans::default()
            }],
            ..ResourceSpans::default()
        }
    });
    ExportTraceServiceRequest { resource_spans: resource_spans.collect() }
}
