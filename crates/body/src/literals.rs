//! Which literal texts a regular expression cannot match without.

use regex_syntax::hir::{
    Hir, HirKind,
    literal::{ExtractKind, Extractor},
};

/// Most alternatives that are kept; more would cost more than they save.
const MAX_LITERALS: usize = 64;

/// Texts of which every match contains at least one; nothing when no such set is known.
pub(crate) fn required(hir: &Hir) -> Option<Vec<Vec<u8>>> {
    let mut best = inner(hir);
    for kind in [ExtractKind::Prefix, ExtractKind::Suffix] {
        let mut extractor = Extractor::new();
        extractor.kind(kind);
        let found = extractor
            .extract(hir)
            .literals()
            .map(|all| all.iter().map(|one| one.as_bytes().to_vec()).collect());
        best = better(best, found.filter(useful));
    }
    best
}

fn useful(set: &Vec<Vec<u8>>) -> bool {
    !set.is_empty() && set.len() <= MAX_LITERALS && set.iter().all(|one| !one.is_empty())
}

/// The set whose shortest text is longer.
fn better(a: Option<Vec<Vec<u8>>>, b: Option<Vec<Vec<u8>>>) -> Option<Vec<Vec<u8>>> {
    let worth = |set: &Option<Vec<Vec<u8>>>| {
        set.as_ref().map_or((0, 0), |set| {
            (set.iter().map(Vec::len).min().unwrap_or(0), MAX_LITERALS.saturating_sub(set.len()))
        })
    };
    if worth(&b) > worth(&a) { b } else { a }
}

fn inner(hir: &Hir) -> Option<Vec<Vec<u8>>> {
    let found = match hir.kind() {
        HirKind::Literal(literal) => Some(vec![literal.0.to_vec()]),
        HirKind::Capture(capture) => inner(&capture.sub),
        HirKind::Repetition(repetition) if repetition.min > 0 => inner(&repetition.sub),
        HirKind::Concat(parts) => parts.iter().map(inner).fold(None, better),
        HirKind::Alternation(parts) => {
            let sets: Option<Vec<_>> = parts.iter().map(inner).collect();
            sets.map(|sets| sets.into_iter().flatten().collect())
        }
        _ => None,
    };
    found.filter(useful)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_most_telling_literals_are_found() {
        let check = |pattern: &str, expected: Option<&[&str]>| {
            let hir = regex_syntax::Parser::new().parse(pattern).unwrap();
            let mut found = required(&hir);
            if let Some(found) = &mut found {
                found.sort();
            }
            let expected =
                expected.map(|all| all.iter().map(|one| one.as_bytes().to_vec()).collect::<Vec<_>>());
            assert_eq!(found, expected, "{pattern}");
        };
        check(r"\d+ bytes from (a|b)host", Some(&[" bytes from "]));
        check(r"blk_-?\d+ terminating", Some(&[" terminating"]));
        check(r"(foo|bar)+ [0-9]", Some(&["bar ", "foo "]));
        check(r".*", None);
        check(r"\w+@\d", Some(&["@"]));
        check(r"(?:abc)?\d", Some(&["0", "1", "2", "3", "4", "5", "6", "7", "8", "9"]));
    }
}
