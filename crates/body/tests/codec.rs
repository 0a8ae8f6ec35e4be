//! Guarantees of the crate as its users see it: what is encoded comes back, search finds what a scan
//! finds, and damaged bytes are an error and never a panic.

mod lines;

use std::sync::Arc;

use lines::{Random, hostile, made_up, real};
use trine_body::{
    Block, BlockIndex, Dictionary, DictionaryMerger, Encoder, Options, Query, RowSet, Scratch, Verdict,
    renumber_block,
};

struct Encoded {
    dictionary: Vec<u8>,
    blocks: Vec<Vec<u8>>,
    indexes: Vec<BlockIndex>,
}

fn encode(lines: &[Vec<u8>], rows: usize, options: Options) -> Encoded {
    let mut encoder = Encoder::new(options);
    let (mut blocks, mut indexes) = (Vec::new(), Vec::new());
    for lines in lines.chunks(rows) {
        let mut block = Vec::new();
        let index = encoder.encode_block(lines.iter().map(Vec::as_slice), &mut block);
        let mut bytes = Vec::new();
        index.write(&mut bytes);
        assert_eq!(BlockIndex::parse(&bytes.into()).unwrap(), index);
        blocks.push(block);
        indexes.push(index);
    }
    Encoded { dictionary: encoder.finish(), blocks, indexes }
}

fn split(out: &[u8], ends: &[i32]) -> Vec<Vec<u8>> {
    let mut start = 0;
    let line = |&end: &i32| out[std::mem::replace(&mut start, end as usize)..end as usize].to_vec();
    ends.iter().map(line).collect()
}

fn check_round_trip(lines: &[Vec<u8>], rows: usize, options: Options) {
    let encoded = encode(lines, rows, options);
    let dictionary = Arc::new(Dictionary::parse(&encoded.dictionary).unwrap());
    let mut scratch = Scratch::default();
    let mut random = Random(lines.len() as u64);
    for ((block, index), lines) in encoded.blocks.iter().zip(&encoded.indexes).zip(lines.chunks(rows)) {
        let block = Block::parse(block).unwrap();
        assert_eq!(block.rows() as usize, lines.len());
        let (mut out, mut ends) = (Vec::new(), Vec::new());
        block.decode(&dictionary, None, &mut scratch, &mut out, &mut ends).unwrap();
        assert_eq!(split(&out, &ends), lines);
        let all = 0..lines.len() as u32;
        for some in [
            all.clone().filter(|row| row % 7 == 3 || row % 64 == 0).collect(),
            all.clone().filter(|row| row % 64 != 5).collect(),
            all.clone().filter(|_| random.below(lines.len()) < 40).collect(),
            vec![random.below(lines.len()) as u32],
            vec![lines.len() as u32 - 1],
            all.collect(),
            Vec::new(),
        ] {
            (out, ends) = (Vec::new(), Vec::new());
            block.decode(&dictionary, Some(&some), &mut scratch, &mut out, &mut ends).unwrap();
            let expected: Vec<Vec<u8>> = some.iter().map(|&row| lines[row as usize].clone()).collect();
            assert!(split(&out, &ends) == expected, "{some:?} of {rows} rows");
        }
        let past_end = block.decode(&dictionary, Some(&[block.rows()]), &mut scratch, &mut out, &mut ends);
        assert!(past_end.is_err());
        let mut ids = Vec::new();
        block.template_ids(&mut scratch, &mut ids).unwrap();
        for &(template, rows) in &index.templates {
            assert_eq!(ids.iter().filter(|id| **id == template).count(), rows as usize);
            assert!(dictionary.pattern(template).is_some());
        }
    }
}

#[test]
fn lines_come_back_byte_for_byte() {
    let mut random = Random(1);
    let options = Options::default();
    check_round_trip(&made_up(20_000, &mut random), 8192, options);
    check_round_trip(&made_up(500, &mut random), 7, options);
    check_round_trip(&hostile(20_000, &mut random), 3000, options);
    check_round_trip(&hostile(3000, &mut random), 3000, Options { max_templates: 5, zstd_level: 3 });
    check_round_trip(&real(), 8192, options);
    check_round_trip(&[vec![b'x'; 10 << 20], Vec::new(), b"1".repeat(10 << 20)], 8192, options);
    check_round_trip(&[vec![b'a'; 70]], 1, options);
    assert!(Block::parse(&encode(&[Vec::new()], 1, options).blocks[0]).unwrap().rows() == 1);
}

/// Checks one query on all blocks against a scan; how many blocks the index let pass.
fn check_search(
    lines: &[Vec<u8>],
    rows: usize,
    encoded: &Encoded,
    dictionary: &Arc<Dictionary>,
    query: &Query,
    name: &str,
) -> usize {
    let prepared = query.prepare(dictionary);
    let mut scratch = Scratch::default();
    let mut found = RowSet::default();
    let mut read = 0;
    for ((block, index), lines) in encoded.blocks.iter().zip(&encoded.indexes).zip(lines.chunks(rows)) {
        let expected: Vec<u32> =
            (0..lines.len() as u32).filter(|&row| query.matches(&lines[row as usize])).collect();
        let block = Block::parse(block).unwrap();
        block.search(dictionary, &prepared, None, &mut scratch, &mut found).unwrap();
        assert_eq!(found.iter().collect::<Vec<_>>(), expected, "{name}");
        match prepared.block(index) {
            Verdict::Always => assert_eq!(expected.len(), lines.len(), "{name}"),
            Verdict::Never => assert!(expected.is_empty(), "{name}"),
            Verdict::Maybe => read += 1,
        }
        let mut within = RowSet::new(lines.len() as u32);
        (0..lines.len() as u32).filter(|row| row % 3 == 1).for_each(|row| within.insert(row));
        block.search(dictionary, &prepared, Some(&within), &mut scratch, &mut found).unwrap();
        let expected: Vec<u32> = expected.into_iter().filter(|row| row % 3 == 1).collect();
        assert_eq!(found.iter().collect::<Vec<_>>(), expected, "{name} within");
    }
    read
}

#[test]
fn search_finds_what_a_scan_finds() {
    let mut random = Random(2);
    let mut sets = vec![(made_up(3000, &mut random), 1000), (hostile(2000, &mut random), 500)];
    let mut real = real();
    // Every fifth stretch of lines keeps all systems in and the test short.
    real = real.chunks(100).step_by(5).flatten().cloned().collect();
    if !real.is_empty() {
        sets.push((real, 1500));
    }
    for (lines, rows) in sets {
        let encoded = encode(&lines, rows, Options::default());
        let dictionary = Arc::new(Dictionary::parse(&encoded.dictionary).unwrap());
        for round in 0..250 {
            let line = random.pick(&lines).clone();
            let start = random.below(line.len() + 1);
            let mut needle = line[start..start + random.below(line.len() - start + 1).min(40)].to_vec();
            if round % 5 == 4 && !needle.is_empty() {
                let at = random.below(needle.len());
                needle[at] ^= 1 << random.below(5);
            }
            let name = String::from_utf8_lossy(&needle).into_owned();
            check_search(&lines, rows, &encoded, &dictionary, &Query::literal(&needle), &name);
            if round % 3 == 0 {
                let pattern = pattern_of(&needle, &mut random);
                if let Ok(query) = Query::regex(&pattern) {
                    check_search(&lines, rows, &encoded, &dictionary, &query, &pattern);
                }
            }
        }
        for pattern in [
            "^$",
            "",
            r"\d{4,}$",
            "^2026",
            "(?i)INFO",
            r"(alice|bob) by",
            r"\bblk_-?\d+ term",
            "^p.*e$",
            "x{0}",
            "[0-9a-f]{8}-",
            "allo.y",
            "(root|zo.) by",
            "PacketRe.p",
            "[a-z]q by",
            "mall|oot",
        ] {
            check_search(&lines, rows, &encoded, &dictionary, &Query::regex(pattern).unwrap(), pattern);
        }
    }
}

/// A regular expression that the needle matches, mostly.
#[allow(clippy::format_push_string)]
fn pattern_of(needle: &[u8], random: &mut Random) -> String {
    let mut pattern = String::new();
    for c in String::from_utf8_lossy(needle).chars() {
        match random.below(8) {
            0 => pattern.push('.'),
            1 if c.is_ascii_digit() => pattern.push_str(r"\d+"),
            2 => pattern.push_str(&format!("(?:{}|zz)", regex_syntax::escape(&c.to_string()))),
            3 => pattern.push_str(&format!("(?i:{})", regex_syntax::escape(&c.to_string()))),
            _ => pattern.push_str(&regex_syntax::escape(&c.to_string())),
        }
    }
    pattern
}

#[test]
fn a_rare_id_passes_nearly_all_blocks_by() {
    let mut random = Random(9);
    let lines: Vec<Vec<u8>> = (0..16_000)
        .map(|i| {
            let (a, b) = (random.next(), random.next());
            format!(
                "12:00:{:02} req-{:08x}-{:04x} trace {a:016x}{b:016x} block blk_{} done in {} ms",
                i % 60,
                a as u32,
                b as u16,
                (a ^ b) >> 1,
                b % 900
            )
            .into_bytes()
        })
        .collect();
    let rows = 500;
    let encoded = encode(&lines, rows, Options::default());
    let dictionary = Arc::new(Dictionary::parse(&encoded.dictionary).unwrap());
    let mut read = 0;
    for line in lines.iter().step_by(997) {
        let text = std::str::from_utf8(line).unwrap();
        let words: Vec<&str> = text.split(' ').collect();
        // The request's whole id, the bare trace id, the block's id with and without what follows.
        for needle in [words[1], words[3], words[5], &format!("block {} done", words[5])] {
            read +=
                check_search(&lines, rows, &encoded, &dictionary, &Query::literal(needle.as_bytes()), needle);
        }
    }
    // A word that no line has, although variables hold letters.
    read += check_search(&lines, rows, &encoded, &dictionary, &Query::literal(b"zyxomma"), "zyxomma");
    // Each needle stands in one block; of the others, at most 5 % may be read in vain.
    let needles = lines.iter().step_by(997).count() * 4;
    let others = needles * (encoded.blocks.len() - 1);
    let in_vain = read - needles;
    assert!(in_vain * 100 <= others * 5, "{in_vain} of {others} blocks were read in vain");
}

/// Lines with more variables than a plan tells apart: a word in none of them, or in a late one, is still
/// decided by the grams.
#[test]
fn a_word_is_decided_where_lines_have_many_variables() {
    let mut random = Random(11);
    let line = |i: usize, random: &mut Random| {
        let ids: Vec<String> = (0..90).map(|_| format!("blk_{}", random.next() >> 20)).collect();
        let late = if i == 700 { "7quixotic" } else { "part-7" };
        format!("ask {}:50010 to delete {} and {late}", random.below(256), ids.join(" ")).into_bytes()
    };
    let lines: Vec<Vec<u8>> = (0..1000).map(|i| line(i, &mut random)).collect();
    let encoded = encode(&lines, 100, Options::default());
    let dictionary = Arc::new(Dictionary::parse(&encoded.dictionary).unwrap());
    for (word, blocks) in [("zyxomma", 0), ("quixotic", 1), ("uixo", 1), ("basto", 0)] {
        let query = Query::literal(word.as_bytes());
        assert_eq!(check_search(&lines, 100, &encoded, &dictionary, &query, word), blocks, "{word}");
    }
    check_search(&lines, 100, &encoded, &dictionary, &Query::regex("[qQ]uixotic$").unwrap(), "regex");
}

#[test]
fn damaged_bytes_are_errors_and_never_panics() {
    let mut random = Random(3);
    let lines = made_up(1500, &mut random);
    let encoded = encode(&lines, 1500, Options::default());
    let dictionary = Arc::new(Dictionary::parse(&encoded.dictionary).unwrap());
    let query = Query::literal(b"blk_-1").prepare(&dictionary);
    let any = Query::regex(r"\d7").unwrap().prepare(&dictionary);
    let mut scratch = Scratch::default();
    let mut found = RowSet::default();
    let mut refused = 0;
    let mut index = Vec::new();
    encoded.indexes[0].write(&mut index);
    for round in 0..1500 {
        let mut bytes = encoded.blocks[0].clone();
        damage(&mut bytes, round, &mut random);
        if let Ok(block) = Block::parse(&bytes) {
            let (mut out, mut ends) = (Vec::new(), Vec::new());
            refused +=
                usize::from(block.decode(&dictionary, None, &mut scratch, &mut out, &mut ends).is_err());
            let some: Vec<u32> = (0..block.rows().min(1500)).filter(|_| random.below(40) == 0).collect();
            let _ = block.decode(&dictionary, Some(&some), &mut scratch, &mut out, &mut ends);
            let _ = block.search(&dictionary, &query, None, &mut scratch, &mut found);
            let _ = block.search(&dictionary, &any, None, &mut scratch, &mut found);
            let _ = block.template_ids(&mut scratch, &mut Vec::new());
        }
        let mut bytes = encoded.dictionary.clone();
        damage(&mut bytes, round, &mut random);
        if let Ok(other) = Dictionary::parse(&bytes).map(Arc::new) {
            // A block against a dictionary that is not its own.
            let (mut out, mut ends) = (Vec::new(), Vec::new());
            let _ = Block::parse(&encoded.blocks[0]).unwrap().decode(
                &other,
                None,
                &mut scratch,
                &mut out,
                &mut ends,
            );
            let _ = Query::literal(b"7 for").prepare(&other);
        }
        let mut bytes = index.clone();
        damage(&mut bytes, round, &mut random);
        if let Ok(index) = BlockIndex::parse(&bytes.into()) {
            let _ = query.block(&index);
        }
    }
    assert!(refused > 300, "only {refused} of 1500 damaged blocks were refused");
}

/// Flips bytes, or cuts the end off.
fn damage(bytes: &mut Vec<u8>, round: usize, random: &mut Random) {
    if round.is_multiple_of(10) {
        bytes.truncate(random.below(bytes.len()));
        return;
    }
    for _ in 0..=random.below(4) {
        // The first bytes hold lengths and the head, where damage does most.
        let near = if round.is_multiple_of(2) { bytes.len() } else { bytes.len().min(700) };
        let at = random.below(near);
        bytes[at] ^= 1 << random.below(8);
    }
}

#[test]
fn joined_blocks_read_as_before_under_one_dictionary() {
    let mut random = Random(5);
    let sets: Vec<Vec<Vec<u8>>> =
        vec![made_up(3000, &mut random), hostile(700, &mut random), made_up(2000, &mut random)];
    let encoded: Vec<Encoded> =
        sets.iter().rev().map(|lines| encode(lines, 512, Options::default())).collect();
    let mut merger = DictionaryMerger::new(Options::default());
    let ids: Vec<Vec<u32>> = encoded
        .iter()
        .map(|part| merger.add(&Dictionary::parse(&part.dictionary).unwrap()).unwrap())
        .collect();
    let dictionary = Arc::new(Dictionary::parse(&merger.finish()).unwrap());
    let mut scratch = Scratch::default();
    for ((part, ids), lines) in encoded.iter().zip(&ids).zip(sets.iter().rev()) {
        for ((block, index), lines) in part.blocks.iter().zip(&part.indexes).zip(lines.chunks(512)) {
            let (mut renumbered, mut index) = (Vec::new(), index.clone());
            renumber_block(block, ids, &Options::default(), &mut renumbered).unwrap();
            index.renumber(ids).unwrap();
            let block = Block::parse(&renumbered).unwrap();
            let (mut out, mut ends) = (Vec::new(), Vec::new());
            block.decode(&dictionary, None, &mut scratch, &mut out, &mut ends).unwrap();
            assert_eq!(split(&out, &ends), lines);
            let word = lines[lines.len() / 2].clone();
            let query = Query::literal(&word).prepare(&dictionary);
            assert_ne!(query.block(&index), Verdict::Never);
            let mut found = RowSet::new(0);
            block.search(&dictionary, &query, None, &mut scratch, &mut found).unwrap();
            assert!(found.contains(lines.len() as u32 / 2));
        }
    }
    let mut small = DictionaryMerger::new(Options { max_templates: 3, ..Options::default() });
    assert!(small.add(&dictionary).is_none(), "the bound on templates holds");
    assert!(renumber_block(&encoded[0].blocks[0], &[0], &Options::default(), &mut Vec::new()).is_err());
}

/// The index is gathered column by column, each kind of column in its own way: no needle that a line holds may be
/// excluded, whatever the shape of the values.
#[test]
fn no_shape_of_values_is_missing_in_the_index() {
    let mut random = Random(13);
    let shapes: [fn(u64) -> String; 16] = [
        |n| format!("{}", n % 1000),
        |n| format!("{n}"),
        |n| format!("{}", n as i64 / 3),
        |n| format!("{:08}", n % 90_000_000),
        |n| format!("{:02}:{:02}:{:02}", n % 24, n % 60, n % 59),
        |n| format!("{:02}:{:02}:{:02}.{:09}", n % 24, n % 60, n % 59, n % 999_999_999),
        |n| format!("10.{}.{}.{}:{}", n % 256, n % 7, n % 199, n % 65_000),
        |n| format!("blk_{}", n as i64),
        |n| format!("R{:02}-M{}-N{}-C", n % 80, n % 2, n % 16),
        |n| format!("part-{:05}", n % 100_000),
        |n| format!("job{}kernel", n >> 30),
        |n| format!("{n:016x}"),
        |n| format!("{:08X}-{:04x}", n as u32, n as u16),
        |n| format!("word{}", ["Alpha", "quixotic", "zeta"][n as usize % 3]),
        |n| format!("v{}.{}-rc", n % 3, n % 1_000_000_000_000),
        |n| format!("{}-{}-{}", n % 12_345_678, -(n as i64 % 9_999_999), n % 5),
    ];
    // Few and many rows, values that repeat and values that do not.
    for (rows, distinct) in [(4, 4), (60, 60), (60, 5), (900, 900), (900, 100)] {
        let values: Vec<u64> = (0..distinct).map(|_| random.next()).collect();
        let lines: Vec<Vec<u8>> = (0..rows)
            .map(|_| shapes.map(|shape| shape(*random.pick(&values))).join(" then ").into_bytes())
            .collect();
        let encoded = encode(&lines, rows, Options::default());
        let dictionary = Arc::new(Dictionary::parse(&encoded.dictionary).unwrap());
        let mut needles = Vec::new();
        for line in lines.iter().step_by(rows.div_ceil(20)) {
            for value in line.split(|byte| *byte == b' ') {
                needles.push(value);
                needles.extend(value.split(|byte| !byte.is_ascii_alphanumeric()));
                needles.push(&value[value.len() / 3..]);
                needles.push(&value[..value.len() - value.len() / 3]);
            }
        }
        for needle in needles {
            let prepared = Query::literal(needle).prepare(&dictionary);
            let verdict = prepared.block(&encoded.indexes[0]);
            assert_ne!(verdict, Verdict::Never, "{} of {rows} rows", String::from_utf8_lossy(needle));
        }
        check_round_trip(&lines, rows, Options::default());
    }
}
