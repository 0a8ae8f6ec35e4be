//! Searching a segment of spans: granules by what the index says, then the columns that are asked about,
//! cheap ones first and only where rows are left, then the rows that are left.

use std::{ops::Range, sync::atomic::Ordering::Relaxed};

use arrow::{
    array::{Array, ArrayRef, AsArray, RecordBatch},
    compute::concat_batches,
    datatypes::{Int64Type, TimestampNanosecondType, UInt8Type},
};
use trine_model::TenantId;
use trine_schema::SpanScan;

use super::{
    columns::stored,
    filter::Ids,
    index::{AttributePlaces, Granule, holds},
    numbers::NumberSet,
    read::{CACHED_ROWS, LoadedSpans, Texts},
    rows::AttributeColumns,
    values,
};
use crate::{SegmentError, StreamMatcher, file::CheckedReader};

/// A further column is read for the rows that are left alone when they are less than one in so many.
const FEW_ROWS: usize = 128;

/// What a scan means in one segment.
pub(super) struct Plan {
    /// Granules that may hold rows of the scan, rising.
    pub granules: Vec<usize>,
    /// By number of the stream: whether it fits.
    streams: Vec<bool>,
}

/// A condition on an attribute.
struct Attribute<'a> {
    name: &'a str,
    value: &'a str,
    /// Its columns and the hash of the value in each.
    hashes: Vec<(usize, u64)>,
    places: AttributePlaces,
}

impl Attribute<'_> {
    /// Whether a granule may hold it.
    fn may_be_in(&self, granule: &Granule) -> bool {
        // The map is the first of the columns that may be empty.
        self.places.are_among_others() && granule.holds & 1 == 1
            || self.hashes.iter().any(|(column, hash)| granule.values.may_contain(*column, *hash))
    }
}

impl LoadedSpans {
    /// What is to be read for a scan; `None` when nothing is.
    pub(super) fn plan(
        &self,
        scan: &SpanScan,
        streams: &StreamMatcher,
        ids: Option<&Ids>,
    ) -> Result<Option<Plan>, SegmentError> {
        let matches = streams.matches_each(&self.streams);
        let fitting: Vec<u32> = (0..matches.len() as u32).filter(|n| matches[*n as usize]).collect();
        let of_tenant = |number: &u32| self.index.streams[*number as usize].tenant == scan.tenant.as_str();
        let every_stream = scan.streams.is_empty();
        let operation = match &scan.operation {
            None => None,
            Some(name) => match self.index.operations.iter().position(|known| known == name) {
                Some(number) => Some(number as u32),
                None => return Ok(None),
            },
        };
        if fitting.is_empty() {
            return Ok(None);
        }
        let attributes = self.attributes_of(scan);
        let fits = |granule: &Granule| {
            granule.max >= scan.start
                && granule.min <= scan.last
                && granule.longest >= *scan.duration.start()
                && granule.shortest <= *scan.duration.end()
                && scan.status_code.is_none_or(|code| granule.statuses >> code.min(7) & 1 == 1)
                && operation.is_none_or(|number| granule.operations.contains(number))
                && granule.streams.iter().next().is_some_and(|first| of_tenant(&first))
                && (every_stream || any_of(&granule.streams, &fitting, &matches))
                && attributes.iter().all(|attribute| attribute.may_be_in(granule))
        };
        debug_assert_eq!(holds::COLUMNS[0], stored::ATTRIBUTES);
        let mut granules: Vec<usize> = match ids {
            None => (0..self.granules()).collect(),
            Some(ids) => {
                let traces = self.index.directory.find(&self.reader(), ids.sorted())?;
                traces.into_iter().flat_map(|trace| self.index.granules_of(trace)).collect()
            }
        };
        granules.dedup();
        granules.retain(|number| fits(&self.index.granules[*number]));
        Ok((!granules.is_empty()).then_some(Plan { granules, streams: matches }))
    }

    fn attributes_of<'a>(&self, scan: &'a SpanScan) -> Vec<Attribute<'a>> {
        let of = |(name, value): &'a (String, String)| {
            let places = self.index.attribute(name);
            let hash = |own: usize| (own, values::hash(&self.index.attributes[own], value.as_bytes()));
            Attribute { name, value, hashes: places.own().map(hash).collect(), places }
        };
        let mut attributes: Vec<Attribute<'a>> = scan.attributes.iter().map(of).collect();
        // Columns are cheaper than the map.
        attributes.sort_by_key(|attribute| attribute.places.are_among_others());
        attributes
    }

    /// Numbers of the streams of some granules, each once, rising.
    pub(super) fn streams_of(&self, granules: &[usize]) -> Vec<u32> {
        let mut found = vec![false; self.streams.len()];
        for stream in granules.iter().flat_map(|number| self.index.granules[*number].streams.iter()) {
            found[stream as usize] = true;
        }
        (0..).zip(found).filter(|(_, found)| *found).map(|(stream, _)| stream).collect()
    }

    /// Whether the granule's rows are the tenant's; all of a granule are of one.
    pub(super) fn is_of(&self, granule: usize, tenant: &TenantId) -> bool {
        let first = self.index.granules[granule].streams.iter().next();
        first.is_some_and(|stream| self.index.streams[stream as usize].tenant == tenant.as_str())
    }

    /// The rows of some granules of one row group that satisfy a scan, which started at `start` or later.
    pub(super) fn select<'a>(
        &'a self,
        reader: &'a CheckedReader,
        granules: &[usize],
        (scan, start): (&SpanScan, i64),
        plan: &Plan,
        ids: Option<&Ids>,
    ) -> Result<Selection<'a>, SegmentError> {
        let mut left = Selection::new(self, reader, granules);
        let rows = left.kept.len() as u64;
        self.apply(&mut left, (scan, start), plan, ids)?;
        let stats = &scan.stats;
        stats.granules_scanned.fetch_add(granules.len() as u64, Relaxed);
        stats.rows_scanned.fetch_add(rows, Relaxed);
        Ok(left)
    }

    /// Applies the conditions until no row is left.
    fn apply(
        &self,
        left: &mut Selection<'_>,
        (scan, start): (&SpanScan, i64),
        plan: &Plan,
        ids: Option<&Ids>,
    ) -> Result<(), SegmentError> {
        if left.indexed().any(|granule| granule.min < start || granule.max > scan.last) {
            left.filter(&[stored::TIMESTAMP], |columns| {
                let times = columns[0].as_primitive::<TimestampNanosecondType>().values();
                times.iter().map(|time| u8::from(*time >= start && *time <= scan.last)).collect()
            })?;
        }
        if let Some(ids) = ids {
            left.filter(&[stored::TRACE_ID], |columns| {
                columns[0]
                    .as_fixed_size_binary()
                    .iter()
                    .map(|id| u8::from(id.is_some_and(|id| ids.contains(id))))
                    .collect()
            })?;
        }
        // Codes from 7 on share a bit.
        if let Some(code) = scan.status_code
            && (code >= 7 || left.indexed().any(|granule| granule.statuses != 1 << code))
        {
            left.filter(&[stored::STATUS_CODE], |columns| {
                let codes = columns[0].as_primitive::<UInt8Type>().values();
                codes.iter().map(|found| u8::from(*found == code)).collect()
            })?;
        }
        let (shortest, longest) = (*scan.duration.start(), *scan.duration.end());
        if left.indexed().any(|granule| granule.shortest < shortest || granule.longest > longest) {
            left.filter(&[stored::DURATION], |columns| {
                let durations = columns[0].as_primitive::<Int64Type>().values();
                durations.iter().map(|found| u8::from(*found >= shortest && *found <= longest)).collect()
            })?;
        }
        let streams = if scan.streams.is_empty() { Vec::new() } else { self.streams_of(&left.granules) };
        if !streams.iter().all(|stream| plan.streams[*stream as usize]) {
            // Tenants with equal labels are told apart by their granules.
            let fitting: hashbrown::HashSet<&str> = streams
                .into_iter()
                .filter(|stream| plan.streams[*stream as usize])
                .map(|stream| self.index.streams[stream as usize].labels.as_str())
                .collect();
            left.filter(&[stored::LABELS], |columns| {
                fitting_texts(&columns[0], |text| text.is_some_and(|text| fitting.contains(text)))
            })?;
        }
        if let Some(name) = &scan.operation
            && left.indexed().any(|granule| granule.operations.iter().nth(1).is_some())
        {
            left.filter(&[stored::OPERATION], |columns| {
                fitting_texts(&columns[0], |text| text == Some(name))
            })?;
        }
        for Attribute { name, value, places, .. } in self.attributes_of(scan) {
            let positions = self.attribute_positions(&left.granules, &places);
            left.filter(&positions, |columns| {
                let found = AttributeColumns::new(name, &places, |position| {
                    positions.binary_search(&position).ok().map(|place| &columns[place])
                });
                match found.only() {
                    Some(own) => fitting_texts(own, |text| text == Some(value)),
                    None => {
                        let rows = columns.first().map_or(0, arrow::array::Array::len);
                        (0..rows).map(|row| u8::from(found.get(row) == Some(value))).collect()
                    }
                }
            })?;
        }
        Ok(())
    }
}

/// 1 for each row whose text passes; each text of a dictionary is looked at once.
fn fitting_texts(column: &ArrayRef, test: impl Fn(Option<&str>) -> bool) -> Vec<u8> {
    match Texts::of(column) {
        Texts::Coded(codes, values) => {
            let fits: Vec<u8> = values.iter().map(|text| u8::from(test(text))).collect();
            let null = u8::from(test(None));
            let fits = |code: &u32| fits.get(*code as usize).copied().unwrap_or(0);
            let keys = codes.keys();
            match keys.nulls() {
                None => keys.values().iter().map(fits).collect(),
                Some(nulls) => {
                    let keys = keys.values().iter().zip(nulls);
                    keys.map(|(code, valid)| if valid { fits(code) } else { null }).collect()
                }
            }
        }
        texts @ Texts::Plain(_) => (0..column.len()).map(|row| u8::from(test(texts.get(row)))).collect(),
    }
}

/// Whether a set has one of these numbers; `fits` tells the same by number.
fn any_of(set: &NumberSet, numbers: &[u32], fits: &[bool]) -> bool {
    /// Above so many it is quicker to go through the set.
    const FEW: usize = 16;
    if numbers.len() <= FEW {
        numbers.iter().any(|number| set.contains(*number))
    } else {
        set.iter().any(|number| fits[number as usize])
    }
}

/// Rows of some granules of a row group that are still in question.
pub(super) struct Selection<'a> {
    spans: &'a LoadedSpans,
    reader: &'a CheckedReader,
    /// Granules with rows that are left.
    pub granules: Vec<usize>,
    /// Their rows one behind the other: 1 for those that are left.
    kept: Vec<u8>,
    /// Number of rows that are left.
    count: usize,
}

impl<'a> Selection<'a> {
    /// All rows.
    fn new(spans: &'a LoadedSpans, reader: &'a CheckedReader, granules: &[usize]) -> Self {
        let rows = granules.iter().map(|number| spans.places[*number].rows.len()).sum();
        Self { spans, reader, granules: granules.to_vec(), kept: vec![1; rows], count: rows }
    }

    /// Whether no row is left.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Number of rows that are left.
    pub fn count(&self) -> usize {
        self.count
    }

    fn indexed(&self) -> impl Iterator<Item = &'a Granule> + '_ {
        self.granules.iter().map(|number| &self.spans.index.granules[*number])
    }

    /// Keeps the rows of which `test` gives 1. It is given columns (by position, rising), of the rows that
    /// are left or of all; without columns no row is kept.
    fn filter(
        &mut self,
        positions: &[usize],
        test: impl Fn(&[ArrayRef]) -> Vec<u8>,
    ) -> Result<(), SegmentError> {
        if self.is_empty() {
            return Ok(());
        }
        if positions.is_empty() {
            self.kept.fill(0);
            self.narrow();
            return Ok(());
        }
        if self.count * FEW_ROWS < self.kept.len() {
            let group = self.spans.places[self.granules[0]].group;
            let read = self.spans.read(self.reader, group, positions, &self.rows())?;
            let mut passed = test(read.columns()).into_iter();
            self.kept
                .iter_mut()
                .filter(|kept| **kept == 1)
                .for_each(|kept| *kept = passed.next().unwrap_or(0));
        } else {
            let batches = self.columns(positions, CACHED_ROWS)?;
            let mut left = self.kept.as_mut_slice();
            for batch in &batches {
                let (kept, later) = left.split_at_mut(batch.num_rows());
                kept.iter_mut().zip(test(batch.columns())).for_each(|(kept, passed)| *kept &= passed);
                left = later;
            }
        }
        self.narrow();
        Ok(())
    }

    /// A column of all rows of the granules that are left.
    pub fn column(&self, position: usize) -> Result<ArrayRef, SegmentError> {
        let read = self.columns(&[position], usize::MAX)?;
        Ok(concat_batches(&read[0].schema(), &read)?.column(0).clone())
    }

    fn columns(&self, positions: &[usize], most: usize) -> Result<Vec<RecordBatch>, SegmentError> {
        let places = self.granules.iter().map(|number| self.spans.places[*number].rows.clone());
        let places: Vec<Range<usize>> = places.collect();
        let group = self.spans.places[self.granules[0]].group;
        self.spans.read_batches(self.reader, group, positions, &places, most)
    }

    /// Drops granules without rows.
    fn narrow(&mut self) {
        let (mut start, mut kept) = (0, Vec::with_capacity(self.kept.len()));
        let (spans, rows) = (self.spans, &self.kept);
        self.granules.retain(|number| {
            let end = start + spans.places[*number].rows.len();
            let of_granule = &rows[start..end];
            start = end;
            let left = of_granule.contains(&1);
            if left {
                kept.extend_from_slice(of_granule);
            }
            left
        });
        self.kept = kept;
        self.count = self.kept.iter().map(|kept| usize::from(*kept)).sum();
    }

    /// The rows that are left, by their places in the row group.
    pub fn rows(&self) -> Vec<Range<usize>> {
        self.parts(usize::MAX).pop().map(|(_, rows)| rows).unwrap_or_default()
    }

    /// Granules and the rows of them that are left, in parts of about so many rows.
    pub fn parts(&self, most: usize) -> Vec<(Vec<usize>, Vec<Range<usize>>)> {
        let mut parts: Vec<(Vec<usize>, Vec<Range<usize>>)> = Vec::new();
        let (mut start, mut rows) = (0, most);
        for number in &self.granules {
            let place = &self.spans.places[*number].rows;
            let of_granule = &self.kept[start..start + place.len()];
            start += place.len();
            if rows >= most {
                parts.push((Vec::new(), Vec::new()));
                rows = 0;
            }
            let Some((granules, pieces)) = parts.last_mut() else { break };
            granules.push(*number);
            rows += add_pieces(pieces, of_granule, place.start);
        }
        parts
    }

    /// Positions of the rows that are left among all rows of the granules that are left.
    pub fn kept(&self) -> impl Iterator<Item = usize> + '_ {
        memchr::memchr_iter(1, &self.kept)
    }
}

/// Adds the pieces of a granule's rows that are kept; the first row is `base`. Returns how many rows.
fn add_pieces(pieces: &mut Vec<Range<usize>>, kept: &[u8], base: usize) -> usize {
    let mut add = |more: Range<usize>| match pieces.last_mut() {
        Some(last) if last.end == more.start => last.end = more.end,
        _ => pieces.push(more),
    };
    if !kept.contains(&0) {
        add(base..base + kept.len());
        return kept.len();
    }
    memchr::memchr_iter(1, kept).map(|row| add(base + row..base + row + 1)).count()
}
