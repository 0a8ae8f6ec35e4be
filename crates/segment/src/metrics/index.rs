//! The index of a segment of metrics: labels as columns of codes, and where blocks and frames lie.
//!
//! Series of one tenant and metric that follow one another are a *family*; for each label that any of them has,
//! the family has a column with one code per series: 0 for none, else the value's number + 1. Once
//! decompressed the columns are used as they lie there, so that reading an index costs little more than zstd.

use std::{
    mem::size_of_val,
    ops::{Range, RangeInclusive},
    sync::{
        Arc, OnceLock,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
};

use trine_chunks::Outline;
use trine_model::TenantId;
use trine_schema::{Labels, LabelsError, Stream, StreamRegistry};
use xxhash_rust::xxh3::Xxh3;

use super::{labels::lies_as_answered, side::FramePlace};
use crate::cache::CachedIndex;

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
    pub codes: Codes,
}

#[derive(Debug, Clone, Copy)]
pub(super) enum Codes {
    /// All series have this one.
    Same(u32),
    /// So many bytes each, from here on.
    Each { width: u8, place: u32 },
}

/// A label name and where its values are.
#[derive(Debug)]
pub(super) struct Label {
    pub name: String,
    /// Ends of the values in the text, one after the other; the first begins where the label before ends.
    pub ends: Vec<u32>,
    pub start: u32,
}

/// The index in memory.
pub struct MetricIndex {
    pub(super) totals: Totals,
    pub(super) labels: Vec<Label>,
    /// All values one behind the other.
    pub(super) text: String,
    pub(super) families: Vec<Family>,
    pub(super) columns: Vec<Column>,
    /// What the columns point into.
    pub(super) bytes: Vec<u8>,
    pub(super) blocks: Vec<Block>,
    pub(super) frames: Vec<FramePlace>,
    /// Number of series.
    pub(super) series: u32,
    /// Series that questions have found.
    pub(super) found: Found,
}

/// Series as answers name them. They are not registered: a registry's bound is for those who write.
#[derive(Default)]
pub(super) struct Found {
    streams: OnceLock<Box<[OnceLock<Arc<Stream>>]>>,
    /// Memory of them all.
    bytes: AtomicUsize,
}

impl MetricIndex {
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

    /// Whether these series, ascending and of one tenant, lie in the order of their labels.
    pub(super) fn lie_as_answered(&self, series: &[u32]) -> bool {
        let mut rest = series;
        self.families.iter().all(|family| {
            let (own, others) = rest.split_at(rest.partition_point(|series| *series < family.series.end));
            rest = others;
            let mut names =
                self.columns(family).iter().map(|column| &self.labels[column.label as usize].name);
            own.is_empty() || names.all(|name| lies_as_answered(name))
        })
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

    /// The series as an answer names it; where it is registered too, all share one.
    pub(super) fn stream(&self, series: u32, registry: &StreamRegistry) -> Result<&Arc<Stream>, LabelsError> {
        let Found { streams, bytes } = &self.found;
        let streams = streams.get_or_init(|| {
            let room: Box<[_]> = (0..self.series).map(|_| OnceLock::new()).collect();
            bytes.fetch_add(size_of_val(&*room), Relaxed);
            room
        });
        let place = &streams[series as usize];
        if let Some(known) = place.get() {
            return Ok(known);
        }
        let stream = registry.resolve(self.tenant_of(series), self.labels_of(series)?);
        bytes.fetch_add(stream.memory(), Relaxed);
        Ok(place.get_or_init(|| stream))
    }
}

pub(super) fn read_code(bytes: &[u8]) -> u32 {
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
            + self.found.bytes.load(Relaxed)
            + self.frames.len() * size_of::<FramePlace>()
            + blocks as usize
    }
}

#[cfg(test)]
mod tests {
    use trine_schema::{LabelMatch, LabelMatcher, MetricScan};

    use super::{
        super::{
            index_write::Written,
            labels::{Order, rank},
            side::FrameKind,
        },
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
        assert_eq!(index.series as usize, series.len());
        let mut back: Vec<_> = (0..index.series)
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
                    for number in (0..index.series).take(400) {
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
