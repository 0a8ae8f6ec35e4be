//! Clients that others wrote deliver to Trine.

use crate::site::{Site, run_python};

#[test]
fn pythons_opentelemetry_sdk_delivers_over_grpc_and_http() {
    let dir = tempfile::tempdir().unwrap();
    let site = Site::start(dir.path());
    run_python("otel.py", &[&site.otlp_grpc, &site.otlp_http]);
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
fn pythons_opentelemetry_sdk_delivers_spans_and_metrics() {
    let dir = tempfile::tempdir().unwrap();
    let site = Site::start(dir.path());
    let traces = run_python("otel_signals.py", &[&site.otlp_grpc, &site.otlp_http]);
    assert_eq!(traces.lines().count(), 2, "{traces}");
    for (protocol, trace) in ["grpc", "http"].into_iter().zip(traces.lines()) {
        let service = format!("service_name = 'py-{protocol}'");
        let count = |what: &str| site.count(&format!("SELECT count(*) FROM {what} AND {service}"));
        assert_eq!(count("spans WHERE operation = 'order' AND kind = 'server'"), 50, "{protocol}");
        assert_eq!(count("spans WHERE status = 'error' AND status_message = 'declined'"), 5, "{protocol}");
        assert_eq!(count(&format!("traces WHERE trace_id = '{trace}'")), 2, "{protocol}");
        let shown = site.ok(&["trace", trace]);
        assert!(shown.contains("order") && shown.contains("pay") && shown.contains("2 spans"), "{shown}");
        let value = |query: &str| -> String {
            let answer = site.json("/prometheus/api/v1/query", &[("query", query)]);
            let value = &answer["data"]["result"][0]["value"][1];
            value.as_str().unwrap_or_else(|| panic!("{query}: {answer}")).to_owned()
        };
        let job = format!("job=\"py-{protocol}\"");
        assert_eq!(value(&format!("orders_total{{{job},instance=\"one\",kind=\"book\"}}")), "100");
        assert_eq!(value(&format!("order_duration_seconds_count{{{job}}}")), "50");
        let bucket = value(&format!("order_duration_seconds_bucket{{{job},le=\"5\"}}"));
        assert_eq!(bucket, "50", "{protocol}");
    }
}

#[test]
fn a_loki_client_delivers() {
    let dir = tempfile::tempdir().unwrap();
    let site = Site::start(dir.path());
    run_python("loki.py", &[&site.http]);
    let found = site.ok(&["logql", "{app=\"py\"} |= \"loki\"", "--output", "jsonl"]);
    assert_eq!(found.lines().count(), 50, "{found}");
}
