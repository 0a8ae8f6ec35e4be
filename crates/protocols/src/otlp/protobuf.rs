//! `ExportLogsServiceRequest` in protobuf.
//!
//! A first pass over the frames counts the records, so that the builder is sized once and a broken
//! frame is found before any work is done. The second decodes. Protobuf allows a resource or scope
//! to come after what it describes, or in several parts: the resource is looked up ahead in its few
//! frames, the scope only when the first pass saw such a late one.

use std::borrow::Cow;

use trine_model::{Severity, SpanId, TenantId, TraceId};
use trine_schema::{Labels, LogRecord, StreamRef, StreamRegistry};

use super::{
    DROPPED_COUNT,
    scope::Scope,
    value::{self, Any, KEY_NOT_UTF8, VALUE_NOT_UTF8},
};
use crate::{
    DecodeError, Decoded, Limits,
    intake::{Dialect, Fault, Intake, Reason, bad, labels, timestamp, utf8},
    wire::{Tag, Wire},
};

/// `ExportLogsServiceRequest`.
const RESOURCE_LOGS: Tag = Tag::bytes(1);
/// `ResourceLogs`.
const RESOURCE: Tag = Tag::bytes(1);
const SCOPE_LOGS: Tag = Tag::bytes(2);
/// `Resource`.
const RESOURCE_ATTRIBUTE: Tag = Tag::bytes(1);
/// `ScopeLogs`.
const SCOPE: Tag = Tag::bytes(1);
const RECORD: Tag = Tag::bytes(2);
/// `InstrumentationScope`.
const SCOPE_NAME: Tag = Tag::bytes(1);
const SCOPE_VERSION: Tag = Tag::bytes(2);
const SCOPE_ATTRIBUTE: Tag = Tag::bytes(3);
/// `LogRecord`.
const TIME: Tag = Tag::fixed64(1);
const SEVERITY_NUMBER: Tag = Tag::varint(2);
const SEVERITY_TEXT: Tag = Tag::bytes(3);
const BODY: Tag = Tag::bytes(5);
const ATTRIBUTE: Tag = Tag::bytes(6);
const DROPPED_ATTRIBUTES: Tag = Tag::varint(7);
const FLAGS: Tag = Tag::fixed32(8);
const TRACE_ID: Tag = Tag::bytes(9);
const SPAN_ID: Tag = Tag::bytes(10);
const OBSERVED_TIME: Tag = Tag::fixed64(11);
const EVENT_NAME: Tag = Tag::bytes(12);

/// Decodes an `ExportLogsServiceRequest` in protobuf. `now_ns` (nanoseconds since 1970) stands in
/// for records that carry no time at all.
pub fn decode_logs_protobuf(
    bytes: &[u8],
    tenant: &TenantId,
    registry: &StreamRegistry,
    now_ns: i64,
    limits: &Limits,
) -> Result<Decoded, DecodeError> {
    let frames = survey(bytes)?;
    let mut decoder = Decoder {
        intake: Intake::new(tenant, registry, now_ns, limits, frames.records, bytes.len()),
        late_scope: frames.late_scope,
        buffer: String::new(),
    };
    let mut request = Wire::new(bytes);
    while let Some(tag) = request.tag()? {
        match tag {
            RESOURCE_LOGS => decoder.resource_logs(request.message()?)?,
            _ => request.skip(tag)?,
        }
    }
    Ok(decoder.intake.finish())
}

struct Frames {
    records: usize,
    late_scope: bool,
}

/// Counts records and checks the frames around them.
fn survey(bytes: &[u8]) -> Result<Frames, DecodeError> {
    let mut frames = Frames { records: 0, late_scope: false };
    let mut request = Wire::new(bytes);
    while let Some(tag) = request.tag()? {
        if tag != RESOURCE_LOGS {
            request.skip(tag)?;
            continue;
        }
        let mut resource_logs = request.message()?;
        while let Some(tag) = resource_logs.tag()? {
            if tag != SCOPE_LOGS {
                resource_logs.skip(tag)?;
                continue;
            }
            let mut scope_logs = resource_logs.message()?;
            let before = frames.records;
            while let Some(tag) = scope_logs.tag()? {
                match tag {
                    RECORD => {
                        scope_logs.message()?;
                        frames.records += 1;
                    }
                    _ => {
                        scope_logs.skip(tag)?;
                        frames.late_scope |= tag == SCOPE && frames.records > before;
                    }
                }
            }
        }
    }
    Ok(frames)
}

/// All occurrences of a message field; one after the other they are the merged message.
fn gather(mut wire: Wire<'_>, field: Tag) -> Result<Cow<'_, [u8]>, DecodeError> {
    let mut found = Cow::Borrowed(&[][..]);
    while let Some(tag) = wire.tag()? {
        if tag != field {
            wire.skip(tag)?;
            continue;
        }
        let part = wire.bytes()?;
        if found.is_empty() {
            found = Cow::Borrowed(part);
        } else {
            found.to_mut().extend_from_slice(part);
        }
    }
    Ok(found)
}

struct Decoder<'r> {
    intake: Intake<'r>,
    late_scope: bool,
    /// For values that are not text; reused.
    buffer: String,
}

/// Turns a fault of what stands above records into the reason that all of them share.
fn shared(fault: Fault) -> Result<Reason, DecodeError> {
    match fault {
        Fault::Record(reason) => Ok(reason),
        Fault::Request(error) => Err(error),
    }
}

impl Decoder<'_> {
    fn resource_logs(&mut self, mut wire: Wire<'_>) -> Result<(), DecodeError> {
        let resource = gather(wire, RESOURCE)?;
        let parse = |limits: &Limits| parse_resource(&resource, limits);
        let stream = match self.intake.stream(Dialect::OtlpProtobuf, &resource, parse) {
            Ok(stream) => Ok(stream),
            Err(fault) => Err(shared(fault)?),
        };
        while let Some(tag) = wire.tag()? {
            match (tag, &stream) {
                (SCOPE_LOGS, Ok(stream)) => self.scope_logs(wire.message()?, *stream)?,
                (SCOPE_LOGS, Err(reason)) => self.refuse(wire.message()?, reason)?,
                _ => wire.skip(tag)?,
            }
        }
        Ok(())
    }

    /// Rejects all records of a `ScopeLogs`.
    fn refuse(&mut self, mut wire: Wire<'_>, reason: &Reason) -> Result<(), DecodeError> {
        let mut records = 0;
        while let Some(tag) = wire.tag()? {
            wire.skip(tag)?;
            records += usize::from(tag == RECORD);
        }
        self.intake.reject_all(records, reason.clone())
    }

    fn scope_logs(&mut self, mut wire: Wire<'_>, stream: StreamRef) -> Result<(), DecodeError> {
        let whole = wire;
        let mut scope = Scope::default();
        let mut read = Ok(());
        if self.late_scope {
            let bytes = gather(wire, SCOPE)?;
            read = self.scope(&bytes, &mut scope);
        }
        while let Some(tag) = wire.tag()? {
            if let Err(fault) = read {
                return self.refuse(whole, &shared(fault)?);
            }
            match tag {
                SCOPE if !self.late_scope => read = self.scope(wire.bytes()?, &mut scope),
                RECORD => {
                    let record = wire.message()?;
                    self.intake.begin()?;
                    let outcome = self.record(record, stream, &scope);
                    self.intake.settle(outcome)?;
                }
                _ => wire.skip(tag)?,
            }
        }
        Ok(())
    }

    /// Reads an `InstrumentationScope`, adding to what was read before.
    fn scope(&mut self, bytes: &[u8], scope: &mut Scope) -> Result<(), Fault> {
        let limits = self.intake.limits;
        let mut wire = Wire::new(bytes);
        while let Some(tag) = wire.tag()? {
            match tag {
                SCOPE_NAME => {
                    let reason = "the scope's name is not valid UTF-8; send text as UTF-8";
                    scope.set_name(utf8(wire.bytes()?, reason)?, limits)?;
                }
                SCOPE_VERSION => {
                    let reason = "the scope's version is not valid UTF-8; send text as UTF-8";
                    scope.set_version(utf8(wire.bytes()?, reason)?, limits)?;
                }
                SCOPE_ATTRIBUTE => {
                    let (key, value) = value::key_value(wire.message()?)?;
                    let key = utf8(key, KEY_NOT_UTF8)?;
                    let value = value::text(value, &mut self.buffer, limits.max_depth, VALUE_NOT_UTF8)?;
                    scope.attribute(key, value, limits)?;
                }
                _ => wire.skip(tag)?,
            }
        }
        Ok(())
    }

    #[inline]
    fn record(&mut self, mut wire: Wire<'_>, stream: StreamRef, scope: &Scope) -> Result<(), Fault> {
        self.intake.check_length(wire.rest().len())?;
        let mut record = LogRecord { stream, scope_name: &scope.name, ..LogRecord::default() };
        let (mut time, mut observed) = (0, 0);
        let mut body = Any::Empty;
        let mut dropped = 0;
        let mut attributes = scope.stage(&mut self.intake.builder);
        while let Some(tag) = wire.tag()? {
            match tag {
                TIME => time = wire.fixed64()?,
                SEVERITY_NUMBER => {
                    record.severity = Severity::from_number(i64::from(wire.varint()? as i32));
                }
                SEVERITY_TEXT => {
                    let (text, name) = (wire.bytes()?, record.severity.level().name());
                    // Most words only repeat the level, and then they need no check.
                    record.severity_text = if text == name.as_bytes() {
                        name
                    } else {
                        utf8(text, "severity_text is not valid UTF-8; send text as UTF-8")?
                    };
                }
                BODY => body = value::any(wire.message()?)?,
                ATTRIBUTE => {
                    let pair = wire.message()?;
                    attributes += 1;
                    self.intake.check_attributes(attributes)?;
                    let (key, value) = value::key_value(pair)?;
                    self.attribute(key, value)?;
                }
                DROPPED_ATTRIBUTES => dropped = wire.varint()? as u32,
                FLAGS => record.trace_flags = wire.fixed32()?,
                TRACE_ID => record.trace_id = TraceId::from_bytes(wire.bytes()?).ok(),
                SPAN_ID => record.span_id = SpanId::from_bytes(wire.bytes()?).ok(),
                OBSERVED_TIME => observed = wire.fixed64()?,
                EVENT_NAME => {
                    record.event_name =
                        utf8(wire.bytes()?, "event_name is not valid UTF-8; send text as UTF-8")?;
                }
                _ => wire.skip(tag)?,
            }
        }
        if dropped != 0 {
            attributes += 1;
            self.intake.builder.attribute_display(DROPPED_COUNT, dropped);
        }
        let body = value::text(body, &mut self.buffer, self.intake.limits.max_depth, BODY_NOT_UTF8)?;
        self.intake.builder.body(body);
        let observed = timestamp(observed)?;
        record.observed_timestamp = (observed != 0).then_some(observed);
        record.timestamp = match timestamp(time)? {
            0 => record.observed_timestamp.unwrap_or(self.intake.now_ns),
            time => time,
        };
        self.intake.push(&record, attributes)
    }

    #[inline]
    fn attribute(&mut self, key: &[u8], value: Any<'_>) -> Result<(), Fault> {
        let key = utf8(key, KEY_NOT_UTF8)?;
        let value = value::text(value, &mut self.buffer, self.intake.limits.max_depth, VALUE_NOT_UTF8)?;
        self.intake.builder.attribute(key, value);
        Ok(())
    }
}

const BODY_NOT_UTF8: &str = "the body is not valid UTF-8; send text as UTF-8 or bytes_value";

fn parse_resource(bytes: &[u8], limits: &Limits) -> Result<Labels, Fault> {
    let mut pairs = Vec::new();
    let mut buffer = String::new();
    let mut wire = Wire::new(bytes);
    while let Some(tag) = wire.tag()? {
        if tag != RESOURCE_ATTRIBUTE {
            wire.skip(tag)?;
            continue;
        }
        let pair = wire.message()?;
        if pairs.len() > limits.max_labels_per_stream {
            break;
        }
        let (key, value) = value::key_value(pair)?;
        let key = utf8(key, "a resource attribute's key is not valid UTF-8; send text as UTF-8")?;
        let value = value::text(
            value,
            &mut buffer,
            limits.max_depth,
            "a resource attribute is not valid UTF-8; send text as UTF-8",
        )?;
        pairs.push((key.into(), value.into()));
    }
    if pairs.iter().any(|(key, _): &(Box<str>, Box<str>)| key.is_empty()) {
        return Err(bad("a resource attribute has no key; name it"));
    }
    labels(pairs, limits)
}
