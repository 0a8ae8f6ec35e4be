//! Remote read with Prometheus' chunks as the answer, a frame at a time: of all that is asked for, one series and
//! one frame are in memory.

use std::{ops::Range, vec::IntoIter};

use trine_schema::MetricSeries;

use super::{
    Api, Failure, ReadQuery, Reply, Request,
    chunks::{self, Chunk},
    remote_read::{plain, put_labels, refuse_partial},
    wire::{put_bytes, put_number, put_varint},
};
use crate::{labels::Labels, source::Samples, tables};

/// `Content-Type` of the answer.
pub const FRAMES: &str = "application/x-streamed-protobuf; proto=prometheus.ChunkedReadResponse";

/// Bytes after which a frame is closed; a chunk goes beyond. Prometheus' default, readers take 50 times as much.
const FRAME_BYTES: usize = 1 << 20;

/// The answer to queries. A frame is a varint of its length, its CRC-32C (big-endian) and a
/// `ChunkedReadResponse` with chunks of one series.
#[derive(Default)]
pub struct ReadFrames {
    queries: IntoIter<ReadQuery>,
    query: ReadQuery,
    /// Number of the query, from 1.
    number: u64,
    found: IntoIter<(MetricSeries, Labels)>,
    series: Part,
    frame: Vec<u8>,
}

/// A series of which some samples are still to be sent.
#[derive(Default)]
struct Part {
    labels: Labels,
    samples: Samples,
    floats: Range<usize>,
    histograms: Range<usize>,
}

impl Reply {
    /// To a reader for whom there are no chunks.
    pub fn no_frames() -> Self {
        Self { status: 200, content_type: FRAMES, encoding: None, body: Vec::new() }
    }
}

impl ReadFrames {
    /// Of these queries, one after the other.
    pub fn new(queries: Vec<ReadQuery>) -> Self {
        Self { queries: queries.into_iter(), ..Self::default() }
    }

    /// The next frame; `None` when all was told. After an error there is no more.
    pub fn next(&mut self, api: &Api, request: &Request<'_>) -> Option<Result<Vec<u8>, Reply>> {
        let frame = self.try_next(api, request).map_err(plain).transpose()?;
        if frame.is_err() {
            *self = Self::default();
        }
        Some(frame)
    }

    fn try_next(&mut self, api: &Api, request: &Request<'_>) -> Result<Option<Vec<u8>>, Failure> {
        while self.series.is_empty() {
            if let Some((stored, labels)) = self.found.next() {
                let Part { samples, .. } = &mut self.series;
                tables::load(&*stored.data, samples)?;
                refuse_partial(request)?;
                let floats = self.query.inside(&samples.timestamps);
                let histograms = self.query.inside(&samples.histogram_timestamps);
                self.series = Part { labels, samples: std::mem::take(samples), floats, histograms };
            } else if let Some(query) = self.queries.next() {
                let source = api.source(request, request.deadline);
                let (found, labels) = source.find(&query.matchers, query.start_ms, query.end_ms)?;
                refuse_partial(request)?;
                self.found = found.into_iter().zip(labels).collect::<Vec<_>>().into_iter();
                self.query = query;
                self.number += 1;
            } else {
                return Ok(None);
            }
        }
        self.frame.clear();
        put_labels(&mut self.frame, &self.series.labels);
        let mut chunk = Vec::new();
        while self.frame.len() < FRAME_BYTES
            && let Some(Chunk { encoding, times, data }) = self.series.chunk()
        {
            chunk.clear();
            put_number(&mut chunk, 1, times.0 as u64);
            put_number(&mut chunk, 2, times.1 as u64);
            put_number(&mut chunk, 3, encoding);
            put_bytes(&mut chunk, 4, &data);
            put_bytes(&mut self.frame, 2, &chunk);
        }
        let mut message = Vec::with_capacity(self.frame.len() + 16);
        put_bytes(&mut message, 1, &self.frame);
        put_number(&mut message, 2, self.number - 1);
        let mut framed = Vec::with_capacity(message.len() + 16);
        put_varint(&mut framed, message.len() as u64);
        framed.extend_from_slice(&crc32c::crc32c(&message).to_be_bytes());
        framed.extend_from_slice(&message);
        Ok(Some(framed))
    }
}

impl Part {
    fn is_empty(&self) -> bool {
        self.floats.is_empty() && self.histograms.is_empty()
    }

    /// The next chunk in the order of time.
    fn chunk(&mut self) -> Option<Chunk> {
        let Self { samples, floats, histograms, .. } = self;
        let times = &samples.timestamps[floats.clone()];
        let histogram_times = &samples.histogram_timestamps[histograms.clone()];
        // A chunk ends where samples of the other kind begin.
        let before = |times: &[i64], other: &[i64]| {
            other.first().map_or(times.len(), |other| times.partition_point(|time| time < other))
        };
        let run = before(times, histogram_times);
        if run > 0 {
            let (chunk, count) = chunks::floats(&times[..run], &samples.values[floats.clone()]);
            floats.start += count;
            return Some(chunk);
        }
        let run = before(histogram_times, times);
        if run > 0 {
            let values = &samples.histograms[histograms.clone()];
            let (chunk, count) = chunks::histograms(&histogram_times[..run], &values[..run]);
            histograms.start += count;
            return Some(chunk);
        }
        None
    }
}
