//! skeleton; the body follows

use std::{ops::RangeInclusive, path::Path, sync::Arc};

use crate::{Corruption, Disk, Recovery, WalError};

/// Settings of a log.
#[derive(Debug, Clone)]
pub struct WalConfig {
    /// A file that would grow beyond this many bytes is followed by a new one.
    pub max_file_bytes: u64,
    /// Whether a group is synced before it is acknowledged.
    pub fsync: bool,
    /// Entries below this sequence are no longer needed: they are not replayed, and sequences
    /// given out are never below it. The first sequence of an empty log; at least 1.
    pub first_needed: u64,
}

impl Default for WalConfig {
    fn default() -> Self {
        Self { max_file_bytes: 64 << 20, fsync: true, first_needed: 1 }
    }
}

/// One entry to append: its payload in parts that are written one after the other, uncopied.
#[derive(Debug, Clone, Copy)]
pub struct Entry<'a> {
    /// The payload.
    pub parts: &'a [&'a [u8]],
}

/// An append log in a directory of its own.
#[derive(Debug)]
pub struct Wal {}

/// Entries that were in the log when it was opened, oldest first. Read it to its end before
/// calling [`Wal::truncate_before`].
#[derive(Debug)]
pub struct Replay {}

/// One entry from before.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReplayedEntry {
    /// Its number.
    pub sequence: u64,
    /// What was appended.
    pub payload: Vec<u8>,
}

#[allow(clippy::todo, missing_docs, unused_variables)]
impl Wal {
    pub fn open(disk: Arc<dyn Disk>, dir: &Path, config: WalConfig) -> Result<(Self, Replay), WalError> {
        todo!()
    }

    /// Appends a group, syncs once; the sequences it got. Nothing is acknowledged on an error.
    pub fn append_group(&mut self, group: &[Entry<'_>]) -> Result<RangeInclusive<u64>, WalError> {
        todo!()
    }

    /// Removes files that hold only entries below `sequence`.
    pub fn truncate_before(&mut self, sequence: u64) -> Result<(), WalError> {
        todo!()
    }

    /// The sequence of the next entry appended.
    pub fn next_sequence(&self) -> u64 {
        todo!()
    }

    /// The oldest sequence still kept; equals the next one when there is none.
    pub fn first_sequence(&self) -> u64 {
        todo!()
    }

    /// Bytes of all files.
    pub fn size_bytes(&self) -> u64 {
        todo!()
    }

    /// Reads everything, changes nothing: for `trine verify`.
    pub fn verify(disk: &dyn Disk, dir: &Path) -> Result<Recovery, WalError> {
        todo!()
    }
}

#[allow(clippy::todo, missing_docs)]
impl Replay {
    /// What opening found.
    pub fn recovery(&self) -> &Recovery {
        todo!()
    }
}

impl Iterator for Replay {
    type Item = Result<ReplayedEntry, WalError>;

    fn next(&mut self) -> Option<Self::Item> {
        let _ = std::marker::PhantomData::<Corruption>;
        todo!()
    }
}
