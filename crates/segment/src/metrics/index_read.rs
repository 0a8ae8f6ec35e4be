//! Reading the index of a segment of metrics. What it says is checked here, so that nobody who uses it has to.

use std::{ops::RangeInclusive, sync::OnceLock};

use trine_model::TenantId;

use super::{
    index::{Block, BlockPlace, Codes, Column, Family, Found, Label, MetricIndex, Totals, read_code},
    index_write::{MARK, MAX_BYTES, VERSION},
    side::{FrameKind, FramePlace},
};
use crate::codec::{Malformed, Reader};

/// Most series of a segment: each takes bytes only where labels differ.
const MAX_SERIES: usize = 1 << 26;

impl MetricIndex {
    /// Reads what [`super::index_write::Written::encode`] wrote and checks that it hangs together.
    pub(super) fn decode(file: &[u8]) -> Result<Self, Malformed> {
        let (length, frame) = file.split_first_chunk::<8>().ok_or(Malformed("length of the index"))?;
        let length = usize::try_from(u64::from_le_bytes(*length)).unwrap_or(usize::MAX);
        if length > MAX_BYTES {
            return Err(Malformed("length of the index"));
        }
        let bytes = zstd::bulk::decompress(frame, length).map_err(|_| Malformed("index frame"))?;
        let mut reader = Reader::new(&bytes);
        if reader.byte("kind of the index")? != MARK || reader.varint("version")? != VERSION {
            return Err(Malformed("version of the index"));
        }
        let totals = read_totals(&mut reader)?;
        let (labels, text) = read_labels(&mut reader)?;
        let (families, columns) = read_families(&mut reader, &bytes, &labels, totals.tenants.len())?;
        let series = families.last().map_or(0, |family| family.series.end);
        let blocks = read_blocks(&mut reader, series)?;
        let frames = read_frames(&mut reader, series)?;
        if reader.position() != bytes.len() {
            return Err(Malformed("end of the index"));
        }
        let blocks = blocks.into_iter().map(|place| Block { place, outline: OnceLock::new() }).collect();
        Ok(Self {
            totals,
            labels,
            text,
            families,
            columns,
            bytes,
            blocks,
            frames,
            series,
            found: Found::default(),
        })
    }
}

fn read_totals(reader: &mut Reader<'_>) -> Result<Totals, Malformed> {
    let mut totals = Totals {
        rows: reader.varint("rows")?,
        raw_bytes: reader.varint("bytes of samples")?,
        min: reader.zigzag("first time")?,
        max: reader.zigzag("last time")?,
        tenants: Vec::new(),
    };
    for _ in 0..reader.count(1, "tenants")? {
        totals.tenants.push(TenantId::new(reader.text("tenant")?).map_err(|_| Malformed("tenant"))?);
    }
    if totals.tenants.windows(2).any(|two| two[0] >= two[1]) {
        return Err(Malformed("order of tenants"));
    }
    Ok(totals)
}

fn read_labels(reader: &mut Reader<'_>) -> Result<(Vec<Label>, String), Malformed> {
    let (mut labels, mut text) = (Vec::new(), Vec::new());
    for _ in 0..reader.count(2, "labels")? {
        let name = reader.text("name of a label")?.to_owned();
        let count = reader.count(2, "values of a label")?;
        let mut ends = Vec::with_capacity(count);
        let start = text.len();
        let mut last = start..start;
        for _ in 0..count {
            let shared = reader.varint("value of a label")? as usize;
            let rest = reader.bytes("value of a label")?;
            if shared > last.len() || text.len() + shared + rest.len() > MAX_BYTES {
                return Err(Malformed("value of a label"));
            }
            let begin = text.len();
            text.extend_from_within(last.start..last.start + shared);
            text.extend_from_slice(rest);
            last = begin..text.len();
            if std::str::from_utf8(&text[last.clone()]).is_err() {
                return Err(Malformed("value of a label"));
            }
            ends.push(text.len() as u32);
        }
        labels.push(Label { name, ends, start: start as u32 });
    }
    text.shrink_to_fit();
    Ok((labels, String::from_utf8(text).map_err(|_| Malformed("value of a label"))?))
}

fn read_families(
    reader: &mut Reader<'_>,
    bytes: &[u8],
    labels: &[Label],
    tenants: usize,
) -> Result<(Vec<Family>, Vec<Column>), Malformed> {
    let (mut families, mut columns) = (Vec::new(), Vec::new());
    let mut next = 0u32;
    for _ in 0..reader.count(3, "metrics")? {
        let tenant = reader.varint32("tenant of a metric")?;
        let series = reader.varint32("series of a metric")?;
        let start = next;
        next =
            next.checked_add(series).filter(|end| *end < u32::MAX).ok_or(Malformed("series of a metric"))?;
        let last = families.last().map_or(0, |family: &Family| family.tenant);
        if tenant as usize >= tenants || tenant < last || series == 0 {
            return Err(Malformed("tenant of a metric"));
        }
        let first = columns.len() as u32;
        for _ in 0..reader.count(2, "labels of a metric")? {
            let label = reader.varint32("label of a metric")?;
            let values = labels.get(label as usize).ok_or(Malformed("label of a metric"))?.ends.len() as u32;
            let width = reader.byte("codes of a label")?;
            let codes = match width {
                0 => {
                    let code = reader.varint32("codes of a label")?;
                    if code > values {
                        return Err(Malformed("codes of a label"));
                    }
                    Codes::Same(code)
                }
                1 | 2 | 4 => {
                    let place = reader.position();
                    let length = (series as usize)
                        .checked_mul(usize::from(width))
                        .ok_or(Malformed("codes of a label"))?;
                    reader.take(length, "codes of a label")?;
                    let codes = bytes[place..place + length].chunks_exact(usize::from(width));
                    if codes.map(read_code).any(|code| code > values) {
                        return Err(Malformed("codes of a label"));
                    }
                    Codes::Each { width, place: place as u32 }
                }
                _ => return Err(Malformed("codes of a label")),
            };
            columns.push(Column { label, codes });
        }
        let columns = first..columns.len() as u32;
        families.push(Family { tenant, series: start..next, columns });
    }
    if next as usize > MAX_SERIES {
        return Err(Malformed("number of series"));
    }
    Ok((families, columns))
}

fn times(reader: &mut Reader<'_>) -> Result<RangeInclusive<i64>, Malformed> {
    let first = reader.zigzag("first time")?;
    let last = first.wrapping_add(reader.varint("last time")? as i64);
    if last < first { Err(Malformed("last time")) } else { Ok(first..=last) }
}

fn read_blocks(reader: &mut Reader<'_>, series: u32) -> Result<Vec<BlockPlace>, Malformed> {
    let mut blocks = Vec::new();
    let mut end = 0u64;
    for _ in 0..reader.count(8, "blocks")? {
        let gap = reader.varint("place of a block")?;
        let offset = end.checked_add(gap).ok_or(Malformed("place of a block"))?;
        let length = reader.varint("length of a block")?;
        end = offset.checked_add(length).ok_or(Malformed("length of a block"))?;
        let head = reader.varint("directory of a block")?;
        if head > length {
            return Err(Malformed("directory of a block"));
        }
        let times = times(reader)?;
        let (samples, runs) = (reader.varint("samples of a block")?, reader.varint("runs of a block")?);
        let mut numbers = Vec::new();
        let (mut local, mut last) = (0u32, 0u32);
        for _ in 0..reader.count(2, "series of a block")? {
            let gap = reader.varint32("series of a block")?;
            let count = reader.varint32("series of a block")?;
            let file = last.checked_add(gap).ok_or(Malformed("series of a block"))?;
            last =
                file.checked_add(count).filter(|end| *end <= series).ok_or(Malformed("series of a block"))?;
            numbers.push((local, file, count));
            local += count;
        }
        blocks.push(BlockPlace { offset, length, head, times, samples, runs, series: numbers });
    }
    Ok(blocks)
}

fn read_frames(reader: &mut Reader<'_>, series: u32) -> Result<Vec<FramePlace>, Malformed> {
    let mut frames = Vec::new();
    for _ in 0..reader.count(9, "frames")? {
        let kind =
            FrameKind::from_number(reader.byte("kind of a frame")?).ok_or(Malformed("kind of a frame"))?;
        let offset = reader.varint("place of a frame")?;
        let length = reader.varint("length of a frame")?;
        let (raw, rows) = (reader.varint("bytes of a frame")?, reader.varint("rows of a frame")?);
        let first = reader.varint32("series of a frame")?;
        let last = first
            .checked_add(reader.varint32("series of a frame")?)
            .filter(|last| *last < series || kind == FrameKind::Metadata)
            .ok_or(Malformed("series of a frame"))?;
        let place =
            FramePlace { kind, offset, length, raw, rows, series: first..=last, times: times(reader)? };
        if !place.is_possible() || offset.checked_add(length).is_none() {
            return Err(Malformed("frame"));
        }
        frames.push(place);
    }
    Ok(frames)
}
