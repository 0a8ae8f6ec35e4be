//! SQL over [`trine_schema::Tables`].
//!
//! [`SqlEngine::query`] parses, plans and starts one query; the answer is a stream that works while
//! it is polled and stops when it is dropped. [`output`] turns it into JSON, CSV or Arrow bytes.
//! This is the only crate that knows DataFusion.

mod asof;
mod chain;
mod columns;
mod cooperative;
mod count;
mod engine;
mod error;
mod grouped;
mod lengths;
mod level;
mod lookup;
mod lookup_exec;
mod memory;
mod metrics;
mod names;
mod numbers;
pub mod output;
mod percentile;
mod pushdown;
mod reorder;
mod scan;
mod selection;
mod statement;
mod tables;
mod top;

pub use engine::{SqlAnswer, SqlBatches, SqlEngine, SqlLimits, SqlRequest};
pub use error::{Position, SqlError};
pub use memory::Permit;
