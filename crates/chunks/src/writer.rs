//! Writing a block: series are gathered into groups, timestamps into columns of their own.

use std::collections::HashMap;

use crate::{
    ChunkError, MAX_COLUMNS, MAX_LAYOUT, MAX_SAMPLES, MAX_SERIES,
    block::{Directory, GroupInfo},
    columns::ColumnsWriter,
    times::{TimesRef, TimesWriter},
    wire::put_ints,
};

/// Columns of one group at most: they share models, and a reader of one series parses the head of all.
pub(crate) const GROUP_COLUMNS: usize = 256;
/// Samples of a group after which it is closed; they stay in the cache while it is written.
const GROUP_SAMPLES: usize = 1 << 17;
/// Timestamps in distinct columns of one block.
const MAX_TIMES: usize = 1 << 24;

/// Writes the series of one tenant and time slice into a block.
///
/// Series come in ascending order of their number and should stand next to their like: the same metric, and
/// buckets of one histogram in the order of their bounds. A series may come in several runs, ascending in
/// time.
#[derive(Default)]
pub struct BlockWriter {
    times: TimesWriter,
    distinct: usize,
    groups: Vec<GroupInfo>,
    data: Vec<u8>,
    entries: Vec<Entry>,
    layouts: Vec<Vec<u8>>,
    known_layouts: HashMap<Vec<u8>, u64>,
    columns: ColumnsWriter,
    last_series: u32,
}

/// One run of a series in the group that is being filled.
struct Entry {
    series: u32,
    times: TimesRef,
    columns: u32,
    layout: u64,
    first: i64,
    last: i64,
}

impl BlockWriter {
    /// An empty block.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds samples of a series of floats: timestamps (ns, ascending) and their values.
    pub fn push(&mut self, series: u32, times: &[i64], values: &[f64]) -> Result<(), ChunkError> {
        self.push_run(series, times, &[], &[values])
    }

    /// Adds samples that have several values each, such as histograms: `layout` says what the columns mean
    /// (see [`HistogramLayout`](crate::HistogramLayout)), each column has a value per timestamp.
    pub fn push_run(
        &mut self,
        series: u32,
        times: &[i64],
        layout: &[u8],
        columns: &[&[f64]],
    ) -> Result<(), ChunkError> {
        if times.len() > MAX_SAMPLES || columns.len() > MAX_COLUMNS || layout.len() > MAX_LAYOUT {
            return Err(ChunkError::Input("it has too many samples, columns or bounds; cut it into runs"));
        }
        if columns.is_empty() || columns.iter().any(|column| column.len() != times.len()) {
            return Err(ChunkError::Input("there are no values, or not one per timestamp"));
        }
        if times.windows(2).any(|two| two[0] > two[1]) {
            return Err(ChunkError::Input("timestamps do not ascend; sort them"));
        }
        if series < self.last_series || series as usize >= MAX_SERIES {
            return Err(ChunkError::Input("series do not ascend, or there are too many"));
        }
        self.last_series = series;
        if self.columns.len() > 0
            && (self.columns.len() + columns.len() > GROUP_COLUMNS || self.columns.weight() >= GROUP_SAMPLES)
        {
            self.close_group();
        }
        let known = self.times.len();
        let at = self.times.intern(times);
        if self.times.len() > known {
            self.distinct += times.len();
            if self.distinct > MAX_TIMES {
                return Err(ChunkError::Input("the block has too many timestamps; start another"));
            }
        }
        let next = self.layouts.len() as u64;
        let layout = match self.known_layouts.get(layout) {
            Some(id) => *id,
            None => {
                self.known_layouts.insert(layout.to_vec(), next);
                self.layouts.push(layout.to_vec());
                next
            }
        };
        let mut alike = self.entries.last().is_some_and(|last| last.times == at);
        for column in columns {
            self.columns.push_values(column, alike);
            alike = true;
        }
        let (first, last) = (times.first().copied(), times.last().copied());
        self.entries.push(Entry {
            series,
            times: at,
            columns: columns.len() as u32,
            layout,
            first: first.unwrap_or(i64::MAX),
            last: last.unwrap_or(i64::MIN),
        });
        Ok(())
    }

    fn close_group(&mut self) {
        if self.entries.is_empty() {
            return;
        }
        let start = self.data.len();
        let mut put = |number: fn(&Entry) -> u64| {
            put_ints(&mut self.data, &self.entries.iter().map(number).collect::<Vec<_>>());
        };
        put(|entry| u64::from(entry.series));
        put(|entry| u64::from(entry.times.column));
        put(|entry| u64::from(entry.times.start));
        put(|entry| u64::from(entry.times.len));
        put(|entry| u64::from(entry.columns));
        put(|entry| entry.layout);
        put_ints(&mut self.data, &[self.layouts.len() as u64]);
        put_ints(&mut self.data, &self.layouts.iter().map(|layout| layout.len() as u64).collect::<Vec<_>>());
        self.layouts.iter().for_each(|layout| self.data.extend_from_slice(layout));
        self.columns.finish(&mut self.data);
        self.groups.push(GroupInfo {
            entries: self.entries.len() as u32,
            series: self.entries[0].series..=self.last_of_group(),
            min_time: self.entries.iter().map(|entry| entry.first).min().unwrap_or(i64::MAX),
            max_time: self.entries.iter().map(|entry| entry.last).max().unwrap_or(i64::MIN),
            first_times: 0,
            bytes: start..self.data.len(),
        });
        self.entries.clear();
        self.layouts.clear();
        self.known_layouts.clear();
    }

    fn last_of_group(&self) -> u32 {
        self.entries.last().map_or(0, |entry| entry.series)
    }

    /// The finished block.
    pub fn finish(mut self) -> Vec<u8> {
        self.close_group();
        let mut body = Vec::new();
        let times = self.times.finish(&mut body);
        let shift = body.len();
        body.extend_from_slice(&self.data);
        for group in &mut self.groups {
            group.bytes = group.bytes.start + shift..group.bytes.end + shift;
        }
        let mut out = Vec::with_capacity(body.len() + 64);
        Directory { times, groups: self.groups }.write(&mut out);
        out.extend_from_slice(&body);
        out
    }
}
