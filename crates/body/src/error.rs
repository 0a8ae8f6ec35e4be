//! What can go wrong when bodies are read back.

/// A block, dictionary or index cannot be read, or a query cannot be understood.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BodyError {
    /// The bytes are not what the writer wrote.
    #[error("corrupt body data: {0}; run `trine verify` on the segment")]
    Corrupt(&'static str),
    /// Written by a newer version of this program.
    #[error("body format version {found} is newer than the supported {supported}; upgrade this program")]
    Version {
        /// Version in the data.
        found: u8,
        /// Newest version this program reads.
        supported: u8,
    },
    /// The regular expression of a query is not valid or too large.
    #[error("invalid regular expression: {0}")]
    Regex(String),
}
