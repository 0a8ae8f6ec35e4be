//! Scans that are asked for less: of `ORDER BY timestamp LIMIT n` the newest or oldest n rows, of
//! `SELECT DISTINCT` over labels of metrics the series without their samples.

use std::sync::Arc;

use datafusion::{
    common::{
        Result,
        config::ConfigOptions,
        tree_node::{Transformed, TransformedResult, TreeNode},
    },
    physical_expr::expressions::Column,
    physical_optimizer::PhysicalOptimizerRule,
    physical_plan::{
        ExecutionPlan, aggregates::AggregateExec, coalesce_partitions::CoalescePartitionsExec,
        projection::ProjectionExec, repartition::RepartitionExec, sorts::sort::SortExec,
    },
};
use trine_schema::Direction;

use crate::{
    chain::{replaced, scan_of, with_scan},
    columns::Source,
    scan::ScanExec,
    selection::Selection,
    tables::{TIMESTAMP, Table},
};

/// Hands the limit of a sort by `timestamp` alone to the scan below it. The sort stays: it costs
/// little over n rows and keeps the answer right whatever lies between.
#[derive(Debug)]
pub(crate) struct TopByTime;

impl PhysicalOptimizerRule for TopByTime {
    fn optimize(&self, plan: Arc<dyn ExecutionPlan>, _: &ConfigOptions) -> Result<Arc<dyn ExecutionPlan>> {
        plan.transform_down(|plan| {
            let input = plan.downcast_ref::<SortExec>().and_then(|sort| {
                // With a second key, rows of one instant at the cut would be chosen by the wrong key.
                let [key] = sort.expr().as_ref() else { return None };
                let direction = if key.options.descending { Direction::Backward } else { Direction::Forward };
                let column = key.expr.downcast_ref::<Column>()?;
                with_top(sort.input(), column.index(), direction, sort.fetch()?)
            });
            Ok(match input {
                Some(input) => Transformed::yes(replaced(plan, input)?),
                None => Transformed::no(plan),
            })
        })
        .data()
    }

    fn name(&self) -> &'static str {
        "TopByTime"
    }

    fn schema_check(&self) -> bool {
        true
    }
}

/// The plan with its scan narrowed, when only row-keeping nodes lie between.
fn with_top(
    plan: &Arc<dyn ExecutionPlan>,
    key: usize,
    direction: Direction,
    count: usize,
) -> Option<Arc<dyn ExecutionPlan>> {
    if let Some(scan) = plan.downcast_ref::<ScanExec>() {
        let by_time = scan.columns.sources.get(key)? == &Source::Stored(TIMESTAMP);
        let able = match scan.columns.table {
            Table::Logs => true,
            Table::Spans => direction == Direction::Backward,
            Table::Metrics => false,
        };
        let free = scan.selection.limit.is_none() && scan.selection.top.is_none() && scan.context.pushdown;
        return (by_time && able && free)
            .then(|| Arc::new(scan.with_top(direction, count)) as Arc<dyn ExecutionPlan>);
    }
    let key = match plan.downcast_ref::<ProjectionExec>() {
        Some(projection) => projection.expr().get(key)?.expr.downcast_ref::<Column>()?.index(),
        None if plan.is::<RepartitionExec>() || plan.is::<CoalescePartitionsExec>() => key,
        None => return None,
    };
    if plan.fetch().is_some() {
        return None;
    }
    let input = with_top(plan.children().first()?, key, direction, count)?;
    replaced(plan.clone(), input).ok()
}

/// Groups by labels alone, without any aggregate, need a row of each series and not of each sample.
#[derive(Debug)]
pub(crate) struct SeriesOnly;

impl PhysicalOptimizerRule for SeriesOnly {
    fn optimize(&self, plan: Arc<dyn ExecutionPlan>, _: &ConfigOptions) -> Result<Arc<dyn ExecutionPlan>> {
        plan.transform_down(|plan| {
            let groups = plan.downcast_ref::<AggregateExec>().filter(|groups| groups.aggr_expr().is_empty());
            let Some(input) = groups.map(|groups| groups.input().clone()) else {
                return Ok(Transformed::no(plan));
            };
            let scan = scan_of(&input).filter(|scan| {
                scan.columns.table == Table::Metrics
                    && scan.context.pushdown
                    && !scan.selection.distinct
                    && scan.columns.sources.iter().all(Source::is_of_stream)
            });
            let Some(scan) = scan else { return Ok(Transformed::no(plan)) };
            let selection = Selection { distinct: true, ..scan.selection.clone() };
            let input = with_scan(&input, &Arc::new(scan.with_selection(selection)))?;
            Ok(Transformed::yes(replaced(plan, input)?))
        })
        .data()
    }

    fn name(&self) -> &'static str {
        "SeriesOnly"
    }

    fn schema_check(&self) -> bool {
        true
    }
}
