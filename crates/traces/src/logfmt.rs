//! logfmt, as Tempo's `tags` parameter is written: `key=value key="va\"lue" key`.

/// Why the text is no logfmt: the position in bytes and what is wrong there.
pub(crate) type Fault = (usize, &'static str);

/// Pairs in their order; a key alone has the empty value.
pub(crate) fn parse(text: &str) -> Result<Vec<(String, String)>, Fault> {
    let mut pairs = Vec::new();
    let mut rest = text.trim_start();
    let position = |rest: &str| text.len() - rest.len();
    while !rest.is_empty() {
        let end = rest.find(|c: char| c == '=' || c == '"' || c.is_whitespace()).unwrap_or(rest.len());
        let (key, after) = rest.split_at(end);
        if key.is_empty() {
            return Err((position(rest), "a key is missing"));
        }
        let value;
        (value, rest) = match after.strip_prefix('=') {
            None if after.starts_with('"') => return Err((position(after), "a quote stands in a key")),
            None => (String::new(), after),
            Some(quoted) if quoted.starts_with('"') => {
                let (value, length) = quoted_text(quoted)
                    .ok_or((position(quoted), "a quoted value has no end or a wrong escape"))?;
                let after = &quoted[length..];
                if after.starts_with(|c: char| !c.is_whitespace()) {
                    return Err((position(after), "after a quoted value comes neither a blank nor the end"));
                }
                (value, after)
            }
            Some(bare) => {
                let end = bare.find(char::is_whitespace).unwrap_or(bare.len());
                let (value, after) = bare.split_at(end);
                if let Some(wrong) = value.find(['"', '=']) {
                    return Err((position(bare) + wrong, "a value with quotes or = has to be quoted"));
                }
                (value.to_owned(), after)
            }
        };
        pairs.push((key.to_owned(), value));
        rest = rest.trim_start();
    }
    Ok(pairs)
}

/// A text in double quotes with the escapes of JSON, and its length with the quotes.
pub(crate) fn quoted_text(text: &str) -> Option<(String, usize)> {
    let mut values = serde_json::Deserializer::from_str(text).into_iter::<String>();
    let value = values.next()?.ok()?;
    Some((value, values.byte_offset()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pairs_quotes_and_faults() {
        let pairs = |text| {
            let owned = parse(text)?;
            Ok::<Vec<String>, Fault>(owned.into_iter().map(|(k, v)| format!("{k}={v}")).collect())
        };
        let want = ["service.name=cart", "url=a b\"c", "flag=", "n=5"];
        assert_eq!(pairs(r#" service.name=cart  url="a b\"c" flag n=5 "#).unwrap(), want);
        assert_eq!(pairs("").unwrap(), [""; 0]);
        for (text, fault) in [
            ("=x", (0, "a key is missing")),
            ("a=\"x", (2, "a quoted value has no end or a wrong escape")),
            ("a=\"x\"b", (5, "after a quoted value comes neither a blank nor the end")),
            ("a=b=c", (3, "a value with quotes or = has to be quoted")),
            ("a\"b", (1, "a quote stands in a key")),
        ] {
            assert_eq!(pairs(text).unwrap_err(), fault, "{text}");
        }
    }
}
