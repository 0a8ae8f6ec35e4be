//! Rows in memory, gathered for one question in one pass.

use std::{collections::HashMap, ops::RangeInclusive, sync::Arc};

use arrow::array::RecordBatch;
use trine_schema::{MetricScan, NativeHistogram, RowKind, StreamRef, StreamRegistry};

use super::{
    order::{Floats, HistogramRow, NONE, sort_histograms},
    rows::{Rows, ms},
};
use crate::SegmentError;

/// A stream that does not match.
const NO: u32 = u32::MAX - 1;

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
        let range = scan.start_ms..=scan.end_ms;
        let rows = batches.iter().map(Rows::of).collect::<Result<Vec<_>, _>>()?;
        let mut by_reference: Vec<u32> = Vec::new();
        let (mut streams, mut counts, mut histograms) = (Vec::new(), Vec::new(), Vec::new());
        let mut series_of = |reference: StreamRef| {
            if by_reference.len() <= reference as usize {
                by_reference.resize(reference as usize + 1, NONE);
            }
            let slot = &mut by_reference[reference as usize];
            if *slot == NONE {
                let stream = registry.get(reference);
                let fits = stream.tenant == scan.tenant && scan.matches(&stream.labels);
                *slot = if fits { streams.len() as u32 } else { NO };
                if fits {
                    streams.push(reference);
                    counts.push(0u32);
                }
            }
            let slot = *slot;
            (slot != NO).then(|| {
                counts[slot as usize] += 1;
                slot
            })
        };
        for (batch, rows) in rows.iter().enumerate() {
            for row in 0..rows.len() {
                let time = ms(rows.times[row]);
                if rows.kinds[row] <= RowKind::Histogram as u8
                    && range.contains(&time)
                    && let Some(series) = series_of(rows.streams[row])
                    && rows.kinds[row] == RowKind::Histogram as u8
                {
                    histograms.push(HistogramRow { series, time, batch: batch as u32, row: row as u32 });
                }
            }
        }
        histograms.iter().for_each(|row| counts[row.series as usize] -= 1);
        let of =
            |reference: StreamRef| by_reference.get(reference as usize).copied().filter(|slot| *slot < NO);
        let mut floats = Floats::with_counts(counts.into_iter(), rows.iter().any(Rows::has_starts));
        floats.fill(&rows, |rows, row| {
            let inside = rows.kinds[row] == RowKind::Float as u8 && range.contains(&ms(rows.times[row]));
            if inside { of(rows.streams[row]).map(|slot| slot as usize) } else { None }
        });
        let histograms = sort_histograms(&mut floats, histograms, &rows, of);
        let times_of = shared(&floats);
        drop(rows);
        Ok(Self { batches, streams, floats, times_of, histograms })
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
