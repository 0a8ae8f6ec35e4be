//! Groups of targets: `static_configs`, and the files of `file_sd_configs`.

use crate::{
    LabelSet,
    yaml::{Node, Value},
};

use super::{Fields, Notes};

/// Targets that share labels.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TargetGroup {
    /// Their addresses, `host:port`.
    pub targets: Vec<String>,
    /// What they share.
    pub labels: LabelSet,
}

/// A list of groups.
pub(crate) fn read_groups(list: &[Node], what: &str, notes: &mut Notes<'_>) -> Vec<TargetGroup> {
    let mut groups = Vec::new();
    for node in list {
        let Some(mut fields) = Fields::of(node, what, notes) else { continue };
        let mut group = TargetGroup::default();
        for (address, _) in fields.texts("targets", notes) {
            group.targets.push(address.to_owned());
        }
        for (name, value) in fields.pairs("labels", notes) {
            match (&value.value, value.text()) {
                (_, _) if name.is_empty() => notes.error(value.place, "a label has no name"),
                (_, Some(text)) => group.labels.set(name, text),
                (Value::Null, _) => {}
                _ => notes.error(value.place, format!("label {name:?} is {}, not a text", value.what())),
            }
        }
        fields.end(notes);
        groups.push(group);
    }
    groups
}
