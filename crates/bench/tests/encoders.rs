//! What the encoders write is what others read: OpenTelemetry's own types, and our decoders.

use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::metrics::v1::{Metric, metric::Data, number_data_point::Value};
use prost::Message;
use trine_bench::encode::{
    RemoteWrite, Series, Version, otlp_metrics, otlp_metrics_json, otlp_spans, otlp_spans_json,
};
use trine_bench::generate::shop::{Shop, Telemetry};
use trine_bench::record::{Source, StreamLabels};
use trine_model::TenantId;
use trine_protocols::{Limits, otlp::decode_spans_protobuf};
use trine_schema::StreamRegistry;

fn shop() -> (Telemetry, Vec<StreamLabels>) {
    let start = 1_700_000_000_000_000_000;
    let mut shop = Shop::new(3, start, 50.0).stall_at(start + 5_000_000_000);
    let found = shop.until(start + 30_000_000_000);
    (found, shop.streams().to_vec())
}

#[test]
fn spans_are_the_same_in_protobuf_and_json_and_our_decoder_takes_them_all() {
    let (found, streams) = shop();
    let mut body = Vec::new();
    otlp_spans(&found.spans, &streams, &mut body);
    let read = ExportTraceServiceRequest::decode(&body[..]).unwrap();
    let json = otlp_spans_json(&found.spans, &streams).to_string();
    assert_eq!(read, serde_json::from_str(&json).unwrap());
    let spans = || read.resource_spans.iter().flat_map(|r| &r.scope_spans).flat_map(|s| &s.spans);
    assert_eq!(spans().count(), found.spans.len());
    let failed = found.spans.iter().filter(|s| s.error.is_some()).count();
    assert_eq!(spans().filter(|s| s.status.as_ref().is_some_and(|s| s.code == 2)).count(), failed);
    assert!(failed > 0 && spans().any(|s| !s.events.is_empty()));

    let (tenant, registry) = (TenantId::default(), StreamRegistry::new());
    let decoded = decode_spans_protobuf(&body, &tenant, &registry, 0, &Limits::default()).unwrap();
    assert_eq!((decoded.accepted, decoded.rejected), (found.spans.len(), 0));
}

#[test]
fn metrics_are_the_same_in_protobuf_and_json() {
    let (found, streams) = shop();
    let mut body = Vec::new();
    otlp_metrics(&found.metrics, &streams, &mut body);
    let read = ExportMetricsServiceRequest::decode(&body[..]).unwrap();
    let json = otlp_metrics_json(&found.metrics, &streams).to_string();
    assert_eq!(read, serde_json::from_str(&json).unwrap());
    let metrics: Vec<&Metric> =
        read.resource_metrics.iter().flat_map(|r| &r.scope_metrics).flat_map(|s| &s.metrics).collect();
    let (mut points, mut exemplars, mut requests) = (0, 0, 0.0);
    for metric in metrics {
        match metric.data.as_ref().unwrap() {
            Data::Gauge(gauge) => points += gauge.data_points.len(),
            Data::Sum(sum) => {
                assert!(sum.is_monotonic && sum.aggregation_temporality == 2);
                points += sum.data_points.len();
                for point in &sum.data_points {
                    let Some(Value::AsDouble(value)) = point.value else { panic!("{point:?}") };
                    requests += value;
                }
            }
            Data::Histogram(histogram) => {
                points += histogram.data_points.len();
                for point in &histogram.data_points {
                    assert_eq!(point.bucket_counts.len(), point.explicit_bounds.len() + 1);
                    assert_eq!(point.bucket_counts.iter().sum::<u64>(), point.count);
                    exemplars += point.exemplars.iter().filter(|e| e.trace_id.len() == 16).count();
                }
            }
            Data::ExponentialHistogram(histogram) => {
                points += histogram.data_points.len();
                for point in &histogram.data_points {
                    let positive = point.positive.as_ref().unwrap();
                    assert_eq!((positive.bucket_counts.iter().sum::<u64>(), point.scale), (point.count, 3));
                    assert!(positive.offset < 0, "times below a second lie at negative indexes");
                }
            }
            Data::Summary(_) => panic!("the shop has no summaries"),
        }
    }
    assert_eq!(points, found.metrics.iter().map(trine_bench::metric::Export::points).sum::<usize>());
    assert!(exemplars > 30 && requests > 1000.0, "{exemplars} exemplars, {requests} requests");
}

/// `prometheus.Sample` and `io.prometheus.write.v2.Sample`
#[derive(Clone, PartialEq, Message)]
struct Sample {
    #[prost(double, tag = "1")]
    value: f64,
    #[prost(int64, tag = "2")]
    timestamp: i64,
}

#[derive(Clone, PartialEq, Message)]
struct Label {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(string, tag = "2")]
    value: String,
}

#[derive(Clone, PartialEq, Message)]
struct SeriesV1 {
    #[prost(message, repeated, tag = "1")]
    labels: Vec<Label>,
    #[prost(message, repeated, tag = "2")]
    samples: Vec<Sample>,
}

#[derive(Clone, PartialEq, Message)]
struct RequestV1 {
    #[prost(message, repeated, tag = "1")]
    timeseries: Vec<SeriesV1>,
}

#[derive(Clone, PartialEq, Message)]
struct SeriesV2 {
    #[prost(uint32, repeated, tag = "1")]
    labels_refs: Vec<u32>,
    #[prost(message, repeated, tag = "2")]
    samples: Vec<Sample>,
}

#[derive(Clone, PartialEq, Message)]
struct RequestV2 {
    #[prost(string, repeated, tag = "4")]
    symbols: Vec<String>,
    #[prost(message, repeated, tag = "5")]
    timeseries: Vec<SeriesV2>,
}

type Labels = Vec<(String, String)>;
/// Times and the bits of values.
type Bits = Vec<(i64, u64)>;

#[test]
fn both_versions_of_remote_write_hold_the_same_series() {
    let labels = [
        vec![("__name__".to_owned(), "up".to_owned()), ("job".to_owned(), "a".to_owned())],
        vec![("__name__".to_owned(), "up".to_owned()), ("job".to_owned(), "b".to_owned())],
    ];
    let samples = [vec![(1_700_000_000_000, 1.5), (1_700_000_015_000, -0.0)], vec![(5, f64::INFINITY)]];
    let series: Vec<Series<'_>> =
        labels.iter().zip(&samples).map(|(labels, samples)| Series { labels, samples }).collect();
    let body = |version| {
        let mut body = Vec::new();
        RemoteWrite::new(version).encode(&series, &mut body).unwrap();
        snap::raw::Decoder::new().decompress_vec(&body).unwrap()
    };
    let read =
        |samples: &[Sample]| -> Bits { samples.iter().map(|s| (s.timestamp, s.value.to_bits())).collect() };
    let want: Vec<(Labels, Bits)> = series
        .iter()
        .map(|s| (s.labels.clone(), s.samples.iter().map(|(at, v)| (*at, v.to_bits())).collect()))
        .collect();
    let v1 =
        RequestV1::decode(&body(Version::V1)[..]).unwrap().timeseries.into_iter().map(|s| {
            (s.labels.iter().map(|l| (l.name.clone(), l.value.clone())).collect(), read(&s.samples))
        });
    assert_eq!(v1.collect::<Vec<_>>(), want);
    let v2 = RequestV2::decode(&body(Version::V2)[..]).unwrap();
    assert_eq!(v2.symbols[0], "", "the first symbol is empty");
    let text = |place: u32| v2.symbols[place as usize].clone();
    let v2 = v2
        .timeseries
        .iter()
        .map(|s| (s.labels_refs.chunks(2).map(|p| (text(p[0]), text(p[1]))).collect(), read(&s.samples)));
    assert_eq!(v2.collect::<Vec<_>>(), want);
}
