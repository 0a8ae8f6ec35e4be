//! Column chunks that we encode ourselves: dictionary columns given as runs of codes.
//!
//! Tenant, service, labels and most small columns are constant over thousands of rows. Parquet's
//! generic writer hashes every value (about 25 ns per row and column); writing the run-length
//! encoded pages directly costs a few bytes per run. Layout: Parquet data page v1, RLE_DICTIONARY
//! (<https://parquet.apache.org/docs/file-format/data-pages/encodings/>).

use bytes::Bytes;
use parquet::{
    basic::{Compression, Encoding, PageType, ZstdLevel},
    column::{
        page::{CompressedPage, Page, PageWriter as _},
        writer::ColumnCloseResult,
    },
    data_type::ByteArray,
    errors::Result,
    file::{
        metadata::{ColumnChunkMetaData, OffsetIndexBuilder},
        statistics::{Statistics, ValueStatistics},
        writer::{SerializedPageWriter, TrackedWrite},
    },
    schema::types::ColumnDescPtr,
};

use crate::codec::put_varint;

/// Values of a dictionary, in order of code.
pub enum Dictionary<'a> {
    /// Text.
    Text(&'a [&'a [u8]]),
    /// Values of one length.
    Fixed(&'a [&'a [u8]]),
    /// Numbers of a 32-bit column.
    Numbers(&'a [u32]),
}

/// Chunks are compressed when that saves one byte of so many.
const WORTH_COMPRESSING: usize = 8;

/// A value (`None` is null) and how many rows it stands in.
pub type Run = (Option<u32>, u32);

/// The code of a row without a value.
pub const NONE: u32 = u32::MAX;

/// The data pages of a chunk.
#[derive(Clone, Copy)]
pub enum Pages<'a> {
    /// Of values that stand in many rows.
    Runs(&'a [Vec<Run>]),
    /// A code, or [`NONE`], per row.
    Codes(&'a [Vec<u32>]),
}

/// One of [`Pages`].
#[derive(Clone, Copy)]
enum PageRows<'a> {
    Runs(&'a [Run]),
    Codes(&'a [u32]),
}

impl<'a> Pages<'a> {
    fn iter(self) -> impl Iterator<Item = PageRows<'a>> {
        let (runs, codes) = match self {
            Self::Runs(pages) => (pages, &[][..]),
            Self::Codes(pages) => (&[][..], pages),
        };
        let runs = runs.iter().map(|page| PageRows::Runs(page));
        runs.chain(codes.iter().map(|page| PageRows::Codes(page)))
    }
}

impl PageRows<'_> {
    fn rows(self) -> u32 {
        match self {
            Self::Runs(runs) => runs.iter().map(|(_, count)| count).sum(),
            Self::Codes(codes) => codes.len() as u32,
        }
    }

    fn nulls(self) -> u64 {
        match self {
            Self::Runs(runs) => {
                let nulls = runs.iter().filter(|(code, _)| code.is_none());
                nulls.map(|(_, count)| u64::from(*count)).sum()
            }
            Self::Codes(codes) => codes.iter().filter(|code| **code == NONE).count() as u64,
        }
    }
}

/// Appends runs of numbers in Parquet's hybrid of run-length and bit-packed encoding.
fn put_hybrid(out: &mut Vec<u8>, runs: impl Iterator<Item = (u32, u32)>, bits: u32) {
    let mut literal: Vec<u32> = Vec::new();
    let flush = |literal: &mut Vec<u32>, out: &mut Vec<u8>| {
        if literal.is_empty() {
            return;
        }
        literal.resize(literal.len().next_multiple_of(8), 0);
        put_varint(out, (literal.len() as u64 / 8) << 1 | 1);
        let (mut buffer, mut filled) = (0u64, 0);
        for value in literal.drain(..) {
            buffer |= u64::from(value) << filled;
            filled += bits;
            while filled >= 8 {
                out.push(buffer as u8);
                buffer >>= 8;
                filled -= 8;
            }
        }
    };
    for (value, mut count) in runs {
        let open = literal.len() % 8;
        if open > 0 {
            let fill = count.min(8 - open as u32);
            literal.extend(std::iter::repeat_n(value, fill as usize));
            count -= fill;
        }
        if count >= 8 {
            flush(&mut literal, out);
            put_varint(out, u64::from(count) << 1);
            out.extend_from_slice(&value.to_le_bytes()[..bits.div_ceil(8) as usize]);
        } else {
            literal.extend(std::iter::repeat_n(value, count as usize));
        }
    }
    flush(&mut literal, out);
}

/// As [`put_hybrid`], of a number per row. Runs are looked for where a group of eight begins.
fn put_hybrid_rows(out: &mut Vec<u8>, rows: &[u32], bits: u32) {
    const GROUP: usize = 8;
    let pack = |out: &mut Vec<u8>, literal: &[u32]| {
        if literal.is_empty() {
            return;
        }
        let groups = literal.len().div_ceil(GROUP);
        put_varint(out, (groups as u64) << 1 | 1);
        let end = out.len() + groups * bits as usize;
        out.reserve(groups * bits as usize + 4);
        let (mut buffer, mut filled) = (0u64, 0);
        for value in literal {
            buffer |= u64::from(*value) << filled;
            filled += bits;
            if filled >= u32::BITS {
                out.extend_from_slice(&(buffer as u32).to_le_bytes());
                buffer >>= u32::BITS;
                filled -= u32::BITS;
            }
        }
        out.extend_from_slice(&(buffer as u32).to_le_bytes());
        out.resize(end, 0);
    };
    let (mut start, mut at) = (0, 0);
    while at < rows.len() {
        let value = rows[at];
        let group = &rows[at..rows.len().min(at + GROUP)];
        if group.len() < GROUP || group.iter().any(|other| *other != value) {
            at += group.len();
            continue;
        }
        pack(out, &rows[start..at]);
        let count = rows[at..].iter().take_while(|other| **other == value).count();
        put_varint(out, (count as u64) << 1);
        out.extend_from_slice(&value.to_le_bytes()[..bits.div_ceil(8) as usize]);
        at += count;
        start = at;
    }
    pack(out, &rows[start..]);
}

/// Appends levels with their length before them, as data page v1 wants.
fn put_levels(out: &mut Vec<u8>, max_level: i16, put: impl FnOnce(&mut Vec<u8>, u32)) {
    let start = out.len();
    out.extend_from_slice(&[0; 4]);
    put(out, u16::BITS - max_level.leading_zeros());
    let length = (out.len() - start - 4) as u32;
    out[start..start + 4].copy_from_slice(&length.to_le_bytes());
}

/// Joins equal neighbours.
fn merged(runs: impl Iterator<Item = (u32, u32)>) -> impl Iterator<Item = (u32, u32)> {
    let mut runs = runs.peekable();
    std::iter::from_fn(move || {
        let (value, mut count) = runs.next()?;
        while let Some((_, more)) = runs.next_if(|(next, _)| *next == value) {
            count += more;
        }
        Some((value, count))
    })
}

/// Encodes one column chunk. For a column inside a map all rows must be null: the maps are then empty.
pub fn dictionary_chunk(
    column: &ColumnDescPtr,
    dictionary: &Dictionary<'_>,
    pages: Pages<'_>,
    zstd_level: i32,
) -> Result<(Bytes, ColumnCloseResult)> {
    let (count, statistics) = (entries(dictionary), extremes(dictionary));
    let nulls = pages.iter().map(PageRows::nulls).sum();
    let all_null = count == 0;
    let bits = u32::BITS - (count.max(2) as u32 - 1).leading_zeros();
    let mut plain: Vec<Vec<u8>> = pages.iter().map(|page| data_page(column, page, bits, all_null)).collect();
    if !all_null {
        plain.insert(0, plain_dictionary(dictionary));
    }
    let mut compressor = zstd::bulk::Compressor::new(zstd_level)?;
    let packed = plain.iter().map(|page| compressor.compress(page)).collect::<std::io::Result<Vec<_>>>()?;
    let lengths = |pages: &[Vec<u8>]| pages.iter().map(Vec::len).sum::<usize>();
    // Where compression saves next to nothing, readers are spared it.
    let compressed = lengths(&packed) * WORTH_COMPRESSING < lengths(&plain) * (WORTH_COMPRESSING - 1);
    let plain_lengths: Vec<usize> = plain.iter().map(Vec::len).collect();
    let mut stored = if compressed { packed } else { plain }.into_iter().zip(plain_lengths);

    let mut sink = TrackedWrite::new(Vec::new());
    let mut writer = SerializedPageWriter::new(&mut sink);
    let (mut compressed_total, mut uncompressed_total, mut rows_total) = (0u64, 0u64, 0u64);
    let mut dictionary_offset = None;
    if let Some((page, length)) = if all_null { None } else { stored.next() } {
        let page = Page::DictionaryPage {
            buf: Bytes::from(page),
            num_values: count as u32,
            encoding: Encoding::PLAIN,
            is_sorted: false,
        };
        let spec = writer.write_page(CompressedPage::new(page, length))?;
        debug_assert_eq!(spec.page_type, PageType::DICTIONARY_PAGE);
        dictionary_offset = Some(spec.offset as i64);
        compressed_total += spec.compressed_size as u64;
        uncompressed_total += spec.uncompressed_size as u64;
    }
    let encoding = if all_null { Encoding::PLAIN } else { Encoding::RLE_DICTIONARY };
    let mut data_offset = None;
    let mut offsets = OffsetIndexBuilder::new();
    for (rows, (page, length)) in pages.iter().map(PageRows::rows).zip(stored) {
        let page = Page::DataPage {
            buf: Bytes::from(page),
            num_values: rows,
            encoding,
            def_level_encoding: Encoding::RLE,
            rep_level_encoding: Encoding::RLE,
            statistics: None,
        };
        let spec = writer.write_page(CompressedPage::new(page, length))?;
        data_offset.get_or_insert(spec.offset as i64);
        offsets.append_row_count(i64::from(rows));
        offsets.append_offset_and_size(spec.offset as i64, spec.compressed_size as i32);
        compressed_total += spec.compressed_size as u64;
        uncompressed_total += spec.uncompressed_size as u64;
        rows_total += u64::from(rows);
    }

    let mut encodings = vec![Encoding::RLE, Encoding::PLAIN];
    if !all_null {
        encodings.push(Encoding::RLE_DICTIONARY);
    }
    let codec = if compressed {
        Compression::ZSTD(ZstdLevel::try_new(zstd_level)?)
    } else {
        Compression::UNCOMPRESSED
    };
    let mut metadata = ColumnChunkMetaData::builder(column.clone())
        .set_compression(codec)
        .set_encodings(encodings)
        .set_num_values(rows_total as i64)
        .set_total_compressed_size(compressed_total as i64)
        .set_total_uncompressed_size(uncompressed_total as i64)
        .set_data_page_offset(data_offset.unwrap_or_default())
        .set_dictionary_page_offset(dictionary_offset);
    if let Some((min, max)) = statistics {
        let values = ValueStatistics::new(Some(min), Some(max), None, Some(nulls), false);
        metadata = metadata.set_statistics(Statistics::ByteArray(values));
    }
    let close = ColumnCloseResult {
        bytes_written: compressed_total,
        rows_written: rows_total,
        metadata: metadata.build()?,
        bloom_filter: None,
        column_index: None,
        offset_index: Some(offsets.build()),
    };
    Ok((Bytes::from(sink.into_inner()?), close))
}

/// One data page before compression.
fn data_page(column: &ColumnDescPtr, rows: PageRows<'_>, bits: u32, all_null: bool) -> Vec<u8> {
    let mut page = Vec::new();
    let one_run = |level: u32| std::iter::once((level, rows.rows()));
    if column.max_rep_level() > 0 {
        put_levels(&mut page, column.max_rep_level(), |out, bits| put_hybrid(out, one_run(0), bits));
    }
    let nulls = rows.nulls();
    if column.max_def_level() > 0 {
        put_levels(&mut page, column.max_def_level(), |out, bits| match rows {
            PageRows::Runs(runs) => {
                let levels = merged(runs.iter().map(|(code, count)| (u32::from(code.is_some()), *count)));
                put_hybrid(out, levels, bits);
            }
            PageRows::Codes(_) if nulls == 0 || all_null => {
                put_hybrid(out, one_run(u32::from(nulls == 0)), bits);
            }
            PageRows::Codes(codes) => {
                let levels: Vec<u32> = codes.iter().map(|code| u32::from(*code != NONE)).collect();
                put_hybrid_rows(out, &levels, bits);
            }
        });
    }
    if !all_null {
        page.push(bits as u8);
        match rows {
            PageRows::Runs(runs) => {
                let codes = runs.iter().filter_map(|(code, count)| code.map(|code| (code, *count)));
                put_hybrid(&mut page, merged(codes), bits);
            }
            PageRows::Codes(codes) if nulls == 0 => put_hybrid_rows(&mut page, codes, bits),
            PageRows::Codes(codes) => {
                let codes: Vec<u32> = codes.iter().copied().filter(|code| *code != NONE).collect();
                put_hybrid_rows(&mut page, &codes, bits);
            }
        }
    }
    page
}

fn entries(dictionary: &Dictionary<'_>) -> usize {
    match dictionary {
        Dictionary::Text(values) | Dictionary::Fixed(values) => values.len(),
        Dictionary::Numbers(values) => values.len(),
    }
}

fn plain_dictionary(dictionary: &Dictionary<'_>) -> Vec<u8> {
    let mut plain = Vec::new();
    match dictionary {
        Dictionary::Text(values) => values.iter().for_each(|value| {
            plain.extend_from_slice(&(value.len() as u32).to_le_bytes());
            plain.extend_from_slice(value);
        }),
        Dictionary::Fixed(values) => values.iter().for_each(|value| plain.extend_from_slice(value)),
        Dictionary::Numbers(values) => {
            values.iter().for_each(|value| plain.extend_from_slice(&value.to_le_bytes()));
        }
    }
    plain
}

/// Least and greatest text, which lets other engines skip a row group.
fn extremes(dictionary: &Dictionary<'_>) -> Option<(ByteArray, ByteArray)> {
    let Dictionary::Text(values) = dictionary else { return None };
    let (min, max) = (values.iter().min()?, values.iter().max()?);
    Some((ByteArray::from(min.to_vec()), ByteArray::from(max.to_vec())))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Reads what [`put_hybrid_rows`] wrote, as Parquet's specification says.
    fn read_hybrid(bytes: &[u8], bits: u32) -> Vec<u32> {
        let (mut rows, mut at) = (Vec::new(), 0);
        while at < bytes.len() {
            let (mut head, mut shift) = (0u64, 0);
            loop {
                head |= u64::from(bytes[at] & 0x7f) << shift;
                at += 1;
                if bytes[at - 1] < 0x80 {
                    break;
                }
                shift += 7;
            }
            let width = bits.div_ceil(8) as usize;
            if head & 1 == 0 {
                let mut value = [0; 4];
                value[..width].copy_from_slice(&bytes[at..at + width]);
                at += width;
                rows.extend(std::iter::repeat_n(u32::from_le_bytes(value), (head >> 1) as usize));
            } else {
                let values = (head >> 1) as usize * 8;
                let bit = |n: usize| u32::from(bytes[at + n / 8] >> (n % 8) & 1);
                let value =
                    |n: usize| (0..bits as usize).map(|b| bit(n * bits as usize + b) << b).sum::<u32>();
                rows.extend((0..values).map(value));
                at += values * bits as usize / 8;
            }
        }
        rows
    }

    #[test]
    fn rows_come_back_from_runs_and_packed_groups() {
        for bits in [1, 3, 8, 13, 20] {
            for rows in [0usize, 1, 7, 8, 9, 64, 100, 4_096] {
                for run in [1usize, 3, 8, 20, 5_000] {
                    let mixed = |row: usize| ((row / run) as u32).wrapping_mul(0x9e37_79b9) >> (32 - bits);
                    let codes: Vec<u32> = (0..rows).map(mixed).collect();
                    let mut bytes = Vec::new();
                    put_hybrid_rows(&mut bytes, &codes, bits);
                    let back = read_hybrid(&bytes, bits);
                    assert_eq!(back[..rows], codes, "{rows} rows in runs of {run}, {bits} bits");
                    assert!(back.len() < rows + 8 && (run < rows || rows < 8 || bytes.len() < 8));
                }
            }
        }
    }
}
