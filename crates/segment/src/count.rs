//! Counts by stream, level and time bucket: roll-ups where whole minutes are asked for, else the
//! timestamp and severity columns.

use std::{collections::BTreeMap, ops::Range, sync::atomic::Ordering::Relaxed};

use arrow::{
    array::{AsArray, RecordBatch},
    datatypes::{TimestampNanosecondType, UInt8Type},
};
use hashbrown::HashMap;
use trine_schema::{LogCount, LogCountRow, LogFilter, LogScan, StreamRef, logs::column};

use crate::{
    Segment, SegmentError, StreamMatcher,
    filter::levels_in,
    granule::GranuleReader,
    index::{LEVELS, MINUTE_NS, minutes, span},
    read::last_instant,
    write::{level_of, stream_refs, timestamps},
};

/// Levels that the scan's filters let through, one bit each; `None` when a filter cuts a level in
/// two or is about something else.
pub fn whole_levels(scan: &LogScan) -> Option<u8> {
    let mut levels = u8::MAX >> (8 - LEVELS);
    for filter in &scan.filters {
        let LogFilter::Severity(range) = filter else { return None };
        let (some, all) = levels_in(range);
        if some & !all != 0 {
            return None;
        }
        levels &= some;
    }
    Some(levels)
}

/// Rows of one stream by level and bucket.
struct Tally {
    bucket_ns: i64,
    /// The open bucket: its start and last nanosecond.
    bucket: i64,
    last: i64,
    counts: [u64; LEVELS],
    starts: [u64; LEVELS],
}

impl Tally {
    fn new(bucket_ns: i64) -> Self {
        Self { bucket_ns: bucket_ns.max(1), bucket: 0, last: -1, counts: [0; LEVELS], starts: [0; LEVELS] }
    }

    /// Adds a row; rows mostly come by rising time.
    fn add(&mut self, stream: StreamRef, time: i64, level: usize, out: &mut Vec<LogCountRow>) {
        if time < self.bucket || time > self.last {
            self.flush(stream, out);
            (self.bucket, self.last) = span(time.div_euclid(self.bucket_ns), self.bucket_ns);
        }
        self.counts[level] += 1;
        self.starts[level] += u64::from(time == self.bucket);
    }

    fn flush(&mut self, stream: StreamRef, out: &mut Vec<LogCountRow>) {
        for level in (0..LEVELS).filter(|level| self.counts[*level] > 0) {
            out.push(LogCountRow {
                stream,
                level: level as u8,
                bucket: self.bucket,
                count: self.counts[level],
                at_start: self.starts[level],
            });
        }
        (self.counts, self.starts, self.last) = ([0; LEVELS], [0; LEVELS], self.bucket.saturating_sub(1));
    }
}

/// Counts rows in memory.
pub fn count_memtable(
    batches: &[RecordBatch],
    count: &LogCount,
    levels: u8,
    streams: &StreamMatcher,
) -> Vec<LogCountRow> {
    let mut tallies: HashMap<StreamRef, Tally> = HashMap::new();
    let mut out = Vec::new();
    for batch in batches {
        let severities = batch.column(column::SEVERITY_NUMBER).as_primitive::<UInt8Type>().values();
        for ((stream, time), severity) in stream_refs(batch).iter().zip(timestamps(batch)).zip(severities) {
            let level = level_of(*severity) as usize;
            if levels >> level & 1 == 1 && count.scan.in_range(*time) && streams.matches(*stream) {
                let tally = tallies.entry(*stream).or_insert_with(|| Tally::new(count.bucket_ns));
                tally.add(*stream, *time, level, &mut out);
            }
        }
        count.scan.stats.rows_scanned.fetch_add(batch.num_rows() as u64, Relaxed);
    }
    tallies.into_iter().for_each(|(stream, mut tally)| tally.flush(stream, &mut out));
    out
}

/// Rows of one stream in one granule that have to be read, and the times that count.
struct Piece {
    stream: StreamRef,
    rows: Range<u32>,
    start: i64,
    last: i64,
}

/// Counts the rows of a segment.
pub fn count_segment(
    segment: &Segment,
    count: &LogCount,
    levels: u8,
    streams: &StreamMatcher,
    out: &mut Vec<LogCountRow>,
) -> Result<(), SegmentError> {
    let (index, scan) = (&segment.index, &count.scan);
    let Some(last) = last_instant(scan) else { return Ok(()) };
    let by_minutes = count.bucket_ns > 0 && count.bucket_ns % MINUTE_NS == 0;
    let mut pieces: BTreeMap<usize, Vec<Piece>> = BTreeMap::new();
    for (entry, stream) in index.streams.iter().zip(&segment.streams) {
        if entry.max < scan.start || entry.min > last || !streams.matches(*stream) {
            continue;
        }
        let mut read = |start: i64, last: i64| {
            let (may, _) = index.rows_in_time(entry, start, last);
            let (mut row, mut granule) = (may.start, index.granule_of(may.start));
            while row < may.end {
                let span = &index.granules[granule].rows;
                let end = may.end.min(span.end);
                let rows = row - span.start..end - span.start;
                pieces.entry(granule).or_default().push(Piece { stream: *stream, rows, start, last });
                (row, granule) = (end, granule + 1);
            }
        };
        if !by_minutes || entry.rollup.is_empty() {
            read(scan.start, last);
            continue;
        }
        let mut tally = Tally::new(count.bucket_ns);
        for minute in minutes(&entry.rollup) {
            let minute =
                minute.map_err(|bad| segment.file.corrupt(0, format!("{} cannot be read", bad.0)))?;
            let (first_ns, last_ns) = span(minute.number, MINUTE_NS);
            if last_ns < scan.start || first_ns > last {
                continue;
            }
            let whole =
                (first_ns >= scan.start || entry.min >= scan.start) && (last_ns <= last || entry.max <= last);
            if !whole {
                read(first_ns.max(scan.start), last_ns.min(last));
                continue;
            }
            for level in (0..LEVELS).filter(|level| levels >> level & 1 == 1 && minute.counts[*level] > 0) {
                tally.add_minute(*stream, first_ns, level, minute.counts[level], minute.starts[level], out);
            }
        }
        tally.flush(*stream, out);
    }
    let reader = segment.reader();
    for (granule, pieces) in pieces {
        scan.check_deadline()?;
        let mut granule = GranuleReader::new(segment, granule, reader.clone());
        let (times, severities) =
            (granule.column(column::TIMESTAMP)?, granule.column(column::SEVERITY_NUMBER)?);
        let times = times.as_primitive::<TimestampNanosecondType>().values();
        let severities = severities.as_primitive::<UInt8Type>().values();
        scan.stats.granules_scanned.fetch_add(1, Relaxed);
        for piece in pieces {
            let mut tally = Tally::new(count.bucket_ns);
            for row in piece.rows.clone() {
                let (time, level) = (times[row as usize], level_of(severities[row as usize]) as usize);
                if (piece.start..=piece.last).contains(&time) && levels >> level & 1 == 1 {
                    tally.add(piece.stream, time, level, out);
                }
            }
            tally.flush(piece.stream, out);
            scan.stats.rows_scanned.fetch_add(piece.rows.len() as u64, Relaxed);
        }
    }
    scan.stats.bytes_scanned.fetch_add(reader.bytes_read(), Relaxed);
    scan.stats.segments_scanned.fetch_add(1, Relaxed);
    Ok(())
}

impl Tally {
    /// Adds a minute of a roll-up; buckets are whole minutes.
    fn add_minute(
        &mut self,
        stream: StreamRef,
        first_ns: i64,
        level: usize,
        rows: u32,
        at_start: u32,
        out: &mut Vec<LogCountRow>,
    ) {
        if first_ns < self.bucket || first_ns > self.last {
            self.flush(stream, out);
            (self.bucket, self.last) = span(first_ns.div_euclid(self.bucket_ns), self.bucket_ns);
        }
        self.counts[level] += u64::from(rows);
        self.starts[level] += if first_ns == self.bucket { u64::from(at_start) } else { 0 };
    }
}
