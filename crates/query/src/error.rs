//! What can go wrong with a query, told apart by who has to act.

use std::fmt;

/// Where in the SQL text; both count from 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Position {
    /// Line.
    pub line: u64,
    /// Column, in characters.
    pub column: u64,
}

/// Why a query has no (full) answer.
#[derive(Debug, Clone, thiserror::Error)]
pub enum SqlError {
    /// The query is wrong: HTTP 400.
    #[error("{message}{}{}", At(*position), Hint(hint.as_deref()))]
    BadQuery {
        /// What is wrong, lower case, one line.
        message: String,
        /// What to do about it.
        hint: Option<String>,
        /// Where, when known.
        position: Option<Position>,
    },
    /// The query needs more time than its budget: HTTP 422 or 504.
    #[error("the query ran into its time limit after {limit_ms} ms; narrow the time range or add a filter")]
    Timeout {
        /// The budget in milliseconds.
        limit_ms: u64,
    },
    /// The query needs more memory than its budget: HTTP 422.
    #[error(
        "the query needs more than its {limit_bytes} bytes of memory; narrow the time range, group by fewer \
         values or add a limit"
    )]
    Memory {
        /// The budget in bytes.
        limit_bytes: usize,
    },
    /// Stored data could not be read: HTTP 500 or 503.
    #[error("reading stored data failed: {0}")]
    Storage(String),
    /// A defect of the query engine: HTTP 500.
    #[error("BUG: {0}; please report this with the query")]
    Bug(String),
}

struct At(Option<Position>);

impl fmt::Display for At {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(at) => write!(f, " at line {}, column {}", at.line, at.column),
            None => Ok(()),
        }
    }
}

struct Hint<'a>(Option<&'a str>);

impl fmt::Display for Hint<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(hint) => write!(f, "; hint: {hint}"),
            None => Ok(()),
        }
    }
}
