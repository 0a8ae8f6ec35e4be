//! Jaeger's Thrift over HTTP (`POST /api/traces?format=jaeger.thrift`, `application/x-thrift`): one `Batch`
//! in the binary protocol (<https://github.com/jaegertracing/jaeger-idl/blob/main/thrift/jaeger.thrift>).
//!
//! How a span maps; the names are those of the OpenTelemetry collector's Jaeger receiver:
//! - the process's service and tags are the labels of the stream, `hostname` as `host.name`; of tags given
//!   twice the last one counts;
//! - times are microseconds; without a start the time of arrival stands in;
//! - without a parent id the first CHILD_OF reference into the same trace is the parent; all other references
//!   are links with the attribute `opentracing.ref_type`;
//! - a log is an event, its field `event` the name; a tag is an attribute, binary ones in base64, except
//!   those that speak of columns: `span.kind`, `error`, `otel.status_code`, `otel.status_description`,
//!   `w3c.tracestate`, `otel.scope.name` (or by its old name), read as [`crate::zipkin`] does;
//! - of the flags the sampled bit is kept.

mod thrift;

use std::fmt::Write as _;

use trine_model::{SpanId, TenantId, TraceId};
use trine_schema::{Labels, Span, SpanBatch, SpanBatchBuilder, StreamRef, StreamRegistry};

use crate::{
    DecodeError, Decoded, Limits,
    intake::{Dialect, Fault, Intake, Reason, bad, labels, utf8},
    render,
    span_intake::{Staged, Told, microseconds},
};
use thrift::{Field, Thrift};

/// `Batch`.
const PROCESS: Field = Field::structure(1);
const SPANS: Field = Field::list(2);
/// `Process`.
const SERVICE: Field = Field::binary(1);
const PROCESS_TAGS: Field = Field::list(2);
/// `Span`.
const TRACE_ID_LOW: Field = Field::i64(1);
const TRACE_ID_HIGH: Field = Field::i64(2);
const SPAN_ID: Field = Field::i64(3);
const PARENT_SPAN_ID: Field = Field::i64(4);
const OPERATION: Field = Field::binary(5);
const REFERENCES: Field = Field::list(6);
const FLAGS: Field = Field::i32(7);
const START: Field = Field::i64(8);
const DURATION: Field = Field::i64(9);
const TAGS: Field = Field::list(10);
const LOGS: Field = Field::list(11);
/// `SpanRef`.
const REF_TYPE: Field = Field::i32(1);
const REF_TRACE_ID_LOW: Field = Field::i64(2);
const REF_TRACE_ID_HIGH: Field = Field::i64(3);
const REF_SPAN_ID: Field = Field::i64(4);
/// `Log`.
const LOG_TIME: Field = Field::i64(1);
const LOG_FIELDS: Field = Field::list(2);
/// `Tag`.
const KEY: Field = Field::binary(1);
const VALUE_TYPE: Field = Field::i32(2);
const TEXT: Field = Field::binary(3);
const DOUBLE: Field = Field::double(4);
const BOOL: Field = Field::bool(5);
const LONG: Field = Field::i64(6);
const BINARY: Field = Field::binary(7);

/// Decodes a `Batch` in Thrift's binary protocol. `now_ns` (nanoseconds since 1970) stands in for spans that
/// carry no time at all.
pub fn decode_batch_thrift(
    bytes: &[u8],
    tenant: &TenantId,
    registry: &StreamRegistry,
    now_ns: i64,
    limits: &Limits,
) -> Result<Decoded<SpanBatch>, DecodeError> {
    let frames = survey(bytes)?;
    let intake = Intake::<SpanBatchBuilder>::new(tenant, registry, now_ns, limits, frames.spans, bytes.len());
    let mut decoder = Decoder { intake, buffer: String::new() };
    let parse = |limits: &Limits| parse_process(frames.process, limits);
    let stream = match decoder.intake.stream(Dialect::JaegerThrift, frames.process, parse) {
        Ok(stream) => Ok(stream),
        Err(Fault::Record(reason)) => Err(reason),
        Err(Fault::Request(error)) => return Err(error),
    };
    let mut batch = Thrift::new(bytes);
    while let Some(field) = batch.field()? {
        match field {
            SPANS => decoder.spans(&mut batch, &stream)?,
            _ => batch.skip(field)?,
        }
    }
    Ok(decoder.intake.finish())
}

struct Frames<'a> {
    spans: usize,
    process: &'a [u8],
}

/// Counts spans, finds the process, which may come behind them, and checks the frames, so that a broken one
/// is found before any work is done.
fn survey(bytes: &[u8]) -> Result<Frames<'_>, DecodeError> {
    let mut frames = Frames { spans: 0, process: &[0] };
    let mut batch = Thrift::new(bytes);
    while let Some(field) = batch.field()? {
        match field {
            PROCESS => {
                let start = batch.position();
                batch.skip(field)?;
                frames.process = batch.since(start);
            }
            SPANS => {
                let count = batch.structs()?;
                for _ in 0..count {
                    batch.skip_struct()?;
                }
                frames.spans += count;
            }
            _ => batch.skip(field)?,
        }
    }
    if batch.position() < bytes.len() {
        return Err(batch.fault("bytes behind the end of the batch"));
    }
    Ok(frames)
}

struct Decoder<'r> {
    intake: Intake<'r, SpanBatchBuilder>,
    /// For values that are not text; reused.
    buffer: String,
}

impl Decoder<'_> {
    fn spans(
        &mut self,
        batch: &mut Thrift<'_>,
        stream: &Result<StreamRef, Reason>,
    ) -> Result<(), DecodeError> {
        let count = batch.structs()?;
        let stream = match stream {
            Ok(stream) => *stream,
            Err(reason) => {
                self.intake.reject_all(count, reason.clone())?;
                return (0..count).try_for_each(|_| batch.skip_struct());
            }
        };
        for _ in 0..count {
            self.intake.begin()?;
            let mut span = *batch;
            let outcome = self.span(&mut span, stream);
            if outcome.is_ok() {
                *batch = span;
            } else {
                // Whatever was read of it, the next span begins after its end.
                batch.skip_struct()?;
            }
            self.intake.settle(outcome)?;
        }
        Ok(())
    }

    fn span(&mut self, wire: &mut Thrift<'_>, stream: StreamRef) -> Result<(), Fault> {
        let begin = wire.position();
        let mut staged = Staged::default();
        let mut told = Told::<&str>::default();
        let (mut high, mut low, mut span_id, mut parent) = (0, 0, 0, 0);
        let (mut operation, mut references) = ("", None);
        let (mut flags, mut start, mut duration) = (0, 0, 0);
        while let Some(field) = wire.field()? {
            match field {
                TRACE_ID_LOW => low = wire.i64()?,
                TRACE_ID_HIGH => high = wire.i64()?,
                SPAN_ID => span_id = wire.i64()?,
                PARENT_SPAN_ID => parent = wire.i64()?,
                OPERATION => {
                    operation = utf8(wire.binary()?, "the operation is not valid UTF-8; send text as UTF-8")?;
                }
                REFERENCES => {
                    // They are understood when the ids are known.
                    references = Some(*wire);
                    wire.skip(field)?;
                }
                FLAGS => flags = wire.i32()?,
                START => start = wire.i64()?,
                DURATION => duration = wire.i64()?,
                TAGS => {
                    for _ in 0..wire.structs()? {
                        let (key, value) = tag(wire)?;
                        if !value.word().is_some_and(|word| told.take(key, word, word)) {
                            self.intake.attribute(&mut staged, key, value.text(&mut self.buffer))?;
                        }
                    }
                }
                LOGS => {
                    for _ in 0..wire.structs()? {
                        self.log(wire, &mut staged)?;
                    }
                }
                _ => wire.skip(field)?,
            }
        }
        self.intake.check_length(wire.position() - begin)?;
        let trace_id = trace(high, low);
        if trace_id.0 == [0; 16] || span_id == 0 {
            return Err(bad("the trace id or the span id is 0"));
        }
        if let Some(references) = references {
            parent = self.references(references, &mut staged, trace_id, parent)?;
        }
        let (status_code, status_message) = told.status();
        let span = Span {
            stream,
            timestamp: if start == 0 { self.intake.now_ns } else { microseconds(start)? },
            duration_ns: microseconds(duration)?,
            trace_id,
            span_id: SpanId(span_id.to_be_bytes()),
            parent_span_id: (parent != 0).then(|| SpanId(parent.to_be_bytes())),
            operation,
            kind: told.kind,
            status_code,
            status_message,
            trace_state: told.trace_state,
            trace_flags: (flags & 1) as u32,
            scope_name: told.scope_name,
        };
        self.intake.push(&span, &staged);
        Ok(())
    }

    /// Stages an event.
    fn log(&mut self, wire: &mut Thrift<'_>, staged: &mut Staged) -> Result<(), Fault> {
        let (mut time, mut name, mut attributes) = (0, "", 0);
        while let Some(field) = wire.field()? {
            match field {
                LOG_TIME => time = wire.i64()?,
                LOG_FIELDS => {
                    for _ in 0..wire.structs()? {
                        match tag(wire)? {
                            ("event", Value::Text(text)) => name = text,
                            (key, value) => {
                                attributes += 1;
                                self.intake.check_attributes(attributes)?;
                                self.intake.builder.event_attribute(key, value.text(&mut self.buffer));
                            }
                        }
                    }
                }
                _ => wire.skip(field)?,
            }
        }
        self.intake.event(staged, microseconds(time)?, name, attributes)
    }

    /// Stages links; gives the parent.
    fn references(
        &mut self,
        list: Thrift<'_>,
        staged: &mut Staged,
        trace_id: TraceId,
        mut parent: i64,
    ) -> Result<i64, Fault> {
        let mut wire = list;
        for _ in 0..wire.structs()? {
            let (child, of_trace, of_span) = reference(&mut wire)?;
            let child_here = child && of_trace == trace_id;
            if child_here && parent == 0 {
                parent = of_span;
            }
            if child_here && parent == of_span {
                continue;
            }
            let kind = if child { "child_of" } else { "follows_from" };
            self.intake.builder.link_attribute("opentracing.ref_type", kind);
            self.intake.link(staged, (of_trace, SpanId(of_span.to_be_bytes())), "", 1)?;
        }
        Ok(parent)
    }
}

fn trace(high: i64, low: i64) -> TraceId {
    let mut id = [0; 16];
    id[..8].copy_from_slice(&high.to_be_bytes());
    id[8..].copy_from_slice(&low.to_be_bytes());
    TraceId(id)
}

/// A `SpanRef`: whether it is CHILD_OF, its trace, its span.
fn reference(wire: &mut Thrift<'_>) -> Result<(bool, TraceId, i64), Fault> {
    let (mut kind, mut low, mut high, mut span_id) = (0, 0, 0, 0);
    while let Some(field) = wire.field()? {
        match field {
            REF_TYPE => kind = wire.i32()?,
            REF_TRACE_ID_LOW => low = wire.i64()?,
            REF_TRACE_ID_HIGH => high = wire.i64()?,
            REF_SPAN_ID => span_id = wire.i64()?,
            _ => wire.skip(field)?,
        }
    }
    Ok((kind == 0, trace(high, low), span_id))
}

/// Value of a `Tag`.
#[derive(Debug, Clone, Copy)]
enum Value<'a> {
    Text(&'a str),
    Double(f64),
    Bool(bool),
    Long(i64),
    Binary(&'a [u8]),
}

impl<'a> Value<'a> {
    /// The value as it may speak of a column.
    fn word(self) -> Option<&'a str> {
        match self {
            Self::Text(text) => Some(text),
            Self::Bool(truth) => Some(if truth { "true" } else { "false" }),
            _ => None,
        }
    }

    /// The value as plain text; `buffer` is used when it is not text already.
    fn text<'s>(self, buffer: &'s mut String) -> &'s str
    where
        'a: 's,
    {
        buffer.clear();
        match self {
            Self::Text(text) => return text,
            Self::Bool(truth) => return if truth { "true" } else { "false" },
            Self::Double(number) => render::double(buffer, number),
            Self::Long(number) => write!(buffer, "{number}").expect("writing to memory cannot fail"),
            Self::Binary(bytes) => render::base64(buffer, bytes),
        }
        buffer
    }
}

/// A `Tag`; its type decides which of the values counts.
#[inline]
fn tag<'a>(wire: &mut Thrift<'a>) -> Result<(&'a str, Value<'a>), Fault> {
    let (mut key, mut kind): (&[u8], _) = (&[], 0);
    let (mut text, mut binary): (&[u8], &[u8]) = (&[], &[]);
    let (mut double, mut truth, mut long) = (0.0, false, 0);
    while let Some(field) = wire.field()? {
        match field {
            KEY => key = wire.binary()?,
            VALUE_TYPE => kind = wire.i32()?,
            TEXT => text = wire.binary()?,
            DOUBLE => double = wire.double()?,
            BOOL => truth = wire.bool()?,
            LONG => long = wire.i64()?,
            BINARY => binary = wire.binary()?,
            _ => wire.skip(field)?,
        }
    }
    let key = utf8(key, "a tag's key is not valid UTF-8; send text as UTF-8")?;
    let value = match kind {
        0 => Value::Text(utf8(text, "a tag's value is not valid UTF-8; send text as UTF-8 or binary")?),
        1 => Value::Double(double),
        2 => Value::Bool(truth),
        3 => Value::Long(long),
        4 => Value::Binary(binary),
        _ => return Err(bad("a tag's type is none of STRING, DOUBLE, BOOL, LONG, BINARY")),
    };
    Ok((key, value))
}

fn parse_process(bytes: &[u8], limits: &Limits) -> Result<Labels, Fault> {
    let mut pairs: Vec<(Box<str>, Box<str>)> = Vec::new();
    let mut set = |key: &str, value: &str| match pairs.iter_mut().find(|(known, _)| **known == *key) {
        Some((_, known)) => *known = value.into(),
        None => pairs.push((key.into(), value.into())),
    };
    let mut buffer = String::new();
    let mut tags = 0;
    let mut wire = Thrift::new(bytes);
    while let Some(field) = wire.field()? {
        match field {
            SERVICE => {
                let service =
                    utf8(wire.binary()?, "the service's name is not valid UTF-8; send text as UTF-8")?;
                if !service.is_empty() {
                    set("service.name", service);
                }
            }
            PROCESS_TAGS => {
                for _ in 0..wire.structs()? {
                    let (key, value) = tag(&mut wire)?;
                    if key.is_empty() {
                        return Err(bad("a tag of the process has no key; name it"));
                    }
                    tags += 1;
                    if tags <= limits.max_labels_per_stream {
                        set(if key == "hostname" { "host.name" } else { key }, value.text(&mut buffer));
                    }
                }
            }
            _ => wire.skip(field)?,
        }
    }
    if tags > limits.max_labels_per_stream {
        let limit = limits.max_labels_per_stream;
        let text = format!("the process has {tags} tags, {limit} are allowed; send some with the spans");
        return Err(Fault::Record(text.into()));
    }
    labels(pairs, limits)
}
