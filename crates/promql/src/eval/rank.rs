//! Aggregations that keep some of a group's series: `topk`, `bottomk`, `limitk`, `limit_ratio`.

use std::{cmp::Ordering, collections::BinaryHeap};

use super::{Bits, Column, Result, Steps, aggregate::Groups};
use crate::{
    annotations::Annotations,
    engine::Error,
    format::general,
    parser::{AggregateOp, Pos},
};

/// An aggregation with its parameter at each step.
pub(super) struct Ranked {
    pub op: AggregateOp,
    pub parameter: Vec<f64>,
    pub parameter_pos: Pos,
    pub pos: Pos,
}

/// A candidate; the greatest is the one to give way first. NaN is worse than any number, of equals the later
/// one is.
#[derive(Clone, Copy)]
struct Candidate {
    value: f64,
    series: usize,
    top: bool,
}

impl Ord for Candidate {
    fn cmp(&self, other: &Self) -> Ordering {
        let values = match (self.value.is_nan(), other.value.is_nan()) {
            (false, false) => {
                let order = self.value.partial_cmp(&other.value).unwrap_or(Ordering::Equal);
                if self.top { order.reverse() } else { order }
            }
            (a, b) => a.cmp(&b),
        };
        values.then(self.series.cmp(&other.series))
    }
}

impl PartialOrd for Candidate {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Candidate {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Candidate {}

impl Ranked {
    /// Keeps what is wanted of each group; at a single step the best come first.
    pub fn select(
        &self,
        columns: Vec<Column>,
        groups: &Groups,
        steps: &Steps,
        notes: &mut Annotations,
    ) -> Result<Vec<Column>> {
        let all = || self.parameter.iter().copied();
        let (least, most) = (all().fold(f64::INFINITY, f64::min), all().fold(f64::NEG_INFINITY, f64::max));
        let nan = all().any(f64::is_nan);
        let ratio = self.op == AggregateOp::LimitRatio;
        if nan {
            let what = if ratio { "Ratio" } else { "Parameter" };
            return Err(Error::execution(format!("{what} value is NaN")));
        }
        if ratio && most == 0.0 && least == 0.0 || !ratio && most < 1.0 {
            return Ok(Vec::new());
        }
        if ratio {
            if most > 1.0 {
                notes.invalid_ratio(most, 1.0, self.parameter_pos);
            }
            if least < -1.0 {
                notes.invalid_ratio(least, -1.0, self.parameter_pos);
            }
        } else if least <= i64::MIN as f64 {
            return Err(Error::execution(format!("Scalar value {} underflows int64", general(least))));
        } else if most >= i64::MAX as f64 {
            return Err(Error::execution(format!("Scalar value {} overflows int64", general(most))));
        }
        if ratio {
            return Ok(self.by_ratio(columns));
        }
        let mut members = vec![Vec::new(); groups.labels.len()];
        for (series, group) in groups.of.iter().enumerate() {
            members[*group].push(series);
        }
        let wanted = |at: usize| (self.parameter[at].max(0.0) as usize).min(columns.len());
        if steps.count == 1 {
            let best = members.iter().flat_map(|members| self.best(&columns, members, 0, wanted(0), notes));
            let best: Vec<usize> = best.collect();
            let mut columns: Vec<Option<Column>> = columns.into_iter().map(Some).collect();
            return Ok(best.into_iter().filter_map(|series| columns[series].take()).collect());
        }
        let mut kept = vec![Bits::new(steps.count); columns.len()];
        for at in 0..steps.count {
            for members in &members {
                let best = self.best(&columns, members, at, wanted(at), notes);
                best.into_iter().for_each(|series| kept[series].set(at));
            }
        }
        let kept = columns.into_iter().zip(&kept).filter(|(_, kept)| kept.any());
        Ok(kept
            .map(|(mut column, kept)| {
                column.keep(kept);
                column
            })
            .collect())
    }

    /// The series kept at a step, best first.
    fn best(
        &self,
        columns: &[Column],
        members: &[usize],
        at: usize,
        k: usize,
        notes: &mut Annotations,
    ) -> Vec<usize> {
        if k == 0 {
            return Vec::new();
        }
        if self.op == AggregateOp::LimitK {
            let filled = |series: &usize| columns[*series].sample(at).is_some();
            return members.iter().copied().filter(filled).take(k).collect();
        }
        let mut heap: BinaryHeap<Candidate> = BinaryHeap::with_capacity(k + 1);
        let top = self.op == AggregateOp::TopK;
        for &series in members {
            let column = &columns[series];
            if !column.present.get(at) {
                if column.histogram(at).is_some() {
                    notes.ignored_in_aggregation(self.op.name(), self.pos);
                }
                continue;
            }
            let candidate = Candidate { value: column.floats[at], series, top };
            if heap.len() < k {
                heap.push(candidate);
            } else if heap.peek().is_some_and(|worst| candidate < *worst) {
                heap.pop();
                heap.push(candidate);
            }
        }
        heap.into_sorted_vec().into_iter().map(|candidate| candidate.series).collect()
    }

    /// A share of the series by the hash of their labels; a negative one takes the others.
    fn by_ratio(&self, columns: Vec<Column>) -> Vec<Column> {
        let kept = columns.into_iter().filter_map(|mut column| {
            let offset = column.labels.prometheus_hash() as f64 / u64::MAX as f64;
            let mut wanted = Bits::new(self.parameter.len());
            for (at, ratio) in self.parameter.iter().enumerate() {
                let ratio = ratio.clamp(-1.0, 1.0);
                if ratio > 0.0 && offset < ratio || ratio < 0.0 && offset >= 1.0 + ratio {
                    wanted.set(at);
                }
            }
            column.keep(&wanted);
            (!column.is_empty()).then_some(column)
        });
        kept.collect()
    }
}
