//! Valid inputs to start from.

use trine_chunks::BlockWriter;
use trine_schema::{BucketSpans, NativeHistogram};

use crate::{NOW_NS, blocks::encoded_lines};

/// Valid inputs of a target to start from.
pub fn seeds(target: &str) -> Vec<Vec<u8>> {
    let otlp_json = r#"{"resourceLogs":[{"resource":{"attributes":[{"key":"service.name","value":{"stringValue":"cart"}}]},"scopeLogs":[{"scope":{"name":"s","version":"1","attributes":[{"key":"k","value":{"boolValue":true}}]},"logRecords":[{"timeUnixNano":"5","observedTimeUnixNano":7,"severityNumber":9,"severityText":"INFO","body":{"stringValue":"hi \"\u00e9\ud83d\ude00\""},"attributes":[{"key":"a","value":{"arrayValue":{"values":[{"intValue":"1"},{"doubleValue":0.5},{"bytesValue":"AQI="}]}}},{"key":"m","value":{"kvlistValue":{"values":[{"key":"x","value":{}}]}}}],"droppedAttributesCount":2,"flags":1,"traceId":"49a51828322183eb20bfe4ace3060000","spanId":"083e5d40259e7999","eventName":"e"}]}]}]}"#;
    let otlp_spans_json = r#"{"resourceSpans":[{"resource":{"attributes":[{"key":"service.name","value":{"stringValue":"cart"}}]},"scopeSpans":[{"scope":{"name":"s","version":"1"},"spans":[{"traceId":"49a51828322183eb20bfe4ace3060000","spanId":"083e5d40259e7999","parentSpanId":"083e5d40259e7998","name":"GET \u00e9","kind":"SPAN_KIND_SERVER","startTimeUnixNano":"5","endTimeUnixNano":9,"flags":1,"traceState":"a=b","status":{"code":2,"message":"no"},"attributes":[{"key":"a","value":{"intValue":"1"}}],"events":[{"timeUnixNano":"6","name":"e","attributes":[{"key":"k","value":{"boolValue":true}}],"droppedAttributesCount":1}],"links":[{"traceId":"49a51828322183eb20bfe4ace3060000","spanId":"083e5d40259e7999","traceState":"x=y"}],"droppedEventsCount":2}]}]}]}"#;
    let otlp_metrics_json = r#"{"resourceMetrics":[{"resource":{"attributes":[{"key":"service.name","value":{"stringValue":"cart"}},{"key":"a.b","value":{"intValue":"1"}}]},"scopeMetrics":[{"scope":{},"metrics":[{"name":"m.x","unit":"1","description":"d","gauge":{"dataPoints":[{"timeUnixNano":"5000000","asDouble":0.5,"attributes":[{"key":"a.b","value":{"stringValue":"v"}}]},{"timeUnixNano":5,"flags":1}]}},{"name":"s","sum":{"aggregationTemporality":1,"isMonotonic":true,"dataPoints":[{"timeUnixNano":"7000000","asInt":"3","exemplars":[{"asDouble":1,"timeUnixNano":"5","traceId":"49a51828322183eb20bfe4ace3060000","filteredAttributes":[{"key":"k","value":{"boolValue":true}}]}]}]}},{"name":"h","unit":"s","histogram":{"aggregationTemporality":2,"dataPoints":[{"timeUnixNano":"5","count":"3","sum":1.5,"bucketCounts":["1","2"],"explicitBounds":[0.5]}]}},{"name":"e","exponentialHistogram":{"aggregationTemporality":1,"dataPoints":[{"timeUnixNano":"5","count":4,"scale":10,"zeroCount":"1","zeroThreshold":0.1,"positive":{"offset":-2,"bucketCounts":["1","0","2"]}}]}},{"name":"q","summary":{"dataPoints":[{"timeUnixNano":"5","count":"1","sum":2,"quantileValues":[{"quantile":0.5,"value":1}]}]}}]}]}]}"#;
    let zipkin = r#"[{"traceId":"5af7183fb1d4cf5f","id":"352bff9a74ca9ad2","parentId":"1","name":"\u00e9","timestamp":5,"duration":1,"kind":"SERVER","localEndpoint":{"serviceName":"a","ipv4":"1.2.3.4","port":1},"remoteEndpoint":{"serviceName":"b","ipv6":"::1"},"annotations":[{"timestamp":5,"value":"ws"}],"tags":{"error":"x","k":"v"},"shared":true},{"traceId":"1","id":"2"}]"#;
    let loki_json = r#"{"streams":[{"stream":{"app":"a","level":"error"},"values":[["1700000000000000000","line \n",{"trace_id":"49a51828322183eb20bfe4ace3060000","level":"warn","n":1}],[2,"b"]]}]}"#;
    let lines = "{\"time\":\"2023-01-29T12:00:00.5+01:00\",\"msg\":\"hi\",\"level\":\"warn\",\"service\":\"c\",\"a\":{\"b\":[1,{}]}}\n\n{\"ts\":1674993600.25,\"log\":\"x\\u00e9\",\"trace_id\":\"49a51828322183eb20bfe4ace3060000\",\"n\":null}\r\n";
    match target {
        "traceql" => [
            "{}",
            r#"{ resource.service.name = "cart" && name=`GET /` && span:duration > 1.5s && status = error }"#,
            r#"{ kind=server && span.http.status_code = 500 && ."user id"="a\"b" && traceDuration >= 3s && true }"#,
        ]
        .map(|query| query.as_bytes().to_vec())
        .to_vec(),
        "exposition_text" => vec![
            b"# HELP a Help\\n.\n# TYPE a histogram\na_bucket{le=\"1\"} 3 1700000000000\n{\"a.b\",\"c d\"=\"e\\\"\"} NaN\n"
                .to_vec(),
        ],
        "exposition_openmetrics" => vec![
            b"# TYPE a histogram\n# UNIT a_s s\na_bucket{b=\"c\",le=\"1\"} 3 # {trace_id=\"x\"} 0.5 1.5\na_count{b=\"c\"} 3\n\
              a_created{b=\"c\"} 7\n# TYPE b counter\nb_total 1 2\nb_created 3\n# EOF\n"
                .to_vec(),
        ],
        "exposition_protobuf" => {
            let pair = message(&[field(1, b"l"), field(2, b"v")]);
            let double = |number: u8, value: f64| [&[number << 3 | 1], &value.to_le_bytes()[..]].concat();
            let bucket = field(3, &message(&[vec![8, 4], double(2, 1.0), field(3, &double(2, 0.5))]));
            let spans = message(&[vec![0x28, 3], double(6, 0.001), field(12, &[8, 3, 16, 2]), field(13, &[4, 1])]);
            let histogram = message(&[vec![8, 9], double(2, 2.5), bucket, spans, field(15, &[8, 3])]);
            let family = |name: &[u8], kind: u8, metric: Vec<u8>| {
                let metric = field(4, &message(&[field(1, &pair), metric]));
                let family = message(&[field(1, name), field(2, b"help"), vec![0x18, kind], metric]);
                [vec![family.len() as u8], family].concat()
            };
            vec![
                family(b"h", 4, field(7, &histogram)),
                message(&[family(b"c", 0, field(3, &double(1, 1.0))), family(b"g", 1, field(2, &double(1, 2.0)))]),
            ]
        }
        "scrape_config" => vec![
            b"global: {scrape_interval: 15s, external_labels: {a: $b}}\nscrape_configs:\n  - job_name: &x j\n    static_configs:\n\
              \x20     - targets: [\"a:1\", *x]\n    relabel_configs:\n      - {source_labels: [a], regex: (.*), target_label: b}\n"
                .to_vec(),
        ],
        "relabel" => vec![
            b"\0(.*):([0-9]+)\0$2-${1}\0port\0__address__,job".to_vec(),
            b"\x06__meta_(.+)\0$1".to_vec(),
            b"\x05.*\0\0shard\0job".to_vec(),
        ],
        "logql" => [
            r#"{app="a", b=~"c|d"} |= "x" != `y` |~ "(?i)z" | json | a > 1.5 and b_c >= 1h30m or e < 5KB"#,
            r#"{app="a"} | logfmt --strict a, m="msg" | ip = ip("192.168.4.0/24") | drop m | keep a | decolorize"#,
            r#"{app="a"} | pattern `<m> <_> <s> <*>` | regexp "(?P<n>[0-9]+)" | label_format x="{{.m | ToUpper}}", y=n"#,
            r#"{} | line_format `{{ if eq .user "7" }}{{ printf "%-5s" .a }}{{ else }}{{ __line__ }}{{ end }}`"#,
            r#"topk(2, sum by (a) (rate({app="a"} | unwrap duration(d) | __error__="" [5m] offset 1m))) / on (a) 2 > bool 1"#,
            r#"quantile_over_time(0.9, {a="b"} | json | unwrap bytes(e) [1h]) by (c) or vector(1) # c"#,
        ]
        .map(|query| query.as_bytes().to_vec())
        .to_vec(),
        "native_histogram" => {
            let side = BucketSpans { spans: vec![(-3, 2), (1, 1)], counts: vec![1.0, 2.5, 3.0] };
            let histogram = NativeHistogram { schema: 3, count: 9.0, positive: side, ..NativeHistogram::default() };
            let custom = NativeHistogram { schema: -53, custom_bounds: vec![0.5, 2.0], ..histogram.clone() };
            vec![histogram.to_bytes(), custom.to_bytes()]
        }
        "body_block" | "body_lines" => {
            let text: String = (0..120)
                .map(|i| format!("request {i} of user{} took {}.{}ms from 10.0.0.{i}\n", i % 7, i * i % 97, i % 10))
                .collect();
            let text = text + "\n\u{e9}\nGET /\tx=1\n0012 -5 deadbeef\n";
            if target == "body_lines" { vec![text.into()] } else { vec![encoded_lines(text.as_bytes())] }
        }
        "remote_read" => {
            let matcher = message(&[vec![0x08, 2], field(2, b"__name__"), field(3, b"a|b")]);
            let query = message(&[vec![0x08, 1, 0x10, 2], field(3, &matcher)]);
            let request = message(&[field(1, &query), vec![0x10, 1]]);
            // In snappy: the length, then one literal.
            let length = request.len() as u8;
            vec![[&[length, (length - 1) << 2][..], &request].concat(), request]
        }
        "promql" => [
            "sum by (i) (rate(m_total[5m] offset 1m)) / on(i) group_left avg(m_total) > bool 1",
            "histogram_quantile(0.9, rate(h[5m])) or label_replace(m_total, \"a\", \"$1\", \"i\", \"(.*)\")",
            "topk(2, max_over_time(m_total[5m:30s] @ end())) unless m_total{i=~\"1|2\"} smoothed",
            "h </ 2 + fill(0) -h * 1e3 atan2 0x1f # c",
            "m_total[max_of(step(), 1m) * 2] anchored",
            "count_values('v', {\"m_total\", i!=`x`}) ^ (time() - 1h30m)",
        ]
        .map(|query| query.as_bytes().to_vec())
        .to_vec(),
        "otlp_protobuf" => {
            let text = |value: &str| message(&[field(1, value.as_bytes())]);
            let pair = |key: &str, value: &[u8]| message(&[field(1, key.as_bytes()), field(2, value)]);
            let array =
                field(5, &message(&[field(1, &[0x18, 7]), field(1, &[0x21, 0, 0, 0, 0, 0, 0, 0xe0, 0x3f])]));
            let map = field(6, &field(1, &pair("k", &[0x10, 1])));
            let record = message(&[
                vec![0x09, 5, 0, 0, 0, 0, 0, 0, 0, 0x10, 9],
                field(3, b"INFO"),
                field(5, &text("hi \u{e9}")),
                field(6, &pair("a", &array)),
                field(6, &pair("m", &map)),
                field(6, &pair("b", &field(7, &[1, 2]))),
                vec![0x38, 2, 0x45, 1, 0, 0, 0],
                field(9, &[1; 16]),
                field(10, &[2; 8]),
                vec![0x59, 7, 0, 0, 0, 0, 0, 0, 0],
                field(12, b"e"),
            ]);
            let scope = message(&[field(1, b"s"), field(2, b"1"), field(3, &pair("k", &text("v")))]);
            let resource = field(1, &pair("service.name", &text("cart")));
            let scope_logs = message(&[field(1, &scope), field(2, &record), field(2, &[])]);
            let late = message(&[field(2, &record), field(1, &scope)]);
            vec![
                field(1, &message(&[field(1, &resource), field(2, &scope_logs)])),
                field(1, &message(&[field(2, &late), field(1, &resource)])),
            ]
        }
        "otlp_spans_protobuf" => {
            let text = |value: &str| field(1, value.as_bytes());
            let pair = message(&[field(1, b"a"), field(2, &text("v"))]);
            let event = message(&[
                vec![0x09, 6, 0, 0, 0, 0, 0, 0, 0],
                field(2, b"e"),
                field(3, &pair),
                vec![0x20, 1],
            ]);
            let link = message(&[
                field(1, &[1; 16]),
                field(2, &[3; 8]),
                field(3, b"x=y"),
                field(4, &pair),
                vec![0x28, 1],
            ]);
            let span = message(&[
                field(1, &[1; 16]),
                field(2, &[2; 8]),
                field(3, b"a=b"),
                field(4, &[3; 8]),
                field(5, b"GET /"),
                vec![0x30, 2, 0x39, 5, 0, 0, 0, 0, 0, 0, 0, 0x41, 9, 0, 0, 0, 0, 0, 0, 0],
                field(9, &pair),
                vec![0x50, 1],
                field(11, &event),
                vec![0x60, 1],
                field(13, &link),
                vec![0x70, 1],
                field(15, &message(&[field(2, b"no"), vec![0x18, 2]])),
                vec![0x85, 1, 1, 0, 0, 0],
            ]);
            let scope = message(&[field(1, b"s"), field(2, b"1")]);
            let resource = field(1, &message(&[field(1, b"service.name"), field(2, &text("cart"))]));
            let scope_spans = message(&[field(1, &scope), field(2, &span), field(2, &[])]);
            let late = message(&[field(2, &span), field(1, &scope)]);
            vec![
                field(1, &message(&[field(1, &resource), field(2, &scope_spans)])),
                field(1, &message(&[field(2, &late), field(1, &resource)])),
            ]
        }
        "remote_write_1" => {
            let label = |name: &str, value: &str| {
                field(1, &message(&[field(1, name.as_bytes()), field(2, value.as_bytes())]))
            };
            let exemplar = message(&[label("trace_id", "a"), vec![0x11, 0, 0, 0, 0, 0, 0, 0, 0x40, 0x18, 5]]);
            let series = message(&[
                label("__name__", "up"),
                label("job", "a"),
                field(2, &[0x09, 0, 0, 0, 0, 0, 0, 0xf0, 0x3f, 0x10, 5]),
                field(3, &exemplar),
                field(4, &native_histogram()),
            ]);
            let metadata = message(&[vec![0x08, 1], field(2, b"up"), field(4, b"h"), field(5, b"s")]);
            vec![message(&[field(1, &series), field(3, &metadata)])]
        }
        "remote_write_2" => {
            let symbols = ["", "__name__", "up", "job", "a"];
            let symbols: Vec<_> = symbols.map(|symbol| field(4, symbol.as_bytes())).to_vec();
            let series = message(&[
                field(1, &[1, 2, 3, 4]),
                field(2, &[0x09, 0, 0, 0, 0, 0, 0, 0xf0, 0x3f, 0x10, 5, 0x18, 4]),
                field(3, &native_histogram()),
                field(4, &message(&[field(1, &[3, 4]), vec![0x18, 5]])),
                field(5, &[0x08, 1, 0x18, 4]),
            ]);
            vec![message(&[message(&symbols), field(5, &series)])]
        }
        "otlp_metrics_json" => vec![otlp_metrics_json.into()],
        "otlp_metrics_protobuf" => {
            let pair = message(&[field(1, b"a.b"), field(2, &field(1, b"v"))]);
            let time = |number: u8| vec![number << 3 | 1, 0, 202, 154, 59, 0, 0, 0, 0];
            let long = |number: u8, value: u8| vec![number << 3 | 1, value, 0, 0, 0, 0, 0, 0, 0];
            let double = |number: u8| vec![number << 3 | 1, 0, 0, 0, 0, 0, 0, 0xf0, 0x3f];
            let exemplar =
                message(&[time(2), double(3), field(4, &[2; 8]), field(5, &[1; 16]), field(7, &pair)]);
            let number = message(&[time(2), time(3), double(4), field(5, &exemplar), field(7, &pair)]);
            let ended = message(&[field(7, &pair), time(3), vec![0x40, 1]]);
            let packed = |values: [[u8; 8]; 2]| values.concat();
            let histogram = message(&[
                time(3),
                long(4, 3),
                double(5),
                field(6, &packed([[1, 0, 0, 0, 0, 0, 0, 0], [2, 0, 0, 0, 0, 0, 0, 0]])),
                double(7),
                field(8, &exemplar),
                field(9, &pair),
            ]);
            let buckets = message(&[vec![0x08, 3], field(2, &[1, 0, 0, 0, 2])]);
            let exponential = message(&[
                field(1, &pair),
                time(3),
                long(4, 4),
                double(5),
                vec![0x30, 20],
                long(7, 1),
                field(8, &buckets),
                double(14),
            ]);
            let summary =
                message(&[time(3), long(4, 3), double(5), field(6, &message(&[double(1), double(2)]))]);
            let metric = |kind: u8, point: &[u8], temporality: u8| {
                let data = message(&[field(1, point), vec![0x10, temporality, 0x18, 1]]);
                field(2, &message(&[field(1, b"m.x"), field(2, b"d"), field(3, b"By/s"), field(kind, &data)]))
            };
            let metrics = [
                metric(5, &number, 0),
                metric(7, &number, 1),
                metric(7, &ended, 2),
                metric(9, &histogram, 1),
                metric(10, &exponential, 1),
                metric(11, &summary, 0),
            ];
            let service = message(&[field(1, b"service.name"), field(2, &field(1, b"cart"))]);
            let resource = message(&[field(1, &service), field(1, &pair)]);
            let one = |metrics: &[u8]| field(1, &message(&[field(1, &resource), field(2, metrics)]));
            vec![one(&metrics[..3].concat()), one(&metrics[3..].concat())]
        }
        "loki_protobuf" => {
            let pair =
                |name: &str, value: &str| message(&[field(1, name.as_bytes()), field(2, value.as_bytes())]);
            let entry = message(&[
                field(1, &[0x08, 5, 0x10, 6]),
                field(2, b"line"),
                field(3, &pair("trace_id", "49a51828322183eb20bfe4ace3060000")),
                field(3, &pair("level", "warn")),
            ]);
            vec![field(
                1,
                &message(&[field(1, br#"{app="a\n\u00e9", b=`x`}"#), field(2, &entry), vec![0x18, 9]]),
            )]
        }
        "otlp_json" => vec![otlp_json.into()],
        "otlp_spans_json" => vec![otlp_spans_json.into()],
        "zipkin" => vec![zipkin.into()],
        "jaeger" => {
            let thrift = |kind: u8, number: u8, value: &[u8]| [&[kind, 0, number], value].concat();
            let text =
                |number: u8, text: &[u8]| thrift(11, number, &[&[0, 0, 0, text.len() as u8], text].concat());
            let long = |number: u8, value: i64| thrift(10, number, &value.to_be_bytes());
            let int = |number: u8, value: i32| thrift(8, number, &value.to_be_bytes());
            let structure = |fields: &[Vec<u8>]| [message(fields), vec![0]].concat();
            let list = |number: u8, structs: &[Vec<u8>]| {
                thrift(15, number, &[&[12, 0, 0, 0, structs.len() as u8][..], &message(structs)].concat())
            };
            let tag = |key: &str, value: &str| {
                structure(&[text(1, key.as_bytes()), int(2, 0), text(3, value.as_bytes())])
            };
            let reference = |kind| structure(&[int(1, kind), long(2, 1), long(3, 0), long(4, 5)]);
            let span = structure(&[
                long(1, 1),
                long(2, 9),
                long(3, 2),
                text(5, b"op"),
                list(6, &[reference(0), reference(1)]),
                int(7, 1),
                long(8, 1000),
                long(9, 20),
                list(
                    10,
                    &[
                        tag("span.kind", "server"),
                        tag("k", "v"),
                        structure(&[text(1, b"n"), int(2, 3), long(6, 7)]),
                    ],
                ),
                list(11, &[structure(&[long(1, 1001), list(2, &[tag("event", "e"), tag("a", "b")])])]),
            ]);
            let process = thrift(12, 1, &structure(&[text(1, b"cart"), list(2, &[tag("hostname", "h")])]));
            vec![
                structure(&[process.clone(), list(2, &[span.clone(), structure(&[])])]),
                structure(&[list(2, &[span]), process]),
            ]
        }
        "loki_json" => vec![loki_json.into()],
        "json_lines" => vec![lines.into()],
        "chunk_values" => {
            let bytes = |value: fn(u32) -> f64| (0..300).flat_map(|i| value(i).to_le_bytes()).collect();
            vec![
                bytes(|i| f64::from(i) * 0.25),
                bytes(|i| f64::from(i * i % 101)),
                bytes(|i| f64::from(i).sqrt()),
            ]
        }
        "chunks" => {
            let mut writer = BlockWriter::new();
            for series in 0..6 {
                let values: Vec<f64> =
                    (0..200).map(|i| f64::from(i * (series % 3) + i * i % 7) / 10.0).collect();
                let times: Vec<i64> = (0..200).map(|i| NOW_NS + i * 15_000_000_000).collect();
                writer.push(series, &times, &values).expect("a series");
            }
            vec![writer.finish()]
        }
        // `abc` in gzip, zstd, snappy and zlib.
        _ => vec![
            vec![31, 139, 8, 0, 0, 0, 0, 0, 0, 3, 75, 76, 74, 6, 0, 194, 65, 36, 53, 3, 0, 0, 0],
            vec![40, 181, 47, 253, 32, 3, 25, 0, 0, 97, 98, 99],
            vec![3, 8, 97, 98, 99],
            vec![120, 156, 75, 76, 74, 6, 0, 2, 77, 1, 39],
        ],
    }
}

fn message(parts: &[Vec<u8>]) -> Vec<u8> {
    parts.concat()
}

/// A histogram of remote write.
fn native_histogram() -> Vec<u8> {
    message(&[
        vec![0x08, 6, 0x20, 2, 0x30, 1],
        field(8, &[0x08, 0, 0x10, 1]),
        field(9, &[2]),
        field(11, &[0x08, 3, 0x10, 2]),
        field(12, &[4, 0]),
        vec![0x78, 5],
    ])
}

/// A length-delimited field; seeds are short, so two bytes of length are enough.
fn field(number: u8, bytes: &[u8]) -> Vec<u8> {
    let mut field = vec![number << 3 | 2];
    if bytes.len() >= 128 {
        field.push(bytes.len() as u8 | 0x80);
        field.push((bytes.len() >> 7) as u8);
    } else {
        field.push(bytes.len() as u8);
    }
    field.extend_from_slice(bytes);
    field
}
