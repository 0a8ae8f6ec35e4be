//! Turns SQL conditions into what a [`trine_schema::LogScan`], [`trine_schema::SpanScan`] or
//! [`trine_schema::MetricScan`] can apply.
//!
//! A condition is *exact* when the scan keeps just the rows for which it is true; else the scan
//! keeps more and the plan filters again. Nulls: a condition in WHERE that is null drops the row,
//! while a [`LabelMatcher`] takes a missing label as empty; hence negated matchers on labels that
//! may be missing are never exact.

use std::{collections::BTreeSet, ops::RangeInclusive};

use arrow::datatypes::{DataType, TimeUnit};
use datafusion::{
    common::ScalarValue,
    logical_expr::{Between, BinaryExpr, Expr, Like, Operator, expr::InList},
};
use regex::Regex;
use trine_model::{SpanId, TraceId};
use trine_schema::{
    LabelMatch, LabelMatcher, LineFilter, LogFilter, Needle, logs::column, metrics::METRIC_NAME, spans,
};

use crate::{
    columns::{Columns, MINUTE_NS, Source, minute_of},
    numbers::{push_severity, push_status, whole_numbers},
    tables::{TIMESTAMP, Table},
};

/// One condition of a scan.
#[derive(Debug, Clone)]
pub(crate) enum Condition {
    /// From the first nanosecond to before the second; `i64::MAX` means no end.
    Time(i64, i64),
    /// On the stream.
    Stream(LabelMatcher),
    /// On the row; of spans only trace ids and attributes.
    Row(LogFilter),
    /// Name of a span.
    Operation(String),
    /// Nanoseconds of a span.
    Duration(RangeInclusive<i64>),
    /// `StatusCode` of a span.
    Status(u8),
    /// No row passes.
    Never,
}

/// What a SQL condition becomes.
#[derive(Debug, Clone)]
pub(crate) struct Pushed {
    /// All must hold.
    pub(crate) conditions: Vec<Condition>,
    /// Whether they say the same as the SQL condition.
    pub(crate) exact: bool,
}

impl Pushed {
    pub(crate) fn one(condition: Condition, exact: bool) -> Self {
        Self { conditions: vec![condition], exact }
    }

    fn line(needle: Needle, negated: bool, exact: bool) -> Self {
        Self::one(Condition::Row(LogFilter::Line(LineFilter { any: vec![needle], negated })), exact)
    }
}

/// What the scan can take over of this condition; `None` when nothing.
pub(crate) fn push(expr: &Expr, columns: &Columns) -> Option<Pushed> {
    if let Some(pushed) = push_severity(expr, columns).or_else(|| push_status(expr, columns)) {
        return Some(pushed);
    }
    match expr {
        Expr::BinaryExpr(BinaryExpr { left, op: Operator::And, right }) => {
            match (push(left, columns), push(right, columns)) {
                (Some(mut left), Some(right)) => {
                    left.conditions.extend(right.conditions);
                    left.exact &= right.exact;
                    Some(left)
                }
                (Some(one), None) | (None, Some(one)) => Some(Pushed { exact: false, ..one }),
                (None, None) => None,
            }
        }
        Expr::BinaryExpr(BinaryExpr { left, op: Operator::Or, right }) => {
            either(push(left, columns)?, push(right, columns)?)
        }
        Expr::BinaryExpr(BinaryExpr { left, op, right }) => {
            if let Some(pushed) = push_strpos(left, *op, right, columns) {
                return Some(pushed);
            }
            if let Some(source) = column_source(left, columns) {
                compare(columns.table, source, *op, literal(right)?)
            } else {
                compare(columns.table, column_source(right, columns)?, op.swap()?, literal(left)?)
            }
        }
        Expr::Not(inner) => negate(push(inner, columns)?),
        Expr::Like(like) => push_like(like, columns),
        Expr::InList(InList { expr, list, negated: false })
            if column_source(expr, columns).is_some_and(|source| is_trace_id(columns.table, source)) =>
        {
            let values = list.iter().map(|item| text(literal(item)?)).collect::<Option<Vec<_>>>()?;
            Some(trace_ids(values.into_iter()))
        }
        Expr::InList(InList { expr, list, negated }) => {
            let (name, nullable) = stream_column(expr, columns)?;
            let values = list.iter().map(|item| text(literal(item)?)).collect::<Option<Vec<_>>>()?;
            let any: Vec<String> = values.iter().map(|value| regex::escape(value)).collect();
            let regex = anchored(&any.join("|"))?;
            let exact = if *negated { !nullable } else { !nullable || values.iter().all(|v| !v.is_empty()) };
            let value = if *negated { LabelMatch::NotRegex(regex) } else { LabelMatch::Regex(regex) };
            Some(Pushed::one(Condition::Stream(LabelMatcher { name, value }), exact))
        }
        Expr::Between(Between { expr, negated: false, low, high }) => {
            let source = column_source(expr, columns)?;
            let mut from = compare(columns.table, source, Operator::GtEq, literal(low)?)?;
            let to = compare(columns.table, source, Operator::LtEq, literal(high)?)?;
            from.conditions.extend(to.conditions);
            from.exact &= to.exact;
            Some(from)
        }
        Expr::IsNull(inner) => {
            let (name, _) = stream_column(inner, columns)?;
            let value = LabelMatch::Equal(String::new());
            Some(Pushed::one(Condition::Stream(LabelMatcher { name, value }), false))
        }
        Expr::ScalarFunction(call) => {
            let source = column_source(call.args.first()?, columns)?;
            if !is_body(columns.table, source) {
                return None;
            }
            let argument = text(literal(call.args.get(1)?)?)?;
            let needle = match (call.func.name(), call.args.len()) {
                ("contains", 2) => return contains(argument, false),
                ("starts_with", 2) => Regex::new(&format!("^{}", regex::escape(argument))).ok()?,
                ("ends_with", 2) => Regex::new(&format!("(?s:{}$)", regex::escape(argument))).ok()?,
                ("regexp_like", 2) => Regex::new(argument).ok()?,
                _ => return None,
            };
            Some(Pushed::line(Needle::Regex(needle), false, true))
        }
        _ => None,
    }
}

/// `a OR b`: line filters on the body join their needles, matchers of one label their values.
fn either(mut left: Pushed, mut right: Pushed) -> Option<Pushed> {
    let exact = left.exact && right.exact;
    if left.conditions.len() != 1 || right.conditions.len() != 1 {
        return None;
    }
    match (left.conditions.pop()?, right.conditions.pop()?) {
        (Condition::Never, other) | (other, Condition::Never) => Some(Pushed::one(other, exact)),
        (Condition::Row(LogFilter::Line(mut a)), Condition::Row(LogFilter::Line(b)))
            if !a.negated && !b.negated =>
        {
            a.any.extend(b.any);
            Some(Pushed::one(Condition::Row(LogFilter::Line(a)), exact))
        }
        (Condition::Row(LogFilter::TraceIds(a)), Condition::Row(LogFilter::TraceIds(b))) => {
            let ids: BTreeSet<TraceId> = a.iter().chain(b.iter()).copied().collect();
            Some(Pushed::one(Condition::Row(LogFilter::TraceIds(ids.into_iter().collect())), exact))
        }
        (Condition::Stream(a), Condition::Stream(b)) if a.name == b.name => {
            let regex = anchored(&format!("{}|{}", alternative(&a.value)?, alternative(&b.value)?))?;
            let value = LabelMatch::Regex(regex);
            Some(Pushed::one(Condition::Stream(LabelMatcher { name: a.name, value }), exact))
        }
        _ => None,
    }
}

fn alternative(value: &LabelMatch) -> Option<String> {
    match value {
        LabelMatch::Equal(value) => Some(regex::escape(value)),
        LabelMatch::Regex(regex) => Some(format!("(?:{})", regex.as_str())),
        LabelMatch::NotEqual(_) | LabelMatch::NotRegex(_) => None,
    }
}

/// `NOT x` for line filters: the body is never null, so the complement is exact where `x` is.
fn negate(mut pushed: Pushed) -> Option<Pushed> {
    if !pushed.exact || pushed.conditions.len() != 1 {
        return None;
    }
    match pushed.conditions.pop()? {
        Condition::Row(LogFilter::Line(mut line)) => {
            line.negated = !line.negated;
            Some(Pushed::one(Condition::Row(LogFilter::Line(line)), true))
        }
        _ => None,
    }
}

fn is_body(table: Table, source: &Source) -> bool {
    table == Table::Logs && *source == Source::Stored(column::BODY)
}

fn is_trace_id(table: Table, source: &Source) -> bool {
    table.trace_id().is_some_and(|index| *source == Source::Hex(index))
}

/// The trace is one of these; text that is no lower-case hex equals no id.
fn trace_ids<'a>(values: impl Iterator<Item = &'a str>) -> Pushed {
    let ids: BTreeSet<TraceId> = values.filter_map(trace_id).collect();
    let condition = if ids.is_empty() {
        Condition::Never
    } else {
        Condition::Row(LogFilter::TraceIds(ids.into_iter().collect()))
    };
    Pushed::one(condition, true)
}

/// The trace id that the column shows as this text.
pub(crate) fn trace_id(text: &str) -> Option<TraceId> {
    is_hex(text, TraceId::LEN).then(|| text.parse().ok()).flatten()
}

fn is_hex(text: &str, bytes: usize) -> bool {
    text.len() == bytes * 2 && text.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
}

fn compare(table: Table, source: &Source, op: Operator, value: &ScalarValue) -> Option<Pushed> {
    match source {
        source if is_trace_id(table, source) && op == Operator::Eq => {
            Some(trace_ids(std::iter::once(text(value)?)))
        }
        Source::Stored(spans::column::OPERATION) if table == Table::Spans && op == Operator::Eq => {
            Some(Pushed::one(Condition::Operation(text(value)?.to_owned()), true))
        }
        Source::Stored(spans::column::DURATION) if table == Table::Spans => {
            let range = whole_numbers(op, value)?;
            let condition = if range.is_empty() { Condition::Never } else { Condition::Duration(range) };
            Some(Pushed::one(condition, true))
        }
        Source::Minute => {
            let ScalarValue::TimestampNanosecond(Some(at), _) = value else { return None };
            let (this, next) = (minute_of(*at), minute_of(*at).checked_add(MINUTE_NS)?);
            let from = if this == *at { this } else { next };
            let (start, end) = match op {
                Operator::GtEq => (from, i64::MAX),
                Operator::Gt => (next, i64::MAX),
                Operator::Lt => (i64::MIN, from),
                Operator::LtEq => (i64::MIN, next),
                Operator::Eq if this == *at => (this, next),
                Operator::Eq => return Some(Pushed::one(Condition::Never, true)),
                _ => return None,
            };
            Some(Pushed::one(Condition::Time(start, end), true))
        }
        Source::Stored(TIMESTAMP) => {
            let ScalarValue::TimestampNanosecond(Some(at), _) = value else { return None };
            let after = |at: i64| at.checked_add(1);
            let (start, end) = match op {
                Operator::GtEq => (*at, i64::MAX),
                Operator::Gt => (after(*at)?, i64::MAX),
                // The end of a scan is exclusive, except that its highest value is no end at all.
                Operator::Lt if *at != i64::MAX => (i64::MIN, *at),
                Operator::LtEq => (i64::MIN, after(*at).unwrap_or(i64::MAX)),
                Operator::Eq => (*at, after(*at).unwrap_or(i64::MAX)),
                _ => return None,
            };
            Some(Pushed::one(Condition::Time(start, end), true))
        }
        source if is_body(table, source) => {
            let value = text(value)?;
            match op {
                Operator::Eq => contains(value, false).map(|pushed| Pushed { exact: false, ..pushed }),
                Operator::RegexMatch => line_regex(value, false, false),
                Operator::RegexIMatch => line_regex(value, true, false),
                Operator::RegexNotMatch => line_regex(value, false, true),
                Operator::RegexNotIMatch => line_regex(value, true, true),
                _ => None,
            }
        }
        Source::Hex(column::SPAN_ID) if table == Table::Logs && op == Operator::Eq => {
            let value = text(value)?;
            let condition = if is_hex(value, SpanId::LEN) {
                Condition::Row(LogFilter::SpanId(value.parse().ok()?))
            } else {
                Condition::Never
            };
            Some(Pushed::one(condition, true))
        }
        Source::Attribute(key) if op == Operator::Eq => {
            let filter = LogFilter::Attribute { key: key.clone(), value: text(value)?.to_owned() };
            // Of logs, which of two equal names counts is the store's choice, so the row is looked at again.
            Some(Pushed::one(Condition::Row(filter), table == Table::Spans))
        }
        Source::Label(_) | Source::Service | Source::Metric | Source::Known(_) => {
            let (name, nullable) = label_of(source)?;
            let value = text(value)?;
            let inside = |flag: &str| {
                Regex::new(value).ok()?;
                anchored(&format!("(?s:.*){flag}(?:{value})(?s:.*)"))
            };
            let (value, exact) = match op {
                Operator::Eq => (LabelMatch::Equal(value.to_owned()), !nullable || !value.is_empty()),
                Operator::NotEq => (LabelMatch::NotEqual(value.to_owned()), !nullable),
                Operator::RegexMatch => regex_match(inside("")?, nullable),
                Operator::RegexIMatch => regex_match(inside("(?i)")?, nullable),
                Operator::RegexNotMatch => (LabelMatch::NotRegex(inside("")?), !nullable),
                Operator::RegexNotIMatch => (LabelMatch::NotRegex(inside("(?i)")?), !nullable),
                _ => return None,
            };
            Some(Pushed::one(Condition::Stream(LabelMatcher { name, value }), exact))
        }
        _ => None,
    }
}

/// A regex that matches the empty text also matches a missing label.
fn regex_match(regex: Regex, nullable: bool) -> (LabelMatch, bool) {
    let exact = !nullable || !regex.is_match("");
    (LabelMatch::Regex(regex), exact)
}

fn push_like(like: &Like, columns: &Columns) -> Option<Pushed> {
    let pattern = text(literal(&like.pattern)?)?;
    // Escapes are rare; the plan's own LIKE decides them.
    if like.escape_char.is_some() || pattern.contains('\\') {
        return None;
    }
    if let Some((name, nullable)) = stream_column(&like.expr, columns) {
        let flag = if like.case_insensitive { "(?i)" } else { "" };
        let regex = anchored(&format!("{flag}{}", like_regex(pattern)))?;
        let (value, exact) = if like.negated {
            (LabelMatch::NotRegex(regex), !nullable)
        } else {
            regex_match(regex, nullable)
        };
        return Some(Pushed::one(Condition::Stream(LabelMatcher { name, value }), exact));
    }
    if !is_body(columns.table, column_source(&like.expr, columns)?) {
        return None;
    }
    let inner = pattern.strip_prefix('%').and_then(|rest| rest.strip_suffix('%'));
    match inner.filter(|inner| !inner.contains(['%', '_'])) {
        Some("") => None,
        Some(inner) if !like.case_insensitive => contains(inner, like.negated),
        Some(inner) => line_regex(&regex::escape(inner), true, like.negated),
        None => {
            let flag = if like.case_insensitive { "(?i)" } else { "" };
            let regex = anchored(&format!("{flag}{}", like_regex(pattern)))?;
            Some(Pushed::line(Needle::Regex(regex), like.negated, true))
        }
    }
}

/// A LIKE pattern without escapes as a regex, not anchored.
fn like_regex(pattern: &str) -> String {
    let mut regex = String::with_capacity(pattern.len() + 8);
    for c in pattern.chars() {
        match c {
            '%' => regex.push_str("(?s:.*)"),
            '_' => regex.push_str("(?s:.)"),
            c => regex.push_str(&regex::escape(c.encode_utf8(&mut [0; 4]))),
        }
    }
    regex
}

/// `strpos(body, 'x') > 0` and its relatives.
fn push_strpos(left: &Expr, op: Operator, right: &Expr, columns: &Columns) -> Option<Pushed> {
    let Expr::ScalarFunction(call) = strip_cast(left) else { return None };
    if call.func.name() != "strpos" || call.args.len() != 2 {
        return None;
    }
    if !is_body(columns.table, column_source(&call.args[0], columns)?) {
        return None;
    }
    let needle = text(literal(&call.args[1])?)?;
    let bound = match literal(right)? {
        ScalarValue::Int64(Some(n)) => *n,
        ScalarValue::Int32(Some(n)) => i64::from(*n),
        _ => return None,
    };
    match (op, bound) {
        (Operator::Gt | Operator::NotEq, 0) | (Operator::GtEq, 1) => contains(needle, false),
        (Operator::Eq | Operator::LtEq, 0) | (Operator::Lt, 1) => contains(needle, true),
        _ => None,
    }
}

fn contains(needle: &str, negated: bool) -> Option<Pushed> {
    (!needle.is_empty()).then(|| Pushed::line(Needle::Literal(needle.to_owned()), negated, true))
}

fn line_regex(pattern: &str, ignore_case: bool, negated: bool) -> Option<Pushed> {
    let pattern = if ignore_case { format!("(?i){pattern}") } else { pattern.to_owned() };
    Some(Pushed::line(Needle::Regex(Regex::new(&pattern).ok()?), negated, true))
}

pub(crate) fn anchored(pattern: &str) -> Option<Regex> {
    Regex::new(&format!("^(?:{pattern})$")).ok()
}

fn literal(expr: &Expr) -> Option<&ScalarValue> {
    match expr {
        Expr::Literal(value, _) => Some(value),
        _ => None,
    }
}

fn text(value: &ScalarValue) -> Option<&str> {
    value.try_as_str().flatten()
}

/// Without casts that change no comparison: between text types and between time zones.
fn strip_cast(expr: &Expr) -> &Expr {
    match expr {
        Expr::Cast(cast) => match cast.field.data_type() {
            DataType::Utf8
            | DataType::Utf8View
            | DataType::LargeUtf8
            | DataType::Int64
            | DataType::Float64
            | DataType::Timestamp(TimeUnit::Nanosecond, _) => strip_cast(&cast.expr),
            _ => expr,
        },
        _ => expr,
    }
}

fn column_source<'a>(expr: &Expr, columns: &'a Columns) -> Option<&'a Source> {
    let Expr::Column(column) = strip_cast(expr) else { return None };
    let source = columns.source(column.name())?;
    // A cast to or from text is a different value.
    let kind = |data_type: &DataType| match data_type {
        DataType::Utf8 | DataType::Utf8View | DataType::LargeUtf8 => 0,
        DataType::Timestamp(..) => 1,
        _ => 2,
    };
    let own = columns.schema.field_with_name(column.name()).ok()?.data_type();
    match expr {
        Expr::Cast(cast) if kind(cast.field.data_type()) != kind(own) => None,
        _ => Some(source),
    }
}

/// Name and whether it may be null, for columns that a [`LabelMatcher`] decides.
fn label_of(source: &Source) -> Option<(String, bool)> {
    match source {
        Source::Service => Some(("service".to_owned(), false)),
        Source::Metric => Some((METRIC_NAME.to_owned(), false)),
        Source::Known(name) => Some(((*name).to_owned(), *name != "service_name")),
        Source::Label(name) => Some((name.clone(), !matches!(name.as_str(), "service" | "service_name"))),
        _ => None,
    }
}

fn stream_column(expr: &Expr, columns: &Columns) -> Option<(String, bool)> {
    label_of(column_source(expr, columns)?)
}
