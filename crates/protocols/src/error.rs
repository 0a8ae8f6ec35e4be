//! Why a request as a whole is refused.

/// The request is refused as a whole; nothing of it was taken. Every variant is bad input.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// HTTP 415.
    #[error("content encoding {0:?} is not supported; use gzip, zstd, snappy, deflate or identity")]
    UnknownEncoding(String),
    /// HTTP 415.
    #[error(
        "content type {0:?} is no remote write; use application/x-protobuf, with \
         proto=io.prometheus.write.v2.Request for version 2"
    )]
    UnknownContentType(String),
    /// HTTP 400. The compressed bytes are broken or not of the named algorithm.
    #[error("the body is not valid {algorithm}: {reason}")]
    Compression {
        /// Name of the content encoding.
        algorithm: &'static str,
        /// What the decompressor said.
        reason: String,
    },
    /// HTTP 413.
    #[error("the body is longer than {limit} bytes after decompression; send smaller batches")]
    TooLarge {
        /// [`crate::Limits::max_body_bytes`].
        limit: usize,
    },
    /// HTTP 413.
    #[error("the request holds more than {limit} records; send smaller batches")]
    TooManyRecords {
        /// [`crate::Limits::max_records`].
        limit: usize,
    },
    /// HTTP 413. Repeated scopes or rendered JSON grew too far.
    #[error("the request grows to more than {limit} bytes of text; send smaller batches")]
    Expanded {
        /// [`crate::Limits::max_expanded_bytes`].
        limit: usize,
    },
    /// HTTP 400.
    #[error("the body is not a valid protobuf message: {reason} at byte {offset}")]
    Protobuf {
        /// Position in the decompressed body.
        offset: usize,
        /// What is wrong there.
        reason: &'static str,
    },
    /// HTTP 400.
    #[error("the body is not a valid Thrift batch in the binary protocol: {reason} at byte {offset}")]
    Thrift {
        /// Position in the decompressed body.
        offset: usize,
        /// What is wrong there.
        reason: &'static str,
    },
    /// HTTP 400.
    #[error("the body is not valid JSON for this endpoint: {reason} at byte {offset}")]
    Json {
        /// Position in the decompressed body.
        offset: usize,
        /// What is wrong there.
        reason: String,
    },
}

impl DecodeError {
    /// The HTTP status that fits: 400, 413 or 415.
    pub fn http_status(&self) -> u16 {
        match self {
            Self::UnknownEncoding(_) | Self::UnknownContentType(_) => 415,
            Self::TooLarge { .. } | Self::TooManyRecords { .. } | Self::Expanded { .. } => 413,
            Self::Compression { .. } | Self::Protobuf { .. } | Self::Thrift { .. } | Self::Json { .. } => 400,
        }
    }
}
