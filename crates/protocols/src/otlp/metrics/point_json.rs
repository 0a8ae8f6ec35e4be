//! Data points of all kinds in JSON.

use trine_model::{SpanId, TraceId};
use trine_schema::NativeHistogram;

use super::{
    super::{
        json::{FLAGS, TIME, each_attribute, string, unsigned},
        json_value,
    },
    attributes::Attributes,
    names::Kind,
    point::{Buckets, Exemplar, Point, exemplar_labels},
};
use crate::{
    Limits,
    intake::{Fault, bad},
    json::{Json, Value},
};

const COUNT: &str = "a count is not an unsigned 64-bit integer";
const NUMBER: &str = "a value is not a number";
const INTEGER: &str = "a value is not a 64-bit integer";

/// A double as number or string, or `NaN`, `Infinity`, `-Infinity`.
fn double(value: Value<'_>) -> Result<f64, Fault> {
    let text = match value {
        Value::Number(digits) => digits,
        Value::Str(text) => text.raw(),
        Value::Null => return Ok(0.0),
        _ => return Err(bad(NUMBER)),
    };
    match text {
        "NaN" => Ok(f64::NAN),
        "Infinity" => Ok(f64::INFINITY),
        "-Infinity" => Ok(f64::NEG_INFINITY),
        _ if Json::new(text).number() == Ok(text) => text.parse().map_err(|_| bad(NUMBER)),
        _ => Err(bad(NUMBER)),
    }
}

/// A signed integer as number or string.
fn integer(value: Value<'_>) -> Result<i64, Fault> {
    match value {
        Value::Number(digits) => digits.parse().map_err(|_| bad(INTEGER)),
        Value::Str(text) => text.raw().parse().map_err(|_| bad(INTEGER)),
        Value::Null => Ok(0),
        _ => Err(bad(INTEGER)),
    }
}

fn int32(value: Value<'_>) -> Result<i32, Fault> {
    const REASON: &str = "a scale or offset is not a 32-bit integer";
    i32::try_from(integer(value).map_err(|_| bad(REASON))?).map_err(|_| bad(REASON))
}

/// Adds the elements of the array that is next; `null` is none.
fn list<'a, T>(
    json: &mut Json<'a>,
    list: &mut Vec<T>,
    mut element: impl FnMut(&mut Json<'a>) -> Result<T, Fault>,
) -> Result<(), Fault> {
    if json.null()? {
        return Ok(());
    }
    if json.peek() != b'[' {
        return Err(bad("a list of the data point is not an array"));
    }
    json.each(|json| {
        if list.len() >= NativeHistogram::MAX_BUCKETS {
            return Err(bad(
                "the data point has more than 65536 buckets, quantiles or exemplars; send fewer",
            ));
        }
        list.push(element(json)?);
        Ok(())
    })
}

/// Enters an object.
fn object(json: &mut Json<'_>, reason: &'static str) -> Result<(), Fault> {
    if json.peek() != b'{' {
        return Err(bad(reason));
    }
    Ok(json.object()?)
}

/// Reads the data point that is next.
pub(super) fn point<'a>(
    point: &mut Point,
    json: &mut Json<'a>,
    kind: Kind,
    limits: &Limits,
) -> Result<Attributes<'a>, Fault> {
    object(json, "the data point is not an object")?;
    let mut attributes = "";
    let mut first = true;
    while let Some(name) = json.member(&mut first)? {
        match (name.raw(), kind) {
            ("attributes", _) => match json.value()? {
                Value::Nested(_, raw) => attributes = raw,
                Value::Null => {}
                _ => return Err(bad("attributes are not an array")),
            },
            ("timeUnixNano", _) => point.time = unsigned(json.value()?, TIME)?,
            ("startTimeUnixNano", _) => point.start = unsigned(json.value()?, TIME)?,
            ("flags", _) => point.flags = unsigned(json.value()?, FLAGS)?,
            ("exemplars", _) => list(json, &mut point.exemplars, |json| exemplar(json, limits))?,
            ("asDouble", _) if !json.null()? => point.value = Some(double(json.value()?)?),
            ("asInt", _) if !json.null()? => point.value = Some(integer(json.value()?)? as f64),
            ("count", _) => point.count = unsigned(json.value()?, COUNT)?,
            ("sum", _) if !json.null()? => point.sum = Some(double(json.value()?)?),
            // Null, which was passed over.
            ("asDouble" | "asInt" | "sum", _) => {}
            ("bucketCounts", Kind::Histogram) => {
                list(json, &mut point.bucket_counts, |json| unsigned(json.value()?, COUNT))?;
            }
            ("explicitBounds", Kind::Histogram) => {
                list(json, &mut point.bounds, |json| double(json.value()?))?;
            }
            ("scale", Kind::Exponential) => point.scale = int32(json.value()?)?,
            ("zeroCount", Kind::Exponential) => point.zero_count = unsigned(json.value()?, COUNT)?,
            ("zeroThreshold", Kind::Exponential) => point.zero_threshold = double(json.value()?)?,
            ("positive", Kind::Exponential) => buckets(json, &mut point.positive)?,
            ("negative", Kind::Exponential) => buckets(json, &mut point.negative)?,
            ("quantileValues", Kind::Summary) => list(json, &mut point.quantiles, quantile)?,
            _ => json.skip()?,
        }
    }
    Ok(Attributes::Json(attributes))
}

fn buckets(json: &mut Json<'_>, buckets: &mut Buckets) -> Result<(), Fault> {
    if json.null()? {
        return Ok(());
    }
    object(json, "buckets are not an object like {\"offset\":0,\"bucketCounts\":[…]}")?;
    let mut first = true;
    while let Some(name) = json.member(&mut first)? {
        match name.raw() {
            "offset" => buckets.offset = int32(json.value()?)?,
            "bucketCounts" => list(json, &mut buckets.counts, |json| unsigned(json.value()?, COUNT))?,
            _ => json.skip()?,
        }
    }
    Ok(())
}

fn quantile(json: &mut Json<'_>) -> Result<(f64, f64), Fault> {
    object(json, "a quantile is not an object like {\"quantile\":0.5,\"value\":1}")?;
    let mut pair = (0.0, 0.0);
    let mut first = true;
    while let Some(name) = json.member(&mut first)? {
        match name.raw() {
            "quantile" => pair.0 = double(json.value()?)?,
            "value" => pair.1 = double(json.value()?)?,
            _ => json.skip()?,
        }
    }
    Ok(pair)
}

fn exemplar(json: &mut Json<'_>, limits: &Limits) -> Result<Exemplar, Fault> {
    object(json, "an exemplar is not an object")?;
    let (mut pairs, mut time, mut value) = (Vec::new(), 0, 0.0);
    let (mut trace_id, mut span_id) = (None, None);
    let (mut key_buffer, mut buffer) = (String::new(), String::new());
    let mut first = true;
    while let Some(name) = json.member(&mut first)? {
        match name.raw() {
            "timeUnixNano" => time = unsigned(json.value()?, TIME)?,
            "asDouble" => value = double(json.value()?)?,
            "asInt" => value = integer(json.value()?)? as f64,
            "traceId" => {
                let id = string(json.value()?, "traceId is not a string of hex digits")?;
                trace_id = TraceId::from_hex(id.raw().as_bytes()).ok();
            }
            "spanId" => {
                let id = string(json.value()?, "spanId is not a string of hex digits")?;
                span_id = SpanId::from_hex(id.raw().as_bytes()).ok();
            }
            "filteredAttributes" => each_attribute(json, |json| {
                let (key, text) = json_value::pair(json, &mut key_buffer, &mut buffer, limits.max_depth)?;
                // One more than allowed is enough to know.
                if pairs.len() <= limits.max_attributes_per_record {
                    pairs.push((key.into(), text.into()));
                }
                Ok(())
            })?,
            _ => json.skip()?,
        }
    }
    Ok(Exemplar { time, value, labels: exemplar_labels(pairs, trace_id, span_id, limits)? })
}
