//! `ExportMetricsServiceRequest` in OTLP's JSON encoding.

use std::sync::Arc;

use trine_model::TenantId;
use trine_schema::{MetricBatch, StreamRegistry};

use super::{
    super::{
        json::{string, unsigned},
        protobuf::shared,
    },
    DeltaState, DeltaUpdate,
    attributes::Attributes,
    names::Kind,
    point::Point,
    point_json::point,
    resource::Resource,
    translate::{Metric, Translator},
};
use crate::{
    DecodeError, Decoded, Limits,
    intake::{Dialect, Fault, bad},
    json::{Json, Str, Value},
};

/// A guess at the JSON bytes of a row, to size the builder.
const ROW_BYTES: usize = 200;

/// Decodes an `ExportMetricsServiceRequest` in OTLP's JSON encoding. `now_ns` (nanoseconds since 1970) stands in
/// for points without a time, and is that of metadata. Commit the [`DeltaUpdate`] when the batch was stored.
pub fn decode_metrics_json(
    bytes: &[u8],
    tenant: &TenantId,
    registry: &StreamRegistry,
    now_ns: i64,
    limits: &Limits,
    deltas: &Arc<DeltaState>,
) -> Result<(Decoded<MetricBatch>, DeltaUpdate), DecodeError> {
    let mut json = Json::from_bytes(bytes)?.with_any_number();
    let size = (bytes.len() / ROW_BYTES, Dialect::OtlpMetricsJson);
    let mut decoder = Decoder {
        translator: Translator::new(tenant, registry, now_ns, limits, deltas, size),
        point: Point::default(),
    };
    json.object()?;
    let mut first = true;
    while let Some(name) = json.member(&mut first)? {
        if name.raw() != "resourceMetrics" {
            json.skip()?;
        } else if !json.null()? {
            json.each(|json| decoder.resource_metrics(json))?;
        }
    }
    json.end()?;
    Ok(decoder.translator.finish())
}

struct Decoder<'r> {
    translator: Translator<'r>,
    point: Point,
}

/// The data of a metric before its points are read.
struct Data {
    kind: Kind,
    temporality: Result<u64, Fault>,
    /// Where `dataPoints` begin.
    points: Option<usize>,
}

/// Where the value of a member begins that is read when its object is complete; it is passed over.
fn place(json: &mut Json<'_>) -> Result<Option<usize>, DecodeError> {
    if json.null()? {
        return Ok(None);
    }
    json.peek();
    let place = json.position();
    json.skip()?;
    Ok(Some(place))
}

/// Which points there are, and how their values relate.
fn data(member: &str, json: &mut Json<'_>) -> Result<Data, DecodeError> {
    json.object()?;
    let (mut temporality, mut monotonic, mut points) = (Ok(0), false, None);
    let mut first = true;
    while let Some(name) = json.member(&mut first)? {
        match name.raw() {
            "dataPoints" => points = place(json)?,
            "aggregationTemporality" => temporality = known_temporality(json.value()?),
            "isMonotonic" => monotonic = matches!(json.value()?, Value::Bool(true)),
            _ => json.skip()?,
        }
    }
    let kind = match member {
        "sum" if monotonic => Kind::Counter,
        "sum" => Kind::UpDown,
        "histogram" => Kind::Histogram,
        "exponentialHistogram" => Kind::Exponential,
        "summary" => Kind::Summary,
        _ => Kind::Gauge,
    };
    Ok(Data { kind, temporality, points })
}

/// A temporality by number, or by its name, which the specification forbids and some senders write.
fn known_temporality(value: Value<'_>) -> Result<u64, Fault> {
    match value {
        Value::Str(text) if text.raw() == "AGGREGATION_TEMPORALITY_DELTA" => Ok(1),
        Value::Str(text) if text.raw() == "AGGREGATION_TEMPORALITY_CUMULATIVE" => Ok(2),
        value => unsigned(value, "aggregationTemporality is neither an integer nor one that OTLP knows"),
    }
}

/// Attributes of the resource that is next.
fn resource_attributes<'a>(json: &mut Json<'a>) -> Result<Attributes<'a>, DecodeError> {
    let mut attributes = "";
    if json.null()? {
        return Ok(Attributes::Json(attributes));
    }
    json.object()?;
    let mut first = true;
    while let Some(name) = json.member(&mut first)? {
        match (name.raw(), json.value()?) {
            ("attributes", Value::Nested(_, raw)) => attributes = raw,
            ("attributes", Value::Null) => attributes = "",
            ("attributes", _) => return Err(json.fault("a resource's attributes are not an array")),
            _ => {}
        }
    }
    Ok(Attributes::Json(attributes))
}

impl Decoder<'_> {
    fn resource_metrics(&mut self, json: &mut Json<'_>) -> Result<(), DecodeError> {
        json.object()?;
        let (mut resource, mut waiting) = (None, None);
        let mut first = true;
        while let Some(name) = json.member(&mut first)? {
            match (name.raw(), &mut resource) {
                ("resource", old) => {
                    if let Some(old) = old {
                        self.translator.inform(old)?;
                    }
                    resource = Some(self.translator.resource(resource_attributes(json)?));
                }
                ("scopeMetrics", Some(resource)) => {
                    if !json.null()? {
                        json.each(|json| self.scope_metrics(json, resource))?;
                    }
                }
                ("scopeMetrics", None) => waiting = place(json)?,
                _ => json.skip()?,
            }
        }
        let mut resource = resource.unwrap_or_else(|| self.translator.resource(Attributes::Json("")));
        if let Some(place) = waiting {
            json.at(place, |json| json.each(|json| self.scope_metrics(json, &mut resource)))?;
        }
        self.translator.inform(&mut resource)
    }

    fn scope_metrics(&mut self, json: &mut Json<'_>, resource: &mut Resource<'_>) -> Result<(), DecodeError> {
        json.object()?;
        let mut first = true;
        while let Some(name) = json.member(&mut first)? {
            if name.raw() != "metrics" {
                json.skip()?;
            } else if !json.null()? {
                json.each(|json| self.metric(json, resource))?;
            }
        }
        Ok(())
    }

    fn metric(&mut self, json: &mut Json<'_>, resource: &mut Resource<'_>) -> Result<(), DecodeError> {
        json.object()?;
        let (mut name, mut unit, mut description) = (Ok(NONE), Ok(NONE), Ok(NONE));
        let mut last = None;
        let mut first = true;
        while let Some(member) = json.member(&mut first)? {
            match member.raw() {
                "name" => name = string(json.value()?, "the metric's name is not a string"),
                "unit" => unit = string(json.value()?, "the metric's unit is not a string"),
                "description" => {
                    description = string(json.value()?, "the metric's description is not a string");
                }
                kind @ ("gauge" | "sum" | "histogram" | "exponentialHistogram" | "summary") => {
                    if !json.null()? {
                        last = Some(data(kind, json)?);
                    }
                }
                _ => json.skip()?,
            }
        }
        let Some(Data { kind, temporality, points: Some(place) }) = last else { return Ok(()) };
        let (mut names, mut units, mut descriptions) = (String::new(), String::new(), String::new());
        let metric = (|| {
            let texts =
                (name?.text(&mut names), unit?.text(&mut units), description?.text(&mut descriptions));
            self.translator.metric(resource, texts, kind, temporality?)
        })();
        json.at(place, |json| match metric {
            Ok(metric) => self.points(json, resource, metric, kind),
            Err(fault) => {
                let reason = shared(fault)?;
                let mut points = 0;
                json.each(|json| {
                    points += 1;
                    json.skip()
                })?;
                self.translator.intake.reject_all(points, reason)
            }
        })
    }

    fn points(
        &mut self,
        json: &mut Json<'_>,
        resource: &mut Resource<'_>,
        mut metric: Metric<'_>,
        kind: Kind,
    ) -> Result<(), DecodeError> {
        let mut taken = false;
        json.each(|json| {
            self.translator.intake.begin()?;
            json.peek();
            let start = json.position();
            let outcome = self.point(json, resource, &mut metric, kind);
            taken |= outcome.is_ok();
            if let Err(Fault::Record(_)) = outcome {
                json.rewind(start);
                json.skip()?;
            }
            self.translator.intake.settle(outcome)
        })?;
        if taken { self.translator.describe(&metric) } else { Ok(()) }
    }

    fn point(
        &mut self,
        json: &mut Json<'_>,
        resource: &mut Resource<'_>,
        metric: &mut Metric<'_>,
        kind: Kind,
    ) -> Result<(), Fault> {
        if json.peek() != b'{' {
            return Err(bad("the data point is not an object"));
        }
        let start = json.position();
        self.point.clear();
        let attributes = point(&mut self.point, json, kind, self.translator.intake.limits)?;
        self.translator.intake.check_length(json.position() - start)?;
        self.translator.point(resource, metric, &attributes, &mut self.point)
    }
}

const NONE: Str<'static> = Str::plain("");
