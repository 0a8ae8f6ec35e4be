//! `level = 'error'` means what `level = 'ERROR'` means: names of levels are compared without case.

use std::collections::HashMap;

use arrow::datatypes::{DataType, Field};
use datafusion::{
    common::{
        Column, DFSchema, Result, ScalarValue,
        config::ConfigOptions,
        tree_node::{Transformed, TransformedResult, TreeNode},
    },
    logical_expr::{
        BinaryExpr, Expr, LogicalPlan, Operator, expr::InList, expr_rewriter::NamePreserver,
        utils::merge_schema,
    },
    optimizer::AnalyzerRule,
};
use trine_model::Level;

/// Key in a field's metadata that marks the column `level`, wherever a plan hands it on.
const MARK: &str = "trine.level";

/// The column that holds names of levels.
pub(crate) fn level_field(name: &str) -> Field {
    let mark = HashMap::from([(MARK.to_owned(), String::new())]);
    Field::new(name, DataType::Utf8View, true).with_metadata(mark)
}

/// Writes the text that a level is compared with (`=`, `<>`, `IN`) as the table has it.
#[derive(Debug)]
pub(crate) struct LevelNames;

impl AnalyzerRule for LevelNames {
    fn analyze(&self, plan: LogicalPlan, _: &ConfigOptions) -> Result<LogicalPlan> {
        plan.transform_up_with_subqueries(|plan| {
            let schema = merge_schema(&plan.inputs());
            let names = NamePreserver::new(&plan);
            plan.map_expressions(|expr| {
                let name = names.save(&expr);
                let expr = expr.transform_up(|expr| Ok(folded(expr, &schema)))?;
                Ok(expr.update_data(|expr| name.restore(expr)))
            })?
            .map_data(LogicalPlan::recompute_schema)
        })
        .data()
    }

    fn name(&self) -> &'static str {
        "LevelNames"
    }
}

fn folded(expr: Expr, schema: &DFSchema) -> Transformed<Expr> {
    match expr {
        Expr::BinaryExpr(BinaryExpr { left, op: op @ (Operator::Eq | Operator::NotEq), right }) => {
            let (left, right) = if is_level(&left, schema) {
                (left, Box::new(upper(*right)))
            } else if is_level(&right, schema) {
                (Box::new(upper(*left)), right)
            } else {
                return Transformed::no(Expr::BinaryExpr(BinaryExpr { left, op, right }));
            };
            Transformed::yes(Expr::BinaryExpr(BinaryExpr { left, op, right }))
        }
        Expr::InList(InList { expr, list, negated }) if is_level(&expr, schema) => {
            let list = list.into_iter().map(upper).collect();
            Transformed::yes(Expr::InList(InList { expr, list, negated }))
        }
        other => Transformed::no(other),
    }
}

fn is_level(expr: &Expr, schema: &DFSchema) -> bool {
    let Expr::Column(Column { relation, name, .. }) = expr else { return false };
    let field = match relation {
        Some(relation) => schema.field_with_qualified_name(relation, name),
        None => schema.field_with_unqualified_name(name),
    };
    field.is_ok_and(|field| field.metadata().contains_key(MARK))
}

/// A literal that is the name of a level but for its case, in the table's case.
fn upper(expr: Expr) -> Expr {
    let Expr::Literal(value, metadata) = &expr else { return expr };
    let Some(text) = value.try_as_str().flatten() else { return expr };
    match Level::ALL.iter().map(|level| level.name()).find(|name| name.eq_ignore_ascii_case(text)) {
        Some(name) if !name.is_empty() => Expr::Literal(ScalarValue::from(name), metadata.clone()),
        _ => expr,
    }
}
