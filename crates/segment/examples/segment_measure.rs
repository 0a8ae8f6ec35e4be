//! Measures sorting, writing, compaction and queries on a generated load.
//!
//! `segment_measure FILE [LINES] [WORK_DIR]`: FILE is what `trine bench generate --format jsonl` writes, with its
//! `FILE.truth.json` beside it. In the environment: `FLUSH_MB` (40) raw MiB per flush; `DIRECT` writes templates at the
//! flush and joins the segments, as the store does; without it plain segments are merged into one with templates
//! (`PLAIN_ONLY`: not merged); `COLUMNS` prints bytes by column. Records are taken in batches of 5,000 in order of arrival; `GROUPED` in the
//! environment puts the records of a stream together within a batch, as Loki and OTLP senders do.

use std::{
    collections::BTreeMap,
    fs,
    io::{BufReader, BufWriter},
    path::PathBuf,
    sync::Arc,
    time::Instant,
};

use arrow::array::RecordBatch;
use futures::{StreamExt as _, executor::block_on};
use object_store::{ObjectStore, local::LocalFileSystem};
use serde_json::Value;
use trine_model::{Severity, SpanId, TenantId, TraceId};
use trine_schema::{
    Direction, LabelMatch, LabelMatcher, Labels, LineFilter, LogBatchBuilder, LogCount, LogFilter, LogRecord,
    LogScan, Needle, StreamRegistry, logs::column,
};
use trine_segment::{
    BodyEncoding, CachedIndex as _, IndexCache, Join, OnCorrupt, Segment, SegmentError, SegmentHandle,
    Snapshot, WriteOptions, count, merge_sorted, scan, sort_batches, write_segment,
};

/// The program's allocator, so that the figures are its own.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// How often the indexes are read; the median counts.
const LOADS: usize = 31;

/// Records of one push.
const PUSH_LINES: usize = 5_000;

/// CPU nanoseconds of this thread.
fn cpu() -> u64 {
    let text = fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
    text.split(' ').next().and_then(|ns| ns.parse().ok()).unwrap_or(0)
}

/// What the generator says is in the load.
struct Truth {
    service: String,
    from: i64,
    to: i64,
    rare_word: String,
    rare_regex: String,
    trace: TraceId,
    common: String,
}

fn truth(path: &str) -> Truth {
    let value: Value = serde_json::from_slice(&fs::read(path).unwrap()).unwrap();
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    Truth {
        service: text(&value["tail"]["service"]),
        from: value["tail"]["from_ns"].as_i64().unwrap(),
        to: value["tail"]["to_ns"].as_i64().unwrap(),
        rare_word: text(&value["rare_word"][0]),
        rare_regex: text(&value["rare_regex"][0]),
        trace: TraceId::from_hex(value["trace"][0].as_str().unwrap().as_bytes()).unwrap(),
        common: text(&value["common"][0]),
    }
}

/// Reads up to `lines` records as one push; none at the end.
fn push(
    file: &mut impl std::io::BufRead,
    lines: usize,
    registry: &StreamRegistry,
    tenant: &TenantId,
    known: &mut BTreeMap<String, u32>,
) -> Option<(RecordBatch, usize)> {
    let (mut records, mut line) = (Vec::new(), String::new());
    while records.len() < lines {
        line.clear();
        if file.read_line(&mut line).unwrap() == 0 {
            break;
        }
        let value: Value = serde_json::from_str(&line).unwrap();
        let text = |name: &str| value[name].as_str().unwrap_or("");
        let pod = text("pod").to_owned();
        let stream = *known.entry(pod).or_insert_with_key(|pod| {
            let labels = Labels::from_pairs(&[
                ("service_name", text("service_name")),
                ("pod", pod),
                ("namespace", text("namespace")),
            ]);
            registry.intern(tenant, labels).unwrap()
        });
        records.push((stream, value));
    }
    if records.is_empty() {
        return None;
    }
    if std::env::var_os("GROUPED").is_some() {
        records.sort_by_key(|(stream, _)| *stream);
    }
    let mut builder = LogBatchBuilder::new(tenant.clone(), records.len(), records.len() * 200);
    let mut bytes = 0;
    for (stream, value) in records {
        let text = |name: &str| value[name].as_str().unwrap_or("");
        let body = text("line");
        bytes += body.len();
        builder.body(body);
        let record = LogRecord {
            stream,
            timestamp: value["ts"].as_i64().unwrap(),
            severity: Severity::from_text(text("level")).unwrap_or_default(),
            trace_id: TraceId::from_hex(text("trace_id").as_bytes()).ok(),
            span_id: SpanId::from_hex(text("span_id").as_bytes()).ok(),
            ..LogRecord::default()
        };
        builder.push(&record).unwrap();
    }
    Some((builder.finish().records, bytes))
}

fn main() {
    let mut arguments = std::env::args().skip(1);
    let load = arguments.next().expect("usage: segment_measure FILE [LINES] [WORK_DIR]");
    let lines: usize = arguments.next().map_or(usize::MAX, |text| text.parse().expect("LINES is a number"));
    let work = arguments.next().map_or_else(|| std::env::temp_dir().join("trine-measure"), PathBuf::from);
    fs::create_dir_all(&work).unwrap();
    let flush_bytes = std::env::var("FLUSH_MB").map_or(40, |text| text.parse::<usize>().unwrap()) << 20;
    let truth = truth(&format!("{load}.truth.json"));
    let registry = Arc::new(StreamRegistry::new());
    let tenant = TenantId::default();
    let mut file = BufReader::with_capacity(1 << 20, fs::File::open(&load).unwrap());
    let mut known = BTreeMap::new();
    let (mut written, mut raw) = (0usize, 0usize);
    let store: Arc<dyn ObjectStore> = Arc::new(LocalFileSystem::new_with_prefix(&work).unwrap());
    let (mut sort_cpu, mut plain_cpu, mut flushed) = (0, 0, Vec::new());
    loop {
        let (mut batches, mut bytes) = (Vec::new(), 0);
        while bytes < flush_bytes && written < lines {
            let most = PUSH_LINES.min(lines - written);
            let Some((batch, more)) = push(&mut file, most, &registry, &tenant, &mut known) else { break };
            bytes += more;
            written += batch.num_rows();
            batches.push(batch);
        }
        if batches.is_empty() {
            break;
        }
        raw += bytes;
        let before = cpu();
        let mut sorted = sort_batches(&batches, &registry).unwrap();
        sort_cpu += cpu() - before;
        let path = work.join(format!("l0-{}.parquet", flushed.len()));
        let (before, mut copying) = (cpu(), 0);
        let file = BufWriter::with_capacity(1 << 20, fs::File::create(&path).unwrap());
        let rows = std::iter::from_fn(|| {
            let before = cpu();
            let batch = sorted.next();
            copying += cpu() - before;
            batch.map(Ok::<_, SegmentError>)
        });
        let body =
            if std::env::var_os("DIRECT").is_some() { BodyEncoding::Template } else { BodyEncoding::Plain };
        let meta =
            write_segment(file, &registry, rows, &WriteOptions { body, ..WriteOptions::default() }).unwrap();
        flushed.push(meta);
        sort_cpu += copying;
        plain_cpu += cpu() - before - copying;
    }
    let gb = raw as f64 / 1e9;
    let plain_bytes: u64 = flushed.iter().map(|meta| meta.file_bytes).sum();
    println!("raw {gb:.3} GB, {written} lines, {} segments", flushed.len());
    println!("sort  {:.2} CPU-s/GB", sort_cpu as f64 / 1e9 / gb);
    println!(
        "plain {:.2} CPU-s/GB, {:.4} of raw",
        plain_cpu as f64 / 1e9 / gb,
        plain_bytes as f64 / raw as f64
    );

    let open =
        |name: &str| Arc::new(block_on(Segment::open(store.clone(), name.into(), &registry, None)).unwrap());
    let plain: Vec<Arc<Segment>> = (0..flushed.len()).map(|i| open(&format!("l0-{i}.parquet"))).collect();
    let mut sets = vec![("plain", plain.clone())];
    {
        let before = cpu();
        let inputs = plain.iter().flat_map(Segment::sorted_runs).collect();
        let read: usize = merge_sorted(inputs, registry.clone()).map(|batch| batch.unwrap().num_rows()).sum();
        assert_eq!(read, written);
        println!("read+merge {:.2} CPU-s/GB", (cpu() - before) as f64 / 1e9 / gb);
    }
    if std::env::var_os("DIRECT").is_some() {
        let before = cpu();
        let file = BufWriter::with_capacity(1 << 20, fs::File::create(work.join("joined.parquet")).unwrap());
        let meta = Join::new(&plain, &WriteOptions::default()).unwrap().write(file).unwrap();
        println!(
            "join {:.2} CPU-s/GB, {:.4} of raw",
            (cpu() - before) as f64 / 1e9 / gb,
            meta.file_bytes as f64 / raw as f64
        );
        sets.push(("joined", vec![open("joined.parquet")]));
    }
    if std::env::var_os("PLAIN_ONLY").is_none() {
        let before = cpu();
        let inputs = plain.iter().flat_map(Segment::sorted_runs).collect();
        let file = BufWriter::with_capacity(1 << 20, fs::File::create(work.join("l1.parquet")).unwrap());
        let options = WriteOptions { body: BodyEncoding::Template, ..WriteOptions::default() };
        let meta = write_segment(file, &registry, merge_sorted(inputs, registry.clone()), &options).unwrap();
        println!(
            "read, merge, write template {:.2} CPU-s/GB, {:.4} of raw",
            (cpu() - before) as f64 / 1e9 / gb,
            meta.file_bytes as f64 / raw as f64
        );
        sets.push(("template", vec![open("l1.parquet")]));
    }
    for (name, segments) in &sets {
        loading(name, segments, &open);
        queries(segments, &registry, &tenant, &truth);
        if std::env::var_os("COLUMNS").is_some() {
            columns(segments, raw);
        }
    }
}

/// What it takes to open the segments and to read their indexes again.
fn loading(name: &str, segments: &[Arc<Segment>], open: &impl Fn(&str) -> Arc<Segment>) {
    let cache = IndexCache::new(0);
    let median = |work: &dyn Fn()| {
        let mut times: Vec<f64> = Vec::new();
        for _ in 0..LOADS {
            let before = Instant::now();
            work();
            times.push(before.elapsed().as_secs_f64() * 1e3);
        }
        times.sort_by(f64::total_cmp);
        times[LOADS / 2]
    };
    let opened = || segments.iter().map(|segment| open(segment.path().as_ref()));
    let handles: Vec<_> = opened().map(|segment| SegmentHandle::new(&segment, &cache)).collect();
    let open_ms = median(&|| opened().for_each(drop));
    let load_ms = median(&|| handles.iter().for_each(|handle| drop(handle.load().unwrap())));
    let memory: usize = segments.iter().map(|segment| segment.memory()).sum();
    println!("--- {name}: open {open_ms:.2} ms, load {load_ms:.2} ms, index {memory} bytes");
}

/// Bytes by column.
fn columns(segments: &[Arc<Segment>], raw: usize) {
    for (name, bytes) in Segment::bytes_by_part(segments) {
        println!("  {name:24} {bytes:>12} {:.5}", bytes as f64 / raw as f64);
    }
}

fn queries(segments: &[Arc<Segment>], registry: &Arc<StreamRegistry>, tenant: &TenantId, truth: &Truth) {
    let base = || LogScan { projection: vec![], ..LogScan::all(tenant.clone()) };
    let text = vec![column::STREAM, column::TIMESTAMP, column::BODY];
    let service = |name: &str| {
        vec![LabelMatcher { name: "service_name".into(), value: LabelMatch::Equal(name.into()) }]
    };
    let line = |needle| vec![LogFilter::Line(LineFilter { any: vec![needle], negated: false })];
    let word = |word: &str| line(Needle::Literal(word.into()));
    let with = |filters| LogScan { filters, projection: text.clone(), ..base() };
    let last = Some((Direction::Backward, 1000));
    let cases: Vec<(&str, LogScan)> = vec![
        (
            "last 1000 of a service, 5 min",
            LogScan {
                start: truth.from,
                end: truth.to,
                streams: service(&truth.service),
                projection: text.clone(),
                top: last,
                ..base()
            },
        ),
        (
            "last 1000 with |= Failed, all",
            LogScan {
                streams: service("openssh-1"),
                projection: text.clone(),
                filters: word("Failed"),
                top: last,
                ..base()
            },
        ),
        ("rare number", with(word("blk_-1608999687919862906"))),
        ("rare word", with(word(&truth.rare_word))),
        ("trace id", with(vec![LogFilter::trace_id(truth.trace)])),
        ("rare regex", with(line(Needle::Regex(regex::Regex::new(&truth.rare_regex).unwrap())))),
        (
            "rare regex of digits",
            with(line(Needle::Regex(regex::Regex::new("port 4[0-9]77[0-9] ssh[2-3]").unwrap()))),
        ),
        ("common substring counted", LogScan { filters: word(&truth.common), ..base() }),
        ("errors counted", LogScan { filters: vec![LogFilter::Severity(17..=20)], ..base() }),
        ("all bodies", LogScan { projection: vec![column::BODY], ..base() }),
    ];
    let quiet: OnCorrupt = Arc::new(|_, error| panic!("{error}"));
    let cache = IndexCache::new(usize::MAX);
    let handles = segments.iter().map(|segment| SegmentHandle::new(segment, &cache)).collect();
    let snapshot = Snapshot { memtable: vec![], segments: handles };
    for (name, case) in cases {
        let (mut best, mut rows) = (f64::MAX, 0);
        let mut stats = String::new();
        for _ in 0..7 {
            let case = LogScan { stats: Arc::default(), ..case.clone() };
            let kept = case.stats.clone();
            let before = Instant::now();
            let found: Vec<RecordBatch> = block_on(
                scan(snapshot.clone(), registry.clone(), case, quiet.clone()).map(Result::unwrap).collect(),
            );
            best = best.min(before.elapsed().as_secs_f64() * 1e3);
            rows = found.iter().map(RecordBatch::num_rows).sum::<usize>();
            let s = kept.snapshot();
            stats = format!(
                "granules {}+{}, {} KB",
                s.granules_scanned,
                s.granules_skipped,
                s.bytes_scanned / 1024
            );
        }
        println!("{name:32} {best:>9.2} ms  {rows:>9} rows  {stats}");
    }
    for (name, bucket_ns, start) in [
        ("count by level per minute", 60_000_000_000, i64::MIN),
        ("the same, odd start", 60_000_000_000, truth.from + 12_345_678_901),
        ("count per 10 s (columns)", 10_000_000_000, i64::MIN),
    ] {
        let mut best = f64::MAX;
        let mut rows = 0;
        for _ in 0..5 {
            let question = LogCount { scan: LogScan { start, ..base() }, bucket_ns };
            let before = Instant::now();
            let found = count(&snapshot, registry, &question, &quiet).unwrap().unwrap();
            best = best.min(before.elapsed().as_secs_f64() * 1e3);
            rows = found.iter().map(|row| row.count).sum();
        }
        println!("{name:32} {best:>9.2} ms  {rows:>9} rows");
    }
}
