//! Which values the attributes of a granule may have.

use bytes::Bytes;
use trine_body::TraceIdBloom;
use xxhash_rust::xxh3::{xxh3_64, xxh3_64_with_seed};

use crate::codec::{Malformed, Reader, put_bytes, put_varint};

/// A column with more values than this in a granule is left out of the filter: it may have any value.
pub const MAX_VALUES: usize = 256;

/// A filter over pairs of an attribute's name and a value.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ValueFilter {
    /// A bit per column that may have any value.
    any: u64,
    filter: Bytes,
}

/// Hash of an attribute's value for a [`ValueFilter`]. The name and not its column is part of it, so that a
/// filter stays as it is where columns get other numbers.
pub fn hash(name: &str, value: &[u8]) -> u64 {
    xxh3_64_with_seed(value, xxh3_64(name.as_bytes()))
}

fn key(hash: u64) -> [u8; 16] {
    let mut key = [0; 16];
    key[..8].copy_from_slice(&hash.to_le_bytes());
    key
}

impl ValueFilter {
    /// Of the hashes of the values of each column; `None` for a column that may have any.
    pub fn build(columns: &[Option<Vec<u64>>]) -> Self {
        let any =
            columns.iter().enumerate().filter(|(_, hashes)| hashes.is_none()).map(|(column, _)| 1 << column);
        let hashes = columns.iter().flatten().flatten();
        let mut filter = Vec::new();
        TraceIdBloom::build(hashes.map(|hash| key(*hash))).write(&mut filter);
        Self { any: any.fold(0, |all, bit: u64| all | bit), filter: filter.into() }
    }

    /// Whether the attribute in this column may have the value with this hash.
    pub fn may_contain(&self, column: usize, hash: u64) -> bool {
        column >= u64::BITS as usize
            || self.any >> column & 1 == 1
            || TraceIdBloom::may_contain(&self.filter, &key(hash))
    }

    /// The same filter where columns have other numbers, given by the old ones. Those with a bit in `open` may
    /// have any value.
    pub fn renumbered(&self, numbers: &[usize], open: u64) -> Self {
        let was_open = numbers.iter().enumerate().filter(|(old, _)| self.any >> old & 1 == 1);
        let any = was_open.fold(open, |any, (_, new)| any | 1 << new);
        Self { any, filter: self.filter.clone() }
    }

    /// Appends the stored form.
    pub fn put(&self, out: &mut Vec<u8>) {
        put_varint(out, self.any);
        put_bytes(out, &self.filter);
    }

    /// Reads the stored form; `bytes` are those of the reader.
    pub fn read(reader: &mut Reader<'_>, bytes: &Bytes) -> Result<Self, Malformed> {
        let any = reader.varint("open columns")?;
        let length = reader.bytes("filter of values")?.len();
        let stop = reader.position();
        Ok(Self { any, filter: bytes.slice(stop - length..stop) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_is_found_under_its_name_only() {
        let a = |value| hash("a", value);
        let filter = ValueFilter::build(&[Some(vec![a(b"1"), a(b"2")]), None, Some(Vec::new())]);
        assert!(filter.may_contain(0, a(b"1")) && filter.may_contain(0, a(b"2")));
        assert!(!filter.may_contain(0, a(b"3")) && !filter.may_contain(2, hash("c", b"1")));
        assert!(filter.may_contain(1, hash("b", b"3")));
        // A column before it, and one between that nothing is known of.
        let moved = filter.renumbered(&[1, 3, 4], 1 << 2);
        assert!(moved.may_contain(1, a(b"1")) && !moved.may_contain(1, a(b"3")));
        assert!(moved.may_contain(2, a(b"3")) && moved.may_contain(3, a(b"3")));
        assert!(!moved.may_contain(0, a(b"3")) && !moved.may_contain(4, a(b"3")));
    }
}
