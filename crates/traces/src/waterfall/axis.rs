//! The time axis and the bars on it.

use super::text::{duration, pad, width};
use crate::{Trace, Tree};

/// A trace that lasts this many times its longest span has spans that lie far away (a clock that is wrong,
/// a job that ran days later); the axis then shows the neighbourhood of its root only.
const FAR: i64 = 1_000;

/// A span of time over columns of text.
pub(super) struct Axis {
    start: i64,
    end: i64,
    columns: usize,
}

impl Axis {
    pub(super) fn new(trace: &Trace, columns: usize) -> Self {
        let spans = trace.spans();
        let first = |span: &crate::Span| span.start.min(span.end());
        let last = |span: &crate::Span| span.start.max(span.end());
        let start = spans.iter().map(first).min().unwrap_or(0);
        let end = spans.iter().map(last).max().unwrap_or(0);
        let longest = spans.iter().map(|span| span.duration.saturating_abs()).max().unwrap_or(0);
        if end.saturating_sub(start) / FAR <= longest.max(1) {
            return Self { start, end, columns };
        }
        let near = |n: usize| {
            let root = &spans[n];
            (first(root), last(root).max(first(root).saturating_add(longest)))
        };
        let (start, end) = near(busiest_root(trace.tree()));
        Self { start, end, columns }
    }

    /// Half columns from the axis' begin; outside of it clamped.
    fn place(&self, at: i64, round_up: bool) -> usize {
        let length = i128::from(self.end) - i128::from(self.start);
        let halves = 2 * self.columns as i128;
        let at = i128::from(at) - i128::from(self.start);
        let place = if length == 0 {
            if round_up { halves } else { 0 }
        } else {
            (at * halves + if round_up { length - 1 } else { 0 }).div_euclid(length)
        };
        place.clamp(0, halves) as usize
    }

    /// Begin and end of the axis, in nanoseconds since 1970.
    pub(super) fn range(&self) -> (i64, i64) {
        (self.start, self.end)
    }

    /// A bar from one time to another in as many columns as the axis has, at least half a column long. What
    /// lies outside is an arrow.
    pub(super) fn bar(&self, from: i64, to: i64, fill: char) -> String {
        let (from, to) = (from.min(to), from.max(to));
        let mut bar = String::new();
        if to < self.start {
            bar.push('◂');
            pad(&mut bar, 1, self.columns);
            return bar;
        }
        if from > self.end {
            pad(&mut bar, 0, self.columns.saturating_sub(1));
            bar.push('▸');
            return bar;
        }
        let begin = self.place(from, false).min(2 * self.columns - 1);
        let end = self.place(to, true).max(begin + 1);
        for column in 0..self.columns {
            let left = (begin..end).contains(&(2 * column));
            let right = (begin..end).contains(&(2 * column + 1));
            bar.push(match (left, right) {
                (true, true) => fill,
                (true, false) => '▌',
                (false, true) => '▐',
                (false, false) => ' ',
            });
        }
        bar
    }

    /// Times at quarters of the axis, those between the ends only where there is room.
    pub(super) fn ticks(&self) -> String {
        let length = self.end.saturating_sub(self.start);
        let last = duration(length);
        let mut line = String::from("0");
        let mut used = 1;
        let room = self.columns.saturating_sub(width(&last) + 1);
        for quarter in [1, 2, 3] {
            let at = self.columns * quarter / 4;
            let text = duration((i128::from(length) * quarter as i128 / 4) as i64);
            if length > 0 && self.columns >= 32 && at > used && at + width(&text) <= room {
                pad(&mut line, used, at);
                line += &text;
                used = at + width(&text);
            }
        }
        if used + 1 + width(&last) <= self.columns {
            pad(&mut line, used, self.columns - width(&last));
            line += &last;
        }
        line
    }
}

/// The root with the most spans below it.
fn busiest_root(tree: &Tree) -> usize {
    let (mut best, mut most) = (tree.root(), 0);
    let (mut root, mut count) = (best, 0);
    for (position, depth) in tree.walk() {
        if depth == 0 {
            (root, count) = (position, 0);
        }
        count += 1;
        if count > most {
            (best, most) = (root, count);
        }
    }
    best
}
