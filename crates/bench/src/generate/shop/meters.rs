//! What the shop's processes count about themselves. Counts come from spans as they end, so that the
//! signals agree: a counter at a time is the number of spans that had ended by then.

use std::collections::BTreeMap;

use super::{INVENTORY, PODS, SHIPPING};
use crate::metric::{Exemplar, ExponentialHistogram, Export, Histogram, Metric, Number, Points};
use crate::rng::Rng;
use crate::span::{Attributes, Kind, Span, Value};

/// Bounds of `http.server.request.duration` as the semantic conventions advise, seconds.
const BOUNDS: [f64; 14] = [0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0];
/// Eight buckets from one power of two to the next.
const SCALE: i32 = 3;
/// Connections that a pod of the inventory may hold to its database.
const POOL: f64 = 32.0;
/// Bytes a process begins with.
const MEMORY: f64 = 180e6;

/// A histogram under way; buckets by index.
#[derive(Default)]
struct Buckets {
    counts: BTreeMap<i32, u64>,
    sum_ns: i64,
    exemplar: Option<Exemplar>,
}

impl Buckets {
    fn add(&mut self, bucket: i32, took_ns: i64, seen: Exemplar) {
        *self.counts.entry(bucket).or_default() += 1;
        self.sum_ns += took_ns;
        // The slowest is the one somebody will want to look at.
        if self.exemplar.is_none_or(|kept| kept.value < seen.value) {
            self.exemplar = Some(seen);
        }
    }

    /// Sum of all values, seconds.
    fn sum(&self) -> f64 {
        self.sum_ns as f64 / 1e9
    }

    /// First index and all counts from there.
    fn dense(&self) -> (i32, Vec<u64>) {
        let ends = self.counts.first_key_value().zip(self.counts.last_key_value());
        let Some(((first, _), (last, _))) = ends else { return (0, Vec::new()) };
        (*first, (*first..=*last).map(|at| self.counts.get(&at).copied().unwrap_or(0)).collect())
    }
}

/// Instruments of one pod; keys are the attributes.
struct Pod {
    requests: BTreeMap<Attributes, (u64, Exemplar)>,
    durations: BTreeMap<Attributes, Buckets>,
    queries: BTreeMap<Attributes, Buckets>,
    memory: f64,
}

/// Instruments of all pods.
pub(super) struct Meters {
    pods: Vec<Pod>,
    start_ns: i64,
    rng: Rng,
}

impl Meters {
    pub(super) fn new(pods: usize, start_ns: i64, seed: u64) -> Self {
        let mut rng = Rng::new(seed);
        let pod = |_| Pod {
            requests: BTreeMap::new(),
            durations: BTreeMap::new(),
            queries: BTreeMap::new(),
            memory: MEMORY * (0.8 + rng.unit()),
        };
        Self { pods: (0..pods).map(pod).collect(), start_ns, rng }
    }

    /// Counts a span that has ended.
    pub(super) fn observe(&mut self, span: &Span) {
        let pod = &mut self.pods[span.stream];
        let pick = |keys: &[&'static str]| -> Attributes {
            keys.iter().filter_map(|key| Some((*key, span.get(key)?.clone()))).collect()
        };
        let took_ns = span.end_ns - span.start_ns;
        let seconds = took_ns as f64 / 1e9;
        let seen =
            Exemplar { time_ns: span.end_ns, value: seconds, trace_id: span.trace_id, span_id: span.span_id };
        if span.kind == Kind::Server {
            let mut attributes = pick(&["http.request.method", "http.route"]);
            let bucket = BOUNDS.partition_point(|bound| *bound < seconds) as i32;
            pod.durations.entry(attributes.clone()).or_default().add(bucket, took_ns, seen);
            attributes.extend(pick(&["http.response.status_code"]));
            let (count, last) = pod.requests.entry(attributes).or_insert((0, seen));
            (*count, *last) = (*count + 1, Exemplar { value: 1.0, ..seen });
        } else if span.get("db.system.name").is_some() {
            let attributes = pick(&["db.system.name", "db.operation.name", "db.collection.name"]);
            let bucket = (seconds.log2() * f64::from(1 << SCALE)).ceil() as i32 - 1;
            pod.queries.entry(attributes).or_default().add(bucket, took_ns, seen);
        }
    }

    /// What every pod exports at a time, `open` being the spans that have not ended then.
    pub(super) fn export<'a>(
        &mut self,
        time_ns: i64,
        open: &(impl Iterator<Item = &'a Span> + Clone),
    ) -> Vec<Export> {
        (0..self.pods.len())
            .map(|stream| {
                let open = open.clone().filter(move |s| s.stream == stream);
                let metrics = self.metrics(stream, time_ns, open);
                Export { stream, start_ns: self.start_ns, time_ns, metrics }
            })
            .collect()
    }

    fn metrics<'a>(
        &mut self,
        stream: usize,
        time_ns: i64,
        open: impl Iterator<Item = &'a Span> + Clone,
    ) -> Vec<Metric> {
        let pod = &mut self.pods[stream];
        let begun = |s: &&Span| s.start_ns <= time_ns;
        let under_way = open.clone().filter(begun);
        pod.memory = (pod.memory + (self.rng.unit() - 0.495) * 4e6).max(MEMORY / 2.0);
        let active = under_way.clone().filter(|s| s.kind == Kind::Server).count();
        let mut metrics = vec![
            Metric {
                name: "process.memory.usage",
                unit: "By",
                description: "Physical memory in use.",
                points: gauge(&[(None, pod.memory.round())]),
            },
            Metric {
                name: "http.server.active_requests",
                unit: "{request}",
                description: "Requests under way.",
                points: gauge(&[(None, active as f64)]),
            },
        ];
        if !pod.requests.is_empty() {
            let points = pod.requests.iter().map(|(attributes, (count, last))| Number {
                attributes: attributes.clone(),
                value: *count as f64,
                exemplar: Some(*last),
            });
            metrics.push(Metric {
                name: "http.server.requests",
                unit: "{request}",
                description: "Requests answered.",
                points: Points::Sum(points.collect()),
            });
            let points = pod.durations.iter_mut().map(|(attributes, buckets)| Histogram {
                attributes: attributes.clone(),
                sum: buckets.sum(),
                counts: (0..=BOUNDS.len() as i32)
                    .map(|at| buckets.counts.get(&at).copied().unwrap_or(0))
                    .collect(),
                exemplar: buckets.exemplar.take(),
            });
            metrics.push(Metric {
                name: "http.server.request.duration",
                unit: "s",
                description: "Time from a request to its answer.",
                points: Points::Histogram(&BOUNDS, points.collect()),
            });
        }
        if !pod.queries.is_empty() {
            let points = pod.queries.iter_mut().map(|(attributes, buckets)| {
                let (offset, counts) = buckets.dense();
                ExponentialHistogram {
                    attributes: attributes.clone(),
                    sum: buckets.sum(),
                    scale: SCALE,
                    offset,
                    counts,
                    exemplar: buckets.exemplar.take(),
                }
            });
            metrics.push(Metric {
                name: "db.client.operation.duration",
                unit: "s",
                description: "Time a query of a database or cache takes.",
                points: Points::ExponentialHistogram(points.collect()),
            });
        }
        if stream / PODS == INVENTORY {
            let queries = under_way.filter(|s| s.kind == Kind::Client);
            // A query that will fail has got no connection.
            let waiting = queries.clone().filter(|s| s.error.is_some()).count() as f64;
            let used = if waiting > 0.0 { POOL } else { queries.count() as f64 };
            metrics.push(Metric {
                name: "db.client.connection.count",
                unit: "{connection}",
                description: "Connections to the database by state.",
                points: gauge(&[
                    (Some(("db.client.connection.state", "used")), used),
                    (Some(("db.client.connection.state", "idle")), POOL - used),
                ]),
            });
            metrics.push(Metric {
                name: "db.client.connection.pending_requests",
                unit: "{request}",
                description: "Requests that wait for a connection.",
                points: gauge(&[(None, waiting)]),
            });
        }
        if stream / PODS == SHIPPING {
            let waiting = open.filter(|s| s.kind == Kind::Consumer && s.start_ns > time_ns);
            let sent = waiting.filter(|s| s.start_ns - QUEUED_NS <= time_ns).count();
            metrics.push(Metric {
                name: "messaging.queue.depth",
                unit: "{message}",
                description: "Orders that nobody has taken yet.",
                points: gauge(&[(None, sent as f64)]),
            });
        }
        metrics
    }
}

/// An order waits about so long, nanoseconds.
const QUEUED_NS: i64 = 400_000_000;

fn gauge(points: &[(Option<(&'static str, &'static str)>, f64)]) -> Points {
    let number = |(attribute, value): &(Option<(&'static str, &'static str)>, f64)| Number {
        attributes: attribute.iter().map(|(k, v)| (*k, Value::from(*v))).collect(),
        value: *value,
        exemplar: None,
    };
    Points::Gauge(points.iter().map(number).collect())
}
