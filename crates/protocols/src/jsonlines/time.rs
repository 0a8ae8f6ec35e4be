//! Time as text or number.

/// RFC 3339, or a number since 1970, as nanoseconds since 1970.
pub(super) fn parse(text: &str) -> Option<i64> {
    let bytes = text.as_bytes();
    if bytes.get(4) == Some(&b'-') && bytes.first().is_some_and(u8::is_ascii_digit) {
        rfc3339(bytes)
    } else {
        epoch(text)
    }
}

const NANOS_PER_SECOND: i64 = 1_000_000_000;

/// A number whose whole part tells its unit: below 1e11 seconds (until the year 5138), below 1e14
/// milliseconds, below 1e17 microseconds, else nanoseconds.
fn epoch(text: &str) -> Option<i64> {
    let (negative, digits) = match text.strip_prefix('-') {
        Some(digits) => (true, digits),
        None => (false, text),
    };
    let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
    let all_digits = |text: &str| text.bytes().all(|digit| digit.is_ascii_digit());
    if whole.is_empty() || !all_digits(whole) || !all_digits(fraction) {
        // `1.7e9` and the like.
        if !digits.bytes().all(|b| matches!(b, b'0'..=b'9' | b'.' | b'e' | b'E' | b'+' | b'-')) {
            return None;
        }
        let number: f64 = digits.parse().ok()?;
        let nanos = number * unit(number as i64) as f64;
        let nanos = (nanos < i64::MAX as f64).then_some(nanos as i64)?;
        return Some(if negative { -nanos } else { nanos });
    }
    let whole: i64 = whole.parse().ok()?;
    let unit = unit(whole);
    let mut nanos = whole.checked_mul(unit)?;
    let mut place = unit;
    for digit in fraction.bytes() {
        place /= 10;
        nanos = nanos.checked_add(i64::from(digit - b'0') * place)?;
    }
    Some(if negative { -nanos } else { nanos })
}

fn unit(whole: i64) -> i64 {
    match whole {
        ..100_000_000_000 => NANOS_PER_SECOND,
        100_000_000_000..100_000_000_000_000 => 1_000_000,
        100_000_000_000_000..100_000_000_000_000_000 => 1_000,
        _ => 1,
    }
}

/// `2026-01-02T03:04:05[.fraction][zone]`; `T` may be a space, `.` a comma, the zone `Z`, `+hh:mm`,
/// `+hhmm`, `+hh` or missing (UTC). Digits beyond nanoseconds are cut off.
fn rfc3339(bytes: &[u8]) -> Option<i64> {
    let number = |from: usize, digits: usize| -> Option<i64> {
        bytes
            .get(from..from + digits)?
            .iter()
            .try_fold(0, |value, digit| digit.is_ascii_digit().then(|| value * 10 + i64::from(digit - b'0')))
    };
    let is = |at: usize, any: &[u8]| bytes.get(at).is_some_and(|byte| any.contains(byte));
    let (year, month, day) = (number(0, 4)?, number(5, 2)?, number(8, 2)?);
    let (hour, minute, second) = (number(11, 2)?, number(14, 2)?, number(17, 2)?);
    let shape = is(4, b"-") && is(7, b"-") && is(10, b"Tt ") && is(13, b":") && is(16, b":");
    // A leap second is folded into the second before.
    let in_range = (1..=12).contains(&month)
        && (1..=days_in_month(year, month)).contains(&day)
        && hour < 24
        && minute < 60
        && second <= 60;
    if !shape || !in_range {
        return None;
    }
    let mut at = 19;
    let mut nanos = 0;
    if is(at, b".,") {
        at += 1;
        let mut place = NANOS_PER_SECOND;
        let start = at;
        while let Some(digit) = bytes.get(at).filter(|digit| digit.is_ascii_digit()) {
            place /= 10;
            nanos += i64::from(digit - b'0') * place;
            at += 1;
        }
        if at == start {
            return None;
        }
    }
    let offset_minutes = match bytes.get(at..)? {
        [] | [b'Z' | b'z'] => 0,
        [sign @ (b'+' | b'-'), zone @ ..] => {
            let minutes_at = match zone.len() {
                2 => None,
                4 => Some(at + 3),
                5 if zone[2] == b':' => Some(at + 4),
                _ => return None,
            };
            let (hours, minutes) = (number(at + 1, 2)?, minutes_at.map_or(Some(0), |from| number(from, 2))?);
            if hours > 23 || minutes > 59 {
                return None;
            }
            let offset = hours * 60 + minutes;
            if *sign == b'-' { -offset } else { offset }
        }
        _ => return None,
    };
    let days = days_since_1970(year, month, day);
    let seconds = ((days * 24 + hour) * 60 + minute - offset_minutes) * 60 + second.min(59);
    seconds.checked_mul(NANOS_PER_SECOND)?.checked_add(nanos)
}

fn days_in_month(year: i64, month: i64) -> i64 {
    match month {
        2 if year % 4 == 0 && (year % 100 != 0 || year % 400 == 0) => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

/// Proleptic Gregorian calendar; years begin in March so that the leap day is the last
/// (<https://howardhinnant.github.io/date_algorithms.html#days_from_civil>).
fn days_since_1970(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let year_of_era = year.rem_euclid(400);
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
    era * 146_097 + day_of_era - 719_468
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_people_write() {
        const NOON: i64 = 1_674_993_600_000_000_000;
        for (text, want) in [
            ("2023-01-29T12:00:00Z", NOON),
            ("2023-01-29 12:00:00", NOON),
            ("2023-01-29T12:00:00.25Z", NOON + 250_000_000),
            ("2023-01-29 12:00:00,005", NOON + 5_000_000),
            ("2023-01-29T12:00:00.1234567899Z", NOON + 123_456_789),
            ("2023-01-29T20:00:00+08:00", NOON),
            ("2023-01-29T06:30:00-0530", NOON),
            ("2023-01-29T13:00:00+01", NOON),
            ("1674993600", NOON),
            ("1674993600.5", NOON + 500_000_000),
            ("1674993600000", NOON),
            ("1674993600000.5", NOON + 500_000),
            ("1674993600000000", NOON),
            ("1674993600000000000", NOON),
            ("1.6749936e9", NOON),
            ("-1.5", -1_500_000_000),
            ("1969-12-31T23:59:59Z", -1_000_000_000),
            ("2024-02-29T00:00:00Z", 1_709_164_800_000_000_000),
            ("1600-02-29T00:00:00Z", i64::MIN),
        ] {
            let want = (want != i64::MIN).then_some(want);
            assert_eq!(parse(text), want, "{text}");
        }
    }

    #[test]
    fn what_is_no_time_is_refused() {
        for text in [
            "",
            "-",
            ".",
            "x",
            "12ms",
            "1.2.3",
            "inf",
            "nan",
            "2023-02-29T00:00:00Z",
            "2023-13-01T00:00:00Z",
            "2023-01-29",
            "2023-01-29T24:00:00Z",
            "2023-01-29T12:00:00.Z",
            "2023-01-29T12:00:00Zx",
            "2023-01-29T12:00:00+8",
            "99999999999999999999",
            "1e400",
            "9999-01-01T00:00:00Z",
            "2023é01-29T12:00:00Z",
        ] {
            assert_eq!(parse(text), None, "{text}");
        }
    }
}
