//! Remote read (`/api/v1/read`): what is asked, and samples as the answer
//! (<https://prometheus.io/docs/prometheus/latest/querying/remote_read_api/>). Chunks are in `read_frames`.

use std::ops::Range;

use super::{
    Api, Failure, Kind, Reply, Request,
    wire::{Field, Malformed, fields, put_bytes, put_double, put_doubles, put_number, put_signed},
};
use crate::{
    histogram::{Buckets, Histogram, ResetHint},
    labels::{Labels, MatchOp, Matcher},
    source::Samples,
    tables,
};

const PROTOBUF: &str = "application/x-protobuf";

/// Longest request, bytes, as Prometheus bounds it.
const MAX_REQUEST: usize = 32 << 20;
/// Longest answer before it is compressed, bytes; about 20 million samples.
const MAX_ANSWER: usize = 512 << 20;
/// Most queries of one request.
const MAX_QUERIES: usize = 1_000;
/// Most matchers of one query.
const MAX_MATCHERS: usize = 1_000;

/// One query of a read request.
#[derive(Debug, Default)]
pub struct ReadQuery {
    /// First millisecond, inclusive.
    pub start_ms: i64,
    /// Last millisecond, inclusive.
    pub end_ms: i64,
    /// All of which a series must satisfy.
    pub matchers: Vec<Matcher>,
}

/// What a reader asks for.
#[derive(Debug, Default)]
pub struct ReadRequest {
    /// Each with an answer of its own.
    pub queries: Vec<ReadQuery>,
    /// Chunks ([`super::ReadFrames`]) are wanted rather than samples ([`Api::remote_read`]).
    pub chunks: bool,
}

fn matcher(bytes: &[u8]) -> Result<Matcher, String> {
    let (mut kind, mut name, mut value) = (0, "", "");
    let read = fields(bytes, |number, field| {
        match number {
            1 => kind = field.number()?,
            2 => name = field.text()?,
            3 => value = field.text()?,
            _ => {}
        }
        Ok(())
    });
    read.map_err(|Malformed(what)| what.to_owned())?;
    let op = match kind {
        0 => MatchOp::Equal,
        1 => MatchOp::NotEqual,
        2 => MatchOp::Regex,
        3 => MatchOp::NotRegex,
        _ => return Err(format!("matcher type {kind} is unknown")),
    };
    Matcher::new(op, name, value)
}

fn query(bytes: &[u8]) -> Result<ReadQuery, String> {
    let mut query = ReadQuery::default();
    let mut matchers = Vec::new();
    let read = fields(bytes, |number, field: Field<'_>| {
        match number {
            1 => query.start_ms = field.number()? as i64,
            2 => query.end_ms = field.number()? as i64,
            3 => matchers.push(field.bytes()?),
            _ => {}
        }
        Ok(())
    });
    read.map_err(|Malformed(what)| what.to_owned())?;
    if matchers.len() > MAX_MATCHERS {
        return Err(format!("a query has {} matchers; {MAX_MATCHERS} are allowed", matchers.len()));
    }
    query.matchers = matchers.into_iter().map(matcher).collect::<Result<_, _>>()?;
    Ok(query)
}

/// Reads a snappy-compressed `ReadRequest`; says what is wrong with one that cannot be read.
pub fn decode_read_request(body: &[u8]) -> Result<ReadRequest, String> {
    let length = snap::raw::decompress_len(body).map_err(|error| error.to_string())?;
    if length > MAX_REQUEST {
        return Err(format!("the request has {length} bytes; {MAX_REQUEST} are allowed"));
    }
    let bytes = snap::raw::Decoder::new().decompress_vec(body).map_err(|error| error.to_string())?;
    decode_read_queries(&bytes)
}

/// As [`decode_read_request`], of what is not compressed.
pub fn decode_read_queries(bytes: &[u8]) -> Result<ReadRequest, String> {
    let mut queries = Vec::new();
    // Of the kinds of answers that the reader takes the first one that there is: 0 samples, 1 chunks.
    let (mut kind, mut unknown) = (None, None);
    let read = fields(bytes, |number, field| {
        match number {
            1 => queries.push(field.bytes()?),
            2 => field.numbers(|accepted| match accepted {
                0 | 1 => kind = kind.or(Some(accepted)),
                other => unknown = Some(other),
            })?,
            _ => {}
        }
        Ok(())
    });
    read.map_err(|Malformed(what)| what.to_owned())?;
    if let (None, Some(unknown)) = (kind, unknown) {
        return Err(format!(
            "response type {unknown} is unknown; accept SAMPLES (0) or STREAMED_XOR_CHUNKS (1)"
        ));
    }
    if queries.len() > MAX_QUERIES {
        return Err(format!("the request has {} queries; {MAX_QUERIES} are allowed", queries.len()));
    }
    let queries = queries.into_iter().map(query).collect::<Result<_, _>>()?;
    Ok(ReadRequest { queries, chunks: kind == Some(1) })
}

/// Errors of remote reads are plain text.
pub(super) fn plain(failure: Failure) -> Reply {
    let status = Reply::from(failure.clone()).status;
    let body = (failure.message + "\n").into_bytes();
    Reply { status, content_type: "text/plain; charset=utf-8", encoding: None, body }
}

/// This protocol has no place for warnings, and a part must not pass for the whole.
pub(super) fn refuse_partial(request: &Request<'_>) -> Result<(), Failure> {
    let missing = request.stats.snapshot().partial;
    if missing.is_empty() {
        return Ok(());
    }
    Err(Failure { kind: Kind::Internal, message: missing.join("; ") })
}

impl Reply {
    /// To a read request that cannot be read.
    pub fn refused_read(what: &str) -> Self {
        plain(Failure::bad_data(what))
    }
}

impl Api {
    /// Answers queries with samples.
    pub fn remote_read(&self, request: &Request<'_>, queries: &[ReadQuery]) -> Reply {
        match self.read(request, queries) {
            Ok(bytes) => Reply { status: 200, content_type: PROTOBUF, encoding: Some("snappy"), body: bytes },
            Err(failure) => plain(failure),
        }
    }

    fn read(&self, request: &Request<'_>, queries: &[ReadQuery]) -> Result<Vec<u8>, Failure> {
        let source = self.source(request, request.deadline);
        let (mut answer, mut samples) = (Vec::new(), Samples::default());
        let (mut result, mut series) = (Vec::new(), Vec::new());
        for query in queries {
            result.clear();
            let (found, labels) = source.find(&query.matchers, query.start_ms, query.end_ms)?;
            for (stored, labels) in found.iter().zip(&labels) {
                tables::load(&*stored.data, &mut samples)?;
                series.clear();
                if put_series(&mut series, labels, &samples, query) {
                    put_bytes(&mut result, 1, &series);
                }
                if answer.len() + result.len() > MAX_ANSWER {
                    return Err(Failure::bad_data(format!(
                        "the answer has more than {MAX_ANSWER} bytes; narrow the time range or the matchers"
                    )));
                }
            }
            put_bytes(&mut answer, 1, &result);
        }
        refuse_partial(request)?;
        let compressed = snap::raw::Encoder::new().compress_vec(&answer);
        compressed.map_err(|error| Failure { kind: Kind::Internal, message: error.to_string() })
    }
}

impl ReadQuery {
    /// The samples of these times that are asked for.
    pub(super) fn inside(&self, times: &[i64]) -> Range<usize> {
        let from = times.partition_point(|time| *time < self.start_ms);
        from..times.partition_point(|time| *time <= self.end_ms).max(from)
    }
}

pub(super) fn put_labels(out: &mut Vec<u8>, labels: &Labels) {
    let mut part = Vec::new();
    for (name, value) in labels.iter() {
        part.clear();
        put_bytes(&mut part, 1, name.as_bytes());
        put_bytes(&mut part, 2, value.as_bytes());
        put_bytes(out, 1, &part);
    }
}

/// Writes a series; whether it has a sample in the query's time.
fn put_series(out: &mut Vec<u8>, labels: &Labels, samples: &Samples, query: &ReadQuery) -> bool {
    let floats = query.inside(&samples.timestamps);
    let histograms = query.inside(&samples.histogram_timestamps);
    if floats.is_empty() && histograms.is_empty() {
        return false;
    }
    put_labels(out, labels);
    let mut part = Vec::new();
    for at in floats {
        part.clear();
        put_double(&mut part, 1, samples.values[at]);
        put_number(&mut part, 2, samples.timestamps[at] as u64);
        put_bytes(out, 2, &part);
    }
    for at in histograms {
        part.clear();
        put_histogram(&mut part, samples.histogram_timestamps[at], &samples.histograms[at]);
        put_bytes(out, 4, &part);
    }
    true
}

fn put_histogram(out: &mut Vec<u8>, time: i64, histogram: &Histogram) {
    put_double(out, 2, histogram.count);
    put_double(out, 3, histogram.sum);
    put_signed(out, 4, histogram.schema);
    put_double(out, 5, histogram.zero_threshold);
    put_double(out, 7, histogram.zero_count);
    put_buckets(out, (8, 10), &histogram.negative);
    put_buckets(out, (11, 13), &histogram.positive);
    put_number(
        out,
        14,
        match histogram.reset_hint {
            ResetHint::Unknown => 0,
            ResetHint::Reset => 1,
            ResetHint::NotReset => 2,
            ResetHint::Gauge => 3,
        },
    );
    put_number(out, 15, time as u64);
    put_doubles(out, 16, &histogram.custom_bounds);
}

fn put_buckets(out: &mut Vec<u8>, (spans, counts): (u64, u64), buckets: &Buckets) {
    let mut span = Vec::new();
    for (offset, length) in buckets.spans() {
        span.clear();
        put_signed(&mut span, 1, offset);
        put_number(&mut span, 2, u64::from(length));
        put_bytes(out, spans, &span);
    }
    put_doubles(out, counts, &buckets.count);
}
