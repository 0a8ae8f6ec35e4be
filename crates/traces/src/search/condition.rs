//! Conditions on a span.

use std::ops::RangeInclusive;

use trine_schema::{LabelMatch, LabelMatcher};

use crate::Span;

/// Most conditions of one search.
pub(crate) const MAX_CONDITIONS: usize = 64;

/// Where a tag is looked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TagPlace {
    /// Among the span's attributes, then among those of its resource.
    Any,
    /// Among the span's attributes.
    Span,
    /// Among the attributes of the resource.
    Resource,
}

/// A condition on a span; values are compared as text, exactly.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Condition {
    /// The service is this one.
    Service(String),
    /// The span's name is this one.
    Operation(String),
    /// Nanoseconds.
    Duration(RangeInclusive<i64>),
    /// OTLP `StatusCode`.
    Status(u8),
    /// OTLP `SpanKind`.
    Kind(u8),
    /// An attribute has this value.
    Tag {
        /// Where it is looked for.
        place: TagPlace,
        /// Its name.
        key: String,
        /// Its value.
        value: String,
    },
}

impl Condition {
    /// Whether it holds.
    pub fn matches(&self, span: &Span) -> bool {
        match self {
            Self::Service(service) => label("service", service).matches(&span.resource),
            Self::Operation(operation) => *span.operation == **operation,
            Self::Duration(range) => range.contains(&span.duration),
            Self::Status(code) => span.status_code == *code,
            Self::Kind(kind) => span.kind == *kind,
            Self::Tag { place, key, value } => {
                let of_span = || span.attributes.iter().any(|(k, v)| **k == **key && **v == **value);
                let of_resource = || has_label(span, key, value);
                match place {
                    TagPlace::Span => of_span(),
                    TagPlace::Resource => of_resource(),
                    TagPlace::Any => of_span() || of_resource(),
                }
            }
        }
    }
}

fn has_label(span: &Span, key: &str, value: &str) -> bool {
    span.resource.labels.get(key).is_some() && label(key, value).matches(&span.resource)
}

/// A label that equals a value.
pub(super) fn label(name: &str, value: &str) -> LabelMatcher {
    LabelMatcher { name: name.to_owned(), value: LabelMatch::Equal(value.to_owned()) }
}
