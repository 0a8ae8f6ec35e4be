//! Questions to a server: how they are sent, what makes an answer right, how long it takes.

pub mod logs;
pub mod metrics;
pub mod traces;

use std::collections::BTreeMap;
use std::time::Instant;

use anyhow::{Context, Result};
use reqwest::{Client, StatusCode};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::kind::Kind;
use super::report::{Timing, quantile};
use super::signal::Signal;
use crate::generate::clock::Moment;

const MINUTE_NS: i64 = 60_000_000_000;
const SECOND_NS: i64 = 1_000_000_000;

/// Language a question is asked in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Language {
    /// Loki's API.
    Logql,
    /// Trine's SQL.
    Sql,
    /// VictoriaLogs' LogsQL.
    Logsql,
    /// Prometheus' API.
    Promql,
    /// Tempo's API.
    Tempo,
}

impl Language {
    /// Languages in which a server answers questions about a signal.
    pub const fn of(kind: Kind, signal: Signal) -> &'static [Self] {
        match (kind, signal) {
            (Kind::Trine, Signal::Logs) => &[Self::Logql, Self::Sql],
            (Kind::Trine, Signal::Traces) => &[Self::Sql, Self::Tempo],
            (Kind::VictoriaLogs, _) => &[Self::Logsql],
            (Kind::Loki, _) => &[Self::Logql],
            (Kind::Trine | Kind::VictoriaMetrics | Kind::Prometheus, _) => &[Self::Promql],
        }
    }

    /// As it is written behind a question's name.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Logql => "logql",
            Self::Sql => "sql",
            Self::Logsql => "logsql",
            Self::Promql => "promql",
            Self::Tempo => "tempo",
        }
    }
}

/// How the words of a question travel.
#[derive(Debug, Clone)]
pub enum Body {
    /// `POST` of `application/x-www-form-urlencoded`.
    Form(Vec<(&'static str, String)>),
    /// `POST` of a JSON object.
    Json(Value),
    /// `GET` of the path; the kind of answer that is accepted.
    Get(&'static str),
}

/// A request that asks.
#[derive(Debug, Clone)]
pub struct Request {
    /// Path and query below the server's address.
    pub path: String,
    /// The rest.
    pub body: Body,
}

/// Tells what is wrong with an answer.
pub type Check = Box<dyn Fn(&[u8]) -> std::result::Result<(), String> + Send + Sync>;

/// A question, in one or several wordings that are asked in turn.
pub struct Question {
    /// Under this name its time is reported.
    pub key: String,
    /// The wordings and when their answers are right.
    pub wordings: Vec<(Request, Check)>,
}

impl Question {
    /// A question with one wording.
    pub fn new(
        key: impl Into<String>,
        request: Request,
        check: impl Fn(&[u8]) -> std::result::Result<(), String> + Send + Sync + 'static,
    ) -> Self {
        Self { key: key.into(), wordings: vec![(request, Box::new(check))] }
    }
}

/// Where questions go.
#[derive(Debug, Clone)]
pub struct Server {
    /// Client; its pool holds the connections.
    pub http: Client,
    /// `http://host:port`
    pub base: String,
    /// Tenant header, if any.
    pub tenant: Option<String>,
}

/// What came back.
#[derive(Debug)]
pub struct Answer {
    /// Milliseconds from sending to the last byte.
    pub ms: f64,
    /// Its status.
    pub status: StatusCode,
    /// All of it.
    pub body: Vec<u8>,
}

impl Server {
    /// Asks and reads the whole answer.
    pub async fn ask(&self, asked: &Request) -> Result<Answer> {
        let url = format!("{}{}", self.base, asked.path);
        let mut request = match &asked.body {
            Body::Form(form) => self
                .http
                .post(&url)
                .header("content-type", "application/x-www-form-urlencoded")
                .body(form_encoded(form)),
            Body::Json(json) => self.http.post(&url).json(json),
            Body::Get(accept) => self.http.get(&url).header("accept", *accept),
        };
        if let Some(tenant) = &self.tenant {
            request = request.header("x-scope-orgid", tenant);
        }
        let begun = Instant::now();
        let answer = request.send().await.with_context(|| format!("ask {url}"))?;
        let status = answer.status();
        let body = answer.bytes().await.context("read an answer")?.to_vec();
        Ok(Answer { ms: begun.elapsed().as_secs_f64() * 1000.0, status, body })
    }
}

/// Every question once per round, so that a disturbance hits all alike; the first round warms up.
pub async fn ask_all(server: &Server, asked: &[Question], repeats: usize) -> BTreeMap<String, Timing> {
    let mut times: Vec<Vec<f64>> = vec![Vec::new(); asked.len()];
    let mut wrong: Vec<Option<String>> = vec![None; asked.len()];
    for round in 0..=repeats {
        for (index, question) in asked.iter().enumerate() {
            // A question that failed once is not asked again: its time would say nothing.
            if round > 0 && times[index].is_empty() && wrong[index].is_some() {
                continue;
            }
            let (request, check) = &question.wordings[round % question.wordings.len()];
            match server.ask(request).await {
                Ok(answer) if answer.status.is_success() => {
                    let checked = check(&answer.body);
                    // The round that warms up counts only where no other follows.
                    if round > 0 || repeats == 0 || checked.is_err() {
                        times[index].push(answer.ms);
                    }
                    if let Err(why) = checked {
                        wrong[index].get_or_insert(why);
                    }
                }
                Ok(answer) => {
                    let text = String::from_utf8_lossy(&answer.body).trim().to_owned();
                    wrong[index].get_or_insert(format!("{}: {text}", answer.status));
                }
                Err(error) => _ = wrong[index].get_or_insert(format!("{error:#}")),
            }
        }
    }
    let timing = |(question, (times, wrong)): (&Question, (Vec<f64>, Option<String>))| {
        let timing = Timing {
            median_ms: quantile(&times, 0.5).unwrap_or(f64::NAN),
            p95_ms: quantile(&times, 0.95).unwrap_or(f64::NAN),
            p99_ms: quantile(&times, 0.99).unwrap_or(f64::NAN),
            ok: wrong.is_none(),
            wrong,
        };
        (question.key.clone(), timing)
    };
    asked.iter().zip(times.into_iter().zip(wrong)).map(timing).collect()
}

/// `application/x-www-form-urlencoded`.
pub fn form_encoded(form: &[(&str, String)]) -> String {
    use std::fmt::Write as _;
    let mut out = String::new();
    for (key, value) in form {
        if !out.is_empty() {
            out.push('&');
        }
        out.push_str(key);
        out.push('=');
        for byte in value.bytes() {
            match byte {
                b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => {
                    out.push(char::from(byte));
                }
                _ => _ = write!(out, "%{byte:02X}"),
            }
        }
    }
    out
}

/// A time as an SQL literal.
fn literal(timestamp_ns: i64) -> String {
    let mut text = String::new();
    Moment::new(timestamp_ns).write("%Y-%m-%dT%H:%M:%S", &mut text);
    format!("TIMESTAMP '{text}.{:09}Z'", timestamp_ns.rem_euclid(SECOND_NS))
}

fn number(value: &Value) -> Result<u64> {
    let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    let number: f64 = text.parse().with_context(|| format!("{text:?} is no number"))?;
    Ok(number as u64)
}

/// Nanoseconds from a number, digits in a text, or RFC 3339 in UTC (with `T` or a space).
fn time_ns(value: &Value) -> Result<i64> {
    if let Some(number) = value.as_i64() {
        return Ok(number);
    }
    let text = value.as_str().with_context(|| format!("{value} is no time"))?;
    if let Ok(number) = text.parse() {
        return Ok(number);
    }
    rfc3339(text).with_context(|| format!("{text:?} is no time"))
}

fn rfc3339(text: &str) -> Option<i64> {
    let field = |range: std::ops::Range<usize>| text.get(range)?.parse::<i64>().ok();
    let (year, month, day) = (field(0..4)?, field(5..7)?, field(8..10)?);
    let seconds = field(11..13)? * 3600 + field(14..16)? * 60 + field(17..19)?;
    let rest = text.get(19..)?.trim_end_matches('Z').trim_end_matches("+00:00");
    let fraction = rest.strip_prefix('.').unwrap_or("");
    let nanos: i64 =
        if fraction.is_empty() { 0 } else { format!("{fraction:0<9}").get(..9)?.parse().ok()? };
    // Civil date to days: Howard Hinnant, "chrono-compatible low-level date algorithms".
    let (y, m) = if month <= 2 { (year - 1, month + 9) } else { (year, month - 3) };
    let (era, yoe) = (y.div_euclid(400), y.rem_euclid(400));
    let days = era * 146_097 + yoe * 365 + yoe / 4 - yoe / 100 + (153 * m + 2) / 5 + day - 1 - 719_468;
    Some((days * 86_400 + seconds) * SECOND_NS + nanos)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_and_literals_agree() {
        for ns in [1_795_075_200_000_000_001, 1_709_208_000_123_000_000, 951_782_400_000_000_000] {
            let text = literal(ns);
            let inner = text.strip_prefix("TIMESTAMP '").unwrap().trim_end_matches('\'');
            assert_eq!(rfc3339(inner), Some(ns), "{text}");
        }
        assert_eq!(
            form_encoded(&[("query", "{a=\"b\"} |~ `x`".into())]),
            "query=%7Ba%3D%22b%22%7D%20%7C~%20%60x%60"
        );
    }
}
