//! Text on a terminal: its width, its end, durations and what must not reach the terminal as it is.

use unicode_width::{UnicodeWidthChar, UnicodeWidthStr};

/// Columns that the text takes.
pub(super) fn width(text: &str) -> usize {
    text.width()
}

/// Longest name that is looked at, in characters; more never fits.
const LOOKED_AT: usize = 4096;

/// The text on one line, with what would drive the terminal or turn its direction shown escaped.
pub(super) fn clean(text: &str) -> String {
    let mut clean = String::with_capacity(text.len().min(LOOKED_AT));
    for c in text.chars().take(LOOKED_AT) {
        // Marks and isolates of the bidirectional algorithm reorder the rest of the line.
        let reorders =
            matches!(c, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
        if c.is_control() || reorders || matches!(c, '\u{2028}' | '\u{2029}') {
            clean.extend(c.escape_default());
        } else {
            clean.push(c);
        }
    }
    clean
}

/// The text in at most so many columns; what is cut off is told by `…`.
pub(super) fn cut(text: &str, columns: usize) -> String {
    if width(text) <= columns {
        return text.to_owned();
    }
    let mut cut = String::new();
    let mut used = 0;
    for c in text.chars() {
        let columns_of_c = c.width().unwrap_or(0);
        if used + columns_of_c + 1 > columns {
            break;
        }
        used += columns_of_c;
        cut.push(c);
    }
    if columns > 0 {
        cut.push('…');
    }
    cut
}

/// Spaces behind the text up to so many columns.
pub(super) fn pad(text: &mut String, used: usize, columns: usize) {
    text.extend(std::iter::repeat_n(' ', columns.saturating_sub(used)));
}

/// A duration in three digits and its unit: `850 ns`, `12.3 µs`, `4.56 ms`, `1.23 s`, `2m03s`, `3h04m`.
pub fn duration(ns: i64) -> String {
    let sign = if ns < 0 { "-" } else { "" };
    let ns = ns.unsigned_abs();
    // What would be rounded to 1000 of a unit is 1.00 of the next.
    let text = match ns {
        0..1_000 => format!("{ns} ns"),
        1_000..999_500 => digits(ns as f64 / 1e3, "µs"),
        999_500..999_500_000 => digits(ns as f64 / 1e6, "ms"),
        999_500_000..59_950_000_000 => digits(ns as f64 / 1e9, "s"),
        _ => {
            let seconds = (ns + 500_000_000) / 1_000_000_000;
            match seconds {
                0..3_600 => format!("{}m{:02}s", seconds / 60, seconds % 60),
                3_600..86_400 => format!("{}h{:02}m", seconds / 3_600, seconds % 3_600 / 60),
                _ => format!("{}d{:02}h", seconds / 86_400, seconds % 86_400 / 3_600),
            }
        }
    };
    format!("{sign}{text}")
}

fn digits(value: f64, unit: &str) -> String {
    let decimals = if value >= 99.95 {
        0
    } else if value >= 9.995 {
        1
    } else {
        2
    };
    format!("{value:.decimals$} {unit}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_have_three_digits() {
        for (ns, want) in [
            (0, "0 ns"),
            (999, "999 ns"),
            (1_000, "1.00 µs"),
            (12_345, "12.3 µs"),
            (999_499, "999 µs"),
            (999_500, "1.00 ms"),
            (99_960_000, "100 ms"),
            (-1_234_567, "-1.23 ms"),
            (999_600_000, "1.00 s"),
            (59_949_999_999, "59.9 s"),
            (59_950_000_000, "1m00s"),
            (123_000_000_000, "2m03s"),
            (11_040_000_000_000, "3h04m"),
            (453_600_000_000_000, "5d06h"),
            (i64::MIN, "-106751d23h"),
        ] {
            assert_eq!(duration(ns), want, "{ns}");
        }
    }

    #[test]
    fn text_is_cut_at_columns_not_at_bytes_or_characters() {
        assert_eq!(cut("订单服务", 8), "订单服务");
        assert_eq!(cut("订单服务", 7), "订单服…");
        assert_eq!(cut("订单服务", 6), "订单…");
        assert_eq!(cut("abc", 1), "…");
        assert_eq!(cut("abc", 0), "");
        assert_eq!(width("e\u{301}"), 1);
        assert_eq!(clean("a\x1b[31m\u{202e}b\n"), "a\\u{1b}[31m\\u{202e}b\\n");
    }
}
