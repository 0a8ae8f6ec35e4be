//! Parameters as Prometheus reads them.

use jiff::Timestamp;

use super::{Failure, Request};
use crate::{
    labels::Matcher,
    parser::{duration_seconds, parse_selector},
};

/// Times of a query lie this close to 1970, so that ranges and offsets around them do not overflow;
/// milliseconds.
const MAX_QUERY_TIME: i64 = 1 << 53;

impl Request<'_> {
    /// The first value of a parameter; not given is the same as empty.
    pub(super) fn get(&self, name: &str) -> &str {
        self.params.iter().find(|(key, _)| key == name).map_or("", |(_, value)| value)
    }

    pub(super) fn all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        self.params.iter().filter(move |(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    /// Most results, 0 for all.
    pub(super) fn limit(&self) -> Result<usize, Failure> {
        let text = self.get("limit");
        if text.is_empty() {
            return Ok(0);
        }
        let invalid = |what: String| Failure::parameter("limit", what);
        match text.parse::<i64>() {
            Ok(limit) if limit < 0 => Err(invalid("limit must be non-negative".to_owned())),
            Ok(limit) => Ok(limit as usize),
            Err(_) => {
                Err(invalid(format!("strconv.Atoi: parsing {}: invalid syntax", crate::format::quote(text))))
            }
        }
    }

    /// A time in milliseconds, or what stands for one that is not given.
    pub(super) fn time_or(&self, name: &str, otherwise: i64) -> Result<i64, Failure> {
        let text = self.get(name);
        if text.is_empty() {
            return Ok(otherwise);
        }
        time(text)
            .map_err(|what| Failure::parameter(name, format!("invalid time value for '{name}': {what}")))
    }

    /// `start` and `end`, by default all times.
    pub(super) fn times(&self) -> Result<(i64, i64), Failure> {
        Ok((self.time_or("start", i64::MIN)?, self.time_or("end", i64::MAX)?))
    }

    /// Each `match[]`, which must not match everything.
    pub(super) fn matchers(&self) -> Result<Vec<Vec<Matcher>>, String> {
        self.all("match[]")
            .map(|text| {
                let matchers = parse_selector(text).map_err(|error| error.to_string())?;
                if matchers.iter().all(|matcher| matcher.matches("")) {
                    return Err("match[] must contain at least one non-empty matcher".to_owned());
                }
                Ok(matchers)
            })
            .collect()
    }
}

/// A time that a query may be evaluated at.
pub(super) fn query_time(name: &str, millis: i64) -> Result<i64, Failure> {
    if (-MAX_QUERY_TIME..=MAX_QUERY_TIME).contains(&millis) {
        return Ok(millis);
    }
    Err(Failure::parameter(name, format!("{millis} ms since 1970 is too far away to be evaluated")))
}

/// Seconds since 1970 or RFC 3339, as milliseconds since 1970.
pub(super) fn time(text: &str) -> Result<i64, String> {
    let invalid = || format!("cannot parse {} to a valid timestamp", crate::format::quote(text));
    if let Ok(seconds) = text.parse::<f64>() {
        // Whole seconds and fraction apart, which together would lose milliseconds; the fraction in the steps
        // Prometheus takes.
        let nanos = ((seconds.fract() * 1000.0).round() / 1000.0 * 1e9) as i64;
        let (whole, fraction) = (seconds.trunc(), nanos.div_euclid(1_000_000));
        return if seconds.is_nan() {
            Err(invalid())
        } else {
            Ok((whole as i64).saturating_mul(1000).saturating_add(fraction))
        };
    }
    match text {
        // What Go's client sends for "all times"; the years have more digits than RFC 3339 allows.
        "-292273086-05-16T16:47:06Z" => Ok(i64::MIN),
        "292277025-08-18T07:12:54.999999999Z" => Ok(i64::MAX),
        _ => text
            .parse::<Timestamp>()
            .map(|time| time.as_nanosecond().div_euclid(1_000_000) as i64)
            .map_err(|_| invalid()),
    }
}

/// Seconds or a duration such as `1h30m`, in nanoseconds.
pub(super) fn duration(text: &str) -> Result<i64, String> {
    let quoted = crate::format::quote(text);
    if let Ok(seconds) = text.parse::<f64>() {
        let nanos = seconds * 1e9;
        if nanos.is_nan() || nanos.abs() > i64::MAX as f64 {
            return Err(format!("cannot parse {quoted} to a valid duration. It overflows int64"));
        }
        return Ok(nanos as i64);
    }
    duration_seconds(text)
        .map(|seconds| (seconds * 1e9).round())
        .filter(|nanos| nanos.abs() <= i64::MAX as f64)
        .map(|nanos| nanos as i64)
        .ok_or_else(|| format!("cannot parse {quoted} to a valid duration"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_and_durations_in_all_spellings() {
        for (text, millis) in [
            ("1435781451.781", 1_435_781_451_781),
            ("-1.5", -1_500),
            ("1e3", 1_000_000),
            ("2015-07-01T20:10:51.781Z", 1_435_781_451_781),
            ("2015-07-01T22:10:51+02:00", 1_435_781_451_000),
            ("-292273086-05-16T16:47:06Z", i64::MIN),
        ] {
            assert_eq!(time(text), Ok(millis), "{text}");
        }
        assert_eq!(time("soon").unwrap_err(), r#"cannot parse "soon" to a valid timestamp"#);
        for (text, nanos) in [("15", 15_000_000_000), ("0.5", 500_000_000), ("1h30m", 5_400_000_000_000)] {
            assert_eq!(duration(text), Ok(nanos), "{text}");
        }
        for text in ["", "5x", "1.5h", "NaN", "1e30"] {
            assert!(duration(text).is_err(), "{text}");
        }
    }
}
