//! Bytes of a segment, checked block by block before anyone sees them.

use std::{
    fs::File,
    io::{self, Read},
    ops::Range,
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    task::{Context, Poll, Wake, Waker},
};

use bytes::Bytes;
use object_store::{GetOptions, GetResultPayload, ObjectStore, ObjectStoreExt as _, path::Path};
use parking_lot::Mutex;
use parquet::{
    errors::ParquetError,
    file::reader::{ChunkReader, Length},
};
use rustix::{
    buffer::spare_capacity,
    io::{Errno, pread},
};
use trine_schema::LabelsError;

use crate::{
    SegmentError,
    blocks::{BLOCK_BYTES, BlockTable, TAIL_CRC_MARK, tail_is_intact},
    write::SegmentMeta,
};

/// Bytes at the end of a Parquet file: length of the metadata and magic.
const FOOTER_END: u64 = 8;
/// Spans of checked blocks that one reader remembers; pages of neighbouring columns share blocks.
const SPANS: usize = 16;
/// Bytes that a Parquet reader without known length takes at once.
const STREAM_BYTES: u64 = BLOCK_BYTES as u64;

/// Where bytes come from.
enum Source {
    /// A file of this machine: read in place, stays readable when it is deleted meanwhile.
    File(File),
    /// Any other object store.
    Store(Arc<dyn ObjectStore>, Path),
}

/// The data of an opened segment.
pub struct SegmentFile {
    name: String,
    source: Source,
    length: u64,
    data_bytes: u64,
    index: Range<u64>,
    crcs: Vec<u32>,
}

/// What the footer says about our parts.
struct Places {
    /// The index.
    index: Range<u64>,
    /// First byte of the tail.
    tail_offset: u64,
}

/// The tail of a file, readable at its positions in the file.
pub struct Tail {
    offset: u64,
    length: u64,
    bytes: Bytes,
}

impl Tail {
    /// Its bytes.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Its first byte in the file.
    pub fn offset(&self) -> u64 {
        self.offset
    }

    /// The root of the file.
    pub fn root(&self) -> [u8; 32] {
        *blake3::hash(&self.bytes).as_bytes()
    }
}

impl Length for Tail {
    fn len(&self) -> u64 {
        self.length
    }
}

impl ChunkReader for Tail {
    type T = io::Cursor<Bytes>;

    fn get_read(&self, start: u64) -> parquet::errors::Result<Self::T> {
        Ok(io::Cursor::new(self.get_bytes(start, (self.length.saturating_sub(start)) as usize)?))
    }

    fn get_bytes(&self, start: u64, length: usize) -> parquet::errors::Result<Bytes> {
        let inside = start.checked_sub(self.offset).map(|start| start as usize);
        match inside {
            Some(start) if start.checked_add(length).is_some_and(|end| end <= self.bytes.len()) => {
                Ok(self.bytes.slice(start..start + length))
            }
            _ => Err(ParquetError::EOF(format!("{length} bytes at {start} are not in the tail"))),
        }
    }
}

impl SegmentFile {
    /// Opens a file and checks its tail, against the catalog's entry when there is one.
    pub async fn open(
        store: Arc<dyn ObjectStore>,
        path: &Path,
        expect: Option<&SegmentMeta>,
    ) -> Result<(Self, Tail), SegmentError> {
        let name = path.to_string();
        let found = store
            .get_opts(path, GetOptions::default())
            .await
            .map_err(|source| SegmentError::Store { file: name.clone(), source })?;
        let length = found.meta.size;
        let source = match found.payload {
            GetResultPayload::File(file, _) => Source::File(file),
            GetResultPayload::Stream(_) => Source::Store(store, path.clone()),
        };
        let mut file = Self { name, source, length, data_bytes: 0, index: 0..0, crcs: Vec::new() };
        if let Some(expect) = expect
            && expect.file_bytes != length
        {
            return Err(file.corrupt(
                length.min(expect.file_bytes),
                format!("it has {length} bytes instead of {}", expect.file_bytes),
            ));
        }
        let end = file.fetch(length.saturating_sub(FOOTER_END)..length).await?;
        let metadata_bytes = match <[u8; 8]>::try_from(&end[..]) {
            Ok([a, b, c, d, b'P', b'A', b'R', b'1']) => u64::from(u32::from_le_bytes([a, b, c, d])),
            _ => {
                return Err(
                    file.corrupt(length.saturating_sub(FOOTER_END), "the Parquet footer is missing".into())
                );
            }
        };
        let Some(metadata_start) = (length - FOOTER_END).checked_sub(metadata_bytes) else {
            return Err(file.corrupt(length - FOOTER_END, "the length of the footer is wrong".into()));
        };
        let metadata = file.fetch(metadata_start..length).await?;
        let Some(places) = parse_places(&metadata, &file.name)? else {
            return Err(file.corrupt(metadata_start, "the footer does not say where the index is".into()));
        };
        if expect.is_some_and(|expect| expect.tail_offset != places.tail_offset)
            || places.tail_offset > metadata_start
            || places.index.end > places.tail_offset
        {
            return Err(file.corrupt(metadata_start, "the footer names impossible places".into()));
        }
        let bytes = file.fetch(places.tail_offset..length).await?;
        let tail = Tail { offset: places.tail_offset, length, bytes };
        let intact = match expect {
            Some(expect) => tail.root() == expect.root,
            None => tail_is_intact(&tail.bytes),
        };
        if !intact {
            return Err(file.corrupt(tail.offset, "the checksum of the tail does not fit".into()));
        }
        let table = BlockTable::parse(&tail.bytes)
            .map_err(|malformed| file.corrupt(tail.offset, format!("{} cannot be read", malformed.0)))?;
        if table.data_bytes != tail.offset {
            return Err(file.corrupt(tail.offset, "the block table does not cover the data".into()));
        }
        file.data_bytes = table.data_bytes;
        file.index = places.index;
        file.crcs = table.crcs;
        Ok((file, tail))
    }

    /// Where the index lies.
    pub fn index(&self) -> Range<u64> {
        self.index.clone()
    }

    /// An error that names this file.
    pub fn corrupt(&self, offset: u64, what: String) -> SegmentError {
        SegmentError::Corrupt { file: self.name.clone(), offset, what }
    }

    /// The streams that its index names are refused by the registry.
    pub fn refused(&self, source: LabelsError) -> SegmentError {
        SegmentError::Streams { file: self.name.clone(), source }
    }

    fn short(&self, source: io::Error, at: u64) -> SegmentError {
        if source.kind() == io::ErrorKind::UnexpectedEof {
            self.corrupt(at, "the file ends early".into())
        } else {
            SegmentError::Io { file: self.name.clone(), source }
        }
    }

    /// The tail as it is on disk now; it must have this root.
    pub fn read_tail(&self, offset: u64, root: &[u8; 32]) -> Result<Tail, SegmentError> {
        let bytes = self.fetch_now(offset..self.length)?;
        let tail = Tail { offset, length: self.length, bytes };
        if tail.root() == *root {
            Ok(tail)
        } else {
            Err(self.corrupt(offset, "the tail does not have the root of the catalog".into()))
        }
    }

    /// Unchecked bytes, while opening.
    async fn fetch(&self, range: Range<u64>) -> Result<Bytes, SegmentError> {
        match &self.source {
            Source::File(_) => self.fetch_now(range),
            Source::Store(store, path) => store
                .get_range(path, range)
                .await
                .map_err(|source| SegmentError::Store { file: self.name.clone(), source }),
        }
    }

    /// Unchecked bytes; blocks the thread.
    fn fetch_now(&self, range: Range<u64>) -> Result<Bytes, SegmentError> {
        match &self.source {
            Source::File(file) => {
                let length = (range.end - range.start) as usize;
                // Not zeroed before: that is a sixth of the time of a scan over one column.
                let mut bytes = Vec::with_capacity(length);
                while bytes.len() < length {
                    let at = range.start + bytes.len() as u64;
                    match pread(file, spare_capacity(&mut bytes), at) {
                        Ok(0) => return Err(self.short(io::ErrorKind::UnexpectedEof.into(), range.start)),
                        Ok(_) | Err(Errno::INTR) => {}
                        Err(error) => return Err(self.short(error.into(), range.start)),
                    }
                }
                bytes.truncate(length);
                Ok(Bytes::from(bytes))
            }
            Source::Store(store, path) => block_on(store.get_range(path, range))
                .map_err(|source| SegmentError::Store { file: self.name.clone(), source }),
        }
    }

    /// Whole blocks that cover `range`, each checked, and the position of the first.
    pub fn read_blocks(&self, range: Range<u64>) -> Result<(u64, Bytes), SegmentError> {
        let aligned = self.aligned(&range)?;
        let bytes = self.fetch_now(aligned.clone())?;
        self.check_blocks(aligned.start, &bytes)?;
        Ok((aligned.start, bytes))
    }

    /// Checked bytes; blocks the thread.
    pub fn read_now(&self, range: Range<u64>) -> Result<Bytes, SegmentError> {
        let (start, bytes) = self.read_blocks(range.clone())?;
        Ok(bytes.slice((range.start - start) as usize..(range.end - start) as usize))
    }

    /// Checked bytes, without blocking the thread where the store need not.
    pub async fn read(&self, range: Range<u64>) -> Result<Bytes, SegmentError> {
        let aligned = self.aligned(&range)?;
        let bytes = self.fetch(aligned.clone()).await?;
        self.check_blocks(aligned.start, &bytes)?;
        Ok(bytes.slice((range.start - aligned.start) as usize..(range.end - aligned.start) as usize))
    }

    /// The blocks that cover a range of the data.
    fn aligned(&self, range: &Range<u64>) -> Result<Range<u64>, SegmentError> {
        if range.end > self.data_bytes || range.start > range.end {
            let what = format!("{} bytes were to be read here", range.end.saturating_sub(range.start));
            return Err(self.corrupt(range.start, what));
        }
        let start = range.start / BLOCK_BYTES as u64 * BLOCK_BYTES as u64;
        Ok(start..range.end.next_multiple_of(BLOCK_BYTES as u64).min(self.data_bytes))
    }

    fn check_blocks(&self, start: u64, bytes: &[u8]) -> Result<(), SegmentError> {
        let first = (start / BLOCK_BYTES as u64) as usize;
        for (number, (block, crc)) in bytes.chunks(BLOCK_BYTES).zip(&self.crcs[first..]).enumerate() {
            if crc32c::crc32c(block) != *crc {
                let at = start + (number * BLOCK_BYTES) as u64;
                return Err(self.corrupt(at, "the checksum of a 64 KiB block does not fit".into()));
            }
        }
        Ok(())
    }
}

/// Wakes a waiting thread.
struct Unpark(std::thread::Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

/// Waits for a future on a thread that has nothing else to do. Unlike the executor of `futures` it may be
/// used inside itself.
pub fn block_on<T>(future: impl Future<Output = T>) -> T {
    let mut future = pin!(future);
    let waker = Waker::from(Arc::new(Unpark(std::thread::current())));
    loop {
        match future.as_mut().poll(&mut Context::from_waker(&waker)) {
            Poll::Ready(done) => return done,
            Poll::Pending => std::thread::park(),
        }
    }
}

/// Reads our entry of the footer without parsing Parquet's metadata, which is not checked yet.
fn parse_places(metadata: &[u8], name: &str) -> Result<Option<Places>, SegmentError> {
    let find = || {
        let mark = memchr::memmem::rfind(metadata, TAIL_CRC_MARK.as_bytes())?;
        let start = memchr::memmem::rfind(&metadata[..mark], b"version=")?;
        std::str::from_utf8(&metadata[start..mark]).ok()
    };
    let Some(text) = find() else { return Ok(None) };
    let field = |key: &str| text.split(' ').find_map(|part| part.strip_prefix(key)?.strip_prefix('='));
    let Some(found) = field("version").and_then(|version| version.parse::<u32>().ok()) else {
        return Ok(None);
    };
    if found > crate::index::VERSION {
        return Err(SegmentError::Version { file: name.to_owned(), found, known: crate::index::VERSION });
    }
    let places = || {
        let (offset, length) = field("index")?.split_once('+')?;
        let start: u64 = offset.parse().ok()?;
        let end = start.checked_add(length.parse().ok()?)?;
        Some(Places { index: start..end, tail_offset: field("table")?.parse().ok()? })
    };
    Ok(places())
}

/// What one step of a query reads through: checks, remembers the latest blocks, counts bytes, and
/// keeps the real error while Parquet's reader carries only its text.
#[derive(Clone)]
pub struct CheckedReader(Arc<ReaderState>);

struct ReaderState {
    file: Arc<SegmentFile>,
    spans: Mutex<Vec<(u64, Bytes)>>,
    error: Mutex<Option<SegmentError>>,
    bytes: AtomicU64,
}

impl CheckedReader {
    /// A reader that remembers nothing yet.
    pub fn new(file: Arc<SegmentFile>) -> Self {
        let spans = Mutex::new(Vec::with_capacity(SPANS));
        Self(Arc::new(ReaderState { file, spans, error: Mutex::new(None), bytes: AtomicU64::new(0) }))
    }

    /// Checked bytes.
    pub fn read(&self, range: Range<u64>) -> Result<Bytes, SegmentError> {
        let mut spans = self.0.spans.lock();
        let within =
            |(start, bytes): &(u64, Bytes)| *start <= range.start && range.end <= *start + bytes.len() as u64;
        if let Some(place) = spans.iter().rposition(within) {
            // The one that was not used for longest stands first.
            spans[place..].rotate_left(1);
            let (start, bytes) = &spans[spans.len() - 1];
            return Ok(bytes.slice((range.start - start) as usize..(range.end - start) as usize));
        }
        let (start, bytes) = self.0.file.read_blocks(range.clone())?;
        self.0.bytes.fetch_add(bytes.len() as u64, Relaxed);
        if spans.len() == SPANS {
            spans.remove(0);
        }
        spans.push((start, bytes.clone()));
        Ok(bytes.slice((range.start - start) as usize..(range.end - start) as usize))
    }

    /// Bytes read from the file so far.
    pub fn bytes_read(&self) -> u64 {
        self.0.bytes.load(Relaxed)
    }

    /// The error for which bytes were not given, if there is one.
    pub fn refusal(&self) -> Option<SegmentError> {
        self.0.error.lock().take()
    }

    /// The error behind a failure of Parquet's reader.
    pub fn error(&self, offset: u64, shown: &dyn std::fmt::Display) -> SegmentError {
        self.refusal()
            .unwrap_or_else(|| self.0.file.corrupt(offset, format!("pages cannot be decoded: {shown}")))
    }
}

impl Length for CheckedReader {
    fn len(&self) -> u64 {
        self.0.file.length
    }
}

impl ChunkReader for CheckedReader {
    type T = Streaming;

    fn get_read(&self, start: u64) -> parquet::errors::Result<Self::T> {
        Ok(Streaming { reader: self.clone(), position: start })
    }

    fn get_bytes(&self, start: u64, length: usize) -> parquet::errors::Result<Bytes> {
        self.read(start..start.saturating_add(length as u64)).map_err(|error| {
            let shown = ParquetError::General(error.to_string());
            *self.0.error.lock() = Some(error);
            shown
        })
    }
}

/// Reads on from a position, for readers that do not say how much they need.
pub struct Streaming {
    reader: CheckedReader,
    position: u64,
}

impl Read for Streaming {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        let left = self.reader.0.file.data_bytes.saturating_sub(self.position);
        let count = (out.len() as u64).min(left).min(STREAM_BYTES);
        let bytes = self.reader.get_bytes(self.position, count as usize).map_err(io::Error::other)?;
        out[..bytes.len()].copy_from_slice(&bytes);
        self.position += count;
        Ok(bytes.len())
    }
}
