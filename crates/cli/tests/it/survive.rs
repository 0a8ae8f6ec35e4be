//! What must not lose or double a line, a span or a sample: kill -9 under load, a full disk, a second server, too large
//! a question.

use std::{
    collections::BTreeSet,
    path::Path,
    process::Command,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use serde_json::json;

use crate::site::{Site, eventually, now_s, trine};

/// Kills of the test below.
const KILLS: usize = 24;
/// Senders at a time.
const SENDERS: u64 = 4;
/// Records of one batch.
const BATCH: u64 = 50;

/// One batch: records `first..first + BATCH` of one signal, which hold their numbers, and where it goes.
fn batch(first: u64) -> (&'static str, String) {
    let now = format!("{}000000000", now_s());
    let numbers = first..first + BATCH;
    match first / BATCH % 3 {
        0 => {
            let record = |n| json!({"timeUnixNano": now, "body": {"stringValue": format!("{n}")}});
            let records: Vec<_> = numbers.map(record).collect();
            ("logs", json!({"resourceLogs": [{"scopeLogs": [{"logRecords": records}]}]}).to_string())
        }
        1 => {
            let span = |n| {
                json!({"traceId": format!("{:032x}", first + 1), "spanId": format!("{:016x}", n + 1), "name": format!("{n}"),
                    "startTimeUnixNano": now, "endTimeUnixNano": now})
            };
            let spans: Vec<_> = numbers.map(span).collect();
            ("traces", json!({"resourceSpans": [{"scopeSpans": [{"spans": spans}]}]}).to_string())
        }
        _ => {
            // A series per batch, so that each sample has a time of its own.
            let attributes = json!([{"key": "batch", "value": {"stringValue": format!("{first}")}}]);
            let point = |n: u64| {
                let at = format!("{}{:03}000000", now_s(), n - first);
                json!({"timeUnixNano": at, "asDouble": n as f64, "attributes": attributes})
            };
            let points: Vec<_> = numbers.map(point).collect();
            let metric = json!({"name": "numbers", "gauge": {"dataPoints": points}});
            ("metrics", json!({"resourceMetrics": [{"scopeMetrics": [{"metrics": [metric]}]}]}).to_string())
        }
    }
}

async fn send(url: &str, first: u64) -> bool {
    let (signal, body) = batch(first);
    let request = reqwest::Client::new()
        .post(format!("{url}/v1/{signal}"))
        .header("Content-Type", "application/json")
        .header("Idempotency-Key", format!("batch-{first}"))
        .timeout(Duration::from_secs(30))
        .body(body);
    matches!(request.send().await, Ok(response) if response.status().is_success())
}

/// Guarantee: after kill -9 at a random moment every acknowledged record is there, and a batch sent
/// again because its acknowledgement was lost is stored once.
#[tokio::test(flavor = "multi_thread")]
async fn kill_9_under_load_loses_and_doubles_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let next = Arc::new(AtomicU64::new(0));
    let acknowledged = Arc::new(Mutex::new(BTreeSet::new()));
    let unanswered = Arc::new(Mutex::new(BTreeSet::new()));
    for round in 0..KILLS {
        // Small memtables, so that kills also hit flushes and compactions.
        let mut site = Site::start_with(dir.path(), &["--memtable-bytes", "256KiB"]);
        let stop = Arc::new(AtomicBool::new(false));
        let again: Vec<u64> = std::mem::take(&mut *unanswered.lock().unwrap()).into_iter().collect();
        let again = Arc::new(Mutex::new(again));
        let senders: Vec<_> = (0..SENDERS)
            .map(|_| {
                let (url, stop, next, again) = (site.http.clone(), stop.clone(), next.clone(), again.clone());
                let (acknowledged, unanswered) = (acknowledged.clone(), unanswered.clone());
                tokio::spawn(async move {
                    while !stop.load(Relaxed) {
                        let old = again.lock().unwrap().pop();
                        let first = old.unwrap_or_else(|| next.fetch_add(BATCH, Relaxed));
                        let done = send(&url, first).await;
                        let set = if done { &acknowledged } else { &unanswered };
                        set.lock().unwrap().insert(first);
                    }
                    unanswered.lock().unwrap().extend(again.lock().unwrap().drain(..));
                })
            })
            .collect();
        // Moments spread over the first half second, the same in every run.
        tokio::time::sleep(Duration::from_millis(20 + (round as u64 * 137) % 500)).await;
        site.kill();
        stop.store(true, Relaxed);
        for sender in senders {
            sender.await.unwrap();
        }
    }
    let site = Site::start(dir.path());
    let left: Vec<u64> = unanswered.lock().unwrap().iter().copied().collect();
    for first in left {
        assert!(send(&site.http, first).await);
        acknowledged.lock().unwrap().insert(first);
    }
    let want: BTreeSet<u64> =
        acknowledged.lock().unwrap().iter().flat_map(|first| *first..first + BATCH).collect();
    assert!(want.len() > 1_000, "the load was too small to prove anything: {}", want.len());
    let mut rows = site.sql("SELECT CAST(body AS BIGINT) AS n FROM logs");
    rows.extend(site.sql("SELECT CAST(operation AS BIGINT) AS n FROM spans"));
    rows.extend(site.sql("SELECT CAST(value AS BIGINT) AS n FROM metrics WHERE metric = 'numbers'"));
    let found: BTreeSet<u64> = rows.iter().map(|row| row["n"].as_u64().unwrap()).collect();
    assert_eq!(rows.len(), found.len(), "records were stored twice");
    assert_eq!(found.len(), want.len());
    assert!(found == want);
    assert!(site.ok(&["verify"]).starts_with("all is well"));
}

#[test]
fn a_second_server_on_the_same_directory_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let site = Site::start(dir.path());
    let second = trine()
        .args(["server", "--http", "127.0.0.1:0", "--otlp-grpc", "127.0.0.1:0", "--otlp-http", "127.0.0.1:0"])
        .arg("--data-dir")
        .arg(dir.path())
        .output()
        .unwrap();
    let message = String::from_utf8_lossy(&second.stderr);
    assert_eq!(second.status.code(), Some(1));
    assert!(message.contains(&format!("process {}", site.pid())), "{message}");
    assert!(message.contains(dir.path().to_str().unwrap()), "{message}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stop_by_signal_is_clean_and_a_second_start_has_everything() {
    let dir = tempfile::tempdir().unwrap();
    let mut site = Site::start(dir.path());
    assert!(send(&site.http, 0).await);
    assert_eq!(site.terminate(), Some(0));
    let site = Site::start(dir.path());
    assert_eq!(site.count("SELECT count(*) FROM logs"), BATCH);
}

/// A small file system of its own; unmounted when dropped.
struct SmallDisk(tempfile::TempDir);

impl SmallDisk {
    fn mount(megabytes: u32) -> Option<Self> {
        let dir = tempfile::tempdir().unwrap();
        let size = format!("size={megabytes}m");
        let mounted =
            Command::new("mount").args(["-t", "tmpfs", "-o", &size, "tmpfs"]).arg(dir.path()).status();
        mounted.is_ok_and(|status| status.success()).then_some(Self(dir))
    }

    fn path(&self) -> &Path {
        self.0.path()
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("--lazy").arg(self.path()).status();
    }
}

/// Guarantee: a full disk refuses new data with 503, keeps what was acknowledged, also when the server is
/// killed and started on it, and recovers by itself when space returns.
#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_refuses_and_recovers_by_itself() {
    let Some(disk) = SmallDisk::mount(160) else {
        println!("skipped: a tmpfs cannot be mounted here (needs root)");
        return;
    };
    let ballast = disk.path().join("ballast");
    std::fs::write(&ballast, vec![1u8; 110 << 20]).unwrap();
    let mut site = Site::start(&disk.path().join("data"));
    let mut accepted = 0;
    let mut refused = None;
    for round in 0..2_000 {
        let lines: String = (0..1_000)
            .map(|i| {
                let noise = (i as u64 + round * 1_000).wrapping_mul(0x9E37_79B9_7F4A_7C15);
                format!(
                    "{{\"message\": \"{noise:x} {:x} {:x} {:x}\"}}\n",
                    noise.rotate_left(7),
                    noise.rotate_left(23),
                    noise.swap_bytes()
                )
            })
            .collect();
        let (status, text) = site.post("/api/v1/ingest/jsonlines", "application/x-ndjson", lines).await;
        if status == 200 {
            accepted += 1_000;
        } else {
            refused = Some((status, text));
            break;
        }
    }
    let (status, text) = refused.expect("the disk fills up");
    assert_eq!(status, 503, "{text}");
    assert!(text.contains("no space"), "{text}");
    assert_eq!(site.count("SELECT count(*) FROM logs"), accepted, "what was acknowledged is there");
    // Not a byte is left for the next start.
    let mut rest = std::fs::OpenOptions::new().append(true).open(&ballast).unwrap();
    while std::io::Write::write_all(&mut rest, &[1; 4096]).is_ok() {}
    drop(rest);
    site.kill();
    let site = Site::start(&disk.path().join("data"));
    assert_eq!(site.count("SELECT count(*) FROM logs"), accepted, "it starts and answers");
    std::fs::remove_file(&ballast).unwrap();
    let client = tokio::runtime::Handle::current();
    eventually("the server takes data again", || {
        tokio::task::block_in_place(|| client.block_on(send(&site.http, 0)))
    });
    assert_eq!(site.count("SELECT count(*) FROM logs"), accepted + BATCH);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_question_that_would_need_too_much_memory_or_time_ends_with_a_reason() {
    let dir = tempfile::tempdir().unwrap();
    let site = Site::start_with(dir.path(), &["--query-memory", "64MiB", "--query-timeout", "3s"]);
    let lines: String = (0..20_000).map(|i| format!("{{\"message\": \"line {i}\"}}\n")).collect();
    assert_eq!(site.post("/api/v1/ingest/jsonlines", "application/x-ndjson", lines).await.0, 200);
    for query in [
        "SELECT a.body || b.body AS x FROM logs a CROSS JOIN logs b ORDER BY x",
        "SELECT count(*) FROM logs a CROSS JOIN logs b CROSS JOIN logs c WHERE a.body || b.body || c.body LIKE '%never%'",
    ] {
        let output = site.run(&["sql", query]);
        let message = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{message}");
        assert!(message.contains("memory") || message.contains("time limit"), "{message}");
    }
    assert_eq!(site.count("SELECT count(*) FROM logs"), 20_000, "the server goes on");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_long_line_and_many_streams_are_kept() {
    let dir = tempfile::tempdir().unwrap();
    let site = Site::start(dir.path());
    let long = format!("{{\"message\": \"begin {} end\"}}\n", "x".repeat(10 << 20));
    assert_eq!(site.post("/api/v1/ingest/jsonlines", "application/x-ndjson", long).await.0, 200);
    let lines: String =
        (0..10_000).map(|i| format!("{{\"message\": \"m\", \"service\": \"s{i}\"}}\n")).collect();
    assert_eq!(site.post("/api/v1/ingest/jsonlines", "application/x-ndjson", lines).await.0, 200);
    let check = |state: &str| {
        assert_eq!(
            site.count("SELECT count(DISTINCT service) FROM logs WHERE service <> ''"),
            10_000,
            "{state}"
        );
        assert_eq!(
            site.count("SELECT length(body) FROM logs WHERE body LIKE 'begin x%'"),
            (10 << 20) + 10,
            "{state}"
        );
    };
    check("in memory");
    assert_eq!(site.post("/api/v1/admin/flush", "text/plain", "").await.0, 200);
    assert_eq!(site.post("/api/v1/admin/compact", "text/plain", "").await.0, 200);
    check("compacted");
}
