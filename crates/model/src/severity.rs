//! Severity of a log record, as the OpenTelemetry log data model defines it
//! (<https://opentelemetry.io/docs/specs/otel/logs/data-model/#field-severitynumber>).

/// The six families of severity numbers; `Unset` stands for number 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Level {
    /// No severity was given.
    Unset,
    /// 1 to 4.
    Trace,
    /// 5 to 8.
    Debug,
    /// 9 to 12.
    Info,
    /// 13 to 16.
    Warn,
    /// 17 to 20.
    Error,
    /// 21 to 24.
    Fatal,
}

impl Level {
    /// All levels by rising severity; the position is the level's ordinal.
    pub const ALL: [Self; 7] =
        [Self::Unset, Self::Trace, Self::Debug, Self::Info, Self::Warn, Self::Error, Self::Fatal];

    /// Upper-case short name as the `level` column shows it; empty for [`Level::Unset`].
    pub const fn name(self) -> &'static str {
        match self {
            Self::Unset => "",
            Self::Trace => "TRACE",
            Self::Debug => "DEBUG",
            Self::Info => "INFO",
            Self::Warn => "WARN",
            Self::Error => "ERROR",
            Self::Fatal => "FATAL",
        }
    }
}

/// Severity number, 0 (unset) to 24.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct Severity(u8);

impl Severity {
    /// No severity.
    pub const UNSET: Self = Self(0);

    /// From an OTLP severity number; out of range becomes unset.
    pub fn from_number(number: i64) -> Self {
        u8::try_from(number).ok().filter(|n| *n <= 24).map_or(Self::UNSET, Self)
    }

    /// From the words loggers use for levels, in any case; `None` when the word is not one of them.
    ///
    /// Mapping: OpenTelemetry log data model, appendix B (syslog, log4j, zap, python and others).
    pub fn from_text(text: &str) -> Option<Self> {
        const WORDS: [(&str, u8); 30] = [
            ("info", 9),
            ("warn", 13),
            ("error", 17),
            ("debug", 5),
            ("warning", 13),
            ("trace", 1),
            ("fatal", 21),
            ("err", 17),
            ("information", 9),
            ("informational", 9),
            ("notice", 10),
            ("critical", 21),
            ("crit", 21),
            ("panic", 21),
            ("dpanic", 21),
            ("alert", 21),
            ("emerg", 21),
            ("emergency", 21),
            ("severe", 17),
            ("fine", 5),
            ("finer", 3),
            ("finest", 1),
            ("verbose", 1),
            ("i", 9),
            ("w", 13),
            ("e", 17),
            ("d", 5),
            ("f", 21),
            ("v", 1),
            ("t", 1),
        ];
        let text = text.trim();
        WORDS.iter().find(|(word, _)| word.eq_ignore_ascii_case(text)).map(|(_, n)| Self(*n))
    }

    /// The number, 0 to 24.
    pub const fn number(self) -> u8 {
        self.0
    }

    /// The family the number belongs to.
    pub const fn level(self) -> Level {
        match self.0 {
            1..=4 => Level::Trace,
            5..=8 => Level::Debug,
            9..=12 => Level::Info,
            13..=16 => Level::Warn,
            17..=20 => Level::Error,
            21..=24 => Level::Fatal,
            _ => Level::Unset,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_known_word_has_a_level_and_an_unknown_one_has_none() {
        for (word, level) in
            [("WARNING", Level::Warn), (" info ", Level::Info), ("Emerg", Level::Fatal), ("E", Level::Error)]
        {
            assert_eq!(Severity::from_text(word).unwrap().level(), level, "{word}");
        }
        assert_eq!(Severity::from_text("loud"), None);
        assert_eq!(Severity::from_number(25), Severity::UNSET);
        assert_eq!(Severity::from_number(-1), Severity::UNSET);
    }
}
