//! Reading the samples of series that were found.
//!
//! A group of a block is decoded once for all of its series that were asked for, and let go when each was
//! loaded; an answer is in the order of the file, so few groups are held at a time. Should they be too many
//! together, the oldest go, and their series are from then on decoded one by one. Timestamps are decoded once
//! per column and shared by all series that were scraped together.

use std::{
    collections::VecDeque,
    ops::{Range, RangeInclusive},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
};

use hashbrown::{HashMap, HashSet};
use parking_lot::Mutex;
use trine_chunks::{ChunkError, Outline, Stretch};
use trine_schema::{NativeHistogram, Samples};

use super::{
    MetricSegment,
    histogram::{self, FLOATS_WITH_STARTS},
    index::MetricIndex,
    memory::MemoryRows,
    order::{in_order, rearrange},
    side::{FrameKind, OddRow},
};
use crate::SegmentError;

/// Bytes of decoded groups that are held for one question.
const GROUPS_BYTES: usize = 64 << 20;
/// Timestamps that are held for one question, 8 bytes each.
const HELD_TIMES: usize = 4 << 20;
/// Numbers of one group at most; a writer puts fewer into one.
const MAX_VALUES: usize = 1 << 23;
/// In the place of a segment: rows in memory.
const MEMORY: u32 = u32::MAX;

/// A segment that is read.
pub(super) struct Source {
    pub segment: Arc<MetricSegment>,
    pub index: Arc<MetricIndex>,
    /// Series that were asked for, ascending.
    pub series: Vec<u32>,
}

/// What becomes of a series when one of its segments is known to be damaged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Damage {
    /// It is read without the segment.
    LeavesOut,
    /// It is read as far as it goes.
    Fails,
}

/// A series in one of the sources.
#[derive(Debug, Clone, Copy)]
struct Part {
    source: u32,
    /// Its number in the file.
    series: u32,
}

/// What is read for one question.
pub(super) struct Selection {
    /// Oldest first.
    pub sources: Vec<Source>,
    /// Of all series, oldest first.
    parts: Vec<Part>,
    /// Where the parts of each series end.
    ends: Vec<u32>,
    pub memory: MemoryRows,
    /// Number in memory of each series; empty when no series is in memory.
    pub in_memory: Vec<Option<u32>>,
    /// Milliseconds.
    pub range: RangeInclusive<i64>,
    damage: Damage,
    groups: Groups,
    times: Mutex<HeldTimes>,
    odd: Mutex<Option<OddFrame>>,
}

/// Source and number of a frame, and its rows.
type OddFrame = ((u32, usize), Arc<Vec<OddRow>>);
/// Source, block, group.
type GroupKey = (u32, u32, u32);

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
struct Decoded {
    runs: Vec<Run>,
    values: Vec<f64>,
    layouts: Vec<Box<[u8]>>,
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
struct Run {
    /// Number in the block.
    series: u32,
    times: TimesKey,
    layout: u32,
    columns: u32,
    values: Range<usize>,
}

/// A stretch of a timestamp column.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct TimesKey {
    source: u32,
    block: u32,
    column: u32,
    from: u32,
    to: u32,
}

impl TimesKey {
    fn len(&self) -> usize {
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
struct Times {
    times: Arc<Vec<i64>>,
    ascend: bool,
}

impl Times {
    fn new(times: Vec<i64>) -> Self {
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

/// A failure, and the segment that it is about.
pub(super) struct Failure {
    pub source: Option<u32>,
    pub error: SegmentError,
}

impl Selection {
    /// Without any series yet.
    pub(super) fn new(sources: Vec<Source>, range: RangeInclusive<i64>, damage: Damage) -> Self {
        Self {
            sources,
            parts: Vec::new(),
            ends: Vec::new(),
            memory: MemoryRows::default(),
            in_memory: Vec::new(),
            range,
            damage,
            groups: Groups::default(),
            times: Mutex::default(),
            odd: Mutex::default(),
        }
    }

    /// Enters the series of the sources: `numbers` tells for each source, in the order of its series, which of
    /// `count` series it is.
    pub(super) fn enter(&mut self, count: usize, numbers: &[Vec<u32>]) {
        let mut ends = vec![0u32; count];
        for number in numbers.iter().flatten() {
            ends[*number as usize] += 1;
        }
        let mut end = 0;
        for count in &mut ends {
            // For now where the parts of the series begin.
            end += std::mem::replace(count, end);
        }
        self.parts = vec![Part { source: 0, series: 0 }; end as usize];
        for (source, numbers) in numbers.iter().enumerate() {
            for (series, number) in self.sources[source].series.iter().zip(numbers) {
                let place = &mut ends[*number as usize];
                self.parts[*place as usize] = Part { source: source as u32, series: *series };
                *place += 1;
            }
        }
        self.ends = ends;
    }

    fn parts_of(&self, series: usize) -> &[Part] {
        let start = series.checked_sub(1).map_or(0, |before| self.ends[before]);
        &self.parts[start as usize..self.ends[series] as usize]
    }

    /// Replaces what is in `samples` by the samples of a series; returns how many they are.
    pub(super) fn load(&self, series: usize, samples: &mut Samples) -> Result<u64, Failure> {
        let mut loading = Loading { samples, keys: Vec::new(), both: Vec::new() };
        loading.clear();
        for part in self.parts_of(series) {
            let source = &self.sources[part.source as usize];
            if self.damage == Damage::Fails || !source.segment.is_damaged() {
                self.part(*part, source, &mut loading)
                    .map_err(|error| Failure { source: Some(part.source), error })?;
            }
        }
        if let Some(memory) = self.in_memory.get(series).copied().flatten() {
            self.memory_rows(memory, &mut loading).map_err(|error| Failure { source: None, error })?;
        }
        let rows = loading.samples.values.len() + loading.samples.histograms.len();
        self.finish(loading).map_err(|(source, error)| Failure { source: Some(source), error })?;
        Ok(rows as u64)
    }

    fn part(&self, part: Part, source: &Source, loading: &mut Loading<'_>) -> Result<(), SegmentError> {
        for (number, block) in source.index.blocks.iter().enumerate() {
            let place = &block.place;
            let inside = place.times.start() <= self.range.end() && place.times.end() >= self.range.start();
            let Some(local) = place.local(part.series).filter(|_| inside) else { continue };
            let outline = source.segment.outline(&source.index, number)?;
            for group in groups_of(outline, local) {
                if !outline.groups()[group].overlaps(&self.range) {
                    continue;
                }
                let key = (part.source, number as u32, group as u32);
                let decoded = self.group(key, source, outline, local)?;
                let from = decoded.runs.partition_point(|run| run.series < local);
                for run in decoded.runs[from..].iter().take_while(|run| run.series == local) {
                    self.run(run, &decoded, loading)?;
                }
                self.groups.used(key, &decoded);
            }
            loading.end_of_part();
        }
        let frames = source.index.frames.iter().enumerate();
        for (number, frame) in frames.filter(|(_, frame)| frame.kind == FrameKind::Odd) {
            if frame.series.contains(&part.series) {
                let rows = self.odd_frame(part.source, number, source)?;
                let from = rows.partition_point(|row| row.series < part.series);
                for row in rows[from..].iter().take_while(|row| row.series == part.series) {
                    let histogram = NativeHistogram::from_bytes(&row.payload);
                    if let Some(histogram) = histogram.filter(|_| self.range.contains(&row.time)) {
                        loading.histogram(row.time, row.start, Arc::new(histogram));
                    }
                }
                loading.end_of_part();
            }
        }
        Ok(())
    }

    fn odd_frame(&self, source: u32, number: usize, of: &Source) -> Result<Arc<Vec<OddRow>>, SegmentError> {
        let mut held = self.odd.lock();
        if let Some((key, rows)) = &*held
            && *key == (source, number)
        {
            return Ok(rows.clone());
        }
        let rows = Arc::new(of.segment.odd(&of.index.frames[number])?);
        *held = Some(((source, number), rows.clone()));
        Ok(rows)
    }

    fn memory_rows(&self, memory: u32, loading: &mut Loading<'_>) -> Result<(), SegmentError> {
        let floats = &self.memory.floats;
        let range = floats.series[memory as usize].clone();
        if !range.is_empty() {
            loading.floats(
                TimesKey {
                    source: MEMORY,
                    block: 0,
                    column: self.memory.times_of[memory as usize],
                    from: 0,
                    to: range.len() as u32,
                },
                &floats.values[range.clone()],
                floats.starts_of(&range).iter().copied(),
            );
        }
        for (time, start, histogram) in self.memory.histograms(memory)? {
            loading.histogram(time, start, histogram);
        }
        loading.end_of_part();
        Ok(())
    }

    fn run(&self, run: &Run, decoded: &Decoded, loading: &mut Loading<'_>) -> Result<(), SegmentError> {
        let layout = &*decoded.layouts[run.layout as usize];
        let (values, len) = (&decoded.values[run.values.clone()], run.times.len());
        if layout.is_empty() && run.columns == 1 {
            loading.floats(run.times, values, std::iter::empty());
            return Ok(());
        }
        if layout == FLOATS_WITH_STARTS && run.columns == 2 {
            let (values, starts) = values.split_at(len);
            loading.floats(run.times, values, starts.iter().map(|start| *start as i64));
            return Ok(());
        }
        let Some((histograms, starts)) = histogram::read(layout, len, values) else {
            let source = &self.sources[run.times.source as usize];
            let at = source.index.blocks[run.times.block as usize].place.offset;
            let what = "the layout of a histogram does not fit it".into();
            return Err(source.segment.file().corrupt(at, what));
        };
        let times = self.times(&[run.times]).map_err(|(_, error)| error)?.times;
        for (row, histogram) in histograms.into_iter().enumerate() {
            loading.histogram(times[row], starts.get(row).copied().unwrap_or(0), histogram);
        }
        Ok(())
    }

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
    fn times(&self, keys: &[TimesKey]) -> Result<Times, (u32, SegmentError)> {
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

    /// Puts what was gathered into order.
    fn finish(&self, loading: Loading<'_>) -> Result<(), (u32, SegmentError)> {
        let Loading { samples, keys, both } = loading;
        let mixed = !samples.values.is_empty() && !samples.histograms.is_empty();
        let (mut float_parts, mut histogram_parts) = if mixed { spread(&both) } else { Default::default() };
        let times = if keys.is_empty() { Times::new(Vec::new()) } else { self.times(&keys)? };
        samples.timestamps = times.times;
        if samples.start_timestamps.iter().all(|start| *start == 0) {
            samples.start_timestamps.clear();
        } else {
            samples.start_timestamps.resize(samples.values.len(), 0);
        }
        if !times.ascend
            && let Some(kept) = in_order(&samples.timestamps)
        {
            let mut times = samples.timestamps.to_vec();
            keep(&mut times, &kept);
            keep(&mut samples.values, &kept);
            keep(&mut samples.start_timestamps, &kept);
            keep(&mut float_parts, &kept);
            samples.timestamps = Arc::new(times);
        }
        if samples.histogram_start_timestamps.iter().all(|start| *start == 0) {
            samples.histogram_start_timestamps.clear();
        }
        if let Some(kept) = in_order(&samples.histogram_timestamps) {
            keep(&mut samples.histogram_timestamps, &kept);
            keep(&mut samples.histograms, &kept);
            keep(&mut samples.histogram_start_timestamps, &kept);
            keep(&mut histogram_parts, &kept);
        }
        if mixed {
            one_kind_a_time(samples, &float_parts, &histogram_parts);
        }
        Ok(())
    }

    /// A group, decoded for all who want it or, if it went before, for one series alone.
    fn group(
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

    /// Timestamp columns of a block, by ascending number.
    fn columns(
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

/// The groups that may hold a series.
fn groups_of(outline: &Outline, local: u32) -> Range<usize> {
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
    fn used(&self, key: GroupKey, decoded: &Decoded) {
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

/// Samples of one series as they come, oldest source first.
struct Loading<'s> {
    samples: &'s mut Samples,
    /// Where the timestamps of the floats are.
    keys: Vec<TimesKey>,
    /// Per block and source the floats and histograms up to its end, from the first with histograms on.
    both: Vec<(usize, usize)>,
}

impl Loading<'_> {
    fn clear(&mut self) {
        self.samples.values.clear();
        self.samples.start_timestamps.clear();
        self.samples.histogram_timestamps.clear();
        self.samples.histograms.clear();
        self.samples.histogram_start_timestamps.clear();
    }

    fn floats(&mut self, times: TimesKey, values: &[f64], starts: impl Iterator<Item = i64>) {
        let before = self.samples.values.len();
        self.samples.values.extend_from_slice(values);
        let mut starts = starts.peekable();
        if starts.peek().is_some() {
            self.samples.start_timestamps.resize(before, 0);
            self.samples.start_timestamps.extend(starts);
        }
        self.keys.push(times);
    }

    fn histogram(&mut self, time: i64, start: i64, histogram: Arc<NativeHistogram>) {
        self.samples.histogram_timestamps.push(time);
        self.samples.histograms.push(histogram);
        self.samples.histogram_start_timestamps.push(start);
    }

    fn end_of_part(&mut self) {
        if !self.samples.histograms.is_empty() {
            self.both.push((self.samples.values.len(), self.samples.histograms.len()));
        }
    }
}

fn keep<T: Clone>(items: &mut Vec<T>, positions: &[u32]) {
    if !items.is_empty() {
        rearrange(items, positions);
        items.truncate(positions.len());
    }
}

/// The part that each float and each histogram came with.
fn spread(ends: &[(usize, usize)]) -> (Vec<u32>, Vec<u32>) {
    let (mut floats, mut histograms) = (Vec::new(), Vec::new());
    for (part, (floats_end, histograms_end)) in ends.iter().enumerate() {
        floats.resize(*floats_end, part as u32);
        histograms.resize(*histograms_end, part as u32);
    }
    (floats, histograms)
}

/// Of a float and a histogram with one time the one of the later part stays.
fn one_kind_a_time(samples: &mut Samples, float_parts: &[u32], histogram_parts: &[u32]) {
    let (mut floats, mut histograms) = (Vec::new(), Vec::new());
    let times = samples.timestamps.clone();
    let later = |at: usize, place: usize| float_parts[at] > histogram_parts[place];
    for (at, time) in times.iter().enumerate() {
        let other = samples.histogram_timestamps.binary_search(time);
        if other.map_or(true, |place| later(at, place)) {
            floats.push(at as u32);
        }
    }
    for (place, time) in samples.histogram_timestamps.iter().enumerate() {
        if times.binary_search(time).map_or(true, |at| !later(at, place)) {
            histograms.push(place as u32);
        }
    }
    if floats.len() < times.len() {
        let mut kept = times.to_vec();
        keep(&mut kept, &floats);
        samples.timestamps = Arc::new(kept);
        keep(&mut samples.values, &floats);
        keep(&mut samples.start_timestamps, &floats);
    }
    keep(&mut samples.histogram_timestamps, &histograms);
    keep(&mut samples.histograms, &histograms);
    keep(&mut samples.histogram_start_timestamps, &histograms);
}
