//! PromQL as Prometheus 3 answers it, evaluated on columns.
//!
//! [`Engine`] parses a query, asks a [`Source`] for the series it names and evaluates every node of the tree
//! for all steps at once. [`TablesSource`] is the source over what is stored, [`api`] what Prometheus' HTTP API
//! answers. The crate knows no store, no socket and no runtime.

#![allow(clippy::float_cmp, reason = "the language compares floats exactly")]

mod annotations;
pub mod api;
mod calendar;
mod engine;
mod eval;
pub mod format;
mod histogram;
mod kahan;
mod labels;
pub mod parser;
pub mod script;
mod source;
mod tables;
mod value;

pub use engine::{Answer, Engine, Error, MAX_STEPS, Statistics};
pub use histogram::{Buckets, CUSTOM_BUCKETS, Histogram, ResetHint};
pub use labels::{Label, Labels, METRIC_NAME, MatchOp, Matcher};
pub use source::{
    Data, Hints, Load, MemorySource, STALE, Samples, Selected, Selection, Series, Source, SourceError,
    is_stale,
};
pub use tables::{LabelCache, TablesSource};
pub use value::{MatrixSeries, Sample, Value, VectorSample};
