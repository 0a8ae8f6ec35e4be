//! What comes in through each door is visible at once, and bad input is told without losing the good.

use std::{io::Write as _, process::Stdio};

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

/// Guarantee: what cannot be scraped is told where the server is started, and where its configuration is read again.
#[test]
fn what_cannot_be_scraped_is_told() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("scrape.yml");
    let write = |targets: &str| {
        let text = format!("scrape_configs:\n- job_name: a\n  static_configs:\n  - targets: [{targets}]\n");
        std::fs::write(&file, text).unwrap();
    };
    let config = file.to_str().unwrap();
    write("\"a b:9\", \"127.0.0.1:1\"");
    let args = ["server", "--http", "127.0.0.1:0", "--scrape-config", config, "--data-dir"];
    let output = trine().args(args).arg(dir.path().join("none")).output().unwrap();
    let told = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success() && told.contains("scrape.yml:4:15: target \"a b:9\": "), "{told}");

    write("\"127.0.0.1:1\"");
    let site = Site::start_with(&dir.path().join("data"), &["--scrape-config", config]);
    let text = |path: &str| {
        let request = reqwest::get(format!("{}{path}", site.http));
        let text = async { request.await.unwrap().text().await.unwrap() };
        tokio::runtime::Runtime::new().unwrap().block_on(text)
    };
    let successful = "trine_scrape_config_last_reload_successful ";
    assert!(text("/metrics").contains(&format!("{successful}1\n")));
    write("\"x:99999\"");
    let hangup = || {
        let pid = site.pid().to_string();
        assert!(std::process::Command::new("kill").args(["-HUP", &pid]).status().unwrap().success());
    };
    hangup();
    eventually("the refusal is shown", || text("/metrics").contains(&format!("{successful}0\n")));
    let health = text("/health");
    assert!(health.contains("degraded") && health.contains("x:99999"), "{health}");
    write("\"127.0.0.1:1\"");
    hangup();
    eventually("all is well again", || text("/metrics").contains(&format!("{successful}1\n")));
    assert!(text("/health").contains("\"ready\""));
}

/// `OUT_OF_RANGE` and a bare `RESOURCE_EXHAUSTED` would make senders repeat the same batch for ever.
#[tokio::test(flavor = "multi_thread")]
async fn a_grpc_message_over_the_limit_is_an_invalid_argument() {
    const LIMIT: usize = 64 << 20;
    let dir = tempfile::tempdir().unwrap();
    let site = Site::start(dir.path());
    let message = |flags: u8, told: usize, bytes: &[u8]| {
        [&[flags][..], &u32::try_from(told).unwrap().to_be_bytes(), bytes].concat()
    };
    let mut packed = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    packed.write_all(&vec![0; LIMIT + 1]).unwrap();
    let packed = packed.finish().unwrap();
    let bodies = [message(0, LIMIT + 1, b"less than it says"), message(1, packed.len(), &packed)];
    // The answer to a call that fails is a head alone, so HTTP/1.1 shows it too.
    for service in ["logs.v1.LogsService", "trace.v1.TraceService", "metrics.v1.MetricsService"] {
        for body in &bodies {
            let request = reqwest::Client::new()
                .post(format!("{}/opentelemetry.proto.collector.{service}/Export", site.http))
                .header("Content-Type", "application/grpc")
                .header("grpc-encoding", "gzip")
                .body(body.clone());
            let answer = request.send().await.unwrap();
            let header = |name: &str| answer.headers()[name].to_str().unwrap().to_owned();
            assert_eq!(header("grpc-status"), "3", "{}", header("grpc-message"));
            assert!(
                header("grpc-message").contains("send%20smaller%20batches"),
                "{}",
                header("grpc-message")
            );
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn media_types_are_read_without_case() {
    let dir = tempfile::tempdir().unwrap();
    let site = Site::start(dir.path());
    let line = otlp("cart", &["one"]);
    assert_eq!(site.post("/v1/logs", "application/JSON; charset=utf-8", line).await.0, 200);
    assert_eq!(site.post("/loki/api/v1/push", "Application/Json", loki("web", &["two"])).await.0, 204);
    let query = "{\"query\": \"SELECT count(*) AS n FROM logs\", \"format\": \"jsonl\"}";
    assert_eq!(site.post("/api/v1/sql", "Application/JSON", query).await, (200, "{\"n\":2}\n".to_owned()));
    let form = "query=vector(7)&time=1";
    let (status, text) =
        site.post("/prometheus/api/v1/query", "Application/x-www-form-URLENCODED", form).await;
    assert!(status == 200 && text.contains("\"7\""), "{text}");
}
