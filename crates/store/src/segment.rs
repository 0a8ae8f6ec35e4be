//! A segment of any signal: the one place that knows how each is written, opened, merged and checked.

use std::{convert::Infallible, io::Write, sync::Arc};

use arrow::array::RecordBatch;
use object_store::{ObjectStore, path::Path as ObjectPath};
use trine_schema::{Signal, StreamRegistry};
use trine_segment::{
    IndexCache, MetricSegment, Segment, SegmentError, SegmentHandle, SegmentMeta, SpanSegment, WriteOptions,
    block_on, sort_batches, sort_samples, sort_spans, write_samples, write_segment, write_spans,
};

/// A segment that queries see.
#[derive(Clone)]
pub(crate) enum LiveSegment {
    Logs(Arc<SegmentHandle>),
    Spans(Arc<SpanSegment>),
    Metrics(Arc<MetricSegment>),
}

impl LiveSegment {
    /// What the file tells of itself.
    pub fn meta(&self) -> &SegmentMeta {
        match self {
            Self::Logs(segment) => segment.meta(),
            Self::Spans(segment) => segment.meta(),
            Self::Metrics(segment) => segment.meta(),
        }
    }

    /// The log segment, if it is one.
    pub fn logs(&self) -> Option<&Arc<SegmentHandle>> {
        if let Self::Logs(segment) = self { Some(segment) } else { None }
    }

    /// The span segment, if it is one.
    pub fn spans(&self) -> Option<Arc<SpanSegment>> {
        if let Self::Spans(segment) = self { Some(segment.clone()) } else { None }
    }

    /// The metric segment, if it is one.
    pub fn metrics(&self) -> Option<Arc<MetricSegment>> {
        if let Self::Metrics(segment) = self { Some(segment.clone()) } else { None }
    }

    /// Whether its index is in memory because somebody asked for it.
    pub fn is_loaded(&self) -> bool {
        self.logs().is_some_and(|segment| segment.is_loaded())
    }

    /// Whether no query holds it besides the one list that this is in.
    pub fn is_free(&self) -> bool {
        let holders = match self {
            Self::Logs(segment) => Arc::strong_count(segment),
            Self::Spans(segment) => Arc::strong_count(segment),
            Self::Metrics(segment) => Arc::strong_count(segment),
        };
        holders == 1
    }

    /// Reads and checks everything in it.
    pub async fn verify(&self) -> Result<(), SegmentError> {
        match self {
            Self::Logs(segment) => segment.verify().await,
            Self::Spans(segment) => segment.verify().await,
            Self::Metrics(segment) => segment.verify().await,
        }
    }
}

/// What opening a segment takes.
pub(crate) struct Opener<'a> {
    pub objects: &'a Arc<dyn ObjectStore>,
    pub registry: &'a StreamRegistry,
    pub indexes: &'a Arc<IndexCache>,
}

impl Opener<'_> {
    /// Opens a segment and registers its streams. Its index stays in memory for the next question if `keep`.
    pub fn open(
        &self,
        signal: Signal,
        path: &str,
        expect: Option<&SegmentMeta>,
        keep: bool,
    ) -> Result<LiveSegment, SegmentError> {
        let (objects, path, registry) = (self.objects.clone(), ObjectPath::from(path), self.registry);
        Ok(match signal {
            Signal::Logs => {
                let segment = Arc::new(block_on(Segment::open(objects, path, registry, expect.cloned()))?);
                let handle = SegmentHandle::new(&segment, self.indexes);
                if keep {
                    handle.keep(&segment);
                }
                LiveSegment::Logs(handle)
            }
            Signal::Spans => LiveSegment::Spans(block_on(SpanSegment::open(
                objects,
                path,
                registry,
                expect,
                self.indexes,
            ))?),
            Signal::Metrics => {
                let segment = block_on(MetricSegment::open(objects, path, registry, expect))?;
                LiveSegment::Metrics(Arc::new(segment.cached(self.indexes)))
            }
        })
    }
}

/// Writes rows in any order as a segment.
pub(crate) fn write(
    signal: Signal,
    batches: &[RecordBatch],
    registry: &StreamRegistry,
    options: &WriteOptions,
    out: &mut (dyn Write + Send),
) -> Result<SegmentMeta, SegmentError> {
    match signal {
        Signal::Logs => {
            let rows = sort_batches(batches, registry)?.map(Ok::<_, Infallible>);
            write_segment(out, registry, rows, options)
        }
        Signal::Spans => write_spans(out, registry, sort_spans(batches, registry)?, options),
        Signal::Metrics => write_samples(out, registry, sort_samples(batches, registry)?, options),
    }
}
