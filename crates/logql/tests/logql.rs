//! Queries against small data, as readable files: `tests/cases/*.logqltest`.
//!
//! A file holds data and queries. Times count from 2026-01-01T00:00:00Z.
//! ```text
//! stream {service.name="web"}
//! 10s INFO [user=7] GET /                  a line: time, level or -, attributes, text
//!
//! query 0s..5m step 1m                     or `query 5m` (instant), `limit 2`, `forward`
//! sum(count_over_time({service_name="web"}[1m]))
//! ----
//! {} 1m=1                                  the answer, up to an empty line
//! ```
//! Run with `UPDATE_EXPECT=1` to write the answers anew.

mod memory;

use std::{fmt::Write as _, path::Path, sync::Arc};

use futures::{StreamExt as _, TryStreamExt as _, executor::block_on};
use memory::Memory;
use proptest::prelude::*;
use trine_logql::{
    Answer, Expr, Label, LogqlError, Request, TailFilter, loki_json, parse, parse_query_duration, run,
    run_stream, write_duration,
};
use trine_model::{Severity, SpanId, TenantId, TraceId};
use trine_schema::{Direction, Labels, LogBatchBuilder, LogRecord};

/// 2026-01-01T00:00:00Z
const BASE: i64 = 1_767_225_600_000_000_000;

fn time(text: &str) -> i64 {
    BASE + parse_query_duration(text).unwrap_or_else(|| panic!("{text:?} is no time"))
}

fn show_time(timestamp: i64) -> String {
    let mut text = String::new();
    write_duration(&mut text, timestamp - BASE).unwrap();
    text
}

/// Reads `name="value"` pairs.
fn labels(text: &str) -> Labels {
    let inner = text.trim().trim_start_matches('{').trim_end_matches('}');
    let pairs: Vec<(&str, &str)> = inner
        .split(", ")
        .filter_map(|pair| pair.split_once('='))
        .map(|(name, value)| (name, value.trim_matches('"')))
        .collect();
    Labels::from_pairs(&pairs)
}

fn add_line(memory: &mut Memory, stream: u32, line: &str) {
    let mut parts = line.splitn(3, ' ');
    let (at, level, rest) = (parts.next().unwrap(), parts.next().unwrap(), parts.next().unwrap_or(""));
    let (attributes, body) = match rest.strip_prefix('[').and_then(|rest| rest.split_once("] ")) {
        Some(found) => found,
        None => ("", rest),
    };
    let mut builder = LogBatchBuilder::new(TenantId::default(), 1, 64);
    let mut record = LogRecord {
        stream,
        timestamp: time(at),
        severity: Severity::from_text(level).unwrap_or_default(),
        ..LogRecord::default()
    };
    for (name, value) in attributes.split(' ').filter_map(|pair| pair.split_once('=')) {
        match name {
            "trace_id" => record.trace_id = Some(value.parse::<TraceId>().unwrap()),
            "span_id" => record.span_id = Some(value.parse::<SpanId>().unwrap()),
            _ => builder.attribute(name, value),
        }
    }
    builder.body(&body.replace("\\n", "\n").replace("\\e", "\u{1b}"));
    builder.push(&record).unwrap();
    memory.batches.push(builder.finish());
}

fn show_labels(labels: &[Label]) -> String {
    let pairs: Vec<String> = labels.iter().map(|label| format!("{}={:?}", label.name, label.value)).collect();
    format!("{{{}}}", pairs.join(", "))
}

fn show(answer: &Result<Answer, LogqlError>) -> String {
    let mut out = String::new();
    match answer {
        Err(error) => writeln!(out, "error: {error}").unwrap(),
        Ok(Answer::Streams(streams)) => {
            for stream in streams {
                writeln!(out, "{}", show_labels(&stream.labels)).unwrap();
                for entry in &stream.entries {
                    writeln!(out, "  {} {}", show_time(entry.timestamp), entry.line.escape_debug()).unwrap();
                }
            }
        }
        Ok(Answer::Matrix(series)) => {
            for one in series {
                write!(out, "{}", one.labels).unwrap();
                for (at, value) in &one.points {
                    write!(out, " {}={value}", show_time(*at)).unwrap();
                }
                out.push('\n');
            }
        }
        Ok(Answer::Vector(samples)) => {
            for sample in samples {
                writeln!(out, "{} {}", sample.labels, sample.value).unwrap();
            }
        }
        Ok(Answer::Scalar(_, value)) => writeln!(out, "{value}").unwrap(),
    }
    if out.is_empty() { "nothing\n".to_owned() } else { out }
}

fn ask(memory: &Arc<Memory>, options: &str, query: &str) -> Result<Answer, LogqlError> {
    let mut words = options.split(' ');
    let (start, end) = match words.next().unwrap().split_once("..") {
        Some((start, end)) => (time(start), time(end)),
        None => (time("0s"), time(options.split(' ').next().unwrap())),
    };
    let mut request = Request::new(TenantId::default(), parse(query)?, start, end);
    while let Some(word) = words.next() {
        match word {
            "step" => request.step = parse_query_duration(words.next().unwrap()),
            "interval" => request.interval = parse_query_duration(words.next().unwrap()),
            "limit" => request.limit = words.next().unwrap().parse().unwrap(),
            "forward" => request.direction = Direction::Forward,
            other => panic!("unknown option {other:?}"),
        }
    }
    block_on(run(memory.clone(), request))
}

/// Runs a file; returns it with the answers that came.
fn run_file(text: &str, rollups: bool) -> String {
    let mut out = String::new();
    let mut memory = Arc::new(Memory { rollups, ..Memory::default() });
    let mut stream = 0;
    let mut lines = text.lines();
    while let Some(line) = lines.next() {
        writeln!(out, "{line}").unwrap();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        if let Some(spelled) = line.strip_prefix("stream ") {
            stream = memory.registry.intern(&TenantId::default(), labels(spelled)).unwrap();
        } else if let Some(options) = line.strip_prefix("query ") {
            let mut query = String::new();
            for line in lines.by_ref().take_while(|line| *line != "----") {
                writeln!(query, "{line}").unwrap();
            }
            for _ in lines.by_ref().take_while(|line| !line.is_empty()) {}
            let answer = ask(&memory, options, &query);
            writeln!(out, "{query}----\n{}", show(&answer)).unwrap();
        } else {
            add_line(Arc::get_mut(&mut memory).expect("no query runs"), stream, line);
        }
    }
    out
}

#[test]
fn cases_give_the_answers_they_show() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/cases");
    let mut files: Vec<_> = std::fs::read_dir(folder).unwrap().map(|file| file.unwrap().path()).collect();
    files.sort();
    assert!(!files.is_empty());
    for file in files {
        let text = std::fs::read_to_string(&file).unwrap();
        let found = run_file(&text, false);
        assert_eq!(found, run_file(&text, true), "{}: roll-ups change the answers", file.display());
        if std::env::var_os("UPDATE_EXPECT").is_some() {
            std::fs::write(&file, found).unwrap();
        } else {
            assert_eq!(found.trim_end(), text.trim_end(), "{}: run with UPDATE_EXPECT=1", file.display());
        }
    }
}

fn memory(text: &str) -> Arc<Memory> {
    let mut memory = Memory::default();
    let mut stream = 0;
    for line in text.lines().map(str::trim).filter(|line| !line.is_empty()) {
        match line.strip_prefix("stream ") {
            Some(spelled) => stream = memory.registry.intern(&TenantId::default(), labels(spelled)).unwrap(),
            None => add_line(&mut memory, stream, line),
        }
    }
    Arc::new(memory)
}

/// 20,000 lines, every hundredth with a needle that only a parser can tell.
fn many_lines() -> Arc<Memory> {
    let mut memory = Memory::default();
    let tenant = TenantId::default();
    let stream = memory.registry.intern(&tenant, Labels::from_pairs(&[("app", "many")])).unwrap();
    let mut builder = LogBatchBuilder::new(tenant, 20_000, 1 << 20);
    for i in 0..20_000i64 {
        builder.body(&format!("n={i} hit={}", i % 100));
        builder
            .push(&LogRecord { stream, timestamp: BASE + i * 10_000_000, ..LogRecord::default() })
            .unwrap();
    }
    memory.batches.push(builder.finish());
    Arc::new(memory)
}

#[test]
fn a_limited_query_reads_about_what_it_returns() {
    let memory = many_lines();
    let answer = ask(&memory, "0s..1h limit 20", r#"{app="many"} | logfmt | hit="7""#).unwrap();
    let Answer::Streams(streams) = answer else { panic!("lines were asked for") };
    let times: Vec<i64> =
        streams.iter().flat_map(|stream| &stream.entries).map(|entry| entry.timestamp).collect();
    assert_eq!(times.len(), 20);
    assert_eq!(times.iter().max(), Some(&(BASE + 19_907 * 10_000_000)));
    assert_eq!(times.iter().min(), Some(&(BASE + 18_007 * 10_000_000)));
    let read = memory.rows_read.load(std::sync::atomic::Ordering::Relaxed);
    assert!(read < 8_000, "{read} rows were read for 20 lines");
}

#[test]
fn an_unlimited_stream_gives_every_line_once_and_in_order() {
    let memory = many_lines();
    for (direction, query) in
        [(Direction::Forward, r#"{app="many"}"#), (Direction::Backward, r#"{} | logfmt | n != """#)]
    {
        let mut request =
            Request::new(TenantId::default(), parse(query).unwrap(), BASE, BASE + 3_600_000_000_000);
        request.limit = usize::MAX;
        request.direction = direction;
        let chunks = run_stream(memory.clone(), request).unwrap();
        let entries: Vec<_> = block_on(chunks.try_collect::<Vec<_>>()).unwrap().concat();
        assert_eq!(entries.len(), 20_000, "{query}");
        let ordered = entries.windows(2).all(|two| match direction {
            Direction::Forward => two[0].timestamp < two[1].timestamp,
            Direction::Backward => two[0].timestamp > two[1].timestamp,
        });
        assert!(ordered, "{query}");
    }
}

#[test]
fn limits_on_memory_and_series_are_kept() {
    let memory = many_lines();
    let query = |text: &str, change: fn(&mut Request)| {
        let mut request =
            Request::new(TenantId::default(), parse(text).unwrap(), BASE, BASE + 3_600_000_000_000);
        change(&mut request);
        block_on(run(memory.clone(), request)).unwrap_err().to_string()
    };
    let series =
        query(r#"count_over_time({app="many"} | logfmt [1h])"#, |request| request.limits.series = 100);
    assert!(series.contains("more than 100 series"), "{series}");
    let held = query(r"quantile_over_time(0.9, {} | logfmt | unwrap n [1h]) by (app)", |request| {
        request.memory_limit = Some(100_000);
    });
    assert!(held.contains("100000 bytes of memory"), "{held}");
    let lines = query(r#"{app="many"}"#, |request| {
        (request.limit, request.memory_limit) = (usize::MAX, Some(100_000));
    });
    assert!(lines.contains("100000 bytes of memory"), "{lines}");
    let late = query(r#"{app="many"} | logfmt | n="x""#, |request| {
        request.deadline = Some(std::time::Instant::now());
    });
    assert!(late.contains("time limit"), "{late}");
}

#[test]
fn counts_by_level_come_from_rollups_when_minutes_fit() {
    let mut memory = Memory { rollups: true, ..Memory::default() };
    let stream = memory.registry.intern(&TenantId::default(), labels(r#"{app="a"}"#)).unwrap();
    add_line(&mut memory, stream, "60s ERROR on the edge");
    add_line(&mut memory, stream, "61s INFO behind it");
    let memory = Arc::new(memory);
    let text = r#"sum by (level) (count_over_time({app="a"}[1m]))"#;
    assert_eq!(
        show(&ask(&memory, "1m..2m step 1m", text)),
        "{level=\"error\"} 1m=1\n{level=\"info\"} 2m=1\n"
    );
    assert_eq!(memory.rows_read.load(std::sync::atomic::Ordering::Relaxed), 0, "no row was read");
}

#[test]
fn tail_filters_live_batches() {
    let memory = memory(
        r#"
        stream {app="web"}
        2s ERROR code=500 b
        1s INFO code=200 a
        stream {app="db"}
        3s ERROR code=500 c
        "#,
    );
    let mut filter =
        TailFilter::new(&parse(r#"{app="web"} | logfmt | code=500 | line_format "{{.code}}!""#).unwrap())
            .unwrap();
    let found: Vec<_> =
        memory.batches.iter().flat_map(|batch| filter.apply(batch, &memory.registry)).collect();
    assert_eq!(found.len(), 1);
    assert_eq!((found[0].timestamp, found[0].line.as_str()), (time("2s"), "500!"));
    let message = loki_json::tail_message(&found, false);
    let value: serde_json::Value = serde_json::from_str(&message).unwrap();
    assert_eq!(value["streams"][0]["stream"]["app"], "web");
    assert!(TailFilter::new(&parse("vector(1)").unwrap()).is_err());
}

#[test]
fn answers_are_written_as_loki_writes_them() {
    let memory = memory(
        r#"
        stream {app="web"}
        1s ERROR [user=7] say "hi"\n	x
        "#,
    );
    let stats = trine_schema::ScanStats::default().snapshot();
    let json = |options: &str, query: &str, categorize| -> serde_json::Value {
        let text = loki_json::query_response(&ask(&memory, options, query).unwrap(), &stats, categorize);
        serde_json::from_str(&text).unwrap_or_else(|e| panic!("{e}: {text}"))
    };
    let plain = json("1m", "{}", false);
    assert_eq!(plain["status"], "success");
    assert_eq!(plain["data"]["resultType"], "streams");
    let stream = &plain["data"]["result"][0];
    assert_eq!(stream["stream"]["user"], "7");
    assert_eq!(stream["stream"]["detected_level"], "error");
    assert_eq!(stream["values"][0], serde_json::json!(["1767225601000000000", "say \"hi\"\n\tx"]));
    assert!(plain["data"]["stats"]["summary"]["execTime"].is_number());
    let categorized = json("1m", "{} | label_format a=\"b\"", true);
    assert_eq!(categorized["data"]["encodingFlags"][0], "categorize-labels");
    let stream = &categorized["data"]["result"][0];
    assert!(stream["stream"].get("user").is_none());
    assert_eq!(stream["values"][0][2]["structuredMetadata"]["user"], "7");
    assert_eq!(stream["values"][0][2]["parsed"]["a"], "b");
    let vector = json("1m", "sum(count_over_time({}[1m])) / 4", false);
    assert_eq!(vector["data"]["result"][0]["value"], serde_json::json!([1_767_225_660, "0.25"]));
    let matrix = json("1s..2s step 500ms", "count_over_time({}[1s])", false);
    assert_eq!(matrix["data"]["result"][0]["values"][1], serde_json::json!([1_767_225_601.5, "1"]));
    assert_eq!(json("1m", "1/0", false)["data"]["result"][1], "+Inf");
}

/// Queries of Loki's documentation (log queries, metric queries, query examples, ip matching).
#[test]
fn queries_of_the_documentation_parse() {
    for query in [
        r#"{container="query-frontend",namespace="loki-dev"} |= "metrics.go" | logfmt | duration > 10s and throughput_mb < 500"#,
        r"{name !~ `mysql-\d+`}",
        r#"{instance=~"kafka-[23]",name="kafka"} != "kafka.server:type=ReplicaManager""#,
        r"{name=`cassandra`} |~ `error=\w+`",
        r#"{a="b"} | duration >= 20ms or size == 20KB and method!~"2..""#,
        r#"{a="b"} | duration >= 20ms or size == 20KB , method!~"2..""#,
        r#"{a="b"} | duration >= 20ms or size == 20KB  method!~"2..""#,
        r#"{a="b"} | duration >= 20ms or (size == 20KB and method!~"2..")"#,
        r#"{a="b"} | json first_server="servers[0]", ua="request.headers[\"User-Agent\"]""#,
        r#"{a="b"} | json servers"#,
        r#"{a="b"} | logfmt --keep-empty --strict host, fwd_ip="fwd""#,
        r#"{job="loki-ops/query-frontend"} | logfmt | line_format "{{.msg}}" | regexp "(?P<method>\\w+) (?P<path>[\\w|/]+) \\((?P<status>\\d+?)\\) (?P<duration>.*)""#,
        r#"{container="frontend"} | logfmt | line_format "{{.ip}} {{.status}} {{div .duration 1000}}""#,
        r#"{job="varlogs"}|json|drop level, path, app=~"some-api.*""#,
        r#"{job="varlogs"}|json|keep level, method="GET""#,
        "sum by (host) (rate({job=\"mysql\"} |= \"error\" != \"timeout\" | json | duration > 10s [1m]))",
        r#"avg(rate(({job="nginx"} |= "GET" | json | path="/home")[10s])) by (region)"#,
        r#"topk(10,sum(rate({region="us-east1"}[5m])) by (name))"#,
        r#"quantile_over_time(0.99, {cluster="ops-tools1",container="ingress-nginx"} | json | __error__ = "" | unwrap request_time [1m]) by (path)"#,
        r#"sum by (org_id) ( sum_over_time( {cluster="ops-tools1",container="loki-dev"} |= "metrics.go" | logfmt | unwrap bytes_processed [1m]) )"#,
        r#"count_over_time({job="mysql"}[5m] offset 5m)"#,
        r#"label_replace(rate({job="api-server",service="a:c"} |= "err" [1m]), "foo", "$1", "service", "(.*):.*")"#,
        r#"sum by(machine) (count_over_time({app="foo"}[1m])) / on() sum(count_over_time({app="foo"}[1m]))"#,
        r#"max by(machine) (count_over_time({app="foo"}[1m])) > bool ignoring(machine) avg(count_over_time({app="foo"}[1m]))"#,
        r#"sum by (app, status) (rate({job="http-server"} | json [5m])) / on (app) group_left sum by (app) (rate({job="http-server"} | json [5m]))"#,
        r#"sum by (user, namespace) (rate({job="events"} | logfmt | discarded="true" [5m])) * on (user) group_left(organization) max_over_time({job="cost-calculator"} | logfmt | unwrap cost [5m]) by (user, organization)"#,
        "{app=\"foo\"}\n  | json\n  # this line will be ignored\n  | bar=\"baz\" # this checks if bar = \"baz\"",
        r#"{service_name=`distributor`} !> `<_> caller=http.go:194 level=debug <_> msg="POST /push.v1.PusherService/Push <_>`"#,
        r#"{job_name="myapp"} | logfmt | addr = ip("192.168.4.0/24") or addr = ip("10.10.15.0/24")"#,
        r#"{job_name="myapp"} != ip("192.168.4.5-192.168.4.20")"#,
        r#"sum(count_over_time({namespace="traefik"}[5m])) # will return nothing
              or
            vector(0) # will return 0"#,
        r#"{cluster="ops-tools1", name="querier"} |= "metrics.go" != "loki-canary" | logfmt | query != "" | label_format query="{{ Replace .query \"\\n\" \"\" -1 }}" | line_format "{{ .ts}}\t{{.duration}}\ttraceID = {{.traceID}}\t{{ printf \"%-100.100s\" .query }} ""#,
        r#"{job="loki/querier"} | label_format nowEpoch=`{{(unixEpoch now)}}`,createDateEpoch=`{{unixEpoch (toDate "2006-01-02" .createDate)}}` | label_format dateTimeDiff=`{{sub .nowEpoch .createDateEpoch}}` | dateTimeDiff > 86400"#,
        r#"{job="xyzlog"} | line_format `{{ __line__ | count "XYZ"}}`"#,
        r#"approx_topk(3, sum by (a) (rate({a="b"}[1m])))"#,
    ] {
        let expr = parse(query).unwrap_or_else(|error| panic!("{query}\n{error}"));
        let text = expr.to_string();
        assert_eq!(parse(&text), Ok(expr), "{query}\n{text}");
    }
}

#[test]
fn deep_nesting_is_an_error() {
    let deep = |count: usize| format!("{}1{}", "(".repeat(count), ")".repeat(count));
    assert!(parse(&deep(20)).is_ok());
    for query in [
        deep(100_000),
        format!("{{}} | {}a=1", "(".repeat(60_000)),
        format!("1{}", "+1".repeat(50_000)),
        format!("{{}} | a=1{}", " or a=1".repeat(10_000)),
        format!("{}{{}}", "sum(".repeat(10_000)),
        format!("{{}} | line_format `{{{{ {}1 }}}}`", "(".repeat(20_000)),
        format!("{{}} | line_format `{}`", "{{if .a}}".repeat(10_000)),
    ] {
        assert!(parse(&query).is_err(), "{}", &query[..40]);
    }
}

/// Pieces of queries; random sequences of them reach deeper than random characters.
const PIECES: [&str; 60] = [
    "{",
    "}",
    "(",
    ")",
    "[",
    "]",
    "a",
    "level",
    "=",
    "!=",
    "=~",
    "|=",
    "|~",
    "!~",
    "|>",
    "!>",
    "|",
    "\"x\"",
    "`{{.a}}`",
    "5m",
    "20MB",
    "1",
    ".5",
    "-",
    "+",
    "*",
    "/",
    "^",
    "%",
    "==",
    ">",
    ">=",
    ",",
    " or ",
    " and ",
    " unless ",
    "json",
    "logfmt",
    "--strict",
    "unwrap",
    "duration",
    "rate",
    "count_over_time",
    "sum",
    "topk",
    "by",
    "without",
    "bool",
    "on",
    "group_left",
    "offset",
    "label_format",
    "line_format",
    "keep",
    "drop",
    "pattern",
    "\"<a> <b>\"",
    "ip",
    "{a=\"b\"}",
    "#\n",
];

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn no_text_makes_the_parser_panic(text in ".{0,60}", pieces in prop::collection::vec(0..PIECES.len(), 0..24)) {
        let _ = parse(&text);
        let joined: String = pieces.iter().map(|at| PIECES[*at]).collect::<Vec<_>>().join(" ");
        if let Ok(expr) = parse(&joined) {
            let shown = expr.to_string();
            prop_assert_eq!(parse(&shown), Ok(expr), "{}", shown);
        }
        let _ = parse(&format!("{{}} | line_format {text:?}"));
        let _ = parse(&format!("{{}} | line_format `{{{{{text}}}}}`"));
        let _ = parse(&format!("{{}} |~ {text:?} | pattern {text:?} | json a={text:?} | a = ip({text:?})"));
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn no_line_makes_a_stage_panic(line in "[\\PC\\n{}\"\\\\:,\\[\\] =<>]{0,60}") {
        let mut memory = Memory::default();
        let stream = memory.registry.intern(&TenantId::default(), labels(r#"{app="a"}"#)).unwrap();
        let mut builder = LogBatchBuilder::new(TenantId::default(), 1, 64);
        builder.body(&line);
        builder.push(&LogRecord { stream, timestamp: BASE, ..LogRecord::default() }).unwrap();
        memory.batches.push(builder.finish());
        let memory = Arc::new(memory);
        for stages in [
            "| json", "| json a=\"b[0].c\"", "| logfmt", "| logfmt --strict --keep-empty", "| unpack", "| decolorize",
            "| pattern `<a> <b>`", "| regexp `(?P<a>.)`", "|= ip(\"1.2.3.4\")", "|> \"<_> a\"",
            "| line_format `{{ __line__ | title | trunc 3 | urldecode }}{{ __line__ | b64dec }}{{ printf __line__ 1 }}`",
            "| line_format `{{ unixToTime __line__ }}`", "| line_format `{{ toDate \"2006-01-02\" __line__ }}`",
        ] {
            ask(&memory, "1m", &format!("{{}} {stages}")).unwrap();
        }
    }
}

#[test]
fn an_expression_is_its_own_text() {
    let expr = parse(r#"sum(rate({a="b"}|="x"|json|c>5s[1m]))by(d)"#).unwrap();
    assert!(matches!(expr, Expr::Metric(_)));
    assert_eq!(expr.to_string(), r#"sum by (d) (rate({a="b"} |= "x" | json | c > 5s [1m]))"#);
}

#[test]
fn a_dropped_stream_stops() {
    let memory = many_lines();
    let query = parse(r#"{app="many"} | logfmt"#).unwrap();
    let mut request = Request::new(TenantId::default(), query, BASE, BASE + 3_600_000_000_000);
    request.limit = usize::MAX;
    let mut chunks = run_stream(memory.clone(), request).unwrap();
    assert!(block_on(chunks.next()).is_some());
    drop(chunks);
    assert!(memory.rows_read.load(std::sync::atomic::Ordering::Relaxed) < 20_000);
}

/// Prints nanoseconds per line; run with `--release -- --ignored --nocapture`.
#[test]
#[ignore = "a measurement, not a check"]
fn measure_stages() {
    let memory = Memory::default();
    let tenant = TenantId::default();
    let stream =
        memory.registry.intern(&tenant, Labels::from_pairs(&[("app", "a"), ("pod", "p-1")])).unwrap();
    let rows = 100_000i64;
    for (kind, stages) in [
        (0, r#"|= "nothing""#),
        (0, r#"|~ "no+thing""#),
        (0, r#"| logfmt | code="7000""#),
        (0, r#"| pattern "ts=<_> level=<level> <_>" | level="none""#),
        (1, r#"| json | req_code="7000""#),
        (1, r#"| json c="req.code" | c="7000""#),
        (1, r#"| json | line_format "{{.msg}}" |= "nothing""#),
    ] {
        let mut builder = LogBatchBuilder::new(tenant.clone(), rows as usize, 20 << 20);
        for i in 0..rows {
            builder.body(&if kind == 0 {
                format!("ts=2026-01-01T00:00:{i} level=info method=GET path=/api/v1/items/{i} code={} msg=\"request done in time\" size={i}", i % 1000)
            } else {
                format!(r#"{{"ts":"2026-01-01T00:00:{i}","level":"info","req":{{"method":"GET","path":"/api/v1/items/{i}","code":{}}},"msg":"request done \"in\" time"}}"#, i % 1000)
            });
            builder.push(&LogRecord { stream, timestamp: BASE + i, ..LogRecord::default() }).unwrap();
        }
        let batch = builder.finish();
        let mut filter = TailFilter::new(&parse(&format!("{{}} {stages}")).unwrap()).unwrap();
        filter.apply(&batch, &memory.registry);
        let start = std::time::Instant::now();
        let found = filter.apply(&batch, &memory.registry).len();
        println!("{:5} ns/line, {found} found: {stages}", start.elapsed().as_nanos() / rows as u128);
    }
}
