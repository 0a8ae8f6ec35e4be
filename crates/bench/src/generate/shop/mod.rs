//! A small web shop, made up: eight services that answer requests, trace them, log and count.
//!
//! Feeds `trine demo` and everybody who has no corpus. One request is one trace; it visits two to
//! six services, each of which logs in its own style (JSON, logfmt, plain text) inside its spans and
//! counts what it answered. Now and then a card is declined, a query is slow, and sometimes the
//! inventory's database stalls for a while: spans there take two seconds, lines warn, a gauge shows the
//! requests that wait for a connection, and checkout and front end fail.

mod lines;
mod meters;
mod requests;
mod spans;

use std::collections::BTreeMap;

use self::meters::Meters;
use self::spans::{Request, World};
use crate::metric::Export;
use crate::record::{Record, Source, StreamLabels};
use crate::rng::Rng;
use crate::span::Span;

const SERVICES: [&str; 8] =
    ["frontend", "catalog", "cart", "checkout", "payment", "shipping", "inventory", "recommendation"];
const FRONTEND: usize = 0;
const CATALOG: usize = 1;
const CART: usize = 2;
const CHECKOUT: usize = 3;
const PAYMENT: usize = 4;
const SHIPPING: usize = 5;
const INVENTORY: usize = 6;
const RECOMMENDATION: usize = 7;
/// Pods of one service.
const PODS: usize = 3;
const PRODUCTS: [&str; 12] = [
    "enamel mug",
    "linen apron",
    "oak board",
    "copper pan",
    "paring knife",
    "salt cellar",
    "tea towel",
    "glass carafe",
    "cast-iron pot",
    "herb planter",
    "bread tin",
    "pepper mill",
];
const CITIES: [&str; 8] = ["Lisbon", "Turin", "Ghent", "Malmo", "Leipzig", "Graz", "Porto", "Brno"];
/// Time from one stall of the inventory's database to the next on average, nanoseconds.
const STALL_EVERY_NS: f64 = 1000.0 * 1e9;
/// Length of a stall, nanoseconds: longer than metrics are exported apart.
const STALL_NS: i64 = 20_000_000_000;
/// What a query waits for a connection at least, milliseconds.
const STALL_WAIT_MS: i64 = 2000;
const MS: i64 = 1_000_000;

/// The shop; see the module's text.
pub struct Shop {
    labels: Vec<StreamLabels>,
    world: World,
    meters: Meters,
    clock_ns: i64,
    last_ns: i64,
    mean_gap_ns: f64,
    planned_stall: Option<i64>,
    // What happened but is not yet due, by its time; the number keeps equal times in order.
    logs: BTreeMap<(i64, u64), Record>,
    spans: BTreeMap<(i64, u64), Span>,
    made: u64,
    export_every: i64,
    next_export: i64,
}

/// What happened in a stretch of time, each signal in order.
#[derive(Debug, Default)]
pub struct Telemetry {
    /// Lines.
    pub logs: Vec<Record>,
    /// Spans, by their ends.
    pub spans: Vec<Span>,
    /// One export of each pod at each interval.
    pub metrics: Vec<Export>,
}

impl Shop {
    /// A shop that opens at `start_ns` (Unix nanoseconds) and serves so many requests a second on
    /// average; each request writes about three lines and seven spans.
    pub fn new(seed: u64, start_ns: i64, requests_per_second: f64) -> Self {
        let mut rng = Rng::new(seed);
        let mut labels = Vec::with_capacity(SERVICES.len() * PODS);
        for service in SERVICES {
            let set = rng.next_u64() & 0xFFFF_FFFF;
            for _ in 0..PODS {
                labels.push(StreamLabels {
                    service: service.to_owned(),
                    pod: format!("{service}-{set:08x}-{:05x}", rng.next_u64() & 0xF_FFFF),
                    namespace: "shop".to_owned(),
                });
            }
        }
        Self {
            meters: Meters::new(labels.len(), start_ns, rng.next_u64()),
            labels,
            world: World { rng, orders: 100_000, stall: (0, 0) },
            clock_ns: start_ns,
            last_ns: start_ns,
            mean_gap_ns: 1e9 / requests_per_second.max(0.001),
            planned_stall: None,
            logs: BTreeMap::new(),
            spans: BTreeMap::new(),
            made: 0,
            export_every: 15_000_000_000,
            next_export: start_ns,
        }
    }

    /// Makes metrics be exported every so many nanoseconds instead of every 15 s.
    #[must_use]
    pub const fn export_every(mut self, ns: i64) -> Self {
        self.export_every = ns;
        self
    }

    /// Makes the inventory's database stall at this time, besides the stalls that chance brings.
    #[must_use]
    pub const fn stall_at(mut self, at_ns: i64) -> Self {
        self.planned_stall = Some(at_ns);
        self
    }

    fn request(&mut self) {
        let gap = self.world.rng.gap(self.mean_gap_ns);
        self.clock_ns += gap;
        let planned = self.planned_stall.take_if(|at| *at <= self.clock_ns);
        if planned.is_some() || self.world.rng.chance(gap as f64 / STALL_EVERY_NS) {
            self.world.stall = (self.clock_ns, self.clock_ns + STALL_NS);
        }
        let mut request = Request::new(&mut self.world, self.clock_ns);
        request.serve();
        for record in request.logs {
            self.made += 1;
            self.logs.insert((record.timestamp_ns, self.made), record);
        }
        for span in request.spans {
            self.made += 1;
            self.spans.insert((span.end_ns, self.made), span);
        }
    }

    /// Everything up to and including `until_ns` that was not handed out before.
    pub fn until(&mut self, until_ns: i64) -> Telemetry {
        while self.clock_ns <= until_ns {
            self.request();
        }
        let mut found = Telemetry::default();
        while self.next_export <= until_ns {
            self.end_spans(self.next_export, &mut found.spans);
            found.metrics.extend(self.meters.export(self.next_export, &self.spans.values()));
            self.next_export += self.export_every;
        }
        self.end_spans(until_ns, &mut found.spans);
        while let Some(record) = self.next_log(until_ns) {
            found.logs.push(record);
        }
        found
    }

    /// Hands out the spans that have ended by `until_ns`.
    fn end_spans(&mut self, until_ns: i64, ended: &mut Vec<Span>) {
        let later = self.spans.split_off(&(until_ns + 1, 0));
        for span in std::mem::replace(&mut self.spans, later).into_values() {
            self.meters.observe(&span);
            ended.push(span);
        }
    }

    /// The next line up to `until_ns`. Final, as no later request can come before it.
    fn next_log(&mut self, until_ns: i64) -> Option<Record> {
        let first = self.logs.first_entry().filter(|e| e.key().0 <= until_ns)?;
        let mut record = first.remove();
        // Times stay unique, so that an answer's order is never a matter of luck.
        record.timestamp_ns = record.timestamp_ns.max(self.last_ns + 1);
        self.last_ns = record.timestamp_ns;
        Some(record)
    }
}

impl Source for Shop {
    fn streams(&self) -> &[StreamLabels] {
        &self.labels
    }

    fn common_substring(&self) -> &'static str {
        "art_siz"
    }

    fn next_into(&mut self, record: &mut Record) {
        loop {
            if let Some(next) = self.next_log(self.clock_ns) {
                *record = next;
                return;
            }
            self.request();
            // Whoever wants lines alone has no use for the rest.
            self.spans.clear();
        }
    }
}

impl Iterator for Shop {
    type Item = Record;

    fn next(&mut self) -> Option<Record> {
        let mut record = Record::default();
        self.next_into(&mut record);
        Some(record)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{HashMap, HashSet};

    use trine_model::{Level, SpanId};

    use super::*;
    use crate::metric::{Metric, Points};
    use crate::span::{Kind, Value};

    const START: i64 = 1_700_000_000_000_000_000;
    const SECOND: i64 = 1_000_000_000;

    #[test]
    fn the_shop_is_deterministic_in_order_and_has_all_sorts_of_lines() {
        let records: Vec<Record> = Shop::new(5, START, 100.0).take(50_000).collect();
        assert!(records.windows(2).all(|w| w[0].timestamp_ns < w[1].timestamp_ns));
        let again = Shop::new(5, START, 100.0).nth(49_999).unwrap();
        assert_eq!((&again.line, again.timestamp_ns), (&records[49_999].line, records[49_999].timestamp_ns));
        for level in [Level::Debug, Level::Info, Level::Warn, Level::Error] {
            assert!(records.iter().any(|r| r.level == level), "no {level:?} in 50,000 records");
        }
        let streams: HashSet<usize> = records.iter().map(|r| r.stream).collect();
        assert_eq!(streams.len(), SERVICES.len() * PODS);
        let json = records.iter().filter(|r| r.line.starts_with('{'));
        assert!(json.clone().all(|r| serde_json::from_str::<serde_json::Value>(&r.line).is_ok()));
        assert!(json.count() > 10_000);
        let seconds = (records[49_999].timestamp_ns - START) as f64 / 1e9;
        assert!((60.0..250.0).contains(&seconds), "50,000 lines at about 400 a second took {seconds} s");
    }

    /// Three minutes with a stall after one.
    fn three_minutes(steps: i64) -> Telemetry {
        let mut shop = Shop::new(7, START, 30.0).stall_at(START + 60 * SECOND);
        let mut all = Telemetry::default();
        for step in 1..=steps {
            let more = shop.until(START + 180 * SECOND * step / steps);
            all.logs.extend(more.logs);
            all.spans.extend(more.spans);
            all.metrics.extend(more.metrics);
        }
        all
    }

    /// Every line lies in its span, every span's parent is one of its trace and all traces are trees.
    #[test]
    fn lines_lie_inside_their_spans_and_spans_are_trees() {
        let all = three_minutes(1);
        let spans: HashMap<SpanId, &Span> = all.spans.iter().map(|s| (s.span_id, s)).collect();
        let by_call = |s: &Span| matches!(s.kind, Kind::Client | Kind::Server);
        for span in &all.spans {
            assert!(span.end_ns > span.start_ns, "{span:?} ends before it begins");
            assert!(span.events.iter().all(|e| (span.start_ns..=span.end_ns).contains(&e.time_ns)));
            // A parent that has not ended yet is not there yet.
            let Some(parent) = span.parent.and_then(|p| spans.get(&p)) else { continue };
            assert_eq!(parent.trace_id, span.trace_id);
            assert!(parent.start_ns <= span.start_ns);
            assert!(!by_call(span) || span.end_ns <= parent.end_ns, "{span:?} ends after {parent:?}");
        }
        let mut inside = 0;
        for log in &all.logs {
            let Some(span) = log.span_id.and_then(|id| spans.get(&id)) else { continue };
            assert_eq!((Some(span.trace_id), span.stream), (log.trace_id, log.stream));
            assert!((span.start_ns..=span.end_ns).contains(&log.timestamp_ns), "{log:?} is not in {span:?}");
            inside += 1;
        }
        assert!(inside > all.logs.len() * 99 / 100, "{inside} of {} lines have a span", all.logs.len());
        let roots = all.spans.iter().filter(|s| s.parent.is_none()).count();
        let per_trace = all.spans.len() as f64 / roots as f64;
        assert!((4.0..12.0).contains(&per_trace), "{per_trace} spans in a trace");
    }

    fn last<'a>(exports: &'a [Export], name: &str) -> Vec<(&'a Export, &'a Metric)> {
        let end = exports.last().unwrap().time_ns;
        let of_end = exports.iter().filter(|e| e.time_ns == end);
        of_end.flat_map(|e| e.metrics.iter().filter(|m| m.name == name).map(move |m| (e, m))).collect()
    }

    /// What is counted is what was traced; the three counts of requests are one.
    #[test]
    fn metrics_agree_with_spans_however_they_are_asked_for() {
        let (once, often) = (three_minutes(1), three_minutes(97));
        assert_eq!(once.logs.len(), often.logs.len());
        assert_eq!(once.spans.len(), often.spans.len());
        assert_eq!(format!("{:?}", once.metrics), format!("{:?}", often.metrics));

        let end = once.metrics.last().unwrap().time_ns;
        let traced = once.spans.iter().filter(|s| s.kind == Kind::Server && s.end_ns <= end).count();
        let (mut counted, mut timed) = (0.0, 0);
        for (_, metric) in last(&once.metrics, "http.server.requests") {
            let Points::Sum(points) = &metric.points else { panic!("no counter: {metric:?}") };
            counted += points.iter().map(|p| p.value).sum::<f64>();
        }
        for (_, metric) in last(&once.metrics, "http.server.request.duration") {
            let Points::Histogram(_, points) = &metric.points else { panic!("no histogram: {metric:?}") };
            timed += points.iter().flat_map(|p| &p.counts).sum::<u64>();
        }
        assert_eq!((counted, timed), (traced as f64, traced as u64));
        let queries = once.spans.iter().filter(|s| s.get("db.system.name").is_some() && s.end_ns <= end);
        let mut asked = 0;
        for (_, metric) in last(&once.metrics, "db.client.operation.duration") {
            let Points::ExponentialHistogram(points) = &metric.points else { panic!("{metric:?}") };
            asked += points.iter().flat_map(|p| &p.counts).sum::<u64>();
            for point in points {
                let width = 2f64.powf(1.0 / f64::from(1 << point.scale));
                let low = (point.offset..).zip(&point.counts).map(|(i, n)| width.powi(i) * *n as f64);
                let low: f64 = low.sum();
                assert!((low..=low * width * 1.0001).contains(&point.sum), "{point:?} sums from {low}");
            }
        }
        assert_eq!(asked, queries.count() as u64);
    }

    #[test]
    fn a_stall_shows_in_spans_lines_and_metrics_and_only_then() {
        let all = three_minutes(1);
        let during = START + 60 * SECOND..START + 90 * SECOND;
        let slow: Vec<&Span> = all
            .spans
            .iter()
            .filter(|s| s.stream / PODS == INVENTORY && s.end_ns - s.start_ns > 2 * SECOND)
            .collect();
        assert!(slow.len() > 20 && slow.iter().all(|s| during.contains(&s.start_ns)));
        assert!(slow.iter().all(|s| s.error.is_some()));
        let warned = all.logs.iter().filter(|l| l.line.contains("query timed out"));
        assert!(warned.clone().count() > 20 && warned.clone().all(|l| during.contains(&l.timestamp_ns)));
        let waiting = |export: &Export| {
            let metric = export.metrics.iter().find(|m| m.name == "db.client.connection.pending_requests")?;
            let Points::Gauge(points) = &metric.points else { panic!("no gauge: {metric:?}") };
            Some(points[0].value)
        };
        let (mut peak, mut outside) = (0.0, 0.0);
        for export in &all.metrics {
            let sum = if during.contains(&export.time_ns) { &mut peak } else { &mut outside };
            *sum += waiting(export).unwrap_or(0.0);
        }
        assert!(peak > 3.0 && outside == 0.0, "{peak} wait during the stall, {outside} at other times");
        let failed =
            all.spans.iter().filter(|s| s.get("http.response.status_code") == Some(&Value::Int(503)));
        let failed: Vec<&Span> = failed.collect();
        assert!(failed.iter().any(|s| s.stream / PODS == FRONTEND && s.error.is_some()));
        assert!(failed.iter().any(|s| s.events.iter().any(|e| e.name == "exception")));
    }
}
