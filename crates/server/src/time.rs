//! Times and durations as query parameters spell them.

use jiff::{SpanRelativeTo, Timestamp};

use crate::error::ApiError;

/// Nanoseconds since 1970, now.
pub fn now_ns() -> i64 {
    nanoseconds(Timestamp::now())
}

/// Saturates outside the years 1677 to 2262.
fn nanoseconds(time: Timestamp) -> i64 {
    i64::try_from(time.as_nanosecond()).unwrap_or(if time.as_second() < 0 { i64::MIN } else { i64::MAX })
}

/// A point in time: nanoseconds or (up to ten digits) seconds since 1970, seconds with a fraction,
/// RFC 3339, `now`, or `-15m` for a distance to now. The first three are Loki's. All times of a request get
/// one `now`, so that `-15m` to `now` are fifteen minutes to the nanosecond.
pub fn parse_time(name: &str, text: &str, now: i64) -> Result<i64, ApiError> {
    let bad = || {
        ApiError::bad_request(format!(
            "{name}={text:?} is no time; give RFC 3339, seconds or nanoseconds since 1970, or a distance to now such as -15m"
        ))
    };
    if text == "now" {
        return Ok(now);
    }
    if let Ok(number) = text.parse::<i64>() {
        let digits = text.trim_start_matches('-').len();
        return Ok(if digits <= 10 { number.saturating_mul(1_000_000_000) } else { number });
    }
    if let Ok(seconds) = text.parse::<f64>() {
        return if seconds.is_finite() { Ok((seconds * 1e9) as i64) } else { Err(bad()) };
    }
    if let Some(ago) = text.strip_prefix("now-").or_else(|| text.strip_prefix('-')) {
        let ago = duration_ns(ago).ok_or_else(bad)?;
        return Ok(now.saturating_sub(ago));
    }
    text.parse::<Timestamp>().map(nanoseconds).map_err(|_| bad())
}

/// A duration: seconds (may have a fraction) or `1h30m`, `5m`, `250ms`, `2d`, `1w`; in nanoseconds.
pub fn parse_duration(name: &str, text: &str) -> Result<i64, ApiError> {
    let seconds = text.parse::<f64>().ok().filter(|s| s.is_finite()).map(|s| (s * 1e9) as i64);
    seconds.or_else(|| duration_ns(text)).filter(|ns| *ns > 0).ok_or_else(|| {
        ApiError::bad_request(format!(
            "{name}={text:?} is no duration above zero; give seconds or a text such as 30s, 5m, 1h30m"
        ))
    })
}

fn duration_ns(text: &str) -> Option<i64> {
    let span: jiff::Span = text.parse().ok()?;
    let duration = span.to_duration(SpanRelativeTo::days_are_24_hours()).ok()?;
    i64::try_from(duration.as_nanos()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lokis_spellings_of_a_time() {
        for (text, want) in [
            ("1700000000", 1_700_000_000_000_000_000),
            ("1700000000000000001", 1_700_000_000_000_000_001),
            ("1700000000.5", 1_700_000_000_500_000_000),
            ("2023-11-14T22:13:20Z", 1_700_000_000_000_000_000),
            ("2023-11-14T23:13:20.000000007+01:00", 1_700_000_000_000_000_007),
        ] {
            assert_eq!(parse_time("start", text, 0).unwrap(), want, "{text}");
        }
        let now = now_ns();
        assert_eq!(parse_time("end", "now", now).unwrap(), now);
        assert_eq!(parse_time("start", "-1h30m", now).unwrap(), now - 5_400_000_000_000);
    }

    #[test]
    fn what_is_no_time_is_named() {
        for text in ["", "yesterday", "NaN", "-x", "2023-13-01T00:00:00Z"] {
            let error = parse_time("start", text, 0).unwrap_err();
            assert!(error.message.starts_with(&format!("start={text:?} is no time")), "{}", error.message);
        }
        assert_eq!(parse_duration("step", "1h30m").unwrap(), 5_400_000_000_000);
        assert_eq!(parse_duration("step", "0.5").unwrap(), 500_000_000);
        assert_eq!(parse_duration("step", "2d").unwrap(), 172_800_000_000_000);
        for text in ["0", "-5m", "soon"] {
            assert!(parse_duration("step", text).is_err(), "{text}");
        }
    }
}
