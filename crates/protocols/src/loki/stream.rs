//! One stream of a push, and the closing of its entries.

use trine_model::Severity;
use trine_schema::{LogRecord, StreamRef, StreamRegistry};

use crate::{
    hints::{Hint, LEVEL_NAMES, hint},
    intake::{Fault, Intake},
};

/// What all entries of a stream share.
#[derive(Debug, Clone, Copy)]
pub(super) struct PushStream {
    stream: StreamRef,
    /// From the stream's labels.
    severity: Severity,
}

impl PushStream {
    pub(super) fn new(stream: StreamRef, registry: &StreamRegistry) -> Self {
        let labels = &registry.get(stream).labels;
        let word = |name: &&str| labels.iter().find(|(key, _)| key == name).map(|(_, value)| value);
        let severity = LEVEL_NAMES.iter().filter_map(word).find_map(Severity::from_text).unwrap_or_default();
        Self { stream, severity }
    }

    pub(super) fn record<'a>(self) -> EntryRecord<'a> {
        let record = LogRecord { stream: self.stream, severity: self.severity, ..LogRecord::default() };
        EntryRecord { record, level_found: false, attributes: 0 }
    }
}

/// A level as the metadata spelled it.
#[derive(Debug, Clone, Copy)]
pub(super) struct KnownLevel<'a> {
    severity: Severity,
    word: &'a str,
}

/// An entry while its metadata are read.
pub(super) struct EntryRecord<'a> {
    pub(super) record: LogRecord<'a>,
    /// Whether the severity came from the metadata.
    level_found: bool,
    attributes: usize,
}

impl<'a> EntryRecord<'a> {
    /// Takes one piece of metadata whose value lives as long as the request. Gives the level when it was one.
    #[inline]
    pub(super) fn metadata(
        &mut self,
        name: &str,
        value: &'a str,
        intake: &mut Intake<'_>,
    ) -> Result<Option<KnownLevel<'a>>, Fault> {
        match hint(name, value) {
            Hint::TraceId(id) if self.record.trace_id.is_none() => self.record.trace_id = Some(id),
            Hint::SpanId(id) if self.record.span_id.is_none() => self.record.span_id = Some(id),
            Hint::Level(severity, word) => {
                let level = KnownLevel { severity, word };
                if self.level(level) {
                    return Ok(Some(level));
                }
                self.attribute(name, value, intake)?;
            }
            _ => self.attribute(name, value, intake)?,
        }
        Ok(None)
    }

    /// Takes a level from the metadata. The first word fills the column; further ones are refused here
    /// and stay attributes.
    #[inline]
    pub(super) fn level(&mut self, level: KnownLevel<'a>) -> bool {
        let first = !std::mem::replace(&mut self.level_found, true);
        if first {
            self.record.severity = level.severity;
            self.record.severity_text = level.word;
        }
        first
    }

    /// Takes an attribute as it is.
    #[inline]
    pub(super) fn attribute(
        &mut self,
        name: &str,
        value: &str,
        intake: &mut Intake<'_>,
    ) -> Result<(), Fault> {
        self.attributes += 1;
        intake.check_attributes(self.attributes)?;
        intake.builder.attribute(name, value);
        Ok(())
    }

    #[inline]
    pub(super) fn push(&self, intake: &mut Intake<'_>) -> Result<(), Fault> {
        intake.push(&self.record, self.attributes)
    }
}
