//! Segments against a plain filter over the same rows: what is written comes back, pruning loses
//! nothing, damage never passes.

use std::{fs, io, sync::Arc};

use arrow::{
    array::{Array, AsArray, RecordBatch},
    compute::concat_batches,
    datatypes::TimestampNanosecondType,
};
use futures::{StreamExt as _, executor::block_on};
use object_store::{ObjectStore, ObjectStoreExt as _, local::LocalFileSystem, memory::InMemory, path::Path};
use parking_lot::Mutex;
use proptest::prelude::*;
use tempfile::TempDir;
use trine_model::{Severity, SpanId, TenantId, TraceId};
use trine_schema::{
    Direction, LabelMatch, LabelMatcher, Labels, LineFilter, LogBatchBuilder, LogCount, LogCountRow,
    LogFilter, LogRecord, LogScan, Needle, StreamRegistry, logs, logs::column,
};
use trine_segment::{
    BodyEncoding, IndexCache, Join, OnCorrupt, Segment, SegmentError, SegmentHandle, SegmentMeta, Snapshot,
    StreamMatcher, StreamOrder, WriteOptions, count, filter_batch, merge_sorted, scan, sort_batches, streams,
    write_segment,
};

const MINUTE: i64 = 60_000_000_000;
const START: i64 = 29_000_000 * MINUTE;
const WORDS: [&str; 8] = [
    "connection refused",
    "user alice logged in",
    "",
    "Größe überschritten",
    "GET /index.html 200",
    "disk",
    "ok\nnext",
    "x",
];

/// So many cases; failures are shown, not kept in a file.
fn cases(count: u32) -> ProptestConfig {
    ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(count) }
}

/// A small deterministic source of numbers.
struct Random(u64);

impl Random {
    fn below(&mut self, end: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % end
    }
}

fn tenant(name: &str) -> TenantId {
    TenantId::new(name).unwrap()
}

/// Batches as a memtable holds them: two tenants, nine streams, times over ten minutes, out of order.
fn batches(registry: &StreamRegistry, seed: u64, rows: usize) -> Vec<RecordBatch> {
    let mut random = Random(seed | 1);
    let mut all = Vec::new();
    let mut written = 0;
    while written < rows {
        let whose = tenant(if random.below(4) == 0 { "other" } else { "default" });
        let count = (1 + random.below(400) as usize).min(rows - written);
        let mut builder = LogBatchBuilder::new(whose.clone(), count, count * 40);
        for _ in 0..count {
            let service = ["cart", "web", "billing"][random.below(3) as usize];
            let pod = random.below(3).to_string();
            let labels = Labels::from_pairs(&[("service.name", service), ("pod", &pod)]);
            let stream = registry.intern(&whose, labels).unwrap();
            let time = START + random.below(10 * MINUTE as u64) as i64;
            // Often exactly at a minute, so that edges are hit.
            let time = if random.below(10) == 0 { time - time % MINUTE } else { time };
            builder.body(WORDS[random.below(8) as usize]);
            if random.below(3) > 0 {
                builder.body(&format!(" id={} took {} ms", random.below(100_000), random.below(50)));
            }
            if random.below(5) == 0 {
                builder.attribute("http.status", ["200", "404", "500"][random.below(3) as usize]);
                builder.attribute("user", "u1");
            }
            let traced = random.below(10) == 0;
            builder
                .push(&LogRecord {
                    stream,
                    timestamp: time,
                    observed_timestamp: (random.below(2) == 0).then_some(time + 5),
                    severity: Severity::from_number(random.below(25) as i64),
                    severity_text: ["", "", "loud", "INFO"][random.below(4) as usize],
                    trace_id: traced.then(|| TraceId([1 + random.below(40) as u8; 16])),
                    span_id: traced.then(|| SpanId([1 + random.below(200) as u8; 8])),
                    trace_flags: random.below(2) as u32,
                    event_name: ["", "", "", "click"][random.below(4) as usize],
                    scope_name: ["", "app.main"][random.below(2) as usize],
                })
                .unwrap();
        }
        written += count;
        all.push(builder.finish().records);
    }
    all
}

struct Fixture {
    directory: TempDir,
    store: Arc<dyn ObjectStore>,
    registry: Arc<StreamRegistry>,
}

impl Fixture {
    fn new() -> Self {
        let directory = TempDir::new().unwrap();
        let store = Arc::new(LocalFileSystem::new_with_prefix(directory.path()).unwrap());
        Self { directory, store, registry: Arc::new(StreamRegistry::new()) }
    }

    fn write(&self, name: &str, sorted: &[RecordBatch], options: &WriteOptions) -> SegmentMeta {
        let file = fs::File::create(self.directory.path().join(name)).unwrap();
        let rows = sorted.iter().cloned().map(Ok::<_, io::Error>);
        write_segment(file, &self.registry, rows, options).unwrap()
    }

    fn open(&self, name: &str, expect: Option<SegmentMeta>) -> Result<Arc<Segment>, SegmentError> {
        block_on(Segment::open(self.store.clone(), Path::from(name), &self.registry, expect)).map(Arc::new)
    }

    fn segment(&self, name: &str, batches: &[RecordBatch], body: BodyEncoding) -> Arc<Segment> {
        let sorted = sorted(batches, &self.registry);
        let options = WriteOptions { body, row_group_rows: 16_384, ..WriteOptions::default() };
        let meta = self.write(name, &sorted, &options);
        let segment = self.open(name, Some(meta.clone())).unwrap();
        assert_eq!(segment.meta(), &meta);
        segment
    }
}

impl Fixture {
    /// The segments as one.
    fn joined(&self, name: &str, inputs: &[Arc<Segment>]) -> Arc<Segment> {
        let file = fs::File::create(self.directory.path().join(name)).unwrap();
        let meta = Join::new(inputs, &WriteOptions::default()).unwrap().write(file).unwrap();
        let segment = self.open(name, Some(meta.clone())).unwrap();
        assert_eq!(segment.meta(), &meta);
        segment
    }
}

/// Handles whose indexes stay in memory.
fn handles(segments: &[Arc<Segment>]) -> Vec<Arc<SegmentHandle>> {
    let cache = IndexCache::new(usize::MAX);
    segments.iter().map(|segment| SegmentHandle::new(segment, &cache)).collect()
}

fn refuse_damage() -> OnCorrupt {
    Arc::new(|segment, error| panic!("{} was taken for damaged: {error}", segment.path()))
}

fn run(fixture: &Fixture, snapshot: &Snapshot, question: &LogScan) -> Vec<RecordBatch> {
    let stream = scan(snapshot.clone(), fixture.registry.clone(), question.clone(), refuse_damage());
    block_on(stream.map(Result::unwrap).collect())
}

/// Every row as text, so that answers compare as sets.
fn sorted(batches: &[RecordBatch], registry: &StreamRegistry) -> Vec<RecordBatch> {
    sort_batches(batches, registry).unwrap().collect()
}

fn rows_of(batches: &[RecordBatch]) -> Vec<String> {
    let mut rows = Vec::new();
    for batch in batches {
        for row in 0..batch.num_rows() {
            let cells: Vec<String> =
                batch.columns().iter().map(|array| format!("{:?}", array.slice(row, 1))).collect();
            rows.push(cells.join("|"));
        }
    }
    rows
}

fn sorted_rows(batches: &[RecordBatch]) -> Vec<String> {
    let mut rows = rows_of(batches);
    rows.sort_unstable();
    rows
}

/// The answer by the reference semantics, row by row.
fn brute_force(fixture: &Fixture, batches: &[RecordBatch], question: &LogScan) -> Vec<RecordBatch> {
    let keep = |batch: &RecordBatch, row: usize| {
        let stream = fixture
            .registry
            .get(batch.column(column::STREAM).as_primitive::<arrow::datatypes::UInt32Type>().value(row));
        let time = batch.column(column::TIMESTAMP).as_primitive::<TimestampNanosecondType>().value(row);
        let severity =
            batch.column(column::SEVERITY_NUMBER).as_primitive::<arrow::datatypes::UInt8Type>().value(row);
        let body = batch.column(column::BODY).as_string::<i32>().value(row);
        let id = |position: usize, want: &[u8]| {
            let ids = batch.column(position).as_fixed_size_binary();
            ids.is_valid(row) && ids.value(row) == want
        };
        let passes = |filter: &LogFilter| match filter {
            LogFilter::Line(line) => line.matches(body),
            LogFilter::TraceIds(any) => any.iter().any(|want| id(column::TRACE_ID, &want.0)),
            LogFilter::SpanId(want) => id(column::SPAN_ID, &want.0),
            LogFilter::Severity(range) => range.contains(&severity),
            LogFilter::Attribute { key, value } => {
                trine_schema::columns::attributes_of(batch.column(column::ATTRIBUTES).as_map(), row).any(
                    |(name, found)| (name == key || trine_schema::label_name(name) == *key) && found == value,
                )
            }
        };
        stream.tenant == question.tenant
            && question.streams.iter().all(|matcher| matcher.matches(&stream))
            && question.in_range(time)
            && question.filters.iter().all(passes)
    };
    let mut kept = Vec::new();
    for batch in batches {
        for row in (0..batch.num_rows()).filter(|row| keep(batch, *row)) {
            kept.push(batch.slice(row, 1));
        }
    }
    kept
}

fn projected(batches: &[RecordBatch], projection: &[usize]) -> Vec<RecordBatch> {
    batches.iter().map(|batch| batch.project(projection).unwrap()).collect()
}

fn any_needle() -> impl Strategy<Value = Needle> {
    prop_oneof![
        prop::sample::select(vec![
            "refused",
            "alice",
            "id=1",
            "7",
            "Größe",
            "",
            "ok\nnext",
            "took 3 ms",
            "zzz",
            " 200"
        ])
        .prop_map(|text| Needle::Literal(text.into())),
        prop::sample::select(vec![
            "id=[0-9]{3} ",
            "^GET",
            "ms$",
            "(?i)ALICE",
            "took 1[0-9] ms",
            "refused|disk",
            "x.*9"
        ])
        .prop_map(|text| Needle::Regex(regex::Regex::new(text).unwrap())),
    ]
}

fn any_filter() -> impl Strategy<Value = LogFilter> {
    prop_oneof![
        4 => (prop::collection::vec(any_needle(), 1..3), any::<bool>())
            .prop_map(|(any, negated)| LogFilter::Line(LineFilter { any, negated })),
        1 => prop::collection::btree_set(1u8..45, 0..5)
            .prop_map(|ids| LogFilter::TraceIds(ids.into_iter().map(|byte| TraceId([byte; 16])).collect())),
        1 => (1u8..210).prop_map(|byte| LogFilter::SpanId(SpanId([byte; 8]))),
        1 => (0u8..25, 0u8..25).prop_map(|(low, high)| LogFilter::Severity(low..=high)),
        1 => prop::sample::select(vec!["http.status", "http_status", "user", "none"])
            .prop_map(|key| LogFilter::Attribute { key: key.into(), value: "404".into() }),
    ]
}

fn any_matchers() -> impl Strategy<Value = Vec<LabelMatcher>> {
    let value = prop_oneof![
        Just(LabelMatch::Equal("cart".into())),
        Just(LabelMatch::NotEqual("web".into())),
        Just(LabelMatch::Regex(regex::Regex::new("^(?:c.*|billing)$").unwrap())),
    ];
    prop::collection::vec(value.prop_map(|value| LabelMatcher { name: "service_name".into(), value }), 0..2)
}

fn any_range() -> impl Strategy<Value = (i64, i64)> {
    let instant = prop_oneof![
        2 => (0..10 * MINUTE).prop_map(|offset| START + offset),
        2 => (0i64..11).prop_map(|minute| START + minute * MINUTE),
        1 => Just(i64::MIN),
        1 => Just(i64::MAX),
    ];
    (instant.clone(), instant)
}

fn any_scan() -> impl Strategy<Value = LogScan> {
    let filters = prop::collection::vec(any_filter(), 0..3);
    let projection = prop::collection::btree_set(0..column::COUNT, 0..=column::COUNT);
    (any_range(), any_matchers(), filters, projection).prop_map(
        |((start, end), streams, filters, projection)| LogScan {
            start,
            end,
            streams,
            filters,
            projection: projection.into_iter().collect(),
            ..LogScan::all(tenant("default"))
        },
    )
}

fn fixture_with(rows: usize) -> (Fixture, Vec<RecordBatch>, Vec<(&'static str, Snapshot)>) {
    let fixture = Fixture::new();
    let memtable = batches(&fixture.registry, 7, rows);
    let plain = fixture.segment("plain", &memtable, BodyEncoding::Plain);
    let template = fixture.segment("template", &memtable, BodyEncoding::Template);
    let third = memtable.len() / 3;
    let part = |name, from: usize, to: usize, body| fixture.segment(name, &memtable[from..to], body);
    let mixed = Snapshot {
        segments: handles(&[
            part("a", 0, third, BodyEncoding::Plain),
            part("b", third, third * 2, BodyEncoding::Template),
        ]),
        memtable: memtable[third * 2..].to_vec(),
    };
    let pieces: Vec<Arc<Segment>> = memtable
        .chunks(memtable.len().div_ceil(5))
        .enumerate()
        .map(|(number, piece)| fixture.segment(&number.to_string(), piece, BodyEncoding::Template))
        .collect();
    // A joined segment is joined again.
    let inner = fixture.joined("inner", &pieces[1..4]);
    let joined = fixture.joined("joined", &[pieces[0].clone(), inner, pieces[4].clone()]);
    let forgetful = IndexCache::new(0);
    let apart = pieces.iter().map(|piece| SegmentHandle::new(piece, &forgetful)).collect();
    let one = |segment| Snapshot { memtable: vec![], segments: handles(&[segment]) };
    let all = vec![
        ("plain", one(plain)),
        ("template", one(template)),
        ("joined", one(joined)),
        ("mixed", mixed),
        ("indexes read anew", Snapshot { memtable: vec![], segments: apart }),
    ];
    (fixture, memtable, all)
}

#[test]
fn rows_come_back_in_order_and_the_segment_verifies() {
    for rows in [1, 7, 8_192, 8_193, 40_000] {
        let fixture = Fixture::new();
        let memtable = batches(&fixture.registry, 3, rows);
        for body in [BodyEncoding::Plain, BodyEncoding::Template] {
            let segment = fixture.segment("segment", &memtable, body);
            let sorted = sorted(&memtable, &fixture.registry);
            let back: Vec<RecordBatch> = segment.batches().map(Result::unwrap).collect();
            let schema = logs::schema();
            let (want, got) =
                (concat_batches(&schema, &sorted).unwrap(), concat_batches(&schema, &back).unwrap());
            assert_eq!(want, got, "{rows} rows, {body:?}");
            assert_eq!(sorted_rows(&memtable), sorted_rows(&back));
            block_on(segment.verify()).unwrap();
            // Without a catalog entry the file's own checksums do.
            assert_eq!(fixture.open("segment", None).unwrap().meta(), segment.meta());
        }
    }
}

#[test]
fn sorted_means_by_tenant_service_stream_and_time() {
    let fixture = Fixture::new();
    let sorted = sorted(&batches(&fixture.registry, 5, 5_000), &fixture.registry);
    let all = concat_batches(&logs::schema(), &sorted).unwrap();
    let refs = all.column(column::STREAM).as_primitive::<arrow::datatypes::UInt32Type>().values();
    let times = all.column(column::TIMESTAMP).as_primitive::<TimestampNanosecondType>().values();
    let mut order = StreamOrder::new(&fixture.registry);
    for row in 1..all.num_rows() {
        let streams = order.compare(refs[row - 1], refs[row]);
        assert!(streams.is_le() && (streams.is_lt() || times[row - 1] <= times[row]), "row {row}");
    }
}

#[test]
fn a_merge_is_the_sort_of_everything() {
    let fixture = Fixture::new();
    let memtable = batches(&fixture.registry, 11, 30_000);
    let third = memtable.len() / 3;
    let parts = [&memtable[..third], &memtable[third..third * 2], &memtable[third * 2..]];
    let inputs = parts
        .iter()
        .enumerate()
        .map(|(number, part)| {
            let body = if number == 1 { BodyEncoding::Template } else { BodyEncoding::Plain };
            let segment = fixture.segment(&number.to_string(), part, body);
            segment.sorted_runs().remove(0)
        })
        .collect();
    let merged: Vec<RecordBatch> =
        merge_sorted(inputs, fixture.registry.clone()).map(Result::unwrap).collect();
    let sorted = sorted(&memtable, &fixture.registry);
    let schema = logs::schema();
    assert_eq!(concat_batches(&schema, &merged).unwrap(), concat_batches(&schema, &sorted).unwrap());
}

#[test]
fn joined_segments_keep_every_row_and_verify() {
    for body in [BodyEncoding::Plain, BodyEncoding::Template] {
        let fixture = Fixture::new();
        let memtable = batches(&fixture.registry, 13, 60_000);
        let pieces: Vec<Arc<Segment>> = memtable
            .chunks(memtable.len().div_ceil(4))
            .enumerate()
            .map(|(number, piece)| fixture.segment(&number.to_string(), piece, body))
            .collect();
        let joined = fixture.joined("joined", &pieces);
        block_on(joined.verify()).unwrap();
        assert_eq!(fixture.open("joined", None).unwrap().meta(), joined.meta());
        let rows_in = |segment: &Arc<Segment>| {
            let all: Vec<RecordBatch> = segment.batches().map(Result::unwrap).collect();
            concat_batches(&logs::schema(), &all).unwrap()
        };
        let parts: Vec<RecordBatch> = pieces.iter().map(rows_in).collect();
        assert_eq!(rows_in(&joined), concat_batches(&logs::schema(), &parts).unwrap());
        // Its runs merge to the sort of everything.
        let merged: Vec<RecordBatch> =
            merge_sorted(joined.sorted_runs(), fixture.registry.clone()).map(Result::unwrap).collect();
        let sorted = sorted(&memtable, &fixture.registry);
        let schema = logs::schema();
        assert_eq!(concat_batches(&schema, &merged).unwrap(), concat_batches(&schema, &sorted).unwrap());
        let names = |segments: &[Arc<Segment>]| {
            let mut all = std::collections::BTreeMap::<String, u64>::new();
            for handle in handles(segments) {
                for (name, rows) in handle.attribute_names(&tenant("other")) {
                    *all.entry(name.to_owned()).or_default() += rows;
                }
            }
            all
        };
        assert_eq!(names(&[joined]), names(&pieces));
    }
}

#[test]
fn a_damaged_input_cannot_be_joined() {
    let fixture = Fixture::new();
    let memtable = batches(&fixture.registry, 17, 20_000);
    let pieces = ["a", "b"].map(|name| fixture.segment(name, &memtable, BodyEncoding::Template));
    let path = fixture.directory.path().join("b");
    let mut bytes = fs::read(&path).unwrap();
    let middle = bytes.len() / 3;
    bytes[middle] ^= 1;
    fs::write(&path, bytes).unwrap();
    let outcome = Join::new(&pieces, &WriteOptions::default()).unwrap().write(io::sink());
    assert!(matches!(outcome, Err(SegmentError::Corrupt { file, .. }) if file == "b"));
}

/// Takes so many bytes.
struct Bounded(usize);

impl io::Write for Bounded {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0 = self.0.checked_sub(bytes.len()).ok_or_else(|| io::Error::other("no more"))?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Else a disk that fails under a join would put its inputs into quarantine.
#[test]
fn a_file_that_takes_no_more_bytes_does_not_make_the_inputs_damaged() {
    let fixture = Fixture::new();
    let memtable = batches(&fixture.registry, 19, 60_000);
    for body in [BodyEncoding::Plain, BodyEncoding::Template] {
        let pieces = ["a", "b"].map(|name| fixture.segment(name, &memtable, body));
        let options = WriteOptions::default();
        let whole = fixture.joined("joined", &pieces).meta().file_bytes as usize;
        for room in (0..whole).step_by(64 << 10).chain([whole - 1]) {
            let join = Join::new(&pieces, &options).unwrap();
            let outcome = join.write(Bounded(room)).map_err(|error| (error.is_corrupt(), error.to_string()));
            assert!(matches!(&outcome, Err((false, _))), "{room} of {whole} bytes: {outcome:?}");
        }
    }
}

#[test]
fn a_merge_ends_with_the_error_of_an_input() {
    let fixture = Fixture::new();
    let sorted = sorted(&batches(&fixture.registry, 2, 9_000), &fixture.registry);
    let broken =
        sorted.clone().into_iter().take(1).map(Ok).chain([Err(SegmentError::Contract("test".into()))]);
    let inputs: Vec<Box<dyn Iterator<Item = _> + Send>> =
        vec![Box::new(sorted.into_iter().map(Ok)), Box::new(broken)];
    let outcome: Vec<_> = merge_sorted(inputs, fixture.registry.clone()).collect();
    assert!(matches!(outcome.last(), Some(Err(SegmentError::Contract(_)))));
    assert_eq!(outcome.iter().filter(|item| item.is_err()).count(), 1);
}

#[test]
fn rows_out_of_order_are_refused() {
    let fixture = Fixture::new();
    let unsorted = batches(&fixture.registry, 9, 500);
    let rows = unsorted.into_iter().map(Ok::<_, io::Error>);
    let outcome = write_segment(io::sink(), &fixture.registry, rows, &WriteOptions::default());
    assert!(matches!(outcome, Err(SegmentError::Contract(_))));
    let none = std::iter::empty::<Result<RecordBatch, io::Error>>();
    assert!(write_segment(io::sink(), &fixture.registry, none, &WriteOptions::default()).is_err());
}

#[test]
fn scans_answer_like_a_plain_filter() {
    let (fixture, memtable, snapshots) = fixture_with(40_000);
    let mut runner = proptest::test_runner::TestRunner::new(cases(80));
    let mut hits = 0;
    runner
        .run(&any_scan(), |question| {
            let expected = brute_force(&fixture, &memtable, &question);
            let want = sorted_rows(&projected(&expected, &question.projection));
            for (name, snapshot) in &snapshots {
                let question = LogScan { stats: Arc::default(), ..question.clone() };
                let found = run(&fixture, snapshot, &question);
                prop_assert_eq!(
                    found.iter().map(RecordBatch::num_rows).sum::<usize>(),
                    expected.len(),
                    "{}",
                    name
                );
                prop_assert!(sorted_rows(&found) == want, "{name}: other rows");
                let stats = question.stats.snapshot();
                prop_assert_eq!(stats.rows_matched, expected.len() as u64);
                prop_assert!(stats.partial.is_empty());
            }
            Ok(())
        })
        .unwrap();
    // The questions above are not all empty.
    for filter in [LogFilter::trace_id(TraceId([5; 16])), LogFilter::Line(LineFilter::contains("id=77"))] {
        let question = LogScan { filters: vec![filter], ..LogScan::all(tenant("default")) };
        hits += run(&fixture, &snapshots[1].1, &question).iter().map(RecordBatch::num_rows).sum::<usize>();
    }
    assert!(hits > 100);
}

#[test]
fn filter_batch_answers_like_a_plain_filter() {
    let fixture = Fixture::new();
    let memtable = batches(&fixture.registry, 21, 3_000);
    proptest!(cases(60), |(question in any_scan())| {
        let matcher = StreamMatcher::new(fixture.registry.clone(), &question);
        let found: Vec<RecordBatch> =
            memtable.iter().map(|batch| filter_batch(batch, &question, &matcher).unwrap()).collect();
        let expected = brute_force(&fixture, &memtable, &question);
        prop_assert_eq!(rows_of(&found), rows_of(&projected(&expected, &question.projection)));
        prop_assert_eq!(found.iter().map(RecordBatch::num_rows).sum::<usize>(), expected.len());
    });
}

#[test]
fn the_newest_and_oldest_rows_are_right_with_and_without_filters() {
    let (fixture, memtable, snapshots) = fixture_with(40_000);
    let limits = prop::sample::select(vec![0usize, 1, 10, 300, 2_000, 100_000]);
    let directions = prop::sample::select(vec![Direction::Forward, Direction::Backward]);
    proptest!(cases(60), |(mut question in any_scan(), limit in limits, direction in directions)| {
        question.top = Some((direction, limit));
        let times_of = |batches: &[RecordBatch], position: usize| -> Vec<i64> {
            let times = |batch: &RecordBatch| {
                batch.column(position).as_primitive::<TimestampNanosecondType>().values().to_vec()
            };
            batches.iter().flat_map(times).collect()
        };
        let expected = brute_force(&fixture, &memtable, &question);
        let mut want = times_of(&expected, column::TIMESTAMP);
        want.sort_unstable();
        if direction == Direction::Backward {
            want.reverse();
        }
        want.truncate(limit);
        let whole = sorted_rows(&projected(&expected, &question.projection));
        for (name, snapshot) in &snapshots {
            let question = LogScan { stats: Arc::default(), ..question.clone() };
            let found = run(&fixture, snapshot, &question);
            prop_assert_eq!(found.iter().map(RecordBatch::num_rows).sum::<usize>(), want.len(), "{}", name);
            if let Some(place) = question.projection.iter().position(|c| *c == column::TIMESTAMP) {
                prop_assert_eq!(times_of(&found, place), want.clone(), "{}", name);
            }
            // Rows of equal times are interchangeable, but every row must be one of the matching ones.
            prop_assert!(rows_of(&found).iter().all(|row| whole.binary_search(row).is_ok()), "{name}");
        }
    });
}

#[test]
fn counts_are_exact_for_any_range_bucket_and_level() {
    let (fixture, memtable, snapshots) = fixture_with(40_000);
    let buckets = prop::sample::select(vec![MINUTE, 5 * MINUTE, MINUTE / 2, 7_000_000_001]);
    let levels = prop::sample::select(vec![None, Some(17u8..=20), Some(13..=24), Some(0..=0)]);
    proptest!(cases(60), |(range in any_range(), matchers in any_matchers(), bucket_ns in buckets, level in levels)| {
        let filters = level.into_iter().map(LogFilter::Severity).collect();
        let scan = LogScan { start: range.0, end: range.1, streams: matchers, filters, ..LogScan::all(tenant("default")) };
        let mut want = std::collections::BTreeMap::<(u32, u8, i64), (u64, u64)>::new();
        for row in brute_force(&fixture, &memtable, &scan) {
            let stream = row.column(column::STREAM).as_primitive::<arrow::datatypes::UInt32Type>().value(0);
            let time = row.column(column::TIMESTAMP).as_primitive::<TimestampNanosecondType>().value(0);
            let number = row.column(column::SEVERITY_NUMBER).as_primitive::<arrow::datatypes::UInt8Type>().value(0);
            let level = Severity::from_number(i64::from(number)).level() as u8;
            let bucket = time.div_euclid(bucket_ns) * bucket_ns;
            let sum = want.entry((stream, level, bucket)).or_default();
            sum.0 += 1;
            sum.1 += u64::from(time == bucket);
        }
        for (name, snapshot) in &snapshots {
            let question = LogCount { scan: scan.clone(), bucket_ns };
            let rows = count(snapshot, &fixture.registry, &question, &refuse_damage()).unwrap().unwrap();
            let mut got = std::collections::BTreeMap::<(u32, u8, i64), (u64, u64)>::new();
            for LogCountRow { stream, level, bucket, count, at_start } in rows {
                let sum = got.entry((stream, level, bucket)).or_default();
                sum.0 += count;
                sum.1 += at_start;
            }
            prop_assert_eq!(&got, &want, "{}", name);
        }
    });
    let half_a_level =
        LogScan { filters: vec![LogFilter::Severity(17..=18)], ..LogScan::all(tenant("default")) };
    let question = LogCount { scan: half_a_level, bucket_ns: MINUTE };
    assert!(count(&snapshots[0].1, &fixture.registry, &question, &refuse_damage()).unwrap().is_none());
}

/// Guarantee: no timestamp that a sender may choose makes a segment count wrong or look damaged.
#[test]
fn times_at_both_ends_of_i64_are_rows_as_any_other() {
    let fixture = Fixture::new();
    let (first, last) = (i64::MIN / MINUTE * MINUTE, i64::MAX / MINUTE * MINUTE);
    let times =
        [i64::MIN, i64::MIN + 1, first - 1, first, first + MINUTE / 2, -1, 0, last - 1, last, i64::MAX];
    let stream = fixture.registry.intern(&tenant("default"), Labels::from_pairs(&[("app", "edge")])).unwrap();
    let mut builder = LogBatchBuilder::new(tenant("default"), times.len(), 0);
    for timestamp in times {
        builder.body("edge");
        let observed_timestamp = Some(timestamp.wrapping_neg());
        builder.push(&LogRecord { stream, timestamp, observed_timestamp, ..LogRecord::default() }).unwrap();
    }
    let memtable = [builder.finish().records];
    let one = fixture.segment("one", &memtable, BodyEncoding::Template);
    let joined = fixture.joined("joined", &[one.clone(), one.clone()]);
    for (segment, copies) in [(one, 1), (joined, 2)] {
        block_on(segment.verify()).unwrap();
        let snapshot = Snapshot { memtable: vec![], segments: handles(&[segment]) };
        for start in times {
            for end in times.into_iter().filter(|end| *end > start) {
                let question = LogScan { start, end, ..LogScan::all(tenant("default")) };
                let want = copies * times.iter().filter(|time| question.in_range(**time)).count() as u64;
                for bucket_ns in [MINUTE, 60 * MINUTE, 1] {
                    let asked = LogCount { scan: question.clone(), bucket_ns };
                    let rows =
                        count(&snapshot, &fixture.registry, &asked, &refuse_damage()).unwrap().unwrap();
                    let found: u64 = rows.iter().map(|row| row.count).sum();
                    assert_eq!(found, want, "{start}..{end} by {bucket_ns}: {rows:?}");
                }
                let found = run(&fixture, &snapshot, &question);
                assert_eq!(found.iter().map(RecordBatch::num_rows).sum::<usize>() as u64, want);
            }
        }
    }
}

#[test]
fn streams_and_attribute_names_are_those_of_the_tenant() {
    let (fixture, _, snapshots) = fixture_with(5_000);
    for (name, snapshot) in &snapshots {
        let mut question = LogScan::all(tenant("other"));
        assert_eq!(streams(snapshot, &fixture.registry, &question).unwrap().len(), 9, "{name}");
        question.streams = vec![LabelMatcher { name: "pod".into(), value: LabelMatch::Equal("1".into()) }];
        let found = streams(snapshot, &fixture.registry, &question).unwrap();
        assert_eq!(found.len(), 3, "{name}");
        assert!(found.iter().all(|stream| fixture.registry.get(*stream).tenant.as_str() == "other"));
        question.end = START;
        assert!(streams(snapshot, &fixture.registry, &question).unwrap().is_empty(), "{name}");
    }
    let segment = &snapshots[0].1.segments[0];
    let names = segment.attribute_names(&tenant("default"));
    assert_eq!(names.map(|(name, _)| name).collect::<Vec<_>>(), ["http.status", "user"]);
    assert_eq!(segment.attribute_names(&tenant("nobody")).count(), 0);
}

/// Every row or an error: what damage may lead to.
fn read_everything(
    fixture: &Fixture,
    name: &str,
    expect: Option<SegmentMeta>,
) -> Result<Vec<String>, SegmentError> {
    let segment = fixture.open(name, expect)?;
    let rows = segment.batches().collect::<Result<Vec<_>, _>>()?;
    block_on(segment.verify())?;
    Ok(rows_of(&rows))
}

#[test]
fn a_flipped_byte_anywhere_is_named_and_never_read() {
    let fixture = Fixture::new();
    let memtable = batches(&fixture.registry, 13, 6_000);
    for body in [BodyEncoding::Plain, BodyEncoding::Template] {
        let segment = fixture.segment("segment", &memtable, body);
        let path = fixture.directory.path().join("segment");
        let intact = fs::read(&path).unwrap();
        let places: Vec<usize> =
            (0..intact.len()).step_by(intact.len() / 400).chain(intact.len() - 40..intact.len()).collect();
        for at in places {
            for expect in [None, Some(segment.meta().clone())] {
                let mut damaged = intact.clone();
                damaged[at] ^= 1 << (at % 8);
                fs::write(&path, &damaged).unwrap();
                let error = read_everything(&fixture, "segment", expect).expect_err("damage passed");
                assert!(error.is_corrupt(), "byte {at}: {error}");
                assert!(error.to_string().contains("segment"), "byte {at}: {error}");
            }
        }
        for length in [0, 3, 8, intact.len() / 2, intact.len() - 1] {
            fs::write(&path, &intact[..length]).unwrap();
            for expect in [None, Some(segment.meta().clone())] {
                assert!(read_everything(&fixture, "segment", expect).is_err(), "cut to {length} bytes");
            }
        }
    }
}

#[test]
fn a_scan_leaves_a_damaged_segment_out_and_says_so() {
    let fixture = Fixture::new();
    let memtable = batches(&fixture.registry, 17, 20_000);
    let half = memtable.len() / 2;
    for (body, top) in [
        (BodyEncoding::Plain, None),
        (BodyEncoding::Template, None),
        (BodyEncoding::Plain, Some((Direction::Backward, 50_000))),
    ] {
        let good = fixture.segment("good", &memtable[..half], body);
        let bad = fixture.segment("bad", &memtable[half..], body);
        let path = fixture.directory.path().join("bad");
        let mut bytes = fs::read(&path).unwrap();
        let at = bytes.len() / 3;
        bytes[at] ^= 0x10;
        // In place, as the opened segment reads the same file.
        fs::OpenOptions::new()
            .write(true)
            .open(&path)
            .and_then(|file| {
                use std::os::unix::fs::FileExt as _;
                file.write_all_at(&bytes[at..=at], at as u64)
            })
            .unwrap();
        let segments = handles(&[good, bad]);
        let bad = segments[1].clone();
        let snapshot = Snapshot { memtable: vec![], segments };
        let named = Arc::new(Mutex::new(Vec::new()));
        let hook: OnCorrupt = {
            let named = named.clone();
            Arc::new(move |segment, _| named.lock().push(segment.path().to_string()))
        };
        let question = LogScan { top, ..LogScan::all(tenant("default")) };
        let stream = scan(snapshot.clone(), fixture.registry.clone(), question.clone(), hook.clone());
        let found: Vec<RecordBatch> = block_on(stream.map(Result::unwrap).collect());
        let rows = found.iter().map(RecordBatch::num_rows).sum::<usize>();
        let expected = brute_force(&fixture, &memtable, &question).len();
        assert!(rows >= brute_force(&fixture, &memtable[..half], &question).len() && rows < expected);
        assert!(named.lock().iter().all(|name| name == "bad") && !named.lock().is_empty());
        let partial = question.stats.snapshot().partial;
        assert!(!partial.is_empty() && partial.iter().all(|text| text.contains("bad")), "{partial:?}");
        // From now on it is left out from the start, and still named.
        assert!(bad.is_damaged());
        let again = LogScan { stats: Arc::default(), ..question };
        let stream = scan(snapshot, fixture.registry.clone(), again.clone(), hook);
        let _: Vec<_> = block_on(stream.collect());
        assert_eq!(again.stats.snapshot().partial.len(), 1);
    }
}

#[test]
fn deadline_and_memory_limit_end_a_scan() {
    let (fixture, _, snapshots) = fixture_with(20_000);
    for top in [None, Some((Direction::Backward, 10_000))] {
        let late =
            LogScan { deadline: Some(std::time::Instant::now()), top, ..LogScan::all(tenant("default")) };
        let outcome: Vec<_> =
            block_on(scan(snapshots[1].1.clone(), fixture.registry.clone(), late, refuse_damage()).collect());
        assert!(matches!(outcome.last(), Some(Err(trine_schema::ScanError::Deadline(_)))), "{outcome:?}");
        let small = LogScan { memory_limit: Some(10_000), top, ..LogScan::all(tenant("default")) };
        let outcome: Vec<_> = block_on(
            scan(snapshots[1].1.clone(), fixture.registry.clone(), small, refuse_damage()).collect(),
        );
        assert!(matches!(outcome.last(), Some(Err(trine_schema::ScanError::Memory { limit: 10_000 }))));
    }
}

#[test]
fn any_object_store_will_do() {
    let registry = Arc::new(StreamRegistry::new());
    let memtable = batches(&registry, 19, 10_000);
    let sorted = sorted(&memtable, &registry);
    let mut bytes = Vec::new();
    let rows = sorted.iter().cloned().map(Ok::<_, io::Error>);
    let meta = write_segment(&mut bytes, &registry, rows, &WriteOptions::default()).unwrap();
    let store = Arc::new(InMemory::new());
    block_on(store.put(&Path::from("x"), bytes.into())).unwrap();
    let segment = Arc::new(block_on(Segment::open(store, Path::from("x"), &registry, Some(meta))).unwrap());
    block_on(segment.verify()).unwrap();
    let back: Vec<RecordBatch> = segment.batches().map(Result::unwrap).collect();
    assert_eq!(rows_of(&back), rows_of(&sorted));
}

#[test]
fn streams_get_the_references_of_the_process_that_opens() {
    let fixture = Fixture::new();
    let memtable = batches(&fixture.registry, 23, 2_000);
    let segment = fixture.segment("segment", &memtable, BodyEncoding::Plain);
    let other = StreamRegistry::new();
    other.intern(&tenant("default"), Labels::from_pairs(&[("app", "first")])).unwrap();
    let opened = Arc::new(
        block_on(Segment::open(fixture.store.clone(), Path::from("segment"), &other, None)).unwrap(),
    );
    let ids = |segment: &Arc<Segment>, registry: &StreamRegistry| -> Vec<_> {
        let refs = |batch: RecordBatch| {
            batch.column(column::STREAM).as_primitive::<arrow::datatypes::UInt32Type>().values().to_vec()
        };
        segment.batches().flat_map(|batch| refs(batch.unwrap())).map(|r| registry.get(r).id).collect()
    };
    assert_eq!(ids(&segment, &fixture.registry), ids(&opened, &other));
}

#[test]
fn a_line_of_ten_megabytes_and_its_neighbours_come_back() {
    let fixture = Fixture::new();
    let whose = tenant("default");
    let stream = fixture.registry.intern(&whose, Labels::from_pairs(&[("app", "big")])).unwrap();
    let mut builder = LogBatchBuilder::new(whose.clone(), 12, 0);
    for number in 0..12i64 {
        // Four long lines fill a granule by their bytes.
        builder.body(&if number % 2 == 0 { "x1 ".repeat(10 << 20 >> 1) } else { format!("short {number}") });
        builder.push(&LogRecord { stream, timestamp: START + number, ..LogRecord::default() }).unwrap();
    }
    let memtable = vec![builder.finish().records];
    for body in [BodyEncoding::Plain, BodyEncoding::Template] {
        let segment = fixture.segment("segment", &memtable, body);
        let back: Vec<RecordBatch> = segment.batches().map(Result::unwrap).collect();
        assert!(back.len() > 1, "one granule took everything");
        assert_eq!(concat_batches(&logs::schema(), &back).unwrap(), memtable[0]);
        let snapshot = Snapshot { memtable: vec![], segments: handles(&[segment]) };
        let short = LogFilter::Line(LineFilter::contains("short 7"));
        let question = LogScan { filters: vec![short], ..LogScan::all(whose.clone()) };
        assert_eq!(run(&fixture, &snapshot, &question).iter().map(RecordBatch::num_rows).sum::<usize>(), 1);
    }
}

#[test]
fn ten_thousand_streams_of_three_rows() {
    let fixture = Fixture::new();
    let whose = tenant("default");
    let mut builder = LogBatchBuilder::new(whose.clone(), 30_000, 0);
    for number in 0..30_000i64 {
        let pod = (number % 10_000).to_string();
        let labels = Labels::from_pairs(&[("service.name", "many"), ("pod", &pod)]);
        let stream = fixture.registry.intern(&whose, labels).unwrap();
        builder.body("hello");
        builder.push(&LogRecord { stream, timestamp: START + number, ..LogRecord::default() }).unwrap();
    }
    let segment = fixture.segment("segment", &[builder.finish().records], BodyEncoding::Template);
    block_on(segment.verify()).unwrap();
    let snapshot = Snapshot { memtable: vec![], segments: handles(&[segment]) };
    let mut question = LogScan::all(whose);
    assert_eq!(streams(&snapshot, &fixture.registry, &question).unwrap().len(), 10_000);
    question.streams = vec![LabelMatcher { name: "pod".into(), value: LabelMatch::Equal("77".into()) }];
    let found = run(&fixture, &snapshot, &question);
    assert_eq!(found.iter().map(RecordBatch::num_rows).sum::<usize>(), 3);
    assert_eq!(question.stats.snapshot().granules_scanned, 1);
}
