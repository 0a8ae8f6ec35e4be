//! The write-ahead log: what was appended and acknowledged survives a power cut.
//!
//! [`Wal`] appends groups of entries to segmented files, one sync per group; [`Replay`] hands them
//! back in order after a restart. See the `log` module for guarantees and crash cases.

mod disk;
mod error;
mod lock;
mod log;

pub use disk::{Disk, DiskFile, RealDisk};
pub use error::{Corruption, Recovery, TornTail, WalError};
pub use lock::{DirLock, LockError, lock_directory};
pub use log::{Entry, Replay, ReplayedEntry, Wal, WalConfig};
