//! What every command that talks to a server shares.

use std::io::Write;

use anstyle::{AnsiColor, Style};
use anyhow::{Context, bail};
use clap::{Args, ValueEnum};
use jiff::{Timestamp, tz::TimeZone};
use reqwest::{RequestBuilder, Response};

pub const PLAIN: anstyle::Reset = anstyle::Reset;
pub const RED: Style = AnsiColor::Red.on_default().bold();
pub const YELLOW: Style = AnsiColor::Yellow.on_default();
pub const GREEN: Style = AnsiColor::Green.on_default();
pub const CYAN: Style = AnsiColor::Cyan.on_default();
pub const DIM: Style = Style::new().dimmed();
pub const BOLD: Style = Style::new().bold();

/// Which server, whose data.
#[derive(Debug, Clone, Args)]
pub struct ServerOptions {
    /// Address of the server
    #[arg(long, value_name = "URL", env = "TRINE_SERVER", default_value = "http://127.0.0.1:7070")]
    pub server: String,
    /// Tenant, sent as X-Scope-OrgID [default: the server's `default`]
    #[arg(long, value_name = "ID", env = "TRINE_TENANT")]
    pub tenant: Option<String>,
}

/// Which part of time.
#[derive(Debug, Clone, Args)]
pub struct RangeOptions {
    /// First instant: RFC 3339, seconds or nanoseconds since 1970, or a distance to now such as -15m
    #[arg(long, value_name = "TIME", allow_hyphen_values = true)]
    pub from: Option<String>,
    /// End (exclusive), spelled like --from
    #[arg(long, value_name = "TIME", allow_hyphen_values = true)]
    pub to: Option<String>,
}

/// How answers are printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Output {
    /// For people
    Table,
    /// One JSON document
    Json,
    /// One JSON object per line
    Jsonl,
    /// Comma-separated, with a header line
    Csv,
}

/// A connection to a server.
pub struct Client {
    http: reqwest::Client,
    base: String,
    tenant: Option<String>,
}

impl Client {
    pub fn new(options: &ServerOptions) -> anyhow::Result<Self> {
        let base = options.server.trim_end_matches('/').to_owned();
        if !base.starts_with("http://") {
            bail!("--server {base:?} is no address of a server; write http://HOST:PORT");
        }
        // A proxy meant for the internet must not see what goes to a neighbour.
        // Nor are the system's certificates read: a small container has none, and no server here speaks TLS.
        let http = reqwest::Client::builder().no_proxy().tls_certs_only([]);
        let http = http.build().context("cannot set up HTTP")?;
        Ok(Self { http, base, tenant: options.tenant.clone() })
    }

    pub fn get(&self, path: &str) -> RequestBuilder {
        self.with_tenant(self.http.get(format!("{}{path}", self.base)))
    }

    pub fn post(&self, path: &str) -> RequestBuilder {
        self.with_tenant(self.http.post(format!("{}{path}", self.base)))
    }

    fn with_tenant(&self, request: RequestBuilder) -> RequestBuilder {
        match &self.tenant {
            Some(tenant) => request.header("X-Scope-OrgID", tenant),
            None => request,
        }
    }

    /// Sends; a refusal becomes an error with the server's words.
    pub async fn send(&self, request: RequestBuilder) -> anyhow::Result<Response> {
        let response = request.send().await.map_err(|error| self.unreachable(&error))?;
        let status = response.status();
        if status.is_success() {
            return Ok(response);
        }
        let text = response.text().await.unwrap_or_default();
        match refusal(&text).as_str() {
            "" => bail!("the server answered {status}"),
            told => bail!("{told}"),
        }
    }

    /// Says what to do when there is no server.
    pub fn unreachable(&self, error: &reqwest::Error) -> anyhow::Error {
        if error.is_connect() {
            anyhow::anyhow!(
                "no server answers at {}; start one with `trine server` or `trine demo`, or name it with --server",
                self.base
            )
        } else {
            anyhow::anyhow!("talking to {} failed: {}", self.base, root_cause(error))
        }
    }
}

/// What a refusal says. Prometheus' API says it in JSON.
fn refusal(body: &str) -> String {
    let json: Option<serde_json::Value> = serde_json::from_str(body).ok();
    let told = json.as_ref().and_then(|json| json["error"].as_str()).unwrap_or(body);
    told.trim().to_owned()
}

fn root_cause(error: &dyn std::error::Error) -> String {
    let mut cause = error;
    while let Some(next) = cause.source() {
        cause = next;
    }
    cause.to_string()
}

/// What the server says is missing from the answer, told on standard error.
pub fn warn_partial(response: &Response) {
    if let Some(missing) = response.headers().get("x-trine-partial") {
        let missing = String::from_utf8_lossy(missing.as_bytes());
        anstream::eprintln!("{YELLOW}warning:{PLAIN} the answer is partial: {missing}");
    }
}

/// What the query touched, on standard error when asked for.
pub fn print_stats(response: &Response, wanted: bool) {
    if wanted && let Some(stats) = response.headers().get("x-trine-stats") {
        anstream::eprintln!("{DIM}{}{PLAIN}", String::from_utf8_lossy(stats.as_bytes()));
    }
}

/// The JSON of a query's answer; `None` when it was wanted as it is and has been printed.
pub async fn read_json(
    response: Response,
    output: Output,
    stats: bool,
) -> anyhow::Result<Option<serde_json::Value>> {
    warn_partial(&response);
    print_stats(&response, stats);
    let text = response.text().await.context("the answer broke off")?;
    if output == Output::Json {
        println!("{text}");
        return Ok(None);
    }
    serde_json::from_str(&text).map(Some).context("the server's answer is no JSON")
}

/// `2023-01-29 08:48:42.406289933` in UTC; raw nanoseconds when the calendar has no such day.
pub fn show_time(ns: i64) -> String {
    match Timestamp::from_nanosecond(i128::from(ns)) {
        Ok(time) => time.to_zoned(TimeZone::UTC).strftime("%Y-%m-%d %H:%M:%S%.9f").to_string(),
        Err(_) => ns.to_string(),
    }
}

/// A line for people: time, level in its colour, service, the line itself. Control characters of
/// the line other than tab are shown escaped, so that no log can drive the terminal.
pub fn show_line(
    out: &mut impl Write,
    ns: i64,
    labels: &serde_json::Map<String, serde_json::Value>,
    line: &str,
) -> std::io::Result<()> {
    let label = |name: &str| labels.get(name).and_then(serde_json::Value::as_str).unwrap_or("");
    let level = [label("level"), label("detected_level")].into_iter().find(|l| !l.is_empty()).unwrap_or("");
    let color = match level.to_ascii_uppercase().as_str() {
        "ERROR" | "FATAL" | "CRITICAL" => RED,
        "WARN" | "WARNING" => YELLOW,
        "INFO" => GREEN,
        _ => DIM,
    };
    let time = show_time(ns);
    let millis = &time[..time.len().min(23)];
    let level = level.to_ascii_uppercase();
    let service = label("service_name");
    write!(out, "{DIM}{millis}{PLAIN} {color}{level:<5}{PLAIN} {CYAN}{service}{PLAIN} ")?;
    for c in line.chars() {
        if c.is_control() && c != '\t' { write!(out, "{}", c.escape_default())? } else { write!(out, "{c}")? }
    }
    writeln!(out)
}

/// One CSV field by RFC 4180.
pub fn csv_field(text: &str) -> String {
    if text.contains(['"', ',', '\n', '\r']) {
        format!("\"{}\"", text.replace('"', "\"\""))
    } else {
        text.to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_cannot_drive_the_terminal() {
        let mut out = anstream::StripStream::new(Vec::new());
        show_line(&mut out, 0, &serde_json::Map::new(), "a\x1b[31mred\tb\r").unwrap();
        let text = String::from_utf8(out.into_inner()).unwrap();
        assert!(text.ends_with("a\\u{1b}[31mred\tb\\r\n"), "{text:?}");
        assert!(text.starts_with("1970-01-01 00:00:00.000"), "{text:?}");
    }

    #[test]
    fn a_refusal_is_told_without_its_wrapping() {
        let json = r#"{"status":"error","errorType":"bad_data","error":"1:4: parse error"}"#;
        assert_eq!(refusal(json), "1:4: parse error");
        assert_eq!(refusal("no such table\n"), "no such table");
        assert_eq!(refusal("[1]"), "[1]");
    }

    #[test]
    fn csv_quotes_what_needs_it() {
        assert_eq!(csv_field("plain"), "plain");
        assert_eq!(csv_field("a \"b\", c"), "\"a \"\"b\"\", c\"");
    }
}
