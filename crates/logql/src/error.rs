//! What can go wrong between a query's text and its answer.

use std::fmt;

use trine_schema::ScanError;

/// The text is not LogQL. Always the caller's fault.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ParseError {
    /// Line of the text, from 1.
    pub line: usize,
    /// Column in characters, from 1.
    pub column: usize,
    /// What stands there or what is wrong with it.
    pub message: String,
    /// What to write instead; empty when nothing helps.
    pub hint: String,
}

impl fmt::Display for ParseError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "parse error at line {}, col {}: {}", self.line, self.column, self.message)?;
        if !self.hint.is_empty() {
            write!(f, "; hint: {}", self.hint)?;
        }
        Ok(())
    }
}

impl std::error::Error for ParseError {}

/// Why a query has no answer.
#[derive(Debug, Clone, thiserror::Error)]
pub enum LogqlError {
    /// Bad input: the text is not LogQL.
    #[error(transparent)]
    Parse(#[from] ParseError),
    /// Bad input: the query and the request do not fit together.
    #[error("{0}")]
    Request(String),
    /// Bad input: the query asks for more than a limit allows.
    #[error("the query gives more than {limit} {what}; {hint}")]
    Limit {
        /// What is counted.
        what: &'static str,
        /// The bound.
        limit: usize,
        /// What to do.
        hint: &'static str,
    },
    /// Bad input: a metric query met lines that a stage could not read.
    #[error(
        "pipeline error: {error} in series {labels}: {details}; use a label filter such as | __error__=\"\" to skip such lines"
    )]
    Pipeline {
        /// Value of `__error__`.
        error: String,
        /// Value of `__error_details__`.
        details: String,
        /// Labels of the series.
        labels: String,
    },
    /// Bad input: two vectors cannot be matched.
    #[error("{0}")]
    Matching(String),
    /// The environment: time or memory is used up, or reading failed.
    #[error(transparent)]
    Scan(#[from] ScanError),
}
