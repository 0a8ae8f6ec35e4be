//! Expressions as text: in one line, and laid out over several as Prometheus' `format_query` does.

use std::fmt::{self, Write as _};

use super::{At, BinaryOp, Cardinality, Duration, Edges, Expr, Matching, VectorSelector};
use crate::{
    format::{float, quote},
    labels::{METRIC_NAME, MatchOp, Matcher, is_plain_label},
};

/// Bytes from which on an expression is laid out over several lines.
const MAX_LINE: usize = 100;

/// A length of time as Prometheus writes one: years and weeks only if nothing remains, at least `0s`.
pub(crate) fn duration_text(seconds: f64) -> String {
    const UNITS: [(&str, u64, bool); 7] = [
        ("y", 31_536_000_000, true),
        ("w", 604_800_000, true),
        ("d", 86_400_000, false),
        ("h", 3_600_000, false),
        ("m", 60_000, false),
        ("s", 1_000, false),
        ("ms", 1, false),
    ];
    let mut millis = (seconds.abs() * 1000.0).round() as u64;
    if millis == 0 {
        return "0s".to_owned();
    }
    let mut text = if seconds < 0.0 { "-".to_owned() } else { String::new() };
    for (unit, length, exact) in UNITS {
        let count = millis / length;
        if count > 0 && (!exact || millis.is_multiple_of(length)) {
            let _ = write!(text, "{count}{unit}");
            millis -= count * length;
        }
    }
    text
}

impl fmt::Display for Duration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Seconds(seconds) if (seconds * 1000.0).fract() == 0.0 => {
                f.write_str(&duration_text(*seconds))
            }
            Self::Seconds(seconds) => f.write_str(&float(*seconds)),
            Self::Step => f.write_str("step()"),
            Self::Range => f.write_str("range()"),
            Self::MaxOf(left, right) => write!(f, "max_of({left}, {right})"),
            Self::MinOf(left, right) => write!(f, "min_of({left}, {right})"),
            // How the parser keeps parentheses.
            Self::Binary { op: BinaryOp::Add, left: None, right } => write!(f, "({right})"),
            Self::Binary { op, left: None, right } => write!(f, "{}{right}", op.symbol()),
            Self::Binary { op, left: Some(left), right } => write!(f, "{left} {} {right}", op.symbol()),
        }
    }
}

/// A time as `@` has it.
impl fmt::Display for At {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Time(millis) => {
                let (sign, millis) = (if *millis < 0 { "-" } else { "" }, millis.unsigned_abs());
                write!(f, " @ {sign}{}.{:03}", millis / 1000, millis % 1000)
            }
            Self::Start => f.write_str(" @ start()"),
            Self::End => f.write_str(" @ end()"),
        }
    }
}

/// ` @ …` and ` offset …`.
fn write_when(f: &mut impl fmt::Write, at: Option<At>, offset: Option<&Duration>) -> fmt::Result {
    if let Some(at) = at {
        write!(f, "{at}")?;
    }
    write_offset(f, offset)
}

fn write_offset(f: &mut impl fmt::Write, offset: Option<&Duration>) -> fmt::Result {
    match offset {
        None | Some(Duration::Seconds(0.0)) => Ok(()),
        Some(offset) => write!(f, " offset {offset}"),
    }
}

fn edges(edges: Edges) -> &'static str {
    match edges {
        Edges::Plain => "",
        Edges::Anchored => " anchored",
        Edges::Smoothed => " smoothed",
    }
}

impl VectorSelector {
    /// Name and matchers alone.
    fn write_series(&self, f: &mut impl fmt::Write) -> fmt::Result {
        let name = self.name.as_deref().unwrap_or_default();
        let is_name = |matcher: &Matcher| {
            matcher.name == METRIC_NAME
                && matcher.op == MatchOp::Equal
                && matcher.value == name
                && !name.is_empty()
        };
        let matchers = self.matchers.iter().filter(|matcher| !is_name(matcher));
        let mut matchers: Vec<String> = matchers.map(ToString::to_string).collect();
        matchers.sort_unstable();
        f.write_str(name)?;
        if matchers.is_empty() { Ok(()) } else { write!(f, "{{{}}}", matchers.join(",")) }
    }
}

fn write_labels(f: &mut impl fmt::Write, labels: &[String]) -> fmt::Result {
    for (position, label) in labels.iter().enumerate() {
        if position > 0 {
            f.write_str(", ")?;
        }
        if is_plain_label(label) { f.write_str(label)? } else { f.write_str(&quote(label))? }
    }
    Ok(())
}

/// `%v`: with an exponent below 1e-4 and from 1e21.
fn write_fill(f: &mut impl fmt::Write, word: &str, value: f64) -> fmt::Result {
    let size = value.abs();
    let text = if size != 0.0 && size.is_finite() && !(1e-4..1e21).contains(&size) {
        crate::format::general(value)
    } else {
        float(value)
    };
    write!(f, " {word} ({text})")
}

impl fmt::Display for Matching {
    /// With a space before each part.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let group = match self.cardinality {
            Cardinality::ManyToOne => Some("left"),
            Cardinality::OneToMany => Some("right"),
            Cardinality::OneToOne | Cardinality::ManyToMany => None,
        };
        if !self.labels.is_empty() || self.on || group.is_some() {
            f.write_str(if self.on { " on (" } else { " ignoring (" })?;
            write_labels(f, &self.labels)?;
            f.write_str(")")?;
        }
        if let Some(group) = group {
            write!(f, " group_{group} (")?;
            write_labels(f, &self.include)?;
            f.write_str(")")?;
        }
        match (self.fill_left, self.fill_right) {
            (Some(left), Some(right)) if left == right => write_fill(f, "fill", left),
            (left, right) => {
                left.map_or(Ok(()), |left| write_fill(f, "fill_left", left))?;
                right.map_or(Ok(()), |right| write_fill(f, "fill_right", right))
            }
        }
    }
}

impl Expr {
    /// What comes before an aggregation's parentheses, between a binary operation's sides, after a subquery's
    /// expression.
    fn write_head(&self, f: &mut impl fmt::Write) -> fmt::Result {
        match self {
            Self::Aggregate { op, grouping, without, .. } => {
                f.write_str(op.name())?;
                if !*without && grouping.is_empty() {
                    return Ok(());
                }
                f.write_str(if *without { " without (" } else { " by (" })?;
                write_labels(f, grouping)?;
                f.write_str(") ")
            }
            Self::Binary { op, matching, return_bool, .. } => {
                let bool = if *return_bool { " bool" } else { "" };
                write!(f, "{}{bool}{matching}", op.symbol())
            }
            Self::Subquery { range, step, offset, at, .. } => {
                write!(f, "[{range}:")?;
                if let Some(step) = step {
                    write!(f, "{step}")?;
                }
                f.write_str("]")?;
                write_when(f, *at, offset.as_ref())
            }
            _ => Ok(()),
        }
    }

    /// As Prometheus lays a query out: what is longer than a line gets one per part, indented.
    pub fn pretty(&self) -> String {
        let mut text = String::new();
        self.lay_out(&mut text, 0);
        text
    }

    fn lay_out(&self, out: &mut String, level: usize) {
        let indent = |out: &mut String| out.extend(std::iter::repeat_n("  ", level));
        let line = self.to_string();
        let fits = line.len() <= MAX_LINE;
        match self {
            Self::Unary { minus, expr, .. } => {
                let mut inner = String::new();
                expr.lay_out(&mut inner, level);
                indent(out);
                out.push(if *minus { '-' } else { '+' });
                out.push_str(inner.trim());
            }
            // Prometheus does not indent subqueries that fit.
            Self::Subquery { .. } if fits => out.push_str(&line),
            Self::Subquery { expr, .. } => {
                expr.lay_out(out, level);
                let _ = self.write_head(out);
            }
            Self::StepInvariant(expr) => expr.lay_out(out, level),
            Self::Aggregate { expr, parameter, .. } if !fits => {
                indent(out);
                let _ = self.write_head(out);
                out.push_str("(\n");
                if let Some(parameter) = parameter {
                    parameter.lay_out(out, level + 1);
                    out.push_str(",\n");
                }
                expr.lay_out(out, level + 1);
                out.push('\n');
                indent(out);
                out.push(')');
            }
            Self::Binary { left, right, .. } if !fits => {
                left.lay_out(out, level + 1);
                out.push('\n');
                indent(out);
                let _ = self.write_head(out);
                out.push('\n');
                right.lay_out(out, level + 1);
            }
            Self::Call { function, args, .. } if !fits => {
                indent(out);
                out.push_str(function.name);
                out.push_str("(\n");
                for (position, argument) in args.iter().enumerate() {
                    if position > 0 {
                        out.push_str(",\n");
                    }
                    argument.lay_out(out, level + 1);
                }
                out.push('\n');
                indent(out);
                out.push(')');
            }
            Self::Paren { expr, .. } if !fits => {
                indent(out);
                out.push_str("(\n");
                expr.lay_out(out, level + 1);
                out.push('\n');
                indent(out);
                out.push(')');
            }
            _ => {
                indent(out);
                out.push_str(&line);
            }
        }
    }
}

impl fmt::Display for Expr {
    /// In one line, as Prometheus prints a query.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Number { value, duration: true, .. } => f.write_str(&duration_text(*value)),
            Self::Number { value, .. } => f.write_str(&float(*value)),
            Self::String { value, .. } => f.write_str(&quote(value)),
            Self::Vector(selector) => {
                selector.write_series(f)?;
                if let Some(at) = selector.at {
                    write!(f, "{at}")?;
                }
                f.write_str(edges(selector.edges))?;
                write_offset(f, selector.offset.as_ref())
            }
            Self::Matrix { selector, range } => {
                selector.write_series(f)?;
                write!(f, "[{range}]{}", edges(selector.edges))?;
                write_when(f, selector.at, selector.offset.as_ref())
            }
            Self::Subquery { expr, .. } => {
                write!(f, "{expr}")?;
                self.write_head(f)
            }
            Self::Call { function, args, .. } => {
                write!(f, "{}(", function.name)?;
                for (position, argument) in args.iter().enumerate() {
                    write!(f, "{}{argument}", if position > 0 { ", " } else { "" })?;
                }
                f.write_str(")")
            }
            Self::Aggregate { expr, parameter, .. } => {
                self.write_head(f)?;
                f.write_str("(")?;
                if let Some(parameter) = parameter {
                    write!(f, "{parameter}, ")?;
                }
                write!(f, "{expr})")
            }
            Self::Binary { left, right, .. } => {
                write!(f, "{left} ")?;
                self.write_head(f)?;
                write!(f, " {right}")
            }
            Self::Unary { minus, expr, .. } => write!(f, "{}{expr}", if *minus { '-' } else { '+' }),
            Self::Paren { expr, .. } => write!(f, "({expr})"),
            Self::StepInvariant(expr) => write!(f, "{expr}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::parse;

    #[test]
    fn queries_are_printed_as_prometheus_prints_them() {
        for (query, printed) in [
            ("sum(x)by(a,'b.c')", "sum by (a, \"b.c\") (x)"),
            ("sum without() (x)", "sum without () (x)"),
            ("sum by() (x)", "sum(x)"),
            ("topk(5,x{b='2',a=~\"1\"}offset 90m)", "topk(5, x{a=~\"1\",b=\"2\"} offset 1h30m)"),
            ("{__name__='x'}", "{__name__=\"x\"}"),
            ("a+on(l)group_left(m)b", "a + on (l) group_left (m) b"),
            ("a*ignoring()group_right b", "a * ignoring () group_right () b"),
            ("a+fill(1)b", "a + fill (1) b"),
            ("a>bool 5m", "a > bool 5m"),
            ("rate(x[1w2d]@5 offset -1ms)", "rate(x[9d] @ 5.000 offset -1ms)"),
            ("rate(x[7d]anchored)", "rate(x[1w] anchored)"),
            ("max_over_time(x[1h:]@end())", "max_over_time(x[1h:] @ end())"),
            ("x[365d:step()] offset (5m+1)", "x[1y:step()] offset (5m + 1s)"),
            ("-(1e3)^-x", "-(1000) ^ -x"),
            ("+Inf", "+Inf"),
            ("'a\\'b'", "\"a'b\""),
            ("A AND b UNLESS c", "A and b unless c"),
        ] {
            let first = parse(query).unwrap_or_else(|error| panic!("{query}: {error}")).to_string();
            assert_eq!(first, printed);
            assert_eq!(parse(&first).unwrap().to_string(), first, "does not read back");
        }
    }

    #[test]
    fn long_queries_take_several_lines() {
        let query = "label_replace(sum by (job, instance) (rate(http_requests_total{code=\"500\"}[5m])) \
                     / sum by (job, instance) (rate(http_requests_total[5m])), 'a', '$1', 'job', '(.*)')";
        let expected = "label_replace(
    sum by (job, instance) (rate(http_requests_total{code=\"500\"}[5m]))
  /
    sum by (job, instance) (rate(http_requests_total[5m])),
  \"a\",
  \"$1\",
  \"job\",
  \"(.*)\"
)";
        assert_eq!(parse(query).unwrap().pretty(), expected);
    }
}
