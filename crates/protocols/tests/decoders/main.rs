//! One test binary for all decoders.

// expect-test writes its strings with hashes, `check` helpers read better with values, and speed
// of building texts does not matter here.
#![allow(clippy::needless_raw_string_hashes, clippy::needless_pass_by_value)]
#![allow(clippy::format_collect, clippy::format_push_string)]

mod compression;
mod errors;
mod exposition;
mod jaeger;
mod jsonlines;
mod loki;
mod otlp;
mod otlp_delta;
mod otlp_metrics;
mod otlp_metrics_any;
mod otlp_spans;
mod prometheus;
mod remote_write;
mod remote_write_messages;
mod robustness;
mod rows;
mod trainticket;
mod zipkin;
