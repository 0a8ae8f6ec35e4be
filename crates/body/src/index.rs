//! What is kept per block outside of it, so that a query can pass it by.

use crate::BodyError;

/// Templates and tokens of one block.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct BlockIndex {
    /// Rows of the block.
    pub rows: u32,
    /// Template ids of the block, ascending, with the number of rows of each.
    pub templates: Vec<(u32, u32)>,
}

impl BlockIndex {
    /// Appends the serialised index.
    pub fn write(&self, out: &mut Vec<u8>) {
        let _ = out;
        todo!()
    }

    /// Reads what [`BlockIndex::write`] wrote; the bytes must end with it.
    pub fn parse(bytes: &[u8]) -> Result<Self, BodyError> {
        let _ = bytes;
        todo!()
    }
}

/// Split-block bloom filter over 16-byte trace ids.
#[derive(Debug, Clone, Default)]
pub struct TraceIdBloom {}

impl TraceIdBloom {
    /// A filter over these ids (repeats are fine).
    pub fn build(ids: impl Iterator<Item = [u8; 16]>) -> Self {
        let _ = ids;
        todo!()
    }

    /// Appends the serialised filter.
    pub fn write(&self, out: &mut Vec<u8>) {
        let _ = out;
        todo!()
    }

    /// Whether serialised filter `bytes` may hold the id; no copy is made. Corrupt bytes answer `true`.
    pub fn may_contain(bytes: &[u8], id: &[u8; 16]) -> bool {
        let _ = (bytes, id);
        todo!()
    }
}
