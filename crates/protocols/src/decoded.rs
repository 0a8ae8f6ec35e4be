//! What a decoder hands on.

use std::fmt;

use trine_schema::LogBatch;

/// Most rejections that are told in words; the rest are only counted.
pub const MAX_FIRST_ERRORS: usize = 10;

/// A record that was not taken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rejection {
    /// Number of the record in the request, or of the line, counted from 1. For a stream whose
    /// labels are refused: its first record.
    pub position: usize,
    /// Why, and what to do.
    pub reason: String,
}

impl fmt::Display for Rejection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "record {}: {}", self.position, self.reason)
    }
}

/// A request after decoding.
#[derive(Debug, Clone, Default)]
pub struct Decoded {
    /// The accepted records in the order of the request; `None` when there are none.
    pub batch: Option<LogBatch>,
    /// Rows of the batch.
    pub accepted: usize,
    /// Records that were not taken.
    pub rejected: usize,
    /// The first rejections, at most [`MAX_FIRST_ERRORS`].
    pub first_errors: Vec<Rejection>,
    /// Every accepted record brought a time. Otherwise the same bytes may come again and mean something
    /// new, such as a heartbeat every minute.
    pub own_times: bool,
}

impl Decoded {
    /// One text for the sender, empty when nothing was rejected:
    /// `2 of 7 records were rejected: record 3: …; record 5: …`.
    pub fn error_message(&self) -> String {
        if self.rejected == 0 {
            return String::new();
        }
        let mut text =
            format!("{} of {} records were rejected: ", self.rejected, self.accepted + self.rejected);
        for (i, rejection) in self.first_errors.iter().enumerate() {
            if i > 0 {
                text.push_str("; ");
            }
            text.push_str(&rejection.to_string());
        }
        text
    }
}
