//! Parameters of a URL.

use jiff::{SignedDuration, Timestamp};

/// A parameter that cannot be taken: its name, its value, what to do.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{name}={value:?} {problem}")]
pub struct ParameterError {
    name: String,
    value: String,
    problem: String,
}

/// Longest value that an error repeats, in characters.
const SHOWN: usize = 200;

impl ParameterError {
    pub(crate) fn new(name: &str, value: &str, problem: impl Into<String>) -> Self {
        Self { name: name.to_owned(), value: value.chars().take(SHOWN).collect(), problem: problem.into() }
    }
}

/// What a whole number means as a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unit {
    /// Seconds since 1970, or (from eleven digits on) nanoseconds: Tempo.
    Seconds,
    /// Microseconds since 1970: Jaeger.
    Microseconds,
}

/// The parameters of one request.
pub(crate) struct Parameters<'a>(&'a [(String, String)]);

impl<'a> Parameters<'a> {
    pub(crate) fn new(pairs: &'a [(String, String)]) -> Self {
        Self(pairs)
    }

    /// The last value; an empty one counts as not given.
    pub(crate) fn get(&self, name: &str) -> Option<&'a str> {
        self.all(name).last()
    }

    /// All values that are not empty.
    pub(crate) fn all(&self, name: &str) -> impl DoubleEndedIterator<Item = &'a str> {
        let of_name = move |(key, value): &'a (String, String)| {
            (key == name && !value.is_empty()).then_some(value.as_str())
        };
        self.0.iter().filter_map(of_name)
    }

    /// Nanoseconds since 1970: a number in its unit, or RFC 3339.
    pub(crate) fn time(&self, name: &str, unit: Unit) -> Result<Option<i64>, ParameterError> {
        let Some(text) = self.get(name) else { return Ok(None) };
        let parsed = match text.parse::<i64>() {
            Ok(number) => Some(match unit {
                Unit::Seconds if text.trim_start_matches('-').len() > 10 => number,
                Unit::Seconds => number.saturating_mul(1_000_000_000),
                Unit::Microseconds => number.saturating_mul(1_000),
            }),
            Err(_) => text
                .parse::<Timestamp>()
                .ok()
                .map(|time| i64::try_from(time.as_nanosecond()).unwrap_or(i64::MAX)),
        };
        let unit = match unit {
            Unit::Seconds => "seconds",
            Unit::Microseconds => "microseconds",
        };
        let problem = || format!("is no time; give {unit} since 1970 or RFC 3339");
        parsed.map(Some).ok_or_else(|| ParameterError::new(name, text, problem()))
    }

    /// Nanoseconds, as Go writes durations.
    pub(crate) fn duration(&self, name: &str) -> Result<Option<i64>, ParameterError> {
        let Some(text) = self.get(name) else { return Ok(None) };
        let problem = "is no duration; give a text such as 1.5s, 250ms, 100us or 1h30m";
        parse_duration(text).map(Some).ok_or_else(|| ParameterError::new(name, text, problem))
    }

    /// A number between 1 and the bound.
    pub(crate) fn limit(&self, name: &str, most: usize) -> Result<Option<usize>, ParameterError> {
        let Some(text) = self.get(name) else { return Ok(None) };
        let limit = text.parse().ok().filter(|limit| (1..=most).contains(limit));
        let problem = || format!("is no whole number from 1 to {most}");
        limit.map(Some).ok_or_else(|| ParameterError::new(name, text, problem()))
    }
}

/// `1.5s`, `250ms`, `100us`, `1h30m`, `0`: Go's durations, not negative; in nanoseconds.
pub(crate) fn parse_duration(text: &str) -> Option<i64> {
    if text == "0" {
        return Some(0);
    }
    // jiff's friendly form knows all of Go's units; a sign, blanks or words would be too much.
    let go = |c: char| c.is_ascii_digit() || matches!(c, '.' | 'h' | 'm' | 's' | 'u' | 'n' | 'µ' | 'μ');
    if text.is_empty() || !text.chars().all(go) {
        return None;
    }
    let duration: SignedDuration = text.parse().ok()?;
    i64::try_from(duration.as_nanos()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gos_durations() {
        for (text, want) in [
            ("0", 0),
            ("1.5s", 1_500_000_000),
            ("250ms", 250_000_000),
            ("100us", 100_000),
            ("100µs", 100_000),
            ("7ns", 7),
            ("1h30m", 5_400_000_000_000),
            ("1h0m0.5s", 3_600_500_000_000),
        ] {
            assert_eq!(parse_duration(text), Some(want), "{text}");
        }
        for text in ["", "5", "-1s", "soon", "1 s", "9999999999h", "s", "1.s.s"] {
            assert_eq!(parse_duration(text), None, "{text}");
        }
    }

    #[test]
    fn a_wrong_parameter_is_named_with_its_value_and_the_remedy() {
        let pairs = [("start", "yesterday"), ("limit", "0"), ("minDuration", "5")];
        let pairs: Vec<_> = pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        let parameters = Parameters::new(&pairs);
        let error = parameters.time("start", Unit::Microseconds).unwrap_err().to_string();
        assert_eq!(error, "start=\"yesterday\" is no time; give microseconds since 1970 or RFC 3339");
        let error = parameters.limit("limit", 100).unwrap_err().to_string();
        assert_eq!(error, "limit=\"0\" is no whole number from 1 to 100");
        let error = parameters.duration("minDuration").unwrap_err().to_string();
        assert_eq!(
            error,
            "minDuration=\"5\" is no duration; give a text such as 1.5s, 250ms, 100us or 1h30m"
        );
    }
}
