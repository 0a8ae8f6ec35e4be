//! Joins hand the thread back now and then.

use std::sync::Arc;

use datafusion::{
    common::{
        Result,
        config::ConfigOptions,
        tree_node::{Transformed, TransformedResult, TreeNode},
    },
    physical_optimizer::PhysicalOptimizerRule,
    physical_plan::{ExecutionPlan, coop::CooperativeExec, union::UnionExec, unnest::UnnestExec},
};

/// DataFusion lets the leaves of a plan yield. A join (or unnesting) makes many batches from one of a
/// leaf, and an aggregate above it takes them all in one go: a cross join ran for seconds without
/// looking at its budget. So these yield as well.
#[derive(Debug)]
pub(crate) struct JoinsYield;

impl PhysicalOptimizerRule for JoinsYield {
    fn optimize(&self, plan: Arc<dyn ExecutionPlan>, _: &ConfigOptions) -> Result<Arc<dyn ExecutionPlan>> {
        plan.transform_up(|plan| {
            let multiplies = plan.children().len() > 1 && !plan.is::<UnionExec>() || plan.is::<UnnestExec>();
            Ok(if multiplies {
                Transformed::yes(Arc::new(CooperativeExec::new(plan)))
            } else {
                Transformed::no(plan)
            })
        })
        .data()
    }

    fn name(&self) -> &'static str {
        "JoinsYield"
    }

    fn schema_check(&self) -> bool {
        true
    }
}
