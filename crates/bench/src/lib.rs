//! Load generator, the demo's sample of a small shop, and the measuring harness behind `trine bench`.
//!
//! The harness knows nothing of the store: it speaks HTTP to a running server like any client, so the
//! same code measures Trine, VictoriaLogs, Loki, VictoriaMetrics and Prometheus by URL.

pub mod cli;
pub mod encode;
pub mod generate;
pub mod harness;
pub mod metric;
pub mod peers;
pub mod record;
pub mod rng;
pub mod span;
