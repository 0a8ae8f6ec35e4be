//! `ExportLogsServiceRequest` in OTLP's JSON encoding: proto3 JSON with camelCase names, ids in
//! hex, enums as numbers, 64-bit integers as strings or numbers, unknown members ignored
//! (OTLP specification, "JSON Protobuf Encoding").
//!
//! One pass without a tree. JSON leaves the order of members free: where `scopeLogs` come before
//! `resource`, or `logRecords` before `scope`, they are passed over, remembered by place, and read
//! when the object is complete. Of members given twice the last one counts.
//!
//! A record whose members have wrong types is rejected alone; broken grammar, or a wrong type above
//! the records, refuses the request.

use trine_model::{Severity, SpanId, TenantId, TraceId};
use trine_schema::{Labels, LogRecord, StreamRef, StreamRegistry};

use super::{
    DROPPED_COUNT,
    json_value::{self, Any},
    scope::Scope,
};
use crate::{
    DecodeError, Decoded, Limits,
    intake::{Dialect, Fault, Intake, Reason, bad, labels, timestamp},
    json::{Json, Str, Value},
    json_intake::JsonIntake,
};

/// A guess at the JSON bytes of a record, to size the builder.
const RECORD_BYTES: usize = 400;

/// Decodes an `ExportLogsServiceRequest` in OTLP's JSON encoding. `now_ns` (nanoseconds since
/// 1970) stands in for records that carry no time at all.
pub fn decode_logs_json(
    bytes: &[u8],
    tenant: &TenantId,
    registry: &StreamRegistry,
    now_ns: i64,
    limits: &Limits,
) -> Result<Decoded, DecodeError> {
    let mut json = Json::from_bytes(bytes)?;
    let mut decoder = JsonIntake::new(Intake::new(
        tenant,
        registry,
        now_ns,
        limits,
        bytes.len() / RECORD_BYTES,
        bytes.len() / 2,
    ));
    json.object()?;
    let mut first = true;
    while let Some(name) = json.member(&mut first)? {
        if name.raw() == "resourceLogs" && !json.null()? {
            json.each(|json| decoder.resource_logs(json))?;
        } else if name.raw() != "resourceLogs" {
            json.skip()?;
        }
    }
    json.end()?;
    Ok(decoder.intake.finish())
}

/// What stands above records: read, or refused with the reason for all of them.
type Shared<T> = Result<T, Reason>;

fn shared<T>(read: Result<T, Fault>) -> Result<Shared<T>, DecodeError> {
    match read {
        Ok(value) => Ok(Ok(value)),
        Err(Fault::Record(reason)) => Ok(Err(reason)),
        Err(Fault::Request(error)) => Err(error),
    }
}

impl JsonIntake<'_> {
    fn resource_logs(&mut self, json: &mut Json<'_>) -> Result<(), DecodeError> {
        json.object()?;
        let mut stream = None;
        let mut waiting = None;
        let mut first = true;
        while let Some(name) = json.member(&mut first)? {
            match name.raw() {
                "resource" => {
                    let start = json.position();
                    let value = json.value()?;
                    let raw = match value {
                        Value::Nested(_, raw) => raw,
                        Value::Null => "",
                        _ => {
                            json.rewind(start);
                            return Err(json.fault("expected a resource object"));
                        }
                    };
                    stream = Some(self.resource(raw)?);
                }
                "scopeLogs" => {
                    if let Some(stream) = &stream {
                        self.all_scope_logs(json, stream)?;
                    } else {
                        waiting = Some(json.position());
                        json.skip()?;
                    }
                }
                _ => json.skip()?,
            }
        }
        if let Some(place) = waiting {
            let stream = match stream {
                Some(stream) => stream,
                None => self.resource("")?,
            };
            json.at(place, |json| self.all_scope_logs(json, &stream))?;
        }
        Ok(())
    }

    fn resource(&self, raw: &str) -> Result<Shared<StreamRef>, DecodeError> {
        let parse = |limits: &Limits| parse_resource(raw, limits);
        shared(self.intake.stream(Dialect::OtlpJson, raw.as_bytes(), parse))
    }

    fn all_scope_logs(&mut self, json: &mut Json<'_>, stream: &Shared<StreamRef>) -> Result<(), DecodeError> {
        if json.null()? {
            return Ok(());
        }
        json.each(|json| self.scope_logs(json, stream))
    }

    fn scope_logs(&mut self, json: &mut Json<'_>, stream: &Shared<StreamRef>) -> Result<(), DecodeError> {
        json.object()?;
        let mut scope = None;
        let mut waiting = None;
        let mut first = true;
        while let Some(name) = json.member(&mut first)? {
            match name.raw() {
                "scope" => {
                    let start = json.position();
                    let read = shared(self.scope(json))?;
                    if read.is_err() {
                        json.rewind(start);
                        json.skip()?;
                    }
                    scope = Some(read);
                }
                "logRecords" => {
                    if let Some(scope) = &scope {
                        self.records(json, stream, scope)?;
                    } else {
                        waiting = Some(json.position());
                        json.skip()?;
                    }
                }
                _ => json.skip()?,
            }
        }
        if let Some(place) = waiting {
            let scope = scope.unwrap_or_else(|| Ok(Scope::default()));
            json.at(place, |json| self.records(json, stream, &scope))?;
        }
        Ok(())
    }

    fn scope(&mut self, json: &mut Json<'_>) -> Result<Scope, Fault> {
        let limits = self.intake.limits;
        let mut scope = Scope::default();
        if json.null()? {
            return Ok(scope);
        }
        json.object()?;
        let mut first = true;
        while let Some(name) = json.member(&mut first)? {
            match name.raw() {
                "name" => {
                    if let Value::Str(text) = json.value()? {
                        scope.set_name(text.text(&mut self.buffer), limits)?;
                    }
                }
                "version" => {
                    if let Value::Str(text) = json.value()? {
                        scope.set_version(text.text(&mut self.buffer), limits)?;
                    }
                }
                "attributes" if !json.null()? => {
                    json.array()?;
                    let mut first = true;
                    while json.element(&mut first)? {
                        let (key, value) = json_value::key_value(json)?;
                        let value = json_value::text(value, json, &mut self.buffer, limits.max_depth)?;
                        scope.attribute(key.text(&mut self.key_buffer), value, limits)?;
                    }
                }
                "attributes" => {}
                _ => json.skip()?,
            }
        }
        Ok(scope)
    }

    fn records(
        &mut self,
        json: &mut Json<'_>,
        stream: &Shared<StreamRef>,
        scope: &Shared<Scope>,
    ) -> Result<(), DecodeError> {
        if json.null()? {
            return Ok(());
        }
        match (stream, scope) {
            (Ok(stream), Ok(scope)) => {
                self.each_record(json, |decoder, json| decoder.record(json, *stream, scope))
            }
            (Err(reason), _) | (_, Err(reason)) => self.refuse(json, reason.clone()),
        }
    }

    #[inline]
    fn record(&mut self, json: &mut Json<'_>, stream: StreamRef, scope: &Scope) -> Result<(), Fault> {
        if json.peek() != b'{' {
            return Err(bad("the record is not an object"));
        }
        let start = json.position();
        json.object()?;
        let mut record = LogRecord { stream, scope_name: &scope.name, ..LogRecord::default() };
        let (mut time, mut observed) = (0, 0);
        let (mut body, mut dropped) = (Any::Empty, 0);
        // Both live until the row is closed; unescaped text of theirs is rare enough to own.
        let (mut severity_text, mut event_name) = (Str::plain(""), Str::plain(""));
        let mut attributes = scope.stage(&mut self.intake.builder);
        let mut first = true;
        while let Some(name) = json.member(&mut first)? {
            match name.raw() {
                "timeUnixNano" => time = unsigned(json.value()?, TIME)?,
                "observedTimeUnixNano" => observed = unsigned(json.value()?, TIME)?,
                "severityNumber" => record.severity = severity(json.value()?)?,
                "severityText" => severity_text = string(json.value()?, "severityText is not a string")?,
                "body" => body = json_value::any(json)?,
                "attributes" if !json.null()? => {
                    if json.peek() != b'[' {
                        return Err(bad("attributes are not an array"));
                    }
                    json.array()?;
                    let mut first = true;
                    while json.element(&mut first)? {
                        attributes += 1;
                        self.intake.check_attributes(attributes)?;
                        self.attribute(json)?;
                    }
                }
                "attributes" => {}
                "droppedAttributesCount" => {
                    dropped = unsigned(json.value()?, "droppedAttributesCount is not an unsigned integer")?;
                }
                "flags" => {
                    let flags = unsigned(json.value()?, FLAGS)?;
                    record.trace_flags = u32::try_from(flags).map_err(|_| bad(FLAGS))?;
                }
                "traceId" => {
                    let id = string(json.value()?, "traceId is not a string of hex digits")?;
                    record.trace_id = TraceId::from_hex(id.raw().as_bytes()).ok();
                }
                "spanId" => {
                    let id = string(json.value()?, "spanId is not a string of hex digits")?;
                    record.span_id = SpanId::from_hex(id.raw().as_bytes()).ok();
                }
                "eventName" => event_name = string(json.value()?, "eventName is not a string")?,
                _ => json.skip()?,
            }
        }
        self.intake.check_length(json.position() - start)?;
        if dropped != 0 {
            attributes += 1;
            self.intake.builder.attribute_display(DROPPED_COUNT, dropped);
        }
        if let Any::Text(text) = body {
            text.pieces(|piece| self.intake.builder.body(piece));
        } else {
            let text = json_value::text(body, json, &mut self.buffer, self.intake.limits.max_depth)?;
            self.intake.builder.body(text);
        }
        let observed = timestamp(observed)?;
        record.observed_timestamp = (observed != 0).then_some(observed);
        record.timestamp = match timestamp(time)? {
            0 => record.observed_timestamp.unwrap_or(self.intake.now_ns),
            time => time,
        };
        record.severity_text = severity_text.text(&mut self.key_buffer);
        record.event_name = event_name.text(&mut self.buffer);
        self.intake.push(&record, attributes)
    }

    #[inline]
    fn attribute(&mut self, json: &mut Json<'_>) -> Result<(), Fault> {
        let (key, value) = json_value::key_value(json)?;
        let value = json_value::text(value, json, &mut self.buffer, self.intake.limits.max_depth)?;
        self.intake.builder.attribute(key.text(&mut self.key_buffer), value);
        Ok(())
    }
}

const TIME: &str = "a time is not an unsigned integer of nanoseconds since 1970";
const FLAGS: &str = "flags are not an unsigned 32-bit integer";

fn string<'a>(value: Value<'a>, reason: &'static str) -> Result<Str<'a>, Fault> {
    match value {
        Value::Str(text) => Ok(text),
        Value::Null => Ok(Str::plain("")),
        _ => Err(bad(reason)),
    }
}

/// A 64-bit integer as number or string; numbers may be spelled like `1e3`.
#[inline]
fn unsigned(value: Value<'_>, reason: &'static str) -> Result<u64, Fault> {
    let digits = match value {
        Value::Number(digits) => digits,
        Value::Str(text) => text.raw(),
        Value::Null => return Ok(0),
        _ => return Err(bad(reason)),
    };
    if let Ok(number) = digits.parse() {
        return Ok(number);
    }
    match digits.parse::<f64>() {
        // 2^64 is the first double that does not fit.
        Ok(number) if number.fract() == 0.0 && (0.0..18_446_744_073_709_551_616.0).contains(&number) => {
            Ok(number as u64)
        }
        _ => Err(bad(reason)),
    }
}

/// A severity number, or its name, which the specification forbids and some senders write.
fn severity(value: Value<'_>) -> Result<Severity, Fault> {
    const REASON: &str = "severityNumber is not an integer";
    let digits = match value {
        Value::Number(digits) => digits,
        Value::Str(text) => text.raw(),
        Value::Null => return Ok(Severity::UNSET),
        _ => return Err(bad(REASON)),
    };
    if let Some(name) = digits.strip_prefix("SEVERITY_NUMBER_") {
        let step =
            name.bytes().last().filter(|digit| (b'2'..=b'4').contains(digit)).map_or(0, |digit| digit - b'1');
        let family = if step == 0 { name } else { &name[..name.len() - 1] };
        let base = match family {
            "UNSPECIFIED" => return Ok(Severity::UNSET),
            "TRACE" => 1,
            "DEBUG" => 5,
            "INFO" => 9,
            "WARN" => 13,
            "ERROR" => 17,
            "FATAL" => 21,
            _ => return Err(bad("severityNumber is a name that OTLP does not know")),
        };
        return Ok(Severity::from_number(i64::from(base + step)));
    }
    digits.parse().map(Severity::from_number).map_err(|_| bad(REASON))
}

fn parse_resource(raw: &str, limits: &Limits) -> Result<Labels, Fault> {
    let mut pairs = Vec::new();
    if raw.is_empty() {
        return labels(pairs, limits);
    }
    let (mut buffer, mut key_buffer) = (String::new(), String::new());
    let mut json = Json::new(raw);
    json.object().map_err(|_| bad("the resource is not an object"))?;
    let mut first = true;
    while let Some(name) = json.member(&mut first)? {
        if name.raw() != "attributes" || json.null()? {
            if name.raw() != "attributes" {
                json.skip()?;
            }
            continue;
        }
        if json.peek() != b'[' {
            return Err(bad("the resource's attributes are not an array"));
        }
        json.array()?;
        let mut first = true;
        while json.element(&mut first)? {
            let (key, value) = json_value::key_value(&mut json)?;
            if pairs.len() <= limits.max_labels_per_stream {
                let value = json_value::text(value, &mut json, &mut buffer, limits.max_depth)?;
                pairs.push((key.text(&mut key_buffer).into(), value.into()));
            }
        }
    }
    if pairs.iter().any(|(key, _): &(Box<str>, Box<str>)| key.is_empty()) {
        return Err(bad("a resource attribute has no key; name it"));
    }
    labels(pairs, limits)
}
