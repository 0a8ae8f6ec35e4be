//! Real requests to a small server on 127.0.0.1.

use std::{io::Write as _, path::Path, sync::Arc, time::Duration};

use parking_lot::Mutex;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
    sync::mpsc,
};
use trine_model::TenantId;
use trine_schema::{MetricBatch, StreamRegistry};
use trine_scrape::{ScrapeConfig, Scraper, ScraperOptions};

use crate::rows::lines;

/// Answers every request with the same bytes, and keeps what it was asked.
async fn server(answer: Vec<u8>) -> (String, Arc<Mutex<Vec<String>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let asked = Arc::<Mutex<Vec<String>>>::default();
    let kept = asked.clone();
    tokio::spawn(async move {
        while let Ok((mut socket, _)) = listener.accept().await {
            let mut request = Vec::new();
            while !request.ends_with(b"\r\n\r\n") {
                let mut bytes = [0; 1024];
                let Ok(length @ 1..) = socket.read(&mut bytes).await else { break };
                request.extend_from_slice(&bytes[..length]);
            }
            // One that was given up says nothing.
            if !request.is_empty() {
                kept.lock().push(String::from_utf8_lossy(&request).into_owned());
            }
            let _ = socket.write_all(&answer).await;
        }
    });
    (address, asked)
}

pub(crate) fn answer(status: &str, headers: &str, body: &[u8]) -> Vec<u8> {
    let length = body.len();
    let head = format!("HTTP/1.1 {status}\r\n{headers}Content-Length: {length}\r\nConnection: close\r\n\r\n");
    [head.as_bytes(), body].concat()
}

/// The rows of the first scrape, without reports, and the error of the target.
pub(crate) async fn scraped(address: &str, fields: &str) -> (Vec<String>, String) {
    let yaml = format!(
        "scrape_configs: [{{job_name: j, scrape_interval: 250ms, scrape_timeout: 250ms, {fields} static_configs: \
         [{{targets: ['{address}']}}]}}]"
    );
    let config = ScrapeConfig::parse(&yaml, Path::new("p.yml")).unwrap();
    let registry = Arc::new(StreamRegistry::new());
    let (sender, mut batches) = mpsc::channel::<MetricBatch>(1);
    let append = move |batch| {
        let sender = sender.clone();
        async move { sender.send(batch).await }
    };
    let scraper =
        Scraper::start(config, ScraperOptions::new(TenantId::default(), registry.clone()), append).unwrap();
    // A busy machine may miss the first of these short timeouts.
    for _ in 0..200 {
        let rows = lines(&batches.recv().await.unwrap(), &registry);
        let error = scraper.targets().active[0].last_error.clone();
        if !error.contains("scrape_timeout") {
            let rows = rows.into_iter().filter(|row| !row.contains(" scrape_"));
            let rows = rows.map(|row| row.split_once(' ').unwrap().1.replace(address, "ADDRESS")).collect();
            return (rows, error);
        }
    }
    panic!("no answer in time");
}

#[tokio::test]
async fn values_come_over_http_with_and_without_gzip() {
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    gzip.write_all(b"m 1.5\n").unwrap();
    let gzip = gzip.finish().unwrap();
    let text = "Content-Type: text/plain; version=0.0.4\r\n";
    for (headers, body, fields) in [
        (text.to_owned(), &b"m 1.5\n"[..], "enable_compression: false,"),
        (format!("{text}Content-Encoding: gzip\r\n"), &gzip, ""),
    ] {
        let (address, asked) = server(answer("200 OK", &headers, body)).await;
        let (rows, error) = scraped(&address, fields).await;
        assert_eq!(
            (rows, &*error),
            (vec!["m{instance=ADDRESS,job=j} 1.5".into(), "up{instance=ADDRESS,job=j} 1".into()], "")
        );
        let asked = asked.lock()[0].to_lowercase();
        assert!(asked.starts_with("get /metrics http/1.1\r\n"), "{asked}");
        assert!(
            asked.contains(
                "\r\naccept: application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.6,"
            )
        );
        assert!(asked.contains("\r\nx-prometheus-scrape-timeout-seconds: 0.25\r\n"), "{asked}");
        let encoding = if fields.is_empty() { "gzip" } else { "identity" };
        assert!(asked.contains(&format!("\r\naccept-encoding: {encoding}\r\n")), "{asked}");
    }
}

#[tokio::test]
async fn credentials_and_parameters_are_sent() {
    let folder = tempfile::tempdir().unwrap();
    let token = folder.path().join("token");
    std::fs::write(&token, "secret\n").unwrap();
    let text = "Content-Type: text/plain\r\n";
    for (fields, header) in [
        (
            format!("authorization: {{credentials_file: '{}'}},", token.display()),
            "authorization: Bearer secret\r\n",
        ),
        ("basic_auth: {username: u, password: p},".into(), "authorization: Basic dTpw\r\n"),
    ] {
        let (address, asked) = server(answer("200 OK", text, b"m 1\n")).await;
        let (rows, error) = scraped(&address, &format!("{fields} params: {{a: [b]}},")).await;
        assert_eq!((rows.len(), &*error), (2, ""));
        let asked = asked.lock()[0].clone();
        assert!(asked.starts_with("GET /metrics?a=b HTTP/1.1\r\n") && asked.contains(header), "{asked}");
    }
}

#[tokio::test]
async fn failures_are_told() {
    let text = "Content-Type: text/plain\r\n";
    let bomb = {
        let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
        gzip.write_all(&vec![b'\n'; 10 << 20]).unwrap();
        gzip.finish().unwrap()
    };
    for (answer, fields, error) in [
        (
            answer("503 Service Unavailable", text, b"m 1\n"),
            "",
            "server returned HTTP status 503 Service Unavailable",
        ),
        (
            answer("200 OK", "Content-Type: text/html\r\n", b"m 1\n"),
            "",
            "Content-Type \"text/html\" names no format that is read",
        ),
        (
            answer("200 OK", text, &[b'\n'; 2000]),
            "body_size_limit: 1KB,",
            "body_size_limit exceeded (limit: 1024 bytes)",
        ),
        (
            answer("200 OK", &format!("{text}Content-Encoding: gzip\r\n"), &bomb),
            "body_size_limit: 1MB,",
            "body_size_limit exceeded (limit: 1048576 bytes)",
        ),
        (
            answer("200 OK", &format!("{text}Content-Encoding: br\r\n"), b"x"),
            "",
            "content encoding \"br\" is not supported",
        ),
        (
            answer("302 Found", "Location: /other\r\n", b""),
            "follow_redirects: false,",
            "server returned HTTP status 302 Found",
        ),
    ] {
        let (address, _) = server(answer).await;
        let (rows, told) = scraped(&address, fields).await;
        assert_eq!(rows, ["up{instance=ADDRESS,job=j} 0"], "{told}");
        assert!(told.starts_with(error), "{told}");
    }
    let (address, _) = server(answer("200 OK", "", b"m 1\n")).await;
    let (rows, told) = scraped(&address, "fallback_scrape_protocol: PrometheusText0.0.4,").await;
    assert_eq!((rows.len(), &*told), (2, ""));
    // Nobody listens there any more.
    let closed = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap().to_string();
    let (rows, told) = scraped(&closed, "").await;
    assert_eq!(rows, ["up{instance=ADDRESS,job=j} 0"]);
    assert!(told.contains("refused"), "{told}");
}

/// Prometheus' own metrics, when `TRINE_PROMETHEUS` names its binary: every line of them is taken.
#[tokio::test]
async fn prometheus_itself_is_scraped() {
    let Ok(binary) = std::env::var("TRINE_PROMETHEUS") else { return };
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("p.yml"), "scrape_configs: []").unwrap();
    let address = {
        let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        free.local_addr().unwrap().to_string()
    };
    let mut prometheus = std::process::Command::new(binary)
        .arg(format!("--config.file={}/p.yml", folder.path().display()))
        .arg(format!("--storage.tsdb.path={}/data", folder.path().display()))
        .arg(format!("--web.listen-address={address}"))
        .stderr(std::process::Stdio::null())
        .spawn()
        .unwrap();
    let mut outcome = (Vec::new(), String::new());
    for _ in 0..100 {
        outcome = scraped(&address, "scrape_native_histograms: true,").await;
        if outcome.1.is_empty() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    prometheus.kill().unwrap();
    prometheus.wait().unwrap();
    let (rows, error) = outcome;
    assert_eq!(error, "");
    assert!(rows.iter().any(|row| row.starts_with("prometheus_build_info{")), "{} rows", rows.len());
    assert!(rows.iter().any(|row| row.contains(" histogram ")), "native histograms come by protobuf");
    assert!(rows.len() > 300, "{} rows", rows.len());
}
