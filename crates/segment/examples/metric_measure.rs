//! Measures bytes, writing and reading of segments of metrics, on series like those of a fleet of hosts.
//!
//! `metric_measure SERIES SAMPLES FLUSHES [WORK_DIR]`: each series has so many samples, one every 15 s, which
//! arrive scrape by scrape and are flushed in so many parts; the parts are merged. `10000 1440 12` is 6 hours of
//! 10,000 series, `100000 120 4` half an hour of 100,000. All times are CPU times.

#[path = "../../bench/src/generate/fleet/hosts.rs"]
mod fleet;

use std::{fs, path::PathBuf, sync::Arc};

use arrow::array::RecordBatch;
use fleet::{Fleet, fleet};
use futures::executor::block_on;
use object_store::{ObjectStore, local::LocalFileSystem, path::Path};
use regex::Regex;
use trine_model::TenantId;
use trine_schema::{
    LabelMatch, LabelMatcher, Labels, MetricBatchBuilder, MetricScan, MetricSeries, Samples, StreamRef,
    StreamRegistry,
};
use trine_segment::{
    IndexCache, MetricSegment, MetricSnapshot, OnCorrupt, SegmentMeta, WriteOptions, merge_samples,
    select_series, sort_samples, write_samples,
};

/// The program's allocator, so that the figures are its own.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// First scrape (Unix milliseconds).
const START_MS: i64 = 1_760_000_000_000;
const SEED: u64 = 42;

/// CPU seconds of this thread.
fn cpu() -> f64 {
    let text = fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
    text.split(' ').next().and_then(|ns| ns.parse::<f64>().ok()).unwrap_or(0.0) / 1e9
}

/// What `work` gives, and its CPU seconds.
fn timed<T>(work: impl FnOnce() -> T) -> (T, f64) {
    let begun = cpu();
    let done = work();
    (done, cpu() - begun)
}

/// CPU seconds of `work`, which is done until the clock, which moves by milliseconds, says enough.
fn repeated(mut work: impl FnMut()) -> f64 {
    work();
    let (begun, mut rounds) = (cpu(), 0);
    while rounds < 3 || cpu() - begun < 0.3 {
        work();
        rounds += 1;
    }
    (cpu() - begun) / f64::from(rounds)
}

fn register(fleet: &Fleet, registry: &StreamRegistry, tenant: &TenantId) -> Vec<StreamRef> {
    let series = fleet.series.iter().map(|series| {
        let instance = format!("host-{:04}.example:9100", series.target);
        let mut pairs = vec![("__name__", series.metric.as_str()), ("instance", &instance), ("job", "node")];
        for label in series.labels.split("\",").filter(|label| !label.is_empty()) {
            let (name, value) = label.split_once("=\"").unwrap_or((label, ""));
            pairs.push((name, value.trim_end_matches('"')));
        }
        registry.intern(tenant, Labels::from_pairs(&pairs)).expect("room for all series")
    });
    series.collect()
}

/// Samples of some scrapes as they arrive, a batch per scrape of a host.
fn arrived(
    fleet: &Fleet,
    streams: &[StreamRef],
    scrapes: std::ops::Range<usize>,
    tenant: &TenantId,
) -> Vec<RecordBatch> {
    let mut by_target: Vec<Vec<usize>> = vec![Vec::new(); fleet.times.len()];
    fleet.series.iter().enumerate().for_each(|(number, series)| by_target[series.target].push(number));
    let mut batches = Vec::new();
    for scrape in scrapes {
        for (target, series) in by_target.iter().enumerate() {
            let mut builder = MetricBatchBuilder::new(tenant.clone(), series.len());
            for number in series {
                let at = fleet.times[target][scrape] / 1_000_000;
                builder.float(streams[*number], at, fleet.series[*number].values[scrape], 0);
            }
            batches.push(builder.finish().records);
        }
    }
    batches
}

fn print_parts(name: &str, segment: &MetricSegment, samples: usize) {
    let parts: Vec<String> = segment
        .bytes_by_part()
        .expect("the segment is whole")
        .into_iter()
        .map(|(part, bytes)| format!("{part} {:.3}", bytes as f64 / samples as f64))
        .collect();
    let bytes = segment.meta().file_bytes;
    println!("{name}: {bytes} bytes, {:.4} a sample ({})", bytes as f64 / samples as f64, parts.join(", "));
}

fn equal(name: &str, value: &str) -> LabelMatcher {
    LabelMatcher { name: name.into(), value: LabelMatch::Equal(value.into()) }
}

struct Measure {
    registry: Arc<StreamRegistry>,
    scan: MetricScan,
    on_corrupt: OnCorrupt<MetricSegment>,
}

impl Measure {
    /// CPU of a question: finding series for the first time and again, then loading them.
    fn ask(&self, name: &str, snapshot: &MetricSnapshot, matchers: &[LabelMatcher], last_ms: Option<i64>) {
        let mut scan = MetricScan { matchers: matchers.to_vec(), ..self.scan.clone() };
        if let Some(last) = last_ms {
            scan.start_ms = last - 300_000;
        }
        let select =
            || select_series(snapshot.clone(), &self.registry, &scan, &self.on_corrupt).expect("works");
        let (series, first) = timed(select);
        let load = |series: &[MetricSeries]| {
            let (mut scratch, mut read) = (Samples::default(), 0);
            for series in series {
                series.data.load(&mut scratch).expect("works");
                read += scratch.values.len();
            }
            read
        };
        let (count, samples) = (series.len(), load(&series));
        drop(series);
        let found = repeated(|| drop(select()));
        let loaded = repeated(|| {
            load(&select());
        }) - found;
        println!(
            "  {name}: {count} series found in {:.2} ms ({:.2} the first time), {samples} samples loaded in {:.2} ms, \
             {:.2} ns each",
            found * 1e3,
            first * 1e3,
            loaded * 1e3,
            loaded * 1e9 / samples.max(1) as f64,
        );
    }
}

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let number = |place: usize| arguments.get(place).and_then(|text| text.parse::<usize>().ok());
    let (Some(series), Some(samples), Some(flushes)) = (number(0), number(1), number(2)) else {
        eprintln!("usage: metric_measure SERIES SAMPLES FLUSHES [WORK_DIR]");
        std::process::exit(2);
    };
    let directory =
        arguments.get(3).map_or_else(|| std::env::temp_dir().join("metric_measure"), PathBuf::from);
    fs::create_dir_all(&directory).expect("the work directory can be made");
    let store: Arc<dyn ObjectStore> =
        Arc::new(LocalFileSystem::new_with_prefix(&directory).expect("the directory is there"));
    let (registry, tenant) = (Arc::new(StreamRegistry::new()), TenantId::default());
    let fleet = fleet(series, samples, 15, START_MS, SEED);
    let streams = register(&fleet, &registry, &tenant);
    let total = series * samples;
    let options = WriteOptions::default();
    let cache = IndexCache::new(usize::MAX);
    let open = |name: &str, meta: &SegmentMeta| {
        let opened = MetricSegment::open(store.clone(), Path::from(name), Some(meta), &cache);
        block_on(opened).expect("the segment opens")
    };

    let mut segments = Vec::new();
    let (mut sorting, mut writing, mut bytes) = (0.0, 0.0, 0);
    let mut memtable = Vec::new();
    for flush in 0..flushes {
        let scrapes = flush * samples / flushes..(flush + 1) * samples / flushes;
        memtable = arrived(&fleet, &streams, scrapes, &tenant);
        let (sorted, took) = timed(|| sort_samples(&memtable, &registry).expect("rows are samples"));
        sorting += took;
        let name = format!("part-{flush}");
        let file = fs::File::create(directory.join(&name)).expect("the file can be made");
        let file = std::io::BufWriter::new(file);
        let (meta, took) =
            timed(|| write_samples(file, &registry, sorted, &options).expect("rows can be written"));
        writing += took;
        bytes += meta.file_bytes;
        segments.push(open(&name, &meta));
    }
    println!(
        "{series} series of {samples} samples, {flushes} flushes: {:.3} bytes a sample, sort {:.1} ns, write {:.1} ns",
        bytes as f64 / total as f64,
        sorting * 1e9 / total as f64,
        writing * 1e9 / total as f64,
    );
    print_parts("first flush", &segments[0], total / flushes);
    let file =
        std::io::BufWriter::new(fs::File::create(directory.join("all")).expect("the file can be made"));
    let (meta, took) =
        timed(|| merge_samples(&segments, &registry, None, &options, file).expect("they merge"));
    let all = open("all", &meta.expect("there are rows"));
    println!("merge {:.1} ns a sample", took * 1e9 / total as f64);
    print_parts("merged", &all, total);
    let (verified, took) = timed(|| block_on(all.verify()));
    verified.expect("it is whole");
    println!("verify {:.1} ns a sample (its own thread aside)", took * 1e9 / total as f64);

    let on_corrupt: OnCorrupt<MetricSegment> = Arc::new(|_, error| eprintln!("{error}"));
    // A registry that knows no series yet, as after a start.
    let fresh = Arc::new(StreamRegistry::new());
    let measure =
        Measure { registry: fresh, scan: MetricScan::all(tenant.clone()), on_corrupt: on_corrupt.clone() };
    let one = [equal("__name__", "node_load1"), equal("instance", "host-0003.example:9100")];
    let regex = |text: &str| LabelMatch::Regex(Regex::new(&format!("^(?:{text})$")).expect("a regex"));
    let some = [LabelMatcher { name: "__name__".into(), value: regex("node_cpu.*|http_request_.*") }];
    let last = all.meta().max_timestamp / 1_000_000;
    let snapshot = |segments: Vec<Arc<MetricSegment>>| MetricSnapshot { memtable: Vec::new(), segments };
    println!("the merged segment");
    measure.ask("all", &snapshot(vec![all.clone()]), &[], None);
    measure.ask("all, last 5 minutes", &snapshot(vec![all.clone()]), &[], Some(last));
    measure.ask("a regex", &snapshot(vec![all.clone()]), &some, None);
    measure.ask("one series", &snapshot(vec![all.clone()]), &one, None);
    println!("an index takes {} bytes of memory", cache.bytes());
    let cold = || {
        cache.let_go(std::time::Duration::ZERO);
        let scan = MetricScan { matchers: one.to_vec(), ..measure.scan.clone() };
        select_series(snapshot(vec![all.clone()]), &measure.registry, &scan, &on_corrupt)
            .expect("works")
            .len()
    };
    let cold = repeated(|| {
        cold();
    });
    println!("  one series with the index read for it: found in {:.2} ms", cold * 1e3);
    println!("the parts");
    let measure = Measure { registry: registry.clone(), ..measure };
    let parts: Vec<_> = segments.clone();
    let refreshed: Vec<_> =
        parts.iter().enumerate().map(|(at, old)| open(&format!("part-{at}"), old.meta())).collect();
    measure.ask("all", &snapshot(refreshed.clone()), &[], None);
    measure.ask("one series", &snapshot(refreshed), &one, None);
    println!("the rows of the last flush in memory");
    let snapshot = MetricSnapshot { memtable, segments: Vec::new() };
    measure.ask("all", &snapshot, &[], None);
    measure.ask("one series", &snapshot, &one, None);
}
