//! Which lines a trace is shown in: its spans as a tree, equal siblings folded.

use std::{
    hash::{BuildHasher, Hasher},
    rc::Rc,
};

use hashbrown::{DefaultHashBuilder, HashMap};

use crate::Trace;

/// A line below the axis.
pub(super) struct Row {
    /// Lines that lead from the parents to this row.
    pub(super) guides: String,
    pub(super) what: What,
}

pub(super) enum What {
    Span(usize),
    /// Siblings (and how many spans with all below them) that are as those before.
    Folded(Vec<usize>, usize),
    /// Spans that were not shown because there are too many rows.
    Rest(usize),
}

/// Siblings of one shape of which that many are shown: the first ones and the longest.
const SHOWN: usize = 3;

/// The least that is folded into one row.
const FOLDED: usize = 3;

/// At most `limit` rows; `fold` folds equal siblings. Of the guides those in the last `columns` are kept: in a chain
/// of spans they would else take the square of its length.
pub(super) fn rows(trace: &Trace, fold: bool, limit: usize, columns: usize) -> Vec<Row> {
    let tree = trace.tree();
    let shapes = shapes(trace);
    let mut rows = Vec::new();
    let mut shown = 0;
    // What is still to be shown, the next last: the row, the guides before it, whether it ends its siblings.
    let mut open: Vec<(What, Rc<str>, Option<bool>)> = Vec::new();
    let root_guides: Rc<str> = "".into();
    for what in siblings(trace, tree.roots(), &shapes, fold).into_iter().rev() {
        open.push((what, root_guides.clone(), None));
    }
    while let Some((what, before, last)) = open.pop() {
        if rows.len() >= limit {
            rows.push(Row { guides: String::new(), what: What::Rest(trace.spans().len() - shown) });
            break;
        }
        let connector = match last {
            None => "",
            Some(true) => "└ ",
            Some(false) => "├ ",
        };
        if let What::Span(position) = &what {
            let below: Rc<str> = match last {
                None => before.clone(),
                Some(true) => last_columns(&format!("{before}  "), columns).into(),
                Some(false) => last_columns(&format!("{before}│ "), columns).into(),
            };
            let parts = siblings(trace, tree.children(*position), &shapes, fold);
            let count = parts.len();
            for (n, part) in parts.into_iter().enumerate().rev() {
                open.push((part, below.clone(), Some(n + 1 == count)));
            }
        }
        shown += match &what {
            What::Folded(_, spans) => *spans,
            What::Span(_) | What::Rest(_) => 1,
        };
        rows.push(Row { guides: format!("{before}{connector}"), what });
    }
    rows
}

/// The end of guides, each of whose letters takes a column.
fn last_columns(guides: &str, columns: usize) -> &str {
    guides.char_indices().nth_back(columns).map_or(guides, |(at, letter)| &guides[at + letter.len_utf8()..])
}

/// What makes subtrees equal, and how many spans each has.
struct Shapes {
    hashes: Vec<u64>,
    sizes: Vec<usize>,
}

/// Service, operation and failure of a span and of all below it; parts that repeat count once.
fn shapes(trace: &Trace) -> Shapes {
    let spans = trace.spans();
    let state = DefaultHashBuilder::default();
    let mut shapes = Shapes { hashes: vec![0; spans.len()], sizes: vec![1; spans.len()] };
    for (position, _) in trace.tree().walk().into_iter().rev() {
        let span = &spans[position];
        let mut hasher = state.build_hasher();
        for text in [span.service(), &span.operation] {
            hasher.write_usize(text.len());
            hasher.write(text.as_bytes());
        }
        hasher.write_u8(span.status_code);
        let mut before = None;
        for child in trace.tree().children(position) {
            shapes.sizes[position] += shapes.sizes[*child];
            let hash = shapes.hashes[*child];
            if before.replace(hash) != Some(hash) {
                hasher.write_u64(hash);
            }
        }
        shapes.hashes[position] = hasher.finish();
    }
    shapes
}

/// Siblings of one shape, as they are met.
#[derive(Default)]
struct Group {
    count: usize,
    /// Duration and position of the first longest.
    longest: Option<(i64, usize)>,
    shown: usize,
    /// Where those that are not shown are gathered.
    row: Option<usize>,
}

/// Siblings as rows: of each shape the first ones and the longest, then one row for all others of it.
fn siblings(trace: &Trace, positions: &[usize], shapes: &Shapes, fold: bool) -> Vec<What> {
    if !fold || positions.len() < SHOWN + FOLDED {
        return positions.iter().map(|position| What::Span(*position)).collect();
    }
    let mut groups: HashMap<u64, Group> = HashMap::new();
    for position in positions {
        let group = groups.entry(shapes.hashes[*position]).or_default();
        group.count += 1;
        let duration = trace.spans()[*position].duration;
        if group.longest.is_none_or(|(longest, _)| duration > longest) {
            group.longest = Some((duration, *position));
        }
    }
    let mut rows: Vec<What> = Vec::new();
    for position in positions {
        let group = groups.entry(shapes.hashes[*position]).or_default();
        let longest = group.longest.is_some_and(|(_, longest)| longest == *position);
        if longest || group.shown < SHOWN - 1 || group.count < SHOWN + FOLDED {
            group.shown += usize::from(!longest);
            rows.push(What::Span(*position));
            continue;
        }
        let row = *group.row.get_or_insert_with(|| {
            rows.push(What::Folded(Vec::new(), 0));
            rows.len() - 1
        });
        if let What::Folded(folded, spans) = &mut rows[row] {
            folded.push(*position);
            *spans += shapes.sizes[*position];
        }
    }
    rows
}
