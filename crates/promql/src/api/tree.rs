//! `parse_query`: a query's tree as JSON.

use serde_json::{Value as Json, json};

use crate::{
    format::float,
    labels::MatchOp,
    parser::{At, BinaryOp, Cardinality, Duration, Edges, Expr, Matching, ValueType, VectorSelector},
};

/// Milliseconds of a length that is known, else 0.
fn millis(duration: Option<&Duration>) -> i64 {
    match duration {
        Some(Duration::Seconds(seconds)) => (seconds * 1000.0).round() as i64,
        _ => 0,
    }
}

/// A length that is yet to be calculated, else null.
fn calculated(duration: Option<&Duration>) -> Json {
    match duration {
        None | Some(Duration::Seconds(_)) => Json::Null,
        Some(duration) => calculation(duration),
    }
}

fn calculation(duration: &Duration) -> Json {
    let (op, left, right) = match duration {
        Duration::Seconds(seconds) => {
            return json!({"type": "numberLiteral", "val": float(*seconds), "duration": true});
        }
        Duration::Step => ("step", None, None),
        Duration::Range => ("range", None, None),
        Duration::MaxOf(left, right) => ("max_of", Some(left), Some(right)),
        Duration::MinOf(left, right) => ("min_of", Some(left), Some(right)),
        Duration::Binary { op, left, right } => (op.symbol(), left.as_ref(), Some(right)),
    };
    let [lhs, rhs] = [left, right].map(|side| side.map(|side| calculation(side)));
    let wrapped = matches!(duration, Duration::Binary { op: BinaryOp::Add, left: None, .. });
    json!({"type": "durationExpr", "op": op, "lhs": lhs, "rhs": rhs, "wrapped": wrapped})
}

fn timestamp(at: Option<At>) -> Option<i64> {
    match at {
        Some(At::Time(millis)) => Some(millis),
        _ => None,
    }
}

fn start_or_end(at: Option<At>) -> Option<&'static str> {
    match at {
        Some(At::Start) => Some("start"),
        Some(At::End) => Some("end"),
        None | Some(At::Time(_)) => None,
    }
}

fn selector(selector: &VectorSelector, range: Option<&Duration>) -> Json {
    let matchers = selector.matchers.iter().map(|matcher| {
        let op = match matcher.op {
            MatchOp::Equal => "=",
            MatchOp::NotEqual => "!=",
            MatchOp::Regex => "=~",
            MatchOp::NotRegex => "!~",
        };
        json!({"name": matcher.name, "type": op, "value": matcher.value})
    });
    let mut node = json!({
        "type": "vectorSelector",
        "name": selector.name.as_deref().unwrap_or_default(),
        "offset": millis(selector.offset.as_ref()),
        "offsetExpr": calculated(selector.offset.as_ref()),
        "matchers": matchers.collect::<Vec<_>>(),
        "timestamp": timestamp(selector.at),
        "startOrEnd": start_or_end(selector.at),
        "anchored": selector.edges == Edges::Anchored,
        "smoothed": selector.edges == Edges::Smoothed,
    });
    if range.is_some() {
        node["type"] = "matrixSelector".into();
        node["range"] = millis(range).into();
        node["rangeExpr"] = calculated(range);
    }
    node
}

fn matching(op: BinaryOp, matching: &Matching) -> Json {
    let cardinality = match matching.cardinality {
        _ if op.is_set() => "many-to-many",
        Cardinality::OneToOne => "one-to-one",
        Cardinality::ManyToOne => "many-to-one",
        Cardinality::OneToMany => "one-to-many",
        Cardinality::ManyToMany => "many-to-many",
    };
    json!({
        "card": cardinality,
        "labels": matching.labels,
        "on": matching.on,
        "include": matching.include,
        "fillValues": {"lhs": matching.fill_left, "rhs": matching.fill_right},
    })
}

/// A tree as `parse_query` tells it.
pub(super) fn translated(node: &Expr) -> Json {
    match node {
        Expr::Number { value, .. } => json!({"type": "numberLiteral", "val": float(*value)}),
        Expr::String { value, .. } => json!({"type": "stringLiteral", "val": value}),
        Expr::Vector(vector) => selector(vector, None),
        Expr::Matrix { selector: vector, range } => selector(vector, Some(range)),
        Expr::Paren { expr, .. } => json!({"type": "parenExpr", "expr": translated(expr)}),
        Expr::StepInvariant(expr) => translated(expr),
        Expr::Unary { minus, expr, .. } => {
            json!({"type": "unaryExpr", "op": if *minus { "-" } else { "+" }, "expr": translated(expr)})
        }
        Expr::Aggregate { op, expr, parameter, grouping, without, .. } => json!({
            "type": "aggregation",
            "op": op.name(),
            "expr": translated(expr),
            "param": parameter.as_deref().map(translated),
            "grouping": grouping,
            "without": without,
        }),
        Expr::Binary { op, left, right, matching: how, return_bool, .. } => {
            let vectors = [left, right].iter().all(|side| side.value_type() == ValueType::Vector);
            json!({
                "type": "binaryExpr",
                "op": op.symbol(),
                "lhs": translated(left),
                "rhs": translated(right),
                "matching": vectors.then(|| matching(*op, how)),
                "bool": return_bool,
            })
        }
        Expr::Call { function, args, .. } => json!({
            "type": "call",
            "func": {
                "name": function.name,
                "argTypes": function.args.iter().map(|kind| kind.name()).collect::<Vec<_>>(),
                "variadic": function.variadic,
                "returnType": function.returns.name(),
            },
            "args": args.iter().map(translated).collect::<Vec<_>>(),
        }),
        Expr::Subquery { expr, range, step, offset, at } => json!({
            "type": "subquery",
            "expr": translated(expr),
            "range": millis(Some(range)),
            "rangeExpr": calculated(Some(range)),
            "offset": millis(offset.as_ref()),
            "offsetExpr": calculated(offset.as_ref()),
            "step": millis(step.as_ref()),
            "stepExpr": calculated(step.as_ref()),
            "timestamp": timestamp(*at),
            "startOrEnd": start_or_end(*at),
        }),
    }
}
