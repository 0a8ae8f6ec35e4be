//! The store: append → log → memtable → flush → segments → compaction → retention.

mod config;
mod error;
mod key;
mod status;
mod store;
mod tables;

pub use config::{BodyEncoding, StoreConfig};
pub use error::StoreError;
pub use key::BatchKey;
pub use status::{LevelStatus, QuarantinedFile, StoreCounters, StoreStatus, VerifyReport};
pub use store::{Appended, Store, verify_directory};
