//! Spans as OpenTelemetry's HTTP and database instrumentations make them, about 350 bytes each in OTLP.
//!
//! Forty services of five pods answer each other's requests; a trace is a tree of about nine spans in some
//! of them. Spans come in the order in which they end, so those of one trace lie in several pushes and
//! children come before their parents, as exporters send them.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap, VecDeque};
use std::path::Path;

use anyhow::Result;
use serde::{Deserialize, Serialize};
use trine_model::{SpanId, TraceId};

use super::frames::FrameWriter;
use super::{PUSH_RECORDS, write_truth};
use crate::encode::{otlp_spans, row_binary_spans};
use crate::record::StreamLabels;
use crate::rng::Rng;
use crate::span::{Event, Kind, Span, Text, Value};

const DOMAINS: [&str; 10] = [
    "account", "basket", "catalog", "delivery", "identity", "ledger", "message", "order", "pricing", "search",
];
const ROLES: [&str; 4] = ["api", "worker", "gateway", "store"];
const NOUNS: [&str; 12] = [
    "items", "offers", "profiles", "regions", "slots", "tokens", "batches", "events", "limits", "quotes",
    "routes", "stocks",
];
const PODS: usize = 5;
const SERVICES: usize = DOMAINS.len() * ROLES.len();
/// Services that requests from outside reach.
const EDGES: u64 = 8;
/// Time so many spans take: four million an hour.
const NS_PER_SPAN: f64 = 3600.0 * 1e9 / 4e6;
/// Spans of a trace on average.
const SPANS_PER_TRACE: f64 = 9.0;
/// Traces whose ids are kept for questions.
const KEPT_TRACES: usize = 200;
/// Spans of the answer to "the newest of an operation".
pub const NEWEST: usize = 20;
/// Time that "the newest of an operation" looks at, nanoseconds.
const WINDOW_NS: i64 = 15 * MINUTE_NS;
const MINUTE_NS: i64 = 60_000_000_000;
/// Durations from here on are slow, nanoseconds.
pub const SLOW_NS: i64 = 1_000_000_000;
/// An answer for the 99th percentile may be anything between these: sketches interpolate, and by far where
/// few are slow.
const P99_BOUNDS: (f64, f64) = (0.98, 0.999);

/// What to make.
#[derive(Debug, Clone, Copy)]
pub struct TracePlan {
    /// Spans at least; the last traces are whole.
    pub spans: u64,
    /// Equal plans give equal loads.
    pub seed: u64,
    /// Start of the first trace, Unix nanoseconds.
    pub start_ns: i64,
}

/// The right answers.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct TraceTruth {
    /// Spans in all.
    pub spans: u64,
    /// Traces in all.
    pub traces: u64,
    /// Bytes of all request bodies.
    pub wire_bytes: u64,
    /// Start of the first span, Unix nanoseconds.
    pub first_ns: i64,
    /// Start of the last span, Unix nanoseconds.
    pub last_ns: i64,
    /// Ids of some traces and how many spans each has.
    pub kept: Vec<(String, u64)>,
    /// "The newest of an operation".
    pub newest: Newest,
    /// Spans with status 500 that took longer than [`SLOW_NS`].
    pub slow: u64,
    /// Failed spans by start of minute and service.
    pub errors: Vec<(i64, String, u64)>,
    /// Between what the 99th percentile of an operation's durations lies, nanoseconds.
    pub p99: Vec<(String, i64, i64)>,
}

/// The newest [`NEWEST`] spans of a service and an operation.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Newest {
    /// The service.
    pub service: String,
    /// The operation.
    pub operation: String,
    /// Start of the window, Unix nanoseconds.
    pub from_ns: i64,
    /// End of the window, exclusive.
    pub to_ns: i64,
    /// Starts of the answer's spans, newest first.
    pub starts: Vec<i64>,
}

/// An endless supply of spans in the order of their ends.
pub struct Traffic {
    labels: Vec<StreamLabels>,
    rng: Rng,
    clock_ns: i64,
    due: BTreeMap<(i64, u64), Span>,
    made: u64,
    traces: u64,
    /// Of the last trace: its id and number of spans.
    last: (TraceId, u64),
}

impl Traffic {
    /// Traffic from `start_ns` on.
    pub fn new(seed: u64, start_ns: i64) -> Self {
        let mut rng = Rng::new(seed);
        let mut labels = Vec::with_capacity(SERVICES * PODS);
        for service in 0..SERVICES {
            let name = format!("{}-{}", DOMAINS[service % DOMAINS.len()], ROLES[service / DOMAINS.len()]);
            let set = rng.next_u64() & 0xFFFF_FFFF;
            for _ in 0..PODS {
                labels.push(StreamLabels {
                    service: name.clone(),
                    pod: format!("{name}-{set:08x}-{:05x}", rng.next_u64() & 0xF_FFFF),
                    namespace: "prod".to_owned(),
                });
            }
        }
        let last = (TraceId([0; 16]), 0);
        Self { labels, rng, clock_ns: start_ns, due: BTreeMap::new(), made: 0, traces: 0, last }
    }

    /// Resources that spans refer to.
    pub fn streams(&self) -> &[StreamLabels] {
        &self.labels
    }

    /// Makes one more trace.
    fn trace(&mut self) {
        self.clock_ns += self.rng.gap(NS_PER_SPAN * SPANS_PER_TRACE);
        let mut tree = Tree { trace: TraceId(self.rng.id()), rng: &mut self.rng, spans: Vec::new() };
        let edge = tree.rng.below(EDGES) as usize;
        tree.serve(None, edge, self.clock_ns, 0);
        self.last = (tree.trace, tree.spans.len() as u64);
        self.traces += 1;
        for span in tree.spans {
            self.made += 1;
            self.due.insert((span.end_ns, self.made), span);
        }
    }

    /// The next span in order, of those that can be final.
    fn ended(&mut self) -> Option<Span> {
        let first = self.due.first_entry()?;
        (first.key().0 <= self.clock_ns).then(|| first.remove())
    }
}

/// A trace under way.
struct Tree<'a> {
    trace: TraceId,
    rng: &'a mut Rng,
    spans: Vec<Span>,
}

impl Tree<'_> {
    fn span(&mut self, parent: Option<SpanId>, service: usize, kind: Kind, name: Text, start: i64) -> usize {
        self.spans.push(Span {
            trace_id: self.trace,
            span_id: SpanId(self.rng.id()),
            parent,
            stream: service * PODS + (usize::from(self.trace.0[1]) + service) % PODS,
            name,
            kind,
            start_ns: start,
            end_ns: start,
            error: None,
            attributes: Vec::with_capacity(8),
            events: Vec::new(),
        });
        self.spans.len() - 1
    }

    /// Nanoseconds, mostly near `typical`, now and then far more.
    fn latency(&mut self, typical: i64) -> i64 {
        let sum: f64 = (0..4).map(|_| self.rng.unit()).sum();
        let slow = match self.rng.below(4000) {
            0 => 400.0,
            1..12 => 30.0,
            _ => 1.0,
        };
        (typical as f64 * ((sum - 2.0) * 1.6).exp() * slow) as i64 + 1
    }

    /// A service answers a request; whether it failed and when it had done.
    fn serve(&mut self, parent: Option<SpanId>, service: usize, start: i64, depth: u64) -> (bool, i64) {
        let noun = self.rng.skewed(NOUNS.len());
        let method = ["GET", "POST", "GET", "PUT"][noun % 4];
        let route = format!("/v1/{}/{}/{{id}}", DOMAINS[service % DOMAINS.len()], NOUNS[noun]);
        let path = route.replace("{id}", &self.rng.below(100_000).to_string());
        let name = Cow::Owned(format!("{method} {route}"));
        let at = self.span(parent, service, Kind::Server, name, start);
        let id = Some(self.spans[at].span_id);
        let mut now = start + self.latency(300_000);
        let broken = self.rng.below(150) == 0;
        let mut failed = broken;
        let children = match depth {
            0 => 2 + self.rng.below(3),
            1 => self.rng.below(4),
            2 => self.rng.below(3),
            _ => self.rng.below(2),
        };
        for child in 0..children {
            if self.rng.below(5) < 2 || depth == 4 {
                now = self.query(id, service, noun, now);
            } else {
                // Who calls whom is fixed: a service has few others it needs.
                let callee = (service * 7 + noun + child as usize * 11 + 3) % SERVICES;
                let (broke, done) = self.serve(id, callee, now + 200_000, depth + 1);
                failed |= broke && self.rng.below(2) == 0;
                now = done + 200_000;
            }
        }
        now += self.latency(200_000 * (1 + noun as i64));
        if broken && self.rng.below(20) == 0 {
            // It waited for something in vain.
            now += SLOW_NS + self.rng.below(2 * SLOW_NS as u64) as i64;
        }
        let status = if failed { 500 } else { [200, 200, 200, 204, 404][self.rng.skewed(5)] };
        let [_, b, c, d] = (self.rng.next_u64() as u32).to_be_bytes();
        let thread = 20 + self.rng.below(50) as i64;
        let span = &mut self.spans[at];
        span.end_ns = now;
        span.attributes.extend([
            ("http.request.method", Value::from(method)),
            ("http.route", Value::from(route)),
            ("url.path", Value::from(path)),
            ("http.response.status_code", Value::Int(status)),
            ("client.address", Value::from(format!("10.{}.{c}.{d}", b % 16))),
            ("network.protocol.version", Value::from("1.1")),
            ("user_agent.original", Value::from("okhttp/4.12.0")),
            ("thread.id", Value::Int(thread)),
        ]);
        if failed {
            span.error = Some(Cow::Borrowed("request failed"));
            let attributes = vec![("exception.type", Value::from("java.lang.IllegalStateException"))];
            span.events.push(Event { time_ns: now - 1000, name: "exception", attributes });
        }
        (failed, now)
    }

    /// A service asks its database; when it has the answer.
    fn query(&mut self, parent: Option<SpanId>, service: usize, noun: usize, start: i64) -> i64 {
        let operation = ["SELECT", "SELECT", "INSERT", "UPDATE"][self.rng.below(4) as usize];
        let table = NOUNS[noun];
        let at = self.span(
            parent,
            service,
            Kind::Client,
            Cow::Owned(format!("{operation} {}.{table}", DOMAINS[service % DOMAINS.len()])),
            start,
        );
        let end = start + self.latency(900_000);
        let thread = 20 + self.rng.below(50) as i64;
        let span = &mut self.spans[at];
        span.end_ns = end;
        span.attributes.extend([
            ("db.system.name", Value::from("postgresql")),
            ("db.namespace", Value::from(DOMAINS[service % DOMAINS.len()])),
            ("db.operation.name", Value::from(operation)),
            ("db.collection.name", Value::from(table)),
            ("db.query.text", Value::from(format!("{operation} {table} WHERE id = ?"))),
            ("server.address", Value::from(format!("db-{}.internal", service % 7))),
            ("server.port", Value::Int(5432)),
            ("thread.id", Value::Int(thread)),
        ]);
        end
    }
}

/// Collects the right answers from the spans that pass.
struct Keeper {
    truth: TraceTruth,
    window: VecDeque<i64>,
    errors: BTreeMap<(i64, usize), u64>,
    durations: HashMap<Text, Vec<i64>>,
}

impl Keeper {
    fn new(plan: &TracePlan) -> Self {
        let mid = plan.start_ns + (plan.spans as f64 * NS_PER_SPAN / 2.0) as i64;
        let newest = Newest {
            service: format!("{}-{}", DOMAINS[3], ROLES[1]),
            operation: format!("GET /v1/{}/{}/{{id}}", DOMAINS[3], NOUNS[2]),
            from_ns: mid - WINDOW_NS,
            to_ns: mid,
            starts: Vec::new(),
        };
        let truth = TraceTruth { newest, first_ns: i64::MAX, last_ns: i64::MIN, ..TraceTruth::default() };
        Self { truth, window: VecDeque::new(), errors: BTreeMap::new(), durations: HashMap::new() }
    }

    fn pass(&mut self, span: &Span, streams: &[StreamLabels]) {
        let truth = &mut self.truth;
        truth.spans += 1;
        truth.first_ns = truth.first_ns.min(span.start_ns);
        truth.last_ns = truth.last_ns.max(span.start_ns);
        let duration = span.end_ns - span.start_ns;
        let newest = &truth.newest;
        if (newest.from_ns..newest.to_ns).contains(&span.start_ns)
            && span.name == newest.operation
            && streams[span.stream].service == newest.service
        {
            self.window.push_back(span.start_ns);
        }
        if duration > SLOW_NS && span.get("http.response.status_code") == Some(&Value::Int(500)) {
            truth.slow += 1;
        }
        if span.error.is_some() {
            let minute = span.start_ns.div_euclid(MINUTE_NS) * MINUTE_NS;
            *self.errors.entry((minute, span.stream / PODS)).or_default() += 1;
        }
        match self.durations.get_mut(&span.name) {
            Some(durations) => durations.push(duration),
            None => _ = self.durations.insert(span.name.clone(), vec![duration]),
        }
    }

    fn finish(mut self, streams: &[StreamLabels]) -> TraceTruth {
        let mut truth = self.truth;
        truth.newest.starts = self.window.into();
        truth.newest.starts.sort_unstable_by(|a, b| b.cmp(a));
        truth.newest.starts.truncate(NEWEST);
        let named = |((minute, service), n): ((i64, usize), u64)| {
            (minute, streams[service * PODS].service.clone(), n)
        };
        truth.errors = self.errors.into_iter().map(named).collect();
        for (name, durations) in &mut self.durations {
            durations.sort_unstable();
            let place = |q: f64| (durations.len() - 1) as f64 * q;
            let (low, high) = (place(P99_BOUNDS.0).floor(), place(P99_BOUNDS.1).ceil());
            truth.p99.push((name.to_string(), durations[low as usize], durations[high as usize]));
        }
        truth.p99.sort_unstable();
        truth
    }
}

/// Makes a load and hands it over in batches of [`PUSH_RECORDS`] spans.
pub fn batches(
    plan: &TracePlan,
    mut take: impl FnMut(&[Span], &[StreamLabels]) -> Result<()>,
) -> Result<TraceTruth> {
    let mut traffic = Traffic::new(plan.seed, plan.start_ns);
    let mut keeper = Keeper::new(plan);
    let every = (plan.spans as f64 / SPANS_PER_TRACE / KEPT_TRACES as f64) as u64 + 1;
    let mut batch = Vec::with_capacity(PUSH_RECORDS);
    loop {
        let span = match traffic.ended() {
            Some(span) => span,
            None if traffic.made < plan.spans => {
                traffic.trace();
                if traffic.traces.is_multiple_of(every) {
                    let (id, spans) = traffic.last;
                    keeper.truth.kept.push((id.to_string(), spans));
                }
                continue;
            }
            // No trace begins any more: all that is left may end.
            None => match traffic.due.pop_first() {
                Some((_, span)) => span,
                None => break,
            },
        };
        keeper.pass(&span, &traffic.labels);
        batch.push(span);
        if batch.len() == PUSH_RECORDS {
            take(&batch, &traffic.labels)?;
            batch.clear();
        }
    }
    if !batch.is_empty() {
        take(&batch, &traffic.labels)?;
    }
    keeper.truth.traces = traffic.traces;
    Ok(keeper.finish(&traffic.labels))
}

/// Makes a load as OTLP requests, each with the number of its spans.
pub fn requests(plan: &TracePlan, mut take: impl FnMut(&[u8], usize) -> Result<()>) -> Result<TraceTruth> {
    let (mut body, mut wire_bytes) = (Vec::new(), 0);
    let truth = batches(plan, |spans, streams| {
        body.clear();
        otlp_spans(spans, streams, &mut body);
        wire_bytes += body.len() as u64;
        take(&body, spans.len())
    })?;
    Ok(TraceTruth { wire_bytes, ..truth })
}

/// Makes a load into a file of OTLP requests, with the right answers beside it.
pub fn write_file(plan: &TracePlan, path: &Path) -> Result<TraceTruth> {
    let mut file = FrameWriter::create(path)?;
    let truth = requests(plan, |body, spans| file.frame(body, spans))?;
    file.finish()?;
    write_truth(path, &truth)?;
    Ok(truth)
}

/// Makes a load into a file of `ClickHouse`'s `RowBinary`, with the right answers beside it.
pub fn write_row_binary(plan: &TracePlan, path: &Path) -> Result<()> {
    let mut file = FrameWriter::create(path)?;
    let mut rows = Vec::new();
    let truth = batches(plan, |spans, streams| {
        rows.clear();
        row_binary_spans(spans, streams, &mut rows);
        file.raw(&rows)
    })?;
    write_truth(path, &TraceTruth { wire_bytes: file.finish()?, ..truth })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::generate::DEFAULT_START_NS;

    /// The promised answers are those a plain scan of the spans gives, and spans are as large as told.
    #[test]
    fn truth_agrees_with_a_scan() {
        let plan = TracePlan { spans: 200_000, seed: 2, start_ns: DEFAULT_START_NS };
        let (mut all, mut bytes, mut labels) = (Vec::new(), 0, Vec::new());
        let truth = batches(&plan, |spans, streams| {
            let mut body = Vec::new();
            otlp_spans(spans, streams, &mut body);
            bytes += body.len();
            all.extend_from_slice(spans);
            labels = streams.to_vec();
            Ok(())
        })
        .unwrap();
        assert!(all.windows(2).all(|w| w[0].end_ns <= w[1].end_ns));
        assert_eq!(truth.spans, all.len() as u64);
        let size = bytes as f64 / all.len() as f64;
        assert!((320.0..380.0).contains(&size), "a span takes {size} bytes");
        let mut traces: HashMap<String, u64> = HashMap::new();
        all.iter().for_each(|s| *traces.entry(s.trace_id.to_string()).or_default() += 1);
        assert_eq!(truth.traces, traces.len() as u64);
        assert!(truth.kept.len() > 50, "{} traces are kept", truth.kept.len());
        assert!(truth.kept.iter().all(|(id, spans)| traces[id] == *spans));
        let per_trace = truth.spans as f64 / truth.traces as f64;
        assert!((SPANS_PER_TRACE - 1.5..SPANS_PER_TRACE + 1.5).contains(&per_trace), "{per_trace} a trace");
        let slow = |s: &&Span| {
            s.end_ns - s.start_ns > SLOW_NS && s.get("http.response.status_code") == Some(&Value::Int(500))
        };
        assert_eq!(truth.slow, all.iter().filter(slow).count() as u64);
        assert!(truth.slow > 5, "{} slow failures", truth.slow);
        let failed = all.iter().filter(|s| s.error.is_some()).count() as u64;
        assert_eq!(truth.errors.iter().map(|e| e.2).sum::<u64>(), failed);
        let mut newest: Vec<i64> = all
            .iter()
            .filter(|s| s.name == truth.newest.operation)
            .filter(|s| labels[s.stream].service == truth.newest.service)
            .map(|s| s.start_ns)
            .filter(|at| (truth.newest.from_ns..truth.newest.to_ns).contains(at))
            .collect();
        newest.sort_unstable_by(|a, b| b.cmp(a));
        assert_eq!(truth.newest.starts, newest[..newest.len().min(NEWEST)]);
        assert!(newest.len() >= NEWEST, "{} spans in the window", newest.len());
    }
}
