//! Prometheus itself sends to Trine and reads from it.

use std::{
    net::TcpListener,
    process::{Child, Command, Stdio},
};

use serde_json::{Value, json};

use crate::site::{Site, client, eventually};

/// A Prometheus server; killed when dropped.
struct Prometheus {
    process: Child,
    url: String,
}

impl Drop for Prometheus {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Scrapes Trine's own `/metrics`, writes them to Trine and reads what it does not have itself from there.
fn prometheus(site: &Site, dir: &std::path::Path) -> Prometheus {
    let binary = client("TRINE_PROMETHEUS");
    let target = site.http.strip_prefix("http://").unwrap();
    let api = format!("{}/prometheus/api/v1", site.http);
    let config = json!({
        "global": {"scrape_interval": "1s"},
        "scrape_configs": [{"job_name": "trine", "static_configs": [{"targets": [target]}]}],
        "remote_write": [{"url": format!("{api}/write"), "queue_config": {"batch_send_deadline": "1s"}}],
        "remote_read": [{"url": format!("{api}/read"), "read_recent": true}],
    });
    // JSON is YAML.
    std::fs::write(dir.join("prometheus.yml"), config.to_string()).unwrap();
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let process = Command::new(binary)
        .arg(format!("--config.file={}", dir.join("prometheus.yml").display()))
        .arg(format!("--storage.tsdb.path={}", dir.join("tsdb").display()))
        .arg(format!("--web.listen-address=127.0.0.1:{port}"))
        .stderr(Stdio::null())
        .spawn()
        .expect("Prometheus starts");
    Prometheus { process, url: format!("http://127.0.0.1:{port}") }
}

/// The value of the one series a query gives, asked of Trine or of Prometheus.
async fn value(api: &str, query: &str, time: &str) -> Option<f64> {
    let request =
        reqwest::Client::new().get(format!("{api}/api/v1/query")).query(&[("query", query), ("time", time)]);
    let answer: Value = request.send().await.ok()?.json().await.ok()?;
    answer["data"]["result"][0]["value"][1].as_str()?.parse().ok()
}

#[test]
fn prometheus_writes_to_trine_and_reads_from_it() {
    let dir = tempfile::tempdir().unwrap();
    let site = Site::start(&dir.path().join("data"));
    let runtime = tokio::runtime::Runtime::new().unwrap();
    // A series of long ago, which only Trine has.
    let point = json!({"timeUnixNano": "1700000000000000000", "asDouble": 42.5});
    let metric = json!({"name": "answer", "gauge": {"dataPoints": [point]}});
    let body = json!({"resourceMetrics": [{"scopeMetrics": [{"metrics": [metric]}]}]}).to_string();
    let sent = reqwest::Client::new()
        .post(format!("{}/v1/metrics", site.http))
        .header("Content-Type", "application/json")
        .body(body);
    assert!(runtime.block_on(async { sent.send().await.unwrap().status() }).is_success());

    let server = prometheus(&site, dir.path());
    let trine = format!("{}/prometheus", site.http);
    let now = || crate::site::now_s().to_string();
    eventually("what Prometheus scrapes is in Trine", || {
        let at = now();
        let up = value(&trine, "sum_over_time(up{job=\"trine\"}[5m])", &at);
        runtime.block_on(up).is_some_and(|scrapes| scrapes >= 3.0)
    });
    let rows = runtime.block_on(value(&trine, "trine_store_appended_rows_total", &now()));
    assert!(rows.is_some_and(|rows| rows >= 1.0), "{rows:?}");
    let answer = runtime.block_on(value(&server.url, "answer * 2", "1700000010"));
    assert_eq!(answer, Some(85.0), "Prometheus reads Trine's series");
}
