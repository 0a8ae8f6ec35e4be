//! Column chunks of spans that we encode ourselves: dictionaries and the runs of their codes.

use arrow::{
    array::{Array, ArrayRef, AsArray},
    datatypes::{UInt8Type, UInt32Type},
};
use hashbrown::HashMap;
use parquet::{column::writer::ColumnCloseResult, schema::types::ColumnDescPtr};

use super::values::MAX_VALUES;
use crate::{
    SegmentError,
    pages::{Dictionary, Run, dictionary_chunk},
    write::add_run,
};

/// Bytes at which a dictionary of texts is given up: who reads one page reads it too.
const DICTIONARY_BYTES: usize = 64 << 10;

/// Values of a dictionary and the runs of its codes by page.
type Encoded<T> = (Vec<T>, Vec<Vec<Run>>);

/// A column chunk that we encode ourselves.
pub(super) enum Chunk<'a> {
    Text(Vec<&'a [u8]>, Vec<Vec<Run>>),
    Numbers(Vec<u32>, Vec<Vec<Run>>),
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
        Ok(dictionary_chunk(column, &dictionary, pages, zstd_level)?)
    }
}

/// Whether a column has no value: all rows are null, or their lists and maps empty.
pub(super) fn is_empty(array: &ArrayRef) -> bool {
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
    Chunk::Text(Vec::new(), rows.map(|rows| vec![(None, rows)]).collect())
}

/// A column of numbers as a dictionary.
pub(super) fn numbers<'a>(pages_of: impl Iterator<Item = &'a ArrayRef>) -> Chunk<'static> {
    let (mut dictionary, mut codes) = (Vec::new(), HashMap::<u32, u32>::new());
    let mut pages = Vec::new();
    for array in pages_of {
        let (mut runs, mut last) = (Vec::new(), None);
        let mut add = |value: u32| {
            let code = match last {
                Some((same, code)) if same == value => code,
                _ => *codes.entry(value).or_insert_with(|| {
                    dictionary.push(value);
                    dictionary.len() as u32 - 1
                }),
            };
            last = Some((value, code));
            add_run(&mut runs, Some(code), 1);
        };
        match array.as_primitive_opt::<UInt8Type>() {
            Some(small) => small.values().iter().for_each(|value| add(u32::from(*value))),
            None => array.as_primitive::<UInt32Type>().values().iter().for_each(|value| add(*value)),
        }
        pages.push(runs);
    }
    Chunk::Numbers(dictionary, pages)
}

/// A column of text as a dictionary; `None` when its values are too many bytes.
pub(super) fn texts<'a>(pages_of: impl Iterator<Item = &'a ArrayRef>) -> Option<Encoded<&'a [u8]>> {
    let (mut dictionary, mut codes): (Vec<&'a [u8]>, HashMap<&'a [u8], u32>) = (Vec::new(), HashMap::new());
    let (mut pages, mut bytes) = (Vec::new(), 0);
    for array in pages_of {
        let array = array.as_string::<i32>();
        let (mut runs, mut last): (Vec<Run>, Option<(&'a [u8], u32)>) = (Vec::new(), None);
        for value in array {
            let code = value.map(|value| match last {
                Some((same, code)) if same == value.as_bytes() => code,
                _ => *codes.entry(value.as_bytes()).or_insert_with(|| {
                    bytes += value.len() + size_of::<u32>();
                    dictionary.push(value.as_bytes());
                    dictionary.len() as u32 - 1
                }),
            });
            last = value.map(str::as_bytes).zip(code).or(last);
            add_run(&mut runs, code, 1);
        }
        if bytes > DICTIONARY_BYTES {
            return None;
        }
        pages.push(runs);
    }
    Some((dictionary, pages))
}

/// Hashes of the values of a page; `None` when they are too many.
pub(super) fn distinct(runs: &[Run], hashes: &[u64]) -> Option<Vec<u64>> {
    let mut seen = vec![false; hashes.len()];
    let mut found = Vec::new();
    for code in runs.iter().filter_map(|(code, _)| *code) {
        if !std::mem::replace(&mut seen[code as usize], true) {
            found.push(hashes[code as usize]);
            if found.len() > MAX_VALUES {
                return None;
            }
        }
    }
    Some(found)
}
