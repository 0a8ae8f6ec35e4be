//! Answers as JSON, written straight into bytes: no tree stands between a matrix and its text.

use std::io::Write as _;

use crate::{
    histogram::Histogram,
    labels::Labels,
    value::{MatrixSeries, Sample, Value, VectorSample},
};

/// Writes all elements of a list, in brackets.
pub(super) fn list<T>(
    out: &mut Vec<u8>,
    items: impl IntoIterator<Item = T>,
    mut one: impl FnMut(&mut Vec<u8>, T),
) {
    out.push(b'[');
    for (position, item) in items.into_iter().enumerate() {
        if position > 0 {
            out.push(b',');
        }
        one(out, item);
    }
    out.push(b']');
}

/// A text, escaped where JSON demands it.
pub(super) fn string(out: &mut Vec<u8>, text: &str) {
    quoted(out, text, false);
}

/// A text that browsers may take for HTML, as Go's encoder writes all but labels.
pub(super) fn html_safe(out: &mut Vec<u8>, text: &str) {
    quoted(out, text, true);
}

fn quoted(out: &mut Vec<u8>, text: &str, html: bool) {
    out.push(b'"');
    let bytes = text.as_bytes();
    let mut written = 0;
    for (at, &byte) in bytes.iter().enumerate() {
        let short = match byte {
            b'"' | b'\\' => byte,
            b'\n' => b'n',
            b'\r' => b'r',
            b'\t' => b't',
            0..0x20 => 0,
            b'<' | b'>' | b'&' if html => 0,
            _ => continue,
        };
        out.extend_from_slice(&bytes[written..at]);
        written = at + 1;
        if short == 0 {
            let _ = write!(out, "\\u{byte:04x}");
        } else {
            out.extend_from_slice(&[b'\\', short]);
        }
    }
    out.extend_from_slice(&bytes[written..]);
    out.push(b'"');
}

/// A whole number.
pub(super) fn integer(out: &mut Vec<u8>, mut value: u64) {
    let mut digits = [0; 20];
    let mut at = digits.len();
    loop {
        at -= 1;
        digits[at] = b'0' + (value % 10) as u8;
        value /= 10;
        if value == 0 {
            break;
        }
    }
    out.extend_from_slice(&digits[at..]);
}

/// Milliseconds as seconds, with three digits of a fraction or none.
pub(super) fn seconds(out: &mut Vec<u8>, millis: i64) {
    if millis < 0 {
        out.push(b'-');
    }
    let millis = millis.unsigned_abs();
    integer(out, millis / 1000);
    let fraction = millis % 1000;
    if fraction != 0 {
        let digit = |value: u64| b'0' + (value % 10) as u8;
        out.extend_from_slice(&[b'.', digit(fraction / 100), digit(fraction / 10), digit(fraction)]);
    }
}

/// Most digits after the point that are tried one by one.
const SHORT_DIGITS: usize = 4;

/// A sample's value in quotes: shortest form, with an exponent below 1e-6 and from 1e21.
pub(super) fn float(out: &mut Vec<u8>, value: f64) {
    out.push(b'"');
    let size = value.abs();
    if !short(out, value, size) {
        let _ = if !value.is_finite() {
            out.write_all(crate::format::float(value).as_bytes())
        } else if size != 0.0 && !(1e-6..1e21).contains(&size) {
            exponent(out, value)
        } else {
            write!(out, "{value}")
        };
    }
    out.push(b'"');
}

/// Values with few digits: with up to 15 of them the decimal number that rounds to a float is the shortest.
fn short(out: &mut Vec<u8>, value: f64, size: f64) -> bool {
    const POWERS: [f64; SHORT_DIGITS + 1] = [1.0, 1e1, 1e2, 1e3, 1e4];
    const MOST: f64 = 1e15;
    // Not for NaN, infinities, and -0, whose sign an integer would lose.
    let few = (0.0..MOST / POWERS[SHORT_DIGITS]).contains(&size);
    if !few || size == 0.0 && value.is_sign_negative() {
        return false;
    }
    for (digits, power) in POWERS.into_iter().enumerate() {
        let scaled = (size * power).round();
        if scaled / power != size {
            continue;
        }
        if value < 0.0 {
            out.push(b'-');
        }
        let (whole, power) = (scaled as u64 / power as u64, power as u64);
        integer(out, whole);
        if digits > 0 {
            let mut rest = scaled as u64 % power;
            let at = out.len();
            out.resize(at + digits + 1, b'.');
            for slot in out[at + 1..].iter_mut().rev() {
                *slot = b'0' + (rest % 10) as u8;
                rest /= 10;
            }
        }
        return true;
    }
    false
}

/// Go's `%e`: at least two digits of exponent, always with a sign.
fn exponent(out: &mut Vec<u8>, value: f64) -> std::io::Result<()> {
    let text = format!("{value:e}");
    let (mantissa, exponent) = text.split_once('e').unwrap_or((&text, "0"));
    let exponent: i32 = exponent.parse().unwrap_or(0);
    let sign = if exponent < 0 { '-' } else { '+' };
    write!(out, "{mantissa}e{sign}{:02}", exponent.abs())
}

/// A label set as an object.
pub(super) fn labels(out: &mut Vec<u8>, labels: &Labels) {
    out.push(b'{');
    for (position, (name, value)) in labels.iter().enumerate() {
        if position > 0 {
            out.push(b',');
        }
        string(out, name);
        out.push(b':');
        string(out, value);
    }
    out.push(b'}');
}

fn histogram(out: &mut Vec<u8>, histogram: &Histogram) {
    out.extend_from_slice(br#"{"count":"#);
    float(out, histogram.count);
    out.extend_from_slice(br#","sum":"#);
    float(out, histogram.sum);
    let buckets = histogram.answer_buckets();
    if !buckets.is_empty() {
        out.extend_from_slice(br#","buckets":"#);
        list(out, buckets, |out, (boundary, lower, upper, count)| {
            out.push(b'[');
            integer(out, u64::from(boundary));
            for number in [lower, upper, count] {
                out.push(b',');
                float(out, number);
            }
            out.push(b']');
        });
    }
    out.push(b'}');
}

fn point(out: &mut Vec<u8>, time: i64, value: f64) {
    out.push(b'[');
    seconds(out, time);
    out.push(b',');
    float(out, value);
    out.push(b']');
}

fn histogram_point(out: &mut Vec<u8>, time: i64, value: &Histogram) {
    out.push(b'[');
    seconds(out, time);
    out.push(b',');
    histogram(out, value);
    out.push(b']');
}

fn series(out: &mut Vec<u8>, series: &MatrixSeries) {
    out.extend_from_slice(br#"{"metric":"#);
    labels(out, &series.labels);
    if !series.floats.is_empty() {
        out.extend_from_slice(br#","values":"#);
        list(out, &series.floats, |out, (time, value)| point(out, *time, *value));
    }
    if !series.histograms.is_empty() {
        out.extend_from_slice(br#","histograms":"#);
        list(out, &series.histograms, |out, (time, value)| histogram_point(out, *time, value));
    }
    out.push(b'}');
}

fn sample(out: &mut Vec<u8>, sample: &VectorSample) {
    out.extend_from_slice(br#"{"metric":"#);
    labels(out, &sample.labels);
    match &sample.sample {
        Sample::Float(value) => {
            out.extend_from_slice(br#","value":"#);
            point(out, sample.timestamp, *value);
        }
        Sample::Histogram(value) => {
            out.extend_from_slice(br#","histogram":"#);
            histogram_point(out, sample.timestamp, value);
        }
    }
    out.push(b'}');
}

/// The value of a query.
pub(super) fn value(out: &mut Vec<u8>, value: &Value) {
    match value {
        Value::Scalar(time, value) => {
            out.push(b'[');
            seconds(out, *time);
            // Unlike samples, scalars never have an exponent.
            let _ = write!(out, ",\"{}\"]", crate::format::float(*value));
        }
        Value::String(time, text) => {
            out.push(b'[');
            seconds(out, *time);
            out.push(b',');
            html_safe(out, text);
            out.push(b']');
        }
        Value::Vector(vector) => list(out, vector, sample),
        Value::Matrix(matrix) => list(out, matrix, series),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(write: impl FnOnce(&mut Vec<u8>)) -> String {
        let mut out = Vec::new();
        write(&mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn floats_are_those_of_go() {
        for (value, expected) in [
            (0.0, "0"),
            (-0.0, "-0"),
            (1.5, "1.5"),
            (-12.0625, "-12.0625"),
            (0.1 + 0.2, "0.30000000000000004"),
            (1e20, "100000000000000000000"),
            (1e21, "1e+21"),
            (1e-7, "1e-07"),
            (-2.5e-9, "-2.5e-09"),
            (0.000_001, "0.000001"),
            (123_456_789.123_4, "123456789.1234"),
            (9_007_199_254_740_993.0, "9007199254740992"),
            (f64::MAX, "1.7976931348623157e+308"),
            (f64::NAN, "NaN"),
            (f64::INFINITY, "+Inf"),
            (f64::NEG_INFINITY, "-Inf"),
        ] {
            assert_eq!(text(|out| float(out, value)), format!("\"{expected}\""));
        }
    }

    #[test]
    fn short_floats_read_back_as_what_they_were() {
        let mut state = 1u64;
        for _ in 0..200_000 {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            let value = ((state >> 20) as i64 - (1 << 43)) as f64
                / [1.0, 8.0, 100.0, 1000.0, 3.0][(state % 5) as usize];
            let written = text(|out| float(out, value));
            assert_eq!(written, format!("\"{value}\""));
        }
    }

    #[test]
    fn texts_and_times_are_escaped_and_exact() {
        assert_eq!(text(|out| string(out, "a\"\\\n\u{1}<é")), "\"a\\\"\\\\\\n\\u0001<é\"");
        assert_eq!(text(|out| html_safe(out, "a<b>&")), "\"a\\u003cb\\u003e\\u0026\"");
        for (millis, expected) in
            [(0, "0"), (1_500, "1.500"), (-7, "-0.007"), (1_700_000_000_000, "1700000000")]
        {
            assert_eq!(text(|out| seconds(out, millis)), expected);
        }
    }
}
