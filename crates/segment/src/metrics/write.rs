//! Writing a segment of metrics.
//!
//! Series come in their order; their samples go into blocks of one tenant, what is rare into frames, and both
//! into the file as soon as they are full. The labels follow in the index. The file is a Parquet file without
//! rows, so that footer, checksums and root are those of the other segments. A crash leaves a file without
//! a footer, which nothing refers to.

use std::{io::Write, sync::Arc};

use parquet::file::{properties::WriterProperties, writer::SerializedFileWriter};
use trine_chunks::{ChunkError, MAX_SAMPLES, MAX_SERIES, Outline};
use trine_model::TenantId;
use trine_schema::{NativeHistogram, Samples, StreamRegistry};

use super::{
    SortedSamples,
    histogram::{self, FLOATS_WITH_STARTS},
    index::{BlockPlace, Totals},
    index_write::Written,
    labels::Ranking,
    segment::meta_of,
    side::{ExemplarRow, FRAME_BYTES, Frame, FrameKind, FramePlace, MetadataRow, OddRow},
};
use crate::{
    SegmentError, SegmentMeta, WriteOptions,
    blocks::BlockWriter,
    write::{FileEnd, begin_parquet, close_parquet, io_error},
};

/// Values after which a block is closed. It is held while it is written, and no more distinct timestamps than
/// this fit into one.
const BLOCK_VALUES: usize = 1 << 24;

/// Writes one segment to `file`; the caller syncs it. No row at all is an error.
pub fn write_samples<W: Write + Send>(
    file: W,
    _registry: &StreamRegistry,
    rows: SortedSamples,
    options: &WriteOptions,
) -> Result<SegmentMeta, SegmentError> {
    if rows.is_empty() {
        return Err(SegmentError::Contract("a segment needs at least one row".into()));
    }
    let mut writer = SegmentWriter::new(file, options)?;
    let (mut histograms, mut exemplars) = (rows.histograms.as_slice(), rows.exemplars.as_slice());
    let mut samples = Samples::default();
    let mut kept = Vec::with_capacity(rows.ranking.series.len());
    for (number, series) in rows.ranking.series.iter().enumerate() {
        let range = &rows.floats.series[number];
        let of_series = histograms.partition_point(|row| row.series as usize <= number);
        let (own, rest) = histograms.split_at(of_series);
        histograms = rest;
        samples.histogram_timestamps.clear();
        samples.histograms.clear();
        samples.histogram_start_timestamps.clear();
        for row in own {
            // What cannot be read here can be read nowhere.
            if let Some((histogram, start)) = rows.histogram(row)? {
                samples.histogram_timestamps.push(row.time);
                samples.histograms.push(Arc::new(histogram));
                samples.histogram_start_timestamps.push(start);
            }
        }
        let of_series = exemplars.partition_point(|row| row.series as usize <= number);
        let (own, rest) = exemplars.split_at(of_series);
        exemplars = rest;
        let floats = FloatsOf {
            times: &rows.floats.times[range.clone()],
            values: &rows.floats.values[range.clone()],
            starts: rows.floats.starts_of(range),
        };
        kept.push(writer.series(series.tenant, &floats, &samples, own.iter())?);
    }
    rows.metadata.iter().try_for_each(|row| writer.metadata(row))?;
    let mut ranking = rows.ranking;
    ranking.retain(&kept);
    writer.finish(&ranking)
}

/// Floats of one series.
pub(super) struct FloatsOf<'a> {
    /// Milliseconds, ascending.
    pub times: &'a [i64],
    pub values: &'a [f64],
    /// Milliseconds, 0 where not known; empty if nothing is known.
    pub starts: &'a [i64],
}

/// The block that is being filled.
#[derive(Default)]
struct OpenBlock {
    writer: trine_chunks::BlockWriter,
    tenant: u32,
    /// Numbers in the file of its series.
    numbers: Vec<u32>,
    values: usize,
    samples: u64,
    runs: u64,
    times: Option<(i64, i64)>,
}

impl OpenBlock {
    fn cover(&mut self, first: i64, last: i64) {
        let (min, max) = self.times.unwrap_or((first, last));
        self.times = Some((min.min(first), max.max(last)));
    }
}

/// Puts series into a file.
pub(super) struct SegmentWriter<W: Write + Send> {
    file: SerializedFileWriter<BlockWriter<W>>,
    level: i32,
    block: OpenBlock,
    blocks: Vec<BlockPlace>,
    frames: Vec<FramePlace>,
    exemplars: Frame,
    odd: Frame,
    metadata: Frame,
    /// Number of the next series.
    next: u32,
    totals: Totals,
    times: Option<(i64, i64)>,
}

fn refused(error: ChunkError) -> SegmentError {
    SegmentError::Contract(error.to_string())
}

impl<W: Write + Send> SegmentWriter<W> {
    pub(super) fn new(file: W, options: &WriteOptions) -> Result<Self, SegmentError> {
        let file = begin_parquet(file, &trine_schema::metrics::schema(), WriterProperties::new())?;
        Ok(Self {
            file,
            level: options.zstd_level,
            block: OpenBlock::default(),
            blocks: Vec::new(),
            frames: Vec::new(),
            exemplars: Frame::default(),
            odd: Frame::default(),
            metadata: Frame::default(),
            next: 0,
            totals: Totals::default(),
            times: None,
        })
    }

    fn count(&mut self, rows: usize, bytes: usize, first: i64, last: i64) {
        self.totals.rows += rows as u64;
        self.totals.raw_bytes += bytes as u64;
        let (min, max) = self.times.unwrap_or((first, last));
        self.times = Some((min.min(first), max.max(last)));
    }

    /// Adds a series, the histograms out of `samples`. Whether it has any row; if not, it is left out.
    pub(super) fn series<'e>(
        &mut self,
        tenant: u32,
        floats: &FloatsOf<'_>,
        samples: &Samples,
        exemplars: impl Iterator<Item = &'e ExemplarRow>,
    ) -> Result<bool, SegmentError> {
        let number = self.next;
        let mut found = false;
        if !floats.times.is_empty() || !samples.histograms.is_empty() {
            found = true;
            let width = samples.histograms.iter().map(|histogram| values_of(histogram)).max().unwrap_or(0);
            let values = floats.times.len() * 2 + samples.histograms.len() * width;
            if tenant != self.block.tenant
                || (self.block.values > 0 && self.block.values + values > BLOCK_VALUES)
                || self.block.numbers.len() + 1 >= MAX_SERIES
            {
                self.close_block()?;
                self.block.tenant = tenant;
            }
            self.block.values += values;
            let local = self.block.numbers.len() as u32;
            let before = self.block.runs;
            self.floats(local, floats)?;
            self.histograms(local, number, samples)?;
            if self.block.runs > before {
                self.block.numbers.push(number);
            }
        }
        for row in exemplars {
            found = true;
            self.exemplar(number, row)?;
        }
        self.next += u32::from(found);
        Ok(found)
    }

    /// Adds an exemplar of a series; series ascend.
    pub(super) fn exemplar(&mut self, series: u32, row: &ExemplarRow) -> Result<(), SegmentError> {
        self.count(1, 16 + row.labels.len(), row.time, row.time);
        self.exemplars.exemplar(&ExemplarRow { series, ..row.clone() });
        if self.exemplars.len() >= FRAME_BYTES {
            self.close_frame(FrameKind::Exemplars)?;
        }
        Ok(())
    }

    fn floats(&mut self, local: u32, floats: &FloatsOf<'_>) -> Result<(), SegmentError> {
        let FloatsOf { times, values, starts } = floats;
        let starts: Vec<f64> = starts.iter().map(|start| *start as f64).collect();
        for from in (0..times.len()).step_by(MAX_SAMPLES) {
            let run = from..times.len().min(from + MAX_SAMPLES);
            let (times, values) = (&times[run.clone()], &values[run.clone()]);
            let writer = &mut self.block.writer;
            if starts.is_empty() {
                writer.push(local, times, values).map_err(refused)?;
            } else {
                let columns = [values, &starts[run]];
                writer.push_run(local, times, FLOATS_WITH_STARTS, &columns).map_err(refused)?;
            }
            self.block.runs += 1;
        }
        if let (Some(first), Some(last)) = (times.first(), times.last()) {
            self.block.samples += times.len() as u64;
            self.block.cover(*first, *last);
            self.count(times.len(), 16 * times.len(), *first, *last);
        }
        Ok(())
    }

    fn histograms(&mut self, local: u32, number: u32, samples: &Samples) -> Result<(), SegmentError> {
        let Samples { histogram_timestamps: times, histograms, histogram_start_timestamps: starts, .. } =
            samples;
        let (Some(first), Some(last)) = (times.first(), times.last()) else { return Ok(()) };
        let (odd, runs) =
            histogram::push(&mut self.block.writer, local, times, histograms, starts).map_err(refused)?;
        self.block.runs += runs as u64;
        if runs > 0 {
            self.block.samples += (times.len() - odd.len()) as u64;
            self.block.cover(*first, *last);
        }
        let bytes = histograms.iter().map(|histogram| 8 + 8 * values_of(histogram)).sum();
        self.count(times.len(), bytes, *first, *last);
        for at in odd {
            self.odd.odd(&OddRow {
                series: number,
                time: times[at],
                start: starts.get(at).copied().unwrap_or(0),
                payload: histograms[at].to_bytes(),
            });
            if self.odd.len() >= FRAME_BYTES {
                self.close_frame(FrameKind::Odd)?;
            }
        }
        Ok(())
    }

    /// Adds what was told of a metric.
    pub(super) fn metadata(&mut self, row: &MetadataRow) -> Result<(), SegmentError> {
        self.count(1, row.metric.len() + row.text.len(), row.time, row.time);
        self.totals.tenants.push(row.tenant.clone());
        self.metadata.metadata(row);
        if self.metadata.len() >= FRAME_BYTES {
            self.close_frame(FrameKind::Metadata)?;
        }
        Ok(())
    }

    /// Adds a block as it is. `series` are the numbers in this file of its series.
    pub(super) fn copy_block(
        &mut self,
        bytes: &[u8],
        place: &BlockPlace,
        series: impl Iterator<Item = u32>,
    ) -> Result<(), SegmentError> {
        let offset = self.file.bytes_written() as u64;
        self.file.write_all(bytes).map_err(io_error)?;
        let (series, times) = (BlockPlace::numbered(series), place.times.clone());
        self.blocks.push(BlockPlace { offset, times, series, ..*place });
        Ok(())
    }

    /// Counts rows of blocks that were copied.
    pub(super) fn copied(&mut self, rows: u64, bytes: u64, first: i64, last: i64) {
        self.count(rows as usize, bytes as usize, first, last);
    }

    fn close_block(&mut self) -> Result<(), SegmentError> {
        let OpenBlock { writer, numbers, samples, runs, times, .. } = std::mem::take(&mut self.block);
        let Some((first, last)) = times else { return Ok(()) };
        let bytes = writer.finish();
        let head = Outline::parse(&bytes, bytes.len()).map_err(refused)?.head_bytes();
        let offset = self.file.bytes_written() as u64;
        self.file.write_all(&bytes).map_err(io_error)?;
        self.blocks.push(BlockPlace {
            offset,
            length: bytes.len() as u64,
            head: head as u64,
            times: first..=last,
            samples,
            runs,
            series: BlockPlace::numbered(numbers.into_iter()),
        });
        Ok(())
    }

    fn close_frame(&mut self, kind: FrameKind) -> Result<(), SegmentError> {
        let frame = match kind {
            FrameKind::Exemplars => &mut self.exemplars,
            FrameKind::Metadata => &mut self.metadata,
            FrameKind::Odd => &mut self.odd,
        };
        let offset = self.file.bytes_written() as u64;
        if let Some((place, bytes)) = frame.finish(kind, offset, self.level).map_err(io_error)? {
            self.file.write_all(&bytes).map_err(io_error)?;
            self.frames.push(place);
        }
        Ok(())
    }

    /// Whether no row was added.
    pub(super) fn is_empty(&self) -> bool {
        self.totals.rows == 0
    }

    /// Writes the index and the end of the file. The ranking holds the series that were added.
    pub(super) fn finish(mut self, ranking: &Ranking) -> Result<SegmentMeta, SegmentError> {
        self.close_block()?;
        for kind in [FrameKind::Exemplars, FrameKind::Odd, FrameKind::Metadata] {
            self.close_frame(kind)?;
        }
        (self.totals.min, self.totals.max) = self.times.unwrap_or_default();
        let with_series = ranking.series.chunk_by(|a, b| a.tenant == b.tenant).map(|of_tenant| {
            let tenant: &TenantId = &ranking.tenants[of_tenant[0].tenant as usize];
            tenant.clone()
        });
        self.totals.tenants.extend(with_series);
        self.totals.tenants.sort();
        self.totals.tenants.dedup();
        let written = Written { totals: &self.totals, ranking, blocks: &self.blocks, frames: &self.frames };
        let index = written.encode().map_err(io_error)?;
        let FileEnd { file_bytes, tail_offset, root } = close_parquet(self.file, &index)?;
        Ok(meta_of(&self.totals, file_bytes, tail_offset, root))
    }
}

/// Numbers of a histogram.
fn values_of(histogram: &NativeHistogram) -> usize {
    4 + histogram.positive.counts.len() + histogram.negative.counts.len()
}
