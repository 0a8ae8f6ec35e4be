//! Reading the fields of a mapping, with every error told and not only the first.

use std::{
    fmt,
    path::{Path, PathBuf},
    str::FromStr,
    time::Duration,
};

use crate::{
    duration,
    yaml::{Fault, Node, Place, Value},
};

/// What is wrong with a configuration, and where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigError {
    /// The file.
    pub file: PathBuf,
    /// Line and column.
    pub place: Place,
    /// What is wrong and what to do.
    pub reason: String,
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: {}", self.file.display(), self.place, self.reason)
    }
}

impl std::error::Error for ConfigError {}

/// Collects what is wrong with one file.
pub(crate) struct Notes<'a> {
    file: &'a Path,
    pub(crate) errors: Vec<ConfigError>,
    pub(crate) warnings: Vec<ConfigError>,
}

impl<'a> Notes<'a> {
    pub(crate) fn new(file: &'a Path) -> Self {
        Self { file, errors: Vec::new(), warnings: Vec::new() }
    }

    pub(crate) fn error(&mut self, place: Place, reason: impl Into<String>) {
        self.errors.push(ConfigError { file: self.file.to_owned(), place, reason: reason.into() });
    }

    pub(crate) fn fault(&mut self, (place, reason): Fault) {
        self.error(place, reason);
    }

    pub(crate) fn warn(&mut self, place: Place, reason: impl Into<String>) {
        self.warnings.push(ConfigError { file: self.file.to_owned(), place, reason: reason.into() });
    }

    /// The folder that relative paths start from.
    pub(crate) fn path(&self, text: &str) -> PathBuf {
        self.file.parent().unwrap_or(Path::new("")).join(text)
    }
}

/// The fields of a mapping. Each is asked for once; [`Fields::end`] tells those nobody asked for.
pub(crate) struct Fields<'n> {
    /// How errors call the mapping.
    what: String,
    pairs: &'n [(Node, Node)],
    asked: Vec<&'static str>,
    pub(crate) place: Place,
}

impl<'n> Fields<'n> {
    /// `None`, with the error told, when the node is no mapping; an empty node has no fields.
    pub(crate) fn of(node: &'n Node, what: impl Into<String>, notes: &mut Notes<'_>) -> Option<Self> {
        let what = what.into();
        let pairs = match &node.value {
            Value::Map(pairs) => &pairs[..],
            Value::Null => &[],
            _ => {
                notes.error(node.place, format!("{what} is {}, not a mapping of fields", node.what()));
                return None;
            }
        };
        Some(Self { what, pairs, asked: Vec::new(), place: node.place })
    }

    /// A field's node, unless it is not there or empty.
    pub(crate) fn node(&mut self, name: &'static str) -> Option<&'n Node> {
        self.asked.push(name);
        let (_, node) = self.pairs.iter().find(|(key, _)| key.text() == Some(name))?;
        (!matches!(node.value, Value::Null)).then_some(node)
    }

    /// Whether the field is written, even if empty.
    pub(crate) fn place_of(&self, name: &str) -> Option<Place> {
        self.pairs.iter().find(|(key, _)| key.text() == Some(name)).map(|(key, _)| key.place)
    }

    /// A field read by `read`, whose error says what is expected instead of the text.
    pub(crate) fn read<T>(
        &mut self,
        name: &'static str,
        notes: &mut Notes<'_>,
        read: impl FnOnce(&str) -> Result<T, String>,
    ) -> Option<T> {
        let node = self.node(name)?;
        let Some(text) = node.text() else {
            notes.error(node.place, format!("{name} is {}, not a single value", node.what()));
            return None;
        };
        read(text).map_err(|reason| notes.error(node.place, format!("{name}: {reason}"))).ok()
    }

    pub(crate) fn text(&mut self, name: &'static str, notes: &mut Notes<'_>) -> Option<String> {
        self.read(name, notes, |text| Ok(text.to_owned()))
    }

    pub(crate) fn truth(&mut self, name: &'static str, notes: &mut Notes<'_>) -> Option<bool> {
        self.read(name, notes, |text| match text.to_ascii_lowercase().as_str() {
            "true" | "yes" | "on" | "y" => Ok(true),
            "false" | "no" | "off" | "n" => Ok(false),
            _ => Err(format!("{text:?} is neither true nor false")),
        })
    }

    pub(crate) fn number<T: FromStr>(&mut self, name: &'static str, notes: &mut Notes<'_>) -> Option<T> {
        self.read(name, notes, |text| text.parse().map_err(|_| format!("{text:?} is not a whole number")))
    }

    /// A limit: 0 is none.
    pub(crate) fn limit(&mut self, name: &'static str, notes: &mut Notes<'_>) -> Option<usize> {
        self.number(name, notes).filter(|limit| *limit > 0)
    }

    pub(crate) fn duration(&mut self, name: &'static str, notes: &mut Notes<'_>) -> Option<Duration> {
        self.read(name, notes, |text| {
            duration::parse(text).ok_or_else(|| format!("{text:?} is not a duration such as 15s or 1m30s"))
        })
        .filter(|duration| !duration.is_zero())
    }

    /// Nodes of a list; a single value is none.
    pub(crate) fn list(&mut self, name: &'static str, notes: &mut Notes<'_>) -> &'n [Node] {
        match self.node(name) {
            None => &[],
            Some(Node { value: Value::List(list), .. }) => list,
            Some(node) => {
                notes.error(node.place, format!("{name} is {}, not a list", node.what()));
                &[]
            }
        }
    }

    /// Texts of a list, with their places.
    pub(crate) fn texts(&mut self, name: &'static str, notes: &mut Notes<'_>) -> Vec<(&'n str, Place)> {
        let mut texts = Vec::new();
        for node in self.list(name, notes) {
            match node.text() {
                Some(text) => texts.push((text, node.place)),
                None => notes.error(node.place, format!("{name} holds {}, not texts", node.what())),
            }
        }
        texts
    }

    /// Names and texts of a mapping.
    pub(crate) fn pairs(&mut self, name: &'static str, notes: &mut Notes<'_>) -> Vec<(&'n str, &'n Node)> {
        match self.node(name) {
            None => Vec::new(),
            Some(Node { value: Value::Map(pairs), .. }) => {
                pairs.iter().filter_map(|(name, value)| Some((name.text()?, value))).collect()
            }
            Some(node) => {
                notes.error(node.place, format!("{name} is {}, not a mapping", node.what()));
                Vec::new()
            }
        }
    }

    /// Fields of Prometheus that change nothing here: told as a warning.
    pub(crate) fn ignore(&mut self, names: &[&'static str], why: &str, notes: &mut Notes<'_>) {
        for name in names {
            self.asked.push(name);
            if let Some(place) = self.place_of(name) {
                notes.warn(place, format!("{name} is ignored: {why}"));
            }
        }
    }

    /// Tells the fields that nobody asked for.
    pub(crate) fn end(self, notes: &mut Notes<'_>) {
        for (name, _) in self.pairs {
            let Some(text) = name.text().filter(|text| !self.asked.contains(text)) else { continue };
            let reason = if text.ends_with("_sd_configs") {
                format!("{text} is not supported; targets come from static_configs and file_sd_configs")
            } else {
                format!(
                    "{} has no field {text:?} that is supported; these are: {}",
                    self.what,
                    self.asked.join(", ")
                )
            };
            notes.error(name.place, reason);
        }
    }
}
