//! Measures writing, compaction and queries on lines of real systems, mutated.
//!
//! `segment_measure DIR [LINES] [WORK_DIR]`: DIR holds `*.log` files; every line is replayed with fresh digits
//! into about 600 streams over one hour, 9 % with a trace id that four lines share.

use std::{fs, io::BufWriter, path::PathBuf, sync::Arc, time::Instant};

use arrow::array::RecordBatch;
use futures::{StreamExt as _, executor::block_on};
use object_store::{ObjectStore, local::LocalFileSystem};
use trine_model::{Severity, TenantId, TraceId};
use trine_schema::{
    Direction, LabelMatch, LabelMatcher, Labels, LineFilter, LogBatchBuilder, LogCount, LogFilter, LogRecord,
    LogScan, Needle, StreamRegistry, logs::column,
};
use trine_segment::{
    BodyEncoding, OnCorrupt, Segment, SegmentError, Snapshot, WriteOptions, count, merge_sorted, scan,
    sort_batches, write_segment,
};

const START: i64 = 1_760_000_000_000_000_000;
const HOUR: i64 = 3_600_000_000_000;
const STREAMS_PER_SYSTEM: usize = 37;
/// Lines of one push, all of one stream.
const PUSH_LINES: usize = 100;
/// Bytes of bodies of one flush.
const FLUSH_BYTES: usize = 64 << 20;

struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }
}

/// CPU nanoseconds of this thread.
fn cpu() -> u64 {
    let text = fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
    text.split(' ').next().and_then(|ns| ns.parse().ok()).unwrap_or(0)
}

fn mutate(line: &str, random: &mut Random, out: &mut String) {
    out.clear();
    let mut change = false;
    let mut in_digits = false;
    for c in line.chars() {
        if c.is_ascii_digit() {
            if !in_digits {
                change = random.next().is_multiple_of(2);
            }
            in_digits = true;
            out.push(if change { char::from(b'0' + (random.next() % 10) as u8) } else { c });
        } else {
            in_digits = false;
            out.push(c);
        }
    }
}

fn main() {
    let mut arguments = std::env::args().skip(1);
    let directory = PathBuf::from(arguments.next().expect("usage: segment_measure DIR [LINES] [WORK_DIR]"));
    let lines: usize = arguments.next().map_or(5_900_000, |text| text.parse().expect("LINES is a number"));
    let work = arguments.next().map_or_else(|| std::env::temp_dir().join("trine-measure"), PathBuf::from);
    fs::create_dir_all(&work).unwrap();
    let mut systems: Vec<(String, Vec<String>)> = fs::read_dir(&directory)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "log"))
        .map(|path| {
            let name = path.file_stem().unwrap().to_string_lossy().replace("_2k", "").to_lowercase();
            let text = String::from_utf8_lossy(&fs::read(&path).unwrap()).into_owned();
            (name, text.lines().map(str::to_owned).collect())
        })
        .collect();
    systems.sort();
    let registry = Arc::new(StreamRegistry::new());
    let tenant = TenantId::default();
    let streams: Vec<Vec<u32>> = systems
        .iter()
        .map(|(name, _)| {
            (0..STREAMS_PER_SYSTEM)
                .map(|number| {
                    let pod = format!("{name}-7d9f8b6c5-{number:05}");
                    let host = format!("node-{:02}", number % 12);
                    let labels = Labels::from_pairs(&[
                        ("service.name", name),
                        ("pod", &pod),
                        ("host", &host),
                        ("namespace", "prod"),
                        ("cluster", "eu-1"),
                    ]);
                    registry.intern(&tenant, labels).unwrap()
                })
                .collect()
        })
        .collect();

    let mut random = Random(88_172_645_463_325_252);
    let (mut text, mut written, mut raw) = (String::new(), 0usize, 0usize);
    let mut trace: Vec<[u8; 16]> = Vec::new();
    let mut needle_trace = None;
    let store: Arc<dyn ObjectStore> = Arc::new(LocalFileSystem::new_with_prefix(&work).unwrap());
    let (mut sort_cpu, mut plain_cpu, mut flushed) = (0, 0, Vec::new());
    while written < lines {
        let (mut batches, mut bytes) = (Vec::new(), 0);
        while bytes < FLUSH_BYTES && written < lines {
            let system = (random.next() % systems.len() as u64) as usize;
            let stream = streams[system][(random.next() % STREAMS_PER_SYSTEM as u64) as usize];
            let mut builder = LogBatchBuilder::new(tenant.clone(), PUSH_LINES, PUSH_LINES * 200);
            let from = START + (written as i64) * (HOUR / lines as i64);
            for number in 0..PUSH_LINES {
                let source = &systems[system].1;
                mutate(&source[(random.next() % source.len() as u64) as usize], &mut random, &mut text);
                builder.body(&text);
                let with_trace = random.next() % 100 < 9;
                if with_trace && (trace.len() < 64 || random.next().is_multiple_of(4)) {
                    let mut id = [0; 16];
                    id[..8].copy_from_slice(&random.next().to_le_bytes());
                    id[8..].copy_from_slice(&random.next().to_le_bytes());
                    if trace.len() > 256 {
                        trace.remove(0);
                    }
                    trace.push(id);
                }
                let id = with_trace.then(|| TraceId(trace[(random.next() % trace.len() as u64) as usize]));
                if written > lines / 2 && needle_trace.is_none() {
                    needle_trace = id;
                }
                let severity = match random.next() % 50 {
                    0 => 17,
                    1 | 2 => 13,
                    _ => 9,
                };
                builder
                    .push(&LogRecord {
                        stream,
                        timestamp: from
                            + number as i64 * (HOUR / lines as i64)
                            + (random.next() % 500) as i64,
                        severity: Severity::from_number(severity),
                        trace_id: id,
                        ..LogRecord::default()
                    })
                    .unwrap();
                bytes += text.len();
                written += 1;
            }
            batches.push(builder.finish().records);
        }
        raw += bytes;
        let before = cpu();
        let sorted = sort_batches(&batches, &registry).unwrap();
        sort_cpu += cpu() - before;
        let path = work.join(format!("l0-{}.parquet", flushed.len()));
        let before = cpu();
        let file = BufWriter::with_capacity(1 << 20, fs::File::create(&path).unwrap());
        let rows = sorted.into_iter().map(Ok::<_, SegmentError>);
        flushed.push(write_segment(file, &registry, rows, &WriteOptions::default()).unwrap());
        plain_cpu += cpu() - before;
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
        let inputs = plain.iter().map(|segment| Box::new(segment.sorted_batches()) as Box<_>).collect();
        let read: usize = merge_sorted(inputs, registry.clone()).map(|batch| batch.unwrap().num_rows()).sum();
        assert_eq!(read, written);
        println!("read+merge {:.2} CPU-s/GB", (cpu() - before) as f64 / 1e9 / gb);
    }
    if std::env::var_os("PLAIN_ONLY").is_none() {
        let before = cpu();
        let inputs = plain.iter().map(|segment| Box::new(segment.sorted_batches()) as Box<_>).collect();
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
        let before = Instant::now();
        for segment in segments {
            open(segment.path().as_ref());
        }
        let memory: usize = segments.iter().map(|segment| segment.memory()).sum();
        println!("--- {name}: open {:.1} ms, index {memory} bytes", before.elapsed().as_secs_f64() * 1e3);
        queries(segments, &registry, &tenant, needle_trace.unwrap());
        if std::env::var_os("COLUMNS").is_some() {
            columns(segments, raw);
        }
    }
}

/// Bytes by column.
fn columns(segments: &[Arc<Segment>], raw: usize) {
    for (name, bytes) in Segment::bytes_by_part(segments) {
        println!("  {name:24} {bytes:>12} {:.5}", bytes as f64 / raw as f64);
    }
}

fn queries(segments: &[Arc<Segment>], registry: &Arc<StreamRegistry>, tenant: &TenantId, trace: TraceId) {
    let base = || LogScan { projection: vec![], ..LogScan::all(tenant.clone()) };
    let text = vec![column::STREAM, column::TIMESTAMP, column::BODY];
    let service = |name: &str| {
        vec![LabelMatcher { name: "service.name".into(), value: LabelMatch::Equal(name.into()) }]
    };
    let line = |needle| vec![LogFilter::Line(LineFilter { any: vec![needle], negated: false })];
    let regex = |pattern: &str| Needle::Regex(regex::Regex::new(pattern).unwrap());
    let middle = START + HOUR / 2;
    let cases: Vec<(&str, LogScan)> = vec![
        (
            "last 1000 of a service, 5 min",
            LogScan {
                start: middle,
                end: middle + HOUR / 12,
                streams: service("openssh"),
                projection: text.clone(),
                top: Some((Direction::Backward, 1000)),
                ..base()
            },
        ),
        (
            "last 1000 with |= Failed, all",
            LogScan {
                streams: service("openssh"),
                projection: text.clone(),
                filters: line(Needle::Literal("Failed".into())),
                top: Some((Direction::Backward, 1000)),
                ..base()
            },
        ),
        (
            "rare word (number)",
            LogScan {
                filters: line(Needle::Literal("blk_-1608999687919862906".into())),
                projection: text.clone(),
                ..base()
            },
        ),
        (
            "trace id",
            LogScan { filters: vec![LogFilter::TraceId(trace)], projection: text.clone(), ..base() },
        ),
        (
            "rare substring regex",
            LogScan {
                filters: line(regex("port 4[0-9]77[0-9] ssh[2-3]")),
                projection: text.clone(),
                ..base()
            },
        ),
        (
            "common substring counted",
            LogScan { filters: line(Needle::Literal("Failed password".into())), ..base() },
        ),
        ("errors counted", LogScan { filters: vec![LogFilter::Severity(17..=20)], ..base() }),
        ("all bodies", LogScan { projection: vec![column::BODY], ..base() }),
    ];
    let quiet: OnCorrupt = Arc::new(|_, error| panic!("{error}"));
    let snapshot = Snapshot { memtable: vec![], segments: segments.to_vec() };
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
        ("the same, odd start", 60_000_000_000, START + 12_345_678_901),
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
