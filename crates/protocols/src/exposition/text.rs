//! The Prometheus text format
//! (<https://github.com/prometheus/docs/blob/main/docs/instrumenting/exposition_formats.md>), as strict as
//! Prometheus' own reader: what that refuses is refused.

use super::{
    Bad, ExpositionError, Kind, MetadataField, Series, Sink, bad, number,
    series::{self, Dialect},
};

pub(super) fn parse<S: Sink>(body: &[u8], sink: &mut S) -> Result<(), ExpositionError> {
    let mut reader = Text { body, at: 0, kind: Kind::Unknown };
    while reader.entry(sink).map_err(|bad| bad.in_line(body))? {}
    Ok(())
}

struct Text<'a> {
    body: &'a [u8],
    at: usize,
    kind: Kind,
}

impl<'a> Text<'a> {
    /// Reads a line, or a sample over several. `false` at the end.
    fn entry<S: Sink>(&mut self, sink: &mut S) -> Result<bool, Bad> {
        self.blanks();
        match self.body.get(self.at) {
            None => return Ok(false),
            Some(b'\n') => self.at += 1,
            Some(b'#') => self.comment(sink)?,
            Some(_) => self.sample(sink)?,
        }
        Ok(true)
    }

    #[inline]
    fn blanks(&mut self) {
        while let Some(b' ' | b'\t') = self.body.get(self.at) {
            self.at += 1;
        }
    }

    #[inline]
    fn word(&mut self) -> &'a [u8] {
        let rest = &self.body[self.at..];
        let length = rest.iter().take_while(|byte| !matches!(byte, b' ' | b'\t' | b'\n')).count();
        self.at += length;
        &rest[..length]
    }

    fn sample<S: Sink>(&mut self, sink: &mut S) -> Result<(), Bad> {
        let (begin, rest) = (self.at, &self.body[self.at..]);
        let length = match sink.expected(rest) {
            Some(length) => length,
            None => series::scan(rest, Dialect::Text, &mut |_| ())
                .map_err(|Bad { at, reason }| Bad { at: at + begin, reason })?,
        };
        self.at += length;
        self.blanks();
        let at = self.at;
        let Some(value) = number::float(self.word()) else { return bad(at, "the value is not a number") };
        self.blanks();
        let at = self.at;
        let at_ms = match self.word() {
            [] => None,
            word if word.iter().all(u8::is_ascii_digit) => match std::str::from_utf8(word).map(str::parse) {
                Ok(Ok(time)) => Some(time),
                _ => return bad(at, "the timestamp is beyond 64 bits"),
            },
            _ => return bad(at, "the timestamp is not a whole number of milliseconds"),
        };
        self.blanks();
        match self.body.get(self.at) {
            None | Some(b'\n') => self.at = (self.at + 1).min(self.body.len()),
            Some(_) => return bad(self.at, "a line ends behind value and timestamp"),
        }
        let series = Series { text: &rest[..length], dialect: Dialect::Text, kind: self.kind };
        sink.float(&series, at_ms, value).map_err(|reason| Bad { at: begin, reason })
    }

    /// `# HELP name text`, `# TYPE name type`, or a remark.
    fn comment<S: Sink>(&mut self, sink: &mut S) -> Result<(), Bad> {
        let rest = &self.body[self.at..];
        let line = &rest[..memchr::memchr(b'\n', rest).unwrap_or(rest.len())];
        let begin = self.at;
        self.at = (self.at + line.len() + 1).min(self.body.len());
        let Some((is_help, name_at)) = metadata_line(line) else { return Ok(()) };
        let name = match line.get(name_at) {
            Some(b'"') => {
                let end = series::quoted(line, name_at, false)
                    .map_err(|Bad { at, reason }| Bad { at: at + begin, reason })?;
                name_at + 1..end - 1
            }
            _ => name_at..name_at + series::metric_name(&line[name_at..]),
        };
        let after = name.end + usize::from(line.get(name_at) == Some(&b'"'));
        if name.is_empty() || line.get(after).is_some_and(|byte| !matches!(byte, b' ' | b'\t')) {
            return bad(begin + name_at, "a metric name is expected behind HELP and TYPE");
        }
        let Ok(name) = std::str::from_utf8(&line[name]) else {
            return bad(begin + name_at, "a name is not valid UTF-8");
        };
        let text = line.get(after + 1..).unwrap_or_default();
        if is_help {
            if std::str::from_utf8(text).is_err() {
                return bad(begin + after, "the help is not valid UTF-8");
            }
            sink.metadata(name, MetadataField::Help(&series::unescape(text, false)));
            return Ok(());
        }
        self.kind = match text.trim_ascii() {
            b"counter" => Kind::Counter,
            b"gauge" => Kind::Gauge,
            b"histogram" => Kind::Histogram,
            b"summary" => Kind::Summary,
            b"untyped" => Kind::Unknown,
            _ => return bad(begin + after, "a type is counter, gauge, histogram, summary or untyped"),
        };
        sink.metadata(name, MetadataField::Kind(self.kind));
        Ok(())
    }
}

/// Whether a line that begins with `#` is HELP (or TYPE), and where its name begins; `None` for a remark.
fn metadata_line(line: &[u8]) -> Option<(bool, usize)> {
    let blanks = |at: usize| line[at..].iter().take_while(|byte| matches!(byte, b' ' | b'\t')).count();
    let keyword = 1 + blanks(1);
    if keyword == 1 {
        return None;
    }
    let is_help = line[keyword..].starts_with(b"HELP");
    let known = is_help || line[keyword..].starts_with(b"TYPE");
    let name = keyword + 4 + if known { blanks(keyword + 4) } else { 0 };
    (known && name > keyword + 4).then_some((is_help, name))
}
