//! The templates of one segment: text, and what their variables may look like.

use std::sync::OnceLock;

use crate::{
    BodyError,
    miner::{MARK, MAX_SLOTS},
    sections::{compress, compressor, expand},
    wire::{Reader, put_varint},
};

/// Version of the dictionary format, see `FORMAT.md`.
const VERSION: u8 = 1;
/// Level for the dictionary: small, written once, read often.
const LEVEL: i32 = 3;
/// Largest dictionary before compression, in bytes.
const MAX_BYTES: usize = 256 << 20;

/// Classes of bytes that occur in a slot, one bit each.
pub(crate) mod class {
    pub(crate) const DIGIT: u16 = 1;
    pub(crate) const LOWER_HEX: u16 = 1 << 1;
    pub(crate) const UPPER_HEX: u16 = 1 << 2;
    pub(crate) const LOWER: u16 = 1 << 3;
    pub(crate) const UPPER: u16 = 1 << 4;
    pub(crate) const UNDERSCORE: u16 = 1 << 5;
    pub(crate) const DASH: u16 = 1 << 6;
    pub(crate) const DOT: u16 = 1 << 7;
    pub(crate) const COLON: u16 = 1 << 8;
    pub(crate) const COMMA: u16 = 1 << 9;
    pub(crate) const SLASH: u16 = 1 << 10;
    pub(crate) const NOT_ASCII: u16 = 1 << 11;
    pub(crate) const OTHER: u16 = 1 << 12;
    pub(crate) const LETTERS: u16 = LOWER_HEX | UPPER_HEX | LOWER | UPPER;

    /// Class of each byte.
    pub(crate) static OF: [u16; 256] = {
        let mut table = [OTHER; 256];
        let mut i = 0;
        while i < 256 {
            table[i] = match i as u8 {
                b'0'..=b'9' => DIGIT,
                b'a'..=b'f' => LOWER_HEX,
                b'A'..=b'F' => UPPER_HEX,
                b'g'..=b'z' => LOWER,
                b'G'..=b'Z' => UPPER,
                b'_' => UNDERSCORE,
                b'-' => DASH,
                b'.' => DOT,
                b':' => COLON,
                b',' => COMMA,
                b'/' => SLASH,
                0x80.. => NOT_ASCII,
                _ => OTHER,
            };
            i += 1;
        }
        table
    };
}

/// What the values of one slot have in common over the whole segment.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Slot {
    /// Union of [`class`] bits.
    pub(crate) classes: u16,
    /// Longest value, in bytes.
    pub(crate) longest: u32,
}

impl Slot {
    /// Takes in what is known of other values.
    pub(crate) fn widen(&mut self, other: Self) {
        self.classes |= other.classes;
        self.longest = self.longest.max(other.longest);
    }
}

/// Number of variables in the text of a template.
pub(crate) fn slots_of(text: &[u8]) -> usize {
    memchr::memchr_iter(MARK, text).count()
}

/// Serialises templates and their slots.
pub(crate) fn write<'a>(templates: impl ExactSizeIterator<Item = (&'a [u8], &'a [Slot])>) -> Vec<u8> {
    let mut raw = Vec::new();
    put_varint(&mut raw, templates.len() as u64);
    let mut slots_raw = Vec::new();
    for (text, slots) in templates {
        put_varint(&mut raw, text.len() as u64);
        raw.extend_from_slice(text);
        for slot in slots {
            put_varint(&mut slots_raw, u64::from(slot.classes));
            put_varint(&mut slots_raw, u64::from(slot.longest));
        }
    }
    raw.extend_from_slice(&slots_raw);
    let mut packed = Vec::new();
    let mut out = vec![VERSION];
    put_varint(&mut out, raw.len() as u64);
    if compress(&mut compressor(LEVEL), &raw, &mut packed) < raw.len() {
        out.extend_from_slice(&packed);
    } else {
        out.extend_from_slice(&raw);
    }
    out
}

/// Templates of one segment, read back.
#[derive(Debug)]
pub struct Dictionary {
    pub(crate) text: Vec<u8>,
    /// Constant text of the templates: start and end in `text`, one more than slots per template.
    pub(crate) pieces: Vec<(u32, u32)>,
    /// First piece per template, and one entry for the end.
    pub(crate) first_piece: Vec<u32>,
    /// All slots; template `t` has its first at `first_piece[t] - t`.
    pub(crate) slots: Vec<Slot>,
    borders: OnceLock<Vec<u64>>,
}

impl Dictionary {
    /// Reads what [`crate::Encoder::finish`] wrote.
    pub fn parse(bytes: &[u8]) -> Result<Self, BodyError> {
        let mut reader = Reader::new(bytes);
        let version = reader.u8()?;
        if version != VERSION {
            return Err(BodyError::Version { found: version, supported: VERSION });
        }
        let raw_len = reader.bounded(MAX_BYTES)?;
        let mut text = Vec::new();
        expand(&bytes[reader.position()..], raw_len, &mut text)?;
        let mut reader = Reader::new(&text);
        // A template takes at least one byte.
        let count = reader.bounded(text.len())?;
        let (mut pieces, mut first_piece) = (Vec::with_capacity(count), Vec::with_capacity(count + 1));
        first_piece.push(0);
        for _ in 0..count {
            let len = reader.bounded(text.len())?;
            let (start, template) = (reader.position(), reader.take(len)?);
            let mut from = start;
            for mark in memchr::memchr_iter(MARK, template) {
                pieces.push((from as u32, (start + mark) as u32));
                from = start + mark + 1;
            }
            pieces.push((from as u32, (start + len) as u32));
            if pieces.len() - first_piece[first_piece.len() - 1] as usize > MAX_SLOTS + 1 {
                return Err(BodyError::Corrupt("a template has more variables than any writer makes"));
            }
            first_piece.push(pieces.len() as u32);
        }
        let mut slots = Vec::with_capacity(pieces.len() - count);
        for _ in 0..pieces.len() - count {
            let classes = reader.bounded(u16::MAX as usize)? as u16;
            slots.push(Slot { classes, longest: reader.bounded(u32::MAX as usize)? as u32 });
        }
        if !reader.is_empty() {
            return Err(BodyError::Corrupt("a dictionary is longer than its templates"));
        }
        Ok(Self { text, pieces, first_piece, slots, borders: OnceLock::new() })
    }

    /// Bytes of memory it takes, with what a search adds.
    pub fn memory(&self) -> usize {
        self.text.capacity()
            + self.len() * size_of::<u64>()
            + self.pieces.capacity() * size_of::<(u32, u32)>()
            + self.first_piece.capacity() * size_of::<u32>()
            + self.slots.capacity() * size_of::<Slot>()
    }

    /// Number of templates; ids are `0..len`.
    pub fn len(&self) -> usize {
        self.first_piece.len() - 1
    }

    /// Whether there is no template.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The template for people: variables as `<*>`; `None` for an id past the end.
    pub fn pattern(&self, id: u32) -> Option<String> {
        let pieces = self.pieces_of(id)?;
        let mut text = String::new();
        for (i, piece) in pieces.iter().enumerate() {
            if i > 0 {
                text.push_str("<*>");
            }
            text.push_str(&String::from_utf8_lossy(self.piece(*piece)));
        }
        Some(text)
    }

    /// Text of a template with a mark for each variable.
    pub(crate) fn text_of(&self, id: u32) -> &[u8] {
        let (first, end) =
            (self.first_piece[id as usize] as usize, self.first_piece[id as usize + 1] as usize);
        &self.text[self.pieces[first].0 as usize..self.pieces[end - 1].1 as usize]
    }

    pub(crate) fn pieces_of(&self, id: u32) -> Option<&[(u32, u32)]> {
        let id = id as usize;
        let (start, end) = (*self.first_piece.get(id)?, *self.first_piece.get(id + 1)?);
        Some(&self.pieces[start as usize..end as usize])
    }

    pub(crate) fn slots_of(&self, id: u32) -> &[Slot] {
        let i = id as usize;
        &self.slots[self.first_piece[i] as usize - i..self.first_piece[i + 1] as usize - i - 1]
    }

    /// By template the bytes of its text that touch a variable, each as bit `byte & 63`; all bits where
    /// variables touch each other. A text with none of them that is in no template can only lie inside a
    /// variable.
    pub(crate) fn borders(&self) -> &[u64] {
        self.borders.get_or_init(|| {
            let bit = |byte: Option<&u8>| byte.map_or(u64::MAX, |byte| 1 << (byte & 63));
            let of = |id: u32| {
                let pieces = self.pieces_of(id).unwrap_or_default();
                let last = pieces.len().saturating_sub(1);
                pieces.iter().enumerate().fold(0, |all, (i, piece)| {
                    let text = self.piece(*piece);
                    let outer = text.is_empty() && (i == 0 || i == last);
                    let before = if i == last || outer { 0 } else { bit(text.last()) };
                    let after = if i == 0 || outer { 0 } else { bit(text.first()) };
                    all | before | after
                })
            };
            (0..self.len() as u32).map(of).collect()
        })
    }

    #[inline]
    pub(crate) fn piece(&self, piece: (u32, u32)) -> &[u8] {
        &self.text[piece.0 as usize..piece.1 as usize]
    }
}
