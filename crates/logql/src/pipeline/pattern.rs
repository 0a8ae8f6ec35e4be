//! Patterns `<ip> - <_> "<method> <uri>"`, for the `pattern` parser and the `|>` filter.

/// A part of a pattern.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Part {
    Literal(String),
    /// Name; `None` for `<_>`.
    Capture(Option<String>),
}

/// A compiled pattern.
#[derive(Debug, Clone)]
pub struct Pattern(Vec<Part>);

fn capture_name(text: &str) -> bool {
    let mut bytes = text.bytes();
    bytes.next().is_some_and(|b| b.is_ascii_alphabetic() || b == b'_')
        && bytes.all(|b| b.is_ascii_alphanumeric() || b == b'_')
}

impl Pattern {
    fn read(text: &str) -> Result<Self, String> {
        let mut parts: Vec<Part> = Vec::new();
        let mut literal = String::new();
        let mut rest = text;
        while let Some(open) = rest.find('<') {
            let close = rest[open..].find('>').map(|n| open + n);
            let name = close.map(|close| &rest[open + 1..close]).filter(|name| capture_name(name));
            let (Some(name), Some(close)) = (name, close) else {
                // A `<` that opens no capture is plain text.
                literal.push_str(&rest[..=open]);
                rest = &rest[open + 1..];
                continue;
            };
            literal.push_str(&rest[..open]);
            if !literal.is_empty() {
                parts.push(Part::Literal(std::mem::take(&mut literal)));
            } else if matches!(parts.last(), Some(Part::Capture(_))) {
                let shown = crate::lexer::shorten(text);
                return Err(format!(
                    "invalid pattern {shown:?}: two captures stand side by side; put text between them"
                ));
            }
            parts.push(Part::Capture((name != "_").then(|| name.to_owned())));
            rest = &rest[close + 1..];
        }
        literal.push_str(rest);
        if !literal.is_empty() {
            parts.push(Part::Literal(literal));
        }
        if parts.is_empty() {
            return Err("the pattern is empty; write, for example, \"<method> <_>\"".to_owned());
        }
        Ok(Self(parts))
    }

    /// For the parser: at least one named capture, no name twice.
    pub fn parser(text: &str) -> Result<Self, String> {
        let pattern = Self::read(text)?;
        let names: Vec<&str> = pattern.names().collect();
        let shown = crate::lexer::shorten(text);
        if names.is_empty() {
            return Err(format!(
                "invalid pattern {shown:?}: it names no capture; write, for example, <method>"
            ));
        }
        if let Some(twice) = names.iter().enumerate().find(|(i, name)| names[..*i].contains(name)) {
            return Err(format!(
                "invalid pattern {shown:?}: <{}> stands twice; use <_> for one of them",
                twice.1
            ));
        }
        Ok(pattern)
    }

    /// For the filter: no named captures.
    pub fn filter(text: &str) -> Result<Self, String> {
        if text.is_empty() {
            return Ok(Self(Vec::new()));
        }
        let pattern = Self::read(text)?;
        let named = pattern.names().next().map(str::to_owned);
        match named {
            Some(name) => Err(format!("a pattern filter names no captures; write <_> instead of <{name}>")),
            None => Ok(pattern),
        }
    }

    fn names(&self) -> impl Iterator<Item = &str> {
        self.0.iter().filter_map(|part| match part {
            Part::Capture(Some(name)) => Some(name.as_str()),
            _ => None,
        })
    }

    /// The longest text that a matching line contains; empty when there is none.
    pub fn longest_literal(&self) -> &str {
        let literals = self.0.iter().filter_map(|part| match part {
            Part::Literal(text) => Some(text.as_str()),
            Part::Capture(_) => None,
        });
        literals.max_by_key(|text| text.len()).unwrap_or("")
    }

    /// Calls `found` with the named captures. A capture whose following text does not come takes
    /// the rest of the line and is the last.
    pub fn captures<'l>(&self, line: &'l str, mut found: impl FnMut(&str, &'l str)) {
        let mut rest = line;
        let mut parts = self.0.iter().peekable();
        if let Some(Part::Literal(text)) = parts.peek() {
            let Some(tail) = rest.strip_prefix(text.as_str()) else { return };
            rest = tail;
            parts.next();
        }
        while let Some(part) = parts.next() {
            let Part::Capture(name) = part else { return };
            let end = match parts.next() {
                Some(Part::Literal(text)) => {
                    memchr::memmem::find(rest.as_bytes(), text.as_bytes()).map(|at| (at, at + text.len()))
                }
                _ => None,
            };
            let (value, tail) = end.map_or((rest, None), |(at, behind)| (&rest[..at], Some(&rest[behind..])));
            if let Some(name) = name {
                found(name, value);
            }
            let Some(tail) = tail else { return };
            rest = tail;
        }
    }

    /// Whether the whole line has this form; a capture stands for at least one character.
    pub fn matches(&self, line: &str) -> bool {
        let mut rest = line;
        let mut after_capture = false;
        for (i, part) in self.0.iter().enumerate() {
            let Part::Literal(text) = part else {
                after_capture = true;
                continue;
            };
            let last = i + 1 == self.0.len();
            let at = if after_capture && last {
                rest.ends_with(text.as_str()).then(|| rest.len() - text.len())
            } else {
                memchr::memmem::find(rest.as_bytes(), text.as_bytes())
            };
            match at {
                Some(at) if (at > 0) == after_capture => rest = &rest[at + text.len()..],
                _ => return false,
            }
            after_capture = false;
        }
        rest.is_empty() != after_capture
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn captures_follow_the_text_between_them() {
        let take = |pattern: &str, line: &str| {
            let mut found = Vec::new();
            Pattern::parser(pattern)
                .unwrap()
                .captures(line, |name, value| found.push(format!("{name}={value}")));
            found.join(" ")
        };
        assert_eq!(take("<ip> - <_> <path>", "1.2.3.4 - me /a b"), "ip=1.2.3.4 path=/a b");
        assert_eq!(take("GET <path> <_>", "POST /a"), "");
        assert_eq!(take("<a>|<b>", "no bar"), "a=no bar");
        assert_eq!(take("<_> msg=\"<m>\"", "x msg=\"hi\" y"), "m=hi");
        assert!(Pattern::parser("<a><b>").is_err());
        assert!(Pattern::parser("plain").is_err());
    }

    #[test]
    fn a_filter_covers_the_whole_line() {
        let matches = |pattern: &str, line: &str| Pattern::filter(pattern).unwrap().matches(line);
        assert!(matches("<_> level=debug <_>", "ts=1 level=debug msg=x"));
        assert!(!matches("level=debug <_>", "ts=1 level=debug msg=x"));
        assert!(!matches("<_> level=debug", "ts=1 level=debug msg=x"));
        assert!(matches("a <_> a", "a b a a"));
        assert!(matches("", "") && !matches("", "x"));
    }
}
