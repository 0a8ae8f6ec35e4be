//! What can go wrong with a segment.

use trine_schema::LabelsError;

/// Why a segment could not be written, opened or read.
#[derive(Debug, thiserror::Error)]
pub enum SegmentError {
    /// Bytes on disk are not the bytes that were written. Quarantine the file.
    #[error("segment {file} is damaged at byte {offset}: {what}")]
    Corrupt {
        /// Path in the object store.
        file: String,
        /// First byte that is known to be affected.
        offset: u64,
        /// What does not fit.
        what: String,
    },
    /// The file was written by a newer version.
    #[error("segment {file} has format version {found}, this program reads {known}; use a newer trine")]
    Version {
        /// Path in the object store.
        file: String,
        /// Version in the file.
        found: u32,
        /// Newest version this program reads.
        known: u32,
    },
    /// Reading or writing failed.
    #[error("segment {file}: {source}")]
    Io {
        /// Path in the object store, or `(new)` while writing.
        file: String,
        /// What the system said.
        source: std::io::Error,
    },
    /// The object store failed.
    #[error("segment {file}: {source}")]
    Store {
        /// Path in the object store.
        file: String,
        /// What the object store said.
        source: object_store::Error,
    },
    /// The rows handed to the writer could not be produced.
    #[error("the rows for a new segment failed: {0}")]
    Rows(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// The streams of the segment cannot be registered.
    #[error("segment {file}: {source}")]
    Streams {
        /// Path in the object store.
        file: String,
        /// Why not.
        source: LabelsError,
    },
    /// Writing Parquet failed.
    #[error("writing a segment failed: {0}")]
    Parquet(#[from] parquet::errors::ParquetError),
    /// Arrow refused what we built.
    #[error("BUG: {0}")]
    Arrow(#[from] arrow::error::ArrowError),
    /// The caller broke the contract, for example rows out of order.
    #[error("BUG: {0}")]
    Contract(String),
    /// The scan's deadline or memory budget is used up.
    #[error(transparent)]
    Scan(#[from] trine_schema::ScanError),
}

impl SegmentError {
    /// Whether the file itself is bad and should be put into quarantine.
    pub fn is_corrupt(&self) -> bool {
        matches!(self, Self::Corrupt { .. } | Self::Version { .. })
    }
}
