//! What lies between the span table and those who look at a trace: assembling a trace from its spans, writing
//! it as Tempo's and Jaeger's APIs do, and showing it on a terminal.
//!
//! Values of attributes are text, because the span table keeps them so: an OTLP attribute that was sent as a
//! number, a boolean, bytes or a list comes back as a string.

pub mod api;
mod assemble;
mod base64;
mod find;
pub mod jaeger;
mod jaeger_query;
mod logfmt;
mod names;
pub mod otlp;
mod parameters;
pub mod search;
mod span;
mod tempo;
mod trace;
mod trace_id;
pub mod traceql;
mod tree;
pub mod waterfall;
mod wire;

pub use assemble::{AssembleError, assemble};
pub use find::{Budget, FindError, find_trace};
pub use parameters::ParameterError;
pub use span::{Attributes, Event, Link, Resource, Span, kind, status};
pub use trace::Trace;
pub use trace_id::{TraceIdError, parse_trace_id};
pub use tree::{Place, Tree};
pub use waterfall::waterfall;
