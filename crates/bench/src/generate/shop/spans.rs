//! One request under way: the spans it opens and closes, and the lines logged inside of them.

use trine_model::{Level, SpanId, TraceId};

use super::{FRONTEND, MS, PODS, SERVICES};
use crate::record::Record;
use crate::rng::Rng;
use crate::span::{Event, Kind, Span, Text, Value};

/// What outlives a request.
pub(super) struct World {
    pub(super) rng: Rng,
    /// Number of the last order.
    pub(super) orders: u64,
    /// The inventory's database stalls from the first time until the second, Unix nanoseconds.
    pub(super) stall: (i64, i64),
}

/// A request and all it caused.
pub(super) struct Request<'a> {
    pub(super) world: &'a mut World,
    pub(super) at: i64,
    pub(super) user: u64,
    pub(super) ip: [u8; 4],
    trace: TraceId,
    pub(super) spans: Vec<Span>,
    pub(super) logs: Vec<Record>,
}

/// Place of a span among those of its request.
#[derive(Debug, Clone, Copy)]
pub(super) struct Place(usize);

/// A call from one service to another.
#[derive(Debug, Clone, Copy)]
pub(super) struct Call {
    client: Place,
    /// The span of the service that was called.
    pub(super) server: Place,
    /// When the call arrived.
    pub(super) begun: i64,
}

/// What a database or cache is asked; names are those of the semantic conventions.
#[derive(Debug, Clone, Copy)]
pub(super) struct Query {
    pub(super) system: &'static str,
    pub(super) host: &'static str,
    pub(super) operation: &'static str,
    pub(super) table: &'static str,
    pub(super) text: &'static str,
}

impl<'a> Request<'a> {
    pub(super) fn new(world: &'a mut World, at: i64) -> Self {
        let trace = TraceId(world.rng.id());
        let user = 1000 + world.rng.skewed(40_000) as u64;
        let ip = (world.rng.next_u64() as u32).to_be_bytes();
        Self { world, at, user, ip, trace, spans: Vec::new(), logs: Vec::new() }
    }

    /// Nanoseconds, mostly near `typical` milliseconds, sometimes ten times that and more.
    pub(super) fn latency(&mut self, typical: u64) -> i64 {
        let rng = &mut self.world.rng;
        let slow = if rng.below(200) == 0 { 10 + rng.below(20) } else { 1 };
        let typical = typical * MS as u64;
        ((typical / 2 + rng.below(typical) + 1) * slow) as i64
    }

    /// One way through the network, nanoseconds.
    fn network(&mut self) -> i64 {
        150_000 + self.world.rng.below(300_000) as i64
    }

    /// Begins a span that is also its parent's end until it is closed.
    pub(super) fn open(
        &mut self,
        parent: Option<Place>,
        service: usize,
        kind: Kind,
        name: impl Into<Text>,
        start: i64,
    ) -> Place {
        self.spans.push(Span {
            trace_id: self.trace,
            span_id: SpanId(self.world.rng.id()),
            parent: parent.map(|p| self.spans[p.0].span_id),
            stream: service * PODS + (usize::from(self.trace.0[1]) + service) % PODS,
            name: name.into(),
            kind,
            start_ns: start,
            end_ns: start,
            error: None,
            attributes: Vec::new(),
            events: Vec::new(),
        });
        Place(self.spans.len() - 1)
    }

    pub(super) fn close(&mut self, place: Place, end: i64) {
        self.spans[place.0].end_ns = end;
    }

    pub(super) fn set(&mut self, place: Place, key: &'static str, value: impl Into<Value>) {
        self.spans[place.0].attributes.push((key, value.into()));
    }

    /// Gives a span the status ERROR.
    pub(super) fn fail(&mut self, place: Place, message: impl Into<Text>) {
        self.spans[place.0].error = Some(message.into());
    }

    /// An exception ends the work of a span.
    pub(super) fn throw(&mut self, place: Place, at: i64, kind: &'static str, message: &'static str) {
        let attributes = vec![("exception.type", kind.into()), ("exception.message", message.into())];
        self.spans[place.0].events.push(Event { time_ns: at, name: "exception", attributes });
        self.fail(place, message);
    }

    /// A line of the service whose span it is.
    pub(super) fn log(
        &mut self,
        place: Place,
        at: i64,
        level: Level,
        line: String,
        attributes: Vec<(&'static str, String)>,
    ) {
        let span = &self.spans[place.0];
        self.logs.push(Record {
            timestamp_ns: at,
            stream: span.stream,
            level,
            line,
            trace_id: Some(self.trace),
            span_id: Some(span.span_id),
            attributes,
        });
    }

    /// The request arrives at the front end.
    pub(super) fn arrive(&mut self, method: &'static str, route: &'static str, path: &str) -> Place {
        let at = self.at;
        let root = self.open(None, FRONTEND, Kind::Server, format!("{method} {route}"), at);
        self.set(root, "http.request.method", method);
        self.set(root, "http.route", route);
        let (path, query) = path.split_once('?').unwrap_or((path, ""));
        self.set(root, "url.path", path.to_owned());
        if !query.is_empty() {
            self.set(root, "url.query", query.to_owned());
        }
        let [a, b, c, d] = self.ip;
        self.set(root, "client.address", format!("{a}.{b}.{c}.{d}"));
        self.set(root, "enduser.id", self.user.to_string());
        root
    }

    /// Calls another service: a span on this side, and one on the other.
    pub(super) fn call(
        &mut self,
        caller: Place,
        service: usize,
        method: &'static str,
        route: &'static str,
        path: String,
        at: i64,
    ) -> Call {
        let from = self.spans[caller.0].stream / PODS;
        let client = self.open(Some(caller), from, Kind::Client, method, at);
        let begun = at + self.network();
        let server = self.open(Some(client), service, Kind::Server, format!("{method} {route}"), begun);
        for place in [client, server] {
            self.set(place, "http.request.method", method);
        }
        self.set(client, "server.address", SERVICES[service]);
        self.set(client, "url.full", format!("http://{}{path}", SERVICES[service]));
        self.set(server, "http.route", route);
        self.set(server, "url.path", path);
        Call { client, server, begun }
    }

    /// Answers a call at a time; when the caller has the answer.
    pub(super) fn answer(&mut self, call: Call, status: i64, at: i64) -> i64 {
        let back = at + self.network();
        for (place, end) in [(call.server, at), (call.client, back)] {
            self.set(place, "http.response.status_code", status);
            self.close(place, end);
        }
        // As the semantic conventions ask: 4xx is the client's error alone.
        if status >= 400 {
            self.fail(call.client, "");
        }
        if status >= 500 && self.spans[call.server.0].error.is_none() {
            self.fail(call.server, "");
        }
        back
    }

    /// Asks a database or cache; the span and when the answer is there.
    pub(super) fn query(&mut self, caller: Place, query: Query, at: i64, took: i64) -> (Place, i64) {
        let service = self.spans[caller.0].stream / PODS;
        let name = if query.table.is_empty() {
            query.operation.to_owned()
        } else {
            format!("{} {}", query.operation, query.table)
        };
        let span = self.open(Some(caller), service, Kind::Client, name, at);
        self.set(span, "db.system.name", query.system);
        self.set(span, "db.operation.name", query.operation);
        if !query.table.is_empty() {
            self.set(span, "db.collection.name", query.table);
        }
        self.set(span, "db.query.text", query.text);
        self.set(span, "server.address", query.host);
        self.close(span, at + took);
        (span, at + took)
    }
}
