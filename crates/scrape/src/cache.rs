//! What one target's series became, so that the next scrape finds them by their text; and which of them were
//! there at the last scrape, so that those that vanish are ended.
//!
//! A series that stands where it stood at the last scrape is found by comparing its text with that of the
//! entry that followed last time; others by a hash of their text. An entry that is missing in a scrape that
//! went well is forgotten, so the cache is as large as one body.

use std::{collections::HashMap, hash::BuildHasher as _};

use hashbrown::{DefaultHashBuilder, HashSet, HashTable};
use trine_schema::{Metadata, StreamRef, metrics::STALE_NAN};

/// Stands for a series that relabelling dropped.
pub(crate) const DROPPED: StreamRef = StreamRef::MAX;

/// No entry.
const NONE: u32 = u32::MAX;

#[derive(Debug)]
pub(crate) struct Entry {
    /// Empty when the entry is free.
    text: Box<[u8]>,
    hash: u64,
    pub(crate) series: StreamRef,
    /// Whether its samples are native histograms.
    pub(crate) histogram: bool,
    /// The last scrape it was in.
    seen: u64,
    /// The last scrape it was in with a sample whose absence means that it ended; 0 for none.
    tracked: u64,
    /// What `tracked` was before.
    tracked_before: u64,
    /// The entry behind it in the last body.
    next: u32,
    /// Hash of its last exemplar, which targets repeat until there is a new one.
    pub(crate) exemplar: u64,
}

/// Metadata of a family.
#[derive(Debug, Default)]
pub(crate) struct Family {
    pub(crate) metadata: Metadata,
    /// The last scrape it was in.
    seen: u64,
    /// Whether it was written as it is.
    pub(crate) written: bool,
}

/// A series that can be ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Live {
    pub(crate) series: StreamRef,
    pub(crate) histogram: bool,
}

impl Live {
    /// The value that ends it.
    pub(crate) fn stale() -> f64 {
        f64::from_bits(STALE_NAN)
    }
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Cache {
    entries: Vec<Entry>,
    free: Vec<u32>,
    table: HashTable<u32>,
    /// Series with one of their entries, and those that several entries have, with the last scrape they were
    /// in: relabelling made them one, or the target spells one in two ways.
    series: HashMap<StreamRef, u32>,
    shared: HashMap<StreamRef, u64>,
    hasher: DefaultHashBuilder,
    /// Number of the scrape under way, from 1.
    pub(crate) scrape: u64,
    /// The last scrape that went well, 0 when the last one did not.
    last: u64,
    /// Entries tracked in `last`, and those of them tracked in `scrape` too.
    tracked_last: usize,
    tracked_now: usize,
    retracked: usize,
    seen_now: usize,
    /// Entries at the end of the last scrape that went well.
    size: usize,
    /// The first entry of a body, and the one just found.
    first: u32,
    at: u32,
    /// Series of a loop before this one, to be ended unless the first scrape has them.
    inherited: Vec<Live>,
    families: HashMap<Box<str>, Family>,
    /// Grows with every change of metadata.
    version: u64,
}

/// How many scrapes metadata outlives its family.
const METADATA_SCRAPES: u64 = 10;

impl Default for Cache {
    fn default() -> Self {
        Self::inheriting(Vec::new())
    }
}

impl Cache {
    /// An empty cache that ends these series at its first scrape, those it finds then aside.
    pub(crate) fn inheriting(inherited: Vec<Live>) -> Self {
        Self {
            entries: Vec::new(),
            free: Vec::new(),
            table: HashTable::new(),
            series: HashMap::new(),
            shared: HashMap::new(),
            hasher: DefaultHashBuilder::default(),
            scrape: 0,
            last: 0,
            tracked_last: 0,
            tracked_now: 0,
            retracked: 0,
            seen_now: 0,
            size: 0,
            first: NONE,
            at: NONE,
            inherited,
            families: HashMap::new(),
            version: 1,
        }
    }

    /// Begins a scrape.
    pub(crate) fn begin(&mut self) {
        self.scrape += 1;
        (self.tracked_now, self.retracked, self.seen_now) = (0, 0, 0);
        self.at = NONE;
    }

    /// The text that stood next in the last body, and its entry.
    #[inline]
    pub(crate) fn next(&self) -> Option<(u32, &[u8])> {
        let next = if self.at == NONE { self.first } else { self.entries[self.at as usize].next };
        let entry = self.entries.get(next as usize)?;
        (!entry.text.is_empty()).then_some((next, &*entry.text))
    }

    /// The entry of a text.
    pub(crate) fn find(&self, text: &[u8]) -> Option<u32> {
        if let Some((next, expected)) = self.next()
            && expected == text
        {
            return Some(next);
        }
        let hash = self.hasher.hash_one(text);
        self.table.find(hash, |entry| &*self.entries[*entry as usize].text == text).copied()
    }

    /// Remembers a text that has no entry.
    pub(crate) fn insert(&mut self, text: &[u8], series: StreamRef, histogram: bool) -> u32 {
        let hash = self.hasher.hash_one(text);
        let entry = Entry {
            text: text.into(),
            hash,
            series,
            histogram,
            seen: 0,
            tracked: 0,
            tracked_before: 0,
            next: NONE,
            exemplar: 0,
        };
        let at = if let Some(at) = self.free.pop() {
            self.entries[at as usize] = entry;
            at
        } else {
            self.entries.push(entry);
            self.entries.len() as u32 - 1
        };
        self.table.insert_unique(hash, at, |at| self.entries[*at as usize].hash);
        self.take_up(series, at);
        at
    }

    fn take_up(&mut self, series: StreamRef, at: u32) {
        if series == DROPPED {
            return;
        }
        if let Some(other) = self.series.insert(series, at)
            && !self.shared.contains_key(&series)
        {
            self.shared.insert(series, self.entries[other as usize].seen);
        }
    }

    /// Whether another entry had this series in this scrape.
    #[inline]
    pub(crate) fn repeats(&mut self, series: StreamRef) -> bool {
        if self.shared.is_empty() {
            return false;
        }
        let Some(last) = self.shared.get_mut(&series) else { return false };
        std::mem::replace(last, self.scrape) == self.scrape
    }

    /// Notes that the body has this entry now; whether it had it before in this scrape.
    #[inline]
    pub(crate) fn see(&mut self, at: u32) -> bool {
        if self.at == NONE {
            self.first = at;
        } else {
            self.entries[self.at as usize].next = at;
        }
        self.at = at;
        let entry = &mut self.entries[at as usize];
        let again = entry.seen == self.scrape;
        entry.seen = self.scrape;
        self.seen_now += usize::from(!again);
        again
    }

    pub(crate) fn entry(&mut self, at: u32) -> &mut Entry {
        &mut self.entries[at as usize]
    }

    /// The entry's absence in the next scrape will mean that its series ended.
    #[inline]
    pub(crate) fn track(&mut self, at: u32) {
        let entry = &mut self.entries[at as usize];
        if entry.tracked != self.scrape {
            self.retracked += usize::from(self.last != 0 && entry.tracked == self.last);
            self.tracked_now += 1;
            entry.tracked_before = std::mem::replace(&mut entry.tracked, self.scrape);
        }
    }

    /// The scrape went well: what ended is given to `ended`, what is gone is forgotten.
    pub(crate) fn commit(&mut self, mut ended: impl FnMut(Live)) {
        if self.retracked < self.tracked_last || !self.inherited.is_empty() {
            let now: HashSet<StreamRef> = self
                .entries
                .iter()
                .filter(|entry| entry.tracked == self.scrape)
                .map(|entry| entry.series)
                .collect();
            let mut told = HashSet::new();
            let gone = self.entries.iter().filter(|entry| self.last != 0 && entry.tracked == self.last);
            let gone = gone.map(|entry| Live { series: entry.series, histogram: entry.histogram });
            for live in gone.chain(self.inherited.drain(..)) {
                if !now.contains(&live.series) && told.insert(live.series) {
                    ended(live);
                }
            }
        }
        if self.seen_now < self.table.len() {
            self.forget();
        }
        let families = self.families.len();
        self.families.retain(|_, family| self.scrape - family.seen <= METADATA_SCRAPES);
        self.version += u64::from(self.families.len() != families);
        self.size = self.table.len() + self.families.len();
        (self.last, self.tracked_last) = (self.scrape, self.tracked_now);
    }

    /// The scrape failed: everything that lived ended.
    pub(crate) fn fail(&mut self, mut ended: impl FnMut(Live)) {
        self.live().into_iter().for_each(&mut ended);
        self.inherited.clear();
        (self.last, self.tracked_last) = (0, 0);
        // Bodies that vary and fail must not fill the memory.
        if self.table.len() + self.families.len() > 2 * self.size + 1000 {
            self.forget();
            self.families.retain(|_, family| family.seen == self.scrape);
        }
    }

    /// Series that are not ended: of the last scrape that went well, and inherited ones.
    pub(crate) fn live(&self) -> Vec<Live> {
        let mut told = HashSet::new();
        // A scrape that fails may have tracked some of them again.
        let lived = |entry: &&Entry| {
            let before = if entry.tracked > self.last { entry.tracked_before } else { entry.tracked };
            self.last != 0 && before == self.last
        };
        let own = self.entries.iter().filter(lived);
        let own = own.map(|entry| Live { series: entry.series, histogram: entry.histogram });
        own.chain(self.inherited.iter().copied()).filter(|live| told.insert(live.series)).collect()
    }

    fn forget(&mut self) {
        for (at, entry) in self.entries.iter_mut().enumerate() {
            if entry.seen == self.scrape || entry.text.is_empty() {
                continue;
            }
            let at = at as u32;
            if let Ok(found) = self.table.find_entry(entry.hash, |other| *other == at) {
                found.remove();
            }
            (entry.text, entry.tracked) = (Box::default(), 0);
            self.free.push(at);
        }
        self.series.clear();
        self.shared.clear();
        for at in 0..self.entries.len() {
            if !self.entries[at].text.is_empty() {
                self.take_up(self.entries[at].series, at as u32);
            }
        }
    }

    /// Changes the metadata of a family.
    pub(crate) fn family(&mut self, name: &str, change: impl FnOnce(&mut Metadata) -> bool) {
        let scrape = self.scrape;
        if !self.families.contains_key(name) {
            let metadata = Metadata { kind: "unknown".into(), ..Metadata::default() };
            self.families.insert(name.into(), Family { metadata, seen: scrape, written: false });
            self.version += 1;
        }
        if let Some(family) = self.families.get_mut(name) {
            family.seen = scrape;
            if change(&mut family.metadata) {
                family.written = false;
                self.version += 1;
            }
        }
    }

    /// See the field.
    pub(crate) fn version(&self) -> u64 {
        self.version
    }

    /// Families by name, to be shown.
    pub(crate) fn metadata(&self) -> Vec<(Box<str>, Metadata)> {
        let mut list: Vec<_> =
            self.families.iter().map(|(name, family)| (name.clone(), family.metadata.clone())).collect();
        list.sort();
        list
    }

    /// Metadata that was written is not stored: it is written again.
    pub(crate) fn unwrite(&mut self) {
        self.families.values_mut().for_each(|family| family.written = false);
    }

    /// Families of the target.
    pub(crate) fn families(&mut self) -> impl Iterator<Item = (&str, &mut Family)> {
        self.families.iter_mut().map(|(name, family)| (&**name, family))
    }
}
