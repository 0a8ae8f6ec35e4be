//! Zipkin v2 JSON (`POST /api/v2/spans`, <https://zipkin.io/zipkin-api/#/default/post_spans>): an array of
//! spans.
//!
//! How a span maps; the names are those of the OpenTelemetry collector's Zipkin receiver:
//! - `localEndpoint.serviceName` is the stream's only label, `service.name`; the rest of the endpoint becomes
//!   `net.host.ip` and `net.host.port`; the remote endpoint becomes `peer.service`, `net.peer.ip`,
//!   `net.peer.port`;
//! - ids are up to 32 and 16 hex digits and are padded with zeros on the left; a parent that is the span
//!   itself is none;
//! - `timestamp` and `duration` are microseconds; without a timestamp the earliest annotation stands in, then
//!   the time of arrival;
//! - `kind` is CLIENT, SERVER, PRODUCER or CONSUMER; without it the tag `span.kind` decides, which knows
//!   `internal` too;
//! - an annotation is an event; a tag is an attribute, except those that speak of columns:
//!   `otel.status_code`, `otel.status_description`, `error`, `w3c.tracestate`, `otel.scope.name`
//!   (or by its old name);
//! - `error` makes the status an error unless it is `false`; its text, where it is more than `true`, is the
//!   status message when no other is given;
//! - a span that is `shared` has the id of the client's span in the other process: it keeps it, with the
//!   attribute `zipkin.shared`; `debug` becomes `zipkin.debug`.

use std::fmt::Display;

use trine_model::{SpanId, TenantId, TraceId};
use trine_schema::{Labels, Span, SpanBatch, SpanBatchBuilder, StreamRef, StreamRegistry};

use crate::{
    DecodeError, Decoded, Limits,
    intake::{Dialect, Fault, Intake, bad, labels},
    json::{Json, Str, Value},
    json_intake::JsonIntake,
    span_intake::{Staged, Told, kind, microseconds},
};

/// A guess at the JSON bytes of a span, to size the builder.
const SPAN_BYTES: usize = 400;

/// Decodes a list of Zipkin v2 spans in JSON. `now_ns` (nanoseconds since 1970) stands in for spans that
/// carry no time at all.
pub fn decode_spans(
    bytes: &[u8],
    tenant: &TenantId,
    registry: &StreamRegistry,
    now_ns: i64,
    limits: &Limits,
) -> Result<Decoded<SpanBatch>, DecodeError> {
    let mut json = Json::from_bytes(bytes)?;
    let rows = bytes.len() / SPAN_BYTES;
    let intake = Intake::new(tenant, registry, now_ns, limits, rows, bytes.len() / 2);
    let mut decoder = JsonIntake::<SpanBatchBuilder>::new(intake);
    // Spans of one service come together.
    let mut known = None;
    decoder.each_record(&mut json, |decoder, json| span(decoder, json, &mut known))?;
    json.end()?;
    Ok(decoder.intake.finish())
}

/// The stream that was asked for last, by the spelling of its service.
type Known<'a> = Option<(&'a str, StreamRef)>;

const NONE: Str<'static> = Str::plain("");

fn span<'a>(
    decoder: &mut JsonIntake<'_, SpanBatchBuilder>,
    json: &mut Json<'a>,
    known: &mut Known<'a>,
) -> Result<(), Fault> {
    if json.peek() != b'{' {
        return Err(bad("the span is not an object"));
    }
    let begin = json.position();
    json.object()?;
    let mut staged = Staged::default();
    let (mut trace_id, mut span_id, mut parent_id) = (NONE, NONE, NONE);
    let (mut operation, mut kind) = (NONE, kind::UNSPECIFIED);
    let (mut timestamp, mut duration) = (None, None);
    let (mut local, mut remote) = (Endpoint::default(), Endpoint::default());
    let (mut shared, mut debug) = (false, false);
    let mut earliest = None;
    let mut told = Told::<Str<'a>>::default();
    let mut first = true;
    while let Some(name) = json.member(&mut first)? {
        match name.raw() {
            "traceId" => trace_id = string(json.value()?, "traceId is not a string of hex digits")?,
            "id" => span_id = string(json.value()?, "id is not a string of hex digits")?,
            "parentId" => parent_id = string(json.value()?, "parentId is not a string of hex digits")?,
            "name" => operation = string(json.value()?, "the span's name is not a string")?,
            "kind" => kind = kind_by_name(string(json.value()?, "kind is not a string")?.raw())?,
            "timestamp" => timestamp = number(json.value()?, "timestamp is not an integer of microseconds")?,
            "duration" => duration = number(json.value()?, "duration is not an integer of microseconds")?,
            "localEndpoint" => local = endpoint(json)?,
            "remoteEndpoint" => remote = endpoint(json)?,
            "shared" => shared = matches!(json.value()?, Value::Bool(true)),
            "debug" => debug = matches!(json.value()?, Value::Bool(true)),
            "tags" => tags(decoder, &mut staged, &mut told, json)?,
            "annotations" => annotations(decoder, &mut staged, &mut earliest, json)?,
            _ => json.skip()?,
        }
    }
    let JsonIntake { intake, buffer, key_buffer } = decoder;
    intake.check_length(json.position() - begin)?;
    let stream = match *known {
        Some((service, stream)) if service == local.service.raw() => stream,
        _ => {
            let raw = local.service.raw();
            let parse = |limits: &Limits| service_labels(local.service, limits);
            let stream = intake.stream(Dialect::Zipkin, raw.as_bytes(), parse)?;
            *known = Some((raw, stream));
            stream
        }
    };
    let service = remote.service.text(buffer);
    if !service.is_empty() {
        intake.attribute(&mut staged, "peer.service", service)?;
    }
    for (endpoint, ip, port) in
        [(&local, "net.host.ip", "net.host.port"), (&remote, "net.peer.ip", "net.peer.port")]
    {
        for address in [endpoint.ipv4, endpoint.ipv6] {
            let address = address.text(buffer);
            if !address.is_empty() {
                intake.attribute(&mut staged, ip, address)?;
            }
        }
        if endpoint.port > 0 {
            intake.attribute_display(&mut staged, port, endpoint.port);
        }
    }
    for (name, set) in [("zipkin.shared", shared), ("zipkin.debug", debug)] {
        if set {
            intake.attribute(&mut staged, name, "true")?;
        }
    }
    if kind == kind::UNSPECIFIED {
        kind = told.kind;
    }
    let (status_code, status_message) = told.status();
    let timestamp = match timestamp {
        Some(time) => microseconds(time)?,
        None => earliest.unwrap_or(intake.now_ns),
    };
    let span_id = padded(span_id, "id").map(SpanId)?;
    let parent_span_id = match parent_id.raw() {
        "" => None,
        _ => Some(SpanId(hex(parent_id, "parentId")?)).filter(|id| id.0 != [0; 8] && *id != span_id),
    };
    // Take memory only where the text has escapes.
    let (mut trace_state, mut scope_name) = (String::new(), String::new());
    let span = Span {
        stream,
        timestamp,
        duration_ns: microseconds(duration.unwrap_or(0))?,
        trace_id: padded(trace_id, "traceId").map(TraceId)?,
        span_id,
        parent_span_id,
        operation: operation.text(buffer),
        kind,
        status_code,
        status_message: status_message.text(key_buffer),
        trace_state: told.trace_state.text(&mut trace_state),
        trace_flags: 0,
        scope_name: told.scope_name.text(&mut scope_name),
    };
    intake.push(&span, &staged);
    Ok(())
}

fn tags<'a>(
    decoder: &mut JsonIntake<'_, SpanBatchBuilder>,
    staged: &mut Staged,
    told: &mut Told<Str<'a>>,
    json: &mut Json<'a>,
) -> Result<(), Fault> {
    const REASON: &str = "tags are not an object of strings";
    if json.null()? {
        return Ok(());
    }
    if json.peek() != b'{' {
        return Err(bad(REASON));
    }
    json.object()?;
    let JsonIntake { intake, buffer, key_buffer } = decoder;
    let mut first = true;
    while let Some(key) = json.member(&mut first)? {
        let key = key.text(key_buffer);
        match json.value()? {
            Value::Str(value) if told.take(key, value.raw(), value) => {}
            Value::Str(value) => intake.attribute(staged, key, value.text(buffer))?,
            // Not by the specification, but senders write them.
            Value::Number(number) => intake.attribute(staged, key, number)?,
            Value::Bool(truth) => intake.attribute(staged, key, if truth { "true" } else { "false" })?,
            Value::Null => {}
            Value::Nested(..) => return Err(bad(REASON)),
        }
    }
    Ok(())
}

/// Annotations become events; notes the earliest.
fn annotations(
    decoder: &mut JsonIntake<'_, SpanBatchBuilder>,
    staged: &mut Staged,
    earliest: &mut Option<i64>,
    json: &mut Json<'_>,
) -> Result<(), Fault> {
    const REASON: &str = "annotations are not an array of objects with timestamp and value";
    if json.null()? {
        return Ok(());
    }
    if json.peek() != b'[' {
        return Err(bad(REASON));
    }
    json.each(|json| {
        if json.peek() != b'{' {
            return Err(bad(REASON));
        }
        json.object()?;
        let (mut time, mut value) = (None, NONE);
        let mut first = true;
        while let Some(name) = json.member(&mut first)? {
            match name.raw() {
                "timestamp" => time = number(json.value()?, REASON)?,
                "value" => value = string(json.value()?, REASON)?,
                _ => json.skip()?,
            }
        }
        let time = microseconds(time.unwrap_or(0))?;
        if time != 0 {
            *earliest = Some(earliest.map_or(time, |earliest: i64| earliest.min(time)));
        }
        decoder.intake.event(staged, time, value.text(&mut decoder.buffer), 0)
    })
}

#[derive(Default)]
struct Endpoint<'a> {
    service: Str<'a>,
    ipv4: Str<'a>,
    ipv6: Str<'a>,
    port: i64,
}

fn endpoint<'a>(json: &mut Json<'a>) -> Result<Endpoint<'a>, Fault> {
    const REASON: &str = "an endpoint is not an object with serviceName, ipv4, ipv6 and port";
    let mut endpoint = Endpoint::default();
    if json.null()? {
        return Ok(endpoint);
    }
    if json.peek() != b'{' {
        return Err(bad(REASON));
    }
    json.object()?;
    let mut first = true;
    while let Some(name) = json.member(&mut first)? {
        match name.raw() {
            "serviceName" => endpoint.service = string(json.value()?, REASON)?,
            "ipv4" => endpoint.ipv4 = string(json.value()?, REASON)?,
            "ipv6" => endpoint.ipv6 = string(json.value()?, REASON)?,
            "port" => endpoint.port = number(json.value()?, REASON)?.unwrap_or(0),
            _ => json.skip()?,
        }
    }
    Ok(endpoint)
}

fn service_labels(service: Str<'_>, limits: &Limits) -> Result<Labels, Fault> {
    let mut buffer = String::new();
    let service = service.text(&mut buffer);
    let pairs = if service.is_empty() { Vec::new() } else { vec![("service.name".into(), service.into())] };
    labels(pairs, limits)
}

fn kind_by_name(name: &str) -> Result<u8, Fault> {
    Ok(match name {
        "" => kind::UNSPECIFIED,
        "CLIENT" => kind::CLIENT,
        "SERVER" => kind::SERVER,
        "PRODUCER" => kind::PRODUCER,
        "CONSUMER" => kind::CONSUMER,
        _ => return Err(bad("kind is none of CLIENT, SERVER, PRODUCER, CONSUMER")),
    })
}

fn string<'a>(value: Value<'a>, reason: &'static str) -> Result<Str<'a>, Fault> {
    match value {
        Value::Str(text) => Ok(text),
        Value::Null => Ok(NONE),
        _ => Err(bad(reason)),
    }
}

/// A count of microseconds or a port: not negative.
fn number(value: Value<'_>, reason: &'static str) -> Result<Option<i64>, Fault> {
    let number = match value {
        Value::Number(digits) => digits.parse().ok().filter(|number| *number >= 0),
        Value::Null => return Ok(None),
        _ => None,
    };
    number.map(Some).ok_or_else(|| bad(reason))
}

/// Hex digits, padded with zeros on the left.
fn hex<const N: usize>(digits: Str<'_>, what: impl Display) -> Result<[u8; N], Fault> {
    let digits = digits.raw();
    let mut id = [0; N];
    let fits = !digits.is_empty() && digits.len() <= 2 * N;
    let known = digits.bytes().rev().enumerate().all(|(i, digit)| {
        let value = char::from(digit).to_digit(16);
        if let (Some(value), Some(byte)) = (value, id.iter_mut().rev().nth(i / 2)) {
            *byte |= (value as u8) << (4 * (i % 2));
        }
        value.is_some()
    });
    if fits && known {
        return Ok(id);
    }
    let most = 2 * N;
    Err(Fault::Record(format!("{what} is not 1 to {most} hex digits").into()))
}

/// The same, not all zero.
fn padded<const N: usize>(digits: Str<'_>, what: impl Display + Copy) -> Result<[u8; N], Fault> {
    let id = hex(digits, what)?;
    if id == [0; N] {
        return Err(Fault::Record(format!("{what} is all zero").into()));
    }
    Ok(id)
}
