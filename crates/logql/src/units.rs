//! Durations and sizes as text, as Go's `time.ParseDuration`, Prometheus and go-humanize read them.

use std::fmt;

const SECOND: i64 = 1_000_000_000;

/// Units of a duration with their nanoseconds, longest first; the last three only in queries.
const DURATION_UNITS: [(&str, i64); 11] = [
    ("h", 3600 * SECOND),
    ("m", 60 * SECOND),
    ("s", SECOND),
    ("ms", 1_000_000),
    ("us", 1_000),
    ("µs", 1_000),
    ("μs", 1_000),
    ("ns", 1),
    ("d", 24 * 3600 * SECOND),
    ("w", 7 * 24 * 3600 * SECOND),
    ("y", 365 * 24 * 3600 * SECOND),
];

/// Units that a label value may have.
const GO_UNITS: usize = 8;

/// A duration in a query (`1h30m`, `1.5h`, `7d`), in nanoseconds; `None` when it is not one or
/// does not fit 64 bits.
pub fn parse_query_duration(text: &str) -> Option<i64> {
    parse_units(text, &DURATION_UNITS)
}

/// A duration in a label value, as Go's `time.ParseDuration` reads it, in nanoseconds.
pub fn parse_go_duration(text: &str) -> Option<i64> {
    let (negative, rest) = match text.as_bytes().first()? {
        b'-' => (true, &text[1..]),
        b'+' => (false, &text[1..]),
        _ => (false, text),
    };
    let value = if rest == "0" { 0 } else { parse_units(rest, &DURATION_UNITS[..GO_UNITS])? };
    Some(if negative { -value } else { value })
}

fn parse_units(mut text: &str, units: &[(&str, i64)]) -> Option<i64> {
    if text.is_empty() {
        return None;
    }
    let mut total = 0i64;
    while !text.is_empty() {
        let digits = text.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let (number, rest) = text.split_at(digits);
        let end = rest.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(rest.len());
        let (unit, rest) = rest.split_at(end);
        let (_, nanoseconds) = units.iter().find(|(name, _)| *name == unit)?;
        let part = if let Ok(whole) = number.parse::<i64>() {
            whole.checked_mul(*nanoseconds)?
        } else {
            let part = number.parse::<f64>().ok()? * *nanoseconds as f64;
            if part >= i64::MAX as f64 {
                return None;
            }
            part as i64
        };
        total = total.checked_add(part)?;
        text = rest;
    }
    Some(total)
}

/// Writes a duration so that [`parse_query_duration`] reads it back, `1h30m`.
pub fn write_duration(f: &mut impl fmt::Write, nanoseconds: i64) -> fmt::Result {
    if nanoseconds < 0 {
        f.write_char('-')?;
    }
    let mut rest = nanoseconds.unsigned_abs();
    if rest == 0 {
        return f.write_str("0s");
    }
    for unit in ["d", "h", "m", "s", "ms", "us", "ns"] {
        let size = DURATION_UNITS.iter().find(|(name, _)| *name == unit).map_or(1, |(_, n)| *n as u64);
        if rest >= size {
            write!(f, "{}{unit}", rest / size)?;
            rest %= size;
        }
    }
    Ok(())
}

/// A size with unit (`20MB`, `1.5 KiB`, `3k`) in bytes, as go-humanize reads it: decimal units
/// are powers of 1,000, `i` units of 1,024, case does not matter, no unit means bytes.
pub fn parse_bytes(text: &str) -> Option<u64> {
    let text = text.trim();
    let digits = text.find(|c: char| !c.is_ascii_digit() && c != '.' && c != ',').unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let value = if number.contains(',') { number.replace(',', "").parse::<f64>() } else { number.parse() };
    let factor = bytes_factor(unit.trim())?;
    let value = value.ok()? * factor;
    (value < u64::MAX as f64).then_some(value as u64)
}

fn bytes_factor(unit: &str) -> Option<f64> {
    let unit = unit.as_bytes();
    let (power, rest) = match unit.first().map(u8::to_ascii_lowercase) {
        None => return Some(1.0),
        Some(b'b') if unit.len() == 1 => return Some(1.0),
        Some(letter) => (b"kmgtpe".iter().position(|p| *p == letter)? as i32 + 1, &unit[1..]),
    };
    match rest.to_ascii_lowercase().as_slice() {
        b"" | b"b" => Some(1000f64.powi(power)),
        b"i" | b"ib" => Some(1024f64.powi(power)),
        _ => None,
    }
}

/// A number as Go's `strconv.ParseFloat` reads a label value.
pub fn parse_float(text: &str) -> Option<f64> {
    // Rust takes the same decimal forms and the words inf, infinity and nan; it does not trim.
    text.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_read_with_all_their_units_and_written_back() {
        for (text, want) in [
            ("5m", Some(300 * SECOND)),
            ("1h30m", Some(5400 * SECOND)),
            ("1.5h", Some(5400 * SECOND)),
            ("250ms", Some(250_000_000)),
            ("1d", Some(86_400 * SECOND)),
            ("2w", Some(14 * 86_400 * SECOND)),
            ("3µs", Some(3000)),
            ("5", None),
            ("m", None),
            ("1h30", None),
            ("999999999999y", None),
            ("", None),
        ] {
            assert_eq!(parse_query_duration(text), want, "{text}");
        }
        for n in [1, 999, 61 * SECOND, 90 * 60 * SECOND, 86_400 * SECOND + 1] {
            let mut text = String::new();
            write_duration(&mut text, n).unwrap();
            assert_eq!(parse_query_duration(&text), Some(n), "{text}");
        }
        assert_eq!(parse_go_duration("-1.5s"), Some(-1_500_000_000));
        assert_eq!(parse_go_duration("0"), Some(0));
        assert_eq!(parse_go_duration("1d"), None, "label values know no days");
    }

    #[test]
    fn sizes_are_read_as_go_humanize_does() {
        for (text, want) in [
            ("20MB", Some(20_000_000)),
            ("1.5KiB", Some(1536)),
            ("5 MiB", Some(5 << 20)),
            ("3k", Some(3000)),
            ("42", Some(42)),
            ("7b", Some(7)),
            ("1,024 B", Some(1024)),
            ("12x", None),
            ("MB", None),
        ] {
            assert_eq!(parse_bytes(text), want, "{text}");
        }
    }
}
