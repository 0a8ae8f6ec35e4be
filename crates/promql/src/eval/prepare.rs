//! What is known before evaluation: the query's own times, and what stays the same at every step.

use super::Context;
use crate::parser::{BinaryOp, Expr, Pos, VectorSelector};

/// Functions that look at the time of evaluation itself.
const TIME_DEPENDENT: [&str; 15] = [
    "days_in_month",
    "day_of_month",
    "day_of_week",
    "day_of_year",
    "end",
    "hour",
    "minute",
    "month",
    "predict_linear",
    "range",
    "start",
    "step",
    "time",
    "timestamp",
    "year",
];

/// Folds `start()`, `end()`, `range()`, `step()` into numbers and marks what is evaluated once.
pub(super) fn prepare(context: &Context<'_>, mut expr: Expr) -> Expr {
    fold(context, &mut expr);
    find_stats(&mut expr, false);
    if context.steps.count > 1 {
        let (_, wrap) = mark(&mut expr);
        if wrap {
            expr = Expr::StepInvariant(Box::new(expr));
        }
    }
    expr
}

fn fold(context: &Context<'_>, expr: &mut Expr) {
    if let Expr::Call { function, pos, .. } = expr {
        let pos: Pos = *pos;
        let millis = match function.name {
            "start" => Some(context.steps.start),
            "end" => Some(context.end),
            "range" => Some(context.range),
            "step" => Some(if context.range > 0 { context.steps.step } else { 0 }),
            _ => None,
        };
        if let Some(millis) = millis {
            *expr = Expr::Number { value: millis as f64 / 1000.0, duration: false, pos };
            return;
        }
    }
    children(expr).into_iter().for_each(|child| fold(context, child));
}

/// Marks selectors of whose histograms only count and sum are asked for.
fn find_stats(expr: &mut Expr, wanted: bool) {
    let wanted = match expr {
        Expr::Vector(selector) | Expr::Matrix { selector, .. } => {
            selector.histogram_stats = wanted;
            return;
        }
        Expr::Subquery { .. } | Expr::Binary { op: BinaryOp::TrimLower | BinaryOp::TrimUpper, .. } => return,
        Expr::Call { function, .. } => match function.name {
            "histogram_quantile" | "histogram_quantiles" | "histogram_fraction" => return,
            "histogram_count" | "histogram_sum" | "histogram_avg" => true,
            _ => wanted,
        },
        _ => wanted,
    };
    children(expr).into_iter().for_each(|child| find_stats(child, wanted));
}

fn children(expr: &mut Expr) -> Vec<&mut Expr> {
    match expr {
        Expr::Number { .. } | Expr::String { .. } | Expr::Vector(_) | Expr::Matrix { .. } => Vec::new(),
        Expr::Subquery { expr, .. }
        | Expr::Unary { expr, .. }
        | Expr::Paren { expr, .. }
        | Expr::StepInvariant(expr) => vec![expr],
        Expr::Call { args, .. } => args.iter_mut().collect(),
        Expr::Aggregate { expr, parameter, .. } => {
            parameter.iter_mut().map(|parameter| &mut **parameter).chain([&mut **expr]).collect()
        }
        Expr::Binary { left, right, .. } => vec![left, right],
    }
}

fn wrap(expr: &mut Expr) {
    let inner = std::mem::replace(expr, Expr::Number { value: 0.0, duration: false, pos: 0 });
    *expr = Expr::StepInvariant(Box::new(inner));
}

/// Whether a node is the same at every step, and whether wrapping it saves anything.
fn mark(expr: &mut Expr) -> (bool, bool) {
    match expr {
        Expr::Vector(selector) => (selector.at.is_some(), selector.at.is_some()),
        Expr::Matrix { selector: VectorSelector { at, .. }, .. } => (at.is_some(), false),
        Expr::Number { .. } | Expr::String { .. } | Expr::StepInvariant(_) => (true, false),
        Expr::Paren { expr, .. } | Expr::Unary { expr, .. } => mark(expr),
        Expr::Aggregate { expr, parameter, .. } => {
            let (invariant, wanted) = mark(expr);
            let parameter_invariant = parameter.as_mut().is_none_or(|parameter| mark(parameter).0);
            if invariant && !parameter_invariant && wanted {
                wrap(expr);
            }
            (invariant && parameter_invariant, wanted && parameter_invariant)
        }
        Expr::Subquery { expr, at, .. } => {
            if mark(expr).0 {
                wrap(expr);
            }
            (at.is_some(), false)
        }
        Expr::Binary { left, right, .. } => {
            let (left_mark, right_mark) = (mark(left), mark(right));
            if left_mark.0 && right_mark.0 {
                return (true, true);
            }
            if left_mark.1 {
                wrap(left);
            }
            if right_mark.1 {
                wrap(right);
            }
            (false, false)
        }
        Expr::Call { function, args, .. } => {
            let name = function.name;
            let marks: Vec<(bool, bool)> = args.iter_mut().map(mark).collect();
            let all = marks.iter().all(|(invariant, _)| *invariant);
            let pinned_timestamp = name == "timestamp"
                && all
                && args.iter().all(|arg| matches!(arg.unwrapped(), Expr::Vector(_)));
            if all && (!TIME_DEPENDENT.contains(&name) || pinned_timestamp) {
                return (true, true);
            }
            for (arg, (_, wanted)) in args.iter_mut().zip(marks) {
                if wanted {
                    wrap(arg);
                }
            }
            (false, false)
        }
    }
}
