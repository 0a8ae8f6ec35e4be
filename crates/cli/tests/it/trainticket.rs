//! A real system's telemetry: what SQL and LogQL count, and what a plain reading of the files counts, is the
//! same.

use std::{
    collections::{BTreeMap, HashMap},
    io::{BufRead, BufReader},
    path::{Path, PathBuf},
};

use serde_json::Value;

use crate::site::Site;

/// One of the files, where they are there.
fn file(name: &str) -> Option<PathBuf> {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/data/trainticket").join(name);
    if file.exists() {
        return Some(file);
    }
    println!("skipped: {} is not there", file.display());
    None
}

/// Its export requests. Python wrote numbers that are none without quotes.
fn requests(file: &Path) -> impl Iterator<Item = Value> {
    let mut decoder = zstd::stream::read::Decoder::new(std::fs::File::open(file).unwrap()).unwrap();
    decoder.window_log_max(27).unwrap();
    let lines = BufReader::new(decoder).lines();
    lines.map(|line| serde_json::from_str(&line.unwrap().replace(":NaN}", ":0}")).unwrap())
}

/// The items of a request with the service of their resource.
fn items<'a>(
    request: &'a Value,
    [resources, scopes, items]: [&'a str; 3],
) -> impl Iterator<Item = (&'a str, &'a Value)> {
    request[resources].as_array().unwrap().iter().flat_map(move |resource| {
        let attributes = resource["resource"]["attributes"].as_array().unwrap();
        let service = attributes.iter().find(|a| a["key"] == "service.name").unwrap();
        let service = service["value"]["stringValue"].as_str().unwrap();
        let scopes = resource[scopes].as_array().unwrap().iter();
        scopes.flat_map(move |scope| scope[items].as_array().unwrap().iter().map(move |item| (service, item)))
    })
}

const LOGS: [&str; 3] = ["resourceLogs", "scopeLogs", "logRecords"];
const SPANS: [&str; 3] = ["resourceSpans", "scopeSpans", "spans"];

fn nanos(value: &Value) -> i64 {
    value.as_str().unwrap().parse().unwrap()
}

/// Rows of a query as a map of the columns `key` and `n`.
fn counts(site: &Site, query: &str) -> BTreeMap<String, u64> {
    let rows = site.sql(query);
    rows.iter().map(|row| (row["key"].as_str().unwrap().to_owned(), row["n"].as_u64().unwrap())).collect()
}

#[test]
fn spans_and_logs_of_each_trace_and_their_join_agree_with_the_files() {
    let Some(files) = ["logs", "spans", "metrics"]
        .map(|name| file(&format!("{name}.jsonl.zst")))
        .into_iter()
        .collect::<Option<Vec<_>>>()
    else {
        return;
    };
    let (mut spans, mut logs) = (BTreeMap::<String, u64>::new(), BTreeMap::<String, u64>::new());
    let mut slow: HashMap<String, Vec<(i64, i64)>> = HashMap::new();
    for request in requests(&files[1]) {
        for (_, span) in items(&request, SPANS) {
            let trace = span["traceId"].as_str().unwrap();
            *spans.entry(trace.to_owned()).or_default() += 1;
            let (start, end) = (nanos(&span["startTimeUnixNano"]), nanos(&span["endTimeUnixNano"]));
            if end - start > 1_000_000_000 {
                slow.entry(trace.to_owned()).or_default().push((start, end));
            }
        }
    }
    let mut pairs = 0;
    for request in requests(&files[0]) {
        for (_, record) in items(&request, LOGS) {
            let Some(trace) = record["traceId"].as_str().filter(|id| !id.is_empty()) else { continue };
            *logs.entry(trace.to_owned()).or_default() += 1;
            if (17..=20).contains(&record["severityNumber"].as_i64().unwrap_or(0)) {
                let at = nanos(&record["timeUnixNano"]);
                let around = slow.get(trace).into_iter().flatten();
                pairs += around.filter(|(start, end)| (*start..=*end).contains(&at)).count() as u64;
            }
        }
    }
    assert!(spans.len() > 4_000 && logs.len() > 1_000 && pairs > 10, "{pairs} pairs");

    let dir = tempfile::tempdir().unwrap();
    let site = Site::start(dir.path());
    for file in &files {
        site.ok(&["load", file.to_str().unwrap()]);
    }
    let joined = "FROM traces span JOIN logs log ON span.trace_id = log.trace_id \
        AND log.timestamp BETWEEN span.start AND span.end";
    let condition = "span.duration_ns > 1e9 AND log.level = 'ERROR'";
    let check = |state: &str| {
        let of_spans = counts(&site, "SELECT trace_id AS key, count(*) AS n FROM spans GROUP BY trace_id");
        assert!(of_spans == spans, "spans per trace, {state}");
        let of_logs =
            "SELECT trace_id AS key, count(*) AS n FROM logs WHERE trace_id IS NOT NULL GROUP BY trace_id";
        assert!(counts(&site, of_logs) == logs, "logs per trace, {state}");
        assert_eq!(site.count(&format!("SELECT count(*) {joined} WHERE {condition}")), pairs, "{state}");
        let with_metrics = format!(
            "SELECT span.operation, log.level, metric.value {joined} \
             JOIN metrics metric ON span.service_name = metric.service_name \
             AND metric.minute = date_trunc('minute', span.start) \
             WHERE {condition} AND metric.metric = 'trainticket_cpu_usage_rate_percent' LIMIT 100"
        );
        let rows = site.sql(&with_metrics);
        assert!(!rows.is_empty() && rows.len() <= 100, "{state}");
        assert!(rows.iter().all(|row| row["level"] == "ERROR" && row["value"].is_number()), "{rows:?}");
        let plan = site.ok(&["sql", &format!("EXPLAIN {with_metrics}")]);
        assert_eq!(plan.matches("LookupJoin").count(), 2, "{plan}");
    };
    check("in memory and segments");
    let post =
        |path: &str| tokio::runtime::Runtime::new().unwrap().block_on(site.post(path, "text/plain", ""));
    assert_eq!(post("/api/v1/admin/flush").0, 200);
    assert_eq!(post("/api/v1/admin/compact").0, 200);
    check("compacted");
    assert!(site.ok(&["verify"]).starts_with("all is well"));
}

#[test]
fn errors_per_service_agree_between_sql_logql_and_the_file() {
    let Some(file) = file("logs.jsonl.zst") else { return };
    let mut lines = 0u64;
    let mut errors: BTreeMap<String, u64> = BTreeMap::new();
    for request in requests(&file) {
        for (service, record) in items(&request, LOGS) {
            lines += 1;
            if (17..=20).contains(&record["severityNumber"].as_i64().unwrap_or(0)) {
                *errors.entry(service.to_owned()).or_default() += 1;
            }
        }
    }
    assert!(errors.len() > 3, "{errors:?}");

    let dir = tempfile::tempdir().unwrap();
    let site = Site::start(dir.path());
    let said = site.ok(&["load", file.to_str().unwrap()]);
    assert!(said.starts_with(&format!("loaded {lines} records in ")), "{said}");
    let check = |state: &str| {
        assert_eq!(site.count("SELECT count(*) FROM logs"), lines, "{state}");
        let rows = site.sql("SELECT service, count(*) AS n FROM logs WHERE level = 'ERROR' GROUP BY service");
        let sql: BTreeMap<String, u64> = rows
            .iter()
            .map(|row| (row["service"].as_str().unwrap().to_owned(), row["n"].as_u64().unwrap()))
            .collect();
        assert_eq!(sql, errors, "SQL, {state}");

        let answer = site.ok(&[
            "logql",
            "sum by (service_name) (count_over_time({service_name=~\".+\"} | level=\"error\" [30d]))",
            "--to",
            "2023-02-10T00:00:00Z",
            "--output",
            "json",
        ]);
        let answer: Value = serde_json::from_str(&answer).unwrap();
        let logql: BTreeMap<String, u64> = answer["data"]["result"]
            .as_array()
            .unwrap()
            .iter()
            .map(|sample| {
                let service = sample["metric"]["service_name"].as_str().unwrap().to_owned();
                (service, sample["value"][1].as_str().unwrap().parse().unwrap())
            })
            .collect();
        assert_eq!(logql, errors, "LogQL, {state}");
    };
    check("in memory");
    let post =
        |path: &str| tokio::runtime::Runtime::new().unwrap().block_on(site.post(path, "text/plain", ""));
    assert_eq!(post("/api/v1/admin/flush").0, 200);
    check("flushed");
    assert_eq!(post("/api/v1/admin/compact").0, 200);
    check("compacted");
    assert!(site.ok(&["verify"]).starts_with("all is well"));
}
