//! Damage is found, named and stepped around.

use trine_model::TenantId;
use trine_schema::LogScan;
use trine_store::{Store, StoreConfig, StoreError, verify_directory};

use crate::kit::{append, config, damage, expect, lines, open, segment_files};

async fn two_segments(dir: &std::path::Path) {
    let store = open(dir);
    for i in 0..2 {
        append(&store, 1, i * 1000..i * 1000 + 1000).await;
        store.flush().await.unwrap();
    }
    append(&store, 1, 2000..2010).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_segment_is_set_aside_and_every_answer_says_so() {
    let dir = tempfile::tempdir().unwrap();
    two_segments(dir.path()).await;
    damage(&segment_files(dir.path())[0]);
    let report = verify_directory(dir.path()).unwrap();
    assert_eq!(report.problems.len(), 1, "{report:?}");
    let store = open(dir.path());
    for _ in 0..2 {
        let scan = LogScan::all(TenantId::default());
        let stats = scan.stats.clone();
        assert_eq!(lines(&store, scan).await.len(), 1010);
        let partial = stats.partial.lock().clone();
        assert!(partial.iter().any(|line| line.contains("L0-")), "{partial:?}");
    }
    let status = store.status();
    assert_eq!((status.quarantined.len(), status.rows), (1, 1010), "{status:?}");
    let name = &status.quarantined[0].name;
    assert!(dir.path().join("quarantine").join(name).exists());
    assert!(dir.path().join("quarantine").join(format!("{name}.reason.txt")).exists());
    assert!(!store.verify().await.is_ok());
    drop(store);
    let store = open(dir.path());
    assert_eq!(store.status().quarantined.len(), 1, "a restart forgot the quarantine");
    // Rows outside the damaged segment's range: the answer is whole.
    let scan = LogScan { start: 1500 * 1_000_000_000, ..LogScan::all(TenantId::default()) };
    let stats = scan.stats.clone();
    assert_eq!(lines(&store, scan).await.len(), 510);
    assert!(stats.partial.lock().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_missing_segment_is_named() {
    let dir = tempfile::tempdir().unwrap();
    two_segments(dir.path()).await;
    std::fs::remove_file(&segment_files(dir.path())[1]).unwrap();
    let store = open(dir.path());
    assert_eq!(lines(&store, LogScan::all(TenantId::default())).await.len(), 1010);
    assert!(store.status().quarantined[0].reason.contains("missing"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_or_lost_catalog_is_rebuilt_from_the_segments() {
    for lost in [false, true] {
        let dir = tempfile::tempdir().unwrap();
        two_segments(dir.path()).await;
        {
            // A merge whose inputs are still there: what a crash at the wrong moment leaves.
            let inputs: Vec<_> = segment_files(dir.path())
                .into_iter()
                .map(|path| (std::fs::read(&path).unwrap(), path))
                .collect();
            open(dir.path()).compact().await.unwrap();
            for (bytes, path) in inputs {
                std::fs::write(path, bytes).unwrap();
            }
        }
        assert_eq!(segment_files(dir.path()).len(), 3);
        let catalog = dir.path().join("catalog.db");
        if lost {
            std::fs::remove_file(&catalog).unwrap();
        } else {
            let mut bytes = std::fs::read(&catalog).unwrap();
            for byte in bytes.iter_mut().skip(4096).step_by(97) {
                *byte ^= 0xff;
            }
            std::fs::write(&catalog, bytes).unwrap();
            assert!(!verify_directory(dir.path()).unwrap().is_ok());
        }
        for again in [false, true] {
            let store = open(dir.path());
            expect(&store, &[(1, 0..2010)]).await;
            assert_eq!(segment_files(dir.path()).len(), 1);
            let notes = store.status().notes;
            assert_eq!(
                notes.iter().any(|note| note.contains("rebuilt from 1 segments")),
                !again,
                "{notes:?}"
            );
        }
        let kept = std::fs::read_dir(dir.path().join("quarantine")).unwrap().count();
        assert_eq!(kept, if lost { 0 } else { 2 }, "the damaged catalog and its reason");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_old_copy_of_the_catalog_put_back_costs_no_rows() {
    for merged in [false, true] {
        let dir = tempfile::tempdir().unwrap();
        let (catalog, copy) = (dir.path().join("catalog.db"), dir.path().join("copy.db"));
        two_segments(dir.path()).await;
        std::fs::copy(&catalog, &copy).unwrap();
        {
            let store = open(dir.path());
            if merged {
                store.compact().await.unwrap();
            } else {
                // The log is cut behind these rows, and the old catalog knows nothing of them.
                for i in 0..3 {
                    append(&store, 1, 2010 + i * 10..2020 + i * 10).await;
                    store.flush().await.unwrap();
                }
            }
        }
        std::fs::rename(&copy, &catalog).unwrap();
        let store = open(dir.path());
        expect(&store, &[(1, 0..if merged { 2010 } else { 2040 })]).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_crash_leaves_is_swept_and_rows_are_not_doubled() {
    let dir = tempfile::tempdir().unwrap();
    two_segments(dir.path()).await;
    let [first, _] = segment_files(dir.path()).try_into().unwrap();
    let day = first.parent().unwrap();
    // A flush that did not commit (the log goes on behind sequence 4), a file that was being written.
    std::fs::copy(&first, day.join("0000000099-L0-5-6.parquet")).unwrap();
    std::fs::write(day.join(".tmp-0000000100-L0-7002-7003.parquet"), b"half").unwrap();
    let report = verify_directory(dir.path()).unwrap();
    assert!(report.is_ok() && !report.notes.is_empty(), "{report:?}");
    let store = open(dir.path());
    expect(&store, &[(1, 0..2010)]).await;
    assert_eq!(segment_files(dir.path()).len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flipped_bit_in_the_log_is_named_and_other_rows_are_served() {
    let dir = tempfile::tempdir().unwrap();
    {
        let store = open(dir.path());
        for i in 0..10 {
            append(&store, 1, i * 10..i * 10 + 10).await;
        }
    }
    let log = std::fs::read_dir(dir.path().join("wal")).unwrap().map(|f| f.unwrap().path());
    let log = log.max_by_key(|path| std::fs::metadata(path).unwrap().len()).unwrap();
    let mut bytes = std::fs::read(&log).unwrap();
    // In the body of the fifth batch.
    let at = bytes.windows(8).position(|w| w == b"line 45 ").unwrap();
    bytes[at] ^= 1;
    std::fs::write(&log, bytes).unwrap();
    match Store::open(config(dir.path())) {
        Ok(store) => {
            let scan = LogScan::all(TenantId::default());
            let stats = scan.stats.clone();
            let found = lines(&store, scan).await;
            assert!(found.len() >= 90, "{} rows", found.len());
            assert!(!stats.partial.lock().is_empty(), "the loss was not told");
            assert!(!store.status().quarantined.is_empty());
        }
        Err(e) => panic!("a flipped bit keeps the store from opening: {e}"),
    }
}

#[tokio::test]
async fn a_directory_without_a_store_is_no_clean_bill() {
    let dir = tempfile::tempdir().unwrap();
    assert!(matches!(verify_directory(dir.path()), Err(StoreError::Io { .. })));
}

/// Scenario: segment files lie there that the catalog does not list: dropped by retention just before a
/// crash, inputs of a merge, and one that somebody put there.
/// Guarantee: leftovers go without a word; what may hold rows that are nowhere else is kept, named, and
/// not served.
#[tokio::test(flavor = "multi_thread")]
async fn leftovers_are_removed_and_strangers_are_kept() {
    let dir = tempfile::tempdir().unwrap();
    two_segments(dir.path()).await;
    let files = segment_files(dir.path());
    let bytes: Vec<_> = files.iter().map(|file| std::fs::read(file).unwrap()).collect();
    let put_back = |at: usize| {
        std::fs::create_dir_all(files[at].parent().unwrap()).unwrap();
        std::fs::write(&files[at], &bytes[at]).unwrap();
    };
    {
        let small = StoreConfig { retention_bytes: Some(0), ..config(dir.path()) };
        let store = Store::open(small).unwrap();
        store.compact().await.unwrap();
        assert_eq!(store.status().counters.retained_out_segments, 2);
    }
    // A crash before the file was removed.
    put_back(0);
    let store = open(dir.path());
    assert_eq!((store.status().quarantined.len(), files[0].exists()), (0, false));
    store.flush().await.unwrap();
    append(&store, 1, 10_000..10_010).await;
    store.flush().await.unwrap();
    let input = segment_files(dir.path()).pop().unwrap();
    let input_bytes = std::fs::read(&input).unwrap();
    store.compact().await.unwrap();
    drop(store);
    assert!(!input.exists(), "a merge keeps its input");
    std::fs::write(&input, input_bytes).unwrap();
    assert_eq!(open(dir.path()).status().quarantined.len(), 0);
    assert!(!input.exists(), "the input of a merge stayed");
    // Nothing here knows of that one any more.
    put_back(0);
    let report = verify_directory(dir.path()).unwrap();
    assert!(report.is_ok() && report.notes[0].contains("quarantine"), "{report:?}");
    let store = open(dir.path());
    let status = store.status();
    assert_eq!((status.quarantined.len(), files[0].exists()), (1, false));
    let kept = dir.path().join("quarantine").join(&status.quarantined[0].name);
    assert_eq!(std::fs::read(kept).unwrap(), bytes[0]);
    // What is missing was dropped, so the answer counts as whole.
    expect(&store, &[(1, 2000..2010), (1, 10_000..10_010)]).await;
}

/// Guarantee: an end of the log that was cut off at open is told, with its size.
#[tokio::test(flavor = "multi_thread")]
async fn a_torn_end_of_the_log_is_noted() {
    let dir = tempfile::tempdir().unwrap();
    two_segments(dir.path()).await;
    assert_eq!(open(dir.path()).status().notes, Vec::<String>::new());
    let store = open(dir.path());
    append(&store, 1, 2010..2020).await;
    drop(store);
    let mut files: Vec<_> =
        std::fs::read_dir(dir.path().join("wal")).unwrap().map(|file| file.unwrap().path()).collect();
    files.sort();
    let last = files.last().unwrap();
    let bytes = std::fs::read(last).unwrap();
    std::fs::write(last, &bytes[..bytes.len() - 5]).unwrap();
    assert_eq!(verify_directory(dir.path()).unwrap().notes.len(), 1);
    let store = open(dir.path());
    let notes = store.status().notes;
    assert!(matches!(&notes[..], [note] if note.contains("not known")), "{notes:?}");
    expect(&store, &[(1, 0..2010)]).await;
    drop(store);
    assert_eq!(open(dir.path()).status().notes, Vec::<String>::new(), "it was cut off");
}
