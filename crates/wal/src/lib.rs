//! The write-ahead log: what was appended and acknowledged survives a power cut.
//!
//! [`Wal`] appends groups of entries to segmented files, one sync per group; [`Replay`] hands them
//! back in order after a restart. Guarantees, algorithm and crash cases stand at the top of the
//! `log` module, the bytes in `format`, the reading of damaged files in `scan`. Nothing here is async.

mod disk;
mod error;
mod format;
mod lock;
mod log;
mod reader;
mod replay;
mod scan;

pub use disk::{Disk, DiskFile, RealDisk};
pub use error::{Corruption, Recovery, TornTail, WalError};
pub use format::MAX_ENTRY_BYTES;
pub use lock::{DirLock, LockError, lock_directory};
pub use log::{DEFAULT_MAX_FILE_BYTES, Entry, Removal, Wal, WalConfig};
pub use replay::{Replay, ReplayedEntry};
