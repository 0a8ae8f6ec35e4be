//! The stages of a log query, run line by line.
//!
//! [`Pipeline`] owns every buffer that a stage needs, so that a line costs no allocation of its
//! own (templates with function calls excepted).

mod decolorize;
mod functions;
mod go_time;
mod ip;
mod json;
pub mod labels;
mod logfmt;
mod pattern;
pub mod regex;
mod template;

use std::collections::HashSet;

use ::regex::Regex;
use trine_schema::{LabelMatch, LabelMatcher, LineFilter};

use self::{
    ip::IpRange,
    json::{JsonScratch, PathStep},
    labels::{LEVEL, LabelSet, Wanted},
    logfmt::{Logfmt, LogfmtScratch},
    pattern::Pattern,
    template::{Context, Template},
};
use crate::{
    ast::{
        CompareOp, LabelChoice, LabelFilter, LabelSource, LineNeedle, LineOp, LineStage, MatchOp, Matcher,
        Quantity, Stage,
    },
    units::{parse_bytes, parse_float, parse_go_duration},
};

/// Value of `__error__` when a label filter cannot read its label.
const FILTER_ERROR: &str = "LabelFilterErr";
/// Value of `__error__` when a template fails.
const TEMPLATE_ERROR: &str = "TemplateFormatErr";

/// Most combinations that `distinct` remembers.
const MAX_DISTINCT: usize = 1_000_000;

/// A compiled text comparison.
#[derive(Debug, Clone)]
enum TextMatch {
    Equal(String),
    NotEqual(String),
    Regex(Regex),
    NotRegex(Regex),
}

impl TextMatch {
    fn new(op: MatchOp, value: &str) -> Result<Self, String> {
        Ok(match op {
            MatchOp::Equal => Self::Equal(value.to_owned()),
            MatchOp::NotEqual => Self::NotEqual(value.to_owned()),
            MatchOp::Regex => Self::Regex(regex::anchored(value)?),
            MatchOp::NotRegex => Self::NotRegex(regex::anchored(value)?),
        })
    }

    fn matches(&self, value: &str) -> bool {
        match self {
            Self::Equal(want) => value == want,
            Self::NotEqual(want) => value != want,
            Self::Regex(regex) => regex.is_match(value),
            Self::NotRegex(regex) => !regex.is_match(value),
        }
    }
}

/// The matcher as the store takes it.
pub fn label_matcher(matcher: &Matcher) -> Result<LabelMatcher, String> {
    let value = match TextMatch::new(matcher.op, &matcher.value)? {
        TextMatch::Equal(value) => LabelMatch::Equal(value),
        TextMatch::NotEqual(value) => LabelMatch::NotEqual(value),
        TextMatch::Regex(regex) => LabelMatch::Regex(regex),
        TextMatch::NotRegex(regex) => LabelMatch::NotRegex(regex),
    };
    Ok(LabelMatcher { name: matcher.name.clone(), value })
}

/// Whether a matcher compiles.
pub fn check_matcher(matcher: &Matcher) -> Result<(), String> {
    label_matcher(matcher).map(drop)
}

/// Whether a stage compiles.
pub fn check(stage: &Stage) -> Result<(), String> {
    Step::new(stage).map(drop)
}

/// Whether a text matcher of a filter holds for a value.
pub fn text_matches(matcher: &Matcher, value: &str) -> bool {
    TextMatch::new(matcher.op, &matcher.value).is_ok_and(|compiled| compiled.matches(value))
}

/// The filter that the store can apply, when the stage is a plain text or regex filter.
pub fn store_filter(stage: &LineStage) -> Option<LineFilter> {
    let texts: Vec<&str> = stage
        .any
        .iter()
        .map(|needle| match needle {
            LineNeedle::Text(text) => Some(text.as_str()),
            LineNeedle::Ip(_) => None,
        })
        .collect::<Option<_>>()?;
    match stage.op {
        LineOp::Contains | LineOp::NotContains => {
            let any = texts.iter().map(|text| trine_schema::Needle::Literal((*text).to_owned())).collect();
            Some(LineFilter { any, negated: stage.op == LineOp::NotContains })
        }
        LineOp::Regex | LineOp::NotRegex => regex::line_filter(&texts, stage.op == LineOp::NotRegex).ok(),
        LineOp::Pattern | LineOp::NotPattern => None,
    }
}

/// A text that every line passing the stage contains, for stages that the store cannot apply.
pub fn store_hint(stage: &LineStage) -> Option<LineFilter> {
    match (stage.op, stage.any.as_slice()) {
        (LineOp::Pattern, [LineNeedle::Text(text)]) => {
            let pattern = Pattern::filter(text).ok()?;
            let literal = pattern.longest_literal();
            (!literal.is_empty()).then(|| LineFilter::contains(literal))
        }
        _ => None,
    }
}

#[derive(Debug, Clone)]
enum LineNeedleMatch {
    Store(LineFilter),
    Pattern(Pattern),
    Ip(IpRange),
}

#[derive(Debug, Clone)]
enum Filter {
    And(Box<Filter>, Box<Filter>),
    Or(Box<Filter>, Box<Filter>),
    Text(String, TextMatch),
    Number(String, CompareOp, Quantity),
    Ip(String, bool, IpRange),
}

impl Filter {
    fn new(filter: &LabelFilter) -> Result<Self, String> {
        Ok(match filter {
            LabelFilter::And(left, right) => {
                Self::And(Box::new(Self::new(left)?), Box::new(Self::new(right)?))
            }
            LabelFilter::Or(left, right) => Self::Or(Box::new(Self::new(left)?), Box::new(Self::new(right)?)),
            LabelFilter::Text(matcher) => {
                Self::Text(matcher.name.clone(), TextMatch::new(matcher.op, &matcher.value)?)
            }
            LabelFilter::Number { name, op, value } => Self::Number(name.clone(), *op, *value),
            LabelFilter::Ip { name, negated, pattern } => {
                Self::Ip(name.clone(), *negated, IpRange::new(pattern)?)
            }
        })
    }

    fn matches(&self, labels: &mut LabelSet) -> bool {
        match self {
            Self::And(left, right) => left.matches(labels) && right.matches(labels),
            Self::Or(left, right) => left.matches(labels) || right.matches(labels),
            Self::Text(name, matcher) => matcher.matches(labels.get(name)),
            // A line with an error passes: only a text filter on __error__ removes it.
            _ if labels.has_error() => true,
            Self::Number(name, op, quantity) => {
                let value = labels.get(name);
                if value.is_empty() {
                    return false;
                }
                let ordering = match quantity {
                    Quantity::Number(want) => parse_float(value).map(|found| found.partial_cmp(want)),
                    Quantity::Duration(want) => parse_go_duration(value).map(|found| found.partial_cmp(want)),
                    Quantity::Bytes(want) => parse_bytes(value).map(|found| found.partial_cmp(want)),
                };
                let Some(ordering) = ordering else {
                    let details = format!("cannot read {value:?} of label {name} as {}", describe(*quantity));
                    labels.set_error(FILTER_ERROR, details);
                    return true;
                };
                // NaN compares to nothing.
                ordering.map_or(*op == CompareOp::NotEqual, |ordering| match op {
                    CompareOp::Equal => ordering.is_eq(),
                    CompareOp::NotEqual => ordering.is_ne(),
                    CompareOp::Greater => ordering.is_gt(),
                    CompareOp::GreaterEqual => ordering.is_ge(),
                    CompareOp::Less => ordering.is_lt(),
                    CompareOp::LessEqual => ordering.is_le(),
                })
            }
            Self::Ip(name, negated, range) => {
                range.matches_value(labels.get(name)).unwrap_or(false) != *negated
            }
        }
    }
}

fn describe(quantity: Quantity) -> &'static str {
    match quantity {
        Quantity::Number(_) => "a number",
        Quantity::Duration(_) => "a duration",
        Quantity::Bytes(_) => "a size",
    }
}

#[derive(Debug, Clone)]
enum Choice {
    Rename(String),
    Template(Template),
}

#[derive(Debug, Clone)]
enum Step {
    Line(Vec<LineNeedleMatch>, bool),
    Label(Filter),
    Json,
    JsonPaths(Vec<(String, Vec<PathStep>)>),
    Logfmt(Logfmt),
    Regexp(Regex, Vec<(usize, String)>),
    Pattern(Pattern),
    Unpack,
    Decolorize,
    LineFormat(Template),
    LabelFormat(Vec<(String, Choice)>),
    Keep(Vec<(String, Option<TextMatch>)>),
    Drop(Vec<(String, Option<TextMatch>)>),
    Distinct(Vec<String>),
}

impl Step {
    fn new(stage: &Stage) -> Result<Self, String> {
        let choices = |items: &[LabelChoice]| -> Result<Vec<_>, String> {
            let compiled = items.iter().map(|item| {
                let value = item.value.as_ref().map(|(op, value)| TextMatch::new(*op, value)).transpose()?;
                Ok((item.name.clone(), value))
            });
            compiled.collect()
        };
        Ok(match stage {
            Stage::Line(line) => {
                let negated = matches!(line.op, LineOp::NotContains | LineOp::NotRegex | LineOp::NotPattern);
                let mut any = Vec::new();
                for needle in &line.any {
                    any.push(match (needle, line.op) {
                        (LineNeedle::Ip(pattern), _) => LineNeedleMatch::Ip(IpRange::new(pattern)?),
                        (LineNeedle::Text(text), LineOp::Pattern | LineOp::NotPattern) => {
                            LineNeedleMatch::Pattern(Pattern::filter(text)?)
                        }
                        (LineNeedle::Text(text), LineOp::Regex | LineOp::NotRegex) => {
                            LineNeedleMatch::Store(regex::line_filter(&[text], false)?)
                        }
                        (LineNeedle::Text(text), _) => LineNeedleMatch::Store(LineFilter::contains(text)),
                    });
                }
                Self::Line(any, negated)
            }
            Stage::Label(filter) => Self::Label(Filter::new(filter)?),
            Stage::Json(items) if items.is_empty() => Self::Json,
            Stage::Json(items) => {
                let paths =
                    items.iter().map(|item| Ok((item.label.clone(), json::parse_path(&item.expression)?)));
                Self::JsonPaths(paths.collect::<Result<_, String>>()?)
            }
            Stage::Logfmt { strict, keep_empty, extractions } => Self::Logfmt(Logfmt {
                strict: *strict,
                keep_empty: *keep_empty,
                extractions: extractions
                    .iter()
                    .map(|item| (item.label.clone(), item.expression.clone()))
                    .collect(),
            }),
            Stage::Regexp(pattern) => {
                let regex = regex::plain(pattern)?;
                let names = regex.capture_names().enumerate();
                let names: Vec<_> = names.filter_map(|(i, name)| Some((i, name?.to_owned()))).collect();
                if names.is_empty() {
                    return Err("regexp needs a named group such as (?P<status>\\d+)".to_owned());
                }
                Self::Regexp(regex, names)
            }
            Stage::Pattern(pattern) => Self::Pattern(Pattern::parser(pattern)?),
            Stage::Unpack => Self::Unpack,
            Stage::Decolorize => Self::Decolorize,
            Stage::LineFormat(template) => Self::LineFormat(Template::new(template)?),
            Stage::LabelFormat(items) => {
                let formats = items.iter().map(|item| {
                    let choice = match &item.value {
                        LabelSource::Rename(from) => Choice::Rename(from.clone()),
                        LabelSource::Template(template) => Choice::Template(Template::new(template)?),
                    };
                    Ok((item.name.clone(), choice))
                });
                Self::LabelFormat(formats.collect::<Result<_, String>>()?)
            }
            Stage::Keep(items) => Self::Keep(choices(items)?),
            Stage::Drop(items) => Self::Drop(choices(items)?),
            Stage::Distinct(names) => Self::Distinct(names.clone()),
        })
    }
}

/// Whether the stage adds labels made from the line.
pub fn is_parser(stage: &Stage) -> bool {
    matches!(
        stage,
        Stage::Json(_) | Stage::Logfmt { .. } | Stage::Regexp(_) | Stage::Pattern(_) | Stage::Unpack
    )
}

/// Whether the stage may change the line.
pub fn rewrites_line(stage: &Stage) -> bool {
    matches!(stage, Stage::LineFormat(_) | Stage::Decolorize | Stage::Unpack)
}

/// Adds the names of labels whose values the stage reads.
pub fn collect_names(stage: &Stage, names: &mut Vec<String>) {
    match stage {
        Stage::Label(filter) => collect_filter_names(filter, names),
        Stage::LineFormat(template) => {
            if let Ok(template) = Template::new(template) {
                template.collect_fields(names);
            }
        }
        Stage::LabelFormat(items) => {
            for item in items {
                // The old value also decides whether a parser's label of that name is kept.
                names.push(item.name.clone());
                match &item.value {
                    LabelSource::Rename(from) => names.push(from.clone()),
                    LabelSource::Template(template) => {
                        if let Ok(template) = Template::new(template) {
                            template.collect_fields(names);
                        }
                    }
                }
            }
        }
        Stage::Keep(items) | Stage::Drop(items) => names.extend(items.iter().map(|item| item.name.clone())),
        Stage::Distinct(labels) => names.extend(labels.iter().cloned()),
        _ => {}
    }
}

/// Adds the names of labels that a filter reads.
pub fn collect_filter_names(filter: &LabelFilter, names: &mut Vec<String>) {
    match filter {
        LabelFilter::And(left, right) | LabelFilter::Or(left, right) => {
            collect_filter_names(left, names);
            collect_filter_names(right, names);
        }
        LabelFilter::Text(matcher) => names.push(matcher.name.clone()),
        LabelFilter::Number { name, .. } | LabelFilter::Ip { name, .. } => names.push(name.clone()),
    }
}

/// Compiled stages and the state of the line they work on.
#[derive(Debug, Default)]
pub struct Pipeline {
    steps: Vec<Step>,
    /// The line's labels; the caller fills in stream labels and metadata before a run.
    pub labels: LabelSet,
    line: String,
    spare: String,
    rewritten: bool,
    json: JsonScratch,
    logfmt: LogfmtScratch,
    value: String,
    seen: HashSet<String>,
}

impl Pipeline {
    /// Compiles stages; fails only on stages that [`crate::parse`] would refuse.
    pub fn new(stages: &[Stage]) -> Result<Self, String> {
        let steps = stages.iter().map(Step::new).collect::<Result<_, _>>()?;
        Ok(Self { steps, ..Self::default() })
    }

    /// The line after the run.
    pub fn line<'a>(&'a self, original: &'a str) -> &'a str {
        if self.rewritten { &self.line } else { original }
    }

    /// Runs the stages; false when a filter removed the line. Parsers need deliver only `wanted`.
    pub fn run(&mut self, original: &str, timestamp: i64, wanted: &Wanted) -> bool {
        self.rewritten = false;
        for at in 0..self.steps.len() {
            if !self.step(at, original, timestamp, wanted) {
                return false;
            }
        }
        true
    }

    fn step(&mut self, at: usize, original: &str, timestamp: i64, wanted: &Wanted) -> bool {
        let line: &str = if self.rewritten { &self.line } else { original };
        let labels = &mut self.labels;
        match &self.steps[at] {
            Step::Line(any, negated) => {
                let found = any.iter().any(|needle| match needle {
                    LineNeedleMatch::Store(filter) => filter.matches(line),
                    LineNeedleMatch::Pattern(pattern) => pattern.matches(line),
                    LineNeedleMatch::Ip(range) => range.matches_line(line),
                });
                return found != *negated;
            }
            Step::Label(filter) => return filter.matches(labels),
            Step::Json => json::flatten(line, labels, wanted, &mut self.json),
            Step::JsonPaths(paths) => {
                for (label, path) in paths {
                    json::extract(line, label, path, labels, wanted, &mut self.value);
                }
            }
            Step::Logfmt(logfmt) => logfmt.parse(line, labels, wanted, &mut self.logfmt),
            Step::Regexp(regex, names) => {
                if let Some(captures) = regex.captures(line) {
                    for (group, name) in names {
                        if let Some(value) = captures.get(*group)
                            && wanted.needs(name)
                        {
                            labels.add_parsed(name, value.as_str(), wanted);
                        }
                    }
                }
            }
            Step::Pattern(pattern) => pattern.captures(line, |name, value| {
                if wanted.needs(name) {
                    labels.add_parsed(name, value, wanted);
                }
            }),
            Step::Unpack => {
                if json::unpack(line, labels, &mut self.json, &mut self.spare) {
                    std::mem::swap(&mut self.line, &mut self.spare);
                    self.rewritten = true;
                }
            }
            Step::Decolorize => {
                if decolorize::decolorize(line, &mut self.spare) {
                    std::mem::swap(&mut self.line, &mut self.spare);
                    self.rewritten = true;
                }
            }
            Step::LineFormat(template) => {
                self.spare.clear();
                let context = Context { labels, line, timestamp };
                match template.write(context, &mut self.spare) {
                    Ok(()) => {
                        std::mem::swap(&mut self.line, &mut self.spare);
                        self.rewritten = true;
                    }
                    Err(error) => labels.set_error(TEMPLATE_ERROR, error),
                }
            }
            Step::LabelFormat(items) => {
                for (name, choice) in items {
                    match choice {
                        Choice::Rename(from) => labels.rename(from, name),
                        Choice::Template(template) => {
                            self.value.clear();
                            let context = Context { labels, line, timestamp };
                            match template.write(context, &mut self.value) {
                                Ok(()) => labels.set(name, &self.value),
                                Err(error) => labels.set_error(TEMPLATE_ERROR, error),
                            }
                        }
                    }
                }
            }
            Step::Keep(items) => labels.retain(|name, value| {
                let chosen = |(wanted, matcher): &(String, Option<TextMatch>)| {
                    wanted == name && matcher.as_ref().is_none_or(|matcher| matcher.matches(value))
                };
                items.iter().any(chosen)
            }),
            Step::Drop(items) => {
                for (name, matcher) in items {
                    if matcher.as_ref().is_none_or(|matcher| matcher.matches(labels.get(name))) {
                        labels.remove(name);
                        if name == LEVEL {
                            labels.remove(LEVEL);
                        }
                    }
                }
            }
            Step::Distinct(names) => {
                self.value.clear();
                for name in names {
                    self.value.push_str(labels.get(name));
                    self.value.push('\0');
                }
                if self.seen.contains(&self.value) {
                    return false;
                }
                if self.seen.len() < MAX_DISTINCT {
                    self.seen.insert(self.value.clone());
                }
            }
        }
        true
    }
}
