//! What one request may ask of the decoders.

/// Bounds of one request; [`Limits::default`] holds the shipped values.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// Longest request after decompression, in bytes. Beyond: [`crate::DecodeError::TooLarge`].
    pub max_body_bytes: usize,
    /// Most records of one request. Beyond: [`crate::DecodeError::TooManyRecords`]. An empty OTLP
    /// record is 2 bytes on the wire and about 70 in memory, so the body's bound is not enough.
    pub max_records: usize,
    /// Longest record on the wire, in bytes; a longer one is rejected alone. Values over
    /// [`Limits::MAX_RECORD_BYTES`] count as that.
    pub max_record_bytes: usize,
    /// Deepest nesting of attribute values and JSON. Deeper values reject their record.
    pub max_depth: usize,
    /// Most attributes (structured metadata, JSON fields) of a record; more reject it.
    pub max_attributes_per_record: usize,
    /// Most events of a span, and most links; more reject it. An event is 2 bytes on the wire and 16 in
    /// memory.
    pub max_events_per_span: usize,
    /// Most labels (resource attributes) of a stream; more reject the stream's records.
    pub max_labels_per_stream: usize,
    /// Longest label name in bytes.
    pub max_label_name_bytes: usize,
    /// Longest label value in bytes.
    pub max_label_value_bytes: usize,
    /// Most bytes of an instrumentation scope, since its name and attributes are repeated in every
    /// record below it.
    pub max_scope_bytes: usize,
    /// Most bytes of the finished batch, repeated scopes and rendered JSON included. Values over
    /// [`Limits::MAX_EXPANDED_BYTES`] count as that.
    pub max_expanded_bytes: usize,
}

impl Limits {
    /// Upper bound of [`Limits::max_expanded_bytes`]: Arrow text columns hold 2 GiB, and the last
    /// record may still grow sixfold when its bytes are escaped as JSON.
    pub const MAX_EXPANDED_BYTES: usize = 1 << 30;

    /// Upper bound of [`Limits::max_record_bytes`], for the same reason.
    pub const MAX_RECORD_BYTES: usize = 128 << 20;
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            max_body_bytes: 64 << 20,
            max_records: 1_000_000,
            max_record_bytes: 16 << 20,
            max_depth: 64,
            max_attributes_per_record: 1024,
            max_events_per_span: 8192,
            max_labels_per_stream: 128,
            max_label_name_bytes: 1024,
            max_label_value_bytes: 16 << 10,
            max_scope_bytes: 16 << 10,
            max_expanded_bytes: 512 << 20,
        }
    }
}
