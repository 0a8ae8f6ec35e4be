//! A trace: its spans in order and who is part of whom.

use hashbrown::HashSet;
use trine_model::TraceId;

use crate::{Span, Tree};

/// All spans of one trace id. Never empty.
#[derive(Debug, Clone)]
pub struct Trace {
    /// Its id.
    pub id: TraceId,
    /// By start; of those that start together the longer first. What was stored twice with nothing different
    /// is here once, see [`Span::copies`].
    spans: Vec<Span>,
    tree: Tree,
}

impl Trace {
    /// Spans in any order; at least one.
    pub(crate) fn new(id: TraceId, mut spans: Vec<Span>) -> Self {
        debug_assert!(!spans.is_empty(), "BUG: a trace has a span");
        spans.sort_by(|a, b| (a.start, b.duration, a.id).cmp(&(b.start, a.duration, b.id)));
        let tree = Tree::new(&spans);
        Self { id, spans, tree }
    }

    /// By start; of those that start together the longer first.
    pub fn spans(&self) -> &[Span] {
        &self.spans
    }

    /// Positions in [`Trace::spans`] as a forest.
    pub fn tree(&self) -> &Tree {
        &self.tree
    }

    /// The span that stands for the trace: the first that has no parent, else the first of all.
    pub fn root(&self) -> &Span {
        &self.spans[self.tree.root()]
    }

    /// First start, nanoseconds since 1970.
    pub fn start(&self) -> i64 {
        self.spans[0].start
    }

    /// Latest end (or start, where a duration is negative), nanoseconds since 1970.
    pub fn end(&self) -> i64 {
        self.spans.iter().map(|span| span.end().max(span.start)).max().unwrap_or_default()
    }

    /// From the first start to the latest end, nanoseconds.
    pub fn duration(&self) -> i64 {
        self.end().saturating_sub(self.start())
    }

    /// Spans that failed.
    pub fn errors(&self) -> usize {
        self.spans.iter().filter(|span| span.is_error()).count()
    }

    /// Names of the services in order of their first span; spans without one count as the empty name.
    pub fn services(&self) -> Vec<&str> {
        let mut seen = HashSet::new();
        self.spans.iter().map(Span::service).filter(|service| seen.insert(*service)).collect()
    }
}
