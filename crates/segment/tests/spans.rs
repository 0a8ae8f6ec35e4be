//! Segments of spans: what is written comes back, in any order of arrival, and damage is found.

use std::{collections::BTreeMap, fmt::Write as _, sync::Arc};

use arrow::{
    array::{Array as _, AsArray, RecordBatch},
    datatypes::{Int64Type, TimestampNanosecondType, UInt8Type, UInt32Type},
};
use object_store::{ObjectStore, ObjectStoreExt as _, memory::InMemory, path::Path};
use trine_model::{SpanId, TenantId, TraceId};
use trine_schema::{
    LabelMatch, LabelMatcher, Labels, ScanStats, Span, SpanBatchBuilder, SpanScan, StreamRegistry,
    columns::attributes_of, spans::column,
};
use trine_segment::{SPAN_GRANULE_ROWS, SpanSegment, WriteOptions, block_on, sort_spans, write_spans};

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
        for span in 0..spans {
            let service = format!("s{}", random.below(5));
            let labels = Labels::from_pairs(&[("service.name", service.as_str())]);
            let stream = registry.intern(&tenant(owner), labels).unwrap();
            let b = &mut builders[owner as usize];
            b.attribute("http.request.method", ["GET", "PUT"][random.below(2) as usize]);
            if random.below(3) == 0 {
                b.attribute(&format!("rare.{}", random.below(400)), "x");
            }
            if random.below(40) == 0 {
                // Twice in one span.
                b.attribute("http.request.method", "AGAIN");
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
        // A trace's later spans may come with the next batch.
        if random.below(50) == 0 {
            for (number, builder) in builders.iter_mut().enumerate() {
                let full = std::mem::replace(builder, SpanBatchBuilder::new(tenant(number as u64), 0));
                finished.push(full.finish().records);
            }
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
    let attributes = batch.column(column::ATTRIBUTES).as_map();
    let row = |row: usize| {
        let mut text = String::new();
        let others =
            batch.columns().iter().enumerate().filter(|(position, _)| *position != column::ATTRIBUTES);
        others.for_each(|(position, column)| write!(text, "{position}={:?} ", column.slice(row, 1)).unwrap());
        let mut pairs: Vec<_> = attributes_of(attributes, row).collect();
        pairs.sort_unstable();
        text + &format!("{pairs:?}")
    };
    (0..batch.num_rows()).map(row).collect()
}

fn sorted(batches: &[RecordBatch]) -> Vec<String> {
    let mut all: Vec<String> = batches.iter().flat_map(rows).collect();
    all.sort_unstable();
    all
}

struct Written {
    registry: StreamRegistry,
    store: Arc<InMemory>,
    batches: Vec<RecordBatch>,
    bytes: Vec<u8>,
}

fn written(traces: u64) -> Written {
    let (registry, store) = (StreamRegistry::new(), Arc::new(InMemory::new()));
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
    fn open(&self) -> Result<SpanSegment, trine_segment::SegmentError> {
        let store: Arc<dyn ObjectStore> = self.store.clone();
        block_on(SpanSegment::open(store, Path::from("x"), &self.registry, None))
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
    let stats = ScanStats::default();
    for number in (0..4_000).step_by(37).chain([7]) {
        for owner in [0, 1] {
            let found = segment.trace(&tenant(owner), trace_id(number), &stats).unwrap();
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
    assert!(segment.trace(&tenant(0), TraceId([1; 16]), &stats).unwrap().is_empty());
}

/// Whether a row passes, by the plain meaning of the scan.
fn passes(batch: &RecordBatch, row: usize, scan: &SpanScan, registry: &StreamRegistry) -> bool {
    let stream = registry.get(batch.column(column::STREAM).as_primitive::<UInt32Type>().value(row));
    let time = batch.column(column::TIMESTAMP).as_primitive::<TimestampNanosecondType>().value(row);
    let duration = batch.column(column::DURATION).as_primitive::<Int64Type>().value(row);
    let status = batch.column(column::STATUS_CODE).as_primitive::<UInt8Type>().value(row);
    let first = |name: &str| {
        let mut pairs = attributes_of(batch.column(column::ATTRIBUTES).as_map(), row);
        pairs.find(|(key, _)| *key == name).map(|(_, value)| value.to_owned())
    };
    stream.tenant == scan.tenant
        && (scan.start..=scan.last).contains(&time)
        && scan.streams.iter().all(|matcher| matcher.matches(&stream))
        && scan
            .operation
            .as_ref()
            .is_none_or(|name| batch.column(column::OPERATION).as_string::<i32>().value(row) == name)
        && scan.duration.contains(&duration)
        && scan.status_code.is_none_or(|code| code == status)
        && scan.attributes.iter().all(|(key, value)| first(key).as_ref() == Some(value))
}

#[test]
fn a_search_finds_what_a_plain_look_at_every_span_finds() {
    let written = written(4_000);
    let segment = written.open().unwrap();
    let texts: Vec<Vec<String>> = written.batches.iter().map(rows).collect();
    let mut random = Random(1_234_567);
    let mut hits = 0;
    for _ in 0..100 {
        let mut scan = SpanScan::all(tenant(random.below(2)));
        if random.below(2) == 0 {
            scan.start = random.below(4_000) as i64 * 1_000_000;
            let bits = 10 + random.below(22);
            scan.last = scan.start + random.below(1 << bits) as i64;
        }
        if random.below(2) == 0 {
            let value = LabelMatch::Equal(format!("s{}", random.below(6)));
            scan.streams.push(LabelMatcher { name: "service".into(), value });
        }
        if random.below(2) == 0 {
            scan.operation = Some(format!("op {}", random.below(31)));
        }
        if random.below(3) == 0 {
            scan.duration = random.below(1 << 30) as i64..=i64::MAX;
        }
        if random.below(3) == 0 {
            scan.status_code = Some(random.below(4) as u8);
        }
        if random.below(3) == 0 {
            let pair =
                [("http.request.method", "PUT"), ("rare.7", "x"), ("never", "")][random.below(3) as usize];
            scan.attributes.push((pair.0.into(), pair.1.into()));
        }
        let mut want: Vec<(i64, String)> = Vec::new();
        for (batch, texts) in written.batches.iter().zip(&texts) {
            let times = batch.column(column::TIMESTAMP).as_primitive::<TimestampNanosecondType>();
            let fitting = texts.iter().enumerate();
            let fitting = fitting.filter(|(row, _)| passes(batch, *row, &scan, &written.registry));
            want.extend(fitting.map(|(row, text)| (times.value(row), text.clone())));
        }
        hits += usize::from(!want.is_empty());
        let found = segment.scan(&scan, &written.registry).unwrap();
        let mut texts: Vec<String> = want.iter().map(|(_, text)| text.clone()).collect();
        texts.sort_unstable();
        assert_eq!(sorted(&found), texts, "{scan:?}");
        // The newest by time; of equal times any may come.
        let newest = 1 + random.below(30) as usize;
        let found =
            segment.scan(&SpanScan { newest: Some(newest), ..scan.clone() }, &written.registry).unwrap();
        let times: Vec<i64> = found
            .iter()
            .flat_map(|b| {
                b.column(column::TIMESTAMP).as_primitive::<TimestampNanosecondType>().values().to_vec()
            })
            .collect();
        want.sort_unstable_by_key(|(time, _)| std::cmp::Reverse(*time));
        let best: Vec<i64> = want.iter().take(newest).map(|(time, _)| *time).collect();
        assert_eq!(times, best, "newest {newest} of {scan:?}");
    }
    assert!(hits > 40, "only {hits} of 100 scans found anything");
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
            (0..segment.granules()).map(|number| segment.granule(number)).collect::<Result<Vec<_>, _>>()
        });
        match read {
            Ok(batches) => assert_eq!(sorted(&batches), want, "a flipped bit at {at} changed the answer"),
            Err(_) => refused += 1,
        }
    }
    assert!(refused > 250, "only {refused} of 300 were refused");
}
