//! Writing one column: the values of one slot of one template in one block, or a part of them.
//!
//! Tried in this order, the first that fits wins: the same as an earlier column of the template;
//! constant; parts, when a time is among them; a dictionary shared by all columns of the block, when
//! values repeat; whole numbers; parts around digits, each a column of its own (dates, addresses);
//! hex digits of fixed places; text. The kinds and their bytes are in `FORMAT.md`; `column_read` is the other side.

use hashbrown::HashTable;

use crate::{
    dictionary::{Slot, class},
    index::IndexBuilder,
    ints::{self, IntScratch, bits_for},
    sections::Writer,
    values::{Span, digits, equal, hash, not_digits, number, slice, word},
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
/// Values shorter than this are not shared between columns.
const SHARED_BYTES: u32 = 7;
/// Values after which a column without repeats is not looked up further.
const PROBE: usize = 384;
/// Columns shorter than this do without a dictionary of their own.
const MIN_DICTIONARY: usize = 24;
/// After so many blocks a slot may have other habits.
const HABIT_BLOCKS: u8 = 8;
/// Where the text of a time has begun at the latest.
const MAX_TIME_START: usize = 32;
/// No id yet.
const NONE: u32 = u32::MAX;

struct Entry {
    hash: u64,
    span: Span,
    id: u32,
    column: u32,
    /// Classes of its bytes; 0 when it is not in the block's index yet.
    classes: u16,
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
    /// What the columns of the template at hand have in common.
    common: Vec<Slot>,
    habit: Habit,
}

/// How the values of a column are written as numbers.
struct Numbers {
    /// Digits of each value, 0 when there are no leading zeros.
    width: usize,
    signed: bool,
    min: u64,
    max: u64,
    /// Bit `n` is set when a value has `n` digits.
    lengths: u64,
}

/// What blocks before taught about a slot, so that what was in vain is not tried each time.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Habit {
    /// Bit 0: its values did not repeat enough for a dictionary; bit `1 + i`: those of part `i` did not.
    no_dictionary: u32,
    /// Blocks since all was tried.
    age: u8,
}

/// Where a column stands.
#[derive(Clone, Copy)]
struct Place {
    /// Its bit in [`Habit`].
    bit: u32,
    /// How many columns it lies in.
    depth: u32,
    /// Whether its values may be in terms of the dictionary.
    share: bool,
    /// Whether the runs of its values are to be entered into the index; if not, they are already.
    index: bool,
}

impl ColumnWriter {
    /// Forgets the values of the block before.
    pub(crate) fn start_block(&mut self) {
        self.values.table.clear();
        self.values.entries.clear();
        self.values.next_id = 0;
        self.column = 0;
    }

    /// Writes the columns of one template; `columns` holds them one after another, with equally many values
    /// each. Enters the values into the index and widens what is known of the slots.
    pub(crate) fn template(
        &mut self,
        text: &[u8],
        columns: &[Span],
        slots: &mut [Slot],
        habits: &mut [Habit],
        index: &mut IndexBuilder,
        out: &mut Writer,
    ) {
        self.common.clear();
        if slots.is_empty() {
            return;
        }
        let rows = columns.len() / slots.len();
        let slots = slots.iter_mut().zip(habits);
        for (i, (values, (slot, habit))) in columns.chunks_exact(rows).zip(slots).enumerate() {
            let common = if constant(text, values) {
                self.column += 1;
                let value = slice(text, values[0]);
                write_constant(value, out);
                Slot { classes: index.value(value), longest: value.len() as u32 }
            } else if let Some(earlier) =
                columns.chunks_exact(rows).take(i).position(|earlier| all_equal(text, earlier, values))
            {
                out.head.push(SAME);
                put_varint(&mut out.head, earlier as u64);
                self.common[earlier]
            } else {
                let longest = values.iter().map(|span| span.1 - span.0).max().unwrap_or(0);
                let place = Place { bit: 1, depth: 0, share: true, index: true };
                self.habit = if habit.age < HABIT_BLOCKS { *habit } else { Habit::default() };
                let classes = self.varied(text, values, place, index, out);
                self.habit.age += 1;
                *habit = self.habit;
                Slot { classes, longest }
            };
            slot.widen(common);
            self.common.push(common);
        }
    }

    /// Writes a column of any number of values; the classes of their bytes where they were indexed here.
    fn column(
        &mut self,
        text: &[u8],
        values: &[Span],
        place: Place,
        index: &mut IndexBuilder,
        out: &mut Writer,
    ) -> u16 {
        if values.is_empty() {
            return 0;
        }
        if constant(text, values) {
            self.column += 1;
            let value = slice(text, values[0]);
            write_constant(value, out);
            return if place.index { index.value(value) } else { 0 };
        }
        self.varied(text, values, place, index, out)
    }

    /// Writes a column whose values are not all the same.
    fn varied(
        &mut self,
        text: &[u8],
        values: &[Span],
        place: Place,
        index: &mut IndexBuilder,
        out: &mut Writer,
    ) -> u16 {
        self.column += 1;
        let numbers = self.numbers(text, values);
        let bits = match &numbers {
            Some(numbers) => bits_for(numbers.max - numbers.min),
            None => 64,
        };
        // Times go on by little: as differences they are shorter than as ids.
        if numbers.is_none()
            && place.depth + 1 < MAX_DEPTH
            && has_time(slice(text, values[0]))
            && let Some(classes) = self.parts(text, values, place, index, out)
        {
            return classes;
        }
        let repeats = place.share && bits > 8 && values.len() >= MIN_DICTIONARY;
        if repeats && self.habit.no_dictionary & place.bit == 0 {
            if let Some(classes) = self.dictionary(text, values, bits, place, index, out) {
                return classes;
            }
            self.habit.no_dictionary |= place.bit;
        }
        if let Some(numbers) = numbers {
            out.head.push(if numbers.signed { SIGNED } else { NUMBER });
            if !numbers.signed {
                put_varint(&mut out.head, numbers.width as u64);
            }
            ints::encode(&mut self.numbers, &mut self.ints, out);
            if place.index {
                index.digits(text, values, numbers.lengths);
            }
            return if numbers.signed { class::DIGIT | class::DASH } else { class::DIGIT };
        }
        if place.depth + 1 < MAX_DEPTH
            && let Some(classes) = self.parts(text, values, place, index, out)
        {
            return classes;
        }
        if !self.hex(text, values, out) {
            self.text(text, values, out);
        }
        if place.index { index.values(text, values) } else { 0 }
    }

    /// Fills `self.numbers` when every value is a whole number in one style.
    fn numbers(&mut self, text: &[u8], values: &[Span]) -> Option<Numbers> {
        self.numbers.clear();
        let (mut min, mut max, mut lengths) = (u64::MAX, 0, 0u64);
        let mut zero_led = false;
        for &span in values {
            let Some(value) = number(text, span) else {
                return if slice(text, span).first() == Some(&b'-') {
                    self.signed(text, values)
                } else {
                    None
                };
            };
            lengths |= 1 << (span.1 - span.0);
            zero_led |= text[span.0 as usize] == b'0' && span.1 - span.0 > 1;
            min = min.min(value);
            max = max.max(value);
            self.numbers.push(value);
        }
        if zero_led && !lengths.is_power_of_two() {
            return None;
        }
        let width = if zero_led { lengths.trailing_zeros() as usize } else { 0 };
        Some(Numbers { width, signed: false, min, max, lengths })
    }

    fn signed(&mut self, text: &[u8], values: &[Span]) -> Option<Numbers> {
        self.numbers.clear();
        let (mut min, mut max, mut lengths) = (u64::MAX, 0, 0u64);
        for &span in values {
            let negative = slice(text, span).first() == Some(&b'-');
            let place = (span.0 + u32::from(negative), span.1);
            let value = number(text, place)?;
            let zero_led = text[place.0 as usize] == b'0' && (place.1 - place.0 > 1 || negative);
            if zero_led || value > i64::MAX as u64 {
                return None;
            }
            // Zigzag: the sign is the lowest bit.
            let coded = if negative { value * 2 - 1 } else { value * 2 };
            lengths |= 1 << (place.1 - place.0);
            min = min.min(coded);
            max = max.max(coded);
            self.numbers.push(coded);
        }
        Some(Numbers { width: 0, signed: true, min, max, lengths })
    }

    /// Writes ids into the block's dictionary when the values repeat enough.
    fn dictionary(
        &mut self,
        text: &[u8],
        values: &[Span],
        bits: u32,
        place: Place,
        index: &mut IndexBuilder,
        out: &mut Writer,
    ) -> Option<u16> {
        self.found.clear();
        let (mut distinct, mut known, mut length) = (0usize, 0usize, 0usize);
        let column = self.column;
        let Values { table, entries, next_id } = &mut self.values;
        for (i, &span) in values.iter().enumerate() {
            length += (span.1 - span.0) as usize;
            if i > 0 && equal(text, values[i - 1], span) {
                self.found.push(self.found[i - 1]);
                continue;
            }
            let seed = if span.1 - span.0 < SHARED_BYTES { u64::from(column) } else { 0 };
            let hash = hash(text, span) ^ seed.wrapping_mul(0x9e37_79b9_7f4a_7c15);
            let same = |e: &u32| {
                let entry = &entries[*e as usize];
                entry.hash == hash && equal(text, entry.span, span)
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
                entries.push(Entry { hash, span, id: NONE, column, classes: 0 });
                distinct += 1;
                e
            };
            self.found.push(e);
            if i >= PROBE && distinct - known > i * 9 / 10 {
                return None;
            }
        }
        let n = values.len() as f32;
        let new = distinct - known;
        let value_bits =
            (length as f32 / n * 4.0).min(bits as f32).max(if bits < 64 { bits as f32 } else { 8.0 });
        let id_bits = (distinct.max(2) as f32).log2() * 0.85;
        if (n - new as f32) * value_bits < n * id_bits + 200.0 {
            return None;
        }
        let mut fresh = self.spare.pop().unwrap_or_default();
        fresh.clear();
        self.numbers.clear();
        let mut classes = 0;
        for &e in &self.found {
            let entry = &mut entries[e as usize];
            if entry.id == NONE {
                entry.id = *next_id;
                *next_id += 1;
                fresh.push(entry.span);
            }
            if entry.classes == 0 && place.index {
                entry.classes = index.value(slice(text, entry.span));
            }
            classes |= entry.classes;
            self.numbers.push(u64::from(entry.id));
        }
        out.head.push(DICTIONARY);
        put_varint(&mut out.head, fresh.len() as u64);
        let mut ids = std::mem::take(&mut self.numbers);
        let inner = Place { bit: 0, depth: place.depth + 1, share: false, index: false };
        self.column(text, &fresh, inner, index, out);
        ints::encode(&mut ids, &mut self.ints, out);
        self.numbers = ids;
        self.spare.push(fresh);
        Some(classes)
    }

    /// Cuts the values at their digits when all have the same text between them.
    fn parts(
        &mut self,
        text: &[u8],
        values: &[Span],
        place: Place,
        index: &mut IndexBuilder,
        out: &mut Writer,
    ) -> Option<u16> {
        let mut first = [(0u32, 0u32); MAX_PARTS];
        let model = slice(text, values[0]);
        let count = cut(model, &mut first)?;
        // Text before each part, and after the last.
        let mut between: [&[u8]; MAX_PARTS + 1] = [&[]; MAX_PARTS + 1];
        let mut at = 0;
        for (between, place) in
            between.iter_mut().zip(first[..count].iter().chain([&(model.len() as u32, 0)]))
        {
            *between = &model[at..place.0 as usize];
            at = place.1 as usize;
        }
        let between = &between[..=count];
        let mut columns: Vec<Vec<Span>> = (0..count).map(|_| self.spare.pop().unwrap_or_default()).collect();
        for column in &mut columns {
            column.clear();
        }
        let layout = Layout::new(model, &first[..count]);
        let fits = |&span: &Span| {
            if layout.as_ref().is_some_and(|layout| layout.fits(text, span)) {
                for (column, place) in columns.iter_mut().zip(&first) {
                    column.push((span.0 + place.0, span.0 + place.1));
                }
                return true;
            }
            cut_like(text, span, between, &mut columns)
        };
        if !values.iter().all(fits) {
            self.spare.append(&mut columns);
            return None;
        }
        // Where letters touch digits, a run is more than a part, and the values are entered whole.
        let apart = |(i, between): (usize, &&[u8])| {
            let letter = |byte: Option<&u8>| byte.is_some_and(u8::is_ascii_alphabetic);
            !(i > 0 && letter(between.first()) || i < count && letter(between.last()))
        };
        let by_part = between.iter().enumerate().all(apart);
        let mut classes = 0;
        if place.index {
            if by_part {
                classes |= between.iter().fold(0, |all, between| all | index.value(between));
            } else {
                classes |= index.values(text, values);
            }
        }
        let inner = Place { depth: place.depth + 1, index: place.index && by_part, ..place };
        out.head.push(PARTS);
        put_varint(&mut out.head, count as u64);
        for between in between {
            put_varint(&mut out.head, between.len() as u64);
            out.head.extend_from_slice(between);
        }
        let mut part = 0;
        while part < count {
            let used = self.clock(text, &columns[part..], &between[part + 1..count], out);
            if used == 0 {
                out.head.push(0);
                let bit = place.bit << (part + 1);
                classes |= self.column(text, &columns[part], Place { bit, ..inner }, index, out);
                part += 1;
                continue;
            }
            for part in columns[part..part + used].iter().filter(|_| inner.index) {
                classes |= class::DIGIT;
                index.digits(text, part, 1 << (part[0].1 - part[0].0));
            }
            part += used;
        }
        self.spare.append(&mut columns);
        Some(classes)
    }

    /// Writes `hh:mm:ss` with or without a fraction as one number; parts used, 0 when it is no time.
    fn clock(&mut self, text: &[u8], parts: &[Vec<Span>], separators: &[&[u8]], out: &mut Writer) -> usize {
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
        for (i, &(start, _)) in parts[0].iter().enumerate() {
            let (h, m, s) = clock(text, start);
            if m >= 60 || s >= 60 {
                return 0;
            }
            let mut value = (h * 60 + m) * 60 + s;
            if fraction > 0 {
                let Some(rest) = number(text, parts[3][i]) else { return 0 };
                value = value * unit + rest;
            }
            self.numbers.push(value);
        }
        out.head.push(1 + fraction as u8);
        ints::encode(&mut self.numbers, &mut self.ints, out);
        if fraction > 0 { 4 } else { 3 }
    }

    /// Packs hex digits when all values have them in the same places.
    fn hex(&mut self, text: &[u8], values: &[Span], out: &mut Writer) -> bool {
        let model = slice(text, values[0]);
        if model.len() > MAX_HEX_BYTES {
            return false;
        }
        // Per place: bit 0 differs from the model, bit 1 a-f, bit 2 A-F, bit 3 no hex digit.
        let mut seen = [0u8; MAX_HEX_BYTES];
        for &span in values {
            let value = slice(text, span);
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
                let value = slice(text, span).iter().zip(pattern).filter(|(_, place)| **place <= UPPER);
                self.numbers.push(value.fold(0, |sum, (&byte, _)| sum << 4 | u64::from(nibble(byte))));
            }
            ints::encode(&mut self.numbers, &mut self.ints, out);
            return true;
        }
        let mut half = None;
        for &span in values {
            for (&byte, &place) in slice(text, span).iter().zip(pattern) {
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
    pub(crate) fn text(&mut self, text: &[u8], values: &[Span], out: &mut Writer) {
        out.head.push(TEXT);
        self.numbers.clear();
        let start = out.text.len();
        for &span in values {
            self.numbers.push(u64::from(span.1 - span.0));
            out.text.extend_from_slice(slice(text, span));
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

fn write_constant(value: &[u8], out: &mut Writer) {
    out.head.push(CONSTANT);
    put_varint(&mut out.head, value.len() as u64);
    out.head.extend_from_slice(value);
}

fn constant(text: &[u8], values: &[Span]) -> bool {
    values[1..].iter().all(|&span| equal(text, span, values[0]))
}

fn all_equal(text: &[u8], left: &[Span], right: &[Span]) -> bool {
    left.iter().zip(right).all(|(&a, &b)| equal(text, a, b))
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

/// Most words of a [`Layout`].
const LAYOUT_WORDS: usize = 4;

/// A value of which others differ in nothing but digits: most times and ids do, and are cut all alike.
struct Layout {
    len: u32,
    words: usize,
    /// The bytes of the value.
    model: [u64; LAYOUT_WORDS],
    /// All bits of the bytes that are no digits.
    fixed: [u64; LAYOUT_WORDS],
    /// The highest bit of the bytes that are digits.
    digits: [u64; LAYOUT_WORDS],
}

impl Layout {
    /// Nothing for a value that is too long. `places` are its numbers, with their signs.
    fn new(model: &[u8], places: &[Span]) -> Option<Self> {
        let mut bytes = [[0u8; 3]; LAYOUT_WORDS * 8];
        let used = bytes.get_mut(..model.len())?;
        for (bytes, &byte) in used.iter_mut().zip(model) {
            *bytes = [byte, 0xff, 0];
        }
        for &(start, end) in places {
            for bytes in &mut used[start as usize..end as usize] {
                if bytes[0].is_ascii_digit() {
                    *bytes = [bytes[0], 0, 0x80];
                }
            }
        }
        let words = |field: usize| {
            std::array::from_fn(|i| u64::from_le_bytes(std::array::from_fn(|j| bytes[i * 8 + j][field])))
        };
        let len = model.len() as u32;
        Some(Self { len, words: model.len().div_ceil(8), model: words(0), fixed: words(1), digits: words(2) })
    }

    #[inline]
    fn fits(&self, text: &[u8], span: Span) -> bool {
        let mut differ = 0;
        for i in 0..self.words {
            let word = word(text, span.0 as usize + i * 8);
            differ |= (word ^ self.model[i]) & self.fixed[i] | not_digits(word) & self.digits[i];
        }
        self.len == span.1 - span.0 && differ == 0
    }
}

/// Whether `hh:mm:ss` stands somewhere in the value.
fn has_time(value: &[u8]) -> bool {
    let two = |at: usize| value[at].is_ascii_digit() && value[at + 1].is_ascii_digit();
    (0..value.len().min(MAX_TIME_START).saturating_sub(7))
        .any(|at| value[at + 2] == b':' && value[at + 5] == b':' && two(at) && two(at + 3) && two(at + 6))
}

/// Hours, minutes and seconds of the text `hh:mm:ss` with whatever separators.
#[inline]
fn clock(text: &[u8], at: u32) -> (u64, u64, u64) {
    let digits = word(text, at as usize) & 0x0f0f_000f_0f00_0f0f;
    let pairs = digits * 10 + (digits >> 8);
    (pairs & 0xff, pairs >> 24 & 0xff, pairs >> 48 & 0xff)
}

/// Appends the places of the numbers in a value to `columns`, when the text between them is this.
#[inline]
fn cut_like(text: &[u8], span: Span, between: &[&[u8]], columns: &mut [Vec<Span>]) -> bool {
    let (last, before) = between.split_last().expect("BUG: text follows the last part");
    let (start, end) = (span.0 as usize, span.1 as usize);
    let mut at = start;
    for (between, column) in before.iter().zip(columns) {
        for &byte in *between {
            if at == end || text[at] != byte {
                return false;
            }
            at += 1;
        }
        let from = at;
        // A sign is part of the number where it follows no letter or digit.
        if at < end && text[at] == b'-' && (at == start || !text[at - 1].is_ascii_alphanumeric()) {
            at += 1;
        }
        let first = at;
        loop {
            let found = digits(text, at) as usize;
            at += found;
            if found < 8 || at >= end {
                break;
            }
        }
        at = at.min(end);
        if at <= first {
            return false;
        }
        column.push((from as u32, at as u32));
    }
    text[at..end] == **last
}
