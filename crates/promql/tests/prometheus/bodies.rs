//! Whole bodies of the HTTP API beside those of Prometheus, over the same series.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use serde_json::Value as Json;
use trine_model::TenantId;
use trine_promql::{
    MemorySource, ResetHint,
    api::{Api, Endpoint, Reply, Request},
};
use trine_schema::{BucketSpans, NativeHistogram, Samples};

use crate::{
    equal,
    memory::Memory,
    queries,
    server::{Server, escaped},
    without_place,
};

/// The same series as tables.
pub fn tables(source: &MemorySource) -> Memory {
    let mut tables = Memory::default();
    let side = |buckets: &trine_promql::Buckets| BucketSpans {
        spans: buckets.spans(),
        counts: buckets.count.clone(),
    };
    for (labels, samples) in source.iter() {
        let labels: Vec<(&str, &str)> = labels.iter().collect();
        let histograms = samples.histograms.iter().map(|histogram| {
            Arc::new(NativeHistogram {
                reset_hint: match histogram.reset_hint {
                    ResetHint::Gauge => trine_schema::ResetHint::Gauge,
                    _ => trine_schema::ResetHint::Unknown,
                },
                schema: histogram.schema,
                zero_threshold: histogram.zero_threshold,
                zero_count: histogram.zero_count,
                count: histogram.count,
                sum: histogram.sum,
                positive: side(&histogram.positive),
                negative: side(&histogram.negative),
                custom_bounds: histogram.custom_bounds.to_vec(),
            })
        });
        let samples = Samples {
            timestamps: samples.timestamps.clone(),
            values: samples.values.clone(),
            histogram_timestamps: samples.histogram_timestamps.clone(),
            histograms: histograms.collect(),
            ..Samples::default()
        };
        tables.add(&labels, samples);
    }
    tables
}

fn ours(tables: &Memory, endpoint: &Endpoint, params: &[(&str, &str)]) -> Reply {
    let params: Vec<_> =
        params.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    let request = Request {
        params: &params,
        tenant: TenantId::default(),
        tables,
        now_ms: queries::START,
        deadline: Instant::now() + Duration::from_secs(60),
        stats: Arc::default(),
    };
    Api::default().answer(endpoint, &request)
}

/// What has no order is sorted; which annotations are among the first ten is left to chance by Prometheus.
fn ordered(mut body: Json, sorted: bool) -> Json {
    if let Some(result) = body.pointer_mut("/data/result").and_then(Json::as_array_mut).filter(|_| !sorted) {
        result.sort_by_cached_key(|series| series["metric"].to_string());
    }
    if let Some(stats) = body.pointer_mut("/data/stats").and_then(Json::as_object_mut) {
        // Times differ, and so does what is held at once.
        stats.remove("timings");
        stats["samples"].as_object_mut().map(|samples| samples.remove("peakSamples"));
    }
    for kind in ["warnings", "infos"] {
        if let Some(notes) = body.get_mut(kind).and_then(Json::as_array_mut) {
            // As of the answers: places were wrong up to 3.9, and sorting is warned of since 3.10.
            notes.retain(|note| !note.to_string().contains("sort is ineffective"));
            for note in &mut *notes {
                *note = without_place(note.as_str().unwrap_or_default()).into();
            }
            notes.sort_by_cached_key(ToString::to_string);
            if notes.len() > 10 {
                notes.clear();
            }
            if notes.is_empty() {
                body.as_object_mut().map(|body| body.remove(kind));
            }
        }
    }
    body
}

/// Compares status and body; `Err` tells both.
fn compare(
    server: &Server,
    tables: &Memory,
    (endpoint, path): (&Endpoint, &str),
    params: &[(&str, &str)],
) -> Result<(), String> {
    let query: Vec<_> =
        params.iter().map(|(name, value)| format!("{}={}", escaped(name), escaped(value))).collect();
    let (status, theirs) = server.body(&format!("/api/v1/{path}?{}", query.join("&")));
    let reply = ours(tables, endpoint, params);
    let our_body = String::from_utf8(reply.body).map_err(|error| error.to_string())?;
    let parse = |body: &str| serde_json::from_str::<Json>(body).map_err(|error| format!("{error}: {body}"));
    let sorted = params.iter().any(|(_, value)| value.contains("sort"));
    let both = (ordered(parse(&our_body)?, sorted), ordered(parse(&theirs)?, sorted));
    let duplicates = "found duplicate series for the match group";
    let of_chance = [&our_body, &theirs].iter().all(|body| body.contains(duplicates));
    // Newer servers tell more of a tree than older ones.
    let same = (path == "parse_query" || equal(&both.0, &both.1)) && equal(&both.1, &both.0);
    if reply.status == status && (same || of_chance) {
        return Ok(());
    }
    let cut = |text: &str| text.chars().take(600).collect::<String>();
    Err(format!(
        "{path} {params:?}\n    {} {}\n    theirs: {status} {}",
        reply.status,
        cut(&our_body),
        cut(&theirs)
    ))
}

/// All differences, and how many bodies were compared.
pub fn differences(server: &Server, tables: &Memory) -> (Vec<String>, usize) {
    let second = |minute: i64| format!("{}", queries::START / 1000 + minute * 60 + 7);
    let (start, end) = (second(20), second(80));
    let mut wrong = Vec::new();
    let mut compared = 0;
    let mut check = |endpoint: &Endpoint, path: &str, params: &[(&str, &str)]| {
        compared += 1;
        wrong.extend(compare(server, tables, (endpoint, path), params).err());
    };
    for query in queries::all() {
        let query = ("query", query.as_str());
        let all = ("stats", "all");
        check(&Endpoint::Query, "query", &[query, ("time", &end), all]);
        check(
            &Endpoint::QueryRange,
            "query_range",
            &[query, ("start", &start), ("end", &end), ("step", "1m37s"), all],
        );
        check(&Endpoint::FormatQuery, "format_query", &[query]);
        check(&Endpoint::ParseQuery, "parse_query", &[query]);
    }
    for (endpoint, path, params) in others(&start, &end) {
        check(&endpoint, path, &params);
    }
    (wrong, compared)
}

type Case<'a> = (Endpoint, &'a str, Vec<(&'a str, &'a str)>);

fn others<'a>(start: &'a str, end: &'a str) -> Vec<Case<'a>> {
    use Endpoint::{Labels, Metadata, Query, QueryRange, Series};
    let values = |name: &str| Endpoint::LabelValues(name.to_owned());
    vec![
        (Query, "query", vec![("query", "sum(")]),
        (Query, "query", vec![("query", "1"), ("time", "soon")]),
        (Query, "query", vec![("query", "1"), ("time", end), ("limit", "-1")]),
        (Query, "query", vec![("query", "1"), ("time", end), ("limit", "x")]),
        (Query, "query", vec![("query", "1"), ("time", end), ("timeout", "x")]),
        (Query, "query", vec![("query", "1"), ("time", end), ("lookback_delta", "x")]),
        (Query, "query", vec![("query", "1e-9"), ("time", "1.0005")]),
        (Query, "query", vec![("query", "vector(1e-9)"), ("time", "-1.25")]),
        (Query, "query", vec![("query", "vector(1e21)"), ("time", "2023-11-14T23:13:20.125+01:00")]),
        (Query, "query", vec![("query", "\"a<b>\u{1f600}\\n\""), ("time", end)]),
        (Query, "query", vec![("query", "sort(level)"), ("time", end), ("limit", "2")]),
        (Query, "query", vec![("query", "level"), ("time", end), ("lookback_delta", "10s")]),
        (QueryRange, "query_range", vec![("query", "1")]),
        (QueryRange, "query_range", vec![("query", "1"), ("start", "2"), ("end", "1"), ("step", "1")]),
        (QueryRange, "query_range", vec![("query", "1"), ("start", "1"), ("end", "2"), ("step", "0")]),
        (QueryRange, "query_range", vec![("query", "1"), ("start", "1"), ("end", "2"), ("step", "x")]),
        (QueryRange, "query_range", vec![("query", "1"), ("start", "0"), ("end", "11000"), ("step", "1")]),
        (QueryRange, "query_range", vec![("query", "1"), ("start", "0"), ("end", "11001"), ("step", "1")]),
        (QueryRange, "query_range", vec![("query", "m[5m]"), ("start", "0"), ("end", "1"), ("step", "1")]),
        (Labels, "labels", vec![]),
        (Labels, "labels", vec![("limit", "2")]),
        (Labels, "labels", vec![("match[]", "level")]),
        (Labels, "labels", vec![("match[]", "{}")]),
        (Labels, "labels", vec![("match[]", "{job=~\".*\"}")]),
        (Labels, "labels", vec![("match[]", "level"), ("match[]", "none")]),
        (values("job"), "label/job/values", vec![]),
        (values("job"), "label/job/values", vec![("match[]", "{job!=\"db\"}")]),
        (
            values("__name__"),
            "label/__name__/values",
            vec![("match[]", "level"), ("match[]", "requests_total")],
        ),
        (values("U__job"), "label/U__job/values", vec![]),
        (Series, "series", vec![]),
        (Series, "series", vec![("match[]", "level{job=\"db\"}"), ("start", start), ("end", end)]),
        (Series, "series", vec![("match[]", "{")]),
        (Endpoint::FormatQuery, "format_query", vec![("query", "foo{")]),
        (Query, "query", vec![("query", "level"), ("time", end), ("stats", "true")]),
        (Metadata, "metadata", vec![("limit", "x")]),
        (Metadata, "metadata", vec![("limit_per_metric", "x")]),
        (Metadata, "metadata", vec![("metric", "none"), ("limit", "0"), ("limit_per_metric", "-1")]),
    ]
}
