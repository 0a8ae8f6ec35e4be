//! The tree of an expression.

use crate::labels::Matcher;

/// Where something begins in the query, bytes.
pub type Pos = usize;

/// Operators between two expressions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "the names are those of the language")]
pub enum BinaryOp {
    Add,
    Sub,
    Mul,
    Div,
    Mod,
    Pow,
    Atan2,
    Eq,
    Ne,
    Lt,
    Le,
    Gt,
    Ge,
    TrimUpper,
    TrimLower,
    And,
    Or,
    Unless,
}

impl BinaryOp {
    /// How it is written.
    pub fn symbol(self) -> &'static str {
        match self {
            Self::Add => "+",
            Self::Sub => "-",
            Self::Mul => "*",
            Self::Div => "/",
            Self::Mod => "%",
            Self::Pow => "^",
            Self::Atan2 => "atan2",
            Self::Eq => "==",
            Self::Ne => "!=",
            Self::Lt => "<",
            Self::Le => "<=",
            Self::Gt => ">",
            Self::Ge => ">=",
            Self::TrimUpper => "</",
            Self::TrimLower => ">/",
            Self::And => "and",
            Self::Or => "or",
            Self::Unless => "unless",
        }
    }

    pub(crate) fn is_comparison(self) -> bool {
        matches!(self, Self::Eq | Self::Ne | Self::Lt | Self::Le | Self::Gt | Self::Ge)
    }

    pub(crate) fn is_set(self) -> bool {
        matches!(self, Self::And | Self::Or | Self::Unless)
    }

    /// Whether the result is no longer the metric it was.
    pub(crate) fn changes_metric(self) -> bool {
        matches!(self, Self::Add | Self::Sub | Self::Mul | Self::Div | Self::Mod | Self::Pow | Self::Atan2)
    }
}

/// Aggregations.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "the names are those of the language")]
pub enum AggregateOp {
    Sum,
    Avg,
    Min,
    Max,
    Count,
    Group,
    Stddev,
    Stdvar,
    TopK,
    BottomK,
    CountValues,
    Quantile,
    LimitK,
    LimitRatio,
}

impl AggregateOp {
    /// How it is written.
    pub fn name(self) -> &'static str {
        match self {
            Self::Sum => "sum",
            Self::Avg => "avg",
            Self::Min => "min",
            Self::Max => "max",
            Self::Count => "count",
            Self::Group => "group",
            Self::Stddev => "stddev",
            Self::Stdvar => "stdvar",
            Self::TopK => "topk",
            Self::BottomK => "bottomk",
            Self::CountValues => "count_values",
            Self::Quantile => "quantile",
            Self::LimitK => "limitk",
            Self::LimitRatio => "limit_ratio",
        }
    }

    pub(crate) fn takes_parameter(self) -> bool {
        matches!(
            self,
            Self::TopK | Self::BottomK | Self::CountValues | Self::Quantile | Self::LimitK | Self::LimitRatio
        )
    }
}

/// What an expression yields.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "the names are those of the language")]
pub enum ValueType {
    Scalar,
    Vector,
    Matrix,
    String,
}

impl ValueType {
    /// As error messages call it.
    pub fn documented(self) -> &'static str {
        match self {
            Self::Vector => "instant vector",
            Self::Matrix => "range vector",
            _ => self.name(),
        }
    }

    /// As answers call it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Scalar => "scalar",
            Self::Vector => "vector",
            Self::Matrix => "matrix",
            Self::String => "string",
        }
    }
}

/// The time an `@` pins a selector to.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum At {
    /// Milliseconds since 1970.
    Time(i64),
    /// Start of the query.
    Start,
    /// End of the query.
    End,
}

/// A length of time: known, or to be worked out when the query's step and range are.
#[derive(Clone, Debug, PartialEq)]
pub enum Duration {
    /// Seconds.
    Seconds(f64),
    /// The query's step.
    Step,
    /// The query's range.
    Range,
    /// A calculation; without a left side a sign.
    Binary {
        /// One of `+ - * / % ^`.
        op: BinaryOp,
        /// Left side.
        left: Option<Box<Duration>>,
        /// Right side.
        right: Box<Duration>,
    },
    /// The larger of two.
    MaxOf(Box<Duration>, Box<Duration>),
    /// The smaller of two.
    MinOf(Box<Duration>, Box<Duration>),
}

/// How a range selector treats its edges.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Edges {
    /// Only samples inside.
    #[default]
    Plain,
    /// With the sample before its start.
    Anchored,
    /// With values interpolated at its edges.
    Smoothed,
}

/// A selector of series.
#[derive(Clone, Debug, PartialEq)]
pub struct VectorSelector {
    /// The name before the braces, if there is one; it is among the matchers too.
    pub name: Option<String>,
    /// All conditions.
    pub matchers: Vec<Matcher>,
    /// `offset`.
    pub offset: Option<Duration>,
    /// `@`.
    pub at: Option<At>,
    /// `anchored`, `smoothed`.
    pub edges: Edges,
    /// Of histograms only count and sum are asked for. The parser never sets it, preparation does.
    pub histogram_stats: bool,
    /// Where it begins.
    pub pos: Pos,
}

/// Which side of a binary operation may have many series for one of the other.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[allow(missing_docs, reason = "the names are those of the language")]
pub enum Cardinality {
    #[default]
    OneToOne,
    ManyToOne,
    OneToMany,
    ManyToMany,
}

/// How series of both sides find each other.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Matching {
    /// See [`Cardinality`].
    pub cardinality: Cardinality,
    /// `on` rather than `ignoring`.
    pub on: bool,
    /// The labels of either.
    pub labels: Vec<String>,
    /// Labels taken over from the "one" side.
    pub include: Vec<String>,
    /// Value of a missing left sample.
    pub fill_left: Option<f64>,
    /// Value of a missing right sample.
    pub fill_right: Option<f64>,
}

/// An expression.
#[derive(Clone, Debug, PartialEq)]
#[allow(missing_docs, reason = "the fields are those of the language; `pos` is where it begins")]
pub enum Expr {
    Number {
        value: f64,
        /// Written as a duration, such as `5m`.
        duration: bool,
        pos: Pos,
    },
    String {
        value: String,
        pos: Pos,
    },
    Vector(VectorSelector),
    Matrix {
        selector: VectorSelector,
        range: Duration,
    },
    Subquery {
        expr: Box<Expr>,
        range: Duration,
        step: Option<Duration>,
        offset: Option<Duration>,
        at: Option<At>,
    },
    Call {
        function: &'static super::Function,
        args: Vec<Expr>,
        pos: Pos,
    },
    Aggregate {
        op: AggregateOp,
        expr: Box<Expr>,
        parameter: Option<Box<Expr>>,
        grouping: Vec<String>,
        without: bool,
        pos: Pos,
    },
    Binary {
        op: BinaryOp,
        left: Box<Expr>,
        right: Box<Expr>,
        matching: Matching,
        return_bool: bool,
        op_pos: Pos,
    },
    /// A minus or, with no effect, a plus.
    Unary {
        minus: bool,
        expr: Box<Expr>,
        pos: Pos,
    },
    Paren {
        expr: Box<Expr>,
        pos: Pos,
    },
    /// The same at every step; evaluated once. The parser yields none, preparation does.
    StepInvariant(Box<Expr>),
}

impl Expr {
    /// Where it begins.
    pub fn pos(&self) -> Pos {
        match self {
            Self::Number { pos, .. }
            | Self::String { pos, .. }
            | Self::Call { pos, .. }
            | Self::Aggregate { pos, .. }
            | Self::Unary { pos, .. }
            | Self::Paren { pos, .. } => *pos,
            Self::Vector(selector) | Self::Matrix { selector, .. } => selector.pos,
            Self::Subquery { expr, .. } | Self::StepInvariant(expr) => expr.pos(),
            Self::Binary { left, .. } => left.pos(),
        }
    }

    /// What it yields.
    pub fn value_type(&self) -> ValueType {
        match self {
            Self::Number { .. } => ValueType::Scalar,
            Self::String { .. } => ValueType::String,
            Self::Vector(_) | Self::Aggregate { .. } => ValueType::Vector,
            Self::Matrix { .. } | Self::Subquery { .. } => ValueType::Matrix,
            Self::Call { function, .. } => function.returns,
            Self::Binary { left, right, .. } => {
                if left.value_type() == ValueType::Scalar && right.value_type() == ValueType::Scalar {
                    ValueType::Scalar
                } else {
                    ValueType::Vector
                }
            }
            Self::Unary { expr, .. } | Self::Paren { expr, .. } | Self::StepInvariant(expr) => {
                expr.value_type()
            }
        }
    }

    /// Without parentheses around it.
    pub(crate) fn unwrapped(&self) -> &Self {
        match self {
            Self::Paren { expr, .. } => expr.unwrapped(),
            Self::StepInvariant(expr) if matches!(**expr, Self::Paren { .. }) => expr.unwrapped(),
            _ => self,
        }
    }

    /// Expressions directly below this one.
    pub fn children(&self) -> Vec<&Self> {
        match self {
            Self::Number { .. } | Self::String { .. } | Self::Vector(_) | Self::Matrix { .. } => Vec::new(),
            Self::Subquery { expr, .. }
            | Self::Unary { expr, .. }
            | Self::Paren { expr, .. }
            | Self::StepInvariant(expr) => vec![expr],
            Self::Call { args, .. } => args.iter().collect(),
            Self::Aggregate { expr, parameter, .. } => {
                parameter.iter().map(|parameter| &**parameter).chain([&**expr]).collect()
            }
            Self::Binary { left, right, .. } => vec![left, right],
        }
    }
}
