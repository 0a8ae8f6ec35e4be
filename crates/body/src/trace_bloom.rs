//! Which trace ids a range of rows may hold.
//!
//! A split-block bloom filter as Parquet describes it: an id picks one block of 32 bytes and sets
//! one bit in each of its eight words, so a look-up touches one cache line.

use xxhash_rust::xxh3::xxh3_64;

/// Multipliers of the eight words (Parquet specification, `BloomFilter.md`).
const SALT: [u32; 8] =
    [0x47b6_137b, 0x4497_4d91, 0x8824_ad5b, 0xa2b7_289d, 0x7054_95c7, 0x2df1_424b, 0x9efc_4947, 0x5c6b_fb31];
/// Bytes of a block.
const BLOCK_BYTES: usize = 32;
/// Filter bits per id: about 0.1 % false answers. A false one costs reading a page of ids.
const BITS_PER_ID: usize = 16;

/// Split-block bloom filter over 16-byte trace ids.
#[derive(Debug, Clone, Default)]
pub struct TraceIdBloom {
    bytes: Vec<u8>,
}

/// Start of the block of a hash, and the bit in each word.
fn place(hash: u64, blocks: usize) -> (usize, [u32; 8]) {
    let block = ((hash >> 32) * blocks as u64) >> 32;
    (block as usize * BLOCK_BYTES, SALT.map(|salt| 1 << ((hash as u32).wrapping_mul(salt) >> 27)))
}

impl TraceIdBloom {
    /// A filter over these ids; repeats cost nothing.
    pub fn build(ids: impl Iterator<Item = [u8; 16]>) -> Self {
        let mut hashes: Vec<u64> = ids.map(|id| xxh3_64(&id)).collect();
        hashes.sort_unstable();
        hashes.dedup();
        let blocks = (hashes.len() * BITS_PER_ID).div_ceil(BLOCK_BYTES * 8);
        let mut bytes = vec![0; blocks * BLOCK_BYTES];
        for hash in hashes {
            let (start, bits) = place(hash, blocks);
            for (word, bit) in bytes[start..start + BLOCK_BYTES].chunks_exact_mut(4).zip(bits) {
                for (byte, more) in word.iter_mut().zip(bit.to_le_bytes()) {
                    *byte |= more;
                }
            }
        }
        Self { bytes }
    }

    /// Appends the serialised filter; its length is not part of it.
    pub fn write(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.bytes);
    }

    /// Whether the serialised filter `bytes` may hold the id; nothing is copied. No bytes hold
    /// nothing; bytes that are no filter answer `true`.
    pub fn may_contain(bytes: &[u8], id: &[u8; 16]) -> bool {
        if !bytes.len().is_multiple_of(BLOCK_BYTES) {
            return true;
        }
        if bytes.is_empty() {
            return false;
        }
        let (start, bits) = place(xxh3_64(id), bytes.len() / BLOCK_BYTES);
        bytes[start..start + BLOCK_BYTES]
            .chunks_exact(4)
            .zip(bits)
            .all(|(word, bit)| word.iter().zip(bit.to_le_bytes()).all(|(byte, bit)| byte & bit == bit))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(n: u64) -> [u8; 16] {
        let mut id = [0; 16];
        id[..8].copy_from_slice(&xxh3_64(&n.to_le_bytes()).to_le_bytes());
        id
    }

    #[test]
    fn held_ids_are_found_and_few_others() {
        for n in [0u64, 1, 10, 5000] {
            let mut bytes = Vec::new();
            TraceIdBloom::build((0..n).chain(0..n).map(id)).write(&mut bytes);
            assert!((0..n).all(|i| TraceIdBloom::may_contain(&bytes, &id(i))));
            let wrong = (1_000_000..1_010_000).filter(|&i| TraceIdBloom::may_contain(&bytes, &id(i))).count();
            assert!(wrong < 400, "{wrong} of 10000 for {n} ids");
        }
        assert!(TraceIdBloom::may_contain(&[1, 2, 3], &id(1)));
    }
}
