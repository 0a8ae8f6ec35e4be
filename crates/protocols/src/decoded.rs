//! What a decoder hands on.

use std::fmt::Write as _;

use trine_schema::{LogBatch, MetricBatch, SpanBatch};

/// A batch of one signal.
pub trait Batch {
    /// What a row is called when the sender is told about it.
    const ROW: &'static str;
}

impl Batch for LogBatch {
    const ROW: &'static str = "record";
}

impl Batch for SpanBatch {
    const ROW: &'static str = "span";
}

impl Batch for MetricBatch {
    const ROW: &'static str = "sample";
}

/// Most rejections that are told in words; the rest are only counted.
pub const MAX_FIRST_ERRORS: usize = 10;

/// A record (a span in traces; a sample, exemplar or metadata in metrics) that was not taken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rejection {
    /// Number of the record in the request, or of the line, counted from 1. For a stream whose
    /// labels are refused: its first record.
    pub position: usize,
    /// Why, and what to do.
    pub reason: String,
}

/// A request after decoding.
#[derive(Debug, Clone)]
pub struct Decoded<B = LogBatch> {
    /// The accepted records in the order of the request; `None` when there are none.
    pub batch: Option<B>,
    /// Records that were taken: for logs and spans the rows of the batch; in metrics a data point may become
    /// several rows, and metadata that come with samples become rows of their own.
    pub accepted: usize,
    /// Records that were not taken.
    pub rejected: usize,
    /// The first rejections, at most [`MAX_FIRST_ERRORS`].
    pub first_errors: Vec<Rejection>,
    /// Every accepted record brought a time. Otherwise the same bytes may come again and mean something
    /// new, such as a heartbeat every minute.
    pub own_times: bool,
}

impl<B: Batch> Decoded<B> {
    /// One text for the sender, empty when nothing was rejected:
    /// `2 of 7 records were rejected: record 3: …; record 5: …`.
    pub fn error_message(&self) -> String {
        if self.rejected == 0 {
            return String::new();
        }
        let (row, all) = (B::ROW, self.accepted + self.rejected);
        let mut text = format!("{} of {all} {row}s were rejected: ", self.rejected);
        for (i, Rejection { position, reason }) in self.first_errors.iter().enumerate() {
            let separator = if i > 0 { "; " } else { "" };
            write!(text, "{separator}{row} {position}: {reason}").expect("writing to memory cannot fail");
        }
        text
    }
}
