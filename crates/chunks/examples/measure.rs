//! Bytes per sample and CPU per sample of the block format on series like those of a fleet of hosts, and on
//! OTLP JSON files (one request a line, zstd) named on the command line.

#[path = "../../bench/src/generate/fleet/hosts.rs"]
mod fleet;

use std::{
    collections::BTreeMap,
    fmt::Write as _,
    fs::File,
    io::{BufRead, BufReader, BufWriter, Write as _},
    time::Instant,
};

use fleet::{Fleet, Series, fleet};
use serde_json::Value;
use trine_chunks::{Block, BlockWriter, Part, join, merge};

const START_MS: i64 = 1_760_000_000_000;
const SEED: u64 = 42;
const ALL: std::ops::RangeInclusive<i64> = i64::MIN..=i64::MAX;

fn encode(fleet: &Fleet, chunk: usize) -> Vec<Vec<u8>> {
    let samples = fleet.times.iter().map(Vec::len).max().unwrap_or(0);
    let chunks = (0..samples.max(1)).step_by(chunk);
    chunks
        .map(|from| {
            let mut writer = BlockWriter::new();
            for (i, series) in fleet.series.iter().enumerate() {
                let to = from.saturating_add(chunk).min(series.values.len());
                let times = &fleet.times[series.target][from.min(to)..to];
                writer.push(i as u32, times, &series.values[from.min(to)..to]).unwrap();
            }
            writer.finish()
        })
        .collect()
}

/// Fastest of some runs, in ns per sample.
fn fastest(samples: usize, rounds: usize, mut run: impl FnMut()) -> f64 {
    let one = |_| {
        let start = Instant::now();
        run();
        start.elapsed().as_nanos() as f64 / samples as f64
    };
    (0..rounds).map(one).fold(f64::MAX, f64::min)
}

fn measure(name: &str, fleet: &Fleet, chunk: usize) {
    let samples: usize = fleet.series.iter().map(|series| series.values.len()).sum();
    let blocks = encode(fleet, chunk);
    let bytes: usize = blocks.iter().map(Vec::len).sum();
    let rounds = (40_000_000 / samples.max(1)).clamp(3, 20);
    let write = fastest(samples, rounds.min(5), || {
        std::hint::black_box(encode(fleet, chunk));
    });
    let mut sum = 0.0;
    let read = fastest(samples, rounds, || {
        for block in &blocks {
            let mut reader = Block::parse(block).unwrap().reader();
            reader.all(&ALL, |run| sum += run.values().last().copied().unwrap_or(0.0)).unwrap();
        }
    });
    let mut check = vec![0usize; fleet.series.len()];
    for block in &blocks {
        let mut reader = Block::parse(block).unwrap().reader();
        reader
            .all(&ALL, |run| {
                let series = &fleet.series[run.series as usize];
                let at = &mut check[run.series as usize];
                let expected = &series.values[*at..*at + run.times.len()];
                assert!(
                    run.values().iter().zip(expected).all(|(a, b)| a.to_bits() == b.to_bits()),
                    "{}",
                    series.metric
                );
                assert_eq!(run.times, &fleet.times[series.target][*at..*at + run.times.len()]);
                *at += run.times.len();
            })
            .unwrap();
    }
    assert!(check.iter().zip(&fleet.series).all(|(n, series)| *n == series.values.len()));
    // The last five minutes of every series, as an instant query reads them.
    let last = Block::parse(blocks.last().unwrap()).unwrap();
    let end = last.time_range().map_or(0, |range| *range.end());
    let recent = end - 300_000_000_000..=end;
    let instant = fastest(1_000_000, rounds, || {
        last.reader().all(&recent, |run| sum += run.values()[0]).unwrap();
    });
    std::hint::black_box(sum);
    let mut point = (0, 0, 0);
    let mut reader = Block::parse(&blocks[0]).unwrap().reader();
    for series in (0..fleet.series.len() as u32).step_by(97) {
        let (head, own) = reader.bytes_of(series).unwrap();
        point = (point.0 + 1, point.1 + head, point.2 + own);
    }
    println!(
        "{name:31} {samples:>8} samples {:.3} bytes  write {write:5.1} ns  read {read:5.2} ns  last 5 min of all \
         {instant:.1} ms  a series: head {} own {} bytes",
        bytes as f64 / samples as f64,
        point.1 / point.0,
        point.2 / point.0,
    );
}

/// Reads one block again and again, for a profiler.
fn repeat_reads(fleet: &Fleet) {
    let blocks = encode(fleet, 1440);
    for _ in 0..100 {
        let mut sum = 0.0;
        Block::parse(&blocks[0]).unwrap().reader().all(&ALL, |run| sum += run.values()[0]).unwrap();
        std::hint::black_box(sum);
    }
}

/// What it costs to bring blocks of one chunk each together.
fn bring_together(fleet: &Fleet, chunk: usize) {
    let samples: usize = fleet.series.iter().map(|series| series.values.len()).sum();
    let blocks = encode(fleet, chunk);
    let numbers: Vec<u32> = (0..fleet.series.len() as u32).collect();
    let part = |bytes| Part { block: Block::parse(bytes).unwrap(), series: &numbers };
    let parts: Vec<Part<'_>> = blocks.iter().map(|bytes| part(bytes)).collect();
    for (name, bring) in [("joined", join as fn(&[Part<'_>]) -> _), ("merged", merge)] {
        let bytes = bring(&parts).unwrap().len() as f64 / samples as f64;
        let time = fastest(samples, 3, || {
            std::hint::black_box(bring(&parts).unwrap());
        });
        println!("{name:31} {samples:>8} samples {bytes:.3} bytes  {time:.2} ns");
    }
}

/// Bytes per sample of each metric on its own.
fn by_metric(fleet: &Fleet) {
    let mut metrics: BTreeMap<&str, Vec<&Series>> = BTreeMap::new();
    fleet.series.iter().for_each(|series| metrics.entry(&series.metric).or_default().push(series));
    let mut rows = Vec::new();
    for (metric, series) in metrics {
        let mut writer = BlockWriter::new();
        for (i, series) in series.iter().enumerate() {
            writer.push(i as u32, &fleet.times[series.target], &series.values).unwrap();
        }
        let bytes = writer.finish().len();
        let samples: usize = series.iter().map(|series| series.values.len()).sum();
        rows.push((bytes, series.len(), bytes as f64 / samples as f64, metric));
    }
    rows.sort_by_key(|row| row.0);
    for (bytes, series, each, metric) in rows.iter().rev().take(40) {
        println!("{bytes:>9} {series:>6} {each:.3} {metric}");
    }
}

/// The line with its values as strings: a bare NaN, which exporters write, is no JSON, and the parser of numbers is
/// not exact.
fn quoted(line: &str) -> String {
    let mut out = String::with_capacity(line.len() * 2);
    for (at, part) in line.split("\"asDouble\":").enumerate() {
        if at == 0 {
            out.push_str(part);
            continue;
        }
        let (value, rest) = part.split_at(part.find([',', '}']).unwrap_or(part.len()));
        write!(out, "\"asDouble\":\"{}\"{rest}", value.trim_matches('"')).expect("memory");
    }
    out
}

/// Gauges of OTLP JSON requests, one a line, as zstd frames with a long window.
fn otlp(path: &str) -> Result<Fleet, Box<dyn std::error::Error>> {
    let mut decoder = zstd::Decoder::new(File::open(path)?)?;
    decoder.window_log_max(27)?;
    let mut points: BTreeMap<(String, String), BTreeMap<i64, f64>> = BTreeMap::new();
    for line in BufReader::new(decoder).lines() {
        let request: Value = serde_json::from_str(&quoted(&line?))?;
        let each = |value: &Value| value.as_array().cloned().unwrap_or_default();
        for resource in each(&request["resourceMetrics"]) {
            let labels = resource["resource"]["attributes"].to_string();
            let scopes = each(&resource["scopeMetrics"]);
            for metric in scopes.iter().flat_map(|scope| each(&scope["metrics"])) {
                let name = metric["name"].as_str().unwrap_or_default().to_owned();
                for point in each(&metric["gauge"]["dataPoints"]) {
                    let labels = format!("{labels}{}", point["attributes"]);
                    let time = point["timeUnixNano"].as_str().unwrap_or_default().parse()?;
                    let value = point["asDouble"].as_str().unwrap_or("0").parse()?;
                    points.entry((name.clone(), labels)).or_default().insert(time, value);
                }
            }
        }
    }
    let mut fleet = Fleet { times: Vec::new(), series: Vec::new() };
    for ((metric, labels), points) in points {
        fleet.series.push(Series {
            metric,
            labels,
            target: fleet.times.len(),
            values: points.values().copied().collect(),
        });
        fleet.times.push(points.into_keys().collect());
    }
    Ok(fleet)
}

/// Prints series as lines that VictoriaMetrics' `/api/v1/import` takes.
fn print_json(fleet: &Fleet) -> std::io::Result<()> {
    let mut out = BufWriter::new(std::io::stdout().lock());
    for series in &fleet.series {
        let mut labels =
            format!("\"__name__\":\"{}\",\"instance\":\"host-{}\"", series.metric, series.target);
        for label in series.labels.split("\",").filter(|label| !label.is_empty()) {
            let (name, value) = label.split_once("=\"").unwrap_or((label, ""));
            write!(labels, ",\"{name}\":\"{}\"", value.trim_end_matches('"')).expect("memory");
        }
        let times: Vec<i64> = fleet.times[series.target].iter().map(|time| time / 1_000_000).collect();
        writeln!(out, "{{\"metric\":{{{labels}}},\"values\":{:?},\"timestamps\":{times:?}}}", series.values)?;
    }
    out.flush()
}

fn main() {
    let option = |name: &str| std::env::args().any(|arg| arg == name);
    if option("--json-6h") {
        return print_json(&fleet(10_000, 1440, 15, START_MS, SEED)).expect("standard output");
    }
    if option("--json-30m") {
        return print_json(&fleet(100_000, 120, 15, START_MS, SEED)).expect("standard output");
    }
    if let Some(path) = std::env::args().skip(1).find(|arg| !arg.starts_with("--")) {
        let real = otlp(&path).expect("OTLP JSON");
        measure("a file, whole", &real, usize::MAX);
        by_metric(&real);
        return;
    }
    let few = fleet(10_000, 1440, 15, START_MS, SEED);
    if option("--only-read") {
        return repeat_reads(&few);
    }
    measure("10,000 series, 6 h by 15 s", &few, 1440);
    if option("--by-metric") {
        by_metric(&few);
    }
    measure("the same in chunks of 30 min", &few, 120);
    bring_together(&few, 120);
    measure("the same in chunks of 8", &few, 8);
    let many = fleet(100_000, 120, 15, START_MS, SEED);
    measure("100,000 series, 30 min by 15 s", &many, 120);
}
