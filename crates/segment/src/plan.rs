//! Which rows of a segment a scan has to look at: by stream and time, then by what the index says
//! about levels, trace ids and body blocks. Nothing is read here.

use std::{ops::Range, sync::Arc};

use trine_body::{BlockIndex, PreparedQuery, Query, TraceIdBloom, Verdict};
use trine_schema::{LineFilter, LogFilter, LogScan, Needle};

use crate::{
    Segment, SegmentError, SegmentHandle, StreamMatcher,
    filter::levels_in,
    index::{Granule, Index, StreamEntry},
    read::last_instant,
};

/// The line filters of a scan, understood once.
pub struct LineQueries(Vec<Vec<Query>>);

impl LineQueries {
    /// Of all line filters in their order. A regular expression is taken by its text: flags must stand
    /// in it (`(?i)`), those given to a `RegexBuilder` are not seen.
    pub fn new(scan: &LogScan) -> Result<Self, SegmentError> {
        let queries = |filter: &LineFilter| {
            filter
                .any
                .iter()
                .map(|needle| match needle {
                    Needle::Literal(text) => Ok(Query::literal(text.as_bytes())),
                    Needle::Regex(regex) => Query::regex(regex.as_str()),
                })
                .collect::<Result<Vec<_>, _>>()
        };
        let all = line_filters(scan).map(queries).collect::<Result<_, _>>();
        all.map(Self).map_err(|error| trine_schema::ScanError::Storage(error.to_string()).into())
    }
}

/// Line filters of a scan in their order.
pub fn line_filters(scan: &LogScan) -> impl Iterator<Item = &LineFilter> {
    scan.filters.iter().filter_map(|filter| match filter {
        LogFilter::Line(line) => Some(line),
        _ => None,
    })
}

/// A line filter against the templates of one segment.
pub struct PreparedLine {
    pub negated: bool,
    pub any: Vec<PreparedQuery>,
}

impl PreparedLine {
    /// What is known about all rows of a body block.
    fn block(&self, index: &BlockIndex) -> Verdict {
        let mut found = Verdict::Never;
        for query in &self.any {
            match query.block(index) {
                Verdict::Always => {
                    found = Verdict::Always;
                    break;
                }
                Verdict::Maybe => found = Verdict::Maybe,
                Verdict::Never => {}
            }
        }
        match (found, self.negated) {
            (Verdict::Always, true) => Verdict::Never,
            (Verdict::Never, true) => Verdict::Always,
            (verdict, _) => verdict,
        }
    }
}

/// Rows of one granule to look at.
#[derive(Debug, Clone)]
pub struct Work {
    /// Position in the index.
    pub granule: usize,
    /// Rows of the granule, counted from its first; rising and apart.
    pub rows: Vec<Range<u32>>,
    /// Whether rows may lie outside the scan's time range.
    pub check_time: bool,
    /// Whether the severity filters are already known to hold.
    pub severity_holds: bool,
    /// Line filters (by position) that must be searched for; the others hold.
    pub lines: Vec<usize>,
    /// No row is earlier.
    pub min: i64,
    /// No row is later.
    pub max: i64,
}

impl Work {
    /// Rows to look at.
    pub fn row_count(&self) -> u64 {
        self.rows.iter().map(|rows| u64::from(rows.end - rows.start)).sum()
    }
}

/// What a scan does in one segment.
pub struct SegmentPlan {
    pub handle: Arc<SegmentHandle>,
    pub segment: Arc<Segment>,
    pub lines: Vec<PreparedLine>,
    pub work: Vec<Work>,
    /// Granules that need not be looked at.
    pub skipped: u64,
}

/// Plans a scan. `scan`'s time range may be narrower than what the reader asked for.
pub fn plan(
    handle: &Arc<SegmentHandle>,
    segment: Arc<Segment>,
    scan: &LogScan,
    streams: &StreamMatcher,
    queries: &LineQueries,
) -> SegmentPlan {
    let index = &segment.index;
    let wanted = streams.matches_each(&segment.streams);
    let (mut work, mut lines) = (Vec::new(), None);
    if let Some(last) = last_instant(scan).filter(|_| wanted.contains(&true)) {
        for (position, granule) in index.granules.iter().enumerate() {
            if granule.max < scan.start || granule.min > last {
                continue;
            }
            let Some(severity_holds) = may_match(granule, scan) else { continue };
            let entries = granule.streams.start as usize..granule.streams.end as usize;
            if !wanted[entries.clone()].contains(&true) {
                continue;
            }
            // Classifying the templates costs; it is spared when there is nothing to ask about.
            let lines = lines.get_or_insert_with(|| prepare(&segment, scan, queries));
            let Some(lines) = lines_left(granule, scan, lines) else { continue };
            let rows = entries.filter(|entry| wanted[*entry]).map(|entry| &index.streams[entry]);
            let found = work_of(index, position, rows, scan.start, last);
            work.extend(found.map(|found| Work { severity_holds, lines, ..found }));
        }
    }
    let skipped = (index.granules.len() - work.len()) as u64;
    SegmentPlan { handle: handle.clone(), segment, lines: lines.unwrap_or_default(), work, skipped }
}

/// The line filters against the segment's templates; none with plain bodies.
fn prepare(segment: &Segment, scan: &LogScan, queries: &LineQueries) -> Vec<PreparedLine> {
    let Some(templates) = &segment.templates else { return Vec::new() };
    line_filters(scan)
        .zip(&queries.0)
        .map(|(filter, any)| PreparedLine {
            negated: filter.negated,
            any: any.iter().map(|query| query.prepare(templates)).collect(),
        })
        .collect()
}

/// Line filters that must be searched for in the granule; `None` when one excludes all its rows.
fn lines_left(granule: &Granule, scan: &LogScan, lines: &[PreparedLine]) -> Option<Vec<usize>> {
    let Some(index) = &granule.body_index else { return Some((0..line_filters(scan).count()).collect()) };
    let mut left = Vec::new();
    for (position, line) in lines.iter().enumerate() {
        match line.block(index) {
            Verdict::Never => return None,
            Verdict::Maybe => left.push(position),
            Verdict::Always => {}
        }
    }
    Some(left)
}

/// Rows of the streams in one granule that may lie in `start..=last`; `None` when there are none.
fn work_of<'i>(
    index: &Index,
    granule: usize,
    streams: impl Iterator<Item = &'i StreamEntry>,
    start: i64,
    last: i64,
) -> Option<Work> {
    let span = &index.granules[granule].rows;
    let mut work = Work {
        granule,
        rows: Vec::new(),
        check_time: false,
        severity_holds: false,
        lines: Vec::new(),
        min: i64::MAX,
        max: i64::MIN,
    };
    for stream in streams {
        let (may, sure) = index.rows_in_time(stream, start, last);
        let piece = may.start.max(span.start)..may.end.min(span.end);
        if piece.is_empty() {
            continue;
        }
        work.check_time |= piece.start < sure.start || piece.end > sure.end;
        let (min, max) = index.bounds(stream, &piece);
        (work.min, work.max) = (work.min.min(min), work.max.max(max));
        let local = piece.start - span.start..piece.end - span.start;
        match work.rows.last_mut() {
            Some(before) if before.end == local.start => before.end = local.end,
            _ => work.rows.push(local),
        }
    }
    (!work.rows.is_empty()).then_some(work)
}

/// Whether levels and trace filter leave the granule in; if so, whether the severity filters hold for all
/// its rows.
fn may_match(granule: &Granule, scan: &LogScan) -> Option<bool> {
    let mut severity_holds = true;
    for filter in &scan.filters {
        match filter {
            LogFilter::Severity(range) => {
                let (some, all) = levels_in(range);
                if granule.levels & some == 0 {
                    return None;
                }
                severity_holds &= granule.levels & !all == 0;
            }
            LogFilter::TraceIds(ids)
                if granule.traces.is_empty()
                    || !ids.iter().any(|id| TraceIdBloom::may_contain(&granule.traces, &id.0)) =>
            {
                return None;
            }
            _ => {}
        }
    }
    Some(severity_holds)
}
