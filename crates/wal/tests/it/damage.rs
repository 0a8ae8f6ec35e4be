//! Bytes that rot on the disk.

use std::{
    collections::BTreeMap,
    io,
    path::Path,
    sync::atomic::{AtomicBool, Ordering::Relaxed},
};

use trine_testing::{Random, SimDisk};
use trine_wal::{Disk, DiskFile, Wal, WalError};

use crate::{DIR, append, open, small_files};

/// Random damages per run of the test.
const DAMAGES: u64 = 1000;

/// A log of some files; what is in it, and the first sequence of its last group.
fn filled(disk: &SimDisk, random: &mut Random) -> (BTreeMap<u64, Vec<u8>>, u64) {
    let (mut wal, _) = open(disk, small_files()).unwrap();
    let mut entries = BTreeMap::new();
    let mut last_group = 1;
    for _ in 0..3 + random.below(12) {
        let group: Vec<Vec<u8>> = (0..=random.below(4))
            .map(|_| {
                // Some payloads look like a log themselves.
                let files = disk.files();
                if random.chance(20) && !files.is_empty() {
                    let copy = disk.content(&random.pick(&files).0);
                    return copy[..copy.len().min(9_000)].to_vec();
                }
                let len = random.below(4_000);
                random.bytes(len as usize)
            })
            .collect();
        let sequences = append(&mut wal, &group).unwrap();
        last_group = *sequences.start();
        entries.extend(sequences.zip(group));
    }
    disk.settle();
    (entries, last_group)
}

/// Scenario: bits flip, sectors are zeroed, overwritten or cut off in a log that was synced.
/// Guarantee: no wrong entry is handed over; what is missing is named, except for the end of the last
/// group, which looks as if it had been torn, and is reported as that; the log goes on to work.
#[test]
fn damage_is_named_and_costs_only_what_it_hit() {
    let (mut damaged, mut torn, mut saved) = (0, 0, 0);
    for seed in 0..DAMAGES {
        let mut random = Random::new(seed);
        let disk = SimDisk::new(random.number());
        let (entries, last_group) = filled(&disk, &mut random);
        let hits = 1 + random.below(3);
        for _ in 0..hits {
            let files = disk.files();
            let (path, len) = random.pick(&files);
            match random.below(4) {
                0 => disk.overwrite(path, random.below(len / 512) * 512, &[0; 512]),
                1 => {
                    let junk = random.bytes(512);
                    disk.overwrite(path, random.below(len / 512) * 512, &junk);
                }
                _ => disk.flip_bit(path, random.below(len * 8)),
            }
        }
        let verified = Wal::verify(&disk, Path::new(DIR)).unwrap();
        let (mut wal, mut replay) = open(&disk, small_files()).unwrap();
        let recovery = replay.recovery().clone();
        assert_eq!(verified, recovery, "seed {seed}");
        let mut replayed = Vec::new();
        for entry in &mut replay {
            let entry = entry.unwrap();
            assert!(
                entries.get(&entry.sequence) == Some(&entry.payload),
                "seed {seed}: entry {} is wrong",
                entry.sequence
            );
            replayed.push(entry.sequence);
        }
        assert!(replayed.is_sorted_by(|a, b| a < b), "seed {seed}: once and in order");
        for sequence in entries.keys().filter(|sequence| replayed.binary_search(sequence).is_err()) {
            let named = recovery
                .corruptions
                .iter()
                .any(|corruption| corruption.lost.as_ref().is_some_and(|lost| lost.contains(sequence)));
            // One sector may take the headers of the last groups; more hits may take more.
            let tail: usize = entries.range(last_group..).map(|(_, payload)| payload.len() + 24).sum();
            let cut = recovery.torn.as_ref().is_some_and(|torn| hits > 1 || torn.bytes <= 512 + tail as u64);
            assert!(named || cut, "seed {seed}: entry {sequence} is missing silently: {recovery:?}");
        }
        damaged += u64::from(!recovery.corruptions.is_empty());
        torn += u64::from(recovery.torn.is_some());
        let lost = entries.len() - replayed.len();
        saved += u64::from(lost > 0 && lost <= 3 && replayed.last() == entries.keys().next_back());

        // The log goes on, and the next open tells the same damage again.
        let next = wal.next_sequence();
        assert!(replayed.last().is_none_or(|last| *last < next));
        append(&mut wal, &[b"after".to_vec()]).unwrap();
        disk.crash();
        let (mut wal, replay) = open(&disk, small_files()).unwrap();
        assert_eq!(replay.recovery().corruptions, recovery.corruptions, "seed {seed}");
        assert_eq!(replay.map(Result::unwrap).last().map(|entry| entry.payload), Some(b"after".to_vec()));

        // Nothing damaged is thrown away.
        append(&mut wal, &[b"more".to_vec()]).unwrap();
        wal.truncate_before(wal.next_sequence()).unwrap();
        let mut expected: Vec<_> = recovery.corruptions.iter().map(|corruption| &corruption.file).collect();
        expected.dedup();
        let kept: Vec<_> = disk.files().into_iter().map(|(path, _)| path).collect();
        for file in expected {
            assert!(kept.contains(&file.with_extension("wal.corrupt")), "seed {seed}: {kept:?}");
        }
    }
    println!("{damaged} with damage, {torn} with a torn tail, {saved} lost few entries in the middle");
    assert!(damaged > 400 && torn > 50 && saved > 200, "{damaged} {torn} {saved}");
}

/// Scenario: one bit in the middle of a synced file flips.
/// Guarantee: exactly the entry that was hit is lost, file, offset and sequence are told.
#[test]
fn one_flipped_bit_costs_one_entry() {
    let disk = SimDisk::new(1);
    let (mut wal, _) = open(&disk, small_files()).unwrap();
    for payload in [b"first", b"other", b"third"] {
        append(&mut wal, &[payload.to_vec()]).unwrap();
    }
    let path = Path::new(DIR).join("00000000000000000001.wal");
    let second = 4096 + 24 + 5;
    disk.flip_bit(&path, (second + 24) * 8);
    let (_, replay) = open(&disk, small_files()).unwrap();
    let [corruption] = &replay.recovery().corruptions[..] else { panic!("{:?}", replay.recovery()) };
    assert_eq!((corruption.offset, corruption.lost.clone()), (second, Some(2..=2)));
    assert_eq!(
        corruption.to_string(),
        "data/wal/00000000000000000001.wal is damaged at byte 4125 (the checksum of the entry does \
         not match), entries 2 to 2 are lost"
    );
    let payloads: Vec<_> = replay.map(|entry| entry.unwrap().payload).collect();
    assert_eq!(payloads, [b"first", b"third"]);
}

/// Scenario: a whole file in the middle disappears.
/// Guarantee: its entries are told to be lost, not passed over.
#[test]
fn a_missing_file_is_noticed() {
    let disk = SimDisk::new(1);
    let (mut wal, _) = open(&disk, small_files()).unwrap();
    for _ in 0..6 {
        append(&mut wal, &[vec![7; 6_000]]).unwrap();
    }
    let files = disk.files();
    assert!(files.len() >= 3);
    trine_wal::Disk::remove(&disk, &files[1].0).unwrap();
    let (_, replay) = open(&disk, small_files()).unwrap();
    let lost: Vec<_> = replay.recovery().corruptions.iter().map(|found| found.lost.clone()).collect();
    assert_eq!(lost, [Some(2..=2)]);
    assert_eq!(replay.map(|entry| entry.unwrap().sequence).collect::<Vec<_>>(), [1, 3, 4, 5, 6]);
}

/// Scenario: a newer program wrote a file.
/// Guarantee: it is left alone and the error says what to do.
#[test]
fn a_newer_version_is_refused() {
    let disk = SimDisk::new(1);
    let (mut wal, _) = open(&disk, small_files()).unwrap();
    append(&mut wal, &[b"x".to_vec()]).unwrap();
    let path = Path::new(DIR).join("00000000000000000001.wal");
    let mut header = disk.content(&path)[..32].to_vec();
    header[8] = 2;
    let mut checked = header[..12].to_vec();
    checked.extend_from_slice(&header[16..]);
    header[12..16].copy_from_slice(&crc32c::crc32c(&checked).to_le_bytes());
    disk.overwrite(&path, 0, &header);
    let error = open(&disk, small_files()).unwrap_err();
    assert!(matches!(error, WalError::Version { version: 2, supported: 1, .. }), "{error}");
}

/// A disk whose first file goes right after the first listing.
#[derive(Debug)]
struct Cutting(SimDisk, AtomicBool);

impl Disk for Cutting {
    fn create_dir(&self, dir: &Path) -> io::Result<()> {
        self.0.create_dir(dir)
    }

    fn create(&self, path: &Path) -> io::Result<Box<dyn DiskFile>> {
        self.0.create(path)
    }

    fn open_write(&self, path: &Path) -> io::Result<Box<dyn DiskFile>> {
        self.0.open_write(path)
    }

    fn open_read(&self, path: &Path) -> io::Result<Box<dyn DiskFile>> {
        self.0.open_read(path)
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        let names = self.0.list(dir)?;
        if !self.1.swap(true, Relaxed) {
            self.0.remove(&dir.join(names.iter().min().expect("there are files")))?;
        }
        Ok(names)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.0.rename(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        self.0.remove(path)
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        self.0.sync_dir(dir)
    }
}

/// Scenario: a log is verified while its writer cuts it off. Guarantee: a file that went is no damage.
#[test]
fn a_file_that_is_cut_off_during_a_verify_is_not_missed() {
    let disk = SimDisk::new(1);
    let (entries, _) =
        (0..100).map(|seed| filled(&disk, &mut Random::new(seed))).find(|_| disk.files().len() > 2).unwrap();
    let before = disk.files().len();
    let recovery = Wal::verify(&Cutting(disk.clone(), AtomicBool::new(false)), Path::new(DIR)).unwrap();
    assert_eq!(disk.files().len(), before - 1);
    assert!(recovery.corruptions.is_empty() && recovery.entries > 0, "{recovery:?}");
    assert!(recovery.entries < entries.keys().max().copied().unwrap());
}
