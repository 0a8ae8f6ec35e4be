//! The index of a segment of metrics: labels as columns of codes, and where blocks and frames lie.
//!
//! Series of one tenant and metric that follow one another are a *family*; for each label that any of them has,
//! the family has a column with one code per series: 0 for none, else the value's number + 1. Once
//! decompressed the columns are used as they lie there, so that reading an index costs little more than zstd.

use std::{
    ops::{Range, RangeInclusive},
    sync::{
        OnceLock,
        atomic::{AtomicU32, Ordering::Relaxed},
    },
};

use trine_chunks::Outline;
use trine_model::TenantId;
use trine_schema::{Labels, LabelsError, StreamRef, StreamRegistry, metrics::METRIC_NAME};
use xxhash_rust::xxh3::Xxh3;

use super::{
    labels::Ranking,
    side::{FrameKind, FramePlace},
};
use crate::{
    cache::CachedIndex,
    codec::{Malformed, Reader, put_bytes, put_varint, put_zigzag},
};

/// First byte of the index, before its version: an index of logs begins with its version, 1.
const MARK: u8 = b'M';
/// Version of the index.
const VERSION: u64 = 1;
/// zstd level of the index.
const ZSTD_LEVEL: i32 = 3;
/// Most bytes of an index once decompressed.
const MAX_BYTES: usize = 1 << 30;
/// Not registered yet.
const UNKNOWN: u32 = u32::MAX;

/// Where a block lies and what it holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct BlockPlace {
    pub offset: u64,
    pub length: u64,
    /// Bytes of its directory.
    pub head: u64,
    /// First and last time, milliseconds.
    pub times: RangeInclusive<i64>,
    pub samples: u64,
    /// Runs of samples.
    pub runs: u64,
    /// Numbers in the file of its series: number in the block of the first, in the file, how many.
    pub series: Vec<(u32, u32, u32)>,
}

impl BlockPlace {
    /// Whether its runs gain nothing by being written anew.
    pub(super) fn runs_are_long(&self) -> bool {
        self.samples >= 256 * self.runs
    }

    /// Number in the block of a series of the file.
    pub(super) fn local(&self, series: u32) -> Option<u32> {
        let at = self.series.partition_point(|(_, file, _)| *file <= series).checked_sub(1)?;
        let (local, file, count) = self.series[at];
        (series - file < count).then(|| local + (series - file))
    }

    /// Number in the file of a series of the block.
    pub(super) fn in_file(&self, local: u32) -> Option<u32> {
        let at = self.series.partition_point(|(first, ..)| *first <= local).checked_sub(1)?;
        let (first, file, count) = self.series[at];
        (local - first < count).then(|| file + (local - first))
    }

    /// The runs of numbers of some series, ascending.
    pub(super) fn numbered(series: impl Iterator<Item = u32>) -> Vec<(u32, u32, u32)> {
        let mut runs: Vec<(u32, u32, u32)> = Vec::new();
        for (local, file) in (0..).zip(series) {
            match runs.last_mut() {
                Some((_, first, count)) if *first + *count == file => *count += 1,
                _ => runs.push((local, file, 1)),
            }
        }
        runs
    }
}

/// Numbers about all rows.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Totals {
    pub rows: u64,
    pub raw_bytes: u64,
    /// First and last time, milliseconds.
    pub min: i64,
    pub max: i64,
    /// Whose rows, sorted.
    pub tenants: Vec<TenantId>,
}

/// A block of an index in memory.
pub(super) struct Block {
    pub place: BlockPlace,
    /// Its directory, once somebody read it.
    pub outline: OnceLock<Outline>,
}

/// Series of one tenant and metric.
#[derive(Debug)]
pub(super) struct Family {
    /// Position in [`Totals::tenants`].
    pub tenant: u32,
    pub series: Range<u32>,
    /// Where in [`MetricIndex::columns`] its labels are.
    pub columns: Range<u32>,
}

/// The codes of one label of a family.
#[derive(Debug, Clone, Copy)]
pub(super) struct Column {
    /// Number of the label.
    pub label: u32,
    codes: Codes,
}

#[derive(Debug, Clone, Copy)]
enum Codes {
    /// All series have this one.
    Same(u32),
    /// So many bytes each, from here on.
    Each { width: u8, place: u32 },
}

/// A label name and where its values are.
#[derive(Debug)]
struct Label {
    name: String,
    /// Ends of the values in the text, one after the other; the first begins where the label before ends.
    ends: Vec<u32>,
    start: u32,
}

/// The index in memory.
pub(super) struct MetricIndex {
    pub totals: Totals,
    labels: Vec<Label>,
    /// All values one behind the other.
    text: String,
    families: Vec<Family>,
    columns: Vec<Column>,
    /// What the columns point into.
    bytes: Vec<u8>,
    pub blocks: Vec<Block>,
    pub frames: Vec<FramePlace>,
    series: u32,
    /// References of series in the process's registry, as far as they are known.
    references: Box<[AtomicU32]>,
}

/// What is written as an index.
pub(super) struct Written<'a> {
    pub totals: &'a Totals,
    pub ranking: &'a Ranking,
    pub blocks: &'a [BlockPlace],
    pub frames: &'a [FramePlace],
}

impl Written<'_> {
    /// Serialised and compressed.
    pub(super) fn encode(&self) -> std::io::Result<Vec<u8>> {
        let mut out = vec![MARK];
        put_varint(&mut out, VERSION);
        self.put_totals(&mut out);
        self.put_labels(&mut out);
        self.put_families(&mut out);
        put_varint(&mut out, self.blocks.len() as u64);
        let mut end = 0;
        for block in self.blocks {
            put_varint(&mut out, block.offset - end);
            end = block.offset + block.length;
            put_varint(&mut out, block.length);
            put_varint(&mut out, block.head);
            put_zigzag(&mut out, *block.times.start());
            put_varint(&mut out, block.times.end().wrapping_sub(*block.times.start()) as u64);
            put_varint(&mut out, block.samples);
            put_varint(&mut out, block.runs);
            put_varint(&mut out, block.series.len() as u64);
            let mut last = 0;
            for (_, file, count) in &block.series {
                put_varint(&mut out, u64::from(file - last));
                put_varint(&mut out, u64::from(*count));
                last = file + count;
            }
        }
        put_varint(&mut out, self.frames.len() as u64);
        for frame in self.frames {
            out.push(frame.kind as u8);
            put_varint(&mut out, frame.offset);
            put_varint(&mut out, frame.length);
            put_varint(&mut out, frame.raw);
            put_varint(&mut out, frame.rows);
            put_varint(&mut out, u64::from(*frame.series.start()));
            put_varint(&mut out, u64::from(frame.series.end() - frame.series.start()));
            put_zigzag(&mut out, *frame.times.start());
            put_varint(&mut out, frame.times.end().wrapping_sub(*frame.times.start()) as u64);
        }
        let mut file = (out.len() as u64).to_le_bytes().to_vec();
        file.extend_from_slice(&zstd::bulk::compress(&out, ZSTD_LEVEL)?);
        Ok(file)
    }

    fn put_totals(&self, out: &mut Vec<u8>) {
        put_varint(out, self.totals.rows);
        put_varint(out, self.totals.raw_bytes);
        put_zigzag(out, self.totals.min);
        put_zigzag(out, self.totals.max);
        put_varint(out, self.totals.tenants.len() as u64);
        self.totals.tenants.iter().for_each(|tenant| put_bytes(out, tenant.as_str().as_bytes()));
    }

    fn put_labels(&self, out: &mut Vec<u8>) {
        put_varint(out, self.ranking.names.len() as u64);
        for label in &self.ranking.names {
            put_bytes(out, label.name.as_bytes());
            put_varint(out, label.values.len() as u64);
            let mut last = "";
            for value in &label.values {
                let shared = value.bytes().zip(last.bytes()).take_while(|(a, b)| a == b).count();
                put_varint(out, shared as u64);
                put_bytes(out, &value.as_bytes()[shared..]);
                last = value;
            }
        }
    }

    fn put_families(&self, out: &mut Vec<u8>) {
        let ranking = self.ranking;
        let name = ranking.names.iter().position(|label| label.name == METRIC_NAME).map(|name| name as u32);
        let metric = |series: &super::labels::RankedSeries| {
            ranking.labels(series).iter().find(|(label, _)| Some(*label) == name).map(|(_, value)| *value)
        };
        let same = |a: &super::labels::RankedSeries, b: &super::labels::RankedSeries| {
            a.tenant == b.tenant && metric(a) == metric(b)
        };
        put_varint(out, ranking.series.chunk_by(same).count() as u64);
        let mut codes: Vec<Vec<u32>> = vec![Vec::new(); ranking.names.len()];
        for family in ranking.series.chunk_by(same) {
            let tenant = &ranking.tenants[family[0].tenant as usize];
            let tenant = self.totals.tenants.binary_search(tenant).unwrap_or_default();
            let mut labels: Vec<u32> = Vec::new();
            for (row, series) in family.iter().enumerate() {
                for (label, value) in ranking.labels(series) {
                    let codes = &mut codes[*label as usize];
                    if codes.is_empty() {
                        codes.resize(family.len(), 0);
                        labels.push(*label);
                    }
                    codes[row] = value + 1;
                }
            }
            labels.sort_unstable();
            put_varint(out, tenant as u64);
            put_varint(out, family.len() as u64);
            put_varint(out, labels.len() as u64);
            for label in labels {
                put_varint(out, u64::from(label));
                let codes = std::mem::take(&mut codes[label as usize]);
                put_codes(out, &codes);
            }
        }
    }
}

fn put_codes(out: &mut Vec<u8>, codes: &[u32]) {
    let most = codes.iter().max().copied().unwrap_or_default();
    if codes.iter().all(|code| *code == most) {
        out.push(0);
        put_varint(out, u64::from(most));
        return;
    }
    let width = match most {
        0..=0xff => 1,
        0x100..=0xffff => 2,
        _ => 4,
    };
    out.push(width as u8);
    codes.iter().for_each(|code| out.extend_from_slice(&code.to_le_bytes()[..width]));
}

impl MetricIndex {
    /// Reads what [`Written::encode`] wrote and checks that it hangs together.
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
        let references = (0..series).map(|_| AtomicU32::new(UNKNOWN)).collect();
        Ok(Self { totals, labels, text, families, columns, bytes, blocks, frames, series, references })
    }

    /// Number of series.
    pub(super) fn series(&self) -> u32 {
        self.series
    }

    pub(super) fn families(&self) -> &[Family] {
        &self.families
    }

    pub(super) fn columns(&self, family: &Family) -> &[Column] {
        &self.columns[family.columns.start as usize..family.columns.end as usize]
    }

    /// Number of a label.
    pub(super) fn label(&self, name: &str) -> Option<u32> {
        self.labels.iter().position(|label| label.name == name).map(|label| label as u32)
    }

    /// Number of values of a label.
    pub(super) fn values(&self, label: u32) -> usize {
        self.labels[label as usize].ends.len()
    }

    /// The value behind a code; empty for none.
    pub(super) fn value(&self, label: u32, code: u32) -> &str {
        let Some(number) = code.checked_sub(1) else { return "" };
        let label = &self.labels[label as usize];
        let start = number.checked_sub(1).map_or(label.start, |before| label.ends[before as usize]);
        &self.text[start as usize..label.ends[number as usize] as usize]
    }

    /// The code of a series (counted within its family) in a column of it.
    pub(super) fn code(&self, column: &Column, row: u32) -> u32 {
        match column.codes {
            Codes::Same(code) => code,
            Codes::Each { width, place } => {
                let at = place as usize + row as usize * usize::from(width);
                read_code(&self.bytes[at..at + usize::from(width)])
            }
        }
    }

    /// The one code of a column, if all of its series have it.
    pub(super) fn same(column: &Column) -> Option<u32> {
        match column.codes {
            Codes::Same(code) => Some(code),
            Codes::Each { .. } => None,
        }
    }

    fn family_of(&self, series: u32) -> &Family {
        &self.families[self.families.partition_point(|family| family.series.end <= series)]
    }

    /// Names and values of a series' labels, in the order of [`super::labels`].
    pub(super) fn pairs_of(&self, series: u32) -> impl Iterator<Item = (&str, &str)> {
        let family = self.family_of(series);
        let row = series - family.series.start;
        let pair = move |column: &Column| {
            let code = self.code(column, row);
            let name = self.labels[column.label as usize].name.as_str();
            (code > 0).then(|| (name, self.value(column.label, code)))
        };
        self.columns(family).iter().filter_map(pair)
    }

    /// Labels of a series.
    fn labels_of(&self, series: u32) -> Result<Labels, LabelsError> {
        Labels::new(self.pairs_of(series).map(|(name, value)| (name.into(), value.into())).collect())
    }

    /// A hash that tells series of all segments apart.
    pub(super) fn identity(&self, series: u32) -> u128 {
        let mut hasher = Xxh3::new();
        let mut put = |text: &str| {
            hasher.update(&(text.len() as u32).to_le_bytes());
            hasher.update(text.as_bytes());
        };
        put(self.tenant_of(series).as_str());
        self.pairs_of(series).for_each(|(name, value)| {
            put(name);
            put(value);
        });
        hasher.digest128()
    }

    /// Whose series it is.
    pub(super) fn tenant_of(&self, series: u32) -> &TenantId {
        &self.totals.tenants[self.family_of(series).tenant as usize]
    }

    /// The series in the process's registry, registered when it is new there. There is one registry in a
    /// process.
    pub(super) fn reference(&self, series: u32, registry: &StreamRegistry) -> Result<StreamRef, LabelsError> {
        let known = self.references[series as usize].load(Relaxed);
        if known != UNKNOWN {
            return Ok(known);
        }
        let reference = registry.intern(self.tenant_of(series), self.labels_of(series)?)?;
        self.references[series as usize].store(reference, Relaxed);
        Ok(reference)
    }
}

fn read_code(bytes: &[u8]) -> u32 {
    let mut code = [0; 4];
    code[..bytes.len()].copy_from_slice(bytes);
    u32::from_le_bytes(code)
}

impl CachedIndex for MetricIndex {
    fn memory(&self) -> usize {
        let labels: usize =
            self.labels.iter().map(|label| label.ends.len() * 4 + label.name.len() + 64).sum();
        // The directory of a block takes about six times its bytes once it is read.
        let blocks: u64 = self
            .blocks
            .iter()
            .map(|block| 160 + 12 * block.place.series.len() as u64 + 6 * block.place.head)
            .sum();
        size_of::<Self>()
            + labels
            + self.text.len()
            + self.bytes.len()
            + self.families.len() * size_of::<Family>()
            + self.columns.len() * size_of::<Column>()
            + self.references.len() * 4
            + self.frames.len() * size_of::<FramePlace>()
            + blocks as usize
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
            next.checked_add(series).filter(|end| *end < UNKNOWN).ok_or(Malformed("series of a metric"))?;
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
    // Each series takes bytes only where labels differ, so the references need a bound of their own.
    if next as usize > trine_chunks::MAX_SERIES * 16 {
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

#[cfg(test)]
mod tests {
    use trine_schema::{LabelMatch, LabelMatcher, MetricScan};

    use super::{
        super::labels::{Order, rank},
        *,
    };

    fn series() -> Vec<(TenantId, Labels)> {
        let tenant = |name: &str| TenantId::new(name).unwrap();
        let mut series = Vec::new();
        for number in 0..300 {
            let instance = format!("host-{number}");
            let pairs = [("__name__", "up"), ("instance", instance.as_str())];
            series.push((tenant(["a", "b"][number % 2]), Labels::from_pairs(&pairs)));
        }
        for le in ["+Inf", "10", "2.5"] {
            series.push((tenant("b"), Labels::from_pairs(&[("__name__", "size_bucket"), ("le", le)])));
        }
        series.push((tenant("b"), Labels::from_pairs(&[("__name__", "size_bucket"), ("Zone", "x")])));
        series
    }

    fn encoded(series: &[(TenantId, Labels)]) -> Vec<u8> {
        let ranking = rank(series.iter().map(|(tenant, labels)| (tenant, labels.iter())), Order::File);
        let tenants = vec![TenantId::new("a").unwrap(), TenantId::new("b").unwrap()];
        let totals = Totals { rows: 7, raw_bytes: 112, min: -5, max: 90, tenants };
        let place = |offset, series: Vec<u32>| BlockPlace {
            offset,
            length: 50,
            head: 9,
            times: -5..=90,
            samples: 5,
            runs: 2,
            series: BlockPlace::numbered(series.into_iter()),
        };
        let blocks = [place(4, vec![0, 1, 2, 7, 8]), place(60, vec![303])];
        let frame = FramePlace {
            kind: FrameKind::Exemplars,
            offset: 120,
            length: 10,
            raw: 20,
            rows: 2,
            series: 3..=300,
            times: 0..=1,
        };
        let written = Written { totals: &totals, ranking: &ranking, blocks: &blocks, frames: &[frame] };
        written.encode().unwrap()
    }

    #[test]
    fn an_index_comes_back_and_bounds_are_in_the_order_of_numbers() {
        let series = series();
        let index = MetricIndex::decode(&encoded(&series)).unwrap();
        assert_eq!(index.series() as usize, series.len());
        let mut back: Vec<_> = (0..index.series())
            .map(|number| (index.tenant_of(number).clone(), index.labels_of(number).unwrap()))
            .collect();
        let of_buckets = |(_, labels): &(TenantId, Labels)| labels.get("le").map(str::to_owned);
        let bounds: Vec<String> = back.iter().filter_map(of_buckets).collect();
        assert_eq!(bounds, ["2.5", "10", "+Inf"]);
        let mut want = series;
        back.sort();
        want.sort();
        assert_eq!(back, want);
        let block = &index.blocks[0].place;
        assert_eq!(
            [0, 2, 3, 7, 8, 9].map(|file| block.local(file)),
            [Some(0), Some(2), None, Some(3), Some(4), None]
        );
        assert_eq!([2, 3, 4, 5].map(|local| block.in_file(local)), [Some(2), Some(7), Some(8), None]);
    }

    #[test]
    fn damage_of_an_index_never_panics() {
        let file = encoded(&series());
        let plain = zstd::bulk::decompress(&file[8..], 1 << 20).unwrap();
        let framed = |plain: &[u8]| {
            let mut file = (plain.len() as u64).to_le_bytes().to_vec();
            file.extend_from_slice(&zstd::bulk::compress(plain, 1).unwrap());
            file
        };
        let regex = LabelMatch::Regex(regex::Regex::new("^(?:host-1.*|x)$").unwrap());
        let scan = MetricScan {
            matchers: vec![LabelMatcher { name: "instance".into(), value: regex }],
            ..MetricScan::all(TenantId::new("b").unwrap())
        };
        for at in 0..plain.len() {
            assert!(MetricIndex::decode(&framed(&plain[..at])).is_err(), "cut at {at}");
            for bit in 0..8 {
                let mut bad = plain.clone();
                bad[at] ^= 1 << bit;
                if let Ok(index) = MetricIndex::decode(&framed(&bad)) {
                    index.select(&scan.tenant, &scan.matchers);
                    for number in (0..index.series()).take(400) {
                        _ = (index.labels_of(number), index.identity(number));
                        index.blocks.iter().for_each(|block| {
                            _ = (block.place.local(number), block.place.in_file(number));
                        });
                    }
                }
            }
        }
    }
}
