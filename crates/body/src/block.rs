//! One encoded block: reading rows back and searching.

use crate::{BodyError, Dictionary, PreparedQuery, RowSet};

/// Buffers and contexts that reading reuses; one per thread.
#[derive(Default)]
pub struct Scratch {}

/// One encoded block.
#[derive(Debug, Clone, Copy)]
pub struct Block<'a> {
    bytes: &'a [u8],
}

impl<'a> Block<'a> {
    /// Checks the header.
    pub fn parse(bytes: &'a [u8]) -> Result<Self, BodyError> {
        Ok(Self { bytes })
    }

    /// Number of rows.
    pub fn rows(&self) -> u32 {
        let _ = self.bytes;
        todo!()
    }

    /// Template id of each row, appended to `ids`.
    pub fn template_ids(&self, scratch: &mut Scratch, ids: &mut Vec<u32>) -> Result<(), BodyError> {
        let _ = (scratch, ids);
        todo!()
    }

    /// Rebuilds lines: all, or the rows named by `rows` (ascending). Bytes are appended to `out`;
    /// the end of each line, as a position in `out`, is appended to `ends`.
    pub fn decode(
        &self,
        dictionary: &Dictionary,
        rows: Option<&[u32]>,
        scratch: &mut Scratch,
        out: &mut Vec<u8>,
        ends: &mut Vec<i32>,
    ) -> Result<(), BodyError> {
        let _ = (dictionary, rows, scratch, out, ends);
        todo!()
    }

    /// Sets `found` to the rows that match. With `within`, only those rows are looked at.
    pub fn search(
        &self,
        dictionary: &Dictionary,
        query: &PreparedQuery,
        within: Option<&RowSet>,
        scratch: &mut Scratch,
        found: &mut RowSet,
    ) -> Result<(), BodyError> {
        let _ = (dictionary, query, within, scratch, found);
        todo!()
    }
}
