//! One test binary for all decoders.

mod compression;
mod errors;
mod jsonlines;
mod loki;
mod otlp;
mod robustness;
mod rows;
mod trainticket;
