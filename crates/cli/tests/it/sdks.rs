//! OpenTelemetry's SDKs of Node and Java tell one story over every transport they have (`node/otel.js`,
//! `java/Otel.java`), and every record of it is found again as `story/` has it: whoever told it, over whatever, with
//! delta or cumulative temporality. `UPDATE_EXPECT=1` writes those files anew.

use std::{path::Path, process::Command};

use expect_test::{ExpectFile, expect_file};
use serde_json::{Value, json};

use crate::site::{Site, client, now_s, run_client};

const SPANS: &str = "SELECT operation, kind, status, status_message, start, \"end\", trace_id, span_id, \
    parent_span_id, trace_state, trace_flags, scope_name, labels, attributes, events, links \
    FROM spans WHERE service_name = ";
/// Without the one that only Java's SDK sends without a time.
const LOGS: &str = "SELECT * EXCLUDE (stream_id) FROM logs WHERE body <> 'no time of its own' AND service = ";

/// What one service told. Its span and trace ids begin with its number eight times.
struct Told<'a> {
    site: &'a Site,
    service: &'a str,
    prefix: String,
}

impl<'a> Told<'a> {
    fn by(site: &'a Site, service: &'a str, number: usize) -> Self {
        Self { site, service, prefix: number.to_string().repeat(8) }
    }

    /// Text without what tells this service from others.
    fn check(&self, text: &str, want: &ExpectFile) {
        // A scope had another name once, which the exporter to Jaeger still uses.
        let text = text.replace(concat!("otel.", "library."), "otel.scope.");
        want.assert_eq(&text.replace(self.service, "SERVICE").replace(&self.prefix, "--------"));
    }

    fn rows(&self, query: &str, order: &str, want: &ExpectFile) {
        let query = format!("{query}'{}' ORDER BY {order}", self.service);
        self.check(&self.site.ok(&["sql", &query, "--output", "jsonl"]), want);
    }

    fn spans(&self, want: &ExpectFile) {
        self.rows(SPANS, "trace_id, start", want);
    }

    /// Every series of both instances.
    fn metrics(&self) {
        for instance in ["cumulative", "delta"] {
            let query = format!(
                "{{job=\"shop/{}\",instance=\"{instance}\",__name__!~\"otel_sdk_.*\"}}",
                self.service
            );
            let answer = self.site.json("/prometheus/api/v1/query", &[("query", &query)]);
            let result = answer["data"]["result"].as_array().unwrap_or_else(|| panic!("{query}: {answer}"));
            let line = |series: &Value| {
                let value = series.get("value").or(series.get("histogram")).map(|sample| &sample[1]);
                format!("{} {}\n", series["metric"], value.unwrap_or(&Value::Null))
            };
            let mut lines: Vec<String> = result.iter().map(line).collect();
            lines.sort_unstable();
            let text = lines.concat().replace(&format!("\"instance\":\"{instance}\""), "\"instance\":\"…\"");
            self.check(&text, &expect_file!["story/metrics.txt"]);
        }
    }

    /// The trace of two links, as Tempo tells it.
    fn tempo(&self) {
        let path = format!("/tempo/api/traces/{}000000000000000000000002", self.prefix);
        let batch = &self.site.json(&path, &[])["batches"][0]["scopeSpans"][0];
        assert_eq!(batch["scope"], json!({"name": "shop", "version": "1.2"}));
        let span = &batch["spans"][0];
        assert_eq!(
            (&span["name"], &span["kind"], span.get("parentSpanId")),
            (&json!("mail"), &json!("SPAN_KIND_PRODUCER"), None)
        );
        let text = |value: &str| json!({"stringValue": value});
        assert_eq!(
            span["links"][0]["attributes"],
            json!([{"key": "number", "value": text("1")}, {"key": "reason", "value": text("follows")}])
        );
        assert_eq!(span["links"].as_array().map(Vec::len), Some(2));
    }
}

#[test]
fn nodes_opentelemetry_sdk_tells_its_story() {
    let modules = client("TRINE_TEST_NODE_MODULES");
    let dir = tempfile::tempdir().unwrap();
    let site = Site::start(dir.path());
    run_client(Command::new("node").env("NODE_PATH", modules).arg(script("node/otel.js")).args([
        &format!("http://{}", site.otlp_grpc),
        &site.otlp_http,
        &site.http,
    ]));
    for (number, transport) in ["grpc", "proto", "http"].into_iter().enumerate() {
        let service = format!("node-{transport}");
        let told = Told::by(&site, &service, number + 1);
        told.spans(&expect_file!["story/spans.jsonl"]);
        told.rows(LOGS, "observed_timestamp", &expect_file!["story/logs.jsonl"]);
        told.metrics();
        told.tempo();
    }
    Told::by(&site, "node-zipkin", 4).spans(&expect_file!["story/zipkin.jsonl"]);
    Told::by(&site, "node-jaeger", 5).spans(&expect_file!["story/jaeger.jsonl"]);
}

#[test]
fn javas_opentelemetry_sdk_tells_its_story() {
    let jars = client("TRINE_TEST_JARS");
    let dir = tempfile::tempdir().unwrap();
    let site = Site::start(dir.path());
    run_client(
        Command::new("java")
            .args(["-XX:TieredStopAtLevel=1", "-Dfile.encoding=UTF-8", "-cp"])
            .arg(jars.join("*"))
            .arg(script("java/Otel.java"))
            .args([&format!("http://{}", site.otlp_grpc), &site.otlp_http]),
    );
    for (number, transport) in ["grpc", "proto"].into_iter().enumerate() {
        let service = format!("java-{transport}");
        let told = Told::by(&site, &service, number + 1);
        told.spans(&expect_file!["story/spans.jsonl"]);
        told.rows(LOGS, "observed_timestamp", &expect_file!["story/logs.jsonl"]);
        let untimed =
            "SELECT timestamp = observed_timestamp AS same FROM logs WHERE body = 'no time of its own'";
        assert_eq!(site.sql(untimed), [json!({"same": true}), json!({"same": true})]);
        told.metrics();
        told.tempo();
        for instance in ["cumulative", "delta"] {
            exemplars(&site, &service, instance, &told.prefix);
        }
    }
}

/// Each bucket keeps its exemplars, both measurements of half a second one each.
fn exemplars(site: &Site, service: &str, instance: &str, prefix: &str) {
    let query = format!("order_duration_seconds_bucket{{job=\"shop/{service}\",instance=\"{instance}\"}}");
    let (start, end) = ((now_s() - 600).to_string(), (now_s() + 1).to_string());
    let answer = site
        .json("/prometheus/api/v1/query_exemplars", &[("query", &query), ("start", &start), ("end", &end)]);
    let mut found = Vec::new();
    for series in answer["data"].as_array().unwrap_or_else(|| panic!("{answer}")) {
        for exemplar in series["exemplars"].as_array().into_iter().flatten() {
            let labels = &exemplar["labels"];
            assert_eq!(labels["trace_id"], format!("{prefix}000000000000000000000001"), "{exemplar}");
            assert_eq!(labels["span_id"], format!("{prefix}00000001"), "{exemplar}");
            found.push((series["seriesLabels"]["le"].clone(), exemplar["value"].clone()));
        }
    }
    found.sort_by_key(|(le, value)| (le.to_string(), value.to_string()));
    let want = [("+Inf", "50"), ("0.1", "0.05"), ("1", "0.5"), ("1", "0.5"), ("10", "5")];
    assert_eq!(found, want.map(|(le, value)| (json!(le), json!(value))), "{service} {instance}");
}

fn script(name: &str) -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it").join(name)
}
