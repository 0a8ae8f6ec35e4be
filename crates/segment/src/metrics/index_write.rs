//! Writing the index of a segment of metrics.

use trine_schema::metrics::METRIC_NAME;

use super::{
    index::{BlockPlace, Totals},
    labels::{LabelValues, RankedSeries, Ranking},
    side::FramePlace,
};
use crate::codec::{put_bytes, put_varint, put_zigzag};

/// First byte of the index, before its version: an index of logs begins with its version, 1.
pub(super) const MARK: u8 = b'M';
/// Version of the index.
pub(super) const VERSION: u64 = 1;
/// Most bytes of an index once decompressed, and of the values of its labels.
pub(super) const MAX_BYTES: usize = 1 << 30;
/// zstd level of the index.
const ZSTD_LEVEL: i32 = 3;
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
        let text = |label: &LabelValues| label.values.iter().map(String::len).sum::<usize>();
        if out.len() + self.ranking.names.iter().map(text).sum::<usize>() > MAX_BYTES {
            let what =
                format!("labels of {} series take more than {MAX_BYTES} bytes", self.ranking.series.len());
            return Err(std::io::Error::other(what));
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
        let metric = |series: &RankedSeries| {
            ranking.labels(series).iter().find(|(label, _)| Some(*label) == name).map(|(_, value)| *value)
        };
        let same = |a: &RankedSeries, b: &RankedSeries| a.tenant == b.tenant && metric(a) == metric(b);
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
