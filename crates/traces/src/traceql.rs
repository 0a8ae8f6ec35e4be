//! The part of TraceQL that is understood: one set of spans whose conditions are joined by `&&`, each an
//! equality or a bound of a duration. Everything else is refused by name.

use std::ops::RangeInclusive;

use crate::{
    kind,
    logfmt::quoted_text,
    parameters::parse_duration,
    search::{Condition, MAX_CONDITIONS, TagPlace},
    status,
};

/// The conditions of a query.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Selection {
    /// All hold for one span.
    pub conditions: Vec<Condition>,
    /// Of the whole trace, nanoseconds.
    pub trace_duration: RangeInclusive<i64>,
}

/// The query cannot be answered: where, and why.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "at byte {position}: {problem}; understood is one {{ … }} with conditions joined by &&, each \
     `field = value`, or `duration` (also `traceDuration`) with =, >, >=, < or <= and a value such as 1.5s"
)]
pub struct TraceQlError {
    /// Bytes before the place.
    pub position: usize,
    /// What is wrong there.
    pub problem: String,
}

/// Longest query in bytes.
const MAX_BYTES: usize = 16 << 10;

/// Reads a query.
pub fn parse(text: &str) -> Result<Selection, TraceQlError> {
    let mut parser = Parser { text, rest: text };
    if text.len() > MAX_BYTES {
        return Err(parser.fault(format!("the query is longer than {MAX_BYTES} bytes")));
    }
    parser.selection()
}

struct Parser<'a> {
    text: &'a str,
    rest: &'a str,
}

/// What a condition is about.
enum Field {
    Service,
    Operation,
    Status,
    Kind,
    Duration,
    TraceDuration,
    Tag(TagPlace, String),
}

impl<'a> Parser<'a> {
    fn fault(&self, problem: impl Into<String>) -> TraceQlError {
        TraceQlError { position: self.text.len() - self.rest.len(), problem: problem.into() }
    }

    fn blanks(&mut self) {
        self.rest = self.rest.trim_start();
    }

    fn take(&mut self, sign: &str) -> bool {
        self.blanks();
        let found = self.rest.strip_prefix(sign);
        self.rest = found.unwrap_or(self.rest);
        found.is_some()
    }

    fn expect(&mut self, sign: &str) -> Result<(), TraceQlError> {
        if self.take(sign) { Ok(()) } else { Err(self.fault(format!("{sign} is missing"))) }
    }

    fn selection(&mut self) -> Result<Selection, TraceQlError> {
        let mut selection = Selection { conditions: Vec::new(), trace_duration: i64::MIN..=i64::MAX };
        self.expect("{")?;
        if !self.take("}") {
            loop {
                if selection.conditions.len() == MAX_CONDITIONS {
                    return Err(self.fault(format!("more than {MAX_CONDITIONS} conditions")));
                }
                self.condition(&mut selection)?;
                if self.take("}") {
                    break;
                }
                self.expect("&&")?;
            }
        }
        self.blanks();
        if self.rest.is_empty() { Ok(selection) } else { Err(self.fault("something follows the }")) }
    }

    fn condition(&mut self, selection: &mut Selection) -> Result<(), TraceQlError> {
        self.blanks();
        // What Grafana writes for "any span".
        if self.bare() == "true" {
            self.rest = &self.rest["true".len()..];
            return Ok(());
        }
        let field = self.field()?;
        let operator = ["=~", "!~", "!=", ">=", "<=", "=", ">", "<"].into_iter().find(|sign| self.take(sign));
        let operator = operator.ok_or_else(|| self.fault("an operator is missing"))?;
        self.blanks();
        let condition = match field {
            Field::Duration | Field::TraceDuration => {
                let range = self.duration_range(operator)?;
                if matches!(field, Field::TraceDuration) {
                    let known = &mut selection.trace_duration;
                    *known = *known.start().max(range.start())..=*known.end().min(range.end());
                    return Ok(());
                }
                Condition::Duration(range)
            }
            _ if operator != "=" => {
                return Err(self.fault(format!("the operator {operator} is not understood here")));
            }
            Field::Service => Condition::Service(self.value()?),
            Field::Operation => Condition::Operation(self.value()?),
            Field::Status => {
                let codes = [("unset", status::UNSET), ("ok", status::OK), ("error", status::ERROR)];
                Condition::Status(self.one_of(&codes)?)
            }
            Field::Kind => {
                let kinds = [
                    ("unspecified", 0),
                    ("internal", kind::INTERNAL),
                    ("server", kind::SERVER),
                    ("client", kind::CLIENT),
                    ("producer", kind::PRODUCER),
                    ("consumer", kind::CONSUMER),
                ];
                Condition::Kind(self.one_of(&kinds)?)
            }
            Field::Tag(place, key) => Condition::Tag { place, key, value: self.value()? },
        };
        selection.conditions.push(condition);
        Ok(())
    }

    fn field(&mut self) -> Result<Field, TraceQlError> {
        for (prefix, place) in
            [("resource.", TagPlace::Resource), ("span.", TagPlace::Span), (".", TagPlace::Any)]
        {
            if let Some(rest) = self.rest.strip_prefix(prefix) {
                self.rest = rest;
                let key = self.name()?;
                let service = key == "service.name" && place != TagPlace::Span;
                return Ok(if service { Field::Service } else { Field::Tag(place, key) });
            }
        }
        let word = self.bare();
        let field = match word {
            "name" | "span:name" => Field::Operation,
            "status" | "span:status" => Field::Status,
            "kind" | "span:kind" => Field::Kind,
            "duration" | "span:duration" => Field::Duration,
            "traceDuration" | "trace:duration" => Field::TraceDuration,
            _ => {
                let known = "name, status, kind, duration, traceDuration, resource.…, span.… or .…";
                return Err(self.fault(format!("a field is expected: {known}")));
            }
        };
        self.rest = &self.rest[word.len()..];
        Ok(field)
    }

    /// Name of an attribute, parts of it may be quoted.
    fn name(&mut self) -> Result<String, TraceQlError> {
        let mut name = String::new();
        loop {
            if self.rest.starts_with('"') {
                name += &self.quoted()?;
            } else {
                let end = self.rest.find(|c| !is_name(c)).unwrap_or(self.rest.len());
                if end == 0 {
                    break;
                }
                name += &self.rest[..end];
                self.rest = &self.rest[end..];
            }
        }
        if name.is_empty() { Err(self.fault("the name of an attribute is missing")) } else { Ok(name) }
    }

    fn quoted(&mut self) -> Result<String, TraceQlError> {
        let (text, length) =
            quoted_text(self.rest).ok_or_else(|| self.fault("a quoted text has no end or a wrong escape"))?;
        self.rest = &self.rest[length..];
        Ok(text)
    }

    /// A text, a number, or true and false, as text.
    fn value(&mut self) -> Result<String, TraceQlError> {
        if self.rest.starts_with('"') {
            return self.quoted();
        }
        if let Some(raw) = self.rest.strip_prefix('`') {
            let end = raw.find('`').ok_or_else(|| self.fault("a text in backquotes has no end"))?;
            self.rest = &raw[end + 1..];
            return Ok(raw[..end].to_owned());
        }
        let bare = self.bare();
        if bare == "true" || bare == "false" || bare.parse::<f64>().is_ok_and(f64::is_finite) {
            self.rest = &self.rest[bare.len()..];
            return Ok(bare.to_owned());
        }
        Err(self.fault("a value is expected: a text in quotes, a number, true or false"))
    }

    fn bare(&self) -> &'a str {
        let end = self.rest.find(|c: char| !is_name(c) && c != '+').unwrap_or(self.rest.len());
        &self.rest[..end]
    }

    fn one_of(&mut self, words: &[(&str, u8)]) -> Result<u8, TraceQlError> {
        let bare = self.bare();
        match words.iter().find(|(word, _)| *word == bare) {
            Some((_, value)) => {
                self.rest = &self.rest[bare.len()..];
                Ok(*value)
            }
            None => {
                let words: Vec<_> = words.iter().map(|(word, _)| *word).collect();
                Err(self.fault(format!("one of {} is expected", words.join(", "))))
            }
        }
    }

    fn duration_range(&mut self, operator: &str) -> Result<RangeInclusive<i64>, TraceQlError> {
        let bare = self.bare();
        let ns = parse_duration(bare).ok_or_else(|| self.fault("a duration such as 1.5s is expected"))?;
        let range = match operator {
            "=" => ns..=ns,
            ">" => ns.saturating_add(1)..=i64::MAX,
            ">=" => ns..=i64::MAX,
            "<" => i64::MIN..=ns - 1,
            "<=" => i64::MIN..=ns,
            _ => return Err(self.fault(format!("the operator {operator} is not understood here"))),
        };
        self.rest = &self.rest[bare.len()..];
        Ok(range)
    }
}

fn is_name(c: char) -> bool {
    c.is_alphanumeric() || matches!(c, '_' | '.' | '-' | '/' | ':' | '@' | '$' | '%' | '#')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn conditions_joined_by_and() {
        let text = r#" { resource.service.name = "cart" && name=`GET /` && span:duration > 1.5s
            && duration<=2s && status = error && kind=server && span.http.status_code = 500
            && ."user id"="a\"b" && traceDuration >= 3s && trace:duration < 10s && true } "#;
        let tag =
            |place, key: &str, value: &str| Condition::Tag { place, key: key.into(), value: value.into() };
        let selection = parse(text).unwrap();
        assert_eq!(
            selection.conditions,
            [
                Condition::Service("cart".into()),
                Condition::Operation("GET /".into()),
                Condition::Duration(1_500_000_001..=i64::MAX),
                Condition::Duration(i64::MIN..=2_000_000_000),
                Condition::Status(2),
                Condition::Kind(2),
                tag(TagPlace::Span, "http.status_code", "500"),
                tag(TagPlace::Any, "user id", "a\"b"),
            ]
        );
        assert_eq!(selection.trace_duration, 3_000_000_000..=9_999_999_999);
        assert!(parse("{}").unwrap().conditions.is_empty());
        assert!(parse("{ true }").unwrap().conditions.is_empty());
    }

    #[test]
    fn what_is_not_understood_is_named_with_its_place() {
        for (text, position, problem) in [
            ("", 0, "{ is missing"),
            ("{ name = \"a\" || name = \"b\" }", 13, "&& is missing"),
            ("{ name =~ \"a.*\" }", 10, "the operator =~ is not understood here"),
            ("{ span.n > 5 }", 11, "the operator > is not understood here"),
            ("{} | count() > 2", 3, "something follows the }"),
            ("{ nestedSetParent<0 }", 2, "a field is expected"),
            ("{ status = broken }", 11, "one of unset, ok, error is expected"),
            ("{ duration > 5 }", 13, "a duration such as 1.5s is expected"),
            ("{ duration != 5s }", 14, "the operator != is not understood here"),
            ("{ .a = b }", 7, "a value is expected"),
            ("{ . = 1 }", 3, "the name of an attribute is missing"),
            ("{ name = \"a }", 9, "a quoted text has no end"),
            ("{ named = \"a\" }", 2, "a field is expected"),
        ] {
            let error = parse(text).unwrap_err();
            assert!(error.problem.starts_with(problem) && error.position == position, "{text}: {error:?}");
        }
        assert!(parse(&"{".repeat(20_000)).unwrap_err().problem.contains("longer than"));
        assert!(parse(&format!("{{{}true}}", ".a=1&&".repeat(65))).is_err());
    }
}
