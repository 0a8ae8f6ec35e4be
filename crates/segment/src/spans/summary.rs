//! What is known of each trace of a segment without reading its spans.
//!
//! Summaries lie in the order of the traces, in frames of a few hundred, column by column.

use arrow::{
    array::{Array, AsArray, RecordBatch},
    datatypes::{Int64Type, TimestampNanosecondType, UInt8Type},
};
use trine_model::TraceId;
use trine_schema::spans::{STATUS_ERROR, column};

use super::{directory, filter::trace_id, index::SpanIndex};
use crate::{
    SegmentError,
    codec::{Malformed, Reader, put_varint, put_zigzag},
};

/// Traces of a frame.
pub const FRAME_TRACES: usize = 512;
/// zstd level of the frames.
const ZSTD_LEVEL: i32 = 3;
/// Most bytes of a frame once decompressed.
const MAX_FRAME_BYTES: usize = 64 << 20;

/// The spans of a trace in one segment.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Summary {
    /// First start.
    pub start: i64,
    /// Last end.
    pub end: i64,
    /// Start of the root.
    pub root_start: i64,
    /// Whether the root has a parent, which is then not in the segment.
    pub root_has_parent: bool,
    /// Number of the root's service.
    pub root_service: u32,
    /// Number of the root's operation.
    pub root_operation: u32,
    /// Numbers of services, rising, with spans and errors.
    pub services: Vec<(u32, u32, u32)>,
}

impl Summary {
    /// Adds a span.
    fn add(&mut self, span: &SpanFacts) {
        let first = self.services.is_empty();
        if first || span.start < self.start {
            self.start = span.start;
        }
        if first || span.end > self.end {
            self.end = span.end;
        }
        if first || (span.has_parent, span.start) < (self.root_has_parent, self.root_start) {
            (self.root_has_parent, self.root_start) = (span.has_parent, span.start);
            (self.root_service, self.root_operation) = (span.service, span.operation);
        }
        let error = u32::from(span.error);
        match self.services.binary_search_by_key(&span.service, |(service, _, _)| *service) {
            Ok(place) => {
                self.services[place].1 += 1;
                self.services[place].2 += error;
            }
            Err(place) => self.services.insert(place, (span.service, 1, error)),
        }
    }
}

/// What a summary takes from a span.
struct SpanFacts {
    start: i64,
    end: i64,
    has_parent: bool,
    error: bool,
    service: u32,
    operation: u32,
}

/// Summaries of a segment that is being written.
#[derive(Default)]
pub struct Summaries {
    /// The trace of the last row.
    open: Option<TraceId>,
    /// Summaries since the last frame; the last one is of the open trace.
    waiting: Vec<Summary>,
    /// Hash of each trace by its number.
    pub hashes: Vec<u64>,
    /// The frames so far.
    pub frames: Vec<u8>,
    /// Where each frame ends in `frames`.
    pub ends: Vec<u64>,
}

impl Summaries {
    /// Adds the rows of a granule, all of one tenant. `numbers` gives service and operation of a row.
    /// Returns the number of the trace of the first row.
    pub fn add(
        &mut self,
        batch: &RecordBatch,
        numbers: impl Fn(usize) -> (u32, u32),
    ) -> Result<u32, SegmentError> {
        let times = batch.column(column::TIMESTAMP).as_primitive::<TimestampNanosecondType>().values();
        let durations = batch.column(column::DURATION).as_primitive::<Int64Type>().values();
        let codes = batch.column(column::STATUS_CODE).as_primitive::<UInt8Type>().values();
        let ids = batch.column(column::TRACE_ID).as_fixed_size_binary();
        let parents = batch.column(column::PARENT_SPAN_ID);
        let mut first = None;
        for row in 0..batch.num_rows() {
            let id = trace_id(ids, row);
            if self.open != Some(id) {
                self.begin(directory::hash(&id))?;
                self.open = Some(id);
            }
            first.get_or_insert(self.hashes.len() as u32 - 1);
            let (service, operation) = numbers(row);
            let span = SpanFacts {
                start: times[row],
                end: times[row].saturating_add(durations[row]),
                has_parent: parents.is_valid(row),
                error: codes[row] == STATUS_ERROR,
                service,
                operation,
            };
            self.waiting.last_mut().expect("BUG: a trace is open").add(&span);
        }
        Ok(first.unwrap_or_default())
    }

    /// Adds a trace whose hash and summary are known.
    pub fn push(&mut self, hash: u64, summary: Summary) -> Result<(), SegmentError> {
        self.end_trace();
        self.begin(hash)?;
        *self.waiting.last_mut().expect("BUG: a trace is open") = summary;
        Ok(())
    }

    fn begin(&mut self, hash: u64) -> Result<(), SegmentError> {
        if self.waiting.len() == FRAME_TRACES {
            self.end_frame()?;
        }
        if self.hashes.len() as u64 >= u64::from(u32::MAX) {
            return Err(SegmentError::Contract("a segment has less than 2^32 traces".into()));
        }
        self.hashes.push(hash);
        self.waiting.push(Summary::default());
        Ok(())
    }

    /// No span of the open trace comes any more: the next rows are of another tenant or run.
    pub fn end_trace(&mut self) {
        self.open = None;
    }

    /// Writes the summaries that wait into a frame.
    pub fn end_frame(&mut self) -> Result<(), SegmentError> {
        if self.waiting.is_empty() {
            return Ok(());
        }
        let plain = encode(&self.waiting);
        self.waiting.clear();
        put_varint(&mut self.frames, plain.len() as u64);
        let frame = zstd::bulk::compress(&plain, ZSTD_LEVEL).map_err(crate::write::io_error)?;
        self.frames.extend_from_slice(&frame);
        self.ends.push(self.frames.len() as u64);
        Ok(())
    }
}

/// Column by column, so that what is alike stands together.
fn encode(summaries: &[Summary]) -> Vec<u8> {
    let mut out = Vec::new();
    put_varint(&mut out, summaries.len() as u64);
    let mut last = 0i64;
    for summary in summaries {
        put_zigzag(&mut out, summary.start.wrapping_sub(last));
        last = summary.start;
    }
    summaries.iter().for_each(|s| put_zigzag(&mut out, s.end.wrapping_sub(s.start)));
    summaries.iter().for_each(|s| put_varint(&mut out, s.root_start.wrapping_sub(s.start) as u64));
    summaries.iter().for_each(|s| out.push(u8::from(s.root_has_parent)));
    summaries.iter().for_each(|s| put_varint(&mut out, u64::from(s.root_service)));
    summaries.iter().for_each(|s| put_varint(&mut out, u64::from(s.root_operation)));
    summaries.iter().for_each(|s| put_varint(&mut out, s.services.len() as u64));
    for summary in summaries {
        let mut last = 0;
        for (service, _, _) in &summary.services {
            put_varint(&mut out, u64::from(service - last));
            last = *service;
        }
    }
    let services = || summaries.iter().flat_map(|summary| &summary.services);
    services().for_each(|(_, spans, _)| put_varint(&mut out, u64::from(*spans)));
    services().for_each(|(_, _, errors)| put_varint(&mut out, u64::from(*errors)));
    out
}

/// Reads what [`encode`] wrote; numbers of services and operations are below these.
fn decode(plain: &[u8], services: usize, operations: usize) -> Result<Vec<Summary>, Malformed> {
    let mut reader = Reader::new(plain);
    let count = reader.count(9, "summaries")?;
    let mut summaries = vec![Summary::default(); count];
    let mut last = 0i64;
    for summary in &mut summaries {
        last = last.wrapping_add(reader.zigzag("start of a trace")?);
        summary.start = last;
    }
    for summary in &mut summaries {
        summary.end = summary.start.wrapping_add(reader.zigzag("end of a trace")?);
    }
    for summary in &mut summaries {
        summary.root_start = summary.start.wrapping_add(reader.varint("start of a root")? as i64);
    }
    for summary in &mut summaries {
        summary.root_has_parent = reader.byte("parent of a root")? != 0;
    }
    let number = |reader: &mut Reader<'_>, below: usize, what| {
        let number = reader.varint32(what)?;
        if (number as usize) < below { Ok(number) } else { Err(Malformed(what)) }
    };
    for summary in &mut summaries {
        summary.root_service = number(&mut reader, services, "service of a root")?;
    }
    for summary in &mut summaries {
        summary.root_operation = number(&mut reader, operations, "operation of a root")?;
    }
    let mut total = 0;
    for summary in &mut summaries {
        let count = reader.count(3, "services of a trace")?;
        total += count;
        if total > plain.len() / 3 {
            return Err(Malformed("services of a trace"));
        }
        summary.services = vec![(0, 0, 0); count];
    }
    for summary in &mut summaries {
        let mut last = 0u32;
        for (service, _, _) in &mut summary.services {
            last = last.checked_add(reader.varint32("service")?).ok_or(Malformed("service"))?;
            if last as usize >= services {
                return Err(Malformed("service"));
            }
            *service = last;
        }
    }
    for (_, spans, _) in summaries.iter_mut().flat_map(|summary| &mut summary.services) {
        *spans = reader.varint32("spans of a service")?;
    }
    for (_, _, errors) in summaries.iter_mut().flat_map(|summary| &mut summary.services) {
        *errors = reader.varint32("errors of a service")?;
    }
    Ok(summaries)
}

/// Reads a frame as it is stored.
pub fn decode_frame(bytes: &[u8], index: &SpanIndex) -> Result<Vec<Summary>, Malformed> {
    let mut head = Reader::new(bytes);
    let length = head.varint("length of a frame")?;
    let length = usize::try_from(length).ok().filter(|length| *length <= MAX_FRAME_BYTES);
    let length = length.ok_or(Malformed("length of a frame"))?;
    let plain = zstd::bulk::decompress(&bytes[head.position()..], length)
        .map_err(|_| Malformed("frame of summaries"))?;
    decode(&plain, index.services.len(), index.operations.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn summaries_come_back_and_damage_never_panics() {
        let summary = |start: i64, services: &[(u32, u32, u32)]| Summary {
            start,
            end: start + 70,
            root_start: start + 3,
            root_has_parent: start % 2 == 0,
            root_service: 1,
            root_operation: 2,
            services: services.to_vec(),
        };
        let all = [summary(-5, &[(0, 1, 0), (2, 300, 7)]), summary(900, &[(1, 1, 1)])];
        let plain = encode(&all);
        assert_eq!(decode(&plain, 3, 3).unwrap(), all);
        for at in 0..plain.len() {
            assert!(decode(&plain[..at], 3, 3).is_err(), "cut at {at}");
            for byte in 0..=u8::MAX {
                let mut bad = plain.clone();
                bad[at] = byte;
                let read = decode(&bad, 3, 3).unwrap_or_default();
                let services = read.iter().flat_map(|summary| &summary.services);
                assert!(services.into_iter().all(|(service, _, _)| *service < 3));
            }
        }
    }
}
