//! Which format a target sends, by its `Content-Type`.

use super::ExpositionError;

/// Formats of an exposition.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Format {
    /// `text/plain`, versions 0.0.4 and 1.0.0.
    Text,
    /// `application/openmetrics-text`, versions 0.0.1 and 1.0.0.
    OpenMetrics,
    /// `application/vnd.google.protobuf`, delimited `io.prometheus.client.MetricFamily`.
    Protobuf,
}

impl Format {
    /// By the header of a response. `fallback` stands in for a header that is missing or names no format.
    pub fn from_content_type(header: &str, fallback: Option<Self>) -> Result<Self, ExpositionError> {
        let mut parts = header.split(';').map(str::trim);
        let media_type = parts.next().unwrap_or_default().to_ascii_lowercase();
        let mut parameters = parts.filter_map(|part| part.split_once('='));
        let version = parameters.find(|(name, _)| name.trim().eq_ignore_ascii_case("version"));
        let version = version.map_or("", |(_, value)| value.trim().trim_matches('"'));
        let known = match &*media_type {
            "text/plain" => Some(Self::Text),
            "application/openmetrics-text" if !version.starts_with("2.") => Some(Self::OpenMetrics),
            "application/vnd.google.protobuf" => Some(Self::Protobuf),
            _ => None,
        };
        known.or(fallback).ok_or_else(|| {
            let header: String = header.chars().take(200).collect();
            ExpositionError::ContentType(format!(
                "Content-Type {header:?} names no format that is read; let the target send text/plain, \
                 application/openmetrics-text (1.0.0) or application/vnd.google.protobuf, or set \
                 fallback_scrape_protocol"
            ))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn formats_are_told_by_their_media_type() {
        for (header, format) in [
            ("text/plain; version=0.0.4; charset=utf-8", Format::Text),
            ("text/plain", Format::Text),
            ("application/openmetrics-text; version=1.0.0; charset=utf-8", Format::OpenMetrics),
            ("Application/OpenMetrics-Text", Format::OpenMetrics),
            (
                "application/vnd.google.protobuf; proto=io.prometheus.client.MetricFamily; encoding=delimited",
                Format::Protobuf,
            ),
        ] {
            assert_eq!(Format::from_content_type(header, None), Ok(format), "{header}");
        }
        for header in ["", "text/html", "application/openmetrics-text; version=2.0.0", ";"] {
            assert!(Format::from_content_type(header, None).is_err(), "{header}");
            assert_eq!(Format::from_content_type(header, Some(Format::Text)), Ok(Format::Text), "{header}");
        }
    }
}
