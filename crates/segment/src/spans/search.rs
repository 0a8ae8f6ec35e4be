//! Searching a segment of spans: granules by what the index says, then the columns that are asked about,
//! cheap ones first and only where rows are left, then the rows that are left.

use std::{ops::Range, sync::atomic::Ordering::Relaxed};

use arrow::{
    array::{Array, ArrayRef, AsArray},
    datatypes::{Int64Type, TimestampNanosecondType, UInt8Type},
};
use trine_model::TenantId;
use trine_schema::{SpanScan, columns::attributes_of};

use super::{
    columns::stored,
    filter::Ids,
    index::{Granule, holds},
    numbers::NumberSet,
    read::{LoadedSpans, Texts},
    values,
};
use crate::{SegmentError, StreamMatcher, file::CheckedReader};

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
    /// Its column and the hash of the value; without a column of its own it stands in the map.
    own: Option<(usize, u64)>,
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
                && attributes.iter().all(|attribute| match attribute.own {
                    Some((column, hash)) => granule.values.may_contain(column, hash),
                    // The map is the first of the columns that may be empty.
                    None => granule.holds & 1 == 1,
                })
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
            let column = self.index.attributes.binary_search(name).ok();
            let own = column.map(|column| (column, values::hash(value.as_bytes())));
            Attribute { name, value, own }
        };
        let mut attributes: Vec<Attribute<'a>> = scan.attributes.iter().map(of).collect();
        // Columns are cheaper than the map.
        attributes.sort_by_key(|attribute| attribute.own.is_none());
        attributes
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
            let times = left.column(stored::TIMESTAMP)?;
            let times = times.as_primitive::<TimestampNanosecondType>().values();
            left.keep(|row| (start..=scan.last).contains(&times[row]));
        }
        if let Some(ids) = ids.filter(|_| !left.is_empty()) {
            let traces = left.column(stored::TRACE_ID)?;
            let traces = traces.as_fixed_size_binary();
            left.keep(|row| ids.contains(traces.value(row)));
        }
        // Codes from 7 on share a bit.
        if let Some(code) = scan.status_code
            && (code >= 7 || left.indexed().any(|granule| granule.statuses != 1 << code))
        {
            let codes = left.column(stored::STATUS_CODE)?;
            let codes = codes.as_primitive::<UInt8Type>().values();
            left.keep(|row| codes[row] == code);
        }
        if left.indexed().any(|granule| {
            granule.shortest < *scan.duration.start() || granule.longest > *scan.duration.end()
        }) {
            let durations = left.column(stored::DURATION)?;
            let durations = durations.as_primitive::<Int64Type>().values();
            left.keep(|row| scan.duration.contains(&durations[row]));
        }
        let streams = |left: &Selection<'_>| -> Vec<u32> {
            left.indexed().flat_map(|granule| granule.streams.iter()).collect()
        };
        if !scan.streams.is_empty() && !streams(left).iter().all(|stream| plan.streams[*stream as usize]) {
            // Tenants with equal labels are told apart by their granules.
            let labels = left.column(stored::LABELS)?;
            let fitting: hashbrown::HashSet<&str> = streams(left)
                .into_iter()
                .filter(|stream| plan.streams[*stream as usize])
                .map(|stream| self.index.streams[stream as usize].labels.as_str())
                .collect();
            left.keep_texts(&labels, |text| text.is_some_and(|text| fitting.contains(text)));
        }
        if let Some(name) = &scan.operation
            && left.indexed().any(|granule| granule.operations.iter().nth(1).is_some())
        {
            let names = left.column(stored::OPERATION)?;
            left.keep_texts(&names, |text| text == Some(name));
        }
        for Attribute { name, value, own } in self.attributes_of(scan) {
            if left.is_empty() {
                break;
            }
            match own {
                Some((column, _)) => {
                    let own = left.column(stored::COUNT + column)?;
                    left.keep_texts(&own, |text| text == Some(value));
                }
                None => {
                    let rest = left.column(stored::ATTRIBUTES)?;
                    let rest = rest.as_map();
                    let first = |row| attributes_of(rest, row).find(|(key, _)| *key == name);
                    left.keep_few(|row| first(row).is_some_and(|(_, found)| found == value));
                }
            }
        }
        Ok(())
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
    /// Their rows one behind the other.
    kept: Vec<bool>,
}

impl<'a> Selection<'a> {
    /// All rows.
    fn new(spans: &'a LoadedSpans, reader: &'a CheckedReader, granules: &[usize]) -> Self {
        let rows = granules.iter().map(|number| spans.places[*number].rows.len()).sum();
        Self { spans, reader, granules: granules.to_vec(), kept: vec![true; rows] }
    }

    /// Whether no row is left.
    pub fn is_empty(&self) -> bool {
        self.granules.is_empty()
    }

    fn indexed(&self) -> impl Iterator<Item = &'a Granule> + '_ {
        self.granules.iter().map(|number| &self.spans.index.granules[*number])
    }

    /// A column of all rows of the granules that are left.
    pub fn column(&self, position: usize) -> Result<ArrayRef, SegmentError> {
        let places: Vec<Range<usize>> =
            self.granules.iter().map(|number| self.spans.places[*number].rows.clone()).collect();
        let group = self.spans.places[self.granules[0]].group;
        Ok(self.spans.read(self.reader, group, &[position], &places)?.column(0).clone())
    }

    /// Keeps the rows for which a cheap test holds.
    fn keep(&mut self, test: impl Fn(usize) -> bool) {
        self.kept.iter_mut().enumerate().for_each(|(row, kept)| *kept &= test(row));
        self.narrow();
    }

    /// Keeps the rows for which a dear test holds.
    fn keep_few(&mut self, test: impl Fn(usize) -> bool) {
        self.kept.iter_mut().enumerate().filter(|(_, kept)| **kept).for_each(|(row, kept)| *kept = test(row));
        self.narrow();
    }

    /// Keeps the rows whose text passes; each text of a dictionary is looked at once.
    fn keep_texts(&mut self, column: &ArrayRef, test: impl Fn(Option<&str>) -> bool) {
        match Texts::of(column) {
            Texts::Coded(codes, values) => {
                let fits: Vec<bool> = values.iter().map(&test).collect();
                let null = test(None);
                let keys = codes.keys();
                if keys.null_count() == 0 {
                    let keys = keys.values();
                    self.keep(|row| fits.get(keys[row] as usize) == Some(&true));
                } else {
                    self.keep(|row| codes.key(row).map_or(null, |code| fits.get(code) == Some(&true)));
                }
            }
            texts @ Texts::Plain(_) => self.keep_few(|row| test(texts.get(row))),
        }
    }

    /// Drops granules without rows.
    fn narrow(&mut self) {
        let (mut start, mut kept) = (0, Vec::with_capacity(self.kept.len()));
        let (spans, rows) = (self.spans, &self.kept);
        self.granules.retain(|number| {
            let end = start + spans.places[*number].rows.len();
            let of_granule = &rows[start..end];
            start = end;
            let left = of_granule.contains(&true);
            if left {
                kept.extend_from_slice(of_granule);
            }
            left
        });
        self.kept = kept;
    }

    /// Number of rows that are left.
    pub fn count(&self) -> usize {
        self.kept.iter().filter(|kept| **kept).count()
    }

    /// The rows that are left, by their places in the row group.
    pub fn rows(&self) -> Vec<Range<usize>> {
        let places = self.granules.iter().flat_map(|number| self.spans.places[*number].rows.clone());
        let mut found: Vec<Range<usize>> = Vec::new();
        for (place, _) in places.zip(&self.kept).filter(|(_, kept)| **kept) {
            match found.last_mut() {
                Some(last) if last.end == place => last.end = place + 1,
                _ => found.push(place..place + 1),
            }
        }
        found
    }

    /// Positions of the rows that are left among all rows of the granules that are left.
    pub fn kept(&self) -> impl Iterator<Item = usize> + '_ {
        self.kept.iter().enumerate().filter(|(_, kept)| **kept).map(|(row, _)| row)
    }
}
