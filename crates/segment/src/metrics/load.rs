//! Reading the samples of series that were found.
//!
//! The parts of a series come from segments, oldest first, then from memory; they mostly follow one another in
//! time and are sorted only if they do not.

use std::{
    ops::RangeInclusive,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
};

use parking_lot::Mutex;
use trine_schema::{NativeHistogram, Samples};

use super::{
    MetricSegment,
    groups::{Decoded, Groups, Run, groups_of},
    histogram::{self, FLOATS_WITH_STARTS},
    index::MetricIndex,
    memory::MemoryRows,
    order::{in_order, rearrange},
    side::{FrameKind, OddRow},
    times::{HeldTimes, MEMORY, Times, TimesKey},
};
use crate::SegmentError;

/// A segment that is read.
pub(super) struct Source {
    pub segment: Arc<MetricSegment>,
    pub index: Arc<MetricIndex>,
    /// Series that were asked for, ascending.
    pub series: Vec<u32>,
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
    /// Sources that were found to be damaged.
    left_out: Vec<AtomicBool>,
    pub groups: Groups,
    pub times: Mutex<HeldTimes>,
    odd: Mutex<Option<OddFrame>>,
}

/// Source and number of a frame, and its rows.
type OddFrame = ((u32, usize), Arc<Vec<OddRow>>);

/// A failure, and the segment that it is about.
pub(super) struct Failure {
    pub source: Option<u32>,
    pub error: SegmentError,
}

impl Selection {
    /// Without any series yet.
    pub(super) fn new(sources: Vec<Source>, range: RangeInclusive<i64>) -> Self {
        let groups = Groups::of_blocks(sources.iter().map(|source| source.index.blocks.len()).sum());
        Self {
            left_out: sources.iter().map(|_| AtomicBool::new(false)).collect(),
            sources,
            parts: Vec::new(),
            ends: Vec::new(),
            memory: MemoryRows::default(),
            in_memory: Vec::new(),
            range,
            groups,
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

    /// Leaves a source out from now on; whether nobody did before.
    pub(super) fn leave_out(&self, source: u32) -> bool {
        !self.left_out[source as usize].swap(true, Relaxed)
    }

    /// Replaces what is in `samples` by the samples of a series; returns how many they are.
    pub(super) fn load(&self, series: usize, samples: &mut Samples) -> Result<u64, Failure> {
        let mut loading = Loading { samples, keys: Vec::new(), both: Vec::new() };
        loading.clear();
        for part in self.parts_of(series) {
            let source = &self.sources[part.source as usize];
            if !self.left_out[part.source as usize].load(Relaxed) {
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
                for (at, run) in decoded.runs_of(local).iter().enumerate() {
                    if let Some(values) = run.take_values() {
                        self.run(run, values, &decoded, loading)?;
                        continue;
                    }
                    // Somebody loads the series once more.
                    let again = self.decode(key, source, outline, Some(local))?;
                    let found = again.runs_of(local).get(at);
                    if let Some((run, values)) = found.and_then(|run| Some((run, run.take_values()?))) {
                        self.run(run, values, &again, loading)?;
                    }
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

    fn run(
        &self,
        run: &Run,
        values: Vec<f64>,
        decoded: &Decoded,
        loading: &mut Loading<'_>,
    ) -> Result<(), SegmentError> {
        let layout = &*decoded.layouts[run.layout as usize];
        let len = run.times.len();
        if layout.is_empty() && run.columns == 1 {
            loading.taken(run.times, values);
            return Ok(());
        }
        if layout == FLOATS_WITH_STARTS && run.columns == 2 {
            let (values, starts) = values.split_at(len);
            loading.floats(run.times, values, starts.iter().map(|start| *start as i64));
            return Ok(());
        }
        let Some((histograms, starts)) = histogram::read(layout, len, &values) else {
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

    /// Floats that may be kept as they are; where series come in several parts, the room for all of them is kept
    /// instead.
    fn taken(&mut self, times: TimesKey, values: Vec<f64>) {
        let own = &mut self.samples.values;
        if own.is_empty() && own.capacity() < 2 * values.len() {
            *own = values;
            self.keys.push(times);
        } else {
            self.floats(times, &values, std::iter::empty());
        }
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
