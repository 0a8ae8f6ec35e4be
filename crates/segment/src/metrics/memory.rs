//! Rows in memory, gathered for one question in one pass.

use std::{ops::RangeInclusive, sync::Arc};

use arrow::array::RecordBatch;
use hashbrown::HashMap;
use trine_schema::{
    LabelMatch, MetricScan, NativeHistogram, RowKind, StreamRef, StreamRegistry, metric_hash,
    metrics::METRIC_NAME,
};

use super::{
    order::{Floats, HistogramRow, NONE, sort_histograms},
    rows::{MS, Rows, ms, ns},
};
use crate::SegmentError;

/// A stream that does not match.
const NO: u32 = u32::MAX - 1;

/// Matching streams as they are met.
struct Slots<'a> {
    registry: &'a StreamRegistry,
    scan: &'a MetricScan,
    /// Number of the series, or [`NO`], or [`NONE`] where it is not known yet.
    by_reference: Vec<u32>,
    streams: Vec<StreamRef>,
}

impl Slots<'_> {
    #[inline]
    fn of(&mut self, reference: StreamRef) -> u32 {
        match self.by_reference.get(reference as usize) {
            Some(slot) if *slot != NONE => *slot,
            _ => self.judge(reference),
        }
    }

    #[cold]
    fn judge(&mut self, reference: StreamRef) -> u32 {
        let room = self.by_reference.len().max(reference as usize + 1);
        self.by_reference.resize(room, NONE);
        let stream = self.registry.get(reference);
        let fits = stream.tenant == self.scan.tenant && self.scan.matches(&stream.labels);
        let slot = if fits { self.streams.len() as u32 } else { NO };
        if fits {
            self.streams.push(reference);
        }
        self.by_reference[reference as usize] = slot;
        slot
    }
}

/// Samples of the series that were found in memory.
#[derive(Default)]
pub(super) struct MemoryRows {
    batches: Vec<RecordBatch>,
    /// Their streams, in the order in which they were met.
    pub streams: Vec<StreamRef>,
    pub floats: Floats,
    /// Per series the first one with the same timestamps.
    pub times_of: Vec<u32>,
    histograms: Vec<HistogramRow>,
}

impl MemoryRows {
    /// The samples of matching series in the range (milliseconds).
    pub(super) fn gather(
        batches: Vec<RecordBatch>,
        registry: &StreamRegistry,
        scan: &MetricScan,
    ) -> Result<Self, SegmentError> {
        let rows = batches.iter().map(Rows::of).collect::<Result<Vec<_>, _>>()?;
        let range = ns(scan.start_ms)..=ns(scan.end_ms).saturating_add(MS - 1);
        let is_sample = |rows: &Rows<'_>, row: usize| {
            rows.kinds[row] <= RowKind::Histogram as u8 && range.contains(&rows.times[row])
        };
        let by_reference = unnamed(registry, scan);
        let mut slots = Slots { registry, scan, by_reference, streams: Vec::new() };
        let (mut counts, mut histograms): (Vec<u32>, Vec<HistogramRow>) = (Vec::new(), Vec::new());
        // Most questions are about few series: what has none of them is not looked at again.
        let mut hit: Vec<&Rows<'_>> = Vec::new();
        for (batch, rows) in rows.iter().enumerate() {
            let mut found = false;
            for (row, reference) in rows.streams.iter().enumerate() {
                let slot = slots.of(*reference);
                if slot < NO && is_sample(rows, row) {
                    found = true;
                    counts.resize(slots.streams.len(), 0);
                    if rows.kinds[row] == RowKind::Float as u8 {
                        counts[slot as usize] += 1;
                    } else {
                        let (time, batch, row) = (ms(rows.times[row]), batch as u32, row as u32);
                        histograms.push(HistogramRow { series: slot, time, batch, row });
                    }
                }
            }
            if found {
                hit.push(rows);
            }
        }
        counts.resize(slots.streams.len(), 0);
        let Slots { by_reference, streams, .. } = slots;
        let of =
            |reference: StreamRef| by_reference.get(reference as usize).copied().filter(|slot| *slot < NO);
        let mut floats = Floats::with_counts(counts.into_iter(), hit.iter().any(|rows| rows.has_starts()));
        floats.fill(&hit, |rows, row| {
            let slot = by_reference[rows.streams[row] as usize];
            let inside = slot < NO && rows.kinds[row] == RowKind::Float as u8 && is_sample(rows, row);
            inside.then_some(slot as usize)
        });
        let histograms = sort_histograms(&mut floats, histograms, &hit, of);
        let times_of = shared(&floats);
        drop(rows);
        Ok(Self { batches, streams, floats, times_of, histograms })
    }

    /// Whether a series has samples in the range.
    pub(super) fn has_samples(&self, series: usize) -> bool {
        let from = self.histograms.partition_point(|row| (row.series as usize) < series);
        !self.floats.series[series].is_empty()
            || self.histograms.get(from).is_some_and(|row| row.series as usize == series)
    }

    /// The histograms of a series, with their times and when their counters began.
    pub(super) fn histograms(
        &self,
        series: u32,
    ) -> Result<Vec<(i64, i64, Arc<NativeHistogram>)>, SegmentError> {
        let from = self.histograms.partition_point(|row| row.series < series);
        let own = self.histograms[from..].iter().take_while(|row| row.series == series);
        let mut found = Vec::new();
        for row in own {
            if let Some((histogram, start)) = row.read(&self.batches)? {
                found.push((row.time, start, Arc::new(histogram)));
            }
        }
        Ok(found)
    }
}

/// Streams of other metrics than the one that is asked for; nothing when it is not one.
fn unnamed(registry: &StreamRegistry, scan: &MetricScan) -> Vec<u32> {
    let metric = scan.matchers.iter().find_map(|matcher| match &matcher.value {
        LabelMatch::Equal(metric) if matcher.name == METRIC_NAME => Some(metric_hash(metric)),
        _ => None,
    });
    let other = |metric, hash: &u32| if *hash == metric { NONE } else { NO };
    metric.map_or(Vec::new(), |metric| {
        registry.with_metric_hashes(|hashes| hashes.iter().map(|hash| other(metric, hash)).collect())
    })
}

/// Per series the first one with the same timestamps.
fn shared(floats: &Floats) -> Vec<u32> {
    // By number and ends of the timestamps: the last series that was met with them.
    let mut known: HashMap<(usize, i64, i64), u32> = HashMap::new();
    let mut first = Vec::with_capacity(floats.series.len());
    for (series, range) in floats.series.iter().enumerate() {
        let times = &floats.times[range.clone()];
        let ends: RangeInclusive<i64> = match (times.first(), times.last()) {
            (Some(first), Some(last)) => *first..=*last,
            _ => 0..=0,
        };
        let entry = known.entry((times.len(), *ends.start(), *ends.end())).or_insert(series as u32);
        let same = &floats.times[floats.series[*entry as usize].clone()];
        if same != times {
            *entry = series as u32;
        }
        first.push(*entry);
    }
    first
}
