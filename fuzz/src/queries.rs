//! Languages and requests of readers.

use std::time::{Duration, Instant};

use trine_logql::{Expr, TailFilter};
use trine_model::TenantId;
use trine_promql::{
    Buckets, Engine, Histogram, Labels, MemorySource,
    api::{decode_read_queries, decode_read_request},
};
use trine_schema::{LogBatch, LogBatchBuilder, LogRecord, StreamRegistry};

/// Any text is a query that is understood or refused, at a place inside of it.
pub(crate) fn traceql(bytes: &[u8]) {
    let Ok(query) = std::str::from_utf8(bytes) else { return };
    if let Err(error) = trine_traces::traceql::parse(query) {
        assert!(query.is_char_boundary(error.position));
    }
}

/// Any bytes are a read request or are refused with a reason, compressed or not.
pub(crate) fn remote_read(bytes: &[u8]) {
    for read in [decode_read_request, decode_read_queries] {
        if let Err(reason) = read(bytes) {
            assert!(!reason.is_empty(), "refused without a reason");
        }
    }
}

/// Any text is a query that is understood or refused; what is understood says the same when it is written out, and
/// filters lines.
pub(crate) fn logql(bytes: &[u8]) {
    let Ok(query) = std::str::from_utf8(bytes) else { return };
    let Ok(expr) = trine_logql::parse(query) else { return };
    let text = expr.to_string();
    assert_eq!(trine_logql::parse(&text).as_ref(), Ok(&expr), "{text}");
    if let Expr::Log(_) = expr
        && let Ok(mut filter) = TailFilter::new(&expr)
    {
        let registry = StreamRegistry::new();
        let batch = lines(&registry);
        let found = filter.apply(&batch, &registry);
        assert!(found.len() <= batch.records.num_rows());
    }
}

/// Lines in the forms that stages take apart.
fn lines(registry: &StreamRegistry) -> LogBatch {
    let tenant = TenantId::default();
    let labels = trine_schema::Labels::from_pairs(&[("app", "a"), ("service.name", "cart")]);
    let stream = registry.intern(&tenant, labels).expect("a stream");
    let mut builder = LogBatchBuilder::new(tenant, 4, 256);
    for (at, body) in [
        r#"{"a":1.5,"b":{"c":"1h30m","d":[1,"x"]},"e":"10KB"}"#,
        r#"level=warn a=1 msg="took 5ms" ip=192.168.4.7"#,
        r#"GET /x?y=é 404 "-" {}"#,
        "\u{1b}[31mred\u{1b}[0m\n",
    ]
    .into_iter()
    .enumerate()
    {
        builder.body(body);
        builder.attribute("user", "7");
        let record = LogRecord { stream, timestamp: at as i64, ..LogRecord::default() };
        builder.push(&record).expect("a line");
    }
    builder.finish()
}

/// Any text is a query that is answered or refused, within its bounds.
pub(crate) fn promql(bytes: &[u8]) {
    const MINUTE: i64 = 60_000;
    let Ok(query) = std::str::from_utf8(bytes) else { return };
    let mut source = MemorySource::default();
    for number in 0..3 {
        let samples = source.series(Labels::new([("__name__", "m_total"), ("i", &number.to_string())]));
        samples.timestamps = std::sync::Arc::new((0..20).map(|at| at * MINUTE).collect());
        samples.values = (0..20).map(|at| f64::from(at % 7 * number)).collect();
    }
    let samples = source.series(Labels::new([("__name__", "h")]));
    for at in 0..20 {
        let count = f64::from(at % 11);
        samples.histogram_timestamps.push(i64::from(at) * MINUTE);
        samples.histograms.push(std::sync::Arc::new(Histogram {
            count: count * 2.0,
            sum: count,
            positive: Buckets { index: vec![at % 3, 5], count: vec![count, count] },
            ..Histogram::default()
        }));
    }
    let engine =
        Engine { max_samples: 10_000, timeout: Duration::from_millis(500), threads: 1, ..Engine::default() };
    let start = Instant::now();
    let _ = engine.instant(&source, query, 10 * MINUTE);
    let _ = engine.range(&source, query, 0, 15 * MINUTE, MINUTE);
    assert!(start.elapsed() < Duration::from_secs(30), "the time limit was not kept");
}
