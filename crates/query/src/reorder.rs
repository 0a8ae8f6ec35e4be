//! Joins of three and more tables begin where the conditions leave least, whatever order they are written in.
//!
//! A tree of inner joins over our tables becomes a left-deep one: the table with the most selective conditions
//! first, then always one that is joined to what is there already: by trace id before anything else, metrics
//! last. DataFusion itself keeps the order of the statement. Two tables need no rule here: which of them is
//! read first is decided in [`crate::lookup`].

use std::{collections::BTreeSet, sync::Arc};

use datafusion::{
    common::{JoinConstraint, JoinType, NullEquality, Result, tree_node::Transformed},
    datasource::source_as_provider,
    logical_expr::{
        Expr, Join, LogicalPlan, LogicalPlanBuilder, TableScan,
        utils::{conjunction, split_conjunction_owned},
    },
    optimizer::{ApplyOrder, OptimizerConfig, OptimizerRule},
};

use crate::{columns::Source, pushdown::push, scan::SqlTable, selection::Selection, tables::Table};

/// The rule; see the module.
#[derive(Debug)]
pub(crate) struct SelectiveFirst;

impl OptimizerRule for SelectiveFirst {
    fn name(&self) -> &'static str {
        "selective_first"
    }

    fn apply_order(&self) -> Option<ApplyOrder> {
        Some(ApplyOrder::TopDown)
    }

    fn rewrite(&self, plan: LogicalPlan, _: &dyn OptimizerConfig) -> Result<Transformed<LogicalPlan>> {
        let LogicalPlan::Join(join) = &plan else { return Ok(Transformed::no(plan)) };
        let mut tree = Tree { leaves: Vec::new(), on: Vec::new(), conditions: Vec::new(), left_deep: true };
        if !tree.add_join(join) || tree.leaves.len() < 3 {
            return Ok(Transformed::no(plan));
        }
        match tree.order() {
            Some(order) if !(tree.left_deep && order.is_sorted()) => {
                let columns: Vec<Expr> = join.schema.columns().into_iter().map(Expr::Column).collect();
                match tree.build(&order)? {
                    Some(joined) => {
                        let plan = LogicalPlanBuilder::from(joined).project(columns)?.build()?;
                        Ok(Transformed::yes(plan))
                    }
                    None => Ok(Transformed::no(plan)),
                }
            }
            _ => Ok(Transformed::no(plan)),
        }
    }
}

/// One side of a join: a scan of ours, with what lies on it.
struct Leaf {
    plan: Arc<LogicalPlan>,
    table: Table,
    weight: f64,
    /// Columns of the plan that hold trace ids.
    trace_ids: BTreeSet<String>,
}

struct Tree {
    leaves: Vec<Leaf>,
    on: Vec<(Expr, Expr)>,
    conditions: Vec<Expr>,
    left_deep: bool,
}

impl Tree {
    /// Whether the join is one of inner joins over our tables.
    fn add_join(&mut self, join: &Join) -> bool {
        let plain = join.join_type == JoinType::Inner
            && join.null_equality == NullEquality::NullEqualsNothing
            && !join.null_aware;
        self.on.extend(join.on.iter().cloned());
        self.conditions.extend(join.filter.iter().cloned().flat_map(split_conjunction_owned));
        self.left_deep &= !matches!(join.right.as_ref(), LogicalPlan::Join(_));
        plain && self.add(&join.left) && self.add(&join.right)
    }

    fn add(&mut self, plan: &Arc<LogicalPlan>) -> bool {
        if let LogicalPlan::Join(join) = plan.as_ref() {
            return self.add_join(join);
        }
        let Some((scan, filters)) = scan_below(plan) else { return false };
        let Ok(provider) = source_as_provider(&scan.source) else { return false };
        let Some(table) = provider.downcast_ref::<SqlTable>() else { return false };
        if !table.context.pushdown {
            return false;
        }
        let mut selection = Selection::all(&table.context, None);
        let conditions = scan.filters.iter().filter_map(|filter| push(filter, &table.columns));
        conditions.flat_map(|pushed| pushed.conditions).for_each(|condition| selection.add(condition));
        let of = table.columns.table;
        let is_trace = |source: &Source| of.trace_id().is_some_and(|index| *source == Source::Hex(index));
        let fields = table.columns.schema.fields().iter().zip(&table.columns.sources);
        self.leaves.push(Leaf {
            plan: plan.clone(),
            table: of,
            weight: selection.weight(of) * 0.5_f64.powi(filters),
            trace_ids: fields
                .filter(|(_, source)| is_trace(source))
                .map(|(field, _)| field.name().clone())
                .collect(),
        });
        true
    }

    /// Positions of the leaves in the order in which they are to be read; `None` when some are joined to nothing.
    fn order(&self) -> Option<Vec<usize>> {
        let mut left: Vec<usize> = (0..self.leaves.len()).collect();
        let rank = |place: &usize| {
            let leaf = &self.leaves[*place];
            (leaf.table == Table::Metrics, leaf.weight)
        };
        let best = |places: &[usize]| {
            places.iter().copied().min_by(|a, b| {
                let ((a_metric, a_weight), (b_metric, b_weight)) = (rank(a), rank(b));
                a_metric.cmp(&b_metric).then(a_weight.total_cmp(&b_weight))
            })
        };
        let mut order = vec![best(&left)?];
        left.retain(|place| *place != order[0]);
        while !left.is_empty() {
            let by_trace: Vec<usize> =
                left.iter().copied().filter(|place| self.joined(&order, *place, true)).collect();
            let joined: Vec<usize> =
                left.iter().copied().filter(|place| self.joined(&order, *place, false)).collect();
            let next = best(&by_trace).or_else(|| best(&joined))?;
            order.push(next);
            left.retain(|place| *place != next);
        }
        Some(order)
    }

    /// Whether a leaf is joined by a key (by its trace id) to one of those before.
    fn joined(&self, before: &[usize], leaf: usize, by_trace: bool) -> bool {
        let is_trace = |expr: &Expr| match expr {
            Expr::Column(column) => self.leaves[leaf].trace_ids.contains(&column.name),
            _ => false,
        };
        self.on.iter().any(|(a, b)| {
            [(a, b), (b, a)].into_iter().any(|(ours, theirs)| {
                self.is_of(&[leaf], ours) && self.is_of(before, theirs) && (!by_trace || is_trace(ours))
            })
        })
    }

    /// Whether an expression is over columns of these leaves.
    fn is_of(&self, leaves: &[usize], expr: &Expr) -> bool {
        let refs = expr.column_refs();
        let known = |column| leaves.iter().any(|leaf| self.leaves[*leaf].plan.schema().has_column(column));
        !refs.is_empty() && refs.into_iter().all(known)
    }

    /// The joins in this order; `None` when a key or a condition would be lost.
    fn build(&self, order: &[usize]) -> Result<Option<LogicalPlan>> {
        let mut plan = self.leaves[order[0]].plan.as_ref().clone();
        let (mut on, mut conditions) = (self.on.clone(), self.conditions.clone());
        for (count, leaf) in order.iter().enumerate().skip(1) {
            let before = &order[..count];
            let mut keys = Vec::new();
            on.retain(|(a, b)| {
                let key = if self.is_of(before, a) && self.is_of(&[*leaf], b) {
                    (a.clone(), b.clone())
                } else if self.is_of(before, b) && self.is_of(&[*leaf], a) {
                    (b.clone(), a.clone())
                } else {
                    return true;
                };
                keys.push(key);
                false
            });
            let (ready, later): (Vec<Expr>, Vec<Expr>) =
                conditions.into_iter().partition(|condition| self.is_of(&order[..=count], condition));
            conditions = later;
            plan = LogicalPlan::Join(Join::try_new(
                Arc::new(plan),
                self.leaves[*leaf].plan.clone(),
                keys,
                conjunction(ready),
                JoinType::Inner,
                JoinConstraint::On,
                NullEquality::NullEqualsNothing,
                false,
            )?);
        }
        Ok((on.is_empty() && conditions.is_empty()).then_some(plan))
    }
}

/// The scan under aliases and filters, and how many filters.
fn scan_below(plan: &LogicalPlan) -> Option<(&TableScan, i32)> {
    match plan {
        LogicalPlan::TableScan(scan) if scan.fetch.is_none() => Some((scan, 0)),
        LogicalPlan::SubqueryAlias(alias) => scan_below(&alias.input),
        LogicalPlan::Filter(filter) => scan_below(&filter.input).map(|(scan, filters)| (scan, filters + 1)),
        _ => None,
    }
}
