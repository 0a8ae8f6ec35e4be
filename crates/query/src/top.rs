//! `ORDER BY timestamp LIMIT n`: the scan is asked for the newest or oldest n rows only.

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
        ChildrenPropertiesMode, ExecutionPlan, ReplaceChildrenOptions,
        coalesce_partitions::CoalescePartitionsExec, projection::ProjectionExec,
        repartition::RepartitionExec, sorts::sort::SortExec,
    },
};
use trine_schema::{Direction, logs::column};

use crate::{columns::Source, scan::LogsExec};

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
    if let Some(logs) = plan.downcast_ref::<LogsExec>() {
        let by_time = logs.columns.sources.get(key)? == &Source::Stored(column::TIMESTAMP);
        let free = logs.selection.limit.is_none() && logs.selection.top.is_none() && logs.context.pushdown;
        return (by_time && free)
            .then(|| Arc::new(logs.with_top(direction, count)) as Arc<dyn ExecutionPlan>);
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

fn replaced(plan: Arc<dyn ExecutionPlan>, input: Arc<dyn ExecutionPlan>) -> Result<Arc<dyn ExecutionPlan>> {
    plan.replace_children(vec![input], ReplaceChildrenOptions::new(ChildrenPropertiesMode::Recompute))
}
