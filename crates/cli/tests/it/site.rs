//! A server process for one test.

use std::{
    io::{BufRead, BufReader},
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
    time::{Duration, Instant},
};

use serde_json::Value;

/// Longest wait for anything that is expected to happen.
const PATIENCE: Duration = Duration::from_secs(60);

/// The program under test, on a system without certificates, as small containers are.
pub fn trine() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_trine"));
    command.env_remove("TRINE_SERVER").env_remove("TRINE_TENANT").env("NO_COLOR", "1");
    command.env("SSL_CERT_FILE", "/nonexistent").env("SSL_CERT_DIR", "/nonexistent");
    command
}

/// A running server; killed when dropped.
pub struct Site {
    process: Child,
    pub http: String,
    pub otlp_http: String,
    pub otlp_grpc: String,
}

impl Site {
    /// Starts on a directory, with free ports.
    pub fn start(dir: &Path) -> Self {
        Self::start_with(dir, &[])
    }

    /// Starts with more arguments.
    pub fn start_with(dir: &Path, more: &[&str]) -> Self {
        let mut process = trine()
            .args([
                "server",
                "--http",
                "127.0.0.1:0",
                "--otlp-grpc",
                "127.0.0.1:0",
                "--otlp-http",
                "127.0.0.1:0",
            ])
            .arg("--data-dir")
            .arg(dir)
            .args(more)
            .stdout(Stdio::piped())
            .spawn()
            .expect("the program starts");
        let mut ready = String::new();
        BufReader::new(process.stdout.take().expect("piped")).read_line(&mut ready).expect("a line of text");
        let field = |name: &str| -> String {
            let found = ready.split_whitespace().find_map(|word| word.strip_prefix(name)?.strip_prefix('='));
            found.unwrap_or_else(|| panic!("no {name} in {ready:?}")).to_owned()
        };
        Self { http: field("http"), otlp_http: field("otlp-http"), otlp_grpc: field("otlp-grpc"), process }
    }

    pub fn pid(&self) -> u32 {
        self.process.id()
    }

    /// SIGKILL, and waits for the end.
    pub fn kill(&mut self) {
        self.process.kill().expect("the server can be killed");
        self.process.wait().expect("the server ends");
    }

    /// SIGTERM; the exit code.
    pub fn terminate(&mut self) -> Option<i32> {
        let status = Command::new("kill").arg(self.pid().to_string()).status().expect("kill runs");
        assert!(status.success());
        let begun = Instant::now();
        loop {
            if let Some(status) = self.process.try_wait().expect("the server can be waited for") {
                return status.code();
            }
            assert!(begun.elapsed() < PATIENCE, "the server did not end after SIGTERM");
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Runs a client command against this server.
    pub fn run(&self, args: &[&str]) -> Output {
        trine().args(args).args(["--server", &self.http]).output().expect("the program runs")
    }

    /// Runs a client command that has to succeed; its output.
    pub fn ok(&self, args: &[&str]) -> String {
        let output = self.run(args);
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{args:?} ended with {}: {errors}", output.status);
        String::from_utf8(output.stdout).expect("UTF-8")
    }

    /// Rows of a SQL query.
    pub fn sql(&self, query: &str) -> Vec<Value> {
        let text = self.ok(&["sql", query, "--output", "jsonl"]);
        text.lines().map(|line| serde_json::from_str(line).expect("a JSON object per line")).collect()
    }

    /// The one number a SQL query gives.
    pub fn count(&self, query: &str) -> u64 {
        let rows = self.sql(query);
        assert_eq!(rows.len(), 1, "{query}: {rows:?}");
        let row = rows[0].as_object().expect("an object");
        row.values().next().and_then(Value::as_u64).unwrap_or_else(|| panic!("{query}: {rows:?}"))
    }

    /// What a GET answers, as JSON.
    pub fn json(&self, path: &str, query: &[(&str, &str)]) -> Value {
        let request = reqwest::Client::new().get(format!("{}{path}", self.http)).query(query);
        let answer = async { request.send().await.expect("the server answers").json().await.expect("JSON") };
        tokio::runtime::Runtime::new().expect("a runtime").block_on(answer)
    }

    pub async fn post(
        &self,
        path: &str,
        content_type: &str,
        body: impl Into<reqwest::Body>,
    ) -> (u16, String) {
        let request = reqwest::Client::new()
            .post(format!("{}{path}", self.http))
            .header("Content-Type", content_type)
            .body(body);
        let response = request.send().await.expect("the server answers");
        let status = response.status().as_u16();
        (status, response.text().await.expect("text"))
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Where `cargo xtask install` put what a test needs.
pub fn client(variable: &str) -> PathBuf {
    let path = std::env::var_os(variable).unwrap_or_else(|| {
        panic!(
            "{variable} is not set; run `cargo xtask test`, or `cargo xtask install` and set what it prints"
        )
    });
    path.into()
}

/// Runs one of the Python scripts beside this file; its standard output.
pub fn run_python(script: &str, args: &[&str]) -> String {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/python").join(script);
    run_client(Command::new(client("TRINE_TEST_PYTHON")).arg(script).args(args))
}

/// Runs a client that has to succeed; its standard output.
pub fn run_client(command: &mut Command) -> String {
    let output = command.output().unwrap_or_else(|error| panic!("{command:?} does not start: {error}"));
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?} ended with {}: {errors}", output.status);
    String::from_utf8(output.stdout).expect("UTF-8")
}

/// Seconds since 1970.
pub fn now_s() -> u64 {
    std::time::UNIX_EPOCH.elapsed().expect("the clock is past 1970").as_secs()
}

/// Waits until something holds.
pub fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !holds() {
        assert!(begun.elapsed() < PATIENCE, "waited in vain: {what}");
        std::thread::sleep(Duration::from_millis(50));
    }
}
