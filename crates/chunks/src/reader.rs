//! Reading a block: one series, a group of series, all of it as columns.

use std::ops::{Range, RangeInclusive};

use crate::{
    ChunkError,
    block::{Directory, GroupInfo},
    error::corrupt,
    group::{Entry, Group},
    times::Times,
};

/// A parsed block. What parsing reads is its directory; groups are read when they are asked for.
#[derive(Debug, Clone)]
pub struct Block<'a> {
    directory: Directory,
    body: &'a [u8],
}

impl<'a> Block<'a> {
    /// Parses the directory of a block.
    pub fn parse(bytes: &'a [u8]) -> Result<Self, ChunkError> {
        let (directory, body) = Directory::parse(bytes)?;
        Ok(Self { directory, body })
    }

    /// Its groups, in the order of [`Reader::group`]'s numbers.
    pub fn groups(&self) -> &[GroupInfo] {
        &self.directory.groups
    }

    /// One more than the highest number of a series.
    pub fn series(&self) -> u32 {
        self.directory.groups.iter().map(|group| group.series.end() + 1).max().unwrap_or(0)
    }

    /// Earliest and latest timestamp (ns) of all samples, if there are any.
    pub fn time_range(&self) -> Option<RangeInclusive<i64>> {
        let groups = || self.directory.groups.iter().filter(|group| group.min_time <= group.max_time);
        let min = groups().map(|group| group.min_time).min()?;
        Some(min..=groups().map(|group| group.max_time).max()?)
    }

    /// A reader, which keeps timestamp columns and the group read last in memory.
    pub fn reader(&self) -> Reader<'a> {
        let Directory { times, groups } = &self.directory;
        Reader {
            times: Times::new(times, self.body),
            groups: groups.clone(),
            body: self.body,
            open: None,
            values: Vec::new(),
        }
    }

    pub(crate) fn directory(&self) -> &Directory {
        &self.directory
    }

    /// Parses one group.
    pub(crate) fn open(&self, group: usize) -> Result<Group<'a>, ChunkError> {
        let info = &self.directory.groups[group];
        Group::parse(info, &self.body[info.bytes.clone()])
    }

    pub(crate) fn body(&self) -> &'a [u8] {
        self.body
    }
}

/// A run of samples of one series within the range that was asked for.
#[derive(Debug, Clone, Copy)]
pub struct Run<'r> {
    /// The series' number.
    pub series: u32,
    /// What the columns mean; empty for floats.
    pub layout: &'r [u8],
    /// Timestamps, ns.
    pub times: &'r [i64],
    columns: &'r [f64],
}

impl<'r> Run<'r> {
    /// The values of a series of floats.
    pub fn values(&self) -> &'r [f64] {
        &self.columns[..self.times.len().min(self.columns.len())]
    }

    /// One slice per column, of a value per timestamp.
    pub fn columns(&self) -> impl ExactSizeIterator<Item = &'r [f64]> + use<'r> {
        self.columns.chunks_exact(self.times.len().max(1))
    }
}

/// Reads series of a block.
pub struct Reader<'a> {
    times: Times<'a>,
    groups: Vec<GroupInfo>,
    body: &'a [u8],
    open: Option<(usize, Group<'a>)>,
    values: Vec<f64>,
}

impl Reader<'_> {
    /// Appends the samples of one series of floats with timestamps in `range` (ns).
    pub fn series(
        &mut self,
        series: u32,
        range: &RangeInclusive<i64>,
        times: &mut Vec<i64>,
        values: &mut Vec<f64>,
    ) -> Result<(), ChunkError> {
        self.runs(series, range, |run| {
            times.extend_from_slice(run.times);
            values.extend_from_slice(run.values());
        })
    }

    /// Hands the runs of one series to `visit`, in the order of their groups.
    pub fn runs(
        &mut self,
        series: u32,
        range: &RangeInclusive<i64>,
        mut visit: impl FnMut(Run<'_>),
    ) -> Result<(), ChunkError> {
        for group in 0..self.groups.len() {
            let info = &self.groups[group];
            if info.series.contains(&series) && info.overlaps(range) {
                let entries = self.open(group)?;
                let from = entries.partition_point(|entry| entry.series < series);
                let to = entries.partition_point(|entry| entry.series <= series);
                self.visit(from..to, range, &mut visit)?;
            }
        }
        Ok(())
    }

    /// Hands all runs of one group to `visit`. A group whose ends lie outside of `range` (ns) costs nothing.
    pub fn group(
        &mut self,
        group: usize,
        range: &RangeInclusive<i64>,
        mut visit: impl FnMut(Run<'_>),
    ) -> Result<(), ChunkError> {
        if !self.groups[group].overlaps(range) {
            return Ok(());
        }
        let entries = self.open(group)?.len();
        self.visit(0..entries, range, &mut visit)
    }

    /// Hands all runs of the block to `visit`.
    pub fn all(
        &mut self,
        range: &RangeInclusive<i64>,
        mut visit: impl FnMut(Run<'_>),
    ) -> Result<(), ChunkError> {
        (0..self.groups.len()).try_for_each(|group| self.group(group, range, &mut visit))
    }

    /// Compressed bytes that reading one whole series touches: heads of its groups, and its own.
    pub fn bytes_of(&mut self, series: u32) -> Result<(usize, usize), ChunkError> {
        let (mut heads, mut own) = (0, 0);
        for group in 0..self.groups.len() {
            if self.groups[group].series.contains(&series) {
                let size = self.groups[group].size();
                self.open(group)?;
                let Some((_, open)) = &self.open else { continue };
                heads += size - open.columns.data_len();
                let entries = open.entries.iter().filter(|entry| entry.series == series);
                let columns = entries.flat_map(|entry| entry.column..entry.column + entry.columns);
                own += columns.map(|column| open.columns.bytes_of(column as usize)).sum::<usize>();
            }
        }
        Ok((heads, own))
    }

    fn open(&mut self, group: usize) -> Result<&[Entry], ChunkError> {
        if self.open.as_ref().is_none_or(|(open, _)| *open != group) {
            self.open = None;
            let info = &self.groups[group];
            self.open = Some((group, Group::parse(info, &self.body[info.bytes.clone()])?));
        }
        Ok(self.open.as_ref().map_or(&[], |(_, group)| &group.entries))
    }

    /// Reads entries of the open group.
    fn visit(
        &mut self,
        entries: Range<usize>,
        range: &RangeInclusive<i64>,
        visit: &mut impl FnMut(Run<'_>),
    ) -> Result<(), ChunkError> {
        let (_, group) = self.open.as_mut().ok_or(corrupt("no group is open"))?;
        for entry in &group.entries[entries] {
            let times = self.times.get(entry.times)?;
            let from = times.partition_point(|time| time < range.start());
            let to = times.partition_point(|time| time <= range.end()).max(from);
            if from == to {
                continue;
            }
            self.values.clear();
            for column in entry.column..entry.column + entry.columns {
                group.columns.values(column as usize, from..to, &mut self.values)?;
            }
            let layout = group.layouts[entry.layout as usize];
            visit(Run { series: entry.series, layout, times: &times[from..to], columns: &self.values });
        }
        Ok(())
    }
}
