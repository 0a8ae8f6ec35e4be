//! Spans by resource and scope.

use hashbrown::HashMap;

use crate::{Attributes, Resource, Span, Trace};

/// Prefix of what belongs to the instrumentation scope.
const SCOPE: &str = "otel.scope.";
/// The scope's name, which is not among its attributes.
const SCOPE_NAME: &str = "otel.scope.name";
const VERSION: &str = "version";

/// Spans of one resource, by scope; both in order of their first span.
pub(super) struct ResourceGroup<'a> {
    pub(super) resource: &'a Resource,
    pub(super) scopes: Vec<ScopeGroup<'a>>,
}

/// Spans of one instrumentation scope.
pub(super) struct ScopeGroup<'a> {
    pub(super) name: &'a str,
    pub(super) version: &'a str,
    pub(super) attributes: Vec<(&'a str, &'a str)>,
    pub(super) spans: Vec<&'a Span>,
}

type ScopeKey<'a> = (usize, &'a str, Vec<(&'a str, &'a str)>);

/// `copies` tells a span as often as it was stored, else once.
pub(super) fn group(trace: &Trace, copies: bool) -> Vec<ResourceGroup<'_>> {
    let mut groups: Vec<ResourceGroup<'_>> = Vec::new();
    let mut resources: HashMap<&Resource, usize> = HashMap::new();
    let mut scopes: HashMap<ScopeKey<'_>, usize> = HashMap::new();
    for span in trace.spans() {
        let resource = *resources.entry(&span.resource).or_insert_with(|| {
            groups.push(ResourceGroup { resource: &span.resource, scopes: Vec::new() });
            groups.len() - 1
        });
        let group = &mut groups[resource];
        let of_scope: Vec<(&str, &str)> =
            span.attributes.iter().filter_map(|(key, value)| Some((scope_key(key)?, &**value))).collect();
        let scope =
            *scopes.entry((resource, &span.scope_name, of_scope)).or_insert_with_key(|(_, _, pairs)| {
                let version = pairs.iter().find(|(key, _)| *key == VERSION).map_or("", |(_, value)| *value);
                group.scopes.push(ScopeGroup {
                    name: &span.scope_name,
                    version,
                    attributes: pairs.iter().filter(|(key, _)| *key != VERSION).copied().collect(),
                    spans: Vec::new(),
                });
                group.scopes.len() - 1
            });
        let times = if copies { span.copies as usize } else { 1 };
        group.scopes[scope].spans.extend(std::iter::repeat_n(span, times));
    }
    groups
}

/// The key in the scope of an attribute that is the scope's.
fn scope_key(key: &str) -> Option<&str> {
    key.strip_prefix(SCOPE).filter(|_| key != SCOPE_NAME)
}

/// Counts of what the sender left out, 0 where it did not say so.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Dropped {
    pub(super) attributes: u32,
    pub(super) events: u32,
    pub(super) links: u32,
}

/// Attributes without those of the scope and the dropped counts, and these counts.
pub(super) fn unfold(attributes: &Attributes) -> (Vec<(&str, &str)>, Dropped) {
    let mut dropped = Dropped::default();
    let own = attributes.iter().filter_map(|(key, value)| {
        let count = match &**key {
            "otel.dropped_attributes_count" => &mut dropped.attributes,
            "otel.dropped_events_count" => &mut dropped.events,
            "otel.dropped_links_count" => &mut dropped.links,
            key if scope_key(key).is_some() => return None,
            key => return Some((key, &**value)),
        };
        match value.parse() {
            Ok(number) => *count = number,
            Err(_) => return Some((key, value)),
        }
        None
    });
    (own.collect(), dropped)
}
