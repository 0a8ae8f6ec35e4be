//! Hundreds of generated queries are answered as a real Prometheus 3 answers them on the same series.
//!
//! The server is `$TRINE_PROMETHEUS` or `prometheus` on the path; without one of version 3 the test says so
//! and passes.

mod bodies;
#[allow(dead_code, reason = "made for the bodies alone, of which this needs less")]
#[path = "../api/memory.rs"]
mod memory;
mod queries;
mod reader;
mod server;
mod wire;

use std::collections::BTreeMap;

use serde_json::Value as Json;
use trine_promql::{Answer, Engine, Error, Labels, MatrixSeries, Sample, Value};

/// Largest relative difference of two equal values.
const TOLERANCE: f64 = 1e-9;

#[test]
fn answers_are_those_of_prometheus() {
    let Some(server) = server::start("promql", "") else {
        eprintln!("no Prometheus 3 found, nothing was compared");
        return;
    };
    let source = queries::source();
    server.load(&source);
    let engine = Engine::default();
    let (start, end) = (queries::START + 20 * 60_000 + 7_000, queries::END);
    let mut wrong = Vec::new();
    let mut compared = 0;
    for query in queries::all() {
        let at = format!("time={}.{:03}", end / 1000, end % 1000);
        let instant = compare(&server.query("query", &query, &at), engine.instant(&source, &query, end));
        let times = format!("start={}&end={}&step=97", start / 1000, end / 1000);
        let step = 97_000;
        let range = compare(
            &server.query("query_range", &query, &times),
            engine.range(&source, &query, start / 1000 * 1000, end / 1000 * 1000, step),
        );
        for (kind, result) in [("instant", instant), ("range", range)] {
            compared += 1;
            if let Err(error) = result {
                wrong.push(format!("{kind} {query}\n    {error}"));
            }
        }
    }
    let tables = bodies::tables(&source);
    let (other_bodies, bodies) = bodies::differences(&server, &tables);
    compared += bodies;
    wrong.extend(other_bodies);
    println!("{compared} answers compared, {} differ", wrong.len());
    assert!(compared > 600, "only {compared} answers were compared");
    assert!(wrong.is_empty(), "{} of {compared} differ:\n{}", wrong.len(), wrong.join("\n"));
}

/// Samples by series and time, as text of the labels.
type Series = BTreeMap<String, BTreeMap<i64, Json>>;

fn compare(theirs: &Json, ours: Result<Answer, Error>) -> Result<(), String> {
    let ours = match ours {
        Err(error) => {
            let error = error.to_string();
            let theirs = theirs["error"].as_str().unwrap_or("an answer");
            let theirs = theirs.trim_start_matches("invalid parameter \"query\": ");
            // Which pair of several is named depends on the order the storage yields them in.
            let duplicates = "found duplicate series for the match group";
            let same = theirs == error || [theirs, &error].iter().all(|text| text.starts_with(duplicates));
            return if same { Ok(()) } else { Err(format!("failed: {error}\n    theirs: {theirs}")) };
        }
        Ok(ours) => ours,
    };
    if let Some(error) = theirs["error"].as_str() {
        return Err(format!("should fail: {error}"));
    }
    for (kind, ours) in [("warnings", &ours.warnings), ("infos", &ours.infos)] {
        let theirs = theirs[kind].as_array().into_iter().flatten().filter_map(Json::as_str);
        let mut theirs: Vec<&str> = theirs.map(without_place).collect();
        // Since 3.10 sorting in a range query is warned of; servers before do not.
        let ours = ours.iter().filter(|text| !text.contains("sort is ineffective"));
        let mut ours: Vec<&str> = ours.map(|text| without_place(text)).collect();
        theirs.sort_unstable();
        ours.sort_unstable();
        // The API tells ten at most.
        if theirs.len() < 10 && theirs != ours {
            return Err(format!("{kind} {ours:?}\n    theirs: {theirs:?}"));
        }
    }
    let data = &theirs["data"];
    let kind = data["resultType"].as_str().unwrap_or_default();
    if kind != ours.value.type_name() {
        return Err(format!("a {}, theirs a {kind}", ours.value.type_name()));
    }
    let theirs = match kind {
        "scalar" | "string" => {
            BTreeMap::from([(String::new(), points(&Json::from(vec![data["result"].clone()])))])
        }
        _ => data["result"].as_array().into_iter().flatten().map(their_series).collect(),
    };
    same(&our_series(ours.value), &theirs)
}

/// An annotation without its place in the query: up to 3.9 some named the wrong one. Scripts check ours.
fn without_place(text: &str) -> &str {
    text.rsplit_once(" (").map_or(text, |(text, _)| text)
}

fn points(pairs: &Json) -> BTreeMap<i64, Json> {
    let pairs = pairs.as_array().into_iter().flatten();
    pairs
        .map(|pair| ((pair[0].as_f64().unwrap_or_default() * 1000.0).round() as i64, pair[1].clone()))
        .collect()
}

fn their_series(series: &Json) -> (String, BTreeMap<i64, Json>) {
    let labels = series["metric"].as_object().into_iter().flatten();
    let labels = Labels::new(labels.map(|(name, value)| (name.as_str(), value.as_str().unwrap_or_default())));
    let mut samples = BTreeMap::new();
    for single in ["value", "histogram"] {
        if !series[single].is_null() {
            samples.extend(points(&Json::from(vec![series[single].clone()])));
        }
    }
    for many in ["values", "histograms"] {
        samples.extend(points(&series[many]));
    }
    (labels.to_string(), samples)
}

fn our_series(value: Value) -> Series {
    let float = |value: f64| Json::from(trine_promql::format::float(value));
    let sample = |sample: &Sample| match sample {
        Sample::Float(value) => float(*value),
        Sample::Histogram(histogram) => {
            let text = trine_promql::format::float;
            let buckets = histogram.answer_buckets().into_iter().map(|(boundary, lower, upper, count)| {
                serde_json::json!([boundary, text(lower), text(upper), text(count)])
            });
            let buckets: Vec<Json> = buckets.collect();
            serde_json::json!({"count": text(histogram.count), "sum": text(histogram.sum), "buckets": buckets})
        }
    };
    match value {
        Value::Scalar(time, value) => {
            BTreeMap::from([(String::new(), BTreeMap::from([(time, float(value))]))])
        }
        Value::String(time, text) => {
            BTreeMap::from([(String::new(), BTreeMap::from([(time, Json::from(text))]))])
        }
        Value::Vector(vector) => vector
            .iter()
            .map(|series| {
                (series.labels.to_string(), BTreeMap::from([(series.timestamp, sample(&series.sample))]))
            })
            .collect(),
        Value::Matrix(matrix) => {
            let all = |series: &MatrixSeries| {
                let floats = series.floats.iter().map(|(time, value)| (*time, float(*value)));
                let histograms = series.histograms.iter();
                let histograms =
                    histograms.map(|(time, value)| (*time, sample(&Sample::Histogram(value.clone()))));
                (series.labels.to_string(), floats.chain(histograms).collect())
            };
            matrix.iter().map(all).collect()
        }
    }
}

fn same(ours: &Series, theirs: &Series) -> Result<(), String> {
    if let Some(labels) = theirs.keys().find(|labels| !ours.contains_key(*labels)) {
        return Err(format!("{labels} is missing"));
    }
    for (labels, samples) in ours {
        let Some(theirs) = theirs.get(labels) else { return Err(format!("{labels} is not theirs")) };
        if samples.keys().ne(theirs.keys()) {
            return Err(format!("{labels} has {} samples, theirs {}", samples.len(), theirs.len()));
        }
        for (time, sample) in samples {
            if !equal(sample, &theirs[time]) {
                return Err(format!("{labels} at {time}: {sample}\n    theirs: {}", theirs[time]));
            }
        }
    }
    Ok(())
}

fn equal(ours: &Json, theirs: &Json) -> bool {
    match (ours, theirs) {
        (Json::String(ours), Json::String(theirs)) => {
            let (Ok(a), Ok(b)) = (ours.parse::<f64>(), theirs.parse::<f64>()) else { return ours == theirs };
            a.to_bits() == b.to_bits()
                || a.is_nan() && b.is_nan()
                || (a - b).abs() <= TOLERANCE * a.abs().max(b.abs())
        }
        (Json::Array(ours), Json::Array(theirs)) => {
            ours.len() == theirs.len() && ours.iter().zip(theirs).all(|(ours, theirs)| equal(ours, theirs))
        }
        (Json::Object(ours), Json::Object(theirs)) => ours.iter().all(|(key, ours)| {
            let none = Json::Array(Vec::new());
            equal(ours, theirs.get(key).unwrap_or(&none))
        }),
        _ => ours == theirs,
    }
}
