//! The labels of the line at hand.
//!
//! One [`LabelSet`] is reused for all lines of a query: names and values are spans into the text
//! of the stream's labels or into a scratch text, so a line costs no heap allocation once the
//! scratch has grown.

use std::{fmt::Write as _, sync::Arc};

use trine_model::Severity;
use trine_schema::{Stream, label_name};

use crate::request::{Label, LabelKind};

/// Label that tells what went wrong with a line.
pub const ERROR: &str = "__error__";
/// Label with the particulars.
pub const ERROR_DETAILS: &str = "__error_details__";
/// Level made from the severity where nothing else names it; shown in results.
pub const DETECTED_LEVEL: &str = "detected_level";
/// Like [`DETECTED_LEVEL`], but only answers when asked for by name, and steps aside for any
/// label, attribute or parsed field of that name.
pub const LEVEL: &str = "level";
/// Added to a parsed name that the stream or the record already has.
const EXTRACTED: &str = "_extracted";

#[derive(Debug, Clone, Copy)]
struct Span {
    start: u32,
    len: u32,
    /// In the stream's text, not in the scratch.
    base: bool,
}

#[derive(Debug, Clone, Copy)]
struct LabelEntry {
    name: Span,
    value: Span,
    kind: LabelKind,
}

/// Labels of a stream under their Prometheus-style names.
#[derive(Debug, Default)]
pub struct BaseLabels {
    text: String,
    entries: Vec<LabelEntry>,
}

impl BaseLabels {
    /// Of one stream. When two stored names look alike, the first in order of name wins.
    pub fn new(stream: &Stream) -> Self {
        let mut found = Self::default();
        let mut pairs: Vec<(String, &str)> =
            stream.labels.iter().map(|(name, value)| (label_name(name), value)).collect();
        pairs.sort_by(|a, b| a.0.cmp(&b.0));
        pairs.dedup_by(|later, first| later.0 == first.0);
        if !stream.service().is_empty() && !pairs.iter().any(|(name, _)| name == "service_name") {
            pairs.push(("service_name".to_owned(), stream.service()));
            pairs.sort_by(|a, b| a.0.cmp(&b.0));
        }
        for (name, value) in pairs {
            let name = found.append(&name);
            let value = found.append(value);
            found.entries.push(LabelEntry { name, value, kind: LabelKind::Stream });
        }
        found
    }

    fn append(&mut self, text: &str) -> Span {
        let start = self.text.len() as u32;
        self.text.push_str(text);
        Span { start, len: text.len() as u32, base: true }
    }

    /// Name and value pairs, sorted by name.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        let of = |span: Span| &self.text[span.start as usize..][..span.len as usize];
        self.entries.iter().map(move |entry| (of(entry.name), of(entry.value)))
    }

    /// Value of a label.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.iter().find(|(key, _)| *key == name).map(|(_, value)| value)
    }
}

/// Which names a stage has to deliver.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Wanted {
    /// Every name.
    All,
    /// Only these; sorted.
    Names(Vec<String>),
}

impl Wanted {
    /// Whether this name is wanted.
    pub fn has(&self, name: &str) -> bool {
        match self {
            Self::All => true,
            Self::Names(names) => names.iter().any(|wanted| wanted == name),
        }
    }

    /// Whether a parser has to deliver this name, which may end up with `_extracted` behind it.
    pub fn needs(&self, name: &str) -> bool {
        let extracted = |wanted: &String| wanted.strip_suffix(EXTRACTED).is_some_and(|plain| plain == name);
        match self {
            Self::All => true,
            Self::Names(names) => names.iter().any(|wanted| wanted == name || extracted(wanted)),
        }
    }
}

/// The labels of one line.
#[derive(Debug, Default)]
pub struct LabelSet {
    base: Arc<BaseLabels>,
    text: String,
    entries: Vec<LabelEntry>,
    /// Lower-case word of the record's level, empty when unset.
    level: &'static str,
    error: &'static str,
    error_details: String,
    name_buffer: String,
}

/// Lower-case word of a severity's level.
pub fn level_word(severity: u8) -> &'static str {
    use trine_model::Level::{Debug, Error, Fatal, Info, Trace, Unset, Warn};
    match Severity::from_number(i64::from(severity)).level() {
        Unset => "",
        Trace => "trace",
        Debug => "debug",
        Info => "info",
        Warn => "warn",
        Error => "error",
        Fatal => "fatal",
    }
}

impl LabelSet {
    /// Begins a line of the stream.
    pub fn reset(&mut self, base: &Arc<BaseLabels>) {
        if !Arc::ptr_eq(&self.base, base) {
            self.base = base.clone();
        }
        self.text.clear();
        self.entries.clear();
        self.entries.extend_from_slice(&base.entries);
        self.level = "";
        self.error = "";
        self.error_details.clear();
    }

    /// Sets the level that the record's severity gives; after the other metadata.
    pub fn set_level(&mut self, word: &'static str, show: bool) {
        self.level = word;
        if show && !word.is_empty() && self.position(DETECTED_LEVEL).is_none() {
            self.push(DETECTED_LEVEL, word, LabelKind::Metadata);
        }
    }

    fn of(&self, span: Span) -> &str {
        let text = if span.base { &self.base.text } else { &self.text };
        &text[span.start as usize..][..span.len as usize]
    }

    fn append(&mut self, text: &str) -> Span {
        let start = self.text.len() as u32;
        self.text.push_str(text);
        Span { start, len: text.len() as u32, base: false }
    }

    fn position(&self, name: &str) -> Option<usize> {
        self.entries
            .iter()
            .position(|entry| entry.name.len as usize == name.len() && self.of(entry.name) == name)
    }

    fn push(&mut self, name: &str, value: &str, kind: LabelKind) {
        let name = self.append(name);
        let value = self.append(value);
        self.entries.push(LabelEntry { name, value, kind });
    }

    /// Value of a label, empty when it is missing.
    pub fn get(&self, name: &str) -> &str {
        match self.position(name) {
            Some(at) => self.of(self.entries[at].value),
            None => match name {
                LEVEL => self.level,
                ERROR => self.error,
                ERROR_DETAILS => &self.error_details,
                _ => "",
            },
        }
    }

    /// Adds metadata of the record under its Prometheus-style name, unless the name is taken.
    pub fn add_metadata(&mut self, stored_name: &str, value: &str, wanted: &Wanted) {
        let mut name = std::mem::take(&mut self.name_buffer);
        name.clear();
        sanitize(stored_name, &mut name);
        if wanted.has(&name) && self.position(&name).is_none() {
            self.push(&name, value, LabelKind::Metadata);
        }
        self.name_buffer = name;
    }

    /// Adds what a parser found. The first value of a name stays; a name that the stream or the
    /// record has gets `_extracted`.
    /// Returns whether the label is new.
    pub fn add_parsed(&mut self, name: &str, value: &str, wanted: &Wanted) -> bool {
        match self.position(name) {
            None => {
                let wanted = wanted.has(name);
                if wanted {
                    self.push(name, value, LabelKind::Parsed);
                }
                wanted
            }
            Some(at) if self.entries[at].kind == LabelKind::Parsed => false,
            Some(_) => {
                let mut longer = std::mem::take(&mut self.name_buffer);
                longer.clear();
                let _ = write!(longer, "{name}{EXTRACTED}");
                let new = wanted.has(&longer) && self.position(&longer).is_none();
                if new {
                    self.push(&longer, value, LabelKind::Parsed);
                }
                self.name_buffer = longer;
                new
            }
        }
    }

    /// Sets a label, whatever it was.
    pub fn set(&mut self, name: &str, value: &str) {
        let value = self.append(value);
        if let Some(at) = self.position(name) {
            self.entries[at] = LabelEntry { value, kind: LabelKind::Parsed, ..self.entries[at] };
        } else {
            let name = self.append(name);
            self.entries.push(LabelEntry { name, value, kind: LabelKind::Parsed });
        }
    }

    /// Renames a label; a missing one is left alone.
    pub fn rename(&mut self, from: &str, to: &str) {
        let value = match self.position(from) {
            Some(at) => self.entries.remove(at).value,
            None if from == LEVEL && !self.level.is_empty() => {
                let word = std::mem::take(&mut self.level);
                self.append(word)
            }
            None => return,
        };
        let name = self.append(to);
        if let Some(at) = self.position(to) {
            self.entries.remove(at);
        }
        self.entries.push(LabelEntry { name, value, kind: LabelKind::Parsed });
    }

    /// Removes a label.
    pub fn remove(&mut self, name: &str) {
        match self.position(name) {
            Some(at) => drop(self.entries.remove(at)),
            None => match name {
                LEVEL => self.level = "",
                ERROR => self.error = "",
                ERROR_DETAILS => self.error_details.clear(),
                _ => {}
            },
        }
    }

    /// Keeps the labels for which `keep` of name and value holds; errors stay.
    pub fn retain(&mut self, mut keep: impl FnMut(&str, &str) -> bool) {
        let mut entries = std::mem::take(&mut self.entries);
        entries.retain(|entry| keep(self.of(entry.name), self.of(entry.value)));
        self.entries = entries;
        if !self.level.is_empty() {
            if !keep(LEVEL, self.level) {
                self.level = "";
            } else if self.position(LEVEL).is_none() {
                self.push(LEVEL, self.level, LabelKind::Metadata);
            }
        }
    }

    /// Notes that a stage could not read the line; a later error replaces an earlier one.
    pub fn set_error(&mut self, error: &'static str, details: impl std::fmt::Display) {
        self.error = error;
        self.error_details.clear();
        let _ = write!(self.error_details, "{details}");
    }

    /// Whether a stage failed on this line.
    pub fn has_error(&self) -> bool {
        !self.error.is_empty()
    }

    /// Labels in no order: name, value, origin. Empty values are missing labels and left out.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str, LabelKind)> {
        let entries =
            self.entries.iter().map(|entry| (self.of(entry.name), self.of(entry.value), entry.kind));
        let errors = [
            (ERROR, self.error, LabelKind::Parsed),
            (ERROR_DETAILS, self.error_details.as_str(), LabelKind::Parsed),
        ];
        entries.chain(errors).filter(|(_, value, _)| !value.is_empty())
    }

    /// All labels, sorted by name.
    pub fn to_labels(&self) -> Vec<Label> {
        let mut labels: Vec<Label> = self
            .iter()
            .map(|(name, value, kind)| Label { name: name.to_owned(), value: value.to_owned(), kind })
            .collect();
        labels.sort();
        labels
    }
}

/// Appends a stored name as LogQL writes it, as [`label_name`] does but without allocating.
pub fn sanitize(name: &str, out: &mut String) {
    if out.is_empty() && name.as_bytes().first().is_some_and(u8::is_ascii_digit) {
        out.push('_');
    }
    if name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_') {
        out.push_str(name);
    } else {
        out.extend(name.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '_' }));
    }
}
