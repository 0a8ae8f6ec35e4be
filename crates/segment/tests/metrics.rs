//! Segments of metrics against a plain model: what is written comes back from memory, segments and merges of
//! them, in any order of arrival; matchers choose what a plain filter chooses; damage is found.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use arrow::array::RecordBatch;
use object_store::{ObjectStore, ObjectStoreExt as _, memory::InMemory, path::Path};
use parking_lot::Mutex;
use regex::Regex;
use trine_model::TenantId;
use trine_schema::{
    BucketSpans, CUSTOM_BOUNDS, LabelMatch, LabelMatcher, Labels, Metadata, MetricBatchBuilder, MetricScan,
    MetricSeries, NativeHistogram, ResetHint, Samples, StreamRegistry, metrics::STALE_NAN,
};
use trine_segment::{
    IndexCache, MetricSegment, MetricSnapshot, OnCorrupt, SegmentError, SegmentMeta, WriteOptions, block_on,
    exemplars, merge_samples, metric_metadata, select_series, sort_samples, write_samples,
};

/// Numbers that look random and are the same in every run (xorshift64).
struct Random(u64);

impl Random {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % limit
    }

    fn one<T: Copy>(&mut self, of: &[T]) -> T {
        of[self.below(of.len() as u64) as usize]
    }
}

const START: i64 = 1_760_000_000_000;

/// A sample with the bits of its value or the bytes of its histogram, and when its counter began.
#[derive(Debug, Clone, PartialEq)]
enum Sample {
    Float(u64, i64),
    Histogram(Vec<u8>, i64),
}

/// What was sent: by tenant and labels, by time.
type Model = BTreeMap<(TenantId, Labels), BTreeMap<i64, Sample>>;

fn tenant(number: u64) -> TenantId {
    TenantId::new(if number == 0 { "a" } else { "b" }).unwrap()
}

/// Both tenants have the same labels.
fn labels(random: &mut Random) -> Labels {
    let metric = random.one(&["up", "http_requests_total", "latency_bucket", "Größe", "native"]);
    let instance = format!("host-{}:9100", random.below(12));
    let mut pairs = vec![("__name__", metric), ("instance", &*instance)];
    if random.below(3) > 0 {
        pairs.push(("job", random.one(&["node", "shop"])));
    }
    if metric == "latency_bucket" {
        pairs.push(("le", random.one(&["0.5", "2.5", "10", "+Inf"])));
    }
    if random.below(5) == 0 {
        pairs.push(("Zone", "first"));
    }
    if random.below(4) == 0 {
        pairs.push(("path", random.one(&["/", "/cart", "\"quoted\"", "ü"])));
    }
    Labels::from_pairs(&pairs)
}

/// Buckets without empty ones, as they come back.
fn side(random: &mut Random) -> BucketSpans {
    let mut side = BucketSpans::default();
    for place in 0..random.below(4) {
        let offset = random.below(9) as i32 + if place == 0 { -4 } else { 1 };
        let length = 1 + random.below(4) as u32;
        side.spans.push((offset, length));
        side.counts.extend((0..length).map(|_| 1.0 + random.below(100) as f64));
    }
    side
}

fn histogram(random: &mut Random) -> NativeHistogram {
    let stale = || NativeHistogram { sum: f64::from_bits(STALE_NAN), ..NativeHistogram::default() };
    let hint = |random: &mut Random| {
        random.one(&[ResetHint::Unknown, ResetHint::NotReset, ResetHint::Reset, ResetHint::Gauge])
    };
    let count = random.below(1_000) as f64;
    match random.below(12) {
        0 => stale(),
        1 => NativeHistogram {
            schema: CUSTOM_BOUNDS,
            reset_hint: hint(random),
            count,
            sum: 2.5,
            positive: BucketSpans { spans: vec![(1, 2)], counts: vec![3.0, 4.0] },
            custom_bounds: vec![0.1, 0.5, 1.0],
            ..NativeHistogram::default()
        },
        // No layout fits: spans that overlap, buckets too far apart.
        2 => NativeHistogram {
            count,
            positive: BucketSpans { spans: vec![(3, 2), (-1, 1)], counts: vec![1.0, 1.0, 1.0] },
            ..NativeHistogram::default()
        },
        3 => NativeHistogram {
            count,
            positive: BucketSpans { spans: vec![(0, 1), (2_000_000_000, 1)], counts: vec![1.0, 1.0] },
            ..NativeHistogram::default()
        },
        _ => NativeHistogram {
            reset_hint: hint(random),
            schema: random.one(&[3, 3, 3, 3, -4]),
            zero_threshold: random.one(&[0.0, 0.0, 0.0, 1e-9]),
            zero_count: random.below(3) as f64,
            count,
            sum: -1.5,
            positive: side(random),
            negative: side(random),
            custom_bounds: Vec::new(),
        },
    }
}

/// A batch per tenant of `rows` samples, some late, some repeated, entered into the model as they come.
fn batches(
    registry: &StreamRegistry,
    random: &mut Random,
    rows: u64,
    from: i64,
    model: &mut Model,
) -> Vec<RecordBatch> {
    let mut builders = [0, 1].map(|number| MetricBatchBuilder::new(tenant(number), 0));
    for row in 0..rows {
        let owner = random.below(2);
        let labels = labels(random);
        let name = labels.get("__name__").unwrap().to_owned();
        let stream = registry.intern(&tenant(owner), labels.clone()).unwrap();
        let late = if random.below(20) == 0 { random.below(100_000) as i64 } else { 0 };
        let time = from + (row / 8) as i64 * 1_000 - late;
        let start = if name == "http_requests_total" { random.one(&[0, START - 5]) } else { 0 };
        let builder = &mut builders[owner as usize];
        let is_histogram = if name == "native" { random.below(10) > 0 } else { random.below(200) == 0 };
        let sample = if is_histogram {
            let histogram = histogram(random);
            builder.histogram(stream, time, &histogram, start);
            Sample::Histogram(histogram.to_bytes(), start)
        } else {
            let value = match random.below(10) {
                0 => f64::from_bits(STALE_NAN),
                1 => f64::from_bits(random.below(u64::MAX)),
                2 => random.one(&[f64::INFINITY, f64::NAN, -0.0, f64::MIN_POSITIVE]),
                _ => random.below(10_000) as f64 / 10.0,
            };
            builder.float(stream, time, value, start);
            Sample::Float(value.to_bits(), start)
        };
        model.entry((tenant(owner), labels)).or_default().insert(time, sample);
    }
    builders.into_iter().map(|builder| builder.finish().records).collect()
}

/// Segments in memory, their catalog entries checked.
struct Shelf {
    registry: Arc<StreamRegistry>,
    store: Arc<dyn ObjectStore>,
    cache: Arc<IndexCache>,
    next: u32,
}

impl Shelf {
    fn new() -> Self {
        let store = Arc::new(InMemory::new());
        Self { registry: Arc::default(), store, cache: IndexCache::new(usize::MAX), next: 0 }
    }

    fn put(&mut self, bytes: Vec<u8>, meta: &SegmentMeta) -> Arc<MetricSegment> {
        self.next += 1;
        let path = Path::from(format!("segment-{}", self.next));
        assert_eq!(meta.file_bytes, bytes.len() as u64);
        block_on(self.store.put(&path, bytes.into())).unwrap();
        let found = block_on(MetricSegment::open(self.store.clone(), path.clone(), None, &self.cache));
        assert_eq!(found.unwrap().meta(), meta, "the file tells what the catalog keeps");
        let opened = block_on(MetricSegment::open(self.store.clone(), path, Some(meta), &self.cache));
        let segment = opened.unwrap();
        block_on(segment.verify()).unwrap();
        segment
    }

    fn write(&mut self, batches: &[RecordBatch]) -> Arc<MetricSegment> {
        let sorted = sort_samples(batches, &self.registry).unwrap();
        let (mut bytes, rows) = (Vec::new(), sorted.len() as u64);
        let meta = write_samples(&mut bytes, &self.registry, sorted, &WriteOptions::default()).unwrap();
        assert_eq!(meta.rows, rows);
        self.put(bytes, &meta)
    }

    fn merge(
        &mut self,
        segments: &[Arc<MetricSegment>],
        keep_from: Option<i64>,
    ) -> Option<Arc<MetricSegment>> {
        let mut bytes = Vec::new();
        let options = WriteOptions::default();
        let meta = merge_samples(segments, &self.registry, keep_from, &options, &mut bytes).unwrap()?;
        Some(self.put(bytes, &meta))
    }

    fn select(&self, snapshot: &MetricSnapshot, scan: &MetricScan) -> Vec<MetricSeries> {
        let refuse: OnCorrupt<MetricSegment> = Arc::new(|_, error| panic!("{error}"));
        select_series(snapshot.clone(), &self.registry, scan, &refuse).unwrap()
    }
}

/// The samples of a series as the model has them.
fn samples_of(series: &MetricSeries, scan: &MetricScan) -> BTreeMap<i64, Sample> {
    // What is in it must go.
    let mut samples = Samples { values: vec![1.0], histogram_timestamps: vec![1], ..Samples::default() };
    series.data.load(&mut samples).unwrap();
    let Samples { timestamps, values, start_timestamps, .. } = &samples;
    assert!(timestamps.windows(2).all(|two| two[0] < two[1]));
    assert!(samples.histogram_timestamps.windows(2).all(|two| two[0] < two[1]));
    assert_eq!(timestamps.len(), values.len());
    assert_eq!(samples.histogram_timestamps.len(), samples.histograms.len());
    let known = |starts: &[i64], times: usize| assert!(starts.is_empty() || starts.len() == times);
    known(start_timestamps, values.len());
    known(&samples.histogram_start_timestamps, samples.histograms.len());
    let start = |starts: &[i64], at: usize| starts.get(at).copied().unwrap_or(0);
    let floats = timestamps
        .iter()
        .zip(values)
        .enumerate()
        .map(|(at, (time, value))| (*time, Sample::Float(value.to_bits(), start(start_timestamps, at))));
    let histograms = samples.histogram_timestamps.iter().zip(&samples.histograms).enumerate();
    let histograms = histograms.map(|(at, (time, histogram))| {
        let start = start(&samples.histogram_start_timestamps, at);
        (*time, Sample::Histogram(histogram.to_bytes(), start))
    });
    let mut found = BTreeMap::new();
    for (time, sample) in floats.chain(histograms) {
        if (scan.start_ms..=scan.end_ms).contains(&time) {
            assert_eq!(found.insert(time, sample), None, "a time twice");
        }
    }
    found
}

type Answer = BTreeMap<Labels, BTreeMap<i64, Sample>>;

fn answer(shelf: &Shelf, snapshot: &MetricSnapshot, scan: &MetricScan) -> Answer {
    let series = shelf.select(snapshot, scan);
    assert!(series.windows(2).all(|two| two[0].stream.labels < two[1].stream.labels), "sorted, each once");
    assert!(series.iter().all(|series| series.stream.tenant == scan.tenant));
    let loaded = series.iter().map(|series| (series.stream.labels.clone(), samples_of(series, scan)));
    loaded.filter(|(_, samples)| !samples.is_empty()).collect()
}

fn expected(model: &Model, scan: &MetricScan) -> Answer {
    let mine = model.iter().filter(|((tenant, labels), _)| *tenant == scan.tenant && scan.matches(labels));
    let in_range = |samples: &BTreeMap<i64, Sample>| {
        samples.range(scan.start_ms..=scan.end_ms).map(|(time, sample)| (*time, sample.clone())).collect()
    };
    let kept = mine.map(|((_, labels), samples)| (labels.clone(), in_range(samples)));
    kept.filter(|(_, samples): &(Labels, BTreeMap<_, _>)| !samples.is_empty()).collect()
}

fn matcher(random: &mut Random) -> LabelMatcher {
    let (name, value) = random.one(&[
        ("__name__", "up"),
        ("__name__", "latency_bucket"),
        ("__name__", "native"),
        ("instance", "host-3:9100"),
        ("job", ""),
        ("job", "node"),
        ("le", "10"),
        ("path", "ü"),
        ("missing", "x"),
        ("missing", ""),
    ]);
    let regex = |text: &str| Regex::new(&format!("^(?:{text})$")).unwrap();
    let value = match random.below(5) {
        0 => LabelMatch::NotEqual(value.into()),
        1 => LabelMatch::Regex(regex(random.one(&["host-[0-5].*", "u.|native", ".*", ".+", "node|"]))),
        2 => LabelMatch::NotRegex(regex(random.one(&["host-1.*", "shop", ".+", "http.*"]))),
        _ => LabelMatch::Equal(value.into()),
    };
    LabelMatcher { name: name.into(), value }
}

fn compare(shelf: &Shelf, snapshot: &MetricSnapshot, model: &Model, random: &mut Random) {
    for round in 0..12 {
        let mut scan = MetricScan::all(tenant(random.below(2)));
        if round > 1 {
            scan.matchers = (0..random.below(3)).map(|_| matcher(random)).collect();
            scan.start_ms = START + random.below(400_000) as i64 - 100_000;
            scan.end_ms = scan.start_ms + random.below(300_000) as i64;
        }
        assert_eq!(answer(shelf, snapshot, &scan), expected(model, &scan), "{:?}", scan.matchers);
        assert!(scan.stats.partial.lock().is_empty());
    }
}

#[test]
fn what_was_sent_comes_back_from_memory_segments_and_merges() {
    for seed in 1..=6 {
        let mut random = Random(seed * 0x9e37_79b9);
        let (mut shelf, mut model) = (Shelf::new(), Model::new());
        let mut snapshot = MetricSnapshot::default();
        for flush in 0..5 {
            let from = START + flush * 60_000;
            let mut arrived = batches(&shelf.registry, &mut random, 700, from, &mut model);
            arrived.extend(batches(&shelf.registry, &mut random, 300, from + 30_000, &mut model));
            if flush < 4 {
                snapshot.segments.push(shelf.write(&arrived));
            } else {
                snapshot.memtable = arrived;
            }
            compare(&shelf, &snapshot, &model, &mut random);
        }
        let merged = shelf.merge(&snapshot.segments[1..3], None).unwrap();
        snapshot.segments.splice(1..3, [merged]);
        compare(&shelf, &snapshot, &model, &mut random);
        let all = shelf.merge(&snapshot.segments, None).unwrap();
        snapshot.segments = vec![all.clone()];
        compare(&shelf, &snapshot, &model, &mut random);
        // Retention is exact, and takes series with it.
        let keep_from = START + 100_000;
        let cut = shelf.merge(std::slice::from_ref(&all), Some(keep_from * 1_000_000)).unwrap();
        assert!(cut.meta().rows < all.meta().rows && cut.meta().min_timestamp >= keep_from * 1_000_000);
        let mut kept = model.clone();
        let memory = std::mem::take(&mut snapshot.memtable);
        snapshot.segments = vec![cut];
        kept.values_mut().for_each(|samples| *samples = samples.split_off(&keep_from));
        // What is only in memory was not cut.
        snapshot.memtable = memory;
        let scan = MetricScan { start_ms: keep_from, ..MetricScan::all(tenant(0)) };
        assert_eq!(answer(&shelf, &snapshot, &scan), expected(&kept, &scan));
        assert!(shelf.merge(&snapshot.segments, Some(i64::MAX)).is_none(), "nothing is left");
    }
}

/// Scraped series with long runs: `targets` of 40 series each, every 15 s.
fn scraped(
    registry: &StreamRegistry,
    random: &mut Random,
    from: i64,
    scrapes: i64,
    model: &mut Model,
) -> Vec<RecordBatch> {
    let mut builder = MetricBatchBuilder::new(tenant(0), 0);
    for scrape in 0..scrapes {
        for target in 0..6 {
            let time = from + scrape * 15_000 + target;
            for number in 0..40 {
                let (instance, number) = (format!("host-{target}"), number.to_string());
                let labels = Labels::from_pairs(&[
                    ("__name__", "requests_total"),
                    ("instance", &instance),
                    ("number", &number),
                ]);
                let stream = registry.intern(&tenant(0), labels.clone()).unwrap();
                let value = (scrape * 10 + random.below(7) as i64) as f64;
                builder.float(stream, time, value, 0);
                let sample = Sample::Float(value.to_bits(), 0);
                model.entry((tenant(0), labels)).or_default().insert(time, sample);
            }
        }
    }
    vec![builder.finish().records]
}

#[test]
fn long_runs_are_copied_and_series_scraped_together_share_their_times() {
    let mut random = Random(77);
    let (mut shelf, mut model) = (Shelf::new(), Model::new());
    let mut segments = Vec::new();
    for flush in 0..3 {
        let from = START + flush * 300 * 15_000;
        segments.push(shelf.write(&scraped(&shelf.registry.clone(), &mut random, from, 300, &mut model)));
    }
    let bytes: u64 = segments.iter().map(|segment| segment.meta().file_bytes).sum();
    let joined = shelf.merge(&segments, None).unwrap();
    assert!(joined.meta().file_bytes < bytes && joined.meta().rows == 3 * 300 * 240);
    // Written anew it would be one block of other bytes; out of order it is.
    let turned: Vec<_> = segments.iter().rev().cloned().collect();
    let rewritten = shelf.merge(&turned, None).unwrap();
    assert_ne!(rewritten.meta().file_bytes, joined.meta().file_bytes);
    for segment in [joined, rewritten] {
        let memtable = scraped(&shelf.registry, &mut random, START + 900 * 15_000, 5, &mut model);
        let snapshot = MetricSnapshot { memtable, segments: vec![segment] };
        let scan = MetricScan::all(tenant(0));
        assert_eq!(answer(&shelf, &snapshot, &scan), expected(&model, &scan));
        let mut times = BTreeMap::<i64, BTreeSet<usize>>::new();
        for series in shelf.select(&snapshot, &scan) {
            let mut samples = Samples::default();
            series.data.load(&mut samples).unwrap();
            times.entry(samples.timestamps[0]).or_default().insert(Arc::as_ptr(&samples.timestamps) as usize);
            std::mem::forget(samples.timestamps);
        }
        assert_eq!(times.values().map(BTreeSet::len).collect::<Vec<_>>(), [1; 6], "one list per target");
    }
}

#[test]
fn the_later_arrival_counts_whatever_its_kind_and_wherever_it_is() {
    let mut shelf = Shelf::new();
    let registry = shelf.registry.clone();
    let labels = Labels::from_pairs(&[("__name__", "x")]);
    let stream = registry.intern(&tenant(0), labels).unwrap();
    let native = NativeHistogram { count: 7.0, schema: 2, ..NativeHistogram::default() };
    // Each time gets a float (1), a histogram, or both in some order, by its digits.
    let arrive = |plan: &[(i64, bool)]| {
        let mut builder = MetricBatchBuilder::new(tenant(0), 0);
        for (time, is_float) in plan {
            if *is_float {
                builder.float(stream, *time, 1.0, 0);
            } else {
                builder.histogram(stream, *time, &native, 0);
            }
        }
        vec![builder.finish().records]
    };
    let first = arrive(&[(1, true), (1, false), (2, false), (2, true), (3, true), (4, false), (5, true)]);
    let second = arrive(&[(3, false), (4, true)]);
    let kinds = |shelf: &Shelf, snapshot: &MetricSnapshot| -> Vec<(i64, bool)> {
        let scan = MetricScan::all(tenant(0));
        let found = answer(shelf, snapshot, &scan).into_values().next().unwrap();
        found.into_iter().map(|(time, sample)| (time, matches!(sample, Sample::Float(..)))).collect()
    };
    let want = [(1, false), (2, true), (3, false), (4, true), (5, true)];
    let both = [&first[..], &second[..]].concat();
    assert_eq!(kinds(&shelf, &MetricSnapshot { memtable: both, segments: vec![] }), want);
    let older = shelf.write(&first);
    let snapshot = MetricSnapshot { memtable: second.clone(), segments: vec![older.clone()] };
    assert_eq!(kinds(&shelf, &snapshot), want);
    let newer = shelf.write(&second);
    let segments = vec![older, newer];
    assert_eq!(kinds(&shelf, &MetricSnapshot { memtable: vec![], segments: segments.clone() }), want);
    let merged = shelf.merge(&segments, None).unwrap();
    assert_eq!(kinds(&shelf, &MetricSnapshot { memtable: vec![], segments: vec![merged] }), want);
}

#[test]
fn series_may_be_loaded_in_any_order_on_several_threads_and_again() {
    let mut random = Random(31);
    let (mut shelf, mut model) = (Shelf::new(), Model::new());
    let registry = shelf.registry.clone();
    let mut snapshot = MetricSnapshot::default();
    for flush in 0..3 {
        let rows = scraped(&registry, &mut random, START + flush * 300_000, 40, &mut model);
        snapshot.segments.push(shelf.write(&rows));
    }
    let scan = MetricScan::all(tenant(0));
    let series = shelf.select(&snapshot, &scan);
    let want = expected(&model, &scan);
    std::thread::scope(|scope| {
        for thread in 0..4 {
            let (series, want, scan) = (&series, &want, &scan);
            scope.spawn(move || {
                let mut random = Random(100 + thread);
                for _ in 0..3 * series.len() {
                    let series = &series[random.below(series.len() as u64) as usize];
                    assert_eq!(samples_of(series, scan), want[&series.stream.labels]);
                }
            });
        }
    });
}

#[test]
fn exemplars_and_metadata_come_back_by_tenant() {
    let mut shelf = Shelf::new();
    let registry = shelf.registry.clone();
    let arrive = |round: i64| -> Vec<RecordBatch> {
        let one = |number: u64| {
            let mut builder = MetricBatchBuilder::new(tenant(number), 0);
            let metric = registry.intern(&tenant(number), Labels::from_pairs(&[("__name__", "x")])).unwrap();
            for place in 0..50i64 {
                let labels = Labels::from_pairs(&[("__name__", "x"), ("place", &place.to_string())]);
                let series = registry.intern(&tenant(number), labels).unwrap();
                let id = format!("{number}-{round}-{place}");
                let trace = Labels::from_pairs(&[("trace_id", &id)]);
                builder.exemplar(series, START + round * 1_000 + place, 0.5, &trace);
                if place % 2 == 0 {
                    builder.float(series, START + round * 1_000, 1.0, 0);
                }
            }
            let help = format!("round {round} of {number}");
            let metadata = Metadata { kind: "gauge".into(), unit: String::new(), help };
            builder.metadata(metric, START + round * 1_000, &metadata);
            builder.finish().records
        };
        vec![one(0), one(1)]
    };
    let refuse: OnCorrupt<MetricSegment> = Arc::new(|_, error| panic!("{error}"));
    let check = |snapshot: &MetricSnapshot, rounds: std::ops::Range<i64>| {
        for number in [0, 1] {
            let mut scan = MetricScan::all(tenant(number));
            let found = exemplars(snapshot.clone(), &registry, &scan, &refuse).unwrap();
            let found: Vec<String> =
                found.iter().map(|one| one.labels.get("trace_id").unwrap().into()).collect();
            let mut want: Vec<String> = (0..50)
                .flat_map(|place| rounds.clone().map(move |round| (place, round)))
                .map(|(place, round)| format!("{number}-{round}-{place}"))
                .collect();
            // By labels, whose numbers are texts.
            want.sort_by_key(|id| {
                let mut parts = id.split('-').skip(1).map(str::to_owned);
                let round = parts.next();
                (parts.next(), round)
            });
            assert_eq!(found, want);
            scan.matchers = vec![LabelMatcher { name: "place".into(), value: LabelMatch::Equal("7".into()) }];
            scan.start_ms = START + (rounds.end - 1) * 1_000;
            let found = exemplars(snapshot.clone(), &registry, &scan, &refuse).unwrap();
            assert_eq!(found.len(), 1);
            assert_eq!((found[0].timestamp, found[0].value), (scan.start_ms + 7, 0.5));
            let told = metric_metadata(snapshot.clone(), &registry, &tenant(number), &refuse).unwrap();
            let last = format!("round {} of {number}", rounds.end - 1);
            assert_eq!(told.len(), 1);
            assert_eq!((told[0].0.as_str(), told[0].1.help.as_str()), ("x", last.as_str()));
        }
    };
    let segments = vec![shelf.write(&arrive(0)), shelf.write(&arrive(1))];
    let snapshot = MetricSnapshot { memtable: arrive(2), segments: segments.clone() };
    check(&snapshot, 0..3);
    // A series of which there are only exemplars has no samples.
    assert_eq!(shelf.select(&snapshot, &MetricScan::all(tenant(0))).len(), 25);
    let merged = shelf.merge(&segments, None).unwrap();
    check(&MetricSnapshot { memtable: arrive(2), segments: vec![merged.clone()] }, 0..3);
    let keep_from = (START + 1_000) * 1_000_000;
    let cut = shelf.merge(&[merged], Some(keep_from)).unwrap();
    check(&MetricSnapshot { memtable: vec![], segments: vec![cut] }, 1..2);
}

#[test]
fn damage_never_panics_and_is_found_and_the_rest_is_answered() {
    let mut random = Random(4242);
    let (mut shelf, mut model) = (Shelf::new(), Model::new());
    let registry = shelf.registry.clone();
    let good = shelf.write(&batches(&registry, &mut random, 500, START, &mut model));
    let mut other = Model::new();
    let sorted =
        sort_samples(&batches(&registry, &mut random, 500, START + 500_000, &mut other), &registry).unwrap();
    let mut bytes = Vec::new();
    let meta = write_samples(&mut bytes, &registry, sorted, &WriteOptions::default()).unwrap();
    let mut found_late = 0;
    for round in 0..300 {
        let mut bad = bytes.clone();
        let at = random.below(bad.len() as u64) as usize;
        if round % 10 == 0 {
            bad.truncate(at);
        } else {
            bad[at] ^= 1 << random.below(8);
        }
        let path = Path::from(format!("bad-{round}"));
        block_on(shelf.store.put(&path, bad.into())).unwrap();
        let expect = (round % 2 == 0).then_some(&meta);
        let opened = block_on(MetricSegment::open(shelf.store.clone(), path, expect, &shelf.cache));
        let Ok(opened) = opened else { continue };
        found_late += 1;
        assert!(matches!(block_on(opened.verify()), Err(SegmentError::Corrupt { .. })), "byte {at}");
        let merged = merge_samples(
            &[good.clone(), opened.clone()],
            &registry,
            None,
            &WriteOptions::default(),
            std::io::sink(),
        );
        assert!(matches!(merged, Err(SegmentError::Corrupt { .. })), "byte {at}");
        let reported = Arc::new(Mutex::new(0));
        let count = reported.clone();
        let on_corrupt: OnCorrupt<MetricSegment> = Arc::new(move |_, _| *count.lock() += 1);
        let scan = MetricScan::all(tenant(0));
        let snapshot = MetricSnapshot { memtable: vec![], segments: vec![good.clone(), opened.clone()] };
        let series = select_series(snapshot, &registry, &scan, &on_corrupt).unwrap();
        let mut answered = Answer::new();
        for series in &series {
            answered.insert(series.stream.labels.clone(), samples_of(series, &scan));
        }
        for (labels, samples) in expected(&model, &scan) {
            let found = &answered[&labels];
            assert!(samples.iter().all(|(time, sample)| found.get(time) == Some(sample)), "{labels:?}");
        }
        if opened.is_damaged() {
            assert_eq!((*reported.lock(), scan.stats.partial.lock().len()), (1, 1));
        }
    }
    assert!(found_late > 50, "most of the file is read only when it is asked for");
}

#[test]
fn an_index_is_in_memory_only_while_it_is_asked_for() {
    let mut random = Random(5);
    let (mut shelf, mut model) = (Shelf::new(), Model::new());
    let registry = shelf.registry.clone();
    let segment = shelf.write(&batches(&registry, &mut random, 300, START, &mut model));
    assert_eq!(shelf.cache.bytes(), 0);
    let snapshot = MetricSnapshot { memtable: vec![], segments: vec![segment.clone()] };
    let scan = MetricScan::all(tenant(0));
    let early = MetricScan { end_ms: 5, ..scan.clone() };
    assert!(shelf.select(&snapshot, &early).is_empty());
    assert_eq!(shelf.cache.bytes(), 0, "the times of the segment pass it by");
    let loads = shelf.cache.loads();
    shelf.select(&snapshot, &scan);
    shelf.select(&snapshot, &scan);
    assert!(shelf.cache.bytes() > 1_000);
    assert_eq!(shelf.cache.loads(), loads + 1);
    drop((snapshot, segment));
    assert_eq!(shelf.cache.bytes(), 0);
}
