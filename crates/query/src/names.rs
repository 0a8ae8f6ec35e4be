//! Which labels and attributes a tenant has, and which of them a misspelt name may mean.

use std::collections::{BTreeMap, BTreeSet, HashSet};

use trine_schema::label_name;

use crate::{columns::Source, tables::Table};

/// Label and attribute names of a tenant, as stored and as Prometheus would spell them.
#[derive(Debug, Default)]
pub(crate) struct KnownNames {
    tables: BTreeMap<Table, TableNames>,
}

/// Those of one table.
#[derive(Debug, Default)]
pub(crate) struct TableNames {
    labels: HashSet<String>,
    attributes: HashSet<String>,
}

impl TableNames {
    pub(crate) fn add_label(&mut self, stored: &str) {
        if !self.labels.contains(stored) {
            self.labels.insert(label_name(stored));
            self.labels.insert(stored.to_owned());
        }
    }

    pub(crate) fn add_attribute(&mut self, stored: &str) {
        if !self.attributes.contains(stored) {
            self.attributes.insert(label_name(stored));
            self.attributes.insert(stored.to_owned());
        }
    }

    fn source(&self, name: &str) -> Option<Source> {
        match (self.labels.contains(name), self.attributes.contains(name)) {
            (true, false) => Some(Source::Label(name.to_owned())),
            (true, true) => Some(Source::LabelOrAttribute(name.to_owned())),
            (false, true) => Some(Source::Attribute(name.to_owned())),
            (false, false) => None,
        }
    }
}

impl KnownNames {
    /// The names of a table, to be added to.
    pub(crate) fn of(&mut self, table: Table) -> &mut TableNames {
        self.tables.entry(table).or_default()
    }

    /// The column of a table that a label or an attribute becomes.
    pub(crate) fn source(&self, table: Table, name: &str) -> Option<Source> {
        self.tables.get(&table)?.source(name)
    }

    /// Whether names of all these tables were asked for.
    pub(crate) fn cover(&self, mut tables: impl Iterator<Item = Table>) -> bool {
        tables.all(|table| self.tables.contains_key(&table))
    }

    /// Names of these tables most like this one, best first.
    pub(crate) fn near(&self, tables: &BTreeSet<Table>, name: &str) -> Vec<String> {
        let name = name.to_lowercase();
        let mut all: Vec<&str> = Vec::new();
        for table in tables {
            all.extend(table.base().iter().map(|(base, _)| *base));
            let known = self.tables.get(table);
            all.extend(
                known
                    .into_iter()
                    .flat_map(|known| known.labels.iter().chain(&known.attributes))
                    .map(String::as_str),
            );
        }
        let mut found: Vec<(usize, &str)> = all
            .into_iter()
            .filter_map(|candidate| {
                let lower = candidate.to_lowercase();
                let distance = edit_distance(&name, &lower);
                let inside =
                    name.len() >= 3 && lower.contains(&name) || lower.len() >= 3 && name.contains(&lower);
                (distance <= 1 + name.len() / 4 || inside).then_some((distance, candidate))
            })
            .collect();
        found.sort_unstable();
        found.dedup();
        found.into_iter().take(5).map(|(_, name)| name.to_owned()).collect()
    }
}

fn edit_distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().take(100).collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, from) in a.chars().take(100).enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, to) in b.iter().enumerate() {
            let replaced = diagonal + usize::from(from != *to);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(diagonal + 1).min(row[j] + 1);
        }
    }
    row[b.len()]
}
