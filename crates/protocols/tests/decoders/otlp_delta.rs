//! Delta temporality of OTLP metrics.

use std::sync::Arc;

use expect_test::{Expect, expect};
use opentelemetry_proto::tonic::metrics::v1::{
    ExponentialHistogram, Histogram, NumberDataPoint, metric::Data,
};
use prost::Message as _;
use trine_protocols::otlp::{DeltaState, DeltaUpdate};

use crate::{
    otlp_metrics::{DELTA, explicit, exponential, metric, number, protobuf, request, rows, sum},
    rows::{Context, NOW},
};

/// A request of one delta point.
fn delta(seconds: u64, value: f64) -> Vec<u8> {
    let point = NumberDataPoint {
        time_unix_nano: seconds * 1_000_000_000,
        start_time_unix_nano: (seconds - 1) * 1_000_000_000,
        ..number(&[], value)
    };
    request(&[], vec![metric("m", "", sum(vec![point], DELTA, true))]).encode_to_vec()
}

/// The sample of a request and what it adds.
fn total(context: &Context, bytes: &[u8], deltas: &Arc<DeltaState>) -> (String, DeltaUpdate) {
    let (decoded, update) = protobuf(context, bytes, deltas);
    let rows = context.samples(&decoded);
    (rows.first().cloned().unwrap_or_else(|| decoded.error_message()), update)
}

#[test]
fn deltas_become_totals() {
    let (context, deltas) = (Context::default(), Arc::default());
    let check = |seconds, value, want: Expect| {
        let (row, update) = total(&context, &delta(seconds, value), &deltas);
        update.commit();
        want.assert_eq(&row);
    };
    check(10, 5.0, expect!["m_total 5 @10000 since 9000"]);
    check(20, 2.5, expect!["m_total 7.5 @20000 since 9000"]);
    // The same point again is the same sample.
    check(20, 2.5, expect!["m_total 7.5 @20000 since 9000"]);
    check(
        15,
        9.0,
        expect![
            "1 of 1 samples were rejected: sample 1: the delta point of time 15000 ms is older than the last one of its series, 20000 ms; send them in order"
        ],
    );
    check(30, 1.0, expect!["m_total 8.5 @30000 since 9000"]);
    assert_eq!(deltas.len(), 1);
}

#[test]
fn what_was_not_stored_is_not_added() {
    let (context, deltas) = (Context::default(), Arc::default());
    total(&context, &delta(10, 5.0), &deltas).1.commit();
    // Refused by the store, then sent again.
    let (failed, update) = total(&context, &delta(20, 2.0), &deltas);
    drop(update);
    let (again, update) = total(&context, &delta(20, 2.0), &deltas);
    assert_eq!(failed, again);
    // Two at once build upon each other; the first one fails after the second was decoded.
    let (second, later) = total(&context, &delta(30, 1.0), &deltas);
    assert!(again.contains("m_total 7 ") && second.contains("m_total 8 "));
    drop(update);
    later.commit();
    let (third, update) = total(&context, &delta(40, 1.0), &deltas);
    assert!(third.contains("m_total 9 "), "{third}");
    update.commit();
    // Sent again while the first one is under way, which fails later.
    let first = total(&context, &delta(50, 1.0), &deltas).1;
    let (again, update) = total(&context, &delta(50, 1.0), &deltas);
    drop(first);
    update.commit();
    let (next, update) = total(&context, &delta(60, 1.0), &deltas);
    assert!(again.contains("m_total 10 ") && next.contains("m_total 11 "), "{again} {next}");
    update.commit();
    // A series that only a refused request had is gone.
    let fresh = Arc::new(DeltaState::default());
    drop(total(&context, &delta(10, 5.0), &fresh));
    assert!(fresh.is_empty());
}

#[test]
fn delta_histograms_become_totals() {
    let (context, deltas) = (Context::default(), Arc::default());
    let mut last = String::new();
    for (time, counts, offset) in [(10, [1, 2, 3], 0), (20, [0, 1, 1], 4)] {
        let time = time * 1_000_000_000;
        let data_points = vec![explicit(time, counts)];
        let histogram = Histogram { data_points, aggregation_temporality: DELTA };
        let data_points = vec![exponential(time, offset, &[1, 2])];
        let exponential = ExponentialHistogram { data_points, aggregation_temporality: DELTA };
        let request = request(
            &[],
            vec![
                metric("h", "", Data::Histogram(histogram)),
                metric("e", "", Data::ExponentialHistogram(exponential)),
            ],
        );
        let (decoded, update) = protobuf(&context, &request.encode_to_vec(), &deltas);
        update.commit();
        last = rows(&context, &decoded);
    }
    expect![[r#"
        h_count{http_method="GET"} 8 @20000 since 1000
        h_bucket{http_method="GET",le="0.005"} 1 @20000 since 1000
        h_bucket{http_method="GET",le="1"} 4 @20000 since 1000
        h_bucket{http_method="GET",le="+Inf"} 8 @20000 since 1000
        h_sum{http_method="GET"} 13 @20000 since 1000
        # h {"help":"","type":"histogram","unit":""}
        e histogram Unknown schema 2 zero (0.25, 2.0) count 8 sum 5 +[(1, 2), (2, 2)][1.0, 2.0, 1.0, 2.0] @20000
        # e {"help":"","type":"histogram","unit":""}"#]].assert_eq(&last);
}

#[test]
fn there_is_room_for_so_many_delta_series() {
    let point = |name: &str, seconds: u64| NumberDataPoint {
        time_unix_nano: seconds * 1_000_000_000,
        ..number(&[("n", name)], 1.0)
    };
    let now = NOW as u64 / 1_000_000_000;
    let points = vec![point("old", now - 9000), point("a", now), point("b", now), point("c", now)];
    let bytes = request(&[], vec![metric("m", "", sum(points, DELTA, true))]).encode_to_vec();
    let (context, deltas) = (Context::default(), Arc::new(DeltaState::new(2)));
    let (decoded, update) = protobuf(&context, &bytes, &deltas);
    // The idle one gave way to `b`.
    expect!["1 of 4 samples were rejected: sample 4: more than 2 series with delta temporality are summed up; send cumulative temporality, or fewer series"].assert_eq(&decoded.error_message());
    update.commit();
    assert_eq!((decoded.accepted, deltas.len()), (3, 2));
}
