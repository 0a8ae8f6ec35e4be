//! Engines that others wrote read the segments.

use std::path::{Path, PathBuf};

use crate::site::{Site, run_python};

fn segments(dir: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut open = vec![dir.join("segments")];
    while let Some(dir) = open.pop() {
        for entry in std::fs::read_dir(&dir).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() { open.push(path) } else { found.push(path) }
        }
    }
    found
}

#[tokio::test(flavor = "multi_thread")]
async fn duckdb_and_pyarrow_read_segments() {
    for bodies in ["plain", "templates"] {
        let dir = tempfile::tempdir().unwrap();
        let site = Site::start_with(dir.path(), &["--bodies", bodies]);
        for round in 0..2 {
            let lines: String = (0..5_000)
                .map(|i| format!("{{\"message\": \"request {i} of round {round} took {}ms\", \"service\": \"s{}\", \"level\": \"info\", \"n\": {i}}}\n", i % 97, i % 7))
                .collect();
            assert_eq!(site.post("/api/v1/ingest/jsonlines", "application/x-ndjson", lines).await.0, 200);
            assert_eq!(site.post("/api/v1/admin/flush", "text/plain", "").await.0, 200);
        }
        let check = |body: &str| {
            let files = segments(dir.path());
            assert!(!files.is_empty());
            let files: Vec<&str> = files.iter().map(|file| file.to_str().unwrap()).collect();
            let out = run_python("read_segments.py", &[&[body], files.as_slice()].concat());
            assert_eq!(out.trim(), "duckdb 10000 7, pyarrow 10000 7");
        };
        let body = if bodies == "plain" { "body" } else { "no body" };
        check(body);
        assert_eq!(site.post("/api/v1/admin/compact", "text/plain", "").await.0, 200);
        check(body);
        assert_eq!(
            site.count("SELECT count(*) FROM logs WHERE body LIKE 'request % of round 1 took %'"),
            5_000
        );
    }
}
