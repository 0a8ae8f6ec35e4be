//! Times written and read by Go's reference layout, `2006-01-02T15:04:05.000Z07:00`. All in UTC.

use std::fmt::Write as _;

use chrono::{DateTime, Datelike as _, NaiveDate, Timelike as _, Utc};

/// The current time in nanoseconds since 1970.
pub fn now() -> i64 {
    Utc::now().timestamp_nanos_opt().unwrap_or(0)
}

/// Parts of a layout, longest first where one is the beginning of another.
const PARTS: [&str; 29] = [
    "January", "Jan", "Monday", "Mon", "MST", "2006", "Z07:00", "Z0700", "-07:00", "-0700", "-07", "01",
    "02", "03", "04", "05", "06", "002", "15", "_2", "PM", "pm", "1", "2", "3", "4", "5", ".", ",",
];

/// Splits a layout into known parts and plain characters.
fn part(layout: &str) -> Option<&str> {
    let found = PARTS.iter().find(|part| layout.starts_with(**part))?;
    if !matches!(*found, "." | ",") {
        return Some(&layout[..found.len()]);
    }
    // `.000` and `.999` are fractions of a second; a dot alone is a dot.
    let digits = layout[1..].bytes().take_while(|b| Some(*b) == layout.as_bytes().get(1).copied()).count();
    let fraction = matches!(layout.as_bytes().get(1), Some(b'0' | b'9'));
    let ends = !layout.as_bytes().get(1 + digits).is_some_and(u8::is_ascii_digit);
    (fraction && ends).then(|| &layout[..=digits])
}

/// The time in a layout.
pub fn format(nanoseconds: i64, layout: &str) -> String {
    let time = DateTime::from_timestamp_nanos(nanoseconds);
    let mut out = String::with_capacity(layout.len() + 8);
    let mut rest = layout;
    while let Some(c) = rest.chars().next() {
        let Some(part) = part(rest) else {
            out.push(c);
            rest = &rest[c.len_utf8()..];
            continue;
        };
        rest = &rest[part.len()..];
        let hour12 = time.hour12().1;
        let _ = match part {
            "January" => write!(out, "{}", time.format("%B")),
            "Jan" => write!(out, "{}", time.format("%b")),
            "Monday" => write!(out, "{}", time.format("%A")),
            "Mon" => write!(out, "{}", time.format("%a")),
            "MST" => out.write_str("UTC"),
            "2006" => write!(out, "{:04}", time.year()),
            "06" => write!(out, "{:02}", time.year().rem_euclid(100)),
            "01" => write!(out, "{:02}", time.month()),
            "1" => write!(out, "{}", time.month()),
            "02" => write!(out, "{:02}", time.day()),
            "_2" => write!(out, "{:2}", time.day()),
            "2" => write!(out, "{}", time.day()),
            "002" => write!(out, "{:03}", time.ordinal()),
            "15" => write!(out, "{:02}", time.hour()),
            "03" => write!(out, "{hour12:02}"),
            "3" => write!(out, "{hour12}"),
            "04" => write!(out, "{:02}", time.minute()),
            "4" => write!(out, "{}", time.minute()),
            "05" => write!(out, "{:02}", time.second()),
            "5" => write!(out, "{}", time.second()),
            "PM" => out.write_str(if time.hour() >= 12 { "PM" } else { "AM" }),
            "pm" => out.write_str(if time.hour() >= 12 { "pm" } else { "am" }),
            "Z07:00" | "Z0700" => out.write_str("Z"),
            "-07:00" => out.write_str("+00:00"),
            "-0700" => out.write_str("+0000"),
            "-07" => out.write_str("+00"),
            fraction => {
                let digits = format!("{:09}", time.nanosecond());
                let shown = &digits[..(fraction.len() - 1).min(9)];
                let shown = if fraction.as_bytes()[1] == b'9' { shown.trim_end_matches('0') } else { shown };
                if shown.is_empty() { Ok(()) } else { write!(out, "{}{shown}", &fraction[..1]) }
            }
        };
    }
    out
}

/// Reads a time in a layout; nanoseconds since 1970.
pub fn parse(value: &str, layout: &str) -> Result<i64, String> {
    read(value, layout).ok_or_else(|| format!("time {value:?} does not have the layout {layout:?}"))
}

fn read(value: &str, layout: &str) -> Option<i64> {
    let (mut year, mut month, mut day) = (0i32, 1u32, 1u32);
    let (mut hour, mut minute, mut second, mut nanosecond) = (0u32, 0u32, 0u32, 0u32);
    let (mut afternoon, mut zone_seconds) = (None, 0i64);
    let (mut text, mut layout) = (value, layout);
    while let Some(c) = layout.chars().next() {
        let Some(part) = part(layout) else {
            text = text.strip_prefix(c)?;
            layout = &layout[c.len_utf8()..];
            continue;
        };
        layout = &layout[part.len()..];
        let mut digits = |least: usize, most: usize| -> Option<u32> {
            text = text.trim_start_matches(if part == "_2" { ' ' } else { '\0' });
            let count = text.bytes().take(most).take_while(u8::is_ascii_digit).count();
            let number = text.get(..count).filter(|_| count >= least)?.parse().ok()?;
            text = &text[count..];
            Some(number)
        };
        match part {
            "2006" => year = digits(4, 4)? as i32,
            "06" => year = digits(2, 2).map(|y| if y < 69 { 2000 + y } else { 1900 + y })? as i32,
            "01" => month = digits(2, 2)?,
            "1" => month = digits(1, 2)?,
            "02" => day = digits(2, 2)?,
            "2" | "_2" => day = digits(1, 2)?,
            "15" | "03" => hour = digits(2, 2)?,
            "3" => hour = digits(1, 2)?,
            "04" => minute = digits(2, 2)?,
            "4" => minute = digits(1, 2)?,
            "05" | "5" => {
                second = digits(1, 2)?;
                // As in Go, a fraction in the value is read even when the layout has none.
                let next = layout.as_bytes();
                let named = matches!(next, [b'.' | b',', b'0' | b'9', ..]);
                if !named
                    && text.starts_with(['.', ','])
                    && text[1..].starts_with(|c: char| c.is_ascii_digit())
                {
                    nanosecond = fraction(&mut text)?;
                }
            }
            "PM" | "pm" => {
                afternoon = Some(text.get(..2)?.eq_ignore_ascii_case("pm"));
                text = &text[2..];
            }
            "January" | "Jan" => {
                let names =
                    ["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"];
                let short = text.get(..3)?.to_ascii_lowercase();
                month = names.iter().position(|name| *name == short)? as u32 + 1;
                text = if part == "Jan" { &text[3..] } else { text.trim_start_matches(char::is_alphabetic) };
            }
            "Monday" | "Mon" | "MST" => text = text.trim_start_matches(char::is_alphabetic),
            "002" => {
                let ordinal = digits(3, 3)?;
                let date = NaiveDate::from_yo_opt(year, ordinal)?;
                (month, day) = (date.month(), date.day());
            }
            zone if zone.contains("07") => {
                if let Some(tail) = text.strip_prefix('Z').filter(|_| zone.starts_with('Z')) {
                    text = tail;
                    continue;
                }
                let sign = if text.starts_with('-') { -1 } else { 1 };
                text = text.strip_prefix(['+', '-'])?;
                let hours: i64 = text.get(..2)?.parse().ok()?;
                text = &text[2..];
                let mut minutes = 0;
                if zone.ends_with("00") {
                    text = text.strip_prefix(':').unwrap_or(text);
                    minutes = text.get(..2)?.parse().ok()?;
                    text = &text[2..];
                }
                zone_seconds = sign * (hours * 3600 + minutes * 60);
            }
            _ if text.starts_with(['.', ',']) => nanosecond = fraction(&mut text)?,
            part if part.as_bytes().get(1) == Some(&b'9') => {}
            _ => return None,
        }
    }
    if !text.is_empty() {
        return None;
    }
    hour = match afternoon {
        Some(true) if hour < 12 => hour + 12,
        Some(false) if hour == 12 => 0,
        _ => hour,
    };
    let time =
        NaiveDate::from_ymd_opt(year, month, day)?.and_hms_nano_opt(hour, minute, second, nanosecond)?;
    time.and_utc().timestamp_nanos_opt()?.checked_sub(zone_seconds * 1_000_000_000)
}

/// Reads `.123` as nanoseconds.
fn fraction(text: &mut &str) -> Option<u32> {
    let digits = text[1..].bytes().take_while(u8::is_ascii_digit).count();
    let shown = text.get(1..=digits.min(9))?;
    let value: u32 = shown.parse().ok()?;
    *text = &text[1 + digits..];
    Some(value * 10u32.pow(9 - shown.len() as u32))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn layouts_are_written_and_read_back() {
        let time = 1_618_337_640_120_000_000; // 2021-04-13T18:14:00.12Z
        for (layout, want) in [
            ("2006-01-02T15:04:05.000Z07:00", "2021-04-13T18:14:00.120Z"),
            ("2006-01-02T15:04:05.999999999Z", "2021-04-13T18:14:00.12Z"),
            ("Jan _2 2006 3:04:05.00 PM -0700", "Apr 13 2021 6:14:00.12 PM +0000"),
        ] {
            assert_eq!(format(time, layout), want);
            assert_eq!(parse(want, layout), Ok(time), "{layout}");
        }
        assert_eq!(parse("2021-04-13T20:14:00.12+02:00", "2006-01-02T15:04:05Z07:00"), Ok(time));
        assert!(parse("2021-13-01", "2006-01-02").is_err());
    }
}
