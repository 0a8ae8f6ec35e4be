//! Numbers as Go reads and writes them, since the formats are defined by what Prometheus takes.

/// A value: decimal, `NaN`, `Inf` or `Infinity` in any case; not hexadecimal, no digits apart by `_`. A number
/// too big for a float is none.
pub(super) fn float(text: &[u8]) -> Option<f64> {
    if let Some(value) = small_integer(text) {
        return Some(value);
    }
    let text = std::str::from_utf8(text).ok()?;
    let value: f64 = text.parse().ok()?;
    let digits = text.as_bytes().iter().any(u8::is_ascii_digit);
    if value.is_nan() {
        // One pattern of bits, so that no target can send a stale marker; Go knows no sign here.
        return text.eq_ignore_ascii_case("nan").then_some(f64::NAN);
    }
    (value.is_finite() || !digits).then_some(value)
}

/// Most values of real targets are whole.
fn small_integer(text: &[u8]) -> Option<f64> {
    if text.is_empty() || text.len() > 15 {
        return None;
    }
    let mut value = 0u64;
    for byte in text {
        let digit = byte.wrapping_sub(b'0');
        if digit > 9 {
            return None;
        }
        value = value * 10 + u64::from(digit);
    }
    Some(value as f64)
}

/// Seconds since 1970 with decimals as milliseconds.
pub(super) fn seconds(text: &[u8]) -> Option<i64> {
    float(text).filter(|seconds| seconds.is_finite()).map(|seconds| (seconds * 1000.0).round() as i64)
}

/// A number as a label's value: `1.0`, `0.25`, `1e+06`, `+Inf` (OpenMetrics, canonical numbers).
pub(super) fn label(value: f64) -> String {
    if value.is_nan() {
        return "NaN".into();
    }
    if value.is_infinite() {
        return if value > 0.0 { "+Inf" } else { "-Inf" }.into();
    }
    if value == 0.0 {
        return "0.0".into();
    }
    let short = format!("{value:e}");
    let (mantissa, exponent) = short.split_once('e').expect("BUG: {:e} writes an exponent");
    let exponent: i32 = exponent.parse().expect("BUG: {:e} writes a whole exponent");
    // Go's format 'g' with the shortest digits.
    if (-4..6).contains(&exponent) {
        let mut text = value.to_string();
        if !text.contains('.') {
            text.push_str(".0");
        }
        return text;
    }
    let sign = if exponent < 0 { '-' } else { '+' };
    format!("{mantissa}e{sign}{:02}", exponent.abs())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_those_go_reads() {
        for (text, value) in [
            ("1", 1.0),
            ("-3.14e42", -3.14e42),
            ("+Inf", f64::INFINITY),
            ("-inf", f64::NEG_INFINITY),
            ("Infinity", f64::INFINITY),
            (".5", 0.5),
            ("5.", 5.0),
            ("000000000000001", 1.0),
            ("18446744073709551616", 18_446_744_073_709_551_616.0),
            ("1e-400", 0.0),
        ] {
            assert_eq!(float(text.as_bytes()), Some(value), "{text}");
        }
        assert_eq!(float(b"NaN").map(f64::to_bits), Some(f64::NAN.to_bits()));
        for text in ["", "-", "1_000", "0x1p4", "0x10", "+NaN", "1e400", "1 ", "abc", "\u{ff}", "1e", "--1"] {
            assert_eq!(float(text.as_bytes()), None, "{text}");
        }
        assert_eq!(seconds(b"1520879607.789"), Some(1_520_879_607_789));
        assert_eq!(seconds(b"-1.5"), Some(-1500));
        assert_eq!(seconds(b"Inf"), None);
    }

    #[test]
    fn label_values_are_canonical() {
        for (value, text) in [
            (1.0, "1.0"),
            (-1.0, "-1.0"),
            (0.0, "0.0"),
            (0.0001, "0.0001"),
            (0.000_025, "2.5e-05"),
            (100_000.0, "100000.0"),
            (1_000_000.0, "1e+06"),
            (1_234_567.0, "1.234567e+06"),
            (99.99, "99.99"),
            (f64::INFINITY, "+Inf"),
            (f64::NEG_INFINITY, "-Inf"),
            (f64::NAN, "NaN"),
            (1e-100, "1e-100"),
        ] {
            assert_eq!(label(value), text);
        }
    }
}
