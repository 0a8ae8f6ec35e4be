//! `Span` of an `ExportTraceServiceRequest` in protobuf.

use trine_model::{SpanId, TenantId, TraceId};
use trine_schema::{Span, SpanBatch, SpanBatchBuilder, StreamRef, StreamRegistry};

use super::{
    protobuf::{self, Decoder, Message},
    scope::Scope,
    spans::{self, Dropped},
    value,
};
use crate::{
    DecodeError, Decoded, Limits,
    intake::{Fault, Intake, timestamp, utf8},
    span_intake::{Staged, interval},
    wire::{Tag, Wire},
};

const TRACE_ID: Tag = Tag::bytes(1);
const SPAN_ID: Tag = Tag::bytes(2);
const TRACE_STATE: Tag = Tag::bytes(3);
const PARENT_SPAN_ID: Tag = Tag::bytes(4);
const NAME: Tag = Tag::bytes(5);
const KIND: Tag = Tag::varint(6);
const START: Tag = Tag::fixed64(7);
const END: Tag = Tag::fixed64(8);
const ATTRIBUTE: Tag = Tag::bytes(9);
const DROPPED_ATTRIBUTES_COUNT: Tag = Tag::varint(10);
const EVENT: Tag = Tag::bytes(11);
const DROPPED_EVENTS_COUNT: Tag = Tag::varint(12);
const LINK: Tag = Tag::bytes(13);
const DROPPED_LINKS_COUNT: Tag = Tag::varint(14);
const STATUS: Tag = Tag::bytes(15);
const FLAGS: Tag = Tag::fixed32(16);
/// `Event`.
const EVENT_TIME: Tag = Tag::fixed64(1);
const EVENT_NAME: Tag = Tag::bytes(2);
const EVENT_ATTRIBUTE: Tag = Tag::bytes(3);
const EVENT_DROPPED_ATTRIBUTES: Tag = Tag::varint(4);
/// `Link`.
const LINK_TRACE_ID: Tag = Tag::bytes(1);
const LINK_SPAN_ID: Tag = Tag::bytes(2);
const LINK_TRACE_STATE: Tag = Tag::bytes(3);
const LINK_ATTRIBUTE: Tag = Tag::bytes(4);
const LINK_DROPPED_ATTRIBUTES: Tag = Tag::varint(5);
/// `Status`.
const STATUS_MESSAGE: Tag = Tag::bytes(2);
const STATUS_CODE: Tag = Tag::varint(3);

/// Decodes an `ExportTraceServiceRequest` in protobuf. `now_ns` (nanoseconds since 1970) stands in
/// for spans that carry no time at all.
pub fn decode_spans_protobuf(
    bytes: &[u8],
    tenant: &TenantId,
    registry: &StreamRegistry,
    now_ns: i64,
    limits: &Limits,
) -> Result<Decoded<SpanBatch>, DecodeError> {
    protobuf::decode::<SpanBatchBuilder>(bytes, tenant, registry, now_ns, limits)
}

impl Message for SpanBatchBuilder {
    #[inline]
    fn read(
        decoder: &mut Decoder<'_, Self>,
        mut wire: Wire<'_>,
        stream: StreamRef,
        scope: &Scope,
    ) -> Result<(), Fault> {
        let Decoder { intake, buffer, .. } = decoder;
        let depth = intake.limits.max_depth;
        let mut staged = Staged::new(scope.stage(&mut intake.builder));
        let mut dropped = Dropped::default();
        let (mut trace_id, mut span_id, mut parent_span_id): (&[u8], &[u8], &[u8]) = (&[], &[], &[]);
        let (mut operation, mut trace_state, mut status_message) = ("", "", "");
        let (mut start, mut end) = (0, 0);
        let (mut kind, mut status_code, mut trace_flags) = (0, 0, 0);
        while let Some(tag) = wire.tag()? {
            match tag {
                TRACE_ID => trace_id = wire.bytes()?,
                SPAN_ID => span_id = wire.bytes()?,
                TRACE_STATE => trace_state = utf8(wire.bytes()?, TRACE_STATE_NOT_UTF8)?,
                PARENT_SPAN_ID => parent_span_id = wire.bytes()?,
                NAME => {
                    operation =
                        utf8(wire.bytes()?, "the span's name is not valid UTF-8; send text as UTF-8")?;
                }
                KIND => kind = spans::known_kind(i64::from(wire.varint()? as i32)),
                START => start = wire.fixed64()?,
                END => end = wire.fixed64()?,
                ATTRIBUTE => {
                    let (key, value) = value::pair(wire.message()?, buffer, depth)?;
                    intake.attribute(&mut staged, key, value)?;
                }
                DROPPED_ATTRIBUTES_COUNT => dropped.attributes = wire.varint()? as u32,
                EVENT => event(intake, &mut staged, buffer, wire.message()?)?,
                DROPPED_EVENTS_COUNT => dropped.events = wire.varint()? as u32,
                LINK => link(intake, &mut staged, buffer, wire.message()?)?,
                DROPPED_LINKS_COUNT => dropped.links = wire.varint()? as u32,
                STATUS => {
                    let mut status = wire.message()?;
                    while let Some(tag) = status.tag()? {
                        match tag {
                            STATUS_MESSAGE => {
                                let reason = "the status message is not valid UTF-8; send text as UTF-8";
                                status_message = utf8(status.bytes()?, reason)?;
                            }
                            STATUS_CODE => {
                                status_code = spans::known_status(i64::from(status.varint()? as i32));
                            }
                            _ => status.skip(tag)?,
                        }
                    }
                }
                FLAGS => trace_flags = wire.fixed32()?,
                _ => wire.skip(tag)?,
            }
        }
        dropped.stage(intake, &mut staged);
        let (timestamp, duration_ns) = interval(timestamp(start)?, timestamp(end)?, intake.now_ns);
        let span = Span {
            stream,
            timestamp,
            duration_ns,
            trace_id: spans::id(TraceId::from_bytes(trace_id))?,
            span_id: spans::id(SpanId::from_bytes(span_id))?,
            parent_span_id: spans::parent(parent_span_id, 0, SpanId::from_bytes)?,
            operation,
            kind,
            status_code,
            status_message,
            trace_state,
            trace_flags,
            scope_name: &scope.name,
        };
        intake.push(&span, &staged);
        Ok(())
    }
}

const TRACE_STATE_NOT_UTF8: &str = "trace_state is not valid UTF-8; send text as UTF-8";

fn event(
    intake: &mut Intake<'_, SpanBatchBuilder>,
    staged: &mut Staged,
    buffer: &mut String,
    mut wire: Wire<'_>,
) -> Result<(), Fault> {
    let (mut time, mut name, mut dropped, mut attributes) = (0, "", 0, 0);
    while let Some(tag) = wire.tag()? {
        match tag {
            EVENT_TIME => time = wire.fixed64()?,
            EVENT_NAME => {
                name = utf8(wire.bytes()?, "an event's name is not valid UTF-8; send text as UTF-8")?;
            }
            EVENT_ATTRIBUTE => {
                let (key, value) = value::pair(wire.message()?, buffer, intake.limits.max_depth)?;
                attributes += 1;
                intake.check_attributes(attributes)?;
                intake.builder.event_attribute(key, value);
            }
            EVENT_DROPPED_ATTRIBUTES => dropped = wire.varint()? as u32,
            _ => wire.skip(tag)?,
        }
    }
    spans::end_event(intake, staged, time, name, attributes, dropped)
}

fn link(
    intake: &mut Intake<'_, SpanBatchBuilder>,
    staged: &mut Staged,
    buffer: &mut String,
    mut wire: Wire<'_>,
) -> Result<(), Fault> {
    let (mut trace_id, mut span_id) = (None, None);
    let (mut trace_state, mut dropped, mut attributes) = ("", 0, 0);
    while let Some(tag) = wire.tag()? {
        match tag {
            LINK_TRACE_ID => trace_id = TraceId::from_bytes(wire.bytes()?).ok(),
            LINK_SPAN_ID => span_id = SpanId::from_bytes(wire.bytes()?).ok(),
            LINK_TRACE_STATE => trace_state = utf8(wire.bytes()?, TRACE_STATE_NOT_UTF8)?,
            LINK_ATTRIBUTE => {
                let (key, value) = value::pair(wire.message()?, buffer, intake.limits.max_depth)?;
                attributes += 1;
                intake.check_attributes(attributes)?;
                intake.builder.link_attribute(key, value);
            }
            LINK_DROPPED_ATTRIBUTES => dropped = wire.varint()? as u32,
            _ => wire.skip(tag)?,
        }
    }
    spans::end_link(intake, staged, (trace_id, span_id), trace_state, attributes, dropped)
}
