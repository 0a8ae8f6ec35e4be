//! Types and rules that the grammar does not hold.

use super::{AggregateOp, BinaryOp, Cardinality, Expr, Matching, ParseError, ValueType, VectorSelector};
use crate::format::quote;

/// Checks a whole tree; the first thing wrong is told.
pub(super) fn check(query: &str, expr: &Expr) -> Result<(), ParseError> {
    let fail = |pos, message: String| Err(ParseError::new(query, pos, message));
    match expr {
        Expr::Aggregate { op, expr: inner, parameter, .. } => {
            expect_type(query, inner, ValueType::Vector, "aggregation expression")?;
            if let Some(parameter) = parameter {
                let wanted =
                    if *op == AggregateOp::CountValues { ValueType::String } else { ValueType::Scalar };
                expect_type(query, parameter, wanted, "aggregation parameter")?;
            }
        }
        Expr::Binary { .. } => check_binary(query, expr)?,
        Expr::Call { .. } => check_call(query, expr)?,
        Expr::Unary { expr: inner, pos, .. } => {
            let found = inner.value_type();
            if !matches!(found, ValueType::Scalar | ValueType::Vector) {
                let found = quote(found.documented());
                return fail(
                    *pos,
                    format!(
                        "unary expression only allowed on expressions of type scalar or instant vector, got {found}"
                    ),
                );
            }
        }
        Expr::Subquery { expr: inner, .. } => {
            let found = inner.value_type();
            if found != ValueType::Vector {
                let found = found.name();
                return fail(
                    expr.pos(),
                    format!("subquery is only allowed on instant vector, got {found} instead"),
                );
            }
        }
        Expr::Vector(selector) | Expr::Matrix { selector, .. } => check_selector(query, selector)?,
        _ => {}
    }
    for (position, child) in expr.children().into_iter().enumerate() {
        let info = matches!(expr, Expr::Call { function, .. } if function.name == "info");
        if !(info && position == 1) {
            check(query, child)?;
        }
    }
    Ok(())
}

fn check_selector(query: &str, selector: &VectorSelector) -> Result<(), ParseError> {
    if selector.matchers.iter().all(|matcher| matcher.matches("")) {
        let message = "vector selector must contain at least one non-empty matcher";
        return Err(ParseError::new(query, selector.pos, message));
    }
    Ok(())
}

fn expect_type(query: &str, expr: &Expr, wanted: ValueType, place: &str) -> Result<(), ParseError> {
    let found = expr.value_type();
    if found == wanted {
        return Ok(());
    }
    let (wanted, found) = (wanted.documented(), found.documented());
    Err(ParseError::new(query, expr.pos(), format!("expected type {wanted} in {place}, got {found}")))
}

fn check_binary(query: &str, expr: &Expr) -> Result<(), ParseError> {
    let Expr::Binary { op, left, right, matching, return_bool, op_pos } = expr else { return Ok(()) };
    let fail = |pos, message: String| Err(ParseError::new(query, pos, message));
    let (left_type, right_type) = (left.value_type(), right.value_type());
    if *return_bool && !op.is_comparison() {
        return fail(*op_pos, "bool modifier can only be used on comparison operators".to_owned());
    }
    let scalars = left_type == ValueType::Scalar && right_type == ValueType::Scalar;
    if op.is_comparison() && !return_bool && scalars {
        return fail(*op_pos, "comparisons between scalars must use BOOL modifier".to_owned());
    }
    if let Some(twice) = matching.include.iter().find(|label| matching.on && matching.labels.contains(label))
    {
        let twice = quote(twice);
        return fail(*op_pos, format!("label {twice} must not occur in ON and GROUP clause at once"));
    }
    for (side, found) in [(left, left_type), (right, right_type)] {
        if !matches!(found, ValueType::Scalar | ValueType::Vector) {
            let message = "binary expression must contain only scalar and instant vector types";
            return fail(side.pos(), message.to_owned());
        }
    }
    check_matching(query, expr, *op, matching, left_type, right_type)
}

fn check_matching(
    query: &str,
    expr: &Expr,
    op: BinaryOp,
    matching: &Matching,
    left: ValueType,
    right: ValueType,
) -> Result<(), ParseError> {
    let fills = matching.fill_left.is_some() || matching.fill_right.is_some();
    let vectors = left == ValueType::Vector && right == ValueType::Vector;
    let message = if !vectors && !matching.labels.is_empty() {
        "vector matching only allowed between instant vectors".to_owned()
    } else if !vectors && fills {
        "filling in missing series only allowed between instant vectors".to_owned()
    } else if !vectors && op.is_set() {
        format!("set operator {} not allowed in binary scalar expression", quote(op.symbol()))
    } else if op.is_set() && matching.cardinality != Cardinality::OneToOne {
        format!("no grouping allowed for {} operation", quote(op.symbol()))
    } else if op.is_set() && fills {
        "filling in missing series not allowed for set operators".to_owned()
    } else if left == ValueType::Scalar
        && right == ValueType::Scalar
        && matches!(op, BinaryOp::TrimLower | BinaryOp::TrimUpper)
    {
        format!("operator {} not allowed for Scalar operations", quote(op.symbol()))
    } else {
        return Ok(());
    };
    Err(ParseError::new(query, expr.pos(), message))
}

fn check_call(query: &str, expr: &Expr) -> Result<(), ParseError> {
    let Expr::Call { function, args, pos } = expr else { return Ok(()) };
    let fail = |pos, message: String| Err(ParseError::new(query, pos, message));
    let (listed, got, name) = (function.args.len(), args.len(), quote(function.name));
    if function.variadic == 0 {
        if listed != got {
            return fail(*pos, format!("expected {listed} argument(s) in call to {name}, got {got}"));
        }
    } else {
        let fewest = listed - 1;
        if got < fewest {
            return fail(
                *pos,
                format!("expected at least {fewest} argument(s) in call to {name}, got {got}"),
            );
        }
        let most = fewest + function.variadic.unsigned_abs() as usize;
        if function.variadic > 0 && got > most {
            return fail(*pos, format!("expected at most {most} argument(s) in call to {name}, got {got}"));
        }
    }
    for (position, arg) in args.iter().enumerate() {
        let wanted = function.args[position.min(listed - 1)];
        let found = arg.value_type();
        if found != wanted {
            let (wanted, found) = (wanted.documented(), found.documented());
            return fail(
                arg.pos(),
                format!("expected type {wanted} in call to function {name}, got {found}"),
            );
        }
    }
    if function.name == "info" {
        match args.get(1) {
            None | Some(Expr::Vector(VectorSelector { name: None, .. })) => {}
            Some(Expr::Vector(selector)) => {
                let message = "expected label selectors only, got vector selector instead";
                return fail(selector.pos, message.to_owned());
            }
            Some(arg) => return fail(arg.pos(), "expected label selectors only".to_owned()),
        }
    }
    Ok(())
}
