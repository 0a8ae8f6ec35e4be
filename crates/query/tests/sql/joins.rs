//! Joins that look up answer as the hash join does, and stay within the budgets of their query.

use std::{
    collections::BTreeMap,
    sync::{Arc, atomic::Ordering::Relaxed},
    time::Duration,
};

use futures::StreamExt;
use trine_model::TenantId;
use trine_query::{Permit, SqlEngine, SqlError, SqlLimits, SqlRequest, output::text_rows};

use crate::memory::{MemoryTables, collect, limits, run, runtime};
use crate::outputs::NOON;
use crate::pushdown::Random;
use crate::signals::{many, signals};

/// Joins tried; `SQL_CASES` asks for more.
const CASES: u64 = 150;

const SPAN_LOG: [&str; 7] = [
    "span.trace_id = log.trace_id",
    "log.trace_id = span.trace_id AND log.timestamp BETWEEN span.start AND span.end",
    "span.trace_id = log.trace_id AND span.start - interval '1 minute' <= log.timestamp AND span.end > log.timestamp",
    "span.trace_id = log.trace_id AND span.span_id = log.span_id",
    "span.trace_id = log.trace_id AND length(log.body) > length(span.operation)",
    "span.service_name = log.service AND log.timestamp BETWEEN span.start AND span.end",
    "span.minute = log.minute AND span.service_name = log.service",
];
const WITH_METRIC: [&str; 5] = [
    "span.service_name = metric.service_name AND metric.metric = 'cpu_usage' AND metric.minute = date_trunc('minute', span.start)",
    "metric.service_name = span.service_name AND metric.timestamp BETWEEN span.start - interval '30 seconds' AND span.start",
    "log.service = metric.service_name AND metric.minute = log.minute",
    "metric.service = log.service AND metric.metric = 'requests_total'",
    "metric.minute = span.minute AND metric.value > 10",
];
const CONDITIONS: [&str; 14] = [
    "span.duration_ns > 1e9",
    "log.level = 'error'",
    "log.level IN ('error', 'fatal', 'warn')",
    "span.status = 'error'",
    "span.operation <> 'SELECT'",
    "span.service_name = 'cart'",
    "log.body LIKE '%timeout%'",
    "log.service <> 'web'",
    "span.trace_id IN ('0000000000000000000000000000002b', '0000000000000000000000000000002c', '0000000000000000000000000000002d', '0000000000000000000000000000002e')",
    "span.http_status_code = '500'",
    "log.timestamp >= '2024-05-01T12:03:00Z'",
    "span.start < '2024-05-01T12:08:00Z'",
    "log.env = span.env",
    "log.trace_id IS NOT NULL",
];

fn statement(random: &mut Random) -> String {
    let conditions: Vec<&str> = (0..random.below(4)).map(|_| random.of(&CONDITIONS)).collect();
    let (span_log, metric) = (random.of(&SPAN_LOG), random.of(&WITH_METRIC));
    let three = random.below(2) == 0;
    let kind = if three { "JOIN" } else { random.of(&["JOIN", "LEFT JOIN", "RIGHT JOIN", "FULL JOIN"]) };
    let mut tables = match random.below(3) {
        _ if !three && random.below(2) == 0 => format!("spans span {kind} logs log ON {span_log}"),
        _ if !three => format!("logs log {kind} spans span ON {span_log}"),
        0 => format!("traces span JOIN logs log ON {span_log} JOIN metrics metric ON {metric}"),
        1 => format!("logs log JOIN traces span ON {span_log} JOIN metrics metric ON {metric}"),
        _ => format!("metrics metric JOIN (spans span JOIN logs log ON {span_log}) ON {metric}"),
    };
    if !three && random.below(4) == 0 {
        if random.below(2) == 0 {
            let condition =
                random.of(&["duration_ns > 1e9", "status = 'error'", "start > '2024-05-01T12:04:00Z'"]);
            let inside = format!("SELECT trace_id FROM spans WHERE {condition}");
            return format!("SELECT log.body, log.timestamp FROM logs log WHERE log.trace_id IN ({inside})");
        }
        let negation = random.of(&["", "NOT "]);
        tables = format!("spans span WHERE {negation}EXISTS (SELECT 1 FROM logs log WHERE {span_log})");
        return format!("SELECT span.span_id FROM {tables}");
    }
    if !conditions.is_empty() {
        tables = format!("{tables} WHERE {}", conditions.join(" AND "));
    }
    match random.below(3) {
        0 => format!(
            "SELECT count(*) AS n, count(log.body) AS logs, count(span.span_id) AS spans FROM {tables}"
        ),
        1 if three => format!("SELECT span.operation, log.level, metric.value FROM {tables}"),
        _ => format!("SELECT span.span_id, span.\"end\", log.level, log.body FROM {tables}"),
    }
}

async fn rows(engine: &SqlEngine, sql: &str) -> Result<Vec<Vec<Option<String>>>, SqlError> {
    let answer = engine.query(SqlRequest::new(TenantId::default(), sql)).await?;
    let batches = collect(answer).await?;
    let mut rows: Vec<_> = batches.iter().flat_map(|batch| text_rows(batch).unwrap()).collect();
    rows.sort();
    Ok(rows)
}

#[test]
fn lookup_joins_answer_as_hash_joins_do() {
    let tables = Arc::new(signals());
    let with = SqlEngine::new(tables.clone(), limits());
    let hash = SqlEngine::new(tables.clone(), limits()).without_lookup_joins();
    let plain = SqlEngine::new(tables, limits()).without_pushdown();
    let cases = std::env::var("SQL_CASES").ok().and_then(|n| n.parse().ok()).unwrap_or(CASES);
    let mut outcomes: BTreeMap<&str, u64> = BTreeMap::new();
    runtime().block_on(async {
        for seed in 0..cases {
            let sql = statement(&mut Random(seed));
            let found = rows(&with, &sql).await.unwrap_or_else(|error| panic!("seed {seed}: {sql}\n{error}"));
            assert_eq!(found, rows(&hash, &sql).await.unwrap(), "seed {seed}: {sql}");
            assert_eq!(found, rows(&plain, &sql).await.unwrap(), "seed {seed}: {sql}");
            let explain = rows(&with, &format!("EXPLAIN FORMAT INDENT {sql}")).await.unwrap();
            if explain.concat().iter().flatten().any(|text| text.contains("LookupJoinExec")) {
                *outcomes.entry("lookups").or_default() += 1;
            }
            *outcomes.entry(if found.is_empty() { "empty" } else { "rows" }).or_default() += 1;
        }
    });
    println!("{outcomes:?}");
    let share = |name: &str| outcomes.get(name).copied().unwrap_or(0) * 100 / cases;
    assert!(share("lookups") > 60 && share("rows") > 40, "the joins test too little: {outcomes:?}");
}

/// 4,000 spans, each with a log of its trace: what a limit needs is read, and no more chunks.
#[test]
fn a_limit_ends_a_lookup_join_early() {
    let tables = Arc::new(many(4_000));
    let engine = Arc::new(SqlEngine::new(tables.clone(), limits()));
    let sql = "SELECT s.operation, l.body FROM spans s JOIN logs l ON s.trace_id = l.trace_id \
               WHERE s.duration_ns > 1e9 LIMIT 10";
    let found = run(&engine, SqlRequest::new(TenantId::default(), sql)).unwrap();
    assert_eq!(found.iter().map(arrow::array::RecordBatch::num_rows).sum::<usize>(), 10);
    let (spans, logs) = (tables.served_spans.load(Relaxed), tables.served.load(Relaxed));
    assert!(spans < 2_000 && logs < 2_000, "{spans} spans and {logs} logs were read");
}

/// Each chunk is larger than the one before, so all 4,000 are joined with few reads of the logs.
#[test]
fn a_long_lookup_join_reads_every_log_once() {
    let tables = Arc::new(many(4_000));
    let engine = Arc::new(SqlEngine::new(tables.clone(), limits()));
    let sql =
        "SELECT count(*) AS n FROM spans s JOIN logs l ON s.trace_id = l.trace_id WHERE s.duration_ns > 1e9";
    let found = run(&engine, SqlRequest::new(TenantId::default(), sql)).unwrap();
    assert_eq!(text_rows(&found[0]).unwrap(), [[Some("4000".to_owned())]]);
    assert_eq!(tables.served.load(Relaxed), 4_000);
    assert!(tables.scans.load(Relaxed) < 12, "{} reads of logs", tables.scans.load(Relaxed));
}

/// One trace of 5,000 spans and logs makes 25 million rows.
fn product() -> MemoryTables {
    let mut tables = many(0);
    tables.add_trace(5_000);
    tables
}

const PRODUCT: &str = "SELECT s.span_id, l.body FROM spans s JOIN logs l ON s.trace_id = l.trace_id \
                       WHERE s.duration_ns > 1e9 ORDER BY l.body || s.span_id";

#[test]
fn a_lookup_join_ends_at_its_deadline_and_within_its_memory() {
    let engine = Arc::new(SqlEngine::new(Arc::new(product()), limits()));
    let request =
        |limits| SqlRequest { limits: Some(limits), ..SqlRequest::new(TenantId::default(), PRODUCT) };
    let short = SqlLimits { timeout: Duration::from_millis(150), memory_bytes: 4 << 30, ..limits() };
    assert!(matches!(run(&engine, request(short)), Err(SqlError::Timeout { limit_ms: 150 })));
    let small = SqlLimits { memory_bytes: 8 << 20, ..limits() };
    assert!(
        matches!(run(&engine, request(small)), Err(SqlError::Memory { limit_bytes }) if limit_bytes == 8 << 20)
    );
}

/// Whoever drops the answer stops the join: its permit comes back.
#[test]
fn a_dropped_lookup_join_ends() {
    let engine = SqlEngine::new(Arc::new(product()), limits());
    let permit: Permit = Arc::new(());
    let held = Arc::downgrade(&permit);
    let sql = "SELECT count(*) FROM spans s JOIN logs l ON s.trace_id = l.trace_id AND s.duration_ns > 1e9";
    let request = SqlRequest { permit: Some(permit), ..SqlRequest::new(TenantId::default(), sql) };
    runtime().block_on(async {
        let mut answer = engine.query(request).await.unwrap();
        assert!(futures::poll!(answer.stream.next()).is_pending(), "the join takes many turns");
        assert!(held.upgrade().is_some());
        drop(answer);
        for _ in 0..1_000 {
            if held.upgrade().is_none() {
                return;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("the query goes on");
    });
}

#[test]
fn no_join_crosses_to_another_tenant_or_out_of_the_range() {
    let engine = Arc::new(SqlEngine::new(Arc::new(signals()), limits()));
    let sql = "SELECT count(*) FILTER (WHERE operation = 'not yours') AS n, min(s.start) >= '2024-05-01T12:01:00Z' AS after, \
               max(l.timestamp) < '2024-05-01T12:05:00Z' AS before \
               FROM spans s JOIN logs l ON s.trace_id = l.trace_id";
    let request = SqlRequest {
        start: Some(NOON + 60_000_000_000),
        end: Some(NOON + 300_000_000_000),
        ..SqlRequest::new(TenantId::default(), sql)
    };
    let rows = text_rows(&run(&engine, request).unwrap()[0]).unwrap();
    assert_eq!(rows, [["0", "true", "true"].map(|text| Some(text.to_owned()))]);
}
