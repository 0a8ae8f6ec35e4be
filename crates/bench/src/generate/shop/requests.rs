//! What a visitor does, and the way of each request through the services.
//!
//! A line is written at the latest [`BEFORE_END`] before its span ends, so that it lies inside.

use trine_model::Level;

use super::spans::{Place, Query, Request};
use super::{
    CART, CATALOG, CHECKOUT, INVENTORY, MS, PAYMENT, PRODUCTS, RECOMMENDATION, SHIPPING, STALL_WAIT_MS, lines,
};
use crate::span::Kind;

/// Nanoseconds from a service's last line to the end of its span.
const BEFORE_END: i64 = 40_000;

const fn cache(operation: &'static str) -> Query {
    let text = if operation.len() == 3 { "GET product:?" } else { "HSET cart:? ? ?" };
    Query { system: "redis", host: "cache-1", operation, table: "", text }
}

const fn postgres(host: &'static str, table: &'static str, text: &'static str) -> Query {
    let operation = if matches!(text.as_bytes()[0], b'I') { "INSERT" } else { "SELECT" };
    Query { system: "postgresql", host, operation, table, text }
}

/// A product's id as it is written.
pub(super) const fn product_id(product: usize) -> usize {
    product * 37 + 11
}

impl Request<'_> {
    /// One visitor's request.
    pub(super) fn serve(&mut self) {
        match self.world.rng.below(100) {
            0..55 => self.browse(),
            55..75 => self.search(),
            75..92 => self.put_in_cart(),
            _ => self.buy(),
        }
    }

    /// The front end answers `done` and logs it.
    fn done(&mut self, root: Place, method: &str, path: &str, status: i64, done: i64) {
        let end = done + 500_000 + self.latency(1);
        let took = (end - self.at) / MS;
        let (level, line) =
            lines::served(&mut self.world.rng, self.ip, self.user, method, path, status, took);
        self.log(root, end - BEFORE_END, level, line, vec![("http_status", status.to_string())]);
        self.set(root, "http.response.status_code", status);
        if status >= 500 {
            self.fail(root, "checkout failed");
        }
        self.close(root, end);
    }

    fn browse(&mut self) {
        let product = self.world.rng.skewed(PRODUCTS.len());
        let visited = format!("/product/P{:04}", product_id(product));
        let root = self.arrive("GET", "/product/{id}", &visited);
        let api = format!("/products/P{:04}", product_id(product));
        let call = self.call(root, CATALOG, "GET", "/products/{id}", api, self.at + 300_000);
        let looked = self.latency(1) / 2;
        let (_, mut at) = self.query(call.server, cache("GET"), call.begun + 100_000, looked);
        let hit = !self.world.rng.chance(0.2);
        if !hit {
            let line = lines::cache_miss(product);
            self.log(call.server, at + 20_000, Level::Debug, line, Vec::new());
            let took = self.latency(9);
            let products =
                postgres("catalog-db", "products", "SELECT id, name, price FROM products WHERE id = $1");
            at = self.query(call.server, products, at + 50_000, took).1;
        }
        at += self.latency(3);
        let line = lines::product_loaded(product, hit, (at - call.begun) / MS);
        self.log(call.server, at - BEFORE_END, Level::Info, line, Vec::new());
        let loaded = self.answer(call, 200, at);

        let path = format!("/users/{}/items", self.user);
        let call = self.call(root, RECOMMENDATION, "GET", "/users/{id}/items", path, self.at + 350_000);
        let end = call.begun + self.latency(4);
        let line = lines::recommended(&mut self.world.rng, self.user, product);
        self.log(call.server, end - BEFORE_END, Level::Info, line, Vec::new());
        let recommended = self.answer(call, 200, end);
        self.done(root, "GET", &visited, 200, loaded.max(recommended));
    }

    fn search(&mut self) {
        let words = PRODUCTS[self.world.rng.skewed(PRODUCTS.len())];
        let path = format!("/search?q={}", words.replace(' ', "+"));
        let root = self.arrive("GET", "/search", &path);
        let call = self.call(root, CATALOG, "GET", "/products", "/products".to_owned(), self.at + 300_000);
        let took = self.latency(36);
        let text = "SELECT id, name FROM products WHERE words @@ plainto_tsquery($1) LIMIT 60";
        let (_, at) =
            self.query(call.server, postgres("catalog-db", "products", text), call.begun + 200_000, took);
        let end = at + self.latency(3);
        let found = self.world.rng.skewed(60);
        let line = lines::searched(words, found, (end - call.begun) / MS);
        self.log(call.server, end - BEFORE_END, Level::Info, line, Vec::new());
        let at = self.answer(call, 200, end);
        self.done(root, "GET", &path, 200, at);
    }

    fn put_in_cart(&mut self) {
        let product = self.world.rng.skewed(PRODUCTS.len());
        let root = self.arrive("POST", "/cart", "/cart");
        let path = format!("/carts/{}/items", self.user);
        let call = self.call(root, CART, "POST", "/carts/{id}/items", path, self.at + 300_000);
        let took = self.latency(1);
        let (_, at) = self.query(call.server, cache("HSET"), call.begun + 100_000, took);
        // A cart takes what it is given; whether it is there is told later.
        let (_, at) = self.stock(call.server, product, at + 100_000);
        let end = at + self.latency(2);
        let line = lines::added(&mut self.world.rng, self.user, product, (end - call.begun) / MS);
        self.log(call.server, end - BEFORE_END, Level::Info, line, Vec::new());
        let at = self.answer(call, 204, end);
        self.done(root, "POST", "/cart", 204, at);
    }

    /// Asks the inventory: whether its database answered, and when the caller knows.
    fn stock(&mut self, caller: Place, product: usize, at: i64) -> (bool, i64) {
        let path = format!("/stock/P{:04}", product_id(product));
        let call = self.call(caller, INVENTORY, "GET", "/stock/{id}", path, at);
        let (from, until) = self.world.stall;
        let stalled = (from..until).contains(&self.at);
        let took = if stalled { STALL_WAIT_MS * MS + self.latency(200) } else { 200_000 + self.latency(2) };
        let query =
            postgres("stock-1", "stock_levels", "SELECT available FROM stock_levels WHERE product = $1");
        let (span, at) = self.query(call.server, query, call.begun + 150_000, took);
        let end = at + 300_000;
        if stalled {
            self.throw(span, at - 1000, "PoolTimeout", "query timed out: no connection of the pool is free");
            let line = lines::query_timed_out(took / MS);
            self.log(call.server, end - BEFORE_END, Level::Warn, line, Vec::new());
            self.fail(call.server, "stock-1 did not answer");
            return (false, self.answer(call, 504, end));
        }
        let line = lines::stock_checked(&mut self.world.rng, product, took / MS);
        self.log(call.server, end - BEFORE_END, Level::Debug, line, Vec::new());
        (true, self.answer(call, 200, end))
    }

    fn buy(&mut self) {
        self.world.orders += 1;
        let order = self.world.orders;
        let of_order = || vec![("order_id", order.to_string())];
        let product = self.world.rng.skewed(PRODUCTS.len());
        let cents = 500 + self.world.rng.below(30_000);
        let root = self.arrive("POST", "/checkout", "/checkout");
        let call = self.call(root, CHECKOUT, "POST", "/orders", "/orders".to_owned(), self.at + 300_000);
        let checkout = call.server;
        self.set(checkout, "order.id", order.to_string());
        let placed = call.begun + self.latency(8);
        let line = lines::placing(&mut self.world.rng, order, self.user, cents);
        self.log(checkout, placed, Level::Info, line, of_order());

        let (there, at) = self.stock(checkout, product, placed + 100_000);
        if !there {
            let message = "inventory did not answer within 2000 ms";
            let line = lines::order_failed(&mut self.world.rng, order);
            self.log(checkout, at + 5 * MS, Level::Error, line, of_order());
            self.throw(checkout, at + 5 * MS, "java.util.concurrent.TimeoutException", message);
            let at = self.answer(call, 503, at + 6 * MS);
            return self.done(root, "POST", "/checkout", 503, at);
        }
        let charge = self.call(checkout, PAYMENT, "POST", "/charges", "/charges".to_owned(), at + 200_000);
        self.set(charge.server, "payment.provider", "paybridge");
        self.set(charge.server, "payment.amount_cents", cents as i64);
        let paid = charge.begun + self.latency(110);
        let declined = self.world.rng.chance(0.03);
        let (level, line) =
            lines::charged(&mut self.world.rng, order, cents, declined, (paid - charge.begun) / MS);
        self.log(charge.server, paid - BEFORE_END, level, line, of_order());
        if declined {
            self.throw(charge.server, paid - 2 * BEFORE_END, "CardDeclined", "card declined");
            let at = self.answer(charge, 402, paid);
            let at = self.answer(call, 402, at + 300_000);
            return self.done(root, "POST", "/checkout", 402, at);
        }
        let at = self.answer(charge, 200, paid);
        let took = self.latency(3);
        let text = "INSERT INTO orders (id, customer, cents) VALUES ($1, $2, $3)";
        let (_, at) = self.query(checkout, postgres("orders-db", "orders", text), at + 200_000, took);
        let published = at + 700_000;
        let producer = self.open(Some(checkout), CHECKOUT, Kind::Producer, "send orders", at + 100_000);
        self.close(producer, published);
        let at = self.answer(call, 201, published + 500_000);
        self.done(root, "POST", "/checkout", 201, at);
        self.ship(producer, order, published);
    }

    /// The order waits in a queue until shipping takes it; nobody waits for that.
    fn ship(&mut self, producer: Place, order: u64, published: i64) {
        let begun = published + self.latency(400);
        let consumer = self.open(Some(producer), SHIPPING, Kind::Consumer, "process orders", begun);
        for place in [producer, consumer] {
            self.set(place, "messaging.system", "kafka");
            self.set(place, "messaging.destination.name", "orders");
            self.set(place, "messaging.message.id", order.to_string());
        }
        let took = self.latency(5);
        let text = "INSERT INTO labels (order_id, city, grams) VALUES ($1, $2, $3)";
        let (_, at) = self.query(consumer, postgres("orders-db", "labels", text), begun + 500_000, took);
        let end = at + self.latency(10);
        let line = lines::label_created(&mut self.world.rng, order, end);
        self.log(consumer, end - BEFORE_END, Level::Info, line, vec![("order_id", order.to_string())]);
        self.close(consumer, end);
    }
}
