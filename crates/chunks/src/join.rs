//! Bringing blocks together: copying groups as they are, or writing all anew.

use std::ops::RangeInclusive;

use crate::{
    Block, BlockWriter, ChunkError,
    block::{Directory, GroupInfo, TimeUnit},
    columns::PIECE,
    wire::{Reader, put_ints},
};

const ALL_TIMES: RangeInclusive<i64> = i64::MIN..=i64::MAX;

/// A block that is brought together with others.
#[derive(Debug, Clone)]
pub struct Part<'a> {
    /// The block.
    pub block: Block<'a>,
    /// New number of each of its series, ascending.
    pub series: &'a [u32],
}

impl Part<'_> {
    fn renumbered(&self, series: u32) -> Result<u32, ChunkError> {
        self.series.get(series as usize).copied().ok_or(ChunkError::Input("a series has no new number"))
    }
}

/// Copies groups and timestamps of all parts behind one directory; no sample is decoded. Of a series that
/// several parts have, the parts' samples come back in the order of the parts: give them in the order of
/// time.
///
/// Worth it for runs of some hundred samples ([`runs_are_long`]): shorter ones are read faster, and are some percent
/// smaller, when they are written anew ([`merge`]).
pub fn join(parts: &[Part<'_>]) -> Result<Vec<u8>, ChunkError> {
    let (mut times, mut groups) = (Vec::<TimeUnit>::new(), Vec::<GroupInfo>::new());
    let (mut time_bytes, mut group_bytes) = (Vec::new(), Vec::new());
    let mut columns = 0u32;
    for part in parts {
        if part.series.windows(2).any(|two| two[0] >= two[1]) {
            return Err(ChunkError::Input("new numbers of series do not ascend"));
        }
        let first_times = columns;
        for unit in &part.block.directory().times {
            let start = time_bytes.len();
            time_bytes.extend_from_slice(&part.block.body()[unit.bytes.clone()]);
            times.push(TimeUnit { columns: unit.columns, bytes: start..time_bytes.len() });
            columns += unit.columns;
        }
        for group in part.block.groups() {
            let mut reader = Reader::new(&part.block.body()[group.bytes.clone()]);
            let numbers = reader.ints(group.entries as usize, u64::from(u32::MAX))?;
            let mut renumbered = Vec::with_capacity(numbers.len());
            for number in numbers {
                renumbered.push(u64::from(part.renumbered(number as u32)?));
            }
            let start = group_bytes.len();
            put_ints(&mut group_bytes, &renumbered);
            group_bytes.extend_from_slice(reader.rest());
            groups.push(GroupInfo {
                series: part.renumbered(*group.series.start())?..=part.renumbered(*group.series.end())?,
                first_times: first_times + group.first_times,
                bytes: start..group_bytes.len(),
                ..group.clone()
            });
        }
    }
    for group in &mut groups {
        group.bytes = group.bytes.start + time_bytes.len()..group.bytes.end + time_bytes.len();
    }
    let mut out =
        Vec::with_capacity(time_bytes.len() + group_bytes.len() + 64 * (groups.len() + times.len()));
    Directory { times, groups }.write(&mut out);
    out.extend_from_slice(&time_bytes);
    out.extend_from_slice(&group_bytes);
    Ok(out)
}

/// Whether most samples of a block lie in runs that gain nothing by being written anew.
pub fn runs_are_long(block: &Block<'_>) -> Result<bool, ChunkError> {
    let (mut samples, mut runs) = (0u64, 0u64);
    for group in 0..block.groups().len() {
        let group = block.open(group)?;
        samples += group.entries.iter().map(|entry| u64::from(entry.times.len)).sum::<u64>();
        runs += group.entries.len() as u64;
    }
    Ok(samples >= 2 * PIECE as u64 * runs)
}

/// Samples of one series under one layout, on their way into another block.
#[derive(Default)]
struct Gathered {
    layout: Vec<u8>,
    times: Vec<i64>,
    columns: Vec<Vec<f64>>,
}

/// Decodes all parts and writes their series anew, runs of one series as one. Samples are ordered by time; of
/// samples with the same timestamp the one of the last part stays. Runs of different layouts follow one
/// another.
pub fn merge(parts: &[Part<'_>]) -> Result<Vec<u8>, ChunkError> {
    let mut readers: Vec<_> = parts.iter().map(|part| (part, part.block.reader())).collect();
    let mut series: Vec<u32> = parts.iter().flat_map(|part| part.series).copied().collect();
    series.sort_unstable();
    series.dedup();
    let mut writer = BlockWriter::new();
    let mut runs: Vec<Gathered> = Vec::new();
    for series in series {
        runs.clear();
        for (part, reader) in &mut readers {
            let Ok(old) = part.series.binary_search(&series) else { continue };
            reader.runs(old as u32, &ALL_TIMES, |run| gather(&mut runs, run))?;
        }
        for run in &mut runs {
            in_order(run);
        }
        runs.sort_by_key(|run| run.times.first().copied());
        for run in &runs {
            for (at, times) in run.times.chunks(crate::MAX_SAMPLES).enumerate() {
                let from = at * crate::MAX_SAMPLES;
                let columns: Vec<&[f64]> = run.columns.iter().map(|c| &c[from..from + times.len()]).collect();
                writer.push_run(series, times, &run.layout, &columns)?;
            }
        }
    }
    Ok(writer.finish())
}

fn gather(runs: &mut Vec<Gathered>, run: crate::Run<'_>) {
    let fits = |last: &&mut Gathered| last.layout == run.layout && last.columns.len() == run.columns().len();
    let into = match runs.iter_mut().find(fits) {
        Some(into) => into,
        None => {
            runs.push(Gathered {
                layout: run.layout.to_vec(),
                times: Vec::new(),
                columns: vec![Vec::new(); run.columns().len()],
            });
            let last = runs.len() - 1;
            &mut runs[last]
        }
    };
    into.times.extend_from_slice(run.times);
    into.columns.iter_mut().zip(run.columns()).for_each(|(into, column)| into.extend_from_slice(column));
}

/// Sorts samples by time when parts overlapped; the later of two with one timestamp stays.
fn in_order(run: &mut Gathered) {
    if run.times.windows(2).all(|two| two[0] < two[1]) {
        return;
    }
    let mut order: Vec<usize> = (0..run.times.len()).collect();
    order.sort_by_key(|&at| run.times[at]);
    let times = &run.times;
    let order: Vec<usize> = order
        .iter()
        .zip(order.iter().skip(1).map(Some).chain([None]))
        .filter(|(at, next)| next.is_none_or(|next| times[**at] != times[*next]))
        .map(|(at, _)| *at)
        .collect();
    run.columns.iter_mut().for_each(|column| *column = order.iter().map(|&at| column[at]).collect());
    run.times = order.iter().map(|&at| run.times[at]).collect();
}
