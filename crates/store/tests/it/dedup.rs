//! A batch that is sent again is stored once.

use trine_store::{Appended, BatchKey, Store, StoreConfig};

use crate::kit::{append, batch_of, config, expect, open};

#[tokio::test]
async fn a_key_is_known_after_append_after_restart_after_flush_and_after_both() {
    let dir = tempfile::tempdir().unwrap();
    let key = BatchKey::from_header("delivery-1");
    let again = async |store: &Store, want| {
        assert_eq!(store.append(batch_of(store, 1, 0..10), Some(key)).await.unwrap(), want);
    };
    let store = open(dir.path());
    again(&store, Appended::Stored { rows: 10 }).await;
    again(&store, Appended::Duplicate).await;
    drop(store);
    let store = open(dir.path());
    again(&store, Appended::Duplicate).await;
    store.flush().await.unwrap();
    again(&store, Appended::Duplicate).await;
    append(&store, 1, 10..20).await;
    drop(store);
    let store = open(dir.path());
    again(&store, Appended::Duplicate).await;
    expect(&store, &[(1, 0..20)]).await;
    assert_eq!(store.status().counters.duplicate_batches, 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn of_many_at_once_one_is_stored_and_none_is_told_before_it_is_visible() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    for round in 0..20u64 {
        let key = BatchKey::from_header(&format!("round-{round}"));
        let tasks: Vec<_> = (0..16)
            .map(|_| {
                let store = store.clone();
                tokio::spawn(async move {
                    let batch = batch_of(&store, 1, round * 10..round * 10 + 10);
                    let told = store.append(batch, Some(key)).await.unwrap();
                    expect(&store, &[(1, 0..round * 10 + 10)]).await;
                    told
                })
            })
            .collect();
        let mut stored = 0;
        for task in tasks {
            stored += u32::from(task.await.unwrap() == Appended::Stored { rows: 10 });
        }
        assert_eq!(stored, 1);
    }
}

#[tokio::test]
async fn deduplication_can_be_switched_off_and_content_keys_follow_the_setting() {
    let dir = tempfile::tempdir().unwrap();
    let off = StoreConfig {
        dedup_window: std::time::Duration::ZERO,
        dedup_by_content: false,
        ..config(dir.path())
    };
    let store = Store::open(off).unwrap();
    let tenant = trine_model::TenantId::default();
    assert_eq!(store.batch_key(None, &tenant, b"body"), None);
    assert_eq!(store.batch_key(Some("x"), &tenant, b"body"), Some(BatchKey::from_header("x")));
    let key = Some(BatchKey::from_header("x"));
    for ids in [0..1, 1..2] {
        let told = store.append(batch_of(&store, 1, ids), key).await.unwrap();
        assert_eq!(told, Appended::Stored { rows: 1 });
    }
}
