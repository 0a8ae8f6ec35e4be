//! Blocks of segments: bytes that nobody wrote, and what was written comes back.

use std::sync::Arc;

use trine_body::{Block as BodyBlock, BlockIndex, Dictionary, Encoder, Options, Query, RowSet, Scratch};
use trine_chunks::{Block, BlockWriter, Part, join, merge};
use trine_schema::NativeHistogram;

use crate::NOW_NS;

/// Reads a block of samples that nobody wrote.
pub(crate) fn chunks(bytes: &[u8]) {
    let Ok(block) = Block::parse(bytes) else { return };
    let read = block.reader().all(&(i64::MIN..=i64::MAX), |run| {
        assert!(run.columns().all(|column| column.len() == run.times.len()));
    });
    let numbers: Vec<u32> = (0..block.series().min(1 << 16)).collect();
    let parts = [Part { block, series: &numbers }];
    if join(&parts).is_ok() && read.is_ok() {
        let _ = merge(&parts);
    }
}

/// Values with these bits come back with these bits.
pub(crate) fn chunk_values(bytes: &[u8]) {
    let values: Vec<f64> =
        bytes.chunks_exact(8).map(|eight| f64::from_le_bytes(eight.try_into().unwrap())).collect();
    let times: Vec<i64> = (0..values.len() as i64).map(|i| NOW_NS + i * i).collect();
    let mut writer = BlockWriter::new();
    if writer.push(0, &times, &values).is_err() {
        return;
    }
    let block = writer.finish();
    let mut reader = Block::parse(&block).expect("a block that was just written").reader();
    let (mut read_times, mut read) = (Vec::new(), Vec::new());
    reader
        .series(0, &(i64::MIN..=i64::MAX), &mut read_times, &mut read)
        .expect("a series that was just written");
    assert_eq!(read_times, times);
    assert!(read.iter().map(|value| value.to_bits()).eq(values.iter().map(|value| value.to_bits())));
}

/// Lines of a block, its dictionary and its index, each behind its length in two bytes.
pub(crate) fn encoded_lines(text: &[u8]) -> Vec<u8> {
    let mut encoder = Encoder::new(Options::default());
    let (mut block, mut index) = (Vec::new(), Vec::new());
    encoder.encode_block(text.split(|byte| *byte == b'\n'), &mut block).write(&mut index);
    let parts = [encoder.finish(), block, index];
    parts.iter().flat_map(|part| [&(part.len() as u16).to_le_bytes()[..], part].concat()).collect()
}

/// Reads a dictionary, a block of bodies and its index that nobody wrote.
pub(crate) fn body_block(bytes: &[u8]) {
    let mut rest = bytes;
    let mut part = || {
        let (length, behind) = rest.split_first_chunk::<2>()?;
        let (part, behind) = behind.split_at_checked(u16::from_le_bytes(*length).into())?;
        rest = behind;
        Some(part)
    };
    let (Some(dictionary), Some(block), Some(index)) = (part(), part(), part()) else { return };
    let Ok(dictionary) = Dictionary::parse(dictionary).map(Arc::new) else { return };
    (0..dictionary.len().min(64) as u32).for_each(|id| _ = dictionary.pattern(id));
    let queries = [Query::literal(b"request 7"), Query::regex("r.*[0-9]7").expect("an expression")];
    let queries = queries.map(|query| query.prepare(&dictionary));
    if let Ok(index) = BlockIndex::parse(&index.to_vec().into()) {
        queries.iter().for_each(|query| _ = query.block(&index));
    }
    let Ok(block) = BodyBlock::parse(block) else { return };
    let (mut scratch, mut out, mut ends) = (Scratch::default(), Vec::new(), Vec::new());
    if block.decode(&dictionary, None, &mut scratch, &mut out, &mut ends).is_ok() {
        assert_eq!(ends.len(), block.rows() as usize);
    }
    let some: Vec<u32> = (0..block.rows().min(100)).step_by(7).collect();
    let _ = block.decode(&dictionary, Some(&some), &mut scratch, &mut Vec::new(), &mut Vec::new());
    let mut found = RowSet::default();
    queries.iter().for_each(|query| _ = block.search(&dictionary, query, None, &mut scratch, &mut found));
}

/// Lines come back byte for byte.
pub(crate) fn body_lines(text: &[u8]) {
    let lines = || text.split(|byte| *byte == b'\n');
    let mut encoder = Encoder::new(Options::default());
    let mut block = Vec::new();
    encoder.encode_block(lines(), &mut block);
    let dictionary = Arc::new(Dictionary::parse(&encoder.finish()).expect("a dictionary just written"));
    let (mut out, mut ends) = (Vec::new(), Vec::new());
    let block = BodyBlock::parse(&block).expect("a block just written");
    block
        .decode(&dictionary, None, &mut Scratch::default(), &mut out, &mut ends)
        .expect("lines just written");
    assert_eq!(ends.len(), lines().count());
    let mut start = 0;
    for (line, end) in lines().zip(ends) {
        assert_eq!(&out[start..end as usize], line);
        start = end as usize;
    }
}

/// A histogram that is read is written as the same bytes.
pub(crate) fn native_histogram(bytes: &[u8]) {
    if let Some(histogram) = NativeHistogram::from_bytes(bytes) {
        assert_eq!(histogram.to_bytes(), bytes);
    }
}
