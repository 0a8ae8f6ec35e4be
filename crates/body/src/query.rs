//! What to look for, and what can be said without looking at rows.

use crate::{BlockIndex, BodyError, Dictionary};

/// What is known about the rows of a template or a block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Every row matches.
    Always,
    /// No row matches.
    Never,
    /// Rows must be looked at.
    Maybe,
}

/// A substring or a regular expression to find in lines.
#[derive(Debug, Clone)]
pub struct Query {}

impl Query {
    /// Lines that contain these bytes, case-sensitive.
    pub fn literal(needle: &[u8]) -> Self {
        let _ = needle;
        todo!()
    }

    /// Lines in which the regular expression matches somewhere.
    pub fn regex(pattern: &str) -> Result<Self, BodyError> {
        let _ = pattern;
        todo!()
    }

    /// Whether a plain line matches.
    pub fn matches(&self, line: &[u8]) -> bool {
        let _ = line;
        todo!()
    }

    /// Classifies every template of a segment once.
    pub fn prepare(&self, dictionary: &Dictionary) -> PreparedQuery {
        let _ = dictionary;
        todo!()
    }
}

/// A [`Query`] against the dictionary of one segment.
#[derive(Debug, Clone)]
pub struct PreparedQuery {}

impl PreparedQuery {
    /// Whether a plain line matches.
    pub fn matches(&self, line: &[u8]) -> bool {
        let _ = line;
        todo!()
    }

    /// What the template alone says about its rows.
    pub fn template(&self, id: u32) -> Verdict {
        let _ = id;
        todo!()
    }

    /// What the index says about the rows of a block (encoded or plain).
    pub fn block(&self, index: &BlockIndex) -> Verdict {
        let _ = index;
        todo!()
    }
}
