//! The envelope of an export request in protobuf: resources, scopes in them, records in these. It is the same
//! for logs and traces; what a record is says [`Message`].
//!
//! A first pass over the frames counts the records, so that the builder is sized once and a broken
//! frame is found before any work is done. The second decodes. Protobuf allows a resource or scope
//! to come after what it describes, or in several parts: the resource is looked up ahead in its few
//! frames, the scope only when the first pass saw such a late one.

use std::borrow::Cow;

use trine_model::TenantId;
use trine_schema::{Labels, StreamRef, StreamRegistry};

use super::{scope::Scope, value};
use crate::{
    DecodeError, Decoded, Limits,
    intake::{Dialect, Fault, Intake, Reason, Rows, bad, labels, utf8},
    wire::{Tag, Wire},
};

/// `Export…ServiceRequest`.
const RESOURCE_RECORDS: Tag = Tag::bytes(1);
/// `ResourceLogs`, `ResourceSpans`.
const RESOURCE: Tag = Tag::bytes(1);
const SCOPE_RECORDS: Tag = Tag::bytes(2);
/// `Resource`.
const RESOURCE_ATTRIBUTE: Tag = Tag::bytes(1);
/// `ScopeLogs`, `ScopeSpans`.
const SCOPE: Tag = Tag::bytes(1);
const RECORD: Tag = Tag::bytes(2);
/// `InstrumentationScope`.
const SCOPE_NAME: Tag = Tag::bytes(1);
const SCOPE_VERSION: Tag = Tag::bytes(2);
const SCOPE_ATTRIBUTE: Tag = Tag::bytes(3);
/// Rows that one message each brings.
pub(super) trait Message: Rows + Sized {
    /// Decodes a record below its resource and scope.
    fn read(
        decoder: &mut Decoder<'_, Self>,
        wire: Wire<'_>,
        stream: StreamRef,
        scope: &Scope,
    ) -> Result<(), Fault>;
}

pub(super) fn decode<B: Message>(
    bytes: &[u8],
    tenant: &TenantId,
    registry: &StreamRegistry,
    now_ns: i64,
    limits: &Limits,
) -> Result<Decoded<B::Batch>, DecodeError> {
    let frames = survey(bytes)?;
    let mut decoder = Decoder::<B> {
        intake: Intake::new(tenant, registry, now_ns, limits, frames.records, bytes.len()),
        late_scope: frames.late_scope,
        buffer: String::new(),
    };
    let mut request = Wire::new(bytes);
    while let Some(tag) = request.tag()? {
        match tag {
            RESOURCE_RECORDS => decoder.resource_records(request.message()?)?,
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
        if tag != RESOURCE_RECORDS {
            request.skip(tag)?;
            continue;
        }
        let mut resource_records = request.message()?;
        while let Some(tag) = resource_records.tag()? {
            if tag != SCOPE_RECORDS {
                resource_records.skip(tag)?;
                continue;
            }
            let mut scope_records = resource_records.message()?;
            let before = frames.records;
            while let Some(tag) = scope_records.tag()? {
                match tag {
                    RECORD => {
                        scope_records.message()?;
                        frames.records += 1;
                    }
                    _ => {
                        scope_records.skip(tag)?;
                        frames.late_scope |= tag == SCOPE && frames.records > before;
                    }
                }
            }
        }
    }
    Ok(frames)
}

/// All occurrences of a message field; one after the other they are the merged message.
pub(super) fn gather(mut wire: Wire<'_>, field: Tag) -> Result<Cow<'_, [u8]>, DecodeError> {
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

pub(super) struct Decoder<'r, B> {
    pub(super) intake: Intake<'r, B>,
    late_scope: bool,
    /// For values that are not text; reused.
    pub(super) buffer: String,
}

/// Turns a fault of what stands above records into the reason that all of them share.
pub(super) fn shared(fault: Fault) -> Result<Reason, DecodeError> {
    match fault {
        Fault::Record(reason) => Ok(reason),
        Fault::Request(error) => Err(error),
    }
}

impl<B: Message> Decoder<'_, B> {
    fn resource_records(&mut self, mut wire: Wire<'_>) -> Result<(), DecodeError> {
        let resource = gather(wire, RESOURCE)?;
        let parse = |limits: &Limits| parse_resource(&resource, limits);
        let stream = match self.intake.stream(Dialect::OtlpProtobuf, &resource, parse) {
            Ok(stream) => Ok(stream),
            Err(fault) => Err(shared(fault)?),
        };
        while let Some(tag) = wire.tag()? {
            match (tag, &stream) {
                (SCOPE_RECORDS, Ok(stream)) => self.scope_records(wire.message()?, *stream)?,
                (SCOPE_RECORDS, Err(reason)) => self.refuse(wire.message()?, reason)?,
                _ => wire.skip(tag)?,
            }
        }
        Ok(())
    }

    /// Rejects all records of a scope.
    fn refuse(&mut self, mut wire: Wire<'_>, reason: &Reason) -> Result<(), DecodeError> {
        let mut records = 0;
        while let Some(tag) = wire.tag()? {
            wire.skip(tag)?;
            records += usize::from(tag == RECORD);
        }
        self.intake.reject_all(records, reason.clone())
    }

    fn scope_records(&mut self, mut wire: Wire<'_>, stream: StreamRef) -> Result<(), DecodeError> {
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
                    let (key, value) = value::pair(wire.message()?, &mut self.buffer, limits.max_depth)?;
                    scope.attribute(key, value, limits)?;
                }
                _ => wire.skip(tag)?,
            }
        }
        Ok(())
    }

    #[inline]
    fn record(&mut self, wire: Wire<'_>, stream: StreamRef, scope: &Scope) -> Result<(), Fault> {
        self.intake.check_length(wire.rest().len())?;
        B::read(self, wire, stream, scope)
    }
}

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
