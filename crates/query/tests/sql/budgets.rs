//! What a query may use, what it may see, and how it ends.

use std::{
    sync::{Arc, atomic::Ordering::Relaxed},
    time::Duration,
};

use futures::StreamExt;
use trine_model::TenantId;
use trine_query::{SqlEngine, SqlError, SqlLimits, SqlRequest};

use crate::memory::{collect, limits, run, runtime};
use crate::outputs::{NOON, sample};

fn request(sql: &str) -> SqlRequest {
    SqlRequest::new(TenantId::default(), sql)
}

fn engine() -> Arc<SqlEngine> {
    Arc::new(SqlEngine::new(Arc::new(sample()), limits()))
}

/// A sort of 1.6 TB ends with the name of its budget.
#[test]
fn a_query_too_large_for_memory_says_so() {
    for sql in [
        "SELECT * FROM generate_series(1, 100000000000) a ORDER BY -a.value",
        "SELECT a.value FROM generate_series(1, 100000000000) a JOIN generate_series(1, 100000000000) b ON a.value = b.value + 1",
    ] {
        match run(&engine(), request(sql)) {
            Err(SqlError::Memory { limit_bytes }) => assert_eq!(limit_bytes, limits().memory_bytes),
            other => panic!("{sql}: {other:?}"),
        }
    }
}

/// The whole join would take hours; the budget is looked at whenever the plan hands over a batch.
#[test]
fn a_query_too_long_is_stopped_in_time() {
    let limits = SqlLimits { timeout: Duration::from_millis(200), ..limits() };
    let sql = "SELECT count(*) FROM generate_series(1, 1000000) a CROSS JOIN generate_series(1, 1000000) b";
    let request = SqlRequest { limits: Some(limits), ..request(sql) };
    match run(&engine(), request) {
        Err(SqlError::Timeout { limit_ms }) => assert_eq!(limit_ms, 200),
        other => panic!("{other:?}"),
    }
}

/// One batch of a join's input makes a million: whoever polls gets the thread back in between.
#[test]
fn a_join_yields_while_it_multiplies() {
    let sql = "SELECT count(*) FROM generate_series(1, 1000000) a CROSS JOIN generate_series(1, 1000000) b";
    let limits = SqlLimits { target_partitions: 1, ..limits() };
    let permit: trine_query::Permit = Arc::new(());
    let held = Arc::downgrade(&permit);
    let request = SqlRequest { limits: Some(limits), permit: Some(permit), ..request(sql) };
    runtime().block_on(async {
        let mut answer = engine().query(request).await.unwrap();
        for turn in 0..100 {
            assert!(futures::poll!(answer.stream.next()).is_pending(), "turn {turn}");
            tokio::task::yield_now().await;
        }
        assert!(held.upgrade().is_some(), "the query runs");
        drop(answer);
    });
    assert!(held.upgrade().is_none(), "the query is gone");
}

#[test]
fn no_query_crosses_to_another_tenant() {
    for sql in [
        "SELECT count(*) AS n FROM logs WHERE body = 'not yours'",
        "SELECT count(*) AS n FROM logs WHERE labels['secret'] = 'yes'",
    ] {
        let batches = run(&engine(), request(sql)).unwrap();
        let rows = trine_query::output::text_rows(&batches[0]).unwrap();
        assert_eq!(rows, [[Some("0".to_owned())]]);
    }
    assert!(matches!(run(&engine(), request("SELECT secret FROM logs")), Err(SqlError::BadQuery { .. })));
}

#[test]
fn the_outer_range_holds_for_scans_and_counts() {
    for sql in ["SELECT count(*) AS n FROM logs", "SELECT count(body || 'x') AS n FROM logs"] {
        let request = SqlRequest { start: Some(NOON + 5), end: Some(NOON + 60_000_000_000), ..request(sql) };
        let rows = trine_query::output::text_rows(&run(&engine(), request).unwrap()[0]).unwrap();
        assert_eq!(rows, [[Some("5".to_owned())]], "{sql}");
    }
}

/// Roll-ups that keep whole minutes answer the middle; the edges are counted from their rows.
#[test]
fn counts_over_ranges_that_cut_a_minute_are_exact() {
    let tables = Arc::new(sample());
    tables.whole_minutes_only.store(true, Relaxed);
    let engine = Arc::new(SqlEngine::new(tables.clone(), limits()));
    let sql = "SELECT date_trunc('minute', timestamp) AS t, service, level, count(*) AS n FROM logs \
               WHERE level IN ('INFO', 'WARN', 'ERROR') GROUP BY 1, 2, 3 ORDER BY 1, 2, 3";
    let request =
        SqlRequest { start: Some(NOON + 15_000_000_000), end: Some(NOON + 445_000_000_000), ..request(sql) };
    let text = |engine: &Arc<SqlEngine>| {
        let batches = run(engine, request.clone()).unwrap();
        batches.iter().flat_map(|batch| trine_query::output::text_rows(batch).unwrap()).collect::<Vec<_>>()
    };
    let found = text(&engine);
    assert_eq!(tables.counted.load(Relaxed), 1);
    assert!(tables.served.load(Relaxed) < 15, "{} rows were read", tables.served.load(Relaxed));
    tables.no_rollups.store(true, Relaxed);
    assert_eq!(text(&engine), found, "the plan behind the roll-ups");
    assert_eq!(text(&Arc::new(SqlEngine::new(tables, limits()).without_pushdown())), found);
}

#[test]
fn a_limit_stops_the_scan_and_the_row_cap_is_told() {
    let engine = engine();
    runtime().block_on(async {
        let limits = SqlLimits { max_rows: Some(10), ..limits() };
        let capped = SqlRequest { limits: Some(limits), ..request("SELECT body FROM logs") };
        let answer = engine.query(capped).await.unwrap();
        let stats = answer.stats.clone();
        let rows: usize =
            collect(answer).await.unwrap().iter().map(arrow::array::RecordBatch::num_rows).sum();
        assert_eq!(rows, 10);
        assert_eq!(stats.snapshot().partial, ["the answer was cut at 10 rows"]);
    });
}

/// Long chains either work on a worker's 2 MiB stack or are refused; nothing overflows.
#[test]
fn deep_expressions_do_not_overflow_the_stack() {
    let engine = engine();
    let chain = |n: usize, part: &str, link: &str| vec![part; n].join(link);
    for sql in [
        format!("SELECT count(*) FROM logs WHERE {}", chain(240, "body = 'x'", " OR ")),
        format!("SELECT count(*) FROM logs WHERE {}", chain(240, "severity_number > 1", " AND ")),
        format!("SELECT {}", chain(480, "1", " + ")),
        format!("SELECT {} FROM logs", chain(480, "length(body)", " + ")),
        chain(200, "SELECT 1", " UNION ALL "),
        format!("SELECT count(*) FROM logs WHERE body IN ({})", chain(20_000, "'x'", ",")),
    ] {
        assert!(run(&engine, request(&sql)).is_ok(), "{:.60}: {:?}", sql, run(&engine, request(&sql)).err());
    }
    for sql in [
        format!("SELECT {}", chain(200_000, "1", "+")),
        format!("SELECT {}1{}", "(".repeat(100_000), ")".repeat(100_000)),
        format!("SELECT {} 1", "NOT ".repeat(100_000)),
        format!("SELECT {}1", "-".repeat(400).replace('-', "- ")),
        chain(20_000, "SELECT 1", " UNION ALL "),
        format!("SELECT * FROM {}", chain(10_000, "logs", ",")),
        "SELECT ".repeat(1_000_000),
        (1..40).fold("WITH t0 AS (SELECT 1 AS x)".to_owned(), |sql, n| {
            format!("{sql}, t{n} AS (SELECT a.x FROM t{} a, t{} b)", n - 1, n - 1)
        }) + " SELECT * FROM t39",
    ] {
        assert!(matches!(run(&engine, request(&sql)), Err(SqlError::BadQuery { .. })), "{sql:.60}");
    }
}
