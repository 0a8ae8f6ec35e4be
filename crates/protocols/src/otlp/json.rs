//! The envelope of an export request in OTLP's JSON encoding: proto3 JSON with camelCase names, ids in
//! hex, enums as numbers, 64-bit integers as strings or numbers, unknown members ignored
//! (OTLP specification, "JSON Protobuf Encoding"). What a record is says [`Object`].
//!
//! One pass without a tree. JSON leaves the order of members free: where `scopeLogs` come before
//! `resource`, or `logRecords` before `scope`, they are passed over, remembered by place, and read
//! when the object is complete. Of members given twice the last one counts.
//!
//! A record whose members have wrong types is rejected alone; broken grammar, or a wrong type above
//! the records, refuses the request.

use trine_model::TenantId;
use trine_schema::{Labels, StreamRef, StreamRegistry};

use super::{json_value, scope::Scope};
use crate::{
    Batch as _, DecodeError, Decoded, Limits,
    intake::{Dialect, Fault, Intake, Reason, Rows, bad, labels},
    json::{Json, Str, Value},
    json_intake::JsonIntake,
};

/// Rows that one object each brings.
pub(crate) trait Object: Rows + Sized {
    /// Member of the request that holds resources.
    const RESOURCES: &'static str;
    /// Member of a resource that holds scopes.
    const SCOPES: &'static str;
    /// Member of a scope that holds records.
    const RECORDS: &'static str;
    /// A guess at the JSON bytes of a record, to size the builder.
    const RECORD_BYTES: usize;

    /// Decodes the object that is next, a record below its resource and scope.
    fn read(
        decoder: &mut JsonIntake<'_, Self>,
        json: &mut Json<'_>,
        stream: StreamRef,
        scope: &Scope,
    ) -> Result<(), Fault>;
}

pub(super) fn decode<B: Object>(
    bytes: &[u8],
    tenant: &TenantId,
    registry: &StreamRegistry,
    now_ns: i64,
    limits: &Limits,
) -> Result<Decoded<B::Batch>, DecodeError> {
    let mut json = Json::from_bytes(bytes)?;
    let rows = bytes.len() / B::RECORD_BYTES;
    let mut decoder =
        JsonIntake::<B>::new(Intake::new(tenant, registry, now_ns, limits, rows, bytes.len() / 2));
    json.object()?;
    let mut first = true;
    while let Some(name) = json.member(&mut first)? {
        if name.raw() == B::RESOURCES && !json.null()? {
            json.each(|json| decoder.resource_records(json))?;
        } else if name.raw() != B::RESOURCES {
            json.skip()?;
        }
    }
    json.end()?;
    Ok(decoder.intake.finish())
}

/// What stands above records: read, or refused with the reason for all of them.
type Shared<T> = Result<T, Reason>;

fn shared<T>(read: Result<T, Fault>) -> Result<Shared<T>, DecodeError> {
    match read {
        Ok(value) => Ok(Ok(value)),
        Err(Fault::Record(reason)) => Ok(Err(reason)),
        Err(Fault::Request(error)) => Err(error),
    }
}

impl<B: Object> JsonIntake<'_, B> {
    fn resource_records(&mut self, json: &mut Json<'_>) -> Result<(), DecodeError> {
        json.object()?;
        let mut stream = None;
        let mut waiting = None;
        let mut first = true;
        while let Some(name) = json.member(&mut first)? {
            match name.raw() {
                "resource" => {
                    let start = json.position();
                    let value = json.value()?;
                    let raw = match value {
                        Value::Nested(_, raw) => raw,
                        Value::Null => "",
                        _ => {
                            json.rewind(start);
                            return Err(json.fault("expected a resource object"));
                        }
                    };
                    stream = Some(self.resource(raw)?);
                }
                name if name == B::SCOPES => {
                    if let Some(stream) = &stream {
                        self.all_scope_records(json, stream)?;
                    } else {
                        waiting = Some(json.position());
                        json.skip()?;
                    }
                }
                _ => json.skip()?,
            }
        }
        if let Some(place) = waiting {
            let stream = match stream {
                Some(stream) => stream,
                None => self.resource("")?,
            };
            json.at(place, |json| self.all_scope_records(json, &stream))?;
        }
        Ok(())
    }

    fn resource(&self, raw: &str) -> Result<Shared<StreamRef>, DecodeError> {
        let parse = |limits: &Limits| parse_resource(raw, limits);
        shared(self.intake.stream(Dialect::OtlpJson, raw.as_bytes(), parse))
    }

    fn all_scope_records(
        &mut self,
        json: &mut Json<'_>,
        stream: &Shared<StreamRef>,
    ) -> Result<(), DecodeError> {
        if json.null()? {
            return Ok(());
        }
        json.each(|json| self.scope_records(json, stream))
    }

    fn scope_records(&mut self, json: &mut Json<'_>, stream: &Shared<StreamRef>) -> Result<(), DecodeError> {
        json.object()?;
        let mut scope = None;
        let mut waiting = None;
        let mut first = true;
        while let Some(name) = json.member(&mut first)? {
            match name.raw() {
                "scope" => {
                    let start = json.position();
                    let read = shared(self.scope(json))?;
                    if read.is_err() {
                        json.rewind(start);
                        json.skip()?;
                    }
                    scope = Some(read);
                }
                name if name == B::RECORDS => {
                    if let Some(scope) = &scope {
                        self.records(json, stream, scope)?;
                    } else {
                        waiting = Some(json.position());
                        json.skip()?;
                    }
                }
                _ => json.skip()?,
            }
        }
        if let Some(place) = waiting {
            let scope = scope.unwrap_or_else(|| Ok(Scope::default()));
            json.at(place, |json| self.records(json, stream, &scope))?;
        }
        Ok(())
    }

    fn scope(&mut self, json: &mut Json<'_>) -> Result<Scope, Fault> {
        let limits = self.intake.limits;
        let mut scope = Scope::default();
        if json.null()? {
            return Ok(scope);
        }
        json.object()?;
        let mut first = true;
        while let Some(name) = json.member(&mut first)? {
            match name.raw() {
                "name" => {
                    if let Value::Str(text) = json.value()? {
                        scope.set_name(text.text(&mut self.buffer), limits)?;
                    }
                }
                "version" => {
                    if let Value::Str(text) = json.value()? {
                        scope.set_version(text.text(&mut self.buffer), limits)?;
                    }
                }
                "attributes" if !json.null()? => {
                    json.array()?;
                    let mut first = true;
                    while json.element(&mut first)? {
                        let (key, value) = json_value::key_value(json)?;
                        let value = json_value::text(value, json, &mut self.buffer, limits.max_depth)?;
                        scope.attribute(key.text(&mut self.key_buffer), value, limits)?;
                    }
                }
                "attributes" => {}
                _ => json.skip()?,
            }
        }
        Ok(scope)
    }

    fn records(
        &mut self,
        json: &mut Json<'_>,
        stream: &Shared<StreamRef>,
        scope: &Shared<Scope>,
    ) -> Result<(), DecodeError> {
        if json.null()? {
            return Ok(());
        }
        match (stream, scope) {
            (Ok(stream), Ok(scope)) => {
                self.each_record(json, |decoder, json| decoder.record(json, *stream, scope))
            }
            (Err(reason), _) | (_, Err(reason)) => self.refuse(json, reason.clone()),
        }
    }

    #[inline]
    fn record(&mut self, json: &mut Json<'_>, stream: StreamRef, scope: &Scope) -> Result<(), Fault> {
        if json.peek() != b'{' {
            return Err(Fault::Record(format!("the {} is not an object", B::Batch::ROW).into()));
        }
        B::read(self, json, stream, scope)
    }
}

pub(super) const TIME: &str = "a time is not an unsigned integer of nanoseconds since 1970";
pub(super) const FLAGS: &str = "flags are not an unsigned 32-bit integer";

pub(super) fn string<'a>(value: Value<'a>, reason: &'static str) -> Result<Str<'a>, Fault> {
    match value {
        Value::Str(text) => Ok(text),
        Value::Null => Ok(Str::plain("")),
        _ => Err(bad(reason)),
    }
}

/// A 64-bit integer as number or string; numbers may be spelled like `1e3`.
#[inline]
pub(super) fn unsigned(value: Value<'_>, reason: &'static str) -> Result<u64, Fault> {
    let digits = match value {
        Value::Number(digits) => digits,
        Value::Str(text) => text.raw(),
        Value::Null => return Ok(0),
        _ => return Err(bad(reason)),
    };
    if let Ok(number) = digits.parse() {
        return Ok(number);
    }
    match digits.parse::<f64>() {
        // 2^64 is the first double that does not fit.
        Ok(number) if number.fract() == 0.0 && (0.0..18_446_744_073_709_551_616.0).contains(&number) => {
            Ok(number as u64)
        }
        _ => Err(bad(reason)),
    }
}

/// Runs over the attributes of a record; `null` is none.
#[inline]
pub(super) fn each_attribute<'a>(
    json: &mut Json<'a>,
    attribute: impl FnMut(&mut Json<'a>) -> Result<(), Fault>,
) -> Result<(), Fault> {
    if json.null()? {
        return Ok(());
    }
    if json.peek() != b'[' {
        return Err(bad("attributes are not an array"));
    }
    json.each(attribute)
}

fn parse_resource(raw: &str, limits: &Limits) -> Result<Labels, Fault> {
    let mut pairs = Vec::new();
    if raw.is_empty() {
        return labels(pairs, limits);
    }
    let (mut buffer, mut key_buffer) = (String::new(), String::new());
    let mut json = Json::new(raw);
    json.object().map_err(|_| bad("the resource is not an object"))?;
    let mut first = true;
    while let Some(name) = json.member(&mut first)? {
        if name.raw() != "attributes" || json.null()? {
            if name.raw() != "attributes" {
                json.skip()?;
            }
            continue;
        }
        if json.peek() != b'[' {
            return Err(bad("the resource's attributes are not an array"));
        }
        json.array()?;
        let mut first = true;
        while json.element(&mut first)? {
            let (key, value) = json_value::key_value(&mut json)?;
            if pairs.len() <= limits.max_labels_per_stream {
                let value = json_value::text(value, &mut json, &mut buffer, limits.max_depth)?;
                pairs.push((key.text(&mut key_buffer).into(), value.into()));
            }
        }
    }
    if pairs.iter().any(|(key, _): &(Box<str>, Box<str>)| key.is_empty()) {
        return Err(bad("a resource attribute has no key; name it"));
    }
    labels(pairs, limits)
}
