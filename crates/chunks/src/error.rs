//! What can go wrong.

/// Errors of writing and reading chunks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ChunkError {
    /// The bytes are not what a writer of this crate wrote: bad input, quarantine them.
    #[error("metric chunks are damaged: {0}; the segment must be set aside")]
    Corrupt(&'static str),
    /// Written by a newer program: the environment, not the data, is at fault.
    #[error("metric chunks have format version {0}, which is too new; use a newer program")]
    Version(u8),
    /// The caller handed in more than a block holds, or columns that do not fit together.
    #[error("series cannot be stored in a block: {0}")]
    Input(&'static str),
}

pub(crate) const fn corrupt(what: &'static str) -> ChunkError {
    ChunkError::Corrupt(what)
}
