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

    /// Whether its index is kept in memory because somebody asked for it.
    pub fn is_loaded(&self) -> bool {
        match self {
            Self::Logs(segment) => segment.is_loaded(),
            Self::Spans(segment) => segment.is_loaded(),
            Self::Metrics(segment) => segment.is_loaded(),
        }
    }

    /// Keeps its index in memory for a while, as if somebody had asked for it now.
    pub fn load(&self) -> Result<(), SegmentError> {
        match self {
            Self::Logs(segment) => segment.load().map(drop),
            Self::Spans(segment) => segment.load().map(drop),
            Self::Metrics(segment) => segment.load().map(drop),
        }
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
    /// Opens a segment and registers its streams.
    pub fn open(
        &self,
        signal: Signal,
        path: &str,
        expect: Option<&SegmentMeta>,
    ) -> Result<LiveSegment, SegmentError> {
        let (objects, path, registry) = (self.objects.clone(), ObjectPath::from(path), self.registry);
        Ok(match signal {
            Signal::Logs => {
                let segment = Arc::new(block_on(Segment::open(objects, path, registry, expect.cloned()))?);
                LiveSegment::Logs(SegmentHandle::new(&segment, self.indexes))
            }
            Signal::Spans => {
                let opened = SpanSegment::open(objects, path, registry, expect, self.indexes);
                LiveSegment::Spans(block_on(opened)?)
            }
            Signal::Metrics => {
                LiveSegment::Metrics(block_on(MetricSegment::open(objects, path, expect, self.indexes))?)
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
