//! Log queries: lines in order of time, in bounded memory.
//!
//! When no stage is left that removes lines, one scan with `top` is the answer. Else the range
//! is walked from its end (or beginning): first one page of the nearest rows, which tells how
//! dense lines lie, then windows that grow while they give little and shrink when they hold too
//! much. So `limit 100` of a filtered query reads about what it returns.

use std::{collections::BinaryHeap, sync::Arc};

use arrow::array::RecordBatch;
use futures::{StreamExt as _, TryStreamExt as _, stream};
use hashbrown::HashMap;
use trine_schema::{Direction, LogScan, ScanError, StreamRegistry, Tables, logs::column};

use crate::{
    Entry, Label, LabeledEntry, LogqlError, Request, StreamResult,
    ast::{LogExpr, Stage},
    pipeline::{self, Pipeline, labels::Wanted},
    plan::Plan,
    request::EntryStream,
    rows::{BaseCache, Rows, metadata_columns},
};

/// Rows of the first page, at least.
const MIN_PAGE_ROWS: usize = 1_000;
/// Rows of the first page, at most.
const MAX_PAGE_ROWS: usize = 16_384;
/// Most lines of one chunk; a window that holds more is cut.
const MAX_CHUNK_LINES: usize = 65_536;
/// Label sets that are remembered so that equal ones share memory.
const MAX_LABEL_SETS: usize = 16_384;
/// Factor by which a window grows.
const WINDOW_GROWTH: i64 = 4;
/// Bytes counted for an entry besides its text.
const ENTRY_BYTES: usize = 96;

/// Runs the pipeline over batches and hands out labelled lines.
pub struct LineRunner {
    pipeline: Pipeline,
    /// What filters need, when it pays to run them first.
    first_pass: Option<Wanted>,
    base: BaseCache,
    label_sets: HashMap<Box<[u8]>, Arc<[Label]>>,
    key: Vec<u8>,
    hex: String,
    order: Vec<u32>,
}

impl LineRunner {
    /// For these stages.
    pub fn new(stages: &[Stage]) -> Result<Self, LogqlError> {
        let parses = stages.iter().any(pipeline::is_parser);
        let filters = stages.iter().any(|stage| matches!(stage, Stage::Label(_)));
        let distinct = stages.iter().any(|stage| matches!(stage, Stage::Distinct(_)));
        let first_pass = (parses && filters && !distinct).then(|| {
            let mut names = Vec::new();
            for stage in stages {
                pipeline::collect_names(stage, &mut names);
            }
            // Whoever looks for __error__ has to read the line to its end, as the full pass does.
            names.push(pipeline::labels::ERROR.to_owned());
            wanted_names(names)
        });
        Ok(Self {
            pipeline: Pipeline::new(stages).map_err(LogqlError::Request)?,
            first_pass,
            base: BaseCache::default(),
            label_sets: HashMap::new(),
            key: Vec::new(),
            hex: String::new(),
            order: Vec::new(),
        })
    }

    /// Calls `found` with each line that passes; `skip` tells by time which need no look.
    pub fn run(
        &mut self,
        batch: &RecordBatch,
        registry: &StreamRegistry,
        mut skip: impl FnMut(i64) -> bool,
        mut found: impl FnMut(LabeledEntry),
    ) {
        let rows = Rows::new(batch);
        for row in 0..rows.len {
            let timestamp = rows.timestamp(row);
            if skip(timestamp) {
                continue;
            }
            let body = rows.body(row);
            let base = self.base.get(rows.stream(row), registry);
            if let Some(wanted) = &self.first_pass {
                rows.load(row, base, &mut self.pipeline.labels, wanted, &mut self.hex);
                if !self.pipeline.run(body, timestamp, wanted) {
                    continue;
                }
            }
            rows.load(row, base, &mut self.pipeline.labels, &Wanted::All, &mut self.hex);
            if self.pipeline.run(body, timestamp, &Wanted::All) {
                let labels = self.labels();
                found(LabeledEntry { labels, timestamp, line: self.pipeline.line(body).to_owned() });
            }
        }
    }

    /// The labels at hand; equal sets share one allocation.
    fn labels(&mut self) -> Arc<[Label]> {
        let labels = &self.pipeline.labels;
        let shown: Vec<_> = labels.iter().collect();
        self.order.clear();
        self.order.extend(0..shown.len() as u32);
        self.order.sort_unstable_by_key(|at| shown[*at as usize].0);
        self.key.clear();
        for at in &self.order {
            let (name, value, kind) = shown[*at as usize];
            for part in [name, value] {
                self.key.extend_from_slice(&(part.len() as u32).to_le_bytes());
                self.key.extend_from_slice(part.as_bytes());
            }
            self.key.push(kind as u8);
        }
        if let Some(known) = self.label_sets.get(self.key.as_slice()) {
            return known.clone();
        }
        if self.label_sets.len() >= MAX_LABEL_SETS {
            self.label_sets.clear();
        }
        let made: Arc<[Label]> = labels.to_labels().into();
        self.label_sets.insert(self.key.as_slice().into(), made.clone());
        made
    }
}

/// Sorted names, with the plain name of each `_extracted` one, so that conflicts are noticed.
pub fn wanted_names(mut names: Vec<String>) -> Wanted {
    let plain: Vec<String> =
        names.iter().filter_map(|name| name.strip_suffix("_extracted")).map(str::to_owned).collect();
    names.extend(plain);
    names.sort_unstable();
    names.dedup();
    Wanted::Names(names)
}

/// An entry in the heap; the greatest is the first to go.
struct Held {
    /// Rises away from the side of the range that is wanted.
    distance: i128,
    sequence: u64,
    entry: LabeledEntry,
}

impl PartialEq for Held {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}
impl Eq for Held {}
impl PartialOrd for Held {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}
impl Ord for Held {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.distance, self.sequence).cmp(&(other.distance, other.sequence))
    }
}

/// Walks a log query's range.
struct Pager {
    tables: Arc<dyn Tables>,
    scan: LogScan,
    runner: LineRunner,
    direction: Direction,
    removes_lines: bool,
    distinct: bool,
    /// Lines still to deliver.
    left: usize,
    /// What is still to be read.
    start: i64,
    end: i64,
    /// Nanoseconds of the next window; 0 before the first page.
    width: i64,
    done: bool,
}

/// Begins a log query.
async fn pager(tables: Arc<dyn Tables>, request: &Request, log: &LogExpr) -> Result<Pager, LogqlError> {
    let plan = Plan::new(&tables, request, log, request.start, request.end).await?;
    let mut scan = plan.scan.clone();
    scan.projection = vec![column::STREAM, column::TIMESTAMP, column::BODY];
    scan.projection.extend(metadata_columns(&Wanted::All));
    scan.projection.sort_unstable();
    let distinct = plan.stages.iter().any(|stage| matches!(stage, Stage::Distinct(_)));
    Ok(Pager {
        runner: LineRunner::new(&plan.stages)?,
        direction: request.direction,
        removes_lines: plan.removes_lines() || request.interval.is_some(),
        distinct,
        left: request.limit,
        start: request.start,
        end: request.end,
        width: 0,
        done: request.limit == 0 || request.start >= request.end,
        scan,
        tables,
    })
}

impl Pager {
    /// The next lines in order; `None` at the end.
    async fn next(&mut self) -> Result<Option<Vec<LabeledEntry>>, LogqlError> {
        if self.done {
            return Ok(None);
        }
        self.scan.check_deadline()?;
        let chunk = if self.width == 0 { self.first_page().await? } else { self.window().await? };
        self.left -= chunk.len().min(self.left);
        self.done |= self.left == 0 || self.start >= self.end;
        Ok(Some(chunk))
    }

    /// Rows nearest to the wanted side of the range.
    async fn first_page(&mut self) -> Result<Vec<LabeledEntry>, LogqlError> {
        let whole = !self.removes_lines && self.left <= MAX_CHUNK_LINES;
        let rows =
            if whole { self.left } else { self.left.saturating_mul(2).clamp(MIN_PAGE_ROWS, MAX_PAGE_ROWS) };
        let mut scan = self.scan.clone();
        scan.top = Some((self.direction, rows));
        let batches: Vec<RecordBatch> = self.tables.scan_logs(scan).try_collect().await?;
        let read: usize = batches.iter().map(RecordBatch::num_rows).sum();
        let complete = whole || read < rows;
        self.done = complete;
        let mut span = None::<(i64, i64)>;
        for batch in batches.iter().filter(|_| !complete) {
            let rows = Rows::new(batch);
            for time in (0..rows.len).map(|row| rows.timestamp(row)) {
                span = Some(span.map_or((time, time), |(least, most)| (least.min(time), most.max(time))));
            }
        }
        let last = span.map(|(least, most)| if self.direction == Direction::Backward { least } else { most });
        let direction = self.direction;
        let mut found = Vec::new();
        for batch in &batches {
            // More rows of the last instant may be missing from the page; the window has them all.
            let skip = |time: i64| last == Some(time);
            self.runner.run(batch, self.tables.registry(), skip, |entry| found.push(entry));
        }
        sort(&mut found, direction);
        found.truncate(self.left);
        if let Some((least, most)) = span {
            match direction {
                Direction::Backward => self.end = least.saturating_add(1),
                Direction::Forward => self.start = most,
            }
            self.width = most.saturating_sub(least).max(1).saturating_mul(WINDOW_GROWTH);
        }
        Ok(found)
    }

    async fn window(&mut self) -> Result<Vec<LabeledEntry>, LogqlError> {
        loop {
            let mut scan = self.scan.clone();
            match self.direction {
                Direction::Backward => {
                    scan.end = self.end;
                    scan.start = self.end.saturating_sub(self.width).max(self.start);
                }
                Direction::Forward => {
                    scan.start = self.start;
                    scan.end = self.start.saturating_add(self.width).min(self.end);
                }
            }
            let (from, to) = (scan.start, scan.end);
            let Some(chunk) = self.read_window(scan).await? else {
                self.width = (self.width / 4).max(1);
                continue;
            };
            match self.direction {
                Direction::Backward => self.end = from,
                Direction::Forward => self.start = to,
            }
            if chunk.len() < MAX_CHUNK_LINES / 8 {
                self.width = self.width.saturating_mul(WINDOW_GROWTH);
            }
            return Ok(chunk);
        }
    }

    /// The window's first lines, or `None` when it holds too many and can be cut.
    async fn read_window(&mut self, scan: LogScan) -> Result<Option<Vec<LabeledEntry>>, LogqlError> {
        let memory_limit = scan.memory_limit.unwrap_or(usize::MAX);
        let can_cut = self.width > 1 && self.left > MAX_CHUNK_LINES && !self.distinct;
        let deadline = scan.clone();
        let mut batches = self.tables.scan_logs(scan);
        let mut heap: BinaryHeap<Held> = BinaryHeap::new();
        let (mut bytes, mut sequence) = (0usize, 0u64);
        let sign = if self.direction == Direction::Backward { -1 } else { 1 };
        while let Some(batch) = batches.next().await {
            deadline.check_deadline()?;
            let left = self.left;
            let worst = std::cell::Cell::new(None::<i128>);
            if heap.len() >= left {
                worst.set(heap.peek().map(|held| held.distance));
            }
            let skip = |time: i64| worst.get().is_some_and(|worst| i128::from(time) * sign > worst);
            self.runner.run(&batch?, self.tables.registry(), skip, |entry| {
                bytes += entry.line.len() + ENTRY_BYTES;
                let distance = i128::from(entry.timestamp) * sign;
                heap.push(Held { distance, sequence, entry });
                sequence += 1;
                if heap.len() > left
                    && let Some(gone) = heap.pop()
                {
                    bytes -= gone.entry.line.len() + ENTRY_BYTES;
                }
                if heap.len() >= left {
                    worst.set(heap.peek().map(|held| held.distance));
                }
            });
            if can_cut && (heap.len() > MAX_CHUNK_LINES || bytes > memory_limit / 4) {
                return Ok(None);
            }
            if bytes > memory_limit {
                return Err(ScanError::Memory { limit: memory_limit }.into());
            }
        }
        Ok(Some(heap.into_sorted_vec().into_iter().map(|held| held.entry).collect()))
    }
}

fn sort(entries: &mut [LabeledEntry], direction: Direction) {
    match direction {
        Direction::Backward => entries.sort_by_key(|entry| std::cmp::Reverse(entry.timestamp)),
        Direction::Forward => entries.sort_by_key(|entry| entry.timestamp),
    }
}

/// Drops entries of a stream that lie closer than the interval to the one before.
struct Interval {
    nanoseconds: i64,
    last: HashMap<Arc<[Label]>, i64>,
}

impl Interval {
    fn keep(&mut self, entry: &LabeledEntry) -> bool {
        match self.last.get_mut(&entry.labels) {
            Some(last) if last.abs_diff(entry.timestamp) < self.nanoseconds.unsigned_abs() => false,
            Some(last) => {
                *last = entry.timestamp;
                true
            }
            None => {
                self.last.insert(entry.labels.clone(), entry.timestamp);
                true
            }
        }
    }
}

/// Lines in order, chunk by chunk.
pub fn entries(tables: Arc<dyn Tables>, request: Request, log: LogExpr) -> EntryStream {
    let mut limit = request.limit;
    let interval = request.interval.filter(|nanoseconds| *nanoseconds > 0);
    let begin = async move {
        // With an interval the number of lines to read is not known beforehand.
        let mut request = request;
        if interval.is_some() {
            request.limit = usize::MAX;
        }
        pager(tables, &request, &log).await
    };
    let chunks = stream::once(begin).map_ok(|pager| {
        stream::try_unfold(
            pager,
            |mut pager| async move { Ok(pager.next().await?.map(|chunk| (chunk, pager))) },
        )
    });
    let mut interval = interval.map(|nanoseconds| Interval { nanoseconds, last: HashMap::new() });
    let limited = chunks.try_flatten().map_ok(move |mut chunk| {
        if let Some(interval) = &mut interval {
            chunk.retain(|entry| interval.keep(entry));
        }
        chunk.truncate(limit);
        limit -= chunk.len();
        (chunk, limit == 0)
    });
    let mut over = false;
    Box::pin(
        limited
            .try_take_while(move |(_, last)| {
                let go_on = !over;
                over = *last;
                futures::future::ready(Ok(go_on))
            })
            .map_ok(|(chunk, _)| chunk)
            .try_filter(|chunk| futures::future::ready(!chunk.is_empty())),
    )
}

/// Answers a log query.
pub async fn run(
    tables: Arc<dyn Tables>,
    request: Request,
    log: LogExpr,
) -> Result<Vec<StreamResult>, LogqlError> {
    let memory_limit = request.memory_limit.unwrap_or(usize::MAX);
    let limit = request.limit;
    let mut streams: HashMap<Arc<[Label]>, Vec<Entry>> = HashMap::new();
    let mut chunks = entries(tables, request, log);
    let (mut bytes, mut count) = (0, 0);
    while let Some(chunk) = chunks.try_next().await? {
        count += chunk.len();
        for entry in chunk {
            bytes += entry.line.len() + ENTRY_BYTES;
            if bytes > memory_limit {
                return Err(ScanError::Memory { limit: memory_limit }.into());
            }
            let found = Entry { timestamp: entry.timestamp, line: entry.line };
            streams.entry(entry.labels).or_default().push(found);
        }
        if count >= limit {
            break;
        }
    }
    let mut results: Vec<StreamResult> = streams
        .into_iter()
        .map(|(labels, entries)| StreamResult { labels: labels.to_vec(), entries })
        .collect();
    results.sort_by(|a, b| a.labels.cmp(&b.labels));
    Ok(results)
}
