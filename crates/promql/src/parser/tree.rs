//! Tokens into a tree.

use super::{
    AggregateOp, At, BinaryOp, Cardinality, Duration, Edges, Expr, Matching, ParseError, Pos, VectorSelector,
    functions::function,
    lexer::{Kind, Token, tokens},
};
use crate::{
    format::quote,
    labels::{Labels, METRIC_NAME, MatchOp, Matcher},
};

/// How deep a tree may be, counting the operators of a chain such as `a + b + c`. Every pass over it calls
/// itself that often, and threads have 2 MiB of stack.
const MAX_DEPTH: usize = 256;
/// What a parenthesis or call counts for: parsing one takes several calls, an operator of a chain none.
const NESTING: usize = 3;

pub(super) fn parse_expr(query: &str) -> Result<Expr, ParseError> {
    let mut parser = Parser { query, tokens: tokens(query)?, at: 0, depth: 0 };
    if parser.peek() == &Kind::End {
        return parser.fail(0, "no expression found in input");
    }
    let expr = parser.binary(0)?;
    if parser.peek() != &Kind::End {
        return parser.unexpected("", "");
    }
    Ok(expr)
}

pub(super) struct Parser<'a> {
    pub(super) query: &'a str,
    tokens: Vec<Token>,
    at: usize,
    pub(super) depth: usize,
}

type Parsed<T> = Result<T, ParseError>;

impl Parser<'_> {
    pub(super) fn peek(&self) -> &Kind {
        &self.tokens[self.at].kind
    }

    pub(super) fn pos(&self) -> Pos {
        self.tokens[self.at].pos
    }

    fn text(&self) -> &str {
        let token = &self.tokens[self.at];
        &self.query[token.pos..token.end]
    }

    pub(super) fn advance(&mut self) {
        if self.at + 1 < self.tokens.len() {
            self.at += 1;
        }
    }

    pub(super) fn fail<T>(&self, pos: Pos, message: impl Into<String>) -> Parsed<T> {
        Err(ParseError::new(self.query, pos, message))
    }

    pub(super) fn unexpected<T>(&self, place: &str, expected: &str) -> Parsed<T> {
        let what = match self.peek() {
            Kind::End => "end of input".to_owned(),
            Kind::Name if keyword(&self.text().to_ascii_lowercase()) => format!("<{}>", self.text()),
            Kind::Name => format!("identifier {}", quote(self.text())),
            Kind::Number(_) => format!("number {}", quote(self.text())),
            Kind::Duration(_) => format!("duration {}", quote(self.text())),
            Kind::Text(_) => format!("string {}", self.text()),
            Kind::Punct(punct) => quote(punct),
        };
        let place = if place.is_empty() { String::new() } else { format!(" in {place}") };
        let expected = if expected.is_empty() { String::new() } else { format!(", expected {expected}") };
        self.fail(self.pos(), format!("unexpected {what}{place}{expected}"))
    }

    pub(super) fn is(&self, punct: &str) -> bool {
        matches!(self.peek(), Kind::Punct(found) if *found == punct)
    }

    pub(super) fn accept(&mut self, punct: &str) -> bool {
        let found = self.is(punct);
        if found {
            self.advance();
        }
        found
    }

    pub(super) fn expect(&mut self, punct: &str, place: &str) -> Parsed<()> {
        if self.accept(punct) { Ok(()) } else { self.unexpected(place, &quote(punct)) }
    }

    /// A name, lower case, if one comes.
    pub(super) fn word(&self) -> Option<String> {
        (self.peek() == &Kind::Name).then(|| self.text().to_ascii_lowercase())
    }

    fn accept_word(&mut self, word: &str) -> bool {
        let found = self.word().is_some_and(|found| found == word);
        if found {
            self.advance();
        }
        found
    }

    fn next_is(&self, punct: &str) -> bool {
        matches!(self.tokens.get(self.at + 1), Some(Token { kind: Kind::Punct(found), .. }) if *found == punct)
    }

    fn binary_op(&self) -> Option<(BinaryOp, u8)> {
        let op = match self.peek() {
            Kind::Punct(punct) => match *punct {
                "+" => BinaryOp::Add,
                "-" => BinaryOp::Sub,
                "*" => BinaryOp::Mul,
                "/" => BinaryOp::Div,
                "%" => BinaryOp::Mod,
                "^" => BinaryOp::Pow,
                "==" => BinaryOp::Eq,
                "!=" => BinaryOp::Ne,
                "<" => BinaryOp::Lt,
                "<=" => BinaryOp::Le,
                ">" => BinaryOp::Gt,
                ">=" => BinaryOp::Ge,
                "</" => BinaryOp::TrimUpper,
                ">/" => BinaryOp::TrimLower,
                _ => return None,
            },
            Kind::Name => match self.word()?.as_str() {
                "and" => BinaryOp::And,
                "or" => BinaryOp::Or,
                "unless" => BinaryOp::Unless,
                "atan2" => BinaryOp::Atan2,
                _ => return None,
            },
            _ => return None,
        };
        let strength = match op {
            BinaryOp::Or => 1,
            BinaryOp::And | BinaryOp::Unless => 2,
            BinaryOp::Add | BinaryOp::Sub => 4,
            BinaryOp::Mul | BinaryOp::Div | BinaryOp::Mod | BinaryOp::Atan2 => 5,
            BinaryOp::Pow => 6,
            _ => 3,
        };
        Some((op, strength))
    }

    fn binary(&mut self, weakest: u8) -> Parsed<Expr> {
        let outer = self.depth;
        self.deeper(NESTING)?;
        let mut left = self.unary()?;
        while let Some((op, strength)) = self.binary_op().filter(|(_, strength)| *strength > weakest) {
            let op_pos = self.pos();
            self.deeper(1)?;
            self.advance();
            let (matching, return_bool) = self.modifiers()?;
            let right = self.binary(if op == BinaryOp::Pow { strength - 1 } else { strength })?;
            let (left_side, right) = (Box::new(left), Box::new(right));
            left = Expr::Binary { op, left: left_side, right, matching, return_bool, op_pos };
        }
        self.depth = outer;
        Ok(left)
    }

    /// Counts levels of the tree.
    pub(super) fn deeper(&mut self, levels: usize) -> Parsed<()> {
        self.depth += levels;
        if self.depth > MAX_DEPTH {
            return self.fail(self.pos(), format!("expression is nested deeper than {MAX_DEPTH} levels"));
        }
        Ok(())
    }

    fn modifiers(&mut self) -> Parsed<(Matching, bool)> {
        let mut matching = Matching::default();
        let return_bool = self.accept_word("bool");
        let on = self.word().is_some_and(|word| word == "on");
        if self.next_is("(") && (on || self.word().is_some_and(|word| word == "ignoring")) {
            self.advance();
            matching.on = on;
            matching.labels = self.grouping()?;
            for (word, cardinality) in
                [("group_left", Cardinality::ManyToOne), ("group_right", Cardinality::OneToMany)]
            {
                if self.accept_word(word) {
                    matching.cardinality = cardinality;
                    if self.is("(") {
                        matching.include = self.grouping()?;
                    }
                    break;
                }
            }
        }
        while self.next_is("(") {
            let Some(word) = self.word() else { break };
            let (left, right) = match word.as_str() {
                "fill" => (true, true),
                "fill_left" => (true, false),
                "fill_right" => (false, true),
                _ => break,
            };
            if left && matching.fill_left.is_some() || right && matching.fill_right.is_some() {
                return self.unexpected("", "");
            }
            self.advance();
            self.advance();
            let minus = self.is("-");
            if minus || self.is("+") {
                self.advance();
            }
            let (Kind::Number(_) | Kind::Duration(_) | Kind::Name) = self.peek() else {
                return self.unexpected("fill value", "number");
            };
            let Some(value) = self.literal() else {
                return self.unexpected("fill value", "number");
            };
            self.expect(")", "fill value")?;
            let value = if minus { -value } else { value };
            if left {
                matching.fill_left = Some(value);
            }
            if right {
                matching.fill_right = Some(value);
            }
        }
        Ok((matching, return_bool))
    }

    /// A number or duration without sign, if one comes.
    pub(super) fn literal(&mut self) -> Option<f64> {
        let value = match self.peek() {
            Kind::Number(value) | Kind::Duration(value) => *value,
            Kind::Name => match self.word()?.as_str() {
                "inf" => f64::INFINITY,
                "nan" => f64::NAN,
                _ => return None,
            },
            _ => return None,
        };
        self.advance();
        Some(value)
    }

    fn unary(&mut self) -> Parsed<Expr> {
        let pos = self.pos();
        let minus = self.is("-");
        if minus || self.is("+") {
            self.advance();
            // A sign binds as `*` does: only `^` comes before it.
            let expr = self.binary(5)?;
            return Ok(match expr {
                Expr::Number { value, duration, .. } => {
                    Expr::Number { value: if minus { -value } else { value }, duration, pos }
                }
                expr => Expr::Unary { minus, expr: Box::new(expr), pos },
            });
        }
        let expr = self.primary()?;
        self.postfix(expr)
    }

    fn primary(&mut self) -> Parsed<Expr> {
        let pos = self.pos();
        if let Kind::Text(value) = self.peek() {
            let value = value.clone();
            self.advance();
            return Ok(Expr::String { value, pos });
        }
        let duration = matches!(self.peek(), Kind::Duration(_));
        if let Some(value) = self.literal() {
            return Ok(Expr::Number { value, duration, pos });
        }
        if self.accept("(") {
            let expr = self.binary(0)?;
            if !self.is(")") {
                return self.unexpected("", "");
            }
            self.advance();
            return Ok(Expr::Paren { expr: Box::new(expr), pos });
        }
        if self.is("{") {
            return self.selector(None, pos);
        }
        if self.peek() != &Kind::Name {
            return self.unexpected("", "");
        }
        let name = self.text().to_owned();
        let word = name.to_ascii_lowercase();
        if let Some(op) = aggregate_op(&word) {
            let next = self.tokens.get(self.at + 1).map(|token| &self.query[token.pos..token.end]);
            let next = next.unwrap_or("").to_ascii_lowercase();
            if matches!(next.as_str(), "(" | "by" | "without") {
                self.advance();
                return self.aggregate(op, pos);
            }
        }
        if self.next_is("(") {
            self.advance();
            let Some(function) = function(&name).or_else(|| function(&word).filter(|_| query_context(&word)))
            else {
                return self.fail(pos, format!("unknown function with name {}", quote(&name)));
            };
            let args = self.arguments()?;
            return Ok(Expr::Call { function, args, pos });
        }
        if matches!(word.as_str(), "on" | "ignoring" | "group_left" | "group_right" | "atan2") {
            return self.unexpected("", "");
        }
        self.advance();
        self.selector(Some(name), pos)
    }

    fn arguments(&mut self) -> Parsed<Vec<Expr>> {
        self.expect("(", "function call")?;
        let mut args = Vec::new();
        while !self.accept(")") {
            args.push(self.binary(0)?);
            let comma = self.pos();
            if self.accept(",") {
                if self.is(")") {
                    return self.fail(comma, "trailing commas not allowed in function call args");
                }
            } else if !self.is(")") {
                return self.unexpected("", "");
            }
        }
        Ok(args)
    }

    fn aggregate(&mut self, op: AggregateOp, pos: Pos) -> Parsed<Expr> {
        let mut grouping = self.aggregate_modifier()?;
        let mut args = self.arguments()?;
        if grouping.is_none() {
            grouping = self.aggregate_modifier()?;
        }
        let (grouping, without) = grouping.unwrap_or_default();
        if args.is_empty() {
            return self.fail(pos, "no arguments for aggregate expression provided");
        }
        let wanted = 1 + usize::from(op.takes_parameter());
        if args.len() != wanted {
            let got = args.len();
            return self.fail(
                pos,
                format!("wrong number of arguments for aggregate expression provided, expected {wanted}, got {got}"),
            );
        }
        let expr = Box::new(args.remove(wanted - 1));
        let parameter = args.pop().map(Box::new);
        Ok(Expr::Aggregate { op, expr, parameter, grouping, without, pos })
    }

    fn aggregate_modifier(&mut self) -> Parsed<Option<(Vec<String>, bool)>> {
        let without = match self.word().as_deref() {
            Some("by") => false,
            Some("without") => true,
            _ => return Ok(None),
        };
        self.advance();
        Ok(Some((self.grouping()?, without)))
    }

    fn grouping(&mut self) -> Parsed<Vec<String>> {
        let place = "grouping opts";
        self.expect("(", place)?;
        let mut labels = Vec::new();
        while !self.accept(")") {
            let label = match self.peek() {
                Kind::Name => self.text().to_owned(),
                Kind::Text(text) => text.clone(),
                _ => return self.unexpected(place, "label"),
            };
            if !is_label_name(&label) {
                return self.fail(self.pos(), format!("invalid label name for grouping: {}", quote(&label)));
            }
            labels.push(label);
            self.advance();
            if !self.accept(",") && !self.is(")") {
                return self.unexpected(place, "\",\" or \")\"");
            }
        }
        Ok(labels)
    }

    fn selector(&mut self, name: Option<String>, pos: Pos) -> Parsed<Expr> {
        let mut matchers = Vec::new();
        if self.accept("{") {
            while !self.accept("}") {
                matchers.push(self.matcher()?);
                if !self.accept(",") && !self.is("}") {
                    return self.unexpected("label matching", "\",\" or \"}\"");
                }
            }
        }
        if let Some(name) = &name {
            if let Some(twice) = matchers.iter().find(|matcher| matcher.name == METRIC_NAME) {
                let (name, other) = (quote(name), quote(&twice.value));
                return self.fail(pos, format!("metric name must not be set twice: {name} or {other}"));
            }
            matchers.push(self.new_matcher(pos, MatchOp::Equal, METRIC_NAME, name)?);
        }
        let (offset, at, edges) = (None, None, Edges::Plain);
        Ok(Expr::Vector(VectorSelector { name, matchers, offset, at, edges, histogram_stats: false, pos }))
    }

    fn new_matcher(&self, pos: Pos, op: MatchOp, name: &str, value: &str) -> Parsed<Matcher> {
        Matcher::new(op, name, value).map_err(|error| ParseError::new(self.query, pos, error))
    }

    fn matcher(&mut self) -> Parsed<Matcher> {
        let place = "label matching";
        let pos = self.pos();
        let (name, quoted) = match self.peek() {
            Kind::Name => (self.text().to_owned(), false),
            Kind::Text(text) => (text.clone(), true),
            _ => return self.unexpected(place, "identifier or \"}\""),
        };
        self.advance();
        let op = match self.peek() {
            Kind::Punct("=") => MatchOp::Equal,
            Kind::Punct("!=") => MatchOp::NotEqual,
            Kind::Punct("=~") => MatchOp::Regex,
            Kind::Punct("!~") => MatchOp::NotRegex,
            _ if quoted => return self.new_matcher(pos, MatchOp::Equal, METRIC_NAME, &name),
            _ => return self.unexpected(place, "label matching operator"),
        };
        self.advance();
        let Kind::Text(value) = self.peek() else {
            return self.unexpected(place, "string");
        };
        let matcher = self.new_matcher(pos, op, &name, value)?;
        self.advance();
        Ok(matcher)
    }

    fn postfix(&mut self, mut expr: Expr) -> Parsed<Expr> {
        loop {
            if self.is("[") {
                expr = self.range(expr)?;
            } else if self.is("@") {
                self.advance();
                let at = self.at_time(&expr)?;
                self.set_at(&mut expr, at)?;
            } else {
                match self.word().as_deref() {
                    Some("offset") => {
                        self.advance();
                        let offset = self.offset_duration()?;
                        self.set_offset(&mut expr, offset)?;
                    }
                    Some("anchored") => {
                        self.advance();
                        self.set_edges(&mut expr, Edges::Anchored)?;
                    }
                    Some("smoothed") => {
                        self.advance();
                        self.set_edges(&mut expr, Edges::Smoothed)?;
                    }
                    _ => return Ok(expr),
                }
            }
        }
    }

    fn range(&mut self, expr: Expr) -> Parsed<Expr> {
        let bracket = self.pos();
        self.advance();
        let range = self.positive_duration("subquery or range selector")?;
        if self.accept(":") {
            let step = if self.is("]") { None } else { Some(self.positive_duration("subquery selector")?) };
            self.expect("]", "subquery selector")?;
            return Ok(Expr::Subquery { expr: Box::new(expr), range, step, offset: None, at: None });
        }
        if !self.accept("]") {
            return self.unexpected("subquery or range", "\":\" or \"]\"");
        }
        match expr {
            Expr::Vector(selector) => {
                if selector.offset.is_some() {
                    return self.fail(bracket, "no offset modifiers allowed before range");
                }
                if selector.at.is_some() {
                    return self.fail(bracket, "no @ modifiers allowed before range");
                }
                Ok(Expr::Matrix { selector, range })
            }
            _ => self.fail(bracket, "ranges only allowed for vector selectors"),
        }
    }

    fn at_time(&mut self, expr: &Expr) -> Parsed<At> {
        if let Some(word) = self.word().filter(|word| matches!(word.as_str(), "start" | "end")) {
            self.advance();
            self.expect("(", "@")?;
            self.expect(")", "@")?;
            return Ok(if word == "start" { At::Start } else { At::End });
        }
        let minus = self.is("-");
        if minus || self.is("+") {
            self.advance();
        }
        let Some(value) = self.literal() else {
            return self.unexpected("@", "timestamp");
        };
        let value = if minus { -value } else { value };
        if !value.is_finite() || value.abs() >= i64::MAX as f64 {
            let value = crate::format::float(value);
            return self.fail(expr.pos(), format!("timestamp out of bounds for @ modifier: {value}"));
        }
        Ok(At::Time((value * 1000.0).round() as i64))
    }

    fn set_at(&self, expr: &mut Expr, value: At) -> Parsed<()> {
        let pos = expr.pos();
        let (Expr::Vector(VectorSelector { at, .. })
        | Expr::Matrix { selector: VectorSelector { at, .. }, .. }
        | Expr::Subquery { at, .. }) = expr
        else {
            return self.fail(
                pos,
                "@ modifier must be preceded by an instant vector selector or range vector selector or a subquery",
            );
        };
        if at.replace(value).is_some() {
            return self.fail(pos, "@ <timestamp> may not be set multiple times");
        }
        Ok(())
    }

    fn set_offset(&self, expr: &mut Expr, value: Duration) -> Parsed<()> {
        let pos = expr.pos();
        let (Expr::Vector(VectorSelector { offset, .. })
        | Expr::Matrix { selector: VectorSelector { offset, .. }, .. }
        | Expr::Subquery { offset, .. }) = expr
        else {
            return self.fail(
                pos,
                "offset modifier must be preceded by an instant vector selector or range vector selector or a subquery",
            );
        };
        if offset.replace(value).is_some() {
            return self.fail(pos, "offset may not be set multiple times");
        }
        Ok(())
    }

    fn set_edges(&self, expr: &mut Expr, value: Edges) -> Parsed<()> {
        let pos = expr.pos();
        let name = if value == Edges::Anchored { "anchored" } else { "smoothed" };
        match expr {
            Expr::Vector(selector) | Expr::Matrix { selector, .. } => {
                if selector.edges != Edges::Plain && selector.edges != value {
                    return self.fail(pos, "anchored and smoothed modifiers cannot be used together");
                }
                selector.edges = value;
                Ok(())
            }
            Expr::Subquery { .. } => {
                self.fail(pos, format!("{name} modifier is not supported for subqueries"))
            }
            _ => self.fail(pos, format!("{name} modifier not implemented")),
        }
    }
}

/// Any text of whole characters is a label's name; what was not whole is marked by the replacement sign.
pub(crate) fn is_label_name(name: &str) -> bool {
    !name.is_empty() && !name.contains('\u{fffd}')
}

fn query_context(word: &str) -> bool {
    matches!(word, "start" | "end" | "step" | "range" | "min_of" | "max_of")
}

fn keyword(word: &str) -> bool {
    aggregate_op(word).is_some()
        || matches!(
            word,
            "and"
                | "or"
                | "unless"
                | "atan2"
                | "by"
                | "without"
                | "on"
                | "ignoring"
                | "group_left"
                | "group_right"
                | "bool"
                | "offset"
        )
}

fn aggregate_op(word: &str) -> Option<AggregateOp> {
    Some(match word {
        "sum" => AggregateOp::Sum,
        "avg" => AggregateOp::Avg,
        "min" => AggregateOp::Min,
        "max" => AggregateOp::Max,
        "count" => AggregateOp::Count,
        "group" => AggregateOp::Group,
        "stddev" => AggregateOp::Stddev,
        "stdvar" => AggregateOp::Stdvar,
        "topk" => AggregateOp::TopK,
        "bottomk" => AggregateOp::BottomK,
        "count_values" => AggregateOp::CountValues,
        "quantile" => AggregateOp::Quantile,
        "limitk" => AggregateOp::LimitK,
        "limit_ratio" => AggregateOp::LimitRatio,
        _ => return None,
    })
}

/// Parses a label set such as `{"metric.name", a="b"}`.
pub(crate) fn quoted_labels(text: &str) -> Result<Labels, String> {
    let error = |error: ParseError| error.to_string();
    let mut parser = Parser { query: text, tokens: tokens(text).map_err(error)?, at: 0, depth: 0 };
    parser.expect("{", "label set").map_err(error)?;
    let mut labels = Labels::default();
    while !parser.accept("}") {
        let matcher = parser.matcher().map_err(error)?;
        if matcher.op != MatchOp::Equal {
            return parser.unexpected("label set", "\"=\"").map_err(error);
        }
        labels = labels.with(&matcher.name, &matcher.value);
        if !parser.accept(",") && !parser.is("}") {
            return parser.unexpected("label set", "\",\" or \"}\"").map_err(error);
        }
    }
    Ok(labels)
}
