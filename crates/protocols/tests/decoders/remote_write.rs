//! Remote write against messages that prost encodes.

use expect_test::{Expect, expect};
use proptest::{collection::vec, prelude::*};
use prost::Message as _;
use trine_protocols::{
    DecodeError, Limits,
    remote_write::{Version, Written, decode_v1, decode_v2},
};

use crate::{
    remote_write_messages::{
        BucketSpan, Count, Exemplar, Exemplar2, Histogram, Label, Metadata2, MetricMetadata, Request, Sample,
        TimeSeries, TimeSeries2, WriteRequest, ZeroCount,
    },
    rows::{Context, NOW},
};

pub fn labels(pairs: &[(&str, &str)]) -> Vec<Label> {
    pairs.iter().map(|(name, value)| Label { name: (*name).into(), value: (*value).into() }).collect()
}

fn sample(value: f64, timestamp: i64) -> Sample {
    Sample { value, timestamp, start_timestamp: 0 }
}

fn spans(spans: &[(i32, u32)]) -> Vec<BucketSpan> {
    spans.iter().map(|(offset, length)| BucketSpan { offset: *offset, length: *length }).collect()
}

/// An integer histogram.
pub fn histogram() -> Histogram {
    Histogram {
        count: Some(Count::Int(13)),
        sum: 18.4,
        schema: 1,
        zero_threshold: 0.001,
        zero_count: Some(ZeroCount::Int(2)),
        negative_spans: spans(&[(0, 1)]),
        negative_deltas: vec![1],
        positive_spans: spans(&[(-2, 2), (3, 2)]),
        positive_deltas: vec![2, 1, -1, 1],
        timestamp: 7000,
        ..Histogram::default()
    }
}

/// A request of one histogram.
pub fn one_histogram() -> WriteRequest {
    let series = TimeSeries {
        labels: labels(&[("__name__", "h"), ("job", "a")]),
        histograms: vec![histogram()],
        ..TimeSeries::default()
    };
    WriteRequest { timeseries: vec![series], metadata: vec![] }
}

/// What was taken and what was not; the same for both versions.
fn check(v1: Option<&WriteRequest>, v2: Option<&Request>, limits: Limits, want: Expect) {
    let context = Context { limits, ..Context::default() };
    let Context { tenant, registry, limits } = &context;
    let mut texts = Vec::new();
    let requests =
        [(true, v1.map(prost::Message::encode_to_vec)), (false, v2.map(prost::Message::encode_to_vec))];
    for (first, bytes) in requests {
        let Some(bytes) = bytes else { continue };
        let decode = if first { decode_v1 } else { decode_v2 };
        let decoded = decode(&bytes, tenant, registry, NOW, limits).unwrap();
        let mut text = context.samples(&decoded).join("\n");
        text += &format!("\n{} taken. {}", decoded.accepted, decoded.error_message());
        texts.push(text);
    }
    want.assert_eq(&texts[0]);
    texts.iter().for_each(|text| assert_eq!(*text, texts[0]));
}

/// The same request in version 2, labels and metadata aside of which version 1 does not speak.
pub fn turned(request: &WriteRequest) -> Request {
    let mut out = Request { symbols: vec![String::new()], timeseries: Vec::new() };
    let mut refer = |text: &String| {
        let known = out.symbols.iter().position(|symbol| symbol == text);
        known.unwrap_or_else(|| {
            out.symbols.push(text.clone());
            out.symbols.len() - 1
        }) as u32
    };
    let mut refs = |labels: &[Label]| {
        labels.iter().flat_map(|label| [refer(&label.name), refer(&label.value)]).collect::<Vec<_>>()
    };
    let series = request.timeseries.iter().map(|series| TimeSeries2 {
        labels_refs: refs(&series.labels),
        samples: series.samples.clone(),
        histograms: series.histograms.clone(),
        exemplars: series
            .exemplars
            .iter()
            .map(|Exemplar { labels, value, timestamp }| Exemplar2 {
                labels_refs: refs(labels),
                value: *value,
                timestamp: *timestamp,
            })
            .collect(),
        metadata: None,
    });
    let series = series.collect();
    out.timeseries = series;
    out
}

#[test]
fn series_samples_histograms_and_exemplars() {
    let trace = Exemplar { labels: labels(&[("trace_id", "abc")]), value: 0.5, timestamp: 6000 };
    let float = Histogram {
        count: Some(Count::Float(3.5)),
        sum: 1.5,
        schema: -53,
        positive_spans: spans(&[(0, 3)]),
        positive_counts: vec![1.0, 0.5, 2.0],
        custom_values: vec![0.1, 2.5],
        reset_hint: 3,
        timestamp: 8000,
        start_timestamp: 0,
        ..Histogram::default()
    };
    let request = WriteRequest {
        timeseries: vec![
            // Not sorted, one value empty, samples out of order.
            TimeSeries {
                labels: labels(&[("job", "a"), ("__name__", "up"), ("zone", ""), ("instance", "h:1")]),
                samples: vec![
                    sample(1.0, 5000),
                    sample(0.0, 4000),
                    sample(f64::from_bits(0x7ff0_0000_0000_0002), -1),
                ],
                exemplars: vec![trace],
                ..TimeSeries::default()
            },
            TimeSeries {
                labels: labels(&[("__name__", "h\u{e9}"), ("k.x", "v\"")]),
                histograms: vec![histogram(), float],
                ..TimeSeries::default()
            },
        ],
        metadata: vec![],
    };
    check(
        Some(&request),
        Some(&turned(&request)),
        Limits::default(),
        expect![[r#"
        up{instance="h:1",job="a"} 1 @5000
        up{instance="h:1",job="a"} 0 @4000
        up{instance="h:1",job="a"} stale @-1
        up{instance="h:1",job="a"} exemplar 0.5 {"trace_id":"abc"} @6000
        hé{k.x="v\""} histogram Unknown schema 1 zero (0.001, 2.0) count 13 sum 18.4 +[(-2, 2), (3, 2)][2.0, 3.0, 2.0, 3.0] -[(0, 1)][1.0] @7000
        hé{k.x="v\""} histogram Gauge schema -53 zero (0.0, 0.0) count 3.5 sum 1.5 +[(0, 3)][1.0, 0.5, 2.0] [0.1, 2.5] @8000
        6 taken. "#]],
    );
}

#[test]
fn metadata_come_by_metric() {
    let metadata = |kind, name: &str, help: &str, unit: &str| MetricMetadata {
        kind,
        metric_family_name: name.into(),
        help: help.into(),
        unit: unit.into(),
    };
    let request = WriteRequest {
        timeseries: vec![],
        metadata: vec![
            metadata(1, "http_requests_total", "Requests \"done\".", ""),
            metadata(99, "x", "", "seconds"),
            metadata(2, "", "no name", ""),
        ],
    };
    check(
        Some(&request),
        None,
        Limits::default(),
        expect![[r##"
        # http_requests_total {"help":"Requests \"done\".","type":"counter","unit":""}
        # x {"help":"","type":"unknown","unit":"seconds"}
        2 taken. 1 of 3 samples were rejected: sample 3: metadata have no metric_family_name; name the metric"##]],
    );
    let symbols = ["", "__name__", "d_bucket", "d_sum", "Duration.", "seconds", "le", "1"];
    let series = |name, metadata| TimeSeries2 {
        labels_refs: vec![1, name, 6, 7],
        samples: vec![Sample { value: 1.0, timestamp: 5, start_timestamp: 3 }],
        metadata: Some(metadata),
        ..TimeSeries2::default()
    };
    let histogram = Metadata2 { kind: 3, help_ref: 4, unit_ref: 5 };
    let request = Request {
        symbols: symbols.map(str::to_owned).to_vec(),
        timeseries: vec![
            series(2, histogram),
            series(3, histogram),
            series(3, Metadata2::default()),
            series(7, Metadata2 { kind: 1, help_ref: 99, unit_ref: 0 }),
            // The specification wants samples or histograms in every series.
            TimeSeries2 {
                labels_refs: vec![1, 2],
                exemplars: vec![Exemplar2 { value: 1.0, timestamp: 5, ..Exemplar2::default() }],
                ..TimeSeries2::default()
            },
            TimeSeries2 { labels_refs: vec![1, 2], ..TimeSeries2::default() },
            TimeSeries2 { labels_refs: vec![1, 2, 0, 0], ..series(2, Metadata2::default()) },
            TimeSeries2 {
                exemplars: vec![Exemplar2 { labels_refs: vec![1], value: 1.0, timestamp: 5 }],
                ..series(2, Metadata2::default())
            },
        ],
    };
    check(
        None,
        Some(&request),
        Limits::default(),
        expect![[r#"
        d_bucket{le="1"} 1 @5 since 3
        # d {"help":"Duration.","type":"histogram","unit":"seconds"}
        d_sum{le="1"} 1 @5 since 3
        d_sum{le="1"} 1 @5 since 3
        1{le="1"} 1 @5 since 3
        d_bucket{le="1"} 1 @5 since 3
        5 taken. 5 of 10 samples were rejected: sample 5: metadata: symbol 99 is beyond the 8 of the request; send it; sample 6: the series has neither samples nor histograms; send them with it; sample 7: the series has neither samples nor histograms; send them with it; sample 8: a label has no name; name it; sample 10: exemplar: labels_refs of an exemplar are not pairs of name and value; send both"#]],
    );
}

#[test]
fn what_is_bad_is_rejected_beside_what_is_good() {
    let series = |pairs: &[(&str, &str)]| TimeSeries {
        labels: labels(pairs),
        samples: vec![sample(1.0, 1), sample(2.0, 2)],
        ..TimeSeries::default()
    };
    let of = |change: fn(&mut Histogram)| {
        let mut histogram = histogram();
        change(&mut histogram);
        histogram
    };
    let request = WriteRequest {
        timeseries: vec![
            series(&[("job", "a")]),
            series(&[("__name__", ""), ("job", "a")]),
            series(&[("__name__", "up"), ("a", "1"), ("a", "2")]),
            series(&[("__name__", "up"), ("", "1")]),
            series(&[("__name__", "up"), ("a", "1"), ("b", "2"), ("c", "3"), ("d", "4")]),
            series(&[("__name__", "up"), ("a", "more than 16 bytes")]),
            series(&[("__name__", "good")]),
            TimeSeries {
                labels: labels(&[("__name__", "h")]),
                samples: vec![sample(1.0, i64::MAX)],
                ..TimeSeries::default()
            },
        ],
        metadata: vec![],
    };
    let limits = Limits { max_labels_per_stream: 4, max_label_value_bytes: 16, ..Limits::default() };
    check(
        Some(&request),
        Some(&turned(&request)),
        limits,
        expect![[r#"
        good 1 @1
        good 2 @2
        2 taken. 13 of 15 samples were rejected: sample 1: the series has no label __name__; name the metric in it; sample 3: the series has no label __name__; name the metric in it; sample 5: label "a" is given twice with different values; send each label once; sample 7: a label has no name; name it; sample 9: the series has more than 4 labels; send fewer; sample 11: the value of label "a" has 18 bytes, 16 are allowed; shorten it; sample 15: time 9223372036854775807 ms lies outside the years 1677 to 2262; send milliseconds since 1970"#]],
    );
    let request = WriteRequest {
        timeseries: vec![TimeSeries {
            labels: labels(&[("__name__", "h")]),
            histograms: vec![
                of(|h| h.count = Some(Count::Int(14))),
                of(|h| h.schema = 53),
                of(|h| h.positive_deltas[1] = -3),
                of(|h| h.positive_spans[0].length = 3),
                of(|h| h.positive_spans[1].offset = -1),
                of(|h| h.custom_values = vec![1.0]),
                of(|h| h.schema = -53),
                of(|h| h.zero_threshold = f64::NAN),
            ],
            ..TimeSeries::default()
        }],
        metadata: vec![],
    };
    check(
        Some(&request),
        Some(&turned(&request)),
        Limits::default(),
        expect![[r#"

        0 taken. 8 of 8 samples were rejected: sample 1: a histogram has 13 observations in buckets and counts 14; send all; sample 2: schema 53 of a histogram is not known; use -4 to 8, or -53 for custom bounds; sample 3: a histogram has 1 observations in buckets and counts 13; send all; sample 4: spans of a histogram name 5 buckets, 4 are given; send as many; sample 5: spans of a histogram overlap; send them in order; sample 6: a histogram with an exponential schema has custom bounds; drop them; sample 7: a histogram with custom bounds has a zero bucket or negative ones; it may not; sample 8: a histogram's zero threshold is not 0 or more; send its half width"#]],
    );
}

#[test]
fn symbols_that_are_missing_or_no_text() {
    let series = |refs: &[u32]| {
        let samples = vec![sample(1.0, 1)];
        TimeSeries2 { labels_refs: refs.to_vec(), samples, ..TimeSeries2::default() }
    };
    let request = Request {
        symbols: ["", "__name__", "up"].map(str::to_owned).to_vec(),
        timeseries: vec![series(&[1, 2]), series(&[1, 3]), series(&[1]), series(&[]), series(&[1, u32::MAX])],
    };
    check(
        None,
        Some(&request),
        Limits::default(),
        expect![[r#"
        up 1 @1
        1 taken. 4 of 5 samples were rejected: sample 2: symbol 3 is beyond the 3 of the request; send it; sample 3: labels_refs are not pairs of name and value; send both; sample 4: the series has no label __name__; name the metric in it; sample 5: symbol 4294967295 is beyond the 3 of the request; send it"#]],
    );
    let mut bytes = request.encode_to_vec();
    let at = bytes.windows(2).position(|two| two == b"up").unwrap();
    bytes[at] = 0xff;
    let Context { tenant, registry, limits } = Context::default();
    let decoded = decode_v2(&bytes, &tenant, &registry, NOW, &limits).unwrap();
    assert_eq!((decoded.accepted, decoded.rejected), (0, 5));
    assert_eq!(decoded.first_errors[0].reason, "a symbol is not valid UTF-8; send text as UTF-8");
}

#[test]
fn histograms_finer_than_schema_8_are_merged() {
    let fine = Histogram {
        count: Some(Count::Int(10)),
        schema: 10,
        positive_spans: spans(&[(-3, 2), (0, 3), (9, 1)]),
        positive_deltas: vec![1, 0, 0, 0, 0, 4],
        ..Histogram::default()
    };
    let series =
        TimeSeries { labels: labels(&[("__name__", "h")]), histograms: vec![fine], ..TimeSeries::default() };
    let request = WriteRequest { timeseries: vec![series], metadata: vec![] };
    check(
        Some(&request),
        Some(&turned(&request)),
        Limits::default(),
        expect![[r#"
        h histogram Unknown schema 8 zero (0.0, 0.0) count 10 sum 0 +[(0, 2), (1, 1)][4.0, 1.0, 5.0] @0
        1 taken. "#]],
    );
}

#[test]
fn labels_behind_and_between_samples_are_labels() {
    let whole = TimeSeries {
        labels: labels(&[("__name__", "up"), ("a", "1"), ("b", "2")]),
        samples: vec![sample(1.0, 1), sample(2.0, 2)],
        ..TimeSeries::default()
    };
    let only = |labels: &[Label], samples: &[Sample]| {
        let series =
            TimeSeries { labels: labels.to_vec(), samples: samples.to_vec(), ..TimeSeries::default() };
        series.encode_to_vec()
    };
    let (first, rest) = whole.labels.split_at(1);
    let (one, two) = whole.samples.split_at(1);
    let scattered = [only(first, one), only(rest, two)].concat();
    let context = Context::default();
    let Context { tenant, registry, limits } = &context;
    let wrap = |series: &[u8]| {
        let mut bytes = vec![0x0a];
        prost::encoding::encode_varint(series.len() as u64, &mut bytes);
        bytes.extend_from_slice(series);
        bytes
    };
    let decode =
        |series: &[u8]| context.samples(&decode_v1(&wrap(series), tenant, registry, NOW, limits).unwrap());
    assert_eq!(decode(&scattered), decode(&whole.encode_to_vec()));
}

#[test]
fn answers_count_what_was_written() {
    let series = TimeSeries {
        labels: labels(&[("__name__", "h")]),
        samples: vec![sample(1.0, 1), sample(1.0, 2), sample(1.0, i64::MIN)],
        histograms: vec![histogram()],
        exemplars: vec![Exemplar::default()],
    };
    let request = WriteRequest { timeseries: vec![series], metadata: vec![] };
    let Context { tenant, registry, limits } = Context::default();
    let bytes = turned(&request).encode_to_vec();
    let decoded = decode_v2(&bytes, &tenant, &registry, NOW, &limits).unwrap();
    let written = Written { samples: 2, histograms: 1, exemplars: 1 };
    assert_eq!(Written::of(decoded.batch.as_ref()), written);
    assert_eq!(Written::of(None), Written::default());
}

#[test]
fn versions_by_content_type() {
    for (text, want) in [
        ("application/x-protobuf", Some(Version::V1)),
        ("application/x-protobuf;proto=prometheus.WriteRequest", Some(Version::V1)),
        ("Application/X-Protobuf; Proto=\"io.prometheus.write.v2.Request\"; q=1", Some(Version::V2)),
        ("application/x-protobuf;proto=io.prometheus.write.v3.Request", None),
        ("application/json", None),
        ("", None),
    ] {
        match (Version::from_content_type(text), want) {
            (Ok(version), want) => assert_eq!(Some(version), want),
            (Err(error @ DecodeError::UnknownContentType(_)), None) => assert_eq!(error.http_status(), 415),
            other => panic!("{text}: {other:?}"),
        }
    }
}

prop_compose! {
    pub fn request()(series in vec((
        vec("[a-z_é]{1,4}", 0..4),
        vec((any::<f64>(), -1_000_000..i64::MAX / 1_000_000), 0..4),
        vec(("[a-z]{0,3}", any::<f64>(), 0..100_000i64), 0..2),
        0..2usize,
    ), 0..5)) -> WriteRequest {
        let series = series.into_iter().map(|(values, samples, exemplars, histograms)| {
            let mut pairs = vec![("__name__".to_owned(), "m".to_owned())];
            pairs.extend(values.into_iter().enumerate().map(|(i, value)| (format!("l{i}"), value)));
            // Version 2 refuses a series with exemplars alone.
            let exemplars = if samples.is_empty() && histograms == 0 { Vec::new() } else { exemplars };
            TimeSeries {
                labels: pairs.into_iter().map(|(name, value)| Label { name, value }).collect(),
                samples: samples.into_iter().map(|(value, at)| sample(value + 0.0, at)).collect(),
                exemplars: exemplars.into_iter().map(|(text, value, timestamp)| {
                    Exemplar { labels: labels(&[("x", &text)]), value, timestamp }
                }).collect(),
                histograms: vec![histogram(); histograms],
            }
        });
        WriteRequest { timeseries: series.collect(), metadata: vec![] }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    /// Every sample comes out once, with its labels, in both versions and a second time from the cache.
    #[test]
    fn requests_come_back(request in request()) {
        let context = Context::default();
        let Context { tenant, registry, limits } = &context;
        let mut want = Vec::new();
        for series in &request.timeseries {
            let pairs = series.labels.iter().skip(1).filter(|label| !label.value.is_empty());
            let pairs: Vec<_> = pairs.map(|label| format!("{}={:?}", label.name, label.value)).collect();
            let labels = if pairs.is_empty() { String::new() } else { format!("{{{}}}", pairs.join(",")) };
            want.extend(series.samples.iter().map(|sample| {
                format!("m{labels} {} @{}", sample.value, sample.timestamp)
            }));
        }
        let v1 = request.encode_to_vec();
        let v2 = turned(&request).encode_to_vec();
        for _ in 0..2 {
            let first = context.samples(&decode_v1(&v1, tenant, registry, NOW, limits).unwrap());
            let second = context.samples(&decode_v2(&v2, tenant, registry, NOW, limits).unwrap());
            // The versions have their fields in different order.
            let sorted = |mut rows: Vec<String>| { rows.sort(); rows };
            prop_assert_eq!(sorted(first.clone()), sorted(second));
            let floats = first.into_iter().filter(|row| !row.contains("exemplar") && !row.contains("histogram"));
            prop_assert_eq!(floats.collect::<Vec<_>>(), want.clone());
        }
    }
}
