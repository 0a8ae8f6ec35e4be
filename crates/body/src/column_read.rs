//! Reading the columns that `column` wrote back into text.

use crate::{
    BodyError,
    column::{
        CONSTANT, DICTIONARY, HEX, LOWER, MAX_DEPTH, MAX_HEX_BYTES, MAX_PARTS, NUMBER, PARTS, SAME, SIGNED,
        TEXT, UPPER,
    },
    dictionary::class,
    ints::{self, Wanted},
    query::Literal,
    sections::{Position, Sections},
    values::MAX_DIGITS,
    wire::append,
};

/// Most bytes that the values read from one block may take together; guards against corrupt lengths.
const MAX_VALUE_BYTES: usize = 2 << 30;

/// Values end to end.
#[derive(Default, Debug)]
pub(crate) struct Texts {
    pub(crate) bytes: Vec<u8>,
    pub(crate) ends: Vec<u32>,
}

impl Texts {
    pub(crate) fn clear(&mut self) {
        self.bytes.clear();
        self.ends.clear();
    }

    #[inline]
    fn close(&mut self) {
        self.ends.push(self.bytes.len() as u32);
    }

    #[inline]
    pub(crate) fn get(&self, i: usize) -> &[u8] {
        let (start, end) = self.place(i);
        &self.bytes[start..end]
    }

    #[inline]
    pub(crate) fn place(&self, i: usize) -> (usize, usize) {
        (if i == 0 { 0 } else { self.ends[i - 1] as usize }, self.ends[i] as usize)
    }
}

/// Values that some column brought into the block's dictionary, read when first asked for.
#[derive(Clone, Copy)]
struct Segment<'a> {
    first: u32,
    count: usize,
    depth: u32,
    position: Position<'a>,
}

/// Buffers of [`ColumnReader`], reused.
#[derive(Default)]
pub(crate) struct ReadBuffers {
    numbers: Vec<u64>,
    spare: Vec<Texts>,
    words: Vec<u8>,
    /// Start and end in `words` per dictionary id; [`UNREAD`] before its segment was read.
    spans: Vec<(u32, u32)>,
    /// Dictionary ids that must be read, and their places in their segment.
    unread: Vec<u32>,
    places: Vec<u32>,
}

const UNREAD: (u32, u32) = (u32::MAX, 0);

/// Reads the columns of one block in order.
pub(crate) struct ColumnReader<'a, 'b> {
    pub(crate) sections: Sections<'a>,
    buffers: &'b mut ReadBuffers,
    segments: Vec<Segment<'a>>,
    budget: usize,
}

impl<'a, 'b> ColumnReader<'a, 'b> {
    pub(crate) fn new(sections: Sections<'a>, buffers: &'b mut ReadBuffers) -> Self {
        buffers.words.clear();
        buffers.spans.clear();
        Self { sections, buffers, segments: Vec::new(), budget: MAX_VALUE_BYTES }
    }

    /// Passes a column of `n` values by.
    pub(crate) fn skip(&mut self, n: usize) -> Result<(), BodyError> {
        self.column(n, Wanted::Nothing, &mut Texts::default(), &[], 0, true)
    }

    /// Reads the wanted ones of a column of `n` values into `out`; `earlier` are those of the same template
    /// before it.
    pub(crate) fn read(
        &mut self,
        n: usize,
        wanted: Wanted<'_>,
        earlier: &[Texts],
        out: &mut Texts,
    ) -> Result<(), BodyError> {
        out.clear();
        self.column(n, wanted, out, earlier, 0, true)?;
        if out.ends.len() == wanted.count(n) {
            Ok(())
        } else {
            Err(BodyError::Corrupt("a column has another number of values"))
        }
    }

    /// Whether all values of the next column hold the literal, or none does, when its descriptor
    /// tells; nothing is read.
    pub(crate) fn probe(&self, literal: &Literal) -> Option<bool> {
        const NUMERIC: u16 = class::DIGIT | class::DASH;
        let mut head = self.sections.head;
        match head.u8().ok()? {
            CONSTANT => {
                let len = head.bounded(u32::MAX as usize).ok()?;
                Some(literal.finder.find(head.take(len).ok()?).is_some())
            }
            NUMBER | SIGNED if literal.classes & !NUMERIC != 0 => Some(false),
            // Parts are numbers, so a literal without digits lies between two of them.
            PARTS if literal.classes & NUMERIC == 0 => {
                let mut holds = false;
                for _ in 0..=head.bounded(MAX_PARTS).ok()? {
                    let len = head.bounded(u32::MAX as usize).ok()?;
                    holds |= literal.finder.find(head.take(len).ok()?).is_some();
                }
                Some(holds)
            }
            HEX => {
                let len = head.bounded(MAX_HEX_BYTES).ok()?;
                let fixed = head.take(len).ok()?.iter().filter(|place| **place > UPPER);
                let hex = class::DIGIT | class::LOWER_HEX | class::UPPER_HEX;
                let classes = fixed.fold(hex, |all, &byte| all | class::OF[byte as usize]);
                (literal.classes & !classes != 0).then_some(false)
            }
            _ => None,
        }
    }

    fn spend(&mut self, bytes: usize) -> Result<(), BodyError> {
        match self.budget.checked_sub(bytes) {
            Some(rest) => {
                self.budget = rest;
                Ok(())
            }
            None => Err(BodyError::Corrupt("values are larger than any writer makes")),
        }
    }

    /// Appends the wanted values to `out`. `share`: whether the column may be in terms of the dictionary; its
    /// own values may not.
    fn column(
        &mut self,
        n: usize,
        wanted: Wanted<'_>,
        out: &mut Texts,
        earlier: &[Texts],
        depth: u32,
        share: bool,
    ) -> Result<(), BodyError> {
        if n == 0 {
            return Ok(());
        }
        if depth >= MAX_DEPTH {
            return Err(BodyError::Corrupt("columns nest too deep"));
        }
        let count = wanted.count(n);
        let kind = self.sections.head.u8()?;
        match kind {
            CONSTANT => {
                let len = self.sections.head.bounded(u32::MAX as usize)?;
                let value = self.sections.head.take(len)?;
                self.spend(len.saturating_mul(count))?;
                for _ in 0..count {
                    out.bytes.extend_from_slice(value);
                    out.close();
                }
                Ok(())
            }
            NUMBER => {
                let width = self.sections.head.bounded(MAX_DIGITS)?;
                self.numbers(n, wanted, out, |value, out| push_number(value, width, out))
            }
            SIGNED => self.numbers(n, wanted, out, |value, out| {
                if value & 1 == 1 {
                    out.push(b'-');
                }
                push_number(value / 2 + (value & 1), 0, out);
            }),
            DICTIONARY if share => self.dictionary(n, wanted, out, depth),
            PARTS => self.parts(n, wanted, out, depth, share),
            HEX => self.hex(n, wanted, out),
            TEXT => self.text(n, wanted, out),
            SAME => {
                let i = self.sections.head.bounded(usize::MAX)?;
                if count == 0 {
                    return Ok(());
                }
                let same =
                    earlier.get(i).ok_or(BodyError::Corrupt("a column repeats one that is not there"))?;
                self.spend(same.bytes.len())?;
                out.bytes.extend_from_slice(&same.bytes);
                out.ends.extend_from_slice(&same.ends);
                Ok(())
            }
            _ => Err(BodyError::Corrupt("a column is of an unknown kind")),
        }
    }

    fn numbers(
        &mut self,
        n: usize,
        wanted: Wanted<'_>,
        out: &mut Texts,
        push: impl Fn(u64, &mut Vec<u8>),
    ) -> Result<(), BodyError> {
        ints::decode(n, wanted, &mut self.sections, &mut self.buffers.numbers)?;
        let count = self.buffers.numbers.len();
        self.spend(count * 20)?;
        out.bytes.reserve(count * 8);
        out.ends.reserve(count);
        for &value in &self.buffers.numbers {
            push(value, &mut out.bytes);
            out.ends.push(out.bytes.len() as u32);
        }
        Ok(())
    }

    fn dictionary(
        &mut self,
        n: usize,
        wanted: Wanted<'_>,
        out: &mut Texts,
        depth: u32,
    ) -> Result<(), BodyError> {
        let count = self.sections.head.bounded(n)?;
        let position = self.sections.position();
        let first = self.buffers.spans.len() as u32;
        self.column(count, Wanted::Nothing, &mut Texts::default(), &[], depth + 1, false)?;
        self.buffers.spans.resize(first as usize + count, UNREAD);
        self.segments.push(Segment { first, count, depth: depth + 1, position });
        ints::decode(n, wanted, &mut self.sections, &mut self.buffers.numbers)?;
        let ids = std::mem::take(&mut self.buffers.numbers);
        self.read_words(&ids, matches!(wanted, Wanted::All))?;
        let length = |id: &u64| {
            let (start, end) = self.buffers.spans[*id as usize];
            (end - start) as usize
        };
        let bytes = ids.iter().map(length).sum();
        self.spend(bytes)?;
        out.bytes.reserve(bytes);
        out.ends.reserve(ids.len());
        for &id in &ids {
            let (start, end) = self.buffers.spans[id as usize];
            append(&mut out.bytes, &self.buffers.words, start as usize, end as usize);
            out.close();
        }
        self.buffers.numbers = ids;
        Ok(())
    }

    /// Sees to it that the values of these ids are read; with `whole`, the segments they lie in at once.
    fn read_words(&mut self, ids: &[u64], whole: bool) -> Result<(), BodyError> {
        const PAST_END: BodyError = BodyError::Corrupt("a dictionary id is past the end");
        let mut unread = std::mem::take(&mut self.buffers.unread);
        unread.clear();
        for &id in ids {
            let id = usize::try_from(id).unwrap_or(usize::MAX);
            if *self.buffers.spans.get(id).ok_or(PAST_END)? == UNREAD {
                if whole {
                    self.read_segment(self.segment_of(id as u32)?, Wanted::All)?;
                } else {
                    unread.push(id as u32);
                }
            }
        }
        unread.sort_unstable();
        unread.dedup();
        let mut places = std::mem::take(&mut self.buffers.places);
        let mut rest = unread.as_slice();
        while let Some(&id) = rest.first() {
            let i = self.segment_of(id)?;
            let Segment { first, count, .. } = self.segments[i];
            let here = rest.partition_point(|&id| ((id - first) as usize) < count);
            places.clear();
            places.extend(rest[..here].iter().map(|id| id - first));
            self.read_segment(i, Wanted::These(&places))?;
            rest = &rest[here..];
        }
        (self.buffers.unread, self.buffers.places) = (unread, places);
        Ok(())
    }

    /// The dictionary segment that holds the id.
    fn segment_of(&self, id: u32) -> Result<usize, BodyError> {
        let i = self.segments.partition_point(|segment| segment.first <= id);
        let holds = |i: &usize| ((id - self.segments[*i].first) as usize) < self.segments[*i].count;
        i.checked_sub(1).filter(holds).ok_or(BodyError::Corrupt("a dictionary id is past the end"))
    }

    /// Reads values of a dictionary segment.
    fn read_segment(&mut self, i: usize, wanted: Wanted<'_>) -> Result<(), BodyError> {
        let Segment { first, count, depth, position } = self.segments[i];
        let here = self.sections.position();
        self.sections.seek(position);
        let mut texts = self.buffers.spare.pop().unwrap_or_default();
        texts.clear();
        let read = self.column(count, wanted, &mut texts, &[], depth, false);
        self.sections.seek(here);
        read?;
        if texts.ends.len() != wanted.count(count) {
            return Err(BodyError::Corrupt("a dictionary has another number of values"));
        }
        let base = self.buffers.words.len();
        if base + texts.bytes.len() > u32::MAX as usize {
            return Err(BodyError::Corrupt("values are larger than any writer makes"));
        }
        self.buffers.words.extend_from_slice(&texts.bytes);
        let mut start = base as u32;
        for (i, &end) in texts.ends.iter().enumerate() {
            let place = match wanted {
                Wanted::These(places) => places[i] as usize,
                _ => i,
            };
            self.buffers.spans[first as usize + place] = (start, base as u32 + end);
            start = base as u32 + end;
        }
        self.buffers.spare.push(texts);
        Ok(())
    }

    fn parts(
        &mut self,
        n: usize,
        wanted: Wanted<'_>,
        out: &mut Texts,
        depth: u32,
        share: bool,
    ) -> Result<(), BodyError> {
        let count = self.sections.head.bounded(MAX_PARTS)?;
        let mut separators: [&[u8]; MAX_PARTS + 1] = [&[]; MAX_PARTS + 1];
        let mut between = 0;
        for separator in &mut separators[..=count] {
            let len = self.sections.head.bounded(u32::MAX as usize)?;
            *separator = self.sections.head.take(len)?;
            between += len;
        }
        let values = wanted.count(n);
        // Per part its column, or the fraction digits of a time and the parts that it fills.
        let mut columns: Vec<(Texts, usize)> = Vec::with_capacity(if values > 0 { count } else { 0 });
        let mut part = 0;
        while part < count {
            let kind = self.sections.head.u8()?;
            let used = match kind {
                0 => 1,
                1 => 3,
                _ => 4,
            };
            if kind > 10 || part + used > count {
                return Err(BodyError::Corrupt("a time has more parts than its value"));
            }
            let mut texts = Texts::default();
            if values > 0 {
                texts = self.buffers.spare.pop().unwrap_or_default();
                texts.clear();
            }
            if kind == 0 {
                self.column(n, wanted, &mut texts, &[], depth + 1, share)?;
            } else {
                let fraction = usize::from(kind - 1);
                let separators = &separators[part + 1..part + used];
                self.numbers(n, wanted, &mut texts, |value, out| {
                    push_clock(value, fraction, separators, out);
                })?;
            }
            if values > 0 {
                if texts.ends.len() != values {
                    return Err(BodyError::Corrupt("a part has another number of values"));
                }
                columns.push((texts, part));
            }
            part += used;
        }
        let total: usize = columns.iter().map(|(texts, _)| texts.bytes.len()).sum();
        self.spend(total.saturating_add(between.saturating_mul(values)))?;
        out.bytes.reserve(total + between * values);
        out.ends.reserve(values);
        for i in 0..values {
            for (texts, part) in &columns {
                out.bytes.extend_from_slice(separators[*part]);
                let (start, end) = texts.place(i);
                append(&mut out.bytes, &texts.bytes, start, end);
            }
            out.bytes.extend_from_slice(separators[count]);
            out.close();
        }
        self.buffers.spare.extend(columns.into_iter().map(|(texts, _)| texts));
        Ok(())
    }

    fn hex(&mut self, n: usize, wanted: Wanted<'_>, out: &mut Texts) -> Result<(), BodyError> {
        let len = self.sections.head.bounded(MAX_HEX_BYTES)?;
        let pattern = self.sections.head.take(len)?;
        let places = pattern.iter().filter(|place| **place <= UPPER).count();
        if places <= 16 {
            return self.numbers(n, wanted, out, |value, out| {
                let mut shift = places * 4;
                for &place in pattern {
                    if place <= UPPER {
                        shift -= 4;
                        out.push(hex_digit((value >> shift) as u8 & 0xf, place));
                    } else {
                        out.push(place);
                    }
                }
            });
        }
        let packed = self.sections.big.take((n * places).div_ceil(2))?;
        let count = wanted.count(n);
        self.spend(count * len)?;
        out.bytes.reserve(count * len);
        for i in 0..count {
            let value = match wanted {
                Wanted::These(places) => places[i] as usize,
                _ => i,
            };
            let mut at = value * places;
            for &place in pattern {
                if place <= UPPER {
                    let byte = packed[at >> 1];
                    out.bytes.push(hex_digit(if at & 1 == 0 { byte >> 4 } else { byte & 0xf }, place));
                    at += 1;
                } else {
                    out.bytes.push(place);
                }
            }
            out.close();
        }
        Ok(())
    }

    fn text(&mut self, n: usize, wanted: Wanted<'_>, out: &mut Texts) -> Result<(), BodyError> {
        let total = self.sections.head.bounded(MAX_VALUE_BYTES)?;
        let skip = matches!(wanted, Wanted::Nothing);
        // Where a value starts, all lengths before it tell.
        let lengths = if skip { Wanted::Nothing } else { Wanted::All };
        ints::decode(n, lengths, &mut self.sections, &mut self.buffers.numbers)?;
        let Some(bytes) = self.sections.text(total, skip)? else { return Ok(()) };
        let base = out.bytes.len() as u64;
        let mut places = match wanted {
            Wanted::These(places) => Some(places.iter().map(|place| *place as usize).peekable()),
            _ => None,
        };
        if places.is_none() {
            out.bytes.extend_from_slice(bytes);
        }
        let mut end = 0u64;
        for (i, &len) in self.buffers.numbers.iter().enumerate() {
            let start = end;
            end = end.saturating_add(len);
            if end > total as u64 {
                return Err(BodyError::Corrupt("lengths of values exceed their text"));
            }
            match &mut places {
                None => out.ends.push((base + end) as u32),
                Some(places) => {
                    if places.next_if_eq(&i).is_some() {
                        out.bytes.extend_from_slice(&bytes[start as usize..end as usize]);
                        out.close();
                    }
                }
            }
        }
        if end != total as u64 {
            return Err(BodyError::Corrupt("lengths of values fall short of their text"));
        }
        self.spend(total)
    }
}

#[inline]
fn hex_digit(value: u8, place: u8) -> u8 {
    if place == LOWER { b"0123456789abcdef"[value as usize] } else { b"0123456789ABCDEF"[value as usize] }
}

/// Two decimal digits per number below 100.
static PAIRS: [[u8; 2]; 100] = {
    let mut pairs = [[0; 2]; 100];
    let mut i = 0;
    while i < 100 {
        pairs[i] = [b'0' + (i / 10) as u8, b'0' + (i % 10) as u8];
        i += 1;
    }
    pairs
};

/// Appends the number with at least `width` (at most 20) digits.
#[inline]
pub(crate) fn push_number(mut value: u64, width: usize, out: &mut Vec<u8>) {
    if value < 100 && width <= 2 {
        let pair = PAIRS[value as usize];
        let from = usize::from(value < 10 && width < 2);
        out.extend_from_slice(&pair[from..]);
        return;
    }
    let mut digits = [b'0'; 20];
    let mut at = 20;
    while value >= 100 {
        at -= 2;
        digits[at..at + 2].copy_from_slice(&PAIRS[(value % 100) as usize]);
        value /= 100;
    }
    if value >= 10 {
        at -= 2;
        digits[at..at + 2].copy_from_slice(&PAIRS[value as usize]);
    } else {
        at -= 1;
        digits[at] = b'0' + value as u8;
    }
    out.extend_from_slice(&digits[at.min(20 - width.min(20))..]);
}

#[inline]
fn push_clock(value: u64, fraction: usize, separators: &[&[u8]], out: &mut Vec<u8>) {
    let unit = 10u64.pow(fraction as u32);
    let (seconds, rest) = (value / unit, value % unit);
    if let (&[first], &[second]) = (separators[0], separators[1])
        && seconds < 100 * 3600
    {
        let seconds = seconds as u32;
        let two = |value: u32| PAIRS[value as usize];
        let [hours, minutes, rest] = [two(seconds / 3600), two(seconds / 60 % 60), two(seconds % 60)];
        let text = [hours[0], hours[1], first, minutes[0], minutes[1], second, rest[0], rest[1]];
        out.extend_from_slice(&text);
    } else {
        push_number(seconds / 3600, 2, out);
        out.extend_from_slice(separators[0]);
        push_number(seconds / 60 % 60, 2, out);
        out.extend_from_slice(separators[1]);
        push_number(seconds % 60, 2, out);
    }
    if fraction > 0 {
        out.extend_from_slice(separators[2]);
        push_number(rest, fraction, out);
    }
}
