//! OTLP metrics as series, by the OpenTelemetry specification "Prometheus and OpenMetrics Compatibility", with
//! `opentelemetry-proto` as the writer of both encodings.

use std::sync::Arc;

use expect_test::{Expect, expect};
use opentelemetry_proto::tonic::{
    collector::metrics::v1::{
        ExportMetricsPartialSuccess, ExportMetricsServiceRequest, ExportMetricsServiceResponse,
    },
    common::v1::{AnyValue, KeyValue, any_value},
    metrics::v1::{
        Exemplar, ExponentialHistogram, ExponentialHistogramDataPoint, Gauge, Histogram, HistogramDataPoint,
        Metric, NumberDataPoint, ResourceMetrics, ScopeMetrics, Sum, Summary, SummaryDataPoint, exemplar,
        exponential_histogram_data_point::Buckets, metric::Data, number_data_point::Value,
        summary_data_point::ValueAtQuantile,
    },
    resource::v1::Resource,
};
use prost::Message as _;
use trine_protocols::{
    Decoded,
    otlp::{DeltaState, DeltaUpdate, decode_metrics_json, decode_metrics_protobuf, encode_metrics_response},
};
use trine_schema::MetricBatch;

use crate::{
    otlp::turned,
    rows::{Context, NOW},
};

/// Ten seconds after 1970.
const AT: u64 = 10_000_000_000;
pub const DELTA: i32 = 1;
const CUMULATIVE: i32 = 2;

pub fn pairs(pairs: &[(&str, &str)]) -> Vec<KeyValue> {
    let pair = |(key, value): &(&str, &str)| KeyValue {
        key: (*key).into(),
        value: Some(AnyValue { value: Some(any_value::Value::StringValue((*value).into())) }),
        ..KeyValue::default()
    };
    pairs.iter().map(pair).collect()
}

pub fn request(resource: &[(&str, &str)], metrics: Vec<Metric>) -> ExportMetricsServiceRequest {
    let resource = Resource { attributes: pairs(resource), ..Resource::default() };
    let scope_metrics = vec![ScopeMetrics { metrics, ..ScopeMetrics::default() }];
    ExportMetricsServiceRequest {
        resource_metrics: vec![ResourceMetrics {
            resource: Some(resource),
            scope_metrics,
            ..ResourceMetrics::default()
        }],
    }
}

pub fn metric(name: &str, unit: &str, data: Data) -> Metric {
    Metric { name: name.into(), unit: unit.into(), data: Some(data), ..Metric::default() }
}

pub fn number(attributes: &[(&str, &str)], value: f64) -> NumberDataPoint {
    NumberDataPoint {
        attributes: pairs(attributes),
        time_unix_nano: AT,
        value: Some(Value::AsDouble(value)),
        ..NumberDataPoint::default()
    }
}

pub fn sum(points: Vec<NumberDataPoint>, temporality: i32, is_monotonic: bool) -> Data {
    Data::Sum(Sum { data_points: points, aggregation_temporality: temporality, is_monotonic })
}

pub fn gauge(points: Vec<NumberDataPoint>) -> Data {
    Data::Gauge(Gauge { data_points: points })
}

/// An explicit histogram of three buckets.
pub fn explicit(time: u64, counts: [u64; 3]) -> HistogramDataPoint {
    HistogramDataPoint {
        attributes: pairs(&[("http.method", "GET")]),
        start_time_unix_nano: 1_000_000_000,
        time_unix_nano: time,
        count: counts.iter().sum(),
        sum: Some(6.5),
        bucket_counts: counts.to_vec(),
        explicit_bounds: vec![0.005, 1.0],
        ..HistogramDataPoint::default()
    }
}

pub fn exponential(time: u64, offset: i32, counts: &[u64]) -> ExponentialHistogramDataPoint {
    ExponentialHistogramDataPoint {
        time_unix_nano: time,
        count: counts.iter().sum::<u64>() + 1,
        sum: Some(2.5),
        scale: 2,
        zero_count: 1,
        zero_threshold: 0.25,
        positive: Some(Buckets { offset, bucket_counts: counts.to_vec() }),
        ..ExponentialHistogramDataPoint::default()
    }
}

/// A request of one point with everything.
pub fn one_histogram() -> ExportMetricsServiceRequest {
    let exemplar = Exemplar {
        value: Some(exemplar::Value::AsDouble(0.5)),
        trace_id: vec![1; 16],
        filtered_attributes: pairs(&[("user.id", "7")]),
        ..Exemplar::default()
    };
    let data_points = vec![HistogramDataPoint { exemplars: vec![exemplar], ..explicit(AT, [1, 2, 3]) }];
    let histogram = Histogram { data_points, aggregation_temporality: DELTA };
    request(&CART, vec![metric("http.duration", "s", Data::Histogram(histogram))])
}

type Answer = (Decoded<MetricBatch>, DeltaUpdate);

pub fn protobuf(context: &Context, bytes: &[u8], deltas: &Arc<DeltaState>) -> Answer {
    let Context { tenant, registry, limits } = context;
    decode_metrics_protobuf(bytes, tenant, registry, NOW, limits, deltas).unwrap()
}

pub fn json(context: &Context, bytes: &[u8], deltas: &Arc<DeltaState>) -> Answer {
    let Context { tenant, registry, limits } = context;
    decode_metrics_json(bytes, tenant, registry, NOW, limits, deltas).unwrap()
}

pub fn rows(context: &Context, decoded: &Decoded<MetricBatch>) -> String {
    let mut text = context.samples(decoded).join("\n");
    if decoded.rejected > 0 {
        text += &format!("\n{} taken, {}", decoded.accepted, decoded.error_message());
    }
    text
}

/// The rows of a request, the same in both encodings, and the second time.
fn check(request: &ExportMetricsServiceRequest, want: Expect) {
    let context = Context::default();
    let text = serde_json::to_string(request).unwrap();
    let protobuf = || {
        let (decoded, _update) = protobuf(&context, &request.encode_to_vec(), &Arc::default());
        rows(&context, &decoded)
    };
    let first = protobuf();
    want.assert_eq(&first);
    assert_eq!(protobuf(), first);
    for text in [&text, &turned(&text)] {
        let (decoded, _update) = json(&context, text.as_bytes(), &Arc::default());
        assert_eq!(rows(&context, &decoded), first);
    }
}

const CART: [(&str, &str); 2] = [("service.name", "cart"), ("service.namespace", "shop")];

#[test]
fn gauges_and_sums() {
    let stale = NumberDataPoint { flags: 1, value: None, ..number(&[("cpu", "1")], 0.0) };
    let whole = NumberDataPoint {
        value: Some(Value::AsInt(-7)),
        start_time_unix_nano: 5_999_999,
        ..number(&[], 0.0)
    };
    let described = Metric {
        description: "Requests \"done\".".into(),
        ..metric("http.requests", "{request}", sum(vec![number(&[], 3.0)], CUMULATIVE, true))
    };
    check(
        &request(
            &CART,
            vec![
                metric(
                    "cpu.use",
                    "1",
                    gauge(vec![number(&[("cpu", "0"), ("a b", ""), ("9", "x")], 0.5), stale]),
                ),
                metric("queue.length", "By/s", sum(vec![whole], CUMULATIVE, false)),
                described,
            ],
        ),
        expect![[r#"
            cpu_use_ratio{cpu="0",job="shop/cart",key_9="x",service_name="cart",service_namespace="shop"} 0.5 @10000
            cpu_use_ratio{cpu="1",job="shop/cart",service_name="cart",service_namespace="shop"} stale @10000
            # cpu_use_ratio {"help":"","type":"gauge","unit":""}
            queue_length_bytes_per_second{job="shop/cart",service_name="cart",service_namespace="shop"} -7 @10000 since 5
            # queue_length_bytes_per_second {"help":"","type":"gauge","unit":"bytes_per_second"}
            http_requests_total{job="shop/cart",service_name="cart",service_namespace="shop"} 3 @10000
            # http_requests_total {"help":"Requests \"done\".","type":"counter","unit":""}"#]],
    );
}

#[test]
fn labels_come_from_attributes_then_the_resource() {
    let resource = [
        ("service.name", "cart"),
        ("service.namespace", "shop"),
        ("service.instance.id", "cart-1"),
        ("deployment.environment.name", "prod"),
        ("k8s.pod.name", "pod-1"),
        ("k8s.namespace.name", "default"),
        ("host.name", "h1"),
        ("host_name", "h2"),
    ];
    let point = number(
        &[("job", "mine"), ("k8s.pod.name", "other"), ("a.b", "1"), ("a_b", "2"), ("__name__", "x")],
        1.0,
    );
    check(
        &request(&resource, vec![metric("m", "", gauge(vec![point]))]),
        expect![[r#"
        m{a_b="1;2",deployment_environment_name="prod",instance="cart-1",job="shop/cart",k8s_namespace_name="default",k8s_pod_name="other",service_name="cart",service_namespace="shop"} 1 @10000
        # m {"help":"","type":"gauge","unit":""}
        target_info{deployment_environment_name="prod",host_name="h1;h2",instance="cart-1",job="shop/cart",k8s_namespace_name="default",k8s_pod_name="pod-1"} 1 @10000
        # target_info {"help":"Target metadata","type":"gauge","unit":""}"#]],
    );
    // Nothing but what is in job and instance: no target_info.
    check(
        &request(&resource[..3], vec![metric("m", "", gauge(vec![number(&[], 1.0)]))]),
        expect![[r#"
        m{instance="cart-1",job="shop/cart",service_name="cart",service_namespace="shop"} 1 @10000
        # m {"help":"","type":"gauge","unit":""}"#]],
    );
    // Nothing to know the target by.
    check(
        &request(&resource[6..], vec![metric("m", "", gauge(vec![number(&[], 1.0)]))]),
        expect![[r#"
        m 1 @10000
        # m {"help":"","type":"gauge","unit":""}"#]],
    );
}

#[test]
fn explicit_histograms() {
    let exemplar = |value: f64, time| Exemplar {
        time_unix_nano: time,
        value: Some(exemplar::Value::AsDouble(value)),
        trace_id: vec![0xab; 16],
        span_id: vec![0; 8],
        filtered_attributes: pairs(&[("user.id", "7")]),
    };
    let exemplars = vec![exemplar(3.0, 9_000_000_000), exemplar(0.005, 0), exemplar(0.5, 1)];
    let only_count = HistogramDataPoint { count: 4, time_unix_nano: AT, ..HistogramDataPoint::default() };
    let data_points = vec![HistogramDataPoint { exemplars, ..explicit(AT, [1, 2, 3]) }, only_count];
    let histogram = Histogram { data_points, aggregation_temporality: CUMULATIVE };
    check(
        &request(&CART, vec![metric("http.duration", "s", Data::Histogram(histogram))]),
        expect![[r#"
        http_duration_seconds_count{http_method="GET",job="shop/cart",service_name="cart",service_namespace="shop"} 6 @10000 since 1000
        http_duration_seconds_bucket{http_method="GET",job="shop/cart",le="0.005",service_name="cart",service_namespace="shop"} 1 @10000 since 1000
        http_duration_seconds_bucket{http_method="GET",job="shop/cart",le="1",service_name="cart",service_namespace="shop"} 3 @10000 since 1000
        http_duration_seconds_bucket{http_method="GET",job="shop/cart",le="+Inf",service_name="cart",service_namespace="shop"} 6 @10000 since 1000
        http_duration_seconds_sum{http_method="GET",job="shop/cart",service_name="cart",service_namespace="shop"} 6.5 @10000 since 1000
        http_duration_seconds_bucket{http_method="GET",job="shop/cart",le="+Inf",service_name="cart",service_namespace="shop"} exemplar 3 {"trace_id":"abababababababababababababababab","user.id":"7"} @9000
        http_duration_seconds_bucket{http_method="GET",job="shop/cart",le="0.005",service_name="cart",service_namespace="shop"} exemplar 0.005 {"trace_id":"abababababababababababababababab","user.id":"7"} @10000
        http_duration_seconds_bucket{http_method="GET",job="shop/cart",le="1",service_name="cart",service_namespace="shop"} exemplar 0.5 {"trace_id":"abababababababababababababababab","user.id":"7"} @0
        http_duration_seconds_count{job="shop/cart",service_name="cart",service_namespace="shop"} 4 @10000
        http_duration_seconds_bucket{job="shop/cart",le="+Inf",service_name="cart",service_namespace="shop"} 4 @10000
        # http_duration_seconds {"help":"","type":"histogram","unit":"seconds"}"#]],
    );
}

#[test]
fn exponential_histograms_and_summaries() {
    let fine = ExponentialHistogramDataPoint {
        scale: 10,
        zero_threshold: 0.0,
        negative: Some(Buckets { offset: -1, bucket_counts: vec![1] }),
        positive: None,
        count: 2,
        flags: 0,
        ..exponential(AT, 0, &[])
    };
    let stale = ExponentialHistogramDataPoint { flags: 1, ..exponential(AT, 0, &[]) };
    let data_points = vec![exponential(AT, -1, &[1, 0, 2, 0, 0, 0, 5]), fine, stale];
    let histogram = ExponentialHistogram { data_points, aggregation_temporality: CUMULATIVE };
    let quantile = |quantile, value| ValueAtQuantile { quantile, value };
    let summary = SummaryDataPoint {
        time_unix_nano: AT,
        count: 3,
        sum: 1.5,
        quantile_values: vec![quantile(0.5, 0.25), quantile(1.0, f64::INFINITY)],
        ..SummaryDataPoint::default()
    };
    check(
        &request(
            &[],
            vec![
                metric("latency", "ms", Data::ExponentialHistogram(histogram)),
                metric("gc.pause", "s", Data::Summary(Summary { data_points: vec![summary] })),
            ],
        ),
        expect![[r#"
            latency_milliseconds histogram Unknown schema 2 zero (0.25, 1.0) count 9 sum 2.5 +[(0, 3), (3, 1)][1.0, 0.0, 2.0, 5.0] @10000
            latency_milliseconds histogram Unknown schema 8 zero (1e-128, 1.0) count 2 sum 2.5 -[(0, 1)][1.0] @10000
            latency_milliseconds histogram Unknown schema 2 zero (0.25, 0.0) count 0 sum stale @10000
            # latency_milliseconds {"help":"","type":"histogram","unit":"milliseconds"}
            gc_pause_seconds{quantile="0.5"} 0.25 @10000
            gc_pause_seconds{quantile="1"} inf @10000
            gc_pause_seconds_sum 1.5 @10000
            gc_pause_seconds_count 3 @10000
            # gc_pause_seconds {"help":"","type":"summary","unit":"seconds"}"#]],
    );
}

#[test]
fn target_info_has_a_sample_where_points_are() {
    let at = |seconds: u64| NumberDataPoint { time_unix_nano: seconds * 1_000_000_000, ..number(&[], 1.0) };
    let points = [600, 660, 720, 780, 7200].map(at).to_vec();
    let mut twice =
        request(&[("service.name", "a"), ("host.name", "h")], vec![metric("m", "", gauge(points))]);
    twice.resource_metrics.push(twice.resource_metrics[0].clone());
    let context = Context::default();
    let (decoded, _update) = protobuf(&context, &twice.encode_to_vec(), &Arc::default());
    let info = context.samples(&decoded).into_iter().filter(|row| row.starts_with("target_info"));
    expect![[r#"
        target_info{host_name="h",job="a"} 1 @720000
        target_info{host_name="h",job="a"} 1 @780000
        target_info{host_name="h",job="a"} 1 @7200000"#]]
    .assert_eq(&info.collect::<Vec<_>>().join("\n"));
}

#[test]
fn what_is_bad_is_rejected_beside_what_is_good() {
    let good = || number(&[], 1.0);
    let bad_points = vec![
        NumberDataPoint { value: None, ..good() },
        NumberDataPoint { time_unix_nano: 1 << 63, ..good() },
        NumberDataPoint { attributes: pairs(&[("", "x")]), ..good() },
        NumberDataPoint { attributes: pairs(&[("..", "x")]), ..good() },
        good(),
    ];
    let histogram = |change: fn(&mut HistogramDataPoint)| {
        let mut point = explicit(AT, [1, 1, 1]);
        change(&mut point);
        let histogram = Histogram { data_points: vec![point], aggregation_temporality: CUMULATIVE };
        metric("h", "", Data::Histogram(histogram))
    };
    let exponential = |change: fn(&mut ExponentialHistogramDataPoint)| {
        let mut point = exponential(AT, 0, &[1]);
        change(&mut point);
        let data = ExponentialHistogram { data_points: vec![point], aggregation_temporality: CUMULATIVE };
        metric("e", "", Data::ExponentialHistogram(data))
    };
    check(
        &request(
            &[],
            vec![
                metric("m", "", gauge(bad_points)),
                metric("!", "", gauge(vec![good(), good()])),
                metric("s", "", sum(vec![good()], 0, true)),
                histogram(|point| point.explicit_bounds = vec![1.0, 1.0]),
                histogram(|point| point.bucket_counts = vec![1, 2]),
                exponential(|point| point.count = 9),
                exponential(|point| point.scale = -5),
                metric("empty", "", gauge(vec![])),
                Metric::default(),
            ],
        ),
        expect![[r#"
            m 1 @10000
            # m {"help":"","type":"gauge","unit":""}
            1 taken, 11 of 12 samples were rejected: sample 1: the data point has no value; send as_double or as_int; sample 2: time 9223372036854775808 lies after the year 2262; send nanoseconds since 1970; sample 3: an attribute has no key; name it; sample 4: an attribute's key has no letter or digit; name it; sample 6: the metric's name has no letter, digit or colon; name it; sample 8: aggregation_temporality is not given; send cumulative or delta; sample 9: explicit_bounds are not ascending numbers; sort them; sample 10: the histogram has 2 bucket_counts for 2 explicit_bounds; send one more; sample 11: a histogram has 2 observations in buckets and counts 9; send all; sample 12: scale -5 of an exponential histogram is below -4; use finer buckets"#]],
    );
}

#[test]
fn numbers_that_json_does_not_know_may_stand_bare() {
    let points = ["NaN", "\"NaN\"", "-Infinity", "1e3", "-1"];
    let points = points.map(|value| format!(r#"{{"timeUnixNano":"1","asDouble":{value}}}"#)).join(",");
    let text = format!(
        r#"{{"resourceMetrics":[{{"scopeMetrics":[{{"metrics":[{{"name":"m","gauge":{{"dataPoints":[{points}]}}}}]}}]}}]}}"#
    );
    let context = Context::default();
    let (decoded, _update) = json(&context, text.as_bytes(), &Arc::default());
    expect![[r#"
        m NaN @0
        m NaN @0
        m -inf @0
        m 1000 @0
        m -1 @0
        # m {"help":"","type":"gauge","unit":""}"#]]
    .assert_eq(&rows(&context, &decoded));
    let Context { tenant, registry, limits } = &context;
    for bare in ["Nan", "Inf", "--1", "-"] {
        let text = text.replacen("NaN", bare, 1);
        let decoded = decode_metrics_json(text.as_bytes(), tenant, registry, NOW, limits, &Arc::default());
        assert!(decoded.is_err(), "{bare}");
    }
}

#[test]
fn a_point_without_a_time_is_of_now() {
    let point = NumberDataPoint { time_unix_nano: 0, ..number(&[], 1.0) };
    let bytes = request(&[], vec![metric("m", "", gauge(vec![point]))]).encode_to_vec();
    let context = Context::default();
    let (decoded, _update) = protobuf(&context, &bytes, &Arc::default());
    assert!(!decoded.own_times);
    assert!(context.samples(&decoded)[0].contains(&format!("m 1 @{}", NOW / 1_000_000)));
    let (decoded, _update) = protobuf(&context, &request(&CART, vec![]).encode_to_vec(), &Arc::default());
    assert!(decoded.own_times && decoded.batch.is_none());
}

#[test]
fn answers() {
    let want = ExportMetricsServiceResponse {
        partial_success: Some(ExportMetricsPartialSuccess {
            rejected_data_points: 3,
            error_message: "no \"x\"".into(),
        }),
    };
    let bytes = encode_metrics_response(3, "no \"x\"", false);
    assert_eq!(ExportMetricsServiceResponse::decode(&bytes[..]).unwrap(), want);
    let text = encode_metrics_response(3, "no \"x\"", true);
    expect![[r#"{"partialSuccess":{"rejectedDataPoints":"3","errorMessage":"no \"x\""}}"#]]
        .assert_eq(std::str::from_utf8(&text).unwrap());
}
