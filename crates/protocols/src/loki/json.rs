//! The push API's JSON form, `{"streams":[{"stream":{…},"values":[["ns","line",{…}],…]}]}`.
//!
//! `values` before `stream` are passed over first and read when the labels are known. An entry with
//! wrong types is rejected alone; broken grammar refuses the request.

use trine_model::TenantId;
use trine_schema::{Labels, StreamRegistry};

use super::{labels, stream::PushStream};
use crate::{
    DecodeError, Decoded, Limits,
    intake::{Dialect, Fault, Intake, bad},
    json::{Json, Value},
    json_intake::JsonIntake,
};

/// A guess at the JSON bytes of an entry, to size the builder.
const ENTRY_BYTES: usize = 200;

/// Decodes the JSON form of a push. `now_ns` (nanoseconds since 1970) stands in for an entry whose
/// time is 0 or empty.
pub fn decode_push_json(
    bytes: &[u8],
    tenant: &TenantId,
    registry: &StreamRegistry,
    now_ns: i64,
    limits: &Limits,
) -> Result<Decoded, DecodeError> {
    let mut json = Json::from_bytes(bytes)?;
    let intake = Intake::new(tenant, registry, now_ns, limits, bytes.len() / ENTRY_BYTES, bytes.len());
    let mut decoder = JsonIntake::new(intake);
    json.object()?;
    let mut first = true;
    while let Some(name) = json.member(&mut first)? {
        match name.raw() {
            "streams" => json.each(|json| decoder.stream(json))?,
            _ => json.skip()?,
        }
    }
    json.end()?;
    Ok(decoder.intake.finish())
}

impl JsonIntake<'_> {
    fn stream(&mut self, json: &mut Json<'_>) -> Result<(), DecodeError> {
        json.object()?;
        let mut labels = None;
        let mut waiting = None;
        let mut first = true;
        while let Some(name) = json.member(&mut first)? {
            match name.raw() {
                "stream" => {
                    let Value::Nested(_, raw) = json.value()? else {
                        return Err(json.fault("a stream's labels are not an object"));
                    };
                    labels = Some(raw);
                }
                "values" => {
                    if let Some(raw) = labels {
                        self.values(json, raw)?;
                    } else {
                        waiting = Some(json.position());
                        json.skip()?;
                    }
                }
                _ => json.skip()?,
            }
        }
        if let Some(place) = waiting {
            json.at(place, |json| self.values(json, labels.unwrap_or("{}")))?;
        }
        Ok(())
    }

    fn values(&mut self, json: &mut Json<'_>, raw: &str) -> Result<(), DecodeError> {
        let stream =
            self.intake.stream(Dialect::LokiJson, raw.as_bytes(), |limits| parse_labels(raw, limits));
        match stream {
            Ok(stream) => {
                let stream = PushStream::new(stream, self.intake.registry());
                self.each_record(json, |decoder, json| decoder.entry(json, stream))
            }
            Err(Fault::Record(reason)) => self.refuse(json, reason),
            Err(Fault::Request(error)) => Err(error),
        }
    }

    #[inline]
    fn entry(&mut self, json: &mut Json<'_>, stream: PushStream) -> Result<(), Fault> {
        const SHAPE: &str =
            "the entry is not [\"nanoseconds\", \"line\"] or [\"nanoseconds\", \"line\", {…}]";
        if json.peek() != b'[' {
            return Err(bad(SHAPE));
        }
        let start = json.position();
        let mut entry = stream.record();
        let mut first = true;
        json.array()?;
        if !json.element(&mut first)? {
            return Err(bad(SHAPE));
        }
        entry.record.timestamp = match json.value()? {
            Value::Str(text) => self.time(text.raw())?,
            Value::Number(digits) => self.time(digits)?,
            _ => return Err(bad(SHAPE)),
        };
        if !json.element(&mut first)? {
            return Err(bad(SHAPE));
        }
        let Value::Str(line) = json.value()? else {
            return Err(bad(SHAPE));
        };
        while json.element(&mut first)? {
            if json.null()? {
                continue;
            }
            if json.peek() != b'{' {
                return Err(bad("the entry's structured metadata are not an object"));
            }
            json.object()?;
            let mut first = true;
            while let Some(name) = json.member(&mut first)? {
                let value = json.value()?;
                let name = name.text(&mut self.key_buffer);
                match value {
                    // Ids and level words need no escapes.
                    Value::Str(text) => match text.as_plain() {
                        Some(plain) => drop(entry.metadata(name, plain, &mut self.intake)?),
                        None => entry.attribute(name, text.text(&mut self.buffer), &mut self.intake)?,
                    },
                    Value::Number(raw) | Value::Nested(_, raw) => {
                        entry.attribute(name, raw, &mut self.intake)?;
                    }
                    Value::Bool(true) => entry.attribute(name, "true", &mut self.intake)?,
                    Value::Bool(false) => entry.attribute(name, "false", &mut self.intake)?,
                    Value::Null => {}
                }
            }
        }
        self.intake.check_length(json.position() - start)?;
        line.pieces(|piece| self.intake.builder.body(piece));
        entry.push(&mut self.intake)
    }

    fn time(&self, digits: &str) -> Result<i64, Fault> {
        if matches!(digits, "" | "0") {
            return Ok(self.intake.now_ns);
        }
        digits.parse().map_err(|_| {
            let shown: String = digits.chars().take(40).collect();
            Fault::Record(format!("time {shown:?} is not an integer of nanoseconds since 1970").into())
        })
    }
}

fn parse_labels(raw: &str, limits: &Limits) -> Result<Labels, Fault> {
    let mut json = Json::new(raw);
    json.object().map_err(|_| bad("the stream's labels are not an object"))?;
    let mut pairs = Vec::new();
    let (mut buffer, mut key_buffer) = (String::new(), String::new());
    let mut first = true;
    while let Some(name) = json.member(&mut first)? {
        let value = json.value()?;
        if pairs.len() > limits.max_labels_per_stream {
            continue;
        }
        let value = match value {
            Value::Str(text) => text.text(&mut buffer),
            Value::Number(raw) => raw,
            Value::Bool(true) => "true",
            Value::Bool(false) => "false",
            Value::Null => continue,
            Value::Nested(..) => return Err(bad("a label's value is not text")),
        };
        pairs.push((name.text(&mut key_buffer).into(), value.into()));
    }
    labels::finish(pairs, limits)
}
