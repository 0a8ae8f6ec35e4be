//! Checksums over the whole file: a CRC32C and a BLAKE3 hash per 64 KiB block.
//!
//! The file is *data* (everything up to the block table) and *tail* (block table, Parquet page
//! indexes, Parquet footer). The table holds checksum and hash of every data block; the root is the
//! hash of the tail, so it fixes every byte of the file. The tail also carries its own CRC32C, as
//! eight hex digits in the footer that count as zeros while it is computed: a file without a
//! catalog entry is checked too.

use std::io::{self, Write};

use crate::codec::{Malformed, Reader};

/// Bytes of one block.
pub const BLOCK_BYTES: usize = 64 * 1024;
/// First bytes of the block table.
const MAGIC: &[u8; 4] = b"TRBT";
/// Before the eight hex digits of the tail's checksum in the footer.
pub const TAIL_CRC_MARK: &str = "tail_crc32c=";
/// Hex digits of a checksum.
const CRC_DIGITS: usize = 8;

/// Passes bytes on and sums them up on the way.
pub struct BlockWriter<W> {
    inner: W,
    block: Vec<u8>,
    crcs: Vec<u32>,
    hashes: Vec<[u8; 32]>,
    written: u64,
    tail: Option<Vec<u8>>,
}

impl<W: Write> BlockWriter<W> {
    /// Over an empty file.
    pub fn new(inner: W) -> Self {
        Self {
            inner,
            block: Vec::with_capacity(BLOCK_BYTES),
            crcs: Vec::new(),
            hashes: Vec::new(),
            written: 0,
            tail: None,
        }
    }

    fn seal_block(&mut self) -> io::Result<()> {
        if !self.block.is_empty() {
            self.crcs.push(crc32c::crc32c(&self.block));
            self.hashes.push(*blake3::hash(&self.block).as_bytes());
            self.inner.write_all(&self.block)?;
            self.block.clear();
        }
        Ok(())
    }

    /// Ends the data; what is written from now on is the tail. Returns the table, to be written first.
    pub fn begin_tail(&mut self) -> io::Result<Vec<u8>> {
        self.seal_block()?;
        self.tail = Some(Vec::new());
        let mut table = Vec::with_capacity(12 + self.crcs.len() * 36);
        table.extend_from_slice(MAGIC);
        table.extend_from_slice(&self.written.to_le_bytes());
        self.crcs.iter().for_each(|crc| table.extend_from_slice(&crc.to_le_bytes()));
        self.hashes.iter().for_each(|hash| table.extend_from_slice(hash));
        Ok(table)
    }

    /// Fills in the tail's checksum and writes the tail. Returns the length of the file and the root.
    pub fn finish(mut self) -> io::Result<(u64, [u8; 32])> {
        let mut tail = self.tail.take().unwrap_or_default();
        let Some(at) = tail_crc_position(&tail) else {
            return Err(io::Error::other("BUG: the footer has no place for the tail's checksum"));
        };
        let crc = crc32c::crc32c(&tail);
        tail[at..at + CRC_DIGITS].copy_from_slice(format!("{crc:08x}").as_bytes());
        self.inner.write_all(&tail)?;
        self.inner.flush()?;
        Ok((self.written + tail.len() as u64, *blake3::hash(&tail).as_bytes()))
    }
}

impl<W: Write> Write for BlockWriter<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if let Some(tail) = &mut self.tail {
            tail.extend_from_slice(bytes);
            return Ok(bytes.len());
        }
        let taken = bytes.len().min(BLOCK_BYTES - self.block.len());
        self.block.extend_from_slice(&bytes[..taken]);
        self.written += taken as u64;
        if self.block.len() == BLOCK_BYTES {
            self.seal_block()?;
        }
        Ok(taken)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Where the digits of the tail's checksum stand.
fn tail_crc_position(tail: &[u8]) -> Option<usize> {
    let at = memchr::memmem::rfind(tail, TAIL_CRC_MARK.as_bytes())? + TAIL_CRC_MARK.len();
    (at + CRC_DIGITS <= tail.len()).then_some(at)
}

/// Whether the tail's own checksum fits.
pub fn tail_is_intact(tail: &[u8]) -> bool {
    let Some(at) = tail_crc_position(tail) else { return false };
    let digits = &tail[at..at + CRC_DIGITS];
    let crc = crc32c::crc32c(&tail[..at]);
    let crc = crc32c::crc32c_append(crc, &[b'0'; CRC_DIGITS]);
    let crc = crc32c::crc32c_append(crc, &tail[at + CRC_DIGITS..]);
    digits == format!("{crc:08x}").as_bytes()
}

/// Checksums of the data blocks.
pub struct BlockTable {
    /// Length of the data in bytes.
    pub data_bytes: u64,
    /// CRC32C of each block.
    pub crcs: Vec<u32>,
    /// BLAKE3 hash of each block.
    pub hashes: Vec<[u8; 32]>,
}

impl BlockTable {
    /// Reads the table at the beginning of a tail.
    pub fn parse(tail: &[u8]) -> Result<Self, Malformed> {
        let mut reader = Reader::new(tail);
        if reader.take(4, "block table")? != MAGIC {
            return Err(Malformed("block table"));
        }
        let data_bytes = u64::from_le_bytes(reader.array("length of the data")?);
        let count = usize::try_from(data_bytes.div_ceil(BLOCK_BYTES as u64)).unwrap_or(usize::MAX);
        let crcs = reader.take(count.saturating_mul(4), "block checksums")?;
        let hashes = reader.take(count.saturating_mul(32), "block hashes")?;
        Ok(Self {
            data_bytes,
            crcs: crcs.as_chunks::<4>().0.iter().map(|crc| u32::from_le_bytes(*crc)).collect(),
            hashes: hashes.as_chunks::<32>().0.to_vec(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_flipped_byte_of_data_or_tail_shows() {
        let mut file = Vec::new();
        let mut writer = BlockWriter::new(&mut file);
        let data: Vec<u8> = (0..BLOCK_BYTES * 2 + 77).map(|i| (i % 251) as u8).collect();
        writer.write_all(&data).unwrap();
        let table = writer.begin_tail().unwrap();
        writer.write_all(&table).unwrap();
        writer.write_all(b"footer tail_crc32c=00000000 end").unwrap();
        let (length, root) = writer.finish().unwrap();
        assert_eq!(length, file.len() as u64);
        let tail = file.split_off(data.len());
        assert_eq!(file, data);
        assert!(tail_is_intact(&tail));
        assert_eq!(root, *blake3::hash(&tail).as_bytes());
        for at in 0..tail.len() {
            let mut bad = tail.clone();
            bad[at] ^= 1;
            assert!(!tail_is_intact(&bad), "byte {at} of the tail was changed unseen");
        }
        let table = BlockTable::parse(&tail).unwrap();
        assert_eq!((table.data_bytes, table.crcs.len(), table.hashes.len()), (data.len() as u64, 3, 3));
        assert_eq!(table.crcs[2], crc32c::crc32c(&data[BLOCK_BYTES * 2..]));
    }
}
