//! The text that names a series: `name{label="value",…}` or, for names beyond `[a-zA-Z0-9_:]`,
//! `{"name","label"="value",…}`.

use std::borrow::Cow;

use trine_schema::metrics::METRIC_NAME;

use super::{Bad, Kind, bad, number};

/// Stands between the parts of a series of the protobuf format; no UTF-8 text has it.
pub(super) const SEPARATOR: u8 = 0xff;

/// How a series is spelled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Dialect {
    /// Prometheus text: blanks between all parts, line breaks in values, commas may be missing.
    Text,
    /// OpenMetrics: none of these.
    OpenMetrics,
    /// Name, then names and values, with [`SEPARATOR`] between all.
    Separated,
}

/// A series as a body names it.
#[derive(Debug, Clone, Copy)]
pub struct Series<'a> {
    /// What names it, the same on every scrape that names it so.
    pub text: &'a [u8],
    pub(super) dialect: Dialect,
    pub(super) kind: Kind,
}

impl Series<'_> {
    /// Its labels with the metric's name as [`METRIC_NAME`] first, the others in the order of the body; names
    /// may repeat and values be empty.
    pub fn labels(&self) -> Vec<(Box<str>, Box<str>)> {
        let mut labels = vec![(Box::from(METRIC_NAME), Box::from(""))];
        let number_label = self.kind.number_label();
        let mut take = |part: Part<'_>| match part {
            Part::Name(name) => labels[0].1 = owned(name),
            Part::Label(name, value) => {
                let (name, mut value) = (owned(name), owned(value));
                if number_label == Some(&name)
                    && let Some(number) = number::float(value.as_bytes())
                {
                    value = number::label(number).into();
                }
                labels.push((name, value));
            }
        };
        match self.dialect {
            Dialect::Separated => {
                // Without escapes, and numbers are canonical.
                let mut parts = self.text.split(|byte| *byte == SEPARATOR);
                let own = |raw| String::from_utf8_lossy(raw).into_owned().into_boxed_str();
                labels[0].1 = own(parts.next().unwrap_or_default());
                while let (Some(name), Some(value)) = (parts.next(), parts.next()) {
                    labels.push((own(name), own(value)));
                }
            }
            dialect => {
                let read = scan(self.text, dialect, &mut take);
                debug_assert!(read.is_ok_and(|length| length == self.text.len()), "BUG: scanned before");
            }
        }
        labels
    }

    /// Whether `rest` begins with a series whose text is `text`, a text of a format of lines: what follows
    /// cannot belong to it.
    #[inline]
    pub fn begins(rest: &[u8], text: &[u8]) -> bool {
        let Some(after) = rest.strip_prefix(text) else { return false };
        if text.last() == Some(&b'}') {
            return true;
        }
        // A name alone: `a` is not `ab` nor `a {b="c"}`.
        match after {
            [b' ' | b'\t', next, ..] => !matches!(next, b' ' | b'\t' | b'{'),
            _ => false,
        }
    }
}

/// A part of a series, as the body spells it.
pub(super) enum Part<'a> {
    Name(&'a [u8]),
    Label(&'a [u8], &'a [u8]),
}

fn name_begins(byte: u8) -> bool {
    byte.is_ascii_alphabetic() || byte == b'_' || byte == b':'
}

/// Length of the metric name that `bytes` begins with; 0 for none.
pub(super) fn metric_name(bytes: &[u8]) -> usize {
    if !bytes.first().is_some_and(|byte| name_begins(*byte)) {
        return 0;
    }
    bytes.iter().take_while(|byte| name_begins(**byte) || byte.is_ascii_digit()).count()
}

fn label_name(bytes: &[u8]) -> usize {
    let first = |byte: &u8| byte.is_ascii_alphabetic() || *byte == b'_';
    if !bytes.first().is_some_and(first) {
        return 0;
    }
    bytes.iter().take_while(|byte| first(byte) || byte.is_ascii_digit()).count()
}

/// Blanks from `at` on, where the dialect has them.
fn blanks(bytes: &[u8], at: usize, dialect: Dialect) -> usize {
    if dialect != Dialect::Text {
        return at;
    }
    at + bytes[at..].iter().take_while(|byte| matches!(byte, b' ' | b'\t')).count()
}

/// The end of a quoted text that begins at `at`, behind its closing quote.
pub(super) fn quoted(bytes: &[u8], at: usize, line_breaks: bool) -> Result<usize, Bad> {
    let mut end = at + 1;
    loop {
        match bytes.get(end) {
            Some(b'"') => return Ok(end + 1),
            Some(b'\\') if bytes.get(end + 1).is_some_and(|next| *next != b'\n') => end += 2,
            Some(b'\n') if !line_breaks => return bad(at, "a quoted text does not end"),
            None | Some(b'\\') => return bad(at, "a quoted text does not end"),
            Some(_) => end += 1,
        }
    }
}

/// Reads the series that `bytes` begins with and returns its length.
pub(super) fn scan<'a>(
    bytes: &'a [u8],
    dialect: Dialect,
    part: &mut impl FnMut(Part<'a>),
) -> Result<usize, Bad> {
    let length = metric_name(bytes);
    if length > 0 {
        part(Part::Name(&bytes[..length]));
    }
    let open = blanks(bytes, length, dialect);
    if bytes.get(open) != Some(&b'{') {
        return match length {
            0 => bad(0, "a line begins with a metric name, '{' or '#'"),
            length => Ok(length),
        };
    }
    let mut named = length > 0;
    let mut twice = false;
    let end = braces(bytes, open, dialect, &mut |label| match label {
        Part::Name(_) if named => twice = true,
        label => {
            named |= matches!(label, Part::Name(_));
            part(label);
        }
    })?;
    match (named, twice) {
        (_, true) => bad(open, "the metric has two names"),
        (false, _) => bad(open, "the metric has no name"),
        _ => Ok(end),
    }
}

/// Reads labels from the brace at `at` on and returns the byte behind the closing brace. A quoted text
/// without a value is a [`Part::Name`].
pub(super) fn braces<'a>(
    bytes: &'a [u8],
    at: usize,
    dialect: Dialect,
    part: &mut impl FnMut(Part<'a>),
) -> Result<usize, Bad> {
    let mut at = blanks(bytes, at + 1, dialect);
    loop {
        let begin = at;
        let name = match bytes.get(at) {
            Some(b'}') => return Ok(at + 1),
            Some(b'"') => {
                at = quoted(bytes, at, dialect == Dialect::Text)?;
                &bytes[begin + 1..at - 1]
            }
            _ => {
                at += label_name(&bytes[at..]);
                &bytes[begin..at]
            }
        };
        if name.is_empty() {
            return bad(begin, "a label name or '}' is expected");
        }
        if std::str::from_utf8(name).is_err() {
            return bad(begin, "a name is not valid UTF-8");
        }
        at = blanks(bytes, at, dialect);
        match bytes.get(at) {
            Some(b'=') => {}
            Some(b',' | b'}') if bytes[begin] == b'"' => {
                part(Part::Name(name));
                at = blanks(bytes, at + usize::from(bytes[at] == b','), dialect);
                continue;
            }
            _ => return bad(at, "'=' is expected behind a label name"),
        }
        let begin = blanks(bytes, at + 1, dialect);
        if bytes.get(begin) != Some(&b'"') {
            return bad(begin, "a label value in quotes is expected");
        }
        at = quoted(bytes, begin, dialect == Dialect::Text)?;
        let value = &bytes[begin + 1..at - 1];
        if std::str::from_utf8(value).is_err() {
            return bad(begin, "a label value is not valid UTF-8");
        }
        part(Part::Label(name, value));
        at = blanks(bytes, at, dialect);
        match bytes.get(at) {
            Some(b',') => at = blanks(bytes, at + 1, dialect),
            Some(b'}') => {}
            _ if dialect == Dialect::Text => {}
            _ => return bad(at, "',' or '}' is expected behind a label value"),
        }
    }
}

/// A name or a value without its escapes `\\`, `\"` and `\n`; others stay as they are. `raw` was checked to be
/// UTF-8.
pub(super) fn unescaped(raw: &[u8]) -> Cow<'_, str> {
    unescape(raw, true)
}

/// [`unescaped`] for keeps.
pub(super) fn owned(raw: &[u8]) -> Box<str> {
    unescaped(raw).into_owned().into_boxed_str()
}

/// The same, and whether `\"` is an escape.
pub(super) fn unescape(raw: &[u8], quotes: bool) -> Cow<'_, str> {
    let text = String::from_utf8_lossy(raw);
    if !text.contains('\\') {
        return text;
    }
    let mut out = String::with_capacity(text.len());
    let mut rest = text.chars();
    while let Some(char) = rest.next() {
        if char != '\\' {
            out.push(char);
            continue;
        }
        let mut ahead = rest.clone();
        match ahead.next() {
            Some('\\') => out.push('\\'),
            Some('n') => out.push('\n'),
            Some('"') if quotes => out.push('"'),
            _ => {
                out.push('\\');
                continue;
            }
        }
        rest = ahead;
    }
    Cow::Owned(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str, dialect: Dialect) -> Result<String, String> {
        let length = scan(text.as_bytes(), dialect, &mut |_| ()).map_err(|bad| bad.reason)?;
        let series = Series { text: &text.as_bytes()[..length], dialect, kind: Kind::Histogram };
        let labels = series.labels().into_iter().map(|(name, value)| format!("{name}={value}"));
        Ok(format!("{} + {:?}", labels.collect::<Vec<_>>().join(" "), &text[length..]))
    }

    #[test]
    fn series_are_read_in_both_dialects() {
        for (text, want) in [
            ("a 1", "__name__=a + \" 1\""),
            ("a:b_9{} 1", "__name__=a:b_9 + \" 1\""),
            (r#"a{b="c",d="e\"\\\nf\x",} 1"#, "__name__=a b=c d=e\"\\\nf\\x + \" 1\""),
            (r#"{"a.b",c="d"}"#, "__name__=a.b c=d + \"\""),
            (r#"{c="d","a.b"}"#, "__name__=a.b c=d + \"\""),
            (r#"a{"b.c"="d",le="1",le="x"}"#, "__name__=a b.c=d le=1.0 le=x + \"\""),
        ] {
            for dialect in [Dialect::Text, Dialect::OpenMetrics] {
                assert_eq!(read(text, dialect).as_deref(), Ok(want), "{text} {dialect:?}");
            }
        }
        let loose = "a { b\t= \"c\nd\" e=\"f\" , }\t1";
        assert_eq!(read(loose, Dialect::Text).unwrap(), "__name__=a b=c\nd e=f + \"\\t1\"");
        for text in ["a{ b=\"c\"}", "a{b=\"c\" }", "a{b=\"c\"d=\"e\"}", "a{b=\"c\nd\"}"] {
            assert!(read(text, Dialect::OpenMetrics).is_err(), "{text}");
        }
    }

    #[test]
    fn broken_series_say_what_is_expected() {
        for (text, reason) in [
            ("", "a line begins with a metric name, '{' or '#'"),
            ("9a", "a line begins with a metric name, '{' or '#'"),
            ("{}", "the metric has no name"),
            ("{a=\"b\"}", "the metric has no name"),
            ("a{\"b\"}", "the metric has two names"),
            ("{\"a\",\"b\"}", "the metric has two names"),
            ("a{b}", "'=' is expected behind a label name"),
            ("a{b=c}", "a label value in quotes is expected"),
            ("a{b=\"c}", "a quoted text does not end"),
            ("a{b=\"c\\", "a quoted text does not end"),
            ("a{,b=\"c\"}", "a label name or '}' is expected"),
            ("a{b=\"c\",,}", "a label name or '}' is expected"),
            ("a{\"\"=\"c\"}", "a label name or '}' is expected"),
            ("a{b=\"c\"", "',' or '}' is expected behind a label value"),
        ] {
            assert_eq!(read(text, Dialect::OpenMetrics), Err(reason.into()), "{text}");
        }
        let text = b"a{b=\"\xff\"}";
        assert_eq!(
            scan(text, Dialect::Text, &mut |_| ()).unwrap_err().reason,
            "a label value is not valid UTF-8"
        );
    }

    #[test]
    fn an_expected_text_is_not_the_beginning_of_another() {
        for (rest, text, begins) in [
            ("a 1", "a", true),
            ("ab 1", "a", false),
            ("a {b=\"c\"} 1", "a", false),
            ("a  {b=\"c\"} 1", "a", false),
            ("a\t1", "a", true),
            ("a", "a", false),
            ("a{b=\"c\"} 1", "a{b=\"c\"}", true),
            ("a{b=\"d\"} 1", "a{b=\"c\"}", false),
        ] {
            assert_eq!(Series::begins(rest.as_bytes(), text.as_bytes()), begins, "{rest} {text}");
        }
    }
}
