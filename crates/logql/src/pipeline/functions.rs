//! Functions of templates, as Loki's documentation lists them
//! (<https://grafana.com/docs/loki/latest/query/template_functions/>).

use std::{borrow::Cow, cell::RefCell, fmt::Write as _};

use hashbrown::HashMap;
use regex::Regex;

use super::{
    go_time, regex as go_regex,
    template::{Context, MAX_OUTPUT_BYTES, Value, is_true, write_value},
};
use crate::units;

/// A function and how many arguments it takes.
#[derive(Debug)]
pub struct Builtin {
    /// Its name.
    pub name: &'static str,
    least: usize,
    most: usize,
}

impl Builtin {
    /// Whether it takes so many arguments.
    pub fn takes(&self, count: usize) -> bool {
        (self.least..=self.most).contains(&count)
    }

    /// For messages.
    pub fn arity(&self) -> String {
        let (least, most) = (self.least, self.most);
        match most {
            usize::MAX => format!("at least {least} arguments"),
            _ if least == most => format!("{least} argument(s)"),
            _ => format!("{least} to {most} arguments"),
        }
    }
}

const MANY: usize = usize::MAX;

const fn builtin(name: &'static str, least: usize, most: usize) -> Builtin {
    Builtin { name, least, most }
}

/// All functions.
static BUILTINS: [Builtin; 82] = [
    builtin("__line__", 0, 0),
    builtin("__timestamp__", 0, 0),
    builtin("now", 0, 0),
    builtin("date", 2, 2),
    builtin("toDate", 2, 2),
    builtin("toDateInZone", 3, 3),
    builtin("unixEpoch", 1, 1),
    builtin("unixEpochMillis", 1, 1),
    builtin("unixEpochNanos", 1, 1),
    builtin("unixToTime", 1, 1),
    builtin("duration", 1, 1),
    builtin("duration_seconds", 1, 1),
    builtin("bytes", 1, 1),
    builtin("alignLeft", 2, 2),
    builtin("alignRight", 2, 2),
    builtin("b64enc", 1, 1),
    builtin("b64dec", 1, 1),
    builtin("default", 2, 2),
    builtin("lower", 1, 1),
    builtin("ToLower", 1, 1),
    builtin("upper", 1, 1),
    builtin("ToUpper", 1, 1),
    builtin("title", 1, 1),
    builtin("indent", 2, 2),
    builtin("nindent", 2, 2),
    builtin("repeat", 2, 2),
    builtin("printf", 1, MANY),
    builtin("print", 0, MANY),
    builtin("println", 0, MANY),
    builtin("replace", 3, 3),
    builtin("Replace", 4, 4),
    builtin("substr", 3, 3),
    builtin("trim", 1, 1),
    builtin("TrimSpace", 1, 1),
    builtin("trimAll", 2, 2),
    builtin("Trim", 2, 2),
    builtin("TrimLeft", 2, 2),
    builtin("TrimRight", 2, 2),
    builtin("trimPrefix", 2, 2),
    builtin("TrimPrefix", 2, 2),
    builtin("trimSuffix", 2, 2),
    builtin("TrimSuffix", 2, 2),
    builtin("trunc", 2, 2),
    builtin("urlencode", 1, 1),
    builtin("urldecode", 1, 1),
    builtin("urlquery", 1, 1),
    builtin("contains", 2, 2),
    builtin("hasPrefix", 2, 2),
    builtin("hasSuffix", 2, 2),
    builtin("eq", 2, MANY),
    builtin("ne", 2, 2),
    builtin("lt", 2, 2),
    builtin("le", 2, 2),
    builtin("gt", 2, 2),
    builtin("ge", 2, 2),
    builtin("and", 1, MANY),
    builtin("or", 1, MANY),
    builtin("not", 1, 1),
    builtin("len", 1, 1),
    builtin("count", 2, 2),
    builtin("regexReplaceAll", 3, 3),
    builtin("regexReplaceAllLiteral", 3, 3),
    builtin("add", 1, MANY),
    builtin("sub", 2, 2),
    builtin("mul", 1, MANY),
    builtin("div", 2, 2),
    builtin("mod", 2, 2),
    builtin("max", 1, MANY),
    builtin("min", 1, MANY),
    builtin("addf", 1, MANY),
    builtin("subf", 1, MANY),
    builtin("mulf", 1, MANY),
    builtin("divf", 1, MANY),
    builtin("maxf", 1, MANY),
    builtin("minf", 1, MANY),
    builtin("ceil", 1, 1),
    builtin("floor", 1, 1),
    builtin("round", 2, 3),
    builtin("int", 1, 1),
    builtin("float64", 1, 1),
    builtin("quote", 1, 1),
    builtin("html", 1, 1),
];

/// The function of this name.
pub fn find(name: &str) -> Option<&'static Builtin> {
    BUILTINS.iter().find(|builtin| builtin.name == name)
}

fn text<'v>(value: &'v Value<'_>) -> Cow<'v, str> {
    match value {
        Value::Text(text) => Cow::Borrowed(text),
        other => {
            let mut out = String::new();
            write_value(&mut out, other);
            Cow::Owned(out)
        }
    }
}

fn float(value: &Value<'_>) -> f64 {
    match value {
        Value::Text(text) => units::parse_float(text.trim()).unwrap_or(0.0),
        Value::Int(value) => *value as f64,
        Value::Float(value) => *value,
        Value::Bool(value) => f64::from(u8::from(*value)),
        Value::Time(nanoseconds) => *nanoseconds as f64,
    }
}

fn int(value: &Value<'_>) -> i64 {
    match value {
        Value::Text(text) => text.trim().parse().unwrap_or_else(|_| float(value) as i64),
        Value::Int(value) => *value,
        other => float(other) as i64,
    }
}

fn time(value: &Value<'_>) -> Result<i64, String> {
    match value {
        Value::Time(nanoseconds) => Ok(*nanoseconds),
        Value::Int(seconds) => Ok(seconds.saturating_mul(1_000_000_000)),
        other => Err(format!("{:?} is no time; use __timestamp__, toDate or unixToTime", text(other))),
    }
}

fn owned(text: impl Into<String>) -> Value<'static> {
    Value::Text(Cow::Owned(text.into()))
}

fn bounded(count: i64, each: usize) -> Result<usize, String> {
    let count = usize::try_from(count).unwrap_or(0);
    if count.saturating_mul(each.max(1)) > MAX_OUTPUT_BYTES {
        return Err(format!("the result has more than {MAX_OUTPUT_BYTES} bytes"));
    }
    Ok(count)
}

/// Most regular expressions of templates that a thread keeps compiled.
const MAX_CACHED_REGEXES: usize = 64;

fn with_regex<T>(pattern: &str, use_it: impl FnOnce(&Regex) -> T) -> Result<T, String> {
    thread_local! {
        static CACHE: RefCell<HashMap<String, Regex>> = RefCell::default();
    }
    CACHE.with_borrow_mut(|cache| {
        if let Some(regex) = cache.get(pattern) {
            return Ok(use_it(regex));
        }
        let regex = go_regex::plain(pattern)?;
        if cache.len() >= MAX_CACHED_REGEXES {
            cache.clear();
        }
        let result = use_it(&regex);
        cache.insert(pattern.to_owned(), regex);
        Ok(result)
    })
}

/// Compares as Go's `lt` and kin; numbers as numbers, else texts.
fn compare(a: &Value<'_>, b: &Value<'_>) -> std::cmp::Ordering {
    match (a, b) {
        (Value::Text(a), Value::Text(b)) => a.cmp(b),
        (Value::Bool(a), Value::Bool(b)) => a.cmp(b),
        (a, b) => float(a).total_cmp(&float(b)),
    }
}

fn cut(value: &str, start: usize, end: usize) -> String {
    value.chars().skip(start).take(end.saturating_sub(start)).collect()
}

/// Calls a function; the number of arguments was checked when the template was read.
pub fn call<'a>(
    builtin: &Builtin,
    context: Context<'a>,
    mut args: Vec<Value<'a>>,
) -> Result<Value<'a>, String> {
    let last = args.len().saturating_sub(1);
    let floats = |fold: fn(f64, f64) -> f64| args.iter().map(float).reduce(fold).unwrap_or(0.0);
    let ints = |fold: fn(i64, i64) -> i64| args.iter().map(int).reduce(fold).unwrap_or(0);
    Ok(match builtin.name {
        "__line__" => Value::Text(Cow::Borrowed(context.line)),
        "__timestamp__" => Value::Time(context.timestamp),
        "now" => Value::Time(go_time::now()),
        "date" => owned(go_time::format(time(&args[1])?, &text(&args[0]))),
        "toDate" => Value::Time(go_time::parse(&text(&args[1]), &text(&args[0]))?),
        "toDateInZone" => {
            let zone = text(&args[1]);
            if !matches!(&*zone, "" | "UTC" | "Local" | "GMT") {
                return Err(format!("time zone {zone:?} is not known; use UTC"));
            }
            Value::Time(go_time::parse(&text(&args[2]), &text(&args[0]))?)
        }
        "unixEpoch" => owned(time(&args[0])?.div_euclid(1_000_000_000).to_string()),
        "unixEpochMillis" => owned(time(&args[0])?.div_euclid(1_000_000).to_string()),
        "unixEpochNanos" => owned(time(&args[0])?.to_string()),
        "unixToTime" => {
            let value = text(&args[0]);
            let number: i64 = value.parse().map_err(|_| format!("{value:?} is no unix time"))?;
            let factor: i64 = match value.len() {
                5 => 86_400_000_000_000,
                10 => 1_000_000_000,
                13 => 1_000_000,
                16 => 1_000,
                19 => 1,
                _ => return Err(format!("{value:?} is no unix time in days, s, ms, us or ns")),
            };
            Value::Time(number.saturating_mul(factor))
        }
        "duration" | "duration_seconds" => {
            let value = text(&args[0]);
            let nanoseconds =
                units::parse_go_duration(&value).ok_or_else(|| format!("{value:?} is no duration"))?;
            Value::Float(nanoseconds as f64 / 1e9)
        }
        "bytes" => {
            let value = text(&args[0]);
            Value::Float(units::parse_bytes(&value).ok_or_else(|| format!("{value:?} is no size"))? as f64)
        }
        "alignLeft" => {
            let (count, value) = (bounded(int(&args[0]), 1)?, text(&args[1]));
            owned(format!("{:<count$}", cut(&value, 0, count)))
        }
        "alignRight" => {
            let (count, value) = (bounded(int(&args[0]), 1)?, text(&args[1]));
            let from = value.chars().count().saturating_sub(count);
            owned(format!("{:>count$}", cut(&value, from, usize::MAX)))
        }
        "b64enc" => owned(base64_encode(text(&args[0]).as_bytes())),
        "b64dec" => {
            let value = text(&args[0]);
            let bytes = base64_decode(&value).ok_or_else(|| "the text is not base64".to_owned())?;
            owned(String::from_utf8_lossy(&bytes))
        }
        "default" => {
            let at = usize::from(is_true(&args[1]));
            args.swap_remove(at)
        }
        "lower" | "ToLower" => owned(text(&args[0]).to_lowercase()),
        "upper" | "ToUpper" => owned(text(&args[0]).to_uppercase()),
        "title" => {
            let mut start = true;
            let value = text(&args[0]);
            owned(
                value
                    .chars()
                    .flat_map(|c| {
                        let upper = start && c.is_alphabetic();
                        start = !(c.is_alphanumeric() || matches!(c, '_' | '\''));
                        let changed: Vec<char> = if upper { c.to_uppercase().collect() } else { vec![c] };
                        changed
                    })
                    .collect::<String>(),
            )
        }
        "indent" | "nindent" => {
            let value = text(&args[1]);
            let width = bounded(int(&args[0]), value.matches('\n').count() + 1)?;
            let pad = " ".repeat(width);
            let indented = format!("{pad}{}", value.replace('\n', &format!("\n{pad}")));
            owned(if builtin.name == "nindent" { format!("\n{indented}") } else { indented })
        }
        "repeat" => {
            let value = text(&args[1]);
            let count = bounded(int(&args[0]), value.len())?;
            owned(value.repeat(count))
        }
        "printf" => {
            let mut out = String::new();
            printf(&mut out, &text(&args[0]), &args[1..])?;
            owned(out)
        }
        "print" | "println" => {
            let mut out = String::new();
            for (i, arg) in args.iter().enumerate() {
                if i > 0 {
                    out.push(' ');
                }
                write_value(&mut out, arg);
            }
            if builtin.name == "println" {
                out.push('\n');
            }
            owned(out)
        }
        "replace" => owned(text(&args[2]).replace(&*text(&args[0]), &text(&args[1]))),
        "Replace" => {
            let count = usize::try_from(int(&args[3])).unwrap_or(usize::MAX);
            owned(text(&args[0]).replacen(&*text(&args[1]), &text(&args[2]), count))
        }
        "substr" => {
            let (start, end, value) = (int(&args[0]), int(&args[1]), text(&args[2]));
            let end = if start >= 0 && end < 0 { usize::MAX } else { usize::try_from(end).unwrap_or(0) };
            owned(cut(&value, usize::try_from(start).unwrap_or(0), end))
        }
        "trim" | "TrimSpace" => owned(text(&args[0]).trim()),
        "trimAll" => owned(text(&args[1]).trim_matches(|c| text(&args[0]).contains(c))),
        "Trim" => owned(text(&args[0]).trim_matches(|c| text(&args[1]).contains(c))),
        "TrimLeft" => owned(text(&args[0]).trim_start_matches(|c| text(&args[1]).contains(c))),
        "TrimRight" => owned(text(&args[0]).trim_end_matches(|c| text(&args[1]).contains(c))),
        "trimPrefix" | "TrimPrefix" | "trimSuffix" | "TrimSuffix" => {
            let small = builtin.name.starts_with('t');
            let (affix, value) = if small { (&args[0], &args[1]) } else { (&args[1], &args[0]) };
            let (affix, value) = (text(affix), text(value));
            let rest = if builtin.name.ends_with("Prefix") {
                value.strip_prefix(&*affix)
            } else {
                value.strip_suffix(&*affix)
            };
            owned(rest.unwrap_or(&value))
        }
        "trunc" => {
            let (count, value) = (int(&args[0]), text(&args[1]));
            let length = value.chars().count();
            let size = usize::try_from(count.unsigned_abs()).unwrap_or(usize::MAX).min(length);
            owned(if count < 0 { cut(&value, length - size, length) } else { cut(&value, 0, size) })
        }
        "urlencode" | "urlquery" => owned(url_encode(&text(&args[0]))),
        "urldecode" => owned(url_decode(&text(&args[0]))?),
        "contains" => Value::Bool(text(&args[1]).contains(&*text(&args[0]))),
        "hasPrefix" => Value::Bool(text(&args[1]).starts_with(&*text(&args[0]))),
        "hasSuffix" => Value::Bool(text(&args[1]).ends_with(&*text(&args[0]))),
        "eq" => Value::Bool(args[1..].iter().any(|other| compare(&args[0], other).is_eq())),
        "ne" => Value::Bool(compare(&args[0], &args[1]).is_ne()),
        "lt" => Value::Bool(compare(&args[0], &args[1]).is_lt()),
        "le" => Value::Bool(compare(&args[0], &args[1]).is_le()),
        "gt" => Value::Bool(compare(&args[0], &args[1]).is_gt()),
        "ge" => Value::Bool(compare(&args[0], &args[1]).is_ge()),
        "and" => {
            let at = args.iter().position(|arg| !is_true(arg)).unwrap_or(last);
            args.swap_remove(at)
        }
        "or" => {
            let at = args.iter().position(is_true).unwrap_or(last);
            args.swap_remove(at)
        }
        "not" => Value::Bool(!is_true(&args[0])),
        "len" => Value::Int(text(&args[0]).len() as i64),
        "count" => {
            let value = text(&args[1]);
            Value::Int(with_regex(&text(&args[0]), |regex| regex.find_iter(&value).count())? as i64)
        }
        "regexReplaceAll" => {
            let (value, with) = (text(&args[1]), text(&args[2]));
            owned(with_regex(&text(&args[0]), |regex| regex.replace_all(&value, &*with).into_owned())?)
        }
        "regexReplaceAllLiteral" => {
            let (value, with) = (text(&args[1]), text(&args[2]));
            let literal = regex::NoExpand(&with);
            owned(with_regex(&text(&args[0]), |regex| regex.replace_all(&value, literal).into_owned())?)
        }
        "add" => Value::Int(ints(i64::wrapping_add)),
        "sub" => Value::Int(ints(i64::wrapping_sub)),
        "mul" => Value::Int(ints(i64::wrapping_mul)),
        "div" | "mod" => {
            let (a, b) = (int(&args[0]), int(&args[1]));
            if b == 0 {
                return Err("division by zero".to_owned());
            }
            Value::Int(if builtin.name == "div" { a.wrapping_div(b) } else { a.wrapping_rem(b) })
        }
        "max" => Value::Int(ints(i64::max)),
        "min" => Value::Int(ints(i64::min)),
        "addf" => Value::Float(floats(|a, b| a + b)),
        "subf" => Value::Float(floats(|a, b| a - b)),
        "mulf" => Value::Float(floats(|a, b| a * b)),
        "divf" => Value::Float(floats(|a, b| a / b)),
        "maxf" => Value::Float(floats(f64::max)),
        "minf" => Value::Float(floats(f64::min)),
        "ceil" => Value::Float(float(&args[0]).ceil()),
        "floor" => Value::Float(float(&args[0]).floor()),
        "round" => {
            let places = 10f64.powi(int(&args[1]).clamp(-300, 300) as i32);
            let round_on = args.get(2).map_or(0.5, float);
            let scaled = float(&args[0]) * places;
            let up = (scaled - scaled.floor()) >= round_on;
            Value::Float(if up { scaled.ceil() } else { scaled.floor() } / places)
        }
        "int" => Value::Int(int(&args[0])),
        "float64" => Value::Float(float(&args[0])),
        "quote" => owned(format!("{:?}", text(&args[0]))),
        "html" => {
            let value = text(&args[0]).replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;");
            owned(value.replace('"', "&#34;").replace('\'', "&#39;"))
        }
        other => return Err(format!("BUG: function {other} has no body")),
    })
}

/// Go's verbs that log lines use: `%s %v %q %d %f %e %g %x %X %t %c %%` with flags, width and
/// precision.
fn printf(out: &mut String, format: &str, args: &[Value<'_>]) -> Result<(), String> {
    let mut args = args.iter();
    let mut chars = format.chars().peekable();
    while let Some(c) = chars.next() {
        if c != '%' {
            out.push(c);
            continue;
        }
        let (mut left, mut zero, mut plus) = (false, false, false);
        while let Some(flag) = chars.next_if(|c| matches!(c, '-' | '0' | '+' | ' ' | '#')) {
            left |= flag == '-';
            zero |= flag == '0';
            plus |= flag == '+';
        }
        let number = |chars: &mut std::iter::Peekable<std::str::Chars<'_>>| {
            let mut value = None;
            while let Some(digit) = chars.next_if(char::is_ascii_digit) {
                value = Some((value.unwrap_or(0usize) * 10 + digit as usize - '0' as usize).min(4096));
            }
            value
        };
        let width = number(&mut chars).unwrap_or(0);
        let precision = chars.next_if_eq(&'.').map(|_| number(&mut chars).unwrap_or(0));
        let Some(verb) = chars.next() else {
            out.push_str("%!(NOVERB)");
            break;
        };
        if verb == '%' {
            out.push('%');
            continue;
        }
        let Some(arg) = args.next() else {
            let _ = write!(out, "%!{verb}(MISSING)");
            continue;
        };
        let mut shown = match verb {
            's' | 'v' | 'q' => {
                let value = text(arg);
                let value = cut(&value, 0, precision.unwrap_or(usize::MAX));
                if verb == 'q' { format!("{value:?}") } else { value }
            }
            'd' => int(arg).to_string(),
            'f' | 'F' => format!("{:.*}", precision.unwrap_or(6), float(arg)),
            'e' => format!("{:.*e}", precision.unwrap_or(6), float(arg)),
            'g' => float(arg).to_string(),
            'x' | 'X' => {
                let lower = match arg {
                    Value::Text(text) => text.bytes().fold(String::new(), |mut hex, b| {
                        let _ = write!(hex, "{b:02x}");
                        hex
                    }),
                    other => format!("{:x}", int(other)),
                };
                if verb == 'X' { lower.to_uppercase() } else { lower }
            }
            't' => is_true(arg).to_string(),
            'c' => char::from_u32(int(arg) as u32).unwrap_or(char::REPLACEMENT_CHARACTER).to_string(),
            other => return Err(format!("printf knows no verb %{other}")),
        };
        if plus && matches!(verb, 'd' | 'f' | 'F' | 'e' | 'g') && !shown.starts_with('-') {
            shown.insert(0, '+');
        }
        let pad = width.saturating_sub(shown.chars().count());
        if left {
            let _ = write!(out, "{shown}{:pad$}", "");
        } else if zero && matches!(verb, 'd' | 'f' | 'F' | 'e' | 'g' | 'x' | 'X') {
            let sign = usize::from(shown.starts_with(['-', '+']));
            let _ = write!(out, "{}{}{}", &shown[..sign], "0".repeat(pad), &shown[sign..]);
        } else {
            let _ = write!(out, "{:pad$}{shown}", "");
        }
    }
    Ok(())
}

const BASE64: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

fn base64_encode(bytes: &[u8]) -> String {
    let mut out = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for chunk in bytes.chunks(3) {
        let word = chunk.iter().enumerate().fold(0u32, |word, (i, b)| word | u32::from(*b) << (16 - 8 * i));
        for i in 0..4 {
            let digit = BASE64[(word >> (18 - 6 * i)) as usize & 63];
            out.push(if i <= chunk.len() { digit as char } else { '=' });
        }
    }
    out
}

fn base64_decode(text: &str) -> Option<Vec<u8>> {
    let mut out = Vec::with_capacity(text.len() / 4 * 3 + 2);
    let (mut word, mut bits) = (0u32, 0);
    for byte in text.trim_end_matches('=').bytes() {
        word = word << 6 | BASE64.iter().position(|digit| *digit == byte)? as u32;
        bits += 6;
        if bits >= 8 {
            bits -= 8;
            out.push((word >> bits) as u8);
            word &= (1 << bits) - 1;
        }
    }
    Some(out)
}

fn url_encode(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => out.push(byte as char),
            b' ' => out.push('+'),
            other => {
                let _ = write!(out, "%{other:02X}");
            }
        }
    }
    out
}

fn url_decode(text: &str) -> Result<String, String> {
    let mut out = Vec::with_capacity(text.len());
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        out.push(match byte {
            b'+' => b' ',
            b'%' => {
                let digit = |b: Option<u8>| b.and_then(|b| (b as char).to_digit(16));
                match (digit(bytes.next()), digit(bytes.next())) {
                    (Some(high), Some(low)) => (high * 16 + low) as u8,
                    _ => return Err("an escape of the URL is not valid".to_owned()),
                }
            }
            other => other,
        });
    }
    Ok(String::from_utf8_lossy(&out).into_owned())
}
