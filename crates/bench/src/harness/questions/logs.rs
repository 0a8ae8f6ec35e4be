//! The six questions about logs in each server's language, and whether an answer is right.

use std::collections::BTreeMap;
use std::sync::Arc;

use anyhow::{Context, Result};
use serde_json::Value;

use super::{Body, Language, MINUTE_NS, Request, SECOND_NS, literal, number, time_ns};
use crate::generate::truth::{LAST_LINES, Truth};
use crate::harness::kind::Protocol;

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

/// One question to one server.
#[derive(Debug, Clone)]
struct Question {
    /// Name from [`QUESTIONS`].
    name: &'static str,
    /// Its language.
    language: Language,
    path: &'static str,
    form: Vec<(&'static str, String)>,
}

/// An answer taken apart.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Answer {
    /// Times of the lines found, Unix nanoseconds, in any order.
    Lines(Vec<i64>),
    /// A number.
    Count(u64),
    /// Counts by minute and upper-case level.
    Levels(BTreeMap<(i64, String), u64>),
}

/// All questions for a server that took its data by `protocol`; with `several` languages the keys name
/// theirs.
pub fn questions(
    protocol: Protocol,
    language: Language,
    truth: &Arc<Truth>,
    several: bool,
) -> Vec<super::Question> {
    let asked = |question: Question| {
        let name = question.name;
        let key = if several { format!("{name} {}", language.name()) } else { name.to_owned() };
        let truth = truth.clone();
        super::Question::new(key, question.request(), move |body| question.check(body, &truth))
    };
    every(protocol, language, truth).map(asked).collect()
}

fn every(protocol: Protocol, language: Language, truth: &Truth) -> impl Iterator<Item = Question> {
    QUESTIONS.iter().map(move |(name, _)| match language {
        Language::Sql => sql(name, truth),
        Language::Logsql => logsql(protocol, name, truth),
        _ => logql(name, truth),
    })
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
    fn request(&self) -> Request {
        let body = if self.language == Language::Sql {
            let json: serde_json::Map<String, Value> =
                self.form.iter().map(|(k, v)| ((*k).to_owned(), Value::from(v.as_str()))).collect();
            Body::Json(json.into())
        } else {
            Body::Form(self.form.clone())
        };
        Request { path: self.path.to_owned(), body }
    }

    /// Whether `body` is the right answer; if not, what it says and what it should say.
    fn check(&self, body: &[u8], truth: &Truth) -> std::result::Result<(), String> {
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
            _ => self.parse_loki(&serde_json::from_slice(body).context("answer is no JSON")?),
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
        every(Protocol::Loki, language, &truth()).find(|q| q.name == name).unwrap()
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
}
