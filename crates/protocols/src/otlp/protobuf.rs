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
    wire::{Field, Wire},
};

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
    while let Some(field) = request.next()? {
        if let (1, Field::Bytes(resource_logs)) = field {
            decoder.resource_logs(resource_logs)?;
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
    while let Some(field) = request.next()? {
        let (1, Field::Bytes(mut resource_logs)) = field else { continue };
        while let Some(field) = resource_logs.next()? {
            let (2, Field::Bytes(mut scope_logs)) = field else { continue };
            let before = frames.records;
            while let Some(field) = scope_logs.next()? {
                match field {
                    (1, Field::Bytes(_)) => frames.late_scope |= frames.records > before,
                    (2, Field::Bytes(_)) => frames.records += 1,
                    _ => {}
                }
            }
        }
    }
    Ok(frames)
}

/// All occurrences of a message field; one after the other they are the merged message.
fn gather(mut wire: Wire<'_>, number: u32) -> Result<Cow<'_, [u8]>, DecodeError> {
    let mut found = Cow::Borrowed(&[][..]);
    while let Some((field, value)) = wire.next()? {
        if let Field::Bytes(part) = value
            && field == number
        {
            if found.is_empty() {
                found = Cow::Borrowed(part.bytes());
            } else {
                found.to_mut().extend_from_slice(part.bytes());
            }
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
        let resource = gather(wire, 1)?;
        let parse = |limits: &Limits| parse_resource(&resource, limits);
        let stream = match self.intake.stream(Dialect::OtlpProtobuf, &resource, parse) {
            Ok(stream) => Ok(stream),
            Err(fault) => Err(shared(fault)?),
        };
        while let Some(field) = wire.next()? {
            if let (2, Field::Bytes(scope_logs)) = field {
                match &stream {
                    Ok(stream) => self.scope_logs(scope_logs, *stream)?,
                    Err(reason) => self.refuse(scope_logs, reason)?,
                }
            }
        }
        Ok(())
    }

    /// Rejects all records of a `ScopeLogs`.
    fn refuse(&mut self, mut wire: Wire<'_>, reason: &Reason) -> Result<(), DecodeError> {
        let mut records = 0;
        while let Some(field) = wire.next()? {
            records += usize::from(matches!(field, (2, Field::Bytes(_))));
        }
        self.intake.reject_all(records, reason.clone())
    }

    fn scope_logs(&mut self, mut wire: Wire<'_>, stream: StreamRef) -> Result<(), DecodeError> {
        let whole = wire;
        let mut scope = Scope::default();
        let mut read = Ok(());
        if self.late_scope {
            let bytes = gather(wire, 1)?;
            read = self.scope(&bytes, &mut scope);
        }
        while let Some(field) = wire.next()? {
            if let Err(fault) = read {
                return self.refuse(whole, &shared(fault)?);
            }
            match field {
                (1, Field::Bytes(bytes)) if !self.late_scope => read = self.scope(bytes.bytes(), &mut scope),
                (2, Field::Bytes(record)) => {
                    self.intake.begin()?;
                    let outcome = self.record(record, stream, &scope);
                    self.intake.settle(outcome)?;
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// Reads an `InstrumentationScope`, adding to what was read before.
    fn scope(&mut self, bytes: &[u8], scope: &mut Scope) -> Result<(), Fault> {
        let limits = self.intake.limits;
        let mut wire = Wire::new(bytes);
        while let Some(field) = wire.next()? {
            match field {
                (1, Field::Bytes(name)) => {
                    scope.set_name(
                        utf8(name.bytes(), "the scope's name is not valid UTF-8; send text as UTF-8")?,
                        limits,
                    )?;
                }
                (2, Field::Bytes(version)) => {
                    let version =
                        utf8(version.bytes(), "the scope's version is not valid UTF-8; send text as UTF-8")?;
                    scope.set_version(version, limits)?;
                }
                (3, Field::Bytes(pair)) => {
                    let (key, value) = value::key_value(pair)?;
                    let key = utf8(key, KEY_NOT_UTF8)?;
                    let value = value::text(value, &mut self.buffer, limits.max_depth, VALUE_NOT_UTF8)?;
                    scope.attribute(key, value, limits)?;
                }
                _ => {}
            }
        }
        Ok(())
    }

    #[inline]
    fn record(&mut self, mut wire: Wire<'_>, stream: StreamRef, scope: &Scope) -> Result<(), Fault> {
        self.intake.check_length(wire.bytes().len())?;
        let mut record = LogRecord { stream, scope_name: &scope.name, ..LogRecord::default() };
        let (mut time, mut observed) = (0, 0);
        let mut body = Any::Empty;
        let mut dropped = 0;
        let mut attributes = scope.stage(&mut self.intake.builder);
        while let Some(field) = wire.next()? {
            match field {
                (1, Field::Fixed64(nanoseconds)) => time = nanoseconds,
                (2, Field::Varint(number)) => {
                    record.severity = Severity::from_number(i64::from(number as i32));
                }
                (3, Field::Bytes(word)) => {
                    record.severity_text =
                        utf8(word.bytes(), "severity_text is not valid UTF-8; send text as UTF-8")?;
                }
                (5, Field::Bytes(bytes)) => body = value::any(bytes)?,
                (6, Field::Bytes(pair)) => {
                    attributes += 1;
                    self.intake.check_attributes(attributes)?;
                    let (key, value) = value::key_value(pair)?;
                    self.attribute(key, value)?;
                }
                (7, Field::Varint(count)) => dropped = count as u32,
                (8, Field::Fixed32(flags)) => record.trace_flags = flags,
                (9, Field::Bytes(id)) => record.trace_id = TraceId::from_bytes(id.bytes()).ok(),
                (10, Field::Bytes(id)) => record.span_id = SpanId::from_bytes(id.bytes()).ok(),
                (11, Field::Fixed64(nanoseconds)) => observed = nanoseconds,
                (12, Field::Bytes(name)) => {
                    record.event_name =
                        utf8(name.bytes(), "event_name is not valid UTF-8; send text as UTF-8")?;
                }
                _ => {}
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
    while let Some(field) = wire.next()? {
        if let (1, Field::Bytes(pair)) = field {
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
    }
    if pairs.iter().any(|(key, _): &(Box<str>, Box<str>)| key.is_empty()) {
        return Err(bad("a resource attribute has no key; name it"));
    }
    labels(pairs, limits)
}
