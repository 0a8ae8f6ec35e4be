//! The six questions in each server's language, and whether an answer is right.

use std::collections::BTreeMap;
use std::time::Instant;

use anyhow::{Context, Result, bail};
use reqwest::Client;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::kind::{Kind, Protocol};
use crate::generate::clock::Moment;
use crate::generate::truth::{LAST_LINES, Truth};

/// Names of the questions and what they ask, in the order they are asked.
pub const QUESTIONS: [(&str, &str); 6] = [
    ("tail", "last 1,000 lines of a service in 5 minutes"),
    ("rare_word", "rare word over everything"),
    ("trace_id", "one trace id over everything"),
    ("rare_regex", "rare substring (regex) over everything"),
    ("common_count", "common substring, counted"),
    ("levels", "count by level per minute"),
];
/// More lines than any needle has.
const NEEDLE_LIMIT: usize = 100;
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
}

impl Language {
    /// Languages a server speaks.
    pub const fn of(kind: Kind) -> &'static [Self] {
        match kind {
            Kind::Trine => &[Self::Logql, Self::Sql],
            Kind::VictoriaLogs => &[Self::Logsql],
            Kind::Loki => &[Self::Logql],
        }
    }
}

/// One question to one server.
#[derive(Debug, Clone)]
pub struct Question {
    /// Name from [`QUESTIONS`].
    pub name: &'static str,
    /// Its language.
    pub language: Language,
    path: &'static str,
    form: Vec<(&'static str, String)>,
}

/// An answer taken apart.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// Times of the lines found, Unix nanoseconds, in any order.
    Lines(Vec<i64>),
    /// A number.
    Count(u64),
    /// Counts by minute and upper-case level.
    Levels(BTreeMap<(i64, String), u64>),
}

/// All questions for a server that took its data by `protocol`.
pub fn questions(protocol: Protocol, language: Language, truth: &Truth) -> Vec<Question> {
    QUESTIONS
        .iter()
        .map(|(name, _)| match language {
            Language::Logql => logql(name, truth),
            Language::Sql => sql(name, truth),
            Language::Logsql => logsql(protocol, name, truth),
        })
        .collect()
}

fn whole(truth: &Truth) -> (i64, i64) {
    (truth.first_ns, truth.last_ns + SECOND_NS)
}

fn logql(name: &'static str, truth: &Truth) -> Question {
    let all = r#"{service_name=~".+"}"#;
    let (mut from, mut to) = whole(truth);
    let mut limit = NEEDLE_LIMIT;
    let mut step = None;
    let query = match name {
        "tail" => {
            (from, to, limit) = (truth.tail.from_ns, truth.tail.to_ns, LAST_LINES);
            format!(r#"{{service_name="{}"}}"#, truth.tail.service)
        }
        "rare_word" => format!("{all} |= `{}`", truth.rare_word.0),
        "trace_id" => format!("{all} | trace_id=`{}`", truth.trace.0),
        "rare_regex" => format!("{all} |~ `{}`", truth.rare_regex.0),
        "common_count" => {
            let seconds = (to - from) / SECOND_NS + 1;
            let query = format!("sum(count_over_time({all} |= `{}` [{seconds}s]))", truth.common.0);
            let form = vec![("query", query), ("time", to.to_string())];
            return Question { name, language: Language::Logql, path: "/loki/api/v1/query", form };
        }
        _ => {
            // A step at t counts (t - 1m, t].
            from = from.div_euclid(MINUTE_NS) * MINUTE_NS + MINUTE_NS;
            to = truth.last_ns.div_euclid(MINUTE_NS) * MINUTE_NS + MINUTE_NS;
            step = Some(("step", "60".to_owned()));
            format!("sum by (level) (count_over_time({all}[1m]))")
        }
    };
    let mut form = vec![
        ("query", query),
        ("start", from.to_string()),
        ("end", to.to_string()),
        ("limit", limit.to_string()),
        ("direction", "backward".to_owned()),
    ];
    form.extend(step);
    Question { name, language: Language::Logql, path: "/loki/api/v1/query_range", form }
}

/// A time as an SQL literal.
fn literal(timestamp_ns: i64) -> String {
    let mut text = String::new();
    Moment::new(timestamp_ns).write("%Y-%m-%dT%H:%M:%S", &mut text);
    format!("TIMESTAMP '{text}.{:09}Z'", timestamp_ns.rem_euclid(SECOND_NS))
}

fn sql(name: &'static str, truth: &Truth) -> Question {
    let lines = |filter: String| format!("SELECT timestamp, body FROM logs WHERE {filter}");
    let query = match name {
        "tail" => format!(
            "SELECT timestamp, body FROM logs WHERE service = '{}' AND timestamp >= {} AND timestamp < {} \
             ORDER BY timestamp DESC LIMIT {LAST_LINES}",
            truth.tail.service,
            literal(truth.tail.from_ns),
            literal(truth.tail.to_ns)
        ),
        "rare_word" => lines(format!("body LIKE '%{}%'", truth.rare_word.0)),
        "trace_id" => lines(format!("trace_id = '{}'", truth.trace.0)),
        "rare_regex" => lines(format!("body ~ '{}'", truth.rare_regex.0)),
        "common_count" => format!("SELECT count(*) AS n FROM logs WHERE body LIKE '%{}%'", truth.common.0),
        _ => "SELECT date_trunc('minute', timestamp) AS minute, level, count(*) AS n FROM logs GROUP BY 1, 2"
            .into(),
    };
    let form = vec![("query", query), ("format", "json".to_owned())];
    Question { name, language: Language::Sql, path: "/api/v1/sql", form }
}

fn logsql(protocol: Protocol, name: &'static str, truth: &Truth) -> Question {
    let (service, level) = match protocol {
        Protocol::Otlp => ("\"service.name\"", "severity"),
        _ => ("service_name", "level"),
    };
    let (mut from, mut to) = whole(truth);
    let mut form = Vec::new();
    let query = match name {
        "tail" => {
            (from, to) = (truth.tail.from_ns, truth.tail.to_ns - 1);
            // This parameter asks for the newest lines, the cheap way.
            form.push(("limit", LAST_LINES.to_string()));
            format!(r#"{{{service}="{}"}}"#, truth.tail.service)
        }
        "rare_word" => truth.rare_word.0.clone(),
        "trace_id" => format!("trace_id:={}", truth.trace.0),
        "rare_regex" => format!(r#"_msg:~"{}""#, truth.rare_regex.0),
        "common_count" => format!(r#"_msg:~"{}" | stats count() n"#, truth.common.0),
        _ => format!("* | stats by (_time:1m, {level}) count() n"),
    };
    form.extend([("query", query), ("start", from.to_string()), ("end", to.to_string())]);
    Question { name, language: Language::Logsql, path: "/select/logsql/query", form }
}

impl Question {
    /// Asks and reads the whole answer; milliseconds from sending to the last byte.
    pub async fn ask(&self, http: &Client, base: &str, tenant: Option<&str>) -> Result<(f64, Vec<u8>)> {
        let url = format!("{base}{}", self.path);
        let mut request = http.post(&url);
        if let Some(tenant) = tenant {
            request = request.header("x-scope-orgid", tenant);
        }
        let request = if self.language == Language::Sql {
            let body: serde_json::Map<String, Value> =
                self.form.iter().map(|(k, v)| ((*k).to_owned(), Value::from(v.as_str()))).collect();
            request.json(&body)
        } else {
            request.header("content-type", "application/x-www-form-urlencoded").body(form_encoded(&self.form))
        };
        let begun = Instant::now();
        let answer = request.send().await.with_context(|| format!("ask {url}"))?;
        let status = answer.status();
        let body = answer.bytes().await?;
        let took = begun.elapsed().as_secs_f64() * 1000.0;
        if !status.is_success() {
            bail!("{} by {url}: {status}: {}", self.name, String::from_utf8_lossy(&body).trim());
        }
        Ok((took, body.to_vec()))
    }

    /// Whether `body` is the right answer; if not, what it says and what it should say.
    pub fn check(&self, body: &[u8], truth: &Truth) -> std::result::Result<(), String> {
        let answer = self.parse(body).map_err(|e| format!("{e:#}"))?;
        let want_lines = |n: u64| match &answer {
            Answer::Lines(times) if times.len() as u64 == n => Ok(()),
            other => Err(format!("want {n} lines, got {}", other.describe())),
        };
        match self.name {
            "tail" => {
                want_lines(truth.tail.lines)?;
                let Answer::Lines(times) = &answer else { return Err("not lines".into()) };
                let (oldest, newest) = (times.iter().min(), times.iter().max());
                if (oldest, newest) == (Some(&truth.tail.oldest_ns), Some(&truth.tail.newest_ns)) {
                    return Ok(());
                }
                Err(format!(
                    "want {}..={}, got {oldest:?}..={newest:?}",
                    truth.tail.oldest_ns, truth.tail.newest_ns
                ))
            }
            "rare_word" => want_lines(truth.rare_word.1),
            "trace_id" => want_lines(truth.trace.1),
            "rare_regex" => want_lines(truth.rare_regex.1),
            "common_count" if answer == Answer::Count(truth.common.1) => Ok(()),
            "common_count" => Err(format!("want {}, got {}", truth.common.1, answer.describe())),
            _ => {
                let want = truth.levels.iter().map(|(at, level, n)| ((*at, level.clone()), *n)).collect();
                if answer == Answer::Levels(want) {
                    return Ok(());
                }
                Err(format!(
                    "want {} cells of {} lines, got {}",
                    truth.levels.len(),
                    truth.lines,
                    answer.describe()
                ))
            }
        }
    }

    fn parse(&self, body: &[u8]) -> Result<Answer> {
        match self.language {
            Language::Logql => self.parse_loki(&serde_json::from_slice(body).context("answer is no JSON")?),
            Language::Sql => {
                self.parse_rows(&serde_json::from_slice::<Vec<Value>>(body)?, "timestamp", "minute", "level")
            }
            Language::Logsql => {
                let rows: Result<Vec<Value>, _> =
                    serde_json::Deserializer::from_slice(body).into_iter().collect();
                let level =
                    if self.form.iter().any(|(_, v)| v.contains("severity")) { "severity" } else { "level" };
                self.parse_rows(&rows?, "_time", "_time", level)
            }
        }
    }

    /// Rows as JSON objects, as SQL and LogsQL answer.
    fn parse_rows(&self, rows: &[Value], time: &str, minute: &str, level: &str) -> Result<Answer> {
        Ok(match self.name {
            "common_count" => Answer::Count(number(&rows.first().context("no row")?["n"])?),
            "levels" => Answer::Levels(
                rows.iter()
                    .map(|row| {
                        let level = row[level].as_str().unwrap_or_default().to_uppercase();
                        Ok(((time_ns(&row[minute])?, level), number(&row["n"])?))
                    })
                    .collect::<Result<_>>()?,
            ),
            _ => Answer::Lines(rows.iter().map(|row| time_ns(&row[time])).collect::<Result<_>>()?),
        })
    }

    fn parse_loki(&self, answer: &Value) -> Result<Answer> {
        let result = answer["data"]["result"].as_array().context("answer has no data.result")?;
        let values = |series: &Value| series["values"].as_array().cloned().unwrap_or_default();
        Ok(match self.name {
            "common_count" => Answer::Count(number(&result.first().context("no sample")?["value"][1])?),
            "levels" => {
                let mut cells = BTreeMap::new();
                for series in result {
                    let level = series["metric"]["level"].as_str().unwrap_or_default().to_uppercase();
                    for value in values(series) {
                        let at =
                            value[0].as_f64().context("a sample has no time")? as i64 * SECOND_NS - MINUTE_NS;
                        cells.insert((at, level.clone()), number(&value[1])?);
                    }
                }
                Answer::Levels(cells)
            }
            _ => {
                let times: Result<Vec<i64>> =
                    result.iter().flat_map(values).map(|v| time_ns(&v[0])).collect();
                Answer::Lines(times?)
            }
        })
    }
}

impl Answer {
    fn describe(&self) -> String {
        match self {
            Self::Lines(times) => format!("{} lines", times.len()),
            Self::Count(n) => format!("the number {n}"),
            Self::Levels(cells) => format!("{} cells of {} lines", cells.len(), cells.values().sum::<u64>()),
        }
    }
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
                _ => {
                    _ = write!(out, "%{byte:02X}");
                }
            }
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::generate::truth::Tail;

    fn truth() -> Truth {
        Truth {
            lines: 3,
            first_ns: 1_795_075_200_000_000_001,
            last_ns: 1_795_075_261_000_000_000,
            tail: Tail {
                service: "s".into(),
                lines: 2,
                oldest_ns: 7,
                newest_ns: 1_795_075_200_000_000_001,
                ..Tail::default()
            },
            common: ("mi".into(), 68_658),
            levels: vec![
                (1_795_075_200_000_000_000, "INFO".into(), 2),
                (1_795_075_260_000_000_000, "ERROR".into(), 1),
            ],
            ..Truth::default()
        }
    }

    fn ask(language: Language, name: &str) -> Question {
        let all = questions(Protocol::Loki, language, &truth());
        all.into_iter().find(|q| q.name == name).unwrap()
    }

    #[test]
    fn right_answers_of_every_language_are_accepted() {
        for (language, name, body) in [
            (
                Language::Logql,
                "tail",
                r#"{"data":{"result":[{"values":[["7","a"],["1795075200000000001","b"]]}]}}"#,
            ),
            (Language::Logql, "common_count", r#"{"data":{"result":[{"metric":{},"value":[1,"68658"]}]}}"#),
            (
                Language::Logql,
                "levels",
                r#"{"data":{"result":[{"metric":{"level":"info"},"values":[[1795075260,"2"]]},{"metric":{"level":"error"},"values":[[1795075320,"1"]]}]}}"#,
            ),
            (
                Language::Logsql,
                "levels",
                "{\"_time\":\"2026-11-19T08:00:00Z\",\"level\":\"INFO\",\"n\":\"2\"}\n{\"_time\":\"2026-11-19T08:01:00Z\",\"level\":\"ERROR\",\"n\":\"1\"}\n",
            ),
            (Language::Sql, "tail", r#"[{"timestamp":"2026-11-19T08:00:00.000000001Z"},{"timestamp":7}]"#),
            (Language::Sql, "common_count", r#"[{"n":68658}]"#),
        ] {
            assert_eq!(ask(language, name).check(body.as_bytes(), &truth()), Ok(()), "{language:?} {name}");
        }
    }

    #[test]
    fn wrong_answers_are_told() {
        for (language, name, body) in [
            (Language::Logql, "tail", r#"{"data":{"result":[{"values":[["7","a"]]}]}}"#),
            (Language::Logql, "tail", r#"{"data":{"result":[{"values":[["8","a"],["9","b"]]}]}}"#),
            (Language::Sql, "common_count", r#"[{"n":68657}]"#),
            (
                Language::Logsql,
                "levels",
                "{\"_time\":\"2026-11-19T08:00:00Z\",\"level\":\"INFO\",\"n\":\"3\"}",
            ),
            (Language::Sql, "levels", "oops"),
        ] {
            assert!(ask(language, name).check(body.as_bytes(), &truth()).is_err(), "{language:?} {name}");
        }
    }

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
