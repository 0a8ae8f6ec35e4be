//! Groups of blocks, decoded for the series that were asked for.
//!
//! A group is decoded once for all of them and let go when each was loaded; an answer is in the order of the
//! file, so few groups are held at a time. Should they be too many together, the oldest go, and their series
//! are from then on decoded one by one.

use std::{
    collections::VecDeque,
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

/// Bytes of decoded groups that are held for one question.
const GROUPS_BYTES: usize = 64 << 20;
/// Numbers of one group at most; a writer puts fewer into one.
const MAX_VALUES: usize = 1 << 23;

/// Source, block, group.
pub(super) type GroupKey = (u32, u32, u32);

/// Decoded groups.
#[derive(Default)]
pub(super) struct Groups(Mutex<HeldGroups>);

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
    pub runs: Vec<Run>,
    pub values: Vec<f64>,
    pub layouts: Vec<Box<[u8]>>,
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
    pub values: Range<usize>,
}

/// The groups that may hold a series.
pub(super) fn groups_of(outline: &Outline, local: u32) -> Range<usize> {
    let groups = outline.groups();
    let from = groups.partition_point(|group| *group.series.end() < local);
    let count = groups[from..].iter().take_while(|group| *group.series.start() <= local).count();
    from..from + count
}

impl Groups {
    fn hold(&self, key: GroupKey, decoded: Arc<Decoded>) -> Arc<Decoded> {
        let mut held = self.0.lock();
        // Another thread may have been as quick.
        if let Some(known) = held.decoded.get(&key) {
            return known.clone();
        }
        held.bytes += decoded.bytes();
        held.decoded.insert(key, decoded.clone());
        held.order.push_back(key);
        while held.bytes > GROUPS_BYTES && held.decoded.len() > 1 {
            let Some(oldest) = held.order.pop_front() else { break };
            if let Some(gone) = held.decoded.remove(&oldest) {
                held.bytes -= gone.bytes();
                held.gone.insert(oldest);
            }
        }
        decoded
    }

    /// A series of the group was loaded; after the last one it is let go.
    pub(super) fn used(&self, key: GroupKey, decoded: &Decoded) {
        if decoded.left.fetch_sub(1, Relaxed) == 1 {
            let mut held = self.0.lock();
            if let Some(gone) = held.decoded.remove(&key) {
                held.bytes -= gone.bytes();
                if let Some(at) = held.order.iter().position(|other| *other == key) {
                    held.order.remove(at);
                }
            }
        }
    }
}

impl Decoded {
    fn bytes(&self) -> usize {
        self.values.capacity() * 8 + self.runs.len() * size_of::<Run>() + 256
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
            let held = self.groups.0.lock();
            if let Some(decoded) = held.decoded.get(&key) {
                return Ok(decoded.clone());
            }
            held.gone.contains(&key)
        };
        let decoded = Arc::new(self.decode(key, source, outline, alone.then_some(local))?);
        Ok(if alone { decoded } else { self.groups.hold(key, decoded) })
    }

    fn decode(
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
            values: Vec::with_capacity(values),
            layouts: Vec::new(),
            left: left.into(),
        };
        for Wanted { entry, times, samples } in wanted.into_iter().filter(|wanted| !wanted.samples.is_empty())
        {
            let first = decoded.values.len();
            let layout = open.layout(entry);
            let known = decoded.layouts.iter().rposition(|known| **known == *layout);
            let layout = known.unwrap_or_else(|| {
                decoded.layouts.push(layout.into());
                decoded.layouts.len() - 1
            });
            open.values(entry, samples.clone(), &mut decoded.values).map_err(damage)?;
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
                values: first..decoded.values.len(),
            });
        }
        Ok(decoded)
    }
}
