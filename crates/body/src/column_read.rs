//! Reading the columns that `column` wrote back into text.

use crate::{
    BodyError,
    column::{
        CONSTANT, DICTIONARY, HEX, LOWER, MAX_DEPTH, MAX_HEX_BYTES, MAX_PARTS, NUMBER, PARTS, SAME, SIGNED,
        TEXT, UPPER,
    },
    dictionary::class,
    ints,
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
        self.column(n, None, &[], 0, true)
    }

    /// Reads a column of `n` values into `out`; `earlier` are those of the same template before it.
    pub(crate) fn read(&mut self, n: usize, earlier: &[Texts], out: &mut Texts) -> Result<(), BodyError> {
        out.clear();
        self.column(n, Some(out), earlier, 0, true)?;
        if out.ends.len() == n {
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

    /// `share`: whether the column may be in terms of the dictionary; its own values may not.
    fn column(
        &mut self,
        n: usize,
        out: Option<&mut Texts>,
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
        let kind = self.sections.head.u8()?;
        match kind {
            CONSTANT => {
                let len = self.sections.head.bounded(u32::MAX as usize)?;
                let value = self.sections.head.take(len)?;
                if let Some(out) = out {
                    self.spend(len.saturating_mul(n))?;
                    for _ in 0..n {
                        out.bytes.extend_from_slice(value);
                        out.close();
                    }
                }
                Ok(())
            }
            NUMBER => {
                let width = self.sections.head.bounded(MAX_DIGITS)?;
                self.numbers(n, out, |value, out| push_number(value, width, out))
            }
            SIGNED => self.numbers(n, out, |value, out| {
                if value & 1 == 1 {
                    out.push(b'-');
                }
                push_number(value / 2 + (value & 1), 0, out);
            }),
            DICTIONARY if share => self.dictionary(n, out, depth),
            PARTS => self.parts(n, out, depth, share),
            HEX => self.hex(n, out),
            TEXT => self.text(n, out),
            SAME => {
                let i = self.sections.head.bounded(usize::MAX)?;
                let Some(out) = out else { return Ok(()) };
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
        out: Option<&mut Texts>,
        push: impl Fn(u64, &mut Vec<u8>),
    ) -> Result<(), BodyError> {
        ints::decode(n, out.is_none(), &mut self.sections, &mut self.buffers.numbers)?;
        if let Some(out) = out {
            self.spend(n * 20)?;
            out.bytes.reserve(n * 8);
            out.ends.reserve(n);
            for &value in &self.buffers.numbers {
                push(value, &mut out.bytes);
                out.ends.push(out.bytes.len() as u32);
            }
        }
        Ok(())
    }

    fn dictionary(&mut self, n: usize, out: Option<&mut Texts>, depth: u32) -> Result<(), BodyError> {
        let count = self.sections.head.bounded(n)?;
        let position = self.sections.position();
        let first = self.buffers.spans.len() as u32;
        self.column(count, None, &[], depth + 1, false)?;
        self.buffers.spans.resize(first as usize + count, UNREAD);
        self.segments.push(Segment { first, count, depth: depth + 1, position });
        ints::decode(n, out.is_none(), &mut self.sections, &mut self.buffers.numbers)?;
        let Some(out) = out else { return Ok(()) };
        let ids = std::mem::take(&mut self.buffers.numbers);
        let mut bytes = 0usize;
        for &id in &ids {
            let span = self.buffers.spans.get(id as usize).copied();
            let mut span = span.ok_or(BodyError::Corrupt("a dictionary id is past the end"))?;
            if span == UNREAD {
                self.read_segment(id as u32)?;
                span = self.buffers.spans[id as usize];
            }
            bytes += (span.1 - span.0) as usize;
        }
        self.spend(bytes)?;
        out.bytes.reserve(bytes);
        out.ends.reserve(n);
        for &id in &ids {
            let (start, end) = self.buffers.spans[id as usize];
            append(&mut out.bytes, &self.buffers.words, start as usize, end as usize);
            out.close();
        }
        self.buffers.numbers = ids;
        Ok(())
    }

    /// Reads the dictionary segment that holds the id.
    fn read_segment(&mut self, id: u32) -> Result<(), BodyError> {
        let i = self.segments.partition_point(|segment| segment.first <= id);
        let segment = i.checked_sub(1).and_then(|i| self.segments.get(i));
        let segment = segment.ok_or(BodyError::Corrupt("a dictionary id is past the end"))?;
        let (first, count, depth, position) =
            (segment.first as usize, segment.count, segment.depth, segment.position);
        let here = self.sections.position();
        self.sections.seek(position);
        let mut texts = self.buffers.spare.pop().unwrap_or_default();
        texts.clear();
        let read = self.column(count, Some(&mut texts), &[], depth, false);
        self.sections.seek(here);
        read?;
        if texts.ends.len() != count || first + count > self.buffers.spans.len() {
            return Err(BodyError::Corrupt("a dictionary has another number of values"));
        }
        let base = self.buffers.words.len();
        if base + texts.bytes.len() > u32::MAX as usize {
            return Err(BodyError::Corrupt("values are larger than any writer makes"));
        }
        self.buffers.words.extend_from_slice(&texts.bytes);
        let mut start = base as u32;
        for (span, &end) in self.buffers.spans[first..].iter_mut().zip(&texts.ends) {
            *span = (start, base as u32 + end);
            start = span.1;
        }
        self.buffers.spare.push(texts);
        Ok(())
    }

    fn parts(&mut self, n: usize, out: Option<&mut Texts>, depth: u32, share: bool) -> Result<(), BodyError> {
        let count = self.sections.head.bounded(MAX_PARTS)?;
        let mut separators: [&[u8]; MAX_PARTS + 1] = [&[]; MAX_PARTS + 1];
        let mut between = 0;
        for separator in &mut separators[..=count] {
            let len = self.sections.head.bounded(u32::MAX as usize)?;
            *separator = self.sections.head.take(len)?;
            between += len;
        }
        // Per part its column, or the fraction digits of a time and the parts that it fills.
        let mut columns: Vec<(Texts, usize)> = Vec::with_capacity(if out.is_some() { count } else { 0 });
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
            if out.is_some() {
                texts = self.buffers.spare.pop().unwrap_or_default();
                texts.clear();
            }
            let target = out.is_some().then_some(&mut texts);
            if kind == 0 {
                self.column(n, target, &[], depth + 1, share)?;
            } else {
                let fraction = usize::from(kind - 1);
                let separators = &separators[part + 1..part + used];
                self.numbers(n, target, |value, out| push_clock(value, fraction, separators, out))?;
            }
            if out.is_some() {
                if texts.ends.len() != n {
                    return Err(BodyError::Corrupt("a part has another number of values"));
                }
                columns.push((texts, part));
            }
            part += used;
        }
        let Some(out) = out else { return Ok(()) };
        let total: usize = columns.iter().map(|(texts, _)| texts.bytes.len()).sum();
        self.spend(total.saturating_add(between.saturating_mul(n)))?;
        out.bytes.reserve(total + between * n);
        out.ends.reserve(n);
        for i in 0..n {
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

    fn hex(&mut self, n: usize, out: Option<&mut Texts>) -> Result<(), BodyError> {
        let len = self.sections.head.bounded(MAX_HEX_BYTES)?;
        let pattern = self.sections.head.take(len)?;
        let places = pattern.iter().filter(|place| **place <= UPPER).count();
        if places <= 16 {
            return self.numbers(n, out, |value, out| {
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
        let Some(out) = out else { return Ok(()) };
        self.spend(n * len)?;
        out.bytes.reserve(n * len);
        let mut at = 0usize;
        for _ in 0..n {
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

    fn text(&mut self, n: usize, out: Option<&mut Texts>) -> Result<(), BodyError> {
        let total = self.sections.head.bounded(MAX_VALUE_BYTES)?;
        ints::decode(n, out.is_none(), &mut self.sections, &mut self.buffers.numbers)?;
        let bytes = self.sections.text(total, out.is_none())?;
        let (Some(out), Some(bytes)) = (out, bytes) else { return Ok(()) };
        let mut end = out.bytes.len() as u64;
        out.bytes.extend_from_slice(bytes);
        for &len in &self.buffers.numbers {
            end = end.saturating_add(len);
            if end > out.bytes.len() as u64 {
                return Err(BodyError::Corrupt("lengths of values exceed their text"));
            }
            out.ends.push(end as u32);
        }
        if end != out.bytes.len() as u64 {
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
    push_number(seconds / 3600, 2, out);
    out.extend_from_slice(separators[0]);
    push_number(seconds / 60 % 60, 2, out);
    out.extend_from_slice(separators[1]);
    push_number(seconds % 60, 2, out);
    if fraction > 0 {
        out.extend_from_slice(separators[2]);
        push_number(rest, fraction, out);
    }
}
