//! Regular expressions as Go reads them (RE2), on Rust's engine.
//!
//! Both share most of their syntax. Rewritten are: Perl classes and word boundaries, which are
//! ASCII in Go; `[`, `&`, `-`, `~` inside a class, where Rust knows set operations; `\Q...\E`; and
//! `\z`. The ASCII classes also give much smaller automata.

use regex::{Regex, RegexBuilder};
use trine_schema::{LineFilter, Needle};

/// Largest compiled automaton, in bytes.
const MAX_COMPILED_BYTES: usize = 10 << 20;

/// Go syntax to Rust syntax.
pub fn translate(pattern: &str) -> String {
    let mut out = String::with_capacity(pattern.len() + 16);
    let mut chars = pattern.chars().peekable();
    let mut class = false;
    let mut class_start = false;
    while let Some(c) = chars.next() {
        let first = std::mem::take(&mut class_start);
        match c {
            '\\' => match chars.next() {
                Some('Q') if !class => {
                    let mut literal = String::new();
                    while let Some(c) = chars.next() {
                        if c == '\\' && chars.peek() == Some(&'E') {
                            chars.next();
                            break;
                        }
                        literal.push(c);
                    }
                    out.push_str(&regex::escape(&literal));
                }
                Some(letter) => out.push_str(match (letter, class) {
                    ('d', false) => "[0-9]",
                    ('D', _) => "[^0-9]",
                    ('w', false) => "[0-9A-Za-z_]",
                    ('W', _) => "[^0-9A-Za-z_]",
                    ('s', false) => r"[\t\n\x0C\r ]",
                    ('S', _) => r"[^\t\n\x0C\r ]",
                    ('b', false) => r"(?-u:\b)",
                    ('B', false) => r"(?-u:\B)",
                    ('d', true) => "0-9",
                    ('w', true) => "0-9A-Za-z_",
                    ('s', true) => r"\t\n\x0C\r ",
                    (other, _) => {
                        out.push('\\');
                        out.push(other);
                        continue;
                    }
                }),
                None => out.push('\\'),
            },
            '[' if !class => {
                class = true;
                class_start = true;
                out.push('[');
                if chars.peek() == Some(&'^') {
                    chars.next();
                    out.push('^');
                }
            }
            '[' if chars.peek() == Some(&':') => {
                // A POSIX class such as [:alpha:].
                out.push('[');
                while let Some(c) = chars.next() {
                    out.push(c);
                    if c == ':' && chars.peek() == Some(&']') {
                        chars.next();
                        out.push(']');
                        break;
                    }
                }
            }
            '[' => out.push_str(r"\["),
            ']' if class && first => out.push_str(r"\]"),
            ']' => {
                class = false;
                out.push(']');
            }
            '&' | '~' if class => {
                out.push('\\');
                out.push(c);
            }
            '-' if class && chars.peek() == Some(&'-') => out.push_str(r"\-"),
            c => out.push(c),
        }
    }
    out
}

fn build(pattern: &str, original: &str) -> Result<Regex, String> {
    RegexBuilder::new(pattern)
        .size_limit(MAX_COMPILED_BYTES)
        .dfa_size_limit(MAX_COMPILED_BYTES)
        .build()
        .map_err(|error| {
            let reason = error.to_string();
            let reason = reason.lines().last().unwrap_or("").trim_start_matches("error: ").to_owned();
            let shown = crate::lexer::shorten(original);
            format!("invalid regular expression {shown:?}: {reason}; the syntax is RE2's")
        })
}

/// A regular expression that must match the whole text.
pub fn anchored(pattern: &str) -> Result<Regex, String> {
    build(&format!("^(?:{})$", translate(pattern)), pattern)
}

/// A regular expression as written.
pub fn plain(pattern: &str) -> Result<Regex, String> {
    build(&translate(pattern), pattern)
}

/// What a line filter looks for: texts where the expression is only an alternation of texts,
/// which the store finds faster, else the expression, whose `.` also matches line breaks.
pub fn line_needles(pattern: &str) -> Result<Vec<Needle>, String> {
    let mut core = pattern;
    while let Some(rest) = core.strip_prefix(".*") {
        core = rest;
    }
    while let Some(rest) = core.strip_suffix(".*").filter(|rest| !rest.ends_with('\\')) {
        core = rest;
    }
    if let Some(inner) = core.strip_prefix('(').and_then(|rest| rest.strip_suffix(')')) {
        core = inner.strip_prefix("?:").unwrap_or(inner);
    }
    if !core.contains(['\\', '.', '+', '*', '?', '(', ')', '[', ']', '{', '}', '^', '$']) {
        return Ok(core.split('|').map(|text| Needle::Literal(text.to_owned())).collect());
    }
    Ok(vec![Needle::Regex(build(&format!("(?s){}", translate(pattern)), pattern)?)])
}

/// The filter of `|~` and `!~`.
pub fn line_filter(patterns: &[&str], negated: bool) -> Result<LineFilter, String> {
    let mut any = Vec::new();
    for pattern in patterns {
        any.extend(line_needles(pattern)?);
    }
    Ok(LineFilter { any, negated })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn go_classes_are_ascii_and_brackets_in_classes_are_plain() {
        assert!(!plain(r"^\d$").unwrap().is_match("٣"));
        assert!(plain(r"^[[a]$").unwrap().is_match("["));
        assert!(plain(r"^[]a]+$").unwrap().is_match("]a"));
        assert!(plain(r"^[\w|/]+$").unwrap().is_match("a|/b"));
        assert!(plain(r"^[^\s]+$").unwrap().is_match("ab"));
        assert!(plain(r"^[a&&b]+$").unwrap().is_match("a&b"));
        assert!(plain(r"^\Qa.b\E$").unwrap().is_match("a.b"));
        assert!(plain(r"^[[:alpha:]]+$").unwrap().is_match("ab"));
        assert!(plain(r"\bid\b").unwrap().is_match("an id."));
        assert!(anchored("a|b").unwrap().is_match("b") && !anchored("a|b").unwrap().is_match("ab"));
        assert!(plain("(").is_err());
    }

    #[test]
    fn an_alternation_of_texts_becomes_texts() {
        let literals = |pattern| match line_needles(pattern).unwrap().as_slice() {
            [Needle::Regex(_)] => None,
            needles => Some(needles.len()),
        };
        assert_eq!(literals("error|warn"), Some(2));
        assert_eq!(literals(".*(error).*"), Some(1));
        assert_eq!(literals("a.b"), None);
        assert_eq!(literals(r"a\.*"), None);
        let filter = line_filter(&["a.b"], false).unwrap();
        assert!(filter.matches("a\nb"));
    }
}
