//! What of a log query the store can do: stream matchers, line filters, and label filters on
//! columns of the record. The rest stays for the pipeline.
//!
//! A filter is handed down only where it decides exactly as the pipeline would. `level="error"`
//! becomes a severity range only when no stream in range and no attribute is called `level`.

use std::{ops::RangeInclusive, sync::Arc};

use trine_model::{SpanId, TraceId};
use trine_schema::{LogFilter, LogScan, Stream, Tables, label_name};

use crate::{
    LogqlError, Request,
    ast::{LabelFilter, LogExpr, MatchOp, Matcher, Stage},
    pipeline::{
        self,
        labels::{DETECTED_LEVEL, LEVEL, level_word},
    },
};

/// Labels that come from columns of the record and are not attributes.
const COLUMN_NAMES: [&str; 7] =
    ["trace_id", "span_id", LEVEL, DETECTED_LEVEL, "scope_name", "severity_text", "event_name"];

/// A log query, split between store and pipeline.
pub struct Plan {
    /// Range, stream matchers and filters; the projection is the caller's.
    pub scan: LogScan,
    /// What is left to do per line.
    pub stages: Vec<Stage>,
    names: NameFacts,
}

/// Who uses which label names.
struct NameFacts {
    /// Matching streams with rows in range; `None` until somebody asked.
    streams: Option<Vec<Arc<Stream>>>,
    attributes: Vec<String>,
}

impl NameFacts {
    async fn load(&mut self, tables: &Arc<dyn Tables>, scan: &LogScan) -> Result<(), LogqlError> {
        if self.streams.is_none() {
            self.streams = Some(tables.streams(scan.clone()).await?);
            let stored = tables.attribute_names(&scan.tenant);
            self.attributes = stored.iter().map(|name| label_name(name)).collect();
        }
        Ok(())
    }

    fn streams(&self) -> &[Arc<Stream>] {
        self.streams.as_deref().unwrap_or(&[])
    }

    fn any_stream_has(&self, name: &str) -> bool {
        let served = |stream: &Stream| name == "service_name" && !stream.service().is_empty();
        self.streams().iter().any(|stream| stream.labels.get(name).is_some() || served(stream))
    }

    fn all_streams_have(&self, name: &str) -> bool {
        let served = |stream: &Stream| name == "service_name" && !stream.service().is_empty();
        self.streams().iter().all(|stream| stream.labels.get(name).is_some() || served(stream))
    }

    fn is_attribute(&self, name: &str) -> bool {
        self.attributes.iter().any(|known| known == name)
    }

    /// Whether only the severity column decides about the label.
    fn is_pure_level(&self, name: &str) -> bool {
        (name == LEVEL || name == DETECTED_LEVEL) && !self.any_stream_has(name) && !self.is_attribute(name)
    }
}

/// Stream matchers of a selector.
pub fn base_scan(request: &Request, log: &LogExpr, start: i64, end: i64) -> Result<LogScan, LogqlError> {
    let mut scan = LogScan::all(request.tenant.clone());
    scan.start = start;
    scan.end = end;
    scan.streams = log
        .selector
        .iter()
        .map(pipeline::label_matcher)
        .collect::<Result<_, _>>()
        .map_err(LogqlError::Request)?;
    scan.deadline = request.deadline;
    scan.memory_limit = request.memory_limit;
    scan.stats = request.stats.clone();
    Ok(scan)
}

impl Plan {
    /// Splits the query for rows in `[start, end)`.
    pub async fn new(
        tables: &Arc<dyn Tables>,
        request: &Request,
        log: &LogExpr,
        start: i64,
        end: i64,
    ) -> Result<Self, LogqlError> {
        let mut scan = base_scan(request, log, start, end)?;
        let mut names = NameFacts { streams: None, attributes: Vec::new() };
        let mut stages = Vec::new();
        let (mut line_is_stored, mut labels_are_stored) = (true, true);
        for stage in &log.stages {
            match stage {
                Stage::Line(line) if line_is_stored => {
                    if let Some(filter) = pipeline::store_filter(line) {
                        let empty = |needle: &_| matches!(needle, trine_schema::Needle::Literal(text) if text.is_empty());
                        if filter.negated || !filter.any.iter().any(empty) {
                            scan.filters.push(LogFilter::Line(filter));
                        }
                        continue;
                    }
                    scan.filters.extend(pipeline::store_hint(line).map(LogFilter::Line));
                }
                Stage::Label(filter) if labels_are_stored => {
                    let mut conjuncts = Vec::new();
                    split(filter, &mut conjuncts);
                    if conjuncts.iter().any(|filter| matches!(filter, LabelFilter::Text(_))) {
                        names.load(tables, &scan).await?;
                    }
                    let mut left: Option<LabelFilter> = None;
                    for conjunct in conjuncts {
                        if let Some(filter) = store_label_filter(conjunct, &names) {
                            scan.filters.push(filter);
                            continue;
                        }
                        let conjunct = conjunct.clone();
                        left = Some(match left {
                            Some(left) => LabelFilter::And(Box::new(left), Box::new(conjunct)),
                            None => conjunct,
                        });
                    }
                    stages.extend(left.map(Stage::Label));
                    continue;
                }
                _ => {}
            }
            line_is_stored &= !pipeline::rewrites_line(stage) && !matches!(stage, Stage::Distinct(_));
            labels_are_stored &= matches!(stage, Stage::Line(_) | Stage::Decolorize | Stage::LineFormat(_));
            stages.push(stage.clone());
        }
        Ok(Self { scan, stages, names })
    }

    /// Whether a stage that is left can remove lines.
    pub fn removes_lines(&self) -> bool {
        self.stages.iter().any(|stage| matches!(stage, Stage::Line(_) | Stage::Label(_) | Stage::Distinct(_)))
    }

    /// Tells, for stored labels, whether the stream and the severity decide each of the names:
    /// `Some(true)` when the severity is needed, `Some(false)` when the stream is enough, `None`
    /// when rows have to be looked at.
    pub async fn decided_by_stream(
        &mut self,
        tables: &Arc<dyn Tables>,
        names: &[String],
    ) -> Result<Option<bool>, LogqlError> {
        if names.is_empty() {
            return Ok(Some(false));
        }
        self.names.load(tables, &self.scan).await?;
        let mut severity = false;
        for name in names {
            if self.names.is_pure_level(name) {
                severity = true;
            } else if !self.names.all_streams_have(name) {
                return Ok(None);
            }
        }
        Ok(Some(severity))
    }
}

fn split<'a>(filter: &'a LabelFilter, out: &mut Vec<&'a LabelFilter>) {
    match filter {
        LabelFilter::And(left, right) => {
            split(left, out);
            split(right, out);
        }
        other => out.push(other),
    }
}

fn store_label_filter(filter: &LabelFilter, names: &NameFacts) -> Option<LogFilter> {
    let LabelFilter::Text(matcher) = filter else { return None };
    let name = matcher.name.as_str();
    if names.is_pure_level(name) {
        return severities(matcher).map(LogFilter::Severity);
    }
    if matcher.op != MatchOp::Equal || matcher.value.is_empty() || names.any_stream_has(name) {
        return None;
    }
    match name {
        // Upper-case hex would match the column, but not the label, which is lower-case.
        "trace_id" | "span_id" if matcher.value.bytes().any(|b| b.is_ascii_uppercase()) => None,
        "trace_id" if !names.is_attribute(name) => {
            TraceId::from_hex(matcher.value.as_bytes()).ok().map(LogFilter::trace_id)
        }
        "span_id" if !names.is_attribute(name) => {
            SpanId::from_hex(matcher.value.as_bytes()).ok().map(LogFilter::SpanId)
        }
        _ if COLUMN_NAMES.contains(&name) || name.starts_with("__") => None,
        _ => Some(LogFilter::Attribute { key: name.to_owned(), value: matcher.value.clone() }),
    }
}

/// The severity numbers whose level passes, when they are one run.
fn severities(matcher: &Matcher) -> Option<RangeInclusive<u8>> {
    const HIGHEST: u8 = 24;
    let passes = |number: &u8| pipeline::text_matches(matcher, level_word(*number));
    let first = (0..=HIGHEST).find(passes)?;
    let last = (0..=HIGHEST).rev().find(passes)?;
    (first..=last).all(|number| passes(&number)).then_some(first..=last)
}
