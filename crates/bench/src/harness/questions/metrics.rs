//! The questions about samples, in PromQL, and whether an answer is right.

use std::result::Result;
use std::sync::Arc;

use serde_json::Value;

use super::{Body, Question, Request};
use crate::generate::fleet::{FleetTruth, QUERY_STEP_S, RATE_S, STEP_S, TOP};
use crate::harness::kind::Kind;

/// Names of the questions and what they ask, in the order they are asked.
pub const QUESTIONS: [(&str, &str); 3] = [
    ("rate", "sum of rate by minute"),
    ("quantile", "histogram quantile by minute"),
    ("top", "top 10 by rate at one time"),
];
/// So far a rate may lie from the slope between a window's first and last sample: Prometheus extrapolates to
/// the window's ends, VictoriaMetrics takes the sample before it.
const TOLERANCE: f64 = 0.05;
/// The quantile that is asked for.
const QUANTILE: f64 = 0.99;
/// The highest bound of the buckets but for infinity.
const HIGHEST_BOUND: f64 = 10.0;

/// All questions.
pub fn questions(kind: Kind, truth: &Arc<FleetTruth>) -> Vec<Question> {
    let rate = format!("rate({}[{RATE_S}s])", truth.counter);
    let of = truth.clone();
    let mut all = vec![Question::new("rate", over_time(kind, format!("sum({rate})"), truth), move |body| {
        check_rates(&values(body)?, &of)
    })];
    if let Some(buckets) = &truth.buckets {
        let query = format!("histogram_quantile({QUANTILE}, sum by (le) (rate({buckets}[{RATE_S}s])))");
        let of = truth.clone();
        all.push(Question::new("quantile", over_time(kind, query, truth), move |body| {
            check_quantiles(&values(body)?, &of)
        }));
    }
    let of = truth.clone();
    let query = format!("topk({TOP}, {rate})");
    all.push(Question::new("top", instant(kind, query, truth.to_s), move |body| check_top(body, &of)));
    all
}

/// Samples of each metric, counted over all of its time.
pub fn counts(kind: Kind, truth: &Arc<FleetTruth>) -> Vec<Question> {
    let seconds = truth.to_s - truth.from_s + RATE_S + 4 * STEP_S;
    let count = |(metric, samples): &(String, u64)| {
        let query = format!("sum(count_over_time({metric}[{seconds}s]))");
        let want = *samples as f64;
        let request = instant(kind, query, truth.to_s + STEP_S);
        Question::new(format!("samples of {metric}"), request, move |body| match instant_value(body) {
            Some(found) if (found - want).abs() < 0.5 => Ok(()),
            found => Err(format!("want {want}, got {found:?}")),
        })
    };
    truth.metrics.iter().map(count).collect()
}

fn instant(kind: Kind, query: String, at_s: i64) -> Request {
    let form = vec![("query", query), ("time", at_s.to_string())];
    Request { path: format!("{}/api/v1/query", kind.prometheus_prefix()), body: Body::Form(form) }
}

fn over_time(kind: Kind, query: String, truth: &FleetTruth) -> Request {
    let mut form = vec![
        ("query", query),
        ("start", truth.from_s.to_string()),
        ("end", truth.to_s.to_string()),
        ("step", QUERY_STEP_S.to_string()),
    ];
    if kind == Kind::VictoriaMetrics {
        // Else the second answer is the first one's, remembered.
        form.push(("nocache", "1".to_owned()));
    }
    Request { path: format!("{}/api/v1/query_range", kind.prometheus_prefix()), body: Body::Form(form) }
}

/// Steps of the only series of an answer.
fn values(body: &[u8]) -> Result<Vec<(i64, f64)>, String> {
    let answer: Value = serde_json::from_slice(body).map_err(|e| format!("answer is no JSON: {e}"))?;
    let result = answer["data"]["result"].as_array().ok_or("answer has no data.result")?;
    let [series] = &result[..] else { return Err(format!("want one series, got {}", result.len())) };
    let value = |pair: &Value| Some((pair[0].as_f64()? as i64, pair[1].as_str()?.parse().ok()?));
    let values: Option<Vec<(i64, f64)>> =
        series["values"].as_array().ok_or("a series has no values")?.iter().map(value).collect();
    values.ok_or_else(|| "a value is no number".to_owned())
}

/// The value of the only series of an instant vector.
pub fn instant_value(body: &[u8]) -> Option<f64> {
    let answer: Value = serde_json::from_slice(body).ok()?;
    let [series] = &answer["data"]["result"].as_array()?[..] else { return None };
    series["value"][1].as_str()?.parse().ok()
}

fn near(found: f64, want: f64) -> bool {
    (found - want).abs() <= want.abs() * TOLERANCE
}

fn check_steps(found: &[(i64, f64)], truth: &FleetTruth) -> Result<(), String> {
    let want = (truth.to_s - truth.from_s) / QUERY_STEP_S + 1;
    if found.len() as i64 == want { Ok(()) } else { Err(format!("want {want} steps, got {}", found.len())) }
}

fn check_rates(found: &[(i64, f64)], truth: &FleetTruth) -> Result<(), String> {
    check_steps(found, truth)?;
    for (at, want) in &truth.rates {
        let there = found.iter().find(|(time, _)| time == at).map(|(_, value)| *value);
        if !there.is_some_and(|found| near(found, *want)) {
            return Err(format!("want about {want} at {at}, got {there:?}"));
        }
    }
    Ok(())
}

fn check_quantiles(found: &[(i64, f64)], truth: &FleetTruth) -> Result<(), String> {
    check_steps(found, truth)?;
    let odd = found.iter().find(|(_, value)| !(*value > 0.0 && *value <= HIGHEST_BOUND));
    odd.map_or(Ok(()), |odd| Err(format!("{odd:?} is no quantile of buckets up to {HIGHEST_BOUND}")))
}

fn check_top(body: &[u8], truth: &FleetTruth) -> Result<(), String> {
    let answer: Value = serde_json::from_slice(body).map_err(|e| format!("answer is no JSON: {e}"))?;
    let result = answer["data"]["result"].as_array().ok_or("answer has no data.result")?;
    let value = |series: &Value| series["value"][1].as_str()?.parse().ok();
    let found: Option<Vec<f64>> = result.iter().map(value).collect();
    let mut found = found.ok_or("a value is no number")?;
    found.sort_by(|a, b| b.total_cmp(a));
    if found.len() == truth.top.len() && found.iter().zip(&truth.top).all(|(f, w)| near(*f, *w)) {
        return Ok(());
    }
    Err(format!("want about {:?}, got {found:?}", truth.top))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn truth() -> Arc<FleetTruth> {
        Arc::new(FleetTruth {
            from_s: 300,
            to_s: 420,
            metrics: vec![("up".into(), 28)],
            counter: "requests_total".into(),
            rates: vec![(300, 10.0), (420, 20.0)],
            top: vec![5.0, 4.0],
            buckets: Some("seconds_bucket".into()),
            ..FleetTruth::default()
        })
    }

    fn matrix(values: &Value) -> Value {
        json!({"data": {"result": [{"metric": {}, "values": values}]}})
    }

    #[test]
    fn right_answers_are_accepted_and_wrong_ones_told() {
        let vector = |values: &[&str]| {
            let series: Vec<Value> = values.iter().map(|v| json!({"value": [420, v]})).collect();
            json!({"data": {"result": series}})
        };
        let steps = |a: &str, c: &str| matrix(&json!([[300, a], [360, "9"], [420, c]]));
        for (key, right, wrong) in [
            ("rate", steps("10.2", "19.8"), steps("10.2", "15")),
            ("rate", steps("10", "20"), matrix(&json!([[300, "10"], [420, "20"]]))),
            ("quantile", steps("0.3", "9.9"), steps("0.3", "NaN")),
            ("top", vector(&["4.01", "5"]), vector(&["5"])),
            ("top", vector(&["5", "4"]), vector(&["5", "3"])),
            ("samples of up", vector(&["28"]), vector(&["27"])),
        ] {
            let mut all = questions(Kind::Prometheus, &truth());
            all.extend(counts(Kind::Prometheus, &truth()));
            let question = all.into_iter().find(|q| q.key == key).unwrap();
            let check = &question.wordings[0].1;
            assert_eq!(check(right.to_string().as_bytes()), Ok(()), "{key}");
            assert!(check(wrong.to_string().as_bytes()).is_err(), "{key}: {wrong}");
        }
    }
}
