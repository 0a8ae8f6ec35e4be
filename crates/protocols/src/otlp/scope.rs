//! The instrumentation scope, parsed once and repeated in the records below it.

use crate::{
    Limits,
    intake::{ATTRIBUTE_BYTES, Fault, Rows},
};

/// Prefix of a scope's own attributes in a record, as other exporters write it.
const PREFIX: &str = "otel.scope.";

#[derive(Debug, Default)]
pub(crate) struct Scope {
    pub(super) name: String,
    attributes: Vec<(String, String)>,
    bytes: usize,
}

impl Scope {
    pub(super) fn set_name(&mut self, name: &str, limits: &Limits) -> Result<(), Fault> {
        self.name.clear();
        self.name.push_str(name);
        self.grow(name.len(), limits)
    }

    pub(super) fn set_version(&mut self, version: &str, limits: &Limits) -> Result<(), Fault> {
        if version.is_empty() { Ok(()) } else { self.attribute("version", version, limits) }
    }

    pub(super) fn attribute(&mut self, key: &str, value: &str, limits: &Limits) -> Result<(), Fault> {
        self.attributes.push((format!("{PREFIX}{key}"), value.to_owned()));
        self.grow(PREFIX.len() + key.len() + value.len() + ATTRIBUTE_BYTES, limits)
    }

    fn grow(&mut self, bytes: usize, limits: &Limits) -> Result<(), Fault> {
        self.bytes += bytes;
        if self.bytes <= limits.max_scope_bytes {
            return Ok(());
        }
        let limit = limits.max_scope_bytes;
        let text = format!(
            "the instrumentation scope has more than {limit} bytes; send some as resource attributes"
        );
        Err(Fault::Record(text.into()))
    }

    /// Stages the scope's attributes for a record; returns how many.
    #[inline]
    pub(super) fn stage(&self, builder: &mut impl Rows) -> usize {
        for (key, value) in &self.attributes {
            builder.attribute(key, value);
        }
        self.attributes.len()
    }
}
