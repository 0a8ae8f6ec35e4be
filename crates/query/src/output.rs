//! Answers as bytes, batch by batch.

use arrow::{array::RecordBatch, datatypes::SchemaRef};
use bytes::Bytes;
use futures::Stream;

use crate::{SqlBatches, SqlError};

/// How an answer is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// One array of objects.
    Json,
    /// One object per line.
    JsonLines,
    /// RFC 4180 with a header line.
    Csv,
    /// Arrow IPC stream.
    Arrow,
}

impl Format {
    /// From `json`, `jsonl`, `csv`, `arrow` (also `ndjson`, `jsonlines`).
    pub fn from_name(name: &str) -> Option<Self> {
        match name {
            "json" => Some(Self::Json),
            "jsonl" | "jsonlines" | "ndjson" => Some(Self::JsonLines),
            "csv" => Some(Self::Csv),
            "arrow" => Some(Self::Arrow),
            _ => None,
        }
    }

    /// The MIME type.
    pub const fn content_type(self) -> &'static str {
        match self {
            Self::Json => "application/json",
            Self::JsonLines => "application/x-ndjson",
            Self::Csv => "text/csv; charset=utf-8",
            Self::Arrow => "application/vnd.apache.arrow.stream",
        }
    }
}

/// Encodes the batches one by one as they come. An error ends the stream after the bytes before it.
pub fn encode(
    format: Format,
    schema: SchemaRef,
    batches: SqlBatches,
) -> impl Stream<Item = Result<Bytes, SqlError>> + Send + 'static {
    let _ = (format, schema, batches);
    futures::stream::once(async { todo!() })
}

/// The batch as text, row by row, for a table on a terminal; `None` is a null.
pub fn text_rows(batch: &RecordBatch) -> Result<Vec<Vec<Option<String>>>, SqlError> {
    let _ = batch;
    todo!()
}
