//! Labels as text, `{app="web", env='x'}`: Prometheus' selector grammar with `=` only.
//!
//! Names are `[a-zA-Z_][a-zA-Z0-9_]*` or, as in Prometheus 3, any text in quotes. Values are Go
//! strings: double or single quotes with escapes, or backquotes without.

use trine_schema::Labels;

use crate::{
    Limits,
    intake::{Fault, labels},
};

pub(super) const NO_LABELS: &str = "the stream has no labels; send at least one";

/// Parses labels; empty values are dropped.
pub(super) fn parse(text: &str, limits: &Limits) -> Result<Labels, Fault> {
    let mut reader = Reader { text, at: 0 };
    let pairs = reader.pairs(limits.max_labels_per_stream).map_err(|reason| {
        let shown: String = text.chars().take(200).collect();
        let at = reader.at;
        Fault::Record(format!("stream labels {shown:?} are broken at byte {at}: {reason}").into())
    })?;
    finish(pairs, limits)
}

/// Drops empty values, wants at least one label, and checks the limits.
pub(super) fn finish(mut pairs: Pairs, limits: &Limits) -> Result<Labels, Fault> {
    pairs.retain(|(_, value)| !value.is_empty());
    if pairs.is_empty() {
        return Err(crate::intake::bad(NO_LABELS));
    }
    labels(pairs, limits)
}

/// Names and values.
type Pairs = Vec<(Box<str>, Box<str>)>;

struct Reader<'a> {
    text: &'a str,
    at: usize,
}

impl Reader<'_> {
    fn peek(&mut self) -> Option<u8> {
        let bytes = self.text.as_bytes();
        while bytes.get(self.at).is_some_and(u8::is_ascii_whitespace) {
            self.at += 1;
        }
        bytes.get(self.at).copied()
    }

    fn take(&mut self, byte: u8) -> bool {
        let found = self.peek() == Some(byte);
        self.at += usize::from(found);
        found
    }

    /// One more than `limit` pairs is enough to refuse them.
    fn pairs(&mut self, limit: usize) -> Result<Pairs, &'static str> {
        let mut pairs = Vec::new();
        if !self.take(b'{') {
            return Err("expected {");
        }
        while !self.take(b'}') {
            let name = self.name()?;
            if !self.take(b'=') {
                return Err("expected = after a label name");
            }
            if !matches!(self.peek(), Some(b'"' | b'\'' | b'`')) {
                return Err("expected a value in quotes");
            }
            let value = self.quoted()?;
            pairs.push((name, value));
            if pairs.len() > limit {
                return Ok(pairs);
            }
            if !self.take(b',') && self.peek() != Some(b'}') {
                return Err("expected , or } after a value");
            }
        }
        if self.peek().is_some() { Err("text after }") } else { Ok(pairs) }
    }

    fn name(&mut self) -> Result<Box<str>, &'static str> {
        match self.peek() {
            Some(b'"' | b'\'' | b'`') => self.quoted(),
            Some(b'a'..=b'z' | b'A'..=b'Z' | b'_') => {
                let rest = &self.text[self.at..];
                let end =
                    rest.bytes().position(|b| !b.is_ascii_alphanumeric() && b != b'_').unwrap_or(rest.len());
                self.at += end;
                Ok(rest[..end].into())
            }
            _ => Err("expected a label name"),
        }
    }

    /// A Go string literal; the quote is next.
    fn quoted(&mut self) -> Result<Box<str>, &'static str> {
        const OPEN: &str = "a value without closing quote";
        let bytes = self.text.as_bytes();
        let quote = bytes[self.at];
        self.at += 1;
        let mut value = Vec::new();
        loop {
            let rest = &bytes[self.at..];
            let special = |b: &u8| *b == quote || (*b == b'\\' && quote != b'`');
            let plain = rest.iter().position(special).ok_or(OPEN)?;
            value.extend_from_slice(&rest[..plain]);
            self.at += plain + 1;
            if rest[plain] == quote {
                return String::from_utf8(value).map(Into::into).map_err(|_| "a value that is not UTF-8");
            }
            let escape = *bytes.get(self.at).ok_or(OPEN)?;
            self.at += 1;
            match escape {
                b'a' => value.push(7),
                b'b' => value.push(8),
                b'f' => value.push(12),
                b'n' => value.push(b'\n'),
                b'r' => value.push(b'\r'),
                b't' => value.push(b'\t'),
                b'v' => value.push(11),
                b'\\' | b'"' | b'\'' => value.push(escape),
                b'x' => value.push(self.code(2, 16)? as u8),
                b'0'..=b'7' => {
                    self.at -= 1;
                    let code = self.code(3, 8)?;
                    value.push(u8::try_from(code).map_err(|_| "an octal escape above 255")?);
                }
                b'u' | b'U' => {
                    let code = self.code(if escape == b'u' { 4 } else { 8 }, 16)?;
                    let character = char::from_u32(code).ok_or("an escape that is no character")?;
                    value.extend_from_slice(character.encode_utf8(&mut [0; 4]).as_bytes());
                }
                _ => return Err("an unknown escape"),
            }
        }
    }

    fn code(&mut self, digits: usize, radix: u32) -> Result<u32, &'static str> {
        const BROKEN: &str = "an escape with too few digits";
        let text = self.text.get(self.at..self.at + digits).ok_or(BROKEN)?;
        let valid = text.bytes().all(|digit| char::from(digit).is_digit(radix));
        let code = u32::from_str_radix(text, radix).ok().filter(|_| valid).ok_or(BROKEN)?;
        self.at += digits;
        Ok(code)
    }
}

#[cfg(test)]
mod tests {
    use expect_test::{Expect, expect};

    use super::*;

    #[allow(clippy::needless_pass_by_value)] // reads better at the calls
    fn check(text: &str, want: Expect) {
        let got = match parse(text, &Limits { max_labels_per_stream: 4, ..Limits::default() }) {
            Ok(labels) => labels.to_json(),
            Err(Fault::Record(reason)) => reason.into_owned(),
            Err(Fault::Request(error)) => panic!("{error}"),
        };
        want.assert_eq(&got);
    }

    #[test]
    fn labels_as_prometheus_reads_them() {
        check(r#"{app="web",env="p"}"#, expect![[r#"{"app":"web","env":"p"}"#]]);
        check(r" { b = 'x' , a=`\n` , } ", expect![[r#"{"a":"\\n","b":"x"}"#]]);
        check(
            r#"{a="\u00e9\x41\101\n\"\\","my.label"="v",e=""}"#,
            expect![[r#"{"a":"éAA\n\"\\","my.label":"v"}"#]],
        );
        check("{}", expect!["the stream has no labels; send at least one"]);
        check("", expect![[r#"stream labels "" are broken at byte 0: expected {"#]]);
        check(
            r#"{a="b"#,
            expect![[r#"stream labels "{a=\"b" are broken at byte 4: a value without closing quote"#]],
        );
        check(r#"{a="b"} x"#, expect![[r#"stream labels "{a=\"b\"} x" are broken at byte 8: text after }"#]]);
        check(
            r#"{a=~"b"}"#,
            expect![[r#"stream labels "{a=~\"b\"}" are broken at byte 3: expected a value in quotes"#]],
        );
        check(
            r#"{9a="b"}"#,
            expect![[r#"stream labels "{9a=\"b\"}" are broken at byte 1: expected a label name"#]],
        );
        check(
            r#"{a="b" c="d"}"#,
            expect![[
                r#"stream labels "{a=\"b\" c=\"d\"}" are broken at byte 7: expected , or } after a value"#
            ]],
        );
        check(
            r#"{a="\q"}"#,
            expect![[r#"stream labels "{a=\"\\q\"}" are broken at byte 6: an unknown escape"#]],
        );
        check(
            r#"{a="\xff"}"#,
            expect![[r#"stream labels "{a=\"\\xff\"}" are broken at byte 9: a value that is not UTF-8"#]],
        );
        check(
            r#"{a="\u12"}"#,
            expect![[r#"stream labels "{a=\"\\u12\"}" are broken at byte 6: an escape with too few digits"#]],
        );
        check(
            r#"{a="1",a="2"}"#,
            expect![[r#"label "a" is given twice with different values; send each label once"#]],
        );
        check(
            r#"{a="1",b="1",c="1",d="1",e="1",f="1"}"#,
            expect!["the stream has more than 4 labels; send some as attributes"],
        );
    }
}
