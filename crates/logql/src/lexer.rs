//! Query text to tokens. Words are not told apart here: LogQL's keywords may also be label names.

use crate::ParseError;

/// One token.
#[derive(Debug, Clone, PartialEq)]
pub enum Token {
    /// Letters, digits, `_`; also keywords.
    Word(String),
    /// Starts with a digit: number, duration or size, as the context says.
    Number(String),
    /// Quoted text, unescaped.
    Text(String),
    /// Operator or bracket.
    Sign(&'static str),
    /// The text is over.
    End,
}

impl Token {
    /// How a message names it.
    pub fn describe(&self) -> String {
        match self {
            Self::Word(word) => format!("`{}`", shorten(word)),
            Self::Number(text) => format!("`{}`", shorten(text)),
            Self::Text(text) => format!("the text {:?}", shorten(text)),
            Self::Sign(sign) => format!("`{sign}`"),
            Self::End => "the end of the query".to_owned(),
        }
    }
}

/// At most 40 characters, for messages.
pub fn shorten(text: &str) -> String {
    match text.char_indices().nth(40) {
        Some((at, _)) => format!("{}…", &text[..at]),
        None => text.to_owned(),
    }
}

/// Longest first, so that a prefix does not hide its longer sign.
const SIGNS: [&str; 32] = [
    "--", "|=", "|~", "|>", "!=", "!~", "!>", "=~", "==", ">=", "<=", "{", "}", "(", ")", "[", "]", ",", "|",
    "=", ">", "<", "+", "-", "*", "/", "%", "^", ".", ":", "@", ";",
];

/// Tokens with the byte offsets they start at; the last is [`Token::End`].
pub fn tokenize(query: &str) -> Result<Vec<(Token, usize)>, ParseError> {
    let mut tokens = Vec::new();
    let bytes = query.as_bytes();
    let mut at = 0;
    while at < bytes.len() {
        let start = at;
        match bytes[at] {
            b' ' | b'\t' | b'\n' | b'\r' => at += 1,
            b'#' => at = memchr::memchr(b'\n', &bytes[at..]).map_or(bytes.len(), |n| at + n),
            b'"' => {
                let (text, end) = quoted(query, at)?;
                tokens.push((Token::Text(text), start));
                at = end;
            }
            b'`' => {
                let Some(length) = memchr::memchr(b'`', &bytes[at + 1..]) else {
                    return Err(error_at(
                        query,
                        at,
                        "the text that begins here is not closed",
                        "add a backtick",
                    ));
                };
                tokens.push((Token::Text(query[at + 1..at + 1 + length].to_owned()), start));
                at += length + 2;
            }
            b'a'..=b'z' | b'A'..=b'Z' | b'_' => {
                while at < bytes.len() && (bytes[at].is_ascii_alphanumeric() || bytes[at] == b'_') {
                    at += 1;
                }
                tokens.push((Token::Word(query[start..at].to_owned()), start));
            }
            b'0'..=b'9' | b'.' if bytes[at] != b'.' || bytes.get(at + 1).is_some_and(u8::is_ascii_digit) => {
                at = number_end(query, at);
                tokens.push((Token::Number(query[start..at].to_owned()), start));
            }
            _ => {
                let Some(sign) = SIGNS.iter().find(|sign| query[at..].starts_with(**sign)) else {
                    let c = query[at..].chars().next().unwrap_or(' ');
                    let hint = if c == '\'' { "texts stand in double quotes or backticks" } else { "" };
                    return Err(error_at(query, at, &format!("unexpected character {c:?}"), hint));
                };
                // `--` only opens a flag; in `2 --1` it is two signs.
                let flag = *sign != "--" || bytes.get(at + 2).is_some_and(u8::is_ascii_alphabetic);
                let sign = if flag { *sign } else { "-" };
                tokens.push((Token::Sign(sign), start));
                at += sign.len();
            }
        }
    }
    tokens.push((Token::End, query.len()));
    Ok(tokens)
}

fn number_end(query: &str, start: usize) -> usize {
    let mut previous = ' ';
    let mut plain = true;
    for (i, c) in query[start..].char_indices() {
        let sign = matches!(c, '+' | '-')
            && matches!(previous, 'e' | 'E')
            && plain
            && query.as_bytes().get(start + i + 1).is_some_and(u8::is_ascii_digit);
        if !(c.is_ascii_alphanumeric() || matches!(c, '.' | 'µ' | 'μ') || sign) {
            return start + i;
        }
        plain &= c.is_ascii_digit() || matches!(c, '.' | 'e' | 'E');
        previous = c;
    }
    query.len()
}

/// The unescaped text of a double-quoted Go string and the offset behind it.
fn quoted(query: &str, start: usize) -> Result<(String, usize), ParseError> {
    let mut bytes = Vec::new();
    let mut chars = query[start + 1..].char_indices();
    let digits = |chars: &mut std::str::CharIndices<'_>, count: usize, radix: u32| -> Option<u32> {
        (0..count).try_fold(0u32, |value, _| {
            let digit = chars.next().and_then(|(_, c)| c.to_digit(radix))?;
            value.checked_mul(radix)?.checked_add(digit)
        })
    };
    while let Some((i, c)) = chars.next() {
        let bad = |what: &str| {
            error_at(query, start + 1 + i, what, "write \\\\ for a backslash, or put the text in backticks")
        };
        match c {
            '"' => {
                let text = String::from_utf8(bytes).map_err(|_| {
                    error_at(query, start, "the escapes of this text do not give valid UTF-8", "")
                })?;
                return Ok((text, start + 1 + i + 1));
            }
            '\n' => return Err(bad("a line break inside a double-quoted text")),
            '\\' => {
                let Some((_, escape)) = chars.next() else { break };
                let simple = match escape {
                    'n' => b'\n',
                    't' => b'\t',
                    'r' => b'\r',
                    'a' => 7,
                    'b' => 8,
                    'f' => 12,
                    'v' => 11,
                    '\\' | '"' | '\'' => escape as u8,
                    'x' => digits(&mut chars, 2, 16).ok_or_else(|| bad("\\x needs two hex digits"))? as u8,
                    '0'..='7' => {
                        let first = escape.to_digit(8).unwrap_or(0);
                        let rest = digits(&mut chars, 2, 8)
                            .ok_or_else(|| bad("an octal escape needs three digits"))?;
                        u8::try_from(first * 64 + rest)
                            .map_err(|_| bad("an octal escape is at most \\377"))?
                    }
                    'u' | 'U' => {
                        let count = if escape == 'u' { 4 } else { 8 };
                        let c = digits(&mut chars, count, 16)
                            .and_then(char::from_u32)
                            .ok_or_else(|| bad("this escape is no Unicode character"))?;
                        bytes.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes());
                        continue;
                    }
                    _ => return Err(bad(&format!("unknown escape \\{escape}"))),
                };
                bytes.push(simple);
            }
            c => bytes.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes()),
        }
    }
    Err(error_at(query, start, "the text that begins here is not closed", "add a double quote"))
}

/// An error that points at a byte offset.
pub fn error_at(query: &str, offset: usize, message: &str, hint: &str) -> ParseError {
    let before = &query[..offset.min(query.len())];
    let line_start = before.rfind('\n').map_or(0, |n| n + 1);
    ParseError {
        line: before.matches('\n').count() + 1,
        column: before[line_start..].chars().count() + 1,
        message: message.to_owned(),
        hint: hint.to_owned(),
    }
}
