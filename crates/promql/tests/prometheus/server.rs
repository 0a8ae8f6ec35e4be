//! What is asked of a real Prometheus.

use serde_json::Value as Json;
use trine_promql::MemorySource;
use trine_testing::Prometheus;

use crate::wire;

pub struct Server(Prometheus);

/// Starts a Prometheus, if there is one, with a part of a configuration.
pub fn start(name: &str, config: &str) -> Option<Server> {
    let features = "--enable-feature=promql-experimental-functions,native-histograms,promql-per-step-stats";
    let arguments = ["--web.enable-remote-write-receiver", features];
    Prometheus::start(name, &format!("global: {{}}\n{config}"), &arguments).map(Server)
}

impl Server {
    /// Writes all series by remote write, in order of time: what is an hour older than the newest sample
    /// is refused.
    pub fn load(&self, source: &MemorySource) {
        let headers = "Content-Type: application/x-protobuf\r\nContent-Encoding: snappy\r\n\
                       X-Prometheus-Remote-Write-Version: 0.1.0\r\n";
        for body in wire::requests(source) {
            let body = snap::raw::Encoder::new().compress_vec(&body).unwrap();
            let (status, answer) = self.0.send("POST /api/v1/write", headers, &body).unwrap();
            assert_eq!(status, 204, "remote write failed: {answer}");
        }
    }

    /// Asks the API; `rest` are its other parameters.
    pub fn query(&self, path: &str, query: &str, rest: &str) -> Json {
        let (_, body) = self.body(&format!("/api/v1/{path}?query={}&{rest}", escaped(query)));
        serde_json::from_str(&body).unwrap_or_else(|error| panic!("{error}: {body}"))
    }

    /// Status and body of a path.
    pub fn body(&self, path: &str) -> (u16, String) {
        self.0.send(&format!("GET {path}"), "", b"").unwrap()
    }
}

/// A text as a URL has it.
pub fn escaped(text: &str) -> String {
    text.bytes().map(|byte| format!("%{byte:02x}")).collect()
}
