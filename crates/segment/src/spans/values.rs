//! Which values the attributes of a granule may have.

use bytes::Bytes;
use trine_body::TraceIdBloom;
use xxhash_rust::xxh3::xxh3_64;

use crate::codec::{Malformed, Reader, put_bytes, put_varint};

/// A column with more values than this in a granule is left out of the filter: it may have any value.
pub const MAX_VALUES: usize = 256;

/// A filter over pairs of an attribute's column and a value.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ValueFilter {
    /// A bit per column that may have any value.
    any: u64,
    filter: Bytes,
}

/// Hash of a value for a [`ValueFilter`].
pub fn hash(value: &[u8]) -> u64 {
    xxh3_64(value)
}

fn key(column: usize, hash: u64) -> [u8; 16] {
    let mut key = [0; 16];
    key[..8].copy_from_slice(&hash.to_le_bytes());
    key[8..].copy_from_slice(&(column as u64).to_le_bytes());
    key
}

impl ValueFilter {
    /// Of the hashes of the values of each column; `None` for a column that may have any.
    pub fn build(columns: &[Option<Vec<u64>>]) -> Self {
        let columns = || columns.iter().enumerate();
        let any = columns().filter(|(_, hashes)| hashes.is_none()).map(|(column, _)| 1 << column);
        let pairs = columns().flat_map(|(column, hashes)| hashes.iter().flatten().map(move |h| (column, *h)));
        let mut filter = Vec::new();
        TraceIdBloom::build(pairs.map(|(column, hash)| key(column, hash))).write(&mut filter);
        Self { any: any.fold(0, |all, bit: u64| all | bit), filter: filter.into() }
    }

    /// Whether the attribute in this column may have the value with this hash.
    pub fn may_contain(&self, column: usize, hash: u64) -> bool {
        column >= u64::BITS as usize
            || self.any >> column & 1 == 1
            || TraceIdBloom::may_contain(&self.filter, &key(column, hash))
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
    fn a_value_is_found_in_its_column_only() {
        let filter = ValueFilter::build(&[Some(vec![hash(b"a"), hash(b"b")]), None, Some(Vec::new())]);
        assert!(filter.may_contain(0, hash(b"a")) && filter.may_contain(0, hash(b"b")));
        assert!(!filter.may_contain(0, hash(b"c")) && !filter.may_contain(2, hash(b"a")));
        assert!(filter.may_contain(1, hash(b"c")));
    }
}
