//! Metrics as an `ExportMetricsServiceRequest`: field tags are those of
//! `opentelemetry/proto/metrics/v1/metrics.proto`.

use super::protobuf::{
    bytes, double, fixed64, key_values, message, number, packed, resource, scope, signed, varint,
};
use crate::metric::{Exemplar, ExponentialHistogram, Export, Histogram, Metric, Number, Points};
use crate::record::StreamLabels;

/// `AGGREGATION_TEMPORALITY_CUMULATIVE`
pub(super) const CUMULATIVE: u64 = 2;

/// Appends the exports as one body.
pub fn otlp_metrics(exports: &[Export], streams: &[StreamLabels], out: &mut Vec<u8>) {
    for export in exports {
        message(1, out, |out| {
            resource(&streams[export.stream], out);
            message(2, out, |out| {
                scope(out);
                export.metrics.iter().for_each(|metric| otlp_metric(metric, export, out));
            });
        });
    }
}

fn otlp_metric(metric: &Metric, export: &Export, out: &mut Vec<u8>) {
    message(2, out, |out| {
        bytes(1, metric.name.as_bytes(), out);
        bytes(2, metric.description.as_bytes(), out);
        bytes(3, metric.unit.as_bytes(), out);
        match &metric.points {
            Points::Gauge(points) => message(5, out, |out| {
                points.iter().for_each(|point| number_point(point, export, out));
            }),
            Points::Sum(points) => message(7, out, |out| {
                points.iter().for_each(|point| number_point(point, export, out));
                number(2, CUMULATIVE, out);
                number(3, 1, out);
            }),
            Points::Histogram(bounds, points) => message(9, out, |out| {
                points.iter().for_each(|point| histogram(point, bounds, export, out));
                number(2, CUMULATIVE, out);
            }),
            Points::ExponentialHistogram(points) => message(10, out, |out| {
                points.iter().for_each(|point| exponential_histogram(point, export, out));
                number(2, CUMULATIVE, out);
            }),
        }
    });
}

fn times(export: &Export, out: &mut Vec<u8>) {
    fixed64(2, export.start_ns as u64, out);
    fixed64(3, export.time_ns as u64, out);
}

fn number_point(point: &Number, export: &Export, out: &mut Vec<u8>) {
    message(1, out, |out| {
        times(export, out);
        double(4, point.value, out);
        exemplar(5, point.exemplar, out);
        key_values(7, &point.attributes, out);
    });
}

fn histogram(point: &Histogram, bounds: &[f64], export: &Export, out: &mut Vec<u8>) {
    message(1, out, |out| {
        times(export, out);
        fixed64(4, point.counts.iter().sum(), out);
        double(5, point.sum, out);
        packed(6, &point.counts, out, |count, out| out.extend_from_slice(&count.to_le_bytes()));
        packed(7, bounds, out, |bound, out| out.extend_from_slice(&bound.to_le_bytes()));
        exemplar(8, point.exemplar, out);
        key_values(9, &point.attributes, out);
    });
}

fn exponential_histogram(point: &ExponentialHistogram, export: &Export, out: &mut Vec<u8>) {
    message(1, out, |out| {
        key_values(1, &point.attributes, out);
        times(export, out);
        fixed64(4, point.counts.iter().sum(), out);
        double(5, point.sum, out);
        signed(6, i64::from(point.scale), out);
        message(8, out, |out| {
            signed(1, i64::from(point.offset), out);
            packed(2, &point.counts, out, varint);
        });
        exemplar(11, point.exemplar, out);
    });
}

fn exemplar(field: u32, exemplar: Option<Exemplar>, out: &mut Vec<u8>) {
    let Some(exemplar) = exemplar else { return };
    message(field, out, |out| {
        fixed64(2, exemplar.time_ns as u64, out);
        double(3, exemplar.value, out);
        bytes(4, &exemplar.span_id.0, out);
        bytes(5, &exemplar.trace_id.0, out);
    });
}
