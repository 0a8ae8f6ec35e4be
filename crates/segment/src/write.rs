//! Writing a segment.
use std::io::Write;

use arrow::array::RecordBatch;
use trine_model::TenantId;
use trine_schema::StreamRegistry;

use crate::SegmentError;

/// How bodies are stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BodyEncoding {
    /// As a Parquet column that every reader understands.
    Plain,
    /// As template blocks in our own bytes: smaller, and searched without rebuilding lines.
    Template,
}

/// How to write a segment.
#[derive(Debug, Clone)]
pub struct WriteOptions {
    /// How bodies are stored.
    pub body: BodyEncoding,
    /// zstd level of pages and blocks, 1 to 22.
    pub zstd_level: i32,
    /// Most rows of one row group; a multiple of [`crate::GRANULE_ROWS`].
    pub row_group_rows: usize,
}

impl Default for WriteOptions {
    fn default() -> Self {
        Self { body: BodyEncoding::Plain, zstd_level: 1, row_group_rows: 16 * crate::GRANULE_ROWS }
    }
}

/// What the catalog keeps about a segment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SegmentMeta {
    /// Rows in the file.
    pub rows: u64,
    /// Bytes of all bodies before encoding.
    pub raw_bytes: u64,
    /// Length of the file.
    pub file_bytes: u64,
    /// Earliest timestamp, nanoseconds since 1970.
    pub min_timestamp: i64,
    /// Latest timestamp, nanoseconds since 1970.
    pub max_timestamp: i64,
    /// Root of the Merkle tree over the file (BLAKE3).
    pub root: [u8; 32],
    /// First byte of the tail: block table, page indexes and Parquet footer, which `root` covers directly.
    pub tail_offset: u64,
    /// Number of streams.
    pub streams: u32,
    /// Tenants with rows in the file, sorted.
    pub tenants: Vec<TenantId>,
    /// How bodies are stored.
    pub body: BodyEncoding,
}

/// Writes one segment to `file`; the caller syncs it. `rows` are batches of [`trine_schema::logs::schema`]
/// sorted by [`crate::StreamOrder`] and timestamp; they are pulled one by one, at most one row group is held.
pub fn write_segment<W, E>(
    file: W,
    registry: &StreamRegistry,
    rows: impl Iterator<Item = Result<RecordBatch, E>>,
    options: &WriteOptions,
) -> Result<SegmentMeta, SegmentError>
where
    W: Write + Send,
    E: std::error::Error + Send + Sync + 'static,
{
    let _ = (file, registry, rows, options);
    todo!()
}
