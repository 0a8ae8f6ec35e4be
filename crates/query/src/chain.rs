//! Plans that are one scan under nodes which keep or drop single rows.

use std::sync::Arc;

use arrow::datatypes::{DataType, TimeUnit};
use datafusion::{
    common::Result,
    physical_expr::{
        PhysicalExpr,
        expressions::{CastExpr, Column},
    },
    physical_plan::{
        ChildrenPropertiesMode, ExecutionPlan, ReplaceChildrenOptions,
        coalesce_partitions::CoalescePartitionsExec, coop::CooperativeExec, filter::FilterExec,
        projection::ProjectionExec, repartition::RepartitionExec,
    },
};

use crate::scan::ScanExec;

/// The same node over other inputs.
pub(crate) fn replaced(
    plan: Arc<dyn ExecutionPlan>,
    input: Arc<dyn ExecutionPlan>,
) -> Result<Arc<dyn ExecutionPlan>> {
    plan.replace_children(vec![input], ReplaceChildrenOptions::new(ChildrenPropertiesMode::Recompute))
}

/// What a node reads, when it looks at each row alone.
fn input(plan: &Arc<dyn ExecutionPlan>) -> Option<&Arc<dyn ExecutionPlan>> {
    let row_by_row = plan.is::<ProjectionExec>()
        || plan.is::<FilterExec>()
        || plan.is::<RepartitionExec>()
        || plan.is::<CoalescePartitionsExec>()
        || plan.is::<CooperativeExec>();
    if !row_by_row || plan.fetch().is_some() {
        return None;
    }
    plan.children().first().copied()
}

/// The scan at the bottom, if that is all there is; it may stop at no limit of its own.
pub(crate) fn scan_of(plan: &Arc<dyn ExecutionPlan>) -> Option<&ScanExec> {
    match plan.downcast_ref::<ScanExec>() {
        Some(scan) => {
            Some(scan).filter(|scan| scan.selection.limit.is_none() && scan.selection.top.is_none())
        }
        None => scan_of(input(plan)?),
    }
}

/// The same plan over another scan. All nodes are made anew, so that they can run once more.
pub(crate) fn with_scan(
    plan: &Arc<dyn ExecutionPlan>,
    scan: &Arc<ScanExec>,
) -> Result<Arc<dyn ExecutionPlan>> {
    match input(plan) {
        Some(input) => replaced(plan.clone(), with_scan(input, scan)?),
        None => Ok(scan.clone()),
    }
}

/// Position in the scan's columns of a column of the plan.
pub(crate) fn column_of_scan(plan: &Arc<dyn ExecutionPlan>, index: usize) -> Option<usize> {
    if plan.is::<ScanExec>() {
        return Some(index);
    }
    let below = match plan.downcast_ref::<ProjectionExec>() {
        Some(projection) => column(&projection.expr().get(index)?.expr)?,
        None => match plan.downcast_ref::<FilterExec>().and_then(|filter| filter.projection().as_ref()) {
            Some(projection) => *projection.get(index)?,
            None => index,
        },
    };
    column_of_scan(input(plan)?, below)
}

/// Position of the column that the expression is, but for casts between kinds of text or of times.
pub(crate) fn column(expr: &Arc<dyn PhysicalExpr>) -> Option<usize> {
    if let Some(column) = expr.downcast_ref::<Column>() {
        return Some(column.index());
    }
    let cast = expr.downcast_ref::<CastExpr>()?;
    let same = cast.cast_type().is_string()
        || matches!(cast.cast_type(), DataType::Timestamp(TimeUnit::Nanosecond, _));
    if same { column(cast.expr()) } else { None }
}
