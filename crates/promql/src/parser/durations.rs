//! Durations, as numbers, with units or calculated.

use super::{BinaryOp, Duration, ParseError, tree::Parser};
use crate::format::quote;

/// Largest duration in seconds, that of 64-bit nanoseconds.
const MAX_SECONDS: f64 = 9_223_372_036.854_776;

impl Parser<'_> {
    /// What follows `offset`: one term, a calculation only in parentheses.
    pub(super) fn offset_duration(&mut self) -> Result<Duration, ParseError> {
        self.signed("offset")
    }

    /// A range or step: a calculation, not zero or less where that is known.
    pub(super) fn positive_duration(&mut self, place: &str) -> Result<Duration, ParseError> {
        let pos = self.pos();
        let duration = self.calculation(0, place)?;
        match duration {
            Duration::Seconds(seconds) if seconds <= 0.0 => self.fail(pos, "duration must be greater than 0"),
            duration => Ok(duration),
        }
    }

    fn calculation(&mut self, weakest: u8, place: &str) -> Result<Duration, ParseError> {
        let outer = self.depth;
        let mut left = self.signed(place)?;
        loop {
            let (op, strength) = if self.is("+") {
                (BinaryOp::Add, 1)
            } else if self.is("-") {
                (BinaryOp::Sub, 1)
            } else if self.is("*") {
                (BinaryOp::Mul, 2)
            } else if self.is("/") {
                (BinaryOp::Div, 2)
            } else if self.is("%") {
                (BinaryOp::Mod, 2)
            } else if self.is("^") {
                (BinaryOp::Pow, 3)
            } else {
                self.depth = outer;
                return Ok(left);
            };
            if strength <= weakest {
                self.depth = outer;
                return Ok(left);
            }
            let pos = self.pos();
            self.deeper(1)?;
            self.advance();
            let right = self.calculation(if op == BinaryOp::Pow { strength - 1 } else { strength }, place)?;
            if right == Duration::Seconds(0.0) && matches!(op, BinaryOp::Div | BinaryOp::Mod) {
                let what = if op == BinaryOp::Div { "division" } else { "modulo" };
                return self.fail(pos, format!("{what} by zero"));
            }
            left = Duration::Binary { op, left: Some(Box::new(left)), right: Box::new(right) };
        }
    }

    fn signed(&mut self, place: &str) -> Result<Duration, ParseError> {
        self.deeper(1)?;
        let minus = self.is("-");
        if !minus && !self.is("+") {
            return self.term(place);
        }
        self.advance();
        // In a calculation a sign binds weaker than `^`, as it does elsewhere.
        let inner = if place == "offset" { self.signed(place)? } else { self.calculation(2, place)? };
        Ok(match inner {
            Duration::Seconds(seconds) => Duration::Seconds(if minus { -seconds } else { seconds }),
            inner if minus => Duration::Binary { op: BinaryOp::Sub, left: None, right: Box::new(inner) },
            inner => inner,
        })
    }

    fn term(&mut self, place: &str) -> Result<Duration, ParseError> {
        let pos = self.pos();
        if self.accept("(") {
            let inner = self.calculation(0, "duration")?;
            self.expect(")", "duration")?;
            // Kept apart from a bare literal, whose sign is checked while parsing.
            return Ok(Duration::Binary { op: BinaryOp::Add, left: None, right: Box::new(inner) });
        }
        let word = self.word();
        match word.as_deref() {
            Some("step" | "range") => {
                self.advance();
                self.expect("(", place)?;
                self.expect(")", place)?;
                return Ok(if word.as_deref() == Some("step") { Duration::Step } else { Duration::Range });
            }
            Some("max_of" | "min_of") => {
                self.advance();
                self.expect("(", place)?;
                let left = Box::new(self.calculation(0, "duration")?);
                self.expect(",", place)?;
                let right = Box::new(self.calculation(0, "duration")?);
                self.expect(")", place)?;
                return Ok(if word.as_deref() == Some("max_of") {
                    Duration::MaxOf(left, right)
                } else {
                    Duration::MinOf(left, right)
                });
            }
            _ => {}
        }
        let Some(seconds) = self.literal() else {
            let expected = if place == "subquery selector" {
                "number, duration, step(), range(), or \"]\""
            } else {
                "number, duration, step(), or range()"
            };
            return self.unexpected(place, expected);
        };
        if !(-MAX_SECONDS..=MAX_SECONDS).contains(&seconds) {
            return self.fail(pos, "duration out of range");
        }
        Ok(Duration::Seconds(seconds))
    }
}

impl Duration {
    /// The length in milliseconds, in a query of this step and range (milliseconds).
    pub(crate) fn millis(&self, step: i64, range: i64, negative: bool) -> Result<i64, String> {
        if let Self::Seconds(seconds) = self {
            return Ok((seconds * 1000.0).round() as i64);
        }
        let seconds = self.seconds(step as f64 / 1000.0, range as f64 / 1000.0)?;
        if !seconds.is_finite() {
            return Err("duration is NaN or infinite".to_owned());
        }
        if seconds <= 0.0 && !negative {
            return Err("duration must be greater than 0".to_owned());
        }
        if seconds.abs() > MAX_SECONDS {
            return Err("duration is out of range".to_owned());
        }
        Ok((seconds * 1000.0) as i64)
    }

    fn seconds(&self, step: f64, range: f64) -> Result<f64, String> {
        Ok(match self {
            Self::Seconds(seconds) => *seconds,
            Self::Step => step,
            Self::Range => range,
            Self::MaxOf(a, b) => a.seconds(step, range)?.max(b.seconds(step, range)?),
            Self::MinOf(a, b) => a.seconds(step, range)?.min(b.seconds(step, range)?),
            Self::Binary { op, left, right } => {
                let left = left.as_ref().map_or(Ok(0.0), |left| left.seconds(step, range))?;
                let right = right.seconds(step, range)?;
                match op {
                    BinaryOp::Add => left + right,
                    BinaryOp::Sub => left - right,
                    BinaryOp::Mul => left * right,
                    BinaryOp::Div if right == 0.0 => return Err("division by zero".to_owned()),
                    BinaryOp::Mod if right == 0.0 => return Err("modulo by zero".to_owned()),
                    BinaryOp::Div => left / right,
                    BinaryOp::Mod => left % right,
                    BinaryOp::Pow => left.powf(right),
                    op => {
                        return Err(format!(
                            "unexpected duration expression operator {}",
                            quote(op.symbol())
                        ));
                    }
                }
            }
        })
    }
}
