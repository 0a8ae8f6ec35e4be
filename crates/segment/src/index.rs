//! The index of a segment: streams, granules, time marks, roll-up, attribute names, templates.

use std::{ops::Range, sync::Arc};

use bytes::Bytes;
use trine_body::BlockIndex;

use crate::{
    BodyEncoding,
    codec::{Malformed, Reader, put_bytes, put_varint, put_zigzag},
};

/// Version of the segment format.
pub const VERSION: u32 = 1;
/// A timestamp is kept for every so many rows, so that a time range finds its rows within a stream.
pub const MARK_ROWS: u32 = 256;
/// Nanoseconds of a roll-up bucket.
pub const MINUTE_NS: i64 = 60_000_000_000;
/// Levels a roll-up tells apart ([`trine_model::Level::ALL`]).
pub const LEVELS: usize = 7;
/// zstd level of the index; it is small and read whole.
const INDEX_ZSTD_LEVEL: i32 = 3;
/// What the allocator takes for an allocation beside its bytes, about.
const ALLOCATION: usize = 16;
/// Most bytes of an index once decompressed.
const MAX_INDEX_BYTES: usize = 1 << 30;
/// Set in the level mask of a roll-up entry when numbers of rows at the minute's start follow.
const HAS_STARTS: u8 = 1 << 7;

/// A stream of the segment.
#[derive(Debug, Clone)]
pub struct StreamName {
    /// Position in [`Index::tenants`].
    pub tenant: u32,
    /// Canonical labels.
    pub labels: Arc<str>,
    /// Identity across processes.
    pub id: u128,
}

/// The rows of one stream in one run.
#[derive(Debug, Clone)]
pub struct StreamEntry {
    /// Position in [`Index::names`].
    pub name: u32,
    /// Rows in the file.
    pub rows: Range<u32>,
    /// Earliest timestamp.
    pub min: i64,
    /// Latest timestamp.
    pub max: i64,
    /// Roll-up entries, encoded; empty when the stream has none.
    pub rollup: Bytes,
}

/// Rows that are sorted among themselves: what one flush or one merge wrote.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SortedRun {
    /// Its first row.
    pub row: u32,
    /// Its first time mark.
    pub mark: u32,
}

/// Rows that are read together.
#[derive(Debug, Clone)]
pub struct Granule {
    /// Rows in the file.
    pub rows: Range<u32>,
    /// Positions in [`Index::streams`] of the streams with rows in it.
    pub streams: Range<u32>,
    /// Parquet row group.
    pub row_group: u32,
    /// Earliest timestamp.
    pub min: i64,
    /// Latest timestamp.
    pub max: i64,
    /// One bit per level that occurs.
    pub levels: u8,
    /// Where the body block lies in the file; empty for plain bodies.
    pub body: Range<u64>,
    /// Templates and tokens of the body block.
    pub body_index: Option<BlockIndex>,
    /// Filter over trace ids; empty when the granule has none.
    pub traces: Bytes,
}

/// Everything a query needs to know before it reads rows.
#[derive(Debug, Clone)]
pub struct Index {
    /// How bodies are stored.
    pub body: BodyEncoding,
    /// Rows in the file.
    pub rows: u32,
    /// Bytes of all bodies.
    pub raw_bytes: u64,
    /// Tenants, sorted.
    pub tenants: Vec<String>,
    /// Runs by row; never empty. Neither streams nor granules nor row groups go across their borders.
    pub runs: Vec<SortedRun>,
    /// Each stream once, in the order of their first rows.
    pub names: Vec<StreamName>,
    /// Streams by row; a stream has one entry in each run with rows of it.
    pub streams: Vec<StreamEntry>,
    /// Granules by row.
    pub granules: Vec<Granule>,
    /// First row of each row group, and the number of rows at the end.
    pub row_groups: Vec<u32>,
    /// Per run the timestamps of its rows 0, [`MARK_ROWS`], 2 * [`MARK_ROWS`], …
    pub marks: Vec<i64>,
    /// Attribute names: tenant, name, rows.
    pub attributes: Vec<(u32, String, u64)>,
    /// Serialised [`trine_body::Dictionary`]; empty for plain bodies.
    pub templates: Bytes,
}

/// Rows of a minute by level.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Minute {
    /// Minutes since 1970.
    pub number: i64,
    /// Rows by level.
    pub counts: [u32; LEVELS],
    /// Rows at the first nanosecond, by level.
    pub starts: [u32; LEVELS],
}

/// First and last nanosecond of a stretch of time by its number: stretches are `width` long, number 0
/// begins in 1970. At the ends of `i64` they are cut.
pub fn span(number: i64, width: i64) -> (i64, i64) {
    let next = number.saturating_add(1).saturating_mul(width);
    (number.saturating_mul(width), if next == i64::MAX { next } else { next.saturating_sub(1) })
}

/// Appends roll-up entries of one stream, rising by minute.
pub fn put_minutes(out: &mut Vec<u8>, minutes: &[Minute]) {
    let mut previous = 0;
    for entry in minutes {
        put_zigzag(out, entry.number - previous);
        previous = entry.number;
        let mut mask = 0u8;
        (0..LEVELS).filter(|level| entry.counts[*level] > 0).for_each(|level| mask |= 1 << level);
        let starts = entry.starts != [0; LEVELS];
        out.push(if starts { mask | HAS_STARTS } else { mask });
        for level in (0..LEVELS).filter(|level| mask >> level & 1 == 1) {
            put_varint(out, u64::from(entry.counts[level]));
            if starts {
                put_varint(out, u64::from(entry.starts[level]));
            }
        }
    }
}

/// Reads what [`put_minutes`] wrote.
pub fn minutes(bytes: &[u8]) -> impl Iterator<Item = Result<Minute, Malformed>> + '_ {
    let (mut reader, mut previous) = (Reader::new(bytes), 0i64);
    std::iter::from_fn(move || {
        (reader.position() < bytes.len()).then(|| {
            previous = previous.wrapping_add(reader.zigzag("minute")?);
            let mask = reader.byte("levels of a minute")?;
            let mut entry = Minute { number: previous, counts: [0; LEVELS], starts: [0; LEVELS] };
            for level in (0..LEVELS).filter(|level| mask >> level & 1 == 1) {
                entry.counts[level] = reader.varint32("rows of a minute")?;
                if mask & HAS_STARTS != 0 {
                    entry.starts[level] = reader.varint32("rows at the start of a minute")?;
                }
            }
            Ok(entry)
        })
    })
}

/// Positions of the streams with rows in a granule that comes after `before`.
pub fn streams_of(streams: &[StreamEntry], before: Option<&Granule>, rows: &Range<u32>) -> Range<u32> {
    // The last stream of the granule before may go on.
    let mut first = before.map_or(0, |before| before.streams.end.saturating_sub(1) as usize);
    while streams.get(first).is_some_and(|stream| stream.rows.end <= rows.start) {
        first += 1;
    }
    let mut end = first;
    while streams.get(end).is_some_and(|stream| stream.rows.start < rows.end) {
        end += 1;
    }
    first as u32..end as u32
}

impl Index {
    /// Serialised and compressed.
    pub fn encode(&self) -> std::io::Result<Vec<u8>> {
        let mut out = Vec::new();
        put_varint(&mut out, u64::from(VERSION));
        out.push(matches!(self.body, BodyEncoding::Template).into());
        put_varint(&mut out, u64::from(self.rows));
        put_varint(&mut out, self.raw_bytes);
        put_varint(&mut out, self.tenants.len() as u64);
        self.tenants.iter().for_each(|tenant| put_bytes(&mut out, tenant.as_bytes()));
        put_varint(&mut out, self.names.len() as u64);
        for name in &self.names {
            put_varint(&mut out, u64::from(name.tenant));
            put_bytes(&mut out, name.labels.as_bytes());
            out.extend_from_slice(&name.id.to_le_bytes());
        }
        put_varint(&mut out, self.streams.len() as u64);
        for stream in &self.streams {
            put_varint(&mut out, u64::from(stream.name));
            put_varint(&mut out, u64::from(stream.rows.end - stream.rows.start));
            put_zigzag(&mut out, stream.min);
            put_varint(&mut out, stream.max.wrapping_sub(stream.min) as u64);
            put_bytes(&mut out, &stream.rollup);
        }
        put_varint(&mut out, self.runs.len() as u64);
        let ends = self.runs[1..].iter().map(|run| run.row).chain([self.rows]);
        for (run, end) in self.runs.iter().zip(ends) {
            put_varint(&mut out, u64::from(end - run.row));
        }
        put_varint(&mut out, self.row_groups.len() as u64);
        let mut previous = 0;
        for row in &self.row_groups {
            put_varint(&mut out, u64::from(row - previous));
            previous = *row;
        }
        put_varint(&mut out, self.granules.len() as u64);
        let mut previous = 0;
        for granule in &self.granules {
            put_varint(&mut out, u64::from(granule.rows.end - granule.rows.start));
            put_varint(&mut out, u64::from(granule.row_group));
            put_zigzag(&mut out, granule.min);
            put_varint(&mut out, granule.max.wrapping_sub(granule.min) as u64);
            out.push(granule.levels);
            put_varint(&mut out, granule.body.start - previous);
            put_varint(&mut out, granule.body.end - granule.body.start);
            previous = granule.body.end;
            let mut index = Vec::new();
            granule.body_index.iter().for_each(|body| body.write(&mut index));
            put_bytes(&mut out, &index);
            put_bytes(&mut out, &granule.traces);
        }
        put_varint(&mut out, self.marks.len() as u64);
        let mut previous = 0i64;
        for mark in &self.marks {
            put_zigzag(&mut out, mark.wrapping_sub(previous));
            previous = *mark;
        }
        put_varint(&mut out, self.attributes.len() as u64);
        for (tenant, name, rows) in &self.attributes {
            put_varint(&mut out, u64::from(*tenant));
            put_bytes(&mut out, name.as_bytes());
            put_varint(&mut out, *rows);
        }
        put_bytes(&mut out, &self.templates);
        let mut file = (out.len() as u64).to_le_bytes().to_vec();
        file.extend_from_slice(&zstd::bulk::compress(&out, INDEX_ZSTD_LEVEL)?);
        Ok(file)
    }

    /// Reads what [`Index::encode`] wrote and checks that it hangs together. Filters, roll-ups and templates
    /// stay in the decompressed bytes.
    pub fn decode(file: &[u8]) -> Result<Self, Malformed> {
        let (length, frame) = file.split_first_chunk::<8>().ok_or(Malformed("length of the index"))?;
        let length = usize::try_from(u64::from_le_bytes(*length)).unwrap_or(usize::MAX);
        if length > MAX_INDEX_BYTES {
            return Err(Malformed("length of the index"));
        }
        let bytes = zstd::bulk::decompress(frame, length).map_err(|_| Malformed("index frame"))?;
        let bytes = Bytes::from(bytes);
        let mut reader = Reader::new(&bytes);
        let shared = |reader: &mut Reader<'_>, what| -> Result<Bytes, Malformed> {
            let found = reader.bytes(what)?;
            Ok(bytes.slice(reader.position() - found.len()..reader.position()))
        };
        if reader.varint("version")? != u64::from(VERSION) {
            return Err(Malformed("version of the index"));
        }
        let body = match reader.byte("body encoding")? {
            0 => BodyEncoding::Plain,
            1 => BodyEncoding::Template,
            _ => return Err(Malformed("body encoding")),
        };
        let rows = reader.varint32("rows")?;
        if rows == 0 {
            return Err(Malformed("rows"));
        }
        let raw_bytes = reader.varint("bytes of bodies")?;
        let tenants: Vec<String> = (0..reader.count(1, "tenants")?)
            .map(|_| Ok(reader.text("tenant")?.to_owned()))
            .collect::<Result<_, _>>()?;

        let count = reader.count(18, "streams")?;
        let mut names = Vec::with_capacity(count);
        for _ in 0..count {
            let tenant = reader.varint32("tenant of a stream")?;
            let labels = reader.text("labels")?.into();
            if tenant as usize >= tenants.len() {
                return Err(Malformed("tenant of a stream"));
            }
            names.push(StreamName { tenant, labels, id: u128::from_le_bytes(reader.array("stream id")?) });
        }
        let count = reader.count(5, "entries of streams")?;
        let mut streams = Vec::with_capacity(count);
        let mut row = 0u32;
        for _ in 0..count {
            let name = reader.varint32("number of a stream")?;
            let end = row.checked_add(reader.varint32("rows of a stream")?).ok_or(Malformed("rows"))?;
            let min = reader.zigzag("first time of a stream")?;
            let max = min.wrapping_add(reader.varint("last time of a stream")? as i64);
            let rollup = shared(&mut reader, "roll-up")?;
            if name as usize >= names.len() || max < min || end == row {
                return Err(Malformed("stream"));
            }
            streams.push(StreamEntry { name, rows: row..end, min, max, rollup });
            row = end;
        }
        if row != rows {
            return Err(Malformed("rows of the streams"));
        }

        let mut runs = Vec::new();
        let (mut row, mut mark) = (0u32, 0u32);
        for _ in 0..reader.count(1, "runs")? {
            runs.push(SortedRun { row, mark });
            let count = reader.varint32("rows of a run")?;
            row = row.checked_add(count).filter(|_| count > 0).ok_or(Malformed("rows of a run"))?;
            mark += count.div_ceil(MARK_ROWS);
        }
        if row != rows {
            return Err(Malformed("rows of the runs"));
        }
        let mark_count = mark as usize;

        let mut row_groups = Vec::new();
        let mut row = 0u32;
        for _ in 0..reader.count(1, "row groups")? {
            row = row.checked_add(reader.varint32("row group")?).ok_or(Malformed("row group"))?;
            row_groups.push(row);
        }
        if row_groups.first() != Some(&0) || row_groups.last() != Some(&rows) {
            return Err(Malformed("row groups"));
        }

        let count = reader.count(9, "granules")?;
        let mut granules: Vec<Granule> = Vec::with_capacity(count);
        let (mut row, mut position) = (0u32, 0u64);
        for _ in 0..count {
            let end = row.checked_add(reader.varint32("rows of a granule")?).ok_or(Malformed("rows"))?;
            let row_group = reader.varint32("row group of a granule")?;
            let min = reader.zigzag("first time of a granule")?;
            let max = min.wrapping_add(reader.varint("last time of a granule")? as i64);
            let levels = reader.byte("levels of a granule")?;
            let start = position.checked_add(reader.varint("body block")?).ok_or(Malformed("body block"))?;
            let stop = start.checked_add(reader.varint("body block")?).ok_or(Malformed("body block"))?;
            let index = shared(&mut reader, "index of a body block")?;
            let body_index = if index.is_empty() {
                None
            } else {
                Some(BlockIndex::parse(&index).map_err(|_| Malformed("index of a body block"))?)
            };
            let traces = shared(&mut reader, "trace filter")?;
            let group = row_group as usize;
            let inside =
                group + 1 < row_groups.len() && row_groups[group] <= row && end <= row_groups[group + 1];
            let has_body = body == BodyEncoding::Template;
            if !inside
                || end <= row
                || max < min
                || (stop > start) != has_body
                || body_index.is_some() != has_body
            {
                return Err(Malformed("granule"));
            }
            let body = start..stop;
            let rows = row..end;
            let streams = streams_of(&streams, granules.last(), &rows);
            granules.push(Granule { rows, streams, row_group, min, max, levels, body, body_index, traces });
            (row, position) = (end, stop);
        }
        if row != rows {
            return Err(Malformed("rows of the granules"));
        }

        let count = reader.count(1, "time marks")?;
        let mut marks = Vec::with_capacity(count);
        let mut mark = 0i64;
        for _ in 0..count {
            mark = mark.wrapping_add(reader.zigzag("time mark")?);
            marks.push(mark);
        }
        let whole_runs = runs.iter().all(|run: &SortedRun| {
            streams.binary_search_by_key(&run.row, |stream| stream.rows.start).is_ok()
                && granules.binary_search_by_key(&run.row, |granule| granule.rows.start).is_ok()
                && row_groups.binary_search(&run.row).is_ok()
        });
        if marks.len() != mark_count || !whole_runs {
            return Err(Malformed("time marks"));
        }
        let mut attributes = Vec::new();
        for _ in 0..reader.count(3, "attribute names")? {
            let tenant = reader.varint32("tenant of an attribute")?;
            let name = reader.text("attribute name")?.to_owned();
            if tenant as usize >= tenants.len() {
                return Err(Malformed("tenant of an attribute"));
            }
            attributes.push((tenant, name, reader.varint("rows of an attribute")?));
        }
        let templates = shared(&mut reader, "templates")?;
        if reader.position() != bytes.len() {
            return Err(Malformed("end of the index"));
        }
        Ok(Self {
            body,
            rows,
            raw_bytes,
            tenants,
            runs,
            names,
            streams,
            granules,
            row_groups,
            marks,
            attributes,
            templates,
        })
    }

    /// Bytes of memory it takes, read from these bytes.
    pub fn memory(&self, file: &[u8]) -> usize {
        let decompressed = file.first_chunk::<8>().map_or(0, |length| u64::from_le_bytes(*length) as usize);
        let names = self.names.iter().map(|name| size_of::<StreamName>() + name.labels.len() + ALLOCATION);
        let tenants = self.tenants.iter().map(|tenant| size_of::<String>() + tenant.len() + ALLOCATION);
        let attributes = self.attributes.iter();
        let attributes =
            attributes.map(|(_, name, _)| size_of::<(u32, String, u64)>() + name.len() + ALLOCATION);
        let blocks = self.granules.iter().flat_map(|granule| &granule.body_index);
        decompressed
            + names.chain(tenants).chain(attributes).sum::<usize>()
            + blocks.map(|block| block.memory() + ALLOCATION).sum::<usize>()
            + self.granules.capacity() * size_of::<Granule>()
            + self.streams.capacity() * size_of::<StreamEntry>()
            + self.marks.capacity() * size_of::<i64>()
            + self.runs.capacity() * size_of::<SortedRun>()
            + self.row_groups.capacity() * size_of::<u32>()
    }

    /// Position of the granule that holds a row.
    pub fn granule_of(&self, row: u32) -> usize {
        self.granules.partition_point(|granule| granule.rows.end <= row)
    }

    /// The run of a stream's entry: its first row and its time marks.
    pub fn marks_of(&self, stream: &StreamEntry) -> (u32, &[i64]) {
        let position = self.runs.partition_point(|run| run.row <= stream.rows.start);
        let run = self.runs[position - 1];
        let end = self.runs.get(position).map_or(self.marks.len(), |next| next.mark as usize);
        (run.row, &self.marks[run.mark as usize..end])
    }

    /// Rows of a stream that may lie in `start..=last`, and those of them that surely do.
    pub fn rows_in_time(&self, stream: &StreamEntry, start: i64, last: i64) -> (Range<u32>, Range<u32>) {
        let rows = stream.rows.clone();
        if stream.max < start || stream.min > last || start > last {
            return (rows.start..rows.start, rows.start..rows.start);
        }
        // Marks inside the stream, at rows base + (first + i) * MARK_ROWS.
        let (base, marks) = self.marks_of(stream);
        let first = (rows.start - base).div_ceil(MARK_ROWS);
        let marks = &marks[first as usize..(rows.end - base).div_ceil(MARK_ROWS) as usize];
        let row_of = |position: usize| base + (first + position as u32) * MARK_ROWS;
        let (mut may, mut sure) = (rows.clone(), rows.clone());
        if stream.min < start {
            let before = marks.partition_point(|time| *time < start);
            may.start = if before == 0 { rows.start } else { row_of(before - 1) + 1 };
            sure.start = if before == marks.len() { rows.end } else { row_of(before) };
        }
        if stream.max > last {
            let upto = marks.partition_point(|time| *time <= last);
            may.end = if upto == marks.len() { rows.end } else { row_of(upto) };
            sure.end = if upto == 0 { rows.start } else { row_of(upto - 1) + 1 };
        }
        may.end = may.end.max(may.start);
        sure.end = sure.end.max(sure.start);
        (may, sure)
    }

    /// Earliest and latest time that rows of a stream's entry can have.
    pub fn bounds(&self, stream: &StreamEntry, rows: &Range<u32>) -> (i64, i64) {
        let (base, marks) = self.marks_of(stream);
        let (before, after) = ((rows.start - base) / MARK_ROWS, (rows.end - 1 - base).div_ceil(MARK_ROWS));
        let from = base + before * MARK_ROWS >= stream.rows.start;
        let to = base + after * MARK_ROWS < stream.rows.end;
        (
            if from { marks[before as usize] } else { stream.min },
            if to { marks[after as usize] } else { stream.max },
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stream(rows: Range<u32>, times: &[i64]) -> StreamEntry {
        let (min, max) = (times[rows.start as usize], times[rows.end as usize - 1]);
        StreamEntry { name: 0, rows, min, max, rollup: Bytes::new() }
    }

    fn name() -> StreamName {
        StreamName { tenant: 0, labels: "".into(), id: 0 }
    }

    #[test]
    fn marks_never_lose_a_row_and_never_promise_too_much() {
        // Two streams, times with repeats; every range is compared with the plain answer.
        let times: Vec<i64> = (0..700).map(|i| i / 3).chain((0..900).map(|i| 100 + i / 7)).collect();
        // The first stream stands in two runs.
        let marks: Vec<i64> = [&times[..300], &times[300..]]
            .iter()
            .flat_map(|run| run.iter().step_by(MARK_ROWS as usize))
            .copied()
            .collect();
        let index = Index {
            body: BodyEncoding::Plain,
            rows: times.len() as u32,
            raw_bytes: 0,
            tenants: vec![],
            runs: vec![SortedRun { row: 0, mark: 0 }, SortedRun { row: 300, mark: 2 }],
            names: vec![],
            streams: vec![stream(0..300, &times), stream(300..700, &times), stream(700..1600, &times)],
            granules: vec![],
            row_groups: vec![],
            marks,
            attributes: vec![],
            templates: Bytes::new(),
        };
        for entry in &index.streams {
            for start in -2..300 {
                for last in [start - 1, start, start + 1, start + 40, 500] {
                    let (may, sure) = index.rows_in_time(entry, start, last);
                    for row in entry.rows.clone() {
                        let inside = (start..=last).contains(&times[row as usize]);
                        assert!(!inside || may.contains(&row), "row {row} lost in {start}..={last}: {may:?}");
                        assert!(inside || !sure.contains(&row), "row {row} promised in {start}..={last}");
                    }
                    assert!(sure.is_empty() || may.start <= sure.start && sure.end <= may.end);
                    if !may.is_empty() {
                        let (min, max) = index.bounds(entry, &may);
                        let times = &times[may.start as usize..may.end as usize];
                        assert!(min <= times[0] && times[times.len() - 1] <= max);
                    }
                }
            }
        }
    }

    /// Everything that a reader asks of an index whose bytes were taken as good.
    fn use_all(index: &Index) {
        for entry in &index.streams {
            let _ = &index.tenants[index.names[entry.name as usize].tenant as usize];
            index.marks_of(entry);
            for (start, last) in [(i64::MIN, i64::MAX), (1, 50), (entry.max, entry.max), (entry.min, 0)] {
                let (may, sure) = index.rows_in_time(entry, start, last);
                for rows in [may, sure].into_iter().filter(|rows| !rows.is_empty()) {
                    index.bounds(entry, &rows);
                    assert!(index.granule_of(rows.end - 1) < index.granules.len());
                }
            }
            assert!(minutes(&entry.rollup).count() < 1_000);
        }
        for (tenant, _, _) in &index.attributes {
            let _ = &index.tenants[*tenant as usize];
        }
    }

    fn framed(plain: &[u8]) -> Vec<u8> {
        let mut file = (plain.len() as u64).to_le_bytes().to_vec();
        file.extend_from_slice(&zstd::bulk::compress(plain, INDEX_ZSTD_LEVEL).unwrap());
        file
    }

    #[test]
    fn no_bytes_make_a_reader_panic() {
        let times: Vec<i64> = (0..600).collect();
        let granule = |rows: Range<u32>, row_group| Granule {
            rows,
            streams: 0..0,
            row_group,
            min: 0,
            max: 600,
            levels: 1,
            body: 0..0,
            body_index: None,
            traces: Bytes::from_static(&[7; 32]),
        };
        let mut rollup = Vec::new();
        put_minutes(&mut rollup, &[Minute { number: 0, counts: [300; LEVELS], starts: [1; LEVELS] }]);
        let entry = |rows| StreamEntry { rollup: rollup.clone().into(), ..stream(rows, &times) };
        let index = Index {
            body: BodyEncoding::Plain,
            rows: 600,
            raw_bytes: 600,
            tenants: vec!["default".into()],
            runs: vec![SortedRun { row: 0, mark: 0 }, SortedRun { row: 300, mark: 2 }],
            names: vec![name()],
            streams: vec![entry(0..300), entry(300..600)],
            granules: vec![granule(0..300, 0), granule(300..600, 1)],
            row_groups: vec![0, 300, 600],
            marks: vec![0, 256, 300, 556],
            attributes: vec![(0, "order".into(), 600)],
            templates: Bytes::new(),
        };
        let file = index.encode().unwrap();
        let plain = zstd::bulk::decompress(&file[8..], 1 << 20).unwrap();
        assert_eq!(framed(&plain), file);
        use_all(&Index::decode(&file).unwrap());
        let mut taken = 0;
        for at in 0..plain.len() {
            for byte in 0..=u8::MAX {
                let mut bad = plain.clone();
                bad[at] = byte;
                if let Ok(index) = Index::decode(&framed(&bad)) {
                    taken += 1;
                    use_all(&index);
                }
            }
            assert!(Index::decode(&framed(&plain[..at])).is_err());
        }
        assert!(taken > plain.len(), "the checks refuse everything, so nothing was tried");
        // A stream without rows, in a file without rows and runs.
        let mut bytes = Vec::new();
        // `encode` takes no index without runs, so its header and streams are written by hand.
        for number in [u64::from(VERSION), 0, 0, 0, 1] {
            put_varint(&mut bytes, number);
        }
        put_bytes(&mut bytes, b"default");
        bytes.extend_from_slice(&[1, 0, 0]);
        bytes.extend_from_slice(&[0; 16]);
        bytes.extend_from_slice(&[1, 0, 0, 0, 0, 0]);
        bytes.extend_from_slice(&[0, 1, 0, 0, 0, 0, 0]);
        assert!(Index::decode(&framed(&bytes)).is_err());
    }

    #[test]
    fn minutes_come_back() {
        let entry = |number, counts, starts| Minute { number, counts, starts };
        let all = [
            entry(-5, [1, 0, 0, 0, 0, 0, 2], [0; LEVELS]),
            entry(28_000_000, [0, 0, 0, 70_000, 0, 0, 0], [0, 0, 0, 3, 0, 0, 0]),
        ];
        let mut out = Vec::new();
        put_minutes(&mut out, &all);
        assert_eq!(minutes(&out).collect::<Result<Vec<_>, _>>().unwrap(), all);
        assert!(minutes(&out[..out.len() - 1]).any(|entry| entry.is_err()));
    }
}
