//! What was acknowledged is visible at once and there after a restart, once.

use std::sync::{
    Arc,
    atomic::{AtomicI64, Ordering},
};

use futures::{FutureExt, StreamExt};
use trine_model::TenantId;
use trine_schema::{Labels, LogBatch, LogBatchBuilder, LogRecord, LogScan, Tables};
use trine_store::{BatchKey, Store, StoreConfig, StoreError, StoreParts, verify_directory};
use trine_testing::SimDisk;

use crate::kit::{append, batch_of, config, expect, lines, open};

#[tokio::test]
async fn rows_are_visible_when_acknowledged_and_after_each_restart() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    append(&store, 1, 0..100).await;
    expect(&store, &[(1, 0..100)]).await;
    drop(store);
    let store = open(dir.path());
    expect(&store, &[(1, 0..100)]).await;
    // A stream of before and a new one, in the generation of another process.
    append(&store, 2, 0..10).await;
    append(&store, 1, 100..110).await;
    store.close().await;
    let store = open(dir.path());
    expect(&store, &[(1, 0..110), (2, 0..10)]).await;
    assert_eq!(store.status().rows, 120);
    assert!(verify_directory(dir.path()).is_err(), "the directory is in use");
    drop(store);
    let report = verify_directory(dir.path()).unwrap();
    assert!(report.is_ok() && report.wal_records >= 3, "{report:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn ten_thousand_streams_come_back_with_their_labels() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let tenant = TenantId::default();
    let mut builder = LogBatchBuilder::new(tenant.clone(), 20_000, 0);
    for id in 0..20_000u64 {
        let labels = Labels::from_pairs(&[("app", &format!("app-{}", id % 10_000))]);
        let stream = store.registry().intern(&tenant, labels).unwrap();
        builder.body(&format!("line {id} of app-{}", id % 10_000));
        builder.push(&LogRecord { stream, timestamp: id as i64, ..Default::default() }).unwrap();
    }
    store.append(builder.finish(), None).await.unwrap();
    let whole = async |store: &Store| {
        let found = lines(store, LogScan::all(tenant.clone())).await;
        assert_eq!((found.len(), found.values().max()), (20_000, Some(&1)));
        let streams = store.streams(LogScan::all(tenant.clone())).await.unwrap();
        assert_eq!(streams.len(), 10_000);
    };
    whole(&store).await;
    store.close().await;
    let store = open(dir.path());
    whole(&store).await;
    store.flush().await.unwrap();
    whole(&store).await;
    store.close().await;
    whole(&open(dir.path())).await;
}

#[tokio::test]
async fn a_second_store_on_the_directory_is_refused_and_told_by_whom() {
    let dir = tempfile::tempdir().unwrap();
    let first = open(dir.path());
    let refused = Store::open(config(dir.path())).err().unwrap();
    assert!(matches!(&refused, StoreError::Locked { pid: Some(pid), .. } if *pid == std::process::id()));
    let text = refused.to_string();
    assert!(text.contains(&dir.path().display().to_string()) && text.contains("process"), "{text}");
    first.close().await;
    let again = open(dir.path());
    assert!(matches!(first.append(batch_of(&again, 1, 0..1), None).await, Err(StoreError::Closed)));
}

#[tokio::test]
async fn a_directory_of_an_unknown_version_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    drop(open(dir.path()));
    std::fs::write(dir.path().join("VERSION"), "99\n").unwrap();
    assert!(matches!(Store::open(config(dir.path())), Err(StoreError::Version { .. })));
}

#[tokio::test]
async fn a_failed_sync_stops_all_appends_and_reads_go_on() {
    let dir = tempfile::tempdir().unwrap();
    let disk = SimDisk::new(1);
    let parts = StoreParts { disk: Arc::new(disk.clone()), ..StoreParts::default() };
    let store = Store::open_with(config(dir.path()), parts).unwrap();
    append(&store, 1, 0..10).await;
    disk.fail_sync_after(0);
    let failed = store.append(batch_of(&store, 1, 10..20), None).await;
    assert!(matches!(failed, Err(StoreError::Poisoned(_))), "{failed:?}");
    let failed = store.append(batch_of(&store, 1, 20..30), None).await;
    assert!(matches!(failed, Err(StoreError::Poisoned(_))), "{failed:?}");
    assert!(store.status().poisoned.is_some());
    expect(&store, &[(1, 0..10)]).await;
}

#[tokio::test]
async fn acknowledged_rows_survive_a_power_cut() {
    for seed in 0..20 {
        let dir = tempfile::tempdir().unwrap();
        let disk = SimDisk::new(seed);
        let parts = StoreParts { disk: Arc::new(disk.clone()), ..StoreParts::default() };
        let store = Store::open_with(config(dir.path()), parts.clone()).unwrap();
        for i in 0..5 {
            append(&store, 1, i * 10..i * 10 + 10).await;
        }
        // A write that the cut hits in its middle: it may come back as a whole or not at all.
        disk.cut_power_after(seed % 3);
        let last = store.append(batch_of(&store, 1, 50..60), None).await;
        drop(store);
        disk.crash();
        let store = Store::open_with(config(dir.path()), parts).unwrap();
        let found = lines(&store, LogScan::all(TenantId::default())).await;
        let want = if last.is_ok() || found.len() > 50 { 60 } else { 50 };
        expect(&store, &[(1, 0..want)]).await;
    }
}

#[tokio::test]
async fn a_clock_that_goes_back_breaks_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let now = Arc::new(AtomicI64::new(1_000_000_000_000));
    let clock = now.clone();
    let parts =
        StoreParts { clock: Arc::new(move || clock.load(Ordering::Relaxed)), ..StoreParts::default() };
    let key = BatchKey::from_header("one");
    {
        let store = Store::open_with(config(dir.path()), parts.clone()).unwrap();
        store.append(batch_of(&store, 1, 0..10), Some(key)).await.unwrap();
        now.store(-5, Ordering::Relaxed);
        store.append(batch_of(&store, 1, 10..20), Some(BatchKey::from_header("two"))).await.unwrap();
        store.flush().await.unwrap();
        append(&store, 1, 20..30).await;
        store.append(batch_of(&store, 1, 0..10), Some(key)).await.unwrap();
    }
    now.store(-1_000_000, Ordering::Relaxed);
    let store = Store::open_with(config(dir.path()), parts).unwrap();
    store.append(batch_of(&store, 1, 0..10), Some(key)).await.unwrap();
    store.compact().await.unwrap();
    expect(&store, &[(1, 0..30)]).await;
}

#[tokio::test]
async fn a_batch_that_breaks_the_contract_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let mut batch = batch_of(&store, 1, 0..1);
    batch.records = batch.records.project(&[0, 1]).unwrap();
    assert!(matches!(store.append(batch, None).await, Err(StoreError::BadBatch(_))));
    let mut builder = LogBatchBuilder::new(TenantId::default(), 1, 0);
    builder.push(&LogRecord { stream: 77, ..Default::default() }).unwrap();
    let foreign: LogBatch = builder.finish();
    assert!(matches!(store.append(foreign, None).await, Err(StoreError::BadBatch(_))));
    assert_eq!(store.status().counters.rejected_batches, 2);
    append(&store, 1, 0..1).await;
}

#[tokio::test]
async fn a_tail_sees_batches_from_now_on_and_attributes_are_known() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    append(&store, 1, 0..1).await;
    let mut tail = store.tail_logs(&TenantId::default());
    append(&store, 1, 1..3).await;
    let batch = tail.next().await.unwrap().unwrap();
    assert_eq!(batch.records.num_rows(), 2);
    assert!(tail.next().now_or_never().is_none());
    assert_eq!(store.attribute_names(&TenantId::default()), ["id"]);
    store.close().await;
    assert!(tail.next().await.is_none());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn many_tiny_concurrent_appends_are_all_kept_and_share_syncs() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(StoreConfig { queue_bytes: 64 << 10, ..config(dir.path()) }).unwrap();
    let tasks: Vec<_> = (0..50u64)
        .map(|task| {
            let store = store.clone();
            tokio::spawn(async move {
                for i in 0..40 {
                    append(&store, 1, task * 40 + i..task * 40 + i + 1).await;
                }
            })
        })
        .collect();
    for task in tasks {
        task.await.unwrap();
    }
    expect(&store, &[(1, 0..2000)]).await;
    let counters = store.status().counters;
    assert_eq!((counters.appended_batches, counters.appended_rows), (2000, 2000));
    assert!(counters.wal_groups < 2000, "{} groups for 2000 appends", counters.wal_groups);
    drop(store);
    expect(&open(dir.path()), &[(1, 0..2000)]).await;
}
