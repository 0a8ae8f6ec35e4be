//! Remote read in Prometheus' chunks, decoded as its readers do.

use std::sync::Arc;

use trine_promql::api::{ReadFrames, Reply, decode_read_request};
use trine_schema::{BucketSpans, NativeHistogram, ResetHint, Samples, ScanError, metrics::STALE_NAN};

use super::{NOW, memory::Memory, other::read_request, with_request};

/// Bits, highest first.
struct Bits<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl Bits<'_> {
    fn take(&mut self, count: usize) -> u64 {
        let bit = |at: usize| u64::from(self.bytes[at / 8] >> (7 - at % 8) & 1);
        let value = (self.at..self.at + count).fold(0, |value, at| value << 1 | bit(at));
        self.at += count;
        value
    }

    fn ones(&mut self, most: usize) -> usize {
        (0..most).find(|_| self.take(1) == 0).unwrap_or(most)
    }

    fn float(&mut self) -> f64 {
        f64::from_bits(self.take(64))
    }

    fn varint(&mut self) -> u64 {
        let (mut value, mut shift) = (0, 0);
        loop {
            let byte = self.take(8);
            value |= (byte & 0x7f) << shift;
            shift += 7;
            if byte < 0x80 {
                return value;
            }
        }
    }

    fn signed(&mut self, bits: usize) -> i64 {
        let value = self.take(bits);
        if bits < 64 && value > 1 << (bits - 1) { value as i64 - (1 << bits) } else { value as i64 }
    }

    fn varbit(&mut self) -> i64 {
        match self.ones(8) {
            0 => 0,
            ones => self.signed([3, 6, 9, 12, 18, 25, 56, 64][ones - 1]),
        }
    }

    fn varbit_unsigned(&mut self) -> u64 {
        match self.ones(8) {
            0 => 0,
            ones => self.take([3, 6, 9, 12, 18, 25, 56, 64][ones - 1]),
        }
    }
}

/// A float told by what differs, with the zeros around it.
#[derive(Default, Clone, Copy)]
struct Xor(u64, usize, usize);

impl Xor {
    fn next(&mut self, bits: &mut Bits<'_>) -> f64 {
        if bits.take(1) == 1 {
            if bits.take(1) == 1 {
                self.1 = bits.take(5) as usize;
                let length = bits.take(6) as usize;
                self.2 = 64 - self.1 - if length == 0 { 64 } else { length };
            }
            self.0 ^= bits.take(64 - self.1 - self.2) << self.2;
        }
        f64::from_bits(self.0)
    }
}

fn floats(data: &[u8]) -> Vec<(i64, u64)> {
    let count = u16::from_be_bytes([data[0], data[1]]);
    let mut bits = Bits { bytes: &data[2..], at: 0 };
    let (mut time, mut distance, mut value) = (0i64, 0i64, Xor::default());
    let mut found = Vec::new();
    for at in 0..count {
        if at == 0 {
            let zigzag = bits.varint();
            time = (zigzag >> 1) as i64 ^ -((zigzag & 1) as i64);
            value.0 = bits.take(64);
            found.push((time, value.0));
            continue;
        }
        if at == 1 {
            distance = bits.varint() as i64;
        } else {
            distance += match bits.ones(4) {
                0 => 0,
                ones => bits.signed([14, 17, 20, 64][ones - 1]),
            };
        }
        time += distance;
        found.push((time, value.next(&mut bits).to_bits()));
    }
    found
}

fn spans(bits: &mut Bits<'_>) -> BucketSpans {
    let spans: Vec<(i32, u32)> = (0..bits.varbit_unsigned())
        .map(|_| {
            let length = bits.varbit_unsigned() as u32;
            (bits.varbit() as i32, length)
        })
        .collect();
    let count: u32 = spans.iter().map(|span| span.1).sum();
    BucketSpans { spans, counts: vec![0.0; count as usize] }
}

fn histograms(data: &[u8]) -> Vec<(i64, NativeHistogram)> {
    let count = u16::from_be_bytes([data[0], data[1]]);
    let mut bits = Bits { bytes: &data[3..], at: 0 };
    let zero_threshold = match bits.take(8) {
        0 => 0.0,
        255 => bits.float(),
        power => 0.5 * 2f64.powi(power as i32 - 243),
    };
    let schema = bits.varbit() as i32;
    let (positive, negative) = (spans(&mut bits), spans(&mut bits));
    let mut custom_bounds = Vec::new();
    if schema == trine_schema::CUSTOM_BOUNDS {
        for _ in 0..bits.varbit_unsigned() {
            custom_bounds.push(match bits.varbit_unsigned() {
                0 => bits.float(),
                thousandths => (thousandths - 1) as f64 / 1000.0,
            });
        }
    }
    let mut fields = vec![Xor::default(); 3 + positive.counts.len() + negative.counts.len()];
    let layout = NativeHistogram {
        schema,
        zero_threshold,
        positive,
        negative,
        custom_bounds,
        ..NativeHistogram::default()
    };
    let (mut time, mut distance) = (0i64, 0i64);
    let mut found = Vec::new();
    for at in 0..count {
        let mut next = layout.clone();
        next.reset_hint = match (data[2], at) {
            (0xc0, _) => ResetHint::Gauge,
            (0x40, _) | (_, 1..) => ResetHint::NotReset,
            (0x80, _) => ResetHint::Reset,
            _ => ResetHint::Unknown,
        };
        if at == 0 {
            time = bits.varbit();
            fields.iter_mut().for_each(|field| field.0 = bits.take(64));
        } else {
            distance += bits.varbit();
            time += distance;
            for field in &mut fields {
                field.next(&mut bits);
            }
        }
        let mut values = fields.iter().map(|field| f64::from_bits(field.0));
        let mut value = || values.next().unwrap();
        (next.count, next.zero_count, next.sum) = (value(), value(), value());
        next.positive.counts.iter_mut().for_each(|count| *count = value());
        next.negative.counts.iter_mut().for_each(|count| *count = value());
        found.push((time, next));
    }
    found
}

/// Number and value of each field; numbers as bytes, too.
fn fields(mut bytes: &[u8]) -> Vec<(u64, Vec<u8>)> {
    let varint = |bytes: &mut &[u8]| {
        let mut bits = Bits { bytes, at: 0 };
        let value = bits.varint();
        *bytes = &bytes[bits.at / 8..];
        value
    };
    let mut found = Vec::new();
    while !bytes.is_empty() {
        let key = varint(&mut bytes);
        let value = varint(&mut bytes);
        let kind = key & 7;
        found.push(if kind == 0 {
            (key >> 3, value.to_le_bytes().to_vec())
        } else {
            let (taken, rest) = bytes.split_at(value as usize);
            bytes = rest;
            (key >> 3, taken.to_vec())
        });
    }
    found
}

/// What a reader has of a series.
#[derive(Debug, Default, PartialEq)]
struct Read {
    query: u64,
    labels: Vec<(String, String)>,
    chunks: usize,
    floats: Vec<(i64, u64)>,
    histograms: Vec<(i64, NativeHistogram)>,
}

/// Frames, and what they say.
fn read(tables: &Memory, requests: &[u8]) -> Result<(Vec<usize>, Vec<Read>), Reply> {
    let request = decode_read_request(requests).unwrap();
    assert!(request.chunks);
    let (mut sizes, mut all) = (Vec::new(), Vec::<Read>::new());
    let mut frames = ReadFrames::new(request.queries);
    while let Some(frame) = with_request(tables, "", |api, request| frames.next(api, request)) {
        let frame = frame?;
        sizes.push(frame.len());
        let mut head = Bits { bytes: &frame, at: 0 };
        let length = head.varint() as usize;
        let sum = head.take(32) as u32;
        let message = &frame[head.at / 8..];
        assert_eq!((length, sum), (message.len(), crc32c::crc32c(message)));
        let number = |bytes: &[u8]| u64::from_le_bytes(bytes.try_into().unwrap());
        let message = fields(message);
        let query = message.iter().find(|(field, _)| *field == 2).map_or(0, |(_, value)| number(value));
        let mut series = Read { query, ..Read::default() };
        let mut last = i64::MIN;
        for (field, value) in fields(&message[0].1) {
            let value = fields(&value);
            if field == 1 {
                let text = |at: usize| String::from_utf8(value[at].1.clone()).unwrap();
                series.labels.push((text(0), text(1)));
                continue;
            }
            let (first, end) = (number(&value[0].1) as i64, number(&value[1].1) as i64);
            assert!(last < first && first <= end, "chunks follow one another");
            last = end;
            series.chunks += 1;
            let times: Vec<i64> = match number(&value[2].1) {
                1 => {
                    series.floats.extend(floats(&value[3].1));
                    series.floats.iter().map(|(time, _)| *time).collect()
                }
                encoding => {
                    assert_eq!(encoding, 3);
                    series.histograms.extend(histograms(&value[3].1));
                    series.histograms.iter().map(|(time, _)| *time).collect()
                }
            };
            assert!(times.contains(&first) && times.last() == Some(&end));
        }
        match all.last_mut().filter(|last| last.labels == series.labels && last.query == series.query) {
            Some(last) => {
                last.chunks += series.chunks;
                last.floats.extend(series.floats);
                last.histograms.extend(series.histograms);
            }
            None => all.push(series),
        }
    }
    Ok((sizes, all))
}

/// Values and distances of all sizes, two frames of them.
#[test]
fn floats_come_back_in_chunks_and_frames_have_a_bound() {
    let mut tables = Memory::default();
    let mut random = 0x9e37_79b9_7f4a_7c15u64;
    let mut next = move || {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        random
    };
    let mut time = NOW - 1_000_000_000;
    let samples: Vec<(i64, f64)> = (0..200_000)
        .map(|at| {
            time += match next() % 40 {
                0 => 1,
                1 => 8_192 + 15_000,
                2 => 70_000,
                3 => 600_000,
                4..8 => 15_001,
                _ => 15_000,
            };
            let value = match next() % 8 {
                0 => f64::from_bits(next()),
                1 => f64::from_bits(STALE_NAN),
                2..5 => f64::from(at),
                _ => 0.1 * (next() % 100) as f64,
            };
            (time, value)
        })
        .collect();
    tables.floats(&[("__name__", "m")], &samples);
    tables.floats(&[("__name__", "m2")], &[(-5, 1.0)]);
    let (from, to) = (samples[3].0, samples[199_998].0);
    let (sizes, series) = read(&tables, &read_request("m", from, to)).unwrap();
    assert!(sizes.len() >= 2, "{sizes:?}");
    assert!(sizes.iter().all(|size| *size < (1 << 20) + 4096), "{sizes:?}");
    let want: Vec<_> = samples[3..=199_998].iter().map(|(time, value)| (*time, value.to_bits())).collect();
    assert_eq!(series[0].chunks, want.len().div_ceil(120));
    assert!(series[0].floats == want);
    let (_, series) = read(&tables, &read_request("m.?", i64::MIN, 0)).unwrap();
    assert_eq!((series.len(), &series[0].floats), (1, &vec![(-5, 1f64.to_bits())]));
    assert_eq!(read(&tables, &read_request("x", 0, NOW)).unwrap().1, []);
}

/// Layouts, resets, gauges, ends of series, floats between: each begins a chunk.
#[test]
fn histograms_come_back_in_chunks_of_one_layout() {
    let plain = |count: f64| NativeHistogram {
        schema: 3,
        zero_threshold: 2f64.powi(-128),
        zero_count: 1.0,
        count: count + 1.0,
        sum: count * 0.3,
        positive: BucketSpans { spans: vec![(-40, 2), (300, 1)], counts: vec![1.0, count - 3.0, 2.0] },
        negative: BucketSpans { spans: vec![(5, 1)], counts: vec![0.0] },
        ..NativeHistogram::default()
    };
    let custom = |bounds: &[f64]| NativeHistogram {
        schema: trine_schema::CUSTOM_BOUNDS,
        count: 3.0,
        sum: f64::NAN,
        positive: BucketSpans { spans: vec![(0, 1), (1, 1)], counts: vec![1.0, 2.0] },
        custom_bounds: bounds.to_vec(),
        ..NativeHistogram::default()
    };
    let gauge = |count| NativeHistogram { reset_hint: ResetHint::Gauge, ..plain(count) };
    let stale = NativeHistogram { sum: f64::from_bits(STALE_NAN), ..NativeHistogram::default() };
    let hinted = |hint, count| NativeHistogram { reset_hint: hint, ..plain(count) };
    let unknown = NativeHistogram { zero_threshold: 0.3, ..plain(9.0) };
    let list = [
        (plain(10.0), 0),
        (plain(12.0), 0),
        (plain(5.0), 1),
        (hinted(ResetHint::NotReset, 6.0), 1),
        (hinted(ResetHint::Reset, 7.0), 2),
        (unknown, 3),
        (gauge(4.0), 4),
        (gauge(3.0), 4),
        (stale.clone(), 5),
        (stale, 6),
        (custom(&[0.0, 0.005, 33_554.43]), 7),
        (custom(&[-1.0, 0.000_1, 1e9]), 8),
        (plain(20.0), 10),
    ];
    let histograms: Vec<Arc<NativeHistogram>> = list.iter().map(|(one, _)| Arc::new(one.clone())).collect();
    let times: Vec<i64> = (0..list.len() as i64).map(|at| NOW - 600_000 + at * 20_000 + at % 3).collect();
    let float = times[11] + 7;
    let mut tables = Memory::default();
    tables.add(
        &[("__name__", "h")],
        Samples {
            timestamps: Arc::new(vec![float]),
            values: vec![1.5],
            histogram_timestamps: times.clone(),
            histograms,
            ..Samples::default()
        },
    );
    let (sizes, mut series) = read(&tables, &read_request("h", 0, NOW)).unwrap();
    assert_eq!((sizes.len(), series[0].chunks), (1, 11));
    let series = series.remove(0);
    assert_eq!(series.floats, [(float, 1.5f64.to_bits())]);
    for (at, ((time, found), (want, chunk))) in series.histograms.iter().zip(&list).enumerate() {
        let mut want = want.clone();
        if at > 0 && list[at - 1].1 == *chunk && want.reset_hint == ResetHint::Unknown {
            want.reset_hint = ResetHint::NotReset;
        }
        // NaN differs from itself.
        assert_eq!((*time, found.to_bytes()), (times[at], want.to_bytes()), "number {at}");
    }
}

#[test]
fn queries_are_told_apart_and_a_part_does_not_pass_for_the_whole() {
    let mut tables = Memory::default();
    tables.floats(&[("__name__", "a")], &[(NOW, 1.0)]);
    tables.floats(&[("__name__", "b")], &[(NOW, 2.0)]);
    let plain = |metric| snap::raw::Decoder::new().decompress_vec(&read_request(metric, 0, NOW)).unwrap();
    let both = snap::raw::Encoder::new().compress_vec(&[plain("a|b"), plain("b")].concat()).unwrap();
    let (_, series) = read(&tables, &both).unwrap();
    let found: Vec<_> = series.iter().map(|series| (series.query, series.labels[0].1.as_str())).collect();
    assert_eq!(found, [(0, "a"), (0, "b"), (1, "b")]);
    tables.missing = Some("a segment is in quarantine".to_owned());
    let reply = read(&tables, &both).unwrap_err();
    assert_eq!((reply.status, reply.body.as_slice()), (500, &b"a segment is in quarantine\n"[..]));
    tables.missing = None;
    tables.broken = Some(ScanError::Storage("gone".into()));
    assert_eq!(read(&tables, &both).unwrap_err().status, 500);
}

#[test]
fn the_first_known_kind_of_answer_is_taken() {
    let request = |kinds: &[u8]| {
        let bytes: Vec<u8> = [2 << 3 | 2, kinds.len() as u8].iter().chain(kinds).copied().collect();
        decode_read_request(&snap::raw::Encoder::new().compress_vec(&bytes).unwrap())
    };
    for (kinds, chunks) in
        [(&[][..], false), (&[0], false), (&[1], true), (&[7, 1, 0], true), (&[0, 1], false)]
    {
        assert_eq!(request(kinds).unwrap().chunks, chunks, "{kinds:?}");
    }
    let error = request(&[7]).unwrap_err();
    assert_eq!(error, "response type 7 is unknown; accept SAMPLES (0) or STREAMED_XOR_CHUNKS (1)");
    assert!(request(&[0xff]).is_err());
}
