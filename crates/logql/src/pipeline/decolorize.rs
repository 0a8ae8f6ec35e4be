//! `| decolorize`: removes ANSI escape sequences.

/// Writes the line without escape sequences; returns whether there was one.
pub fn decolorize(line: &str, out: &mut String) -> bool {
    const ESCAPE: u8 = 0x1b;
    let bytes = line.as_bytes();
    if memchr::memchr(ESCAPE, bytes).is_none() {
        return false;
    }
    out.clear();
    let mut at = 0;
    while let Some(found) = memchr::memchr(ESCAPE, &bytes[at..]) {
        out.push_str(&line[at..at + found]);
        at += found + 1;
        // A control sequence: `[`, parameters, one final letter.
        if bytes.get(at) == Some(&b'[') {
            at += 1;
            while bytes.get(at).is_some_and(|b| (0x20..0x40).contains(b)) {
                at += 1;
            }
            if bytes.get(at).is_some_and(|b| (0x40..0x7f).contains(b)) {
                at += 1;
            }
        }
    }
    out.push_str(&line[at..]);
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sequences_go_and_text_stays() {
        let mut out = String::new();
        assert!(decolorize("\u{1b}[1;32mGET\u{1b}[0m /ä \u{1b}", &mut out));
        assert_eq!(out, "GET /ä ");
        assert!(!decolorize("plain", &mut out));
    }
}
