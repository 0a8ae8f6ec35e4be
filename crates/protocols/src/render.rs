//! Values as text: JSON strings, numbers, base64.

use std::fmt::Write as _;

/// Appends a JSON string with its quotes.
pub(crate) fn json_string(out: &mut String, text: &str) {
    out.push('"');
    let mut rest = text;
    while let Some(at) = rest.bytes().position(|b| b == b'"' || b == b'\\' || b < 0x20) {
        let (plain, special) = rest.split_at(at);
        out.push_str(plain);
        match special.as_bytes()[0] {
            b'"' => out.push_str("\\\""),
            b'\\' => out.push_str("\\\\"),
            b'\n' => out.push_str("\\n"),
            b'\r' => out.push_str("\\r"),
            b'\t' => out.push_str("\\t"),
            control => write!(out, "\\u{control:04x}").expect("writing to memory cannot fail"),
        }
        rest = &special[1..];
    }
    out.push_str(rest);
    out.push('"');
}

/// Appends a number: `1`, `0.25`, `1e300`; `NaN`, `Infinity`, `-Infinity` as proto3 JSON names them.
pub(crate) fn double(out: &mut String, value: f64) {
    let magnitude = value.abs();
    let written = if value.is_nan() {
        write!(out, "NaN")
    } else if value.is_infinite() {
        write!(out, "{}", if value > 0.0 { "Infinity" } else { "-Infinity" })
    } else if magnitude != 0.0 && !(1e-5..1e16).contains(&magnitude) {
        write!(out, "{value:e}")
    } else {
        write!(out, "{value}")
    };
    written.expect("writing to memory cannot fail");
}

/// Appends standard base64 with padding (RFC 4648, section 4).
pub(crate) fn base64(out: &mut String, bytes: &[u8]) {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    for chunk in bytes.chunks(3) {
        let [a, b, c] = [0, 1, 2].map(|i| u32::from(chunk.get(i).copied().unwrap_or(0)));
        let group = a << 16 | b << 8 | c;
        for i in 0..4 {
            let digit = char::from(ALPHABET[(group >> (18 - 6 * i)) as usize & 63]);
            out.push(if i <= chunk.len() { digit } else { '=' });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(f: impl FnOnce(&mut String)) -> String {
        let mut out = String::new();
        f(&mut out);
        out
    }

    #[test]
    fn base64_as_in_rfc_4648_section_10() {
        let known = [
            ("", ""),
            ("f", "Zg=="),
            ("fo", "Zm8="),
            ("foo", "Zm9v"),
            ("foob", "Zm9vYg=="),
            ("fooba", "Zm9vYmE="),
        ];
        for (plain, coded) in known {
            assert_eq!(with(|out| base64(out, plain.as_bytes())), coded);
        }
    }

    #[test]
    fn strings_read_back_and_doubles_are_short() {
        let text = "a\"b\\c\nd\u{1}e\u{7f}ü\u{2028}";
        let json = with(|out| json_string(out, text));
        assert_eq!(serde_json::from_str::<String>(&json).unwrap(), text);
        for (value, want) in [(1.0, "1"), (-0.25, "-0.25"), (1e300, "1e300"), (1e-7, "1e-7"), (0.0, "0")] {
            assert_eq!(with(|out| double(out, value)), want);
        }
        assert_eq!(with(|out| double(out, f64::NEG_INFINITY)), "-Infinity");
    }
}
