//! Functions on labels: replacing, joining, sorting by them.

use std::cmp::Ordering;

use super::{Column, Result, merge_same, text};
use crate::{
    engine::Error,
    labels::{METRIC_NAME, anchored},
    parser::{Expr, is_label_name},
};

/// Longest value that a function makes, in bytes: nested calls multiply it.
const MAX_MADE_VALUE: usize = 64 << 10;

fn too_long(function: &str) -> Error {
    Error::execution(format!("{function}() makes a label value longer than {MAX_MADE_VALUE} bytes"))
}

pub(super) fn replace(mut columns: Vec<Column>, args: &[Expr]) -> Result<Vec<Column>> {
    let [target, replacement, source, pattern] = [1, 2, 3, 4].map(|at| text(&args[at]));
    let Ok(regex) = anchored(pattern) else {
        let message = format!("invalid regular expression in label_replace(): {pattern}");
        return Err(Error::execution(message));
    };
    if !is_label_name(target) {
        let message = format!("invalid destination label name in label_replace(): {target}");
        return Err(Error::execution(message));
    }
    let replacement = go_template(replacement);
    for column in &mut columns {
        let value = column.labels.get(source);
        if let Some(captures) = regex.captures(value) {
            // A group is no longer than the value, so the room is known before it is taken.
            let groups = replacement.bytes().filter(|byte| *byte == b'$').count();
            if replacement.len() + groups * value.len() > MAX_MADE_VALUE {
                return Err(too_long("label_replace"));
            }
            let mut new = String::new();
            captures.expand(&replacement, &mut new);
            column.labels = column.labels.with(target, &new);
            if target == METRIC_NAME {
                column.drop_name = false;
            }
        }
    }
    merge_same(columns)
}

/// A `$` that names nothing stands for nothing in Go's templates but for itself in the `regex` crate's.
fn go_template(template: &str) -> String {
    let mut out = String::with_capacity(template.len());
    let mut rest = template;
    while let Some(at) = rest.find('$') {
        out.push_str(&rest[..at]);
        rest = &rest[at..];
        let next = rest[1..].chars().next();
        match next {
            Some('$') => {
                out.push_str("$$");
                rest = &rest[2..];
            }
            Some('{') if rest.contains('}') => {
                let end = rest.find('}').unwrap_or(0) + 1;
                out.push_str(&rest[..end]);
                rest = &rest[end..];
            }
            Some(char) if char.is_ascii_alphanumeric() || char == '_' => {
                out.push('$');
                rest = &rest[1..];
            }
            _ => {
                out.push_str("$$");
                rest = &rest[1..];
            }
        }
    }
    out.push_str(rest);
    out
}

pub(super) fn join(mut columns: Vec<Column>, args: &[Expr]) -> Result<Vec<Column>> {
    let (target, separator) = (text(&args[1]), text(&args[2]));
    let sources: Vec<&str> = args[3..].iter().map(text).collect();
    if let Some(source) = sources.iter().find(|source| !is_label_name(source)) {
        return Err(Error::execution(format!("invalid source label name in label_join(): {source}")));
    }
    if !is_label_name(target) {
        return Err(Error::execution(format!("invalid destination label name in label_join(): {target}")));
    }
    for column in &mut columns {
        let values: Vec<&str> = sources.iter().map(|source| column.labels.get(source)).collect();
        let length = values.iter().map(|value| value.len() + separator.len()).sum::<usize>();
        if length > MAX_MADE_VALUE {
            return Err(too_long("label_join"));
        }
        let joined = values.join(separator);
        column.labels = column.labels.with(target, &joined);
        if target == METRIC_NAME {
            column.drop_name = false;
        }
    }
    merge_same(columns)
}

/// Sorts by value at the first step or by labels.
pub(super) fn sort(mut columns: Vec<Column>, name: &str, labels: &[&str]) -> Vec<Column> {
    let by_label = |a: &Column, b: &Column| {
        let first = labels.iter().map(|label| natural(a.labels.get(label), b.labels.get(label)));
        first.fold(Ordering::Equal, Ordering::then).then_with(|| a.labels.cmp(&b.labels))
    };
    let by_value = |a: &Column, b: &Column, descending: bool| {
        let (a, b) = (a.floats[0], b.floats[0]);
        match (a.is_nan(), b.is_nan()) {
            (false, false) if descending => b.partial_cmp(&a).unwrap_or(Ordering::Equal),
            (false, false) => a.partial_cmp(&b).unwrap_or(Ordering::Equal),
            (a, b) => a.cmp(&b),
        }
    };
    match name {
        "sort_by_label" => columns.sort_by(by_label),
        "sort_by_label_desc" => columns.sort_by(|a, b| by_label(b, a)),
        _ => {
            for column in &mut columns {
                column.histograms.clear();
            }
            columns.retain(|column| column.present.any());
            columns.sort_by(|a, b| by_value(a, b, name == "sort_desc"));
        }
    }
    columns
}

/// Natural order: digits compare as numbers.
fn natural(a: &str, b: &str) -> Ordering {
    let (mut left, mut right) = (a, b);
    loop {
        let (Some(l), Some(r)) = (left.chars().next(), right.chars().next()) else {
            return left.len().cmp(&right.len());
        };
        if l.is_ascii_digit() && r.is_ascii_digit() {
            let digits = |text: &str| text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
            let (l, r) = (&left[..digits(left)], &right[..digits(right)]);
            let (l_plain, r_plain) = (l.trim_start_matches('0'), r.trim_start_matches('0'));
            let order = l_plain.len().cmp(&r_plain.len()).then_with(|| l_plain.cmp(r_plain));
            let order = order.then_with(|| l.len().cmp(&r.len()));
            if order != Ordering::Equal {
                return order;
            }
            (left, right) = (&left[l.len()..], &right[r.len()..]);
        } else if l == r {
            (left, right) = (&left[l.len_utf8()..], &right[r.len_utf8()..]);
        } else {
            return l.cmp(&r);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digits_compare_as_numbers() {
        let mut names = ["node10", "node2", "node1a", "node", "3"];
        names.sort_by(|a, b| natural(a, b));
        assert_eq!(names, ["3", "node", "node1a", "node2", "node10"]);
    }

    #[test]
    fn a_lone_dollar_stays() {
        assert_eq!(go_template("$1-${b}-$-$$"), "$1-${b}-$$-$$");
    }
}
