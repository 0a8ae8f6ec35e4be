//! Questions about metrics: from memory and segments.

use std::{
    collections::BTreeMap,
    sync::{Arc, atomic::Ordering::Relaxed},
};

use arrow::array::RecordBatch;
use hashbrown::HashMap;
use trine_model::TenantId;
use trine_schema::{
    Exemplar, Labels, LoadSamples, Metadata, MetricScan, MetricSeries, RowKind, Samples, ScanError, Stream,
    StreamId, StreamRef, StreamRegistry, metrics::METRIC_NAME,
};

use super::{
    MetricSegment,
    index::MetricIndex,
    labels::{Order, rank},
    load::{Failure, Selection, Source},
    memory::MemoryRows,
    rows::{Rows, ms, ns},
    side::FrameKind,
};
use crate::{OnCorrupt, SegmentError};

/// What one question about metrics sees.
#[derive(Clone, Default)]
pub struct MetricSnapshot {
    /// Batches of [`trine_schema::metrics::schema`] of one tenant in the order of their arrival.
    pub memtable: Vec<RecordBatch>,
    /// Segments that may hold rows of the question, oldest first.
    pub segments: Vec<Arc<MetricSegment>>,
}

/// Sorted runs of an answer that are merged by comparing labels; with more it is quicker to number them first.
const FEW_RUNS: usize = 50;

fn storage(error: &SegmentError) -> ScanError {
    ScanError::Storage(error.to_string())
}

fn is_usable(scan: &MetricScan, segment: &MetricSegment) -> bool {
    if segment.is_left_out(&scan.stats) {
        return false;
    }
    let meta = segment.meta();
    let found = ms(meta.min_timestamp) <= scan.end_ms
        && ms(meta.max_timestamp) >= scan.start_ms
        && meta.tenants.binary_search(&scan.tenant).is_ok();
    let counter = if found { &scan.stats.segments_scanned } else { &scan.stats.segments_skipped };
    counter.fetch_add(1, Relaxed);
    found
}

/// The series of a segment that match, with its index.
fn source(
    segment: &Arc<MetricSegment>,
    registry: &StreamRegistry,
    scan: &MetricScan,
) -> Result<(Source, Vec<Arc<Stream>>), SegmentError> {
    let index = segment.load_once()?;
    let mut series = index.select(&scan.tenant, &scan.matchers);
    // Exemplars may be all that there is of a series, and a block may have other times.
    let has_samples = |series: u32| {
        let inside = |start: i64, end: i64| start <= scan.end_ms && end >= scan.start_ms;
        let in_block =
            index.blocks.iter().map(|block| &block.place).any(|place| {
                inside(*place.times.start(), *place.times.end()) && place.local(series).is_some()
            });
        let mut frames = index.frames.iter().filter(|frame| frame.kind == FrameKind::Odd);
        in_block
            || frames.any(|frame| {
                inside(*frame.times.start(), *frame.times.end()) && frame.series.contains(&series)
            })
    };
    series.retain(|series| has_samples(*series));
    let named = series.iter().map(|series| stream(segment, &index, *series, registry).cloned());
    let streams = named.collect::<Result<Vec<_>, _>>()?;
    // What was found belongs to the index now.
    segment.load()?;
    Ok((Source { segment: segment.clone(), index, series }, streams))
}

fn stream<'i>(
    segment: &MetricSegment,
    index: &'i MetricIndex,
    series: u32,
    registry: &StreamRegistry,
) -> Result<&'i Arc<Stream>, SegmentError> {
    index.stream(series, registry).map_err(|source| segment.file().refused(source))
}

/// Series of an answer, each once.
#[derive(Default)]
struct Found {
    streams: Vec<Arc<Stream>>,
    /// Their numbers; those of the last ones may be missing, as they are not needed for one source.
    numbers: HashMap<StreamId, u32>,
}

impl Found {
    /// Takes the series of one source, of which no two are the same, and tells their numbers.
    fn add(&mut self, streams: Vec<Arc<Stream>>) -> Vec<u32> {
        if self.streams.is_empty() {
            self.streams = streams;
            return (0..self.streams.len() as u32).collect();
        }
        for number in self.numbers.len()..self.streams.len() {
            self.numbers.insert(self.streams[number].id, number as u32);
        }
        let number = |stream: Arc<Stream>| {
            *self.numbers.entry(stream.id).or_insert_with(|| {
                self.streams.push(stream);
                self.streams.len() as u32 - 1
            })
        };
        streams.into_iter().map(number).collect()
    }
}

/// [`trine_schema::Tables::select_series`] over a snapshot. A damaged segment is left out, named in
/// `scan.stats.partial` and reported to `on_corrupt`. Blocks the thread while it reads.
pub fn select_series(
    snapshot: MetricSnapshot,
    registry: &Arc<StreamRegistry>,
    scan: &MetricScan,
    on_corrupt: &OnCorrupt<MetricSegment>,
) -> Result<Vec<MetricSeries>, ScanError> {
    let mut found = Found::default();
    let (mut sources, mut numbers) = (Vec::new(), Vec::new());
    for segment in snapshot.segments.iter().filter(|segment| is_usable(scan, segment)) {
        scan.check_deadline()?;
        match source(segment, registry, scan) {
            Ok((source, streams)) => {
                numbers.push(found.add(streams));
                sources.push(source);
            }
            Err(error) => segment.failed(error, &scan.stats, on_corrupt)?,
        }
    }
    scan.check_deadline()?;
    let memory = MemoryRows::gather(snapshot.memtable, registry, scan).map_err(|error| storage(&error))?;
    let with_samples = (0..memory.streams.len()).filter(|place| memory.has_samples(*place));
    let in_memory: Vec<usize> = with_samples.collect();
    let streams = in_memory.iter().map(|place| registry.get(memory.streams[*place]));
    let of_memory = found.add(streams.collect());
    let in_order = match sources.as_slice() {
        [source] if in_memory.is_empty() => source.index.lie_as_answered(&source.series),
        _ => false,
    };
    let mut selection = Selection::new(sources, scan.start_ms..=scan.end_ms);
    selection.enter(found.streams.len(), &numbers);
    if !in_memory.is_empty() {
        selection.in_memory = vec![None; found.streams.len()];
        for (place, number) in in_memory.into_iter().zip(of_memory) {
            selection.in_memory[number as usize] = Some(place as u32);
        }
    }
    selection.memory = memory;
    let question = Arc::new(Question { selection, scan: scan.clone(), on_corrupt: on_corrupt.clone() });
    let series = found.streams.into_iter().enumerate().map(|(number, stream)| {
        let data = Arc::new(SeriesSamples { question: question.clone(), number: number as u32 });
        MetricSeries { stream, data }
    });
    let series = series.collect();
    Ok(if in_order { series } else { sorted(series) })
}

/// Sorts an answer by labels.
fn sorted(mut series: Vec<MetricSeries>) -> Vec<MetricSeries> {
    let falls = series.windows(2).filter(|two| two[0].stream.labels > two[1].stream.labels);
    // Segments give their series in this order but for bounds of buckets, memory gives them as they came.
    let runs = falls.take(FEW_RUNS).count();
    if runs == 0 {
        return series;
    }
    if runs < FEW_RUNS {
        series.sort_by(|a, b| a.stream.labels.cmp(&b.stream.labels));
        return series;
    }
    let labels = series.iter().map(|series| (&series.stream.tenant, series.stream.labels.iter()));
    let order = rank(labels, Order::Labels).series;
    order.iter().map(|ranked| series[ranked.given as usize].clone()).collect()
}

/// What the series of one answer share.
struct Question {
    selection: Selection,
    scan: MetricScan,
    on_corrupt: OnCorrupt<MetricSegment>,
}

/// The samples of one series of an answer.
struct SeriesSamples {
    question: Arc<Question>,
    number: u32,
}

impl LoadSamples for SeriesSamples {
    fn load(&self, samples: &mut Samples) -> Result<(), ScanError> {
        let Question { selection, scan, on_corrupt } = &*self.question;
        loop {
            scan.check_deadline()?;
            match selection.load(self.number as usize, samples) {
                Ok(rows) => {
                    scan.stats.rows_scanned.fetch_add(rows, Relaxed);
                    scan.stats.rows_matched.fetch_add(rows, Relaxed);
                    return Ok(());
                }
                Err(Failure { source: None, error }) => return Err(storage(&error)),
                // Once more, without it; other threads may have met the same.
                Err(Failure { source: Some(source), error }) => {
                    if !error.is_corrupt() || selection.leave_out(source) {
                        let segment = &selection.sources[source as usize].segment;
                        segment.failed(error, &scan.stats, on_corrupt)?;
                    }
                }
            }
        }
    }
}

/// [`trine_schema::Tables::exemplars`] over a snapshot; damage as in [`select_series`].
pub fn exemplars(
    snapshot: MetricSnapshot,
    registry: &Arc<StreamRegistry>,
    scan: &MetricScan,
    on_corrupt: &OnCorrupt<MetricSegment>,
) -> Result<Vec<Exemplar>, ScanError> {
    let MetricSnapshot { memtable, segments } = snapshot;
    let mut found: Vec<Exemplar> = Vec::new();
    for segment in segments.iter().filter(|segment| is_usable(scan, segment)) {
        scan.check_deadline()?;
        let before = found.len();
        if let Err(error) = exemplars_of(segment, registry, scan, &mut found) {
            found.truncate(before);
            segment.failed(error, &scan.stats, on_corrupt)?;
        }
    }
    let mut streams: HashMap<StreamRef, Option<Arc<Stream>>> = HashMap::new();
    for batch in memtable {
        let rows = Rows::of(&batch).map_err(|error| storage(&error))?;
        for row in (0..rows.len()).filter(|row| rows.kinds[*row] == RowKind::Exemplar as u8) {
            let timestamp = ms(rows.times[row]);
            if !(scan.start_ms..=scan.end_ms).contains(&timestamp) {
                continue;
            }
            let stream = streams.entry(rows.streams[row]).or_insert_with(|| {
                let stream = registry.get(rows.streams[row]);
                (stream.tenant == scan.tenant && scan.matches(&stream.labels)).then_some(stream)
            });
            if let (Some(series), Some(labels)) = (stream, Labels::from_json(rows.text(row))) {
                found.push(Exemplar { series: series.clone(), timestamp, value: rows.values[row], labels });
            }
        }
    }
    let key = |exemplar: &Exemplar| (exemplar.series.labels.clone(), exemplar.timestamp);
    found.sort_by_cached_key(key);
    // What a sender repeats is one.
    found.dedup_by(|a, b| {
        a.series.id == b.series.id
            && a.timestamp == b.timestamp
            && a.value.to_bits() == b.value.to_bits()
            && a.labels == b.labels
    });
    Ok(found)
}

fn exemplars_of(
    segment: &Arc<MetricSegment>,
    registry: &StreamRegistry,
    scan: &MetricScan,
    found: &mut Vec<Exemplar>,
) -> Result<(), SegmentError> {
    let index = segment.load()?;
    let in_range = |time: i64| (scan.start_ms..=scan.end_ms).contains(&time);
    let mut frames = index.frames.iter().filter(|frame| frame.kind == FrameKind::Exemplars).peekable();
    if frames.peek().is_none() {
        return Ok(());
    }
    let wanted = index.select(&scan.tenant, &scan.matchers);
    for frame in frames {
        let first = wanted.partition_point(|number| number < frame.series.start());
        let inside = *frame.times.start() <= scan.end_ms && *frame.times.end() >= scan.start_ms;
        if !inside || wanted.get(first).is_none_or(|number| number > frame.series.end()) {
            continue;
        }
        for row in segment.exemplars(frame)? {
            if in_range(row.time) && wanted.binary_search(&row.series).is_ok() {
                let series = stream(segment, &index, row.series, registry)?.clone();
                let labels = Labels::from_json(&row.labels).unwrap_or_default();
                found.push(Exemplar { series, timestamp: row.time, value: row.value, labels });
            }
        }
    }
    Ok(())
}

/// [`trine_schema::Tables::metric_metadata`] over a snapshot; a damaged segment is left out and reported.
pub fn metric_metadata(
    snapshot: MetricSnapshot,
    registry: &Arc<StreamRegistry>,
    tenant: &TenantId,
    on_corrupt: &OnCorrupt<MetricSegment>,
) -> Result<Vec<(String, Metadata)>, ScanError> {
    let MetricSnapshot { memtable, segments } = snapshot;
    let scan = MetricScan::all(tenant.clone());
    let mut found: BTreeMap<String, Metadata> = BTreeMap::new();
    for segment in segments.iter().filter(|segment| is_usable(&scan, segment)) {
        match segment.metadata() {
            Ok(rows) => {
                for row in rows.into_iter().filter(|row| row.tenant == *tenant) {
                    if let Some(metadata) = Metadata::from_json(&row.text) {
                        found.insert(row.metric, metadata);
                    }
                }
            }
            Err(error) => segment.failed(error, &scan.stats, on_corrupt)?,
        }
    }
    for batch in memtable {
        let rows = Rows::of(&batch).map_err(|error| storage(&error))?;
        for row in (0..rows.len()).filter(|row| rows.kinds[*row] == RowKind::Metadata as u8) {
            let stream = registry.get(rows.streams[row]);
            let metric = stream.labels.iter().find(|(name, _)| *name == METRIC_NAME);
            let metadata = Metadata::from_json(rows.text(row)).filter(|_| stream.tenant == *tenant);
            if let (Some((_, metric)), Some(metadata)) = (metric, metadata) {
                found.insert(metric.to_owned(), metadata);
            }
        }
    }
    Ok(found.into_iter().collect())
}

/// The range of a scan that has samples from `keep_from` (nanoseconds) on.
pub(super) fn kept_range(keep_from: Option<i64>) -> std::ops::RangeInclusive<i64> {
    // A millisecond that begins before is before.
    let first = keep_from.map_or(i64::MIN, |from| {
        let whole = ms(from);
        if ns(whole) < from { whole.saturating_add(1) } else { whole }
    });
    first..=i64::MAX
}
