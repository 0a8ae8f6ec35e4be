//! Reading JSON (RFC 8259) from front to back: no tree, no copies, every fault names its byte.
//!
//! The text is checked to be UTF-8 once, before. Strings come as slices of the input and are
//! unescaped only where they hold a backslash. Passing over a value checks its grammar fully and
//! uses no recursion, so no nesting can overflow the stack. One tolerance beyond the RFC's
//! grammar: a lone surrogate escape becomes U+FFFD instead of an error, since loggers of
//! JavaScript and Java write them.

use memchr::memchr;

use crate::DecodeError;

/// A reader at some place of the text.
pub(crate) struct Json<'a> {
    text: &'a str,
    at: usize,
    /// What [`Json::skip`] is inside of: `true` for objects.
    open: Vec<bool>,
    /// Whether `NaN`, `Infinity` and `-Infinity` may stand without quotes.
    any_number: bool,
}

/// A string as it stands in the input, without its quotes; its escapes are valid.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Str<'a> {
    raw: &'a str,
    escaped: bool,
}

/// Any value; containers are passed over and remembered by place.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Value<'a> {
    Null,
    Bool(bool),
    /// As spelled.
    Number(&'a str),
    Str(Str<'a>),
    /// An object or array: where it begins, and its text.
    Nested(usize, &'a str),
}

impl<'a> Str<'a> {
    /// A text without escapes.
    pub(crate) const fn plain(raw: &'a str) -> Self {
        Self { raw, escaped: false }
    }

    /// The text as spelled, escapes included.
    pub(crate) fn raw(self) -> &'a str {
        self.raw
    }

    /// The text, when it needs no unescaping.
    pub(crate) fn as_plain(self) -> Option<&'a str> {
        (!self.escaped).then_some(self.raw)
    }

    /// The text; `buffer` is used only when there is something to unescape.
    #[inline]
    pub(crate) fn text<'s>(self, buffer: &'s mut String) -> &'s str
    where
        'a: 's,
    {
        if !self.escaped {
            return self.raw;
        }
        buffer.clear();
        self.pieces(|piece| buffer.push_str(piece));
        buffer
    }

    /// Hands out the text in pieces.
    #[inline]
    pub(crate) fn pieces(self, mut take: impl FnMut(&str)) {
        if !self.escaped {
            return take(self.raw);
        }
        let mut rest = self.raw;
        while let Some(at) = memchr(b'\\', rest.as_bytes()) {
            if at > 0 {
                take(&rest[..at]);
            }
            let escape = rest.as_bytes()[at + 1];
            let mut used = at + 2;
            match escape {
                b'n' => take("\n"),
                b't' => take("\t"),
                b'r' => take("\r"),
                b'b' => take("\u{8}"),
                b'f' => take("\u{c}"),
                b'u' => {
                    let mut code = hex4(&rest[used..]);
                    used += 4;
                    // A pair of surrogates is one character; a lone one is none.
                    if (0xd800..0xdc00).contains(&code)
                        && let Some(low) = rest[used..].strip_prefix("\\u").map(hex4)
                        && (0xdc00..0xe000).contains(&low)
                    {
                        code = 0x1_0000 + ((code - 0xd800) << 10 | (low - 0xdc00));
                        used += 6;
                    }
                    let character = char::from_u32(code).unwrap_or(char::REPLACEMENT_CHARACTER);
                    take(character.encode_utf8(&mut [0; 4]));
                }
                // `"`, `\` and `/` stand for themselves.
                _ => take(&rest[at + 1..at + 2]),
            }
            rest = &rest[used..];
        }
        if !rest.is_empty() {
            take(rest);
        }
    }
}

/// Four hex digits that were checked to be there.
fn hex4(text: &str) -> u32 {
    text.bytes().take(4).fold(0, |code, digit| code << 4 | char::from(digit).to_digit(16).unwrap_or(0))
}

impl<'a> Json<'a> {
    pub(crate) fn new(text: &'a str) -> Self {
        Self { text, at: 0, open: Vec::new(), any_number: false }
    }

    /// Also takes `NaN`, `Infinity` and `-Infinity` without quotes, as Python and others write them where a
    /// value is none or too large.
    pub(crate) fn with_any_number(self) -> Self {
        Self { any_number: true, ..self }
    }

    /// Checks that the body is UTF-8.
    pub(crate) fn from_bytes(bytes: &'a [u8]) -> Result<Self, DecodeError> {
        if let Ok(text) = simdutf8::basic::from_utf8(bytes) {
            return Ok(Self::new(text));
        }
        let offset = std::str::from_utf8(bytes).map_or_else(|e| e.valid_up_to(), str::len);
        Err(DecodeError::Json { offset, reason: "bytes that are not UTF-8".into() })
    }

    /// Where the next byte is read.
    pub(crate) fn position(&self) -> usize {
        self.at
    }

    /// Goes to a place that was read before.
    pub(crate) fn rewind(&mut self, position: usize) {
        debug_assert!(self.text.is_char_boundary(position));
        self.at = position;
    }

    #[cold]
    pub(crate) fn fault(&self, reason: &str) -> DecodeError {
        DecodeError::Json { offset: self.at, reason: reason.into() }
    }

    /// The next byte that is not white space; 0 at the end.
    #[inline]
    pub(crate) fn peek(&mut self) -> u8 {
        let bytes = self.text.as_bytes();
        while let Some(byte) = bytes.get(self.at) {
            if !matches!(byte, b' ' | b'\n' | b'\r' | b'\t') {
                return *byte;
            }
            self.at += 1;
        }
        0
    }

    #[inline]
    fn expect(&mut self, byte: u8, reason: &str) -> Result<(), DecodeError> {
        if self.peek() == byte && self.at < self.text.len() {
            self.at += 1;
            return Ok(());
        }
        Err(self.fault(reason))
    }

    /// Nothing but white space may follow.
    pub(crate) fn end(&mut self) -> Result<(), DecodeError> {
        self.peek();
        if self.at == self.text.len() { Ok(()) } else { Err(self.fault("text after the end of the value")) }
    }

    /// Enters an object; then call [`Json::member`] until it is `None`.
    pub(crate) fn object(&mut self) -> Result<(), DecodeError> {
        self.expect(b'{', "expected an object")
    }

    /// Name of the next member, before its value; `None` at the end. `first` begins as `true`.
    #[inline]
    pub(crate) fn member(&mut self, first: &mut bool) -> Result<Option<Str<'a>>, DecodeError> {
        match self.peek() {
            b'}' => {
                self.at += 1;
                return Ok(None);
            }
            b',' if !*first => self.at += 1,
            _ if *first => {}
            _ => return Err(self.fault("expected , or } in an object")),
        }
        *first = false;
        let name = self.name()?;
        Ok(Some(name))
    }

    #[inline]
    fn name(&mut self) -> Result<Str<'a>, DecodeError> {
        if self.peek() != b'"' {
            return Err(self.fault("expected a member name in quotes"));
        }
        let name = self.string()?;
        self.expect(b':', "expected : after a member name")?;
        Ok(name)
    }

    /// Enters an array; then call [`Json::element`] until it is `false`.
    pub(crate) fn array(&mut self) -> Result<(), DecodeError> {
        self.expect(b'[', "expected an array")
    }

    /// Whether an element follows; `first` begins as `true`.
    #[inline]
    pub(crate) fn element(&mut self, first: &mut bool) -> Result<bool, DecodeError> {
        match self.peek() {
            b']' => {
                // `[1,]` is caught by the value that is missing.
                self.at += 1;
                return Ok(false);
            }
            b',' if !*first => {
                self.at += 1;
                if self.peek() == b']' {
                    return Err(self.fault("expected a value after a comma"));
                }
            }
            _ if *first => {}
            _ => return Err(self.fault("expected , or ] in an array")),
        }
        *first = false;
        Ok(true)
    }

    /// Runs over the elements of the array that is next.
    #[inline]
    pub(crate) fn each<E: From<DecodeError>>(
        &mut self,
        mut element: impl FnMut(&mut Self) -> Result<(), E>,
    ) -> Result<(), E> {
        self.array()?;
        let mut first = true;
        while self.element(&mut first)? {
            element(self)?;
        }
        Ok(())
    }

    /// Reads at a place that was passed over, and comes back.
    pub(crate) fn at(
        &mut self,
        place: usize,
        read: impl FnOnce(&mut Self) -> Result<(), DecodeError>,
    ) -> Result<(), DecodeError> {
        let back = std::mem::replace(&mut self.at, place);
        read(self)?;
        self.at = back;
        Ok(())
    }

    /// A string.
    #[inline]
    pub(crate) fn string(&mut self) -> Result<Str<'a>, DecodeError> {
        self.expect(b'"', "expected a string")?;
        let start = self.at;
        let bytes = self.text.as_bytes();
        let mut escaped = false;
        loop {
            self.at = special(bytes, self.at);
            match bytes.get(self.at) {
                Some(b'"') => {
                    let raw = &self.text[start..self.at];
                    self.at += 1;
                    return Ok(Str { raw, escaped });
                }
                Some(b'\\') => {
                    escaped = true;
                    match bytes.get(self.at + 1) {
                        Some(b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't') => self.at += 2,
                        Some(b'u')
                            if bytes
                                .get(self.at + 2..self.at + 6)
                                .is_some_and(|digits| digits.iter().all(u8::is_ascii_hexdigit)) =>
                        {
                            self.at += 6;
                        }
                        _ => return Err(self.fault("an escape that JSON does not know")),
                    }
                }
                Some(_) => return Err(self.fault("a control character inside a string; write it as \\u00XX")),
                None => return Err(self.fault("the text ends inside a string")),
            }
        }
    }

    /// A number as spelled.
    pub(crate) fn number(&mut self) -> Result<&'a str, DecodeError> {
        self.peek();
        let bytes = self.text.as_bytes();
        let start = self.at;
        let digits = |mut at: usize| {
            let from = at;
            while bytes.get(at).is_some_and(u8::is_ascii_digit) {
                at += 1;
            }
            (at > from).then_some(at)
        };
        let mut at = start + usize::from(bytes.get(start) == Some(&b'-'));
        let integer = at;
        let ends = (|| {
            at = digits(at)?;
            // No leading zeros.
            if bytes[integer] == b'0' && at > integer + 1 {
                return None;
            }
            if bytes.get(at) == Some(&b'.') {
                at = digits(at + 1)?;
            }
            if matches!(bytes.get(at), Some(b'e' | b'E')) {
                at = digits(at + 1 + usize::from(matches!(bytes.get(at + 1), Some(b'+' | b'-'))))?;
            }
            Some(at)
        })();
        match ends {
            Some(end) => {
                self.at = end;
                Ok(&self.text[start..end])
            }
            None if self.any_number => {
                let words = ["NaN", "Infinity", "-Infinity"];
                let word = words.into_iter().find(|word| self.text[start..].starts_with(word));
                let word = word.ok_or_else(|| self.fault("expected a value"))?;
                self.at = start + word.len();
                Ok(word)
            }
            None => Err(self.fault("expected a value")),
        }
    }

    fn literal(&mut self, word: &str) -> Result<(), DecodeError> {
        if self.text.as_bytes()[self.at..].starts_with(word.as_bytes()) {
            self.at += word.len();
            return Ok(());
        }
        Err(self.fault("expected a value"))
    }

    /// Any value; containers are passed over.
    #[inline]
    pub(crate) fn value(&mut self) -> Result<Value<'a>, DecodeError> {
        match self.peek() {
            b'"' => Ok(Value::Str(self.string()?)),
            b'{' | b'[' => {
                let start = self.at;
                self.skip()?;
                Ok(Value::Nested(start, &self.text[start..self.at]))
            }
            b't' => self.literal("true").map(|()| Value::Bool(true)),
            b'f' => self.literal("false").map(|()| Value::Bool(false)),
            b'n' => self.literal("null").map(|()| Value::Null),
            _ => Ok(Value::Number(self.number()?)),
        }
    }

    /// Passes over `null` when it is next.
    pub(crate) fn null(&mut self) -> Result<bool, DecodeError> {
        if self.peek() != b'n' {
            return Ok(false);
        }
        self.literal("null").map(|()| true)
    }

    /// Passes over one value of any kind.
    pub(crate) fn skip(&mut self) -> Result<(), DecodeError> {
        self.open.clear();
        loop {
            match self.peek() {
                b'{' => {
                    self.at += 1;
                    if self.peek() != b'}' {
                        self.name()?;
                        self.open.push(true);
                        continue;
                    }
                    self.at += 1;
                }
                b'[' => {
                    self.at += 1;
                    if self.peek() != b']' {
                        self.open.push(false);
                        continue;
                    }
                    self.at += 1;
                }
                _ => {
                    self.value()?;
                }
            }
            // A value has ended: leave what ends with it, go on to its sibling.
            loop {
                let Some(object) = self.open.last().copied() else { return Ok(()) };
                match (self.peek(), object) {
                    (b',', true) => {
                        self.at += 1;
                        self.name()?;
                        break;
                    }
                    (b',', false) => {
                        self.at += 1;
                        break;
                    }
                    (b'}', true) | (b']', false) => {
                        self.at += 1;
                        self.open.pop();
                    }
                    (_, true) => return Err(self.fault("expected , or } in an object")),
                    (_, false) => return Err(self.fault("expected , or ] in an array")),
                }
            }
        }
    }
}

/// Position of the first quote, backslash or control character from `at` on, or the length.
/// Eight bytes at a time: in each byte, the high bit of `hit` is exact up to the first match.
#[inline]
fn special(bytes: &[u8], mut at: usize) -> usize {
    const ONES: u64 = u64::MAX / 255;
    const HIGH: u64 = ONES << 7;
    while let Some(chunk) = bytes[at.min(bytes.len())..].first_chunk::<8>() {
        let word = u64::from_le_bytes(*chunk);
        let quote = word ^ (ONES * u64::from(b'"'));
        let backslash = word ^ (ONES * u64::from(b'\\'));
        let hit = (quote.wrapping_sub(ONES) & !quote)
            | (backslash.wrapping_sub(ONES) & !backslash)
            | (word.wrapping_sub(ONES * 0x20) & !word);
        let hit = hit & HIGH;
        if hit != 0 {
            return at + (hit.trailing_zeros() / 8) as usize;
        }
        at += 8;
    }
    while at < bytes.len() && !matches!(bytes[at], b'"' | b'\\' | 0..=0x1f) {
        at += 1;
    }
    at
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn skips(text: &str) -> bool {
        let mut json = Json::new(text);
        json.skip().and_then(|()| json.end()).is_ok()
    }

    #[test]
    fn grammar_is_serde_jsons() {
        for text in [
            "",
            "{",
            "}",
            "[]",
            "[,]",
            "[1,]",
            "[1 2]",
            "{\"a\":1,}",
            "{\"a\" 1}",
            "{,}",
            "{1:2}",
            "01",
            "-",
            "-0",
            "1.",
            "1.5e",
            "1e+5",
            ".5",
            "+1",
            "nul",
            "null",
            "true",
            "truex",
            "\"\\x\"",
            "\"\\u12g4\"",
            "\"\\u00e9\"",
            "\"\n\"",
            "\"a",
            "1 1",
            " [ { \"a\" : [ ] } ] ",
            "[[[[]]]]",
            "[}",
            "{]",
            "[\"a\\\"]",
            "\0",
            "[\0]",
        ] {
            let want = serde_json::from_str::<serde_json::Value>(text).is_ok();
            assert_eq!(skips(text), want, "{text:?}");
        }
    }

    #[test]
    fn a_million_brackets_do_not_overflow_the_stack() {
        let text = "[".repeat(1_000_000) + &"]".repeat(1_000_000);
        assert!(skips(&text));
    }

    #[test]
    fn surrogates_pair_up_and_lone_ones_are_replaced() {
        let mut json = Json::new(r#""\ud83d\ude00 \ud83d \ude00\/\u0041""#);
        assert_eq!(json.string().unwrap().text(&mut String::new()), "😀 \u{fffd} \u{fffd}/A");
    }

    proptest! {
        #[test]
        fn strings_are_read_as_serde_json_writes_them(text in "\\PC{0,40}|[\"\\\\\n\u{0}-\u{1f}a]{0,40}") {
            let written = serde_json::to_string(&text).unwrap();
            let mut json = Json::new(&written);
            let read = json.string().unwrap();
            let mut buffer = String::new();
            prop_assert_eq!(read.text(&mut buffer), text.as_str());
            prop_assert!(json.end().is_ok());
        }

        #[test]
        fn any_text_is_taken_or_refused_as_serde_json_does(text in "[\\[\\]{},:\"0-9a-c\\-. ]{0,24}") {
            prop_assert_eq!(skips(&text), serde_json::from_str::<serde_json::Value>(&text).is_ok());
        }
    }
}
