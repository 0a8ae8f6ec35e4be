//! Measures bytes, writing and reading of a segment of spans.
//!
//! `span_measure made SPANS [WORK_DIR [SEGMENTS]]` makes spans as OpenTelemetry's HTTP and database
//! instrumentations do (about 350 bytes in OTLP); `span_measure FILE [WORK_DIR [SEGMENTS]]` takes OTLP JSON
//! lines, as the file exporter writes them, decompressed. With several segments they are merged and joined too. On a
//! busy machine the CPU times tell more than the wall times.

use std::{collections::HashMap, fs, io::BufRead, path::PathBuf, sync::Arc, time::Instant};

use futures::{TryStreamExt as _, executor::block_on};
use object_store::{ObjectStore, local::LocalFileSystem, path::Path};
use serde_json::Value;
use trine_model::{SpanId, TenantId, TraceId};
use trine_schema::{
    LabelMatch, LabelMatcher, Labels, Span, SpanBatchBuilder, SpanScan, StreamRef, StreamRegistry,
    spans::column,
};
use trine_segment::{
    IndexCache, OnCorrupt, SegmentMeta, SpanSegment, SpanSnapshot, WriteOptions, join_spans, merge_spans,
    scan_spans, search_traces, sort_spans, write_spans,
};

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
            // One in a thousand takes seconds.
            let slow = if random.below(1_000) == 0 { 4_000_000_000 } else { 1 };
            let duration = 20_000 + random.size(28) as i64 + random.below(slow) as i64;
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

/// CPU seconds of all threads.
fn cpu_of_all() -> f64 {
    let tasks = fs::read_dir("/proc/self/task").into_iter().flatten().flatten();
    let of = |task: fs::DirEntry| -> Option<f64> {
        let text = fs::read_to_string(task.path().join("schedstat")).ok()?;
        text.split(' ').next()?.parse().ok()
    };
    tasks.filter_map(of).sum::<f64>() / 1e9
}

/// Prints wall times and CPU of a question; the answer of `ask` is a number of rows.
fn measure(name: &str, times: usize, mut ask: impl FnMut(usize) -> usize) {
    let (mut walls, mut rows, begun) = (Vec::new(), 0, cpu_of_all());
    for number in 0..times {
        let begun = Instant::now();
        rows += ask(number);
        walls.push(begun.elapsed().as_secs_f64() * 1e3);
    }
    let cpu = (cpu_of_all() - begun) * 1e3 / times as f64;
    walls.sort_by(f64::total_cmp);
    println!(
        "{name:62} median {:8.2} ms, least {:8.2} ms, CPU {cpu:8.2} ms, {} rows",
        walls[walls.len() / 2],
        walls[0],
        rows / times
    );
}

/// Sorts and writes a part of the batches as one segment.
fn write(
    batches: &[arrow::array::RecordBatch],
    registry: &StreamRegistry,
    path: &std::path::Path,
) -> (SegmentMeta, f64, f64) {
    let begun = cpu();
    let sorted = sort_spans(batches, registry).unwrap();
    let sort = cpu() - begun;
    let file = std::io::BufWriter::new(fs::File::create(path).unwrap());
    let meta = write_spans(file, registry, sorted, &WriteOptions::default()).unwrap();
    (meta, sort, cpu() - begun - sort)
}

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let Some(source) = arguments.first() else {
        eprintln!(
            "usage: span_measure made SPANS [WORK_DIR [SEGMENTS]] | span_measure FILE [WORK_DIR [SEGMENTS]]"
        );
        std::process::exit(2);
    };
    let (registry, tenant) = (Arc::new(StreamRegistry::new()), TenantId::default());
    let ((batches, traces), rest) = if source == "made" {
        let spans = arguments.get(1).and_then(|n| n.parse().ok()).unwrap_or(1_000_000);
        (made(spans, &registry, &tenant), &arguments[2.min(arguments.len())..])
    } else {
        (from_file(source, &registry, &tenant), &arguments[1..])
    };
    let spans: usize = batches.iter().map(arrow::array::RecordBatch::num_rows).sum();
    let dir = rest.first().map_or_else(std::env::temp_dir, PathBuf::from);
    let parts: usize = rest.get(1).and_then(|n| n.parse().ok()).unwrap_or(1);
    fs::create_dir_all(&dir).unwrap();
    let store: Arc<dyn ObjectStore> = Arc::new(LocalFileSystem::new_with_prefix(&dir).unwrap());
    let cache = IndexCache::new(usize::MAX);
    let (mut sort, mut written, mut bytes, mut segments) = (0.0, 0.0, 0, Vec::new());
    for (number, part) in batches.chunks(batches.len().div_ceil(parts)).enumerate() {
        let name = format!("spans-{number}.parquet");
        let (meta, sorting, writing) = write(part, &registry, &dir.join(&name));
        (sort, written, bytes) = (sort + sorting, written + writing, bytes + meta.file_bytes);
        let opened = SpanSegment::open(store.clone(), Path::from(name), &registry, Some(&meta), &cache);
        segments.push(block_on(opened).unwrap());
    }
    drop(batches);
    let per_million = 1e6 / spans as f64;
    println!(
        "{spans} spans in {} segments: {:.1} bytes a span; CPU-s per million: sort {:.2}, write {:.2}",
        segments.len(),
        bytes as f64 / spans as f64,
        sort * per_million,
        written * per_million
    );
    if segments.len() == 1 {
        for (part, bytes) in segments[0].bytes_by_part().unwrap() {
            println!("{part:40} {:7.2} bytes a span", bytes as f64 / spans as f64);
        }
    } else {
        let begun = cpu();
        let path = dir.join("merged.parquet");
        let file = std::io::BufWriter::new(fs::File::create(&path).unwrap());
        let merged = merge_spans(&segments, &registry, None, &WriteOptions::default(), file).unwrap();
        println!(
            "merged: {:.1} bytes a span, {:.2} CPU-s per million",
            merged.map_or(0.0, |meta| meta.file_bytes as f64 / spans as f64),
            (cpu() - begun) * per_million
        );
        let begun = cpu();
        let file = std::io::BufWriter::new(fs::File::create(&path).unwrap());
        let joined = join_spans(&segments, &WriteOptions::default(), file).unwrap();
        println!(
            "joined: {:.1} bytes a span, {:.2} CPU-s per million",
            joined.file_bytes as f64 / spans as f64,
            (cpu() - begun) * per_million
        );
        let opened = SpanSegment::open(store, Path::from("merged.parquet"), &registry, Some(&joined), &cache);
        segments = vec![block_on(opened).unwrap()];
    }
    let last = segments.iter().map(|segment| segment.meta().max_timestamp).max().unwrap();
    ask(&SpanSnapshot { memtable: Vec::new(), segments }, &registry, &cache, &traces, last);
}

/// The questions of `docs/benchmarks.md` and those behind joins and searches.
fn ask(
    snapshot: &SpanSnapshot,
    registry: &Arc<StreamRegistry>,
    cache: &Arc<IndexCache>,
    traces: &[TraceId],
    last: i64,
) {
    let on_corrupt: OnCorrupt<SpanSegment> = Arc::new(|segment, error| panic!("{segment:?}: {error}"));
    let run = |scan: SpanScan| -> usize {
        let found = scan_spans(snapshot.clone(), registry.clone(), scan, on_corrupt.clone());
        let batches: Vec<arrow::array::RecordBatch> = block_on(found.try_collect()).unwrap();
        batches.iter().map(arrow::array::RecordBatch::num_rows).sum()
    };
    let all = || SpanScan::all(TenantId::default());
    let trace =
        |number: usize| SpanScan { traces: Some(Arc::new([traces[number * 7_919 % traces.len()]])), ..all() };
    measure("trace by id, indexes not in memory", 100, |number| {
        cache.let_go(std::time::Duration::ZERO);
        run(trace(number))
    });
    measure("trace by id", 500, |number| run(trace(number)));
    let of =
        |service: &str| LabelMatcher { name: "service".into(), value: LabelMatch::Equal(service.into()) };
    let minutes = 15 * 60_000_000_000;
    let newest = SpanScan {
        start: last - minutes,
        streams: vec![of("service-7")],
        operation: Some("operation-7-3".into()),
        newest: Some(20),
        ..all()
    };
    measure("newest 20 of a service and operation in 15 minutes", 50, |_| run(newest.clone()));
    let status = ("http.response.status_code".to_owned(), "500".to_owned());
    let slow = SpanScan { duration: 1_000_000_000..=i64::MAX, attributes: vec![status], ..all() };
    let ids = vec![column::TIMESTAMP, column::DURATION, column::TRACE_ID, column::SPAN_ID, column::OPERATION];
    for (name, projection) in
        [("count", vec![]), ("ids and names", ids), ("all columns", slow.projection.clone())]
    {
        let scan = SpanScan { projection, ..slow.clone() };
        measure(&format!("status 500 and longer than 1 s: {name}"), 20, |_| run(scan.clone()));
    }
    let shorter = SpanScan { duration: 100_000_000..=i64::MAX, projection: Vec::new(), ..slow.clone() };
    measure("status 500 and longer than 100 ms: count", 20, |_| run(shorter.clone()));
    let errors =
        SpanScan { status_code: Some(2), projection: vec![column::STREAM, column::TIMESTAMP], ..all() };
    measure("errors: stream and start, for counts by service and minute", 20, |_| run(errors.clone()));
    let durations = SpanScan { projection: vec![column::DURATION, column::OPERATION], ..all() };
    let coded = SpanScan { dictionaries: true, ..durations.clone() };
    measure("operation (as codes) and duration of all, for quantiles", 10, |_| run(coded.clone()));
    measure("operation (as text) and duration of all", 10, |_| run(durations.clone()));
    let mut ids: Vec<TraceId> = traces.to_vec();
    ids.sort_unstable();
    let join = SpanScan {
        traces: Some(ids.into()),
        projection: vec![column::STREAM, column::TIMESTAMP, column::DURATION, column::TRACE_ID],
        ..all()
    };
    measure("spans of 1,000 traces, as a join reads them", 20, |_| run(join.clone()));
    measure("rows of everything", 10, |_| run(SpanScan { projection: Vec::new(), ..all() }));
    let search = |scan: &SpanScan| search_traces(snapshot, registry, scan, &on_corrupt).unwrap().len();
    measure("newest 20 traces with a span of a service and operation", 20, |_| search(&newest));
    let failed = SpanScan { status_code: Some(2), newest: Some(20), ..all() };
    measure("newest 20 traces with an error", 20, |_| search(&failed));
}
