//! The parsed form of a query. [`std::fmt::Display`] writes it back as canonical LogQL.

/// A query.
#[derive(Debug, Clone, PartialEq)]
pub enum Expr {
    /// Gives lines.
    Log(LogExpr),
    /// Gives numbers over time.
    Metric(MetricExpr),
}

/// Stream selector and pipeline.
#[derive(Debug, Clone, PartialEq)]
pub struct LogExpr {
    /// All must match; empty (`{}`) takes every stream, which Loki refuses.
    pub selector: Vec<Matcher>,
    /// From left to right.
    pub stages: Vec<Stage>,
}

/// `name="value"` and its kin.
#[derive(Debug, Clone, PartialEq)]
pub struct Matcher {
    /// Label name.
    pub name: String,
    /// Comparison.
    pub op: MatchOp,
    /// Text or regular expression (anchored at both ends, RE2 syntax).
    pub value: String,
}

/// Comparison of texts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MatchOp {
    /// `=`
    Equal,
    /// `!=`
    NotEqual,
    /// `=~`
    Regex,
    /// `!~`
    NotRegex,
}

/// One step of a pipeline.
#[derive(Debug, Clone, PartialEq)]
pub enum Stage {
    /// `|= "a" or "b"`
    Line(LineStage),
    /// `| status >= 500 and path != "/"`
    Label(LabelFilter),
    /// `| json` or `| json a="b.c[0]"`
    Json(Vec<Extraction>),
    /// `| logfmt --strict --keep-empty a="b"`
    Logfmt {
        /// A badly formed pair is an error.
        strict: bool,
        /// Keys without value become empty labels.
        keep_empty: bool,
        /// Labels to take; empty takes all.
        extractions: Vec<Extraction>,
    },
    /// `| regexp "(?P<name>...)"`
    Regexp(String),
    /// `| pattern "<a> - <b>"`
    Pattern(String),
    /// `| unpack`
    Unpack,
    /// `| decolorize`
    Decolorize,
    /// `| line_format "{{.a}}"`
    LineFormat(String),
    /// `| label_format a=b, c="{{.d}}"`
    LabelFormat(Vec<LabelFormat>),
    /// `| keep a, b="c"`
    Keep(Vec<LabelChoice>),
    /// `| drop a, b="c"`
    Drop(Vec<LabelChoice>),
    /// `| distinct a, b`: the first line of each combination
    Distinct(Vec<String>),
}

/// A filter on the line.
#[derive(Debug, Clone, PartialEq)]
pub struct LineStage {
    /// Comparison.
    pub op: LineOp,
    /// Alternatives; never empty.
    pub any: Vec<LineNeedle>,
}

/// Comparison of a line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LineOp {
    /// `|=`
    Contains,
    /// `!=`
    NotContains,
    /// `|~`
    Regex,
    /// `!~`
    NotRegex,
    /// `|>`
    Pattern,
    /// `!>`
    NotPattern,
}

/// What a line filter looks for.
#[derive(Debug, Clone, PartialEq)]
pub enum LineNeedle {
    /// Text, regular expression or pattern, as the operator says.
    Text(String),
    /// `ip("10.0.0.0/8")`
    Ip(String),
}

/// A filter on labels.
#[derive(Debug, Clone, PartialEq)]
pub enum LabelFilter {
    /// Both hold.
    And(Box<LabelFilter>, Box<LabelFilter>),
    /// One holds.
    Or(Box<LabelFilter>, Box<LabelFilter>),
    /// Text comparison.
    Text(Matcher),
    /// Number comparison, `status >= 500`.
    Number {
        /// Label name.
        name: String,
        /// Comparison.
        op: CompareOp,
        /// Right side and its unit.
        value: Quantity,
    },
    /// `addr = ip("10.0.0.0/8")`
    Ip {
        /// Label name.
        name: String,
        /// `!=` instead of `=`.
        negated: bool,
        /// Address, range or CIDR.
        pattern: String,
    },
}

/// A number with its unit.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Quantity {
    /// No unit.
    Number(f64),
    /// Nanoseconds.
    Duration(i64),
    /// Bytes.
    Bytes(u64),
}

/// Comparison of numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CompareOp {
    /// `==`
    Equal,
    /// `!=`
    NotEqual,
    /// `>`
    Greater,
    /// `>=`
    GreaterEqual,
    /// `<`
    Less,
    /// `<=`
    LessEqual,
}

/// `label="expression"` of a parser.
#[derive(Debug, Clone, PartialEq)]
pub struct Extraction {
    /// New label.
    pub label: String,
    /// Path or key; equal to the label when it was left out.
    pub expression: String,
}

/// One assignment of `label_format`.
#[derive(Debug, Clone, PartialEq)]
pub struct LabelFormat {
    /// The label that is set.
    pub name: String,
    /// Its value.
    pub value: LabelSource,
}

/// Right side of a `label_format` assignment.
#[derive(Debug, Clone, PartialEq)]
pub enum LabelSource {
    /// Another label, which is renamed.
    Rename(String),
    /// A template.
    Template(String),
}

/// A label that `keep` and `drop` name, perhaps only with some value.
#[derive(Debug, Clone, PartialEq)]
pub struct LabelChoice {
    /// Label name.
    pub name: String,
    /// Comparison and text.
    pub value: Option<(MatchOp, String)>,
}

/// An expression that gives numbers.
#[derive(Debug, Clone, PartialEq)]
pub enum MetricExpr {
    /// `count_over_time({app="a"}[5m])`
    Range(Box<RangeAggregation>),
    /// `sum by (a) (...)`
    Vector(Box<VectorAggregation>),
    /// `a + b`
    Binary(Box<Binary>),
    /// `label_replace(v, "dst", "$1", "src", "(.*)")`
    LabelReplace(Box<LabelReplace>),
    /// A number.
    Number(f64),
    /// `vector(1)`
    Constant(f64),
}

/// A function over the lines of a time range.
#[derive(Debug, Clone, PartialEq)]
pub struct RangeAggregation {
    /// The function.
    pub op: RangeOp,
    /// The quantile of `quantile_over_time`.
    pub parameter: Option<f64>,
    /// The lines.
    pub log: LogExpr,
    /// Where the values come from; `None` counts lines or bytes.
    pub unwrap: Option<Unwrap>,
    /// Nanoseconds; the range excludes its first instant and includes its last.
    pub range: i64,
    /// Nanoseconds the range lies back (negative: ahead).
    pub offset: i64,
    /// Grouping of an unwrapped range.
    pub grouping: Option<Grouping>,
}

/// Functions over ranges.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)] // the names are the functions' names
pub enum RangeOp {
    Rate,
    RateCounter,
    CountOverTime,
    BytesRate,
    BytesOverTime,
    AbsentOverTime,
    SumOverTime,
    AvgOverTime,
    MinOverTime,
    MaxOverTime,
    StddevOverTime,
    StdvarOverTime,
    QuantileOverTime,
    FirstOverTime,
    LastOverTime,
}

/// `| unwrap duration(x) | __error__=""`
#[derive(Debug, Clone, PartialEq)]
pub struct Unwrap {
    /// How the text becomes a number.
    pub conversion: Conversion,
    /// Label name.
    pub label: String,
    /// Filters behind it.
    pub filters: Vec<LabelFilter>,
}

/// How an unwrapped label becomes a number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Conversion {
    /// A plain number.
    Number,
    /// `duration()`: a Go duration, in seconds.
    Duration,
    /// `duration_seconds()`: the same.
    DurationSeconds,
    /// `bytes()`: a size with unit, in bytes.
    Bytes,
}

/// `by (a, b)` or `without (a, b)`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Grouping {
    /// `without` instead of `by`.
    pub without: bool,
    /// Label names.
    pub labels: Vec<String>,
}

/// An aggregation of one vector.
#[derive(Debug, Clone, PartialEq)]
pub struct VectorAggregation {
    /// The function.
    pub op: VectorOp,
    /// The `k` of `topk` and `bottomk`.
    pub parameter: Option<usize>,
    /// What is aggregated.
    pub inner: MetricExpr,
    /// How.
    pub grouping: Option<Grouping>,
}

/// Functions over a vector.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)] // the names are the functions' names
pub enum VectorOp {
    Sum,
    Avg,
    Min,
    Max,
    Count,
    Stddev,
    Stdvar,
    Topk,
    Bottomk,
    /// Computed exactly, like `topk`.
    ApproxTopk,
    Sort,
    SortDesc,
}

/// A binary operation.
#[derive(Debug, Clone, PartialEq)]
pub struct Binary {
    /// The operator.
    pub op: BinaryOp,
    /// Comparisons give 0 or 1 instead of filtering.
    pub return_bool: bool,
    /// How elements of two vectors find each other.
    pub matching: Option<Matching>,
    /// Left side.
    pub left: MetricExpr,
    /// Right side.
    pub right: MetricExpr,
}

/// Binary operators.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)] // the names are the operators
pub enum BinaryOp {
    Or,
    And,
    Unless,
    Equal,
    NotEqual,
    Greater,
    GreaterEqual,
    Less,
    LessEqual,
    Add,
    Sub,
    Mul,
    Div,
    Mod,
    Pow,
}

/// `on (a) group_left (b)`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Matching {
    /// `on` instead of `ignoring`.
    pub on: bool,
    /// Labels of `on` or `ignoring`.
    pub labels: Vec<String>,
    /// Which side may hold many, and labels taken from the one side.
    pub group: Option<(Side, Vec<String>)>,
}

/// A side of a binary operation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    /// `group_left`
    Left,
    /// `group_right`
    Right,
}

/// Arguments of `label_replace`.
#[derive(Debug, Clone, PartialEq)]
pub struct LabelReplace {
    /// What is changed.
    pub inner: MetricExpr,
    /// Label to set.
    pub destination: String,
    /// Its value, with `$1` for groups.
    pub replacement: String,
    /// Label to read.
    pub source: String,
    /// Regular expression, anchored at both ends.
    pub regex: String,
}
