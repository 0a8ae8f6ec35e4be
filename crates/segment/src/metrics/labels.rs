//! The order of series, and their labels as numbers that compare like them.
//!
//! Series lie by tenant, metric and the other labels, so that an answer from one segment is sorted by labels.
//! Only `le` and `quantile` come last and compare as numbers: neighbouring buckets of one histogram are stored
//! as differences to each other.

use std::{cmp::Ordering, ops::Range};

use hashbrown::HashMap;
use trine_model::TenantId;
use trine_schema::metrics::METRIC_NAME;

/// Labels whose values are bounds.
const BOUNDS: [&str; 2] = ["le", "quantile"];

/// Whether the values of a label compare as numbers.
fn is_bound(name: &str) -> bool {
    BOUNDS.contains(&name)
}

/// Whether series that differ in this label only lie as answers have them.
pub(super) fn lies_as_answered(name: &str) -> bool {
    !is_bound(name) && name >= METRIC_NAME
}

/// A label name and its distinct values, both in the order of series.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct LabelValues {
    pub name: String,
    pub values: Vec<String>,
}

/// A series by numbers.
#[derive(Debug, Clone)]
pub(super) struct RankedSeries {
    /// Its position among the streams that were given.
    pub given: u32,
    /// Number of its tenant.
    pub tenant: u32,
    /// Its labels in [`Ranking::pairs`].
    pub pairs: Range<u32>,
}

/// Series in their order.
#[derive(Default)]
pub(super) struct Ranking {
    pub tenants: Vec<TenantId>,
    pub names: Vec<LabelValues>,
    pub series: Vec<RankedSeries>,
    /// Numbers of name and value, by name.
    pub pairs: Vec<(u32, u32)>,
}

/// How series compare.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Order {
    /// As in a file.
    File,
    /// As [`trine_schema::Labels`].
    Labels,
}

impl Order {
    fn names(self, a: &str, b: &str) -> Ordering {
        let class = |name: &str| match self {
            Self::Labels => 0,
            Self::File if name == METRIC_NAME => 0,
            Self::File => 1 + u8::from(is_bound(name)),
        };
        class(a).cmp(&class(b)).then_with(|| a.cmp(b))
    }

    fn values(self, name: &str, a: &str, b: &str) -> Ordering {
        if self == Self::Labels || !is_bound(name) {
            return a.cmp(b);
        }

        let number = |text: &str| text.parse::<f64>().unwrap_or(f64::NAN);
        number(a).total_cmp(&number(b)).then_with(|| a.cmp(b))
    }
}

/// Distinct texts in the order in which they are met.
#[derive(Default)]
struct Met<'a> {
    numbers: HashMap<&'a str, u32>,
    texts: Vec<&'a str>,
    last: Option<(&'a str, u32)>,
}

impl<'a> Met<'a> {
    fn number(&mut self, text: &'a str) -> u32 {
        // Neighbours often have the same.
        if let Some((last, number)) = self.last
            && last == text
        {
            return number;
        }
        let next = self.texts.len() as u32;
        let number = *self.numbers.entry(text).or_insert(next);
        if number == next {
            self.texts.push(text);
        }
        self.last = Some((text, number));
        number
    }

    /// The texts in order, and the new number of each.
    fn sorted(&self, compare: impl Fn(&str, &str) -> Ordering) -> (Vec<u32>, Vec<u32>) {
        let mut order: Vec<u32> = (0..self.texts.len() as u32).collect();
        order.sort_unstable_by(|a, b| compare(self.texts[*a as usize], self.texts[*b as usize]));
        let mut ranks = vec![0; order.len()];
        order.iter().enumerate().for_each(|(rank, number)| ranks[*number as usize] = rank as u32);
        (order, ranks)
    }
}

/// Puts series, each given once as tenant and labels, into their order.
pub(super) fn rank<'a, L>(given: impl Iterator<Item = (&'a TenantId, L)>, order: Order) -> Ranking
where
    L: Iterator<Item = (&'a str, &'a str)>,
{
    let (mut tenants, mut names) = (Met::default(), Met::default());
    let mut values: Vec<Met<'_>> = Vec::new();
    let mut pairs: Vec<(u32, u32)> = Vec::new();
    let mut series = Vec::new();
    // Numbers of names by their place in the labels of the series before.
    let mut places: Vec<(&str, u32)> = Vec::new();
    for (number, (tenant, labels)) in given.enumerate() {
        let start = pairs.len() as u32;
        for (place, (name, value)) in labels.enumerate() {
            let name = match places.get(place) {
                Some((same, number)) if *same == name => *number,
                _ => {
                    let number = names.number(name);
                    places.truncate(place);
                    places.push((name, number));
                    number
                }
            };
            if name as usize == values.len() {
                values.push(Met::default());
            }
            pairs.push((name, values[name as usize].number(value)));
        }
        let tenant = tenants.number(tenant.as_str());
        series.push(RankedSeries { given: number as u32, tenant, pairs: start..pairs.len() as u32 });
    }
    let (tenant_order, tenant_ranks) = tenants.sorted(str::cmp);
    let (name_order, name_ranks) = names.sorted(|a, b| order.names(a, b));
    let mut value_ranks = Vec::with_capacity(values.len());
    let mut value_orders = Vec::with_capacity(values.len());
    for (name, met) in names.texts.iter().zip(&values) {
        let (sorted, ranks) = met.sorted(|a, b| order.values(name, a, b));
        value_orders.push(sorted);
        value_ranks.push(ranks);
    }
    for (name, value) in &mut pairs {
        *value = value_ranks[*name as usize][*value as usize];
        *name = name_ranks[*name as usize];
    }
    for series in &mut series {
        series.tenant = tenant_ranks[series.tenant as usize];
        let own = &mut pairs[series.pairs.start as usize..series.pairs.end as usize];
        if !own.is_sorted() {
            own.sort_unstable();
        }
    }
    let of = |series: &RankedSeries| &pairs[series.pairs.start as usize..series.pairs.end as usize];
    // Stable, because what comes from segments is sorted in long runs.
    series.sort_by(|a, b| a.tenant.cmp(&b.tenant).then_with(|| of(a).cmp(of(b))));
    let tenant = |number: &u32| {
        let text = tenants.texts[*number as usize];
        TenantId::new(text).expect("BUG: the tenant of a stream is one")
    };
    let label = |number: &u32| {
        let texts = &values[*number as usize].texts;
        let order = value_orders[*number as usize].iter();
        LabelValues {
            name: names.texts[*number as usize].to_owned(),
            values: order.map(|value| texts[*value as usize].to_owned()).collect(),
        }
    };
    Ranking {
        tenants: tenant_order.iter().map(tenant).collect(),
        names: name_order.iter().map(label).collect(),
        series,
        pairs,
    }
}

impl Ranking {
    /// Labels of a series as numbers of name and value.
    pub(super) fn labels(&self, series: &RankedSeries) -> &[(u32, u32)] {
        &self.pairs[series.pairs.start as usize..series.pairs.end as usize]
    }
    /// Leaves out series, and the values that only they have.
    pub(super) fn retain(&mut self, kept: &[bool]) {
        if !kept.contains(&false) {
            return;
        }
        let mut place = 0;
        self.series.retain(|_| {
            place += 1;
            kept[place - 1]
        });
        let mut used: Vec<Vec<bool>> =
            self.names.iter().map(|label| vec![false; label.values.len()]).collect();
        for series in &self.series {
            for (label, value) in self.labels(series) {
                used[*label as usize][*value as usize] = true;
            }
        }
        let mut numbers: Vec<Vec<u32>> = Vec::with_capacity(used.len());
        for (label, used) in self.names.iter_mut().zip(&used) {
            let mut next = 0;
            let number = |used: &bool| {
                next += u32::from(*used);
                next.saturating_sub(1)
            };
            numbers.push(used.iter().map(number).collect());
            let mut used = used.iter();
            label.values.retain(|_| used.next() == Some(&true));
        }
        for (label, value) in &mut self.pairs {
            *value = numbers[*label as usize][*value as usize];
        }
    }
}
