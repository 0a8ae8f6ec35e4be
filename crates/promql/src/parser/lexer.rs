//! Text into tokens. Keywords are told from names by the parser, which knows where it stands.

use super::{ParseError, Pos};

/// A token's kind.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Kind {
    /// A name; may hold colons outside braces and brackets.
    Name,
    Number(f64),
    /// A duration, seconds.
    Duration(f64),
    Text(String),
    /// Anything else, as written.
    Punct(&'static str),
    End,
}

/// A token and where it stands.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Token {
    pub kind: Kind,
    pub pos: Pos,
    pub end: Pos,
}

const PUNCTUATION: [&str; 28] = [
    "==", "=~", "!=", "!~", "<=", ">=", "</", ">/", "=", "<", ">", "+", "-", "*", "/", "%", "^", "(", ")",
    "{", "}", "[", "]", ",", ":", "@", ";", "!",
];

/// All tokens of a query, the end among them.
pub(super) fn tokens(input: &str) -> Result<Vec<Token>, ParseError> {
    let mut lexer = Lexer { input, at: 0, braces: false, brackets: false, parens: 0 };
    let mut tokens = Vec::new();
    loop {
        let token = lexer.token()?;
        let done = token.kind == Kind::End;
        tokens.push(token);
        if done {
            return Ok(tokens);
        }
    }
}

struct Lexer<'a> {
    input: &'a str,
    at: Pos,
    braces: bool,
    brackets: bool,
    parens: usize,
}

impl Lexer<'_> {
    fn rest(&self) -> &str {
        &self.input[self.at..]
    }

    fn peek(&self) -> Option<char> {
        self.rest().chars().next()
    }

    fn fail<T>(&self, pos: Pos, message: impl Into<String>) -> Result<T, ParseError> {
        Err(ParseError::new(self.input, pos, message))
    }

    fn token(&mut self) -> Result<Token, ParseError> {
        loop {
            match self.peek() {
                Some(' ' | '\t' | '\n' | '\r') => self.at += 1,
                Some('#') => self.at += self.rest().find(['\n', '\r']).unwrap_or(self.rest().len()),
                _ => break,
            }
        }
        let pos = self.at;
        let kind = self.kind(pos)?;
        Ok(Token { kind, pos, end: self.at })
    }

    fn kind(&mut self, pos: Pos) -> Result<Kind, ParseError> {
        let Some(first) = self.peek() else {
            return if self.braces {
                self.fail(pos, "unexpected end of input inside braces")
            } else if self.parens > 0 {
                self.fail(pos, "unclosed left parenthesis")
            } else if self.brackets {
                self.fail(pos, "unclosed left bracket")
            } else {
                Ok(Kind::End)
            };
        };
        let second = self.rest().chars().nth(1);
        match first {
            '"' | '\'' | '`' => return self.text(first),
            _ if is_alpha(first) || (first == ':' && !self.braces && !self.brackets) => {
                let colons = !self.braces && !self.brackets;
                let length = self.rest().find(|c| !(is_alnum(c) || colons && c == ':'));
                self.at += length.unwrap_or(self.rest().len());
                return Ok(Kind::Name);
            }
            _ if !self.braces
                && (first.is_ascii_digit() || first == '.' && second.is_some_and(|c| c.is_ascii_digit())) =>
            {
                return self.number(pos);
            }
            _ => {}
        }
        let Some(punct) = PUNCTUATION.iter().find(|punct| self.rest().starts_with(**punct)) else {
            let place = if self.braces { " inside braces" } else { "" };
            return self.fail(pos, format!("unexpected character{place}: {}", quote_char(first)));
        };
        self.at += punct.len();
        match *punct {
            "{" if self.braces => return self.fail(pos, "unexpected left brace '{'"),
            "{" => self.braces = true,
            "}" if !self.braces => return self.fail(pos, "unexpected character: '}'"),
            "}" => self.braces = false,
            "[" if self.brackets => return self.fail(pos, "unexpected left bracket '['"),
            "[" => self.brackets = true,
            "]" if !self.brackets => return self.fail(pos, "unexpected right bracket ']'"),
            "]" => self.brackets = false,
            "(" => self.parens += 1,
            ")" if self.parens == 0 => return self.fail(pos, "unexpected right parenthesis ')'"),
            ")" => self.parens -= 1,
            "!" | "!~" if !self.braces => {
                let next = second.map_or("end of input".to_owned(), quote_char);
                return self.fail(pos, format!("unexpected character after '!': {next}"));
            }
            "=~" if !self.braces => return self.fail(pos, "unexpected character after '=': '~'"),
            "!" => {
                let next = second.map_or("end of input".to_owned(), quote_char);
                return self.fail(pos, format!("unexpected character after '!' inside braces: {next}"));
            }
            _ => {}
        }
        Ok(Kind::Punct(punct))
    }

    fn number(&mut self, pos: Pos) -> Result<Kind, ParseError> {
        let bytes = self.rest().as_bytes();
        let hex = bytes.len() > 1 && bytes[0] == b'0' && matches!(bytes[1], b'x' | b'X');
        let mut length = 0;
        while let Some(&byte) = bytes.get(length) {
            let sign = matches!(byte, b'+' | b'-')
                && !hex
                && matches!(bytes[length - 1], b'e' | b'E')
                && bytes.get(length + 1).is_some_and(u8::is_ascii_digit);
            if !(byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_') || length > 0 && sign) {
                break;
            }
            length += 1;
        }
        let text = &self.rest()[..length];
        let kind = number(text).map(Kind::Number).or_else(|| duration(text).map(Kind::Duration));
        let Some(kind) = kind else {
            return self.fail(pos, format!("bad number or duration syntax: {}", crate::format::quote(text)));
        };
        self.at += length;
        Ok(kind)
    }

    fn text(&mut self, quote: char) -> Result<Kind, ParseError> {
        let start = self.at;
        self.at += 1;
        if quote == '`' {
            let Some(length) = self.rest().find('`') else {
                return self.fail(start, "unterminated raw string");
            };
            let text = self.rest()[..length].to_owned();
            self.at += length + 1;
            return Ok(Kind::Text(text));
        }
        let mut bytes = Vec::new();
        loop {
            let Some(char) = self.peek().filter(|char| *char != '\n') else {
                return self.fail(start, "unterminated quoted string");
            };
            self.at += char.len_utf8();
            if char == quote {
                break;
            }
            if char == '\\' {
                self.escape(start, quote, &mut bytes)?;
            } else {
                bytes.extend_from_slice(char.encode_utf8(&mut [0; 4]).as_bytes());
            }
        }
        Ok(Kind::Text(String::from_utf8_lossy(&bytes).into_owned()))
    }

    fn escape(&mut self, start: Pos, quote: char, bytes: &mut Vec<u8>) -> Result<(), ParseError> {
        let Some(char) = self.peek() else {
            return self.fail(start, "escape sequence not terminated");
        };
        self.at += char.len_utf8();
        let simple = match char {
            'a' => 7,
            'b' => 8,
            'f' => 12,
            'n' => b'\n',
            'r' => b'\r',
            't' => b'\t',
            'v' => 11,
            '\\' => b'\\',
            _ if char == quote => quote as u8,
            '0'..='7' | 'x' | 'u' | 'U' => return self.code(start, char, bytes),
            _ => {
                let code = char as u32;
                return self.fail(start, format!("unknown escape sequence U+{code:04X} '{char}'"));
            }
        };
        bytes.push(simple);
        Ok(())
    }

    fn code(&mut self, start: Pos, kind: char, bytes: &mut Vec<u8>) -> Result<(), ParseError> {
        let (digits, radix) = match kind {
            'x' => (2, 16),
            'u' => (4, 16),
            'U' => (8, 16),
            _ => {
                self.at -= 1;
                (3, 8)
            }
        };
        let code = self.rest().get(..digits).and_then(|text| u32::from_str_radix(text, radix).ok());
        let Some(code) = code else {
            return self.fail(start, "illegal character in escape sequence");
        };
        self.at += digits;
        if matches!(kind, 'u' | 'U') {
            let Some(char) = char::from_u32(code) else {
                return self.fail(start, "escape sequence is an invalid Unicode code point");
            };
            bytes.extend_from_slice(char.encode_utf8(&mut [0; 4]).as_bytes());
        } else {
            let Ok(byte) = u8::try_from(code) else {
                return self.fail(start, "escape sequence is an invalid Unicode code point");
            };
            bytes.push(byte);
        }
        Ok(())
    }
}

/// `'x'`, as error messages name a character.
fn quote_char(char: char) -> String {
    format!("'{char}'")
}

fn is_alpha(char: char) -> bool {
    char.is_ascii_alphabetic() || char == '_'
}

fn is_alnum(char: char) -> bool {
    char.is_ascii_alphanumeric() || char == '_'
}

/// A number as the language writes it: decimal, `0x` hexadecimal, leading-zero octal, with underscores.
pub(crate) fn number(text: &str) -> Option<f64> {
    if text.ends_with('_') || text.contains("__") || text.contains("_.") || text.contains("._") {
        return None;
    }
    let plain = text.replace('_', "");
    if let Some(digits) = plain.strip_prefix("0x").or_else(|| plain.strip_prefix("0X")) {
        return i64::from_str_radix(digits, 16).ok().map(|value| value as f64);
    }
    if plain.len() > 1
        && plain.starts_with('0')
        && plain.bytes().all(|byte| byte.is_ascii_digit())
        && let Ok(value) = i64::from_str_radix(&plain, 8)
    {
        return Some(value as f64);
    }
    let numeric = |c: char| c.is_ascii_digit() || matches!(c, '.' | 'e' | 'E' | '+' | '-');
    if plain.chars().all(numeric) { plain.parse().ok() } else { None }
}

/// A duration such as `1h30m`, seconds. Units go from large to small, each once.
pub(crate) fn duration(text: &str) -> Option<f64> {
    const UNITS: [(&str, f64); 7] = [
        ("y", 31_536_000.0),
        ("w", 604_800.0),
        ("d", 86_400.0),
        ("h", 3_600.0),
        ("m", 60.0),
        ("s", 1.0),
        ("ms", 0.001),
    ];
    let mut rest = text;
    let mut millis = 0.0;
    let mut from = 0;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit()).filter(|length| *length > 0)?;
        let count: f64 = rest[..digits].parse().ok()?;
        rest = &rest[digits..];
        let length = rest.find(|c: char| c.is_ascii_digit()).unwrap_or(rest.len());
        let unit = UNITS[from..].iter().position(|(name, _)| *name == &rest[..length])? + from;
        millis += count * UNITS[unit].1 * 1000.0;
        from = unit + 1;
        rest = &rest[length..];
    }
    (!text.is_empty()).then_some(millis.round() / 1000.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_and_durations() {
        for (text, value) in [("0x1F", 31.0), ("1_000", 1000.0), ("010", 8.0), ("1e3", 1000.0), (".5", 0.5)] {
            assert_eq!(number(text), Some(value), "{text}");
        }
        assert_eq!(number("1_"), None);
        for (text, seconds) in [("1h30m", 5400.0), ("5ms", 0.005), ("1y", 31_536_000.0)] {
            assert_eq!(duration(text), Some(seconds), "{text}");
        }
        assert_eq!(duration("30m1h"), None);
        assert_eq!(duration("5"), None);
    }

    #[test]
    fn strings_are_unquoted() {
        let kinds: Vec<Kind> =
            tokens(r#""a\"\x41é" 'it''s' `raw\n`"#).unwrap().into_iter().map(|token| token.kind).collect();
        let text = |text: &str| Kind::Text(text.to_owned());
        assert_eq!(kinds, [text("a\"Aé"), text("it"), text("s"), text("raw\\n"), Kind::End]);
    }
}
