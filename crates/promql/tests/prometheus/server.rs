//! A Prometheus of its own, for as long as the test runs.

use std::{
    env, fs,
    io::{Read, Write},
    net::{TcpListener, TcpStream},
    path::PathBuf,
    process::{self, Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use serde_json::Value as Json;
use trine_promql::MemorySource;

use crate::wire;

pub struct Server {
    process: Child,
    address: String,
    folder: PathBuf,
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
        let _ = fs::remove_dir_all(&self.folder);
    }
}

/// Starts a Prometheus of version 3, if there is one.
pub fn start() -> Option<Server> {
    let binary = env::var("TRINE_PROMETHEUS").unwrap_or_else(|_| "prometheus".to_owned());
    let help = Command::new(&binary).arg("--help").output().ok()?;
    let help = [help.stdout, help.stderr].concat();
    let help = String::from_utf8_lossy(&help).into_owned();
    // Version 2 does not know this feature, and its ranges are closed on both sides.
    if !help.contains("otlp-deltatocumulative") {
        return None;
    }
    let folder = env::temp_dir().join(format!("trine-promql-{}", process::id()));
    fs::create_dir_all(&folder).unwrap();
    let config = folder.join("prometheus.yml");
    fs::write(&config, "global: {}\n").unwrap();
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let address = format!("127.0.0.1:{port}");
    let process = Command::new(binary)
        .arg(format!("--config.file={}", config.display()))
        .arg(format!("--storage.tsdb.path={}", folder.join("data").display()))
        .arg(format!("--web.listen-address={address}"))
        .arg("--web.enable-remote-write-receiver")
        .arg("--enable-feature=promql-experimental-functions,native-histograms")
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let server = Server { process, address, folder };
    let deadline = Instant::now() + Duration::from_secs(30);
    while !server.get("/-/ready").is_some_and(|answer| answer.starts_with("HTTP/1.0 200")) {
        assert!(Instant::now() < deadline, "prometheus does not get ready");
        thread::sleep(Duration::from_millis(50));
    }
    Some(server)
}

impl Server {
    fn send(&self, request: &[u8]) -> Option<String> {
        let mut stream = TcpStream::connect(&self.address).ok()?;
        stream.write_all(request).ok()?;
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).ok()?;
        Some(String::from_utf8_lossy(&answer).into_owned())
    }

    fn get(&self, path: &str) -> Option<String> {
        self.send(format!("GET {path} HTTP/1.0\r\nHost: prometheus\r\n\r\n").as_bytes())
    }

    /// Writes all series by remote write, in order of time: what is an hour older than the newest sample
    /// is refused.
    pub fn load(&self, source: &MemorySource) {
        for body in wire::requests(source) {
            let body = snap::raw::Encoder::new().compress_vec(&body).unwrap();
            let mut request = format!(
                "POST /api/v1/write HTTP/1.0\r\nHost: prometheus\r\nContent-Type: application/x-protobuf\r\n\
                 Content-Encoding: snappy\r\nX-Prometheus-Remote-Write-Version: 0.1.0\r\n\
                 Content-Length: {}\r\n\r\n",
                body.len()
            )
            .into_bytes();
            request.extend_from_slice(&body);
            let answer = self.send(&request).unwrap();
            assert!(answer.starts_with("HTTP/1.0 204"), "remote write failed: {answer}");
        }
    }

    /// Asks the API; `rest` are its other parameters.
    pub fn query(&self, path: &str, query: &str, rest: &str) -> Json {
        let (_, body) = self.body(&format!("/api/v1/{path}?query={}&{rest}", escaped(query)));
        serde_json::from_str(&body).unwrap_or_else(|error| panic!("{error}: {body}"))
    }

    /// Status and body of a path.
    pub fn body(&self, path: &str) -> (u16, String) {
        let answer = self.get(path).unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        let status = head.split(' ').nth(1).and_then(|status| status.parse().ok());
        (status.unwrap_or_default(), body.to_owned())
    }
}

/// A text as a URL has it.
pub fn escaped(text: &str) -> String {
    text.bytes().map(|byte| format!("%{byte:02x}")).collect()
}
