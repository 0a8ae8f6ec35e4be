//! The lines, each in the style of its service: JSON, logfmt, plain text.

use std::fmt::Write as _;

use trine_model::Level;

use super::requests::product_id;
use super::{CITIES, PRODUCTS};
use crate::generate::clock::Moment;
use crate::rng::Rng;

pub(super) fn served(
    rng: &mut Rng,
    [a, b, c, d]: [u8; 4],
    user: u64,
    method: &str,
    path: &str,
    status: i64,
    took: i64,
) -> (Level, String) {
    let level = match status {
        500.. => Level::Error,
        _ if took > 1000 => Level::Warn,
        _ => Level::Info,
    };
    let message = if level == Level::Warn { "slow request" } else { "request served" };
    let line = format!(
        r#"{{"level":"{}","msg":"{message}","method":"{method}","path":"{path}","status":{status},"duration_ms":{took},"bytes":{},"client":"{a}.{b}.{c}.{d}","user_id":{user}}}"#,
        level.name().to_lowercase(),
        400 + rng.below(30_000),
    );
    (level, line)
}

pub(super) fn product_loaded(product: usize, hit: bool, took: i64) -> String {
    format!(
        r#"{{"level":"info","msg":"product loaded","product_id":"P{:04}","name":"{}","cache":"{}","took_ms":{took}}}"#,
        product_id(product),
        PRODUCTS[product],
        if hit { "hit" } else { "miss" },
    )
}

pub(super) fn cache_miss(product: usize) -> String {
    format!("cache miss for product P{:04}, reading from partition {}", product_id(product), product % 4)
}

pub(super) fn recommended(rng: &mut Rng, user: u64, product: usize) -> String {
    format!(
        "INFO recommender.engine: {} items for user {user} model=v{} score={:.4}",
        3 + rng.below(9),
        4 + product % 2,
        rng.unit()
    )
}

pub(super) fn searched(words: &str, found: usize, took: i64) -> String {
    format!(
        r#"{{"level":"info","msg":"search","query":"{words}","results":{found},"took_ms":{took},"shards":4}}"#
    )
}

pub(super) fn added(rng: &mut Rng, user: u64, product: usize, took: i64) -> String {
    let items = 1 + rng.skewed(6);
    format!(
        "level=info msg=\"item added\" user={user} product=P{:04} qty={items} cart_size={} took={took}ms",
        product_id(product),
        items + rng.skewed(9),
    )
}

pub(super) fn query_timed_out(waited: i64) -> String {
    format!(
        "level=warn msg=\"query timed out\" db=stock-1 table=stock_levels waited={waited}ms pool_in_use=32 pool_size=32"
    )
}

pub(super) fn stock_checked(rng: &mut Rng, product: usize, took: i64) -> String {
    format!(
        "level=debug msg=\"stock checked\" product=P{:04} available={} took={took}ms",
        product_id(product),
        rng.skewed(400)
    )
}

pub(super) fn placing(rng: &mut Rng, order: u64, user: u64, cents: u64) -> String {
    format!(
        "[checkout-{}] INFO  c.s.checkout.OrderService - placing order {order} for user {user}: {} items, {}.{:02} EUR",
        rng.below(16),
        1 + rng.skewed(5),
        cents / 100,
        cents % 100
    )
}

pub(super) fn order_failed(rng: &mut Rng, order: u64) -> String {
    format!(
        "[checkout-{}] ERROR c.s.checkout.OrderService - order {order} failed: inventory did not answer within 2000 ms (java.util.concurrent.TimeoutException)",
        rng.below(16)
    )
}

pub(super) fn charged(rng: &mut Rng, order: u64, cents: u64, declined: bool, took: i64) -> (Level, String) {
    let (level, name, message) = if declined {
        (Level::Error, "error", "card declined")
    } else {
        (Level::Info, "info", "payment authorised")
    };
    let line = format!(
        r#"{{"level":"{name}","msg":"{message}","order":{order},"amount_cents":{cents},"card":"****{:04}","provider":"paybridge","auth":"{:012x}","took_ms":{took}}}"#,
        rng.below(10_000),
        rng.next_u64() >> 16,
    );
    (level, line)
}

pub(super) fn label_created(rng: &mut Rng, order: u64, at: i64) -> String {
    let mut line = String::new();
    Moment::new(at).write("%Y-%m-%d %H:%M:%S,%3", &mut line);
    _ = write!(
        line,
        " INFO shipping: label {:010} created for order {order} to {}, {} g",
        rng.below(10_000_000_000),
        CITIES[rng.skewed(CITIES.len())],
        200 + rng.below(6000)
    );
    line
}
