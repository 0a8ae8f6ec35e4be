//! What can go wrong with a query, told apart by who has to act.

use std::{error::Error, fmt};

use arrow::error::ArrowError;
use datafusion::{common::SchemaError, error::DataFusionError, sql::sqlparser::parser::ParserError};
use trine_schema::ScanError;

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

/// A query that is wrong, without a place.
pub(crate) fn bad_query(message: impl Into<String>, hint: Option<&str>) -> SqlError {
    SqlError::BadQuery { message: message.into(), hint: hint.map(str::to_owned), position: None }
}

/// Marks a budget whose size the engine fills in; see [`SqlError::with_limits`].
const UNKNOWN: u64 = 0;

impl SqlError {
    /// Tells apart whose error it is. Sizes of budgets are filled in by [`SqlError::with_limits`].
    pub(crate) fn from_datafusion(error: DataFusionError) -> Self {
        match error {
            DataFusionError::Context(_, inner) => Self::from_datafusion(*inner),
            DataFusionError::Diagnostic(diagnostic, inner) => {
                let at =
                    diagnostic.span.map(|span| Position { line: span.start.line, column: span.start.column });
                match Self::from_datafusion(*inner) {
                    Self::BadQuery { message, hint, position } => {
                        Self::BadQuery { message, hint, position: position.or(at) }
                    }
                    other => other,
                }
            }
            DataFusionError::Collection(errors) => match errors.into_iter().next() {
                Some(first) => Self::from_datafusion(first),
                None => Self::Bug("an empty collection of errors".to_owned()),
            },
            DataFusionError::Shared(shared) => match std::sync::Arc::try_unwrap(shared) {
                Ok(inner) => Self::from_datafusion(inner),
                Err(shared) => Self::from_shared(&shared),
            },
            DataFusionError::External(inner) => Self::from_external(inner),
            DataFusionError::ArrowError(inner, _) => Self::from_arrow(*inner),
            DataFusionError::SQL(inner, _) => match *inner {
                ParserError::RecursionLimitExceeded => {
                    bad_query("the query nests too deep", Some("use fewer parentheses and subqueries"))
                }
                ParserError::TokenizerError(text) | ParserError::ParserError(text) => {
                    Self::from_parser(&text)
                }
            },
            DataFusionError::SchemaError(inner, _) => match *inner {
                SchemaError::FieldNotFound { field, .. } => bad_query(
                    format!("no column, label or attribute is named {:?}", field.name),
                    Some("name attributes that are rare as attributes['name']"),
                ),
                other => bad_query(one_line(&other.to_string()), None),
            },
            DataFusionError::ResourcesExhausted(_) => Self::Memory { limit_bytes: UNKNOWN as usize },
            DataFusionError::Plan(text)
            | DataFusionError::NotImplemented(text)
            | DataFusionError::Configuration(text)
            | DataFusionError::Execution(text) => {
                bad_query(signature_message(&text).unwrap_or_else(|| one_line(&text)), None)
            }
            DataFusionError::IoError(inner) => Self::Storage(inner.to_string()),
            other => Self::Bug(one_line(&other.to_string())),
        }
    }

    /// An error that several partitions share can only be looked at.
    fn from_shared(error: &DataFusionError) -> Self {
        let root = error.find_root();
        let mut source: Option<&(dyn Error + 'static)> = Some(root);
        while let Some(found) = source {
            if let Some(scan) = found.downcast_ref::<ScanError>() {
                return Self::from_scan(scan);
            }
            source = found.source();
        }
        match root {
            DataFusionError::ResourcesExhausted(_) => Self::Memory { limit_bytes: UNKNOWN as usize },
            DataFusionError::Plan(text)
            | DataFusionError::NotImplemented(text)
            | DataFusionError::Execution(text) => bad_query(one_line(text), None),
            DataFusionError::ArrowError(inner, _) if !matches!(**inner, ArrowError::ExternalError(_)) => {
                bad_query(one_line(&inner.to_string()), None)
            }
            other => Self::Bug(one_line(&other.to_string())),
        }
    }

    fn from_external(error: Box<dyn Error + Send + Sync>) -> Self {
        let error = match error.downcast::<ScanError>() {
            Ok(scan) => return Self::from_scan(&scan),
            Err(other) => other,
        };
        let error = match error.downcast::<DataFusionError>() {
            Ok(inner) => return Self::from_datafusion(*inner),
            Err(other) => other,
        };
        // Of `regex` or of its parser, which are different types.
        let text = error.to_string();
        if text.starts_with("regex parse error") {
            bad_query(regex_message(&text), None)
        } else {
            Self::Bug(text)
        }
    }

    fn from_scan(error: &ScanError) -> Self {
        match error {
            ScanError::Deadline(_) => Self::Timeout { limit_ms: UNKNOWN },
            ScanError::Memory { .. } => Self::Memory { limit_bytes: UNKNOWN as usize },
            ScanError::Storage(text) => Self::Storage(text.clone()),
        }
    }

    fn from_arrow(error: ArrowError) -> Self {
        match error {
            ArrowError::ExternalError(inner) => Self::from_external(inner),
            ArrowError::IoError(text, _) => Self::Storage(text),
            ArrowError::MemoryError(_) => Self::Memory { limit_bytes: UNKNOWN as usize },
            // What values do to functions: overflow, division by zero, casts that fail.
            other => bad_query(one_line(&other.to_string()), None),
        }
    }

    /// `… at Line: 1, Column: 8` becomes a position.
    fn from_parser(text: &str) -> Self {
        let (message, place) = text.rsplit_once(" at Line: ").unwrap_or((text, ""));
        let position = place.split_once(", Column: ").and_then(|(line, column)| {
            Some(Position { line: line.trim().parse().ok()?, column: column.trim().parse().ok()? })
        });
        Self::BadQuery { message: one_line(message), hint: None, position }
    }

    /// Fills in the budgets that were exceeded.
    pub(crate) fn with_limits(self, timeout_ms: u64, memory_bytes: usize) -> Self {
        match self {
            Self::Timeout { .. } => Self::Timeout { limit_ms: timeout_ms },
            Self::Memory { .. } => Self::Memory { limit_bytes: memory_bytes },
            other => other,
        }
    }
}

/// What the arguments of a function should have been; DataFusion tells it once for each form of the function, as
/// an internal error.
fn signature_message(text: &str) -> Option<String> {
    const FORM: &str = "Error during planning: ";
    let (_, forms) = text.split_once(" failed to match any signature, errors: ")?;
    let mut told: Vec<String> = Vec::new();
    let forms = forms.lines().next()?.split(FORM).map(|form| form.trim_end_matches(','));
    for form in forms.filter(|form| !form.is_empty()).map(one_line) {
        if !told.contains(&form) {
            told.push(form);
        }
    }
    Some(told.join(", or "))
}

/// The last line of what `regex` says; the lines before draw the place with spaces.
fn regex_message(text: &str) -> String {
    let reason = text.lines().next_back().unwrap_or_default();
    format!("the regular expression cannot be read: {}", reason.strip_prefix("error: ").unwrap_or(reason))
}

/// First line, with a small first letter as all our messages have it.
fn one_line(text: &str) -> String {
    let line = text.lines().map(str::trim).find(|line| !line.is_empty()).unwrap_or("unknown error");
    let line = line.trim_end_matches('.');
    let mut chars = line.chars();
    match (chars.next(), chars.clone().next()) {
        // Not the first letter of an acronym or of a type's name.
        (Some(first), Some(second)) if first.is_uppercase() && second.is_lowercase() => {
            first.to_lowercase().chain(chars).collect()
        }
        _ => line.to_owned(),
    }
}
