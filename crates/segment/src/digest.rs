//! What stays in memory of a segment of logs while nobody asks.

use std::sync::Arc;

use trine_model::TenantId;
use trine_schema::{LogScan, StreamRef};

use crate::{
    IndexCache, Segment, SegmentError, StreamMatcher,
    handle::{Handle, SegmentIndex},
    read::last_instant,
};

/// A segment of logs that can be asked, with its index in memory or not.
pub type SegmentHandle = Handle<Segment>;

/// What stays of an index: enough to pass the segment by and to name its streams and attributes.
pub struct LogDigest {
    runs: usize,
    granules: usize,
    /// Each stream once, in the order of the file.
    pub(crate) streams: Arc<[StreamRef]>,
    /// When they have rows.
    spans: Box<[Span]>,
    /// Attribute names: position of the tenant in the meta, name, rows.
    attributes: Box<[(u32, Box<str>, u64)]>,
}

/// First and last time of a stream in a segment.
#[derive(Clone, Copy)]
struct Span {
    min: i64,
    max: i64,
}

impl SegmentIndex for Segment {
    type Digest = LogDigest;

    fn read_again(handle: &SegmentHandle) -> Result<Self, SegmentError> {
        let (meta, file) = (handle.meta.clone(), handle.file().clone());
        Self::open_again(handle.path().clone(), meta, file, handle.digest.streams.clone())
    }
}

impl SegmentHandle {
    /// The handle of an opened segment. It does not keep the index in memory; [`Handle::load`] does.
    pub fn new(segment: &Arc<Segment>, cache: &Arc<IndexCache>) -> Arc<Self> {
        let index = &segment.index;
        let mut spans = vec![Span { min: i64::MAX, max: i64::MIN }; index.names.len()];
        // A stream has an entry in each run.
        for entry in &index.streams {
            let span = &mut spans[entry.name as usize];
            (span.min, span.max) = (span.min.min(entry.min), span.max.max(entry.max));
        }
        let attributes = index.attributes.iter();
        let attributes = attributes.map(|(tenant, name, rows)| (*tenant, name.as_str().into(), *rows));
        let digest = LogDigest {
            runs: index.runs.len(),
            granules: index.granules.len(),
            streams: segment.names.clone(),
            spans: spans.into_boxed_slice(),
            attributes: attributes.collect(),
        };
        let (meta, file) = (segment.meta.clone(), segment.file.clone());
        Self::of(segment.path().clone(), meta, file, digest, Arc::downgrade(segment), cache)
    }

    /// Number of its sorted runs.
    pub fn runs(&self) -> usize {
        self.digest.runs
    }

    /// Number of its granules.
    pub(crate) fn granules(&self) -> usize {
        self.digest.granules
    }

    /// Streams of the scan's tenant that match and have rows in its range, each once.
    pub fn streams<'a>(
        &'a self,
        scan: &LogScan,
        matcher: &'a StreamMatcher,
    ) -> impl Iterator<Item = StreamRef> + 'a {
        let (start, last) = (scan.start, last_instant(scan));
        let in_range = move |span: &Span| last.is_some_and(|last| span.min <= last && span.max >= start);
        let LogDigest { streams, spans, .. } = &self.digest;
        let streams = streams.iter().zip(spans).filter(move |(_, span)| in_range(span));
        streams.map(|(stream, _)| *stream).filter(|stream| matcher.matches(*stream))
    }

    /// Attribute names of a tenant's rows with the number of rows that have them, most frequent first.
    pub fn attribute_names<'a>(
        &'a self,
        tenant: &TenantId,
    ) -> impl Iterator<Item = (&'a str, u64)> + use<'a> {
        let position = self.meta().tenants.iter().position(|name| name == tenant);
        let named = self.digest.attributes.iter();
        let named = named.filter(move |(whose, _, _)| Some(*whose as usize) == position);
        named.map(|(_, name, rows)| (&**name, *rows))
    }
}
