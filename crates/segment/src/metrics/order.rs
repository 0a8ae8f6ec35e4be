//! Rows in the order of a segment: by series and time, each time once.

use std::{ops::Range, sync::Arc};

use arrow::array::RecordBatch;
use hashbrown::HashMap;
use trine_schema::{NativeHistogram, RowKind, Stream, StreamRegistry, metrics::METRIC_NAME};

use super::{
    labels::{Order, Ranking, rank},
    rows::{Rows, ms},
    side::{ExemplarRow, MetadataRow},
};
use crate::SegmentError;

/// Not a series of these rows.
pub(super) const NONE: u32 = u32::MAX;

/// Samples in the order of a segment; from [`sort_samples`].
pub struct SortedSamples {
    pub(super) ranking: Ranking,
    pub(super) floats: Floats,
    /// By series and time.
    pub(super) histograms: Vec<HistogramRow>,
    /// By series and time.
    pub(super) exemplars: Vec<ExemplarRow>,
    /// By tenant and metric.
    pub(super) metadata: Vec<MetadataRow>,
    batches: Vec<RecordBatch>,
}

impl SortedSamples {
    /// Rows that will be written: samples, exemplars, metadata.
    pub fn len(&self) -> usize {
        let floats: usize = self.floats.series.iter().map(Range::len).sum();
        floats + self.histograms.len() + self.exemplars.len() + self.metadata.len()
    }

    /// Whether there is no row.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    pub(super) fn histogram(
        &self,
        row: &HistogramRow,
    ) -> Result<Option<(NativeHistogram, i64)>, SegmentError> {
        row.read(&self.batches)
    }
}

/// Float samples of many series.
#[derive(Default)]
pub(super) struct Floats {
    /// Where the samples of each series are.
    pub series: Vec<Range<usize>>,
    /// Milliseconds.
    pub times: Vec<i64>,
    pub values: Vec<f64>,
    /// When the counter of each began, milliseconds; empty if nothing is known.
    pub starts: Vec<i64>,
}

impl Floats {
    /// Room for series of so many samples each.
    pub(super) fn with_counts(counts: impl Iterator<Item = u32>, with_starts: bool) -> Self {
        let mut end = 0;
        let range = |count: u32| {
            let start = end;
            end += count as usize;
            start..end
        };
        let series = counts.map(range).collect();
        let starts = if with_starts { vec![0; end] } else { Vec::new() };
        Self { series, times: vec![0; end], values: vec![0.0; end], starts }
    }

    /// Puts in the floats that `series_of` gives a series to, in the order of their arrival, and sorts those
    /// of each series by time.
    pub(super) fn fill(&mut self, rows: &[&Rows<'_>], series_of: impl Fn(&Rows<'_>, usize) -> Option<usize>) {
        let mut next: Vec<usize> = self.series.iter().map(|range| range.start).collect();
        for rows in rows {
            for row in 0..rows.len() {
                if let Some(series) = series_of(rows, row) {
                    let place = next[series];
                    self.times[place] = ms(rows.times[row]);
                    self.values[place] = rows.values[row];
                    if rows.has_starts() {
                        self.starts[place] = rows.start(row);
                    }
                    next[series] = place + 1;
                }
            }
        }
        for range in &mut self.series {
            if let Some(kept) = in_order(&self.times[range.clone()]) {
                rearrange(&mut self.times[range.clone()], &kept);
                rearrange(&mut self.values[range.clone()], &kept);
                if !self.starts.is_empty() {
                    rearrange(&mut self.starts[range.clone()], &kept);
                }
                range.end = range.start + kept.len();
            }
        }
    }

    /// Starts of a series; empty if nothing is known.
    pub(super) fn starts_of(&self, range: &Range<usize>) -> &[i64] {
        let starts = if self.starts.is_empty() { &[][..] } else { &self.starts[range.clone()] };
        if starts.iter().any(|start| *start != 0) { starts } else { &[] }
    }

    fn position(&self, series: u32, time: i64) -> Option<usize> {
        let range = &self.series[series as usize];
        Some(range.start + self.times[range.clone()].binary_search(&time).ok()?)
    }

    fn remove(&mut self, series: u32, at: usize) {
        let end = self.series[series as usize].end;
        self.times[at..end].rotate_left(1);
        self.values[at..end].rotate_left(1);
        if !self.starts.is_empty() {
            self.starts[at..end].rotate_left(1);
        }
        self.series[series as usize].end = end - 1;
    }
}

/// A histogram among the rows that were given.
#[derive(Debug, Clone, Copy)]
pub(super) struct HistogramRow {
    pub series: u32,
    /// Milliseconds.
    pub time: i64,
    pub batch: u32,
    pub row: u32,
}

impl HistogramRow {
    /// The histogram and when its counter began (milliseconds, 0 if not known); `None` when its bytes are none.
    pub(super) fn read(
        &self,
        batches: &[RecordBatch],
    ) -> Result<Option<(NativeHistogram, i64)>, SegmentError> {
        let (rows, at) = (Rows::of(&batches[self.batch as usize])?, self.row as usize);
        Ok(NativeHistogram::from_bytes(rows.payload(at)).map(|histogram| (histogram, rows.start(at))))
    }
}

/// Series of the rows by their references.
#[derive(Default)]
struct Slots {
    /// Slot by reference.
    by_reference: Vec<u32>,
    references: Vec<u32>,
    floats: Vec<u32>,
}

impl Slots {
    #[inline]
    fn of(&mut self, reference: u32) -> usize {
        if self.by_reference.len() <= reference as usize {
            self.by_reference.resize(reference as usize + 1, NONE);
        }
        let slot = &mut self.by_reference[reference as usize];
        if *slot == NONE {
            *slot = self.references.len() as u32;
            self.references.push(reference);
            self.floats.push(0);
        }
        *slot as usize
    }
}

/// Sorts batches of [`trine_schema::metrics::schema`], given in the order of their arrival, by tenant, series
/// and time. Of two samples of a series with one timestamp the later arrival stays.
pub fn sort_samples(
    batches: &[RecordBatch],
    registry: &StreamRegistry,
) -> Result<SortedSamples, SegmentError> {
    let rows = batches.iter().map(Rows::of).collect::<Result<Vec<_>, _>>()?;
    let rows: Vec<&Rows<'_>> = rows.iter().collect();
    let mut slots = Slots::default();
    let mut metadata = HashMap::new();
    let (mut histograms, mut exemplars) = (Vec::new(), Vec::new());
    for (batch, rows) in rows.iter().enumerate() {
        for (row, (stream, kind)) in rows.streams.iter().zip(rows.kinds).enumerate() {
            if *kind == RowKind::Float as u8 {
                let slot = slots.of(*stream);
                slots.floats[slot] += 1;
            } else if *kind == RowKind::Histogram as u8 {
                let (series, time) = (slots.of(*stream) as u32, ms(rows.times[row]));
                histograms.push(HistogramRow { series, time, batch: batch as u32, row: row as u32 });
            } else if *kind == RowKind::Exemplar as u8 {
                exemplars.push(ExemplarRow {
                    series: slots.of(*stream) as u32,
                    time: ms(rows.times[row]),
                    value: rows.values[row],
                    labels: rows.text(row).to_owned(),
                });
            } else if *kind == RowKind::Metadata as u8 {
                metadata.insert(*stream, (ms(rows.times[row]), rows.text(row)));
            } else {
                return Err(SegmentError::Contract(format!(
                    "a row of metrics is of the unknown kind {kind}"
                )));
            }
        }
    }
    let streams: Vec<Arc<Stream>> =
        slots.references.iter().map(|reference| registry.get(*reference)).collect();
    let ranking = rank(streams.iter().map(|stream| (&stream.tenant, stream.labels.iter())), Order::File);
    let mut ranks = vec![0u32; streams.len()];
    ranking.series.iter().enumerate().for_each(|(rank, series)| ranks[series.given as usize] = rank as u32);
    // From here on by reference: the place of a series in the order.
    slots
        .by_reference
        .iter_mut()
        .filter(|slot| **slot != NONE)
        .for_each(|slot| *slot = ranks[*slot as usize]);
    let place = |reference: u32| slots.by_reference[reference as usize];
    let counts = ranking.series.iter().map(|series| slots.floats[series.given as usize]);
    let mut floats = Floats::with_counts(counts, rows.iter().any(|rows| rows.has_starts()));
    floats.fill(&rows, |rows, row| {
        (rows.kinds[row] == RowKind::Float as u8).then(|| place(rows.streams[row]) as usize)
    });
    histograms.iter_mut().for_each(|row| row.series = ranks[row.series as usize]);
    exemplars.iter_mut().for_each(|row| row.series = ranks[row.series as usize]);
    let histograms = sort_histograms(&mut floats, histograms, &rows, |reference| {
        slots.by_reference.get(reference as usize).copied()
    });
    // Stable: of equal ones the last is the latest.
    exemplars.sort_by_key(|row| (row.series, row.time));
    let metadata = latest(metadata, registry);
    Ok(SortedSamples { ranking, floats, histograms, exemplars, metadata, batches: batches.to_vec() })
}

/// Positions by time, of equal times the last; `None` when they stand so already.
pub(super) fn in_order(times: &[i64]) -> Option<Vec<u32>> {
    if times.windows(2).all(|two| two[0] < two[1]) {
        return None;
    }
    let mut order: Vec<u32> = (0..times.len() as u32).collect();
    order.sort_by_key(|at| times[*at as usize]);
    let last = |two: &[u32]| times[two[0] as usize] != times[two[1] as usize];
    let mut kept: Vec<u32> = order.windows(2).filter(|two| last(two)).map(|two| two[0]).collect();
    kept.extend(order.last());
    Some(kept)
}

/// Moves the items at these positions to the front.
pub(super) fn rearrange<T: Clone>(items: &mut [T], positions: &[u32]) {
    let moved: Vec<T> = positions.iter().map(|at| items[*at as usize].clone()).collect();
    items[..moved.len()].clone_from_slice(&moved);
}

/// Sorts histograms, given in the order of their arrival, by series and time; of those with one time the last
/// stays, and of a float and a histogram with one time the later arrival. `series_of` tells the series of a
/// stream.
pub(super) fn sort_histograms(
    floats: &mut Floats,
    mut histograms: Vec<HistogramRow>,
    rows: &[&Rows<'_>],
    series_of: impl Fn(u32) -> Option<u32>,
) -> Vec<HistogramRow> {
    histograms.sort_by_key(|row| (row.series, row.time));
    histograms.reverse();
    histograms.dedup_by_key(|row| (row.series, row.time));
    histograms.reverse();
    // Both kinds at one time are rare: who came last is found out only then.
    let twice = histograms.iter().map(|row| (row.series, row.time));
    let twice = twice.filter(|(series, time)| floats.position(*series, *time).is_some());
    let mut last_is_float: HashMap<(u32, i64), bool> = twice.map(|key| (key, false)).collect();
    if last_is_float.is_empty() {
        return histograms;
    }
    for rows in rows {
        for row in 0..rows.len() {
            let sample = rows.kinds[row] <= RowKind::Histogram as u8;
            if let Some(series) = series_of(rows.streams[row]).filter(|_| sample)
                && let Some(is_float) = last_is_float.get_mut(&(series, ms(rows.times[row])))
            {
                *is_float = rows.kinds[row] == RowKind::Float as u8;
            }
        }
    }
    for ((series, time), _) in last_is_float.iter().filter(|(_, is_float)| !**is_float) {
        if let Some(at) = floats.position(*series, *time) {
            floats.remove(*series, at);
        }
    }
    histograms.retain(|row| last_is_float.get(&(row.series, row.time)) != Some(&true));
    histograms
}

/// What was told last of each metric, by tenant and name.
fn latest(metadata: HashMap<u32, (i64, &str)>, registry: &StreamRegistry) -> Vec<MetadataRow> {
    let row = |(reference, (time, text)): (u32, (i64, &str))| {
        let stream = registry.get(reference);
        let metric = stream.labels.iter().find(|(name, _)| *name == METRIC_NAME)?.1.to_owned();
        Some(MetadataRow { tenant: stream.tenant.clone(), metric, time, text: text.to_owned() })
    };
    let mut rows: Vec<MetadataRow> = metadata.into_iter().filter_map(row).collect();
    rows.sort_unstable_by(|a, b| (&a.tenant, &a.metric).cmp(&(&b.tenant, &b.metric)));
    rows
}
