//! Indexes come into memory when a question needs them, and go, without a change in any answer.

use std::{
    fs,
    os::unix::fs::FileExt as _,
    sync::{Arc, Barrier},
    time::Duration,
};

use arrow::array::{AsArray, RecordBatch};
use futures::{StreamExt as _, executor::block_on};
use object_store::{ObjectStore, local::LocalFileSystem, path::Path};
use parking_lot::Mutex;
use tempfile::TempDir;
use trine_model::TenantId;
use trine_schema::{
    Direction, LabelMatch, LabelMatcher, Labels, LineFilter, LogBatchBuilder, LogCount, LogFilter, LogRecord,
    LogScan, StreamRegistry, logs::column,
};
use trine_segment::{
    CachedIndex as _, IndexCache, OnCorrupt, Segment, SegmentHandle, Snapshot, WriteOptions, count, scan,
    sort_batches, streams, write_segment,
};

const SECOND: i64 = 1_000_000_000;
/// Rows of a segment: several granules.
const ROWS: i64 = 20_000;
const SEGMENTS: i64 = 5;

/// Segments of a row per second, one after the other in time; segment `n` has the streams `all` and `only-n`.
struct Shelf {
    directory: TempDir,
    registry: Arc<StreamRegistry>,
    cache: Arc<IndexCache>,
    handles: Vec<Arc<SegmentHandle>>,
}

impl Shelf {
    fn new(most_bytes: usize) -> Self {
        let directory = TempDir::new().unwrap();
        let registry = Arc::new(StreamRegistry::new());
        let cache = IndexCache::new(most_bytes);
        let store: Arc<dyn ObjectStore> =
            Arc::new(LocalFileSystem::new_with_prefix(directory.path()).unwrap());
        let handles = (0..SEGMENTS).map(|number| {
            let name = number.to_string();
            let rows =
                sort_batches(&[rows(&registry, number)], &registry).unwrap().map(Ok::<_, std::io::Error>);
            let file = fs::File::create(directory.path().join(&name)).unwrap();
            let meta = write_segment(file, &registry, rows, &WriteOptions::default()).unwrap();
            let opened = block_on(Segment::open(store.clone(), Path::from(name), &registry, Some(meta)));
            SegmentHandle::new(&Arc::new(opened.unwrap()), &cache)
        });
        let handles = handles.collect();
        Self { directory, registry, cache, handles }
    }

    fn snapshot(&self) -> Snapshot {
        Snapshot { memtable: vec![], segments: self.handles.clone() }
    }

    /// Bodies of the answer, sorted.
    fn ask(&self, question: &LogScan, on_corrupt: &OnCorrupt) -> Vec<String> {
        let question = LogScan { projection: vec![column::BODY], ..question.clone() };
        let found = scan(self.snapshot(), self.registry.clone(), question, on_corrupt.clone());
        bodies(&block_on(found.map(Result::unwrap).collect::<Vec<_>>()))
    }

    /// Whether the segments' indexes are kept.
    fn loaded(&self) -> Vec<bool> {
        self.handles.iter().map(|handle| handle.is_loaded()).collect()
    }

    fn loads_of(&self, question: &LogScan) -> u64 {
        self.cache.let_go(Duration::ZERO);
        let before = self.cache.loads();
        self.ask(question, &no_damage());
        self.cache.loads() - before
    }
}

fn rows(registry: &StreamRegistry, number: i64) -> RecordBatch {
    let tenant = TenantId::default();
    let mut builder = LogBatchBuilder::new(tenant.clone(), ROWS as usize, 0);
    let stream = |name: &str| registry.intern(&tenant, Labels::from_pairs(&[("app", name)])).unwrap();
    let two = [stream("all"), stream(&format!("only-{number}"))];
    for row in number * ROWS..(number + 1) * ROWS {
        builder.body(&format!("request {row} took {} ms", row % 97));
        builder.attribute(&format!("attribute-{number}"), "x");
        let stream = two[usize::from(row % 5 == 0)];
        builder.push(&LogRecord { stream, timestamp: row * SECOND, ..LogRecord::default() }).unwrap();
    }
    builder.finish().records
}

fn bodies(batches: &[RecordBatch]) -> Vec<String> {
    let text = |batch: &RecordBatch| -> Vec<String> {
        batch.column(0).as_string::<i32>().iter().map(|body| body.unwrap().to_owned()).collect()
    };
    let mut all: Vec<String> = batches.iter().flat_map(text).collect();
    all.sort_unstable();
    all
}

fn no_damage() -> OnCorrupt {
    Arc::new(|segment, error| panic!("{} was taken for damaged: {error}", segment.path()))
}

fn everything() -> LogScan {
    LogScan::all(TenantId::default())
}

fn containing(text: &str) -> LogScan {
    LogScan { filters: vec![LogFilter::Line(LineFilter::contains(text))], ..everything() }
}

fn of_app(name: &str) -> LogScan {
    let value = LabelMatch::Equal(name.into());
    LogScan { streams: vec![LabelMatcher { name: "app".into(), value }], ..everything() }
}

#[test]
fn answers_are_the_same_whether_indexes_are_kept_or_read_anew() {
    let shelf = Shelf::new(usize::MAX);
    let newest = |question| LogScan { top: Some((Direction::Backward, 700)), ..question };
    let questions = [
        everything(),
        containing("request 31"),
        of_app("only-3"),
        newest(everything()),
        newest(containing("96 ms")),
        LogScan { start: 15_000 * SECOND, end: 45_000 * SECOND, ..everything() },
    ];
    let answer = |question: &LogScan| {
        let counted =
            LogCount { scan: LogScan { filters: vec![], ..question.clone() }, bucket_ns: 60 * SECOND };
        (
            shelf.ask(question, &no_damage()),
            count(&shelf.snapshot(), &shelf.registry, &counted, &no_damage()).unwrap(),
            streams(&shelf.snapshot(), &shelf.registry, question).unwrap(),
        )
    };
    for question in &questions {
        let first = answer(question);
        assert!(!first.0.is_empty());
        let loads = shelf.cache.loads();
        assert_eq!(answer(question), first);
        assert_eq!(shelf.cache.loads(), loads, "what is kept is not read again");
        shelf.cache.let_go(Duration::ZERO);
        assert_eq!((shelf.cache.bytes(), shelf.loaded()), (0, vec![false; 5]));
        assert_eq!(answer(question), first);
        assert!(shelf.cache.loads() > loads);
    }
    shelf.cache.let_go(Duration::from_hours(1));
    assert!(shelf.loaded().contains(&true), "what was just asked for is not idle");
}

/// Guarantee: an index is read only for a segment that may hold rows of the answer.
#[test]
fn only_what_a_question_needs_is_loaded() {
    let shelf = Shelf::new(usize::MAX);
    let top = |direction, question| LogScan { top: Some((direction, 1_000)), ..question };
    assert_eq!(shelf.loads_of(&top(Direction::Backward, everything())), 1);
    assert!(!shelf.handles[0].is_loaded());
    assert_eq!(shelf.loads_of(&top(Direction::Backward, everything())), 1);
    assert_eq!(shelf.loaded(), [false, false, false, false, true]);
    assert_eq!(shelf.loads_of(&top(Direction::Forward, everything())), 1);
    assert_eq!(shelf.loaded(), [true, false, false, false, false]);
    assert_eq!(shelf.loads_of(&top(Direction::Backward, of_app("only-2"))), 1);
    assert_eq!(shelf.loads_of(&top(Direction::Backward, containing("no such text"))), 5);
    assert_eq!(shelf.loads_of(&of_app("only-2")), 1);
    assert_eq!(shelf.loads_of(&of_app("nobody")), 0);
    assert_eq!(shelf.loads_of(&LogScan { end: ROWS * SECOND, ..everything() }), 1);
    let names: Vec<_> = shelf.handles[1].attribute_names(&TenantId::default()).collect();
    assert_eq!(
        (names, streams(&shelf.snapshot(), &shelf.registry, &everything()).unwrap().len()),
        (vec![("attribute-1", ROWS as u64)], 6)
    );
    assert_eq!(shelf.loads_of(&of_app("nobody")), 0);
}

#[test]
fn two_that_ask_at_once_read_the_index_once() {
    let shelf = Shelf::new(0);
    for round in 1..=10 {
        let barrier = Barrier::new(4);
        // All keep what they got until all have got it.
        let load = || {
            barrier.wait();
            let segment = shelf.handles[0].load().unwrap();
            barrier.wait();
            segment
        };
        std::thread::scope(|scope| {
            let all: Vec<_> = (0..4).map(|_| scope.spawn(load)).collect();
            let all: Vec<_> = all.into_iter().map(|thread| thread.join().unwrap()).collect();
            assert!(all.iter().all(|segment| Arc::ptr_eq(segment, &all[0])));
        });
        assert_eq!(shelf.cache.loads(), round);
    }
}

#[test]
fn the_bound_holds_and_the_least_recently_asked_for_go_first() {
    let one = Shelf::new(0).handles[0].load().unwrap().memory();
    let shelf = Shelf::new(one * 5 / 2);
    let ask = |number: usize| drop(shelf.handles[number].load().unwrap());
    (0..2).for_each(ask);
    assert_eq!(shelf.loaded(), [true, true, false, false, false]);
    [0, 2].into_iter().for_each(ask);
    assert_eq!(shelf.loaded(), [true, false, true, false, false]);
    for number in [3, 1, 4, 4, 0, 2] {
        ask(number);
        assert!(shelf.handles[number].is_loaded() && shelf.cache.bytes() <= one * 5 / 2);
    }
    assert_eq!(shelf.loaded().iter().filter(|loaded| **loaded).count(), 2);
    assert_eq!(shelf.ask(&everything(), &no_damage()).len() as i64, SEGMENTS * ROWS);
    assert!(shelf.cache.bytes() <= one * 5 / 2);
    // With its handle an index goes too.
    drop(shelf.handles);
    assert_eq!(shelf.cache.bytes(), 0);
}

/// Guarantee: a query that has begun goes on when its indexes are let go and its files are deleted, and a
/// handle whose file is deleted can still be loaded.
#[test]
fn a_deleted_file_is_read_by_those_who_hold_its_handle() {
    let shelf = Shelf::new(0);
    let want = shelf.ask(&everything(), &no_damage());
    let question = LogScan { projection: vec![column::BODY], ..everything() };
    let mut begun = scan(shelf.snapshot(), shelf.registry.clone(), question, no_damage());
    let mut found = vec![block_on(begun.next()).unwrap().unwrap()];
    for number in 0..SEGMENTS {
        fs::remove_file(shelf.directory.path().join(number.to_string())).unwrap();
    }
    shelf.cache.let_go(Duration::ZERO);
    found.extend(block_on(begun.map(Result::unwrap).collect::<Vec<_>>()));
    assert!(bodies(&found) == want);
    assert!(shelf.ask(&everything(), &no_damage()) == want);
}

/// Guarantee: an index that is damaged on disk after the segment was opened is met at the next load, named
/// in the answer and reported; the other segments answer.
#[test]
fn an_index_damaged_meanwhile_is_named_and_the_others_answer() {
    for in_tail in [false, true] {
        for top in [None, Some((Direction::Backward, usize::MAX))] {
            let shelf = Shelf::new(usize::MAX);
            // The index lies before the tail.
            let meta = shelf.handles[2].meta();
            let at = if in_tail { meta.tail_offset + 100 } else { meta.tail_offset - 100 };
            let path = shelf.directory.path().join("2");
            let byte = fs::read(&path).unwrap()[at as usize];
            let file = fs::OpenOptions::new().write(true).open(&path).unwrap();
            file.write_all_at(&[byte ^ 4], at).unwrap();
            let named = Arc::new(Mutex::new(Vec::new()));
            let hook: OnCorrupt = {
                let named = named.clone();
                Arc::new(move |segment, _| named.lock().push(segment.path().to_string()))
            };
            let question = LogScan { top, ..everything() };
            assert_eq!(shelf.ask(&question, &hook).len() as i64, (SEGMENTS - 1) * ROWS);
            assert_eq!(*named.lock(), ["2"]);
            let partial = question.stats.snapshot().partial;
            assert!(partial.len() == 1 && partial[0].contains('2'), "{partial:?}");
            assert!(shelf.handles[2].is_damaged() && !shelf.handles[2].is_loaded());
            let counted = LogCount { scan: everything(), bucket_ns: 60 * SECOND };
            let rows = count(&shelf.snapshot(), &shelf.registry, &counted, &hook).unwrap().unwrap();
            assert_eq!(rows.iter().map(|row| row.count).sum::<u64>() as i64, (SEGMENTS - 1) * ROWS);
            assert_eq!(counted.scan.stats.snapshot().partial.len(), 1);
        }
    }
}
