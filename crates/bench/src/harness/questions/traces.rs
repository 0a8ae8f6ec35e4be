//! The questions about spans, and whether an answer is right.

use std::collections::{BTreeMap, HashMap};
use std::result::Result;
use std::sync::Arc;

use serde_json::{Value, json};

use super::{Body, Language, Question, Request, literal, number, time_ns};
use crate::generate::traces::{NEWEST, SLOW_NS, TraceTruth};

/// Names of the questions and what they ask, in the order they are asked.
pub const QUESTIONS: [(&str, &str); 5] = [
    ("trace", "trace by id"),
    ("newest", "newest 20 of a service + operation in 15 minutes"),
    ("slow", "status 500 and longer than 1 s"),
    ("errors", "errors by service per minute"),
    ("p99", "p99 by operation"),
];

/// All questions in a language; keys name it.
pub fn questions(language: Language, truth: &Arc<TraceTruth>) -> Vec<Question> {
    match language {
        Language::Tempo => vec![trace_by_id(truth)],
        Language::Sql => vec![
            sql("newest", &newest_sql(truth), truth, check_newest),
            sql("slow", &slow_sql(), truth, check_slow),
            sql("errors", ERRORS_SQL, truth, check_errors),
            sql("p99", P99_SQL, truth, check_p99),
        ],
        _ => Vec::new(),
    }
}

/// Questions that show that nothing was lost.
pub fn counts(truth: &Arc<TraceTruth>) -> Vec<Question> {
    vec![sql("spans", "SELECT count(*) AS n FROM spans", truth, |rows, truth| {
        let found = rows.first().and_then(|row| number(&row["n"]).ok());
        if found == Some(truth.spans) {
            Ok(())
        } else {
            Err(format!("want {} spans, got {found:?}", truth.spans))
        }
    })]
}

/// A trace's path in Tempo's API.
pub fn trace_path(id: &str) -> String {
    format!("/tempo/api/traces/{id}")
}

/// Each of the kept traces in turn.
fn trace_by_id(truth: &TraceTruth) -> Question {
    let wording = |(id, spans): &(String, u64)| {
        let want = *spans;
        let check: super::Check = Box::new(move |body| match count_spans(body) {
            Some(found) if found == want => Ok(()),
            found => Err(format!("want {want} spans, got {found:?}")),
        });
        (Request { path: trace_path(id), body: Body::Get("application/protobuf") }, check)
    };
    Question { key: "trace tempo".to_owned(), wordings: truth.kept.iter().map(wording).collect() }
}

/// Spans of a `tempopb.Trace` or `TracesData`: `ResourceSpans` (1), `ScopeSpans` (2), `Span` (2).
pub fn count_spans(body: &[u8]) -> Option<u64> {
    fn inside(message: &[u8], path: &[u64]) -> Option<u64> {
        let Some((wanted, path)) = path.split_first() else { return Some(1) };
        let (mut rest, mut found) = (message, 0);
        while !rest.is_empty() {
            let key = varint(&mut rest)?;
            let len = match key & 7 {
                0 => {
                    varint(&mut rest)?;
                    continue;
                }
                1 => 8,
                2 => usize::try_from(varint(&mut rest)?).ok()?,
                5 => 4,
                _ => return None,
            };
            let (field, more) = rest.split_at_checked(len)?;
            if key == wanted << 3 | 2 {
                found += inside(field, path)?;
            }
            rest = more;
        }
        Some(found)
    }
    inside(body, &[1, 2, 2])
}

fn varint(rest: &mut &[u8]) -> Option<u64> {
    let (mut value, mut shift) = (0u64, 0);
    while shift < 64 {
        let (byte, more) = rest.split_first()?;
        *rest = more;
        value |= u64::from(byte & 127) << shift;
        if *byte < 128 {
            return Some(value);
        }
        shift += 7;
    }
    None
}

fn sql(
    name: &'static str,
    query: &str,
    truth: &Arc<TraceTruth>,
    check: fn(&[Value], &TraceTruth) -> Result<(), String>,
) -> Question {
    let request = Request {
        path: "/api/v1/sql".to_owned(),
        body: Body::Json(json!({"query": query, "format": "json"})),
    };
    let truth = truth.clone();
    Question::new(format!("{name} sql"), request, move |body| {
        let rows: Vec<Value> = serde_json::from_slice(body).map_err(|e| format!("answer is no rows: {e}"))?;
        check(&rows, &truth)
    })
}

fn newest_sql(truth: &TraceTruth) -> String {
    let newest = &truth.newest;
    format!(
        "SELECT trace_id, span_id, start, duration_ns, status FROM spans WHERE service_name = '{}' \
         AND operation = '{}' AND start >= {} AND start < {} ORDER BY start DESC LIMIT {NEWEST}",
        newest.service,
        newest.operation,
        literal(newest.from_ns),
        literal(newest.to_ns)
    )
}

fn check_newest(rows: &[Value], truth: &TraceTruth) -> Result<(), String> {
    let starts: Result<Vec<i64>, _> = rows.iter().map(|row| time_ns(&row["start"])).collect();
    let starts = starts.map_err(|e| format!("{e:#}"))?;
    if starts == truth.newest.starts {
        return Ok(());
    }
    Err(format!(
        "want {} spans from {:?} back, got {} from {:?}",
        truth.newest.starts.len(),
        truth.newest.starts.first(),
        starts.len(),
        starts.first()
    ))
}

fn slow_sql() -> String {
    format!(
        "SELECT trace_id, span_id, start, service_name, operation, duration_ns FROM spans \
         WHERE http_response_status_code = '500' AND duration_ns > {SLOW_NS}"
    )
}

fn check_slow(rows: &[Value], truth: &TraceTruth) -> Result<(), String> {
    if rows.len() as u64 == truth.slow {
        return Ok(());
    }
    Err(format!("want {} spans, got {}", truth.slow, rows.len()))
}

const ERRORS_SQL: &str = "SELECT minute, service_name, count(*) AS n FROM spans WHERE status = 'error' \
     GROUP BY minute, service_name";

fn check_errors(rows: &[Value], truth: &TraceTruth) -> Result<(), String> {
    let cell = |row: &Value| -> anyhow::Result<((i64, String), u64)> {
        let service = row["service_name"].as_str().unwrap_or_default().to_owned();
        Ok(((time_ns(&row["minute"])?, service), number(&row["n"])?))
    };
    let found: anyhow::Result<BTreeMap<_, _>> = rows.iter().map(cell).collect();
    let found = found.map_err(|e| format!("{e:#}"))?;
    let want: BTreeMap<_, _> =
        truth.errors.iter().map(|(at, service, n)| ((*at, service.clone()), *n)).collect();
    if found == want {
        return Ok(());
    }
    let spans = |cells: &BTreeMap<_, u64>| cells.values().sum::<u64>();
    Err(format!(
        "want {} cells of {} spans, got {} of {}",
        want.len(),
        spans(&want),
        found.len(),
        spans(&found)
    ))
}

const P99_SQL: &str = "SELECT operation, approx_percentile_cont(0.99) WITHIN GROUP (ORDER BY duration_ns) AS p99 FROM spans \
     GROUP BY operation";

fn check_p99(rows: &[Value], truth: &TraceTruth) -> Result<(), String> {
    let bounds: HashMap<&str, (i64, i64)> =
        truth.p99.iter().map(|(name, low, high)| (name.as_str(), (*low, *high))).collect();
    if rows.len() != bounds.len() {
        return Err(format!("want {} operations, got {}", bounds.len(), rows.len()));
    }
    for row in rows {
        let name = row["operation"].as_str().unwrap_or_default();
        let Some((low, high)) = bounds.get(name) else {
            return Err(format!("no operation is named {name:?}"));
        };
        let p99 = number(&row["p99"]).map_err(|e| format!("{e:#}"))? as i64;
        if !(*low..=*high).contains(&p99) {
            return Err(format!("p99 of {name:?} lies in {low}..={high} ns, not at {p99}"));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::encode::otlp_spans;
    use crate::generate::DEFAULT_START_NS;
    use crate::generate::traces::{TracePlan, batches};

    fn small() -> (Arc<TraceTruth>, Vec<u8>) {
        let mut body = Vec::new();
        let plan = TracePlan { spans: 20_000, seed: 1, start_ns: DEFAULT_START_NS };
        let truth = batches(&plan, |spans, streams| {
            otlp_spans(spans, streams, &mut body);
            Ok(())
        });
        (Arc::new(truth.unwrap()), body)
    }

    fn ask(truth: &Arc<TraceTruth>, key: &str, answer: &Value) -> Result<(), String> {
        let mut all = questions(Language::Sql, truth);
        all.extend(counts(truth));
        let question = all.into_iter().find(|q| q.key == key).unwrap();
        question.wordings[0].1(answer.to_string().as_bytes())
    }

    #[test]
    fn right_answers_are_accepted_and_wrong_ones_told() {
        let (truth, _) = small();
        let newest: Vec<Value> = truth.newest.starts.iter().map(|at| json!({"start": at})).collect();
        let slow = vec![json!({}); truth.slow as usize];
        let errors: Vec<Value> = truth
            .errors
            .iter()
            .map(|(at, service, n)| json!({"minute": at, "service_name": service, "n": n}))
            .collect();
        let p99: Vec<Value> =
            truth.p99.iter().map(|(name, low, _)| json!({"operation": name, "p99": low})).collect();
        for (key, mut rows) in [
            ("newest sql", newest),
            ("slow sql", slow),
            ("errors sql", errors),
            ("p99 sql", p99),
            ("spans sql", vec![json!({"n": truth.spans})]),
        ] {
            assert_eq!(ask(&truth, key, &rows.clone().into()), Ok(()), "{key}");
            if rows.pop().is_some() {
                assert!(ask(&truth, key, &rows.into()).is_err(), "{key} misses a row");
            } else {
                assert!(ask(&truth, key, &json!([{}])).is_err(), "{key} has a row too many");
            }
        }
    }

    #[test]
    fn spans_of_an_answer_are_counted() {
        let (truth, body) = small();
        assert_eq!(count_spans(&body), Some(truth.spans));
        assert_eq!(count_spans(&body[..body.len() - 1]), None);
        let question = trace_by_id(&truth);
        assert!(question.wordings[0].1(&body).is_err(), "that is more than one trace");
    }
}
