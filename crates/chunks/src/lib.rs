//! Samples of metrics as compressed blocks.
//!
//! A *block* holds series of one tenant and time slice. Their timestamps are columns of their own, each
//! stored once for all series that were scraped together. Values become whole numbers (exact decimals where
//! they are that, otherwise the bits of the float), those become small *residuals* around what was expected,
//! and residuals become tokens of a prefix code. Series that lie together form a *group* of up to 256
//! columns, which share the codes, so that a series of a few samples pays for nothing but itself; every
//! series has bits of its own, in pieces of 128 samples, so that one can be read alone, and its end without
//! its start. `FORMAT.md` has the bytes.
//!
//! Guarantees: every value comes back bit for bit, stale markers and NaN payloads included; a group outside
//! of the time range that is asked for is not touched; no input makes a reader panic or take memory without
//! bound.

mod bits;
mod block;
mod cluster;
mod columns;
mod columns_read;
mod decimal;
mod error;
mod group;
mod histogram;
mod join;
mod model;
mod partial;
mod reader;
mod residuals;
mod spec;
mod times;
mod wire;
mod writer;

pub use block::GroupInfo;
pub use error::ChunkError;
pub use histogram::{Bounds, Buckets, HistogramLayout};
pub use join::{Part, join, merge, runs_are_long};
pub use partial::{OpenGroup, Outline, Stretch, TimesPlace};
pub use reader::{Block, Reader, Run};
pub use writer::BlockWriter;

/// Version of the format that this crate writes.
pub const VERSION: u8 = 1;
/// Samples of one run.
pub const MAX_SAMPLES: usize = 1 << 16;
/// Columns of one run.
pub const MAX_COLUMNS: usize = 1 << 12;
/// Bytes of one layout.
pub const MAX_LAYOUT: usize = 1 << 16;
/// Series of one block.
pub const MAX_SERIES: usize = 1 << 22;
