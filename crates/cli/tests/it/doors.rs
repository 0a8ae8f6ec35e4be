//! What comes in through each door is visible at once, and bad input is told without losing the good.

use std::process::Stdio;

use serde_json::{Value, json};

use crate::site::{Site, eventually, now_s, trine};

fn otlp(service: &str, bodies: &[&str]) -> String {
    let now = format!("{}000000000", now_s());
    let records: Vec<Value> = bodies
        .iter()
        .map(|body| json!({"timeUnixNano": now, "severityText": "ERROR", "body": {"stringValue": body}}))
        .collect();
    let resource = json!({"attributes": [{"key": "service.name", "value": {"stringValue": service}}]});
    json!({"resourceLogs": [{"resource": resource, "scopeLogs": [{"logRecords": records}]}]}).to_string()
}

fn loki(app: &str, lines: &[&str]) -> String {
    let now = format!("{}000000000", now_s());
    let values: Vec<Value> = lines
        .iter()
        .map(|line| json!([now, line, {"trace_id": "0af7651916cd43dd8448eb211c80319c"}]))
        .collect();
    json!({"streams": [{"stream": {"app": app, "level": "warn"}, "values": values}]}).to_string()
}

#[tokio::test(flavor = "multi_thread")]
async fn every_door_is_visible_to_the_next_query() {
    let dir = tempfile::tempdir().unwrap();
    let site = Site::start(dir.path());
    let (status, text) =
        site.post("/v1/logs", "application/json", otlp("cart", &["otlp one", "otlp two"])).await;
    assert_eq!((status, text.as_str()), (200, "{}"));
    assert_eq!(site.count("SELECT count(*) FROM logs WHERE service = 'cart' AND level = 'ERROR'"), 2);

    let (status, text) =
        site.post("/loki/api/v1/push", "application/json", loki("web", &["loki line"])).await;
    assert_eq!((status, text.as_str()), (204, ""));
    let rows = site.sql("SELECT body, level, trace_id, app FROM logs WHERE service = 'web'");
    assert_eq!(
        rows,
        [
            json!({"body": "loki line", "level": "WARN", "trace_id": "0af7651916cd43dd8448eb211c80319c", "app": "web"})
        ]
    );

    let lines = "{\"message\": \"json line\", \"service\": \"pay\", \"order\": 17}\n";
    let (status, text) = site.post("/api/v1/ingest/jsonlines", "application/x-ndjson", lines).await;
    assert_eq!(status, 200, "{text}");
    assert_eq!(
        site.sql("SELECT body, \"order\" FROM logs WHERE service = 'pay'"),
        [json!({"body": "json line", "order": "17"})]
    );

    let found = site.ok(&["logql", "{service_name=~\".+\"} |= \"line\"", "--output", "jsonl"]);
    assert_eq!(found.lines().count(), 2, "{found}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bad_line_is_named_and_its_neighbours_are_kept() {
    let dir = tempfile::tempdir().unwrap();
    let site = Site::start(dir.path());
    let lines = "{\"message\": \"good\"}\nnot json\n{\"message\": \"also good\"}\n";
    let (status, text) = site.post("/api/v1/ingest/jsonlines", "application/x-ndjson", lines).await;
    let answer: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(status, 400);
    assert_eq!((&answer["accepted"], &answer["rejected"]), (&json!(2), &json!(1)));
    assert_eq!(answer["errors"][0]["line"], 2);
    assert_eq!(site.count("SELECT count(*) FROM logs"), 2);

    let (status, text) = site.post("/v1/logs", "application/json", "{\"resourceLogs\": [").await;
    assert_eq!(status, 400, "{text}");
    let (status, text) = site.post("/loki/api/v1/push", "application/x-protobuf", vec![0xff; 40]).await;
    assert_eq!(status, 400, "{text}");
    let (status, text) = site.post("/v1/logs", "text/html", "x").await;
    assert_eq!(status, 415, "{text}");
    assert_eq!(site.count("SELECT count(*) FROM logs"), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_sent_twice_is_stored_once_also_after_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let mut site = Site::start(dir.path());
    let body = otlp("cart", &["only once"]);
    for _ in 0..2 {
        assert_eq!(site.post("/v1/logs", "application/json", body.clone()).await.0, 200);
    }
    site.kill();
    let site = Site::start(dir.path());
    assert_eq!(site.post("/v1/logs", "application/json", body.clone()).await.0, 200);
    assert_eq!(site.count("SELECT count(*) FROM logs"), 1);

    for key in ["a", "b", "a"] {
        let request = reqwest::Client::new()
            .post(format!("{}/v1/logs", site.http))
            .header("Content-Type", "application/json")
            .header("Idempotency-Key", key)
            .body(body.clone());
        assert!(request.send().await.unwrap().status().is_success());
    }
    assert_eq!(site.count("SELECT count(*) FROM logs"), 3, "two keys, two batches more");
}

/// The same words without a time are said again, not sent again.
#[tokio::test(flavor = "multi_thread")]
async fn a_heartbeat_without_a_time_is_kept_each_time() {
    let dir = tempfile::tempdir().unwrap();
    let site = Site::start(dir.path());
    let dated = "{\"time\": \"2026-01-01T00:00:00Z\", \"message\": \"alive\"}\n";
    let undated = "{\"message\": \"alive\"}\n";
    let mixed = format!("{dated}{undated}");
    for (lines, rows) in [(dated, 1), (undated, 2), (&mixed, 4)] {
        let before = site.count("SELECT count(*) FROM logs");
        for _ in 0..2 {
            assert_eq!(
                site.post("/api/v1/ingest/jsonlines", "application/x-ndjson", lines.to_owned()).await.0,
                200
            );
        }
        assert_eq!(site.count("SELECT count(*) FROM logs") - before, rows, "{lines}");
    }
    for _ in 0..2 {
        let request = reqwest::Client::new()
            .post(format!("{}/api/v1/ingest/jsonlines", site.http))
            .header("Idempotency-Key", "beat-1")
            .body(undated);
        assert!(request.send().await.unwrap().status().is_success());
    }
    assert_eq!(site.count("SELECT count(*) FROM logs"), 8);
}

#[tokio::test(flavor = "multi_thread")]
async fn tenants_do_not_see_each_other() {
    let dir = tempfile::tempdir().unwrap();
    let site = Site::start(dir.path());
    assert_eq!(site.post("/v1/logs", "application/json", otlp("cart", &["mine"])).await.0, 200);
    let other = |args: &[&str]| {
        let output = trine().args(args).args(["--server", &site.http, "--tenant", "other"]).output().unwrap();
        String::from_utf8(output.stdout).unwrap()
    };
    assert_eq!(other(&["sql", "SELECT count(*) AS n FROM logs", "--output", "jsonl"]).trim(), "{\"n\":0}");
    assert_eq!(other(&["logql", "{}", "--output", "jsonl"]), "");
    let bad = trine().args(["sql", "SELECT 1", "--server", &site.http, "--tenant", "a/b"]).output().unwrap();
    assert!(String::from_utf8_lossy(&bad.stderr).contains("\"a/b\""));
}

#[test]
fn a_server_scrapes_another() {
    let dir = tempfile::tempdir().unwrap();
    let target = Site::start(&dir.path().join("target"));
    let address = target.http.strip_prefix("http://").unwrap();
    let file = dir.path().join("prometheus.yml");
    let job =
        json!({"job_name": "trine", "scrape_interval": "1s", "static_configs": [{"targets": [address]}]});
    // JSON is YAML.
    std::fs::write(&file, json!({"scrape_configs": [job]}).to_string()).unwrap();
    let site = Site::start_with(&dir.path().join("data"), &["--scrape-config", file.to_str().unwrap()]);
    eventually("the target is up", || {
        let answer = site.json("/prometheus/api/v1/query", &[("query", "up{job=\"trine\"}")]);
        answer["data"]["result"][0]["value"][1] == "1"
    });
    assert!(site.count("SELECT count(*) FROM metrics WHERE metric = 'trine_store_appended_rows_total'") >= 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tail_sees_lines_as_they_are_stored() {
    use std::io::{BufRead, BufReader};
    let dir = tempfile::tempdir().unwrap();
    let site = Site::start(dir.path());
    let mut tail = trine()
        .args(["tail", "{service_name=\"cart\"} |= \"yes\"", "--output", "jsonl", "--server", &site.http])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(tail.stdout.take().unwrap()).lines();
    // The tail is connected when its first line arrives; until then lines may pass it by.
    let (send, first) = std::sync::mpsc::channel();
    let reader = std::thread::spawn(move || {
        let line = lines.next().unwrap().unwrap();
        send.send(()).unwrap();
        line
    });
    for attempt in 0..200 {
        let body = otlp("cart", &[&format!("no {attempt}"), &format!("yes {attempt}")]);
        assert_eq!(site.post("/v1/logs", "application/json", body).await.0, 200);
        if first.recv_timeout(std::time::Duration::from_millis(50)).is_ok() {
            break;
        }
    }
    let line: Value = serde_json::from_str(&reader.join().unwrap()).unwrap();
    assert!(line["line"].as_str().unwrap().starts_with("yes "), "{line}");
    assert_eq!(line["labels"]["service_name"], "cart");
    tail.kill().unwrap();
    tail.wait().unwrap();
}
