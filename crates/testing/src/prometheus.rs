//! A real Prometheus 3 of its own, for as long as a test runs.

use std::{
    env, fs,
    io::{Read as _, Write as _},
    net::{TcpListener, TcpStream},
    path::PathBuf,
    process::{self, Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

/// How long it may take until it is ready.
const READY: Duration = Duration::from_secs(60);

/// A Prometheus that runs; it is killed and its data removed when this is dropped.
pub struct Prometheus {
    process: Child,
    address: String,
    folder: PathBuf,
}

impl Drop for Prometheus {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
        let _ = fs::remove_dir_all(&self.folder);
    }
}

impl Prometheus {
    /// Starts `$TRINE_PROMETHEUS` or `prometheus` on the path with this configuration; `None` where there is none
    /// of version 3. `name` tells its folder from those of other tests.
    ///
    /// # Panics
    /// When it does not get ready.
    pub fn start(name: &str, config: &str, arguments: &[&str]) -> Option<Self> {
        let binary = env::var("TRINE_PROMETHEUS").unwrap_or_else(|_| "prometheus".to_owned());
        let help = Command::new(&binary).arg("--help").output().ok()?;
        let help = [help.stdout, help.stderr].concat();
        // Version 2 does not know this feature.
        if !String::from_utf8_lossy(&help).contains("otlp-deltatocumulative") {
            return None;
        }
        let folder = env::temp_dir().join(format!("trine-{name}-{}", process::id()));
        fs::create_dir_all(&folder).expect("a folder for Prometheus");
        let file = folder.join("prometheus.yml");
        fs::write(&file, config).expect("a configuration for Prometheus");
        let listener = TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr());
        let address = listener.expect("a free port").to_string();
        let process = Command::new(binary)
            .arg(format!("--config.file={}", file.display()))
            .arg(format!("--storage.tsdb.path={}", folder.join("data").display()))
            .arg(format!("--web.listen-address={address}"))
            .args(arguments)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("Prometheus starts");
        let prometheus = Self { process, address, folder };
        let deadline = Instant::now() + READY;
        while prometheus.send("GET /-/ready", "", b"").is_none_or(|(status, _)| status != 200) {
            assert!(Instant::now() < deadline, "prometheus does not get ready");
            thread::sleep(Duration::from_millis(50));
        }
        Some(prometheus)
    }

    /// Sends a request by HTTP/1.0, `what` is method and path, each of `headers` ends its line with `\r\n`. Status
    /// and body of the answer; `None` when there is none.
    pub fn send(&self, what: &str, headers: &str, body: &[u8]) -> Option<(u16, String)> {
        let mut stream = TcpStream::connect(&self.address).ok()?;
        let length = body.len();
        let head =
            format!("{what} HTTP/1.0\r\nHost: prometheus\r\n{headers}Content-Length: {length}\r\n\r\n");
        stream.write_all(head.as_bytes()).ok()?;
        stream.write_all(body).ok()?;
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).ok()?;
        let answer = String::from_utf8_lossy(&answer);
        let (head, body) = answer.split_once("\r\n\r\n")?;
        Some((head.split(' ').nth(1)?.parse().ok()?, body.to_owned()))
    }
}
