//! Random schedules of appends, truncations, faults, dying processes and power cuts.

use std::collections::{BTreeMap, HashMap};

use trine_testing::{Random, SimDisk};
use trine_wal::{Wal, WalConfig, WalError};

use crate::{append, open, small_files};

/// Schedules per run of the test; each is a few opens with some operations each.
const SCHEDULES: u64 = 2000;

/// What the log must still know.
#[derive(Default)]
struct Model {
    /// Acknowledged, or handed over by a replay.
    durable: BTreeMap<u64, Vec<u8>>,
    /// Groups that were tried from a sequence on, and may be there or not.
    tried: HashMap<u64, Vec<Vec<Vec<u8>>>>,
    truncated_before: u64,
}

/// What happened over all schedules, to see that the test tests something.
#[derive(Default, Debug)]
struct Seen {
    acknowledged: u64,
    unacknowledged_replayed: u64,
    torn: u64,
    full: u64,
    poisoned: u64,
    interrupted_opens: u64,
    come_back: u64,
    truncations: u64,
}

struct Schedule {
    seed: u64,
    random: Random,
    disk: SimDisk,
    model: Model,
    /// Whether the user knows after a crash what is needed, as the store does from its catalog.
    knows_needed: bool,
}

impl Schedule {
    fn new(seed: u64) -> Self {
        let mut random = Random::new(seed);
        let disk = SimDisk::new(random.number());
        let knows_needed = random.chance(50);
        Self { seed, random, disk, model: Model { truncated_before: 1, ..Model::default() }, knows_needed }
    }

    fn run(&mut self, seen: &mut Seen) {
        for _ in 0..2 + self.random.below(5) {
            self.disk.set_capacity(None);
            self.disk.set_short_writes(*self.random.pick(&[0, 0, 50]));
            if self.random.chance(60) {
                self.disk.cut_power_after(self.random.below(60));
            }
            if self.random.chance(15) {
                self.disk.fail_sync_after(self.random.below(20));
            }
            self.life(seen);
            if self.random.chance(75) {
                self.disk.crash();
            }
        }
        // A last look with nothing in the way.
        self.disk.set_capacity(None);
        self.disk.crash();
        let mut wal = self.open(seen).expect("nothing keeps the log from opening");
        self.append(&mut wal, seen);
        assert_eq!(wal.poisoned(), None);
    }

    /// One process: open, check, work until something stops it.
    fn life(&mut self, seen: &mut Seen) {
        let Some(mut wal) = self.open(seen) else {
            seen.interrupted_opens += 1;
            return;
        };
        for _ in 0..self.random.below(25) {
            match self.random.below(10) {
                0 => {
                    let sequence = self.random.below(wal.next_sequence() + 1);
                    let before = wal.first_sequence();
                    // What is needed is decided (and durable elsewhere) before the log is cut.
                    self.model.truncated_before = self.model.truncated_before.max(sequence);
                    if wal.truncate_before(sequence).is_ok() {
                        seen.truncations += u64::from(wal.first_sequence() > before);
                    }
                }
                1 => {
                    let room = self.random.below(10_000);
                    self.disk.set_capacity(Some(self.disk.used() + room));
                }
                2 => self.disk.set_capacity(None),
                3 => wal.seal(),
                _ => self.append(&mut wal, seen),
            }
        }
    }

    fn open(&mut self, seen: &mut Seen) -> Option<Wal> {
        let seed = self.seed;
        let first_needed = if self.knows_needed { self.model.truncated_before } else { 1 };
        let (wal, mut replay) = open(&self.disk, WalConfig { first_needed, ..small_files() }).ok()?;
        let recovery = replay.recovery().clone();
        assert_eq!(recovery.corruptions, [], "seed {seed}: a crash is no damage");
        let mut replayed = BTreeMap::new();
        let mut before = None;
        for entry in &mut replay {
            // Only the power can stop a replay.
            let entry = entry.ok()?;
            assert!(
                before.is_none_or(|before| before + 1 == entry.sequence),
                "seed {seed}: in order, without gaps"
            );
            assert!(!self.knows_needed || entry.sequence >= first_needed, "seed {seed}: not needed");
            before = Some(entry.sequence);
            replayed.insert(entry.sequence, entry.payload);
        }
        seen.torn += u64::from(recovery.torn.is_some());
        assert_eq!(recovery.entries, replayed.len() as u64, "seed {seed}");
        let model = &mut self.model;
        for (sequence, payload) in model.durable.range(model.truncated_before..) {
            assert_eq!(replayed.get(sequence), Some(payload), "seed {seed}: entry {sequence}");
        }
        let last = model.durable.keys().next_back().copied().unwrap_or(0);
        let unacknowledged = replayed.split_off(&(last + 1));
        for (sequence, payload) in replayed {
            assert_eq!(model.durable.get(&sequence), Some(&payload), "seed {seed}: entry {sequence}");
            seen.come_back += u64::from(sequence < model.truncated_before);
        }
        if let Some((first, _)) = unacknowledged.first_key_value() {
            let found: Vec<&Vec<u8>> = unacknowledged.values().collect();
            let groups = model.tried.get(first).map_or(&[][..], Vec::as_slice);
            let one = groups.iter().any(|group| group.iter().take(found.len()).eq(found.iter().copied()));
            assert!(
                one,
                "seed {seed}: entries from {first} on are no beginning of a group that was appended"
            );
            seen.unacknowledged_replayed += found.len() as u64;
            // Whoever reads it may rely on it from now on.
            model.durable.extend(unacknowledged);
        }
        let last = model.durable.keys().next_back().copied().unwrap_or(0);
        let next = wal.next_sequence();
        assert!(next > last, "seed {seed}: sequence {next} is given out again");
        assert_eq!(next, (last + 1).max(first_needed), "seed {seed}: a sequence was passed over");
        Some(wal)
    }

    fn append(&mut self, wal: &mut Wal, seen: &mut Seen) {
        let seed = self.seed;
        let random = &mut self.random;
        let sizes: &[u64] = &[1, 30, 300, 2_000, 6_000];
        let most = *random.pick(sizes);
        let payloads: Vec<Vec<u8>> = (0..=random.below(5))
            .map(|_| {
                let len = random.below(most);
                random.bytes(len as usize)
            })
            .collect();
        let first = wal.next_sequence();
        let was_poisoned = wal.poisoned().is_some();
        match append(wal, &payloads) {
            Ok(sequences) => {
                assert!(!was_poisoned, "seed {seed}: a poisoned log took an entry");
                assert_eq!(sequences, first..=first + payloads.len() as u64 - 1, "seed {seed}");
                assert_eq!(wal.next_sequence(), sequences.end() + 1, "seed {seed}");
                seen.acknowledged += payloads.len() as u64;
                for (sequence, payload) in sequences.zip(payloads) {
                    assert!(self.model.durable.insert(sequence, payload).is_none(), "seed {seed}");
                }
            }
            Err(error) => {
                assert_eq!(wal.next_sequence(), first, "seed {seed}: a failed group used up sequences");
                match error {
                    // Must not be found later.
                    WalError::Full { .. } => {
                        assert!(wal.poisoned().is_none(), "seed {seed}");
                        seen.full += 1;
                        return;
                    }
                    WalError::Poisoned { .. } => seen.poisoned += u64::from(!was_poisoned),
                    // Creating a file without power.
                    WalError::Io { .. } => {}
                    other => panic!("seed {seed}: {other}"),
                }
                self.model.tried.entry(first).or_default().push(payloads);
            }
        }
    }
}

/// Scenario: thousands of schedules with power cuts in the middle of any operation, also of opening
/// and truncating, dying processes, failed syncs, full disks and short writes.
/// Guarantee: every acknowledged entry is replayed once, in order and unchanged; what was handed over
/// once stays; unacknowledged entries come only as a beginning of one group, never after `Full`; no
/// false alarm.
#[test]
fn acknowledged_entries_survive_every_schedule() {
    let mut seen = Seen::default();
    let schedules = std::env::var("TRINE_SIM_SCHEDULES").map_or(SCHEDULES, |text| text.parse().unwrap());
    let start = std::env::var("TRINE_SIM_SEED").map_or(0, |text| text.parse().unwrap());
    for seed in start..start + schedules {
        Schedule::new(seed).run(&mut seen);
    }
    println!("{schedules} schedules: {seen:?}");
    if schedules >= 1000 {
        let Seen { acknowledged, unacknowledged_replayed, torn, full, poisoned, .. } = seen;
        let Seen { interrupted_opens, come_back, truncations, .. } = seen;
        for count in
            [acknowledged, unacknowledged_replayed, torn, full, poisoned, interrupted_opens, truncations]
        {
            assert!(count > 100, "the schedules miss a case: {seen:?}");
        }
        assert!(come_back > 10, "the schedules miss a case: {seen:?}");
    }
}
