//! Any OTLP metrics.

use std::sync::Arc;

use opentelemetry_proto::tonic::{
    collector::metrics::v1::ExportMetricsServiceRequest,
    metrics::v1::{
        Exemplar, ExponentialHistogram, ExponentialHistogramDataPoint, Histogram, HistogramDataPoint, Metric,
        NumberDataPoint, ResourceMetrics, ScopeMetrics, Summary, SummaryDataPoint, exemplar,
        exponential_histogram_data_point::Buckets, metric::Data, number_data_point::Value,
        summary_data_point::ValueAtQuantile,
    },
    resource::v1::Resource,
};
use proptest::{collection::vec, option, prelude::*};
use prost::Message as _;

use crate::{
    otlp::{attributes, text},
    otlp_metrics::{gauge, json, pairs, protobuf, rows, sum},
    rows::Context,
};

fn time() -> impl Strategy<Value = u64> {
    prop_oneof![1 => Just(0), 4 => 1..i64::MAX as u64]
}

prop_compose! {
    fn any_exemplar()(
        filtered_attributes in attributes(),
        time_unix_nano in time(),
        value in -9.5..9.5f64,
        trace_id in prop_oneof![vec(any::<u8>(), 16), vec(any::<u8>(), 0..3)],
    ) -> Exemplar {
        Exemplar {
            filtered_attributes,
            time_unix_nano,
            value: Some(exemplar::Value::AsDouble(value)),
            trace_id,
            span_id: Vec::new(),
        }
    }
}

prop_compose! {
    fn any_number()(
        attributes in attributes(),
        times in (time(), time()),
        exemplars in vec(any_exemplar(), 0..2),
        flags in 0..4u32,
        value in option::of(prop_oneof![
            any::<i64>().prop_map(Value::AsInt),
            any::<f64>().prop_filter("JSON of serde has no infinity", |value| value.is_finite())
                .prop_map(Value::AsDouble),
        ]),
    ) -> NumberDataPoint {
        let (start_time_unix_nano, time_unix_nano) = times;
        NumberDataPoint { attributes, start_time_unix_nano, time_unix_nano, exemplars, flags, value }
    }
}

prop_compose! {
    fn any_histogram()(
        attributes in attributes(),
        time_unix_nano in time(),
        bounds in vec(-9i32..9, 0..4),
        counts in vec(any::<u32>(), 0..6),
        sum in option::of(-9.5..9.5f64),
        flags in 0..2u32,
    ) -> HistogramDataPoint {
        HistogramDataPoint {
            attributes,
            time_unix_nano,
            count: counts.iter().map(|count| u64::from(*count)).sum(),
            sum,
            bucket_counts: counts.into_iter().map(u64::from).collect(),
            explicit_bounds: bounds.into_iter().map(f64::from).collect(),
            flags,
            ..HistogramDataPoint::default()
        }
    }
}

prop_compose! {
    fn any_exponential()(
        attributes in attributes(),
        time_unix_nano in time(),
        scale in -6..12i32,
        offset in prop_oneof![-9..9i32, any::<i32>()],
        bucket_counts in vec(0..5u64, 0..9),
        zero_count in 0..3u64,
        zero_threshold in 0.0..1.0,
        flags in 0..2u32,
    ) -> ExponentialHistogramDataPoint {
        ExponentialHistogramDataPoint {
            attributes,
            time_unix_nano,
            count: bucket_counts.iter().sum::<u64>() + zero_count,
            sum: Some(1.0),
            scale,
            zero_count,
            zero_threshold,
            positive: Some(Buckets { offset, bucket_counts }),
            flags,
            ..ExponentialHistogramDataPoint::default()
        }
    }
}

prop_compose! {
    fn any_summary()(
        attributes in attributes(),
        time_unix_nano in time(),
        count in any::<u64>(),
        quantiles in vec((0.0..1.0, -9.0..9.0), 0..3),
    ) -> SummaryDataPoint {
        let quantile = |(quantile, value)| ValueAtQuantile { quantile, value };
        let quantile_values = quantiles.into_iter().map(quantile).collect();
        SummaryDataPoint { attributes, time_unix_nano, count, quantile_values, ..SummaryDataPoint::default() }
    }
}

fn any_data() -> impl Strategy<Value = Data> {
    prop_oneof![
        vec(any_number(), 0..3).prop_map(gauge),
        (vec(any_number(), 0..3), 0..4i32, any::<bool>()).prop_map(|(points, t, up)| sum(points, t, up)),
        (vec(any_histogram(), 0..3), 1..3i32).prop_map(|(data_points, aggregation_temporality)| {
            Data::Histogram(Histogram { data_points, aggregation_temporality })
        }),
        (vec(any_exponential(), 0..3), 1..3i32).prop_map(|(data_points, aggregation_temporality)| {
            Data::ExponentialHistogram(ExponentialHistogram { data_points, aggregation_temporality })
        }),
        vec(any_summary(), 0..3).prop_map(|data_points| Data::Summary(Summary { data_points })),
    ]
}

prop_compose! {
    pub fn requests()(resources in vec((
        attributes(),
        prop_oneof![Just("shop".to_owned()), text()],
        vec((prop_oneof![Just("m.x".to_owned()), text()], text(), option::of(any_data())), 0..4),
    ), 0..3)) -> ExportMetricsServiceRequest {
        let resources = resources.into_iter().map(|(mut attributes, name, metrics)| {
            attributes.extend(pairs(&[("service.name", &name)]));
            let metrics = metrics.into_iter().map(|(name, unit, data)| {
                Metric { name, unit, data, ..Metric::default() }
            });
            ResourceMetrics {
                resource: Some(Resource { attributes, ..Resource::default() }),
                scope_metrics: vec![ScopeMetrics { metrics: metrics.collect(), ..ScopeMetrics::default() }],
                ..ResourceMetrics::default()
            }
        });
        ExportMetricsServiceRequest { resource_metrics: resources.collect() }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    /// Both encodings give the same rows and the same reasons, and each gives them again.
    #[test]
    fn encodings_agree(request in requests()) {
        let context = Context::default();
        let text = serde_json::to_string(&request).unwrap();
        let bytes = request.encode_to_vec();
        let decode = |second: bool| {
            let deltas = Arc::default();
            let (decoded, update) =
                if second { json(&context, text.as_bytes(), &deltas) } else { protobuf(&context, &bytes, &deltas) };
            drop(update);
            assert!(deltas.is_empty(), "all was put back");
            rows(&context, &decoded)
        };
        let first = decode(false);
        prop_assert_eq!(&first, &decode(true));
        prop_assert_eq!(&first, &decode(false));
        prop_assert_eq!(&first, &decode(true));
    }
}
