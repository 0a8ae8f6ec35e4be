//! Media types of requests, which are compared without case (RFC 9110, section 8.3.1).

use axum::http::{
    HeaderMap,
    header::{ACCEPT, CONTENT_TYPE},
};

/// What the body is, in small letters and without parameters; empty when it is not said.
pub fn media_type(headers: &HeaderMap) -> String {
    let value =
        headers.get(CONTENT_TYPE).map_or_else(String::new, |v| String::from_utf8_lossy(v.as_bytes()).into());
    essence(&value).to_ascii_lowercase()
}

/// What the answer may be, in small letters.
pub fn accepted(headers: &HeaderMap) -> String {
    let value = headers.get(ACCEPT).map(|v| String::from_utf8_lossy(v.as_bytes()).to_ascii_lowercase());
    value.unwrap_or_default()
}

/// A media type without its parameters.
pub fn essence(value: &str) -> &str {
    value.split(';').next().unwrap_or(value).trim()
}
