//! What a caller may choose when encoding.

/// Choices of an [`crate::Encoder`].
#[derive(Debug, Clone, Copy)]
pub struct Options {
    /// zstd level of the block's frames.
    pub zstd_level: i32,
    /// Most templates in one dictionary; lines beyond it are stored as one variable.
    pub max_templates: usize,
}

impl Default for Options {
    fn default() -> Self {
        Self { zstd_level: 1, max_templates: 32 * 1024 }
    }
}
