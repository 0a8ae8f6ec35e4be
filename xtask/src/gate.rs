//! The one gate.

use std::collections::BTreeSet;

use anyhow::{Context, bail};
use serde_json::Value;

use crate::{cargo, run, walls};

/// Licences whose terms Apache-2.0 software may be shipped with.
const LICENCES: &[&str] = &[
    "Apache-2.0",
    "Apache-2.0 WITH LLVM-exception",
    "MIT",
    "MIT-0",
    "BSD-2-Clause",
    "BSD-3-Clause",
    "ISC",
    "Zlib",
    "0BSD",
    "CC0-1.0",
    "Unicode-3.0",
    "BSL-1.0",
    "Unlicense",
    "CDLA-Permissive-2.0",
    "bzip2-1.0.6",
    "NCSA",
];

/// Format, lints, walls, licences.
pub fn check() -> anyhow::Result<()> {
    run(cargo().args(["fmt", "--all", "--check"]))?;
    walls::check()?;
    licences()?;
    run(cargo().args(["clippy", "--release", "--workspace", "--all-targets", "--", "-D", "warnings"]))
}

/// Every dependency names a licence of the list (same rule as `cargo deny check licenses`, whose
/// settings are in `deny.toml`).
fn licences() -> anyhow::Result<()> {
    let output = cargo().args(["metadata", "--format-version", "1"]).output()?;
    let metadata: Value = serde_json::from_slice(&output.stdout).context("cargo metadata printed no JSON")?;
    let packages = metadata["packages"].as_array().context("cargo metadata names no packages")?;
    let mut refused = BTreeSet::new();
    for package in packages {
        let name = package["name"].as_str().unwrap_or("?");
        let licence = package["license"].as_str().unwrap_or("none given");
        if !permitted(licence) {
            refused.insert(format!("{name}: {licence}"));
        }
    }
    if !refused.is_empty() {
        bail!("licences that are not on the list: {}", refused.into_iter().collect::<Vec<_>>().join(", "));
    }
    println!("licences: {} packages are fine", packages.len());
    Ok(())
}

/// An SPDX expression: every `AND` part must offer a permitted choice among its `OR` parts.
fn permitted(expression: &str) -> bool {
    let expression = expression.replace(['(', ')'], " ").replace('/', " OR ");
    expression.split(" AND ").all(|part| part.split(" OR ").any(|choice| LICENCES.contains(&choice.trim())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn expressions() {
        for good in ["MIT", "MIT/Apache-2.0", "GPL-2.0 OR MIT", "(MIT OR Apache-2.0) AND Unicode-3.0"] {
            assert!(permitted(good), "{good}");
        }
        for bad in ["GPL-3.0", "MIT AND AGPL-3.0", "none given"] {
            assert!(!permitted(bad), "{bad}");
        }
    }
}
