//! Labels while they are worked on.

use std::collections::{BTreeMap, btree_map};

use trine_schema::{Labels, LabelsError};

/// Labels by name. An empty value is none: setting it takes the label away.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct LabelSet(BTreeMap<String, String>);

impl LabelSet {
    /// The value, or an empty text.
    pub fn get(&self, name: &str) -> &str {
        self.0.get(name).map_or("", String::as_str)
    }

    /// Sets a label, or takes it away where the value is empty.
    pub fn set(&mut self, name: impl Into<String>, value: impl Into<String>) {
        let (name, value) = (name.into(), value.into());
        if value.is_empty() {
            self.0.remove(&name);
        } else {
            self.0.insert(name, value);
        }
    }

    /// Takes a label away.
    pub fn remove(&mut self, name: &str) {
        self.0.remove(name);
    }

    /// Keeps the labels whose name fits.
    pub fn retain(&mut self, mut fits: impl FnMut(&str) -> bool) {
        self.0.retain(|name, _| fits(name));
    }

    /// Names and values by name.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(name, value)| (name.as_str(), value.as_str()))
    }

    /// Number of labels.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The labels that are shown and stored: those whose name does not begin with `__`.
    #[must_use]
    pub fn public(&self) -> Self {
        let mut labels = self.clone();
        labels.retain(|name| !name.starts_with("__"));
        labels
    }

    /// As a stream's labels.
    pub fn labels(&self) -> Result<Labels, LabelsError> {
        Labels::new(self.iter().map(|(name, value)| (name.into(), value.into())).collect())
    }

    /// As a JSON object.
    pub fn to_json(&self) -> serde_json::Value {
        self.iter().map(|(name, value)| (name.to_owned(), serde_json::Value::from(value))).collect()
    }
}

impl<N: Into<String>, V: Into<String>> FromIterator<(N, V)> for LabelSet {
    fn from_iter<I: IntoIterator<Item = (N, V)>>(pairs: I) -> Self {
        let mut labels = Self::default();
        pairs.into_iter().for_each(|(name, value)| labels.set(name, value));
        labels
    }
}

impl IntoIterator for LabelSet {
    type Item = (String, String);
    type IntoIter = btree_map::IntoIter<String, String>;

    fn into_iter(self) -> Self::IntoIter {
        self.0.into_iter()
    }
}
