//! Measures bytes, writing and reading of a segment of spans.
//!
//! `span_measure made SPANS [WORK_DIR]` makes spans as OpenTelemetry's HTTP and database instrumentations do
//! (about 350 bytes in OTLP); `span_measure FILE [WORK_DIR]` takes OTLP JSON lines, as the file exporter writes
//! them, decompressed.

use std::{collections::HashMap, fs, io::BufRead, path::PathBuf, sync::Arc, time::Instant};

use futures::executor::block_on;
use object_store::{ObjectStore, local::LocalFileSystem, path::Path};
use serde_json::Value;
use trine_model::{SpanId, TenantId, TraceId};
use trine_schema::{
    LabelMatch, LabelMatcher, Labels, ScanStats, Span, SpanBatchBuilder, SpanScan, StreamRef, StreamRegistry,
};
use trine_segment::{IndexCache, SpanSegment, WriteOptions, sort_spans, write_spans};

/// The program's allocator, so that the figures are its own.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Spans of one push.
const PUSH_SPANS: usize = 5_000;

/// Numbers that look random and are the same in every run (xorshift64).
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn below(&mut self, limit: u64) -> u64 {
        self.next() % limit
    }

    /// Between 1 and 2^`bits`, every size as likely.
    fn size(&mut self, bits: u64) -> u64 {
        let shift = self.below(bits);
        1 + self.next() % (1 << (shift + 1))
    }
}

/// CPU seconds of this thread.
fn cpu() -> f64 {
    let text = fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
    text.split(' ').next().and_then(|ns| ns.parse::<f64>().ok()).unwrap_or(0.0) / 1e9
}

/// Batches in the order of arrival, and some of their traces.
type Load = (Vec<arrow::array::RecordBatch>, Vec<TraceId>);

/// A span before it is a row; ordered by its end, when it leaves.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Made {
    end: i64,
    trace: [u8; 16],
    span: u64,
    parent: u64,
    start: i64,
    place: usize,
}

/// Traces of requests: an entry, services behind it, databases behind them; spans leave when they end.
fn made(spans: usize, registry: &StreamRegistry, tenant: &TenantId) -> Load {
    let mut random = Random(0x2545_f491_4f6c_dd1d);
    let streams: Vec<StreamRef> = (0..40 * 5)
        .map(|n| {
            let (service, pod) =
                (format!("service-{}", n / 5), format!("service-{}-{:08x}", n / 5, n * 7919));
            let pairs = [
                ("service.name", service.as_str()),
                ("k8s.pod.name", &pod),
                ("telemetry.sdk.language", "java"),
            ];
            registry.intern(tenant, Labels::from_pairs(&pairs)).unwrap()
        })
        .collect();
    let mut rows: Vec<Made> = Vec::with_capacity(spans);
    let (mut now, mut traces) = (1_795_075_200_000_000_000_i64, Vec::new());
    while rows.len() < spans {
        now += random.below(400_000) as i64;
        let mut id = [0; 16];
        id[..8].copy_from_slice(&random.next().to_be_bytes());
        id[8..].copy_from_slice(&random.next().to_be_bytes());
        if traces.len() < 1_000 {
            traces.push(TraceId(id));
        }
        let (count, mut open) = (1 + random.below(14), Vec::new());
        let mut start = now;
        for depth in 0..count {
            let span = random.next() | 1;
            let parent = if depth == 0 { 0 } else { open[random.below(open.len() as u64) as usize] };
            open.push(span);
            let duration = 20_000 + random.size(28) as i64;
            let place = random.below(200) as usize;
            rows.push(Made { end: start + duration, trace: id, span, parent, start, place });
            start += random.size(20) as i64;
        }
    }
    rows.truncate(spans);
    rows.sort_unstable();
    let mut batches = Vec::new();
    for push in rows.chunks(PUSH_SPANS) {
        let mut b = SpanBatchBuilder::new(tenant.clone(), push.len());
        for Made { end, trace, span, parent, start, place } in push {
            let route = random.below(12);
            let status = if random.below(60) == 0 { 500 } else { 200 };
            if random.below(3) == 0 {
                b.attribute("db.system", "postgresql");
                b.attribute("db.operation.name", ["SELECT", "INSERT", "UPDATE"][route as usize % 3]);
                b.attribute("db.collection.name", &format!("table_{route}"));
                b.attribute("server.address", &format!("db-{}.internal", place % 4));
            } else {
                b.attribute("http.request.method", ["GET", "POST"][route as usize % 2]);
                b.attribute("http.route", &format!("/api/v1/resource-{route}/{{id}}"));
                b.attribute("url.path", &format!("/api/v1/resource-{route}/{}", random.below(100_000)));
                b.attribute("http.response.status_code", &status.to_string());
                b.attribute("client.address", &format!("10.4.{}.{}", random.below(16), random.below(250)));
            }
            b.attribute("thread.id", &(20 + random.below(50)).to_string());
            b.push(&Span {
                stream: streams[*place],
                timestamp: *start,
                duration_ns: end - start,
                trace_id: TraceId(*trace),
                span_id: SpanId(span.to_be_bytes()),
                parent_span_id: (*parent != 0).then(|| SpanId(parent.to_be_bytes())),
                operation: &format!("operation-{}-{route}", place / 5),
                kind: 1 + (route % 3) as u8,
                status_code: if status == 500 { 2 } else { 0 },
                status_message: "",
                trace_state: "",
                trace_flags: 1,
                scope_name: "io.opentelemetry.http",
            });
        }
        batches.push(b.finish().records);
    }
    (batches, traces)
}

fn hex<const N: usize>(value: &Value) -> Option<[u8; N]> {
    let text = value.as_str().filter(|text| text.len() == N * 2)?;
    let mut id = [0; N];
    for (byte, pair) in id.iter_mut().zip(text.as_bytes().chunks(2)) {
        *byte = u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok()?;
    }
    Some(id)
}

/// Spans of OTLP JSON lines; attributes that are text.
fn from_file(path: &str, registry: &StreamRegistry, tenant: &TenantId) -> Load {
    let (mut batches, mut traces) = (Vec::new(), Vec::new());
    let mut b = SpanBatchBuilder::new(tenant.clone(), PUSH_SPANS);
    let array = |value: &Value| value.as_array().cloned().unwrap_or_default();
    for line in std::io::BufReader::new(fs::File::open(path).unwrap()).lines() {
        let request: Value = serde_json::from_str(&line.unwrap()).unwrap();
        for resource in array(&request["resourceSpans"]) {
            let pairs: HashMap<String, String> = array(&resource["resource"]["attributes"])
                .iter()
                .filter_map(|pair| {
                    Some((pair["key"].as_str()?.into(), pair["value"]["stringValue"].as_str()?.into()))
                })
                .collect();
            let pairs: Vec<(&str, &str)> = pairs.iter().map(|(k, v)| (k.as_str(), v.as_str())).collect();
            let stream = registry.intern(tenant, Labels::from_pairs(&pairs)).unwrap();
            for span in array(&resource["scopeSpans"]).iter().flat_map(|scope| array(&scope["spans"])) {
                let time =
                    |name: &str| span[name].as_str().and_then(|text| text.parse::<i64>().ok()).unwrap_or(0);
                let trace = TraceId(hex(&span["traceId"]).unwrap());
                if traces.len() < 1_000 && !traces.contains(&trace) {
                    traces.push(trace);
                }
                b.push(&Span {
                    stream,
                    timestamp: time("startTimeUnixNano"),
                    duration_ns: time("endTimeUnixNano") - time("startTimeUnixNano"),
                    trace_id: trace,
                    span_id: SpanId(hex(&span["spanId"]).unwrap()),
                    parent_span_id: hex(&span["parentSpanId"]).map(SpanId),
                    operation: span["name"].as_str().unwrap_or(""),
                    kind: 0,
                    status_code: 0,
                    status_message: "",
                    trace_state: "",
                    trace_flags: 0,
                    scope_name: "",
                });
            }
        }
        if b.len() >= PUSH_SPANS {
            let full = std::mem::replace(&mut b, SpanBatchBuilder::new(tenant.clone(), PUSH_SPANS));
            batches.push(full.finish().records);
        }
    }
    batches.push(b.finish().records);
    (batches, traces)
}

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let Some(source) = arguments.first() else {
        eprintln!("usage: span_measure made SPANS [WORK_DIR] | span_measure FILE [WORK_DIR]");
        std::process::exit(2);
    };
    let (registry, tenant) = (StreamRegistry::new(), TenantId::default());
    let ((batches, traces), dir) = if source == "made" {
        let spans = arguments.get(1).and_then(|n| n.parse().ok()).unwrap_or(1_000_000);
        (made(spans, &registry, &tenant), arguments.get(2))
    } else {
        (from_file(source, &registry, &tenant), arguments.get(1))
    };
    let spans: usize = batches.iter().map(arrow::array::RecordBatch::num_rows).sum();
    let dir = dir.map_or_else(std::env::temp_dir, PathBuf::from);
    fs::create_dir_all(&dir).unwrap();
    let path = dir.join("spans.parquet");
    let begun = cpu();
    let sorted = sort_spans(&batches, &registry).unwrap();
    let sort = cpu() - begun;
    let file = std::io::BufWriter::new(fs::File::create(&path).unwrap());
    let meta = write_spans(file, &registry, sorted, &WriteOptions::default()).unwrap();
    let per_million = 1e6 / spans as f64;
    println!(
        "{spans} spans: {:.1} bytes a span; CPU-s per million: sort {:.2}, write {:.2}",
        meta.file_bytes as f64 / spans as f64,
        sort * per_million,
        (cpu() - begun - sort) * per_million
    );
    let store: Arc<dyn ObjectStore> = Arc::new(LocalFileSystem::new_with_prefix(&dir).unwrap());
    let cache = IndexCache::new(usize::MAX);
    let segment =
        block_on(SpanSegment::open(store, Path::from("spans.parquet"), &registry, Some(&meta), &cache))
            .unwrap();
    for (part, bytes) in segment.bytes_by_part().unwrap() {
        println!("{part:40} {:7.2} bytes a span", bytes as f64 / spans as f64);
    }
    let (mut times, mut found) = (Vec::new(), 0);
    let stats = ScanStats::default();
    for trace in &traces {
        let begun = Instant::now();
        let batches = segment.trace(&tenant, *trace, &stats).unwrap();
        times.push(begun.elapsed().as_secs_f64() * 1e3);
        found += batches.iter().map(arrow::array::RecordBatch::num_rows).sum::<usize>();
    }
    times.sort_by(f64::total_cmp);
    println!(
        "trace by id: median {:.2} ms, p95 {:.2} ms, {found} spans of {} traces, {} granules read of {} each",
        times[times.len() / 2],
        times[times.len() * 95 / 100],
        traces.len(),
        stats.snapshot().granules_scanned,
        segment.granules(),
    );
    let of =
        |service: &str| LabelMatcher { name: "service".into(), value: LabelMatch::Equal(service.into()) };
    let all = || SpanScan::all(tenant.clone());
    let minutes = 15 * 60_000_000_000;
    let scans = [
        (
            "newest 20 of a service and operation in 15 minutes",
            SpanScan {
                start: meta.max_timestamp - minutes,
                streams: vec![of("service-7")],
                operation: Some("operation-7-3".into()),
                newest: Some(20),
                ..all()
            },
        ),
        (
            "status 500 and longer than 100 ms",
            SpanScan {
                duration: 100_000_000..=i64::MAX,
                attributes: vec![("http.response.status_code".into(), "500".into())],
                ..all()
            },
        ),
    ];
    for (name, scan) in scans {
        let (mut times, mut rows) = (Vec::new(), 0);
        for _ in 0..20 {
            let begun = Instant::now();
            let found = segment.scan(&scan, &registry).unwrap();
            times.push(begun.elapsed().as_secs_f64() * 1e3);
            rows = found.iter().map(arrow::array::RecordBatch::num_rows).sum();
        }
        times.sort_by(f64::total_cmp);
        println!("{name}: median {:.2} ms, {rows} spans", times[times.len() / 2]);
    }
}
