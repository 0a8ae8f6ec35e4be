//! Bits that flip anywhere in a data directory.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

use tokio::runtime::Runtime;
use trine_store::{BodyEncoding, Store, StoreConfig, verify_directory};
use trine_testing::Random;

use crate::records::{Batch, TENANTS, scan, scratch};

/// Damaged directories per run of the test.
const DAMAGES: u64 = 200;

/// What the damage hits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Target {
    Log,
    Segment,
    Catalog,
}

/// A directory with a few segments and rows that are only in the log; the ids stored in it, and those of
/// the last append.
fn filled(dir: &Path, random: &mut Random, runtime: &Runtime) -> (Vec<u64>, Vec<u64>) {
    let config = StoreConfig {
        compaction: false,
        body_encoding: *random.pick(&[BodyEncoding::Plain, BodyEncoding::Templates]),
        ..StoreConfig::new(dir)
    };
    let store = Store::open(config).unwrap();
    let mut ids = 0..0;
    let mut last = 0..0;
    runtime.block_on(async {
        for round in 0..3 {
            for _ in 0..=random.below(4) {
                let tenant = random.below(TENANTS.len() as u64) as usize;
                last = ids.end..ids.end + 1 + random.below(40);
                ids.end = last.end;
                store.append(Batch { tenant, ids: last.clone() }.build(&store), None).await.unwrap();
            }
            if round < 2 {
                store.flush().await.unwrap();
            }
            if round == 0 && random.chance(50) {
                store.compact().await.unwrap();
            }
        }
        store.close().await;
    });
    (ids.collect(), last.collect())
}

/// All files below a directory.
fn files(dir: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() { found.extend(files(&path)) } else { found.push(path) }
    }
    found.sort();
    found
}

/// How much is hit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Extent {
    OneBit,
    Stretch,
    Cut,
}

/// Flips a bit, overwrites a stretch or cuts the file.
fn damage(path: &Path, random: &mut Random) -> Extent {
    let mut bytes = fs::read(path).unwrap();
    let at = random.below(bytes.len() as u64) as usize;
    let extent =
        *random.pick(&[Extent::OneBit, Extent::OneBit, Extent::OneBit, Extent::Stretch, Extent::Cut]);
    match extent {
        Extent::Cut => bytes.truncate(at),
        Extent::Stretch if random.chance(50) => {
            let end = bytes.len().min(at + 512);
            bytes[at..end].fill(0);
        }
        Extent::Stretch => {
            let end = bytes.len().min(at + 64);
            let junk = random.bytes(end - at);
            bytes[at..end].copy_from_slice(&junk);
        }
        Extent::OneBit => bytes[at] ^= 1 << random.below(8),
    }
    fs::write(path, bytes).unwrap();
    extent
}

/// Scenario: a closed store whose log, segments or catalog had bits flipped, stretches overwritten or
/// ends cut off is checked and opened again.
/// Guarantee: nothing panics; every record that is served is right and served once; a damaged catalog
/// costs nothing; the store goes on to work. Whatever is missing is told by the scan itself, with one
/// exception that no log can avoid: at the end of the log damage looks like an unfinished write. There
/// - one flipped bit costs the last append at most, for an append behind it would prove the damage;
/// - more damage may take that proof too, and then costs a suffix of the log, never something in between;
/// - `verify` and the status after the open note the bytes that were cut off; only a file that was cut
///   between two appends shows nothing at all.
#[test]
fn damage_anywhere_is_told_and_nothing_wrong_is_served() {
    let damages = std::env::var("TRINE_SIM_SCHEDULES").map_or(DAMAGES, |text| text.parse().unwrap());
    let start = std::env::var("TRINE_SIM_SEED").map_or(0, |text| text.parse().unwrap());
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let mut lost_by: BTreeMap<Target, u64> = BTreeMap::new();
    let mut noticed_by: BTreeMap<Target, u64> = BTreeMap::new();
    for seed in start..start + damages {
        let mut random = Random::new(seed);
        let scratch = scratch();
        let dir = scratch.path().join("data");
        let (ids, last) = filled(&dir, &mut random, &runtime);
        let target = *random.pick(&[Target::Log, Target::Segment, Target::Catalog]);
        let hit: Vec<PathBuf> = match target {
            Target::Log => files(&dir.join("wal")),
            Target::Segment => files(&dir.join("segments")),
            Target::Catalog => vec![dir.join("catalog.db")],
        };
        let hit = random.pick(&hit).clone();
        let extent = damage(&hit, &mut random);
        let told = format!("seed {seed}, {extent:?} of {}", hit.display());

        let report = verify_directory(&dir).unwrap_or_else(|e| panic!("{told}: {e}"));
        let config = StoreConfig { compaction: false, ..StoreConfig::new(&dir) };
        let store = Store::open(config).unwrap_or_else(|e| panic!("{told}: {e}"));
        runtime.block_on(async {
            let found = scan(&store).await.unwrap_or_else(|e| panic!("{told}: {e}"));
            // Damage of a segment may be found by the scan that reads it, or by the one after.
            let again = scan(&store).await.unwrap_or_else(|e| panic!("{told}: {e}"));
            assert!(again.counts.keys().all(|id| found.counts.contains_key(id)), "{told}");
            for (id, count) in &found.counts {
                assert!(ids.contains(id) && *count == 1, "{told}: record {id} is served {count} times");
            }
            let missing: Vec<u64> = ids.iter().filter(|id| !found.counts.contains_key(id)).copied().collect();
            let noted = !report.notes.is_empty() && !store.status().notes.is_empty();
            let end = if extent == Extent::OneBit { last[0] } else { missing.first().copied().unwrap_or(0) };
            let torn = target == Target::Log
                && (noted || extent == Extent::Cut)
                && missing.iter().copied().eq(ids.iter().copied().filter(|id| *id >= end));
            let partial = !found.partial.is_empty();
            assert!(
                missing.is_empty() || partial || torn,
                "{told}: {} records are missing silently: {missing:?}; {report:?}",
                missing.len()
            );
            if target == Target::Catalog {
                assert!(missing.is_empty(), "{told}: the catalog can be rebuilt, {missing:?}");
            }
            if !missing.is_empty() {
                *lost_by.entry(target).or_default() += 1;
                assert!(!report.is_ok() || torn, "{told}: verify saw nothing: {report:?}");
            }
            *noticed_by.entry(target).or_default() += u64::from(!report.is_ok());

            let next = ids.len() as u64..ids.len() as u64 + 5;
            store.append(Batch { tenant: 0, ids: next.clone() }.build(&store), None).await.unwrap();
            store.flush().await.unwrap_or_else(|e| panic!("{told}: {e}"));
            store.compact().await.unwrap_or_else(|e| panic!("{told}: {e}"));
            let after = scan(&store).await.unwrap_or_else(|e| panic!("{told}: {e}"));
            assert!(next.clone().all(|id| after.counts.get(&id) == Some(&1)), "{told}: the store went on");
            // A merge reads what no scan read: more damage may come to light, told again.
            let fewer = again.counts.keys().any(|id| !after.counts.contains_key(id));
            assert!(!fewer || !after.partial.is_empty(), "{told}");
            let background = format!("{:?}", store.status().background_error);
            assert!(!background.contains("BUG"), "{told}: {background}");
            store.close().await;
        });
        drop(store);
        let store = Store::open(StoreConfig::new(&dir)).unwrap_or_else(|e| panic!("{told}: {e}"));
        runtime.block_on(async {
            let after = scan(&store).await.unwrap_or_else(|e| panic!("{told}: {e}"));
            assert!(after.counts.values().all(|count| *count == 1), "{told}");
            let missing = ids.iter().any(|id| !after.counts.contains_key(id));
            assert!(
                !missing || !after.partial.is_empty() || target == Target::Log,
                "{told}: a restart forgets what is missing"
            );
        });
    }
    println!("{damages} damages; records lost: {lost_by:?}; noticed by verify: {noticed_by:?}");
    if damages >= 100 {
        assert!(lost_by[&Target::Log] > 5 && lost_by[&Target::Segment] > 10, "{lost_by:?}");
        // Most of its pages is empty space.
        assert!(noticed_by[&Target::Catalog] > 4, "{noticed_by:?}");
    }
}
