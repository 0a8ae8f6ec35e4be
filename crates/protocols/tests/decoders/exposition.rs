//! Expositions as a recording sink hears them.

use std::fmt::Write as _;

use expect_test::{Expect, expect};
use trine_protocols::exposition::{
    ExpositionExemplar, Format, MetadataField, ParseOptions, Series, Sink, parse,
};
use trine_schema::NativeHistogram;

/// Writes down what it is told; expects the series it heard before in the order it heard them.
#[derive(Default)]
struct Recorder {
    said: Vec<String>,
    /// Position in `said` of each sample.
    samples: Vec<usize>,
    heard: Vec<Vec<u8>>,
    expects: Option<usize>,
    met: usize,
    refuse: &'static str,
}

impl Sink for Recorder {
    fn expected(&mut self, rest: &[u8]) -> Option<usize> {
        let text = self.heard.get(self.expects?)?;
        let met = Series::begins(rest, text);
        self.met += usize::from(met);
        met.then_some(text.len())
    }

    fn float(&mut self, series: &Series<'_>, at_ms: Option<i64>, value: f64) -> Result<(), String> {
        let mut line = String::new();
        for (name, label) in series.labels() {
            write!(line, "{name}={label:?} ").unwrap();
        }
        if !self.refuse.is_empty() && line.contains(self.refuse) {
            return Err("it is not wanted".into());
        }
        write!(line, "{value}").unwrap();
        if let Some(at) = at_ms {
            write!(line, " at {at}").unwrap();
        }
        match &mut self.expects {
            Some(next) => *next += 1,
            None => self.heard.push(series.text.to_vec()),
        }
        self.samples.push(self.said.len());
        self.said.push(line);
        Ok(())
    }

    fn histogram(
        &mut self,
        series: &Series<'_>,
        at_ms: Option<i64>,
        histogram: &NativeHistogram,
    ) -> Result<(), String> {
        self.float(series, at_ms, histogram.count)?;
        let NativeHistogram {
            reset_hint, schema, zero_threshold, zero_count, sum, positive, negative, ..
        } = histogram;
        let line = self.said.last_mut().unwrap();
        write!(
            line,
            " sum {sum} schema {schema} zero {zero_count} within {zero_threshold} {reset_hint:?} {:?}{:?} {:?}{:?}",
            positive.spans, positive.counts, negative.spans, negative.counts
        )
        .unwrap();
        Ok(())
    }

    fn start(&mut self, sample: usize, start_ms: i64) {
        write!(self.said[self.samples[sample]], " since {start_ms}").unwrap();
    }

    fn exemplar(&mut self, exemplar: ExpositionExemplar) {
        let labels: Vec<_> =
            exemplar.labels.iter().map(|(name, value)| format!("{name}={value:?}")).collect();
        let line = self.said.last_mut().unwrap();
        write!(line, " # {} {} {:?}", labels.join(" "), exemplar.value, exemplar.at_ms).unwrap();
    }

    fn metadata(&mut self, family: &str, field: MetadataField<'_>) {
        self.said.push(match field {
            MetadataField::Kind(kind) => format!("{family} is {}", kind.name()),
            MetadataField::Unit(unit) => format!("{family} in {unit}"),
            MetadataField::Help(help) => format!("{family}: {help:?}"),
        });
    }
}

fn heard(format: Format, body: &[u8], options: ParseOptions) -> Result<String, String> {
    let mut first = Recorder::default();
    parse(format, body, options, &mut first).map_err(|error| error.to_string())?;
    if format != Format::Protobuf {
        // A sink that expects each series hears the same.
        let mut second = Recorder { heard: first.heard, expects: Some(0), ..Recorder::default() };
        parse(format, body, options, &mut second).map_err(|error| error.to_string())?;
        assert_eq!(second.said, first.said);
        // Those with unusual blanks behind their names are read again.
        assert!(second.met <= first.samples.len());
    }
    Ok(first.said.join("\n"))
}

fn check(format: Format, body: &str, want: Expect) {
    want.assert_eq(&heard(format, body.as_bytes(), ParseOptions::default()).unwrap());
}

#[track_caller]
fn refused(format: Format, body: impl AsRef<[u8]>, want: &str) {
    let body = body.as_ref();
    let error = heard(format, body, ParseOptions::default()).expect_err(&String::from_utf8_lossy(body));
    assert_eq!(error, want);
}

#[test]
fn the_example_of_the_text_format() {
    check(
        Format::Text,
        r#"# HELP http_requests_total The total number of HTTP requests.
# TYPE http_requests_total counter
http_requests_total{method="post",code="200"} 1027 1395066363000
http_requests_total{method="post",code="400"}    3 1395066363000

# Escaping in label values:
msdos_file_access_time_seconds{path="C:\\DIR\\FILE.TXT",error="Cannot find file:\n\"FILE.TXT\""} 1.458255915e9

# Minimalistic line:
metric_without_timestamp_and_labels 12.47

# A weird metric from before the epoch:
something_weird{problem="division by zero"} +Inf

# A histogram, which has a pretty complex representation in the text format:
# HELP http_request_duration_seconds A histogram of the\nrequest "duration" \\.
# TYPE http_request_duration_seconds histogram
http_request_duration_seconds_bucket{le="0.05"} 24054
http_request_duration_seconds_bucket{le="1"} 133988
http_request_duration_seconds_bucket{le="+Inf"} 144320
http_request_duration_seconds_sum 53423
http_request_duration_seconds_count 144320
# TYPE "rpc.duration" summary
{"rpc.duration",quantile="0.5"} 4773
	{ "rpc.duration", quantile = "1e3" , "a b"="ü" , }	NaN 0
# HELP empty
# HELPless remark
#remark"#,
        expect![[r#"
            http_requests_total: "The total number of HTTP requests."
            http_requests_total is counter
            __name__="http_requests_total" method="post" code="200" 1027 at 1395066363000
            __name__="http_requests_total" method="post" code="400" 3 at 1395066363000
            __name__="msdos_file_access_time_seconds" path="C:\\DIR\\FILE.TXT" error="Cannot find file:\n\"FILE.TXT\"" 1458255915
            __name__="metric_without_timestamp_and_labels" 12.47
            __name__="something_weird" problem="division by zero" inf
            http_request_duration_seconds: "A histogram of the\nrequest \"duration\" \\."
            http_request_duration_seconds is histogram
            __name__="http_request_duration_seconds_bucket" le="0.05" 24054
            __name__="http_request_duration_seconds_bucket" le="1.0" 133988
            __name__="http_request_duration_seconds_bucket" le="+Inf" 144320
            __name__="http_request_duration_seconds_sum" 53423
            __name__="http_request_duration_seconds_count" 144320
            rpc.duration is summary
            __name__="rpc.duration" quantile="0.5" 4773
            __name__="rpc.duration" quantile="1000.0" a b="ü" NaN at 0
            empty: """#]],
    );
}

#[test]
fn a_repeated_body_is_not_read_again() {
    let body = b"a 1\nb{c=\"d\"} 2\n{\"e.f\"} 3\n";
    let mut first = Recorder::default();
    parse(Format::Text, body, ParseOptions::default(), &mut first).unwrap();
    let mut second = Recorder { heard: first.heard, expects: Some(0), ..Recorder::default() };
    parse(Format::Text, body, ParseOptions::default(), &mut second).unwrap();
    assert_eq!(second.met, 3);
}

#[test]
fn broken_text_is_refused_with_its_line() {
    for (body, error) in [
        ("a 1\nb", "line 2: the value is not a number: \"b\""),
        ("a 1\n\n9 1\n", "line 3: a line begins with a metric name, '{' or '#': \"9 1\""),
        ("a 1 2 3\n", "line 1: a line ends behind value and timestamp: \"a 1 2 3\""),
        ("a 1 -2\n", "line 1: the timestamp is not a whole number of milliseconds: \"a 1 -2\""),
        (
            "a 1 99999999999999999999\n",
            "line 1: the timestamp is beyond 64 bits: \"a 1 99999999999999999999\"",
        ),
        ("a 0x10\n", "line 1: the value is not a number: \"a 0x10\""),
        ("a 1\r\n", "line 1: the value is not a number: \"a 1\\r\""),
        ("a{b='c'} 1\n", "line 1: a label value in quotes is expected: \"a{b='c'} 1\""),
        ("a{b=\"c\nd 1\n", "line 1: a quoted text does not end: \"a{b=\\\"c\""),
        (
            "# TYPE a counters\n",
            "line 1: a type is counter, gauge, histogram, summary or untyped: \"# TYPE a counters\"",
        ),
        ("# TYPE\n# HELP 9 b\n", "line 2: a metric name is expected behind HELP and TYPE: \"# HELP 9 b\""),
    ] {
        refused(Format::Text, body, error);
    }
    refused(Format::Text, b"# HELP a \xff\n", "line 1: the help is not valid UTF-8: \"# HELP a \u{fffd}\"");
    let long = format!("a {}\n", "x".repeat(1000));
    let error = format!("line 1: the value is not a number: \"a {}\"", "x".repeat(118));
    refused(Format::Text, long, &error);
}

#[test]
fn the_examples_of_openmetrics() {
    check(
        Format::OpenMetrics,
        r#"# TYPE acme_http_router_request_seconds summary
# UNIT acme_http_router_request_seconds seconds
# HELP acme_http_router_request_seconds Latency though all of ACME's HTTP request router.
acme_http_router_request_seconds_sum{path="/api/v1",method="GET"} 9036.32
acme_http_router_request_seconds_count{path="/api/v1",method="GET"} 807283.0
acme_http_router_request_seconds_created{path="/api/v1",method="GET"} 1605281325.0
acme_http_router_request_seconds_sum{path="/api/v2",method="POST"} 479.3
acme_http_router_request_seconds_count{path="/api/v2",method="POST"} 34.0
acme_http_router_request_seconds_created{path="/api/v2",method="POST"} 1605281325.25
# TYPE go_goroutines gauge
# HELP go_goroutines Number of \"goroutines\" that\ncurrently exist.
go_goroutines 69
# TYPE foo counter
foo_total 17.0 1520879607.789 # {trace_id="KOO5S4vxi0o"} 0.67
foo_created 1520430000.123
# TYPE foo histogram
foo_bucket{le="0.01"} 0
foo_bucket{le="1"} 8 # {trace_id="oHg5SJYRHA0"} 9.8 1520879607.789
foo_bucket{le="+Inf"} 17
foo_count 17
foo_sum 324789.3
foo_created 1520430000.123
# TYPE bar histogram
bar_created{a="1"} 1
bar_bucket{a="1",le="+Inf"} 1
bar_count{a="1"} 1
bar_bucket{a="2",le="+Inf"} 1
bar_bucket{le="1",a="3"} 1
bar_created{a="3"} 3
# TYPE "my.dist" counter
{"my.dist_total",a="b"} 2
{"my.dist_created",a="b"} 4
# TYPE foo stateset
foo{entity="controller",foo="a"} 1.0
foo{entity="controller",foo="bb"} 0.0
# TYPE foo info
foo_info{name="pretty name",version="8.2.7"} 1
# TYPE boot_created gauge
boot_created 5 -1.5
# EOF
"#,
        expect![[r#"
            acme_http_router_request_seconds is summary
            acme_http_router_request_seconds in seconds
            acme_http_router_request_seconds: "Latency though all of ACME's HTTP request router."
            __name__="acme_http_router_request_seconds_sum" path="/api/v1" method="GET" 9036.32 since 1605281325000
            __name__="acme_http_router_request_seconds_count" path="/api/v1" method="GET" 807283 since 1605281325000
            __name__="acme_http_router_request_seconds_sum" path="/api/v2" method="POST" 479.3 since 1605281325250
            __name__="acme_http_router_request_seconds_count" path="/api/v2" method="POST" 34 since 1605281325250
            go_goroutines is gauge
            go_goroutines: "Number of \"goroutines\" that\ncurrently exist."
            __name__="go_goroutines" 69
            foo is counter
            __name__="foo_total" 17 at 1520879607789 # trace_id="KOO5S4vxi0o" 0.67 None since 1520430000123
            foo is histogram
            __name__="foo_bucket" le="0.01" 0 since 1520430000123
            __name__="foo_bucket" le="1.0" 8 # trace_id="oHg5SJYRHA0" 9.8 Some(1520879607789) since 1520430000123
            __name__="foo_bucket" le="+Inf" 17 since 1520430000123
            __name__="foo_count" 17 since 1520430000123
            __name__="foo_sum" 324789.3 since 1520430000123
            bar is histogram
            __name__="bar_bucket" a="1" le="+Inf" 1 since 1000
            __name__="bar_count" a="1" 1 since 1000
            __name__="bar_bucket" a="2" le="+Inf" 1
            __name__="bar_bucket" le="1.0" a="3" 1 since 3000
            my.dist is counter
            __name__="my.dist_total" a="b" 2 since 4000
            foo is stateset
            __name__="foo" entity="controller" foo="a" 1
            __name__="foo" entity="controller" foo="bb" 0
            foo is info
            __name__="foo_info" name="pretty name" version="8.2.7" 1
            boot_created is gauge
            __name__="boot_created" 5 at -1500"#]],
    );
}

#[test]
fn openmetrics_is_strict() {
    for (body, error) in [
        ("", "line 1: the body does not end with # EOF: \"\""),
        ("a 1\n", "line 1: the body does not end with # EOF: \"a 1\""),
        ("a 1", "line 1: the body does not end with # EOF: \"a 1\""),
        ("a 1\n# EOF\na 2\n", "line 2: nothing may follow # EOF: \"# EOF\""),
        ("a 1\n# EOF \n", "line 2: nothing may follow # EOF: \"# EOF \""),
        ("\n# EOF\n", "line 1: a line begins with a metric name, '{' or '#': \"\""),
        (
            "# remark\n# EOF\n",
            "line 1: a line with '#' is '# HELP', '# TYPE', '# UNIT' or '# EOF': \"# remark\"",
        ),
        ("a  1\n# EOF\n", "line 1: one blank stands before a value or a timestamp: \"a  1\""),
        ("a\t1\n# EOF\n", "line 1: a blank and a value are expected: \"a\\t1\""),
        ("a 1 \n# EOF\n", "line 1: one blank stands before a value or a timestamp: \"a 1 \""),
        ("a 1 NaN\n# EOF\n", "line 1: the timestamp is not a number of seconds: \"a 1 NaN\""),
        (
            "a 1 # {b=\"c\"}\n# EOF\n",
            "line 1: a blank and the exemplar's value are expected: \"a 1 # {b=\\\"c\\\"}\"",
        ),
        ("a 1 # {\"b\"} 1\n# EOF\n", "line 1: an exemplar has no metric name: \"a 1 # {\\\"b\\\"} 1\""),
        (
            "a 1 # {} 1 x\n# EOF\n",
            "line 1: the exemplar's timestamp is not a number of seconds: \"a 1 # {} 1 x\"",
        ),
        ("a 1 # 2\n# EOF\n", "line 1: the timestamp is not a number of seconds: \"a 1 # 2\""),
        ("a 1 2 # ", "line 1: the exemplar's labels in braces are expected: \"a 1 2 # \""),
        ("a 1 2 # x}\n# EOF\n", "line 1: the exemplar's labels in braces are expected: \"a 1 2 # x}\""),
        (
            "a{b=\"c\"} 1 2 3\n# EOF\n",
            "line 1: a line ends behind value, timestamp and exemplar: \"a{b=\\\"c\\\"} 1 2 3\"",
        ),
        ("a{ b=\"c\"} 1\n# EOF\n", "line 1: a label name or '}' is expected: \"a{ b=\\\"c\\\"} 1\""),
        (
            "# UNIT a_seconds bytes\n# EOF\n",
            "line 1: the name of the metric does not end with '_' and its unit: \"# UNIT a_seconds bytes\"",
        ),
        (
            "# TYPE a\n# EOF\n",
            "line 1: a metric name and a blank are expected behind HELP, TYPE and UNIT: \"# TYPE a\"",
        ),
        (
            "# TYPE a  gauge\n# EOF\n",
            "line 1: a type is counter, gauge, histogram, gaugehistogram, summary, info, stateset or unknown: \"# TYPE a  gauge\"",
        ),
    ] {
        refused(Format::OpenMetrics, body, error);
    }
}

#[test]
fn what_the_sink_refuses_is_refused_with_its_line() {
    for (format, body) in [(Format::Text, "a 1\nb 2\n"), (Format::OpenMetrics, "a 1\nb 2\n# EOF")] {
        let mut sink = Recorder { refuse: "\"b\"", ..Recorder::default() };
        let error = parse(format, body.as_bytes(), ParseOptions::default(), &mut sink).unwrap_err();
        assert_eq!(error.to_string(), "line 2: it is not wanted: \"b 2\"");
    }
}

/// Protobuf by hand: field number and what it holds.
enum Field<'a> {
    Text(u32, &'a str),
    Number(u32, u64),
    Double(u32, f64),
    Message(u32, &'a [Field<'a>]),
    Bytes(u32, &'a [u8]),
}
use Field::{Bytes, Double, Message, Number, Text};

fn varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

fn message(fields: &[Field<'_>]) -> Vec<u8> {
    let mut out = Vec::new();
    let bytes = |out: &mut Vec<u8>, number: u32, bytes: &[u8]| {
        varint(out, u64::from(number << 3 | 2));
        varint(out, bytes.len() as u64);
        out.extend_from_slice(bytes);
    };
    for field in fields {
        match field {
            Text(number, text) => bytes(&mut out, *number, text.as_bytes()),
            Bytes(number, content) => bytes(&mut out, *number, content),
            Message(number, fields) => bytes(&mut out, *number, &message(fields)),
            Number(number, value) => {
                varint(&mut out, u64::from(number << 3));
                varint(&mut out, *value);
            }
            Double(number, value) => {
                varint(&mut out, u64::from(number << 3 | 1));
                out.extend_from_slice(&value.to_le_bytes());
            }
        }
    }
    out
}

fn families(list: &[&[Field<'_>]]) -> Vec<u8> {
    let mut out = Vec::new();
    for family in list {
        let family = message(family);
        varint(&mut out, family.len() as u64);
        out.extend_from_slice(&family);
    }
    out
}

const LABEL: Field<'_> = Message(1, &[Text(1, "a"), Text(2, "b\n")]);
const TRACE: Field<'_> = Message(
    3,
    &[
        Message(1, &[Text(1, "trace_id"), Text(2, "x")]),
        Double(2, 0.5),
        Message(3, &[Number(1, 7), Number(2, 5_000_000)]),
    ],
);

/// A histogram with two classic buckets and, natively, three positive and one negative.
const HISTOGRAM: Field<'_> = Message(
    7,
    &[
        Number(1, 9),
        Double(2, 2.5),
        Message(3, &[Number(1, 4), Double(2, 1.0), TRACE]),
        Message(3, &[Number(1, 9), Double(2, 20.0)]),
        Number(5, 3),
        Double(6, 0.001),
        Number(7, 1),
        Message(9, &[Number(1, 0), Number(2, 1)]),
        Bytes(10, &[4]),
        Message(12, &[Number(1, 3), Number(2, 2)]),
        Message(12, &[Number(1, 2), Number(2, 0)]),
        Message(12, &[Number(1, 2), Number(2, 1)]),
        Bytes(13, &[4, 1, 2]),
        Message(15, &[Number(1, 3)]),
    ],
);

#[test]
fn families_in_protobuf() {
    let body = families(&[
        &[
            Text(1, "requests_total"),
            Text(2, "All of them."),
            Number(3, 0),
            Message(
                4,
                &[
                    LABEL,
                    Message(3, &[Double(1, 4.0), Message(2, &[Double(2, 1.0)]), Message(3, &[Number(1, 9)])]),
                ],
            ),
            Text(5, "requests"),
        ],
        &[
            Text(1, "g"),
            Number(3, 1),
            Message(4, &[Message(2, &[Double(1, f64::NAN)]), Number(6, 5)]),
            Message(4, &[LABEL]),
        ],
        &[
            Text(1, "s"),
            Number(3, 2),
            Message(
                4,
                &[Message(4, &[Number(1, 2), Double(2, 3.0), Message(3, &[Double(1, 0.5), Double(2, 1.5)])])],
            ),
        ],
        &[Text(1, "u.u"), Number(3, 3), Message(4, &[Message(5, &[Double(1, 1.0)])])],
        &[Text(1, "h"), Number(3, 4), Message(4, &[LABEL, HISTOGRAM])],
        &[Text(1, "no metrics")],
    ]);
    let said = heard(Format::Protobuf, &body, ParseOptions::default()).unwrap();
    let classic = r#"__name__="h_count" a="b\n" 9 since 3000
__name__="h_sum" a="b\n" 2.5 since 3000
__name__="h_bucket" a="b\n" le="1.0" 4 since 3000 # trace_id="x" 0.5 Some(7005)
__name__="h_bucket" a="b\n" le="20.0" 9 since 3000
__name__="h_bucket" a="b\n" le="+Inf" 9 since 3000"#;
    expect![[r#"
        requests_total is counter
        requests_total: "All of them."
        requests_total in requests
        __name__="requests_total" a="b\n" 4 since 9000 #  1 None
        g is gauge
        __name__="g" NaN at 5
        __name__="g" a="b\n" 0
        s is summary
        __name__="s_count" 2
        __name__="s_sum" 3
        __name__="s" quantile="0.5" 1.5
        u.u is unknown
        __name__="u.u" 1
        h is histogram
    "#]]
    .assert_eq(said.strip_suffix(classic).expect("classic buckets stand at the end"));
    let native = ParseOptions { native_histograms: true, always_classic_histograms: false };
    let only_native = heard(Format::Protobuf, &body, native).unwrap();
    expect![[r#"__name__="h" a="b\n" 9 sum 2.5 schema -2 zero 1 within 0.001 Unknown [(-2, 2), (2, 1)][2.0, 1.0, 2.0] [(0, 1)][2.0] since 3000 # trace_id="x" 0.5 Some(7005)"#]]
        .assert_eq(only_native.lines().last().unwrap());
    let both = ParseOptions { always_classic_histograms: true, ..native };
    assert_eq!(heard(Format::Protobuf, &body, both).unwrap(), format!("{only_native}\n{classic}"));
}

#[test]
fn broken_protobuf_is_refused_with_its_family() {
    let native = ParseOptions { native_histograms: true, always_classic_histograms: false };
    let histogram = |fields| families(&[&[Text(1, "h"), Number(3, 4), Message(4, &[Message(7, fields)])]]);
    for (body, error) in [
        (families(&[&[Number(3, 1), Message(4, &[])]]), "metric family \"\": it has no name"),
        (
            families(&[&[Text(1, "a"), Number(3, 6), Message(4, &[])]]),
            "metric family \"a\": type 6 is none of 0 to 5",
        ),
        (
            histogram(&[Message(12, &[Number(2, 3)]), Bytes(13, &[2])]),
            "metric family \"h\": spans of a histogram name 3 buckets, 1 are given; send as many",
        ),
        (
            histogram(&[Message(12, &[Number(2, 4_294_967_295)])]),
            "metric family \"h\": a span of a histogram lies beyond all buckets; send indexes of 32 bits",
        ),
        (
            histogram(&[Message(9, &[Number(2, 1)]), Bytes(10, &[1])]),
            "metric family \"h\": a bucket of a histogram counts less than nothing; send counts of 0 or more",
        ),
        (
            histogram(&[
                Message(9, &[Number(2, 1)]),
                Message(9, &[Number(1, 1), Number(2, 1)]),
                Bytes(10, &[2, 2]),
            ]),
            "metric family \"h\": spans of a histogram overlap; send them in order",
        ),
        (
            histogram(&[Double(6, 1.0), Number(5, 106)]),
            "metric family \"h\": schema 53 of a histogram is not known; use -4 to 8, or -53 for custom bounds",
        ),
        (
            vec![5, 1],
            "the body is not a valid protobuf message: a field is longer than what is left at byte 1",
        ),
    ] {
        assert_eq!(heard(Format::Protobuf, &body, native), Err(error.into()));
    }
}

proptest::proptest! {
    #![proptest_config(proptest::test_runner::Config::with_cases(4000))]

    /// Any body ends in rows or an error, and a sink that expects series hears the same as one that does not
    /// (`heard` compares them).
    #[test]
    fn any_body_is_taken_or_refused(
        pieces in proptest::collection::vec(
            proptest::sample::select(&[
                "# TYPE ", "# HELP ", "# UNIT ", "# EOF", "a", "a_total", "a_created", "{", "}", "\"a.b\"", "le=\"1\"",
                ",", "=", "\"", "\\", " ", "\t", "\n", "1", "+Inf", " # {", "counter", "histogram", "\n# EOF\n", "\u{e9}",
                "a_total 1\n", "a_created 2\n", "a_bucket{le=\"1\"} 1\n", "# TYPE a counter\n", "# TYPE a histogram\n",
            ][..]),
            0..24,
        ),
        noise in proptest::collection::vec(proptest::num::u8::ANY, 0..3),
    ) {
        let mut body = pieces.concat().into_bytes();
        body.extend_from_slice(&noise);
        for format in [Format::Text, Format::OpenMetrics, Format::Protobuf] {
            let _ = heard(format, &body, ParseOptions::default());
        }
    }

    /// A message of which bytes are changed ends in rows or an error.
    #[test]
    fn any_message_is_taken_or_refused(at in 0usize..200, byte: u8, cut in 0usize..200, always_classic_histograms: bool) {
        let mut body = families(&[&[Text(1, "h"), Number(3, 4), Message(4, &[LABEL, HISTOGRAM])]]);
        let length = body.len();
        body[at % length] = byte;
        body.truncate(length - cut % length / 8);
        let options = ParseOptions { native_histograms: true, always_classic_histograms };
        let _ = heard(Format::Protobuf, &body, options);
    }
}
