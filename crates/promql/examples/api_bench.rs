//! Measures whole answers of the HTTP API over tables in memory: `cargo run --release --example api_bench`
//!
//! 10,000 counters over 6 h scraped every 15 s; medians of nine requests on all threads, wall time.

#[allow(dead_code, reason = "made for tests, of which this needs less")]
#[path = "../tests/api/memory.rs"]
mod memory;

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use memory::Memory;
use trine_model::TenantId;
use trine_promql::api::{Api, Endpoint, Request};
use trine_schema::Samples;

const SCRAPE: i64 = 15_000;
const END: i64 = 6 * 3_600_000;

fn tables() -> Memory {
    let mut tables = Memory::default();
    let times: Arc<Vec<i64>> =
        Arc::new((0..=(END + 300_000) / SCRAPE).map(|at| at * SCRAPE - 300_000).collect());
    let counters = (0..10_000).map(|series: i64| {
        let (instance, pod) = (format!("i{}", series % 100), format!("p{series}"));
        let values = (0..times.len() as i64).map(|at| (at * (series % 17 + 1)) as f64);
        let samples = Samples { timestamps: times.clone(), values: values.collect(), ..Samples::default() };
        let labels = [("__name__", "x_total"), ("instance", &instance), ("pod", &pod)];
        (tables.stream(&labels), samples)
    });
    let counters = counters.collect();
    tables.extend(counters);
    tables
}

fn main() {
    let tables = tables();
    let api = Api::default();
    for (endpoint, query) in [
        (Endpoint::Query, "count(x_total)"),
        (Endpoint::Query, "topk(5, x_total)"),
        (Endpoint::Query, "x_total"),
        (Endpoint::QueryRange, "sum by (instance) (rate(x_total[5m]))"),
        (Endpoint::QueryRange, "max_over_time(x_total[1h])"),
        (Endpoint::QueryRange, "rate(x_total[5m])"),
        (Endpoint::QueryRange, "x_total"),
        (Endpoint::Labels, ""),
    ] {
        let end = (END / 1000).to_string();
        let params = [("query", query), ("time", &end), ("start", "0"), ("end", &end), ("step", "60")];
        let params: Vec<_> =
            params.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        let mut bytes = 0;
        let mut times: Vec<Duration> = (0..9)
            .map(|_| {
                let request = Request {
                    params: &params,
                    tenant: TenantId::default(),
                    tables: &tables,
                    now_ms: END,
                    deadline: Instant::now() + Duration::from_secs(600),
                    stats: Arc::default(),
                };
                let begun = Instant::now();
                let reply = api.answer(&endpoint, &request);
                assert_eq!(reply.status, 200, "{}", String::from_utf8_lossy(&reply.body));
                bytes = reply.body.len();
                begun.elapsed()
            })
            .collect();
        times.sort_unstable();
        let median = times[4].as_secs_f64() * 1e3;
        println!("{endpoint:?} {query:45} {median:9.2} ms, {bytes:>10} bytes");
    }
}
