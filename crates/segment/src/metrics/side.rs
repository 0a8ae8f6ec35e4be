//! What is rare beside the blocks: exemplars, metadata, and histograms that no layout fits, in frames of zstd.

use std::ops::RangeInclusive;

use trine_model::TenantId;

use crate::codec::{Malformed, Reader, put_bytes, put_varint, put_zigzag};

/// Bytes of rows after which a frame is closed.
pub(super) const FRAME_BYTES: usize = 256 << 10;
/// Most bytes of a frame once decompressed: the last row may be long.
const MAX_FRAME: u64 = 1 << 28;

/// An exemplar of a series.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct ExemplarRow {
    pub series: u32,
    /// Milliseconds.
    pub time: i64,
    pub value: f64,
    /// Its own labels as JSON.
    pub labels: String,
}

/// What was told of a metric.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct MetadataRow {
    pub tenant: TenantId,
    pub metric: String,
    /// Milliseconds.
    pub time: i64,
    /// [`trine_schema::Metadata`] as JSON.
    pub text: String,
}

/// A histogram as it came.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct OddRow {
    pub series: u32,
    /// Milliseconds.
    pub time: i64,
    /// When its counter began, milliseconds; 0 if not known.
    pub start: i64,
    pub payload: Vec<u8>,
}

/// What a frame holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum FrameKind {
    Exemplars = 0,
    Metadata = 1,
    Odd = 2,
}

impl FrameKind {
    pub(super) fn from_number(number: u8) -> Option<Self> {
        [Self::Exemplars, Self::Metadata, Self::Odd].into_iter().find(|kind| *kind as u8 == number)
    }
}

/// Where a frame lies and what is in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct FramePlace {
    pub kind: FrameKind,
    pub offset: u64,
    pub length: u64,
    /// Bytes once decompressed.
    pub raw: u64,
    pub rows: u64,
    /// First and last series; of metadata 0.
    pub series: RangeInclusive<u32>,
    /// First and last time, milliseconds.
    pub times: RangeInclusive<i64>,
}

impl FramePlace {
    pub(super) fn is_possible(&self) -> bool {
        self.raw <= MAX_FRAME && self.series.start() <= self.series.end()
    }
}

/// Rows of one kind on their way into a frame.
#[derive(Default)]
pub(super) struct Frame {
    bytes: Vec<u8>,
    rows: u64,
    series: (u32, u32),
    times: (i64, i64),
    last_time: i64,
}

impl Frame {
    fn row(&mut self, series: u32, time: i64) {
        if self.rows == 0 {
            (self.series, self.times, self.last_time) = ((series, series), (time, time), 0);
        }
        put_varint(&mut self.bytes, u64::from(series - self.series.1));
        put_zigzag(&mut self.bytes, time.wrapping_sub(self.last_time));
        self.series.1 = series;
        self.times = (self.times.0.min(time), self.times.1.max(time));
        self.last_time = time;
        self.rows += 1;
    }

    /// Adds a row; series ascend.
    pub(super) fn exemplar(&mut self, row: &ExemplarRow) {
        self.row(row.series, row.time);
        self.bytes.extend_from_slice(&row.value.to_bits().to_le_bytes());
        put_bytes(&mut self.bytes, row.labels.as_bytes());
    }

    pub(super) fn metadata(&mut self, row: &MetadataRow) {
        self.row(0, row.time);
        put_bytes(&mut self.bytes, row.tenant.as_str().as_bytes());
        put_bytes(&mut self.bytes, row.metric.as_bytes());
        put_bytes(&mut self.bytes, row.text.as_bytes());
    }

    /// Adds a row; series ascend.
    pub(super) fn odd(&mut self, row: &OddRow) {
        self.row(row.series, row.time);
        put_zigzag(&mut self.bytes, row.start);
        put_bytes(&mut self.bytes, &row.payload);
    }

    /// Bytes so far.
    pub(super) fn len(&self) -> usize {
        self.bytes.len()
    }

    /// The compressed frame, which will lie at `offset`; nothing when it has no rows.
    pub(super) fn finish(
        &mut self,
        kind: FrameKind,
        offset: u64,
        level: i32,
    ) -> std::io::Result<Option<(FramePlace, Vec<u8>)>> {
        let frame = std::mem::take(self);
        if frame.rows == 0 {
            return Ok(None);
        }
        let bytes = zstd::bulk::compress(&frame.bytes, level)?;
        let place = FramePlace {
            kind,
            offset,
            length: bytes.len() as u64,
            raw: frame.bytes.len() as u64,
            rows: frame.rows,
            series: frame.series.0..=frame.series.1,
            times: frame.times.0..=frame.times.1,
        };
        Ok(Some((place, bytes)))
    }
}

/// Reads the rows of a frame.
fn rows<T>(
    place: &FramePlace,
    bytes: &[u8],
    mut row: impl FnMut(u32, i64, &mut Reader<'_>) -> Result<T, Malformed>,
) -> Result<Vec<T>, Malformed> {
    let raw = zstd::bulk::decompress(bytes, place.raw as usize).map_err(|_| Malformed("a side frame"))?;
    let mut reader = Reader::new(&raw);
    let mut rows = Vec::new();
    let (mut series, mut time) = (*place.series.start(), 0i64);
    for _ in 0..place.rows {
        let step = reader.varint32("series of a row")?;
        series = series.checked_add(step).ok_or(Malformed("series of a row"))?;
        if series > *place.series.end() {
            return Err(Malformed("series of a row"));
        }
        time = time.wrapping_add(reader.zigzag("time of a row")?);
        rows.push(row(series, time, &mut reader)?);
    }
    if reader.position() == raw.len() { Ok(rows) } else { Err(Malformed("end of a side frame")) }
}

pub(super) fn exemplars(place: &FramePlace, bytes: &[u8]) -> Result<Vec<ExemplarRow>, Malformed> {
    rows(place, bytes, |series, time, reader| {
        let value = f64::from_bits(u64::from_le_bytes(reader.array("value of an exemplar")?));
        Ok(ExemplarRow { series, time, value, labels: reader.text("labels of an exemplar")?.to_owned() })
    })
}

pub(super) fn metadata(place: &FramePlace, bytes: &[u8]) -> Result<Vec<MetadataRow>, Malformed> {
    rows(place, bytes, |_, time, reader| {
        let tenant = TenantId::new(reader.text("tenant")?).map_err(|_| Malformed("tenant"))?;
        let (metric, text) =
            (reader.text("name of a metric")?.to_owned(), reader.text("metadata")?.to_owned());
        Ok(MetadataRow { tenant, metric, time, text })
    })
}

pub(super) fn odd(place: &FramePlace, bytes: &[u8]) -> Result<Vec<OddRow>, Malformed> {
    rows(place, bytes, |series, time, reader| {
        let start = reader.zigzag("start of a histogram")?;
        Ok(OddRow { series, time, start, payload: reader.bytes("histogram")?.to_vec() })
    })
}
