//! Measures ratio and speed of the block codec, its index and its search on a file of lines.
//!
//! `measure FILE [LEVEL] [ROWS_PER_BLOCK] [NEEDLE…]`; the file is plain text with one line per record,
//! or, when its name ends in `.lines`, records with a little-endian `u32` length before each.
//! A needle that starts with `re:` is a regular expression.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use trine_body::{Block, BlockIndex, Dictionary, Encoder, Options, Query, RowSet, Scratch, Verdict};

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let Some(path) = arguments.first() else {
        eprintln!("usage: measure FILE [LEVEL] [ROWS_PER_BLOCK] [NEEDLE…]");
        std::process::exit(2);
    };
    let level = arguments.get(1).map_or(1, |text| text.parse().expect("the level is a number"));
    let rows = arguments.get(2).map_or(8192, |text| text.parse().expect("rows per block is a number"));
    let text = std::fs::read(path).expect("the file can be read");
    let lines = split(&text, path);
    let raw: usize = lines.iter().map(|line| line.len()).sum();
    println!("{} lines, {raw} bytes", lines.len());
    let plain: Vec<u8> = lines.concat();
    for level in [1, 3] {
        let start = Clock::now();
        let size: usize =
            plain.chunks(1 << 20).map(|page| zstd::bulk::compress(page, level).unwrap().len()).sum();
        report(&format!("zstd({level}) on 1 MiB pages"), size, raw, start);
    }
    let mut encoder = Encoder::new(Options { zstd_level: level, ..Options::default() });
    let (mut data, mut blocks, mut indexes) = (Vec::new(), Vec::new(), Vec::new());
    let start = Clock::now();
    for lines in lines.chunks(rows) {
        let from = data.len();
        indexes.push(encoder.encode_block(lines.iter().copied(), &mut data));
        blocks.push(from..data.len());
    }
    report("encoded blocks", data.len(), raw, start);
    let templates = encoder.template_count();
    let dictionary = encoder.finish();
    let mut index_bytes = Vec::new();
    let mut parsed = Vec::new();
    for index in &indexes {
        let from = index_bytes.len();
        index.write(&mut index_bytes);
        parsed.push(BlockIndex::parse(&index_bytes[from..].to_vec().into()).unwrap());
    }
    println!(
        "{templates} templates, dictionary {} ({:.4}), index {} ({:.4} of raw, {:.3} of blocks), all {:.4}",
        dictionary.len(),
        dictionary.len() as f64 / raw as f64,
        index_bytes.len(),
        index_bytes.len() as f64 / raw as f64,
        index_bytes.len() as f64 / data.len() as f64,
        (data.len() + dictionary.len() + index_bytes.len()) as f64 / raw as f64
    );
    let dictionary = Arc::new(Dictionary::parse(&dictionary).unwrap());
    let mut scratch = Scratch::default();
    let (mut out, mut ends) = (Vec::new(), Vec::new());
    let start = Clock::now();
    for range in &blocks {
        out.clear();
        ends.clear();
        let block = Block::parse(&data[range.clone()]).unwrap();
        block.decode(&dictionary, None, &mut scratch, &mut out, &mut ends).unwrap();
    }
    report("rebuilt", 0, raw, start);
    for wanted in [1, 40, 400] {
        let start = Clock::now();
        for range in &blocks {
            out.clear();
            ends.clear();
            let block = Block::parse(&data[range.clone()]).unwrap();
            let step = block.rows().div_ceil(wanted);
            let some: Vec<u32> = (0..block.rows()).skip(step as usize / 2).step_by(step as usize).collect();
            block.decode(&dictionary, Some(&some), &mut scratch, &mut out, &mut ends).unwrap();
        }
        println!("{wanted} rows of each block: {:.2?}", start.elapsed());
    }
    for (range, lines) in blocks.iter().zip(lines.chunks(rows)) {
        out.clear();
        ends.clear();
        let block = Block::parse(&data[range.clone()]).unwrap();
        block.decode(&dictionary, None, &mut scratch, &mut out, &mut ends).unwrap();
        assert_eq!(ends.len(), lines.len());
        let mut from = 0;
        for (line, &end) in lines.iter().zip(&ends) {
            assert_eq!(&&out[from..end as usize], line);
            from = end as usize;
        }
    }
    for needle in arguments.iter().skip(3) {
        let query = match needle.strip_prefix("re:") {
            Some(pattern) => Query::regex(pattern).unwrap(),
            None => Query::literal(needle.as_bytes()),
        };
        let start = Clock::now();
        let prepared = query.prepare(&dictionary);
        let preparing = start.elapsed();
        let verdicts: Vec<Verdict> = parsed.iter().map(|index| prepared.block(index)).collect();
        let judging = start.elapsed().saturating_sub(preparing);
        let mut found = RowSet::default();
        let mut count = 0u64;
        for (range, (verdict, index)) in blocks.iter().zip(verdicts.iter().zip(&parsed)) {
            match verdict {
                Verdict::Never => {}
                Verdict::Always => count += u64::from(index.rows),
                Verdict::Maybe => {
                    let block = Block::parse(&data[range.clone()]).unwrap();
                    block.search(&dictionary, &prepared, None, &mut scratch, &mut found).unwrap();
                    count += u64::from(found.count());
                }
            }
        }
        let all = start.elapsed();
        let scanned = verdicts.iter().filter(|verdict| **verdict == Verdict::Maybe).count();
        let expected = lines.iter().filter(|line| query.matches(line)).count();
        println!(
            "{needle:?}: {count} rows (scan says {expected}), {scanned} of {} blocks read, {all:.2?} (prepare {preparing:.2?}, judge {judging:.2?})",
            blocks.len()
        );
        assert_eq!(count, expected as u64);
    }
}

/// CPU time of this thread where Linux tells it, else wall time: other work on the machine does not count.
#[derive(Clone, Copy)]
struct Clock(Duration);

impl Clock {
    fn now() -> Self {
        static START: std::sync::OnceLock<Instant> = std::sync::OnceLock::new();
        let told = std::fs::read_to_string("/proc/thread-self/schedstat").ok();
        let nanos = told.and_then(|text| text.split(' ').next()?.parse().ok());
        Self(nanos.map_or_else(|| START.get_or_init(Instant::now).elapsed(), Duration::from_nanos))
    }

    fn elapsed(self) -> Duration {
        Self::now().0.saturating_sub(self.0)
    }
}

fn report(what: &str, size: usize, raw: usize, start: Clock) {
    let seconds = start.elapsed().as_secs_f64();
    println!(
        "{what}: {size} bytes, {:.4} of raw, {:.0} MB/s",
        size as f64 / raw as f64,
        raw as f64 / seconds / 1e6
    );
}

fn split<'a>(text: &'a [u8], path: &str) -> Vec<&'a [u8]> {
    if std::path::Path::new(path).extension().is_none_or(|end| end != "lines") {
        return text.split(|&b| b == b'\n').map(|line| line.strip_suffix(b"\r").unwrap_or(line)).collect();
    }
    let (mut lines, mut rest) = (Vec::new(), text);
    while let Some((len, after)) = rest.split_first_chunk::<4>() {
        let (line, after) = after.split_at(u32::from_le_bytes(*len) as usize);
        lines.push(line);
        rest = after;
    }
    lines
}
