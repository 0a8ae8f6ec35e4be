//! `LogRecord` of an `ExportLogsServiceRequest` in JSON.

use trine_model::{Severity, SpanId, TenantId, TraceId};
use trine_schema::{LogBatchBuilder, LogRecord, StreamRef, StreamRegistry};

use super::{
    DROPPED_COUNT,
    json::{self, FLAGS, Object, TIME, each_attribute, string, unsigned},
    json_value::{self, Any},
    scope::Scope,
};
use crate::{
    DecodeError, Decoded, Limits,
    intake::{Fault, bad, timestamp},
    json::{Json, Str, Value},
    json_intake::JsonIntake,
};

/// Decodes an `ExportLogsServiceRequest` in OTLP's JSON encoding. `now_ns` (nanoseconds since
/// 1970) stands in for records that carry no time at all.
pub fn decode_logs_json(
    bytes: &[u8],
    tenant: &TenantId,
    registry: &StreamRegistry,
    now_ns: i64,
    limits: &Limits,
) -> Result<Decoded, DecodeError> {
    json::decode::<LogBatchBuilder>(bytes, tenant, registry, now_ns, limits)
}

impl Object for LogBatchBuilder {
    const RESOURCES: &'static str = "resourceLogs";
    const SCOPES: &'static str = "scopeLogs";
    const RECORDS: &'static str = "logRecords";
    const RECORD_BYTES: usize = 400;

    #[inline]
    fn read(
        decoder: &mut JsonIntake<'_, Self>,
        json: &mut Json<'_>,
        stream: StreamRef,
        scope: &Scope,
    ) -> Result<(), Fault> {
        let JsonIntake { intake, buffer, key_buffer } = decoder;
        let start = json.position();
        json.object()?;
        let mut record = LogRecord { stream, scope_name: &scope.name, ..LogRecord::default() };
        let (mut time, mut observed) = (0, 0);
        let (mut body, mut dropped) = (Any::Empty, 0);
        // Both live until the row is closed; unescaped text of theirs is rare enough to own.
        let (mut severity_text, mut event_name) = (Str::plain(""), Str::plain(""));
        let mut attributes = scope.stage(&mut intake.builder);
        let mut first = true;
        while let Some(name) = json.member(&mut first)? {
            match name.raw() {
                "timeUnixNano" => time = unsigned(json.value()?, TIME)?,
                "observedTimeUnixNano" => observed = unsigned(json.value()?, TIME)?,
                "severityNumber" => record.severity = severity(json.value()?)?,
                "severityText" => severity_text = string(json.value()?, "severityText is not a string")?,
                "body" => body = json_value::any(json)?,
                "attributes" => each_attribute(json, |json| {
                    attributes += 1;
                    intake.check_attributes(attributes)?;
                    let (key, value) = json_value::pair(json, key_buffer, buffer, intake.limits.max_depth)?;
                    intake.builder.attribute(key, value);
                    Ok(())
                })?,
                "droppedAttributesCount" => {
                    dropped = unsigned(json.value()?, "droppedAttributesCount is not an unsigned integer")?;
                }
                "flags" => {
                    let flags = unsigned(json.value()?, FLAGS)?;
                    record.trace_flags = u32::try_from(flags).map_err(|_| bad(FLAGS))?;
                }
                "traceId" => {
                    let id = string(json.value()?, "traceId is not a string of hex digits")?;
                    record.trace_id = TraceId::from_hex(id.raw().as_bytes()).ok();
                }
                "spanId" => {
                    let id = string(json.value()?, "spanId is not a string of hex digits")?;
                    record.span_id = SpanId::from_hex(id.raw().as_bytes()).ok();
                }
                "eventName" => event_name = string(json.value()?, "eventName is not a string")?,
                _ => json.skip()?,
            }
        }
        intake.check_length(json.position() - start)?;
        if dropped != 0 {
            attributes += 1;
            intake.builder.attribute_display(DROPPED_COUNT, dropped);
        }
        if let Any::Text(text) = body {
            text.pieces(|piece| intake.builder.body(piece));
        } else {
            let text = json_value::text(body, json, buffer, intake.limits.max_depth)?;
            intake.builder.body(text);
        }
        let observed = timestamp(observed)?;
        record.observed_timestamp = (observed != 0).then_some(observed);
        record.timestamp = match timestamp(time)? {
            0 => record.observed_timestamp.unwrap_or(intake.now_ns),
            time => time,
        };
        record.severity_text = severity_text.text(key_buffer);
        record.event_name = event_name.text(buffer);
        intake.push(&record, attributes)
    }
}

/// A severity number, or its name, which the specification forbids and some senders write.
fn severity(value: Value<'_>) -> Result<Severity, Fault> {
    const REASON: &str = "severityNumber is not an integer";
    let digits = match value {
        Value::Number(digits) => digits,
        Value::Str(text) => text.raw(),
        Value::Null => return Ok(Severity::UNSET),
        _ => return Err(bad(REASON)),
    };
    if let Some(name) = digits.strip_prefix("SEVERITY_NUMBER_") {
        let step =
            name.bytes().last().filter(|digit| (b'2'..=b'4').contains(digit)).map_or(0, |digit| digit - b'1');
        let family = if step == 0 { name } else { &name[..name.len() - 1] };
        let base = match family {
            "UNSPECIFIED" => return Ok(Severity::UNSET),
            "TRACE" => 1,
            "DEBUG" => 5,
            "INFO" => 9,
            "WARN" => 13,
            "ERROR" => 17,
            "FATAL" => 21,
            _ => return Err(bad("severityNumber is a name that OTLP does not know")),
        };
        return Ok(Severity::from_number(i64::from(base + step)));
    }
    digits.parse().map(Severity::from_number).map_err(|_| bad(REASON))
}
