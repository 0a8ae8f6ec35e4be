//! The directory of a block: what it holds and where.

use std::ops::{Range, RangeInclusive};

use crate::{
    ChunkError, MAX_SERIES, VERSION,
    error::corrupt,
    wire::{Reader, put_varint, put_zigzag},
};

/// Groups, or units of timestamps, of one block.
const MAX_PARTS: usize = 1 << 20;

/// Some timestamp columns that are compressed together.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct TimeUnit {
    pub columns: u32,
    /// Where it lies, counted from the end of the directory.
    pub bytes: Range<usize>,
}

/// Some series that are compressed together.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GroupInfo {
    /// Runs of series that it holds.
    pub entries: u32,
    /// First and last series; some between them may be in other groups.
    pub series: RangeInclusive<u32>,
    /// Earliest timestamp, ns.
    pub min_time: i64,
    /// Latest timestamp, ns; before `min_time` when there are no samples.
    pub max_time: i64,
    /// What its numbers of timestamp columns count from.
    pub(crate) first_times: u32,
    /// Where it lies, counted from the end of the directory.
    pub(crate) bytes: Range<usize>,
}

impl GroupInfo {
    /// Whether it has samples from `range` (ns), as far as its ends tell.
    pub fn overlaps(&self, range: &RangeInclusive<i64>) -> bool {
        self.min_time <= *range.end() && self.max_time >= *range.start()
    }

    /// Compressed bytes.
    pub fn size(&self) -> usize {
        self.bytes.len()
    }
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Directory {
    pub times: Vec<TimeUnit>,
    pub groups: Vec<GroupInfo>,
}

impl Directory {
    pub(crate) fn write(&self, out: &mut Vec<u8>) {
        out.push(VERSION);
        put_varint(out, self.times.len() as u64);
        put_varint(out, self.groups.len() as u64);
        for unit in &self.times {
            put_varint(out, u64::from(unit.columns));
            put_varint(out, unit.bytes.len() as u64);
        }
        let (mut series, mut time) = (0, 0);
        for group in &self.groups {
            put_varint(out, u64::from(group.entries));
            put_zigzag(out, i64::from(*group.series.start()) - series);
            put_varint(out, u64::from(group.series.end() - group.series.start()));
            put_zigzag(out, group.min_time.wrapping_sub(time));
            put_zigzag(out, group.max_time.wrapping_sub(group.min_time));
            put_varint(out, u64::from(group.first_times));
            put_varint(out, group.bytes.len() as u64);
            (series, time) = (i64::from(*group.series.end()), group.min_time);
        }
    }

    /// Reads the directory; what follows it.
    pub(crate) fn parse(bytes: &[u8]) -> Result<(Self, &[u8]), ChunkError> {
        let (directory, head) = Self::parse_head(bytes, bytes.len())?;
        Ok((directory, &bytes[head..]))
    }

    /// Reads the directory of a block of `length` bytes from its first bytes; how many it takes.
    pub(crate) fn parse_head(bytes: &[u8], length: usize) -> Result<(Self, usize), ChunkError> {
        let mut reader = Reader::new(bytes);
        let version = reader.u8()?;
        if version != VERSION {
            return Err(if version > VERSION { ChunkError::Version(version) } else { corrupt("no version") });
        }
        // Every part takes bytes of its own.
        let (units, groups) = (reader.bounded(MAX_PARTS)?, reader.bounded(MAX_PARTS)?);
        let mut directory = Self::default();
        let mut end = 0usize;
        let mut next = |reader: &mut Reader<'_>| -> Result<Range<usize>, ChunkError> {
            let start = end;
            end += reader.bounded(length)?;
            Ok(start..end)
        };
        let mut columns = 0;
        for _ in 0..units {
            let unit = TimeUnit { columns: reader.bounded(MAX_SERIES)? as u32, bytes: next(&mut reader)? };
            columns += unit.columns as usize;
            if columns > MAX_SERIES {
                return Err(corrupt("there are too many timestamp columns"));
            }
            directory.times.push(unit);
        }
        let (mut series, mut time) = (0i64, 0i64);
        for _ in 0..groups {
            let entries = reader.bounded(MAX_SERIES)? as u32;
            let start = series.wrapping_add(reader.zigzag()?);
            let last = start.wrapping_add(reader.bounded(MAX_SERIES)? as i64);
            if !(0..MAX_SERIES as i64).contains(&start) || last >= MAX_SERIES as i64 {
                return Err(corrupt("a group has impossible series"));
            }
            let min_time = time.wrapping_add(reader.zigzag()?);
            let max_time = min_time.wrapping_add(reader.zigzag()?);
            let first_times = reader.bounded(columns)? as u32;
            let bytes = next(&mut reader)?;
            let series_range = start as u32..=last as u32;
            (series, time) = (last, min_time);
            directory.groups.push(GroupInfo {
                entries,
                series: series_range,
                min_time,
                max_time,
                first_times,
                bytes,
            });
        }
        let head = bytes.len() - reader.rest().len();
        if head.checked_add(end) != Some(length) {
            return Err(corrupt("groups do not fill their block"));
        }
        Ok((directory, head))
    }
}
