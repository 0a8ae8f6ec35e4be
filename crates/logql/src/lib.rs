//! LogQL over [`trine_schema::Tables`]: parser, evaluator, and the JSON of Loki's HTTP API.

use std::{pin::Pin, sync::Arc};

use futures::Stream;
use trine_schema::{LogBatch, StreamRegistry, Tables};

pub mod ast;
mod error;
pub mod loki_json;
mod request;

pub use ast::Expr;
pub use error::{LogqlError, ParseError};
pub use request::{
    Answer, Entry, Label, LabelKind, LabeledEntry, Limits, Request, Sample, Series, SeriesLabels,
    StreamResult,
};

/// Reads a query.
pub fn parse(_query: &str) -> Result<Expr, ParseError> {
    todo!()
}

/// Answers a query.
pub async fn run(_tables: Arc<dyn Tables>, _request: Request) -> Result<Answer, LogqlError> {
    todo!()
}

/// Lines of a log query in the request's order, in chunks, without holding the whole answer.
/// `usize::MAX` as the request's limit means all.
pub type EntryStream = Pin<Box<dyn Stream<Item = Result<Vec<LabeledEntry>, LogqlError>> + Send>>;

/// Answers a log query as a stream.
pub fn run_stream(_tables: Arc<dyn Tables>, _request: Request) -> Result<EntryStream, LogqlError> {
    todo!()
}

/// The pipeline of a log query for batches that just arrived.
pub struct TailFilter {}

impl TailFilter {
    /// Fails for metric queries.
    pub fn new(_query: &Expr) -> Result<Self, LogqlError> {
        todo!()
    }

    /// The lines of the batch that pass, oldest first.
    pub fn apply(&mut self, _batch: &LogBatch, _registry: &StreamRegistry) -> Vec<LabeledEntry> {
        todo!()
    }
}
