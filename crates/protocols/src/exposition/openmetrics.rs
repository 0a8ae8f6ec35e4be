//! OpenMetrics 1.0 text (<https://prometheus.io/docs/specs/om/open_metrics_spec/>), as strict in its blanks as
//! the specification and as lenient in what belongs to a family as Prometheus' reader.
//!
//! A `_created` line of a counter, histogram or summary is no series: it tells when the samples of its metric
//! began, those before it and those behind it.

use super::{
    Bad, ExpositionError, ExpositionExemplar, Kind, MetadataField, Series, Sink, bad, number,
    series::{self, Dialect, Part},
};

const CREATED: &[u8] = b"_created";

/// Where the name stands in a line of metadata.
const NAME: usize = "# HELP ".len();

pub(super) fn parse<S: Sink>(body: &[u8], sink: &mut S) -> Result<(), ExpositionError> {
    let mut reader = OpenMetrics {
        body,
        at: 0,
        family: &[],
        kind: Kind::Unknown,
        samples: 0,
        since_created: Vec::new(),
        created: None,
    };
    while reader.entry(sink).map_err(|bad| bad.in_line(body))? {}
    Ok(())
}

struct OpenMetrics<'a> {
    body: &'a [u8],
    at: usize,
    /// Name and type of the family.
    family: &'a [u8],
    kind: Kind,
    /// Samples told so far.
    samples: usize,
    /// Texts of the family's last samples, behind the last `_created` line and what belongs to it.
    since_created: Vec<&'a [u8]>,
    /// The `_created` line just read and its time in milliseconds, while samples of its metric follow.
    created: Option<(&'a [u8], i64)>,
}

impl<'a> OpenMetrics<'a> {
    /// Reads a line. `false` behind `# EOF`.
    fn entry<S: Sink>(&mut self, sink: &mut S) -> Result<bool, Bad> {
        match self.body.get(self.at) {
            None => bad(self.at.saturating_sub(1), "the body does not end with # EOF"),
            Some(b'#') => self.metadata(sink),
            Some(_) => self.sample(sink).map(|()| true),
        }
    }

    fn metadata<S: Sink>(&mut self, sink: &mut S) -> Result<bool, Bad> {
        let (begin, rest) = (self.at, &self.body[self.at..]);
        if let Some(after) = rest.strip_prefix(b"# EOF") {
            return match after {
                [] | [b'\n'] => Ok(false),
                _ => bad(begin, "nothing may follow # EOF"),
            };
        }
        let Some(length) = memchr::memchr(b'\n', rest) else {
            return bad(begin, "the body does not end with # EOF");
        };
        let line = &rest[..length];
        self.at += length + 1;
        let keyword = line.get(..NAME).unwrap_or_default();
        if !matches!(keyword, b"# HELP " | b"# TYPE " | b"# UNIT ") {
            return bad(begin, "a line with '#' is '# HELP', '# TYPE', '# UNIT' or '# EOF'");
        }
        let (name, after) = if line.get(NAME) == Some(&b'"') {
            let end = series::quoted(line, NAME, false)
                .map_err(|Bad { at, reason }| Bad { at: at + begin, reason })?;
            (&line[NAME + 1..end - 1], end)
        } else {
            let end = NAME + series::metric_name(&line[NAME..]);
            (&line[NAME..end], end)
        };
        if name.is_empty() || line.get(after) != Some(&b' ') {
            return bad(begin + NAME, "a metric name and a blank are expected behind HELP, TYPE and UNIT");
        }
        let (Ok(text_name), Ok(text)) = (std::str::from_utf8(name), std::str::from_utf8(&line[after + 1..]))
        else {
            return bad(begin + NAME, "metadata is not valid UTF-8");
        };
        if name != self.family || keyword == b"# TYPE " {
            self.family = name;
            self.since_created.clear();
            self.created = None;
        }
        let field = match keyword {
            b"# HELP " => {
                sink.metadata(text_name, MetadataField::Help(&series::unescaped(text.as_bytes())));
                return Ok(true);
            }
            b"# UNIT " => {
                let fits = text.is_empty()
                    || text_name.strip_suffix(text).is_some_and(|before| before.ends_with('_'));
                if !fits {
                    return bad(begin + after, "the name of the metric does not end with '_' and its unit");
                }
                MetadataField::Unit(text)
            }
            _ => {
                self.kind = match text {
                    "counter" => Kind::Counter,
                    "gauge" => Kind::Gauge,
                    "histogram" => Kind::Histogram,
                    "gaugehistogram" => Kind::GaugeHistogram,
                    "summary" => Kind::Summary,
                    "info" => Kind::Info,
                    "stateset" => Kind::StateSet,
                    "unknown" => Kind::Unknown,
                    _ => {
                        return bad(
                            begin + after,
                            "a type is counter, gauge, histogram, gaugehistogram, summary, info, stateset or \
                             unknown",
                        );
                    }
                };
                MetadataField::Kind(self.kind)
            }
        };
        sink.metadata(text_name, field);
        Ok(true)
    }

    fn sample<S: Sink>(&mut self, sink: &mut S) -> Result<(), Bad> {
        let (begin, rest) = (self.at, &self.body[self.at..]);
        let expected = sink.expected(rest);
        let length = match expected {
            Some(length) => length,
            None => series::scan(rest, Dialect::OpenMetrics, &mut |_| ())
                .map_err(|Bad { at, reason }| Bad { at: at + begin, reason })?,
        };
        self.at += length;
        let text = &rest[..length];
        let at = self.at;
        let value = self.word()?;
        let Some(number) = value.and_then(number::float) else {
            return bad(at, "a blank and a value are expected");
        };
        let at = self.at;
        let at_ms = match self.word()? {
            None => None,
            Some(word) => match number::seconds(word) {
                None => return bad(at, "the timestamp is not a number of seconds"),
                time => time,
            },
        };
        let exemplar = self.exemplar()?;
        match self.body.get(self.at) {
            Some(b'\n') => self.at += 1,
            None => return bad(begin, "the body does not end with # EOF"),
            Some(_) => return bad(self.at, "a line ends behind value, timestamp and exemplar"),
        }
        if expected.is_none() && self.kind.starts() && is_created(text, self.family) {
            if let Some(start_ms) = value.and_then(number::seconds) {
                self.created(text, start_ms, sink);
            }
            return Ok(());
        }
        let series = Series { text, dialect: Dialect::OpenMetrics, kind: self.kind };
        sink.float(&series, at_ms, number).map_err(|reason| Bad { at: begin, reason })?;
        self.samples += 1;
        if self.kind.starts() {
            match self.created {
                Some((created, start_ms)) if same_metric(text, created, self.kind) => {
                    sink.start(self.samples - 1, start_ms);
                }
                _ => {
                    self.created = None;
                    self.since_created.push(text);
                }
            }
        }
        if let Some(exemplar) = exemplar {
            sink.exemplar(exemplar);
        }
        Ok(())
    }

    /// The word behind one blank; `None` where the line ends or an exemplar begins.
    #[inline]
    fn word(&mut self) -> Result<Option<&'a [u8]>, Bad> {
        let rest = &self.body[self.at..];
        if rest.first() != Some(&b' ') || rest.starts_with(b" # {") {
            return Ok(None);
        }
        let length = rest[1..].iter().take_while(|byte| !matches!(byte, b' ' | b'\n')).count();
        if length == 0 {
            return bad(self.at, "one blank stands before a value or a timestamp");
        }
        self.at += 1 + length;
        Ok(Some(&rest[1..=length]))
    }

    /// ` # {label="value",…} value timestamp`
    fn exemplar(&mut self) -> Result<Option<ExpositionExemplar>, Bad> {
        let begin = self.at;
        let Some(rest) = self.body[begin..].strip_prefix(b" # ") else { return Ok(None) };
        if rest.first() != Some(&b'{') {
            return bad(begin + 3, "the exemplar's labels in braces are expected");
        }
        let mut labels = Vec::new();
        let mut name = false;
        let length = series::braces(rest, 0, Dialect::OpenMetrics, &mut |part| match part {
            Part::Name(_) => name = true,
            Part::Label(name, value) => {
                labels.push((series::owned(name), series::owned(value)));
            }
        })
        .map_err(|Bad { at, reason }| Bad { at: at + begin + 3, reason })?;
        if name {
            return bad(begin, "an exemplar has no metric name");
        }
        self.at = begin + 3 + length;
        let at = self.at;
        let Some(value) = self.word()?.and_then(number::float) else {
            return bad(at, "a blank and the exemplar's value are expected");
        };
        let at = self.at;
        let at_ms = match self.word()? {
            None => None,
            Some(word) => match number::seconds(word) {
                None => return bad(at, "the exemplar's timestamp is not a number of seconds"),
                time => time,
            },
        };
        Ok(Some(ExpositionExemplar { at_ms, value, labels }))
    }

    /// The samples of this `_created` line's metric began then: those just before, and those that follow.
    fn created<S: Sink>(&mut self, text: &'a [u8], start_ms: i64, sink: &mut S) {
        for back in 1..=self.since_created.len() {
            let sample = self.since_created[self.since_created.len() - back];
            if !same_metric(sample, text, self.kind) {
                break;
            }
            sink.start(self.samples - back, start_ms);
        }
        self.since_created.clear();
        self.created = Some((text, start_ms));
    }
}

/// Whether a sample has the labels of a `_created` line beside `le` or `quantile`, in the same order.
fn same_metric(sample: &[u8], created: &[u8], kind: Kind) -> bool {
    let (own, want) = (labels_of(sample), labels_of(created));
    if own == want {
        return true;
    }
    let Some(number) = kind.number_label() else { return false };
    // Nearly all targets write it last.
    if let Some(last) = own.strip_prefix(want)
        && let Some(value) = last.strip_prefix(b",").unwrap_or(last).strip_prefix(number.as_bytes())
        && value.starts_with(b"=\"")
        && series::quoted(value, 1, false).is_ok_and(|end| end == value.len())
    {
        return true;
    }
    listed(sample, Some(number)) == listed(created, None)
}

/// Whether the metric's name is `family` + `_created`.
fn is_created(text: &[u8], family: &[u8]) -> bool {
    let is = |name: &[u8]| name.strip_suffix(CREATED) == Some(family);
    if text.first() != Some(&b'{') {
        return is(&text[..series::metric_name(text)]);
    }
    let mut found = false;
    let mut look = |part: Part<'_>| found |= matches!(part, Part::Name(name) if is(name));
    series::scan(text, Dialect::OpenMetrics, &mut look).is_ok() && found
}

/// What stands in the braces, without a quoted metric name that comes first.
fn labels_of(text: &[u8]) -> &[u8] {
    let Some(inner) = text.strip_suffix(b"}") else { return &[] };
    if !inner.starts_with(b"{\"") {
        return inner.get(series::metric_name(inner) + 1..).unwrap_or_default();
    }
    let name = series::quoted(inner, 1, false).unwrap_or(inner.len());
    let rest = &inner[name.min(inner.len())..];
    rest.strip_prefix(b",").unwrap_or(rest)
}

fn listed<'a>(text: &'a [u8], without: Option<&str>) -> Vec<(&'a [u8], &'a [u8])> {
    let mut list = Vec::new();
    let _ = series::scan(text, Dialect::OpenMetrics, &mut |part| match part {
        Part::Label(name, value) if without.is_none_or(|without| name != without.as_bytes()) => {
            list.push((name, value));
        }
        _ => {}
    });
    list
}
