//! The `logfmt` parser (<https://brandur.org/logfmt>).

use super::labels::{LabelSet, Wanted, sanitize};

/// Value of `__error__` for a line that strict parsing refuses.
pub const LOGFMT_ERROR: &str = "LogfmtParserErr";

/// How to read, and what to take.
#[derive(Debug, Clone, Default)]
pub struct Logfmt {
    /// Stop with an error at a badly formed pair, instead of stepping over it.
    pub strict: bool,
    /// Keys without value become labels with the empty value.
    pub keep_empty: bool,
    /// Label and key; empty takes every key.
    pub extractions: Vec<(String, String)>,
}

/// Buffers that outlive a line.
#[derive(Debug, Default)]
pub struct LogfmtScratch {
    key: String,
    value: String,
}

impl Logfmt {
    /// Adds the line's pairs to the labels.
    pub fn parse(&self, line: &str, labels: &mut LabelSet, wanted: &Wanted, scratch: &mut LogfmtScratch) {
        let bytes = line.as_bytes();
        let mut at = 0;
        loop {
            while at < bytes.len() && bytes[at] <= b' ' {
                at += 1;
            }
            if at == bytes.len() {
                return;
            }
            let key_start = at;
            while at < bytes.len() && bytes[at] > b' ' && bytes[at] != b'=' && bytes[at] != b'"' {
                at += 1;
            }
            let key = &line[key_start..at];
            let has_value = bytes.get(at) == Some(&b'=');
            let mut problem = None;
            if bytes.get(at) == Some(&b'"') {
                problem = Some("unexpected '\"'");
            } else if key.is_empty() {
                problem = Some("unexpected '='");
            }
            let mut value = "";
            if has_value && problem.is_none() {
                at += 1;
                if bytes.get(at) == Some(&b'"') {
                    match quoted(line, at, &mut scratch.value) {
                        Some(end) => {
                            at = end;
                            value = &scratch.value;
                            if bytes.get(at).is_some_and(|b| *b > b' ') {
                                problem = Some("text after a closing quote");
                            }
                        }
                        None => problem = Some("unterminated quoted value"),
                    }
                } else {
                    let start = at;
                    while at < bytes.len() && bytes[at] > b' ' && bytes[at] != b'=' && bytes[at] != b'"' {
                        at += 1;
                    }
                    value = &line[start..at];
                    if bytes.get(at).is_some_and(|b| *b > b' ') {
                        problem = Some("unexpected character in a value");
                    }
                }
            }
            if let Some(problem) = problem {
                if self.strict {
                    labels.set_error(
                        LOGFMT_ERROR,
                        format_args!("logfmt syntax error at pos {}: {problem}", at + 1),
                    );
                    return;
                }
                while at < bytes.len() && bytes[at] > b' ' {
                    at += 1;
                }
                continue;
            }
            self.add(key, value, labels, wanted, &mut scratch.key);
        }
    }

    fn add(&self, key: &str, value: &str, labels: &mut LabelSet, wanted: &Wanted, buffer: &mut String) {
        if self.extractions.is_empty() {
            if value.is_empty() && !self.keep_empty {
                return;
            }
            buffer.clear();
            sanitize(key, buffer);
            if wanted.needs(buffer) {
                labels.add_parsed(buffer, value, wanted);
            }
            return;
        }
        for (label, wanted_key) in &self.extractions {
            if wanted_key == key && wanted.needs(label) {
                labels.add_parsed(label, value, wanted);
            }
        }
    }
}

/// Unescapes the quoted value at `start` and gives the offset behind it.
fn quoted(line: &str, start: usize, out: &mut String) -> Option<usize> {
    out.clear();
    let bytes = line.as_bytes();
    let mut at = start + 1;
    loop {
        let found = at + memchr::memchr2(b'"', b'\\', &bytes[at..])?;
        out.push_str(&line[at..found]);
        if bytes[found] == b'"' {
            return Some(found + 1);
        }
        let escape = line[found + 1..].chars().next()?;
        match escape {
            'n' => out.push('\n'),
            't' => out.push('\t'),
            'r' => out.push('\r'),
            'u' => {
                let code =
                    line.get(found + 2..found + 6).and_then(|hex| u32::from_str_radix(hex, 16).ok())?;
                out.push(char::from_u32(code).unwrap_or(char::REPLACEMENT_CHARACTER));
                at = found + 6;
                continue;
            }
            other => out.push(other),
        }
        at = found + 1 + escape.len_utf8();
    }
}
