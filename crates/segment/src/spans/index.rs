//! The index of a segment of spans: streams, operations, and per granule what it may hold.

use std::ops::Range;

use bytes::Bytes;
use trine_schema::columns::AttributeName;

use super::{directory::Directory, numbers::NumberSet, summary::FRAME_TRACES, values::ValueFilter};
use crate::codec::{Malformed, Reader, put_bytes, put_varint, put_zigzag};

/// First byte of the index, before its version: an index of logs begins with its version, 1.
const MARK: u8 = b'S';
/// Version of the index.
const VERSION: u64 = 3;
/// Names of attributes without a column of their own that are listed.
pub const MAX_OTHERS: usize = 1_000;
/// zstd level of the index.
const ZSTD_LEVEL: i32 = 1;
/// Most bytes of an index once decompressed.
const MAX_BYTES: usize = 1 << 30;

/// A stream with spans in the segment.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct StreamName {
    /// Its tenant.
    pub tenant: String,
    /// Canonical labels.
    pub labels: String,
}

/// What one granule may hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Granule {
    /// Number of rows.
    pub rows: u32,
    /// Number of the trace of its first row.
    pub first_trace: u32,
    /// Earliest start.
    pub min: i64,
    /// Latest start.
    pub max: i64,
    /// Shortest duration in nanoseconds.
    pub shortest: i64,
    /// Longest duration in nanoseconds.
    pub longest: i64,
    /// One bit per status code that occurs.
    pub statuses: u8,
    /// Which columns that are often empty hold something; see [`holds`].
    pub holds: u8,
    /// Numbers of its streams; all are of one tenant.
    pub streams: NumberSet,
    /// Numbers of its operations.
    pub operations: NumberSet,
    /// Filter over values of attributes with columns of their own.
    pub values: ValueFilter,
}

/// Bits of [`Granule::holds`]: a column whose bit is not set has no value in the granule and is not read.
pub mod holds {
    use super::super::columns::stored;

    /// The columns by bit.
    pub const COLUMNS: [usize; 7] = [
        stored::ATTRIBUTES,
        stored::EVENTS,
        stored::LINKS,
        stored::STATUS_MESSAGE,
        stored::TRACE_STATE,
        stored::SCOPE_NAME,
        stored::PARENT_SPAN_ID,
    ];
}

/// The index of one segment.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SpanIndex {
    /// Bytes of operations and attributes.
    pub raw_bytes: u64,
    /// Streams by number.
    pub streams: Vec<StreamName>,
    /// Operations by number.
    pub operations: Vec<String>,
    /// Attributes with a column of their own, in the order of the columns.
    pub attributes: Vec<String>,
    /// Names of the other attributes, sorted; with more than [`MAX_OTHERS`] of them any may occur.
    pub others: Vec<String>,
    /// Services by number.
    pub services: Vec<String>,
    /// Granules by row.
    pub granules: Vec<Granule>,
    /// Number of traces; they are numbered in the order of the rows.
    pub traces: u32,
    /// The table from the ids of traces to their numbers.
    pub directory: Directory,
    /// Where each frame of summaries lies in the file.
    pub frames: Vec<Range<u64>>,
}

/// Where the values of an attribute stand, by falling precedence. Columns are numbered as
/// [`SpanIndex::attributes`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AttributePlaces {
    /// The column of just this name.
    pub exact: Option<usize>,
    /// Whether the map of other attributes may hold the name.
    pub exact_among_others: bool,
    /// Columns of other spellings.
    pub respelled: Vec<usize>,
    /// Whether the map may hold other spellings.
    pub respelled_among_others: bool,
}

impl AttributePlaces {
    /// Columns, by falling precedence.
    pub fn own(&self) -> impl Iterator<Item = usize> {
        self.exact.into_iter().chain(self.respelled.iter().copied())
    }

    /// Whether the map of other attributes must be looked at.
    pub fn are_among_others(&self) -> bool {
        self.exact_among_others || self.respelled_among_others
    }
}

impl SpanIndex {
    /// Rows of the segment.
    pub fn rows(&self) -> u64 {
        self.granules.iter().map(|granule| u64::from(granule.rows)).sum()
    }

    /// Which columns may hold the attribute that a name means.
    pub fn attribute(&self, name: &str) -> AttributePlaces {
        let meant = AttributeName::new(name);
        let exact = self.attributes.iter().position(|own| own == name);
        let respelled = (0..self.attributes.len()).filter(|own| meant.is_respelled(&self.attributes[*own]));
        let any = self.others.len() > MAX_OTHERS;
        let other = |test: &dyn Fn(&str) -> bool| any || self.others.iter().any(|other| test(other));
        AttributePlaces {
            exact,
            // The first of equal names in a span stands in the column.
            exact_among_others: exact.is_none() && other(&|stored| stored == name),
            respelled: respelled.collect(),
            respelled_among_others: trine_schema::columns::may_be_respelled(name)
                && other(&|stored| meant.is_respelled(stored)),
        }
    }

    /// Granules that have rows of a trace.
    pub fn granules_of(&self, trace: u32) -> Range<usize> {
        let end = self.granules.partition_point(|granule| granule.first_trace <= trace);
        let start = self.granules.partition_point(|granule| granule.first_trace < trace);
        // Unless it begins with the trace, the granule before has its first rows, or all.
        start.saturating_sub(1).min(end)..end
    }

    /// About the bytes of memory it takes, decoded from this.
    pub fn memory(&self, encoded: &[u8]) -> usize {
        let granules = self.granules.len() * size_of::<Granule>();
        let frames = self.frames.len() * size_of::<Range<u64>>();
        let names = self.streams.iter().map(|s| s.tenant.len() + s.labels.len() + size_of::<StreamName>());
        let texts = self.operations.iter().chain(&self.attributes).chain(&self.others).chain(&self.services);
        let texts = texts.map(|name| name.len() + size_of::<String>());
        let bytes = encoded.first_chunk().map_or(0, |length| u64::from_le_bytes(*length) as usize);
        bytes + granules + frames + names.sum::<usize>() + texts.sum::<usize>()
    }

    /// Serialised and compressed.
    pub fn encode(&self) -> std::io::Result<Vec<u8>> {
        let mut out = vec![MARK];
        put_varint(&mut out, VERSION);
        put_varint(&mut out, self.raw_bytes);
        put_varint(&mut out, self.streams.len() as u64);
        for stream in &self.streams {
            put_bytes(&mut out, stream.tenant.as_bytes());
            put_bytes(&mut out, stream.labels.as_bytes());
        }
        for names in [&self.operations, &self.attributes, &self.others, &self.services] {
            put_varint(&mut out, names.len() as u64);
            names.iter().for_each(|name| put_bytes(&mut out, name.as_bytes()));
        }
        put_varint(&mut out, u64::from(self.traces));
        put_varint(&mut out, self.granules.len() as u64);
        let mut last = 0;
        for granule in &self.granules {
            put_varint(&mut out, u64::from(granule.rows));
            put_varint(&mut out, u64::from(granule.first_trace - last));
            last = granule.first_trace;
            put_zigzag(&mut out, granule.min);
            put_varint(&mut out, granule.max.wrapping_sub(granule.min) as u64);
            put_zigzag(&mut out, granule.shortest);
            put_varint(&mut out, granule.longest.wrapping_sub(granule.shortest) as u64);
            out.push(granule.statuses);
            out.push(granule.holds);
            put_bytes(&mut out, granule.streams.bytes());
            put_bytes(&mut out, granule.operations.bytes());
            granule.values.put(&mut out);
        }
        self.directory.put(&mut out);
        put_varint(&mut out, self.frames.len() as u64);
        put_varint(&mut out, self.frames.first().map_or(0, |frame| frame.start));
        self.frames.iter().for_each(|frame| put_varint(&mut out, frame.end - frame.start));
        let mut file = (out.len() as u64).to_le_bytes().to_vec();
        file.extend_from_slice(&zstd::bulk::compress(&out, ZSTD_LEVEL)?);
        Ok(file)
    }

    /// Reads what [`SpanIndex::encode`] wrote and checks that it hangs together and that what it names lies
    /// before `end`.
    pub fn decode(file: &[u8], end: u64) -> Result<Self, Malformed> {
        let (length, frame) = file.split_first_chunk::<8>().ok_or(Malformed("length of the index"))?;
        let length = usize::try_from(u64::from_le_bytes(*length)).unwrap_or(usize::MAX);
        if length > MAX_BYTES {
            return Err(Malformed("length of the index"));
        }
        let bytes = Bytes::from(zstd::bulk::decompress(frame, length).map_err(|_| Malformed("index frame"))?);
        let mut reader = Reader::new(&bytes);
        if reader.byte("kind of the index")? != MARK || reader.varint("version")? != VERSION {
            return Err(Malformed("version of the index"));
        }
        let mut index = Self { raw_bytes: reader.varint("bytes")?, ..Self::default() };
        for _ in 0..reader.count(2, "streams")? {
            let (tenant, labels) = (reader.text("tenant")?.to_owned(), reader.text("labels")?.to_owned());
            index.streams.push(StreamName { tenant, labels });
        }
        for names in [&mut index.operations, &mut index.attributes, &mut index.others, &mut index.services] {
            for _ in 0..reader.count(1, "names")? {
                names.push(reader.text("name")?.to_owned());
            }
        }
        index.traces = reader.varint32("traces")?;
        let mut last = 0u32;
        for number in 0..reader.count(14, "granules")? {
            let rows = reader.varint32("rows of a granule")?;
            last = last.checked_add(reader.varint32("first trace")?).ok_or(Malformed("first trace"))?;
            let min = reader.zigzag("first time of a granule")?;
            let max = min.wrapping_add(reader.varint("last time of a granule")? as i64);
            let shortest = reader.zigzag("shortest duration of a granule")?;
            let longest = shortest.wrapping_add(reader.varint("longest duration of a granule")? as i64);
            let statuses = reader.byte("statuses of a granule")?;
            let holds = reader.byte("columns of a granule")?;
            let set = |reader: &mut Reader<'_>, below, what| {
                let found = reader.bytes(what)?.len();
                let stop = reader.position();
                NumberSet::read(bytes.slice(stop - found..stop), below, what)
            };
            let streams = set(&mut reader, index.streams.len(), "streams of a granule")?;
            let operations = set(&mut reader, index.operations.len(), "operations of a granule")?;
            let values = ValueFilter::read(&mut reader, &bytes)?;
            if rows == 0 || max < min || longest < shortest || last >= index.traces || number == 0 && last > 0
            {
                return Err(Malformed("granule"));
            }
            index.granules.push(Granule {
                rows,
                first_trace: last,
                min,
                max,
                shortest,
                longest,
                statuses,
                holds,
                streams,
                operations,
                values,
            });
        }
        index.directory = Directory::read(&mut reader, end)?;
        let frames = reader.count(1, "frames")?;
        let mut start = reader.varint("first frame")?;
        for _ in 0..frames {
            let stop = start.checked_add(reader.varint("frame")?).filter(|stop| *stop <= end);
            let stop = stop.ok_or(Malformed("frame"))?;
            index.frames.push(start..stop);
            start = stop;
        }
        if index.frames.len() != (index.traces as usize).div_ceil(FRAME_TRACES) {
            return Err(Malformed("frames"));
        }
        if reader.position() != bytes.len() {
            return Err(Malformed("end of the index"));
        }
        Ok(index)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_index_comes_back_and_damage_never_panics() {
        let granule = |rows, first_trace| Granule {
            rows,
            first_trace,
            min: -5,
            max: 70,
            shortest: -1,
            longest: 3,
            statuses: 5,
            holds: 1,
            streams: NumberSet::new(&[0, 1]),
            operations: NumberSet::new(&[1]),
            values: ValueFilter::build(&[Some(vec![7, 8]), None]),
        };
        let name = |labels: &str| StreamName { tenant: "t".into(), labels: labels.into() };
        let index = SpanIndex {
            raw_bytes: 77,
            streams: vec![name("{}"), name("{\"a\":\"b\"}")],
            operations: vec!["GET".into(), "PUT".into()],
            attributes: vec!["http.method".into(), "x".into()],
            others: vec!["y".into()],
            services: vec!["s".into()],
            granules: vec![granule(4_096, 0), granule(1, 90)],
            traces: 91,
            directory: super::super::directory::encode(&[1, 2], 70).0,
            frames: std::iter::once(900..1_000).collect(),
        };
        assert_eq!((index.granules_of(3), index.granules_of(90)), (0..1, 0..2));
        let file = index.encode().unwrap();
        assert_eq!(SpanIndex::decode(&file, 1_000).unwrap(), index);
        assert!(SpanIndex::decode(&file, 999).is_err());
        let plain = zstd::bulk::decompress(&file[8..], 1 << 20).unwrap();
        let framed = |plain: &[u8]| {
            let mut file = (plain.len() as u64).to_le_bytes().to_vec();
            file.extend_from_slice(&zstd::bulk::compress(plain, 1).unwrap());
            file
        };
        for at in 0..plain.len() {
            assert!(SpanIndex::decode(&framed(&plain[..at]), 1_000).is_err(), "cut at {at}");
            for byte in 0..=u8::MAX {
                let mut bad = plain.clone();
                bad[at] = byte;
                if let Ok(index) = SpanIndex::decode(&framed(&bad), 1_000) {
                    for granule in &index.granules {
                        granule.streams.iter().for_each(|stream| _ = &index.streams[stream as usize]);
                        granule.operations.iter().for_each(|name| _ = &index.operations[name as usize]);
                    }
                }
            }
        }
    }
}
