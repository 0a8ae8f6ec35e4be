//! Files by a path whose last part may hold `*`.

use std::path::{Path, PathBuf};

/// Files that fit, by name. A path without `*` is itself if there is such a file.
pub(crate) fn files(pattern: &Path) -> Result<Vec<PathBuf>, String> {
    let name = pattern.file_name().unwrap_or_default().to_string_lossy();
    if !name.contains('*') {
        return Ok(if pattern.exists() { vec![pattern.to_owned()] } else { Vec::new() });
    }
    let folder = match pattern.parent() {
        Some(parent) if parent != Path::new("") => parent,
        _ => Path::new("."),
    };
    let entries = match std::fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(format!("folder {} cannot be read: {error}", folder.display())),
    };
    let mut files: Vec<_> = entries
        .filter_map(Result::ok)
        .filter(|entry| fits(&entry.file_name().to_string_lossy(), &name))
        .map(|entry| folder.join(entry.file_name()))
        .collect();
    files.sort();
    Ok(files)
}

fn fits(name: &str, pattern: &str) -> bool {
    let mut parts = pattern.split('*');
    let Some(mut rest) = parts.next().and_then(|first| name.strip_prefix(first)) else { return false };
    let Some(last) = parts.next_back() else { return rest.is_empty() };
    for part in parts {
        let Some((_, after)) = rest.split_once(part) else { return false };
        rest = after;
    }
    rest.ends_with(last)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stars_stand_for_any_text() {
        for (name, pattern, want) in [
            ("a.json", "*.json", true),
            ("a.json", "a*", true),
            ("a.json", "a*b*.json", false),
            ("axby.json", "a*b*.json", true),
            ("a.json", "a.json*n", false),
            ("a.yml", "*.json", false),
        ] {
            assert_eq!(fits(name, pattern), want, "{name} {pattern}");
        }
    }
}
