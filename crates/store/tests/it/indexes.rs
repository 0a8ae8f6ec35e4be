//! Indexes of segments are in memory while somebody asks, and not longer.

use std::{os::unix::fs::FileExt as _, path::Path, sync::Arc, time::Duration};

use trine_model::TenantId;
use trine_schema::{LogScan, Tables};
use trine_store::{Store, StoreConfig};

use crate::kit::{append, config, expect, lines, open, segment_files};

async fn segments(store: &Store, numbers: std::ops::Range<u64>) {
    for i in numbers {
        append(store, 1, i * 1000..i * 1000 + 1000).await;
        store.flush().await.unwrap();
    }
}

fn index_bytes(store: &Store) -> u64 {
    store.status().index_bytes
}

/// Flips a byte of the file's index in place, so that a store which has it open reads it.
fn damage_index(path: &Path) {
    let bytes = std::fs::read(path).unwrap();
    // The index ends where the block table begins.
    let table = bytes.windows(4).rposition(|four| four == b"TRBT").unwrap();
    let file = std::fs::OpenOptions::new().write(true).open(path).unwrap();
    file.write_all_at(&[bytes[table - 20] ^ 1], table as u64 - 20).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn taking_rows_in_and_opening_keep_no_index() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    segments(&store, 0..3).await;
    assert_eq!((index_bytes(&store), store.status().index_loads), (0, 0));
    store.compact().await.unwrap();
    segments(&store, 3..5).await;
    assert_eq!(store.attribute_names(&TenantId::default()), ["id"]);
    assert_eq!(store.streams(LogScan::all(TenantId::default())).await.unwrap().len(), 1);
    assert_eq!(index_bytes(&store), 0);
    drop(store);
    let store = open(dir.path());
    assert_eq!((index_bytes(&store), store.status().index_loads), (0, 0));
    expect(&store, &[(1, 0..5000)]).await;
    assert!(index_bytes(&store) > 0 && store.status().index_load_ns > 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn indexes_beyond_the_bound_and_idle_ones_go() {
    let dir = tempfile::tempdir().unwrap();
    let all = open(dir.path());
    segments(&all, 0..4).await;
    expect(&all, &[(1, 0..4000)]).await;
    let whole = index_bytes(&all);
    drop(all);
    for index_memory in [0, whole as usize / 2] {
        let store = Store::open(StoreConfig { index_memory, ..config(dir.path()) }).unwrap();
        for _ in 0..3 {
            expect(&store, &[(1, 0..4000)]).await;
            assert!(index_bytes(&store) <= index_memory as u64);
        }
        assert_eq!(index_bytes(&store) == 0, index_memory == 0);
    }
    let idle = StoreConfig { index_idle: Duration::ZERO, ..config(dir.path()) };
    let store = Store::open(idle).unwrap();
    for _ in 0..2 {
        expect(&store, &[(1, 0..4000)]).await;
        while index_bytes(&store) > 0 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

/// Scenario: an index goes bad on disk while the store is open. Guarantee: whoever loads it next names it and
/// sets the segment aside; the rows of the others stay.
#[tokio::test(flavor = "multi_thread")]
async fn an_index_that_went_bad_is_set_aside() {
    enum Finder {
        Query,
        Merge,
        Verify,
    }
    for finder in [Finder::Query, Finder::Merge, Finder::Verify] {
        let dir = tempfile::tempdir().unwrap();
        let store: Arc<Store> = open(dir.path());
        segments(&store, 0..3).await;
        damage_index(&segment_files(dir.path())[1]);
        match finder {
            Finder::Query => {}
            Finder::Merge => store.compact().await.unwrap(),
            Finder::Verify => assert!(!store.verify().await.is_ok()),
        }
        for _ in 0..2 {
            let scan = LogScan::all(TenantId::default());
            let stats = scan.stats.clone();
            assert_eq!(lines(&store, scan).await.len(), 2000);
            let partial = stats.partial.lock().clone();
            assert!(partial.iter().any(|line| line.contains("L0-")), "{partial:?}");
        }
        let status = store.status();
        assert_eq!((status.quarantined.len(), status.rows), (1, 2000), "{status:?}");
        assert!(dir.path().join("quarantine").join(&status.quarantined[0].name).exists());
    }
}
