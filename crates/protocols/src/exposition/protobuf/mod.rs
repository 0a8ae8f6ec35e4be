//! The delimited protobuf format: `io.prometheus.client.MetricFamily` messages, each behind its length
//! (<https://github.com/prometheus/client_model>). The only format with native histograms.

mod histogram;

use histogram::Histogram;

use super::{
    ExpositionError, ExpositionExemplar, Kind, MetadataField, ParseOptions, Series, Sink, number,
    series::{Dialect, SEPARATOR},
};
use crate::{
    intake::Fault,
    wire::{Tag, Wire},
};

/// Most buckets of a histogram or of one side of a native one, quantiles, and exemplars of a histogram. An empty
/// one is 2 bytes on the wire.
const MAX_BUCKETS: usize = 1 << 16;

/// Most labels of a metric or an exemplar.
const MAX_LABELS: usize = 1024;

/// Most bytes of texts of series in one body: the labels of a histogram stand once on the wire, but in the text
/// of each of its buckets.
const MAX_TEXT_BYTES: usize = 512 << 20;

fn says<T>(reason: impl Into<String>) -> Result<T, Fault> {
    Err(Fault::Record(reason.into().into()))
}

pub(super) fn parse<S: Sink>(
    body: &[u8],
    options: ParseOptions,
    sink: &mut S,
) -> Result<(), ExpositionError> {
    let mut wire = Wire::new(body);
    let mut reader = Reader { options, sink, text: Vec::new(), text_bytes: 0, samples: 0 };
    while !wire.rest().is_empty() {
        let mut name = "";
        let message = wire.message()?;
        reader.family(message, &mut name).map_err(|fault| match fault {
            Fault::Request(error) => ExpositionError::Protobuf(error),
            Fault::Record(reason) => ExpositionError::Family {
                family: name.chars().take(super::EXCERPT).collect(),
                reason: reason.into_owned(),
            },
        })?;
    }
    Ok(())
}

struct Reader<'s, S> {
    options: ParseOptions,
    sink: &'s mut S,
    /// The text of a series.
    text: Vec<u8>,
    /// Bytes of all texts so far.
    text_bytes: usize,
    /// Samples told so far.
    samples: usize,
}

/// What the samples of one metric share.
struct Metric<'a> {
    family: &'a str,
    kind: Kind,
    labels: Vec<(&'a str, &'a str)>,
    at_ms: Option<i64>,
    start_ms: i64,
}

fn text<'a>(wire: &mut Wire<'a>, what: &'static str) -> Result<&'a str, Fault> {
    std::str::from_utf8(wire.bytes()?).or_else(|_| says(format!("{what} is not valid UTF-8")))
}

fn double(wire: &mut Wire<'_>) -> Result<f64, Fault> {
    let value = f64::from_bits(wire.fixed64()?);
    // One pattern of bits, so that no target can send a stale marker.
    Ok(if value.is_nan() { f64::NAN } else { value })
}

fn zigzag(value: u64) -> i64 {
    (value >> 1) as i64 ^ -((value & 1) as i64)
}

/// Adds to a list that has a bound.
fn push<T>(list: &mut Vec<T>, value: T, most: usize, what: &str) -> Result<(), Fault> {
    if list.len() >= most {
        return says(format!("it has more than {most} {what}"));
    }
    list.push(value);
    Ok(())
}

/// `google.protobuf.Timestamp` as milliseconds.
fn timestamp(mut wire: Wire<'_>) -> Result<i64, Fault> {
    let (mut seconds, mut nanos) = (0i64, 0i64);
    while let Some(tag) = wire.tag()? {
        const SECONDS: Tag = Tag::varint(1);
        const NANOS: Tag = Tag::varint(2);
        match tag {
            SECONDS => seconds = wire.varint()? as i64,
            NANOS => nanos = i64::from(wire.varint()? as i32),
            _ => wire.skip(tag)?,
        }
    }
    Ok(seconds.saturating_mul(1000).saturating_add(nanos / 1_000_000))
}

impl<S: Sink> Reader<'_, S> {
    fn family<'a>(&mut self, message: Wire<'a>, name: &mut &'a str) -> Result<(), Fault> {
        const NAME: Tag = Tag::bytes(1);
        const HELP: Tag = Tag::bytes(2);
        const TYPE: Tag = Tag::varint(3);
        const METRIC: Tag = Tag::bytes(4);
        const UNIT: Tag = Tag::bytes(5);
        let (mut help, mut unit, mut number) = (None, "", 0);
        let mut metrics = 0;
        let mut wire = message;
        while let Some(tag) = wire.tag()? {
            match tag {
                NAME => *name = text(&mut wire, "the name")?,
                HELP => help = Some(text(&mut wire, "the help")?),
                TYPE => number = wire.varint()?,
                UNIT => unit = text(&mut wire, "the unit")?,
                METRIC => {
                    wire.message()?;
                    metrics += 1;
                }
                _ => wire.skip(tag)?,
            }
        }
        if metrics == 0 {
            return Ok(());
        }
        if name.is_empty() {
            return says("it has no name");
        }
        let kind = match number {
            0 => Kind::Counter,
            1 => Kind::Gauge,
            2 => Kind::Summary,
            3 => Kind::Unknown,
            4 => Kind::Histogram,
            5 => Kind::GaugeHistogram,
            other => return says(format!("type {other} is none of 0 to 5")),
        };
        self.sink.metadata(name, MetadataField::Kind(kind));
        if let Some(help) = help {
            self.sink.metadata(name, MetadataField::Help(help));
        }
        if !unit.is_empty() {
            self.sink.metadata(name, MetadataField::Unit(unit));
        }
        let mut wire = message;
        while let Some(tag) = wire.tag()? {
            match tag {
                METRIC => {
                    let metric = wire.message()?;
                    self.metric(metric, name, kind)?;
                }
                _ => wire.skip(tag)?,
            }
        }
        Ok(())
    }

    fn metric<'a>(&mut self, message: Wire<'a>, family: &'a str, kind: Kind) -> Result<(), Fault> {
        const LABEL: Tag = Tag::bytes(1);
        const TIMESTAMP: Tag = Tag::varint(6);
        let own = match kind {
            Kind::Gauge => Tag::bytes(2),
            Kind::Counter => Tag::bytes(3),
            Kind::Summary => Tag::bytes(4),
            Kind::Histogram | Kind::GaugeHistogram => Tag::bytes(7),
            _ => Tag::bytes(5),
        };
        let mut metric = Metric { family, kind, labels: Vec::new(), at_ms: None, start_ms: 0 };
        // Without the message of its type a metric has the values that messages have by default.
        let mut value = Wire::new(&[]);
        let mut wire = message;
        while let Some(tag) = wire.tag()? {
            match tag {
                LABEL => push(&mut metric.labels, label(wire.message()?)?, MAX_LABELS, "labels")?,
                TIMESTAMP => metric.at_ms = Some(wire.varint()? as i64).filter(|time| *time != 0),
                tag if tag == own => value = wire.message()?,
                _ => wire.skip(tag)?,
            }
        }
        match kind {
            Kind::Summary => self.summary(value, metric),
            Kind::Histogram | Kind::GaugeHistogram => self.histogram(value, metric),
            _ => self.number(value, metric),
        }
    }

    /// Counter, gauge and untyped.
    fn number<'a>(&mut self, mut wire: Wire<'a>, mut metric: Metric<'a>) -> Result<(), Fault> {
        const VALUE: Tag = Tag::fixed64(1);
        const EXEMPLAR: Tag = Tag::bytes(2);
        const CREATED: Tag = Tag::bytes(3);
        let (mut value, mut exemplar) = (0.0, None);
        while let Some(tag) = wire.tag()? {
            match tag {
                VALUE => value = double(&mut wire)?,
                EXEMPLAR if metric.kind == Kind::Counter => exemplar = Some(read_exemplar(wire.message()?)?),
                CREATED if metric.kind == Kind::Counter => metric.start_ms = timestamp(wire.message()?)?,
                _ => wire.skip(tag)?,
            }
        }
        self.float(&metric, "", None, value)?;
        if let Some(exemplar) = exemplar {
            self.sink.exemplar(exemplar);
        }
        Ok(())
    }

    fn summary<'a>(&mut self, mut wire: Wire<'a>, mut metric: Metric<'a>) -> Result<(), Fault> {
        const COUNT: Tag = Tag::varint(1);
        const SUM: Tag = Tag::fixed64(2);
        const QUANTILE: Tag = Tag::bytes(3);
        const CREATED: Tag = Tag::bytes(4);
        let (mut count, mut sum, mut quantiles) = (0.0, 0.0, Vec::new());
        while let Some(tag) = wire.tag()? {
            match tag {
                COUNT => count = wire.varint()? as f64,
                SUM => sum = double(&mut wire)?,
                QUANTILE => {
                    let mut quantile = wire.message()?;
                    let (mut at, mut value) = (0.0, 0.0);
                    while let Some(tag) = quantile.tag()? {
                        const VALUE: Tag = Tag::fixed64(2);
                        match tag {
                            tag if tag == Tag::fixed64(1) => at = double(&mut quantile)?,
                            VALUE => value = double(&mut quantile)?,
                            _ => quantile.skip(tag)?,
                        }
                    }
                    push(&mut quantiles, (at, value), MAX_BUCKETS, "quantiles")?;
                }
                CREATED => metric.start_ms = timestamp(wire.message()?)?,
                _ => wire.skip(tag)?,
            }
        }
        self.float(&metric, "_count", None, count)?;
        self.float(&metric, "_sum", None, sum)?;
        for (quantile, value) in quantiles {
            self.float(&metric, "", Some(("quantile", quantile)), value)?;
        }
        Ok(())
    }

    fn histogram<'a>(&mut self, wire: Wire<'a>, mut metric: Metric<'a>) -> Result<(), Fault> {
        let read = Histogram::read(wire)?;
        metric.start_ms = read.start_ms;
        let native = self.options.native_histograms && read.is_native();
        if native {
            let (value, exemplars) = read.native(metric.kind)?;
            self.text(&metric, "", None)?;
            let series = Series { text: &self.text, dialect: Dialect::Separated, kind: metric.kind };
            self.sink
                .histogram(&series, metric.at_ms, &value)
                .map_err(|reason| Fault::Record(reason.into()))?;
            self.started(&metric);
            // Without a time an exemplar could not be told from the one of the scrape before.
            for exemplar in exemplars.into_iter().filter(|exemplar| exemplar.at_ms.is_some()) {
                self.sink.exemplar(exemplar);
            }
        }
        if native && (!self.options.always_classic_histograms || read.buckets.is_empty()) {
            return Ok(());
        }
        let count = read.count();
        self.float(&metric, "_count", None, count)?;
        self.float(&metric, "_sum", None, read.sum)?;
        let mut infinite = false;
        for bucket in read.buckets {
            infinite |= bucket.bound == f64::INFINITY;
            self.float(&metric, "_bucket", Some(("le", bucket.bound)), bucket.count)?;
            if let Some(exemplar) = bucket.exemplar {
                self.sink.exemplar(exemplar);
            }
        }
        if !infinite {
            self.float(&metric, "_bucket", Some(("le", f64::INFINITY)), count)?;
        }
        Ok(())
    }

    fn float(
        &mut self,
        metric: &Metric<'_>,
        suffix: &str,
        number: Option<(&str, f64)>,
        value: f64,
    ) -> Result<(), Fault> {
        self.text(metric, suffix, number)?;
        let series = Series { text: &self.text, dialect: Dialect::Separated, kind: metric.kind };
        self.sink.float(&series, metric.at_ms, value).map_err(|reason| Fault::Record(reason.into()))?;
        self.started(metric);
        Ok(())
    }

    fn started(&mut self, metric: &Metric<'_>) {
        if metric.start_ms != 0 {
            self.sink.start(self.samples, metric.start_ms);
        }
        self.samples += 1;
    }

    fn text(&mut self, metric: &Metric<'_>, suffix: &str, number: Option<(&str, f64)>) -> Result<(), Fault> {
        let out = &mut self.text;
        out.clear();
        out.extend_from_slice(metric.family.as_bytes());
        out.extend_from_slice(suffix.as_bytes());
        let mut label = |name: &str, value: &str| {
            out.push(SEPARATOR);
            out.extend_from_slice(name.as_bytes());
            out.push(SEPARATOR);
            out.extend_from_slice(value.as_bytes());
        };
        metric.labels.iter().for_each(|(name, value)| label(name, value));
        if let Some((name, value)) = number {
            label(name, &number::label(value));
        }
        self.text_bytes += self.text.len();
        if self.text_bytes > MAX_TEXT_BYTES {
            return says(format!(
                "its series have more than {MAX_TEXT_BYTES} bytes of labels with those before"
            ));
        }
        Ok(())
    }
}

fn label(mut wire: Wire<'_>) -> Result<(&str, &str), Fault> {
    const NAME: Tag = Tag::bytes(1);
    const VALUE: Tag = Tag::bytes(2);
    let (mut name, mut value) = ("", "");
    while let Some(tag) = wire.tag()? {
        match tag {
            NAME => name = text(&mut wire, "a label name")?,
            VALUE => value = text(&mut wire, "a label value")?,
            _ => wire.skip(tag)?,
        }
    }
    Ok((name, value))
}

fn read_exemplar(mut wire: Wire<'_>) -> Result<ExpositionExemplar, Fault> {
    const LABEL: Tag = Tag::bytes(1);
    const VALUE: Tag = Tag::fixed64(2);
    const TIMESTAMP: Tag = Tag::bytes(3);
    let mut exemplar = ExpositionExemplar { at_ms: None, value: 0.0, labels: Vec::new() };
    while let Some(tag) = wire.tag()? {
        match tag {
            LABEL => {
                let (name, value) = label(wire.message()?)?;
                push(&mut exemplar.labels, (name.into(), value.into()), MAX_LABELS, "labels of an exemplar")?;
            }
            VALUE => exemplar.value = double(&mut wire)?,
            TIMESTAMP => exemplar.at_ms = Some(timestamp(wire.message()?)?),
            _ => wire.skip(tag)?,
        }
    }
    Ok(exemplar)
}
