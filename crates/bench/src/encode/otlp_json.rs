//! Spans and metrics as OTLP JSON: one export request, as the file exporter of the collector writes.

use serde_json::{Value as Json, json};

use super::metrics::CUMULATIVE;
use super::protobuf::SCOPE;
use super::spans::{ERROR, by_stream};
use crate::metric::{Exemplar, Export, Metric, Number, Points};
use crate::record::StreamLabels;
use crate::span::{Attributes, Span, Value};

/// The spans as an `ExportTraceServiceRequest`.
pub fn otlp_spans_json(spans: &[Span], streams: &[StreamLabels]) -> Json {
    let resources = by_stream(spans).into_iter().map(|members| {
        let spans: Vec<Json> = members.iter().map(|span| otlp_span(span)).collect();
        json!({
            "resource": resource(&streams[members[0].stream]),
            "scopeSpans": [{"scope": {"name": SCOPE}, "spans": spans}],
        })
    });
    json!({"resourceSpans": resources.collect::<Vec<_>>()})
}

/// The exports as an `ExportMetricsServiceRequest`.
pub fn otlp_metrics_json(exports: &[Export], streams: &[StreamLabels]) -> Json {
    let resources = exports.iter().map(|export| {
        let metrics: Vec<Json> = export.metrics.iter().map(|m| otlp_metric(m, export)).collect();
        json!({
            "resource": resource(&streams[export.stream]),
            "scopeMetrics": [{"scope": {"name": SCOPE}, "metrics": metrics}],
        })
    });
    json!({"resourceMetrics": resources.collect::<Vec<_>>()})
}

fn resource(stream: &StreamLabels) -> Json {
    let pairs = stream.resource().map(|(key, value)| json!({"key": key, "value": {"stringValue": value}}));
    json!({"attributes": pairs})
}

fn key_values(attributes: &Attributes) -> Json {
    let pair = |(key, value): &(&'static str, Value)| match value {
        Value::Text(text) => json!({"key": key, "value": {"stringValue": text}}),
        Value::Int(int) => json!({"key": key, "value": {"intValue": int.to_string()}}),
    };
    attributes.iter().map(pair).collect()
}

fn otlp_span(span: &Span) -> Json {
    let events = span.events.iter().map(|event| {
        json!({
            "timeUnixNano": event.time_ns.to_string(),
            "name": event.name,
            "attributes": key_values(&event.attributes),
        })
    });
    let mut json = json!({
        "traceId": span.trace_id.to_string(),
        "spanId": span.span_id.to_string(),
        "parentSpanId": span.parent.map(|id| id.to_string()).unwrap_or_default(),
        "name": span.name,
        "kind": span.kind as u8,
        "startTimeUnixNano": span.start_ns.to_string(),
        "endTimeUnixNano": span.end_ns.to_string(),
        "attributes": key_values(&span.attributes),
        "events": events.collect::<Vec<_>>(),
    });
    if let Some(error) = &span.error {
        json["status"] = json!({"code": ERROR, "message": error});
    }
    json
}

fn otlp_metric(metric: &Metric, export: &Export) -> Json {
    let mut json = json!({"name": metric.name, "description": metric.description, "unit": metric.unit});
    let (start, time) = (export.start_ns.to_string(), export.time_ns.to_string());
    let number = |point: &Number| {
        json!({
            "startTimeUnixNano": start, "timeUnixNano": time, "asDouble": point.value,
            "attributes": key_values(&point.attributes), "exemplars": exemplars(point.exemplar),
        })
    };
    let (kind, data) = match &metric.points {
        Points::Gauge(points) => {
            ("gauge", json!({"dataPoints": points.iter().map(number).collect::<Vec<_>>()}))
        }
        Points::Sum(points) => {
            let points: Vec<Json> = points.iter().map(number).collect();
            let sum =
                json!({"dataPoints": points, "aggregationTemporality": CUMULATIVE, "isMonotonic": true});
            ("sum", sum)
        }
        Points::Histogram(bounds, points) => {
            let points = points.iter().map(|point| {
                json!({
                    "startTimeUnixNano": start, "timeUnixNano": time,
                    "count": point.counts.iter().sum::<u64>().to_string(), "sum": point.sum,
                    "bucketCounts": texts(&point.counts), "explicitBounds": bounds,
                    "attributes": key_values(&point.attributes), "exemplars": exemplars(point.exemplar),
                })
            });
            let points: Vec<Json> = points.collect();
            ("histogram", json!({"dataPoints": points, "aggregationTemporality": CUMULATIVE}))
        }
        Points::ExponentialHistogram(points) => {
            let points = points.iter().map(|point| {
                json!({
                    "startTimeUnixNano": start, "timeUnixNano": time,
                    "count": point.counts.iter().sum::<u64>().to_string(), "sum": point.sum,
                    "scale": point.scale,
                    "positive": {"offset": point.offset, "bucketCounts": texts(&point.counts)},
                    "attributes": key_values(&point.attributes), "exemplars": exemplars(point.exemplar),
                })
            });
            let points: Vec<Json> = points.collect();
            ("exponentialHistogram", json!({"dataPoints": points, "aggregationTemporality": CUMULATIVE}))
        }
    };
    json[kind] = data;
    json
}

/// 64-bit numbers are texts in OTLP JSON.
fn texts(counts: &[u64]) -> Vec<String> {
    counts.iter().map(u64::to_string).collect()
}

fn exemplars(exemplar: Option<Exemplar>) -> Json {
    let one = |exemplar: Exemplar| {
        json!({
            "timeUnixNano": exemplar.time_ns.to_string(), "asDouble": exemplar.value,
            "traceId": exemplar.trace_id.to_string(), "spanId": exemplar.span_id.to_string(),
        })
    };
    exemplar.into_iter().map(one).collect()
}
