//! Collects the index while a segment is written.

use std::{collections::BTreeMap, ops::Range, sync::Arc};

use arrow::array::{Array, AsArray};
use bytes::Bytes;
use hashbrown::HashMap;
use trine_body::{BlockIndex, TraceIdBloom};
use trine_schema::{Stream, StreamRef, StreamRegistry, logs::column};

use crate::{
    BodyEncoding, SegmentError, StreamOrder,
    index::{
        Granule, Index, LEVELS, MARK_ROWS, MINUTE_NS, Minute, SortedRun, StreamEntry, StreamName,
        put_minutes, span,
    },
    pages::Run,
    write::{GranuleRows, add_run, level_of, stream_refs, timestamps},
};

/// Most attribute names of one tenant that a segment lists; the most frequent ones are kept.
const MAX_ATTRIBUTE_NAMES: usize = 1_000;
/// Most distinct attribute names that are counted before further ones are passed over.
const MAX_COUNTED_NAMES: usize = 20_000;
/// A stream gets a roll-up when it has at most one minute per so many rows; else reading the rows is as cheap.
const ROLLUP_ROWS_PER_MINUTE: usize = 4;
/// A stream with so few minutes always gets a roll-up.
const ROLLUP_FREE_MINUTES: usize = 16;

/// The stream that rows are being added to.
struct OpenStream {
    stream: Arc<Stream>,
    reference: StreamRef,
    tenant: u32,
    first_row: u32,
    min: i64,
    last: i64,
    minutes: Vec<Minute>,
    /// First and last nanosecond of the newest minute.
    minute_first: i64,
    minute_last: i64,
}

pub struct IndexBuilder<'a> {
    registry: &'a StreamRegistry,
    order: StreamOrder<'a>,
    index: Index,
    open: Option<OpenStream>,
    /// Row group that granules are being added to, and how many of its granules have their body block.
    row_group: u32,
    blocks: usize,
    names: AttributeNames,
}

impl<'a> IndexBuilder<'a> {
    pub fn new(registry: &'a StreamRegistry, body: BodyEncoding) -> Self {
        let index = Index {
            body,
            rows: 0,
            raw_bytes: 0,
            tenants: Vec::new(),
            runs: vec![SortedRun { row: 0, mark: 0 }],
            names: Vec::new(),
            streams: Vec::new(),
            granules: Vec::new(),
            row_groups: vec![0],
            marks: Vec::new(),
            attributes: Vec::new(),
            templates: Bytes::new(),
        };
        Self {
            registry,
            order: StreamOrder::new(registry),
            index,
            open: None,
            row_group: 0,
            blocks: 0,
            names: AttributeNames::default(),
        }
    }

    /// Adds the rows of one granule.
    pub fn granule(&mut self, granule: &GranuleRows) -> Result<(), SegmentError> {
        let first_row = self.index.rows;
        let rows = u32::try_from(granule.rows).ok().and_then(|rows| first_row.checked_add(rows));
        let end = rows.ok_or_else(|| SegmentError::Contract("a segment holds at most 2^32 rows".into()))?;
        let (mut min, mut max, mut levels) = (i64::MAX, i64::MIN, 0u8);
        for slice in &granule.slices {
            let (streams, times) = (stream_refs(slice), timestamps(slice));
            let severities =
                slice.column(column::SEVERITY_NUMBER).as_primitive::<arrow::datatypes::UInt8Type>().values();
            let base = self.index.rows;
            let mark = base.next_multiple_of(MARK_ROWS) - base;
            self.index.marks.extend(times.iter().skip(mark as usize).step_by(MARK_ROWS as usize));
            let mut start = 0;
            while start < streams.len() {
                let stream = streams[start];
                let count = streams[start..].iter().take_while(|other| **other == stream).count();
                let run = start..start + count;
                let (first, last) = (times[run.start], times[run.end - 1]);
                self.enter(stream, first)?;
                levels |= self.add_rows(&times[run.clone()], &severities[run])?;
                (min, max) = (min.min(first), max.max(last));
                self.count_names(slice, start..start + count);
                start += count;
                self.index.rows += count as u32;
            }
            let offsets = slice.column(column::BODY).as_string::<i32>().value_offsets();
            self.index.raw_bytes += (offsets[slice.num_rows()] - offsets[0]) as u64;
        }
        self.index.granules.push(Granule {
            rows: first_row..end,
            // Known when the index is read back.
            streams: 0..0,
            row_group: self.row_group,
            min,
            max,
            levels,
            body: 0..0,
            body_index: None,
            traces: trace_filter(granule),
        });
        Ok(())
    }

    /// Makes `stream` the open one; its next row is at `time`.
    fn enter(&mut self, stream: StreamRef, time: i64) -> Result<(), SegmentError> {
        match &self.open {
            Some(open) if open.reference == stream => {
                if time < open.last {
                    return Err(SegmentError::Contract(format!(
                        "rows of stream {:?} are not sorted by time: {time} after {}",
                        open.stream.id, open.last
                    )));
                }
                return Ok(());
            }
            Some(open) if self.order.compare(open.reference, stream).is_ge() => {
                let (a, b) = (open.stream.id, self.registry.get(stream).id);
                return Err(SegmentError::Contract(format!("streams are not sorted: {b:?} after {a:?}")));
            }
            _ => {}
        }
        self.close_stream();
        let found = self.registry.get(stream);
        let tenant = found.tenant.as_str();
        if self.index.tenants.last().is_none_or(|last| last != tenant) {
            self.index.tenants.push(tenant.to_owned());
        }
        self.open = Some(OpenStream {
            stream: found,
            reference: stream,
            tenant: self.index.tenants.len() as u32 - 1,
            first_row: self.index.rows,
            min: time,
            last: time,
            minutes: Vec::new(),
            minute_first: i64::MIN,
            minute_last: i64::MIN,
        });
        Ok(())
    }

    /// Adds rows to the open stream; returns the mask of their levels.
    fn add_rows(&mut self, times: &[i64], severities: &[u8]) -> Result<u8, SegmentError> {
        let open = self.open.as_mut().expect("BUG: a stream was entered");
        let mut levels = 0u8;
        for (time, severity) in times.iter().zip(severities) {
            if *time < open.last {
                return Err(SegmentError::Contract(format!(
                    "rows of stream {:?} are not sorted by time: {time} after {}",
                    open.stream.id, open.last
                )));
            }
            open.last = *time;
            if *time > open.minute_last || open.minutes.is_empty() {
                let minute = time.div_euclid(MINUTE_NS);
                (open.minute_first, open.minute_last) = span(minute, MINUTE_NS);
                open.minutes.push(Minute { number: minute, counts: [0; LEVELS], starts: [0; LEVELS] });
            }
            let minute = open.minutes.last_mut().expect("BUG: a minute was begun");
            let level = level_of(*severity) as usize;
            minute.counts[level] += 1;
            minute.starts[level] += u32::from(*time == open.minute_first);
            levels |= 1 << level;
        }
        Ok(levels)
    }

    fn close_stream(&mut self) {
        let Some(open) = self.open.take() else { return };
        let rows = open.first_row..self.index.rows;
        let mut rollup = Vec::new();
        if open.minutes.len() <= (rows.len() / ROLLUP_ROWS_PER_MINUTE).max(ROLLUP_FREE_MINUTES) {
            put_minutes(&mut rollup, &open.minutes);
        }
        self.index.names.push(StreamName {
            tenant: open.tenant,
            labels: open.stream.labels.to_json().into(),
            id: open.stream.id.0,
        });
        self.index.streams.push(StreamEntry {
            name: self.index.names.len() as u32 - 1,
            rows,
            min: open.min,
            max: open.last,
            rollup: Bytes::from(rollup),
        });
    }

    fn count_names(&mut self, slice: &arrow::array::RecordBatch, rows: Range<usize>) {
        let map = slice.column(column::ATTRIBUTES).as_map();
        let offsets = map.value_offsets();
        let entries = offsets[rows.start] as usize..offsets[rows.end] as usize;
        if entries.is_empty() {
            return;
        }
        let tenant = self.open.as_ref().map_or(0, |open| open.tenant);
        let keys = map.keys().as_string::<i32>();
        for entry in entries {
            self.names.add(tenant, keys.value(entry), 1);
        }
    }

    /// Says where the body block of the next granule without one is.
    pub fn body_block(&mut self, place: Range<u64>, body_index: BlockIndex) {
        let granule = &mut self.index.granules[self.blocks];
        granule.body = place;
        granule.body_index = Some(body_index);
        self.blocks += 1;
    }

    /// The granules so far are complete.
    pub fn end_row_group(&mut self) {
        self.row_group += 1;
        self.index.row_groups.push(self.index.rows);
    }

    /// Tenant, service and labels of the row group as runs.
    pub fn stream_columns(&self, group: &[GranuleRows]) -> StreamColumns {
        let mut columns = StreamColumns { streams: Vec::new(), labels: Vec::new(), pages: Vec::new() };
        let mut last = None;
        for granule in group {
            let mut runs = Vec::new();
            for slice in &granule.slices {
                for stream in stream_refs(slice) {
                    if last != Some(*stream) {
                        last = Some(*stream);
                        let found = self.registry.get(*stream);
                        columns.labels.push(found.labels.to_json());
                        columns.streams.push(found);
                    }
                    add_run(&mut runs, Some(columns.streams.len() as u32 - 1), 1);
                }
            }
            columns.pages.push(runs);
        }
        columns
    }

    /// The finished index.
    pub fn finish(mut self, templates: Vec<u8>) -> Result<Index, SegmentError> {
        self.close_stream();
        if self.index.rows == 0 {
            return Err(SegmentError::Contract("a segment without rows was to be written".into()));
        }
        self.index.attributes = self.names.finish();
        self.index.templates = templates.into();
        Ok(self.index)
    }
}

/// Counts attribute names by tenant, within bounds.
#[derive(Default)]
pub struct AttributeNames(BTreeMap<u32, HashMap<Box<str>, u64>>);

impl AttributeNames {
    /// Adds rows that have the attribute.
    pub fn add(&mut self, tenant: u32, name: &str, rows: u64) {
        let names = self.0.entry(tenant).or_default();
        if let Some(count) = names.get_mut(name) {
            *count = count.saturating_add(rows);
        } else if names.len() < MAX_COUNTED_NAMES {
            names.insert(name.into(), rows);
        }
    }

    /// Tenant, name and rows; of each tenant the most frequent names first.
    pub fn finish(self) -> Vec<(u32, String, u64)> {
        let mut all = Vec::new();
        for (tenant, names) in self.0 {
            let mut names: Vec<_> = names.into_iter().collect();
            names.sort_unstable_by(|a, b| b.1.cmp(&a.1).then_with(|| a.0.cmp(&b.0)));
            names.truncate(MAX_ATTRIBUTE_NAMES);
            all.extend(names.into_iter().map(|(name, rows)| (tenant, name.into(), rows)));
        }
        all
    }
}

/// Serialised filter over the granule's trace ids; empty when it has none.
fn trace_filter(granule: &GranuleRows) -> Bytes {
    let columns = || granule.slices.iter().map(|slice| slice.column(column::TRACE_ID).as_fixed_size_binary());
    if columns().all(|ids| ids.null_count() == ids.len()) {
        return Bytes::new();
    }
    let ids = columns().flat_map(|ids| ids.iter().flatten()).filter_map(|id| <[u8; 16]>::try_from(id).ok());
    let mut out = Vec::new();
    TraceIdBloom::build(ids).write(&mut out);
    Bytes::from(out)
}

/// What is constant per stream, for one row group.
pub struct StreamColumns {
    streams: Vec<Arc<Stream>>,
    labels: Vec<String>,
    /// Per granule runs of positions in `streams`.
    pages: Vec<Vec<Run>>,
}

impl StreamColumns {
    /// Folds equal neighbours of a text that is constant per stream.
    fn folded<'s>(&'s self, text: impl Fn(usize) -> &'s str) -> (Vec<&'s [u8]>, Vec<Vec<Run>>) {
        let (mut dictionary, mut codes): (Vec<&[u8]>, Vec<u32>) = (Vec::new(), Vec::new());
        let mut known: HashMap<&[u8], u32> = HashMap::new();
        for position in 0..self.streams.len() {
            let value = text(position).as_bytes();
            codes.push(*known.entry(value).or_insert_with(|| {
                dictionary.push(value);
                dictionary.len() as u32 - 1
            }));
        }
        let recode = |runs: &Vec<Run>| {
            let mut page = Vec::new();
            for (position, count) in runs {
                add_run(&mut page, position.map(|position| codes[position as usize]), *count);
            }
            page
        };
        (dictionary, self.pages.iter().map(recode).collect())
    }

    pub fn tenant(&self) -> (Vec<&[u8]>, Vec<Vec<Run>>) {
        self.folded(|position| self.streams[position].tenant.as_str())
    }

    pub fn service(&self) -> (Vec<&[u8]>, Vec<Vec<Run>>) {
        self.folded(|position| self.streams[position].service())
    }

    pub fn labels(&self) -> (Vec<&[u8]>, Vec<Vec<Run>>) {
        self.folded(|position| &self.labels[position])
    }
}
