//! Reading a block piece by piece, for one who fetches its parts one by one and keeps them as they like.

use std::ops::Range;

use crate::{
    ChunkError, MAX_SAMPLES,
    block::{Directory, GroupInfo},
    columns_read::Columns,
    error::corrupt,
    group::Group,
    wire::Reader,
};

/// Where the parts of a block lie: its directory, without what follows.
#[derive(Debug, Clone)]
pub struct Outline {
    directory: Directory,
    /// Bytes of the directory.
    head: usize,
}

/// A stretch of a timestamp column of a block.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Stretch {
    /// Number of the column.
    pub column: u32,
    /// First timestamp.
    pub start: u32,
    /// Number of timestamps.
    pub len: u32,
}

/// Some timestamp columns that are read together.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TimesPlace {
    /// Their numbers.
    pub columns: Range<u32>,
    /// Where in the block they lie.
    pub bytes: Range<usize>,
}

impl Outline {
    /// Parses the directory from the first bytes of a block; they may go on behind it. `length` is that of
    /// the whole block.
    pub fn parse(bytes: &[u8], length: usize) -> Result<Self, ChunkError> {
        let (directory, head) = Directory::parse_head(bytes, length)?;
        Ok(Self { directory, head })
    }

    /// Bytes of the directory, with which the block begins.
    pub fn head_bytes(&self) -> usize {
        self.head
    }

    /// Its groups.
    pub fn groups(&self) -> &[GroupInfo] {
        &self.directory.groups
    }

    /// Where in the block a group lies.
    pub fn group_bytes(&self, group: usize) -> Range<usize> {
        let bytes = &self.directory.groups[group].bytes;
        bytes.start + self.head..bytes.end + self.head
    }

    /// Where a timestamp column is found; `None` when there is no such column.
    pub fn times_place(&self, column: u32) -> Option<TimesPlace> {
        let mut first = 0;
        for unit in &self.directory.times {
            let columns = first..first + unit.columns;
            if columns.contains(&column) {
                return Some(TimesPlace {
                    columns,
                    bytes: unit.bytes.start + self.head..unit.bytes.end + self.head,
                });
            }
            first = columns.end;
        }
        None
    }

    /// A group from its bytes.
    pub fn group<'a>(&self, group: usize, bytes: &'a [u8]) -> Result<OpenGroup<'a>, ChunkError> {
        Ok(OpenGroup(Group::parse(&self.directory.groups[group], bytes)?))
    }
}

impl TimesPlace {
    /// Reads some of its columns, ascending, out of its bytes.
    pub fn read(&self, bytes: &[u8], columns: &[u32]) -> Result<Vec<Vec<i64>>, ChunkError> {
        let mut reader = Reader::new(bytes);
        let lens = reader.ints(self.columns.len(), MAX_SAMPLES as u64)?;
        let mut unit = Columns::parse(reader.rest(), lens.into_iter().map(|len| len as u32))?;
        let mut found = Vec::with_capacity(columns.len());
        for column in columns {
            if !self.columns.contains(column) {
                return Err(corrupt("a series has no timestamps"));
            }
            let within = (column - self.columns.start) as usize;
            let len = unit.len_of(within);
            let mut times = Vec::with_capacity(len);
            unit.numbers(within, 0..len, &mut times)?;
            found.push(times);
        }
        Ok(found)
    }
}

/// A parsed group.
pub struct OpenGroup<'a>(Group<'a>);

impl<'a> OpenGroup<'a> {
    /// Number of its entries, each a run of samples of one series; series ascend.
    pub fn entries(&self) -> usize {
        self.0.entries.len()
    }

    /// Number of the entry's series in the block.
    pub fn series(&self, entry: usize) -> u32 {
        self.0.entries[entry].series
    }

    /// Where its timestamps stand. They were not looked at: the column may be shorter.
    pub fn times(&self, entry: usize) -> Stretch {
        let times = self.0.entries[entry].times;
        Stretch { column: times.column, start: times.start, len: times.len }
    }

    /// What its columns mean; empty for floats.
    pub fn layout(&self, entry: usize) -> &'a [u8] {
        self.0.layouts[self.0.entries[entry].layout as usize]
    }

    /// Number of its columns.
    pub fn columns(&self, entry: usize) -> usize {
        self.0.entries[entry].columns as usize
    }

    /// Appends the samples at these positions of the entry, column by column. Entries that are read one after
    /// the other are read faster.
    pub fn values(
        &mut self,
        entry: usize,
        at: Range<usize>,
        values: &mut Vec<f64>,
    ) -> Result<(), ChunkError> {
        let entry = self.0.entries[entry];
        if at.start > at.end || at.end > entry.times.len as usize {
            return Err(ChunkError::Input("a run has fewer samples than were asked for"));
        }
        for column in entry.column..entry.column + entry.columns {
            self.0.columns.values(column as usize, at.clone(), values)?;
        }
        Ok(())
    }
}
