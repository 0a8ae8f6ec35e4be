//! The four sections of a block and the zstd contexts around them.
//!
//! *head*: descriptors, read in order; *small*: short byte planes; *text*: values kept as text;
//! *big*: packed numbers as they are and long byte planes, each a zstd frame of its own, so that
//! one zstd frame sees one distribution and a reader skips what it does not need.

use std::cell::RefCell;

use crate::{
    BodyError,
    wire::{Reader, put_varint},
};

/// Version of the block format, see `FORMAT.md`.
pub(crate) const VERSION: u8 = 1;
/// A plane of at least this many bytes gets a zstd frame of its own.
const OWN_FRAME_BYTES: usize = 768;
/// Largest section, in bytes; guards the reader against corrupt lengths.
const MAX_SECTION_BYTES: usize = 1 << 30;
/// Offset of the section lengths in a block.
const LENGTHS: usize = 1;
/// Bytes before the sections: version, seven lengths and the number of rows.
const PREFIX_BYTES: usize = LENGTHS + 8 * 4;

/// Collects the sections of one block.
pub(crate) struct Writer {
    pub(crate) head: Vec<u8>,
    pub(crate) small: Vec<u8>,
    pub(crate) text: Vec<u8>,
    pub(crate) big: Vec<u8>,
    compressor: zstd::bulk::Compressor<'static>,
    /// For byte planes, where matches do not matter.
    plane_compressor: zstd::bulk::Compressor<'static>,
    packed: Vec<u8>,
}

impl Writer {
    pub(crate) fn new(level: i32) -> Self {
        Self {
            head: Vec::new(),
            small: Vec::new(),
            text: Vec::new(),
            big: Vec::new(),
            compressor: compressor(level),
            plane_compressor: compressor(1),
            packed: Vec::new(),
        }
    }

    pub(crate) fn clear(&mut self) {
        self.head.clear();
        self.small.clear();
        self.text.clear();
        self.big.clear();
    }

    /// Appends a byte plane where it is cheapest; its length is known to the reader.
    pub(crate) fn plane(&mut self, bytes: &[u8]) {
        if bytes.len() < OWN_FRAME_BYTES {
            self.small.extend_from_slice(bytes);
            return;
        }
        let len = compress(&mut self.plane_compressor, bytes, &mut self.packed);
        if len < bytes.len() {
            put_varint(&mut self.head, len as u64);
            self.big.extend_from_slice(&self.packed);
        } else {
            put_varint(&mut self.head, 0);
            self.big.extend_from_slice(bytes);
        }
    }

    /// Appends the block to `out`.
    pub(crate) fn finish(&mut self, rows: u32, out: &mut Vec<u8>) {
        let start = out.len();
        out.push(VERSION);
        out.resize(start + PREFIX_BYTES, 0);
        let mut lengths = [0u32; 8];
        for (i, section) in [&self.head, &self.small, &self.text].into_iter().enumerate() {
            lengths[i * 2] = section.len() as u32;
            let len = compress(&mut self.compressor, section, &mut self.packed);
            if len < section.len() {
                out.extend_from_slice(&self.packed);
                lengths[i * 2 + 1] = len as u32;
            } else {
                out.extend_from_slice(section);
                lengths[i * 2 + 1] = section.len() as u32;
            }
        }
        out.extend_from_slice(&self.big);
        lengths[6] = self.big.len() as u32;
        lengths[7] = rows;
        for (i, length) in lengths.iter().enumerate() {
            let at = start + LENGTHS + i * 4;
            out[at..at + 4].copy_from_slice(&length.to_le_bytes());
        }
    }
}

/// Makes frames without their length, which stands in our own header.
pub(crate) fn compressor(level: i32) -> zstd::bulk::Compressor<'static> {
    let mut compressor = zstd::bulk::Compressor::new(level).expect("a zstd context needs only memory");
    compressor.include_contentsize(false).expect("zstd knows this parameter");
    compressor
}

/// Replaces `out` by the zstd frame of `bytes`; its length.
pub(crate) fn compress(
    compressor: &mut zstd::bulk::Compressor<'_>,
    bytes: &[u8],
    out: &mut Vec<u8>,
) -> usize {
    out.clear();
    out.reserve(zstd::zstd_safe::compress_bound(bytes.len()));
    compressor.compress_to_buffer(bytes, out).expect("BUG: the buffer has the size zstd asks for")
}

/// Replaces `out` by the `raw_len` bytes that `bytes` hold: a zstd frame, or, when the lengths are
/// equal, the bytes themselves.
pub(crate) fn expand(bytes: &[u8], raw_len: usize, out: &mut Vec<u8>) -> Result<(), BodyError> {
    thread_local! {
        static DECOMPRESSOR: RefCell<Option<zstd::bulk::Decompressor<'static>>> = const { RefCell::new(None) };
    }
    out.clear();
    if bytes.len() == raw_len {
        out.extend_from_slice(bytes);
        return Ok(());
    }
    if raw_len > MAX_SECTION_BYTES {
        return Err(BodyError::Corrupt("a section is larger than any writer makes"));
    }
    out.reserve(raw_len);
    DECOMPRESSOR.with_borrow_mut(|slot| {
        let decompressor = match slot {
            Some(decompressor) => decompressor,
            None => slot.insert(
                zstd::bulk::Decompressor::new().map_err(|_| BodyError::Corrupt("no memory for zstd"))?,
            ),
        };
        let len = decompressor
            .decompress_to_buffer(bytes, out)
            .map_err(|_| BodyError::Corrupt("a zstd frame cannot be read"))?;
        if len == raw_len {
            Ok(())
        } else {
            Err(BodyError::Corrupt("a zstd frame has another length than told"))
        }
    })
}

/// Buffers for [`Sections`], reused.
#[derive(Default)]
pub(crate) struct Buffers {
    head: Vec<u8>,
    small: Vec<u8>,
    text: Vec<u8>,
    plane: Vec<u8>,
}

/// The sections of a block while they are read; copies remember a position.
pub(crate) struct Sections<'a> {
    pub(crate) head: Reader<'a>,
    pub(crate) big: Reader<'a>,
    small: Lazy<'a>,
    text: Lazy<'a>,
    plane: &'a mut Vec<u8>,
}

/// Where reading stands, to come back to it.
#[derive(Clone, Copy)]
pub(crate) struct Position<'a> {
    head: Reader<'a>,
    big: Reader<'a>,
    small: usize,
    text: usize,
}

/// A section that is expanded when it is first needed.
struct Lazy<'a> {
    stored: &'a [u8],
    raw_len: usize,
    buffer: &'a mut Vec<u8>,
    expanded: bool,
    pos: usize,
}

impl Lazy<'_> {
    /// The next `len` bytes, or nothing when they are only skipped.
    fn take(&mut self, len: usize, skip: bool) -> Result<Option<&[u8]>, BodyError> {
        let end = self.pos.checked_add(len).filter(|end| *end <= self.raw_len);
        let end = end.ok_or(BodyError::Corrupt("a section ends early"))?;
        let start = std::mem::replace(&mut self.pos, end);
        if skip {
            return Ok(None);
        }
        if !self.expanded {
            expand(self.stored, self.raw_len, self.buffer)?;
            self.expanded = true;
        }
        Ok(Some(&self.buffer[start..end]))
    }
}

/// Section lengths and number of rows, and where the sections start.
pub(crate) fn prefix(bytes: &[u8]) -> Result<([usize; 8], Reader<'_>), BodyError> {
    let mut reader = Reader::new(bytes);
    let version = reader.u8()?;
    if version != VERSION {
        return Err(BodyError::Version { found: version, supported: VERSION });
    }
    let mut lengths = [0usize; 8];
    for length in &mut lengths {
        *length = reader.u32()? as usize;
    }
    Ok((lengths, reader))
}

impl<'a> Sections<'a> {
    /// Reads the lengths and the head.
    pub(crate) fn open(bytes: &'a [u8], buffers: &'a mut Buffers) -> Result<Self, BodyError> {
        let (lengths, mut reader) = prefix(bytes)?;
        let head = reader.take(lengths[1])?;
        let small = reader.take(lengths[3])?;
        let text = reader.take(lengths[5])?;
        let big = reader.take(lengths[6])?;
        if !reader.is_empty() {
            return Err(BodyError::Corrupt("a block is longer than its sections"));
        }
        expand(head, lengths[0], &mut buffers.head)?;
        let lazy = |stored, raw_len, buffer| Lazy { stored, raw_len, buffer, expanded: false, pos: 0 };
        Ok(Self {
            head: Reader::new(&buffers.head),
            big: Reader::new(big),
            small: lazy(small, lengths[2], &mut buffers.small),
            text: lazy(text, lengths[4], &mut buffers.text),
            plane: &mut buffers.plane,
        })
    }

    /// The next byte plane of `len` bytes; nothing when it is only skipped.
    pub(crate) fn plane(&mut self, len: usize, skip: bool) -> Result<Option<&[u8]>, BodyError> {
        if len < OWN_FRAME_BYTES {
            return self.small.take(len, skip);
        }
        let stored = self.head.bounded(len)?;
        let bytes = self.big.take(if stored == 0 { len } else { stored })?;
        if skip {
            return Ok(None);
        }
        if stored == 0 {
            return Ok(Some(bytes));
        }
        expand(bytes, len, self.plane)?;
        Ok(Some(self.plane))
    }

    /// The next `len` bytes of text; nothing when they are only skipped.
    pub(crate) fn text(&mut self, len: usize, skip: bool) -> Result<Option<&[u8]>, BodyError> {
        self.text.take(len, skip)
    }

    pub(crate) fn position(&self) -> Position<'a> {
        Position { head: self.head, big: self.big, small: self.small.pos, text: self.text.pos }
    }

    pub(crate) fn seek(&mut self, position: Position<'a>) {
        self.head = position.head;
        self.big = position.big;
        self.small.pos = position.small;
        self.text.pos = position.text;
    }

    /// Whether every section was read to its end.
    #[cfg(test)]
    pub(crate) fn all_read(&self) -> bool {
        self.head.is_empty()
            && self.big.is_empty()
            && self.small.pos == self.small.raw_len
            && self.text.pos == self.text.raw_len
    }
}
