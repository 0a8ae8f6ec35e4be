//! Files that list targets (`file_sd_configs`): JSON or YAML, read again when they change.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

use tokio::time::Instant;

use crate::{
    config::{FileDiscovery, Notes, TargetGroup, read_groups},
    glob,
    yaml::{self, Node, Place, Value},
};

/// How often files are looked at.
pub(crate) const POLL: Duration = Duration::from_secs(5);

/// Longest file of targets, in bytes.
const MAX_FILE_BYTES: u64 = 64 << 20;

/// Tells whether a file changed.
type Stamp = (Option<SystemTime>, u64);

/// The files of one `file_sd_configs`.
pub(crate) struct Files {
    config: FileDiscovery,
    found: BTreeMap<PathBuf, (Stamp, Vec<TargetGroup>)>,
    /// What is wrong with files; their targets stay as they were.
    problems: BTreeMap<PathBuf, String>,
    refresh_at: Option<Instant>,
}

impl Files {
    pub(crate) fn new(config: FileDiscovery) -> Self {
        Self { config, found: BTreeMap::new(), problems: BTreeMap::new(), refresh_at: None }
    }

    pub(crate) fn groups(&self) -> impl Iterator<Item = &TargetGroup> {
        self.found.values().flat_map(|(_, groups)| groups)
    }

    pub(crate) fn problems(&self) -> impl Iterator<Item = &String> {
        self.problems.values()
    }

    /// Reads what changed, and everything when the interval is over. Whether there is news.
    pub(crate) fn refresh(&mut self) -> bool {
        let now = Instant::now();
        let all = self.refresh_at.is_none_or(|at| at <= now);
        if all {
            self.refresh_at = Some(now + self.config.refresh_interval);
        }
        let mut news = false;
        let mut present = Vec::new();
        let problems = std::mem::take(&mut self.problems);
        for pattern in &self.config.files {
            match glob::files(pattern) {
                Ok(files) => present.extend(files),
                Err(problem) => {
                    self.problems.insert(pattern.clone(), problem);
                }
            }
        }
        for path in &present {
            let stamp =
                std::fs::metadata(path).map(|data| (data.modified().ok(), data.len())).unwrap_or_default();
            let known = self.found.get(path);
            if !all && known.is_some_and(|(known, _)| *known == stamp) {
                if let Some(problem) = problems.get(path) {
                    self.problems.insert(path.clone(), problem.clone());
                }
                continue;
            }
            let groups = match read(path, stamp.1) {
                Ok(groups) => groups,
                Err(problem) => {
                    self.problems.insert(path.clone(), problem);
                    known.map(|(_, groups)| groups.clone()).unwrap_or_default()
                }
            };
            news |= known.is_none_or(|(_, known)| *known != groups);
            self.found.insert(path.clone(), (stamp, groups));
        }
        let before = self.found.len();
        self.found.retain(|path, _| present.contains(path));
        news || self.found.len() != before || self.problems != problems
    }
}

fn read(path: &Path, length: u64) -> Result<Vec<TargetGroup>, String> {
    let told = |reason: String| format!("{}: {reason}", path.display());
    if length > MAX_FILE_BYTES {
        return Err(told(format!("the file is longer than {MAX_FILE_BYTES} bytes; split it")));
    }
    let text = std::fs::read_to_string(path).map_err(|error| told(format!("cannot be read: {error}")))?;
    let json = path.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("json"));
    parse(&text, json, path)
}

/// Groups of a file's text, each with the label `__meta_filepath`.
pub(crate) fn parse(text: &str, json: bool, path: &Path) -> Result<Vec<TargetGroup>, String> {
    let mut notes = Notes::new(path);
    let node = if json {
        serde_json::from_str(text).map(json_node).map_err(|error| {
            let reason = error.to_string();
            (Place { line: error.line(), column: error.column() }, reason)
        })
    } else {
        yaml::read(text)
    };
    let mut groups = match node {
        Ok(Node { value: Value::List(list), .. }) => {
            let groups = read_groups(&list, "a group of targets", &mut notes);
            groups.into_iter().map(|(group, _)| group).collect()
        }
        Ok(Node { value: Value::Null, .. }) => Vec::new(),
        Ok(node) => {
            notes.error(node.place, format!("the file is {}, not a list of groups", node.what()));
            Vec::new()
        }
        Err(fault) => {
            notes.fault(fault);
            Vec::new()
        }
    };
    if let Some(error) = notes.errors.first() {
        return Err(error.to_string());
    }
    for group in &mut groups {
        group.labels.set("__meta_filepath", path.to_string_lossy());
    }
    Ok(groups)
}

/// JSON as the tree of YAML, without places.
fn json_node(value: serde_json::Value) -> Node {
    use serde_json::Value as Json;
    let value = match value {
        Json::Null => Value::Null,
        Json::String(text) => Value::Text(text),
        Json::Array(list) => Value::List(list.into_iter().map(json_node).collect()),
        Json::Object(pairs) => Value::Map(
            pairs
                .into_iter()
                .map(|(name, value)| (json_node(Json::String(name)), json_node(value)))
                .collect(),
        ),
        other => Value::Text(other.to_string()),
    };
    Node { place: Place { line: 1, column: 1 }, value }
}
