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

#[allow(clippy::ptr_arg)] // goes to `Option::filter` of an owned set
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

    /// Every text that matches holds one of the literals, and none is shorter than `least`.
    #[test]
    fn a_match_holds_one_of_the_literals() {
        for (pattern, matching, least) in [
            (r"\d+ bytes from (a|b)host", "12 bytes from ahost", 12),
            (r"blk_-?\d+ terminating", "blk_-5 terminating", 12),
            (r"(foo|bar)+ [0-9]", "foobar 7", 4),
            (r"\w+@\d", "me@7", 1),
            (r"(?i)warn: x", "wArN: x", 2),
            (r"^(GET|POST) /a.*status=5", "GET /abc status=5", 8),
        ] {
            let hir = regex_syntax::Parser::new().parse(pattern).unwrap();
            let found = required(&hir).unwrap_or_else(|| panic!("{pattern} has literals"));
            assert!(found.iter().all(|one| one.len() >= least), "{pattern}: {found:?}");
            let held = found.iter().any(|one| matching.as_bytes().windows(one.len()).any(|part| part == one));
            assert!(held, "{pattern}: {found:?}");
        }
        for pattern in [".*", r"\w+", "(abc|.)", "a?"] {
            assert_eq!(required(&regex_syntax::Parser::new().parse(pattern).unwrap()), None, "{pattern}");
        }
    }
}
