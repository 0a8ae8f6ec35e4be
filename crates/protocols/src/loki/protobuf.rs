//! `logproto.PushRequest` in protobuf (`pkg/push/push.proto` of Loki).

use trine_model::TenantId;
use trine_schema::StreamRegistry;

use super::{
    labels,
    stream::{KnownLevel, PushStream},
};
use crate::{
    DecodeError, Decoded, Limits,
    intake::{Dialect, Fault, Intake, bad, utf8},
    wire::{Tag, Wire},
};

/// `PushRequest`.
const STREAM: Tag = Tag::bytes(1);
/// `StreamAdapter`.
const LABELS: Tag = Tag::bytes(1);
const ENTRY: Tag = Tag::bytes(2);
/// `EntryAdapter`.
const TIMESTAMP: Tag = Tag::bytes(1);
const LINE: Tag = Tag::bytes(2);
const METADATA: Tag = Tag::bytes(3);
/// `google.protobuf.Timestamp`.
const SECONDS: Tag = Tag::varint(1);
const NANOS: Tag = Tag::varint(2);
/// `LabelPairAdapter`.
const NAME: Tag = Tag::bytes(1);
const VALUE: Tag = Tag::bytes(2);

/// Decodes a `logproto.PushRequest`, already without its snappy coat. `now_ns` (nanoseconds since
/// 1970) stands in for entries without a time.
pub fn decode_push_protobuf(
    bytes: &[u8],
    tenant: &TenantId,
    registry: &StreamRegistry,
    now_ns: i64,
    limits: &Limits,
) -> Result<Decoded, DecodeError> {
    let entries = survey(bytes)?;
    let mut intake = Intake::new(tenant, registry, now_ns, limits, entries, bytes.len());
    let mut request = Wire::new(bytes);
    while let Some(tag) = request.tag()? {
        match tag {
            STREAM => push_stream(&mut intake, request.message()?)?,
            _ => request.skip(tag)?,
        }
    }
    Ok(intake.finish())
}

/// Counts entries and checks the frames around them.
fn survey(bytes: &[u8]) -> Result<usize, DecodeError> {
    let mut entries = 0;
    let mut request = Wire::new(bytes);
    while let Some(tag) = request.tag()? {
        match tag {
            STREAM => entries += labels_and_entries(request.message()?)?.1,
            _ => request.skip(tag)?,
        }
    }
    Ok(entries)
}

/// The labels, which may stand anywhere in the stream, and the number of entries.
fn labels_and_entries(mut stream: Wire<'_>) -> Result<(&[u8], usize), DecodeError> {
    let (mut labels, mut entries): (&[u8], _) = (&[], 0);
    while let Some(tag) = stream.tag()? {
        match tag {
            LABELS => labels = stream.bytes()?,
            ENTRY => {
                stream.message()?;
                entries += 1;
            }
            _ => stream.skip(tag)?,
        }
    }
    Ok((labels, entries))
}

fn push_stream(intake: &mut Intake<'_>, mut wire: Wire<'_>) -> Result<(), DecodeError> {
    // Labels come first unless the sender is odd, so this rarely reads more than one frame.
    let first = wire;
    let raw = match wire.tag()? {
        Some(LABELS) => wire.bytes()?,
        _ => labels_and_entries(first)?.0,
    };
    let stream = intake.stream(Dialect::LokiText, raw, |limits| {
        labels::parse(utf8(raw, "the stream's labels are not valid UTF-8; send text as UTF-8")?, limits)
    });
    let stream = match stream {
        Ok(stream) => PushStream::new(stream, intake.registry()),
        Err(Fault::Record(reason)) => return intake.reject_all(labels_and_entries(first)?.1, reason),
        Err(Fault::Request(error)) => return Err(error),
    };
    let mut wire = first;
    let mut level = None;
    while let Some(tag) = wire.tag()? {
        match tag {
            ENTRY => {
                let bytes = wire.message()?;
                intake.begin()?;
                let outcome = entry(intake, bytes, stream, &mut level);
                intake.settle(outcome)?;
            }
            _ => wire.skip(tag)?,
        }
    }
    Ok(())
}

/// `level` is the pair that last was the level, and what it means: most entries repeat it.
#[inline]
fn entry<'a>(
    intake: &mut Intake<'_>,
    mut wire: Wire<'a>,
    stream: PushStream,
    level: &mut Option<(&'a [u8], KnownLevel<'a>)>,
) -> Result<(), Fault> {
    intake.check_length(wire.rest().len())?;
    let mut entry = stream.record();
    entry.record.timestamp = intake.now_ns;
    let mut line: &[u8] = &[];
    while let Some(tag) = wire.tag()? {
        match tag {
            TIMESTAMP => entry.record.timestamp = timestamp(wire.message()?)?,
            LINE => line = wire.bytes()?,
            METADATA => {
                let pair = wire.message()?;
                if let Some((known, level)) = level
                    && pair.rest() == *known
                    && entry.level(*level)
                {
                    continue;
                }
                let (name, value) = label_pair(pair)?;
                if let Some(new) = entry.metadata(name, value, intake)? {
                    *level = Some((pair.rest(), new));
                }
            }
            _ => wire.skip(tag)?,
        }
    }
    intake.builder.body(utf8(line, "the line is not valid UTF-8; send text as UTF-8")?);
    entry.push(intake)
}

/// `google.protobuf.Timestamp`.
#[inline]
fn timestamp(mut wire: Wire<'_>) -> Result<i64, Fault> {
    let (mut seconds, mut nanos) = (0, 0);
    while let Some(tag) = wire.tag()? {
        match tag {
            SECONDS => seconds = wire.varint()? as i64,
            NANOS => nanos = i64::from(wire.varint()? as i32),
            _ => wire.skip(tag)?,
        }
    }
    seconds
        .checked_mul(1_000_000_000)
        .and_then(|whole| whole.checked_add(nanos))
        .ok_or_else(|| bad("the time lies outside the years 1677 to 2262; send nanoseconds since 1970"))
}

/// `LabelPairAdapter`.
#[inline]
fn label_pair(mut wire: Wire<'_>) -> Result<(&str, &str), Fault> {
    let (mut name, mut value): (&[u8], &[u8]) = (&[], &[]);
    while let Some(tag) = wire.tag()? {
        match tag {
            NAME => name = wire.bytes()?,
            VALUE => value = wire.bytes()?,
            _ => wire.skip(tag)?,
        }
    }
    let reason = "structured metadata are not valid UTF-8; send text as UTF-8";
    Ok((utf8(name, reason)?, utf8(value, reason)?))
}
