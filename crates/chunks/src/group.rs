//! One group of series, parsed.

use crate::{
    ChunkError, MAX_COLUMNS, MAX_LAYOUT, MAX_SAMPLES, MAX_SERIES, block::GroupInfo, columns_read::Columns,
    error::corrupt, times::TimesRef, wire::Reader, writer::GROUP_COLUMNS,
};

pub(crate) struct Group<'a> {
    pub entries: Vec<Entry>,
    pub layouts: Vec<&'a [u8]>,
    pub columns: Columns<'a>,
}

/// A run of samples of one series.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Entry {
    pub series: u32,
    pub times: TimesRef,
    /// Its first column, and how many it has.
    pub column: u32,
    pub columns: u32,
    pub layout: u32,
}

impl<'a> Group<'a> {
    pub(crate) fn parse(info: &GroupInfo, bytes: &'a [u8]) -> Result<Self, ChunkError> {
        let n = info.entries as usize;
        if n > GROUP_COLUMNS {
            return Err(corrupt("a group has too many entries"));
        }
        let mut reader = Reader::new(bytes);
        let series = reader.ints(n, MAX_SERIES as u64)?;
        let times = reader.ints(n, MAX_SERIES as u64)?;
        let starts = reader.ints(n, MAX_SAMPLES as u64)?;
        let lens = reader.ints(n, MAX_SAMPLES as u64)?;
        let counts = reader.ints(n, MAX_COLUMNS as u64)?;
        let layout_ids = reader.ints(n, n as u64)?;
        let count = reader.ints(1, n as u64)?[0] as usize;
        let sizes = reader.ints(count, MAX_LAYOUT as u64)?;
        let mut layouts = Vec::new();
        for size in sizes {
            layouts.push(reader.take(size as usize)?);
        }
        let mut entries = Vec::with_capacity(n);
        let mut column = 0u32;
        for at in 0..n {
            let times = TimesRef {
                column: info.first_times + times[at] as u32,
                start: starts[at] as u32,
                len: lens[at] as u32,
            };
            let columns = counts[at] as u32;
            if layout_ids[at] as usize >= layouts.len() || !info.series.contains(&(series[at] as u32)) {
                return Err(corrupt("an entry does not fit its group"));
            }
            let entry =
                Entry { series: series[at] as u32, times, column, columns, layout: layout_ids[at] as u32 };
            column += columns;
            if column as usize > GROUP_COLUMNS + MAX_COLUMNS {
                return Err(corrupt("a group has too many columns"));
            }
            entries.push(entry);
        }
        let lens: Vec<u32> = entries
            .iter()
            .flat_map(|entry| std::iter::repeat_n(entry.times.len, entry.columns as usize))
            .collect();
        Ok(Self { columns: Columns::parse(reader.rest(), lens.into_iter())?, entries, layouts })
    }
}
