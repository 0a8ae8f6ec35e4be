//! Numbers, strings and times as Prometheus prints them.

use std::fmt::Write;

/// A sample's value: shortest decimal form without exponent, `NaN`, `+Inf`, `-Inf`.
pub fn float(value: f64) -> String {
    if value.is_nan() {
        "NaN".to_owned()
    } else if value.is_infinite() {
        if value > 0.0 { "+Inf" } else { "-Inf" }.to_owned()
    } else {
        format!("{value}")
    }
}

/// Shortest form with an exponent below 1e-4 and from 1e+06 (`%g`).
pub fn general(value: f64) -> String {
    if !value.is_finite() {
        return float(value);
    }
    let scientific = format!("{value:e}");
    let (mantissa, exponent) = scientific.split_once('e').unwrap_or((&scientific, "0"));
    let exponent: i32 = exponent.parse().unwrap_or(0);
    if !(-4..6).contains(&exponent) {
        let sign = if exponent < 0 { '-' } else { '+' };
        return format!("{mantissa}e{sign}{:02}", exponent.abs());
    }
    float(value)
}

/// A time in milliseconds since 1970 as RFC 3339 with seconds, in UTC.
pub(crate) fn rfc3339(millis: i64) -> String {
    let date = crate::calendar::Date::of(millis.div_euclid(1000));
    format!(
        "{:04}-{:02}-{:02}T{:02}:{:02}:{:02}Z",
        date.year, date.month, date.day, date.hour, date.minute, date.second
    )
}

/// A Go-like quoted string.
pub fn quote(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 2);
    out.push('"');
    for char in text.chars() {
        match char {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\t' => out.push_str("\\t"),
            '\r' => out.push_str("\\r"),
            char if (char as u32) < 0x20 || char as u32 == 0x7f => {
                let _ = write!(out, "\\x{:02x}", char as u32);
            }
            char => out.push(char),
        }
    }
    out.push('"');
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn floats_are_printed_as_prometheus_does() {
        let cases = [(1e6, "1000000", "1e+06"), (0.1, "0.1", "0.1"), (1e-5, "0.00001", "1e-05")];
        for (value, plain, short) in cases {
            assert_eq!((float(value).as_str(), general(value).as_str()), (plain, short));
        }
        assert_eq!((float(f64::NEG_INFINITY).as_str(), float(f64::NAN).as_str()), ("-Inf", "NaN"));
        assert_eq!(general(123_456_789.0), "1.23456789e+08");
    }

    #[test]
    fn strings_are_quoted() {
        assert_eq!(quote("a\"b\\\n\u{1}ü"), "\"a\\\"b\\\\\\n\\x01ü\"");
        assert_eq!(rfc3339(951_782_400_000), "2000-02-29T00:00:00Z");
    }
}
