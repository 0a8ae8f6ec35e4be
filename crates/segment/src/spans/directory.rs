//! Which traces a segment has: a table in the file from the hash of a trace id to its number.
//!
//! Traces are numbered in the order of the rows. A look-up reads one page of the table, so a segment whose
//! index is not in memory is passed by for the price of one block. An answer is a guess, wrong about
//! once in a thousand times: who asks compares the ids of the rows.

use std::ops::Range;

use trine_model::TraceId;
use xxhash_rust::xxh3::xxh3_64;

use crate::{
    SegmentError,
    codec::{Malformed, Reader, put_varint},
    file::CheckedReader,
};

/// Traces that a page has room for.
const PAGE_SLOTS: usize = 128;
/// Bytes of the part of the hash that a slot keeps.
const MARK_BYTES: usize = 2;
/// A table has room for so many traces of which …
const ROOM: usize = 100;
/// … so many are taken: more, and full pages become frequent.
const TAKEN: usize = 88;
/// Above so many ids per page the whole table is read at once.
const PAGES_PER_ID: u64 = 4;

/// Where the table lies and how it is divided.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Directory {
    /// First byte in the file.
    pub offset: u64,
    /// Number of pages.
    pub pages: u32,
    /// Bytes of a trace's number; a slot with all bits set is empty.
    width: u8,
}

fn page_of(hash: u64, pages: u32) -> u32 {
    (((hash >> 32) * u64::from(pages)) >> 32) as u32
}

fn mark_of(hash: u64) -> [u8; MARK_BYTES] {
    (hash as u16).to_le_bytes()
}

/// Hash of a trace id for [`encode`].
pub fn hash(id: &TraceId) -> u64 {
    xxh3_64(&id.0)
}

/// The table of traces whose hashes are given by number, to be written at `offset`.
pub fn encode(hashes: &[u64], offset: u64) -> (Directory, Vec<u8>) {
    let pages = (hashes.len() * ROOM / TAKEN / PAGE_SLOTS + 1) as u32;
    let width = if hashes.len() < 0xff_ffff { 3 } else { 4 };
    let directory = Directory { offset, pages, width };
    let page_bytes = directory.page_bytes();
    let mut table = vec![u8::MAX; pages as usize * page_bytes];
    let mut taken = vec![0usize; pages as usize];
    for (number, hash) in hashes.iter().enumerate() {
        let mut page = page_of(*hash, pages) as usize;
        // There are more slots than traces, so this ends.
        while taken[page] == PAGE_SLOTS {
            page = (page + 1) % pages as usize;
        }
        let (start, slot) = (page * page_bytes, taken[page]);
        let mark = start + slot * MARK_BYTES;
        table[mark..mark + MARK_BYTES].copy_from_slice(&mark_of(*hash));
        let place = start + PAGE_SLOTS * MARK_BYTES + slot * usize::from(width);
        table[place..place + usize::from(width)]
            .copy_from_slice(&(number as u32).to_le_bytes()[..usize::from(width)]);
        taken[page] += 1;
    }
    (directory, table)
}

impl Directory {
    fn page_bytes(&self) -> usize {
        PAGE_SLOTS * (MARK_BYTES + usize::from(self.width))
    }

    /// Where it lies in the file.
    pub fn range(&self) -> Range<u64> {
        self.offset..self.offset + u64::from(self.pages) * self.page_bytes() as u64
    }

    /// Appends what [`Directory::read`] reads.
    pub fn put(&self, out: &mut Vec<u8>) {
        put_varint(out, self.offset);
        put_varint(out, u64::from(self.pages));
        out.push(self.width);
    }

    /// Reads its place; it must end at or before `end`.
    pub fn read(reader: &mut Reader<'_>, end: u64) -> Result<Self, Malformed> {
        let bad = Malformed("place of the traces");
        let offset = reader.varint("place of the traces")?;
        let pages = reader.varint32("pages of the traces")?;
        let width = reader.byte("width of the traces")?;
        let directory = Self { offset, pages, width };
        let bytes = u64::from(pages) * directory.page_bytes() as u64;
        let fits = offset.checked_add(bytes).is_some_and(|last| last <= end);
        if fits && pages > 0 && (3..=4).contains(&width) { Ok(directory) } else { Err(bad) }
    }

    /// Numbers of traces that may be one of these, each once, rising.
    pub fn find(&self, reader: &CheckedReader, ids: &[TraceId]) -> Result<Vec<u32>, SegmentError> {
        let mut hashes: Vec<u64> = ids.iter().map(hash).collect();
        // In the order of the pages.
        hashes.sort_unstable();
        if ids.len() as u64 * PAGES_PER_ID > u64::from(self.pages) {
            reader.read(self.range())?;
        }
        let mut found = Vec::new();
        for hash in hashes {
            let first = page_of(hash, self.pages);
            for step in 0..self.pages {
                let page = (u64::from(first) + u64::from(step)) % u64::from(self.pages);
                let start = self.offset + page * self.page_bytes() as u64;
                let bytes = reader.read(start..start + self.page_bytes() as u64)?;
                if !self.find_in(&bytes, hash, &mut found) {
                    break;
                }
            }
        }
        found.sort_unstable();
        found.dedup();
        Ok(found)
    }

    /// Adds the numbers with this hash; whether the page is full, so that the next one may hold more.
    fn find_in(&self, page: &[u8], hash: u64, found: &mut Vec<u32>) -> bool {
        let (marks, numbers) = page.split_at(PAGE_SLOTS * MARK_BYTES);
        let width = usize::from(self.width);
        let number_at = |slot: usize| {
            let mut bytes = [0; 4];
            bytes[..width].copy_from_slice(&numbers[slot * width..(slot + 1) * width]);
            u32::from_le_bytes(bytes)
        };
        let empty = u32::MAX >> (32 - 8 * u32::from(self.width));
        let mark = mark_of(hash);
        for (slot, found_mark) in marks.chunks_exact(MARK_BYTES).enumerate() {
            if found_mark == mark && number_at(slot) != empty {
                found.push(number_at(slot));
            }
        }
        number_at(PAGE_SLOTS - 1) != empty
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every trace is found, also where pages are full, and hardly any other.
    #[test]
    fn traces_are_found_by_their_hashes() {
        for count in [0u64, 1, 127, 5_000] {
            let hashes: Vec<u64> = (0..count).map(|n| xxh3_64(&n.to_le_bytes())).collect();
            let (directory, table) = encode(&hashes, 0);
            let look = |hash: u64| {
                let mut found = Vec::new();
                let mut page = page_of(hash, directory.pages) as usize;
                let bytes = directory.page_bytes();
                while directory.find_in(&table[page * bytes..(page + 1) * bytes], hash, &mut found) {
                    page = (page + 1) % directory.pages as usize;
                }
                found
            };
            for (number, hash) in hashes.iter().enumerate() {
                assert!(look(*hash).contains(&(number as u32)), "{number} of {count}");
            }
            let strange =
                (count..count + 10_000).map(|n| look(xxh3_64(&n.to_le_bytes())).len()).sum::<usize>();
            assert!(strange < 100, "{strange} wrong guesses among 10000");
        }
    }
}
