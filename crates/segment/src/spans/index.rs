//! The index of a segment of spans: streams, operations, and per granule what it may hold.

use bytes::Bytes;

use crate::codec::{Malformed, Reader, put_bytes, put_varint, put_zigzag};

/// First byte of the index, before its version: an index of logs begins with its version, 1.
const MARK: u8 = b'S';
/// Version of the index.
const VERSION: u64 = 1;
/// zstd level of the index.
const ZSTD_LEVEL: i32 = 1;
/// Most bytes of an index once decompressed.
const MAX_BYTES: usize = 1 << 30;

/// A stream with spans in the segment.
#[derive(Debug, Clone, PartialEq, Eq)]
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
    /// Earliest start.
    pub min: i64,
    /// Latest start.
    pub max: i64,
    /// Longest duration in nanoseconds.
    pub longest: i64,
    /// One bit per status code that occurs.
    pub statuses: u8,
    /// Numbers of its streams, rising.
    pub streams: Vec<u32>,
    /// Numbers of its operations, rising.
    pub operations: Vec<u32>,
    /// Filter over trace ids.
    pub traces: Bytes,
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
    /// Granules by row.
    pub granules: Vec<Granule>,
}

fn put_rising(out: &mut Vec<u8>, numbers: &[u32]) {
    put_varint(out, numbers.len() as u64);
    let mut last = 0;
    for number in numbers {
        put_varint(out, u64::from(number - last));
        last = *number;
    }
}

fn rising(reader: &mut Reader<'_>, below: usize, what: &'static str) -> Result<Vec<u32>, Malformed> {
    let (count, mut last) = (reader.count(1, what)?, 0u32);
    let mut numbers = Vec::with_capacity(count);
    for place in 0..count {
        let step = reader.varint32(what)?;
        last = last.checked_add(step).filter(|_| place == 0 || step > 0).ok_or(Malformed(what))?;
        if last as usize >= below {
            return Err(Malformed(what));
        }
        numbers.push(last);
    }
    Ok(numbers)
}

impl SpanIndex {
    /// Rows of the segment.
    pub fn rows(&self) -> u64 {
        self.granules.iter().map(|granule| u64::from(granule.rows)).sum()
    }

    /// About the bytes of memory it takes, decoded from this.
    pub fn memory(&self, encoded: &[u8]) -> usize {
        let numbers =
            |granule: &Granule| (granule.streams.len() + granule.operations.len()) * size_of::<u32>();
        let granules =
            self.granules.len() * size_of::<Granule>() + self.granules.iter().map(numbers).sum::<usize>();
        let names = self.streams.iter().map(|s| s.tenant.len() + s.labels.len() + size_of::<StreamName>());
        let texts = self.operations.iter().chain(&self.attributes).map(|n| n.len() + size_of::<String>());
        let bytes = encoded.first_chunk().map_or(0, |length| u64::from_le_bytes(*length) as usize);
        bytes + granules + names.sum::<usize>() + texts.sum::<usize>()
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
        for names in [&self.operations, &self.attributes] {
            put_varint(&mut out, names.len() as u64);
            names.iter().for_each(|name| put_bytes(&mut out, name.as_bytes()));
        }
        put_varint(&mut out, self.granules.len() as u64);
        for granule in &self.granules {
            put_varint(&mut out, u64::from(granule.rows));
            put_zigzag(&mut out, granule.min);
            put_varint(&mut out, granule.max.wrapping_sub(granule.min) as u64);
            put_zigzag(&mut out, granule.longest);
            out.push(granule.statuses);
            put_rising(&mut out, &granule.streams);
            put_rising(&mut out, &granule.operations);
            put_bytes(&mut out, &granule.traces);
        }
        let mut file = (out.len() as u64).to_le_bytes().to_vec();
        file.extend_from_slice(&zstd::bulk::compress(&out, ZSTD_LEVEL)?);
        Ok(file)
    }

    /// Reads what [`SpanIndex::encode`] wrote and checks that it hangs together.
    pub fn decode(file: &[u8]) -> Result<Self, Malformed> {
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
        for names in [&mut index.operations, &mut index.attributes] {
            for _ in 0..reader.count(1, "names")? {
                names.push(reader.text("name")?.to_owned());
            }
        }
        for _ in 0..reader.count(8, "granules")? {
            let rows = reader.varint32("rows of a granule")?;
            let min = reader.zigzag("first time of a granule")?;
            let max = min.wrapping_add(reader.varint("last time of a granule")? as i64);
            let longest = reader.zigzag("longest duration of a granule")?;
            let statuses = reader.byte("statuses of a granule")?;
            let streams = rising(&mut reader, index.streams.len(), "streams of a granule")?;
            let operations = rising(&mut reader, index.operations.len(), "operations of a granule")?;
            let traces = reader.bytes("trace filter")?;
            let end = reader.position();
            let traces = bytes.slice(end - traces.len()..end);
            if rows == 0 || max < min {
                return Err(Malformed("granule"));
            }
            index.granules.push(Granule { rows, min, max, longest, statuses, streams, operations, traces });
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
        let granule = |rows| Granule {
            rows,
            min: -5,
            max: 70,
            longest: 3,
            statuses: 5,
            streams: vec![0, 1],
            operations: vec![1],
            traces: Bytes::from_static(&[7; 32]),
        };
        let name = |labels: &str| StreamName { tenant: "t".into(), labels: labels.into() };
        let index = SpanIndex {
            raw_bytes: 77,
            streams: vec![name("{}"), name("{\"a\":\"b\"}")],
            operations: vec!["GET".into(), "PUT".into()],
            attributes: vec!["http.method".into()],
            granules: vec![granule(4_096), granule(1)],
        };
        let file = index.encode().unwrap();
        assert_eq!(SpanIndex::decode(&file).unwrap(), index);
        let plain = zstd::bulk::decompress(&file[8..], 1 << 20).unwrap();
        let framed = |plain: &[u8]| {
            let mut file = (plain.len() as u64).to_le_bytes().to_vec();
            file.extend_from_slice(&zstd::bulk::compress(plain, 1).unwrap());
            file
        };
        for at in 0..plain.len() {
            assert!(SpanIndex::decode(&framed(&plain[..at])).is_err(), "cut at {at}");
            for byte in 0..=u8::MAX {
                let mut bad = plain.clone();
                bad[at] = byte;
                if let Ok(index) = SpanIndex::decode(&framed(&bad)) {
                    for granule in &index.granules {
                        granule.streams.iter().for_each(|stream| _ = &index.streams[*stream as usize]);
                    }
                }
            }
        }
    }
}
