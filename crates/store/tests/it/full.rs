//! A full disk refuses appends, loses nothing, and heals by itself.

use std::{path::Path, process::Command, sync::Arc, time::Duration};

use trine_store::{Store, StoreConfig, StoreError, StoreParts};
use trine_testing::SimDisk;

use crate::kit::{append, batch_of, config, expect};

#[tokio::test]
async fn a_full_log_refuses_and_recovers() {
    let dir = tempfile::tempdir().unwrap();
    let disk = SimDisk::new(3);
    let parts = StoreParts { disk: Arc::new(disk.clone()), ..StoreParts::default() };
    let store = Store::open_with(config(dir.path()), parts.clone()).unwrap();
    append(&store, 1, 0..10).await;
    disk.set_capacity(Some(disk.used()));
    // A stream that is new in the refused batch must be defined again afterwards.
    for _ in 0..2 {
        let refused = store.append(batch_of(&store, 2, 10..20), None).await;
        assert!(matches!(refused, Err(StoreError::Full(_))), "{refused:?}");
    }
    assert!(store.status().full.is_some());
    expect(&store, &[(1, 0..10)]).await;
    disk.set_capacity(None);
    append(&store, 2, 10..20).await;
    assert!(store.status().full.is_none());
    drop(store);
    let store = Store::open_with(config(dir.path()), parts).unwrap();
    expect(&store, &[(1, 0..10), (2, 10..20)]).await;
}

/// A small tmpfs, unmounted when dropped; `None` where mounting is not allowed.
struct SmallDisk(tempfile::TempDir);

impl SmallDisk {
    fn mount(megabytes: u32) -> Option<Self> {
        let dir = tempfile::tempdir().unwrap();
        let mounted = Command::new("mount")
            .args(["-t", "tmpfs", "-o", &format!("size={megabytes}m"), "tmpfs"])
            .arg(dir.path())
            .output()
            .is_ok_and(|out| out.status.success());
        mounted.then_some(Self(dir))
    }

    fn path(&self) -> &Path {
        self.0.path()
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(self.0.path()).output();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_file_system_refuses_and_recovers_when_space_returns() {
    let Some(disk) = SmallDisk::mount(96) else {
        eprintln!("skipped: a small tmpfs cannot be mounted here (not root?)");
        return;
    };
    let store =
        Store::open(StoreConfig { memtable_bytes: 4 << 20, ..config(&disk.path().join("data")) }).unwrap();
    let hog = disk.path().join("hog");
    append(&store, 1, 0..1000).await;
    let mut at = 1000u64;
    // Somebody else fills the disk.
    fill(&hog);
    let mut refused = 0;
    let mut kept = vec![(1, 0..1000u64)];
    for _ in 0..200 {
        match store.append(batch_of(&store, 1, at..at + 1000), None).await {
            Ok(_) => kept.push((1, at..at + 1000)),
            Err(StoreError::Full(_)) => refused += 1,
            Err(e) => panic!("{e}"),
        }
        at += 1000;
        if refused == 20 {
            break;
        }
    }
    assert!(refused > 0, "the disk never got full");
    expect(&store, &kept).await;
    std::fs::remove_file(&hog).unwrap();
    let mut taken = false;
    for _ in 0..100 {
        if store.append(batch_of(&store, 1, at..at + 1000), None).await.is_ok() {
            taken = true;
            break;
        }
        at += 1000;
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert!(taken, "space came back and appends did not: {:?}", store.status());
    kept.push((1, at..at + 1000));
    store.flush().await.unwrap();
    expect(&store, &kept).await;
    drop(store);
    let store = Store::open(config(&disk.path().join("data"))).unwrap();
    expect(&store, &kept).await;
}

fn fill(path: &Path) {
    use std::io::Write;
    let mut file = std::fs::File::create(path).unwrap();
    while file.write_all(&vec![1; 64 << 10]).is_ok() {}
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flush_that_fails_for_another_reason_is_not_called_a_full_disk() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    let store = Store::open(StoreConfig { memtable_bytes: 1 << 20, ..config(&data) }).unwrap();
    append(&store, 1, 0..1000).await;
    std::fs::remove_dir_all(data.join("segments")).unwrap();
    std::fs::write(data.join("segments"), "in the way").unwrap();
    let mut refused = None;
    for batch in 1..500u64 {
        if let Err(error) = store.append(batch_of(&store, 1, batch * 1000..(batch + 1) * 1000), None).await {
            refused = Some(error);
            break;
        }
    }
    assert!(matches!(refused, Some(StoreError::Unflushed(_))), "{refused:?}");
}
