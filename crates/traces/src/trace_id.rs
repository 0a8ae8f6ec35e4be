//! Trace ids as people and other tools write them.

use trine_model::TraceId;

/// The text is no trace id.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no trace id; give 1 to 32 hex digits (leading zeros may be missing), not all of them zero")]
pub struct TraceIdError(String);

/// Longest text that an error repeats, in characters.
const SHOWN: usize = 80;

/// Up to 32 hex digits of either case; Tempo and Jaeger leave leading zeros out.
pub fn parse_trace_id(text: &str) -> Result<TraceId, TraceIdError> {
    let padded = || {
        let missing = (2 * TraceId::LEN).checked_sub(text.len())?;
        let mut digits = [b'0'; 2 * TraceId::LEN];
        digits[missing..].copy_from_slice(text.as_bytes());
        TraceId::from_hex(&digits).ok()
    };
    padded().ok_or_else(|| TraceIdError(text.chars().take(SHOWN).collect()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn leading_zeros_may_be_missing_and_nothing_else() {
        let id = |text: &str| parse_trace_id(text).map(|id| id.to_string());
        assert_eq!(id("F").unwrap(), "0000000000000000000000000000000f");
        assert_eq!(id("463ac35c9f6413ad").unwrap(), "0000000000000000463ac35c9f6413ad");
        assert_eq!(id("00000000000000001").unwrap(), "00000000000000000000000000000001");
        for bad in ["", "0", "0000000000000000", "xyz", " 1", "-1", "ä", "000000000000000000000000000000001"]
        {
            let error = id(bad).unwrap_err().to_string();
            assert!(error.starts_with(&format!("{bad:?} is no trace id; give 1 to 32")), "{error}");
        }
    }
}
