//! Random schedules of appends, flushes, compactions, faults and power cuts.
//!
//! The log lies on a simulated disk and the segments in a simulated object store that hang on the same
//! power; the catalog is SQLite's real file. It cannot fail by itself, but everything that must
//! happen before or after its transactions can.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering::Relaxed},
    },
    time::Duration,
};

use tempfile::TempDir;
use tokio::runtime::Runtime;
use trine_store::{Appended, BatchKey, BodyEncoding, Store, StoreConfig, StoreError, StoreParts};
use trine_testing::{Random, SimDisk, SimObjects};

use crate::records::{Batch, TENANTS, scan, scratch};

/// Schedules per run of the test; each is a few opens with some operations each.
const SCHEDULES: u64 = 1000;

/// Schedules that run side by side.
const THREADS: u64 = 6;

/// What is known of a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    /// Acknowledged, or seen after a restart: there for good.
    Stored,
    /// The append failed in this life; the next open decides.
    Open,
    /// Not there after a restart: it must not come back by itself.
    Absent,
}

struct Sent {
    batch: Batch,
    key: Option<BatchKey>,
    fate: Fate,
}

/// What happened over all schedules, to see that the test tests something.
#[derive(Debug, Default)]
struct Seen {
    stored: u64,
    duplicates: u64,
    failed: u64,
    failed_but_stored: u64,
    sent_again: u64,
    full: u64,
    poisoned: u64,
    flushes: u64,
    compactions: u64,
    interrupted_opens: u64,
    crashes: u64,
    lives: u64,
}

impl Seen {
    fn and(self, other: &Self) -> Self {
        Self {
            stored: self.stored + other.stored,
            duplicates: self.duplicates + other.duplicates,
            failed: self.failed + other.failed,
            failed_but_stored: self.failed_but_stored + other.failed_but_stored,
            sent_again: self.sent_again + other.sent_again,
            full: self.full + other.full,
            poisoned: self.poisoned + other.poisoned,
            flushes: self.flushes + other.flushes,
            compactions: self.compactions + other.compactions,
            interrupted_opens: self.interrupted_opens + other.interrupted_opens,
            crashes: self.crashes + other.crashes,
            lives: self.lives + other.lives,
        }
    }
}

struct Schedule {
    seed: u64,
    random: Random,
    disk: SimDisk,
    objects: SimObjects,
    _dir: TempDir,
    clock: Arc<AtomicI64>,
    config: StoreConfig,
    sent: Vec<Sent>,
    next_id: u64,
}

impl Schedule {
    fn new(seed: u64) -> Self {
        let mut random = Random::new(seed);
        let disk = SimDisk::new(random.number());
        let dir = scratch();
        let config = StoreConfig {
            memtable_bytes: *random.pick(&[4 << 10, 64 << 10, 64 << 20]),
            segment_bytes: *random.pick(&[2 << 10, 20 << 10, 1 << 30]),
            compaction: random.chance(50),
            body_encoding: *random.pick(&[BodyEncoding::Plain, BodyEncoding::Templates]),
            dedup_window: Duration::from_secs(1_000_000),
            ..StoreConfig::new(dir.path().join("data"))
        };
        let objects = SimObjects::new(&disk);
        let clock = Arc::new(AtomicI64::new(1_700_000_000_000));
        Self { seed, random, disk, objects, _dir: dir, clock, config, sent: Vec::new(), next_id: 0 }
    }

    fn try_open(&self) -> Result<Arc<Store>, StoreError> {
        let clock = self.clock.clone();
        let parts = StoreParts {
            disk: Arc::new(self.disk.clone()),
            objects: Some(Arc::new(self.objects.clone())),
            clock: Arc::new(move || clock.load(Relaxed)),
        };
        Store::open_with(self.config.clone(), parts)
    }

    fn run(&mut self, runtime: &Runtime, seen: &mut Seen) {
        for _ in 0..2 + self.random.below(4) {
            self.disk.set_capacity(None);
            self.objects.set_full(false);
            if self.random.chance(60) {
                self.disk.cut_power_after(self.random.below(50));
            }
            if self.random.chance(10) {
                self.disk.fail_sync_after(self.random.below(20));
            }
            self.life(runtime, seen);
        }
        self.disk.set_capacity(None);
        self.objects.set_full(false);
        self.disk.crash();
        let store = self.try_open().unwrap_or_else(|e| panic!("seed {}: {e}", self.seed));
        runtime.block_on(async {
            self.check(&store, seen, true).await;
            self.append(&store, seen).await;
            self.flush(&store, seen).await;
            store.compact().await.unwrap_or_else(|e| panic!("seed {}: {e}", self.seed));
            self.check(&store, seen, false).await;
            let report = store.verify().await;
            assert!(report.is_ok(), "seed {}: {:?}", self.seed, report.problems);
        });
    }

    /// One process: open, check, work until something stops it.
    fn life(&mut self, runtime: &Runtime, seen: &mut Seen) {
        let store = match self.try_open() {
            Ok(store) => store,
            Err(error) => {
                assert!(!self.disk.has_power() || is_injected(&error), "seed {}: {error}", self.seed);
                seen.interrupted_opens += 1;
                self.disk.crash();
                return;
            }
        };
        seen.lives += 1;
        runtime.block_on(async {
            if self.disk.has_power() {
                self.check(&store, seen, true).await;
            }
            for _ in 0..self.random.below(20) {
                if !self.disk.has_power() {
                    break;
                }
                self.operation(&store, seen).await;
            }
        });
        if self.random.chance(70) {
            // Nothing that happens from here on reaches log or segments.
            self.disk.cut_power();
        }
        drop(store);
        if !self.disk.has_power() || self.random.chance(50) {
            self.disk.crash();
            seen.crashes += 1;
        }
    }

    async fn operation(&mut self, store: &Store, seen: &mut Seen) {
        match self.random.below(20) {
            0..=8 => self.append(store, seen).await,
            9 | 10 => self.append_many(store, seen).await,
            11 | 12 => self.send_again(store, seen).await,
            13 | 14 => self.flush(store, seen).await,
            15 => {
                let done = store.compact().await;
                seen.compactions += u64::from(done.is_ok());
                assert!(
                    done.is_ok() || !self.disk.has_power() || matches!(done, Err(StoreError::Full(_))),
                    "seed {}: {done:?}",
                    self.seed
                );
            }
            16 => {
                let room = self.random.below(4_000);
                self.disk.set_capacity(Some(self.disk.used() + room));
                self.objects.set_full(self.random.chance(50));
            }
            17 => {
                self.disk.set_capacity(None);
                self.objects.set_full(false);
            }
            18 => {
                // Also back, and not by a little.
                self.clock.fetch_add(self.random.below(2_000_000) as i64 - 1_000_000, Relaxed);
            }
            _ => self.check(store, seen, false).await,
        }
    }

    fn new_batch(&mut self) -> usize {
        let ids = self.next_id..self.next_id + 1 + self.random.below(6);
        self.next_id = ids.end;
        let tenant = self.random.below(TENANTS.len() as u64) as usize;
        let key = self.random.chance(50).then(|| BatchKey::from_header(&format!("batch {}", ids.start)));
        self.sent.push(Sent { batch: Batch { tenant, ids }, key, fate: Fate::Open });
        self.sent.len() - 1
    }

    async fn append(&mut self, store: &Store, seen: &mut Seen) {
        let at = self.new_batch();
        self.send(store, at, seen).await;
    }

    /// A batch whose append failed, or one that is stored and has a key.
    async fn send_again(&mut self, store: &Store, seen: &mut Seen) {
        let again: Vec<usize> = (0..self.sent.len())
            .filter(|at| {
                let sent = &self.sent[*at];
                sent.key.is_some() || sent.fate == Fate::Absent
            })
            .collect();
        if !again.is_empty() {
            let at = *self.random.pick(&again);
            seen.sent_again += 1;
            self.send(store, at, seen).await;
        }
    }

    async fn send(&mut self, store: &Store, at: usize, seen: &mut Seen) {
        let Sent { batch, key, .. } = &self.sent[at];
        let outcome = store.append(batch.build(store), *key).await;
        self.settle(at, &outcome, seen);
    }

    /// Several at once, some with the same key.
    async fn append_many(&mut self, store: &Store, seen: &mut Seen) {
        let mut sent: Vec<usize> = (0..=self.random.below(5)).map(|_| self.new_batch()).collect();
        for at in sent.clone() {
            if self.sent[at].key.is_some() && self.random.chance(50) {
                sent.push(at);
            }
        }
        let appends = sent.iter().map(|at| {
            let Sent { batch, key, .. } = &self.sent[*at];
            store.append(batch.build(store), *key)
        });
        let outcomes = futures::future::join_all(appends).await;
        for (at, outcome) in sent.into_iter().zip(&outcomes) {
            self.settle(at, outcome, seen);
        }
    }

    fn settle(&mut self, at: usize, outcome: &Result<Appended, StoreError>, seen: &mut Seen) {
        let seed = self.seed;
        let Sent { batch, key, fate } = &mut self.sent[at];
        match outcome {
            Ok(Appended::Stored { rows }) => {
                assert_eq!(*rows as u64, batch.ids.end - batch.ids.start, "seed {seed}");
                assert!(*fate != Fate::Stored, "seed {seed}: {batch:?} is stored twice");
                *fate = Fate::Stored;
                seen.stored += 1;
            }
            Ok(Appended::Duplicate) => {
                assert!(key.is_some(), "seed {seed}");
                assert!(
                    *fate == Fate::Stored,
                    "seed {seed}: {batch:?} is told to be a duplicate and is {fate:?}"
                );
                seen.duplicates += 1;
            }
            Err(error) => {
                seen.failed += 1;
                match error {
                    StoreError::Full(_) => seen.full += 1,
                    StoreError::Poisoned(_) => seen.poisoned += 1,
                    _ => assert!(!self.disk.has_power(), "seed {seed}: {error}"),
                }
                if *fate == Fate::Absent {
                    *fate = Fate::Open;
                }
            }
        }
    }

    async fn flush(&mut self, store: &Store, seen: &mut Seen) {
        let done = store.flush().await;
        seen.flushes += u64::from(done.is_ok());
        let excused = !self.disk.has_power() || store.status().poisoned.is_some();
        assert!(
            done.is_ok() || excused || matches!(done, Err(StoreError::Full(_))),
            "seed {}: {done:?}",
            self.seed
        );
    }

    /// Scans everything; `opened` when this is the first look after a restart.
    async fn check(&mut self, store: &Store, seen: &mut Seen, opened: bool) {
        let seed = self.seed;
        if opened && !self.disk.has_power() {
            return;
        }
        let found = scan(store).await;
        if !self.disk.has_power() {
            return;
        }
        let found = found.unwrap_or_else(|e| panic!("seed {seed}: {e}"));
        let status = store.status();
        if !self.disk.has_power() {
            return;
        }
        assert_eq!(status.quarantined, [], "seed {seed}: a crash is no damage");
        assert_eq!(found.partial, Vec::<String>::new(), "seed {seed}: a crash is no damage");
        assert!(!format!("{:?}", status.background_error).contains("BUG"), "seed {seed}: {status:?}");
        let mut left: BTreeMap<u64, u32> = found.counts;
        for Sent { batch, fate, .. } in &mut self.sent {
            let counts: Vec<u32> = batch.ids.clone().map(|id| left.remove(&id).unwrap_or(0)).collect();
            let there = counts.iter().all(|count| *count == 1);
            let gone = counts.iter().all(|count| *count == 0);
            assert!(there || gone, "seed {seed}: {batch:?} ({fate:?}) is there {counts:?} times");
            match fate {
                Fate::Stored => assert!(there, "seed {seed}: {batch:?} is lost"),
                Fate::Absent => assert!(gone, "seed {seed}: {batch:?} came back from nowhere"),
                Fate::Open if opened => {
                    seen.failed_but_stored += u64::from(there);
                    *fate = if there { Fate::Stored } else { Fate::Absent };
                }
                Fate::Open => assert!(gone, "seed {seed}: {batch:?} was refused and is visible"),
            }
        }
        assert!(left.is_empty(), "seed {seed}: {left:?} were never sent");
        assert_eq!(status.rows, found_rows(&self.sent), "seed {seed}");
    }
}

fn found_rows(sent: &[Sent]) -> u64 {
    let stored = sent.iter().filter(|sent| sent.fate == Fate::Stored);
    stored.map(|sent| sent.batch.ids.end - sent.batch.ids.start).sum()
}

fn is_injected(error: &StoreError) -> bool {
    error.to_string().contains("injected")
}

/// Scenario: a thousand schedules with power cuts in the middle of any operation of log and segments,
/// also while opening, with failed syncs, full disks, concurrent and repeated batches, a jumping clock.
/// Guarantee: every acknowledged record is found exactly once after every restart and in between; a
/// batch is there as a whole or not at all; one with a key is never stored twice, and never called a
/// duplicate when it is not there; nothing refused is seen, nothing comes back from nowhere.
#[test]
fn acknowledged_records_survive_every_schedule_once() {
    let schedules = std::env::var("TRINE_SIM_SCHEDULES").map_or(SCHEDULES, |text| text.parse().unwrap());
    let start = std::env::var("TRINE_SIM_SEED").map_or(0, |text| text.parse().unwrap());
    // They mostly wait for the store's threads.
    let seen: Vec<Seen> = std::thread::scope(|scope| {
        let work = |thread: u64| {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            let mut seen = Seen::default();
            for seed in (start..start + schedules).filter(|seed| seed % THREADS == thread) {
                Schedule::new(seed).run(&runtime, &mut seen);
            }
            seen
        };
        let threads: Vec<_> = (0..THREADS).map(|thread| scope.spawn(move || work(thread))).collect();
        threads
            .into_iter()
            .map(|thread| thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
            .collect()
    });
    let seen = seen.iter().fold(Seen::default(), Seen::and);
    println!("{schedules} schedules: {seen:?}");
    if schedules >= 500 {
        let Seen { stored, duplicates, failed, failed_but_stored, sent_again, full, poisoned, .. } = seen;
        let Seen { flushes, compactions, interrupted_opens, crashes, .. } = seen;
        let counts =
            [stored, duplicates, failed, failed_but_stored, sent_again, full, poisoned, flushes, compactions];
        assert!(counts.into_iter().chain([interrupted_opens, crashes]).all(|count| count >= 20), "{seen:?}");
    }
}
