//! A real system's logs: what SQL, LogQL and a plain reading of the file count is the same.

use std::{
    collections::BTreeMap,
    io::{BufRead, BufReader},
    path::Path,
};

use serde_json::Value;

use crate::site::Site;

#[test]
fn errors_per_service_agree_between_sql_logql_and_the_file() {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/data/trainticket/logs.jsonl.zst");
    if !file.exists() {
        println!("skipped: {} is not there", file.display());
        return;
    }
    let mut lines = 0u64;
    let mut errors: BTreeMap<String, u64> = BTreeMap::new();
    let mut decoder = zstd::stream::read::Decoder::new(std::fs::File::open(&file).unwrap()).unwrap();
    decoder.window_log_max(27).unwrap();
    for line in BufReader::new(decoder).lines() {
        let request: Value = serde_json::from_str(&line.unwrap()).unwrap();
        for resource in request["resourceLogs"].as_array().unwrap() {
            let attributes = resource["resource"]["attributes"].as_array().unwrap();
            let service = attributes.iter().find(|a| a["key"] == "service.name").unwrap();
            let service = service["value"]["stringValue"].as_str().unwrap();
            for scope in resource["scopeLogs"].as_array().unwrap() {
                for record in scope["logRecords"].as_array().unwrap() {
                    lines += 1;
                    if (17..=20).contains(&record["severityNumber"].as_i64().unwrap_or(0)) {
                        *errors.entry(service.to_owned()).or_default() += 1;
                    }
                }
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
