//! The `json` and `unpack` parsers: one pass over the line, values copied only when wanted.

use super::labels::{LabelSet, Wanted, sanitize};

/// Deepest nesting of a document.
const MAX_DEPTH: usize = 128;

/// Value of `__error__` for a line that is no JSON object.
pub const JSON_ERROR: &str = "JSONParserErr";

/// What is wrong with a document, with the byte offset.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct JsonError(&'static str, usize);

impl std::fmt::Display for JsonError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} at byte {}", self.0, self.1)
    }
}

type Read<T> = Result<T, JsonError>;

/// One step of a path such as `a.b[0]["c"]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PathStep {
    /// Member of an object.
    Field(String),
    /// Element of an array.
    Index(usize),
}

/// Reads a path.
pub fn parse_path(text: &str) -> Result<Vec<PathStep>, String> {
    let bad = |what: &str| {
        format!(
            "invalid json path {:?}: {what}; write, for example, a.b[0][\"c d\"]",
            crate::lexer::shorten(text)
        )
    };
    let mut steps = Vec::new();
    let mut rest = text;
    while !rest.is_empty() {
        if let Some(inner) = rest.strip_prefix('[') {
            let (step, tail) = if let Some(quoted) = inner.strip_prefix('"') {
                let end = quoted.find("\"]").ok_or_else(|| bad("a bracket is not closed"))?;
                (PathStep::Field(quoted[..end].replace("\\\"", "\"")), &quoted[end + 2..])
            } else {
                let end = inner.find(']').ok_or_else(|| bad("a bracket is not closed"))?;
                let index = inner[..end].parse().map_err(|_| bad("an index is a whole number"))?;
                (PathStep::Index(index), &inner[end + 1..])
            };
            steps.push(step);
            rest = tail;
        } else {
            let body = if steps.is_empty() {
                rest
            } else {
                rest.strip_prefix('.').ok_or_else(|| bad("a dot is missing"))?
            };
            let end = body.find(['.', '[']).unwrap_or(body.len());
            if end == 0 {
                return Err(bad("a name is empty"));
            }
            steps.push(PathStep::Field(body[..end].to_owned()));
            rest = &body[end..];
        }
    }
    if steps.is_empty() { Err(bad("it is empty")) } else { Ok(steps) }
}

/// Buffers that outlive a line.
#[derive(Debug, Default)]
pub struct JsonScratch {
    path: String,
    key: String,
    value: String,
}

struct Reader<'a> {
    text: &'a str,
    at: usize,
}

/// A string as it stands, and whether it holds escapes.
type RawString<'a> = (&'a str, bool);

impl<'a> Reader<'a> {
    fn byte(&self) -> u8 {
        self.text.as_bytes().get(self.at).copied().unwrap_or(0)
    }

    fn space(&mut self) {
        while matches!(self.byte(), b' ' | b'\t' | b'\n' | b'\r') {
            self.at += 1;
        }
    }

    fn fail<T>(&self, what: &'static str) -> Read<T> {
        Err(JsonError(what, self.at))
    }

    fn expect(&mut self, byte: u8, what: &'static str) -> Read<()> {
        if self.byte() != byte {
            return self.fail(what);
        }
        self.at += 1;
        Ok(())
    }

    fn string(&mut self) -> Read<RawString<'a>> {
        self.expect(b'"', "expected a string")?;
        let start = self.at;
        let mut escapes = false;
        loop {
            let Some(found) = memchr::memchr2(b'"', b'\\', &self.text.as_bytes()[self.at..]) else {
                return self.fail("a string is not closed");
            };
            self.at += found;
            if self.byte() == b'"' {
                let raw = &self.text[start..self.at];
                self.at += 1;
                return Ok((raw, escapes));
            }
            escapes = true;
            self.at += 2;
            if self.at > self.text.len() || !self.text.is_char_boundary(self.at) {
                self.at = self.text.len().min(self.at);
                return self.fail("an escape is not valid");
            }
        }
    }

    /// A number or word, as it stands.
    fn scalar(&mut self) -> Read<&'a str> {
        let start = self.at;
        while matches!(self.byte(), b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'+' | b'-' | b'.') {
            self.at += 1;
        }
        let raw = &self.text[start..self.at];
        let number = raw.as_bytes().first().is_some_and(|b| b.is_ascii_digit() || *b == b'-');
        if number || matches!(raw, "true" | "false" | "null") {
            return Ok(raw);
        }
        self.at = start;
        self.fail("expected a value")
    }

    /// Steps over a value and gives its text.
    fn skip(&mut self, depth: usize) -> Read<&'a str> {
        let start = self.at;
        match self.byte() {
            b'"' => drop(self.string()?),
            open @ (b'{' | b'[') => {
                if depth == 0 {
                    return self.fail("the document nests too deep");
                }
                let close = open + 2;
                self.at += 1;
                self.space();
                if self.byte() == close {
                    self.at += 1;
                    return Ok(&self.text[start..self.at]);
                }
                loop {
                    self.space();
                    if open == b'{' {
                        self.key()?;
                    }
                    self.skip(depth - 1)?;
                    self.space();
                    if self.byte() != b',' {
                        break;
                    }
                    self.at += 1;
                }
                self.expect(close, "expected `,` or a closing bracket")?;
            }
            _ => drop(self.scalar()?),
        }
        Ok(&self.text[start..self.at])
    }

    /// `"key":` with the reader behind it at the value.
    fn key(&mut self) -> Read<RawString<'a>> {
        let key = self.string()?;
        self.space();
        self.expect(b':', "expected `:`")?;
        self.space();
        Ok(key)
    }

    /// Calls `each` with every key, the reader at its value, which `each` has to read.
    fn members(&mut self, mut each: impl FnMut(&mut Self, RawString<'a>) -> Read<bool>) -> Read<bool> {
        self.expect(b'{', "expected an object")?;
        self.space();
        if self.byte() == b'}' {
            self.at += 1;
            return Ok(true);
        }
        loop {
            self.space();
            let key = self.key()?;
            if !each(self, key)? {
                return Ok(false);
            }
            self.space();
            if self.byte() != b',' {
                self.expect(b'}', "expected `,` or `}`")?;
                return Ok(true);
            }
            self.at += 1;
        }
    }
}

/// The text of a raw string, in `buffer` when it held escapes.
fn unescaped<'t>(raw: RawString<'t>, buffer: &'t mut String) -> &'t str {
    if !raw.1 {
        return raw.0;
    }
    buffer.clear();
    let mut rest = raw.0;
    while let Some(at) = memchr::memchr(b'\\', rest.as_bytes()) {
        buffer.push_str(&rest[..at]);
        let escape = rest.as_bytes().get(at + 1).copied().unwrap_or(b'\\');
        rest = rest.get(at + 2..).unwrap_or("");
        match escape {
            b'n' => buffer.push('\n'),
            b't' => buffer.push('\t'),
            b'r' => buffer.push('\r'),
            b'b' => buffer.push('\u{8}'),
            b'f' => buffer.push('\u{c}'),
            b'u' => {
                let hex = |text: &str| text.get(..4).and_then(|digits| u32::from_str_radix(digits, 16).ok());
                let Some(unit) = hex(rest) else {
                    buffer.push(char::REPLACEMENT_CHARACTER);
                    continue;
                };
                rest = &rest[4..];
                let low = rest.strip_prefix("\\u").and_then(hex).filter(|low| (0xDC00..0xE000).contains(low));
                let mut code = unit;
                if let (0xD800..0xDC00, Some(low)) = (unit, low) {
                    code = 0x10000 + ((unit - 0xD800) << 10) + (low - 0xDC00);
                    rest = &rest[6..];
                }
                buffer.push(char::from_u32(code).unwrap_or(char::REPLACEMENT_CHARACTER));
            }
            other => buffer.push(other as char),
        }
    }
    buffer.push_str(rest);
    buffer
}

/// `| json`: every leaf of the object becomes a label, nested names joined with `_`; arrays and
/// nulls are skipped. Stops early once `wanted` names are all found.
pub fn flatten(line: &str, labels: &mut LabelSet, wanted: &Wanted, scratch: &mut JsonScratch) {
    let mut reader = Reader { text: line, at: 0 };
    reader.space();
    let mut left = match wanted {
        Wanted::All => usize::MAX,
        Wanted::Names(names) if names.is_empty() => return,
        Wanted::Names(names) => names.len(),
    };
    scratch.path.clear();
    let result = flatten_object(&mut reader, labels, wanted, scratch, MAX_DEPTH, &mut left).and_then(|all| {
        reader.space();
        if all && reader.at < line.len() { reader.fail("text after the document") } else { Ok(()) }
    });
    if let Err(error) = result {
        labels.set_error(JSON_ERROR, error);
    }
}

fn flatten_object(
    reader: &mut Reader<'_>,
    labels: &mut LabelSet,
    wanted: &Wanted,
    scratch: &mut JsonScratch,
    depth: usize,
    left: &mut usize,
) -> Read<bool> {
    if depth == 0 {
        return reader.fail("the document nests too deep");
    }
    reader.members(|reader, key| {
        let before = scratch.path.len();
        if before > 0 {
            scratch.path.push('_');
        }
        let mut buffer = std::mem::take(&mut scratch.key);
        sanitize(unescaped(key, &mut buffer), &mut scratch.path);
        scratch.key = buffer;
        let go_on = match reader.byte() {
            b'{' => flatten_object(reader, labels, wanted, scratch, depth - 1, left)?,
            b'[' => {
                reader.skip(depth)?;
                true
            }
            b'"' => {
                let raw = reader.string()?;
                if wanted.needs(&scratch.path)
                    && labels.add_parsed(&scratch.path, unescaped(raw, &mut scratch.value), wanted)
                {
                    *left -= 1;
                }
                *left > 0
            }
            _ => {
                let raw = reader.scalar()?;
                if raw != "null"
                    && wanted.needs(&scratch.path)
                    && labels.add_parsed(&scratch.path, raw, wanted)
                {
                    *left -= 1;
                }
                *left > 0
            }
        };
        scratch.path.truncate(before);
        Ok(go_on)
    })
}

/// `| json a="b.c[0]"`: the value at the path; objects and arrays as JSON text.
pub fn extract(
    line: &str,
    label: &str,
    path: &[PathStep],
    labels: &mut LabelSet,
    wanted: &Wanted,
    buffer: &mut String,
) {
    if !wanted.needs(label) {
        return;
    }
    let mut reader = Reader { text: line, at: 0 };
    reader.space();
    if !matches!(reader.byte(), b'{' | b'[') {
        labels.set_error(JSON_ERROR, JsonError("expected an object", reader.at));
        return;
    }
    match find(&mut reader, path) {
        Ok(true) => {}
        Ok(false) => return,
        Err(error) => {
            labels.set_error(JSON_ERROR, error);
            return;
        }
    }
    let value = match reader.byte() {
        b'"' => reader.string().map(|raw| unescaped(raw, buffer)),
        b'{' | b'[' => reader.skip(MAX_DEPTH),
        _ => reader.scalar(),
    };
    match value {
        Ok("null") => {}
        Ok(value) => drop(labels.add_parsed(label, value, wanted)),
        Err(error) => labels.set_error(JSON_ERROR, error),
    }
}

/// Moves the reader to the value at the path.
fn find(reader: &mut Reader<'_>, path: &[PathStep]) -> Read<bool> {
    let mut key_buffer = String::new();
    for step in path {
        reader.space();
        let found = match step {
            PathStep::Field(name) => {
                if reader.byte() != b'{' {
                    return Ok(false);
                }
                !reader.members(|reader, key| {
                    let hit = unescaped(key, &mut key_buffer) == name;
                    if !hit {
                        reader.skip(MAX_DEPTH)?;
                    }
                    Ok(!hit)
                })?
            }
            PathStep::Index(index) => {
                if reader.byte() != b'[' {
                    return Ok(false);
                }
                reader.at += 1;
                reader.space();
                let mut left = *index;
                while left > 0 && reader.byte() != b']' {
                    reader.skip(MAX_DEPTH)?;
                    reader.space();
                    if reader.byte() != b',' {
                        break;
                    }
                    reader.at += 1;
                    reader.space();
                    left -= 1;
                }
                left == 0 && reader.byte() != b']'
            }
        };
        if !found {
            return Ok(false);
        }
    }
    reader.space();
    Ok(true)
}

/// `| unpack`: the object's strings become labels, `_entry` becomes the line. Returns the new
/// line in `line_out` when there is one.
pub fn unpack(line: &str, labels: &mut LabelSet, scratch: &mut JsonScratch, line_out: &mut String) -> bool {
    let mut reader = Reader { text: line, at: 0 };
    reader.space();
    let mut replaced = false;
    let result = reader.members(|reader, key| {
        if reader.byte() != b'"' {
            reader.skip(MAX_DEPTH)?;
            return Ok(true);
        }
        let raw = reader.string()?;
        let value = unescaped(raw, &mut scratch.value);
        let key = unescaped(key, &mut scratch.key);
        if key == "_entry" {
            line_out.clear();
            line_out.push_str(value);
            replaced = true;
        } else {
            scratch.path.clear();
            sanitize(key, &mut scratch.path);
            labels.add_parsed(&scratch.path, value, &Wanted::All);
        }
        Ok(true)
    });
    if let Err(error) = result {
        labels.set_error(JSON_ERROR, error);
    }
    replaced
}
