//! Series descriptions: `metric{a="b"} 1+2x3 _ stale {{schema:0 buckets:[1 2]}}`.

use std::sync::Arc;

use crate::{
    histogram::{Buckets, CUSTOM_BUCKETS, Histogram, ResetHint},
    labels::{Labels, METRIC_NAME},
    parser::{duration_seconds, number, quoted_labels},
    source::STALE,
};

/// One value of a description.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Item {
    Omitted,
    Float(f64),
    /// A histogram, and whether its reset hint was written.
    Histogram(Arc<Histogram>, bool),
}

/// Splits a line into the metric and the rest.
pub(super) fn metric(line: &str) -> Result<(Labels, &str), String> {
    let brace = line.find(['{', ' ', '\t']).unwrap_or(line.len());
    let name = &line[..brace];
    let mut rest = &line[brace..];
    let mut labels = Labels::default();
    if rest.starts_with('{') && !rest.starts_with("{{") {
        let end = closing_brace(rest).ok_or_else(|| format!("unclosed brace in {line:?}"))?;
        labels = quoted_labels(&rest[..=end])?;
        rest = &rest[end + 1..];
    }
    if !name.is_empty() {
        labels = labels.with(METRIC_NAME, name);
    }
    Ok((labels, rest))
}

fn closing_brace(text: &str) -> Option<usize> {
    let mut quote = None;
    let mut escaped = false;
    for (at, char) in text.char_indices() {
        match quote {
            Some(open) => {
                if escaped {
                    escaped = false;
                } else if char == '\\' && open != '`' {
                    escaped = true;
                } else if char == open {
                    quote = None;
                }
            }
            None if matches!(char, '"' | '\'' | '`') => quote = Some(char),
            None if char == '}' => return Some(at),
            None => {}
        }
    }
    None
}

/// All values of a description.
pub(super) fn items(text: &str) -> Result<Vec<Item>, String> {
    let mut items = Vec::new();
    let mut rest = text.trim_start();
    while !rest.is_empty() {
        if rest.starts_with("{{") {
            rest = histogram_items(rest, &mut items)?;
        } else {
            let end = rest.find([' ', '\t']).unwrap_or(rest.len());
            float_items(&rest[..end], &mut items)?;
            rest = &rest[end..];
        }
        rest = rest.trim_start();
    }
    Ok(items)
}

fn repeated(text: &str) -> Result<usize, String> {
    text.parse().map_err(|_| format!("invalid repetition in series values: {text:?}"))
}

fn float_items(item: &str, items: &mut Vec<Item>) -> Result<(), String> {
    if let Some(rest) = item.strip_prefix('_') {
        let count = rest.strip_prefix('x').map_or(Ok(1), repeated)?;
        items.extend(std::iter::repeat_n(Item::Omitted, count));
        return Ok(());
    }
    let (mut value, rest) = leading_number(item)?;
    let (increment, rest) = match rest.as_bytes().first() {
        Some(b'+') => leading_number(&rest[1..])?,
        Some(b'-') => leading_number(rest)?,
        _ => (0.0, rest),
    };
    let times = match rest.strip_prefix('x') {
        Some(times) => repeated(times)?,
        None if rest.is_empty() => 0,
        None => return Err(format!("unexpected {rest:?} in series values")),
    };
    let constant = increment == 0.0;
    for _ in 0..=times {
        items.push(Item::Float(value));
        if !constant {
            value += increment;
        }
    }
    Ok(())
}

fn leading_number(text: &str) -> Result<(f64, &str), String> {
    if let Some(rest) = text.strip_prefix("stale") {
        return Ok((f64::from_bits(STALE), rest));
    }
    let unsigned = text.trim_start_matches(['+', '-']);
    let sign = if text.starts_with('-') { -1.0 } else { 1.0 };
    let lower = unsigned.to_ascii_lowercase();
    for (name, value) in [("inf", f64::INFINITY), ("nan", f64::NAN)] {
        if lower.starts_with(name) {
            return Ok((sign * value, &unsigned[3..]));
        }
    }
    let bytes = unsigned.as_bytes();
    let mut end = 0;
    while let Some(byte) = bytes.get(end) {
        let exponent = matches!(byte, b'+' | b'-') && end > 0 && matches!(bytes[end - 1], b'e' | b'E');
        let numeric = byte.is_ascii_digit() || matches!(byte, b'.' | b'e' | b'E') || exponent;
        let unit = matches!(byte, b'm' | b's' | b'h' | b'd' | b'w' | b'y');
        if !(numeric || unit) {
            break;
        }
        end += 1;
    }
    let literal = &unsigned[..end];
    let value = number(literal).or_else(|| duration_seconds(literal));
    Ok((sign * value.ok_or_else(|| format!("bad number {text:?} in series values"))?, &unsigned[end..]))
}

fn histogram_items<'t>(text: &'t str, items: &mut Vec<Item>) -> Result<&'t str, String> {
    let (first, hint, mut rest) = histogram(text)?;
    let mut current = first;
    let sign = rest.chars().next().filter(|char| matches!(char, '+' | '-'));
    let increment = match sign {
        Some(_) => {
            let (increment, _, after) = histogram(&rest[1..])?;
            rest = after;
            Some(increment)
        }
        None => None,
    };
    let mut times = 0;
    if let Some(after) = rest.strip_prefix('x') {
        let end = after.find([' ', '\t']).unwrap_or(after.len());
        times = repeated(&after[..end])?;
        rest = &after[end..];
    }
    items.push(Item::Histogram(Arc::new(current.clone()), hint));
    for _ in 0..times {
        if let Some(increment) = &increment {
            if current.schema > increment.schema {
                let (from, to) = (increment.schema, current.schema);
                return Err(format!("error combining histograms: cannot merge from schema {from} to {to}"));
            }
            let added = if sign == Some('+') { current.add(increment) } else { current.subtract(increment) };
            added.map_err(|_| "histograms do not go together".to_owned())?;
        }
        items.push(Item::Histogram(Arc::new(current.clone()), hint));
    }
    Ok(rest)
}

/// One `{{…}}`, whether its hint was written, and what follows.
fn histogram(text: &str) -> Result<(Histogram, bool, &str), String> {
    let inner = text.strip_prefix("{{").ok_or_else(|| format!("a histogram was expected at {text:?}"))?;
    let end = inner.find("}}").ok_or("unclosed histogram")?;
    let mut histogram = Histogram::default();
    let mut hint = false;
    let (mut offset, mut negative_offset) = (0i32, 0i32);
    let (mut positive, mut negative) = (Vec::new(), Vec::new());
    let mut rest = inner[..end].trim();
    while !rest.is_empty() {
        let (key, after) = rest.split_once(':').ok_or_else(|| format!("missing `:` in {rest:?}"))?;
        let (value, next) = if let Some(list) = after.strip_prefix('[') {
            let end = list.find(']').ok_or("unclosed list")?;
            (&list[..end], &list[end + 1..])
        } else {
            after.split_once([' ', '\t']).unwrap_or((after, ""))
        };
        let float = |value: &str| {
            let (number, rest) = leading_number(value)?;
            if rest.is_empty() { Ok(number) } else { Err(format!("bad number {value:?}")) }
        };
        let int = |value: &str| value.parse::<i32>().map_err(|_| format!("bad number {value:?}"));
        let list = |value: &str| value.split_whitespace().map(float).collect::<Result<Vec<f64>, String>>();
        match key {
            "schema" => histogram.schema = int(value)?,
            "sum" => histogram.sum = float(value)?,
            "count" => histogram.count = float(value)?,
            "z_bucket" => histogram.zero_count = float(value)?,
            "z_bucket_w" => histogram.zero_threshold = float(value)?,
            "custom_values" => histogram.custom_bounds = list(value)?.into(),
            "buckets" => positive = list(value)?,
            "n_buckets" => negative = list(value)?,
            "offset" => offset = int(value)?,
            "n_offset" => negative_offset = int(value)?,
            "counter_reset_hint" => {
                hint = true;
                histogram.reset_hint = match value {
                    "unknown" => ResetHint::Unknown,
                    "reset" => ResetHint::Reset,
                    "not_reset" => ResetHint::NotReset,
                    "gauge" => ResetHint::Gauge,
                    _ => return Err(format!("unknown counter_reset_hint {value:?}")),
                };
            }
            _ => return Err(format!("bad histogram descriptor found: {key:?}")),
        }
        rest = next.trim_start();
    }
    let spans =
        |offset: i32, counts: Vec<f64>| Buckets::from_spans(&[(offset, counts.len() as u32)], &counts);
    histogram.positive = spans(offset, positive);
    histogram.negative = spans(negative_offset, negative);
    debug_assert!(histogram.schema >= -4 || histogram.schema == CUSTOM_BUCKETS);
    Ok((histogram, hint, &inner[end + 2..]))
}

/// Start times of a series' samples relative to them, milliseconds: `_x2 -1m -30s+10sx3`.
pub(super) fn start_offsets(text: &str) -> Result<Vec<Option<i64>>, String> {
    let mut offsets = Vec::new();
    for item in text.split_whitespace() {
        if let Some(rest) = item.strip_prefix('_') {
            let count = rest.strip_prefix('x').map_or(Ok(1), repeated)?;
            offsets.extend(std::iter::repeat_n(None, count));
            continue;
        }
        let (mut value, rest) = leading_offset(item)?;
        let (step, rest) = match rest.as_bytes().first() {
            Some(b'+' | b'-') => leading_offset(rest)?,
            _ => (0, rest),
        };
        let times = rest.strip_prefix('x').map_or(Ok(0), repeated)?;
        for _ in 0..=times {
            offsets.push(Some(value));
            value += step;
        }
    }
    Ok(offsets)
}

fn leading_offset(text: &str) -> Result<(i64, &str), String> {
    let unsigned = text.trim_start_matches(['+', '-']);
    let end = unsigned.find(['x', '+', '-']).unwrap_or(unsigned.len());
    let seconds = if &unsigned[..end] == "0" { Some(0.0) } else { duration_seconds(&unsigned[..end]) };
    let seconds = seconds.ok_or_else(|| format!("invalid duration {text:?}"))?;
    let millis = (seconds * 1000.0).round() as i64;
    Ok((if text.starts_with('-') { -millis } else { millis }, &unsigned[end..]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_expand() {
        let floats = |text: &str| -> Vec<String> {
            let float = |item: Item| match item {
                Item::Omitted => "_".to_owned(),
                Item::Float(value) => crate::format::float(value),
                Item::Histogram(histogram, _) => histogram.to_string(),
            };
            items(text).unwrap().into_iter().map(float).collect()
        };
        assert_eq!(
            floats("1+2x3 _x2 -1 5-1x1 0x1 Inf"),
            ["1", "3", "5", "7", "_", "_", "-1", "5", "4", "0", "0", "+Inf"]
        );
        assert_eq!(floats("{{count:1 sum:2}}+{{count:1 sum:1}}x1"), ["{count:1, sum:2}", "{count:2, sum:3}"]);
        assert_eq!(start_offsets("_ -1m+10sx1").unwrap(), [None, Some(-60_000), Some(-50_000)]);
        assert!(items("1y2").is_err());
    }

    #[test]
    fn metrics_end_at_their_brace() {
        let (labels, rest) = metric(r#"a{b="}c", "d.e"='f'} 1 2"#).unwrap();
        assert_eq!((labels.to_string().as_str(), rest), (r#"{__name__="a", b="}c", "d.e"="f"}"#, " 1 2"));
    }
}
