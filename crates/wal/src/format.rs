//! The bytes of a log file.
//!
//! A file is a header of [`FILE_HEADER_BYTES`] and then entries without gaps. All numbers are
//! little-endian, checksums are CRC-32C.
//!
//! | file header, twice: at byte 0 and at byte 2048 | |
//! |---|---|
//! | 8 | `TRINEWAL` |
//! | 4 | version |
//! | 4 | checksum of the other 28 bytes |
//! | 8 | sequence of the first entry, the same as in the file's name |
//! | 8 | salt, random per file |
//!
//! | entry | |
//! |---|---|
//! | 4 | length of the payload |
//! | 4 | position in its group, from 0: entries of one group became durable by one sync |
//! | 8 | sequence |
//! | 4 | checksum of salt and the 16 bytes before |
//! | 4 | checksum of salt, the 16 bytes and the payload |
//! | … | payload |
//!
//! The header has a checksum of its own so that a damaged payload does not cost the length, too.
//! The salt keeps bytes that merely look like an entry (inside a payload, or left over in a
//! recycled block) from passing as one when a damaged place is searched for what follows.

use std::{
    collections::hash_map::RandomState,
    hash::{BuildHasher as _, Hasher as _},
};

/// Bytes before the first entry.
pub const FILE_HEADER_BYTES: u64 = 4096;
/// Bytes before each payload.
pub const ENTRY_HEADER_BYTES: u64 = 24;
/// Largest payload, in bytes.
pub const MAX_ENTRY_BYTES: u64 = 256 << 20;
/// The version written, and the newest one read.
pub const VERSION: u32 = 1;

const MAGIC: [u8; 8] = *b"TRINEWAL";
const COPY_BYTES: usize = 32;
/// In different sectors, so that one bad sector does not take both.
const COPY_OFFSETS: [usize; 2] = [0, 2048];

/// What a file header says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FileHeader {
    pub first: u64,
    pub salt: u64,
}

/// A file header as read.
#[derive(Debug, PartialEq, Eq)]
pub enum ReadHeader {
    Good(FileHeader),
    /// Whole, but of a version this program does not know.
    Newer(u32),
    Bad,
}

impl FileHeader {
    pub fn new(first: u64) -> Self {
        // The standard library's hash keys are random per process and differ per instance.
        let mut salt = RandomState::new().build_hasher();
        salt.write_u64(first);
        Self { first, salt: salt.finish() }
    }

    pub fn encode(&self) -> Vec<u8> {
        let mut copy = [0; COPY_BYTES];
        copy[..8].copy_from_slice(&MAGIC);
        copy[8..12].copy_from_slice(&VERSION.to_le_bytes());
        copy[16..24].copy_from_slice(&self.first.to_le_bytes());
        copy[24..].copy_from_slice(&self.salt.to_le_bytes());
        let checksum = copy_checksum(&copy);
        copy[12..16].copy_from_slice(&checksum.to_le_bytes());
        let mut bytes = vec![0; FILE_HEADER_BYTES as usize];
        for offset in COPY_OFFSETS {
            bytes[offset..offset + COPY_BYTES].copy_from_slice(&copy);
        }
        bytes
    }

    /// `bytes` is the beginning of a file whose name says `first`.
    pub fn decode(bytes: &[u8], first: u64) -> ReadHeader {
        for offset in COPY_OFFSETS {
            let Some(copy) = bytes.get(offset..offset + COPY_BYTES) else { continue };
            if copy[..8] != MAGIC || u32_at(copy, 12) != copy_checksum(copy) {
                continue;
            }
            if u32_at(copy, 8) > VERSION {
                return ReadHeader::Newer(u32_at(copy, 8));
            }
            if u64_at(copy, 16) == first {
                return ReadHeader::Good(Self { first, salt: u64_at(copy, 24) });
            }
        }
        ReadHeader::Bad
    }
}

fn copy_checksum(copy: &[u8]) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c(&copy[..12]), &copy[16..])
}

/// What stands before a payload.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EntryHeader {
    pub length: u32,
    pub group_index: u32,
    pub sequence: u64,
}

impl EntryHeader {
    /// The bytes before the payload, which is read once, for its checksum.
    pub fn encode(&self, salt: u64, payload: &[&[u8]]) -> [u8; ENTRY_HEADER_BYTES as usize] {
        let mut bytes = [0; ENTRY_HEADER_BYTES as usize];
        bytes[..4].copy_from_slice(&self.length.to_le_bytes());
        bytes[4..8].copy_from_slice(&self.group_index.to_le_bytes());
        bytes[8..16].copy_from_slice(&self.sequence.to_le_bytes());
        let checksum = header_checksum(salt, &bytes[..16]);
        bytes[16..20].copy_from_slice(&checksum.to_le_bytes());
        let checksum = payload.iter().fold(checksum, |crc, part| crc32c::crc32c_append(crc, part));
        bytes[20..].copy_from_slice(&checksum.to_le_bytes());
        bytes
    }

    /// The header, when its own checksum holds, and the checksums that the payload must lead from
    /// and to.
    pub fn decode(salt: u64, bytes: &[u8; ENTRY_HEADER_BYTES as usize]) -> Option<(Self, PayloadChecksum)> {
        let start = header_checksum(salt, &bytes[..16]);
        if u32_at(bytes, 16) != start {
            return None;
        }
        let header =
            Self { length: u32_at(bytes, 0), group_index: u32_at(bytes, 4), sequence: u64_at(bytes, 8) };
        Some((header, PayloadChecksum { start, end: u32_at(bytes, 20) }))
    }

    /// Sequence of the first entry of its group.
    pub fn group_first(&self) -> u64 {
        self.sequence.saturating_sub(u64::from(self.group_index))
    }
}

/// Where the running checksum stands before a payload and where it must stand after.
#[derive(Debug, Clone, Copy)]
pub struct PayloadChecksum {
    pub start: u32,
    pub end: u32,
}

fn header_checksum(salt: u64, bytes: &[u8]) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c(&salt.to_le_bytes()), bytes)
}

fn u32_at(bytes: &[u8], offset: usize) -> u32 {
    u32::from_le_bytes(bytes[offset..offset + 4].try_into().expect("four bytes"))
}

fn u64_at(bytes: &[u8], offset: usize) -> u64 {
    u64::from_le_bytes(bytes[offset..offset + 8].try_into().expect("eight bytes"))
}

/// Name of the file that begins with a sequence.
pub fn file_name(first: u64) -> String {
    format!("{first:020}.wal")
}

/// The first sequence of a log file by its name; other files give nothing.
pub fn parse_file_name(name: &str) -> Option<u64> {
    let digits = name.strip_suffix(".wal")?;
    (digits.len() == 20 && digits.bytes().all(|byte| byte.is_ascii_digit())).then(|| digits.parse().ok())?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_bad_sector_does_not_take_the_file_header() {
        let header = FileHeader::new(7);
        let good = header.encode();
        assert_eq!(FileHeader::decode(&good, 7), ReadHeader::Good(header));
        assert_eq!(FileHeader::decode(&good, 8), ReadHeader::Bad);
        for sector in 0..8 {
            let mut bytes = good.clone();
            bytes[sector * 512..(sector + 1) * 512].fill(0);
            assert_eq!(FileHeader::decode(&bytes, 7), ReadHeader::Good(header));
        }
        assert_eq!(FileHeader::decode(&[0; 4096], 7), ReadHeader::Bad);
        assert_eq!(FileHeader::decode(&good[..20], 7), ReadHeader::Bad);
    }

    #[test]
    fn any_flipped_bit_of_an_entry_header_is_noticed() {
        let header = EntryHeader { length: 3, group_index: 1, sequence: 9 };
        let good = header.encode(42, &[b"a", b"bc"]);
        let (read, checksum) = EntryHeader::decode(42, &good).unwrap();
        assert_eq!((read, read.group_first()), (header, 8));
        assert_eq!(crc32c::crc32c_append(checksum.start, b"abc"), checksum.end);
        assert!(EntryHeader::decode(43, &good).is_none(), "another file's salt");
        for bit in 0..20 * 8 {
            let mut bytes = good;
            bytes[bit / 8] ^= 1 << (bit % 8);
            assert!(EntryHeader::decode(42, &bytes).is_none());
        }
    }

    #[test]
    fn only_names_of_log_files_are_parsed() {
        assert_eq!(parse_file_name(&file_name(u64::MAX)), Some(u64::MAX));
        assert_eq!(parse_file_name("00000000000000000001.wal"), Some(1));
        for name in ["1.wal", "00000000000000000001.wal.corrupt", "+0000000000000000001.wal", "LOCK"] {
            assert_eq!(parse_file_name(name), None, "{name}");
        }
    }
}
