//! Conditions on the severity, the status and the duration: on small numbers they are tried on each, on large
//! ones they become a range.

use std::{ops::RangeInclusive, sync::Arc};

use arrow::{
    array::{Array, ArrayRef, AsArray, RecordBatch, UInt8Array},
    datatypes::{Field, Schema},
};
use datafusion::{
    common::{DFSchema, ScalarValue},
    logical_expr::physical_planning_context::PhysicalPlanningContext,
    logical_expr::{Expr, Operator, execution_props::ExecutionProps},
    physical_expr::create_physical_expr,
};
use trine_schema::{LogFilter, logs::column, spans};

use crate::{
    columns::{Columns, Source, level_names, status_names},
    pushdown::{Condition, Pushed},
    tables::Table,
};

/// A condition on nothing but the severity is tried on all 25 severities.
pub(crate) fn push_severity(expr: &Expr, columns: &Columns) -> Option<Pushed> {
    let passing = passing(expr, columns, 25, |source| match source {
        Source::Level => Some(Arc::new(level_names())),
        Source::Stored(column::SEVERITY_NUMBER) if columns.table == Table::Logs => {
            Some(Arc::new(UInt8Array::from_iter_values(0..25)))
        }
        _ => None,
    })?;
    let (Some(first), Some(last)) = (passing.first(), passing.last()) else {
        return Some(Pushed::one(Condition::Never, true));
    };
    let range: RangeInclusive<u8> = *first..=*last;
    let exact = passing.len() == range.len();
    if range == (0..=24) && !exact {
        return None;
    }
    Some(Pushed::one(Condition::Row(LogFilter::Severity(range)), exact))
}

/// A condition on nothing but the status of a span is tried on all three.
pub(crate) fn push_status(expr: &Expr, columns: &Columns) -> Option<Pushed> {
    let passing = passing(expr, columns, 3, |source| match source {
        Source::Status => Some(Arc::new(status_names())),
        Source::Stored(spans::column::STATUS_CODE) if columns.table == Table::Spans => {
            Some(Arc::new(UInt8Array::from_iter_values(0..3)))
        }
        _ => None,
    })?;
    match passing.as_slice() {
        [] => Some(Pushed::one(Condition::Never, true)),
        [code] => Some(Pushed::one(Condition::Status(*code), true)),
        _ => None,
    }
}

/// Numbers below `count` for which the condition is true, when it is on nothing but columns for which
/// `values` has one value per number; `None` when it cannot be told here.
fn passing(
    expr: &Expr,
    columns: &Columns,
    count: u8,
    values: impl Fn(&Source) -> Option<ArrayRef>,
) -> Option<Vec<u8>> {
    let refs = expr.column_refs();
    let known = |name: &str| columns.source(name).is_some_and(|source| values(source).is_some());
    if refs.is_empty() || expr.is_volatile() || !refs.iter().all(|column| known(column.name())) {
        return None;
    }
    let (fields, arrays): (Vec<Field>, Vec<ArrayRef>) = columns
        .schema
        .fields()
        .iter()
        .zip(&columns.sources)
        .filter_map(|(field, source)| Some((field.as_ref().clone(), values(source)?)))
        .unzip();
    let expr = unqualified(expr)?;
    let batch = RecordBatch::try_new(Arc::new(Schema::new(fields)), arrays).ok()?;
    let schema = DFSchema::try_from(batch.schema()).ok()?;
    let physical =
        create_physical_expr(&expr, &schema, &ExecutionProps::new(), &PhysicalPlanningContext::default())
            .ok()?;
    let result = physical.evaluate(&batch).ok()?.into_array(batch.num_rows()).ok()?;
    let result = result.as_boolean_opt()?;
    let holds = |number: &u8| result.is_valid(usize::from(*number)) && result.value(usize::from(*number));
    Some((0..count).filter(holds).collect())
}

fn unqualified(expr: &Expr) -> Option<Expr> {
    use datafusion::common::{
        Column,
        tree_node::{Transformed, TreeNode},
    };
    let unqualify = |expr| {
        Ok(match expr {
            Expr::Column(column) => Transformed::yes(Expr::Column(Column::new_unqualified(column.name))),
            other => Transformed::no(other),
        })
    };
    expr.clone().transform(unqualify).ok().map(|transformed| transformed.data)
}

/// Integers for which the comparison holds, when they are one run.
pub(crate) fn whole_numbers(op: Operator, value: &ScalarValue) -> Option<RangeInclusive<i64>> {
    /// Up to here a float names one integer, and comparing as floats is comparing as integers.
    const EXACT: f64 = 9_007_199_254_740_992.0;
    let none = RangeInclusive::new(1, 0);
    // The highest integer that is at most the value, the lowest that is at least the value.
    let (floor, ceil) = match value {
        ScalarValue::Int64(Some(value)) => (*value, *value),
        ScalarValue::Float64(Some(value)) if value.abs() < EXACT => {
            (value.floor() as i64, value.ceil() as i64)
        }
        _ => return None,
    };
    Some(match op {
        Operator::Gt => floor.checked_add(1).map_or(none, |first| first..=i64::MAX),
        Operator::GtEq => ceil..=i64::MAX,
        Operator::Lt => ceil.checked_sub(1).map_or(none, |last| i64::MIN..=last),
        Operator::LtEq => i64::MIN..=floor,
        Operator::Eq => ceil..=floor,
        _ => return None,
    })
}
