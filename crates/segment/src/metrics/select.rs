//! Which series of an index satisfy matchers: each distinct value is compared once.

use trine_model::TenantId;
use trine_schema::LabelMatcher;

use super::index::{Column, MetricIndex};

/// What is known of a value.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Verdict {
    Unknown,
    Fits,
    Fails,
}

/// A matcher and what it said of the values of its label.
struct Judge<'a> {
    matcher: &'a LabelMatcher,
    /// `None` when no series has the label.
    label: Option<u32>,
    /// Whether it takes a series without the label.
    takes_none: bool,
    /// By code.
    verdicts: Vec<Verdict>,
}

impl Judge<'_> {
    #[inline]
    fn fits(&mut self, index: &MetricIndex, code: u32) -> bool {
        let Some(label) = self.label else { return self.takes_none };
        let verdict = &mut self.verdicts[code as usize];
        if *verdict == Verdict::Unknown {
            let fits = self.matcher.value.matches(index.value(label, code));
            *verdict = if fits { Verdict::Fits } else { Verdict::Fails };
        }
        *verdict == Verdict::Fits
    }
}

impl MetricIndex {
    /// Numbers of the tenant's series that satisfy all matchers, ascending.
    pub(super) fn select(&self, tenant: &TenantId, matchers: &[LabelMatcher]) -> Vec<u32> {
        let mut found = Vec::new();
        let Ok(tenant) = self.totals.tenants.binary_search(tenant) else { return found };
        let judge = |matcher| self.judge(matcher);
        let mut judges: Vec<Judge<'_>> = matchers.iter().map(judge).collect();
        let mut kept: Vec<bool> = Vec::new();
        'families: for family in self.families.iter().filter(|family| family.tenant as usize == tenant) {
            kept.clear();
            let columns = self.columns(family);
            // What all series of the family have in common is cheaper to look at.
            let mut open: Vec<(usize, &Column)> = Vec::new();
            for (at, judge) in judges.iter_mut().enumerate() {
                match columns.iter().find(|column| Some(column.label) == judge.label) {
                    None if !judge.takes_none => continue 'families,
                    None => {}
                    Some(column) => match Self::same(column) {
                        Some(code) if !judge.fits(self, code) => continue 'families,
                        Some(_) => {}
                        None => open.push((at, column)),
                    },
                }
            }
            if open.is_empty() {
                found.extend(family.series.clone());
                continue;
            }
            kept.resize(family.series.len(), true);
            for (at, column) in open {
                let judge = &mut judges[at];
                for (row, kept) in kept.iter_mut().enumerate().filter(|(_, kept)| **kept) {
                    *kept = judge.fits(self, self.code(column, row as u32));
                }
            }
            found.extend(
                family.series.clone().zip(&kept).filter(|(_, kept)| **kept).map(|(series, _)| series),
            );
        }
        found
    }

    fn judge<'a>(&self, matcher: &'a LabelMatcher) -> Judge<'a> {
        let label = self.label(&matcher.name);
        let values = label.map_or(0, |label| self.values(label));
        Judge {
            matcher,
            label,
            takes_none: matcher.value.matches(""),
            verdicts: vec![Verdict::Unknown; values + 1],
        }
    }
}
