//! A small web shop, made up: eight services that answer requests and log about it.
//!
//! Feeds `trine demo` and everybody who has no corpus. One request is one trace; it visits two to
//! six services, each of which logs in its own style (JSON, logfmt, plain text). Now and then a card
//! is declined, a query is slow, and about every hundredth minute the inventory's database stalls for
//! a few seconds, which shows as warnings there and as errors at the checkout and the front end.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::fmt::Write as _;

use trine_model::{Level, SpanId, TraceId};

use super::clock::Moment;
use crate::record::{Record, Source, StreamLabels};
use crate::rng::Rng;

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
/// One in so many requests starts a stall of the inventory's database.
const STALL_EVERY: u64 = 20_000;
/// Length of a stall, nanoseconds.
const STALL_NS: i64 = 6_000_000_000;
const MS: i64 = 1_000_000;

/// The shop; see the module's text.
pub struct Shop {
    labels: Vec<StreamLabels>,
    rng: Rng,
    clock_ns: i64,
    last_ns: i64,
    mean_gap_ns: f64,
    stalled_until: i64,
    orders: u64,
    // Records written but not yet due, oldest first; the number keeps equal times in order.
    due: BinaryHeap<Reverse<(i64, u64)>>,
    ready: Vec<Option<Record>>,
    free: Vec<usize>,
    made: u64,
}

struct Request {
    at: i64,
    trace: TraceId,
    user: u64,
    ip: [u8; 4],
}

impl Shop {
    /// A shop that opens at `start_ns` (Unix nanoseconds) and serves so many requests a second on
    /// average; each request writes about three lines.
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
            labels,
            rng,
            clock_ns: start_ns,
            last_ns: start_ns,
            mean_gap_ns: 1e9 / requests_per_second.max(0.001),
            stalled_until: i64::MIN,
            orders: 100_000,
            due: BinaryHeap::new(),
            ready: Vec::new(),
            free: Vec::new(),
            made: 0,
        }
    }

    fn log(
        &mut self,
        request: &Request,
        after: i64,
        service: usize,
        level: Level,
        line: String,
        attributes: Vec<(&'static str, String)>,
    ) {
        let pod = (request.trace.0[1] as usize + service) % PODS;
        let record = Record {
            timestamp_ns: request.at + after,
            stream: service * PODS + pod,
            level,
            line,
            trace_id: Some(request.trace),
            span_id: Some(SpanId(self.rng.id())),
            attributes,
        };
        let place = self.free.pop().unwrap_or_else(|| {
            self.ready.push(None);
            self.ready.len() - 1
        });
        // The place rides in the low half so that the heap needs no second map.
        self.made += 1;
        self.due.push(Reverse((record.timestamp_ns, self.made << 24 | place as u64)));
        self.ready[place] = Some(record);
    }

    fn request(&mut self) {
        self.clock_ns += self.rng.gap(self.mean_gap_ns);
        if self.rng.below(STALL_EVERY) == 0 {
            self.stalled_until = self.clock_ns + STALL_NS;
        }
        let request = Request {
            at: self.clock_ns,
            trace: TraceId(self.rng.id()),
            user: 1000 + self.rng.skewed(40_000) as u64,
            ip: (self.rng.next_u64() as u32).to_be_bytes(),
        };
        match self.rng.below(100) {
            0..55 => self.browse(&request),
            55..75 => self.search(&request),
            75..92 => self.put_in_cart(&request),
            _ => self.buy(&request),
        }
    }

    /// Milliseconds, mostly near `typical`, sometimes ten times that.
    fn latency(&mut self, typical: u64) -> i64 {
        let slow = if self.rng.below(200) == 0 { 10 + self.rng.below(20) } else { 1 };
        (typical / 2 + self.rng.below(typical) + 1) as i64 * slow as i64
    }

    fn answer(&mut self, request: &Request, took: i64, method: &str, path: &str, status: u16) {
        let level = match status {
            500.. => Level::Error,
            _ if took > 1000 => Level::Warn,
            _ => Level::Info,
        };
        let [a, b, c, d] = request.ip;
        let message = if level == Level::Warn { "slow request" } else { "request served" };
        let line = format!(
            r#"{{"level":"{}","msg":"{message}","method":"{method}","path":"{path}","status":{status},"duration_ms":{took},"bytes":{},"client":"{a}.{b}.{c}.{d}","user_id":{}}}"#,
            level.name().to_lowercase(),
            400 + self.rng.below(30_000),
            request.user,
        );
        let attributes = vec![("http_status", status.to_string())];
        self.log(request, took * MS, FRONTEND, level, line, attributes);
    }

    fn browse(&mut self, request: &Request) {
        let product = self.rng.skewed(PRODUCTS.len());
        let took = self.latency(9);
        let hit = !self.rng.chance(0.2);
        let line = format!(
            r#"{{"level":"info","msg":"product loaded","product_id":"P{:04}","name":"{}","cache":"{}","took_ms":{took}}}"#,
            product * 37 + 11,
            PRODUCTS[product],
            if hit { "hit" } else { "miss" },
        );
        self.log(request, took * MS, CATALOG, Level::Info, line, Vec::new());
        if !hit {
            let line = format!(
                "cache miss for product P{:04}, reading from partition {}",
                product * 37 + 11,
                product % 4
            );
            self.log(request, took * MS / 2, CATALOG, Level::Debug, line, Vec::new());
        }
        let line = format!(
            "INFO recommender.engine: {} items for user {} model=v{} score={:.4}",
            3 + self.rng.below(9),
            request.user,
            4 + product % 2,
            self.rng.unit()
        );
        self.log(request, (took + 2) * MS, RECOMMENDATION, Level::Info, line, Vec::new());
        self.answer(request, took + 6, "GET", &format!("/product/P{:04}", product * 37 + 11), 200);
    }

    fn search(&mut self, request: &Request) {
        let words = PRODUCTS[self.rng.skewed(PRODUCTS.len())];
        let (took, found) = (self.latency(40), self.rng.skewed(60));
        let line = format!(
            r#"{{"level":"info","msg":"search","query":"{words}","results":{found},"took_ms":{took},"shards":4}}"#
        );
        self.log(request, took * MS, CATALOG, Level::Info, line, Vec::new());
        let path = format!("/search?q={}", words.replace(' ', "+"));
        self.answer(request, took + 3, "GET", &path, 200);
    }

    fn put_in_cart(&mut self, request: &Request) {
        let (product, took) = (self.rng.skewed(PRODUCTS.len()), self.latency(6));
        let items = 1 + self.rng.skewed(6);
        let line = format!(
            "level=info msg=\"item added\" user={} product=P{:04} qty={items} cart_size={} took={took}ms",
            request.user,
            product * 37 + 11,
            items + self.rng.skewed(9),
        );
        self.log(request, took * MS, CART, Level::Info, line, Vec::new());
        self.stock(request, took, product);
        self.answer(request, took + 4, "POST", "/cart", 204);
    }

    /// Asks the inventory; false when its database stalls.
    fn stock(&mut self, request: &Request, after: i64, product: usize) -> bool {
        let stalled = request.at < self.stalled_until;
        let took = if stalled { 2000 + self.latency(200) } else { self.latency(3) };
        let line = if stalled {
            format!(
                "level=warn msg=\"query timed out\" db=stock-1 table=stock_levels waited={took}ms pool_in_use=32 pool_size=32"
            )
        } else {
            format!(
                "level=debug msg=\"stock checked\" product=P{:04} available={} took={took}ms",
                product * 37 + 11,
                self.rng.skewed(400)
            )
        };
        let level = if stalled { Level::Warn } else { Level::Debug };
        self.log(request, (after + took) * MS, INVENTORY, level, line, Vec::new());
        !stalled
    }

    fn buy(&mut self, request: &Request) {
        self.orders += 1;
        let order = self.orders;
        let product = self.rng.skewed(PRODUCTS.len());
        let cents = 500 + self.rng.below(30_000);
        let step = self.latency(12);
        let line = format!(
            "[checkout-{}] INFO  c.s.checkout.OrderService - placing order {order} for user {}: {} items, {}.{:02} EUR",
            self.rng.below(16),
            request.user,
            1 + self.rng.skewed(5),
            cents / 100,
            cents % 100
        );
        self.log(request, step * MS, CHECKOUT, Level::Info, line, vec![("order_id", order.to_string())]);
        if !self.stock(request, step, product) {
            let line = format!(
                "[checkout-{}] ERROR c.s.checkout.OrderService - order {order} failed: inventory did not answer within 2000 ms (java.util.concurrent.TimeoutException)",
                self.rng.below(16)
            );
            self.log(
                request,
                (step + 2400) * MS,
                CHECKOUT,
                Level::Error,
                line,
                vec![("order_id", order.to_string())],
            );
            return self.answer(request, step + 2410, "POST", "/checkout", 503);
        }
        let paid = step + self.latency(120);
        let declined = self.rng.chance(0.03);
        let line = format!(
            r#"{{"level":"{}","msg":"{}","order":{order},"amount_cents":{cents},"card":"****{:04}","provider":"paybridge","auth":"{:012x}","took_ms":{}}}"#,
            if declined { "error" } else { "info" },
            if declined { "card declined" } else { "payment authorised" },
            self.rng.below(10_000),
            self.rng.next_u64() >> 16,
            paid - step
        );
        let level = if declined { Level::Error } else { Level::Info };
        self.log(request, paid * MS, PAYMENT, level, line, vec![("order_id", order.to_string())]);
        if declined {
            return self.answer(request, paid + 5, "POST", "/checkout", 402);
        }
        let mut line = String::new();
        Moment::new(request.at + paid * MS).write("%Y-%m-%d %H:%M:%S,%3", &mut line);
        _ = write!(
            line,
            " INFO shipping: label {:010} created for order {order} to {}, {} g",
            self.rng.below(10_000_000_000),
            CITIES[self.rng.skewed(CITIES.len())],
            200 + self.rng.below(6000)
        );
        self.log(
            request,
            (paid + 20) * MS,
            SHIPPING,
            Level::Info,
            line,
            vec![("order_id", order.to_string())],
        );
        self.answer(request, paid + 30, "POST", "/checkout", 201);
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
        // A record is final once no later request can come before it.
        while self.due.peek().is_none_or(|Reverse((at, _))| *at > self.clock_ns) {
            self.request();
        }
        let Reverse((_, key)) = self.due.pop().expect("bug: the loop above leaves a due record");
        let place = (key & 0xFF_FFFF) as usize;
        self.free.push(place);
        *record = self.ready[place].take().expect("bug: a due record has a place");
        // Times stay unique, so that an answer's order is never a matter of luck.
        record.timestamp_ns = record.timestamp_ns.max(self.last_ns + 1);
        self.last_ns = record.timestamp_ns;
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
    use super::*;

    #[test]
    fn the_shop_is_deterministic_in_order_and_has_all_sorts_of_lines() {
        let start = 1_700_000_000_000_000_000;
        let records: Vec<Record> = Shop::new(5, start, 100.0).take(50_000).collect();
        assert!(records.windows(2).all(|w| w[0].timestamp_ns < w[1].timestamp_ns));
        let again = Shop::new(5, start, 100.0).nth(49_999).unwrap();
        assert_eq!((&again.line, again.timestamp_ns), (&records[49_999].line, records[49_999].timestamp_ns));
        for level in [Level::Debug, Level::Info, Level::Warn, Level::Error] {
            assert!(records.iter().any(|r| r.level == level), "no {level:?} in 50,000 records");
        }
        let streams: std::collections::HashSet<usize> = records.iter().map(|r| r.stream).collect();
        assert_eq!(streams.len(), SERVICES.len() * PODS);
        let json = records.iter().filter(|r| r.line.starts_with('{'));
        assert!(json.clone().all(|r| serde_json::from_str::<serde_json::Value>(&r.line).is_ok()));
        assert!(json.count() > 10_000);
        let seconds = (records[49_999].timestamp_ns - start) as f64 / 1e9;
        assert!((60.0..250.0).contains(&seconds), "50,000 lines at about 400 a second took {seconds} s");
    }
}
