//! Conditions, order and limit of one scan, gathered from what was pushed down.

use std::{
    collections::{BTreeSet, HashSet},
    fmt,
    ops::RangeInclusive,
    sync::Arc,
};

use trine_model::{Severity, TraceId};
use trine_schema::{
    Direction, LabelMatch, LabelMatcher, LogFilter, LogScan, MetricScan, Needle, SpanScan,
    columns::may_be_respelled, metrics::METRIC_NAME,
};

use crate::{columns::Columns, pushdown::Condition, scan::QueryContext, tables::Table};

/// Values of the label `service` or `service_name`.
#[derive(Debug, Clone)]
pub(crate) struct Services {
    pub(crate) label: &'static str,
    pub(crate) any: Arc<HashSet<String>>,
}

/// Conditions, order and limit of one scan.
#[derive(Debug, Clone)]
pub(crate) struct Selection {
    pub(crate) start: i64,
    pub(crate) end: i64,
    pub(crate) streams: Vec<LabelMatcher>,
    pub(crate) rows: Vec<LogFilter>,
    /// Name of a span.
    pub(crate) operation: Option<String>,
    /// Nanoseconds of a span.
    pub(crate) duration: RangeInclusive<i64>,
    /// `StatusCode` of a span.
    pub(crate) status: Option<u8>,
    /// Of metrics: the service is one of these.
    pub(crate) services: Option<Services>,
    /// Of metrics: the first nanosecond of the sample's minute is one of these.
    pub(crate) minutes: Option<Arc<BTreeSet<i64>>>,
    /// No row can pass.
    pub(crate) never: bool,
    pub(crate) top: Option<(Direction, usize)>,
    pub(crate) limit: Option<usize>,
    /// Of metrics: one row for each series is enough.
    pub(crate) distinct: bool,
}

impl Selection {
    /// All rows that the query sees.
    pub(crate) fn all(context: &QueryContext, limit: Option<usize>) -> Self {
        Self {
            start: context.start,
            end: context.end,
            streams: Vec::new(),
            rows: Vec::new(),
            operation: None,
            duration: i64::MIN..=i64::MAX,
            status: None,
            services: None,
            minutes: None,
            never: false,
            top: None,
            limit,
            distinct: false,
        }
    }

    pub(crate) fn add(&mut self, condition: Condition) {
        match condition {
            Condition::Time(start, end) => {
                self.start = self.start.max(start);
                self.end = self.end.min(end);
            }
            Condition::Stream(matcher) => self.streams.push(matcher),
            Condition::Row(filter) => self.rows.push(filter),
            Condition::Operation(name) => {
                self.never |= self.operation.as_ref().is_some_and(|other| *other != name);
                self.operation = Some(name);
            }
            Condition::Duration(range) => {
                let (start, end) =
                    (self.duration.start().max(range.start()), self.duration.end().min(range.end()));
                self.never |= start > end;
                self.duration = *start..=*end;
            }
            Condition::Status(code) => {
                self.never |= self.status.is_some_and(|other| other != code);
                self.status = Some(code);
            }
            Condition::Never => self.never = true,
        }
    }

    /// The read of logs it stands for.
    pub(crate) fn logs(&self, context: &QueryContext, projection: Vec<usize>) -> LogScan {
        LogScan {
            tenant: context.tenant.clone(),
            start: self.start,
            end: self.end,
            streams: self.streams.clone(),
            filters: self.rows.clone(),
            projection,
            top: self.top,
            deadline: Some(context.deadline),
            memory_limit: Some(context.memory_limit),
            stats: context.stats.clone(),
        }
    }

    /// The read of spans it stands for.
    pub(crate) fn spans(&self, context: &QueryContext, columns: &Columns) -> SpanScan {
        let mut scan = SpanScan {
            start: self.start,
            last: self.last(),
            streams: self.streams.clone(),
            operation: self.operation.clone(),
            duration: self.duration.clone(),
            status_code: self.status,
            newest: self.top.map(|(_, count)| count),
            projection: columns.stored(),
            attribute_columns: columns.attribute_columns(),
            dictionaries: true,
            deadline: Some(context.deadline),
            memory_limit: Some(context.memory_limit),
            stats: context.stats.clone(),
            ..SpanScan::all(context.tenant.clone())
        };
        for filter in &self.rows {
            match filter {
                LogFilter::TraceIds(ids) => {
                    scan.traces = Some(match &scan.traces {
                        Some(others) => both(others, ids),
                        None => ids.clone(),
                    });
                }
                LogFilter::Attribute { key, value } => scan.attributes.push((key.clone(), value.clone())),
                LogFilter::Line(_) | LogFilter::SpanId(_) | LogFilter::Severity(_) => {
                    unreachable!("no condition on spans becomes one of these")
                }
            }
        }
        scan
    }

    /// The read of metrics it stands for; matchers that it cannot say are left to the reader.
    pub(crate) fn metrics(&self, context: &QueryContext) -> MetricScan {
        let exact = |matcher: &&LabelMatcher| {
            let name = matcher.name.as_str();
            name == METRIC_NAME || name != "service" && !may_be_respelled(name)
        };
        MetricScan {
            start_ms: self.start.div_euclid(1_000_000) + i64::from(self.start.rem_euclid(1_000_000) > 0),
            end_ms: self.last().div_euclid(1_000_000),
            matchers: self.streams.iter().filter(exact).cloned().collect(),
            deadline: Some(context.deadline),
            stats: context.stats.clone(),
            ..MetricScan::all(context.tenant.clone())
        }
    }

    /// How many rows it promises, to compare two scans: no count, only an order.
    pub(crate) fn weight(&self, table: Table) -> f64 {
        const DAY_NS: f64 = 86_400e9;
        let mut weight = match (self.top, self.limit) {
            (Some((_, count)), _) | (None, Some(count)) => (count as f64 / 1e6).min(1.0),
            (None, None) => 1.0,
        };
        weight *= match (self.start, self.end) {
            (i64::MIN, i64::MAX) => 1.0,
            (i64::MIN, _) | (_, i64::MAX) => 0.5,
            (start, end) => (end.saturating_sub(start) as f64 / DAY_NS).clamp(0.0, 0.5),
        };
        for matcher in &self.streams {
            weight *= match &matcher.value {
                LabelMatch::Equal(_) if matcher.name == METRIC_NAME => 0.01,
                LabelMatch::Equal(_) => 0.1,
                LabelMatch::Regex(_) => 0.3,
                LabelMatch::NotEqual(_) | LabelMatch::NotRegex(_) => 0.9,
            };
        }
        for filter in &self.rows {
            weight *= match filter {
                LogFilter::TraceIds(ids) => (ids.len() as f64 / 1e6).min(1.0),
                LogFilter::SpanId(_) => 1e-6,
                LogFilter::Attribute { .. } => 0.01,
                LogFilter::Line(line) if line.negated => 0.9,
                LogFilter::Line(_) => 0.05,
                LogFilter::Severity(range) if *range.start() >= 17 => 0.02,
                LogFilter::Severity(range) if *range.start() >= 13 => 0.05,
                LogFilter::Severity(_) => 0.5,
            };
        }
        weight *= if self.operation.is_some() { 0.02 } else { 1.0 };
        weight *= match (*self.duration.start(), *self.duration.end()) {
            (1_000_000_000.., _) => 0.01,
            (1.., _) => 0.1,
            (_, i64::MAX) => 1.0,
            _ => 0.5,
        };
        weight *= match self.status {
            Some(2) => 0.02,
            Some(_) => 0.3,
            None => 1.0,
        };
        // Any part of the samples is more than the same part of logs and spans.
        if table == Table::Metrics { weight * 100.0 } else { weight }
    }

    /// Last nanosecond of the range, inclusive.
    pub(crate) fn last(&self) -> i64 {
        if self.end == i64::MAX { self.end } else { self.end.saturating_sub(1) }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.never || self.start >= self.end && self.end != i64::MAX
    }
}

impl fmt::Display for Selection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.never {
            f.write_str(", nothing")?;
        }
        let time = |at: i64| chrono::DateTime::from_timestamp_nanos(at).format("%Y-%m-%dT%H:%M:%S%.fZ");
        match (self.start, self.end) {
            (i64::MIN, i64::MAX) => {}
            (start, i64::MAX) => write!(f, ", time=[{}..]", time(start))?,
            (i64::MIN, end) => write!(f, ", time=[..{}]", time(end))?,
            (start, end) => write!(f, ", time=[{}..{}]", time(start), time(end))?,
        }
        if !self.streams.is_empty() {
            let streams: Vec<String> = self.streams.iter().map(matcher_text).collect();
            write!(f, ", streams=[{}]", streams.join(", "))?;
        }
        if !self.rows.is_empty() {
            let rows: Vec<String> = self.rows.iter().map(filter_text).collect();
            write!(f, ", rows=[{}]", rows.join(", "))?;
        }
        if let Some(name) = &self.operation {
            write!(f, ", operation={name:?}")?;
        }
        match (*self.duration.start(), *self.duration.end()) {
            (i64::MIN, i64::MAX) => {}
            (start, i64::MAX) => write!(f, ", duration=[{start}..]")?,
            (i64::MIN, end) => write!(f, ", duration=[..={end}]")?,
            (start, end) => write!(f, ", duration=[{start}..={end}]")?,
        }
        if let Some(code) = self.status {
            write!(f, ", status_code={code}")?;
        }
        if let Some(services) = &self.services {
            write!(f, ", one of {} services", services.any.len())?;
        }
        if let Some(minutes) = &self.minutes {
            write!(f, ", one of {} minutes", minutes.len())?;
        }
        if let Some((direction, count)) = self.top {
            let word = if direction == Direction::Backward { "newest" } else { "oldest" };
            write!(f, ", top={count} {word}")?;
        }
        if self.distinct {
            f.write_str(", series only")?;
        }
        if let Some(limit) = self.limit {
            write!(f, ", limit={limit}")?;
        }
        Ok(())
    }
}

fn matcher_text(matcher: &LabelMatcher) -> String {
    let name = &matcher.name;
    match &matcher.value {
        LabelMatch::Equal(value) => format!("{name}={value:?}"),
        LabelMatch::NotEqual(value) => format!("{name}!={value:?}"),
        LabelMatch::Regex(regex) => format!("{name}=~{:?}", regex.as_str()),
        LabelMatch::NotRegex(regex) => format!("{name}!~{:?}", regex.as_str()),
    }
}

fn filter_text(filter: &LogFilter) -> String {
    match filter {
        LogFilter::Line(line) => {
            let any: Vec<String> = line
                .any
                .iter()
                .map(|needle| match needle {
                    Needle::Literal(text) => format!("{text:?}"),
                    Needle::Regex(regex) => format!("/{}/", regex.as_str()),
                })
                .collect();
            format!("body {}contains {}", if line.negated { "not " } else { "" }, any.join(" or "))
        }
        LogFilter::TraceIds(ids) => match ids.as_ref() {
            [id] => format!("trace_id={id}"),
            ids => format!("trace_id in {} ids", ids.len()),
        },
        LogFilter::SpanId(id) => format!("span_id={id}"),
        LogFilter::Severity(range) => format!("severity={}..{}", range.start(), range.end()),
        LogFilter::Attribute { key, value } => format!("attribute {key:?}={value:?}"),
    }
}

/// Whether a severity range covers whole levels, as roll-ups need it.
pub(crate) fn covers_levels(filter: &LogFilter) -> bool {
    let LogFilter::Severity(range) = filter else { return false };
    let level = |number: u8| Severity::from_number(i64::from(number)).level();
    let (start, end) = (*range.start(), *range.end());
    let whole_start = start == 0 || level(start - 1) != level(start);
    whole_start && (end >= 24 || level(end + 1) != level(end))
}

/// What is in both sorted lists.
fn both(a: &[TraceId], b: &[TraceId]) -> Arc<[TraceId]> {
    a.iter().filter(|id| b.binary_search(id).is_ok()).copied().collect()
}
