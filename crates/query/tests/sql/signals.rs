//! Spans and metrics beside the sample logs.

use std::sync::{Arc, atomic::Ordering::Relaxed};

use trine_model::{SpanId, TenantId, TraceId};
use trine_query::{SqlEngine, SqlRequest};
use trine_schema::{
    Labels, LogBatchBuilder, LogRecord, NativeHistogram, Samples, Span, SpanBatchBuilder, metrics::STALE_NAN,
};

use crate::memory::{MemoryTables, limits, run};
use crate::outputs::{NOON, sample};

const SECOND: i64 = 1_000_000_000;

pub fn trace(number: u8) -> TraceId {
    let mut id = [0; 16];
    id[15] = number;
    TraceId(id)
}

/// The sample logs, 32 spans in 8 traces (42 to 49; logs have 42 to 47), and samples of five series.
pub fn signals() -> MemoryTables {
    let mut tables = sample();
    let tenant = TenantId::default();
    let services = [
        &[("service.name", "cart"), ("env", "prod")][..],
        &[("app", "web"), ("env", "")],
        &[("job", "db"), ("env", "prod"), ("zone", "z1")],
    ]
    .map(|labels| tables.registry.intern(&tenant, Labels::from_pairs(labels)).unwrap());
    for part in 0..2 {
        let mut builder = SpanBatchBuilder::new(tenant.clone(), 16);
        for row in part * 16..part * 16 + 16_u8 {
            let (number, place) = (row / 4, i64::from(row % 4));
            builder.attribute("http.status_code", ["200", "404", "500"][usize::from(row) % 3]);
            if place == 0 {
                builder.attribute("user_id", &format!("u{number}"));
                builder.event(NOON + 1, "begin");
            }
            if place == 3 {
                builder.link(trace(42), SpanId([1; 8]), "");
            }
            builder.push(&Span {
                stream: services[usize::from(row) % 3],
                timestamp: NOON + (i64::from(number) * 100 + place * 5) * SECOND + place,
                duration_ns: [120 * SECOND, 500_000_000, 2 * SECOND, 1_000_000_000][usize::from(row % 5) % 4],
                trace_id: trace(42 + number),
                span_id: SpanId([row + 1; 8]),
                parent_span_id: (place > 0).then_some(SpanId([number * 4 + 1; 8])),
                operation: ["GET /cart", "SELECT", "render", "lock"][usize::from(row % 4)],
                kind: row % 6,
                status_code: [0, 2, 1][usize::from(row) % 3],
                status_message: if row % 3 == 1 { "broken" } else { "" },
                trace_state: "",
                trace_flags: 1,
                scope_name: "tests",
            });
        }
        tables.spans.push(builder.finish());
    }
    let other = TenantId::new("other").unwrap();
    let stream = tables.registry.intern(&other, Labels::from_pairs(&[("secret", "span")])).unwrap();
    let mut builder = SpanBatchBuilder::new(other.clone(), 1);
    builder.push(&Span {
        stream,
        timestamp: NOON,
        duration_ns: 120 * SECOND,
        trace_id: trace(42),
        span_id: SpanId([99; 8]),
        parent_span_id: None,
        operation: "not yours",
        kind: 0,
        status_code: 0,
        status_message: "",
        trace_state: "",
        trace_flags: 0,
        scope_name: "",
    });
    tables.spans.push(builder.finish());
    add_series(&mut tables);
    tables
}

fn number(number: u64) -> [u8; 8] {
    (number + 1).to_be_bytes()
}

/// So many traces of one span, which takes two seconds, and one log.
pub fn many(traces: u64) -> MemoryTables {
    let mut tables = MemoryTables::default();
    let mut id = [0; 16];
    tables.add_rows((0..traces).map(|trace| {
        id[8..].copy_from_slice(&number(trace));
        (TraceId(id), NOON + trace as i64 * SECOND)
    }));
    tables
}

impl MemoryTables {
    /// One trace of so many spans and logs.
    pub fn add_trace(&mut self, rows: u64) {
        self.add_rows((0..rows).map(|row| (trace(7), NOON + row as i64)));
    }

    fn add_rows(&mut self, rows: impl Iterator<Item = (TraceId, i64)>) {
        let tenant = TenantId::default();
        let stream = self.registry.intern(&tenant, Labels::from_pairs(&[("service.name", "cart")])).unwrap();
        let mut spans = SpanBatchBuilder::new(tenant.clone(), 0);
        let mut logs = LogBatchBuilder::new(tenant, 0, 0);
        for (row, (trace_id, timestamp)) in rows.enumerate() {
            spans.push(&Span {
                stream,
                timestamp,
                duration_ns: 2 * SECOND,
                trace_id,
                span_id: SpanId(number(row as u64)),
                parent_span_id: None,
                operation: "GET /cart",
                kind: 2,
                status_code: 0,
                status_message: "",
                trace_state: "",
                trace_flags: 0,
                scope_name: "",
            });
            logs.body("a line");
            let trace_id = Some(trace_id);
            logs.push(&LogRecord { stream, timestamp, trace_id, ..LogRecord::default() }).unwrap();
        }
        self.spans.push(spans.finish());
        self.batches.push(logs.finish());
    }
}

/// A sample each 30 s for ten minutes.
fn add_series(tables: &mut MemoryTables) {
    let noon_ms = NOON / 1_000_000;
    let times: Arc<Vec<i64>> = Arc::new((0..20).map(|n| noon_ms + n * 30_000).collect());
    let gauges = [
        (TenantId::default(), &[("__name__", "cpu_usage"), ("service_name", "cart"), ("pod", "a")][..]),
        (TenantId::default(), &[("__name__", "cpu_usage"), ("service_name", "cart"), ("pod", "b")]),
        (TenantId::default(), &[("__name__", "cpu_usage"), ("job", "web"), ("instance", "web:1")]),
        (TenantId::default(), &[("__name__", "requests_total"), ("job", "db"), ("k8s.pod", "db-1")]),
        (TenantId::new("other").unwrap(), &[("__name__", "cpu_usage"), ("service_name", "cart")]),
    ];
    for (number, (tenant, labels)) in gauges.into_iter().enumerate() {
        let mut values: Vec<f64> = (0..20).map(|n| f64::from(n) + number as f64 * 100.0).collect();
        if number == 1 {
            values[10..].fill(f64::from_bits(STALE_NAN));
        }
        let samples = Samples { timestamps: times.clone(), values, ..Samples::default() };
        let stream = tables.registry.intern(&tenant, Labels::from_pairs(labels)).unwrap();
        tables.series.push((tables.registry.get(stream), Arc::new(samples)));
    }
    let labels = Labels::from_pairs(&[("__name__", "latency_seconds"), ("job", "db")]);
    let stream = tables.registry.intern(&TenantId::default(), labels).unwrap();
    let histogram = Arc::new(NativeHistogram { count: 12.0, sum: 3.5, ..NativeHistogram::default() });
    let samples = Samples {
        histogram_timestamps: vec![noon_ms, noon_ms + 60_000],
        histograms: vec![histogram.clone(), histogram],
        ..Samples::default()
    };
    tables.series.push((tables.registry.get(stream), Arc::new(samples)));
}

/// What only labels answer reads no sample, and a metric's name leaves the others alone.
#[test]
fn samples_are_read_when_they_are_asked_for() {
    let tables = Arc::new(signals());
    let engine = Arc::new(SqlEngine::new(tables.clone(), limits()));
    for (sql, loaded) in [
        ("SELECT DISTINCT metric, service_name FROM metrics", 0),
        ("SELECT service_name FROM metrics WHERE metric LIKE 'cpu%' GROUP BY 1", 0),
        ("SELECT max(value) FROM metrics WHERE metric = 'cpu_usage' AND service_name = 'cart'", 2),
        ("SELECT count(*) FROM metrics WHERE metric = 'none'", 0),
        ("SELECT DISTINCT metric, value FROM metrics", 5),
    ] {
        tables.loaded.store(0, Relaxed);
        run(&engine, SqlRequest::new(TenantId::default(), sql)).unwrap();
        assert_eq!(tables.loaded.load(Relaxed), loaded, "{sql}");
    }
}
