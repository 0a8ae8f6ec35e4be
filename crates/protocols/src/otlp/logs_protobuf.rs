//! `LogRecord` of an `ExportLogsServiceRequest` in protobuf.

use trine_model::{Severity, SpanId, TenantId, TraceId};
use trine_schema::{LogBatchBuilder, LogRecord, StreamRef, StreamRegistry};

use super::{
    DROPPED_COUNT,
    protobuf::{self, Decoder, Message},
    scope::Scope,
    value::{self, Any},
};
use crate::{
    DecodeError, Decoded, Limits,
    intake::{Fault, timestamp, utf8},
    wire::{Tag, Wire},
};

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
    protobuf::decode::<LogBatchBuilder>(bytes, tenant, registry, now_ns, limits)
}

impl Message for LogBatchBuilder {
    #[inline]
    fn read(
        decoder: &mut Decoder<'_, Self>,
        mut wire: Wire<'_>,
        stream: StreamRef,
        scope: &Scope,
    ) -> Result<(), Fault> {
        let Decoder { intake, buffer, .. } = decoder;
        let mut record = LogRecord { stream, scope_name: &scope.name, ..LogRecord::default() };
        let (mut time, mut observed) = (0, 0);
        let mut body = Any::Empty;
        let mut dropped = 0;
        let mut attributes = scope.stage(&mut intake.builder);
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
                    intake.check_attributes(attributes)?;
                    let (key, value) = value::pair(pair, buffer, intake.limits.max_depth)?;
                    intake.builder.attribute(key, value);
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
            intake.builder.attribute_display(DROPPED_COUNT, dropped);
        }
        let body = value::text(body, buffer, intake.limits.max_depth, BODY_NOT_UTF8)?;
        intake.builder.body(body);
        let observed = timestamp(observed)?;
        record.observed_timestamp = (observed != 0).then_some(observed);
        record.timestamp = match timestamp(time)? {
            0 => record.observed_timestamp.unwrap_or(intake.now_ns),
            time => time,
        };
        intake.push(&record, attributes)
    }
}

const BODY_NOT_UTF8: &str = "the body is not valid UTF-8; send text as UTF-8 or bytes_value";
