//! Walls between crates: an edge that `ARCHITECTURE.md` does not list fails the gate.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
};

use anyhow::{Context, bail};
use serde_json::Value;

use crate::cargo;

type Edges = BTreeMap<String, BTreeSet<String>>;

/// Compares the edges of `cargo metadata` with the table of the code map.
pub fn check() -> anyhow::Result<()> {
    let page = fs::read_to_string("ARCHITECTURE.md").context("cannot read ARCHITECTURE.md")?;
    let allowed = listed(&page);
    let actual = edges()?;
    let mut wrong = Vec::new();
    for (from, tos) in &actual {
        let Some(may) = allowed.get(from) else {
            wrong.push(format!("crate `{from}` is missing in the code map of ARCHITECTURE.md"));
            continue;
        };
        for to in tos.difference(may) {
            wrong.push(format!("`{from}` uses `{to}`, which ARCHITECTURE.md does not list"));
        }
    }
    for gone in allowed.keys().filter(|name| !actual.contains_key(*name)) {
        wrong.push(format!("ARCHITECTURE.md lists `{gone}`, but there is no such crate"));
    }
    if !wrong.is_empty() {
        bail!("walls: {}", wrong.join("\nwalls: "));
    }
    println!("walls: {} crates keep to ARCHITECTURE.md", actual.len());
    Ok(())
}

/// Rows `| `name` | … | `a`, `b` |` of the code map; the last cell names what the crate may use.
fn listed(page: &str) -> Edges {
    let names =
        |cell: &str| -> BTreeSet<String> { cell.split('`').skip(1).step_by(2).map(str::to_owned).collect() };
    let table = page.split("## Code map").nth(1).unwrap_or("").split("\n## ").next().unwrap_or("");
    let rows: Vec<Vec<&str>> = table
        .lines()
        .filter(|line| line.starts_with("| `"))
        .map(|line| line.trim_matches('|').split('|').map(str::trim).collect())
        .collect();
    let all: BTreeSet<String> = rows.iter().flat_map(|row| names(row[0])).collect();
    rows.iter()
        .filter_map(|row| {
            let name = names(row[0]).into_iter().next()?;
            let last = *row.last()?;
            Some((name, if last == "all" { all.clone() } else { names(last) }))
        })
        .collect()
}

/// Edges between the workspace's own crates, tests' and build scripts' aside.
fn edges() -> anyhow::Result<Edges> {
    let output = cargo().args(["metadata", "--format-version", "1", "--no-deps"]).output()?;
    let metadata: Value = serde_json::from_slice(&output.stdout).context("cargo metadata printed no JSON")?;
    let short = |name: &str| match name {
        "trine" => "cli".to_owned(),
        name => name.trim_start_matches("trine-").to_owned(),
    };
    let mut edges = Edges::new();
    for package in metadata["packages"].as_array().context("cargo metadata names no packages")? {
        let name = package["name"].as_str().unwrap_or_default();
        let uses = package["dependencies"].as_array().into_iter().flatten().filter(|d| d["kind"].is_null());
        let uses = uses.filter_map(|d| d["name"].as_str()).filter(|n| n.starts_with("trine-"));
        edges.insert(short(name), uses.map(short).collect());
    }
    Ok(edges)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_read() {
        let page = "## Code map\n\n| crate | what | may use |\n|---|---|---|\n| `a` | x `y` | - |\n| `b` | z | `a` |\n| `c` | all | all |\n\n## Next\n| `d` | | |\n";
        let edges = listed(page);
        assert_eq!(edges.keys().collect::<Vec<_>>(), ["a", "b", "c"]);
        assert!(edges["a"].is_empty());
        assert_eq!(edges["b"].iter().collect::<Vec<_>>(), ["a"]);
        assert_eq!(edges["c"].len(), 3);
    }
}
