//! What can go wrong.

use std::path::PathBuf;

/// Why the store did not do what was asked.
///
/// Bad input: `TooLarge`, `BadBatch`. Environment: `Full`, `Unflushed`, `Poisoned`, `Locked`, `Corrupt`, `Version`,
/// `Io`. Neither: `Closed`. All are cheap to clone, since waiting duplicates share one result.
#[derive(Debug, Clone, thiserror::Error)]
pub enum StoreError {
    /// No space for more data. Nothing of the batch was kept; appends work again by themselves once
    /// there is space. Servers answer 503 / `RESOURCE_EXHAUSTED`.
    #[error("no space left for new data ({0}); free space or shorten the retention, then send again")]
    Full(String),
    /// Memory is full and cannot be written to a segment, for another reason than space. Appends work again by
    /// themselves once that works; servers answer as for `Full`.
    #[error("memory is full and cannot be written to disk ({0}); mend that, then send again")]
    Unflushed(String),
    /// A sync of the log failed, so nobody knows what the disk holds. Reads go on.
    #[error("the store stopped taking data after a failed write ({0}); check the disk and restart")]
    Poisoned(String),
    /// [`crate::Store::close`] was called.
    #[error("the store is closed")]
    Closed,
    /// One batch is beyond the bound.
    #[error("a batch of {bytes} bytes is over the bound of {limit}; send smaller batches")]
    TooLarge {
        /// Its size as written to the log.
        bytes: usize,
        /// The bound.
        limit: usize,
    },
    /// The batch breaks the contract of [`trine_schema::LogBatch`].
    #[error("the batch cannot be stored: {0}")]
    BadBatch(String),
    /// Another process (or another store of this process) works on the directory.
    #[error("the data directory {path} is in use by {holder}; stop it or choose another directory", path = .path.display())]
    Locked {
        /// The lock file.
        path: PathBuf,
        /// Process id of the holder, when it is known.
        pid: Option<u32>,
        /// The holder in words, `process 123`.
        holder: String,
    },
    /// Stored data is damaged in a way the store cannot step around.
    #[error("{what} is damaged: {reason}")]
    Corrupt {
        /// File or thing.
        what: String,
        /// What is wrong and what to do.
        reason: String,
    },
    /// The directory was written by an unknown version.
    #[error("the data directory {path} has layout version {found:?}, this program knows {known}; use a newer program", path = .path.display())]
    Version {
        /// The version file.
        path: PathBuf,
        /// What it says.
        found: String,
        /// What we know.
        known: u32,
    },
    /// Any other failure of the system.
    #[error("{doing} failed: {reason}")]
    Io {
        /// What was being done, with the path.
        doing: String,
        /// The system's words.
        reason: String,
    },
}

impl StoreError {
    pub(crate) fn io(doing: impl Into<String>, reason: impl std::fmt::Display) -> Self {
        Self::Io { doing: doing.into(), reason: reason.to_string() }
    }
}
