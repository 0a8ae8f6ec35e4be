//! Groups of targets: `static_configs`, and the files of `file_sd_configs`.

use crate::{
    LabelSet,
    yaml::{Node, Place, Value},
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

/// A list of groups, each with the places of its targets.
pub(crate) fn read_groups(
    list: &[Node],
    what: &str,
    notes: &mut Notes<'_>,
) -> Vec<(TargetGroup, Vec<Place>)> {
    let mut groups = Vec::new();
    for node in list {
        let Some(mut fields) = Fields::of(node, what, notes) else { continue };
        let targets = fields.texts("targets", notes);
        let (targets, places) =
            targets.into_iter().map(|(address, place)| (address.to_owned(), place)).unzip();
        let mut group = TargetGroup { targets, ..TargetGroup::default() };
        for (name, value) in fields.pairs("labels", notes) {
            match (&value.value, value.text()) {
                (_, _) if name.is_empty() => notes.error(value.place, "a label has no name"),
                (_, Some(text)) => group.labels.set(name, text),
                (Value::Null, _) => {}
                _ => notes.error(value.place, format!("label {name:?} is {}, not a text", value.what())),
            }
        }
        fields.end(notes);
        groups.push((group, places));
    }
    groups
}
