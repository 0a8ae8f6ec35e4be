//! Groups of blocks, decoded for the series that were asked for.
//!
//! A group is decoded once for all of them and let go when each was loaded; an answer is in the order of the
//! file, so few groups are held at a time. Should they be too many together, the oldest go, and their series
//! are from then on decoded one by one.

use std::{
    collections::VecDeque,
    mem::take,
    ops::Range,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
};

use hashbrown::{HashMap, HashSet};
use parking_lot::Mutex;
use trine_chunks::{ChunkError, Outline, Stretch};

use super::{
    load::{Selection, Source},
    times::TimesKey,
};
use crate::SegmentError;

/// Bytes of decoded groups that are held for one question, if it is about few blocks; …
const LEAST_BYTES: usize = 64 << 20;
/// … for each block, so that a group of each is held while all are read side by side; …
const BLOCK_BYTES: usize = 3 << 19;
/// … and at most.
const MOST_BYTES: usize = 256 << 20;
/// Numbers of one group at most; a writer puts fewer into one.
const MAX_VALUES: usize = 1 << 23;

/// Source, block, group.
pub(super) type GroupKey = (u32, u32, u32);

/// Decoded groups.
pub(super) struct Groups {
    most_bytes: usize,
    held: Mutex<HeldGroups>,
}

#[derive(Default)]
struct HeldGroups {
    decoded: HashMap<GroupKey, Arc<Decoded>>,
    /// As they came.
    order: VecDeque<GroupKey>,
    bytes: usize,
    /// Groups that had to go before all of their series were loaded.
    gone: HashSet<GroupKey>,
}

/// The runs of a group that were asked for.
pub(super) struct Decoded {
    runs: Vec<Run>,
    pub layouts: Vec<Box<[u8]>>,
    bytes: usize,
    /// Series that are still to be loaded.
    left: AtomicUsize,
}

/// An entry of a group that was asked for.
struct Wanted {
    entry: usize,
    times: Stretch,
    /// Those in the range.
    samples: Range<usize>,
}

/// Samples of one series within the range.
pub(super) struct Run {
    /// Number in the block.
    pub series: u32,
    pub times: TimesKey,
    pub layout: u32,
    pub columns: u32,
    /// One column behind the other. Who loads the series takes them away, so that they are not copied.
    values: Mutex<Vec<f64>>,
}

impl Run {
    /// Hands the values out; a second time there are none.
    pub(super) fn take_values(&self) -> Option<Vec<f64>> {
        Some(take(&mut *self.values.lock())).filter(|values| !values.is_empty())
    }
}

/// The groups that may hold a series.
pub(super) fn groups_of(outline: &Outline, local: u32) -> Range<usize> {
    let groups = outline.groups();
    let from = groups.partition_point(|group| *group.series.end() < local);
    let count = groups[from..].iter().take_while(|group| *group.series.start() <= local).count();
    from..from + count
}

impl Groups {
    /// Holds groups of so many blocks.
    pub(super) fn of_blocks(blocks: usize) -> Self {
        Self::with_room((blocks * BLOCK_BYTES).clamp(LEAST_BYTES, MOST_BYTES))
    }

    fn with_room(most_bytes: usize) -> Self {
        Self { most_bytes, held: Mutex::default() }
    }

    fn hold(&self, key: GroupKey, decoded: Arc<Decoded>) -> Arc<Decoded> {
        let mut held = self.held.lock();
        // Another thread may have been as quick.
        if let Some(known) = held.decoded.get(&key) {
            return known.clone();
        }
        held.bytes += decoded.bytes;
        held.decoded.insert(key, decoded.clone());
        held.order.push_back(key);
        while held.bytes > self.most_bytes && held.decoded.len() > 1 {
            let Some(oldest) = held.order.pop_front() else { break };
            if let Some(gone) = held.decoded.remove(&oldest) {
                held.bytes -= gone.bytes;
                held.gone.insert(oldest);
            }
        }
        decoded
    }

    /// A series of the group was loaded; after the last one it is let go.
    pub(super) fn used(&self, key: GroupKey, decoded: &Decoded) {
        if decoded.left.fetch_sub(1, Relaxed) == 1 {
            let mut held = self.held.lock();
            if let Some(gone) = held.decoded.remove(&key) {
                held.bytes -= gone.bytes;
                if let Some(at) = held.order.iter().position(|other| *other == key) {
                    held.order.remove(at);
                }
            }
        }
    }
}

impl Decoded {
    /// The runs of a series.
    pub(super) fn runs_of(&self, local: u32) -> &[Run] {
        let from = self.runs.partition_point(|run| run.series < local);
        let count = self.runs[from..].iter().take_while(|run| run.series == local).count();
        &self.runs[from..from + count]
    }
}

impl Selection {
    /// A group, decoded for all who want it or, if it went before, for one series alone.
    pub(super) fn group(
        &self,
        key: GroupKey,
        source: &Source,
        outline: &Outline,
        local: u32,
    ) -> Result<Arc<Decoded>, SegmentError> {
        let alone = {
            let held = self.groups.held.lock();
            if let Some(decoded) = held.decoded.get(&key) {
                return Ok(decoded.clone());
            }
            held.gone.contains(&key)
        };
        let decoded = Arc::new(self.decode(key, source, outline, alone.then_some(local))?);
        Ok(if alone { decoded } else { self.groups.hold(key, decoded) })
    }

    /// Decodes a group, or what it has of one series.
    pub(super) fn decode(
        &self,
        (number, block, group): GroupKey,
        source: &Source,
        outline: &Outline,
        alone: Option<u32>,
    ) -> Result<Decoded, SegmentError> {
        let place = &source.index.blocks[block as usize].place;
        let damage = |error| source.segment.damage(place.offset, error);
        let bytes = source.segment.read(place.offset, outline.group_bytes(group as usize))?;
        let mut open = outline.group(group as usize, &bytes).map_err(damage)?;
        let mut wanted: Vec<Wanted> = Vec::new();
        // Series ascend in the group as in what was asked for.
        let first = (open.entries() > 0).then(|| place.in_file(open.series(0))).flatten().unwrap_or(0);
        let mut asked = source.series.partition_point(|series| *series < first);
        let (mut series, mut left) = (None, 0);
        for entry in 0..open.entries() {
            let local = open.series(entry);
            let is_asked = alone.map_or_else(
                || {
                    let file = place.in_file(local)?;
                    while source.series.get(asked).is_some_and(|series| *series < file) {
                        asked += 1;
                    }
                    (source.series.get(asked) == Some(&file)).then_some(())
                },
                |alone| (local == alone).then_some(()),
            );
            if is_asked.is_some() {
                wanted.push(Wanted { entry, times: open.times(entry), samples: 0..0 });
                left += usize::from(series != Some(local));
                series = Some(local);
            }
        }
        let mut columns: Vec<u32> = wanted.iter().map(|wanted| wanted.times.column).collect();
        columns.sort_unstable();
        columns.dedup();
        let times = self.columns((number, block), source, outline, &columns)?;
        let mut values = 0;
        for Wanted { entry, times: stretch, samples } in &mut wanted {
            let column = columns.binary_search(&stretch.column).unwrap_or_default();
            let start = stretch.start as usize;
            let Some(times) = times[column].times.get(start..start + stretch.len as usize) else {
                return Err(damage(ChunkError::Corrupt("a series has more samples than timestamps")));
            };
            let from = times.partition_point(|time| time < self.range.start());
            *samples = from..times.partition_point(|time| time <= self.range.end()).max(from);
            values += samples.len() * open.columns(*entry);
        }
        if values > MAX_VALUES {
            return Err(damage(ChunkError::Corrupt("a group is larger than a writer makes one")));
        }
        let mut decoded = Decoded {
            runs: Vec::with_capacity(wanted.len()),
            layouts: Vec::new(),
            bytes: values * 8 + wanted.len() * size_of::<Run>() + 256,
            left: left.into(),
        };
        for Wanted { entry, times, samples } in wanted.into_iter().filter(|wanted| !wanted.samples.is_empty())
        {
            let layout = open.layout(entry);
            let known = decoded.layouts.iter().rposition(|known| **known == *layout);
            let layout = known.unwrap_or_else(|| {
                decoded.layouts.push(layout.into());
                decoded.layouts.len() - 1
            });
            let mut values = Vec::with_capacity(samples.len() * open.columns(entry));
            open.values(entry, samples.clone(), &mut values).map_err(damage)?;
            decoded.runs.push(Run {
                series: open.series(entry),
                times: TimesKey {
                    source: number,
                    block,
                    column: times.column,
                    from: times.start + samples.start as u32,
                    to: times.start + samples.end as u32,
                },
                layout: layout as u32,
                columns: open.columns(entry) as u32,
                values: values.into(),
            });
        }
        Ok(decoded)
    }
}

#[cfg(test)]
mod tests {
    use object_store::{ObjectStore, ObjectStoreExt as _, memory::InMemory, path::Path};
    use trine_model::TenantId;
    use trine_schema::{Labels, MetricBatchBuilder, Samples, StreamRegistry};

    use super::*;
    use crate::{IndexCache, MetricSegment, WriteOptions, block_on, sort_samples, write_samples};

    #[test]
    fn series_of_groups_that_had_to_go_are_read_alone() {
        let (registry, tenant) = (StreamRegistry::new(), TenantId::default());
        let mut builder = MetricBatchBuilder::new(tenant.clone(), 0);
        for number in 0..1_000u32 {
            let labels = Labels::from_pairs(&[("__name__", "up"), ("number", &number.to_string())]);
            let stream = registry.intern(&tenant, labels).unwrap();
            (0..7).for_each(|time| builder.float(stream, time, f64::from(number) + time as f64, 0));
        }
        let mut bytes = Vec::new();
        let sorted = sort_samples(&[builder.finish().records], &registry).unwrap();
        let meta = write_samples(&mut bytes, &registry, sorted, &WriteOptions::default()).unwrap();
        let store: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
        let path = Path::from("segment");
        block_on(store.put(&path, bytes.into())).unwrap();
        let opened = block_on(MetricSegment::open(store, path, Some(&meta), &IndexCache::new(0)));
        let segment = opened.unwrap();
        let index = segment.load_once().unwrap();
        let series: Vec<u32> = (0..index.series).collect();
        let source = Source { segment, index, series: series.clone() };
        let mut selection = Selection::new(vec![source], 2..=5);
        selection.enter(series.len(), std::slice::from_ref(&series));
        let in_turns = |selection: &Selection| -> Vec<Samples> {
            let load = |number: u32| {
                let mut samples = Samples::default();
                assert!(selection.load(number as usize * 381 % 1_000, &mut samples).is_ok());
                samples
            };
            (0..1_000).map(load).collect()
        };
        let whole = in_turns(&selection);
        assert!(selection.groups.held.lock().gone.is_empty());
        assert!(selection.groups.held.lock().decoded.is_empty(), "all were loaded");
        selection.groups = Groups::with_room(1);
        assert_eq!(in_turns(&selection), whole);
        // All but the one that came last.
        assert_eq!(selection.groups.held.lock().gone.len(), 3);
        assert!(whole.iter().all(|samples| samples.timestamps.len() == 4));
    }
}
