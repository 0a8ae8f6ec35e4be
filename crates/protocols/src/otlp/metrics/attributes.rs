//! Attributes of a point or a resource as the wire spelled them: hashed always, read only when the spelling
//! is new.

use std::borrow::Cow;

use trine_schema::RawKey;

use super::super::{json_value, value};
use crate::{
    Limits,
    intake::{Fault, bad},
    json::Json,
    wire::{Tag, Wire},
};

pub(super) enum Attributes<'a> {
    /// A message, and the field of it that holds attributes.
    Protobuf(Cow<'a, [u8]>, Tag),
    /// An array, or nothing.
    Json(&'a str),
}

impl Attributes<'_> {
    #[inline]
    pub(super) fn key(&self) -> RawKey {
        match self {
            Self::Protobuf(bytes, _) => RawKey::of(bytes),
            Self::Json(text) => RawKey::of(text.as_bytes()),
        }
    }

    /// Keys and values as text.
    pub(super) fn pairs(&self, limits: &Limits) -> Result<Vec<(String, String)>, Fault> {
        let mut pairs = Vec::new();
        let mut buffer = String::new();
        let mut push = |key: &str, value: &str| {
            if key.is_empty() {
                return Err(bad("an attribute has no key; name it"));
            }
            if pairs.len() >= limits.max_labels_per_stream {
                let limit = limits.max_labels_per_stream;
                let text = format!("there are more than {limit} attributes; send fewer");
                return Err(Fault::Record(text.into()));
            }
            pairs.push((key.to_owned(), value.to_owned()));
            Ok(())
        };
        match self {
            Self::Protobuf(bytes, field) => {
                let mut wire = Wire::new(bytes);
                while let Some(tag) = wire.tag()? {
                    if tag == *field {
                        let (key, value) = value::pair(wire.message()?, &mut buffer, limits.max_depth)?;
                        push(key, value)?;
                    } else {
                        wire.skip(tag)?;
                    }
                }
            }
            Self::Json(text) => {
                let mut json = Json::new(text).with_any_number();
                if text.is_empty() || json.null()? {
                    return Ok(pairs);
                }
                if json.peek() != b'[' {
                    return Err(bad("attributes are not an array"));
                }
                let mut key_buffer = String::new();
                json.each(|json| {
                    let (key, value) =
                        json_value::pair(json, &mut key_buffer, &mut buffer, limits.max_depth)?;
                    push(key, value)
                })?;
            }
        }
        Ok(pairs)
    }
}
