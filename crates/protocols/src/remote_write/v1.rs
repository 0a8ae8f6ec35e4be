//! `prometheus.WriteRequest`, version 1.0.

use std::borrow::Cow;

use trine_model::TenantId;
use trine_schema::{Labels, Metadata, MetricBatch, MetricBatchBuilder, RawKey, StreamRef, StreamRegistry};

use super::histogram::histogram;
use crate::{
    DecodeError, Decoded, Limits,
    intake::{Dialect, Fault, Intake, bad, check_labels, utf8},
    metric_intake::{series_labels, type_name},
    wire::{Tag, Wire},
};

/// `WriteRequest`.
const SERIES: Tag = Tag::bytes(1);
const METADATA: Tag = Tag::bytes(3);
/// `TimeSeries`.
const LABEL: Tag = Tag::bytes(1);
const SAMPLE: Tag = Tag::bytes(2);
const EXEMPLAR: Tag = Tag::bytes(3);
const HISTOGRAM: Tag = Tag::bytes(4);
/// `Label`.
const NAME: Tag = Tag::bytes(1);
const VALUE: Tag = Tag::bytes(2);
/// `Sample`.
const SAMPLE_VALUE: Tag = Tag::fixed64(1);
const SAMPLE_TIMESTAMP: Tag = Tag::varint(2);
/// `Exemplar`.
const EXEMPLAR_LABEL: Tag = Tag::bytes(1);
const EXEMPLAR_VALUE: Tag = Tag::fixed64(2);
const EXEMPLAR_TIMESTAMP: Tag = Tag::varint(3);
/// `MetricMetadata`.
const TYPE: Tag = Tag::varint(1);
const FAMILY: Tag = Tag::bytes(2);
const HELP: Tag = Tag::bytes(4);
const UNIT: Tag = Tag::bytes(5);

/// A guess at the bytes of a sample with its labels, to size the builder.
const SAMPLE_BYTES: usize = 128;

/// Decodes a `prometheus.WriteRequest`, already without its snappy coat. `now_ns` (nanoseconds since 1970) is
/// the time of metadata.
pub fn decode_v1(
    bytes: &[u8],
    tenant: &TenantId,
    registry: &StreamRegistry,
    now_ns: i64,
    limits: &Limits,
) -> Result<Decoded<MetricBatch>, DecodeError> {
    let intake = Intake::new(tenant, registry, now_ns, limits, bytes.len() / SAMPLE_BYTES, 0);
    let spelling = intake.spelling(Dialect::RemoteWrite1);
    let mut decoder = Decoder { intake, spelling };
    let mut request = Wire::new(bytes);
    while let Some(tag) = request.tag()? {
        match tag {
            SERIES => decoder.series(request.message()?)?,
            METADATA => {
                let metadata = request.message()?;
                decoder.intake.begin()?;
                let outcome = decoder.metadata(metadata);
                decoder.intake.settle(outcome)?;
            }
            _ => request.skip(tag)?,
        }
    }
    Ok(decoder.intake.finish_records())
}

/// The labels of a series as spelled: usually one piece at its front.
fn labels_of(wire: Wire<'_>) -> Result<Cow<'_, [u8]>, DecodeError> {
    let all = wire.rest();
    let (mut ahead, mut rest) = (wire, wire);
    while let Some(LABEL) = ahead.tag()? {
        ahead.message()?;
        rest = ahead;
    }
    let mut labels = Cow::Borrowed(&all[..all.len() - rest.rest().len()]);
    loop {
        let start = rest.rest();
        let Some(tag) = rest.tag()? else { return Ok(labels) };
        rest.skip(tag)?;
        if tag == LABEL {
            labels.to_mut().extend_from_slice(&start[..start.len() - rest.rest().len()]);
        }
    }
}

struct Decoder<'r> {
    intake: Intake<'r, MetricBatchBuilder>,
    spelling: RawKey,
}

impl Decoder<'_> {
    fn series(&mut self, mut wire: Wire<'_>) -> Result<(), DecodeError> {
        let labels = labels_of(wire)?;
        let key = self.spelling.with(RawKey::of(&labels));
        let series = match self.intake.stream_of(key, |limits| parse_labels(&labels, limits)) {
            Ok(series) => series,
            Err(Fault::Request(error)) => return Err(error),
            Err(Fault::Record(reason)) => {
                let mut records = 0;
                while let Some(tag) = wire.tag()? {
                    wire.skip(tag)?;
                    records += usize::from(matches!(tag, SAMPLE | EXEMPLAR | HISTOGRAM));
                }
                return self.intake.reject_all(records, reason);
            }
        };
        while let Some(tag) = wire.tag()? {
            let outcome = match tag {
                SAMPLE => {
                    let sample = wire.message()?;
                    self.intake.begin()?;
                    self.sample(series, sample)
                }
                HISTOGRAM => {
                    let bytes = wire.message()?;
                    self.intake.begin()?;
                    histogram(&mut self.intake, series, bytes)
                }
                EXEMPLAR => {
                    let exemplar = wire.message()?;
                    self.intake.begin()?;
                    self.exemplar(series, exemplar)
                }
                _ => {
                    wire.skip(tag)?;
                    continue;
                }
            };
            self.intake.settle(outcome)?;
        }
        Ok(())
    }

    #[inline]
    fn sample(&mut self, series: StreamRef, mut wire: Wire<'_>) -> Result<(), Fault> {
        let (mut value, mut at_ms) = (0.0, 0);
        while let Some(tag) = wire.tag()? {
            match tag {
                SAMPLE_VALUE => value = f64::from_bits(wire.fixed64()?),
                SAMPLE_TIMESTAMP => at_ms = wire.varint()? as i64,
                _ => wire.skip(tag)?,
            }
        }
        self.intake.float(series, at_ms, value, 0)
    }

    fn exemplar(&mut self, series: StreamRef, mut wire: Wire<'_>) -> Result<(), Fault> {
        self.intake.check_length(wire.rest().len())?;
        let (mut pairs, mut value, mut at_ms) = (Vec::new(), 0.0, 0);
        while let Some(tag) = wire.tag()? {
            match tag {
                EXEMPLAR_LABEL => {
                    pairs.push(label(wire.message()?)?);
                    self.intake.check_attributes(pairs.len())?;
                }
                EXEMPLAR_VALUE => value = f64::from_bits(wire.fixed64()?),
                EXEMPLAR_TIMESTAMP => at_ms = wire.varint()? as i64,
                _ => wire.skip(tag)?,
            }
        }
        check_labels(&pairs, self.intake.limits, "shorten it")?;
        self.intake.exemplar(series, at_ms, value, &Labels::new(pairs)?)
    }

    fn metadata(&mut self, mut wire: Wire<'_>) -> Result<(), Fault> {
        self.intake.check_length(wire.rest().len())?;
        let (mut kind, mut name, mut help, mut unit) = (0, "", "", "");
        let reason = "metadata of a metric are not valid UTF-8; send text as UTF-8";
        while let Some(tag) = wire.tag()? {
            match tag {
                TYPE => kind = wire.varint()?,
                FAMILY => name = utf8(wire.bytes()?, reason)?,
                HELP => help = utf8(wire.bytes()?, reason)?,
                UNIT => unit = utf8(wire.bytes()?, reason)?,
                _ => wire.skip(tag)?,
            }
        }
        if name.is_empty() {
            return Err(bad("metadata have no metric_family_name; name the metric"));
        }
        let metric = self.intake.metric(name)?;
        let metadata = Metadata { kind: type_name(kind).into(), unit: unit.into(), help: help.into() };
        self.intake.metadata(metric, &metadata);
        Ok(())
    }
}

fn label(mut wire: Wire<'_>) -> Result<(Box<str>, Box<str>), Fault> {
    let (mut name, mut value): (&[u8], &[u8]) = (&[], &[]);
    while let Some(tag) = wire.tag()? {
        match tag {
            NAME => name = wire.bytes()?,
            VALUE => value = wire.bytes()?,
            _ => wire.skip(tag)?,
        }
    }
    let reason = "a label is not valid UTF-8; send text as UTF-8";
    Ok((utf8(name, reason)?.into(), utf8(value, reason)?.into()))
}

fn parse_labels(raw: &[u8], limits: &Limits) -> Result<Labels, Fault> {
    let mut pairs = Vec::new();
    let mut wire = Wire::new(raw);
    // What comes besides labels was left out.
    while wire.tag()?.is_some() {
        let label = label(wire.message()?)?;
        // Labels with empty values do not count, and one more than allowed is enough to know.
        if !label.1.is_empty() && pairs.len() <= limits.max_labels_per_stream {
            pairs.push(label);
        }
    }
    series_labels(pairs, limits)
}
