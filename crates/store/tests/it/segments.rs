//! Flush, compaction and retention keep each row exactly once, also while queries run.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering::SeqCst},
    },
    time::Duration,
};

use futures::StreamExt;
use object_store::memory::InMemory;
use trine_model::TenantId;
use trine_schema::{LogScan, Tables};
use trine_store::{BodyEncoding, Store, StoreConfig, StoreParts, verify_directory};

use crate::kit::{append, config, expect, lines, open, segment_files};

const DAY: u64 = 86_400;

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn rows_move_from_memory_to_one_segment_per_day_and_stay_the_same() {
    for body_encoding in [BodyEncoding::Plain, BodyEncoding::Templates] {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(StoreConfig { body_encoding, ..config(dir.path()) }).unwrap();
        for i in 0..6 {
            append(&store, i % 2, u64::from(i) * 1000..u64::from(i) * 1000 + 1000).await;
            store.flush().await.unwrap();
        }
        append(&store, 5, 3 * DAY..3 * DAY + 100).await;
        store.flush().await.unwrap();
        let all = [
            (0, 0..1000),
            (1, 1000..2000),
            (0, 2000..3000),
            (1, 3000..4000),
            (0, 4000..5000),
            (1, 5000..6000),
            (5, 3 * DAY..3 * DAY + 100),
        ];
        expect(&store, &all).await;
        assert_eq!(segment_files(dir.path()).len(), 7);
        assert_eq!(store.status().memtable_rows, 0);
        store.compact().await.unwrap();
        expect(&store, &all).await;
        let files = segment_files(dir.path());
        assert_eq!(files.len(), 2, "{files:?}");
        assert!(
            files[0].to_string_lossy().contains("1970-01-01")
                && files[1].to_string_lossy().contains("1970-01-04")
        );
        let report = store.verify().await;
        assert!(report.is_ok() && report.rows == 6100, "{report:?}");
        drop(store);
        let report = verify_directory(dir.path()).unwrap();
        assert!(report.is_ok() && report.rows == 6100 && report.notes.is_empty(), "{report:?}");
        expect(&open(dir.path()), &all).await;
    }
}

/// Scenario: one task appends and flushes, upkeep merges, four scan all the time. Guarantee: a scan
/// sees every row acknowledged before it began, and none twice.
#[tokio::test(flavor = "multi_thread", worker_threads = 6)]
async fn queries_see_each_row_once_while_flushes_and_merges_run() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(StoreConfig { memtable_bytes: 100 << 10, ..config(dir.path()) }).unwrap();
    let acknowledged = Arc::new(AtomicU64::new(0));
    let done = Arc::new(AtomicBool::new(false));
    let scans: Vec<_> = (0..4)
        .map(|_| {
            let (store, acknowledged, done) = (store.clone(), acknowledged.clone(), done.clone());
            tokio::spawn(async move {
                let mut scans = 0;
                while !done.load(SeqCst) {
                    let before = acknowledged.load(SeqCst);
                    let found = lines(&store, LogScan::all(TenantId::default())).await;
                    assert!(found.len() as u64 >= before, "{} of {before} rows", found.len());
                    assert_eq!(found.values().max().copied().unwrap_or(1), 1, "a row was seen twice");
                    scans += 1;
                }
                scans
            })
        })
        .collect();
    for i in 0..300u64 {
        append(&store, (i % 7) as u32, i * 20..i * 20 + 20).await;
        acknowledged.store(i * 20 + 20, SeqCst);
        if i % 40 == 39 {
            store.flush().await.unwrap();
        }
        if i % 100 == 99 {
            store.compact().await.unwrap();
        }
    }
    done.store(true, SeqCst);
    for scan in scans {
        assert!(scan.await.unwrap() > 0);
    }
    let counters = store.status().counters;
    assert!(counters.flushes > 5 && counters.compactions >= 2, "{counters:?}");
    assert_eq!(counters.flush_rows + store.status().memtable_rows, 6000);
}

#[tokio::test(flavor = "multi_thread")]
async fn upkeep_merges_by_itself_and_files_go_when_their_readers_end() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    for i in 0..3 {
        append(&store, 1, i * 9000..i * 9000 + 9000).await;
        store.flush().await.unwrap();
    }
    // A scan that has begun and is held.
    let mut scan = store.scan_logs(LogScan::all(TenantId::default()));
    let mut rows = scan.next().await.unwrap().unwrap().num_rows();
    store.compact().await.unwrap();
    while let Some(batch) = scan.next().await {
        rows += batch.unwrap().num_rows();
    }
    assert_eq!(rows, 27_000, "the held scan lost rows when its segments were merged");
    drop(scan);
    store.compact().await.unwrap();
    store.close().await;
    assert_eq!(segment_files(dir.path()).len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn retention_by_age_drops_old_segments_and_old_rows() {
    let dir = tempfile::tempdir().unwrap();
    let now = Arc::new(AtomicU64::new(10 * DAY));
    let clock = now.clone();
    let parts =
        StoreParts { clock: Arc::new(move || clock.load(SeqCst) as i64 * 1000), ..StoreParts::default() };
    let age = Some(Duration::from_secs(2 * DAY));
    let store = Store::open_with(StoreConfig { retention_age: age, ..config(dir.path()) }, parts).unwrap();
    for start in [7 * DAY, 8 * DAY - 50, 9 * DAY] {
        append(&store, 1, start..start + 100).await;
        store.flush().await.unwrap();
    }
    // Old rows are gone for queries at once, and from the disk with their segment.
    expect(&store, &[(1, 8 * DAY..8 * DAY + 50), (1, 9 * DAY..9 * DAY + 100)]).await;
    store.compact().await.unwrap();
    expect(&store, &[(1, 8 * DAY..8 * DAY + 50), (1, 9 * DAY..9 * DAY + 100)]).await;
    let counters = store.status().counters;
    assert_eq!((counters.retained_out_segments, counters.retained_out_rows), (1, 100));
    now.store(30 * DAY, SeqCst);
    store.compact().await.unwrap();
    expect(&store, &[]).await;
    assert_eq!((store.status().rows, segment_files(dir.path()).len()), (0, 0));
    // The log must not bring them back.
    drop(store);
    expect(&open(dir.path()), &[]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn retention_by_size_drops_the_oldest_first() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    for day in [3, 1, 2] {
        append(&store, 1, day * DAY..day * DAY + 1000).await;
        store.flush().await.unwrap();
    }
    store.compact().await.unwrap();
    let bytes = store.status().segment_bytes;
    drop(store);
    let store = Store::open(StoreConfig { retention_bytes: Some(bytes / 3 * 2 + 100), ..config(dir.path()) })
        .unwrap();
    store.compact().await.unwrap();
    expect(&store, &[(1, 2 * DAY..2 * DAY + 1000), (1, 3 * DAY..3 * DAY + 1000)]).await;
    assert_eq!(store.status().counters.retained_out_rows, 1000);
}

#[tokio::test(flavor = "multi_thread")]
async fn background_work_runs_unasked_by_size_and_by_age() {
    let dir = tempfile::tempdir().unwrap();
    let settings = StoreConfig {
        memtable_bytes: 1 << 20,
        flush_after: Duration::from_millis(200),
        segment_bytes: 1 << 20,
        ..StoreConfig::new(dir.path())
    };
    let store = Store::open(settings).unwrap();
    for i in 0..120 {
        append(&store, 1, i * 1000..i * 1000 + 1000).await;
    }
    for _ in 0..600 {
        tokio::time::sleep(Duration::from_millis(100)).await;
        let status = store.status();
        if status.memtable_rows == 0 && status.counters.compactions > 0 {
            break;
        }
    }
    let status = store.status();
    assert!(status.memtable_rows == 0 && status.counters.compactions > 0, "{status:?}");
    assert_eq!(status.background_error, None);
    expect(&store, &[(1, 0..120_000)]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn segments_may_lie_in_any_object_store() {
    let dir = tempfile::tempdir().unwrap();
    let objects = Arc::new(InMemory::new());
    let parts = StoreParts { objects: Some(objects.clone()), ..StoreParts::default() };
    {
        let store = Store::open_with(config(dir.path()), parts.clone()).unwrap();
        for i in 0..2 {
            append(&store, 1, i * 10..i * 10 + 10).await;
            store.flush().await.unwrap();
        }
        store.compact().await.unwrap();
        append(&store, 1, 20..30).await;
    }
    let store = Store::open_with(config(dir.path()), parts).unwrap();
    expect(&store, &[(1, 0..30)]).await;
    assert_eq!(segment_files(dir.path()).len(), 0);
}
