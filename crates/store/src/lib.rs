//! The store: append → log → memtable → flush → segments → compaction → retention.
//!
//! What always holds:
//! 1. An append that returned is on disk and every scan that starts later sees it, once.
//! 2. A batch key that is known is stored once, also across a restart.
//! 3. A scan sees one moment: memtables and segments are taken under one lock.
//! 4. Segments come and go in one catalog transaction; a crash leaves at most files that the next open
//!    removes. Order comes from log sequences, never from clocks.
//! 5. A failed sync of the log stops all appends; a full disk refuses them until space is back.
//! 6. Damaged files are set aside and named, in the status and in every answer they may touch.
//!
//! Modules follow the way of a row: `writer` (group commit), `record` (what the log holds),
//! `memtable`, `flush`, `plan` and `compact`; `recover` opens, `catalog` and `files` keep.

mod catalog;
mod compact;
mod config;
mod dedup;
mod engine;
mod error;
mod files;
mod flush;
mod key;
mod memtable;
mod plan;
mod record;
mod recover;
mod segment;
mod spare;
mod status;
mod store;
mod tables;
mod tail;
mod verify;
mod writer;

pub use config::{BodyEncoding, StoreConfig};
pub use engine::Clock;
pub use error::StoreError;
pub use key::BatchKey;
pub use status::{LevelStatus, QuarantinedFile, StoreCounters, StoreStatus, VerifyReport};
pub use store::{Appended, Store, StoreParts};
pub use verify::verify_directory;
