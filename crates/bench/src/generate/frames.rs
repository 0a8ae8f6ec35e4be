//! Files of request bodies: frames of `u32` length, `u32` records, both little endian, then the body.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::Path;

use anyhow::{Context, Result};

/// Writes frames.
pub struct FrameWriter {
    file: BufWriter<File>,
    /// Bytes of all bodies so far.
    pub written: u64,
}

impl FrameWriter {
    /// Begins a file.
    pub fn create(path: &Path) -> Result<Self> {
        let file = File::create(path).with_context(|| format!("create {}", path.display()))?;
        Ok(Self { file: BufWriter::with_capacity(1 << 20, file), written: 0 })
    }

    /// Appends a body that holds so many records.
    pub fn frame(&mut self, body: &[u8], records: usize) -> Result<()> {
        self.file.write_all(&(body.len() as u32).to_le_bytes())?;
        self.file.write_all(&(records as u32).to_le_bytes())?;
        self.raw(body)
    }

    /// Appends bytes without a head, for files that are one text.
    pub fn raw(&mut self, body: &[u8]) -> Result<()> {
        self.written += body.len() as u64;
        Ok(self.file.write_all(body)?)
    }

    /// Ends the file; bytes of all bodies.
    pub fn finish(self) -> Result<u64> {
        self.file.into_inner()?.sync_all().ok();
        Ok(self.written)
    }
}
