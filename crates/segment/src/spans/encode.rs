//! Column chunks of spans that we encode ourselves: dictionaries and codes.

use std::sync::Arc;

use arrow::{
    array::{Array, ArrayRef, AsArray, StringArray},
    datatypes::{Int32Type, UInt8Type, UInt32Type},
};
use hashbrown::HashMap;
use parquet::{column::writer::ColumnCloseResult, schema::types::ColumnDescPtr};

use super::{prepare::Values, values::MAX_VALUES};
use crate::{
    SegmentError,
    pages::{Dictionary, NONE, Pages, dictionary_chunk},
};

/// Bytes at which a dictionary of texts is given up: who reads one page reads it too.
pub(super) const DICTIONARY_BYTES: usize = 64 << 10;

/// Values of a dictionary and the codes of the rows by page.
type Encoded<T> = (Vec<T>, Vec<Vec<u32>>);

/// A column chunk that we encode ourselves.
pub(super) enum Chunk<'a> {
    Text(Vec<&'a [u8]>, Vec<Vec<u32>>),
    Numbers(Vec<u32>, Vec<Vec<u32>>),
}

/// The bytes of a leaf's chunk and what Parquet keeps about them.
pub(super) type EncodedLeaf = (bytes::Bytes, ColumnCloseResult);

impl Chunk<'_> {
    /// The chunk of one leaf.
    pub fn encode(&self, column: &ColumnDescPtr, zstd_level: i32) -> Result<EncodedLeaf, SegmentError> {
        let (dictionary, pages) = match self {
            Self::Text(values, pages) => (Dictionary::Text(values), pages),
            Self::Numbers(values, pages) => (Dictionary::Numbers(values), pages),
        };
        Ok(dictionary_chunk(column, &dictionary, Pages::Codes(pages), zstd_level)?)
    }
}

/// Whether a column has no value: all rows are null, or their lists and maps empty. Numbers are codes of texts.
pub(super) fn is_empty(array: &ArrayRef) -> bool {
    if let Some(codes) = array.as_primitive_opt::<UInt32Type>() {
        return codes.values().iter().all(|code| *code == NONE);
    }
    if let Some(map) = array.as_map_opt() {
        return map.offsets().first() == map.offsets().last();
    }
    if let Some(list) = array.as_list_opt::<i32>() {
        return list.offsets().first() == list.offsets().last();
    }
    array.null_count() == array.len()
}

/// A column without a value; `rows` by page.
pub(super) fn nulls(rows: impl Iterator<Item = u32>) -> Chunk<'static> {
    Chunk::Text(Vec::new(), rows.map(|rows| vec![NONE; rows as usize]).collect())
}

/// A column of numbers as a dictionary.
pub(super) fn numbers<'a>(pages_of: impl Iterator<Item = &'a ArrayRef>) -> Chunk<'static> {
    let (mut dictionary, mut codes) = (Vec::new(), HashMap::<u32, u32>::new());
    let mut last = None;
    let mut code = |value: u32| {
        let code = match last {
            Some((same, code)) if same == value => code,
            _ => *codes.entry(value).or_insert_with(|| {
                dictionary.push(value);
                dictionary.len() as u32 - 1
            }),
        };
        last = Some((value, code));
        code
    };
    let pages = pages_of.map(|array| {
        if let Some(small) = array.as_primitive_opt::<UInt8Type>() {
            return small.values().iter().map(|value| code(u32::from(*value))).collect();
        }
        if let Some(signed) = array.as_primitive_opt::<Int32Type>() {
            // Parquet stores their bits.
            return signed.iter().map(|value| value.map_or(NONE, |value| code(value as u32))).collect();
        }
        array.as_primitive::<UInt32Type>().values().iter().map(|value| code(*value)).collect()
    });
    let pages = pages.collect();
    Chunk::Numbers(dictionary, pages)
}

/// A column of text as a dictionary; `None` when its values are too many bytes.
pub(super) fn texts<'a>(pages_of: impl Iterator<Item = &'a ArrayRef>) -> Option<Encoded<&'a [u8]>> {
    let (mut dictionary, mut codes): (Vec<&'a [u8]>, HashMap<&'a [u8], u32>) = (Vec::new(), HashMap::new());
    let (mut pages, mut bytes) = (Vec::new(), 0);
    for array in pages_of {
        let array = array.as_string::<i32>();
        let (mut page, mut last): (Vec<u32>, Option<(&'a [u8], u32)>) =
            (Vec::with_capacity(array.len()), None);
        for value in array {
            let Some(value) = value.map(str::as_bytes) else {
                page.push(NONE);
                continue;
            };
            let code = match last {
                Some((same, code)) if same == value => code,
                _ => *codes.entry(value).or_insert_with(|| {
                    bytes += value.len() + size_of::<u32>();
                    dictionary.push(value);
                    dictionary.len() as u32 - 1
                }),
            };
            last = Some((value, code));
            page.push(code);
        }
        if bytes > DICTIONARY_BYTES {
            return None;
        }
        pages.push(page);
    }
    Some((dictionary, pages))
}

/// As [`texts`], of a column that is codes of `values`.
pub(super) fn recoded<'a, 'v>(
    pages_of: impl Iterator<Item = &'a ArrayRef>,
    values: &'v Values,
) -> Option<Encoded<&'v [u8]>> {
    let (mut dictionary, mut codes) = (Vec::new(), vec![NONE; values.len()]);
    let (mut pages, mut bytes) = (Vec::new(), 0);
    for array in pages_of {
        let code = |value: &u32| {
            let Some(code) = codes.get_mut(*value as usize) else { return NONE };
            if *code == NONE {
                let value = values[*value as usize].as_bytes();
                *code = dictionary.len() as u32;
                bytes += value.len() + size_of::<u32>();
                dictionary.push(value);
            }
            *code
        };
        pages.push(array.as_primitive::<UInt32Type>().values().iter().map(code).collect());
    }
    (bytes <= DICTIONARY_BYTES).then_some((dictionary, pages))
}

/// The texts of a column that is codes of `values`.
pub(super) fn decoded(array: &ArrayRef, values: &Values) -> ArrayRef {
    let codes = array.as_primitive::<UInt32Type>().values().iter();
    Arc::new(codes.map(|code| values.get(*code as usize)).collect::<StringArray>())
}

/// Hashes of the values of a page; `None` when they are too many.
pub(super) fn distinct(codes: &[u32], hashes: &[u64]) -> Option<Vec<u64>> {
    let mut seen = vec![false; hashes.len()];
    let mut found = Vec::new();
    for code in codes.iter().filter(|code| **code != NONE) {
        if !std::mem::replace(&mut seen[*code as usize], true) {
            found.push(hashes[*code as usize]);
            if found.len() > MAX_VALUES {
                return None;
            }
        }
    }
    Some(found)
}
