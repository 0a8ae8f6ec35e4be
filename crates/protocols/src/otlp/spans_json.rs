//! `Span` of an `ExportTraceServiceRequest` in JSON.

use trine_model::{SpanId, TenantId, TraceId};
use trine_schema::{Span, SpanBatch, SpanBatchBuilder, StreamRef, StreamRegistry};

use super::{
    json::{self, FLAGS, Object, TIME, each_attribute, string, unsigned},
    json_value,
    scope::Scope,
    spans::{self, Dropped},
};
use crate::{
    DecodeError, Decoded, Limits,
    intake::{Fault, bad, timestamp},
    json::{Json, Str, Value},
    json_intake::JsonIntake,
    span_intake::{Staged, interval, kind, status},
};

/// Decodes an `ExportTraceServiceRequest` in OTLP's JSON encoding. `now_ns` (nanoseconds since
/// 1970) stands in for spans that carry no time at all.
pub fn decode_spans_json(
    bytes: &[u8],
    tenant: &TenantId,
    registry: &StreamRegistry,
    now_ns: i64,
    limits: &Limits,
) -> Result<Decoded<SpanBatch>, DecodeError> {
    json::decode::<SpanBatchBuilder>(bytes, tenant, registry, now_ns, limits)
}

const TRACE_ID: &str = "traceId is not a string of hex digits";
const SPAN_ID: &str = "spanId is not a string of hex digits";
const TRACE_STATE: &str = "traceState is not a string";
const EVENTS: &str = "events are not an array of objects";
const LINKS: &str = "links are not an array of objects";

impl Object for SpanBatchBuilder {
    const RESOURCES: &'static str = "resourceSpans";
    const SCOPES: &'static str = "scopeSpans";
    const RECORDS: &'static str = "spans";
    const RECORD_BYTES: usize = 500;

    #[inline]
    fn read(
        decoder: &mut JsonIntake<'_, Self>,
        json: &mut Json<'_>,
        stream: StreamRef,
        scope: &Scope,
    ) -> Result<(), Fault> {
        let begin = json.position();
        json.object()?;
        let mut staged = Staged::new(scope.stage(&mut decoder.intake.builder));
        let mut dropped = Dropped::default();
        let (mut trace_id, mut span_id, mut parent_span_id) = (NONE, NONE, NONE);
        let (mut operation, mut trace_state, mut status_message) = (NONE, NONE, NONE);
        let (mut start, mut end) = (0, 0);
        let (mut kind, mut status_code, mut trace_flags) = (0, 0, 0);
        let mut first = true;
        while let Some(name) = json.member(&mut first)? {
            match name.raw() {
                "traceId" => trace_id = string(json.value()?, TRACE_ID)?,
                "spanId" => span_id = string(json.value()?, SPAN_ID)?,
                "parentSpanId" => {
                    parent_span_id = string(json.value()?, "parentSpanId is not a string of hex digits")?;
                }
                "traceState" => trace_state = string(json.value()?, TRACE_STATE)?,
                "name" => operation = string(json.value()?, "the span's name is not a string")?,
                "kind" => kind = known_kind(json.value()?)?,
                "startTimeUnixNano" => start = unsigned(json.value()?, TIME)?,
                "endTimeUnixNano" => end = unsigned(json.value()?, TIME)?,
                "attributes" => {
                    let JsonIntake { intake, buffer, key_buffer } = decoder;
                    let depth = intake.limits.max_depth;
                    each_attribute(json, |json| {
                        let (key, value) = json_value::pair(json, key_buffer, buffer, depth)?;
                        intake.attribute(&mut staged, key, value)
                    })?;
                }
                "droppedAttributesCount" => dropped.attributes = count(json.value()?)?,
                "events" => each_object(json, EVENTS, |json| event(decoder, &mut staged, json))?,
                "droppedEventsCount" => dropped.events = count(json.value()?)?,
                "links" => each_object(json, LINKS, |json| link(decoder, &mut staged, json))?,
                "droppedLinksCount" => dropped.links = count(json.value()?)?,
                "status" if !json.null()? => {
                    if json.peek() != b'{' {
                        return Err(bad("status is not an object"));
                    }
                    json.object()?;
                    let mut first = true;
                    while let Some(name) = json.member(&mut first)? {
                        match name.raw() {
                            "message" => {
                                status_message = string(json.value()?, "the status message is not a string")?;
                            }
                            "code" => status_code = known_status(json.value()?)?,
                            _ => json.skip()?,
                        }
                    }
                }
                "status" => {}
                "flags" => {
                    let flags = unsigned(json.value()?, FLAGS)?;
                    trace_flags = u32::try_from(flags).map_err(|_| bad(FLAGS))?;
                }
                _ => json.skip()?,
            }
        }
        let JsonIntake { intake, buffer, key_buffer } = decoder;
        intake.check_length(json.position() - begin)?;
        dropped.stage(intake, &mut staged);
        let (timestamp, duration_ns) = interval(timestamp(start)?, timestamp(end)?, intake.now_ns);
        // Takes memory only where a trace state has escapes, which it has not by its grammar.
        let mut trace_state_buffer = String::new();
        let span = Span {
            stream,
            timestamp,
            duration_ns,
            trace_id: spans::id(TraceId::from_hex(trace_id.raw().as_bytes()))?,
            span_id: spans::id(SpanId::from_hex(span_id.raw().as_bytes()))?,
            parent_span_id: spans::parent(parent_span_id.raw().as_bytes(), b'0', SpanId::from_hex)?,
            operation: operation.text(buffer),
            kind,
            status_code,
            status_message: status_message.text(key_buffer),
            trace_state: trace_state.text(&mut trace_state_buffer),
            trace_flags,
            scope_name: &scope.name,
        };
        intake.push(&span, &staged);
        Ok(())
    }
}

const NONE: Str<'static> = Str::plain("");

/// Runs over the objects of an array; `null` is none.
fn each_object<'a>(
    json: &mut Json<'a>,
    reason: &'static str,
    mut object: impl FnMut(&mut Json<'a>) -> Result<(), Fault>,
) -> Result<(), Fault> {
    if json.null()? {
        return Ok(());
    }
    if json.peek() != b'[' {
        return Err(bad(reason));
    }
    json.each(|json| {
        if json.peek() != b'{' {
            return Err(bad(reason));
        }
        json.object()?;
        object(json)
    })
}

fn event(
    decoder: &mut JsonIntake<'_, SpanBatchBuilder>,
    staged: &mut Staged,
    json: &mut Json<'_>,
) -> Result<(), Fault> {
    let JsonIntake { intake, buffer, key_buffer } = decoder;
    let (mut time, mut event_name, mut dropped, mut attributes) = (0, NONE, 0, 0);
    let mut first = true;
    while let Some(name) = json.member(&mut first)? {
        match name.raw() {
            "timeUnixNano" => time = unsigned(json.value()?, TIME)?,
            "name" => event_name = string(json.value()?, "an event's name is not a string")?,
            "attributes" => each_attribute(json, |json| {
                attributes += 1;
                intake.check_attributes(attributes)?;
                let (key, value) = json_value::pair(json, key_buffer, buffer, intake.limits.max_depth)?;
                intake.builder.event_attribute(key, value);
                Ok(())
            })?,
            "droppedAttributesCount" => dropped = count(json.value()?)?,
            _ => json.skip()?,
        }
    }
    spans::end_event(intake, staged, time, event_name.text(buffer), attributes, dropped)
}

fn link(
    decoder: &mut JsonIntake<'_, SpanBatchBuilder>,
    staged: &mut Staged,
    json: &mut Json<'_>,
) -> Result<(), Fault> {
    let JsonIntake { intake, buffer, key_buffer } = decoder;
    let (mut trace_id, mut span_id) = (None, None);
    let (mut trace_state, mut dropped, mut attributes) = (NONE, 0, 0);
    let mut first = true;
    while let Some(name) = json.member(&mut first)? {
        match name.raw() {
            "traceId" => trace_id = TraceId::from_hex(string(json.value()?, TRACE_ID)?.raw().as_bytes()).ok(),
            "spanId" => span_id = SpanId::from_hex(string(json.value()?, SPAN_ID)?.raw().as_bytes()).ok(),
            "traceState" => trace_state = string(json.value()?, TRACE_STATE)?,
            "attributes" => each_attribute(json, |json| {
                attributes += 1;
                intake.check_attributes(attributes)?;
                let (key, value) = json_value::pair(json, key_buffer, buffer, intake.limits.max_depth)?;
                intake.builder.link_attribute(key, value);
                Ok(())
            })?,
            "droppedAttributesCount" => dropped = count(json.value()?)?,
            _ => json.skip()?,
        }
    }
    spans::end_link(intake, staged, (trace_id, span_id), trace_state.text(buffer), attributes, dropped)
}

fn count(value: Value<'_>) -> Result<u32, Fault> {
    const REASON: &str = "a dropped count is not an unsigned 32-bit integer";
    u32::try_from(unsigned(value, REASON)?).map_err(|_| bad(REASON))
}

/// A span kind by number, or by its name, which the specification forbids and some senders write.
fn known_kind(value: Value<'_>) -> Result<u8, Fault> {
    let names = [
        ("UNSPECIFIED", kind::UNSPECIFIED),
        ("INTERNAL", kind::INTERNAL),
        ("SERVER", kind::SERVER),
        ("CLIENT", kind::CLIENT),
        ("PRODUCER", kind::PRODUCER),
        ("CONSUMER", kind::CONSUMER),
    ];
    let reason = "kind is neither an integer nor a kind that OTLP knows";
    Ok(spans::known_kind(enumeration(value, "SPAN_KIND_", &names, reason)?))
}

/// A status code, in the same way.
fn known_status(value: Value<'_>) -> Result<u8, Fault> {
    let names = [("UNSET", status::UNSET), ("OK", status::OK), ("ERROR", status::ERROR)];
    let reason = "the status code is neither an integer nor a code that OTLP knows";
    Ok(spans::known_status(enumeration(value, "STATUS_CODE_", &names, reason)?))
}

/// The number of an enum value.
fn enumeration(
    value: Value<'_>,
    prefix: &str,
    names: &[(&str, u8)],
    reason: &'static str,
) -> Result<i64, Fault> {
    let word = match value {
        Value::Number(digits) => digits,
        Value::Str(text) => text.raw(),
        Value::Null => return Ok(0),
        _ => return Err(bad(reason)),
    };
    let number = match word.strip_prefix(prefix) {
        Some(name) => names.iter().find(|(known, _)| *known == name).map(|(_, number)| i64::from(*number)),
        None => word.parse().ok(),
    };
    number.ok_or_else(|| bad(reason))
}
