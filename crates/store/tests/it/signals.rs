//! Logs, spans and metrics go the same way and share its promises.

use std::{collections::BTreeMap, path::Path};

use arrow::array::AsArray;
use futures::StreamExt;
use trine_model::{SpanId, TenantId, TraceId};
use trine_schema::{
    Labels, MetricBatch, MetricBatchBuilder, MetricScan, Samples, Signal, Span, SpanBatch, SpanBatchBuilder,
    SpanScan, Tables, spans::column,
};
use trine_store::{BatchKey, Store, StoreConfig, verify_directory};

use crate::kit::{append, batch_of, config, damage, expect, open, segment_files};

/// Spans `ids`, four to a trace; a start of `id` seconds.
fn spans_of(store: &Store, ids: std::ops::Range<u64>) -> SpanBatch {
    let tenant = TenantId::default();
    let labels = Labels::from_pairs(&[("service.name", "cart")]);
    let stream = store.registry().intern(&tenant, labels).unwrap();
    let mut builder = SpanBatchBuilder::new(tenant, ids.clone().count());
    for id in ids {
        builder.attribute("id", &id.to_string());
        builder.push(&Span {
            stream,
            timestamp: id as i64 * 1_000_000_000,
            duration_ns: 5,
            trace_id: trace(id),
            span_id: SpanId((id + 1).to_be_bytes()),
            parent_span_id: (id % 4 > 0).then(|| SpanId((id / 4 * 4 + 1).to_be_bytes())),
            operation: "GET /",
            kind: 2,
            status_code: 0,
            status_message: "",
            trace_state: "",
            trace_flags: 0,
            scope_name: "",
        });
    }
    builder.finish()
}

fn trace(id: u64) -> TraceId {
    TraceId(u128::from(id / 4 + 1).to_be_bytes())
}

/// A sample of value `id` at `id` seconds for each id, in series `{__name__="x",n="<id % 3>"}`.
fn samples_of(store: &Store, ids: std::ops::Range<u64>) -> MetricBatch {
    let tenant = TenantId::default();
    let mut builder = MetricBatchBuilder::new(tenant.clone(), ids.clone().count());
    for id in ids {
        let labels = Labels::from_pairs(&[("__name__", "x"), ("n", &(id % 3).to_string())]);
        let series = store.registry().intern(&tenant, labels).unwrap();
        builder.float(series, id as i64 * 1000, id as f64, 0);
    }
    builder.finish()
}

async fn span_ids(store: &Store, scan: SpanScan) -> BTreeMap<u64, u32> {
    let mut found = BTreeMap::new();
    let mut batches = store.scan_spans(SpanScan { projection: vec![column::SPAN_ID], ..scan });
    while let Some(batch) = batches.next().await {
        let batch = batch.unwrap();
        for id in batch.column(0).as_fixed_size_binary() {
            *found.entry(u64::from_be_bytes(id.unwrap().try_into().unwrap()) - 1).or_default() += 1;
        }
    }
    found
}

fn sample_ids(store: &Store) -> BTreeMap<u64, u32> {
    let mut found = BTreeMap::new();
    let scan = MetricScan::all(TenantId::default());
    for series in store.select_series(&scan).unwrap() {
        let n: u64 = series.stream.labels.get("n").unwrap().parse().unwrap();
        let mut samples = Samples::default();
        series.data.load(&mut samples).unwrap();
        assert!(samples.timestamps.is_sorted());
        for (at, value) in samples.timestamps.iter().zip(&samples.values) {
            let id = *value as u64;
            assert_eq!((*at, id % 3), (id as i64 * 1000, n), "a sample came back under another series");
            *found.entry(id).or_default() += 1;
        }
    }
    assert_eq!(*scan.stats.partial.lock(), Vec::<String>::new());
    found
}

/// Asserts that exactly these rows of each signal are there, each once.
async fn expect_all(store: &Store, ids: std::ops::Range<u64>) {
    let want: BTreeMap<u64, u32> = ids.clone().map(|id| (id, 1)).collect();
    expect(store, &[(1, ids)]).await;
    assert_eq!(span_ids(store, SpanScan::all(TenantId::default())).await, want);
    assert_eq!(sample_ids(store), want);
}

async fn append_all(store: &Store, ids: std::ops::Range<u64>) {
    append(store, 1, ids.clone()).await;
    store.append(spans_of(store, ids.clone()), None).await.unwrap();
    store.append(samples_of(store, ids), None).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_of_every_signal_stay_the_same_through_flush_merge_and_reopen() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    for part in 0..3 {
        append_all(&store, part * 100..part * 100 + 100).await;
        expect_all(&store, 0..part * 100 + 100).await;
        store.flush().await.unwrap();
        expect_all(&store, 0..part * 100 + 100).await;
    }
    assert_eq!(segment_files(dir.path()).len(), 9);
    append_all(&store, 300..350).await;
    store.compact().await.unwrap();
    assert_eq!(segment_files(dir.path()).len(), 3);
    expect_all(&store, 0..350).await;
    let levels: Vec<_> = store.status().levels.iter().map(|level| (level.signal, level.rows)).collect();
    assert_eq!(levels, Signal::ALL.map(|signal| (signal, 300)));
    store.close().await;
    let store = open(dir.path());
    expect_all(&store, 0..350).await;
    assert!(store.verify().await.is_ok());
    store.close().await;
    drop(store);
    assert!(verify_directory(dir.path()).unwrap().is_ok());
}

/// An index that is asked for is in memory after a merge too: the next question reads none.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_asked_about_stays_in_memory_through_a_merge() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    for part in 0..4 {
        append_all(&store, part * 1000..part * 1000 + 1000).await;
        store.flush().await.unwrap();
    }
    expect_all(&store, 0..4000).await;
    assert_eq!(store.status().index_loads, 12);
    store.compact().await.unwrap();
    assert_eq!(segment_files(dir.path()).len(), 3);
    let status = store.status();
    assert!(status.index_bytes > 0);
    expect_all(&store, 0..4000).await;
    assert_eq!(store.status().index_loads, status.index_loads, "a merged segment was read again");
    // The series of an answer stay with the index in which they were found.
    assert!(store.status().index_bytes >= status.index_bytes);
}

#[tokio::test(flavor = "multi_thread")]
async fn names_of_labels_and_attributes_of_spans_are_known_in_memory_and_in_segments() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let names = || store.span_names(&TenantId::default()).unwrap();
    append(&store, 1, 0..10).await;
    assert_eq!(names(), (vec![], vec![]));
    store.append(spans_of(&store, 0..100), None).await.unwrap();
    let want = (vec!["service.name".to_owned()], vec!["id".to_owned()]);
    assert_eq!(names(), want);
    store.flush().await.unwrap();
    assert_eq!(names(), want);
    assert_eq!(store.span_names(&TenantId::new("other").unwrap()).unwrap().0, Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_trace_is_found_in_memory_and_in_segments() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    store.append(spans_of(&store, 0..402), None).await.unwrap();
    store.flush().await.unwrap();
    store.append(spans_of(&store, 402..500), None).await.unwrap();
    let of = async |id| {
        let traces = Some([trace(id)].into());
        let found = span_ids(&store, SpanScan { traces, ..SpanScan::all(TenantId::default()) }).await;
        found.into_keys().collect::<Vec<_>>()
    };
    assert_eq!(of(9).await, [8, 9, 10, 11]);
    assert_eq!(of(400).await, [400, 401, 402, 403], "half of it is in a segment");
    assert_eq!(of(4000).await, [0; 0]);
}

/// Guarantees that flushes that are joined keep every span, and traces that lie in two of them whole.
#[tokio::test(flavor = "multi_thread")]
async fn large_flushes_of_spans_come_together() {
    let dir = tempfile::tempdir().unwrap();
    // Of so small a target a hundred spans are a large part.
    let small = StoreConfig { segment_bytes: 300_000, ..config(dir.path()) };
    let store = Store::open(small).unwrap();
    for ids in [0..98, 98..197, 197..302] {
        store.append(spans_of(&store, ids), None).await.unwrap();
        store.flush().await.unwrap();
    }
    store.compact().await.unwrap();
    assert_eq!(segment_files(dir.path()).len(), 1);
    let want: BTreeMap<u64, u32> = (0..302).map(|id| (id, 1)).collect();
    assert_eq!(span_ids(&store, SpanScan::all(TenantId::default())).await, want);
    for id in [5, 97, 197] {
        let of_trace = SpanScan { traces: Some([trace(id)].into()), ..SpanScan::all(TenantId::default()) };
        let found: Vec<u64> = span_ids(&store, of_trace.clone()).await.into_keys().collect();
        assert_eq!(found, (id / 4 * 4..id / 4 * 4 + 4).collect::<Vec<_>>());
        let summaries = store.search_traces(of_trace).unwrap();
        assert_eq!(summaries.iter().map(|summary| summary.spans).collect::<Vec<_>>(), [4]);
    }
    assert!(store.verify().await.is_ok());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_of_any_signal_that_comes_again_is_stored_once() {
    let dir = tempfile::tempdir().unwrap();
    // Senders number the batches of each signal from 1.
    let key = || Some(BatchKey::from_header("1"));
    for _ in 0..2 {
        let store = open(dir.path());
        store.append(batch_of(&store, 1, 0..10), key()).await.unwrap();
        store.append(spans_of(&store, 0..10), key()).await.unwrap();
        store.append(samples_of(&store, 0..10), key()).await.unwrap();
        expect_all(&store, 0..10).await;
        store.flush().await.unwrap();
        store.close().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn damage_to_one_signal_is_named_in_its_answers_only() {
    for (signal, ending) in [(Signal::Spans, ".spans.parquet"), (Signal::Metrics, ".metrics")] {
        let dir = tempfile::tempdir().unwrap();
        let store = open(dir.path());
        append_all(&store, 0..5000).await;
        store.flush().await.unwrap();
        store.close().await;
        drop(store);
        let files = segment_files(dir.path());
        damage(files.iter().find(|file| file.to_string_lossy().ends_with(ending)).unwrap());
        let store = open(dir.path());
        assert!(!store.verify().await.is_ok());
        expect(&store, &[(1, 0..5000)]).await;
        let spans = SpanScan::all(TenantId::default());
        let stats = spans.stats.clone();
        assert_eq!(span_ids(&store, spans).await.is_empty(), signal == Signal::Spans);
        assert_eq!(stats.partial.lock().is_empty(), signal != Signal::Spans);
        let metrics = MetricScan::all(TenantId::default());
        assert_eq!(store.select_series(&metrics).unwrap().is_empty(), signal == Signal::Metrics);
        assert_eq!(metrics.stats.partial.lock().is_empty(), signal != Signal::Metrics);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn retention_takes_rows_of_every_signal() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    append_all(&store, 0..500).await;
    store.flush().await.unwrap();
    store.close().await;
    drop(store);
    let age = std::time::Duration::from_secs(3600);
    let store = Store::open(StoreConfig { retention_age: Some(age), ..config(dir.path()) }).unwrap();
    expect_all(&store, 0..0).await;
    store.compact().await.unwrap();
    assert_eq!(segment_files(dir.path()), Vec::<std::path::PathBuf>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_row_of_the_future_keeps_no_others() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let future = 4_102_444_800..4_102_444_803;
    append_all(&store, 0..500).await;
    append_all(&store, future.clone()).await;
    store.flush().await.unwrap();
    store.close().await;
    drop(store);
    let age = std::time::Duration::from_secs(3600);
    let store = Store::open(StoreConfig { retention_age: Some(age), ..config(dir.path()) }).unwrap();
    expect_all(&store, future.clone()).await;
    store.compact().await.unwrap();
    assert_eq!(store.status().rows, 9);
    expect_all(&store, future).await;
    assert!(store.verify().await.is_ok());
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap().path();
        let target = to.join(entry.file_name().unwrap());
        if entry.is_dir() {
            copy(&entry, &target);
        } else {
            std::fs::copy(&entry, &target).unwrap();
        }
    }
}

/// A power cut after the first of three segments of a flush was written, and a catalog that is lost with it.
#[tokio::test(flavor = "multi_thread")]
async fn half_a_flush_is_done_again_even_when_the_catalog_is_lost() {
    let (dir, cut) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let store = open(dir.path());
    append_all(&store, 0..100).await;
    store.flush().await.unwrap();
    append_all(&store, 100..200).await;
    store.close().await;
    drop(store);
    copy(dir.path(), cut.path());
    let before = segment_files(dir.path()).len();
    let store = open(dir.path());
    store.flush().await.unwrap();
    let mut fresh = segment_files(dir.path());
    assert_eq!(fresh.len(), before + 3);
    fresh.retain(|file| !cut.path().join(file.strip_prefix(dir.path()).unwrap()).exists());
    for lost in [false, true] {
        let half = tempfile::tempdir().unwrap();
        copy(cut.path(), half.path());
        std::fs::copy(&fresh[0], half.path().join(fresh[0].strip_prefix(dir.path()).unwrap())).unwrap();
        if lost {
            std::fs::remove_file(half.path().join("catalog.db")).unwrap();
        }
        let store = open(half.path());
        expect_all(&store, 0..200).await;
        store.flush().await.unwrap();
        expect_all(&store, 0..200).await;
        assert!(store.verify().await.is_ok());
    }
}
