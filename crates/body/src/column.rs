//! Writing one column: the values of one slot of one template in one block, or a part of them.
//!
//! Tried in this order, the first that fits wins: the same as an earlier column of the template;
//! constant; whole numbers; a dictionary shared by all columns of the block, when values repeat;
//! parts around digits, each a column of its own (dates, times, addresses); hex digits of fixed
//! places; text. The kinds and their bytes are in `FORMAT.md`; `column_read` is the other side.

use hashbrown::HashTable;
use xxhash_rust::xxh3::xxh3_64;

use crate::{
    ints::{self, IntScratch, bits_for},
    scan::Span,
    sections::Writer,
    wire::put_varint,
};

pub(crate) const CONSTANT: u8 = 0;
pub(crate) const NUMBER: u8 = 1;
pub(crate) const DICTIONARY: u8 = 2;
pub(crate) const PARTS: u8 = 3;
pub(crate) const HEX: u8 = 4;
pub(crate) const TEXT: u8 = 5;
pub(crate) const SAME: u8 = 6;
pub(crate) const SIGNED: u8 = 7;

/// In the pattern of a [`HEX`] column: a place with a lower-case or an upper-case hex digit.
pub(crate) const LOWER: u8 = 1;
pub(crate) const UPPER: u8 = 2;
/// Longest value of a [`HEX`] column.
pub(crate) const MAX_HEX_BYTES: usize = 64;
/// Most parts of a value.
pub(crate) const MAX_PARTS: usize = 16;
/// How deep columns nest: slot, dictionary values, parts.
pub(crate) const MAX_DEPTH: u32 = 4;
/// Decimal digits that always fit into 64 bits.
pub(crate) const MAX_DIGITS: usize = 19;
/// Values shorter than this are not shared between columns.
const SHARED_BYTES: usize = 7;
/// Values after which a column without repeats is not looked up further.
const PROBE: usize = 384;
/// Columns shorter than this do without a dictionary of their own.
const MIN_DICTIONARY: usize = 24;
/// No id yet.
const NONE: u32 = u32::MAX;

struct Entry {
    hash: u64,
    span: Span,
    id: u32,
    column: u32,
}

/// Values of a block that were looked up so far.
#[derive(Default)]
struct Values {
    table: HashTable<u32>,
    entries: Vec<Entry>,
    next_id: u32,
}

/// Writes columns; keeps its buffers.
#[derive(Default)]
pub(crate) struct ColumnWriter {
    values: Values,
    column: u32,
    ints: IntScratch,
    numbers: Vec<u64>,
    found: Vec<u32>,
    spare: Vec<Vec<Span>>,
}

/// How the values of a column are written as numbers.
struct Numbers {
    /// Digits of each value, 0 when there are no leading zeros.
    width: usize,
    signed: bool,
    min: u64,
    max: u64,
}

#[inline]
fn slice(bytes: &[u8], span: Span) -> &[u8] {
    &bytes[span.0 as usize..span.1 as usize]
}

/// The number of up to 19 decimal digits.
#[inline]
fn parse_digits(digits: &[u8]) -> Option<u64> {
    if digits.is_empty() || digits.len() > MAX_DIGITS {
        return None;
    }
    let mut value = 0u64;
    for &byte in digits {
        let digit = byte.wrapping_sub(b'0');
        if digit > 9 {
            return None;
        }
        value = value * 10 + u64::from(digit);
    }
    Some(value)
}

impl ColumnWriter {
    /// Forgets the values of the block before.
    pub(crate) fn start_block(&mut self) {
        self.values.table.clear();
        self.values.entries.clear();
        self.values.next_id = 0;
        self.column = 0;
    }

    /// Writes the columns of one template; `columns` holds them one after another, `rows` values each.
    pub(crate) fn template(&mut self, bytes: &[u8], columns: &[Span], rows: usize, out: &mut Writer) {
        for (i, values) in columns.chunks_exact(rows).enumerate() {
            let same = columns.chunks_exact(rows).take(i).position(|earlier| equal(bytes, earlier, values));
            if let (Some(earlier), false) = (same, constant(bytes, values)) {
                out.head.push(SAME);
                put_varint(&mut out.head, earlier as u64);
            } else {
                self.column(bytes, values, true, 0, out);
            }
        }
    }

    fn column(&mut self, bytes: &[u8], values: &[Span], share: bool, depth: u32, out: &mut Writer) {
        if values.is_empty() {
            return;
        }
        self.column += 1;
        if constant(bytes, values) {
            let value = slice(bytes, values[0]);
            out.head.push(CONSTANT);
            put_varint(&mut out.head, value.len() as u64);
            out.head.extend_from_slice(value);
            return;
        }
        let numbers = self.numbers(bytes, values);
        let bits = match &numbers {
            Some(numbers) => bits_for(numbers.max - numbers.min),
            None => 64,
        };
        let repeats = share && bits > 8 && values.len() >= MIN_DICTIONARY;
        if repeats && self.dictionary(bytes, values, bits, depth, out) {
            return;
        }
        if let Some(numbers) = numbers {
            out.head.push(if numbers.signed { SIGNED } else { NUMBER });
            if !numbers.signed {
                put_varint(&mut out.head, numbers.width as u64);
            }
            ints::encode(&mut self.numbers, &mut self.ints, out);
            return;
        }
        if depth + 1 < MAX_DEPTH && self.parts(bytes, values, share, depth, out) {
            return;
        }
        if self.hex(bytes, values, out) {
            return;
        }
        self.text(bytes, values, out);
    }

    /// Fills `self.numbers` when every value is a whole number in one style.
    fn numbers(&mut self, bytes: &[u8], values: &[Span]) -> Option<Numbers> {
        self.numbers.clear();
        let (mut short, mut long) = (usize::MAX, 0);
        let (mut min, mut max) = (u64::MAX, 0);
        let mut zero_led = false;
        for &span in values {
            let digits = slice(bytes, span);
            let Some(value) = parse_digits(digits) else {
                return if digits.first() == Some(&b'-') { self.signed(bytes, values) } else { None };
            };
            short = short.min(digits.len());
            long = long.max(digits.len());
            zero_led |= digits[0] == b'0' && digits.len() > 1;
            min = min.min(value);
            max = max.max(value);
            self.numbers.push(value);
        }
        if zero_led && short != long {
            return None;
        }
        Some(Numbers { width: if zero_led { short } else { 0 }, signed: false, min, max })
    }

    fn signed(&mut self, bytes: &[u8], values: &[Span]) -> Option<Numbers> {
        self.numbers.clear();
        let (mut min, mut max) = (u64::MAX, 0);
        for &span in values {
            let text = slice(bytes, span);
            let digits = text.strip_prefix(b"-").unwrap_or(text);
            let negative = digits.len() < text.len();
            let value = parse_digits(digits)?;
            let zero_led = digits[0] == b'0' && (digits.len() > 1 || negative);
            if zero_led || value > i64::MAX as u64 {
                return None;
            }
            // Zigzag: the sign is the lowest bit.
            let coded = if negative { value * 2 - 1 } else { value * 2 };
            min = min.min(coded);
            max = max.max(coded);
            self.numbers.push(coded);
        }
        Some(Numbers { width: 0, signed: true, min, max })
    }

    /// Writes ids into the block's dictionary when the values repeat enough.
    fn dictionary(&mut self, bytes: &[u8], values: &[Span], bits: u32, depth: u32, out: &mut Writer) -> bool {
        self.found.clear();
        let (mut distinct, mut known, mut length) = (0usize, 0usize, 0usize);
        let column = self.column;
        for (i, &span) in values.iter().enumerate() {
            let value = slice(bytes, span);
            length += value.len();
            let seed = if value.len() < SHARED_BYTES { u64::from(column) << 32 } else { 0 };
            let hash = xxh3_64(value) ^ seed.wrapping_mul(0x9e37_79b9_7f4a_7c15);
            let Values { table, entries, .. } = &mut self.values;
            let same = |e: &u32| {
                let entry = &entries[*e as usize];
                entry.hash == hash && slice(bytes, entry.span) == value
            };
            let e = if let Some(&e) = table.find(hash, same) {
                let entry = &mut entries[e as usize];
                if entry.column != column {
                    entry.column = column;
                    distinct += 1;
                    known += usize::from(entry.id != NONE);
                }
                e
            } else {
                let e = entries.len() as u32;
                table.insert_unique(hash, e, |e| entries[*e as usize].hash);
                entries.push(Entry { hash, span, id: NONE, column });
                distinct += 1;
                e
            };
            self.found.push(e);
            if i + 1 == PROBE && distinct - known > PROBE * 9 / 10 {
                return false;
            }
        }
        let n = values.len() as f32;
        let new = distinct - known;
        let value_bits =
            (length as f32 / n * 4.0).min(bits as f32).max(if bits < 64 { bits as f32 } else { 8.0 });
        let id_bits = (distinct.max(2) as f32).log2() * 0.85;
        if (n - new as f32) * value_bits < n * id_bits + 200.0 {
            return false;
        }
        let mut fresh = self.spare.pop().unwrap_or_default();
        fresh.clear();
        self.numbers.clear();
        for &e in &self.found {
            let entry = &mut self.values.entries[e as usize];
            if entry.id == NONE {
                entry.id = self.values.next_id;
                self.values.next_id += 1;
                fresh.push(entry.span);
            }
            self.numbers.push(u64::from(entry.id));
        }
        out.head.push(DICTIONARY);
        put_varint(&mut out.head, fresh.len() as u64);
        let mut ids = std::mem::take(&mut self.numbers);
        self.column(bytes, &fresh, false, depth + 1, out);
        ints::encode(&mut ids, &mut self.ints, out);
        self.numbers = ids;
        self.spare.push(fresh);
        true
    }

    /// Cuts the values at their digits when all have the same text between them.
    fn parts(&mut self, bytes: &[u8], values: &[Span], share: bool, depth: u32, out: &mut Writer) -> bool {
        let mut first = [(0u32, 0u32); MAX_PARTS];
        let model = slice(bytes, values[0]);
        let Some(count) = cut(model, &mut first) else { return false };
        let start = values[0].0;
        let mut columns: Vec<Vec<Span>> = (0..count).map(|_| self.spare.pop().unwrap_or_default()).collect();
        for column in &mut columns {
            column.clear();
        }
        let mut fits = true;
        let mut places = [(0u32, 0u32); MAX_PARTS];
        for &span in values {
            let value = slice(bytes, span);
            if cut(value, &mut places) != Some(count) || !same_between(model, &first, value, &places, count) {
                fits = false;
                break;
            }
            for (column, place) in columns.iter_mut().zip(&places) {
                column.push((span.0 + place.0, span.0 + place.1));
            }
        }
        if fits {
            out.head.push(PARTS);
            put_varint(&mut out.head, count as u64);
            let mut at = 0u32;
            for place in first[..count].iter().chain([&(model.len() as u32, 0)]) {
                put_varint(&mut out.head, u64::from(place.0 - at));
                out.head.extend_from_slice(slice(bytes, (start + at, start + place.0)));
                at = place.1;
            }
            let mut part = 0;
            while part < count {
                let separators: Vec<&[u8]> = first[part..count]
                    .windows(2)
                    .map(|two| &model[two[0].1 as usize..two[1].0 as usize])
                    .collect();
                let used = self.clock(bytes, &columns[part..], &separators, out);
                if used == 0 {
                    out.head.push(0);
                    self.column(bytes, &columns[part], share, depth + 1, out);
                    part += 1;
                } else {
                    part += used;
                }
            }
        }
        self.spare.append(&mut columns);
        fits
    }

    /// Writes `hh:mm:ss` with or without a fraction as one number; parts used, 0 when it is no time.
    fn clock(&mut self, bytes: &[u8], parts: &[Vec<Span>], separators: &[&[u8]], out: &mut Writer) -> usize {
        if parts.len() < 3 || separators[0] != separators[1] || !matches!(separators[0], b":" | b".") {
            return 0;
        }
        if !parts[..3].iter().all(|part| part.iter().all(|span| span.1 - span.0 == 2)) {
            return 0;
        }
        let mut fraction = 0;
        if parts.len() > 3 && matches!(separators[2], b"." | b"," | b":") {
            let width = parts[3][0].1 - parts[3][0].0;
            if width <= 9 && parts[3].iter().all(|span| span.1 - span.0 == width) {
                fraction = width;
            }
        }
        let unit = 10u64.pow(fraction);
        self.numbers.clear();
        #[allow(clippy::needless_range_loop)] // up to four parts go side by side
        for i in 0..parts[0].len() {
            let two = |part: usize| parse_digits(slice(bytes, parts[part][i]));
            let (Some(h), Some(m), Some(s)) = (two(0), two(1), two(2)) else { return 0 };
            if m >= 60 || s >= 60 {
                return 0;
            }
            let mut value = (h * 60 + m) * 60 + s;
            if fraction > 0 {
                let Some(rest) = two(3) else { return 0 };
                value = value * unit + rest;
            }
            self.numbers.push(value);
        }
        out.head.push(1 + fraction as u8);
        ints::encode(&mut self.numbers, &mut self.ints, out);
        if fraction > 0 { 4 } else { 3 }
    }

    /// Packs hex digits when all values have them in the same places.
    fn hex(&mut self, bytes: &[u8], values: &[Span], out: &mut Writer) -> bool {
        let model = slice(bytes, values[0]);
        if model.len() > MAX_HEX_BYTES {
            return false;
        }
        // Per place: bit 0 differs from the model, bit 1 a-f, bit 2 A-F, bit 3 no hex digit.
        let mut seen = [0u8; MAX_HEX_BYTES];
        for &span in values {
            let value = slice(bytes, span);
            if value.len() != model.len() {
                return false;
            }
            for ((seen, &byte), &first) in seen.iter_mut().zip(value).zip(model) {
                *seen |= HEX_CLASS[byte as usize] | u8::from(byte != first);
            }
        }
        let mut pattern = [0u8; MAX_HEX_BYTES];
        let mut places = 0usize;
        for ((pattern, &seen), &first) in pattern.iter_mut().zip(&seen).zip(model) {
            *pattern = match (seen & 1, seen >> 1) {
                (0, _) if first > UPPER => first,
                (1, 0 | 1) => LOWER,
                (1, 2) => UPPER,
                _ => return false,
            };
            places += usize::from(*pattern <= UPPER);
        }
        let pattern = &pattern[..model.len()];
        out.head.push(HEX);
        put_varint(&mut out.head, pattern.len() as u64);
        out.head.extend_from_slice(pattern);
        if places <= 16 {
            self.numbers.clear();
            for &span in values {
                let value = slice(bytes, span).iter().zip(pattern).filter(|(_, place)| **place <= UPPER);
                self.numbers.push(value.fold(0, |sum, (&byte, _)| sum << 4 | u64::from(nibble(byte))));
            }
            ints::encode(&mut self.numbers, &mut self.ints, out);
            return true;
        }
        let mut half = None;
        for &span in values {
            for (&byte, &place) in slice(bytes, span).iter().zip(pattern) {
                if place <= UPPER {
                    match half.take() {
                        None => half = Some(nibble(byte)),
                        Some(high) => out.big.push(high << 4 | nibble(byte)),
                    }
                }
            }
        }
        if let Some(high) = half {
            out.big.push(high << 4);
        }
        true
    }

    /// Writes the values as they are, with their lengths.
    pub(crate) fn text(&mut self, bytes: &[u8], values: &[Span], out: &mut Writer) {
        out.head.push(TEXT);
        self.numbers.clear();
        let start = out.text.len();
        for &span in values {
            self.numbers.push(u64::from(span.1 - span.0));
            out.text.extend_from_slice(slice(bytes, span));
        }
        put_varint(&mut out.head, (out.text.len() - start) as u64);
        ints::encode(&mut self.numbers, &mut self.ints, out);
    }
}

/// Class bits of [`ColumnWriter::hex`] per byte.
static HEX_CLASS: [u8; 256] = {
    let mut table = [8u8; 256];
    let mut i = 0;
    while i < 256 {
        let byte = i as u8;
        if byte.is_ascii_digit() {
            table[i] = 0;
        } else if byte >= b'a' && byte <= b'f' {
            table[i] = 2;
        } else if byte >= b'A' && byte <= b'F' {
            table[i] = 4;
        }
        i += 1;
    }
    table
};

#[inline]
fn nibble(byte: u8) -> u8 {
    (byte & 0xf) + (byte >> 6) * 9
}

#[inline]
fn constant(bytes: &[u8], values: &[Span]) -> bool {
    let first = slice(bytes, values[0]);
    values[1..].iter().all(|&span| slice(bytes, span) == first)
}

fn equal(bytes: &[u8], left: &[Span], right: &[Span]) -> bool {
    left.iter().zip(right).all(|(&a, &b)| slice(bytes, a) == slice(bytes, b))
}

/// Places of the numbers in a value, with their sign where a `-` follows no letter or digit.
/// Nothing when there are none or too many, or when the value is one number.
#[inline]
fn cut(value: &[u8], places: &mut [Span; MAX_PARTS]) -> Option<usize> {
    let (mut count, mut at) = (0, 0);
    while at < value.len() {
        if !value[at].is_ascii_digit() {
            at += 1;
            continue;
        }
        let mut start = at;
        while at < value.len() && value[at].is_ascii_digit() {
            at += 1;
        }
        let signed = start > 0 && value[start - 1] == b'-';
        if signed && (start == 1 || !value[start - 2].is_ascii_alphanumeric()) {
            start -= 1;
        }
        if count == MAX_PARTS {
            return None;
        }
        places[count] = (start as u32, at as u32);
        count += 1;
    }
    let whole = count == 1 && places[0] == (0, value.len() as u32);
    (count > 0 && !whole).then_some(count)
}

/// Whether two values have the same text around their numbers.
#[inline]
fn same_between(
    a: &[u8],
    a_places: &[Span; MAX_PARTS],
    b: &[u8],
    b_places: &[Span; MAX_PARTS],
    count: usize,
) -> bool {
    let (mut i, mut j) = (0, 0);
    for (x, y) in a_places[..count].iter().zip(&b_places[..count]) {
        if a[i..x.0 as usize] != b[j..y.0 as usize] {
            return false;
        }
        (i, j) = (x.1 as usize, y.1 as usize);
    }
    a[i..] == b[j..]
}
