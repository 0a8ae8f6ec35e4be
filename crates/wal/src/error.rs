//! What can go wrong with the log.

use std::{io, path::PathBuf};

/// Why the log could not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum WalError {
    /// Environment: no space is left. Nothing of the group is kept, and a later append works
    /// by itself once there is space.
    #[error("no space left for the write-ahead log in {}; free some, appending then works again by itself", .dir.display())]
    Full {
        /// Directory of the log.
        dir: PathBuf,
    },
    /// Environment: an earlier write or sync failed, so nobody knows what is on the disk.
    #[error("the write-ahead log takes nothing more since {reason}; check the disk, then restart")]
    Poisoned {
        /// The failure that did it.
        reason: String,
    },
    /// Environment: the operating system refused.
    #[error("could not {action} {}: {source}; check the disk and its permissions", .path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// On which file or directory.
        path: PathBuf,
        /// The system's answer.
        source: io::Error,
    },
    /// Environment: a newer program wrote this file.
    #[error("{} has format version {version}, this program reads up to {supported}; use a newer one", .file.display())]
    Version {
        /// The file.
        file: PathBuf,
        /// Its version.
        version: u32,
        /// The newest version read here.
        supported: u32,
    },
    /// Bad input: an entry over the bound.
    #[error("an entry of {bytes} bytes is over the limit of {limit}; split the batch")]
    EntryTooLarge {
        /// Its size.
        bytes: u64,
        /// The bound.
        limit: u64,
    },
    /// Environment: an entry that was good when the log was opened is damaged now.
    #[error("{0}; the disk changed under the running program, check it")]
    Changed(Corruption),
}

/// A damaged place in the log.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{} is damaged at byte {offset} ({reason}){}", .file.display(), LostText(.lost.as_ref()))]
pub struct Corruption {
    /// The file.
    pub file: PathBuf,
    /// First bad byte.
    pub offset: u64,
    /// What is wrong there.
    pub reason: String,
    /// Sequences of the entries that cannot be read; none when nothing is missing.
    pub lost: Option<std::ops::RangeInclusive<u64>>,
}

struct LostText<'a>(Option<&'a std::ops::RangeInclusive<u64>>);

impl std::fmt::Display for LostText<'_> {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.0 {
            Some(lost) => write!(out, ", entries {} to {} are lost", lost.start(), lost.end()),
            None => Ok(()),
        }
    }
}

/// The unfinished end of the log that a crash left behind; nothing acknowledged was in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TornTail {
    /// The file.
    pub file: PathBuf,
    /// Where the good part ends.
    pub offset: u64,
    /// Bytes that were cut off.
    pub bytes: u64,
}

/// What [`crate::Wal::open`] found.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Recovery {
    /// Entries that the replay will hand over.
    pub entries: u64,
    /// Bytes of all files.
    pub bytes: u64,
    /// What a crash left at the end, if anything.
    pub torn: Option<TornTail>,
    /// Damage, oldest first; empty when all is well.
    pub corruptions: Vec<Corruption>,
}
