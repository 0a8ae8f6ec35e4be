//! Joins that read their second table by what the first one holds.
//!
//! A hash join of `traces` and `logs` on the trace id reads both tables whole. [`LookupJoins`] replaces it by a
//! [`LookupJoinExec`]: it takes rows of the *outer* side in chunks, collects their trace ids, services,
//! minutes and bounds of time, and reads from the *inner* side what these leave, through the index. Each chunk
//! is joined to it by DataFusion's own hash join, with the same keys and conditions: what is read is only
//! ever too much, so the answer is the hash join's.
//!
//! The outer side is the one whose conditions promise fewer rows ([`Selection::weight`]).

use std::{collections::HashSet, fmt, sync::Arc};

use arrow::{
    array::{Array, ArrayRef, AsArray, BooleanArray, RecordBatch},
    compute::{cast, filter_record_batch, max, min},
    datatypes::{DataType, TimestampNanosecondType},
};
use datafusion::{
    common::{
        JoinSide, JoinType, NullEquality, Result,
        config::ConfigOptions,
        tree_node::{Transformed, TransformedResult, TreeNode},
    },
    logical_expr::Operator,
    physical_expr::{
        PhysicalExpr,
        expressions::{BinaryExpr, Column},
        utils::{collect_columns, split_conjunction},
    },
    physical_optimizer::PhysicalOptimizerRule,
    physical_plan::{
        ExecutionPlan,
        filter::FilterExec,
        joins::{HashJoinExec, PartitionMode, utils::JoinFilter},
        projection::ProjectionExec,
    },
};
use trine_model::TraceId;
use trine_schema::{LabelMatch, LabelMatcher, LogFilter};

use crate::{
    chain::{column, column_of_scan, replaced, scan_of},
    columns::{MINUTE_NS, Source, minute_of},
    lookup_exec::LookupJoinExec,
    pushdown::{anchored, trace_id},
    scan::ScanExec,
    selection::{Selection, Services},
    tables::{TIMESTAMP, Table},
};

/// Most trace ids that one read asks for; with more, blooms exclude little and only the time range is asked for.
const MAX_TRACES: usize = 65_536;

/// Most services that one read of logs or spans asks for.
const MAX_SERVICES: usize = 256;

/// Something of the outer rows by which the inner side is narrowed. The expressions are over outer columns.
#[derive(Debug, Clone)]
enum Key {
    Trace(Arc<dyn PhysicalExpr>),
    Service(&'static str, Arc<dyn PhysicalExpr>),
    /// Inner time at or after.
    From(Arc<dyn PhysicalExpr>),
    /// Inner time at or before.
    To(Arc<dyn PhysicalExpr>),
    /// Inner minute.
    Minute(Arc<dyn PhysicalExpr>),
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Trace(expr) => write!(f, "trace_id={expr}"),
            Self::Service(_, expr) => write!(f, "service={expr}"),
            Self::From(expr) => write!(f, "time>={expr}"),
            Self::To(expr) => write!(f, "time<={expr}"),
            Self::Minute(expr) => write!(f, "minute={expr}"),
        }
    }
}

/// By what a join narrows its inner side.
#[derive(Debug, Clone)]
pub(crate) struct Narrowing {
    keys: Vec<Key>,
    /// Inner rows that fit are told once each (`trace_id IN (SELECT …)`), so a trace is looked up once.
    once: bool,
}

impl fmt::Display for Narrowing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (position, key) in self.keys.iter().enumerate() {
            write!(f, "{}{key}", if position == 0 { "" } else { ", " })?;
        }
        Ok(())
    }
}

impl Narrowing {
    /// For a join whose left side is the outer one; `None` when nothing narrows the right side.
    fn of(join: &HashJoinExec) -> Option<Self> {
        let chunks = matches!(
            join.join_type(),
            JoinType::Inner | JoinType::Left | JoinType::LeftSemi | JoinType::LeftAnti | JoinType::LeftMark
        );
        let once =
            *join.join_type() == JoinType::RightSemi && join.on().len() == 1 && join.filter().is_none();
        if !(chunks || once) || join.null_equality() != NullEquality::NullEqualsNothing {
            return None;
        }
        let inner = scan_of(join.right())?;
        if !inner.context.pushdown || inner.selection.distinct {
            return None;
        }
        let source = |index: usize| inner.columns.sources.get(column_of_scan(join.right(), index)?);
        let mut keys = Vec::new();
        for (outer, expr) in join.on() {
            let Some(source) = column(expr).and_then(source) else { continue };
            match source {
                Source::Hex(index) if inner.columns.table.trace_id() == Some(*index) => {
                    keys.push(Key::Trace(outer.clone()));
                }
                Source::Service => keys.push(Key::Service("service", outer.clone())),
                Source::Known("service_name") => keys.push(Key::Service("service_name", outer.clone())),
                Source::Minute => keys.push(Key::Minute(outer.clone())),
                Source::Stored(TIMESTAMP) => {
                    keys.extend([Key::From(outer.clone()), Key::To(outer.clone())]);
                }
                _ => {}
            }
        }
        if keys.is_empty() || once && !matches!(keys.as_slice(), [Key::Trace(_)]) {
            return None;
        }
        if let Some(filter) = join.filter() {
            keys.extend(bounds(filter, |index| source(index) == Some(&Source::Stored(TIMESTAMP))));
        }
        Some(Self { keys, once })
    }

    /// Outer rows that are worth a look: where each trace counts once, those of traces that were not seen yet.
    pub(crate) fn unseen(&self, outer: RecordBatch, seen: &mut HashSet<TraceId>) -> Result<RecordBatch> {
        let (true, [Key::Trace(expr)]) = (self.once, self.keys.as_slice()) else { return Ok(outer) };
        let values = texts(&expr.evaluate(&outer)?.into_array(outer.num_rows())?)?;
        let new = |text: Option<&str>| Some(text.and_then(trace_id).is_some_and(|id| seen.insert(id)));
        let new: BooleanArray = values.iter().map(new).collect();
        Ok(filter_record_batch(&outer, &new)?)
    }

    /// What the inner side has for these outer rows; `None` when certainly nothing.
    pub(crate) fn narrow(
        &self,
        selection: &Selection,
        table: Table,
        outer: &RecordBatch,
    ) -> Result<Option<Selection>> {
        let mut narrow = selection.clone();
        for key in &self.keys {
            let (Key::Trace(expr)
            | Key::Service(_, expr)
            | Key::From(expr)
            | Key::To(expr)
            | Key::Minute(expr)) = key;
            let values = expr.evaluate(outer)?.into_array(outer.num_rows())?;
            if values.null_count() == values.len() {
                return Ok(None);
            }
            match key {
                Key::Trace(_) => {
                    let mut ids: Vec<TraceId> =
                        texts(&values)?.iter().flatten().filter_map(trace_id).collect();
                    ids.sort_unstable();
                    ids.dedup();
                    if ids.is_empty() {
                        return Ok(None);
                    }
                    if ids.len() <= MAX_TRACES {
                        narrow.rows.push(LogFilter::TraceIds(ids.into()));
                    }
                }
                Key::Service(label, _) => {
                    let any: HashSet<String> = texts(&values)?.iter().flatten().map(str::to_owned).collect();
                    if table == Table::Metrics {
                        narrow.services = Some(Services { label, any: Arc::new(any) });
                    } else if any.len() <= MAX_SERVICES
                        && let Some(regex) = any_of(&any)
                    {
                        let value = LabelMatch::Regex(regex);
                        narrow.streams.push(LabelMatcher { name: (*label).to_owned(), value });
                    }
                }
                Key::From(_) => {
                    if let Some(first) = times(&values).and_then(min) {
                        narrow.start = narrow.start.max(first);
                    }
                }
                Key::To(_) => {
                    if let Some(last) = times(&values).and_then(max) {
                        narrow.end = narrow.end.min(last.saturating_add(1));
                    }
                }
                Key::Minute(_) => {
                    let Some(times) = times(&values) else { continue };
                    let (Some(first), Some(last)) = (min(times), max(times)) else { continue };
                    narrow.start = narrow.start.max(first);
                    narrow.end = narrow.end.min(last.saturating_add(MINUTE_NS));
                    if table == Table::Metrics {
                        let minutes = times.iter().flatten().filter(|time| minute_of(*time) == *time);
                        narrow.minutes = Some(Arc::new(minutes.collect()));
                    }
                }
            }
        }
        Ok((!narrow.is_empty()).then_some(narrow))
    }
}

fn any_of(values: &HashSet<String>) -> Option<regex::Regex> {
    let mut values: Vec<String> = values.iter().map(|value| regex::escape(value)).collect();
    values.sort_unstable();
    anchored(&values.join("|"))
}

fn texts(values: &ArrayRef) -> Result<arrow::array::StringArray> {
    Ok(cast(values, &DataType::Utf8)?.as_string::<i32>().clone())
}

fn times(values: &ArrayRef) -> Option<&arrow::array::TimestampNanosecondArray> {
    values.as_primitive_opt::<TimestampNanosecondType>()
}

/// Bounds that a join's condition sets on the inner time by expressions over outer columns.
fn bounds(filter: &JoinFilter, is_time: impl Fn(usize) -> bool) -> Vec<Key> {
    let all_of = |expr: &Arc<dyn PhysicalExpr>, side: JoinSide| {
        let columns = collect_columns(expr);
        !columns.is_empty()
            && columns.iter().all(|column| filter.column_indices()[column.index()].side == side)
    };
    let inner_time = |expr: &Arc<dyn PhysicalExpr>| {
        all_of(expr, JoinSide::Right)
            && column(expr).is_some_and(|index| is_time(filter.column_indices()[index].index))
    };
    let outer = |expr: &Arc<dyn PhysicalExpr>| {
        let place = |expr: Arc<dyn PhysicalExpr>| {
            Ok(match expr.downcast_ref::<Column>() {
                Some(column) => {
                    let index = filter.column_indices()[column.index()].index;
                    Transformed::yes(Arc::new(Column::new(column.name(), index)) as Arc<dyn PhysicalExpr>)
                }
                None => Transformed::no(expr),
            })
        };
        let of_outer = all_of(expr, JoinSide::Left) && !is_volatile(expr);
        of_outer.then(|| expr.clone().transform_up(place).data().ok()).flatten()
    };
    let mut keys = Vec::new();
    for condition in split_conjunction(filter.expression()) {
        let Some(binary) = condition.downcast_ref::<BinaryExpr>() else { continue };
        let (expr, op) = if inner_time(binary.left()) {
            (binary.right(), *binary.op())
        } else if inner_time(binary.right()) {
            let Some(op) = binary.op().swap() else { continue };
            (binary.left(), op)
        } else {
            continue;
        };
        let Some(expr) = outer(expr) else { continue };
        match op {
            Operator::Gt | Operator::GtEq => keys.push(Key::From(expr)),
            Operator::Lt | Operator::LtEq => keys.push(Key::To(expr)),
            Operator::Eq => keys.extend([Key::From(expr.clone()), Key::To(expr)]),
            _ => {}
        }
    }
    keys
}

fn is_volatile(expr: &Arc<dyn PhysicalExpr>) -> bool {
    expr.is_volatile_node() || expr.children().into_iter().any(is_volatile)
}

/// The rule; see the module.
#[derive(Debug)]
pub(crate) struct LookupJoins;

impl PhysicalOptimizerRule for LookupJoins {
    fn optimize(&self, plan: Arc<dyn ExecutionPlan>, _: &ConfigOptions) -> Result<Arc<dyn ExecutionPlan>> {
        plan.transform_up(|plan| {
            let Some(join) = plan.downcast_ref::<HashJoinExec>() else { return Ok(Transformed::no(plan)) };
            Ok(match lookup(join)? {
                Some(lookup) => Transformed::yes(lookup),
                None => Transformed::no(plan),
            })
        })
        .data()
    }

    fn name(&self) -> &'static str {
        "LookupJoins"
    }

    fn schema_check(&self) -> bool {
        true
    }
}

fn lookup(join: &HashJoinExec) -> Result<Option<Arc<dyn ExecutionPlan>>> {
    if join.null_aware {
        return Ok(None);
    }
    let forward = Narrowing::of(join);
    let swapped = join.swap_inputs(PartitionMode::CollectLeft)?;
    // Its columns are put back in order by a projection.
    let (projection, turned) = match swapped.downcast_ref::<ProjectionExec>() {
        Some(projection) => (Some(&swapped), projection.input().downcast_ref::<HashJoinExec>()),
        None => (None, swapped.downcast_ref::<HashJoinExec>()),
    };
    let backward = turned.and_then(|turned| Some((turned, Narrowing::of(turned)?)));
    Ok(Some(match (forward, backward) {
        (Some(narrowing), backward) if backward.is_none() || weight(join.left()) <= weight(join.right()) => {
            Arc::new(LookupJoinExec::new(join, narrowing))
        }
        (_, Some((turned, narrowing))) => {
            let lookup = Arc::new(LookupJoinExec::new(turned, narrowing));
            match projection {
                Some(projection) => replaced(projection.clone(), lookup)?,
                None => lookup,
            }
        }
        _ => return Ok(None),
    }))
}

/// How many rows a side promises, to compare with the other side's: no count, only an order.
fn weight(plan: &Arc<dyn ExecutionPlan>) -> f64 {
    if let Some(scan) = plan.downcast_ref::<ScanExec>() {
        return scan.selection.weight(scan.columns.table);
    }
    let below = plan.children().into_iter().map(weight).fold(f64::INFINITY, f64::min);
    let below = if below.is_finite() { below } else { 1.0 };
    if plan.is::<FilterExec>() || plan.is::<LookupJoinExec>() { below * 0.5 } else { below }
}
