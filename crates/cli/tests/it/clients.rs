//! Clients that others wrote deliver to Trine.

use crate::site::{Site, python, run_python};

#[test]
fn pythons_opentelemetry_sdk_delivers_over_grpc_and_http() {
    let Some(python) = python() else { return };
    let dir = tempfile::tempdir().unwrap();
    let site = Site::start(dir.path());
    run_python(&python, "otel.py", &[&site.otlp_grpc, &site.otlp_http]);
    for protocol in ["grpc", "http"] {
        let lines = site
            .count(&format!("SELECT count(*) FROM logs WHERE service = 'py-{protocol}' AND level = 'WARN'"));
        assert_eq!(lines, 100, "{protocol}");
        let traced = site.count(&format!(
            "SELECT count(*) FROM logs WHERE service = 'py-{protocol}' AND trace_id IS NOT NULL AND \"order\" = '7'"
        ));
        assert_eq!(traced, 1, "{protocol}");
    }
}

#[test]
fn a_loki_client_delivers() {
    let Some(python) = python() else { return };
    let dir = tempfile::tempdir().unwrap();
    let site = Site::start(dir.path());
    run_python(&python, "loki.py", &[&site.http]);
    let found = site.ok(&["logql", "{app=\"py\"} |= \"loki\"", "--output", "jsonl"]);
    assert_eq!(found.lines().count(), 50, "{found}");
}
