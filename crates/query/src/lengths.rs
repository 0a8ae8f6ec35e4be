//! Functions that make long values of short ones.
//!
//! A scalar function runs to its end within one batch, or while the plan is made, and asks no budget: one
//! `repeat('x', 2000000000)` takes two gigabytes of a server that all share. Those that only multiply are not
//! there; those that fill up to a length take one that is written down and small.

use datafusion::{
    common::{
        Result, ScalarValue,
        config::ConfigOptions,
        plan_err,
        tree_node::{TreeNode, TreeNodeRecursion},
    },
    execution::{FunctionRegistry, SessionState},
    logical_expr::{Expr, LogicalPlan},
    optimizer::AnalyzerRule,
};

/// Functions that no query has.
const REMOVED: [&str; 5] = ["repeat", "range", "generate_series", "array_repeat", "array_resize"];
/// Functions whose second argument is the length of the answer.
const FILLED: [&str; 2] = ["lpad", "rpad"];
/// The greatest length they take.
const MAX_LENGTH: i64 = 1_024;

/// Takes away the functions that only multiply.
pub(crate) fn remove_multipliers(state: &mut SessionState) -> Result<()> {
    for name in REMOVED {
        state.deregister_udf(name)?;
    }
    Ok(())
}

/// Refuses a length that is no small number.
#[derive(Debug)]
pub(crate) struct SmallLengths;

impl AnalyzerRule for SmallLengths {
    fn analyze(&self, plan: LogicalPlan, _: &ConfigOptions) -> Result<LogicalPlan> {
        plan.apply_with_subqueries(|plan| {
            plan.apply_expressions(|expr| {
                expr.apply(|expr| {
                    check(expr)?;
                    Ok(TreeNodeRecursion::Continue)
                })
            })
        })?;
        Ok(plan)
    }

    fn name(&self) -> &'static str {
        "SmallLengths"
    }
}

fn check(expr: &Expr) -> Result<()> {
    let Expr::ScalarFunction(call) = expr else { return Ok(()) };
    let name = call.func.name();
    let Some(length) = call.args.get(1).filter(|_| FILLED.contains(&name)) else { return Ok(()) };
    let small = match length {
        Expr::Literal(value, _) => match value.cast_to(&arrow::datatypes::DataType::Int64) {
            Ok(ScalarValue::Int64(length)) => length.is_none_or(|length| length <= MAX_LENGTH),
            _ => false,
        },
        _ => false,
    };
    if small {
        return Ok(());
    }
    plan_err!("{name} fills up to a length that is written as a number, {MAX_LENGTH} at most, not {length}")
}
