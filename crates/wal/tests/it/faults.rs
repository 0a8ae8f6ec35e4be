//! One fault at a time.

use std::path::Path;

use trine_testing::SimDisk;
use trine_wal::WalError;

use crate::{DIR, append, open, small_files};

/// Scenario: the disk is full in the middle of a group.
/// Guarantee: the part is taken back at once, smaller groups still fit, and with space all goes on.
#[test]
fn a_full_disk_costs_the_group_and_nothing_else() {
    let disk = SimDisk::new(1);
    let (mut wal, _) = open(&disk, small_files()).unwrap();
    append(&mut wal, &[b"first".to_vec()]).unwrap();
    let used = disk.used();
    disk.set_capacity(Some(used + 1000));
    let error = append(&mut wal, &[vec![1; 600], vec![2; 600]]).unwrap_err();
    assert_eq!(
        error.to_string(),
        "no space left for the write-ahead log in data/wal; free some, appending then works again by itself"
    );
    assert_eq!((disk.used(), wal.size_bytes(), wal.next_sequence()), (used, used, 2));
    append(&mut wal, &[vec![3; 600]]).unwrap();
    // Not even a new file can be begun.
    assert!(matches!(append(&mut wal, &[vec![4; 8_000]]).unwrap_err(), WalError::Full { .. }));
    disk.set_capacity(None);
    append(&mut wal, &[vec![4; 8_000]]).unwrap();
    disk.crash();
    let (_, replay) = open(&disk, small_files()).unwrap();
    assert_eq!(replay.recovery().corruptions, []);
    let lengths: Vec<_> = replay.map(|entry| entry.unwrap().payload.len()).collect();
    assert_eq!(lengths, [5, 600, 8_000]);
}

/// Scenario: one sync fails, the disk is well again right after.
/// Guarantee: the log takes nothing more and does not sync again; a restart finds what was acknowledged.
#[test]
fn a_failed_sync_poisons_until_the_restart() {
    for failing in 0..4 {
        let disk = SimDisk::new(failing);
        let (mut wal, _) = open(&disk, small_files()).unwrap();
        // Header, directory and group are synced for the first append, the group for the second.
        disk.fail_sync_after(failing);
        let mut acknowledged = 0;
        let error = loop {
            match append(&mut wal, &[b"x".to_vec()]) {
                Ok(_) => acknowledged += 1,
                Err(error) => break error,
            }
        };
        assert_eq!(acknowledged, failing.saturating_sub(2));
        assert!(matches!(error, WalError::Poisoned { .. }), "{error}");
        assert!(error.to_string().contains("sync"), "{error}");
        for _ in 0..3 {
            let again = append(&mut wal, &[b"y".to_vec()]).unwrap_err();
            assert_eq!(again.to_string(), error.to_string());
        }
        assert!(wal.poisoned().is_some());
        disk.crash();
        let (mut wal, replay) = open(&disk, small_files()).unwrap();
        assert_eq!(replay.recovery().corruptions, []);
        assert!(replay.count() as u64 >= acknowledged);
        append(&mut wal, &[b"z".to_vec()]).unwrap();
    }
}

/// Scenario: an entry over the bound.
/// Guarantee: refused before anything is written, and the log goes on.
#[test]
fn an_entry_over_the_bound_is_refused() {
    let disk = SimDisk::new(1);
    let (mut wal, _) = open(&disk, small_files()).unwrap();
    let part = vec![0; 1 << 20];
    let parts = vec![&part[..]; 257];
    let error = wal.append(&parts).unwrap_err();
    assert!(matches!(error, WalError::EntryTooLarge { limit: 268_435_456, .. }), "{error}");
    assert_eq!(disk.files(), []);
    assert_eq!(append(&mut wal, &[]).unwrap().count(), 0);
    assert_eq!(append(&mut wal, &[b"x".to_vec()]).unwrap(), 1..=1);
    assert_eq!(disk.files(), [(Path::new(DIR).join("00000000000000000001.wal"), 4096 + 25)]);
}
