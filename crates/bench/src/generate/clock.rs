//! Calendar time for the timestamps inside log lines: one small formatter, UTC only.

use std::fmt::Write as _;

const MONTHS: [&str; 12] =
    ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
const WEEKDAYS: [&str; 7] = ["Thu", "Fri", "Sat", "Sun", "Mon", "Tue", "Wed"];

/// A moment taken apart, UTC.
#[derive(Debug, Clone, Copy)]
pub struct Moment {
    unix: i64,
    nanos: u32,
    year: i64,
    month: u32,
    day: u32,
    hour: u32,
    minute: u32,
    second: u32,
    weekday: usize,
}

impl Moment {
    /// From nanoseconds since the Unix epoch.
    pub const fn new(timestamp_ns: i64) -> Self {
        let unix = timestamp_ns.div_euclid(1_000_000_000);
        let days = unix.div_euclid(86_400);
        let of_day = unix.rem_euclid(86_400) as u32;
        // Days to civil date: Howard Hinnant, "chrono-compatible low-level date algorithms".
        let z = days + 719_468;
        let era = z.div_euclid(146_097);
        let doe = z.rem_euclid(146_097);
        let yoe = (doe - doe / 1460 + doe / 36_524 - doe / 146_096) / 365;
        let doy = doe - (365 * yoe + yoe / 4 - yoe / 100);
        let mp = (5 * doy + 2) / 153;
        let month = if mp < 10 { mp + 3 } else { mp - 9 };
        Self {
            unix,
            nanos: timestamp_ns.rem_euclid(1_000_000_000) as u32,
            year: yoe + era * 400 + if month <= 2 { 1 } else { 0 },
            month: month as u32,
            day: (doy - (153 * mp + 2) / 5 + 1) as u32,
            hour: of_day / 3600,
            minute: of_day / 60 % 60,
            second: of_day % 60,
            weekday: days.rem_euclid(7) as usize,
        }
    }

    /// Appends the moment as `format` says: `%Y %y %m %d %H %M %S %b %a` as in `strftime`, `%e` day
    /// padded with a space, `%D %k %N %n` day, hour, minute, second without padding, `%3 %6` the
    /// fraction in that many digits, `%f` milliseconds without padding, `%s` Unix seconds.
    pub fn write(&self, format: &str, out: &mut String) {
        let mut chars = format.chars();
        while let Some(c) = chars.next() {
            if c != '%' {
                out.push(c);
                continue;
            }
            match chars.next() {
                Some('Y') => two(out, self.year as u32 / 100).then(self.year as u32 % 100),
                Some('y') => _ = two(out, self.year as u32 % 100),
                Some('m') => _ = two(out, self.month),
                Some('d') => _ = two(out, self.day),
                Some('H') => _ = two(out, self.hour),
                Some('M') => _ = two(out, self.minute),
                Some('S') => _ = two(out, self.second),
                Some('b') => out.push_str(MONTHS[self.month as usize - 1]),
                Some('a') => out.push_str(WEEKDAYS[self.weekday]),
                Some('e') if self.day < 10 => {
                    out.push(' ');
                    plain(out, self.day);
                }
                Some('e' | 'D') => plain(out, self.day),
                Some('k') => plain(out, self.hour),
                Some('N') => plain(out, self.minute),
                Some('n') => plain(out, self.second),
                Some('f') => plain(out, self.nanos / 1_000_000),
                Some('3') => _ = write!(out, "{:03}", self.nanos / 1_000_000),
                Some('6') => _ = write!(out, "{:06}", self.nanos / 1_000),
                Some('s') => _ = write!(out, "{}", self.unix),
                other => unreachable!("bug: unknown time directive {other:?} in {format:?}"),
            }
        }
    }
}

struct More<'a>(&'a mut String);

impl More<'_> {
    fn then(self, value: u32) {
        two(self.0, value);
    }
}

fn two(out: &mut String, value: u32) -> More<'_> {
    out.push(char::from(b'0' + (value / 10 % 10) as u8));
    out.push(char::from(b'0' + (value % 10) as u8));
    More(out)
}

fn plain(out: &mut String, value: u32) {
    _ = write!(out, "{value}");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn formats_of_the_sixteen_systems() {
        let moment = Moment::new(1_120_449_164_007_089_123);
        for (format, want) in [
            ("%Y-%m-%d %H:%M:%S,%3", "2005-07-04 03:52:44,007"),
            ("%a %b %e %H:%M:%S %Y", "Mon Jul  4 03:52:44 2005"),
            ("%b %D %H:%M:%S", "Jul 4 03:52:44"),
            ("%Y%m%d-%k:%N:%n:%f", "20050704-3:52:44:7"),
            ("%y/%m/%d %s %6", "05/07/04 1120449164 007089"),
        ] {
            let mut out = String::new();
            moment.write(format, &mut out);
            assert_eq!(out, want);
        }
        let mut leap = String::new();
        Moment::new(1_709_208_000_000_000_000).write("%Y-%m-%d %a", &mut leap);
        assert_eq!(leap, "2024-02-29 Thu");
    }
}
