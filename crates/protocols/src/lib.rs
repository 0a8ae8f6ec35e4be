//! Wire bytes become [`trine_schema::LogBatch`]es: OTLP logs (protobuf, JSON), Loki push
//! (protobuf, JSON), JSON lines; [`trine_schema::SpanBatch`]es: OTLP traces (protobuf,
//! JSON), Zipkin, Jaeger; and [`trine_schema::MetricBatch`]es: Prometheus remote write 1 and 2.
//! No sockets, no async.
//!
//! Guarantees of every decoder:
//! - Any bytes end in a [`Decoded`] or a [`DecodeError`], never in a panic; work and memory are
//!   bounded by [`Limits`].
//! - A request that is broken as a whole (truncated protobuf, broken JSON) is a [`DecodeError`]
//!   and stores nothing. A record that is bad by itself (not UTF-8, too big, time out of range) is
//!   rejected alone, counted and named in [`Decoded::first_errors`]; its neighbours are kept.
//! - No heap allocation per record: bytes go straight into the [`trine_schema::LogBatchBuilder`] or
//!   [`trine_schema::SpanBatchBuilder`], and labels are parsed once per spelling and process
//!   ([`trine_schema::StreamRegistry::intern_raw`]).
//!
//! The way of a request: [`decompress`] → one `decode_…` → the store; then, for OTLP, the answer
//! from [`otlp::encode_logs_response`] or [`otlp::encode_status`].

mod compression;
mod decoded;
mod error;
pub mod exposition;
mod hints;
mod intake;
pub mod jaeger;
mod json;
mod json_intake;
pub mod jsonlines;
mod limits;
pub mod loki;
mod metric_intake;
mod native;
pub mod otlp;
pub mod remote_write;
mod render;
mod span_intake;
mod wire;
pub mod zipkin;

pub use compression::{Compression, decompress};
pub use decoded::{Batch, Decoded, MAX_FIRST_ERRORS, Rejection};
pub use error::DecodeError;
pub use limits::Limits;
