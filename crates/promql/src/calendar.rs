//! Dates of Unix times, for the functions that ask for a part of one.

/// A Unix time taken apart, UTC, proleptic Gregorian calendar.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Date {
    pub year: i64,
    /// 1 to 12.
    pub month: i64,
    /// 1 to 31.
    pub day: i64,
    pub hour: i64,
    pub minute: i64,
    pub second: i64,
    /// 1 to 366.
    pub day_of_year: i64,
    /// 0 is Sunday.
    pub weekday: i64,
}

impl Date {
    /// Takes seconds since 1970 apart. Days are counted from 1 March, so that a leap day ends a year
    /// (Howard Hinnant, "chrono-compatible low-level date algorithms").
    pub fn of(seconds: i64) -> Self {
        let (days, rest) = (seconds.div_euclid(86_400), seconds.rem_euclid(86_400));
        let shifted = days + 719_468;
        let era = shifted.div_euclid(146_097);
        let day_of_era = shifted.rem_euclid(146_097);
        let year_of_era =
            (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
        let from_march = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
        let shifted_month = (5 * from_march + 2) / 153;
        let day = from_march - (153 * shifted_month + 2) / 5 + 1;
        let month = if shifted_month < 10 { shifted_month + 3 } else { shifted_month - 9 };
        let year = year_of_era + era * 400 + i64::from(month <= 2);
        let leap = i64::from(is_leap(year));
        let day_of_year = if month > 2 { from_march + 60 + leap } else { from_march - 305 };
        Self {
            year,
            month,
            day,
            hour: rest / 3_600,
            minute: rest / 60 % 60,
            second: rest % 60,
            day_of_year,
            weekday: (days + 4).rem_euclid(7),
        }
    }

    /// How many days the month has.
    pub fn days_in_month(self) -> i64 {
        match self.month {
            2 => 28 + i64::from(is_leap(self.year)),
            4 | 6 | 9 | 11 => 30,
            _ => 31,
        }
    }
}

fn is_leap(year: i64) -> bool {
    year % 4 == 0 && (year % 100 != 0 || year % 400 == 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_dates() {
        for (seconds, year, month, day, day_of_year, weekday) in [
            (0, 1970, 1, 1, 1, 4),
            (951_782_400, 2000, 2, 29, 60, 2),
            (951_868_800, 2000, 3, 1, 61, 3),
            (1_735_603_200, 2024, 12, 31, 366, 2),
            (-1, 1969, 12, 31, 365, 3),
        ] {
            let date = Date::of(seconds);
            assert_eq!(
                (date.year, date.month, date.day, date.day_of_year, date.weekday),
                (year, month, day, day_of_year, weekday)
            );
        }
        assert_eq!(Date::of(951_782_400).days_in_month(), 29);
    }
}
