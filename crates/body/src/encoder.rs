//! From lines to blocks.

use crate::{BlockIndex, Options};

/// Encodes the blocks of one segment and builds its dictionary. Keeps its scratch buffers.
pub struct Encoder {
    options: Options,
}

impl Encoder {
    /// An encoder with an empty dictionary.
    pub fn new(options: Options) -> Self {
        Self { options }
    }

    /// Appends one block with the lines to `out`.
    pub fn encode_block<'a>(
        &mut self,
        lines: impl Iterator<Item = &'a [u8]>,
        out: &mut Vec<u8>,
    ) -> BlockIndex {
        let _ = (lines, out, self.options);
        todo!()
    }

    /// Only what the index needs: the template id of each line, appended to `ids`, and the index.
    pub fn index_block<'a>(
        &mut self,
        lines: impl Iterator<Item = &'a [u8]>,
        ids: &mut Vec<u32>,
    ) -> BlockIndex {
        let _ = (lines, ids);
        todo!()
    }

    /// Templates so far.
    pub fn template_count(&self) -> usize {
        todo!()
    }

    /// The dictionary, serialised; [`crate::Dictionary::parse`] reads it.
    pub fn finish(self) -> Vec<u8> {
        todo!()
    }
}
