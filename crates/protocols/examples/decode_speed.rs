//! How fast each decoder turns a request into a finished batch, on one core:
//! `cargo run --release -p trine-protocols --example decode_speed [decoder]`.
//!
//! The request of logs holds 6,000 lines of about 170 bytes in 20 streams, 9 % with a trace id; that of
//! traces 6,000 spans of about 350 bytes in 20 streams, with 6 attributes, some with an event, a link or an
//! error. Metrics are 10,000 and 100,000 series with seven labels, 2,000 to a request as Prometheus sends them,
//! and the same by OTLP, besides histograms of eight buckets.

use std::{collections::HashMap, fmt::Write as _, ops::Range, sync::Arc, time::Instant};

use opentelemetry_proto::tonic::{
    collector::{
        logs::v1::ExportLogsServiceRequest, metrics::v1::ExportMetricsServiceRequest,
        trace::v1::ExportTraceServiceRequest,
    },
    common::v1::{AnyValue, InstrumentationScope, KeyValue, any_value::Value},
    logs::v1::{LogRecord, ResourceLogs, ScopeLogs},
    metrics::v1::{
        Histogram, HistogramDataPoint, Metric, NumberDataPoint, ResourceMetrics, ScopeMetrics, Sum,
        metric::Data, number_data_point,
    },
    resource::v1::Resource,
    trace::v1::{
        ResourceSpans, ScopeSpans, Span, Status,
        span::{Event, Link},
    },
};
use prost::Message as _;
use trine_model::TenantId;
use trine_protocols::{
    Compression, Limits, decompress,
    jsonlines::{self, FieldNames},
    loki, otlp, remote_write,
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
    for series in [10_000, 100_000] {
        measure_metrics(series, &wanted);
    }
}

/// Samples of one request.
const SAMPLES: usize = 2000;

/// CPU time of this thread: a noisy neighbour counts less than by the clock. Elsewhere than on Linux 0.
fn cpu_seconds() -> f64 {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
    text.split(' ').next().and_then(|nanoseconds| nanoseconds.parse::<f64>().ok()).unwrap_or(0.0) / 1e9
}

/// Decodes all series again and again, each request once a round, and tells CPU time by sample.
fn measure_metrics(series: usize, wanted: &str) {
    let (tenant, limits) = (TenantId::default(), Limits::default());
    let now = 1_700_000_000_000_000_000;
    let deltas = Arc::new(otlp::DeltaState::default());
    let all = |encode: fn(Range<usize>) -> Vec<u8>| -> Vec<Vec<u8>> {
        (0..series / SAMPLES).map(|request| encode(request * SAMPLES..(request + 1) * SAMPLES)).collect()
    };
    let measure = |name: &str,
                   encode: fn(Range<usize>) -> Vec<u8>,
                   decode: &dyn Fn(&[u8], &StreamRegistry)| {
        let name = format!("{name} {series}");
        if !name.starts_with(wanted) {
            return;
        }
        let (requests, registry) = (all(encode), StreamRegistry::new());
        // So many rounds at once that the system's clock of CPU time, which ticks, can tell them.
        let rounds = |count: usize| {
            let start = cpu_seconds();
            (0..count).for_each(|_| requests.iter().for_each(|request| decode(request, &registry)));
            (cpu_seconds() - start) / (series * count) as f64 * 1e9
        };
        let first = rounds(1);
        let mut known: Vec<f64> = (0..7).map(|_| rounds(2_000_000 / series)).collect();
        known.sort_by(f64::total_cmp);
        let bytes: usize = requests.iter().map(Vec::len).sum();
        println!(
            "{name:26} {:6.1} ns/sample best, {:6.1} median, {first:6.0} when series are new, {} bytes/sample",
            known[0],
            known[known.len() / 2],
            bytes / series
        );
    };
    measure("remote write 1", remote_write_1, &|bytes, registry| {
        let decoded = remote_write::decode_v1(bytes, &tenant, registry, now, &limits).unwrap();
        assert_eq!(decoded.accepted, SAMPLES);
    });
    let packed = |range| snap::raw::Encoder::new().compress_vec(&remote_write_1(range)).unwrap();
    measure("remote write 1 snappy", packed, &|bytes, registry| {
        let mut buffer = Vec::new();
        let plain = decompress(Compression::Snappy, bytes, &limits, &mut buffer).unwrap();
        let decoded = remote_write::decode_v1(plain, &tenant, registry, now, &limits).unwrap();
        assert_eq!(decoded.accepted, SAMPLES);
    });
    measure("remote write 2", remote_write_2, &|bytes, registry| {
        let decoded = remote_write::decode_v2(bytes, &tenant, registry, now, &limits).unwrap();
        assert_eq!(decoded.accepted, SAMPLES);
    });
    measure("metrics protobuf", otlp_sums, &|bytes, registry| {
        let (decoded, update) =
            otlp::decode_metrics_protobuf(bytes, &tenant, registry, now, &limits, &deltas).unwrap();
        update.commit();
        assert_eq!(decoded.accepted, SAMPLES);
    });
    measure("histograms protobuf", otlp_histograms, &|bytes, registry| {
        let (decoded, update) =
            otlp::decode_metrics_protobuf(bytes, &tenant, registry, now, &limits, &deltas).unwrap();
        update.commit();
        assert!(decoded.batch.is_some_and(|batch| batch.records.num_rows() >= SAMPLES));
    });
    let json = |range| {
        let request = ExportMetricsServiceRequest::decode(&otlp_sums(range)[..]).unwrap();
        serde_json::to_vec(&request).unwrap()
    };
    measure("metrics json", json, &|bytes, registry| {
        let (decoded, update) =
            otlp::decode_metrics_json(bytes, &tenant, registry, now, &limits, &deltas).unwrap();
        update.commit();
        assert_eq!(decoded.accepted, SAMPLES);
    });
}

/// Labels of a series in order of name.
fn series_labels(series: usize) -> [(&'static str, String); 7] {
    [
        ("__name__", format!("http_server_requests_{}_total", series % 50)),
        ("code", ["200", "404", "500"][series % 3].to_owned()),
        ("instance", format!("10.2.{}.{}:9100", series / 250 % 256, series % 250)),
        ("job", format!("svc-{}", series % 20)),
        ("method", ["GET", "POST"][series % 2].to_owned()),
        ("namespace", "production".to_owned()),
        ("path", format!("/api/v1/orders/{}", series % 97)),
    ]
}

fn sample(series: usize) -> Vec<u8> {
    let mut sample = vec![9];
    sample.extend_from_slice(&(series as f64).to_le_bytes());
    put(&mut sample, 2, 1_700_000_000_000 + series as u64 % 15_000);
    sample
}

fn remote_write_1(range: Range<usize>) -> Vec<u8> {
    let mut request = Vec::new();
    for number in range {
        let mut series = Vec::new();
        for (name, value) in series_labels(number) {
            let mut label = Vec::new();
            bytes(&mut label, 1, name.as_bytes());
            bytes(&mut label, 2, value.as_bytes());
            bytes(&mut series, 1, &label);
        }
        bytes(&mut series, 2, &sample(number));
        bytes(&mut request, 1, &series);
    }
    request
}

fn remote_write_2(range: Range<usize>) -> Vec<u8> {
    let mut symbols = vec![String::new()];
    let mut known = HashMap::new();
    let mut all = Vec::new();
    for number in range {
        let mut refs = Vec::new();
        for (name, value) in series_labels(number) {
            for text in [name.to_owned(), value] {
                let next = symbols.len() as u64;
                let symbol = *known.entry(text.clone()).or_insert(next);
                if symbol == next {
                    symbols.push(text);
                }
                prost::encoding::encode_varint(symbol, &mut refs);
            }
        }
        let mut series = Vec::new();
        bytes(&mut series, 1, &refs);
        bytes(&mut series, 2, &sample(number));
        bytes(&mut series, 5, &[8, 1]);
        bytes(&mut all, 5, &series);
    }
    let mut request = Vec::new();
    symbols.iter().for_each(|symbol| bytes(&mut request, 4, symbol.as_bytes()));
    request.extend(all);
    request
}

/// 20 resources with 10 counters of 10 points each, or with as many points of a histogram as rows are wanted.
fn otlp_metrics(range: Range<usize>, points: usize, data: impl Fn(Vec<usize>) -> Data) -> Vec<u8> {
    const RESOURCES: usize = 20;
    const METRICS: usize = 10;
    let first = range.start / SAMPLES;
    let resource_metrics = (0..RESOURCES).map(|resource| {
        let pod = first * RESOURCES + resource;
        let attributes = vec![
            text("service.name", &format!("svc-{resource}")),
            text("service.namespace", "shop"),
            text("service.instance.id", &format!("svc-{resource}-7d9f8-{pod}")),
            text("k8s.pod.name", &format!("svc-{resource}-7d9f8-{pod}")),
            text("host.name", &format!("node-{}", pod % 7)),
        ];
        let metrics = (0..METRICS).map(|metric| Metric {
            name: format!("http.server.requests.{metric}"),
            unit: "{request}".into(),
            data: Some(data((0..points).map(|point| range.start + point).collect())),
            ..Metric::default()
        });
        ResourceMetrics {
            resource: Some(Resource { attributes, ..Resource::default() }),
            scope_metrics: vec![ScopeMetrics { metrics: metrics.collect(), ..ScopeMetrics::default() }],
            ..ResourceMetrics::default()
        }
    });
    ExportMetricsServiceRequest { resource_metrics: resource_metrics.collect() }.encode_to_vec()
}

fn point_attributes(point: usize) -> Vec<KeyValue> {
    vec![
        text("http.request.method", ["GET", "POST"][point % 2]),
        text("http.route", &format!("/api/v1/orders/{}", point % 97)),
        text("http.response.status_code", ["200", "404", "500"][point % 3]),
    ]
}

fn otlp_sums(range: Range<usize>) -> Vec<u8> {
    otlp_metrics(range, 10, |points| {
        let point = |point: usize| NumberDataPoint {
            attributes: point_attributes(point),
            start_time_unix_nano: 1_690_000_000_000_000_000,
            time_unix_nano: 1_700_000_000_000_000_000,
            value: Some(number_data_point::Value::AsInt(point as i64)),
            ..NumberDataPoint::default()
        };
        Data::Sum(Sum {
            data_points: points.into_iter().map(point).collect(),
            aggregation_temporality: 2,
            is_monotonic: true,
        })
    })
}

fn otlp_histograms(range: Range<usize>) -> Vec<u8> {
    // A point is 10 rows: seven bounds, `+Inf`, sum and count.
    otlp_metrics(range, 1, |points| {
        let point = |point: usize| HistogramDataPoint {
            attributes: point_attributes(point),
            start_time_unix_nano: 1_690_000_000_000_000_000,
            time_unix_nano: 1_700_000_000_000_000_000,
            count: 28,
            sum: Some(12.5),
            bucket_counts: (0..8).collect(),
            explicit_bounds: (0..7).map(|bound| f64::from(bound) * 0.25).collect(),
            ..HistogramDataPoint::default()
        };
        Data::Histogram(Histogram {
            data_points: points.into_iter().map(point).collect(),
            aggregation_temporality: 2,
        })
    })
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
