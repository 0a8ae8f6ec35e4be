//! Guarantees of the crate as its users see it: what is written comes back bit for bit, parts can be read
//! alone, and damaged bytes are an error and never a panic.

use std::ops::RangeInclusive;

use trine_chunks::{
    Block, BlockWriter, Bounds, Buckets, ChunkError, HistogramLayout, MAX_SAMPLES, Part, join, merge,
    runs_are_long,
};

const ALL: RangeInclusive<i64> = i64::MIN..=i64::MAX;
const STALE: u64 = 0x7ff0_0000_0000_0002;

/// Numbers that are the same every time.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, n: usize) -> usize {
        (self.next() % n as u64) as usize
    }
}

type Series = (Vec<i64>, Vec<f64>);

/// Shapes of series: what instruments report, and what they should not.
fn shape(kind: usize, n: usize, random: &mut Random) -> Vec<f64> {
    let mut total = 0.0;
    (0..n)
        .map(|i| {
            let r = random.next();
            match kind {
                0 => 42.0,
                1 => {
                    total += (r % 100) as f64;
                    total
                }
                2 => ((r % 1000) as f64) / 100.0,
                3 => f64::from_bits(r),
                4 => (r as f64).sqrt(),
                5 => [0.0, 1.0][usize::from(r.is_multiple_of(50))],
                6 => [f64::NAN, -0.0, f64::INFINITY, 1.5, f64::NEG_INFINITY, f64::from_bits(STALE), 0.0]
                    [(r % 7) as usize],
                7 => f64::from_bits(0x7ff8_0000_0000_0000 | (r % 3)),
                8 => 1.7e18 + (r % 1000) as f64 * 256.0,
                9 => (r as i64) as f64,
                10 if i % 40 > 35 => f64::from_bits(STALE),
                10 => {
                    total += (r % 7) as f64 * 4096.0;
                    total
                }
                11 => ((i as f64) / 50.0).sin(),
                12 => {
                    total = if r.is_multiple_of(97) { 0.0 } else { total + 0.25 };
                    total
                }
                13 => [1e-300, 1e300, 5e-324, 0.1, 123_456_789.123_456_78][(r % 5) as usize],
                14 => f64::from((r as f32) / 3.0),
                15 if i == n / 2 => 1e15,
                15 => f64::from((r % 4) as u8),
                16 => [i64::MIN, i64::MAX, 0, -1, 1][(r % 5) as usize] as f64,
                17 => f64::from((r % 9) as u8).sqrt() * if r.is_multiple_of(500) { f64::NAN } else { 1.0 },
                _ => f64::from_bits([0, 1, u64::MAX, 1 << 63, (1 << 63) - 1][(r % 5) as usize]),
            }
        })
        .collect()
}

const SHAPES: usize = 19;

fn scraped(n: usize, random: &mut Random) -> Vec<i64> {
    (0..n as i64)
        .map(|i| 1_760_000_000_000_000_000 + i * 15_000_000_000 + (random.next() % 3) as i64 * 1_000_000)
        .collect()
}

fn series_of(len: impl Fn(&mut Random) -> usize, count: usize, random: &mut Random) -> Vec<Series> {
    let shared = scraped(2000, random);
    (0..count)
        .map(|i| {
            let n = len(random).min(MAX_SAMPLES);
            let times = match random.below(4) {
                0 if n <= shared.len() => shared[..n].to_vec(),
                1 if n <= shared.len() => shared[shared.len() - n..].to_vec(),
                2 => scraped(n, random),
                _ => {
                    let mut times: Vec<i64> = (0..n).map(|_| random.next() as i64).collect();
                    times.sort_unstable();
                    times
                }
            };
            (times, shape(i % SHAPES, n, random))
        })
        .collect()
}

fn write(series: &[Series]) -> Vec<u8> {
    let mut writer = BlockWriter::new();
    for (i, (times, values)) in series.iter().enumerate() {
        writer.push(i as u32, times, values).unwrap();
    }
    writer.finish()
}

fn bits(values: &[f64]) -> Vec<u64> {
    values.iter().map(|value| value.to_bits()).collect()
}

fn within((times, values): &Series, range: &RangeInclusive<i64>) -> (Vec<i64>, Vec<u64>) {
    times
        .iter()
        .zip(values)
        .filter(|(time, _)| range.contains(time))
        .map(|(time, value)| (*time, value.to_bits()))
        .unzip()
}

/// Reads everything at once and then series and stretches in any order.
fn check(bytes: &[u8], series: &[Series], random: &mut Random) {
    let block = Block::parse(bytes).unwrap();
    let mut seen: Vec<(Vec<i64>, Vec<u64>)> = vec![Default::default(); series.len()];
    block
        .reader()
        .all(&ALL, |run| {
            let (times, values) = &mut seen[run.series as usize];
            times.extend_from_slice(run.times);
            values.extend(bits(run.values()));
        })
        .unwrap();
    for (i, (seen, series)) in seen.iter().zip(series).enumerate() {
        assert_eq!(*seen, within(series, &ALL), "series {i}");
    }
    let mut reader = block.reader();
    for _ in 0..series.len().min(300) * 2 {
        let i = random.below(series.len());
        let times = &series[i].0;
        let at = |random: &mut Random| if times.is_empty() { 0 } else { times[random.below(times.len())] };
        let (a, b) = (at(random), at(random));
        let range = a.min(b)..=a.max(b);
        let (mut times, mut values) = (Vec::new(), Vec::new());
        reader.series(i as u32, &range, &mut times, &mut values).unwrap();
        assert_eq!((times, bits(&values)), within(&series[i], &range), "series {i} in {range:?}");
    }
}

#[test]
fn samples_come_back_bit_for_bit() {
    let mut random = Random(1);
    let lens: [fn(&mut Random) -> usize; 5] = [
        |_| 1440,
        |_| 120,
        |_| 8,
        |random| random.below(10),
        |random| [0, 1, 2, 127, 128, 129, 255, 256, 257, 1025][random.below(10)],
    ];
    for len in lens {
        let series = series_of(len, 400, &mut random);
        check(&write(&series), &series, &mut random);
    }
    let long = series_of(|_| MAX_SAMPLES, SHAPES, &mut random);
    check(&write(&long), &long, &mut random);
    check(&write(&[]), &[], &mut random);
    assert!(Block::parse(&write(&[])).unwrap().time_range().is_none());
}

#[test]
fn scraped_together_means_stored_once() {
    let mut random = Random(2);
    let times = scraped(500, &mut random);
    let constant = vec![1.0; 500];
    let alone = write(&[(times.clone(), constant.clone())]).len();
    let series: Vec<Series> = (0..200)
        .map(|i| match i % 3 {
            0 => (times.clone(), constant.clone()),
            1 => (times[i..].to_vec(), constant[i..].to_vec()),
            _ => (times[..i].to_vec(), constant[..i].to_vec()),
        })
        .collect();
    let bytes = write(&series);
    check(&bytes, &series, &mut random);
    // A few bytes a series: its value, and where in the column it starts and ends.
    assert!(bytes.len() < alone + 200 * 7, "{} against {alone}", bytes.len());
}

#[test]
fn buckets_of_a_histogram_help_each_other() {
    let mut random = Random(3);
    let n = 500;
    let times = scraped(n, &mut random);
    let layout = HistogramLayout {
        bounds: Bounds::Exponential {
            scale: 3,
            zero_threshold: 1e-128,
            positive: Buckets { offset: -4, len: 20 },
            negative: Buckets::default(),
        },
        extra: 0,
        flags: 1,
    };
    assert_eq!(HistogramLayout::parse(&layout.to_bytes()).unwrap(), layout);
    let explicit =
        HistogramLayout { bounds: Bounds::Explicit(vec![0.1, 0.5, f64::INFINITY]), extra: 2, flags: 0 };
    assert_eq!(HistogramLayout::parse(&explicit.to_bytes()).unwrap(), explicit);
    assert!(HistogramLayout::parse(&explicit.to_bytes()[..9]).is_err());

    let mut columns = vec![vec![0.0; n]; layout.columns()];
    for i in 1..n {
        (0..columns.len()).for_each(|c| columns[c][i] = columns[c][i - 1]);
        for _ in 0..random.below(6) {
            let bucket = 3 + random.below(6) + random.below(6);
            columns[bucket][i] += 1.0;
            columns[0][i] += 1.0;
            columns[1][i] += 0.125 * bucket as f64;
        }
    }
    let slices: Vec<&[f64]> = columns.iter().map(Vec::as_slice).collect();
    let mut writer = BlockWriter::new();
    for series in 0..40 {
        writer.push_run(series, &times, &layout.to_bytes(), &slices).unwrap();
        // The layout changes.
        let later: Vec<i64> = times.iter().map(|time| time + 1_000_000_000_000_000).collect();
        writer.push_run(series, &later, &explicit.to_bytes(), &slices[..explicit.columns()]).unwrap();
    }
    let bytes = writer.finish();
    let block = Block::parse(&bytes).unwrap();
    for series in [0, 39, 7] {
        let mut runs = 0;
        block
            .reader()
            .runs(series, &(times[100]..=i64::MAX), |run| {
                let (expected, from) = if runs == 0 { (&layout, 100) } else { (&explicit, 0) };
                assert_eq!(HistogramLayout::parse(run.layout).unwrap(), *expected);
                assert_eq!(run.times.len(), n - from);
                assert_eq!(run.columns().len(), expected.columns());
                run.columns().zip(&columns).for_each(|(read, written)| assert_eq!(read, &written[from..]));
                runs += 1;
            })
            .unwrap();
        assert_eq!(runs, 2);
    }

    // Cumulative buckets: the next one differs from the one before by little.
    let mut cumulative = columns[3..].to_vec();
    (1..cumulative.len()).for_each(|c| (0..n).for_each(|i| cumulative[c][i] += cumulative[c - 1][i]));
    let size = |alike: bool| {
        let moved: Vec<i64> = times.iter().map(|time| time + 1).collect();
        let series = |(c, column): (usize, &Vec<f64>)| {
            (if alike || c.is_multiple_of(2) { times.clone() } else { moved.clone() }, column.clone())
        };
        let series: Vec<Series> = cumulative.iter().enumerate().map(series).collect();
        check(&write(&series), &series, &mut Random(4));
        write(&series).len()
    };
    assert!(size(true) * 3 < size(false) * 2, "{} against {}", size(true), size(false));
}

#[test]
fn what_lies_outside_of_the_range_is_not_read() {
    let mut random = Random(5);
    let (early, late): (Vec<Series>, Vec<Series>) = (0..300)
        .map(|i| {
            let times = scraped(100, &mut random);
            let later = times.iter().map(|time| time + 10_000_000_000_000).collect();
            ((times, shape(1 + i % 2, 100, &mut random)), (later, shape(2, 100, &mut random)))
        })
        .unzip();
    let series: Vec<Series> = early.iter().chain(&late).cloned().collect();
    let mut bytes = write(&series);
    let block = Block::parse(&bytes).unwrap();
    let whole = block.time_range().unwrap();
    let only_late = late[0].0[0]..=*whole.end();
    assert!(block.groups().iter().filter(|group| !group.overlaps(&only_late)).count() > 0);
    // The last bytes are groups of late series.
    let end = bytes.len() - 2000;
    bytes[end..].fill(0xff);
    let block = Block::parse(&bytes).unwrap();
    let only_early = *whole.start()..=*early[0].0.last().unwrap();
    let mut samples = 0;
    block.reader().all(&only_early, |run| samples += run.times.len()).unwrap();
    assert_eq!(
        samples,
        early.iter().map(|(times, _)| times.iter().filter(|t| only_early.contains(t)).count()).sum()
    );
    assert!(block.reader().all(&ALL, |_| {}).is_err());
}

#[test]
fn a_series_is_read_without_its_neighbours() {
    let mut random = Random(6);
    let series = series_of(|_| 1440, 500, &mut random);
    let bytes = write(&series);
    let mut reader = Block::parse(&bytes).unwrap().reader();
    for i in 0..500 {
        let (head, own) = reader.bytes_of(i).unwrap();
        assert!(head < 5000 && own < 16_000, "series {i}: {head} and {own} of {}", bytes.len());
    }
}

#[test]
fn blocks_are_joined_and_merged() {
    let mut random = Random(7);
    let numbers: [Vec<u32>; 3] = [(0..60).collect(), (0..40).map(|i| i * 2).collect(), (50..100).collect()];
    let mut whole: Vec<Series> = vec![Default::default(); 100];
    let mut blocks = Vec::new();
    for (slice, numbers) in numbers.iter().enumerate() {
        let times: Vec<i64> =
            scraped(200, &mut random).iter().map(|time| time + slice as i64 * 5_000_000_000_000).collect();
        let series: Vec<Series> = numbers
            .iter()
            .map(|number| (times.clone(), shape(*number as usize % SHAPES, 200, &mut random)))
            .collect();
        for (number, (times, values)) in numbers.iter().zip(&series) {
            whole[*number as usize].0.extend(times);
            whole[*number as usize].1.extend(values);
        }
        blocks.push(write(&series));
    }
    let parts = |bytes: &[usize]| -> Vec<Part<'_>> {
        bytes
            .iter()
            .map(|&i| Part { block: Block::parse(&blocks[i]).unwrap(), series: &numbers[i] })
            .collect()
    };
    let joined = join(&parts(&[0, 1, 2])).unwrap();
    check(&joined, &whole, &mut random);
    let merged = merge(&parts(&[0, 1, 2])).unwrap();
    check(&merged, &whole, &mut random);
    assert!(!runs_are_long(&Block::parse(&joined).unwrap()).unwrap());
    // A joined block is a block like any other.
    let ids: Vec<u32> = (0..100).collect();
    let again = [Part { block: Block::parse(&joined).unwrap(), series: &ids }];
    assert_eq!(join(&again).unwrap(), joined);
    assert_eq!(merge(&again).unwrap(), merged);
    // Twice the same samples, in the wrong order: once.
    check(&merge(&parts(&[2, 1, 0, 2])).unwrap(), &whole, &mut random);
    let short = [Part { block: Block::parse(&joined).unwrap(), series: &ids[..50] }];
    assert!(matches!(join(&short), Err(ChunkError::Input(_))));
}

#[test]
fn the_later_part_wins() {
    let one = write(&[(vec![10, 20, 30], vec![1.0, 2.0, 3.0])]);
    let two = write(&[(vec![15, 20], vec![7.0, 8.0])]);
    let parts = [&one, &two].map(|bytes| Part { block: Block::parse(bytes).unwrap(), series: &[0] });
    let merged = merge(&parts).unwrap();
    check(&merged, &[(vec![10, 15, 20, 30], vec![1.0, 7.0, 8.0, 3.0])], &mut Random(8));
}

#[test]
fn what_does_not_fit_is_refused() {
    let mut writer = BlockWriter::new();
    assert!(matches!(writer.push(0, &[1, 2], &[1.0]), Err(ChunkError::Input(_))));
    assert!(matches!(writer.push(0, &[2, 1], &[1.0, 2.0]), Err(ChunkError::Input(_))));
    assert!(matches!(
        writer.push(0, &vec![1; MAX_SAMPLES + 1], &vec![1.0; MAX_SAMPLES + 1]),
        Err(ChunkError::Input(_))
    ));
    writer.push(5, &[1, 2], &[1.0, 2.0]).unwrap();
    assert!(matches!(writer.push(4, &[1], &[1.0]), Err(ChunkError::Input(_))));
    let mut bytes = writer.finish();
    bytes[0] = 9;
    assert_eq!(Block::parse(&bytes).unwrap_err(), ChunkError::Version(9));
}

/// Long columns of one form: noise of every size, around zero or rising, with zeros between.
fn long_columns(power: u32, random: &mut Random) -> Vec<Series> {
    let times = scraped(2000, random);
    let column = |zeros: u64, rising: bool, random: &mut Random| {
        let mut total = 0i64;
        let number = |_: &i64| {
            let noise = (random.next() % (1 << power)) as i64 + (random.next() % (1 << power)) as i64;
            let noise = if random.next() % 8 < zeros { 0 } else { noise - (1 << power) / 2 };
            total = if rising { total + noise } else { noise };
            total as f64
        };
        times.iter().map(number).collect::<Vec<f64>>()
    };
    let columns = (0..24).map(|at| column(at % 6, at % 2 == 0, random)).collect::<Vec<_>>();
    columns.into_iter().map(|values| (times.clone(), values)).collect()
}

/// What is read much of is read by pairs of codes.
#[test]
fn long_columns_come_back_and_damage_to_them_never_panics() {
    let mut random = Random(17);
    let mut refused = 0;
    for power in 0..12 {
        let series = long_columns(power, &mut random);
        let whole = write(&series);
        check(&whole, &series, &mut random);
        for round in 0..60 {
            let mut bytes = whole.clone();
            damage(&mut bytes, round, &mut random);
            let read = Block::parse(&bytes).and_then(|block| block.reader().all(&ALL, |_| ()));
            refused += usize::from(read.is_err());
        }
    }
    assert!(refused > 100, "only {refused} of 720 damaged blocks were refused");
}

#[test]
fn damaged_bytes_are_errors_and_never_panics() {
    let mut random = Random(9);
    let mut refused = 0;
    let layout = HistogramLayout { bounds: Bounds::Explicit(vec![1.0, 2.0]), extra: 0, flags: 0 }.to_bytes();
    for (len, rounds) in [(600, 400), (8, 1600)] {
        let series = series_of(|random| 1 + random.below(len), 60, &mut random);
        let mut writer = BlockWriter::new();
        for (i, (times, values)) in series.iter().enumerate() {
            writer.push(i as u32, times, values).unwrap();
            writer.push_run(i as u32, times, &layout, &[values, values, values, values, values]).unwrap();
        }
        let whole = writer.finish();
        let numbers: Vec<u32> = (0..60).collect();
        for round in 0..rounds {
            let mut bytes = whole.clone();
            damage(&mut bytes, round, &mut random);
            let Ok(block) = Block::parse(&bytes) else {
                refused += 1;
                continue;
            };
            let mut samples = 0;
            refused += usize::from(block.reader().all(&ALL, |run| samples += run.times.len()).is_err());
            assert!(samples < 200_000, "{samples} samples out of {} bytes", bytes.len());
            let mut reader = block.reader();
            for _ in 0..4 {
                let i = random.below(60);
                let time = series[i].0[0];
                let _ = reader.series(i as u32, &(time..=time), &mut Vec::new(), &mut Vec::new());
                let _ = reader.bytes_of(i as u32);
            }
            let parts = [Part { block, series: &numbers }];
            let _ = join(&parts);
            if round % 16 == 1 {
                let _ = merge(&parts);
            }
        }
    }
    assert!(refused > 500, "only {refused} of 2000 damaged blocks were refused");
}

/// Flips bits, or cuts the end off.
fn damage(bytes: &mut Vec<u8>, round: usize, random: &mut Random) {
    if round.is_multiple_of(10) {
        bytes.truncate(random.below(bytes.len()));
        return;
    }
    for _ in 0..=random.below(4) {
        // Heads do most damage.
        let near = if round.is_multiple_of(2) { bytes.len() } else { bytes.len().min(400) };
        let at = random.below(near);
        bytes[at] ^= 1 << random.below(8);
    }
}
