//! OTLP metrics give the series that a real Prometheus 3 makes of the same requests.
//!
//! The server is `$TRINE_PROMETHEUS` or `prometheus` on the path; without one of version 3 the test says so and
//! passes.

use std::{collections::BTreeMap, sync::Arc};

use arrow::{
    array::AsArray as _,
    datatypes::{Float64Type, TimestampNanosecondType, UInt8Type, UInt32Type},
};
use opentelemetry_proto::tonic::{
    collector::metrics::v1::ExportMetricsServiceRequest,
    metrics::v1::{
        ExponentialHistogram, ExponentialHistogramDataPoint, Gauge, Histogram, HistogramDataPoint, Metric,
        NumberDataPoint, ResourceMetrics, ScopeMetrics, Sum, Summary, SummaryDataPoint,
        exponential_histogram_data_point::Buckets, metric::Data, number_data_point::Value,
        summary_data_point::ValueAtQuantile,
    },
    resource::v1::Resource,
};
use proptest::{
    collection::{btree_map, vec},
    prelude::*,
    strategy::ValueTree as _,
    test_runner::TestRunner,
};
use prost::Message as _;
use serde_json::Value as Json;
use trine_protocols::otlp::decode_metrics_protobuf;
use trine_schema::{MetricBatch, NativeHistogram, RowKind, StreamRegistry, metrics::column};
use trine_testing::Prometheus;

use crate::{
    otlp_metrics::pairs,
    rows::{Context, NOW},
};

const REQUESTS: u64 = 200;

/// Starts a Prometheus that promotes what Trine promotes.
fn start() -> Option<Prometheus> {
    let promoted = "[service.name, service.namespace, deployment.environment.name, k8s.namespace.name, \
                    k8s.pod.name, k8s.container.name]";
    let config = format!("otlp:\n  promote_resource_attributes: {promoted}\n");
    let arguments = ["--web.enable-otlp-receiver", "--enable-feature=native-histograms"];
    Prometheus::start("otlp", &config, &arguments)
}

/// Sample as text by labels and time, in milliseconds.
type Samples = BTreeMap<(BTreeMap<String, String>, i64), String>;

/// A number of either side, short enough that the last bits of a bound do not matter.
fn number(value: f64) -> String {
    if value == 0.0 { "0".into() } else { format!("{value:.9e}") }
}

fn histogram(count: f64, sum: f64, mut buckets: Vec<[f64; 3]>) -> String {
    buckets.sort_by(|left, right| left[0].total_cmp(&right[0]));
    let buckets = buckets.into_iter().map(|bucket| bucket.map(number).join(" "));
    format!("count {} sum {}: {}", number(count), number(sum), buckets.collect::<Vec<_>>().join(", "))
}

fn ours(batch: &MetricBatch, registry: &StreamRegistry, samples: &mut Samples) {
    let records = &batch.records;
    let streams = records.column(column::STREAM).as_primitive::<UInt32Type>();
    let times = records.column(column::TIMESTAMP).as_primitive::<TimestampNanosecondType>();
    let kinds = records.column(column::KIND).as_primitive::<UInt8Type>();
    let values = records.column(column::VALUE).as_primitive::<Float64Type>();
    let payloads = records.column(column::PAYLOAD).as_binary::<i32>();
    for row in (0..records.num_rows()).filter(|row| kinds.value(*row) <= RowKind::Histogram as u8) {
        let labels = &registry.get(streams.value(row)).labels;
        let labels = labels.iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
        let sample = if kinds.value(row) == RowKind::Float as u8 {
            number(values.value(row))
        } else {
            let h = NativeHistogram::from_bytes(payloads.value(row)).unwrap();
            let base = f64::from(-h.schema).exp2().exp2();
            let mut buckets = vec![[-h.zero_threshold, h.zero_threshold, h.zero_count]];
            for (side, sign) in [(&h.positive, 1.0), (&h.negative, -1.0)] {
                let mut index = 0;
                let mut counts = side.counts.iter();
                for (offset, length) in &side.spans {
                    index += offset;
                    for _ in 0..*length {
                        let ends = [base.powi(index - 1) * sign, base.powi(index) * sign];
                        let [low, high] = if sign > 0.0 { ends } else { [ends[1], ends[0]] };
                        buckets.push([low, high, *counts.next().unwrap()]);
                        index += 1;
                    }
                }
            }
            buckets.retain(|[_, _, count]| *count > 0.0);
            histogram(h.count, h.sum, buckets)
        };
        samples.insert((labels, times.value(row) / 1_000_000), sample);
    }
}

fn theirs(answer: &Json) -> Samples {
    let text = |value: &Json| value.as_str().unwrap().to_owned();
    let parsed = |value: &Json| text(value).parse::<f64>().unwrap();
    let mut samples = Samples::new();
    for series in answer["data"]["result"].as_array().unwrap() {
        let labels: BTreeMap<String, String> = series["metric"]
            .as_object()
            .unwrap()
            .iter()
            .map(|(name, value)| (name.clone(), text(value)))
            .collect();
        let mut insert = |at: &Json, sample: String| {
            samples.insert((labels.clone(), (at.as_f64().unwrap() * 1000.0).round() as i64), sample);
        };
        for value in series["values"].as_array().into_iter().flatten() {
            insert(&value[0], number(parsed(&value[1])));
        }
        for value in series["histograms"].as_array().into_iter().flatten() {
            let buckets = value[1]["buckets"].as_array().into_iter().flatten();
            let buckets = buckets.map(|bucket| [1, 2, 3].map(|i| parsed(&bucket[i]))).collect();
            insert(&value[0], histogram(parsed(&value[1]["count"]), parsed(&value[1]["sum"]), buckets));
        }
    }
    samples
}

/// Attributes whose keys often become the same label, besides one that tells points apart.
fn attributes() -> impl Strategy<Value = BTreeMap<String, String>> {
    let key =
        prop_oneof!["[a-c][._-][a-c]", "[_é.0-9]{0,2}[a-z]{1,3}", "job|instance|le|quantile|service.name"];
    btree_map(key, prop_oneof!["[a-zé ]{0,5}", "\\PC{1,4}"], 0..5)
}

fn name() -> impl Strategy<Value = String> {
    let word = prop_oneof!["[a-z]{1,4}", "total|ratio|seconds|bytes|per_second|[0-9]{1,2}", "[:é_.-]{1,2}"];
    vec(word, 1..4).prop_map(|words| format!("n.{}", words.join(".")))
}

fn unit() -> impl Strategy<Value = String> {
    let known = "s|ms|By|1|%|\\{x\\}|By/s|\\{x\\}/s|1/s|Cel|m/s|KiBy|d";
    prop_oneof![4 => known, 1 => "[a-zA-Z{}/_ .é]{0,6}"]
}

fn data() -> impl Strategy<Value = Data> {
    let number = prop_oneof![
        any::<i64>().prop_map(Value::AsInt),
        (-1e9..1e9).prop_map(Value::AsDouble),
        Just(Value::AsDouble(f64::INFINITY))
    ];
    let number =
        number.prop_map(|value| NumberDataPoint { value: Some(value), ..NumberDataPoint::default() });
    let explicit = (btree_map(-40i32..40, 0..9u64, 0..5), 0..9u64, any::<bool>()).prop_map(
        |(buckets, above, summed)| HistogramDataPoint {
            count: buckets.values().sum::<u64>() + above,
            sum: summed.then_some(2.5),
            explicit_bounds: buckets.keys().map(|bound| f64::from(*bound) / 8.0).collect(),
            bucket_counts: buckets.values().copied().chain([above]).collect(),
            ..HistogramDataPoint::default()
        },
    );
    let side = || {
        (-20..20i32, vec(prop_oneof![Just(0), 0..5u64], 0..12))
            .prop_map(|(offset, bucket_counts)| Buckets { offset, bucket_counts })
    };
    let exponential =
        (side(), side(), -4..12i32, 0..3u64).prop_map(|(mut positive, mut negative, scale, zero_count)| {
            if scale > 8 {
                // Older versions misplace what lies behind an empty bucket while they merge buckets.
                let full = |count: &mut u64| *count += 1;
                positive.bucket_counts.iter_mut().chain(&mut negative.bucket_counts).for_each(full);
            }
            let observed = positive.bucket_counts.iter().chain(&negative.bucket_counts).sum::<u64>();
            ExponentialHistogramDataPoint {
                count: observed + zero_count,
                sum: Some(0.5),
                scale,
                zero_count,
                positive: Some(positive),
                negative: Some(negative),
                ..ExponentialHistogramDataPoint::default()
            }
        });
    let summary = (vec(0..=8u8, 0..4), any::<u32>()).prop_map(|(mut quantiles, count)| {
        quantiles.sort_unstable();
        quantiles.dedup();
        let value = |quantile: u8| ValueAtQuantile { quantile: f64::from(quantile) / 8.0, value: 1.5 };
        SummaryDataPoint {
            count: count.into(),
            sum: 3.5,
            quantile_values: quantiles.into_iter().map(value).collect(),
            ..SummaryDataPoint::default()
        }
    });
    let cumulative = 2;
    prop_oneof![
        vec(number.clone(), 1..3).prop_map(|data_points| Data::Gauge(Gauge { data_points })),
        (vec(number, 1..3), any::<bool>()).prop_map(move |(data_points, is_monotonic)| {
            Data::Sum(Sum { data_points, aggregation_temporality: cumulative, is_monotonic })
        }),
        vec(explicit, 1..3).prop_map(move |data_points| {
            Data::Histogram(Histogram { data_points, aggregation_temporality: cumulative })
        }),
        vec(exponential, 1..3).prop_map(move |data_points| {
            Data::ExponentialHistogram(ExponentialHistogram {
                data_points,
                aggregation_temporality: cumulative,
            })
        }),
        vec(summary, 1..3).prop_map(|data_points| Data::Summary(Summary { data_points })),
    ]
}

/// A request whose points all have one time and an attribute of their own.
fn request(runner: &mut TestRunner, time: u64) -> ExportMetricsServiceRequest {
    fn draw<T: std::fmt::Debug>(runner: &mut TestRunner, strategy: impl Strategy<Value = T>) -> T {
        strategy.new_tree(runner).unwrap().current()
    }
    let known = prop_oneof![
        Just("service.name"),
        Just("service.namespace"),
        Just("service.instance.id"),
        Just("k8s.pod.name"),
        Just("deployment.environment.name"),
        Just("host.name"),
        Just("host_name")
    ];
    let resource = draw(runner, btree_map(known, "[a-z]{1,3}", 0..6));
    let resource: Vec<(&str, &str)> = resource.iter().map(|(key, value)| (*key, value.as_str())).collect();
    let mut metrics = Vec::new();
    let mut points = 0;
    for (name, unit, mut data) in draw(runner, vec((name(), unit(), data()), 1..5)) {
        let mut own = || {
            points += 1;
            let mut attributes = draw(runner, attributes());
            attributes.insert("id".into(), format!("{time}-{points}"));
            let attributes: Vec<_> =
                attributes.iter().map(|(key, value)| (key.as_str(), value.as_str())).collect();
            pairs(&attributes)
        };
        macro_rules! fill {
            ($data:expr) => {
                for point in &mut $data.data_points {
                    (point.attributes, point.time_unix_nano) = (own(), time);
                }
            };
        }
        match &mut data {
            Data::Gauge(data) => fill!(data),
            Data::Sum(data) => fill!(data),
            Data::Histogram(data) => fill!(data),
            Data::ExponentialHistogram(data) => fill!(data),
            Data::Summary(data) => fill!(data),
        }
        metrics.push(Metric { name, unit, data: Some(data), ..Metric::default() });
    }
    let resource = Resource { attributes: pairs(&resource), ..Resource::default() };
    let scope_metrics = vec![ScopeMetrics { metrics, ..ScopeMetrics::default() }];
    let resource = ResourceMetrics { resource: Some(resource), scope_metrics, ..ResourceMetrics::default() };
    ExportMetricsServiceRequest { resource_metrics: vec![resource] }
}

#[test]
fn series_are_those_of_prometheus() {
    let Some(server) = start() else {
        println!("no Prometheus 3 found, nothing was compared");
        return;
    };
    let mut runner = TestRunner::deterministic();
    let Context { tenant, registry, limits } = Context::default();
    let mut mine = Samples::new();
    for number in 0..REQUESTS {
        let bytes = request(&mut runner, NOW as u64 + number * 1_000_000_000).encode_to_vec();
        let (decoded, update) =
            decode_metrics_protobuf(&bytes, &tenant, &registry, NOW, &limits, &Arc::default()).unwrap();
        update.commit();
        assert_eq!(decoded.error_message(), "");
        ours(&decoded.batch.unwrap(), &registry, &mut mine);
        let headers = "Content-Type: application/x-protobuf\r\n";
        let (status, answer) = server.send("POST /api/v1/otlp/v1/metrics", headers, &bytes).unwrap();
        assert_eq!(status, 200, "{answer}");
    }
    let query = format!(
        "GET /api/v1/query?query=%7B__name__=~%22.%2B%22%7D%5B1h%5D&time={}",
        NOW / 1_000_000_000 + 1000
    );
    let (_, body) = server.send(&query, "", b"").unwrap();
    let theirs = theirs(&serde_json::from_str(&body).unwrap());
    assert!(theirs.len() > 500, "only {} samples", theirs.len());
    let missing = |from: &Samples, of: &Samples| {
        let rows = of.iter().filter(|(key, value)| from.get(key) != Some(value));
        rows.take(10).map(|(key, value)| format!("{key:?} {value}")).collect::<Vec<_>>().join("\n")
    };
    let (theirs_only, ours_only) = (missing(&mine, &theirs), missing(&theirs, &mine));
    assert!(
        theirs_only.is_empty() && ours_only.is_empty(),
        "Prometheus has\n{theirs_only}\nwhere Trine has\n{ours_only}"
    );
    println!("{} samples are the same", mine.len());
}
