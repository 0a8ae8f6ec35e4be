//! Timestamps, decoded once per column and shared by all series that were scraped together.

use std::sync::Arc;

use hashbrown::HashMap;
use trine_chunks::{ChunkError, Outline};

use super::load::{Selection, Source};
use crate::SegmentError;

/// Timestamps that are held for one question, 8 bytes each.
const HELD_TIMES: usize = 4 << 20;
/// In the place of a segment: rows in memory.
pub(super) const MEMORY: u32 = u32::MAX;

/// A stretch of a timestamp column.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct TimesKey {
    pub source: u32,
    pub block: u32,
    pub column: u32,
    pub from: u32,
    pub to: u32,
}

impl TimesKey {
    pub(super) fn len(&self) -> usize {
        (self.to - self.from) as usize
    }
}

/// Timestamps in milliseconds, shared by series.
#[derive(Default)]
pub(super) struct HeldTimes {
    /// By source, block, column.
    columns: HashMap<(u32, u32, u32), Times>,
    /// Stretches of columns, one after the other.
    joined: HashMap<Box<[TimesKey]>, Times>,
    held: usize,
}

/// Timestamps, and whether each is later than the one before.
#[derive(Clone, Default)]
pub(super) struct Times {
    pub times: Arc<Vec<i64>>,
    pub ascend: bool,
}

impl Times {
    pub(super) fn new(times: Vec<i64>) -> Self {
        Self { ascend: times.windows(2).all(|two| two[0] < two[1]), times: Arc::new(times) }
    }
}

impl HeldTimes {
    fn column(&self, key: &TimesKey) -> Option<&Times> {
        self.columns.get(&(key.source, key.block, key.column))
    }

    fn room(&mut self, times: usize) {
        self.held += times;
        if self.held > HELD_TIMES {
            self.columns.clear();
            self.joined.clear();
            self.held = times;
        }
    }
}

impl Selection {
    /// The timestamps of stretches, one after the other; `None` when one is not held any more.
    fn held_times(&self, keys: &[TimesKey]) -> Option<Times> {
        let mut times = self.times.lock();

        if let [key] = keys
            && key.source != MEMORY
        {
            let whole = times.column(key)?;
            if key.from == 0 && key.to as usize == whole.times.len() {
                return Some(whole.clone());
            }
        }
        if let Some(known) = times.joined.get(keys) {
            return Some(known.clone());
        }
        let mut all = Vec::with_capacity(keys.iter().map(TimesKey::len).sum());
        for key in keys {
            if key.source == MEMORY {
                all.extend_from_slice(
                    &self.memory.floats.times[self.memory.floats.series[key.column as usize].clone()],
                );
            } else {
                all.extend_from_slice(times.column(key)?.times.get(key.from as usize..key.to as usize)?);
            }
        }
        times.room(all.len());
        let all = Times::new(all);
        times.joined.insert(keys.into(), all.clone());
        Some(all)
    }

    /// The timestamps of stretches, decoded anew where they are not held any more.
    pub(super) fn times(&self, keys: &[TimesKey]) -> Result<Times, (u32, SegmentError)> {
        if let Some(times) = self.held_times(keys) {
            return Ok(times);
        }
        let mut all = Vec::new();
        for key in keys {
            if key.source == MEMORY {
                all.extend_from_slice(
                    &self.memory.floats.times[self.memory.floats.series[key.column as usize].clone()],
                );
                continue;
            }
            let source = &self.sources[key.source as usize];
            let read = || {
                let outline = source.segment.outline(&source.index, key.block as usize)?;
                let columns = self.columns((key.source, key.block), source, outline, &[key.column])?;
                let times = columns[0].times.get(key.from as usize..key.to as usize);
                let at = source.index.blocks[key.block as usize].place.offset;
                let short = || source.segment.file().corrupt(at, "a series has too few timestamps".into());
                times.map(<[i64]>::to_vec).ok_or_else(short)
            };
            all.extend(read().map_err(|error| (key.source, error))?);
        }
        Ok(Times::new(all))
    }

    /// Timestamp columns of a block, by ascending number.
    pub(super) fn columns(
        &self,
        (number, block): (u32, u32),
        source: &Source,
        outline: &Outline,
        columns: &[u32],
    ) -> Result<Vec<Times>, SegmentError> {
        let place = &source.index.blocks[block as usize].place;
        let damage = |error| source.segment.damage(place.offset, error);
        let mut found: Vec<Option<Times>> = {
            let held = self.times.lock();
            columns.iter().map(|column| held.columns.get(&(number, block, *column)).cloned()).collect()
        };
        let mut missing: Vec<u32> = columns
            .iter()
            .zip(&found)
            .filter(|(_, found)| found.is_none())
            .map(|(column, _)| *column)
            .collect();
        while let Some(first) = missing.first() {
            let Some(unit) = outline.times_place(*first) else {
                return Err(damage(ChunkError::Corrupt("a series has no timestamps")));
            };
            let of_unit = missing.partition_point(|column| *column < unit.columns.end);
            let rest = missing.split_off(of_unit);
            let bytes = source.segment.read(place.offset, unit.bytes.clone())?;
            let read = unit.read(&bytes, &missing).map_err(damage)?;
            let mut held = self.times.lock();
            held.room(read.iter().map(Vec::len).sum());
            for (column, times) in missing.iter().zip(read) {
                let times = Times::new(times);
                held.columns.insert((number, block, *column), times.clone());
                if let Ok(at) = columns.binary_search(column) {
                    found[at] = Some(times);
                }
            }
            missing = rest;
        }
        Ok(found.into_iter().flatten().collect())
    }
}
