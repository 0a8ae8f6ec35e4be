//! `logproto.PushRequest` in protobuf (`pkg/push/push.proto` of Loki).

use trine_model::TenantId;
use trine_schema::StreamRegistry;

use super::{labels, stream::PushStream};
use crate::{
    DecodeError, Decoded, Limits,
    intake::{Dialect, Fault, Intake, bad, utf8},
    wire::{Field, Wire},
};

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
    while let Some(field) = request.next()? {
        if let (1, Field::Bytes(stream)) = field {
            push_stream(&mut intake, stream)?;
        }
    }
    Ok(intake.finish())
}

/// Counts entries and checks the frames around them.
fn survey(bytes: &[u8]) -> Result<usize, DecodeError> {
    let mut entries = 0;
    let mut request = Wire::new(bytes);
    while let Some(field) = request.next()? {
        let (1, Field::Bytes(stream)) = field else { continue };
        entries += labels_and_entries(stream)?.1;
    }
    Ok(entries)
}

/// The labels, which may stand anywhere in the stream, and the number of entries.
fn labels_and_entries(mut stream: Wire<'_>) -> Result<(&[u8], usize), DecodeError> {
    let (mut labels, mut entries): (&[u8], _) = (&[], 0);
    while let Some(field) = stream.next()? {
        match field {
            (1, Field::Bytes(text)) => labels = text.bytes(),
            (2, Field::Bytes(_)) => entries += 1,
            _ => {}
        }
    }
    Ok((labels, entries))
}

fn push_stream(intake: &mut Intake<'_>, mut wire: Wire<'_>) -> Result<(), DecodeError> {
    // Labels come first unless the sender is odd, so this rarely reads more than one frame.
    let first = wire;
    let raw = match wire.next()? {
        Some((1, Field::Bytes(text))) => text.bytes(),
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
    while let Some(field) = wire.next()? {
        if let (2, Field::Bytes(bytes)) = field {
            intake.begin()?;
            let outcome = entry(intake, bytes, stream);
            intake.settle(outcome)?;
        }
    }
    Ok(())
}

#[inline]
fn entry(intake: &mut Intake<'_>, mut wire: Wire<'_>, stream: PushStream) -> Result<(), Fault> {
    intake.check_length(wire.bytes().len())?;
    let mut entry = stream.record();
    entry.record.timestamp = intake.now_ns;
    let mut line: &[u8] = &[];
    while let Some(field) = wire.next()? {
        match field {
            (1, Field::Bytes(time)) => entry.record.timestamp = timestamp(time)?,
            (2, Field::Bytes(text)) => line = text.bytes(),
            (3, Field::Bytes(pair)) => {
                let (name, value) = label_pair(pair)?;
                entry.metadata(name, value, intake)?;
            }
            _ => {}
        }
    }
    intake.builder.body(utf8(line, "the line is not valid UTF-8; send text as UTF-8")?);
    entry.push(intake)
}

/// `google.protobuf.Timestamp`.
#[inline]
fn timestamp(mut wire: Wire<'_>) -> Result<i64, Fault> {
    let (mut seconds, mut nanos) = (0, 0);
    while let Some(field) = wire.next()? {
        match field {
            (1, Field::Varint(n)) => seconds = n as i64,
            (2, Field::Varint(n)) => nanos = i64::from(n as i32),
            _ => {}
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
    while let Some(field) = wire.next()? {
        match field {
            (1, Field::Bytes(text)) => name = text.bytes(),
            (2, Field::Bytes(text)) => value = text.bytes(),
            _ => {}
        }
    }
    let reason = "structured metadata are not valid UTF-8; send text as UTF-8";
    Ok((utf8(name, reason)?, utf8(value, reason)?))
}
