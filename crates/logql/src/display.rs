//! Canonical LogQL text of an expression; parsing it gives the expression back.

use std::fmt::{self, Display, Formatter};

use crate::{
    ast::{
        Binary, BinaryOp, CompareOp, Conversion, Expr, Extraction, Grouping, LabelChoice, LabelFilter,
        LabelFormat, LabelSource, LineNeedle, LineOp, LineStage, LogExpr, MatchOp, Matcher, Matching,
        MetricExpr, Quantity, RangeAggregation, RangeOp, Side, Stage, Unwrap, VectorAggregation, VectorOp,
    },
    units::write_duration,
};

/// A text as LogQL quotes it.
struct Quoted<'a>(&'a str);

impl Display for Quoted<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let raw = self.0.contains(['\\', '"']) && !self.0.contains('`');
        if raw {
            return write!(f, "`{}`", self.0);
        }
        f.write_str("\"")?;
        for c in self.0.chars() {
            match c {
                '"' => f.write_str("\\\"")?,
                '\\' => f.write_str("\\\\")?,
                '\n' => f.write_str("\\n")?,
                '\r' => f.write_str("\\r")?,
                '\t' => f.write_str("\\t")?,
                c if c.is_control() => write!(f, "\\U{:08x}", c as u32)?,
                c => write!(f, "{c}")?,
            }
        }
        f.write_str("\"")
    }
}

fn list<T: Display>(f: &mut Formatter<'_>, items: &[T]) -> fmt::Result {
    for (i, item) in items.iter().enumerate() {
        let comma = if i > 0 { ", " } else { "" };
        write!(f, "{comma}{item}")?;
    }
    Ok(())
}

impl Display for Expr {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Self::Log(log) => log.fmt(f),
            Self::Metric(metric) => metric.fmt(f),
        }
    }
}

impl Display for LogExpr {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str("{")?;
        list(f, &self.selector)?;
        f.write_str("}")?;
        self.stages.iter().try_for_each(|stage| write!(f, " {stage}"))
    }
}

impl Display for Matcher {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}{}", self.name, self.op, Quoted(&self.value))
    }
}

impl Display for MatchOp {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Equal => "=",
            Self::NotEqual => "!=",
            Self::Regex => "=~",
            Self::NotRegex => "!~",
        })
    }
}

impl Display for Stage {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let with_list = |f: &mut Formatter<'_>, name: &str, items: &[Extraction]| {
            f.write_str(name)?;
            f.write_str(if items.is_empty() { "" } else { " " })?;
            list(f, items)
        };
        match self {
            Self::Line(line) => line.fmt(f),
            Self::Label(filter) => write!(f, "| {filter}"),
            Self::Json(items) => with_list(f, "| json", items),
            Self::Logfmt { strict, keep_empty, extractions } => {
                let strict = if *strict { " --strict" } else { "" };
                let keep_empty = if *keep_empty { " --keep-empty" } else { "" };
                with_list(f, &format!("| logfmt{strict}{keep_empty}"), extractions)
            }
            Self::Regexp(regex) => write!(f, "| regexp {}", Quoted(regex)),
            Self::Pattern(pattern) => write!(f, "| pattern {}", Quoted(pattern)),
            Self::Unpack => f.write_str("| unpack"),
            Self::Decolorize => f.write_str("| decolorize"),
            Self::LineFormat(template) => write!(f, "| line_format {}", Quoted(template)),
            Self::LabelFormat(items) => {
                f.write_str("| label_format ")?;
                list(f, items)
            }
            Self::Keep(items) => {
                f.write_str("| keep ")?;
                list(f, items)
            }
            Self::Drop(items) => {
                f.write_str("| drop ")?;
                list(f, items)
            }
            Self::Distinct(names) => {
                f.write_str("| distinct ")?;
                list(f, names)
            }
        }
    }
}

impl Display for LineStage {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str(match self.op {
            LineOp::Contains => "|=",
            LineOp::NotContains => "!=",
            LineOp::Regex => "|~",
            LineOp::NotRegex => "!~",
            LineOp::Pattern => "|>",
            LineOp::NotPattern => "!>",
        })?;
        for (i, needle) in self.any.iter().enumerate() {
            f.write_str(if i > 0 { " or " } else { " " })?;
            match needle {
                LineNeedle::Text(text) => Quoted(text).fmt(f)?,
                LineNeedle::Ip(pattern) => write!(f, "ip({})", Quoted(pattern))?,
            }
        }
        Ok(())
    }
}

impl Display for LabelFilter {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let side = |f: &mut Formatter<'_>, filter: &Self| match filter {
            Self::And(..) | Self::Or(..) => write!(f, "({filter})"),
            _ => filter.fmt(f),
        };
        match self {
            Self::And(left, right) => {
                side(f, left)?;
                f.write_str(" and ")?;
                side(f, right)
            }
            Self::Or(left, right) => {
                side(f, left)?;
                f.write_str(" or ")?;
                side(f, right)
            }
            Self::Text(matcher) => matcher.fmt(f),
            Self::Number { name, op, value } => write!(f, "{name} {op} {value}"),
            Self::Ip { name, negated, pattern } => {
                write!(f, "{name} {} ip({})", if *negated { "!=" } else { "=" }, Quoted(pattern))
            }
        }
    }
}

impl Display for CompareOp {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Equal => "==",
            Self::NotEqual => "!=",
            Self::Greater => ">",
            Self::GreaterEqual => ">=",
            Self::Less => "<",
            Self::LessEqual => "<=",
        })
    }
}

impl Display for Quantity {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Self::Number(number) => write!(f, "{number}"),
            Self::Duration(nanoseconds) => write_duration(f, *nanoseconds),
            Self::Bytes(bytes) => write!(f, "{bytes}B"),
        }
    }
}

impl Display for Extraction {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        if self.label == self.expression {
            f.write_str(&self.label)
        } else {
            write!(f, "{}={}", self.label, Quoted(&self.expression))
        }
    }
}

impl Display for LabelFormat {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match &self.value {
            LabelSource::Rename(source) => write!(f, "{}={source}", self.name),
            LabelSource::Template(template) => write!(f, "{}={}", self.name, Quoted(template)),
        }
    }
}

impl Display for LabelChoice {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)?;
        match &self.value {
            Some((op, value)) => write!(f, "{op}{}", Quoted(value)),
            None => Ok(()),
        }
    }
}

impl Display for Grouping {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str(if self.without { "without (" } else { "by (" })?;
        list(f, &self.labels)?;
        f.write_str(")")
    }
}

impl Display for Unwrap {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self.conversion {
            Conversion::Number => write!(f, "| unwrap {}", self.label)?,
            Conversion::Duration => write!(f, "| unwrap duration({})", self.label)?,
            Conversion::DurationSeconds => write!(f, "| unwrap duration_seconds({})", self.label)?,
            Conversion::Bytes => write!(f, "| unwrap bytes({})", self.label)?,
        }
        self.filters.iter().try_for_each(|filter| write!(f, " | {filter}"))
    }
}

impl Display for RangeAggregation {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "{}(", self.op.name())?;
        if let Some(parameter) = self.parameter {
            write!(f, "{parameter}, ")?;
        }
        self.log.fmt(f)?;
        if let Some(unwrap) = &self.unwrap {
            write!(f, " {unwrap}")?;
        }
        f.write_str(" [")?;
        write_duration(f, self.range)?;
        f.write_str("]")?;
        if self.offset != 0 {
            f.write_str(" offset ")?;
            write_duration(f, self.offset)?;
        }
        f.write_str(")")?;
        self.grouping.iter().try_for_each(|grouping| write!(f, " {grouping}"))
    }
}

impl Display for VectorAggregation {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str(self.op.name())?;
        match &self.grouping {
            Some(grouping) => write!(f, " {grouping} (")?,
            None => f.write_str("(")?,
        }
        if let Some(parameter) = self.parameter {
            write!(f, "{parameter}, ")?;
        }
        write!(f, "{})", self.inner)
    }
}

impl Display for Matching {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str(if self.on { "on (" } else { "ignoring (" })?;
        list(f, &self.labels)?;
        f.write_str(")")?;
        if let Some((side, labels)) = &self.group {
            f.write_str(if *side == Side::Left { " group_left (" } else { " group_right (" })?;
            list(f, labels)?;
            f.write_str(")")?;
        }
        Ok(())
    }
}

impl Display for Binary {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let side = |f: &mut Formatter<'_>, expr: &MetricExpr| match expr {
            MetricExpr::Binary(_) => write!(f, "({expr})"),
            _ => expr.fmt(f),
        };
        side(f, &self.left)?;
        write!(f, " {} ", self.op.name())?;
        if self.return_bool {
            f.write_str("bool ")?;
        }
        if let Some(matching) = &self.matching {
            write!(f, "{matching} ")?;
        }
        side(f, &self.right)
    }
}

impl Display for MetricExpr {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Self::Range(range) => range.fmt(f),
            Self::Vector(vector) => vector.fmt(f),
            Self::Binary(binary) => binary.fmt(f),
            Self::LabelReplace(r) => write!(
                f,
                "label_replace({}, {}, {}, {}, {})",
                r.inner,
                Quoted(&r.destination),
                Quoted(&r.replacement),
                Quoted(&r.source),
                Quoted(&r.regex)
            ),
            Self::Number(number) => write!(f, "{number}"),
            Self::Constant(number) => write!(f, "vector({number})"),
        }
    }
}

impl RangeOp {
    /// All functions.
    pub const ALL: [Self; 15] = [
        Self::Rate,
        Self::RateCounter,
        Self::CountOverTime,
        Self::BytesRate,
        Self::BytesOverTime,
        Self::AbsentOverTime,
        Self::SumOverTime,
        Self::AvgOverTime,
        Self::MinOverTime,
        Self::MaxOverTime,
        Self::StddevOverTime,
        Self::StdvarOverTime,
        Self::QuantileOverTime,
        Self::FirstOverTime,
        Self::LastOverTime,
    ];

    /// The function's name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Rate => "rate",
            Self::RateCounter => "rate_counter",
            Self::CountOverTime => "count_over_time",
            Self::BytesRate => "bytes_rate",
            Self::BytesOverTime => "bytes_over_time",
            Self::AbsentOverTime => "absent_over_time",
            Self::SumOverTime => "sum_over_time",
            Self::AvgOverTime => "avg_over_time",
            Self::MinOverTime => "min_over_time",
            Self::MaxOverTime => "max_over_time",
            Self::StddevOverTime => "stddev_over_time",
            Self::StdvarOverTime => "stdvar_over_time",
            Self::QuantileOverTime => "quantile_over_time",
            Self::FirstOverTime => "first_over_time",
            Self::LastOverTime => "last_over_time",
        }
    }
}

impl VectorOp {
    /// All functions.
    pub const ALL: [Self; 12] = [
        Self::Sum,
        Self::Avg,
        Self::Min,
        Self::Max,
        Self::Count,
        Self::Stddev,
        Self::Stdvar,
        Self::Topk,
        Self::Bottomk,
        Self::ApproxTopk,
        Self::Sort,
        Self::SortDesc,
    ];

    /// The function's name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Sum => "sum",
            Self::Avg => "avg",
            Self::Min => "min",
            Self::Max => "max",
            Self::Count => "count",
            Self::Stddev => "stddev",
            Self::Stdvar => "stdvar",
            Self::Topk => "topk",
            Self::Bottomk => "bottomk",
            Self::ApproxTopk => "approx_topk",
            Self::Sort => "sort",
            Self::SortDesc => "sort_desc",
        }
    }
}

impl BinaryOp {
    /// The operator.
    pub fn name(self) -> &'static str {
        match self {
            Self::Or => "or",
            Self::And => "and",
            Self::Unless => "unless",
            Self::Equal => "==",
            Self::NotEqual => "!=",
            Self::Greater => ">",
            Self::GreaterEqual => ">=",
            Self::Less => "<",
            Self::LessEqual => "<=",
            Self::Add => "+",
            Self::Sub => "-",
            Self::Mul => "*",
            Self::Div => "/",
            Self::Mod => "%",
            Self::Pow => "^",
        }
    }
}
