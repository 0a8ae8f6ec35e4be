//! Several segments of metrics into one.
//!
//! Where all runs are long and the segments follow one another in time, their blocks are copied as they are
//! and only the labels are written anew. Otherwise one series after the other is read and written, with a group of
//! each segment and one new block in memory.

use std::{collections::BTreeMap, collections::VecDeque, io::Write, sync::Arc};

use hashbrown::HashMap;
use trine_schema::{Samples, StreamRegistry};

use super::{
    MetricSegment,
    index::MetricIndex,
    labels::{Order, Ranking, rank},
    load::{Selection, Source},
    scan::kept_range,
    side::{ExemplarRow, FrameKind, FramePlace},
    write::{FloatsOf, SegmentWriter},
};
use crate::{SegmentError, SegmentMeta, WriteOptions};

/// Most blocks of a segment that are copied into another: a series is looked for in each.
const MAX_COPIED: usize = 64;

/// Brings segments together into one; of samples with one timestamp that of the last segment stays. Samples
/// before `keep_from_ns` are left out. `None` when nothing is left.
pub fn merge_samples<W: Write + Send>(
    segments: &[Arc<MetricSegment>],
    _registry: &StreamRegistry,
    keep_from_ns: Option<i64>,
    options: &WriteOptions,
    file: W,
) -> Result<Option<SegmentMeta>, SegmentError> {
    let mut sources = Vec::with_capacity(segments.len());
    for segment in segments {
        let index = segment.load_once()?;
        let series = (0..index.series).collect();
        sources.push(Source { segment: segment.clone(), index, series });
    }
    let (ranking, numbers) = union(&sources);
    let writer = SegmentWriter::new(file, options)?;
    if can_copy(&sources, keep_from_ns) {
        return copy(&sources, &ranking, &numbers, writer);
    }
    rewrite(sources, ranking, &numbers, keep_from_ns, writer)
}

/// All series in their order, and for each source the positions among those that were given.
fn union(sources: &[Source]) -> (Ranking, Vec<Vec<u32>>) {
    let mut known: HashMap<u128, u32> = HashMap::new();
    let mut given: Vec<(&MetricIndex, u32)> = Vec::new();
    let mut numbers = Vec::with_capacity(sources.len());
    for source in sources {
        let number = |series: &u32| {
            let next = given.len() as u32;
            let number = *known.entry(source.index.identity(*series)).or_insert(next);
            if number == next {
                given.push((&source.index, *series));
            }
            number
        };
        numbers.push(source.series.iter().map(number).collect());
    }
    let labels = given.into_iter().map(|(index, series)| (index.tenant_of(series), index.pairs_of(series)));
    (rank(labels, Order::File), numbers)
}

/// Whether copying blocks gives what reading and writing would.
fn can_copy(sources: &[Source], keep_from_ns: Option<i64>) -> bool {
    let metas = || sources.iter().map(|source| source.segment.meta());
    let blocks = || sources.iter().flat_map(|source| &source.index.blocks);
    let in_turn = sources
        .windows(2)
        .all(|two| two[0].segment.meta().max_timestamp < two[1].segment.meta().min_timestamp);
    let nothing_to_cut = keep_from_ns.is_none_or(|from| metas().all(|meta| meta.min_timestamp >= from));
    let plain =
        sources.iter().all(|source| source.index.frames.iter().all(|frame| frame.kind != FrameKind::Odd));
    in_turn
        && nothing_to_cut
        && plain
        && blocks().count() <= MAX_COPIED
        && blocks().all(|block| block.place.runs_are_long())
}

fn copy<W: Write + Send>(
    sources: &[Source],
    ranking: &Ranking,
    numbers: &[Vec<u32>],
    mut writer: SegmentWriter<W>,
) -> Result<Option<SegmentMeta>, SegmentError> {
    let mut ranks = vec![0u32; ranking.series.len()];
    for (rank, series) in ranking.series.iter().enumerate() {
        ranks[series.given as usize] = rank as u32;
    }
    for (source, numbers) in sources.iter().zip(numbers) {
        for block in &source.index.blocks {
            let place = &block.place;
            let bytes = source.segment.read(place.offset, 0..place.length as usize)?;
            let series = place.series.iter().flat_map(|(_, file, count)| *file..file + count);
            let series = series.map(|series| ranks[numbers[series as usize] as usize]);
            writer.copy_block(&bytes, place, series)?;
            let (first, last) = (*place.times.start(), *place.times.end());
            writer.copied(place.samples, 16 * place.samples, first, last);
        }
    }
    let mut exemplars = exemplar_cursors(sources);
    for (rank, series) in ranking.series.iter().enumerate() {
        for row in next_exemplars(&mut exemplars, sources, numbers, series.given, i64::MIN)? {
            writer.exemplar(rank as u32, &row)?;
        }
    }
    metadata(sources, i64::MIN, &mut writer)?;
    if writer.is_empty() { Ok(None) } else { writer.finish(ranking).map(Some) }
}

fn rewrite<W: Write + Send>(
    sources: Vec<Source>,
    mut ranking: Ranking,
    numbers: &[Vec<u32>],
    keep_from_ns: Option<i64>,
    mut writer: SegmentWriter<W>,
) -> Result<Option<SegmentMeta>, SegmentError> {
    let range = kept_range(keep_from_ns);
    let first = *range.start();
    let mut selection = Selection::new(sources, range);
    selection.enter(ranking.series.len(), numbers);
    let mut exemplars = exemplar_cursors(&selection.sources);
    let mut samples = Samples::default();
    let mut kept = Vec::with_capacity(ranking.series.len());
    for series in &ranking.series {
        selection.load(series.given as usize, &mut samples).map_err(|failure| failure.error)?;
        let floats = FloatsOf {
            times: &samples.timestamps,
            values: &samples.values,
            starts: &samples.start_timestamps,
        };
        let own = next_exemplars(&mut exemplars, &selection.sources, numbers, series.given, first)?;
        kept.push(writer.series(series.tenant, &floats, &samples, own.iter())?);
    }
    metadata(&selection.sources, first, &mut writer)?;
    if writer.is_empty() {
        return Ok(None);
    }
    ranking.retain(&kept);
    writer.finish(&ranking).map(Some)
}

/// The exemplars of a segment by series, a frame at a time.
struct ExemplarCursor {
    frames: VecDeque<FramePlace>,
    rows: VecDeque<ExemplarRow>,
}

fn exemplar_cursors(sources: &[Source]) -> Vec<ExemplarCursor> {
    let cursor = |source: &Source| {
        let frames = source.index.frames.iter().filter(|frame| frame.kind == FrameKind::Exemplars);
        ExemplarCursor { frames: frames.cloned().collect(), rows: VecDeque::new() }
    };
    sources.iter().map(cursor).collect()
}

/// The exemplars of the next series, by time, from `first` on (milliseconds).
fn next_exemplars(
    cursors: &mut [ExemplarCursor],
    sources: &[Source],
    numbers: &[Vec<u32>],
    given: u32,
    first: i64,
) -> Result<Vec<ExemplarRow>, SegmentError> {
    let mut found = Vec::new();
    for ((cursor, source), numbers) in cursors.iter_mut().zip(sources).zip(numbers) {
        loop {
            if cursor.rows.is_empty() {
                let Some(place) = cursor.frames.pop_front() else { break };
                cursor.rows = source.segment.exemplars(&place)?.into();
            }
            match cursor.rows.front() {
                Some(row) if numbers[row.series as usize] == given => found.extend(cursor.rows.pop_front()),
                _ => break,
            }
        }
    }
    found.retain(|row| row.time >= first);
    found.sort_by_key(|row| row.time);
    Ok(found)
}

/// What was told last of each metric.
fn metadata<W: Write + Send>(
    sources: &[Source],
    first: i64,
    writer: &mut SegmentWriter<W>,
) -> Result<(), SegmentError> {
    let mut last = BTreeMap::new();
    for source in sources {
        for row in source.segment.metadata()?.into_iter().filter(|row| row.time >= first) {
            last.insert((row.tenant.clone(), row.metric.clone()), row);
        }
    }
    last.values().try_for_each(|row| writer.metadata(row))
}
