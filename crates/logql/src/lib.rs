//! LogQL over [`trine_schema::Tables`]: parser, evaluator, and the JSON of Loki's HTTP API.
//!
//! ```text
//! text ─ parser ─▶ ast ─ plan ─▶ what the store filters (LogScan)
//!                          └───▶ what is left per line (pipeline)
//!        logs: pages and windows, ordered lines        metric: slots, windows, series
//!                          └──────── Answer ─ loki_json ─┘
//! ```
//!
//! # Where the answers differ from Loki 3, on purpose
//! - `{}` selects every stream; Loki refuses it.
//! - Labels keep their stored names; queries see them as Prometheus spells them
//!   (`service.name` is `service_name`).
//! - A record's severity shows as `detected_level` in lower case (`error`) unless the stream or
//!   the record has a label of that name. `level` means the same when asked for by name, and
//!   steps aside for any stream label, attribute or parsed field called `level`.
//! - Series of a metric query are told apart by stream labels, by labels that stages made, and by
//!   those of the record's metadata that the query names. Loki takes all metadata, which gives a
//!   series per trace id.
//! - `approx_topk` is exact.

use std::sync::Arc;

use trine_schema::{LabelMatcher, Tables};

pub mod ast;
mod display;
mod error;
mod lexer;
mod logs;
pub mod loki_json;
mod metric;
mod parser;
mod pipeline;
mod plan;
mod request;
mod rows;
mod tail;
mod units;

pub use ast::Expr;
pub use error::{LogqlError, ParseError};
pub use parser::parse;
pub use request::{
    Answer, Entry, EntryStream, Label, LabelKind, LabeledEntry, Limits, Request, Sample, Series,
    SeriesLabels, StreamResult,
};
pub use tail::TailFilter;
pub use units::{parse_query_duration, write_duration};

/// The matchers of a selector as the store takes them.
pub fn label_matchers(selector: &[ast::Matcher]) -> Result<Vec<LabelMatcher>, LogqlError> {
    selector.iter().map(pipeline::label_matcher).collect::<Result<_, _>>().map_err(LogqlError::Request)
}

/// Answers a query.
pub async fn run(tables: Arc<dyn Tables>, request: Request) -> Result<Answer, LogqlError> {
    match request.query.clone() {
        Expr::Log(log) => Ok(Answer::Streams(logs::run(tables, request, log).await?)),
        Expr::Metric(metric) => metric::run(tables, request, &metric).await,
    }
}

/// Answers a log query as a stream of lines in the request's order, without holding the whole
/// answer. `usize::MAX` as the request's limit means all. Fails for metric queries.
pub fn run_stream(tables: Arc<dyn Tables>, request: Request) -> Result<EntryStream, LogqlError> {
    match request.query.clone() {
        Expr::Log(log) => Ok(logs::entries(tables, request, log)),
        Expr::Metric(_) => Err(LogqlError::Request(
            "only log queries give lines; ask for this one's values instead".to_owned(),
        )),
    }
}
