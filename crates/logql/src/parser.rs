//! Tokens to [`Expr`], by recursive descent. Nesting and length are bounded, so that no query
//! text can use up the stack. Everything a stage needs (regular expressions, templates, paths)
//! is compiled once here, so that a parsed query cannot fail on them later.

use crate::{
    ParseError,
    ast::{
        Binary, BinaryOp, CompareOp, Conversion, Expr, Extraction, Grouping, LabelChoice, LabelFilter,
        LabelFormat, LabelReplace, LabelSource, LineNeedle, LineOp, LineStage, LogExpr, MatchOp, Matcher,
        Matching, MetricExpr, Quantity, RangeAggregation, RangeOp, Side, Stage, Unwrap, VectorAggregation,
        VectorOp,
    },
    lexer::{Token, error_at, tokenize},
    pipeline,
    units::{parse_bytes, parse_query_duration},
};

/// Longest query, in bytes.
const MAX_QUERY_BYTES: usize = 128 * 1024;

/// Deepest nesting of parentheses and function calls.
const MAX_DEPTH: usize = 64;

/// Most operators, predicates and stages of one query; chains of them nest to the left.
const MAX_NODES: usize = 512;

type Parsed<T> = Result<T, ParseError>;

/// Reads a query.
pub fn parse(query: &str) -> Parsed<Expr> {
    if query.len() > MAX_QUERY_BYTES {
        let message = format!("the query has {} bytes", query.len());
        return Err(error_at(query, 0, &message, &format!("a query may have {MAX_QUERY_BYTES} bytes")));
    }
    let tokens = tokenize(query)?;
    let mut parser = Parser { query, tokens, at: 0, depth: 0, nodes: 0 };
    let expr = parser.expr(1)?;
    if *parser.token() != Token::End {
        return Err(parser.expected("an operator, `|` or the end of the query", ""));
    }
    Ok(expr)
}

struct Parser<'a> {
    query: &'a str,
    tokens: Vec<(Token, usize)>,
    at: usize,
    depth: usize,
    nodes: usize,
}

/// Lines of a range aggregation.
struct LogRange {
    log: LogExpr,
    unwrap: Option<Unwrap>,
    /// Range and offset.
    range: Option<(i64, i64)>,
}

impl Parser<'_> {
    fn token(&self) -> &Token {
        &self.tokens[self.at].0
    }

    fn peek(&self, ahead: usize) -> &Token {
        &self.tokens[(self.at + ahead).min(self.tokens.len() - 1)].0
    }

    fn offset(&self) -> usize {
        self.tokens[self.at].1
    }

    fn advance(&mut self) {
        self.at = (self.at + 1).min(self.tokens.len() - 1);
    }

    fn error(&self, offset: usize, message: &str, hint: &str) -> ParseError {
        error_at(self.query, offset, message, hint)
    }

    fn expected(&self, what: &str, hint: &str) -> ParseError {
        self.error(self.offset(), &format!("expected {what}, found {}", self.token().describe()), hint)
    }

    fn is_sign(&self, sign: &str) -> bool {
        matches!(self.token(), Token::Sign(found) if *found == sign)
    }

    fn is_word(&self, word: &str) -> bool {
        matches!(self.token(), Token::Word(found) if found == word)
    }

    fn take_sign(&mut self, sign: &str) -> bool {
        let found = self.is_sign(sign);
        if found {
            self.advance();
        }
        found
    }

    fn take_word(&mut self, word: &str) -> bool {
        let found = self.is_word(word);
        if found {
            self.advance();
        }
        found
    }

    fn expect_sign(&mut self, sign: &str) -> Parsed<()> {
        if self.take_sign(sign) { Ok(()) } else { Err(self.expected(&format!("`{sign}`"), "")) }
    }

    fn expect_text(&mut self, what: &str) -> Parsed<String> {
        match self.token() {
            Token::Text(text) => {
                let text = text.clone();
                self.advance();
                Ok(text)
            }
            _ => Err(self.expected(what, "texts stand in double quotes or backticks")),
        }
    }

    fn expect_name(&mut self, what: &str) -> Parsed<String> {
        match self.token() {
            Token::Word(word) => {
                let word = word.clone();
                self.advance();
                Ok(word)
            }
            _ => Err(self.expected(what, "label names have letters, digits and _; dots are written as _")),
        }
    }

    fn enter(&mut self) -> Parsed<()> {
        self.depth += 1;
        if self.depth > MAX_DEPTH {
            let message = format!("the query nests deeper than {MAX_DEPTH} levels");
            return Err(self.error(self.offset(), &message, "remove parentheses"));
        }
        Ok(())
    }

    fn count_node(&mut self) -> Parsed<()> {
        self.nodes += 1;
        if self.nodes > MAX_NODES {
            let message = format!("the query has more than {MAX_NODES} operators, filters and stages");
            return Err(self.error(
                self.offset(),
                &message,
                "use a regular expression instead of many alternatives",
            ));
        }
        Ok(())
    }

    fn expr(&mut self, min_precedence: u8) -> Parsed<Expr> {
        self.enter()?;
        let mut left = self.primary()?;
        while let Some((op, precedence)) = self.binary_operator() {
            if precedence < min_precedence {
                break;
            }
            let offset = self.offset();
            let Expr::Metric(left_metric) = left else {
                return Err(self.error(
                    offset,
                    &format!("`{}` stands between log queries", op.name()),
                    "operators combine numbers; wrap the log query in count_over_time(... [5m])",
                ));
            };
            self.advance();
            self.count_node()?;
            let return_bool = self.is_word("bool");
            if return_bool && !is_comparison(op) {
                return Err(self.error(self.offset(), "`bool` fits only comparisons", "remove `bool`"));
            }
            self.take_word("bool");
            let matching = self.matching(op)?;
            let next = if op == BinaryOp::Pow { precedence } else { precedence + 1 };
            let right_offset = self.offset();
            let Expr::Metric(right) = self.expr(next)? else {
                return Err(self.error(
                    right_offset,
                    &format!("the right side of `{}` is a log query", op.name()),
                    "wrap it in count_over_time(... [5m])",
                ));
            };
            let set = matches!(op, BinaryOp::And | BinaryOp::Or | BinaryOp::Unless);
            if set && (is_scalar(&left_metric) || is_scalar(&right)) {
                let message = format!("`{}` needs a vector on both sides", op.name());
                return Err(self.error(offset, &message, "write vector(0) for a number"));
            }
            let binary = Binary { op, return_bool, matching, left: left_metric, right };
            left = Expr::Metric(MetricExpr::Binary(Box::new(binary)));
        }
        self.depth -= 1;
        Ok(left)
    }

    fn binary_operator(&self) -> Option<(BinaryOp, u8)> {
        Some(match self.token() {
            Token::Word(word) => match word.as_str() {
                "or" => (BinaryOp::Or, 1),
                "and" => (BinaryOp::And, 2),
                "unless" => (BinaryOp::Unless, 2),
                _ => return None,
            },
            Token::Sign(sign) => match *sign {
                "==" => (BinaryOp::Equal, 3),
                "!=" => (BinaryOp::NotEqual, 3),
                ">" => (BinaryOp::Greater, 3),
                ">=" => (BinaryOp::GreaterEqual, 3),
                "<" => (BinaryOp::Less, 3),
                "<=" => (BinaryOp::LessEqual, 3),
                "+" => (BinaryOp::Add, 4),
                "-" => (BinaryOp::Sub, 4),
                "*" => (BinaryOp::Mul, 5),
                "/" => (BinaryOp::Div, 5),
                "%" => (BinaryOp::Mod, 5),
                "^" => (BinaryOp::Pow, 6),
                _ => return None,
            },
            _ => return None,
        })
    }

    fn matching(&mut self, op: BinaryOp) -> Parsed<Option<Matching>> {
        let on = self.is_word("on");
        if !on && !self.is_word("ignoring") {
            return Ok(None);
        }
        self.advance();
        let labels = self.name_list()?;
        let group_offset = self.offset();
        let side = match self.token() {
            Token::Word(word) if word == "group_left" => Side::Left,
            Token::Word(word) if word == "group_right" => Side::Right,
            _ => return Ok(Some(Matching { on, labels, group: None })),
        };
        if matches!(op, BinaryOp::And | BinaryOp::Or | BinaryOp::Unless) {
            let message = format!("`{}` takes no group_left or group_right", op.name());
            return Err(self.error(group_offset, &message, "remove it"));
        }
        self.advance();
        let include = if self.is_sign("(") { self.name_list()? } else { Vec::new() };
        Ok(Some(Matching { on, labels, group: Some((side, include)) }))
    }

    fn name_list(&mut self) -> Parsed<Vec<String>> {
        self.expect_sign("(")?;
        let mut names = Vec::new();
        while !self.take_sign(")") {
            names.push(self.expect_name("a label name or `)`")?);
            if !self.take_sign(",") && !self.is_sign(")") {
                return Err(self.expected("`,` or `)`", ""));
            }
        }
        Ok(names)
    }

    fn primary(&mut self) -> Parsed<Expr> {
        match self.token().clone() {
            Token::Sign("{") => {
                let offset = self.offset();
                let LogRange { log, unwrap, range } = self.log_range()?;
                if unwrap.is_some() || range.is_some() {
                    let hint = "write, for example, count_over_time({app=\"a\"}[5m])";
                    return Err(self.error(offset, "a range or unwrap stands outside of a function", hint));
                }
                Ok(Expr::Log(log))
            }
            Token::Sign("(") => {
                self.advance();
                let inner = self.expr(1)?;
                self.expect_sign(")")?;
                Ok(inner)
            }
            Token::Sign("+" | "-") | Token::Number(_) => Ok(Expr::Metric(MetricExpr::Number(self.number()?))),
            Token::Word(word) => self.function(&word).map(Expr::Metric),
            _ => Err(self.expected("a stream selector such as {app=\"a\"} or a function", "")),
        }
    }

    /// A number with an optional sign.
    fn number(&mut self) -> Parsed<f64> {
        let negative = self.is_sign("-");
        if negative || self.is_sign("+") {
            self.advance();
        }
        let Token::Number(text) = self.token() else { return Err(self.expected("a number", "")) };
        let Some(value) = text.parse::<f64>().ok().filter(|value| value.is_finite()) else {
            return Err(self.expected("a number", "units fit only ranges and label filters"));
        };
        self.advance();
        Ok(if negative { -value } else { value })
    }

    fn function(&mut self, name: &str) -> Parsed<MetricExpr> {
        let start = self.offset();
        let open = matches!(self.peek(1), Token::Sign("("));
        let grouped = matches!(self.peek(1), Token::Word(word) if word == "by" || word == "without");
        if let Some(op) = VectorOp::ALL.into_iter().find(|op| op.name() == name)
            && (open || grouped)
        {
            self.advance();
            return self.vector_aggregation(op, start);
        }
        if let Some(op) = RangeOp::ALL.into_iter().find(|op| op.name() == name) {
            self.advance();
            return self.range_aggregation(op, start);
        }
        self.advance();
        match name {
            "label_replace" => {
                self.expect_sign("(")?;
                let inner = self.metric_argument()?;
                let mut texts = Vec::new();
                for what in ["the label to set", "its new value", "the label to read", "a regular expression"]
                {
                    self.expect_sign(",")?;
                    texts.push(self.expect_text(what)?);
                }
                self.expect_sign(")")?;
                let [destination, replacement, source, regex] =
                    texts.try_into().expect("four texts were read");
                pipeline::regex::anchored(&regex).map_err(|e| self.error(start, &e, ""))?;
                let replace = LabelReplace { inner, destination, replacement, source, regex };
                Ok(MetricExpr::LabelReplace(Box::new(replace)))
            }
            "vector" => {
                self.expect_sign("(")?;
                let value = self.number()?;
                self.expect_sign(")")?;
                Ok(MetricExpr::Constant(value))
            }
            "sum" | "avg" | "min" | "max" | "count" | "topk" | "bottomk" => Err(self.expected("`(`", "")),
            _ => Err(self.error(
                start,
                &format!("unknown function `{}`", crate::lexer::shorten(name)),
                "a query begins with {...}, a function such as rate(...) or an aggregation such as sum(...)",
            )),
        }
    }

    fn metric_argument(&mut self) -> Parsed<MetricExpr> {
        let offset = self.offset();
        match self.expr(1)? {
            Expr::Metric(metric) => Ok(metric),
            Expr::Log(_) => Err(self.error(
                offset,
                "expected an expression that gives numbers, found a log query",
                "wrap it in count_over_time(... [5m])",
            )),
        }
    }

    fn grouping(&mut self) -> Parsed<Option<Grouping>> {
        let without = self.is_word("without");
        if !without && !self.is_word("by") {
            return Ok(None);
        }
        self.advance();
        Ok(Some(Grouping { without, labels: self.name_list()? }))
    }

    fn vector_aggregation(&mut self, op: VectorOp, start: usize) -> Parsed<MetricExpr> {
        self.count_node()?;
        let mut grouping = self.grouping()?;
        self.expect_sign("(")?;
        let mut parameter = None;
        if matches!(op, VectorOp::Topk | VectorOp::Bottomk | VectorOp::ApproxTopk) {
            let offset = self.offset();
            let value = self.number()?;
            if value < 1.0 || value > f64::from(u32::MAX) || value.fract() != 0.0 {
                return Err(self.error(offset, &format!("`{}` needs a whole number from 1", op.name()), ""));
            }
            parameter = Some(value as usize);
            self.expect_sign(",")?;
        }
        let inner = self.metric_argument()?;
        self.expect_sign(")")?;
        if grouping.is_none() {
            grouping = self.grouping()?;
        }
        let plain = matches!(op, VectorOp::Sort | VectorOp::SortDesc | VectorOp::ApproxTopk);
        if plain && grouping.is_some() {
            return Err(self.error(
                start,
                &format!("`{}` takes no grouping", op.name()),
                "group the inner expression",
            ));
        }
        if is_scalar(&inner) {
            let message = format!("`{}` needs a vector, not a number", op.name());
            return Err(self.error(start, &message, "write vector(1) for a number"));
        }
        Ok(MetricExpr::Vector(Box::new(VectorAggregation { op, parameter, inner, grouping })))
    }

    fn range_aggregation(&mut self, op: RangeOp, start: usize) -> Parsed<MetricExpr> {
        self.count_node()?;
        self.expect_sign("(")?;
        let mut parameter = None;
        if op == RangeOp::QuantileOverTime {
            parameter = Some(self.number()?);
            self.expect_sign(",")?;
        }
        let LogRange { log, unwrap, range } = self.log_range()?;
        let Some((range, offset)) = range else {
            return Err(self.expected("a range such as [5m]", ""));
        };
        self.expect_sign(")")?;
        let grouping = self.grouping()?;
        let name = op.name();
        let (takes_lines, takes_values) = match op {
            RangeOp::Rate | RangeOp::AbsentOverTime => (true, true),
            RangeOp::CountOverTime | RangeOp::BytesRate | RangeOp::BytesOverTime => (true, false),
            _ => (false, true),
        };
        if unwrap.is_none() && !takes_lines {
            let hint = "add | unwrap <label> before the range";
            return Err(self.error(start, &format!("`{name}` needs values"), hint));
        }
        if unwrap.is_some() && !takes_values {
            return Err(self.error(
                start,
                &format!("`{name}` takes no unwrap"),
                "use sum_over_time for values",
            ));
        }
        let groups = !matches!(
            op,
            RangeOp::Rate
                | RangeOp::RateCounter
                | RangeOp::CountOverTime
                | RangeOp::BytesRate
                | RangeOp::BytesOverTime
                | RangeOp::AbsentOverTime
                | RangeOp::SumOverTime
        );
        if grouping.is_some() && !groups {
            let message = format!("`{name}` takes no grouping");
            return Err(self.error(start, &message, &format!("write sum by (...) ({name}(...))")));
        }
        let range = RangeAggregation { op, parameter, log, unwrap, range, offset, grouping };
        Ok(MetricExpr::Range(Box::new(range)))
    }

    fn log_range(&mut self) -> Parsed<LogRange> {
        if self.take_sign("(") {
            self.enter()?;
            let mut inner = self.log_range()?;
            self.expect_sign(")")?;
            self.depth -= 1;
            if inner.range.is_none() && self.is_sign("[") {
                inner.range = Some(self.range()?);
            }
            return Ok(inner);
        }
        let mut found = LogRange { log: self.selector()?, unwrap: None, range: None };
        loop {
            let offset = self.offset();
            if self.is_sign("[") && found.range.is_none() {
                found.range = Some(self.range()?);
                continue;
            }
            let line_op = match self.token() {
                Token::Sign("|=") => Some(LineOp::Contains),
                Token::Sign("!=") => Some(LineOp::NotContains),
                Token::Sign("|~") => Some(LineOp::Regex),
                Token::Sign("!~") => Some(LineOp::NotRegex),
                Token::Sign("|>") => Some(LineOp::Pattern),
                Token::Sign("!>") => Some(LineOp::NotPattern),
                Token::Sign("|") => None,
                _ => return Ok(found),
            };
            self.advance();
            self.count_node()?;
            let stage = match line_op {
                Some(op) => Stage::Line(self.line_stage(op)?),
                None if self.is_word("unwrap") && !self.next_compares() && found.unwrap.is_none() => {
                    self.advance();
                    found.unwrap = Some(self.unwrap()?);
                    continue;
                }
                None => self.stage()?,
            };
            pipeline::check(&stage).map_err(|message| self.error(offset, &message, ""))?;
            match (&mut found.unwrap, stage) {
                (None, stage) => found.log.stages.push(stage),
                (Some(unwrap), Stage::Label(filter)) => unwrap.filters.push(filter),
                (Some(_), _) => {
                    let hint = "put this stage before unwrap";
                    return Err(self.error(offset, "only label filters may follow unwrap", hint));
                }
            }
        }
    }

    fn selector(&mut self) -> Parsed<LogExpr> {
        if !self.take_sign("{") {
            return Err(self.expected("a stream selector such as {app=\"a\"}", ""));
        }
        let mut selector = Vec::new();
        while !self.take_sign("}") {
            self.count_node()?;
            let start = self.offset();
            let name = self.expect_name("a label name or `}`")?;
            let op = match self.token() {
                Token::Sign("=") => MatchOp::Equal,
                Token::Sign("!=") => MatchOp::NotEqual,
                Token::Sign("=~") => MatchOp::Regex,
                Token::Sign("!~") => MatchOp::NotRegex,
                _ => return Err(self.expected("one of = != =~ !~", "")),
            };
            self.advance();
            let value = self.expect_text("the label's value")?;
            let matcher = Matcher { name, op, value };
            pipeline::check_matcher(&matcher).map_err(|message| self.error(start, &message, ""))?;
            selector.push(matcher);
            if !self.take_sign(",") && !self.is_sign("}") {
                return Err(self.expected("`,` or `}`", ""));
            }
        }
        Ok(LogExpr { selector, stages: Vec::new() })
    }

    fn duration(&mut self) -> Parsed<i64> {
        let negative = self.take_sign("-");
        let Token::Number(text) = self.token() else {
            return Err(self.expected("a duration such as 5m", ""));
        };
        let Some(value) = parse_query_duration(text) else {
            return Err(self.expected("a duration such as 5m", "units are ns us ms s m h d w y"));
        };
        self.advance();
        Ok(if negative { -value } else { value })
    }

    fn range(&mut self) -> Parsed<(i64, i64)> {
        self.expect_sign("[")?;
        let offset = self.offset();
        let range = self.duration()?;
        if range <= 0 {
            return Err(self.error(offset, "the range is not positive", "write, for example, [5m]"));
        }
        self.expect_sign("]")?;
        let offset = if self.take_word("offset") { self.duration()? } else { 0 };
        Ok((range, offset))
    }

    fn line_stage(&mut self, op: LineOp) -> Parsed<LineStage> {
        let mut any = Vec::new();
        loop {
            if self.is_word("ip") && matches!(self.peek(1), Token::Sign("(")) {
                if !matches!(op, LineOp::Contains | LineOp::NotContains) {
                    return Err(self.error(self.offset(), "ip() fits only |= and !=", ""));
                }
                any.push(LineNeedle::Ip(self.ip()?));
            } else {
                any.push(LineNeedle::Text(self.expect_text("the text to look for")?));
            }
            self.count_node()?;
            let more = self.is_word("or")
                && match self.peek(1) {
                    Token::Text(_) => true,
                    Token::Word(word) => word == "ip",
                    _ => false,
                };
            if !more {
                return Ok(LineStage { op, any });
            }
            self.advance();
        }
    }

    /// `ip("...")`, with the word at hand.
    fn ip(&mut self) -> Parsed<String> {
        self.advance();
        self.expect_sign("(")?;
        let pattern = self.expect_text("an address, a range or a CIDR")?;
        self.expect_sign(")")?;
        Ok(pattern)
    }

    fn unwrap(&mut self) -> Parsed<Unwrap> {
        let word = self.expect_name("the label to unwrap")?;
        if !self.is_sign("(") {
            return Ok(Unwrap { conversion: Conversion::Number, label: word, filters: Vec::new() });
        }
        let conversion = match word.as_str() {
            "duration" => Conversion::Duration,
            "duration_seconds" => Conversion::DurationSeconds,
            "bytes" => Conversion::Bytes,
            _ => {
                let hint = "conversions are duration(), duration_seconds() and bytes()";
                return Err(self.error(self.offset(), &format!("unknown conversion `{word}`"), hint));
            }
        };
        self.advance();
        let label = self.expect_name("the label to unwrap")?;
        self.expect_sign(")")?;
        Ok(Unwrap { conversion, label, filters: Vec::new() })
    }

    /// Whether the word at hand is compared, so that it is a label and no stage.
    fn next_compares(&self) -> bool {
        matches!(self.peek(1), Token::Sign("=" | "==" | "!=" | "=~" | "!~" | ">" | ">=" | "<" | "<="))
    }

    /// What follows `|`.
    fn stage(&mut self) -> Parsed<Stage> {
        let Token::Word(word) = self.token().clone() else {
            return if self.is_sign("(") {
                self.label_filter().map(Stage::Label)
            } else {
                Err(self.expected("a stage such as json, logfmt or a label filter", ""))
            };
        };
        // `| line_format != ...` cannot be meant; `| json != "x"` is a parser and a line filter.
        let parser = matches!(word.as_str(), "json" | "logfmt" | "unpack" | "decolorize");
        let line_filter_next = matches!(self.peek(1), Token::Sign("!=" | "!~"));
        if self.next_compares() && !(parser && line_filter_next) {
            return self.label_filter().map(Stage::Label);
        }
        self.advance();
        Ok(match word.as_str() {
            "json" => Stage::Json(self.extractions()?),
            "logfmt" => {
                let (mut strict, mut keep_empty) = (false, false);
                while self.take_sign("--") {
                    match (self.expect_name("strict or keep-empty")?.as_str(), self.is_sign("-")) {
                        ("strict", _) => strict = true,
                        ("keep", true) if matches!(self.peek(1), Token::Word(word) if word == "empty") => {
                            self.advance();
                            self.advance();
                            keep_empty = true;
                        }
                        _ => {
                            let hint = "flags of logfmt are --strict and --keep-empty";
                            return Err(self.error(self.offset(), "unknown flag", hint));
                        }
                    }
                }
                Stage::Logfmt { strict, keep_empty, extractions: self.extractions()? }
            }
            "regexp" => Stage::Regexp(self.expect_text("a regular expression")?),
            "pattern" => Stage::Pattern(self.expect_text("a pattern such as \"<a> - <b>\"")?),
            "unpack" => Stage::Unpack,
            "decolorize" => Stage::Decolorize,
            "line_format" => Stage::LineFormat(self.expect_text("a template")?),
            "label_format" => Stage::LabelFormat(self.label_formats()?),
            "keep" => Stage::Keep(self.label_choices()?),
            "drop" => Stage::Drop(self.label_choices()?),
            "distinct" => {
                let mut names = vec![self.expect_name("a label name")?];
                while self.take_sign(",") {
                    names.push(self.expect_name("a label name")?);
                }
                Stage::Distinct(names)
            }
            "unwrap" => {
                return Err(self.error(
                    self.offset(),
                    "unwrap stands twice",
                    "a range has one value per line",
                ));
            }
            _ => {
                let hint = format!(
                    "compare a label, as in | {word}=\"...\", or use json, logfmt, pattern, regexp, line_format, label_format, keep, drop"
                );
                return Err(
                    self.expected(&format!("a comparison after `{}`", crate::lexer::shorten(&word)), &hint)
                );
            }
        })
    }

    fn extractions(&mut self) -> Parsed<Vec<Extraction>> {
        let mut found = Vec::new();
        while let Token::Word(_) = self.token() {
            self.count_node()?;
            let label = self.expect_name("a label name")?;
            let expression =
                if self.take_sign("=") { self.expect_text("an expression")? } else { label.clone() };
            found.push(Extraction { label, expression });
            if !self.take_sign(",") {
                break;
            }
            if !matches!(self.token(), Token::Word(_)) {
                return Err(self.expected("a label name", ""));
            }
        }
        Ok(found)
    }

    fn label_formats(&mut self) -> Parsed<Vec<LabelFormat>> {
        let mut found: Vec<LabelFormat> = Vec::new();
        loop {
            self.count_node()?;
            let offset = self.offset();
            let name = self.expect_name("the label to set")?;
            self.expect_sign("=")?;
            let value = match self.token() {
                Token::Text(_) => LabelSource::Template(self.expect_text("a template")?),
                _ => LabelSource::Rename(self.expect_name("a label name or a template")?),
            };
            if found.iter().any(|format| format.name == name) {
                let hint = "set it a second time in a second label_format";
                return Err(self.error(offset, &format!("label_format sets `{name}` twice"), hint));
            }
            found.push(LabelFormat { name, value });
            if !self.take_sign(",") {
                return Ok(found);
            }
        }
    }

    fn label_choices(&mut self) -> Parsed<Vec<LabelChoice>> {
        let mut found = Vec::new();
        loop {
            self.count_node()?;
            let name = self.expect_name("a label name")?;
            // `| drop a != "x"`: as in Loki, the comparison belongs to the label.
            let op = match self.token() {
                Token::Sign("=") => Some(MatchOp::Equal),
                Token::Sign("!=") => Some(MatchOp::NotEqual),
                Token::Sign("=~") => Some(MatchOp::Regex),
                Token::Sign("!~") => Some(MatchOp::NotRegex),
                _ => None,
            };
            let value = match op {
                Some(op) => {
                    self.advance();
                    Some((op, self.expect_text("the label's value")?))
                }
                None => None,
            };
            found.push(LabelChoice { name, value });
            if !self.take_sign(",") {
                return Ok(found);
            }
        }
    }

    fn label_filter(&mut self) -> Parsed<LabelFilter> {
        self.enter()?;
        let mut left = self.label_filter_and()?;
        while self.take_word("or") {
            left = LabelFilter::Or(Box::new(left), Box::new(self.label_filter_and()?));
        }
        self.depth -= 1;
        Ok(left)
    }

    fn label_filter_and(&mut self) -> Parsed<LabelFilter> {
        let mut left = self.predicate()?;
        loop {
            let spelled = self.take_word("and") || self.take_sign(",");
            let implied = self.is_sign("(")
                || (matches!(self.token(), Token::Word(word) if word != "or") && self.next_compares());
            if !spelled && !implied {
                return Ok(left);
            }
            left = LabelFilter::And(Box::new(left), Box::new(self.predicate()?));
        }
    }

    fn predicate(&mut self) -> Parsed<LabelFilter> {
        self.count_node()?;
        if self.take_sign("(") {
            let inner = self.label_filter()?;
            self.expect_sign(")")?;
            return Ok(inner);
        }
        let name = self.expect_name("a label name or `(`")?;
        let operator_offset = self.offset();
        let Token::Sign(sign) = *self.token() else {
            return Err(self.expected("one of = != =~ !~ == > >= < <=", ""));
        };
        let match_op = match sign {
            "=" => Some(MatchOp::Equal),
            "!=" => Some(MatchOp::NotEqual),
            "=~" => Some(MatchOp::Regex),
            "!~" => Some(MatchOp::NotRegex),
            _ => None,
        };
        let compare = match sign {
            "=" | "==" => Some(CompareOp::Equal),
            "!=" => Some(CompareOp::NotEqual),
            ">" => Some(CompareOp::Greater),
            ">=" => Some(CompareOp::GreaterEqual),
            "<" => Some(CompareOp::Less),
            "<=" => Some(CompareOp::LessEqual),
            _ => None,
        };
        if match_op.is_none() && compare.is_none() {
            return Err(self.expected("one of = != =~ !~ == > >= < <=", ""));
        }
        self.advance();
        match self.token().clone() {
            Token::Text(value) => {
                let Some(op) = match_op else {
                    let hint = "write a number without quotes, or compare texts with = != =~ !~";
                    return Err(self.error(
                        operator_offset,
                        &format!("`{sign}` does not compare texts"),
                        hint,
                    ));
                };
                self.advance();
                Ok(LabelFilter::Text(Matcher { name, op, value }))
            }
            Token::Word(word) if word == "ip" => {
                if !matches!(sign, "=" | "!=") {
                    return Err(self.error(operator_offset, "ip() fits only = and !=", ""));
                }
                Ok(LabelFilter::Ip { name, negated: sign == "!=", pattern: self.ip()? })
            }
            _ => {
                let Some(op) = compare else {
                    return Err(self.expected("a regular expression in quotes", ""));
                };
                Ok(LabelFilter::Number { name, op, value: self.quantity()? })
            }
        }
    }

    fn quantity(&mut self) -> Parsed<Quantity> {
        let negative = self.take_sign("-");
        let hint = "write a number, a duration such as 10s, a size such as 20MB or a text in quotes";
        let Token::Number(text) = self.token() else { return Err(self.expected("a value", hint)) };
        let sign = if negative { -1.0 } else { 1.0 };
        let value = if let Some(number) = text.parse::<f64>().ok().filter(|number| number.is_finite()) {
            Quantity::Number(sign * number)
        } else if let Some(duration) = parse_query_duration(text) {
            Quantity::Duration(if negative { -duration } else { duration })
        } else if let Some(bytes) = parse_bytes(text).filter(|_| !negative) {
            Quantity::Bytes(bytes)
        } else {
            return Err(self.expected("a value", hint));
        };
        self.advance();
        Ok(value)
    }
}

fn is_comparison(op: BinaryOp) -> bool {
    matches!(
        op,
        BinaryOp::Equal
            | BinaryOp::NotEqual
            | BinaryOp::Greater
            | BinaryOp::GreaterEqual
            | BinaryOp::Less
            | BinaryOp::LessEqual
    )
}

/// Whether the expression gives one number without labels.
pub fn is_scalar(expr: &MetricExpr) -> bool {
    match expr {
        MetricExpr::Number(_) => true,
        MetricExpr::Binary(binary) => is_scalar(&binary.left) && is_scalar(&binary.right),
        _ => false,
    }
}
