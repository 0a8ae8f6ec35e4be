//! Measures the store alone: decoded batches of 5,000 rows from four producers.
//!
//! `cargo run --release -p trine-store --example ingest -- [GB=1] [lines/s, 0 = all it takes] [DIR]`
//! prints lines/s, CPU seconds per raw GB (the producers' building of batches measured apart and
//! taken off), memory after each GB and its peak, latency of appends, segments and disk per raw byte.

use std::{
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use trine_model::{Severity, TenantId, TraceId};
use trine_schema::{Labels, LogBatch, LogBatchBuilder, LogRecord, StreamRef};
use trine_store::{Store, StoreConfig};

/// The allocator of the program.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const ROWS: usize = 5_000;
const PRODUCERS: u64 = 4;
const STREAMS: u64 = 600;
const GB: u64 = 1_000_000_000;

#[allow(clippy::many_single_char_names)]
/// One of a dozen line shapes with fresh variables; about 170 bytes.
fn line(out: &mut String, n: u64) {
    use std::fmt::Write;
    let x = n.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let (a, b, c) = (x >> 40, (x >> 20) & 0xffff, x & 0xff);
    out.clear();
    let _ = match x >> 60 {
        0..=3 => write!(
            out,
            "GET /api/v1/orders/{a} 200 {b}us bytes={c} user_agent=\"Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36\" \
             remote=10.{}.{c}.{} upstream=cart-{c} cache=MISS",
            b & 255,
            a & 255
        ),
        4..=7 => write!(
            out,
            "dfs.DataNode$PacketResponder: PacketResponder {c} for block blk_{x} terminating after {b} ms, replica size {a}, \
             pipeline [10.250.{c}.{}, 10.251.{}.9, 10.251.71.16]",
            b & 255,
            a & 255
        ),
        8..=11 => write!(
            out,
            "Authentication of session {x:016x} succeeded for user u{a} from 192.168.{c}.{} port {b} ssh2; key \
             fingerprint SHA256:{x:016x}{a:08x}, policy default-allow applied",
            b & 255
        ),
        12..=14 => write!(
            out,
            "TaskSetManager: Finished task {c}.0 in stage {b}.0 (TID {a}) in {b} ms on mesos-slave-{c} (executor {c}) \
             ({c}/{b}); shuffle read {a} B, spill 0 B, gc {c} ms, result size {b}"
        ),
        _ => write!(
            out,
            "ERROR timeout after {b} ms while calling payment service, trace {x:016x}, attempt {c} of 255, will retry in {a} ms with back-off"
        ),
    };
}

fn batch(streams: &[StreamRef], number: u64, text: &mut String) -> LogBatch {
    let mut builder = LogBatchBuilder::new(TenantId::default(), ROWS, ROWS * 200);
    for row in 0..ROWS as u64 {
        let n = number * ROWS as u64 + row;
        line(text, n);
        builder.body(text);
        let trace_id = n.is_multiple_of(11).then(|| {
            TraceId(
                (u128::from(n / 44).wrapping_mul(0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835) | 1)
                    .to_be_bytes(),
            )
        });
        let record = LogRecord {
            stream: streams[(n / 40 % STREAMS) as usize],
            timestamp: 1_795_075_200_000_000_000 + n as i64 * 600_000,
            severity: Severity::from_number(if text.starts_with("ERROR") { 17 } else { 9 }),
            trace_id,
            ..Default::default()
        };
        builder.push(&record).expect("the line is text");
    }
    builder.finish()
}

/// Process CPU seconds and peak memory in MiB.
fn usage() -> (f64, u64) {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap();
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap().split_whitespace().collect();
    let ticks: f64 = fields[11].parse::<f64>().unwrap() + fields[12].parse::<f64>().unwrap();
    (ticks / 100.0, memory("VmHWM:"))
}

/// A field of the process's status in MiB.
fn memory(field: &str) -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let found = status.lines().find_map(|l| l.strip_prefix(field)).unwrap();
    found.trim().trim_end_matches(" kB").parse::<u64>().unwrap() / 1024
}

fn disk(dir: &Path) -> u64 {
    let Ok(entries) = std::fs::read_dir(dir) else { return 0 };
    let sizes = entries
        .flatten()
        .map(|e| if e.path().is_dir() { disk(&e.path()) } else { e.metadata().map_or(0, |m| m.len()) });
    sizes.sum()
}

#[tokio::main]
async fn main() {
    let mut args = std::env::args().skip(1);
    let gigabytes: f64 = args.next().map_or(1.0, |a| a.parse().expect("GB"));
    let rate: f64 = args.next().map_or(0.0, |a| a.parse().expect("lines/s"));
    let dir = args.next().map_or_else(|| std::env::temp_dir().join("trine-ingest"), PathBuf::from);
    let _ = std::fs::remove_dir_all(&dir);
    let store = Store::open(StoreConfig::new(&dir)).unwrap();
    let streams: Arc<Vec<StreamRef>> = Arc::new(
        (0..STREAMS)
            .map(|i| {
                let labels = Labels::from_pairs(&[
                    ("service_name", &format!("service-{}", i / 20)),
                    ("pod", &format!("pod-{i}-7f9c5d")),
                    ("namespace", "shop"),
                ]);
                store.registry().intern(&TenantId::default(), labels).unwrap()
            })
            .collect(),
    );
    let mut text = String::new();
    let begun = usage().0;
    let mut sample = 0;
    for number in 0..100 {
        sample += batch(&streams, number, &mut text).records.num_rows();
    }
    let building = (usage().0 - begun) / sample as f64;

    let (next, raw) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
    let latencies = Arc::new(Mutex::new(Vec::<Duration>::new()));
    let target = (gigabytes * 1e9) as u64;
    let (cpu, start) = (usage().0, Instant::now());
    let producers: Vec<_> = (0..PRODUCERS)
        .map(|_| {
            let (store, streams, next, raw, latencies) =
                (store.clone(), streams.clone(), next.clone(), raw.clone(), latencies.clone());
            tokio::spawn(async move {
                let mut text = String::new();
                while raw.load(Relaxed) < target {
                    let number = next.fetch_add(1, Relaxed);
                    let batch = batch(&streams, number, &mut text);
                    if rate > 0.0 {
                        let due = start + Duration::from_secs_f64((number * ROWS as u64) as f64 / rate);
                        tokio::time::sleep_until(due.into()).await;
                    }
                    let body = batch.records.column(trine_schema::logs::column::BODY);
                    let bytes = arrow::array::AsArray::as_string::<i32>(body).value_data().len() as u64;
                    let before = raw.fetch_add(bytes, Relaxed);
                    if before / GB != (before + bytes) / GB {
                        println!("memory after {} GB: {} MiB", (before + bytes) / GB, memory("VmRSS:"));
                    }
                    let begun = Instant::now();
                    store.append(batch, None).await.unwrap();
                    latencies.lock().unwrap().push(begun.elapsed());
                }
            })
        })
        .collect();
    for producer in producers {
        producer.await.unwrap();
    }
    let took = start.elapsed().as_secs_f64();
    let rows = next.load(Relaxed) * ROWS as u64;
    let raw = raw.load(Relaxed) as f64;
    let after_append = usage();
    store.flush().await.unwrap();
    let after_flush = usage();
    store.compact().await.unwrap();
    let after_compact = usage();
    let mut latencies = std::mem::take(&mut *latencies.lock().unwrap());
    latencies.sort();
    let at = |q: f64| latencies[((latencies.len() - 1) as f64 * q) as usize].as_secs_f64() * 1e3;
    let per_gb = |cpu_now: f64| (cpu_now - cpu - building * rows as f64) / raw * 1e9;
    println!("rows {rows}, raw {:.3} GB, {:.0} bytes a line", raw / 1e9, raw / rows as f64);
    println!(
        "{:.0} lines/s; append p50 {:.2} ms, p99 {:.2} ms, p99.9 {:.2} ms, max {:.2} ms",
        rows as f64 / took,
        at(0.5),
        at(0.99),
        at(0.999),
        at(1.0)
    );
    println!(
        "CPU-s/GB without building batches ({:.2}): {:.2} when all was acknowledged, {:.2} flushed, {:.2} compacted",
        building * rows as f64 / raw * 1e9,
        per_gb(after_append.0),
        per_gb(after_flush.0),
        per_gb(after_compact.0)
    );
    println!("peak memory {} MiB at the end of appends, {} MiB overall", after_append.1, after_compact.1);
    let status = store.status();
    println!("{:#?}", status.counters);
    for level in &status.levels {
        println!(
            "level {}: {} segments, {} rows, {:.4} of raw",
            level.level,
            level.segments,
            level.rows,
            level.bytes as f64 / level.raw_bytes as f64
        );
    }
    store.close().await;
    println!("disk/raw {:.4}", disk(&dir) as f64 / raw);
    let _ = std::fs::remove_dir_all(&dir);
}
