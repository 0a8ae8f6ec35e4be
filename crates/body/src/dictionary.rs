//! The templates of one segment.

use crate::BodyError;

/// Templates of one segment, read back.
#[derive(Debug)]
pub struct Dictionary {}

impl Dictionary {
    /// Reads what [`crate::Encoder::finish`] wrote.
    pub fn parse(bytes: &[u8]) -> Result<Self, BodyError> {
        let _ = bytes;
        todo!()
    }

    /// Number of templates; ids are `0..len`.
    pub fn len(&self) -> usize {
        todo!()
    }

    /// Whether there is no template.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The template for people: variables as `<*>`; `None` for an id past the end.
    pub fn pattern(&self, id: u32) -> Option<String> {
        let _ = id;
        todo!()
    }
}
