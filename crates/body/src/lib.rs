//! Bodies of log records as templates and variables: mining, block codec, search, token filters.
//!
//! A line is cut into *constant text* and *variables* (runs of token characters that hold a digit).
//! The constant text with a mark for each variable is the line's *template*; templates of one
//! segment stand once in its [`Dictionary`]. A *block* (a few thousand rows) stores a template id
//! per row and, per template and variable position (*slot*), the values one after another, each
//! such column in the cheapest of a handful of encodings. `FORMAT.md` has the bytes.
//!
//! Guarantees: `decode(encode(lines)) == lines` byte for byte for any bytes; search answers exactly
//! what a scan over the lines would; no input makes a reader panic.

mod block;
mod column;
mod column_read;
mod dictionary;
mod encoder;
mod error;
mod index;
mod ints;
mod literals;
mod merge;
mod miner;
mod options;
mod query;
mod rows;
mod scan;
mod sections;
mod trace_bloom;
mod values;
mod wire;

pub use block::{Block, Scratch};
pub use dictionary::Dictionary;
pub use encoder::Encoder;
pub use error::BodyError;
pub use index::BlockIndex;
pub use merge::{DictionaryMerger, renumber_block};
pub use options::Options;
pub use query::{PreparedQuery, Query, Verdict};
pub use rows::RowSet;
pub use trace_bloom::TraceIdBloom;
