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

/// Appends levels with their length before them, as data page v1 wants.
fn put_levels(out: &mut Vec<u8>, runs: impl Iterator<Item = (u32, u32)>, max_level: i16) {
    let start = out.len();
    out.extend_from_slice(&[0; 4]);
    put_hybrid(out, runs, u16::BITS - max_level.leading_zeros());
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

/// Encodes one column chunk. Each item of `pages` is the runs of one data page. For a column inside
/// a map all runs must be null: the maps are then empty.
pub fn dictionary_chunk(
    column: &ColumnDescPtr,
    dictionary: &Dictionary<'_>,
    pages: &[Vec<Run>],
    zstd_level: i32,
) -> Result<(Bytes, ColumnCloseResult)> {
    let (count, statistics, nulls) = (entries(dictionary), extremes(dictionary), null_count(pages));
    let all_null = count == 0;
    let bits = u32::BITS - (count.max(2) as u32 - 1).leading_zeros();
    let mut plain: Vec<Vec<u8>> = pages.iter().map(|runs| data_page(column, runs, bits, all_null)).collect();
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
    for (runs, (page, length)) in pages.iter().zip(stored) {
        let rows: u32 = runs.iter().map(|(_, count)| count).sum();
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
fn data_page(column: &ColumnDescPtr, runs: &[Run], bits: u32, all_null: bool) -> Vec<u8> {
    let mut page = Vec::new();
    let rows: u32 = runs.iter().map(|(_, count)| count).sum();
    if column.max_rep_level() > 0 {
        put_levels(&mut page, std::iter::once((0, rows)), column.max_rep_level());
    }
    if column.max_def_level() > 0 {
        let levels = merged(runs.iter().map(|(code, count)| (u32::from(code.is_some()), *count)));
        put_levels(&mut page, levels, column.max_def_level());
    }
    if !all_null {
        page.push(bits as u8);
        let codes = runs.iter().filter_map(|(code, count)| code.map(|code| (code, *count)));
        put_hybrid(&mut page, merged(codes), bits);
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

fn null_count(pages: &[Vec<Run>]) -> u64 {
    pages.iter().flatten().filter(|(code, _)| code.is_none()).map(|(_, count)| u64::from(*count)).sum()
}
