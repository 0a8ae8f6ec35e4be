//! Answers as Loki's HTTP API writes them
//! (<https://grafana.com/docs/loki/latest/reference/loki-http-api/>).

use trine_schema::ScanStatsSnapshot;

use crate::{Answer, LabeledEntry};

/// The body of `query` and `query_range`. `categorize` is what the request header
/// `X-Loki-Response-Encoding-Flags: categorize-labels` asks for: stream labels alone name the
/// stream, the others stand with each line.
pub fn query_response(_answer: &Answer, _stats: &ScanStatsSnapshot, _categorize: bool) -> String {
    todo!()
}

/// One message of `tail`: `{"streams":[...],"dropped_entries":[]}`.
pub fn tail_message(_entries: &[LabeledEntry], _categorize: bool) -> String {
    todo!()
}
