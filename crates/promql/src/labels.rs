//! Label sets and the matchers that select them.

use std::{
    cmp::Ordering,
    fmt,
    hash::{Hash, Hasher},
    sync::Arc,
};

use regex::Regex;

/// Name of the label that holds a metric's name.
pub const METRIC_NAME: &str = "__name__";
/// Labels that describe the metric itself and go when its meaning changes.
const METADATA: [&str; 3] = [METRIC_NAME, "__type__", "__unit__"];

/// A label: its name and its value.
pub type Label = (Arc<str>, Arc<str>);

/// A set of labels, sorted by name, shared. An empty value is the same as no label.
#[derive(Clone)]
pub struct Labels {
    all: Arc<[Label]>,
    /// The labels before this one are no longer of the set: a metric's name goes from most of what is
    /// calculated, and is mostly the first.
    from: usize,
}

impl Default for Labels {
    fn default() -> Self {
        Vec::new().into()
    }
}

impl From<Vec<Label>> for Labels {
    fn from(sorted: Vec<Label>) -> Self {
        Self { all: sorted.into(), from: 0 }
    }
}

impl FromIterator<Label> for Labels {
    fn from_iter<I: IntoIterator<Item = Label>>(sorted: I) -> Self {
        sorted.into_iter().collect::<Vec<_>>().into()
    }
}

impl PartialEq for Labels {
    fn eq(&self, other: &Self) -> bool {
        self.own() == other.own()
    }
}

impl Eq for Labels {}

impl Hash for Labels {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.own().hash(state);
    }
}

impl PartialOrd for Labels {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Labels {
    fn cmp(&self, other: &Self) -> Ordering {
        self.own().cmp(other.own())
    }
}

impl fmt::Debug for Labels {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.own()).finish()
    }
}

impl Labels {
    /// Builds a set from pairs in any order; of two with one name the last counts.
    pub fn new<N: Into<Arc<str>>, V: Into<Arc<str>>>(pairs: impl IntoIterator<Item = (N, V)>) -> Self {
        let mut all: Vec<Label> = Vec::new();
        for (name, value) in pairs {
            let (name, value) = (name.into(), value.into());
            all.retain(|(known, _)| *known != name);
            if !value.is_empty() {
                all.push((name, value));
            }
        }
        all.sort_unstable();
        all.into()
    }

    /// Takes pairs that are already sorted by name and free of doubles and empty values.
    pub fn from_sorted(pairs: Vec<Label>) -> Self {
        debug_assert!(pairs.windows(2).all(|pair| pair[0].0 < pair[1].0), "labels are not sorted");
        pairs.into()
    }

    fn own(&self) -> &[Label] {
        &self.all[self.from..]
    }

    /// The value of a label, empty if there is none.
    pub fn get(&self, name: &str) -> &str {
        self.own().iter().find(|(known, _)| &**known == name).map_or("", |(_, value)| value)
    }

    /// The metric's name, empty if there is none.
    pub fn metric_name(&self) -> &str {
        self.get(METRIC_NAME)
    }

    /// All labels, sorted by name.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.own().iter().map(|(name, value)| (&**name, &**value))
    }

    /// How many labels there are.
    pub fn len(&self) -> usize {
        self.own().len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.own().is_empty()
    }

    /// The labels of which `keep` says so.
    pub(crate) fn filter(&self, mut keep: impl FnMut(&str) -> bool) -> Self {
        if self.own().iter().all(|(name, _)| keep(name)) {
            return self.clone();
        }
        self.own().iter().filter(|(name, _)| keep(name)).cloned().collect()
    }

    /// Without the metric's name, type and unit.
    pub(crate) fn without_metadata(&self) -> Self {
        let is_metadata = |(name, _): &Label| METADATA.contains(&&**name);
        let own = self.own();
        let leading = own.iter().take_while(|label| is_metadata(label)).count();
        if own[leading..].iter().any(is_metadata) {
            return self.filter(|name| !METADATA.contains(&name));
        }
        // As it is for most sets: others need no copy.
        Self { all: self.all.clone(), from: self.from + leading }
    }

    /// With one label set, or removed if the value is empty.
    pub(crate) fn with(&self, name: &str, value: &str) -> Self {
        let mut all: Vec<Label> = self.own().iter().filter(|(known, _)| &**known != name).cloned().collect();
        if !value.is_empty() {
            let at = all.partition_point(|(known, _)| &**known < name);
            all.insert(at, (name.into(), value.into()));
        }
        all.into()
    }

    /// The labels a vector match compares: those named (`on`), or all others but the metric's name.
    pub(crate) fn matching(&self, on: bool, names: &[String]) -> Self {
        self.filter(|label| {
            let named = names.iter().any(|name| name == label);
            if on { named } else { !named && label != METRIC_NAME }
        })
    }

    /// Prometheus' hash of a label set (its `stringlabels` form), on which `limit_ratio` rests.
    pub(crate) fn prometheus_hash(&self) -> u64 {
        let mut data = Vec::with_capacity(64);
        for text in self.iter().flat_map(|(name, value)| [name, value]) {
            if text.len() < 255 {
                data.push(text.len() as u8);
            } else {
                data.push(255);
                data.extend_from_slice(&(text.len() as u32).to_le_bytes()[..3]);
            }
            data.extend_from_slice(text.as_bytes());
        }
        xxhash_rust::xxh64::xxh64(&data, 0)
    }

    /// Order of Prometheus' answers: label by label, a shorter set first.
    pub fn compare(&self, other: &Self) -> Ordering {
        self.cmp(other)
    }
}

/// Whether a name can stand without quotes as a label's name.
pub(crate) fn is_plain_label(name: &str) -> bool {
    let mut bytes = name.bytes();
    bytes.next().is_some_and(|first| first.is_ascii_alphabetic() || first == b'_')
        && bytes.all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
}

impl fmt::Display for Labels {
    /// As Prometheus prints a label set: `{a="x", b="y"}`, the metric's name among them.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("{")?;
        for (position, (name, value)) in self.iter().enumerate() {
            if position > 0 {
                f.write_str(", ")?;
            }
            if is_plain_label(name) {
                write!(f, "{name}={}", crate::format::quote(value))?;
            } else {
                write!(f, "{}={}", crate::format::quote(name), crate::format::quote(value))?;
            }
        }
        f.write_str("}")
    }
}

/// How a matcher compares.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MatchOp {
    /// `=`
    Equal,
    /// `!=`
    NotEqual,
    /// `=~`
    Regex,
    /// `!~`
    NotRegex,
}

/// A condition on one label.
#[derive(Clone, Debug)]
pub struct Matcher {
    /// The label's name.
    pub name: String,
    /// How its value is compared.
    pub op: MatchOp,
    /// With what.
    pub value: String,
    regex: Option<Regex>,
}

impl Matcher {
    /// Builds a matcher; fails on a regular expression that does not parse.
    pub fn new(op: MatchOp, name: impl Into<String>, value: impl Into<String>) -> Result<Self, String> {
        let value = value.into();
        let regex = match op {
            MatchOp::Regex | MatchOp::NotRegex => Some(anchored(&value)?),
            MatchOp::Equal | MatchOp::NotEqual => None,
        };
        Ok(Self { name: name.into(), op, value, regex })
    }

    /// The compiled regular expression of `=~` and `!~`, anchored.
    pub fn regex(&self) -> Option<&Regex> {
        self.regex.as_ref()
    }

    /// Whether a label with this value (empty: no such label) is wanted.
    pub fn matches(&self, value: &str) -> bool {
        let regex = || self.regex.as_ref().is_some_and(|regex| regex.is_match(value));
        match self.op {
            MatchOp::Equal => value == self.value,
            MatchOp::NotEqual => value != self.value,
            MatchOp::Regex => regex(),
            MatchOp::NotRegex => !regex(),
        }
    }
}

impl PartialEq for Matcher {
    fn eq(&self, other: &Self) -> bool {
        self.op == other.op && self.name == other.name && self.value == other.value
    }
}

impl fmt::Display for Matcher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let op = match self.op {
            MatchOp::Equal => "=",
            MatchOp::NotEqual => "!=",
            MatchOp::Regex => "=~",
            MatchOp::NotRegex => "!~",
        };
        if is_plain_label(&self.name) {
            write!(f, "{}{op}{}", self.name, crate::format::quote(&self.value))
        } else {
            write!(f, "{}{op}{}", crate::format::quote(&self.name), crate::format::quote(&self.value))
        }
    }
}

/// A regular expression that must match all of a value.
pub(crate) fn anchored(pattern: &str) -> Result<Regex, String> {
    Regex::new(&format!("^(?s:{pattern})$")).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sets_are_sorted_and_free_of_empty_values() {
        let labels = Labels::new([("b", "2"), ("a", "1"), ("c", ""), ("b", "3")]);
        assert_eq!(labels.to_string(), r#"{a="1", b="3"}"#);
        assert_eq!(labels.with("aa", "x").with("b", "").to_string(), r#"{a="1", aa="x"}"#);
    }

    #[test]
    fn a_set_without_its_name_is_like_one_that_never_had_it() {
        for first in ["Zone", "a"] {
            let named = Labels::new([(METRIC_NAME, "up"), ("__unit__", "s"), (first, "1"), ("z", "2")]);
            let bare = Labels::new([(first, "1"), ("z", "2")]);
            let without = named.without_metadata();
            assert_eq!((&without, without.get("z"), without.len()), (&bare, "2", 2));
            assert_eq!(without.get(METRIC_NAME), "");
            assert_eq!(std::collections::HashSet::from([without.clone(), bare.clone()]).len(), 1);
            assert_eq!(without.cmp(&bare), Ordering::Equal);
            assert_eq!(without.with(METRIC_NAME, "up").with("__unit__", "s"), named);
            assert_eq!(without.without_metadata(), bare);
        }
    }

    #[test]
    fn matchers_see_the_whole_value() {
        let matcher = Matcher::new(MatchOp::Regex, "a", "x|yy").unwrap();
        assert!(matcher.matches("yy") && !matcher.matches("xyy"));
        assert!(Matcher::new(MatchOp::Regex, "a", "(").is_err());
    }
}
