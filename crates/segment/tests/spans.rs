//! Segments of spans: what is written comes back, in any order of arrival, and damage is found.

use std::{collections::BTreeMap, fmt::Write as _, sync::Arc};

use arrow::{
    array::{Array as _, AsArray, RecordBatch},
    datatypes::{DataType, Int64Type, TimestampNanosecondType, UInt8Type, UInt32Type},
};
use futures::TryStreamExt as _;
use object_store::{ObjectStore, ObjectStoreExt as _, memory::InMemory, path::Path};
use trine_model::{SpanId, TenantId, TraceId};
use trine_schema::{
    LabelMatch, LabelMatcher, Labels, ScanError, Span, SpanBatchBuilder, SpanScan, StreamRegistry,
    TraceService, TraceSummary, columns::attributes_of, spans::column,
};
use trine_segment::{
    IndexCache, OnCorrupt, SPAN_GRANULE_ROWS, SegmentError, SegmentMeta, SpanSegment, SpanSnapshot,
    WriteOptions, block_on, can_join_spans, join_spans, merge_spans, scan_spans, search_traces, sort_spans,
    write_spans,
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
}

fn tenant(number: u64) -> TenantId {
    TenantId::new(if number == 0 { "a" } else { "b" }).unwrap()
}

/// The same labels for both tenants, the same traces too: only the tenant tells them apart.
fn batches(registry: &StreamRegistry, traces: u64, random: &mut Random) -> Vec<RecordBatch> {
    let mut builders = [0, 1].map(|number| SpanBatchBuilder::new(tenant(number), 0));
    let mut finished = Vec::new();
    for trace in 0..traces {
        let owner = random.below(2);
        let spans = if trace == 7 { 300 } else { 1 + random.below(9) };
        let mut names = Vec::new();
        // In the first third of the time every span has an attribute, in the second none, in the last few.
        let often = [1, 0, 200][(trace * 3 / traces) as usize];
        for span in 0..spans {
            // A trace's later spans may come with the next batch.
            if random.below(250) == 0 {
                for (number, builder) in builders.iter_mut().enumerate() {
                    let full = std::mem::replace(builder, SpanBatchBuilder::new(tenant(number as u64), 0));
                    finished.push(full.finish().records);
                }
            }
            let service = format!("s{}", random.below(5));
            let labels = Labels::from_pairs(&[("service.name", service.as_str())]);
            let stream = registry.intern(&tenant(owner), labels).unwrap();
            let b = &mut builders[owner as usize];
            b.attribute("http.request.method", ["GET", "PUT"][random.below(2) as usize]);
            if random.below(3) == 0 {
                b.attribute(&format!("rare.{}", random.below(400)), "x");
            }
            if often > 0 && random.below(often) == 0 {
                b.attribute("drift", &format!("v{}", random.below(3)));
            }
            if trace % 2 == 0 {
                // More bytes than a dictionary takes.
                b.attribute("url.path", &format!("/a/path/for/{trace}/and/{span}"));
            }
            if random.below(40) == 0 {
                // Twice in one span.
                b.attribute("http.request.method", "AGAIN");
            }
            // Spellings of one name, with and without columns of their own; at most one of the other ones.
            match random.below(30) {
                0 => b.attribute("peer-name", "p1"),
                1 => b.attribute("peer name", "p2"),
                2..20 => b.attribute("peer.name", &format!("p{}", random.below(3))),
                _ => {}
            }
            if random.below(300) == 0 {
                b.attribute("peer_name", &format!("p{}", random.below(3)));
            }
            for event in 0..random.below(3) {
                b.event_attribute("n", &event.to_string());
                b.event(event as i64, "retry");
            }
            if random.below(20) == 0 {
                b.link(TraceId([9; 16]), SpanId([8; 8]), "k=v");
            }
            let mut id = [0; 8];
            id[..4].copy_from_slice(&(trace as u32 + 1).to_be_bytes());
            id[4..].copy_from_slice(&(span as u32).to_be_bytes());
            let parent = match random.below(10) {
                0 => None,
                1 => Some(SpanId([0xee; 8])),
                2 => Some(SpanId(id)),
                _ if names.is_empty() => None,
                _ => Some(names[random.below(names.len() as u64) as usize]),
            };
            names.push(SpanId(id));
            let operation = format!("op {}", random.below(30));
            b.push(&Span {
                stream,
                timestamp: 1_000_000 * trace as i64 + random.below(3_000_000) as i64,
                duration_ns: random.below(1 << 30) as i64 - 5,
                trace_id: trace_id(trace),
                span_id: SpanId(id),
                parent_span_id: parent,
                operation: &operation,
                kind: random.below(6) as u8,
                status_code: random.below(3) as u8,
                status_message: if random.below(9) == 0 { "no" } else { "" },
                trace_state: "",
                trace_flags: 1,
                scope_name: "lib",
            });
        }
    }
    finished.extend(builders.into_iter().map(|builder| builder.finish().records));
    finished
}

fn trace_id(number: u64) -> TraceId {
    let mut id = [7; 16];
    id[..8].copy_from_slice(&number.wrapping_mul(0x9e37_79b9_7f4a_7c15).to_be_bytes());
    TraceId(id)
}

/// Rows as text, attributes sorted.
fn rows(batch: &RecordBatch) -> Vec<String> {
    (0..batch.num_rows()).map(|number| row(batch, number)).collect()
}

fn row(batch: &RecordBatch, row: usize) -> String {
    let attributes = batch.column(column::ATTRIBUTES).as_map();
    let mut text = String::new();
    let others = batch.columns().iter().enumerate().filter(|(position, _)| *position != column::ATTRIBUTES);
    others.for_each(|(position, column)| write!(text, "{position}={:?} ", column.slice(row, 1)).unwrap());
    let mut pairs: Vec<_> = attributes_of(attributes, row).collect();
    pairs.sort_unstable();
    text + &format!("{pairs:?}")
}

fn sorted(batches: &[RecordBatch]) -> Vec<String> {
    let mut all: Vec<String> = batches.iter().flat_map(rows).collect();
    all.sort_unstable();
    all
}

struct Written {
    registry: Arc<StreamRegistry>,
    store: Arc<InMemory>,
    batches: Vec<RecordBatch>,
    bytes: Vec<u8>,
}

fn written(traces: u64) -> Written {
    let (registry, store) = (Arc::new(StreamRegistry::new()), Arc::new(InMemory::new()));
    let batches = batches(&registry, traces, &mut Random(88_172_645_463_325_252));
    let mut bytes = Vec::new();
    let meta = write_spans(
        &mut bytes,
        &registry,
        sort_spans(&batches, &registry).unwrap(),
        &WriteOptions::default(),
    )
    .unwrap();
    assert_eq!(meta.rows as usize, batches.iter().map(RecordBatch::num_rows).sum::<usize>());
    assert_eq!(meta.file_bytes as usize, bytes.len());
    assert_eq!(meta.tenants, [tenant(0), tenant(1)]);
    block_on(store.put(&Path::from("x"), bytes.clone().into())).unwrap();
    Written { registry, store, batches, bytes }
}

impl Written {
    fn open(&self) -> Result<Arc<SpanSegment>, trine_segment::SegmentError> {
        let store: Arc<dyn ObjectStore> = self.store.clone();
        block_on(SpanSegment::open(
            store,
            Path::from("x"),
            &self.registry,
            None,
            &IndexCache::new(usize::MAX),
        ))
    }
}

#[test]
fn all_spans_come_back_whole() {
    let written = written(4_000);
    let segment = written.open().unwrap();
    assert!(segment.granules() > 4, "{} granules", segment.granules());
    let back: Vec<_> = (0..segment.granules()).map(|number| segment.granule(number).unwrap()).collect();
    assert!(back.iter().all(|batch| batch.num_rows() <= SPAN_GRANULE_ROWS));
    let (found, want) = (sorted(&back), sorted(&written.batches));
    assert_eq!(found.len(), want.len());
    for (found, want) in found.iter().zip(&want) {
        assert_eq!(found, want);
    }
}

#[test]
fn a_trace_is_found_for_its_tenant_only_and_in_the_order_of_its_starts() {
    let written = written(4_000);
    let segment = written.open().unwrap();
    let mut want: BTreeMap<(u64, u64), Vec<String>> = BTreeMap::new();
    let number_of: BTreeMap<[u8; 16], u64> = (0..4_000).map(|number| (trace_id(number).0, number)).collect();
    for batch in &written.batches {
        let streams = batch.column(column::STREAM).as_primitive::<UInt32Type>();
        for (row, text) in rows(batch).into_iter().enumerate() {
            let owner = u64::from(written.registry.get(streams.value(row)).tenant == tenant(1));
            let id: [u8; 16] =
                batch.column(column::TRACE_ID).as_fixed_size_binary().value(row).try_into().unwrap();
            want.entry((owner, number_of[&id])).or_default().push(text);
        }
    }
    let snapshot = SpanSnapshot { memtable: Vec::new(), segments: vec![segment] };
    let trace = |owner, id| {
        let scan = SpanScan { traces: Some(Arc::new([id])), ..SpanScan::all(owner) };
        scanned(&snapshot, &written.registry, &scan, |segment, error| panic!("{segment:?}: {error}"))
    };
    for number in (0..4_000).step_by(37).chain([7]) {
        for owner in [0, 1] {
            let found = trace(tenant(owner), trace_id(number));
            let mut of_trace = want.remove(&(owner, number)).unwrap_or_default();
            of_trace.sort_unstable();
            assert_eq!(sorted(&found), of_trace, "trace {number} of tenant {owner}");
            let starts: Vec<i64> = found
                .iter()
                .flat_map(|batch| {
                    let times = batch.column(column::TIMESTAMP);
                    times.as_primitive::<TimestampNanosecondType>().values().to_vec()
                })
                .collect();
            assert!(starts.is_sorted());
        }
    }
    assert!(trace(tenant(0), TraceId([1; 16])).is_empty());
}

/// Whether a row passes, by the plain meaning of the scan.
fn passes(batch: &RecordBatch, row: usize, scan: &SpanScan, registry: &StreamRegistry) -> bool {
    let stream = registry.get(batch.column(column::STREAM).as_primitive::<UInt32Type>().value(row));
    let time = batch.column(column::TIMESTAMP).as_primitive::<TimestampNanosecondType>().value(row);
    let duration = batch.column(column::DURATION).as_primitive::<Int64Type>().value(row);
    let status = batch.column(column::STATUS_CODE).as_primitive::<UInt8Type>().value(row);
    stream.tenant == scan.tenant
        && (scan.start..=scan.last).contains(&time)
        && scan.streams.iter().all(|matcher| matcher.matches(&stream))
        && scan
            .operation
            .as_ref()
            .is_none_or(|name| batch.column(column::OPERATION).as_string::<i32>().value(row) == name)
        && scan.duration.contains(&duration)
        && scan.traces.as_ref().is_none_or(|ids| {
            let id = batch.column(column::TRACE_ID).as_fixed_size_binary().value(row);
            ids.iter().any(|known| known.0 == id)
        })
        && scan.status_code.is_none_or(|code| code == status)
        && scan.attributes.iter().all(|(key, value)| meant(batch, row, key).as_ref() == Some(value))
}

/// Value of the attribute that a name means: of just this name, else of one that reads so as a label.
fn meant(batch: &RecordBatch, row: usize, name: &str) -> Option<String> {
    let pairs: Vec<_> = attributes_of(batch.column(column::ATTRIBUTES).as_map(), row).collect();
    let exact = pairs.iter().find(|(key, _)| *key == name);
    let found = exact.or_else(|| pairs.iter().find(|(key, _)| trine_schema::label_name(key) == name));
    found.map(|(_, value)| (*value).to_owned())
}

/// Most spans in segments, a batch here and a batch there so that traces lie in several; the rest in memory.
/// With an even number of segments each has both tenants, whose batches take turns.
struct Table {
    registry: Arc<StreamRegistry>,
    batches: Vec<RecordBatch>,
    snapshot: SpanSnapshot,
    cache: Arc<IndexCache>,
    store: Arc<InMemory>,
}

impl Table {
    fn new(traces: u64, segments: usize) -> Self {
        let (registry, store) = (Arc::new(StreamRegistry::new()), Arc::new(InMemory::new()));
        let batches = batches(&registry, traces, &mut Random(4_101_842_887_655_102_017));
        let cache = IndexCache::new(usize::MAX);
        let mut table = Self { registry, batches, snapshot: SpanSnapshot::default(), cache, store };
        for number in 0..segments {
            let part = table.part(number, segments);
            let segment = table.write(&format!("{number}"), |registry, out| {
                let sorted = sort_spans(&part, registry).unwrap();
                Some(write_spans(out, registry, sorted, &WriteOptions::default()).unwrap())
            });
            table.snapshot.segments.push(segment.unwrap());
        }
        table.snapshot.memtable = table.part(segments, segments);
        table
    }

    /// Batches of a segment, or of the memtable.
    fn part(&self, number: usize, segments: usize) -> Vec<RecordBatch> {
        self.batches.iter().skip(number).step_by(segments + 1).cloned().collect()
    }

    /// Segments of batches that came one after the other, and none in memory.
    fn in_turn(traces: u64, segments: usize) -> Self {
        let mut table = Self::new(traces, 0);
        table.snapshot.memtable.clear();
        for (number, part) in table.batches.chunks(table.batches.len().div_ceil(segments)).enumerate() {
            let segment = table.write(&format!("{number}"), |registry, out| {
                let sorted = sort_spans(part, registry).unwrap();
                Some(write_spans(out, registry, sorted, &WriteOptions::default()).unwrap())
            });
            table.snapshot.segments.push(segment.unwrap());
        }
        table
    }

    /// The same with its segments as one.
    fn joined(mut self) -> Self {
        let inputs = std::mem::take(&mut self.snapshot.segments);
        assert!(can_join_spans(&inputs));
        let joined =
            self.write("joined", |_, out| Some(join_spans(&inputs, &WriteOptions::default(), out).unwrap()));
        self.snapshot.segments.extend(joined);
        block_on(self.snapshot.segments[0].verify()).unwrap();
        self
    }

    fn write(
        &self,
        name: &str,
        write: impl FnOnce(&StreamRegistry, &mut Vec<u8>) -> Option<SegmentMeta>,
    ) -> Option<Arc<SpanSegment>> {
        let mut bytes = Vec::new();
        let meta = write(&self.registry, &mut bytes)?;
        let store: Arc<dyn ObjectStore> = self.store.clone();
        block_on(store.put(&Path::from(name), bytes.into())).unwrap();
        let opened = SpanSegment::open(store, Path::from(name), &self.registry, Some(&meta), &self.cache);
        let segment = block_on(opened).unwrap();
        assert_eq!(segment.meta(), &meta);
        Some(segment)
    }

    fn scan(&self, scan: &SpanScan) -> Vec<RecordBatch> {
        scanned(&self.snapshot, &self.registry, scan, |segment, error| panic!("{segment:?}: {error}"))
    }

    /// Rows that pass, newest first.
    fn passing(&self, scan: &SpanScan) -> Vec<(i64, String)> {
        let mut found: Vec<(i64, String)> = Vec::new();
        for batch in &self.batches {
            let times = batch.column(column::TIMESTAMP).as_primitive::<TimestampNanosecondType>();
            let fitting = (0..batch.num_rows()).filter(|row| passes(batch, *row, scan, &self.registry));
            found.extend(fitting.map(|number| (times.value(number), row(batch, number))));
        }
        found.sort_unstable_by_key(|(time, _)| std::cmp::Reverse(*time));
        found
    }
}

fn scanned(
    snapshot: &SpanSnapshot,
    registry: &Arc<StreamRegistry>,
    scan: &SpanScan,
    on_corrupt: impl Fn(&Arc<SpanSegment>, &SegmentError) + Send + Sync + 'static,
) -> Vec<RecordBatch> {
    let found = scan_spans(snapshot.clone(), registry.clone(), scan.clone(), Arc::new(on_corrupt));
    let batches: Vec<RecordBatch> = block_on(found.try_collect()).unwrap();
    assert!(batches.iter().all(|batch| batch.schema() == scan.schema()));
    batches
}

fn times(batches: &[RecordBatch], place: usize) -> Vec<i64> {
    let of =
        |batch: &RecordBatch| batch.column(place).as_primitive::<TimestampNanosecondType>().values().to_vec();
    batches.iter().flat_map(of).collect()
}

fn random_scan(random: &mut Random, traces: u64) -> SpanScan {
    let mut scan = SpanScan::all(tenant(random.below(2)));
    if random.below(2) == 0 {
        scan.start = random.below(traces) as i64 * 1_000_000;
        let bits = 10 + random.below(22);
        scan.last = scan.start + random.below(1 << bits) as i64;
    }
    if random.below(2) == 0 {
        let value = LabelMatch::Equal(format!("s{}", random.below(6)));
        scan.streams.push(LabelMatcher { name: "service".into(), value });
    }
    if random.below(3) == 0 {
        scan.operation = Some(format!("op {}", random.below(31)));
    }
    if random.below(3) == 0 {
        let shortest = random.below(1 << 30) as i64;
        scan.duration = shortest..=shortest + random.below(1 << 30) as i64;
    }
    if random.below(3) == 0 {
        scan.status_code = Some(random.below(4) as u8);
    }
    if random.below(2) == 0 {
        let pairs = [
            ("http.request.method", "PUT"),
            ("http_request_method", "GET"),
            ("http.request_method", "GET"),
            ("rare.7", "x"),
            ("rare_7", "x"),
            ("never", ""),
            ("http.request.method", "no"),
            ("peer_name", "p1"),
            ("peer.name", "p1"),
            ("peer-name", "p1"),
            ("drift", "v1"),
        ];
        let pair = pairs[random.below(pairs.len() as u64) as usize];
        scan.attributes.push((pair.0.into(), pair.1.into()));
    }
    if random.below(4) == 0 {
        let bits = random.below(10);
        let mut ids: Vec<TraceId> = (0..1 << bits).map(|_| trace_id(random.below(traces * 2))).collect();
        ids.sort_unstable();
        ids.dedup();
        scan.traces = Some(ids.into());
    }
    scan
}

#[test]
fn a_scan_of_memory_and_segments_finds_what_a_plain_look_at_every_span_finds() {
    let table = Table::new(12_000, 2);
    assert!(table.snapshot.segments.iter().all(|segment| segment.granules() > 3));
    check_scans(&table, 80);
    check_scans(&table.joined(), 40);
}

/// Guarantees that a join of segments that differ in their columns, streams and operations is scanned, searched
/// and merged as they are.
#[test]
fn joined_segments_answer_as_those_that_they_are_made_of() {
    let table = Table::in_turn(12_000, 3);
    let has = |segment: &Arc<SpanSegment>| {
        let parts = segment.bytes_by_part().unwrap();
        parts.iter().any(|(part, _)| part == "attribute.drift")
    };
    let have: Vec<bool> = table.snapshot.segments.iter().map(has).collect();
    assert_eq!(have, [true, false, false], "one has a column, the last the attribute in its map");
    let apart: Vec<String> = sorted(&table.scan(&SpanScan::all(tenant(0))));
    let table = table.joined();
    assert!(has(&table.snapshot.segments[0]));
    assert_eq!(sorted(&table.scan(&SpanScan::all(tenant(0)))), apart);
    check_scans(&table, 30);
    check_searches(&table, 20);
    // A join of joins, and a merge of one.
    let table = table.joined();
    check_searches(&table, 20);
    let merged = table.write("merged", |registry, out| {
        merge_spans(&table.snapshot.segments, registry, None, &WriteOptions::default(), out).unwrap()
    });
    let snapshot = SpanSnapshot { memtable: Vec::new(), segments: vec![merged.unwrap()] };
    block_on(snapshot.segments[0].verify()).unwrap();
    let table = Table { snapshot, ..table };
    check_scans(&table, 30);
    check_searches(&table, 20);
}

/// Guarantees that the runs of a join are told apart where a trace is the last of one and the first of the next.
#[test]
fn a_trace_at_the_end_of_a_run_may_begin_the_next_one() {
    let table = Table::new(1, 0);
    let labels = Labels::from_pairs(&[("service.name", "s")]);
    let stream = table.registry.intern(&tenant(0), labels).unwrap();
    let part = |times: &[i64]| {
        let mut b = SpanBatchBuilder::new(tenant(0), times.len());
        for time in times {
            b.push(&Span {
                stream,
                timestamp: *time,
                duration_ns: 1,
                trace_id: trace_id(1),
                span_id: SpanId(time.to_be_bytes()),
                parent_span_id: (*time > 1).then(|| SpanId(1i64.to_be_bytes())),
                operation: "op",
                kind: 1,
                status_code: 0,
                status_message: "",
                trace_state: "",
                trace_flags: 0,
                scope_name: "",
            });
        }
        b.finish().records
    };
    let batches = vec![part(&[5, 6]), part(&[1, 7]), part(&[3])];
    let segments = batches.iter().enumerate().map(|(number, batch)| {
        table.write(&number.to_string(), |registry, out| {
            let sorted = sort_spans(std::slice::from_ref(batch), registry).unwrap();
            Some(write_spans(out, registry, sorted, &WriteOptions::default()).unwrap())
        })
    });
    let snapshot = SpanSnapshot { memtable: Vec::new(), segments: segments.flatten().collect() };
    let joined = Table { batches, snapshot, ..table }.joined();
    let merged = joined.write("merged", |registry, out| {
        merge_spans(&joined.snapshot.segments, registry, None, &WriteOptions::default(), out).unwrap()
    });
    let all = SpanScan { traces: Some(Arc::new([trace_id(1)])), ..SpanScan::all(tenant(0)) };
    assert_eq!(sorted(&joined.scan(&all)), sorted(&joined.batches));
    let on_corrupt: OnCorrupt<SpanSegment> = Arc::new(|_, error| panic!("{error}"));
    let found = search_traces(&joined.snapshot, &joined.registry, &all, &on_corrupt).unwrap();
    assert_eq!(found, plain_summaries(&joined, &tenant(0)).into_values().collect::<Vec<_>>());
    assert_eq!((found.len(), found[0].spans), (1, 5));
    let merged = merged.unwrap();
    block_on(merged.verify()).unwrap();
    assert_eq!(times(&[merged.granule(0).unwrap()], column::TIMESTAMP), [1, 3, 5, 6, 7]);
}

fn check_scans(table: &Table, scans: usize) {
    let mut random = Random(1_234_567);
    let mut hits = 0;
    for _ in 0..scans {
        let scan = random_scan(&mut random, 12_000);
        let want = table.passing(&scan);
        hits += usize::from(!want.is_empty());
        let mut texts: Vec<String> = want.iter().map(|(_, text)| text.clone()).collect();
        texts.sort_unstable();
        let found = table.scan(&scan);
        assert_eq!(sorted(&found), texts, "{scan:?}");
        // A few columns, or none.
        let projection: Vec<usize> = (0..column::COUNT).filter(|_| random.below(3) == 0).collect();
        let narrow = SpanScan { projection: projection.clone(), ..scan.clone() };
        let cells = |batches: &[RecordBatch], places: &[usize]| {
            let of = |batch: &RecordBatch, row| {
                places.iter().map(|place| format!("{:?}", batch.column(*place).slice(row, 1))).collect()
            };
            let rows = batches.iter().flat_map(|batch| (0..batch.num_rows()).map(move |row| of(batch, row)));
            let mut cells: Vec<String> = rows.collect();
            cells.sort_unstable();
            cells
        };
        let places: Vec<usize> = (0..projection.len()).collect();
        if !projection.contains(&column::ATTRIBUTES) {
            assert_eq!(cells(&table.scan(&narrow), &places), cells(&found, &projection), "{narrow:?}");
        }
        // Single attributes, with and without the rest.
        let names = ["peer_name", "never.there", "http_request_method", "http.request.method", "rare_7"];
        for projection in [vec![], vec![column::TIMESTAMP, column::ATTRIBUTES]] {
            let attribute_columns = names.map(str::to_owned).to_vec();
            let single = SpanScan { projection, attribute_columns, ..scan.clone() };
            let mut want: Vec<String> = table
                .batches
                .iter()
                .flat_map(|batch| (0..batch.num_rows()).map(move |row| (batch, row)))
                .filter(|(batch, row)| passes(batch, *row, &scan, &table.registry))
                .map(|(batch, row)| format!("{:?}", names.map(|name| meant(batch, row, name))))
                .collect();
            want.sort_unstable();
            for dictionaries in [false, true] {
                let single = SpanScan { dictionaries, ..single.clone() };
                let of = |batch: &RecordBatch, row: usize| {
                    let texts = batch.columns()[single.projection.len()..].iter().map(|column| {
                        let texts = arrow::compute::cast(&column.slice(row, 1), &DataType::Utf8).unwrap();
                        texts.as_string::<i32>().iter().next().unwrap().map(str::to_owned)
                    });
                    format!("{:?}", texts.collect::<Vec<_>>())
                };
                let found = table.scan(&single);
                let rows =
                    found.iter().flat_map(|batch| (0..batch.num_rows()).map(move |row| of(batch, row)));
                let mut rows: Vec<String> = rows.collect();
                rows.sort_unstable();
                assert_eq!(rows, want, "{single:?}");
            }
        }
        let none = table.scan(&SpanScan { projection: Vec::new(), ..scan.clone() });
        assert_eq!(none.iter().map(RecordBatch::num_rows).sum::<usize>(), want.len());
        // The newest by time; of equal times any may come.
        let newest = 1 + random.below(30) as usize;
        let newest = SpanScan { newest: Some(newest), ..scan.clone() };
        let best: Vec<i64> = want.iter().take(newest.newest.unwrap()).map(|(time, _)| *time).collect();
        let found = table.scan(&newest);
        assert_eq!(times(&found, column::TIMESTAMP), best, "{newest:?}");
        assert!(sorted(&found).iter().all(|row| texts.binary_search(row).is_ok()), "{newest:?}");
        let bare = SpanScan { projection: vec![column::TIMESTAMP], ..newest.clone() };
        assert_eq!(times(&table.scan(&bare), 0), best, "{bare:?}");
    }
    assert!(hits * 4 > scans, "only {hits} of {scans} scans found anything");
}

#[test]
fn operations_come_as_dictionaries_when_they_are_asked_for() {
    let table = Table::new(500, 2);
    let projection = vec![column::OPERATION];
    let plain = SpanScan { projection, ..SpanScan::all(tenant(0)) };
    let coded = SpanScan { dictionaries: true, ..plain.clone() };
    for newest in [None, Some(7), Some(1 << 20)] {
        let names = |batches: Vec<RecordBatch>| {
            let cast = |batch: &RecordBatch| arrow::compute::cast(batch.column(0), &DataType::Utf8).unwrap();
            let of = |batch: &RecordBatch| {
                let names = cast(batch);
                names.as_string::<i32>().iter().map(|name| name.unwrap().to_owned()).collect::<Vec<_>>()
            };
            let mut names: Vec<String> = batches.iter().flat_map(of).collect();
            names.sort_unstable();
            names
        };
        let plain = table.scan(&SpanScan { newest, ..plain.clone() });
        let coded = table.scan(&SpanScan { newest, ..coded.clone() });
        assert!(!plain.is_empty());
        assert_eq!(names(coded), names(plain));
    }
}

#[test]
fn merged_segments_hold_the_same_spans_and_traces_in_one_piece() {
    let mut table = Table::new(4_000, 4);
    let inputs = std::mem::take(&mut table.snapshot.segments);
    let cutoff = 700_000_000;
    for keep_from in [None, Some(cutoff)] {
        let merged = table.write("merged", |registry, out| {
            merge_spans(&inputs, registry, keep_from, &WriteOptions::default(), out).unwrap()
        });
        let merged = merged.unwrap();
        block_on(merged.verify()).unwrap();
        let read = |segments: &[Arc<SpanSegment>]| -> Vec<RecordBatch> {
            let of =
                |s: &Arc<SpanSegment>| (0..s.granules()).map(|n| s.granule(n).unwrap()).collect::<Vec<_>>();
            segments.iter().flat_map(of).collect()
        };
        let keep = |batch: RecordBatch| {
            let times = batch.column(column::TIMESTAMP).as_primitive::<TimestampNanosecondType>();
            let kept: arrow::array::BooleanArray =
                times.values().iter().map(|t| Some(keep_from.is_none_or(|from| *t >= from))).collect();
            arrow::compute::filter_record_batch(&batch, &kept).unwrap()
        };
        let want: Vec<RecordBatch> = read(&inputs).into_iter().map(keep).collect();
        let found = read(std::slice::from_ref(&merged));
        assert_eq!(sorted(&found), sorted(&want));
        // As if all had been written at once.
        let order = |batches: &[RecordBatch]| {
            let of = |batch: &RecordBatch| {
                let ids = batch.column(column::TRACE_ID).as_fixed_size_binary();
                let times = times(std::slice::from_ref(batch), column::TIMESTAMP);
                let streams = batch.column(column::STREAM).as_primitive::<UInt32Type>();
                let row = |row| {
                    let tenant = table.registry.get(streams.value(row)).tenant.clone();
                    (tenant, ids.value(row).to_vec(), times[row])
                };
                (0..batch.num_rows()).map(row).collect::<Vec<_>>()
            };
            batches.iter().flat_map(of).collect::<Vec<_>>()
        };
        let at_once: Vec<RecordBatch> =
            sort_spans(&want, &table.registry).unwrap().collect::<Result<_, _>>().unwrap();
        assert_eq!(order(&found), order(&at_once));
    }
    let mut out = Vec::new();
    let none = merge_spans(&inputs, &table.registry, Some(i64::MAX), &WriteOptions::default(), &mut out);
    assert!(none.unwrap().is_none());
}

/// Whether a span has a parent, its start and end, whether it failed, its service and operation.
type Facts = (bool, i64, i64, bool, String, String);

/// Summaries from a plain look at every span.
fn plain_summaries(table: &Table, tenant: &TenantId) -> BTreeMap<TraceId, TraceSummary> {
    let all = SpanScan::all(tenant.clone());
    let mut traces: BTreeMap<TraceId, Vec<Facts>> = BTreeMap::new();
    for batch in &table.batches {
        let streams = batch.column(column::STREAM).as_primitive::<UInt32Type>();
        let durations = batch.column(column::DURATION).as_primitive::<Int64Type>();
        let times = times(std::slice::from_ref(batch), column::TIMESTAMP);
        for row in (0..batch.num_rows()).filter(|row| passes(batch, *row, &all, &table.registry)) {
            let id = batch.column(column::TRACE_ID).as_fixed_size_binary().value(row);
            traces.entry(TraceId(id.try_into().unwrap())).or_default().push((
                batch.column(column::PARENT_SPAN_ID).is_valid(row),
                times[row],
                times[row] + durations.value(row),
                batch.column(column::STATUS_CODE).as_primitive::<UInt8Type>().value(row) == 2,
                table.registry.get(streams.value(row)).service().to_owned(),
                batch.column(column::OPERATION).as_string::<i32>().value(row).to_owned(),
            ));
        }
    }
    let summary = |(trace_id, spans): (TraceId, Vec<Facts>)| {
        let start = spans.iter().map(|span| span.1).min().unwrap();
        let root = spans.iter().min_by_key(|span| (span.0, span.1)).unwrap();
        let mut services: BTreeMap<&str, (u64, u64)> = BTreeMap::new();
        for span in &spans {
            let service = services.entry(&span.4).or_default();
            (service.0, service.1) = (service.0 + 1, service.1 + u64::from(span.3));
        }
        let summary = TraceSummary {
            trace_id,
            start,
            duration_ns: spans.iter().map(|span| span.2).max().unwrap() - start,
            spans: spans.len() as u64,
            errors: spans.iter().filter(|span| span.3).count() as u64,
            has_root: !root.0,
            root_service: root.4.clone(),
            root_operation: root.5.clone(),
            services: services
                .into_iter()
                .map(|(service, (spans, errors))| TraceService { service: service.into(), spans, errors })
                .collect(),
        };
        (trace_id, summary)
    };
    traces.into_iter().map(summary).collect()
}

#[test]
fn a_search_for_traces_finds_whole_traces_wherever_their_spans_are() {
    let table = Table::new(6_000, 2);
    check_searches(&table, 60);
    check_searches(&table.joined(), 30);
}

fn check_searches(table: &Table, searches: usize) {
    let known = [0, 1].map(|number| plain_summaries(table, &tenant(number)));
    let mut random = Random(55_555);
    let mut hits = 0;
    for _ in 0..searches {
        let mut scan = random_scan(&mut random, 6_000);
        scan.newest = (random.below(3) > 0).then(|| 1 + random.below(30) as usize);
        let mut newest: BTreeMap<TraceId, i64> = BTreeMap::new();
        let streams = SpanScan { newest: None, ..scan.clone() };
        for batch in &table.batches {
            let times = times(std::slice::from_ref(batch), column::TIMESTAMP);
            for row in (0..batch.num_rows()).filter(|row| passes(batch, *row, &streams, &table.registry)) {
                let id = batch.column(column::TRACE_ID).as_fixed_size_binary().value(row);
                let time = newest.entry(TraceId(id.try_into().unwrap())).or_insert(i64::MIN);
                *time = (*time).max(times[row]);
            }
        }
        let mut found: Vec<(std::cmp::Reverse<i64>, TraceId)> =
            newest.into_iter().map(|(id, time)| (std::cmp::Reverse(time), id)).collect();
        found.sort_unstable();
        found.truncate(scan.newest.unwrap_or(usize::MAX));
        let known = &known[usize::from(scan.tenant == tenant(1))];
        let mut want: Vec<TraceSummary> = found.iter().map(|(_, id)| known[id].clone()).collect();
        want.sort_unstable_by_key(|summary| (std::cmp::Reverse(summary.start), summary.trace_id));
        hits += usize::from(!want.is_empty());
        let on_corrupt: OnCorrupt<SpanSegment> = Arc::new(|segment, error| panic!("{segment:?}: {error}"));
        let found = search_traces(&table.snapshot, &table.registry, &scan, &on_corrupt).unwrap();
        assert_eq!(found, want, "{scan:?}");
    }
    assert!(hits * 4 > searches, "only {hits} of {searches} searches found anything");
}

#[test]
fn a_damaged_segment_is_named_and_left_out_and_the_others_answer() {
    let table = Table::new(2_000, 4);
    let all = SpanScan::all(tenant(0));
    let whole = sorted(&table.scan(&all));
    // A bit of the rows of one segment.
    let bytes = block_on(async { table.store.get(&Path::from("1")).await.unwrap().bytes().await.unwrap() });
    let mut bytes = bytes.to_vec();
    bytes[1_000] ^= 1;
    block_on(table.store.put(&Path::from("1"), bytes.into())).unwrap();
    let damaged = table.snapshot.segments[1].clone();
    assert!(block_on(damaged.verify()).is_err());
    let rest = SpanSnapshot {
        memtable: table.snapshot.memtable.clone(),
        segments: [0, 2, 3].map(|number| table.snapshot.segments[number].clone()).to_vec(),
    };
    let want = sorted(&scanned(&rest, &table.registry, &all, |_, error| panic!("{error}")));
    assert!(want.len() < whole.len());
    let reported = Arc::new(std::sync::atomic::AtomicUsize::new(0));
    for (round, newest) in [None, Some(1_000_000), None].into_iter().enumerate() {
        let reported = reported.clone();
        let scan = SpanScan { newest, stats: Arc::default(), ..all.clone() };
        let found = scanned(&table.snapshot, &table.registry, &scan, move |segment, error| {
            assert_eq!(segment.path().as_ref(), "1");
            assert!(error.is_corrupt());
            reported.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        });
        assert_eq!(sorted(&found), want, "round {round}");
        assert_eq!(scan.stats.snapshot().partial.len(), 1);
    }
    assert!(damaged.is_damaged());
    assert_eq!(reported.load(std::sync::atomic::Ordering::Relaxed), 1);
    let on_corrupt: OnCorrupt<SpanSegment> = Arc::new(|_, error| panic!("{error}"));
    let scan = SpanScan { newest: Some(5), stats: Arc::default(), ..all };
    let found = search_traces(&table.snapshot, &table.registry, &scan, &on_corrupt).unwrap();
    assert_eq!(found.len(), 5);
    assert!(!scan.stats.snapshot().partial.is_empty());
}

#[test]
fn an_index_is_in_memory_only_while_somebody_asks() {
    let table = Table::new(2_000, 4);
    let loaded = || table.snapshot.segments.iter().filter(|segment| segment.is_loaded()).count();
    assert_eq!((loaded(), table.cache.bytes()), (0, 0));
    let scan = SpanScan::all(tenant(0));
    // What the segments know without their indexes rules these out.
    for nothing in [
        SpanScan { start: i64::MAX, ..scan.clone() },
        SpanScan { tenant: TenantId::new("nobody").unwrap(), ..scan.clone() },
        SpanScan { operation: Some("never".into()), ..scan.clone() },
        SpanScan { traces: Some(Arc::new([TraceId([1; 16])])), ..scan.clone() },
        SpanScan {
            streams: vec![LabelMatcher { name: "service".into(), value: LabelMatch::Equal("no".into()) }],
            ..scan.clone()
        },
    ] {
        assert!(table.scan(&nothing).is_empty(), "{nothing:?}");
        assert_eq!(loaded(), 0, "{nothing:?}");
    }
    let whole = sorted(&table.scan(&scan));
    assert_eq!(loaded(), 4);
    assert!(table.cache.bytes() > 0);
    table.cache.let_go(std::time::Duration::ZERO);
    assert_eq!((loaded(), table.cache.bytes()), (0, 0));
    assert_eq!(sorted(&table.scan(&scan)), whole);
}

#[test]
fn limits_of_time_and_memory_end_a_scan() {
    let table = Table::new(500, 2);
    let ended = |scan: SpanScan| {
        let on_corrupt: OnCorrupt<SpanSegment> = Arc::new(|_, error| panic!("{error}"));
        let found = scan_spans(table.snapshot.clone(), table.registry.clone(), scan, on_corrupt);
        block_on(found.try_collect::<Vec<RecordBatch>>()).unwrap_err()
    };
    let all = SpanScan::all(tenant(0));
    for newest in [None, Some(3)] {
        let late = SpanScan { deadline: Some(std::time::Instant::now()), newest, ..all.clone() };
        assert!(matches!(ended(late), ScanError::Deadline(_)));
        let small = SpanScan { memory_limit: Some(10), newest, ..all.clone() };
        assert!(matches!(ended(small), ScanError::Memory { limit: 10 }));
    }
}

#[test]
fn a_flipped_bit_is_an_error_and_never_another_answer() {
    let written = written(300);
    let want = sorted(&written.batches);
    let mut random = Random(99);
    let mut refused = 0;
    for _ in 0..300 {
        let mut bytes = written.bytes.clone();
        let at = random.below(bytes.len() as u64) as usize;
        bytes[at] ^= 1 << random.below(8);
        block_on(written.store.put(&Path::from("x"), bytes.into())).unwrap();
        let read = written.open().and_then(|segment| {
            block_on(segment.verify())?;
            (0..segment.granules()).map(|number| segment.granule(number)).collect::<Result<Vec<_>, _>>()
        });
        match read {
            Ok(batches) => assert_eq!(sorted(&batches), want, "a flipped bit at {at} changed the answer"),
            Err(_) => refused += 1,
        }
    }
    assert!(refused == 300, "only {refused} of 300 were refused");
}
