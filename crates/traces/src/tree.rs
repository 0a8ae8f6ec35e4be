//! Who is part of whom, for spans that may lack their parent, name each other in a circle or share an id.
//!
//! Every span has exactly one place. A parent is searched by its id; where several spans have that id
//! (Zipkin's two halves of a call, ids that repeat by mistake) the one of the same service that was running is
//! taken. A circle is opened at its first span. All of it takes time in proportion to the number of spans.

use hashbrown::HashMap;
use trine_model::SpanId;

use crate::{
    Span,
    span::kind::{CLIENT, SERVER},
};

/// Where a span stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// It names no parent.
    Root,
    /// Part of the span at this position.
    Child(usize),
    /// The parent it names is not there: late or lost.
    Orphan,
    /// Its ancestors lead back to itself.
    Cycle,
}

/// Spans that share an id and are looked at when a child searches its parent; more are unlikely to help.
const CANDIDATES: usize = 16;

const NONE: usize = usize::MAX;

/// A forest over the positions of spans.
#[derive(Debug, Clone)]
pub struct Tree {
    places: Vec<Place>,
    roots: Vec<usize>,
    /// Children of position `n` are `children[offsets[n]..offsets[n + 1]]`.
    offsets: Vec<usize>,
    children: Vec<usize>,
}

impl Tree {
    /// Spans in order of start; children and roots keep it.
    pub(crate) fn new(spans: &[Span]) -> Self {
        let mut places = places(spans);
        open_cycles(&mut places);
        let mut offsets = vec![0; spans.len() + 1];
        for place in &places {
            if let Place::Child(parent) = place {
                offsets[parent + 1] += 1;
            }
        }
        for n in 0..spans.len() {
            offsets[n + 1] += offsets[n];
        }
        let mut next = offsets.clone();
        let mut children = vec![0; offsets[spans.len()]];
        let mut roots = Vec::new();
        for (position, place) in places.iter().enumerate() {
            if let Place::Child(parent) = place {
                children[next[*parent]] = position;
                next[*parent] += 1;
            } else {
                roots.push(position);
            }
        }
        Self { places, roots, offsets, children }
    }

    /// Where the span stands.
    pub fn place(&self, position: usize) -> Place {
        self.places[position]
    }

    /// Spans without a parent in the tree, by start.
    pub fn roots(&self) -> &[usize] {
        &self.roots
    }

    /// Parts of the span, by start.
    pub fn children(&self, position: usize) -> &[usize] {
        &self.children[self.offsets[position]..self.offsets[position + 1]]
    }

    /// The first span that names no parent, else the first of all.
    pub fn root(&self) -> usize {
        let real = self.roots.iter().find(|position| self.places[**position] == Place::Root);
        real.or(self.roots.first()).copied().unwrap_or(0)
    }

    /// Every position with its depth, parents before their children.
    pub fn walk(&self) -> Vec<(usize, usize)> {
        let mut order = Vec::with_capacity(self.places.len());
        let mut open: Vec<(usize, usize)> = self.roots.iter().rev().map(|root| (*root, 0)).collect();
        while let Some((position, depth)) = open.pop() {
            order.push((position, depth));
            open.extend(self.children(position).iter().rev().map(|child| (*child, depth + 1)));
        }
        order
    }
}

/// What each span says of itself; circles are still closed.
fn places(spans: &[Span]) -> Vec<Place> {
    // Positions of an id: the first and the last, then from one to the next.
    let mut by_id: HashMap<SpanId, (usize, usize)> = HashMap::with_capacity(spans.len());
    let mut following = vec![NONE; spans.len()];
    for (position, span) in spans.iter().enumerate() {
        let (_, last) = by_id.entry(span.id).or_insert((position, position));
        if *last != position {
            following[*last] = position;
            *last = position;
        }
    }
    let with_id = |id: SpanId| {
        let first = by_id.get(&id).map(|(first, _)| *first);
        std::iter::successors(first, |position| Some(following[*position]).filter(|next| *next != NONE))
            .take(CANDIDATES)
    };
    let place = |(position, span): (usize, &Span)| {
        // Zipkin gives both halves of a call one id and one parent: the server's is part of the client's.
        let is_client = |other: &Span| other.kind == CLIENT && other.parent_id == span.parent_id;
        if span.kind == SERVER
            && let Some(client) = with_id(span.id).find(|other| is_client(&spans[*other]))
        {
            return Place::Child(client);
        }
        let Some(parent_id) = span.parent_id else { return Place::Root };
        let likely = |other: &usize| {
            let other = &spans[*other];
            (other.service() == span.service(), (other.start..=other.end()).contains(&span.start))
        };
        // Of equally likely ones the first.
        let parent = with_id(parent_id)
            .filter(|other| *other != position)
            .reduce(|best, other| if likely(&other) > likely(&best) { other } else { best });
        match parent {
            Some(parent) => Place::Child(parent),
            None if parent_id == span.id => Place::Cycle,
            None => Place::Orphan,
        }
    };
    spans.iter().enumerate().map(place).collect()
}

/// Makes the first span of each circle a root.
fn open_cycles(places: &mut [Place]) {
    // 0: not seen; n + 1: seen on the way up from position n.
    let mut seen = vec![0; places.len()];
    for from in 0..places.len() {
        let mut at = from;
        while seen[at] == 0 {
            seen[at] = from + 1;
            let Place::Child(parent) = places[at] else { break };
            if seen[parent] == from + 1 {
                let first = first_of_cycle(places, parent);
                places[first] = Place::Cycle;
                break;
            }
            at = parent;
        }
    }
}

fn first_of_cycle(places: &[Place], inside: usize) -> usize {
    let (mut first, mut at) = (inside, inside);
    while let Place::Child(parent) = places[at] {
        first = first.min(parent);
        at = parent;
        if at == inside {
            break;
        }
    }
    first
}
