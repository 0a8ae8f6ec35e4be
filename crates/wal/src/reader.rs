//! Reads a log file front to back with few calls and a bounded buffer.

use std::io;

use crate::{
    DiskFile,
    format::{ENTRY_HEADER_BYTES, EntryHeader, MAX_ENTRY_BYTES, PayloadChecksum},
};

/// Bytes read at once.
const READ_BYTES: usize = 256 << 10;

/// A file being read.
#[derive(Debug)]
pub struct Reader {
    file: Box<dyn DiskFile>,
    len: u64,
    buffer: Vec<u8>,
    /// Offset in the file of the buffer's first byte.
    start: u64,
}

/// What stands at an offset.
pub enum Found {
    /// An entry whose checksums hold, if the payload was checked.
    Entry { header: EntryHeader, checksum: PayloadChecksum, end: u64 },
    /// None; a search for the next one goes on at `resume`.
    Damage { reason: &'static str, resume: u64 },
}

impl Reader {
    pub fn new(file: Box<dyn DiskFile>) -> io::Result<Self> {
        let len = file.len()?;
        Ok(Self { file, len, buffer: Vec::new(), start: 0 })
    }

    pub fn len(&self) -> u64 {
        self.len
    }

    /// Up to `count` bytes at `offset`, fewer at the end of the file.
    pub fn bytes(&mut self, offset: u64, count: usize) -> io::Result<&[u8]> {
        debug_assert!(count <= READ_BYTES, "BUG: the buffer is smaller than what is asked for");
        let count = count.min(self.len.saturating_sub(offset) as usize);
        if count == 0 {
            return Ok(&[]);
        }
        let held = offset >= self.start && offset + count as u64 <= self.start + self.buffer.len() as u64;
        if !held {
            // Nothing valid is in it should the read fail.
            self.start = u64::MAX;
            let wanted = READ_BYTES.min((self.len - offset) as usize);
            if self.buffer.len() != wanted {
                self.buffer = vec![0; wanted];
            }
            let filled = fill(&*self.file, offset, &mut self.buffer)?;
            self.buffer.truncate(filled);
            self.start = offset;
        }
        let from = (offset - self.start) as usize;
        Ok(&self.buffer[from..self.buffer.len().min(from + count)])
    }

    /// The entry header at an offset, if its checksum holds; what it speaks of may be cut off.
    pub fn bare_header(&mut self, salt: u64, offset: u64) -> io::Result<Option<EntryHeader>> {
        let bytes = self.bytes(offset, ENTRY_HEADER_BYTES as usize)?;
        let bytes = <&[u8; ENTRY_HEADER_BYTES as usize]>::try_from(bytes).ok();
        Ok(bytes.and_then(|bytes| Some(EntryHeader::decode(salt, bytes)?.0)))
    }

    /// The entry header at an offset; its payload lies inside the file but is not looked at.
    pub fn header(&mut self, salt: u64, offset: u64) -> io::Result<Found> {
        let bytes = self.bytes(offset, ENTRY_HEADER_BYTES as usize)?;
        let Ok(bytes) = <&[u8; ENTRY_HEADER_BYTES as usize]>::try_from(bytes) else {
            return Ok(Found::Damage { reason: "the entry is cut off", resume: self.len });
        };
        let Some((header, checksum)) = EntryHeader::decode(salt, bytes) else {
            return Ok(Found::Damage {
                reason: "the checksum of the entry's header does not match",
                resume: offset + 1,
            });
        };
        let end = offset + ENTRY_HEADER_BYTES + u64::from(header.length);
        if u64::from(header.length) > MAX_ENTRY_BYTES || end > self.len {
            return Ok(Found::Damage { reason: "the entry is cut off", resume: self.len });
        }
        Ok(Found::Entry { header, checksum, end })
    }

    /// The entry at an offset, payload checked.
    pub fn entry(&mut self, salt: u64, offset: u64) -> io::Result<Found> {
        let found = self.header(salt, offset)?;
        let Found::Entry { checksum, end, .. } = found else { return Ok(found) };
        let mut at = offset + ENTRY_HEADER_BYTES;
        let mut running = checksum.start;
        while at < end {
            let part = self.bytes(at, (end - at).min(READ_BYTES as u64) as usize)?;
            if part.is_empty() {
                break;
            }
            at += part.len() as u64;
            running = crc32c::crc32c_append(running, part);
        }
        if at < end || running != checksum.end {
            return Ok(Found::Damage { reason: "the checksum of the entry does not match", resume: end });
        }
        Ok(found)
    }

    /// Exactly `count` bytes at `offset`, or fewer when the file has become shorter.
    pub fn read(&mut self, offset: u64, count: usize) -> io::Result<Vec<u8>> {
        let mut bytes = vec![0; count];
        let buffered = (offset.max(self.start) == offset)
            .then(|| self.buffer.get((offset - self.start) as usize..))
            .flatten()
            .unwrap_or_default();
        let known = buffered.len().min(count);
        bytes[..known].copy_from_slice(&buffered[..known]);
        let filled = fill(&*self.file, offset + known as u64, &mut bytes[known..])?;
        bytes.truncate(known + filled);
        Ok(bytes)
    }
}

/// Reads until the buffer is full or the file ends.
fn fill(file: &dyn DiskFile, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
    let mut filled = 0;
    while filled < buffer.len() {
        match file.read_at(offset + filled as u64, &mut buffer[filled..]) {
            Ok(0) => break,
            Ok(count) => filled += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(filled)
}
