//! `io.prometheus.write.v2.Request`, version 2.0: texts stand once in a table of symbols.

use std::collections::HashSet;

use trine_model::TenantId;
use trine_schema::{
    Labels, Metadata, MetricBatch, MetricBatchBuilder, RawKey, StreamRef, StreamRegistry,
    metrics::METRIC_NAME,
};

use super::histogram::histogram;
use crate::{
    DecodeError, Decoded, Limits,
    intake::{Dialect, Fault, Intake, bad, check_labels, utf8},
    metric_intake::{family, series_labels, type_name},
    wire::{Tag, Wire},
};

/// `Request`.
const SYMBOL: Tag = Tag::bytes(4);
const SERIES: Tag = Tag::bytes(5);
/// `TimeSeries`.
const LABELS_REFS: Tag = Tag::bytes(1);
const LABELS_REF: Tag = Tag::varint(1);
const SAMPLE: Tag = Tag::bytes(2);
const HISTOGRAM: Tag = Tag::bytes(3);
const EXEMPLAR: Tag = Tag::bytes(4);
const METADATA: Tag = Tag::bytes(5);
/// `Sample`.
const SAMPLE_VALUE: Tag = Tag::fixed64(1);
const SAMPLE_TIMESTAMP: Tag = Tag::varint(2);
const SAMPLE_START: Tag = Tag::varint(3);
/// `Exemplar`.
const EXEMPLAR_REFS: Tag = Tag::bytes(1);
const EXEMPLAR_REF: Tag = Tag::varint(1);
const EXEMPLAR_VALUE: Tag = Tag::fixed64(2);
const EXEMPLAR_TIMESTAMP: Tag = Tag::varint(3);
/// `Metadata`.
const TYPE: Tag = Tag::varint(1);
const HELP_REF: Tag = Tag::varint(3);
const UNIT_REF: Tag = Tag::varint(4);

/// A guess at the bytes of a sample with its labels, to size the builder.
const SAMPLE_BYTES: usize = 48;

/// Decodes an `io.prometheus.write.v2.Request`, already without its snappy coat. `now_ns` (nanoseconds since
/// 1970) is the time of metadata. What the answer counts says [`super::Written::of`].
pub fn decode_v2(
    bytes: &[u8],
    tenant: &TenantId,
    registry: &StreamRegistry,
    now_ns: i64,
    limits: &Limits,
) -> Result<Decoded<MetricBatch>, DecodeError> {
    let intake = Intake::new(tenant, registry, now_ns, limits, bytes.len() / SAMPLE_BYTES, 0);
    let symbols = Symbols::read(bytes, limits)?;
    let mut decoder = Decoder {
        spelling: intake.spelling(Dialect::RemoteWrite2),
        intake,
        described: HashSet::new(),
        described_names: vec![false; symbols.texts.len()],
        refs: Vec::new(),
        spelled: Vec::new(),
        symbols,
    };
    let mut request = Wire::new(bytes);
    while let Some(tag) = request.tag()? {
        match tag {
            SERIES => decoder.series(request.message()?)?,
            _ => request.skip(tag)?,
        }
    }
    Ok(decoder.intake.finish_records())
}

/// The table of texts.
struct Symbols<'a> {
    texts: Vec<(&'a [u8], RawKey)>,
    /// Which one is `__name__`.
    metric_name: Option<u32>,
}

impl<'a> Symbols<'a> {
    /// The table stands before the series, unless the sender is odd.
    fn read(bytes: &'a [u8], limits: &Limits) -> Result<Self, DecodeError> {
        let limit = limits.max_expanded_bytes;
        let mut symbols = Self { texts: Vec::new(), metric_name: None };
        let mut request = Wire::new(bytes);
        while let Some(tag) = request.tag()? {
            if tag != SYMBOL {
                request.skip(tag)?;
                continue;
            }
            let text = request.bytes()?;
            if text == METRIC_NAME.as_bytes() {
                symbols.metric_name = Some(symbols.texts.len() as u32);
            }
            symbols.texts.push((text, RawKey::of(text)));
            if size_of_val(&symbols.texts[..]) > limit {
                return Err(DecodeError::Expanded { limit });
            }
        }
        Ok(symbols)
    }

    #[inline]
    fn get(&self, number: u32) -> Result<(&'a [u8], RawKey), Fault> {
        self.texts.get(number as usize).copied().ok_or_else(|| self.missing(number))
    }

    #[cold]
    fn missing(&self, number: u32) -> Fault {
        let count = self.texts.len();
        Fault::Record(format!("symbol {number} is beyond the {count} of the request; send it").into())
    }

    fn text(&self, number: u32) -> Result<&'a str, Fault> {
        utf8(self.get(number)?.0, "a symbol is not valid UTF-8; send text as UTF-8")
    }

    fn pair(&self, two: &[u32]) -> Result<(Box<str>, Box<str>), Fault> {
        Ok((self.text(two[0])?.into(), self.text(two[1])?.into()))
    }
}

struct Decoder<'r, 'a> {
    intake: Intake<'r, MetricBatchBuilder>,
    spelling: RawKey,
    symbols: Symbols<'a>,
    /// Metrics whose metadata were taken.
    described: HashSet<StreamRef>,
    /// Which symbols name series of them.
    described_names: Vec<bool>,
    /// References of one series; reused.
    refs: Vec<u32>,
    /// Hashes of its symbols; reused.
    spelled: Vec<u8>,
}

/// References behind one field: packed, or one alone.
fn push_refs(refs: &mut Vec<u32>, mut packed: Wire<'_>, limits: &Limits) -> Result<(), Fault> {
    while !packed.rest().is_empty() {
        push_ref(refs, packed.varint()?, limits)?;
    }
    Ok(())
}

#[inline]
fn push_ref(refs: &mut Vec<u32>, number: u64, limits: &Limits) -> Result<(), Fault> {
    // Empty values do not count as labels; so many of them are no honest spelling.
    if refs.len() >= limits.max_labels_per_stream.saturating_mul(4) {
        let limit = limits.max_labels_per_stream;
        return Err(Fault::Record(format!("the series has more than {limit} labels; send fewer").into()));
    }
    refs.push(u32::try_from(number).unwrap_or(u32::MAX));
    Ok(())
}

const NOTHING_IN_SERIES: &str = "the series has neither samples nor histograms; send them with it";

/// Whether a sample or a histogram follows.
fn has_samples(mut rest: Wire<'_>) -> Result<bool, DecodeError> {
    while let Some(tag) = rest.tag()? {
        if matches!(tag, SAMPLE | HISTOGRAM) {
            return Ok(true);
        }
        rest.skip(tag)?;
    }
    Ok(false)
}

/// Names what of a series is at fault, where it is no sample.
fn about(what: &str, fault: Fault) -> Fault {
    match fault {
        Fault::Record(reason) => Fault::Record(format!("{what}: {reason}").into()),
        Fault::Request(error) => Fault::Request(error),
    }
}

impl Decoder<'_, '_> {
    fn series(&mut self, mut wire: Wire<'_>) -> Result<(), DecodeError> {
        let series = match self.labels(wire) {
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
        let mut filled = false;
        while let Some(tag) = wire.tag()? {
            filled |= matches!(tag, SAMPLE | HISTOGRAM);
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
                    if !filled && !has_samples(wire)? {
                        return self.intake.settle(Err(bad(NOTHING_IN_SERIES)));
                    }
                    self.exemplar(series, exemplar).map_err(|fault| about("exemplar", fault))
                }
                METADATA => {
                    let metadata = wire.message()?;
                    let Err(fault) = self.metadata(metadata) else { continue };
                    self.intake.begin()?;
                    Err(about("metadata", fault))
                }
                _ => {
                    wire.skip(tag)?;
                    continue;
                }
            };
            self.intake.settle(outcome)?;
        }
        if filled { Ok(()) } else { self.intake.reject_all(1, NOTHING_IN_SERIES.into()) }
    }

    /// The series by its references, which are left in `refs`.
    fn labels(&mut self, mut wire: Wire<'_>) -> Result<StreamRef, Fault> {
        self.refs.clear();
        self.spelled.clear();
        while let Some(tag) = wire.tag()? {
            match tag {
                LABELS_REFS => push_refs(&mut self.refs, wire.message()?, self.intake.limits)?,
                LABELS_REF => push_ref(&mut self.refs, wire.varint()?, self.intake.limits)?,
                _ => wire.skip(tag)?,
            }
        }
        if !self.refs.len().is_multiple_of(2) {
            return Err(bad("labels_refs are not pairs of name and value; send both"));
        }
        for number in &self.refs {
            let (_, hash) = self.symbols.get(*number)?;
            self.spelled.extend_from_slice(&hash.to_bytes());
        }
        let key = self.spelling.with(RawKey::of(&self.spelled));
        let (symbols, refs) = (&self.symbols, &self.refs);
        self.intake.stream_of(key, |limits| {
            let pairs = refs.chunks_exact(2).map(|two| symbols.pair(two)).collect::<Result<_, _>>()?;
            series_labels(pairs, limits)
        })
    }

    #[inline]
    fn sample(&mut self, series: StreamRef, mut wire: Wire<'_>) -> Result<(), Fault> {
        let (mut value, mut at_ms, mut start_ms) = (0.0, 0, 0);
        while let Some(tag) = wire.tag()? {
            match tag {
                SAMPLE_VALUE => value = f64::from_bits(wire.fixed64()?),
                SAMPLE_TIMESTAMP => at_ms = wire.varint()? as i64,
                SAMPLE_START => start_ms = wire.varint()? as i64,
                _ => wire.skip(tag)?,
            }
        }
        self.intake.float(series, at_ms, value, start_ms)
    }

    fn exemplar(&mut self, series: StreamRef, mut wire: Wire<'_>) -> Result<(), Fault> {
        self.intake.check_length(wire.rest().len())?;
        let (mut refs, mut value, mut at_ms) = (Vec::new(), 0.0, 0);
        while let Some(tag) = wire.tag()? {
            match tag {
                EXEMPLAR_REFS => push_refs(&mut refs, wire.message()?, self.intake.limits)?,
                EXEMPLAR_REF => push_ref(&mut refs, wire.varint()?, self.intake.limits)?,
                EXEMPLAR_VALUE => value = f64::from_bits(wire.fixed64()?),
                EXEMPLAR_TIMESTAMP => at_ms = wire.varint()? as i64,
                _ => wire.skip(tag)?,
            }
        }
        if !refs.len().is_multiple_of(2) {
            return Err(bad("labels_refs of an exemplar are not pairs of name and value; send both"));
        }
        let pairs = refs.chunks_exact(2).map(|two| self.symbols.pair(two)).collect::<Result<Vec<_>, _>>()?;
        check_labels(&pairs, self.intake.limits, "shorten it")?;
        self.intake.exemplar(series, at_ms, value, &Labels::new(pairs)?)
    }

    /// Metadata of the series whose references are in `refs`. They come with samples, and count as a record
    /// only when they are bad.
    fn metadata(&mut self, mut wire: Wire<'_>) -> Result<(), Fault> {
        let mut pairs = self.refs.chunks_exact(2);
        let Some(name) = pairs.find(|two| Some(two[0]) == self.symbols.metric_name) else { return Ok(()) };
        let number = name[1] as usize;
        if self.described_names.get(number).copied().unwrap_or(true) {
            return Ok(());
        }
        let (mut kind, mut help, mut unit) = (0, 0, 0);
        while let Some(tag) = wire.tag()? {
            match tag {
                TYPE => kind = wire.varint()?,
                HELP_REF => help = wire.varint()? as u32,
                UNIT_REF => unit = wire.varint()? as u32,
                _ => wire.skip(tag)?,
            }
        }
        if (kind, help, unit) == (0, 0, 0) {
            return Ok(());
        }
        let kind = type_name(kind);
        let metric = self.intake.metric(family(self.symbols.text(name[1])?, kind))?;
        self.described_names[number] = true;
        if self.described.insert(metric) {
            let (unit, help) = (self.symbols.text(unit)?, self.symbols.text(help)?);
            self.intake
                .metadata(metric, &Metadata { kind: kind.into(), unit: unit.into(), help: help.into() });
        }
        Ok(())
    }
}
