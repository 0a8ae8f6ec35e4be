//! Traces from the spans a sender delivers to what people and programs read.

mod api;
mod assembling;
mod memory;
mod otlp;
mod spans;
mod waterfall;
