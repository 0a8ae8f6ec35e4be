//! After a failed sync nothing is taken any more, and what is left over raises no alarm.

use std::{sync::Arc, time::Duration};

use trine_schema::LogScan;
use trine_store::{Store, StoreConfig, StoreError, StoreParts};
use trine_testing::SimDisk;

use crate::kit::{append, batch_of, config, expect, lines};

/// Scenario: the sync of a group fails; somebody asks for a flush, the memtable gets old; the program is
/// restarted while the group's bytes are still in the log.
/// Guarantee: the refused group's streams stay defined in the log, so it comes back whole and the
/// restart finds no damage. The store says until then that it takes nothing.
#[tokio::test(flavor = "multi_thread")]
async fn a_failed_sync_ends_flushes_and_its_leftovers_are_no_damage() {
    for (seed, by_age) in [(1, false), (2, true)] {
        let dir = tempfile::tempdir().unwrap();
        let disk = SimDisk::new(seed);
        let parts = StoreParts { disk: Arc::new(disk.clone()), ..StoreParts::default() };
        let flush_after = Duration::from_millis(if by_age { 300 } else { 300_000 });
        let store =
            Store::open_with(StoreConfig { flush_after, ..config(dir.path()) }, parts.clone()).unwrap();
        append(&store, 1, 0..10).await;
        disk.fail_sync_after(0);
        let refused = store.append(batch_of(&store, 1, 10..20), None).await;
        assert!(matches!(refused, Err(StoreError::Poisoned(_))), "{refused:?}");
        if by_age {
            tokio::time::sleep(Duration::from_millis(1500)).await;
        } else {
            let flushed = tokio::time::timeout(Duration::from_secs(5), store.flush()).await.unwrap();
            assert!(matches!(flushed, Err(StoreError::Poisoned(_))), "{flushed:?}");
        }
        assert_eq!(store.status().counters.flushes, 0, "a memtable was flushed after the failed sync");
        // What was acknowledged can still be asked for.
        expect(&store, &[(1, 0..10)]).await;
        assert!(store.status().poisoned.is_some());
        drop(store);

        let store = Store::open_with(config(dir.path()), parts).unwrap();
        assert_eq!(store.status().quarantined, [], "a failed sync is no damage");
        let scan = LogScan::all(trine_model::TenantId::default());
        let stats = scan.stats.clone();
        assert_eq!(lines(&store, scan).await.len(), 20, "its bytes were there");
        assert!(stats.partial.lock().is_empty());
        append(&store, 2, 20..30).await;
        store.flush().await.unwrap();
        expect(&store, &[(1, 0..20), (2, 20..30)]).await;
    }
}
