//! PromQL text into a checked tree.
//!
//! Written by hand rather than taken from a crate: annotations and errors must name the place in the query,
//! and the newest syntax (duration expressions, `anchored`, `fill`, trim operators) must parse.

mod ast;
mod check;
mod durations;
mod functions;
mod lexer;
mod print;
mod tree;

pub use ast::{
    AggregateOp, At, BinaryOp, Cardinality, Duration, Edges, Expr, Matching, Pos, ValueType, VectorSelector,
};
pub use functions::{FUNCTIONS, Function};
pub(crate) use lexer::{duration as duration_seconds, number};
pub(crate) use tree::{is_label_name, quoted_labels};

use crate::labels::Matcher;

/// A query that cannot be read, in Prometheus' wording.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{line}:{column}: parse error: {message}")]
pub struct ParseError {
    /// Line, from 1.
    pub line: usize,
    /// Column, from 1, bytes.
    pub column: usize,
    /// What is wrong.
    pub message: String,
}

impl ParseError {
    pub(crate) fn new(query: &str, pos: Pos, message: impl Into<String>) -> Self {
        let (line, column) = line_and_column(query, pos);
        Self { line, column, message: message.into() }
    }
}

/// Line and column of a position, both from 1.
pub(crate) fn line_and_column(query: &str, pos: Pos) -> (usize, usize) {
    let before = &query.as_bytes()[..pos.min(query.len())];
    let lines = before.split(|byte| *byte == b'\n');
    let column = lines.clone().next_back().map_or(0, <[u8]>::len) + 1;
    (lines.count(), column)
}

/// Parses and checks a query.
pub fn parse(query: &str) -> Result<Expr, ParseError> {
    let expr = tree::parse_expr(query)?;
    check::check(query, &expr)?;
    Ok(expr)
}

/// Parses a selector such as `up{job="x"}`, as the `match[]` parameters have it; also one that matches everything.
pub fn parse_selector(text: &str) -> Result<Vec<Matcher>, ParseError> {
    match tree::parse_expr(text)? {
        Expr::Vector(VectorSelector { matchers, offset: None, at: None, .. }) => Ok(matchers),
        _ => Err(ParseError::new(text, 0, "expected a series selector")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(query: &str) -> String {
        parse(query).expect_err(query).to_string()
    }

    #[test]
    fn what_prometheus_3_has_parses() {
        for query in [
            "sum by (a, \"b.c\") (rate({\"http.requests\", job=~\"x|y\"}[5m] offset -1h @ end()))",
            "a + on(x) group_left(y) fill_right(0) b",
            "x[5m + step():1m] @ 1603774568.5",
            "rate(x[1m] anchored) or y smoothed",
            "limit_ratio(0.1, x) unless limitk by (a) (3, y)",
            "h </ 5 >/ 2",
            "-x ^ 2 > bool 1 # a comment",
            "topk without () (3, x{a='b',})",
            "histogram_quantiles(x, 'q', 0.5, 0.9)",
            "max_over_time(x[max_of(5m, range()) / 2])",
            "info(x, {a=~'.*'})",
            "absent(sum(bool)) * start",
            "0x1f + 1_000 + Inf - NaN",
        ] {
            if let Err(error) = parse(query) {
                panic!("{query}: {error}");
            }
        }
    }

    #[test]
    fn precedence_is_that_of_the_language() {
        let Expr::Unary { expr, .. } = parse("-a ^ b").unwrap() else { panic!("unary binds weaker than ^") };
        assert!(matches!(*expr, Expr::Binary { op: BinaryOp::Pow, .. }));
        let Expr::Binary { op, right, .. } = parse("a or b and c").unwrap() else { panic!("binary") };
        assert_eq!(op, BinaryOp::Or);
        assert!(matches!(*right, Expr::Binary { op: BinaryOp::And, .. }));
        let Expr::Binary { right, .. } = parse("2 ^ 3 ^ 2").unwrap() else { panic!("binary") };
        assert!(matches!(*right, Expr::Binary { op: BinaryOp::Pow, .. }), "^ is right-associative");
    }

    #[test]
    fn errors_are_worded_as_prometheus_does() {
        for (query, expected) in [
            ("", "1:1: parse error: no expression found in input"),
            (
                "rate(x)",
                "1:6: parse error: expected type range vector in call to function \"rate\", got instant vector",
            ),
            ("foo(x)", "1:1: parse error: unknown function with name \"foo\""),
            ("x{a=\"b\"", "1:8: parse error: unexpected end of input inside braces"),
            ("1 == 2", "1:3: parse error: comparisons between scalars must use BOOL modifier"),
            ("{}", "1:1: parse error: vector selector must contain at least one non-empty matcher"),
            (
                "sum(x, y)",
                "1:1: parse error: wrong number of arguments for aggregate expression provided, expected 1, got 2",
            ),
            ("x[5m", "1:5: parse error: unclosed left bracket"),
            ("x offset 1m offset 2m", "1:1: parse error: offset may not be set multiple times"),
            ("x y", "1:3: parse error: unexpected identifier \"y\""),
            ("a and 1", "1:1: parse error: set operator \"and\" not allowed in binary scalar expression"),
            ("abs()", "1:1: parse error: expected 1 argument(s) in call to \"abs\", got 0"),
        ] {
            assert_eq!(error(query), expected, "{query}");
        }
    }

    #[test]
    fn deep_trees_are_refused_before_the_stack_ends() {
        for (open, close) in [("(", ")"), ("-", ""), ("sum(", ")"), ("x[", "]")] {
            let query = format!("{}1{}", open.repeat(10_000), close.repeat(10_000));
            assert!(parse(&query).is_err(), "{open}");
        }
        let deep = "expression is nested deeper";
        assert!(error(&vec!["1"; 10_000].join(" + ")).contains(deep));
        assert!(error(&format!("x[{}1{}]", "(".repeat(10_000), ")".repeat(10_000))).contains(deep));
        assert!(error(&format!("x offset {}1", "-".repeat(10_000))).contains(deep));
    }

    #[test]
    fn no_text_breaks_the_parser() {
        let parts = [
            "x",
            "{",
            "}",
            "(",
            ")",
            "[",
            "]",
            "5m",
            "1",
            "\"",
            "'",
            "\\",
            "`",
            "sum",
            "by",
            "on",
            "offset",
            "@",
            "-",
            "+",
            "==",
            "=~",
            "!",
            ":",
            ",",
            "start",
            "step",
            "é",
            "\u{1f600}",
            "#",
            "\n",
            " ",
            "0x",
            "1e",
            ".",
            "rate",
            "fill",
            "bool",
            "inf",
            "nan",
            "and",
            "</",
        ];
        let mut state = 1u64;
        for _ in 0..20_000 {
            let mut query = String::new();
            for _ in 0..8 {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                query.push_str(parts[(state >> 33) as usize % parts.len()]);
            }
            let _ = parse(&query);
        }
    }
}
