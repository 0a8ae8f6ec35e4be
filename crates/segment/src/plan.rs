//! Which rows of a segment a scan has to look at: by stream and time, then by what the index says
//! about levels, trace ids and body blocks. Nothing is read here.

use std::{ops::Range, sync::Arc};

use trine_body::{BlockIndex, PreparedQuery, Query, TraceIdBloom, Verdict};
use trine_schema::{LineFilter, LogFilter, LogScan, Needle};

use crate::{Segment, SegmentError, StreamMatcher, index::Granule, read::last_instant, write::level_of};

/// Numbers of severities.
const SEVERITIES: Range<u8> = 0..25;

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
    pub segment: Arc<Segment>,
    pub lines: Vec<PreparedLine>,
    pub work: Vec<Work>,
    /// Granules that need not be looked at.
    pub skipped: u64,
}

/// Plans a scan. `scan`'s time range may be narrower than what the reader asked for.
pub fn plan(
    segment: &Arc<Segment>,
    scan: &LogScan,
    streams: &StreamMatcher,
    queries: &LineQueries,
) -> SegmentPlan {
    let mut work = by_stream_and_time(segment, scan, streams);
    let granules = &segment.index.granules;
    work.retain_mut(|work| may_match(&granules[work.granule], scan, work));
    // Classifying the templates costs; it is spared when nothing is left to ask about.
    let mut lines = Vec::new();
    if let Some(templates) = segment.templates.as_ref().filter(|_| !work.is_empty()) {
        lines = line_filters(scan)
            .zip(&queries.0)
            .map(|(filter, any)| PreparedLine {
                negated: filter.negated,
                any: any.iter().map(|query| query.prepare(templates)).collect(),
            })
            .collect();
        work.retain_mut(|work| {
            let Some(index) = &granules[work.granule].body_index else { return true };
            let mut possible = true;
            work.lines.retain(|line| match lines[*line].block(index) {
                Verdict::Always => false,
                Verdict::Maybe => true,
                Verdict::Never => {
                    possible = false;
                    true
                }
            });
            possible
        });
    }
    let skipped = (granules.len() - work.len()) as u64;
    SegmentPlan { segment: segment.clone(), lines, work, skipped }
}

fn by_stream_and_time(segment: &Segment, scan: &LogScan, streams: &StreamMatcher) -> Vec<Work> {
    let index = &segment.index;
    let mut all: Vec<Work> = Vec::new();
    let Some(last) = last_instant(scan) else { return all };
    let line_count = line_filters(scan).count();
    for (entry, reference) in index.streams.iter().zip(&segment.streams) {
        if entry.max < scan.start || entry.min > last || !streams.matches(*reference) {
            continue;
        }
        let (may, sure) = index.rows_in_time(entry, scan.start, last);
        let mut row = may.start;
        let mut granule = index.granule_of(row);
        while row < may.end {
            let span = &index.granules[granule].rows;
            let piece = row..may.end.min(span.end);
            let check_time = piece.start < sure.start || piece.end > sure.end;
            let (min, max) = index.bounds(entry, &piece);
            let local = piece.start - span.start..piece.end - span.start;
            match all.last_mut() {
                Some(work) if work.granule == granule => {
                    match work.rows.last_mut() {
                        Some(before) if before.end == local.start => before.end = local.end,
                        _ => work.rows.push(local),
                    }
                    work.check_time |= check_time;
                    (work.min, work.max) = (work.min.min(min), work.max.max(max));
                }
                _ => all.push(Work {
                    granule,
                    rows: vec![local],
                    check_time,
                    severity_holds: false,
                    lines: (0..line_count).collect(),
                    min,
                    max,
                }),
            }
            row = piece.end;
            granule += 1;
        }
    }
    all
}

/// Whether levels and trace filter leave the granule in.
fn may_match(granule: &Granule, scan: &LogScan, work: &mut Work) -> bool {
    let mut severity_holds = true;
    for filter in &scan.filters {
        match filter {
            LogFilter::Severity(range) => {
                let (mut some, mut all) = (0u8, u8::MAX);
                for number in SEVERITIES {
                    let bit = 1 << level_of(number) as u8;
                    if range.contains(&number) { some |= bit } else { all &= !bit }
                }
                if granule.levels & some == 0 {
                    return false;
                }
                severity_holds &= granule.levels & !all == 0;
            }
            LogFilter::TraceId(id)
                if granule.traces.is_empty() || !TraceIdBloom::may_contain(&granule.traces, &id.0) =>
            {
                return false;
            }
            _ => {}
        }
    }
    work.severity_holds = severity_holds;
    true
}
