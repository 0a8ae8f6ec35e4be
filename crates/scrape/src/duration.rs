//! Durations as Prometheus writes them: `1h30m`, `15s`, `100ms`, `0`.

use std::time::Duration;

/// Units by falling size, in milliseconds.
const UNITS: [(&str, u64); 7] = [
    ("y", 365 * 24 * 3_600_000),
    ("w", 7 * 24 * 3_600_000),
    ("d", 24 * 3_600_000),
    ("h", 3_600_000),
    ("m", 60_000),
    ("s", 1000),
    ("ms", 1),
];

/// Whole numbers with falling units; `None` for anything else and for more than 292 years.
pub fn parse(text: &str) -> Option<Duration> {
    if text == "0" {
        return Some(Duration::ZERO);
    }
    let (mut rest, mut next, mut total) = (text, 0, 0u64);
    while !rest.is_empty() {
        let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
        let number: u64 = rest[..digits].parse().ok()?;
        rest = &rest[digits..];
        let length = rest.bytes().take_while(u8::is_ascii_alphabetic).count();
        let position = UNITS.iter().position(|(name, _)| *name == &rest[..length])?;
        if position < next {
            return None;
        }
        next = position + 1;
        rest = &rest[length..];
        total = total.checked_add(number.checked_mul(UNITS[position].1)?)?;
    }
    (!text.is_empty() && total <= i64::MAX as u64 / 1_000_000).then(|| Duration::from_millis(total))
}

/// Reads back by [`parse`]. Years and weeks are written only where nothing is left of them, as Prometheus does.
pub fn format(duration: Duration) -> String {
    let mut ms = duration.as_millis() as u64;
    if ms == 0 {
        return "0s".into();
    }
    let mut text = String::new();
    for (name, unit) in UNITS {
        if matches!(name, "y" | "w") && !ms.is_multiple_of(unit) {
            continue;
        }
        if ms >= unit {
            text += &(ms / unit).to_string();
            text += name;
            ms %= unit;
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_there_and_back() {
        for (text, ms) in
            [("15s", 15_000), ("1m30s", 90_000), ("100ms", 100), ("1d", 86_400_000), ("2w", 1_209_600_000)]
        {
            assert_eq!(parse(text), Some(Duration::from_millis(ms)), "{text}");
            assert_eq!(format(Duration::from_millis(ms)), text);
        }
        assert_eq!(parse("0"), Some(Duration::ZERO));
        assert_eq!(format(Duration::from_secs(90 * 86_400)), "90d");
        for text in
            ["", "15", "s", "1s1m", "1s1s", "1.5s", "-1s", "1 s", "1S", "300y", "99999999999999999999s"]
        {
            assert_eq!(parse(text), None, "{text}");
        }
    }
}
