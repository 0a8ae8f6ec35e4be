//! One JSON object per line (`POST /api/v1/ingest/jsonlines`).
//!
//! How a line maps:
//! - nested objects are flattened, names joined by dots; arrays stay JSON text, `null` counts as
//!   absent;
//! - [`FieldNames`] say which fields are time, message, severity word, ids and stream labels; of
//!   several candidates present, the first in the list is taken. All others are attributes;
//! - time is RFC 3339 (without zone: UTC) or a number since 1970 whose size tells seconds, milli-,
//!   micro- or nanoseconds; 0, empty or missing means the time of arrival; anything else rejects
//!   the line;
//! - a line without message keeps its whole text as body, so nothing is lost;
//! - a severity that is no known word, and an id that is no valid hex id, stay attributes.
//!
//! A bad line is rejected by its number (from 1); blank lines are passed over.

mod fields;
mod flatten;
mod time;

use memchr::memchr_iter;
use trine_model::{Severity, SpanId, TenantId, TraceId};
use trine_schema::{Labels, LogRecord, StreamRef, StreamRegistry};

pub use fields::{FieldNames, FieldNamesError};

use self::{
    fields::Kind,
    flatten::{Flat, Member},
};
use crate::{
    DecodeError, Decoded, Limits,
    intake::{Dialect, Fault, Intake, bad, labels, utf8},
    json::{Json, Value},
};

/// A guess at the bytes of a line, to size the builder.
const LINE_BYTES: usize = 250;

/// Decodes JSON lines. `now_ns` (nanoseconds since 1970) stands in for lines without a time.
pub fn decode(
    bytes: &[u8],
    fields: &FieldNames,
    tenant: &TenantId,
    registry: &StreamRegistry,
    now_ns: i64,
    limits: &Limits,
) -> Result<Decoded, DecodeError> {
    // One check of the whole body spares one per line; only a body that fails is checked by line.
    let all_utf8 = simdutf8::basic::from_utf8(bytes).ok();
    let mut decoder = Decoder {
        intake: Intake::new(tenant, registry, now_ns, limits, bytes.len() / LINE_BYTES, bytes.len() / 2),
        fields,
        flat: Flat::default(),
        buffer: String::new(),
        level_buffer: String::new(),
        labels: Vec::new(),
        last_stream: None,
    };
    let mut start = 0;
    let ends = memchr_iter(b'\n', bytes).chain(std::iter::once(bytes.len()));
    for (i, end) in ends.enumerate() {
        let line = bytes[start..end].trim_ascii();
        if !line.is_empty() {
            decoder.intake.set_position(i);
            decoder.intake.begin()?;
            let text = match all_utf8 {
                // A line break is a byte of its own in UTF-8, so lines of valid text are valid.
                Some(text) => Ok(text[start..end].trim_ascii()),
                None => utf8(line, "the line is not valid UTF-8; send text as UTF-8"),
            };
            let outcome = match text.and_then(|text| decoder.line(text)) {
                Err(Fault::Request(DecodeError::Json { offset, reason })) => Err(Fault::Record(
                    format!("not valid JSON: {reason} at byte {offset} of the line").into(),
                )),
                outcome => outcome,
            };
            decoder.intake.settle(outcome)?;
        }
        start = end + 1;
    }
    Ok(decoder.intake.finish())
}

struct Decoder<'a, 'r> {
    intake: Intake<'r>,
    fields: &'r FieldNames,
    flat: Flat<'a>,
    /// For text with escapes; reused.
    buffer: String,
    level_buffer: String,
    /// Labels of the line, spelled as [`Decoder::stream`] says; reused.
    labels: Vec<u8>,
    /// Labels of the last line and their stream, since neighbours are often of one stream.
    last_stream: Option<(Vec<u8>, StreamRef)>,
}

impl<'a> Decoder<'a, '_> {
    fn line(&mut self, line: &'a str) -> Result<(), Fault> {
        self.intake.check_length(line.len())?;
        let mut json = Json::new(line);
        if json.peek() != b'{' {
            return Err(bad("the line is not a JSON object"));
        }
        self.flat.read(&mut json, self.fields, self.intake.limits)?;
        json.end()?;
        let stream = self.stream()?;
        let mut record = LogRecord { stream, timestamp: self.intake.now_ns, ..LogRecord::default() };
        let Self { intake, flat, buffer, level_buffer, .. } = self;

        if let Some(member) = flat.best(Kind::Time)
            && let Some(time) = time_of(member, flat, buffer)?
        {
            record.timestamp = time;
        }
        let mut level = None;
        if let Some(member) = flat.best(Kind::Level)
            && let Value::Str(word) = member.value
        {
            let word = word.text(level_buffer);
            if let Some(severity) = Severity::from_text(word) {
                record.severity = severity;
                record.severity_text = word;
                level = Some(member.index);
            }
        }
        let hex = |member: &Member<'a>| match member.value {
            Value::Str(text) => text.as_plain(),
            _ => None,
        };
        let trace = flat.best(Kind::TraceId);
        record.trace_id = trace.and_then(hex).and_then(|text| TraceId::from_hex(text.as_bytes()).ok());
        let span = flat.best(Kind::SpanId);
        record.span_id = span.and_then(hex).and_then(|text| SpanId::from_hex(text.as_bytes()).ok());

        let message = flat.best(Kind::Message);
        match message.map(|member| member.value) {
            Some(Value::Str(text)) => text.pieces(|piece| intake.builder.body(piece)),
            Some(value) => intake.builder.body(plain(value, buffer)),
            None => intake.builder.body(line),
        }
        let used = [
            flat.best(Kind::Time).map(|member| member.index),
            message.map(|member| member.index),
            level,
            trace.filter(|_| record.trace_id.is_some()).map(|member| member.index),
            span.filter(|_| record.span_id.is_some()).map(|member| member.index),
        ];
        let mut attributes = 0;
        for member in flat.members() {
            if member.role.is_stream() || used.contains(&Some(member.index)) {
                continue;
            }
            attributes += 1;
            intake.builder.attribute(flat.name(member), plain(member.value, buffer));
        }
        intake.push(&record, attributes)
    }

    /// The stream of the line: its stream fields, spelled as name, 0, length of value, value.
    fn stream(&mut self) -> Result<StreamRef, Fault> {
        self.labels.clear();
        for member in self.flat.members().filter(|member| member.role.is_stream()) {
            let value = plain(member.value, &mut self.buffer);
            self.labels.extend_from_slice(self.flat.name(member).as_bytes());
            self.labels.push(0);
            self.labels.extend_from_slice(&(value.len() as u64).to_le_bytes());
            self.labels.extend_from_slice(value.as_bytes());
        }
        if let Some((labels, stream)) = &self.last_stream
            && *labels == self.labels
        {
            return Ok(*stream);
        }
        let flat = &self.flat;
        let stream =
            self.intake.stream(Dialect::JsonLines, &self.labels, |limits| parse_labels(flat, limits))?;
        match &mut self.last_stream {
            Some((labels, last)) => {
                labels.clone_from(&self.labels);
                *last = stream;
            }
            None => self.last_stream = Some((self.labels.clone(), stream)),
        }
        Ok(stream)
    }
}

fn parse_labels(flat: &Flat<'_>, limits: &Limits) -> Result<Labels, Fault> {
    let mut buffer = String::new();
    let members = flat.members().filter(|member| member.role.is_stream());
    labels(
        members.map(|member| (flat.name(member).into(), plain(member.value, &mut buffer).into())).collect(),
        limits,
    )
}

/// A value as text.
fn plain<'s, 'a: 's>(value: Value<'a>, buffer: &'s mut String) -> &'s str {
    match value {
        Value::Null => "",
        Value::Bool(true) => "true",
        Value::Bool(false) => "false",
        Value::Number(raw) | Value::Nested(_, raw) => raw,
        Value::Str(text) => text.text(buffer),
    }
}

fn time_of(member: &Member<'_>, flat: &Flat<'_>, buffer: &mut String) -> Result<Option<i64>, Fault> {
    let text = plain(member.value, buffer);
    if matches!(text, "" | "0") {
        return Ok(None);
    }
    let time = match member.value {
        Value::Number(_) | Value::Str(_) => time::parse(text),
        _ => None,
    };
    time.map(Some).ok_or_else(|| {
        let (name, shown): (_, String) = (flat.name(member), text.chars().take(60).collect());
        let reason =
            format!("field {name:?} holds {shown:?}, which is no time; send RFC 3339 or a number since 1970");
        Fault::Record(reason.into())
    })
}
