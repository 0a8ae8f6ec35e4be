//! Spans for tests, by few words.

use arrow::array::RecordBatch;
use trine_model::{SpanId, TenantId, TraceId};
use trine_schema::{Labels, Span, SpanBatchBuilder, StreamRegistry};
use trine_traces::{Trace, assemble};

/// 2023-01-29 08:49:19 UTC.
pub const T0: i64 = 1_674_982_159_000_000_000;
pub const MS: i64 = 1_000_000;

/// Number `n` as an id; 0 stands for none where one may be missing.
pub fn span_id(n: u64) -> SpanId {
    SpanId(n.to_be_bytes())
}

pub fn trace_id(n: u128) -> TraceId {
    TraceId(n.to_be_bytes())
}

/// A table of spans under way.
pub struct Spans {
    pub registry: StreamRegistry,
    builder: SpanBatchBuilder,
}

/// A span; times in nanoseconds after [`T0`].
#[derive(Debug, Clone, Copy)]
pub struct Row<'a> {
    pub trace: u128,
    pub service: &'a str,
    pub operation: &'a str,
    pub id: u64,
    pub parent: u64,
    pub start: i64,
    pub duration: i64,
    pub kind: u8,
    pub status: (u8, &'a str),
    pub attributes: &'a [(&'a str, &'a str)],
}

/// A span of trace 1.
pub fn row<'a>(
    service: &'a str,
    operation: &'a str,
    id: u64,
    parent: u64,
    start: i64,
    duration: i64,
) -> Row<'a> {
    Row {
        trace: 1,
        service,
        operation,
        id,
        parent,
        start,
        duration,
        kind: 0,
        status: (0, ""),
        attributes: &[],
    }
}

impl Spans {
    pub fn new() -> Self {
        Self { registry: StreamRegistry::new(), builder: SpanBatchBuilder::new(TenantId::default(), 0) }
    }

    /// For what [`Row`] has no place for: events and links are staged before [`Spans::push`].
    pub fn builder(&mut self) -> &mut SpanBatchBuilder {
        &mut self.builder
    }

    pub fn push(&mut self, row: Row<'_>) {
        let labels = Labels::from_pairs(&[("service.name", row.service), ("k8s.pod.name", "pod-1")]);
        let stream = self.registry.intern(&TenantId::default(), labels).unwrap();
        for (key, value) in row.attributes {
            self.builder.attribute(key, value);
        }
        self.builder.push(&Span {
            stream,
            timestamp: T0 + row.start,
            duration_ns: row.duration,
            trace_id: trace_id(row.trace),
            span_id: span_id(row.id),
            parent_span_id: (row.parent != 0).then(|| span_id(row.parent)),
            operation: row.operation,
            kind: row.kind,
            status_code: row.status.0,
            status_message: row.status.1,
            trace_state: if row.id == 2 { "vendor=1" } else { "" },
            trace_flags: 1,
            scope_name: "io.shop",
        });
    }

    pub fn batch(&mut self) -> RecordBatch {
        std::mem::replace(&mut self.builder, SpanBatchBuilder::new(TenantId::default(), 0)).finish().records
    }

    pub fn traces(mut self) -> Vec<Trace> {
        assemble(&[self.batch()], &self.registry).unwrap()
    }

    pub fn trace(self) -> Trace {
        let mut traces = self.traces();
        assert_eq!(traces.len(), 1);
        traces.remove(0)
    }
}

/// The one trace of these rows.
pub fn trace_of(rows: &[Row<'_>]) -> Trace {
    let mut spans = Spans::new();
    rows.iter().for_each(|row| spans.push(*row));
    spans.trace()
}

/// A shop's checkout with what spans may carry: an event, a link, a failure, scope and dropped counts.
pub fn checkout() -> Trace {
    let mut spans = Spans::new();
    let root = row("frontend", "POST /checkout", 1, 0, 0, 40 * MS);
    spans.push(Row {
        kind: 2,
        attributes: &[("otel.scope.version", "1.2"), ("http.request.method", "POST")],
        ..root
    });
    let call = row("frontend", "charge", 2, 1, 5 * MS, 30 * MS);
    spans.push(Row { kind: 3, ..call });
    spans.builder().event_attribute("exception.message", "card \"4711\" expired");
    spans.builder().event_attribute("otel.dropped_attributes_count", "2");
    spans.builder().event(T0 + 20 * MS, "exception");
    spans.builder().link_attribute("why", "retry");
    spans.builder().link(trace_id(0xabc), span_id(0xdef), "a=b");
    let served = row("payment", "Charge", 3, 2, 8 * MS, 20 * MS);
    spans.push(Row {
        kind: 2,
        status: (2, "card expired"),
        attributes: &[("otel.dropped_events_count", "3"), ("rpc.system", "grpc")],
        ..served
    });
    spans.trace()
}
