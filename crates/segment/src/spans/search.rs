//! Searching a segment of spans: granules by what the index says, then the columns that are asked about,
//! then the rows that are left.

use std::{ops::Range, sync::atomic::Ordering::Relaxed};

use arrow::{
    array::{Array, ArrayRef, AsArray, MapArray, RecordBatch},
    compute::{concat_batches, sort_to_indices, take_record_batch},
    datatypes::{Int32Type, Int64Type, TimestampNanosecondType, UInt8Type},
};
use hashbrown::HashSet;
use trine_schema::{
    SpanScan, StreamRegistry,
    columns::attributes_of,
    spans::{column, schema},
};

use super::{columns::stored, index::Granule, read::LoadedSpans};
use crate::{SegmentError, file::CheckedReader};

/// Which values of the index the scan asks for.
struct Wanted {
    /// By number of the stream.
    streams: Vec<bool>,
    /// Number of the operation.
    operation: Option<u32>,
    /// Positions of the attributes' columns; `None` for those in the map.
    attributes: Vec<Option<usize>>,
}

impl LoadedSpans {
    /// The spans that satisfy all conditions, newest first when only the newest are asked for.
    pub fn scan(&self, scan: &SpanScan, registry: &StreamRegistry) -> Result<Vec<RecordBatch>, SegmentError> {
        let Some(wanted) = self.wanted(scan, registry) else { return Ok(Vec::new()) };
        let fits = |number: &usize| may_match(&self.index.granules[*number], scan, &wanted);
        let mut order: Vec<usize> = (0..self.granules()).filter(fits).collect();
        let skipped = self.granules() - order.len();
        scan.stats.granules_skipped.fetch_add(skipped as u64, Relaxed);
        if scan.newest.is_some() {
            order.sort_by_key(|number| std::cmp::Reverse(self.index.granules[*number].max));
        }
        let mut found: Vec<RecordBatch> = Vec::new();
        // The newest are looked for granule by granule, everything else by row group, whose dictionaries are then
        // read once.
        let of_one =
            |a: &usize, b: &usize| scan.newest.is_none() && self.places[*a].group == self.places[*b].group;
        for granules in order.chunk_by(of_one) {
            let rows: usize = found.iter().map(RecordBatch::num_rows).sum();
            if let Some(newest) = scan.newest.filter(|newest| rows >= *newest) {
                found = vec![newest_of(&found, newest)?];
                let times =
                    found[0].column(column::TIMESTAMP).as_primitive::<TimestampNanosecondType>().values();
                if times.last().is_none_or(|oldest| *oldest > self.index.granules[granules[0]].max) {
                    break;
                }
            }
            found.extend(self.search(granules, scan, &wanted)?);
        }
        if let Some(newest) = scan.newest.filter(|_| !found.is_empty()) {
            found = vec![newest_of(&found, newest)?];
        }
        for batch in &mut found {
            let mut columns =
                scan.projection.iter().map(|place| batch.column(*place).clone()).collect::<Vec<_>>();
            if let Some(place) =
                scan.projection.iter().position(|p| scan.dictionaries && *p == column::OPERATION)
            {
                columns[place] =
                    arrow::compute::cast(&columns[place], &trine_schema::spans::operation_codes())?;
            }
            let rows = arrow::array::RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
            *batch = RecordBatch::try_new_with_options(scan.schema(), columns, &rows)?;
        }
        let rows: usize = found.iter().map(RecordBatch::num_rows).sum();
        scan.stats.rows_matched.fetch_add(rows as u64, Relaxed);
        Ok(found)
    }

    /// `None` when no row can match.
    fn wanted(&self, scan: &SpanScan, registry: &StreamRegistry) -> Option<Wanted> {
        let of_tenant = |number: &usize| self.index.streams[*number].tenant == scan.tenant.as_str();
        let matches = |number: usize| {
            let stream = registry.get(self.streams[number]);
            of_tenant(&number) && scan.streams.iter().all(|matcher| matcher.matches(&stream))
        };
        let streams: Vec<bool> = (0..self.streams.len()).map(matches).collect();
        let operation = match &scan.operation {
            None => None,
            Some(name) => Some(self.index.operations.iter().position(|known| known == name)? as u32),
        };
        let place = |(name, _): &(String, String)| {
            self.index.attributes.binary_search(name).ok().map(|place| stored::COUNT + place)
        };
        let attributes = scan.attributes.iter().map(place).collect();
        streams.contains(&true).then_some(Wanted { streams, operation, attributes })
    }

    /// The rows of some granules of one row group that match, if there are any.
    fn search(
        &self,
        granules: &[usize],
        scan: &SpanScan,
        wanted: &Wanted,
    ) -> Result<Option<RecordBatch>, SegmentError> {
        let reader = CheckedReader::new(self.file.clone());
        let group = self.places[granules[0]].group;
        let places: Vec<Range<usize>> =
            granules.iter().map(|number| self.places[*number].rows.clone()).collect();
        let indexed: Vec<&Granule> = granules.iter().map(|number| &self.index.granules[*number]).collect();
        let rows = places.iter().map(Range::len).sum();
        let mut selected = vec![true; rows];
        let column = |position: usize| -> Result<ArrayRef, SegmentError> {
            Ok(self.read(&reader, group, &[position], &places)?.column(0).clone())
        };
        if indexed.iter().any(|granule| granule.min < scan.start || granule.max > scan.last) {
            let times = column(stored::TIMESTAMP)?;
            let times = times.as_primitive::<TimestampNanosecondType>().values();
            keep(&mut selected, |row| (scan.start..=scan.last).contains(&times[row]));
        }
        let streams = || indexed.iter().flat_map(|granule| &granule.streams);
        if !streams().all(|stream| wanted.streams[*stream as usize]) {
            // Tenants with equal labels are told apart by their granules.
            let fitting: HashSet<&str> = streams()
                .filter(|stream| wanted.streams[**stream as usize])
                .map(|stream| self.index.streams[*stream as usize].labels.as_str())
                .collect();
            let labels = column(stored::LABELS)?;
            let codes = labels.as_dictionary::<Int32Type>();
            let texts = codes.values().as_string::<i32>();
            let fits: Vec<bool> =
                texts.iter().map(|text| text.is_some_and(|t| fitting.contains(t))).collect();
            let keys = codes.keys().values();
            keep(&mut selected, |row| {
                usize::try_from(keys[row]).is_ok_and(|code| fits.get(code) == Some(&true))
            });
        }
        if let Some(traces) = &scan.traces {
            let ids = column(stored::TRACE_ID)?;
            let ids = ids.as_fixed_size_binary();
            keep(&mut selected, |row| traces.binary_search(&super::filter::trace_id(ids, row)).is_ok());
        }
        if scan.duration != (i64::MIN..=i64::MAX) {
            let durations = column(stored::DURATION)?;
            let durations = durations.as_primitive::<Int64Type>().values();
            keep(&mut selected, |row| scan.duration.contains(&durations[row]));
        }
        if let Some(name) = scan.operation.as_ref().filter(|_| indexed.iter().any(|g| g.operations.len() > 1))
        {
            let names = column(stored::OPERATION)?;
            let names = names.as_string::<i32>();
            keep(&mut selected, |row| names.value(row) == name);
        }
        if let Some(code) = scan.status_code {
            let codes = column(stored::STATUS_CODE)?;
            let codes = codes.as_primitive::<UInt8Type>().values();
            keep(&mut selected, |row| codes[row] == code);
        }
        for ((name, value), place) in scan.attributes.iter().zip(&wanted.attributes) {
            if !selected.contains(&true) {
                break;
            }
            // Without a column of its own it stands in the map.
            match place {
                Some(place) => {
                    let own = column(*place)?;
                    let own = own.as_string::<i32>();
                    keep(&mut selected, |row| own.is_valid(row) && own.value(row) == value);
                }
                None => {
                    let rest = column(stored::ATTRIBUTES)?;
                    let rest: &MapArray = rest.as_map();
                    let first = |row| attributes_of(rest, row).find(|(key, _)| key == name);
                    keep(&mut selected, |row| first(row).is_some_and(|(_, found)| found == value));
                }
            }
        }
        let mut found: Vec<Range<usize>> = Vec::new();
        let hits = places.iter().cloned().flatten().zip(&selected).filter(|(_, kept)| **kept);
        for (place, _) in hits {
            match found.last_mut() {
                Some(last) if last.end == place => last.end = place + 1,
                _ => found.push(place..place + 1),
            }
        }
        let matched = (!found.is_empty()).then(|| self.logical(&reader, granules, &found)).transpose()?;
        let stats = &scan.stats;
        stats.granules_scanned.fetch_add(granules.len() as u64, Relaxed);
        stats.rows_scanned.fetch_add(rows as u64, Relaxed);
        stats.bytes_scanned.fetch_add(reader.bytes_read(), Relaxed);
        Ok(matched)
    }
}

/// Whether the index leaves the granule in.
fn may_match(granule: &Granule, scan: &SpanScan, wanted: &Wanted) -> bool {
    granule.max >= scan.start
        && granule.min <= scan.last
        && granule.longest >= *scan.duration.start()
        && scan.status_code.is_none_or(|code| granule.statuses >> code.min(7) & 1 == 1)
        && scan.traces.as_ref().is_none_or(|ids| {
            ids.iter().any(|id| trine_body::TraceIdBloom::may_contain(&granule.traces, &id.0))
        })
        && wanted.operation.is_none_or(|number| granule.operations.binary_search(&number).is_ok())
        && granule.streams.iter().any(|stream| wanted.streams[*stream as usize])
}

/// Keeps the rows for which `test` holds.
fn keep(selected: &mut [bool], test: impl Fn(usize) -> bool) {
    selected.iter_mut().enumerate().filter(|(_, kept)| **kept).for_each(|(row, kept)| *kept = test(row));
}

/// The rows that started last, newest first.
fn newest_of(batches: &[RecordBatch], most: usize) -> Result<RecordBatch, SegmentError> {
    let all = concat_batches(&schema(), batches)?;
    let newest_first = arrow::compute::SortOptions { descending: true, nulls_first: false };
    let order = sort_to_indices(all.column(column::TIMESTAMP), Some(newest_first), Some(most))?;
    Ok(take_record_batch(&all, &order)?)
}
