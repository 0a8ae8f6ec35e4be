//! `ExportMetricsServiceRequest` in protobuf.

use std::sync::Arc;

use trine_model::TenantId;
use trine_schema::{MetricBatch, StreamRegistry};

use super::{
    super::protobuf::{gather, shared},
    DeltaState, DeltaUpdate,
    attributes::Attributes,
    names::Kind,
    point::Point,
    point_protobuf::{exponential, histogram, number, summary},
    resource::Resource,
    translate::{Metric, Translator},
};
use crate::{
    DecodeError, Decoded, Limits,
    intake::{Dialect, Fault, Reason, utf8},
    wire::{Tag, Wire},
};

/// `ExportMetricsServiceRequest`.
const RESOURCE_METRICS: Tag = Tag::bytes(1);
/// `ResourceMetrics`.
const RESOURCE: Tag = Tag::bytes(1);
const SCOPE_METRICS: Tag = Tag::bytes(2);
/// `Resource`.
const RESOURCE_ATTRIBUTE: Tag = Tag::bytes(1);
/// `ScopeMetrics`.
const METRIC: Tag = Tag::bytes(2);
/// `Metric`.
const NAME: Tag = Tag::bytes(1);
const DESCRIPTION: Tag = Tag::bytes(2);
const UNIT: Tag = Tag::bytes(3);
const GAUGE: Tag = Tag::bytes(5);
const SUM: Tag = Tag::bytes(7);
const HISTOGRAM: Tag = Tag::bytes(9);
const EXPONENTIAL_HISTOGRAM: Tag = Tag::bytes(10);
const SUMMARY: Tag = Tag::bytes(11);
/// `Gauge`, `Sum`, `Histogram`, `ExponentialHistogram`, `Summary`.
const DATA_POINT: Tag = Tag::bytes(1);
const TEMPORALITY: Tag = Tag::varint(2);
const MONOTONIC: Tag = Tag::varint(3);
/// A guess at the bytes of a row, to size the builder.
const ROW_BYTES: usize = 64;

/// Decodes an `ExportMetricsServiceRequest` in protobuf. `now_ns` (nanoseconds since 1970) stands in for points
/// without a time, and is that of metadata. Commit the [`DeltaUpdate`] when the batch was stored.
pub fn decode_metrics_protobuf(
    bytes: &[u8],
    tenant: &TenantId,
    registry: &StreamRegistry,
    now_ns: i64,
    limits: &Limits,
    deltas: &Arc<DeltaState>,
) -> Result<(Decoded<MetricBatch>, DeltaUpdate), DecodeError> {
    let size = (bytes.len() / ROW_BYTES, Dialect::OtlpMetricsProtobuf);
    let mut decoder = Decoder {
        translator: Translator::new(tenant, registry, now_ns, limits, deltas, size),
        point: Point::default(),
    };
    let mut request = Wire::new(bytes);
    while let Some(tag) = request.tag()? {
        match tag {
            RESOURCE_METRICS => decoder.resource_metrics(request.message()?)?,
            _ => request.skip(tag)?,
        }
    }
    Ok(decoder.translator.finish())
}

struct Decoder<'r> {
    translator: Translator<'r>,
    point: Point,
}

/// The data of a metric before its points are read.
struct Data<'a> {
    kind: Kind,
    temporality: u64,
    points: usize,
    wire: Wire<'a>,
}

/// Which points there are, and how their values relate.
fn data(tag: Tag, wire: Wire<'_>) -> Result<Data<'_>, DecodeError> {
    let (mut temporality, mut monotonic, mut points) = (0, false, 0);
    let mut ahead = wire;
    while let Some(tag) = ahead.tag()? {
        match tag {
            TEMPORALITY => temporality = ahead.varint()?,
            MONOTONIC => monotonic = ahead.varint()? != 0,
            _ => {
                ahead.skip(tag)?;
                points += usize::from(tag == DATA_POINT);
            }
        }
    }
    let kind = match tag {
        SUM if monotonic => Kind::Counter,
        SUM => Kind::UpDown,
        HISTOGRAM => Kind::Histogram,
        EXPONENTIAL_HISTOGRAM => Kind::Exponential,
        SUMMARY => Kind::Summary,
        _ => Kind::Gauge,
    };
    Ok(Data { kind, temporality, points, wire })
}

impl Decoder<'_> {
    fn resource_metrics(&mut self, mut wire: Wire<'_>) -> Result<(), DecodeError> {
        let attributes = Attributes::Protobuf(gather(wire, RESOURCE)?, RESOURCE_ATTRIBUTE);
        let mut resource = self.translator.resource(attributes);
        while let Some(tag) = wire.tag()? {
            if tag != SCOPE_METRICS {
                wire.skip(tag)?;
                continue;
            }
            let mut scope_metrics = wire.message()?;
            while let Some(tag) = scope_metrics.tag()? {
                match tag {
                    METRIC => self.metric(scope_metrics.message()?, &mut resource)?,
                    _ => scope_metrics.skip(tag)?,
                }
            }
        }
        self.translator.inform(&mut resource)
    }

    fn metric(&mut self, mut wire: Wire<'_>, resource: &mut Resource<'_>) -> Result<(), DecodeError> {
        let (mut name, mut description, mut unit): (&[u8], &[u8], &[u8]) = (&[], &[], &[]);
        let mut last = None;
        while let Some(tag) = wire.tag()? {
            match tag {
                NAME => name = wire.bytes()?,
                DESCRIPTION => description = wire.bytes()?,
                UNIT => unit = wire.bytes()?,
                GAUGE | SUM | HISTOGRAM | EXPONENTIAL_HISTOGRAM | SUMMARY => {
                    last = Some(data(tag, wire.message()?)?);
                }
                _ => wire.skip(tag)?,
            }
        }
        let Some(Data { kind, temporality, points, wire }) = last else { return Ok(()) };
        if points == 0 {
            return Ok(());
        }
        let reason = "a metric's name, unit or description is not valid UTF-8; send text as UTF-8";
        let text = |bytes| utf8(bytes, reason);
        let metric = (|| {
            let texts = (text(name)?, text(unit)?, text(description)?);
            self.translator.metric(resource, texts, kind, temporality)
        })();
        match metric {
            Ok(metric) => self.points(wire, resource, metric, kind),
            Err(fault) => {
                let reason: Reason = shared(fault)?;
                self.translator.intake.reject_all(points, reason)
            }
        }
    }

    fn points(
        &mut self,
        mut wire: Wire<'_>,
        resource: &mut Resource<'_>,
        mut metric: Metric<'_>,
        kind: Kind,
    ) -> Result<(), DecodeError> {
        let mut taken = false;
        while let Some(tag) = wire.tag()? {
            if tag != DATA_POINT {
                wire.skip(tag)?;
                continue;
            }
            let bytes = wire.message()?;
            self.translator.intake.begin()?;
            let outcome = self.point(bytes, resource, &mut metric, kind);
            taken |= outcome.is_ok();
            self.translator.intake.settle(outcome)?;
        }
        if taken { self.translator.describe(&metric) } else { Ok(()) }
    }

    #[inline]
    fn point(
        &mut self,
        wire: Wire<'_>,
        resource: &mut Resource<'_>,
        metric: &mut Metric<'_>,
        kind: Kind,
    ) -> Result<(), Fault> {
        let limits = self.translator.intake.limits;
        self.translator.intake.check_length(wire.rest().len())?;
        self.point.clear();
        let attributes = match kind {
            Kind::Gauge | Kind::Counter | Kind::UpDown => number(&mut self.point, wire, limits),
            Kind::Histogram => histogram(&mut self.point, wire, limits),
            Kind::Exponential => exponential(&mut self.point, wire, limits),
            Kind::Summary => summary(&mut self.point, wire),
        }?;
        self.translator.point(resource, metric, &attributes, &mut self.point)
    }
}
