//! The log on the operating system's files.

use std::{sync::Arc, time::Instant};

use trine_wal::{Entry, RealDisk, Wal, WalConfig};

/// Scenario: more parts than one system call takes, several files, a restart, a truncation.
/// Guarantee: everything comes back; files are removed; the sequence goes on even from an empty log.
#[test]
fn groups_come_back_from_real_files() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path().join("wal");
    let config = WalConfig { max_file_bytes: 64 << 10, ..WalConfig::default() };
    let part = [5_u8; 10];
    let parts = vec![&part[..]; 700];
    let (mut wal, replay) = Wal::open(Arc::new(RealDisk), &dir, config.clone()).unwrap();
    assert_eq!(replay.count(), 0);
    for round in 0..10 {
        let entry = Entry { parts: &parts };
        assert_eq!(
            wal.append_group(&[entry, Entry { parts: &[] }, entry]).unwrap(),
            round * 3 + 1..=round * 3 + 3
        );
    }
    let size = wal.size_bytes();
    drop(wal);

    let (mut wal, replay) = Wal::open(Arc::new(RealDisk), &dir, config.clone()).unwrap();
    assert_eq!((wal.first_sequence(), wal.next_sequence(), wal.size_bytes()), (1, 31, size));
    let lengths: Vec<_> = replay.map(|entry| entry.unwrap().payload.len()).collect();
    assert_eq!(lengths, [7000, 0, 7000].repeat(10));

    assert_eq!(wal.append(&[b"new"]).unwrap(), 31);
    wal.truncate_before(31).unwrap();
    assert_eq!((wal.first_sequence(), std::fs::read_dir(&dir).unwrap().count()), (31, 1));
    drop(wal);
    let (wal, replay) = Wal::open(Arc::new(RealDisk), &dir, config.clone()).unwrap();
    assert_eq!(replay.map(|entry| entry.unwrap().payload).collect::<Vec<_>>(), [b"new"]);
    drop(wal);

    // Nothing is needed any more: a header that knows the sequence is all that stays, and takes no space
    // in advance.
    let (mut wal, _) = Wal::open(Arc::new(RealDisk), &dir, config.clone()).unwrap();
    assert_eq!(wal.append(&[b"more"]).unwrap(), 32);
    wal.seal();
    wal.truncate_before(33).unwrap();
    let left: Vec<_> =
        std::fs::read_dir(&dir).unwrap().map(|file| file.unwrap().metadata().unwrap()).collect();
    let blocks = std::os::unix::fs::MetadataExt::blocks(&left[0]);
    assert!(left.len() == 1 && left[0].len() == wal.size_bytes() && blocks <= 16, "{left:?}");
    drop(wal);
    let (wal, replay) = Wal::open(Arc::new(RealDisk), &dir, config.clone()).unwrap();
    assert_eq!((replay.count(), wal.next_sequence()), (0, 33));
    drop(wal);

    std::fs::remove_dir_all(&dir).unwrap();
    let (wal, _) = Wal::open(Arc::new(RealDisk), &dir, WalConfig { first_needed: 32, ..config }).unwrap();
    assert_eq!(wal.next_sequence(), 32, "a sequence that is stored elsewhere is not given out again");
}

/// CPU seconds of this process, user and system.
fn cpu_seconds() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap();
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap().split_whitespace().collect();
    let ticks: u64 = fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap();
    ticks as f64 / 100.0
}

/// Prints throughput, latency and CPU. `cargo test --release -p trine-wal -- --ignored --nocapture`;
/// `TRINE_WAL_DIR` names the directory, the system's temporary one otherwise.
#[test]
#[ignore = "a measurement"]
fn throughput() {
    let parent = std::env::var_os("TRINE_WAL_DIR").map_or_else(std::env::temp_dir, Into::into);
    for (kib, groups) in [(64, 2000), (256, 800), (1024, 400)] {
        let dir = tempfile::tempdir_in(&parent).unwrap();
        let (mut wal, _) = Wal::open(Arc::new(RealDisk), dir.path(), WalConfig::default()).unwrap();
        let payload = vec![0x5a_u8; kib << 10];
        let (started, cpu) = (Instant::now(), cpu_seconds());
        let mut times: Vec<_> = (0..groups)
            .map(|_| {
                let begun = Instant::now();
                let sequence = wal.append(&[&payload[..100], &payload[100..]]).unwrap();
                if wal.size_bytes() > 512 << 20 {
                    wal.truncate_before(sequence).unwrap();
                }
                begun.elapsed()
            })
            .collect();
        let (elapsed, cpu) = (started.elapsed().as_secs_f64(), cpu_seconds() - cpu);
        times.sort_unstable();
        let gigabytes = (groups * payload.len()) as f64 / 1e9;
        println!(
            "append {kib:>5} KiB: {:>5.0} MB/s, p50 {:>8.2?}, p99 {:>8.2?}, {:.2} CPU-s per GB",
            gigabytes * 1e3 / elapsed,
            times[groups / 2],
            times[groups * 99 / 100],
            cpu / gigabytes
        );
        drop(wal);
        let (started, cpu) = (Instant::now(), cpu_seconds());
        let (wal, replay) = Wal::open(Arc::new(RealDisk), dir.path(), WalConfig::default()).unwrap();
        let opened = started.elapsed();
        let bytes: usize = replay.map(|entry| entry.unwrap().payload.len()).sum();
        println!(
            "reopen {:>5} MB: opened after {opened:.2?}, replayed after {:.2?}, {:.2} CPU-s per GB",
            bytes / 1_000_000,
            started.elapsed(),
            (cpu_seconds() - cpu) / (wal.size_bytes() as f64 / 1e9)
        );
    }
}
