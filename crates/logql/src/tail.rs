//! The pipeline of a log query on batches that just arrived.

use trine_schema::{LabelMatcher, LogBatch, StreamRegistry};

use crate::{Expr, LabeledEntry, LogqlError, logs::LineRunner, rows::Rows};

/// Filters live batches by a log query.
pub struct TailFilter {
    streams: Vec<LabelMatcher>,
    /// By stream reference: whether its labels match.
    matching: hashbrown::HashMap<u32, bool>,
    runner: LineRunner,
}

impl TailFilter {
    /// Fails for metric queries.
    pub fn new(query: &Expr) -> Result<Self, LogqlError> {
        let Expr::Log(log) = query else {
            let message = "tail takes a log query such as {app=\"a\"} |= \"error\", not a metric query";
            return Err(LogqlError::Request(message.to_owned()));
        };
        Ok(Self {
            streams: crate::label_matchers(&log.selector)?,
            matching: hashbrown::HashMap::new(),
            runner: LineRunner::new(&log.stages)?,
        })
    }

    /// The lines of the batch that pass, oldest first.
    pub fn apply(&mut self, batch: &LogBatch, registry: &StreamRegistry) -> Vec<LabeledEntry> {
        let rows = Rows::new(&batch.records);
        let keep: arrow::array::BooleanArray = (0..rows.len)
            .map(|row| {
                let stream = rows.stream(row);
                let streams = &self.streams;
                let matches = || {
                    let stream = registry.get(stream);
                    streams.iter().all(|matcher| matcher.matches(&stream))
                };
                Some(*self.matching.entry(stream).or_insert_with(matches))
            })
            .collect();
        let mut found = Vec::new();
        if keep.true_count() == 0 {
            return found;
        }
        let mut row = 0;
        let skip = |_| {
            row += 1;
            !keep.value(row - 1)
        };
        self.runner.run(&batch.records, registry, skip, |entry| found.push(entry));
        found.sort_by_key(|entry| entry.timestamp);
        found
    }
}
